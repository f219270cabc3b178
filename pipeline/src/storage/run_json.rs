//! `run.json`.

use super::error::{At, StoreError};
use super::state_jsonl::append_state;
use super::store::RUN_JSON;
use super::{RunEnd, RunInfo};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Version of the layout of `run.json`. Version 1 had a SHA-256 of every file, as `sha256`.
const VERSION: u32 = 2;

/// One file of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// name within the run's folder
    pub name: String,
    /// size
    pub bytes: u64,
    /// how `hash` was made: `blake3` (of runs of version 1: `sha256`)
    #[serde(default = "first_algorithm")]
    pub algorithm: String,
    /// hash of the closed file, hexadecimal
    #[serde(alias = "sha256")]
    pub hash: String,
}

fn first_algorithm() -> String {
    "sha256".into()
}

/// `run.json`: what a closed run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// version of this layout
    pub version: u32,
    /// run name
    pub id: String,
    /// proposal
    pub proposal: String,
    /// sample
    pub sample: String,
    /// one line for people
    pub title: String,
    /// technique of the recipe
    pub technique: String,
    /// NeXus application definition
    pub definition: String,
    /// instrument
    pub instrument: String,
    /// facility
    pub source: String,
    /// UTC time of arming
    #[serde(with = "utc")]
    pub start_time: Timestamp,
    /// UTC time of the end
    #[serde(with = "utc")]
    pub end_time: Timestamp,
    /// how it ended
    pub state: String,
    /// frames by state
    pub frames: Value,
    /// the master file first, then the data files in order
    pub files: Vec<FileRecord>,
    /// the journal: where every stored frame lies, with its checksum
    #[serde(default)]
    pub journal: Vec<FileRecord>,
    /// recipe and parameters as used
    pub parameters: Value,
    /// program and version
    pub software: String,
    /// SHA-256 of the configuration
    pub configuration_sha256: String,
    /// host
    pub host: String,
    /// operating system and version of its kernel; empty of runs of earlier versions
    #[serde(default)]
    pub kernel: String,
    /// accelerator
    pub device: String,
    /// anything else that was given or that the source said
    pub metadata: BTreeMap<String, String>,
    /// what a reader should know, for example values that nobody told
    pub warnings: Vec<String>,
    /// the run's summary
    pub summary: Value,
}

/// Times as text.
mod utc {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&super::rfc3339(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl RunRecord {
    pub(super) fn new(info: &RunInfo, end: RunEnd, files: Vec<FileRecord>, warnings: Vec<String>) -> Self {
        let info = info.clone();
        Self {
            version: VERSION,
            id: info.id,
            proposal: info.proposal,
            sample: info.sample,
            title: info.title,
            technique: info.technique,
            definition: info.definition,
            instrument: info.instrument,
            source: info.source,
            start_time: info.start_time,
            end_time: end.end_time,
            state: end.state,
            frames: end.counts,
            files,
            journal: Vec::new(),
            parameters: info.parameters,
            software: info.software,
            configuration_sha256: info.configuration_sha256,
            host: info.host,
            kernel: kernel(),
            device: info.device,
            metadata: info.metadata,
            warnings,
            summary: end.summary,
        }
    }

    /// The record of the closed run in `folder`.
    pub fn read(folder: &Path) -> Result<RunRecord, StoreError> {
        let path = folder.join(RUN_JSON);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::NotARun {
                    path: folder.to_path_buf(),
                });
            }
            read => read.at("reading", &path)?,
        };
        let record: RunRecord = serde_json::from_slice(&bytes).map_err(|error| StoreError::Record {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        if !(1..=VERSION).contains(&record.version) {
            let reason = format!(
                "it has version {}, this program reads versions 1 to {VERSION}",
                record.version
            );
            return Err(StoreError::Record { path, reason });
        }
        Ok(record)
    }

    /// Writes `run.json` by rename, and its `closed` line before it. Everything else is on the disk already.
    pub(super) fn publish(&self, folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(RUN_JSON);
        let draft = folder.join(".run.json.part");
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| StoreError::Record {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        bytes.push(b'\n');
        let written = File::create(&draft).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(|source| StoreError::io("writing", &draft, source, bytes.len() as u64))?;
        let total: u64 = self.files.iter().map(|f| f.bytes).sum();
        let detail =
            json!({ "files": self.files.len(), "bytes": total, "run_json_sha256": hex(&Sha256::digest(&bytes)) });
        append_state(folder, "closed", detail)?;
        fs::rename(&draft, &path).at("renaming to", &path)?;
        sync_folder(folder)
    }
}

/// `Linux` and the version of the kernel that runs.
fn kernel() -> String {
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", version.trim()).trim_end().to_string()
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .at("syncing the folder", folder)
}

/// UTC with milliseconds and `Z`.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
