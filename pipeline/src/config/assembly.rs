//! `[assembly]`: how several `[[source]]` make one frame.

use super::{Config, ConfigError, within};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `row`, `column` and `clock_offset_ns` of a `[[source]]`, beside the keys of its kind
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceConfig {
    /// Row of its first pixel in the assembled frame.
    pub row: usize,
    /// Column of its first pixel in the assembled frame.
    pub column: usize,
    /// Its clock minus the first source's, nanoseconds, for `align = "hardware_time"`; learned from the first pair of
    /// modules where it is not given.
    pub clock_offset_ns: Option<i64>,
}

/// How modules of one frame are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlignBy {
    /// They have the same number.
    FrameNumber,
    /// Their times are nearest, within `tolerance_us`.
    HardwareTime,
}

/// `[assembly]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssemblySection {
    /// Rows of the assembled frame.
    pub rows: usize,
    /// Columns of the assembled frame.
    pub columns: usize,
    /// Longest wait for the other modules of a frame, milliseconds (1 to 600000). Then it is handed on as partial, its
    /// missing modules masked.
    #[serde(default = "hundred")]
    pub wait_ms: u64,
    /// "frame_number" or "hardware_time": by what modules of one frame are known.
    #[serde(default = "by_number")]
    pub align: AlignBy,
    /// Largest difference of hardware times of one frame, microseconds, above 0; less than half of the time from frame
    /// to frame.
    #[serde(default = "hundred_us")]
    pub tolerance_us: f64,
    /// Modules of one source that can be in memory at once, beside `ring.slots` (4 to 4096).
    #[serde(default = "thirty_two")]
    pub part_slots: usize,
}

fn hundred() -> u64 {
    100
}

fn by_number() -> AlignBy {
    AlignBy::FrameNumber
}

fn hundred_us() -> f64 {
    100.0
}

fn thirty_two() -> usize {
    32
}

/// Refuses sources and an assembly that do not fit together.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let sources = || format!("{} sources", config.source.len());
    let Some(assembly) = &config.assembly else {
        if config.source.len() == 1 && config.source[0].place.is_none() {
            return Ok(());
        }
        let expected = "one [[source]] without row and column, or an [assembly] that says how several make one frame";
        return Err(ConfigError::value("source", sources(), expected));
    };
    if !(2..=driver::assembly::PARTS_MAX).contains(&config.source.len()) {
        return Err(ConfigError::value(
            "source",
            sources(),
            "an [assembly] takes 2 to 16 of them",
        ));
    }
    if let Some(index) = config.source.iter().position(|source| source.place.is_none()) {
        let expected = "with an [assembly] every source needs row and column";
        return Err(ConfigError::value(
            "source.row",
            format!("(missing in source {index})"),
            expected,
        ));
    }
    within("assembly.rows", assembly.rows, 1, 65536)?;
    within("assembly.columns", assembly.columns, 1, 65536)?;
    within("assembly.wait_ms", assembly.wait_ms, 1, 600_000)?;
    within("assembly.tolerance_us", assembly.tolerance_us, 1e-3, 1e9)?;
    within("assembly.part_slots", assembly.part_slots, 4, 4096)
}
