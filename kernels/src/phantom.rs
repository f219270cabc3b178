//! The Shepp-Logan phantom of this crate's tests: exact line integrals, its picture, and what a slice is worth.

use std::f64::consts::PI;

/// Ellipses (Kak & Slaney 1988, table 3.1, with unit contrast): value, half axes, middle, turned by degrees.
const ELLIPSES: [[f64; 6]; 10] = [
    [1.0, 0.69, 0.92, 0.0, 0.0, 0.0],
    [-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0],
    [-0.2, 0.11, 0.31, 0.22, 0.0, -18.0],
    [-0.2, 0.16, 0.41, -0.22, 0.0, 18.0],
    [0.1, 0.21, 0.25, 0.0, 0.35, 0.0],
    [0.1, 0.046, 0.046, 0.0, 0.1, 0.0],
    [0.1, 0.046, 0.046, 0.0, -0.1, 0.0],
    [0.1, 0.046, 0.023, -0.08, -0.605, 0.0],
    [0.1, 0.023, 0.023, 0.0, -0.606, 0.0],
    [0.1, 0.023, 0.046, 0.06, -0.605, 0.0],
];

/// Pixels from the middle to the phantom's edge.
fn radius(columns: usize) -> f64 {
    0.45 * columns as f64
}

/// Line integrals in pixels, `[angle][column]`, each the mean of `samples` across its column.
pub(crate) fn sinogram(columns: usize, axis_px: f64, angles_deg: &[f64], samples: usize) -> Vec<Vec<f64>> {
    let radius = radius(columns);
    let line = |angle_deg: f64, t: f64| -> f64 {
        let angle = angle_deg * PI / 180.0;
        let one = |[value, a, b, x, y, turned]: &[f64; 6]| {
            let own = angle - turned * PI / 180.0;
            let s2 = (a * own.cos()).powi(2) + (b * own.sin()).powi(2);
            let t = t / radius - x * angle.cos() - y * angle.sin();
            2.0 * value * a * b * (s2 - t * t).max(0.0).sqrt() / s2
        };
        radius * ELLIPSES.iter().map(one).sum::<f64>()
    };
    let at = |angle: f64, column: usize| {
        let offset = |k: usize| (k as f64 + 0.5) / samples as f64 - 0.5;
        let sum: f64 = (0..samples)
            .map(|k| line(angle, column as f64 + offset(k) - axis_px))
            .sum();
        sum / samples as f64
    };
    let row = |angle: &f64| (0..columns).map(|column| at(*angle, column)).collect();
    angles_deg.iter().map(row).collect()
}

/// The picture, each pixel the mean of 8×8 points, with the axis in its middle.
pub(crate) fn shepp_logan(columns: usize) -> Vec<f64> {
    let (radius, half) = (radius(columns), (columns as f64 - 1.0) / 2.0);
    let point = |x: f64, y: f64| -> f64 {
        let one = |[value, a, b, ex, ey, turned]: &[f64; 6]| {
            let (sin, cos) = (turned * PI / 180.0).sin_cos();
            let (dx, dy) = (x / radius - ex, y / radius - ey);
            let (u, v) = (dx * cos + dy * sin, dy * cos - dx * sin);
            if (u / a).powi(2) + (v / b).powi(2) <= 1.0 {
                *value
            } else {
                0.0
            }
        };
        ELLIPSES.iter().map(one).sum()
    };
    let offset = |k: usize| (k as f64 + 0.5) / 8.0 - 0.5;
    (0..columns * columns)
        .map(|i| {
            let (x, y) = ((i % columns) as f64 - half, (i / columns) as f64 - half);
            (0..64)
                .map(|k| point(x + offset(k % 8), y + offset(k / 8)))
                .sum::<f64>()
                / 64.0
        })
        .collect()
}

/// Whether a pixel lies within the circle that every projection sees.
pub(crate) fn inside(index: usize, columns: usize) -> bool {
    let half = (columns as f64 - 1.0) / 2.0;
    ((index % columns) as f64 - half).hypot((index / columns) as f64 - half) <= 0.96 * half
}

/// Peak signal to noise within the circle, dB; the peak is the truth's range.
pub(crate) fn psnr(found: &[f64], truth: &[f64], columns: usize) -> f64 {
    let (low, high) = truth
        .iter()
        .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let places = (0..found.len()).filter(|i| inside(*i, columns));
    let sum: f64 = places.clone().map(|i| (found[i] - truth[i]).powi(2)).sum();
    20.0 * ((high - low) / (sum / places.count() as f64).sqrt()).log10()
}
