//! Transforms of images on the host, by a kept library; plans are shared between threads, work space is not.
//!
//! Nothing is scaled: forward and inverse together multiply by the number of values.

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, FftNum, RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftPlanner};
use std::sync::Arc;

/// Columns that are gathered and transformed together.
const STRIP_COLUMNS: usize = 16;

/// The smallest length of at least `length` whose prime factors are 2, 3, 5 and 7.
pub(crate) fn fast_length(length: usize) -> usize {
    let smooth = |mut n: usize| {
        for factor in [2, 3, 5, 7] {
            while n.is_multiple_of(factor) {
                n /= factor;
            }
        }
        n == 1
    };
    (length.max(1)..).find(|n| smooth(*n)).unwrap_or(length)
}

/// Signed frequency of number `k` of `length`, cycles per sample.
pub(crate) fn frequency(k: usize, length: usize) -> f64 {
    let signed = if 2 * k < length {
        k as f64
    } else {
        k as f64 - length as f64
    };
    signed / length as f64
}

/// Work space of one thread.
pub(crate) struct Work<T> {
    strip: Vec<Complex<T>>,
    scratch: Vec<Complex<T>>,
}

/// Real images of one size to half spectra `[rows][columns / 2 + 1]` and back.
pub(crate) struct RealFft2<T: FftNum> {
    rows: usize,
    columns: usize,
    row_forward: Arc<dyn RealToComplex<T>>,
    row_inverse: Arc<dyn ComplexToReal<T>>,
    column_forward: Arc<dyn Fft<T>>,
    column_inverse: Arc<dyn Fft<T>>,
}

impl<T: FftNum> RealFft2<T> {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        let mut real = RealFftPlanner::new();
        let mut complex = FftPlanner::new();
        Self {
            rows,
            columns,
            row_forward: real.plan_fft_forward(columns),
            row_inverse: real.plan_fft_inverse(columns),
            column_forward: complex.plan_fft_forward(rows),
            column_inverse: complex.plan_fft_inverse(rows),
        }
    }

    /// Values of a row of the spectrum.
    pub(crate) fn half(&self) -> usize {
        self.columns / 2 + 1
    }

    pub(crate) fn spectrum(&self) -> Vec<Complex<T>> {
        vec![Complex::new(T::zero(), T::zero()); self.rows * self.half()]
    }

    pub(crate) fn work(&self) -> Work<T> {
        let zero = Complex::new(T::zero(), T::zero());
        let lengths = [
            self.row_forward.get_scratch_len(),
            self.row_inverse.get_scratch_len(),
            self.column_forward.get_inplace_scratch_len(),
            self.column_inverse.get_inplace_scratch_len(),
        ];
        Work {
            strip: vec![zero; STRIP_COLUMNS * self.rows],
            scratch: vec![zero; lengths.into_iter().max().unwrap_or(0)],
        }
    }

    /// `image` is used as work space and holds nothing useful afterwards.
    pub(crate) fn forward(&self, image: &mut [T], spectrum: &mut [Complex<T>], work: &mut Work<T>) {
        let rows = image.chunks_exact_mut(self.columns);
        for (row, out) in rows.zip(spectrum.chunks_exact_mut(self.half())) {
            let done = self.row_forward.process_with_scratch(row, out, &mut work.scratch);
            debug_assert!(done.is_ok(), "the buffers have the plan's lengths");
        }
        self.columns(&*self.column_forward, spectrum, work);
    }

    /// `spectrum` is used as work space and holds nothing useful afterwards.
    pub(crate) fn inverse(&self, spectrum: &mut [Complex<T>], image: &mut [T], work: &mut Work<T>) {
        self.columns(&*self.column_inverse, spectrum, work);
        let even = self.columns.is_multiple_of(2);
        let rows = spectrum.chunks_exact_mut(self.half());
        for (row, out) in rows.zip(image.chunks_exact_mut(self.columns)) {
            // The inverse of a real row has no imaginary part at its ends.
            if let Some(first) = row.first_mut() {
                first.im = T::zero();
            }
            if let Some(last) = row.last_mut().filter(|_| even) {
                last.im = T::zero();
            }
            let done = self.row_inverse.process_with_scratch(row, out, &mut work.scratch);
            debug_assert!(done.is_ok(), "the buffers have the plan's lengths");
        }
    }

    fn columns(&self, plan: &dyn Fft<T>, spectrum: &mut [Complex<T>], work: &mut Work<T>) {
        columns(plan, spectrum, self.rows, self.half(), work);
    }
}

/// Transforms the columns of `[rows][width]`, some of them at a time.
fn columns<T: FftNum>(plan: &dyn Fft<T>, values: &mut [Complex<T>], rows: usize, width: usize, work: &mut Work<T>) {
    for first in (0..width).step_by(STRIP_COLUMNS) {
        let count = STRIP_COLUMNS.min(width - first);
        let strip = &mut work.strip[..count * rows];
        for (row, line) in values.chunks_exact(width).enumerate() {
            for (column, value) in line[first..first + count].iter().enumerate() {
                strip[column * rows + row] = *value;
            }
        }
        plan.process_with_scratch(strip, &mut work.scratch);
        for (row, line) in values.chunks_exact_mut(width).enumerate() {
            for (column, value) in line[first..first + count].iter_mut().enumerate() {
                *value = strip[column * rows + row];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_smooth_and_frequencies_signed() {
        assert_eq!([11, 13, 17, 97, 4096].map(fast_length), [12, 14, 18, 98, 4096]);
        assert_eq!([0, 1, 2, 3].map(|k| frequency(k, 4)), [0.0, 0.25, -0.5, -0.25]);
        assert_eq!(frequency(2, 5), 0.4);
    }

    #[test]
    fn a_transform_is_the_sum_that_defines_it_and_its_inverse_undoes_it() {
        for (rows, columns) in [(6, 10), (5, 7), (40, 18)] {
            let plan = RealFft2::<f64>::new(rows, columns);
            let image: Vec<f64> = (0..rows * columns).map(|i| ((i * i) % 17) as f64).collect();
            let (mut spectrum, mut work) = (plan.spectrum(), plan.work());
            plan.forward(&mut image.clone(), &mut spectrum, &mut work);
            let (v, u) = (2, 3);
            let mut sum = Complex::new(0.0, 0.0);
            for (index, value) in image.iter().enumerate() {
                let (y, x) = ((index / columns) as f64, (index % columns) as f64);
                let turns = v as f64 * y / rows as f64 + u as f64 * x / columns as f64;
                sum += Complex::from_polar(*value, -std::f64::consts::TAU * turns);
            }
            assert!((spectrum[v * plan.half() + u] - sum).norm() < 1e-9);
            let mut back = vec![0.0; image.len()];
            plan.inverse(&mut spectrum, &mut back, &mut work);
            let scale = (rows * columns) as f64;
            assert!(back.iter().zip(&image).all(|(b, i)| (b / scale - i).abs() < 1e-12));
        }
    }
}
