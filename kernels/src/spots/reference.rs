//! The same in plain f64, in the order of DIALS's operations.

use super::{SpotAlgorithm, SpotConfig};
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
