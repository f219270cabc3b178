//! The socket, kept from run to run: a start that arrives between two runs waits in it instead of being lost, and what is
//! left of an old series is known by its name and thrown away.

use super::config::{DectrisConfig, Version};
use super::counters::{Counters, count};
use super::error::{DecodeError, DectrisError, Found};
use super::message::Message;
use super::series::Series;
use super::{v1, v2};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest wait for a message, milliseconds: within a source's patience.
const WAIT_MS: i32 = 20;
/// Images that are kept until their start comes.
const EARLY_MESSAGES_MAX: usize = 64;
/// Bytes of such images.
const EARLY_BYTES_MAX: usize = 256 << 20;

/// A message as it came: one part, or several of stream V1. The room for parts is kept.
pub(super) struct Incoming {
    parts: Vec<zmq::Message>,
    used: usize,
    /// parts beyond those that any message has
    extra: usize,
}

impl Incoming {
    fn new() -> Self {
        Self {
            parts: (0..v1::PARTS_MAX).map(|_| zmq::Message::new()).collect(),
            used: 0,
            extra: 0,
        }
    }

    fn bytes(&self) -> usize {
        self.parts[..self.used].iter().map(|part| part.len()).sum()
    }

    /// What it says. Of an image the channel called `channel`, or the first.
    pub(super) fn decode(&self, version: Version, channel: Option<&str>) -> Result<Message<'_>, DecodeError> {
        let first: &[u8] = self.parts.first().map_or(&[], |part| part);
        if self.extra > 0 {
            let found = Found::Number((self.used + self.extra) as u64);
            return Err(DecodeError::new("parts", found, "at most 16 parts"));
        }
        let is_v1 = match version {
            Version::V1 => true,
            Version::V2 => false,
            Version::Auto => v1::looks_like(first),
        };
        if is_v1 {
            let mut parts: [&[u8]; v1::PARTS_MAX] = [&[]; v1::PARTS_MAX];
            for (part, message) in parts.iter_mut().zip(&self.parts[..self.used]) {
                *part = message;
            }
            return v1::decode(&parts[..self.used]);
        }
        if self.used != 1 {
            return Err(DecodeError::new(
                "parts",
                Found::Number(self.used as u64),
                "one part in stream V2",
            ));
        }
        if version == Version::Auto && !v2::looks_like(first) {
            return Err(DecodeError::new(
                "message",
                Found::AtByte(0),
                "CBOR of stream V2 or JSON of stream V1",
            ));
        }
        v2::decode(first, channel)
    }
}

/// The socket and what it knows of series.
pub(super) struct Station {
    socket: zmq::Socket,
    _context: zmq::Context,
    addresses: Vec<String>,
    pub(super) series: Series,
    /// the message that was received last
    pub(super) now: Incoming,
    spare: Incoming,
    /// a start that ended a run and begins the next
    next: Option<Incoming>,
    /// images before their start
    early: VecDeque<Incoming>,
    /// early images whose series has begun are handed out before the socket is asked
    replaying: bool,
}

impl Station {
    /// Connects; a detector that is not there yet is found when it comes.
    pub(super) fn connect(config: &DectrisConfig) -> Result<Self, DectrisError> {
        let failed = |address: &str| {
            let address = address.to_string();
            move |error: zmq::Error| DectrisError::Socket {
                address,
                reason: error.to_string(),
            }
        };
        let context = zmq::Context::new();
        let socket = context.socket(zmq::PULL).map_err(failed("a PULL socket"))?;
        let set = || {
            socket.set_rcvhwm(config.queue_messages)?;
            socket.set_maxmsgsize(config.message_bytes_max)?;
            socket.set_rcvtimeo(WAIT_MS)?;
            socket.set_linger(0)?;
            socket.set_rcvbuf(8 << 20)?;
            socket.set_tcp_keepalive(1)?;
            socket.set_tcp_keepalive_idle(5)?;
            socket.set_tcp_keepalive_intvl(2)?;
            socket.set_tcp_keepalive_cnt(3)
        };
        set().map_err(failed("a PULL socket"))?;
        for address in &config.addresses {
            socket.connect(address).map_err(failed(address))?;
        }
        Ok(Self {
            socket,
            _context: context,
            addresses: config.addresses.clone(),
            series: Series::new(config.patience(None)),
            now: Incoming::new(),
            spare: Incoming::new(),
            next: None,
            early: VecDeque::with_capacity(EARLY_MESSAGES_MAX),
            replaying: false,
        })
    }

    /// Receives the next message into [`Station::now`]; false if there is none within 20 ms.
    pub(super) fn receive(&mut self, counters: &Counters) -> Result<bool, DectrisError> {
        if self.replaying {
            if let Some(early) = self.early.pop_front() {
                self.now = early;
                return Ok(true);
            }
            self.replaying = false;
        }
        if let Some(next) = self.next.take() {
            self.spare = std::mem::replace(&mut self.now, next);
            return Ok(true);
        }
        let failed = |error: zmq::Error| DectrisError::Socket {
            address: self.addresses.join(", "),
            reason: error.to_string(),
        };
        let now = &mut self.now;
        (now.used, now.extra) = (0, 0);
        match self.socket.recv(&mut now.parts[0], 0) {
            Ok(()) => now.used = 1,
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        // The parts of a message arrive together.
        while now.parts[now.used - 1].get_more() {
            if now.used == now.parts.len() {
                let mut rest = zmq::Message::new();
                self.socket.recv(&mut rest, 0).map_err(failed)?;
                now.extra += 1;
                if !rest.get_more() {
                    break;
                }
                continue;
            }
            self.socket.recv(&mut now.parts[now.used], 0).map_err(failed)?;
            now.used += 1;
        }
        count(&counters.messages);
        Ok(true)
    }

    /// Keeps the message for the next run.
    pub(super) fn keep_for_next(&mut self) {
        let kept = std::mem::replace(
            &mut self.now,
            std::mem::replace(
                &mut self.spare,
                Incoming {
                    parts: Vec::new(),
                    used: 0,
                    extra: 0,
                },
            ),
        );
        self.next = Some(kept);
    }

    /// Keeps an image until its series begins; false if there is no room. Before a run only: it allocates.
    pub(super) fn keep_early(&mut self) -> bool {
        let bytes: usize = self.early.iter().map(Incoming::bytes).sum();
        if self.early.len() == EARLY_MESSAGES_MAX || bytes + self.now.bytes() > EARLY_BYTES_MAX {
            return false;
        }
        self.early.push_back(std::mem::replace(&mut self.now, Incoming::new()));
        true
    }

    /// A series has begun: what was kept is handed out first.
    pub(super) fn replay_early(&mut self) {
        self.replaying = true;
    }
}

/// Where the socket waits between two runs.
#[derive(Clone, Default)]
pub struct Parked(Arc<Mutex<Option<Station>>>);

impl Parked {
    /// Connects now, so that a start that comes before the first run is not missed.
    pub fn connect(&self, config: &DectrisConfig) -> Result<(), crate::source::SourceError> {
        config.check()?;
        let mut parked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if parked.is_none() {
            *parked = Some(Station::connect(config)?);
        }
        Ok(())
    }

    pub(super) fn take(&self, config: &DectrisConfig) -> Result<Station, DectrisError> {
        let parked = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match parked {
            Some(station) if station.addresses == config.addresses => Ok(station),
            _ => Station::connect(config),
        }
    }

    pub(super) fn put(&self, station: Station) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(station);
    }
}
