//! Slices of the last half turn, for samples that change while they turn: every projection that comes drives out those
//! that are half a turn older, which are filtered once more and subtracted.
//!
//! Adding and subtracting the same value leaves a rounding error behind, so that everything is summed anew from the
//! projections at hand once as many were subtracted as there are: no drift, for at most twice the work.
//!
//! They are kept as they came: an [`Arrangement`] says what is done to each before it is filtered, the same for one that is
//! added and taken away until the slices are summed anew. The same projections serve where nothing is driven out ([`SlidingWindow::keep`]): slices that move are summed anew from
//! them. Each has a weight, 1 at first, that changes where its neighbours turn out to be lost ([`SlidingWindow::weigh`]).

use super::{Arrangement, Backprojector};
use crate::accelerator::AcceleratorError;
use crate::host_memory::Queue;

/// A weight that changes by less stays as it is.
const WEIGHT_STEP: f32 = 1e-6;

/// Projections of the last half turn in host memory; see the module.
pub struct SlidingWindow {
    span_deg: f64,
    pixels: usize,
    values: Vec<f32>,
    angles_deg: Vec<f64>,
    /// the same, counted on where angles begin again at 0
    turned_deg: Vec<f64>,
    weights: Vec<f32>,
    first: usize,
    count: usize,
    subtracted: usize,
}

impl SlidingWindow {
    /// Room for `projections` of `rows`×`columns` within `span_deg` (180 as a rule; infinite: whatever there is room for);
    /// everything is allocated here.
    pub fn new(rows: usize, columns: usize, projections: usize, span_deg: f64) -> Result<Self, AcceleratorError> {
        if projections < 1 || span_deg.is_nan() || span_deg <= 0.0 {
            return Err(AcceleratorError::Value {
                name: "sliding window",
                value: format!("{projections} projections over {span_deg} degrees"),
                allowed: "at least 1 projection, more than 0 degrees",
            });
        }
        Ok(Self {
            span_deg,
            pixels: rows * columns,
            values: vec![0.0; projections * rows * columns],
            angles_deg: vec![0.0; projections],
            turned_deg: vec![0.0; projections],
            weights: vec![1.0; projections],
            first: 0,
            count: 0,
            subtracted: 0,
        })
    }

    /// Bytes of host memory in use.
    pub fn host_bytes(&self) -> usize {
        (self.values.len() + self.weights.len()) * size_of::<f32>() + 2 * self.angles_deg.len() * size_of::<f64>()
    }

    /// Projections in the window.
    pub fn projections(&self) -> usize {
        self.count
    }

    /// Whether it can keep another one without forgetting any.
    pub fn has_room(&self) -> bool {
        self.count < self.angles_deg.len()
    }

    /// Adds a projection to the slices and takes away those that the sample has turned by `span_deg` or more since, and the
    /// oldest where there is no room. From one projection to the next it turns by less than half a turn, so that angles may
    /// begin again at 0. Nothing is allocated.
    pub fn push(
        &mut self,
        queue: &Queue,
        backprojector: &mut Backprojector,
        arrangement: &mut Arrangement,
        projection: &[f32],
        angle_deg: f64,
    ) -> Result<(), AcceleratorError> {
        AcceleratorError::expect_len("a projection's number of pixels", projection.len(), self.pixels)?;
        let room = self.angles_deg.len();
        let turned_deg = self.turned_deg(angle_deg);
        // A hundredth of a millionth of a turn: steps of 0.1 do not sum to 180 exactly.
        let old = |window: &Self| (turned_deg - window.turned_deg[window.first]).abs() >= window.span_deg - 1e-6;
        while self.count > 0 && (self.count == room || old(self)) {
            let values = &self.values[self.first * self.pixels..][..self.pixels];
            let values = arrangement.run(values)?;
            let weight = -self.weights[self.first];
            backprojector.push_weighted(queue, values, self.angles_deg[self.first], weight)?;
            self.first = (self.first + 1) % room;
            self.count -= 1;
            self.subtracted += 1;
        }
        self.store(projection, angle_deg, turned_deg);
        if self.subtracted > self.count {
            return self.rebuild(queue, backprojector, arrangement);
        }
        backprojector.push_values(queue, arrangement.run(projection)?, angle_deg)
    }

    /// Keeps a projection whose slices are summed elsewhere, and forgets the oldest where there is no room. Nothing is
    /// allocated.
    pub fn keep(&mut self, projection: &[f32], angle_deg: f64) -> Result<(), AcceleratorError> {
        AcceleratorError::expect_len("a projection's number of pixels", projection.len(), self.pixels)?;
        let turned_deg = self.turned_deg(angle_deg);
        if self.count == self.angles_deg.len() {
            self.first = (self.first + 1) % self.angles_deg.len();
            self.count -= 1;
        }
        self.store(projection, angle_deg, turned_deg);
        Ok(())
    }

    /// `angle_deg`, counted on from the newest projection by the shorter way round.
    fn turned_deg(&self, angle_deg: f64) -> f64 {
        let Some(newest) = self.count.checked_sub(1) else {
            return angle_deg;
        };
        let newest = (self.first + newest) % self.angles_deg.len();
        let step = angle_deg - self.angles_deg[newest];
        self.turned_deg[newest] + step - 360.0 * (step / 360.0).round()
    }

    fn store(&mut self, projection: &[f32], angle_deg: f64, turned_deg: f64) {
        let place = (self.first + self.count) % self.angles_deg.len();
        self.values[place * self.pixels..][..self.pixels].copy_from_slice(projection);
        (self.angles_deg[place], self.turned_deg[place]) = (angle_deg, turned_deg);
        self.weights[place] = 1.0;
        self.count += 1;
    }

    /// Another span: what is further from the newest projection is forgotten. The slices follow with
    /// [`SlidingWindow::rebuild`]. What is not a span above 0 changes nothing.
    pub fn set_span(&mut self, span_deg: f64) {
        if span_deg.is_nan() || span_deg <= 0.0 {
            return;
        }
        self.span_deg = span_deg;
        let room = self.angles_deg.len();
        let newest = self.turned_deg[(self.first + self.count.max(1) - 1) % room];
        while self.count > 1 && (newest - self.turned_deg[self.first]).abs() >= span_deg - 1e-6 {
            self.first = (self.first + 1) % room;
            self.count -= 1;
        }
    }

    /// From now on `arrangement` takes away what a column has in all of these projections and its neighbours, so many columns
    /// of a median, have not; 0 columns: nothing. Allocates nothing. The slices follow with [`SlidingWindow::rebuild`].
    pub fn find_stripes(&self, arrangement: &mut Arrangement, columns: usize) {
        let room = self.angles_deg.len();
        let projection = |number: usize| {
            let place = (self.first + number) % room;
            &self.values[place * self.pixels..][..self.pixels]
        };
        arrangement.set_offsets(self.count, projection, columns);
    }

    /// Sums the slices anew.
    pub fn rebuild(
        &mut self,
        queue: &Queue,
        backprojector: &mut Backprojector,
        arrangement: &mut Arrangement,
    ) -> Result<(), AcceleratorError> {
        backprojector.reset(queue)?;
        self.subtracted = 0;
        for number in 0..self.count {
            let place = (self.first + number) % self.angles_deg.len();
            let values = &self.values[place * self.pixels..][..self.pixels];
            let values = arrangement.run(values)?;
            backprojector.push_weighted(queue, values, self.angles_deg[place], self.weights[place])?;
        }
        Ok(())
    }

    /// Angle and weight of every projection that is kept, the oldest first.
    pub fn kept(&self) -> impl Iterator<Item = (f64, f32)> {
        let places = (0..self.count).map(|number| (self.first + number) % self.angles_deg.len());
        places.map(|place| (self.angles_deg[place], self.weights[place]))
    }

    /// Gives the projections that are kept, the oldest first, these weights, above 0, in slices that they are part of. Only those
    /// whose weight changes are filtered once more. Allocates nothing.
    pub fn weigh(
        &mut self,
        queue: &Queue,
        backprojector: &mut Backprojector,
        arrangement: &mut Arrangement,
        weights: &[f32],
    ) -> Result<(), AcceleratorError> {
        AcceleratorError::expect_len("the number of weights", weights.len(), self.count)?;
        for (number, weight) in weights.iter().enumerate() {
            let place = (self.first + number) % self.angles_deg.len();
            let more = weight - self.weights[place];
            if more.abs() < WEIGHT_STEP {
                continue;
            }
            let values = &self.values[place * self.pixels..][..self.pixels];
            backprojector.push_again(queue, arrangement.run(values)?, self.angles_deg[place], more)?;
            self.weights[place] = *weight;
        }
        Ok(())
    }
}
