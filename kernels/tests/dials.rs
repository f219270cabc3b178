//! Strong pixels of real frames against DIALS 3.12.1's masks of them, bit for bit: Pilatus 6M, Eiger 16M, and a JUNGFRAU
//! module in photons. The masks are `spot-masks` of the real data; nothing of DIALS need be installed.

#![allow(clippy::unwrap_used)] // a test

use frame::{HostRegion, PixelMask, PixelType, Shape};
use kernels::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// An array file of NumPy: element type, shape, bytes.
fn npy(path: &Path) -> (String, Vec<usize>, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + header_bytes]).unwrap();
    let after = |key: &str| header.split_once(key).unwrap().1;
    let descr = after("'descr': '").split('\'').next().unwrap().to_owned();
    let shape = after("'shape': (").split(')').next().unwrap();
    let shape = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    (descr, shape, bytes[10 + header_bytes..].to_vec())
}

fn indices(path: &Path) -> Vec<u32> {
    let (descr, _, bytes) = npy(path);
    assert_eq!(descr, "<u4", "{}", path.display());
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|v| u32::from_le_bytes(*v))
        .collect()
}

fn check(accelerator: &Accelerator, folder: &Path, name: &str) {
    let (descr, sizes, raw) = npy(&folder.join(format!("{name}_raw.npy")));
    let shape = Shape::new(sizes[0], sizes[1]);
    let pixel_type = if descr == "<f4" { PixelType::F32 } else { PixelType::I32 };
    let pages = HostPages::new(raw.len()).unwrap();
    pages.fill(0, &raw).unwrap();
    let region: Arc<dyn HostRegion> = Arc::new(pages);
    let queue = accelerator.queue().unwrap();
    let methods = [
        (SpotAlgorithm::Dispersion, "dispersion"),
        (SpotAlgorithm::DispersionExtended, "extended"),
    ];
    for (algorithm, answer) in methods {
        let expected = indices(&folder.join(format!("{name}_{answer}.npy")));
        let config = SpotConfig {
            algorithm,
            ..SpotConfig::default()
        };
        let mut stager = Stager::new(accelerator, region.clone(), raw.len(), 2, false).unwrap();
        stager.begin().unwrap();
        (0..2).for_each(|_| stager.add_in_region(0).unwrap());
        let batch = stager.finish(&queue).unwrap();
        let mask = PixelMask::none(shape);
        let mut finder = SpotFinder::new(accelerator, &config, shape, pixel_type, &mask, 2).unwrap();
        let mut outputs = vec![FrameSpots::default(); 2];
        finder.run(&queue, batch, &mut outputs).unwrap();
        for frame in 0..2 {
            let strong = finder.strong(&queue, frame).unwrap();
            let found: Vec<u32> = (0..).zip(&strong).filter(|(_, s)| **s).map(|(i, _)| i).collect();
            assert!(
                found == expected,
                "{name} {answer}: {} and {}",
                found.len(),
                expected.len()
            );
        }
        println!(
            "{name} {answer}: {} strong pixels, {:?} spots",
            expected.len(),
            outputs[0].found
        );
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn real_frames_are_marked_as_dials_marks_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = std::env::var_os("FLUXLINE_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    let data = std::env::var_os("FLUXLINE_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    if !python.exists() || !data.join("spot-masks").is_dir() {
        let (python, data) = (python.display(), data.display());
        return eprintln!(
            "SKIPPED real_frames_are_marked_as_dials_marks_them: no {python}, or no spot-masks in {data}"
        );
    }
    let folder = Folder(std::env::temp_dir().join(format!("fluxline-dials-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let script = root.join("tests/python/dials_real.py");
    let output = Command::new(&python)
        .arg(&script)
        .arg(&folder.0)
        .arg(&data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let accelerator = Accelerator::open(&AcceleratorConfig {
        device: "cpu".into(),
        ..Default::default()
    })
    .unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    assert_eq!(names.lines().count(), 16);
    for name in names.lines() {
        check(&accelerator, &folder.0, name);
    }
}
