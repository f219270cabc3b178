//! A careful reader of CBOR over `minicbor`: every length is checked against the bytes that are there, nesting is
//! bounded, texts and bytes in pieces are refused, and every error names its field.

use super::error::{DecodeError, Found};
use super::message::Short;
use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};

/// Deepest nesting of maps, arrays and tags.
pub(super) const DEPTH_MAX: u32 = 16;
/// Most entries that are turned into text or tables; arrays of pixels are byte strings and do not count.
const ENTRIES_MAX: usize = 4096;

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) struct Reader<'m> {
    decoder: Decoder<'m>,
    /// bytes of the message behind those that are here
    beyond: usize,
}

impl<'m> Reader<'m> {
    /// For a message whose last `beyond` bytes are not in `message` yet.
    pub(super) fn new(message: &'m [u8], beyond: usize) -> Self {
        Self {
            decoder: Decoder::new(message),
            beyond,
        }
    }

    fn take<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        read: impl FnOnce(&mut Decoder<'m>) -> std::result::Result<T, Error>,
    ) -> Result<T> {
        let at = self.decoder.position();
        read(&mut self.decoder).map_err(|_| DecodeError::new(field, Found::AtByte(at), expected))
    }

    pub(super) fn kind(&mut self, field: &'static str) -> Result<Type> {
        self.take(field, "a value", |decoder| decoder.datatype())
    }

    pub(super) fn at_end(&self) -> bool {
        self.decoder.position() >= self.decoder.input().len()
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'m str> {
        // A date comes as tag 0 around its text.
        if self.kind(field)? == Type::Tag {
            self.tag(field)?;
        }
        self.take(field, "a text in one piece", |decoder| decoder.str())
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'m [u8]> {
        self.take(field, "bytes in one piece, all of them in the message", |decoder| {
            decoder.bytes()
        })
    }

    /// Bytes, of which the last may lie beyond what is here where nothing follows them: how many do.
    pub(super) fn last_bytes(&mut self, field: &'static str) -> Result<(&'m [u8], usize)> {
        let (at, input) = (self.decoder.position(), self.decoder.input());
        if self.beyond > 0
            && let Some((head_bytes, length)) = string_head(&input[at..])
            && let Some(begun) = input.get(at + head_bytes..)
            && length == begun.len() as u64 + self.beyond as u64
        {
            self.decoder.set_position(input.len());
            return Ok((begun, self.beyond));
        }
        Ok((self.bytes(field)?, 0))
    }

    pub(super) fn number(&mut self, field: &'static str) -> Result<u64> {
        self.take(field, "a whole number", |decoder| decoder.u64())
    }

    pub(super) fn float(&mut self, field: &'static str) -> Result<f64> {
        self.take(field, "a number", |decoder| match decoder.datatype()? {
            Type::F16 | Type::F32 | Type::F64 => decoder.f64(),
            _ => decoder.int().map(|value| i128::from(value) as f64),
        })
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool> {
        self.take(field, "true or false", |decoder| decoder.bool())
    }

    pub(super) fn tag(&mut self, field: &'static str) -> Result<u64> {
        self.take(field, "a tag", |decoder| decoder.tag().map(|tag| tag.as_u64()))
    }

    /// The head of an array of exactly `length` values.
    pub(super) fn array_of(&mut self, field: &'static str, length: u64, expected: &'static str) -> Result<()> {
        match self.take(field, expected, |decoder| decoder.array())? {
            Some(found) if found == length => Ok(()),
            Some(found) => Err(DecodeError::new(field, Found::Number(found), expected)),
            None => Err(DecodeError::missing(field, expected)),
        }
    }

    /// The values of an array, one call each.
    pub(super) fn array(&mut self, field: &'static str, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let length = self.take(field, "an array", |decoder| decoder.array())?;
        self.repeat(field, length, |reader| each(reader))
    }

    /// The entries of a map with texts for keys, one call each.
    pub(super) fn map(
        &mut self,
        field: &'static str,
        mut each: impl FnMut(&mut Self, &'m str) -> Result<()>,
    ) -> Result<()> {
        let length = self.take(field, "a map", |decoder| decoder.map())?;
        self.repeat(field, length, |reader| {
            let key = reader.take(field, "a text as key", |decoder| decoder.str())?;
            each(reader, key)
        })
    }

    /// The entries of a map whose keys may be anything; a key that is no text is `None`.
    pub(super) fn map_within(
        &mut self,
        field: &'static str,
        mut each: impl FnMut(&mut Self, Option<&'m str>) -> Result<()>,
    ) -> Result<()> {
        let length = self.take(field, "a map", |decoder| decoder.map())?;
        self.repeat(field, length, |reader| {
            let key = match reader.kind(field)? {
                Type::String => Some(reader.take(field, "a text as key", |decoder| decoder.str())?),
                _ => {
                    reader.skip(field)?;
                    None
                }
            };
            each(reader, key)
        })
    }

    /// Whether the next value is a number.
    pub(super) fn is_number(&mut self, field: &'static str) -> Result<bool> {
        let kind = self.kind(field)?;
        Ok(matches!(
            kind,
            Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int
        ) || matches!(kind, Type::F16 | Type::F32 | Type::F64))
    }

    /// Whether the next value is a map.
    pub(super) fn is_map(&mut self, field: &'static str) -> Result<bool> {
        Ok(matches!(self.kind(field)?, Type::Map | Type::MapIndef))
    }

    fn repeat(
        &mut self,
        field: &'static str,
        length: Option<u64>,
        mut each: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        // A forged length ends at the first value that is not there.
        let mut done = 0;
        while length.is_none_or(|length| done < length) {
            if length.is_none() && self.kind(field)? == Type::Break {
                return self.take(field, "the end of a map or array", |decoder| decoder.skip());
            }
            each(self)?;
            done += 1;
        }
        Ok(())
    }

    /// Leaves out a value, however it is built.
    pub(super) fn skip(&mut self, field: &'static str) -> Result<()> {
        self.skip_within(field, DEPTH_MAX)
    }

    fn skip_within(&mut self, field: &'static str, depth: u32) -> Result<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(DecodeError::new(
                field,
                Found::Number(u64::from(DEPTH_MAX) + 1),
                "at most 16 levels of nesting",
            ));
        };
        match self.kind(field)? {
            Type::Bytes => self.bytes(field).map(drop),
            Type::String => self.take(field, "a text", |decoder| decoder.str()).map(drop),
            Type::Array | Type::ArrayIndef => self.array(field, |reader| reader.skip_within(field, depth)),
            Type::Map | Type::MapIndef => {
                let length = self.take(field, "a map", |decoder| decoder.map())?;
                self.repeat(field, length, |reader| {
                    reader.skip_within(field, depth)?;
                    reader.skip_within(field, depth)
                })
            }
            Type::Tag => {
                self.tag(field)?;
                self.skip_within(field, depth)
            }
            Type::BytesIndef | Type::StringIndef | Type::Break | Type::Unknown(_) => {
                let at = self.decoder.position();
                Err(DecodeError::new(field, Found::AtByte(at), "a whole value"))
            }
            _ => self.take(field, "a value", |decoder| decoder.skip()),
        }
    }

    /// Any value as JSON, for the run's record. Bytes are told by their number, tags are left out.
    pub(super) fn json(&mut self, field: &'static str) -> Result<serde_json::Value> {
        let mut left = ENTRIES_MAX;
        self.json_within(field, DEPTH_MAX, &mut left)
    }

    fn json_within(&mut self, field: &'static str, depth: u32, left: &mut usize) -> Result<serde_json::Value> {
        use serde_json::Value;
        let Some(depth) = depth.checked_sub(1) else {
            return Err(DecodeError::new(
                field,
                Found::Number(u64::from(DEPTH_MAX) + 1),
                "at most 16 levels of nesting",
            ));
        };
        *left = left
            .checked_sub(1)
            .ok_or_else(|| DecodeError::new(field, Found::Number(ENTRIES_MAX as u64 + 1), "at most 4096 entries"))?;
        Ok(match self.kind(field)? {
            Type::Bool => self.flag(field)?.into(),
            Type::String => self.text(field)?.into(),
            Type::Bytes => format!("{} bytes", self.bytes(field)?.len()).into(),
            Type::Tag => {
                self.tag(field)?;
                self.json_within(field, depth, left)?
            }
            Type::Array | Type::ArrayIndef => {
                let mut values = Vec::new();
                self.array(field, |reader| {
                    values.push(reader.json_within(field, depth, left)?);
                    Ok(())
                })?;
                values.into()
            }
            Type::Map | Type::MapIndef => {
                let mut values = serde_json::Map::new();
                self.map(field, |reader, key| {
                    values.insert(key.into(), reader.json_within(field, depth, left)?);
                    Ok(())
                })?;
                values.into()
            }
            Type::F16 | Type::F32 | Type::F64 => self.float(field)?.into(),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.number(field)?.into(),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => {
                self.take(field, "a number", |decoder| decoder.i64())?.into()
            }
            _ => {
                self.skip_within(field, 1)?;
                Value::Null
            }
        })
    }

    /// The bytes of a channel name or the like that may be told in an error.
    pub(super) fn found(text: &str) -> Found {
        Found::Text(Short::new(text))
    }
}

/// Bytes of the head of a byte string, and the length that it tells; `None` where it is another value or not whole.
/// `minicbor` reads it together with the bytes only.
fn string_head(input: &[u8]) -> Option<(usize, u64)> {
    let (first, rest) = input.split_first()?;
    match first {
        0x40..=0x57 => Some((1, u64::from(first & 0x1f))),
        0x58 => Some((2, u64::from(*rest.first()?))),
        0x59 => Some((3, u64::from(u16::from_be_bytes(*rest.first_chunk()?)))),
        0x5a => Some((5, u64::from(u32::from_be_bytes(*rest.first_chunk()?)))),
        0x5b => Some((9, u64::from_be_bytes(*rest.first_chunk()?))),
        _ => None,
    }
}
