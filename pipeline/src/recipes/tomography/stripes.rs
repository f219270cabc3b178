//! Stripe removal in the volume's sinograms, where it is asked for.

use super::methods::SLAB_SLICES;
use kernels::{Invalid, LargeStripes, StripeMethod, Wavelet, WaveletFourier};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes that a method takes per value of a sinogram while it runs.
const BYTES_PER_VALUE: usize = 64;

/// `[[recipe.NAME.volume.stripes]]`: one after the other. Vo's methods (sorting, filtering, fitting, large, dead, all) and
/// Münch's (wavelet_fourier), with the values that their authors recommend where none is given.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Stripes {
    /// small to medium stripes
    Sorting {
        /// columns of the median's window
        #[serde(default = "small")]
        size: usize,
        /// whether the window is as high as wide
        #[serde(default)]
        square: bool,
    },
    /// stripes that are hard to tell from the sample
    Filtering {
        /// width of the low-pass along a column, in frequencies
        #[serde(default = "three")]
        sigma: f64,
        /// columns of the median's window
        #[serde(default = "small")]
        size: usize,
        /// whether the window is as high as wide
        #[serde(default)]
        square: bool,
        /// whether to sort
        #[serde(default = "yes")]
        sort: bool,
    },
    /// stripes of low frequency
    Fitting {
        /// order of the polynomial
        #[serde(default = "two")]
        order: usize,
        /// width of the low-pass across, in frequencies; smaller is stronger
        #[serde(default = "ten")]
        sigma: f64,
        /// whether to sort
        #[serde(default)]
        sort: bool,
    },
    /// wide stripes
    Large {
        /// how far a stripe stands out; larger finds fewer
        #[serde(default = "three")]
        snr: f64,
        /// columns of the median's window
        #[serde(default = "large")]
        size: usize,
        /// share of the angles that are left out at the ends
        #[serde(default = "tenth")]
        drop_ratio: f64,
        /// whether columns are scaled to their smoothed neighbours
        #[serde(default = "yes")]
        normalize: bool,
    },
    /// columns that do not respond, or fluctuate
    Dead {
        /// how far a stripe stands out; larger finds fewer
        #[serde(default = "three")]
        snr: f64,
        /// columns of the median's window
        #[serde(default = "large")]
        size: usize,
        /// whether to look for large stripes afterwards
        #[serde(default = "yes")]
        residual: bool,
        /// angles of the window that tells whether a column is even
        #[serde(default = "few")]
        smooth: usize,
    },
    /// dead, large, and sorting
    All {
        /// how far a stripe stands out; larger finds fewer
        #[serde(default = "three")]
        snr: f64,
        /// columns of the median's window for large and dead stripes
        #[serde(default = "large")]
        large_size: usize,
        /// columns of the median's window for the others
        #[serde(default = "small")]
        small_size: usize,
        /// share of the angles that are left out at the ends
        #[serde(default = "tenth")]
        drop_ratio: f64,
    },
    /// Münch's filter
    WaveletFourier {
        /// times that the wavelet transform is taken
        #[serde(default = "five")]
        level: usize,
        /// width of what is damped, in frequencies; larger is stronger
        #[serde(default = "one")]
        sigma: f64,
        /// Daubechies' wavelet with 5 or 9 vanishing moments
        #[serde(default = "nine")]
        moments: usize,
    },
}

fn small() -> usize {
    21
}
fn large() -> usize {
    51
}
fn few() -> usize {
    10
}
fn two() -> usize {
    2
}
fn five() -> usize {
    5
}
fn nine() -> usize {
    9
}
fn yes() -> bool {
    true
}
fn one() -> f64 {
    1.0
}
fn three() -> f64 {
    3.0
}
fn ten() -> f64 {
    10.0
}
fn tenth() -> f64 {
    0.1
}

impl Stripes {
    /// The method, checked; an error says what is allowed.
    pub(super) fn method(&self) -> Result<StripeMethod, String> {
        let method = match self.clone() {
            Self::Sorting { size, square } => StripeMethod::Sorting { size, square },
            Self::Filtering {
                sigma,
                size,
                square,
                sort,
            } => StripeMethod::Filtering {
                sigma,
                size,
                square,
                sort,
            },
            Self::Fitting { order, sigma, sort } => StripeMethod::Fitting { order, sigma, sort },
            Self::Large {
                snr,
                size,
                drop_ratio,
                normalize,
            } => StripeMethod::Large(LargeStripes {
                snr,
                size,
                drop_ratio,
                normalize,
            }),
            Self::Dead {
                snr,
                size,
                residual,
                smooth,
            } => StripeMethod::Dead {
                snr,
                size,
                residual,
                smooth,
            },
            Self::All {
                snr,
                large_size,
                small_size,
                drop_ratio,
            } => StripeMethod::All {
                snr,
                large_size,
                small_size,
                drop_ratio,
            },
            Self::WaveletFourier { level, sigma, moments } => StripeMethod::WaveletFourier(WaveletFourier {
                level,
                sigma,
                wavelet: match moments {
                    5 => Wavelet::Db5,
                    9 => Wavelet::Db9,
                    _ => return Err(format!("moments is {moments}, but must be 5 or 9")),
                },
            }),
        };
        method.check().map_err(|error| error.to_string())?;
        Ok(method)
    }
}

/// Bytes that removal takes with so many threads.
pub(super) fn bytes(projections: usize, columns: usize, threads: usize) -> usize {
    threads * projections * columns * BYTES_PER_VALUE
}

/// Removes stripes from the first `rows` rows of a slab `[angle][column][16 rows]`, whose projections are at these angles;
/// on so many threads, which change no bit. `go_on` is asked before every so many rows; where it says no, the rest is left.
pub(super) fn remove(
    methods: &[StripeMethod],
    slab: &mut [f32],
    columns: usize,
    rows: usize,
    angles_deg: &[f64],
    threads: usize,
    go_on: impl Fn() -> bool,
) -> Result<(), Invalid> {
    let mut order: Vec<usize> = (0..angles_deg.len()).collect();
    order.sort_by(|a, b| angles_deg[*a].total_cmp(&angles_deg[*b]).then(a.cmp(b)));
    let (order, each) = (&order, rows.div_ceil(threads.max(1)).max(1));
    let size = columns * SLAB_SLICES;
    let one = |row: usize, slab: &[f32]| -> Result<Vec<f32>, Invalid> {
        let line = |number: &usize| {
            slab[number * size + row..][..size - row]
                .iter()
                .step_by(SLAB_SLICES)
                .copied()
        };
        let mut sinogram: Vec<f32> = order.iter().flat_map(line).collect();
        methods
            .iter()
            .try_for_each(|method| method.remove(&mut sinogram, columns))?;
        Ok(sinogram)
    };
    // As many rows at a time as there are threads: no more sinograms are in memory.
    for first in (0..rows).step_by(rows.div_ceil(each)) {
        if !go_on() {
            break;
        }
        let last = (first + rows.div_ceil(each)).min(rows);
        let shared: &[f32] = slab;
        let cleaned = std::thread::scope(|scope| {
            let started: Vec<_> = (first..last)
                .map(|row| scope.spawn(move || (row, one(row, shared))))
                .collect();
            let joined = started.into_iter().map(|thread| match thread.join() {
                Ok(cleaned) => cleaned,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect::<Vec<_>>()
        });
        for (row, sinogram) in cleaned {
            let sinogram = sinogram?;
            for (number, line) in order.iter().zip(sinogram.chunks_exact(columns)) {
                let places = slab[number * size + row..].iter_mut().step_by(SLAB_SLICES);
                places.zip(line).for_each(|(place, value)| *place = *value);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripe_goes_and_order_and_threads_make_no_difference() {
        let (columns, angles, rows) = (40, 60, 5);
        let angles_deg: Vec<f64> = (0..angles).map(|a| 3.0 * ((a * 7) % angles) as f64).collect();
        let value = |angle: f64, column: usize, row: usize| {
            let at = 18.0 + 6.0 * angle.to_radians().cos();
            // Flat enough that the median's neighbours are like the column itself.
            let sample = (-((column as f64 - at) / 30.0).powi(2)).exp() as f32 * (row + 1) as f32;
            sample + if column == 11 { 0.3 } else { 0.0 }
        };
        let mut slab = vec![0.0; angles * columns * SLAB_SLICES];
        for (number, angle) in angles_deg.iter().enumerate() {
            for column in 0..columns {
                for row in 0..rows {
                    slab[(number * columns + column) * SLAB_SLICES + row] = value(*angle, column, row);
                }
            }
        }
        let method: Stripes = serde_json::from_value(serde_json::json!({ "method": "sorting", "size": 9 })).unwrap();
        let methods = [method.method().unwrap()];
        let (mut one, mut three) = (slab.clone(), slab.clone());
        remove(&methods, &mut one, columns, rows, &angles_deg, 1, || true).unwrap();
        remove(&methods, &mut three, columns, rows, &angles_deg, 3, || true).unwrap();
        assert_eq!(one, three);
        let stripe = |slab: &[f32]| -> f32 {
            let at = |number: usize, column: usize| slab[(number * columns + column) * SLAB_SLICES + 2];
            let step = |number: usize| at(number, 11) - 0.5 * (at(number, 10) + at(number, 12));
            (0..angles).map(step).sum::<f32>() / angles as f32
        };
        assert!(
            stripe(&slab) > 0.25 && stripe(&one).abs() < 0.05,
            "{} {}",
            stripe(&slab),
            stripe(&one)
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let read = |value| serde_json::from_value::<Stripes>(value).map_err(|error| error.to_string());
        let unknown = read(serde_json::json!({ "method": "magic" })).unwrap_err();
        assert!(
            unknown.contains("magic") && unknown.contains("wavelet_fourier"),
            "{unknown}"
        );
        let extra = read(serde_json::json!({ "method": "sorting", "colour": 1 })).unwrap_err();
        assert!(extra.contains("colour"), "{extra}");
        let wrong = read(serde_json::json!({ "method": "fitting", "order": 30 })).unwrap();
        assert!(wrong.method().unwrap_err().contains("0 to 8"));
    }
}
