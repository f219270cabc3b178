//! A grid scan: the sample is moved box by box, and every frame gives its box a score. What is asked is where the crystals are,
//! while the scan runs and when it is over.
//!
//! Workers store scores of frames ([`GridScan::score`], which waits for nobody); which box a frame belongs to, and what the
//! boxes say together ([`GridScan::look`]), is worked out by whoever asks, so that values by frame number may come late.

mod centring;

pub use centring::{Crystal, Scores};

use crate::frame_metadata::FrameMetadata;
use frame::{Image, Shape};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Name of the answer among a run's findings, and of its group in the file.
pub const GRID: &str = "grid";
/// Pictures of the scores, of the first sweep and of the second.
pub const PICTURES: [&str; 2] = ["grid_score", "grid_score_2"];
/// Most boxes of a grid, layers included.
pub const BOXES_MAX: usize = 1 << 22;
/// Looking takes at most one part in so many of the time of whoever looks at every result.
const LOOK_SHARE: u32 = 10;

/// Names of the values by frame number that say where a frame was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// column: position along x
    pub column: String,
    /// row: position along y
    pub row: String,
    /// layer: position along z; a frame that has this value belongs to the second sweep
    pub layer: Option<String>,
    /// whether they are positions in mm; else they are indices of boxes
    pub mm: bool,
}

/// A grid as it was asked for.
#[derive(Clone, Debug)]
pub struct GridConfig {
    /// name of the score
    pub score: String,
    /// its place among the scalars of a result
    pub scalar: usize,
    /// boxes along x, y and z; z is 0 without a second sweep
    pub size: [usize; 3],
    /// frames of each box
    pub frames_per_box: u64,
    /// whether every second line runs backwards
    pub snake: bool,
    /// whether the motor of rows (or layers) is the fast one, not that of columns
    pub rows_fast: bool,
    /// where frames were taken, where their numbers do not say it
    pub told: Option<Told>,
    /// score below which a box is empty
    pub min_score: f64,
    /// part of the largest score below which a box belongs to no crystal
    pub threshold: f64,
    /// size of a box, mm, along x, y and z
    pub step_mm: Option<[f64; 3]>,
    /// centre of the first box, mm
    pub origin_mm: [f64; 3],
    /// crystals in an answer
    pub crystals_max: usize,
}

impl GridConfig {
    /// Lines of a sweep: rows of the first, layers of the second.
    fn lines(&self, sweep: usize) -> usize {
        self.size[1 + sweep]
    }

    /// Whether there is a second sweep.
    pub fn two_sweeps(&self) -> bool {
        self.size[2] > 0
    }

    fn sweeps(&self) -> usize {
        1 + usize::from(self.two_sweeps())
    }

    /// Boxes that are measured, of all sweeps.
    pub fn boxes(&self) -> usize {
        (0..self.sweeps()).map(|sweep| self.size[0] * self.lines(sweep)).sum()
    }

    /// Sweep, column and line of a box by the order in which boxes are measured.
    fn numbered(&self, frame: u64) -> Option<(usize, usize, usize)> {
        let mut index = usize::try_from(frame / self.frames_per_box).ok()?;
        for sweep in 0..self.sweeps() {
            let (columns, lines) = (self.size[0], self.lines(sweep));
            if index >= columns * lines {
                index -= columns * lines;
                continue;
            }
            let fast = if self.rows_fast { lines } else { columns };
            let (slow_at, fast_at) = (index / fast, index % fast);
            let fast_at = if self.snake && slow_at % 2 == 1 {
                fast - 1 - fast_at
            } else {
                fast_at
            };
            return Some(match self.rows_fast {
                true => (sweep, slow_at, fast_at),
                false => (sweep, fast_at, slow_at),
            });
        }
        None
    }

    /// Index of a box along an axis by what was told of it.
    fn index(&self, axis: usize, told: &Told, value: f64) -> Option<usize> {
        let along = match (told.mm, self.step_mm) {
            (true, Some(step)) => (value - self.origin_mm[axis]) / step[axis],
            _ => value,
        };
        let index = (along + 0.5).floor();
        (index >= 0.0 && index < self.size[axis] as f64).then_some(index as usize)
    }

    /// Position in mm of a coordinate in boxes.
    fn mm(&self, axis: usize, along: f64) -> Option<f64> {
        self.step_mm
            .map(|step| self.origin_mm[axis] + (along - 0.5) * step[axis])
    }

    fn in_mm(&self, mut crystal: Crystal) -> Crystal {
        let all = |along: Vec<f64>| -> Option<Vec<f64>> {
            along
                .iter()
                .enumerate()
                .map(|(axis, along)| self.mm(axis, *along))
                .collect()
        };
        crystal.centre_of_mass_mm = all(crystal.centre_of_mass.clone());
        let [low, end] = crystal
            .bounding_box
            .each_ref()
            .map(|edge| all(edge.iter().map(|at| *at as f64).collect()));
        crystal.bounding_box_mm = low.zip(end).map(|(low, end)| {
            // A motor that runs backwards makes the first edge the larger one.
            let sorted = |choose: fn(f64, f64) -> f64| low.iter().zip(&end).map(|(a, b)| choose(*a, *b)).collect();
            [sorted(f64::min), sorted(f64::max)]
        });
        crystal
    }
}

/// What a grid says so far.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, utoipa::ToSchema)]
pub struct GridAnswer {
    /// name of the score
    pub score: String,
    /// boxes along x
    pub columns: usize,
    /// boxes along y
    pub rows: usize,
    /// boxes along z, from the second sweep; 0 without one
    pub layers: usize,
    /// boxes that are measured, of all sweeps
    pub boxes: usize,
    /// boxes that have a score
    pub boxes_scored: usize,
    /// boxes that have none: not measured yet, or their frames were lost, not analysed, or had no such number
    pub boxes_without_score: usize,
    /// frames with a score that lacked parts
    pub frames_partial: u64,
    /// frames with a score that lie in no box
    pub frames_outside: u64,
    /// whether every box has a score
    pub complete: bool,
    /// largest score; with a second sweep largest product of two
    pub max_count: Option<f64>,
    /// score from which on a box belongs to a crystal
    pub threshold: Option<f64>,
    /// number of crystals, all of them
    pub crystals_found: usize,
    /// crystals, those with the largest sum of scores first
    pub crystals: Vec<Crystal>,
}

impl GridAnswer {
    /// A sentence about boxes without a score.
    pub fn gaps(&self) -> String {
        format!(
            "{} of {} boxes of the grid have no score: their frames were lost or not analysed, or have none",
            self.boxes_without_score, self.boxes
        )
    }
}

/// What a result's message says of the grid.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct GridMessage {
    /// sweep, 1 or 2, of the frame; absent where it lies in no box, or nothing has told yet in which
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<usize>,
    /// column and row of its box, or column and layer
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voxel: Option<[usize; 2]>,
    /// what all boxes said when it was last worked out, at most a moment ago
    #[serde(serialize_with = "by_value")]
    #[schema(value_type = GridAnswer)]
    pub so_far: Arc<GridAnswer>,
}

fn by_value<S: serde::Serializer>(answer: &Arc<GridAnswer>, to: S) -> Result<S::Ok, S::Error> {
    answer.serialize(to)
}

/// What was seen at the last look.
#[derive(Default)]
struct Seen {
    answer: Option<Arc<GridAnswer>>,
    /// mean scores of every sweep's boxes, and the frames that they rest on
    sweeps: Vec<(Scores, u64)>,
    scored: u64,
    not_before: Option<Instant>,
}

/// The scores of a run's frames, and what they say.
pub struct GridScan {
    config: GridConfig,
    /// bits of the score, by frame; NaN: none
    scores: Box<[AtomicU64]>,
    scored: AtomicU64,
    partial: AtomicU64,
    seen: Mutex<Seen>,
}

impl GridScan {
    /// A grid for a run of so many frames.
    pub fn new(config: GridConfig, frames: u64) -> Self {
        Self {
            config,
            scores: (0..frames).map(|_| AtomicU64::new(f64::NAN.to_bits())).collect(),
            scored: AtomicU64::new(0),
            partial: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// As it was asked for.
    pub fn config(&self) -> &GridConfig {
        &self.config
    }

    /// Takes the scalars of a frame's result. Allocates nothing and waits for nobody.
    pub fn score(&self, frame: u64, scalars: &[f64], partial: bool) {
        let score = scalars.get(self.config.scalar).copied().unwrap_or(f64::NAN);
        if let Some(cell) = self.scores.get(frame as usize) {
            cell.store(score.to_bits(), Relaxed);
            self.partial.fetch_add(u64::from(partial && !score.is_nan()), Relaxed);
            self.scored.fetch_add(1, Relaxed);
        }
    }

    /// Sweep, column and line of a frame's box.
    fn place(&self, metadata: &FrameMetadata) -> impl Fn(u64) -> Option<(usize, usize, usize)> {
        let config = &self.config;
        let told = config.told.as_ref().map(|told| {
            (
                told,
                metadata.numbers(&told.column),
                metadata.numbers(&told.row),
                told.layer.as_deref().map(|name| metadata.numbers(name)),
            )
        });
        move |frame| {
            let Some((told, columns, rows, layers)) = &told else {
                return config.numbered(frame);
            };
            let column = config.index(0, told, columns(frame)?)?;
            let layer = layers.as_ref().filter(|_| config.two_sweeps());
            match layer.and_then(|layers| layers(frame)) {
                Some(layer) => Some((1, column, config.index(2, told, layer)?)),
                None => Some((0, column, config.index(1, told, rows(frame)?)?)),
            }
        }
    }

    /// What the boxes say now. A last answer is good enough where nothing has come since, or where it has just been worked
    /// out and nobody `insists`.
    pub fn look(&self, metadata: &FrameMetadata, insists: bool) -> Arc<GridAnswer> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (scored, now) = (self.scored.load(Relaxed), Instant::now());
        // What was told of frames may have changed though no score has.
        let same = seen.scored == scored && self.config.told.is_none();
        let early = seen.not_before.is_some_and(|time| now < time);
        if let Some(answer) = seen.answer.as_ref().filter(|_| same || (early && !insists)) {
            return answer.clone();
        }
        let (sweeps, outside) = self.boxes(metadata);
        let answer = Arc::new(self.answer(&sweeps, outside));
        *seen = Seen {
            answer: Some(answer.clone()),
            sweeps,
            scored,
            not_before: Some(now + LOOK_SHARE * now.elapsed().max(Duration::from_millis(1))),
        };
        answer
    }

    /// For a result's message: its box, and what all boxes say.
    pub fn message(&self, frame: u64, metadata: &FrameMetadata) -> GridMessage {
        let last = self.scored.load(Relaxed) >= self.scores.len() as u64;
        let place = self.place(metadata)(frame);
        GridMessage {
            sweep: place.map(|(sweep, ..)| sweep + 1),
            voxel: place.map(|(_, column, line)| [column, line]),
            so_far: self.look(metadata, last),
        }
    }

    /// Mean scores of boxes with the frames that they rest on, by sweep, and how many frames lie in no box.
    fn boxes(&self, metadata: &FrameMetadata) -> (Vec<(Scores, u64)>, u64) {
        let config = &self.config;
        let size = |sweep: usize| [config.size[0], config.lines(sweep), 1];
        let mut sums: Vec<Vec<(f64, u32)>> = (0..config.sweeps())
            .map(|sweep| vec![(0.0, 0); size(sweep).iter().product()])
            .collect();
        let place = self.place(metadata);
        let mut outside = 0;
        for (frame, cell) in self.scores.iter().enumerate() {
            let score = f64::from_bits(cell.load(Relaxed));
            if score.is_nan() {
                continue;
            }
            match place(frame as u64) {
                Some((sweep, column, line)) => {
                    let (sum, frames) = &mut sums[sweep][line * config.size[0] + column];
                    *sum += score;
                    *frames += 1;
                }
                None => outside += 1,
            }
        }
        let means = sums.into_iter().enumerate().map(|(sweep, sums)| {
            let scores = Scores {
                size: size(sweep),
                // No frames: 0 / 0 is no number.
                values: sums.iter().map(|(sum, frames)| sum / f64::from(*frames)).collect(),
            };
            (scores, sums.iter().map(|(_, frames)| u64::from(*frames)).sum())
        });
        (means.collect(), outside)
    }

    fn answer(&self, sweeps: &[(Scores, u64)], outside: u64) -> GridAnswer {
        let config = &self.config;
        let filled = |(sweep, _): &(Scores, u64)| sweep.values.iter().filter(|score| !score.is_nan()).count();
        let scored = sweeps.iter().map(filled).sum::<usize>();
        // Boxes below the least score are empty, before two sweeps are multiplied.
        let kept = |sweep: &Scores| {
            let mut kept = sweep.clone();
            kept.values
                .iter_mut()
                .filter(|score| **score < config.min_score)
                .for_each(|score| *score = 0.0);
            kept
        };
        let (together, dimensions) = match sweeps {
            [(front, _), (side, _)] => (kept(front).with_sweep(&kept(side)), 3),
            [(front, _), ..] => (kept(front), 2),
            [] => (Scores::none([0; 3]), 2),
        };
        let largest = together.largest().filter(|largest| *largest > 0.0);
        let threshold = largest.map(|largest| match dimensions {
            3 => (config.threshold * largest).max(f64::MIN_POSITIVE),
            _ => (config.threshold * largest)
                .max(config.min_score)
                .max(f64::MIN_POSITIVE),
        });
        let mut crystals = threshold.map_or_else(Vec::new, |threshold| together.crystals(threshold, dimensions));
        let crystals_found = crystals.len();
        crystals.truncate(config.crystals_max);
        GridAnswer {
            score: config.score.clone(),
            columns: config.size[0],
            rows: config.size[1],
            layers: config.size[2],
            boxes: config.boxes(),
            boxes_scored: scored,
            boxes_without_score: config.boxes() - scored,
            frames_partial: self.partial.load(Relaxed),
            frames_outside: outside,
            complete: scored == config.boxes(),
            max_count: largest,
            threshold,
            crystals_found,
            crystals: crystals.into_iter().map(|crystal| config.in_mm(crystal)).collect(),
        }
    }

    /// The pictures of the scores, before the first frame.
    pub fn pictures(&self) -> Vec<Image> {
        let config = &self.config;
        let picture = |sweep: usize| {
            let shape = Shape::new(config.lines(sweep), config.size[0]);
            Image {
                name: PICTURES[sweep].into(),
                shape,
                unit: String::new(),
                values: vec![f32::NAN; shape.pixels()],
                frames_used: 0,
                frames_expected: shape.pixels() as u64 * config.frames_per_box,
            }
        };
        (0..config.sweeps()).map(picture).collect()
    }

    /// Brings pictures up to what was last seen.
    pub fn show(&self, images: &mut [Image]) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, (sweep, frames)) in PICTURES.iter().zip(&seen.sweeps) {
            let Some(image) = images.iter_mut().find(|image| image.name == *name) else {
                continue;
            };
            for (pixel, score) in image.values.iter_mut().zip(&sweep.values) {
                *pixel = *score as f32;
            }
            image.frames_used = *frames;
        }
    }
}

#[cfg(test)]
mod tests;
