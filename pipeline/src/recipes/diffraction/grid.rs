//! `grid`: the frames are boxes of a grid scan, each with a score. Where the crystals are is worked out by [`crate::grid`].

use super::super::{Prepared, RecipeError, Setup};
use crate::config::ConfigError;
use crate::grid::{BOXES_MAX, GridConfig, GridScan, PICTURES, Told};
use crate::storage::CurveAxis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const NAME: &str = "grid";
/// Spots that a box with a crystal has at least, unless the recipe says otherwise.
const MIN_SPOTS: f64 = 3.0;

/// `[recipe.NAME.grid]`: rows and columns of boxes, one frame or more each.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GridParameters {
    /// Boxes along x. Needed.
    pub columns: usize,
    /// Boxes along y. Needed.
    pub rows: usize,
    /// Boxes along z, of a second sweep of `layers` × `columns` boxes after the first, the sample turned by 90° around x
    /// in between; 0: there is none.
    pub layers: usize,
    /// Frames of each box, which has their mean score.
    pub frames_per_box: u64,
    /// `raster`: every line in the same direction. `snake`: every second one backwards.
    pub order: String,
    /// Which index changes from box to box: `columns`, or `rows` (in the second sweep layers).
    pub fast_axis: String,
    /// Names of the values by frame number that say where a frame was taken, [column, row] or [column, row, layer]: for
    /// scans in any other order. A frame that has the layer's value belongs to the second sweep. Without, the frame's
    /// number says it.
    pub positions: Option<Vec<String>>,
    /// What `positions` are: `boxes`, indices from 0 on, or `mm`.
    pub positions_in: String,
    /// Which scalar of the results is the score: `spots`, `strong_pixels`, `hit`, `sum`, a region's `NAME_counts`, …
    pub score: String,
    /// Boxes with less are empty: 3 where the score is `spots`, else nothing, unless given.
    pub min_score: Option<f64>,
    /// Part of the largest score that a crystal's boxes have at least (0 to 1).
    pub threshold: f64,
    /// Size of a box, mm, [x, y] or [x, y, z]; negative where a motor runs backwards. With it, results are also in mm.
    pub step_mm: Option<Vec<f64>>,
    /// Where the centre of the first box is, mm, [x, y] or [x, y, z]; 0 unless given.
    pub origin_mm: Option<Vec<f64>>,
    /// Crystals that are told, those with the largest sum of scores (1 to 1000). All are counted.
    pub crystals_max: usize,
}

impl Default for GridParameters {
    fn default() -> Self {
        Self {
            columns: 0,
            rows: 0,
            layers: 0,
            frames_per_box: 1,
            order: "raster".into(),
            fast_axis: "columns".into(),
            positions: None,
            positions_in: "boxes".into(),
            score: "spots".into(),
            min_score: None,
            threshold: 0.25,
            step_mm: None,
            origin_mm: None,
            crystals_max: 16,
        }
    }
}

impl GridParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, value: String, expected: String| {
            let key = format!("recipe.{recipe}.{NAME}.{key}");
            Err(ConfigError::value(key, value, expected))
        };
        let axes = if self.layers > 0 { 3 } else { 2 };
        for (key, value) in [("columns", self.columns), ("rows", self.rows)] {
            if value == 0 {
                return wrong(key, value.to_string(), "at least 1: how many boxes the grid has".into());
            }
        }
        let boxes = [self.columns, self.rows, self.layers.max(1)]
            .into_iter()
            .try_fold(1usize, usize::checked_mul);
        if boxes.is_none_or(|boxes| boxes > BOXES_MAX) {
            let value = format!("{} × {} × {}", self.columns, self.rows, self.layers.max(1));
            return wrong("columns", value, format!("at most {BOXES_MAX} boxes"));
        }
        if self.frames_per_box == 0 {
            return wrong("frames_per_box", "0".into(), "at least 1".into());
        }
        for (key, value, known) in [
            ("order", &self.order, ["raster", "snake"]),
            ("fast_axis", &self.fast_axis, ["columns", "rows"]),
            ("positions_in", &self.positions_in, ["boxes", "mm"]),
        ] {
            if !known.contains(&value.as_str()) {
                return wrong(key, format!("{value:?}"), format!("{:?} or {:?}", known[0], known[1]));
            }
        }
        if let Some(names) = self.positions.as_ref().filter(|names| names.len() != axes) {
            let expected = format!("{axes} names, as the grid has so many axes");
            return wrong("positions", format!("{names:?}"), expected);
        }
        for (key, values) in [("step_mm", &self.step_mm), ("origin_mm", &self.origin_mm)] {
            let Some(values) = values else { continue };
            let usable = |value: &f64| value.is_finite() && (key == "origin_mm" || *value != 0.0);
            if values.len() != axes || !values.iter().all(usable) {
                let expected = format!("{axes} numbers, as the grid has so many axes; a step is not 0");
                return wrong(key, format!("{values:?}"), expected);
            }
        }
        if self.positions_in == "mm" && self.step_mm.is_none() {
            let expected = "with positions in mm: the size of a box, [x, y] or [x, y, z]";
            return wrong("step_mm", "nothing".into(), expected.into());
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            return wrong("threshold", self.threshold.to_string(), "0 to 1".into());
        }
        if self.min_score.is_some_and(|score| !score.is_finite() || score < 0.0) {
            let value = self.min_score.unwrap_or_default().to_string();
            return wrong("min_score", value, "a number from 0 on".into());
        }
        if !(1..=1000).contains(&self.crystals_max) {
            return wrong(
                "crystals_max",
                self.crystals_max.to_string(),
                "allowed is 1 to 1000".into(),
            );
        }
        Ok(())
    }

    fn config(&self, scalar: usize) -> GridConfig {
        let axes = |values: &Vec<f64>| [values[0], values[1], values.get(2).copied().unwrap_or(1.0)];
        let least = if self.score == "spots" { MIN_SPOTS } else { 0.0 };
        let told = self.positions.as_ref().map(|names| Told {
            column: names[0].clone(),
            row: names[1].clone(),
            layer: names.get(2).cloned(),
            mm: self.positions_in == "mm",
        });
        GridConfig {
            score: self.score.clone(),
            scalar,
            size: [self.columns, self.rows, self.layers],
            frames_per_box: self.frames_per_box,
            snake: self.order == "snake",
            rows_fast: self.fast_axis == "rows",
            told,
            min_score: self.min_score.unwrap_or(least),
            threshold: self.threshold,
            step_mm: self.step_mm.as_ref().map(axes),
            origin_mm: self.origin_mm.as_ref().map_or([0.0; 3], axes),
            crystals_max: self.crystals_max,
        }
    }
}

/// Makes the grid. It comes last: its score is a number that another operation has laid out.
pub(super) fn plan(setup: &Setup<'_>, parameters: &GridParameters, prepared: &mut Prepared) -> Result<(), RecipeError> {
    let scalars = &prepared.layout.scalars;
    let Some(scalar) = scalars.iter().position(|scalar| scalar.name == parameters.score) else {
        let known: Vec<&str> = scalars.iter().map(|scalar| scalar.name.as_str()).collect();
        let expected = match known[..] {
            [] => "a number that an operation of this recipe makes, and it has none: list \"spots\" or \"statistics\""
                .into(),
            _ => format!("a number that an operation of this recipe makes: {}", known.join(", ")),
        };
        return Err(setup.wrong(NAME, "score", format!("{:?}", parameters.score), expected));
    };
    let grid = GridScan::new(parameters.config(scalar), setup.stream.frames_expected);
    let needed = grid.config().boxes() as u64 * parameters.frames_per_box;
    if needed != setup.stream.frames_expected && parameters.positions.is_none() {
        prepared.warnings.push(format!(
            "the grid has {needed} frames, the run {}",
            setup.stream.frames_expected
        ));
    }
    let indices = |boxes: usize| (0..boxes).map(|index| index as f64).collect::<Vec<_>>();
    for (image, line) in grid.pictures().into_iter().zip(["row", "layer"]) {
        let (name, shape) = (image.name.clone(), image.shape);
        debug_assert!(PICTURES.contains(&name.as_str()));
        for (axis, boxes) in [(line, shape.rows), ("column", shape.columns)] {
            prepared.axes.push(CurveAxis {
                curve: name.clone(),
                name: axis.into(),
                unit: String::new(),
                values: indices(boxes),
            });
        }
        prepared.snapshot.images.push(image);
    }
    prepared.grid = Some(Arc::new(grid));
    Ok(())
}
