//! The journal's segments on the disk: `RUN_journal_0001.bin`, and more where the first grew long or failed.

use super::error::{At, StoreError};
use super::io;
use super::journal::{JournalPlace, RECORD_BYTES, Record, SEGMENT_BYTES, replay};
use super::run_json::{self, FileRecord};
use super::seal;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The tag of a run's records, from what `run.json` says of it: records of another run are never taken for its own.
pub(super) fn tag(proposal: &str, id: &str, start_time: jiff::Timestamp) -> u64 {
    let text = format!("{proposal}/{id}/{}", run_json::rfc3339(start_time));
    u64::from_le_bytes(
        *blake3::hash(text.as_bytes())
            .as_bytes()
            .first_chunk()
            .unwrap_or(&[0; 8]),
    )
}

fn segment_path(folder: &Path, run: &str, segment: u32) -> PathBuf {
    folder.join(format!("{run}_journal_{segment:04}.bin"))
}

/// The journal that is being written.
#[derive(Debug)]
pub(super) struct JournalFile {
    folder: PathBuf,
    run: String,
    frames: u64,
    segment: u32,
    file: File,
    /// the first segment: as long as it is locked, its run is being written
    lock: File,
}

impl JournalFile {
    /// Creates the first segment, with room for every frame, and locks it.
    pub(super) fn create(folder: &Path, run: &str, frames: u64) -> Result<Self, StoreError> {
        let path = segment_path(folder, run, 1);
        let file = create(&path, frames)?;
        file.try_lock().map_err(std::io::Error::from).at("locking", &path)?;
        let lock = file.try_clone().at("opening", &path)?;
        run_json::sync_folder(folder)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            run: run.to_string(),
            frames,
            segment: 1,
            file,
            lock,
        })
    }

    /// The run's folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run's lock, for whoever needs it for longer than the journal.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        self.lock.try_clone().at("opening the journal in", &self.folder)
    }

    /// Writes records and waits until the disk has them. After a failure the segment must not be used again.
    pub(super) fn append(&mut self, place: JournalPlace, records: &[u8]) -> Result<(), StoreError> {
        let path = segment_path(&self.folder, &self.run, place.segment);
        if place.segment != self.segment {
            self.file = create(&path, self.frames)?;
            self.segment = place.segment;
            run_json::sync_folder(&self.folder)?;
        }
        let written = self
            .file
            .write_all_at(records, place.offset)
            .and_then(|()| self.file.sync_data())
            .and_then(|()| io::still_there(&self.file));
        written.map_err(|source| StoreError::io("writing the journal", &path, source, records.len() as u64))
    }

    /// The segments as they are at the end of the run; unused room is given back.
    pub(super) fn close(self) -> Result<Vec<FileRecord>, StoreError> {
        records_of(&self.folder, &self.run)
    }
}

fn create(path: &Path, frames: u64) -> Result<File, StoreError> {
    let made = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    let file = made.map_err(|source| StoreError::io("creating", path, source, 0))?;
    let room = (frames.saturating_mul(RECORD_BYTES as u64)).clamp(1, SEGMENT_BYTES);
    io::reserve(&file, room).map_err(|source| StoreError::io("making room in", path, source, room))?;
    Ok(file)
}

/// Length and hash of every segment of a run that is no longer written.
pub(super) fn records_of(folder: &Path, run: &str) -> Result<Vec<FileRecord>, StoreError> {
    let mut records = Vec::new();
    for path in segments(folder, run) {
        let file = OpenOptions::new().write(true).open(&path).at("opening", &path)?;
        let bytes = file.metadata().at("looking at", &path)?.len();
        // Cut to its length, a file gives back what was reserved behind it.
        file.set_len(bytes).at("shortening", &path)?;
        records.push(seal::seal(&path)?);
    }
    Ok(records)
}

/// The segments that are there, in order.
fn segments(folder: &Path, run: &str) -> impl Iterator<Item = PathBuf> {
    // One that could not be created leaves a gap of one; the keeper tries three times.
    let (folder, run) = (folder.to_path_buf(), run.to_string());
    let mut missing = 0;
    (1..)
        .map(move |segment| segment_path(&folder, &run, segment))
        .take_while(move |path| {
            missing = if path.is_file() { 0 } else { missing + 1 };
            missing <= 8
        })
        .filter(|path| path.is_file())
}

/// What the journal of a run says.
#[derive(Clone, Debug, Default)]
pub struct JournalRecords {
    /// in the order of writing
    pub records: Vec<Record>,
    /// records that are no longer as they were written
    pub damaged: u64,
}

/// Reads the journal of the run in `folder`.
pub(super) fn read(folder: &Path, run: &str, tag: u64) -> Result<JournalRecords, StoreError> {
    let mut found = Vec::new();
    let mut damaged = 0;
    for path in segments(folder, run) {
        let replayed = replay(&std::fs::read(&path).at("reading", &path)?, tag);
        damaged += replayed.damaged;
        found.extend(replayed.records);
    }
    found.sort_by_key(|(sequence, _)| *sequence);
    Ok(JournalRecords {
        records: found.into_iter().map(|(_, record)| record).collect(),
        damaged,
    })
}

/// Locks the journal of a run that may still be written by another process: `None` where it is, or there is none.
pub(super) fn lock(folder: &Path, run: &str) -> Result<Option<File>, StoreError> {
    let path = segment_path(folder, run, 1);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.at("opening", &path)?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).at("locking", &path),
    }
}
