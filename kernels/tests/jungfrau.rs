//! Photons of a real JUNGFRAU module against Jungfraujoch's own conversion of the same words (`jf-module` of the real data:
//! twelve frames, pedestals of three gains, and the reference in photons). The file of gains is not among the data, so
//! they are derived, pixel by pixel, from the reference of the first ten frames, and judged by the last two.

#![allow(clippy::unwrap_used)] // a test

use frame::{HostRegion, PixelType, Shape};
use kernels::{Accelerator, AcceleratorConfig, AdaptiveGain, GainConfig, HostPages, Stager};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const SHAPE: Shape = Shape::new(512, 1024);
/// Any energy does: derived gains hold their product with it.
const ENERGY_KEV: f64 = 12.4;
/// What the reference writes at the end of G2.
const REFERENCE_SATURATED: f32 = 32678.0;

fn read(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(format!("mod5_{name}.bin.gz"));
    let output = Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", path.display());
    output.stdout
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|v| f32::from_le_bytes(*v))
        .collect()
}

fn words(bytes: &[u8]) -> Vec<u16> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|v| u16::from_le_bytes(*v))
        .collect()
}

fn gain_of(word: u16) -> usize {
    [0, 1, 3, 2][usize::from(word >> 14)]
}

#[test]
fn a_real_module_agrees_with_jungfraujoch_where_the_gain_is_known() {
    let folder = std::env::var_os("FLUXLINE_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let folder = folder.join("jf-module");
    if !folder.exists() {
        eprintln!("SKIPPED a real JUNGFRAU module: there is no {}", folder.display());
        return;
    }
    let pixels = SHAPE.pixels();
    let pedestals = [0, 1, 2].map(|gain| floats(&read(&folder, &format!("pedeG{gain}"))));
    // Of every pixel and gain the word furthest from its pedestal tells the gain best; nearer than 20 ADU it does not.
    let mut gains = [0, 1, 2].map(|_| vec![0f64; pixels]);
    let mut best = [0, 1, 2].map(|_| vec![20f64; pixels]);
    let learn = |frame: usize, gains: &mut [Vec<f64>; 3], best: &mut [Vec<f64>; 3]| {
        let photons = floats(&read(&folder, &format!("conv{frame}")));
        for (pixel, word) in words(&read(&folder, &format!("raw{frame}"))).into_iter().enumerate() {
            let gain = gain_of(word);
            let away = f64::from(word & 0x3FFF) - f64::from(pedestals[gain][pixel]);
            let usable = photons[pixel] != 0.0 && photons[pixel] != REFERENCE_SATURATED;
            if usable && away.abs() > best[gain][pixel] {
                best[gain][pixel] = away.abs();
                gains[gain][pixel] = away / (f64::from(photons[pixel]) * ENERGY_KEV);
            }
        }
    };
    (0..10).for_each(|frame| learn(frame, &mut gains, &mut best));
    let known = [0, 1, 2].map(|gain| gains[gain].iter().filter(|value| **value != 0.0).count());
    let unknown_g0: Vec<usize> = (0..pixels).filter(|pixel| gains[0][*pixel] == 0.0).collect();

    let config = AcceleratorConfig {
        device: "cpu".into(),
        ..AcceleratorConfig::default()
    };
    let accelerator = Accelerator::open(&config).unwrap();
    let queue = accelerator.queue().unwrap();
    let config = GainConfig {
        pedestals,
        gains: gains.clone(),
        energy_kev: ENERGY_KEV,
        output: PixelType::F32,
        round: false,
        split: false,
        track: None,
    };
    let mut gain = AdaptiveGain::new(&accelerator, &config, SHAPE, 2).unwrap();
    let raw = [10, 11].map(|frame| read(&folder, &format!("raw{frame}")));
    let pages = HostPages::new(2 * raw[0].len()).unwrap();
    pages.fill(0, &raw[0]).unwrap();
    pages.fill(raw[0].len(), &raw[1]).unwrap();
    let region: Arc<dyn HostRegion> = Arc::new(pages);
    let mut stager = Stager::new(&accelerator, region, raw[0].len(), 2, false).unwrap();
    stager.begin().unwrap();
    stager.add_in_region(0).unwrap();
    stager.add_in_region(raw[0].len()).unwrap();
    gain.run(&queue, stager.finish(&queue).unwrap(), false).unwrap();

    let (mut compared, mut worst) = ([0usize; 3], 0f64);
    for (frame, raw) in raw.iter().enumerate() {
        let reference = floats(&read(&folder, &format!("conv{}", 10 + frame)));
        let mut bytes = vec![0; pixels * 4];
        gain.output().read_frame(&queue, frame, &mut bytes).unwrap();
        for (pixel, (found, word)) in floats(&bytes).into_iter().zip(words(raw)).enumerate() {
            if word == 0xC000 {
                assert_eq!(reference[pixel], REFERENCE_SATURATED);
                assert!(
                    found == f32::MAX || unknown_g0.contains(&pixel),
                    "pixel {pixel}: {found}"
                );
                continue;
            }
            let of = gain_of(word);
            if gains[0][pixel] == 0.0 || gains[of][pixel] == 0.0 {
                assert!(
                    found.is_nan(),
                    "pixel {pixel} in G{of} has no gain, yet {found} photons"
                );
                continue;
            }
            compared[of] += 1;
            worst = worst.max((f64::from(found) - f64::from(reference[pixel])).abs());
        }
    }
    println!("gains known of {known:?} pixels; {compared:?} values compared, {worst:.2e} photons apart at most");
    assert!(known[0] > 500_000 && known[1] > 1000 && known[2] > 50, "{known:?}");
    assert!(
        compared[0] > 1_000_000 && compared[1] > 500 && compared[2] > 10,
        "{compared:?}"
    );
    assert!(worst <= 0.01, "{worst}");
}
