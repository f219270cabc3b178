//! `[recipe.NAME.backproject]`: which slices are made live, and how.

use super::axis::{self, AxisMode};
use super::backproject::NAME;
use crate::config::ConfigError;
use kernels::{Filter, HalfAcquisition, STRIPE_COLUMNS_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// "given": the axis is as above. "auto": it is found in the projections as soon as they make half a turn, and applied
    /// where its confidence suffices; "propose": found and told only. Set by hand while the run records, it stays.
    pub axis: AxisMode,
    /// Confidence from which "auto" applies it (0 to 1).
    pub axis_confidence: f64,
    /// First and last column that it is searched between; the middle half of the detector unless given, all of it for a half
    /// acquisition.
    pub axis_range_px: Option<[f64; 2]>,
    /// The axis lies near an edge of the detector and the sample turns by 360 degrees: slices are nearly twice as wide as
    /// the detector, as wide as the axis may ask for where it is searched.
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
    /// Whether to make an oblique slice.
    pub oblique: bool,
    /// Its angle to the horizontal, degrees: 90 is along the rotation axis.
    pub oblique_tilt_deg: f64,
    /// Its angle about the rotation axis, degrees.
    pub oblique_turn_deg: f64,
    /// Its distance from the middle of the volume, pixels.
    pub oblique_offset_px: f64,
    /// Degrees of the last projections that live slices rest on, for samples that change: 180 as a rule. 0: on all.
    pub window_deg: f64,
    /// Against rings in live slices: what the mean of all projections has in a column and its median over so many columns has
    /// not is taken away (0 to 1024; 21 as a rule). It blurs a little: 0, none, unless given. The volume has its own.
    pub stripes_px: u16,
    /// Memory for the last projections, MiB (0 to 1048576): slices that move are summed anew from them, and a window
    /// takes them away again.
    pub history_mib: usize,
}

impl Default for BackprojectParameters {
    fn default() -> Self {
        Self {
            rotation_axis_px: None,
            axis: AxisMode::Given,
            axis_confidence: axis::CONFIDENCE_MIN,
            axis_range_px: None,
            half_acquisition: false,
            filter: Window::RamLak,
            start_deg: None,
            step_deg: None,
            rows: Vec::new(),
            row: None,
            xz_at_px: None,
            yz_at_px: None,
            vertical: true,
            oblique: false,
            oblique_tilt_deg: 45.0,
            oblique_turn_deg: 0.0,
            oblique_offset_px: 0.0,
            window_deg: 0.0,
            stripes_px: 0,
            history_mib: 256,
        }
    }
}

impl BackprojectParameters {
    /// Whether the rotation axis is looked for.
    pub(super) fn searches(&self) -> bool {
        self.axis != AxisMode::Given
    }

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
        finite("oblique_offset_px", Some(self.oblique_offset_px))?;
        let within = |key: &str, value: f64, low: f64, high: f64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::value(
                format!("recipe.{recipe}.{NAME}.{key}"),
                value,
                format!("allowed is {low} to {high}"),
            )),
        };
        within("axis_confidence", self.axis_confidence, 0.0, 1.0)?;
        within("oblique_tilt_deg", self.oblique_tilt_deg, -180.0, 180.0)?;
        within("oblique_turn_deg", self.oblique_turn_deg, -360.0, 360.0)?;
        within("window_deg", self.window_deg, 0.0, 360.0)?;
        within("history_mib", self.history_mib as f64, 0.0, f64::from(1 << 20))?;
        within("stripes_px", f64::from(self.stripes_px), 0.0, STRIPE_COLUMNS_MAX as f64)?;
        match (self.start_deg, self.step_deg) {
            (_, Some(0.0)) | (Some(_), None) => Err(ConfigError::value(
                format!("recipe.{recipe}.{NAME}.step_deg"),
                self.step_deg.map_or("(missing)".into(), |step| step.to_string()),
                "start_deg and step_deg go together, and a step is not 0",
            )),
            _ => Ok(()),
        }
    }

    /// Columns that the axis of a half acquisition may move between, where it is searched: a column from either edge at most.
    pub(super) fn half_range_px(&self, columns: usize) -> Option<(f64, f64)> {
        let searched = self.half_acquisition && self.axis != AxisMode::Given;
        let (low, high) = (1.0, columns as f64 - 2.0);
        let [first, last] = self.axis_range_px.unwrap_or([low, high]);
        (searched && columns >= 8).then(|| (first.clamp(low, high), last.clamp(low, high)))
    }

    /// Columns of slices of a half acquisition: as many as any axis that it may have asks for.
    pub(super) fn half_columns(&self, columns: usize, axis_px: f64) -> usize {
        let (low, high) = self.half_range_px(columns).unwrap_or((axis_px, axis_px));
        [low, high, axis_px]
            .map(|axis| HalfAcquisition::columns_needed(columns, axis))
            .into_iter()
            .fold(columns, usize::max)
    }

    /// Start and step where the configuration has them.
    pub(super) fn steps(&self) -> Option<(f64, f64)> {
        self.step_deg.map(|step| (self.start_deg.unwrap_or(0.0), step))
    }
}
