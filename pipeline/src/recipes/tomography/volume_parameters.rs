//! `[recipe.NAME.volume]`: what a volume is asked to be.

use super::methods::Method;
use super::stripes::Stripes;
use super::volume::NAME;
use crate::config::ConfigError;
use crate::storage::VolumeFormat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[recipe.NAME.volume]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VolumeParameters {
    /// "backprojection", "gridrec", "sirt", "cgls", "sloped" (equally sloped tomography, whose angles must be planned for it),
    /// or "auto": back-projection, or gridrec where it is faster.
    pub method: Method,
    /// Projections from which "auto" is gridrec, instead of what was measured on a CPU.
    pub gridrec_from: Option<usize>,
    /// Iterations of "sirt" (100 unless given) and "cgls" (10), the most of "sloped" (100); 1 to 10000.
    pub iterations: Option<usize>,
    /// Whether "sirt" and "sloped" let nothing be below zero; "sloped" does unless told otherwise.
    pub nonnegative: Option<bool>,
    /// "sloped" ends when its error falls by less than this share in an iteration (0 to 1).
    pub flat: f64,
    /// Radius about the axis that holds the sample, pixels, for "sloped"; half of the detector unless given.
    pub support_px: Option<f64>,
    /// Against rings: methods that remove stripes from sinograms, one after the other. Each blurs a little: none unless
    /// given.
    pub stripes: Vec<Stripes>,
    /// Memory that the volume may take, MiB (128 to 1048576), beside the run's ring: the less, the more often the
    /// projections are read. Where it is begun while the run records, from when the run is armed.
    pub memory_mib: usize,
    /// "f32", "u16" (over `range`), or "none": only the preview is kept.
    #[schemars(with = "String")]
    pub format: VolumeFormat,
    /// Least and largest value that 16 bits stand for, 1/pixel.
    pub range: Option<[f32; 2]>,
    /// Slices as a TIFF stack too, in the folder `tiff` beside the HDF5 file.
    pub tiff: bool,
    /// Further volumes averaged over 2, 4, 8, 16 points in each direction: how many of these (0 to 4).
    pub levels: usize,
    /// Longest side of the preview volume, points (0: none; to 512).
    pub preview: usize,
    /// Whether it is begun while the run records: by back-projection without `stripes`, about an axis that is not searched,
    /// where all of it fits `memory_mib`. What the device does not keep up with is made when the run is closed.
    pub while_recording: bool,
}

impl Default for VolumeParameters {
    fn default() -> Self {
        Self {
            method: Method::Backprojection,
            gridrec_from: None,
            iterations: None,
            nonnegative: None,
            flat: 0.01,
            support_px: None,
            stripes: Vec::new(),
            memory_mib: 2048,
            format: VolumeFormat::F32,
            range: None,
            tiff: false,
            levels: 0,
            preview: 128,
            while_recording: true,
        }
    }
}

impl VolumeParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        let within = |key: &str, value: usize, low: usize, high: usize| match value {
            value if (low..=high).contains(&value) => Ok(()),
            value => Err(ConfigError::value(
                format!("recipe.{recipe}.{NAME}.{key}"),
                value,
                format!("allowed is {low} to {high}"),
            )),
        };
        within("memory_mib", self.memory_mib, 128, 1 << 20)?;
        within("levels", self.levels, 0, 4)?;
        within("preview", self.preview, 0, 512)?;
        within("iterations", self.iterations.unwrap_or(1), 1, 10_000)?;
        let wrong = |key: &str, value: String, expected: &str| {
            Err(ConfigError::value(
                format!("recipe.{recipe}.{NAME}.{key}"),
                value,
                expected,
            ))
        };
        if !(0.0..=1.0).contains(&self.flat) {
            return wrong("flat", self.flat.to_string(), "allowed is 0 to 1");
        }
        if let Some(support) = self.support_px
            && !(support > 0.0 && support.is_finite())
        {
            return wrong("support_px", support.to_string(), "a number of pixels above 0");
        }
        for (number, stripes) in self.stripes.iter().enumerate() {
            if let Err(expected) = stripes.method() {
                return wrong(&format!("stripes[{number}]"), format!("{stripes:?}"), &expected);
            }
        }
        let key = format!("recipe.{recipe}.{NAME}.range");
        match (self.format, self.range) {
            (VolumeFormat::U16, None) => {
                let expected = "format = \"u16\" needs the least and the largest value that 16 bits stand for";
                Err(ConfigError::value(key, "(missing)", expected))
            }
            (_, Some([low, high])) if !(low < high && (high - low).is_finite()) => {
                let expected = "two numbers, the first one smaller";
                Err(ConfigError::value(key, format!("[{low}, {high}]"), expected))
            }
            _ => Ok(()),
        }
    }
}
