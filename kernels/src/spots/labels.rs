//! Strong pixels that touch are a spot.

use super::{Spot, SpotConfig};
use frame::Shape;

/// Pixels that touch, added up.
#[derive(Clone, Copy, Default)]
pub(super) struct Grown {
    /// number of them
    pub pixels: u32,
    /// the largest
    pub max: u32,
    /// where the largest is
    pub peak: (u32, u32),
    /// sum, plain and times row and column
    pub sum: u64,
    pub rows: u64,
    pub columns: u64,
}

/// Room for labelling; everything is allocated when it is made.
pub(super) struct Labels {
    /// for each pixel an earlier one of its spot, or itself
    parent: Vec<u32>,
    grown: Vec<Grown>,
    /// for peakfinder8, by the first pixel of those that touch: whether one lies off its panel's edge, and sums
    excess: Vec<(bool, [f64; 3])>,
    found: Vec<(u32, Spot)>,
}

impl Labels {
    pub(super) fn new(pixels_max: usize) -> Self {
        Self {
            parent: Vec::with_capacity(pixels_max),
            grown: Vec::with_capacity(pixels_max),
            excess: Vec::with_capacity(pixels_max),
            found: Vec::with_capacity(pixels_max),
        }
    }

    fn root(&mut self, mut pixel: usize) -> usize {
        while self.parent[pixel] as usize != pixel {
            self.parent[pixel] = self.parent[self.parent[pixel] as usize];
            pixel = self.parent[pixel] as usize;
        }
        pixel
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.parent[one.max(other)] = one.min(other) as u32;
    }

    /// Joins pixels that touch, corners included if `diagonal`, within panels. `listed` are index and value of strong
    /// pixels in the order of the frame.
    fn join_all(&mut self, listed: &[u32], columns: usize, diagonal: bool, panel: Shape) {
        let count = listed.len() / 2;
        let place = |pixel: usize| listed[2 * pixel] as usize;
        let panel_of = |pixel: usize| {
            (
                place(pixel) / columns / panel.rows,
                place(pixel) % columns / panel.columns,
            )
        };
        self.parent.clear();
        let mut above = 0;
        for pixel in 0..count {
            self.parent.push(pixel as u32);
            let (at, column) = (place(pixel), place(pixel) % columns);
            if pixel > 0 && column > 0 && place(pixel - 1) == at - 1 && panel_of(pixel) == panel_of(pixel - 1) {
                self.join(pixel, pixel - 1);
            }
            let wide = usize::from(diagonal);
            // Neighbours in the row above lie from `first` to `last`.
            let first = at as i64 - (columns + wide.min(column)) as i64;
            let last = at as i64 - columns as i64 + wide.min(columns - 1 - column) as i64;
            while above < pixel && (place(above) as i64) < first {
                above += 1;
            }
            let mut neighbour = above;
            while neighbour < pixel && place(neighbour) as i64 <= last {
                if panel_of(pixel) == panel_of(neighbour) {
                    self.join(pixel, neighbour);
                }
                neighbour += 1;
            }
        }
        self.add_up(listed, columns);
    }

    /// Puts the strongest spots into `spots`, strongest first, and returns how many there are in all.
    pub(super) fn spots(&mut self, listed: &[u32], shape: Shape, config: &SpotConfig, spots: &mut Vec<Spot>) -> u64 {
        self.join_all(listed, shape.columns, config.diagonal, shape);
        self.begin();
        for pixel in 0..listed.len() / 2 {
            if self.parent[pixel] as usize == pixel
                && let Some(spot) = finished(&self.grown[pixel], config)
            {
                self.add(spot);
            }
        }
        self.strongest(config, spots)
    }

    /// For peakfinder8: hands on pixels that touch within a panel and do not all lie on its edge, with sums of `excess`
    /// (by index and value), plain and times row and column.
    pub(super) fn candidates(
        &mut self,
        listed: &[u32],
        columns: usize,
        panel: Shape,
        excess: impl Fn(u32, u32) -> f64,
        mut candidate: impl FnMut(Grown, [f64; 3]),
    ) {
        self.join_all(listed, columns, true, panel);
        self.excess.clear();
        self.excess.resize(listed.len() / 2, (false, [0.0; 3]));
        let inner = |place: usize, length: usize| (1..length.saturating_sub(1)).contains(&(place % length));
        for pixel in 0..listed.len() / 2 {
            let (at, value) = (listed[2 * pixel], listed[2 * pixel + 1]);
            let (row, column) = (at as usize / columns, at as usize % columns);
            let root = self.root(pixel);
            let (seeded, sums) = &mut self.excess[root];
            *seeded |= inner(row, panel.rows) && inner(column, panel.columns);
            let above = excess(at, value);
            for (sum, factor) in sums.iter_mut().zip([1.0, row as f64, column as f64]) {
                *sum += above * factor;
            }
        }
        for pixel in 0..listed.len() / 2 {
            let (seeded, sums) = self.excess[pixel];
            if self.parent[pixel] as usize == pixel && seeded {
                candidate(self.grown[pixel], sums);
            }
        }
    }

    /// Begins a frame's spots.
    pub(super) fn begin(&mut self) {
        self.found.clear();
    }

    /// Takes a spot.
    pub(super) fn add(&mut self, spot: Spot) {
        self.found.push((self.found.len() as u32, spot));
    }

    /// The strongest of them, strongest first; returns how many there are in all.
    pub(super) fn strongest(&mut self, config: &SpotConfig, spots: &mut Vec<Spot>) -> u64 {
        self.found
            .sort_unstable_by(|(i, a), (j, b)| b.intensity.total_cmp(&a.intensity).then(i.cmp(j)));
        spots.extend(self.found.iter().take(config.spots_max).map(|(_, spot)| *spot));
        self.found.len() as u64
    }

    fn add_up(&mut self, listed: &[u32], columns: usize) {
        self.grown.clear();
        self.grown.resize(listed.len() / 2, Grown::default());
        for pixel in 0..listed.len() / 2 {
            let (at, value) = (listed[2 * pixel], listed[2 * pixel + 1]);
            let (row, column) = (at / columns as u32, at % columns as u32);
            let root = self.root(pixel);
            let spot = &mut self.grown[root];
            if spot.pixels == 0 || value > spot.max {
                spot.max = value;
                spot.peak = (row, column);
            }
            spot.pixels += 1;
            spot.sum += u64::from(value);
            spot.rows += u64::from(value) * u64::from(row);
            spot.columns += u64::from(value) * u64::from(column);
        }
    }
}

/// The spot, if it is one.
fn finished(spot: &Grown, config: &SpotConfig) -> Option<Spot> {
    let size = spot.pixels as usize;
    if spot.sum == 0 || size < config.min_pixels || size > config.max_pixels {
        return None;
    }
    let (row, column) = (
        spot.rows as f64 / spot.sum as f64,
        spot.columns as f64 / spot.sum as f64,
    );
    let apart = (row - f64::from(spot.peak.0)).hypot(column - f64::from(spot.peak.1));
    (apart <= config.max_separation_px).then_some(Spot {
        row: row as f32,
        column: column as f32,
        intensity: spot.sum as f64,
        max: spot.max,
        pixels: spot.pixels,
    })
}
