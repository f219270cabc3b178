//! The detector mode: senders run freely and nobody grants anything. Every message is a SEND of header and payload, and the
//! receiver's device puts it into the slot of the next posted receive.
//!
//! Why a frame cannot tear: a slot is reachable by the sender only as a posted receive. One message takes it, whole, and
//! from its completion on nothing that the sender does reaches it again, until it is posted again, which needs the
//! slot's token, which comes back with the last lease. A sender that is too fast finds no receive; the device lets the whole
//! message go, and the numbering shows it. A window of slots that a free-running sender writes to by address could not
//! promise this without a copy: it may come round while a slot is read.

use super::admission::{self, Limits, Reason};
use super::config::{Checked, Polling};
use super::counters::{Counters, count};
use super::credits::{Credits, LINKS_MAX};
use super::description::Description;
use super::free::{FreeAnswer, FreeEnd, FreeHello, Heard, Line, PORT, Place, StreamEnd, address, common_mtu, unhex};
use super::gaps::{Finding, Gaps};
use super::roster::Roster;
use super::verbs::{
    Access, Channel, Completion, CompletionQueue, Device, Gid, MemoryRegion, Opcode, Path, ProtectionDomain, QueuePair,
    QueuePairSize, Status,
};
use super::wire::{self, Hello, MAGIC, immediate};
use super::{RdmaError, VERSION, not_ready};
use crate::clock::monotonic_ns;
use crate::memory::{FrameLease, FrameRing, FrameSlot};
use crate::source::{Arrival, PATIENCE_NS};
use crossbeam_channel::{Receiver, Sender, bounded};
use frame::FrameHeader;
use frame::header::HEADER_PAGE_BYTES;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use zerocopy::FromZeros;

/// Longest time for a sender's line.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// After a sender's last word its stream may still hold frames; it is empty when nothing has come for so long.
const SETTLE_NS: u64 = 100_000_000;
/// How often the device's own counters are read.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
const HEADER_BYTES: usize = size_of::<FrameHeader>();

/// A stream, ready to receive.
struct Stream {
    queue_pair: QueuePair,
    queue: Arc<CompletionQueue>,
    gaps: Gaps,
    connection: u32,
    sender: u64,
}

/// Boxed one by one where allocating is allowed, because they go their own ways where it is not.
type Streams = Vec<Box<Stream>>;

/// The answer that begins a sender's streams, to be said when receives are posted.
struct Answer {
    line: Line,
    text: Vec<u8>,
}

enum News {
    /// streams of one sender, and what to tell it
    Joined(Streams, Box<Answer>),
    /// a sender said that it is done
    Ended(u64, u64),
    /// a sender is gone
    Gone(u64),
    Destroyed(usize),
    Failed(String),
}

enum Order {
    /// destroy this and say so
    Retire(usize, Box<Stream>),
    /// listen to this sender's last word
    Listen(u64, Line),
}

/// Listens for senders.
pub(super) struct Doorkeeper {
    listener: TcpListener,
    device: Device,
    domain: ProtectionDomain,
    events: Option<Arc<Channel>>,
    limits: Limits,
    own: (u8, Gid),
    arriving: Vec<Line>,
    there: Vec<(u64, Line)>,
    /// senders that have been taken
    senders: Vec<u64>,
    counters: Arc<Counters>,
    description: Option<Description>,
    connections: u32,
    receives: usize,
    refused: Option<String>,
}

/// A sender that may begin when its streams are ready.
pub(super) struct Waiting {
    hello: FreeHello,
    line: Line,
}

impl Doorkeeper {
    pub(super) fn listen(config: &Checked, epoch: u32, counters: Arc<Counters>) -> Result<Self, RdmaError> {
        let device = Device::open(config.config.device.as_deref())?;
        let failed = |error: std::io::Error| RdmaError::Listen {
            address: config.listen.to_string(),
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let events = match config.config.polling {
            Polling::Event => Some(Arc::new(Channel::new(&device)?)),
            Polling::Busy => None,
        };
        Ok(Self {
            listener,
            own: address(&device, config.config.gid_index)?,
            domain: ProtectionDomain::new(&device)?,
            device,
            events,
            limits: Limits {
                token: wire::token_digest(config.token.as_deref()),
                payload_bytes: config.config.frame_bytes_max,
                credits: config.config.credits,
                senders: config.config.senders_max,
                parts: config.config.queue_pairs,
                epoch,
            },
            arriving: Vec::new(),
            there: Vec::new(),
            senders: Vec::new(),
            counters,
            description: None,
            connections: 0,
            receives: config.config.credits as usize,
            refused: None,
        })
    }

    pub(super) fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Takes who knocks, and listens to who has knocked.
    pub(super) fn step(&mut self) -> Option<Waiting> {
        while let Ok((stream, _)) = self.listener.accept() {
            // Strangers cannot keep more than this waiting.
            if self.arriving.len() < LINKS_MAX
                && let Ok(line) = Line::new(stream, HANDSHAKE)
            {
                self.arriving.push(line);
            }
        }
        let mut at = 0;
        while at < self.arriving.len() {
            match self.arriving[at].hear() {
                Heard::Nothing => at += 1,
                Heard::Gone => drop(self.arriving.remove(at)),
                Heard::Line(text) => {
                    let mut line = self.arriving.remove(at);
                    match self.judge(&text) {
                        Ok(hello) => {
                            line.take_your_time();
                            return Some(Waiting { hello, line });
                        }
                        Err((reason, words)) => self.refuse(line, reason, words),
                    }
                }
            }
        }
        None
    }

    fn refuse(&mut self, mut line: Line, reason: Reason, words: String) {
        self.counters.refuse(reason);
        let answer = FreeAnswer::Refused {
            refused: reason as u16,
            reason: words.clone(),
        };
        self.refused = Some(words);
        // It may be gone already.
        let _ = line.say(&answer);
    }

    fn judge(&mut self, text: &[u8]) -> Result<FreeHello, (Reason, String)> {
        // Only the token may be looked at before it is right; everything else is read afterwards.
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(|_| (Reason::Version, Reason::Version.words(u64::from(VERSION))))?;
        let number = |key: &str| value[key].as_u64().unwrap_or(0);
        let mut hello = Hello::new_zeroed();
        hello.magic = MAGIC;
        hello.version.set(number("fluxline_rdma") as u16);
        hello.token = value["token"].as_str().and_then(unhex).unwrap_or([0; 16]);
        hello.sender.set(number("sender"));
        hello
            .payload_bytes_max
            .set(value["stream"]["payload_bytes_max"].as_u64().unwrap_or(u64::MAX));
        let streams = value["place"]["streams"].as_array().map_or(0, Vec::len);
        hello.parts.set(u16::try_from(streams).unwrap_or(u16::MAX));
        hello.description_bytes.set(1);
        admission::judge(&hello, &self.limits, &self.senders)
            .map_err(|(reason, limit)| (reason, reason.words(limit)))?;
        let wrong = |words: String| (Reason::Description, words);
        let description = serde_json::to_vec(&value["stream"]).map_err(|error| wrong(error.to_string()))?;
        let description = Description::parse(&description, self.limits.payload_bytes).map_err(wrong)?;
        if self.description.as_ref().is_some_and(|run| !run.agrees(&description)) {
            return Err(wrong("it describes other frames than those of the run".into()));
        }
        let hello: FreeHello = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        self.description.get_or_insert(description);
        Ok(hello)
    }

    /// Makes a sender's streams.
    fn connect(&mut self, waiting: Waiting) -> Result<(Streams, Answer), RdmaError> {
        let Waiting { hello, line } = waiting;
        let mtu = common_mtu(&self.device, hello.place.mtu)?;
        let size = QueuePairSize {
            sends: 1,
            receives: self.receives + 1,
        };
        let count = hello.place.streams.len() as u64;
        let (mut streams, mut ends) = (Streams::new(), Vec::new());
        for (index, theirs) in hello.place.streams.iter().enumerate() {
            self.connections += 1;
            let queue = Arc::new(CompletionQueue::new(
                &self.device,
                self.receives + 16,
                self.events.clone(),
            )?);
            let queue_pair = QueuePair::unconnected(&self.domain, &queue, hello.service.into(), size, PORT)?;
            queue_pair.connect(&Path {
                port: PORT,
                gid_index: self.own.0,
                gid: Gid(hello.place.gid.octets()),
                lid: hello.place.lid,
                queue_pair: theirs.queue_pair,
                receive_psn: theirs.psn,
                send_psn: 0,
                mtu,
                traffic_class: 0,
            })?;
            ends.push(StreamEnd {
                queue_pair: queue_pair.number(),
                psn: 0,
            });
            streams.push(Box::new(Stream {
                queue_pair,
                queue,
                gaps: Gaps::new(index as u64, count),
                connection: self.connections,
                sender: hello.sender,
            }));
        }
        self.senders.push(hello.sender);
        let text = FreeAnswer::Welcome {
            fluxline_rdma: VERSION,
            epoch: self.limits.epoch,
            place: Place {
                gid: self.own.1.0.into(),
                lid: self.device.port(PORT)?.lid,
                mtu: mtu.bytes(),
                streams: ends,
            },
        };
        let text = Line::words(&text).map_err(|error| RdmaError::Thread {
            reason: error.to_string(),
        })?;
        Ok((streams, Answer { line, text }))
    }

    /// Last words of senders that are there.
    fn listen_to_all(&mut self) -> Option<News> {
        let mut at = 0;
        while at < self.there.len() {
            let sender = self.there[at].0;
            match self.there[at].1.hear() {
                Heard::Nothing => at += 1,
                Heard::Gone => {
                    self.there.remove(at);
                    self.senders.retain(|one| *one != sender);
                    return Some(News::Gone(sender));
                }
                Heard::Line(text) => match serde_json::from_slice::<FreeEnd>(&text) {
                    Ok(end) => return Some(News::Ended(sender, end.end)),
                    Err(_) => at += 1,
                },
            }
        }
        None
    }
}

struct Seat {
    stream: Box<Stream>,
    broken: bool,
    last_ns: u64,
    /// the sender is done with so many frames
    ended: Option<u64>,
    told: bool,
    /// since the last message there was no free slot to post
    dry: bool,
}

/// The fast side.
pub(super) struct Detector {
    seats: [Option<Seat>; LINKS_MAX],
    held: Box<[Option<FrameSlot>]>,
    credits: Credits,
    roster: Roster,
    region: MemoryRegion,
    stride_bytes: usize,
    payload_bytes: usize,
    events: Option<Arc<Channel>>,
    news: Receiver<News>,
    orders: Sender<Order>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    epoch: u32,
    next_seat: usize,
    share: u32,
    /// frames that a gap has shown to be missing: next, how many, step
    missing: (u64, u64, u64),
    /// the frame that showed it
    after_gap: Option<FrameLease>,
}

impl Detector {
    pub(super) fn start(
        mut doorkeeper: Doorkeeper,
        waiting: Vec<Waiting>,
        config: &Checked,
        ring: &FrameRing,
        epoch: u32,
        counters: Arc<Counters>,
    ) -> Result<Self, RdmaError> {
        let region = MemoryRegion::register(&doorkeeper.domain, ring.region(), Access::LocalWrite)?;
        let description = doorkeeper.description.clone();
        let payload_bytes = description.as_ref().map_or(0, |d| d.payload_bytes_max as usize);
        doorkeeper.limits.payload_bytes = payload_bytes as u64;
        let streams = config.config.senders_max * usize::from(config.config.queue_pairs);
        let share = (ring.slots() / streams).clamp(1, config.config.credits as usize) as u32;
        let (news_out, news) = bounded(4 * LINKS_MAX);
        let (orders, to_do) = bounded(2 * LINKS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let events = doorkeeper.events.clone();
        let (stopping, thread_counters) = (stop.clone(), counters.clone());
        let thread = std::thread::Builder::new()
            .name("fluxline-rdma".into())
            .spawn(move || serve(doorkeeper, waiting, &news_out, &to_do, &stopping, &thread_counters))
            .map_err(|error| RdmaError::Thread {
                reason: error.to_string(),
            })?;
        Ok(Self {
            seats: [const { None }; LINKS_MAX],
            held: (0..ring.slots()).map(|_| None).collect(),
            credits: Credits::new(ring.slots()),
            roster: Roster::new(
                description.map_or(0, |d| d.frames_expected),
                config.sender_timeout_ns(),
                monotonic_ns(),
            ),
            region,
            stride_bytes: ring.stride_bytes(),
            payload_bytes,
            events,
            news,
            orders,
            stop,
            thread: Some(thread),
            counters,
            epoch,
            next_seat: 0,
            share,
            missing: (0, 0, 1),
            after_gap: None,
        })
    }

    /// The next frame, or one that a gap has shown to be lost.
    pub(super) fn next(&mut self, ring: &FrameRing) -> Result<Arrival, RdmaError> {
        let until = monotonic_ns() + PATIENCE_NS;
        loop {
            let now = monotonic_ns();
            self.hear(ring, now)?;
            self.post(ring);
            if let Some(arrival) = self.missed() {
                return Ok(arrival);
            }
            if let Some(lease) = self.poll(now) {
                if self.missing.1 > 0 {
                    self.after_gap = Some(lease);
                    continue;
                }
                return Ok(Arrival::Frame(lease));
            }
            self.settle(now);
            self.retire_broken(now);
            if self.roster.over(now) {
                return Ok(Arrival::End);
            }
            if now >= until {
                return Ok(Arrival::Idle);
            }
            match &self.events {
                None => std::hint::spin_loop(),
                Some(channel) => {
                    if channel.wait(Duration::from_millis(1))? {
                        for seat in self.seats.iter().flatten() {
                            seat.stream.queue.arm()?;
                        }
                    }
                }
            }
        }
    }

    /// Frames of a gap one by one, then the frame behind it.
    fn missed(&mut self) -> Option<Arrival> {
        let (next, count, step) = self.missing;
        if count > 0 {
            self.missing = (next + step, count - 1, step);
            return Some(Arrival::Dropped { frame_number: next });
        }
        self.after_gap.take().map(Arrival::Frame)
    }

    fn hear(&mut self, ring: &FrameRing, now: u64) -> Result<(), RdmaError> {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Joined(streams, answer) => self.seat(streams, *answer, ring, now)?,
                News::Ended(sender, frames) => {
                    for seat in self
                        .seats
                        .iter_mut()
                        .flatten()
                        .filter(|seat| seat.stream.sender == sender)
                    {
                        seat.ended = Some(frames);
                        seat.last_ns = now;
                    }
                }
                News::Gone(sender) => {
                    for seat in self
                        .seats
                        .iter_mut()
                        .flatten()
                        .filter(|seat| seat.stream.sender == sender)
                    {
                        // What it has sent before may still be on its way when it ended properly.
                        seat.broken |= seat.ended.is_none();
                    }
                }
                News::Destroyed(place) => {
                    let held = &mut self.held;
                    self.credits.left(place, |slot| held[slot] = None);
                }
                News::Failed(reason) => return Err(RdmaError::Thread { reason }),
            }
        }
        Ok(())
    }

    /// Seats a sender's streams, posts their receives, and only then lets it begin.
    fn seat(&mut self, streams: Streams, answer: Answer, ring: &FrameRing, now: u64) -> Result<(), RdmaError> {
        let (sender, parts) = (streams.first().map_or(0, |stream| stream.sender), streams.len());
        for stream in streams {
            let Some(place) = self.credits.join(stream.connection, self.share) else {
                return Ok(()); // admission allows fewer than there are places
            };
            self.roster.joined(sender, parts as u16);
            if self.events.is_some() {
                stream.queue.arm()?;
            }
            self.seats[place] = Some(Seat {
                stream,
                broken: false,
                last_ns: now,
                ended: None,
                told: false,
                dry: false,
            });
            self.counters.connections.fetch_add(1, Relaxed);
            count(&self.counters.epochs);
        }
        self.post(ring);
        let Answer { mut line, text } = answer;
        // A sender that is gone already is noticed by whoever listens to it.
        let _ = line.say_words(&text);
        let _ = self.orders.try_send(Order::Listen(sender, line));
        Ok(())
    }

    /// Posts every free slot, to the stream that has the fewest.
    fn post(&mut self, ring: &FrameRing) {
        while let Some(place) = self.credits.next_place() {
            let Some(seat) = self.seats[place].as_mut() else { return };
            let Some(slot) = ring.try_slot() else {
                seat.dry = true;
                return;
            };
            let index = slot.index();
            let start = index * self.stride_bytes;
            let pieces = [
                (&self.region, start, HEADER_BYTES),
                (&self.region, start + HEADER_PAGE_BYTES, self.payload_bytes),
            ];
            self.held[index] = Some(slot);
            self.credits.grant(place, index);
            // SAFETY: the slot's token is in `held` until the completion, or until the queue pair is destroyed.
            let posted = unsafe { seat.stream.queue_pair.post_receive(index as u64, &pieces) };
            if posted.is_err() {
                seat.broken = true;
                self.credits.leave(place);
            }
        }
        self.counters.granted.store(u64::from(self.credits.granted()), Relaxed);
    }

    fn poll(&mut self, now: u64) -> Option<FrameLease> {
        for turn in 0..LINKS_MAX {
            let place = (self.next_seat + turn) % LINKS_MAX;
            while let Some(seat) = self.seats[place].as_mut() {
                let mut one = [Completion::default()];
                match seat.stream.queue.poll(&mut one) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(_) => {
                        seat.broken = true;
                        break;
                    }
                }
                seat.last_ns = now;
                if let Some(lease) = self.completed(place, &one[0]) {
                    self.next_seat = place + 1;
                    return Some(lease);
                }
            }
        }
        None
    }

    fn completed(&mut self, place: usize, done: &Completion) -> Option<FrameLease> {
        let seat = self.seats[place].as_mut()?;
        if done.status != Status::Success {
            seat.broken = true;
            return None;
        }
        let index = u16::try_from(done.id).ok()?;
        let slot = self
            .credits
            .announced(place, immediate(seat.stream.connection, index))
            .ok()?;
        let mut slot = self.held[slot].take()?;
        let dry = std::mem::take(&mut seat.dry);
        let header = slot.header_mut();
        header.arrival_time_ns.set(monotonic_ns());
        header.notes.set(0); // none travel behind the header
        let whole = done.bytes as u64 == HEADER_BYTES as u64 + header.payload_bytes.get();
        let (Opcode::Received, Some(sequence), true) = (done.opcode, done.immediate, whole) else {
            // Bytes of another frame may lie behind a short one: it is not handed on.
            count(&self.counters.violations);
            return None;
        };
        count(&self.counters.announced);
        if header.epoch.get() != self.epoch {
            count(&self.counters.stale);
            return Some(slot.publish()); // the tracker counts it and lets it go
        }
        match seat.stream.gaps.on_message(sequence, header.frame_number.get()) {
            Finding::Next => {}
            Finding::Gap { first, count: frames } => {
                self.counters.gaps.fetch_add(frames, Relaxed);
                if dry {
                    count(&self.counters.overruns);
                }
                self.missing = (first, frames, seat.stream.gaps.step());
            }
            Finding::Odd => count(&self.counters.violations),
        }
        Some(slot.publish())
    }

    /// A sender that said its last word is done when its streams are silent.
    fn settle(&mut self, now: u64) {
        for seat in self.seats.iter_mut().flatten() {
            if let Some(frames) = seat.ended
                && !seat.told
                && now.saturating_sub(seat.last_ns) > SETTLE_NS
            {
                seat.told = true;
                seat.broken = true; // nothing more is expected from it
                self.roster.ended(seat.stream.sender, frames);
            }
        }
    }

    fn retire_broken(&mut self, now: u64) {
        for place in 0..LINKS_MAX {
            if !self.seats[place].as_ref().is_some_and(|seat| seat.broken) || self.orders.is_full() {
                continue;
            }
            self.credits.leave(place);
            let Some(seat) = self.seats[place].take() else { continue };
            if seat.ended.is_none() {
                count(&self.counters.broken);
            }
            self.roster.left(now);
            self.counters.connections.fetch_sub(1, Relaxed);
            // Where the thread is gone the run ends with an error.
            let _ = self.orders.try_send(Order::Retire(place, seat.stream));
        }
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        // Queue pairs before the tokens of the slots that they may write.
        self.stop.store(true, Relaxed);
        for seat in &mut self.seats {
            *seat = None;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        while self.news.try_recv().is_ok() {}
        for slot in &mut self.held {
            *slot = None;
        }
        self.counters.connections.store(0, Relaxed);
        self.counters.granted.store(0, Relaxed);
    }
}

/// The thread `fluxline-rdma`: everything slow.
fn serve(
    mut doorkeeper: Doorkeeper,
    mut waiting: Vec<Waiting>,
    news: &Sender<News>,
    orders: &Receiver<Order>,
    stop: &AtomicBool,
    counters: &Counters,
) {
    let device = doorkeeper.device.name();
    let before = not_ready(&device);
    let mut next_counters = std::time::Instant::now();
    while !stop.load(Relaxed) {
        let mut quiet = true;
        while let Ok(order) = orders.try_recv() {
            quiet = false;
            match order {
                Order::Retire(place, stream) => {
                    drop(stream);
                    let _ = news.send(News::Destroyed(place));
                }
                Order::Listen(sender, line) => doorkeeper.there.push((sender, line)),
            }
        }
        if let Some(news_of_one) = doorkeeper.listen_to_all() {
            quiet = false;
            if news.send(news_of_one).is_err() {
                return;
            }
        }
        waiting.extend(doorkeeper.step());
        for one in waiting.drain(..) {
            quiet = false;
            let sent = match doorkeeper.connect(one) {
                Ok((streams, answer)) => news.send(News::Joined(streams, Box::new(answer))),
                Err(error) => news.send(News::Failed(error.to_string())),
            };
            if sent.is_err() {
                return;
            }
        }
        if quiet {
            std::thread::sleep(Duration::from_millis(2));
        }
        if next_counters <= std::time::Instant::now() {
            next_counters += COUNTERS_EVERY;
            let value = not_ready(&device).saturating_sub(before);
            counters.not_ready.store(value, Relaxed);
        }
    }
    let value = not_ready(&device).saturating_sub(before);
    counters.not_ready.store(value, Relaxed);
}
