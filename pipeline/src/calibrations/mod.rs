//! Calibrations: darks, flats, pedestals, masks, gains and geometries, taken or uploaded, versioned, and picked by the
//! runs on their own.
//!
//! ```text
//! STORE/.calibrations/
//!     dark-20261128T194500123Z.json         what it is, from when to when it is valid; written last, by rename
//!     dark-20261128T194500123Z.npy          its values; a .poni is kept as its text
//!     dark-20261128T194500123Z-noise.npy    the noise of one frame, where it was taken here
//! ```
//!
//! A version is never changed. A run takes the newest one that is valid when it is armed and fits its frames.

pub mod check;
pub mod record;
pub mod take;

pub use check::Detector;
pub use record::{CalibrationKind, CalibrationRecord, Conditions};

use crate::feedback::pictures::npy;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Folder of the store: no proposal's name begins with a dot.
const FOLDER: &str = ".calibrations";

/// Planck's constant times the speed of light, eV m (CODATA 2018, exact).
pub const HC_EV_M: f64 = 1.239_841_984_332_002_6e-6;

/// What can drift, and so the labels of a metric.
pub const DRIFTING: [&str; 4] = ["dark", "pedestal_g0", "pedestal_g1", "pedestal_g2"];

/// Why a calibration is not kept or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// what it holds; a sentence
    #[error("{0}")]
    Bad(String),
    /// something is in the way now and will not be later
    #[error("{0}")]
    Busy(String),
    /// the store
    #[error("{}: {reason}", path.display())]
    Io {
        /// file
        path: PathBuf,
        /// the system's words
        reason: String,
    },
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> CalibrationError + '_ {
    move |error| CalibrationError::Io {
        path: path.into(),
        reason: error.to_string(),
    }
}

/// What a run knows of the conditions that a calibration may be for.
pub fn conditions_of(stream: &frame::StreamDescription) -> Conditions {
    let facts = &stream.detector;
    Conditions {
        gain: None,
        energy_ev: facts
            .wavelength_m
            .filter(|length| *length > 0.0)
            .map(|length| HC_EV_M / length),
        threshold_ev: facts.threshold_energy_ev,
        exposure_s: facts.count_time_s,
    }
}

/// Values of a calibration.
#[derive(Clone, Debug)]
pub enum Content {
    /// planes of pixels: sizes, slowest first, and values
    Array(Vec<usize>, Vec<f64>),
    /// the text of a `.poni` file
    Text(String),
}

/// A calibration that is to be kept.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// what it is
    pub kind: CalibrationKind,
    /// its values
    pub content: Content,
    /// standard deviation of one frame, by pixel
    pub noise: Option<Vec<f32>>,
    /// for what it holds
    pub conditions: Conditions,
    /// where it comes from, for people
    pub origin: String,
    /// frames that it rests on, and frames that were left out
    pub frames: Option<[u64; 2]>,
    /// from when on it holds; from now on unless given
    pub valid_from: Option<Timestamp>,
    /// when it ends to hold
    pub valid_to: Option<Timestamp>,
    /// anything
    pub comment: String,
}

/// The calibrations of a store.
#[derive(Debug)]
pub struct Calibrations {
    folder: PathBuf,
    drift_sigmas: f64,
    /// held while one is added
    adding: Mutex<()>,
}

impl Calibrations {
    /// Those beneath `store`; a pedestal or dark that moved by more than `drift_sigmas` is warned of.
    pub fn open(store: &Path, drift_sigmas: f64) -> Result<Self, CalibrationError> {
        let folder = store.join(FOLDER);
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        Ok(Self {
            folder,
            drift_sigmas,
            adding: Mutex::new(()),
        })
    }

    /// Folder that holds them, also for what is uploaded just now.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All of them, newest first. What cannot be read as a record is left out.
    pub fn list(&self) -> Result<Vec<CalibrationRecord>, CalibrationError> {
        let entries = fs::read_dir(&self.folder).map_err(io(&self.folder))?;
        let mut records: Vec<CalibrationRecord> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
            .collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.newness()));
        Ok(records)
    }

    /// The newest of this kind that is valid at `time` and that `fits` takes.
    pub fn newest(
        &self,
        kind: CalibrationKind,
        time: Timestamp,
        fits: impl Fn(&CalibrationRecord) -> bool,
    ) -> Result<Option<CalibrationRecord>, CalibrationError> {
        let of_kind = |record: &CalibrationRecord| record.kind == kind && record.valid_at(time) && fits(record);
        Ok(self.list()?.into_iter().find(of_kind))
    }

    /// Path of a version's values.
    pub fn path(&self, record: &CalibrationRecord) -> PathBuf {
        self.folder.join(&record.file)
    }

    /// Reads a version's values; the file must be as it was when it was kept.
    pub fn read(&self, record: &CalibrationRecord) -> Result<Content, CalibrationError> {
        let path = self.path(record);
        let bytes = fs::read(&path).map_err(io(&path))?;
        if sha256(&bytes) != record.sha256 {
            let reason = "it was changed after it was kept (its hash is another): take or upload it again".into();
            return Err(CalibrationError::Io { path, reason });
        }
        if record.kind == CalibrationKind::Poni {
            return Ok(Content::Text(String::from_utf8_lossy(&bytes).into_owned()));
        }
        let (sizes, values) = crate::recipes::fields::parse_npy(&bytes).map_err(|reason| CalibrationError::Io {
            path: path.clone(),
            reason,
        })?;
        Ok(Content::Array(sizes, values))
    }

    /// Keeps a new version, checked against the `detector` where that is known, and says what it is and how far it is from
    /// the one before.
    pub fn add(
        &self,
        proposed: Proposed,
        detector: Option<&Detector>,
        now: Timestamp,
    ) -> Result<CalibrationRecord, CalibrationError> {
        let _one_at_a_time = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let checked = check::check(&proposed, detector).map_err(CalibrationError::Bad)?;
        let valid_from = proposed.valid_from.unwrap_or(now);
        if let Some(end) = proposed.valid_to.filter(|end| *end <= valid_from) {
            let sentence = format!("valid_to = {end}: it must be later than valid_from = {valid_from}");
            return Err(CalibrationError::Bad(sentence));
        }
        let version = self.version(proposed.kind, now);
        let bytes = encode(proposed.kind, &proposed.content);
        let mut record = CalibrationRecord {
            file: format!(
                "{version}.{}",
                if proposed.kind == CalibrationKind::Poni {
                    "poni"
                } else {
                    "npy"
                }
            ),
            version,
            kind: proposed.kind,
            created: now.to_string(),
            valid_from: valid_from.to_string(),
            valid_to: proposed.valid_to.map(|end| end.to_string()),
            shape: checked.shape.map(|shape| [shape.rows, shape.columns]),
            conditions: proposed.conditions,
            origin: proposed.origin,
            comment: proposed.comment,
            sha256: sha256(&bytes),
            noise_file: None,
            frames_used: proposed.frames.map(|[used, _]| used),
            frames_left_out: proposed.frames.map(|[_, left_out]| left_out),
            unusable_pixels: checked.unusable as u64,
            median: checked.median,
            drift_sigmas: None,
            drifted_pixels: None,
            compared_with: None,
            warnings: checked.warnings,
        };
        if let Content::Array(_, values) = &proposed.content {
            self.watch(&mut record, values, proposed.noise.as_deref());
        }
        if let (Some(noise), Some([rows, columns])) = (&proposed.noise, record.shape) {
            let name = format!("{}-noise.npy", record.version);
            let noise: Vec<u8> = noise.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.write(&name, &npy("<f4", &[rows, columns], &noise))?;
            record.noise_file = Some(name);
        }
        self.write(&record.file, &bytes)?;
        let json = serde_json::to_vec_pretty(&record).map_err(|error| CalibrationError::Bad(error.to_string()))?;
        self.write(&format!("{}.json", record.version), &json)?;
        Ok(record)
    }

    /// How far a new dark or pedestal is from the one before, in units of one frame's noise.
    fn watch(&self, record: &mut CalibrationRecord, values: &[f64], noise: Option<&[f32]>) {
        let kind = record.kind;
        if !matches!(kind, CalibrationKind::Dark | CalibrationKind::Pedestal) {
            return;
        }
        let before = self.newest(kind, Timestamp::MAX, |other| {
            other.shape == record.shape && other.conditions.gain == record.conditions.gain
        });
        // Nothing to compare with is no fault: the first one, or one whose file is damaged.
        let Ok(Some(before)) = before else { return };
        let Ok(Content::Array(_, old)) = self.read(&before) else {
            return;
        };
        let noise_before = before.noise_file.as_ref().and_then(|name| {
            let bytes = fs::read(self.folder.join(name)).ok()?;
            crate::recipes::fields::parse_npy(&bytes).ok()
        });
        let sigma = |pixel: usize| {
            let of_new = noise.map(|noise| f64::from(noise[pixel]));
            let of_old = || noise_before.as_ref().and_then(|(_, noise)| noise.get(pixel).copied());
            of_new.filter(|sigma| *sigma > 0.0).or_else(of_old)
        };
        let mut moved: Vec<f64> = (0..values.len().min(old.len()))
            .filter_map(|pixel| Some((values[pixel] - old[pixel]) / sigma(pixel)?))
            .filter(|sigmas| sigmas.is_finite())
            .map(f64::abs)
            .collect();
        if moved.is_empty() {
            return;
        }
        let drifted = moved.iter().filter(|sigmas| **sigmas > self.drift_sigmas).count() as u64;
        let middle = moved.len() / 2;
        let (_, median, _) = moved.select_nth_unstable_by(middle, f64::total_cmp);
        record.drift_sigmas = Some(*median);
        record.drifted_pixels = Some(drifted);
        record.compared_with = Some(before.version.clone());
        if *median > self.drift_sigmas {
            record.warnings.push(format!(
                "half of its pixels moved by more than {median:.1} sigma of one frame since {}: more than \
                 calibrations.drift_sigmas = {}",
                before.version, self.drift_sigmas
            ));
        }
    }

    fn version(&self, kind: CalibrationKind, now: Timestamp) -> String {
        let name = format!("{}-{}", kind.name(), now.strftime("%Y%m%dT%H%M%S%3fZ"));
        let free = |version: &String| !self.folder.join(format!("{version}.json")).exists();
        let later = (2u32..).map(|number| format!("{name}-{number}"));
        std::iter::once(name.clone()).chain(later).find(free).unwrap_or(name)
    }

    /// Writes a file whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CalibrationError> {
        let (path, partial) = (self.folder.join(name), self.folder.join(format!("{name}.part")));
        let written = fs::File::create(&partial)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, &path))
            .and_then(|()| fs::File::open(&self.folder)?.sync_all());
        written.map_err(|error| {
            // What is left of it is of no use to anybody.
            let _ = fs::remove_file(&partial);
            io(&path)(error)
        })
    }
}

/// A time that somebody gave.
pub fn time(key: &str, text: Option<&str>) -> Result<Option<Timestamp>, CalibrationError> {
    let parse = |text: &str| {
        text.parse().map_err(|_| {
            CalibrationError::Bad(format!(
                "{key} = {text:?}: expected a UTC time such as 2026-11-28T19:45:00Z"
            ))
        })
    };
    text.map(parse).transpose()
}

fn sha256(bytes: &[u8]) -> String {
    crate::storage::hex(&Sha256::digest(bytes))
}

/// The file of a calibration: a mask as NXmx bits, a gain as f64, others as f32.
fn encode(kind: CalibrationKind, content: &Content) -> Vec<u8> {
    match (content, kind) {
        (Content::Text(text), _) => text.clone().into_bytes(),
        (Content::Array(sizes, values), CalibrationKind::Mask) => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect();
            npy("<u4", sizes, &bytes)
        }
        (Content::Array(sizes, values), CalibrationKind::Gain) => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            npy("<f8", sizes, &bytes)
        }
        (Content::Array(sizes, values), _) => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
            npy("<f4", sizes, &bytes)
        }
    }
}

#[cfg(test)]
mod tests;
