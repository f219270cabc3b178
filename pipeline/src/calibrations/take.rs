//! Calibrations out of the detector's own frames: so many of them, without beam or with an even one, are taken as a run
//! takes them, and nothing of them is stored but what they say.

use super::record::{CalibrationKind, CalibrationRecord, Conditions};
use super::{Content, Detector, Proposed, time};
use crate::appliance::{Appliance, ApplianceError};
use crate::feedback::pictures;
use driver::memory::{FrameLease, FrameRing};
use driver::source::{Arrival, FrameSource, WhenFull};
use frame::mask::{DEAD, NOISY, OVER_RESPONDING, UNDER_RESPONDING};
use frame::{PixelType, StreamDescription};
use jiff::Timestamp;
use kernels::gain::pedestal::{PedestalTracker, WINDOW};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How a calibration is taken. Everything has a default.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TakeRequest {
    /// frames that it rests on (1 to 100000); fewer where the source ends before
    pub frames: u64,
    /// of a pedestal, which the detector must be set to before: 0, 1 or 2 for G0, G1 or G2
    pub gain: Option<u8>,
    /// of a pedestal: frames that it looks back on
    pub window: u32,
    /// of a mask: the frames have an even beam, so that pixels which do not respond can be told; else they are dark
    pub lit: bool,
    /// seconds without a frame after which it ends (0.1 to 3600)
    pub patience_s: f64,
    /// UTC time from which on it holds; from now on unless given
    pub valid_from: Option<String>,
    /// UTC time at which it ends to hold
    pub valid_to: Option<String>,
    /// anything
    pub comment: String,
}

impl Default for TakeRequest {
    fn default() -> Self {
        Self {
            frames: 200,
            gain: None,
            window: WINDOW,
            lit: false,
            patience_s: 10.0,
            valid_from: None,
            valid_to: None,
            comment: String::new(),
        }
    }
}

/// Mean and spread of every pixel over frames.
struct Mean {
    sums: Vec<f64>,
    squares: Vec<f64>,
    counts: Vec<u32>,
    limit: f64,
}

impl Mean {
    fn new(stream: &StreamDescription) -> Self {
        let pixels = stream.shape.pixels();
        // The largest value of a whole-number type is no count.
        let largest = stream.pixel_type.max_value();
        Self {
            sums: vec![0.0; pixels],
            squares: vec![0.0; pixels],
            counts: vec![0; pixels],
            limit: stream.saturation_value.map_or(largest, |limit| limit.min(largest)),
        }
    }

    fn push(&mut self, values: &[f64]) {
        let state = self.sums.iter_mut().zip(&mut self.squares).zip(&mut self.counts);
        for (value, ((sum, square), count)) in values.iter().zip(state) {
            if value.is_finite() && *value < self.limit {
                *sum += value;
                *square += value * value;
                *count += 1;
            }
        }
    }

    fn means(&self) -> Vec<f64> {
        self.sums
            .iter()
            .zip(&self.counts)
            .map(|(sum, count)| sum / f64::from(*count))
            .collect()
    }

    fn deviations(&self) -> Vec<f32> {
        let of = |pixel: usize| {
            let n = f64::from(self.counts[pixel]);
            let mean = self.sums[pixel] / n;
            ((self.squares[pixel] / n - mean * mean).max(0.0) * n / (n - 1.0)).sqrt() as f32
        };
        (0..self.sums.len()).map(of).collect()
    }
}

/// What the frames are taken together in.
enum Gathered {
    Mean(Mean),
    Pedestal(PedestalTracker),
}

/// Takes a calibration of `kind` from the configured source and keeps it.
pub fn take(
    appliance: &Appliance,
    kind: CalibrationKind,
    request: &TakeRequest,
) -> Result<CalibrationRecord, ApplianceError> {
    check(kind, request)?;
    for (key, text) in [("valid_from", &request.valid_from), ("valid_to", &request.valid_to)] {
        time(key, text.as_deref())?;
    }
    let (stream, gathered, frames) = appliance.with_source(|source, ring| {
        let stream = source.stream().clone();
        let mut gathered = match (kind, request.gain) {
            (CalibrationKind::Pedestal, Some(gain)) => {
                if stream.pixel_type != PixelType::U16 {
                    let found = stream.pixel_type.numpy_name();
                    return Err(bad(format!(
                        "a pedestal is of 16-bit words of a JUNGFRAU, the source has {found}"
                    )));
                }
                let tracker = PedestalTracker::new(stream.shape.pixels(), usize::from(gain), request.window);
                Gathered::Pedestal(tracker)
            }
            _ => Gathered::Mean(Mean::new(&stream)),
        };
        let frames = gather(source, ring, request, &mut gathered)?;
        Ok((stream, gathered, frames))
    })?;
    let (content, noise, mut comment) = match &gathered {
        Gathered::Pedestal(tracker) => {
            let means = tracker.means().into_iter().map(f64::from).collect();
            let elsewhere = tracker.wrong_gain();
            let said = (elsewhere > 0).then(|| format!("{elsewhere} words were in another gain and left out"));
            (means, Some(tracker.deviations()), said.unwrap_or_default())
        }
        Gathered::Mean(mean) => match kind {
            CalibrationKind::Flat => (flat(appliance, &stream, mean.means())?, None, String::new()),
            CalibrationKind::Mask => (mask(mean, request.lit), None, String::new()),
            _ => (mean.means(), Some(mean.deviations()), String::new()),
        },
    };
    if !request.comment.is_empty() {
        comment = format!(
            "{}{}{comment}",
            request.comment,
            if comment.is_empty() { "" } else { "; " }
        );
    }
    let stated = super::conditions_of(&stream);
    let proposed = Proposed {
        kind,
        content: Content::Array(vec![stream.shape.rows, stream.shape.columns], content),
        noise: noise.filter(|_| frames[0] > 1),
        conditions: match kind {
            CalibrationKind::Flat => Conditions {
                exposure_s: None,
                ..stated
            },
            CalibrationKind::Mask => Conditions::default(),
            _ => Conditions {
                gain: request.gain,
                exposure_s: stated.exposure_s,
                ..Conditions::default()
            },
        },
        origin: format!("taken from {}", stream.origin),
        frames: Some(frames),
        valid_from: time("valid_from", request.valid_from.as_deref())?,
        valid_to: time("valid_to", request.valid_to.as_deref())?,
        comment,
    };
    let detector = Detector::of(&stream);
    appliance.keep_calibration(proposed, Some(&detector))
}

fn bad(sentence: String) -> ApplianceError {
    super::CalibrationError::Bad(sentence).into()
}

fn check(kind: CalibrationKind, request: &TakeRequest) -> Result<(), ApplianceError> {
    let name = kind.name();
    if matches!(kind, CalibrationKind::Gain | CalibrationKind::Poni) {
        return Err(bad(format!(
            "a {name} cannot be taken from the detector's frames: upload its file"
        )));
    }
    if !(1..=100_000).contains(&request.frames) {
        return Err(bad(format!("frames = {}: allowed is 1 to 100000", request.frames)));
    }
    if !(0.1..=3600.0).contains(&request.patience_s) {
        return Err(bad(format!(
            "patience_s = {}: allowed is 0.1 to 3600",
            request.patience_s
        )));
    }
    if !(1..=1_000_000).contains(&request.window) {
        return Err(bad(format!("window = {}: allowed is 1 to 1000000", request.window)));
    }
    match (kind, request.gain) {
        (CalibrationKind::Pedestal, Some(0..=2)) => Ok(()),
        (CalibrationKind::Pedestal, found) => {
            let found = found.map_or("(missing)".to_string(), |gain| gain.to_string());
            Err(bad(format!(
                "gain = {found}: 0, 1 or 2, the gain that the detector is set to"
            )))
        }
        (_, Some(gain)) => Err(bad(format!("gain = {gain}: only a pedestal has one"))),
        _ => Ok(()),
    }
}

/// Takes frames until there are enough: used ones, and those that were left out.
fn gather(
    source: &mut dyn FrameSource,
    ring: &FrameRing,
    request: &TakeRequest,
    into: &mut Gathered,
) -> Result<[u64; 2], ApplianceError> {
    let when_full = if source.stream().pausable {
        WhenFull::Wait
    } else {
        WhenFull::Drop
    };
    let patience = Duration::from_secs_f64(request.patience_s);
    let (mut used, mut left_out, mut last) = (0, 0, Instant::now());
    while used < request.frames {
        match source.next(ring, when_full)? {
            Arrival::Frame(lease) => {
                last = Instant::now();
                match take_frame(&lease, into) {
                    true => used += 1,
                    false => left_out += 1,
                }
            }
            Arrival::Dropped { .. } => left_out += 1,
            Arrival::Idle if last.elapsed() > patience => break,
            Arrival::Idle => {}
            Arrival::End => break,
        }
    }
    if used == 0 {
        let why = if left_out > 0 {
            format!("none of {left_out} frames was whole")
        } else {
            format!("no frame came within {} s", request.patience_s)
        };
        return Err(bad(format!(
            "{why}: start the detector, then take the calibration again"
        )));
    }
    Ok([used, left_out])
}

/// Whether a frame was whole and so counts.
fn take_frame(lease: &FrameLease, into: &mut Gathered) -> bool {
    let header = lease.header();
    if header.is_partial() || !lease.intact() {
        return false;
    }
    let Ok(picture) = pictures::decode(header, lease.payload()) else {
        return false;
    };
    match into {
        Gathered::Pedestal(tracker) => {
            tracker.push(
                picture
                    .bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|word| u16::from_le_bytes(*word)),
            );
        }
        Gathered::Mean(mean) => mean.push(&picture.values()),
    }
    true
}

/// A relative response: without the newest dark that holds, and 1 in the middle.
fn flat(appliance: &Appliance, stream: &StreamDescription, mut values: Vec<f64>) -> Result<Vec<f64>, ApplianceError> {
    let shape = [stream.shape.rows, stream.shape.columns];
    let conditions = super::conditions_of(stream);
    let calibrations = appliance.calibrations();
    let dark = calibrations.newest(CalibrationKind::Dark, Timestamp::now(), |record| {
        record.shape == Some(shape) && record.conditions.hold_for(&conditions)
    })?;
    if let Some(Content::Array(_, dark)) = dark.map(|dark| calibrations.read(&dark)).transpose()? {
        values.iter_mut().zip(dark).for_each(|(value, dark)| *value -= dark);
    }
    let mut good: Vec<f64> = values.iter().copied().filter(|value| *value > 0.0).collect();
    if good.is_empty() {
        return Err(bad("no pixel saw any beam: a flat needs an even one".into()));
    }
    let middle = good.len() / 2;
    let (_, median, _) = good.select_nth_unstable_by(middle, f64::total_cmp);
    let median = *median;
    values.iter_mut().for_each(|value| *value /= median);
    Ok(values)
}

/// Median, and the median distance from it.
fn middle(values: &[f64]) -> (f64, f64) {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if sorted.is_empty() {
        return (0.0, 0.0);
    }
    let at = sorted.len() / 2;
    let median = *sorted.select_nth_unstable_by(at, f64::total_cmp).1;
    sorted.iter_mut().for_each(|value| *value = (*value - median).abs());
    (median, *sorted.select_nth_unstable_by(at, f64::total_cmp).1)
}

/// How many spreads from the middle a pixel may be, and the least spread in counts.
const OUTLIER_SPREADS: f64 = 10.0;
const LEAST_SPREAD: f64 = 0.5;

/// NXmx bits of what does not behave as most pixels do.
fn mask(mean: &Mean, lit: bool) -> Vec<f64> {
    let (means, noise) = (mean.means(), mean.deviations());
    let noise: Vec<f64> = noise.into_iter().map(f64::from).collect();
    let (mean_middle, mean_spread) = middle(&means);
    let (noise_middle, noise_spread) = middle(&noise);
    let beyond = |value: f64, middle: f64, spread: f64| {
        value > middle + OUTLIER_SPREADS * (1.4826 * spread).max(LEAST_SPREAD / OUTLIER_SPREADS)
    };
    let bits = |pixel: usize| {
        let mut bits = 0;
        if mean.counts[pixel] == 0 {
            bits |= DEAD;
        } else if lit {
            let response = means[pixel] / mean_middle;
            bits |= if means[pixel] <= 0.0 { DEAD } else { 0 };
            bits |= if response < 0.3 && means[pixel] > 0.0 {
                UNDER_RESPONDING
            } else {
                0
            };
            bits |= if response > 3.0 { OVER_RESPONDING } else { 0 };
        } else {
            bits |= if beyond(means[pixel], mean_middle, mean_spread) {
                OVER_RESPONDING
            } else {
                0
            };
            bits |= if beyond(noise[pixel], noise_middle, noise_spread) {
                NOISY
            } else {
                0
            };
        }
        f64::from(bits)
    };
    (0..means.len()).map(bits).collect()
}
