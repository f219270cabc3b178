//! The projections of a closed run, corrected as they were live: read from its files once per pass.

use super::super::{Batch, Operation, Setup};
use super::correct::{Correct, CorrectParameters};
use crate::afterwards::{AfterwardsError, Place};
use crate::storage::decode_bitshuffle;
use driver::memory::{FrameLease, FrameRing, HugePages, PageSize, PagesConfig};
use driver::replay::{Replay, ReplayConfig};
use driver::source::{Arrival, FrameSource, SourceError, WhenFull};
use frame::{Compression, FrameKind, PixelMask, ResultLayout, StreamDescription, codec};
use kernels::{Accelerator, Queue, Stager};
use std::path::Path;

/// Frames that are corrected together.
pub(super) const BATCH_FRAMES: usize = 4;
/// Slots of the ring that they are read into.
const SLOTS: usize = 2 * BATCH_FRAMES;

/// Bytes that reading and correcting take, beside what is kept of it.
pub(super) fn memory_bytes(stream: &StreamDescription, phase: bool) -> usize {
    let pixels = stream.shape.pixels();
    let ring = FrameRing::bytes_needed(SLOTS, stream.payload_bytes_max);
    let staged = BATCH_FRAMES * stream.frame_bytes();
    // Two corrections with four fields and a batch of results each; sums of darks and flats; dark and flat.
    // Padded twice along both sides, up to a length that is fast: picture, spectrum, and rows on their way.
    let padded = if phase { 64 * pixels } else { 0 };
    ring + staged + padded + pixels * (2 * (4 * 4 + 4 * BATCH_FRAMES + 1) + 2 * 8 + 2 * 4)
}

/// See the module.
pub(super) struct Projections {
    source: Replay,
    ring: FrameRing,
    stager: Stager,
    queue: Queue,
    correct: Correct,
    scratch: codec::Scratch,
    /// whether darks and flats have been taken
    begun: bool,
    /// pixels without a valid transmission so far
    pub(super) invalid_pixels: u64,
}

/// What opens the frames of a closed run.
pub(super) fn open(raw: &Path) -> Result<Replay, AfterwardsError> {
    decode_bitshuffle(raw)?;
    let mut source = Replay::open(raw, &ReplayConfig::default())?;
    source.arm(1)?;
    Ok(source)
}

impl Projections {
    /// Prepares for as many passes as needed. `setup` has the stream of `source`.
    pub(super) fn new(
        setup: &Setup<'_>,
        source: Replay,
        parameters: CorrectParameters,
        mask: &PixelMask,
        accelerator: &Accelerator,
    ) -> Result<Self, AfterwardsError> {
        let stream = setup.stream;
        let memory = |error: &dyn std::fmt::Display| AfterwardsError::Memory(error.to_string());
        let pages = HugePages::reserve(&PagesConfig {
            bytes: FrameRing::bytes_needed(SLOTS, stream.payload_bytes_max),
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        });
        let pages = pages.map_err(|error| memory(&error))?;
        let ring = FrameRing::new(pages, SLOTS, stream.payload_bytes_max).map_err(|error| memory(&error))?;
        let decoded = stream.compression != Compression::None;
        let stager = Stager::new(accelerator, ring.region(), stream.frame_bytes(), BATCH_FRAMES, decoded);
        let correct = Correct::new(setup, parameters, mask, &mut ResultLayout::default())?;
        Ok(Self {
            source,
            stager: stager.map_err(|error| memory(&error))?,
            queue: accelerator.queue().map_err(|error| memory(&error))?,
            ring,
            correct,
            scratch: codec::Scratch::warmed(stream.compression),
            begun: false,
            invalid_pixels: 0,
        })
    }

    /// The queue that frames are corrected on.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// One pass over every projection, in the order of frames: `take` gets its number among the projections, and its
    /// corrected values.
    pub(super) fn pass(
        &mut self,
        place: &Place<'_>,
        mut take: impl FnMut(usize, &[f32]),
    ) -> Result<(), AfterwardsError> {
        self.source.arm(1)?;
        let mut batch: Vec<FrameLease> = Vec::with_capacity(BATCH_FRAMES);
        let mut projection = 0;
        loop {
            let next = match self.source.next(&self.ring, WhenFull::Wait)? {
                Arrival::Frame(lease) => Some(lease),
                Arrival::End => None,
                Arrival::Idle | Arrival::Dropped { .. } => continue,
            };
            let full = batch.len() == BATCH_FRAMES;
            let other = |lease: &FrameLease| {
                batch
                    .first()
                    .is_some_and(|first| first.header().kind != lease.header().kind)
            };
            if !batch.is_empty() && (full || next.as_ref().is_none_or(other)) {
                place.give_way()?;
                projection += self.one_batch(&batch, projection, &mut take)?;
                batch.clear();
            }
            match next {
                Some(lease) => batch.push(lease),
                None => break,
            }
        }
        self.begun = true;
        Ok(())
    }

    /// Corrects a batch of one kind; returns how many projections it had.
    fn one_batch(
        &mut self,
        leases: &[FrameLease],
        first: usize,
        take: &mut impl FnMut(usize, &[f32]),
    ) -> Result<usize, AfterwardsError> {
        let kind = leases
            .first()
            .map_or(FrameKind::Invalid, |lease| lease.header().frame_kind());
        if self.begun && kind != FrameKind::Sample {
            return Ok(0);
        }
        let failed = |error: &dyn std::fmt::Display| AfterwardsError::Memory(error.to_string());
        self.stager.begin().map_err(|error| failed(&error))?;
        for lease in leases {
            let header = lease.header();
            let beneath = Compression::from_code(header.compression).and_then(codec::Beneath::of);
            let pixel_bytes = self.source.stream().pixel_type.bytes();
            let scratch = &mut self.scratch;
            match beneath {
                None => self
                    .stager
                    .add_in_region(lease.payload_offset())
                    .map_err(|error| failed(&error))?,
                Some(beneath) => self
                    .stager
                    .add_decoded(|out| codec::decompress(beneath, lease.payload(), pixel_bytes, out, scratch))
                    .map_err(|error| unreadable(lease, &error))?,
            }
        }
        let frames = self.stager.finish(&self.queue).map_err(|error| failed(&error))?;
        let mut batch = Batch {
            queue: &self.queue,
            frames,
            kind,
            angles_deg: &[],
            results: &mut [],
            corrected: None,
        };
        self.correct.push(&mut batch)?;
        let Some(corrected) = batch.corrected else {
            return Ok(0);
        };
        let (count, pixels) = (corrected.frames(), corrected.shape().pixels());
        self.invalid_pixels += corrected.invalid().iter().map(|pixels| u64::from(*pixels)).sum::<u64>();
        let values = corrected.map(&self.queue).map_err(|error| failed(&error))?;
        for (index, projection) in values.chunks_exact(pixels).enumerate() {
            take(first + index, projection);
        }
        values.unmap().map_err(|error| failed(&error))?;
        Ok(count)
    }
}

fn unreadable(lease: &FrameLease, error: &dyn std::fmt::Display) -> AfterwardsError {
    AfterwardsError::Source(SourceError::Read {
        path: "the closed run".into(),
        reason: format!("frame {} cannot be decoded: {error}", lease.header().frame_number.get()),
    })
}
