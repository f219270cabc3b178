//! An axis near the detector's edge: over a whole turn the two halves of a sinogram overlap at one side.

use super::AxisEstimate;
use crate::image::gaussian;
use crate::invalid::Invalid;
use crate::parallel::share;

/// At which side of the detector the axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// near column 0
    Left,
    /// near the last column
    Right,
}

/// How the halves of a whole turn overlap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlap {
    /// the axis that follows
    pub axis: AxisEstimate,
    /// columns that both halves see
    pub columns: f64,
    /// at which side
    pub side: Side,
}

/// The axis from a sinogram of a whole turn, `[angle][column]`, angles in order from 0 to 360° (the last one may be missing).
/// A window of `window` columns at the mirrored second half's edge is looked for in the first half; without a `side`
/// both are tried, and the sharper match is taken.
pub fn overlap(
    sinogram: &[f32],
    columns: usize,
    window: usize,
    side: Option<Side>,
    threads: usize,
) -> Result<Overlap, Invalid> {
    let whole = sinogram.len().next_multiple_of(columns.max(1));
    Invalid::expect_len("the sinogram's number of values", sinogram.len(), whole)?;
    let angles = sinogram.len() / columns.max(1);
    let shape = format!("{angles}x{columns}");
    Invalid::unless(
        columns >= 32 && angles >= 8,
        "the sinogram's size",
        shape,
        "at least 8 angles of 32 columns",
    )?;
    let half = angles / 2 + 1;
    let first = gaussian(&sinogram[..half * columns], columns, [2.0, 2.0]);
    let mut second = sinogram[(angles - half) * columns..].to_vec();
    second.chunks_exact_mut(columns).for_each(<[f32]>::reverse);
    let second = gaussian(&second, columns, [2.0, 2.0]);
    let reach = window.clamp(6, columns / 2 - 1) / 2;
    let sides = match side {
        Some(side) => vec![side],
        None => vec![Side::Left, Side::Right],
    };
    let found = sides
        .into_iter()
        .map(|side| search(&first, &second, columns, reach, side, threads));
    let best = found.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, overlap)| overlap);
    best.ok_or_else(|| Invalid::value("the side of the axis", "none", "left or right"))
}

/// Curvature of the match about its best place, and what follows from it.
fn search(first: &[f32], second: &[f32], columns: usize, reach: usize, side: Side, threads: usize) -> (f64, Overlap) {
    let width = 2 * reach;
    let edge = if side == Side::Right { 0 } else { columns - width };
    let mut states = vec![(); threads.max(1)];
    let mut places: Vec<(usize, f64)> = (reach..columns - reach).map(|place| (place, 0.0)).collect();
    share(&mut states, &mut places, |(), _, (place, distance)| {
        *distance = uncorrelated(first, *place - reach, second, edge, columns, width);
    });
    let distances: Vec<f64> = places.iter().map(|(_, distance)| *distance).collect();
    let lowest_at = distances
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(b.1))
        .map_or(0, |(i, _)| i);
    let smallest = distances[lowest_at];
    // Curvatures are compared between sides, so each is in units of its own best distance.
    let scale = if smallest > 0.0 { smallest } else { 1.0 };
    let middle = lowest_at.clamp(2, distances.len().saturating_sub(3).max(2));
    let five: Vec<f64> = distances.iter().skip(middle - 2).take(5).map(|d| d / scale).collect();
    // Second coefficient of the parabola through five neighbours (Savitzky & Golay 1964).
    let curvature = five
        .iter()
        .zip([2.0, -1.0, -2.0, -1.0, 2.0])
        .map(|(d, w)| d * w / 14.0)
        .sum::<f64>()
        .abs();
    let between = match distances.get(middle - 1..middle + 2) {
        Some([left, middle, right]) if left - 2.0 * middle + right != 0.0 => {
            (0.5 * (left - right) / (left - 2.0 * middle + right)).clamp(-1.0, 1.0)
        }
        _ => 0.0,
    };
    let place = (middle + reach) as f64 + between;
    let overlap = match side {
        Side::Right => columns as f64 - place + reach as f64,
        Side::Left => place + reach as f64,
    };
    let axis_px = match side {
        Side::Right => columns as f64 - overlap / 2.0 - 0.5,
        Side::Left => overlap / 2.0 - 0.5,
    };
    let others = distances.iter().enumerate().filter(|(i, _)| i.abs_diff(lowest_at) > 6);
    let second_best = others.map(|(_, d)| *d).fold(f64::INFINITY, f64::min);
    let confidence = if second_best.is_finite() && second_best > 0.0 {
        // A good match leaves noise only, so that its distance is small beside the next best one's.
        (1.0 - smallest / second_best).clamp(0.0, 1.0) * (1.0 - smallest.min(1.0))
    } else {
        0.0
    };
    let axis = AxisEstimate { axis_px, confidence };
    (
        curvature,
        Overlap {
            axis,
            columns: overlap,
            side,
        },
    )
}

/// One less Pearson's correlation of two windows of whole columns.
fn uncorrelated(a: &[f32], a_at: usize, b: &[f32], b_at: usize, columns: usize, width: usize) -> f64 {
    let (mut sa, mut sb, mut saa, mut sbb, mut sab, mut n) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (a, b) in a.chunks_exact(columns).zip(b.chunks_exact(columns)) {
        for (a, b) in a[a_at..a_at + width].iter().zip(&b[b_at..b_at + width]) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            sa += a;
            sb += b;
            saa += a * a;
            sbb += b * b;
            sab += a * b;
            n += 1.0;
        }
    }
    let (va, vb) = (saa - sa * sa / n, sbb - sb * sb / n);
    if va <= 0.0 || vb <= 0.0 {
        return 1.0; // a constant window matches nothing
    }
    (1.0 - (sab - sa * sb / n) / (va * vb).sqrt()).abs()
}
