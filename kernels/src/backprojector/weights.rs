//! What each projection stands for where they are not evenly apart.

/// Largest weight: at the end of a missing wedge a projection does not stand for all of it.
const LARGEST: f64 = 3.0;

/// Weights of projections by their angles, in any order: half of the way to the neighbours on both sides modulo half a turn, of
/// the mean way, at most 3. Evenly apart, all are 1; two at the same angle share one weight; those beside a lost one
/// stand for it, too.
pub fn angular_weights(angles_deg: &[f64]) -> Vec<f32> {
    let count = angles_deg.len();
    let mut order: Vec<(f64, usize)> = angles_deg
        .iter()
        .enumerate()
        .map(|(i, a)| (a.rem_euclid(180.0), i))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut weights = vec![1.0; count];
    if count < 2 {
        return weights;
    }
    let gap = |place: usize| {
        let (here, next) = (order[place].0, order[(place + 1) % count].0);
        if place + 1 == count {
            next + 180.0 - here
        } else {
            next - here
        }
    };
    for place in 0..count {
        let ways = gap((place + count - 1) % count) + gap(place);
        weights[order[place].1] = (0.5 * ways / (180.0 / count as f64)).min(LARGEST) as f32;
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_ways_to_the_neighbours() {
        let even: Vec<f64> = (0..36).map(|a| 10.0 * f64::from(a) - 90.0).collect();
        assert!(
            angular_weights(&even).iter().all(|w| (w - 1.0).abs() < 1e-6),
            "a whole turn, two of each"
        );
        // One of twelve lost: those beside it stand for half of it more.
        let lost: Vec<f64> = (0..12).filter(|a| *a != 5).map(|a| 15.0 * f64::from(a)).collect();
        let weights = angular_weights(&lost);
        let mean = 11.0 / 12.0;
        assert!((weights[0] - mean).abs() < 1e-6 && (weights[4] - 1.5 * mean).abs() < 1e-6);
        assert!((weights[5] - 1.5 * mean).abs() < 1e-6);
        assert!((weights.iter().sum::<f32>() - 11.0).abs() < 1e-5);
        let twice = angular_weights(&[0.0, 45.0, 45.0, 90.0, 135.0]);
        assert!((twice[1] + twice[2] - twice[3]).abs() < 1e-6, "{twice:?}");
        let wedge: Vec<f64> = (0..90).map(f64::from).collect();
        assert_eq!(angular_weights(&wedge)[89], 3.0, "half of the half turn is missing");
        assert_eq!(angular_weights(&[17.0]), [1.0]);
        assert!(angular_weights(&[]).is_empty());
    }
}
