//! A reconstructed volume as a run of its own: `RUN_master.h5` after NXtomoproc, and a TIFF stack where it is asked for.
//!
//! ```text
//! /entry/data/data            [z][y][x], 1/pixel; chunks of 16 slices x 64 x 64: a slice and a block are both few chunks
//! /entry/data_2, data_4 …     the same, averaged over 2x2x2, 4x4x4 … points
//! /entry/preview/data         averaged over as many points as it takes to look at it at once
//! /entry/reconstruction       program, version, and every parameter with the rotation axis, as used
//! ```
//!
//! The volume is written slab by slab, 16 slices at a time; nothing of it stays in memory but the preview.

use super::error::{At, StoreError};
use super::h5::{Number, RowWriter};
use super::nexus::{self, Nx};
use super::run_json::{self, RunRecord};
use super::{RunEnd, RunInfo, Store, open, seal, state_jsonl};
use frame::Shape;
use hdf5::Dataset;
use std::fs;
use std::path::{Path, PathBuf};

/// Slices that are written together.
pub const SLAB_SLICES: usize = 16;
/// Length of a chunk along y and x.
const CHUNK_POINTS: usize = 64;

/// How the points of a volume are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeFormat {
    /// single precision
    #[default]
    F32,
    /// 16 bits over `range`
    U16,
    /// not at all: only the preview and what the run says about itself
    None,
}

/// Least and largest value that 16 bits stand for.
pub type VolumeRange = [f32; 2];

/// What a volume's files are to be.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// slices
    pub slices: usize,
    /// rows (y) and columns (x) of a slice
    pub shape: Shape,
    /// how points are stored
    pub format: VolumeFormat,
    /// for 16 bits
    pub range: VolumeRange,
    /// TIFF stack beside the HDF5 file
    pub tiff: bool,
    /// volumes averaged over 2, 4, 8, 16 points in each direction: how many of these
    pub levels: usize,
    /// longest side of the preview, points; 0: none
    pub preview: usize,
    /// length of a point, metres, where it is known
    pub point_m: Option<f64>,
    /// the file that the projections are in
    pub raw_file: String,
}

enum Points {
    F32(RowWriter<f32>),
    U16(RowWriter<u16>, Vec<u16>),
}

impl Points {
    fn write(&mut self, first: usize, values: &[f32], range: VolumeRange) -> Result<(), hdf5::Error> {
        match self {
            Points::F32(writer) => writer.write(first, values),
            Points::U16(writer, scaled) => {
                scaled.clear();
                scaled.extend(values.iter().map(|value| to_u16(*value, range)));
                writer.write(first, scaled)
            }
        }
    }
}

fn to_u16(value: f32, [low, high]: VolumeRange) -> u16 {
    ((value - low) / (high - low) * 65535.0).round().clamp(0.0, 65535.0) as u16
}

/// A volume averaged over `factor` points in each direction.
struct Averaged {
    factor: usize,
    slices: usize,
    shape: Shape,
    /// sums over what has come; a whole number of slices
    sums: Vec<f32>,
}

impl Averaged {
    fn new(factor: usize, slices: usize, shape: Shape, kept: usize) -> Self {
        let shape = Shape::new(shape.rows.div_ceil(factor), shape.columns.div_ceil(factor));
        Self {
            factor,
            slices: slices.div_ceil(factor),
            shape,
            sums: vec![0.0; kept * shape.pixels()],
        }
    }

    /// Adds slice `z` to the sums, whose first slice is `first`.
    fn add(&mut self, z: usize, first: usize, slice: &[f32], columns: usize) {
        let at = (z / self.factor - first) * self.shape.pixels();
        let sums = &mut self.sums[at..at + self.shape.pixels()];
        for (y, row) in slice.chunks_exact(columns).enumerate() {
            let out = &mut sums[y / self.factor * self.shape.columns..][..self.shape.columns];
            for (cell, values) in out.iter_mut().zip(row.chunks(self.factor)) {
                *cell += values.iter().sum::<f32>();
            }
        }
    }

    /// Makes means of the sums, whose first slice is `first`, of a volume of this size.
    fn divide(&mut self, first: usize, slices: usize, full: Shape) {
        let along = |index: usize, length: usize| self.factor.min(length - index * self.factor);
        let (rows, columns) = (self.shape.rows, self.shape.columns);
        for (at, sum) in self.sums.iter_mut().enumerate() {
            let (z, y, x) = (at / (rows * columns) + first, at / columns % rows, at % columns);
            if z * self.factor < slices {
                *sum /= (along(z, slices) * along(y, full.rows) * along(x, full.columns)) as f32;
            }
        }
    }
}

/// Writes one volume; see the module.
pub struct VolumeWriter {
    folder: PathBuf,
    path: PathBuf,
    info: RunInfo,
    config: VolumeConfig,
    file: hdf5::File,
    entry: Nx,
    points: Option<Points>,
    levels: Vec<(Averaged, Points)>,
    preview: Option<Averaged>,
    tiffs: Vec<PathBuf>,
    written: usize,
}

impl VolumeWriter {
    /// Creates the run's folder and file. `info.parameters` is written as it is.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::RunExists`], [`StoreError::Description`] for a range without values,
    /// [`StoreError::Io`], [`StoreError::Hdf5`].
    pub fn create(store: &Store, info: &RunInfo, config: VolumeConfig) -> Result<Self, StoreError> {
        let [low, high] = config.range;
        if config.format == VolumeFormat::U16 && !(low < high && (high - low).is_finite()) {
            return Err(StoreError::Description {
                field: "volume.range",
                value: format!("[{low}, {high}]"),
                expected: "two numbers, the first one smaller",
            });
        }
        let folder = store.make_run(info)?;
        state_jsonl::append_state(&folder, "recording", serde_json::json!({}))?;
        let path = folder.join(format!("{}_master.h5", info.id));
        Self::build(folder, path.clone(), info, config).at("creating", &path)
    }

    fn build(folder: PathBuf, path: PathBuf, info: &RunInfo, config: VolumeConfig) -> Result<Self, hdf5::Error> {
        let file = open::create_earliest(&path)?;
        let root = Nx::root(&file)?;
        nexus::attr_text(root.group_ref(), "NX_class", "NXroot")?;
        nexus::attr_text(root.group_ref(), "default", "entry")?;
        nexus::attr_text(root.group_ref(), "creator", &info.software)?;
        let entry = describe(&root, info, &config)?;
        let points = match config.format {
            VolumeFormat::None => None,
            format => {
                let data = data_group(&entry, "data", config.slices, config.shape, 1, &config)?;
                Some(points(&data, config.slices, config.shape, format, &config)?)
            }
        };
        let mut levels = Vec::new();
        for level in 1..=config.levels.min(4) {
            let factor = 1 << level;
            let averaged = Averaged::new(factor, config.slices, config.shape, SLAB_SLICES / factor);
            let (slices, shape) = (averaged.slices, averaged.shape);
            let data = data_group(&entry, &format!("data_{factor}"), slices, shape, factor, &config)?;
            levels.push((averaged, points_f32(&data, slices, shape, "1/pixel")?));
        }
        let longest = config.slices.max(config.shape.rows).max(config.shape.columns);
        let preview = (config.preview > 0).then(|| {
            let factor = longest.div_ceil(config.preview);
            let slices = config.slices.div_ceil(factor);
            Averaged::new(factor, config.slices, config.shape, slices)
        });
        Ok(Self {
            folder,
            path,
            info: info.clone(),
            config,
            file,
            entry,
            points,
            levels,
            preview,
            tiffs: Vec::new(),
            written: 0,
        })
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes consecutive slices from `first` on: 16 of them, or what is left at the end. Slabs may come in any order.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Hdf5`], [`StoreError::Io`].
    pub fn write_slab(&mut self, first: usize, values: &[f32]) -> Result<(), StoreError> {
        let VolumeConfig { slices, shape, .. } = self.config;
        let (range, columns) = (self.config.range, shape.columns);
        let mut write = || -> Result<(), hdf5::Error> {
            if let Some(points) = &mut self.points {
                points.write(first, values, range)?;
            }
            for (averaged, points) in &mut self.levels {
                let at = first / averaged.factor;
                averaged.sums.fill(0.0);
                for (z, slice) in values.chunks_exact(shape.pixels()).enumerate() {
                    averaged.add(first + z, at, slice, columns);
                }
                averaged.divide(at, slices, shape);
                let rows = (values.len() / shape.pixels()).div_ceil(averaged.factor);
                points.write(at, &averaged.sums[..rows * averaged.shape.pixels()], range)?;
            }
            Ok(())
        };
        let needed_bytes = size_of_val(values) as u64;
        write().map_err(|error| StoreError::hdf5("writing slices to", &self.path, &error, needed_bytes))?;
        for (z, slice) in values.chunks_exact(shape.pixels()).enumerate() {
            if let Some(preview) = &mut self.preview {
                preview.add(first + z, 0, slice, columns);
            }
            if self.config.tiff && self.points.is_some() {
                self.write_tiff(first + z, slice)?;
            }
            self.written += 1;
        }
        Ok(())
    }

    fn write_tiff(&mut self, z: usize, slice: &[f32]) -> Result<(), StoreError> {
        let folder = self.folder.join("tiff");
        fs::create_dir_all(&folder).at("creating the folder", &folder)?;
        let path = folder.join(format!("slice_{z:05}.tif"));
        let (width, height) = (self.config.shape.columns as u32, self.config.shape.rows as u32);
        let failed = |error: tiff::TiffError| match error {
            tiff::TiffError::IoError(source) => StoreError::io("writing", &path, source, size_of_val(slice) as u64),
            other => StoreError::Io {
                doing: "writing",
                path: path.clone(),
                source: std::io::Error::other(other),
            },
        };
        let file = std::io::BufWriter::new(fs::File::create(&path).at("creating", &path)?);
        let mut encoder = tiff::encoder::TiffEncoder::new(file).map_err(failed)?;
        let written = match self.config.format {
            VolumeFormat::U16 => {
                let scaled: Vec<u16> = slice.iter().map(|value| to_u16(*value, self.config.range)).collect();
                encoder.write_image::<tiff::encoder::colortype::Gray16>(width, height, &scaled)
            }
            _ => encoder.write_image::<tiff::encoder::colortype::Gray32Float>(width, height, slice),
        };
        written.map_err(failed)?;
        self.tiffs.push(path);
        Ok(())
    }

    /// Writes the preview, closes the file, and publishes the run by its `run.json`. Returns its files.
    ///
    /// # Errors
    /// Any; the run then has no `run.json`. [`StoreError::Verify`] where slices are missing.
    pub fn finish(mut self, end: RunEnd, warnings: Vec<String>) -> Result<Vec<PathBuf>, StoreError> {
        if self.written != self.config.slices {
            return Err(StoreError::Verify {
                path: self.path,
                reason: format!("{} of {} slices were written", self.written, self.config.slices),
            });
        }
        let (slices, shape) = (self.config.slices, self.config.shape);
        if let Some(mut preview) = self.preview.take() {
            preview.divide(0, slices, shape);
            let write = || -> Result<(), hdf5::Error> {
                let (n, small) = (preview.slices, preview.shape);
                let data = data_group(&self.entry, "preview", n, small, preview.factor, &self.config)?;
                points_f32(&data, n, small, "1/pixel")?.write(0, &preview.sums, self.config.range)
            };
            write().at("writing the preview to", &self.path)?;
        }
        let close = || -> Result<(), hdf5::Error> {
            self.entry.text("end_time", &run_json::rfc3339(end.end_time))?;
            self.entry.text("run_state", &end.state)?;
            self.file.flush()
        };
        close().at("completing", &self.path)?;
        // Datasets keep a file open as long as they live.
        drop((self.points, self.levels, self.entry, self.file));
        let mut records = vec![seal::seal(&self.path)?];
        for path in &self.tiffs {
            let mut record = seal::seal(path)?;
            record.name = format!("tiff/{}", record.name);
            records.push(record);
        }
        run_json::sync_folder(&self.folder)?;
        let files = records.iter().map(|record| self.folder.join(&record.name)).collect();
        RunRecord::new(&self.info, end, records, warnings).publish(&self.folder)?;
        Ok(files)
    }

    /// Notes why there will be no volume; what was written stays without a `run.json`.
    pub fn fail(self, reason: &str) {
        // The first error counts; where even this line cannot be written the missing run.json says enough.
        let _ = state_jsonl::append_state(&self.folder, "failed", serde_json::json!({ "error": reason }));
    }
}

/// Everything beside the points.
fn describe(root: &Nx, info: &RunInfo, config: &VolumeConfig) -> Result<Nx, hdf5::Error> {
    let entry = root.group("entry", "NXentry")?;
    let default = if config.format == VolumeFormat::None {
        "preview"
    } else {
        "data"
    };
    nexus::attr_text(entry.group_ref(), "default", default)?;
    entry.text("definition", &info.definition)?;
    entry.text("title", &info.title)?;
    entry.text("experiment_identifier", &info.proposal)?;
    entry.text("entry_identifier", &info.id)?;
    entry.text("start_time", &run_json::rfc3339(info.start_time))?;
    let instrument = entry.group("instrument", "NXinstrument")?;
    instrument.text("name", &info.instrument)?;
    let source = instrument.group("SOURCE", "NXsource")?;
    source.text("name", &info.source)?;
    source.text("type", "Synchrotron X-ray Source")?;
    source.text("probe", "x-ray")?;
    let sample = entry.group("sample", "NXsample")?;
    sample.text("name", &info.sample)?;
    let process = entry.group("reconstruction", "NXprocess")?;
    let (program, version) = info.software.split_once(' ').unwrap_or((&info.software, ""));
    process.text("program", program)?;
    process.text("version", version)?;
    process.text("date", &run_json::rfc3339(info.start_time))?;
    let parameters = process.group("parameters", "NXparameters")?;
    parameters.text("raw_file", &config.raw_file)?;
    parameters.text("device", &info.device)?;
    parameters.text("json", &info.parameters.to_string())?;
    if let Some(axis) = info
        .parameters
        .get("rotation_axis_px")
        .and_then(serde_json::Value::as_f64)
    {
        let dataset = parameters.value("rotation_axis_px", axis)?;
        nexus::attr_text(&dataset, "units", "pixel")?;
        nexus::attr_text(&dataset, "meaning", "columns from the centre of column 0")?;
    }
    Ok(entry)
}

/// The NXdata of a volume averaged over `factor` points.
fn data_group(
    entry: &Nx,
    name: &str,
    slices: usize,
    shape: Shape,
    factor: usize,
    config: &VolumeConfig,
) -> Result<Nx, hdf5::Error> {
    let data = entry.group(name, "NXdata")?;
    nexus::attr_text(data.group_ref(), "signal", "data")?;
    nexus::attr_texts(data.group_ref(), "axes", &["z", "y", "x"])?;
    let (step, units) = config.point_m.map_or((1.0, "pixel"), |metres| (metres, "m"));
    let axis = |length: usize, full: usize, middle: f64| -> Vec<f64> {
        // The last point of an averaged volume may rest on fewer of the full one.
        let centre = |index: usize| {
            let first = index * factor;
            let last = (first + factor).min(full) - 1;
            ((first + last) as f64 / 2.0 - middle) * step
        };
        (0..length).map(centre).collect()
    };
    let middle = |length: usize| (length as f64 - 1.0) / 2.0;
    let full = config.shape;
    data.quantities("x", &axis(shape.columns, full.columns, middle(full.columns)), units)?;
    data.quantities("y", &axis(shape.rows, full.rows, middle(full.rows)), units)?;
    data.quantities("z", &axis(slices, config.slices, 0.0), units)?;
    Ok(data)
}

fn points(
    data: &Nx,
    slices: usize,
    shape: Shape,
    format: VolumeFormat,
    config: &VolumeConfig,
) -> Result<Points, hdf5::Error> {
    if format != VolumeFormat::U16 {
        return points_f32(data, slices, shape, "1/pixel");
    }
    let dataset = dataset::<u16>(data, slices, shape, "")?;
    let [low, high] = config.range.map(f64::from);
    data.value("data_scaling_factor", (high - low) / 65535.0)?;
    data.value("data_offset", low)?;
    nexus::attr_text(
        &dataset,
        "meaning",
        "value = data * data_scaling_factor + data_offset, 1/pixel",
    )?;
    Ok(Points::U16(
        RowWriter::new(dataset)?,
        Vec::with_capacity(SLAB_SLICES * shape.pixels()),
    ))
}

fn points_f32(data: &Nx, slices: usize, shape: Shape, units: &str) -> Result<Points, hdf5::Error> {
    Ok(Points::F32(RowWriter::new(dataset::<f32>(
        data, slices, shape, units,
    )?)?))
}

fn dataset<T: Number>(data: &Nx, slices: usize, shape: Shape, units: &str) -> Result<Dataset, hdf5::Error> {
    let chunk = (
        SLAB_SLICES.min(slices),
        CHUNK_POINTS.min(shape.rows),
        CHUNK_POINTS.min(shape.columns),
    );
    let dataset = data
        .group_ref()
        .new_dataset::<T>()
        .chunk(chunk)
        .shape((slices, shape.rows, shape.columns))
        .create("data")?;
    if !units.is_empty() {
        nexus::attr_text(&dataset, "units", units)?;
    }
    Ok(dataset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_means_of_what_is_there() {
        let shape = Shape::new(3, 5);
        let slices: Vec<f32> = (0..45).map(|value| value as f32).collect();
        let mut averaged = Averaged::new(2, 3, shape, 2);
        for (z, slice) in slices.chunks_exact(15).enumerate() {
            averaged.add(z, 0, slice, 5);
        }
        averaged.divide(0, 3, shape);
        let mean = |zs: std::ops::Range<usize>, ys: std::ops::Range<usize>, xs: std::ops::Range<usize>| {
            let (mut sum, mut count) = (0.0, 0.0);
            for z in zs {
                for y in ys.clone() {
                    for x in xs.clone() {
                        sum += slices[z * 15 + y * 5 + x];
                        count += 1.0;
                    }
                }
            }
            sum / count
        };
        assert_eq!(averaged.sums[0], mean(0..2, 0..2, 0..2));
        assert_eq!(averaged.sums[2], mean(0..2, 0..2, 4..5));
        assert_eq!(averaged.sums[11], mean(2..3, 2..3, 4..5));
    }
}
