//! `correct`: what the operations behind it take into account while they read the raw counts, so that no corrected
//! frame is ever written.

use super::super::files::NamedFile;
use super::super::{RecipeError, Setup, fields};
use super::{convert, stored};
use crate::calibrations::check::usable_range;
use crate::calibrations::{CalibrationKind, CalibrationRecord};
use frame::{PixelMask, PixelType, StreamDescription};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const NAME: &str = "correct";

/// `[recipe.NAME.correct]` of diffraction
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CorrectParameters {
    /// Mask: `.npy`, TIFF, CBF, or HDF5 as `FILE::/path`; anything but zero is masked, or NXmx bits. Added to the
    /// source's own.
    pub mask: Option<NamedFile>,
    /// Dark: counts without beam, subtracted from every frame.
    pub dark: Option<NamedFile>,
    /// Flat: relative response of every pixel, 1 on average.
    pub flat: Option<NamedFile>,
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
    /// what somebody should know of them
    pub warnings: Vec<String>,
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
    /// frames have no dark any more; `of_detector`: what the description of the detector masks.
    pub(super) fn load(
        &self,
        setup: &Setup<'_>,
        listed: bool,
        photons: bool,
        of_detector: impl Iterator<Item = PixelMask>,
    ) -> Result<Corrections, RecipeError> {
        let (stream, shape) = (setup.stream, setup.stream.shape);
        let key = |name: &str| format!("recipe.{}.{NAME}.{name}", setup.recipe);
        let from_store = listed && self.use_store;
        let mut used = Vec::new();
        let mut mask = stream.mask.clone().unwrap_or_else(|| PixelMask::none(shape));
        // One of another shape is refused by who reads the geometry.
        for described in of_detector.filter(|mask| mask.shape() == shape) {
            mask.merge(&described)
                .map_err(|error| setup.wrong(NAME, "mask", "(the detector's)", error.to_string()))?;
        }
        if let Some(path) = &self.mask {
            let users = fields::read_mask(&key("mask"), &setup.path(path), shape)?;
            mask.merge(&users)
                .map_err(|error| setup.wrong(NAME, "mask", path.display(), error.to_string()))?;
        } else if let Some(found) = from_store.then(|| stored::mask(setup, shape)).transpose()?.flatten() {
            mask.merge(&found.content)
                .map_err(|error| setup.wrong(NAME, "mask", &found.record.version, error.to_string()))?;
            used.push(found.record);
        }
        let mut field = |kind: CalibrationKind, path: &Option<NamedFile>, wanted: bool| -> Result<_, RecipeError> {
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
        // A bad calibration value masks its pixel: it must never reach a curve, nor set the scale of the others' sums.
        let mut useless = vec![false; shape.pixels()];
        let mut warnings = Vec::new();
        for (kind, values) in [(CalibrationKind::Dark, &dark), (CalibrationKind::Flat, &flat)] {
            let Some(values) = values else { continue };
            let values = || values.iter().map(|value| f64::from(*value));
            let seen = values().enumerate().filter(|(pixel, _)| !mask.rejects(*pixel));
            let range = usable_range(kind, Some(stream.pixel_type), seen.map(|(_, value)| value));
            let mut masked = 0;
            for (pixel, _) in values().enumerate().filter(|(_, value)| !range.contains(value)) {
                masked += usize::from(!mask.rejects(pixel));
                useless[pixel] = true;
            }
            if masked > 0 {
                warnings.push(format!(
                    "{NAME}: the {} of {masked} pixels is not within {} to {}: they are masked",
                    kind.name(),
                    range.start(),
                    range.end()
                ));
            }
        }
        let uncalibrated = useless.iter().filter(|useless| **useless).count();
        for (bits, _) in mask
            .bits_mut()
            .iter_mut()
            .zip(&useless)
            .filter(|(_, useless)| **useless)
        {
            *bits |= frame::mask::DEAD;
        }
        if !setup.config.operations.is_empty() && mask.rejected_count() == shape.pixels() {
            let reason = format!(
                "every one of {} pixels is masked, {uncalibrated} of them by their dark or flat: correct the mask, or \
                 record without operations",
                shape.pixels()
            );
            return Err(RecipeError::frames(NAME)(reason));
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
            warnings,
        })
    }
}
