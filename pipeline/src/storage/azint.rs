//! The azimuthal curve as NXazint1d and its picture as NXazint2d, in subentries beside the raw data's definition.

use super::facts::Facts;
use super::nexus::{self, Nx};
use super::run_json::rfc3339;
use super::{CurveAxis, RunInfo, curve_path};
use frame::ResultLayout;
use frame::geometry::HC_KEV_M;
use serde_json::Value;

type Result<T> = std::result::Result<T, hdf5::Error>;

/// Subentry, definition, what it calls `I`, and what it calls `I_errors`: the first that the layout has.
const CURVE: Kind = ("azint", "NXazint1d", "intensity", &["intensity_errors", "sigma"]);
const PICTURE: Kind = ("azint_2d", "NXazint2d", "intensity_2d", &["intensity_2d_errors"]);

type Kind = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Adds `/entry/azint` where the layout has a curve `intensity` over q or 2theta, and `/entry/azint_2d` where it has a
/// picture `intensity_2d` over azimuth and one of these.
pub(super) fn write(
    entry: &Nx,
    info: &RunInfo,
    layout: &ResultLayout,
    axes: &[CurveAxis],
    facts: &Facts,
) -> Result<()> {
    for kind in [CURVE, PICTURE] {
        let of: Vec<&CurveAxis> = axes.iter().filter(|axis| axis.curve == kind.2).collect();
        let (azimuth, radial) = match of[..] {
            [radial] => (None, radial),
            [azimuth, radial] => (Some(azimuth), radial),
            _ => continue,
        };
        if matches!(radial.name.as_str(), "q" | "2theta") && azimuth.is_some() == (kind == PICTURE) {
            subentry(entry, kind, info, layout, (azimuth, radial), facts)?;
        }
    }
    Ok(())
}

fn subentry(
    entry: &Nx,
    (name, definition, intensity_name, errors_names): Kind,
    info: &RunInfo,
    layout: &ResultLayout,
    (azimuth, radial): (Option<&CurveAxis>, &CurveAxis),
    facts: &Facts,
) -> Result<()> {
    let Some(field) = layout.curves.iter().find(|c| c.name == intensity_name) else {
        return Ok(());
    };
    let subentry = entry.group(name, "NXsubentry")?;
    subentry.text("definition", definition)?;
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
    let (listed, interpretation): (&[&str], _) = match azimuth {
        None => (&[".", "radial_axis"], "spectrum"),
        Some(_) => (&[".", "azimuthal_axis", "radial_axis"], "image"),
    };
    nexus::attr_texts(data.group_ref(), "axes", listed)?;
    nexus::attr_text(data.group_ref(), "interpretation", interpretation)?;
    data.link(&curve_path(intensity_name), "I")?;
    let intensity = data.group_ref().dataset("I")?;
    nexus::attr_text(&intensity, "long_name", "intensity")?;
    if field.unit.is_empty() {
        nexus::attr_text(&intensity, "units", "arbitrary units")?;
    }
    let errors = errors_names.iter().find(|name| {
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
    let values = data.quantities("radial_axis", &radial.values, &radial.unit)?;
    nexus::attr_text(&values, "long_name", &radial.name)?;
    if let Some(azimuth) = azimuth {
        let values = data.quantities("azimuthal_axis", &azimuth.values, &azimuth.unit)?;
        nexus::attr_text(&values, "long_name", "azimuthal bin center")?;
    }
    nexus::attr_text(subentry.group_ref(), "default", "data")
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
