//! What may be moved of the slices while the run records.

use super::backproject_parameters::BackprojectParameters;
use crate::recipes::live::{LiveParameter, LiveParameters};
use frame::Shape;
use kernels::{Plane, STRIPE_COLUMNS_MAX};

/// A live parameter and the value that is in force.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub(super) index: usize,
    pub(super) value: f64,
}

impl Number {
    fn new(live: &mut LiveParameters, parameter: LiveParameter, value: f64) -> Self {
        Self {
            index: live.add(parameter),
            value,
        }
    }

    /// Takes the value over; whether it has changed.
    pub(super) fn follow(&mut self, shared: &LiveParameters) -> bool {
        let now = shared.get(self.index);
        let changed = now != self.value;
        self.value = now;
        changed
    }
}

/// The oblique plane: the horizontal one in the middle of the detector, tilted about x, turned about the rotation axis,
/// and moved along its normal.
pub(super) fn oblique(tilt_deg: f64, turn_deg: f64, offset_px: f64, rows: usize, width: usize) -> Plane {
    let (sin, cos) = tilt_deg.to_radians().sin_cos();
    let (turn_sin, turn_cos) = turn_deg.to_radians().sin_cos();
    let turned = |[x, y, z]: [f64; 3]| [x * turn_cos - y * turn_sin, x * turn_sin + y * turn_cos, z];
    let along_i = turned([1.0, 0.0, 0.0]);
    let along_j = turned([0.0, cos, sin]);
    let normal = turned([0.0, -sin, cos]);
    let half = (width as f64 - 1.0) / 2.0;
    let middle = [0.0, 0.0, (rows as f64 - 1.0) / 2.0];
    let origin = |k: usize| middle[k] + offset_px * normal[k] - half * (along_i[k] + along_j[k]);
    Plane::Oblique {
        origin_px: [origin(0), origin(1), origin(2)],
        along_i_px: along_i,
        along_j_px: along_j,
        ni: width,
        nj: width,
    }
}

/// The live parameters of a run and their values in force.
pub(super) struct Moved {
    /// of a half acquisition only where it is searched: otherwise its slices are no wider than they need to be
    pub(super) axis: Option<Number>,
    pub(super) row: Option<Number>,
    /// xz and yz
    pub(super) vertical: Option<[Number; 2]>,
    /// tilt, turn, offset
    pub(super) oblique: Option<[Number; 3]>,
    /// span of the sliding window, 0: none
    pub(super) window: Option<Number>,
    /// columns of the median that stripes stand out from, 0: they stay
    pub(super) stripes: Option<Number>,
    pub(super) version: u32,
}

impl Moved {
    /// Adds them to `live`. The axis may move within `axis_range_px`; `rows` are those of the horizontal slices; a window holds
    /// up to `window_deg_max` degrees, and there is none where that is 0; stripes are looked for where enough projections are kept.
    pub(super) fn new(
        parameters: &BackprojectParameters,
        shape: Shape,
        (axis_px, axis_range_px): (f64, Option<(f64, f64)>),
        rows: &[usize],
        (window_deg_max, stripes_can_be_told): (f64, bool),
        live: &mut LiveParameters,
    ) -> Self {
        let [columns, last_row] = [shape.columns as f64 - 1.0, shape.rows as f64 - 1.0];
        let mut add = |name: &str, text, unit, range, value| {
            let parameter = LiveParameter::new(&format!("backproject.{name}"), text, unit, range, value);
            let parameter = match name {
                "row" | "stripes_px" => parameter.whole(),
                "rotation_axis_px" => parameter.settling("backproject.axis", "given"),
                _ => parameter,
            };
            Number::new(live, parameter, value)
        };
        let text = "column of the rotation axis; set by hand, it is not searched any more";
        let across = (-columns, columns);
        let axis = axis_range_px.map(|range| add("rotation_axis_px", text, "pixel", range, axis_px));
        let first = rows.first().copied().unwrap_or(0) as f64;
        let text = "detector row of the slice xy";
        let row = (rows.len() == 1).then(|| add("row", text, "pixel", (0.0, last_row), first));
        let vertical = parameters.vertical.then(|| {
            let text = "distance of the vertical slice from the rotation axis";
            let at = [parameters.xz_at_px.unwrap_or(0.0), parameters.yz_at_px.unwrap_or(0.0)];
            ["xz_at_px", "yz_at_px"]
                .into_iter()
                .zip(at)
                .map(|(name, at)| add(name, text, "pixel", across, at))
                .collect::<Vec<_>>()
        });
        let vertical = vertical.and_then(|numbers| numbers.try_into().ok());
        let oblique = parameters.oblique.then(|| {
            let height = columns.hypot(last_row);
            [
                add(
                    "oblique_tilt_deg",
                    "angle between the oblique plane and the horizontal one",
                    "degree",
                    (-180.0, 180.0),
                    parameters.oblique_tilt_deg,
                ),
                add(
                    "oblique_turn_deg",
                    "angle of the oblique plane about the rotation axis",
                    "degree",
                    (-360.0, 360.0),
                    parameters.oblique_turn_deg,
                ),
                add(
                    "oblique_offset_px",
                    "distance of the oblique plane from the middle of the volume",
                    "pixel",
                    (-height, height),
                    parameters.oblique_offset_px,
                ),
            ]
        });
        let window = (window_deg_max > 0.0).then(|| {
            let text = "degrees of the last projections that slices rest on; 0: on all";
            add(
                "window_deg",
                text,
                "degree",
                (0.0, window_deg_max),
                parameters.window_deg,
            )
        });
        let stripes = stripes_can_be_told.then(|| {
            let text = "columns of the median that stripes stand out from, which then leave the slices; 0: they stay";
            let most = (0.0, STRIPE_COLUMNS_MAX as f64);
            add("stripes_px", text, "pixel", most, f64::from(parameters.stripes_px))
        });
        Self {
            axis,
            row,
            vertical,
            oblique,
            window,
            stripes,
            version: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oblique_plane_may_be_a_horizontal_or_a_vertical_one() {
        let Plane::Oblique {
            origin_px,
            along_i_px,
            along_j_px,
            ..
        } = oblique(0.0, 0.0, 2.0, 11, 5)
        else {
            panic!("not oblique");
        };
        assert_eq!(
            (origin_px, along_i_px, along_j_px),
            ([-2.0, -2.0, 7.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
        );
        let Plane::Oblique {
            origin_px,
            along_i_px,
            along_j_px,
            ..
        } = oblique(90.0, 90.0, 3.0, 11, 5)
        else {
            panic!("not oblique");
        };
        let near = |found: [f64; 3], expected: [f64; 3]| {
            assert!(
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12),
                "{found:?} {expected:?}"
            );
        };
        // y along the picture's rows, z down it, three pixels from the axis along x.
        near(along_i_px, [0.0, 1.0, 0.0]);
        near(along_j_px, [0.0, 0.0, 1.0]);
        near(origin_px, [3.0, -2.0, 3.0]);
    }
}
