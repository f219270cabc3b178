//! What a recipe leaves to be done when its run is closed, for example a whole volume: a run of its own, derived from the
//! first. It reads the closed files, computes on a thread of its own, and gives way whenever a run that records has
//! frames waiting: the ring never starves for it, and live results come first.

use crate::active_run::Summary;
use crate::appliance::Appliance;
use crate::calibrations::Calibrations;
use crate::feedback::events::EventLog;
use crate::recipes::RecipeError;
use crate::storage::{RunInfo, Store, StoreError};
use driver::source::SourceError;
use kernels::Accelerator;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for the device: what takes longer hangs.
const WAIT_LIMIT: Duration = Duration::from_secs(3600);
/// Longest sleep while a run has frames waiting.
const GIVE_WAY: Duration = Duration::from_millis(2);

/// Why derived work failed.
#[derive(Debug, thiserror::Error)]
pub enum AfterwardsError {
    /// the recipe refused
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// the closed run could not be read
    #[error(transparent)]
    Source(#[from] SourceError),
    /// the derived run could not be written
    #[error(transparent)]
    Store(#[from] StoreError),
    /// memory
    #[error("{0}")]
    Memory(String),
    /// somebody wanted it to end
    #[error("cancelled")]
    Cancelled,
}

/// Work for after the run.
pub trait Afterwards: Send {
    /// what the name of the derived run ends in, for example `volume`
    fn name(&self) -> &'static str;
    /// NeXus application definition of the derived run
    fn definition(&self) -> &'static str;
    /// does it; returns what the summary says about it
    fn run(self: Box<Self>, place: &Place<'_>) -> Result<Value, AfterwardsError>;
}

/// What a run leaves to be done when it is closed.
pub struct Left {
    /// by its recipe
    pub work: Option<Box<dyn Afterwards>>,
    /// master file of its frames, where it is another run's
    pub raw: Option<std::path::PathBuf>,
}

impl Left {
    /// What a recipe leaves of a run that stores its own frames.
    pub fn of(work: Option<Box<dyn Afterwards>>) -> Self {
        Self { work, raw: None }
    }
}

/// What the work is given.
pub struct Place<'a> {
    /// the master file of the frames
    pub raw: &'a Path,
    /// who and what the derived run is
    pub info: &'a RunInfo,
    /// where it goes
    pub store: &'a Store,
    /// device
    pub accelerator: &'a Accelerator,
    /// what others see
    pub derived: &'a Derived,
    appliance: &'a Appliance,
}

impl Place<'_> {
    /// Calibrations that were taken or uploaded.
    pub fn calibrations(&self) -> &Calibrations {
        self.appliance.calibrations()
    }

    /// Waits while a run that records has frames to analyse.
    ///
    /// # Errors
    /// [`AfterwardsError::Cancelled`] when somebody wants the end.
    pub fn give_way(&self) -> Result<(), AfterwardsError> {
        let busy = || self.appliance.current().is_some_and(|run| run.comes_first());
        let started = Instant::now();
        loop {
            if self.derived.cancel.load(Relaxed) {
                return Err(AfterwardsError::Cancelled);
            }
            if !busy() {
                break;
            }
            std::thread::sleep(GIVE_WAY);
        }
        let waited_us = started.elapsed().as_micros() as u64;
        self.derived.gave_way_us.fetch_add(waited_us, Relaxed);
        Ok(())
    }
}

/// How far derived work is.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct DerivedStatus {
    /// the derived run
    pub id: String,
    /// the run that it is derived from
    pub derived_from: String,
    /// waiting, running, complete or failed
    pub state: &'static str,
    /// slices, or whatever it makes, that are done
    pub done: u64,
    /// of how many
    pub total: u64,
    /// estimate of the time left, from what has been done so far; null until there is something to estimate from
    pub seconds_left: Option<f64>,
    /// seconds that it has waited for runs that record
    pub gave_way_s: f64,
    /// why it failed
    pub message: Option<String>,
}

/// How far it is, as [`DerivedStatus`] says.
#[derive(Clone)]
struct Stage {
    state: &'static str,
    done: u64,
    total: u64,
    seconds_left: Option<f64>,
    message: Option<String>,
}

/// A derived run while it is made, and the last one that was.
pub struct Derived {
    id: String,
    proposal: String,
    derived_from: String,
    stage: Mutex<Stage>,
    gave_way_us: AtomicU64,
    cancel: AtomicBool,
    result: Mutex<Option<Value>>,
    /// events for consumers
    pub events: EventLog,
}

impl Derived {
    fn new(id: String, proposal: String, derived_from: String) -> Self {
        Self {
            id,
            proposal,
            derived_from,
            stage: Mutex::new(Stage {
                state: "waiting",
                done: 0,
                total: 0,
                seconds_left: None,
                message: None,
            }),
            gave_way_us: AtomicU64::new(0),
            cancel: AtomicBool::new(false),
            result: Mutex::new(None),
            events: EventLog::default(),
        }
    }

    /// Says how far it is.
    pub fn progress(&self, done: u64, total: u64, seconds_left: Option<f64>) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage {
            state: "running",
            done,
            total,
            seconds_left,
            message: None,
        };
        let data = json!({ "done": done, "total": total, "seconds_left": seconds_left });
        self.events.add("progress", data);
    }

    /// What somebody should know.
    pub fn degraded(&self, message: &str) {
        tracing::warn!("{}: {message}", self.id);
        self.events.add("degraded", json!({ "message": message }));
    }

    /// Name of the derived run.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its proposal.
    pub fn proposal(&self) -> &str {
        &self.proposal
    }

    /// How far it is.
    pub fn status(&self) -> DerivedStatus {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        DerivedStatus {
            id: self.id.clone(),
            derived_from: self.derived_from.clone(),
            state: stage.state,
            done: stage.done,
            total: stage.total,
            seconds_left: stage.seconds_left,
            gave_way_s: self.gave_way_us.load(Relaxed) as f64 / 1e6,
            message: stage.message,
        }
    }

    /// Ends it early; nothing of it is kept as a run.
    pub fn cancel(&self) {
        self.cancel.store(true, Relaxed);
    }

    fn end(&self, state: &'static str, result: Value, message: Option<String>) {
        {
            let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
            (stage.state, stage.seconds_left, stage.message) = (state, None, message.clone());
        }
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.events.add("end", json!({ "state": state, "message": message }));
    }
}

/// What is made now or was made last, and the thread that makes it.
#[derive(Default)]
struct Doing(Option<Arc<Derived>>, Option<JoinHandle<()>>);

/// The thread that does such work, one after the other.
#[derive(Default)]
pub struct AfterwardsThread(Mutex<Doing>);

impl AfterwardsThread {
    /// The derived run that is made, or the last one.
    pub fn derived(&self) -> Option<Arc<Derived>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Begins with the work that `info`'s run left, behind what is not done yet. `raw` is the master file of its frames.
    pub fn begin(
        &self,
        appliance: &Arc<Appliance>,
        work: Box<dyn Afterwards>,
        info: &RunInfo,
        raw: &Path,
    ) -> Result<(), String> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = slot.1.take();
        let id = format!("{}-{}", info.id, work.name());
        let derived = Arc::new(Derived::new(id.clone(), info.proposal.clone(), info.id.clone()));
        derived
            .events
            .add("armed", json!({ "run": id, "derived_from": info.id }));
        let mut info = RunInfo {
            title: format!("{} of {}", work.name(), info.id),
            definition: work.definition().into(),
            id,
            start_time: jiff::Timestamp::now(),
            ..info.clone()
        };
        info.metadata
            .insert("derived_from".into(), derived.derived_from.clone());
        let (appliance, shown, raw) = (appliance.clone(), derived.clone(), raw.to_path_buf());
        let thread = std::thread::Builder::new()
            .name("fluxline-after".into())
            .spawn(move || {
                // Its panic has been told by its own derived run.
                let _ = before.map(JoinHandle::join);
                let place = Place {
                    raw: &raw,
                    info: &info,
                    store: appliance.store(),
                    accelerator: appliance.accelerator(),
                    derived: &shown,
                    appliance: &appliance,
                };
                match kernels::each_within(WAIT_LIMIT, || work.run(&place)) {
                    Ok(result) => shown.end("complete", result, None),
                    Err(error) => {
                        tracing::error!("{}: {error}", info.id);
                        shown.end("failed", Value::Null, Some(error.to_string()));
                    }
                }
            })
            .map_err(|error| format!("cannot start the thread fluxline-after: {error}"))?;
        *slot = Doing(Some(derived), Some(thread));
        Ok(())
    }

    /// Whether something is being done.
    pub fn busy(&self) -> bool {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.1.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Waits until nothing is left to do; whether nothing panicked.
    pub fn wait(&self) -> bool {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }

    /// Waits until nothing is left to do and adds what came of it to the run's summary.
    pub fn conclude(&self, summary: &mut Summary) {
        let panicked = !self.wait();
        let Some(derived) = self.derived().filter(|derived| derived.derived_from == summary.run) else {
            return;
        };
        let status = derived.status();
        let result = derived.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        let state = if panicked { "failed" } else { status.state };
        summary.derived = Some(json!({ "run": status.id, "state": state, "message": status.message,
            "gave_way_s": status.gave_way_s, "results": result }));
        if state == "failed" {
            let why = status.message.unwrap_or_else(|| "it panicked".into());
            summary.warnings.push(format!("{} failed: {why}", status.id));
        }
    }
}
