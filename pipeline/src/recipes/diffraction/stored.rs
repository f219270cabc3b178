//! Calibrations of the store: the newest of each kind that holds when the run is armed and fits its frames.

use super::super::{RecipeError, Setup};
use crate::calibrations::{CalibrationKind, CalibrationRecord, Content, conditions_of};
use frame::{PixelMask, Shape};

/// A calibration that the run uses.
pub(super) struct Stored<T> {
    pub(super) record: CalibrationRecord,
    pub(super) content: T,
}

/// Sizes, slowest first, and values.
pub(super) type Planes = (Vec<usize>, Vec<f64>);

fn failed(operation: &'static str) -> impl Fn(crate::calibrations::CalibrationError) -> RecipeError {
    move |error| RecipeError::Frames {
        operation,
        reason: format!("a calibration of the store: {error}"),
    }
}

/// Values of the newest calibration of `kind` for frames of `shape`; of a pedestal that of `gain`.
pub(super) fn array(
    setup: &Setup<'_>,
    operation: &'static str,
    kind: CalibrationKind,
    shape: Shape,
    gain: Option<u8>,
) -> Result<Option<Stored<Planes>>, RecipeError> {
    let conditions = conditions_of(setup.stream);
    let fits = |record: &CalibrationRecord| {
        record.shape == Some([shape.rows, shape.columns])
            && record.conditions.gain == gain
            && record.conditions.hold_for(&conditions)
    };
    let newest = setup
        .calibrations
        .newest(kind, setup.time, fits)
        .map_err(failed(operation))?;
    let Some(record) = newest else { return Ok(None) };
    match setup.calibrations.read(&record).map_err(failed(operation))? {
        Content::Array(sizes, values) => Ok(Some(Stored {
            record,
            content: (sizes, values),
        })),
        Content::Text(_) => Ok(None),
    }
}

/// The newest mask.
pub(super) fn mask(setup: &Setup<'_>, shape: Shape) -> Result<Option<Stored<PixelMask>>, RecipeError> {
    let found = array(setup, "correct", CalibrationKind::Mask, shape, None)?;
    let Some(Stored { record, content }) = found else {
        return Ok(None);
    };
    let bits = content.1.iter().map(|value| *value as u32).collect();
    let content = PixelMask::from_bits(shape, bits).map_err(RecipeError::frames("correct"))?;
    Ok(Some(Stored { record, content }))
}

/// The newest geometry that is for this detector.
pub(super) fn poni(
    setup: &Setup<'_>,
    operation: &'static str,
) -> Result<Option<Stored<frame::poni::Poni>>, RecipeError> {
    let detector = crate::calibrations::Detector::of(setup.stream);
    let read = |record: &CalibrationRecord| match setup.calibrations.read(record) {
        Ok(Content::Text(text)) => frame::poni::parse(&text).ok(),
        _ => None,
    };
    let fits = |record: &CalibrationRecord| {
        read(record).is_some_and(|poni| {
            let shape = poni.geometry.shape.unwrap_or(detector.shape);
            shape == detector.shape && crate::calibrations::check::poni_fits(&poni, &detector).is_ok()
        })
    };
    let newest = setup.calibrations.newest(CalibrationKind::Poni, setup.time, fits);
    let Some(record) = newest.map_err(failed(operation))? else {
        return Ok(None);
    };
    Ok(read(&record).map(|content| Stored { record, content }))
}
