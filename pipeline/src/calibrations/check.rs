//! Whether a calibration can be one. Pixels that cannot be calibrated are counted and masked by the runs that use it;
//! where most cannot, or it is for another detector, it is refused with a sentence.

use super::record::CalibrationKind;
use super::{Content, Proposed};
use frame::mask::ANALYSIS_REJECT;
use frame::{PixelType, Shape, StreamDescription};
use std::ops::RangeInclusive;

/// A flat further than this factor from its median, up or down, is no response of a pixel.
const FLAT_FACTOR: f64 = 1e3;
/// A dark of float frames, whose type has no end, is at most what the largest counter holds.
const DARK_MAX: f64 = u32::MAX as f64;

/// What is known of the detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// shape of its frames
    pub shape: Shape,
    /// pixel size along the slow and the fast axis, metres
    pub pixel_m: Option<[f64; 2]>,
    /// type of the pixels of its frames
    pub pixel_type: Option<PixelType>,
}

impl Detector {
    /// Whether its frames have this shape, as they come or with a JUNGFRAU's large pixels shared.
    fn takes(&self, shape: Shape) -> bool {
        shape == self.shape || kernels::gain::module::wide(self.shape).is_ok_and(|wide| wide == shape)
    }

    /// The detector behind a stream.
    pub fn of(stream: &StreamDescription) -> Self {
        let facts = &stream.detector;
        Self {
            shape: stream.shape,
            pixel_m: facts
                .pixel_size_slow_m
                .zip(facts.pixel_size_fast_m)
                .map(|(slow, fast)| [slow, fast]),
            pixel_type: Some(stream.pixel_type),
        }
    }
}

/// Which values of a calibration are of use, for the check of a new version and for the runs that use it alike. One absurd
/// number must not reach the sums of the others: a flat is of use within a factor of 1000 of the median of `values`, a dark up
/// to what a pixel can hold, where its type is known.
pub fn usable_range(
    kind: CalibrationKind,
    pixel_type: Option<PixelType>,
    values: impl Iterator<Item = f64>,
) -> RangeInclusive<f64> {
    match kind {
        CalibrationKind::Flat => {
            let mut positive: Vec<f64> = values.filter(|value| value.is_finite() && *value > 0.0).collect();
            if positive.is_empty() {
                return f64::MIN_POSITIVE..=f64::MAX;
            }
            let middle = positive.len() / 2;
            let median = *positive.select_nth_unstable_by(middle, f64::total_cmp).1;
            median / FLAT_FACTOR..=median * FLAT_FACTOR
        }
        CalibrationKind::Dark => {
            let most = pixel_type.map_or(DARK_MAX, |pixel_type| pixel_type.max_value().min(DARK_MAX));
            -most..=most
        }
        CalibrationKind::Pedestal => 0.0..=16383.0,
        _ => f64::MIN..=f64::MAX,
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Checked {
    pub(super) shape: Option<Shape>,
    pub(super) unusable: usize,
    pub(super) median: Option<f64>,
    pub(super) warnings: Vec<String>,
}

/// Looks at everything; the error is a sentence.
pub(super) fn check(proposed: &Proposed, detector: Option<&Detector>) -> Result<Checked, String> {
    let kind = proposed.kind;
    match (&proposed.content, kind) {
        (Content::Text(text), CalibrationKind::Poni) => poni(text, detector),
        (Content::Text(_), _) => Err(format!(
            "a {} holds values, not text: upload .npy, HDF5, TIFF or CBF",
            kind.name()
        )),
        (Content::Array(..), CalibrationKind::Poni) => Err("a poni is a text file, as pyFAI writes it".into()),
        (Content::Array(sizes, values), _) => array(proposed, sizes, values, detector),
    }
}

/// Whether a geometry is for this detector; the error is a sentence.
pub fn poni_fits(poni: &frame::poni::Poni, detector: &Detector) -> Result<(), String> {
    let geometry = &poni.geometry;
    if let Some(shape) = geometry.shape.filter(|shape| !detector.takes(*shape)) {
        let name = geometry.detector.as_deref().unwrap_or("a detector");
        return Err(format!(
            "the .poni belongs to another detector: it is for {name} of {shape} pixels, the frames are {}",
            detector.shape
        ));
    }
    let apart = |mine: f64, theirs: f64| (mine - theirs).abs() > 0.01 * mine.abs().max(theirs.abs());
    if let Some([slow, fast]) = detector.pixel_m
        && (apart(geometry.pixel1_m, slow) || apart(geometry.pixel2_m, fast))
    {
        return Err(format!(
            "the .poni belongs to another detector: its pixels are {:.1} x {:.1} µm, those of the frames {:.1} x {:.1} µm",
            geometry.pixel1_m * 1e6,
            geometry.pixel2_m * 1e6,
            slow * 1e6,
            fast * 1e6
        ));
    }
    Ok(())
}

fn poni(text: &str, detector: Option<&Detector>) -> Result<Checked, String> {
    let poni = frame::poni::parse(text).map_err(|error| error.to_string())?;
    let geometry = &poni.geometry;
    let numbers = [
        ("Distance", geometry.dist_m),
        ("Poni1", geometry.poni1_m),
        ("Poni2", geometry.poni2_m),
        ("Rot1", geometry.rot1_rad),
        ("Rot2", geometry.rot2_rad),
        ("Rot3", geometry.rot3_rad),
        ("Wavelength", geometry.wavelength_m.unwrap_or(1.0)),
    ];
    if let Some((key, value)) = numbers.iter().find(|(_, value)| !value.is_finite()) {
        return Err(format!("the .poni's {key} is {value}: expected a finite number"));
    }
    if geometry.dist_m <= 0.0 {
        return Err(format!(
            "the .poni's Distance is {} m: expected one above 0",
            geometry.dist_m
        ));
    }
    if poni.parallax {
        return Err("the .poni asks for parallax correction, which is not made here: write `Parallax: False`".into());
    }
    if let Some(detector) = detector {
        poni_fits(&poni, detector)?;
    }
    Ok(Checked {
        shape: geometry.shape,
        ..Checked::default()
    })
}

fn array(proposed: &Proposed, sizes: &[usize], values: &[f64], detector: Option<&Detector>) -> Result<Checked, String> {
    let kind = proposed.kind;
    let name = kind.name();
    let shape = match (kind, sizes) {
        (CalibrationKind::Gain, &[3 | 6, rows, columns]) => Shape::new(rows, columns),
        (CalibrationKind::Gain, _) => {
            return Err(format!(
                "the gain has the sizes {sizes:?}: expected 3 or 6 planes (G0, G1, G2, and those of high gain) of rows and columns"
            ));
        }
        (_, &[rows, columns]) => Shape::new(rows, columns),
        _ => return Err(format!("the {name} has the sizes {sizes:?}: expected rows and columns")),
    };
    let of_words = matches!(kind, CalibrationKind::Pedestal | CalibrationKind::Gain);
    let takes = |detector: &&Detector| {
        if of_words {
            detector.shape == shape
        } else {
            detector.takes(shape)
        }
    };
    if let Some(detector) = detector.filter(|detector| !takes(detector)) {
        return Err(format!(
            "the {name} is {shape} pixels, the frames are {}: they must be equal",
            detector.shape
        ));
    }
    if values.is_empty() || values.len() != sizes.iter().product::<usize>() {
        return Err(format!(
            "the {name} holds {} values for the sizes {sizes:?}",
            values.len()
        ));
    }
    if (kind == CalibrationKind::Pedestal) != proposed.conditions.gain.is_some() {
        return Err("gain: 0, 1 or 2, and only of a pedestal".into());
    }
    if let Some(gain) = proposed.conditions.gain.filter(|gain| *gain > 2) {
        return Err(format!("gain = {gain}: 0, 1 or 2"));
    }
    if kind == CalibrationKind::Mask {
        return mask(shape, values);
    }
    let pixels = shape.pixels();
    // Of gains, G0 decides whether a pixel can be used at all.
    let first = &values[..pixels];
    let pixel_type = detector.and_then(|detector| detector.pixel_type);
    let range = usable_range(kind, pixel_type, first.iter().copied());
    let usable = |value: &f64| range.contains(value) && (kind != CalibrationKind::Gain || *value != 0.0);
    let unusable = first.iter().filter(|value| !usable(value)).count();
    if unusable * 2 > pixels {
        let index = first.iter().position(|value| !usable(value)).unwrap_or(0);
        let expected = match kind {
            CalibrationKind::Flat => "a response above 0, within a factor of 1000 of the median".into(),
            CalibrationKind::Pedestal => "0 to 16383 ADU".into(),
            CalibrationKind::Gain => "ADU/keV other than 0".into(),
            _ => format!("{} to {}", range.start(), range.end()),
        };
        return Err(format!(
            "the {name} is of no use for {unusable} of {pixels} pixels; the first is row {}, column {} with {}: expected \
             {expected}",
            index / shape.columns,
            index % shape.columns,
            first[index]
        ));
    }
    let mut good: Vec<f64> = first.iter().copied().filter(usable).collect();
    let middle = good.len() / 2;
    let (_, median, _) = good.select_nth_unstable_by(middle, f64::total_cmp);
    let median = *median;
    let mut warnings = Vec::new();
    match kind {
        CalibrationKind::Gain if median <= 0.0 => {
            return Err(format!(
                "the gain of G0 is {median} ADU/keV in the middle: expected one above 0"
            ));
        }
        CalibrationKind::Gain => {
            for (gain, plane) in values.chunks_exact(pixels).enumerate().take(3).skip(1) {
                let none = plane.iter().filter(|value| !usable(value)).count();
                if none > 0 {
                    warnings.push(format!(
                        "{none} pixels have no gain in G{gain}: they are in error when they switch to it"
                    ));
                }
            }
        }
        CalibrationKind::Flat if !(0.5..=2.0).contains(&median) => warnings.push(format!(
            "the flat is {median} in the middle: it is a relative response, about 1, by which counts are divided"
        )),
        _ => {}
    }
    if unusable > 0 {
        warnings.push(format!("{unusable} pixels cannot be calibrated: runs mask them"));
    }
    Ok(Checked {
        shape: Some(shape),
        unusable,
        median: Some(median),
        warnings,
    })
}

fn mask(shape: Shape, values: &[f64]) -> Result<Checked, String> {
    if let Some(value) = values
        .iter()
        .find(|v| !(**v >= 0.0 && **v <= f64::from(u32::MAX) && v.fract() == 0.0))
    {
        return Err(format!(
            "a mask holds whole numbers from 0 to 4294967295, this one holds {value}"
        ));
    }
    let masked = values
        .iter()
        .filter(|value| **value as u32 & ANALYSIS_REJECT != 0)
        .count();
    if masked == values.len() {
        return Err(format!(
            "the mask leaves none of {} pixels: nothing could be measured",
            values.len()
        ));
    }
    Ok(Checked {
        shape: Some(shape),
        unusable: masked,
        ..Checked::default()
    })
}
