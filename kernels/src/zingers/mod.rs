//! Zingers: pixels that a cosmic ray or a scattered photon struck, far brighter than those around them.
//!
//! Two ways to find them. Against the mean of eight pixels at a distance (Vo, Atwood, Drakopoulos & Connolley 2021, Optics
//! Express 29, 17849, section 3.1.2): `value / mean - 1 > threshold`. Against the median of the 3×3
//! around them: `value - median > threshold`. Edges are mirrored; only what was found is changed.

use crate::image::mirrored;
use crate::invalid::Invalid;

/// How zingers are found.
#[derive(Clone, Debug, PartialEq)]
pub enum ZingerMethod {
    /// brighter than the mean of eight pixels `size` away by more than this share of it
    Mean {
        /// 0.05 to 0.1 as a rule
        threshold: f64,
        /// size of a zinger in pixels
        size: usize,
    },
    /// above the median of the 3×3 pixels around by more than this
    Median {
        /// in the values' own unit
        threshold: f64,
    },
}

/// Removes zingers from images of one size; everything is allocated when it is made.
pub struct Zingers {
    method: ZingerMethod,
    rows: usize,
    columns: usize,
    copy: Vec<f32>,
}

impl Zingers {
    /// Prepares for images of `rows`×`columns`: projections (transmissions or counts) or sinograms.
    pub fn new(method: &ZingerMethod, rows: usize, columns: usize) -> Result<Self, Invalid> {
        let (threshold, size) = match *method {
            ZingerMethod::Mean { threshold, size } => (threshold, size),
            ZingerMethod::Median { threshold } => (threshold, 1),
        };
        let fits = threshold > 0.0 && threshold.is_finite();
        Invalid::unless(fits, "the zingers' threshold", threshold, "above 0")?;
        Invalid::unless((1..=64).contains(&size), "the zingers' size", size, "1 to 64 pixels")?;
        let shape = format!("{rows}x{columns}");
        Invalid::unless(rows > 0 && columns > 0, "the image's size", shape, "at least 1x1")?;
        Ok(Self {
            method: method.clone(),
            rows,
            columns,
            copy: vec![0.0; rows * columns],
        })
    }

    /// Changes one image in place and says how many pixels were replaced. What is not a number stays.
    pub fn run(&mut self, image: &mut [f32]) -> Result<usize, Invalid> {
        Invalid::expect_len("the image's number of pixels", image.len(), self.copy.len())?;
        self.copy.copy_from_slice(image);
        let mut replaced = 0;
        for (row, line) in image.chunks_exact_mut(self.columns).enumerate() {
            for (column, value) in line.iter_mut().enumerate() {
                let expected = match self.method {
                    ZingerMethod::Mean { threshold, size } => {
                        let mean = self.mean(row, column, size);
                        let struck = f64::from(*value) / f64::from(mean) - 1.0 > threshold;
                        struck.then_some(mean)
                    }
                    ZingerMethod::Median { threshold } => {
                        let median = self.median(row, column);
                        (f64::from(*value) - f64::from(median) > threshold).then_some(median)
                    }
                };
                if let Some(expected) = expected {
                    *value = expected;
                    replaced += 1;
                }
            }
        }
        Ok(replaced)
    }

    fn mean(&self, row: usize, column: usize, size: usize) -> f32 {
        let (rows, columns) = (self.rows, self.columns);
        let around = |place: usize, length: usize| {
            let (place, size) = (place as isize, size as isize);
            [place - size, place, place + size].map(|place| mirrored(place, length))
        };
        let mut sum = 0.0;
        for (i, y) in around(row, rows).into_iter().enumerate() {
            for (j, x) in around(column, columns).into_iter().enumerate() {
                if (i, j) != (1, 1) {
                    sum += f64::from(self.copy[y * columns + x]);
                }
            }
        }
        let mean = (sum / 8.0) as f32;
        if mean == 0.0 { 1.0 } else { mean }
    }

    fn median(&self, row: usize, column: usize) -> f32 {
        let mut window = [0.0; 9];
        for (index, place) in window.iter_mut().enumerate() {
            let y = mirrored(row as isize + index as isize / 3 - 1, self.rows);
            let x = mirrored(column as isize + index as isize % 3 - 1, self.columns);
            *place = self.copy[y * self.columns + x];
        }
        *window.select_nth_unstable_by(4, f32::total_cmp).1
    }
}

#[cfg(test)]
mod tests;
