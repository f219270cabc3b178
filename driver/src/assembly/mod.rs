//! Several sources make one frame: each part has a place in it.
//!
//! ```text
//!   part 0 ─▶ thread ─▶ small ring ─┐  modules
//!   part 1 ─▶ thread ─▶ small ring ─┼─▶ matcher ─▶ one copy or decode into its place ─▶ slot of the run's ring
//!   part 2 ─▶ thread ─▶ small ring ─┘
//! ```
//!
//! A frame waits for its modules no longer than configured. Then it is handed on as partial, its missing modules filled with
//! the mask value. What lies between modules holds the mask value too, and is masked as a gap.
//!
//! The copy is the price of assembling: a part's source owns the bytes until it has a whole module. A single source has none.

mod matcher;
mod merge;
#[cfg(test)]
mod tests;
mod thread;

pub use matcher::{Align, PARTS_MAX};

use crate::clock::monotonic_ns;
use crate::memory::{FrameLease, FrameRing, FrameSlot};
use crate::source::{Arrival, FrameSource, SourceError, WhenFull};
use frame::header::FLAG_PARTIAL;
use frame::{Compression, FrameHeader, PixelType, Shape, StreamDescription, codec};
use matcher::{Closed, Matcher, Placed, Room};
use std::collections::BTreeMap;
use std::time::Duration;
use thread::{FromPart, PartThread, Wake};

/// One part.
pub struct Part {
    /// where its frames come from
    pub source: Box<dyn FrameSource>,
    /// row of its first pixel in the assembled frame
    pub row: usize,
    /// column of its first pixel
    pub column: usize,
    /// its clock minus the first part's, ns; learned from the first pair where it is not given
    pub clock_offset_ns: Option<i64>,
}

/// How parts become frames.
#[derive(Clone, Debug)]
pub struct AssemblyConfig {
    /// of the assembled frame
    pub shape: Shape,
    /// longest wait for the other modules of a frame
    pub wait: Duration,
    /// by what modules of one frame are known
    pub align: Align,
    /// modules of one part that can be in memory at once
    pub part_slots: usize,
    /// what a part does when its own ring is full
    pub when_full: WhenFull,
}

/// What happened to modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssemblyCounts {
    /// modules put into their place
    pub placed: u64,
    /// modules that were not there when their frame was handed on
    pub missing: u64,
    /// modules that came after their frame had been handed on
    pub late: u64,
    /// modules that came again
    pub duplicate: u64,
    /// modules that belong to no frame
    pub unmatched: u64,
    /// modules whose bytes cannot be theirs
    pub damaged: u64,
    /// modules that a part let go because its ring was full
    pub dropped: u64,
    /// bytes written into frames
    pub copied_bytes: u64,
}

/// See the module.
pub struct Assembly {
    parts: Vec<Part>,
    running: Vec<PartThread>,
    config: AssemblyConfig,
    stream: StreamDescription,
    /// rows and columns of each part, and offset of its first pixel, bytes
    places: Vec<(Shape, usize)>,
    /// what no part covers: offset and length, bytes
    gaps: Vec<(usize, usize)>,
    matcher: Matcher,
    slots: Vec<Option<FrameSlot>>,
    /// modules that could not be placed yet
    held: Vec<Option<FrameLease>>,
    ended: Vec<bool>,
    epoch: u32,
    counts: AssemblyCounts,
    scratch: codec::Scratch,
    wake: Wake,
    remarks: Vec<String>,
}

impl Assembly {
    /// Of at least two parts.
    ///
    /// # Errors
    /// [`SourceError::Parameter`] for numbers that no assembly can be made of.
    pub fn new(parts: Vec<Part>, config: AssemblyConfig) -> Result<Self, SourceError> {
        let wrong = |key, value: String, expected: &str| {
            let expected = expected.into();
            Err(SourceError::Parameter { key, value, expected })
        };
        if !(2..=PARTS_MAX).contains(&parts.len()) {
            return wrong("(number)", parts.len().to_string(), "2 to 16 parts");
        }
        if !(4..=4096).contains(&config.part_slots) {
            return wrong("part_slots", config.part_slots.to_string(), "allowed is 4 to 4096");
        }
        let count = parts.len();
        Ok(Self {
            stream: merge::unknown(&config),
            matcher: Matcher::new(count, 0, config.align, 0, 1),
            running: Vec::with_capacity(count),
            places: Vec::new(),
            gaps: Vec::new(),
            slots: Vec::new(),
            held: (0..count).map(|_| None).collect(),
            ended: vec![false; count],
            epoch: 0,
            counts: AssemblyCounts::default(),
            scratch: codec::Scratch::warmed(Compression::BitshuffleZstd),
            wake: Wake::new(),
            remarks: Vec::new(),
            parts,
            config,
        })
    }

    /// What happened so far.
    pub fn assembly_counts(&self) -> AssemblyCounts {
        let dropped = self.running.iter().map(PartThread::dropped).sum();
        AssemblyCounts { dropped, ..self.counts }
    }

    /// Takes what parts have, one module each; whether anything was taken.
    fn gather(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Gathered, SourceError> {
        let mut gathered = Gathered::Nothing;
        for part in 0..self.running.len() {
            if self.held[part].is_none() {
                match self.running[part].take() {
                    Some(FromPart::Module(lease)) => self.held[part] = Some(lease),
                    Some(FromPart::Ended(remarks)) => {
                        let named = remarks.into_iter().map(|remark| format!("source {part}: {remark}"));
                        self.remarks.extend(named);
                        self.ended[part] = true;
                        self.matcher.ended(part);
                        gathered = Gathered::Something;
                    }
                    Some(FromPart::Failed(error)) => return Err(error),
                    None => {}
                }
            }
            if let Some(lease) = self.held[part].take() {
                match self.module(part, lease, ring, when_full) {
                    Module::Taken => gathered = Gathered::Something,
                    Module::Later(lease) => self.held[part] = Some(lease),
                    Module::Dropped(frame_number) => return Ok(Gathered::Dropped(frame_number)),
                }
            }
        }
        Ok(gathered)
    }

    fn module(&mut self, part: usize, lease: FrameLease, ring: &FrameRing, when_full: WhenFull) -> Module {
        let header = *lease.header();
        let now = monotonic_ns();
        let (number, time_ns) = (header.frame_number.get(), header.detector_time_ns.get());
        let (place, new) = match self.matcher.place(part, number, time_ns, now) {
            Placed::New(place) => (place, true),
            Placed::Joins(place) => (place, false),
            Placed::Full => return Module::Later(lease),
            refused => {
                let count = match refused {
                    Placed::Duplicate => &mut self.counts.duplicate,
                    Placed::Late => &mut self.counts.late,
                    _ => &mut self.counts.unmatched,
                };
                *count += 1;
                return Module::Taken;
            }
        };
        if new {
            let Some(mut slot) = ring.try_slot() else {
                if when_full == WhenFull::Wait {
                    self.matcher.take_back(place);
                    return Module::Later(lease);
                }
                return match self.matcher.close(place).and_then(|closed| closed.frame) {
                    Some(frame) => Module::Dropped(frame),
                    None => Module::Taken,
                };
            };
            self.begin(&mut slot, &header);
            self.slots[place] = Some(slot);
        }
        if let Some(slot) = &mut self.slots[place] {
            let (shape, offset) = self.places[part];
            let copied = copy(&lease, shape, offset, &self.stream, slot, &mut self.scratch);
            if copied {
                self.counts.placed += 1;
                self.counts.copied_bytes += (shape.pixels() * self.stream.pixel_type.bytes()) as u64;
                tell(slot, &lease, part);
            } else {
                self.counts.damaged += 1;
                self.matcher.spoiled(place, part);
            }
        }
        Module::Taken
    }

    /// The header of a frame whose first module has come, and what no module covers.
    fn begin(&self, slot: &mut FrameSlot, first: &FrameHeader) {
        let mut header = FrameHeader::new(self.stream.shape, self.stream.pixel_type, Compression::None);
        header.epoch.set(self.epoch);
        header.kind = first.kind;
        header.angle_deg = first.angle_deg;
        header.detector_time_ns = first.detector_time_ns;
        header.parts_expected.set(self.places.len() as u32);
        *slot.header_mut() = header;
        let pixel_type = self.stream.pixel_type;
        for (offset, bytes) in &self.gaps {
            fill(&mut slot.payload_mut()[*offset..offset + bytes], pixel_type);
        }
    }

    /// Hands a frame on, its missing modules filled with the mask value.
    fn hand_on(&mut self, place: usize) -> Option<FrameLease> {
        let Closed {
            frame,
            missing,
            present,
        } = self.matcher.close(place)?;
        let mut slot = self.slots[place].take()?;
        let Some(frame) = frame else {
            self.counts.unmatched += u64::from(present.count_ones());
            return None;
        };
        let (stride, pixel_bytes) = (row_bytes(&self.stream), self.stream.pixel_type.bytes());
        let mut missing_bytes = slot.header_mut().missing_bytes.get();
        for (part, (shape, offset)) in self.places.iter().enumerate() {
            if missing & (1 << part) == 0 {
                continue;
            }
            self.counts.missing += 1;
            let width = shape.columns * pixel_bytes;
            missing_bytes = missing_bytes.saturating_add((shape.rows * width) as u32);
            for row in 0..shape.rows {
                let at = offset + row * stride;
                fill(&mut slot.payload_mut()[at..at + width], self.stream.pixel_type);
            }
        }
        let header = slot.header_mut();
        header.frame_number.set(frame);
        header.origin_index.set(frame);
        header.parts_missing.set(missing.count_ones());
        header.missing_bytes.set(missing_bytes);
        if missing_bytes > 0 {
            header.flags |= FLAG_PARTIAL;
        }
        header.arrival_time_ns.set(monotonic_ns());
        Some(slot.publish())
    }
}

enum Gathered {
    Nothing,
    Something,
    Dropped(u64),
}

enum Module {
    Taken,
    Later(FrameLease),
    Dropped(u64),
}

fn row_bytes(stream: &StreamDescription) -> usize {
    stream.shape.columns * stream.pixel_type.bytes()
}

/// What the header of a frame says more once a module is there. The first part's word goes first.
fn tell(slot: &mut FrameSlot, lease: &FrameLease, part: usize) {
    let (module, header) = (lease.header(), slot.header_mut());
    let missing = header.missing_bytes.get().saturating_add(module.missing_bytes.get());
    header.missing_bytes.set(missing);
    if module.is_partial() {
        header.flags |= FLAG_PARTIAL;
    }
    if part == 0 {
        header.detector_time_ns = module.detector_time_ns;
        header.angle_deg = module.angle_deg;
    }
    for note in lease.notes() {
        slot.note(*note);
    }
}

/// Puts a module into its place, decoded where it is compressed; false if it cannot be one.
fn copy(
    lease: &FrameLease,
    shape: Shape,
    offset: usize,
    stream: &StreamDescription,
    slot: &mut FrameSlot,
    scratch: &mut codec::Scratch,
) -> bool {
    let header = lease.header();
    if header.shape() != shape || header.pixel_type != stream.pixel_type.code() || !lease.intact() {
        return false;
    }
    let (pixel_bytes, stride) = (stream.pixel_type.bytes(), row_bytes(stream));
    let width = shape.columns * pixel_bytes;
    let Some(out) = slot.payload_mut().get_mut(offset..) else {
        return false;
    };
    match Compression::from_code(header.compression).and_then(codec::Beneath::of) {
        Some(beneath) => {
            let rows = (shape.rows, width);
            codec::decompress_rows(beneath, lease.payload(), pixel_bytes, rows, out, stride, scratch).is_ok()
        }
        None => {
            for (row, line) in lease.payload().chunks_exact(width).enumerate() {
                out[row * stride..][..width].copy_from_slice(line);
            }
            true
        }
    }
}

/// The mask value: the largest of an integer type, no number of a floating-point one.
fn fill(bytes: &mut [u8], pixel_type: PixelType) {
    match pixel_type {
        PixelType::U8 | PixelType::U16 | PixelType::U32 => bytes.fill(0xff),
        PixelType::I16 => bytes.as_chunks_mut().0.fill(i16::MAX.to_le_bytes()),
        PixelType::I32 => bytes.as_chunks_mut().0.fill(i32::MAX.to_le_bytes()),
        PixelType::F32 => bytes.as_chunks_mut().0.fill(f32::NAN.to_le_bytes()),
    }
}

impl FrameSource for Assembly {
    fn stream(&self) -> &StreamDescription {
        &self.stream
    }

    /// Arms every part at the same time: one may have to wait for its detector.
    fn arm(&mut self, epoch: u32) -> Result<(), SourceError> {
        let armed: Vec<Result<(), SourceError>> = std::thread::scope(|scope| {
            let parts = self.parts.iter_mut();
            let threads: Vec<_> = parts.map(|part| scope.spawn(|| part.source.arm(epoch))).collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(armed) => armed,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect()
        });
        armed.into_iter().collect::<Result<(), _>>()?;
        let merged = merge::merge(&self.parts, &self.config)?;
        self.epoch = epoch;
        self.stream = merged.stream;
        self.places = merged.places;
        self.gaps = merged.gaps;
        self.remarks = merged.remarks;
        Ok(())
    }

    fn prepare(&mut self, ring: &FrameRing) -> Result<(), SourceError> {
        let open_max = (ring.slots() / 4).clamp(1, 64);
        let (frames, wait_ns) = (self.stream.frames_expected, self.config.wait.as_nanos() as u64);
        self.matcher = Matcher::new(self.parts.len(), frames, self.config.align, wait_ns, open_max);
        self.slots = (0..self.matcher.places()).map(|_| None).collect();
        for (index, part) in self.parts.drain(..).enumerate() {
            if let Some(offset_ns) = part.clock_offset_ns {
                self.matcher.set_offset(index, offset_ns);
            }
            let started = PartThread::start(index, part.source, &self.config, self.wake.clone())?;
            self.running.push(started);
        }
        Ok(())
    }

    fn next(&mut self, ring: &FrameRing, when_full: WhenFull) -> Result<Arrival, SourceError> {
        loop {
            let mut waiting = self.held.iter().zip(&self.ended);
            let room = match when_full {
                WhenFull::Drop if waiting.any(|(held, _)| held.is_some()) => Room::Needed,
                WhenFull::Wait if waiting.all(|(held, ended)| held.is_some() || *ended) => Room::Wanted,
                _ => Room::Enough,
            };
            let mut due = self.matcher.whole(room);
            if due.is_none() {
                match self.gather(ring, when_full)? {
                    Gathered::Something => continue,
                    Gathered::Dropped(frame_number) => return Ok(Arrival::Dropped { frame_number }),
                    // Whoever was kept from asking has not missed what came meanwhile.
                    Gathered::Nothing => due = self.matcher.overdue(monotonic_ns()),
                }
            }
            if let Some(place) = due {
                if let Some(lease) = self.hand_on(place) {
                    return Ok(Arrival::Frame(lease));
                }
                continue;
            }
            let over = self.ended.iter().all(|ended| *ended) && self.held.iter().all(Option::is_none);
            if over && self.matcher.idle() {
                return Ok(Arrival::End);
            }
            // A slot that comes back wakes nobody: whoever waits for one asks again soon.
            let starved = self.held.iter().any(Option::is_some);
            if !self.wake.wait(Duration::from_millis(if starved { 1 } else { 5 })) {
                return Ok(Arrival::Idle);
            }
        }
    }

    fn remarks(&self) -> Vec<String> {
        self.remarks.clone()
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let c = self.assembly_counts();
        [
            ("placed", c.placed),
            ("missing", c.missing),
            ("late", c.late),
            ("duplicate", c.duplicate),
            ("unmatched", c.unmatched),
            ("damaged", c.damaged),
            ("dropped", c.dropped),
            ("copied_bytes", c.copied_bytes),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_string(), count))
        .collect()
    }
}
