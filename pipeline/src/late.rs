//! A device that hangs keeps no frame from the disk. A worker waits for its device, or for what takes its place, up to half a
//! minute; where the source cannot wait meanwhile, what queues up behind it goes without analysis, so that its memory is
//! free again when it is stored.

use crate::active_run::ActiveRun;
use crate::ledger::Analysis;
use crate::worker::Work;
use crate::writer::ToWriter;
use crossbeam_channel::{Receiver, Sender};
use driver::clock::monotonic_ns;
use driver::memory::FrameRing;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// While frames behind a worker are let go.
const LETTING_GO: u64 = u64::MAX;

/// When the batch of one worker is late, ns of the monotonic clock: 0 while it has none.
#[derive(Clone, Default)]
pub struct LateFrom(Arc<AtomicU64>);

impl LateFrom {
    /// The worker begins a batch, which is late from then on.
    pub(crate) fn begin(&self, ns: u64) {
        self.0.store(ns, Release);
    }

    /// The batch has ended. Where frames are being let go it waits for the end of that, a few microseconds: who needs them in
    /// order must find every one either in the queue or gone.
    pub(crate) fn end(&self) {
        let ended = |from: u64| (from != LETTING_GO).then_some(0);
        while self.0.fetch_update(Acquire, Relaxed, ended).is_err() {
            std::thread::yield_now();
        }
    }

    /// Does `work` if the worker's batch is late, before that ends.
    fn while_late(&self, now_ns: u64, work: impl FnOnce()) {
        let from = self.0.load(Relaxed);
        let late = (1..now_ns).contains(&from);
        if late && self.0.compare_exchange(from, LETTING_GO, Acquire, Relaxed).is_ok() {
            work();
            self.0.store(from, Release);
        }
    }
}

/// Looks after all workers of a run.
pub(crate) struct Late {
    /// the run
    pub(crate) run: Arc<ActiveRun>,
    /// one per worker
    pub(crate) from: Vec<LateFrom>,
    /// frames that wait for a worker
    pub(crate) waiting: Receiver<Work>,
    /// the same queue's other end
    pub(crate) work: Sender<Work>,
    /// who stores frames
    pub(crate) to_writer: Sender<ToWriter>,
    /// memory of the frames
    pub(crate) ring: FrameRing,
}

impl Late {
    /// Lets the frames go that wait behind a worker that is late, if the ring fills.
    pub(crate) fn look(&self) {
        if self.run.stream.pausable || self.ring.free() >= self.ring.slots() / 4 {
            return;
        }
        let now = monotonic_ns();
        self.from.iter().for_each(|from| from.while_late(now, || self.let_go()));
    }

    fn let_go(&self) {
        for _ in 0..self.waiting.len() {
            match self.waiting.try_recv() {
                Ok(Work::Frame(lease)) => {
                    let number = lease.header().frame_number.get();
                    self.run.ledger.analysed(number, Analysis::Shed, 0);
                    let _ = self.to_writer.send(ToWriter::Undecided(number));
                }
                Ok(Work::Skip) => {}
                // Ends are the workers'.
                Ok(end) => drop(self.work.send(end)),
                Err(_) => break,
            }
        }
        // Whoever needs frames in order may hold some that wait for these.
        let _ = self.work.try_send(Work::Skip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_only_while_a_batch_is_late() {
        let from = LateFrom::default();
        let went = |now_ns| {
            let mut went = false;
            from.while_late(now_ns, || went = true);
            went
        };
        assert!(!went(100), "no batch");
        from.begin(50);
        assert_eq!([40, 50, 51, 60].map(went), [false, false, true, true]);
        from.end();
        assert!(!went(100));
    }
}
