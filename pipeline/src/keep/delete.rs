//! Deleting the data of a run. Its `run.json` and `state.jsonl` stay, so that it is found and says where its copy is.

use super::access;
use super::config::AccessConfig;
use super::destination::Destination;
use super::life::State;
use super::push::{self, Job};
use super::retention::is_safe;
use super::{KEEP_FOLDER, KeepError};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A run that could be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// folder within the store
    pub path: String,
    /// bytes of its files
    pub bytes: u64,
}

/// What deleting would do now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// runs that are safe to delete and would go, oldest first
    pub delete: Vec<Candidate>,
    /// runs that are safe to delete and stay, since there is room
    pub stay: Vec<Candidate>,
    /// runs here that are not safe to delete
    pub unsafe_runs: u64,
    /// their bytes
    pub unsafe_bytes: u64,
}

/// Deletes the data of a run that is `safe_to_delete`, after one more look at its life and at its copy. Interrupted, it
/// is finished by [`finish`].
pub fn delete(
    job: &mut Job,
    copy: &dyn Destination,
    access: (&AccessConfig, &Path),
    (now, age, clock_trusted): (Timestamp, Duration, bool),
) -> Result<(), KeepError> {
    if job.life.state != State::SafeToDelete {
        return Err(KeepError::Config(format!("{} is {}", job.path, job.life.state.name())));
    }
    if let Err(reason) = is_safe(&job.life, now, age, clock_trusted) {
        return Err(KeepError::Config(format!(
            "{} is not safe to delete: {reason:?}",
            job.path
        )));
    }
    push::is_there(job, copy)?;
    let store = access.1;
    let note = note(store, &job.path);
    let noted = note.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
        fs::write(&note, &job.path)?;
        File::open(&note)?.sync_all()
    });
    noted.map_err(|source| KeepError::io("writing", &note, source))?;
    let detail = json!({ "destination": copy.name(), "bytes": job.bytes() });
    job.append(now, "deleted", detail)?;
    remove_files(job, access)?;
    fs::remove_file(&note).map_err(|source| KeepError::io("removing", &note, source))
}

/// Finishes what an interruption left half deleted. What cannot be finished now is kept in mind for the next start.
pub fn finish(access: (&AccessConfig, &Path)) {
    let store = access.1;
    let Ok(notes) = fs::read_dir(store.join(KEEP_FOLDER).join("deleting")) else {
        return;
    };
    for note in notes.flatten() {
        let path = fs::read_to_string(note.path()).unwrap_or_default();
        let done = match Job::open(store, &path) {
            Ok(job) if job.life.state == State::Deleted => remove_files(&job, access),
            // The note comes before the line in state.jsonl, and only the line counts.
            Ok(_) => Ok(()),
            Err(_) if path.is_empty() || !store.join(&path).is_dir() => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => drop(fs::remove_file(note.path())),
            Err(error) => tracing::error!(target: "fluxline", "run {path} is half deleted: {error}"),
        }
    }
}

fn note(store: &Path, path: &str) -> PathBuf {
    let name = blake3::hash(path.as_bytes()).to_hex().to_string();
    store.join(KEEP_FOLDER).join("deleting").join(name)
}

/// Removes the files that `run.json` names, and nothing else.
fn remove_files(job: &Job, access: (&AccessConfig, &Path)) -> Result<(), KeepError> {
    access::withdraw(access.0, access.1, &job.path)?;
    for file in job.files() {
        let path = job.folder.join(&file.name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(KeepError::io("removing", &path, error)),
            _ => {}
        }
    }
    File::open(&job.folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| KeepError::io("syncing", &job.folder, source))
}
