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

/// When darks, flats and projections were taken, in frames of the scan: those of neighbours without a projection between
/// them are of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments {
    darks: Vec<f64>,
    flats: Vec<f64>,
    projections: Vec<f64>,
}

impl Moments {
    /// From the kind of every frame.
    pub(super) fn of(kinds: &[FrameKind]) -> Self {
        let of = |wanted: FrameKind| -> Vec<f64> {
            let (mut moments, mut together) = (Vec::new(), Vec::new());
            let mut close = |together: &mut Vec<f64>| {
                let mean = together.iter().sum::<f64>() / together.len().max(1) as f64;
                moments.extend(together.drain(..).map(|_| mean));
            };
            for (frame, kind) in kinds.iter().enumerate() {
                match kind {
                    kind if *kind == wanted => together.push(frame as f64),
                    FrameKind::Sample => close(&mut together),
                    _ => {}
                }
            }
            close(&mut together);
            moments
        };
        let projections = kinds.iter().enumerate().filter(|(_, kind)| **kind == FrameKind::Sample);
        Self {
            darks: of(FrameKind::Dark),
            flats: of(FrameKind::Flat),
            projections: projections.map(|(frame, _)| frame as f64).collect(),
        }
    }

    /// How many there are of darks and of flats together.
    pub(super) fn count(&self) -> usize {
        [&self.darks, &self.flats].map(|all| count(all)).iter().sum()
    }

    /// Whether darks or flats were taken at more than one.
    pub(super) fn several(&self) -> bool {
        count(&self.darks).max(count(&self.flats)) > 1
    }

    fn at(&self, kind: FrameKind, number: usize) -> f64 {
        let of_kind = match kind {
            FrameKind::Dark => &self.darks,
            FrameKind::Flat => &self.flats,
            _ => &self.projections,
        };
        of_kind.get(number).copied().unwrap_or_default()
    }
}

fn count(moments: &[f64]) -> usize {
    moments.windows(2).filter(|pair| pair[0] != pair[1]).count() + usize::from(!moments.is_empty())
}

/// Bytes that reading and correcting take, beside what is kept of it; `moments` of darks and flats are kept.
pub(super) fn memory_bytes(stream: &StreamDescription, phase: bool, moments: usize) -> usize {
    let pixels = stream.shape.pixels();
    let ring = FrameRing::bytes_needed(SLOTS, stream.payload_bytes_max);
    let staged = BATCH_FRAMES * stream.frame_bytes();
    // Two corrections with four fields and a batch of results each; sums of darks and flats; dark and flat.
    // Padded twice along both sides, up to a length that is fast: picture, spectrum, and rows on their way.
    let padded = if phase { 64 * pixels } else { 0 };
    ring + staged + padded + moments * pixels * 8 + pixels * (2 * (4 * 4 + 4 * BATCH_FRAMES + 1) + 2 * 8 + 2 * 4)
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
    /// where darks and flats differ from moment to moment
    moments: Option<Moments>,
    /// frames of each kind so far: darks, flats, projections
    counts: [usize; 3],
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
        moments: Option<Moments>,
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
        let mut correct = Correct::new(setup, parameters, mask, &mut ResultLayout::default())?;
        if moments.is_some() {
            correct.keep_times();
        }
        Ok(Self {
            source,
            stager: stager.map_err(|error| memory(&error))?,
            queue: accelerator.queue().map_err(|error| memory(&error))?,
            ring,
            correct,
            scratch: codec::Scratch::warmed(stream.compression),
            begun: false,
            moments,
            counts: [0; 3],
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
        mut take: impl FnMut(usize, &[f32]) -> Result<(), AfterwardsError>,
    ) -> Result<(), AfterwardsError> {
        self.source.arm(1)?;
        let mut batch: Vec<FrameLease> = Vec::with_capacity(BATCH_FRAMES);
        let mut projection = 0;
        self.counts[2] = 0;
        // Frames of different moments are corrected one by one.
        let most = if self.moments.is_some() { 1 } else { BATCH_FRAMES };
        loop {
            let next = match self.source.next(&self.ring, WhenFull::Wait)? {
                // The volume's columns have it as one that never came.
                Arrival::Frame(lease) if lease.header().is_partial() => continue,
                Arrival::Frame(lease) => Some(lease),
                Arrival::End => None,
                Arrival::Idle | Arrival::Dropped { .. } => continue,
            };
            let full = batch.len() == most;
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
        take: &mut impl FnMut(usize, &[f32]) -> Result<(), AfterwardsError>,
    ) -> Result<usize, AfterwardsError> {
        let kind = leases
            .first()
            .map_or(FrameKind::Invalid, |lease| lease.header().frame_kind());
        if self.begun && kind != FrameKind::Sample {
            return Ok(0);
        }
        let failed = |error: &dyn std::fmt::Display| AfterwardsError::Memory(error.to_string());
        if let Some(moments) = &self.moments {
            let counted = match kind {
                FrameKind::Dark => &mut self.counts[0],
                FrameKind::Flat => &mut self.counts[1],
                _ => &mut self.counts[2],
            };
            self.correct.at(moments.at(kind, *counted));
            *counted += leases.len();
        }
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
        let taken = values
            .chunks_exact(pixels)
            .enumerate()
            .try_for_each(|(index, projection)| take(first + index, projection));
        values.unmap().map_err(|error| failed(&error))?;
        taken?;
        self.invalid_pixels += self.correct.take_emptied();
        Ok(count)
    }
}

fn unreadable(lease: &FrameLease, error: &dyn std::fmt::Display) -> AfterwardsError {
    AfterwardsError::Source(SourceError::Read {
        path: "the closed run".into(),
        reason: format!("frame {} cannot be decoded: {error}", lease.header().frame_number.get()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flats_before_between_and_after_are_of_three_moments() {
        let (dark, flat, sample, lost) = (FrameKind::Dark, FrameKind::Flat, FrameKind::Sample, FrameKind::Invalid);
        let kinds = [
            dark, dark, flat, flat, sample, lost, sample, flat, sample, flat, lost, flat,
        ];
        let moments = Moments::of(&kinds);
        assert_eq!(moments.darks, [0.5, 0.5]);
        assert_eq!(moments.flats, [2.5, 2.5, 7.0, 10.0, 10.0]);
        assert_eq!(moments.projections, [4.0, 6.0, 8.0]);
        assert!(moments.several() && moments.count() == 4);
        assert!(!Moments::of(&kinds[..7]).several());
    }
}
