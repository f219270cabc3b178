use super::vectors::{Answer, answers, make};
use super::*;
use crate::testing;
use rand::RngExt;
use reference::Picture;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

const METHODS: [SpotAlgorithm; 2] = [SpotAlgorithm::Dispersion, SpotAlgorithm::DispersionExtended];

/// A device and the programs built for it so far, by their options.
struct Bench {
    accelerator: Accelerator,
    queue: Queue,
    programs: HashMap<String, Program>,
}

impl Bench {
    fn new() -> Self {
        let (accelerator, queue) = testing::cpu();
        Self {
            accelerator,
            queue,
            programs: HashMap::new(),
        }
    }

    /// Strong pixels by the device.
    fn strong(
        &mut self,
        config: &SpotConfig,
        shape: Shape,
        pixel_type: PixelType,
        frames: &[Vec<f64>],
        mask: &PixelMask,
    ) -> Vec<Vec<bool>> {
        let options = options(&self.accelerator, config, pixel_type);
        let program = self
            .programs
            .entry(options.clone())
            .or_insert_with(|| self.accelerator.program("spots", SOURCE, &options).unwrap());
        let (device, limit) = (&self.accelerator, frames.len());
        let mut finder = SpotFinder::with_program(device, program, config, shape, pixel_type, mask, limit).unwrap();
        let mut stager = testing::staged(device, pixel_type, frames);
        let mut outputs = vec![FrameSpots::default(); limit];
        finder
            .run(&self.queue, stager.finish(&self.queue).unwrap(), &mut outputs)
            .unwrap();
        let strong = |frame| finder.strong(&self.queue, frame).unwrap();
        let strong: Vec<Vec<bool>> = (0..limit).map(strong).collect();
        for (output, strong) in outputs.iter().zip(&strong) {
            assert_eq!(
                output.strong_pixels,
                strong.iter().filter(|strong| **strong).count() as u64
            );
        }
        strong
    }
}

/// As `dials_vectors.py` writes it: hash of the bits, the first pixel in the highest bit of the first byte.
fn answer(strong: &[bool]) -> Answer {
    let byte = |bits: &[bool]| {
        (0..8).fold(0u8, |byte, at| {
            byte << 1 | u8::from(bits.get(at).is_some_and(|bit| *bit))
        })
    };
    let bytes: Vec<u8> = strong.chunks(8).map(byte).collect();
    let hash = Sha256::digest(&bytes);
    Answer {
        strong: strong.iter().filter(|strong| **strong).count(),
        hash: hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
    }
}

#[test]
fn masks_are_those_of_dials_bit_for_bit() {
    let (mut bench, mut frames) = (Bench::new(), 0);
    for (seed, answers) in answers() {
        let vector = make(seed);
        let mask = PixelMask::from_nonzero(vector.shape, vector.masked.iter().copied()).unwrap();
        let pixel_type = if vector.wide { PixelType::I32 } else { PixelType::U16 };
        for (method, expected) in METHODS.into_iter().zip(answers) {
            let config = SpotConfig {
                algorithm: method,
                pixels_max: 16384,
                ..vector.config.clone()
            };
            let frame = std::slice::from_ref(&vector.values);
            let strong = bench.strong(&config, vector.shape, pixel_type, frame, &mask);
            assert_eq!(
                answer(&strong[0]),
                expected,
                "seed {seed}, {config:?}, {}",
                vector.shape
            );
        }
        frames += 1;
    }
    assert!(frames >= 1000, "{frames}");
    println!("{frames} frames");
}

#[test]
fn the_reference_is_dials_too() {
    for (seed, answers) in answers().step_by(7) {
        let vector = make(seed);
        let valid: Vec<bool> = vector.masked.iter().map(|masked| !masked).collect();
        let picture = Picture {
            shape: vector.shape,
            values: &vector.values,
            valid: &valid,
        };
        for (method, expected) in METHODS.into_iter().zip(answers) {
            let config = SpotConfig {
                algorithm: method,
                ..vector.config.clone()
            };
            assert_eq!(answer(&reference::strong(&config, &picture)), expected, "seed {seed}");
        }
    }
}

/// Frames with everything that a pixel type can hold, in batches, over the edges of tiles.
#[test]
fn agrees_with_the_reference_for_every_pixel_type() {
    let (mut bench, shape) = (Bench::new(), Shape::new(139, 547));
    let mut random = testing::random(5);
    let mask = PixelMask::from_nonzero(shape, (0..shape.pixels()).map(|_| random.random_bool(0.05))).unwrap();
    for pixel_type in PixelType::ALL {
        // Squares of the largest pixels would not be exact in the reference's doubles.
        let frames: Vec<Vec<f64>> = (0..3u64)
            .map(|seed| {
                let frame = testing::frame(pixel_type, shape.pixels(), seed + 70);
                frame.iter().map(|v| if *v > 3e7 { 3e7 } else { *v }).collect()
            })
            .collect();
        for (method, saturation) in METHODS.into_iter().zip([None, Some(90.0)]) {
            let config = SpotConfig {
                algorithm: method,
                background_sigmas: 0.3,
                strong_sigmas: 1.5,
                saturation,
                ..SpotConfig::default()
            };
            let strong = bench.strong(&config, shape, pixel_type, &frames, &mask);
            for (frame, strong) in frames.iter().zip(&strong) {
                let whole = |v: f64| {
                    if pixel_type == PixelType::F32 {
                        f64::from((v as f32).round_ties_even())
                    } else {
                        v
                    }
                };
                let values: Vec<f64> = frame.iter().map(|v| whole(*v)).collect();
                let usable = |(index, v): (usize, &f64)| {
                    !mask.rejects(index) && *v >= 0.0 && saturation.is_none_or(|saturation| *v < saturation)
                };
                let valid: Vec<bool> = values.iter().enumerate().map(usable).collect();
                let picture = Picture {
                    shape,
                    values: &values,
                    valid: &valid,
                };
                let expected = reference::strong(&config, &picture);
                let wrong = strong.iter().zip(&expected).filter(|(a, b)| a != b).count();
                let marked = expected.iter().filter(|strong| **strong).count();
                assert_eq!(wrong, 0, "{pixel_type:?} {method:?}: of {marked} strong pixels");
                assert!(marked > 0, "{pixel_type:?} {method:?}");
            }
        }
    }
}

/// Even backgrounds about the largest pixel whose square the first look adds, with pixels that barely stand out and some
/// beyond 16 bits: it may lose none of them, whatever the box.
#[test]
fn the_first_look_loses_no_pixel() {
    let (mut bench, shape) = (Bench::new(), Shape::new(70, 530));
    let mut random = testing::random(11);
    let mask = PixelMask::from_nonzero(shape, (0..shape.pixels()).map(|pixel| pixel % 190 > 183)).unwrap();
    let (valid, mut marked) = (
        (0..shape.pixels())
            .map(|pixel| !mask.rejects(pixel))
            .collect::<Vec<_>>(),
        0,
    );
    for radius in [1, 2, 3, RADIUS_MAX] {
        for (level, gain) in [
            (0.1, 1.0),
            (2.0, 1.0),
            (20.0, 0.5),
            (30.0, 1.0),
            (500.0, 2.5),
            (66_000.0, 1.0),
        ] {
            for pixel_type in [PixelType::U16, PixelType::I32] {
                let top = if pixel_type == PixelType::U16 { 65_535.0 } else { 2e7 };
                let mut draw = || {
                    let spread = f64::sqrt(level * gain) * random.random_range(-1.7..1.7);
                    let lifted = if random.random_bool(0.01) {
                        2.0 + 6.0 * f64::sqrt(level * gain)
                    } else {
                        0.0
                    };
                    let far = if random.random_bool(0.0003) { top } else { 0.0 };
                    (level + spread + lifted + far).round().clamp(0.0, top)
                };
                let frame: Vec<f64> = (0..shape.pixels()).map(|_| draw()).collect();
                for method in METHODS {
                    let config = SpotConfig {
                        algorithm: method,
                        radius,
                        gain,
                        background_sigmas: 1.0,
                        ..SpotConfig::default()
                    };
                    let strong = bench.strong(&config, shape, pixel_type, std::slice::from_ref(&frame), &mask);
                    let picture = Picture {
                        shape,
                        values: &frame,
                        valid: &valid,
                    };
                    let expected = reference::strong(&config, &picture);
                    let wrong = strong[0].iter().zip(&expected).filter(|(a, b)| a != b).count();
                    assert_eq!(
                        wrong, 0,
                        "{pixel_type:?} {method:?} radius {radius}, level {level}, gain {gain}"
                    );
                    marked += expected.iter().filter(|strong| **strong).count();
                }
            }
        }
    }
    assert!(marked > 10_000, "{marked}");
}

#[test]
fn spots_are_joined_measured_and_limited() {
    let shape = Shape::new(60, 70);
    let mut frame = vec![1.0; shape.pixels()];
    let mut put = |row: usize, column: usize, value: f64| frame[row * 70 + column] = value;
    // A spot of four pixels, one of two that touch at a corner, one at the last column beside one at the first.
    for (row, column, value) in [(10, 20, 100.0), (10, 21, 300.0), (11, 20, 100.0), (11, 21, 300.0)] {
        put(row, column, value);
    }
    put(30, 30, 200.0);
    put(31, 31, 200.0);
    put(45, 69, 500.0);
    put(46, 0, 500.0);
    let (accelerator, queue) = testing::cpu();
    let mask = PixelMask::none(shape);
    let run = |config: &SpotConfig| {
        let mut stager = testing::staged(&accelerator, PixelType::U16, std::slice::from_ref(&frame));
        let mut finder = SpotFinder::new(&accelerator, config, shape, PixelType::U16, &mask, 1).unwrap();
        let mut outputs = [FrameSpots::default()];
        finder
            .run(&queue, stager.finish(&queue).unwrap(), &mut outputs)
            .unwrap();
        outputs[0].clone()
    };
    let config = SpotConfig {
        algorithm: SpotAlgorithm::Dispersion,
        min_pixels: 1,
        ..SpotConfig::default()
    };
    let output = run(&config);
    assert_eq!((output.strong_pixels, output.found), (8, Some(5)), "{output:?}");
    let first = output.spots[0];
    assert_eq!((first.row, first.column), (10.5, 20.75));
    assert_eq!((first.intensity, first.max, first.pixels), (800.0, 300, 4));
    assert!(output.spots.is_sorted_by(|a, b| a.intensity >= b.intensity));
    let joined = run(&SpotConfig {
        diagonal: true,
        ..config.clone()
    });
    assert_eq!(joined.found, Some(4));
    let large = run(&SpotConfig {
        min_pixels: 3,
        ..config.clone()
    });
    assert_eq!((large.strong_pixels, large.found, large.spots.len()), (8, Some(1), 1));
    let few = run(&SpotConfig {
        spots_max: 2,
        ..config.clone()
    });
    assert_eq!((few.found, few.spots.len()), (Some(5), 2));
    // More strong pixels than are listed: counted exactly, and no spots are made up.
    let full = run(&SpotConfig {
        pixels_max: 7,
        ..config
    });
    assert_eq!((full.strong_pixels, full.found, full.spots.len()), (8, None, 0));
}

#[test]
fn impossible_settings_are_refused_by_name() {
    let (accelerator, _) = testing::cpu();
    let shape = Shape::new(40, 40);
    let refused = |config: SpotConfig| {
        SpotFinder::new(&accelerator, &config, shape, PixelType::U16, &PixelMask::none(shape), 1)
            .err()
            .map(|error| error.to_string())
    };
    let radius = SpotConfig {
        radius: 6,
        ..SpotConfig::default()
    };
    assert_eq!(refused(radius).as_deref(), Some("radius is 6; allowed: 1 to 5"));
    let count = SpotConfig {
        min_count: 50,
        ..SpotConfig::default()
    };
    let expected = "min_count is 50; allowed: 2 to the number of pixels in the box";
    assert_eq!(refused(count).as_deref(), Some(expected));
}
