//! `GET /status`: one look at the whole appliance.

use super::server::Asked;
use crate::active_run::{ActiveRun, LatencyUs, RunState, Throughput, Way};
use crate::afterwards::DerivedStatus;
use crate::appliance::{memory_name, page_kind};
use crate::keep::{KeepStatus, Keeper};
use axum::Json;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The run that status speaks of.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct StatusRun {
    /// id
    pub id: String,
    /// technique
    pub technique: String,
    /// proposal
    pub proposal: String,
    /// sample
    pub sample: String,
    /// UTC time of arming
    pub started: String,
    /// frames of the run
    pub frames_expected: u64,
    /// what its recipe has counted so far, by name; the labels of `fluxline_recipe_total`
    #[schema(value_type = Object)]
    pub counters: BTreeMap<&'static str, u64>,
    /// numbers of its recipe that go up and down, as they are now, by name; the labels of `fluxline_recipe_level`
    #[schema(value_type = Object)]
    pub levels: BTreeMap<&'static str, f64>,
}

/// Outcomes of analysis.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct StatusAnalysis {
    /// analysed
    pub done: u64,
    /// left out under overload
    pub shed: u64,
    /// failed
    pub failed: u64,
    /// received and not settled yet
    pub pending: u64,
}

/// Outcomes of storage.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct StatusStorage {
    /// written
    pub synced: u64,
    /// left out by a recipe
    pub vetoed: u64,
    /// failed
    pub failed: u64,
    /// received and not settled yet
    pub pending: u64,
}

/// The frame ring.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct StatusRing {
    /// slots
    pub slots: usize,
    /// slots that hold a frame
    pub used: usize,
    /// 1GiB, 2MiB or transparent
    pub page_kind: &'static str,
    /// whether it is locked into memory
    pub locked: bool,
}

/// A queue.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct StatusQueue {
    /// frames waiting
    pub used: u64,
    /// frames that fit
    pub capacity: u64,
}

/// The queues of the data plane.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct StatusQueues {
    /// before the workers
    pub analysis: StatusQueue,
    /// before the writer
    pub storage: StatusQueue,
}

/// The device that computes.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct StatusDevice {
    /// name
    pub name: String,
    /// zero_copy or copy
    pub memory: &'static str,
    /// which way the frames of the run in memory are analysed: by the device's kernels, fused with decoding on the host, or
    /// by the host because the device has failed
    pub analysis: Option<Way>,
    /// how its kernels cut their work, where that comes from (usual, measured or cached), which of it was measured, and
    /// remarks; null where `accelerator.tune` is off
    #[schema(value_type = Option<Object>)]
    pub tuning: Option<kernels::Tuned>,
}

/// How roles share cores.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct StatusCores {
    /// shared or dedicated
    pub mode: &'static str,
}

/// The store.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct StatusStore {
    /// folder
    pub path: String,
    /// free bytes of its file system
    pub free_bytes: u64,
    /// closed runs, their copies and how long there is room; null where this process does not look after them
    pub keep: Option<KeepStatus>,
}

/// The whole appliance.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// idle, armed, recording, finishing or error; the appliance's, also where its run is hidden from a limited token
    pub state: &'static str,
    /// the last error
    pub message: Option<String>,
    /// version of this program
    pub version: &'static str,
    /// the run in memory: the current one, or the last
    pub run: Option<StatusRun>,
    /// the tracker's counts
    #[schema(value_type = Object)]
    pub frames: driver::tracker::Counts,
    /// outcomes of analysis
    pub analysis: StatusAnalysis,
    /// outcomes of storage
    pub storage: StatusStorage,
    /// rates over the last second or so
    pub rate: Throughput,
    /// arrival to result, over the run so far
    pub latency_us: LatencyUs,
    /// the frame ring
    pub ring: StatusRing,
    /// queues
    pub queues: StatusQueues,
    /// device
    pub device: StatusDevice,
    /// cores
    pub cores: StatusCores,
    /// store
    pub store: StatusStore,
    /// what is made of a closed run, for example its volume: now, or last
    pub derived: Option<DerivedStatus>,
    /// what somebody should know
    pub warnings: Vec<String>,
}

/// The state that the appliance is in, from the run in memory.
pub fn state_name(run: Option<&ActiveRun>) -> &'static str {
    match run.map(ActiveRun::state) {
        None | Some(RunState::Complete | RunState::Stopped | RunState::Aborted) => "idle",
        Some(RunState::Failed) => "error",
        Some(state) => state.name(),
    }
}

/// Rates between looks at least half a second apart.
#[derive(Default)]
pub struct RateMeter(Mutex<Option<Look>>);

struct Look {
    run: String,
    at: Instant,
    frames: u64,
    bytes: u64,
    rate: Throughput,
}

impl RateMeter {
    fn look(&self, run: &ActiveRun) -> Throughput {
        let (frames, bytes) = (run.ledger.outcomes().received, run.bytes.load(Relaxed));
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = match last.as_ref().filter(|last| last.run == run.info.id) {
            Some(last) if now - last.at < Duration::from_millis(500) => return last.rate,
            Some(last) => {
                let seconds = (now - last.at).as_secs_f64();
                Throughput {
                    frames_per_s: frames.saturating_sub(last.frames) as f64 / seconds,
                    bytes_per_s: bytes.saturating_sub(last.bytes) as f64 / seconds,
                }
            }
            None => run.throughput(),
        };
        *last = Some(Look {
            run: run.info.id.clone(),
            at: now,
            frames,
            bytes,
            rate,
        });
        rate
    }
}

/// The appliance's state, counters, occupancy and device.
#[utoipa::path(get, path = "/status", responses((status = 200, body = Status)))]
pub async fn status(Asked(shared): Asked) -> Json<Status> {
    let appliance = &shared.appliance;
    // The appliance is one: whether it is in use is for everybody to see, by whom is not.
    let state = state_name(appliance.current().as_deref());
    let run = shared.current();
    let run = run.as_deref();
    let outcomes = run.map(|run| run.ledger.outcomes()).unwrap_or_default();
    let ring = appliance.ring();
    let (analysis_waiting, storage_waiting) = run.map(ActiveRun::waiting).unwrap_or_default();
    let slots = ring.as_ref().map_or(0, |ring| ring.slots());
    let queue = |used| StatusQueue {
        used,
        capacity: 2 * slots as u64,
    };
    let warnings = run.map(ActiveRun::warnings).unwrap_or_default();
    let failed = run.is_some_and(|run| run.state() == RunState::Failed);
    Json(Status {
        state,
        message: if failed { warnings.last().cloned() } else { None },
        version: env!("CARGO_PKG_VERSION"),
        run: run.map(|run| StatusRun {
            id: run.info.id.clone(),
            technique: run.info.technique.clone(),
            proposal: run.info.proposal.clone(),
            sample: run.info.sample.clone(),
            started: run.info.start_time.to_string(),
            frames_expected: run.ledger.expected(),
            counters: run.counted(),
            levels: run.levels(),
        }),
        frames: run.map(|run| run.counts.get()).unwrap_or_default(),
        analysis: StatusAnalysis {
            done: outcomes.done,
            shed: outcomes.shed,
            failed: outcomes.analysis_failed,
            pending: outcomes
                .received
                .saturating_sub(outcomes.done + outcomes.shed + outcomes.analysis_failed),
        },
        storage: StatusStorage {
            synced: outcomes.synced,
            vetoed: outcomes.vetoed,
            failed: outcomes.storage_failed,
            pending: outcomes
                .received
                .saturating_sub(outcomes.synced + outcomes.vetoed + outcomes.storage_failed),
        },
        rate: run.map(|run| shared.rate.look(run)).unwrap_or_default(),
        latency_us: run.map(ActiveRun::latency).unwrap_or_default(),
        ring: ring.as_ref().map_or_else(StatusRing::default, |ring| StatusRing {
            slots,
            used: slots - ring.free(),
            page_kind: page_kind(ring.page_size()),
            locked: ring.locked(),
        }),
        queues: StatusQueues {
            analysis: queue(analysis_waiting),
            storage: queue(storage_waiting),
        },
        device: StatusDevice {
            name: appliance.accelerator().info().name.clone(),
            memory: memory_name(appliance.accelerator().memory()),
            analysis: run.map(ActiveRun::way),
            tuning: appliance.tuned().cloned(),
        },
        cores: StatusCores {
            mode: if appliance.cores().shared {
                "shared"
            } else {
                "dedicated"
            },
        },
        store: StatusStore {
            path: appliance.store().root().display().to_string(),
            free_bytes: appliance.store().free_bytes().unwrap_or(0),
            keep: appliance
                .keeper()
                .filter(|_| !shared.scope.is_limited())
                .and_then(Keeper::status),
        },
        derived: shared.derived().map(|derived| derived.status()),
        warnings,
    })
}
