//! Files that are closed are put on the disk and hashed while the next ones are still being written, so
//! that a run of hours ends in seconds.

use super::error::StoreError;
use super::hash;
use super::run_json::FileRecord;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// One request: which file, and how often it had been opened when it was closed.
type Closed = (usize, u32);

/// The thread that seals.
#[derive(Debug)]
pub(super) struct Sealer {
    requests: SyncSender<Closed>,
    thread: JoinHandle<Vec<(Closed, Result<FileRecord, StoreError>)>>,
}

impl Sealer {
    /// Starts the thread. `paths` are the files that requests count.
    pub(super) fn start(paths: Vec<PathBuf>) -> io::Result<Self> {
        let (requests, queue) = sync_channel(paths.len() + 1);
        let thread = std::thread::Builder::new()
            .name("fluxline-seal".into())
            .spawn(move || serve(&paths, &queue))?;
        Ok(Self { requests, thread })
    }

    /// Asks for a closed file. When the queue is full the file is left to the end of the run.
    pub(super) fn offer(&self, file: usize, opened: u32) {
        let _ = self.requests.try_send((file, opened));
    }

    /// What has been sealed, when everything asked for is done.
    pub(super) fn finish(self) -> Vec<(Closed, Result<FileRecord, StoreError>)> {
        drop(self.requests);
        // A thread that panicked has sealed nothing: the caller seals what is missing.
        self.thread.join().unwrap_or_default()
    }
}

fn serve(paths: &[PathBuf], queue: &Receiver<Closed>) -> Vec<(Closed, Result<FileRecord, StoreError>)> {
    queue
        .iter()
        .filter_map(|closed| paths.get(closed.0).map(|path| (closed, seal(path))))
        .collect()
}

/// Waits until a closed file is on the disk and hashes it.
pub(super) fn seal(path: &Path) -> Result<FileRecord, StoreError> {
    let run = || -> io::Result<(u64, blake3::Hash)> {
        let mut file = File::open(path)?;
        file.sync_all()?;
        let (mut hash, mut bytes, mut buffer) = (blake3::Hasher::new(), 0, vec![0; 1 << 20]);
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok((bytes, hash.finalize()));
            }
            hash.update(&buffer[..n]);
            bytes += n as u64;
        }
    };
    let (bytes, digest) = run().map_err(|source| StoreError::io("syncing", path, source, 0))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(FileRecord {
        name,
        bytes,
        algorithm: hash::ALGORITHM.into(),
        hash: digest.to_hex().to_string(),
    })
}
