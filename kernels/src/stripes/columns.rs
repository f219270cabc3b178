//! What Vo's methods do along the columns of a sinogram.

use crate::fft::fast_length;
use crate::image::mirrored;
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftPlanner};
use std::sync::Arc;

/// Every column sorted, and for each place the row that its value came from.
pub(super) fn sorted(sinogram: &[f32], columns: usize) -> (Vec<f32>, Vec<u32>) {
    let rows = sinogram.len() / columns;
    let (mut values, mut order) = (vec![0.0; sinogram.len()], vec![0; sinogram.len()]);
    let mut column_values: Vec<(f32, u32)> = Vec::with_capacity(rows);
    for column in 0..columns {
        column_values.clear();
        let column_at = |row: usize| sinogram[row * columns + column];
        column_values.extend((0..rows).map(|row| (column_at(row), row as u32)));
        column_values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (row, (value, from)) in column_values.iter().enumerate() {
            values[row * columns + column] = *value;
            order[row * columns + column] = *from;
        }
    }
    (values, order)
}

/// Puts values back to the rows that they came from.
pub(super) fn unsorted(values: &[f32], order: &[u32], columns: usize, out: &mut [f32]) {
    for (index, (value, row)) in values.iter().zip(order).enumerate() {
        out[*row as usize * columns + index % columns] = *value;
    }
}

/// Sum over the angles of the distance between a value and the mean of those around it in its column.
pub(super) fn unrest(sinogram: &[f32], columns: usize, window: usize) -> Vec<f64> {
    let rows = sinogram.len() / columns;
    let row = |row: isize| &sinogram[mirrored(row, rows) * columns..][..columns];
    let mut sums = vec![0.0; columns];
    let first = -((window / 2) as isize);
    for index in first..first + window as isize {
        sums.iter_mut()
            .zip(row(index))
            .for_each(|(sum, v)| *sum += f64::from(*v));
    }
    let mut unrest = vec![0.0; columns];
    for index in 0..rows as isize {
        for (column, value) in row(index).iter().enumerate() {
            unrest[column] += (f64::from(*value) - sums[column] / window as f64).abs();
        }
        let (leaves, comes) = (row(index + first), row(index + first + window as isize));
        for (sum, (leaves, comes)) in sums.iter_mut().zip(leaves.iter().zip(comes)) {
            *sum += f64::from(*comes) - f64::from(*leaves);
        }
    }
    unrest
}

/// Low-pass by a Gaussian whose middle lies at place `(length - 1) / 2` of the frequencies in order, as Vo defines it:
/// for an even number half a frequency beside zero. Alternating signs put the frequencies in order.
struct Gaussian {
    window: Vec<f64>,
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
    scratch: Vec<Complex<f64>>,
}

impl Gaussian {
    fn new(length: usize, sigma: f64) -> Self {
        let mut planner = FftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(length), planner.plan_fft_inverse(length));
        let scratch = forward.get_inplace_scratch_len().max(inverse.get_inplace_scratch_len());
        let middle = (length as f64 - 1.0) / 2.0;
        let weight = |k: usize| (-0.5 * ((k as f64 - middle) / sigma).powi(2)).exp() / length as f64;
        Self {
            window: (0..length).map(weight).collect(),
            scratch: vec![Complex::default(); scratch],
            forward,
            inverse,
        }
    }

    fn run(&mut self, line: &mut [Complex<f64>]) {
        line.iter_mut().skip(1).step_by(2).for_each(|v| *v = -*v);
        self.forward.process_with_scratch(line, &mut self.scratch);
        line.iter_mut().zip(&self.window).for_each(|(v, weight)| *v *= *weight);
        self.inverse.process_with_scratch(line, &mut self.scratch);
        line.iter_mut().skip(1).step_by(2).for_each(|v| *v = -*v);
    }
}

/// Low-pass along columns, mirrored at both ends.
pub(super) fn low_pass(sinogram: &[f32], columns: usize, sigma: f64) -> Vec<f32> {
    let rows = sinogram.len() / columns;
    let pad = 150.min(rows / 10);
    let mut gaussian = Gaussian::new(rows + 2 * pad, sigma);
    let mut line = vec![Complex::default(); rows + 2 * pad];
    let mut out = vec![0.0; sinogram.len()];
    for column in 0..columns {
        for (index, place) in line.iter_mut().enumerate() {
            let row = mirrored_once(index as isize - pad as isize, rows);
            *place = Complex::new(f64::from(sinogram[row * columns + column]), 0.0);
        }
        gaussian.run(&mut line);
        for row in 0..rows {
            out[row * columns + column] = line[row + pad].re as f32;
        }
    }
    out
}

/// Multiplies the frequencies of `line` with real weights; the result is not scaled.
pub(super) fn pass(
    forward: &dyn RealToComplex<f64>,
    inverse: &dyn ComplexToReal<f64>,
    line: &mut [f64],
    spectrum: &mut [Complex<f64>],
    weights: &[f64],
) {
    let done = forward.process(line, spectrum);
    debug_assert!(done.is_ok(), "the buffers have the plan's lengths");
    spectrum.iter_mut().zip(weights).for_each(|(v, weight)| *v *= *weight);
    if let Some(first) = spectrum.first_mut() {
        first.im = 0.0;
    }
    if let Some(last) = spectrum.last_mut().filter(|_| line.len().is_multiple_of(2)) {
        last.im = 0.0;
    }
    let done = inverse.process(spectrum, line);
    debug_assert!(done.is_ok(), "the buffers have the plan's lengths");
}

/// The place that a place outside is mirrored to, the outermost value once.
pub(super) fn mirrored_once(index: isize, length: usize) -> usize {
    let period = 2 * (length as isize - 1).max(1);
    let place = index.rem_euclid(period);
    place.min(period - place) as usize
}

/// Every column's polynomial fit within a window of all angles (one fewer where their number is even) around each
/// angle (Savitzky & Golay 1964), mirrored at both ends.
pub(super) fn fitted(values: &[f32], columns: usize, order: usize) -> Vec<f64> {
    let rows = values.len() / columns;
    let window = if rows.is_multiple_of(2) { rows - 1 } else { rows };
    let weights = smoothing_weights(window, order.min(window - 1));
    let reach = window / 2;
    let length = fast_length(rows + 2 * reach);
    let mut planner = RealFftPlanner::<f64>::new();
    let (forward, inverse) = (planner.plan_fft_forward(length), planner.plan_fft_inverse(length));
    // The window is even: its transform about place 0 is real.
    let mut line = vec![0.0; length];
    for (index, weight) in weights.iter().enumerate() {
        line[(index + length - reach) % length] = weight / length as f64;
    }
    let mut spectrum = forward.make_output_vec();
    let done = forward.process(&mut line, &mut spectrum);
    debug_assert!(done.is_ok(), "the buffers have the plan's lengths");
    let response: Vec<f64> = spectrum.iter().map(|v| v.re).collect();
    let mut out = vec![0.0; values.len()];
    for column in 0..columns {
        line.fill(0.0);
        for (index, place) in line[..rows + 2 * reach].iter_mut().enumerate() {
            let row = mirrored_once(index as isize - reach as isize, rows);
            *place = f64::from(values[row * columns + column]);
        }
        pass(&*forward, &*inverse, &mut line, &mut spectrum, &response);
        for row in 0..rows {
            out[row * columns + column] = line[row + reach];
        }
    }
    out
}

/// Weights by which the values of a window sum to its fitted polynomial's value in the middle: by orthogonal (Gram)
/// polynomials, which stay exact where powers would not.
fn smoothing_weights(window: usize, order: usize) -> Vec<f64> {
    let half = (window / 2) as f64;
    let x: Vec<f64> = (0..window).map(|i| (i as f64 - half) / half.max(1.0)).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut weights = vec![0.0; window];
    let mut earlier: Vec<Vec<f64>> = Vec::new();
    for degree in 0..=order {
        let mut polynomial: Vec<f64> = match earlier.last() {
            Some(last) => last.iter().zip(&x).map(|(p, x)| p * x).collect(),
            None => vec![1.0; window],
        };
        // Twice, so that what rounding leaves of the others goes, too.
        for _ in 0..2 {
            for other in &earlier {
                let share = dot(&polynomial, other);
                polynomial.iter_mut().zip(other).for_each(|(p, o)| *p -= share * o);
            }
        }
        let norm = dot(&polynomial, &polynomial).sqrt();
        if norm == 0.0 {
            break;
        }
        polynomial.iter_mut().for_each(|p| *p /= norm);
        if degree % 2 == 0 {
            let middle = polynomial[window / 2];
            weights.iter_mut().zip(&polynomial).for_each(|(w, p)| *w += middle * p);
        }
        earlier.push(polynomial);
    }
    weights
}

/// Low-pass by a Gaussian in the frequencies, `sigma` of rows and columns; columns go on as they end, rows as their
/// column's mean.
pub(super) fn low_pass_2d(values: &[f64], columns: usize, sigma: [f64; 2], pad: usize) -> Vec<f64> {
    let rows = values.len() / columns;
    let (high, wide) = (rows + 2 * pad, columns + 2 * pad);
    let mut means = vec![0.0; columns];
    for row in values.chunks_exact(columns) {
        means.iter_mut().zip(row).for_each(|(sum, v)| *sum += v / rows as f64);
    }
    let mut along = Gaussian::new(wide, sigma[1]);
    let mut image = Vec::with_capacity(high * wide);
    for row in 0..high {
        let inside = row.checked_sub(pad).filter(|row| *row < rows);
        let line = inside.map_or(&means[..], |row| &values[row * columns..][..columns]);
        let at = |column: usize| line[column.saturating_sub(pad).min(columns - 1)];
        image.extend((0..wide).map(|column| Complex::new(at(column), 0.0)));
        along.run(&mut image[row * wide..]);
    }
    let mut down = Gaussian::new(high, sigma[0]);
    let mut line = vec![Complex::default(); high];
    let mut out = vec![0.0; rows * columns];
    for column in 0..columns {
        for (row, place) in line.iter_mut().enumerate() {
            *place = image[row * wide + column + pad];
        }
        down.run(&mut line);
        for row in 0..rows {
            out[row * columns + column] = line[row + pad].re;
        }
    }
    out
}
