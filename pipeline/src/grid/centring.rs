//! Crystals in a grid of scores: boxes that hang together above a threshold, with the centre of their scores, the bounding
//! box and the best of them. A pure function of the scores.

use serde::{Deserialize, Serialize};

/// One crystal. Coordinates are x (columns), y (rows) and, with a second sweep, z (layers). Box 0 reaches from 0 to 1, so
/// that its centre is at 0.5.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, utoipa::ToSchema)]
pub struct Crystal {
    /// mean position of its boxes' centres, weighted by their scores, in boxes
    pub centre_of_mass: Vec<f64>,
    /// the same in mm, in the frame of `origin_mm`; absent without `step_mm`
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub centre_of_mass_mm: Option<Vec<f64>>,
    /// its lowest and highest coordinates, in boxes: the second is one past the last box
    pub bounding_box: [Vec<u64>; 2],
    /// the same in mm
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bounding_box_mm: Option<[Vec<f64>; 2]>,
    /// indices of its best box
    pub max_voxel: Vec<u64>,
    /// score of its best box
    pub max_count: f64,
    /// number of its boxes
    pub n_voxels: u64,
    /// sum of their scores
    pub total_count: f64,
}

/// Scores of boxes, x fastest; NaN where a box has none.
#[derive(Clone, Debug)]
pub struct Scores {
    /// boxes along x, y and z
    pub size: [usize; 3],
    /// one per box
    pub values: Vec<f64>,
}

impl Scores {
    /// Boxes without a score.
    pub fn none(size: [usize; 3]) -> Self {
        Self {
            size,
            values: vec![f64::NAN; size.iter().product()],
        }
    }

    /// Where a box is: x, y, z.
    fn place(&self, index: usize) -> [usize; 3] {
        let [nx, ny, _] = self.size;
        [index % nx, index / nx % ny, index / (nx * ny)]
    }

    /// Boxes that share a face with this one.
    fn beside(&self, index: usize) -> impl Iterator<Item = usize> {
        let (at, size) = (self.place(index), self.size);
        let step = [1, size[0], size[0] * size[1]];
        (0..3).flat_map(move |axis| {
            let below = (at[axis] > 0).then(|| index - step[axis]);
            let above = (at[axis] + 1 < size[axis]).then(|| index + step[axis]);
            below.into_iter().chain(above)
        })
    }

    /// What two sweeps say together: `self` over x and y, `other` over x and z (its rows), a quarter of a turn later. The
    /// score of a box is the product of both, as in the field's 3-D centring; a box without a score counts as 0 there.
    pub fn with_sweep(&self, other: &Scores) -> Scores {
        let ([nx, ny, _], nz) = (self.size, other.size[1]);
        let told = |score: f64| if score.is_nan() { 0.0 } else { score };
        let mut values = Vec::with_capacity(nx * ny * nz);
        for z in 0..nz {
            for y in 0..ny {
                values.extend((0..nx).map(|x| told(self.values[y * nx + x]) * told(other.values[z * nx + x])));
            }
        }
        Scores {
            size: [nx, ny, nz],
            values,
        }
    }

    /// The largest score; `None` where no box has one.
    pub fn largest(&self) -> Option<f64> {
        self.values
            .iter()
            .copied()
            .filter(|score| !score.is_nan())
            .max_by(f64::total_cmp)
    }

    /// The crystals: boxes with at least `threshold` that share faces, those with the largest sum first; coordinates have
    /// so many `dimensions`.
    pub fn crystals(&self, threshold: f64, dimensions: usize) -> Vec<Crystal> {
        let above = |index: &usize| self.values[*index] >= threshold;
        let mut seen = vec![false; self.values.len()];
        let mut waiting = Vec::new();
        let mut found = Vec::new();
        for first in (0..self.values.len()).filter(above) {
            if std::mem::replace(&mut seen[first], true) {
                continue;
            }
            waiting.push(first);
            let mut boxes = Vec::new();
            while let Some(index) = waiting.pop() {
                boxes.push(index);
                for near in self.beside(index).filter(above) {
                    if !std::mem::replace(&mut seen[near], true) {
                        waiting.push(near);
                    }
                }
            }
            // Sums in the boxes' order do not depend on the way through them.
            boxes.sort_unstable();
            found.push(self.crystal(&boxes, dimensions));
        }
        // Stable: of two alike the one whose first box comes first.
        found.sort_by(|a, b| b.total_count.total_cmp(&a.total_count));
        found
    }

    fn crystal(&self, boxes: &[usize], dimensions: usize) -> Crystal {
        let mut total = 0.0;
        let mut sums = [0.0; 3];
        let (mut low, mut end) = ([usize::MAX; 3], [0; 3]);
        let mut best = (f64::NEG_INFINITY, [0; 3]);
        for index in boxes {
            let (score, at) = (self.values[*index], self.place(*index));
            total += score;
            for axis in 0..3 {
                sums[axis] += score * (at[axis] as f64 + 0.5);
                low[axis] = low[axis].min(at[axis]);
                end[axis] = end[axis].max(at[axis] + 1);
            }
            if score > best.0 {
                best = (score, at);
            }
        }
        let numbers = |values: &[usize; 3]| values[..dimensions].iter().map(|value| *value as u64).collect();
        Crystal {
            centre_of_mass: sums[..dimensions].iter().map(|sum| sum / total).collect(),
            centre_of_mass_mm: None,
            bounding_box: [numbers(&low), numbers(&end)],
            bounding_box_mm: None,
            max_voxel: numbers(&best.1),
            max_count: best.0,
            n_voxels: boxes.len() as u64,
            total_count: total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_crystal_of_one_box_lies_at_its_centre() {
        let mut scores = Scores::none([4, 3, 1]);
        scores.values[4 + 2] = 7.0;
        let crystals = scores.crystals(3.0, 2);
        assert_eq!(crystals.len(), 1);
        assert_eq!(crystals[0].centre_of_mass, [2.5, 1.5]);
        assert_eq!(crystals[0].bounding_box, [vec![2, 1], vec![3, 2]]);
        assert_eq!(crystals[0].max_voxel, [2, 1]);
        assert_eq!(
            (crystals[0].n_voxels, crystals[0].total_count, crystals[0].max_count),
            (1, 7.0, 7.0)
        );
        assert!(Scores::none([4, 3, 1]).crystals(3.0, 2).is_empty());
    }

    #[test]
    fn boxes_that_touch_at_a_corner_are_two_crystals_and_scores_weigh() {
        let scores = Scores {
            size: [3, 3, 1],
            values: vec![1.0, 3.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, f64::NAN],
        };
        let crystals = scores.crystals(1.0, 2);
        assert_eq!(crystals.len(), 2);
        assert_eq!(crystals[0].max_voxel, [2, 1]);
        assert_eq!(crystals[1].centre_of_mass, [(0.5 + 3.0 * 1.5) / 4.0, 0.5]);
    }

    #[test]
    fn two_sweeps_make_a_box_in_space() {
        let mut front = Scores::none([3, 2, 1]);
        front.values.fill(0.0);
        front.values[3 + 1] = 4.0;
        let mut side = Scores::none([3, 4, 1]);
        side.values.fill(0.0);
        side.values[2 * 3 + 1] = 5.0;
        side.values[3 * 3 + 1] = 10.0;
        let both = front.with_sweep(&side);
        assert_eq!(both.size, [3, 2, 4]);
        let crystals = both.crystals(1.0, 3);
        assert_eq!(crystals.len(), 1);
        assert_eq!(crystals[0].max_voxel, [1, 1, 3]);
        assert_eq!(crystals[0].total_count, 60.0);
        assert_eq!(crystals[0].centre_of_mass[2], (20.0 * 2.5 + 40.0 * 3.5) / 60.0);
    }

    proptest! {
        /// Every box above the threshold is in one crystal, and every crystal's centre lies within its bounding box.
        #[test]
        fn nothing_is_left_out(values in prop::collection::vec(0u8..9, 60)) {
            let scores = Scores { size: [5, 4, 3], values: values.iter().map(|score| f64::from(*score)).collect() };
            let crystals = scores.crystals(4.0, 3);
            let above = values.iter().filter(|score| **score >= 4);
            prop_assert_eq!(crystals.iter().map(|c| c.n_voxels).sum::<u64>(), above.clone().count() as u64);
            prop_assert_eq!(crystals.iter().map(|c| c.total_count).sum::<f64>(), above.map(|s| f64::from(*s)).sum::<f64>());
            for crystal in &crystals {
                for axis in 0..3 {
                    let (low, end) = (crystal.bounding_box[0][axis] as f64, crystal.bounding_box[1][axis] as f64);
                    prop_assert!((low..end).contains(&crystal.centre_of_mass[axis]));
                    prop_assert!((low..end).contains(&(crystal.max_voxel[axis] as f64)));
                }
            }
        }
    }
}
