//! The connections, kept from run to run: a start that arrives between two runs waits here instead of being lost, and what is
//! left of an old series is known by its name and thrown away.

use super::config::{DectrisConfig, Endpoint};
use super::counters::{Counters, count};
use super::error::DectrisError;
use super::incoming::Incoming;
use super::line::{Filling, Line, Place, Progress};
use super::series::Series;
use super::zmtp::Refusal;
use crate::clock::monotonic_ns;
use crate::net::Poller;
use crate::source::PATIENCE_NS;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Images that are kept until their start comes.
const EARLY_MESSAGES_MAX: usize = 64;
/// Bytes of such images, and of messages that wait between two runs.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// Room for everything of an image's message but its pixels.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Between two runs nobody waits for the connections: this is the time between two looks at them.
const LOOK: Duration = Duration::from_millis(20);

/// What has come.
#[allow(clippy::large_enum_variant)] // an image in a box would be allocated, once a frame
pub(super) enum Came {
    /// nothing within 20 ms, or an image for which there is no slot
    Nothing,
    /// a message, in [`Station::now`]
    Message,
    /// an image, in its slot
    Image(Filling),
}

/// How the messages come.
enum Wire {
    /// straight
    Lines {
        lines: Vec<Line>,
        turn: usize,
        poller: Poller,
    },
    /// through libzmq: for addresses that are more than an address, and for peers that speak ZMTP 1 or 2
    Library {
        socket: zmq::Socket,
        _context: zmq::Context,
    },
}

/// The connections and what they know of series.
pub(super) struct Station {
    wire: Wire,
    addresses: Vec<String>,
    queue_messages: i32,
    message_bytes_max: i64,
    pub(super) series: Series,
    /// the message that was received last
    pub(super) now: Incoming,
    spare: Incoming,
    /// a start that ended a run and begins the next
    next: Option<Incoming>,
    /// images before their start
    early: VecDeque<Incoming>,
    /// early images whose series has begun are handed out before the connections are asked
    replaying: bool,
    /// messages that came between two runs
    between: VecDeque<Incoming>,
    /// connections that ended and were not counted yet
    ended: u64,
}

impl Station {
    /// Connects; a detector that is not there yet is found when it comes.
    pub(super) fn connect(config: &DectrisConfig) -> Result<Self, DectrisError> {
        let plain: Option<Vec<Endpoint>> = config
            .addresses
            .iter()
            .map(|address| Endpoint::plain(address))
            .collect();
        let message_bytes_max = config.message_bytes_max.unsigned_abs();
        let wire = match plain {
            Some(endpoints) => Wire::Lines {
                lines: endpoints
                    .into_iter()
                    .map(|endpoint| Line::new(endpoint, message_bytes_max))
                    .collect(),
                turn: 0,
                poller: Poller::default(),
            },
            None => library(&config.addresses, config.queue_messages, config.message_bytes_max)?,
        };
        Ok(Self {
            wire,
            addresses: config.addresses.clone(),
            queue_messages: config.queue_messages,
            message_bytes_max: config.message_bytes_max,
            series: Series::new(config.patience(None)),
            now: Incoming::new(),
            spare: Incoming::new(),
            next: None,
            early: VecDeque::with_capacity(EARLY_MESSAGES_MAX),
            replaying: false,
            between: VecDeque::new(),
            ended: 0,
        })
    }

    /// Receives the next message into [`Station::now`], as [`Station::receive_into`], without giving any image its slot. It
    /// may wait longer, for the name of a detector to be looked up.
    pub(super) fn receive(&mut self, counters: &Counters) -> Result<bool, DectrisError> {
        let came = self.receive_into(counters, true, &mut |_, _, _| Place::Memory)?;
        Ok(matches!(came, Came::Message))
    }

    /// Receives the next message, or nothing within 20 ms. `place` is shown the first bytes of a large one and told how many
    /// follow them.
    pub(super) fn receive_into(
        &mut self,
        counters: &Counters,
        may_wait: bool,
        place: &mut dyn FnMut(&Series, &[u8], usize) -> Place,
    ) -> Result<Came, DectrisError> {
        if self.replaying {
            if let Some(early) = self.early.pop_front() {
                self.show(early);
                return Ok(Came::Message);
            }
            self.replaying = false;
        }
        if let Some(next) = self.next.take() {
            self.show(next);
            return Ok(Came::Message);
        }
        let came = match self.between.pop_front() {
            Some(message) => {
                self.show(message);
                Came::Message
            }
            None => {
                if self.now.room_bytes() < self.spare.room_bytes() {
                    std::mem::swap(&mut self.now, &mut self.spare);
                }
                self.wait(may_wait, place)?
            }
        };
        counters.disconnects.fetch_add(std::mem::take(&mut self.ended), Relaxed);
        if !matches!(came, Came::Nothing) {
            count(&counters.messages);
        }
        Ok(came)
    }

    /// Hands out a message that was kept. Of the two that it may take the place of, the one with more room stays.
    fn show(&mut self, kept: Incoming) {
        let last = std::mem::replace(&mut self.now, kept);
        if last.room_bytes() >= self.spare.room_bytes() {
            self.spare = last;
        }
    }

    fn wait(
        &mut self,
        may_wait: bool,
        place: &mut dyn FnMut(&Series, &[u8], usize) -> Place,
    ) -> Result<Came, DectrisError> {
        if let Wire::Library { socket, .. } = &mut self.wire {
            let came = library_receive(socket, &mut self.now);
            return came.map_err(|error| failed(&self.addresses.join(", "), error));
        }
        let until_ns = monotonic_ns() + PATIENCE_NS;
        loop {
            let came = self.look(may_wait, false, place)?;
            let left_ns = until_ns.saturating_sub(monotonic_ns());
            match came {
                Some(came) => return Ok(came),
                None if left_ns == 0 => return Ok(Came::Nothing),
                None => {}
            }
            let Wire::Lines { lines, poller, .. } = &mut self.wire else {
                return Ok(Came::Nothing);
            };
            poller.clear();
            for line in lines {
                line.watch(poller);
            }
            poller.wait(left_ns.div_ceil(1_000_000) as i32);
        }
    }

    /// Takes what has come on each connection in turn, until there is a message; `None` where there is none. With `greet_only`
    /// what comes behind the greetings is left where it is.
    fn look(
        &mut self,
        may_wait: bool,
        greet_only: bool,
        place: &mut dyn FnMut(&Series, &[u8], usize) -> Place,
    ) -> Result<Option<Came>, DectrisError> {
        let Wire::Lines { lines, turn, .. } = &mut self.wire else {
            return Ok(None);
        };
        let (now_ns, series) = (monotonic_ns(), &self.series);
        for _ in 0..lines.len() {
            *turn = (*turn + 1) % lines.len();
            let line = &mut lines[*turn];
            self.ended += u64::from(!line.tend(now_ns, may_wait));
            if greet_only && line.ready() {
                continue;
            }
            match line.advance(now_ns, &mut |head, beyond| place(series, head, beyond)) {
                Progress::Message => {
                    std::mem::swap(&mut self.now, &mut line.incoming);
                    line.incoming.clear();
                    return Ok(Some(Came::Message));
                }
                Progress::Image(filling) => return Ok(Some(Came::Image(filling))),
                Progress::NoSlot => return Ok(Some(Came::Nothing)),
                Progress::Dry => {}
                Progress::Ended if line.refusal == Some(Refusal::Older) => {
                    self.wire = library(&self.addresses, self.queue_messages, self.message_bytes_max)?;
                    return Ok(None);
                }
                Progress::Ended => self.ended += 1,
            }
        }
        Ok(None)
    }

    /// Between two runs: makes connections, answers peers, and takes messages as long as there is room for them.
    fn attend(&mut self) {
        let mut bytes: usize = self.between.iter().map(Incoming::bytes).sum();
        for _ in 0..self.queue_messages {
            let full = self.between.len() >= self.queue_messages as usize || bytes >= WAITING_BYTES_MAX;
            match self.look(true, full, &mut |_, _, _| Place::Memory) {
                Ok(Some(Came::Message)) => {
                    bytes += self.now.bytes();
                    self.between.push_back(self.now.copied());
                }
                // What is wrong shows when a run is armed.
                _ => return,
            }
        }
    }

    /// Makes room for messages with images of up to `bytes`, so that none is made while they come.
    pub(super) fn reserve(&mut self, bytes: usize) {
        let room = bytes + HEAD_BYTES_MAX;
        self.now.reserve(room);
        self.spare.reserve(room);
        if let Wire::Lines { lines, .. } = &mut self.wire {
            lines.iter_mut().for_each(|line| line.incoming.reserve(room));
        }
    }

    /// Why a detector that was found cannot be listened to.
    pub(super) fn refusal(&self) -> Option<String> {
        let Wire::Lines { lines, .. } = &self.wire else {
            return None;
        };
        let refused = |(line, address): (&Line, &String)| Some(format!("{address}: {}", line.refusal?));
        lines.iter().zip(&self.addresses).find_map(refused)
    }

    /// Gives back every slot: the run is over. An image that was not whole is none of the next one's.
    pub(super) fn give_back(&mut self) {
        if let Wire::Lines { lines, .. } = &mut self.wire {
            for line in lines {
                if line.give_back() {
                    self.series.on_early_lost();
                }
            }
        }
    }

    /// Keeps the message for the next run.
    pub(super) fn keep_for_next(&mut self) {
        let spare = std::mem::replace(&mut self.spare, Incoming::new());
        self.next = Some(std::mem::replace(&mut self.now, spare));
    }

    /// Keeps an image until its series begins; false if there is no room. Before a run only: it allocates.
    pub(super) fn keep_early(&mut self) -> bool {
        let bytes: usize = self.early.iter().map(Incoming::bytes).sum();
        if self.early.len() == EARLY_MESSAGES_MAX || bytes + self.now.bytes() > WAITING_BYTES_MAX {
            return false;
        }
        self.early.push_back(self.now.copied());
        true
    }

    /// A series has begun: what was kept is handed out first.
    pub(super) fn replay_early(&mut self) {
        self.replaying = true;
    }
}

fn failed(address: &str, error: zmq::Error) -> DectrisError {
    DectrisError::Socket {
        address: address.into(),
        reason: error.to_string(),
    }
}

/// A PULL socket of libzmq, connected to every address.
fn library(addresses: &[String], queue_messages: i32, message_bytes_max: i64) -> Result<Wire, DectrisError> {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::PULL);
    let socket = socket.map_err(|error| failed("a PULL socket", error))?;
    let set = || {
        socket.set_rcvhwm(queue_messages)?;
        socket.set_maxmsgsize(message_bytes_max)?;
        socket.set_rcvtimeo((PATIENCE_NS / 1_000_000) as i32)?;
        socket.set_linger(0)?;
        socket.set_rcvbuf(8 << 20)?;
        socket.set_tcp_keepalive(1)?;
        socket.set_tcp_keepalive_idle(5)?;
        socket.set_tcp_keepalive_intvl(2)?;
        socket.set_tcp_keepalive_cnt(3)
    };
    set().map_err(|error| failed("a PULL socket", error))?;
    for address in addresses {
        socket.connect(address).map_err(|error| failed(address, error))?;
    }
    Ok(Wire::Library {
        socket,
        _context: context,
    })
}

/// The next message; its parts arrive together.
fn library_receive(socket: &zmq::Socket, into: &mut Incoming) -> Result<Came, zmq::Error> {
    into.clear();
    loop {
        let mut part = zmq::Message::new();
        match socket.recv(&mut part, 0) {
            Ok(()) => {}
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) if into.is_empty() => return Ok(Came::Nothing),
            Err(error) => return Err(error),
        }
        let more = part.get_more();
        into.push(part);
        if !more {
            return Ok(Came::Message);
        }
    }
}

/// A station without a run, and the thread that looks after it.
#[derive(Default)]
struct Lot {
    place: Mutex<Parking>,
    changed: Condvar,
}

#[derive(Default)]
struct Parking {
    station: Option<Station>,
    attended: bool,
}

/// Where the connections wait between two runs.
#[derive(Clone, Default)]
pub struct Parked(Arc<Lot>);

impl Parked {
    /// Connects now, so that a start that comes before the first run is not missed.
    pub fn connect(&self, config: &DectrisConfig) -> Result<(), crate::source::SourceError> {
        config.check()?;
        if self.lock().station.is_none() {
            self.put(Station::connect(config)?);
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Parking> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, config: &DectrisConfig) -> Result<Station, DectrisError> {
        let parked = self.lock().station.take();
        match parked {
            Some(station) if station.addresses == config.addresses => Ok(station),
            _ => Station::connect(config),
        }
    }

    pub(super) fn put(&self, station: Station) {
        let mut place = self.lock();
        place.station = Some(station);
        if !place.attended {
            let lot = Arc::downgrade(&self.0);
            let thread = std::thread::Builder::new().name("fluxline-stream".into());
            // Without it the connections are looked after when a run is armed.
            place.attended = thread.spawn(move || look_after(&lot)).is_ok();
        }
        drop(place);
        self.0.changed.notify_all();
    }
}

/// Looks after a parked station until nobody can arm a run any more.
fn look_after(lot: &Weak<Lot>) {
    while let Some(lot) = lot.upgrade() {
        let mut place = lot.place.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut place.station {
            Some(station) => station.attend(),
            None => {
                // A poisoned lock changes nothing here: the next look takes it as it is.
                let _ = lot.changed.wait_timeout(place, Duration::from_secs(1));
                continue;
            }
        }
        drop(place);
        drop(lot);
        std::thread::sleep(LOOK);
    }
}
