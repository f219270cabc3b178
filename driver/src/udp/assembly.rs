//! Frames from packets, in any order. A state machine: no clock, thread or socket inside.
//!
//! 1. [`Assembly::aim`] says where the next packets of a port will probably belong: straight in a frame's slot.
//! 2. Somebody receives packets into these places.
//! 3. [`Assembly::settle`] reads the headers. A packet that lies where it belongs is done; any other is moved.
//! 4. [`Assembly::pop`] hands frames on: whole, or with missing packets filled with the mask value.
//!
//! Invariants: a place is aimed at only while its packet has not come, and by one packet of a batch; a packet is moved
//! into a place only after whatever else lies there was moved aside; a packet that has come is never written again, so
//! duplicates change nothing. A frame that was handed on is never opened again.

use super::config::{PartBy, UdpConfig};
use super::counters::{Counters, add};
use super::layout::Layout;
use super::numbers::Numbers;
use super::wire::{HEADER_BYTES, PacketHeader, VERSION};
use crate::memory::{FrameLease, FrameRing, FrameSlot};
use crate::net::{Buffers, Message, Target};
use crate::source::{SourceError, WhenFull};
use frame::header::FLAG_PARTIAL;
use frame::{Compression, FrameHeader};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Packets received at once.
pub const BATCH: usize = 64;
/// Frames that may be open beyond the window: one that has only begun closes none.
const BEYOND_WINDOW: usize = 4;
/// Frames let go that wait to be reported; more are found by the tracker at the end.
const DROPPED_MAX: usize = 1024;
/// What missing pixels are filled with: the largest value of every unsigned type.
const MASK_BYTE: u8 = 0xff;

/// A packet's place: frame within the run, part, packet within the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    frame: u64,
    part: usize,
    packet: usize,
}

/// What became of a frame of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    HandedOn,
    LetGo,
}

/// A frame that is being put together, or room for one.
struct Entry {
    slot: Option<FrameSlot>,
    frame: u64,
    /// one bit per packet that has come
    came: Vec<u64>,
    count: usize,
    last_ns: u64,
    /// earliest time of each part's packets, 0 where there is none
    times: Vec<u64>,
}

impl Entry {
    fn has(&self, bit: usize) -> bool {
        self.came[bit / 64] & (1 << (bit % 64)) != 0
    }
}

/// The bytes that packets lie in: frames, and a place aside for every packet of a batch.
pub struct Memory {
    entries: Vec<Entry>,
    aside: Vec<u8>,
    payload_bytes: usize,
}

impl Buffers for Memory {
    fn count(&self) -> usize {
        self.entries.len() + BATCH
    }

    fn buffer(&mut self, index: usize) -> &mut [u8] {
        match index.checked_sub(self.entries.len()) {
            None => match &mut self.entries[index].slot {
                Some(slot) => slot.payload_mut(),
                None => &mut [],
            },
            Some(message) => &mut self.aside[message * self.payload_bytes..][..self.payload_bytes],
        }
    }
}

/// Packets on their way from socket to frame.
struct Batch {
    port: usize,
    targets: Vec<Target>,
    /// frame (by entry) and spot that a packet was received into and still lies in; `None`: aside
    aims: Vec<Option<(usize, Spot)>>,
    messages: Vec<Message>,
    /// where packets belong that are still to be moved
    spots: Vec<Option<Spot>>,
    /// packets not yet moved are those before
    left: usize,
}

/// Whether a batch is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// every packet has its place
    Done,
    /// a frame needs a slot and the ring has none: call [`Assembly::resume`]
    NoSlot,
}

/// What comes out.
#[derive(Debug)]
pub enum Out {
    /// a frame, in the ring
    Frame(FrameLease),
    /// a frame that found no slot
    Dropped(u64),
}

/// The state machine.
pub struct Assembly {
    layout: Layout,
    counters: Arc<Counters>,
    config: UdpConfig,
    memory: Memory,
    batch: Batch,
    /// a packet's bytes between two places
    hand: Vec<u8>,
    epoch: u32,
    first: Option<u64>,
    states: Vec<State>,
    settled: u64,
    numbers: Numbers,
    /// last packet of each port
    cursors: Vec<Option<Spot>>,
    /// frame and time of each part in the lowest frame that was whole: what claims to be later must not be earlier
    floors: Vec<Option<(u64, u64)>>,
    ready: VecDeque<FrameLease>,
    dropped: VecDeque<u64>,
    /// slots whose gaps hold the mask value
    blank: Vec<bool>,
    window: u64,
    last_packet_ns: u64,
}

impl Assembly {
    /// For a configuration that was checked.
    pub fn new(config: &UdpConfig, counters: Arc<Counters>, ports: usize) -> Result<Self, SourceError> {
        Ok(Self::over(Layout::new(config)?, config, counters, ports))
    }

    /// The same over a geometry of its own.
    pub(super) fn over(layout: Layout, config: &UdpConfig, counters: Arc<Counters>, ports: usize) -> Self {
        let payload_bytes = layout.payload_bytes;
        let aside = Target {
            buffer: 0,
            offset: 0,
            pieces: 1,
            piece_bytes: payload_bytes,
            stride: 0,
        };
        let blank = Message {
            head: [0; HEADER_BYTES],
            bytes: 0,
            cut: false,
        };
        Self {
            counters,
            config: config.clone(),
            memory: Memory {
                entries: Vec::new(),
                aside: vec![0; BATCH * payload_bytes],
                payload_bytes,
            },
            batch: Batch {
                port: 0,
                targets: vec![aside; BATCH],
                aims: vec![None; BATCH],
                messages: vec![blank; BATCH],
                spots: vec![None; BATCH],
                left: 0,
            },
            hand: vec![0; payload_bytes],
            epoch: 0,
            first: None,
            states: Vec::new(),
            settled: 0,
            numbers: Numbers::default(),
            cursors: vec![None; ports],
            floors: vec![None; layout.parts.len()],
            ready: VecDeque::new(),
            dropped: VecDeque::with_capacity(DROPPED_MAX),
            blank: Vec::new(),
            window: config.window as u64,
            last_packet_ns: 0,
            layout,
        }
    }

    /// The geometry.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Begins a run: nothing has come.
    pub fn begin(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.first = (!self.config.learn_first_frame).then_some(self.config.first_frame);
        self.states.clear();
        self.states.resize(self.config.frames as usize, State::Waiting);
        self.memory.entries.iter_mut().for_each(|entry| entry.slot = None);
        self.ready.clear();
        self.dropped.clear();
        self.cursors.fill(None);
        self.floors.fill(None);
        self.batch.left = 0;
        (self.settled, self.last_packet_ns) = (0, 0);
        self.numbers = Numbers::default();
    }

    /// Makes room for as many incomplete frames as the ring allows; afterwards nothing is allocated.
    pub fn prepare(&mut self, ring: &FrameRing) -> Result<(), SourceError> {
        let (frame_bytes, slot_bytes) = (self.layout.frame_bytes(), ring.slot_payload_bytes());
        if frame_bytes > slot_bytes {
            return Err(SourceError::SlotTooSmall {
                frame_bytes,
                slot_bytes,
            });
        }
        let frames = (self.config.window + BEYOND_WINDOW).min(ring.slots() / 2);
        self.window = frames.saturating_sub(BEYOND_WINDOW).max(1) as u64;
        let (words, parts) = (self.layout.packets().div_ceil(64), self.layout.parts.len());
        self.memory.entries.clear();
        self.memory.entries.resize_with(frames.max(1), || Entry {
            slot: None,
            frame: 0,
            came: vec![0; words],
            count: 0,
            last_ns: 0,
            times: vec![0; parts],
        });
        self.ready.reserve(2 * frames + BATCH);
        self.blank.clear();
        self.blank.resize(ring.slots(), !self.layout.has_gaps());
        Ok(())
    }

    /// Frames that can be incomplete at once.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Chooses where the next packets of a port go, and returns the places and the memory that they are in.
    pub fn aim(&mut self, port: usize, ring: &FrameRing) -> (&[Target], &mut Memory) {
        self.batch.port = port;
        let mut next = self.cursors.get(port).copied().flatten();
        let entries = self.memory.entries.len();
        for index in 0..BATCH {
            next = next.map(|spot| self.following(spot));
            let aim = next.and_then(|spot| {
                let entry = self.entry(spot.frame).or_else(|| self.open_early(spot.frame, ring))?;
                (!self.memory.entries[entry].has(self.bit(spot))).then_some((entry, spot))
            });
            self.batch.aims[index] = aim;
            self.batch.targets[index] = match aim {
                Some((entry, spot)) => self.layout.place(entry, spot.part, spot.packet),
                None => Target {
                    buffer: entries + index,
                    offset: 0,
                    pieces: 1,
                    piece_bytes: self.layout.payload_bytes,
                    stride: 0,
                },
            };
        }
        (&self.batch.targets, &mut self.memory)
    }

    /// The packet that a part sends after this one.
    fn following(&self, spot: Spot) -> Spot {
        let last = spot.packet + 1 == self.layout.packets;
        Spot {
            frame: spot.frame + u64::from(last),
            part: spot.part,
            packet: if last { 0 } else { spot.packet + 1 },
        }
    }

    /// Settles the first `count` packets, received where [`Assembly::aim`] said; `message` gives each.
    pub fn settle(
        &mut self,
        count: usize,
        message: impl Fn(usize) -> Message,
        ring: &FrameRing,
        when_full: WhenFull,
        now_ns: u64,
    ) -> Settled {
        add(&self.counters.packets, count as u64);
        self.batch.aims[count..].fill(None);
        for index in 0..count {
            let message = message(index);
            self.batch.messages[index] = message;
            let spot = self.classify(&message);
            self.batch.spots[index] = spot;
            let Some(spot) = spot else {
                self.batch.aims[index] = None;
                continue;
            };
            self.last_packet_ns = now_ns;
            if let Some(cursor) = self.cursors.get_mut(self.batch.port) {
                *cursor = Some(spot);
            }
            if let Some((entry, aim)) = self.batch.aims[index]
                && aim == spot
                && !self.memory.entries[entry].has(self.bit(spot))
            {
                self.batch.aims[index] = None;
                self.batch.spots[index] = None;
                self.take(entry, spot, index, now_ns);
            }
        }
        self.batch.left = count;
        self.resume(ring, when_full, now_ns)
    }

    /// Whether packets wait for a slot.
    pub fn waiting(&self) -> bool {
        self.batch.left > 0
    }

    /// Moves what is not yet where it belongs. Backwards: after a loss each packet lies in its follower's place.
    pub fn resume(&mut self, ring: &FrameRing, when_full: WhenFull, now_ns: u64) -> Settled {
        while let Some(index) = self.batch.left.checked_sub(1) {
            if let Some(spot) = self.batch.spots[index] {
                if self.put(index, spot, ring, when_full, now_ns) == Settled::NoSlot {
                    return Settled::NoSlot;
                }
                self.batch.spots[index] = None;
                self.batch.aims[index] = None;
            }
            self.batch.left = index;
        }
        Settled::Done
    }

    /// Where a packet belongs, if it belongs to the run; counted where it does not.
    fn classify(&mut self, message: &Message) -> Option<Spot> {
        let counters = self.counters.clone();
        let refuse = |counter| {
            add(counter, 1);
            None
        };
        if message.cut || message.bytes != HEADER_BYTES + self.layout.payload_bytes {
            return refuse(&counters.bad_size);
        }
        let header = PacketHeader::decode(&message.head);
        if header.version != VERSION {
            return refuse(&counters.bad_version);
        }
        if header.detector_type != self.layout.detector.code() {
            return refuse(&counters.bad_detector);
        }
        let part = match self.config.part_by {
            PartBy::Port => Some(self.batch.port),
            PartBy::Position => self.layout.part_at(header.row.get(), header.column.get()),
        };
        // A part of a larger detector may have any module number.
        let module_known = !self.config.part.is_empty()
            || self.config.part_by == PartBy::Port
            || usize::from(header.module.get()) < self.layout.parts.len();
        let Some(part) = part.filter(|part| module_known && *part < self.layout.parts.len()) else {
            return refuse(&counters.bad_part);
        };
        let packet = header.packet_number.get() as usize;
        if packet >= self.layout.packets {
            return refuse(&counters.bad_packet);
        }
        let number = header.frame_number.get();
        let first = *self.first.get_or_insert(number);
        let Some(frame) = number.checked_sub(first).filter(|frame| *frame < self.config.frames) else {
            return refuse(&counters.beyond);
        };
        let time = header.timestamp.get();
        let other = self.floors[part].is_some_and(|(floor, at)| time != 0 && frame > floor && time < at);
        if other || !self.numbers.credible(frame, self.window) {
            return refuse(&counters.stray);
        }
        Some(Spot { frame, part, packet })
    }

    fn bit(&self, spot: Spot) -> usize {
        spot.part * self.layout.packets + spot.packet
    }

    fn entry(&self, frame: u64) -> Option<usize> {
        let open = |entry: &Entry| entry.frame == frame && entry.slot.is_some();
        self.memory.entries.iter().position(open)
    }

    /// Opens a frame that has not begun, where that takes nothing away from anybody.
    fn open_early(&mut self, frame: u64, ring: &FrameRing) -> Option<usize> {
        if self.states.get(frame as usize) != Some(&State::Waiting) || ring.free() <= ring.slots() / 4 {
            return None;
        }
        let entry = self.memory.entries.iter().position(|entry| entry.slot.is_none())?;
        let slot = ring.try_slot()?;
        self.start_frame(entry, slot, frame);
        Some(entry)
    }

    fn start_frame(&mut self, entry: usize, mut slot: FrameSlot, frame: u64) {
        if let Some(blank) = self.blank.get_mut(slot.index())
            && !*blank
        {
            *blank = true;
            slot.payload_mut()[..self.layout.frame_bytes()].fill(MASK_BYTE);
        }
        let entry = &mut self.memory.entries[entry];
        entry.slot = Some(slot);
        entry.frame = frame;
        entry.came.fill(0);
        entry.count = 0;
        entry.times.fill(0);
    }

    /// Opens a frame; the lowest one makes room where too many are open.
    fn open(&mut self, frame: u64, ring: &FrameRing, when_full: WhenFull, now_ns: u64) -> Option<usize> {
        let free = |memory: &Memory| memory.entries.iter().position(|entry| entry.slot.is_none());
        let entry = match free(&self.memory) {
            Some(entry) => entry,
            None => {
                match self.memory.entries.iter().position(|entry| entry.count == 0) {
                    Some(unused) => self.release(unused),
                    None => self.close_lowest(now_ns),
                }
                free(&self.memory)?
            }
        };
        let slot = match when_full {
            WhenFull::Wait => ring.try_slot().or_else(|| ring.slot_within(Duration::from_millis(20))),
            WhenFull::Drop => ring.try_slot(),
        }?;
        self.start_frame(entry, slot, frame);
        Some(entry)
    }

    /// Moves a packet to its place.
    fn put(&mut self, index: usize, spot: Spot, ring: &FrameRing, when_full: WhenFull, now_ns: u64) -> Settled {
        match self.states[spot.frame as usize] {
            State::Waiting => {}
            State::HandedOn => {
                add(&self.counters.late, 1);
                return Settled::Done;
            }
            State::LetGo => {
                add(&self.counters.no_room, 1);
                return Settled::Done;
            }
        }
        let Some(entry) = self
            .entry(spot.frame)
            .or_else(|| self.open(spot.frame, ring, when_full, now_ns))
        else {
            if when_full == WhenFull::Wait {
                return Settled::NoSlot;
            }
            self.let_go(spot.frame);
            return Settled::Done;
        };
        if self.memory.entries[entry].has(self.bit(spot)) {
            add(&self.counters.duplicate, 1);
            return Settled::Done;
        }
        let there = |aim: &Option<(usize, Spot)>| *aim == Some((entry, spot));
        if let Some(other) = self.batch.aims.iter().position(there)
            && other != index
        {
            self.set_aside(other);
        }
        self.lift(index);
        let place = self.layout.place(entry, spot.part, spot.packet);
        let buffer = self.memory.buffer(entry);
        for (start, piece) in place.starts().zip(self.hand.chunks(place.piece_bytes)) {
            buffer[start..start + piece.len()].copy_from_slice(piece);
        }
        self.batch.aims[index] = None;
        add(&self.counters.moved, 1);
        self.take(entry, spot, index, now_ns);
        Settled::Done
    }

    /// Copies a packet's bytes from where they lie into the hand.
    fn lift(&mut self, index: usize) {
        let aside = self.memory.entries.len() + index;
        match self.batch.aims[index] {
            Some((entry, spot)) => {
                let place = self.layout.place(entry, spot.part, spot.packet);
                let buffer = self.memory.buffer(entry);
                for (start, piece) in place.starts().zip(self.hand.chunks_mut(place.piece_bytes)) {
                    piece.copy_from_slice(&buffer[start..start + piece.len()]);
                }
            }
            None => self.hand.copy_from_slice(self.memory.buffer(aside)),
        }
    }

    /// Moves a packet out of the place of another one.
    fn set_aside(&mut self, index: usize) {
        self.lift(index);
        self.batch.aims[index] = None;
        let aside = self.memory.entries.len() + index;
        self.memory.buffer(aside).copy_from_slice(&self.hand);
    }

    /// Moves every packet out of a frame that is still to be looked at.
    fn clear_of(&mut self, entry: usize) {
        for index in 0..BATCH {
            if self.batch.aims[index].is_some_and(|(at, _)| at == entry) {
                self.set_aside(index);
            }
        }
    }

    /// A packet lies in its place for good.
    fn take(&mut self, entry: usize, spot: Spot, index: usize, now_ns: u64) {
        let bit = self.bit(spot);
        let time = PacketHeader::decode(&self.batch.messages[index].head).timestamp.get();
        let frame = &mut self.memory.entries[entry];
        frame.came[bit / 64] |= 1 << (bit % 64);
        frame.count += 1;
        frame.last_ns = now_ns;
        let earliest = &mut frame.times[spot.part];
        *earliest = if *earliest == 0 { time } else { time.min(*earliest) };
        add(&self.counters.placed, 1);
        if frame.count == self.layout.packets() {
            self.hand_on(entry, now_ns);
        }
    }

    /// Hands a frame on, and before it those that it has overtaken by the window.
    fn hand_on(&mut self, entry: usize, now_ns: u64) {
        let frame = self.memory.entries[entry].frame;
        if let Some(before) = (frame + 1).checked_sub(self.window) {
            while self
                .lowest()
                .is_some_and(|(_, lowest)| lowest < before && lowest != frame)
            {
                self.close_lowest(now_ns);
            }
        }
        self.finish(entry, now_ns);
    }

    /// The lowest frame that has begun.
    fn lowest(&self) -> Option<(usize, u64)> {
        let entries = self.memory.entries.iter().enumerate();
        entries
            .filter(|(_, entry)| entry.slot.is_some() && entry.count > 0)
            .map(|(index, entry)| (index, entry.frame))
            .min_by_key(|(_, frame)| *frame)
    }

    fn close_lowest(&mut self, now_ns: u64) {
        if let Some((entry, _)) = self.lowest() {
            self.finish(entry, now_ns);
        }
    }

    /// Gives the slot of a frame back that has not begun.
    fn release(&mut self, entry: usize) {
        self.clear_of(entry);
        self.memory.entries[entry].slot = None;
    }

    /// Masks what is missing, writes the header, publishes.
    fn finish(&mut self, entry: usize, now_ns: u64) {
        self.clear_of(entry);
        let layout = &self.layout;
        let frame = &mut self.memory.entries[entry];
        let Some(mut slot) = frame.slot.take() else {
            return;
        };
        let packets = layout.packets();
        let missing = packets - frame.count;
        let mut header = FrameHeader::new(layout.shape, layout.pixel_type, Compression::None);
        header.epoch.set(self.epoch);
        header.frame_number.set(frame.frame);
        header.origin_index.set(frame.frame + self.first.unwrap_or(0));
        header.detector_time_ns.set(frame.times[0].saturating_mul(100));
        header.parts_expected.set(packets as u32);
        header.parts_missing.set(missing as u32);
        header.missing_bytes.set((missing * layout.payload_bytes) as u32);
        header.arrival_time_ns.set(now_ns);
        if missing > 0 {
            header.flags = FLAG_PARTIAL;
            slot.parts_mut()[..packets.div_ceil(8)].fill(0);
            for bit in (0..packets).filter(|bit| !frame.has(*bit)) {
                slot.parts_mut()[bit / 8] |= 1 << (bit % 8);
                let place = layout.place(entry, bit / layout.packets, bit % layout.packets);
                for start in place.starts() {
                    slot.payload_mut()[start..start + place.piece_bytes].fill(MASK_BYTE);
                }
            }
            add(&self.counters.missing, missing as u64);
        } else {
            for (floor, time) in self.floors.iter_mut().zip(&frame.times) {
                if *time != 0 && floor.is_none_or(|(lowest, _)| frame.frame < lowest) {
                    *floor = Some((frame.frame, *time));
                }
            }
        }
        *slot.header_mut() = header;
        self.states[frame.frame as usize] = State::HandedOn;
        self.settled += 1;
        self.ready.push_back(slot.publish());
    }

    fn let_go(&mut self, frame: u64) {
        add(&self.counters.no_room, 1);
        self.states[frame as usize] = State::LetGo;
        self.settled += 1;
        if self.dropped.len() < DROPPED_MAX {
            self.dropped.push_back(frame);
        }
    }

    /// Hands on what has waited too long for its last packets. Not while packets wait for a slot.
    pub fn expire(&mut self, now_ns: u64, timeout_ns: u64) {
        let old = |entry: &Entry| entry.slot.is_some() && entry.count > 0 && now_ns >= entry.last_ns + timeout_ns;
        while let Some((entry, _)) = self
            .memory
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| old(entry))
            .min_by_key(|(_, entry)| entry.frame)
        {
            self.hand_on(entry, now_ns);
        }
    }

    /// No more will come: hands on what there is, and gives the other slots back.
    pub fn end(&mut self, now_ns: u64) {
        self.batch.aims.fill(None);
        while self.lowest().is_some() {
            self.close_lowest(now_ns);
        }
        self.memory.entries.iter_mut().for_each(|entry| entry.slot = None);
    }

    /// Whether every frame of the run was handed on or let go.
    pub fn whole(&self) -> bool {
        self.settled == self.config.frames
    }

    /// When a packet of the run came last, ns; 0 before the first.
    pub fn last_packet_ns(&self) -> u64 {
        self.last_packet_ns
    }

    /// What is ready.
    pub fn pop(&mut self) -> Option<Out> {
        let frame = self.ready.pop_front().map(Out::Frame);
        frame.or_else(|| self.dropped.pop_front().map(Out::Dropped))
    }
}
