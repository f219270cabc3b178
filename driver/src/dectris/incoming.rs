//! A message in memory: one part, or several of stream V1.

use super::config::Version;
use super::error::{DecodeError, Found};
use super::message::Message;
use super::{v1, v2};

/// Memory that is kept for the next message.
const KEPT_BYTES: usize = 256 << 20;
/// Room for a part that is not an image: JSON of stream V1.
const SMALL_BYTES: usize = 4096;
/// Which part of a message may be an image: the only one of stream V2, the third of stream V1.
const IMAGE_PARTS: [usize; 2] = [0, 2];

/// Bytes of a part; what they need is kept for the next one.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    used: usize,
    /// as libzmq received it
    library: Option<zmq::Message>,
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match &self.library {
            Some(message) => message,
            None => &self.bytes[..self.used],
        }
    }
}

/// A message as it came.
pub(super) struct Incoming {
    parts: Vec<Part>,
    used: usize,
    /// parts beyond those that any message has; their bytes are not kept
    extra: usize,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..v1::PARTS_MAX).map(|_| Part::default()).collect(),
            used: 0,
            extra: 0,
        }
    }

    /// Makes room for an image of `bytes` in a message of either version. What is not used is not touched.
    pub(super) fn reserve(&mut self, bytes: usize) {
        for (index, part) in self.parts.iter_mut().enumerate() {
            let wanted = if IMAGE_PARTS.contains(&index) {
                bytes
            } else {
                SMALL_BYTES
            };
            part.bytes.reserve_exact(wanted.saturating_sub(part.bytes.len()));
        }
    }

    /// A copy in no more memory than it needs, to be kept for a while: the room here is as large as the largest message.
    pub(super) fn copied(&self) -> Self {
        let mut copy = Self::new();
        for (to, from) in copy.parts.iter_mut().zip(&self.parts[..self.used]) {
            to.bytes = from.bytes().to_vec();
            to.used = to.bytes.len();
        }
        (copy.used, copy.extra) = (self.used, self.extra);
        copy
    }

    /// Room for an image of either version, bytes.
    pub(super) fn room_bytes(&self) -> usize {
        let room = |index: usize| self.parts.get(index).map_or(0, |part| part.bytes.capacity());
        IMAGE_PARTS.into_iter().map(room).min().unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts[..self.used].iter().map(|part| part.bytes().len()).sum()
    }

    /// Whether no part has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets the message.
    pub(super) fn clear(&mut self) {
        for part in &mut self.parts[..self.used] {
            (part.used, part.library) = (0, None);
            if part.bytes.len() > KEPT_BYTES {
                part.bytes = Vec::new();
            }
        }
        (self.used, self.extra) = (0, 0);
    }

    /// Another part begins.
    pub(super) fn begin_part(&mut self) {
        if self.used == self.parts.len() {
            self.extra += 1;
        } else {
            self.used += 1;
        }
    }

    /// A part that libzmq received.
    pub(super) fn push(&mut self, message: zmq::Message) {
        self.begin_part();
        if let Some(part) = self.last() {
            part.library = Some(message);
        }
    }

    /// The part that is being received, unless it is one too many.
    fn last(&mut self) -> Option<&mut Part> {
        let last = self.used.checked_sub(1).filter(|_| self.extra == 0)?;
        self.parts.get_mut(last)
    }

    /// More bytes of the part that has begun.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len());
        if room.len() == bytes.len() {
            room.copy_from_slice(bytes);
            self.grew(bytes.len());
        }
    }

    /// Room for `bytes` more of the part that has begun; none where they are not kept.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let Some(part) = self.last() else { return &mut [] };
        let end = part.used + bytes;
        if part.bytes.len() < end {
            part.bytes.resize(end, 0);
        }
        &mut part.bytes[part.used..end]
    }

    /// So many bytes were put into that room.
    pub(super) fn grew(&mut self, bytes: usize) {
        if let Some(part) = self.last() {
            part.used = (part.used + bytes).min(part.bytes.len());
        }
    }

    /// What it says. Of an image the channel called `channel`, or the first.
    pub(super) fn decode(&self, version: Version, channel: Option<&str>) -> Result<Message<'_>, DecodeError> {
        let first = self.parts.first().map_or(&[][..], Part::bytes);
        if self.extra > 0 {
            let found = Found::Number((self.used + self.extra) as u64);
            return Err(DecodeError::new("parts", found, "at most 16 parts"));
        }
        let is_v1 = match version {
            Version::V1 => true,
            Version::V2 => false,
            Version::Auto => v1::looks_like(first),
        };
        if is_v1 {
            let mut parts: [&[u8]; v1::PARTS_MAX] = [&[]; v1::PARTS_MAX];
            for (bytes, part) in parts.iter_mut().zip(&self.parts[..self.used]) {
                *bytes = part.bytes();
            }
            return v1::decode(&parts[..self.used]);
        }
        if self.used != 1 {
            return Err(DecodeError::new(
                "parts",
                Found::Number(self.used as u64),
                "one part in stream V2",
            ));
        }
        if version == Version::Auto && !v2::looks_like(first) {
            return Err(DecodeError::new(
                "message",
                Found::AtByte(0),
                "CBOR of stream V2 or JSON of stream V1",
            ));
        }
        v2::decode(first, channel)
    }
}
