//! What can go wrong in the store, in the words that its user reads.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// a name that is no folder name
    #[error(
        "the {what} {value:?} is not a name: use 1 to 64 letters, digits, '.', '_' or '-', \
         beginning with a letter or digit, without '..'"
    )]
    Name {
        /// `run name` or `proposal`
        what: &'static str,
        /// what was given
        value: String,
    },
    /// the folder cannot be written
    #[error("the store {path} cannot be written ({source}): mount it writable, or name another folder as [store] path")]
    ReadOnly {
        /// folder
        path: PathBuf,
        /// the system's answer
        source: io::Error,
    },
    /// no space
    #[error(
        "the disk is full: {path} needed {needed_bytes} bytes, {free_bytes} are free: \
         remove runs that are safe to delete, or name another folder as [store] path"
    )]
    DiskFull {
        /// file being written
        path: PathBuf,
        /// bytes of the failed write
        needed_bytes: u64,
        /// bytes that the file system has left
        free_bytes: u64,
    },
    /// never overwritten
    #[error("the run folder {path} exists already: a run is never overwritten, choose another run name")]
    RunExists {
        /// folder
        path: PathBuf,
    },
    /// no such run, or not closed
    #[error("{path} is not a closed run: it has no run.json")]
    NotARun {
        /// folder
        path: PathBuf,
    },
    /// `run.json` is not as written
    #[error("{path} cannot be understood: {reason}")]
    Record {
        /// file
        path: PathBuf,
        /// what is wrong
        reason: String,
    },
    /// any other answer of the system
    #[error("{doing} {path}: {source}")]
    Io {
        /// for example `creating`
        doing: &'static str,
        /// file or folder
        path: PathBuf,
        /// the system's answer
        source: io::Error,
    },
    /// libhdf5 refused
    #[error("{doing} {path}: {reason}")]
    Hdf5 {
        /// for example `writing frame`
        doing: &'static str,
        /// file
        path: PathBuf,
        /// the library's words
        reason: String,
    },
    /// a description that no file can be made of
    #[error("{field} is {value}: {expected}")]
    Description {
        /// field
        field: &'static str,
        /// its value
        value: String,
        /// what was expected
        expected: &'static str,
    },
    /// number outside the run
    #[error("frame {frame} is outside the run of {frames} frames")]
    FrameNumber {
        /// number
        frame: u64,
        /// frames of the run
        frames: u64,
    },
    /// a frame that differs from the stream
    #[error("frame {frame} has {what} {found}, the run's files are made for {expected}")]
    FrameMismatch {
        /// number
        frame: u64,
        /// which property
        what: &'static str,
        /// the frame's
        found: String,
        /// the run's
        expected: String,
    },
    /// a frame that is not in the file
    #[error("frame {frame} was never stored in {path}: the ledger says why")]
    FrameMissing {
        /// number
        frame: u64,
        /// data file
        path: PathBuf,
    },
    /// the codec refused
    #[error("frame {frame} cannot be {doing}: {source}")]
    Codec {
        /// number
        frame: u64,
        /// `compressed` or `decompressed`
        doing: &'static str,
        /// the codec's answer
        source: frame::codec::CodecError,
    },
    /// a result that differs from the layout
    #[error("the result of frame {frame} has {found} {what}, its layout has {expected}")]
    ResultLayout {
        /// number
        frame: u64,
        /// scalars, curves, or points of a named curve
        what: String,
        /// the result's
        found: usize,
        /// the layout's
        expected: usize,
    },
    /// what was written does not read back
    #[error("{path} does not read back as written: {reason}")]
    Verify {
        /// file
        path: PathBuf,
        /// what differs
        reason: String,
    },
}

/// Least that a file system hands out.
const PAGE_BYTES: u64 = 4096;

impl StoreError {
    /// The error of a system call; a full disk and a read-only store are named as such.
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error, needed_bytes: u64) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let free_bytes = super::h5::free_bytes(&path).unwrap_or(0);
                StoreError::DiskFull {
                    path,
                    needed_bytes,
                    free_bytes,
                }
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                StoreError::ReadOnly { path, source }
            }
            _ => StoreError::Io { doing, path, source },
        }
    }

    /// The error of libhdf5, which tells the system's answer in its text only.
    pub(super) fn hdf5(doing: &'static str, path: &Path, error: &hdf5::Error, needed_bytes: u64) -> Self {
        let reason = describe(error);
        match errno_of(&reason) {
            Some(errno) => {
                let source = io::Error::from_raw_os_error(errno);
                match StoreError::io(doing, path, source, needed_bytes) {
                    StoreError::Io { path, .. } => StoreError::Hdf5 { doing, path, reason },
                    named => named,
                }
            }
            // The library does not always pass the system's answer on: without space it hardly matters what it tried.
            None => match super::h5::free_bytes(path) {
                Ok(free_bytes) if free_bytes < needed_bytes.max(PAGE_BYTES) => StoreError::DiskFull {
                    path: path.to_path_buf(),
                    needed_bytes,
                    free_bytes,
                },
                _ => StoreError::Hdf5 {
                    doing,
                    path: path.to_path_buf(),
                    reason,
                },
            },
        }
    }
}

/// The outermost and the innermost sentence of libhdf5's error stack: what was tried, and why it failed.
fn describe(error: &hdf5::Error) -> String {
    let Some(stack) = error.stack() else {
        return error.to_string();
    };
    let outer = stack.first().map(|f| f.desc().to_string());
    let inner = stack.last().map(|f| f.desc().to_string());
    match (outer, inner) {
        (Some(outer), Some(inner)) if outer != inner => format!("{outer}: {inner}"),
        (Some(text), _) => text,
        _ => error.to_string(),
    }
}

/// libhdf5 writes `errno = 28, error message = …` into its sentences.
fn errno_of(text: &str) -> Option<i32> {
    let digits = &text[text.find("errno = ")? + "errno = ".len()..];
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Adds path and purpose to errors of the system and of libhdf5.
pub(super) trait At<T> {
    /// `doing` and `path` go into the message.
    fn at(self, doing: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for Result<T, io::Error> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::io(doing, path, source, 0))
    }
}

impl<T> At<T> for Result<T, hdf5::Error> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::hdf5(doing, path, &error, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_answer_is_found_in_the_library_text() {
        let text = "unable to create file: name = 'x', errno = 30, error message = 'Read-only file system', flags = 15";
        assert_eq!(errno_of(text), Some(30));
        assert_eq!(errno_of("no number"), None);
    }

    #[test]
    fn a_full_disk_and_a_read_only_store_are_named() {
        let full = StoreError::io("writing", Path::new("/tmp/x"), io::Error::from_raw_os_error(28), 4096);
        assert!(
            matches!(full, StoreError::DiskFull { needed_bytes: 4096, .. }),
            "{full}"
        );
        let read_only = StoreError::io("writing", Path::new("/tmp/x"), io::Error::from_raw_os_error(30), 0);
        assert!(
            read_only.to_string().contains("/tmp/x cannot be written"),
            "{read_only}"
        );
        let denied = StoreError::io("writing", Path::new("/tmp/x"), io::Error::from_raw_os_error(13), 0);
        assert!(matches!(denied, StoreError::ReadOnly { .. }));
    }
}
