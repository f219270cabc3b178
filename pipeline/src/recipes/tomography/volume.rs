//! `volume`: every slice, when the run is closed, within a configured memory.
//!
//! ```text
//! for as many rows as the memory holds:        a pass
//!     every projection: read, correct, keep these rows            sinograms [row][projection][column]
//!     16 rows at a time: filter, back-project, write              a slab
//! ```
//!
//! Projections are taken in the order of frames, as they were live, so that the same files and parameters give the same
//! bits. A pass reads all frames again: for 1500 projections of 2048 columns that costs a small share of the
//! back-projection of the rows that it brings.

use super::super::{RecipeError, Setup};
use super::correct::CorrectParameters;
use super::half::Widened;
use super::projections::{self, Projections};
use super::weights;
use crate::afterwards::{Afterwards, AfterwardsError, Place};
use crate::config::{ConfigError, RecipeConfig};
use crate::storage::{self, RunEnd, RunInfo, SLAB_SLICES, VolumeConfig, VolumeFormat, VolumeWriter};
use driver::source::FrameSource;
use frame::{FrameKind, PixelMask, Shape, StreamDescription};
use kernels::{Backprojector, BackprojectorConfig, Filter, Plane};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

pub(super) const NAME: &str = "volume";
/// Share of pixels without a valid transmission that is worth a warning.
const INVALID_SHARE: f64 = 0.01;

/// `[recipe.NAME.volume]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VolumeParameters {
    /// Memory that the volume may take, MiB (128 to 1048576), beside the run's ring: the less, the more often the
    /// projections are read.
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
}

impl Default for VolumeParameters {
    fn default() -> Self {
        Self {
            memory_mib: 2048,
            format: VolumeFormat::F32,
            range: None,
            tiff: false,
            levels: 0,
            preview: 128,
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

/// How the volume fits its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    rows_per_pass: usize,
    passes: usize,
    bytes: usize,
}

/// What a device's compiler and runtime take on top, as seen with PoCL: 50 to 70 MiB.
const RUNTIME_BYTES: usize = 72 << 20;

/// Bytes of a slab: sums (twice, where the runtime keeps a copy of its own), their copy for the file and its 16-bit form,
/// and filtered projections.
fn slab_bytes(columns: usize) -> usize {
    let points = columns * columns * SLAB_SLICES;
    let filtered = 16 * (columns + 3) * SLAB_SLICES * 4;
    points * (4 + 4 + 4 + 2) + filtered
}

fn plan(
    memory_bytes: usize,
    stream: &StreamDescription,
    projections: usize,
    width: usize,
    preview: usize,
    phase: bool,
) -> Result<Plan, String> {
    let Shape { rows, columns } = stream.shape;
    let fixed = projections::memory_bytes(stream, phase) + slab_bytes(width) + preview.pow(3) * 4 + RUNTIME_BYTES;
    let row = projections * columns * 4;
    let least = fixed + SLAB_SLICES.min(rows) * row;
    if least > memory_bytes {
        return Err(format!(
            "{projections} projections of {rows}x{columns} pixels need at least {} MiB",
            least.div_ceil(1 << 20)
        ));
    }
    let room = (memory_bytes - fixed) / row.max(1);
    let rows_per_pass = if room >= rows {
        rows
    } else {
        room / SLAB_SLICES * SLAB_SLICES
    };
    Ok(Plan {
        rows_per_pass,
        passes: rows.div_ceil(rows_per_pass),
        bytes: fixed + rows_per_pass * row,
    })
}

fn widened(half_acquisition: bool, columns: usize, axis_px: f64) -> Option<Widened> {
    half_acquisition.then(|| Widened::new(columns, axis_px))
}

/// What is left to do when the run is closed.
pub(super) struct Volume {
    parameters: VolumeParameters,
    recipe: String,
    config: RecipeConfig,
    folder: PathBuf,
    correct: CorrectParameters,
    mask: PixelMask,
    filter: Filter,
    half_acquisition: bool,
    /// bits of the rotation axis as it is when the run ends
    axis: Arc<AtomicU64>,
    /// angle of every frame where its file has none
    planned_deg: Vec<f64>,
}

/// What a volume takes from its recipe.
pub(super) struct VolumeSetup<'a> {
    pub(super) setup: &'a Setup<'a>,
    pub(super) parameters: VolumeParameters,
    pub(super) correct: CorrectParameters,
    pub(super) mask: PixelMask,
    pub(super) filter: Filter,
    pub(super) half_acquisition: bool,
    pub(super) axis: Arc<AtomicU64>,
    pub(super) planned_deg: Vec<f64>,
}

impl Volume {
    /// Checks that it will fit its memory.
    pub(super) fn new(from: VolumeSetup<'_>) -> Result<Self, RecipeError> {
        let setup = from.setup;
        let memory_bytes = from.parameters.memory_mib << 20;
        let axis_px = f64::from_bits(from.axis.load(Relaxed));
        let columns = setup.stream.shape.columns;
        let width = widened(from.half_acquisition, columns, axis_px).map_or(columns, |widened| widened.width);
        plan(
            memory_bytes,
            setup.stream,
            setup.stream.samples() as usize,
            width,
            from.parameters.preview,
            from.correct.phase.is_some(),
        )
        .map_err(|expected| setup.wrong(NAME, "memory_mib", from.parameters.memory_mib, expected))?;
        Ok(Self {
            parameters: from.parameters,
            recipe: setup.recipe.into(),
            config: setup.config.clone(),
            folder: setup.folder.into(),
            correct: from.correct,
            mask: from.mask,
            filter: from.filter,
            half_acquisition: from.half_acquisition,
            axis: from.axis,
            planned_deg: from.planned_deg,
        })
    }
}

/// The projections that came: their places among all projections in the file, angles and weights.
struct Came {
    angles_deg: Vec<f64>,
    weights: Vec<f32>,
    /// by number among the stored projections: whether it has an angle and is used
    used: Vec<bool>,
    missing: usize,
    without_angle: usize,
    widest_deg: f64,
}

impl Came {
    fn new(kinds: &[FrameKind], angles_deg: &[f64], planned_deg: &[f64], turn_deg: f64) -> Self {
        let angle = |frame: usize| {
            let told = angles_deg.get(frame).copied().filter(|angle| angle.is_finite());
            told.unwrap_or_else(|| planned_deg.get(frame).copied().unwrap_or(f64::NAN))
        };
        let (mut came, mut missing, mut used, mut without_angle) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (frame, kind) in kinds.iter().enumerate() {
            let angle = angle(frame);
            match kind {
                FrameKind::Sample => {
                    used.push(angle.is_finite());
                    if angle.is_finite() {
                        came.push(angle);
                    } else {
                        without_angle += 1;
                    }
                }
                // A dark or a flat that was lost has no angle.
                FrameKind::Invalid if angle.is_finite() => missing.push(angle),
                _ => {}
            }
        }
        let (weights, widest_deg) = weights::weights(&came, &missing, turn_deg);
        // The slices are divided by the number of projections; their weights are to have that sum.
        let scale = came.len() as f64 / weights.iter().sum::<f64>().max(1.0);
        Self {
            weights: weights.iter().map(|weight| (weight * scale) as f32).collect(),
            missing: missing.len(),
            angles_deg: came,
            used,
            without_angle,
            widest_deg,
        }
    }

    /// What somebody should know.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.missing > 0 {
            warnings.push(format!(
                "{} of {} projections are missing: their share went to their neighbours in angle, the widest gap is {:.3} degrees",
                self.missing,
                self.missing + self.used.len(),
                self.widest_deg
            ));
        }
        if self.without_angle > 0 {
            warnings.push(format!(
                "{} projections have no angle and were left out",
                self.without_angle
            ));
        }
        warnings
    }
}

impl Afterwards for Volume {
    fn name(&self) -> &'static str {
        NAME
    }

    fn definition(&self) -> &'static str {
        "NXtomoproc"
    }

    fn run(self: Box<Self>, place: &Place<'_>) -> Result<Value, AfterwardsError> {
        let source = projections::open(place.raw)?;
        let stream = source.stream().clone();
        let (kinds, angles_deg) = storage::read_tomography_columns(place.raw)?;
        let came = Came::new(
            &kinds,
            &angles_deg,
            &self.planned_deg,
            if self.half_acquisition { 360.0 } else { 180.0 },
        );
        let axis_px = f64::from_bits(self.axis.load(Relaxed));
        let columns = stream.shape.columns;
        let widened = widened(self.half_acquisition, columns, axis_px);
        let width = widened.as_ref().map_or(columns, |widened| widened.width);
        let plan = plan(
            self.parameters.memory_mib << 20,
            &stream,
            came.angles_deg.len(),
            width,
            self.parameters.preview,
            self.correct.phase.is_some(),
        )
        .map_err(AfterwardsError::Memory)?;
        let mut info = place.info.clone();
        info.parameters = json!({
            "recipe": self.recipe, "correct": self.correct, "volume": self.parameters, "method": "back-projection",
            "filter": format!("{:?}", self.filter), "rotation_axis_px": axis_px,
            "projections": came.angles_deg.len(), "projections_missing": came.missing, "batch": SLAB_SLICES, "half_acquisition": self.half_acquisition,
        });
        let mut writer = self.writer(place, &info, &stream, width)?;
        let mut work = Work {
            volume: &self,
            place,
            came: &came,
            axis_px,
            widened,
            plan,
            stream: &stream,
            read_s: 0.0,
            backproject_s: 0.0,
            write_s: 0.0,
        };
        let made = work.slabs(source, &mut writer);
        let invalid = match made {
            Ok(invalid) => invalid,
            Err(error) => {
                writer.fail(&error.to_string());
                return Err(error);
            }
        };
        let mut warnings = came.warnings();
        let share = invalid as f64 / (plan.passes * came.used.len().max(1) * stream.shape.pixels()) as f64;
        if share > INVALID_SHARE {
            warnings.push(format!(
                "{:.1} % of the pixels had no valid transmission (masked, not a number, zero or below) and count as empty",
                100.0 * share
            ));
        }
        for warning in &warnings {
            place.derived.degraded(warning);
        }
        let summary = json!({
            "shape": [stream.shape.rows, width, width], "rotation_axis_px": axis_px,
            "projections_used": came.angles_deg.len(), "projections_expected": came.missing + came.used.len(),
            "passes": plan.passes, "rows_per_pass": plan.rows_per_pass, "memory_bytes": plan.bytes,
            "seconds": { "read": work.read_s, "backproject": work.backproject_s, "write": work.write_s },
            "warnings": warnings,
        });
        let end = RunEnd {
            state: "complete".into(),
            end_time: jiff::Timestamp::now(),
            counts: json!({ "expected": came.missing + came.used.len(), "complete": came.used.len(), "lost": came.missing }),
            summary: summary.clone(),
            metadata: Vec::new(),
        };
        let files = writer.finish(end, warnings)?;
        let mut summary = summary;
        summary["files"] = files.iter().map(|path| path.display().to_string()).collect();
        Ok(summary)
    }
}

impl Volume {
    fn writer(
        &self,
        place: &Place<'_>,
        info: &RunInfo,
        stream: &StreamDescription,
        width: usize,
    ) -> Result<VolumeWriter, AfterwardsError> {
        let config = VolumeConfig {
            slices: stream.shape.rows,
            shape: Shape::new(width, width),
            format: self.parameters.format,
            range: self.parameters.range.unwrap_or([0.0, 1.0]),
            tiff: self.parameters.tiff,
            levels: self.parameters.levels,
            preview: self.parameters.preview,
            point_m: stream.detector.pixel_size_fast_m,
            raw_file: place.raw.display().to_string(),
        };
        Ok(VolumeWriter::create(place.store, info, config)?)
    }
}

/// A volume while it is made.
struct Work<'a> {
    volume: &'a Volume,
    place: &'a Place<'a>,
    came: &'a Came,
    axis_px: f64,
    widened: Option<Widened>,
    plan: Plan,
    stream: &'a StreamDescription,
    read_s: f64,
    backproject_s: f64,
    write_s: f64,
}

impl Work<'_> {
    /// Makes and writes every slab; returns how many pixels had no valid transmission, over all passes.
    fn slabs(&mut self, source: driver::replay::Replay, writer: &mut VolumeWriter) -> Result<u64, AfterwardsError> {
        let (volume, stream, accelerator) = (self.volume, self.stream, self.place.accelerator);
        let setup = Setup {
            recipe: &volume.recipe,
            config: &volume.config,
            folder: &volume.folder,
            stream,
            accelerator,
            batch_limit: projections::BATCH_FRAMES,
            calibrations: self.place.calibrations(),
            time: self.place.info.start_time,
        };
        let Shape { rows, columns } = stream.shape;
        let mut projections = Projections::new(&setup, source, volume.correct.clone(), &volume.mask, accelerator)?;
        let width = self.widened.as_ref().map_or(columns, |widened| widened.width);
        let config = BackprojectorConfig {
            rows: SLAB_SLICES,
            columns: width,
            rotation_axis_px: self.widened.as_ref().map_or(self.axis_px, Widened::axis_px),
            filter: volume.filter,
            planes: vec![Plane::Slab { block: 0 }],
        };
        let failed = RecipeError::device(NAME);
        let mut backprojector = Backprojector::new(accelerator, &config).map_err(&failed)?;
        let count = self.came.angles_deg.len();
        // [row][projection][column]
        let mut sinograms = vec![0.0_f32; self.plan.rows_per_pass * count * columns];
        let mut slab = vec![0.0_f32; SLAB_SLICES * width * width];
        let mut projection = vec![0.0_f32; SLAB_SLICES * width];
        self.place.derived.progress(0, rows as u64, None);
        for pass in 0..self.plan.passes {
            let first = pass * self.plan.rows_per_pass;
            let last = (first + self.plan.rows_per_pass).min(rows);
            self.read(&mut projections, first..last, &mut sinograms)?;
            for start in (first..last).step_by(SLAB_SLICES) {
                let end = (start + SLAB_SLICES).min(last);
                let started = Instant::now();
                let queue = projections.queue();
                backprojector.reset(queue).map_err(&failed)?;
                projection.fill(0.0);
                for (number, (angle_deg, weight)) in self.came.angles_deg.iter().zip(&self.came.weights).enumerate() {
                    if number % kernels::BATCH_ANGLES == 0 {
                        self.place.give_way()?;
                    }
                    for row in start..end {
                        let from = ((row - first) * count + number) * columns;
                        let to = (row - start) * width;
                        let out = &mut projection[to..to + width];
                        let line = &sinograms[from..from + columns];
                        match &self.widened {
                            Some(widened) => widened.apply(line, out),
                            None => out.copy_from_slice(line),
                        }
                        out.iter_mut().for_each(|value| *value *= weight);
                    }
                    backprojector
                        .push_values(queue, &projection, *angle_deg)
                        .map_err(&failed)?;
                }
                backprojector.flush(queue).map_err(&failed)?;
                backprojector.snapshot(queue, 0, &mut slab).map_err(&failed)?;
                self.backproject_s += started.elapsed().as_secs_f64();
                let started = Instant::now();
                writer.write_slab(start, &slab[..(end - start) * width * width])?;
                self.write_s += started.elapsed().as_secs_f64();
                self.progress(end, pass + 1);
            }
        }
        Ok(projections.invalid_pixels)
    }

    /// Keeps `rows` of every projection that has an angle.
    fn read(
        &mut self,
        projections: &mut Projections,
        rows: std::ops::Range<usize>,
        sinograms: &mut [f32],
    ) -> Result<(), AfterwardsError> {
        let started = Instant::now();
        let (columns, count) = (self.stream.shape.columns, self.came.angles_deg.len());
        let (used, mut kept) = (&self.came.used, 0);
        projections.pass(self.place, |number, values| {
            if !used.get(number).copied().unwrap_or(false) || kept == count {
                return;
            }
            for row in rows.clone() {
                let to = ((row - rows.start) * count + kept) * columns;
                sinograms[to..to + columns].copy_from_slice(&values[row * columns..(row + 1) * columns]);
            }
            kept += 1;
        })?;
        self.read_s += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Says how far it is, and what it has cost so far tells how long the rest will take.
    fn progress(&self, rows_done: usize, passes_done: usize) {
        let rows = self.stream.shape.rows;
        let per_row = (self.backproject_s + self.write_s) / rows_done as f64;
        let per_pass = self.read_s / passes_done as f64;
        let left = per_row * (rows - rows_done) as f64 + per_pass * (self.plan.passes - passes_done) as f64;
        self.place.derived.progress(rows_done as u64, rows as u64, Some(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(rows: usize, columns: usize) -> StreamDescription {
        StreamDescription {
            origin: "test".into(),
            shape: Shape::new(rows, columns),
            pixel_type: frame::PixelType::U16,
            compression: frame::Compression::None,
            payload_bytes_max: rows * columns * 2,
            frames_expected: 1,
            darks: 0,
            flats: 0,
            angles_deg: Vec::new(),
            kinds: Vec::new(),
            pausable: true,
            parts: 0,
            saturation_value: None,
            mask: None,
            detector: Default::default(),
            metadata: Default::default(),
        }
    }

    #[test]
    fn a_large_scan_fits_six_gibibytes() {
        let plan = plan(6 << 30, &stream(2048, 2048), 1500, 2048, 128, false).unwrap();
        assert!(
            plan.bytes <= 6 << 30 && plan.rows_per_pass.is_multiple_of(16),
            "{plan:?}"
        );
        assert!(plan.passes <= 6, "{plan:?}");
    }

    #[test]
    fn a_small_scan_is_read_once_and_none_fits_nothing() {
        let stream = stream(40, 96);
        assert_eq!(plan(128 << 20, &stream, 120, 96, 128, false).unwrap().passes, 1);
        let refused = plan(64 << 20, &stream, 120, 96, 128, false).unwrap_err();
        assert!(refused.contains("at least"), "{refused}");
    }

    #[test]
    fn what_is_missing_is_said_and_weighted() {
        let (sample, lost) = (FrameKind::Sample, FrameKind::Invalid);
        let kinds = [FrameKind::Dark, sample, lost, sample, sample];
        let came = Came::new(&kinds, &[f64::NAN, 0.0, 1.0, 2.0, f64::NAN], &[], 180.0);
        assert_eq!((came.missing, came.without_angle, came.used.len()), (1, 1, 3));
        assert_eq!(came.weights, [1.0, 1.0]);
        assert_eq!(came.warnings().len(), 2);
    }
}
