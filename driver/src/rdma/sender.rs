//! The other side: takes the frames of any source and sends them to a receiver in reliable mode, as a detector's read-out
//! would. It can also do what a sender must not do, for tests.

use super::admission::Reason;
use super::description::Description;
use super::link::{Ended, Link, LinkSize};
use super::verbs::{
    Access, Buffer, CmEvent, CmId, Completion, CompletionQueue, Device, EventChannel, MemoryRegion, Opcode,
    ProtectionDomain, Status, VerbsError, Work,
};
use super::wire::{self, CAPABILITY_PAYLOAD_CRC, Hello, MAGIC, MESSAGE_BYTES_MAX, MessageKind, Refusal, Welcome};
use super::{RdmaError, VERSION};
use crate::memory::{FrameLease, FrameRing};
use crate::source::{Arrival, FrameSource, SourceError, WhenFull};
use frame::HostRegion;
use frame::header::HEADER_PAGE_BYTES;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

/// Receives beside one for every credit: a heartbeat, a refusal, the answer to the end, and one to spare.
const RECEIVES_MORE: usize = 4;
/// Slots that are asked for where nothing is said: as many as the receiver gives.
const AS_MANY_AS_GIVEN: u32 = 0;
/// Most slots that a receiver gives.
const CREDITS_MAX: usize = wire::CREDITS_MAX as usize;
/// Longest wait for the receiver's answer to the end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Longest wait for the first slots of a connection that stands: the receiver may compile its kernels meanwhile.
pub(super) const ARMING: Duration = Duration::from_secs(600);
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);
/// `rdma_cm`'s status of a connection that the program at the other side refused.
const REJECTED_BY_PROGRAM: i32 = 28;

/// What a sender does wrong, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// nothing
    #[default]
    None,
    /// shows a token that is not the receiver's
    WrongToken,
    /// asks for more slots than anybody has
    AskTooMuch,
    /// announces frames that fit no slot
    FrameTooLarge,
    /// says that it is in another run
    StaleHello,
    /// writes the epoch of another run into the first so many headers
    StaleEpoch(u64),
    /// forces its queue pair into the error state after every so many frames
    QueuePairError(u64),
    /// writes half of a frame after so many and waits to be killed
    HalfAFrame(u64),
}

/// How to send.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// the receiver
    pub address: SocketAddr,
    /// what it wants to hear
    pub token: Option<String>,
    /// connections
    pub queue_pairs: u16,
    /// how long to look for a receiver, each time
    pub connect_timeout: Duration,
    /// lets frames go that find no slot at the receiver, instead of waiting
    pub when_full: WhenFull,
    /// whether every header carries a checksum of its payload
    pub checksums: bool,
    /// what to do wrong
    pub fault: Fault,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct SendReport {
    /// frames taken from the source
    pub frames: u64,
    /// of these, announced, and the receiver's device has acknowledged it
    pub acknowledged: u64,
    /// of these, let go because there was no slot
    pub dropped: u64,
    /// of these, on their way when a connection broke: they may have arrived or not
    pub in_doubt: u64,
    /// connections that broke
    pub broken: u64,
    /// longest time from a break to the next slots, seconds
    pub longest_break_s: f64,
    /// payload bytes acknowledged
    pub bytes: u64,
    /// from the first frame to the receiver's last word
    pub seconds: f64,
    /// the run's epoch
    pub epoch: u32,
}

/// One connection of the sender.
struct Outlet {
    link: Link,
    /// slots that it may write: number, key, address
    granted: VecDeque<(u16, u32, u64)>,
    /// frames on their way, by slot of our own ring, which cannot be used again before
    flying: Vec<Option<FrameLease>>,
    done: bool,
}

/// See the module.
pub struct RdmaSender {
    outlets: Vec<Outlet>,
    frames: Arc<MemoryRegion>,
    channel: Arc<EventChannel>,
    domain: ProtectionDomain,
    config: SenderConfig,
    description: Vec<u8>,
    payload_bytes_max: u64,
    name: u64,
    epoch: u32,
    report: SendReport,
    next_outlet: usize,
    /// connections on which the end has been said
    said: Vec<u32>,
    /// of these, how many are gone since: the receiver has what it wanted
    finished: usize,
}

impl RdmaSender {
    /// Registers the sender's ring. `device` as in [`super::RdmaConfig`].
    pub fn new(
        config: SenderConfig,
        device: Option<&str>,
        ring: &FrameRing,
        source: &dyn FrameSource,
    ) -> Result<Self, SourceError> {
        let device = Device::open(device).map_err(RdmaError::from)?;
        let domain = ProtectionDomain::new(&device).map_err(RdmaError::from)?;
        let frames = MemoryRegion::register(&domain, ring.region(), Access::LocalRead).map_err(RdmaError::from)?;
        let mut description = Description::of(source.stream());
        if config.fault == Fault::FrameTooLarge {
            description.payload_bytes_max = 1 << 40;
        }
        let json = serde_json::to_vec(&description).map_err(|error| RdmaError::Refused {
            reason: error.to_string(),
        })?;
        if json.len() > wire::DESCRIPTION_BYTES_MAX {
            return Err(RdmaError::Refused {
                reason: format!("a description of {} bytes is too long", json.len()),
            }
            .into());
        }
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = clock.map_or(0, |now| now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 32);
        Ok(Self {
            outlets: Vec::new(),
            frames: Arc::new(frames),
            channel: EventChannel::new().map_err(RdmaError::from)?,
            domain,
            payload_bytes_max: description.payload_bytes_max,
            description: json,
            name: rand_pcg::Pcg64Mcg::seed_from_u64(seed).next_u64(),
            config,
            epoch: 0,
            report: SendReport::default(),
            next_outlet: 0,
            said: Vec::new(),
            finished: 0,
        })
    }

    /// Connects, sends every frame of the source, and waits until the receiver has them. `progress` hears how many were
    /// taken from the source, and ends the sending early by answering false.
    pub fn send(
        &mut self,
        source: &mut dyn FrameSource,
        ring: &FrameRing,
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<SendReport, SourceError> {
        self.report = SendReport::default();
        self.said.clear();
        self.finished = 0;
        self.connect_all()?;
        self.await_slots()?;
        self.report.epoch = self.epoch;
        let stale = matches!(self.config.fault, Fault::StaleEpoch(_));
        source.arm(if stale { self.epoch.wrapping_sub(1) } else { self.epoch })?;
        let started = Instant::now();
        loop {
            self.tend()?;
            match source.next(ring, self.config.when_full)? {
                Arrival::Frame(lease) => {
                    self.report.frames += 1;
                    self.fault_before(source)?;
                    self.one(lease)?;
                    if !progress(self.report.frames) {
                        break;
                    }
                }
                Arrival::Dropped { .. } => {
                    self.report.frames += 1;
                    self.report.dropped += 1;
                }
                Arrival::Idle => {}
                Arrival::End => break,
            }
        }
        self.farewell()?;
        self.report.seconds = started.elapsed().as_secs_f64();
        Ok(self.report)
    }

    /// What the configured fault does before a frame goes.
    fn fault_before(&mut self, source: &mut dyn FrameSource) -> Result<(), SourceError> {
        let frames = self.report.frames;
        match self.config.fault {
            Fault::QueuePairError(every) if every > 0 && frames.is_multiple_of(every) => {
                if let Some(outlet) = self.outlets.first() {
                    outlet.link.queue_pair.fail().map_err(RdmaError::from)?;
                }
            }
            Fault::StaleEpoch(first) if frames == first + 1 => {
                // Starts the source over, in the right epoch now.
                source.arm(self.epoch)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends one frame: waits for a slot at the receiver, or lets the frame go.
    fn one(&mut self, lease: FrameLease) -> Result<(), SourceError> {
        loop {
            if let Some(at) = self.outlet_with_credit() {
                let half = matches!(self.config.fault, Fault::HalfAFrame(after) if self.report.frames > after);
                match self.write(at, &lease, half) {
                    Ok(()) => return Ok(()),
                    Err(_) => self.drop_outlet(at),
                }
            } else if self.config.when_full == WhenFull::Drop {
                self.report.dropped += 1;
                return Ok(());
            }
            self.tend()?;
            std::hint::spin_loop();
        }
    }

    fn outlet_with_credit(&mut self) -> Option<usize> {
        let count = self.outlets.len();
        let at = (0..count)
            .map(|turn| (self.next_outlet + turn) % count)
            .find(|at| !self.outlets[*at].granted.is_empty())?;
        self.next_outlet = (at + 1) % count;
        Some(at)
    }

    fn write(&mut self, at: usize, lease: &FrameLease, half: bool) -> Result<(), VerbsError> {
        let outlet = &mut self.outlets[at];
        let Some((slot, key, address)) = outlet.granted.pop_front() else {
            return Ok(());
        };
        let header = lease.payload_offset() - HEADER_PAGE_BYTES;
        let header_pieces = [(&*self.frames, header, size_of::<frame::FrameHeader>())];
        let bytes = lease.payload().len();
        let payload_pieces = [(
            &*self.frames,
            lease.payload_offset(),
            if half { bytes / 2 } else { bytes },
        )];
        let first = Work {
            id: 0,
            pieces: &header_pieces,
            target: Some((address, key)),
            immediate: None,
            signaled: false,
        };
        let second = Work {
            id: Ended::frame_id(lease.index()),
            pieces: &payload_pieces,
            target: Some((address + HEADER_PAGE_BYTES as u64, key)),
            immediate: (!half).then(|| wire::immediate(outlet.link.connection, slot)),
            signaled: true,
        };
        if outlet.flying.len() <= lease.index() {
            outlet.flying.resize_with(lease.index() + 1, || None);
        }
        // SAFETY: the lease is kept in `flying` until its completion or until the queue pair is destroyed; the receiver has
        // granted the slot.
        unsafe { outlet.link.queue_pair.post(&first, Some(&second))? };
        outlet.flying[lease.index()] = Some(lease.clone());
        if half {
            eprintln!("fluxline: half of a frame is written");
            loop {
                std::thread::sleep(Duration::from_secs(1)); // until somebody kills this process
            }
        }
        Ok(())
    }

    /// Takes completions and events, and connects again what broke.
    fn tend(&mut self) -> Result<(), SourceError> {
        while let Some(event) = self.channel.next(Duration::ZERO).map_err(RdmaError::from)? {
            if let CmEvent::Disconnected { key } | CmEvent::DeviceRemoval { key } = event
                && let Some(at) = self.outlets.iter().position(|one| one.link.id.key() == key)
            {
                self.drain(at)?;
                self.drop_outlet(at);
            }
        }
        let mut at = 0;
        while at < self.outlets.len() {
            if self.drain(at)? {
                at += 1;
            } else {
                self.drop_outlet(at);
            }
        }
        if self.finished == 0 && self.outlets.len() < usize::from(self.config.queue_pairs) {
            let broke = Instant::now();
            self.connect_all()?;
            self.await_slots()?;
            self.report.longest_break_s = self.report.longest_break_s.max(broke.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Waits for the first slots: with them the receiver says that its run is ready.
    fn await_slots(&mut self) -> Result<(), SourceError> {
        let until = Instant::now() + ARMING;
        while self.outlets.iter().all(|outlet| outlet.granted.is_empty()) {
            for at in 0..self.outlets.len() {
                if !self.drain(at)? {
                    return Ok(()); // it broke again: whoever tends it connects once more
                }
            }
            if Instant::now() > until {
                return Err(RdmaError::Unreachable {
                    address: self.config.address.to_string(),
                    seconds: ARMING.as_secs_f64(),
                    reason: "it takes the connection and grants no slot".into(),
                }
                .into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// Takes an outlet's completions; false where it is broken.
    fn drain(&mut self, at: usize) -> Result<bool, SourceError> {
        loop {
            let outlet = &mut self.outlets[at];
            let mut one = [Completion::default()];
            if outlet.link.queue.poll(&mut one).map_err(RdmaError::from)? == 0 {
                return Ok(true);
            }
            let [done] = one;
            if done.status != Status::Success {
                return Ok(false);
            }
            match Ended::from_id(done.id) {
                Ended::Message(index) => outlet.link.sent(index),
                Ended::Frame(slot) => {
                    if let Some(lease) = outlet.flying.get_mut(slot).and_then(Option::take) {
                        self.report.acknowledged += 1;
                        self.report.bytes += lease.payload().len() as u64;
                    }
                }
                Ended::Receive(index) => {
                    if done.opcode != Opcode::Received || !Self::message(outlet, index, done.bytes)? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// A message of the receiver; false where it makes no sense.
    fn message(outlet: &mut Outlet, index: usize, bytes: usize) -> Result<bool, SourceError> {
        let Some(message) = outlet.link.received(index, bytes) else {
            return Ok(false);
        };
        let count = message.count.get();
        match MessageKind::from_code(message.kind.get()) {
            Some(MessageKind::Grant) => {
                for number in 0..usize::from(count) {
                    let Some(grant) = outlet.link.grant(index, number, bytes) else {
                        return Ok(false);
                    };
                    let Ok(slot) = u16::try_from(grant.slot.get()) else {
                        return Ok(false);
                    };
                    outlet.granted.push_back((slot, grant.key.get(), grant.address.get()));
                }
            }
            Some(MessageKind::Done) => outlet.done = true,
            Some(MessageKind::Refuse) => {
                let reason = Reason::from_code(count);
                return Err(RdmaError::Refused {
                    reason: reason.map_or_else(|| format!("code {count}"), |reason| reason.words(message.value.get())),
                }
                .into());
            }
            Some(MessageKind::End) | None => return Ok(false),
        }
        Ok(outlet.link.post_receive(index).is_ok())
    }

    fn drop_outlet(&mut self, at: usize) {
        // The queue pair goes first, then the leases of what was on its way.
        let outlet = self.outlets.remove(at);
        let flying = outlet.flying.iter().flatten().count() as u64;
        if self.said.contains(&outlet.link.connection) {
            self.finished += 1;
        } else {
            self.report.broken += 1;
        }
        self.report.in_doubt += flying;
        drop(outlet.link);
        drop(outlet.flying);
    }

    /// Says on every connection that no more will come, and waits for the answers.
    fn farewell(&mut self) -> Result<(), SourceError> {
        let frames = self.report.frames;
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until {
            self.tend()?;
            for outlet in &mut self.outlets {
                let idle = outlet.flying.iter().all(Option::is_none);
                if idle && !self.said.contains(&outlet.link.connection) {
                    let sent = outlet.link.send(MessageKind::End, 0, frames, &[]);
                    if matches!(sent, Ok(true)) {
                        self.said.push(outlet.link.connection);
                    }
                }
            }
            if self.outlets.iter().all(|outlet| outlet.done) {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        while let Some(outlet) = self.outlets.first() {
            // It may be gone already.
            let _ = outlet.link.id.disconnect();
            self.drop_outlet(0);
        }
        Ok(())
    }

    /// Connects what is not connected, and tries again until the time is over.
    fn connect_all(&mut self) -> Result<(), RdmaError> {
        let until = Instant::now() + self.config.connect_timeout;
        let mut why = String::from("nobody listens there");
        while self.outlets.len() < usize::from(self.config.queue_pairs) {
            // After a break everything is set up again, so that part 0 with the description comes first.
            if !self.outlets.is_empty() && self.outlets.len() < usize::from(self.config.queue_pairs) {
                while !self.outlets.is_empty() {
                    let _ = self.outlets[0].link.id.disconnect();
                    self.drop_outlet(0);
                }
            }
            let mut complete = true;
            for part in 0..self.config.queue_pairs {
                match self.connect(part) {
                    Ok(outlet) => self.outlets.push(outlet),
                    Err(refused @ RdmaError::Refused { .. }) => return Err(refused),
                    Err(error) => {
                        why = error.to_string();
                        complete = false;
                        break;
                    }
                }
            }
            if complete {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(RdmaError::Unreachable {
                    address: self.config.address.to_string(),
                    seconds: self.config.connect_timeout.as_secs_f64(),
                    reason: why,
                });
            }
            std::thread::sleep(RETRY);
        }
        Ok(())
    }

    /// Waits for one event that is about a connection on its way.
    fn event(&self, wait: Duration) -> Result<CmEvent, RdmaError> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.channel.next(left)? {
                Some(CmEvent::Other { .. } | CmEvent::Disconnected { .. }) => {}
                Some(CmEvent::Failed { what, status, .. }) => {
                    return Err(VerbsError::Call {
                        call: "connecting",
                        reason: std::io::Error::other(format!("{what} ({status})")),
                    }
                    .into());
                }
                Some(event) => return Ok(event),
                None => {
                    return Err(VerbsError::Call {
                        call: "connecting",
                        reason: std::io::ErrorKind::TimedOut.into(),
                    }
                    .into());
                }
            }
        }
    }

    fn connect(&mut self, part: u16) -> Result<Outlet, RdmaError> {
        const WAIT: Duration = Duration::from_secs(2);
        let id = CmId::new(&self.channel)?;
        id.resolve_address(self.config.address, WAIT)?;
        self.event(WAIT)?;
        if !id.is_on(self.domain.device()) {
            return Err(RdmaError::Unreachable {
                address: self.config.address.to_string(),
                seconds: 0.0,
                reason: format!("the way there does not go through {}", self.domain.device().name()),
            });
        }
        id.resolve_route(WAIT)?;
        self.event(WAIT)?;
        id.notice_soon()?;
        let id = Arc::new(id);
        let size = LinkSize {
            receives: CREDITS_MAX + RECEIVES_MORE,
            receive_bytes: MESSAGE_BYTES_MAX,
            messages: 4,
            message_bytes: wire::END_BYTES,
            frames: CREDITS_MAX,
        };
        let queue = CompletionQueue::new(self.domain.device(), Link::completions(size), None)?;
        let mut link = Link::new(id.clone(), &self.domain, Arc::new(queue), 0, size)?;
        let hello = self.hello(part);
        id.connect(hello.as_bytes())?;
        let welcome = match self.event(WAIT)? {
            CmEvent::Established { data, .. } => {
                Welcome::read_from_prefix(data.bytes()).map(|(welcome, _)| welcome).ok()
            }
            CmEvent::Rejected { status, data } => return Err(refused(status, data.bytes())),
            _ => None,
        };
        let Some(welcome) = welcome.filter(|welcome| welcome.magic == MAGIC && welcome.version.get() == VERSION) else {
            return Err(RdmaError::Refused {
                reason: "the answer is not of this protocol".into(),
            });
        };
        link.queue_pair.set_min_rnr_timer()?;
        link.connection = welcome.connection.get();
        self.epoch = welcome.epoch.get();
        if part == 0 {
            self.describe(&link, &welcome)?;
        }
        Ok(Outlet {
            link,
            granted: VecDeque::with_capacity(CREDITS_MAX),
            flying: Vec::new(),
            done: false,
        })
    }

    fn hello(&self, part: u16) -> Hello {
        let fault = self.config.fault;
        let token = match fault {
            Fault::WrongToken => Some("not the token"),
            _ => self.config.token.as_deref(),
        };
        Hello {
            magic: MAGIC,
            version: U16::new(VERSION),
            capabilities: U16::new(if self.config.checksums {
                CAPABILITY_PAYLOAD_CRC
            } else {
                0
            }),
            payload_bytes_max: U64::new(self.payload_bytes_max),
            token: wire::token_digest(token),
            sender: U64::new(self.name),
            description_bytes: U32::new(if part == 0 { self.description.len() as u32 } else { 0 }),
            part: U16::new(part),
            parts: U16::new(self.config.queue_pairs),
            credits: U32::new(if fault == Fault::AskTooMuch {
                1 << 20
            } else {
                AS_MANY_AS_GIVEN
            }),
            epoch: U32::new(if fault == Fault::StaleHello {
                u32::MAX
            } else {
                self.epoch
            }),
        }
    }

    /// Writes the description where the receiver wants it, and announces it with its length.
    fn describe(&self, link: &Link, welcome: &Welcome) -> Result<(), RdmaError> {
        let buffer = Arc::new(Buffer::new(self.description.len())?);
        // SAFETY: nothing is posted with this buffer yet.
        unsafe { buffer.write(0, &self.description) };
        let region = MemoryRegion::register(&self.domain, buffer.clone() as Arc<dyn HostRegion>, Access::LocalRead)?;
        let pieces = [(&region, 0, self.description.len())];
        let work = Work {
            id: Ended::frame_id(usize::from(u16::MAX) + 1),
            pieces: &pieces,
            target: Some((welcome.description_address.get(), welcome.description_key.get())),
            immediate: Some(self.description.len() as u32),
            signaled: true,
        };
        // SAFETY: the buffer lives until the completion below; should that fail, the link is dropped by the caller before
        // anything else, and the region with it here only after the device has given up.
        unsafe { link.queue_pair.post(&work, None)? };
        let until = Instant::now() + Duration::from_secs(2);
        let mut one = [Completion::default()];
        loop {
            if link.queue.poll(&mut one)? == 1 {
                let failed = one[0].status != Status::Success;
                if failed || matches!(Ended::from_id(one[0].id), Ended::Frame(_)) {
                    return match one[0].status {
                        Status::Success => Ok(()),
                        status => Err(RdmaError::Refused {
                            reason: format!("the description could not be written: {status}"),
                        }),
                    };
                }
            }
            if Instant::now() > until {
                // The device may still read the buffer: the error state ends that.
                link.queue_pair.fail()?;
                return Err(VerbsError::Call {
                    call: "sending the description",
                    reason: std::io::ErrorKind::TimedOut.into(),
                }
                .into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Drop for RdmaSender {
    fn drop(&mut self) {
        while !self.outlets.is_empty() {
            self.drop_outlet(0);
        }
    }
}

fn refused(status: i32, data: &[u8]) -> RdmaError {
    let refusal = Refusal::read_from_prefix(data).map(|(refusal, _)| refusal);
    match refusal {
        Ok(refusal) if status == REJECTED_BY_PROGRAM && refusal.magic == MAGIC => RdmaError::Refused {
            reason: Reason::from_code(refusal.code.get()).map_or_else(
                || format!("code {}", refusal.code.get()),
                |reason| reason.words(refusal.limit.get()),
            ),
        },
        _ => VerbsError::Call {
            call: "connecting",
            reason: std::io::Error::other(format!("nobody takes connections there ({status})")),
        }
        .into(),
    }
}
