use super::*;
use crate::countrate::{CountRate, CountRateConfig, DeadTime};
use crate::gain::{AdaptiveGain, GainConfig, Tracking};
use crate::testing;
use crate::{AcceleratorConfig, AzimuthalIntegrator};
use std::path::Path;

fn open(cache_dir: &Path) -> Accelerator {
    let config = AcceleratorConfig {
        device: "cpu".into(),
        cache_dir: Some(cache_dir.into()),
        ..Default::default()
    };
    Accelerator::open(&config).unwrap()
}

/// A fresh folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("fluxline-tuning-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

#[test]
fn what_is_measured_once_is_read_at_the_next_start_and_nothing_damaged_or_foreign_is() {
    let folder = folder("cache");
    // As much time as it takes: this machine may be busy.
    let (long, none) = (Duration::from_secs(600), Duration::ZERO);
    let (accelerator, first) = open(&folder).tuned_within(long);
    assert_eq!(
        (first.origin, first.measured.len()),
        (TuningOrigin::Measured, 3),
        "{first:?}"
    );
    assert!(
        first.remarks.is_empty() && accelerator.tuning() == first.tuning,
        "{first:?}"
    );
    // With no time to measure anything, so it was read.
    let (accelerator, second) = open(&folder).tuned_within(none);
    assert_eq!((second.origin, second.tuning), (TuningOrigin::Cached, first.tuning));
    assert!(
        second.remarks.is_empty() && accelerator.tuning() == first.tuning,
        "{second:?}"
    );

    let path = path(&accelerator).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    let usual = Tuning::usual(DeviceKind::Cpu);
    let tile = format!("\"tile_pixels\": {}", first.tuning.tile_pixels);
    let driver = accelerator.info().driver.clone();
    let sum = programs(&accelerator);
    for (damaged, word) in [
        (good[..good.len() / 2].to_string(), "damaged"),
        (String::new(), "damaged"),
        (good.replace(&tile, "\"tile_pixels\": 7"), "its tile_pixels is 7"),
        (good.replace(&driver, "0.9"), "another driver"),
        (good.replace(&sum, "feed"), "another set of programs"),
        (good.replace(&accelerator.info().name, "abacus"), "another device"),
    ] {
        assert_ne!(damaged, good, "{word}");
        std::fs::write(&path, &damaged).unwrap();
        let (accelerator, tuned) = open(&folder).tuned_within(none);
        let remarks = tuned.remarks.join("; ");
        assert!(
            remarks.contains(word) && remarks.contains("is not used"),
            "{word}: {remarks}"
        );
        assert_eq!((tuned.origin, tuned.tuning), (TuningOrigin::Usual, usual));
        assert_eq!(accelerator.tuning(), usual);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            damaged,
            "nothing was measured, so nothing is kept"
        );
    }
    // What there was no time for is measured later, and what there was is kept.
    let mut partly: serde_json::Value = serde_json::from_str(&good).unwrap();
    partly["measured"]
        .as_array_mut()
        .unwrap()
        .retain(|name| name == "tile_pixels");
    std::fs::write(&path, partly.to_string()).unwrap();
    let (_, short) = open(&folder).tuned_within(none);
    assert_eq!(short.tuning.tile_pixels, first.tuning.tile_pixels);
    let remarks = short.remarks.join("; ");
    assert!(
        remarks.contains("no time to measure statistics_tile_pixels, histogram_chunks"),
        "{remarks}"
    );
    let (_, whole) = open(&folder).tuned_within(long);
    assert_eq!(
        (whole.origin, whole.measured.len()),
        (TuningOrigin::Measured, 3),
        "{whole:?}"
    );
    assert_eq!(whole.tuning.tile_pixels, first.tuning.tile_pixels);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Everything that an operation says of a batch, as bits.
fn bits(
    accelerator: &Accelerator,
    queue: &Queue,
    pixel_type: PixelType,
    frames: &[Vec<f64>],
    shape: Shape,
) -> Vec<u64> {
    let (mask, count) = (PixelMask::none(shape), frames.len());
    let mut stager = testing::staged(accelerator, pixel_type, frames);
    let batch = stager.finish(queue).unwrap();
    let mut bits = Vec::new();
    let config = CorrectionConfig {
        dark: Some((0..shape.pixels()).map(|pixel| (pixel % 3) as f32 * 0.3).collect()),
        ..Default::default()
    };
    let mut correction = Correction::new(accelerator, &config, shape, pixel_type, &mask, count).unwrap();
    let corrected = correction.run(queue, batch).unwrap();
    bits.extend(corrected.invalid().iter().map(|invalid| u64::from(*invalid)));
    bits.extend(
        corrected
            .map(queue)
            .unwrap()
            .iter()
            .map(|value| u64::from(value.to_bits())),
    );
    let statistics = StatisticsConfig::default();
    let mut statistics = Statistics::new(accelerator, &statistics, shape, pixel_type, &mask, count).unwrap();
    let mut found = vec![FrameStatistics::default(); count];
    statistics.run(queue, batch, &mut found).unwrap();
    for found in &found {
        let frame = found.frame;
        bits.extend([frame.sum.to_bits(), frame.max.to_bits(), frame.saturated, frame.valid]);
    }
    let geometry = AzimuthalGeometry {
        radial: (0..shape.pixels())
            .map(|pixel| {
                f64::hypot(
                    (pixel / shape.columns) as f64 - 90.2,
                    (pixel % shape.columns) as f64 - 150.7,
                )
            })
            .collect(),
        scale: 1.0,
        unit: "px".into(),
        ..Default::default()
    };
    for model in [ErrorModel::Poisson, ErrorModel::Azimuthal] {
        let mut config = AzimuthalConfig::new(geometry.clone(), 100);
        config.error_model = model;
        let mut curve = AzimuthalEngine::new(accelerator, &config, shape, pixel_type, &mask, count).unwrap();
        let mut put = |_: usize, intensity: &[f32], sigma: &[f32], count: &[f32]| {
            let all = intensity.iter().chain(sigma).chain(count);
            bits.extend(all.map(|value| u64::from(value.to_bits())));
        };
        curve.integrate_with(queue, batch, &mut put).unwrap();
    }
    let config = CountRateConfig {
        dead_time: DeadTime::NonParalyzable { seconds: 2e-7 },
        exposure_s: 1e-3,
        saturation: None,
        invalid: None,
    };
    let mut rate = CountRate::new(accelerator, &config, shape, pixel_type, &mask, count).unwrap();
    rate.run(queue, batch).unwrap();
    bits.extend(rate.saturated().iter().map(|saturated| u64::from(*saturated)));
    let mut bytes = vec![0; rate.output().frame_bytes()];
    rate.output().read_frame(queue, count - 1, &mut bytes).unwrap();
    bits.extend(bytes.iter().map(|byte| u64::from(*byte)));
    if pixel_type == PixelType::U16 {
        let config = GainConfig {
            pedestals: [
                vec![20.0; shape.pixels()],
                vec![15000.0; shape.pixels()],
                vec![15500.0; shape.pixels()],
            ],
            gains: [41.0, -1.4, -0.1].map(|gain| vec![gain; shape.pixels()]),
            energy_kev: 12.4,
            output: PixelType::F32,
            round: false,
            split: false,
            track: Some(Tracking {
                window: 10,
                within_photons: 0.2,
            }),
        };
        let mut gain = AdaptiveGain::new(accelerator, &config, shape, count).unwrap();
        gain.run(queue, batch, false).unwrap();
        let mut bytes = vec![0; gain.output().frame_bytes()];
        gain.output().read_frame(queue, count - 1, &mut bytes).unwrap();
        bits.extend(bytes.iter().map(|byte| u64::from(*byte)));
    }
    bits
}

#[test]
fn results_have_the_same_bits_whatever_was_chosen() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(190, 311);
    for pixel_type in [PixelType::U16, PixelType::I32] {
        let frames: Vec<Vec<f64>> = (0..9)
            .map(|seed| testing::frame(pixel_type, shape.pixels(), seed))
            .collect();
        let usual = bits(&accelerator, &queue, pixel_type, &frames, shape);
        for parameter in PARAMETERS {
            // Those of other kinds of devices, too.
            let values = [DeviceKind::Cpu, DeviceKind::Gpu].map(|kind| parameter.values(kind));
            for value in values.into_iter().flatten() {
                let mut tuning = accelerator.tuning();
                *parameter.of(&mut tuning) = *value;
                let found = bits(&accelerator.with_tuning(tuning), &queue, pixel_type, &frames, shape);
                let same = found == usual;
                assert!(same, "{} = {value}, {pixel_type:?}", parameter.name());
            }
        }
    }
}

#[test]
fn floats_agree_within_their_bars_whatever_was_chosen() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(190, 311);
    let pixels = shape.pixels();
    let mut random = testing::random(3);
    let values: Vec<f64> = (0..pixels)
        .map(|_| f64::from(rand::RngExt::random_range(&mut random, 0.0f32..1e4)))
        .collect();
    let total: f64 = values.iter().sum();
    let mut stager = testing::staged(&accelerator, PixelType::F32, &[values]);
    let batch = stager.finish(&queue).unwrap();
    let geometry = AzimuthalGeometry {
        radial: (0..pixels).map(|pixel| (pixel / shape.columns) as f64).collect(),
        scale: 1.0,
        unit: "px".into(),
        ..Default::default()
    };
    let mut curves: Vec<Vec<f32>> = Vec::new();
    for kind in [DeviceKind::Cpu, DeviceKind::Gpu] {
        for (statistics_tile_pixels, histogram_chunks) in StatisticsTile
            .values(kind)
            .iter()
            .flat_map(|tile| Histogram.values(kind).iter().map(move |chunks| (*tile, *chunks)))
        {
            let tuning = Tuning {
                statistics_tile_pixels,
                histogram_chunks,
                ..accelerator.tuning()
            };
            let device = accelerator.with_tuning(tuning);
            let mask = PixelMask::none(shape);
            let config = StatisticsConfig::default();
            let mut statistics = Statistics::new(&device, &config, shape, PixelType::F32, &mask, 1).unwrap();
            let mut found = [FrameStatistics::default()];
            statistics.run(&queue, batch, &mut found).unwrap();
            assert!(
                (found[0].frame.sum / total - 1.0).abs() < 1e-7,
                "{tuning:?}: {}",
                found[0].frame.sum
            );
            let config = AzimuthalConfig::new(geometry.clone(), 60);
            let mut curve = AzimuthalIntegrator::new(&device, &config, shape, PixelType::F32, &mask, 1).unwrap();
            let mut kept = Vec::new();
            let put = |_: usize, intensity: &[f32], _: &[f32], _: &[f32]| kept.extend_from_slice(intensity);
            curve.integrate_with(&queue, batch, put).unwrap();
            curves.push(kept);
        }
    }
    for curve in &curves {
        for (found, first) in curve.iter().zip(&curves[0]) {
            assert!((found / first - 1.0).abs() < 1e-6, "{found}, {first}");
        }
    }
}
