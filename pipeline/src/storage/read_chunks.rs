//! Ranges of frames and whole files of a closed run, at the disk's rate.

use super::data_files::{FRAMES, file_name};
use super::error::{At, StoreError};
use super::h5::{self, ChunkPlace};
use super::read::{self, Frames};
use super::read_ahead::{self, Stretch, Unreadable};
use super::run_json::RunRecord;
use super::store::RUN_JSON;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes that are read at once for several frames.
const TOGETHER_BYTES: u64 = 8 << 20;

/// A frame as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredChunk<'a> {
    /// number within the run
    pub frame: u64,
    /// stored bytes
    pub bytes: &'a [u8],
    /// whether they went through the filter of the run's files
    pub filtered: bool,
}

impl From<Unreadable> for StoreError {
    fn from(Unreadable { path, source }: Unreadable) -> Self {
        StoreError::io("reading", &path, source, 0)
    }
}

/// Hands on these frames of a closed run in their order, as they are stored, and returns how many there were: a frame that was
/// never stored is left out. `path` is the run's folder or its master file.
///
/// # Errors
/// [`StoreError::FrameNumber`] for a range that ends behind the run's end, [`StoreError::NotARun`] for a folder without
/// `run.json`, [`StoreError::Io`]; and any of `each`.
pub fn read_chunks<E: From<StoreError>>(
    path: &Path,
    frames: Range<u64>,
    mut each: impl FnMut(StoredChunk<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let Plan {
        files,
        stretches,
        chunks,
    } = plan(path, frames)?;
    let mut left = chunks.iter().peekable();
    let mut hand_on = |stretch: &Stretch, bytes: &[u8]| -> Result<(), Ended<E>> {
        while let Some(chunk) = left.next_if(|chunk| stretches.get(chunk.stretch) == Some(stretch)) {
            let start = (chunk.place.offset - stretch.offset) as usize;
            each(StoredChunk {
                frame: chunk.frame,
                bytes: &bytes[start..start + chunk.place.bytes as usize],
                filtered: chunk.place.filters_skipped & 1 == 0,
            })
            .map_err(Ended::Theirs)?;
        }
        Ok(())
    };
    read_ahead::in_order(&files, &stretches, &mut hand_on).map_err(Ended::into)?;
    Ok(chunks.len() as u64)
}

/// Hands on bytes `from..to` of a file of a closed run, piece by piece.
///
/// # Errors
/// [`StoreError::Io`], and any of `each`.
pub fn read_file<E: From<StoreError>>(
    path: &Path,
    bytes: Range<u64>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let stretches = read_ahead::pieces(0, bytes.start, bytes.end);
    let hand_on = |_: &Stretch, bytes: &[u8]| each(bytes).map_err(Ended::Theirs);
    read_ahead::in_order(&[path.to_path_buf()], &stretches, hand_on).map_err(Ended::into)
}

/// Path and length of a file that a closed run has by this name: what `run.json` lists, and `run.json` itself.
///
/// # Errors
/// [`StoreError::NotARun`] for a folder without `run.json`, [`StoreError::Io`].
pub fn find_file(folder: &Path, record: &RunRecord, name: &str) -> Result<Option<(PathBuf, u64)>, StoreError> {
    let mut listed = record.files.iter().chain(&record.journal);
    if name != RUN_JSON && !listed.any(|file| file.name == name) {
        return Ok(None);
    }
    let path = folder.join(name);
    let found = std::fs::metadata(&path).at("looking at", &path)?;
    Ok(Some((path, found.len())))
}

/// Why reading ended: the disk, or whoever is handed the bytes.
enum Ended<E> {
    Ours(StoreError),
    Theirs(E),
}

impl<E> From<Unreadable> for Ended<E> {
    fn from(error: Unreadable) -> Self {
        Self::Ours(error.into())
    }
}

impl<E: From<StoreError>> Ended<E> {
    fn into(self) -> E {
        match self {
            Self::Ours(error) => error.into(),
            Self::Theirs(error) => error,
        }
    }
}

/// Where the frames lie, and in which stretches they are read.
struct Plan {
    files: Vec<PathBuf>,
    stretches: Vec<Stretch>,
    chunks: Vec<Chunk>,
}

struct Chunk {
    frame: u64,
    place: ChunkPlace,
    stretch: usize,
}

fn plan(path: &Path, frames: Range<u64>) -> Result<Plan, StoreError> {
    let master = read::master_of(path)?;
    h5::register_bitshuffle().at("registering filter 32008 for", &master)?;
    let Frames { run, count, per_file } = read::placed_frames(&master)?;
    if frames.end > count {
        return Err(StoreError::FrameNumber {
            frame: frames.end - 1,
            frames: count,
        });
    }
    let (mut plan, mut group) = (
        Plan {
            files: Vec::new(),
            stretches: Vec::new(),
            chunks: Vec::new(),
        },
        Group::default(),
    );
    let mut first = frames.start;
    while first < frames.end {
        let slot = first / per_file;
        let behind = frames.end.min((slot + 1) * per_file);
        let mut datasets = Vec::new();
        // A file that the disk refused has others that went on in its place.
        for generation in 1.. {
            let file = master.with_file_name(file_name(&run, slot, generation));
            if generation > 1 && !file.is_file() {
                break;
            }
            let dataset = read::open_file(&file)?.dataset(FRAMES);
            datasets.push((plan.files.len(), dataset.at("opening the frames of", &file)?));
            plan.files.push(file);
        }
        for frame in first..behind {
            for (file, dataset) in &datasets {
                let place = h5::chunk_place(dataset, frame % per_file);
                if let Some(place) = place.at("looking up a frame in", &plan.files[*file])? {
                    group.add(&mut plan.stretches, *file, &place);
                    let stretch = plan.stretches.len();
                    plan.chunks.push(Chunk { frame, place, stretch });
                    break;
                }
            }
        }
        first = behind;
    }
    group.end(&mut plan.stretches);
    Ok(plan)
}

/// Frames that lie close together, in any order: they are read at once.
#[derive(Default)]
struct Group {
    file: usize,
    from: u64,
    to: u64,
    /// of the frames alone
    bytes: u64,
}

impl Group {
    /// Takes a frame in, after ending what it is too far away from.
    fn add(&mut self, stretches: &mut Vec<Stretch>, file: usize, place: &ChunkPlace) {
        let (from, to) = (self.from.min(place.offset), self.to.max(place.offset + place.bytes));
        let bytes = self.bytes + place.bytes;
        let apart = file != self.file || to - from > TOGETHER_BYTES || to - from > 2 * bytes;
        if self.bytes > 0 && apart {
            self.end(stretches);
        }
        if self.bytes == 0 {
            *self = Self {
                file,
                from: place.offset,
                to: place.offset + place.bytes,
                bytes: place.bytes,
            };
        } else {
            (self.from, self.to, self.bytes) = (from, to, bytes);
        }
    }

    fn end(&mut self, stretches: &mut Vec<Stretch>) {
        if self.bytes > 0 {
            stretches.push(Stretch {
                file: self.file,
                offset: self.from,
                bytes: self.to - self.from,
            });
        }
        *self = Self::default();
    }
}
