//! From the start of a series to what the pipeline knows before the first frame.

use super::config::DectrisConfig;
use super::message::{SeriesKey, Start};
use frame::{Compression, PixelMask, PixelType, Shape, StreamDescription, codec};

/// What a start may leave open and the first image tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstImage {
    pub(super) shape: Shape,
    pub(super) pixel_type: PixelType,
}

/// A series, ready to be recorded.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) stream: StreamDescription,
    /// the channel that is recorded; none in stream V1
    pub(super) channel: Option<String>,
}

/// Whether the first image must be seen before the series can be described.
pub(super) fn needs_image(start: &Start, config: &DectrisConfig) -> bool {
    start.shape.is_none() || (start.pixel_type.is_none() && config.pixel_type.is_none())
}

/// The channel that the configuration wants.
pub(super) fn channel(start: &Start, config: &DectrisConfig) -> Result<Option<String>, String> {
    match (&config.channel, start.channels.as_slice()) {
        (Some(wanted), there) if there.contains(wanted) => Ok(Some(wanted.clone())),
        (None, [only]) => Ok(Some(only.clone())),
        (Some(_), []) => Err("source.channel is set, and the stream has no channels: leave it out".into()),
        (None, []) => Ok(None),
        (wanted, there) => Err(format!(
            "source.channel = {}: the series has the channels {}; name one of them",
            wanted.as_ref().map_or("(missing)".into(), |name| format!("{name:?}")),
            there
                .iter()
                .map(|name| format!("{name:?}"))
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}

/// Puts together what the start, the configuration and the first image say; the error is a sentence.
pub(super) fn describe(
    key: &SeriesKey,
    start: Start,
    first: Option<FirstImage>,
    config: &DectrisConfig,
    configured: Option<PixelType>,
) -> Result<Described, String> {
    let channel = channel(&start, config)?;
    let shape = start
        .shape
        .or(first.map(|first| first.shape))
        .ok_or("neither its start nor an image says the shape of its images")?;
    let pixel_type = start
        .pixel_type
        .or(first.map(|first| first.pixel_type))
        .or(configured)
        .ok_or("neither its start nor an image says the type of its pixels: set source.pixel_type")?;
    let images = start.images.or(config.images).ok_or(
        "its start does not say how many images it has: set source.images, or the stream's header_detail to \"basic\"",
    )?;
    let name = channel.clone().unwrap_or_default();
    let mut detector = start.detector;
    detector.flatfield = start.flatfields.get(&name).cloned();
    detector.countrate_table = Some(start.countrate_table).filter(|table| !table.is_empty());
    detector.threshold_energy_ev = start.thresholds_ev.get(&name).copied();
    // Both are 0 where nobody told the detector.
    if detector.beam_center_x_px == Some(0.0) && detector.beam_center_y_px == Some(0.0) {
        (detector.beam_center_x_px, detector.beam_center_y_px) = (None, None);
    }
    let mask = match start.masks.get(&name) {
        Some(bits) => Some(PixelMask::from_bits(shape, bits.clone()).map_err(|error| error.to_string())?),
        None => None,
    };
    if detector
        .flatfield
        .as_ref()
        .is_some_and(|flatfield| flatfield.len() != shape.pixels())
    {
        return Err(format!("its flat field has another shape than its images, {shape}"));
    }
    let mut metadata = start.metadata;
    metadata.insert("series_id".into(), key.id.to_string());
    if !key.unique.as_str().is_empty() {
        metadata.insert("series_unique_id".into(), key.unique.as_str().into());
    }
    if let Some(channel) = &channel {
        metadata.insert("channel".into(), channel.clone());
    }
    let frame_bytes = shape.pixels() * pixel_type.bytes();
    Ok(Described {
        stream: StreamDescription {
            origin: match &detector.name {
                Some(name) => format!("{name}, series {}", key.id),
                None => format!("DECTRIS series {}", key.id),
            },
            shape,
            pixel_type,
            compression: Compression::BitshuffleLz4,
            payload_bytes_max: codec::compress_bound(frame_bytes, pixel_type.bytes()).max(frame_bytes),
            frames_expected: images,
            darks: 0,
            flats: 0,
            angles_deg: angles(&start.axes, images),
            kinds: Vec::new(),
            pausable: false,
            parts: 0,
            saturation_value: start.saturation_value,
            mask,
            detector,
            metadata,
        },
        channel,
    })
}

/// Angles by the axis that turns: omega, or the first by name.
fn angles(axes: &std::collections::BTreeMap<String, (f64, f64)>, images: u64) -> Vec<f64> {
    let turning = |(first, increment): &(f64, f64)| first.is_finite() && increment.is_finite() && *increment != 0.0;
    let axis = axes
        .get("omega")
        .filter(|axis| turning(axis))
        .or_else(|| axes.values().find(|axis| turning(axis)));
    match axis {
        Some((first, increment)) => (0..images).map(|image| first + image as f64 * increment).collect(),
        None => Vec::new(),
    }
}
