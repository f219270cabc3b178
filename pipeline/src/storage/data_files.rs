//! The raw data files: `frames_per_file` frames each, one frame a chunk, written directly.

use super::error::{At, StoreError};
use super::h5::{self, FrameFile};
use super::nexus::{self, Nx};
use super::open;
use super::run_json::FileRecord;
use super::seal::{self, Sealer};
use frame::codec::Beneath;
use frame::{PixelType, Shape};
use hdf5::plist::FileAccess;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

/// Path of the frames in every data file.
pub(super) const FRAMES: &str = "/entry/data/data";
/// Attribute of `/entry/data` in the master file.
pub(super) const FRAMES_PER_FILE: &str = "frames_per_file";
const FRAMES_C: &std::ffi::CStr = c"/entry/data/data";

/// Data files that are open at the same time: frames arrive out of order, by less than this many files.
const OPEN_FILES_MAX: usize = 4;

/// What the frames of a run have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameFormat {
    pub(super) shape: Shape,
    pub(super) pixel_type: PixelType,
    /// what filter 32008 has beneath, where chunks go through it
    pub(super) filter: Option<Beneath>,
    pub(super) frames: u64,
    pub(super) frames_per_file: u64,
}

impl FrameFormat {
    /// Bytes of a frame before compression.
    pub(super) fn frame_bytes(&self) -> usize {
        self.shape.pixels() * self.pixel_type.bytes()
    }

    fn files(&self) -> u64 {
        self.frames.div_ceil(self.frames_per_file)
    }
}

#[derive(Debug)]
struct DataFile {
    path: PathBuf,
    /// the same for libhdf5, made once: opening allocates nothing
    path_c: CString,
    first: u64,
    frames: u64,
    opened: u32,
}

/// All data files of a run.
#[derive(Debug)]
pub(super) struct DataFiles {
    format: FrameFormat,
    files: Vec<DataFile>,
    /// the most recently used last
    open: Vec<(usize, FrameFile)>,
    access: FileAccess,
    sealer: Sealer,
}

impl DataFiles {
    /// Creates every file with its dataset, so that nothing but chunks has to be written while frames come.
    pub(super) fn create(folder: &Path, run: &str, format: FrameFormat) -> Result<Self, StoreError> {
        let mut files = Vec::new();
        for index in 0..format.files() {
            let path = folder.join(file_name(run, index));
            let first = index * format.frames_per_file;
            let frames = format.frames_per_file.min(format.frames - first);
            create_file(&path, first, frames, &format)?;
            let path_c = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| StoreError::Description {
                field: "the store's path",
                value: path.display().to_string(),
                expected: "a path without NUL",
            })?;
            files.push(DataFile {
                path,
                path_c,
                first,
                frames,
                opened: 0,
            });
        }
        let sealer =
            Sealer::start(files.iter().map(|f| f.path.clone()).collect()).at("starting a thread for", folder)?;
        let access = open::access().at("preparing access to", folder)?;
        Ok(Self {
            format,
            files,
            open: Vec::with_capacity(OPEN_FILES_MAX),
            access,
            sealer,
        })
    }

    /// Paths of all files, in order.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|f| f.path.as_path())
    }

    /// Writes the stored bytes of one frame.
    pub(super) fn write(&mut self, frame: u64, filters_skipped: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let index = (frame / self.format.frames_per_file) as usize;
        let Some(file) = self.files.get(index) else {
            return Err(StoreError::FrameNumber {
                frame,
                frames: self.format.frames,
            });
        };
        let chunk = frame - file.first;
        let slot = match self.open.iter().position(|(open, _)| *open == index) {
            Some(slot) => slot,
            None => self.open(index)?,
        };
        self.open[slot]
            .1
            .write_chunk(chunk, filters_skipped, bytes)
            .map_err(|error| {
                StoreError::hdf5(
                    "writing a frame to",
                    &self.files[index].path,
                    &error,
                    bytes.len() as u64,
                )
            })
    }

    /// Opens a file, closing the one least recently opened when there are too many; returns its place in `open`.
    fn open(&mut self, index: usize) -> Result<usize, StoreError> {
        if self.open.len() == OPEN_FILES_MAX {
            let (oldest, file) = self.open.remove(0);
            self.close(oldest, file)?;
        }
        let file = &mut self.files[index];
        let opened = FrameFile::open(&file.path_c, FRAMES_C, &self.access).at("opening", &file.path)?;
        file.opened += 1;
        self.open.push((index, opened));
        Ok(self.open.len() - 1)
    }

    fn close(&self, index: usize, file: FrameFile) -> Result<(), StoreError> {
        let closed = &self.files[index];
        file.close().at("closing", &closed.path)?;
        self.sealer.offer(index, closed.opened);
        Ok(())
    }

    /// Closes every file, shortens the run to `kept` frames, and returns the records of the files that are left.
    pub(super) fn finish(mut self, kept: u64) -> Result<Vec<FileRecord>, StoreError> {
        let mut failed = None;
        for (index, file) in std::mem::take(&mut self.open) {
            if let Err(error) = self.close(index, file) {
                failed.get_or_insert(error);
            }
        }
        let left = kept
            .min(self.format.frames)
            .div_ceil(self.format.frames_per_file)
            .max(1) as usize;
        for file in &self.files[left..] {
            fs::remove_file(&file.path).at("removing the empty", &file.path)?;
        }
        if let Some(last) = self.files.get(left - 1) {
            let frames = kept - last.first.min(kept);
            if frames < last.frames {
                shorten(&last.path, last.first, frames, &self.format)?;
                // Whatever was sealed before is another file now.
                self.files[left - 1].opened += 1;
            }
        }
        let mut records: Vec<Option<FileRecord>> = vec![None; self.files.len()];
        for ((index, opened), sealed) in self.sealer.finish() {
            if self.files[index].opened == opened {
                records[index] = sealed.ok();
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let files = self.files[..left].iter().zip(records);
        files
            .map(|(file, record)| record.map_or_else(|| seal::seal(&file.path), Ok))
            .collect()
    }
}

/// Name of the data file with this 0-based index.
pub(super) fn file_name(run: &str, index: u64) -> String {
    format!("{run}_data_{:06}.h5", index + 1)
}

fn create_file(path: &Path, first: u64, frames: u64, format: &FrameFormat) -> Result<(), StoreError> {
    let create = || -> Result<(), hdf5::Error> {
        let file = open::create_v18(path)?;
        nexus::attr_text(&file, "NX_class", "NXroot")?;
        nexus::attr_text(&file, "default", "entry")?;
        let entry = Nx::root(&file)?.group("entry", "NXentry")?;
        nexus::attr_text(entry.group_ref(), "default", "data")?;
        let data = entry.group("data", "NXdata")?;
        nexus::attr_text(data.group_ref(), "signal", "data")?;
        let frames_dataset = create_frames(&data, frames, format)?;
        number_frames(&frames_dataset, first, frames)?;
        file.flush()
    };
    create().at("creating", path)
}

/// Creates the empty dataset of frames.
fn create_frames(data: &Nx, frames: u64, format: &FrameFormat) -> Result<hdf5::Dataset, hdf5::Error> {
    let Shape { rows, columns } = format.shape;
    let mut builder = nexus::empty_pixels(data.group_ref(), format.pixel_type);
    if let Some(beneath) = format.filter {
        builder = builder.add_filter(
            h5::BITSHUFFLE_FILTER,
            &h5::bitshuffle_values(format.pixel_type, beneath),
        );
    }
    let extent = hdf5::SimpleExtents::fixed([frames as usize, rows, columns]);
    let dataset = builder
        .alloc_time(Some(hdf5::plist::dataset_create::AllocTime::Incr))
        .chunk((1, rows, columns))
        .shape(extent)
        .create("data")?;
    Ok(dataset)
}

/// DECTRIS' way of telling readers which frames of the run a file holds, counted from 1.
fn number_frames(dataset: &hdf5::Dataset, first: u64, frames: u64) -> Result<(), hdf5::Error> {
    for name in ["image_nr_low", "image_nr_high"] {
        if dataset.attr_names()?.iter().any(|n| n == name) {
            dataset.delete_attr(name)?;
        }
    }
    nexus::attr(dataset, "image_nr_low", &(first + 1))?;
    nexus::attr(dataset, "image_nr_high", &(first + frames))
}

fn shorten(path: &Path, first: u64, frames: u64, format: &FrameFormat) -> Result<(), StoreError> {
    let shorten = || -> Result<(), hdf5::Error> {
        let file = open::write(path)?;
        let dataset = file.dataset(FRAMES)?;
        dataset.resize((frames as usize, format.shape.rows, format.shape.columns))?;
        number_frames(&dataset, first, frames)?;
        file.flush()
    };
    shorten().at("shortening", path)
}
