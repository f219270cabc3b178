//! Reading closed runs back.

use super::codec;
use super::data_files::{FRAMES, FRAMES_PER_FILE, file_name};
use super::error::{At, StoreError};
use super::h5;
use super::open;
use super::run_json::RunRecord;
use super::sparse;
use frame::codec::{Beneath, Scratch, decompress};
use frame::{PixelType, Shape};
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use zerocopy::IntoBytes;

/// Most values of an array that is read whole: six planes of 16 million pixels are 1.0e8.
const ARRAY_VALUES_MAX: usize = 1 << 27;

/// The pixels of one frame of a closed run, decompressed, with shape and type; of a sparse run dense again, which is not what
/// was measured. `path` is the run's folder or its master file.
///
/// # Errors
/// [`StoreError::FrameNumber`] past the end, [`StoreError::FrameMissing`] for a frame that was never stored,
/// [`StoreError::NotARun`] for a folder without `run.json`.
pub fn read_frame(path: &Path, frame: u64) -> Result<(Vec<u8>, Shape, PixelType), StoreError> {
    let master = master_of(path)?;
    h5::register_bitshuffle().at("registering filter 32008 for", &master)?;
    let opened = open_file(&master)?;
    if sparse::is_sparse(&opened) {
        return sparse::read_dense(&master, &opened, frame);
    }
    drop(opened);
    let (mut file, chunk) = locate(&master, frame, 1)?;
    let mut generation = 1;
    let (dataset, shape, pixel_type, place) = loop {
        let opened = open_file(&file)?;
        let dataset = opened.dataset(FRAMES).at("opening the frames of", &file)?;
        let (frames, shape, pixel_type) = describe(&dataset, &file)?;
        if chunk >= frames as u64 {
            return Err(StoreError::FrameNumber {
                frame,
                frames: frames as u64,
            });
        }
        if let Some(place) = h5::chunk_place(&dataset, chunk).at("looking up a frame in", &file)? {
            break (dataset, shape, pixel_type, place);
        }
        // A file that the disk refused has others that went on in its place.
        generation += 1;
        let next = locate(&master, frame, generation)?.0;
        if !next.is_file() {
            return Err(StoreError::FrameMissing { frame, path: file });
        }
        file = next;
    };
    let filtered = !dataset.filters().is_empty() && place.filters_skipped & 1 == 0;
    let mut stored = vec![0; place.bytes as usize];
    File::open(&file)
        .and_then(|f| f.read_exact_at(&mut stored, place.offset))
        .at("reading a frame of", &file)?;
    let frame_bytes = shape.pixels() * pixel_type.bytes();
    if !filtered {
        let found = stored.len();
        return if found == frame_bytes {
            Ok((stored, shape, pixel_type))
        } else {
            Err(size(&file, found, frame_bytes))
        };
    }
    let beneath = h5::beneath(&dataset).unwrap_or(Beneath::Lz4);
    let announced = codec::decompressed_bytes(&stored, beneath).unwrap_or(0);
    if announced != frame_bytes {
        return Err(size(&file, announced, frame_bytes));
    }
    let mut pixels = vec![0; frame_bytes];
    decompress(
        beneath,
        &stored,
        pixel_type.bytes(),
        &mut pixels,
        &mut Scratch::default(),
    )
    .map_err(|source| {
        let doing = "decompressed";
        StoreError::Codec { frame, doing, source }
    })?;
    Ok((pixels, shape, pixel_type))
}

/// Number of frames of a closed run, stored or not, their shape and their type. `path` as for [`read_frame`].
///
/// # Errors
/// [`StoreError::Hdf5`] where the file cannot be read.
pub fn frames_of(path: &Path) -> Result<(u64, Shape, PixelType), StoreError> {
    let master = master_of(path)?;
    let dataset = open_file(&master)?
        .dataset(FRAMES)
        .at("opening the frames of", &master)?;
    let (frames, shape, pixel_type) = describe(&dataset, &master)?;
    Ok((frames as u64, shape, pixel_type))
}

fn size(path: &Path, found: usize, expected: usize) -> StoreError {
    let reason = format!("a frame of {found} bytes, expected {expected}");
    StoreError::Verify {
        path: path.to_path_buf(),
        reason,
    }
}

/// Rows `rows` of a dataset of one or two dimensions (a scalar, a curve, an image) of a closed run as f32, and the
/// dataset's whole shape. The first dimension counts rows; `rows` is cut to those that exist.
///
/// # Errors
/// [`StoreError::Hdf5`] where the dataset does not exist or has another number of dimensions.
pub fn read_dataset_f32(path: &Path, dataset: &str, rows: Range<usize>) -> Result<(Vec<f32>, Vec<usize>), StoreError> {
    let master = master_of(path)?;
    h5::register_bitshuffle().at("registering filter 32008 for", &master)?;
    let file = open_file(&master)?;
    let read = || -> Result<(Vec<f32>, Vec<usize>), hdf5::Error> {
        let dataset = file.dataset(dataset)?;
        let shape = dataset.shape();
        let cut = |length: usize| rows.start.min(rows.end).min(length)..rows.end.min(length);
        let values = match shape[..] {
            [length] if cut(length).is_empty() => Vec::new(),
            [length, _] if cut(length).is_empty() => Vec::new(),
            [length] => dataset.read_slice_1d(cut(length))?.into_iter().collect(),
            [length, _] => dataset.read_slice_2d((cut(length), ..))?.into_iter().collect(),
            _ => return Err(format!("a dataset of shape {shape:?} has no rows to read").into()),
        };
        Ok((values, shape))
    };
    read().at("reading from", &master)
}

/// Sizes, slowest first, and values of a whole dataset of numbers; without a name, of the only dataset at the file's root.
///
/// # Errors
/// [`StoreError::Hdf5`] where there is no such dataset or, without a name, not exactly one.
pub fn read_array(path: &Path, dataset: Option<&str>) -> Result<(Vec<usize>, Vec<f64>), StoreError> {
    h5::register_bitshuffle().at("registering filter 32008 for", path)?;
    let file = open_file(path)?;
    let read = || -> Result<(Vec<usize>, Vec<f64>), hdf5::Error> {
        let dataset = match dataset {
            Some(name) => file.dataset(name)?,
            None => {
                let mut all = file.datasets()?;
                match (all.pop(), all.len()) {
                    (Some(only), 0) => only,
                    (_, others) => {
                        let found = if others == 0 { "none" } else { "several" };
                        return Err(
                            format!("{found} at the root of the file: name the dataset, as FILE::/path").into(),
                        );
                    }
                }
            }
        };
        if dataset.size() > ARRAY_VALUES_MAX {
            let sizes = dataset.shape();
            return Err(format!("its sizes are {sizes:?}: at most {ARRAY_VALUES_MAX} values are read").into());
        }
        Ok((dataset.shape(), dataset.read_raw::<f64>()?))
    };
    read().at("reading an array from", path)
}

/// The master file of a run that is given by its folder or by the master file itself.
pub(super) fn master_of(path: &Path) -> Result<PathBuf, StoreError> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let record = RunRecord::read(path)?;
    match record.files.first() {
        Some(master) => Ok(path.join(&master.name)),
        None => Err(StoreError::NotARun {
            path: path.to_path_buf(),
        }),
    }
}

/// Data file of a frame, the first or one that took over from it, and the frame's index there.
fn locate(master: &Path, frame: u64, generation: u32) -> Result<(PathBuf, u64), StoreError> {
    let Frames { run, count, per_file } = placed_frames(master)?;
    if frame >= count {
        return Err(StoreError::FrameNumber { frame, frames: count });
    }
    Ok((
        master.with_file_name(file_name(&run, frame / per_file, generation)),
        frame % per_file,
    ))
}

/// What a master file says of its run's frames.
pub(super) struct Frames {
    /// name of the run, as its files have it
    pub(super) run: String,
    /// frames of the run
    pub(super) count: u64,
    /// and of each data file
    pub(super) per_file: u64,
}

pub(super) fn placed_frames(master: &Path) -> Result<Frames, StoreError> {
    let file = open_file(master)?;
    let look = || -> Result<(u64, u64), hdf5::Error> {
        let frames = file.dataset(FRAMES)?.shape().first().copied().unwrap_or(0) as u64;
        Ok((frames, file.group("/entry/data")?.attr(FRAMES_PER_FILE)?.read_scalar()?))
    };
    let (count, per_file) = look().at("looking up a frame in", master)?;
    let run = master
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix("_master.h5"));
    match run.filter(|_| per_file > 0) {
        Some(run) => Ok(Frames {
            run: run.into(),
            count,
            per_file,
        }),
        None => Err(StoreError::Verify {
            path: master.to_path_buf(),
            reason: "it is not named RUN_master.h5".into(),
        }),
    }
}

pub(super) fn open_file(path: &Path) -> Result<hdf5::File, StoreError> {
    open::read(path).at("opening", path)
}

/// Number of frames, their shape and their type.
fn describe(dataset: &hdf5::Dataset, path: &Path) -> Result<(usize, Shape, PixelType), StoreError> {
    let descriptor = dataset
        .dtype()
        .and_then(|t| t.to_descriptor())
        .at("reading the pixel type of", path)?;
    let pixel_type = match descriptor {
        TypeDescriptor::Unsigned(IntSize::U1) => Some(PixelType::U8),
        TypeDescriptor::Unsigned(IntSize::U2) => Some(PixelType::U16),
        TypeDescriptor::Unsigned(IntSize::U4) => Some(PixelType::U32),
        TypeDescriptor::Integer(IntSize::U2) => Some(PixelType::I16),
        TypeDescriptor::Integer(IntSize::U4) => Some(PixelType::I32),
        TypeDescriptor::Float(FloatSize::U4) => Some(PixelType::F32),
        _ => None,
    };
    match (&dataset.shape()[..], pixel_type) {
        (&[frames, rows, columns], Some(pixel_type)) => Ok((frames, Shape::new(rows, columns), pixel_type)),
        (shape, _) => {
            let reason = format!("{FRAMES} has shape {shape:?} and type {descriptor}");
            Err(StoreError::Verify {
                path: path.to_path_buf(),
                reason,
            })
        }
    }
}

/// Shape of the frames as the master file shows them.
pub(super) fn frames_shape(master: &Path) -> Result<Vec<usize>, StoreError> {
    open_file(master)?
        .dataset(FRAMES)
        .map(|d| d.shape())
        .at("opening the frames of", master)
}

/// Whether the frame, read by libhdf5 through the master file, has exactly these bytes.
pub(super) fn same_through_master(
    master: &Path,
    frame: u64,
    pixel_type: PixelType,
    pixels: &[u8],
) -> Result<bool, StoreError> {
    let file = open_file(master)?;
    let dataset = file.dataset(FRAMES).at("opening the frames of", master)?;
    macro_rules! same {
        ($type:ty) => {
            dataset
                .read_slice_2d::<$type, _>((frame as usize, .., ..))
                .map(|values| values.as_slice().map(IntoBytes::as_bytes) == Some(pixels))
        };
    }
    let same = match pixel_type {
        PixelType::U8 => same!(u8),
        PixelType::U16 => same!(u16),
        PixelType::U32 => same!(u32),
        PixelType::I16 => same!(i16),
        PixelType::I32 => same!(i32),
        PixelType::F32 => same!(f32),
    };
    same.at("reading a frame through", master)
}

/// The ledger of a closed run. `path` is the run's folder or its master file.
///
/// # Errors
/// [`StoreError::NotARun`] for a folder without `run.json`, [`StoreError::Hdf5`] where the master has no ledger.
pub fn read_ledger(path: &Path) -> Result<crate::ledger::Columns, StoreError> {
    let master = master_of(path)?;
    let opened = open_file(&master)?;
    let group = opened.group("entry/ledger").at("opening the ledger of", &master)?;
    let column = |name: &str| group.dataset(name).at("opening the ledger of", &master);
    let read = "reading the ledger of";
    // Runs of earlier versions lack these.
    let newer = |name: &str| match group.link_exists(name) {
        true => column(name)?.read_raw().at(read, &master),
        false => Ok(Vec::new()),
    };
    let device_failed = match group.link_exists("device_failed") {
        true => column("device_failed")?.read_raw().at(read, &master)?,
        false => Vec::new(),
    };
    Ok(crate::ledger::Columns {
        frame_state: column("frame_state")?.read_raw().at(read, &master)?,
        analysis: column("analysis")?.read_raw().at(read, &master)?,
        storage: column("storage")?.read_raw().at(read, &master)?,
        arrival_ns: column("arrival")?.read_raw().at(read, &master)?,
        result_latency_ns: column("result_latency")?.read_raw().at(read, &master)?,
        parts_missing: newer("parts_missing")?,
        missing_bytes: newer("missing_bytes")?,
        device_failed,
    })
}
