//! Strong pixels that touch are a spot.

use super::{Spot, SpotConfig};

/// A spot while its pixels are added.
#[derive(Clone, Copy, Default)]
struct Growing {
    pixels: u32,
    max: u32,
    /// where the largest pixel is
    peak: (u32, u32),
    sum: u64,
    rows: u64,
    columns: u64,
}

/// Room for labelling; everything is allocated when it is made.
pub(super) struct Labels {
    /// for each pixel an earlier one of its spot, or itself
    parent: Vec<u32>,
    growing: Vec<Growing>,
    found: Vec<(u32, Spot)>,
}

impl Labels {
    pub(super) fn new(pixels_max: usize) -> Self {
        Self {
            parent: Vec::with_capacity(pixels_max),
            growing: Vec::with_capacity(pixels_max),
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

    /// Puts the strongest spots into `spots`, strongest first, and returns how many there are in all. `listed` are
    /// index and value of strong pixels in the order of the frame.
    pub(super) fn spots(&mut self, listed: &[u32], columns: usize, config: &SpotConfig, spots: &mut Vec<Spot>) -> u64 {
        let count = listed.len() / 2;
        let place = |pixel: usize| listed[2 * pixel] as usize;
        self.parent.clear();
        let mut above = 0;
        for pixel in 0..count {
            self.parent.push(pixel as u32);
            let (at, column) = (place(pixel), place(pixel) % columns);
            if pixel > 0 && column > 0 && place(pixel - 1) == at - 1 {
                self.join(pixel, pixel - 1);
            }
            let wide = usize::from(config.diagonal);
            // Neighbours in the row above lie from `first` to `last`.
            let first = at as i64 - (columns + wide.min(column)) as i64;
            let last = at as i64 - columns as i64 + wide.min(columns - 1 - column) as i64;
            while above < pixel && (place(above) as i64) < first {
                above += 1;
            }
            let mut neighbour = above;
            while neighbour < pixel && place(neighbour) as i64 <= last {
                self.join(pixel, neighbour);
                neighbour += 1;
            }
        }
        self.add_up(listed, columns);
        self.found.clear();
        for pixel in 0..count {
            let spot = &self.growing[pixel];
            if self.parent[pixel] as usize == pixel
                && let Some(spot) = finished(spot, config)
            {
                self.found.push((pixel as u32, spot));
            }
        }
        self.found
            .sort_unstable_by(|(i, a), (j, b)| b.intensity.total_cmp(&a.intensity).then(i.cmp(j)));
        spots.extend(self.found.iter().take(config.spots_max).map(|(_, spot)| *spot));
        self.found.len() as u64
    }

    fn add_up(&mut self, listed: &[u32], columns: usize) {
        self.growing.clear();
        self.growing.resize(listed.len() / 2, Growing::default());
        for pixel in 0..listed.len() / 2 {
            let (at, value) = (listed[2 * pixel], listed[2 * pixel + 1]);
            let (row, column) = (at / columns as u32, at % columns as u32);
            let root = self.root(pixel);
            let spot = &mut self.growing[root];
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
fn finished(spot: &Growing, config: &SpotConfig) -> Option<Spot> {
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
