//! A run, from arm to end. Read this file from top to bottom to follow a frame:
//!
//! 1. [`arm`] makes everything that the run needs: source, ring, recipe, files, queues, threads.
//! 2. [`receive`] takes frames from the source, gives each a receipt and a place in the ledger, and hands
//!    its lease to a worker and to the writer.
//! 3. [`crate::worker::work`] runs the recipe on micro-batches; results go to the feedback hub and the writer.
//! 4. [`crate::writer::write`] puts frames and results into the run's files.
//! 5. [`finish`] waits for all of them and closes the books.
//!
//! Steps 2 to 4 are the data plane: one thread each, bounded queues, nothing allocated, no lock waited for.

use crate::acknowledgements;
use crate::active_run::{ActiveRun, LatencyUs, LiveCounts, RunState, Summary};
use crate::afterwards::Left;
use crate::books::{Books, Seen};
use crate::cores::Cores;
use crate::data_plane;
use crate::decisions::{Decided, Decisions, Names, RulesInForce};
use crate::emit::EmitHandle;
use crate::feedback::events::EventLog;
use crate::feedback::hub::FeedbackHub;
use crate::frame_metadata::FrameMetadata;
use crate::late::{Late, LateFrom};
use crate::ledger::{Analysis, Ledger};
use crate::metrics::Metrics;
use crate::recipes::Prepared;
use crate::storage::{CurveAxis, DiskWatch, RunInfo, RunWriter};
use crate::worker::{Work, Worker, WorkerParts};
use crate::writer::{ToWriter, Writer};
use crossbeam_channel::{Sender, bounded};
use crossbeam_queue::ArrayQueue;
use driver::clock::monotonic_ns;
use driver::memory::{FrameLease, FrameRing};
use driver::source::{Arrival, FrameSource, WhenFull};
use driver::tracker::{FrameState, Receipt, Tracker};
use frame::{FrameResult, ResultLayout};
use hdrhistogram::Histogram;
use kernels::Accelerator;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames that may overtake each other before one counts as lost (RELIABILITY: reorder window).
pub const REORDER_WINDOW: u64 = 64;

/// The window of a run. A recipe that needs its frames in order holds those that came too early: never more than half the
/// ring, or the frame that it waits for would find no slot.
fn reorder_window(ordered: bool, slots: usize) -> u64 {
    if ordered {
        REORDER_WINDOW.min(slots as u64 / 2)
    } else {
        REORDER_WINDOW
    }
}

/// What [`arm`] takes.
pub struct RunParts {
    /// identity and metadata
    pub info: RunInfo,
    /// armed source
    pub source: Box<dyn FrameSource>,
    /// what its frames carry as epoch
    pub epoch: u32,
    /// memory
    pub ring: FrameRing,
    /// whether the source waits or drops when the ring is full
    pub when_full: WhenFull,
    /// device
    pub accelerator: Accelerator,
    /// whether the recipe needs its frames in order
    pub ordered: bool,
    /// the recipe, ready
    pub recipe: Prepared,
    /// most frames per batch
    pub batch_limit: usize,
    /// time after which a device that failed is tried again
    pub device_retry: Duration,
    /// files, created
    pub files: RunWriter,
    /// folder of the run
    pub folder: std::path::PathBuf,
    /// which thread goes where
    pub cores: Cores,
    /// results kept for consumers
    pub results_kept: usize,
    /// what is decided from results
    pub rules: RulesInForce,
    /// process metrics
    pub metrics: Metrics,
    /// what RDMA sources had counted before the run was armed
    pub rdma_before: BTreeMap<String, u64>,
    /// what DECTRIS sources had counted before the run was armed
    pub dectris_before: BTreeMap<String, u64>,
    /// what UDP sources had counted before the run was armed
    pub udp_before: BTreeMap<String, u64>,
    /// where frames are sent on to
    pub emit: Option<EmitHandle>,
    /// how long values by frame number may follow the last frame
    pub metadata_wait: Duration,
    /// what somebody should know already
    pub warnings: Vec<String>,
}

/// A run whose threads stand ready.
pub struct Run {
    /// the view for other threads
    pub active: Arc<ActiveRun>,
    go: Arc<Barrier>,
    receiver: JoinHandle<Result<(), String>>,
    workers: Vec<JoinHandle<Histogram<u64>>>,
    writer: JoinHandle<Writer>,
    feedback: JoinHandle<()>,
    books: Books,
    disk: DiskWatch,
    /// until the last frame has come
    late: Option<Late>,
    device: String,
    metadata_wait: Duration,
    /// what is left to do when the run is closed
    pub left: Left,
}

/// What rules may ask for.
fn names(layout: &ResultLayout, axes: &[CurveAxis]) -> Names {
    let scalars = layout
        .scalars
        .iter()
        .map(|scalar| (scalar.name.clone(), scalar.unit.clone()));
    Names {
        scalars: scalars.collect(),
        // A picture of the whole run may have axes, too.
        curve: axes
            .iter()
            .find(|axis| layout.curves.iter().any(|curve| curve.name == axis.curve))
            .map(|axis| (axis.curve.clone(), axis.values.clone())),
    }
}

/// Makes the run's queues and threads. When it returns, every thread has touched all that it needs and
/// waits for [`Run::record`].
pub fn arm(parts: RunParts) -> Result<Run, String> {
    let RunParts {
        mut source,
        ring,
        recipe,
        accelerator,
        metrics,
        cores,
        ..
    } = parts;
    let Prepared {
        layout,
        axes,
        operations,
        host,
        again,
        device_refused,
        snapshot,
        mask,
        counters,
        levels,
        may_veto,
        grid,
        live,
        found,
        afterwards,
        ..
    } = recipe;
    let ordered = parts.ordered;
    let stream = source.stream().clone();
    let slots = ring.slots();

    // Results go round: to the hub and the writer and back to their worker when both have let go. The pool
    // covers both queues and a batch, so a worker never finds it empty.
    let (hub_capacity, worker_count) = (256, operations.len());
    let results_per_worker = hub_capacity + slots + 4 * parts.batch_limit;

    // Every queue holds more than the ring has slots: the ring alone pushes back.
    let (work, to_work) = bounded::<Work>(2 * slots + REORDER_WINDOW as usize);
    let (to_writer, for_writer) = bounded::<ToWriter>(2 * slots + worker_count * results_per_worker);
    let (to_hub, for_hub) = bounded::<Arc<FrameResult>>(hub_capacity);

    let metadata = Arc::new(FrameMetadata::new(stream.frames_expected));
    let disk = parts.files.disk();
    let active = Arc::new(ActiveRun {
        ledger: Ledger::new(stream.frames_expected, monotonic_ns()),
        metadata: metadata.clone(),
        counts: LiveCounts::expecting(stream.frames_expected),
        hub: FeedbackHub::new(layout.clone(), parts.results_kept, metadata, grid.clone()),
        decisions: Decisions::new(parts.rules, names(&layout, &axes)),
        events: EventLog::default(),
        latest: ArrayQueue::new(1),
        latest_hit: ArrayQueue::new(1),
        snapshot: Mutex::new(snapshot),
        folder: parts.folder,
        turns: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        copies: AtomicU64::new(0),
        state: AtomicU8::new(RunState::Armed as u8),
        stop: AtomicBool::new(false),
        abort: AtomicBool::new(false),
        way: AtomicU8::default(),
        first_ns: AtomicU64::new(0),
        last_ns: AtomicU64::new(0),
        latency: Mutex::new(LatencyUs::default()),
        summary: Mutex::new(None),
        warnings: Mutex::new(Vec::new()),
        source_counts: Mutex::default(),
        queues: Default::default(),
        working: Default::default(),
        counters,
        levels,
        grid,
        live,
        found: found.clone(),
        datasets: parts.files.datasets(),
        mask,
        axes,
        info: parts.info,
        stream,
    });
    found.belong_to(&active);
    for warning in parts.warnings {
        active.degraded(warning);
    }

    if let Some(emit) = &parts.emit {
        emit.begin(&active.stream);
    }
    let go = Arc::new(Barrier::new(worker_count + 3));
    let mut workers = Vec::with_capacity(worker_count);
    let mut host = host.into_iter();
    if let Some(reason) = &device_refused {
        active.device_refused(reason);
    }
    let late = Late {
        run: active.clone(),
        from: (0..worker_count).map(|_| LateFrom::default()).collect(),
        waiting: to_work.clone(),
        work: work.clone(),
        to_writer: to_writer.clone(),
        ring: ring.clone(),
    };
    for (index, operations) in operations.into_iter().enumerate() {
        let host = host.next().flatten();
        let mut worker = Worker::new(WorkerParts {
            run: &active,
            accelerator: &accelerator,
            ring: &ring,
            operations,
            host,
            again: again.clone(),
            index,
            layout: &layout,
            results: results_per_worker,
            batch_limit: parts.batch_limit,
            device_retry: parts.device_retry,
            ordered,
            late_from: late.from[index].clone(),
            work: to_work.clone(),
            to_hub: to_hub.clone(),
            to_writer: to_writer.clone(),
            metrics: metrics.clone(),
        })?;
        let (go, core) = (go.clone(), cores.worker(index));
        workers.push(spawn(&format!("work-{index}"), move || {
            crate::cores::pin(core);
            worker.warm();
            go.wait();
            worker.work()
        })?);
    }
    drop(to_hub);

    let mut writer = Writer::new(
        &active,
        parts.files,
        for_writer.clone(),
        metrics.clone(),
        worker_count + 1,
        may_veto.then(|| VecDeque::with_capacity(2 * slots)),
    )
    .map_err(|error| error.to_string())?;
    let (barrier, core) = (go.clone(), cores.writer);
    let writer = spawn("write", move || {
        crate::cores::pin(core);
        driver::memory::warm(&writer.queue);
        barrier.wait();
        writer.write();
        writer
    })?;

    let (barrier, core, run, epoch, when_full) =
        (go.clone(), cores.receive, active.clone(), parts.epoch, parts.when_full);
    let received_ring = ring.clone();
    let emit = parts.emit.clone();
    let receiver = spawn("receive", move || {
        crate::cores::pin(core);
        barrier.wait();
        let queues = Outlets {
            work,
            to_writer,
            workers: worker_count,
            ordered,
            emit,
        };
        let received = receive(&run, source.as_mut(), &received_ring, epoch, when_full, &queues);
        for remark in source.remarks() {
            run.degraded(remark);
        }
        let counts = source.counts();
        *run.source_counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        received
    })?;

    let (hub_run, latency) = (active.clone(), metrics.decision_latency.clone());
    let feedback = spawn("feedback", move || {
        let tell = |decided: Decided| {
            hub_run.decided(&decided);
            let ages = decided.decisions.iter().map(|decision| decision.age_us as f64 / 1e6);
            ages.for_each(|seconds| latency.observe(seconds));
        };
        hub_run.hub.serve(&for_hub, |result| tell(hub_run.decide(result)));
        tell(hub_run.decisions.finish(monotonic_ns));
        hub_run.tell_grid();
    })?;
    active
        .events
        .add("armed", json!({ "run": active.info.id, "datasets": active.datasets }));
    Ok(Run {
        active: active.clone(),
        disk,
        go,
        receiver,
        workers,
        writer,
        feedback,
        late: Some(late),
        device: accelerator.info().name.clone(),
        metadata_wait: parts.metadata_wait,
        left: Left {
            work: afterwards,
            raw: None,
        },
        books: Books {
            active,
            queues: (to_work, for_writer),
            ring,
            rdma_before: parts.rdma_before,
            dectris_before: parts.dectris_before,
            udp_before: parts.udp_before,
            emit: parts.emit,
            metrics,
            seen: Seen::default(),
        },
    })
}

fn spawn<T: Send + 'static>(role: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, String> {
    std::thread::Builder::new()
        .name(format!("fluxline-{role}"))
        .spawn(body)
        .map_err(|error| format!("cannot start the thread fluxline-{role}: {error}"))
}

/// Where the receiving thread hands frames on to.
struct Outlets {
    work: Sender<Work>,
    to_writer: Sender<ToWriter>,
    workers: usize,
    ordered: bool,
    emit: Option<EmitHandle>,
}

/// The receiving thread: source → tracker → ledger → worker and writer.
fn receive(
    run: &ActiveRun,
    source: &mut dyn FrameSource,
    ring: &FrameRing,
    epoch: u32,
    when_full: WhenFull,
    outlets: &Outlets,
) -> Result<(), String> {
    let window = reorder_window(outlets.ordered, ring.slots());
    let mut tracker = Tracker::new(epoch, run.ledger.expected(), window);
    let guard = data_plane::enter();
    let mut outcome = Ok(());
    while !run.stopping() {
        run.turns.fetch_add(1, Relaxed);
        match source.next(ring, when_full) {
            Ok(Arrival::Frame(lease)) => take(run, &mut tracker, lease, ring, when_full, outlets),
            Ok(Arrival::Dropped { frame_number }) => tracker.on_dropped(frame_number),
            Ok(Arrival::Idle) => {}
            Ok(Arrival::End) => break,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
        settle_lost(run, &mut tracker, outlets);
        run.counts.set(tracker.counts());
    }
    if run.stopping() && source.stream().pausable {
        tracker.end_early(); // what was not sent is not lost
    } else {
        tracker.finish();
    }
    settle_lost(run, &mut tracker, outlets);
    run.counts.set(tracker.counts());
    // The writer and the workers hold the other ends until they have seen this.
    for _ in 0..outlets.workers {
        let _ = outlets.work.send(Work::End);
    }
    let _ = outlets.to_writer.send(ToWriter::End);
    drop(guard);
    outcome.map_err(|error| error.to_string())
}

/// One arrived frame: receipt, ledger, and on to whoever needs it.
fn take(
    run: &ActiveRun,
    tracker: &mut Tracker,
    lease: FrameLease,
    ring: &FrameRing,
    when_full: WhenFull,
    outlets: &Outlets,
) {
    let header = lease.header();
    let (number, arrival_ns) = (header.frame_number.get(), header.arrival_time_ns.get());
    let Receipt::Accepted(state) = tracker.on_frame(header, lease.intact()) else {
        return; // duplicate, late, stale or unexpected: counted, and the slot is free again
    };
    if run.first_ns.load(Relaxed) == 0 {
        run.first_ns.store(arrival_ns, Relaxed);
        run.set_state(RunState::Recording);
    }
    run.last_ns.store(arrival_ns, Relaxed);
    run.bytes.fetch_add(header.payload_bytes.get(), Relaxed);
    run.ledger.receipt(number, state, arrival_ns);
    run.ledger.parts_missing(number, header.parts_missing.get());
    if state == FrameState::Partial {
        run.ledger.missing(number, header.missing_bytes.get());
    }
    run.metadata.hardware_time(number, header.detector_time_ns.get());
    for note in lease.notes() {
        run.metadata.note(number, note);
    }
    // Those that this one has overtaken by too much go first: who needs frames in order never waits for them.
    settle_lost(run, tracker, outlets);
    if state == FrameState::Corrupt {
        run.ledger.analysed(number, Analysis::Failed, 0);
        skip(outlets);
        let _ = outlets.to_writer.send(ToWriter::Corrupt(lease));
        return;
    }
    run.latest.force_push(lease.clone());
    if let Some(emit) = &outlets.emit {
        emit.offer(&lease);
    }
    // The writer knows a frame before anybody can decide on it.
    let _ = outlets.to_writer.send(ToWriter::Frame(lease.clone()));
    // Where the source cannot wait, analysis gives way before frames are lost.
    let overloaded = when_full == WhenFull::Drop && ring.free() < ring.slots() / 4;
    if overloaded && outlets.work.len() > ring.slots() / 4 {
        run.ledger.analysed(number, Analysis::Shed, 0);
        skip(outlets);
        let _ = outlets.to_writer.send(ToWriter::Undecided(number));
    } else {
        let _ = outlets.work.send(Work::Frame(lease));
    }
}

/// A worker that needs frames in order must not wait for one that the ledger says is gone. Where the queue is full it looks
/// there anyway, before it has come through: then it need not be told, and nobody waits for a device that hangs.
fn skip(outlets: &Outlets) {
    if outlets.ordered {
        fence(SeqCst);
        let _ = outlets.work.try_send(Work::Skip);
    }
}

/// Enters frames into the ledger that the tracker has given up.
fn settle_lost(run: &ActiveRun, tracker: &mut Tracker, outlets: &Outlets) {
    while let Some(frame) = tracker.next_lost() {
        run.ledger.receipt(frame, FrameState::Lost, 0);
        skip(outlets);
    }
}

impl Run {
    /// Lets the frames come and returns when the run is closed and on disk.
    pub fn record(mut self) -> Summary {
        let started = Instant::now();
        let active = self.active.clone();
        self.go.wait();
        let mut said_first = false;
        let mut next_progress = started + Duration::from_secs(1);
        while !(self.receiver.is_finished() && self.workers.iter().all(JoinHandle::is_finished)) {
            self.books.carry_over();
            // Its ends of the queues would keep the workers waiting.
            if self.receiver.is_finished() {
                self.late = None;
            }
            self.late.iter().for_each(Late::look);
            active.metadata.drain();
            self.disk.look().into_iter().for_each(|text| active.degraded(text));
            if !said_first && active.state() == RunState::Recording {
                said_first = true;
                active.events.add("first_frame", json!({}));
            }
            if Instant::now() >= next_progress {
                next_progress += Duration::from_secs(1);
                active.events.add("progress", json!(active.counts.get()));
                active.look_at_grid(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let ended = Ended {
            stopped: active.stopping(),
            aborted: active.abort.load(SeqCst),
        };
        active.set_state(RunState::Finishing);
        if !ended.aborted {
            self.wait_for_metadata();
        }
        finish(self, started, ended)
    }

    /// The last frame has come: values may follow it for as long as the configuration says, until somebody says that
    /// those were the last ones, or wants the run to end.
    fn wait_for_metadata(&self) {
        let until = Instant::now() + self.metadata_wait;
        let ask = || (self.active.stopping(), self.active.abort.load(SeqCst));
        let asked = ask();
        while Instant::now() < until && !self.active.metadata.last() && ask() == asked {
            self.active.metadata.drain();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How the frames ended.
struct Ended {
    stopped: bool,
    aborted: bool,
}

/// Waits for every thread, closes the files and the books.
fn finish(run: Run, started: Instant, ended: Ended) -> Summary {
    let Run {
        active,
        receiver,
        workers,
        writer,
        feedback,
        mut books,
        device,
        ..
    } = run;
    let mut failed = match receiver.join() {
        Ok(received) => received.err(),
        Err(_) => Some("the receiving thread panicked".to_string()),
    };
    let mut latency: Option<Histogram<u64>> = None;
    for worker in workers {
        match (worker.join(), &mut latency) {
            // Histograms of one layout always add.
            (Ok(histogram), Some(sum)) => sum.add(&histogram).unwrap_or_default(),
            (Ok(histogram), None) => latency = Some(histogram),
            (Err(_), _) => failed = Some("a worker panicked".to_string()),
        }
    }
    let emitted = books.emit.as_ref().map(EmitHandle::end).unwrap_or_default();
    if emitted.get("dropped").is_some_and(|frames| *frames > 0) {
        active.degraded(format!(
            "{} frames were not sent on: nobody took them in time",
            emitted["dropped"]
        ));
    }
    // A frame held for the page would keep its slot beyond the run.
    drop((active.latest.pop(), active.latest_hit.pop()));
    let writer = writer.join();
    let results_failed = writer.as_ref().map_or(0, |writer| writer.results_failed);
    let failed = failed.or_else(|| active.incomplete(results_failed));
    // The hub ends when the workers have hung up.
    let _ = feedback.join();
    let state = match (&failed, ended.aborted, ended.stopped) {
        (Some(_), ..) => RunState::Failed,
        (None, true, _) => RunState::Aborted,
        (None, false, true) => RunState::Stopped,
        (None, false, false) => RunState::Complete,
    };
    if let Some(error) = &failed {
        active.degraded(error.clone());
    }
    active.metadata.seal();
    // Values by frame number may have come since the last frame.
    if let Some(answer) = active.tell_grid().filter(|answer| !answer.complete) {
        active.degraded(answer.gaps());
    }
    let (decisions, decisions_not_kept) = active.decisions.list();
    let mut summary = Summary {
        run: active.info.id.clone(),
        state: state.name(),
        frames: active.counts.get(),
        outcomes: active.ledger.outcomes(),
        latency_us: latency.as_ref().map(LatencyUs::of).unwrap_or_default(),
        throughput: active.throughput(),
        files: Vec::new(),
        results: results(&active),
        derived: None,
        device,
        seconds: started.elapsed().as_secs_f64(),
        device_copies: active.copies.load(Relaxed),
        rdma: books.metrics.rdma.since(&books.rdma_before),
        dectris: books.metrics.dectris.since(&books.dectris_before),
        udp: books.metrics.udp.since(&books.udp_before),
        emitted,
        decisions,
        decisions_not_kept,
        metadata: active.metadata.summary(),
        assembly: active
            .source_counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
        warnings: active.warnings(),
    };
    let closed = match writer {
        Ok(writer) => writer.close(&active, &summary).map_err(|error| error.to_string()),
        Err(_) => Err("the writer panicked".to_string()),
    };
    match closed {
        Ok(files) => summary.files = files,
        Err(error) => {
            active.degraded(error);
            active.ledger.storage_failed_after_all();
            summary.state = RunState::Failed.name();
            summary.outcomes = active.ledger.outcomes();
        }
    }
    summary.warnings = active.warnings();
    summary.seconds = started.elapsed().as_secs_f64();
    books.carry_over();
    // Only now is it known: it shrinks when a run is stopped early, and a counter must not.
    let expected = books.metrics.frames.with_label_values(&["expected"]);
    expected.inc_by(summary.frames.expected);
    books.metrics.runs.with_label_values(&[summary.state]).inc();
    active.events.add("file_closed", json!({ "files": summary.files }));
    active
        .events
        .add("end", json!({ "state": summary.state, "frames": summary.frames }));
    *active.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary.clone());
    active.set_state(if summary.state == RunState::Failed.name() {
        RunState::Failed
    } else {
        state
    });
    // Noted since the record was made: from here on whoever notes one keeps it there, too.
    let noted = active.decisions.list().0.into_iter().zip(&summary.decisions);
    for (late, _) in noted.filter(|(now, then)| then.acknowledged.is_none() && now.acknowledged.is_some()) {
        if let Err(error) = acknowledgements::keep(&active.folder, &late) {
            active.degraded(format!(
                "who took note of decision {} is not kept: {error}",
                late.sequence
            ));
        }
    }
    summary
}

/// Names, shapes and shares of data of what the recipe leaves behind.
fn results(run: &ActiveRun) -> serde_json::Value {
    let snapshot = run.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
    let images = snapshot.images.iter().map(|image| {
        json!({ "name": image.name, "shape": [image.shape.rows, image.shape.columns], "unit": image.unit,
                "frames_used": image.frames_used, "frames_expected": image.frames_expected })
    });
    let curves = snapshot
        .curves
        .iter()
        .map(|curve| json!({ "name": curve.name, "length": curve.values.len(), "frames_used": curve.frames_used }));
    json!({ "images": images.collect::<Vec<_>>(), "curves": curves.collect::<Vec<_>>(), "counters": run.counted(),
            "levels": run.levels(),
            "parameters_changed": run.live.changed(), "found": run.found.all() })
}
