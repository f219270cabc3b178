//! `backproject`: the ramp filter and the incremental back-projection of chosen slices.

use super::super::{Batch, Operation, RecipeError, Setup, Snapshot};
use crate::config::ConfigError;
use frame::{Image, Shape};
use kernels::{Backprojector, BackprojectorConfig, Filter, Plane, Queue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

const NAME: &str = "backproject";

/// Window on the ramp filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Window {
    /// the ramp alone (Ram-Lak): sharpest, noisiest
    RamLak,
    /// Shepp-Logan
    SheppLogan,
    /// cosine
    Cosine,
    /// Hann
    Hann,
    /// Hamming
    Hamming,
    /// no filter: plain back-projection
    None,
}

impl From<Window> for Filter {
    fn from(window: Window) -> Self {
        match window {
            Window::RamLak => Filter::RamLak,
            Window::SheppLogan => Filter::SheppLogan,
            Window::Cosine => Filter::Cosine,
            Window::Hann => Filter::Hann,
            Window::Hamming => Filter::Hamming,
            Window::None => Filter::None,
        }
    }
}

/// `[recipe.NAME.backproject]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BackprojectParameters {
    /// Rotation axis: column position in pixels, from the centre of column 0. The source's own where it says so,
    /// else the middle of the detector.
    pub rotation_axis_px: Option<f64>,
    /// Window on the ramp filter.
    pub filter: Window,
    /// Angle of the first projection, degrees, where the source tells none; `step_deg` goes with it.
    pub start_deg: Option<f64>,
    /// Angle from projection to projection, degrees, where the source tells none.
    pub step_deg: Option<f64>,
    /// Detector rows whose horizontal slices are reconstructed; the middle one unless given. `"all"` is too many for
    /// a live view: list them.
    pub rows: Vec<usize>,
    /// Vertical slice along x at this distance from the axis, pixels; absent: none.
    pub xz_at_px: Option<f64>,
    /// Vertical slice along y at this distance from the axis, pixels; absent: none.
    pub yz_at_px: Option<f64>,
    /// Whether to make the two vertical slices at all.
    pub vertical: bool,
}

impl Default for BackprojectParameters {
    fn default() -> Self {
        Self {
            rotation_axis_px: None,
            filter: Window::RamLak,
            start_deg: None,
            step_deg: None,
            rows: Vec::new(),
            xz_at_px: None,
            yz_at_px: None,
            vertical: true,
        }
    }
}

impl BackprojectParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        let finite = |key: &str, value: Option<f64>| match value {
            Some(value) if !value.is_finite() => Err(ConfigError::value(
                format!("recipe.{recipe}.{NAME}.{key}"),
                value,
                "a number of pixels",
            )),
            _ => Ok(()),
        };
        finite("rotation_axis_px", self.rotation_axis_px)?;
        finite("xz_at_px", self.xz_at_px)?;
        finite("yz_at_px", self.yz_at_px)?;
        finite("start_deg", self.start_deg)?;
        finite("step_deg", self.step_deg)?;
        match (self.start_deg, self.step_deg) {
            (_, Some(0.0)) | (Some(_), None) => Err(ConfigError::value(
                format!("recipe.{recipe}.{NAME}.step_deg"),
                self.step_deg.map_or("(missing)".into(), |step| step.to_string()),
                "start_deg and step_deg go together, and a step is not 0",
            )),
            _ => Ok(()),
        }
    }

    /// Start and step where the configuration has them.
    pub(super) fn steps(&self) -> Option<(f64, f64)> {
        self.step_deg.map(|step| (self.start_deg.unwrap_or(0.0), step))
    }
}

/// The operation.
pub(super) struct Backproject {
    backprojector: Backprojector,
    rotation_axis_px: f64,
    /// bits of the rotation axis, for what comes after the run
    axis: Arc<AtomicU64>,
    planned_deg: Vec<f64>,
    used: u64,
}

impl Backproject {
    pub(super) fn new(
        setup: &Setup<'_>,
        parameters: &BackprojectParameters,
        planned_deg: &[f64],
        snapshot: &mut Snapshot,
    ) -> Result<Self, RecipeError> {
        let (stream, shape) = (setup.stream, setup.stream.shape);
        let middle = (shape.columns as f64 - 1.0) / 2.0;
        let rotation_axis_px = parameters
            .rotation_axis_px
            .or(stream.detector.rotation_axis_px)
            .unwrap_or(middle);
        if !(0.0..=shape.columns as f64 - 1.0).contains(&rotation_axis_px) {
            let expected = format!("allowed is 0 to {}: the axis lies on the detector", shape.columns - 1);
            return Err(setup.wrong(NAME, "rotation_axis_px", rotation_axis_px, expected));
        }
        if stream.samples() < 2 || !planned_deg.iter().any(|angle| angle.is_finite()) {
            let reason = format!(
                "{} has {} projections with {} angles: tomography needs at least 2 projections, each with its angle; \
                 where the source tells none, backproject.start_deg and step_deg do",
                stream.origin,
                stream.samples(),
                planned_deg.iter().filter(|angle| angle.is_finite()).count()
            );
            return Err(RecipeError::Frames {
                operation: NAME,
                reason,
            });
        }
        let rows = if parameters.rows.is_empty() {
            vec![shape.rows / 2]
        } else {
            parameters.rows.clone()
        };
        let mut planes = Vec::new();
        let mut add = |plane, name: String, shape| {
            planes.push(plane);
            snapshot.images.push(Image {
                name,
                shape,
                unit: "1/pixel".into(),
                values: vec![0.0; shape.pixels()],
                frames_used: 0,
                frames_expected: stream.samples(),
            });
        };
        let square = Shape::new(shape.columns, shape.columns);
        for row in &rows {
            if *row >= shape.rows {
                let expected = format!("the detector has rows 0 to {}", shape.rows - 1);
                return Err(setup.wrong(NAME, "rows", row, expected));
            }
            let name = if rows.len() == 1 {
                "xy".into()
            } else {
                format!("xy_{row}")
            };
            add(Plane::Horizontal { row: *row }, name, square);
        }
        if parameters.vertical {
            let upright = Shape::new(shape.rows, shape.columns);
            add(
                Plane::VerticalXz {
                    y_px: parameters.xz_at_px.unwrap_or(0.0),
                },
                "xz".into(),
                upright,
            );
            add(
                Plane::VerticalYz {
                    x_px: parameters.yz_at_px.unwrap_or(0.0),
                },
                "yz".into(),
                upright,
            );
        }
        let config = BackprojectorConfig {
            rows: shape.rows,
            columns: shape.columns,
            rotation_axis_px,
            filter: parameters.filter.into(),
            planes,
        };
        let backprojector = Backprojector::new(setup.accelerator, &config).map_err(RecipeError::device(NAME))?;
        Ok(Self {
            backprojector,
            rotation_axis_px,
            axis: Arc::new(AtomicU64::new(rotation_axis_px.to_bits())),
            planned_deg: planned_deg.to_vec(),
            used: 0,
        })
    }

    pub(super) fn rotation_axis_px(&self) -> f64 {
        self.rotation_axis_px
    }

    /// The rotation axis as it is now and when the run ends: the bits of a number of pixels.
    pub(super) fn axis(&self) -> Arc<AtomicU64> {
        self.axis.clone()
    }
}

impl Operation for Backproject {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let Some(corrected) = batch.corrected.as_deref_mut() else {
            return Ok(());
        };
        let failed = RecipeError::device(NAME);
        let pixels = corrected.shape().pixels();
        let values = corrected.map(batch.queue).map_err(&failed)?;
        for (index, projection) in values.chunks_exact(pixels).enumerate() {
            let told = batch.angles_deg.get(index).copied().filter(|angle| angle.is_finite());
            let frame = batch.results.get(index).map_or(usize::MAX, |result| result.frame_number as usize);
            let planned = self.planned_deg.get(frame).copied();
            // A projection without an angle belongs nowhere.
            let Some(angle_deg) = told.or(planned.filter(|angle| angle.is_finite())) else {
                continue;
            };
            self.backprojector
                .push_values(batch.queue, projection, angle_deg)
                .map_err(&failed)?;
            self.used += 1;
        }
        values.unmap().map_err(failed)
    }

    fn snapshot(&mut self, queue: &Queue, snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        for (plane, image) in snapshot.images.iter_mut().enumerate() {
            self.backprojector
                .snapshot(queue, plane, &mut image.values)
                .map_err(RecipeError::device(NAME))?;
            image.frames_used = self.used;
        }
        Ok(())
    }

    fn finish(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        self.backprojector.flush(queue).map_err(RecipeError::device(NAME))
    }
}
