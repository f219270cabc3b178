//! Operations that turn raw pixels into others, which those behind them read: `gain`, a JUNGFRAU's words to photons, and
//! `countrate`, what counters missed while they were busy. The files keep the raw pixels.

use super::super::files::NamedFile;
use super::super::findings::Findings;
use super::super::{Batch, Counter, Level, Operation, Prepared, RecipeError, Setup, Site, Snapshot, fields};
use super::stored;
use crate::calibrations::{CalibrationKind, CalibrationRecord, HC_EV_M};
use crate::config::ConfigError;
use driver::clock::monotonic_ns;
use frame::{FrameKind, FrameResult, Image, PixelMask, PixelType, Shape, StreamDescription};
use kernels::gain::{Drift, GAINS, Tracking};
use kernels::{AdaptiveGain, CountRate, CountRateConfig, DeadTime, GainConfig, Queue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What `gain` adds to the results.
pub(super) const GAIN_SCALARS: [&str; 4] = [
    "wrong_gain_pixels",
    "gain_saturated_pixels",
    "gain1_pixels",
    "gain2_pixels",
];
/// What it adds where pedestals follow the frames.
pub(super) const FOLLOW_SCALAR: &str = "pedestal_pixels";
/// What `countrate` adds to the results.
pub(super) const COUNTRATE_SCALAR: &str = "countrate_saturated_pixels";

/// `[recipe.NAME.gain]`: a JUNGFRAU's words to photons.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GainParameters {
    /// Pedestals, ADU: three files for G0, G1 and G2, or one of three planes; `.npy`, `.bin`, or HDF5 as `FILE::/path`. The
    /// newest ones of the store unless given.
    pub pedestals: Vec<NamedFile>,
    /// Gains, ADU/keV: one file of 3 planes (G0, G1, G2) or 6 (then those of high gain). The newest one of the store unless
    /// given.
    pub gains: Option<NamedFile>,
    /// Gains of every pixel in G0, G1 and G2, ADU/keV, where no pixel's own are known, as in [41.0, -1.439, -0.1145].
    pub nominal_gains_adu_per_kev: Option<[f64; 3]>,
    /// The detector is set to high gain: G0 is the fourth of six planes of gains.
    pub high_gain: bool,
    /// Energy of a photon, keV; by the source's wavelength unless given.
    pub energy_kev: Option<f64>,
    /// Round to whole photons.
    pub round: bool,
    /// Share the photons of the large pixels between chips among the places that they cover: 512 × 1024 pixels of a module
    /// become 514 × 1030. Masks, darks, flats and geometry are then of that shape.
    pub split_pixels: bool,
    /// Pedestals of G0 follow the frames: words that a pedestal looks back on (2 to 16777216). Off unless given. Frames then
    /// go in their order through one worker.
    pub track_window: Option<u32>,
    /// Photons, above or below its pedestal, within which a word of G0 counts as one without photons (up to 0.5; 0.25 unless
    /// given). Every word of frames that are marked as dark counts.
    pub track_within_photons: Option<f64>,
}

/// See [`GainParameters::track_within_photons`].
const WITHIN_PHOTONS: f64 = 0.25;

impl GainParameters {
    fn tracking(&self) -> Option<Tracking> {
        self.track_window.map(|window| Tracking {
            window,
            within_photons: self.track_within_photons.unwrap_or(WITHIN_PHOTONS),
        })
    }

    /// Whether a frame's photons rest on the frames before it.
    pub(super) fn ordered(&self) -> bool {
        self.track_window.is_some()
    }

    /// Checks what needs no frames.
    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, value: String, expected: &str| {
            Err(ConfigError::value(format!("recipe.{name}.gain.{key}"), value, expected))
        };
        match (self.track_window, self.track_within_photons) {
            (Some(window), _) if !(2..=1 << 24).contains(&window) => {
                wrong("track_window", window.to_string(), "2 to 16777216")
            }
            (_, Some(within)) if !(within > 0.0 && within <= 0.5) => {
                wrong("track_within_photons", within.to_string(), "above 0, at most 0.5")
            }
            (None, Some(within)) => {
                let expected = "pedestals do not follow the frames: give track_window, too";
                wrong("track_within_photons", within.to_string(), expected)
            }
            _ => Ok(()),
        }
    }
}

/// `[recipe.NAME.countrate]`: what counters missed while they were busy. Does nothing where the detector corrected for it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CountRateParameters {
    /// Dead time of a counter, ns. Without, the table that the detector sends is used.
    pub dead_time_ns: Option<f64>,
    /// A count that comes while the counter is busy makes that last longer. EIGER2's retriggering counters are not so.
    pub paralyzable: bool,
    /// Exposure of a frame, seconds; what the source says unless given.
    pub exposure_s: Option<f64>,
}

/// What the operations of each worker are made from.
pub(super) enum Conversion {
    Gain(Box<GainConfig>),
    CountRate(Box<CountRateConfig>, PixelMask),
}

/// A conversion, and the frames that come out of it.
pub(super) struct ConversionPlan {
    conversion: Conversion,
    /// the frames that come out
    pub(super) stream: StreamDescription,
    /// mask of the raw frames
    pub(super) raw_mask: PixelMask,
    /// calibrations of the store that it uses
    pub(super) used: Vec<CalibrationRecord>,
    /// the results' first place
    first: usize,
    wrong: Option<Counter>,
    saturated: Counter,
    follow: Option<Follow>,
}

/// Where it is told how the pedestals follow the frames.
#[derive(Clone)]
struct Follow {
    /// the result's place for words that moved a pedestal
    scalar: usize,
    /// the picture's place among those of the run
    image: usize,
    /// frames so far
    frames: Counter,
    words: Counter,
    mean_adu: Level,
    largest_adu: Level,
    drifted: Level,
    found: Arc<Findings>,
}

impl Follow {
    fn plan(setup: &Setup<'_>, prepared: &mut Prepared) -> Self {
        prepared.snapshot.images.push(Image {
            name: "pedestal_drift".into(),
            shape: setup.stream.shape,
            unit: "ADU".into(),
            values: vec![0.0; setup.stream.shape.pixels()],
            frames_used: 0,
            frames_expected: setup.stream.frames_expected,
        });
        Self {
            scalar: prepared.layout.scalar(FOLLOW_SCALAR, ""),
            image: prepared.snapshot.images.len() - 1,
            frames: Counter::default(),
            words: prepared.counter("pedestal_words"),
            mean_adu: prepared.level("pedestal_drift_mean_adu"),
            largest_adu: prepared.level("pedestal_drift_largest_adu"),
            drifted: prepared.level("pedestal_drifted_pixels"),
            found: prepared.found.clone(),
        }
    }

    /// At the end: whether somebody should take new pedestals.
    fn judge(&self, drift: &Drift) {
        if 2 * drift.drifted_pixels > drift.pixels {
            self.found.warn(format!(
                "gain: pedestals of G0 have moved by {:.1} ADU on average while the run measured, those of {} of {} pixels by \
                 more than {} photons, which the run has followed: take new ones",
                drift.mean_adu,
                drift.drifted_pixels,
                drift.pixels,
                kernels::gain::DRIFTED_PHOTONS
            ));
        }
    }
}

/// Frames of `raw` as f32.
fn converted(raw: &StreamDescription, shape: Shape, mask: PixelMask) -> StreamDescription {
    let pixel_type = PixelType::F32;
    StreamDescription {
        shape,
        pixel_type,
        saturation_value: Some(kernels::gain::saturation(pixel_type)),
        mask: Some(mask),
        // What is missing is no number any more.
        parts: 0,
        ..raw.clone()
    }
}

/// Plans the conversion of adaptive gain.
pub(super) fn plan_gain(
    setup: &Setup<'_>,
    parameters: &GainParameters,
    prepared: &mut Prepared,
) -> Result<ConversionPlan, RecipeError> {
    const NAME: &str = "gain";
    let (stream, mut used) = (setup.stream, Vec::new());
    if stream.pixel_type != PixelType::U16 {
        let reason = format!(
            "it converts 16-bit words of a JUNGFRAU, the frames are {}: take the operation out of the recipe",
            stream.pixel_type.numpy_name()
        );
        return Err(RecipeError::frames(NAME)(reason));
    }
    let by_wavelength = || {
        stream
            .detector
            .wavelength_m
            .filter(|length| *length > 0.0)
            .map(|m| HC_EV_M / m / 1e3)
    };
    let energy_kev = parameters.energy_kev.or_else(by_wavelength).ok_or_else(|| {
        setup.wrong(
            NAME,
            "energy_kev",
            "(missing)",
            "the source does not say the wavelength: give the photon energy",
        )
    })?;
    let pedestals = pedestals(setup, parameters, &mut used)?;
    let gains = gains(setup, parameters, &mut used)?;
    let config = GainConfig {
        pedestals,
        gains,
        energy_kev,
        output: PixelType::F32,
        round: parameters.round,
        split: parameters.split_pixels,
        track: parameters.tracking(),
    };
    // Made once to see whether everything fits, and which pixels it cannot convert.
    let trial = AdaptiveGain::new(setup.accelerator, &config, stream.shape, 1).map_err(RecipeError::device(NAME))?;
    let mut raw_mask = stream.mask.clone().unwrap_or_else(|| PixelMask::none(stream.shape));
    raw_mask.merge(trial.unusable()).map_err(RecipeError::frames(NAME))?;
    let mask = trial
        .map()
        .map_or_else(|| raw_mask.clone(), |map| map.spread_mask(&raw_mask));
    let first = prepared.layout.scalars.len();
    for name in GAIN_SCALARS {
        prepared.layout.scalar(name, "");
    }
    let follow = parameters.ordered().then(|| Follow::plan(setup, prepared));
    Ok(ConversionPlan {
        stream: converted(stream, trial.shape(), mask),
        conversion: Conversion::Gain(Box::new(config)),
        raw_mask,
        used,
        first,
        wrong: Some(prepared.counter("pixels_in_error")),
        saturated: prepared.counter("pixels_saturated"),
        follow,
    })
}

/// Three planes of the frame's shape.
fn planes(setup: &Setup<'_>, key: &str, path: &NamedFile, counts: &[usize]) -> Result<(usize, Vec<f64>), RecipeError> {
    let shape = setup.stream.shape;
    let wrong = |expected: String| setup.wrong("gain", key, path.display(), expected);
    let (sizes, values) = fields::read_planes(&setup.path(path)).map_err(wrong)?;
    let (planes, rows, columns) = match sizes[..] {
        [rows, columns] => (1, rows, columns),
        [planes, rows, columns] => (planes, rows, columns),
        _ => (0, 0, 0),
    };
    if !counts.contains(&planes) || Shape::new(rows, columns) != shape {
        let expected = format!("its sizes are {sizes:?}, expected {counts:?} planes of the frames' {shape} pixels");
        return Err(wrong(expected));
    }
    Ok((planes, values))
}

fn pedestals(
    setup: &Setup<'_>,
    parameters: &GainParameters,
    used: &mut Vec<CalibrationRecord>,
) -> Result<[Vec<f32>; GAINS], RecipeError> {
    let single = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
    let pixels = setup.stream.shape.pixels();
    let mut all = [const { Vec::new() }; GAINS];
    match &parameters.pedestals[..] {
        [] => {
            for (gain, plane) in all.iter_mut().enumerate() {
                let number = Some(gain as u8);
                let found = stored::array(setup, "gain", CalibrationKind::Pedestal, setup.stream.shape, number)?;
                let Some(found) = found else {
                    let expected = format!(
                        "the store has no pedestal of G{gain} for {} pixels that holds now: name files, or take or upload \
                         one with POST /calibrations/pedestal",
                        setup.stream.shape
                    );
                    return Err(setup.wrong("gain", "pedestals", "(missing)", expected));
                };
                *plane = single(&found.content.1);
                used.push(found.record);
            }
        }
        [one] => {
            let (_, values) = planes(setup, "pedestals", one, &[3])?;
            all.iter_mut()
                .zip(values.chunks_exact(pixels))
                .for_each(|(plane, values)| *plane = single(values));
        }
        [_, _, _] => {
            for (plane, path) in all.iter_mut().zip(&parameters.pedestals) {
                *plane = single(&planes(setup, "pedestals", path, &[1])?.1);
            }
        }
        several => {
            let expected = "three files for G0, G1 and G2, or one of three planes";
            return Err(setup.wrong("gain", "pedestals", format!("{} files", several.len()), expected));
        }
    }
    Ok(all)
}

fn gains(
    setup: &Setup<'_>,
    parameters: &GainParameters,
    used: &mut Vec<CalibrationRecord>,
) -> Result<[Vec<f64>; GAINS], RecipeError> {
    let pixels = setup.stream.shape.pixels();
    let (planes, values) = match (&parameters.gains, parameters.nominal_gains_adu_per_kev) {
        (Some(path), _) => planes(setup, "gains", path, &[3, 6])?,
        (None, Some(nominal)) => return Ok(nominal.map(|gain| vec![gain; pixels])),
        (None, None) => match stored::array(setup, "gain", CalibrationKind::Gain, setup.stream.shape, None)? {
            Some(found) => {
                used.push(found.record);
                (found.content.0[0], found.content.1)
            }
            None => {
                let expected = "the store has no gains that fit: name a file, upload one with POST /calibrations/gain, or \
                                give nominal_gains_adu_per_kev";
                return Err(setup.wrong("gain", "gains", "(missing)", expected));
            }
        },
    };
    if parameters.high_gain && planes != 6 {
        let expected = "the gains have 3 planes: high gain needs 6";
        return Err(setup.wrong("gain", "high_gain", true, expected));
    }
    let plane = |number: usize| values[number * pixels..(number + 1) * pixels].to_vec();
    Ok([plane(if parameters.high_gain { 3 } else { 0 }), plane(1), plane(2)])
}

/// Whether the detector says that it did something itself.
pub(super) fn applied(stream: &StreamDescription, what: &str) -> bool {
    stream
        .metadata
        .get(what)
        .is_some_and(|text| matches!(text.to_lowercase().as_str(), "true" | "1" | "yes"))
}

/// Plans the correction for dead time; none where the detector made it.
pub(super) fn plan_countrate(
    setup: &Setup<'_>,
    parameters: &CountRateParameters,
    invalid: Option<f64>,
    prepared: &mut Prepared,
) -> Result<Option<ConversionPlan>, RecipeError> {
    const NAME: &str = "countrate";
    let stream = setup.stream;
    if applied(stream, "countrate_correction_applied") {
        let warning = "countrate: the detector has corrected for its dead time already, so nothing is corrected again";
        prepared.warnings.push(warning.into());
        return Ok(None);
    }
    let exposure_s = parameters.exposure_s.or(stream.detector.count_time_s);
    let dead_time = match (parameters.dead_time_ns, &stream.detector.countrate_table) {
        (Some(ns), _) if parameters.paralyzable => DeadTime::Paralyzable { seconds: ns * 1e-9 },
        (Some(ns), _) => DeadTime::NonParalyzable { seconds: ns * 1e-9 },
        (None, Some(table)) => DeadTime::Table(table.clone()),
        (None, None) => {
            let expected = "the detector sends no table: give the dead time of its counters";
            return Err(setup.wrong(NAME, "dead_time_ns", "(missing)", expected));
        }
    };
    if exposure_s.is_none() && parameters.dead_time_ns.is_some() {
        let expected = "the source does not say the exposure of a frame: give it";
        return Err(setup.wrong(NAME, "exposure_s", "(missing)", expected));
    }
    let config = CountRateConfig {
        dead_time,
        exposure_s: exposure_s.unwrap_or(f64::NAN),
        saturation: stream.saturation_value,
        invalid,
    };
    let mask = stream.mask.clone().unwrap_or_else(|| PixelMask::none(stream.shape));
    let first = prepared.layout.scalar(COUNTRATE_SCALAR, "");
    Ok(Some(ConversionPlan {
        stream: converted(stream, stream.shape, mask.clone()),
        conversion: Conversion::CountRate(Box::new(config), mask.clone()),
        raw_mask: mask,
        used: Vec::new(),
        first,
        wrong: None,
        saturated: prepared.counter("pixels_saturated"),
        follow: None,
    }))
}

/// The operation of one worker; `site` is that of the raw frames.
pub(super) fn operation(site: Site<'_>, plan: &ConversionPlan) -> Result<Box<dyn Operation>, RecipeError> {
    let (device, stream, limit) = (site.accelerator, site.stream, site.batch_limit);
    Ok(match &plan.conversion {
        Conversion::Gain(config) => Box::new(Gain {
            gain: AdaptiveGain::new(device, config, stream.shape, limit).map_err(RecipeError::device("gain"))?,
            first: plan.first,
            wrong: plan.wrong.clone().unwrap_or_default(),
            saturated: plan.saturated.clone(),
            // As far as they move: by nothing so far.
            moved: vec![0.0; plan.follow.as_ref().map_or(0, |_| stream.shape.pixels())],
            follow: plan.follow.clone(),
            drift_again_ns: 0,
            finished: false,
        }),
        Conversion::CountRate(config, mask) => {
            let made = CountRate::new(device, config, stream.shape, stream.pixel_type, mask, limit);
            Box::new(Rate {
                countrate: made.map_err(RecipeError::device("countrate"))?,
                first: plan.first,
                saturated: plan.saturated.clone(),
            })
        }
    })
}

struct Gain {
    gain: AdaptiveGain,
    first: usize,
    wrong: Counter,
    saturated: Counter,
    follow: Option<Follow>,
    /// how far pedestals have moved, ADU, on its way from the device
    moved: Vec<f32>,
    /// when the drift is looked at again
    drift_again_ns: u64,
    finished: bool,
}

/// Least time between two looks at how far pedestals have moved: each reads a number of every pixel.
const DRIFT_NS: u64 = 1_000_000_000;

impl Operation for Gain {
    fn name(&self) -> &'static str {
        "gain"
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        self.gain
            .run(batch.queue, batch.frames, batch.kind == FrameKind::Dark)
            .map_err(RecipeError::device("gain"))?;
        for (index, counts) in self.gain.counts().iter().enumerate() {
            let Some(result) = batch.result(index) else { continue };
            let values = [counts.wrong, counts.saturated, counts.gain1, counts.gain2];
            result.scalars[self.first..]
                .iter_mut()
                .zip(values)
                .for_each(|(scalar, count)| *scalar = count.into());
            if let Some(follow) = &self.follow {
                result.scalars[follow.scalar] = counts.quiet.into();
            }
        }
        batch.frames = self.gain.output();
        Ok(())
    }

    fn settle(&mut self, _results: &mut [Arc<FrameResult>]) {
        for counts in self.gain.counts() {
            self.wrong.fetch_add(counts.wrong.into(), Relaxed);
            self.saturated.fetch_add(counts.saturated.into(), Relaxed);
            if let Some(follow) = &self.follow {
                follow.words.fetch_add(counts.quiet.into(), Relaxed);
                follow.frames.fetch_add(1, Relaxed);
            }
        }
    }

    fn state(&self) -> Vec<f32> {
        self.moved.clone()
    }

    fn keep(&mut self, queue: &Queue, state: &mut Vec<f32>) -> Result<(), RecipeError> {
        let failed = RecipeError::device("gain");
        self.gain.moved(queue, &mut self.moved).map_err(failed)?;
        std::mem::swap(&mut self.moved, state);
        Ok(())
    }

    fn resume(&mut self, queue: &Queue, state: &[f32]) -> Result<(), RecipeError> {
        self.gain.move_to(queue, state).map_err(RecipeError::device("gain"))
    }

    fn snapshot(&mut self, queue: &Queue, snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        let Some(follow) = &self.follow else { return Ok(()) };
        let now = monotonic_ns();
        if now < self.drift_again_ns && !self.finished {
            return Ok(());
        }
        self.drift_again_ns = now + DRIFT_NS;
        let Some(image) = snapshot.images.get_mut(follow.image) else {
            return Ok(());
        };
        let drift = self.gain.drift(queue, &mut image.values);
        let Some(drift) = drift.map_err(RecipeError::device("gain"))? else {
            return Ok(());
        };
        image.frames_used = follow.frames.load(Relaxed);
        follow.mean_adu.set(drift.mean_adu);
        follow.largest_adu.set(drift.largest_adu);
        follow.drifted.set(drift.drifted_pixels as f64);
        if self.finished {
            follow.judge(&drift);
        }
        Ok(())
    }

    fn finish(&mut self, _queue: &Queue) -> Result<(), RecipeError> {
        self.finished = true;
        Ok(())
    }
}

struct Rate {
    countrate: CountRate,
    first: usize,
    saturated: Counter,
}

impl Operation for Rate {
    fn name(&self) -> &'static str {
        "countrate"
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let failed = RecipeError::device("countrate");
        self.countrate.run(batch.queue, batch.frames).map_err(failed)?;
        for (index, saturated) in self.countrate.saturated().iter().enumerate() {
            let Some(result) = batch.result(index) else { continue };
            result.scalars[self.first] = f64::from(*saturated);
        }
        batch.frames = self.countrate.output();
        Ok(())
    }

    fn settle(&mut self, _results: &mut [Arc<FrameResult>]) {
        for saturated in self.countrate.saturated() {
            self.saturated.fetch_add((*saturated).into(), Relaxed);
        }
    }
}
