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
    /// For projections of so many columns with the axis at `axis_px`, on the detector and not in its middle: as wide as both
    /// halves together.
    pub fn new(columns: usize, axis_px: f64) -> Result<Self, Invalid> {
        Self::within(columns, axis_px, Self::columns_needed(columns, axis_px))
    }

    /// Columns of the wide detector for this axis.
    pub fn columns_needed(columns: usize, axis_px: f64) -> usize {
        let last = columns.saturating_sub(1) as f64;
        // What the far side has more than the near one.
        columns + (last - 2.0 * axis_px.min(last - axis_px)).max(0.0).ceil() as usize
    }

    /// The same on a detector of `wide` columns, which may be more: so wide that the axis may move.
    pub fn within(columns: usize, axis_px: f64, wide: usize) -> Result<Self, Invalid> {
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
        Invalid::unless(
            near >= 1.0,
            "rotation_axis_px",
            axis_px,
            "at least a column from the detector's edge",
        )?;
        let needed = Self::columns_needed(columns, axis_px);
        Invalid::unless(wide >= needed, "columns", wide, "as wide as both halves together")?;
        // In the middle of what is wider than needed.
        let beside = (wide - needed) / 2;
        let offset = if left { needed - columns + beside } else { beside };
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
}

/// A projection of a whole turn at an angle: between two, `share` of the second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Between {
    first: usize,
    second: usize,
    share: f32,
}

/// How projections of a whole turn make those of half a turn that are whole, for methods that want these: each is put
/// together with the one half a turn later, mirrored about the axis by linear interpolation. One that is missing, or that
/// no other lies opposite to, is interpolated between its neighbours in angle.
#[derive(Clone, Debug, PartialEq)]
pub struct Stitching {
    half: HalfAcquisition,
    projections: usize,
    angles_deg: Vec<f64>,
    parts: Vec<[Between; 2]>,
}

/// Share of a step by which a projection may lie beside the angle that is wanted.
const SAME: f64 = 1e-3;
/// Share of a step from which a projection of the second half has no partner in the first.
const ALONE: f64 = 0.75;

impl Stitching {
    /// For projections at these angles, in any order, which go once round.
    pub fn new(half: HalfAcquisition, angles_deg: &[f64]) -> Result<Self, Invalid> {
        let finite = angles_deg.iter().all(|angle| angle.is_finite());
        let count = angles_deg.len();
        Invalid::unless(
            finite && count >= 4,
            "projections",
            count,
            "at least 4, each with its angle",
        )?;
        let start = angles_deg.iter().copied().fold(f64::INFINITY, f64::min);
        let mut order: Vec<(f64, usize)> = angles_deg
            .iter()
            .enumerate()
            .map(|(number, angle)| ((angle - start).rem_euclid(360.0), number))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let step = 360.0 / count as f64;
        let at = |angle: f64| -> Between {
            let above = order.partition_point(|(other, _)| *other <= angle);
            let below = above
                .checked_sub(1)
                .map_or((order[count - 1].0 - 360.0, order[count - 1].1), |i| order[i]);
            let above = order.get(above).copied().unwrap_or((order[0].0 + 360.0, order[0].1));
            let share = if above.0 > below.0 {
                (angle - below.0) / (above.0 - below.0)
            } else {
                0.0
            };
            // An angle that is there is taken as it is.
            let share = if angle - below.0 <= SAME * step {
                0.0
            } else if above.0 - angle <= SAME * step {
                1.0
            } else {
                share
            };
            Between {
                first: below.1,
                second: above.1,
                share: share as f32,
            }
        };
        // What rounds to just below half a turn is the other half's.
        let turn = 180.0 - SAME * step;
        let (first, second): (Vec<f64>, Vec<f64>) =
            order.iter().map(|(angle, _)| *angle).partition(|angle| *angle < turn);
        let opposite = second.iter().map(|angle| (angle - 180.0).max(0.0));
        let alone = opposite.filter(|angle| {
            let above = first.partition_point(|other| other < angle);
            let near = first.iter().skip(above.saturating_sub(1)).take(2);
            near.map(|other| (other - angle).abs()).fold(f64::INFINITY, f64::min) > ALONE * step
        });
        let mut angles: Vec<f64> = alone.chain(first.iter().copied()).collect();
        angles.sort_by(f64::total_cmp);
        angles.dedup();
        Ok(Self {
            half,
            projections: count,
            parts: angles
                .iter()
                .map(|angle| [at(*angle), at((angle + 180.0).rem_euclid(360.0))])
                .collect(),
            angles_deg: angles.iter().map(|angle| angle + start).collect(),
        })
    }

    /// Angles of the projections that it makes, degrees.
    pub fn angles_deg(&self) -> &[f64] {
        &self.angles_deg
    }

    /// Stitches `[projection][column][16 rows]` to `[angle][wide column][16 rows]`.
    pub fn stitch_slab(&self, slab: &[f32], out: &mut [f32]) -> Result<(), Invalid> {
        self.stitch_lanes::<BLOCK_ROWS>(slab, out)
    }

    /// Stitches one row, `[projection][column]` to `[angle][wide column]`.
    pub fn stitch(&self, sinogram: &[f32], out: &mut [f32]) -> Result<(), Invalid> {
        self.stitch_lanes::<1>(sinogram, out)
    }

    fn stitch_lanes<const LANES: usize>(&self, values: &[f32], out: &mut [f32]) -> Result<(), Invalid> {
        let (columns, wide, offset) = (self.half.columns, self.half.wide, self.half.offset);
        let expected = self.projections * columns * LANES;
        Invalid::expect_len("the projections' number of values", values.len(), expected)?;
        let expected = self.parts.len() * wide * LANES;
        Invalid::expect_len("the stitched projections' number of values", out.len(), expected)?;
        // Half of a projection's weighted value at a column of the wide detector, each lane's.
        let value = |part: &Between, column: f64, lane: usize| -> f32 {
            let column = column - offset as f64;
            if !(0.0..columns as f64).contains(&column) {
                return 0.0;
            }
            let column = column as usize;
            let at = |number: usize| values[(number * columns + column) * LANES + lane];
            0.5 * self.half.weights[column] * (at(part.first) * (1.0 - part.share) + at(part.second) * part.share)
        };
        for ([front, back], out) in self.parts.iter().zip(out.chunks_exact_mut(wide * LANES)) {
            for (column, places) in out.chunks_exact_mut(LANES).enumerate() {
                let mirrored = 2.0 * self.half.axis_px - column as f64;
                let below = mirrored.floor();
                let share = (mirrored - below) as f32;
                for (lane, place) in places.iter_mut().enumerate() {
                    let behind = value(back, below, lane) * (1.0 - share) + value(back, below + 1.0, lane) * share;
                    *place = value(front, column as f64, lane) + behind;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
