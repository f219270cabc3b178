//! The same in plain f64.

/// Lit pixels of one frame: `raw` and `rejected` row by row.
pub fn lit_pixels(threshold: f64, invalid: Option<f64>, raw: &[f64], rejected: &[bool]) -> u64 {
    raw.iter()
        .zip(rejected)
        .filter(|(value, rejected)| !**rejected && value.is_finite() && invalid != Some(**value) && **value > threshold)
        .count() as u64
}
