//! Frames of one dataset or file, each either in a file at a known place or in memory.

use frame::{Compression, PixelType, Shape, StreamDescription};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Most bytes of a file's frames that are held in memory.
pub(super) const MEMORY_BYTES_MAX: u64 = 8 << 30;

/// Where a frame's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub offset: u64,
    pub bytes: usize,
}

/// Where places lie.
#[derive(Clone, Debug)]
pub(super) enum Store {
    File(Arc<File>),
    Memory(Arc<Vec<u8>>),
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    pub shape: Shape,
    pub pixel_type: PixelType,
    pub compression: Compression,
    pub places: Vec<Place>,
    pub store: Store,
}

impl Stack {
    /// Uncompressed frames one after the other in memory.
    pub(super) fn in_memory(shape: Shape, pixel_type: PixelType, bytes: Vec<u8>) -> Self {
        let frame_bytes = shape.pixels() * pixel_type.bytes();
        let frames = bytes.len().checked_div(frame_bytes).unwrap_or(0);
        let place = |n: usize| Place {
            offset: (n * frame_bytes) as u64,
            bytes: frame_bytes,
        };
        Self {
            shape,
            pixel_type,
            compression: Compression::None,
            places: (0..frames).map(place).collect(),
            store: Store::Memory(Arc::new(bytes)),
        }
    }

    pub(super) fn frames(&self) -> usize {
        self.places.len()
    }

    pub(super) fn bytes(&self, index: usize) -> usize {
        self.places[index].bytes
    }

    /// Reads a frame into `out`, which has its size.
    pub(super) fn read(&self, index: usize, out: &mut [u8]) -> io::Result<()> {
        let place = self.places[index];
        match &self.store {
            Store::File(file) => file.read_exact_at(out, place.offset),
            Store::Memory(bytes) => {
                let start = place.offset as usize;
                let from = bytes
                    .get(start..start + place.bytes)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                out.copy_from_slice(from);
                Ok(())
            }
        }
    }
}

/// A description with nothing known but where it comes from.
pub(super) fn blank(origin: String) -> StreamDescription {
    StreamDescription {
        origin,
        shape: Shape::new(0, 0),
        pixel_type: PixelType::U8,
        compression: Compression::None,
        payload_bytes_max: 0,
        frames_expected: 0,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: true,
        parts: 0,
        saturation_value: None,
        mask: None,
        detector: frame::stream::DetectorDescription::default(),
        metadata: BTreeMap::new(),
    }
}
