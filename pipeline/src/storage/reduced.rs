//! What a closed run's master file holds beside the frames, read back: curves, pictures, mask, values by frame number.

use super::DatasetInfo;
use super::data_files::FRAMES;
use super::error::{At, StoreError};
use super::read::{master_of, open_file};
use super::results::{RESERVED, curve_path, final_path, image_path, scalar_path};
use super::sparse;
use crate::decisions::Names;
use crate::frame_metadata::{Kind, Value};
use driver::tracker::FrameState;
use frame::{FrameKind, Image, Shape};
use hdf5::types::{TypeDescriptor, VarLenUnicode};
use hdf5::{Dataset, Group, Location};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

const RESULTS: &str = "entry/results";

/// A curve of a closed run with its axis.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCurve {
    /// name, as the recipe gave it
    pub name: String,
    /// name, unit and values of the axis; `None` where the recipe gave none
    pub axis: Option<(String, String, Vec<f64>)>,
    /// values; NaN where the frame has no result
    pub values: Vec<f32>,
    /// standard errors, where there are any
    pub errors: Option<Vec<f32>>,
}

/// The first curve of a closed run: that of frame `frame`, or the run's own. `None` where there is no such curve.
///
/// # Errors
/// [`StoreError::FrameNumber`] past the last frame, [`StoreError::Hdf5`] where the file cannot be read.
pub fn read_curve(path: &Path, frame: Option<u64>) -> Result<Option<StoredCurve>, StoreError> {
    let master = master_of(path)?;
    let file = open_file(&master)?;
    let read = || -> Result<Result<Option<StoredCurve>, u64>, hdf5::Error> {
        let Some(name) = first_curve(&file.group(RESULTS)?)? else {
            return Ok(Ok(None));
        };
        let place = |name: &str| match frame {
            Some(_) => curve_path(name),
            None => final_path(name),
        };
        let at = |name: &str| file.link_exists(&place(name)).then(|| file.dataset(&place(name)));
        let Some(values) = at(&name).transpose()? else {
            return Ok(Ok(None));
        };
        let rows = values.shape().first().copied().unwrap_or(0) as u64;
        if frame.is_some_and(|frame| frame >= rows) {
            return Ok(Err(rows));
        }
        let errors = at(&format!("{name}_errors")).transpose()?;
        Ok(Ok(Some(StoredCurve {
            axis: axis_of(&file.group(&format!("{RESULTS}/{name}"))?)?,
            values: row(&values, frame)?,
            errors: errors.map(|errors| row(&errors, frame)).transpose()?,
            name,
        })))
    };
    match (read().at("reading a curve of", &master)?, frame) {
        (Ok(curve), _) => Ok(curve),
        (Err(frames), frame) => Err(StoreError::FrameNumber {
            frame: frame.unwrap_or_default(),
            frames,
        }),
    }
}

/// Row `frame` of a curve of a closed run; `None` where it has no such curve.
///
/// # Errors
/// [`StoreError::FrameNumber`] past the last frame, [`StoreError::Hdf5`] where the file cannot be read.
pub fn read_curve_row(path: &Path, name: &str, frame: u64) -> Result<Option<Vec<f32>>, StoreError> {
    let master = master_of(path)?;
    let file = open_file(&master)?;
    let read = || -> Result<Result<Option<Vec<f32>>, u64>, hdf5::Error> {
        // HDF5 reports a path whose groups are not there as an error: step by step instead.
        let missing = !file.link_exists(RESULTS) || !file.group(RESULTS)?.link_exists(name);
        if missing {
            return Ok(Ok(None));
        }
        let values = file.dataset(&curve_path(name))?;
        let rows = values.shape().first().copied().unwrap_or(0) as u64;
        if frame >= rows {
            return Ok(Err(rows));
        }
        Ok(Ok(Some(row(&values, Some(frame))?)))
    };
    let found = read().at("reading a curve of", &master)?;
    found.map_err(|frames| StoreError::FrameNumber { frame, frames })
}

/// What the results of a closed run are called: scalars with units, and the first curve with the values of its axis.
pub fn read_names(path: &Path) -> Result<Names, StoreError> {
    let master = master_of(path)?;
    let file = open_file(&master)?;
    let read = || -> Result<Names, hdf5::Error> {
        let mut names = Names::default();
        if !file.link_exists(RESULTS) {
            return Ok(names);
        }
        let results = file.group(RESULTS)?;
        if results.link_exists("scalars") {
            let scalars = results.group("scalars")?;
            for name in scalars
                .member_names()?
                .into_iter()
                .filter(|name| name != "frame_number")
            {
                let dataset = scalars.dataset(&name)?;
                let unit = text(&dataset, "units").unwrap_or_default();
                names.scalars.push((name, unit));
            }
        }
        if let Some(curve) = first_curve(&results)? {
            let axis = axis_of(&results.group(&curve)?)?;
            names.curve = Some((curve, axis.map_or_else(Vec::new, |(_, _, values)| values)));
        }
        Ok(names)
    };
    read().at("reading the results of", &master)
}

/// Rows `frames` of a scalar of a closed run; cut to those that exist.
pub fn read_scalar(path: &Path, name: &str, frames: Range<usize>) -> Result<Vec<f64>, StoreError> {
    let master = master_of(path)?;
    let read = || -> Result<Vec<f64>, hdf5::Error> {
        let dataset = open_file(&master)
            .map_err(|error| error.to_string())?
            .dataset(&scalar_path(name))?;
        let length = dataset.shape().first().copied().unwrap_or(0);
        let range = frames.start.min(length)..frames.end.min(length);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        Ok(dataset.read_slice_1d(range)?.to_vec())
    };
    read().at("reading the results of", &master)
}

/// Every picture of a closed run, without its values.
pub fn list_images(path: &Path) -> Result<Vec<Image>, StoreError> {
    let master = master_of(path)?;
    let file = open_file(&master)?;
    let read = || -> Result<Vec<Image>, hdf5::Error> {
        let group = format!("{RESULTS}/images");
        if !file.link_exists(&group) {
            return Ok(Vec::new());
        }
        let names = file.group(&group)?.member_names()?;
        names
            .iter()
            .map(|name| describe_image(name, &file.dataset(&image_path(name))?))
            .collect()
    };
    read().at("listing the pictures of", &master)
}

/// A picture of a closed run; `None` where there is none of this name.
pub fn read_image(path: &Path, name: &str) -> Result<Option<Image>, StoreError> {
    let Some(mut image) = list_images(path)?.into_iter().find(|image| image.name == name) else {
        return Ok(None);
    };
    let master = master_of(path)?;
    let values = open_file(&master)?
        .dataset(&image_path(name))
        .and_then(|d| d.read_raw());
    image.values = values.at("reading a picture of", &master)?;
    Ok(Some(image))
}

/// The pixel mask of a closed run, NXmx bits; `None` where the run had none.
pub fn read_mask(path: &Path) -> Result<Option<(Shape, Vec<u32>)>, StoreError> {
    const MASK: &str = "entry/instrument/detector/pixel_mask";
    let master = master_of(path)?;
    let file = open_file(&master)?;
    let read = || -> Result<Option<(Shape, Vec<u32>)>, hdf5::Error> {
        if !file.link_exists(MASK) {
            return Ok(None);
        }
        let dataset = file.dataset(MASK)?;
        match dataset.shape()[..] {
            [rows, columns] => Ok(Some((Shape::new(rows, columns), dataset.read_raw()?))),
            _ => Ok(None),
        }
    };
    read().at("reading the mask of", &master)
}

/// Values by frame number of the frames `frames` of a closed run, one list per name, `None` where there is no value.
pub fn read_frame_metadata(
    path: &Path,
    frames: Range<usize>,
) -> Result<BTreeMap<String, Vec<Option<Value>>>, StoreError> {
    const GROUP: &str = "entry/frame_metadata";
    let master = master_of(path)?;
    let file = open_file(&master)?;
    let read = || -> Result<BTreeMap<String, Vec<Option<Value>>>, hdf5::Error> {
        let mut columns = BTreeMap::new();
        if !file.link_exists(GROUP) {
            return Ok(columns);
        }
        let group = file.group(GROUP)?;
        for name in group.member_names()? {
            let dataset = group.dataset(&name)?;
            let length = dataset.shape().first().copied().unwrap_or(0);
            let range = frames.start.min(length)..frames.end.min(length);
            let values = match Kind::of(&name) {
                _ if range.is_empty() => Vec::new(),
                Kind::Number => {
                    let values = dataset.read_slice_1d::<f64, _>(range)?;
                    let told = values.iter().map(|v| v.is_finite().then_some(Value::Number(*v)));
                    told.collect()
                }
                Kind::Nanoseconds => {
                    let values = dataset.read_slice_1d::<u64, _>(range)?;
                    let told = values.iter().map(|v| (*v != 0).then_some(Value::Nanoseconds(*v)));
                    told.collect()
                }
            };
            columns.insert(name, values);
        }
        Ok(columns)
    };
    read().at("reading values by frame number of", &master)
}

/// What a closed run's master file knows of one frame beside its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameFacts {
    /// whether it lacks parts
    pub partial: bool,
    /// what it was taken for
    pub kind: FrameKind,
    /// rotation angle, degrees
    pub angle_deg: Option<f64>,
    /// pixels at or above this are saturated
    pub saturation: Option<f64>,
}

/// What is known of frame `frame` of a closed run.
pub fn read_frame_facts(path: &Path, frame: u64) -> Result<FrameFacts, StoreError> {
    let master = master_of(path)?;
    let file = open_file(&master)?;
    let cell = |name: &str| -> Result<Option<f64>, hdf5::Error> {
        if !file.link_exists(name) {
            return Ok(None);
        }
        let dataset = file.dataset(name)?;
        match dataset.shape()[..] {
            [] => dataset.read_scalar::<f64>().map(Some),
            [length] if frame < length as u64 => {
                let index = frame as usize;
                Ok(dataset.read_slice_1d::<f64, _>(index..index + 1)?.first().copied())
            }
            _ => Ok(None),
        }
    };
    let read = || -> Result<FrameFacts, hdf5::Error> {
        let turned = match cell("entry/sample/rotation_angle")? {
            Some(angle) => Some(angle),
            None => cell("entry/sample/transformations/omega")?,
        };
        let key = cell("entry/instrument/detector/image_key")?.unwrap_or(0.0);
        Ok(FrameFacts {
            partial: cell("entry/ledger/frame_state")? == Some(f64::from(FrameState::Partial as u8)),
            kind: FrameKind::from_code(key as u8).unwrap_or(FrameKind::Invalid),
            angle_deg: turned.filter(|angle| angle.is_finite()),
            saturation: cell("entry/instrument/detector/saturation_value")?,
        })
    };
    read().at("looking up a frame in", &master)
}

/// The frames and every result of a closed run, as the master file has them: file, path, shape, type.
pub fn list_datasets(path: &Path) -> Result<Vec<DatasetInfo>, StoreError> {
    let master = master_of(path)?;
    let file = open_file(&master)?;
    let read = || -> Result<Vec<DatasetInfo>, hdf5::Error> {
        let (mut found, mut groups) = match sparse::is_sparse(&file) {
            true => (Vec::new(), vec![sparse::group_of(&file)?]),
            false => (vec![file.dataset(FRAMES)?], Vec::new()),
        };
        if file.link_exists(RESULTS) {
            groups.push(file.group(RESULTS)?);
        }
        while let Some(group) = groups.pop() {
            groups.extend(group.groups()?);
            found.extend(group.datasets()?);
        }
        let described = found.iter().filter(|dataset| dataset.ndim() > 0);
        described.map(|dataset| describe_dataset(&master, dataset)).collect()
    };
    read().at("listing the datasets of", &master)
}

fn describe_dataset(master: &Path, dataset: &Dataset) -> Result<DatasetInfo, hdf5::Error> {
    let numbers = |shape: Vec<usize>| shape.into_iter().map(|n| n as u64).collect::<Vec<u64>>();
    let shape = numbers(dataset.shape());
    let dtype = match dataset.dtype()?.to_descriptor()? {
        TypeDescriptor::Unsigned(size) => format!("u{}", size as usize),
        TypeDescriptor::Integer(size) => format!("i{}", size as usize),
        TypeDescriptor::Float(size) => format!("f{}", size as usize),
        other => other.to_string(),
    };
    let order = if dtype.ends_with('1') { '|' } else { '<' };
    Ok(DatasetInfo {
        file: master.display().to_string(),
        path: dataset.name(),
        chunk_shape: dataset.chunk().map_or_else(|| shape.clone(), numbers),
        dtype: format!("{order}{dtype}"),
        shape,
    })
}

/// The first curve by name, those with an axis before the others; pictures are none. The file's own order is no order
/// once a group has many members.
fn first_curve(results: &Group) -> Result<Option<String>, hdf5::Error> {
    let mut names = results.member_names()?;
    names.retain(|name| !RESERVED.contains(&name.as_str()));
    names.sort();
    let mut without_axis = None;
    for name in names {
        let data = results.group(&name)?;
        if !data.link_exists(&name) || data.dataset(&name)?.ndim() != 2 {
            continue;
        }
        if axis_of(&data)?.is_some() {
            return Ok(Some(name));
        }
        without_axis = without_axis.or(Some(name));
    }
    Ok(without_axis)
}

/// Name, unit and values of what `@axes` names last.
fn axis_of(data: &Group) -> Result<Option<(String, String, Vec<f64>)>, hdf5::Error> {
    let axes = data.attr("axes")?.read_raw::<VarLenUnicode>()?;
    let Some(axis) = axes.last().filter(|axis| data.link_exists(axis)) else {
        return Ok(None);
    };
    let dataset = data.dataset(axis)?;
    let name = text(&dataset, "long_name").unwrap_or_else(|| axis.to_string());
    Ok(Some((
        name,
        text(&dataset, "units").unwrap_or_default(),
        dataset.read_raw()?,
    )))
}

fn row(dataset: &Dataset, frame: Option<u64>) -> Result<Vec<f32>, hdf5::Error> {
    match frame {
        Some(frame) => Ok(dataset.read_slice_1d((frame as usize, ..))?.to_vec()),
        None => dataset.read_raw(),
    }
}

fn describe_image(name: &str, dataset: &Dataset) -> Result<Image, hdf5::Error> {
    let [rows, columns] = dataset.shape()[..] else {
        return Err(format!(
            "the picture {name} has shape {:?}, expected two dimensions",
            dataset.shape()
        )
        .into());
    };
    Ok(Image {
        name: name.into(),
        shape: Shape::new(rows, columns),
        unit: text(dataset, "units").unwrap_or_default(),
        frames_used: dataset.attr("frames_used")?.read_scalar()?,
        frames_expected: dataset.attr("frames_expected")?.read_scalar()?,
        values: Vec::new(),
    })
}

fn text(at: &Location, name: &str) -> Option<String> {
    let read = at.attr(name).and_then(|attr| attr.read_scalar::<VarLenUnicode>());
    read.ok().map(|text| text.to_string())
}
