//! Masked pixels of a projection take the values around them: left empty, each would draw a ring in every slice.

use frame::{PixelMask, Shape};

/// A pixel and what it takes.
struct Filled {
    pixel: usize,
    /// valid pixels around it
    from: [usize; 4],
    /// share of each, which sum up to 1
    shares: [f32; 4],
}

/// The masked pixels of a detector.
pub(super) struct BadPixels {
    near: Vec<Filled>,
    /// pixels with no valid one near enough, and the nearest one in their row, where there is any
    far: Vec<(usize, Option<usize>)>,
}

impl BadPixels {
    /// A masked pixel takes the mean of the next valid ones to either side, above and below, each by one over its distance,
    /// where they are at most `reach_px` away.
    pub(super) fn new(mask: &PixelMask, reach_px: usize) -> Self {
        let Shape { rows, columns } = mask.shape();
        let valid: Vec<bool> = (0..rows * columns).map(|pixel| !mask.rejects(pixel)).collect();
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for pixel in (0..valid.len()).filter(|pixel| !valid[*pixel]) {
            let (row, column) = (pixel / columns, pixel % columns);
            let mut filled = Filled {
                pixel,
                from: [pixel; 4],
                shares: [0.0; 4],
            };
            let ways: [(isize, usize); 4] = [
                (-1, column),
                (1, columns - 1 - column),
                (-(columns as isize), row),
                (columns as isize, rows - 1 - row),
            ];
            for (place, (step, room)) in ways.into_iter().enumerate() {
                let at = |distance: usize| pixel.wrapping_add_signed(step * distance as isize);
                if let Some(distance) = (1..=room.min(reach_px)).find(|distance| valid[at(*distance)]) {
                    (filled.from[place], filled.shares[place]) = (at(distance), 1.0 / distance as f32);
                }
            }
            let sum: f32 = filled.shares.iter().sum();
            if sum > 0.0 {
                filled.shares.iter_mut().for_each(|share| *share /= sum);
                near.push(filled);
            } else {
                let line = row * columns..(row + 1) * columns;
                far.push((pixel, line.filter(|at| valid[*at]).min_by_key(|at| at.abs_diff(pixel))));
            }
        }
        Self { near, far }
    }

    pub(super) fn any(&self) -> bool {
        !self.near.is_empty() || !self.far.is_empty()
    }

    /// Fills what has valid neighbours. Allocates nothing.
    pub(super) fn fill(&self, projection: &mut [f32]) {
        for Filled { pixel, from, shares } in &self.near {
            projection[*pixel] = from.iter().zip(shares).map(|(at, share)| projection[*at] * share).sum();
        }
    }

    /// Fills the others for what compares a pixel with those around it; [`Self::empty_far`] takes that back.
    pub(super) fn fill_far(&self, projection: &mut [f32]) {
        for (pixel, from) in &self.far {
            if let Some(from) = from {
                projection[*pixel] = projection[*from];
            }
        }
    }

    /// Gives `empty` to the pixels that have no valid one near enough.
    pub(super) fn empty_far(&self, projection: &mut [f32], empty: f32) {
        self.far.iter().for_each(|(pixel, _)| projection[*pixel] = empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_takes_what_is_around_it_and_a_field_stays_empty() {
        let (rows, columns) = (9, 12);
        let mut mask = PixelMask::none(Shape::new(rows, columns));
        let bits = mask.bits_mut();
        // A column, a corner, and a field that only its border reaches into.
        (0..rows).for_each(|row| bits[row * columns + 2] = 2);
        bits[rows * columns - 1] = 1;
        (2..7).for_each(|row| (5..10).for_each(|column| bits[row * columns + column] = 1));
        let bad = BadPixels::new(&mask, 1);
        let plane = |pixel: usize| (pixel / columns) as f32 * 10.0 + (pixel % columns) as f32;
        let valid = |pixel: usize| !mask.rejects(pixel);
        let mut values: Vec<f32> = (0..rows * columns)
            .map(|p| if valid(p) { plane(p) } else { -1.0 })
            .collect();
        bad.fill(&mut values);
        (0..rows).for_each(|row| assert_eq!(values[row * columns + 2], plane(row * columns + 2)));
        // Its left and upper neighbours, an equal share each.
        assert_eq!(values[rows * columns - 1], (plane(107 - 1) + plane(107 - 12)) / 2.0);
        assert_eq!(values[4 * columns + 5], plane(4 * columns + 4));
        assert_eq!(values[4 * columns + 7], -1.0);
        bad.fill_far(&mut values);
        assert_eq!(values[4 * columns + 7], plane(4 * columns + 4));
        bad.empty_far(&mut values, 1.0);
        assert_eq!(values[4 * columns + 7], 1.0);
        assert!((0..rows * columns).all(|pixel| !valid(pixel) || values[pixel] == plane(pixel)));
        assert!(bad.any() && !BadPixels::new(&PixelMask::none(Shape::new(2, 2)), 1).any());
    }
}
