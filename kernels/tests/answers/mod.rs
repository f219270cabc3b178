//! What a Python script answers: `.npy` files in a folder that goes with the test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Answers of one script.
pub struct Answers(PathBuf);

impl Drop for Answers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Answers {
    /// Runs `tests/python/SCRIPT FOLDER DATA`; or says why it cannot be run.
    pub fn of(script: &str) -> Result<Answers, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let python = std::env::var_os("FLUXLINE_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
        if !python.exists() {
            let python = python.display();
            return Err(format!(
                "{python} does not exist; run `make python` or set FLUXLINE_PYTHON"
            ));
        }
        let data = std::env::var_os("FLUXLINE_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
        let name = script.split('.').next().unwrap();
        let answers = Answers(std::env::temp_dir().join(format!("fluxline-{name}-{}", std::process::id())));
        std::fs::create_dir_all(&answers.0).unwrap();
        let script = root.join("tests/python").join(script);
        let output = Command::new(&python)
            .arg(&script)
            .arg(&answers.0)
            .arg(&data)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", script.display());
        Ok(answers)
    }

    /// Shape and values of an array of f32; one that is not there has neither.
    pub fn f32s(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let Ok(bytes) = std::fs::read(self.0.join(format!("{name}.npy"))) else {
            return (Vec::new(), Vec::new());
        };
        let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..10 + header_bytes]).unwrap();
        assert!(
            header.contains("'<f4'") && header.contains("'fortran_order': False"),
            "{name}: {header}"
        );
        let shape = header.split_once("'shape': (").unwrap().1.split(')').next().unwrap();
        let shape = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
        let values = bytes[10 + header_bytes..].as_chunks::<4>().0;
        (shape, values.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }
}

/// Largest difference, of the expected values' range.
pub fn worst(found: &[f32], expected: &[f32]) -> f64 {
    assert!(!expected.is_empty() && found.len() == expected.len());
    let (low, high) = expected
        .iter()
        .fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let differences = found.iter().zip(expected).map(|(f, e)| f64::from((f - e).abs()));
    differences.fold(0.0, f64::max) / f64::from(high - low)
}
