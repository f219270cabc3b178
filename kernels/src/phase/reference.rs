//! Paganin's filter in f64, as it is written: every frequency of the padded projection by its own sum.

use super::{PaganinConfig, source};
use crate::fft::{fast_length, frequency};
use realfft::num_complex::Complex;
use std::f64::consts::TAU;

/// The filtered transmission of one projection, `rows`×`columns`.
pub fn paganin(config: &PaganinConfig, projection: &[f64]) -> Vec<f64> {
    let (rows, columns) = (config.rows, config.columns);
    let [high, wide] = [fast_length(2 * rows), fast_length(2 * columns)];
    let factor = config.alpha_um2() / config.pixel_size_um.powi(2);
    let mut values: Vec<Complex<f64>> = (0..high * wide)
        .map(|i| {
            let row = source(i / wide, rows, high, config.padding);
            let column = source(i % wide, columns, wide, config.padding);
            Complex::new(projection[row * columns + column], 0.0)
        })
        .collect();
    let mut transform = |sign: f64| {
        for row in values.chunks_exact_mut(wide) {
            let line = sums(row, sign);
            row.copy_from_slice(&line);
        }
        for column in 0..wide {
            let line: Vec<Complex<f64>> = values.iter().skip(column).step_by(wide).copied().collect();
            for (row, value) in sums(&line, sign).into_iter().enumerate() {
                values[row * wide + column] = value;
            }
        }
        if sign < 0.0 {
            for (i, value) in values.iter_mut().enumerate() {
                let f2 = frequency(i / wide, high).powi(2) + frequency(i % wide, wide).powi(2);
                *value /= 1.0 + factor * f2;
            }
        }
    };
    transform(-1.0);
    transform(1.0);
    let scale = (high * wide) as f64;
    (0..rows * columns)
        .map(|i| values[i / columns * wide + i % columns].re / scale)
        .collect()
}

fn sums(line: &[Complex<f64>], sign: f64) -> Vec<Complex<f64>> {
    let n = line.len();
    let turn: Vec<Complex<f64>> = (0..n)
        .map(|k| Complex::from_polar(1.0, sign * TAU * k as f64 / n as f64))
        .collect();
    let one = |k: usize| line.iter().enumerate().map(|(j, v)| v * turn[k * j % n]).sum();
    (0..n).map(one).collect()
}
