//! The same in plain f64.

use super::{AzimuthalConfig, Bins, ErrorModel};
use frame::PixelType;

/// One frame's curve.
#[derive(Clone, Debug)]
pub struct AzimuthalCurve {
    /// mean of each bin
    pub intensity: Vec<f64>,
    /// its standard error
    pub sigma: Vec<f64>,
    /// pixels of each bin that took part
    pub count: Vec<u64>,
}

/// Whether analysis leaves out a pixel for its value.
pub fn left_out(config: &AzimuthalConfig, pixel_type: PixelType, value: f64) -> bool {
    let dummy = config
        .dummy
        .is_some_and(|dummy| (value - dummy).abs() <= config.delta_dummy.unwrap_or(0.0));
    let saturated = config.saturation.is_some_and(|saturation| value >= saturation);
    (pixel_type == PixelType::F32 && !value.is_finite()) || dummy || saturated
}

/// Integrates one frame: `raw` and `rejected` row by row.
pub fn azimuthal(
    config: &AzimuthalConfig,
    bins: &Bins,
    pixel_type: PixelType,
    raw: &[f64],
    rejected: &[bool],
) -> AzimuthalCurve {
    let (mut signal, mut variance) = (vec![0.0; config.bins], vec![0.0; config.bins]);
    let (mut norm, mut count) = (vec![0.0; config.bins], vec![0u64; config.bins]);
    for (index, value) in raw.iter().copied().enumerate() {
        let weight = config.norm(index);
        let dark = config.dark.as_ref().map_or(0.0, |dark| f64::from(dark[index]));
        let valid = weight.is_finite() && weight > 0.0 && dark.is_finite();
        if rejected[index] || !valid || left_out(config, pixel_type, value) {
            continue;
        }
        let Some(bin) = bins.of(config.geometry.radial[index]) else {
            continue;
        };
        signal[bin] += value - dark;
        variance[bin] += value.max(1.0);
        norm[bin] += weight * config.normalization_factor;
        count[bin] += 1;
    }
    let empty = f64::from(config.empty);
    let filled = |bin: usize, value: f64| if count[bin] == 0 { empty } else { value };
    let poisson = config.error_model == ErrorModel::Poisson;
    AzimuthalCurve {
        intensity: (0..config.bins)
            .map(|bin| filled(bin, signal[bin] / norm[bin]))
            .collect(),
        sigma: (0..config.bins)
            .map(|bin| {
                if poisson {
                    filled(bin, variance[bin].sqrt() / norm[bin])
                } else {
                    empty
                }
            })
            .collect(),
        count,
    }
}
