//! Parameters of kernels that suit a device: chosen by a short measurement of the kernels themselves when the device is
//! opened, and kept for the next start beside the compiled programs.
//!
//! Every parameter says how work is cut into pieces, and nothing else: whole numbers come out the same whatever it is, and
//! floats are summed in pairs.

use crate::accelerator::{Accelerator, AcceleratorError, DeviceKind};
use crate::azimuthal::{AzimuthalConfig, AzimuthalEngine, AzimuthalGeometry, ErrorModel};
use crate::correction::{Correction, CorrectionConfig};
use crate::deadline::within;
use crate::host_memory::{HostPages, Queue};
use crate::program::{hash, keep, processor};
use crate::stager::{DeviceBatch, Stager};
use crate::statistics::{FrameStatistics, Statistics, StatisticsConfig};
use frame::{HostRegion, PixelMask, PixelType, Shape};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is measured with: so many frames of this shape, 16-bit pixels.
const SHAPE: Shape = Shape::new(512, 1024);
const FRAMES: usize = 16;
/// Every value is measured so often, one after the other; its best time counts.
const ROUNDS: usize = 5;
/// A value must be so much faster than the usual one to take its place: less is noise.
const WORTH: f64 = 0.95;
/// After this no further measurement is begun; one that runs is ended, and what was not measured stays as it is usual.
const BUDGET: Duration = Duration::from_millis(1500);
/// A device that has not ended its work by then is not waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// How kernels cut their work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// pixels that a work item of `correction`, `countrate` and `gain` takes of every frame, a multiple of 16
    pub tile_pixels: usize,
    /// pixels that a work item of `statistics` takes, at most 32768
    pub statistics_tile_pixels: usize,
    /// pieces that the curve without splitting cuts a frame into: for every compute unit of a CPU, in all elsewhere
    pub histogram_chunks: usize,
    /// bins of a curve by rows of the matrix that work items share a group for
    pub rows_group: usize,
}

/// Where a device's parameters come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TuningOrigin {
    /// nobody measured
    Usual,
    /// measured at this start
    Measured,
    /// measured at an earlier start
    Cached,
}

/// A device's parameters, and how they came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tuned {
    /// the parameters
    pub tuning: Tuning,
    /// where they come from
    pub origin: TuningOrigin,
    /// names of those that were measured, now or earlier; the others are as usual
    pub measured: Vec<String>,
    /// how long it took at this start, ms
    pub took_ms: u64,
    /// what somebody should know: a cache that was not used, a measurement that failed
    pub remarks: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    Tile,
    Statistics,
    Histogram,
    RowsGroup,
}

use Parameter::{Histogram, RowsGroup, Statistics as StatisticsTile, Tile};
const PARAMETERS: [Parameter; 4] = [Tile, StatisticsTile, Histogram, RowsGroup];

impl Parameter {
    fn name(self) -> &'static str {
        match self {
            Tile => "tile_pixels",
            StatisticsTile => "statistics_tile_pixels",
            Histogram => "histogram_chunks",
            RowsGroup => "rows_group",
        }
    }

    /// What it may be, the usual value first.
    const fn values(self, kind: DeviceKind) -> &'static [usize] {
        match (self, matches!(kind, DeviceKind::Cpu)) {
            (Tile, true) => &[4096, 1024, 16384],
            (Tile, false) => &[16, 64, 256],
            (StatisticsTile, true) => &[32768, 8192],
            (StatisticsTile, false) => &[32768, 8192, 2048],
            (Histogram, true) => &[4, 1, 2],
            (Histogram, false) => &[256, 512, 128],
            (RowsGroup, true) => &[1],
            (RowsGroup, false) => &[32, 64, 128],
        }
    }

    fn of(self, tuning: &mut Tuning) -> &mut usize {
        match self {
            Tile => &mut tuning.tile_pixels,
            StatisticsTile => &mut tuning.statistics_tile_pixels,
            Histogram => &mut tuning.histogram_chunks,
            RowsGroup => &mut tuning.rows_group,
        }
    }
}

impl Tuning {
    /// What is usual for a kind of device.
    pub fn usual(kind: DeviceKind) -> Self {
        Self {
            tile_pixels: Tile.values(kind)[0],
            statistics_tile_pixels: StatisticsTile.values(kind)[0],
            histogram_chunks: Histogram.values(kind)[0],
            rows_group: RowsGroup.values(kind)[0],
        }
    }
}

/// What the cache file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    device: String,
    driver: String,
    programs_sha256: String,
    tuning: Tuning,
    measured: Vec<String>,
}

impl Kept {
    fn of(accelerator: &Accelerator, tuned: &Tuned) -> Self {
        let info = accelerator.info();
        Self {
            device: format!("{}, {}", info.platform, info.name),
            driver: format!("{}, {}", info.driver, accelerator.platform_version()),
            programs_sha256: programs(accelerator),
            tuning: tuned.tuning,
            measured: tuned.measured.clone(),
        }
    }

    /// Why it is not for this device; `None`: it is.
    fn foreign(&self, now: &Kept, kind: DeviceKind) -> Option<String> {
        for (what, kept, here) in [
            ("device", &self.device, &now.device),
            ("driver", &self.driver, &now.driver),
            ("set of programs", &self.programs_sha256, &now.programs_sha256),
        ] {
            if kept != here {
                return Some(format!("it is of another {what} ({kept}, here {here})"));
            }
        }
        let mut tuning = self.tuning;
        for parameter in PARAMETERS {
            let value = *parameter.of(&mut tuning);
            if !parameter.values(kind).contains(&value) {
                return Some(format!("its {} is {value}", parameter.name()));
            }
        }
        None
    }
}

/// Hash of everything else that a measurement rests on: the sources, what may be chosen, and the processor.
fn programs(accelerator: &Accelerator) -> String {
    let kind = accelerator.info().kind;
    let choices = format!("{:?}", PARAMETERS.map(|parameter| parameter.values(kind)));
    let sources = [
        crate::correction::SOURCE,
        crate::statistics::SOURCE,
        crate::azimuthal::SOURCE,
        crate::azimuthal::ROWS_SOURCE,
    ];
    let processor = processor();
    hash(sources.into_iter().chain([&choices[..], &processor[..]]))
}

/// One file for each device; its driver and the rest are told by what is in it.
fn path(accelerator: &Accelerator) -> Option<PathBuf> {
    let info = accelerator.info();
    let folder = accelerator.config().cache_dir.as_ref()?;
    let name = hash([&info.platform[..], &info.name[..]]);
    Some(folder.join(format!("tuning-{}.json", &name[..16])))
}

impl Accelerator {
    /// The same device with the parameters that suit it: those of an earlier start, or measured now, within two seconds or so.
    /// Where neither is possible they are as usual, and the remarks say why.
    pub fn tuned(self) -> (Accelerator, Tuned) {
        self.tuned_within(BUDGET)
    }

    pub(crate) fn tuned_within(self, budget: Duration) -> (Accelerator, Tuned) {
        let began = Instant::now();
        let kind = self.info().kind;
        let mut tuned = Tuned {
            tuning: Tuning::usual(kind),
            origin: TuningOrigin::Usual,
            measured: Vec::new(),
            took_ms: 0,
            remarks: Vec::new(),
        };
        let path = path(&self);
        let text = path.as_ref().and_then(|path| std::fs::read(path).ok());
        if let (Some(path), Some(text)) = (&path, text) {
            let kept = serde_json::from_slice::<Kept>(&text).map_err(|error| format!("it is damaged: {error}"));
            let refused = match kept {
                Ok(kept) => match kept.foreign(&Kept::of(&self, &tuned), kind) {
                    Some(reason) => Some(reason),
                    None => {
                        (tuned.tuning, tuned.measured) = (kept.tuning, kept.measured);
                        tuned.origin = TuningOrigin::Cached;
                        None
                    }
                },
                Err(reason) => Some(reason),
            };
            if let Some(reason) = refused {
                let remark = format!("{} is not used, {reason}: measured again", path.display());
                tuned.remarks.push(remark);
            }
        }
        let left: Vec<Parameter> = PARAMETERS
            .into_iter()
            .filter(|parameter| parameter.values(kind).len() > 1)
            .filter(|parameter| tuned.measured.iter().all(|name| name != parameter.name()))
            .collect();
        if !left.is_empty() {
            let measured = within(LIMIT, || measure(&self, &left, began + budget, &mut tuned));
            if let Err(error) = measured {
                tuned.remarks.push(format!("the measurement failed: {error}"));
            }
            if let Some(path) = path.filter(|_| tuned.origin == TuningOrigin::Measured)
                && let Ok(text) = serde_json::to_vec_pretty(&Kept::of(&self, &tuned))
            {
                keep(&text, &path);
            }
        }
        tuned.took_ms = began.elapsed().as_millis() as u64;
        (self.with_tuning(tuned.tuning), tuned)
    }
}

/// An operation that is measured.
enum Trial {
    Correction(Box<Correction>),
    Statistics(Box<Statistics>, Vec<FrameStatistics>),
    Curve(Box<AzimuthalEngine>),
}

impl Trial {
    fn new(accelerator: &Accelerator, parameter: Parameter) -> Result<Self, AcceleratorError> {
        let (mask, pixel_type) = (PixelMask::none(SHAPE), PixelType::U16);
        Ok(match parameter {
            Tile => {
                let config = CorrectionConfig {
                    minus_log: false,
                    ..Default::default()
                };
                let made = Correction::new(accelerator, &config, SHAPE, pixel_type, &mask, FRAMES)?;
                Self::Correction(Box::new(made))
            }
            StatisticsTile => {
                let config = StatisticsConfig::default();
                let made = Statistics::new(accelerator, &config, SHAPE, pixel_type, &mask, FRAMES)?;
                Self::Statistics(Box::new(made), vec![FrameStatistics::default(); FRAMES])
            }
            Histogram | RowsGroup => {
                let radius = |pixel: usize| {
                    let (row, column) = (pixel / SHAPE.columns, pixel % SHAPE.columns);
                    f64::hypot(row as f64 - 255.5, column as f64 - 511.5)
                };
                let geometry = AzimuthalGeometry {
                    radial: (0..SHAPE.pixels()).map(radius).collect(),
                    scale: 1.0,
                    unit: "px".into(),
                    ..Default::default()
                };
                let mut config = AzimuthalConfig::new(geometry, 1000);
                if parameter == RowsGroup {
                    config.error_model = ErrorModel::Azimuthal;
                }
                let made = AzimuthalEngine::new(accelerator, &config, SHAPE, pixel_type, &mask, FRAMES)?;
                Self::Curve(Box::new(made))
            }
        })
    }

    /// Once over the batch; returns when the device is done.
    fn run(&mut self, queue: &Queue, batch: &DeviceBatch) -> Result<(), AcceleratorError> {
        match self {
            Self::Correction(operation) => operation.run(queue, batch).map(drop),
            Self::Statistics(operation, found) => operation.run(queue, batch, found),
            Self::Curve(operation) => operation.integrate_with(queue, batch, |_, _, _, _| {}),
        }
    }
}

/// Frames of a few counts a pixel, the same at every start.
fn frames(accelerator: &Accelerator) -> Result<Stager, AcceleratorError> {
    let bytes = SHAPE.pixels() * PixelType::U16.bytes();
    let slot = bytes.next_multiple_of(4096);
    let pages = Arc::new(HostPages::new(slot * FRAMES)?);
    let mut frame = vec![0u8; bytes];
    let mut state = 1u32;
    for number in 0..FRAMES {
        for pixel in frame.as_chunks_mut::<2>().0 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *pixel = ((state >> 28) as u16).to_le_bytes();
        }
        pages.fill(number * slot, &frame)?;
    }
    let region: Arc<dyn HostRegion> = pages;
    let mut stager = Stager::new(accelerator, region, bytes, FRAMES, false)?;
    stager.begin()?;
    for number in 0..FRAMES {
        stager.add_in_region(number * slot)?;
    }
    Ok(stager)
}

/// Measures these parameters, as many as there is time for.
fn measure(
    accelerator: &Accelerator,
    parameters: &[Parameter],
    end: Instant,
    tuned: &mut Tuned,
) -> Result<(), AcceleratorError> {
    let queue = accelerator.queue()?;
    let mut stager = frames(accelerator)?;
    let batch = stager.finish(&queue)?;
    let late = || Instant::now() >= end;
    let mut short = Vec::new();
    for parameter in parameters {
        let values = parameter.values(accelerator.info().kind);
        let mut trials = Vec::new();
        for value in values {
            if late() {
                break;
            }
            let mut tuning = tuned.tuning;
            *parameter.of(&mut tuning) = *value;
            let mut trial = Trial::new(&accelerator.with_tuning(tuning), *parameter)?;
            // Once beforehand: a first launch may compile.
            trial.run(&queue, batch)?;
            trials.push((*value, trial, Duration::MAX));
        }
        let mut rounds = 0;
        while rounds < ROUNDS && trials.len() == values.len() && !late() {
            for (_, trial, best) in &mut trials {
                let began = Instant::now();
                trial.run(&queue, batch)?;
                *best = began.elapsed().min(*best);
            }
            rounds += 1;
        }
        // Of fewer than three rounds noise would decide.
        if rounds < 3 {
            short.push(parameter.name());
            continue;
        }
        let usual = trials[0].2.as_secs_f64();
        let mut best = (trials[0].0, usual * WORTH);
        for (value, _, time) in &trials[1..] {
            if time.as_secs_f64() < best.1 {
                best = (*value, time.as_secs_f64());
            }
        }
        *parameter.of(&mut tuned.tuning) = best.0;
        tuned.measured.push(parameter.name().into());
        tuned.origin = TuningOrigin::Measured;
    }
    if !short.is_empty() {
        let names = short.join(", ");
        tuned.remarks.push(format!(
            "there was no time to measure {names}: as usual, and measured at the next start"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "tuning_tests.rs"]
mod tests;
