//! The source that the pipeline sees.

use super::assembly::{Assembly, BATCH, Out, Settled};
use super::config::UdpConfig;
use super::counters::{Counters, add};
use crate::clock::monotonic_ns;
use crate::memory::FrameRing;
use crate::net::{self, Poller, Receiver};
use crate::source::{Arrival, FrameSource, PATIENCE_NS, SourceError, WhenFull};
use frame::{Compression, StreamDescription};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks for frames that wait too long, and for packets that the kernel dropped.
const CARE_NS: u64 = 5_000_000;
/// Batches after which a look is taken all the same while packets still wait: more than a socket holds.
const BATCHES_FIRST: u32 = 4096;
/// Longest time that arming waits for silence.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Why a UDP source cannot be made ready or go on.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// a socket cannot be bound
    #[error("cannot listen on {address}: {reason}; it must be an address of this machine that no other program uses")]
    Bind {
        /// the address
        address: SocketAddr,
        /// the system's words
        reason: std::io::Error,
    },
    /// a socket fails
    #[error("receiving at {address}: {reason}")]
    Receive {
        /// the address
        address: String,
        /// the system's words
        reason: std::io::Error,
    },
    /// the emulator cannot send
    #[error("sending to {address}: {reason}")]
    Send {
        /// the receiver
        address: SocketAddr,
        /// the system's words
        reason: std::io::Error,
    },
    /// the detector does not stop
    #[error("packets kept coming for 10 s while the run was armed: stop the detector, arm the run, then start it")]
    NeverQuiet,
}

struct Port {
    address: SocketAddr,
    socket: UdpSocket,
    /// packets dropped by the kernel that were counted
    dropped: u32,
    buffer_bytes: usize,
}

/// Frames of a detector's packets.
pub struct UdpSource {
    config: UdpConfig,
    counters: Arc<Counters>,
    assembly: Assembly,
    stream: StreamDescription,
    receiver: Receiver,
    ports: Vec<Port>,
    poller: Poller,
    turn: usize,
    timeout_ns: u64,
    silence_ns: u64,
    next_care_ns: u64,
    /// batches received since a look was due
    batches_since: u32,
    over: bool,
    silent: bool,
}

impl UdpSource {
    /// Checks the configuration. Sockets are bound when the source is armed.
    pub fn new(config: &UdpConfig, counters: Arc<Counters>) -> Result<Self, SourceError> {
        config.check()?;
        let assembly = Assembly::new(config, counters.clone(), config.addresses.len())?;
        Ok(Self {
            stream: describe(config, &assembly),
            receiver: Receiver::new(BATCH, config.window + 8 + BATCH),
            ports: Vec::new(),
            poller: Poller::default(),
            turn: 0,
            timeout_ns: (config.frame_timeout_s * 1e9) as u64,
            silence_ns: (config.silence_timeout_s * 1e9) as u64,
            next_care_ns: 0,
            batches_since: 0,
            over: false,
            silent: false,
            config: config.clone(),
            counters,
            assembly,
        })
    }

    /// Throws away what comes until nothing has come for a while.
    fn settle(&mut self) -> Result<(), SourceError> {
        let quiet = Duration::from_secs_f64(self.config.settle_s);
        let (began, mut last) = (Instant::now(), Instant::now());
        let mut byte = [0];
        while last.elapsed() < quiet {
            for port in &self.ports {
                while port.socket.recv_from(&mut byte).is_ok() {
                    add(&self.counters.stray, 1);
                    last = Instant::now();
                    if began.elapsed() > SETTLE_MAX {
                        return Err(UdpError::NeverQuiet.into());
                    }
                }
            }
            self.poller.wait(1);
        }
        Ok(())
    }

    /// Receives from the next socket that has something; whether one had.
    fn receive(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<bool, SourceError> {
        for _ in 0..self.ports.len() {
            let port = self.turn;
            self.turn = (self.turn + 1) % self.ports.len();
            let (targets, memory) = self.assembly.aim(port, ring);
            let came = self
                .receiver
                .receive(&self.ports[port].socket, targets, memory)
                .map_err(|reason| UdpError::Receive {
                    address: self.ports[port].address.to_string(),
                    reason,
                })?;
            if came > 0 {
                let receiver = &self.receiver;
                self.assembly
                    .settle(came, |index| receiver.message(index), ring, when_full, monotonic_ns());
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Frames that wait too long, packets that the kernel dropped, the end of the run.
    fn care(&mut self, now_ns: u64) {
        (self.next_care_ns, self.batches_since) = (now_ns + CARE_NS, 0);
        self.assembly.expire(now_ns, self.timeout_ns);
        self.count_drops();
        let last = self.assembly.last_packet_ns();
        self.silent = last > 0 && now_ns.saturating_sub(last) >= self.silence_ns;
        if self.silent || self.assembly.whole() {
            self.assembly.end(now_ns);
            self.over = true;
        }
    }

    fn count_drops(&mut self) {
        for port in &mut self.ports {
            if let Ok(dropped) = net::drops(&port.socket) {
                add(
                    &self.counters.socket_drops,
                    u64::from(dropped.wrapping_sub(port.dropped)),
                );
                port.dropped = dropped;
            }
        }
    }
}

fn describe(config: &UdpConfig, assembly: &Assembly) -> StreamDescription {
    let layout = assembly.layout();
    StreamDescription {
        origin: format!("{} at {}", config.detector.name(), config.addresses.join(", ")),
        shape: layout.shape,
        pixel_type: layout.pixel_type,
        compression: Compression::None,
        payload_bytes_max: layout.frame_bytes(),
        frames_expected: config.frames,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: false,
        parts: layout.packets() as u32,
        // Missing pixels hold this value, and kernels leave out what is saturated.
        saturation_value: Some(layout.pixel_type.max_value()),
        mask: Some(layout.mask()),
        detector: config.description(),
        metadata: Default::default(),
    }
}

impl FrameSource for UdpSource {
    fn stream(&self) -> &StreamDescription {
        &self.stream
    }

    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        self.ports.clear();
        for address in self.config.socket_addresses()? {
            let bound = net::bind(address, self.config.receive_buffer_bytes);
            let (socket, buffer_bytes) = bound.map_err(|reason| UdpError::Bind { address, reason })?;
            self.ports.push(Port {
                address,
                socket,
                dropped: 0,
                buffer_bytes,
            });
        }
        self.poller = Poller::new(self.ports.iter().map(|port| &port.socket));
        (self.turn, self.over, self.silent) = (0, false, false);
        self.assembly.begin(epoch);
        self.settle()
    }

    fn prepare(&mut self, ring: &FrameRing) -> Result<(), SourceError> {
        self.assembly.prepare(ring)
    }

    fn next(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Arrival, SourceError> {
        let until_ns = monotonic_ns() + PATIENCE_NS;
        loop {
            match self.assembly.pop() {
                Some(Out::Frame(lease)) => return Ok(Arrival::Frame(lease)),
                Some(Out::Dropped(frame_number)) => return Ok(Arrival::Dropped { frame_number }),
                None if self.over => return Ok(Arrival::End),
                None => {}
            }
            let now_ns = monotonic_ns();
            if self.assembly.waiting() {
                if self.assembly.resume(ring, when_full, now_ns) == Settled::NoSlot {
                    return Ok(Arrival::Idle);
                }
                continue;
            }
            // Whoever was held up finds packets waiting: what they belong to lacks nothing yet.
            let due = now_ns >= self.next_care_ns;
            if due && self.batches_since >= BATCHES_FIRST || self.assembly.whole() {
                self.care(now_ns);
                continue;
            }
            if self.receive(ring, when_full)? {
                self.batches_since += u32::from(due);
                continue;
            }
            if due {
                self.care(now_ns);
                continue;
            }
            if now_ns >= until_ns {
                return Ok(Arrival::Idle);
            }
            let left_ns = until_ns.min(self.next_care_ns) - now_ns;
            self.poller.wait((left_ns / 1_000_000).max(1) as i32);
        }
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.silent && !self.assembly.whole() {
            remarks.push("the detector fell silent before the run had every frame".to_string());
        }
        let asked = self.config.receive_buffer_bytes;
        for port in self.ports.iter().filter(|port| port.buffer_bytes < asked) {
            remarks.push(format!(
                "the kernel keeps {} bytes for {}, {asked} were asked for: sysctl -w net.core.rmem_max={asked}",
                port.buffer_bytes, port.address
            ));
        }
        remarks
    }
}
