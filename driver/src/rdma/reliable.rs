//! The reliable mode's fast side: grants slots, takes announcements, hands frames on. Allocates nothing after
//! [`Reliable::start`].

use super::acceptor::{Acceptor, Event, Joined};
use super::config::Checked;
use super::counters::{Counters, count};
use super::credits::{Credits, LINKS_MAX};
use super::link::{Ended, Link};
use super::roster::Roster;
use super::verbs::{Access, Channel, Completion, MemoryRegion, Opcode, Status};
use super::wire::{GRANTS_MAX, Grant, MessageKind};
use super::{RdmaError, not_ready};
use crate::clock::monotonic_ns;
use crate::memory::{FrameLease, FrameRing, FrameSlot};
use crate::source::{Arrival, PATIENCE_NS};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use zerocopy::little_endian::{U32, U64};

/// A sender that is silent for so long gets a heartbeat, so that a dead one is noticed.
const HEARTBEAT_NS: u64 = 200_000_000;
/// Longest wait at the end for messages that are on their way.
const LAST_WORDS_NS: u64 = 200_000_000;
/// Longest sleep while a slot may come back from the pipeline, which no event tells.
const SLOT_WAIT: Duration = Duration::from_millis(1);
/// How often the device's own counters are read.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// From the acceptor's thread.
enum News {
    Joined(Box<Joined>),
    Gone(u32),
    /// the link of this place is destroyed
    Destroyed(usize),
    Failed(String),
}

/// To the acceptor's thread: destroy this link and say so.
struct Retire {
    place: usize,
    link: Box<Joined>,
}

struct Seat {
    joined: Box<Joined>,
    /// nothing more is taken from it once its queue is empty
    broken: bool,
    ended: bool,
    heard_ns: u64,
}

/// See the module.
pub(super) struct Reliable {
    seats: [Option<Seat>; LINKS_MAX],
    /// queue pairs are gone before these tokens are dropped: see `drop`
    held: Box<[Option<FrameSlot>]>,
    credits: Credits,
    roster: Roster,
    region: Arc<MemoryRegion>,
    stride_bytes: usize,
    events: Option<Arc<Channel>>,
    news: Receiver<News>,
    retire: Sender<Retire>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    epoch: u32,
    next_seat: usize,
}

impl Reliable {
    /// Registers the ring and lets the connections that wait begin.
    pub(super) fn start(
        mut acceptor: Acceptor,
        waiting: Vec<Joined>,
        config: &Checked,
        ring: &FrameRing,
        epoch: u32,
        counters: Arc<Counters>,
    ) -> Result<Self, RdmaError> {
        acceptor.limit(ring.slot_payload_bytes() as u64, ring.slots());
        let region = MemoryRegion::register(acceptor.domain(), ring.region(), Access::RemoteWrite)?;
        let (news_out, news) = bounded(4 * LINKS_MAX);
        let (retire, to_retire) = bounded(LINKS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let events = acceptor.events();
        let expected = acceptor
            .description()
            .map_or(0, |description| description.frames_expected);
        for joined in waiting {
            // The queue has room for every connection.
            let _ = news_out.send(News::Joined(Box::new(joined)));
        }
        let device = acceptor.domain().device().name();
        let (stopping, thread_counters) = (stop.clone(), counters.clone());
        let thread = std::thread::Builder::new()
            .name("fluxline-rdma".into())
            .spawn(move || serve(acceptor, &news_out, &to_retire, &stopping, &thread_counters, &device))
            .map_err(|error| RdmaError::Thread {
                reason: error.to_string(),
            })?;
        Ok(Self {
            seats: [const { None }; LINKS_MAX],
            held: (0..ring.slots()).map(|_| None).collect(),
            credits: Credits::new(ring.slots()),
            roster: Roster::new(expected, config.sender_timeout_ns(), monotonic_ns()),
            region: Arc::new(region),
            stride_bytes: ring.stride_bytes(),
            events,
            news,
            retire,
            stop,
            thread: Some(thread),
            counters,
            epoch,
            next_seat: 0,
        })
    }

    /// The next frame.
    pub(super) fn next(&mut self, ring: &FrameRing) -> Result<Arrival, RdmaError> {
        let until = monotonic_ns() + PATIENCE_NS;
        loop {
            let now = monotonic_ns();
            self.hear(now)?;
            self.grant(ring);
            if let Some(lease) = self.poll(now) {
                return Ok(Arrival::Frame(lease));
            }
            self.retire_broken();
            if self.roster.over(now) {
                return Ok(Arrival::End);
            }
            if now >= until {
                self.beat(now);
                return Ok(Arrival::Idle);
            }
            self.rest(until - now)?;
        }
    }

    /// Waits a little, as configured.
    fn rest(&self, left_ns: u64) -> Result<(), RdmaError> {
        let Some(channel) = &self.events else {
            std::hint::spin_loop();
            return Ok(());
        };
        let mut wait = Duration::from_nanos(left_ns).min(Duration::from_millis(5));
        if self.credits.next_place().is_some() {
            wait = wait.min(SLOT_WAIT);
        }
        if channel.wait(wait)? {
            // Armed before the queues are asked again, so that nothing is overlooked.
            for seat in self.seats.iter().flatten() {
                seat.joined.link.queue.arm()?;
            }
        }
        Ok(())
    }

    /// What the acceptor's thread has to say.
    fn hear(&mut self, now: u64) -> Result<(), RdmaError> {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Joined(joined) => self.seat(joined, now)?,
                News::Gone(connection) => self.break_off(connection),
                News::Destroyed(place) => {
                    let held = &mut self.held;
                    // The queue pair is gone: nothing can arrive in these slots any more.
                    self.credits.left(place, |slot| held[slot] = None);
                    self.counters.granted.store(u64::from(self.credits.granted()), Relaxed);
                }
                News::Failed(reason) => return Err(RdmaError::Thread { reason }),
            }
        }
        Ok(())
    }

    fn seat(&mut self, joined: Box<Joined>, now: u64) -> Result<(), RdmaError> {
        let Some(place) = self.credits.join(joined.link.connection, joined.credits) else {
            // More links than places cannot be: admission allows fewer. Dropping it ends the connection.
            return Ok(());
        };
        self.roster.joined(joined.sender, joined.parts);
        if self.events.is_some() {
            joined.link.queue.arm()?;
        }
        self.seats[place] = Some(Seat {
            joined,
            broken: false,
            ended: false,
            heard_ns: now,
        });
        self.counters.connections.fetch_add(1, Relaxed);
        Ok(())
    }

    fn break_off(&mut self, connection: u32) {
        let seats = self.seats.iter_mut().flatten();
        for seat in seats.filter(|seat| seat.joined.link.connection == connection) {
            seat.broken = true;
        }
    }

    /// Grants every slot that is free, to whoever has the fewest.
    fn grant(&mut self, ring: &FrameRing) {
        let blank = Grant {
            slot: U32::ZERO,
            key: U32::ZERO,
            address: U64::ZERO,
        };
        while let Some(place) = self.credits.next_place() {
            let Some(seat) = self.seats[place].as_mut().filter(|seat| seat.joined.link.can_send()) else {
                return; // its messages are on their way; they come back soon
            };
            let mut grants = [blank; GRANTS_MAX];
            let mut used = 0;
            while used < GRANTS_MAX
                && self.credits.next_place() == Some(place)
                && let Some(slot) = ring.try_slot()
            {
                let index = slot.index();
                grants[used] = Grant {
                    slot: U32::new(index as u32),
                    key: U32::new(self.region.rkey()),
                    address: U64::new(self.region.address() + (index * self.stride_bytes) as u64),
                };
                used += 1;
                self.held[index] = Some(slot);
                self.credits.grant(place, index);
            }
            if used == 0 {
                return;
            }
            let sent = seat
                .joined
                .link
                .send(MessageKind::Grant, used as u16, 0, &grants[..used]);
            if !matches!(sent, Ok(true)) {
                // The slots stay held until the queue pair is gone.
                seat.broken = true;
                self.credits.leave(place);
            }
            self.counters.granted.store(u64::from(self.credits.granted()), Relaxed);
        }
    }

    /// Takes completions until one of them is a frame.
    fn poll(&mut self, now: u64) -> Option<FrameLease> {
        for turn in 0..LINKS_MAX {
            let place = (self.next_seat + turn) % LINKS_MAX;
            while let Some(seat) = self.seats[place].as_mut() {
                let mut one = [Completion::default()];
                match seat.joined.link.queue.poll(&mut one) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(_) => {
                        seat.broken = true;
                        break;
                    }
                }
                seat.heard_ns = now;
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
        let link = &mut seat.joined.link;
        if done.status != Status::Success {
            seat.broken = true;
            return None;
        }
        let index = match Ended::from_id(done.id) {
            Ended::Message(index) => {
                link.sent(index);
                return None;
            }
            Ended::Frame(_) => return None,
            Ended::Receive(index) => index,
        };
        let arrived = match (done.opcode, done.immediate) {
            (Opcode::ReceivedWrite, Some(immediate)) => self.credits.announced(place, immediate).ok(),
            (Opcode::Received, _) => {
                let message = link.received(index, done.bytes);
                match message.filter(|message| MessageKind::from_code(message.kind.get()) == Some(MessageKind::End)) {
                    Some(end) if !seat.ended => {
                        seat.ended = true;
                        self.roster.ended(seat.joined.sender, end.value.get());
                        // Should it not go out, the sender ends by its own patience.
                        let _ = seat.joined.link.send(MessageKind::Done, 0, 0, &[]);
                    }
                    _ => seat.broken = true,
                }
                seat.broken |= seat.joined.link.post_receive(index).is_err();
                return None;
            }
            _ => None,
        };
        seat.broken |= seat.joined.link.post_receive(index).is_err();
        let Some(slot) = arrived.and_then(|slot| self.held[slot].take()) else {
            // It announced what it was not given: nothing that it writes can be believed.
            count(&self.counters.violations);
            seat.broken = true;
            return None;
        };
        Some(self.take(slot))
    }

    /// A slot that its sender has announced becomes a frame. One of another epoch goes on to the tracker, which counts it
    /// and lets it go.
    fn take(&mut self, mut slot: FrameSlot) -> FrameLease {
        count(&self.counters.announced);
        let header = slot.header_mut();
        header.arrival_time_ns.set(monotonic_ns());
        header.notes.set(0); // none travel behind the header
        if header.epoch.get() != self.epoch {
            count(&self.counters.stale);
        }
        self.counters.granted.store(u64::from(self.credits.granted()), Relaxed);
        slot.publish()
    }

    /// Sends broken links away to be destroyed. Their slots stay held until that is done.
    fn retire_broken(&mut self) {
        for place in 0..LINKS_MAX {
            if !self.seats[place].as_ref().is_some_and(|seat| seat.broken) {
                continue;
            }
            self.credits.leave(place);
            if self.retire.is_full() {
                return;
            }
            let Some(seat) = self.seats[place].take() else { continue };
            if !seat.ended {
                count(&self.counters.broken);
            }
            self.roster.left(monotonic_ns());
            self.counters.connections.fetch_sub(1, Relaxed);
            // Where the thread is gone the run ends with an error, and the links with it.
            let _ = self.retire.try_send(Retire {
                place,
                link: seat.joined,
            });
        }
    }

    /// Knocks at senders that have been silent: a grant without slots. One that is dead does not acknowledge it.
    fn beat(&mut self, now: u64) {
        for seat in self.seats.iter_mut().flatten() {
            if now.saturating_sub(seat.heard_ns) > HEARTBEAT_NS && seat.joined.link.quiet() {
                seat.heard_ns = now;
                seat.broken |= seat.joined.link.send(MessageKind::Grant, 0, 0, &[]).is_err();
            }
        }
    }
}

impl Drop for Reliable {
    fn drop(&mut self) {
        // Queue pairs first: here, with the thread, and on the way between. Only then the tokens of their slots.
        self.stop.store(true, Relaxed);
        let until = monotonic_ns() + LAST_WORDS_NS;
        for mut seat in self.seats.iter_mut().filter_map(Option::take) {
            seat.joined.link.settle(until);
            let _ = seat.joined.link.id.disconnect();
        }
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has dropped its links too.
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
    mut acceptor: Acceptor,
    news: &Sender<News>,
    retire: &Receiver<Retire>,
    stop: &AtomicBool,
    counters: &Counters,
    device: &str,
) {
    let before = not_ready(device);
    let mut next_counters = std::time::Instant::now();
    while !stop.load(Relaxed) {
        while let Ok(Retire { place, link }) = retire.try_recv() {
            acceptor.forget(link.link.connection);
            let _ = link.link.id.disconnect();
            destroy(link.link);
            let _ = news.send(News::Destroyed(place));
        }
        let sent = match acceptor.step(Duration::from_millis(5)) {
            Ok(Some(Event::Joined(joined))) => news.send(News::Joined(joined)),
            Ok(Some(Event::Gone(connection))) => news.send(News::Gone(connection)),
            Ok(None) => Ok(()),
            Err(error) => {
                let _ = news.send(News::Failed(error.to_string()));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
        if next_counters <= std::time::Instant::now() {
            next_counters += COUNTERS_EVERY;
            counters
                .not_ready
                .store(not_ready(device).saturating_sub(before), Relaxed);
        }
    }
    counters
        .not_ready
        .store(not_ready(device).saturating_sub(before), Relaxed);
}

/// Dropping a link destroys its queue pair before anything else of it.
fn destroy(link: Link) {
    drop(link);
}
