//! The central store: a mounted folder or a bucket. Whoever copies asks here and does not see which.

mod folder;
mod s3;

use super::KeepError;
use super::config::PushConfig;
use crate::storage::FileRecord;
pub use folder::Folder;
pub use s3::Bucket;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Asked before every piece of a file is sent: lets time pass, or says that the program ends.
pub type Pace<'a> = &'a (dyn Fn(usize) -> Result<(), KeepError> + Sync);

/// A place that files are copied to. `key` is `PROPOSAL/YYYYMMDD/RUN/FILE`.
pub trait Destination: Send + Sync {
    /// Its name for messages and for `state.jsonl`.
    fn name(&self) -> String;

    /// Whether it is there, and the one that it was before.
    fn ready(&self) -> Result<(), KeepError>;

    /// Copies a file, going on where an earlier try ended, and hashes what it reads. When this returns the destination
    /// has said that it has every byte; nobody but [`Destination::hash`] sees the copy before [`Destination::publish`].
    fn send(&self, key: &str, file: &Path, record: &FileRecord, pace: Pace<'_>) -> Result<(), KeepError>;

    /// Reads a copy, published or not, from the destination itself: its size and hash. None where there is no copy.
    fn hash(&self, key: &str, algorithm: &str, pace: Pace<'_>) -> Result<Option<(u64, String)>, KeepError>;

    /// Gives a copy its name.
    fn publish(&self, key: &str) -> Result<(), KeepError>;

    /// Size of the published copy.
    fn size(&self, key: &str) -> Result<Option<u64>, KeepError>;

    /// Removes a copy that is not what it should be.
    fn remove(&self, key: &str) -> Result<(), KeepError>;

    /// Reads a published copy into a file here.
    fn fetch(&self, key: &str, into: &mut File) -> Result<(), KeepError>;
}

/// The destination of a configuration; none where nothing is pushed. `keep` is the store's folder for what is on its way.
pub fn open(config: &PushConfig, store: &Path, base: &Path) -> Result<Option<Box<dyn Destination>>, KeepError> {
    let keep = store.join(super::KEEP_FOLDER);
    let Some(to) = &config.to else { return Ok(None) };
    Ok(Some(match to.strip_prefix("s3://") {
        Some(place) => Box::new(Bucket::open(place, config, keep.join("uploads"), base)?),
        None => Box::new(Folder::new(PathBuf::from(to), store, keep, config.same_file_system)),
    }))
}

/// The file here is not what `run.json` says.
fn damaged(path: &Path, record: &FileRecord, bytes: u64, hash: &str) -> KeepError {
    let reason = match bytes == record.bytes {
        true => format!("its {} is {hash}, written was {}", record.algorithm, record.hash),
        false => format!("it has {bytes} bytes, written were {}", record.bytes),
    };
    KeepError::Damaged {
        path: path.into(),
        reason,
    }
}
