//! What a later start must know of a run to finish it: kept beside the data from before frame 0 until the run is closed.
//!
//! ```text
//! .creating     the folder is being filled: there is no frame in it yet; locked by the process that fills it
//! .start.json   what the run is, and of what form
//! .start.h5     the master file as it was before frame 0
//! .results.bin  every result, as it comes (`results_journal`)
//! ```

use super::data_files::FrameFormat;
use super::error::{At, StoreError};
use super::results_journal;
use super::run_json::{self, RunRecord};
use frame::codec::Beneath;
use frame::{CurveField, PixelType, ResultLayout, ScalarField, Shape};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) const START_JSON: &str = ".start.json";
pub(super) const START_MASTER: &str = ".start.h5";
pub(super) const MASTER_DRAFT: &str = ".master.part";
const CREATING: &str = ".creating";

/// The mark of a folder that is being filled, held by the process that does so.
#[derive(Debug)]
pub(super) struct Creating {
    // Locked until this is dropped or the process ends.
    _file: File,
}

/// `.start.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// `run.json` as far as it was known
    pub(super) record: RunRecord,
    rows: usize,
    columns: usize,
    pixel_type: u8,
    zstd: Option<bool>,
    frames: u64,
    frames_per_file: u64,
    /// datasets of the master with one row per frame
    pub(super) per_frame: Vec<String>,
    pub(super) end_estimated: bool,
    /// what a result consists of; runs of earlier versions keep none
    #[serde(default)]
    results: Columns,
    /// whether frames are stored, or stay where they are
    #[serde(default = "yes")]
    pub(super) store_frames: bool,
}

/// Names of a result's scalars and curves, in order; of a curve its points and rows, too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Columns {
    scalars: Vec<String>,
    curves: Vec<(String, usize, usize)>,
}

fn yes() -> bool {
    true
}

impl Start {
    pub(super) fn new(
        record: RunRecord,
        format: FrameFormat,
        per_frame: Vec<String>,
        end_estimated: bool,
        (layout, store_frames): (&ResultLayout, bool),
    ) -> Self {
        let curve = |curve: &CurveField| (curve.name.clone(), curve.length, curve.rows);
        Self {
            results: Columns {
                scalars: layout.scalars.iter().map(|scalar| scalar.name.clone()).collect(),
                curves: layout.curves.iter().map(curve).collect(),
            },
            store_frames,
            record,
            rows: format.shape.rows,
            columns: format.shape.columns,
            pixel_type: format.pixel_type.code(),
            zstd: format.filter.map(|beneath| beneath == Beneath::Zstd),
            frames: format.frames,
            frames_per_file: format.frames_per_file,
            per_frame,
            end_estimated,
        }
    }

    /// The form of the frames; `None` where it is none.
    pub(super) fn format(&self) -> Option<FrameFormat> {
        let format = FrameFormat {
            shape: Shape::new(self.rows, self.columns),
            pixel_type: PixelType::from_code(self.pixel_type)?,
            filter: self.zstd.map(|zstd| if zstd { Beneath::Zstd } else { Beneath::Lz4 }),
            frames: self.frames,
            frames_per_file: self.frames_per_file,
        };
        (self.frames > 0 && self.frames_per_file > 0).then_some(format)
    }

    /// What a result consists of, without units.
    pub(super) fn layout(&self) -> ResultLayout {
        let unit = String::new;
        let scalars = self.results.scalars.iter().cloned();
        let curves = self.results.curves.iter().cloned();
        ResultLayout {
            scalars: scalars.map(|name| ScalarField { name, unit: unit() }).collect(),
            curves: curves
                .map(|(name, length, rows)| CurveField {
                    name,
                    unit: unit(),
                    length,
                    rows,
                })
                .collect(),
        }
    }

    /// Marks a fresh folder. As long as the mark is held no other process takes the folder for one that was left behind.
    pub(super) fn begin(folder: &Path) -> Result<Creating, StoreError> {
        let (path, draft) = (folder.join(CREATING), folder.join(".creating.part"));
        let file = File::create(&draft).at("writing to", folder)?;
        // Under its own name only when it is locked: nobody ever sees it unlocked while this process lives.
        file.try_lock().map_err(std::io::Error::from).at("locking", &draft)?;
        fs::rename(&draft, &path).at("renaming to", &path)?;
        Ok(Creating { _file: file })
    }

    /// What a process has left behind that ended while it filled the folder: nothing but preparations are in there. The
    /// mark is held by the caller from here on, `None` where there is none or another process fills the folder.
    pub(super) fn left_behind(folder: &Path) -> Result<Option<Creating>, StoreError> {
        let path = folder.join(CREATING);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("opening", &path)?,
        };
        match file.try_lock() {
            // It may have been armed since somebody looked for `.start.json`.
            Ok(()) if Start::read(folder)?.is_none() && path.exists() => Ok(Some(Creating { _file: file })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).at("locking", &path),
        }
    }

    /// Puts it on the disk: everything else must be there already. From here on a crash is made good.
    pub(super) fn publish(&self, folder: &Path) -> Result<(), StoreError> {
        let (path, draft) = (folder.join(START_JSON), folder.join(".start.json.part"));
        let bytes = serde_json::to_vec(self).map_err(|error| StoreError::Record {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let written = File::create(&draft).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(|source| StoreError::io("writing", &draft, source, bytes.len() as u64))?;
        fs::rename(&draft, &path).at("renaming to", &path)?;
        fs::remove_file(folder.join(CREATING)).at("writing to", folder)?;
        run_json::sync_folder(folder)
    }

    /// The one of an interrupted run; `None` where there is none.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join(START_JSON);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.at("reading", &path)?,
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StoreError::Record {
                path,
                reason: error.to_string(),
            })
    }

    /// The run is closed: nothing of this is needed any more. What cannot be removed does no harm.
    pub(super) fn clear(folder: &Path) {
        for name in [
            START_JSON,
            START_MASTER,
            CREATING,
            ".start.json.part",
            ".head.part",
            MASTER_DRAFT,
            results_journal::FILE_NAME,
        ] {
            let _ = fs::remove_file(folder.join(name));
        }
    }

    /// Where the master file's copy lies.
    pub(super) fn master(folder: &Path) -> PathBuf {
        folder.join(START_MASTER)
    }
}
