//! Where the rotation axis is, from the projections alone.
//!
//! Three ways. [`opposite`] lays a projection over the mirrored one half a turn later by phase correlation: two projections
//! are enough, the whole width is searched. [`double_wedge`] takes a sinogram of half a turn, continues it by its mirror
//! image about a candidate, and asks how much of its Fourier transform lies where that of no sinogram can (Vo, Drakopoulos,
//! Atwood & Reinhard 2014, Optics Express 22, 19078): exact, slower, one detector row at a time. [`overlap`] is for an
//! axis near the detector's edge and a whole turn (Vo, Atwood, Drakopoulos & Connolley 2021, Optics Express 29, 17849).
//!
//! [`AxisFinder`] collects a few rows of every projection while the scan runs and puts the first two together as soon as
//! there is half a turn, or takes the third over a whole turn. A confidence is a share of 1: how well the best candidate stands out from all others, less
//! where two ways disagree.

mod correlation;
mod finder;
mod half;
mod wedge;

pub use correlation::opposite;
pub use finder::{AxisFinder, AxisFinderConfig, AxisScan};
pub use half::{Overlap, Side, overlap};
pub use wedge::double_wedge;

/// A rotation axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisEstimate {
    /// column of the axis, pixels from the centre of column 0
    pub axis_px: f64,
    /// from 0, no better than a guess, to 1; below [`TRUSTED`] an axis should be proposed, not applied
    pub confidence: f64,
}

/// Confidence from which an axis may be applied without asking.
pub const TRUSTED: f64 = 0.5;

/// Offset in places, within half a place, of the lowest point of the parabola through three neighbours.
fn lowest(left: f64, middle: f64, right: f64) -> f64 {
    let curvature = left - 2.0 * middle + right;
    if curvature > 0.0 {
        (0.5 * (left - right) / curvature).clamp(-0.5, 0.5)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests;
