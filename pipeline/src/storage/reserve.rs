//! Space set aside for the end of a run: the index of the frames, the ledger and the master file must still
//! find room when frames have filled the disk.

use super::error::StoreError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) const FILE_NAME: &str = ".reserve";
const BASE_BYTES: u64 = 4 << 20;
/// Index, ledger and scalars of one frame, generously.
const FRAME_BYTES: u64 = 256;

/// A file that takes up space until it is released.
#[derive(Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// Takes the space that closing a run of so many frames may need.
    pub(super) fn take(folder: &Path, frames: u64) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        let bytes = BASE_BYTES + FRAME_BYTES * frames;
        // Written, not only asked for: not every file system can promise space.
        let page = vec![0x5a; 1 << 16];
        let write = || -> std::io::Result<()> {
            let mut file = File::create_new(&path)?;
            let mut left = bytes;
            while left > 0 {
                let now = left.min(page.len() as u64);
                file.write_all(&page[..now as usize])?;
                left -= now;
            }
            Ok(())
        };
        write().map_err(|source| StoreError::io("reserving space in", &path, source, bytes))?;
        Ok(Self(path))
    }

    /// Gives the space back. What cannot be removed costs space and nothing else.
    pub(super) fn release(self) {
        let _ = fs::remove_file(self.0);
    }
}
