//! `correct`: what the operations behind it take into account while they read the raw counts, so that no corrected
//! frame is ever written.

use super::super::{RecipeError, Setup, fields};
use frame::PixelMask;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[recipe.NAME.correct]` of diffraction
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CorrectParameters {
    /// Mask: `.npy`, TIFF, CBF, or HDF5 as `FILE::/path`; anything but zero is masked, or NXmx bits. Added to the
    /// source's own.
    pub mask: Option<PathBuf>,
    /// Dark: counts without beam, subtracted from every frame.
    pub dark: Option<PathBuf>,
    /// Flat: relative response of every pixel, 1 on average.
    pub flat: Option<PathBuf>,
    /// Pixels at or above this value are saturated and take no part. The source's own unless given.
    pub saturation: Option<f64>,
}

/// The corrections of a run.
pub(super) struct Corrections {
    pub mask: PixelMask,
    pub dark: Option<Vec<f32>>,
    pub flat: Option<Vec<f32>>,
    pub saturation: Option<f64>,
}

impl CorrectParameters {
    /// Reads the files.
    pub(super) fn load(&self, setup: &Setup<'_>) -> Result<Corrections, RecipeError> {
        let shape = setup.stream.shape;
        let key = |name: &str| format!("recipe.{}.correct.{name}", setup.recipe);
        let mut mask = setup.stream.mask.clone().unwrap_or_else(|| PixelMask::none(shape));
        if let Some(path) = &self.mask {
            let users = fields::read_mask(&key("mask"), &setup.path(path), shape)?;
            mask.merge(&users)
                .map_err(|error| setup.wrong("correct", "mask", path.display(), error.to_string()))?;
        }
        let field = |name: &str, path: &Option<PathBuf>| -> Result<Option<Vec<f32>>, RecipeError> {
            let Some(path) = path else { return Ok(None) };
            let values = fields::read(&key(name), &setup.path(path), shape)?;
            Ok(Some(values.iter().map(|value| *value as f32).collect()))
        };
        let (dark, flat) = (field("dark", &self.dark)?, field("flat", &self.flat)?);
        // A bad calibration value masks its pixel: it must never reach a curve.
        let bad = |field: &Option<Vec<f32>>, index: usize, low: f32| {
            field
                .as_ref()
                .is_some_and(|field| !field[index].is_finite() || field[index] <= low)
        };
        for index in 0..shape.pixels() {
            if bad(&dark, index, f32::NEG_INFINITY) || bad(&flat, index, 0.0) {
                mask.bits_mut()[index] |= frame::mask::DEAD;
            }
        }
        Ok(Corrections {
            mask,
            dark,
            flat,
            saturation: match (self.saturation, setup.stream.parts) {
                // Missing packets hold the largest value: it takes no part, whatever the limit is.
                (Some(limit), 1..) => Some(limit.min(setup.stream.pixel_type.max_value())),
                (limit, _) => limit.or(setup.stream.saturation_value),
            },
        })
    }
}
