//! CBF with byte-offset compression (imgCIF; Bernstein & Hammersley), as PILATUS and EIGER programs write it.

use super::facts::number_after;
use super::stack::{MEMORY_BYTES_MAX, Stack, blank};
use super::tiff::{read_packed, series, too_large};
use super::{Content, Planned};
use crate::source::SourceError;
use frame::mask::{DEAD, GAP};
use frame::{FrameKind, PixelMask, PixelType, Shape, StreamDescription};
use std::path::Path;

/// Bytes between the text and the pixels.
const MARK: [u8; 4] = [0x0c, 0x1a, 0x04, 0xd5];
/// Largest side of a picture.
const SIDE_MAX: usize = 1 << 16;

/// Why a CBF is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CbfError {
    #[error("it has no binary section")]
    NoBinary,
    #[error("its header has no {0}")]
    Missing(&'static str),
    #[error("its header says {key}: {value}")]
    Value { key: &'static str, value: String },
    #[error("its pixels end after {found} of {expected}")]
    Truncated { found: usize, expected: usize },
}

/// A picture and the text before it.
#[derive(Debug)]
pub(super) struct Picture {
    pub shape: Shape,
    pub pixels: Vec<i32>,
    pub text: String,
}

/// Parses a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Picture, CbfError> {
    let at = bytes
        .windows(MARK.len())
        .position(|window| window == MARK)
        .ok_or(CbfError::NoBinary)?;
    let text = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let field = |key: &'static str| -> Result<&str, CbfError> {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(key))
            .ok_or(CbfError::Missing(key))?;
        Ok(line.trim_start()[key.len()..]
            .trim_start_matches(':')
            .trim()
            .trim_matches('"'))
    };
    let number = |key: &'static str| -> Result<usize, CbfError> {
        let value = field(key)?;
        value.parse().map_err(|_| CbfError::Value {
            key,
            value: value.into(),
        })
    };
    if !text.contains("x-CBF_BYTE_OFFSET") {
        return Err(CbfError::Value {
            key: "conversions",
            value: "not x-CBF_BYTE_OFFSET".into(),
        });
    }
    let element = field("X-Binary-Element-Type")?;
    if element != "signed 32-bit integer" {
        return Err(CbfError::Value {
            key: "X-Binary-Element-Type",
            value: element.into(),
        });
    }
    let shape = Shape::new(
        number("X-Binary-Size-Second-Dimension")?,
        number("X-Binary-Size-Fastest-Dimension")?,
    );
    if shape.rows > SIDE_MAX || shape.columns > SIDE_MAX {
        return Err(CbfError::Value {
            key: "X-Binary-Size-Fastest-Dimension",
            value: shape.to_string(),
        });
    }
    let coded = &bytes[at + MARK.len()..];
    let length = number("X-Binary-Size")?.min(coded.len());
    Ok(Picture {
        shape,
        pixels: decode(&coded[..length], shape.pixels())?,
        text,
    })
}

/// Differences of one byte; 0x80 announces two, 0x8000 four, 0x80000000 eight.
fn decode(coded: &[u8], count: usize) -> Result<Vec<i32>, CbfError> {
    // Each pixel takes at least a byte, so the picture is not larger than what is there.
    let truncated = |found| CbfError::Truncated { found, expected: count };
    if coded.len() < count {
        return Err(truncated(coded.len()));
    }
    let mut pixels = Vec::with_capacity(count);
    let (mut at, mut value) = (0, 0i64);
    let take = |at: &mut usize, bytes: usize| {
        let part = coded.get(*at..*at + bytes)?;
        *at += bytes;
        Some(part)
    };
    while pixels.len() < count {
        let short = truncated(pixels.len());
        let difference = match take(&mut at, 1) {
            Some([byte]) if *byte != 0x80 => i64::from(*byte as i8),
            Some(_) => match take(&mut at, 2) {
                Some(&[a, b]) if [a, b] != [0, 0x80] => i64::from(i16::from_le_bytes([a, b])),
                Some(_) => match take(&mut at, 4) {
                    Some(&[a, b, c, d]) if [a, b, c, d] != [0, 0, 0, 0x80] => {
                        i64::from(i32::from_le_bytes([a, b, c, d]))
                    }
                    Some(_) => match take(&mut at, 8).and_then(|part| part.first_chunk::<8>()) {
                        Some(part) => i64::from_le_bytes(*part),
                        None => return Err(short),
                    },
                    None => return Err(short),
                },
                None => return Err(short),
            },
            None => return Err(short),
        };
        value = value.wrapping_add(difference);
        pixels.push(value as i32);
    }
    Ok(pixels)
}

/// Opens a file or the series that it begins.
pub(super) fn open(path: &Path) -> Result<Content, SourceError> {
    let mut content = Content {
        stacks: Vec::new(),
        plan: Vec::new(),
        stream: blank(path.display().to_string()),
    };
    let mut total = 0;
    for file in series(path) {
        let picture = parse(&read_packed(&file)?).map_err(|error| SourceError::Content {
            path: file.clone(),
            found: error.to_string(),
            expected: "a CBF of signed 32-bit integers in byte-offset compression".into(),
        })?;
        total += picture.pixels.len() as u64 * 4;
        if total > MEMORY_BYTES_MAX {
            return Err(too_large(path, total));
        }
        let angle_deg = number_after(&picture.text, "# Start_angle").unwrap_or(f64::NAN);
        if content.stacks.is_empty() {
            facts(&picture, &mut content.stream);
        }
        let bytes = picture.pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
        let stack = content.stacks.len();
        content
            .stacks
            .push(Stack::in_memory(picture.shape, PixelType::I32, bytes));
        content.plan.push(Planned {
            stack,
            index: 0,
            kind: FrameKind::Sample,
            angle_deg,
            partial: false,
        });
    }
    Ok(content)
}

/// The mini-header's facts, and the mask that negative pixels are.
fn facts(picture: &Picture, stream: &mut StreamDescription) {
    let text = picture.text.as_str();
    let after = |key| number_after(text, key);
    let line = |key: &str| {
        text.lines()
            .find(|line| line.contains(key))
            .unwrap_or_default()
            .to_string()
    };
    let detector = &mut stream.detector;
    detector.name = text
        .lines()
        .find_map(|line| line.strip_prefix("# Detector:"))
        .map(|name| name.split(',').next().unwrap_or(name).trim().to_string());
    detector.wavelength_m = after("# Wavelength").map(|angstrom| angstrom * 1e-10);
    detector.distance_m = after("# Detector_distance");
    detector.pixel_size_slow_m = after("# Pixel_size");
    detector.pixel_size_fast_m = number_after(&line("# Pixel_size"), " x ").or(detector.pixel_size_slow_m);
    let beam = line("# Beam_xy");
    detector.beam_center_x_px = number_after(&beam, "(");
    detector.beam_center_y_px = number_after(&beam, ",");
    if text.contains("# Silicon sensor") {
        detector.sensor_material = Some("Si".into());
    }
    detector.sensor_thickness_m = number_after(&line("sensor, thickness"), "thickness");
    detector.count_time_s = after("# Exposure_time");
    detector.frame_time_s = after("# Exposure_period");
    stream.saturation_value = after("# Count_cutoff");
    let bits = picture.pixels.iter().map(|pixel| match pixel {
        -1 => GAP,
        i32::MIN..-1 => DEAD,
        _ => 0,
    });
    stream.mask = PixelMask::from_bits(picture.shape, bits.collect()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(rows: usize, columns: usize, coded: &[u8]) -> Vec<u8> {
        let mut bytes = format!(
            "###CBF: VERSION 1.5\n# Wavelength 0.5 A\n# Beam_xy (12.5, 7.25) pixels\n# Pixel_size 172e-6 m x 172e-6 m\n\
             conversions=\"x-CBF_BYTE_OFFSET\"\nX-Binary-Size: {}\nX-Binary-Element-Type: \"signed 32-bit integer\"\n\
             X-Binary-Size-Fastest-Dimension: {columns}\nX-Binary-Size-Second-Dimension: {rows}\n\n",
            coded.len()
        )
        .into_bytes();
        bytes.extend(MARK);
        bytes.extend(coded);
        bytes
    }

    #[test]
    fn differences_of_every_size() {
        let mut coded = vec![5, 0xff, 0x80, 0xe8, 0x03, 0x80, 0x00, 0x80];
        coded.extend(1_000_000i32.to_le_bytes());
        let picture = parse(&file(2, 2, &coded)).unwrap();
        assert_eq!(picture.pixels, [5, 4, 1004, 1_001_004]);
        let mut stream = blank(String::new());
        facts(&picture, &mut stream);
        assert_eq!(
            (stream.detector.beam_center_x_px, stream.detector.beam_center_y_px),
            (Some(12.5), Some(7.25))
        );
        assert_eq!(stream.detector.pixel_size_fast_m, Some(172e-6));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(parse(b"nothing").unwrap_err(), CbfError::NoBinary);
        assert_eq!(
            parse(&file(2, 2, &[1, 2])).unwrap_err(),
            CbfError::Truncated { found: 2, expected: 4 }
        );
        assert!(matches!(
            parse(&file(1 << 20, 2, &[1])).unwrap_err(),
            CbfError::Value { .. }
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(coded in prop::collection::vec(any::<u8>(), 0..300), rows in 0usize..40, columns in 0usize..40, cut in 0usize..600) {
            let bytes = file(rows, columns, &coded);
            let _ = parse(&bytes[..cut.min(bytes.len())]);
            let _ = parse(&bytes);
            let _ = parse(&coded);
        }
    }
}
