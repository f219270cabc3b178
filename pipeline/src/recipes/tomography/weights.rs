//! Angles and weights of projections: a projection that never came leaves its share of the half turn to its neighbours.

use frame::{FrameKind, StreamDescription};

/// The angle of every frame as it is planned, degrees, by frame number: the source's, else `start + step` times the number
/// of projections before it, else NaN.
pub(super) fn planned(stream: &StreamDescription, steps: Option<(f64, f64)>) -> Vec<f64> {
    let mut projection = 0;
    (0..stream.frames_expected as usize)
        .map(|frame| {
            // Without a list of kinds darks and flats come first.
            let kind = match stream.kinds.get(frame) {
                Some(kind) => *kind,
                None if (frame as u64) < stream.darks + stream.flats => FrameKind::Dark,
                None => FrameKind::Sample,
            };
            if kind != FrameKind::Sample {
                return f64::NAN;
            }
            let told = stream.angles_deg.get(frame).copied().filter(|angle| angle.is_finite());
            let counted = steps.map(|(start, step)| start + step * f64::from(projection));
            projection += 1;
            told.or(counted).unwrap_or(f64::NAN)
        })
        .collect()
}

/// An angle that two projections share, degrees.
pub(super) fn twice(angles_deg: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = angles_deg.iter().copied().filter(|angle| angle.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let pair = sorted.windows(2).find(|pair| (pair[1] - pair[0]).abs() < 1e-9);
    pair.map(|pair| pair[0])
}

/// Least angle that a half acquisition covers, degrees.
pub(super) const RANGE_DEG_MIN: f64 = 350.0;

/// Whether the angles, of which some may be NaN, go once round.
pub(super) fn goes_round(angles_deg: &[f64]) -> bool {
    let known = || angles_deg.iter().copied().filter(|angle| angle.is_finite());
    let (low, high) = (
        known().fold(f64::INFINITY, f64::min),
        known().fold(f64::NEG_INFINITY, f64::max),
    );
    high - low >= RANGE_DEG_MIN
}

/// Widest window that `room` projections hold, degrees; where steps are not known yet, any.
pub(super) fn window_deg_max(planned_deg: &[f64], room: usize) -> f64 {
    let known: Vec<f64> = planned_deg.iter().copied().filter(|angle| angle.is_finite()).collect();
    if known.is_empty() {
        return if room > 0 { 360.0 } else { 0.0 };
    }
    if room >= known.len() {
        return 360.0;
    }
    let low = known.iter().copied().fold(f64::INFINITY, f64::min);
    let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let step = (high - low) / (known.len().max(2) - 1) as f64;
    (room as f64 * step).min(360.0).floor()
}

/// Steps of angle up to which a gap is bridged: beside a wider one two projections would have to stand for all of it, which
/// draws them across the slices; and in the middle of a scan it is no gap yet.
const GAP_STEPS_MAX: f64 = 16.0;

/// What missing projections leave to those that came.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// weights of those that came, each 1 and more
    pub(super) weights: Vec<f64>,
    /// degrees of the widest gap
    pub(super) widest_deg: f64,
    /// missing ones in gaps that are too wide to be bridged
    pub(super) unshared: usize,
    /// angle and number of those that came, by angle
    order: Vec<(f64, usize)>,
}

impl Shares {
    /// With room for so many projections that came; [`Self::find`] allocates nothing for them.
    pub(super) fn with_room(projections: usize) -> Self {
        Self {
            weights: Vec::with_capacity(projections),
            order: Vec::with_capacity(projections),
            ..Self::default()
        }
    }

    /// The share of a missing projection goes to the next ones in angle on either side, to the nearer one more. Angles repeat
    /// after `turn_deg`: half a turn, or a whole one.
    pub(super) fn find(
        &mut self,
        came_deg: impl Iterator<Item = f64>,
        missing_deg: impl Iterator<Item = f64> + Clone,
        turn_deg: f64,
    ) {
        let within = |angle: f64| angle.rem_euclid(turn_deg);
        let order = &mut self.order;
        order.clear();
        order.extend(came_deg.map(within).enumerate().map(|(index, angle)| (angle, index)));
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.weights.clear();
        self.weights.resize(order.len(), 1.0);
        (self.widest_deg, self.unshared) = (0.0, 0);
        let (Some(first), Some(last)) = (order.first().copied(), order.last().copied()) else {
            self.unshared = missing_deg.count();
            return;
        };
        let missing = missing_deg.map(within);
        let low = missing.clone().fold(first.0, f64::min);
        let high = missing.clone().fold(last.0, f64::max);
        let steps = (order.len() + missing.clone().count()).saturating_sub(1).max(1);
        let widest_bridged = GAP_STEPS_MAX * (high - low) / steps as f64;
        for missing in missing {
            let above = order.partition_point(|(angle, _)| *angle < missing);
            let (below, before) = match above.checked_sub(1) {
                Some(below) => order[below],
                None => (last.0 - turn_deg, last.1),
            };
            let (above, behind) = match order.get(above) {
                Some(above) => *above,
                None => (first.0 + turn_deg, first.1),
            };
            let gap = above - below;
            self.widest_deg = self.widest_deg.max(gap);
            if gap > widest_bridged {
                self.unshared += 1;
                continue;
            }
            let share = if gap > 0.0 { (missing - below) / gap } else { 0.5 };
            self.weights[before] += 1.0 - share;
            self.weights[behind] += share;
        }
    }
}

/// The projections that came: their places among all projections in the file, angles and weights.
pub(super) struct Came {
    /// numbers of their frames
    pub(super) frames: Vec<usize>,
    pub(super) angles_deg: Vec<f64>,
    /// 1, and what missing neighbours left
    pub(super) weights: Vec<f32>,
    /// by number among the stored projections: whether it has an angle and is used
    pub(super) used: Vec<bool>,
    pub(super) missing: usize,
    pub(super) without_angle: usize,
    /// of those that are missing, in gaps too wide to be bridged
    unshared: usize,
    widest_deg: f64,
}

impl Came {
    pub(super) fn new(kinds: &[FrameKind], angles_deg: &[f64], planned_deg: &[f64], turn_deg: f64) -> Self {
        let angle = |frame: usize| {
            let told = angles_deg.get(frame).copied().filter(|angle| angle.is_finite());
            told.unwrap_or_else(|| planned_deg.get(frame).copied().unwrap_or(f64::NAN))
        };
        let (mut came, mut missing, mut used, mut without_angle) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut frames = Vec::new();
        for (frame, kind) in kinds.iter().enumerate() {
            let angle = angle(frame);
            match kind {
                FrameKind::Sample => {
                    used.push(angle.is_finite());
                    if angle.is_finite() {
                        came.push(angle);
                        frames.push(frame);
                    } else {
                        without_angle += 1;
                    }
                }
                // A dark or a flat that was lost has no angle.
                FrameKind::Invalid if angle.is_finite() => missing.push(angle),
                _ => {}
            }
        }
        let mut shares = Shares::default();
        shares.find(came.iter().copied(), missing.iter().copied(), turn_deg);
        Self {
            frames,
            weights: shares.weights.iter().map(|weight| *weight as f32).collect(),
            missing: missing.len(),
            angles_deg: came,
            used,
            without_angle,
            unshared: shares.unshared,
            widest_deg: shares.widest_deg,
        }
    }

    /// How many were planned.
    pub(super) fn planned(&self) -> usize {
        self.missing + self.used.len()
    }

    /// What somebody should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.missing > 0 {
            warnings.push(format!(
                "{} of {} projections are missing: their share went to their neighbours in angle, the widest gap is {:.3} degrees",
                self.missing,
                self.missing + self.used.len(),
                self.widest_deg
            ));
        }
        if self.unshared > 0 {
            warnings.push(format!(
                "{} of the missing projections leave gaps wider than {GAP_STEPS_MAX} steps, which nothing makes up for",
                self.unshared
            ));
        }
        if self.without_angle > 0 {
            warnings.push(format!(
                "{} projections have no angle and were left out",
                self.without_angle
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(came_deg: &[f64], missing_deg: &[f64], turn_deg: f64) -> Shares {
        let mut shares = Shares::default();
        shares.find(came_deg.iter().copied(), missing_deg.iter().copied(), turn_deg);
        shares
    }

    #[test]
    fn a_missing_projection_leaves_its_share_to_its_neighbours() {
        let found = shares(&[0.0, 1.0, 3.0, 4.0], &[2.0], 180.0);
        assert_eq!((found.weights, found.widest_deg), (vec![1.0, 1.5, 1.5, 1.0], 2.0));
        // Over the end of the half turn, and in any order.
        let found = shares(&[178.0, 1.0, 0.5], &[179.0], 180.0).weights;
        let expected = [1.0 + 1.5 / 2.5, 1.0, 1.0 + 1.0 / 2.5];
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near, "{found:?}");
    }

    #[test]
    fn weights_sum_up_to_what_was_planned() {
        let planned: Vec<f64> = (0..180).map(|n| f64::from(n * 7 % 180)).collect();
        let part = |missing: bool| -> Vec<f64> {
            let of = |(index, angle): (usize, &f64)| ((index % 13 == 5) == missing).then_some(*angle);
            planned.iter().enumerate().filter_map(of).collect()
        };
        let found = shares(&part(false), &part(true), 180.0);
        assert!((found.weights.iter().sum::<f64>() - 180.0).abs() < 1e-9 && found.unshared == 0);
    }

    #[test]
    fn a_scan_that_broke_off_has_no_two_projections_that_stand_for_the_rest() {
        let planned: Vec<f64> = (0..180).map(f64::from).collect();
        let found = shares(&planned[..90], &planned[90..], 180.0);
        assert!(found.weights.iter().all(|weight| *weight == 1.0), "{found:?}");
        assert_eq!((found.unshared, found.widest_deg), (90, 91.0));
        // While it goes on, the first one that was lost waits for its neighbour on the other side.
        assert_eq!(shares(&planned[1..90], &planned[..1], 180.0).unshared, 1);
        assert_eq!(shares(&planned[1..], &planned[..1], 180.0).unshared, 0);
        assert_eq!(shares(&[], &planned, 180.0).unshared, 180);
    }

    #[test]
    fn half_a_turn_does_not_go_round() {
        assert!(goes_round(&[0.0, f64::NAN, 359.0]) && !goes_round(&[0.0, 180.0]) && !goes_round(&[]));
    }

    #[test]
    fn an_angle_that_comes_twice_is_found() {
        assert_eq!(twice(&[0.0, f64::NAN, 2.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(twice(&[0.0, 180.0, 1.0]), None);
    }

    #[test]
    fn what_is_missing_is_said_and_weighted() {
        let (sample, lost) = (FrameKind::Sample, FrameKind::Invalid);
        let kinds = [FrameKind::Dark, sample, lost, sample, sample];
        let came = Came::new(&kinds, &[f64::NAN, 0.0, 1.0, 2.0, f64::NAN], &[], 180.0);
        assert_eq!((came.missing, came.without_angle, came.used.len()), (1, 1, 3));
        assert_eq!((&came.weights[..], &came.frames[..]), (&[1.5, 1.5][..], &[1, 3][..]));
        assert_eq!(came.warnings().len(), 2);
    }
}
