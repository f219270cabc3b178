//! The host's part of peakfinder8: rings of pixels, candidates, and what of them is a peak.

use super::labels::{Grown, Labels};
use super::{FrameSpots, Spot, SpotConfig};
use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::program::Program;
use frame::Shape;

/// A candidate of a frame of the batch.
#[derive(Clone, Copy)]
struct Candidate {
    frame: u32,
    grown: Grown,
    /// mean of the ring at its place, counts
    mean: f32,
}

/// Where frames lie on the device.
pub(super) struct Frames<'a> {
    pub frames: &'a Buffer<u8>,
    pub offsets: &'a Buffer<u64>,
    pub good: &'a Buffer<i8>,
    pub settings: &'a Buffer<u8>,
}

/// Rings and room for candidates; everything is allocated when it is made.
pub(super) struct Rings {
    limits_kernel: Kernel,
    above_kernel: Kernel,
    around_kernel: Kernel,
    shape: Shape,
    panel: Shape,
    reach: usize,
    rings: usize,
    ring_of: Buffer<u16>,
    ring_of_host: Vec<u16>,
    starts: Buffer<u32>,
    members: Buffer<u32>,
    limits: Buffer<f32>,
    limits_host: Vec<f32>,
    places: Buffer<u32>,
    places_host: Vec<u32>,
    around: Buffer<u64>,
    around_host: Vec<u64>,
    candidates: Vec<Candidate>,
}

/// Frame shape or, where panels are told, theirs.
pub(super) fn panel(config: &SpotConfig, shape: Shape) -> Shape {
    config.panel.unwrap_or(shape)
}

impl Rings {
    pub(super) fn new(
        accelerator: &Accelerator,
        program: &Program,
        config: &SpotConfig,
        shape: Shape,
        good: &[i8],
        batch_limit: usize,
    ) -> Result<Self, AcceleratorError> {
        AcceleratorError::expect_len("the number of rings' pixels", config.rings.len(), shape.pixels())?;
        let rings = config.rings.iter().max().map_or(0, |last| usize::from(*last) + 1);
        let mut starts = vec![0u32; rings + 1];
        let usable = || (0..shape.pixels()).filter(|pixel| good[*pixel] != 0);
        usable().for_each(|pixel| starts[usize::from(config.rings[pixel]) + 1] += 1);
        (0..rings).for_each(|ring| starts[ring + 1] += starts[ring]);
        let mut next = starts.clone();
        // One at least: no device has buffers of nothing.
        let mut members = vec![0u32; (starts[rings] as usize).max(1)];
        for pixel in usable() {
            let at = &mut next[usize::from(config.rings[pixel])];
            members[*at as usize] = pixel as u32;
            *at += 1;
        }
        let most = batch_limit * config.pixels_max.div_ceil(config.min_pixels);
        Ok(Self {
            limits_kernel: program.kernel("ring_limits")?,
            above_kernel: program.kernel("above_rings")?,
            around_kernel: program.kernel("surroundings")?,
            shape,
            panel: panel(config, shape),
            reach: 2 * config.background_radius,
            rings,
            ring_of: accelerator.buffer_from(&config.rings)?,
            ring_of_host: config.rings.to_vec(),
            starts: accelerator.buffer_from(&starts)?,
            members: accelerator.buffer_from(&members)?,
            limits: accelerator.buffer(batch_limit * rings * 2)?,
            limits_host: vec![0.0; batch_limit * rings * 2],
            places: accelerator.buffer(3 * most)?,
            places_host: Vec::with_capacity(3 * most),
            around: accelerator.buffer(4 * most)?,
            around_host: vec![0; 4 * most],
            candidates: Vec::with_capacity(most),
        })
    }

    /// Marks the strong pixels of `count` frames from `first` on; `group`: work items side by side.
    pub(super) fn threshold(
        &mut self,
        queue: &Queue,
        of: &Frames<'_>,
        strong: &Buffer<u16>,
        (first, count): (usize, usize),
        group: usize,
    ) -> Result<(), AcceleratorError> {
        let (number, rings) = (Arg::U32(first as u32), Arg::U32(self.rings as u32));
        let arguments = [
            of.frames.into(),
            of.offsets.into(),
            number,
            of.good.into(),
            of.settings.into(),
            (&self.starts).into(),
            (&self.members).into(),
            rings,
            (&self.limits).into(),
        ];
        let across = |items: usize| items.next_multiple_of(group);
        let global = [across(self.rings), count, 1];
        queue.launch(&mut self.limits_kernel, &arguments, global, [group, 1, 1])?;
        let arguments = [
            of.frames.into(),
            of.offsets.into(),
            number,
            of.good.into(),
            Arg::U32(self.shape.rows as u32),
            Arg::U32(self.shape.columns as u32),
            of.settings.into(),
            (&self.ring_of).into(),
            rings,
            (&self.limits).into(),
            strong.into(),
        ];
        let global = [across(self.shape.columns.div_ceil(16)), self.shape.rows, count];
        queue.launch(&mut self.above_kernel, &arguments, global, [group, 1, 1])
    }

    /// Reads the rings' means of a batch.
    pub(super) fn begin(&mut self, queue: &Queue, frames: usize) -> Result<(), AcceleratorError> {
        self.candidates.clear();
        self.places_host.clear();
        queue.read(&self.limits, 0, &mut self.limits_host[..frames * self.rings * 2])
    }

    /// Takes the candidates of a frame whose strong pixels are `listed` by index and value.
    pub(super) fn candidates(&mut self, labels: &mut Labels, frame: usize, listed: &[u32], config: &SpotConfig) {
        let (shape, ring_of) = (self.shape, &self.ring_of_host);
        let limits = &self.limits_host[frame * self.rings * 2..];
        let mean = |index: usize| limits[usize::from(ring_of[index]) * 2 + 1];
        let excess = |index: u32, value: u32| f64::from(value) - f64::from(mean(index as usize));
        let (places, candidates) = (&mut self.places_host, &mut self.candidates);
        labels.candidates(listed, shape.columns, self.panel, excess, |grown, sums| {
            let size = grown.pixels as usize;
            if size < config.min_pixels || size > config.max_pixels || sums[0].abs() < 1e-10 {
                return;
            }
            let place =
                |sum: f64, end: usize| (sum / sums[0].abs()).round_ties_even().clamp(0.0, (end - 1) as f64) as usize;
            let (row, column) = (place(sums[1], shape.rows), place(sums[2], shape.columns));
            places.extend([frame as u32, row as u32, column as u32]);
            candidates.push(Candidate {
                frame: frame as u32,
                grown,
                mean: mean(row * shape.columns + column),
            });
        });
    }

    /// Sends the places of all frames' candidates to the device.
    pub(super) fn send(&mut self, queue: &Queue) -> Result<(), AcceleratorError> {
        if self.places_host.is_empty() {
            return Ok(());
        }
        queue.write(&self.places, 0, &self.places_host)
    }

    /// Looks around the candidates of `count` frames from `first` on.
    pub(super) fn surround(
        &mut self,
        queue: &Queue,
        of: &Frames<'_>,
        (first, count): (usize, usize),
    ) -> Result<(), AcceleratorError> {
        let before = |frame: usize| self.candidates.partition_point(|one| (one.frame as usize) < frame);
        let (begin, end) = (before(first), before(first + count));
        if begin == end {
            return Ok(());
        }
        let arguments = [
            of.frames.into(),
            of.offsets.into(),
            of.good.into(),
            Arg::U32(self.shape.rows as u32),
            Arg::U32(self.shape.columns as u32),
            of.settings.into(),
            (&self.ring_of).into(),
            Arg::U32(self.rings as u32),
            (&self.limits).into(),
            Arg::U32(self.panel.rows as u32),
            Arg::U32(self.panel.columns as u32),
            Arg::I32(self.reach as i32),
            (&self.places).into(),
            Arg::U32(begin as u32),
            (&self.around).into(),
        ];
        queue.launch(&mut self.around_kernel, &arguments, [end - begin, 1, 1], [1; 3])
    }

    /// Puts the peaks of all frames into their outputs, the strongest first.
    pub(super) fn peaks(
        &mut self,
        queue: &Queue,
        config: &SpotConfig,
        labels: &mut Labels,
        outputs: &mut [FrameSpots],
    ) -> Result<(), AcceleratorError> {
        let around = &mut self.around_host[..4 * self.candidates.len()];
        if !around.is_empty() {
            queue.read(&self.around, 0, around)?;
        }
        let mut candidates = self.candidates.iter().zip(around.chunks_exact(4)).peekable();
        for (frame, output) in outputs.iter_mut().enumerate() {
            labels.begin();
            while let Some((candidate, around)) = candidates.next_if(|(one, _)| one.frame as usize == frame) {
                if let Some(spot) = peak(candidate, around, self.panel, config) {
                    labels.add(spot);
                }
            }
            // A frame with too many strong pixels has no candidates, and its peaks stay unknown.
            if let Some(found) = &mut output.found {
                *found = labels.strongest(config, &mut output.spots);
            }
        }
        Ok(())
    }
}

/// The peak, if the candidate is one. `around`: number, sum, sum of squares, largest of its surroundings.
fn peak(candidate: &Candidate, around: &[u64], panel: Shape, config: &SpotConfig) -> Option<Spot> {
    let grown = &candidate.grown;
    let [number, sum, squares, largest] = [0, 1, 2, 3].map(|at| around[at]);
    let (offset, sigma) = if number == 0 {
        (f64::from(candidate.mean), 0.01)
    } else {
        let variance = u128::from(number) * u128::from(squares) - u128::from(sum).pow(2);
        (sum as f64 / number as f64, (variance as f64).sqrt() / number as f64)
    };
    let intensity = grown.sum as f64 - f64::from(grown.pixels) * offset;
    let snr = if sigma > 1e-10 { intensity / sigma } else { 0.0 };
    let highest = (f64::from(grown.max) - offset).max(0.0);
    if grown.sum == 0 || snr < config.strong_sigmas || highest < largest as f64 - offset {
        return None;
    }
    let (row, column) = (
        grown.rows as f64 / grown.sum as f64,
        grown.columns as f64 / grown.sum as f64,
    );
    // Beyond the last pixel's centre there is no telling which panel it belongs to.
    let beside = |place: f64, peak: u32, length: usize| {
        let first = peak as usize / length * length;
        place < first as f64 || place > (first + length - 1) as f64
    };
    if beside(row, grown.peak.0, panel.rows) || beside(column, grown.peak.1, panel.columns) {
        return None;
    }
    Some(Spot {
        row: row as f32,
        column: column as f32,
        intensity,
        max: grown.max,
        pixels: grown.pixels,
    })
}
