//! The codec against hdf5plugin, byte by byte; the geometry against pyFAI, pixel by pixel.

#![allow(clippy::unwrap_used)] // a test

use frame::codec::{Beneath, Scratch, compress, compress_bound, decompress, decompress_into, decompress_rows};
use frame::geometry::Unit;
use frame::{Shape, poni};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The script's answers; `None` where there is no Python to run it, which is said.
fn answers(test: &str) -> Option<Folder> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = std::env::var_os("FLUXLINE_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    if !python.exists() {
        println!("SKIPPED {test}: {} does not exist; run `make python`", python.display());
        return None;
    }
    let folder = Folder(std::env::temp_dir().join(format!("fluxline-{test}-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let script = root.join("tests/python/frame_reference.py");
    let output = Command::new(python)
        .arg(&script)
        .arg(test)
        .arg(&folder.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", script.display());
    Some(folder)
}

/// Names of the cases that have a file with this ending.
fn cases(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    found.sort();
    found
}

#[test]
fn chunks_are_those_of_hdf5plugin_byte_for_byte() {
    let Some(folder) = answers("codec") else { return };
    let found = cases(&folder.0, "chunk");
    assert!(found.len() > 100, "{} cases", found.len());
    let mut scratch = Scratch::default();
    for case in found {
        let read = |ending| std::fs::read(case.with_extension(ending)).unwrap();
        let (raw, theirs) = (read("raw"), read("chunk"));
        let pixel_bytes = String::from_utf8(read("bytes")).unwrap().parse().unwrap();
        let mut ours = vec![0; compress_bound(raw.len(), pixel_bytes)];
        let used = compress(&raw, pixel_bytes, &mut ours, &mut scratch).unwrap();
        assert!(ours[..used] == theirs[..], "{}: our chunk is another", case.display());
        let mut back = vec![0xaa; raw.len()];
        decompress_into(&theirs, pixel_bytes, &mut back).unwrap();
        assert!(back == raw, "{}: their chunk decodes to other pixels", case.display());
    }
}

#[test]
fn bitshuffle_zstandard_of_hdf5plugin_comes_back_byte_for_byte() {
    let Some(folder) = answers("zstd") else { return };
    let found = cases(&folder.0, "chunk");
    assert_eq!(found.len(), 6 * 13);
    let mut scratch = Scratch::default();
    for case in found {
        let read = |ending| std::fs::read(case.with_extension(ending)).unwrap();
        let (raw, theirs) = (read("raw"), read("chunk"));
        let pixel_bytes = String::from_utf8(read("bytes")).unwrap().parse().unwrap();
        let mut back = vec![0xaa; raw.len()];
        decompress(Beneath::Zstd, &theirs, pixel_bytes, &mut back, &mut scratch).unwrap();
        assert!(back == raw, "{}: decodes to other pixels", case.display());
        // The same into a larger frame, one row of seven pixels after another where that goes.
        let row_bytes = if raw.len() % (7 * pixel_bytes) == 0 {
            7 * pixel_bytes
        } else {
            raw.len()
        };
        let (rows, stride) = (raw.len() / row_bytes, row_bytes + 3 * pixel_bytes);
        let mut wide = vec![0x55; rows * stride];
        decompress_rows(
            Beneath::Zstd,
            &theirs,
            pixel_bytes,
            (rows, row_bytes),
            &mut wide,
            stride,
            &mut scratch,
        )
        .unwrap();
        for (row, line) in wide.chunks(stride).enumerate() {
            assert!(
                line[..row_bytes] == raw[row * row_bytes..][..row_bytes],
                "{} row {row}",
                case.display()
            );
            assert!(
                line[row_bytes..].iter().all(|byte| *byte == 0x55),
                "what lies between rows is untouched"
            );
        }
        // Cut short, forged or of the other kind: refused.
        let lz4 = decompress(Beneath::Lz4, &theirs, pixel_bytes, &mut back, &mut scratch);
        assert!(lz4.is_err() || raw.len() < 8 * pixel_bytes, "{}", case.display());
        assert!(
            decompress(
                Beneath::Zstd,
                &theirs[..theirs.len() - 1],
                pixel_bytes,
                &mut back,
                &mut scratch
            )
            .is_err()
        );
    }
}

#[test]
fn every_pixel_lies_where_pyfai_says_in_every_orientation_and_pose() {
    let Some(folder) = answers("geometry") else { return };
    let found = cases(&folder.0, "poni");
    assert_eq!(found.len(), 16);
    for case in found {
        let text = std::fs::read_to_string(case.with_extension("shape")).unwrap();
        let (rows, columns) = text.split_once(' ').unwrap();
        let shape = Shape::new(rows.parse().unwrap(), columns.parse().unwrap());
        let geometry = poni::parse(&std::fs::read_to_string(&case).unwrap()).unwrap().geometry;
        for (ending, ours, bar) in [
            ("q", geometry.radial_map(Unit::QNmInv, shape).unwrap(), 1e-10),
            ("chi", geometry.chi_map(shape), 1e-10),
            // pyFAI keeps solid angle and polarisation in single precision.
            ("solid", geometry.solid_angle_map(shape), 1e-7),
            ("polarization", geometry.polarization_map(0.9, 0.0, shape), 1e-7),
        ] {
            let bytes = std::fs::read(case.with_extension(ending)).unwrap();
            let theirs = bytes.as_chunks::<8>().0.iter().map(|value| f64::from_le_bytes(*value));
            assert_eq!(theirs.len(), ours.len());
            let largest = theirs.clone().fold(0.0, |largest: f64, value| largest.max(value.abs()));
            let apart = |(our, their): (&f64, f64)| (our - their).abs() / largest;
            let worst = ours.iter().zip(theirs).map(apart).fold(0.0, f64::max);
            assert!(worst <= bar, "{}: {ending} differs by {worst:.1e}", case.display());
        }
    }
}
