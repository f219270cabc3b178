//! A mounted folder: NFS, SMB, a second disk.
//!
//! A copy is `FILE.part` until it has been read back. An interrupted one goes on behind the bytes that are there; whether
//! they are the right ones the reading back says. `object_store`'s own folders start every file anew, which days of data
//! do not have the time for.

use super::super::KeepError;
use super::super::digest::{self, Digest};
use super::{Destination, Pace, damaged};
use crate::storage::FileRecord;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// File at the destination that says which one it is: a mount point without its mount has none.
const MARKER: &str = ".fluxline-destination";

/// The folder.
pub struct Folder {
    root: PathBuf,
    store: PathBuf,
    keep: PathBuf,
    same_file_system: bool,
}

impl Folder {
    /// The folder `root`, for the store at `store` whose keeper's folder is `keep`.
    pub fn new(root: PathBuf, store: &Path, keep: PathBuf, same_file_system: bool) -> Self {
        let store = store.to_path_buf();
        Self {
            root,
            store,
            keep,
            same_file_system,
        }
    }

    fn away(&self, reason: impl std::fmt::Display) -> KeepError {
        KeepError::Away {
            destination: self.name(),
            reason: reason.to_string(),
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn part(&self, key: &str) -> PathBuf {
        self.root.join(format!("{key}.part"))
    }

    /// The copy, published or not.
    fn copy(&self, key: &str) -> Option<PathBuf> {
        [self.path(key), self.part(key)].into_iter().find(|path| path.is_file())
    }

    fn at<T>(&self, doing: &str, path: &Path, done: io::Result<T>) -> Result<T, KeepError> {
        done.map_err(|error| self.away(format!("{doing} {}: {error}", path.display())))
    }

    /// Remembers the destination at the first sight, and knows it again.
    fn known(&self) -> io::Result<Result<(), String>> {
        let (marker, ours) = (self.root.join(MARKER), self.keep.join("destination"));
        let expected = match fs::read_to_string(&ours) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let found = match fs::read_to_string(&marker) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let same = |text: &str| text.lines().next() == found.as_deref().and_then(|found| found.lines().next());
        match (expected, &found) {
            (Some(expected), Some(_)) if same(&expected) => Ok(Ok(())),
            // Another folder than the one that was pushed to: told by its own name in our note.
            (Some(expected), _) if expected.lines().nth(1) == self.root.to_str() => Ok(Err(format!(
                "it is not the folder that was pushed to before ({MARKER} is missing or another's): is it mounted? \
                 If it is right all the same, remove {}",
                ours.display()
            ))),
            _ => {
                let id = match &found {
                    Some(found) => found.lines().next().unwrap_or_default().to_string(),
                    None => {
                        let random = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
                        let mut file = File::create_new(&marker)?;
                        file.write_all(random.as_bytes())?;
                        file.sync_all()?;
                        random.trim().to_string()
                    }
                };
                fs::write(&ours, format!("{id}\n{}\n", self.root.display()))?;
                Ok(Ok(()))
            }
        }
    }
}

impl Destination for Folder {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn ready(&self) -> Result<(), KeepError> {
        let here = self.at("looking at", &self.root, fs::metadata(&self.root))?;
        let store = fs::metadata(&self.store).map_err(|source| KeepError::io("looking at", &self.store, source))?;
        if here.dev() == store.dev() && !self.same_file_system {
            return Err(self.away(
                "it lies on the same file system as the store: is it mounted? push.same_file_system = true takes it all the same",
            ));
        }
        self.at("looking at", &self.root, self.known())?
            .map_err(|reason| self.away(reason))
    }

    fn send(&self, key: &str, file: &Path, record: &FileRecord, pace: Pace<'_>) -> Result<(), KeepError> {
        let (whole, part) = (self.path(key), self.part(key));
        let there = |path: &Path| fs::metadata(path).map(|data| data.len()).ok();
        if there(&whole) == Some(record.bytes) {
            return Ok(());
        }
        let folder = part.parent().unwrap_or(&self.root);
        self.at("creating", folder, fs::create_dir_all(folder))?;
        let begun = there(&part).unwrap_or(0);
        let mut options = OpenOptions::new();
        let opened = options
            .create(true)
            .write(true)
            .truncate(begun > record.bytes)
            .open(&part);
        let copy = self.at("creating", &part, opened)?;
        let begun = if begun > record.bytes { 0 } else { begun };
        let mut digest = Digest::of(&record.algorithm, &record.name)?;
        let mut at = 0;
        // What is there already is read here all the same, for the hash of the whole.
        digest::read_blocks(file, |block| {
            digest.update(block);
            let skip = begun.saturating_sub(at).min(block.len() as u64) as usize;
            let rest = &block[skip..];
            if !rest.is_empty() {
                pace(rest.len()).map_err(Failed::Keep)?;
                let written = copy.write_all_at(rest, at + skip as u64);
                self.at("writing", &part, written).map_err(Failed::Keep)?;
            }
            at += block.len() as u64;
            Ok::<_, Failed>(())
        })
        .map_err(|failed| match failed {
            Failed::Keep(error) => error,
            Failed::Io(source) => KeepError::io("reading", file, source),
        })?;
        let hash = digest.finish();
        if at != record.bytes || hash != record.hash {
            let _ = fs::remove_file(&part);
            return Err(damaged(file, record, at, &hash));
        }
        self.at("syncing", &part, copy.sync_all())
    }

    fn hash(&self, key: &str, algorithm: &str, pace: Pace<'_>) -> Result<Option<(u64, String)>, KeepError> {
        let Some(path) = self.copy(key) else { return Ok(None) };
        let mut digest = Digest::of(algorithm, key)?;
        let read = digest::read_blocks(&path, |block| {
            pace(0).map_err(Failed::Keep)?;
            digest.update(block);
            Ok::<_, Failed>(())
        });
        let bytes = read.map_err(|failed| match failed {
            Failed::Keep(error) => error,
            Failed::Io(error) => self.away(format!("reading {}: {error}", path.display())),
        })?;
        Ok(Some((bytes, digest.finish())))
    }

    fn publish(&self, key: &str) -> Result<(), KeepError> {
        let (whole, part) = (self.path(key), self.part(key));
        if part.exists() {
            self.at("renaming", &part, fs::rename(&part, &whole))?;
        }
        let folder = whole.parent().unwrap_or(&self.root);
        self.at(
            "syncing",
            folder,
            File::open(folder).and_then(|folder| folder.sync_all()),
        )
    }

    fn size(&self, key: &str) -> Result<Option<u64>, KeepError> {
        self.ready()?;
        let path = self.path(key);
        match fs::metadata(&path) {
            Ok(data) => Ok(Some(data.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => self.at("looking at", &path, Err(error)),
        }
    }

    fn remove(&self, key: &str) -> Result<(), KeepError> {
        for path in [self.path(key), self.part(key)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return self.at("removing", &path, Err(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn fetch(&self, key: &str, into: &mut File) -> Result<(), KeepError> {
        let path = self.path(key);
        let read = digest::read_blocks(&path, |block| into.write_all(block));
        self.at("reading", &path, read).map(|_| ())
    }
}

/// What can end the reading of a file: the reading, or what is done with a block.
enum Failed {
    Keep(KeepError),
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Io(error)
    }
}
