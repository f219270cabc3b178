//! The same in plain f64.

use super::{Region, RegionStatistics};
use frame::Shape;

/// The numbers of one rectangle of one frame: `raw` and `rejected` row by row.
pub fn statistics(
    saturation: Option<f64>,
    invalid: Option<f64>,
    region: &Region,
    shape: Shape,
    raw: &[f64],
    rejected: &[bool],
) -> RegionStatistics {
    let mut found = RegionStatistics {
        sum: 0.0,
        max: f64::NAN,
        saturated: 0,
        valid: 0,
        masked: 0,
        invalid: 0,
    };
    for row in region.row..region.row + region.rows {
        for column in region.column..region.column + region.columns {
            let index = row * shape.columns + column;
            let value = raw[index];
            if rejected[index] {
                found.masked += 1;
            } else if !value.is_finite() || invalid == Some(value) {
                found.invalid += 1;
            } else if saturation.is_some_and(|saturation| value >= saturation) {
                found.saturated += 1;
            } else {
                found.valid += 1;
                found.sum += value;
                found.max = found.max.max(value);
            }
        }
    }
    found
}
