//! Length and hash of a file that is read back: the master file, and data files whose writing did not go as planned.

use super::data_file::name_of;
use super::error::StoreError;
use super::hash;
use super::run_json::FileRecord;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read at a time.
const READ_BYTES: usize = 4 << 20;

/// Waits until a closed file is on the disk and hashes it.
pub(super) fn seal(path: &Path) -> Result<FileRecord, StoreError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| StoreError::io("syncing", path, source, 0))?;
    hash_of(path)
}

/// Hashes a closed file.
pub(super) fn hash_of(path: &Path) -> Result<FileRecord, StoreError> {
    let run = || -> io::Result<(u64, blake3::Hash)> {
        let mut file = File::open(path)?;
        let (mut hasher, mut bytes, mut buffer) = (blake3::Hasher::new(), 0, vec![0; READ_BYTES]);
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok((bytes, hasher.finalize()));
            }
            hasher.update(&buffer[..n]);
            bytes += n as u64;
        }
    };
    let (bytes, digest) = run().map_err(|source| StoreError::io("hashing", path, source, 0))?;
    Ok(FileRecord {
        name: name_of(path),
        bytes,
        algorithm: hash::ALGORITHM.into(),
        hash: digest.to_hex().to_string(),
    })
}
