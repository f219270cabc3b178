//! JUNGFRAU's adaptive gain: raw words to photons (Redford et al., J. Instrum. 13, C01027, 2018; Leonarski et al.,
//! Struct. Dyn. 7, 014305, 2020).
//!
//! `photons = (ADU - pedestal) / (gain * energy)`, pedestal and gain by the two bits with which each pixel says what gain
//! it was in. The result is a batch of frames on the device, which other operations read in place of the raw one.

pub mod module;
pub mod pedestal;
pub mod reference;

use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::stager::DeviceBatch;
use frame::{PixelMask, PixelType, Shape};
use module::ModuleMap;

const SOURCE: &str = include_str!("gain.cl");
/// G0, G1 and G2.
pub const GAINS: usize = 3;

/// Pedestals of G0 that follow the frames, `p += (ADU - p) / window`: a running mean of the words that say nothing but the
/// pedestal, whose weights fall by a factor e in `window` of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracking {
    /// words that a pedestal looks back on, at least 2
    pub window: u32,
    /// photons, above or below the pedestal of the time, within which a word of G0 counts as one without photons
    pub within_photons: f64,
}

/// How far pedestals of G0 have moved since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drift {
    /// mean over the pixels with a calibration, ADU
    pub mean_adu: f64,
    /// furthest from 0, ADU
    pub largest_adu: f64,
    /// pixels whose pedestal has moved by more than [`DRIFTED_PHOTONS`]
    pub drifted_pixels: u64,
    /// pixels with a calibration
    pub pixels: u64,
}

/// Photons beyond which a pedestal counts as drifted.
pub const DRIFTED_PHOTONS: f32 = 0.1;

/// What to convert with. Fields are row by row, of the frame's shape.
#[derive(Clone, Debug)]
pub struct GainConfig {
    /// ADU without photons in G0, G1 and G2
    pub pedestals: [Vec<f32>; GAINS],
    /// ADU per keV in G0, G1 and G2; those of G1 and G2 are negative
    pub gains: [Vec<f64>; GAINS],
    /// energy of a photon, keV
    pub energy_kev: f64,
    /// type of the result: `F32`, or whole photons as `I32` or `I16`
    pub output: PixelType,
    /// round to whole photons, halves away from zero, also where the result is `F32`
    pub round: bool,
    /// share the photons of large pixels among the places that they cover: 512 × 1024 become 514 × 1030
    pub split: bool,
    /// pedestals of G0 follow the frames
    pub track: Option<Tracking>,
}

/// What was found in one frame besides its photons. Pixels without any calibration are in no count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GainCounts {
    /// pixels of which nothing can be told
    pub wrong: u32,
    /// pixels at their end
    pub saturated: u32,
    /// pixels in G1
    pub gain1: u32,
    /// pixels in G2
    pub gain2: u32,
    /// pixels that moved their pedestal; 0 without [`Tracking`]
    pub quiet: u32,
}

/// Numbers of [`GainCounts`].
const COUNTED: usize = 5;

/// Pedestals on the move.
struct Moved {
    /// how far, ADU
    drift: Buffer<f32>,
    /// photons per ADU in G0, on the host
    factors: Vec<f32>,
    /// photons within which a word moves its pedestal: of frames with beam, and of those without
    within: [f32; 2],
}

/// The operation; see the module.
pub struct AdaptiveGain {
    convert: Kernel,
    split: Option<(Kernel, Buffer<u32>)>,
    map: Option<ModuleMap>,
    shape: Shape,
    output: PixelType,
    batch_limit: usize,
    /// pixels of a work item
    tile: usize,
    pedestals: Buffer<f32>,
    factors: Buffer<f32>,
    counted: Buffer<u32>,
    counted_host: Vec<u32>,
    counts: Vec<GainCounts>,
    moved: Option<Moved>,
    unusable: PixelMask,
    compact: DeviceBatch,
    wide: Option<DeviceBatch>,
}

/// What a result that is no number of photons is written as: error, saturated, then the lowest and the highest number.
const fn ends(output: PixelType) -> [&'static str; 4] {
    match output {
        PixelType::I16 => ["(-32768.0f)", "32767.0f", "(-32767.0f)", "32767.0f"],
        // Floats have no 2^31 - 1: conversion takes the next one down to it.
        PixelType::I32 => ["(-2147483648.0f)", "2147483648.0f", "(-2147483520.0f)", "2147483520.0f"],
        _ => ["NAN", "FLT_MAX", "(-FLT_MAX)", "FLT_MAX"],
    }
}

/// The value of saturated pixels in a result of this type, and so the limit for whoever reads it.
pub fn saturation(output: PixelType) -> f64 {
    match output {
        PixelType::F32 => f64::from(f32::MAX),
        other => other.max_value(),
    }
}

impl AdaptiveGain {
    /// Prepares for batches of up to `batch_limit` frames of 16-bit words; everything is allocated here.
    pub fn new(
        accelerator: &Accelerator,
        config: &GainConfig,
        shape: Shape,
        batch_limit: usize,
    ) -> Result<AdaptiveGain, AcceleratorError> {
        check(config, shape)?;
        let pixels = shape.pixels();
        let padded = pixels.next_multiple_of(16);
        let (mut pedestals, mut factors) = (vec![0f32; GAINS * padded], vec![0f32; GAINS * padded]);
        let mut unusable = PixelMask::none(shape);
        for gain in 0..GAINS {
            for pixel in 0..pixels {
                let pedestal = config.pedestals[gain][pixel];
                let factor = reference::factor(config.gains[gain][pixel], pedestal.into(), config.energy_kev);
                factors[gain * padded + pixel] = factor as f32;
                pedestals[gain * padded + pixel] = if factor == 0.0 { 0.0 } else { pedestal };
                if gain == 0 && factor == 0.0 {
                    unusable.bits_mut()[pixel] |= frame::mask::DEAD;
                }
            }
        }
        let map = config.split.then(|| ModuleMap::new(shape)).transpose()?;
        let tile = accelerator.tuning().tile_pixels;
        let program = accelerator.program("gain", SOURCE, &options(config))?;
        let moved = match &config.track {
            Some(track) => Some(Moved {
                drift: accelerator.buffer(padded)?,
                factors: factors[..pixels].to_vec(),
                // No word of frames without beam is too far.
                within: [track.within_photons as f32, f32::INFINITY],
            }),
            None => None,
        };
        let output_bytes = config.output.bytes();
        let split = match &map {
            Some(map) => Some((program.kernel("split")?, accelerator.buffer_from(map.words())?)),
            None => None,
        };
        let wide = map.as_ref().map(|map| map.wide.pixels() * output_bytes);
        let mut gain = Self {
            convert: program.kernel("gain")?,
            split,
            map,
            shape,
            output: config.output,
            batch_limit,
            tile,
            pedestals: accelerator.buffer_from(&pedestals)?,
            factors: accelerator.buffer_from(&factors)?,
            counted: accelerator.buffer(batch_limit * COUNTED)?,
            counted_host: vec![0; batch_limit * COUNTED],
            counts: vec![GainCounts::default(); batch_limit],
            moved,
            unusable,
            compact: DeviceBatch::made(accelerator, pixels * output_bytes, batch_limit)?,
            wide: wide
                .map(|bytes| DeviceBatch::made(accelerator, bytes, batch_limit))
                .transpose()?,
        };
        // Over no frame: some drivers finish compiling at the first launch. Nothing is read from the first two.
        let (queue, frames, offsets) = (accelerator.queue()?, accelerator.buffer(1)?, accelerator.buffer(1)?);
        gain.launch(&queue, &frames, &offsets, 0, 0, false)?;
        gain.share(&queue, 1)?;
        queue.finish()?;
        Ok(gain)
    }

    /// Shape of the frames that come out.
    pub fn shape(&self) -> Shape {
        self.map.as_ref().map_or(self.shape, |map| map.wide)
    }

    /// Where the photons of places come from, where large pixels are shared.
    pub fn map(&self) -> Option<&ModuleMap> {
        self.map.as_ref()
    }

    /// Pixels without a usable pedestal or gain in G0, of the raw frame's shape.
    pub fn unusable(&self) -> &PixelMask {
        &self.unusable
    }

    /// Converts a batch; the result stays on the device until the next call. `dark`: frames without beam, of which every
    /// word in G0 moves its pedestal where pedestals follow the frames.
    pub fn run(&mut self, queue: &Queue, batch: &DeviceBatch, dark: bool) -> Result<(), AcceleratorError> {
        batch.check(self.shape.pixels() * PixelType::U16.bytes(), self.batch_limit)?;
        queue.clear(&self.counted)?;
        for (frames, group) in batch.groups() {
            self.launch(queue, frames, batch.offsets(), group.first, group.count, dark)?;
        }
        let frames = batch.frames();
        self.share(queue, frames)?;
        self.compact.set_frames(frames);
        if let Some(wide) = &mut self.wide {
            wide.set_frames(frames);
        }
        queue.read(&self.counted, 0, &mut self.counted_host)?;
        for (counts, found) in self.counts.iter_mut().zip(self.counted_host.as_chunks::<COUNTED>().0) {
            let [wrong, saturated, gain1, gain2, quiet] = *found;
            *counts = GainCounts {
                wrong,
                saturated,
                gain1,
                gain2,
                quiet,
            };
        }
        Ok(())
    }

    /// The frames that were last converted, of [`AdaptiveGain::shape`].
    pub fn output(&self) -> &DeviceBatch {
        self.wide.as_ref().unwrap_or(&self.compact)
    }

    /// What was counted in them, frame by frame.
    pub fn counts(&self) -> &[GainCounts] {
        &self.counts[..self.compact.frames()]
    }

    /// How far the pedestals of G0 have moved, ADU, pixel by pixel, and what that says; `None` where they do not follow.
    pub fn drift(&self, queue: &Queue, adu: &mut [f32]) -> Result<Option<Drift>, AcceleratorError> {
        let Some(moved) = &self.moved else { return Ok(None) };
        self.moved(queue, adu)?;
        let (mut drift, mut sum) = (Drift::default(), 0f64);
        for (adu, factor) in adu.iter().zip(&moved.factors).filter(|(_, factor)| **factor != 0.0) {
            drift.pixels += 1;
            sum += f64::from(*adu);
            if f64::from(adu.abs()) > drift.largest_adu.abs() {
                drift.largest_adu = (*adu).into();
            }
            drift.drifted_pixels += u64::from((adu * factor).abs() > DRIFTED_PHOTONS);
        }
        drift.mean_adu = if drift.pixels > 0 {
            sum / drift.pixels as f64
        } else {
            0.0
        };
        Ok(Some(drift))
    }

    /// Copies how far the pedestals of G0 have moved, ADU, pixel by pixel: with that another device goes on from here.
    pub fn moved(&self, queue: &Queue, adu: &mut [f32]) -> Result<(), AcceleratorError> {
        let Some(moved) = &self.moved else { return Ok(()) };
        AcceleratorError::expect_len("the drift's number of pixels", adu.len(), moved.factors.len())?;
        queue.read(&moved.drift, 0, adu)
    }

    /// Goes on with pedestals of G0 that have moved so far already, as [`AdaptiveGain::moved`] tells it.
    pub fn move_to(&mut self, queue: &Queue, adu: &[f32]) -> Result<(), AcceleratorError> {
        let Some(moved) = &self.moved else { return Ok(()) };
        AcceleratorError::expect_len("the drift's number of pixels", adu.len(), moved.factors.len())?;
        queue.write(&moved.drift, 0, adu)
    }

    fn launch(
        &mut self,
        queue: &Queue,
        frames: &Buffer<u8>,
        offsets: &Buffer<u64>,
        first: usize,
        count: usize,
        dark: bool,
    ) -> Result<(), AcceleratorError> {
        let arguments: [Arg<'_>; 11] = [
            frames.into(),
            offsets.into(),
            Arg::U32(first as u32),
            Arg::U32(count as u32),
            (&self.pedestals).into(),
            (&self.factors).into(),
            Arg::U32(self.shape.pixels() as u32),
            Arg::U32(self.tile as u32),
            Arg::U32(self.compact.slot_bytes() as u32),
            self.compact.memory().into(),
            (&self.counted).into(),
        ];
        let global = [self.shape.pixels().div_ceil(self.tile), 1, 1];
        let Some(moved) = &self.moved else {
            return queue.launch(&mut self.convert, &arguments, global, [1; 3]);
        };
        let within = moved.within[usize::from(dark)];
        let [a, b, c, d, e, f, g, h, i, j, k] = arguments;
        let arguments = [a, b, c, d, e, f, g, h, i, j, k, (&moved.drift).into(), Arg::F32(within)];
        queue.launch(&mut self.convert, &arguments, global, [1; 3])
    }

    fn share(&mut self, queue: &Queue, frames: usize) -> Result<(), AcceleratorError> {
        let (Some((kernel, map)), Some(wide)) = (&mut self.split, &self.wide) else {
            return Ok(());
        };
        let arguments = [
            self.compact.memory().into(),
            (&*map).into(),
            Arg::U32(self.compact.slot_bytes() as u32),
            Arg::U32(wide.slot_bytes() as u32),
            wide.memory().into(),
        ];
        // Groups of a row's tenth: 514 × 1030 places have no larger power of two than 4.
        let local = [WIDE_GROUP, 1, 1];
        queue.launch(
            kernel,
            &arguments,
            [wide.frame_bytes() / self.output.bytes(), frames, 1],
            local,
        )
    }
}

/// Work items of a group of `split`: a divisor of 1030.
const WIDE_GROUP: usize = 103;
const _: () = assert!(module::WIDE_MODULE.columns.is_multiple_of(WIDE_GROUP));

fn check(config: &GainConfig, shape: Shape) -> Result<(), AcceleratorError> {
    for gain in 0..GAINS {
        let pixels = shape.pixels();
        AcceleratorError::expect_len("the pedestal's number of pixels", config.pedestals[gain].len(), pixels)?;
        AcceleratorError::expect_len("the gain's number of pixels", config.gains[gain].len(), pixels)?;
    }
    let value = |name, value: String, allowed| Err(AcceleratorError::Value { name, value, allowed });
    if !(config.energy_kev > 0.1 && config.energy_kev < 1000.0) {
        return value("energy", format!("{} keV", config.energy_kev), "0.1 to 1000 keV");
    }
    if !matches!(config.output, PixelType::F32 | PixelType::I32 | PixelType::I16) {
        let found = config.output.numpy_name().to_string();
        return value("the type of photons", found, "float32, int32 or int16");
    }
    if let Some(track) = &config.track {
        if !(2..=1 << 24).contains(&track.window) {
            let found = track.window.to_string();
            return value(
                "the window of pedestals that follow the frames",
                found,
                "2 to 16777216 words",
            );
        }
        if !(track.within_photons > 0.0 && track.within_photons <= 0.5) {
            let found = track.within_photons.to_string();
            return value(
                "the distance of a word without photons",
                found,
                "above 0, at most 0.5 photons",
            );
        }
    }
    Ok(())
}

fn options(config: &GainConfig) -> String {
    let name = config.output.opencl_name();
    let convert = match config.output {
        PixelType::F32 => String::new(),
        _ => format!("convert_{name}16_sat"),
    };
    let [error, saturated, lowest, highest] = ends(config.output);
    let round = u8::from(config.round || config.output != PixelType::F32);
    let whole = u8::from(config.output != PixelType::F32);
    let most = match config.output {
        PixelType::I16 => "-DMOST=SHRT_MAX -DMOST_NEGATIVE=SHRT_MIN",
        PixelType::I32 => "-DMOST=INT_MAX -DMOST_NEGATIVE=INT_MIN",
        _ => "",
    };
    let split = if config.split { "-DSPLIT" } else { "" };
    let track = config.track.as_ref().map_or_else(String::new, |track| {
        // Exactly the float that is meant, whatever a compiler makes of decimals.
        let bits = (1.0 / f64::from(track.window)) as f32;
        format!("-DTRACK -DSHARE=as_float({:#x})", bits.to_bits())
    });
    format!(
        "-cl-std=CL1.2 -DOUT={name} -DOUT16={name}16 -DTO_OUT16={convert} -DROUND={round} -DWHOLE={whole} \
         -DERROR={error} -DSATURATED={saturated} -DLOWEST={lowest} -DHIGHEST={highest} {most} {split} {track}"
    )
}

#[cfg(test)]
mod tests;
