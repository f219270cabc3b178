//! Single values of an HDF5 file: numbers, texts, lists of what there is.

use super::facts::to_base;
use crate::source::SourceError;
use hdf5::types::TypeDescriptor;
use hdf5::{Dataset, Group};

/// Angles in degrees; `None` where the dataset is not a list of numbers.
pub(super) fn angles(dataset: &Dataset) -> Result<Option<Vec<f64>>, SourceError> {
    let factor = match text_attribute(dataset, "units").as_deref() {
        Some(unit @ ("rad" | "radian" | "radians")) => to_base(unit),
        _ => 1.0,
    };
    Ok(dataset
        .read_raw::<f64>()
        .ok()
        .map(|values| values.iter().map(|value| value * factor).collect()))
}

/// A number in base units.
pub(super) fn number(group: &Group, name: &str) -> Option<f64> {
    let dataset = group.dataset(name).ok()?;
    let value = dataset
        .read_raw::<f64>()
        .ok()?
        .first()
        .copied()
        .filter(|value| value.is_finite())?;
    Some(value * text_attribute(&dataset, "units").map_or(1.0, |unit| to_base(&unit)))
}

/// A text, however it is stored.
pub(super) fn text(group: &Group, name: &str) -> Option<String> {
    let dataset = group.dataset(name).ok()?;
    let text = dataset
        .read_scalar::<hdf5::types::VarLenUnicode>()
        .map(|text| text.to_string())
        .or_else(|_| {
            dataset
                .read_scalar::<hdf5::types::VarLenAscii>()
                .map(|text| text.to_string())
        })
        .or_else(|_| {
            dataset
                .read_scalar::<hdf5::types::FixedAscii<256>>()
                .map(|text| text.to_string())
        });
    text.ok().filter(|text| !text.is_empty())
}

pub(super) fn text_attribute(location: &hdf5::Location, name: &str) -> Option<String> {
    let attribute = location.attr(name).ok()?;
    attribute
        .read_scalar::<hdf5::types::VarLenUnicode>()
        .map(|text| text.to_string())
        .or_else(|_| {
            attribute
                .read_scalar::<hdf5::types::VarLenAscii>()
                .map(|text| text.to_string())
        })
        .or_else(|_| {
            attribute
                .read_scalar::<hdf5::types::FixedAscii<256>>()
                .map(|text| text.to_string())
        })
        .ok()
}

/// Numeric datasets of two dimensions or more, by name.
pub(super) fn collect(group: &Group, prefix: &str, depth: usize, out: &mut Vec<(String, Vec<usize>)>) {
    // Deeper nesting, or more, is no place for frames.
    if depth > 8 || out.len() > 1000 {
        return;
    }
    for name in group.member_names().unwrap_or_default() {
        let path = format!("{prefix}/{name}");
        if let Ok(dataset) = group.dataset(&name) {
            let numeric = dataset.dtype().and_then(|t| t.to_descriptor()).is_ok_and(|t| {
                matches!(
                    t,
                    TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_) | TypeDescriptor::Float(_)
                )
            });
            if numeric && dataset.ndim() >= 2 {
                out.push((path, dataset.shape()));
            }
        } else if let Ok(inner) = group.group(&name) {
            collect(&inner, &path, depth + 1, out);
        }
    }
}
