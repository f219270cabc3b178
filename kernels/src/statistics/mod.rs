//! Numbers that tell at a glance whether a frame is any good: its sum, its largest pixel, how many pixels are
//! saturated; and the same for up to eight rectangles.
//!
//! Masked pixels take no part. Saturated pixels are counted and take no part in sum and maximum, so neither is a
//! lower bound in disguise; nor do pixels that hold no count. Sums are exact for whole-number pixels and compensated for floats.

pub mod reference;

use crate::accelerator::{Accelerator, AcceleratorError};
use crate::host_memory::{Arg, Buffer, Kernel, Queue};
use crate::limits;
use crate::stager::DeviceBatch;
use frame::{PixelMask, PixelType, Shape};
use serde::{Deserialize, Serialize};

pub(crate) const SOURCE: &str = include_str!("statistics.cl");
/// Rectangles at most.
pub const REGIONS_MAX: usize = 8;
/// Pixels of a tile: as many as a 32-bit sum in each of 16 columns can take.
const TILE_PIXELS: usize = 32768;

/// A rectangle of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// name, `snake_case`
    pub name: String,
    /// first row
    pub row: usize,
    /// first column
    pub column: usize,
    /// number of rows
    pub rows: usize,
    /// number of columns
    pub columns: usize,
}

/// What to count.
#[derive(Clone, Debug, Default)]
pub struct StatisticsConfig {
    /// pixels at or above this value are saturated
    pub saturation: Option<f64>,
    /// pixels of this value hold no count; of floats those that are no number
    pub invalid: Option<f64>,
    /// rectangles, at most [`REGIONS_MAX`]
    pub regions: Vec<Region>,
}

/// The numbers of a rectangle, or of the whole frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegionStatistics {
    /// sum of the valid pixels
    pub sum: f64,
    /// largest valid pixel; NaN where there is none
    pub max: f64,
    /// pixels that are not masked and saturated
    pub saturated: u64,
    /// pixels that are neither masked nor saturated, and a number
    pub valid: u64,
    /// pixels that are masked
    pub masked: u64,
    /// pixels that are not masked and hold no count
    pub invalid: u64,
}

impl RegionStatistics {
    const NONE: Self = Self {
        sum: 0.0,
        max: f64::NAN,
        saturated: 0,
        valid: 0,
        masked: 0,
        invalid: 0,
    };
}

/// The numbers of one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameStatistics {
    /// of the whole frame
    pub frame: RegionStatistics,
    /// of the configured rectangles, in their order; the rest is empty
    pub regions: [RegionStatistics; REGIONS_MAX],
}

impl Default for FrameStatistics {
    fn default() -> Self {
        Self {
            frame: RegionStatistics::NONE,
            regions: [RegionStatistics::NONE; REGIONS_MAX],
        }
    }
}

/// Tiles of one rectangle.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: usize,
    count: usize,
    good: u64,
    masked: u64,
}

/// The operation; see the module.
pub struct Statistics {
    kernel: Kernel,
    shape: Shape,
    pixel_type: PixelType,
    batch_limit: usize,
    saturation: Option<f64>,
    invalid: Option<f64>,
    spans: Vec<Span>,
    tile_count: usize,
    good: Buffer<i8>,
    tiles: Buffer<u32>,
    sums: Buffer<u64>,
    values: Buffer<u32>,
    sums_host: Vec<u64>,
    values_host: Vec<u32>,
}

impl Statistics {
    /// Prepares for batches of up to `batch_limit` frames; everything is allocated here.
    pub fn new(
        accelerator: &Accelerator,
        config: &StatisticsConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
        batch_limit: usize,
    ) -> Result<Statistics, AcceleratorError> {
        if mask.shape() != shape {
            let (found, expected) = (mask.shape().to_string(), shape.to_string());
            return Err(AcceleratorError::Mismatch {
                what: "the mask's shape",
                found,
                expected,
            });
        }
        check_regions(&config.regions, shape)?;
        let whole = Region {
            name: String::new(),
            row: 0,
            column: 0,
            rows: shape.rows,
            columns: shape.columns,
        };
        let (mut spans, mut tiles) = (Vec::new(), Vec::new());
        for region in std::iter::once(&whole).chain(&config.regions) {
            let first = tiles.len();
            cut(
                region,
                shape,
                accelerator.tuning().statistics_tile_pixels.min(TILE_PIXELS),
                &mut tiles,
            );
            let masked = pixels_of(region, shape).filter(|pixel| mask.rejects(*pixel)).count() as u64;
            let good = (region.rows * region.columns) as u64 - masked;
            spans.push(Span {
                first,
                count: tiles.len() - first,
                good,
                masked,
            });
        }
        let saturation = config.saturation.and_then(|value| limits::at_least(pixel_type, value));
        // A value that no pixel can have needs no looking for.
        let held = |value: &f64| limits::at_least(pixel_type, *value) == Some(*value);
        let invalid = config.invalid.filter(held).filter(|_| pixel_type != PixelType::F32);
        let options = options(pixel_type, saturation.is_some(), invalid.is_some());
        let program = accelerator.program("statistics", SOURCE, &options)?;
        let good: Vec<i8> = (0..shape.pixels())
            .map(|pixel| if mask.rejects(pixel) { 0 } else { -1 })
            .collect();
        let tile_count = tiles.len();
        let flat: Vec<u32> = tiles.into_iter().flatten().collect();
        let mut statistics = Self {
            kernel: program.kernel("statistics")?,
            shape,
            pixel_type,
            batch_limit,
            saturation,
            invalid,
            spans,
            tile_count,
            good: accelerator.buffer_from(&good)?,
            tiles: accelerator.buffer_from(&flat)?,
            sums: accelerator.buffer(batch_limit * tile_count)?,
            values: accelerator.buffer(batch_limit * tile_count * 3)?,
            sums_host: vec![0; batch_limit * tile_count],
            values_host: vec![0; batch_limit * tile_count * 3],
        };
        // Over no frame: some drivers finish compiling at the first launch. Nothing is read from the first two.
        let (queue, frames, offsets) = (accelerator.queue()?, accelerator.buffer(1)?, accelerator.buffer(1)?);
        statistics.launch(&queue, &frames, &offsets, 0, 0)?;
        queue.finish()?;
        Ok(statistics)
    }

    /// Counts a batch; `outputs` has one entry per frame, in the batch's order. Returns when they are filled.
    pub fn run(
        &mut self,
        queue: &Queue,
        batch: &DeviceBatch,
        outputs: &mut [FrameStatistics],
    ) -> Result<(), AcceleratorError> {
        batch.check(self.shape.pixels() * self.pixel_type.bytes(), self.batch_limit)?;
        AcceleratorError::expect_len("the number of outputs", outputs.len(), batch.frames())?;
        for (frames, group) in batch.groups() {
            self.launch(queue, frames, batch.offsets(), group.first, group.count)?;
        }
        let tiles = outputs.len() * self.tile_count;
        queue.read(&self.sums, 0, &mut self.sums_host[..tiles])?;
        queue.read(&self.values, 0, &mut self.values_host[..tiles * 3])?;
        for (frame, output) in outputs.iter_mut().enumerate() {
            *output = FrameStatistics::default();
            for (number, span) in self.spans.iter().enumerate() {
                let found = self.merge(frame * self.tile_count + span.first, *span);
                match number {
                    0 => output.frame = found,
                    number => output.regions[number - 1] = found,
                }
            }
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
            Arg::U32(self.shape.columns as u32),
            (&self.tiles).into(),
            limits::argument(self.pixel_type, self.saturation),
            limits::argument(self.pixel_type, self.invalid),
            (&self.sums).into(),
            (&self.values).into(),
        ];
        queue.launch(&mut self.kernel, &arguments, [self.tile_count, 1, 1], [1; 3])
    }

    /// Adds up a rectangle's tiles, in their order.
    fn merge(&self, first: usize, span: Span) -> RegionStatistics {
        let signed = matches!(self.pixel_type, PixelType::I16 | PixelType::I32);
        let floating = self.pixel_type == PixelType::F32;
        let (mut whole, mut sum, mut max) = (0i128, 0f64, f64::NEG_INFINITY);
        let (mut saturated, mut broken) = (0u64, 0u64);
        for tile in first..first + span.count {
            let bits = self.sums_host[tile];
            let [most, high, none] = [0, 1, 2].map(|value| self.values_host[tile * 3 + value]);
            if floating {
                sum += f64::from(f32::from_bits(bits as u32)) + f64::from(f32::from_bits((bits >> 32) as u32));
                max = max.max(f64::from(f32::from_bits(most)));
                saturated += f32::from_bits(high) as u64;
                broken += f32::from_bits(none) as u64;
            } else {
                whole += if signed {
                    i128::from(bits as i64)
                } else {
                    i128::from(bits)
                };
                max = max.max(if signed {
                    f64::from(most as i32)
                } else {
                    f64::from(most)
                });
                saturated += u64::from(high);
                broken += u64::from(none);
            }
        }
        let valid = span.good - saturated - broken;
        RegionStatistics {
            sum: if floating { sum } else { whole as f64 },
            max: if valid == 0 { f64::NAN } else { max },
            saturated,
            valid,
            masked: span.masked,
            invalid: broken,
        }
    }
}

pub(crate) fn check_regions(regions: &[Region], shape: Shape) -> Result<(), AcceleratorError> {
    if regions.len() > REGIONS_MAX {
        let value = regions.len().to_string();
        return Err(AcceleratorError::Value {
            name: "the number of regions",
            value,
            allowed: "at most 8",
        });
    }
    for region in regions {
        let inside = |first: usize, count: usize, size: usize| {
            count > 0 && first.checked_add(count).is_some_and(|end| end <= size)
        };
        if !inside(region.row, region.rows, shape.rows) || !inside(region.column, region.columns, shape.columns) {
            let found = format!(
                "rows {} to {}, columns {} to {} (`{}`)",
                region.row,
                region.row.saturating_add(region.rows),
                region.column,
                region.column.saturating_add(region.columns),
                region.name
            );
            let expected = format!("a frame of {shape} pixels");
            return Err(AcceleratorError::Mismatch {
                what: "a region",
                found,
                expected,
            });
        }
    }
    Ok(())
}

fn pixels_of(region: &Region, shape: Shape) -> impl Iterator<Item = usize> {
    let (column, columns) = (region.column, region.columns);
    (region.row..region.row + region.rows)
        .flat_map(move |row| (column..column + columns).map(move |column| row * shape.columns + column))
}

/// Cuts a rectangle into tiles (first pixel, rows, width) of at most so many pixels.
fn cut(region: &Region, shape: Shape, most: usize, tiles: &mut Vec<[u32; 3]>) {
    let corner = region.row * shape.columns + region.column;
    // Rows of full width lie one behind the other: one long row.
    let (rows, width) = if region.columns == shape.columns {
        (1, region.rows * region.columns)
    } else {
        (region.rows, region.columns)
    };
    for left in (0..width).step_by(most) {
        let width = (width - left).min(most);
        // A 16-wide column takes one vector per row however narrow the tile is.
        let high = most / width.next_multiple_of(16).min(most);
        for top in (0..rows).step_by(high) {
            let first = corner + top * shape.columns + left;
            tiles.push([first as u32, (rows - top).min(high) as u32, width as u32]);
        }
    }
}

fn options(pixel_type: PixelType, saturation: bool, invalid: bool) -> String {
    let pixel = pixel_type.opencl_name();
    let (limit, mask) = (limits::opencl_name(pixel_type), limits::mask_name(pixel_type));
    let (sum, smallest) = match pixel_type {
        PixelType::U8 | PixelType::U16 => ("uint", "0"),
        PixelType::U32 => ("ulong", "0"),
        PixelType::I16 => ("int", "SHRT_MIN"),
        PixelType::I32 => ("long", "INT_MIN"),
        PixelType::F32 => ("float", "-INFINITY"),
    };
    format!(
        "-cl-std=CL1.2 -DPIXEL={pixel} -DPIXEL16={pixel}16 -DMASK16={mask}16 -DTO_MASK=convert_{mask}16 -DSUM={sum} \
         -DSUM16={sum}16 -DTO_SUM16=convert_{sum}16 -DLIMIT={limit} -DSMALLEST={smallest} -DFLOATING={} \
         -DHAS_SATURATION={} -DHAS_INVALID={}",
        u8::from(pixel_type == PixelType::F32),
        u8::from(saturation),
        u8::from(invalid),
    )
}

#[cfg(test)]
mod tests;
