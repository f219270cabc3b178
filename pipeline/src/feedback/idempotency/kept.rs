//! Answers of calls with a key, on disk: who asks again after the appliance was started anew finds what was done before.
//!
//! One line of JSON per answer, with hashes in the place of keys and bodies. What was answered with `no-store` (a token, which
//! nothing may keep) is not written.

use super::{Answer, BYTES_MAX, KEYS_MAX, WINDOW};
use crate::feedback::access::tokens::give_to_owner_of_folder;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Past this size of the file it is written anew, without what is over.
const FILE_BYTES_MAX: u64 = 2 * BYTES_MAX as u64;

/// An answer as the file has it.
#[derive(Serialize, Deserialize)]
struct Line {
    /// UTC second of the answer
    at_s: i64,
    /// hash of the key and whose it is, hexadecimal
    key: String,
    /// hash of what was asked, hexadecimal
    asked: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// An answer that was read.
pub struct Kept {
    pub key: blake3::Hash,
    pub asked: blake3::Hash,
    pub answer: Answer,
    /// how long it is kept still
    pub rest: Duration,
}

/// The file.
pub struct KeptFile {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl KeptFile {
    /// The file at `path`, and what in it is not over, oldest first. Nothing is made before there is something to keep.
    pub fn open(path: &Path) -> (KeptFile, Vec<Kept>) {
        let lines = read(path, now_s()).unwrap_or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                tracing::error!(target: "fluxline", "{}: {error}; no call of before is known", path.display());
            }
            Vec::new()
        });
        let kept = lines.iter().filter_map(Line::kept).collect();
        let file = KeptFile {
            path: path.to_path_buf(),
            file: Mutex::new(None),
        };
        if path.exists() {
            // What is over, and a line that a crash cut short, goes.
            *file.file.lock().unwrap_or_else(PoisonError::into_inner) = file.said(write(path, &lines));
        }
        (file, kept)
    }

    /// Keeps an answer, if it may be.
    pub fn add(&self, key: blake3::Hash, asked: blake3::Hash, answer: &Answer) {
        let Some(line) = Line::of(key, asked, answer) else {
            return;
        };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        *file = self.said(self.append(file.take(), &line));
    }

    fn append(&self, file: Option<File>, line: &Line) -> std::io::Result<File> {
        let mut file = match file {
            Some(file) => file,
            None => opened(&self.path)?,
        };
        if file.metadata()?.len() > FILE_BYTES_MAX {
            file = write(&self.path, &read(&self.path, now_s())?)?;
        }
        file.write_all(&text(line)?)?;
        Ok(file)
    }

    fn said(&self, done: std::io::Result<File>) -> Option<File> {
        done.inspect_err(|error| {
            tracing::error!(target: "fluxline", "{}: {error}; a call's answer does not outlive this process", self.path.display());
        })
        .ok()
    }
}

impl Line {
    fn of(key: blake3::Hash, asked: blake3::Hash, answer: &Answer) -> Option<Line> {
        if answer
            .headers
            .get(header::CACHE_CONTROL)
            .is_some_and(|value| value == "no-store")
        {
            return None;
        }
        let headers = answer.headers.iter();
        let headers = headers.map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_string())));
        Some(Line {
            at_s: now_s(),
            key: key.to_hex().to_string(),
            asked: asked.to_hex().to_string(),
            status: answer.status.as_u16(),
            headers: headers.collect::<Option<_>>()?,
            body: String::from_utf8(answer.body.to_vec()).ok()?,
        })
    }

    fn kept(&self) -> Option<Kept> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_str(value).ok()?);
        }
        let age = u64::try_from(now_s() - self.at_s).unwrap_or(0);
        Some(Kept {
            key: blake3::Hash::from_hex(&self.key).ok()?,
            asked: blake3::Hash::from_hex(&self.asked).ok()?,
            answer: Answer {
                status: StatusCode::from_u16(self.status).ok()?,
                headers,
                body: Bytes::from(self.body.clone()),
            },
            rest: WINDOW.saturating_sub(Duration::from_secs(age)),
        })
    }
}

/// The lines that are not over, the newest of every key, as many as there may be, oldest first.
fn read(path: &Path, now_s: i64) -> std::io::Result<Vec<Line>> {
    let file = BufReader::new(File::open(path)?.take(2 * FILE_BYTES_MAX));
    let mut lines: Vec<Line> = Vec::new();
    for line in file.split(b'\n') {
        if let Ok(line) = serde_json::from_slice::<Line>(&line?) {
            lines.push(line);
        }
    }
    let window_s = i64::try_from(WINDOW.as_secs()).unwrap_or(i64::MAX);
    // A clock that was set back leaves lines of the future, which count from now.
    lines.retain(|line| now_s.saturating_sub(line.at_s) < window_s);
    let (mut keys, mut bytes) = (HashSet::new(), 0);
    lines.reverse();
    lines.retain(|line| {
        let new = keys.len() < KEYS_MAX && bytes + line.body.len() <= BYTES_MAX && keys.insert(line.key.clone());
        bytes += if new { line.body.len() } else { 0 };
        new
    });
    lines.reverse();
    Ok(lines)
}

fn opened(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    give_to_owner_of_folder(path);
    Ok(file)
}

/// The file anew with these lines, open at its end. A crash leaves the old one or the new one.
fn write(path: &Path, lines: &[Line]) -> std::io::Result<File> {
    let part = path.with_extension("part");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    for line in lines {
        file.write_all(&text(line)?)?;
    }
    give_to_owner_of_folder(&part);
    std::fs::rename(&part, path)?;
    opened(path)
}

fn text(line: &Line) -> std::io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}
