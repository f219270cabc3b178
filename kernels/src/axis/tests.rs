use super::*;
use crate::testing::random;
use rand::{Rng, RngExt};

/// Poisson-like noise of so many photons on a line integral: the minus logarithm of a count, by a normal deviate.
fn noisy(random: &mut impl Rng, integral: f64, photons: f64) -> f32 {
    let count = photons * (-integral).exp();
    let deviate: f64 = (0..12).map(|_| random.random_range(0.0..1.0)).sum::<f64>() - 6.0;
    -((count + count.sqrt() * deviate).max(1.0) / photons).ln() as f32
}

/// A scan of ellipses about an axis: `[angle][row][column]`, and angles from 0 to 180°.
fn scan(
    seed: u64,
    rows: usize,
    columns: usize,
    angles: usize,
    axis_px: f64,
    photons: f64,
) -> (Vec<Vec<f32>>, Vec<f64>) {
    let mut random = random(seed);
    let discs: Vec<[f64; 4]> = (0..12)
        .map(|k| {
            let r = if k == 0 { 0.3 } else { random.random_range(0.02..0.12) };
            let away: f64 = if k == 0 { 0.05 } else { random.random_range(0.0..0.3) };
            let at: f64 = random.random_range(0.0..std::f64::consts::TAU);
            [away * at.cos(), away * at.sin(), r, random.random_range(0.5..2.0)]
        })
        .collect();
    let angles_deg: Vec<f64> = (0..=angles).map(|a| 180.0 * a as f64 / angles as f64).collect();
    let projections = angles_deg
        .iter()
        .map(|angle| {
            let (sin, cos) = angle.to_radians().sin_cos();
            (0..rows * columns)
                .map(|i| {
                    let u = ((i % columns) as f64 - axis_px) / columns as f64;
                    let height = 1.0 - 0.5 * (i / columns) as f64 / rows as f64;
                    let chord = |[x, y, r, value]: &[f64; 4]| {
                        value * (r * r * height - (u - x * cos - y * sin).powi(2)).max(0.0).sqrt()
                    };
                    noisy(&mut random, discs.iter().map(chord).sum(), photons)
                })
                .collect()
        })
        .collect();
    (projections, angles_deg)
}

fn finder(rows: usize, columns: usize) -> AxisFinder {
    let config = AxisFinderConfig {
        rows,
        columns,
        projections: 400,
        sample_rows: 8,
        range_px: None,
        whole_turn: false,
    };
    AxisFinder::new(&config).unwrap()
}

#[test]
fn twenty_noisy_scans() {
    let (rows, columns, angles) = (8, 200, 150);
    let mut good = 0;
    for seed in 0..20 {
        let mut random = random(1000 + seed);
        let axis = 99.5 + random.random_range(-30.0..30.0);
        let photons = [10_000.0, 3000.0, 1000.0, 300.0][seed as usize % 4];
        let (projections, angles_deg) = scan(seed, rows, columns, angles, axis, photons);
        let mut finder = finder(rows, columns);
        // As they arrive: shuffled a little, one in fifty lost.
        let mut order: Vec<usize> = (0..=angles).filter(|a| a % 50 != 17).collect();
        order.sort_by_key(|a| a / 4 * 4 + (a * 7) % 4);
        for a in order {
            assert!(!(a < 75 && finder.ready()));
            finder.push(&projections[a], angles_deg[a]).unwrap();
        }
        let found = finder.scan().unwrap().estimate(2).unwrap();
        let error = found.axis_px - axis;
        println!(
            "{seed}: {axis:.2} photons {photons}: error {error:+.3}, confidence {:.2}",
            found.confidence
        );
        if error.abs() <= 0.25 {
            good += 1;
        } else {
            assert!(found.confidence < TRUSTED, "a wrong axis that is trusted: {found:?}");
        }
    }
    assert!(good >= 19, "{good} of 20 within 0.25 columns");
}

#[test]
fn nothing_to_see_is_not_trusted() {
    let (rows, columns) = (4, 128);
    for seed in 0..4 {
        let mut random = random(seed);
        let mut finder = finder(rows, columns);
        for a in 0..=120 {
            let projection: Vec<f32> = (0..rows * columns).map(|_| noisy(&mut random, 0.0, 500.0)).collect();
            finder.push(&projection, 1.5 * f64::from(a)).unwrap();
        }
        let found = finder.scan().unwrap().estimate(1).unwrap();
        println!("noise: {found:?}");
        assert!(found.confidence < TRUSTED, "{found:?}");
    }
    let mut finder = finder(rows, columns);
    for a in 0..=120 {
        finder.push(&[0.0; 4 * 128], 1.5 * f64::from(a)).unwrap();
    }
    assert!(finder.scan().unwrap().estimate(1).unwrap().confidence < TRUSTED);
}

#[test]
fn half_a_turn_is_needed_and_gaps_are_seen() {
    let mut finder = finder(1, 16);
    for a in 0..90 {
        finder.push(&[0.0; 16], f64::from(a)).unwrap();
    }
    assert!(!finder.ready() && finder.scan().is_none());
    for a in 150..180 {
        finder.push(&[0.0; 16], f64::from(a)).unwrap();
    }
    assert!(!finder.ready(), "60 degrees are missing");
    for a in (90..150).rev() {
        finder.push(&[0.0; 16], f64::from(a)).unwrap();
    }
    assert!(finder.ready(), "0 to 179 in steps of 1");
    assert_eq!(finder.scan().unwrap().projections(), 180);
    for a in 180..400 {
        finder.push(&[0.0; 16], f64::from(a)).unwrap();
    }
    assert_eq!(
        finder.scan().unwrap().projections(),
        181,
        "the last half turn, both ends"
    );
    finder.reset();
    assert!(!finder.ready() && finder.projections() == 0);
    assert!(finder.push(&[0.0; 16], f64::NAN).is_err() && finder.push(&[0.0; 15], 0.0).is_err());
}

#[test]
fn halves_of_a_whole_turn_overlap_at_the_axis() {
    for (axis, side) in [(20.3, Side::Left), (178.75, Side::Right)] {
        let (columns, angles) = (200, 240);
        let (projections, _) = scan(5, 1, columns, angles, axis, 20_000.0);
        // The other half of the turn is what the same scan sees from behind.
        let other = scan(5, 1, columns, angles, columns as f64 - 1.0 - axis, 20_000.0).0;
        let mut sinogram: Vec<f32> = projections[..angles].concat();
        for row in &other[..angles] {
            sinogram.extend(row.iter().rev());
        }
        let found = overlap(&sinogram, columns, 24, None, 2).unwrap();
        println!("axis {axis}: {found:?}");
        assert_eq!(found.side, side);
        assert!((found.axis.axis_px - axis).abs() <= 0.5, "{found:?}");
        assert!(found.axis.confidence >= TRUSTED, "{found:?}");
    }
}

/// A whole turn of `scan`: what the second half sees is the first seen from behind.
fn round(
    seed: u64,
    rows: usize,
    columns: usize,
    angles: usize,
    axis_px: f64,
    photons: f64,
) -> (Vec<Vec<f32>>, Vec<f64>) {
    let (mut projections, _) = scan(seed, rows, columns, angles / 2, axis_px, photons);
    projections.truncate(angles / 2);
    let other = scan(seed, rows, columns, angles / 2, columns as f64 - 1.0 - axis_px, photons).0;
    for mut projection in other.into_iter().take(angles / 2) {
        projection.chunks_exact_mut(columns).for_each(<[f32]>::reverse);
        projections.push(projection);
    }
    let angles_deg = (0..angles).map(|a| 360.0 * a as f64 / angles as f64).collect();
    (projections, angles_deg)
}

#[test]
fn axes_of_half_acquisitions_from_noisy_projections_in_any_order() {
    let (rows, columns, angles) = (8, 200, 300);
    let mut good = 0;
    for seed in 0..12 {
        let mut random = random(2000 + seed);
        let near = random.random_range(14.0..60.0);
        let axis = if seed % 2 == 0 { near } else { 199.0 - near };
        let photons = [30_000.0, 3000.0, 1000.0][seed as usize % 3];
        let (projections, angles_deg) = round(seed, rows, columns, angles, axis, photons);
        let config = AxisFinderConfig {
            rows,
            columns,
            projections: 400,
            sample_rows: 8,
            range_px: None,
            whole_turn: true,
        };
        let mut finder = AxisFinder::new(&config).unwrap();
        let mut order: Vec<usize> = (0..angles).filter(|a| a % 50 != 17).collect();
        order.sort_by_key(|a| a / 4 * 4 + (a * 7) % 4);
        for a in order {
            assert!(!(a < 280 && finder.ready()));
            finder.push(&projections[a], angles_deg[a]).unwrap();
        }
        let found = finder.scan().unwrap().estimate(2).unwrap();
        let error = found.axis_px - axis;
        println!(
            "{seed}: {axis:.2} photons {photons}: error {error:+.3}, confidence {:.2}",
            found.confidence
        );
        if error.abs() <= 0.25 {
            good += 1;
        } else {
            assert!(found.confidence < TRUSTED, "a wrong axis that is trusted: {found:?}");
        }
    }
    assert!(good >= 11, "{good} of 12 within 0.25 columns");
}

#[test]
fn wrong_sizes_and_ranges_are_named() {
    let error = double_wedge(&[0.0; 64 * 20], 64, 50.0..=40.0, 1).unwrap_err();
    assert!(error.to_string().contains("50 to 40"), "{error}");
    assert!(double_wedge(&[0.0; 64 * 3], 64, 20.0..=40.0, 1).is_err());
    assert!(opposite(&[(&[0.0; 4], &[0.0; 4])]).is_err());
    let config = AxisFinderConfig {
        rows: 1,
        columns: 64,
        projections: 9,
        sample_rows: 8,
        range_px: Some((10.0, 64.0)),
        whole_turn: false,
    };
    assert!(AxisFinder::new(&config).err().unwrap().to_string().contains("range_px"));
}
