//! Vo's metric: the Fourier transform of a whole turn's sinogram is nearly empty outside a double wedge, whose opening is
//! the sample's radius; a sinogram that was continued about a wrong axis is not.

use super::AxisEstimate;
use crate::fft::{RealFft2, Work};
use crate::image::gaussian;
use crate::invalid::Invalid;
use crate::parallel::share;
use realfft::num_complex::Complex;
use std::ops::RangeInclusive;

/// Columns and angles above which the coarse search takes means of neighbours.
const COARSE_COLUMNS: usize = 640;
const COARSE_ANGLES: usize = 450;
/// Angles above which the fine search does.
const FINE_ANGLES: usize = 900;
/// Step and reach of the fine search.
const STEP_PX: f64 = 0.25;
pub(super) const REACH_PX: f64 = 4.0;

/// The metric of one sinogram at any candidate.
pub(super) struct Wedge {
    sinogram: Vec<f32>,
    rows: usize,
    columns: usize,
    plan: RealFft2<f32>,
    /// weights of the half spectrum
    mask: Vec<f32>,
}

/// Work space of one thread.
pub(super) struct WedgeThread {
    image: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    work: Work<f32>,
}

impl Wedge {
    /// Of a sinogram `[angle][column]`; a sample at least `ratio` of the detector wide.
    pub(super) fn new(sinogram: Vec<f32>, columns: usize, ratio: f64) -> Self {
        let rows = sinogram.len() / columns;
        let plan = RealFft2::new(2 * rows, columns);
        let mask = half_mask(2 * rows, columns, 0.5 * ratio * columns as f64);
        Self {
            sinogram,
            rows,
            columns,
            plan,
            mask,
        }
    }

    pub(super) fn thread(&self) -> WedgeThread {
        WedgeThread {
            image: vec![0.0; 2 * self.rows * self.columns],
            spectrum: self.plan.spectrum(),
            work: self.plan.work(),
        }
    }

    /// Mean size of the transform outside the wedge for an axis at `axis_px`; smaller is better.
    pub(super) fn metric(&self, thread: &mut WedgeThread, axis_px: f64) -> f64 {
        let (rows, columns) = (self.rows, self.columns);
        let (top, bottom) = thread.image.split_at_mut(rows * columns);
        top.copy_from_slice(&self.sinogram);
        // Mirrored about the axis, column x shows what was at 2 axis - x, by a cubic (Keys 1981) between columns.
        let first = 2.0 * axis_px;
        let below = first.floor();
        let t = first - below;
        let weights = [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
        .map(|w| w as f32);
        for (row, out) in bottom.chunks_exact_mut(columns).enumerate() {
            let from = &self.sinogram[row * columns..][..columns];
            // Where the mirrored row does not reach, the sinogram half a turn earlier goes on.
            let gap = &self.sinogram[(rows - 1 - row) * columns..][..columns];
            for (column, place) in out.iter_mut().enumerate() {
                let at = below as i64 - column as i64;
                let last = columns as i64 - 1;
                *place = if at < 0 || at > last || (at == last && t > 0.0) {
                    gap[column]
                } else {
                    let value = |k: i64| from[(at + k).clamp(0, last) as usize];
                    weights[0] * value(-1) + weights[1] * value(0) + weights[2] * value(1) + weights[3] * value(2)
                };
            }
        }
        self.plan
            .forward(&mut thread.image, &mut thread.spectrum, &mut thread.work);
        let lines = thread.spectrum.chunks_exact(self.plan.half());
        let sum: f64 = lines
            .zip(self.mask.chunks_exact(self.plan.half()))
            .map(|(line, mask)| line.iter().zip(mask).map(|(v, w)| w * v.norm()).sum::<f32>() as f64)
            .sum();
        sum / (2 * rows * columns) as f64
    }

    /// Metrics of candidates, on so many threads.
    fn metrics(&self, candidates: &[f64], threads: usize) -> Vec<f64> {
        let mut states: Vec<WedgeThread> = (0..threads.clamp(1, candidates.len().max(1)))
            .map(|_| self.thread())
            .collect();
        let mut items: Vec<(f64, f64)> = candidates.iter().map(|axis| (*axis, 0.0)).collect();
        share(&mut states, &mut items, |thread, _, item| {
            item.1 = self.metric(thread, item.0)
        });
        items.into_iter().map(|item| item.1).collect()
    }
}

/// Vo's equation 3: 1 where a frequency lies outside the double wedge, 0 in a stripe about both axes; folded, as real
/// values have the same size at opposite frequencies.
fn half_mask(height: usize, width: usize, radius: f64) -> Vec<f32> {
    let du = 1.0 / width as f64;
    let dv = (height as f64 - 1.0) / (height as f64 * 2.0 * std::f64::consts::PI);
    let drop = 20.min(height / 20) as i64;
    let (middle_y, middle_x) = ((height / 2) as i64, (width / 2) as i64);
    let inside = |y: i64, x: i64| {
        let reach = ((y as f64 * dv / radius) / du).ceil() as i64;
        let (low, high) = (middle_x - reach.abs(), middle_x + reach.abs());
        let last = width as i64 - 1;
        let place = x + middle_x;
        y.abs() > drop && x.abs() > 1 && place >= low.clamp(0, last) && place <= high.clamp(0, last)
    };
    // A frequency's number, counted from the zero frequency, of those that there are.
    let signed = |k: i64, length: i64| (k + length / 2).rem_euclid(length) - length / 2;
    let (h, w) = (height as i64, width as i64);
    debug_assert!(middle_y >= 0);
    let mut mask = Vec::with_capacity(height * (width / 2 + 1));
    for row in 0..h {
        for column in 0..=w / 2 {
            let own = inside(signed(row, h), signed(column, w));
            let opposite = inside(signed(-row, h), signed(-column, w));
            let alone = column == 0 || 2 * column == w;
            mask.push(f32::from(u8::from(own)) + if alone { 0.0 } else { f32::from(u8::from(opposite)) });
        }
    }
    mask
}

/// Means of `high`×`wide` neighbours; what is left over at the ends is left out.
fn smaller(image: &[f32], columns: usize, high: usize, wide: usize) -> (Vec<f32>, usize) {
    let (rows, width) = (image.len() / columns / high, columns / wide);
    let mut out = vec![0.0; rows * width];
    for (row, line) in image.chunks_exact(columns).take(rows * high).enumerate() {
        for (place, values) in out[row / high * width..][..width]
            .iter_mut()
            .zip(line.chunks_exact(wide))
        {
            *place += values.iter().sum::<f32>() / (high * wide) as f32;
        }
    }
    (out, width)
}

/// The axis from a sinogram of half a turn, `[angle][column]`, angles in order and about evenly apart, searched for from
/// `range`'s first to its last column on so many threads.
pub fn double_wedge(
    sinogram: &[f32],
    columns: usize,
    range: RangeInclusive<f64>,
    threads: usize,
) -> Result<AxisEstimate, Invalid> {
    let found = coarse(sinogram, columns, range, threads)?;
    let reach = REACH_PX.max((columns / COARSE_COLUMNS) as f64);
    let axis_px = fine(sinogram, columns, found.axis_px, reach, threads);
    Ok(AxisEstimate { axis_px, ..found })
}

/// The axis to a column or two.
pub(super) fn coarse(
    sinogram: &[f32],
    columns: usize,
    range: RangeInclusive<f64>,
    threads: usize,
) -> Result<AxisEstimate, Invalid> {
    let whole = sinogram.len().next_multiple_of(columns.max(1));
    Invalid::expect_len("the sinogram's number of values", sinogram.len(), whole)?;
    let angles = sinogram.len() / columns.max(1);
    let shape = format!("{angles}x{columns}");
    Invalid::unless(
        columns >= 16 && angles >= 7,
        "the sinogram's size",
        shape,
        "at least 7 angles of 16 columns",
    )?;
    let (start, end) = (range.start().max(0.0), range.end().min(columns as f64 - 1.0));
    let said = format!("{} to {}", range.start(), range.end());
    Invalid::unless(
        start < end,
        "the range of the axis",
        said,
        "columns of the detector, the first below the last",
    )?;
    let wide = (columns / COARSE_COLUMNS).max(1);
    let high = angles.div_ceil(COARSE_ANGLES);
    let (small, width) = smaller(&gaussian(sinogram, columns, [3.0, 1.0]), columns, high, wide);
    // The centre of place i is column wide i + (wide - 1) / 2.
    let offset = (wide as f64 - 1.0) / 2.0;
    let place = |column: f64| (column - offset) / wide as f64;
    let (low, high) = (place(start).max(0.0).floor(), place(end).min(width as f64 - 1.0).ceil());
    let candidates: Vec<f64> = (0..=(high - low) as usize).map(|i| low + i as f64).collect();
    let metrics = Wedge::new(small, width, 0.5).metrics(&candidates, threads);
    let best = metrics
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(b.1))
        .map_or(0, |(i, _)| i);
    Ok(AxisEstimate {
        axis_px: candidates[best] * wide as f64 + offset,
        confidence: stands_out(&metrics, best),
    })
}

/// The axis to a small part of a column, within `reach` of `middle`.
pub(super) fn fine(sinogram: &[f32], columns: usize, middle: f64, reach: f64, threads: usize) -> f64 {
    let high = (sinogram.len() / columns).div_ceil(FINE_ANGLES);
    let (smooth, _) = smaller(&gaussian(sinogram, columns, [2.0, 2.0]), columns, high, 1);
    let steps = (reach / STEP_PX).ceil() as i32;
    let candidate = |i: i32| (middle + f64::from(i) * STEP_PX).clamp(0.0, columns as f64 - 1.0);
    let candidates: Vec<f64> = (-steps..=steps).map(candidate).collect();
    let metrics = Wedge::new(smooth, columns, 0.5).metrics(&candidates, threads);
    let best = metrics
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(b.1))
        .map_or(0, |(i, _)| i);
    // The parabola nearest to seven neighbours (Savitzky & Golay 1964): noise moves it less than the lowest one.
    let near = metrics.get(best.wrapping_sub(3)..best + 4).unwrap_or(&[]);
    let places = near.iter().zip(-3i32..).map(|(metric, x)| (f64::from(x), *metric));
    let (slope, bend) = places.fold((0.0, 0.0), |(slope, bend), (x, metric)| {
        (slope + x * metric / 28.0, bend + (x * x - 4.0) * metric / 84.0)
    });
    let between = if bend > 0.0 {
        (-0.5 * slope / bend).clamp(-2.0, 2.0)
    } else {
        0.0
    };
    candidates[best] + between * STEP_PX
}

/// How far the best candidate lies below all that are not its neighbours, of how far it lies below the usual one.
fn stands_out(metrics: &[f64], best: usize) -> f64 {
    let near = 4.max(metrics.len() / 50);
    let mut ordered = metrics.to_vec();
    ordered.sort_by(f64::total_cmp);
    let usual = ordered[ordered.len() / 2];
    let others = metrics.iter().enumerate().filter(|(i, _)| i.abs_diff(best) > near);
    let second = others.map(|(_, metric)| *metric).fold(f64::INFINITY, f64::min);
    let depth = usual - metrics[best];
    if second.is_finite() && depth > 0.0 {
        ((second - metrics[best]) / depth).clamp(0.0, 1.0)
    } else {
        0.0
    }
}
