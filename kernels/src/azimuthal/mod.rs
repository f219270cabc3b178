//! Azimuthal integration: a frame to a curve over q or 2theta, or to a cake over radius and azimuth. What follows is the
//! 1-D integration without pixel splitting; `AzimuthalEngine` does that and everything else.
//!
//! `I = sum(raw - dark) / sum(flat * solid angle * polarisation * factor)` over the pixels of a bin, and with
//! Poisson errors `sigma = sqrt(sum max(1, raw)) / sum(...)`, the standard error of that mean (Ashiotis et al.,
//! J. Appl. Cryst. 48, 510, 2015; Kieffer et al. 2025). Definitions and bin edges are those of pyFAI's CSR engine,
//! so that pixel counts are equal to its own in every bin.
//!
//! Pixels that are saturated, that hold the dummy value, or that are no number leave numerator, normalisation and
//! count alike. A bin without a pixel holds `empty`; no output is ever NaN.
//!
//! Whole-number pixels are summed exactly, floats in compensated pairs, in an order that only the device's number
//! of chunks changes: results repeat bit for bit on one device, alone or in a batch.

mod engine;
mod lookup;
mod matrix;
pub mod reference;
mod rows;
mod spread;

use crate::accelerator::{Accelerator, AcceleratorError, DeviceKind};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::limits;
use crate::stager::DeviceBatch;
pub use engine::AzimuthalEngine;
use frame::{PixelMask, PixelType, Shape};
pub(crate) use lookup::Lookup;
pub use lookup::{AzimuthalGeometry, Bins};
pub(crate) use rows::SOURCE as ROWS_SOURCE;
use serde::{Deserialize, Serialize};

pub(crate) const SOURCE: &str = concat!(include_str!("lanes.cl"), include_str!("azimuthal.cl"));
/// Frames that `histogram_lanes` takes at once.
const LANES: usize = 16;
/// Bins that one group of `finish` takes.
const FINISH_ROWS: usize = 16;
/// Frames from which on it is faster than one by one.
const LANES_WORTH: usize = 5;

/// Where errors come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorModel {
    /// no errors: sigma holds `empty`
    None,
    /// the variance of a pixel is its count, at least 1
    #[default]
    Poisson,
    /// the variance of a pixel is how far its bin's pixels lie apart
    Azimuthal,
    /// outliers are found with the azimuthal one, errors are Poisson's
    Hybrid,
}

/// How a pixel is shared between bins; see `matrix` for the definitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Splitting {
    /// the whole pixel belongs to the bin of its centre
    #[default]
    #[serde(rename = "none", alias = "no")]
    No,
    /// by the box around its corners in radius and azimuth
    Bbox,
    /// by the polygon of its corners in radius and azimuth
    Full,
}

/// Pixels that lie far from the mean of their bin are left out of it, again and again until none is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SigmaClip {
    /// smallest distance from the mean that is far, in standard deviations; where `√(2 ln(n / √2π))` is more for the
    /// bin's n pixels (Chauvenet's criterion), that counts
    pub cutoff: f64,
    /// most repetitions
    pub cycles: u32,
}

/// What to integrate and how.
#[derive(Clone, Debug)]
pub struct AzimuthalConfig {
    /// where pixels lie
    pub geometry: AzimuthalGeometry,
    /// number of bins, at most 65535
    pub bins: usize,
    /// range of the bins in the geometry's unit; `None`: from the innermost to the outermost pixel
    pub radial_range: Option<(f64, f64)>,
    /// counts to subtract from each pixel
    pub dark: Option<Vec<f32>>,
    /// relative response of each pixel
    pub flat: Option<Vec<f32>>,
    /// the result is divided by this, for example the monitor
    pub normalization_factor: f64,
    /// pixels at or above this value are left out
    pub saturation: Option<f64>,
    /// pixels of this value are left out
    pub dummy: Option<f64>,
    /// half width of the interval around `dummy`
    pub delta_dummy: Option<f64>,
    /// value of bins without a pixel
    pub empty: f32,
    /// where errors come from
    pub error_model: ErrorModel,
    /// how pixels are shared between bins
    pub splitting: Splitting,
    /// number of azimuthal bins: a 2-D integration, with the radius fastest in the outputs
    pub azimuthal_bins: Option<usize>,
    /// range of azimuths, degrees from -180 to 180 or from 0 to 360; `None`: all
    pub azimuthal_range_deg: Option<(f64, f64)>,
    /// leaves outliers out
    pub sigma_clip: Option<SigmaClip>,
}

impl AzimuthalConfig {
    /// `bins` bins over the whole detector, Poisson errors, nothing left out.
    pub fn new(geometry: AzimuthalGeometry, bins: usize) -> Self {
        Self {
            geometry,
            bins,
            radial_range: None,
            dark: None,
            flat: None,
            normalization_factor: 1.0,
            saturation: None,
            dummy: None,
            delta_dummy: None,
            empty: 0.0,
            error_model: ErrorModel::Poisson,
            splitting: Splitting::No,
            azimuthal_bins: None,
            azimuthal_range_deg: None,
            sigma_clip: None,
        }
    }

    /// Number of bins of an output: radial times azimuthal.
    pub fn outputs(&self) -> usize {
        self.bins * self.azimuthal_bins.unwrap_or(1)
    }

    /// Whether [`AzimuthalIntegrator`] does it.
    pub fn is_histogram(&self) -> bool {
        self.splitting == Splitting::No
            && self.azimuthal_bins.is_none()
            && self.sigma_clip.is_none()
            && !matches!(self.error_model, ErrorModel::Azimuthal)
    }

    /// Flat times solid angle times polarisation of a pixel.
    fn norm(&self, index: usize) -> f64 {
        let of = |map: &Option<Vec<f64>>| map.as_ref().map_or(1.0, |map| map[index]);
        let flat = self.flat.as_ref().map_or(1.0, |flat| f64::from(flat[index]));
        flat * of(&self.geometry.solid_angle) * of(&self.geometry.polarization)
    }
}

/// Where the curve of one frame goes; each of the configured number of bins.
#[derive(Debug)]
pub struct AzimuthalOutput<'a> {
    /// mean of each bin
    pub intensity: &'a mut [f32],
    /// its standard error
    pub sigma: &'a mut [f32],
    /// pixels of each bin that took part, exact up to 2^24
    pub count: &'a mut [f32],
}

/// Limits as the kernel compares them, in its pixel type.
#[derive(Clone, Copy)]
struct Limits {
    saturation: Option<f64>,
    dummy: Option<(f64, f64)>,
}

impl Limits {
    fn new(config: &AzimuthalConfig, pixel_type: PixelType) -> Self {
        let delta = config.delta_dummy.unwrap_or(0.0).abs();
        let interval = |dummy| {
            let low = limits::at_least(pixel_type, dummy - delta)?;
            let high = limits::at_most(pixel_type, dummy + delta)?;
            (low <= high).then_some((low, high))
        };
        Self {
            saturation: config.saturation.and_then(|value| limits::at_least(pixel_type, value)),
            dummy: config.dummy.and_then(interval),
        }
    }
}

/// The operation; see the module.
pub struct AzimuthalIntegrator {
    single: Kernel,
    lanes: Kernel,
    finish: Kernel,
    bins: usize,
    radial: Vec<f64>,
    edges: Vec<f64>,
    unit: String,
    pixels: usize,
    pixel_type: PixelType,
    batch_limit: usize,
    chunk: usize,
    chunks: usize,
    limits: Limits,
    norm_scale: f32,
    norm_unit: f32,
    dark_shift: u32,
    empty: f32,
    index: Buffer<u16>,
    norm: Buffer<f32>,
    dark: Buffer<f32>,
    bin_count: Buffer<u32>,
    bin_norm: Buffer<u64>,
    bin_dark: Buffer<i64>,
    sums: Buffer<u8>,
    variances: Buffer<u8>,
    out_count: Buffer<u32>,
    out_norm: Buffer<u64>,
    out_dark: Buffer<i64>,
    touched: Buffer<u32>,
    curves: Buffer<f32>,
    curves_host: Vec<f32>,
}

impl AzimuthalIntegrator {
    /// Prepares for batches of up to `batch_limit` frames; everything is allocated here.
    pub fn new(
        accelerator: &Accelerator,
        config: &AzimuthalConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        batch_limit: usize,
    ) -> Result<AzimuthalIntegrator, AcceleratorError> {
        if !config.is_histogram() {
            return Err(AcceleratorError::Value {
                name: "the azimuthal configuration",
                value: format!("{:?} splitting, {:?} errors", config.splitting, config.error_model),
                allowed: "1-D, no splitting, no or Poisson errors, no sigma clipping; AzimuthalEngine does the others",
            });
        }
        let lookup = Lookup::new(config, shape, pixel_type, mask)?;
        let pixels = shape.pixels();
        let chunks = accelerator.tuning().histogram_chunks;
        let wanted = match accelerator.info().kind {
            DeviceKind::Cpu => accelerator.info().compute_units as usize * chunks,
            _ => chunks,
        };
        let chunk = pixels
            .div_ceil(wanted.min(pixels.div_ceil(16384)).max(1))
            .next_multiple_of(32);
        let chunks = pixels.div_ceil(chunk);
        let limits = Limits::new(config, pixel_type);
        let crowd = lookup.crowd(chunk);
        let (sum, sum_bytes) = sum_type(pixel_type, crowd);
        let narrow = sum == "uint" && crowd <= usize::from(u16::MAX);
        let options = options(pixel_type, sum, narrow, limits, config.error_model);
        let program = accelerator.program("azimuthal", SOURCE, &options)?;
        let parts = if pixel_type == PixelType::F32 { 2 } else { 1 };
        let rows = chunks * (config.bins + 1) * LANES;
        let bins = lookup.bins.clone();
        let mut integrator = Self {
            single: program.kernel("histogram_single")?,
            lanes: program.kernel("histogram_lanes")?,
            finish: program.kernel("finish")?,
            bins: config.bins,
            radial: bins.centers(),
            edges: bins.edges(),
            unit: config.geometry.unit.clone(),
            pixels,
            pixel_type,
            batch_limit,
            chunk,
            chunks,
            limits,
            norm_scale: lookup.norm_scale,
            norm_unit: (config.normalization_factor / f64::from(lookup.norm_scale)) as f32,
            dark_shift: lookup.dark_shift,
            empty: config.empty,
            index: accelerator.buffer_from(&lookup.index)?,
            norm: accelerator.buffer_from(&lookup.norm)?,
            dark: accelerator.buffer_from(&lookup.dark)?,
            bin_count: accelerator.buffer_from(&lookup.bin_count)?,
            bin_norm: accelerator.buffer_from(&lookup.bin_norm)?,
            bin_dark: accelerator.buffer_from(&lookup.bin_dark)?,
            sums: accelerator.buffer(rows * parts * sum_bytes)?,
            variances: accelerator.buffer(rows * parts * sum_bytes)?,
            out_count: accelerator.buffer(rows)?,
            out_norm: accelerator.buffer(rows)?,
            out_dark: accelerator.buffer(rows)?,
            touched: accelerator.buffer(chunks * LANES)?,
            curves: accelerator.buffer(batch_limit * 3 * config.bins)?,
            curves_host: vec![0.0; batch_limit * 3 * config.bins],
        };
        integrator.warm_up(&accelerator.queue()?)?;
        Ok(integrator)
    }

    /// The bin centres that an integrator with this configuration has, without a device.
    pub fn centers(
        config: &AzimuthalConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
    ) -> Result<Vec<f64>, AcceleratorError> {
        Ok(Lookup::new(config, shape, pixel_type, mask)?.bins.centers())
    }

    /// Runs every kernel over no pixel: some drivers finish compiling at the first launch.
    fn warm_up(&mut self, queue: &Queue) -> Result<(), AcceleratorError> {
        // Nothing is read from these two.
        let (frames, offsets) = (self.sums.clone(), self.bin_norm.clone());
        let pixels = std::mem::replace(&mut self.pixels, 0);
        for lanes in [1, LANES] {
            self.sum(queue, &frames, &offsets, 0, 1, lanes)?;
            self.divide(queue, 0, 1, lanes)?;
        }
        self.pixels = pixels;
        queue.finish()
    }

    /// Bin centres in [`AzimuthalIntegrator::unit`].
    pub fn radial(&self) -> &[f64] {
        &self.radial
    }

    /// Edges between bins, one more than bins, in the same unit.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Name of the radial unit.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Number of bins.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Integrates a batch; `outputs` has one entry per frame, in the batch's order. Returns when they are filled.
    pub fn integrate(
        &mut self,
        queue: &Queue,
        batch: &DeviceBatch,
        outputs: &mut [AzimuthalOutput<'_>],
    ) -> Result<(), AcceleratorError> {
        AcceleratorError::expect_len("the number of outputs", outputs.len(), batch.frames())?;
        for output in outputs.iter() {
            AcceleratorError::expect_len("the intensity's number of bins", output.intensity.len(), self.bins)?;
            AcceleratorError::expect_len("the sigma's number of bins", output.sigma.len(), self.bins)?;
            AcceleratorError::expect_len("the count's number of bins", output.count.len(), self.bins)?;
        }
        self.integrate_with(queue, batch, |frame, intensity, sigma, count| {
            outputs[frame].intensity.copy_from_slice(intensity);
            outputs[frame].sigma.copy_from_slice(sigma);
            outputs[frame].count.copy_from_slice(count);
        })
    }

    /// Integrates a batch and hands each frame's intensity, sigma and count to `put`, in the batch's order; allocates
    /// nothing.
    pub fn integrate_with(
        &mut self,
        queue: &Queue,
        batch: &DeviceBatch,
        put: impl FnMut(usize, &[f32], &[f32], &[f32]),
    ) -> Result<(), AcceleratorError> {
        batch.check(self.pixels * self.pixel_type.bytes(), self.batch_limit)?;
        for (frames, group) in batch.groups() {
            let (mut first, end) = (group.first, group.first + group.count);
            while first < end {
                let left = end - first;
                let lanes = if left >= LANES_WORTH { LANES } else { 1 };
                let count = if lanes == 1 { left } else { left.min(LANES) };
                self.sum(queue, frames, batch.offsets(), first, count, lanes)?;
                self.divide(queue, first, count, lanes)?;
                first += count;
            }
        }
        let values = &mut self.curves_host[..batch.frames() * 3 * self.bins];
        queue.read(&self.curves, 0, values)?;
        rows::hand_out(values, self.bins, put);
        Ok(())
    }

    fn sum(
        &mut self,
        queue: &Queue,
        frames: &Buffer<u8>,
        offsets: &Buffer<u64>,
        first: usize,
        count: usize,
        lanes: usize,
    ) -> Result<(), AcceleratorError> {
        let dummy = self.limits.dummy;
        let arguments = [
            frames.into(),
            offsets.into(),
            Arg::U32(first as u32),
            (&self.index).into(),
            (&self.norm).into(),
            (&self.dark).into(),
            Arg::U32(self.pixels as u32),
            Arg::U32(self.chunk as u32),
            Arg::U32(self.bins as u32),
            limits::argument(self.pixel_type, self.limits.saturation),
            limits::argument(self.pixel_type, dummy.map(|dummy| dummy.0)),
            limits::argument(self.pixel_type, dummy.map(|dummy| dummy.1)),
            Arg::F32(self.norm_scale),
            Arg::F32(2f32.powi(self.dark_shift as i32)),
            (&self.sums).into(),
            (&self.variances).into(),
            (&self.out_count).into(),
            (&self.out_norm).into(),
            (&self.out_dark).into(),
            (&self.touched).into(),
            Arg::U32(count as u32),
        ];
        if lanes == 1 {
            let without_lanes = &arguments[..arguments.len() - 1];
            queue.launch(&mut self.single, without_lanes, [self.chunks, count, 1], [1; 3])
        } else {
            queue.launch(&mut self.lanes, &arguments, [self.chunks, 1, 1], [1; 3])
        }
    }

    fn divide(&mut self, queue: &Queue, first: usize, count: usize, lanes: usize) -> Result<(), AcceleratorError> {
        let arguments = [
            (&self.sums).into(),
            (&self.variances).into(),
            (&self.out_count).into(),
            (&self.out_norm).into(),
            (&self.out_dark).into(),
            (&self.touched).into(),
            Arg::U32(self.chunks as u32),
            Arg::U32(lanes as u32),
            Arg::U32(self.bins as u32),
            (&self.bin_count).into(),
            (&self.bin_norm).into(),
            (&self.bin_dark).into(),
            Arg::F32(self.norm_unit),
            Arg::U32(self.dark_shift),
            Arg::F32(self.empty),
            Arg::U32(first as u32),
            Arg::U32(count as u32),
            (&self.curves).into(),
        ];
        let rows = self.bins.next_multiple_of(FINISH_ROWS);
        queue.launch(&mut self.finish, &arguments, [LANES, rows, 1], [LANES, FINISH_ROWS, 1])
    }
}

/// Name and bytes of the type that holds a chunk's sums when a bin has up to `crowd` pixels in a chunk.
fn sum_type(pixel_type: PixelType, crowd: usize) -> (&'static str, usize) {
    let largest = if pixel_type == PixelType::I16 {
        32768.0
    } else {
        pixel_type.max_value()
    };
    let signed = matches!(pixel_type, PixelType::I16 | PixelType::I32);
    match (pixel_type, signed) {
        (PixelType::F32, _) => ("float", 4),
        (_, false) if largest * crowd as f64 <= f64::from(u32::MAX) => ("uint", 4),
        (_, false) => ("ulong", 8),
        (_, true) if largest * crowd as f64 <= f64::from(i32::MAX) => ("int", 4),
        (_, true) => ("long", 8),
    }
}

fn options(pixel_type: PixelType, sum: &str, narrow: bool, limits: Limits, error_model: ErrorModel) -> String {
    let pixel = pixel_type.opencl_name();
    let (limit, mask) = (limits::opencl_name(pixel_type), limits::mask_name(pixel_type));
    format!(
        "-cl-std=CL1.2 -DPIXEL={pixel} -DPIXEL16={pixel}16 -DMASK16={mask}16 -DTO_MASK=convert_{mask}16 -DANY=any_{mask} -DSUM={sum} \
         -DSUM16={sum}16 -DTO_SUM16=convert_{sum}16 -DLIMIT={limit} -DFLOATING={} -DNARROW={} -DPOISSON={} \
         -DHAS_SATURATION={} -DHAS_DUMMY={}",
        u8::from(pixel_type == PixelType::F32),
        u8::from(narrow),
        u8::from(error_model != ErrorModel::None),
        u8::from(limits.saturation.is_some()),
        u8::from(limits.dummy.is_some()),
    )
}

#[cfg(test)]
mod tests;
