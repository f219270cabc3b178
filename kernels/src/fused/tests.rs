use super::*;
use crate::testing;
use crate::{AzimuthalGeometry, AzimuthalIntegrator, ErrorModel, Region, Statistics};
use frame::codec::{Scratch, compress, compress_bound};
use rand::RngExt;

const SHAPE: Shape = Shape::new(211, 173);
const BINS: usize = 61;

/// A compressed frame, or pixels.
#[derive(Clone)]
struct Chunk(Arc<Vec<u8>>, bool);

impl Payload for Chunk {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn beneath(&self) -> Option<Beneath> {
        self.1.then_some(Beneath::Lz4)
    }
}

fn chunk(pixel_type: PixelType, values: &[f64]) -> Chunk {
    let raw = testing::bytes(pixel_type, values);
    let mut out = vec![0; compress_bound(raw.len(), pixel_type.bytes())];
    let used = compress(&raw, pixel_type.bytes(), &mut out, &mut Scratch::default()).unwrap();
    out.truncate(used);
    Chunk(Arc::new(out), true)
}

fn config(poisson: bool, saturation: Option<f64>, dummy: Option<f64>) -> FusedConfig {
    let map = |value: &dyn Fn(f64, f64) -> f64| {
        let at = |index: usize| {
            let (row, column) = (index / SHAPE.columns, index % SHAPE.columns);
            value(row as f64 - 90.3, column as f64 - 70.8)
        };
        (0..SHAPE.pixels()).map(at).collect::<Vec<f64>>()
    };
    let geometry = AzimuthalGeometry {
        radial: map(&|y, x| y.hypot(x) * 0.02),
        scale: 1.0,
        unit: "1/nm".into(),
        solid_angle: Some(map(&|y, x| 1.0 / (1.0 + 1e-5 * (y * y + x * x)).powf(1.5))),
        polarization: Some(map(&|y, x| 0.99 - 1e-5 * y * x)),
        ..Default::default()
    };
    let mut azimuthal = AzimuthalConfig::new(geometry, BINS);
    azimuthal.saturation = saturation;
    azimuthal.dummy = dummy;
    azimuthal.dark = Some((0..SHAPE.pixels()).map(|index| (index % 7) as f32 * 0.3).collect());
    if !poisson {
        azimuthal.error_model = ErrorModel::None;
    }
    let region = |name: &str, row, column, rows, columns| Region {
        name: name.into(),
        row,
        column,
        rows,
        columns,
    };
    FusedConfig {
        statistics: Some(StatisticsConfig {
            saturation,
            invalid: None,
            regions: vec![region("a", 3, 5, 40, 60), region("b", 200, 0, 11, 173)],
        }),
        azimuthal: Some(azimuthal),
    }
}

fn mask() -> PixelMask {
    let gap = |index: usize| (60..75).contains(&(index / SHAPE.columns)) || index.is_multiple_of(97);
    PixelMask::from_nonzero(SHAPE, (0..SHAPE.pixels()).map(gap)).unwrap()
}

/// Counts up to `most` with the largest value in the gaps and, where `wild`, everything that the type can hold.
fn frame(pixel_type: PixelType, seed: u64, most: u32, wild: bool) -> Vec<f64> {
    if wild {
        return testing::frame(pixel_type, SHAPE.pixels(), seed);
    }
    let (mut random, mask) = (testing::random(seed), mask());
    let pixel = |index: usize| match mask.rejects(index) {
        true => pixel_type.max_value(),
        false => f64::from(random.random_range(0..=most)),
    };
    (0..SHAPE.pixels()).map(pixel).collect()
}

/// Reduces the frames both ways and compares every bit.
fn compare(pixel_type: PixelType, config: &FusedConfig, frames: &[Vec<f64>], threads: usize) {
    let (accelerator, queue) = testing::cpu();
    let (mask, count) = (mask(), frames.len());
    let (statistics, azimuthal) = (config.statistics.as_ref().unwrap(), config.azimuthal.as_ref().unwrap());
    let mut integrator = AzimuthalIntegrator::new(&accelerator, azimuthal, SHAPE, pixel_type, &mask, count).unwrap();
    let mut counter = Statistics::new(&accelerator, statistics, SHAPE, pixel_type, &mask, count).unwrap();
    let mut stager = testing::staged(&accelerator, pixel_type, frames);
    let mut numbers = vec![FrameStatistics::default(); count];
    let mut curves = vec![[const { Vec::new() }; 3]; count];
    let batch = stager.finish(&queue).unwrap();
    counter.run(&queue, batch, &mut numbers).unwrap();
    let keep = |frame: usize, intensity: &[f32], sigma: &[f32], count: &[f32]| {
        curves[frame] = [intensity.to_vec(), sigma.to_vec(), count.to_vec()];
    };
    integrator.integrate_with(&queue, batch, keep).unwrap();

    let mut reducer = FusedReducer::new(config, SHAPE, pixel_type, &mask, threads).unwrap();
    assert_eq!(reducer.radial(), integrator.radial());
    for coded in [true, false] {
        let payload = |frame: &Vec<f64>| match coded {
            true => chunk(pixel_type, frame),
            false => Chunk(Arc::new(testing::bytes(pixel_type, frame)), false),
        };
        let payloads: Vec<Chunk> = frames.iter().map(payload).collect();
        let mut seen = 0;
        let put = |frame: usize, found: Result<FusedFrame<'_>, CodecError>| {
            let (found, what) = (
                found.unwrap(),
                format!("{pixel_type:?}, frame {frame} of {count}, {threads} threads"),
            );
            let same = |a: &[f32], b: &[f32]| a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()));
            assert!(same(found.count, &curves[frame][2]), "counts, {what}");
            assert!(same(found.intensity, &curves[frame][0]), "intensities, {what}");
            assert!(same(found.sigma, &curves[frame][1]), "sigmas, {what}");
            // NaN for a maximum of nothing is equal here.
            assert_eq!(
                format!("{:?}", found.statistics),
                format!("{:?}", numbers[frame]),
                "{what}"
            );
            assert_eq!(frame, seen);
            seen += 1;
        };
        reducer.run(&payloads, put).unwrap();
        assert_eq!(seen, count);
    }
}

const WHOLE: [PixelType; 5] = [
    PixelType::U8,
    PixelType::U16,
    PixelType::U32,
    PixelType::I16,
    PixelType::I32,
];

#[test]
fn the_kernels_results_bit_for_bit_for_every_kind_of_pixel() {
    for pixel_type in WHOLE {
        for (count, threads) in [(3, 2), (20, 3)] {
            let frames: Vec<Vec<f64>> = (0..count)
                .map(|seed| match seed % 4 {
                    0 => frame(pixel_type, seed, 3, false),
                    1 => frame(pixel_type, seed, 0, false),
                    2 => frame(
                        pixel_type,
                        seed,
                        if pixel_type == PixelType::U8 { 90 } else { 20_000 },
                        false,
                    ),
                    _ => frame(pixel_type, seed, 0, true),
                })
                .collect();
            compare(
                pixel_type,
                &config(true, Some(pixel_type.max_value()), None),
                &frames,
                threads,
            );
        }
    }
}

#[test]
fn saturation_dummies_and_no_errors_as_the_kernels_have_them() {
    for pixel_type in WHOLE {
        let frames: Vec<Vec<f64>> = (0..6).map(|seed| frame(pixel_type, seed, 60, seed % 2 == 0)).collect();
        compare(pixel_type, &config(true, Some(40.0), None), &frames, 2);
        compare(pixel_type, &config(false, None, Some(7.0)), &frames, 2);
        compare(pixel_type, &config(true, None, Some(-5.0)), &frames[..2], 2);
    }
}

#[test]
fn pixels_without_a_count_as_the_kernels_have_them() {
    for pixel_type in [PixelType::U8, PixelType::U16, PixelType::I32] {
        let frames: Vec<Vec<f64>> = (0..6).map(|seed| frame(pixel_type, seed, 60, seed % 2 == 0)).collect();
        // Above where pixels saturate; the largest value; and one that only signed pixels have.
        for (saturation, invalid) in [(Some(40.0), 55.0), (None, pixel_type.max_value()), (Some(40.0), -1.0)] {
            let mut config = config(true, saturation, None);
            config.statistics.as_mut().unwrap().invalid = Some(invalid);
            compare(pixel_type, &config, &frames, 2);
        }
    }
}

#[test]
fn sums_beyond_32_bits_are_exact() {
    let frames: Vec<Vec<f64>> = (0..5).map(|seed| frame(PixelType::U16, seed, 65_534, false)).collect();
    let mut config = config(true, None, None);
    config.azimuthal.as_mut().unwrap().bins = 1;
    compare(PixelType::U16, &config, &frames, 1);
}

#[test]
fn a_broken_chunk_says_so_and_its_neighbours_are_right() {
    let frames: Vec<Vec<f64>> = (0..6).map(|seed| frame(PixelType::U16, seed, 9, false)).collect();
    let mut payloads: Vec<Chunk> = frames.iter().map(|frame| chunk(PixelType::U16, frame)).collect();
    let bytes = payloads[2].0.len();
    payloads[2] = Chunk(Arc::new(payloads[2].0[..bytes - 5].to_vec()), true);
    let mut longer = payloads[4].0.to_vec();
    longer.push(0);
    payloads[4] = Chunk(Arc::new(longer), true);
    let config = config(true, Some(65535.0), None);
    let mut reducer = FusedReducer::new(&config, SHAPE, PixelType::U16, &mask(), 2).unwrap();
    let mut whole = Vec::new();
    reducer
        .run(&payloads, |frame, found| whole.push((frame, found.is_ok())))
        .unwrap();
    assert_eq!(
        whole,
        [(0, true), (1, true), (2, false), (3, true), (4, false), (5, true)]
    );
    let mut alone = Vec::new();
    reducer
        .run(&payloads[3..4], |_, found| alone.push(found.unwrap().statistics))
        .unwrap();
    let mut among = Vec::new();
    reducer
        .run(&payloads, |frame, found| {
            if frame == 3 {
                among.push(found.unwrap().statistics);
            }
        })
        .unwrap();
    // NaN for a maximum of nothing is equal here.
    assert_eq!(format!("{alone:?}"), format!("{among:?}"));
}
