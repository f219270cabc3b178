//! What every thread reads, and the last step from sums to a curve.

use super::FusedConfig;
use super::part::Counted;
use crate::accelerator::AcceleratorError;
use crate::azimuthal::{ErrorModel, Lookup};
use crate::limits;
use crate::statistics::{FrameStatistics, Region, RegionStatistics, check_regions};
use frame::{PixelMask, PixelType, Shape};

/// Most pixels of a bin: their number and their sum share 64 bits.
const CROWD_MAX: u32 = (1 << 24) - 1;

/// Pixels of a rectangle, or of the whole frame, that are not masked.
pub(super) struct Span {
    /// a bit per pixel, first pixel in the lowest bit
    pub(super) bits: Vec<u8>,
    /// bytes of `bits` outside this range are zero
    pub(super) bytes: std::ops::Range<usize>,
    good: u64,
    masked: u64,
}

/// Sums of one bin of one frame.
#[derive(Clone, Copy, Default)]
pub(super) struct BinSums {
    pub(super) signal: i64,
    pub(super) variance: i64,
    pub(super) out_count: u32,
    pub(super) out_norm: u64,
    pub(super) out_dark: i64,
}

/// See the module.
pub(super) struct Tables {
    pub(super) pixels: usize,
    pub(super) pixel_type: PixelType,
    pub(super) pixel_bytes: usize,
    pub(super) frame_bytes: usize,
    /// a bit per pixel that takes part in anything
    pub(super) used: Vec<u8>,
    pub(super) spans: Vec<Span>,
    /// from here on pixels are saturated for statistics
    pub(super) bright: Option<i64>,
    /// the value of pixels that hold no count, for statistics
    pub(super) invalid: Option<i64>,
    pub(super) lookup: Option<Lookup>,
    pub(super) bins: usize,
    /// from here on pixels are saturated for curves
    pub(super) saturation: Option<i64>,
    pub(super) dummy: Option<(i64, i64)>,
    /// the least value that is not simply added
    pub(super) odd_from: i64,
    pub(super) poisson: bool,
    pub(super) norm_scale: f32,
    pub(super) dark_scale: f32,
    norm_unit: f32,
    empty: f32,
    pub(super) radial: Vec<f64>,
}

/// A bit per pixel.
fn bits(pixels: usize, holds: impl Fn(usize) -> bool) -> Vec<u8> {
    let byte = |byte: usize| {
        (0..8)
            .filter(|bit| byte * 8 + bit < pixels && holds(byte * 8 + bit))
            .fold(0, |bits, bit| bits | 1 << bit)
    };
    (0..pixels.div_ceil(8)).map(byte).collect()
}

impl Span {
    fn new(region: &Region, shape: Shape, mask: &PixelMask) -> Self {
        let inside = |pixel: usize| {
            let (row, column) = (pixel / shape.columns, pixel % shape.columns);
            (region.row..region.row + region.rows).contains(&row)
                && (region.column..region.column + region.columns).contains(&column)
        };
        let bits = bits(shape.pixels(), |pixel| inside(pixel) && !mask.rejects(pixel));
        let good = bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let first = bits.iter().position(|byte| *byte != 0).unwrap_or(0);
        let end = bits.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Self {
            bits,
            bytes: first..end,
            good,
            masked: (region.rows * region.columns) as u64 - good,
        }
    }
}

impl Tables {
    pub(super) fn new(
        config: &FusedConfig,
        shape: Shape,
        pixel_type: PixelType,
        mask: &PixelMask,
    ) -> Result<Self, AcceleratorError> {
        if pixel_type == PixelType::F32 {
            return Err(AcceleratorError::Value {
                name: "pixel type",
                value: "f32".into(),
                allowed: "whole numbers: the sums of floats depend on their order",
            });
        }
        if mask.shape() != shape {
            let (found, expected) = (mask.shape().to_string(), shape.to_string());
            return Err(AcceleratorError::Mismatch {
                what: "the mask's shape",
                found,
                expected,
            });
        }
        let pixels = shape.pixels();
        let limit = |value: Option<f64>| {
            value
                .and_then(|value| limits::at_least(pixel_type, value))
                .map(|v| v as i64)
        };
        let mut spans = Vec::new();
        if let Some(statistics) = &config.statistics {
            check_regions(&statistics.regions, shape)?;
            let whole = Region {
                name: String::new(),
                row: 0,
                column: 0,
                rows: shape.rows,
                columns: shape.columns,
            };
            let regions = std::iter::once(&whole).chain(&statistics.regions);
            spans.extend(regions.map(|region| Span::new(region, shape, mask)));
        }
        let statistics = config.statistics.as_ref();
        let invalid = statistics
            .and_then(|statistics| statistics.invalid)
            .filter(|value| limits::at_least(pixel_type, *value) == Some(*value))
            .map(|value| value as i64);
        let bright = limit(statistics.and_then(|statistics| statistics.saturation));
        let azimuthal = config.azimuthal.as_ref();
        let lookup = azimuthal
            .map(|azimuthal| Lookup::new(azimuthal, shape, pixel_type, mask))
            .transpose()?;
        let bins = azimuthal.map_or(0, |azimuthal| azimuthal.bins);
        let crowd = lookup
            .iter()
            .flat_map(|lookup| &lookup.bin_count)
            .max()
            .copied()
            .unwrap_or(0);
        if crowd > CROWD_MAX {
            return Err(AcceleratorError::Value {
                name: "bins",
                value: format!("{bins}, one of which has {crowd} pixels"),
                allowed: "bins of fewer than 2^24 pixels",
            });
        }
        let active = |pixel: usize| {
            let of = |lookup: &Lookup| usize::from(lookup.index[pixel]) < bins;
            lookup.as_ref().is_some_and(of)
        };
        let counted = !spans.is_empty();
        let used = bits(pixels, |pixel| active(pixel) || (counted && !mask.rejects(pixel)));
        let saturation = limit(azimuthal.and_then(|azimuthal| azimuthal.saturation));
        let dummy = azimuthal.and_then(|azimuthal| {
            let (dummy, delta) = (azimuthal.dummy?, azimuthal.delta_dummy.unwrap_or(0.0).abs());
            let low = limits::at_least(pixel_type, dummy - delta)?;
            let high = limits::at_most(pixel_type, dummy + delta)?;
            (low <= high).then_some((low as i64, high as i64))
        });
        // Negative pixels are odd anyhow; a dummy interval of negative values makes no other pixel odd.
        let dummy_from = dummy.filter(|(_, high)| *high >= 0).map(|(low, _)| low.max(0));
        let invalid_from = invalid.filter(|value| *value >= 0);
        let odd_from = [bright, saturation, dummy_from, invalid_from]
            .into_iter()
            .flatten()
            .min();
        let norm_scale = lookup.as_ref().map_or(1.0, |lookup| lookup.norm_scale);
        Ok(Self {
            pixels,
            pixel_type,
            pixel_bytes: pixel_type.bytes(),
            frame_bytes: pixels * pixel_type.bytes(),
            used,
            spans,
            bright,
            invalid,
            bins,
            saturation,
            dummy,
            odd_from: odd_from.unwrap_or(i64::MAX),
            poisson: azimuthal.is_some_and(|azimuthal| azimuthal.error_model == ErrorModel::Poisson),
            norm_scale,
            dark_scale: lookup
                .as_ref()
                .map_or(1.0, |lookup| 2f32.powi(lookup.dark_shift as i32)),
            norm_unit: azimuthal.map_or(1.0, |azimuthal| {
                (azimuthal.normalization_factor / f64::from(norm_scale)) as f32
            }),
            empty: azimuthal.map_or(0.0, |azimuthal| azimuthal.empty),
            radial: lookup.as_ref().map_or_else(Vec::new, |lookup| lookup.bins.centers()),
            lookup,
        })
    }

    /// The numbers of a frame from what its parts counted.
    pub(super) fn numbers<'a>(&self, parts: impl Iterator<Item = &'a [Counted]> + Clone) -> FrameStatistics {
        let mut numbers = FrameStatistics::default();
        for (place, span) in self.spans.iter().enumerate() {
            let (mut sum, mut max, mut saturated, mut invalid) = (0i128, i64::MIN, 0, 0);
            for counted in parts.clone().map(|part| part[place]) {
                sum += i128::from(counted.sum);
                max = max.max(counted.max);
                saturated += counted.saturated;
                invalid += counted.invalid;
            }
            let valid = span.good - saturated - invalid;
            let found = RegionStatistics {
                sum: sum as f64,
                max: if valid == 0 { f64::NAN } else { max as f64 },
                saturated,
                valid,
                masked: span.masked,
                invalid,
            };
            match place {
                0 => numbers.frame = found,
                place => numbers.regions[place - 1] = found,
            }
        }
        numbers
    }

    /// Intensity, sigma and count of every bin, one behind the other: the last kernel of the azimuthal integration.
    pub(super) fn curve(&self, sums: impl Fn(usize) -> BinSums, curves: &mut [f32]) {
        let Some(lookup) = &self.lookup else { return };
        let dark_unit = 1.0 / self.dark_scale;
        for bin in 0..self.bins {
            let found = sums(bin);
            let count = lookup.bin_count[bin] - found.out_count;
            let norm = lookup.bin_norm[bin] - found.out_norm;
            let dark = lookup.bin_dark[bin] - found.out_dark;
            let numerator = ((found.signal << lookup.dark_shift) - dark) as f32 * dark_unit;
            let filled = count != 0 && norm != 0;
            let denominator = if filled { norm as f32 * self.norm_unit } else { 1.0 };
            let of = |holds: bool, value: f32| if holds { value / denominator } else { self.empty };
            curves[bin] = of(filled, numerator);
            curves[self.bins + bin] = of(filled && self.poisson, (found.variance as f32).sqrt());
            curves[2 * self.bins + bin] = count as f32;
        }
    }
}
