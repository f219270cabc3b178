//! A worker: takes whatever is waiting up to the batch limit, shows it to the device, runs the recipe, and
//! hands the results on. An idle pipeline so has the latency of one frame and a loaded one the throughput of
//! a batch.

use crate::active_run::{ActiveRun, Way};
use crate::data_plane;
use crate::in_order::InOrder;
use crate::late::LateFrom;
use crate::ledger::Analysis;
use crate::metrics::Metrics;
use crate::recipes::{Again, Batch, HostOperation, Leased, Operation};
use crate::run::REORDER_WINDOW;
use crate::writer::ToWriter;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use driver::clock::monotonic_ns;
use driver::memory::{FrameLease, FrameRing};
use frame::{Compression, FrameKind, FrameResult, HostRegion, ResultLayout, StreamDescription, codec};
use hdrhistogram::Histogram;
use kernels::{Accelerator, AcceleratorError, AddError, Queue, Stager};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Least time between two snapshots for the page.
const SNAPSHOT_NS: u64 = 100_000_000;
/// What the device may take for any batch, where another way takes its place, and where none does.
const LIMIT_NS: u64 = 1_000_000_000;
const LIMIT_ALONE_NS: u64 = 30_000_000_000;
/// What it may take for what is left at the end of the run: nobody waits for frames then.
const LIMIT_END: Duration = Duration::from_secs(300);

/// What a worker is given.
pub enum Work {
    /// a frame to analyse
    Frame(FrameLease),
    /// some frame will not come, as the ledger says: whoever needs them in order looks there and goes on without it
    Skip,
    /// no more will come
    End,
}

/// A device's share of a worker.
struct Executor {
    queue: Queue,
    stager: Stager,
    operations: Vec<Box<dyn Operation>>,
    /// whether the operations' states on the device are those behind the last batch
    in_step: bool,
    /// copies of frames that have been counted
    copies_seen: u64,
}

impl Executor {
    fn new(
        accelerator: &Accelerator,
        operations: Vec<Box<dyn Operation>>,
        region: &Arc<dyn HostRegion>,
        stream: &StreamDescription,
        batch_limit: usize,
    ) -> Result<Self, AcceleratorError> {
        let decoded = stream.compression != Compression::None;
        Ok(Self {
            queue: accelerator.queue()?,
            stager: Stager::new(accelerator, region.clone(), stream.frame_bytes(), batch_limit, decoded)?,
            operations,
            in_step: true,
            copies_seen: 0,
        })
    }
}

/// What a worker is made of and connected to.
pub struct WorkerParts<'a> {
    /// the run's view
    pub run: &'a Arc<ActiveRun>,
    /// device
    pub accelerator: &'a Accelerator,
    /// memory that leases point into
    pub ring: &'a FrameRing,
    /// the recipe
    pub operations: Vec<Box<dyn Operation>>,
    /// the recipe without the device
    pub host: Option<Box<dyn HostOperation>>,
    /// makes the recipe once more, on the host's own processor, when the device has failed
    pub again: Option<Arc<dyn Again>>,
    /// which of the workers it is
    pub index: usize,
    /// layout of results
    pub layout: &'a ResultLayout,
    /// results in this worker's pool
    pub results: usize,
    /// most frames per batch
    pub batch_limit: usize,
    /// time after which a device that failed is tried again
    pub device_retry: Duration,
    /// whether the recipe needs frames in order
    pub ordered: bool,
    /// when its batch is late, for whoever looks after the frames behind it
    pub late_from: LateFrom,
    /// frames
    pub work: Receiver<Work>,
    /// results for consumers; full means that they lose some
    pub to_hub: Sender<Arc<FrameResult>>,
    /// results for the files
    pub to_writer: Sender<ToWriter>,
    /// process metrics
    pub metrics: Metrics,
}

/// A worker's state; everything is made before the first frame.
pub struct Worker {
    run: Arc<ActiveRun>,
    accelerator: Accelerator,
    region: Arc<dyn HostRegion>,
    index: usize,
    /// who runs the recipe now; none where that needs no device
    executor: Option<Executor>,
    /// the host's own processor, as soon as it was needed, while the device works; the device meanwhile
    aside: Option<Executor>,
    /// whether the host's own processor has the device's place
    standing_in: bool,
    /// the operations' states behind the last batch, whoever ran it
    states: Vec<Vec<f32>>,
    host: Option<Box<dyn HostOperation>>,
    again: Option<Arc<dyn Again>>,
    /// whether the device takes none of the operations
    refused: bool,
    /// the batch, as the host's threads share it
    leased: Vec<Leased>,
    /// frames of the batch that the host could not decode
    broken: Vec<(usize, String)>,
    /// when the device is tried again, after it has failed
    device_again_ns: Option<u64>,
    /// how often it has failed since it last worked
    failures: u32,
    in_order: Option<InOrder>,
    late_from: LateFrom,
    work: Receiver<Work>,
    to_hub: Sender<Arc<FrameResult>>,
    to_writer: Sender<ToWriter>,
    metrics: Metrics,
    batch_limit: usize,
    device_retry: Duration,
    waiting: VecDeque<FrameLease>,
    batch: Vec<FrameLease>,
    results: Vec<Arc<FrameResult>>,
    angles: Vec<f64>,
    pool: VecDeque<Arc<FrameResult>>,
    scratch: codec::Scratch,
    latency: Histogram<u64>,
    /// how long the device took for batches
    batch_ns: Histogram<u64>,
    next_snapshot_ns: u64,
    /// of the scalar that says whether a frame is a hit
    hit: Option<usize>,
    ended: bool,
}

impl Worker {
    /// A worker with its own queue on the device.
    pub fn new(parts: WorkerParts<'_>) -> Result<Worker, String> {
        let stream = &parts.run.stream;
        let refused = parts.run.way() == Way::Host;
        if parts.operations.is_empty() && parts.host.is_some() && !refused {
            parts.run.way.store(Way::Fused as u8, SeqCst);
        }
        let region = parts.ring.region();
        let states = parts.operations.iter().map(|operation| operation.state()).collect();
        let made = match parts.operations.is_empty() {
            true => Ok(None),
            false => Executor::new(parts.accelerator, parts.operations, &region, stream, parts.batch_limit).map(Some),
        };
        Ok(Worker {
            run: parts.run.clone(),
            accelerator: parts.accelerator.clone(),
            region,
            index: parts.index,
            executor: made.map_err(|e| e.to_string())?,
            aside: None,
            standing_in: false,
            states,
            host: parts.host,
            again: parts.again,
            refused,
            leased: Vec::with_capacity(parts.batch_limit),
            broken: Vec::with_capacity(parts.batch_limit),
            device_again_ns: None,
            failures: 0,
            in_order: parts.ordered.then(InOrder::new),
            late_from: parts.late_from,
            work: parts.work,
            to_hub: parts.to_hub,
            to_writer: parts.to_writer,
            metrics: parts.metrics,
            batch_limit: parts.batch_limit,
            device_retry: parts.device_retry,
            waiting: VecDeque::with_capacity(2 * REORDER_WINDOW as usize + parts.batch_limit),
            batch: Vec::with_capacity(parts.batch_limit),
            results: Vec::with_capacity(parts.batch_limit),
            angles: Vec::with_capacity(parts.batch_limit),
            pool: (0..parts.results)
                .map(|_| Arc::new(FrameResult::empty(parts.layout)))
                .collect(),
            scratch: codec::Scratch::warmed(stream.compression),
            // 1 µs to 100 s with three digits.
            latency: Histogram::new_with_bounds(1_000, 100_000_000_000, 3).map_err(|e| e.to_string())?,
            batch_ns: Histogram::new_with_bounds(1_000, 100_000_000_000, 2).map_err(|e| e.to_string())?,
            next_snapshot_ns: 0,
            hit: parts.layout.scalars.iter().position(|scalar| scalar.name == "hit"),
            ended: false,
        })
    }

    /// Touches what would otherwise be made at first use.
    pub fn warm(&mut self) {
        driver::memory::warm(&self.work);
        if let Some(host) = &mut self.host {
            host.warm();
        }
    }

    /// Works until the source has ended; returns the latencies, ns.
    pub fn work(mut self) -> Histogram<u64> {
        let guard = data_plane::enter();
        while self.gather() {
            let usual_ns = self.usual_ns();
            let alone = self.standing_in || (self.host.is_none() && self.again.is_none());
            let limit_ns = if alone { LIMIT_ALONE_NS } else { LIMIT_NS };
            let limit = Duration::from_nanos(usual_ns - LIMIT_NS + limit_ns);
            self.late_from.begin(monotonic_ns() + usual_ns);
            self.run.working.fetch_add(1, Relaxed);
            kernels::within(limit, || self.one_batch());
            kernels::within(limit, || self.snapshot_if_due());
            self.run.working.fetch_sub(1, Relaxed);
            self.late_from.end();
        }
        let executor = &mut self.executor;
        let finished = kernels::within(LIMIT_END, || {
            executor.iter_mut().try_for_each(|Executor { queue, operations, .. }| {
                operations.iter_mut().try_for_each(|operation| operation.finish(queue))
            })
        });
        if let Err(error) = finished {
            drop(guard);
            self.run.degraded(error.to_string());
            let _ = self.to_writer.send(ToWriter::End);
            return self.latency;
        }
        drop(guard);
        kernels::within(LIMIT_END, || self.snapshot(true));
        let _ = self.to_writer.send(ToWriter::End);
        self.latency
    }

    /// How long the device may take for this batch, if it works: a second, and time for its pixels however busy the machine
    /// is, and not less than five times what batches have taken. It is given up then, later where that loses the batch.
    fn usual_ns(&self) -> u64 {
        let pixels = (self.run.stream.shape.pixels() * self.batch.len()) as u64;
        (LIMIT_NS + 20 * pixels).max(5 * self.batch_ns.value_at_quantile(0.99))
    }

    /// Fills the batch with frames of one kind: waits for the first, takes what else is there. False at the end.
    fn gather(&mut self) -> bool {
        self.batch.clear();
        while self.waiting.is_empty() {
            if self.ended {
                return false;
            }
            match self.work.recv() {
                Ok(work) => self.accept(work),
                Err(_) => self.ended = true,
            }
        }
        while self.waiting.len() < self.batch_limit && !self.ended {
            match self.work.try_recv() {
                Ok(work) => self.accept(work),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.ended = true,
            }
        }
        let kind = self.waiting.front().map(|lease| lease.header().kind);
        while self.batch.len() < self.batch_limit && self.waiting.front().map(|lease| lease.header().kind) == kind {
            self.batch.extend(self.waiting.pop_front());
        }
        true
    }

    fn accept(&mut self, work: Work) {
        let Some(order) = &mut self.in_order else {
            match work {
                Work::Frame(lease) => self.waiting.push_back(lease),
                Work::Skip => {}
                Work::End => self.ended = true,
            }
            return;
        };
        // Whoever found the queue too full to tell that a frame is gone has said so in the ledger before.
        fence(SeqCst);
        let gone = |frame| self.run.ledger.gone(frame);
        self.waiting.extend(std::iter::from_fn(|| order.take(gone)));
        match work {
            Work::Frame(lease) => order.put(lease),
            Work::Skip => {}
            Work::End => self.ended = true,
        }
        self.waiting.extend(std::iter::from_fn(|| order.take(gone)));
    }

    fn one_batch(&mut self) {
        let started = monotonic_ns();
        let device_due = self.device_again_ns.is_none_or(|again| started >= again);
        if device_due && self.standing_in {
            self.change_places();
        }
        // Without operations frames are recorded as they come: nobody needs their pixels.
        let on_device = self.executor.is_some() && device_due;
        let mut analysed = self.analyse(on_device || self.standing_in);
        let by_device = on_device && analysed.is_ok();
        if on_device {
            analysed = self.after_device(analysed);
        }
        if self.standing_in && analysed.is_err() {
            // Neither way: the next batch begins with the device.
            self.device_again_ns = Some(0);
        }
        // Back to the pool, to be taken again when everybody has let go.
        self.pool.extend(self.results.iter().cloned());
        let now = monotonic_ns();
        if let Err(error) = &analysed {
            self.run.degraded(error.clone());
        }
        for (place, (lease, result)) in self.batch.drain(..).zip(self.results.drain(..)).enumerate() {
            let header = lease.header();
            let latency_ns = now.saturating_sub(header.arrival_time_ns.get());
            let number = header.frame_number.get();
            let broken = self.broken.iter().find(|(broken, _)| *broken == place);
            if let Some((_, reason)) = broken {
                self.run
                    .degraded(format!("frame {number} could not be decoded: {reason}"));
            }
            if analysed.is_err() || broken.is_some() {
                self.run.ledger.analysed(number, Analysis::Failed, latency_ns);
                let _ = self.to_writer.send(ToWriter::Undecided(number));
                continue;
            }
            self.latency.saturating_record(latency_ns);
            self.metrics.result_latency.observe(latency_ns as f64 / 1e9);
            self.run.ledger.analysed(number, Analysis::Done, latency_ns);
            if let Some(grid) = &self.run.grid {
                grid.score(number, &result.scalars, result.partial);
            }
            if self.hit.is_some_and(|hit| result.scalars[hit] == 1.0) {
                // The one before goes back to the ring.
                drop(self.run.latest_hit.force_push(lease));
            }
            if self.to_hub.try_send(result.clone()).is_err() {
                self.run.hub.miss();
            }
            let _ = self.to_writer.send(ToWriter::Result(result));
        }
        if by_device {
            self.batch_ns.saturating_record(now - started);
        }
        for executor in [&mut self.executor, &mut self.aside].into_iter().flatten() {
            let copies = executor.stager.copies();
            self.run.copies.fetch_add(copies - executor.copies_seen, Relaxed);
            executor.copies_seen = copies;
        }
        self.metrics.batch_seconds.observe((now - started) as f64 / 1e9);
    }

    /// Takes note of how the device did. Where it has failed and there is a way without it, the same batch goes that way,
    /// and so do those that follow, until the device is tried again.
    fn after_device(&mut self, analysed: Result<(), String>) -> Result<(), String> {
        let Err(reason) = analysed else {
            self.failures = 0;
            // Where the whole run is the processor's, that has come back, and not the device.
            if self.device_again_ns.take().is_some() && !self.refused {
                self.run.device_back();
            }
            return Ok(());
        };
        kernels::within(Duration::from_nanos(LIMIT_ALONE_NS), || {
            if self.host.is_none() && !self.has_stand_in() {
                // Nobody else analyses: the next batch is tried again at once.
                return Err(reason);
            }
            self.device_again_ns = Some(monotonic_ns() + self.device_retry.as_nanos() as u64);
            self.run.device_failed(&reason, self.device_retry);
            self.failures += 1;
            if self.host.is_none() {
                self.change_places();
            }
            self.analyse(self.standing_in)
        })
    }

    /// Makes the recipe on the host's own processor, where that was not needed before. That takes memory and time: it is made
    /// only when a device has failed.
    fn has_stand_in(&mut self) -> bool {
        if self.aside.is_some() || self.again.is_none() {
            return self.aside.is_some();
        }
        match self.made_on(self.accelerator.stand_in()) {
            Ok(executor) => self.aside = Some(executor),
            Err(reason) => {
                self.again = None;
                self.run.degraded(format!(
                    "the host's processor cannot take the device's place ({reason}): what the device fails on is not analysed"
                ));
            }
        }
        self.aside.is_some()
    }

    /// The recipe made once more.
    fn made_on(&self, device: Result<Accelerator, AcceleratorError>) -> Result<Executor, String> {
        let (device, again) = (device.map_err(|e| e.to_string())?, self.again.as_ref());
        let again = again.ok_or_else(|| "the recipe cannot be made again".to_string())?;
        let operations = again.operations(&device, self.index).map_err(|e| e.to_string())?;
        let (stream, limit) = (&self.run.stream, self.batch_limit);
        let made = Executor::new(&device, operations, &self.region, stream, limit).map_err(|e| e.to_string())?;
        Ok(Executor { in_step: false, ..made })
    }

    /// The host's own processor takes the device's place, or gives it back. Whoever takes over goes on from where the other was.
    fn change_places(&mut self) {
        std::mem::swap(&mut self.executor, &mut self.aside);
        self.standing_in = !self.standing_in;
        self.executor.iter_mut().for_each(|executor| executor.in_step = false);
    }

    /// Runs the recipe on the host.
    fn on_host(&mut self) -> Result<(), String> {
        let Some(host) = &mut self.host else {
            // Nothing to compute.
            return Ok(());
        };
        self.leased.extend(self.batch.iter().cloned().map(Leased));
        let done = host.push(&self.leased, &mut self.results, &mut self.broken);
        self.leased.clear();
        done.map_err(|e| e.to_string())
    }

    /// Shows the batch's pixels to the device; a frame that cannot be decoded leaves the batch.
    fn stage(&mut self) -> Result<(), String> {
        // One that has failed again may be lost to those who opened it before.
        if self.failures > 1 && !self.standing_in && self.again.is_some() {
            self.executor = Some(self.made_on(self.accelerator.opened_anew())?);
        }
        let Some(executor) = &mut self.executor else {
            return Ok(());
        };
        executor.stager.begin().map_err(|e| e.to_string())?;
        let mut failed = Ok(());
        let (run, stager, scratch, to_writer) = (&self.run, &mut executor.stager, &mut self.scratch, &self.to_writer);
        self.batch.retain(|lease| {
            let header = lease.header();
            let beneath = Compression::from_code(header.compression).and_then(codec::Beneath::of);
            let staged = match beneath {
                None => stager
                    .add_in_region(lease.payload_offset())
                    .map_err(AddError::Accelerator),
                Some(beneath) => {
                    let pixel_bytes = run.stream.pixel_type.bytes();
                    stager.add_decoded(|out| codec::decompress(beneath, lease.payload(), pixel_bytes, out, scratch))
                }
            };
            if let Err(AddError::Accelerator(reason)) = &staged {
                // The device's fault, not the frame's.
                failed = Err(reason.to_string());
                return true;
            }
            if let Err(reason) = &staged {
                let number = header.frame_number.get();
                run.degraded(format!("frame {number} could not be decoded: {reason}"));
                run.ledger.analysed(number, Analysis::Failed, 0);
                let _ = to_writer.send(ToWriter::Undecided(number));
            }
            staged.is_ok()
        });
        failed
    }

    /// Takes a free result per frame and writes its heading. The pool covers every queue that results wait in.
    fn take_results(&mut self) {
        self.angles.clear();
        let version = self.run.live.version();
        for lease in &self.batch {
            let header = lease.header();
            // An angle that came as metadata goes before the source's, if it is there by now.
            let told = self.run.metadata.angle_deg(header.frame_number.get());
            let angle_deg = told.unwrap_or(header.angle_deg.get());
            self.angles.push(angle_deg);
            while let Some(mut candidate) = self.pool.pop_front() {
                // Hub and writer have both let go when nobody else holds it.
                if let Some(result) = Arc::get_mut(&mut candidate) {
                    result.frame_number = header.frame_number.get();
                    result.kind = header.frame_kind();
                    result.partial = header.is_partial();
                    result.vetoed = false;
                    result.parameters_version = version;
                    result.angle_deg = angle_deg;
                    result.arrival_time_ns = header.arrival_time_ns.get();
                    result.scalars.fill(f64::NAN);
                    self.results.push(candidate);
                    break;
                }
                self.pool.push_back(candidate);
                std::thread::yield_now();
            }
        }
    }

    /// Runs the recipe: by its operations, or by what the host has instead.
    fn analyse(&mut self, by_operations: bool) -> Result<(), String> {
        // Of an attempt that failed.
        self.pool.extend(self.results.drain(..));
        self.broken.clear();
        let staged = if by_operations { self.stage() } else { Ok(()) };
        self.take_results();
        if self.refused || self.standing_in || (self.executor.is_some() && !by_operations) {
            for lease in &self.batch {
                self.run.ledger.device_failed(lease.header().frame_number.get());
            }
        }
        let outcome = match by_operations {
            _ if self.batch.is_empty() => staged,
            true => staged.and_then(|()| self.operate()),
            false => self.on_host(),
        };
        let now = monotonic_ns();
        for result in &mut self.results {
            if let Some(result) = Arc::get_mut(result) {
                result.result_time_ns = now;
            }
        }
        outcome
    }

    fn operate(&mut self) -> Result<(), String> {
        let Some(executor) = &mut self.executor else {
            return Ok(());
        };
        let Executor {
            queue,
            stager,
            operations,
            in_step,
            ..
        } = executor;
        let frames = stager.finish(queue).map_err(|e| e.to_string())?;
        let resumed = std::mem::replace(in_step, false);
        let kind = self
            .batch
            .first()
            .map_or(FrameKind::Invalid, |lease| lease.header().frame_kind());
        let mut batch = Batch {
            queue,
            frames,
            kind,
            angles_deg: &self.angles,
            results: &mut self.results,
            corrected: None,
        };
        if !resumed {
            let mut states = operations.iter_mut().zip(&self.states);
            let resumed = states.try_for_each(|(operation, state)| operation.resume(queue, state));
            resumed.map_err(|e| e.to_string())?;
        }
        let mut run = operations.iter_mut();
        run.try_for_each(|operation| operation.push(&mut batch))
            .map_err(|e| e.to_string())?;
        let mut kept = operations.iter_mut().zip(&mut self.states);
        kept.try_for_each(|(operation, state)| operation.keep(queue, state))
            .map_err(|e| e.to_string())?;
        *in_step = true;
        for operation in operations {
            operation.settle(&mut self.results);
        }
        Ok(())
    }

    fn snapshot_if_due(&mut self) {
        let now = monotonic_ns();
        if now >= self.next_snapshot_ns {
            self.next_snapshot_ns = now + SNAPSHOT_NS;
            self.run.offer_latency(&self.latency);
            self.snapshot(false);
        }
    }

    /// Writes the running pictures and curves where the page finds them. Before the end it only tries: whoever
    /// reads them now gets the next ones later.
    fn snapshot(&mut self, wait: bool) {
        let run = self.run.clone();
        let locked = if wait {
            Some(run.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
        } else {
            run.snapshot.try_lock().ok()
        };
        let Some(mut snapshot) = locked else { return };
        if let (true, Some(host)) = (self.executor.is_none(), &mut self.host) {
            host.snapshot(&mut snapshot);
        }
        if let Some(Executor { queue, operations, .. }) = &mut self.executor {
            for operation in operations {
                if let Err(error) = operation.snapshot(queue, &mut snapshot) {
                    run.degraded(error.to_string());
                }
            }
        }
        snapshot.version += 1;
    }
}
