//! The axis while the scan runs: some rows of every projection, in any order, until there is half a turn of them, or a whole
//! one where the axis lies near an edge.

use super::half::overlap;
use super::wedge::{REACH_PX, coarse, fine};
use super::{AxisEstimate, opposite};
use crate::invalid::Invalid;

/// Columns by which two ways may differ and still agree.
const AGREE_PX: f64 = 1.5;
/// Standard error of the rows' mean that halves the confidence.
const PRECISION_PX: f64 = 0.2;
/// Rows that are searched over the whole range; rows that are looked at closely, fewer where they are large.
const COARSE_ROWS: usize = 3;
const FINE_ROWS: usize = 8;
const FINE_VALUES: usize = 1 << 22;
/// Pairs of projections half a turn apart that are looked at.
const PAIRS: usize = 16;

/// Least angle that goes once round but for the last step, degrees; widest gap that is bridged.
const TURN_DEG: f64 = 360.0;
const GAP_DEG: f64 = 180.0 / 6.0;
/// Angles of a whole turn that are looked at.
const TURN_ANGLES: usize = 720;
/// Columns of the window that is looked for in the other half, with the detector's.
const WINDOW_SHARE: usize = 8;
const WINDOW_COLUMNS: (usize, usize) = (16, 100);

/// What to collect.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisFinderConfig {
    /// detector rows
    pub rows: usize,
    /// detector columns
    pub columns: usize,
    /// projections that are kept; later ones replace the earliest
    pub projections: usize,
    /// rows of each that are kept, spread evenly: 8 are enough as a rule
    pub sample_rows: usize,
    /// first and last column that the axis may lie at; `None`: the middle half of the detector, all of it over a whole turn
    pub range_px: Option<(f64, f64)>,
    /// whether the axis lies near an edge and the scan goes once round
    pub whole_turn: bool,
}

/// Collects; see the module.
pub struct AxisFinder {
    config: AxisFinderConfig,
    rows: Vec<usize>,
    values: Vec<f32>,
    angles_deg: Vec<f64>,
    next: usize,
}

impl AxisFinder {
    /// Prepares; everything is allocated here.
    pub fn new(config: &AxisFinderConfig) -> Result<Self, Invalid> {
        let shape = format!("{}x{}", config.rows, config.columns);
        Invalid::unless(
            config.rows >= 1 && config.columns >= 16,
            "the detector",
            shape,
            "at least 1x16",
        )?;
        Invalid::unless(config.projections >= 7, "projections", config.projections, "at least 7")?;
        Invalid::unless(config.sample_rows >= 1, "sample_rows", config.sample_rows, "at least 1")?;
        if let Some((low, high)) = config.range_px {
            let fits = 0.0 <= low && low < high && high <= config.columns as f64 - 1.0;
            let range = format!("{low} to {high}");
            Invalid::unless(
                fits,
                "range_px",
                range,
                "columns of the detector, the first below the last",
            )?;
        }
        let count = config.sample_rows.min(config.rows);
        Ok(Self {
            rows: (0..count).map(|i| (2 * i + 1) * config.rows / (2 * count)).collect(),
            values: vec![0.0; config.projections * count * config.columns],
            angles_deg: Vec::with_capacity(config.projections),
            next: 0,
            config: config.clone(),
        })
    }

    /// Bytes of host memory in use.
    pub fn host_bytes(&self) -> usize {
        self.values.len() * size_of::<f32>() + self.angles_deg.capacity() * size_of::<f64>()
    }

    /// Takes one projection of line integrals, `rows`×`columns`. Nothing is allocated.
    pub fn push(&mut self, projection: &[f32], angle_deg: f64) -> Result<(), Invalid> {
        let columns = self.config.columns;
        Invalid::expect_len(
            "a projection's number of pixels",
            projection.len(),
            self.config.rows * columns,
        )?;
        Invalid::unless(angle_deg.is_finite(), "the angle", angle_deg, "a number of degrees")?;
        let size = self.rows.len() * columns;
        let place = &mut self.values[self.next * size..][..size];
        for (row, place) in self.rows.iter().zip(place.chunks_exact_mut(columns)) {
            place.copy_from_slice(&projection[row * columns..][..columns]);
        }
        match self.angles_deg.get_mut(self.next) {
            Some(angle) => *angle = angle_deg,
            None => self.angles_deg.push(angle_deg),
        }
        self.next = (self.next + 1) % self.config.projections;
        Ok(())
    }

    /// Projections kept so far.
    pub fn projections(&self) -> usize {
        self.angles_deg.len()
    }

    /// Whether there is half a turn, or a whole one where it takes that, without a wide gap.
    pub fn ready(&self) -> bool {
        self.order().is_some()
    }

    fn order(&self) -> Option<Vec<usize>> {
        if self.config.whole_turn {
            whole_turn(&self.angles_deg)
        } else {
            half_turn(&self.angles_deg)
        }
    }

    /// What there is of the last half or whole turn, to be looked at elsewhere; `None` before that. Copies: not for the data
    /// plane.
    pub fn scan(&self) -> Option<AxisScan> {
        let order = self.order()?;
        let size = self.rows.len() * self.config.columns;
        let columns = self.config.columns;
        let sinogram = |row: usize| -> Vec<f32> {
            let line = |index: &usize| self.values[index * size + row * columns..][..columns].iter().copied();
            order.iter().flat_map(line).collect()
        };
        let last = columns as f64 - 1.0;
        let whole_turn = self.config.whole_turn;
        let widest = if whole_turn {
            (0.0, last)
        } else {
            (last / 4.0, 3.0 * last / 4.0)
        };
        Some(AxisScan {
            sinograms: (0..self.rows.len()).map(sinogram).collect(),
            angles_deg: order.iter().map(|index| self.angles_deg[*index]).collect(),
            columns,
            range_px: self.config.range_px.unwrap_or(widest),
            whole_turn,
        })
    }

    /// Forgets every projection.
    pub fn reset(&mut self) {
        self.angles_deg.clear();
        self.next = 0;
    }
}

/// The projections of the last half turn in the order of their angles; `None` where there is none.
fn half_turn(angles_deg: &[f64]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..angles_deg.len()).collect();
    order.sort_by(|a, b| angles_deg[*a].total_cmp(&angles_deg[*b]).then(a.cmp(b)));
    let last = angles_deg[*order.last()?];
    let kept = |index: &usize| last - angles_deg[*index] <= 180.0 + 1e-6;
    order.retain(kept);
    let first = angles_deg[*order.first()?];
    let gaps = order.windows(2).map(|pair| angles_deg[pair[1]] - angles_deg[pair[0]]);
    let widest = gaps.fold(0.0, f64::max);
    // The last step to 180° is often not taken.
    let step = (last - first) / (order.len().max(2) - 1) as f64;
    (order.len() >= 7 && widest <= GAP_DEG && last - first + 1.5 * step >= 180.0).then_some(order)
}

/// The projections of the last whole turn in the order of their angles; `None` where there is none.
fn whole_turn(angles_deg: &[f64]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..angles_deg.len()).collect();
    order.sort_by(|a, b| angles_deg[*a].total_cmp(&angles_deg[*b]).then(a.cmp(b)));
    let last = angles_deg[*order.last()?];
    order.retain(|index| last - angles_deg[*index] < TURN_DEG - 1e-6);
    let first = angles_deg[*order.first()?];
    let gaps = order.windows(2).map(|pair| angles_deg[pair[1]] - angles_deg[pair[0]]);
    let widest = gaps.fold(0.0, f64::max);
    let step = (last - first) / (order.len().max(2) - 1) as f64;
    (order.len() >= 14 && widest <= GAP_DEG && last - first + 1.5 * step >= TURN_DEG).then_some(order)
}

/// Half a turn of some rows, or a whole one.
pub struct AxisScan {
    /// `[angle][column]` of each row, angles in order
    sinograms: Vec<Vec<f32>>,
    angles_deg: Vec<f64>,
    columns: usize,
    range_px: (f64, f64),
    whole_turn: bool,
}

impl AxisScan {
    /// Projections that it rests on.
    pub fn projections(&self) -> usize {
        self.angles_deg.len()
    }

    /// The axis, on so many threads: opposite projections and Vo's metric of some rows say about where, the metric of all
    /// rows where exactly. Takes 0.1 to 10 s, with the size.
    ///
    /// Over a whole turn the overlap of its halves says it, row by row; not to be trusted where it lies outside of the range.
    pub fn estimate(&self, threads: usize) -> Result<AxisEstimate, Invalid> {
        if self.whole_turn {
            return self.overlapping(threads);
        }
        let opposite = opposite(&self.pairs())?;
        let range = self.range_px.0..=self.range_px.1;
        let rows = self.fullest();
        let mut found = Vec::new();
        for sinogram in rows.iter().take(COARSE_ROWS) {
            found.push(coarse(sinogram, self.columns, range.clone(), threads)?);
        }
        found.sort_by(|a, b| a.axis_px.total_cmp(&b.axis_px));
        let middle = found[found.len() / 2].axis_px;
        let agreeing = found.iter().filter(|row| (row.axis_px - middle).abs() <= AGREE_PX);
        let shared = agreeing.map(|row| row.confidence).sum::<f64>() / found.len() as f64;
        let (about, doubt) = if (opposite.axis_px - middle).abs() <= AGREE_PX {
            // Two ways that know nothing of each other: both are wrong with the product of their doubts.
            (middle, (1.0 - shared.max(0.5)) * (1.0 - opposite.confidence))
        } else if range.contains(&opposite.axis_px) && opposite.confidence > 2.0 * shared {
            (opposite.axis_px, 1.0 - 0.5 * (opposite.confidence - shared))
        } else {
            (middle, 1.0 - 0.5 * shared)
        };
        let reach = REACH_PX.max(self.columns as f64 / 640.0);
        let count = (FINE_VALUES / rows[0].len()).clamp(COARSE_ROWS, FINE_ROWS);
        let one = |sinogram: &&[f32]| fine(sinogram, self.columns, about, reach, threads);
        let mut places: Vec<f64> = rows.iter().take(count).map(one).collect();
        places.sort_by(f64::total_cmp);
        let middle = places[places.len() / 2];
        places.retain(|place| (place - middle).abs() <= AGREE_PX);
        let count = places.len() as f64;
        let axis_px = places.iter().sum::<f64>() / count;
        let variance = places.iter().map(|place| (place - axis_px).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        let precision = 1.0 / (1.0 + variance / count / PRECISION_PX.powi(2));
        Ok(AxisEstimate {
            axis_px,
            confidence: (1.0 - doubt) * precision,
        })
    }

    fn overlapping(&self, threads: usize) -> Result<AxisEstimate, Invalid> {
        let (low, high) = WINDOW_COLUMNS;
        // Not wider than what overlaps where the axis lies near the edge.
        let window = (self.columns / WINDOW_SHARE).clamp(low, high);
        let rows = self.fullest();
        let mut found = Vec::new();
        for row in rows.iter().take(FINE_ROWS) {
            found.push(overlap(&self.round(row), self.columns, window, None, threads)?.axis);
        }
        found.sort_by(|a, b| a.axis_px.total_cmp(&b.axis_px));
        let middle = found[found.len() / 2].axis_px;
        let agreeing: Vec<AxisEstimate> = found
            .iter()
            .copied()
            .filter(|row| (row.axis_px - middle).abs() <= AGREE_PX)
            .collect();
        let count = agreeing.len() as f64;
        let axis_px = agreeing.iter().map(|row| row.axis_px).sum::<f64>() / count;
        let variance = agreeing.iter().map(|row| (row.axis_px - axis_px).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        let precision = 1.0 / (1.0 + variance / count / PRECISION_PX.powi(2));
        let shared = agreeing.iter().map(|row| row.confidence).sum::<f64>() / found.len() as f64;
        let inside = (self.range_px.0..=self.range_px.1).contains(&axis_px);
        Ok(AxisEstimate {
            axis_px,
            confidence: if inside { shared * precision } else { 0.0 },
        })
    }

    /// A row's sinogram at an even number of steps evenly apart from 0 to 360° inclusive, between its neighbours in angle.
    fn round(&self, sinogram: &[f32]) -> Vec<f32> {
        let (angles, columns) = (&self.angles_deg, self.columns);
        let count = angles.len();
        let steps = (count - count % 2).min(TURN_ANGLES);
        let line = |index: usize| &sinogram[index % count * columns..][..columns];
        let mut out = Vec::with_capacity((steps + 1) * columns);
        for step in 0..=steps {
            let angle = angles[0] + TURN_DEG * step as f64 / steps as f64;
            let above = angles.partition_point(|other| *other <= angle + 1e-6).max(1);
            let below = angles[above - 1];
            let next = angles.get(above).copied().unwrap_or(angles[0] + TURN_DEG);
            let share = if next > below {
                ((angle - below) / (next - below)).clamp(0.0, 1.0)
            } else {
                0.0
            } as f32;
            let pair = line(above - 1).iter().zip(line(above));
            out.extend(pair.map(|(a, b)| a * (1.0 - share) + b * share));
        }
        out
    }

    /// Rows, those with most in them first.
    fn fullest(&self) -> Vec<&[f32]> {
        let mut rows: Vec<(f64, &[f32])> = self
            .sinograms
            .iter()
            .map(|row| (variance(row), row.as_slice()))
            .collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        rows.into_iter().map(|row| row.1).collect()
    }

    /// Rows of the projections that are nearest to half a turn apart.
    fn pairs(&self) -> Vec<(&[f32], &[f32])> {
        let angles = &self.angles_deg;
        let (first, last) = (angles[0], angles[angles.len() - 1]);
        let step = (last - first) / (angles.len() - 1) as f64;
        let mut found: Vec<(f64, usize, usize)> = Vec::new();
        for (a, angle) in angles.iter().enumerate().take(PAIRS) {
            for (b, other) in angles.iter().enumerate().rev().take(PAIRS) {
                found.push(((other - angle - 180.0).abs(), a, b));
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let nearest = found.first().map_or(0.0, |pair| pair.0);
        let row = |index: usize, sinogram: &'_ [f32]| -> std::ops::Range<usize> {
            debug_assert!((index + 1) * self.columns <= sinogram.len());
            index * self.columns..(index + 1) * self.columns
        };
        found
            .iter()
            .take_while(|pair| pair.0 <= nearest + 0.25 * step)
            .flat_map(|(_, a, b)| self.sinograms.iter().map(move |s| (&s[row(*a, s)], &s[row(*b, s)])))
            .collect()
    }
}

fn variance(values: &[f32]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count
}
