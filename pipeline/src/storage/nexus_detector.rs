//! Detectors that pyFAI describes by a NeXus file of their own (`Detector.save`): where the corners of every pixel are, and
//! which pixels are masked.

use super::error::{At, StoreError};
use super::read::open_file;
use frame::Shape;
use hdf5::types::{FixedAscii, VarLenAscii, VarLenUnicode};
use hdf5::{Group, Location};
use std::path::Path;

/// How deep below the file's root a detector is looked for.
const DEPTH: usize = 4;

/// What the file says.
#[derive(Clone, Debug)]
pub struct NexusDetector {
    /// shape of its frames
    pub shape: Shape,
    /// pixel size along the slow and the fast axis, metres
    pub pixel_m: Option<[f64; 2]>,
    /// 1 to 4 as in Exif
    pub orientation: Option<u8>,
    /// corners of every pixel, where they do not lie on one plane grid: rows, columns, 4 corners, (z, y, x), metres
    pub corners: Option<Vec<f32>>,
    /// whether a pixel is masked, row by row; empty where the file has no mask
    pub masked: Vec<bool>,
}

/// Reads the first NXdetector of a file.
///
/// # Errors
/// [`StoreError::Hdf5`] for a file that cannot be read, or that has no detector with a shape.
pub fn read_nexus_detector(path: &Path) -> Result<NexusDetector, StoreError> {
    let file = open_file(path)?;
    let read = || -> Result<NexusDetector, hdf5::Error> {
        let detector = find(&file, DEPTH).ok_or("it has no NXdetector")?;
        let numbers = |name: &str| -> Result<Option<Vec<f64>>, hdf5::Error> {
            match detector.link_exists(name) {
                true => Ok(Some(detector.dataset(name)?.read_raw::<f64>()?)),
                false => Ok(None),
            }
        };
        let pair = |name: &str| -> Result<Option<[f64; 2]>, hdf5::Error> {
            Ok(numbers(name)?.and_then(|values| values.try_into().ok()))
        };
        let array = |name: &str| detector.link_exists(name).then(|| detector.dataset(name)).transpose();
        let (corners, mask) = (array("pixel_corners")?, array("mask")?);
        if let Some(corners) = corners.as_ref().map(|corners| corners.shape())
            && !matches!(corners[..], [_, _, 4, 3])
        {
            return Err(format!("pixel_corners has the sizes {corners:?}: expected rows, columns, 4, 3").into());
        }
        let told = match pair("shape")? {
            Some(shape) => Some(shape),
            None => pair("max_shape")?,
        };
        let of_array = corners.as_ref().or(mask.as_ref()).map(|array| array.shape());
        let shape = match (of_array.as_deref(), told) {
            (Some([rows, columns, ..]), _) => Shape::new(*rows, *columns),
            (_, Some([rows, columns])) => Shape::new(rows as usize, columns as usize),
            _ => return Err("its detector has neither pixel_corners nor a shape".into()),
        };
        let masked: Vec<bool> = match mask {
            Some(mask) if mask.shape() != [shape.rows, shape.columns] => {
                return Err(format!("its mask has the sizes {:?}, its pixels are {shape}", mask.shape()).into());
            }
            Some(mask) => mask.read_raw::<f64>()?.iter().map(|value| *value != 0.0).collect(),
            None => Vec::new(),
        };
        let orientation = numbers("orientation")?.and_then(|values| values.first().copied());
        Ok(NexusDetector {
            shape,
            pixel_m: pair("pixel_size")?,
            orientation: orientation.map(|value| value as u8),
            corners: corners.map(|corners| corners.read_raw::<f32>()).transpose()?,
            masked,
        })
    };
    read().at("reading the detector of", path)
}

/// The first NXdetector at or below a group.
fn find(group: &Group, depth: usize) -> Option<Group> {
    if class(group).as_deref() == Some("NXdetector") {
        return Some(group.clone());
    }
    let below = depth.checked_sub(1)?;
    group.groups().ok()?.iter().find_map(|group| find(group, below))
}

fn class(at: &Location) -> Option<String> {
    let attribute = at.attr("NX_class").ok()?;
    let text = |text: &dyn std::fmt::Display| text.to_string();
    let unicode = attribute.read_scalar::<VarLenUnicode>().map(|value| text(&value));
    let ascii = || attribute.read_scalar::<VarLenAscii>().map(|value| text(&value));
    let fixed = || attribute.read_scalar::<FixedAscii<64>>().map(|value| text(&value));
    unicode.or_else(|_| ascii()).or_else(|_| fixed()).ok()
}
