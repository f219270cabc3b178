use super::*;
use crate::testing;
use rand::RngExt;

const SHAPE: Shape = Shape::new(37, 113);

fn fields(seed: u64) -> (Vec<f32>, Vec<f32>, PixelMask) {
    let mut random = testing::random(seed);
    let pixels = SHAPE.pixels();
    let dark: Vec<f32> = (0..pixels).map(|_| random.random_range(2.0..6.0)).collect();
    let mut flat: Vec<f32> = dark.iter().map(|dark| dark + random.random_range(50.0..90.0)).collect();
    flat[7] = dark[7];
    flat[8] = dark[8] - 3.0;
    flat[9] = f32::NAN;
    flat[10] = f32::INFINITY;
    let mask = PixelMask::from_nonzero(SHAPE, (0..pixels).map(|_| random.random_bool(0.03))).unwrap();
    (dark, flat, mask)
}

#[test]
fn agrees_with_the_reference_for_every_pixel_type() {
    let (accelerator, queue) = testing::cpu();
    let (dark, flat, mask) = fields(1);
    let pixels = SHAPE.pixels();
    let rejected: Vec<bool> = (0..pixels).map(|index| mask.rejects(index)).collect();
    for pixel_type in PixelType::ALL {
        for minus_log in [false, true] {
            let config = CorrectionConfig {
                dark: Some(dark.clone()),
                flat: Some(flat.clone()),
                minus_log,
                clip_epsilon: 1e-3,
                fill: 0.25,
            };
            let frames: Vec<Vec<f64>> = (0..3).map(|seed| testing::frame(pixel_type, pixels, seed)).collect();
            let mut stager = testing::staged(&accelerator, pixel_type, &frames);
            let mut correction = Correction::new(&accelerator, &config, SHAPE, pixel_type, &mask, 4).unwrap();
            let batch = correction.run(&queue, stager.finish(&queue).unwrap()).unwrap();
            let invalid = batch.invalid().to_vec();
            let found = batch.map(&queue).unwrap();
            for (number, raw) in frames.iter().enumerate() {
                let mut expected = vec![0.0; pixels];
                let filled = reference::correction(&config, raw, &rejected, &mut expected);
                assert_eq!(invalid[number], filled, "{pixel_type:?} frame {number}");
                for (index, expected) in expected.iter().enumerate() {
                    let found = f64::from(found[number * pixels + index]);
                    let bar = 2e-6 * if minus_log { 1.0 } else { expected.abs().max(1.0) };
                    assert!(
                        (found - expected).abs() <= bar,
                        "{pixel_type:?} log {minus_log} frame {number} pixel {index} raw {}: {found}, not {expected}",
                        raw[index]
                    );
                }
            }
        }
    }
}

#[test]
fn minus_log_is_good_to_2e_6_over_six_decades() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(1000, 16);
    let config = CorrectionConfig {
        minus_log: true,
        ..Default::default()
    };
    let raw: Vec<f64> = (0..16000)
        .map(|i| f64::from(10f32.powf(-6.0 + 7.0 * i as f32 / 16000.0)))
        .collect();
    let mut stager = testing::staged(&accelerator, PixelType::F32, std::slice::from_ref(&raw));
    let mask = PixelMask::none(shape);
    let mut correction = Correction::new(&accelerator, &config, shape, PixelType::F32, &mask, 1).unwrap();
    let batch = correction.run(&queue, stager.finish(&queue).unwrap()).unwrap();
    let found = batch.map(&queue).unwrap();
    let worst = raw
        .iter()
        .zip(found.iter())
        .map(|(raw, found)| (f64::from(*found) + raw.max(1e-6f32 as f64).ln()).abs());
    let worst = worst.fold(0.0, f64::max);
    assert!(worst <= 1e-6, "largest error {worst:.2e}");
}

#[test]
fn another_dark_and_flat_replace_the_first() {
    let (accelerator, queue) = testing::cpu();
    let pixels = SHAPE.pixels();
    let config = CorrectionConfig::default();
    let mask = PixelMask::none(SHAPE);
    let mut stager = testing::staged(&accelerator, PixelType::U16, &[vec![30.0; pixels]]);
    let mut correction = Correction::new(&accelerator, &config, SHAPE, PixelType::U16, &mask, 1).unwrap();
    let batch = stager.finish(&queue).unwrap();
    assert!(
        correction
            .run(&queue, batch)
            .unwrap()
            .map(&queue)
            .unwrap()
            .iter()
            .all(|value| *value == 30.0)
    );
    correction
        .set_fields(&queue, Some(&vec![10.0; pixels]), Some(&vec![50.0; pixels]))
        .unwrap();
    assert!(
        correction
            .run(&queue, batch)
            .unwrap()
            .map(&queue)
            .unwrap()
            .iter()
            .all(|value| *value == 0.5)
    );
}

#[test]
fn wrong_shapes_are_refused_by_name() {
    let (accelerator, queue) = testing::cpu();
    let mask = PixelMask::none(Shape::new(2, 2));
    let config = CorrectionConfig::default();
    let error = Correction::new(&accelerator, &config, SHAPE, PixelType::U8, &mask, 1)
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "the mask's shape is 2x2, the operation was prepared for 37x113"
    );
    let config = CorrectionConfig {
        dark: Some(vec![0.0; 5]),
        ..Default::default()
    };
    let error = Correction::new(&accelerator, &config, SHAPE, PixelType::U8, &PixelMask::none(SHAPE), 1)
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "the dark's number of pixels is 5, the operation was prepared for 4181"
    );
    let config = CorrectionConfig::default();
    let mut correction =
        Correction::new(&accelerator, &config, SHAPE, PixelType::U8, &PixelMask::none(SHAPE), 1).unwrap();
    let mut stager = testing::staged(&accelerator, PixelType::U16, &[vec![0.0; SHAPE.pixels()]]);
    let error = correction.run(&queue, stager.finish(&queue).unwrap()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "a frame's size in bytes is 8362, the operation was prepared for 4181"
    );
}
