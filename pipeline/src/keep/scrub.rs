//! Looking after what lies here: every file is read from the disk and compared with its hash; one that is no longer what
//! was written is fetched again where the copy was verified.

use super::KeepError;
use super::destination::Destination;
use super::digest::{self, Digest};
use super::life::{Life, State};
use super::push::Job;
use crate::storage::FileRecord;
use jiff::Timestamp;
use serde_json::json;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// What was found of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Scrubbed {
    /// files that are as written
    pub good: Vec<String>,
    /// files that were not, and were fetched again
    pub repaired: Vec<String>,
    /// files that are not, and how
    pub damaged: Vec<String>,
}

/// Compares every file of a run with its hash, repairs what can be repaired, and says in `state.jsonl` what was found.
/// `found`: what was done before. `pace` is asked before every block.
pub fn scrub(
    job: &mut Job,
    mut found: Scrubbed,
    copy: Option<&dyn Destination>,
    now: Timestamp,
    pace: &dyn Fn(usize) -> Result<(), KeepError>,
) -> Result<Scrubbed, KeepError> {
    let verified = matches!(job.life.state, State::Verified | State::SafeToDelete);
    let files: Vec<FileRecord> = job.files().cloned().collect();
    for file in &files {
        let Err(reason) = check(job, file, pace)? else {
            found.good.push(file.name.clone());
            continue;
        };
        let Some(copy) = copy.filter(|_| verified) else {
            found
                .damaged
                .push(format!("{}: {reason}; there is no verified copy", file.name));
            continue;
        };
        let right = |bytes: u64, hash: &str| bytes == file.bytes && hash == file.hash;
        match repair(&job.folder, &job.key(file), (&file.name, &file.algorithm), copy, &right) {
            Ok(()) => found.repaired.push(file.name.clone()),
            Err(error) => found
                .damaged
                .push(format!("{}: {reason}; not repaired: {error}", file.name)),
        }
    }
    let damaged = (!found.damaged.is_empty()).then(|| found.damaged.join("; "));
    match damaged {
        Some(reason) if job.life.damaged.as_ref() != Some(&reason) => {
            job.append(now, "damaged", json!({ "reason": reason }))?
        }
        None if job.life.damaged.is_some() || !found.repaired.is_empty() => {
            job.append(now, "repaired", json!({ "files": found.repaired }))?;
        }
        _ => {}
    }
    Ok(found)
}

/// Whether a file is as written, and if not how it differs.
fn check(
    job: &Job,
    file: &FileRecord,
    pace: &dyn Fn(usize) -> Result<(), KeepError>,
) -> Result<Result<(), String>, KeepError> {
    let path = job.folder.join(&file.name);
    let mut digest = Digest::of(&file.algorithm, &file.name)?;
    let mut stopped = None;
    let read = digest::read_blocks(&path, |block| {
        digest.update(block);
        pace(block.len()).map_err(|error| {
            stopped = Some(error);
            io::Error::other("stopped")
        })
    });
    if let Some(error) = stopped {
        return Err(error);
    }
    Ok(match read {
        // What the disk cannot read any more is as bad as what reads differently.
        Err(error) => Err(format!("{error}")),
        Ok(bytes) if bytes != file.bytes => Err(format!("it has {bytes} bytes, written were {}", file.bytes)),
        Ok(_) => match digest.finish() {
            hash if hash == file.hash => Ok(()),
            hash => Err(format!("its {} is {hash}, written was {}", file.algorithm, file.hash)),
        },
    })
}

/// Fetches the `run.json` that the run at `path` was closed with, where its copy was verified.
pub fn repair_record(store: &Path, path: &str, copy: Option<&dyn Destination>) -> Result<(), KeepError> {
    let folder = store.join(path);
    let life = Life::read(&folder)?;
    let none = || KeepError::Config("there is no verified copy".into());
    let copy = copy.filter(|_| life.state >= State::Verified).ok_or_else(none)?;
    let expected = life.run_json_sha256.ok_or_else(none)?;
    let right = |_: u64, hash: &str| hash == expected;
    repair(
        &folder,
        &format!("{path}/run.json"),
        ("run.json", "sha256"),
        copy,
        &right,
    )
}

/// Fetches a file by its `key`, compares it, and renames it into place.
fn repair(
    folder: &Path,
    key: &str,
    (name, algorithm): (&str, &str),
    copy: &dyn Destination,
    right: &dyn Fn(u64, &str) -> bool,
) -> Result<(), KeepError> {
    copy.ready()?;
    let (path, draft) = (folder.join(name), folder.join(format!(".{name}.repair")));
    let local = |source| KeepError::io("writing", &draft, source);
    let mut into = File::create(&draft).map_err(local)?;
    let fetched = copy.fetch(key, &mut into).and_then(|()| {
        into.sync_all().map_err(local)?;
        let (bytes, hash) = digest::hash_file(&draft, algorithm)?;
        if right(bytes, &hash) {
            return Ok(());
        }
        Err(KeepError::Differs {
            file: key.into(),
            destination: copy.name(),
            reason: format!("fetched were {bytes} bytes with {algorithm} {hash}"),
        })
    });
    if let Err(error) = fetched {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    // Best effort: a file that is gone has no mode to keep; its owner is given again with the export.
    if let Ok(data) = fs::metadata(&path) {
        let _ = fs::set_permissions(&draft, data.permissions());
    }
    let renamed = fs::rename(&draft, &path).and_then(|()| File::open(folder)?.sync_all());
    renamed.map_err(|source| KeepError::io("renaming to", &path, source))
}
