//! `volume`: every slice, when the run is closed, within a configured memory.
//!
//! ```text
//! for as many rows as the memory holds:        a pass
//!     every projection: read, correct, keep these rows            slabs [projection][column][16 rows]
//!     16 rows at a time: remove stripes, reconstruct, write       a slab [16 slices][y][x]
//! ```
//!
//! Where all of the volume fits that memory it is begun while the run records; see [`super::growing`].
//!
//! Projections are taken in the order of frames, as they were live, so that the same files and parameters give the same
//! bits. A pass reads all frames again: for 1500 projections of 2048 columns that costs a small share of the
//! back-projection of the rows that it brings.

use super::super::findings::Findings;
use super::super::{RecipeError, Setup};
use super::correct::CorrectParameters;
use super::growing::{Feed, Growing, GrowingConfig, Grown};
use super::methods::{self, Job, Method, Reconstructor};
use super::plan::{Plan, Size, cores};
use super::projections::{self, Moments, Projections};
use super::stripes::{self, Stripes};
use super::volume_parameters::VolumeParameters;
use super::weights::Came;
use crate::afterwards::{Afterwards, AfterwardsError, Place};
use crate::config::RecipeConfig;
use crate::storage::{self, RunEnd, RunInfo, SLAB_SLICES, VolumeConfig, VolumeWriter};
use driver::source::FrameSource;
use driver::tracker::FrameState;
use frame::{FrameKind, PixelMask, Shape, StreamDescription};
use kernels::{Accelerator, Filter, HalfAcquisition, Invalid, Stitching, StripeMethod};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

pub(super) const NAME: &str = "volume";
/// Share of pixels without a valid transmission that is worth a warning.
const INVALID_SHARE: f64 = 0.01;

/// When darks and flats were taken, where that makes a difference.
fn moments_of(kinds: &[FrameKind], correct: &CorrectParameters) -> Option<Moments> {
    let moments = correct.interpolate.then(|| Moments::of(kinds));
    moments.filter(Moments::several)
}

/// Of every frame of a closed run, whether it lacks parts of itself; empty for a file without a ledger, which is not ours.
fn partial_frames(raw: &Path) -> Vec<bool> {
    let partial = |state: &u8| *state == FrameState::Partial as u8;
    storage::read_ledger(raw).map_or_else(
        |_| Vec::new(),
        |columns| columns.frame_state.iter().map(partial).collect(),
    )
}

/// How projections of a half acquisition become those that a method takes.
enum Half {
    /// each by itself on a wide detector
    Placed(HalfAcquisition),
    /// two to a whole one, for methods that iterate
    Stitched(Stitching),
}

impl Half {
    fn slab(&self, slab: &[f32], wide: &mut [f32]) -> Result<(), Invalid> {
        match self {
            Half::Placed(half) => half.place_slab(slab, wide),
            Half::Stitched(stitching) => stitching.stitch_slab(slab, wide),
        }
    }
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
    /// how many darks and flats the run's own projections were corrected with
    fields_used: Arc<[AtomicU64; 2]>,
    /// where it is begun while the run records
    growing: Option<Growing>,
}

/// What a volume takes from its recipe.
pub(super) struct VolumeSetup<'a> {
    pub(super) setup: &'a Setup<'a>,
    pub(super) parameters: VolumeParameters,
    pub(super) correct: CorrectParameters,
    pub(super) mask: PixelMask,
    pub(super) filter: Filter,
    pub(super) half_acquisition: bool,
    /// of a slice, the widest that the axis may lead to
    pub(super) width: usize,
    pub(super) axis: Arc<AtomicU64>,
    /// whether the axis may be found while the run records
    pub(super) searches: bool,
    pub(super) planned_deg: Vec<f64>,
    pub(super) fields_used: Arc<[AtomicU64; 2]>,
    /// the run, once it is armed
    pub(super) found: Arc<Findings>,
}

impl Volume {
    /// Checks that it will fit its memory. Where it can be begun while the run records, says what takes the projections.
    pub(super) fn new(from: VolumeSetup<'_>) -> Result<(Self, Option<Feed>), RecipeError> {
        let (setup, parameters) = (from.setup, &from.parameters);
        let (samples, width) = (setup.stream.samples() as usize, from.width);
        let method = parameters
            .method
            .chosen(setup.accelerator, width, samples, parameters.gridrec_from);
        let wrong = |expected: String| Err(setup.wrong(NAME, "method", format!("{:?}", method.name()), expected));
        // Two projections of a half acquisition make a whole one.
        let stitched = from.half_acquisition && !method.linear();
        let taken = if stitched { samples.div_ceil(2) } else { samples };
        let known: Vec<f64> = from
            .planned_deg
            .iter()
            .copied()
            .filter(|angle| angle.is_finite())
            .collect();
        // The angles of the second half of a half acquisition are those of the first, half a turn later.
        let first = |angle: &f64| !stitched || angle - known[0] < 180.0 - 1e-6;
        let lines: Vec<f64> = known.iter().copied().filter(first).collect();
        if method == Method::Sloped
            && known.len() == samples
            && let Err(expected) = methods::lines(&lines, taken)
        {
            return wrong(expected);
        }
        let moments = moments_of(&setup.stream.kinds, &from.correct).map_or(0, |moments| moments.count());
        let size = Size {
            stream: setup.stream,
            projections: samples,
            taken,
            width,
            preview: parameters.preview,
            phase: from.correct.phase.is_some(),
            moments,
            method,
            stripes: !parameters.stripes.is_empty(),
            cores: cores(),
        };
        size.plan(parameters.memory_mib << 20)
            .map_err(|expected| setup.wrong(NAME, "memory_mib", parameters.memory_mib, expected))?;
        let mut behind = setup.stream.kinds.iter().skip_while(|kind| **kind != FrameKind::Sample);
        // Memory of an earlier volume that is being made is not there for this one.
        let grows = parameters.while_recording
            && method == Method::Backprojection
            && parameters.stripes.is_empty()
            && !behind.any(|kind| matches!(kind, FrameKind::Dark | FrameKind::Flat))
            && !from.searches
            && !setup.derived_busy;
        // A device's own memory is also for live results, and for the next run, which is armed while this volume is written.
        let device = setup.accelerator.info();
        let fits = |bytes: usize| device.shares_host_memory || bytes as u64 <= device.global_bytes / 2;
        let growing = size.growing(parameters.memory_mib << 20);
        let growing = match growing.filter(|(_, bytes)| grows && fits(*bytes)) {
            Some((places, _)) => {
                let config = GrowingConfig {
                    shape: setup.stream.shape,
                    axis_px: f64::from_bits(from.axis.load(Relaxed)),
                    half_acquisition: from.half_acquisition,
                    filter: from.filter,
                    planned_deg: from.planned_deg.clone(),
                    places,
                    found: from.found,
                };
                Some(Growing::begin(setup.accelerator, config)?)
            }
            None => None,
        };
        let (growing, feed) = growing.unzip();
        let volume = Self {
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
            fields_used: from.fields_used,
            growing,
        };
        Ok((volume, feed))
    }
}

impl Afterwards for Volume {
    fn name(&self) -> &'static str {
        NAME
    }

    fn definition(&self) -> &'static str {
        "NXtomoproc"
    }

    fn run(mut self: Box<Self>, place: &Place<'_>) -> Result<Value, AfterwardsError> {
        let source = projections::open(place.raw)?;
        let stream = source.stream().clone();
        let (mut kinds, angles_deg) = storage::read_tomography_columns(place.raw)?;
        // A frame that lacks parts of itself counts as one that never came.
        let mut in_part = 0;
        for (_, kind) in partial_frames(place.raw)
            .iter()
            .zip(&mut kinds)
            .filter(|(partial, _)| **partial)
        {
            *kind = FrameKind::Invalid;
            in_part += 1;
        }
        let came = Came::new(
            &kinds,
            &angles_deg,
            &self.planned_deg,
            if self.half_acquisition { 360.0 } else { 180.0 },
        );
        let axis_px = f64::from_bits(self.axis.load(Relaxed));
        let columns = stream.shape.columns;
        let half = self.half_acquisition.then(|| HalfAcquisition::new(columns, axis_px));
        let half = half.transpose().map_err(RecipeError::frames(NAME))?;
        let width = half.as_ref().map_or(columns, HalfAcquisition::wide_columns);
        let wide_axis_px = half.as_ref().map_or(axis_px, HalfAcquisition::wide_axis_px);
        let mut job = self.job(place.accelerator, &came, width)?;
        job.axis_px = wide_axis_px;
        let half = match half {
            Some(half) if !job.method.linear() => {
                let stitching = Stitching::new(half, &came.angles_deg).map_err(RecipeError::frames(NAME))?;
                job.angles_deg = stitching.angles_deg().to_vec();
                job.weights = vec![1.0; job.angles_deg.len()];
                Some(Half::Stitched(stitching))
            }
            half => half.map(Half::Placed),
        };
        let planned = match half {
            Some(Half::Stitched(_)) => came.planned().div_ceil(2),
            _ => came.planned(),
        };
        let lines = match job.method {
            Method::Sloped => methods::lines(&job.angles_deg, planned).map_err(RecipeError::frames(NAME))?,
            _ => Vec::new(),
        };
        let moments = moments_of(&kinds, &self.correct);
        let size = Size {
            stream: &stream,
            projections: came.angles_deg.len(),
            taken: job.angles_deg.len(),
            width,
            preview: self.parameters.preview,
            phase: self.correct.phase.is_some(),
            moments: moments.as_ref().map_or(0, Moments::count),
            method: job.method,
            stripes: !self.parameters.stripes.is_empty(),
            cores: cores(),
        };
        let (plan, threads) = size
            .plan(self.parameters.memory_mib << 20)
            .map_err(AfterwardsError::Memory)?;
        (job.threads, job.lines) = (threads, lines);
        let mut info = place.info.clone();
        info.parameters = json!({
            "recipe": self.recipe, "correct": self.correct, "volume": self.parameters, "method": job.method.name(),
            "iterations": job.iterations, "nonnegative": job.nonnegative, "support_px": job.support_px,
            "filter": format!("{:?}", self.filter), "rotation_axis_px": axis_px,
            "projections": came.angles_deg.len(), "projections_missing": came.missing, "batch": SLAB_SLICES, "half_acquisition": self.half_acquisition,
        });
        let fields = [FrameKind::Dark, FrameKind::Flat];
        let fields = fields.map(|kind| kinds.iter().filter(|of| **of == kind).count() as u64);
        let fields_used = self.fields_used.each_ref().map(|used| used.load(Relaxed));
        let grown = self.growing.take().map(|growing| {
            place.derived.progress(0, stream.shape.rows as u64, None);
            let mut grown = growing.grown(axis_px, place.accelerator)?;
            if fields_used != fields {
                return Err("projections were corrected with other darks or flats than are stored".into());
            }
            if job.method != Method::Backprojection {
                return Err(format!("the method is {}", job.method.name()));
            }
            grown.settle(&came, place)?;
            Ok::<_, String>(grown)
        });
        place.give_way()?;
        let (mut grown, not_grown) = match grown {
            Some(Ok(grown)) => (Some(grown), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let while_recording = grown.as_ref().map(Grown::projections);
        let plan = match (&grown, size.growing(self.parameters.memory_mib << 20)) {
            (Some(_), Some((_, bytes))) => Plan {
                rows_per_pass: stream.shape.rows,
                passes: usize::from(while_recording < Some(came.frames.len())),
                bytes,
            },
            _ => plan,
        };
        let mut writer = self.writer(place, &info, &stream, width)?;
        let mut work = Work {
            volume: &self,
            place,
            came: &came,
            job,
            half,
            plan,
            stream: &stream,
            unexplained: None,
            read_s: 0.0,
            stripes_s: 0.0,
            reconstruct_s: 0.0,
            summed_s: 0.0,
            write_s: 0.0,
        };
        let made = match &mut grown {
            Some(grown) => work.grow_on(grown, source, &mut writer),
            None => work.slabs(source, moments, &mut writer),
        };
        let invalid = match made {
            Ok(invalid) => invalid,
            Err(error) => {
                writer.fail(&error.to_string());
                return Err(error);
            }
        };
        let mut warnings = came.warnings();
        if in_part > 0 {
            warnings.push(format!("{in_part} frames lack parts of themselves and were left out"));
        }
        let share = invalid as f64 / (plan.passes.max(1) * came.used.len().max(1) * stream.shape.pixels()) as f64;
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
            "method": work.job.method.name(), "unexplained": work.unexplained,
            "while_recording": { "projections": while_recording.unwrap_or(0), "not_used": not_grown },
            "passes": plan.passes, "rows_per_pass": plan.rows_per_pass, "memory_bytes": plan.bytes,
            "seconds": { "read": work.read_s, "stripes": work.stripes_s, "reconstruct": work.reconstruct_s,
                "write": work.write_s },
            "warnings": warnings,
        });
        let end = RunEnd {
            state: "complete".into(),
            end_time: jiff::Timestamp::now(),
            counts: json!({ "expected": came.missing + came.used.len(), "complete": came.used.len(), "lost": came.missing }),
            summary: summary.clone(),
            metadata: Vec::new(),
            grid: None,
        };
        let files = writer.finish(end, warnings)?;
        let mut summary = summary;
        summary["files"] = files.iter().map(|path| path.display().to_string()).collect();
        Ok(summary)
    }
}

impl Volume {
    /// What all slabs have in common, but for the axis, threads, lines of equally sloped tomography, and that projections of a
    /// half acquisition may be stitched.
    fn job(&self, accelerator: &Accelerator, came: &Came, width: usize) -> Result<Job, RecipeError> {
        let parameters = &self.parameters;
        let count = came.angles_deg.len();
        if count == 0 {
            return Err(RecipeError::frames(NAME)(
                "no projection came, so there is nothing to make a volume of",
            ));
        }
        // By what was planned: what was lost on the way chooses no other method.
        let method = parameters
            .method
            .chosen(accelerator, width, came.planned(), parameters.gridrec_from);
        Ok(Job {
            method,
            width,
            axis_px: 0.0,
            angles_deg: came.angles_deg.clone(),
            weights: came.weights.clone(),
            filter: self.filter,
            iterations: parameters.iterations.unwrap_or(method.iterations()),
            nonnegative: parameters.nonnegative.unwrap_or(method == Method::Sloped),
            flat: parameters.flat,
            support_px: parameters.support_px.unwrap_or(width as f64 / 2.0),
            lines: Vec::new(),
            threads: 1,
        })
    }

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
    job: Job,
    half: Option<Half>,
    plan: Plan,
    stream: &'a StreamDescription,
    /// largest share of a slab's projections that the slices do not explain, where the method tells
    unexplained: Option<f64>,
    read_s: f64,
    stripes_s: f64,
    reconstruct_s: f64,
    /// of it, what was not done slab by slab
    summed_s: f64,
    write_s: f64,
}

impl Work<'_> {
    /// What reads and corrects the projections.
    fn projections(
        &self,
        source: driver::replay::Replay,
        moments: Option<Moments>,
    ) -> Result<Projections, AfterwardsError> {
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
            derived_busy: true,
        };
        let correct = volume.correct.clone();
        Projections::new(&setup, source, correct, &volume.mask, accelerator, moments)
    }

    /// Adds what was not summed while the run recorded, and writes every slab; returns how many pixels had no valid transmission.
    fn grow_on(
        &mut self,
        grown: &mut Grown,
        source: driver::replay::Replay,
        writer: &mut VolumeWriter,
    ) -> Result<u64, AfterwardsError> {
        let (place, came) = (self.place, self.came);
        let (rows, width) = (self.stream.shape.rows, self.job.width);
        let mut invalid = grown.invalid_pixels();
        let give_way = || {
            let _ = place.give_way();
        };
        let summed = grown.projections();
        if summed < came.frames.len() {
            let mut projections = self.projections(source, None)?;
            let (mut kept, started) = (0, Instant::now());
            let mut summing_s = 0.0;
            projections.pass(place, |number, values| {
                if !came.used.get(number).copied().unwrap_or(false) || kept == came.frames.len() {
                    return Ok(());
                }
                kept += 1;
                if kept <= summed {
                    return Ok(());
                }
                let started = Instant::now();
                let (angle_deg, weight) = (came.angles_deg[kept - 1], came.weights[kept - 1]);
                grown.add(values, angle_deg, weight, &give_way)?;
                summing_s += started.elapsed().as_secs_f64();
                place.give_way()
            })?;
            self.read_s += started.elapsed().as_secs_f64() - summing_s;
            (self.reconstruct_s, self.summed_s) = (summing_s, summing_s);
            invalid = projections.invalid_pixels;
        }
        grown.flush(&give_way)?;
        place.give_way()?;
        let mut slices = vec![0.0_f32; SLAB_SLICES * width * width];
        for (number, start) in (0..rows).step_by(SLAB_SLICES).enumerate() {
            let end = (start + SLAB_SLICES).min(rows);
            let started = Instant::now();
            grown.slices(number, &mut slices, self.job.threads)?;
            self.reconstruct_s += started.elapsed().as_secs_f64();
            place.give_way()?;
            let started = Instant::now();
            writer.write_slab(start, &slices[..(end - start) * width * width])?;
            self.write_s += started.elapsed().as_secs_f64();
            self.progress(end, self.plan.passes);
        }
        Ok(invalid)
    }

    /// Makes and writes every slab; returns how many pixels had no valid transmission, over all passes.
    fn slabs(
        &mut self,
        source: driver::replay::Replay,
        moments: Option<Moments>,
        writer: &mut VolumeWriter,
    ) -> Result<u64, AfterwardsError> {
        let Shape { rows, columns } = self.stream.shape;
        let (volume, accelerator) = (self.volume, self.place.accelerator);
        let mut projections = self.projections(source, moments)?;
        let mut reconstructor = Reconstructor::new(accelerator, projections.queue(), &self.job)?;
        let methods = volume.parameters.stripes.iter().map(Stripes::method);
        let methods: Vec<StripeMethod> = methods.collect::<Result<_, _>>().map_err(RecipeError::frames(NAME))?;
        let (count, width) = (self.came.angles_deg.len(), self.job.width);
        // [slab][projection][column][16 rows]
        let slab_values = count * columns * SLAB_SLICES;
        let mut sinograms = vec![0.0_f32; self.plan.rows_per_pass.div_ceil(SLAB_SLICES) * slab_values];
        let taken = self.half.as_ref().map_or(0, |_| self.job.angles_deg.len());
        let mut wide = vec![0.0_f32; taken * width * SLAB_SLICES];
        let mut slices = vec![0.0_f32; SLAB_SLICES * width * width];
        self.place.derived.progress(0, rows as u64, None);
        for pass in 0..self.plan.passes {
            let first = pass * self.plan.rows_per_pass;
            let last = (first + self.plan.rows_per_pass).min(rows);
            self.read(&mut projections, first..last, &mut sinograms)?;
            let slabs = sinograms.chunks_exact_mut(slab_values);
            for (start, slab) in (first..last).step_by(SLAB_SLICES).zip(slabs) {
                let end = (start + SLAB_SLICES).min(last);
                self.remove_stripes(&methods, slab, end - start)?;
                let started = Instant::now();
                let slab = match &self.half {
                    Some(half) => {
                        half.slab(slab, &mut wide).map_err(RecipeError::frames(NAME))?;
                        &wide[..]
                    }
                    None => &*slab,
                };
                let (place, queue) = (self.place, projections.queue());
                place.give_way()?;
                let go_on = || place.give_way().is_ok();
                let unexplained = reconstructor.run(queue, &self.job, slab, &mut slices, end - start, &go_on)?;
                place.give_way()?;
                self.unexplained = unexplained.into_iter().chain(self.unexplained).reduce(f64::max);
                self.reconstruct_s += started.elapsed().as_secs_f64();
                let started = Instant::now();
                writer.write_slab(start, &slices[..(end - start) * width * width])?;
                self.write_s += started.elapsed().as_secs_f64();
                self.progress(end, pass + 1);
            }
        }
        Ok(projections.invalid_pixels)
    }

    fn remove_stripes(
        &mut self,
        methods: &[StripeMethod],
        slab: &mut [f32],
        rows: usize,
    ) -> Result<(), AfterwardsError> {
        if methods.is_empty() {
            return Ok(());
        }
        self.place.give_way()?;
        let started = Instant::now();
        let (columns, threads) = (self.stream.shape.columns, self.job.threads);
        let go_on = || self.place.give_way().is_ok();
        stripes::remove(methods, slab, columns, rows, &self.came.angles_deg, threads, go_on)
            .map_err(RecipeError::frames(NAME))?;
        self.place.give_way()?;
        self.stripes_s += started.elapsed().as_secs_f64();
        Ok(())
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
                return Ok(());
            }
            for row in rows.clone() {
                let (slab, lane) = ((row - rows.start) / SLAB_SLICES, (row - rows.start) % SLAB_SLICES);
                let to = (slab * count + kept) * columns * SLAB_SLICES;
                let places = sinograms[to + lane..].iter_mut().step_by(SLAB_SLICES);
                let line = &values[row * columns..(row + 1) * columns];
                places.zip(line).for_each(|(place, value)| *place = *value);
            }
            kept += 1;
            Ok(())
        })?;
        self.read_s += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Says how far it is, and what it has cost so far tells how long the rest will take.
    fn progress(&self, rows_done: usize, passes_done: usize) {
        let rows = self.stream.shape.rows;
        let per_row = (self.stripes_s + self.reconstruct_s - self.summed_s + self.write_s) / rows_done as f64;
        let per_pass = self.read_s / passes_done.max(1) as f64;
        let left = per_row * (rows - rows_done) as f64 + per_pass * (self.plan.passes - passes_done) as f64;
        self.place.derived.progress(rows_done as u64, rows as u64, Some(left));
    }
}
