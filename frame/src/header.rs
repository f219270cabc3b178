//! The header that precedes every payload: little-endian, versioned, 128 bytes at the start of a page
//! of its own, so that the payload behind it is page-aligned.
//!
//! ```text
//! byte  type  field                 byte  type  field
//!    0  4×u8  magic "FXLN"            60  u32   columns
//!    4  u16   version (1)             64  u8    pixel type code
//!    6  u16   header bytes (128)      65  u8    compression code
//!    8  u32   epoch                   66  u8    kind (NXtomo image_key)
//!   12  u16   source                  67  u8    flags
//!   14  u16   module                  68  u32   payload CRC32C
//!   16  u64   frame number            72  f64   angle, degrees (NaN: none)
//!   24  u64   index at its origin     80  u32   parts expected
//!   32  u64   detector time, ns       84  u32   parts missing
//!   40  u64   arrival time, ns        88  u32   bytes missing, once decompressed
//!   48  u64   payload bytes           92  u32   notes behind the header
//!   56  u32   rows                    96  28×u8 reserved, zero
//!                                    124  u32   header CRC32C (0: none)
//! ```

use crate::pixel::{Compression, PixelType, Shape};
use zerocopy::little_endian::{F64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes between the start of a slot and its payload: one page.
pub const HEADER_PAGE_BYTES: usize = 4096;
/// First bytes of every header.
pub const MAGIC: [u8; 4] = *b"FXLN";
/// Version of the layout written by this program.
pub const VERSION: u16 = 1;

/// Flag: `payload_crc32c` is valid.
pub const FLAG_PAYLOAD_CRC: u8 = 1 << 0;
/// Flag: parts of the payload are missing and hold the mask value.
pub const FLAG_PARTIAL: u8 = 1 << 1;
/// Flag: the source found that the payload cannot be a frame of the stream, and keeps it as it came.
pub const FLAG_DAMAGED: u8 = 1 << 2;

const _: () = assert!(size_of::<FrameHeader>() == 128);
const _: () = assert!(size_of::<FrameHeader>() <= HEADER_PAGE_BYTES);

/// What a frame was taken for; codes as NXtomo's `image_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum FrameKind {
    /// a projection, or any frame of the sample
    Sample = 0,
    /// beam without sample
    Flat = 1,
    /// no beam
    Dark = 2,
    /// marked invalid by its origin
    Invalid = 3,
}

impl FrameKind {
    /// The kind with this `image_key`.
    pub const fn from_code(code: u8) -> Option<FrameKind> {
        match code {
            0 => Some(FrameKind::Sample),
            1 => Some(FrameKind::Flat),
            2 => Some(FrameKind::Dark),
            3 => Some(FrameKind::Invalid),
            _ => None,
        }
    }
}

/// The fixed layout at the start of every slot. See the module's table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrameHeader {
    /// [`MAGIC`]
    pub magic: [u8; 4],
    /// [`VERSION`]
    pub version: U16,
    /// size of this structure
    pub header_bytes: U16,
    /// changes with every arm and every restart of a sender: older frames are stale
    pub epoch: U32,
    /// which source of the configuration
    pub source: U16,
    /// which module of the detector
    pub module: U16,
    /// 0-based number within the run
    pub frame_number: U64,
    /// index in the file or series that the frame came from
    pub origin_index: U64,
    /// the detector's clock, ns; 0 where it sends none
    pub detector_time_ns: U64,
    /// the receiver's monotonic clock when the frame was whole, ns
    pub arrival_time_ns: U64,
    /// bytes of the payload as stored in the slot (compressed where it is)
    pub payload_bytes: U64,
    /// slow axis
    pub rows: U32,
    /// fast axis
    pub columns: U32,
    /// [`PixelType`] code
    pub pixel_type: u8,
    /// [`Compression`] code
    pub compression: u8,
    /// [`FrameKind`] code
    pub kind: u8,
    /// `FLAG_…`
    pub flags: u8,
    /// CRC32C of the payload where [`FLAG_PAYLOAD_CRC`] is set
    pub payload_crc32c: U32,
    /// rotation angle in degrees; NaN where there is none
    pub angle_deg: F64,
    /// packets or modules that make the frame; 0 where it comes as one
    pub parts_expected: U32,
    /// of these, how many never came
    pub parts_missing: U32,
    /// bytes of the frame, once decompressed, that never came and hold the mask value
    pub missing_bytes: U32,
    /// [`crate::Note`]s in the header's page; 0 on the wire
    pub notes: U32,
    /// zero
    pub reserved: [u8; 28],
    /// CRC32C of the 124 bytes before; 0 where the sender computes none
    pub header_crc32c: U32,
}

/// Why a header is refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum HeaderError {
    /// not a Fluxline header
    #[error("the header starts with {found:02x?}, expected the magic {MAGIC:02x?}")]
    Magic {
        /// the four bytes found
        found: [u8; 4],
    },
    /// another layout
    #[error("the header has version {found}, this program reads version {VERSION}")]
    Version {
        /// the version found
        found: u16,
    },
    /// a code outside its table
    #[error("the header's {field} is {value}, which is not in its table")]
    Code {
        /// field name
        field: &'static str,
        /// its value
        value: u64,
    },
    /// the payload cannot be in the slot
    #[error("the header announces {announced} payload bytes, the slot holds {capacity}")]
    PayloadTooLarge {
        /// bytes announced
        announced: u64,
        /// bytes of the slot
        capacity: u64,
    },
    /// an uncompressed payload of the wrong size
    #[error("the header announces {announced} payload bytes, {shape} pixels of {pixel} need {needed}")]
    PayloadSize {
        /// bytes announced
        announced: u64,
        /// bytes that shape and type need
        needed: u64,
        /// frame shape
        shape: Shape,
        /// pixel type name
        pixel: &'static str,
    },
}

impl FrameHeader {
    /// A header of the current version for an uncompressed or compressed frame; numbers and times zero, no angle.
    pub fn new(shape: Shape, pixel_type: PixelType, compression: Compression) -> Self {
        Self {
            magic: MAGIC,
            version: U16::new(VERSION),
            header_bytes: U16::new(size_of::<FrameHeader>() as u16),
            epoch: U32::ZERO,
            source: U16::ZERO,
            module: U16::ZERO,
            frame_number: U64::ZERO,
            origin_index: U64::ZERO,
            detector_time_ns: U64::ZERO,
            arrival_time_ns: U64::ZERO,
            payload_bytes: U64::new((shape.pixels() * pixel_type.bytes()) as u64),
            rows: U32::new(shape.rows as u32),
            columns: U32::new(shape.columns as u32),
            pixel_type: pixel_type.code(),
            compression: compression as u8,
            kind: FrameKind::Sample as u8,
            flags: 0,
            payload_crc32c: U32::ZERO,
            angle_deg: F64::new(f64::NAN),
            parts_expected: U32::ZERO,
            parts_missing: U32::ZERO,
            missing_bytes: U32::ZERO,
            notes: U32::ZERO,
            reserved: [0; 28],
            header_crc32c: U32::ZERO,
        }
    }

    /// Checks every coded field and that the payload fits `slot_payload_bytes`.
    pub fn check(&self, slot_payload_bytes: usize) -> Result<(), HeaderError> {
        if self.magic != MAGIC {
            return Err(HeaderError::Magic { found: self.magic });
        }
        if self.version.get() != VERSION {
            return Err(HeaderError::Version {
                found: self.version.get(),
            });
        }
        let code = |field, value: u8| HeaderError::Code {
            field,
            value: u64::from(value),
        };
        let pixel = PixelType::from_code(self.pixel_type).ok_or(code("pixel type", self.pixel_type))?;
        let compression = Compression::from_code(self.compression).ok_or(code("compression", self.compression))?;
        FrameKind::from_code(self.kind).ok_or(code("kind", self.kind))?;
        let announced = self.payload_bytes.get();
        if announced > slot_payload_bytes as u64 {
            return Err(HeaderError::PayloadTooLarge {
                announced,
                capacity: slot_payload_bytes as u64,
            });
        }
        let needed = u64::from(self.rows.get()) * u64::from(self.columns.get()) * pixel.bytes() as u64;
        if compression == Compression::None && announced != needed {
            return Err(HeaderError::PayloadSize {
                announced,
                needed,
                shape: self.shape(),
                pixel: pixel.numpy_name(),
            });
        }
        Ok(())
    }

    /// Frame shape.
    pub fn shape(&self) -> Shape {
        Shape::new(self.rows.get() as usize, self.columns.get() as usize)
    }

    /// Kind; an unknown code counts as invalid.
    pub fn frame_kind(&self) -> FrameKind {
        FrameKind::from_code(self.kind).unwrap_or(FrameKind::Invalid)
    }

    /// Whether parts of the payload are missing.
    pub fn is_partial(&self) -> bool {
        self.flags & FLAG_PARTIAL != 0
    }
}
