//! `correct`: the mean dark and the mean flat of the scan (or of files), then `-ln((raw - dark) / (flat - dark))`.

use super::super::{Batch, Operation, RecipeError, Setup, Snapshot, fields};
use crate::config::ConfigError;
use frame::{FrameKind, PixelMask, ResultLayout};
use kernels::{Correction, CorrectionConfig, Padding, Paganin, PaganinConfig, Queue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const NAME: &str = "correct";

/// `[recipe.NAME.correct]` of tomography
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CorrectParameters {
    /// Mask: `.npy`, TIFF, CBF, or HDF5 as `FILE::/path`. Added to the source's own.
    pub mask: Option<PathBuf>,
    /// Dark of the detector as a file; used where the scan has none.
    pub dark: Option<PathBuf>,
    /// Flat of the beam as a file, dark included; used where the scan has none.
    pub flat: Option<PathBuf>,
    /// Divide by the flat. Without it a scan needs no flats: its frames are transmissions already.
    pub flat_field: bool,
    /// Take the minus logarithm: transmissions become line integrals of the attenuation.
    pub minus_log: bool,
    /// Phase retrieval after Paganin, of projections taken at a distance; none unless it is given.
    pub phase: Option<PhaseParameters>,
    /// Smallest transmission whose logarithm is taken (above 0, below 1).
    pub clip_transmission: f32,
}

impl Default for CorrectParameters {
    fn default() -> Self {
        Self {
            mask: None,
            dark: None,
            flat: None,
            flat_field: true,
            minus_log: true,
            phase: None,
            clip_transmission: 1e-6,
        }
    }
}

/// `[recipe.NAME.correct.phase]` of tomography
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PhaseParameters {
    /// Effective size of a pixel at the sample, µm; the source's own where it says so.
    pub pixel_size_um: Option<f64>,
    /// Photon energy, keV.
    pub energy_kev: f64,
    /// From the sample to the detector, mm.
    pub distance_mm: f64,
    /// δ/β of the material.
    pub delta_beta: f64,
}

impl CorrectParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        if !(self.clip_transmission > 1e-30 && self.clip_transmission < 1.0) {
            let key = format!("recipe.{recipe}.correct.clip_transmission");
            return Err(ConfigError::value(
                key,
                self.clip_transmission,
                "allowed is above 1e-30 and below 1",
            ));
        }
        Ok(())
    }
}

/// Mean of the frames of one kind.
struct Mean {
    sum: Vec<f64>,
    frames: u64,
}

impl Mean {
    fn new(pixels: usize) -> Self {
        Self {
            sum: vec![0.0; pixels],
            frames: 0,
        }
    }

    fn add(&mut self, values: &[f32]) {
        for frame in values.chunks_exact(self.sum.len()) {
            for (sum, value) in self.sum.iter_mut().zip(frame) {
                *sum += f64::from(*value);
            }
            self.frames += 1;
        }
    }

    /// Writes the mean where there were frames; else leaves what a file gave.
    fn write(&self, field: &mut Vec<f32>) {
        if self.frames > 0 {
            field.clear();
            field.extend(self.sum.iter().map(|sum| (sum / self.frames as f64) as f32));
        }
    }
}

/// Phase retrieval made ready; an error names the parameter.
fn paganin(setup: &Setup<'_>, parameters: &CorrectParameters, phase: &PhaseParameters) -> Result<Paganin, RecipeError> {
    let stream = setup.stream;
    let told = stream.detector.pixel_size_fast_m.map(|metres| metres * 1e6);
    let Some(pixel_size_um) = phase.pixel_size_um.or(told) else {
        let expected = "the source does not say it: give the size of a pixel at the sample in micrometres";
        return Err(setup.wrong(NAME, "phase.pixel_size_um", "(missing)", expected));
    };
    let config = PaganinConfig {
        rows: stream.shape.rows,
        columns: stream.shape.columns,
        pixel_size_um,
        energy_kev: phase.energy_kev,
        distance_mm: phase.distance_mm,
        delta_beta: phase.delta_beta,
        padding: Padding::Edge,
        clip_epsilon: parameters.clip_transmission,
        threads: 1,
    };
    Paganin::new(&config).map_err(|error| setup.wrong(NAME, "phase", format!("{phase:?}"), error.to_string()))
}

/// The operation.
pub(super) struct Correct {
    parameters: CorrectParameters,
    raw: Correction,
    transmission: Correction,
    darks: Mean,
    flats: Mean,
    dark: Vec<f32>,
    flat: Vec<f32>,
    ready: bool,
    phase: Option<Paganin>,
    invalid_index: usize,
}

impl Correct {
    pub(super) fn new(
        setup: &Setup<'_>,
        parameters: CorrectParameters,
        mask: &PixelMask,
        layout: &mut ResultLayout,
    ) -> Result<Self, RecipeError> {
        let stream = setup.stream;
        if parameters.flat_field && stream.flats == 0 && parameters.flat.is_none() {
            let expected = "the scan has no flats: name a file, or set flat_field = false";
            return Err(setup.wrong(NAME, "flat", "(missing)", expected));
        }
        let pixels = stream.shape.pixels();
        // Room is reserved now, so that the mean of the scan's own frames needs none later.
        let field = |key: &str, path: &Option<PathBuf>| -> Result<Vec<f32>, RecipeError> {
            let mut values = Vec::with_capacity(pixels);
            if let Some(path) = path {
                let key = format!("recipe.{}.{NAME}.{key}", setup.recipe);
                values.extend(
                    fields::read(&key, &setup.path(path), stream.shape)?
                        .iter()
                        .map(|value| *value as f32),
                );
            }
            Ok(values)
        };
        let (dark, flat) = (field("dark", &parameters.dark)?, field("flat", &parameters.flat)?);
        let correction = |config: &CorrectionConfig, mask: &PixelMask| {
            Correction::new(
                setup.accelerator,
                config,
                stream.shape,
                stream.pixel_type,
                mask,
                setup.batch_limit,
            )
            .map_err(RecipeError::device(NAME))
        };
        let raw = correction(&CorrectionConfig::default(), &PixelMask::none(stream.shape))?;
        let config = CorrectionConfig {
            // Phase retrieval takes transmissions, and the logarithm itself; a bad pixel is an empty one.
            minus_log: parameters.minus_log && parameters.phase.is_none(),
            fill: if parameters.phase.is_some() { 1.0 } else { 0.0 },
            clip_epsilon: parameters.clip_transmission,
            ..CorrectionConfig::default()
        };
        let phase = parameters
            .phase
            .as_ref()
            .map(|phase| paganin(setup, &parameters, phase));
        Ok(Self {
            phase: phase.transpose()?,
            raw,
            transmission: correction(&config, mask)?,
            darks: Mean::new(pixels),
            flats: Mean::new(pixels),
            dark,
            flat,
            ready: false,
            invalid_index: layout.scalar("invalid_pixels", ""),
            parameters,
        })
    }

    /// Fixes dark and flat when the first projection comes.
    fn set_fields(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        self.darks.write(&mut self.dark);
        self.flats.write(&mut self.flat);
        if self.parameters.flat_field && self.flat.is_empty() {
            let reason = "every flat of the scan was lost; take it again, or name a file in correct.flat".into();
            return Err(RecipeError::Frames {
                operation: NAME,
                reason,
            });
        }
        let dark = Some(self.dark.as_slice()).filter(|dark| !dark.is_empty());
        let flat = Some(self.flat.as_slice()).filter(|_| self.parameters.flat_field);
        self.transmission
            .set_fields(queue, dark, flat)
            .map_err(RecipeError::device(NAME))?;
        self.ready = true;
        Ok(())
    }
}

impl Operation for Correct {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let failed = RecipeError::device(NAME);
        if matches!(batch.kind, FrameKind::Dark | FrameKind::Flat) {
            let counts = self.raw.run(batch.queue, batch.frames).map_err(&failed)?;
            let values = counts.map(batch.queue).map_err(&failed)?;
            let mean = if batch.kind == FrameKind::Dark {
                &mut self.darks
            } else {
                &mut self.flats
            };
            mean.add(&values);
            return values.unmap().map_err(&failed);
        }
        if batch.kind == FrameKind::Invalid {
            return Ok(());
        }
        if !self.ready {
            self.set_fields(batch.queue)?;
        }
        let corrected = self.transmission.run(batch.queue, batch.frames).map_err(&failed)?;
        for index in 0..corrected.frames() {
            let invalid = corrected.invalid()[index];
            if let Some(result) = batch.result(index) {
                result.scalars[self.invalid_index] = f64::from(invalid);
            }
        }
        if let Some(phase) = &mut self.phase {
            let pixels = corrected.shape().pixels();
            let mut values = corrected.map(batch.queue).map_err(&failed)?;
            for projection in values.chunks_exact_mut(pixels) {
                let done = if self.parameters.minus_log {
                    phase.run(projection)
                } else {
                    phase.filter(projection)
                };
                done.map_err(|error| RecipeError::Frames {
                    operation: NAME,
                    reason: error.to_string(),
                })?;
            }
            values.unmap().map_err(&failed)?;
        }
        batch.corrected = Some(corrected);
        Ok(())
    }

    fn snapshot(&mut self, _queue: &Queue, _snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        Ok(())
    }

    fn finish(&mut self, _queue: &Queue) -> Result<(), RecipeError> {
        Ok(())
    }
}
