use super::reference::Photons;
use super::*;
use crate::testing;
use rand::RngExt;

/// Typical pedestals and gains, ADU and ADU/keV.
const PEDESTALS: [f32; 3] = [2500.0, 15100.0, 15600.0];
const GAINS_ADU_PER_KEV: [f64; 3] = [41.0, -1.439, -0.1145];
const ENERGIES_KEV: [f64; 6] = [4.0, 6.5, 8.0, 12.4, 17.5, 25.0];

/// Every word once, whatever it is.
fn every_word() -> (Shape, Vec<f64>) {
    (Shape::new(64, 1024), (0..=u16::MAX).map(f64::from).collect())
}

fn config(pixels: usize, scale: f64, energy_kev: f64, output: PixelType) -> GainConfig {
    let mut random = testing::random(5);
    let mut around = |value: f32| {
        (0..pixels)
            .map(|_| value + random.random_range(-80.0f32..80.0))
            .collect()
    };
    GainConfig {
        pedestals: PEDESTALS.map(&mut around),
        gains: GAINS_ADU_PER_KEV.map(|gain| vec![gain * scale; pixels]),
        energy_kev,
        output,
        round: false,
        split: false,
        track: None,
    }
}

fn bytes_of(gain: &AdaptiveGain, queue: &Queue, frame: usize) -> Vec<u8> {
    let mut bytes = vec![0; gain.output().frame_bytes()];
    gain.output().read_frame(queue, frame, &mut bytes).unwrap();
    bytes
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|v| f32::from_le_bytes(*v))
        .collect()
}

fn of(config: &GainConfig, pixel: usize, word: u16) -> Photons {
    let pedestals = [0, 1, 2].map(|gain| f64::from(config.pedestals[gain][pixel]));
    let gains = [0, 1, 2].map(|gain| config.gains[gain][pixel]);
    reference::photons(word, pedestals, gains, config.energy_kev)
}

#[test]
fn every_word_at_three_gains_and_six_energies_agrees_with_float64() {
    let (accelerator, queue) = testing::cpu();
    let (shape, words) = every_word();
    let mut stager = testing::staged(&accelerator, PixelType::U16, std::slice::from_ref(&words));
    let batch = stager.finish(&queue).unwrap();
    let (mut worst, mut apart, mut numbers) = (0f64, 0u32, 0u32);
    for scale in [0.85, 1.0, 1.15] {
        for energy_kev in ENERGIES_KEV {
            let mut config = config(shape.pixels(), scale, energy_kev, PixelType::F32);
            let mut gain = AdaptiveGain::new(&accelerator, &config, shape, 1).unwrap();
            gain.run(&queue, batch, false).unwrap();
            let mut expected = GainCounts::default();
            for (pixel, found) in floats(&bytes_of(&gain, &queue, 0)).into_iter().enumerate() {
                let word = pixel as u16;
                match of(&config, pixel, word) {
                    Photons::Error => assert!(found.is_nan(), "{word:#x} at {energy_kev} keV: {found}"),
                    Photons::Saturated => assert_eq!(found, f32::MAX, "{word:#x} at {energy_kev} keV"),
                    Photons::Number(photons) => worst = worst.max((f64::from(found) - photons).abs()),
                }
                expected.wrong += u32::from(of(&config, pixel, word) == Photons::Error);
                expected.saturated += u32::from(of(&config, pixel, word) == Photons::Saturated);
                expected.gain1 += u32::from(word >> 14 == 1);
                expected.gain2 += u32::from(word >> 14 == 3);
            }
            assert_eq!(gain.counts(), [expected]);

            // As Jungfraujoch writes them: INT16_MIN for errors, INT16_MAX for what is saturated or too much.
            config.output = PixelType::I16;
            let mut gain = AdaptiveGain::new(&accelerator, &config, shape, 1).unwrap();
            gain.run(&queue, batch, false).unwrap();
            for (pixel, bytes) in bytes_of(&gain, &queue, 0).as_chunks::<2>().0.iter().enumerate() {
                let found = i16::from_le_bytes(*bytes);
                let photons = of(&config, pixel, pixel as u16);
                match reference::whole(photons, -32767.0, 32767.0) {
                    Photons::Error => assert_eq!(found, i16::MIN, "{pixel:#x}"),
                    // Half a photon from the end the last bit decides.
                    Photons::Saturated => assert!(found >= i16::MAX - 1, "{pixel:#x}: {found}, not {photons:?}"),
                    Photons::Number(photons) => {
                        numbers += 1;
                        apart += u32::from(f64::from(found) != photons);
                        assert!(
                            (f64::from(found) - photons).abs() <= 1.0,
                            "{pixel:#x}: {found}, not {photons}"
                        );
                    }
                }
            }
        }
    }
    let share = f64::from(apart) / f64::from(numbers);
    println!(
        "{worst:.2e} photons at most before rounding; {:.4} % of {numbers} apart after it",
        share * 100.0
    );
    assert!(worst <= 0.01, "{worst}");
    assert!(share <= 2e-4, "{apart} of {numbers}");
}

#[test]
fn whole_photons_round_halves_away_from_zero_in_every_type() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(1, 18);
    let mut config = config(shape.pixels(), 1.0, 10.0, PixelType::I32);
    config.pedestals = [vec![1000.0; 18], vec![1000.0; 18], vec![16000.0; 18]];
    config.gains = [vec![1.0; 18], vec![-0.01; 18], vec![-0.0001; 18]];
    let mut words = vec![1000.0; 18];
    for (place, adu) in [1005.0, 1004.0, 995.0, 985.0, 996.0, 1015.0].into_iter().enumerate() {
        words[place] = adu;
    }
    words[16] = f64::from(0xC000 | 100u16);
    words[17] = f64::from(0xFFFFu16);
    let mut stager = testing::staged(&accelerator, PixelType::U16, &[words.clone(), words]);
    let batch = stager.finish(&queue).unwrap();
    let mut gain = AdaptiveGain::new(&accelerator, &config, shape, 2).unwrap();
    gain.run(&queue, batch, false).unwrap();
    let found: Vec<i32> = bytes_of(&gain, &queue, 1)
        .as_chunks::<4>()
        .0
        .iter()
        .map(|v| i32::from_le_bytes(*v))
        .collect();
    assert_eq!(&found[..6], [1, 0, -1, -2, 0, 2]);
    assert_eq!((found[16], found[17]), (15_900_000, i32::MIN));
    config.output = PixelType::I16;
    let mut gain = AdaptiveGain::new(&accelerator, &config, shape, 2).unwrap();
    gain.run(&queue, batch, false).unwrap();
    assert_eq!(bytes_of(&gain, &queue, 0)[32..], [0xFF, 0x7F, 0x00, 0x80]);
    assert_eq!((gain.counts()[0].saturated, gain.counts()[0].wrong), (1, 1));
    (config.output, config.round) = (PixelType::F32, true);
    let mut gain = AdaptiveGain::new(&accelerator, &config, shape, 2).unwrap();
    gain.run(&queue, batch, false).unwrap();
    assert_eq!(
        floats(&bytes_of(&gain, &queue, 0))[..6],
        [1.0, 0.0, -1.0, -2.0, 0.0, 2.0]
    );
}

#[test]
fn pixels_without_a_calibration_are_masked_or_in_error_and_never_a_number() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(3, 37);
    let mut config = config(shape.pixels(), 1.0, 12.4, PixelType::F32);
    (config.gains[0][3], config.gains[0][4], config.pedestals[0][5]) = (0.0, f64::NAN, f32::NAN);
    (config.pedestals[0][6], config.gains[1][7], config.pedestals[2][8]) = (16383.5, 0.0, f32::INFINITY);
    let mut gain = AdaptiveGain::new(&accelerator, &config, shape, 3).unwrap();
    let masked: Vec<usize> = (0..shape.pixels())
        .filter(|pixel| gain.unusable().rejects(*pixel))
        .collect();
    assert_eq!(masked, [3, 4, 5, 6]);
    let frames = [0x0A00u16, 0x7000, 0xF000].map(|word| vec![f64::from(word); shape.pixels()]);
    let mut stager = testing::staged(&accelerator, PixelType::U16, &frames);
    gain.run(&queue, stager.finish(&queue).unwrap(), false).unwrap();
    for (frame, also) in [(0, None), (1, Some(7)), (2, Some(8))] {
        let found = floats(&bytes_of(&gain, &queue, frame));
        let bad: Vec<usize> = (0..shape.pixels()).filter(|pixel| found[*pixel].is_nan()).collect();
        assert_eq!(bad, [3, 4, 5, 6].into_iter().chain(also).collect::<Vec<_>>());
        let wrong = u32::from(also.is_some());
        assert_eq!(gain.counts()[frame].wrong, wrong, "masked pixels are not counted again");
    }
}

#[test]
fn large_pixels_share_their_photons_and_lose_none() {
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(512, 2048);
    for output in [PixelType::F32, PixelType::I32] {
        let mut config = config(shape.pixels(), 1.0, 10.0, output);
        config.pedestals = [0, 1, 2].map(|_| vec![0.0; shape.pixels()]);
        config.gains = [0.1, -1.0, -1.0].map(|gain| vec![gain; shape.pixels()]);
        config.split = true;
        let mut gain = AdaptiveGain::new(&accelerator, &config, shape, 2).unwrap();
        assert_eq!(gain.shape(), Shape::new(514, 2060));
        let mut random = testing::random(9);
        let mut words: Vec<f64> = (0..shape.pixels())
            .map(|_| f64::from(random.random_range(0..50u16)))
            .collect();
        let at = |row: usize, column: usize| row * 2048 + column;
        (words[at(0, 255)], words[at(0, 256)], words[at(255, 255)]) = (7.0, 10.0, 11.0);
        (words[at(256, 1279)], words[at(0, 1023)], words[at(0, 1024)]) = (65535.0, 40.0, 41.0);
        let total: f64 = words.iter().filter(|word| **word < 65535.0).sum();
        let mut stager = testing::staged(&accelerator, PixelType::U16, &[words.clone(), words.clone()]);
        gain.run(&queue, stager.finish(&queue).unwrap(), false).unwrap();
        let bytes = bytes_of(&gain, &queue, 1);
        let wide: Vec<f64> = match output {
            PixelType::F32 => floats(&bytes).into_iter().map(f64::from).collect(),
            _ => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|v| f64::from(i32::from_le_bytes(*v)))
                .collect(),
        };
        let place = |row: usize, column: usize| wide[row * 2060 + column];
        let whole = output == PixelType::I32;
        assert_eq!([place(0, 254), place(0, 259)], [words[254], words[257]]);
        let [one, two] = if whole { [4.0, 3.0] } else { [3.5, 3.5] };
        assert_eq!(
            [place(0, 255), place(0, 256), place(0, 257), place(0, 258)],
            [one, two, 5.0, 5.0]
        );
        let corner = [place(255, 255), place(255, 256), place(256, 255), place(256, 256)];
        assert_eq!(corner, if whole { [3.0, 3.0, 3.0, 2.0] } else { [2.75; 4] });
        // Between modules nothing is shared.
        assert_eq!([place(0, 1029), place(0, 1030)], [40.0, 41.0]);
        let bad = |value: &f64| value.is_nan() || *value == f64::from(i32::MIN);
        assert_eq!(
            wide.iter().filter(|value| bad(value)).count(),
            4,
            "a corner pixel in error is four places"
        );
        let found: f64 = wide.iter().filter(|value| !bad(value)).sum();
        assert_eq!(found, total);
        // Every pixel is somewhere, as often as it is large.
        let map = gain.map().unwrap();
        let mut seen = vec![0u32; shape.pixels()];
        (0..map.wide.pixels()).for_each(|place| seen[map.source(place).0] += 1);
        for (pixel, times) in seen.iter().enumerate() {
            let (row, column) = (pixel / 2048, pixel % 2048);
            let tall = matches!(row, 255 | 256);
            let broad = matches!(column % 1024, 255 | 256 | 511 | 512 | 767 | 768);
            assert_eq!(
                *times,
                (1 + u32::from(tall)) * (1 + u32::from(broad)),
                "{row}, {column}"
            );
        }
    }
    let error = ModuleMap::new(Shape::new(512, 1000)).unwrap_err().to_string();
    assert!(error.contains("512x1000") && error.contains("whole modules"), "{error}");
}

#[test]
fn a_pedestal_follows_the_words_of_its_gain_alone() {
    let mut tracker = pedestal::PedestalTracker::new(3, 1, 4);
    let word = |adu: u16| 0x4000 | adu;
    for adu in [100, 104, 102, 98] {
        tracker.push([word(adu), word(200), 0x0100]);
    }
    assert_eq!(tracker.means()[..2], [101.0, 200.0]);
    assert!(tracker.means()[2].is_nan() && tracker.deviations()[2].is_nan());
    let deviations = tracker.deviations();
    assert!((f64::from(deviations[0]) - (20.0f64 / 3.0).sqrt()).abs() < 1e-5 && deviations[1] == 0.0);
    // Then each word replaces a share: s += x - s / W.
    tracker.push([word(141), word(200), 0xFFFF]);
    assert_eq!(tracker.means()[0], (404.0 + 141.0 - 101.0) / 4.0);
    // The end of G1's range, a missing packet and another gain say nothing.
    tracker.push([0x4000, 0xFFFF, 0xC123]);
    assert_eq!(tracker.means()[0], 111.0);
    assert_eq!((tracker.frames(), tracker.wrong_gain()), (6, 8));
}

#[test]
fn pedestals_follow_words_without_photons_as_in_float64_however_the_batches_fall() {
    const FRAMES: usize = 240;
    let (accelerator, queue) = testing::cpu();
    let shape = Shape::new(3, 1371);
    let pixels = shape.pixels();
    let mut config = config(pixels, 1.0, 12.4, PixelType::F32);
    let (window, within_photons) = (50u32, 0.25f64);
    config.track = Some(Tracking { window, within_photons });
    (config.gains[0][3], config.pedestals[0][4]) = (0.0, f32::NAN);
    let mut random = testing::random(17);
    let dark = |frame: usize| (96..120).contains(&frame);
    let mut words = vec![vec![0f64; pixels]; FRAMES];
    for (frame, words) in words.iter_mut().enumerate() {
        for (pixel, word) in words.iter_mut().enumerate() {
            let at = if pixel == 4 {
                2500.0
            } else {
                f64::from(config.pedestals[0][pixel])
            };
            // Ten ADU in all, noise, and now and then photons, another gain, or a packet that is missing.
            let adu = at + 10.0 * frame as f64 / FRAMES as f64 + random.random_range(-30.0..30.0);
            *word = match random.random_range(0..40u32) {
                0 => f64::from(0x4000u16 + random.random_range(14000..15500u16)),
                1 => f64::from(0xC000u16 + random.random_range(14000..15500u16)),
                2 => 65535.0,
                3..6 if !dark(frame) => (adu + random.random_range(150.0..3000.0)).round(),
                _ => adu.round(),
            };
        }
    }
    let mut results: Vec<(Vec<f32>, Vec<u8>, Drift)> = Vec::new();
    for batch in [1usize, 8, 24] {
        let mut gain = AdaptiveGain::new(&accelerator, &config, shape, batch).unwrap();
        let (mut last, mut quiet) = (Vec::new(), 0u64);
        for (number, frames) in words.chunks(batch).enumerate() {
            let mut stager = testing::staged(&accelerator, PixelType::U16, frames);
            let dark = dark(number * batch);
            gain.run(&queue, stager.finish(&queue).unwrap(), dark).unwrap();
            quiet += gain.counts().iter().map(|counts| u64::from(counts.quiet)).sum::<u64>();
            last = bytes_of(&gain, &queue, frames.len() - 1);
        }
        let mut moved = vec![0f32; pixels];
        let drift = gain.drift(&queue, &mut moved).unwrap().unwrap();
        assert!(quiet > (FRAMES * pixels / 2) as u64, "{quiet}");
        results.push((moved, last, drift));
    }
    assert!(
        results
            .iter()
            .all(|(moved, last, _)| *moved == results[0].0 && *last == results[0].1)
    );
    let (moved, last, drift) = &results[0];
    let (mut furthest, mut worst, mut sum, mut known) = (0f64, 0f64, 0f64, 0u64);
    for pixel in 0..pixels {
        let calibration = (f64::from(config.pedestals[0][pixel]), config.gains[0][pixel]);
        let (mut expected, mut before) = (0f64, 0f64);
        for (frame, words) in words.iter().enumerate() {
            let within = if dark(frame) { f64::INFINITY } else { within_photons };
            before = expected;
            let word = words[pixel] as u16;
            expected = reference::drift_after(word, calibration, config.energy_kev, expected, (window.into(), within));
        }
        furthest = furthest.max((f64::from(moved[pixel]) - expected).abs());
        if reference::factor(calibration.1, calibration.0, config.energy_kev) == 0.0 {
            assert_eq!(moved[pixel], 0.0, "pixel {pixel} has no calibration");
            continue;
        }
        known += 1;
        sum += expected;
        // The last frame, converted with the pedestal that the ones before it left behind.
        let mut pedestals = [0, 1, 2].map(|gain| f64::from(config.pedestals[gain][pixel]));
        pedestals[0] += before;
        let gains = [0, 1, 2].map(|gain| config.gains[gain][pixel]);
        let word = words[FRAMES - 1][pixel] as u16;
        if let Photons::Number(photons) = reference::photons(word, pedestals, gains, config.energy_kev) {
            worst = worst.max((f64::from(floats(last)[pixel]) - photons).abs());
        }
    }
    println!(
        "pedestals {furthest:.1e} ADU from float64, photons {worst:.1e}; {:.2} ADU on average",
        drift.mean_adu
    );
    assert!(furthest < 1e-3 && worst < 0.01, "{furthest} ADU, {worst} photons");
    assert_eq!(drift.pixels, known);
    assert!((drift.mean_adu - sum / known as f64).abs() < 1e-3 && (4.0..12.0).contains(&drift.mean_adu));
    assert!(drift.largest_adu > drift.mean_adu && drift.drifted_pixels < drift.pixels);
    for track in [(1, 0.25), (100, 0.0), (100, 0.7), (100, f64::NAN)] {
        config.track = Some(Tracking {
            window: track.0,
            within_photons: track.1,
        });
        assert!(AdaptiveGain::new(&accelerator, &config, shape, 1).is_err(), "{track:?}");
    }
}
