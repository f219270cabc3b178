//! Powder rings, Bragg spots, background and gaps on a modular detector.

use super::noise::{PoissonTable, random, unit};
use super::{Model, Scenery, SimulateConfig, check_memory, describe, to_bytes};
use crate::source::SourceError;
use frame::detector::{self, Detector};
use frame::geometry::{Geometry, Unit};
use frame::mask::DEAD;
use frame::{PixelMask, Shape};
use rand::Rng;
use rand_distr::{Distribution, Poisson};

/// Wavelength, metres.
const WAVELENGTH_M: f64 = 1.0e-10;
/// Lattice constant of CeO₂ (NIST SRM 674), metres, and its strongest reflections: h² + k² + l², relative intensity.
const CEO2_M: f64 = 5.4115e-10;
const CEO2_REFLECTIONS: [(f64, f64); 9] = [
    (3.0, 100.0),
    (4.0, 30.0),
    (8.0, 52.0),
    (11.0, 42.0),
    (12.0, 8.0),
    (16.0, 8.0),
    (19.0, 15.0),
    (20.0, 8.0),
    (24.0, 14.0),
];
/// Width of a ring, radians of 2θ.
const RING_SIGMA_RAD: f64 = 6e-4;
/// One pixel in so many is dead.
const DEAD_ONE_IN: u64 = 20_000;
/// Spots on a frame.
const SPOTS: usize = 60;
/// Half size of the square that a spot is drawn in, pixels.
const SPOT_REACH: i64 = 5;

fn model(config: &SimulateConfig) -> (String, Shape, f64, Option<&'static Detector>) {
    let name = match config.detector {
        Model::Eiger1m => "Eiger 1M",
        Model::Eiger4m => "Eiger 4M",
        Model::Eiger16m => "Eiger 16M",
        Model::Jungfrau1m => "Jungfrau 1M",
        Model::Jungfrau4m => "Jungfrau 4M",
        Model::Custom => "custom detector",
    };
    let known = detector::find(name);
    let shape = known.map_or(Shape::new(config.rows, config.columns), |known| known.shape);
    (name.into(), shape, known.map_or(75e-6, |known| known.pixel1_m), known)
}

/// The scene.
pub(super) fn make(config: &SimulateConfig) -> Result<Scenery, SourceError> {
    let (name, shape, pixel_m, known) = model(config);
    let distinct = (config.distinct as u64).min(config.frames);
    check_memory(distinct, shape.pixels() * config.pixel_type.bytes())?;
    // The beam meets the detector off its middle, so that rows and columns cannot be mistaken for each other.
    let (center_row, center_column) = (shape.rows as f64 * 0.52, shape.columns as f64 * 0.47);
    let geometry = Geometry {
        dist_m: 0.7 * shape.columns as f64 * pixel_m,
        poni1_m: (center_row + 0.5) * pixel_m,
        poni2_m: (center_column + 0.5) * pixel_m,
        rot1_rad: 0.0,
        rot2_rad: 0.0,
        rot3_rad: 0.0,
        wavelength_m: Some(WAVELENGTH_M),
        pixel1_m: pixel_m,
        pixel2_m: pixel_m,
        orientation: 3,
        shape: Some(shape),
        detector: Some(name.clone()),
        pixel_corners: None,
    };
    let mut mask = known.map_or_else(|| PixelMask::none(shape), Detector::gap_mask);
    let mut dead = random(config.seed, 1);
    for bits in mask.bits_mut() {
        if dead.next_u64().is_multiple_of(DEAD_ONE_IN) {
            *bits |= DEAD;
        }
    }
    let expected = expected_counts(&geometry, shape)?;
    let table = PoissonTable::new(expected.iter().copied().fold(1.0, f64::max));
    let places: Vec<f32> = expected.iter().map(|mean| table.place(*mean)).collect();
    let top = config.pixel_type.max_value() as u32;
    let saturated = if top > 1_000_000 { 1_000_000 } else { top - 2 };
    let frames = (0..distinct)
        .map(|number| {
            let mut counts = noisy(&places, &table, config.seed, number);
            add_spots(&mut counts, shape, config.seed, number);
            let pixels = counts
                .iter()
                .zip(mask.bits())
                .map(|(c, bits)| if *bits == 0 { (*c).min(saturated) } else { top });
            to_bytes(pixels, config.pixel_type)
        })
        .collect();
    let mut stream = describe(config, &format!("simulated {name}"), shape, config.frames);
    stream.saturation_value = Some(f64::from(saturated));
    stream.mask = Some(mask);
    stream.detector.name = Some(name);
    stream.detector.pixel_size_slow_m = Some(pixel_m);
    stream.detector.pixel_size_fast_m = Some(pixel_m);
    stream.detector.sensor_material = Some("Si".into());
    stream.detector.sensor_thickness_m = Some(450e-6);
    stream.detector.distance_m = Some(geometry.dist_m);
    stream.detector.wavelength_m = Some(WAVELENGTH_M);
    stream.detector.beam_center_x_px = Some(center_column + 0.5);
    stream.detector.beam_center_y_px = Some(center_row + 0.5);
    let frame_time_s = if config.rate_hz > 0.0 {
        1.0 / config.rate_hz
    } else {
        1e-3
    };
    stream.detector.frame_time_s = Some(frame_time_s);
    stream.detector.count_time_s = Some(frame_time_s * 0.99);
    Ok(Scenery { frames, stream })
}

/// Mean counts of every pixel: a falling background and the rings, with solid angle and polarisation.
fn expected_counts(geometry: &Geometry, shape: Shape) -> Result<Vec<f64>, SourceError> {
    let two_theta = geometry
        .radial_map(Unit::TwoThetaRad, shape)
        .map_err(|error| SourceError::Read {
            path: "simulation".into(),
            reason: error.to_string(),
        })?;
    let (solid, polarization) = (
        geometry.solid_angle_map(shape),
        geometry.polarization_map(0.99, 0.0, shape),
    );
    let rings: Vec<(f64, f64)> = CEO2_REFLECTIONS
        .iter()
        .map(|(squares, intensity)| {
            let sine = WAVELENGTH_M / 2.0 * squares.sqrt() / CEO2_M;
            (2.0 * sine.asin(), intensity * 0.12)
        })
        .collect();
    let mean = |angle: f64| {
        let background = 0.6 + 2.5 * (-angle / 0.08).exp();
        let near = rings
            .iter()
            .filter(|(center, _)| (angle - center).abs() < 6.0 * RING_SIGMA_RAD);
        background
            + near
                .map(|(center, top)| top * (-0.5 * ((angle - center) / RING_SIGMA_RAD).powi(2)).exp())
                .sum::<f64>()
    };
    Ok(two_theta
        .iter()
        .zip(&solid)
        .zip(&polarization)
        .map(|((angle, s), p)| mean(*angle) * s * p)
        .collect())
}

fn noisy(places: &[f32], table: &PoissonTable, seed: u64, number: u64) -> Vec<u32> {
    let mut random = random(seed, 1_000 + number);
    let mut counts = Vec::with_capacity(places.len());
    for pair in places.chunks(2) {
        let bits = random.next_u64();
        counts.extend(
            pair.iter()
                .zip([bits, bits >> 32])
                .map(|(place, bits)| table.draw(*place, bits)),
        );
    }
    counts
}

/// Round spots of 200 to 200 000 photons at places of this frame's own.
fn add_spots(counts: &mut [u32], shape: Shape, seed: u64, number: u64) {
    let mut random = random(seed, 2_000_000 + number);
    for _ in 0..SPOTS {
        let (row, column) = (
            unit(&mut random) * shape.rows as f64,
            unit(&mut random) * shape.columns as f64,
        );
        let photons = 200.0 * 1000f64.powf(unit(&mut random).powi(3));
        let sigma = 0.8 + 0.5 * unit(&mut random);
        let norm = photons / (2.0 * std::f64::consts::PI * sigma * sigma);
        for dr in -SPOT_REACH..=SPOT_REACH {
            for dc in -SPOT_REACH..=SPOT_REACH {
                let (r, c) = (row as i64 + dr, column as i64 + dc);
                if r < 0 || c < 0 || r >= shape.rows as i64 || c >= shape.columns as i64 {
                    continue;
                }
                let distance2 = (r as f64 + 0.5 - row).powi(2) + (c as f64 + 0.5 - column).powi(2);
                let mean = norm * (-0.5 * distance2 / (sigma * sigma)).exp();
                if let Ok(poisson) = Poisson::new(mean.max(1e-9)) {
                    let drawn: f64 = poisson.sample(&mut random);
                    counts[r as usize * shape.columns + c as usize] += drawn as u32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_is_poisson_in_every_pixel_and_independent_between_frames() {
        const FRAMES: u64 = 8;
        let expected: Vec<f64> = (0..200_000).map(|i| 0.5 + f64::from(i % 100) * 0.25).collect();
        let table = PoissonTable::new(25.5);
        let places: Vec<f32> = expected.iter().map(|mean| table.place(*mean)).collect();
        let frames: Vec<_> = (0..FRAMES).map(|n| noisy(&places, &table, 7, n)).collect();
        let (mut variance_over_mean, mut mean_over_expected) = (0.0, 0.0);
        for (i, wanted) in expected.iter().enumerate() {
            let values = || frames.iter().map(|frame| f64::from(frame[i]));
            let mean = values().sum::<f64>() / FRAMES as f64;
            let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / (FRAMES - 1) as f64;
            variance_over_mean += variance / wanted / expected.len() as f64;
            mean_over_expected += mean / wanted / expected.len() as f64;
        }
        // A standard error of 1e-3 for the variances, of 4e-4 for the means.
        assert!((variance_over_mean - 1.0).abs() < 0.01, "variance {variance_over_mean}");
        assert!((mean_over_expected - 1.0).abs() < 0.005, "mean {mean_over_expected}");
    }
}
