//! `correct`: the mean dark and the mean flat of the scan (or of files), then `-ln((raw - dark) / (flat - dark))`.
//!
//! Flats and darks that were taken at several moments: live a projection is divided by the last ones before it, as nobody
//! knows the next ones yet; in the volume by those of its own moment, on the line between the ones around it.

use super::super::files::NamedFile;
use super::super::{Batch, Operation, RecipeError, Setup, fields};
use super::bad_pixels::BadPixels;
use crate::config::ConfigError;
use frame::{FrameKind, PixelMask, ResultLayout};
use kernels::{
    Correction, CorrectionConfig, Invalid, Padding, Paganin, PaganinConfig, Queue, TimedFlats, ZingerMethod, Zingers,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const NAME: &str = "correct";
/// Transmission of what there is nothing in.
const EMPTY: f32 = 1.0;
/// What it adds to the results.
pub(super) const INVALID: &str = "invalid_pixels";
/// And where it looks for zingers.
pub(super) const ZINGERS: &str = "zingers";
/// Frames whose moments are nearer than this are of one moment.
const SAME_MOMENT: f64 = 0.25;
/// Pixels that a masked one may be filled from at most.
const REACH_PX_MAX: usize = 64;

/// `[recipe.NAME.correct]` of tomography
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CorrectParameters {
    /// Mask: `.npy`, TIFF, CBF, or HDF5 as `FILE::/path`. Added to the source's own.
    pub mask: Option<NamedFile>,
    /// Dark of the detector as a file; used where the scan has none.
    pub dark: Option<NamedFile>,
    /// Flat of the beam as a file, dark included; used where the scan has none.
    pub flat: Option<NamedFile>,
    /// Divide by the flat. Without it a scan needs no flats: its frames are transmissions already.
    pub flat_field: bool,
    /// Take the minus logarithm: transmissions become line integrals of the attenuation.
    pub minus_log: bool,
    /// Where darks or flats were taken at several moments of the scan, the volume takes those of each projection's own
    /// moment, on the line between the ones around it. Without it, the mean of all.
    pub interpolate: bool,
    /// A masked pixel takes the mean of the next valid ones in its row and column, each by one over its distance, that are at most
    /// so many pixels away (0 to 64); where there are none, or with 0, it counts as empty.
    pub bad_pixels_px: usize,
    /// Bright specks in projections, which are replaced; none are looked for unless it is given.
    pub zingers: Option<ZingerParameters>,
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
            interpolate: true,
            bad_pixels_px: 4,
            zingers: None,
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

/// What a zinger stands out from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Around {
    /// the mean of the eight pixels `size_px` away, by a share of it
    Mean,
    /// the median of the 3×3 pixels around it
    Median,
}

/// `[recipe.NAME.correct.zingers]` of tomography
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ZingerParameters {
    /// "mean" or "median": what a pixel is compared with, and replaced by.
    pub method: Around,
    /// How much brighter: of "mean" a share of it, of "median" a transmission (above 0).
    pub threshold: f64,
    /// Size of a zinger for "mean", pixels (1 to 64).
    pub size_px: usize,
}

impl Default for ZingerParameters {
    fn default() -> Self {
        Self {
            method: Around::Mean,
            threshold: 0.1,
            size_px: 2,
        }
    }
}

impl ZingerParameters {
    fn zingers(&self, rows: usize, columns: usize) -> Result<Zingers, Invalid> {
        let method = match self.method {
            Around::Mean => ZingerMethod::Mean {
                threshold: self.threshold,
                size: self.size_px,
            },
            Around::Median => ZingerMethod::Median {
                threshold: self.threshold,
            },
        };
        Zingers::new(&method, rows, columns)
    }
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
        if self.bad_pixels_px > REACH_PX_MAX {
            let key = format!("recipe.{recipe}.correct.bad_pixels_px");
            let expected = format!("allowed is 0 to {REACH_PX_MAX}");
            return Err(ConfigError::value(key, self.bad_pixels_px, expected));
        }
        let zingers = self.zingers.as_ref().map(|zingers| zingers.zingers(1, 1));
        if let Some(Err(error)) = zingers {
            let key = format!("recipe.{recipe}.correct.zingers");
            return Err(ConfigError::value(
                key,
                format!("{:?}", self.zingers),
                error.to_string(),
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

    fn forget(&mut self) {
        self.sum.fill(0.0);
        self.frames = 0;
    }

    fn add(&mut self, frame: &[f32]) {
        for (sum, value) in self.sum.iter_mut().zip(frame) {
            *sum += f64::from(*value);
        }
        self.frames += 1;
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

/// Darks and flats by the moment that they were taken at.
struct Timed {
    darks: TimedFlats,
    flats: TimedFlats,
    /// moment of the batch that comes next
    moment: f64,
}

/// What is done on the host, behind the device's correction.
struct OnHost {
    bad_pixels: BadPixels,
    zingers: Option<Zingers>,
    phase: Option<Paganin>,
    minus_log: bool,
    clip: f32,
    /// pixels without a valid transmission that the device did not count
    emptied: u64,
}

impl OnHost {
    fn anything(&self) -> bool {
        self.takes_transmissions() || self.bad_pixels.any()
    }

    /// Whether the logarithm is left to it.
    fn takes_transmissions(&self) -> bool {
        self.zingers.is_some() || self.phase.is_some()
    }

    /// Fills masked pixels, replaces zingers, retrieves the phase, and takes the logarithm; says how many zingers there were.
    fn finish(&mut self, projection: &mut [f32]) -> Result<usize, Invalid> {
        self.bad_pixels.fill(projection);
        if !self.takes_transmissions() {
            return Ok(0);
        }
        let mut found = 0;
        if let Some(zingers) = &mut self.zingers {
            // An empty pixel among others that are not would be a zinger.
            self.bad_pixels.fill_far(projection);
            found = zingers.run(projection)?;
            self.bad_pixels.empty_far(projection, EMPTY);
        }
        if self.minus_log {
            // As on the device: what has no logarithm counts as empty.
            for value in projection.iter_mut().filter(|value| value.is_nan() || **value <= 0.0) {
                *value = EMPTY;
                self.emptied += 1;
            }
        }
        match &mut self.phase {
            Some(phase) if self.minus_log => phase.run(projection)?,
            Some(phase) => phase.filter(projection)?,
            None if self.minus_log => projection
                .iter_mut()
                .for_each(|value| *value = -value.max(self.clip).ln()),
            None => {}
        }
        Ok(found)
    }
}

/// How many darks or flats projections were corrected with: none came yet, or other ones later than before.
const NONE_YET: u64 = u64::MAX;
const SEVERAL: u64 = u64::MAX - 1;

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
    /// whether flats and darks have come since the last projection
    darks_or_flats_again: [bool; 2],
    on_host: OnHost,
    timed: Option<Timed>,
    /// how many darks and flats all projections so far were corrected with
    fields_used: Arc<[AtomicU64; 2]>,
    invalid_index: usize,
    zingers_index: Option<usize>,
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
        let field = |key: &str, path: &Option<NamedFile>| -> Result<Vec<f32>, RecipeError> {
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
        let on_host = parameters.phase.is_some() || parameters.zingers.is_some();
        let config = CorrectionConfig {
            // Zingers and phase retrieval take transmissions, the logarithm comes after them; a bad pixel is an empty one.
            minus_log: parameters.minus_log && !on_host,
            fill: if on_host { EMPTY } else { 0.0 },
            clip_epsilon: parameters.clip_transmission,
            ..CorrectionConfig::default()
        };
        let phase = parameters
            .phase
            .as_ref()
            .map(|phase| paganin(setup, &parameters, phase));
        let zingers = parameters.zingers.as_ref().map(|zingers| {
            zingers
                .zingers(stream.shape.rows, stream.shape.columns)
                .map_err(|error| setup.wrong(NAME, "zingers", format!("{zingers:?}"), error.to_string()))
        });
        Ok(Self {
            on_host: OnHost {
                bad_pixels: BadPixels::new(mask, parameters.bad_pixels_px),
                zingers: zingers.transpose()?,
                phase: phase.transpose()?,
                minus_log: parameters.minus_log,
                clip: parameters.clip_transmission,
                emptied: 0,
            },
            timed: None,
            fields_used: Arc::new([NONE_YET; 2].map(AtomicU64::new)),
            raw,
            transmission: correction(&config, mask)?,
            darks: Mean::new(pixels),
            flats: Mean::new(pixels),
            dark,
            flat,
            ready: false,
            darks_or_flats_again: [false; 2],
            invalid_index: layout.scalar(INVALID, ""),
            zingers_index: parameters.zingers.as_ref().map(|_| layout.scalar(ZINGERS, "")),
            parameters,
        })
    }

    /// From now on frames are told the moment that they were taken at ([`Self::at`]).
    pub(super) fn keep_times(&mut self) {
        let pixels = self.darks.sum.len();
        self.timed = Some(Timed {
            darks: TimedFlats::new(pixels),
            flats: TimedFlats::new(pixels),
            moment: 0.0,
        });
    }

    /// The moment that the next batch was taken at, where times are kept.
    pub(super) fn at(&mut self, moment: f64) {
        if let Some(timed) = &mut self.timed {
            timed.moment = moment;
        }
    }

    /// How many darks and flats of the scan all projections were corrected with; another number where that changed.
    pub(super) fn fields_used(&self) -> Arc<[AtomicU64; 2]> {
        self.fields_used.clone()
    }

    /// Place of the number of pixels without a valid transmission in the results.
    pub(super) fn invalid_index(&self) -> usize {
        self.invalid_index
    }

    /// Pixels without a valid transmission since the last call that the batches' own counts lack.
    pub(super) fn take_emptied(&mut self) -> u64 {
        std::mem::take(&mut self.on_host.emptied)
    }

    /// Dark and flat of the next batch's moment, where there are any.
    fn interpolate(&mut self) -> Result<(), RecipeError> {
        let Some(timed) = &self.timed else { return Ok(()) };
        let pixels = self.darks.sum.len();
        for (fields, field) in [(&timed.darks, &mut self.dark), (&timed.flats, &mut self.flat)] {
            if fields.moments().next().is_some() {
                field.resize(pixels, 0.0);
                fields.at(timed.moment, field).map_err(RecipeError::frames(NAME))?;
            }
        }
        self.ready = false;
        Ok(())
    }

    /// Fixes dark and flat when the first projection comes, and the first after others.
    fn set_fields(&mut self, queue: &Queue) -> Result<(), RecipeError> {
        if self.timed.is_none() {
            self.darks.write(&mut self.dark);
            self.flats.write(&mut self.flat);
        }
        if self.parameters.flat_field && self.flat.is_empty() {
            let reason =
                "every flat of the scan was lost or came in part; take it again, or name a file in correct.flat";
            return Err(RecipeError::frames(NAME)(reason));
        }
        let dark = Some(self.dark.as_slice()).filter(|dark| !dark.is_empty());
        let flat = Some(self.flat.as_slice()).filter(|_| self.parameters.flat_field);
        self.transmission
            .set_fields(queue, dark, flat)
            .map_err(RecipeError::device(NAME))?;
        for (used, frames) in self.fields_used.iter().zip([self.darks.frames, self.flats.frames]) {
            if used.compare_exchange(NONE_YET, frames, Relaxed, Relaxed).is_err() {
                used.store(SEVERAL, Relaxed);
            }
        }
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
            let dark = batch.kind == FrameKind::Dark;
            let mean = if dark { &mut self.darks } else { &mut self.flats };
            // Those behind projections take the place of those before.
            if self.ready {
                self.ready = false;
                self.darks_or_flats_again = [false; 2];
            }
            if !std::mem::replace(&mut self.darks_or_flats_again[usize::from(dark)], true) {
                mean.forget();
            }
            let pixels = mean.sum.len();
            for (index, frame) in values.chunks_exact(pixels).enumerate() {
                // What lacks parts of itself would spoil the mean there.
                if batch.is_partial(index) {
                    continue;
                }
                mean.add(frame);
                if let Some(timed) = &mut self.timed {
                    let fields = if dark { &mut timed.darks } else { &mut timed.flats };
                    fields
                        .add(timed.moment, SAME_MOMENT, frame)
                        .map_err(RecipeError::frames(NAME))?;
                }
            }
            return values.unmap().map_err(&failed);
        }
        if batch.kind == FrameKind::Invalid {
            return Ok(());
        }
        self.interpolate()?;
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
        if self.on_host.anything() {
            let pixels = corrected.shape().pixels();
            let mut values = corrected.map(batch.queue).map_err(&failed)?;
            for (index, projection) in values.chunks_exact_mut(pixels).enumerate() {
                let emptied = self.on_host.emptied;
                let zingers = self.on_host.finish(projection).map_err(RecipeError::frames(NAME))?;
                if let Some(result) = batch.results.get_mut(index).and_then(Arc::get_mut) {
                    result.scalars[self.invalid_index] += (self.on_host.emptied - emptied) as f64;
                    if let Some(place) = self.zingers_index {
                        result.scalars[place] = zingers as f64;
                    }
                }
            }
            values.unmap().map_err(&failed)?;
        }
        batch.corrected = Some(corrected);
        Ok(())
    }
}
