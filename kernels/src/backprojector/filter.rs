//! The ramp filter, on the host: a kept FFT library, single precision.
//!
//! The ramp is the transform of its exact spatial samples, `h(0) = 1/4`, `h(odd n) = -1/(π n)²` (Kak & Slaney 1988,
//! eq. 61), padded to at least twice the width, so that neither the zero frequency nor the ends are wrong.

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::f64::consts::PI;
use std::sync::Arc;

/// Window on the ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// the ramp alone
    RamLak,
    /// times sin(x)/x, x = π f / 2 f_max
    SheppLogan,
    /// times cos(x)
    Cosine,
    /// times a Hann window
    Hann,
    /// times a Hamming window
    Hamming,
    /// no filter at all
    None,
}

impl Filter {
    /// Every window.
    pub const ALL: [Filter; 6] = [
        Filter::RamLak,
        Filter::SheppLogan,
        Filter::Cosine,
        Filter::Hann,
        Filter::Hamming,
        Filter::None,
    ];

    /// The window at a frequency from 0 to 1, the highest.
    fn window(self, frequency: f64) -> f64 {
        let x = PI * frequency / 2.0;
        match self {
            Filter::RamLak | Filter::None => 1.0,
            Filter::SheppLogan if x == 0.0 => 1.0,
            Filter::SheppLogan => x.sin() / x,
            Filter::Cosine => x.cos(),
            Filter::Hann => 0.5 + 0.5 * (2.0 * x).cos(),
            Filter::Hamming => 0.54 + 0.46 * (2.0 * x).cos(),
        }
    }
}

/// Length that rows of `columns` are padded to: a power of two, at least twice as long.
pub fn padded_length(columns: usize) -> usize {
    (2 * columns).next_power_of_two()
}

/// Frequency response of the filter for rows of `columns`: `padded / 2 + 1` values, real. Twice the transform of the
/// ramp's samples, so that a slice is `π / (2 n)` times the sum over `n` angles.
pub fn response(filter: Filter, columns: usize) -> Vec<f64> {
    let padded = padded_length(columns);
    if filter == Filter::None {
        return vec![1.0; padded / 2 + 1];
    }
    // The samples are even, so the transform is a sum of cosines.
    let mut samples = vec![0.0; padded];
    samples[0] = 0.25;
    for n in (1..=padded / 2).step_by(2) {
        let value = -1.0 / (PI * n as f64).powi(2);
        samples[n] = value;
        samples[padded - n] = value;
    }
    let mut planner = RealFftPlanner::<f64>::new();
    let transform = planner.plan_fft_forward(padded);
    let mut spectrum = transform.make_output_vec();
    if transform.process(&mut samples, &mut spectrum).is_err() {
        return vec![0.0; padded / 2 + 1]; // the lengths come from the plan itself
    }
    let highest = (padded / 2) as f64;
    spectrum
        .iter()
        .enumerate()
        .map(|(k, value)| 2.0 * value.re * filter.window(k as f64 / highest))
        .collect()
}

/// Filters rows one after the other; everything is allocated when it is made.
pub(super) struct RowFilter {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    response: Vec<f32>,
    row: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    columns: usize,
}

impl RowFilter {
    pub(super) fn new(filter: Filter, columns: usize) -> Self {
        let padded = padded_length(columns);
        let mut planner = RealFftPlanner::<f32>::new();
        let (forward, inverse) = (planner.plan_fft_forward(padded), planner.plan_fft_inverse(padded));
        let scratch = forward.get_scratch_len().max(inverse.get_scratch_len());
        Self {
            response: response(filter, columns)
                .iter()
                .map(|value| (value / padded as f64) as f32)
                .collect(),
            row: vec![0.0; padded],
            spectrum: forward.make_output_vec(),
            scratch: vec![Complex::default(); scratch],
            forward,
            inverse,
            columns,
        }
    }

    /// The filtered row.
    pub(super) fn run(&mut self, row: &[f32]) -> &[f32] {
        self.row[..self.columns].copy_from_slice(row);
        self.row[self.columns..].fill(0.0);
        // The buffers come from the plans, so their lengths fit; a failure would leave a row of zeros.
        let scratch = &mut self.scratch[..];
        let done = self
            .forward
            .process_with_scratch(&mut self.row, &mut self.spectrum, scratch)
            .is_ok();
        for (value, response) in self.spectrum.iter_mut().zip(&self.response) {
            *value *= if done { *response } else { 0.0 };
        }
        // The inverse of a real row has no imaginary part at either end.
        if let [first, .., last] = self.spectrum.as_mut_slice() {
            (first.im, last.im) = (0.0, 0.0);
        }
        if self
            .inverse
            .process_with_scratch(&mut self.spectrum, &mut self.row, &mut self.scratch)
            .is_err()
        {
            self.row.fill(0.0);
        }
        &self.row[..self.columns]
    }
}
