//! What is known of a calibration.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a calibration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CalibrationKind {
    /// counts without beam, by pixel
    Dark,
    /// relative response, 1 on average, by pixel
    Flat,
    /// ADU without beam in one gain of a JUNGFRAU, by pixel
    Pedestal,
    /// NXmx bits, by pixel
    Mask,
    /// gains of a JUNGFRAU, ADU/keV: 3 planes (G0, G1, G2) or 6 (then those of high gain)
    Gain,
    /// a geometry, pyFAI's `.poni`
    Poni,
}

impl CalibrationKind {
    /// Every kind.
    pub const ALL: [CalibrationKind; 6] = [
        Self::Dark,
        Self::Flat,
        Self::Pedestal,
        Self::Mask,
        Self::Gain,
        Self::Poni,
    ];

    /// Name as the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Flat => "flat",
            Self::Pedestal => "pedestal",
            Self::Mask => "mask",
            Self::Gain => "gain",
            Self::Poni => "poni",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// For what a calibration holds. What is not stated does not matter; what a run does not know is not asked of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Conditions {
    /// of a pedestal: 0, 1 or 2 for G0, G1 or G2
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<u8>,
    /// photon energy, eV
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_ev: Option<f64>,
    /// threshold energy, eV
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold_ev: Option<f64>,
    /// exposure of a frame, seconds
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposure_s: Option<f64>,
}

/// How far two values that both are known may be apart, of themselves.
const TOLERANCE: f64 = 0.01;

impl Conditions {
    /// Whether a calibration for these holds where a run has those; the gain is asked for apart.
    pub fn hold_for(&self, run: &Conditions) -> bool {
        let agree = |mine: Option<f64>, theirs: Option<f64>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => (mine - theirs).abs() <= TOLERANCE * mine.abs().max(theirs.abs()),
            _ => true,
        };
        agree(self.energy_ev, run.energy_ev)
            && agree(self.threshold_ev, run.threshold_ev)
            && agree(self.exposure_s, run.exposure_s)
    }
}

/// A version of a calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CalibrationRecord {
    /// its name, never given twice
    pub version: String,
    /// what it is
    pub kind: CalibrationKind,
    /// UTC time at which it was kept
    pub created: String,
    /// UTC time from which on it holds
    pub valid_from: String,
    /// UTC time at which it ends to hold
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<String>,
    /// rows and columns of the frames that it is for; absent of a geometry that does not say
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<[usize; 2]>,
    /// for what it holds
    #[serde(flatten)]
    pub conditions: Conditions,
    /// where it comes from
    pub origin: String,
    /// what somebody said of it
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// its file, beneath the store's `.calibrations`
    pub file: String,
    /// SHA-256 of that file
    pub sha256: String,
    /// file of one frame's noise
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_file: Option<String>,
    /// frames that it rests on
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_used: Option<u64>,
    /// frames that came meanwhile and were not whole
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_left_out: Option<u64>,
    /// pixels that it cannot calibrate, and which a run masks; of a mask, those that it masks
    pub unusable_pixels: u64,
    /// median of its usable values
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// how far half of its pixels moved since the one before, in sigmas of one frame
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_sigmas: Option<f64>,
    /// pixels that moved by more than the configuration's `calibrations.drift_sigmas`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drifted_pixels: Option<u64>,
    /// the one before
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<String>,
    /// what somebody should know
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl CalibrationRecord {
    fn time(text: &str) -> Option<Timestamp> {
        text.parse().ok()
    }

    /// Whether it holds at this time.
    pub fn valid_at(&self, time: Timestamp) -> bool {
        let begun = Self::time(&self.valid_from).is_some_and(|from| from <= time);
        let over = self
            .valid_to
            .as_deref()
            .and_then(Self::time)
            .is_some_and(|end| end <= time);
        begun && !over
    }

    /// What makes one newer than another: from when on it holds, then when it was kept.
    pub fn newness(&self) -> (Option<Timestamp>, Option<Timestamp>, String) {
        (
            Self::time(&self.valid_from),
            Self::time(&self.created),
            self.version.clone(),
        )
    }
}
