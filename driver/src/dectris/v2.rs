//! Stream V2: one CBOR map a message (DECTRIS, `stream_v2/README.md` of the public documentation; RFC 8746 arrays; tag
//! 56500 for compressed byte strings). An image stays where it is: [`decode`] allocates for `start` only.

use super::error::{DecodeError, Found};
use super::message::{
    CHANNELS_MAX, IMAGES_MAX, Image, Message, Notes, PIXELS_MAX, Packing, Pixels, SeriesKey, Short, Start,
};
use super::reader::Reader;
use frame::codec;
use frame::{PixelType, Shape};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, DecodeError>;

/// "This is CBOR" (RFC 8949, 3.4.6).
const SELF_DESCRIBED: u64 = 55799;
/// An array of several dimensions, rows first (RFC 8746, 3.1.1).
const MULTI_DIMENSIONAL: u64 = 40;
/// A compressed byte string (`cbor/dectris-compression-tag.md`).
const COMPRESSED: u64 = 56500;
/// Little-endian `f32` (RFC 8746, 2.1).
const FLOATS: u64 = 85;

/// An array of a start message, still in the message.
struct RawArray<'m> {
    tag: u64,
    shape: Option<Shape>,
    bytes: &'m [u8],
    /// bytes that follow `bytes` and are not here yet
    beyond: usize,
    packing: Packing,
}

/// Whether a message may be of this version: a map, or the tag that says so.
pub fn looks_like(message: &[u8]) -> bool {
    message.starts_with(&[0xd9, 0xd9, 0xf7]) || message.first().is_some_and(|byte| (0xa0..=0xbf).contains(byte))
}

/// Decodes a message. Of an image the channel called `channel` is taken, or the first.
pub fn decode<'m>(message: &'m [u8], channel: Option<&str>) -> Result<Message<'m>> {
    decode_head(message, 0, channel)
}

/// As [`decode`], of a message whose last `beyond` bytes have not come yet. They must all be pixels: of an image whose wanted
/// channel ends the message, [`Pixels::beyond`] says so; anything else is an error until the message is whole.
pub fn decode_head<'m>(message: &'m [u8], beyond: usize, channel: Option<&str>) -> Result<Message<'m>> {
    let mut reader = Reader::new(message, beyond);
    if reader.kind("message")? == minicbor::data::Type::Tag {
        let tag = reader.tag("message")?;
        if tag != SELF_DESCRIBED {
            return Err(DecodeError::new(
                "message",
                Found::Number(tag),
                "a map, or tag 55799 and a map",
            ));
        }
    }
    let mut fields = Fields::default();
    reader.map("message", |reader, key| fields.entry(reader, key, channel))?;
    if !reader.at_end() {
        return Err(DecodeError::new(
            "message",
            Found::AtByte(message.len()),
            "nothing behind the map",
        ));
    }
    let told = fields.pixels.map_or(0, |pixels| pixels.beyond);
    if told != beyond {
        let found = Found::Number(beyond as u64);
        return Err(DecodeError::new(
            "message",
            found,
            "the whole message, or all but pixels",
        ));
    }
    fields.finish(message.len())
}

#[derive(Default)]
struct Fields<'m> {
    kind: Option<&'m str>,
    id: Option<u64>,
    unique: Option<Short>,
    image_id: Option<u64>,
    start_time_ns: u64,
    notes: Notes<'m>,
    pixels: Option<Pixels<'m>>,
    start: Option<Box<StartFields<'m>>>,
}

#[derive(Default)]
struct StartFields<'m> {
    start: Start,
    rows: Option<u64>,
    columns: Option<u64>,
    masks: Vec<(&'m str, RawArray<'m>)>,
    flatfields: Vec<(&'m str, RawArray<'m>)>,
    countrate: Option<RawArray<'m>>,
}

impl<'m> Fields<'m> {
    fn entry(&mut self, reader: &mut Reader<'m>, key: &'m str, channel: Option<&str>) -> Result<()> {
        match key {
            "type" => self.kind = Some(reader.text("type")?),
            "series_id" => self.id = Some(reader.number("series_id")?),
            "series_unique_id" => {
                let text = reader.text("series_unique_id")?;
                if text.is_empty() || text.len() > 64 {
                    let found = Found::Number(text.len() as u64);
                    return Err(DecodeError::new("series_unique_id", found, "1 to 64 bytes of text"));
                }
                self.unique = Some(Short::new(text));
            }
            "image_id" => self.image_id = Some(reader.number("image_id")?),
            "start_time" => self.start_time_ns = nanoseconds(reader, "start_time")?,
            "data" => self.pixels = data(reader, channel)?,
            "real_time" if self.kind == Some("image") => {
                let real_time_ns = nanoseconds(reader, "real_time")?;
                self.notes.add("real_time_s", real_time_ns as f64 * 1e-9);
            }
            "stop_time" if self.kind == Some("image") => {
                let stop_time_ns = nanoseconds(reader, "stop_time")?;
                self.notes.add("stop_time_s", stop_time_ns as f64 * 1e-9);
            }
            "user_data" if self.kind == Some("image") => user_data(reader, &mut self.notes)?,
            // `type` comes first, so an image's other fields cost no more than stepping over them.
            _ if matches!(self.kind, Some("image" | "end")) => reader.skip("image")?,
            _ => self.start.get_or_insert_default().entry(reader, key)?,
        }
        Ok(())
    }

    fn finish(self, message_bytes: usize) -> Result<Message<'m>> {
        let kind = self
            .kind
            .ok_or(DecodeError::missing("type", "\"start\", \"image\" or \"end\""))?;
        let series = SeriesKey {
            id: self.id.ok_or(DecodeError::missing("series_id", "the series' number"))?,
            unique: self
                .unique
                .ok_or(DecodeError::missing("series_unique_id", "the series' name"))?,
        };
        match kind {
            "start" => {
                let fields = self.start.unwrap_or_default();
                Ok(Message::Start(series, Box::new(fields.finish(message_bytes)?)))
            }
            "image" => Ok(Message::Image(Image {
                series,
                image_id: self
                    .image_id
                    .ok_or(DecodeError::missing("image_id", "the image's number"))?,
                start_time_ns: self.start_time_ns,
                notes: self.notes,
                pixels: self
                    .pixels
                    .ok_or(DecodeError::missing("data", "the configured channel"))?,
            })),
            "end" => Ok(Message::End(series)),
            other => Err(DecodeError::new(
                "type",
                Reader::found(other),
                "\"start\", \"image\" or \"end\"",
            )),
        }
    }
}

/// A time as [numerator, denominator] in seconds.
fn nanoseconds(reader: &mut Reader<'_>, field: &'static str) -> Result<u64> {
    reader.array_of(field, 2, "[numerator, denominator]")?;
    let (numerator, denominator) = (reader.number(field)?, reader.number(field)?);
    let expected = "a denominator above 0, and a time below 584 years";
    (u128::from(numerator) * 1_000_000_000)
        .checked_div(u128::from(denominator))
        .and_then(|ns| u64::try_from(ns).ok())
        .ok_or(DecodeError::new(field, Found::Number(denominator), expected))
}

/// The numbers of an image's `user_data`: a number alone, or those of a map. Anything else is stepped over.
fn user_data<'m>(reader: &mut Reader<'m>, notes: &mut Notes<'m>) -> Result<()> {
    if reader.is_number("user_data")? {
        notes.add("user_data", reader.float("user_data")?);
        return Ok(());
    }
    if !reader.is_map("user_data")? {
        return reader.skip("user_data");
    }
    reader.map_within("user_data", |reader, key| {
        match key {
            Some(key) if reader.is_number("user_data")? => notes.add(key, reader.float("user_data")?),
            _ => reader.skip("user_data")?,
        }
        Ok(())
    })
}

/// The wanted channel of an image.
fn data<'m>(reader: &mut Reader<'m>, channel: Option<&str>) -> Result<Option<Pixels<'m>>> {
    let (mut wanted, mut channels) = (None, 0);
    reader.map("data", |reader, name| {
        channels += 1;
        if channels > CHANNELS_MAX {
            return Err(DecodeError::new(
                "data",
                Found::Number(channels as u64),
                "at most 16 channels",
            ));
        }
        if wanted.is_none() && channel.is_none_or(|channel| channel == name) {
            wanted = Some(pixels(reader)?);
            Ok(())
        } else {
            reader.skip("data")
        }
    })?;
    Ok(wanted)
}

fn pixels<'m>(reader: &mut Reader<'m>) -> Result<Pixels<'m>> {
    let array = raw_array(reader, "data")?;
    let pixel_type = match array.tag {
        64 => PixelType::U8,
        69 => PixelType::U16,
        70 => PixelType::U32,
        77 => PixelType::I16,
        78 => PixelType::I32,
        FLOATS => PixelType::F32,
        tag => return Err(DecodeError::new("data", Found::Number(tag), ARRAY_TAGS)),
    };
    Ok(Pixels {
        shape: array
            .shape
            .ok_or(DecodeError::missing("data.shape", "[rows, columns], by tag 40"))?,
        pixel_type,
        packing: array.packing,
        bytes: array.bytes,
        beyond: array.beyond,
    })
}

const ARRAY_TAGS: &str = "a little-endian array: tag 64 (u8), 69 (u16), 70 (u32), 77 (i16), 78 (i32) or 85 (f32)";

/// A typed array, with or without dimensions, compressed or not.
fn raw_array<'m>(reader: &mut Reader<'m>, field: &'static str) -> Result<RawArray<'m>> {
    let mut tag = reader.tag(field)?;
    let mut shape = None;
    if tag == MULTI_DIMENSIONAL {
        reader.array_of(field, 2, "[dimensions, values]")?;
        reader.array_of(field, 2, "two dimensions")?;
        let (rows, columns) = (reader.number(field)?, reader.number(field)?);
        shape = Some(bounded(field, rows, columns)?);
        tag = reader.tag(field)?;
    }
    let mut packing = Packing::None;
    if reader.kind(field)? == minicbor::data::Type::Tag {
        let inner = reader.tag(field)?;
        if inner != COMPRESSED {
            return Err(DecodeError::new(
                field,
                Found::Number(inner),
                "bytes, or tag 56500 around them",
            ));
        }
        reader.array_of(field, 3, "[algorithm, element size, bytes]")?;
        let algorithm = reader.text(field)?;
        let element_bytes = reader.number(field)?;
        packing = match algorithm {
            "bslz4" if matches!(element_bytes, 1 | 2 | 4) => Packing::BitshuffleLz4,
            "bszstd" if matches!(element_bytes, 1 | 2 | 4) => Packing::BitshuffleZstd,
            "bslz4" | "bszstd" => {
                return Err(DecodeError::new(
                    field,
                    Found::Number(element_bytes),
                    "elements of 1, 2 or 4 bytes",
                ));
            }
            "lz4" => Packing::Lz4Framed,
            other => {
                let expected = "\"bslz4\", \"bszstd\" or \"lz4\"";
                return Err(DecodeError::new(field, Reader::found(other), expected));
            }
        };
        if packing != Packing::Lz4Framed && element_bytes as usize != element(tag) {
            let expected = "bitshuffle's element size to be that of a pixel";
            return Err(DecodeError::new(field, Found::Number(element_bytes), expected));
        }
    }
    let (bytes, beyond) = reader.last_bytes(field)?;
    Ok(RawArray {
        tag,
        shape,
        bytes,
        beyond,
        packing,
    })
}

/// Bytes of an element of the arrays that this program reads.
fn element(tag: u64) -> usize {
    match tag {
        64 => 1,
        69 | 77 => 2,
        _ => 4,
    }
}

fn bounded(field: &'static str, rows: u64, columns: u64) -> Result<Shape> {
    let pixels = rows
        .checked_mul(columns)
        .filter(|pixels| (1..=PIXELS_MAX).contains(pixels));
    match pixels {
        Some(_) => Ok(Shape::new(rows as usize, columns as usize)),
        None => Err(DecodeError::new(
            field,
            Found::Pair(rows, columns),
            "1 to 67108864 pixels",
        )),
    }
}

impl<'m> StartFields<'m> {
    fn entry(&mut self, reader: &mut Reader<'m>, key: &'m str) -> Result<()> {
        let start = &mut self.start;
        let detector = &mut start.detector;
        match key {
            "channels" => reader.array("channels", |reader| {
                if start.channels.len() == CHANNELS_MAX {
                    return Err(DecodeError::new("channels", Found::Number(17), "at most 16 channels"));
                }
                start.channels.push(reader.text("channels")?.into());
                Ok(())
            })?,
            "image_dtype" => {
                let name = reader.text("image_dtype")?;
                start.pixel_type = Some(
                    PixelType::ALL
                        .into_iter()
                        .find(|pixel_type| pixel_type.numpy_name() == name)
                        .ok_or(DecodeError::new(
                            "image_dtype",
                            Reader::found(name),
                            "for example \"uint16\"",
                        ))?,
                );
            }
            "image_size_x" => self.columns = Some(reader.number("image_size_x")?),
            "image_size_y" => self.rows = Some(reader.number("image_size_y")?),
            "number_of_images" => {
                let images = reader.number("number_of_images")?;
                if !(1..=IMAGES_MAX).contains(&images) {
                    let found = Found::Number(images);
                    return Err(DecodeError::new("number_of_images", found, "1 to 100000000"));
                }
                start.images = Some(images);
            }
            "saturation_value" => start.saturation_value = Some(reader.float("saturation_value")?),
            "beam_center_x" => detector.beam_center_x_px = Some(reader.float("beam_center_x")?),
            "beam_center_y" => detector.beam_center_y_px = Some(reader.float("beam_center_y")?),
            "count_time" => detector.count_time_s = Some(reader.float("count_time")?),
            "frame_time" => detector.frame_time_s = Some(reader.float("frame_time")?),
            "pixel_size_x" => detector.pixel_size_fast_m = Some(reader.float("pixel_size_x")?),
            "pixel_size_y" => detector.pixel_size_slow_m = Some(reader.float("pixel_size_y")?),
            "sensor_material" => detector.sensor_material = Some(reader.text("sensor_material")?.into()),
            "sensor_thickness" => detector.sensor_thickness_m = Some(reader.float("sensor_thickness")?),
            "detector_description" => detector.name = Some(reader.text("detector_description")?.into()),
            "detector_serial_number" => detector.serial_number = Some(reader.text("detector_serial_number")?.into()),
            "incident_wavelength" => detector.wavelength_m = Some(reader.float("incident_wavelength")? * 1e-10),
            "detector_translation" => {
                let mut along = [0.0; 3];
                reader.array_of("detector_translation", 3, "three lengths in metres")?;
                for length in &mut along {
                    *length = reader.float("detector_translation")?;
                }
                // A detector that nobody told where it stands says 0.
                detector.distance_m = Some(along[2].abs()).filter(|length| *length > 0.0);
            }
            "threshold_energy" => reader.map("threshold_energy", |reader, channel| {
                let energy = reader.float("threshold_energy")?;
                start.thresholds_ev.insert(channel.into(), energy);
                bounded_map("threshold_energy", start.thresholds_ev.len())
            })?,
            "goniometer" => reader.map("goniometer", |reader, axis| {
                let (mut first, mut increment) = (0.0, 0.0);
                reader.map("goniometer", |reader, key| {
                    match key {
                        "start" => first = reader.float("goniometer.start")?,
                        "increment" => increment = reader.float("goniometer.increment")?,
                        _ => reader.skip("goniometer")?,
                    }
                    Ok(())
                })?;
                start.axes.insert(axis.into(), (first, increment));
                bounded_map("goniometer", start.axes.len())
            })?,
            "pixel_mask" => arrays(reader, "pixel_mask", &mut self.masks)?,
            "flatfield" => arrays(reader, "flatfield", &mut self.flatfields)?,
            "countrate_correction_lookup_table" => {
                self.countrate = Some(raw_array(reader, "countrate_correction_lookup_table")?);
            }
            _ => {
                let value = reader.json("start")?;
                bounded_map("start", start.metadata.len())?;
                let text = match value {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                };
                start.metadata.insert(applied(key).into(), text);
            }
        }
        Ok(())
    }

    fn finish(self, message_bytes: usize) -> Result<Start> {
        let mut start = self.start;
        let (rows, columns) = (
            self.rows
                .ok_or(DecodeError::missing("image_size_y", "rows of an image"))?,
            self.columns
                .ok_or(DecodeError::missing("image_size_x", "columns of an image"))?,
        );
        let shape = bounded("image_size", rows, columns)?;
        start.shape = Some(shape);
        let channels = start.channels.len().max(1);
        let most = 16 * shape.pixels() * channels + (1 << 20);
        if message_bytes > most {
            let found = Found::Number(message_bytes as u64);
            return Err(DecodeError::new(
                "message",
                found,
                "at most 16 bytes per pixel and channel and 1 MiB",
            ));
        }
        start.masks = images(&self.masks, "pixel_mask", shape, 70, u32::from_le_bytes)?;
        start.flatfields = images(&self.flatfields, "flatfield", shape, FLOATS, f32::from_le_bytes)?;
        if let Some(table) = &self.countrate {
            start.countrate_table = countrates(table)?;
        }
        Ok(start)
    }
}

fn bounded_map(field: &'static str, entries: usize) -> Result<()> {
    if entries > 256 {
        return Err(DecodeError::new(
            field,
            Found::Number(entries as u64),
            "at most 256 entries",
        ));
    }
    Ok(())
}

/// The name that NeXus has for a correction that is switched on.
fn applied(key: &str) -> &str {
    match key {
        "flatfield_enabled" => "flatfield_applied",
        "pixel_mask_enabled" => "pixel_mask_applied",
        "countrate_correction_enabled" => "countrate_correction_applied",
        "virtual_pixel_interpolation_enabled" => "virtual_pixel_interpolation_applied",
        other => other,
    }
}

fn arrays<'m>(reader: &mut Reader<'m>, field: &'static str, into: &mut Vec<(&'m str, RawArray<'m>)>) -> Result<()> {
    reader.map(field, |reader, channel| {
        if into.len() == CHANNELS_MAX {
            return Err(DecodeError::new(field, Found::Number(17), "at most 16 channels"));
        }
        into.push((channel, raw_array(reader, field)?));
        Ok(())
    })
}

/// Images of four-byte values by channel, of exactly `shape`.
fn images<T>(
    arrays: &[(&str, RawArray<'_>)],
    field: &'static str,
    shape: Shape,
    tag: u64,
    value: impl Fn([u8; 4]) -> T,
) -> Result<BTreeMap<String, Vec<T>>> {
    let mut images = BTreeMap::new();
    for (channel, array) in arrays {
        if array.tag != tag {
            return Err(DecodeError::new(
                field,
                Found::Number(array.tag),
                "tag 70 (mask) or 85 (flat field)",
            ));
        }
        if array.shape != Some(shape) {
            let found = array
                .shape
                .map_or(Found::Missing, |s| Found::Pair(s.rows as u64, s.columns as u64));
            return Err(DecodeError::new(field, found, "image_size_y x image_size_x"));
        }
        let bytes = unpacked(array, field, 4 * shape.pixels())?;
        images.insert(
            (*channel).into(),
            bytes.as_chunks().0.iter().map(|chunk| value(*chunk)).collect(),
        );
    }
    Ok(images)
}

/// The bytes of an array whose size is known beforehand.
fn unpacked<'m>(array: &RawArray<'m>, field: &'static str, bytes: usize) -> Result<std::borrow::Cow<'m, [u8]>> {
    let wrong = |found: usize| DecodeError::new(field, Found::Number(found as u64), "as many bytes as its shape needs");
    let broken = DecodeError::new(
        field,
        Found::Number(array.bytes.len() as u64),
        "bytes that can be decompressed",
    );
    if array.packing == Packing::None {
        return if array.bytes.len() == bytes {
            Ok(array.bytes.into())
        } else {
            Err(wrong(array.bytes.len()))
        };
    }
    let declared = array
        .bytes
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes));
    if declared != bytes as u64 {
        return Err(wrong(declared as usize));
    }
    let beneath = match array.packing {
        Packing::BitshuffleZstd => codec::Beneath::Zstd,
        _ => codec::Beneath::Lz4,
    };
    if !codec::plausible(beneath, array.bytes) {
        return Err(broken);
    }
    let mut out = vec![0; bytes];
    match array.packing {
        Packing::BitshuffleLz4 => {
            codec::decompress_into(array.bytes, element(array.tag), &mut out).map_err(|_| broken)?
        }
        Packing::BitshuffleZstd => {
            let (beneath, mut scratch) = (codec::Beneath::Zstd, codec::Scratch::default());
            codec::decompress(beneath, array.bytes, element(array.tag), &mut out, &mut scratch).map_err(|_| broken)?
        }
        _ => codec::lz4_framed_into(array.bytes, &mut out).map_err(|_| broken)?,
    }
    Ok(out.into())
}

/// The count-rate table: corrected counts by measured ones.
fn countrates(table: &RawArray<'_>) -> Result<Vec<f64>> {
    const FIELD: &str = "countrate_correction_lookup_table";
    let values_max = 1 << 22;
    let bytes = match table.packing {
        Packing::None => table.bytes.len(),
        _ => table
            .bytes
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_be_bytes(*bytes)) as usize,
    };
    if !bytes.is_multiple_of(element(table.tag)) || bytes > 4 * values_max {
        return Err(DecodeError::new(
            FIELD,
            Found::Number(bytes as u64),
            "whole values, at most 16777216 bytes",
        ));
    }
    let bytes = unpacked(table, FIELD, bytes)?;
    let fours = || bytes.as_chunks::<4>().0.iter();
    Ok(match table.tag {
        70 => fours().map(|chunk| f64::from(u32::from_le_bytes(*chunk))).collect(),
        FLOATS => fours().map(|chunk| f64::from(f32::from_le_bytes(*chunk))).collect(),
        69 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|chunk| f64::from(u16::from_le_bytes(*chunk)))
            .collect(),
        tag => {
            return Err(DecodeError::new(
                FIELD,
                Found::Number(tag),
                "tag 69 (u16), 70 (u32) or 85 (f32)",
            ));
        }
    })
}
