use super::*;
use crate::{Stager, testing};
use rand::RngExt;

const SHAPE: Shape = Shape::new(211, 173);
const BINS: usize = 61;

fn geometry() -> AzimuthalGeometry {
    let map = |value: &dyn Fn(f64, f64) -> f64| {
        (0..SHAPE.pixels())
            .map(|index| {
                value(
                    (index / SHAPE.columns) as f64 - 90.3,
                    (index % SHAPE.columns) as f64 - 70.8,
                )
            })
            .collect::<Vec<f64>>()
    };
    AzimuthalGeometry {
        radial: map(&|y, x| y.hypot(x) * 0.02),
        scale: 1.0,
        unit: "1/nm".into(),
        solid_angle: Some(map(&|y, x| 1.0 / (1.0 + 1e-5 * (y * y + x * x)).powf(1.5))),
        polarization: Some(map(&|y, x| 0.99 - 1e-5 * y * x)),
        ..Default::default()
    }
}

fn mask() -> PixelMask {
    let gap = |index: usize| (60..75).contains(&(index / SHAPE.columns)) || index.is_multiple_of(97);
    PixelMask::from_nonzero(SHAPE, (0..SHAPE.pixels()).map(gap)).unwrap()
}

fn rejected(mask: &PixelMask) -> Vec<bool> {
    (0..SHAPE.pixels()).map(|index| mask.rejects(index)).collect()
}

/// One set of curves per frame.
struct Curves(Vec<[Vec<f32>; 3]>);

fn integrate(integrator: &mut AzimuthalIntegrator, queue: &Queue, stager: &mut Stager) -> Curves {
    let batch = stager.finish(queue).unwrap();
    let bins = integrator.bins();
    let mut curves = Curves(
        (0..batch.frames())
            .map(|_| [(); 3].map(|()| vec![f32::NAN; bins]))
            .collect(),
    );
    let mut outputs: Vec<AzimuthalOutput<'_>> = curves
        .0
        .iter_mut()
        .map(|[intensity, sigma, count]| AzimuthalOutput {
            intensity,
            sigma,
            count,
        })
        .collect();
    integrator.integrate(queue, batch, &mut outputs).unwrap();
    curves
}

fn agree(found: &[Vec<f32>; 3], expected: &reference::AzimuthalCurve, scale: f64, what: &str) {
    for (bin, count) in expected.count.iter().enumerate() {
        assert_eq!(found[2][bin], *count as f32, "{what}: count of bin {bin}");
        let (intensity, sigma) = (f64::from(found[0][bin]), f64::from(found[1][bin]));
        // Where positive and negative pixels cancel, the bar is relative to their size.
        let bar = 1e-6 * (expected.intensity[bin].abs() + scale);
        assert!(
            (intensity - expected.intensity[bin]).abs() <= bar,
            "{what}: intensity of bin {bin}: {intensity}, not {}",
            expected.intensity[bin]
        );
        let bar = 1e-6 * expected.sigma[bin].abs();
        assert!(
            (sigma - expected.sigma[bin]).abs() <= bar,
            "{what}: sigma of bin {bin}: {sigma}, not {}",
            expected.sigma[bin]
        );
    }
}

/// Saturation and dummy that leave out some of what `testing::frame` makes.
fn leave_out(config: &mut AzimuthalConfig, pixel_type: PixelType) {
    config.saturation = Some(if pixel_type == PixelType::F32 {
        2e9
    } else {
        pixel_type.max_value() - 1.0
    });
    config.dummy = Some(if matches!(pixel_type, PixelType::I16 | PixelType::I32) {
        -3.5
    } else {
        3.5
    });
    config.delta_dummy = Some(1.0);
}

#[test]
fn agrees_with_the_reference_for_every_pixel_type() {
    let (accelerator, queue) = testing::cpu();
    let mask = mask();
    let mut random = testing::random(3);
    let pixels = SHAPE.pixels();
    let dark: Vec<f32> = (0..pixels).map(|_| random.random_range(0.0..2.0)).collect();
    let flat: Vec<f32> = (0..pixels).map(|_| random.random_range(0.8..1.2)).collect();
    for pixel_type in PixelType::ALL {
        for fields in [false, true] {
            let mut config = AzimuthalConfig::new(geometry(), BINS);
            leave_out(&mut config, pixel_type);
            config.normalization_factor = 3.0;
            if fields {
                (config.dark, config.flat) = (Some(dark.clone()), Some(flat.clone()));
            }
            // 18 frames: 16 in lanes, 2 alone.
            let frames: Vec<Vec<f64>> = (0..18).map(|seed| testing::frame(pixel_type, pixels, seed)).collect();
            let mut stager = testing::staged(&accelerator, pixel_type, &frames);
            let mut integrator = AzimuthalIntegrator::new(&accelerator, &config, SHAPE, pixel_type, &mask, 18).unwrap();
            let curves = integrate(&mut integrator, &queue, &mut stager);
            let bins = Lookup::new(&config, SHAPE, pixel_type, &mask).unwrap().bins;
            for (number, raw) in frames.iter().enumerate() {
                let expected = reference::azimuthal(&config, &bins, pixel_type, raw, &rejected(&mask));
                let scale = match pixel_type {
                    PixelType::I16 => 300.0,
                    PixelType::I32 => 2e7,
                    _ => 1.0,
                };
                agree(
                    &curves.0[number],
                    &expected,
                    scale,
                    &format!("{pixel_type:?} fields {fields} frame {number}"),
                );
            }
        }
    }
}

#[test]
fn repeats_bit_for_bit_alone_and_in_a_batch() {
    let (accelerator, queue) = testing::cpu();
    for pixel_type in [PixelType::U16, PixelType::F32] {
        let mut config = AzimuthalConfig::new(geometry(), BINS);
        leave_out(&mut config, pixel_type);
        let frames: Vec<Vec<f64>> = (0..7)
            .map(|seed| testing::frame(pixel_type, SHAPE.pixels(), seed))
            .collect();
        let mut integrator = AzimuthalIntegrator::new(&accelerator, &config, SHAPE, pixel_type, &mask(), 7).unwrap();
        let together = integrate(
            &mut integrator,
            &queue,
            &mut testing::staged(&accelerator, pixel_type, &frames),
        );
        for (number, frame) in frames.iter().enumerate() {
            let mut stager = testing::staged(&accelerator, pixel_type, std::slice::from_ref(frame));
            let alone = integrate(&mut integrator, &queue, &mut stager);
            for curve in 0..3 {
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(&alone.0[0][curve]),
                    bits(&together.0[number][curve]),
                    "{pixel_type:?} frame {number}"
                );
            }
        }
    }
}

#[test]
fn saturation_leaves_the_normalisation() {
    let (accelerator, queue) = testing::cpu();
    let mut config = AzimuthalConfig::new(geometry(), BINS);
    config.saturation = Some(1000.0);
    // Every pixel sees the same: the curve must stay flat wherever pixels are left out.
    let norm = |index: usize| config.norm(index);
    let mut raw: Vec<f64> = (0..SHAPE.pixels()).map(|index| (800.0 * norm(index)).round()).collect();
    for index in (0..raw.len()).step_by(5) {
        raw[index] = 65535.0;
    }
    let mask = PixelMask::none(SHAPE);
    let mut integrator = AzimuthalIntegrator::new(&accelerator, &config, SHAPE, PixelType::U16, &mask, 1).unwrap();
    let curves = integrate(
        &mut integrator,
        &queue,
        &mut testing::staged(&accelerator, PixelType::U16, &[raw]),
    );
    assert!(
        curves.0[0][0].iter().all(|intensity| (intensity - 800.0).abs() < 1.0),
        "{:?}",
        curves.0[0][0]
    );
}

#[test]
fn empty_bins_and_frames_hold_the_empty_value() {
    let (accelerator, queue) = testing::cpu();
    let everything = PixelMask::from_nonzero(SHAPE, (0..SHAPE.pixels()).map(|_| true)).unwrap();
    let raw = vec![vec![f64::NAN; SHAPE.pixels()]; 6];
    for (mask, bins) in [(everything, 10), (PixelMask::none(SHAPE), 2500)] {
        let mut config = AzimuthalConfig::new(geometry(), bins);
        config.empty = -1.0;
        let mut integrator = AzimuthalIntegrator::new(&accelerator, &config, SHAPE, PixelType::F32, &mask, 6).unwrap();
        let curves = integrate(
            &mut integrator,
            &queue,
            &mut testing::staged(&accelerator, PixelType::F32, &raw),
        );
        for [intensity, sigma, count] in &curves.0 {
            assert!(intensity.iter().chain(sigma).all(|value| *value == -1.0));
            assert!(count.iter().all(|count| *count == 0.0));
        }
    }
}

#[test]
fn few_bins_and_bright_pixels_do_not_overflow() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(500, 500);
    let geometry = AzimuthalGeometry {
        radial: vec![0.5; shape.pixels()],
        scale: 1.0,
        unit: "1/nm".into(),
        ..Default::default()
    };
    let mut config = AzimuthalConfig::new(geometry, 2);
    config.radial_range = Some((0.0, 1.0));
    for pixel_type in [PixelType::U16, PixelType::U32, PixelType::I32] {
        let raw = vec![vec![pixel_type.max_value(); shape.pixels()]; 6];
        let mask = PixelMask::none(shape);
        let mut integrator = AzimuthalIntegrator::new(&accelerator, &config, shape, pixel_type, &mask, 6).unwrap();
        let curves = integrate(
            &mut integrator,
            &queue,
            &mut testing::staged(&accelerator, pixel_type, &raw),
        );
        for [intensity, ..] in &curves.0 {
            let filled = intensity.iter().copied().fold(0.0, f32::max);
            assert_eq!(filled, pixel_type.max_value() as f32, "{pixel_type:?} {intensity:?}");
        }
    }
}

#[test]
fn small_floats_beside_large_ones_are_not_lost() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(64, 1024);
    let geometry = AzimuthalGeometry {
        radial: vec![0.5; shape.pixels()],
        scale: 1.0,
        unit: "1/nm".into(),
        ..Default::default()
    };
    let mut config = AzimuthalConfig::new(geometry, 1);
    config.radial_range = Some((0.0, 1.0));
    // In single precision a sum of 2^26 swallows every 1 that is added to it.
    let mut raw = vec![1.0; shape.pixels()];
    raw[0] = 67_108_864.0;
    let mask = PixelMask::none(shape);
    let mut integrator = AzimuthalIntegrator::new(&accelerator, &config, shape, PixelType::F32, &mask, 6).unwrap();
    for frames in [1, 6] {
        let mut stager = testing::staged(&accelerator, PixelType::F32, &vec![raw.clone(); frames]);
        let curves = integrate(&mut integrator, &queue, &mut stager);
        let expected = raw.iter().sum::<f64>() / raw.len() as f64;
        for [intensity, sigma, _] in &curves.0 {
            assert!(
                (f64::from(intensity[0]) / expected - 1.0).abs() < 1e-7,
                "{intensity:?}, not {expected}"
            );
            let expected = raw.iter().sum::<f64>().sqrt() / raw.len() as f64;
            assert!(
                (f64::from(sigma[0]) / expected - 1.0).abs() < 2e-7,
                "{sigma:?}, not {expected}"
            );
        }
    }
}

#[test]
fn wrong_configurations_are_refused_by_name() {
    let (accelerator, _) = testing::cpu();
    let mask = PixelMask::none(SHAPE);
    let refused = |config: &AzimuthalConfig, mask: &PixelMask| {
        AzimuthalIntegrator::new(&accelerator, config, SHAPE, PixelType::U16, mask, 1)
            .err()
            .unwrap()
            .to_string()
    };
    let config = AzimuthalConfig::new(geometry(), 0);
    assert_eq!(refused(&config, &mask), "bins is 0; allowed: 1 to 65535");
    let mut config = AzimuthalConfig::new(geometry(), 10);
    config.radial_range = Some((3.0, 3.0));
    assert_eq!(
        refused(&config, &mask),
        "radial_range is 3 to 3; allowed: two finite numbers, low < high"
    );
    let config = AzimuthalConfig::new(geometry(), 10);
    let other = PixelMask::none(Shape::new(3, 4));
    assert_eq!(
        refused(&config, &other),
        "the mask's shape is 3x4, the operation was prepared for 211x173"
    );
}

/// What splitting pixels gives, in f64: intensity, sigma and count of each bin.
fn split(config: &AzimuthalConfig, matrix: &matrix::Matrix, pixel_type: PixelType, raw: &[f64]) -> Vec<[f64; 3]> {
    let bin = |bounds: &[u32]| {
        let (mut signal, mut variance, mut norm, mut count) = (0.0, 0.0, 0.0, 0.0);
        for entry in bounds[0] as usize..bounds[1] as usize {
            let (pixel, share) = (matrix.pixel[entry] as usize, f64::from(matrix.weight[entry]));
            if reference::left_out(config, pixel_type, raw[pixel]) {
                continue;
            }
            let dark = config.dark.as_ref().map_or(0.0, |dark| f64::from(dark[pixel]));
            signal += share * (raw[pixel] - dark);
            variance += share * share * raw[pixel].max(1.0);
            norm += share * config.norm(pixel);
            count += share;
        }
        let norm = norm * config.normalization_factor;
        if count == 0.0 {
            return [f64::from(config.empty), f64::from(config.empty), 0.0];
        }
        [signal / norm, f64::sqrt(variance) / norm, count]
    };
    matrix.starts.windows(2).map(bin).collect()
}

#[test]
fn shares_in_the_order_of_pixels_agree_with_double_precision_for_every_pixel_type() {
    let (accelerator, queue) = testing::cpu();
    let pixels = SHAPE.pixels();
    let mut random = testing::random(5);
    let dark: Vec<f32> = (0..pixels).map(|_| random.random_range(0.0..2.0)).collect();
    let flat: Vec<f32> = (0..pixels).map(|_| random.random_range(0.8..1.2)).collect();
    let (mask, vertex) = (mask(), |row: usize, column: usize| {
        let (y, x) = (row as f64 - 90.8, column as f64 - 71.3);
        [y.hypot(x) * 0.02, y.atan2(x)]
    });
    let corners = frame::geometry::Corners {
        points: (0..=SHAPE.rows)
            .flat_map(|row| (0..=SHAPE.columns).map(move |column| vertex(row, column)))
            .collect(),
        grid_columns: Some(SHAPE.columns),
        mirrored: false,
    };
    let chi = |index: usize| {
        let (row, column) = (index / SHAPE.columns, index % SHAPE.columns);
        f64::atan2(row as f64 - 90.3, column as f64 - 70.8)
    };
    let geometry = AzimuthalGeometry {
        chi: Some((0..pixels).map(chi).collect()),
        corners: Some(corners),
        ..geometry()
    };
    for pixel_type in PixelType::ALL.into_iter().filter(|it| *it != PixelType::F32) {
        for (splitting, around, excluding, fields) in [
            (Splitting::Bbox, None, false, false),
            (Splitting::Full, None, true, false),
            (Splitting::Bbox, Some(7), true, true),
        ] {
            let mut config = AzimuthalConfig::new(geometry.clone(), BINS);
            (config.splitting, config.azimuthal_bins, config.normalization_factor) = (splitting, around, 3.0);
            if excluding {
                leave_out(&mut config, pixel_type);
            }
            if fields {
                (config.dark, config.flat) = (Some(dark.clone()), Some(flat.clone()));
            }
            let seen = lookup::Fields::new(&config, pixels);
            let matrix = matrix::Matrix::new(&config, &mask, |pixel| {
                lookup::usable(seen.norm[pixel], seen.dark[pixel])
            });
            let matrix = matrix.unwrap();
            // 17 frames: sixteen at once, and one.
            let frames: Vec<Vec<f64>> = (0..17).map(|seed| testing::frame(pixel_type, pixels, seed)).collect();
            let mut stager = testing::staged(&accelerator, pixel_type, &frames);
            let batch = stager.finish(&queue).unwrap();
            let made = spread::Spread::new(&accelerator, &config, &seen, &matrix, SHAPE, pixel_type, 17);
            let mut spread = made.unwrap().expect("a CPU goes by the order of pixels");
            let bins = matrix.starts.len() - 1;
            let put = |frame: usize, intensity: &[f32], sigma: &[f32], count: &[f32]| {
                let expected = split(&config, &matrix, pixel_type, &frames[frame]);
                assert_eq!(expected.len(), bins);
                for (bin, [expected_i, expected_s, expected_n]) in expected.into_iter().enumerate() {
                    let what = format!("{pixel_type:?} {splitting:?} {around:?} {excluding} frame {frame} bin {bin}");
                    let off = |found: f32, expected: f64| (f64::from(found) - expected).abs();
                    assert!(
                        off(count[bin], expected_n) <= 1e-6 * expected_n + 1e-6,
                        "{what}: {} {expected_n}",
                        count[bin]
                    );
                    if expected_n > 1.0 {
                        // A share is rounded to 2^-31, which a pixel of 2^32 makes 2 counts.
                        let bar = if pixel_type.bytes() == 4 { 1e-5 } else { 1e-6 } * (expected_i.abs() + expected_s);
                        assert!(
                            off(intensity[bin], expected_i) <= bar,
                            "{what}: {} {expected_i}",
                            intensity[bin]
                        );
                        assert!(
                            off(sigma[bin], expected_s) <= 1e-6 * expected_s,
                            "{what}: {} {expected_s}",
                            sigma[bin]
                        );
                    }
                }
            };
            spread.integrate_with(&queue, batch, put).unwrap();
        }
    }
}
