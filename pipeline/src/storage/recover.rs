//! Runs that were interrupted are finished: from the journal, at the next start, by nobody's hand.
//!
//! 1. [`recover`]: heads are made anew, frames that the journal knows are indexed, the run is shortened to the last of
//!    them, the master file is finished from its copy, with the results that were kept (`results_journal`). Of the frames
//!    only those of the last seconds are read, to see that they are as the journal says, so that this takes no longer for
//!    long runs than for short ones, but for the results. From here on every file opens in any program.
//! 2. [`Recovered::publish`]: files whose hash the journal does not have are read, and `run.json` is written.
//!
//! Both may be interrupted in their turn and begin again: nothing that they need is changed before `run.json` is there.

use super::data_file::{DataFile, name_of};
use super::data_files::{DataFiles, FRAMES, FrameFormat};
use super::error::{At, StoreError};
use super::head::Place;
use super::io::{Aligned, BLOCK_BYTES};
use super::journal::{Chunk, Record};
use super::journal_file;
use super::master::{Frames, Master};
use super::results_journal;
use super::run_json::{self, FileRecord, RunRecord, hex};
use super::start::{MASTER_DRAFT, Start};
use super::store::{RUN_JSON, Store};
use super::{LedgerColumns, RunEnd, h5, open, seal};
use driver::tracker::FrameState;
use frame::FrameKind;
use jiff::Timestamp;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of the newest frames that are read and compared: more than any disk writes between two syncs.
const CHECKED_BYTES: u64 = 256 << 20;

/// A run whose files open again, and that still lacks its `run.json`.
#[derive(Debug)]
pub struct Recovered {
    /// the run's folder
    pub folder: PathBuf,
    /// frames that are stored, of those that were expected
    pub frames: (u64, u64),
    /// frames whose result is there
    pub results: u64,
    /// what somebody should know
    pub warnings: Vec<String>,
    start: Start,
    end: RunEnd,
    files: Vec<(PathBuf, Option<FileRecord>)>,
    lock: File,
}

impl Store {
    /// Makes the files of every interrupted run whole. What cannot be made whole is left as it is, with the reason.
    pub fn recover(&self) -> Result<Vec<Result<Recovered, StoreError>>, StoreError> {
        Ok(self.recover_among(self.run_folders()?))
    }

    /// The same for the interrupted ones among these folders, where somebody knows which come into question.
    pub fn recover_among(&self, folders: Vec<PathBuf>) -> Vec<Result<Recovered, StoreError>> {
        let open = folders.into_iter().filter(|folder| !folder.join(RUN_JSON).exists());
        open.filter_map(|folder| recover(&folder).transpose()).collect()
    }
}

/// Makes the files of an interrupted run whole; `None` where there is nothing to do: no run of this program's, one that
/// another process is writing, or one that was interrupted before it was armed, which is removed.
fn recover(folder: &Path) -> Result<Option<Recovered>, StoreError> {
    let Some(start) = Start::read(folder)? else {
        if let Some(_mark) = Start::left_behind(folder)? {
            tracing::warn!("removing {}: it was interrupted before it was armed", folder.display());
            fs::remove_dir_all(folder).at("removing", folder)?;
        }
        return Ok(None);
    };
    let run = start.record.id.clone();
    let Some(lock) = journal_file::lock(folder, &run)? else {
        return Ok(None);
    };
    // Whoever held the lock until now may have closed the run.
    if folder.join(RUN_JSON).exists() {
        return Ok(None);
    }
    let format = start.format().ok_or_else(|| StoreError::Record {
        path: folder.join(super::start::START_JSON),
        reason: "it describes no frames".into(),
    })?;
    let tag = journal_file::tag(&start.record.proposal, &run, start.record.start_time);
    let journal = journal_file::read(folder, &run, tag)?;
    let mut warnings = Vec::new();
    if journal.damaged > 0 {
        warnings.push(format!("{} records of the journal are damaged", journal.damaged));
    }
    h5::register_bitshuffle().at("registering filter 32008 for", folder)?;
    let (master, results, damaged) = reopen_master(folder, &start, format, tag)?;
    if damaged > 0 {
        warnings.push(format!("{damaged} results are not as they were written"));
    }
    warnings.insert(0, interrupted(&start, results.len()));
    let newest = journal.records.iter().filter_map(|record| match record {
        Record::Chunk(chunk) => Some(chunk.frame),
        _ => None,
    });
    // A result may be there of a frame that is not.
    let newest = newest.chain(results.keys().next_back().copied());
    let mut files = DataFiles::reopen(folder, &run, format, newest.max().unwrap_or(0))?;
    let Journaled {
        chunks,
        sealed,
        guessed,
    } = place(&mut files, &journal.records, &mut warnings)?;
    let dropped = check_newest(&mut files, &chunks, &guessed)?;
    if !dropped.is_empty() {
        warnings.push(format!(
            "{} frames are not as they were written: {dropped:?}",
            dropped.len()
        ));
    }
    let chunks: BTreeMap<u64, Chunk> = chunks
        .into_iter()
        .filter(|(frame, _)| !dropped.contains(frame))
        .collect();
    let stored_end = chunks.keys().next_back().map_or(0, |last| last + 1);
    let kept = stored_end.max(master.results_end());
    let listed = write_heads(&mut files, kept, &sealed)?;
    let books = Books::new(format.frames, &chunks, &results, start.store_frames);
    let end = books.end(&start, &warnings);
    finish_master(folder, &run, master, (kept, &files), &books, &end)?;
    run_json::sync_folder(folder)?;
    let master = folder.join(format!("{run}_master.h5"));
    let mut all = vec![(master, None)];
    all.extend(listed);
    Ok(Some(Recovered {
        folder: folder.to_path_buf(),
        frames: (chunks.len() as u64, format.frames),
        results: results.len() as u64,
        files: all,
        warnings,
        start,
        end,
        lock,
    }))
}

impl Recovered {
    /// Hashes what has no hash yet and writes `run.json`.
    pub fn publish(self) -> Result<RunRecord, StoreError> {
        let mut records = Vec::with_capacity(self.files.len());
        for (path, known) in self.files {
            records.push(match known {
                Some(known) => known,
                None => seal::seal(&path)?,
            });
        }
        let mut record = self.start.record;
        record.files = records;
        record.journal = journal_file::records_of(&self.folder, &record.id)?;
        record.state = self.end.state;
        record.end_time = self.end.end_time;
        record.frames = self.end.counts;
        record.summary = self.end.summary;
        record.warnings.extend(self.warnings);
        record.publish(&self.folder)?;
        Start::clear(&self.folder);
        let _ = fs::remove_file(self.folder.join(super::reserve::FILE_NAME));
        drop(self.lock);
        Ok(record)
    }
}

struct Journaled {
    /// the newest record of every frame; files by their place in [`DataFiles::files`]
    chunks: BTreeMap<u64, Chunk>,
    /// files that were closed and not touched since: length and hash
    sealed: BTreeMap<u32, (u64, [u8; 32])>,
    /// files whose own record is damaged: which ones they are is a guess, so that every frame of theirs is read
    guessed: BTreeSet<u32>,
}

/// The files that took over, by their number in the journal: slot and generation. A damaged record leaves a number that
/// only frames tell of: such a file is the one of its slot that nobody else is.
fn took_over(files: &DataFiles, records: &[Record]) -> (BTreeMap<u32, (u64, u32)>, BTreeSet<u32>) {
    let planned = files.format.files() as u32;
    let mut known: BTreeMap<u32, (u64, u32)> = records
        .iter()
        .filter_map(|record| match *record {
            Record::Replaced { file, slot, generation } => Some((file, (slot, generation))),
            _ => None,
        })
        .collect();
    let mut guessed = BTreeSet::new();
    for record in records {
        let Record::Chunk(chunk) = record else { continue };
        if chunk.file < planned || chunk.frame >= files.format.frames || known.contains_key(&chunk.file) {
            continue;
        }
        let slot = chunk.frame / files.format.frames_per_file;
        let taken = |generation| known.values().any(|known| *known == (slot, generation));
        if let Some(generation) = (2..u32::MAX).find(|generation| !taken(*generation)) {
            known.insert(chunk.file, (slot, generation));
            guessed.insert(chunk.file);
        }
    }
    (known, guessed)
}

/// Tells the files what the journal says lies in them.
fn place(files: &mut DataFiles, records: &[Record], warnings: &mut Vec<String>) -> Result<Journaled, StoreError> {
    let planned = files.format.files() as u32;
    let (known, unsure) = took_over(files, records);
    let (mut at, mut guessed) = (BTreeMap::new(), BTreeSet::new());
    for (number, (slot, generation)) in known {
        let Some(place) = files.readopt(slot, generation)? else {
            continue;
        };
        at.insert(number, place);
        if unsure.contains(&number) {
            guessed.insert(place);
        }
        warnings.push(format!("the disk refused data file {}; another one went on", slot + 1));
    }
    let at = |number: u32| match number < planned {
        true => Some(number),
        false => at.get(&number).copied(),
    };
    let (mut chunks, mut sealed) = (BTreeMap::new(), BTreeMap::new());
    for record in records {
        match *record {
            Record::Replaced { .. } => {}
            Record::Sealed { file, bytes, hash } => {
                if let Some(file) = at(file) {
                    sealed.insert(file, (bytes, hash));
                }
            }
            Record::Chunk(chunk) => {
                let Some(number) = at(chunk.file) else { continue };
                sealed.remove(&number);
                let Some(file) = files.files.get_mut(number as usize) else {
                    continue;
                };
                if !(file.first..file.first + file.frames).contains(&chunk.frame) {
                    continue;
                }
                file.written(
                    chunk.frame,
                    Place {
                        offset: chunk.offset,
                        bytes: chunk.bytes,
                        filters_skipped: u32::from(chunk.filters_skipped),
                    },
                );
                file.resume(chunk.offset + u64::from(chunk.bytes));
                let chunk = Chunk { file: number, ..chunk };
                chunks.insert(chunk.frame, chunk);
            }
        }
    }
    Ok(Journaled {
        chunks,
        sealed,
        guessed,
    })
}

/// Reads the newest frames, and all of `guessed` files; those that are not as the journal says are taken out again and
/// returned.
fn check_newest(
    files: &mut DataFiles,
    chunks: &BTreeMap<u64, Chunk>,
    guessed: &BTreeSet<u32>,
) -> Result<Vec<u64>, StoreError> {
    let (mut left, mut dropped, mut buffer) = (CHECKED_BYTES, Vec::new(), Vec::new());
    for chunk in chunks.values().rev() {
        let newest = left.checked_sub(u64::from(chunk.bytes));
        left = newest.unwrap_or(0);
        if newest.is_none() && !guessed.contains(&chunk.file) {
            if guessed.is_empty() {
                break;
            }
            continue;
        }
        let file = &mut files.files[chunk.file as usize];
        buffer.resize(chunk.bytes as usize, 0);
        let read = File::open(&file.path).and_then(|f| f.read_exact_at(&mut buffer, chunk.offset));
        if read.is_err() || crc32c::crc32c(&buffer) != chunk.crc32c {
            file.unwritten(chunk.frame);
            dropped.push(chunk.frame);
        }
    }
    dropped.sort_unstable();
    Ok(dropped)
}

/// Writes heads and indexes anew, but for files that are as they were closed. Returns the files that are left, with
/// their hashes where they are known.
fn write_heads(
    files: &mut DataFiles,
    kept: u64,
    sealed: &BTreeMap<u32, (u64, [u8; 32])>,
) -> Result<Vec<(PathBuf, Option<FileRecord>)>, StoreError> {
    let left = kept.div_ceil(files.format.frames_per_file).max(1);
    let mut listed = Vec::new();
    let mut spare = Aligned::new(BLOCK_BYTES);
    for (number, file) in (0..).zip(&mut files.files) {
        if file.slot >= left || (file.generation > 1 && file.stored == 0) {
            match fs::remove_file(&file.path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.at("removing the empty", &file.path)?,
            }
            continue;
        }
        let frames = (kept - file.first.min(kept)).min(file.frames);
        let as_closed = sealed.get(&number).filter(|(bytes, _)| {
            let as_long = fs::metadata(&file.path).is_ok_and(|found| found.len() == *bytes);
            frames == file.frames && as_long && open::read(&file.path).and_then(|file| file.dataset(FRAMES)).is_ok()
        });
        let record = match as_closed {
            Some((bytes, hash)) => Some(FileRecord {
                name: name_of(&file.path),
                bytes: *bytes,
                algorithm: super::hash::ALGORITHM.into(),
                hash: hex(hash),
            }),
            None => {
                write_head(file, frames, &mut spare)?;
                None
            }
        };
        listed.push((file.slot, file.generation, file.path.clone(), record));
    }
    listed.sort_by_key(|(slot, generation, ..)| (*slot, *generation));
    Ok(listed.into_iter().map(|(_, _, path, record)| (path, record)).collect())
}

fn write_head(file: &mut DataFile, frames: u64, spare: &mut Aligned) -> Result<(), StoreError> {
    let path = file.path.clone();
    file.shorten(frames);
    let made = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    made.at("opening", &path)?;
    let written = file.next_index().and_then(|index| {
        index.write(spare)?;
        index.sync()?;
        Ok(index.end())
    });
    let end = written.map_err(|source| StoreError::io("writing the index of", &path, source, 0))?;
    file.seal();
    // What was written behind it and never acknowledged is of no use to anybody.
    let cut = fs::OpenOptions::new().write(true).open(&path).and_then(|file| {
        file.set_len(end)?;
        file.sync_all()
    });
    cut.map_err(|source| StoreError::io("shortening", &path, source, 0))
}

/// What is missing of an interrupted run.
fn interrupted(start: &Start, results: usize) -> String {
    let missing = match (start.layout().frame_bytes(), results) {
        (0, _) => "what belongs to the whole run is missing".to_string(),
        (_, 0) => "results are missing".to_string(),
        _ => format!("the results of {results} frames are there, others and what belongs to the whole run are missing"),
    };
    format!("the run was interrupted: the last moments before that are missing; {missing}")
}

/// What is known of a frame by its result.
#[derive(Clone, Copy, Debug)]
struct Analysed {
    partial: bool,
    vetoed: bool,
    kind: FrameKind,
    angle_deg: f64,
    latency_ns: u32,
}

/// The ledger of a run that was interrupted.
struct Books {
    frames: Frames,
    columns: crate::ledger::Columns,
    complete: u64,
    partial: u64,
    synced: u64,
    vetoed: u64,
    done: u64,
}

impl Books {
    fn new(
        expected: u64,
        chunks: &BTreeMap<u64, Chunk>,
        results: &BTreeMap<u64, Analysed>,
        store_frames: bool,
    ) -> Self {
        let n = expected as usize;
        let mut frames = Frames {
            stored: vec![false; n],
            kinds: vec![FrameKind::Sample as u8; n],
            angles_deg: vec![f64::NAN; n],
        };
        let mut columns = crate::ledger::Columns {
            // What the journal does not know never came, or came too late to be kept.
            frame_state: vec![FrameState::Lost as u8; n],
            analysis: vec![0; n],
            storage: vec![0; n],
            arrival_ns: vec![0; n],
            result_latency_ns: vec![0; n],
            parts_missing: vec![0; n],
            missing_bytes: vec![0; n],
            device_failed: vec![0; n],
        };
        let (mut complete, mut partial, mut vetoed) = (0, 0, 0);
        for (frame, chunk) in chunks {
            let at = *frame as usize;
            frames.stored[at] = true;
            frames.kinds[at] = chunk.kind;
            frames.angles_deg[at] = chunk.angle_deg;
            columns.frame_state[at] = chunk.receipt;
            columns.analysis[at] = crate::ledger::Analysis::Failed as u8;
            columns.storage[at] = crate::ledger::Storage::Synced as u8;
            columns.parts_missing[at] = chunk.parts_missing;
            columns.missing_bytes[at] = chunk.missing_bytes;
            if chunk.receipt == 2 {
                partial += 1
            } else {
                complete += 1
            }
        }
        for (frame, result) in results {
            let at = *frame as usize;
            columns.analysis[at] = crate::ledger::Analysis::Done as u8;
            columns.result_latency_ns[at] = result.latency_ns;
            if chunks.contains_key(frame) {
                continue;
            }
            // It came and was analysed; what became of its bytes is told by whoever decided on them, or they came too late.
            let let_go = result.vetoed || !store_frames;
            frames.kinds[at] = result.kind as u8;
            frames.angles_deg[at] = result.angle_deg;
            columns.frame_state[at] = match result.partial {
                true => FrameState::Partial,
                false => FrameState::Complete,
            } as u8;
            columns.storage[at] = match let_go {
                true => crate::ledger::Storage::Vetoed,
                false => crate::ledger::Storage::Failed,
            } as u8;
            vetoed += u64::from(let_go);
            partial += u64::from(result.partial);
            complete += u64::from(!result.partial);
        }
        Self {
            frames,
            columns,
            complete,
            partial,
            synced: chunks.len() as u64,
            vetoed,
            done: results.len() as u64,
        }
    }

    fn end(&self, start: &Start, warnings: &[String]) -> RunEnd {
        let received = self.complete + self.partial;
        let expected = self.columns.frame_state.len() as u64;
        let counts = json!({
            "expected": expected, "complete": self.complete, "partial": self.partial, "corrupt": 0,
            "lost": expected - received, "duplicate": 0, "late": 0, "stale": 0, "unexpected": 0,
        });
        let outcomes = json!({
            "received": received, "done": self.done, "shed": 0, "analysis_failed": received - self.done,
            "synced": self.synced, "vetoed": self.vetoed, "storage_failed": received - self.synced - self.vetoed,
        });
        RunEnd {
            state: "interrupted".into(),
            end_time: Timestamp::now(),
            summary: json!({
                "run": start.record.id, "state": "interrupted", "frames": counts, "outcomes": outcomes,
                "warnings": warnings, "device": start.record.device,
            }),
            counts,
            metadata: Vec::new(),
            grid: None,
        }
    }

    fn ledger(&self) -> LedgerColumns<'_> {
        self.columns.as_storage()
    }
}

/// The master file: its copy from before frame 0, with the results that were kept, of which frames those are, and how many
/// are not as they were written.
fn reopen_master(
    folder: &Path,
    start: &Start,
    format: FrameFormat,
    tag: u64,
) -> Result<(Master, BTreeMap<u64, Analysed>, u64), StoreError> {
    let draft = folder.join(MASTER_DRAFT);
    fs::copy(Start::master(folder), &draft).at("copying", &draft)?;
    let mut master = Master::open(&draft, format, start)?;
    let mut analysed = BTreeMap::new();
    let layout = start.layout();
    if layout.frame_bytes() == 0 {
        return Ok((master, analysed, 0));
    }
    let found = results_journal::read(folder, &layout, tag, &mut |result| {
        let known = Analysed {
            partial: result.partial,
            vetoed: result.vetoed,
            kind: result.kind,
            angle_deg: result.angle_deg,
            latency_ns: u32::try_from(result.result_time_ns).unwrap_or(u32::MAX),
        };
        analysed.insert(result.frame_number, known);
        master.write_result(result)
    })?;
    master.results_are_partial(analysed.len() as u64)?;
    Ok((master, analysed, found.damaged))
}

/// Adds what is known now, and puts the file in the place of the one that was interrupted.
fn finish_master(
    folder: &Path,
    run: &str,
    reopened: Master,
    (kept, files): (u64, &DataFiles),
    books: &Books,
    end: &RunEnd,
) -> Result<(), StoreError> {
    let master = folder.join(format!("{run}_master.h5"));
    let draft = folder.join(MASTER_DRAFT);
    reopened.finish(
        (kept, &files.pieces(kept)),
        &books.frames,
        &books.ledger(),
        &[],
        &[],
        end,
    )?;
    // It opens as a reader opens it, or it does not take the other one's place.
    open::read(&draft)
        .at("opening", &draft)?
        .close()
        .at("closing", &draft)?;
    File::open(&draft)
        .and_then(|file| file.sync_all())
        .at("syncing", &draft)?;
    fs::rename(&draft, &master).at("renaming to", &master)
}
