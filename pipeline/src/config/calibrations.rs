//! `[calibrations]`

use super::{ConfigError, within};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[calibrations]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationsConfig {
    /// A new dark or pedestal half of whose pixels moved by more than this many sigmas of one frame is warned of, also in
    /// every run that uses it (0.01 to 1000).
    pub drift_sigmas: f64,
    /// Bytes of an uploaded calibration at most (1024 to 8589934592).
    pub upload_bytes_max: u64,
}

impl Default for CalibrationsConfig {
    fn default() -> Self {
        Self {
            drift_sigmas: 3.0,
            upload_bytes_max: 1 << 30,
        }
    }
}

pub(super) fn check(config: &CalibrationsConfig) -> Result<(), ConfigError> {
    within("calibrations.drift_sigmas", config.drift_sigmas, 0.01, 1000.0)?;
    within("calibrations.upload_bytes_max", config.upload_bytes_max, 1024, 1 << 33)
}
