//! Lit pixels of a frame, those above a threshold: the score by which hits of single particles are told.
//!
//! Masked pixels take no part, nor do pixels that hold no count. Saturated pixels are lit: whatever they hold is above the
//! threshold.

pub mod reference;

use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::limits;
use crate::stager::DeviceBatch;
use frame::{PixelMask, PixelType, Shape};

const SOURCE: &str = include_str!("lit.cl");
/// Pixels of a tile at most, as [`crate::Statistics`] cuts frames.
const TILE_PIXELS: usize = 32768;

/// What to count.
#[derive(Clone, Debug)]
pub struct LitConfig {
    /// pixels above this value are lit, 0 or more
    pub threshold: f64,
    /// pixels of this value hold no count; of floats those that are no finite number
    pub invalid: Option<f64>,
}

/// The operation; see the module.
pub struct LitPixels {
    kernel: Kernel,
    shape: Shape,
    pixel_type: PixelType,
    batch_limit: usize,
    threshold: f64,
    invalid: Option<f64>,
    width: usize,
    tiles: usize,
    good: Buffer<i8>,
    lit: Buffer<u32>,
    lit_host: Vec<u32>,
}

impl LitPixels {
    /// Prepares for batches of up to `batch_limit` frames; everything is allocated here.
    pub fn new(
        accelerator: &Accelerator,
        config: &LitConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        batch_limit: usize,
    ) -> Result<LitPixels, AcceleratorError> {
        if mask.shape() != shape {
            let (found, expected) = (mask.shape().to_string(), shape.to_string());
            return Err(AcceleratorError::Mismatch {
                what: "the mask's shape",
                found,
                expected,
            });
        }
        let usable = (config.threshold >= 0.0).then_some(config.threshold);
        let Some(threshold) = usable.and_then(|threshold| limits::at_most(pixel_type, threshold)) else {
            return Err(AcceleratorError::Value {
                name: "the threshold of lit pixels",
                value: config.threshold.to_string(),
                allowed: "0 or more",
            });
        };
        // A value that no pixel can have needs no looking for.
        let held = |value: &f64| limits::at_least(pixel_type, *value) == Some(*value);
        let invalid = config.invalid.filter(held).filter(|_| pixel_type != PixelType::F32);
        let width = accelerator.tuning().statistics_tile_pixels.min(TILE_PIXELS);
        let width = width.next_multiple_of(16);
        let tiles = shape.pixels().div_ceil(width);
        let program = accelerator.program("lit", SOURCE, &options(pixel_type, invalid.is_some()))?;
        let good: Vec<i8> = (0..shape.pixels())
            .map(|pixel| if mask.rejects(pixel) { 0 } else { -1 })
            .collect();
        let mut lit = Self {
            kernel: program.kernel("lit_pixels")?,
            shape,
            pixel_type,
            batch_limit,
            threshold,
            invalid,
            width,
            tiles,
            good: accelerator.buffer_from(&good)?,
            lit: accelerator.buffer(batch_limit * tiles)?,
            lit_host: vec![0; batch_limit * tiles],
        };
        // Over no frame: some drivers finish compiling at the first launch. Nothing is read from the first two.
        let (queue, frames, offsets) = (accelerator.queue()?, accelerator.buffer(1)?, accelerator.buffer(1)?);
        lit.launch(&queue, &frames, &offsets, 0, 0)?;
        queue.finish()?;
        Ok(lit)
    }

    /// Counts a batch; `outputs` has one entry per frame, in the batch's order. Returns when they are filled.
    pub fn run(&mut self, queue: &Queue, batch: &DeviceBatch, outputs: &mut [u64]) -> Result<(), AcceleratorError> {
        batch.check(self.shape.pixels() * self.pixel_type.bytes(), self.batch_limit)?;
        AcceleratorError::expect_len("the number of outputs", outputs.len(), batch.frames())?;
        for (frames, group) in batch.groups() {
            self.launch(queue, frames, batch.offsets(), group.first, group.count)?;
        }
        let found = &mut self.lit_host[..outputs.len() * self.tiles];
        queue.read(&self.lit, 0, found)?;
        for (output, tiles) in outputs.iter_mut().zip(found.chunks_exact(self.tiles)) {
            *output = tiles.iter().map(|lit| u64::from(*lit)).sum();
        }
        Ok(())
    }

    fn launch(
        &mut self,
        queue: &Queue,
        frames: &Buffer<u8>,
        offsets: &Buffer<u64>,
        first: usize,
        count: usize,
    ) -> Result<(), AcceleratorError> {
        let arguments = [
            frames.into(),
            offsets.into(),
            Arg::U32(first as u32),
            Arg::U32(count as u32),
            (&self.good).into(),
            Arg::U32(self.shape.pixels() as u32),
            Arg::U32(self.width as u32),
            limits::argument(self.pixel_type, Some(self.threshold)),
            limits::argument(self.pixel_type, self.invalid),
            (&self.lit).into(),
        ];
        queue.launch(&mut self.kernel, &arguments, [self.tiles, 1, 1], [1; 3])
    }
}

fn options(pixel_type: PixelType, invalid: bool) -> String {
    let pixel = pixel_type.opencl_name();
    let (limit, mask) = (limits::opencl_name(pixel_type), limits::mask_name(pixel_type));
    format!(
        "-cl-std=CL1.2 -DPIXEL={pixel} -DPIXEL16={pixel}16 -DTO_MASK=convert_{mask}16 -DLIMIT={limit} -DFLOATING={} \
         -DHAS_INVALID={}",
        u8::from(pixel_type == PixelType::F32),
        u8::from(invalid),
    )
}

#[cfg(test)]
mod tests;
