//! Fourier reconstruction (Dowd et al. 1999, Proc. SPIE 3772, 224; Marone & Stampanoni 2012, J. Synchrotron Rad. 19, 1029):
//! a projection's transform is a line through the slice's transform; all lines are spread onto a square grid by a smooth
//! kernel, transformed back at once, and the kernel's own shape is divided out.
//!
//! The work is that of the grid's transform, almost whatever the number of projections, where back-projection's grows with
//! it. The kernel is Kaiser and Bessel's (Beatty, Nishimura & Pauly 2005, IEEE Trans. Med. Imaging 24, 799) on a grid
//! twice as fine as the slice; the ramp, its windows and the blur of linear interpolation are those of [`crate::backprojector`],
//! so slices of both look the same. Two slices at a time: one is the real, the other the imaginary part.

pub mod reference;

use crate::backprojector::filter::{self, Filter};
use crate::fft::fast_length;
use crate::invalid::Invalid;
use crate::parallel::share;
use realfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use std::f64::consts::{PI, TAU};
use std::sync::Arc;

/// Rows that lie side by side, as in slabs of the back-projector.
const BLOCK_ROWS: usize = 16;
/// Grid points that a value is spread over, each way.
const WIDTH: usize = 6;
/// Of these, how many lie before the point just below the value's place.
const BEFORE: usize = WIDTH / 2 - 1;
/// Kernel values per grid point in the table.
const TABLE_STEPS: usize = 512;
/// Columns of the grid that are gathered and transformed together.
const STRIP: usize = 8;

/// Gridrec's time is that of a transform of the grid, as much as back-projecting so many projections, and that of spreading
/// projections, as much as back-projecting them to a slice of so many columns: measured on CPUs, see
/// `docs/reconstruction.md`.
const TRANSFORM_PROJECTIONS: f64 = 75.0;
const SPREADING_COLUMNS: f64 = 360.0;

/// Whether this is faster than back-projection on a CPU for slices of so many columns. The same for every CPU, that the same
/// scan has the same bits everywhere.
pub fn is_faster(columns: usize, projections: usize) -> bool {
    projections as f64 * (1.0 - SPREADING_COLUMNS / columns as f64) > TRANSFORM_PROJECTIONS
}

/// What all slabs of a volume have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct GridrecConfig {
    /// detector columns; slices have as many each way
    pub columns: usize,
    /// column of the rotation axis, pixels from the centre of column 0
    pub rotation_axis_px: f64,
    /// angle of each projection
    pub angles_deg: Vec<f64>,
    /// weight of each projection; empty: 1
    pub weights: Vec<f32>,
    /// window on the ramp
    pub filter: Filter,
    /// host threads; each has a grid of its own
    pub threads: usize,
}

impl GridrecConfig {
    fn grid(&self) -> usize {
        // Even, so that there is a middle.
        fast_length(self.columns) * 2
    }

    /// Bytes that the grids take.
    pub fn bytes_needed(&self) -> usize {
        let pairs = self.threads.clamp(1, BLOCK_ROWS / 2);
        pairs * self.grid().pow(2) * size_of::<Complex<f32>>()
    }
}

struct Thread {
    grid: Vec<Complex<f32>>,
    line: Vec<Complex<f32>>,
    strip: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
}

/// The operation; see the module.
pub struct Gridrec {
    config: GridrecConfig,
    size: usize,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
    /// by frequency from 0, scaled so that the sum over all angles is the slice
    response: Vec<f32>,
    /// by how far a place lies behind a grid point: the kernel at the points about it
    kernel: Vec<[f32; WIDTH]>,
    /// one over the kernel's shape, by column of the slice
    shape: Vec<f32>,
    threads: Vec<Thread>,
}

impl Gridrec {
    /// Prepares; everything is allocated here.
    pub fn new(config: &GridrecConfig) -> Result<Self, Invalid> {
        let (columns, angles) = (config.columns, config.angles_deg.len());
        Invalid::unless((8..=1 << 15).contains(&columns), "columns", columns, "8 to 32768")?;
        Invalid::unless(angles >= 1, "the number of angles", angles, "at least 1")?;
        let axis = config.rotation_axis_px;
        Invalid::unless(axis.is_finite(), "rotation_axis_px", axis, "a number of pixels")?;
        if !config.weights.is_empty() {
            Invalid::expect_len("the number of weights", config.weights.len(), angles)?;
        }
        let sum: f64 = if config.weights.is_empty() {
            angles as f64
        } else {
            config.weights.iter().map(|w| f64::from(*w)).sum()
        };
        Invalid::unless(sum > 0.0, "the sum of weights", sum, "above 0")?;
        let size = config.grid();
        let mut planner = FftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(size), planner.plan_fft_inverse(size));
        let scratch = forward.get_inplace_scratch_len().max(inverse.get_inplace_scratch_len());
        let zero = Complex::new(0.0, 0.0);
        let thread = |_| Thread {
            grid: vec![zero; size * size],
            line: vec![zero; size],
            strip: vec![zero; STRIP * size],
            scratch: vec![zero; scratch],
        };
        let scale = PI / (2.0 * sum) / size as f64;
        let beta = PI * ((WIDTH as f64 / 2.0).powi(2) * 2.25 - 0.8).sqrt();
        let half = WIDTH as f64 / 2.0;
        let kernel = |away: f64| {
            let t = away.abs() / half;
            if t < 1.0 {
                bessel_i0(beta * (1.0 - t * t).sqrt()) / bessel_i0(beta)
            } else {
                0.0
            }
        };
        let kernels = |step: usize| {
            let behind = step as f64 / TABLE_STEPS as f64;
            std::array::from_fn(|point| kernel(point as f64 - BEFORE as f64 - behind) as f32)
        };
        let shape = |column: usize| {
            let x = column as f64 - (columns / 2) as f64;
            let inside = beta.powi(2) - (PI * WIDTH as f64 * x / size as f64).powi(2);
            let root = inside.abs().sqrt().max(1e-9);
            let value = if inside >= 0.0 {
                root.sinh() / root
            } else {
                root.sin() / root
            };
            bessel_i0(beta) / (WIDTH as f64 * value)
        };
        let response = ramp(config.filter, columns, size);
        Ok(Self {
            response: response.iter().map(|value| (value * scale) as f32).collect(),
            // One more than there are steps of a grid point: there are always two to interpolate between.
            kernel: (0..TABLE_STEPS + 2).map(kernels).collect(),
            shape: (0..columns).map(|column| shape(column) as f32).collect(),
            threads: (0..config.threads.clamp(1, BLOCK_ROWS / 2)).map(thread).collect(),
            config: config.clone(),
            size,
            forward,
            inverse,
        })
    }

    /// Reconstructs 16 slices from their line integrals, `[angle][column][16 rows]`, into `[16 slices][y][x]`, as
    /// [`crate::backprojector::SlabReconstructor`] does. The same slab gives the same bits on any number of threads.
    pub fn run(&mut self, sinograms: &[f32], slices: &mut [f32]) -> Result<(), Invalid> {
        self.run_while(sinograms, slices, || true)
    }

    /// The same; `go_on` is asked before every two slices, and where it says no the slices are not to be used.
    pub fn run_while(
        &mut self,
        sinograms: &[f32],
        slices: &mut [f32],
        go_on: impl Fn() -> bool + Sync,
    ) -> Result<(), Invalid> {
        let (columns, angles) = (self.config.columns, self.config.angles_deg.len());
        let expected = angles * columns * BLOCK_ROWS;
        Invalid::expect_len("the sinograms' number of values", sinograms.len(), expected)?;
        Invalid::expect_len(
            "the slices' number of values",
            slices.len(),
            BLOCK_ROWS * columns * columns,
        )?;
        let mut threads = std::mem::take(&mut self.threads);
        let mut pairs: Vec<&mut [f32]> = slices.chunks_exact_mut(2 * columns * columns).collect();
        share(&mut threads, &mut pairs, |thread, pair, out| {
            if go_on() {
                self.two(thread, &sinograms[2 * pair..], out);
            }
        });
        self.threads = threads;
        Ok(())
    }

    /// Two neighbouring rows, whose first values lie at the beginning of `sinograms`.
    fn two(&self, thread: &mut Thread, sinograms: &[f32], out: &mut [f32]) {
        thread.grid.fill(Complex::new(0.0, 0.0));
        for (angle, angle_deg) in self.config.angles_deg.iter().enumerate() {
            let from = &sinograms[angle * self.config.columns * BLOCK_ROWS..];
            let weight = self.config.weights.get(angle).copied().unwrap_or(1.0);
            self.spread(thread, from, *angle_deg, weight);
        }
        self.back(thread, out);
    }

    /// Spreads one projection's transform along its line.
    fn spread(&self, thread: &mut Thread, projection: &[f32], angle_deg: f64, weight: f32) {
        let (size, columns) = (self.size, self.config.columns);
        for (place, pair) in thread.line[..columns].iter_mut().zip(projection.chunks(BLOCK_ROWS)) {
            *place = Complex::new(weight * pair[0], weight * pair[1]);
        }
        thread.line[columns..].fill(Complex::new(0.0, 0.0));
        self.forward.process_with_scratch(&mut thread.line, &mut thread.scratch);
        let (sin, cos) = angle_deg.to_radians().sin_cos();
        // Slices of an even number of columns have their middle between two of them.
        let offset = (columns / 2) as f64 - (columns as f64 - 1.0) / 2.0;
        let shift = self.config.rotation_axis_px + offset * (cos + sin);
        let turn = TAU * shift / size as f64;
        let at = |k: f64| {
            let (s, c) = (turn * k).sin_cos();
            Complex::new(c, s)
        };
        let reach = size as i64 / 2;
        // Turned on from frequency to frequency: double precision loses nothing that single precision would show.
        let (mut turned, step) = (at((1 - reach) as f64), at(1.0));
        let Thread { grid, line, .. } = thread;
        for k in 1 - reach..reach {
            let place = if k < 0 { k + size as i64 } else { k } as usize;
            let phase = Complex::new(turned.re as f32, turned.im as f32);
            let value = line[place] * self.response[k.unsigned_abs() as usize] * phase;
            turned *= step;
            let (x_first, x_weights) = self.weights(k as f64 * cos);
            let (mut row, y_weights) = self.weights(k as f64 * sin);
            for y_weight in y_weights {
                let part = value * y_weight;
                let line = &mut grid[row * size..][..size];
                if let Some(places) = line.get_mut(x_first..x_first + WIDTH) {
                    places
                        .iter_mut()
                        .zip(x_weights)
                        .for_each(|(place, w)| *place += part * w);
                } else {
                    for (point, w) in x_weights.into_iter().enumerate() {
                        line[(x_first + point) % size] += part * w;
                    }
                }
                row = if row + 1 == size { 0 } else { row + 1 };
            }
        }
    }

    /// The first grid point about a place within half a grid from 0, and the kernel at it and those that follow, which go on
    /// at the grid's other end. No division: this is called for every value of every line.
    fn weights(&self, place: f64) -> (usize, [f32; WIDTH]) {
        // Above 0, where cutting is rounding down.
        let place = place + self.size as f64;
        let below = place as usize;
        let steps = (place - below as f64) as f32 * TABLE_STEPS as f32;
        let step = (steps as usize).min(TABLE_STEPS);
        let share = steps - step as f32;
        let (here, next) = (&self.kernel[step], &self.kernel[step + 1]);
        let first = below - BEFORE;
        let first = if first >= self.size { first - self.size } else { first };
        (
            first,
            std::array::from_fn(|point| here[point] + share * (next[point] - here[point])),
        )
    }

    /// Transforms the grid back and takes the slices from its middle.
    fn back(&self, thread: &mut Thread, out: &mut [f32]) {
        let (size, columns) = (self.size, self.config.columns);
        for row in thread.grid.chunks_exact_mut(size) {
            self.inverse.process_with_scratch(row, &mut thread.scratch);
        }
        let place = |column: usize| (column + size - columns / 2) % size;
        let (real, imaginary) = out.split_at_mut(columns * columns);
        for first in (0..columns).step_by(STRIP) {
            let count = STRIP.min(columns - first);
            let strip = &mut thread.strip[..count * size];
            for (row, line) in thread.grid.chunks_exact(size).enumerate() {
                for k in 0..count {
                    strip[k * size + row] = line[place(first + k)];
                }
            }
            self.inverse.process_with_scratch(strip, &mut thread.scratch);
            for row in 0..columns {
                for k in 0..count {
                    let value = strip[k * size + place(row)] * (self.shape[row] * self.shape[first + k]);
                    real[row * columns + first + k] = value.re;
                    imaginary[row * columns + first + k] = value.im;
                }
            }
        }
    }
}

/// The back-projector's response at the grid's frequencies, with the blur of its linear interpolation between columns.
fn ramp(filter: Filter, columns: usize, size: usize) -> Vec<f64> {
    let padded = filter::padded_length(columns);
    let response = filter::response(filter, columns);
    let at = |k: usize| {
        let place = k as f64 / size as f64 * padded as f64;
        let below = (place as usize).min(padded / 2);
        let above = (below + 1).min(padded / 2);
        let x = PI * k as f64 / size as f64;
        let blur = if k == 0 { 1.0 } else { (x.sin() / x).powi(2) };
        blur * (response[below] + (place - below as f64) * (response[above] - response[below]))
    };
    (0..=size / 2).map(at).collect()
}

/// Modified Bessel function of the first kind and order 0, by its series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > 1e-16 * sum {
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests;
