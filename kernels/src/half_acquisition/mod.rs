//! Scans of a whole turn with the axis near the detector's edge, which see a sample of nearly twice the detector's width.
//!
//! Each projection is placed on a detector as wide as both halves together and weighted so that a projection and the
//! one half a turn later sum to a whole one: full weight where one of them sees alone, a ramp where both do. The sum over
//! the whole turn is then that of whole projections over half of it, so every method that takes projections one by one
//! takes these.

use crate::backprojector::BLOCK_ROWS;
use crate::invalid::Invalid;

/// The wide detector of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfAcquisition {
    columns: usize,
    wide: usize,
    offset: usize,
    axis_px: f64,
    weights: Vec<f32>,
}

impl HalfAcquisition {
    /// For projections of so many columns with the axis at `axis_px`, on the detector and not in its middle.
    pub fn new(columns: usize, axis_px: f64) -> Result<Self, Invalid> {
        let last = columns.saturating_sub(1) as f64;
        let fits = columns >= 8 && (0.0..=last).contains(&axis_px);
        Invalid::unless(
            fits,
            "rotation_axis_px",
            axis_px,
            "on the detector for a half acquisition",
        )?;
        let left = axis_px < last / 2.0;
        // What the near side sees, both halves see.
        let near = if left { axis_px } else { last - axis_px };
        let far = last - near;
        Invalid::unless(
            near >= 1.0,
            "rotation_axis_px",
            axis_px,
            "at least a column from the detector's edge",
        )?;
        let wide = columns + (far - near).ceil() as usize;
        let offset = if left { wide - columns } else { 0 };
        let weight = |column: usize| {
            let away = if left {
                column as f64 - axis_px
            } else {
                axis_px - column as f64
            };
            // From 0 at the near edge over 1/2 at the axis to 1; twice, as half of the projections make a whole.
            2.0 * (0.5 + 0.5 * away / (near + 0.5)).clamp(0.0, 1.0)
        };
        Ok(Self {
            columns,
            wide,
            offset,
            axis_px: axis_px + offset as f64,
            weights: (0..columns).map(|column| weight(column) as f32).collect(),
        })
    }

    /// Columns of the wide detector.
    pub fn wide_columns(&self) -> usize {
        self.wide
    }

    /// Column of the axis on the wide detector.
    pub fn wide_axis_px(&self) -> f64 {
        self.axis_px
    }

    /// Places projections of line integrals, rows of `columns`, on the wide detector, rows of [`Self::wide_columns`].
    pub fn place(&self, rows: &[f32], out: &mut [f32]) -> Result<(), Invalid> {
        let count = rows.len().div_ceil(self.columns);
        Invalid::expect_len("the projection's number of values", rows.len(), count * self.columns)?;
        Invalid::expect_len("the wide projection's number of values", out.len(), count * self.wide)?;
        for (row, out) in rows.chunks_exact(self.columns).zip(out.chunks_exact_mut(self.wide)) {
            out.fill(0.0);
            let places = out[self.offset..].iter_mut().zip(row.iter().zip(&self.weights));
            places.for_each(|(place, (value, weight))| *place = weight * value);
        }
        Ok(())
    }

    /// The same for `[projection][column][16 rows]`, as slabs have them.
    pub fn place_slab(&self, slab: &[f32], out: &mut [f32]) -> Result<(), Invalid> {
        let size = self.columns * BLOCK_ROWS;
        let count = slab.len().div_ceil(size);
        Invalid::expect_len("the slab's number of values", slab.len(), count * size)?;
        Invalid::expect_len(
            "the wide slab's number of values",
            out.len(),
            count * self.wide * BLOCK_ROWS,
        )?;
        let wide = out.chunks_exact_mut(self.wide * BLOCK_ROWS);
        for (projection, out) in slab.chunks_exact(size).zip(wide) {
            out.fill(0.0);
            let places = out[self.offset * BLOCK_ROWS..].chunks_exact_mut(BLOCK_ROWS);
            let values = projection.chunks_exact(BLOCK_ROWS).zip(&self.weights);
            for (places, (values, weight)) in places.zip(values) {
                places
                    .iter_mut()
                    .zip(values)
                    .for_each(|(place, value)| *place = weight * value);
            }
        }
        Ok(())
    }

    /// Puts a whole turn's sinogram `[angle][column]`, an even number of angles evenly apart, together to one of half a
    /// turn, `[angle / 2][wide column]`: for methods that want whole projections. The second half is mirrored about the axis by
    /// linear interpolation.
    pub fn stitch(&self, sinogram: &[f32]) -> Result<Vec<f32>, Invalid> {
        let angles = sinogram.len() / self.columns;
        let half = angles / 2;
        Invalid::expect_len(
            "the sinogram's number of values",
            sinogram.len(),
            2 * half * self.columns,
        )?;
        let mut out = vec![0.0; half * self.wide];
        let (first, second) = sinogram.split_at(half * self.columns);
        self.place(first, &mut out)?;
        let mut mirrored = vec![0.0; half * self.wide];
        self.place(second, &mut mirrored)?;
        for (row, back) in out.chunks_exact_mut(self.wide).zip(mirrored.chunks_exact(self.wide)) {
            for (column, place) in row.iter_mut().enumerate() {
                let from = 2.0 * self.axis_px - column as f64;
                let below = from.floor();
                let share = (from - below) as f32;
                let at = |column: f64| {
                    if column < 0.0 {
                        0.0
                    } else {
                        back.get(column as usize).copied().unwrap_or(0.0)
                    }
                };
                *place = 0.5 * (*place + at(below) * (1.0 - share) + at(below + 1.0) * share);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
