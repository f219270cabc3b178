//! The pseudo-polar Fourier transform (Averbuch, Coifman, Donoho, Israeli & Shkolnisky 2008, SIAM J. Sci. Comput. 30, 785):
//! exact Fourier values of a picture along lines whose slopes, not angles, are evenly apart. Along such lines a transform
//! of the rows leaves sums that are transforms again, with a step of their own (Bluestein's chirp).
//!
//! Lines come in two families of `lines` each, of slopes `s = -1 + 2 l / lines`: direction `(1, s)`, then `(-s, 1)`. Of each the
//! values at `k (1, s) / length`, k from 0 up to half of `length`, are kept; those at -k are their conjugates.

use crate::fft::fast_length;
use realfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use std::f64::consts::{PI, TAU};
use std::sync::Arc;

/// Transform and adjoint for pictures of one size.
pub(super) struct PseudoPolar {
    columns: usize,
    lines: usize,
    length: usize,
    chirp_length: usize,
    row: [Arc<dyn Fft<f64>>; 2],
    chirp: [Arc<dyn Fft<f64>>; 2],
    lines_buffer: Vec<Complex<f64>>,
    grid: Vec<Complex<f64>>,
    kernel: Vec<Complex<f64>>,
    work: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
}

impl PseudoPolar {
    pub(super) fn new(columns: usize, lines: usize) -> Self {
        let length = 2 * fast_length(columns);
        let chirp_length = fast_length(2 * columns.max(lines));
        let mut planner = FftPlanner::new();
        let row = [planner.plan_fft_forward(length), planner.plan_fft_inverse(length)];
        let chirp = [
            planner.plan_fft_forward(chirp_length),
            planner.plan_fft_inverse(chirp_length),
        ];
        let scratch = row
            .iter()
            .chain(&chirp)
            .map(|plan| plan.get_inplace_scratch_len())
            .max();
        let zero = Complex::default();
        Self {
            columns,
            lines,
            length,
            chirp_length,
            row,
            chirp,
            lines_buffer: vec![zero; length],
            grid: vec![zero; length / 2 * columns],
            kernel: vec![zero; chirp_length],
            work: vec![zero; chirp_length],
            scratch: vec![zero; scratch.unwrap_or(0)],
        }
    }

    /// Values along a line.
    pub(super) fn radial(&self) -> usize {
        self.length / 2
    }

    /// Values of the whole transform, `[family][k][line]`.
    pub(super) fn len(&self) -> usize {
        2 * self.radial() * self.lines
    }

    /// Frequency in cycles per pixel of value 1 along an axis.
    pub(super) fn step(&self) -> f64 {
        1.0 / self.length as f64
    }

    pub(super) fn slope(&self, line: usize) -> f64 {
        -1.0 + 2.0 * line as f64 / self.lines as f64
    }

    fn middle(&self) -> f64 {
        (self.columns as f64 - 1.0) / 2.0
    }

    /// The transform of a picture, `columns`×`columns`, about its middle.
    pub(super) fn forward(&mut self, image: &[f64], out: &mut [Complex<f64>]) {
        let (columns, radial, half) = (self.columns, self.radial(), out.len() / 2);
        for (family, out) in out.chunks_exact_mut(half).enumerate() {
            for line in 0..columns {
                self.lines_buffer.fill(Complex::default());
                for (point, place) in self.lines_buffer[..columns].iter_mut().enumerate() {
                    let index = if family == 0 {
                        line * columns + point
                    } else {
                        point * columns + line
                    };
                    place.re = image[index];
                }
                self.row[0].process_with_scratch(&mut self.lines_buffer, &mut self.scratch);
                for k in 0..radial {
                    let turn = Complex::from_polar(1.0, TAU * k as f64 * self.middle() / self.length as f64);
                    self.grid[k * columns + line] = self.lines_buffer[k] * turn;
                }
            }
            let sign = if family == 0 { 1.0 } else { -1.0 };
            for k in 0..radial {
                self.chirped(k, sign, false, &mut out[k * self.lines..(k + 1) * self.lines]);
            }
        }
    }

    /// The adjoint: a picture from values, the real part of their sum along all lines.
    pub(super) fn adjoint(&mut self, values: &[Complex<f64>], image: &mut [f64]) {
        let (columns, radial, half) = (self.columns, self.radial(), values.len() / 2);
        image.fill(0.0);
        let mut line_values = vec![Complex::default(); self.lines];
        for (family, values) in values.chunks_exact(half).enumerate() {
            let sign = if family == 0 { 1.0 } else { -1.0 };
            for k in 0..radial {
                line_values.copy_from_slice(&values[k * self.lines..(k + 1) * self.lines]);
                self.chirped(k, sign, true, &mut line_values);
            }
            for line in 0..columns {
                self.lines_buffer.fill(Complex::default());
                for k in 0..radial {
                    let turn = Complex::from_polar(1.0, -TAU * k as f64 * self.middle() / self.length as f64);
                    self.lines_buffer[k] = self.grid[k * columns + line] * turn;
                }
                self.row[1].process_with_scratch(&mut self.lines_buffer, &mut self.scratch);
                for (point, value) in self.lines_buffer[..columns].iter().enumerate() {
                    let index = if family == 0 {
                        line * columns + point
                    } else {
                        point * columns + line
                    };
                    image[index] += value.re;
                }
            }
        }
    }

    /// `out[l] = Σ_j grid[k][j] exp(-2πi k sign s_l (j - middle) / length)`, or its adjoint from `out` into the grid.
    fn chirped(&mut self, k: usize, sign: f64, adjoint: bool, out: &mut [Complex<f64>]) {
        let (columns, lines, middle) = (self.columns, self.lines, self.middle());
        let base = sign * k as f64 / self.length as f64;
        let step = base * 2.0 / lines as f64;
        // exp(-iπ step n²), with n² step reduced first: it grows large.
        let square = |n: f64| Complex::from_polar(1.0, -PI * (step * n * n).rem_euclid(2.0));
        let before = |j: usize| Complex::from_polar(1.0, TAU * base * (j as f64 - middle)) * square(j as f64);
        let after = |l: usize| square(l as f64) * Complex::from_polar(1.0, TAU * step * l as f64 * middle);
        self.kernel.fill(Complex::default());
        for n in 0..columns.max(lines) {
            let value = square(n as f64).conj();
            self.kernel[n] = value;
            self.kernel[(self.chirp_length - n) % self.chirp_length] = value;
        }
        self.chirp[0].process_with_scratch(&mut self.kernel, &mut self.scratch);
        self.work.fill(Complex::default());
        let grid = &mut self.grid[k * columns..(k + 1) * columns];
        if adjoint {
            out.iter()
                .enumerate()
                .for_each(|(l, value)| self.work[l] = value * after(l).conj());
        } else {
            grid.iter()
                .enumerate()
                .for_each(|(j, value)| self.work[j] = value * before(j));
        }
        self.chirp[0].process_with_scratch(&mut self.work, &mut self.scratch);
        let scale = 1.0 / self.chirp_length as f64;
        // The kernel is even, so its conjugate's transform is the conjugate of its own.
        for (value, kernel) in self.work.iter_mut().zip(&self.kernel) {
            *value *= if adjoint { kernel.conj() } else { *kernel } * scale;
        }
        self.chirp[1].process_with_scratch(&mut self.work, &mut self.scratch);
        if adjoint {
            grid.iter_mut()
                .enumerate()
                .for_each(|(j, value)| *value = self.work[j] * before(j).conj());
        } else {
            out.iter_mut()
                .enumerate()
                .for_each(|(l, value)| *value = self.work[l] * after(l));
        }
    }
}
