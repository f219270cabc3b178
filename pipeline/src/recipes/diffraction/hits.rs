//! `hits`: which frames have a crystal in the beam, the hit rate, and which misses need not be kept.

use super::super::{Batch, Counter, Operation, Prepared, RecipeError, Snapshot};
use crate::config::ConfigError;
use kernels::Queue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "hits";

/// `[recipe.NAME.hits]`: a frame is a hit if it has enough spots and enough strong pixels.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HitParameters {
    /// Spots that a hit has at least.
    pub min_spots: u64,
    /// Strong pixels that a hit has at least.
    pub min_strong_pixels: u64,
    /// Frames that the running hit rate looks back on (1 to 100000).
    pub window_frames: usize,
    /// Whether misses are left out of the files. Their results and their places in the ledger stay.
    pub veto: bool,
    /// With `veto`: of the frames whose number is a multiple of this, misses are kept, too; 0 keeps none.
    pub keep_every: u64,
}

impl Default for HitParameters {
    fn default() -> Self {
        Self {
            min_spots: 10,
            min_strong_pixels: 0,
            window_frames: 100,
            veto: false,
            keep_every: 100,
        }
    }
}

impl HitParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        if (1..=100_000).contains(&self.window_frames) {
            return Ok(());
        }
        Err(ConfigError::value(
            format!("recipe.{recipe}.{NAME}.window_frames"),
            self.window_frames,
            "allowed is 1 to 100000",
        ))
    }
}

/// The last decisions, of all workers.
struct Window {
    hits: Vec<bool>,
    next: usize,
    filled: usize,
    count: usize,
}

impl Window {
    fn new(frames: usize) -> Self {
        Self {
            hits: vec![false; frames],
            next: 0,
            filled: 0,
            count: 0,
        }
    }

    /// Takes a decision and returns the rate.
    fn add(&mut self, hit: bool) -> f64 {
        self.count += usize::from(hit);
        self.count -= usize::from(std::mem::replace(&mut self.hits[self.next], hit));
        self.next = (self.next + 1) % self.hits.len();
        self.filled = (self.filled + 1).min(self.hits.len());
        self.count as f64 / self.filled as f64
    }
}

/// What the operations of all workers share.
#[derive(Clone)]
pub(super) struct HitPlan {
    parameters: HitParameters,
    spots: usize,
    first: usize,
    window: Arc<Mutex<Window>>,
    hits: Counter,
    misses: Counter,
    undecided: Counter,
    misses_kept: Counter,
}

/// Lays out the results; `spots` is the place of the number of spots.
pub(super) fn plan(parameters: &HitParameters, spots: usize, prepared: &mut Prepared) -> HitPlan {
    let first = prepared.layout.scalar("hit", "");
    prepared.layout.scalar("hit_rate", "");
    prepared.may_veto = parameters.veto;
    HitPlan {
        parameters: parameters.clone(),
        spots,
        first,
        window: Arc::new(Mutex::new(Window::new(parameters.window_frames))),
        hits: prepared.counter("hits"),
        misses: prepared.counter("misses"),
        undecided: prepared.counter("undecided"),
        misses_kept: prepared.counter("misses_kept"),
    }
}

/// The operation.
pub(super) struct Hits(pub(super) HitPlan);

impl Operation for Hits {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let Self(plan) = self;
        for index in 0..batch.frames.frames() {
            let Some(result) = batch.result(index) else { continue };
            let (spots, strong) = (result.scalars[plan.spots], result.scalars[plan.spots + 1]);
            // Too bright to tell its spots, or not whole: no miss.
            if spots.is_nan() || result.partial {
                plan.undecided.fetch_add(1, Relaxed);
                continue;
            }
            let limits = (
                plan.parameters.min_spots as f64,
                plan.parameters.min_strong_pixels as f64,
            );
            let hit = spots >= limits.0 && strong >= limits.1;
            let rate = plan.window.lock().unwrap_or_else(PoisonError::into_inner).add(hit);
            result.scalars[plan.first] = f64::from(u8::from(hit));
            result.scalars[plan.first + 1] = rate;
            if hit {
                plan.hits.fetch_add(1, Relaxed);
                continue;
            }
            plan.misses.fetch_add(1, Relaxed);
            let every = plan.parameters.keep_every;
            let sampled = every > 0 && result.frame_number.is_multiple_of(every);
            result.vetoed = plan.parameters.veto && !sampled;
            if !result.vetoed {
                plan.misses_kept.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, _queue: &Queue, _snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        Ok(())
    }

    fn finish(&mut self, _queue: &Queue) -> Result<(), RecipeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_looks_back_on_so_many_frames() {
        let mut window = Window::new(4);
        let rates: Vec<f64> = [true, false, false, true, true, true, true]
            .map(|hit| window.add(hit))
            .to_vec();
        assert_eq!(rates, [1.0, 0.5, 1.0 / 3.0, 0.5, 0.5, 0.75, 1.0]);
    }
}
