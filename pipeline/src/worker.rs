//! A worker: takes whatever is waiting up to the batch limit, shows it to the device, runs the recipe, and
//! hands the results on. An idle pipeline so has the latency of one frame and a loaded one the throughput of
//! a batch.

use crate::active_run::{ActiveRun, Way};
use crate::data_plane;
use crate::ledger::Analysis;
use crate::metrics::Metrics;
use crate::recipes::{Batch, HostOperation, Leased, Operation};
use crate::run::REORDER_WINDOW;
use crate::writer::ToWriter;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use driver::clock::monotonic_ns;
use driver::memory::{FrameLease, FrameRing};
use frame::{Compression, FrameKind, FrameResult, ResultLayout, codec};
use hdrhistogram::Histogram;
use kernels::{Accelerator, AddError, Queue, Stager};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Least time between two snapshots for the page.
const SNAPSHOT_NS: u64 = 100_000_000;
/// What the device may take for any batch, where the host can take its place, and where it cannot.
const LIMIT_NS: u64 = 1_000_000_000;
const LIMIT_ALONE_NS: u64 = 30_000_000_000;

/// What a worker is given.
pub enum Work {
    /// a frame to analyse
    Frame(FrameLease),
    /// a frame that will not come: whoever needs them in order goes on without it
    Skip(u64),
    /// no more will come
    End,
}

/// Puts frames that overtook each other back in order. Holds leases, not copies.
struct InOrder {
    next: u64,
    /// by frame number modulo the window; a skipped number holds `Held::Skip`
    held: Vec<Held>,
}

enum Held {
    Nothing,
    Skip,
    Frame(FrameLease),
}

impl InOrder {
    fn new() -> Self {
        // The tracker lets a frame be overtaken by REORDER_WINDOW others before it is lost.
        Self {
            next: 0,
            held: (0..2 * REORDER_WINDOW).map(|_| Held::Nothing).collect(),
        }
    }

    fn slot(&mut self, frame: u64) -> &mut Held {
        let window = self.held.len() as u64;
        &mut self.held[(frame % window) as usize]
    }

    fn put(&mut self, frame: u64, held: Held) {
        if frame >= self.next {
            debug_assert!(
                frame - self.next < self.held.len() as u64,
                "frame {frame} comes too early"
            );
            *self.slot(frame) = held;
        }
    }

    fn take(&mut self) -> Option<FrameLease> {
        loop {
            let next = self.next;
            match std::mem::replace(self.slot(next), Held::Nothing) {
                Held::Nothing => return None,
                Held::Skip => self.next += 1,
                Held::Frame(lease) => {
                    self.next += 1;
                    return Some(lease);
                }
            }
        }
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
    operations: Vec<Box<dyn Operation>>,
    host: Option<Box<dyn HostOperation>>,
    /// whether the device takes none of the operations
    refused: bool,
    /// the batch, as the host's threads share it
    leased: Vec<Leased>,
    /// frames of the batch that the host could not decode
    broken: Vec<(usize, String)>,
    /// when the device is tried again, after it has failed
    device_again_ns: Option<u64>,
    queue: Queue,
    stager: Stager,
    in_order: Option<InOrder>,
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
    copies_seen: u64,
    next_snapshot_ns: u64,
    /// of the scalar that says whether a frame is a hit
    hit: Option<usize>,
    ended: bool,
}

impl Worker {
    /// A worker with its own queue on the device.
    pub fn new(parts: WorkerParts<'_>) -> Result<Worker, String> {
        let stream = &parts.run.stream;
        // Who reduces while decoding needs no place for decoded frames.
        let decoded = stream.compression != Compression::None && !parts.operations.is_empty();
        let refused = parts.run.way() == Way::Host;
        if parts.operations.is_empty() && parts.host.is_some() && !refused {
            parts.run.way.store(Way::Fused as u8, SeqCst);
        }
        let region = parts.ring.region();
        let stager = Stager::new(
            parts.accelerator,
            region,
            stream.frame_bytes(),
            parts.batch_limit,
            decoded,
        )
        .map_err(|e| e.to_string())?;
        Ok(Worker {
            run: parts.run.clone(),
            operations: parts.operations,
            host: parts.host,
            refused,
            leased: Vec::with_capacity(parts.batch_limit),
            broken: Vec::with_capacity(parts.batch_limit),
            device_again_ns: None,
            queue: parts.accelerator.queue().map_err(|e| e.to_string())?,
            stager,
            in_order: parts.ordered.then(InOrder::new),
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
            copies_seen: 0,
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
            let limit = self.time_limit();
            kernels::within(limit, || self.one_batch());
            kernels::within(limit, || self.snapshot_if_due());
        }
        let finished = self
            .operations
            .iter_mut()
            .try_for_each(|operation| operation.finish(&self.queue));
        if let Err(error) = finished {
            drop(guard);
            self.run.degraded(error.to_string());
            let _ = self.to_writer.send(ToWriter::End);
            return self.latency;
        }
        drop(guard);
        self.snapshot(true);
        let _ = self.to_writer.send(ToWriter::End);
        self.latency
    }

    /// How long the device may take for this batch: a second, and time for its pixels however busy the machine is, and not
    /// less than five times what batches have taken. Longer where giving it up loses the batch.
    fn time_limit(&self) -> Duration {
        let pixels = (self.run.stream.shape.pixels() * self.batch.len()) as u64;
        let usual = 5 * self.batch_ns.value_at_quantile(0.99);
        let least = if self.host.is_some() { LIMIT_NS } else { LIMIT_ALONE_NS };
        Duration::from_nanos((least + 20 * pixels).max(usual))
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
        match (&mut self.in_order, work) {
            (_, Work::End) => self.ended = true,
            (None, Work::Frame(lease)) => self.waiting.push_back(lease),
            (None, Work::Skip(_)) => {}
            (Some(order), Work::Frame(lease)) => {
                order.put(lease.header().frame_number.get(), Held::Frame(lease));
                self.waiting.extend(std::iter::from_fn(|| order.take()));
            }
            (Some(order), Work::Skip(frame)) => {
                order.put(frame, Held::Skip);
                self.waiting.extend(std::iter::from_fn(|| order.take()));
            }
        }
    }

    fn one_batch(&mut self) {
        let started = monotonic_ns();
        // Without operations frames are recorded as they come: nobody needs their pixels.
        let on_device = !self.operations.is_empty() && self.device_again_ns.is_none_or(|again| started >= again);
        let staged = match on_device {
            false => Ok(()),
            true => self
                .stager
                .begin()
                .map_err(|e| e.to_string())
                .and_then(|()| self.stage()),
        };
        if self.batch.is_empty() {
            return;
        }
        self.take_results();
        self.broken.clear();
        let mut analysed = staged.and_then(|()| self.analyse(on_device));
        let by_device = on_device && analysed.is_ok();
        if on_device {
            analysed = self.after_device(analysed);
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
        let copies = self.stager.copies();
        self.run.copies.fetch_add(copies - self.copies_seen, Relaxed);
        self.copies_seen = copies;
        self.metrics.batch_seconds.observe((now - started) as f64 / 1e9);
    }

    /// Takes note of how the device did. Where it has failed and there is a way without it, the same batch goes that way,
    /// and so do those that follow, until the device is tried again.
    fn after_device(&mut self, analysed: Result<(), String>) -> Result<(), String> {
        let Err(reason) = analysed else {
            if self.device_again_ns.take().is_some() {
                self.run.device_back();
            }
            return Ok(());
        };
        if self.host.is_none() {
            // Nobody else analyses: the next batch is tried again at once.
            return Err(reason);
        }
        self.device_again_ns = Some(monotonic_ns() + self.device_retry.as_nanos() as u64);
        self.run.device_failed(&reason, self.device_retry);
        self.analyse(false)
    }

    /// Runs the recipe on the host.
    fn on_host(&mut self) -> Result<(), String> {
        let Some(host) = &mut self.host else {
            // Nothing to compute.
            return Ok(());
        };
        if self.refused || !self.operations.is_empty() {
            for lease in &self.batch {
                self.run.ledger.device_failed(lease.header().frame_number.get());
            }
        }
        self.leased.extend(self.batch.iter().cloned().map(Leased));
        let done = host.push(&self.leased, &mut self.results, &mut self.broken);
        self.leased.clear();
        done.map_err(|e| e.to_string())
    }

    /// Shows the batch's pixels to the device; a frame that cannot be decoded leaves the batch.
    fn stage(&mut self) -> Result<(), String> {
        let mut failed = Ok(());
        let (run, stager, scratch, to_writer) = (&self.run, &mut self.stager, &mut self.scratch, &self.to_writer);
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

    /// Runs the recipe.
    fn analyse(&mut self, on_device: bool) -> Result<(), String> {
        let outcome = if on_device { self.operate() } else { self.on_host() };
        let now = monotonic_ns();
        for result in &mut self.results {
            if let Some(result) = Arc::get_mut(result) {
                result.result_time_ns = now;
            }
        }
        outcome
    }

    fn operate(&mut self) -> Result<(), String> {
        let frames = self.stager.finish(&self.queue).map_err(|e| e.to_string());
        frames.and_then(|frames| {
            let kind = self
                .batch
                .first()
                .map_or(FrameKind::Invalid, |lease| lease.header().frame_kind());
            let (queue, angles_deg) = (&self.queue, &self.angles[..]);
            let mut batch = Batch {
                queue,
                frames,
                kind,
                angles_deg,
                results: &mut self.results,
                corrected: None,
            };
            self.operations
                .iter_mut()
                .try_for_each(|operation| operation.push(&mut batch))
                .map_err(|e| e.to_string())
        })
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
        if let (true, Some(host)) = (self.operations.is_empty(), &mut self.host) {
            host.snapshot(&mut snapshot);
        }
        for operation in &mut self.operations {
            if let Err(error) = operation.snapshot(&self.queue, &mut snapshot) {
                run.degraded(error.to_string());
            }
        }
        snapshot.version += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driver::memory::{HugePages, PageSize, PagesConfig};
    use frame::{FrameHeader, PixelType, Shape};

    fn leases(numbers: &[u64]) -> Vec<FrameLease> {
        let bytes = FrameRing::bytes_needed(numbers.len(), 64);
        let config = PagesConfig {
            bytes,
            page_size: PageSize::Transparent,
            numa_node: None,
            lock: false,
            allow_transparent: true,
        };
        let ring = FrameRing::new(HugePages::reserve(&config).unwrap(), numbers.len(), 64).unwrap();
        let lease = |number: &u64| {
            let mut slot = ring.try_slot().unwrap();
            *slot.header_mut() = FrameHeader::new(Shape::new(8, 8), PixelType::U8, Compression::None);
            slot.header_mut().frame_number.set(*number);
            slot.publish()
        };
        numbers.iter().map(lease).collect()
    }

    #[test]
    fn frames_come_out_in_order_and_lost_ones_are_stepped_over() {
        let mut order = InOrder::new();
        let mut out = Vec::new();
        for lease in leases(&[2, 0, 1, 5, 4]) {
            order.put(lease.header().frame_number.get(), Held::Frame(lease));
            out.extend(std::iter::from_fn(|| order.take()).map(|l| l.header().frame_number.get()));
        }
        assert_eq!(out, [0, 1, 2]);
        order.put(3, Held::Skip);
        out.extend(std::iter::from_fn(|| order.take()).map(|l| l.header().frame_number.get()));
        assert_eq!(out, [0, 1, 2, 4, 5]);
    }
}
