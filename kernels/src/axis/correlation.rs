//! A projection over its mirrored opposite.

use super::{AxisEstimate, lowest};
use crate::fft::fast_length;
use crate::invalid::Invalid;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;
use std::f64::consts::TAU;

/// Width of the low-pass, of the sampling frequency: above it there is more noise than sample.
const LOW_PASS: f64 = 0.15;
/// Places around the best one that belong to its peak.
const PEAK_PX: usize = 6;

/// The axis from pairs of rows half a turn apart: `pairs` are `(row, opposite)`, of one projection and the one 180°
/// later, each of the same number of columns. All rows of a projection together are far better than one.
pub fn opposite(pairs: &[(&[f32], &[f32])]) -> Result<AxisEstimate, Invalid> {
    let columns = pairs.first().map_or(0, |(row, _)| row.len());
    Invalid::unless(columns >= 8, "the number of columns", columns, "at least 8")?;
    let length = fast_length(2 * columns);
    let mut planner = RealFftPlanner::<f64>::new();
    let (forward, inverse) = (planner.plan_fft_forward(length), planner.plan_fft_inverse(length));
    let (mut line, mut first, mut second) = (
        forward.make_input_vec(),
        forward.make_output_vec(),
        forward.make_output_vec(),
    );
    let mut cross = vec![Complex::new(0.0, 0.0); first.len()];
    for (row, opposite) in pairs {
        Invalid::expect_len("the opposite row's number of columns", opposite.len(), row.len())?;
        Invalid::expect_len("the row's number of columns", row.len(), columns)?;
        let mut transform = |value: &dyn Fn(usize) -> f32, out: &mut [Complex<f64>]| {
            line.fill(0.0);
            // Differences: a sample beyond the detector's edge makes no step there.
            for (i, place) in line[..columns - 1].iter_mut().enumerate() {
                let difference = f64::from(value(i + 1)) - f64::from(value(i));
                *place = if difference.is_finite() { difference } else { 0.0 };
            }
            let done = forward.process(&mut line, out);
            debug_assert!(done.is_ok(), "the buffers have the plan's lengths");
        };
        transform(&|i| row[i], &mut first);
        transform(&|i| opposite[columns - 1 - i], &mut second);
        for (sum, (a, b)) in cross.iter_mut().zip(first.iter().zip(&second)) {
            *sum += a * b.conj();
        }
    }
    for (k, value) in cross.iter_mut().enumerate() {
        let weight = (-0.5 * (k as f64 / length as f64 / LOW_PASS).powi(2)).exp();
        let size = value.norm();
        // Between plain and phase correlation: sharp, without making the noise as strong as the sample.
        *value *= if size > 0.0 { weight / size.sqrt() } else { 0.0 };
    }
    let mut spectrum = cross.clone();
    spectrum[0].im = 0.0;
    if let Some(last) = spectrum.last_mut().filter(|_| length.is_multiple_of(2)) {
        last.im = 0.0;
    }
    let done = inverse.process(&mut spectrum, &mut line);
    debug_assert!(done.is_ok(), "the buffers have the plan's lengths");
    // The axis lies on the detector: shifts from -(columns - 1) to columns - 1.
    let at = |shift: i64| line[shift.rem_euclid(length as i64) as usize];
    let reach = columns as i64 - 1;
    let best = (-reach..=reach).max_by(|a, b| at(*a).total_cmp(&at(*b))).unwrap_or(0);
    let others = (-reach..=reach).filter(|shift| shift.abs_diff(best) as usize > PEAK_PX);
    let second = others.map(|shift| at(shift).abs()).fold(0.0, f64::max);
    // Tenths of a column by the sum itself, then a parabola.
    let fine = |shift: f64| -> f64 {
        let term = |(k, value): (usize, &Complex<f64>)| {
            (value * Complex::from_polar(1.0, TAU * k as f64 * shift / length as f64)).re
        };
        cross.iter().enumerate().map(term).sum()
    };
    let place = (-10..=10)
        .map(|tenth| best as f64 + f64::from(tenth) / 10.0)
        .max_by(|a, b| fine(*a).total_cmp(&fine(*b)))
        .unwrap_or(best as f64);
    let shift = place + 0.1 * lowest(-fine(place - 0.1), -fine(place), -fine(place + 0.1));
    let peak = at(best);
    let confidence = if peak > 0.0 {
        (1.0 - second / peak).clamp(0.0, 1.0)
    } else {
        0.0
    };
    Ok(AxisEstimate {
        axis_px: 0.5 * (shift + columns as f64 - 1.0),
        confidence,
    })
}
