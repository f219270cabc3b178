//! Where pixels are: a `.poni` file, the newest one of the store that is for the detector, or what the source says.

use super::super::files::{NamedFile, read_whole};
use super::super::{RecipeError, Setup};
use crate::storage::read_nexus_detector;
use frame::mask::{GAP, USER};
use frame::poni::DescribedDetector;
use frame::{Geometry, PixelCorners, PixelMask, Shape};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Largest `.poni` file; real ones have some hundred bytes.
const PONI_BYTES_MAX: u64 = 1 << 20;

/// The geometry of the file, of the store, or what the source says; `operation` names the asker in messages.
pub(super) fn load(
    setup: &Setup<'_>,
    operation: &'static str,
    poni: Option<&NamedFile>,
) -> Result<Geometry, RecipeError> {
    let shape = setup.stream.shape;
    let Some(path) = poni else {
        return match super::stored::poni(setup, operation)? {
            Some(found) => Ok(found.content.geometry),
            None => of_stream(setup, operation),
        };
    };
    let path = setup.path(path);
    let (poni, _) = read(&path).map_err(|reason| setup.wrong(operation, "poni", path.display(), reason))?;
    if let Some(of_poni) = poni.geometry.shape.filter(|of_poni| *of_poni != shape) {
        let expected = format!("it belongs to a detector of {of_poni} pixels, the frames are {shape}");
        return Err(setup.wrong(operation, "poni", path.display(), expected));
    }
    if poni.parallax {
        let expected = "it asks for parallax correction, which is not made here: write `Parallax: False` where that is good enough";
        return Err(setup.wrong(operation, "poni", path.display(), expected.to_string()));
    }
    Ok(poni.geometry)
}

/// A `.poni` file, and the mask of its detector where that is described by a file of its own.
fn read(path: &Path) -> Result<(frame::poni::Poni, Option<PixelMask>), String> {
    let bytes = read_whole(path, PONI_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not a text")?;
    let mut mask = None;
    let poni = frame::poni::parse_with(&text, |file| {
        // Relative to the .poni, wherever the program was started.
        let file = path.parent().unwrap_or(Path::new("")).join(file);
        let (described, of_file) = describe(&file)?;
        mask = of_file;
        Ok(described)
    });
    Ok((poni.map_err(|error| error.to_string())?, mask))
}

/// A detector by its NeXus file. A pixel of which that does not say where it is is masked, as pyFAI masks it.
fn describe(file: &Path) -> Result<(DescribedDetector, Option<PixelMask>), String> {
    let mut found = read_nexus_detector(file).map_err(|error| error.to_string())?;
    let shape = found.shape;
    let pixel_m = found.pixel_m.filter(|sizes| sizes.iter().all(|size| *size > 0.0));
    let pixel_m = pixel_m.ok_or("it has no pixel_size: expected two sizes above 0, metres")?;
    let mut mask = PixelMask::none(shape);
    for (bits, _) in mask
        .bits_mut()
        .iter_mut()
        .zip(&found.masked)
        .filter(|(_, masked)| **masked)
    {
        *bits |= USER;
    }
    if let Some(corners) = &mut found.corners {
        for (bits, pixel) in mask.bits_mut().iter_mut().zip(corners.chunks_exact_mut(12)) {
            if pixel.iter().any(|place| !place.is_finite()) {
                pixel.fill(0.0);
                *bits |= GAP;
            }
        }
    }
    let corners = found.corners.map(|corners| PixelCorners::new(shape, &corners));
    let described = DescribedDetector {
        pixel_m,
        shape,
        orientation: found.orientation,
        corners: corners.transpose().map_err(|error| error.to_string())?.map(Arc::new),
    };
    Ok((described, Some(mask).filter(|mask| mask.rejected_count() > 0)))
}

/// What the detector file of a recipe's `.poni` masks; `None` where there is none. What is wrong with the file is said by
/// [`load`].
pub(super) fn mask(setup: &Setup<'_>, poni: &NamedFile) -> Option<PixelMask> {
    read(&setup.path(poni)).ok().and_then(|(_, mask)| mask)
}

/// Where the pixels of frames of `shape` are, as the run's record keeps it: `origin_m` is the laboratory position of the centre
/// of pixel (0, 0), axes as pyFAI's (1 up, 2 sideways, 3 along the beam), `fast_m` and `slow_m` the steps to the next column
/// and the next row, metres; `beam_center_px` row and column of the direct beam. Null where pixels lie on no plane grid.
pub(super) fn told(geometry: &Geometry, shape: Shape, wavelength_m: Option<f64>) -> Value {
    if geometry.pixel_corners.is_some() {
        return Value::Null;
    }
    let at = |row, column| {
        let position = geometry.position(row, column, shape);
        [position.t1, position.t2, position.t3]
    };
    let origin = at(0.0, 0.0);
    let step = |to: [f64; 3]| [0, 1, 2].map(|axis| to[axis] - origin[axis]);
    json!({
        "origin_m": origin, "slow_m": step(at(1.0, 0.0)), "fast_m": step(at(0.0, 1.0)),
        "beam_center_px": geometry.beam_center_px(shape), "wavelength_m": geometry.wavelength_m.or(wavelength_m),
    })
}

fn of_stream(setup: &Setup<'_>, operation: &str) -> Result<Geometry, RecipeError> {
    let facts = &setup.stream.detector;
    let missing = |what: &str| {
        let expected = format!("the source does not say the {what}: name a .poni file");
        setup.wrong(operation, "poni", "(missing)", expected)
    };
    let pixel1_m = facts.pixel_size_slow_m.ok_or_else(|| missing("pixel size"))?;
    let pixel2_m = facts.pixel_size_fast_m.ok_or_else(|| missing("pixel size"))?;
    let row = facts.beam_center_y_px.ok_or_else(|| missing("beam centre"))?;
    let column = facts.beam_center_x_px.ok_or_else(|| missing("beam centre"))?;
    Ok(Geometry {
        dist_m: facts
            .distance_m
            .filter(|d| *d > 0.0)
            .ok_or_else(|| missing("detector distance"))?,
        poni1_m: row * pixel1_m,
        poni2_m: column * pixel2_m,
        rot1_rad: 0.0,
        rot2_rad: 0.0,
        rot3_rad: 0.0,
        wavelength_m: facts.wavelength_m,
        pixel1_m,
        pixel2_m,
        orientation: 3,
        shape: Some(setup.stream.shape),
        detector: facts.name.clone(),
        pixel_corners: None,
    })
}
