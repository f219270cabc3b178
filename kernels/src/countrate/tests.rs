use super::*;
use crate::testing;

/// What the kernel makes of `counts`, which are as many as the shape has pixels.
fn run(config: &CountRateConfig, pixel_type: PixelType, counts: &[f64]) -> (Vec<f32>, u32) {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(1, counts.len());
    let mask = PixelMask::none(shape);
    let frames = [counts.to_vec(), counts.iter().rev().copied().collect()];
    let mut stager = testing::staged(&accelerator, pixel_type, &frames);
    let mut countrate = CountRate::new(&accelerator, config, shape, pixel_type, &mask, 3).unwrap();
    countrate.run(&queue, stager.finish(&queue).unwrap()).unwrap();
    let read = |frame| {
        let mut bytes = vec![0; counts.len() * 4];
        countrate.output().read_frame(&queue, frame, &mut bytes).unwrap();
        let values = bytes.as_chunks::<4>().0;
        values.iter().map(|v| f32::from_le_bytes(*v)).collect::<Vec<f32>>()
    };
    let (first, mut second) = (read(0), read(1));
    second.reverse();
    assert_eq!(
        first.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
        second.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    );
    assert_eq!(countrate.saturated()[0], countrate.saturated()[1]);
    (first, countrate.saturated()[0])
}

fn config(dead_time: DeadTime, exposure_s: f64) -> CountRateConfig {
    CountRateConfig {
        dead_time,
        exposure_s,
        saturation: None,
        invalid: None,
    }
}

#[test]
fn both_formulas_are_good_to_1e_5_up_to_the_cutoff_and_flagged_beyond() {
    // 3400 counts per exposure at most, then so many that the table must interpolate.
    for exposure_s in [0.4e-3, 2.0] {
        for dead_time in [
            DeadTime::NonParalyzable { seconds: 118e-9 },
            DeadTime::Paralyzable { seconds: 118e-9 },
        ] {
            let config = config(dead_time, exposure_s);
            let cutoff = reference::cutoff(&config.dead_time, exposure_s);
            let ends = (cutoff * 1.2) as usize;
            let counts: Vec<f64> = (0..ends).step_by(1 + ends / 100_000).map(|n| n as f64).collect();
            let (found, saturated) = run(&config, PixelType::U32, &counts);
            let mut worst = 0f64;
            for (measured, found) in counts.iter().zip(&found) {
                if *measured >= cutoff {
                    assert_eq!(*found, f32::MAX, "{measured} of {cutoff}");
                } else if *measured > 0.0 {
                    let expected = reference::corrected(&config.dead_time, exposure_s, *measured);
                    worst = worst.max((f64::from(*found) / expected - 1.0).abs());
                }
            }
            assert!(worst <= 1e-6, "{config:?}: {worst:.2e}");
            assert_eq!(saturated as usize, counts.iter().filter(|n| **n >= cutoff).count());
        }
    }
}

#[test]
fn the_references_are_each_others_inverse() {
    let (seconds, exposure_s) = (200e-9, 1e-3);
    let (non, par) = (DeadTime::NonParalyzable { seconds }, DeadTime::Paralyzable { seconds });
    for n in [1.0, 100.0, 1500.0, 3000.0] {
        let measured = n / (1.0 + n * seconds / exposure_s);
        assert!((reference::corrected(&non, exposure_s, measured) / n - 1.0).abs() < 1e-12);
        let measured = n * (-n * seconds / exposure_s).exp();
        assert!(
            (reference::corrected(&par, exposure_s, measured) / n - 1.0).abs() < 1e-12,
            "{n}"
        );
    }
}

#[test]
fn the_detectors_own_table_is_followed_to_its_end() {
    let table: Vec<f64> = (0..1000)
        .map(|n| f64::from(n) + f64::from(n * n) / 4000.0)
        .map(f64::round)
        .collect();
    let config = config(DeadTime::Table(table.clone()), f64::NAN);
    let counts: Vec<f64> = (0..1100).map(f64::from).collect();
    let (found, saturated) = run(&config, PixelType::U16, &counts);
    for (n, found) in found.iter().enumerate() {
        match table.get(n) {
            Some(expected) => assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected, "{n}: {found}"),
            None => assert_eq!(*found, f32::MAX),
        }
    }
    assert_eq!(saturated, 100);
}

#[test]
fn sentinels_and_negative_counts_stay_what_they_are() {
    let non = DeadTime::NonParalyzable { seconds: 1e-9 };
    let sentinels = CountRateConfig {
        saturation: Some(65534.0),
        invalid: Some(65535.0),
        ..config(non.clone(), 1.0)
    };
    let (found, saturated) = run(&sentinels, PixelType::U16, &[0.0, 7.0, 65533.0, 65534.0, 65535.0]);
    assert_eq!(&found[..2], [0.0, 7.0]);
    assert!(found[2] > 65533.0 && found[2] < 65540.0);
    assert_eq!(found[3], f32::MAX);
    assert!(found[4].is_nan());
    assert_eq!(saturated, 1);
    let (found, _) = run(&config(non, 1.0), PixelType::I32, &[-3.0, 5.0]);
    assert_eq!(found, [-3.0, 5.0]);
}

#[test]
fn nonsense_is_refused_with_a_sentence() {
    let (accelerator, _) = testing::cpu();
    let refused = |dead_time, exposure_s| {
        let (shape, config) = (Shape::new(1, 16), config(dead_time, exposure_s));
        let mask = PixelMask::none(shape);
        match CountRate::new(&accelerator, &config, shape, PixelType::U16, &mask, 1) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{config:?}"),
        }
    };
    let non = |seconds| DeadTime::NonParalyzable { seconds };
    assert!(refused(non(0.0), 1.0).starts_with("the dead time is 0 s"));
    assert!(refused(non(1e-7), f64::NAN).starts_with("the exposure is NaN s"));
    assert!(refused(DeadTime::Table(vec![0.0, f64::NAN]), 1.0).contains("NaN at 1 counts"));
    assert!(refused(DeadTime::Table(vec![0.0, 1.0, 0.2]), 1.0).contains("0.2 at 2 counts"));
    assert!(refused(DeadTime::Table(vec![]), 1.0).contains("0 entries"));
}
