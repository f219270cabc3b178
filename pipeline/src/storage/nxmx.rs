//! What NXmx and the Gold Standard ask for (Bernstein et al., IUCrJ 7 (2020) 784-792, and the NXmx definition).

use super::RunInfo;
use super::facts::Facts;
use super::nexus::{self, Nx};
use frame::StreamDescription;

type Result<T> = std::result::Result<T, hdf5::Error>;

const TRANSFORMATIONS: &str = "/entry/instrument/detector/transformations";
const MODULE: &str = "/entry/instrument/detector/module";

/// Fields of the detector that only the detector knows; written where its metadata has them.
const APPLIED: [&str; 5] = [
    "flatfield_applied",
    "pixel_mask_applied",
    "countrate_correction_applied",
    "angular_calibration_applied",
    "virtual_pixel_interpolation_applied",
];

/// Fills detector and beam. A required value that nobody told is written as NaN or `unknown`, and named in `warnings`.
pub(super) fn write(
    instrument: &Nx,
    detector: &Nx,
    stream: &StreamDescription,
    facts: &Facts,
    info: &RunInfo,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut required = |value: Option<f64>, what: &str| {
        value.unwrap_or_else(|| {
            warnings.push(format!("NXmx requires {what}, and nobody told it: the file has NaN"));
            f64::NAN
        })
    };
    let described = &stream.detector;
    let thickness = required(described.sensor_thickness_m, "the sensor thickness");
    detector.quantity("sensor_thickness", thickness, "m")?;
    let wavelength = required(facts.wavelength_m, "the wavelength");
    let beam = instrument.group("beam", "NXbeam")?;
    beam.quantity("incident_wavelength", wavelength * 1e10, "angstrom")?;
    let fast_m = required(facts.pixel_size_fast_m, "the pixel size along the fast axis");
    let slow_m = required(facts.pixel_size_slow_m, "the pixel size along the slow axis");
    if described.sensor_material.is_none() {
        warnings.push("NXmx requires the sensor material, and nobody told it: the file has \"unknown\"".into());
    }
    detector.text(
        "sensor_material",
        described.sensor_material.as_deref().unwrap_or("unknown"),
    )?;

    if !stream.pixel_type.numpy_name().starts_with('f') {
        detector.value("bit_depth_readout", (8 * stream.pixel_type.bytes()) as i64)?;
    }
    if stream.pixel_type.numpy_name().starts_with('u') {
        detector.value("underload_value", 0i64)?;
    }
    for name in APPLIED {
        if let Some(applied) = info.metadata.get(name).and_then(|text| flag(text)) {
            detector.value(name, applied)?;
        }
    }
    if facts.beam_center_x_px.is_some() {
        detector.value("beam_center_derived", !facts.rotations.is_empty())?;
    }
    if facts.distance_m.is_some() {
        detector.value("distance_derived", !facts.rotations.is_empty())?;
    }
    instrument.text("time_zone", &time_zone(info.start_time))?;
    group_of_one(instrument)?;
    let above = transformations(detector, facts)?;
    module(detector, stream, facts, &above, fast_m, slow_m)
}

/// Offset of local time from UTC where the file was written; all times in it are UTC.
fn time_zone(time: jiff::Timestamp) -> String {
    let minutes = jiff::tz::TimeZone::system().to_offset(time).seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// The detector group of one detector.
fn group_of_one(instrument: &Nx) -> Result<()> {
    let group = instrument.group("detector_group", "NXdetector_group")?;
    let names: Vec<hdf5::types::VarLenUnicode> = vec!["detector".parse().unwrap_or_default()];
    group.array("group_names", &names)?;
    group.array("group_index", &[1i64])?;
    group.array("group_parent", &[-1i64])?;
    Ok(())
}

/// The chain from the detector's plane to the laboratory; returns the path that the module depends on.
fn transformations(detector: &Nx, facts: &Facts) -> Result<String> {
    let group = detector.group("transformations", "NXtransformations")?;
    let mut above = ".".to_string();
    for (name, axis, angle_rad) in facts.rotations.iter().rev() {
        let rotation = group.quantities(name, &[*angle_rad], "rad")?;
        describe(&rotation, "rotation", *axis, [0.0; 3], None, &above)?;
        above = format!("{TRANSFORMATIONS}/{name}");
    }
    if let Some(distance_m) = facts.plane_distance_m {
        let translation = group.quantities("distance", &[distance_m], "m")?;
        describe(&translation, "translation", [0.0, 0.0, 1.0], [0.0; 3], None, &above)?;
        above = format!("{TRANSFORMATIONS}/distance");
    }
    detector.text("depends_on", &above)?;
    Ok(above)
}

/// The one module that the frame is treated as.
fn module(
    detector: &Nx,
    stream: &StreamDescription,
    facts: &Facts,
    above: &str,
    fast_m: f64,
    slow_m: f64,
) -> Result<()> {
    let module = detector.group("module", "NXdetector_module")?;
    module.array("data_origin", &[0i64, 0])?;
    module.array("data_size", &[stream.shape.rows as i64, stream.shape.columns as i64])?;
    module.array("data_stride", &[1i64, 1])?;
    let corner = facts.corner_m.unwrap_or([0.0; 3]);
    let length = corner.iter().map(|c| c * c).sum::<f64>().sqrt();
    let direction = if length > 0.0 {
        corner.map(|c| c / length)
    } else {
        [1.0, 0.0, 0.0]
    };
    let offset = module.quantity("module_offset", length, "m")?;
    describe(&offset, "translation", direction, [0.0; 3], Some("m"), above)?;
    let fast = module.quantity("fast_pixel_direction", fast_m, "m")?;
    describe(
        &fast,
        "translation",
        facts.fast,
        [0.0; 3],
        Some("m"),
        &format!("{MODULE}/module_offset"),
    )?;
    let slow = module.quantity("slow_pixel_direction", slow_m, "m")?;
    describe(
        &slow,
        "translation",
        facts.slow,
        [0.0; 3],
        Some("m"),
        &format!("{MODULE}/fast_pixel_direction"),
    )
}

/// The attributes of one link of a transformation chain.
pub(super) fn describe(
    dataset: &hdf5::Dataset,
    kind: &str,
    vector: [f64; 3],
    offset: [f64; 3],
    offset_units: Option<&str>,
    depends_on: &str,
) -> Result<()> {
    nexus::attr_text(dataset, "transformation_type", kind)?;
    nexus::attr_vector(dataset, "vector", vector)?;
    nexus::attr_vector(dataset, "offset", offset)?;
    nexus::attr_text(dataset, "offset_units", offset_units.unwrap_or("m"))?;
    nexus::attr_text(dataset, "depends_on", depends_on)
}
