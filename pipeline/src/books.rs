//! What a run has counted, carried over to the metrics.

use crate::active_run::ActiveRun;
use crate::emit::EmitHandle;
use crate::ledger::Outcomes;
use crate::metrics::Metrics;
use crate::worker::Work;
use crate::writer::ToWriter;
use crossbeam_channel::Receiver;
use driver::memory::FrameRing;
use driver::tracker::Counts;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Carries what the data plane has counted over to the process's metrics, so that the data plane itself
/// touches nothing but its own numbers.
pub(crate) struct Books {
    /// the run
    pub(crate) active: Arc<ActiveRun>,
    /// frames that wait
    pub(crate) queues: (Receiver<Work>, Receiver<ToWriter>),
    /// memory of the frames
    pub(crate) ring: FrameRing,
    /// the process's metrics
    pub(crate) metrics: Metrics,
    /// what has been carried over
    pub(crate) seen: Seen,
    /// what RDMA sources had counted before the run
    pub(crate) rdma_before: BTreeMap<String, u64>,
    /// what DECTRIS sources had counted before the run
    pub(crate) dectris_before: BTreeMap<String, u64>,
    /// what UDP sources had counted before the run
    pub(crate) udp_before: BTreeMap<String, u64>,
    /// what is sent on
    pub(crate) emit: Option<EmitHandle>,
}

/// What has been carried over so far.
#[derive(Default)]
pub(crate) struct Seen {
    counts: Counts,
    outcomes: Outcomes,
    bytes: u64,
    copies: u64,
    missed: u64,
    /// by the recipe's own counters, in their order
    recipe: Vec<u64>,
}

impl Books {
    /// Adds what has been counted since the last time.
    pub(crate) fn carry_over(&mut self) {
        let (metrics, active) = (&self.metrics, &self.active);
        let waiting = [self.queues.0.len() as u64, self.queues.1.len() as u64];
        for (cell, (queue, frames)) in active.queues.iter().zip(["analysis", "storage"].iter().zip(waiting)) {
            cell.store(frames, Relaxed);
            metrics.queue_depth.with_label_values(&[queue]).set(frames as i64);
        }
        let used = self.ring.slots() - self.ring.free();
        metrics.ring_slots.with_label_values(&["used"]).set(used as i64);
        let now = Seen {
            counts: active.counts.get(),
            outcomes: active.ledger.outcomes(),
            bytes: active.bytes.load(Relaxed),
            copies: active.copies.load(Relaxed),
            missed: active.hub.missed(),
            recipe: active
                .counters
                .iter()
                .map(|(_, counter)| counter.load(Relaxed))
                .collect(),
        };
        let (c, was) = (&now.counts, &self.seen.counts);
        for (state, now, before) in [
            ("complete", c.complete, was.complete),
            ("partial", c.partial, was.partial),
            ("corrupt", c.corrupt, was.corrupt),
            ("lost", c.lost, was.lost),
            ("duplicate", c.duplicate, was.duplicate),
            ("late", c.late, was.late),
            ("stale", c.stale, was.stale),
            ("unexpected", c.unexpected, was.unexpected),
        ] {
            metrics.frames.with_label_values(&[state]).inc_by(now - before);
        }
        let (o, was) = (&now.outcomes, &self.seen.outcomes);
        for (outcome, now, before) in [
            ("done", o.done, was.done),
            ("shed", o.shed, was.shed),
            ("failed", o.analysis_failed, was.analysis_failed),
        ] {
            metrics.analysed.with_label_values(&[outcome]).inc_by(now - before);
        }
        // A frame first counted as written may turn out not to be when its file is closed: never count back.
        for (outcome, now, before) in [
            ("synced", o.synced, was.synced),
            ("vetoed", o.vetoed, was.vetoed),
            ("failed", o.storage_failed, was.storage_failed),
        ] {
            metrics
                .stored
                .with_label_values(&[outcome])
                .inc_by(now.saturating_sub(before));
        }
        metrics.acknowledge([o.received, o.done, o.synced], [was.received, was.done, was.synced]);
        for (at, (name, _)) in active.counters.iter().enumerate() {
            let before = self.seen.recipe.get(at).copied().unwrap_or(0);
            metrics
                .recipe
                .with_label_values(&[name])
                .inc_by(now.recipe[at] - before);
        }
        // Those of the run in memory: what it does not have is 0.
        for name in crate::recipes::LEVELS {
            let level = active.levels.iter().find(|(level, _)| *level == name);
            let value = level.map_or(0.0, |(_, level)| level.get());
            metrics.recipe_levels.with_label_values(&[name]).set(value);
        }
        metrics.received_bytes.inc_by(now.bytes - self.seen.bytes);
        metrics.device_copies.inc_by(now.copies - self.seen.copies);
        metrics.results_missed.inc_by(now.missed - self.seen.missed);
        self.seen = now;
    }
}
