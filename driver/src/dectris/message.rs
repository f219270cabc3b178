//! What the messages of either stream version say, once decoded.

use super::error::{DecodeError, Found};
use frame::codec;
use frame::stream::DetectorDescription;
use frame::{PixelType, Shape};
use std::collections::BTreeMap;

/// Most pixels of an image.
pub const PIXELS_MAX: u64 = 1 << 26;
/// Most channels of an image.
pub const CHANNELS_MAX: usize = 16;
/// Most images of a series.
pub const IMAGES_MAX: u64 = 100_000_000;

/// A short text without a place on the heap; longer ones are cut at 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Short {
    bytes: [u8; 64],
    used: u8,
}

impl Short {
    /// The first bytes of `text`, whole characters only.
    pub fn new(text: &str) -> Self {
        let used = (0..=text.len().min(64))
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        let mut bytes = [0; 64];
        bytes[..used].copy_from_slice(&text.as_bytes()[..used]);
        Self {
            bytes,
            used: used as u8,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.used)]).unwrap_or_default()
    }
}

impl std::fmt::Debug for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Which series a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesKey {
    /// the series' number, which begins again when the detector restarts
    pub id: u64,
    /// the series' unique name; empty in stream V1, which has none
    pub unique: Short,
}

/// How an image's bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// plain pixels, row by row
    None,
    /// bitshuffle and LZ4 as HDF5's filter 32008 frames them
    BitshuffleLz4,
    /// bitshuffle and Zstandard, framed in the same way (stream V2)
    BitshuffleZstd,
    /// LZ4 as HDF5's filter 32004 frames it (stream V2)
    Lz4Framed,
    /// one LZ4 block without a frame (stream V1)
    Lz4Block,
}

/// One channel of an image, still in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pixels<'m> {
    /// rows and columns
    pub shape: Shape,
    /// type of a pixel
    pub pixel_type: PixelType,
    /// how the bytes are packed
    pub packing: Packing,
    /// the bytes as they came
    pub bytes: &'m [u8],
    /// bytes that follow them and are still on their way
    pub beyond: usize,
}

impl Pixels<'_> {
    /// Bytes, with those that are still on their way.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len().saturating_add(self.beyond)
    }

    /// Checks, before anything is unpacked, that the bytes claim to be a frame of `shape` and `pixel_type`.
    pub fn check(&self, shape: Shape, pixel_type: PixelType) -> Result<(), DecodeError> {
        if self.shape != shape {
            let found = Found::Pair(self.shape.rows as u64, self.shape.columns as u64);
            return Err(DecodeError::new(
                "data.shape",
                found,
                "the shape that the series began with",
            ));
        }
        if self.pixel_type != pixel_type {
            let found = Found::Text(Short::new(self.pixel_type.numpy_name()));
            return Err(DecodeError::new(
                "data.dtype",
                found,
                "the pixel type that the series began with",
            ));
        }
        let frame_bytes = shape.pixels() * pixel_type.bytes();
        let size = |found: u64| DecodeError::new("data.size", Found::Number(found), "the bytes of one frame");
        match self.packing {
            Packing::None if self.total_bytes() != frame_bytes => Err(size(self.total_bytes() as u64)),
            Packing::BitshuffleLz4 | Packing::BitshuffleZstd | Packing::Lz4Framed => {
                let declared = self.bytes.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
                match declared {
                    Some(declared) if declared == frame_bytes as u64 => {}
                    other => return Err(size(other.unwrap_or(0))),
                }
                let most = codec::compress_bound(frame_bytes, pixel_type.bytes());
                if self.total_bytes() > most {
                    let found = Found::Number(self.total_bytes() as u64);
                    return Err(DecodeError::new(
                        "data.size",
                        found,
                        "no more than a frame can need once compressed",
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Most numbers that are taken from an image's message.
pub const NOTES_MAX: usize = 16;

/// Numbers of an image's message, by the names that they have there. What is beyond the limit is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Notes<'m> {
    values: [(&'m str, f64); NOTES_MAX],
    used: usize,
}

impl<'m> Notes<'m> {
    pub(super) fn add(&mut self, name: &'m str, value: f64) {
        if let Some(place) = self.values.get_mut(self.used) {
            *place = (name, value);
            self.used += 1;
        }
    }

    /// Name and value of each.
    pub fn values(&self) -> &[(&'m str, f64)] {
        &self.values[..self.used]
    }
}

/// One image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Image<'m> {
    /// its series
    pub series: SeriesKey,
    /// its number within the series, from 0
    pub image_id: u64,
    /// start of the exposure, nanoseconds since the series began; 0 where the message does not say
    pub start_time_ns: u64,
    /// other numbers of the message: times, and the numbers of its `user_data`
    pub notes: Notes<'m>,
    /// the wanted channel
    pub pixels: Pixels<'m>,
}

/// What a series begins with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Start {
    /// channels in their order; empty in stream V1
    pub channels: Vec<String>,
    /// rows and columns
    pub shape: Option<Shape>,
    /// type of a pixel
    pub pixel_type: Option<PixelType>,
    /// images of the series
    pub images: Option<u64>,
    /// pixels above are saturated; in counts
    pub saturation_value: Option<f64>,
    /// NXmx bits by channel, row by row
    pub masks: BTreeMap<String, Vec<u32>>,
    /// factors by channel, row by row
    pub flatfields: BTreeMap<String, Vec<f32>>,
    /// threshold energy by channel, electronvolts
    pub thresholds_ev: BTreeMap<String, f64>,
    /// corrected count rate by measured one
    pub countrate_table: Vec<f64>,
    /// axes by name: start and increment per image, degrees
    pub axes: BTreeMap<String, (f64, f64)>,
    /// detector and beam
    pub detector: DetectorDescription,
    /// everything else, for the run's record
    pub metadata: BTreeMap<String, String>,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // an image in a box would be allocated, once a frame
pub enum Message<'m> {
    /// a series begins
    Start(SeriesKey, Box<Start>),
    /// an image
    Image(Image<'m>),
    /// a series has ended
    End(SeriesKey),
}
