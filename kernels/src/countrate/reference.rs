//! The same in plain f64.

use super::DeadTime;

/// Share of the largest rate that a counter can tell up to which it is corrected.
pub const CUTOFF_SHARE: f64 = 0.9;

/// Measured counts at which correction ends.
pub fn cutoff(dead_time: &DeadTime, exposure_s: f64) -> f64 {
    match dead_time {
        DeadTime::NonParalyzable { seconds } => CUTOFF_SHARE * exposure_s / seconds,
        DeadTime::Paralyzable { seconds } => CUTOFF_SHARE * exposure_s / seconds / std::f64::consts::E,
        DeadTime::Table(corrected) => corrected.len() as f64,
    }
}

/// True counts of `measured` ones, below the cut-off.
pub fn corrected(dead_time: &DeadTime, exposure_s: f64, measured: f64) -> f64 {
    match dead_time {
        DeadTime::NonParalyzable { seconds } => measured / (1.0 - measured * seconds / exposure_s),
        DeadTime::Paralyzable { seconds } => {
            let busy = measured * seconds / exposure_s;
            // Newton's way to the lower root of busy = x exp(-x): from below, and never past it.
            let mut x = busy;
            for _ in 0..60 {
                let next = x - (x - busy * x.exp()) / (1.0 - x);
                if next <= x {
                    break;
                }
                x = next;
            }
            x * exposure_s / seconds
        }
        DeadTime::Table(corrected) => {
            let (low, rest) = (measured.floor(), measured.fract());
            let at = |index: f64| corrected.get(index as usize).copied().unwrap_or(f64::NAN);
            if rest == 0.0 {
                at(low)
            } else {
                at(low) * (1.0 - rest) + at(low + 1.0) * rest
            }
        }
    }
}
