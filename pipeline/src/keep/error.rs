//! What can go wrong with a stored run, in the words that its user reads.

use crate::storage::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Why the keeper could not do something.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// the system's answer for something in the store
    #[error("{doing} {path}: {source}")]
    Io {
        /// for example `reading`
        doing: &'static str,
        /// file or folder
        path: PathBuf,
        /// the system's answer
        source: io::Error,
    },
    /// the store
    #[error(transparent)]
    Store(#[from] StoreError),
    /// the catalogue
    #[error("the catalogue {path}: {source}; it is made anew from the run.json files when it is removed")]
    Catalogue {
        /// file
        path: PathBuf,
        /// SQLite's answer
        source: rusqlite::Error,
    },
    /// words of a search that cannot be understood
    #[error("query {term:?}: {expected}")]
    Query {
        /// the word
        term: String,
        /// what was expected
        expected: String,
    },
    /// the central store does not answer, refuses, or is not there
    #[error("the central store {destination} cannot be used ({reason}); it is tried again")]
    Away {
        /// where to
        destination: String,
        /// what it or the system said
        reason: String,
    },
    /// the copy is not what was sent
    #[error("the copy of {file} at {destination} is not what was sent: {reason}; it is sent again")]
    Differs {
        /// file of the run
        file: String,
        /// where the copy is
        destination: String,
        /// what differs
        reason: String,
    },
    /// a file here is not what was written
    #[error("{path} is not what was written: {reason}; nothing of this run is sent or deleted before somebody looked")]
    Damaged {
        /// file
        path: PathBuf,
        /// what differs
        reason: String,
    },
    /// `run.json` names a hash that this program does not know
    #[error("{file} has a hash of kind {algorithm:?}: this program knows blake3 and sha256")]
    Algorithm {
        /// file of the run
        file: String,
        /// what `run.json` says
        algorithm: String,
    },
    /// another process looks after this store
    #[error("another process looks after the store {store}: stop `fluxline run`, or let it do this by itself")]
    Locked {
        /// folder
        store: PathBuf,
    },
    /// the configuration
    #[error("{0}")]
    Config(String),
    /// the program is ending
    #[error("interrupted")]
    Stopped,
}

impl KeepError {
    /// The system's answer while `doing` something with `path`.
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        KeepError::Io {
            doing,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Short name for metrics: `away`, `differs`, `damaged` or `local`.
    pub fn reason(&self) -> &'static str {
        match self {
            KeepError::Away { .. } => "away",
            KeepError::Differs { .. } => "differs",
            KeepError::Damaged { .. } => "damaged",
            _ => "local",
        }
    }
}
