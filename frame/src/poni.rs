//! `.poni` files, versions 1, 2, 2.1 and 3, as pyFAI writes them: `Key: value` lines, `#` comments, keys in any
//! case, and of several entries for a key the last one counts, since pyFAI appends.

use crate::detector;
use crate::geometry::Geometry;
use crate::pixel::Shape;
use crate::pixel_corners::PixelCorners;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Newest version that is understood.
pub const NEWEST_VERSION: f64 = 3.0;

/// Why a `.poni` file is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PoniError {
    /// a version of the future
    #[error(
        "the .poni file has version {found}; this program reads versions 1 to {NEWEST_VERSION}: update it, or write the file again with an older pyFAI"
    )]
    Version {
        /// version found
        found: String,
    },
    /// a needed key is not there
    #[error("the .poni file has no {key}; expected `{key}: {expected}`")]
    Missing {
        /// key
        key: &'static str,
        /// what it holds
        expected: &'static str,
    },
    /// a value is not what it should be
    #[error("{key}: {value:?} in the .poni file; expected {expected}")]
    Value {
        /// key
        key: String,
        /// value found
        value: String,
        /// what was expected
        expected: &'static str,
    },
    /// neither the model nor the file gives a pixel size
    #[error(
        "the .poni file names the detector {name:?}, which is not known here, and gives no pixel size: add \
         `Detector_config: {{\"pixel1\": <metres>, \"pixel2\": <metres>}}`"
    )]
    Detector {
        /// name found
        name: String,
    },
    /// a detector that is described by a file of its own, which cannot be had
    #[error("the .poni file names the detector file {file:?}: {reason}")]
    File {
        /// file, as the .poni has it
        file: String,
        /// why not
        reason: String,
    },
}

/// A detector as a file of its own describes it: pyFAI's `NexusDetector`.
#[derive(Clone, Debug)]
pub struct DescribedDetector {
    /// pixel size along the slow and the fast axis, metres
    pub pixel_m: [f64; 2],
    /// shape of its frames
    pub shape: Shape,
    /// 1 to 4 as in Exif
    pub orientation: Option<u8>,
    /// corners of every pixel, where they do not lie on one plane grid
    pub corners: Option<Arc<PixelCorners>>,
}

/// A parsed file: the geometry, and every entry as it was written, by key in lower case.
#[derive(Clone, Debug, PartialEq)]
pub struct Poni {
    /// version of the file
    pub version: f64,
    /// geometry
    pub geometry: Geometry,
    /// whether the file asks for parallax correction, which is not made here
    pub parallax: bool,
    /// every entry, known or not
    pub entries: BTreeMap<String, String>,
}

/// Reads the text of a `.poni` file that stands alone: one whose detector is described by another file is refused.
pub fn parse(text: &str) -> Result<Poni, PoniError> {
    parse_with(text, |_| {
        Err(
            "this place takes a .poni that stands alone: name it in the recipe (`poni`), beside its detector file"
                .into(),
        )
    })
}

/// Reads the text of a `.poni` file; `describe` reads the file that a `NexusDetector` is described by, by its name.
pub fn parse_with(
    text: &str,
    describe: impl FnOnce(&str) -> Result<DescribedDetector, String>,
) -> Result<Poni, PoniError> {
    let entries: BTreeMap<String, String> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_lowercase(), value.trim().to_string()))
        .collect();
    let version = match entries.get("poni_version") {
        Some(value) => number("poni_version", value)?,
        None => 1.0,
    };
    if version > NEWEST_VERSION {
        return Err(PoniError::Version {
            found: entries.get("poni_version").cloned().unwrap_or_default(),
        });
    }
    let optional = |key: &'static str| -> Result<Option<f64>, PoniError> {
        match entries.get(key).map(String::as_str) {
            None | Some("None" | "") => Ok(None),
            Some(value) => number(key, value).map(Some),
        }
    };
    let needed = |key: &'static str| {
        optional(key)?.ok_or(PoniError::Missing {
            key,
            expected: "<metres>",
        })
    };
    let config = detector_config(&entries)?;
    let name = entries.get("detector").cloned();
    let model = name.as_deref().and_then(detector::find);
    let described = match (name.as_deref(), config.text("filename")) {
        (Some(name), Some(file)) if name.eq_ignore_ascii_case("NexusDetector") => {
            let file = file.to_string();
            Some(describe(&file).map_err(|reason| PoniError::File { file, reason })?)
        }
        _ => None,
    };
    let of_file = |axis: usize| described.as_ref().map(|described| described.pixel_m[axis]);
    let pixel = |key: &'static str, old: &'static str, of_model: Option<f64>| -> Result<f64, PoniError> {
        let size = match (config.number(key)?, optional(old)?, of_model) {
            (Some(size), ..) | (None, Some(size), _) | (None, None, Some(size)) => size,
            (None, None, None) => {
                return Err(PoniError::Detector {
                    name: name.clone().unwrap_or_default(),
                });
            }
        };
        if size > 0.0 {
            Ok(size)
        } else {
            Err(value_error(key, size, "a pixel size above 0, in metres"))
        }
    };
    let of_described = described.as_ref().and_then(|described| described.orientation);
    let orientation = match config.number("orientation")?.filter(|value| *value != 0.0) {
        None => of_described.filter(|value| *value != 0).unwrap_or(3),
        Some(value) if (1.0..=4.0).contains(&value) && value.fract() == 0.0 => value as u8,
        Some(value) => return Err(value_error("orientation", value, "1, 2, 3 or 4")),
    };
    if orientation != 3 && described.as_ref().is_some_and(|described| described.corners.is_some()) {
        let expected = "3 for a detector with pixel_corners, which say themselves where pixels are";
        return Err(value_error("orientation", orientation.into(), expected));
    }
    let dist_m = needed("distance")?;
    if dist_m <= 0.0 {
        return Err(value_error("distance", dist_m, "a distance above 0, in metres"));
    }
    let wavelength_m = optional("wavelength")?;
    if let Some(value) = wavelength_m.filter(|value| !(1e-13..1e-6).contains(value)) {
        return Err(value_error("wavelength", value, "metres, for example 1e-10 for 1 Å"));
    }
    let geometry = Geometry {
        dist_m,
        poni1_m: needed("poni1")?,
        poni2_m: needed("poni2")?,
        rot1_rad: optional("rot1")?.unwrap_or(0.0),
        rot2_rad: optional("rot2")?.unwrap_or(0.0),
        rot3_rad: optional("rot3")?.unwrap_or(0.0),
        wavelength_m,
        pixel1_m: pixel("pixel1", "pixelsize1", of_file(0).or(model.map(|d| d.pixel1_m)))?,
        pixel2_m: pixel("pixel2", "pixelsize2", of_file(1).or(model.map(|d| d.pixel2_m)))?,
        orientation,
        shape: config
            .shape()?
            .or(described.as_ref().map(|described| described.shape))
            .or(model.map(|d| d.shape)),
        detector: name,
        pixel_corners: described.and_then(|described| described.corners),
    };
    let parallax = entries
        .get("parallax")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    Ok(Poni {
        version,
        geometry,
        parallax,
        entries,
    })
}

/// Writes a geometry as version 2.1.
pub fn write(geometry: &Geometry) -> String {
    let shape = geometry.shape.map_or("null".to_string(), |shape| {
        format!("[{}, {}]", shape.rows, shape.columns)
    });
    let mut out = format!(
        "# Nota: C-Order, 1 refers to the Y axis, 2 to the X axis\nponi_version: 2.1\nDetector: Detector\n\
         Detector_config: {{\"pixel1\": {:e}, \"pixel2\": {:e}, \"max_shape\": {shape}, \"orientation\": {}}}\n\
         Distance: {}\nPoni1: {}\nPoni2: {}\nRot1: {}\nRot2: {}\nRot3: {}\n",
        geometry.pixel1_m,
        geometry.pixel2_m,
        geometry.orientation,
        geometry.dist_m,
        geometry.poni1_m,
        geometry.poni2_m,
        geometry.rot1_rad,
        geometry.rot2_rad,
        geometry.rot3_rad,
    );
    if let Some(wavelength_m) = geometry.wavelength_m {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "Wavelength: {wavelength_m:e}");
    }
    out
}

fn number(key: &str, value: &str) -> Result<f64, PoniError> {
    value
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| PoniError::Value {
            key: key.into(),
            value: value.into(),
            expected: "a number",
        })
}

fn value_error(key: &str, value: f64, expected: &'static str) -> PoniError {
    PoniError::Value {
        key: key.into(),
        value: value.to_string(),
        expected,
    }
}

/// The JSON of `Detector_config`.
struct DetectorConfig(serde_json::Map<String, serde_json::Value>);

fn detector_config(entries: &BTreeMap<String, String>) -> Result<DetectorConfig, PoniError> {
    let Some(text) = entries.get("detector_config").filter(|text| !text.is_empty()) else {
        return Ok(DetectorConfig(serde_json::Map::new()));
    };
    serde_json::from_str(text)
        .map(DetectorConfig)
        .map_err(|_| PoniError::Value {
            key: "Detector_config".into(),
            value: text.clone(),
            expected: "a JSON object, for example {\"pixel1\": 7.5e-05, \"pixel2\": 7.5e-05}",
        })
}

impl DetectorConfig {
    fn number(&self, key: &str) -> Result<Option<f64>, PoniError> {
        match self.0.get(key) {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| PoniError::Value {
                key: format!("Detector_config.{key}"),
                value: value.to_string(),
                expected: "a number",
            }),
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.as_str())
    }

    fn shape(&self) -> Result<Option<Shape>, PoniError> {
        let Some(value) = self.0.get("max_shape").filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let dims: Option<Vec<u64>> = value
            .as_array()
            .and_then(|dims| dims.iter().map(|d| d.as_u64()).collect());
        match dims.as_deref() {
            Some([rows, columns]) => Ok(Some(Shape::new(*rows as usize, *columns as usize))),
            _ => Err(PoniError::Value {
                key: "Detector_config.max_shape".into(),
                value: value.to_string(),
                expected: "[rows, columns]",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "# Calibration\nPixelSize1: 0.000172\nPixelSize2: 0.000172\nDistance: 0.2\nPoni1: 0.01\nPoni2: 0.02\n\
                      Rot1: 0.1\nRot2: 0.2\nRot3: 0\nSplineFile: None\nWavelength: 4.066e-11\nDISTANCE: 0.3\n";
    const V21: &str = "poni_version: 2.1\nDetector: Eiger2_4M\nDetector_config: {\"orientation\": 2}\nDistance: 0.1\nPoni1: 0\n\
                       Poni2: 0\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\nmine: kept\n";

    #[test]
    fn version_1_and_its_last_entry() {
        let poni = parse(V1).unwrap();
        assert_eq!(
            (poni.version, poni.geometry.dist_m, poni.geometry.pixel1_m),
            (1.0, 0.3, 172e-6)
        );
        assert_eq!(poni.geometry.orientation, 3);
    }

    #[test]
    fn later_versions_know_their_detector() {
        let poni = parse(V21).unwrap();
        assert_eq!(poni.geometry.shape, Some(Shape::new(2162, 2068)));
        assert_eq!((poni.geometry.pixel2_m, poni.geometry.orientation), (75e-6, 2));
        assert_eq!(poni.entries["mine"], "kept");
        let three = V21.replace("2.1", "3") + "Parallax: True\n";
        assert!(parse(&three).unwrap().parallax);
        let again = parse(&write(&poni.geometry)).unwrap().geometry;
        assert_eq!(
            Geometry {
                detector: poni.geometry.detector.clone(),
                ..again
            },
            poni.geometry
        );
    }

    #[test]
    fn a_detector_may_have_a_file_of_its_own() {
        let text = V21.replace("Eiger2_4M", "NexusDetector").replace(
            "{\"orientation\": 2}",
            "{\"filename\": \"panels.h5\", \"orientation\": 3, \"sensor\": null}",
        );
        let shape = Shape::new(2, 3);
        let corners = Arc::new(PixelCorners::new(shape, &[1.0; 72]).unwrap());
        let described = |file: &str| {
            assert_eq!(file, "panels.h5");
            Ok(DescribedDetector {
                pixel_m: [1e-4, 2e-4],
                shape,
                orientation: Some(3),
                corners: Some(corners.clone()),
            })
        };
        let geometry = parse_with(&text, described).unwrap().geometry;
        assert_eq!((geometry.pixel1_m, geometry.pixel2_m), (1e-4, 2e-4));
        assert_eq!(
            (geometry.shape, geometry.pixel_corners),
            (Some(shape), Some(corners.clone()))
        );
        let turned = text.replace("\"orientation\": 3", "\"orientation\": 1");
        let message = parse_with(&turned, described).unwrap_err().to_string();
        assert!(
            message.contains("orientation: \"1\"") && message.contains("pixel_corners"),
            "{message}"
        );
        let message = parse(&text).unwrap_err().to_string();
        assert!(
            message.contains("\"panels.h5\"") && message.contains("stands alone"),
            "{message}"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |text: &str| parse(text).unwrap_err().to_string();
        assert!(message(&V21.replace("2.1", "4")).contains("has version 4; this program reads versions 1 to 3"));
        assert!(message("Distance: 0.1\nPixelSize1: 1e-4\nPixelSize2: 1e-4\n").contains("has no poni1"));
        assert!(message(&V1.replace("Poni1: 0.01", "Poni1: left")).contains("poni1: \"left\""));
        assert!(message(&V21.replace("Eiger2_4M", "Mine")).contains("\"Mine\", which is not known here"));
        assert!(message(&V21.replace("{\"orientation\": 2}", "{")).contains("a JSON object"));
        assert!(message(&V1.replace("4.066e-11", "0.4066")).contains("1e-10 for 1 Å"));
    }
}
