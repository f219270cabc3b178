//! What gridrec approximates, in f64: every point of the slice as the sum over all lines' frequencies.

use super::{GridrecConfig, ramp};
use realfft::num_complex::Complex;
use std::f64::consts::{PI, TAU};

/// The slice of a sinogram `[angle][column]`, `[y][x]`.
pub fn gridrec(config: &GridrecConfig, sinogram: &[Vec<f64>]) -> Vec<f64> {
    let (columns, size) = (config.columns, config.grid());
    let response = ramp(config.filter, columns, size);
    let weight = |angle: usize| config.weights.get(angle).map_or(1.0, |w| f64::from(*w));
    let sum: f64 = (0..sinogram.len()).map(weight).sum();
    let middle = (columns as f64 - 1.0) / 2.0;
    let mut slice = vec![0.0; columns * columns];
    for (angle, row) in sinogram.iter().enumerate() {
        let (sin, cos) = config.angles_deg[angle].to_radians().sin_cos();
        for k in 1 - size as i64 / 2..size as i64 / 2 {
            let turn = TAU * k as f64 / size as f64;
            let term = |(u, v): (usize, &f64)| Complex::from_polar(*v, -turn * (u as f64 - config.rotation_axis_px));
            let line: Complex<f64> = row.iter().enumerate().map(term).sum();
            let value = line * response[k.unsigned_abs() as usize] * weight(angle);
            for (index, place) in slice.iter_mut().enumerate() {
                let (x, y) = ((index % columns) as f64 - middle, (index / columns) as f64 - middle);
                *place += (value * Complex::from_polar(1.0, turn * (x * cos + y * sin))).re;
            }
        }
    }
    let scale = PI / (2.0 * sum) / size as f64;
    slice.iter().map(|v| v * scale).collect()
}
