use super::*;
use crate::testing;
use rand::RngExt;

/// Not a multiple of 16 pixels, and several tiles of every width.
const SHAPE: Shape = Shape::new(303, 271);

#[test]
fn agrees_with_the_reference_for_every_pixel_type() {
    let (accelerator, queue) = testing::cpu();
    let mut random = testing::random(12);
    let mask = PixelMask::from_nonzero(SHAPE, (0..SHAPE.pixels()).map(|_| random.random_bool(0.1))).unwrap();
    let rejected: Vec<bool> = (0..SHAPE.pixels()).map(|pixel| mask.rejects(pixel)).collect();
    for pixel_type in PixelType::ALL {
        let unsigned = matches!(pixel_type, PixelType::U8 | PixelType::U16 | PixelType::U32);
        for invalid in [None, unsigned.then(|| pixel_type.max_value())] {
            let frames: Vec<Vec<f64>> = (0..3)
                .map(|seed| testing::frame(pixel_type, SHAPE.pixels(), seed + 60))
                .collect();
            let mut stager = testing::staged(&accelerator, pixel_type, &frames);
            let batch = stager.finish(&queue).unwrap();
            for threshold in [0.0, 1.5, 42.0, 69.25, 254.0, 1e12] {
                let config = LitConfig { threshold, invalid };
                let mut lit = LitPixels::new(&accelerator, &config, SHAPE, pixel_type, &mask, 4).unwrap();
                let mut found = [u64::MAX; 3];
                lit.run(&queue, batch, &mut found).unwrap();
                let expected: Vec<u64> = frames
                    .iter()
                    .map(|raw| reference::lit_pixels(threshold, invalid, raw, &rejected))
                    .collect();
                assert_eq!(
                    found[..],
                    expected,
                    "{pixel_type:?} above {threshold}, invalid {invalid:?}"
                );
            }
        }
    }
}

#[test]
fn every_pixel_may_be_lit() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(512, 1024);
    for pixel_type in [PixelType::U8, PixelType::U16, PixelType::U32, PixelType::F32] {
        let frames = [vec![200.0; shape.pixels()]];
        let mut stager = testing::staged(&accelerator, pixel_type, &frames);
        let config = LitConfig {
            threshold: 199.0,
            invalid: None,
        };
        let mut lit = LitPixels::new(&accelerator, &config, shape, pixel_type, &PixelMask::none(shape), 1).unwrap();
        let mut found = [0];
        lit.run(&queue, stager.finish(&queue).unwrap(), &mut found).unwrap();
        assert_eq!(found, [shape.pixels() as u64]);
    }
}

#[test]
fn a_threshold_below_zero_or_none_is_refused() {
    let (accelerator, _) = testing::cpu();
    for threshold in [-1.0, f64::NAN] {
        let config = LitConfig {
            threshold,
            invalid: None,
        };
        let mask = PixelMask::none(SHAPE);
        let refused = LitPixels::new(&accelerator, &config, SHAPE, PixelType::U16, &mask, 1);
        let said = refused.err().unwrap().to_string();
        assert!(said.contains("the threshold of lit pixels"), "{said}");
    }
}
