//! `backproject`: the ramp filter and the incremental back-projection of chosen slices.

use super::super::{Batch, Operation, RecipeError, Setup, Snapshot};
use super::half::{self, Widened};
use crate::config::ConfigError;
use crate::recipes::live::{LiveParameter, LiveParameters};
use frame::{Image, Shape};
use kernels::{Backprojector, BackprojectorConfig, Filter, Plane, Queue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// The axis lies near an edge of the detector and the sample turns by 360 degrees: slices are nearly twice as wide as
    /// the detector.
    pub half_acquisition: bool,
    /// Window on the ramp filter.
    pub filter: Window,
    /// Angle of the first projection, degrees, where the source tells none; `step_deg` goes with it.
    pub start_deg: Option<f64>,
    /// Angle from projection to projection, degrees, where the source tells none.
    pub step_deg: Option<f64>,
    /// Detector rows whose horizontal slices are reconstructed; the middle one unless given. `"all"` is too many for
    /// a live view: list them.
    pub rows: Vec<usize>,
    /// Detector row of the one horizontal slice, as `rows` with one entry; it may be moved while the run records.
    pub row: Option<usize>,
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
            half_acquisition: false,
            filter: Window::RamLak,
            start_deg: None,
            step_deg: None,
            rows: Vec::new(),
            row: None,
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
    widened: Option<Widened>,
    /// a projection as wide as it takes
    wide: Vec<f32>,
    columns: usize,
    planes: usize,
    live: Live,
    shared: Option<Arc<LiveParameters>>,
}

/// What may change while the run records: indices among the live parameters, and the values in force.
struct Live {
    /// not of a half acquisition, whose slices change their width with it
    axis: Option<usize>,
    row: Option<usize>,
    /// xz and yz
    vertical: Option<[usize; 2]>,
    values: [f64; 4],
    version: u32,
}

impl Live {
    fn new(
        parameters: &BackprojectParameters,
        shape: Shape,
        axis_px: f64,
        rows: &[usize],
        live: &mut LiveParameters,
    ) -> Self {
        let [columns, last_row] = [shape.columns as f64 - 1.0, shape.rows as f64 - 1.0];
        let text = "column of the rotation axis; every slice begins again with the projections that come";
        let axis = LiveParameter::new("backproject.rotation_axis_px", text, "pixel", (0.0, columns), axis_px);
        let axis = (!parameters.half_acquisition).then(|| live.add(axis));
        let first = rows.first().copied().unwrap_or(0) as f64;
        let row = (rows.len() == 1).then(|| {
            let text = "detector row of the slice xy";
            live.add(LiveParameter::new("backproject.row", text, "pixel", (0.0, last_row), first).whole())
        });
        let at = [parameters.xz_at_px.unwrap_or(0.0), parameters.yz_at_px.unwrap_or(0.0)];
        let vertical = parameters.vertical.then(|| {
            let names = [("backproject.xz_at_px", at[0]), ("backproject.yz_at_px", at[1])];
            let text = "distance of the vertical slice from the rotation axis";
            names.map(|(name, value)| live.add(LiveParameter::new(name, text, "pixel", (-columns, columns), value)))
        });
        Self {
            axis,
            row,
            vertical,
            values: [axis_px, first, at[0], at[1]],
            version: 0,
        }
    }
}

impl Backproject {
    pub(super) fn new(
        setup: &Setup<'_>,
        parameters: &BackprojectParameters,
        planned_deg: &[f64],
        live: &mut LiveParameters,
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
        let rows = match (parameters.row, &parameters.rows[..]) {
            (None, []) => vec![shape.rows / 2],
            (Some(row), []) => vec![row],
            (None, rows) => rows.to_vec(),
            (Some(row), _) => return Err(setup.wrong(NAME, "row", row, "give row or rows, not both")),
        };
        if parameters.half_acquisition && !half::goes_round(planned_deg) {
            let expected = format!(
                "the projections must go once round, at least {} degrees",
                half::RANGE_DEG_MIN
            );
            return Err(setup.wrong(NAME, "half_acquisition", true, expected));
        }
        let widened = parameters
            .half_acquisition
            .then(|| Widened::new(shape.columns, rotation_axis_px));
        let width = widened.as_ref().map_or(shape.columns, |widened| widened.width);
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
        let square = Shape::new(width, width);
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
            let upright = Shape::new(shape.rows, width);
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
        let live = Live::new(parameters, shape, rotation_axis_px, &rows, live);
        let config = BackprojectorConfig {
            rows: shape.rows,
            columns: width,
            rotation_axis_px: widened.as_ref().map_or(rotation_axis_px, Widened::axis_px),
            filter: parameters.filter.into(),
            planes,
        };
        let backprojector = Backprojector::new(setup.accelerator, &config).map_err(RecipeError::device(NAME))?;
        Ok(Self {
            backprojector,
            rotation_axis_px,
            axis: Arc::new(AtomicU64::new(rotation_axis_px.to_bits())),
            planned_deg: planned_deg.to_vec(),
            wide: vec![0.0; widened.as_ref().map_or(0, |widened| widened.width * shape.rows)],
            widened,
            columns: shape.columns,
            planes: config.planes.len(),
            live,
            shared: None,
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

impl Backproject {
    /// Gives it the live parameters that it has added to.
    pub(super) fn share(&mut self, live: &Arc<LiveParameters>) {
        self.shared = Some(live.clone());
    }

    /// Takes over what has been changed since the last batch.
    fn follow(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let version = shared.version();
        if version == self.live.version {
            return Ok(());
        }
        self.live.version = version;
        let failed = RecipeError::device(NAME);
        let [axis, row, xz, yz] = &mut self.live.values;
        let changed = |index: usize, value: &mut f64| {
            let now = shared.get(index);
            let changed = now != *value;
            *value = now;
            changed
        };
        if let Some(index) = self.live.axis
            && changed(index, axis)
        {
            self.axis.store(axis.to_bits(), Relaxed);
            self.backprojector.set_rotation_axis(queue, *axis).map_err(&failed)?;
        }
        if let Some(index) = self.live.row
            && changed(index, row)
        {
            let plane = Plane::Horizontal { row: *row as usize };
            self.backprojector.set_plane(queue, 0, plane).map_err(&failed)?;
        }
        if let Some([along_x, along_y]) = self.live.vertical {
            let first = self.planes - 2;
            if changed(along_x, xz) {
                let plane = Plane::VerticalXz { y_px: *xz };
                self.backprojector.set_plane(queue, first, plane).map_err(&failed)?;
            }
            if changed(along_y, yz) {
                let plane = Plane::VerticalYz { x_px: *yz };
                self.backprojector.set_plane(queue, first + 1, plane).map_err(&failed)?;
            }
        }
        Ok(())
    }
}

impl Operation for Backproject {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        self.follow(batch.queue)?;
        let Some(corrected) = batch.corrected.as_deref_mut() else {
            return Ok(());
        };
        let failed = RecipeError::device(NAME);
        let pixels = corrected.shape().pixels();
        let values = corrected.map(batch.queue).map_err(&failed)?;
        for (index, projection) in values.chunks_exact(pixels).enumerate() {
            let told = batch.angles_deg.get(index).copied().filter(|angle| angle.is_finite());
            let frame = batch
                .results
                .get(index)
                .map_or(usize::MAX, |result| result.frame_number as usize);
            let planned = self.planned_deg.get(frame).copied();
            // A projection without an angle belongs nowhere.
            let Some(angle_deg) = told.or(planned.filter(|angle| angle.is_finite())) else {
                continue;
            };
            let projection = match &self.widened {
                None => projection,
                Some(widened) => {
                    let rows = projection.chunks_exact(self.columns);
                    for (row, out) in rows.zip(self.wide.chunks_exact_mut(widened.width)) {
                        widened.apply(row, out);
                    }
                    &self.wide
                }
            };
            self.backprojector
                .push_values(batch.queue, projection, angle_deg)
                .map_err(&failed)?;
        }
        values.unmap().map_err(failed)
    }

    fn snapshot(&mut self, queue: &Queue, snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        for (plane, image) in snapshot.images.iter_mut().enumerate() {
            self.backprojector
                .snapshot(queue, plane, &mut image.values)
                .map_err(RecipeError::device(NAME))?;
            image.frames_used = self.backprojector.plane_used(plane);
        }
        Ok(())
    }

    fn finish(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        self.backprojector.flush(queue).map_err(RecipeError::device(NAME))
    }
}
