//! What NXtomo asks for.

use super::error::{At, StoreError};
use super::nexus::{self, Nx};
use super::{RunInfo, open};
use frame::{FrameKind, StreamDescription};
use hdf5::Dataset;
use std::path::Path;

type Result<T> = std::result::Result<T, hdf5::Error>;

/// The columns of a tomography run, one value per frame.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) image_key: Dataset,
    pub(super) rotation_angle: Dataset,
}

/// Creates what NXtomo wants beyond the detector's common fields.
pub(super) fn write(
    detector: &Nx,
    sample: &Nx,
    data: &Nx,
    info: &RunInfo,
    stream: &StreamDescription,
) -> Result<Columns> {
    let frames = stream.frames_expected as usize;
    // What the slices were made with goes before what the source said.
    let used = info
        .parameters
        .get("rotation_axis_px")
        .and_then(serde_json::Value::as_f64);
    if let Some(column) = used.or(stream.detector.rotation_axis_px) {
        let dataset = detector.value("x_rotation_axis_pixel_position", column)?;
        nexus::attr_text(&dataset, "meaning", "columns from the centre of column 0")?;
    }
    let image_key = detector.column::<i32>("image_key", frames, FrameKind::Invalid as i32)?;
    nexus::attr_text(
        &image_key,
        "meaning",
        "0 projection, 1 flat, 2 dark, 3 invalid or never stored",
    )?;
    let rotation_angle = sample.column::<f64>("rotation_angle", frames, f64::NAN)?;
    nexus::attr_text(&rotation_angle, "units", "degree")?;
    nexus::attr_text(&image_key, "target", "/entry/instrument/detector/image_key")?;
    nexus::attr_text(&rotation_angle, "target", "/entry/sample/rotation_angle")?;
    data.link("/entry/instrument/detector/image_key", "image_key")?;
    data.link("/entry/sample/rotation_angle", "rotation_angle")?;
    Ok(Columns {
        image_key,
        rotation_angle,
    })
}

/// Kind and angle (degrees; NaN: none) of every frame of a closed run, from its master file. A frame that was never stored
/// is invalid and keeps the angle that was planned for it.
///
/// # Errors
/// [`StoreError::Hdf5`] where the file is none of a tomography.
pub fn read_tomography_columns(master: &Path) -> std::result::Result<(Vec<FrameKind>, Vec<f64>), StoreError> {
    let read = || -> Result<(Vec<i32>, Vec<f64>)> {
        let file = open::read(master)?;
        let keys = file.dataset("entry/instrument/detector/image_key")?.read_raw()?;
        Ok((keys, file.dataset("entry/sample/rotation_angle")?.read_raw()?))
    };
    let (keys, angles_deg) = read().at("reading image_key and rotation_angle of", master)?;
    let kind = |key: &i32| {
        u8::try_from(*key)
            .ok()
            .and_then(FrameKind::from_code)
            .unwrap_or(FrameKind::Invalid)
    };
    Ok((keys.iter().map(kind).collect(), angles_deg))
}
