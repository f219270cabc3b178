//! Messages of either version, made: for the emulator and for consumers behind Fluxline.

use super::config::Version;
use super::message::{SeriesKey, Short};
use frame::codec;
use frame::{Compression, FrameHeader, PixelType, StreamDescription};
use minicbor::data::Tag;
use minicbor::encode::Encoder;
use std::convert::Infallible;

/// The channel that is sent.
pub const CHANNEL: &str = "threshold_1";
/// Ticks of the time base per second.
const TICKS: u64 = 1_000_000_000;
/// Room for everything of an image but its bytes.
const IMAGE_HEAD_BYTES: usize = 512;

/// Bytes that an encoder writes to; memory does not refuse.
struct Out(Vec<u8>);

impl minicbor::encode::Write for Out {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> std::result::Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

type Result<T> = std::result::Result<T, minicbor::encode::Error<Infallible>>;

fn encoded(bytes: usize, write: impl FnOnce(&mut Encoder<Out>) -> Result<()>) -> Vec<u8> {
    let mut encoder = Encoder::new(Out(Vec::with_capacity(bytes)));
    // Writing to memory cannot fail.
    let _ = write(&mut encoder);
    encoder.into_writer().0
}

/// RFC 8746's tag of a little-endian array.
fn array_tag(pixel_type: PixelType) -> u64 {
    match pixel_type {
        PixelType::U8 => 64,
        PixelType::U16 => 69,
        PixelType::U32 => 70,
        PixelType::I16 => 77,
        PixelType::I32 => 78,
        PixelType::F32 => 85,
    }
}

/// A name for a series that no other has: time and a count in the 26 letters and digits that detectors use.
pub fn unique_name(unix_ns: u128, count: u64) -> Short {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let value = (unix_ns << 40) | u128::from(count & 0xff_ffff_ffff);
    let digit = |place: u32| char::from(DIGITS[(value >> (5 * place) & 31) as usize]);
    Short::new(&(0..26).rev().map(digit).collect::<String>())
}

/// Makes the messages of one series.
#[derive(Clone, Debug)]
pub struct SeriesEncoder {
    key: SeriesKey,
    version: Version,
    date: String,
    exposure_ticks: u64,
}

impl SeriesEncoder {
    /// For a series that began at `date` (RFC 3339). [`Version::Auto`] is V2.
    pub fn new(key: SeriesKey, version: Version, date: &str, stream: &StreamDescription) -> Self {
        let exposure_s = stream.detector.count_time_s.unwrap_or(0.0).clamp(0.0, 1e6);
        Self {
            key,
            version,
            date: date.into(),
            exposure_ticks: (exposure_s * TICKS as f64) as u64,
        }
    }

    fn head(&self, encoder: &mut Encoder<Out>, kind: &str, fields: u64) -> Result<()> {
        encoder.tag(Tag::new(55799))?.map(fields + 3)?;
        encoder.str("type")?.str(kind)?;
        encoder.str("series_id")?.u64(self.key.id)?;
        encoder.str("series_unique_id")?.str(self.key.unique.as_str())?;
        Ok(())
    }

    /// The parts of the message that begins the series.
    pub fn start(&self, stream: &StreamDescription) -> Vec<Vec<u8>> {
        if self.version == Version::V1 {
            return self.start_v1(stream);
        }
        let bytes = 8 * stream.shape.pixels() + 65_536;
        vec![encoded(bytes, |encoder| self.start_v2(encoder, stream))]
    }

    fn start_v2(&self, encoder: &mut Encoder<Out>, stream: &StreamDescription) -> Result<()> {
        let d = &stream.detector;
        let floats = [
            ("beam_center_x", d.beam_center_x_px),
            ("beam_center_y", d.beam_center_y_px),
            ("count_time", d.count_time_s),
            ("frame_time", d.frame_time_s),
            ("incident_wavelength", d.wavelength_m.map(|metres| metres * 1e10)),
            ("pixel_size_x", d.pixel_size_fast_m),
            ("pixel_size_y", d.pixel_size_slow_m),
            ("sensor_thickness", d.sensor_thickness_m),
            ("saturation_value", stream.saturation_value),
        ];
        let texts = [
            ("detector_description", &d.name),
            ("detector_serial_number", &d.serial_number),
            ("sensor_material", &d.sensor_material),
        ];
        let turn = turn(stream);
        let optional = floats.iter().filter(|(_, value)| value.is_some()).count()
            + texts.iter().filter(|(_, value)| value.is_some()).count()
            + [
                d.distance_m.is_some(),
                d.threshold_energy_ev.is_some(),
                d.flatfield.is_some(),
                d.countrate_table.is_some(),
                stream.mask.is_some(),
                turn.is_some(),
                stream.metadata.contains_key("user_data"),
            ]
            .iter()
            .filter(|there| **there)
            .count();
        self.head(encoder, "start", 6 + optional as u64)?;
        encoder.str("arm_date")?.tag(Tag::new(0))?.str(&self.date)?;
        encoder.str("channels")?.array(1)?.str(CHANNEL)?;
        encoder.str("image_dtype")?.str(stream.pixel_type.numpy_name())?;
        encoder.str("image_size_x")?.u64(stream.shape.columns as u64)?;
        encoder.str("image_size_y")?.u64(stream.shape.rows as u64)?;
        encoder.str("number_of_images")?.u64(stream.frames_expected)?;
        for (key, value) in floats {
            match value {
                Some(value) if key == "saturation_value" && value.fract() == 0.0 && value >= 0.0 => {
                    encoder.str(key)?.u64(value as u64)?;
                }
                Some(value) => {
                    encoder.str(key)?.f64(value)?;
                }
                None => {}
            }
        }
        for (key, value) in texts {
            if let Some(value) = value {
                encoder.str(key)?.str(value)?;
            }
        }
        if let Some(metres) = d.distance_m {
            encoder
                .str("detector_translation")?
                .array(3)?
                .f64(0.0)?
                .f64(0.0)?
                .f64(metres)?;
        }
        if let Some(energy) = d.threshold_energy_ev {
            encoder.str("threshold_energy")?.map(1)?.str(CHANNEL)?.f64(energy)?;
        }
        if let Some((first, increment)) = turn {
            encoder.str("goniometer")?.map(1)?.str("omega")?.map(2)?;
            encoder.str("start")?.f64(first)?.str("increment")?.f64(increment)?;
        }
        if let Some(text) = stream.metadata.get("user_data") {
            encoder.str("user_data")?.str(text)?;
        }
        if let Some(table) = &d.countrate_table {
            let bytes: Vec<u8> = table.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
            encoder
                .str("countrate_correction_lookup_table")?
                .tag(Tag::new(85))?
                .bytes(&bytes)?;
        }
        if let Some(factors) = &d.flatfield {
            let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
            encoder.str("flatfield")?.map(1)?.str(CHANNEL)?;
            dimensions(encoder, stream)?.tag(Tag::new(85))?.bytes(&bytes)?;
        }
        if let Some(mask) = &stream.mask {
            let bytes: Vec<u8> = mask.bits().iter().flat_map(|bits| bits.to_le_bytes()).collect();
            encoder.str("pixel_mask")?.map(1)?.str(CHANNEL)?;
            dimensions(encoder, stream)?.tag(Tag::new(70))?.bytes(&bytes)?;
        }
        Ok(())
    }

    /// The parts of an image's message. The payload is copied once, into memory that ZeroMQ then owns.
    pub fn image(&self, header: &FrameHeader, payload: &[u8], stream: &StreamDescription) -> Vec<Vec<u8>> {
        let start = header.detector_time_ns.get();
        let times = (start, start + self.exposure_ticks);
        if self.version == Version::V1 {
            return self.image_v1(header, payload, stream, times);
        }
        let head = encoded(IMAGE_HEAD_BYTES, |encoder| {
            self.image_head(encoder, header, payload.len(), stream, times)
        });
        // Exactly as long as it will be: a larger one would be copied once more when it is handed over.
        let mut message = Vec::with_capacity(head.len() + payload.len());
        message.extend_from_slice(&head);
        message.extend_from_slice(payload);
        vec![message]
    }

    fn image_head(
        &self,
        encoder: &mut Encoder<Out>,
        header: &FrameHeader,
        payload_bytes: usize,
        stream: &StreamDescription,
        (start, stop): (u64, u64),
    ) -> Result<()> {
        self.head(encoder, "image", 6)?;
        encoder.str("image_id")?.u64(header.frame_number.get())?;
        encoder
            .str("real_time")?
            .array(2)?
            .u64(self.exposure_ticks)?
            .u64(TICKS)?;
        encoder.str("series_date")?.tag(Tag::new(0))?.str(&self.date)?;
        encoder.str("start_time")?.array(2)?.u64(start)?.u64(TICKS)?;
        encoder.str("stop_time")?.array(2)?.u64(stop)?.u64(TICKS)?;
        encoder.str("data")?.map(1)?.str(CHANNEL)?;
        dimensions(encoder, stream)?.tag(Tag::new(array_tag(stream.pixel_type)))?;
        let algorithm = match Compression::from_code(header.compression) {
            Some(Compression::BitshuffleLz4) => Some("bslz4"),
            Some(Compression::BitshuffleZstd) => Some("bszstd"),
            _ => None,
        };
        if let Some(algorithm) = algorithm {
            encoder.tag(Tag::new(56500))?.array(3)?.str(algorithm)?;
            encoder.u64(stream.pixel_type.bytes() as u64)?;
        }
        // The head of a byte string; its bytes follow.
        let length = payload_bytes as u64;
        let writer = &mut encoder.writer_mut().0;
        match length {
            0..=0x17 => writer.push(0x40 | length as u8),
            0x18..=0xff => writer.extend([0x58, length as u8]),
            0x100..=0xffff => writer.extend([&[0x59][..], &(length as u16).to_be_bytes()].concat()),
            0x1_0000..=0xffff_ffff => writer.extend([&[0x5a][..], &(length as u32).to_be_bytes()].concat()),
            _ => writer.extend([&[0x5b][..], &length.to_be_bytes()].concat()),
        }
        Ok(())
    }

    /// The parts of the message that ends the series.
    pub fn end(&self) -> Vec<Vec<u8>> {
        if self.version == Version::V1 {
            let head = serde_json::json!({ "htype": "dseries_end-1.0", "series": self.key.id });
            return vec![head.to_string().into_bytes()];
        }
        vec![encoded(128, |encoder| self.head(encoder, "end", 0))]
    }

    fn start_v1(&self, stream: &StreamDescription) -> Vec<Vec<u8>> {
        let (d, shape) = (&stream.detector, stream.shape);
        let head = serde_json::json!({ "htype": "dheader-1.0", "series": self.key.id, "header_detail": "all" });
        let mut configuration = serde_json::json!({
            "x_pixels_in_detector": shape.columns, "y_pixels_in_detector": shape.rows,
            "bit_depth_image": 8 * stream.pixel_type.bytes(), "nimages": stream.frames_expected, "ntrigger": 1,
            "compression": "bslz4", "description": d.name, "detector_number": d.serial_number,
            "x_pixel_size": d.pixel_size_fast_m, "y_pixel_size": d.pixel_size_slow_m,
            "sensor_material": d.sensor_material, "sensor_thickness": d.sensor_thickness_m,
            "detector_distance": d.distance_m, "wavelength": d.wavelength_m.map(|metres| metres * 1e10),
            "beam_center_x": d.beam_center_x_px, "beam_center_y": d.beam_center_y_px,
            "count_time": d.count_time_s, "frame_time": d.frame_time_s,
            "threshold_energy": d.threshold_energy_ev, "countrate_correction_count_cutoff": stream.saturation_value,
        });
        if let (Some((first, increment)), Some(map)) = (turn(stream), configuration.as_object_mut()) {
            map.insert("omega_start".into(), first.into());
            map.insert("omega_increment".into(), increment.into());
        }
        let mut parts = vec![head.to_string().into_bytes(), configuration.to_string().into_bytes()];
        let mut array = |htype: &str, kind: &str, shape: [usize; 2], bytes: Vec<u8>| {
            let head = serde_json::json!({ "htype": htype, "shape": shape, "type": kind });
            parts.extend([head.to_string().into_bytes(), bytes]);
        };
        let image = [shape.columns, shape.rows];
        if let Some(factors) = &d.flatfield {
            let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
            array("dflatfield-1.0", "float32", image, bytes);
        }
        if let Some(mask) = &stream.mask {
            let bytes = mask.bits().iter().flat_map(|bits| bits.to_le_bytes()).collect();
            array("dpixelmask-1.0", "uint32", image, bytes);
        }
        if let Some(table) = &d.countrate_table {
            let bytes = table.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
            array("dcountrate_table-1.0", "float32", [1, table.len()], bytes);
        }
        parts
    }

    fn image_v1(
        &self,
        header: &FrameHeader,
        payload: &[u8],
        stream: &StreamDescription,
        (start, stop): (u64, u64),
    ) -> Vec<Vec<u8>> {
        let bits = 8 * stream.pixel_type.bytes();
        // Stream V1 has no name for Zstandard. A payload that cannot be unpacked goes as it is, and is refused there.
        let mut plain = Vec::new();
        let payload = if header.compression == Compression::BitshuffleZstd as u8 {
            plain.resize(stream.frame_bytes(), 0);
            let (beneath, scratch) = (codec::Beneath::Zstd, &mut codec::Scratch::default());
            match codec::decompress(beneath, payload, stream.pixel_type.bytes(), &mut plain, scratch) {
                Ok(()) => &plain[..],
                Err(_) => payload,
            }
        } else {
            payload
        };
        let packed = header.compression == Compression::BitshuffleLz4 as u8;
        let encoding = if packed { format!("bs{bits}-lz4<") } else { "<".into() };
        let head = serde_json::json!({
            "htype": "dimage-1.0", "series": self.key.id, "frame": header.frame_number.get(), "hash": "",
        });
        let array = serde_json::json!({
            "htype": "dimage_d-1.0", "shape": [stream.shape.columns, stream.shape.rows],
            "type": stream.pixel_type.numpy_name(), "encoding": encoding, "size": payload.len(),
        });
        let times = serde_json::json!({
            "htype": "dconfig-1.0", "start_time": start, "stop_time": stop, "real_time": self.exposure_ticks,
        });
        let text = |value: serde_json::Value| value.to_string().into_bytes();
        vec![text(head), text(array), payload.to_vec(), text(times)]
    }
}

fn dimensions<'e>(encoder: &'e mut Encoder<Out>, stream: &StreamDescription) -> Result<&'e mut Encoder<Out>> {
    encoder.tag(Tag::new(40))?.array(2)?.array(2)?;
    encoder.u64(stream.shape.rows as u64)?.u64(stream.shape.columns as u64)
}

/// Start and increment of the angles, where they are even.
fn turn(stream: &StreamDescription) -> Option<(f64, f64)> {
    let [first, second, ..] = stream.angles_deg.as_slice() else {
        return None;
    };
    let increment = second - first;
    let even = |(i, angle): (usize, &f64)| (angle - (first + i as f64 * increment)).abs() < 1e-9;
    (increment != 0.0 && stream.angles_deg.iter().enumerate().all(even)).then_some((*first, increment))
}
