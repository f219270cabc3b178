//! The azimuthal curve as NXazint1d, in a subentry beside the raw data's definition.

use super::facts::Facts;
use super::nexus::{self, Nx};
use super::run_json::rfc3339;
use super::{CurveAxis, RunInfo, curve_path};
use frame::ResultLayout;
use frame::geometry::HC_KEV_M;
use serde_json::Value;

type Result<T> = std::result::Result<T, hdf5::Error>;

/// Curve that NXazint1d calls `I`.
const INTENSITY: &str = "intensity";
/// Curves that NXazint1d calls `I_errors`, the first that the layout has.
const ERRORS: [&str; 2] = ["intensity_errors", "sigma"];

/// Adds `/entry/azint` where the layout has a curve `intensity` over q or 2theta.
pub(super) fn write(
    entry: &Nx,
    info: &RunInfo,
    layout: &ResultLayout,
    axes: &[CurveAxis],
    facts: &Facts,
) -> Result<bool> {
    let axis = axes
        .iter()
        .find(|a| a.curve == INTENSITY && matches!(a.name.as_str(), "q" | "2theta"));
    let (Some(axis), Some(field)) = (axis, layout.curves.iter().find(|c| c.name == INTENSITY)) else {
        return Ok(false);
    };
    let subentry = entry.group("azint", "NXsubentry")?;
    subentry.text("definition", "NXazint1d")?;
    subentry.text("title", &info.title)?;
    subentry.value("solid_angle_applied", applied(&info.parameters, "solid_angle"))?;
    subentry.value("polarization_applied", applied(&info.parameters, "polarization"))?;
    subentry.value("normalization_applied", true)?;
    subentry.value("monitor_applied", false)?;

    let instrument = subentry.group("instrument", "NXinstrument")?;
    instrument.text("name", &info.instrument)?;
    let monochromator = instrument.group("monochromator", "NXmonochromator")?;
    let wavelength_m = facts.wavelength_m.unwrap_or(f64::NAN);
    monochromator.quantity("wavelength", wavelength_m * 1e10, "angstrom")?;
    monochromator.quantity("energy", HC_KEV_M / wavelength_m, "keV")?;
    let source = instrument.group("source", "NXsource")?;
    source.text("name", &info.source)?;
    let kind = source.text(
        "type",
        info.metadata.get("source_type").map_or("unknown", String::as_str),
    )?;
    // Says that the text need not be one of NXsource's list.
    nexus::attr(&kind, "custom", &true)?;
    source.text("probe", "x-ray")?;

    let reduction = subentry.group("reduction", "NXprocess")?;
    let (program, version) = info.software.split_once(' ').unwrap_or((&info.software, ""));
    reduction.text("program", program)?;
    reduction.text("version", version)?;
    reduction.text("date", &rfc3339(info.start_time))?;
    reduction.text(
        "reference",
        "Kieffer & Wright, Powder Diffr. 28 (2013) S339-S350, doi:10.1017/S0885715613000924",
    )?;
    let input = reduction.group("input", "NXparameters")?;
    write_parameters(&input, "", &info.parameters)?;

    let data = subentry.group("data", "NXdata")?;
    nexus::attr_text(data.group_ref(), "signal", "I")?;
    nexus::attr_texts(data.group_ref(), "axes", &[".", "radial_axis"])?;
    nexus::attr_text(data.group_ref(), "interpretation", "spectrum")?;
    data.link(&curve_path(INTENSITY), "I")?;
    let intensity = data.group_ref().dataset("I")?;
    nexus::attr_text(&intensity, "long_name", "intensity")?;
    if field.unit.is_empty() {
        nexus::attr_text(&intensity, "units", "arbitrary units")?;
    }
    let errors = ERRORS.iter().find(|name| {
        layout
            .curves
            .iter()
            .any(|c| c.name == **name && c.length == field.length)
    });
    if let Some(errors) = errors {
        data.link(&curve_path(errors), "I_errors")?;
        let errors = data.group_ref().dataset("I_errors")?;
        nexus::attr_text(&errors, "long_name", "estimated intensity error")?;
    }
    let radial = data.quantities("radial_axis", &axis.values, &axis.unit)?;
    nexus::attr_text(&radial, "long_name", &axis.name)?;
    nexus::attr_text(subentry.group_ref(), "default", "data")?;
    Ok(true)
}

/// Whether the parameters have a key of this name, at any depth, that switches the correction on: a number
/// (a polarisation factor) or `true`.
fn applied(parameters: &Value, key: &str) -> bool {
    match parameters {
        Value::Object(map) => map.iter().any(|(name, value)| {
            (name.starts_with(key) && (value.is_number() || value == &Value::Bool(true))) || applied(value, key)
        }),
        _ => false,
    }
}

/// Every leaf of the parameters as a field of its own; its name is the path of keys, joined by `_`.
fn write_parameters(group: &Nx, prefix: &str, parameters: &Value) -> Result<()> {
    let name = nexus::valid_name(prefix);
    if !prefix.is_empty() && group.has(&name) {
        return Ok(());
    }
    match parameters {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}_{key}")
                };
                write_parameters(group, &path, value)?;
            }
            Ok(())
        }
        Value::Null => Ok(()),
        Value::Bool(value) => group.value(&name, *value).map(drop),
        Value::Number(value) => match value.as_i64() {
            Some(integer) => group.value(&name, integer).map(drop),
            None => group.value(&name, value.as_f64().unwrap_or(f64::NAN)).map(drop),
        },
        Value::String(value) => group.text(&name, value).map(drop),
        Value::Array(_) => group.text(&name, &parameters.to_string()).map(drop),
    }
}
