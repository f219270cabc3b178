//! The raw data files: `frames_per_file` frames each, one frame a chunk. libhdf5 makes their heads; frames and index are
//! written by `data_file`.

use super::data_file::{DataFile, Shared, name_of};
use super::error::{At, StoreError};
use super::h5;
use super::head::{self, Head};
use super::io::{Aligned, BLOCK_BYTES};
use super::journal::Record;
use super::nexus::{self, Nx};
use super::open;
use super::run_json::{self, FileRecord};
use super::seal;
use frame::codec::Beneath;
use frame::{PixelType, Shape};
use std::fs;
use std::path::{Path, PathBuf};

/// Path of the frames in every data file.
pub(super) const FRAMES: &str = "/entry/data/data";
/// Attribute of `/entry/data` in the master file.
pub(super) const FRAMES_PER_FILE: &str = "frames_per_file";
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

    /// Data files.
    pub(super) fn files(&self) -> u64 {
        self.frames.div_ceil(self.frames_per_file)
    }

    /// First frame of a data file, and how many it has room for.
    pub(super) fn range(&self, slot: u64) -> (u64, u64) {
        let first = slot * self.frames_per_file;
        (first, self.frames_per_file.min(self.frames - first))
    }
}

/// All data files of a run, and which of them takes what.
#[derive(Debug)]
pub(super) struct DataFiles {
    pub(super) format: FrameFormat,
    folder: PathBuf,
    run: String,
    /// by number in the journal: one per data file, then those that took over
    pub(super) files: Vec<DataFile>,
    /// which file takes the frames of a slot
    current: Vec<u32>,
    /// files that took over and that the journal does not know yet
    pub(super) replacements: Vec<Record>,
    /// the furthest slot that a frame has come for
    pub(super) furthest: u64,
}

/// A place for a frame.
pub(super) struct Placed {
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) disk: Shared,
    /// whether its hash is to follow
    pub(super) direct: bool,
}

impl DataFiles {
    /// Creates every file with its dataset, so that nothing but frames has to be written while they come.
    pub(super) fn create(folder: &Path, run: &str, format: FrameFormat) -> Result<Self, StoreError> {
        let mut files = Self::empty(folder, run, format);
        for slot in 0..format.files() {
            let path = folder.join(file_name(run, slot, 1));
            let head = create_file(&path, &files.format, slot)?;
            files.add(path, slot, head);
        }
        Ok(files)
    }

    /// The files of a run that another process wrote, with fresh heads up to the one that holds frame `newest`.
    pub(super) fn reopen(folder: &Path, run: &str, format: FrameFormat, newest: u64) -> Result<Self, StoreError> {
        let mut files = Self::empty(folder, run, format);
        let draft = folder.join(".head.part");
        let used = (newest / format.frames_per_file).min(format.files() - 1);
        for slot in 0..format.files() {
            // Whatever the crash has left of the head, it is made anew; files behind the newest frame need none.
            let head = match files.files.last().filter(|_| slot > used) {
                Some(last) => last.head().clone(),
                None => {
                    let _ = fs::remove_file(&draft);
                    let head = create_file(&draft, &files.format, slot)?;
                    fs::remove_file(&draft).at("removing", &draft)?;
                    head
                }
            };
            files.add(folder.join(file_name(run, slot, 1)), slot, head);
        }
        Ok(files)
    }

    fn empty(folder: &Path, run: &str, format: FrameFormat) -> Self {
        Self {
            format,
            folder: folder.to_path_buf(),
            run: run.to_string(),
            files: Vec::new(),
            current: (0..format.files() as u32).collect(),
            replacements: Vec::new(),
            furthest: 0,
        }
    }

    fn add(&mut self, path: PathBuf, slot: u64, head: Head) {
        let (first, frames) = self.format.range(slot);
        let frame_bytes = self.format.frame_bytes();
        self.files
            .push(DataFile::new(path, slot, first, frames, head, frame_bytes));
    }

    /// Paths of the files that frames are planned for, in order.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|f| f.path.as_path())
    }

    /// Finds a place for the stored bytes of a frame. Allocates nothing unless the disk has refused a file.
    pub(super) fn place(&mut self, frame: u64, bytes: &[u8]) -> Result<Placed, StoreError> {
        let slot = frame / self.format.frames_per_file;
        self.furthest = self.furthest.max(slot);
        let mut file = self.current[slot as usize];
        if self.files[file as usize].failed {
            file = self.replace(file)?;
        }
        let target = &mut self.files[file as usize];
        let (offset, disk) = target.place(bytes).at("opening", &target.path)?;
        let direct = target.direct();
        Ok(Placed {
            file,
            offset,
            disk,
            direct,
        })
    }

    /// A new file in the place of one that the disk has refused.
    fn replace(&mut self, file: u32) -> Result<u32, StoreError> {
        let old = &self.files[file as usize];
        let (slot, generation) = (old.slot, old.generation + 1);
        let path = self.folder.join(file_name(&self.run, slot, generation));
        let new = old.successor(path.clone());
        let new = new.map_err(|source| StoreError::io("creating", &path, source, 0))?;
        run_json::sync_folder(&self.folder)?;
        self.adopt(new)
    }

    /// Takes a file in that took over from another one.
    fn adopt(&mut self, new: DataFile) -> Result<u32, StoreError> {
        let (number, slot, generation) = (self.files.len() as u32, new.slot, new.generation);
        self.files.push(new);
        self.current[slot as usize] = number;
        self.replacements.push(Record::Replaced {
            file: number,
            slot,
            generation,
        });
        Ok(number)
    }

    /// Takes in what a journal says of a file that took over; its place in [`DataFiles::files`], none where there is no
    /// such slot.
    pub(super) fn readopt(&mut self, slot: u64, generation: u32) -> Result<Option<u32>, StoreError> {
        let Some(first) = self.files.get(slot as usize).filter(|_| slot < self.format.files()) else {
            return Ok(None);
        };
        let path = self.folder.join(file_name(&self.run, slot, generation));
        let mut head = first.head().clone();
        head.point(head.len(), u64::MAX);
        let mut new = DataFile::new(path, slot, first.first, first.frames, head, first.frame_bytes());
        new.generation = generation;
        self.adopt(new).map(Some)
    }

    /// Closes every file, shortens the run to `kept` frames, and returns the records of the files that are left.
    pub(super) fn finish(&mut self, kept: u64) -> Result<Vec<FileRecord>, StoreError> {
        let left = kept.div_ceil(self.format.frames_per_file).max(1);
        let mut spare = Aligned::new(BLOCK_BYTES);
        let mut records: Vec<(u64, u32, FileRecord)> = Vec::new();
        for file in &mut self.files {
            if file.slot >= left || (file.generation > 1 && file.stored == 0) {
                file.seal();
                match fs::remove_file(&file.path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    removed => removed.at("removing the empty", &file.path)?,
                }
                continue;
            }
            file.shorten(kept - file.first.min(kept));
            if !file.sealed() {
                let doing = "writing the index of";
                let path = file.path.clone();
                let needed_bytes = head::index_bytes(file.stored);
                let failed = |source| StoreError::io(doing, &path, source, needed_bytes);
                let index = file.next_index().map_err(failed)?;
                // A file that the disk has refused once is not asked for a sync again.
                index.write(&mut spare).map_err(failed)?;
                file.cut().map_err(failed)?;
                if !file.failed {
                    index.sync().map_err(failed)?;
                }
                file.seal();
            }
            let record = match file.record() {
                Some(record) => record,
                None => seal::hash_of(&file.path)?,
            };
            records.push((file.slot, file.generation, record));
        }
        records.sort_by_key(|(slot, generation, _)| (*slot, *generation));
        Ok(records.into_iter().map(|(.., record)| record).collect())
    }

    /// The pieces that make up the first `kept` frames: stretches of frames that lie in one file.
    pub(super) fn pieces(&self, kept: u64) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for slot in 0..kept.div_ceil(self.format.frames_per_file) {
            let (first, frames) = self.format.range(slot);
            let frames = frames.min(kept - first);
            let of_slot: Vec<&DataFile> = self
                .files
                .iter()
                .filter(|f| f.slot == slot && (f.generation == 1 || f.stored > 0))
                .collect();
            let shown = |frame: u64| {
                of_slot
                    .iter()
                    .rfind(|f| f.has(frame))
                    .or(of_slot.first())
                    .map(|f| name_of(&f.path))
            };
            let whole = of_slot.len() == 1;
            for frame in if whole { first..first + 1 } else { first..first + frames } {
                let Some(name) = shown(frame) else { continue };
                let count = if whole { frames } else { 1 };
                match pieces
                    .last_mut()
                    .filter(|last| last.name == name && last.first + last.frames == frame)
                {
                    Some(last) => last.frames += count,
                    None => pieces.push(Piece {
                        name,
                        first: frame,
                        frames: count,
                        within: frame - first,
                        of: frames,
                    }),
                }
            }
        }
        pieces
    }
}

/// The pieces of a run that is complete, and whose disk has refused nothing.
pub(super) fn planned(run: &str, format: &FrameFormat) -> Vec<Piece> {
    let piece = |slot| {
        let (first, frames) = format.range(slot);
        Piece {
            name: file_name(run, slot, 1),
            first,
            frames,
            within: 0,
            of: frames,
        }
    };
    (0..format.files()).map(piece).collect()
}

/// A stretch of frames within one data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// file
    pub(super) name: String,
    /// first frame of the run, and how many
    pub(super) first: u64,
    pub(super) frames: u64,
    /// index of the first within the file, and how many the file has
    pub(super) within: u64,
    pub(super) of: u64,
}

/// Name of a data file, counted from 0; those that took over from it have their number behind its own.
pub(super) fn file_name(run: &str, slot: u64, generation: u32) -> String {
    match generation {
        1 => format!("{run}_data_{:06}.h5", slot + 1),
        _ => format!("{run}_data_{:06}_{generation}.h5", slot + 1),
    }
}

/// Creates a data file without frames and returns its head. Nobody waits for the disk here: after a crash heads are made
/// anew.
fn create_file(path: &Path, format: &FrameFormat, slot: u64) -> Result<Head, StoreError> {
    let (first, frames) = format.range(slot);
    let create = || -> Result<(), hdf5::Error> {
        let file = open::create_earliest(path)?;
        nexus::attr_text(&file, "NX_class", "NXroot")?;
        nexus::attr_text(&file, "default", "entry")?;
        let entry = Nx::root(&file)?.group("entry", "NXentry")?;
        nexus::attr_text(entry.group_ref(), "default", "data")?;
        let data = entry.group("data", "NXdata")?;
        nexus::attr_text(data.group_ref(), "signal", "data")?;
        let frames_dataset = create_frames(&data, frames, format)?;
        number_frames(&frames_dataset, first, frames)?;
        file.close()
    };
    create().at("creating", path)?;
    let head = Head::parse(fs::read(path).at("reading the head of", path)?).map_err(|reason| StoreError::Verify {
        path: path.to_path_buf(),
        reason: reason.into(),
    })?;
    let file = fs::OpenOptions::new().write(true).open(path).at("opening", path)?;
    let whole = file.set_len(head.len());
    whole.map_err(|source| StoreError::io("writing the head of", path, source, head.len()))?;
    Ok(head)
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
