//! One run to the central store: sent, read back, compared. Everything but `run.json` first; it is sent when all others
//! are right, so that its presence means at the central store what it means here.

use super::KeepError;
use super::destination::{Destination, Pace};
use super::digest;
use super::life::Life;
use crate::storage::{FileRecord, RunRecord};
use jiff::Timestamp;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// A run, and what its files must be.
pub struct Job {
    /// folder within the store, and at the destination
    pub path: String,
    /// folder here
    pub folder: PathBuf,
    /// `run.json`
    pub record: RunRecord,
    /// `state.jsonl`
    pub life: Life,
    /// `run.json` as a file
    run_json: FileRecord,
}

impl Job {
    /// The run at `path` of the store at `store`. Its `run.json` must be the one that was closed.
    pub fn open(store: &Path, path: &str) -> Result<Job, KeepError> {
        let folder = store.join(path);
        let file = folder.join("run.json");
        let life = Life::read(&folder)?;
        let damaged = |reason| KeepError::Damaged {
            path: file.clone(),
            reason,
        };
        let (bytes, hash) = digest::hash_file(&file, "sha256").map_err(|error| match error {
            KeepError::Io { source, .. } if is_rot(&source) => damaged(source.to_string()),
            error => error,
        })?;
        if life.run_json_sha256.as_deref() != Some(&hash) {
            let expected = life.run_json_sha256.as_deref().unwrap_or("nothing");
            return Err(damaged(format!("its SHA-256 is {hash}, state.jsonl names {expected}")));
        }
        let record = RunRecord::read(&folder)?;
        let run_json = FileRecord {
            name: "run.json".into(),
            bytes,
            algorithm: "sha256".into(),
            hash,
        };
        let path = path.to_string();
        Ok(Job {
            path,
            folder,
            record,
            life,
            run_json,
        })
    }

    /// The files of the run without `run.json`.
    pub fn files(&self) -> impl Iterator<Item = &FileRecord> {
        self.record.files.iter().chain(&self.record.journal)
    }

    /// The files of the run and, last, `run.json`.
    pub fn all_files(&self) -> impl Iterator<Item = &FileRecord> {
        self.files().chain([&self.run_json])
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// Name of a file at the destination.
    pub fn key(&self, file: &FileRecord) -> String {
        format!("{}/{}", self.path, file.name)
    }

    /// Appends to the run's `state.jsonl`.
    pub fn append(&mut self, now: Timestamp, state: &str, detail: serde_json::Value) -> Result<(), KeepError> {
        self.life.append(&self.folder, now, state, detail)
    }
}

/// Whether this is what a disk says of a file that it has lost, and not of a lack of memory or of rights.
fn is_rot(error: &std::io::Error) -> bool {
    let lost = [libc::EIO, libc::EUCLEAN, libc::EBADMSG, libc::ENODATA];
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error().is_some_and(|errno| lost.contains(&errno))
}

/// Sends every file but `run.json`, and says so in `state.jsonl`.
pub fn send(
    job: &mut Job,
    to: &dyn Destination,
    parallel: usize,
    now: Timestamp,
    pace: Pace<'_>,
) -> Result<(), KeepError> {
    to.ready()?;
    let one = |file: &FileRecord| to.send(&job.key(file), &job.folder.join(&file.name), file, pace);
    each(&job.files().collect::<Vec<_>>(), parallel, &one)?;
    let detail = json!({ "destination": to.name(), "files": job.files().count() + 1, "bytes": job.bytes() });
    job.append(now, "pushed", detail)
}

/// Reads every copy back and gives it its name; then sends `run.json` the same way, and says in `state.jsonl` that the
/// run is verified. A copy that differs is removed.
pub fn verify(
    job: &mut Job,
    to: &dyn Destination,
    parallel: usize,
    now: Timestamp,
    pace: Pace<'_>,
) -> Result<(), KeepError> {
    to.ready()?;
    compare_all(job, &job.files().collect::<Vec<_>>(), to, parallel, pace)?;
    each(&job.files().collect::<Vec<_>>(), parallel, &|file| {
        to.publish(&job.key(file))
    })?;
    let key = job.key(&job.run_json);
    to.send(&key, &job.folder.join(&job.run_json.name), &job.run_json, pace)?;
    compare(&key, &job.run_json, to, pace)?;
    to.publish(&key)?;
    job.append(now, "verified", proof(job, to))
}

/// Reads every copy of a verified run again. A copy that differs is removed; the caller makes the run closed again.
pub fn reread(
    job: &mut Job,
    to: &dyn Destination,
    parallel: usize,
    now: Timestamp,
    pace: Pace<'_>,
) -> Result<(), KeepError> {
    to.ready()?;
    compare_all(job, &job.all_files().collect::<Vec<_>>(), to, parallel, pace)?;
    job.append(now, "verified", proof(job, to))
}

/// Whether every file of the run still lies at the destination with its size: a look, not a proof.
pub fn is_there(job: &Job, at: &dyn Destination) -> Result<(), KeepError> {
    at.ready()?;
    for file in job.all_files() {
        let found = at.size(&job.key(file))?;
        if found != Some(file.bytes) {
            let reason = match found {
                Some(bytes) => format!("it has {bytes} bytes, sent were {}", file.bytes),
                None => "it is gone".into(),
            };
            return Err(KeepError::Differs {
                file: job.key(file),
                destination: at.name(),
                reason,
            });
        }
    }
    Ok(())
}

fn proof(job: &Job, to: &dyn Destination) -> serde_json::Value {
    let hashes: Vec<_> = job
        .all_files()
        .map(|file| json!({ "name": file.name, "bytes": file.bytes, "algorithm": file.algorithm, "hash": file.hash }))
        .collect();
    json!({ "destination": to.name(), "read_back": hashes })
}

/// Compares every copy, also behind one that differs: what is wrong is removed now and sent again together.
fn compare_all(
    job: &Job,
    files: &[&FileRecord],
    to: &dyn Destination,
    parallel: usize,
    pace: Pace<'_>,
) -> Result<(), KeepError> {
    let differs = Mutex::new(None);
    let compared = |file: &FileRecord| match compare(&job.key(file), file, to, pace) {
        Err(error @ KeepError::Differs { .. }) => {
            differs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
            Ok(())
        }
        done => done,
    };
    each(files, parallel, &compared)?;
    match differs.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn compare(key: &str, file: &FileRecord, to: &dyn Destination, pace: Pace<'_>) -> Result<(), KeepError> {
    let found = to.hash(key, &file.algorithm, pace)?;
    let reason = match &found {
        Some((bytes, hash)) if *bytes == file.bytes && *hash == file.hash => return Ok(()),
        Some((bytes, _)) if *bytes != file.bytes => format!("it has {bytes} bytes, sent were {}", file.bytes),
        Some((_, hash)) => format!("its {} is {hash}, sent was {}", file.algorithm, file.hash),
        None => "it is not there".into(),
    };
    if found.is_some() {
        to.remove(key)?;
    }
    Err(KeepError::Differs {
        file: key.into(),
        destination: to.name(),
        reason,
    })
}

/// Does `work` with every file, several at once. After the first failure no other is begun; it is what is returned.
fn each(
    files: &[&FileRecord],
    parallel: usize,
    work: &(dyn Fn(&FileRecord) -> Result<(), KeepError> + Sync),
) -> Result<(), KeepError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure = Mutex::new(None);
    let run = || {
        while !failed.load(Relaxed) {
            let Some(file) = files.get(next.fetch_add(1, Relaxed)) else {
                break;
            };
            if let Err(error) = work(file) {
                failed.store(true, Relaxed);
                failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..parallel.min(files.len()) {
            scope.spawn(run);
        }
        run();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
