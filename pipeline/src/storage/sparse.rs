//! Sparse frames as a run of their own: the background around the beam as a curve per frame, and the pixels that deviate from
//! it. Lossy, and said so in the file. The layout is that of pyFAI's `sparsify-Bragg`, which FabIO's `SparseImage` reads as dense frames.
//!
//! ```text
//! /entry/sparse_frames/frame_ptr        frames + 1: pixels of frame n are those from frame_ptr[n] to frame_ptr[n + 1]
//! /entry/sparse_frames/index            number of each kept pixel, row by row through the frame
//! /entry/sparse_frames/intensity        its value, exactly as it was measured
//! /entry/sparse_frames/background_avg   [frame][ring] background, counts
//! /entry/sparse_frames/background_std   [frame][ring] its standard deviation
//! /entry/sparse_frames/radius           [ring] radius of the rings' middles
//! /entry/sparse_frames/mask             [row][column] radius of every pixel; NaN: masked
//! /entry/sparse_frames/normalization    [row][column] solid angle and polarisation, by which the background is multiplied
//! /entry/sparse_frames/dummy            what masked pixels read as
//! /entry/sparse_frames/frame_stored     1: the frame was measured; 0: it is not there
//! ```

use super::error::{At, StoreError};
use super::h5::{self, RowWriter};
use super::nexus::{self, Nx};
use super::run_json::{self, RunRecord};
use super::{RunEnd, RunInfo, Store, open, seal, state_jsonl};
use frame::codec::Beneath;
use frame::{PixelType, Shape};
use hdf5::{Dataset, Group};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Name of the group in `/entry`.
const GROUP: &str = "sparse_frames";
/// Pixels in a chunk.
const CHUNK: usize = 1 << 16;

/// Pixels of a frame as bytes, with shape and type.
type Dense = (Vec<u8>, Shape, PixelType);

/// A frame taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseFrame {
    /// kept pixels, row by row, ascending
    pub index: Vec<u32>,
    /// their values
    pub intensity: Vec<f64>,
    /// background of every ring, counts
    pub background_avg: Vec<f32>,
    /// its standard deviation
    pub background_std: Vec<f32>,
}

/// What sparse frames have in common.
#[derive(Clone, Debug)]
pub struct SparseConfig {
    /// frames of the run
    pub frames: usize,
    /// rows and columns
    pub shape: Shape,
    /// type of the frames that they come from
    pub pixel_type: PixelType,
    /// radius of the rings' middles
    pub radius: Vec<f32>,
    /// its unit
    pub unit: String,
    /// radius of every pixel, NaN where it is masked
    pub mask: Vec<f32>,
    /// factor of every pixel
    pub normalization: Vec<f32>,
    /// what masked pixels read as
    pub dummy: f64,
    /// the file that the frames are in
    pub raw_file: String,
}

/// A dataset of kept pixels that grows.
struct Growing {
    dataset: Dataset,
    length: usize,
}

impl Growing {
    fn create<T: hdf5::H5Type>(data: &Nx, name: &str, pixel_type: PixelType) -> Result<Self, hdf5::Error> {
        let new = data.group_ref().new_dataset::<T>();
        let values = h5::bitshuffle_values(pixel_type, Beneath::Lz4);
        let dataset = new
            .add_filter(h5::BITSHUFFLE_FILTER, &values)
            .chunk(CHUNK)
            .shape(hdf5::SimpleExtents::resizable([0]))
            .create(name)?;
        Ok(Self { dataset, length: 0 })
    }

    fn add<T: hdf5::H5Type>(&mut self, values: &[T]) -> Result<(), hdf5::Error> {
        let first = self.length;
        self.length += values.len();
        self.dataset.resize(self.length)?;
        match values.is_empty() {
            true => Ok(()),
            false => self.dataset.write_slice(values, first..self.length),
        }
    }
}

/// Writes the sparse frames of one run; see the module.
pub struct SparseWriter {
    folder: PathBuf,
    path: PathBuf,
    info: RunInfo,
    config: SparseConfig,
    file: hdf5::File,
    entry: Nx,
    data: Nx,
    index: Growing,
    intensity: Growing,
    average: RowWriter<f32>,
    spread: RowWriter<f32>,
    stored: Vec<u8>,
    ends: Vec<u64>,
}

impl SparseWriter {
    /// Creates the run's folder and file. `info.parameters` is written as it is.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::RunExists`], [`StoreError::Io`], [`StoreError::Hdf5`].
    pub fn create(store: &Store, info: &RunInfo, config: SparseConfig) -> Result<Self, StoreError> {
        let folder = store.make_run(info)?;
        state_jsonl::append_state(&folder, "recording", serde_json::json!({}))?;
        let path = folder.join(format!("{}_master.h5", info.id));
        h5::register_bitshuffle().at("registering filter 32008 for", &path)?;
        Self::build(folder, path.clone(), info, config).at("creating", &path)
    }

    fn build(folder: PathBuf, path: PathBuf, info: &RunInfo, config: SparseConfig) -> Result<Self, hdf5::Error> {
        let file = open::create_earliest(&path)?;
        let root = Nx::root(&file)?;
        nexus::attr_text(root.group_ref(), "NX_class", "NXroot")?;
        nexus::attr_text(root.group_ref(), "default", "entry")?;
        nexus::attr_text(root.group_ref(), "creator", &info.software)?;
        let entry = describe(&root, info, &config)?;
        let data = entry.group(GROUP, "NXdata")?;
        let at = data.group_ref();
        nexus::attr_text(at, "signal", "background_avg")?;
        nexus::attr_texts(at, "axes", &[".", "radius"])?;
        nexus::attr(at, "lossy", &1u8)?;
        nexus::attr_text(
            at,
            "description",
            "pixels in index are as measured; every other pixel was replaced by the background at its radius, \
             interp(mask, radius, background_avg[frame]) * normalization, and cannot be had back from this file",
        )?;
        let rings = config.radius.len();
        let radius = data.array("radius", &config.radius)?;
        nexus::attr_text(&radius, "units", &config.unit)?;
        nexus::attr_text(&radius, "unit", &config.unit)?;
        let mask = data.image("mask", config.shape, &config.mask)?;
        nexus::attr_text(&mask, "units", &config.unit)?;
        nexus::attr_text(&mask, "unit", &config.unit)?;
        nexus::attr_text(&mask, "meaning", "radius of the pixel; NaN: masked")?;
        data.image("normalization", config.shape, &config.normalization)?;
        data.value("dummy", config.dummy)?;
        let curve = |name: &str| -> Result<RowWriter<f32>, hdf5::Error> {
            let new = at.new_dataset::<f32>().fill_value(0f32).chunk((1, rings));
            let dataset = new.shape((config.frames, rings)).create(name)?;
            nexus::attr_text(&dataset, "interpretation", "spectrum")?;
            nexus::attr_text(&dataset, "units", "counts")?;
            RowWriter::new(dataset)
        };
        let (average, spread) = (curve("background_avg")?, curve("background_std")?);
        let intensity = match config.pixel_type {
            PixelType::U8 => Growing::create::<u8>(&data, "intensity", PixelType::U8),
            PixelType::U16 => Growing::create::<u16>(&data, "intensity", PixelType::U16),
            PixelType::U32 => Growing::create::<u32>(&data, "intensity", PixelType::U32),
            PixelType::I16 => Growing::create::<i16>(&data, "intensity", PixelType::I16),
            PixelType::I32 => Growing::create::<i32>(&data, "intensity", PixelType::I32),
            PixelType::F32 => Growing::create::<f32>(&data, "intensity", PixelType::F32),
        }?;
        nexus::attr_text(&intensity.dataset, "units", "counts")?;
        Ok(Self {
            index: Growing::create::<u32>(&data, "index", PixelType::U32)?,
            intensity,
            average,
            spread,
            stored: Vec::with_capacity(config.frames),
            ends: vec![0],
            folder,
            path,
            info: info.clone(),
            config,
            file,
            entry,
            data,
        })
    }

    /// Writes the next frame; `None` where it was never stored.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Hdf5`].
    pub fn write(&mut self, frame: Option<&SparseFrame>) -> Result<(), StoreError> {
        let number = self.stored.len();
        self.stored.push(frame.is_some().into());
        let mut write = || -> Result<(), hdf5::Error> {
            let Some(frame) = frame else { return Ok(()) };
            self.index.add(&frame.index)?;
            let values = frame.intensity.iter().copied();
            match self.config.pixel_type {
                PixelType::U8 => self.intensity.add(&values.map(|v| v as u8).collect::<Vec<_>>()),
                PixelType::U16 => self.intensity.add(&values.map(|v| v as u16).collect::<Vec<_>>()),
                PixelType::U32 => self.intensity.add(&values.map(|v| v as u32).collect::<Vec<_>>()),
                PixelType::I16 => self.intensity.add(&values.map(|v| v as i16).collect::<Vec<_>>()),
                PixelType::I32 => self.intensity.add(&values.map(|v| v as i32).collect::<Vec<_>>()),
                PixelType::F32 => self.intensity.add(&values.map(|v| v as f32).collect::<Vec<_>>()),
            }?;
            self.average.write(number, &frame.background_avg)?;
            self.spread.write(number, &frame.background_std)
        };
        let needed_bytes = frame.map_or(0, |frame| 8 * frame.index.len() as u64);
        write().map_err(|error| StoreError::hdf5("writing sparse frames to", &self.path, &error, needed_bytes))?;
        self.ends.push(self.index.length as u64);
        Ok(())
    }

    /// Pixels kept so far.
    pub fn kept(&self) -> u64 {
        self.index.length as u64
    }

    /// Closes the file and publishes the run by its `run.json`. Returns its files.
    ///
    /// # Errors
    /// Any; the run then has no `run.json`. [`StoreError::Verify`] where frames are missing.
    pub fn finish(self, end: RunEnd, warnings: Vec<String>) -> Result<Vec<PathBuf>, StoreError> {
        if self.stored.len() != self.config.frames {
            let reason = format!("{} of {} frames were written", self.stored.len(), self.config.frames);
            return Err(StoreError::Verify {
                path: self.path,
                reason,
            });
        }
        let close = || -> Result<(), hdf5::Error> {
            self.data.array("frame_ptr", &self.ends)?;
            self.data.array("frame_stored", &self.stored)?;
            self.entry.text("end_time", &run_json::rfc3339(end.end_time))?;
            self.entry.text("run_state", &end.state)?;
            self.file.flush()
        };
        close().at("completing", &self.path)?;
        // Datasets keep a file open as long as they live.
        drop((
            self.index,
            self.intensity,
            self.average,
            self.spread,
            self.data,
            self.entry,
            self.file,
        ));
        let record = seal::seal(&self.path)?;
        run_json::sync_folder(&self.folder)?;
        RunRecord::new(&self.info, end, vec![record], warnings).publish(&self.folder)?;
        Ok(vec![self.path])
    }

    /// Notes why there will be no run; what was written stays without a `run.json`.
    pub fn fail(self, reason: &str) {
        // The first error counts; where even this line cannot be written the missing run.json says enough.
        let _ = state_jsonl::append_state(&self.folder, "failed", serde_json::json!({ "error": reason }));
    }
}

/// Everything beside the frames.
fn describe(root: &Nx, info: &RunInfo, config: &SparseConfig) -> Result<Nx, hdf5::Error> {
    let entry = root.group("entry", "NXentry")?;
    nexus::attr_text(entry.group_ref(), "default", GROUP)?;
    nexus::attr_text(entry.group_ref(), "pyFAI_sparse_frames", GROUP)?;
    entry.text("title", &info.title)?;
    entry.text("experiment_identifier", &info.proposal)?;
    entry.text("entry_identifier", &info.id)?;
    entry.text("start_time", &run_json::rfc3339(info.start_time))?;
    let instrument = entry.group("instrument", "NXinstrument")?;
    instrument.text("name", &info.instrument)?;
    let sample = entry.group("sample", "NXsample")?;
    sample.text("name", &info.sample)?;
    let process = entry.group("sparsify", "NXprocess")?;
    let (program, version) = info.software.split_once(' ').unwrap_or((&info.software, ""));
    process.text("program", program)?;
    process.text("version", version)?;
    process.text("date", &run_json::rfc3339(info.start_time))?;
    process.text("raw_file", &config.raw_file)?;
    let configuration = process.group("configuration", "NXnote")?;
    configuration.text("type", "application/json")?;
    let told = serde_json::json!({ "sparsify": { "cutoff_pick": info.parameters["sparse"]["pick_sigmas"] },
        "parameters": info.parameters });
    configuration.text("data", &told.to_string())?;
    Ok(entry)
}

/// Whether a run's master file has sparse frames in the place of whole ones.
pub(super) fn is_sparse(file: &hdf5::File) -> bool {
    file.link_exists(&format!("/entry/{GROUP}"))
}

/// The group of the sparse frames.
pub(super) fn group_of(file: &hdf5::File) -> Result<Group, hdf5::Error> {
    file.group(&format!("/entry/{GROUP}"))
}

/// A frame of a sparse run, dense again, in the type of the frames that it came from: kept pixels exactly, masked ones
/// `dummy`, all others the background at their radius, rounded where the type is of whole numbers.
pub(super) fn read_dense(path: &Path, file: &hdf5::File, frame: u64) -> Result<Dense, StoreError> {
    let read = || -> Result<Result<Dense, StoreError>, hdf5::Error> {
        let data = group_of(file)?;
        let number = |name: &str, range: Range<usize>| -> Result<Vec<u64>, hdf5::Error> {
            Ok(data.dataset(name)?.read_slice_1d::<u64, _>(range)?.to_vec())
        };
        let frames = data.dataset("frame_stored")?.size() as u64;
        if frame >= frames {
            return Ok(Err(StoreError::FrameNumber { frame, frames }));
        }
        let at = frame as usize;
        if number("frame_stored", at..at + 1)? != [1] {
            return Ok(Err(StoreError::FrameMissing {
                frame,
                path: path.to_path_buf(),
            }));
        }
        let ends = number("frame_ptr", at..at + 2)?;
        let kept = ends[0] as usize..ends[1] as usize;
        let mask = data.dataset("mask")?;
        let [rows, columns] = mask.shape()[..] else {
            return Err("the mask of sparse frames has two dimensions".into());
        };
        let curve: Vec<f32> = data.dataset("background_avg")?.read_slice_1d((at, ..))?.to_vec();
        let radius: Vec<f32> = data.dataset("radius")?.read_raw()?;
        let factor: Vec<f32> = data.dataset("normalization")?.read_raw()?;
        let dummy: f64 = data.dataset("dummy")?.read_scalar()?;
        let background = |(place, factor): (&f32, &f32)| match place.is_nan() {
            true => dummy,
            false => interpolated(&radius, &curve, *place) * f64::from(*factor),
        };
        let mut dense: Vec<f64> = mask.read_raw::<f32>()?.iter().zip(&factor).map(background).collect();
        let intensity = data.dataset("intensity")?;
        let (index, values) = match kept.is_empty() {
            true => (Vec::new(), Vec::new()),
            false => (
                data.dataset("index")?.read_slice_1d::<u64, _>(kept.clone())?.to_vec(),
                intensity.read_slice_1d::<f64, _>(kept)?.to_vec(),
            ),
        };
        for (index, value) in index.iter().zip(values) {
            match dense.get_mut(*index as usize) {
                Some(pixel) => *pixel = value,
                None => return Err(format!("pixel {index} of frame {frame} is none of its {rows} × {columns}").into()),
            }
        }
        let (bytes, pixel_type) = as_stored(&dense, &intensity)?;
        Ok(Ok((bytes, Shape::new(rows, columns), pixel_type)))
    };
    read().at("reading a sparse frame of", path)?
}

/// The curve at `place`, on the line between two points; beyond its ends the nearest.
fn interpolated(radius: &[f32], curve: &[f32], place: f32) -> f64 {
    let above = radius.partition_point(|radius| *radius <= place);
    match (above.checked_sub(1), radius.get(above)) {
        (None, _) => curve.first().copied().map_or(0.0, f64::from),
        (Some(last), None) => f64::from(curve[last]),
        (Some(below), Some(next)) => {
            let [low, high] = [radius[below], *next].map(f64::from);
            let along = (f64::from(place) - low) / (high - low);
            f64::from(curve[below]) + along * (f64::from(curve[above]) - f64::from(curve[below]))
        }
    }
}

/// Pixels in the type of a dataset.
fn as_stored(dense: &[f64], like: &Dataset) -> Result<(Vec<u8>, PixelType), hdf5::Error> {
    let dtype = like.dtype()?;
    // Casts of floats to whole numbers stay within the type.
    fn bytes<const N: usize>(dense: &[f64], of: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
        dense.iter().flat_map(|value| of(*value)).collect()
    }
    Ok(match () {
        () if dtype.is::<u8>() => (bytes(dense, |v| (v.round() as u8).to_le_bytes()), PixelType::U8),
        () if dtype.is::<u16>() => (bytes(dense, |v| (v.round() as u16).to_le_bytes()), PixelType::U16),
        () if dtype.is::<u32>() => (bytes(dense, |v| (v.round() as u32).to_le_bytes()), PixelType::U32),
        () if dtype.is::<i16>() => (bytes(dense, |v| (v.round() as i16).to_le_bytes()), PixelType::I16),
        () if dtype.is::<i32>() => (bytes(dense, |v| (v.round() as i32).to_le_bytes()), PixelType::I32),
        () if dtype.is::<f32>() => (bytes(dense, |v| (v as f32).to_le_bytes()), PixelType::F32),
        () => return Err("intensities of a type that no frames have".into()),
    })
}
