//! Poisson noise, fast and repeatable.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Random numbers of a purpose: every purpose has a stream of its own, so that one does not shift another.
pub(super) fn random(seed: u64, purpose: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed ^ purpose.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// A number from 0 to below 1.
pub(super) fn unit(random: &mut Pcg64Mcg) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

const QUANTILE_BITS: u32 = 13;
const QUANTILES: usize = 1 << QUANTILE_BITS;
const LEVELS: usize = 192;

/// Draws Poisson counts for means between 0 and a largest one: a table of quantiles for each of some means. A mean
/// between two of them draws from either, so that the mean is kept.
pub(super) struct PoissonTable {
    counts: Vec<u16>,
    scale: f64,
}

impl PoissonTable {
    /// A table for means from 0 to `mean_max`, at most 20000.
    pub(super) fn new(mean_max: f64) -> Self {
        let scale = (LEVELS - 2) as f64 / mean_max.sqrt();
        let mut counts = vec![0; LEVELS * QUANTILES];
        for (level, table) in counts.chunks_exact_mut(QUANTILES).enumerate() {
            let mean = (level as f64 / scale).powi(2);
            let (mut count, mut probability) = (0u32, (-mean).exp());
            let mut cumulative = probability;
            if mean > 500.0 {
                // exp(-mean) leaves the range of f64 soon; begin where it matters.
                (count, probability, cumulative) = start(mean);
            }
            for (index, slot) in table.iter_mut().enumerate() {
                let quantile = (index as f64 + 0.5) / QUANTILES as f64;
                while cumulative < quantile && f64::from(count) < mean * 4.0 + 60.0 {
                    count += 1;
                    probability *= mean / f64::from(count);
                    cumulative += probability;
                }
                *slot = count.min(u32::from(u16::MAX)) as u16;
            }
        }
        Self { counts, scale }
    }

    /// Where `mean` lies in the table; draw with [`PoissonTable::draw`].
    pub(super) fn place(&self, mean: f64) -> f32 {
        // Between levels the mean is interpolated in the square root's square, which is linear in the mean.
        let root = mean.max(0.0).sqrt() * self.scale;
        let (low, high) = (root.floor(), root.floor() + 1.0);
        let share = (root * root - low * low) / (high * high - low * low);
        (low + share.min(0.999_999)) as f32
    }

    /// A count for a place; uses 24 random bits.
    pub(super) fn draw(&self, place: f32, bits: u64) -> u32 {
        let level = place as usize;
        let share = ((place - level as f32) * 2048.0) as u64;
        let level = level + usize::from((bits >> QUANTILE_BITS) & 2047 < share);
        u32::from(self.counts[level.min(LEVELS - 1) * QUANTILES + (bits as usize & (QUANTILES - 1))])
    }
}

/// Count, its probability and the cumulative probability six standard deviations below a large mean.
fn start(mean: f64) -> (u32, f64, f64) {
    let count = (mean - 6.0 * mean.sqrt()).max(0.0).floor();
    // Stirling's series for the logarithm of the factorial.
    let ln_factorial =
        (count + 0.5) * count.ln() - count + 0.5 * (2.0 * std::f64::consts::PI).ln() + 1.0 / (12.0 * count);
    let probability = (count * mean.ln() - mean - ln_factorial).exp();
    (count as u32, probability, probability)
}

/// A Poisson count by the quantile of a normal number and the skewness (Cornish & Fisher 1938); for means of 20 or
/// more, where its first three moments are right to 1 %.
pub(super) fn large_poisson(mean: f64, normal: f64) -> u32 {
    (mean + mean.sqrt() * normal + (normal * normal - 1.0) / 6.0)
        .round()
        .max(0.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_moments_of_poisson() {
        let table = PoissonTable::new(900.0);
        let mut random = random(5, 0);
        for mean in [0.03, 0.4, 1.0, 3.3, 17.0, 120.0, 700.0] {
            let place = table.place(mean);
            let n = 400_000;
            let draws: Vec<f64> = (0..n)
                .map(|_| f64::from(table.draw(place, random.next_u64())))
                .collect();
            let average = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|d| (d - average).powi(2)).sum::<f64>() / f64::from(n);
            assert!(
                (average / mean - 1.0).abs() < 5.0 / (f64::from(n) * mean).sqrt() + 2e-3,
                "mean {mean}: {average}"
            );
            assert!((variance / mean - 1.0).abs() < 0.03, "variance at {mean}: {variance}");
        }
    }
}
