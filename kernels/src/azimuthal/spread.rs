//! Curves and pictures of pixels that several bins share, on a CPU: tile by tile in the pixels' own order, sixteen frames at
//! once, in whole numbers; see `spread.cl`.
//!
//! Rows of the matrix fetch a pixel as often as it has shares, from all over the frame. Here the frame is read once, in
//! its order, and a share costs one vector multiplication for eight frames. A share is a multiple of 2^-30 (2^-24 at worst,
//! where a bin has millions of pixels), the same in numerator, normalisation and count: what a pixel of 2^31 counts
//! adds is right to a count.
//!
//! What has to be known before: whole-number pixels, no or Poisson errors, no sigma clipping, a frame of at least one
//! tile, bins whose sums stay within 62 bits and take no more than [`SUMS_BYTES_MAX`]. Everything else, and every
//! device that is not a CPU, goes by [`Rows`](super::rows::Rows), where a work item owns a bin and no sums lie in memory.

use super::lookup::Fields;
use super::matrix::Matrix;
use super::rows::hand_out;
use super::{AzimuthalConfig, ErrorModel, FINISH_ROWS, LANES, Limits};
use crate::accelerator::{Accelerator, AcceleratorError, DeviceKind};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::limits;
use crate::stager::DeviceBatch;
use frame::{PixelType, Shape};
use std::ops::Range;

const SOURCE: &str = concat!(include_str!("lanes.cl"), include_str!("spread.cl"));
/// Rows and columns of a tile; `spread.cl` has the same.
const TILE: Shape = Shape::new(8, 32);
/// Unit of shares, as a power of two: at least, and at most.
const BITS: Range<i32> = 24..31;
/// Bits of a pixel that goes the fast way; the upper bits of others are summed by themselves.
const PIXEL_BITS: i32 = 17;
/// Pixels from which on a work item is worth its sums.
const CHUNK_PIXELS: usize = 32768;
/// Most memory for the sums of all work items, bytes.
const SUMS_BYTES_MAX: usize = 256 << 20;

/// Shares by tiles, and within a tile by bins.
struct Tiles {
    /// first pixel of each tile
    origins: Vec<u32>,
    /// where each tile's segments start, and where the last one's end
    segments: Vec<u32>,
    /// bin of each segment
    bin: Vec<u32>,
    /// where each segment's entries start, and where the last one's end
    entries: Vec<u32>,
    /// pixel of each entry within its tile
    place: Vec<u8>,
    /// share of each entry
    weight: Vec<u32>,
    /// 255 for pixels that take part
    active: Vec<u8>,
}

impl Tiles {
    fn new(matrix: &Matrix, shape: Shape, bits: i32) -> Self {
        let down = shape.rows.div_ceil(TILE.rows);
        let across = shape.columns.div_ceil(TILE.columns);
        // The last ones reach back, so that every tile is whole.
        let row_of = |down: usize| (down * TILE.rows).min(shape.rows - TILE.rows);
        let column_of = |across: usize| (across * TILE.columns).min(shape.columns - TILE.columns);
        let find = |pixel: u32| {
            let (row, column) = (pixel as usize / shape.columns, pixel as usize % shape.columns);
            let (y, x) = (row / TILE.rows, column / TILE.columns);
            let place = (row - row_of(y)) * TILE.columns + column - column_of(x);
            (y * across + x, place as u8)
        };
        let mut next = vec![0u32; down * across + 1];
        for pixel in &matrix.pixel {
            next[find(*pixel).0 + 1] += 1;
        }
        for tile in 0..down * across {
            next[tile + 1] += next[tile];
        }
        let count = matrix.pixel.len();
        let ends = next[1..].to_vec();
        let (mut of_entry, mut place, mut weight) = (vec![0u32; count], vec![0; count], vec![0; count]);
        let mut active = vec![0; shape.pixels()];
        for (bin, bounds) in matrix.starts.windows(2).enumerate() {
            for entry in bounds[0] as usize..bounds[1] as usize {
                let (tile, within) = find(matrix.pixel[entry]);
                let at = next[tile] as usize;
                next[tile] += 1;
                (of_entry[at], place[at]) = (bin as u32, within);
                weight[at] = whole(matrix.weight[entry], bits);
                active[matrix.pixel[entry] as usize] = u8::MAX;
            }
        }
        let (mut bin, mut entries, mut segments) = (Vec::new(), Vec::new(), vec![0]);
        let mut start = 0;
        for end in ends {
            let mut last = None;
            for entry in start..end {
                let own = of_entry[entry as usize];
                if last != Some(own) {
                    bin.push(own);
                    entries.push(entry);
                    last = Some(own);
                }
            }
            segments.push(bin.len() as u32);
            start = end;
        }
        entries.push(count as u32);
        let origin = |tile: usize| (row_of(tile / across) * shape.columns + column_of(tile % across)) as u32;
        Self {
            origins: (0..down * across).map(origin).collect(),
            segments,
            bin,
            entries,
            place,
            weight,
            active,
        }
    }

    /// Tiles of each of so many work items, with about as many entries each.
    fn cuts(&self, chunks: usize) -> Vec<u32> {
        let before = |tile: usize| self.entries[self.segments[tile] as usize] as usize;
        let tiles: Vec<usize> = (0..self.origins.len()).collect();
        let cut = |chunk: usize| tiles.partition_point(|tile| before(*tile) < self.weight.len() * chunk / chunks);
        let mut cuts: Vec<u32> = (0..chunks).map(|chunk| cut(chunk) as u32).collect();
        cuts.push(tiles.len() as u32);
        cuts
    }
}

/// A share in units of 2^-bits.
fn whole(share: f32, bits: i32) -> u32 {
    (f64::from(share) * 2f64.powi(bits)).round() as u32
}

/// What bins have when no pixel is left out, in the kernel's units and with its rounding.
struct Whole {
    count: Vec<u64>,
    norm: Vec<u64>,
    dark: Vec<i64>,
}

impl Whole {
    fn new(matrix: &Matrix, fields: &Fields, bits: i32, norm_scale: f32) -> Self {
        let of = |bounds: &[u32]| {
            let (mut count, mut norm, mut dark) = (0, 0, 0);
            for entry in bounds[0] as usize..bounds[1] as usize {
                let (share, pixel) = (whole(matrix.weight[entry], bits), matrix.pixel[entry] as usize);
                count += u64::from(share);
                // Of 24 bits, as the share was: nothing is lost.
                let share = share as f32;
                norm += (share * fields.norm[pixel] * norm_scale).round_ties_even() as u64;
                dark += product(share, fields.dark[pixel]);
            }
            (count, norm, dark)
        };
        let mut bins = Self {
            count: Vec::new(),
            norm: Vec::new(),
            dark: Vec::new(),
        };
        for (count, norm, dark) in matrix.starts.windows(2).map(of) {
            bins.count.push(count);
            bins.norm.push(norm);
            bins.dark.push(dark);
        }
        bins
    }
}

/// As the kernel's.
fn product(share: f32, value: f32) -> i64 {
    let high = share * value;
    high.round_ties_even() as i64 + share.mul_add(value, -high).round_ties_even() as i64
}

/// Bits before the point.
fn bits_of(value: f64) -> i32 {
    value.max(f64::MIN_POSITIVE).log2().floor() as i32 + 1
}

/// The operation.
pub(super) struct Spread {
    spread: Kernel,
    finish: Kernel,
    bins: usize,
    shape: Shape,
    pixel_type: PixelType,
    batch_limit: usize,
    chunks: usize,
    limits: Limits,
    norm_scale: f32,
    norm_unit: f32,
    empty: f32,
    cuts: Buffer<u32>,
    origins: Buffer<u32>,
    segments: Buffer<u32>,
    bin: Buffer<u32>,
    entries: Buffer<u32>,
    place: Buffer<u8>,
    weight: Buffer<u32>,
    active: Buffer<u8>,
    norm: Buffer<f32>,
    dark: Buffer<f32>,
    bin_count: Buffer<u64>,
    bin_norm: Buffer<u64>,
    bin_dark: Buffer<i64>,
    sums: Buffer<u64>,
    upper: Buffer<u64>,
    out_count: Buffer<u64>,
    out_norm: Buffer<u64>,
    out_dark: Buffer<i64>,
    touched: Buffer<u32>,
    curves: Buffer<f32>,
    curves_host: Vec<f32>,
}

impl Spread {
    /// Prepares for batches of up to `batch_limit` frames, everything allocated here; `None` where it is not for this
    /// device, or not for this configuration.
    pub(super) fn new(
        accelerator: &Accelerator,
        config: &AzimuthalConfig,
        fields: &Fields,
        matrix: &Matrix,
        shape: Shape,
        pixel_type: PixelType,
        batch_limit: usize,
    ) -> Result<Option<Self>, AcceleratorError> {
        let fits = accelerator.info().kind == DeviceKind::Cpu
            && pixel_type != PixelType::F32
            && config.sigma_clip.is_none()
            && config.error_model != ErrorModel::Azimuthal
            && shape.rows >= TILE.rows
            && shape.columns >= TILE.columns
            && matrix.weight.iter().all(|share| (0.0..=1.5).contains(share));
        let bins = config.outputs();
        let poisson = config.error_model != ErrorModel::None;
        let deep = pixel_type.bytes() == 4;
        let parts = 1 + usize::from(poisson);
        let arrays = parts * if deep { 2 } else { 1 } + 3;
        let room = SUMS_BYTES_MAX / (bins * LANES * size_of::<u64>() * arrays);
        if !fits || room == 0 {
            return Ok(None);
        }
        let share_sum = |bounds: &[u32]| {
            matrix.weight[bounds[0] as usize..bounds[1] as usize]
                .iter()
                .sum::<f32>()
        };
        let crowd = matrix.starts.windows(2).map(share_sum).fold(1f32, f32::max);
        // A little more: the sum was rounded.
        let crowd = bits_of(1.001 * f64::from(crowd));
        let (norms, darks) = matrix.pixel.iter().fold((0f32, 0f32), |(norm, dark), pixel| {
            let pixel = *pixel as usize;
            (norm.max(fields.norm[pixel]), dark.max(fields.dark[pixel].abs()))
        });
        let bits = (62 - crowd - PIXEL_BITS.max(bits_of(darks.into()))).min(BITS.end - 1);
        if bits < BITS.start {
            return Ok(None);
        }
        let norm_scale = 2f32.powi((62 - crowd - bits - bits_of(norms.into())).clamp(-100, 100));
        let tiles = Tiles::new(matrix, shape, bits);
        let whole = Whole::new(matrix, fields, bits, norm_scale);
        let wanted = accelerator.info().compute_units as usize * accelerator.tuning().histogram_chunks;
        let chunks = wanted.min(shape.pixels() / CHUNK_PIXELS).min(room).max(1);
        let limits = Limits::new(config, pixel_type);
        let options = options(config, pixel_type, limits, bits);
        let program = accelerator.program("azimuthal_spread", SOURCE, &options)?;
        let rows = chunks * bins * LANES;
        let excluding = if limits.saturation.is_some() || limits.dummy.is_some() {
            rows
        } else {
            0
        };
        let dark = config.dark.is_some();
        let mut spread = Self {
            spread: program.kernel("spread")?,
            finish: program.kernel("finish")?,
            bins,
            shape,
            pixel_type,
            batch_limit,
            chunks,
            limits,
            norm_scale,
            norm_unit: (config.normalization_factor / (f64::from(norm_scale) * 2f64.powi(bits))) as f32,
            empty: config.empty,
            cuts: accelerator.buffer_from(&tiles.cuts(chunks))?,
            origins: accelerator.buffer_from(&tiles.origins)?,
            segments: accelerator.buffer_from(&tiles.segments)?,
            bin: accelerator.buffer_from(&tiles.bin)?,
            entries: accelerator.buffer_from(&tiles.entries)?,
            place: accelerator.buffer_from(&tiles.place)?,
            weight: accelerator.buffer_from(&tiles.weight)?,
            active: accelerator.buffer_from(&tiles.active)?,
            norm: accelerator.buffer_from(&fields.norm)?,
            dark: accelerator.buffer_from(if dark { &fields.dark } else { &[] })?,
            bin_count: accelerator.buffer_from(&whole.count)?,
            bin_norm: accelerator.buffer_from(&whole.norm)?,
            bin_dark: accelerator.buffer_from(&whole.dark)?,
            sums: accelerator.buffer(rows * parts)?,
            upper: accelerator.buffer(if deep { rows * parts } else { 0 })?,
            out_count: accelerator.buffer(excluding)?,
            out_norm: accelerator.buffer(excluding)?,
            out_dark: accelerator.buffer(if dark { excluding } else { 0 })?,
            touched: accelerator.buffer(chunks)?,
            curves: accelerator.buffer(batch_limit * 3 * bins)?,
            curves_host: vec![0.0; batch_limit * 3 * bins],
        };
        spread.warm_up(accelerator)?;
        Ok(Some(spread))
    }

    /// Runs the kernels over no tile: some drivers finish compiling at the first launch.
    fn warm_up(&mut self, accelerator: &Accelerator) -> Result<(), AcceleratorError> {
        let queue = accelerator.queue()?;
        let (frames, offsets) = (accelerator.buffer::<u8>(8)?, accelerator.buffer::<u64>(1)?);
        let cuts = std::mem::replace(&mut self.cuts, accelerator.buffer::<u32>(self.chunks + 1)?);
        self.launch(&queue, &frames, &offsets, 0, 1)?;
        queue.finish()?;
        self.cuts = cuts;
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
        let dummy = self.limits.dummy;
        let arguments = [
            frames.into(),
            offsets.into(),
            Arg::U32(first as u32),
            Arg::U32(count as u32),
            Arg::U32(self.shape.columns as u32),
            (&self.cuts).into(),
            (&self.origins).into(),
            (&self.segments).into(),
            (&self.bin).into(),
            (&self.entries).into(),
            (&self.place).into(),
            (&self.weight).into(),
            (&self.active).into(),
            (&self.norm).into(),
            (&self.dark).into(),
            Arg::U32(self.bins as u32),
            Arg::F32(self.norm_scale),
            limits::argument(self.pixel_type, self.limits.saturation),
            limits::argument(self.pixel_type, dummy.map(|dummy| dummy.0)),
            limits::argument(self.pixel_type, dummy.map(|dummy| dummy.1)),
            (&self.sums).into(),
            (&self.upper).into(),
            (&self.out_count).into(),
            (&self.out_norm).into(),
            (&self.out_dark).into(),
            (&self.touched).into(),
        ];
        queue.launch(&mut self.spread, &arguments, [self.chunks, 1, 1], [1; 3])?;
        let arguments = [
            (&self.sums).into(),
            (&self.upper).into(),
            (&self.out_count).into(),
            (&self.out_norm).into(),
            (&self.out_dark).into(),
            (&self.touched).into(),
            Arg::U32(self.chunks as u32),
            Arg::U32(self.bins as u32),
            (&self.bin_count).into(),
            (&self.bin_norm).into(),
            (&self.bin_dark).into(),
            Arg::F32(self.norm_unit),
            Arg::F32(self.empty),
            Arg::U32(first as u32),
            Arg::U32(count as u32),
            (&self.curves).into(),
        ];
        let rows = self.bins.next_multiple_of(FINISH_ROWS);
        queue.launch(&mut self.finish, &arguments, [LANES, rows, 1], [LANES, FINISH_ROWS, 1])
    }

    /// As [`super::AzimuthalIntegrator::integrate_with`].
    pub(super) fn integrate_with(
        &mut self,
        queue: &Queue,
        batch: &DeviceBatch,
        put: impl FnMut(usize, &[f32], &[f32], &[f32]),
    ) -> Result<(), AcceleratorError> {
        batch.check(self.shape.pixels() * self.pixel_type.bytes(), self.batch_limit)?;
        for (frames, group) in batch.groups() {
            for first in (group.first..group.first + group.count).step_by(LANES) {
                let count = LANES.min(group.first + group.count - first);
                self.launch(queue, frames, batch.offsets(), first, count)?;
            }
        }
        let values = &mut self.curves_host[..batch.frames() * 3 * self.bins];
        queue.read(&self.curves, 0, values)?;
        hand_out(values, self.bins, put);
        Ok(())
    }
}

fn options(config: &AzimuthalConfig, pixel_type: PixelType, limits: Limits, bits: i32) -> String {
    let pixel = pixel_type.opencl_name();
    let (limit, mask) = (limits::opencl_name(pixel_type), limits::mask_name(pixel_type));
    let signed = matches!(pixel_type, PixelType::I16 | PixelType::I32);
    let wide = if signed { "long" } else { "ulong" };
    format!(
        "-cl-std=CL1.2 -DPIXEL={pixel} -DPIXEL16={pixel}16 -DMASK16={mask}16 -DTO_MASK=convert_{mask}16 -DANY=any_{mask} \
         -DWIDE={wide} -DWIDE16={wide}16 -DTO_WIDE16=convert_{wide}16 -DAS_WIDE16=as_{wide}16 -DLIMIT={limit} \
         -DFLOATING=0 -DDEEP={} -DLOWEST={} -DBITS={bits} -DPOISSON={} -DHAS_SATURATION={} -DHAS_DUMMY={} -DHAS_DARK={}",
        u8::from(pixel_type.bytes() == 4),
        if signed { "-65536" } else { "0" },
        u8::from(config.error_model != ErrorModel::None),
        u8::from(limits.saturation.is_some()),
        u8::from(limits.dummy.is_some()),
        u8::from(config.dark.is_some()),
    )
}
