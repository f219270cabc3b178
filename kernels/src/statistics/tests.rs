use super::*;
use crate::testing;
use rand::RngExt;

const SHAPE: Shape = Shape::new(303, 271);

fn region(name: &str, row: usize, column: usize, rows: usize, columns: usize) -> Region {
    Region {
        name: name.into(),
        row,
        column,
        rows,
        columns,
    }
}

fn regions() -> Vec<Region> {
    vec![
        region("beam", 100, 90, 31, 33),
        region("pixel", 302, 270, 1, 1),
        region("narrow", 0, 5, 303, 3),
        region("rows", 20, 0, 200, 271),
        region("all", 0, 0, 303, 271),
    ]
}

#[test]
fn agrees_with_the_reference_for_every_pixel_type() {
    let (accelerator, queue) = testing::cpu();
    let mut random = testing::random(11);
    let mask = PixelMask::from_nonzero(SHAPE, (0..SHAPE.pixels()).map(|_| random.random_bool(0.1))).unwrap();
    let rejected: Vec<bool> = (0..SHAPE.pixels()).map(|pixel| mask.rejects(pixel)).collect();
    for pixel_type in PixelType::ALL {
        for saturation in [None, Some(if pixel_type == PixelType::F32 { 70.25 } else { 69.5 })] {
            // Of unsigned pixels the largest value says that there is no count.
            let unsigned = matches!(pixel_type, PixelType::U8 | PixelType::U16 | PixelType::U32);
            let invalid = unsigned.then(|| pixel_type.max_value());
            let config = StatisticsConfig {
                saturation,
                invalid,
                regions: regions(),
            };
            let frames: Vec<Vec<f64>> = (0..3)
                .map(|seed| testing::frame(pixel_type, SHAPE.pixels(), seed + 40))
                .collect();
            let mut stager = testing::staged(&accelerator, pixel_type, &frames);
            let mut statistics = Statistics::new(&accelerator, &config, SHAPE, pixel_type, &mask, 4).unwrap();
            let mut found = [FrameStatistics::default(); 3];
            statistics
                .run(&queue, stager.finish(&queue).unwrap(), &mut found)
                .unwrap();
            for (raw, found) in frames.iter().zip(&found) {
                let whole = region("", 0, 0, SHAPE.rows, SHAPE.columns);
                let pairs = std::iter::once((&whole, &found.frame)).chain(config.regions.iter().zip(&found.regions));
                for (region, found) in pairs {
                    let expected = reference::statistics(saturation, invalid, region, SHAPE, raw, &rejected);
                    let what = format!("{pixel_type:?} saturation {saturation:?} region `{}`", region.name);
                    let size = if pixel_type == PixelType::F32 {
                        expected.sum.abs()
                    } else {
                        0.0
                    };
                    assert!(
                        (found.sum - expected.sum).abs() <= 1e-9 * size,
                        "{what}: sum {} not {}",
                        found.sum,
                        expected.sum
                    );
                    assert_eq!(
                        found.max.to_bits(),
                        expected.max.to_bits(),
                        "{what}: max {} not {}",
                        found.max,
                        expected.max
                    );
                    let counts = |found: &RegionStatistics| (found.saturated, found.valid, found.masked, found.invalid);
                    assert_eq!(
                        counts(found),
                        counts(&expected),
                        "{what}: saturated, valid, masked, invalid"
                    );
                }
            }
        }
    }
}

#[test]
fn bright_frames_do_not_overflow() {
    let (accelerator, queue) = testing::cpu();
    for pixel_type in [PixelType::U8, PixelType::U16, PixelType::U32, PixelType::I32] {
        let shape = Shape::new(512, 512);
        let mask = PixelMask::none(shape);
        let mut stager = testing::staged(
            &accelerator,
            pixel_type,
            &[vec![pixel_type.max_value(); shape.pixels()]],
        );
        let mut statistics =
            Statistics::new(&accelerator, &StatisticsConfig::default(), shape, pixel_type, &mask, 1).unwrap();
        let mut found = [FrameStatistics::default()];
        statistics
            .run(&queue, stager.finish(&queue).unwrap(), &mut found)
            .unwrap();
        assert_eq!(found[0].frame.sum, pixel_type.max_value() * shape.pixels() as f64);
        assert_eq!(found[0].frame.max, pixel_type.max_value());
    }
}

#[test]
fn regions_outside_the_frame_are_refused_by_name() {
    let (accelerator, _) = testing::cpu();
    let config = StatisticsConfig {
        saturation: None,
        invalid: None,
        regions: vec![region("beam", 300, 0, 4, 10)],
    };
    let mask = PixelMask::none(SHAPE);
    let error = Statistics::new(&accelerator, &config, SHAPE, PixelType::U16, &mask, 1)
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "a region is rows 300 to 304, columns 0 to 10 (`beam`), the operation was prepared for a frame of 303x271 pixels"
    );
}
