//! What NXtomo asks for.

use super::RunInfo;
use super::nexus::{self, Nx};
use frame::{FrameKind, StreamDescription};
use hdf5::Dataset;

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
