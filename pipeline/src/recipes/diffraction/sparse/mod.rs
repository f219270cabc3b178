//! `sparse`: when the run is closed, its frames once more as background curves and pixels that deviate, in a run of its own
//! that takes little room. The run itself stays as it is.

mod split;

use super::super::files::NamedFile;
use super::super::{Prepared, RecipeError, Setup};
use super::correct::Corrections;
use super::geometry;
use crate::afterwards::{Afterwards, AfterwardsError, Place};
use crate::config::ConfigError;
use crate::storage::{self, RunEnd, SparseConfig, SparseFrame, SparseWriter, StoreError};
use frame::geometry::Unit;
use frame::{PixelMask, PixelType, Shape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use split::{Limits, Rings, numbers};

const NAME: &str = "sparse";

/// `[recipe.NAME.sparse]`: frames without the background that a curve tells as well. Lossy.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SparseParameters {
    /// `.poni` file; the newest geometry of the store, or what the source says, unless given.
    pub poni: Option<NamedFile>,
    /// Rings of the background (2 to 65536).
    pub bins: usize,
    /// Standard deviations, up or down, from which on a pixel is kept.
    pub pick_sigmas: f64,
    /// Counts that are added in quadrature to a ring's standard deviation.
    pub noise: f64,
    /// Standard deviations from which on a pixel is left out of the background.
    pub clip_sigmas: f64,
    /// How often that is done (0 to 100).
    pub cycles: usize,
    /// Pixels around a kept one that are kept with it (0 to 10).
    pub border_px: usize,
    /// Divide by the solid angle that a pixel sees.
    pub solid_angle: bool,
    /// Polarisation factor, -1 (vertical) to 1 (horizontal).
    pub polarization: Option<f64>,
}

impl Default for SparseParameters {
    fn default() -> Self {
        Self {
            poni: None,
            bins: 1000,
            pick_sigmas: 3.0,
            noise: 1.0,
            clip_sigmas: 4.0,
            cycles: 5,
            border_px: 1,
            solid_angle: true,
            polarization: None,
        }
    }
}

impl SparseParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        let within = |key: &str, value: f64, low: f64, high: f64| match (low..=high).contains(&value) {
            true => Ok(()),
            false => {
                let expected = format!("allowed is {low} to {high}");
                Err(ConfigError::value(
                    format!("recipe.{recipe}.{NAME}.{key}"),
                    value,
                    expected,
                ))
            }
        };
        within("bins", self.bins as f64, 2.0, 65536.0)?;
        within("pick_sigmas", self.pick_sigmas, 0.1, 1e6)?;
        within("noise", self.noise, 0.0, 1e9)?;
        within("clip_sigmas", self.clip_sigmas, 1.0, 1e6)?;
        within("cycles", self.cycles as f64, 0.0, 100.0)?;
        within("border_px", self.border_px as f64, 0.0, 10.0)?;
        within("polarization", self.polarization.unwrap_or(0.0), -1.0, 1.0)
    }

    fn limits(&self, saturation: Option<f64>) -> Limits {
        Limits {
            pick_sigmas: self.pick_sigmas,
            noise: self.noise,
            clip_sigmas: self.clip_sigmas,
            cycles: self.cycles,
            border_px: self.border_px,
            saturation,
        }
    }
}

/// What is left to do when the run is closed.
struct Sparse {
    parameters: SparseParameters,
    recipe: String,
    mask: PixelMask,
    radii: Vec<f64>,
    normalization: Vec<f32>,
    invalid: Option<f64>,
    saturation: Option<f64>,
}

/// Leaves the work for when the run is closed.
pub(super) fn plan(
    setup: &Setup<'_>,
    parameters: &SparseParameters,
    corrections: &Corrections,
    prepared: &mut Prepared,
) -> Result<(), RecipeError> {
    let shape = setup.stream.shape;
    let geometry = geometry::load(setup, NAME, parameters.poni.as_ref())?;
    let mut factors = vec![1.0; shape.pixels()];
    let mut times = |map: Vec<f64>| factors.iter_mut().zip(map).for_each(|(factor, value)| *factor *= value);
    if parameters.solid_angle {
        times(geometry.solid_angle_map(shape));
    }
    if let Some(factor) = parameters.polarization {
        times(geometry.polarization_map(factor, 0.0, shape));
    }
    let radii = geometry
        .radial_map(Unit::RadiusMm, shape)
        .map_err(|error| setup.wrong(NAME, "poni", "(given)", error.to_string()))?;
    if (0..shape.pixels()).all(|pixel| corrections.mask.rejects(pixel)) {
        let expected = "a mask that leaves pixels";
        return Err(setup.wrong(NAME, "poni", "every pixel is masked", expected));
    }
    prepared.afterwards = Some(Box::new(Sparse {
        parameters: parameters.clone(),
        recipe: setup.recipe.into(),
        mask: corrections.mask.clone(),
        radii,
        normalization: factors.iter().map(|factor| *factor as f32).collect(),
        invalid: corrections.invalid,
        saturation: corrections.saturation,
    }));
    Ok(())
}

impl Sparse {
    /// What masked pixels read as: what frames of this type hold where there is no count.
    fn dummy(pixel_type: PixelType) -> f64 {
        match pixel_type {
            PixelType::U8 => f64::from(u8::MAX),
            PixelType::U16 => f64::from(u16::MAX),
            PixelType::U32 => f64::from(u32::MAX),
            PixelType::I16 | PixelType::I32 => -1.0,
            PixelType::F32 => f64::NAN,
        }
    }

    /// Reads the frames that were stored, in their order; a frame that was not is `None`.
    fn frame(
        &self,
        place: &Place<'_>,
        number: u64,
        shape: Shape,
        rings: &Rings,
    ) -> Result<Option<SparseFrame>, StoreError> {
        let (bytes, found, pixel_type) = match storage::read_frame(place.raw, number) {
            Ok(frame) => frame,
            Err(StoreError::FrameMissing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        debug_assert_eq!(found, shape);
        let limits = self.parameters.limits(self.saturation);
        let unusable = |value: f64| {
            let invalid = self.invalid.is_some_and(|invalid| value == invalid);
            invalid || limits.saturation.is_some_and(|limit| value >= limit) || !value.is_finite()
        };
        Ok(Some(rings.split(&numbers(&bytes, pixel_type), unusable, &limits)))
    }

    fn write(
        &self,
        place: &Place<'_>,
        writer: &mut SparseWriter,
        frames: u64,
        shape: Shape,
        rings: &Rings,
    ) -> Result<u64, AfterwardsError> {
        let started = std::time::Instant::now();
        let mut stored = 0;
        for number in 0..frames {
            place.give_way()?;
            let frame = self.frame(place, number, shape, rings)?;
            stored += u64::from(frame.is_some());
            writer.write(frame.as_ref())?;
            let left = started.elapsed().as_secs_f64() / (number + 1) as f64 * (frames - number - 1) as f64;
            place.derived.progress(number + 1, frames, Some(left));
        }
        Ok(stored)
    }
}

impl Afterwards for Sparse {
    fn name(&self) -> &'static str {
        NAME
    }

    fn definition(&self) -> &'static str {
        "sparse_frames"
    }

    fn run(self: Box<Self>, place: &Place<'_>) -> Result<Value, AfterwardsError> {
        let (frames, shape, pixel_type) = storage::frames_of(place.raw)?;
        let rejects = |pixel: usize| self.mask.rejects(pixel);
        let bins = self.parameters.bins;
        let rings = Rings::new(&self.radii, rejects, self.normalization.clone(), bins, shape.columns);
        let mut info = place.info.clone();
        info.parameters = json!({
            "recipe": self.recipe, "sparse": self.parameters, "saturation_value": self.saturation,
            "invalid_value": self.invalid, "lossy": true,
        });
        let config = SparseConfig {
            frames: frames as usize,
            shape,
            pixel_type,
            radius: rings.radius.clone(),
            unit: "mm".into(),
            mask: (0..shape.pixels())
                .map(|pixel| {
                    if rejects(pixel) {
                        f32::NAN
                    } else {
                        self.radii[pixel] as f32
                    }
                })
                .collect(),
            normalization: self.normalization.clone(),
            dummy: Self::dummy(pixel_type),
            raw_file: place.raw.display().to_string(),
        };
        let mut writer = SparseWriter::create(place.store, &info, config)?;
        let stored = match self.write(place, &mut writer, frames, shape, &rings) {
            Ok(stored) => stored,
            Err(error) => {
                writer.fail(&error.to_string());
                return Err(error);
            }
        };
        let pixels = stored * shape.pixels() as u64;
        let summary = json!({
            "frames": frames, "frames_stored": stored, "pixels_kept": writer.kept(),
            "share_kept": writer.kept() as f64 / pixels.max(1) as f64, "lossy": true,
        });
        let end = RunEnd {
            state: "complete".into(),
            end_time: jiff::Timestamp::now(),
            counts: json!({ "expected": frames, "complete": stored, "lost": frames - stored }),
            summary: summary.clone(),
            metadata: Vec::new(),
            grid: None,
        };
        let warning = "lossy: pixels within the limits of their ring were replaced by its background";
        let files = writer.finish(end, vec![warning.into()])?;
        let mut summary = summary;
        summary["files"] = files.iter().map(|path| path.display().to_string()).collect();
        Ok(summary)
    }
}
