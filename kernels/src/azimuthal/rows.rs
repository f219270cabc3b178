//! Everything that [`AzimuthalIntegrator`](super::AzimuthalIntegrator) does not do, by rows of a sparse matrix: pixel
//! splitting, 2-D integration, azimuthal and hybrid errors, sigma clipping; see `rows.cl`. Some of it is faster by
//! [`Spread`](super::spread::Spread).

use super::lookup::Fields;
use super::matrix::Matrix;
use super::{AzimuthalConfig, ErrorModel, Limits, Splitting};
use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::limits;
use crate::stager::DeviceBatch;
use frame::PixelType;

pub(crate) const SOURCE: &str = include_str!("rows.cl");

/// The operation.
pub(super) struct Rows {
    kernel: Kernel,
    group: usize,
    bins: usize,
    pixels: usize,
    pixel_type: PixelType,
    batch_limit: usize,
    limits: Limits,
    factor: f32,
    cutoff: f32,
    cycles: u32,
    empty: f32,
    starts: Buffer<u32>,
    pixel: Buffer<u32>,
    weight: Buffer<f32>,
    norm: Buffer<f32>,
    dark: Buffer<f32>,
    curves: Buffer<f32>,
    curves_host: Vec<f32>,
}

impl Rows {
    /// Prepares for batches of up to `batch_limit` frames; everything is allocated here.
    pub(super) fn new(
        accelerator: &Accelerator,
        config: &AzimuthalConfig,
        fields: &Fields,
        matrix: &Matrix,
        pixel_type: PixelType,
        batch_limit: usize,
    ) -> Result<Self, AcceleratorError> {
        let Fields { norm, dark } = fields;
        let pixels = norm.len();
        let bins = config.outputs();
        let limits = Limits::new(config, pixel_type);
        let options = options(config, pixel_type, limits);
        let program = accelerator.program("azimuthal_rows", SOURCE, &options)?;
        let of_entry: Vec<f32> = matrix.pixel.iter().map(|pixel| norm[*pixel as usize]).collect();
        let split = config.splitting != Splitting::No;
        let mut rows = Self {
            kernel: program.kernel("integrate_rows")?,
            group: accelerator.tuning().rows_group,
            bins,
            pixels,
            pixel_type,
            batch_limit,
            limits,
            factor: config.normalization_factor as f32,
            cutoff: config.sigma_clip.map_or(0.0, |clip| clip.cutoff as f32),
            cycles: config.sigma_clip.map_or(0, |clip| clip.cycles),
            empty: config.empty,
            starts: accelerator.buffer_from(&matrix.starts)?,
            pixel: accelerator.buffer_from(&matrix.pixel)?,
            weight: accelerator.buffer_from(if split { &matrix.weight } else { &[] })?,
            norm: accelerator.buffer_from(&of_entry)?,
            dark: accelerator.buffer_from(if config.dark.is_some() { dark } else { &[] })?,
            curves: accelerator.buffer(batch_limit * 3 * bins)?,
            curves_host: vec![0.0; batch_limit * 3 * bins],
        };
        rows.warm_up(accelerator)?;
        Ok(rows)
    }

    /// Runs the kernel over no bin: some drivers finish compiling at the first launch.
    fn warm_up(&mut self, accelerator: &Accelerator) -> Result<(), AcceleratorError> {
        let queue = accelerator.queue()?;
        let (frames, offsets) = (accelerator.buffer::<u8>(8)?, accelerator.buffer::<u64>(1)?);
        let bins = std::mem::replace(&mut self.bins, 0);
        self.launch(&queue, &frames, &offsets, 0, 1)?;
        self.bins = bins;
        queue.finish()
    }

    fn launch(
        &mut self,
        queue: &Queue,
        frames: &Buffer<u8>,
        offsets: &Buffer<u64>,
        first: usize,
        count: usize,
    ) -> Result<(), AcceleratorError> {
        let dummy = self.limits.dummy;
        let arguments = [
            frames.into(),
            offsets.into(),
            Arg::U32(first as u32),
            (&self.starts).into(),
            (&self.pixel).into(),
            (&self.weight).into(),
            (&self.norm).into(),
            (&self.dark).into(),
            Arg::U32(self.bins as u32),
            limits::argument(self.pixel_type, self.limits.saturation),
            limits::argument(self.pixel_type, dummy.map(|dummy| dummy.0)),
            limits::argument(self.pixel_type, dummy.map(|dummy| dummy.1)),
            Arg::F32(self.factor),
            Arg::F32(self.cutoff),
            Arg::U32(self.cycles),
            Arg::F32(self.empty),
            (&self.curves).into(),
        ];
        let size = self.bins.max(1).next_multiple_of(self.group);
        queue.launch(&mut self.kernel, &arguments, [size, count, 1], [self.group, 1, 1])
    }

    /// As [`super::AzimuthalIntegrator::integrate_with`].
    pub(super) fn integrate_with(
        &mut self,
        queue: &Queue,
        batch: &DeviceBatch,
        put: impl FnMut(usize, &[f32], &[f32], &[f32]),
    ) -> Result<(), AcceleratorError> {
        batch.check(self.pixels * self.pixel_type.bytes(), self.batch_limit)?;
        for (frames, group) in batch.groups() {
            self.launch(queue, frames, batch.offsets(), group.first, group.count)?;
        }
        let values = &mut self.curves_host[..batch.frames() * 3 * self.bins];
        queue.read(&self.curves, 0, values)?;
        hand_out(values, self.bins, put);
        Ok(())
    }
}

/// Hands each frame's intensity, sigma and count out of `[frames][3][bins]`.
pub(super) fn hand_out(values: &[f32], bins: usize, mut put: impl FnMut(usize, &[f32], &[f32], &[f32])) {
    for (frame, curves) in values.chunks_exact(3 * bins).enumerate() {
        let (intensity, rest) = curves.split_at(bins);
        let (sigma, count) = rest.split_at(bins);
        put(frame, intensity, sigma, count);
    }
}

fn options(config: &AzimuthalConfig, pixel_type: PixelType, limits: Limits) -> String {
    let model = match (config.error_model, config.sigma_clip) {
        // Without errors outliers are told by the azimuthal ones, as in the reference.
        (ErrorModel::None, None) => 0,
        (ErrorModel::Poisson, _) => 1,
        (ErrorModel::None, Some(_)) | (ErrorModel::Azimuthal, _) => 2,
        (ErrorModel::Hybrid, _) => 3,
    };
    format!(
        "-cl-std=CL1.2 -DPIXEL={} -DLIMIT={} -DFLOATING={} -DHAS_SATURATION={} -DHAS_DUMMY={} -DHAS_DARK={} -DSPLIT={} \
         -DMODEL={model} -DCLIP={}",
        pixel_type.opencl_name(),
        limits::opencl_name(pixel_type),
        u8::from(pixel_type == PixelType::F32),
        u8::from(limits.saturation.is_some()),
        u8::from(limits.dummy.is_some()),
        u8::from(config.dark.is_some()),
        u8::from(config.splitting != Splitting::No),
        u8::from(config.sigma_clip.is_some()),
    )
}
