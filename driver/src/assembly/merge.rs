//! What is known of the whole from what is known of its parts.

use super::{AssemblyConfig, Part};
use crate::source::SourceError;
use frame::mask::GAP;
use frame::{Compression, PixelMask, PixelType, Shape, StreamDescription};

/// The whole.
pub(super) struct Merged {
    pub(super) stream: StreamDescription,
    /// shape of each part, and offset of its first pixel, bytes
    pub(super) places: Vec<(Shape, usize)>,
    /// what no part covers: offset and length, bytes
    pub(super) gaps: Vec<(usize, usize)>,
    pub(super) remarks: Vec<String>,
}

/// Before the parts are armed.
pub(super) fn unknown(config: &AssemblyConfig) -> StreamDescription {
    StreamDescription {
        origin: "several sources".into(),
        shape: config.shape,
        pixel_type: PixelType::U16,
        compression: Compression::None,
        payload_bytes_max: 0,
        frames_expected: 0,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: false,
        parts: 0,
        saturation_value: None,
        mask: None,
        detector: Default::default(),
        metadata: Default::default(),
    }
}

/// Puts the parts' descriptions together. The first part's word goes first; where others differ, a remark says so.
pub(super) fn merge(parts: &[Part], config: &AssemblyConfig) -> Result<Merged, SourceError> {
    let whole = config.shape;
    let first = parts[0].source.stream();
    let mut remarks = Vec::new();
    let mut owner = vec![None; whole.pixels()];
    let mut mask = PixelMask::none(whole);
    mask.bits_mut().fill(GAP);
    let mut flatfield = Some(vec![1.0f32; whole.pixels()]);
    let mut places = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let stream = part.source.stream();
        check(index, part, whole, first)?;
        for row in 0..stream.shape.rows {
            for column in 0..stream.shape.columns {
                let to = (part.row + row) * whole.columns + part.column + column;
                let from = row * stream.shape.columns + column;
                if let Some(other) = owner[to].replace(index) {
                    return Err(SourceError::Parameter {
                        key: "row, column",
                        value: format!("{}, {} of source {index}", part.row, part.column),
                        expected: format!("a place that source {other} does not cover"),
                    });
                }
                mask.bits_mut()[to] = stream.mask.as_ref().map_or(0, |mask| mask.bits()[from]);
                if let (Some(whole), Some(part)) = (&mut flatfield, &stream.detector.flatfield) {
                    whole[to] = part[from];
                }
            }
        }
        if stream.detector.flatfield.is_none() {
            flatfield = None;
        }
        places.push((
            stream.shape,
            (part.row * whole.columns + part.column) * first.pixel_type.bytes(),
        ));
        differences(index, first, stream, &mut remarks);
    }
    let gaps = gaps(&owner, first.pixel_type.bytes());
    let pixel_type = first.pixel_type;
    let saturation = parts.iter().filter_map(|part| part.source.stream().saturation_value);
    let largest = Some(pixel_type.max_value()).filter(|_| pixel_type != PixelType::F32);
    let mut stream = StreamDescription {
        origin: format!("{} sources: {}, …", parts.len(), first.origin),
        shape: whole,
        compression: Compression::None,
        payload_bytes_max: whole.pixels() * pixel_type.bytes(),
        frames_expected: parts
            .iter()
            .map(|p| p.source.stream().frames_expected)
            .max()
            .unwrap_or(0),
        pausable: parts.iter().all(|part| part.source.stream().pausable),
        // The mask value must never count as a measured one.
        saturation_value: saturation.min_by(f64::total_cmp).or(largest),
        mask: Some(mask),
        ..first.clone()
    };
    let detector = &mut stream.detector;
    detector.flatfield = flatfield;
    detector.beam_center_x_px = detector.beam_center_x_px.map(|x| x + parts[0].column as f64);
    detector.beam_center_y_px = detector.beam_center_y_px.map(|y| y + parts[0].row as f64);
    detector.rotation_axis_px = detector.rotation_axis_px.map(|x| x + parts[0].column as f64);
    Ok(Merged {
        stream,
        places,
        gaps,
        remarks,
    })
}

fn check(index: usize, part: &Part, whole: Shape, first: &StreamDescription) -> Result<(), SourceError> {
    let stream = part.source.stream();
    let wrong = |key, value: String, expected: String| Err(SourceError::Parameter { key, value, expected });
    let (end_row, end_column) = (part.row + stream.shape.rows, part.column + stream.shape.columns);
    if end_row > whole.rows || end_column > whole.columns {
        let value = format!("{}, {} of source {index}", part.row, part.column);
        let expected = format!("its {} pixels to lie within the assembly's {whole}", stream.shape);
        return wrong("row, column", value, expected);
    }
    if stream.pixel_type != first.pixel_type {
        let value = format!("{} of source {index}", stream.pixel_type.numpy_name());
        return wrong(
            "(pixel type)",
            value,
            format!("{}, as source 0", first.pixel_type.numpy_name()),
        );
    }
    Ok(())
}

/// Says where a part contradicts the first.
fn differences(index: usize, first: &StreamDescription, stream: &StreamDescription, remarks: &mut Vec<String>) {
    let mut differ = |what: &str, one: Option<f64>, other: Option<f64>| {
        if let (Some(one), Some(other)) = (one, other)
            && (one - other).abs() > 1e-6 * one.abs()
        {
            remarks.push(format!(
                "source {index} says {what} {other}, source 0 says {one}: taken is source 0's"
            ));
        }
    };
    let (a, b) = (&first.detector, &stream.detector);
    differ("wavelength (m)", a.wavelength_m, b.wavelength_m);
    differ("distance (m)", a.distance_m, b.distance_m);
    differ("pixel size (m)", a.pixel_size_fast_m, b.pixel_size_fast_m);
    differ("count time (s)", a.count_time_s, b.count_time_s);
    differ("frame time (s)", a.frame_time_s, b.frame_time_s);
    differ("threshold energy (eV)", a.threshold_energy_ev, b.threshold_energy_ev);
    let frames = |stream: &StreamDescription| Some(stream.frames_expected as f64);
    differ("number of frames", frames(first), frames(stream));
    if (first.darks, first.flats) != (stream.darks, stream.flats) {
        remarks.push(format!(
            "source {index} has other darks or flats than source 0: taken are source 0's"
        ));
    }
}

/// Runs of pixels that no part covers.
fn gaps(owner: &[Option<usize>], pixel_bytes: usize) -> Vec<(usize, usize)> {
    let mut gaps: Vec<(usize, usize)> = Vec::new();
    for (pixel, _) in owner.iter().enumerate().filter(|(_, owner)| owner.is_none()) {
        match gaps.last_mut() {
            Some((start, bytes)) if *start + *bytes == pixel * pixel_bytes => *bytes += pixel_bytes,
            _ => gaps.push((pixel * pixel_bytes, pixel_bytes)),
        }
    }
    gaps
}
