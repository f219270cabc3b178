//! Who changed what: one line of JSON per changing call, beside the store's catalogue.

use super::tokens::give_to_owner_of_folder;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

/// Lines that wait for a disk that is slow; past it they are said in the log instead.
const WAITING: usize = 1024;
/// Past this size the file is kept as `audit.1.jsonl`, in place of the one before, and a new one begun.
const BYTES_MAX: u64 = 64 << 20;

/// A line.
#[derive(Debug, Serialize)]
pub struct Line {
    /// UTC time
    pub time: String,
    /// name of the token, `open` where none are in use, `command line`
    pub name: String,
    /// its role
    pub role: &'static str,
    /// where it asked from
    pub client: String,
    /// HTTP method, or the command
    pub method: String,
    /// path without what follows the question mark
    pub path: String,
    /// HTTP status of the answer; 0 of a command
    pub status: u16,
}

/// The log.
pub struct Audit {
    lines: Option<SyncSender<Line>>,
}

impl Audit {
    /// A log that writes on a thread of its own: whoever ends a run does not wait for the disk.
    pub fn open(path: &Path) -> Audit {
        let (sender, receiver) = sync_channel::<Line>(WAITING);
        let path = path.to_path_buf();
        let write = move || {
            for line in receiver {
                append(&path, &line);
            }
        };
        let thread = std::thread::Builder::new().name("fluxline-audit".into()).spawn(write);
        Audit {
            lines: thread.is_ok().then_some(sender),
        }
    }

    /// Adds a line.
    pub fn add(&self, line: Line) {
        let Some(lines) = &self.lines else {
            tracing::error!(target: "fluxline", "not in the audit log: {line:?}");
            return;
        };
        if let Err(TrySendError::Full(line) | TrySendError::Disconnected(line)) = lines.try_send(line) {
            tracing::error!(target: "fluxline", "not in the audit log, whose disk is slow: {line:?}");
        }
    }
}

/// Writes a line at once.
pub fn append(path: &Path, line: &Line) {
    let written = open(path).and_then(|mut file| {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        file.write_all(text.as_bytes())
    });
    if let Err(error) = written {
        tracing::error!(target: "fluxline", "{}: {error}; not in the audit log: {line:?}", path.display());
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if std::fs::metadata(path).is_ok_and(|facts| facts.len() > BYTES_MAX) {
        std::fs::rename(path, older(path))?;
    }
    let new = !path.exists();
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if new {
        give_to_owner_of_folder(path);
    }
    Ok(file)
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}
