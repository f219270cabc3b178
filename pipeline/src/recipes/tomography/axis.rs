//! The rotation axis, searched while the sample turns: a thread of its own looks at some rows of the projections as soon as
//! they make half a turn (a whole one of a half acquisition), again with every further one, and at all of them at the end. The last estimate alone
//! decides, so that the same scan has the same axis however fast its frames came.

use crate::recipes::findings::Findings;
use crate::recipes::live::LiveParameters;
use kernels::{AxisEstimate, AxisFinder, AxisFinderConfig, Invalid, TRUSTED};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Rows of a projection that are looked at.
const ROWS: usize = 8;
/// Bytes that they may take over a scan.
const BYTES_MAX: usize = 128 << 20;
/// Projections that are kept at most; a longer scan is searched in the last of them.
const PROJECTIONS_MAX: usize = 8192;
/// Projections without which there is no search, and degrees.
const PROJECTIONS_MIN: u64 = 7;
const RANGE_DEG_MIN: f64 = 180.0;
const PROJECTIONS_MIN_ROUND: u64 = 14;

/// Where the rotation axis comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AxisMode {
    /// as configured, as the source says, or the middle of the detector
    Given,
    /// found in the projections and applied where its confidence suffices
    Auto,
    /// found in the projections and told, not applied
    Propose,
}

/// Why these angles (NaN: not known yet) are too few to search an axis in; `None` where they are not. That a half
/// acquisition goes once round is asked elsewhere.
pub(super) fn too_few(projections: u64, planned_deg: &[f64], half_acquisition: bool) -> Option<String> {
    let least = least(half_acquisition);
    if projections < least {
        return Some(format!(
            "{projections} projections are too few to find the axis in, it takes {least}: give rotation_axis_px"
        ));
    }
    let known: Vec<f64> = planned_deg.iter().copied().filter(|angle| angle.is_finite()).collect();
    let low = known.iter().copied().fold(f64::INFINITY, f64::min);
    let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // The last step to 180 degrees is often not taken.
    let step = (high - low) / (known.len().max(2) - 1) as f64;
    let all_known = known.len() as u64 >= projections;
    (all_known && high - low + 1.5 * step < RANGE_DEG_MIN).then(|| {
        format!(
            "the projections go over {:.1} degrees, the axis is found in half a turn: give rotation_axis_px",
            high - low
        )
    })
}

fn least(half_acquisition: bool) -> u64 {
    if half_acquisition {
        PROJECTIONS_MIN_ROUND
    } else {
        PROJECTIONS_MIN
    }
}

struct State {
    finder: AxisFinder,
    /// projections so far
    taken: u64,
    /// no more will come
    complete: bool,
    /// nobody wants to know any more
    abandoned: bool,
    /// the last estimate is made
    done: bool,
}

struct Shared {
    state: Mutex<State>,
    /// something has come
    came: Condvar,
    /// the last estimate is made
    made: Condvar,
    /// bits of the newest estimate: column and confidence
    estimate: [AtomicU64; 2],
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an estimate is good for.
#[derive(Clone)]
pub(super) struct Applied {
    /// whether it may be applied
    pub(super) mode: AxisMode,
    /// from which confidence on
    pub(super) confidence_min: f64,
    /// the axis before anything was found
    pub(super) given_px: f64,
    /// the live parameter that it is; none where it cannot move
    pub(super) parameter: Option<usize>,
    /// whether the axis lies near an edge of the detector, and the scan goes once round
    pub(super) half_acquisition: bool,
}

/// See the module.
pub(super) struct AxisSearch {
    shared: Arc<Shared>,
    applied: Applied,
    thread: Option<JoinHandle<()>>,
}

impl AxisSearch {
    /// Prepares for projections of this many rows and columns.
    pub(super) fn new(
        rows: usize,
        columns: usize,
        projections: u64,
        range_px: Option<[f64; 2]>,
        applied: Applied,
    ) -> Result<Self, Invalid> {
        let projections = (projections as usize).min(PROJECTIONS_MAX);
        let finder = AxisFinder::new(&AxisFinderConfig {
            rows,
            columns,
            projections,
            sample_rows: (BYTES_MAX / (4 * columns * projections).max(1)).clamp(1, ROWS),
            range_px: range_px.map(|[low, high]| (low, high)),
            whole_turn: applied.half_acquisition,
        })?;
        let state = State {
            finder,
            taken: 0,
            complete: false,
            abandoned: false,
            done: false,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                came: Condvar::new(),
                made: Condvar::new(),
                estimate: [f64::NAN; 2].map(|number| AtomicU64::new(number.to_bits())),
            }),
            applied,
            thread: None,
        })
    }

    /// Starts the thread.
    pub(super) fn begin(&mut self, live: &Arc<LiveParameters>, found: &Arc<Findings>) -> Result<(), String> {
        let search = Search {
            shared: self.shared.clone(),
            applied: self.applied.clone(),
            live: live.clone(),
            found: found.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("fluxline-axis".into())
            .spawn(move || search.run())
            .map_err(|error| format!("cannot start the thread fluxline-axis: {error}"))?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Whether what it finds moves the axis.
    pub(super) fn applies(&self) -> bool {
        self.applied.mode == AxisMode::Auto
    }

    /// Takes a projection of line integrals. Allocates nothing.
    pub(super) fn push(&self, projection: &[f32], angle_deg: f64) -> Result<(), Invalid> {
        let mut state = self.shared.lock();
        state.finder.push(projection, angle_deg)?;
        state.taken += 1;
        self.shared.came.notify_one();
        Ok(())
    }

    /// The newest estimate: column and confidence, not numbers until there is one.
    pub(super) fn estimate(&self) -> [f64; 2] {
        let [axis_px, confidence] = &self.shared.estimate;
        [axis_px, confidence].map(|number| f64::from_bits(number.load(Relaxed)))
    }

    /// Waits for the estimate from everything. Allocates nothing.
    pub(super) fn finish(&self) {
        if self.thread.is_none() {
            return;
        }
        let mut state = self.shared.lock();
        state.complete = true;
        self.shared.came.notify_one();
        while !state.done {
            state = self.shared.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for AxisSearch {
    fn drop(&mut self) {
        self.shared.lock().abandoned = true;
        self.shared.came.notify_one();
        // A panic there has been told by `Done`.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Whoever waits for the last estimate goes on when the thread is gone, whyever.
struct Done(Arc<Shared>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.lock().done = true;
        self.0.made.notify_all();
    }
}

/// The thread's.
struct Search {
    shared: Arc<Shared>,
    applied: Applied,
    live: Arc<LiveParameters>,
    found: Arc<Findings>,
}

impl Search {
    fn run(self) {
        let _done = Done(self.shared.clone());
        // Projections at which to look next, and what the last look found in how many of them.
        let (mut next, mut seen, mut before) = (least(self.applied.half_acquisition), 0, None);
        loop {
            let (scan, taken, last) = {
                let mut state = self.shared.lock();
                while state.taken < next && !state.complete && !state.abandoned {
                    state = self.shared.came.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.abandoned {
                    return;
                }
                (state.finder.scan(), state.taken, state.complete)
            };
            match &scan {
                // Nothing has come since.
                Some(scan) if last && seen == taken => {
                    if let Some(estimate) = before {
                        self.tell(estimate, scan.projections(), last);
                    }
                }
                // All cores once nothing else is to be done with the scan, one before.
                Some(scan) => {
                    let cores = std::thread::available_parallelism().map_or(1, usize::from);
                    match scan.estimate(if last { cores } else { 1 }) {
                        Ok(estimate) => {
                            self.tell(estimate, scan.projections(), last);
                            before = Some(estimate);
                        }
                        Err(error) => self.found.warn(format!("the rotation axis was not found: {error}")),
                    }
                    (next, seen) = (taken + scan.projections() as u64, taken);
                }
                None if last => {
                    let turn = if self.applied.half_acquisition {
                        "a whole"
                    } else {
                        "half a"
                    };
                    self.found.warn(format!(
                        "the projections do not make {turn} turn without a gap: the rotation axis was not searched"
                    ));
                }
                None => next = taken + 1,
            }
            if last {
                return;
            }
        }
    }

    fn tell(&self, estimate: AxisEstimate, projections: usize, last: bool) {
        let AxisEstimate { axis_px, confidence } = estimate;
        let axis_px = (axis_px / STEP_PX).round() * STEP_PX;
        let Applied {
            mode,
            confidence_min,
            given_px,
            parameter,
            ..
        } = self.applied;
        let numbers = [axis_px, confidence].map(f64::to_bits);
        for (cell, bits) in self.shared.estimate.iter().zip(numbers) {
            cell.store(bits, Relaxed);
        }
        let trusted = confidence >= confidence_min;
        let applied = match (mode, parameter) {
            (AxisMode::Auto, Some(index)) if trusted => self.live.adopt(index, axis_px),
            // An earlier estimate that was trusted rested on less.
            (AxisMode::Auto, Some(index)) => {
                self.live.adopt(index, given_px);
                false
            }
            _ => false,
        };
        let data = json!({ "axis_px": axis_px, "axis_confidence": confidence, "projections": projections,
            "applied": applied, "last": last });
        self.found.tell("axis", data);
        if last && !trusted && mode == AxisMode::Auto {
            self.found.warn(format!(
                "the rotation axis may be at {axis_px:.2}, but with a confidence of {confidence:.2}, below \
                 {confidence_min}, it was not applied: look at the slices and give rotation_axis_px"
            ));
        }
    }
}

/// Estimates are told in steps of so many pixels, a fifth of what slices show: slices about another axis are summed anew
/// from the projections that are kept, which a hair's breadth is not worth.
const STEP_PX: f64 = 0.05;
/// Confidence from which an axis is applied.
pub(super) const CONFIDENCE_MIN: f64 = TRUSTED;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_turn_is_asked_for() {
        let scan = |count: u32, step: f64| -> Vec<f64> { (0..count).map(|n| f64::from(n) * step).collect() };
        assert_eq!(too_few(180, &scan(180, 1.0), false), None);
        assert_eq!(too_few(181, &scan(181, 1.0), false), None);
        let said = too_few(90, &scan(90, 1.0), false).unwrap();
        assert!(said.contains("89.0 degrees"), "{said}");
        let said = too_few(6, &scan(6, 30.0), false).unwrap();
        assert!(said.contains("6 projections are too few"), "{said}");
        assert_eq!(too_few(12, &scan(12, 15.0), false), None);
        assert!(too_few(12, &scan(12, 30.0), true).unwrap().contains("it takes 14"));
        // Angles that come with the frames cannot be judged before.
        assert_eq!(too_few(90, &[f64::NAN; 90], false), None);
    }
}
