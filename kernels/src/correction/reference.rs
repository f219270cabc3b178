//! The same in plain f64.

use super::CorrectionConfig;

/// `1 / (flat - dark)`, or 1 without a flat; 0 where no transmission can be told.
pub fn gain(dark: f32, flat: Option<f32>) -> f64 {
    let beam = flat.map_or(1.0, |flat| f64::from(flat) - f64::from(dark));
    let gain = 1.0 / beam;
    // A gain beyond f32 says as little as a division by zero.
    if beam > 0.0 && dark.is_finite() && gain.is_finite() && (gain as f32).is_finite() && gain as f32 != 0.0 {
        gain
    } else {
        0.0
    }
}

/// Corrects one frame: `raw`, `rejected` and `corrected` row by row, all of the same length. Returns how many
/// pixels got the fill value.
pub fn correction(config: &CorrectionConfig, raw: &[f64], rejected: &[bool], corrected: &mut [f64]) -> u32 {
    let mut invalid = 0;
    for (index, out) in corrected.iter_mut().enumerate() {
        let dark = config.dark.as_ref().map_or(0.0, |dark| dark[index]);
        let gain = gain(dark, config.flat.as_ref().map(|flat| flat[index]));
        let value = (raw[index] - f64::from(dark)) * gain;
        let good = !rejected[index] && gain != 0.0 && value.is_finite() && (!config.minus_log || value > 0.0);
        *out = match (good, config.minus_log) {
            (false, _) => f64::from(config.fill),
            (true, true) => -value.max(f64::from(config.clip_epsilon)).ln(),
            (true, false) => value,
        };
        invalid += u32::from(!good);
    }
    invalid
}
