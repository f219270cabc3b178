//! A volume that grows while its scan runs: all of it is summed in memory, so that little is left to do when the run is
//! closed.
//!
//! ```text
//! the live operation: a projection, where a place is free ──► a thread: 16 slices after the other, live results first
//! the run is closed:  what the thread has not taken is read from the files ──► slices are written
//! ```
//!
//! Every slice takes the same projections in the same order as from files, and so has the same bits. Where the closed run
//! turns out to be another scan than was summed (a weight of a lost projection that nobody could know, an axis that moved),
//! the volume is made from the files.

use super::super::RecipeError;
use super::super::findings::Findings;
use super::methods::SLAB_SLICES;
use super::volume::NAME;
use super::weights::{Came, Shares};
use crate::afterwards::Place;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use frame::Shape;
use kernels::{Accelerator, Backprojector, BackprojectorConfig, Filter, HalfAcquisition, Plane, Queue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for the device: what takes longer hangs.
const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// How often the thread looks whether live results still wait.
const LOOK: Duration = Duration::from_millis(2);
/// How often it looks whether the run is closed, where no projection comes.
const LOOK_IDLE: Duration = Duration::from_millis(20);

/// What is summed.
pub(super) struct GrowingConfig {
    /// of a projection
    pub(super) shape: Shape,
    pub(super) axis_px: f64,
    pub(super) half_acquisition: bool,
    pub(super) filter: Filter,
    /// angle of every frame as it is planned, NaN where it has none
    pub(super) planned_deg: Vec<f64>,
    /// projections that may wait
    pub(super) places: usize,
    /// the run whose live results come first
    pub(super) found: Arc<Findings>,
}

/// A corrected projection.
struct Projection {
    frame: usize,
    angle_deg: f64,
    invalid_pixels: u64,
    values: Vec<f32>,
}

/// What the live operation hands projections to.
pub(super) struct Feed {
    free: Receiver<Vec<f32>>,
    waiting: Sender<Projection>,
    open: bool,
    /// what nobody took any more: it is not freed while frames come
    refused: Option<Projection>,
    ended: Arc<AtomicBool>,
}

impl Feed {
    /// Copies a projection for the volume where a place is free. Where none is the volume cannot keep up, and takes no more:
    /// what follows is read from the files. Allocates nothing and waits for nothing.
    pub(super) fn offer(&mut self, frame: usize, angle_deg: f64, invalid_pixels: u64, projection: &[f32]) {
        if !self.open || self.ended.load(Relaxed) {
            return;
        }
        self.open = match self.free.try_recv() {
            Ok(mut values) if values.len() == projection.len() => {
                values.copy_from_slice(projection);
                let projection = Projection {
                    frame,
                    angle_deg,
                    invalid_pixels,
                    values,
                };
                self.refused = self.waiting.try_send(projection).err().map(TrySendError::into_inner);
                self.refused.is_none()
            }
            _ => false,
        };
    }
}

/// The thread that sums while the run records.
pub(super) struct Growing {
    thread: Option<JoinHandle<Result<Grown, RecipeError>>>,
    ended: Arc<AtomicBool>,
    axis_px: f64,
    /// name of the device that sums
    device: String,
}

impl Growing {
    /// Begins; places for projections are made here, sums by the thread.
    pub(super) fn begin(accelerator: &Accelerator, config: GrowingConfig) -> Result<(Self, Feed), RecipeError> {
        let (free, places) = bounded(config.places);
        let (to, waiting) = bounded(config.places);
        for _ in 0..config.places {
            // Written, so that no page of it is missing while frames come.
            let _ = free.try_send(vec![f32::NAN; config.shape.pixels()]);
        }
        let ended = Arc::new(AtomicBool::new(false));
        let feed = Feed {
            free: places,
            waiting: to,
            open: true,
            refused: None,
            ended: ended.clone(),
        };
        let device = accelerator.info().name.clone();
        let (accelerator, stop, axis_px) = (accelerator.clone(), ended.clone(), config.axis_px);
        let thread = std::thread::Builder::new()
            .name("fluxline-volume".into())
            .spawn(move || {
                kernels::each_within(WAIT_LIMIT, || {
                    let found = config.found.clone();
                    let mut grown = Grown::new(&accelerator, config, waiting, free)?;
                    grown.follow(&found, &stop)?;
                    Ok(grown)
                })
            })
            .map_err(|error| {
                RecipeError::frames(NAME)(format!("the thread fluxline-volume cannot be started: {error}"))
            })?;
        let growing = Self {
            thread: Some(thread),
            ended,
            axis_px,
            device,
        };
        Ok((growing, feed))
    }

    /// What it has summed so far, now that the run is closed with this axis and its files are read by this device.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) fn grown(mut self, axis_px: f64, accelerator: &Accelerator) -> Result<Grown, String> {
        if axis_px.to_bits() != self.axis_px.to_bits() {
            return Err(format!("the axis was moved from {} to {axis_px}", self.axis_px));
        }
        if accelerator.info().name != self.device {
            return Err(format!("it was summed on {}", self.device));
        }
        self.ended.store(true, Relaxed);
        let thread = self.thread.take().ok_or("it never began")?;
        match thread.join() {
            Ok(grown) => grown.map_err(|error| error.to_string()),
            Err(_) => Err("it panicked".into()),
        }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        // Its memory is free when this returns; what went wrong there matters to nobody any more.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The sums of all slices, and what they rest on.
pub(super) struct Grown {
    queue: Queue,
    /// a plane for every 16 rows
    slabs: Backprojector,
    half: Option<HalfAcquisition>,
    /// a projection of a half acquisition on the wide detector
    wide: Vec<f32>,
    planned_deg: Vec<f64>,
    turn_deg: f64,
    waiting: Receiver<Projection>,
    free: Sender<Vec<f32>>,
    /// frames and angles of projections that came, and weights of those that are in the sums
    frames: Vec<usize>,
    angles_deg: Vec<f64>,
    weights: Vec<f32>,
    lost_deg: Vec<f64>,
    shares: Shares,
    /// the last one, whose weight the next one tells
    last: Option<Projection>,
    invalid_pixels: u64,
}

impl Grown {
    fn new(
        accelerator: &Accelerator,
        config: GrowingConfig,
        waiting: Receiver<Projection>,
        free: Sender<Vec<f32>>,
    ) -> Result<Self, RecipeError> {
        let Shape { rows, columns } = config.shape;
        let half = config
            .half_acquisition
            .then(|| HalfAcquisition::new(columns, config.axis_px));
        let half = half.transpose().map_err(RecipeError::frames(NAME))?;
        let width = half.as_ref().map_or(columns, HalfAcquisition::wide_columns);
        let slabs = BackprojectorConfig {
            rows,
            columns: width,
            rotation_axis_px: half.as_ref().map_or(config.axis_px, HalfAcquisition::wide_axis_px),
            filter: config.filter,
            planes: (0..rows.div_ceil(SLAB_SLICES))
                .map(|block| Plane::Slab { block })
                .collect(),
        };
        let queue = accelerator.queue().map_err(RecipeError::device(NAME))?;
        let slabs = Backprojector::new(accelerator, &slabs).map_err(RecipeError::device(NAME))?;
        Ok(Self {
            queue,
            slabs,
            wide: vec![0.0; half.as_ref().map_or(0, |_| rows * width)],
            half,
            planned_deg: config.planned_deg,
            turn_deg: if config.half_acquisition { 360.0 } else { 180.0 },
            waiting,
            free,
            frames: Vec::new(),
            angles_deg: Vec::new(),
            weights: Vec::new(),
            lost_deg: Vec::new(),
            shares: Shares::default(),
            last: None,
            invalid_pixels: 0,
        })
    }

    /// Sums what comes until the run is closed; live results go first.
    fn follow(&mut self, found: &Findings, ended: &AtomicBool) -> Result<(), RecipeError> {
        let ended = || ended.load(Relaxed);
        let busy = || found.run().is_some_and(|run| run.comes_first());
        let give_way = || {
            while busy() && !ended() {
                std::thread::sleep(LOOK);
            }
        };
        while !ended() {
            match self.waiting.recv_timeout(LOOK_IDLE) {
                Ok(projection) => self.came(projection, &give_way)?,
                Err(RecvTimeoutError::Timeout) => {}
                // Whoever offered them has ended; the run is about to be closed.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_IDLE),
            }
        }
        Ok(())
    }

    /// Notes a projection, and sums the one before, whose weight is known by now.
    fn came(&mut self, projection: Projection, give_way: &dyn Fn()) -> Result<(), RecipeError> {
        let first = self.frames.last().map_or(0, |frame| frame + 1);
        let passed = self.planned_deg.get(first..projection.frame).unwrap_or_default();
        self.lost_deg
            .extend(passed.iter().filter(|angle_deg| angle_deg.is_finite()));
        self.frames.push(projection.frame);
        self.angles_deg.push(projection.angle_deg);
        self.invalid_pixels += projection.invalid_pixels;
        let Some(before) = self.last.replace(projection) else {
            return Ok(());
        };
        let mut weight = 1.0;
        if !self.lost_deg.is_empty() {
            let (came, lost) = (self.angles_deg.iter().copied(), self.lost_deg.iter().copied());
            self.shares.find(came, lost, self.turn_deg);
            weight = self.shares.weights[self.frames.len() - 2] as f32;
        }
        self.add(&before.values, before.angle_deg, weight, give_way)?;
        let _ = self.free.try_send(before.values);
        Ok(())
    }

    /// Adds a projection to all slabs; before each of them `give_way` may let others go first.
    pub(super) fn add(
        &mut self,
        values: &[f32],
        angle_deg: f64,
        weight: f32,
        give_way: &dyn Fn(),
    ) -> Result<(), RecipeError> {
        let values = match &self.half {
            Some(half) => {
                half.place(values, &mut self.wide).map_err(RecipeError::frames(NAME))?;
                &self.wide
            }
            None => values,
        };
        self.slabs
            .push_between(&self.queue, values, angle_deg, weight, give_way)
            .map_err(RecipeError::device(NAME))?;
        self.weights.push(weight);
        Ok(())
    }

    /// Sums what still waits, the last projection with the weight that it has in the closed run; from then on [`Self::add`]
    /// takes what follows.
    ///
    /// # Errors
    /// Why what is summed is not the beginning of the closed run.
    pub(super) fn settle(&mut self, came: &Came, place: &Place<'_>) -> Result<(), String> {
        let give_way = || {
            let _ = place.give_way();
        };
        while let (Ok(()), Ok(projection)) = (place.give_way(), self.waiting.try_recv()) {
            self.came(projection, &give_way).map_err(|error| error.to_string())?;
        }
        let count = self.frames.len();
        if let Some((frame, _)) = (self.frames.iter().zip(&came.frames)).find(|(ours, theirs)| ours != theirs) {
            return Err(format!("frame {frame} is not in the closed run as it came"));
        }
        let bits = |(ours, theirs): (&f64, &f64)| ours.to_bits() == theirs.to_bits();
        if count > came.frames.len() || !self.angles_deg.iter().zip(&came.angles_deg).all(bits) {
            return Err("the closed run has other angles".into());
        }
        if self
            .weights
            .iter()
            .zip(&came.weights)
            .any(|(ours, theirs)| ours != theirs)
        {
            return Err("a projection was lost whose share went to one that was summed before".into());
        }
        if let Some(last) = self.last.take() {
            self.add(&last.values, last.angle_deg, came.weights[count - 1], &give_way)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// How many projections are in the sums.
    pub(super) fn projections(&self) -> usize {
        self.weights.len()
    }

    /// Pixels without a valid transmission in those that came while the run recorded.
    pub(super) fn invalid_pixels(&self) -> u64 {
        self.invalid_pixels
    }

    /// All that has been added is in the slices from here on.
    pub(super) fn flush(&mut self, give_way: &dyn Fn()) -> Result<(), RecipeError> {
        self.slabs
            .flush_between(&self.queue, give_way)
            .map_err(RecipeError::device(NAME))
    }

    /// The 16 slices of slab `number`, `[slice][y][x]`; so many threads copy.
    pub(super) fn slices(&mut self, number: usize, slices: &mut [f32], threads: usize) -> Result<(), RecipeError> {
        self.slabs
            .snapshot_by(&self.queue, number, slices, threads)
            .map_err(RecipeError::device(NAME))
    }
}
