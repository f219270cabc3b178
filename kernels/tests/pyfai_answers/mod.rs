//! Answers of another program, made by a script of `tests/python`.

#![allow(dead_code)] // each test uses some of it

use std::path::{Path, PathBuf};
use std::process::Command;

/// An array file of NumPy, format version 1: element type, shape, bytes.
pub(crate) fn npy(path: &Path) -> Option<(String, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).ok()?;
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + header_bytes]).unwrap();
    let after = |key: &str| header.split_once(key).unwrap().1;
    let descr = after("'descr': '").split('\'').next().unwrap().to_owned();
    assert!(header.contains("'fortran_order': False"), "{}", path.display());
    let shape = after("'shape': (").split(')').next().unwrap();
    let shape = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    Some((descr, shape, bytes[10 + header_bytes..].to_vec()))
}

pub(crate) fn f64s(path: &Path) -> Vec<f64> {
    let (descr, _, bytes) = npy(path).unwrap_or_else(|| panic!("{} is missing", path.display()));
    assert_eq!(descr, "<f8", "{}", path.display());
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|value| f64::from_le_bytes(*value))
        .collect()
}

pub(crate) fn f32s(path: &Path) -> Option<Vec<f32>> {
    let (descr, _, bytes) = npy(path)?;
    assert_eq!(descr, "<f4", "{}", path.display());
    Some(
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect(),
    )
}

pub(crate) struct Folder(pub(crate) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a script of `tests/python` wrote, and the folder of real data; or why there is nothing.
pub(crate) fn answers(name: &str) -> Result<(Folder, PathBuf), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = std::env::var_os("FLUXLINE_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    if !python.exists() {
        return Err(format!(
            "{} does not exist; run `make python` or set FLUXLINE_PYTHON",
            python.display()
        ));
    }
    let data = std::env::var_os("FLUXLINE_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let folder = Folder(std::env::temp_dir().join(format!("fluxline-{name}-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let script = root.join(format!("tests/python/{name}.py"));
    let output = Command::new(&python)
        .arg(&script)
        .arg(&folder.0)
        .arg(&data)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((folder, data))
}
