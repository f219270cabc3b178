//! Stream V1: messages of several parts, JSON and bytes in turn (DECTRIS, "SIMPLON API", as public consumers read it).
//!
//! ```text
//! dheader-1.0      {series, header_detail}                       "none": nothing more
//!                  {the detector's configuration}                "basic"
//!                  dflatfield-1.0, bytes, dpixelmask-1.0, bytes, dcountrate_table-1.0, bytes   "all"
//!                  appendix, where one is set
//! dimage-1.0       {series, frame, hash}
//!                  dimage_d-1.0 {shape: [columns, rows], type, encoding, size}
//!                  bytes
//!                  dconfig-1.0 {start_time, stop_time, real_time in ns}
//!                  appendix, where one is set
//! dseries_end-1.0  {series}
//! ```

use super::error::{DecodeError, Found};
use super::message::{IMAGES_MAX, Image, Message, Notes, PIXELS_MAX, Packing, Pixels, SeriesKey, Short, Start};
use frame::{PixelType, Shape};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

type Result<T> = std::result::Result<T, DecodeError>;

/// Most parts of a message.
pub const PARTS_MAX: usize = 16;
/// Largest JSON part of an image.
const HEAD_BYTES_MAX: usize = 4096;
/// Largest configuration of a detector.
const CONFIGURATION_BYTES_MAX: usize = 1 << 20;

/// Whether a message may be of this version: JSON.
pub fn looks_like(first: &[u8]) -> bool {
    first.first() == Some(&b'{')
}

#[derive(Deserialize)]
struct Head<'m> {
    #[serde(borrow)]
    htype: Cow<'m, str>,
    series: Option<u64>,
    frame: Option<u64>,
    #[serde(borrow)]
    header_detail: Option<Cow<'m, str>>,
}

/// A whole number of up to three that a shape has.
#[derive(Deserialize)]
struct ArrayHead<'m> {
    #[serde(borrow)]
    htype: Cow<'m, str>,
    shape: (u64, u64),
    #[serde(borrow, rename = "type")]
    pixel_type: Cow<'m, str>,
    #[serde(borrow, default)]
    encoding: Cow<'m, str>,
}

#[derive(Deserialize)]
struct Times {
    #[serde(default)]
    start_time: f64,
    stop_time: Option<f64>,
    real_time: Option<f64>,
}

fn json<'m, T: Deserialize<'m>>(part: &'m [u8], most: usize, field: &'static str) -> Result<T> {
    if part.len() > most {
        return Err(DecodeError::new(
            field,
            Found::Number(part.len() as u64),
            "a JSON part of reasonable size",
        ));
    }
    // serde_json itself refuses nesting beyond 128 levels.
    serde_json::from_slice(part)
        .map_err(|error| DecodeError::new(field, Found::AtByte(error.column()), "JSON as stream V1 has it"))
}

/// Decodes the parts of a message.
pub fn decode<'m>(parts: &[&'m [u8]]) -> Result<Message<'m>> {
    let first = parts.first().ok_or(DecodeError::missing("part 1", "a JSON part"))?;
    let head: Head<'_> = json(first, HEAD_BYTES_MAX, "part 1")?;
    let series = SeriesKey {
        id: head
            .series
            .ok_or(DecodeError::missing("series", "the series' number"))?,
        unique: Short::new(""),
    };
    match &*head.htype {
        "dheader-1.0" => Ok(Message::Start(
            series,
            Box::new(start(parts, head.header_detail.as_deref())?),
        )),
        "dimage-1.0" => {
            let image_id = head.frame.ok_or(DecodeError::missing("frame", "the image's number"))?;
            image(parts, series, image_id)
        }
        "dseries_end-1.0" => Ok(Message::End(series)),
        other => {
            let expected = "\"dheader-1.0\", \"dimage-1.0\" or \"dseries_end-1.0\"";
            Err(DecodeError::new("htype", Found::Text(Short::new(other)), expected))
        }
    }
}

fn image<'m>(parts: &[&'m [u8]], series: SeriesKey, image_id: u64) -> Result<Message<'m>> {
    let [_, head, bytes, rest @ ..] = parts else {
        return Err(DecodeError::new(
            "parts",
            Found::Number(parts.len() as u64),
            "at least 3 parts of an image",
        ));
    };
    let head: ArrayHead<'_> = json(head, HEAD_BYTES_MAX, "part 2")?;
    if head.htype != "dimage_d-1.0" {
        return Err(DecodeError::new(
            "htype",
            Found::Text(Short::new(&head.htype)),
            "\"dimage_d-1.0\"",
        ));
    }
    let pixel_type = pixel_type(&head.pixel_type)?;
    let (mut start_time_ns, mut notes) = (0.0, Notes::default());
    if let Some(part) = rest.first() {
        let times: Times = json(part, HEAD_BYTES_MAX, "part 4")?;
        start_time_ns = times.start_time;
        for (name, time_ns) in [("real_time_s", times.real_time), ("stop_time_s", times.stop_time)] {
            if let Some(time_ns) = time_ns {
                notes.add(name, time_ns * 1e-9);
            }
        }
    }
    Ok(Message::Image(Image {
        series,
        image_id,
        start_time_ns: start_time_ns.max(0.0) as u64,
        notes,
        pixels: Pixels {
            shape: shape(head.shape)?,
            pixel_type,
            packing: packing(&head.encoding, pixel_type)?,
            bytes,
            beyond: 0,
        },
    }))
}

fn shape((columns, rows): (u64, u64)) -> Result<Shape> {
    match rows.checked_mul(columns) {
        Some(pixels) if (1..=PIXELS_MAX).contains(&pixels) => Ok(Shape::new(rows as usize, columns as usize)),
        _ => Err(DecodeError::new(
            "shape",
            Found::Pair(columns, rows),
            "1 to 67108864 pixels",
        )),
    }
}

fn pixel_type(name: &str) -> Result<PixelType> {
    PixelType::ALL
        .into_iter()
        .find(|pixel_type| pixel_type.numpy_name() == name)
        .ok_or(DecodeError::new(
            "type",
            Found::Text(Short::new(name)),
            "for example \"uint16\"",
        ))
}

/// `[bs<bits>-][lz4]<`: bits of a pixel, little-endian.
fn packing(encoding: &str, pixel_type: PixelType) -> Result<Packing> {
    match (encoding, pixel_type.bytes()) {
        ("<" | "", _) => Ok(Packing::None),
        ("lz4<", _) => Ok(Packing::Lz4Block),
        ("bs8-lz4<", 1) | ("bs16-lz4<", 2) | ("bs32-lz4<", 4) => Ok(Packing::BitshuffleLz4),
        _ => {
            let expected = "\"<\", \"lz4<\", or \"bs8-lz4<\", \"bs16-lz4<\", \"bs32-lz4<\" as the pixel type is";
            Err(DecodeError::new(
                "encoding",
                Found::Text(Short::new(encoding)),
                expected,
            ))
        }
    }
}

fn start(parts: &[&[u8]], detail: Option<&str>) -> Result<Start> {
    let mut start = Start::default();
    let rest = match detail {
        Some("none") => &parts[1..],
        Some("basic" | "all") => {
            let part = parts
                .get(1)
                .ok_or(DecodeError::missing("part 2", "the detector's configuration"))?;
            configuration(&mut start, json(part, CONFIGURATION_BYTES_MAX, "part 2")?)?;
            &parts[2..]
        }
        other => {
            let found = other.map_or(Found::Missing, |text| Found::Text(Short::new(text)));
            return Err(DecodeError::new(
                "header_detail",
                found,
                "\"none\", \"basic\" or \"all\"",
            ));
        }
    };
    let mut rest = rest.iter();
    while let Some(part) = rest.next() {
        let Ok(head) = json::<ArrayHead<'_>>(part, HEAD_BYTES_MAX, "header part") else {
            // An appendix is the user's and may be anything.
            let text = String::from_utf8_lossy(&part[..part.len().min(4096)]).into_owned();
            start.metadata.insert("header_appendix".into(), text);
            continue;
        };
        let bytes = rest
            .next()
            .ok_or(DecodeError::missing("header part", "the bytes of an array"))?;
        array(&mut start, &head, bytes)?;
    }
    Ok(start)
}

fn array(start: &mut Start, head: &ArrayHead<'_>, bytes: &[u8]) -> Result<()> {
    let (values, expected) = (bytes.as_chunks::<4>().0, "as many values as its shape has");
    let count = head.shape.0.checked_mul(head.shape.1);
    if count != Some(values.len() as u64) || !bytes.len().is_multiple_of(4) {
        return Err(DecodeError::new(
            "header array",
            Found::Pair(head.shape.0, head.shape.1),
            expected,
        ));
    }
    let floats = || values.iter().map(|value| f32::from_le_bytes(*value));
    let is_image = |start: &Start| {
        start
            .shape
            .is_none_or(|shape| (shape.columns as u64, shape.rows as u64) == head.shape)
    };
    match (&*head.htype, &*head.pixel_type) {
        ("dflatfield-1.0" | "flatfield-1.0", "float32") if is_image(start) => {
            start.flatfields.insert(String::new(), floats().collect());
        }
        ("dpixelmask-1.0", "uint32") if is_image(start) => {
            let bits = values.iter().map(|value| u32::from_le_bytes(*value)).collect();
            start.masks.insert(String::new(), bits);
        }
        ("dcountrate_table-1.0", "float32") => start.countrate_table = floats().map(f64::from).collect(),
        (htype, _) => {
            let expected = "a flat field (float32) or pixel mask (uint32) of the images' shape, or a count-rate table";
            return Err(DecodeError::new(
                "header array",
                Found::Text(Short::new(htype)),
                expected,
            ));
        }
    }
    Ok(())
}

/// The detector's configuration, by the names that SIMPLON has for it.
fn configuration(start: &mut Start, configuration: serde_json::Map<String, Value>) -> Result<()> {
    let number = |key: &str| configuration.get(key).and_then(Value::as_f64);
    let whole = |key: &str| configuration.get(key).and_then(Value::as_u64);
    let text = |key: &str| configuration.get(key).and_then(Value::as_str).map(String::from);
    if let (Some(columns), Some(rows)) = (whole("x_pixels_in_detector"), whole("y_pixels_in_detector")) {
        start.shape = Some(shape((columns, rows))?);
    }
    start.pixel_type = match whole("bit_depth_image") {
        Some(8) => Some(PixelType::U8),
        Some(16) => Some(PixelType::U16),
        Some(32) => Some(PixelType::U32),
        Some(bits) => return Err(DecodeError::new("bit_depth_image", Found::Number(bits), "8, 16 or 32")),
        None => None,
    };
    if let Some(images) = whole("nimages") {
        let images = images.saturating_mul(whole("ntrigger").unwrap_or(1).max(1));
        if !(1..=IMAGES_MAX).contains(&images) {
            return Err(DecodeError::new(
                "nimages",
                Found::Number(images),
                "1 to 100000000 images of all triggers",
            ));
        }
        start.images = Some(images);
    }
    start.saturation_value = number("countrate_correction_count_cutoff");
    let detector = &mut start.detector;
    detector.name = text("description");
    detector.serial_number = text("detector_number");
    detector.pixel_size_fast_m = number("x_pixel_size");
    detector.pixel_size_slow_m = number("y_pixel_size");
    detector.sensor_material = text("sensor_material");
    detector.sensor_thickness_m = number("sensor_thickness");
    detector.distance_m = number("detector_distance").filter(|length| *length > 0.0);
    detector.wavelength_m = number("wavelength").map(|angstrom| angstrom * 1e-10);
    detector.beam_center_x_px = number("beam_center_x");
    detector.beam_center_y_px = number("beam_center_y");
    detector.count_time_s = number("count_time");
    detector.frame_time_s = number("frame_time");
    if let Some(energy) = number("threshold_energy") {
        start.thresholds_ev.insert(String::new(), energy);
    }
    for axis in ["omega", "phi", "chi", "kappa", "two_theta"] {
        let (first, increment) = (number(&format!("{axis}_start")), number(&format!("{axis}_increment")));
        if let (Some(first), Some(increment)) = (first, increment) {
            start.axes.insert(axis.into(), (first, increment));
        }
    }
    for (key, value) in configuration
        .iter()
        .filter(|(_, value)| !value.is_array() && !value.is_object())
    {
        let key = match key.as_str() {
            "flatfield_correction_applied" => "flatfield_applied",
            "virtual_pixel_correction_applied" => "virtual_pixel_interpolation_applied",
            other => other,
        };
        let value = value.as_str().map_or_else(|| value.to_string(), String::from);
        start.metadata.insert(key.into(), value);
    }
    Ok(())
}
