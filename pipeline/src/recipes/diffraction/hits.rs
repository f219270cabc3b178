//! `hits`: which frames have a crystal in the beam, the hit rate, and which misses need not be kept.

use super::super::{Batch, Counter, Operation, Prepared, RecipeError, Site};
use super::correct::Corrections;
use crate::config::ConfigError;
use frame::{FrameKind, FrameResult};
use kernels::{LitConfig, LitPixels};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "hits";
/// What it adds to the results.
pub(super) const SCALARS: [&str; 2] = ["hit", "hit_rate"];
/// And where it counts lit pixels.
pub(super) const LIT_PIXELS: &str = "lit_pixels";

/// What makes a hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    /// enough spots and enough strong pixels
    #[default]
    Spots,
    /// enough lit pixels, and not too many
    LitPixels,
    /// both
    Both,
    /// one of them, or both
    Either,
}

impl Rule {
    fn of_spots(self) -> bool {
        self != Self::LitPixels
    }

    fn of_lit_pixels(self) -> bool {
        self != Self::Spots
    }

    /// Whether a frame is a hit, by its spots and by its lit pixels; `None` where that cannot be told.
    fn judge(self, spots: Option<bool>, lit: Option<bool>) -> Option<bool> {
        match (self, spots, lit) {
            (Self::Spots, decided, _) | (Self::LitPixels, _, decided) => decided,
            (Self::Both, Some(false), _) | (Self::Both, _, Some(false)) => Some(false),
            (Self::Either, Some(true), _) | (Self::Either, _, Some(true)) => Some(true),
            (Self::Both, spots, lit) => Some(spots? && lit?),
            (Self::Either, spots, lit) => Some(spots? || lit?),
        }
    }
}

/// `[recipe.NAME.hits]`: which frames are hits, by their spots, by their lit pixels, or by both.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HitParameters {
    /// What makes a hit: "spots" (at least `min_spots` and at least `min_strong_pixels`), "lit_pixels" (from `min_lit_pixels`
    /// to `max_lit_pixels`), "both" or "either".
    pub rule: Rule,
    /// Spots that a hit has at least.
    pub min_spots: u64,
    /// Strong pixels that a hit has at least.
    pub min_strong_pixels: u64,
    /// Pixels above this value are lit (0 or more). Lit pixels are counted only where it is given.
    pub lit_above: Option<f64>,
    /// Lit pixels that a hit has at least.
    pub min_lit_pixels: u64,
    /// Lit pixels that a hit has at most.
    pub max_lit_pixels: Option<u64>,
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
            rule: Rule::Spots,
            min_spots: 10,
            min_strong_pixels: 0,
            lit_above: None,
            min_lit_pixels: 1,
            max_lit_pixels: None,
            window_frames: 100,
            veto: false,
            keep_every: 100,
        }
    }
}

impl HitParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, value: String, expected: &str| {
            let key = format!("recipe.{recipe}.{NAME}.{key}");
            Err(ConfigError::value(key, value, expected))
        };
        if !(1..=100_000).contains(&self.window_frames) {
            return wrong(
                "window_frames",
                self.window_frames.to_string(),
                "allowed is 1 to 100000",
            );
        }
        match self.lit_above {
            Some(above) if !(above.is_finite() && above >= 0.0) => {
                return wrong("lit_above", above.to_string(), "0 or more");
            }
            None if self.rule.of_lit_pixels() => {
                let expected = "the value above which a pixel is lit: the rule counts lit pixels";
                return wrong("lit_above", "(missing)".into(), expected);
            }
            _ => {}
        }
        if let Some(most) = self.max_lit_pixels.filter(|most| *most < self.min_lit_pixels) {
            let expected = format!("min_lit_pixels = {} or more", self.min_lit_pixels);
            return wrong("max_lit_pixels", most.to_string(), &expected);
        }
        Ok(())
    }

    /// Whether `spots` must come before.
    pub(super) fn needs_spots(&self) -> bool {
        self.rule.of_spots()
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
    /// place of the number of spots, where spots are found
    spots: Option<usize>,
    first: usize,
    /// place of the number of lit pixels, where they are counted, and how
    lit: Option<(usize, LitConfig)>,
    window: Arc<Mutex<Window>>,
    hits: Counter,
    misses: Counter,
    undecided: Counter,
    misses_kept: Counter,
}

/// Lays out the results; `spots` is the place of the number of spots.
pub(super) fn plan(
    parameters: &HitParameters,
    spots: Option<usize>,
    corrections: &Corrections,
    prepared: &mut Prepared,
) -> HitPlan {
    let first = prepared.layout.scalars.len();
    for name in SCALARS {
        prepared.layout.scalar(name, "");
    }
    prepared.may_veto = parameters.veto;
    let lit = parameters.lit_above.map(|threshold| {
        let config = LitConfig {
            threshold,
            invalid: corrections.invalid,
        };
        (prepared.layout.scalar(LIT_PIXELS, ""), config)
    });
    HitPlan {
        parameters: parameters.clone(),
        spots,
        first,
        lit,
        window: Arc::new(Mutex::new(Window::new(parameters.window_frames))),
        hits: prepared.counter("hits"),
        misses: prepared.counter("misses"),
        undecided: prepared.counter("undecided"),
        misses_kept: prepared.counter("misses_kept"),
    }
}

impl HitPlan {
    /// Whether a frame with these results is a hit. Too bright to tell its spots, not whole, or not taken to show a sample:
    /// that cannot be told.
    fn decide(&self, result: &FrameResult) -> Option<bool> {
        if result.partial || result.kind != FrameKind::Sample {
            return None;
        }
        let parameters = &self.parameters;
        let enough_spots = self.spots.and_then(|place| {
            let (spots, strong) = (result.scalars[place], result.scalars[place + 1]);
            let enough = spots >= parameters.min_spots as f64 && strong >= parameters.min_strong_pixels as f64;
            (!spots.is_nan()).then_some(enough)
        });
        let lit = self.lit.as_ref().map(|(place, _)| {
            let (least, most) = (parameters.min_lit_pixels, parameters.max_lit_pixels.unwrap_or(u64::MAX));
            (least as f64..=most as f64).contains(&result.scalars[*place])
        });
        parameters.rule.judge(enough_spots, lit)
    }
}

/// The operation.
pub(super) struct Hits {
    plan: HitPlan,
    lit: Option<LitPixels>,
    /// of each frame of a batch
    counts: Vec<u64>,
}

impl Hits {
    pub(super) fn new(site: Site<'_>, plan: &HitPlan, corrections: &Corrections) -> Result<Self, RecipeError> {
        let (shape, pixel_type) = (site.stream.shape, site.stream.pixel_type);
        let (device, mask, limit) = (site.accelerator, &corrections.mask, site.batch_limit);
        let counter = |(_, config): &(usize, LitConfig)| LitPixels::new(device, config, shape, pixel_type, mask, limit);
        Ok(Self {
            plan: plan.clone(),
            lit: plan
                .lit
                .as_ref()
                .map(counter)
                .transpose()
                .map_err(RecipeError::device(NAME))?,
            counts: vec![0; limit],
        })
    }
}

impl Operation for Hits {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let (Some(lit), Some((place, _))) = (&mut self.lit, &self.plan.lit) else {
            return Ok(());
        };
        let counts = &mut self.counts[..batch.frames.frames()];
        lit.run(batch.queue, batch.frames, counts)
            .map_err(RecipeError::device(NAME))?;
        for (index, count) in counts.iter().enumerate() {
            let Some(result) = batch.result(index) else { continue };
            result.scalars[*place] = *count as f64;
        }
        Ok(())
    }

    fn settle(&mut self, results: &mut [Arc<FrameResult>]) {
        let plan = &self.plan;
        for result in results.iter_mut().filter_map(Arc::get_mut) {
            let Some(hit) = plan.decide(result) else {
                plan.undecided.fetch_add(1, Relaxed);
                continue;
            };
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_decide_as_soon_as_they_can() {
        let all = [Some(true), Some(false), None];
        let by = |rule: Rule| -> Vec<Option<bool>> {
            let pairs = all.into_iter().flat_map(|spots| all.map(|lit| (spots, lit)));
            pairs.map(|(spots, lit)| rule.judge(spots, lit)).collect()
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(by(Rule::Spots), [yes, yes, yes, no, no, no, None, None, None]);
        assert_eq!(by(Rule::LitPixels), [yes, no, None, yes, no, None, yes, no, None]);
        assert_eq!(by(Rule::Both), [yes, no, None, no, no, no, None, no, None]);
        assert_eq!(by(Rule::Either), [yes, yes, yes, yes, no, None, yes, None, None]);
    }

    #[test]
    fn the_rate_looks_back_on_so_many_frames() {
        let mut window = Window::new(4);
        let rates: Vec<f64> = [true, false, false, true, true, true, true]
            .map(|hit| window.add(hit))
            .to_vec();
        assert_eq!(rates, [1.0, 0.5, 1.0 / 3.0, 0.5, 0.5, 0.75, 1.0]);
    }
}
