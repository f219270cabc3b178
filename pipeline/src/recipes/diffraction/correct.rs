//! `correct`: what the operations behind it take into account while they read the raw counts, so that no corrected
//! frame is ever written.

use super::super::{RecipeError, Setup, fields};
use super::{convert, stored};
use crate::calibrations::{CalibrationKind, CalibrationRecord};
use frame::{PixelMask, PixelType, StreamDescription};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const NAME: &str = "correct";

/// `[recipe.NAME.correct]` of diffraction
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
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
    /// Pixels of this value, which must be at or above `saturation`, hold no count. Of unsigned pixels the largest value,
    /// unless that is where the source says that they saturate.
    pub invalid: Option<f64>,
    /// Where no file is named: use the newest mask, dark and flat of the store that hold and fit. A dark is not used beside
    /// `gain`, whose pedestals are one; a flat not where the detector applied its own.
    pub use_store: bool,
}

impl Default for CorrectParameters {
    fn default() -> Self {
        Self {
            mask: None,
            dark: None,
            flat: None,
            saturation: None,
            invalid: None,
            use_store: true,
        }
    }
}

/// The corrections of a run.
pub(super) struct Corrections {
    pub mask: PixelMask,
    pub dark: Option<Vec<f32>>,
    pub flat: Option<Vec<f32>>,
    pub saturation: Option<f64>,
    /// value of pixels that hold no count
    pub invalid: Option<f64>,
    /// calibrations of the store that are used
    pub used: Vec<CalibrationRecord>,
    /// pixels that are masked because their dark or flat is of no use
    pub uncalibrated: usize,
}

/// The value of pixels without a count: of unsigned ones the largest, unless that is where they saturate.
pub(super) fn invalid_value(given: Option<f64>, stream: &StreamDescription) -> Option<f64> {
    let largest = stream.pixel_type.max_value();
    let unsigned = matches!(stream.pixel_type, PixelType::U8 | PixelType::U16 | PixelType::U32);
    let free = stream.saturation_value.is_none_or(|saturation| saturation < largest);
    given.or_else(|| (unsigned && free).then_some(largest))
}

impl CorrectParameters {
    /// Reads the files, or what the store has. `listed`: whether the recipe names the operation; `photons`: whether the
    /// frames have no dark any more.
    pub(super) fn load(&self, setup: &Setup<'_>, listed: bool, photons: bool) -> Result<Corrections, RecipeError> {
        let (stream, shape) = (setup.stream, setup.stream.shape);
        let key = |name: &str| format!("recipe.{}.{NAME}.{name}", setup.recipe);
        let from_store = listed && self.use_store;
        let mut used = Vec::new();
        let mut mask = stream.mask.clone().unwrap_or_else(|| PixelMask::none(shape));
        if let Some(path) = &self.mask {
            let users = fields::read_mask(&key("mask"), &setup.path(path), shape)?;
            mask.merge(&users)
                .map_err(|error| setup.wrong(NAME, "mask", path.display(), error.to_string()))?;
        } else if let Some(found) = from_store.then(|| stored::mask(setup, shape)).transpose()?.flatten() {
            mask.merge(&found.content)
                .map_err(|error| setup.wrong(NAME, "mask", &found.record.version, error.to_string()))?;
            used.push(found.record);
        }
        let mut field = |kind: CalibrationKind, path: &Option<PathBuf>, wanted: bool| -> Result<_, RecipeError> {
            let values = match path {
                Some(path) => Some(fields::read(&key(kind.name()), &setup.path(path), shape)?),
                None if wanted => stored::array(setup, NAME, kind, shape, None)?.map(|found| {
                    used.push(found.record);
                    found.content.1
                }),
                None => None,
            };
            Ok(values.map(|values| values.iter().map(|value| *value as f32).collect::<Vec<f32>>()))
        };
        let dark = field(CalibrationKind::Dark, &self.dark, from_store && !photons)?;
        let flat_applied = convert::applied(stream, "flatfield_applied");
        let flat = field(CalibrationKind::Flat, &self.flat, from_store && !flat_applied)?;
        // A bad calibration value masks its pixel: it must never reach a curve.
        let bad = |field: &Option<Vec<f32>>, index: usize, low: f32| {
            field
                .as_ref()
                .is_some_and(|field| !field[index].is_finite() || field[index] <= low)
        };
        let mut uncalibrated = 0;
        for index in 0..shape.pixels() {
            if bad(&dark, index, f32::NEG_INFINITY) || bad(&flat, index, 0.0) {
                mask.bits_mut()[index] |= frame::mask::DEAD;
                uncalibrated += 1;
            }
        }
        if !setup.config.operations.is_empty() && mask.rejected_count() == shape.pixels() {
            let reason = format!(
                "every one of {} pixels is masked, {uncalibrated} of them by their dark or flat: correct the mask, or \
                 record without operations",
                shape.pixels()
            );
            return Err(RecipeError::Frames {
                operation: NAME,
                reason,
            });
        }
        let invalid = invalid_value(self.invalid, stream);
        let limit = match (self.saturation, stream.parts) {
            // Missing packets hold the largest value: it takes no part, whatever the limit is.
            (Some(limit), 1..) => Some(limit.min(stream.pixel_type.max_value())),
            (limit, _) => limit.or(stream.saturation_value),
        };
        let ends = limit.unwrap_or(stream.pixel_type.max_value());
        if let Some(given) = self.invalid.filter(|given| *given < ends) {
            let expected = format!("{ends} or more, where pixels saturate: what is below it is a count");
            return Err(setup.wrong(NAME, "invalid", given, expected));
        }
        Ok(Corrections {
            mask,
            dark,
            flat,
            // What holds no count is the largest value, where nobody said otherwise: the limit leaves it out, too.
            saturation: limit.or(invalid),
            invalid,
            used,
            uncalibrated,
        })
    }
}
