//! What other threads see of a run: its state, counts, queues, newest frame and snapshot, and how it ended.

use crate::decisions::{Action, Decided, Decision, Decisions, Fate};
use crate::feedback::events::EventLog;
use crate::feedback::hub::FeedbackHub;
use crate::feedback::hub::ResultMessage;
use crate::frame_metadata::{FrameMetadata, MetadataSummary};
use crate::grid::{GRID, GridAnswer, GridScan};
use crate::ledger::{Analysis, Entry, Ledger, Outcomes};
use crate::recipes::findings::Findings;
use crate::recipes::live::LiveParameters;
use crate::recipes::{Counter, Level, Snapshot};
use crate::storage::RunInfo;
use crossbeam_queue::ArrayQueue;
use driver::clock::monotonic_ns;
use driver::memory::FrameLease;
use driver::tracker::Counts;
use frame::StreamDescription;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// State of a run while it is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum RunState {
    /// every thread and file is ready
    Armed = 0,
    /// frames arrive
    Recording = 1,
    /// the last frame has come, books and files are being closed
    Finishing = 2,
    /// ended with every expected frame accounted for
    Complete = 3,
    /// ended early on request, everything kept
    Stopped = 4,
    /// ended on request, marked as aborted
    Aborted = 5,
    /// ended by an error
    Failed = 6,
}

impl RunState {
    const ALL: [RunState; 7] = [
        RunState::Armed,
        RunState::Recording,
        RunState::Finishing,
        RunState::Complete,
        RunState::Stopped,
        RunState::Aborted,
        RunState::Failed,
    ];

    /// Name as the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Armed => "armed",
            RunState::Recording => "recording",
            RunState::Finishing => "finishing",
            RunState::Complete => "complete",
            RunState::Stopped => "stopped",
            RunState::Aborted => "aborted",
            RunState::Failed => "failed",
        }
    }

    /// Whether nothing more will happen.
    pub fn ended(self) -> bool {
        self as u8 >= RunState::Complete as u8
    }
}

/// Which way frames are analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Way {
    /// by the device's kernels
    Kernels = 0,
    /// decoded and reduced at once, by the host
    Fused = 1,
    /// by the host, because the device has failed
    Host = 2,
}

/// Latency quantiles, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct LatencyUs {
    /// median
    pub p50: f64,
    /// 99th percentile
    pub p99: f64,
    /// 99.9th percentile
    pub p999: f64,
    /// largest
    pub max: f64,
}

impl LatencyUs {
    /// Quantiles of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// Rates over the time in which frames arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Throughput {
    /// frames per second
    pub frames_per_s: f64,
    /// payload bytes per second
    pub bytes_per_s: f64,
}

/// How a run ended, as `--json` prints it and `run.json` keeps it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Summary {
    /// run id
    pub run: String,
    /// complete, stopped, aborted or failed
    pub state: &'static str,
    /// the tracker's counts
    #[schema(value_type = Object)]
    pub frames: Counts,
    /// the outcomes of analysis and storage
    pub outcomes: Outcomes,
    /// arrival of a frame to its result
    pub latency_us: LatencyUs,
    /// rates
    pub throughput: Throughput,
    /// files of the run
    pub files: Vec<String>,
    /// final results: names, shapes and how many frames they rest on
    #[schema(value_type = Object)]
    pub results: serde_json::Value,
    /// what was derived from the run after its end, where its recipe asks for something
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub derived: Option<serde_json::Value>,
    /// device that computed
    pub device: String,
    /// from armed to closed
    pub seconds: f64,
    /// payload-sized copies between ring and device
    pub device_copies: u64,
    /// what an RDMA source counted during the run; nothing that is 0
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rdma: BTreeMap<String, u64>,
    /// what a DECTRIS source counted during the run; nothing that is 0
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dectris: BTreeMap<String, u64>,
    /// what a UDP source counted during the run; nothing that is 0
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub udp: BTreeMap<String, u64>,
    /// frames sent on to other programs, and those that nobody took in time
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub emitted: BTreeMap<String, u64>,
    /// what became of the modules where several sources make one frame
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub assembly: BTreeMap<String, u64>,
    /// values by frame number: which, and of how many frames
    #[serde(skip_serializing_if = "MetadataSummary::is_empty")]
    pub metadata: MetadataSummary,
    /// what the rules decided
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// how many more decisions there were
    #[serde(skip_serializing_if = "is_zero")]
    pub decisions_not_kept: u64,
    /// what somebody should know
    pub warnings: Vec<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Tracker counts that anybody may read while the receiving thread owns the tracker.
#[derive(Debug, Default)]
pub struct LiveCounts([AtomicU64; 9]);

impl LiveCounts {
    pub(crate) fn expecting(frames: u64) -> Self {
        let counts = Self::default();
        counts.0[8].store(frames, Relaxed);
        counts
    }

    pub(crate) fn set(&self, counts: &Counts) {
        let values = [
            counts.complete,
            counts.partial,
            counts.corrupt,
            counts.lost,
            counts.duplicate,
            counts.late,
            counts.stale,
            counts.unexpected,
            counts.expected,
        ];
        for (cell, value) in self.0.iter().zip(values) {
            cell.store(value, Relaxed);
        }
    }

    /// The counts now.
    pub fn get(&self) -> Counts {
        let at = |i: usize| self.0[i].load(Relaxed);
        Counts {
            expected: at(8),
            complete: at(0),
            partial: at(1),
            corrupt: at(2),
            lost: at(3),
            duplicate: at(4),
            late: at(5),
            stale: at(6),
            unexpected: at(7),
        }
    }
}

/// Everything about a run that other threads may look at.
pub struct ActiveRun {
    /// identity and metadata
    pub info: RunInfo,
    /// what the source said
    pub stream: StreamDescription,
    /// mask of the run
    pub mask: frame::PixelMask,
    /// axes of the result curves
    pub axes: Vec<crate::storage::CurveAxis>,
    /// datasets that the run writes, known before frame 0
    pub datasets: Vec<crate::storage::DatasetInfo>,
    /// frame by frame
    pub ledger: Ledger,
    /// values by frame number that came with the stream or by HTTP
    pub metadata: Arc<FrameMetadata>,
    /// tracker counts
    pub counts: LiveCounts,
    /// results for consumers
    pub hub: FeedbackHub,
    /// parameters that may change while it records
    pub live: Arc<LiveParameters>,
    /// scores of a grid scan
    pub grid: Option<Arc<GridScan>>,
    /// what the recipe finds out about the run as a whole
    pub found: Arc<Findings>,
    /// what the rules make of the results
    pub decisions: Decisions,
    /// events for consumers
    pub events: EventLog,
    /// the newest frame
    pub latest: ArrayQueue<FrameLease>,
    /// the newest frame that is a hit, where the recipe tells hits
    pub latest_hit: ArrayQueue<FrameLease>,
    /// pictures and curves so far; workers only ever try this lock
    pub snapshot: Mutex<Snapshot>,
    /// folder of the run
    pub folder: std::path::PathBuf,
    /// turns of the receiving thread: they grow as long as it lives, with frames and without
    pub turns: AtomicU64,
    /// payload bytes received
    pub bytes: AtomicU64,
    /// payload-sized copies between ring and device
    pub copies: AtomicU64,
    pub(crate) state: AtomicU8,
    pub(crate) way: AtomicU8,
    pub(crate) stop: AtomicBool,
    pub(crate) abort: AtomicBool,
    pub(crate) first_ns: AtomicU64,
    pub(crate) last_ns: AtomicU64,
    pub(crate) latency: Mutex<LatencyUs>,
    pub(crate) summary: Mutex<Option<Summary>>,
    pub(crate) warnings: Mutex<Vec<String>>,
    /// what the source had counted of its own when it ended
    pub(crate) source_counts: Mutex<BTreeMap<String, u64>>,
    pub(crate) queues: [AtomicU64; 2],
    /// workers that have a batch in hand
    pub(crate) working: AtomicU64,
    pub(crate) counters: Vec<(&'static str, Counter)>,
    pub(crate) levels: Vec<(&'static str, Level)>,
}

impl ActiveRun {
    /// State now.
    pub fn state(&self) -> RunState {
        RunState::ALL[usize::from(self.state.load(SeqCst)).min(RunState::ALL.len() - 1)]
    }

    pub(crate) fn set_state(&self, state: RunState) {
        self.state.store(state as u8, SeqCst);
    }

    /// Numbers of the recipe that go up and down, as they are now, by name.
    pub fn levels(&self) -> BTreeMap<&'static str, f64> {
        self.levels.iter().map(|(name, level)| (*name, level.get())).collect()
    }

    /// What the recipe has counted so far, by name.
    pub fn counted(&self) -> BTreeMap<&'static str, u64> {
        let counted = |(name, counter): &(&'static str, Counter)| (*name, counter.load(Relaxed));
        self.counters.iter().map(counted).collect()
    }

    /// Ends the run early; everything so far is kept.
    pub fn stop(&self) {
        self.stop.store(true, SeqCst);
    }

    /// Ends the run now and marks it as aborted.
    pub fn abort(&self) {
        self.abort.store(true, SeqCst);
        self.stop.store(true, SeqCst);
    }

    /// Which way frames are analysed now.
    pub fn way(&self) -> Way {
        match self.way.load(SeqCst) {
            0 => Way::Kernels,
            1 => Way::Fused,
            _ => Way::Host,
        }
    }

    /// The device has failed; the host goes on in its place.
    pub(crate) fn device_failed(&self, reason: &str, retry: Duration) {
        self.way.store(Way::Host as u8, SeqCst);
        self.degraded(format!(
            "the device failed ({reason}): the host analyses in its place, and the device is tried again every {} s",
            retry.as_secs_f64()
        ));
    }

    /// The device takes none of the recipe; the host does it all.
    pub(crate) fn device_refused(&self, reason: &str) {
        self.way.store(Way::Host as u8, SeqCst);
        self.degraded(format!(
            "the device cannot be used ({reason}): the host analyses in its place, and the next run tries the device again"
        ));
    }

    /// The device works again.
    pub(crate) fn device_back(&self) {
        self.way.store(Way::Kernels as u8, SeqCst);
        self.events.add("device_back", json!({}));
    }

    /// What a grid scan says now, and its pictures brought up to it; nothing where the run is none.
    pub(crate) fn look_at_grid(&self, insists: bool) -> Option<Arc<GridAnswer>> {
        let grid = self.grid.as_ref()?;
        let answer = grid.look(&self.metadata, insists);
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        grid.show(&mut snapshot.images);
        Some(answer)
    }

    /// Tells what a grid scan says, as an event and in the summary, unless that has just been told.
    pub(crate) fn tell_grid(&self) -> Option<Arc<GridAnswer>> {
        let answer = self.look_at_grid(true)?;
        let told = json!(*answer);
        if self.found.all().get(GRID) != Some(&told) {
            self.found.tell(GRID, told);
        }
        Some(answer)
    }

    /// Whether somebody asked for the end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Latency so far.
    pub fn latency(&self) -> LatencyUs {
        *self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's latency so far; skipped while somebody reads.
    pub fn offer_latency(&self, histogram: &Histogram<u64>) {
        if let Ok(mut latency) = self.latency.try_lock() {
            *latency = LatencyUs::of(histogram);
        }
    }

    /// Frames waiting for analysis and for storage.
    pub fn waiting(&self) -> (u64, u64) {
        (self.queues[0].load(Relaxed), self.queues[1].load(Relaxed))
    }

    /// Whether live results are being made or still wait: whoever else wants the device lets them go first.
    pub fn comes_first(&self) -> bool {
        self.state() == RunState::Recording && (self.waiting().0 > 0 || self.working.load(Relaxed) > 0)
    }

    /// Mean rates from the first arrival to the last.
    pub fn throughput(&self) -> Throughput {
        let (first, last) = (self.first_ns.load(Relaxed), self.last_ns.load(Relaxed));
        let received = self.ledger.outcomes().received;
        if received < 2 || last <= first {
            return Throughput::default();
        }
        let seconds = (last - first) as f64 / 1e9;
        // The first arrival starts the clock, so it is not counted in the rate.
        let share = (received - 1) as f64 / received as f64;
        Throughput {
            frames_per_s: (received - 1) as f64 / seconds,
            bytes_per_s: self.bytes.load(Relaxed) as f64 * share / seconds,
        }
    }

    /// How it ended; `None` before that.
    pub fn summary(&self) -> Option<Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says once that something is not as it should be.
    pub fn degraded(&self, message: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < 100 && !warnings.contains(&message) {
            tracing::warn!("{message}");
            self.events.add("degraded", json!({ "message": message }));
            warnings.push(message);
        }
    }

    /// Takes a result, or nothing where none has come for a while, to the rules.
    pub(crate) fn decide(&self, result: Option<(&Arc<ResultMessage>, u64)>) -> Decided {
        // A result that is not on its way any more, though its frame was analysed, was missed by the hub.
        let missed = |analysis| result.is_none() && analysis == Analysis::Done;
        let never = |entry: &Entry| {
            let gone = matches!(entry.state, "lost" | "corrupt");
            gone || matches!(entry.analysis, Analysis::Shed | Analysis::Failed) || missed(entry.analysis)
        };
        let fate = |frame| match self.ledger.entry(frame).is_none_or(|entry| never(&entry)) {
            true => Fate::Never,
            false => Fate::Coming,
        };
        self.decisions.take(result, fate, monotonic_ns)
    }

    /// Tells what the rules have decided, and does it.
    pub(crate) fn decided(&self, decided: &Decided) {
        for sentence in &decided.refused {
            self.degraded(format!("a rule is not in force: {sentence}"));
        }
        for decision in &decided.decisions {
            self.events.add("decision", json!(decision));
        }
        match decided.action() {
            Action::Tell => {}
            Action::Stop => self.stop(),
            Action::Abort => self.abort(),
        }
    }

    /// What somebody should know.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a run whose threads all ended well is not complete after all.
    pub(crate) fn incomplete(&self, results_failed: u64) -> Option<String> {
        let (frames, outcomes) = (self.counts.get(), self.ledger.outcomes());
        let received = frames.complete + frames.partial + frames.corrupt;
        let analysed = outcomes.done + outcomes.shed + outcomes.analysis_failed;
        let settled = outcomes.synced + outcomes.vetoed + outcomes.storage_failed;
        // Corrupt frames are kept apart and not in the files.
        let not_stored = outcomes.storage_failed.saturating_sub(frames.corrupt);
        if not_stored > 0 || results_failed > 0 {
            return Some(format!(
                "{not_stored} frames and {results_failed} results could not be stored"
            ));
        }
        ((analysed, settled) != (received, received)).then(|| {
            format!("the books do not close: {received} frames received, {analysed} analysed or let go, {settled} stored or let go")
        })
    }
}
