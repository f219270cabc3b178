//! Stripes in sinograms, which are rings in slices: Vo's methods (Vo, Atwood & Drakopoulos 2018, Optics Express 26,
//! 28396) and the wavelet-Fourier filter (Münch, Trtik, Marone & Stampanoni 2009, Optics Express 17, 8567).
//!
//! A sinogram is `[angle][column]`, line integrals (or transmissions), angles in order. Each method costs sharpness
//! where there are no stripes, so none is on unless asked for. All of them run on the host, one sinogram at a time;
//! [`remove_from_all`] shares many of them between threads.

mod columns;
mod detect;
mod wavelet;

pub use wavelet::{Wavelet, WaveletFourier};

use crate::image::median;
use crate::invalid::Invalid;
use crate::parallel::share;
use columns::{fitted, low_pass, low_pass_2d, sorted, unsorted};
use detect::{stripes, widened};

/// A method and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum StripeMethod {
    /// algorithm 3: columns are sorted, smoothed across by a median, and put back in order: small to medium stripes
    Sorting {
        /// columns of the median's window
        size: usize,
        /// whether the window is as high as wide
        square: bool,
    },
    /// algorithm 2: the same for what is slow along a column only: stripes that are hard to tell from the sample
    Filtering {
        /// width of the low-pass along a column, in frequencies
        sigma: f64,
        /// columns of the median's window
        size: usize,
        /// whether the window is as high as wide
        square: bool,
        /// whether to sort
        sort: bool,
    },
    /// algorithm 1: every column is fitted by a polynomial, the fits are smoothed across: low-frequency stripes
    Fitting {
        /// order of the polynomial
        order: usize,
        /// width of the low-pass across, in frequencies; smaller is stronger
        sigma: f64,
        /// whether to sort
        sort: bool,
    },
    /// algorithm 5: wide stripes are found and replaced
    Large(LargeStripes),
    /// algorithm 6: columns that do not respond or fluctuate are found and replaced by their neighbours
    Dead {
        /// how far a stripe stands out; larger finds fewer
        snr: f64,
        /// columns of the median's window
        size: usize,
        /// whether to look for large stripes afterwards
        residual: bool,
        /// angles of the window that tells whether a column is even
        smooth: usize,
    },
    /// algorithms 6, 5 and 3 one after the other
    All {
        /// how far a stripe stands out; larger finds fewer
        snr: f64,
        /// columns of the median's window for large and dead stripes
        large_size: usize,
        /// columns of the median's window for the others
        small_size: usize,
        /// share of the angles that are left out at the ends
        drop_ratio: f64,
    },
    /// Münch's filter: vertical details of a wavelet transform lose their slow part along the columns
    WaveletFourier(WaveletFourier),
}

/// Algorithm 5.
#[derive(Clone, Debug, PartialEq)]
pub struct LargeStripes {
    /// how far a stripe stands out; larger finds fewer
    pub snr: f64,
    /// columns of the median's window
    pub size: usize,
    /// share of the angles that are left out at the ends
    pub drop_ratio: f64,
    /// whether columns are scaled to their smoothed neighbours
    pub normalize: bool,
}

impl StripeMethod {
    /// Every method with the parameters that its authors recommend, with its name.
    pub fn defaults() -> [(&'static str, StripeMethod); 7] {
        let large = LargeStripes {
            snr: 3.0,
            size: 51,
            drop_ratio: 0.1,
            normalize: true,
        };
        [
            (
                "sorting",
                StripeMethod::Sorting {
                    size: 21,
                    square: false,
                },
            ),
            (
                "filtering",
                StripeMethod::Filtering {
                    sigma: 3.0,
                    size: 21,
                    square: false,
                    sort: true,
                },
            ),
            (
                "fitting",
                StripeMethod::Fitting {
                    order: 2,
                    sigma: 10.0,
                    sort: false,
                },
            ),
            ("large", StripeMethod::Large(large)),
            (
                "dead",
                StripeMethod::Dead {
                    snr: 3.0,
                    size: 51,
                    residual: true,
                    smooth: 10,
                },
            ),
            (
                "all",
                StripeMethod::All {
                    snr: 3.0,
                    large_size: 51,
                    small_size: 21,
                    drop_ratio: 0.1,
                },
            ),
            (
                "wavelet_fourier",
                StripeMethod::WaveletFourier(WaveletFourier::default()),
            ),
        ]
    }

    /// Whether the parameters are possible.
    pub fn check(&self) -> Result<(), Invalid> {
        let window = |name, size: usize| Invalid::unless((1..=1024).contains(&size), name, size, "1 to 1024 columns");
        let positive = |name, value: f64| Invalid::unless(value > 0.0 && value < 1e6, name, value, "above 0");
        let ratio = |value: f64| Invalid::unless((0.0..=0.8).contains(&value), "drop_ratio", value, "0 to 0.8");
        match self {
            Self::Sorting { size, .. } => window("size", *size),
            Self::Filtering { sigma, size, .. } => positive("sigma", *sigma).and(window("size", *size)),
            Self::Fitting { order, sigma, .. } => {
                Invalid::unless(*order <= 8, "order", order, "0 to 8").and(positive("sigma", *sigma))
            }
            Self::Large(large) => {
                let window = window("size", large.size);
                positive("snr", large.snr).and(window).and(ratio(large.drop_ratio))
            }
            Self::Dead { snr, size, smooth, .. } => {
                let window = window("size", *size).and(window("smooth", *smooth));
                positive("snr", *snr).and(window)
            }
            Self::All {
                snr,
                large_size,
                small_size,
                drop_ratio,
            } => {
                let windows = window("large_size", *large_size).and(window("small_size", *small_size));
                positive("snr", *snr).and(windows).and(ratio(*drop_ratio))
            }
            Self::WaveletFourier(filter) => positive("sigma", filter.sigma),
        }
    }

    /// Removes stripes from one sinogram, `[angle][column]`, in place. Too small a sinogram (fewer than 8 angles or 8
    /// columns) stays as it is.
    pub fn remove(&self, sinogram: &mut [f32], columns: usize) -> Result<(), Invalid> {
        self.check()?;
        let whole = sinogram.len().next_multiple_of(columns.max(1));
        Invalid::expect_len("the sinogram's number of values", sinogram.len(), whole)?;
        if columns < 8 || sinogram.len() < 8 * columns {
            return Ok(());
        }
        match self {
            Self::Sorting { size, square } => sorting(sinogram, columns, *size, *square),
            Self::Filtering {
                sigma,
                size,
                square,
                sort,
            } => {
                filtering(sinogram, columns, *sigma, (*size, *square), *sort);
            }
            Self::Fitting { order, sigma, sort } => fitting(sinogram, columns, *order, *sigma, *sort),
            Self::Large(large) => remove_large(sinogram, columns, large),
            Self::Dead {
                snr,
                size,
                residual,
                smooth,
            } => {
                remove_dead(sinogram, columns, *snr, *size, *smooth);
                if *residual {
                    let large = LargeStripes {
                        snr: *snr,
                        size: *size,
                        drop_ratio: 0.1,
                        normalize: true,
                    };
                    remove_large(sinogram, columns, &large);
                }
            }
            Self::All {
                snr,
                large_size,
                small_size,
                drop_ratio,
            } => {
                remove_dead(sinogram, columns, *snr, *large_size, 10);
                let (size, drop_ratio) = (*large_size, *drop_ratio);
                remove_large(
                    sinogram,
                    columns,
                    &LargeStripes {
                        snr: *snr,
                        size,
                        drop_ratio,
                        normalize: true,
                    },
                );
                sorting(sinogram, columns, *small_size, false);
            }
            Self::WaveletFourier(filter) => filter.run(sinogram, columns),
        }
        Ok(())
    }
}

/// Removes stripes from `[sinogram][angle][column]` with so many host threads; each sinogram's result is that of
/// [`StripeMethod::remove`].
pub fn remove_from_all(
    method: &StripeMethod,
    sinograms: &mut [f32],
    angles: usize,
    columns: usize,
    threads: usize,
) -> Result<(), Invalid> {
    method.check()?;
    let size = (angles * columns).max(1);
    Invalid::expect_len(
        "the number of values",
        sinograms.len(),
        sinograms.len().next_multiple_of(size),
    )?;
    let mut states = vec![Ok(()); threads.max(1)];
    let mut items: Vec<&mut [f32]> = sinograms.chunks_exact_mut(size).collect();
    share(
        &mut states,
        &mut items,
        |state: &mut Result<(), Invalid>, _, sinogram| {
            if state.is_ok() {
                *state = method.remove(sinogram, columns);
            }
        },
    );
    states.into_iter().collect()
}

fn window(size: usize, square: bool) -> (usize, usize) {
    (if square { size } else { 1 }, size)
}

fn sorting(sinogram: &mut [f32], columns: usize, size: usize, square: bool) {
    let (values, order) = sorted(sinogram, columns);
    let (high, wide) = window(size, square);
    unsorted(&median(&values, columns, high, wide), &order, columns, sinogram);
}

fn filtering(sinogram: &mut [f32], columns: usize, sigma: f64, (size, square): (usize, bool), sort: bool) {
    let slow = low_pass(sinogram, columns, sigma);
    let fast: Vec<f32> = sinogram.iter().zip(&slow).map(|(v, slow)| v - slow).collect();
    let (high, wide) = window(size, square);
    if sort {
        let (values, order) = sorted(&slow, columns);
        unsorted(&median(&values, columns, high, wide), &order, columns, sinogram);
    } else {
        sinogram.copy_from_slice(&median(&slow, columns, high, wide));
    }
    sinogram.iter_mut().zip(&fast).for_each(|(v, fast)| *v += fast);
}

fn fitting(sinogram: &mut [f32], columns: usize, order: usize, sigma: f64, sort: bool) {
    let angles = sinogram.len() / columns;
    let (values, places) = if sort {
        sorted(sinogram, columns)
    } else {
        (sinogram.to_vec(), Vec::new())
    };
    let fit = fitted(&values, columns, order);
    let pad = 150.min(angles / 10);
    let along = (columns / 10).clamp(10, 60) as f64;
    let smooth = low_pass_2d(&fit, columns, [along, sigma], pad);
    let mean = |values: &[f64]| values.iter().map(|v| v.abs()).sum::<f64>() / values.len() as f64;
    let scale = match mean(&smooth) {
        0.0 => 0.0,
        smooth => mean(&fit) / smooth,
    };
    let corrected: Vec<f32> = values
        .iter()
        .zip(fit.iter().zip(&smooth))
        .map(|(value, (fit, smooth))| {
            if *fit == 0.0 {
                *value
            } else {
                (f64::from(*value) / fit * smooth * scale) as f32
            }
        })
        .collect();
    if sort {
        unsorted(&corrected, &places, columns, sinogram);
    } else {
        sinogram.copy_from_slice(&corrected);
    }
}

fn remove_large(sinogram: &mut [f32], columns: usize, large: &LargeStripes) {
    let angles = sinogram.len() / columns;
    let drop = (0.5 * large.drop_ratio * angles as f64) as usize;
    let (values, order) = sorted(sinogram, columns);
    let smooth = median(&values, columns, 1, large.size);
    let means = |values: &[f32]| -> Vec<f64> {
        let mut sums = vec![0.0; columns];
        for row in values[drop * columns..(angles - drop) * columns].chunks_exact(columns) {
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        sums
    };
    let factors: Vec<f64> = means(&values)
        .iter()
        .zip(means(&smooth))
        .map(|(sum, smooth)| if smooth == 0.0 { 1.0 } else { sum / smooth })
        .collect();
    let found = widened(&stripes(&factors, large.snr));
    let mut replaced = vec![0.0; sinogram.len()];
    unsorted(&smooth, &order, columns, &mut replaced);
    for (row, replaced) in sinogram.chunks_exact_mut(columns).zip(replaced.chunks_exact(columns)) {
        for (column, value) in row.iter_mut().enumerate() {
            if found[column] {
                *value = replaced[column];
            } else if large.normalize && factors[column] != 0.0 {
                *value = (f64::from(*value) / factors[column]) as f32;
            }
        }
    }
}

fn remove_dead(sinogram: &mut [f32], columns: usize, snr: f64, size: usize, smooth: usize) {
    let unrest = columns::unrest(sinogram, columns, smooth);
    let unrest: Vec<f32> = unrest.iter().map(|v| *v as f32).collect();
    let mut around: Vec<f64> = median(&unrest, columns, 1, size)
        .iter()
        .map(|v| f64::from(*v))
        .collect();
    let mean = around.iter().map(|v| v.abs()).sum::<f64>() / columns as f64;
    around.iter_mut().filter(|v| **v == 0.0).for_each(|v| *v = mean);
    let factors: Vec<f64> = unrest
        .iter()
        .zip(&around)
        .map(|(v, around)| if *around == 0.0 { 1.0 } else { f64::from(*v) / around })
        .collect();
    let mut found = widened(&stripes(&factors, snr));
    for edge in [0, 1, columns - 2, columns - 1] {
        found[edge] = false;
    }
    let count = found.iter().filter(|found| **found).count();
    // A sinogram with so many stripes has none that stand out.
    if count == 0 || count >= columns / 3 {
        return;
    }
    for row in sinogram.chunks_exact_mut(columns) {
        let mut left = 0;
        for column in 1..columns {
            if found[column] {
                continue;
            }
            let (from, to) = (f64::from(row[left]), f64::from(row[column]));
            let steps = (column - left) as f64;
            for (step, place) in row[left..column].iter_mut().enumerate().skip(1) {
                *place = (from + step as f64 / steps * (to - from)) as f32;
            }
            left = column;
        }
    }
}

#[cfg(test)]
mod tests;
