//! Filtered back-projection in f64, as it is written in the book.

use super::filter::{Filter, padded_length, response};
use std::f64::consts::PI;

/// Filters one row by direct convolution with the response's samples.
pub fn filter_row(filter: Filter, row: &[f64]) -> Vec<f64> {
    let columns = row.len();
    let padded = padded_length(columns);
    let spectrum = response(filter, columns);
    // The response is real and even: its samples are a sum of cosines.
    let samples: Vec<f64> = (0..columns)
        .map(|n| {
            let middle: f64 = (1..padded / 2)
                .map(|k| 2.0 * spectrum[k] * (2.0 * PI * k as f64 * n as f64 / padded as f64).cos())
                .sum();
            let last = spectrum[padded / 2] * (PI * n as f64).cos();
            (spectrum[0] + middle + last) / padded as f64
        })
        .collect();
    (0..columns)
        .map(|i| row.iter().enumerate().map(|(j, v)| v * samples[i.abs_diff(j)]).sum())
        .collect()
}

/// The horizontal slice of a sinogram `[angle][column]`: `columns`×`columns` values, x along the row, y down the rows,
/// from `-(columns - 1)/2` to `(columns - 1)/2` about the axis.
pub fn backprojector(filter: Filter, sinogram: &[Vec<f64>], angles_deg: &[f64], axis_px: f64) -> Vec<f64> {
    let columns = sinogram.first().map_or(0, Vec::len);
    let half = (columns as f64 - 1.0) / 2.0;
    let mut slice = vec![0.0; columns * columns];
    for (row, angle_deg) in sinogram.iter().zip(angles_deg) {
        let filtered = filter_row(filter, row);
        let at = |column: i64| {
            usize::try_from(column)
                .ok()
                .and_then(|c| filtered.get(c))
                .copied()
                .unwrap_or(0.0)
        };
        let (sin, cos) = angle_deg.to_radians().sin_cos();
        for (index, value) in slice.iter_mut().enumerate() {
            let (x, y) = ((index % columns) as f64 - half, (index / columns) as f64 - half);
            let u = x * cos + y * sin + axis_px;
            let below = u.floor();
            let weight = u - below;
            *value += at(below as i64) * (1.0 - weight) + at(below as i64 + 1) * weight;
        }
    }
    let scale = PI / (2.0 * sinogram.len() as f64);
    slice.iter().map(|value| value * scale).collect()
}
