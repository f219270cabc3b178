//! A frame taken apart: the background around the beam as a curve, and the pixels that deviate from it.
//!
//! The curve is the mean of the pixels of a ring, each divided by its factor (solid angle, polarisation), those left out that
//! lie far from it. What a pixel is expected to hold is the curve at its radius, on the line between two rings, times its
//! factor: `numpy.interp` of the same numbers gives the same.

use crate::storage::SparseFrame;
use frame::PixelType;

/// Ring number of a masked pixel.
const MASKED: u32 = u32::MAX;

/// How far a pixel must lie from the background to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// standard deviations, up or down, from which on a pixel is kept
    pub(super) pick_sigmas: f64,
    /// counts added in quadrature to a ring's standard deviation
    pub(super) noise: f64,
    /// standard deviations from which on a pixel is left out of the background
    pub(super) clip_sigmas: f64,
    /// how often that is done
    pub(super) cycles: usize,
    /// pixels around a kept one that are kept with it
    pub(super) border_px: usize,
    /// pixels at or above this are kept and in no background
    pub(super) saturation: Option<f64>,
}

/// Where the pixels of a detector lie between rings.
pub(super) struct Rings {
    /// radius of the rings' middles
    pub(super) radius: Vec<f32>,
    columns: usize,
    /// ring beneath each pixel
    lower: Vec<u32>,
    /// how far it is to the next ring, 0 to 1
    along: Vec<f32>,
    /// factor of each pixel
    factor: Vec<f32>,
}

impl Rings {
    /// `bins` rings of one width, 2 at least; the middle of the first is at the least radius of pixels that are not masked, that of the
    /// last at the largest: some readers take what is beyond them for masked. Row by row, `columns` a row.
    pub(super) fn new(
        radii: &[f64],
        masked: impl Fn(usize) -> bool,
        factor: Vec<f32>,
        bins: usize,
        columns: usize,
    ) -> Self {
        let seen = || {
            radii
                .iter()
                .enumerate()
                .filter(|(pixel, _)| !masked(*pixel))
                .map(|(_, radius)| *radius)
        };
        let (low, high) = (seen().fold(f64::INFINITY, f64::min), seen().fold(0.0, f64::max));
        let width = ((high - low) / (bins - 1) as f64).max(f64::MIN_POSITIVE);
        let (mut lower, mut along) = (vec![MASKED; radii.len()], vec![0.0; radii.len()]);
        for (pixel, radius) in radii.iter().enumerate().filter(|(pixel, _)| !masked(*pixel)) {
            let at = ((radius - low) / width).clamp(0.0, (bins - 1) as f64);
            let beneath = (at.floor() as usize).min(bins - 2);
            (lower[pixel], along[pixel]) = (beneath as u32, (at - beneath as f64) as f32);
        }
        let middle = |bin: usize| match bin + 1 == bins {
            true => high,
            false => low + bin as f64 * width,
        };
        Self {
            radius: (0..bins).map(|bin| middle(bin) as f32).collect(),
            columns,
            lower,
            along,
            factor,
        }
    }

    /// The ring that a pixel counts in.
    fn ring(&self, pixel: usize) -> u32 {
        match self.lower[pixel] {
            MASKED => MASKED,
            lower => lower + u32::from(self.along[pixel] >= 0.5),
        }
    }

    /// A curve at a pixel that is not masked.
    fn at(&self, curve: &[f64], pixel: usize) -> f64 {
        let lower = self.lower[pixel] as usize;
        curve[lower] + f64::from(self.along[pixel]) * (curve[lower + 1] - curve[lower])
    }

    /// Takes a frame apart. Pixels in `unusable` hold no count that a background may rest on; they are kept.
    pub(super) fn split(&self, values: &[f64], unusable: impl Fn(f64) -> bool, limits: &Limits) -> SparseFrame {
        // Ring of every pixel that a background may rest on.
        let taken: Vec<u32> = values
            .iter()
            .enumerate()
            .map(|(pixel, value)| if unusable(*value) { MASKED } else { self.ring(pixel) })
            .collect();
        let (average, spread) = self.background(values, &taken, limits);
        let limit2 = |pixel: usize| {
            let sigma = self.at(&spread, pixel) * f64::from(self.factor[pixel]);
            limits.pick_sigmas.powi(2) * (sigma * sigma + limits.noise * limits.noise)
        };
        let off = |pixel: usize| values[pixel] - self.at(&average, pixel) * f64::from(self.factor[pixel]);
        let mut kept = vec![false; values.len()];
        for (pixel, value) in values
            .iter()
            .enumerate()
            .filter(|(pixel, _)| self.lower[*pixel] != MASKED)
        {
            if unusable(*value) {
                kept[pixel] = true;
            } else if off(pixel).powi(2) > limit2(pixel) {
                self.keep_around(&mut kept, pixel, limits.border_px);
            }
        }
        let index: Vec<u32> = (0..values.len())
            .filter(|pixel| kept[*pixel])
            .map(|pixel| pixel as u32)
            .collect();
        SparseFrame {
            intensity: index.iter().map(|pixel| values[*pixel as usize]).collect(),
            index,
            background_avg: average.iter().map(|value| *value as f32).collect(),
            background_std: spread.iter().map(|value| *value as f32).collect(),
        }
    }

    fn keep_around(&self, kept: &mut [bool], pixel: usize, border: usize) {
        let (row, column) = (pixel / self.columns, pixel % self.columns);
        let rows = kept.len() / self.columns;
        for row in row.saturating_sub(border)..(row + border + 1).min(rows) {
            for column in column.saturating_sub(border)..(column + border + 1).min(self.columns) {
                let near = row * self.columns + column;
                kept[near] |= self.lower[near] != MASKED;
            }
        }
    }

    /// Mean of every ring and its standard deviation, which is never less than counting explains.
    fn background(&self, values: &[f64], taken: &[u32], limits: &Limits) -> (Vec<f64>, Vec<f64>) {
        let bins = self.radius.len();
        let (mut average, mut spread) = (vec![0.0; bins], vec![f64::INFINITY; bins]);
        for _ in 0..=limits.cycles {
            // Value, factor, number; then the squares around the mean, by the same pixels.
            let (mut sums, mut squares) = (vec![(0.0, 0.0, 0.0); bins], vec![0.0; bins]);
            let seen = || {
                let all = taken.iter().enumerate().filter(|(_, ring)| **ring != MASKED);
                let divided = all.map(|(pixel, ring)| {
                    let factor = f64::from(self.factor[pixel]);
                    (*ring as usize, values[pixel], factor, values[pixel] / factor)
                });
                divided
                    .filter(|(ring, _, _, value)| (value - average[*ring]).abs() <= limits.clip_sigmas * spread[*ring])
            };
            for (ring, counts, part, _) in seen() {
                let (value, factor, number) = &mut sums[ring];
                *value += counts;
                *factor += part;
                *number += 1.0;
            }
            let means: Vec<f64> = sums.iter().map(|(value, factor, _)| value / factor).collect();
            for (ring, _, _, value) in seen() {
                squares[ring] += (value - means[ring]).powi(2);
            }
            for ring in 0..bins {
                let number = sums[ring].2;
                if number > 0.0 {
                    average[ring] = means[ring];
                    spread[ring] = (squares[ring] / number).max(means[ring].max(0.0)).sqrt();
                }
            }
        }
        fill(&mut average, &spread);
        let known = spread.clone();
        fill(&mut spread, &known);
        (average, spread)
    }
}

/// Rings without a pixel, whose spread is not finite, take the value of the nearest one that has some.
fn fill(curve: &mut [f64], spread: &[f64]) {
    let known: Vec<usize> = (0..curve.len()).filter(|ring| spread[*ring].is_finite()).collect();
    for ring in (0..curve.len()).filter(|ring| !spread[*ring].is_finite()) {
        let nearest = known.iter().min_by_key(|known| known.abs_diff(ring));
        curve[ring] = nearest.map_or(0.0, |known| curve[*known]);
    }
}

/// The pixels of a frame as numbers.
pub(super) fn numbers(bytes: &[u8], pixel_type: PixelType) -> Vec<f64> {
    fn of<const N: usize>(bytes: &[u8], value: fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
    }
    match pixel_type {
        PixelType::U8 => of(bytes, |bytes: [u8; 1]| f64::from(bytes[0])),
        PixelType::I16 => of(bytes, |bytes| f64::from(i16::from_le_bytes(bytes))),
        PixelType::U16 => of(bytes, |bytes| f64::from(u16::from_le_bytes(bytes))),
        PixelType::I32 => of(bytes, |bytes| f64::from(i32::from_le_bytes(bytes))),
        PixelType::U32 => of(bytes, |bytes| f64::from(u32::from_le_bytes(bytes))),
        PixelType::F32 => of(bytes, |bytes| f64::from(f32::from_le_bytes(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        pick_sigmas: 4.0,
        noise: 0.0,
        clip_sigmas: 4.0,
        cycles: 5,
        border_px: 0,
        saturation: None,
    };

    /// A frame of rings around the middle of 64 × 64 pixels; pixel 5 of the first row is masked.
    fn rings() -> Rings {
        let radii: Vec<f64> = (0..4096)
            .map(|pixel| f64::hypot((pixel / 64) as f64 - 31.5, (pixel % 64) as f64 - 31.5))
            .collect();
        Rings::new(&radii, |pixel| pixel == 5, vec![0.5; 4096], 20, 64)
    }

    #[test]
    fn what_stands_out_is_kept_exactly_and_bends_no_background() {
        // A background that checkers by one count around 100.
        let mut values: Vec<f64> = (0..4096)
            .map(|pixel| f64::from(99 + 2 * ((pixel + pixel / 64) % 2)))
            .collect();
        (values[70], values[2000], values[5]) = (1e6, 40.0, 1e9);
        values[3000] = 65535.0;
        let rings = rings();
        let sparse = rings.split(&values, |value| value == 65535.0, &LIMITS);
        assert_eq!(sparse.index, [70, 2000, 3000]);
        assert_eq!(sparse.intensity, [1e6, 40.0, 65535.0]);
        // Divided by the factor of one half.
        let far = sparse.background_avg.iter().map(|value| (value - 200.0).abs());
        assert!(far.fold(0.0, f32::max) < 1.0, "{:?}", sparse.background_avg);
        assert!(
            sparse
                .background_std
                .iter()
                .all(|sigma| (sigma - 200f32.sqrt()).abs() < 0.1)
        );
    }

    #[test]
    fn neighbours_are_kept_with_it_but_not_what_is_masked() {
        let mut values = vec![100.0; 4096];
        values[4] = 5000.0;
        let limits = Limits { border_px: 1, ..LIMITS };
        let sparse = rings().split(&values, |_| false, &limits);
        assert_eq!(sparse.index, [3, 4, 67, 68, 69]);
    }

    #[test]
    fn an_empty_frame_has_a_background_of_nothing() {
        let sparse = rings().split(&[0.0; 4096], |_| false, &LIMITS);
        assert!(sparse.index.is_empty() && sparse.background_avg.iter().all(|value| *value == 0.0));
        let none = rings().split(&[7.0; 4096], |_| true, &LIMITS);
        assert_eq!(none.index.len(), 4095);
    }
}
