//! Where pixels are: a `.poni` file, the newest one of the store that is for the detector, or what the source says.

use super::super::{RecipeError, Setup};
use frame::{Geometry, Shape};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The geometry of the file, of the store, or what the source says; `operation` names the asker in messages.
pub(super) fn load(
    setup: &Setup<'_>,
    operation: &'static str,
    poni: Option<&PathBuf>,
) -> Result<Geometry, RecipeError> {
    let shape = setup.stream.shape;
    let Some(path) = poni else {
        return match super::stored::poni(setup, operation)? {
            Some(found) => Ok(found.content.geometry),
            None => of_stream(setup, operation),
        };
    };
    let path = setup.path(path);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| setup.wrong(operation, "poni", path.display(), format!("cannot be read: {error}")))?;
    let poni =
        frame::poni::parse(&text).map_err(|error| setup.wrong(operation, "poni", path.display(), error.to_string()))?;
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
        poni1_m: (row + 0.5) * pixel1_m,
        poni2_m: (column + 0.5) * pixel2_m,
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
