//! Half acquisition: the axis lies near an edge of the detector, the sample turns by 360°, and every ray beyond the shorter
//! side is seen once, from the other direction. A row becomes one of a detector twice as wide, with the axis in its
//! middle; where both directions see a ray their weights add up to 2, where one does its weight is 2. Filtering and
//! back-projection are linear, so this is the same as stitching opposite projections first.

/// Least angle that a half acquisition covers, degrees.
pub(super) const RANGE_DEG_MIN: f64 = 350.0;

/// Makes rows of a detector that is wide enough.
#[derive(Clone, Debug)]
pub(super) struct Widened {
    /// columns of a wide row
    pub(super) width: usize,
    /// column of a wide row where the detector's own begin
    first: usize,
    axis_px: f64,
    weights: Vec<f32>,
}

impl Widened {
    /// For rows of `columns` columns with the axis at `axis_px`.
    pub(super) fn new(columns: usize, axis_px: f64) -> Self {
        let (left, right) = (axis_px, columns as f64 - 1.0 - axis_px);
        let (shorter, longer) = (left.min(right), left.max(right));
        let half = longer.ceil() as usize;
        let sign = if right >= left { 1.0 } else { -1.0 };
        let weight = |column: usize| {
            let towards_longer = sign * (column as f64 - axis_px);
            // From 0 at the end of the shorter side to 2 where the longer side is alone.
            match shorter > 0.0 {
                true => (1.0 + towards_longer / shorter).clamp(0.0, 2.0) as f32,
                false => 2.0,
            }
        };
        Self {
            width: 2 * half + 2,
            first: half - axis_px.floor().min(half as f64) as usize,
            axis_px,
            weights: (0..columns).map(weight).collect(),
        }
    }

    /// Column of the axis in a wide row.
    pub(super) fn axis_px(&self) -> f64 {
        self.axis_px + self.first as f64
    }

    /// Writes the wide row; `out` has its length.
    pub(super) fn apply(&self, row: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        let places = out.iter_mut().skip(self.first);
        for (out, (value, weight)) in places.zip(row.iter().zip(&self.weights)) {
            *out = value * weight;
        }
    }
}

/// Whether the angles, of which some may be NaN, go once round.
pub(super) fn goes_round(angles_deg: &[f64]) -> bool {
    let known = || angles_deg.iter().copied().filter(|angle| angle.is_finite());
    let (low, high) = (
        known().fold(f64::INFINITY, f64::min),
        known().fold(f64::NEG_INFINITY, f64::max),
    );
    high - low >= RANGE_DEG_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_weights_add_up_to_two_and_everything_fits() {
        for (columns, axis_px) in [(96, 20.0), (96, 75.25), (97, 48.0), (64, 0.0), (64, 63.0), (10, 4.5)] {
            let wide = Widened::new(columns, axis_px);
            assert!(wide.first + columns <= wide.width, "{columns} {axis_px}");
            let mut out = vec![0.0; wide.width];
            wide.apply(&vec![1.0; columns], &mut out);
            let at = |place: f64| {
                let below = place.floor();
                let value = |place: f64| out.get(place as usize).copied().unwrap_or(0.0);
                f64::from(value(below)) * (1.0 - place + below) + f64::from(value(below + 1.0)) * (place - below)
            };
            let (left, right) = (axis_px, columns as f64 - 1.0 - axis_px);
            for step in 0..=(left.max(right) - 1.0).max(0.0) as usize {
                let sum = at(wide.axis_px() + step as f64) + at(wide.axis_px() - step as f64);
                // Between two columns a straight line cuts the corner that the weights have at the end of the shorter side.
                let shorter = left.min(right);
                let corner = if (step as f64 - shorter).abs() < 1.0 {
                    0.25 / shorter
                } else {
                    0.0
                };
                assert!(
                    (sum - 2.0).abs() < 1e-5 + corner || shorter < 1.0,
                    "{columns} {axis_px} {step}: {sum}"
                );
            }
        }
    }

    #[test]
    fn half_a_turn_does_not_go_round() {
        assert!(goes_round(&[0.0, f64::NAN, 359.0]) && !goes_round(&[0.0, 180.0]) && !goes_round(&[]));
    }
}
