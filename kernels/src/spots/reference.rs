//! The same in plain f64: thresholds in the order of DIALS's operations, and peakfinder8.

use super::{Spot, SpotAlgorithm, SpotConfig};
use frame::Shape;

/// Largest pixel that takes part in its neighbours' statistics, plus one.
const BIG: f64 = (1u32 << 24) as f64;

/// A frame and which of its pixels may be used, both row by row.
pub struct Picture<'a> {
    /// shape
    pub shape: Shape,
    /// counts
    pub values: &'a [f64],
    /// whether a pixel may be used
    pub valid: &'a [bool],
}

/// Number, sum and sum of squares.
#[derive(Clone, Copy, Default)]
struct Sums {
    m: f64,
    x: f64,
    y: f64,
}

impl Picture<'_> {
    fn sums(&self, row: usize, column: usize, radius: usize, used: impl Fn(usize) -> bool) -> Sums {
        let mut sums = Sums::default();
        for r in row.saturating_sub(radius)..(row + radius + 1).min(self.shape.rows) {
            for c in column.saturating_sub(radius)..(column + radius + 1).min(self.shape.columns) {
                let index = r * self.shape.columns + c;
                let value = self.values[index];
                if used(index) && value < BIG {
                    sums.m += 1.0;
                    sums.x += value;
                    sums.y += value * value;
                }
            }
        }
        sums
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let columns = self.shape.columns;
        (0..self.shape.pixels()).map(move |index| (index, index / columns, index % columns))
    }
}

/// What goes with `m` pixels in a box.
pub(super) fn box_factor(config: &SpotConfig, m: f64) -> f64 {
    let root = (2.0 * (m - 1.0).max(0.0)).sqrt();
    if config.gain == 1.0 {
        root
    } else {
        m - 1.0 + config.background_sigmas * root
    }
}

fn dispersed(config: &SpotConfig, s: Sums) -> bool {
    if s.m < config.min_count as f64 {
        return false;
    }
    if config.gain == 1.0 {
        let excess = s.m * s.y - s.x * s.x - s.x * (s.m - 1.0);
        excess > s.x * config.background_sigmas * box_factor(config, s.m)
    } else {
        let excess = s.m * s.y - s.x * s.x;
        excess > config.gain * s.x * box_factor(config, s.m)
    }
}

/// Strong pixels, row by row.
pub fn strong(config: &SpotConfig, picture: &Picture<'_>) -> Vec<bool> {
    match config.algorithm {
        SpotAlgorithm::Dispersion => dispersion(config, picture),
        SpotAlgorithm::DispersionExtended => extended(config, picture),
        SpotAlgorithm::Peakfinder8 => {
            let limits = ring_limits(config, picture);
            let above = |(index, _, _): (usize, usize, usize)| above_ring(config, picture, &limits, index);
            picture.places().map(above).collect()
        }
    }
}

fn dispersion(config: &SpotConfig, picture: &Picture<'_>) -> Vec<bool> {
    let strong = |(index, row, column): (usize, usize, usize)| {
        let value = picture.values[index];
        if !picture.valid[index] || value <= config.threshold {
            return false;
        }
        let s = picture.sums(row, column, config.radius, |index| picture.valid[index]);
        let bound = config.strong_sigmas * (config.gain * s.x * s.m).sqrt();
        s.m * value - s.x > bound && dispersed(config, s)
    };
    picture.places().map(strong).collect()
}

fn extended(config: &SpotConfig, picture: &Picture<'_>) -> Vec<bool> {
    let (shape, valid) = (picture.shape, picture.valid);
    let foreground: Vec<bool> = picture
        .places()
        .map(|(index, row, column)| {
            let sums = || picture.sums(row, column, config.radius, |index| valid[index]);
            valid[index] && dispersed(config, sums())
        })
        .collect();
    // No background nearer than the box's half width; what is not valid is background, as in DIALS 3.12.
    let near = config.radius - 1;
    let core: Vec<bool> = picture
        .places()
        .map(|(_, row, column)| {
            let mut rows = row.saturating_sub(near)..(row + near + 1).min(shape.rows);
            let columns = column.saturating_sub(near)..(column + near + 1).min(shape.columns);
            rows.all(|r| columns.clone().all(|c| foreground[r * shape.columns + c]))
        })
        .collect();
    let strong = |(index, row, column): (usize, usize, usize)| {
        let value = picture.values[index];
        if !core[index] || value <= config.threshold {
            return false;
        }
        let s = picture.sums(row, column, config.radius + 2, |index| valid[index] && !core[index]);
        let mean = if s.m >= 2.0 { s.x / s.m } else { 0.0 };
        value >= mean + config.strong_sigmas * (config.gain * mean).sqrt()
    };
    picture.places().map(strong).collect()
}

/// Per ring the value that a pixel must exceed, and the mean.
fn ring_limits(config: &SpotConfig, picture: &Picture<'_>) -> Vec<(f64, f64)> {
    let rings = config.rings.iter().max().map_or(0, |last| usize::from(*last) + 1);
    let mut bounds = vec![(1e9, -1e9, 0.0); rings];
    for _ in 0..5 {
        let mut sums = vec![Sums::default(); rings];
        for (index, value) in picture.values.iter().enumerate() {
            let ring = usize::from(config.rings[index]);
            if picture.valid[index] && *value < BIG && *value < bounds[ring].0 && *value > bounds[ring].1 {
                sums[ring].m += 1.0;
                sums[ring].x += value;
                sums[ring].y += value * value;
            }
        }
        for (bound, s) in bounds.iter_mut().zip(sums) {
            let mean = s.x / s.m;
            let reach = config.strong_sigmas * (s.y / s.m - mean * mean).max(0.0).sqrt();
            *bound = match s.m > 0.0 {
                true => ((mean + reach).max(config.threshold), mean - reach, mean),
                // As in the original: a ring that has lost all its pixels gets its positive ones back.
                false => (f64::from(f32::MAX), f64::from(f32::MIN_POSITIVE), 0.0),
            };
        }
    }
    // Means as the device hands them on, so that both see the same places half-way between pixels.
    bounds
        .iter()
        .map(|(above, _, mean)| (*above, f64::from(*mean as f32)))
        .collect()
}

fn above_ring(config: &SpotConfig, picture: &Picture<'_>, limits: &[(f64, f64)], index: usize) -> bool {
    picture.valid[index] && picture.values[index] > limits[usize::from(config.rings[index])].0
}

/// Peaks by peakfinder8, in the order of the frame.
pub fn peaks(config: &SpotConfig, picture: &Picture<'_>) -> Vec<Spot> {
    let limits = ring_limits(config, picture);
    let panel = super::rings::panel(config, picture.shape);
    let columns = picture.shape.columns;
    let mut seen = vec![false; picture.values.len()];
    let (mut spots, mut pixels) = (Vec::new(), Vec::new());
    for (start, row, column) in picture.places() {
        let edge = |place: usize, length: usize| place.is_multiple_of(length) || place % length == length - 1;
        let free = |seen: &[bool], index: usize| !seen[index] && above_ring(config, picture, &limits, index);
        if !free(&seen, start) || edge(row, panel.rows) || edge(column, panel.columns) {
            continue;
        }
        let (top, left) = (row / panel.rows * panel.rows, column / panel.columns * panel.columns);
        let inside =
            |r: usize, c: usize| (top..top + panel.rows).contains(&r) && (left..left + panel.columns).contains(&c);
        pixels.clear();
        pixels.push(start);
        seen[start] = true;
        let mut at = 0;
        while at < pixels.len() {
            let (r, c) = (pixels[at] / columns, pixels[at] % columns);
            for (r, c) in (r.saturating_sub(1)..r + 2).flat_map(|r| (c.saturating_sub(1)..c + 2).map(move |c| (r, c))) {
                if inside(r, c) && free(&seen, r * columns + c) {
                    seen[r * columns + c] = true;
                    pixels.push(r * columns + c);
                }
            }
            at += 1;
        }
        if !(config.min_pixels..=config.max_pixels).contains(&pixels.len()) {
            continue;
        }
        let weighted = |background: &dyn Fn(usize) -> f64| {
            pixels.iter().fold([0.0; 3], |[sum, rows, columns_], index| {
                let value = picture.values[*index] - background(*index);
                let (r, c) = ((index / columns) as f64, (index % columns) as f64);
                [sum + value, rows + value * r, columns_ + value * c]
            })
        };
        let [sum, rows, across] = weighted(&|index| limits[usize::from(config.rings[index])].1);
        if sum.abs() < 1e-10 {
            continue;
        }
        let middle = (
            (rows / sum.abs()).round_ties_even(),
            (across / sum.abs()).round_ties_even(),
        );
        let reach = 2.0 * config.background_radius as f64;
        let (mut s, mut largest) = (Sums::default(), 0.0f64);
        for (index, r, c) in picture.places() {
            let apart = (r as f64 - middle.0, c as f64 - middle.1);
            let near = apart.0 < reach && apart.1 < reach && apart.0.hypot(apart.1) <= reach;
            let value = picture.values[index];
            let ring = usize::from(config.rings[index]);
            if near && inside(r, c) && picture.valid[index] && value < BIG && value < limits[ring].0 {
                s.m += 1.0;
                s.x += value;
                s.y += value * value;
                largest = largest.max(value);
            }
        }
        let (offset, sigma) = if s.m > 0.0 {
            let mean = s.x / s.m;
            (mean, (s.y / s.m - mean * mean).max(0.0).sqrt())
        } else {
            let index = middle.0 as usize * columns + middle.1 as usize;
            (limits[usize::from(config.rings[index])].1, 0.01)
        };
        let [total, rows, across] = weighted(&|_| 0.0);
        let intensity = total - pixels.len() as f64 * offset;
        let max = pixels.iter().fold(0.0f64, |max, index| max.max(picture.values[*index]));
        let snr = if sigma > 1e-10 { intensity / sigma } else { 0.0 };
        let (row, column) = (rows / total, across / total);
        let within =
            |place: f64, first: usize, length: usize| place >= first as f64 && place <= (first + length - 1) as f64;
        if snr >= config.strong_sigmas
            && (max - offset).max(0.0) >= largest - offset
            && within(row, top, panel.rows)
            && within(column, left, panel.columns)
        {
            spots.push(Spot {
                row: row as f32,
                column: column as f32,
                intensity,
                max: max as u32,
                pixels: pixels.len() as u32,
            });
        }
    }
    spots
}
