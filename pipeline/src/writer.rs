//! The writer: decides which frames are stored and hands them to the store's threads; puts results into the run's files.
//! While a run records it is the only thread that calls libhdf5.

use crate::active_run::{ActiveRun, Summary};
use crate::data_plane;
use crate::ledger::Storage;
use crate::live_ledger::LiveLedger;
use crate::metrics::Metrics;
use crate::storage::{Outcomes, RunEnd, RunWriter, StoreError, results_not_kept};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use driver::clock::monotonic_ns;
use driver::memory::FrameLease;
use frame::FrameResult;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Corrupt frames whose bytes are kept aside for a look.
const QUARANTINE_FRAMES: u64 = 100;
/// How long a frame waits for a recipe's verdict before it is stored without one.
const VERDICT_WAIT: Duration = Duration::from_secs(10);
/// How often something is looked after while nothing comes.
const LOOK: Duration = Duration::from_secs(1);

/// What the writer is given.
pub enum ToWriter {
    /// a frame to store
    Frame(FrameLease),
    /// a frame whose bytes are not what was sent: kept aside, never in the data
    Corrupt(FrameLease),
    /// a result to store beside it; says whether the frame is stored where the recipe may veto
    Result(Arc<FrameResult>),
    /// nobody will decide on this frame
    Undecided(u64),
    /// one of the writer's suppliers has ended
    End,
}

/// Enters what the store's threads say of frames into the run's books.
struct Told {
    run: Arc<ActiveRun>,
    metrics: Metrics,
}

impl Outcomes for Told {
    fn written(&self, bytes: u64, seconds: f64) {
        self.metrics.written_bytes.inc_by(bytes);
        self.metrics.write_seconds.observe(seconds);
    }

    fn synced(&self, frame: u64) {
        self.run.ledger.stored(frame, Storage::Synced);
    }

    fn failed(&self, frame: u64, error: &StoreError) {
        self.run.ledger.stored(frame, Storage::Failed);
        self.run.degraded(error.to_string());
    }

    fn results_synced(&self, results: u64) {
        self.metrics.results_synced.inc_by(results);
    }

    fn sync_took(&self, seconds: f64) {
        self.metrics.sync_seconds.observe(seconds);
    }

    fn degraded(&self, text: String) {
        self.run.degraded(text);
    }
}

/// The writer's state.
pub struct Writer {
    run: Arc<ActiveRun>,
    files: RunWriter,
    live_ledger: LiveLedger,
    live_ledger_failed: bool,
    /// what it is given
    pub queue: Receiver<ToWriter>,
    suppliers: usize,
    quarantined: u64,
    /// frames that nobody has decided on yet, where the recipe may veto; never more than the ring has slots
    held: Option<VecDeque<FrameLease>>,
    /// results that could not be written
    pub results_failed: u64,
}

impl Writer {
    /// Starts the store's threads. A writer ends when all of its `suppliers` have. `held`: room for frames that wait for a recipe's verdict.
    pub fn new(
        run: &Arc<ActiveRun>,
        mut files: RunWriter,
        queue: Receiver<ToWriter>,
        metrics: Metrics,
        suppliers: usize,
        held: Option<VecDeque<FrameLease>>,
    ) -> Result<Self, StoreError> {
        files.begin(Arc::new(Told {
            run: run.clone(),
            metrics,
        }))?;
        Ok(Self {
            run: run.clone(),
            files,
            live_ledger: LiveLedger::new(run.ledger.expected()),
            live_ledger_failed: false,
            queue,
            suppliers,
            quarantined: 0,
            held,
            results_failed: 0,
        })
    }

    /// Writes until every supplier has ended.
    pub fn write(&mut self) {
        let guard = data_plane::enter();
        while self.suppliers > 0 {
            self.store_overdue();
            let next = if self.show() || self.held.as_ref().is_some_and(|held| !held.is_empty()) {
                self.queue.recv_timeout(LOOK)
            } else {
                self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(ToWriter::Frame(lease)) => match &mut self.held {
                    Some(held) => held.push_back(lease),
                    None => self.frame(lease),
                },
                Ok(ToWriter::Corrupt(lease)) => self.corrupt(&lease),
                Ok(ToWriter::Undecided(frame)) => self.verdict(frame, false),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(ToWriter::Result(result)) => {
                    self.verdict(result.frame_number, result.vetoed);
                    self.result(&result);
                }
                Ok(ToWriter::End) => self.suppliers -= 1,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        while let Some(lease) = self.held.as_mut().and_then(VecDeque::pop_front) {
            self.frame(lease);
        }
        drop(guard);
        if let Err(error) = self.files.drain() {
            self.complain(&error);
        }
    }

    /// Lets readers of the master file see results and ledger; whether there is more to show, or will be without more frames.
    fn show(&mut self) -> bool {
        let Self {
            run,
            files,
            live_ledger,
            ..
        } = self;
        if files.show_is_due() && live_ledger.behind(&run.ledger) {
            let shown = live_ledger.show(&run.ledger, |first, rows| files.write_ledger(first, rows));
            if let Err(error) = shown
                && !self.live_ledger_failed
            {
                self.live_ledger_failed = true; // said once; the whole ledger is written at the end
                self.complain(&error);
            }
        }
        let hidden = self.files.show().unwrap_or_else(|error| {
            self.complain(&error);
            false
        });
        hidden || self.live_ledger.behind(&self.run.ledger) || self.run.ledger.waits()
    }

    /// Stores a result, and keeps it safe from a crash.
    fn result(&mut self, result: &FrameResult) {
        if let Err(error) = self.files.write_result(result) {
            self.results_failed += 1;
            self.complain(&error);
        } else if let Err(error) = self.files.keep_result(result) {
            self.run.degraded(results_not_kept(&error));
        }
    }

    /// Stores a frame that was held, or lets it go. One that was stored because its time was up stays stored.
    fn verdict(&mut self, frame: u64, vetoed: bool) {
        let Some(held) = &mut self.held else { return };
        let Some(at) = held.iter().position(|lease| lease.header().frame_number.get() == frame) else {
            return;
        };
        let Some(lease) = held.remove(at) else { return };
        if vetoed {
            self.run.ledger.stored(frame, Storage::Vetoed);
        } else {
            self.frame(lease);
        }
    }

    /// Stores frames that have waited too long for a verdict: undecided means stored.
    fn store_overdue(&mut self) {
        let overdue = |lease: &FrameLease| {
            let waited_ns = monotonic_ns().saturating_sub(lease.header().arrival_time_ns.get());
            waited_ns > VERDICT_WAIT.as_nanos() as u64
        };
        while self.held.as_ref().and_then(VecDeque::front).is_some_and(overdue) {
            let Some(lease) = self.held.as_mut().and_then(VecDeque::pop_front) else {
                return;
            };
            self.frame(lease);
        }
    }

    /// What becomes of the frame is told to [`Told`].
    fn frame(&mut self, lease: FrameLease) {
        let number = lease.header().frame_number.get();
        if !self.files.stores_frames() {
            self.run.ledger.stored(number, Storage::Vetoed);
            return;
        }
        let missing = lease.parts_missing();
        if !missing.is_empty()
            && let Err(error) = self.files.write_missing(number, missing)
        {
            self.complain(&error);
        }
        if let Err(error) = self.files.store(lease) {
            self.run.ledger.stored(number, Storage::Failed);
            self.complain(&error);
        }
    }

    fn corrupt(&mut self, lease: &FrameLease) {
        let number = lease.header().frame_number.get();
        self.run.ledger.stored(number, Storage::Failed);
        if self.quarantined < QUARANTINE_FRAMES {
            self.quarantined += 1;
            let folder = self.run.folder.join("quarantine");
            let kept = std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(folder.join(format!("frame_{number:09}.bin")), lease.payload()));
            if let Err(error) = kept {
                self.run.degraded(format!(
                    "corrupt frame {number} could not be kept in {}: {error}",
                    folder.display()
                ));
            }
        }
    }

    fn complain(&self, error: &StoreError) {
        self.run.degraded(error.to_string());
    }

    /// Closes the files with the ledger and the final results in them; returns their names.
    pub fn close(self, run: &ActiveRun, summary: &Summary) -> Result<Vec<String>, StoreError> {
        let columns = run.ledger.columns();
        let snapshot = run.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let finals: Vec<(String, Vec<f32>, String)> = snapshot
            .curves
            .iter()
            .flat_map(|curve| {
                let errors = (!curve.errors.is_empty()).then(|| {
                    (
                        format!("{}_errors", curve.name),
                        curve.errors.clone(),
                        curve.unit.clone(),
                    )
                });
                std::iter::once((curve.name.clone(), curve.values.clone(), curve.unit.clone())).chain(errors)
            })
            .collect();
        let end = RunEnd {
            state: summary.state.to_string(),
            end_time: jiff::Timestamp::now(),
            counts: serde_json::json!(summary.frames),
            summary: serde_json::json!(summary),
            metadata: run.metadata.for_file(),
            grid: run.grid.as_ref().map(|grid| grid.look(&run.metadata, true)),
        };
        let files = self
            .files
            .finish(&columns.as_storage(), &snapshot.images, &finals, end)?;
        Ok(files.iter().map(|path| path.display().to_string()).collect())
    }
}
