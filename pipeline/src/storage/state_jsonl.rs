//! `state.jsonl`: one line per change of a run's state, only ever appended. Everybody who writes to it does so here.

use super::error::StoreError;
use super::run_json::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Name of the file.
pub(crate) const STATE_JSONL: &str = "state.jsonl";

/// A line of `state.jsonl`: time, state, and what `detail` holds.
pub(crate) fn line(time: Timestamp, state: &str, detail: Value) -> Value {
    let mut line = json!({ "time": rfc3339(time), "state": state });
    if let (Value::Object(line), Value::Object(detail)) = (&mut line, detail) {
        line.extend(detail);
    }
    line
}

/// Appends a line to the file in `folder`; it is on the disk when this returns.
pub(crate) fn append_line(folder: &Path, line: &Value) -> io::Result<()> {
    let path = folder.join(STATE_JSONL);
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    // A line torn by a crash or a full disk ends here, so that it does not swallow this one.
    let start = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{start}{line}\n").as_bytes())?;
    file.sync_all()
}

/// The same for whoever writes the run: the time is now.
pub(super) fn append_state(folder: &Path, state: &str, detail: Value) -> Result<(), StoreError> {
    let line = line(Timestamp::now(), state, detail);
    append_line(folder, &line).map_err(|source| {
        StoreError::io(
            "appending to",
            &folder.join(STATE_JSONL),
            source,
            line.to_string().len() as u64,
        )
    })
}
