//! Dark, flat, mask and minus log: raw counts to corrected values, or to the line integrals of tomography.
//!
//! `T = (raw - dark) / (flat - dark)`, `t = -ln max(T, epsilon)` (Beer-Lambert; Kak & Slaney, Principles of
//! Computerized Tomographic Imaging, 1988). Without a flat `T = raw - dark`. Masked pixels, pixels with
//! `flat - dark <= 0`, not-a-number and, where the logarithm is taken, `T <= 0` get a fill value and are counted:
//! the result never holds NaN or infinity.

pub mod reference;

use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::{Arg, Buffer, Kernel, Mapped, Queue};
use crate::stager::DeviceBatch;
use frame::{PixelMask, PixelType, Shape};

pub(crate) const SOURCE: &str = include_str!("correction.cl");

/// What to correct for.
#[derive(Clone, Debug)]
pub struct CorrectionConfig {
    /// counts without beam, row by row; `None`: zero
    pub dark: Option<Vec<f32>>,
    /// counts of the beam without sample, dark included, row by row; `None`: `flat - dark` is 1
    pub flat: Option<Vec<f32>>,
    /// whether to take the minus logarithm
    pub minus_log: bool,
    /// smallest transmission whose logarithm is taken; a smaller positive one counts as this
    pub clip_epsilon: f32,
    /// value of masked and invalid pixels
    pub fill: f32,
}

impl Default for CorrectionConfig {
    fn default() -> Self {
        Self {
            dark: None,
            flat: None,
            minus_log: false,
            clip_epsilon: 1e-6,
            fill: 0.0,
        }
    }
}

/// Corrected frames in device memory, `[frame][row][column]`, f32.
pub struct CorrectedBatch {
    values: Buffer<f32>,
    invalid: Vec<u32>,
    frames: usize,
    shape: Shape,
}

impl CorrectedBatch {
    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Shape of each frame.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Pixels of each frame that hold the fill value, by number of frame.
    pub fn invalid(&self) -> &[u32] {
        &self.invalid[..self.frames]
    }

    /// Lets the host read all frames, one after the other; waits until they are there.
    pub fn map(&mut self, queue: &Queue) -> Result<Mapped<'_, f32>, AcceleratorError> {
        queue.map(&mut self.values, 0, self.frames * self.shape.pixels())
    }
}

/// The operation; see the module.
pub struct Correction {
    kernel: Kernel,
    config: CorrectionConfig,
    shape: Shape,
    frame_bytes: usize,
    batch_limit: usize,
    /// pixels of a work item
    tile: usize,
    rejected: Vec<bool>,
    dark_host: Vec<f32>,
    gain_host: Vec<f32>,
    dark: Buffer<f32>,
    gain: Buffer<f32>,
    invalid: Buffer<u32>,
    output: CorrectedBatch,
}

impl Correction {
    /// Prepares for batches of up to `batch_limit` frames; everything is allocated here.
    pub fn new(
        accelerator: &Accelerator,
        config: &CorrectionConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        batch_limit: usize,
    ) -> Result<Correction, AcceleratorError> {
        if mask.shape() != shape {
            let (found, expected) = (mask.shape().to_string(), shape.to_string());
            return Err(AcceleratorError::Mismatch {
                what: "the mask's shape",
                found,
                expected,
            });
        }
        if !(config.clip_epsilon > f32::MIN_POSITIVE && config.clip_epsilon < 1.0) {
            let value = config.clip_epsilon.to_string();
            return Err(AcceleratorError::Value {
                name: "clip_epsilon",
                value,
                allowed: "above 1.2e-38, below 1",
            });
        }
        if !config.fill.is_finite() {
            let value = config.fill.to_string();
            return Err(AcceleratorError::Value {
                name: "fill",
                value,
                allowed: "a finite number",
            });
        }
        let pixels = shape.pixels();
        let tile = accelerator.tuning().tile_pixels;
        let name = pixel_type.opencl_name();
        let log = u8::from(config.minus_log);
        let options = format!("-cl-std=CL1.2 -DPIXEL={name} -DPIXEL16={name}16 -DMINUS_LOG={log}");
        let program = accelerator.program("correction", SOURCE, &options)?;
        let mut correction = Self {
            kernel: program.kernel("correction")?,
            config: config.clone(),
            shape,
            frame_bytes: pixels * pixel_type.bytes(),
            batch_limit,
            tile,
            rejected: (0..pixels).map(|index| mask.rejects(index)).collect(),
            dark_host: vec![0.0; pixels],
            gain_host: vec![0.0; pixels],
            dark: accelerator.buffer(pixels)?,
            gain: accelerator.buffer(pixels)?,
            invalid: accelerator.buffer(batch_limit)?,
            output: CorrectedBatch {
                values: accelerator.buffer(pixels * batch_limit)?,
                invalid: vec![0; batch_limit],
                frames: 0,
                shape,
            },
        };
        let queue = accelerator.queue()?;
        correction.set_fields(&queue, config.dark.as_deref(), config.flat.as_deref())?;
        // Over no frame: some drivers finish compiling at the first launch. Nothing is read from the first two.
        let (frames, offsets) = (accelerator.buffer(1)?, accelerator.buffer(1)?);
        correction.launch(&queue, &frames, &offsets, 0, 0)?;
        queue.finish()?;
        Ok(correction)
    }

    /// Takes another dark and flat, for example those at the start of a scan; allocates nothing.
    pub fn set_fields(
        &mut self,
        queue: &Queue,
        dark: Option<&[f32]>,
        flat: Option<&[f32]>,
    ) -> Result<(), AcceleratorError> {
        let pixels = self.shape.pixels();
        for (what, field) in [
            ("the dark's number of pixels", dark),
            ("the flat's number of pixels", flat),
        ] {
            if let Some(field) = field {
                AcceleratorError::expect_len(what, field.len(), pixels)?;
            }
        }
        for index in 0..pixels {
            let dark = dark.map_or(0.0, |dark| dark[index]);
            let gain = if self.rejected[index] {
                0.0
            } else {
                reference::gain(dark, flat.map(|flat| flat[index]))
            };
            self.dark_host[index] = if gain == 0.0 { 0.0 } else { dark };
            self.gain_host[index] = gain as f32;
        }
        queue.write(&self.dark, 0, &self.dark_host)?;
        queue.write(&self.gain, 0, &self.gain_host)
    }

    /// Corrects a batch; the result stays on the device until the next call.
    pub fn run(&mut self, queue: &Queue, batch: &DeviceBatch) -> Result<&mut CorrectedBatch, AcceleratorError> {
        batch.check(self.frame_bytes, self.batch_limit)?;
        self.output.frames = batch.frames();
        queue.clear(&self.invalid)?;
        for (frames, group) in batch.groups() {
            self.launch(queue, frames, batch.offsets(), group.first, group.count)?;
        }
        queue.read(&self.invalid, 0, &mut self.output.invalid)?;
        Ok(&mut self.output)
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
            (&self.dark).into(),
            (&self.gain).into(),
            Arg::U32(self.shape.pixels() as u32),
            Arg::U32(self.tile as u32),
            Arg::F32(self.config.clip_epsilon),
            Arg::F32(self.config.fill),
            (&self.output.values).into(),
            (&self.invalid).into(),
        ];
        queue.launch(
            &mut self.kernel,
            &arguments,
            [self.shape.pixels().div_ceil(self.tile), 1, 1],
            [1; 3],
        )
    }

    /// The batch that was last corrected.
    pub fn output(&mut self) -> &mut CorrectedBatch {
        &mut self.output
    }
}

#[cfg(test)]
mod tests;
