//! Counts that a counting pixel missed while it was busy with others.
//!
//! Non-paralyzable (EIGER's instant retrigger): `N = M / (1 - M τ / T)`. Paralyzable: `M = N exp(-N τ / T)`, its lower
//! branch. Or the detector's own table (Trueb et al., J. Synchrotron Rad. 19, 347, 2012; Johnson et al., J. Instrum. 9,
//! C06006, 2014). The result is a batch of f32 frames on the device. Above nine tenths of the rate at which a counter
//! says nothing any more, or at the end of the table, a pixel is saturated.

pub mod reference;

use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::limits;
use crate::stager::DeviceBatch;
use frame::{PixelMask, PixelType, Shape};

const SOURCE: &str = include_str!("countrate.cl");
/// Entries of the table at most. Between them the factor is interpolated: with so many, to 1e-9 of itself.
const ENTRIES_MAX: usize = 1 << 20;

/// How a counter is busy.
#[derive(Clone, Debug, PartialEq)]
pub enum DeadTime {
    /// a count that comes meanwhile is lost
    NonParalyzable {
        /// how long, seconds
        seconds: f64,
    },
    /// a count that comes meanwhile is lost and makes it longer
    Paralyzable {
        /// how long, seconds
        seconds: f64,
    },
    /// the detector's own table: true counts by measured ones, from 0 on
    Table(Vec<f64>),
}

/// What to correct for.
#[derive(Clone, Debug)]
pub struct CountRateConfig {
    /// how the counters are busy
    pub dead_time: DeadTime,
    /// exposure of a frame, seconds; of no interest to a table
    pub exposure_s: f64,
    /// pixels at or above this value are saturated already
    pub saturation: Option<f64>,
    /// pixels of this value hold no count
    pub invalid: Option<f64>,
}

/// The operation; see the module.
pub struct CountRate {
    kernel: Kernel,
    pixels: usize,
    pixel_type: PixelType,
    batch_limit: usize,
    /// pixels of a work item
    tile: usize,
    good: Buffer<i8>,
    factors: Buffer<f32>,
    scale: f32,
    cutoff: Option<f64>,
    invalid: Option<f64>,
    saturated: Buffer<u32>,
    saturated_host: Vec<u32>,
    output: DeviceBatch,
}

impl CountRate {
    /// Prepares for batches of up to `batch_limit` frames; everything is allocated here.
    pub fn new(
        accelerator: &Accelerator,
        config: &CountRateConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        batch_limit: usize,
    ) -> Result<CountRate, AcceleratorError> {
        check(config)?;
        AcceleratorError::expect_len("the mask's number of pixels", mask.bits().len(), shape.pixels())?;
        let ends = reference::cutoff(&config.dead_time, config.exposure_s);
        let limit = config.saturation.map_or(ends, |saturation| saturation.min(ends));
        // The table reaches beyond the last count that is corrected, so that there is a next entry for it.
        let steps = limit.min(pixel_type.max_value()).ceil().max(1.0);
        let step = (steps / (ENTRIES_MAX - 2) as f64).max(1.0);
        let factor = |entry: usize| {
            let measured = (entry as f64 * step).min(match &config.dead_time {
                DeadTime::Table(table) => (table.len() - 1) as f64,
                _ => f64::INFINITY,
            });
            let factor = match measured {
                0.0 => 1.0,
                _ => reference::corrected(&config.dead_time, config.exposure_s, measured) / measured,
            };
            factor as f32
        };
        let entries = (steps / step).ceil() as usize + 2;
        let factors: Vec<f32> = (0..entries).map(factor).collect();
        let tile = accelerator.tuning().tile_pixels;
        let (name, limit_name) = (pixel_type.opencl_name(), limits::opencl_name(pixel_type));
        let invalid = config
            .invalid
            .filter(|value| limits::at_least(pixel_type, *value) == Some(*value));
        let has_invalid = u8::from(invalid.is_some());
        let options = format!("-cl-std=CL1.2 -DPIXEL={name} -DLIMIT={limit_name} -DHAS_INVALID={has_invalid}");
        let program = accelerator.program("countrate", SOURCE, &options)?;
        let pixels = shape.pixels();
        let good: Vec<i8> = (0..pixels)
            .map(|pixel| if mask.rejects(pixel) { 0 } else { -1 })
            .collect();
        let mut countrate = Self {
            kernel: program.kernel("countrate")?,
            pixels,
            pixel_type,
            batch_limit,
            tile,
            good: accelerator.buffer_from(&good)?,
            factors: accelerator.buffer_from(&factors)?,
            scale: (1.0 / step) as f32,
            cutoff: limits::at_least(pixel_type, limit),
            invalid,
            saturated: accelerator.buffer(batch_limit)?,
            saturated_host: vec![0; batch_limit],
            output: DeviceBatch::made(accelerator, pixels * PixelType::F32.bytes(), batch_limit)?,
        };
        // Over no frame: some drivers finish compiling at the first launch. Nothing is read from the first two.
        let (queue, frames, offsets) = (accelerator.queue()?, accelerator.buffer(1)?, accelerator.buffer(1)?);
        countrate.launch(&queue, &frames, &offsets, 0, 0)?;
        queue.finish()?;
        Ok(countrate)
    }

    /// Corrects a batch; the result stays on the device until the next call.
    pub fn run(&mut self, queue: &Queue, batch: &DeviceBatch) -> Result<(), AcceleratorError> {
        batch.check(self.pixels * self.pixel_type.bytes(), self.batch_limit)?;
        queue.clear(&self.saturated)?;
        for (frames, group) in batch.groups() {
            self.launch(queue, frames, batch.offsets(), group.first, group.count)?;
        }
        self.output.set_frames(batch.frames());
        queue.read(&self.saturated, 0, &mut self.saturated_host)
    }

    /// The frames that were last corrected.
    pub fn output(&self) -> &DeviceBatch {
        &self.output
    }

    /// Their saturated pixels that are not masked, frame by frame.
    pub fn saturated(&self) -> &[u32] {
        &self.saturated_host[..self.output.frames()]
    }

    fn launch(
        &mut self,
        queue: &Queue,
        frames: &Buffer<u8>,
        offsets: &Buffer<u64>,
        first: usize,
        count: usize,
    ) -> Result<(), AcceleratorError> {
        // A cut-off beyond the type: of whole numbers the largest is then the end, of floats infinity.
        let beyond = self.pixel_type.max_value();
        let cutoff = self.cutoff.unwrap_or(beyond);
        let arguments = [
            frames.into(),
            offsets.into(),
            Arg::U32(first as u32),
            Arg::U32(count as u32),
            Arg::U32(self.pixels as u32),
            Arg::U32(self.tile as u32),
            (&self.good).into(),
            (&self.factors).into(),
            Arg::U32(self.factors.len() as u32),
            Arg::F32(self.scale),
            limits::argument(self.pixel_type, Some(cutoff)),
            limits::argument(self.pixel_type, self.invalid),
            Arg::U32(self.output.slot_bytes() as u32),
            self.output.memory().into(),
            (&self.saturated).into(),
        ];
        queue.launch(
            &mut self.kernel,
            &arguments,
            [self.pixels.div_ceil(self.tile), 1, 1],
            [1; 3],
        )
    }
}

fn check(config: &CountRateConfig) -> Result<(), AcceleratorError> {
    let value = |name, value: String, allowed| Err(AcceleratorError::Value { name, value, allowed });
    match &config.dead_time {
        DeadTime::NonParalyzable { seconds } | DeadTime::Paralyzable { seconds } => {
            if !(*seconds > 1e-12 && *seconds < 1.0) {
                return value("the dead time", format!("{seconds} s"), "1e-12 to 1 s");
            }
            if !(config.exposure_s > *seconds && config.exposure_s < 1e6) {
                let exposure = format!("{} s", config.exposure_s);
                return value("the exposure", exposure, "longer than the dead time, below 1e6 s");
            }
        }
        DeadTime::Table(table) => {
            let wrong = |(index, counts): &(usize, &f64)| {
                !(counts.is_finite() && **counts >= 0.0) || (*index > 0 && **counts < *index as f64 * 0.5)
            };
            if let Some((index, counts)) = table.iter().enumerate().find(wrong) {
                let found = format!("{counts} at {index} counts");
                return value(
                    "the count-rate table",
                    found,
                    "true counts, not far below the measured ones",
                );
            }
            if !(2..=ENTRIES_MAX).contains(&table.len()) {
                return value(
                    "the count-rate table",
                    format!("{} entries", table.len()),
                    "2 to 1048576 entries",
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
