//! Pixel types, frame shapes, and how a payload is compressed.

use serde::{Deserialize, Serialize};

/// The type of one pixel. Multi-byte pixels are little-endian, in memory and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PixelType {
    /// unsigned 8 bit
    U8 = 1,
    /// unsigned 16 bit
    U16 = 2,
    /// unsigned 32 bit
    U32 = 3,
    /// signed 16 bit
    I16 = 4,
    /// signed 32 bit
    I32 = 5,
    /// IEEE 754 single precision
    F32 = 6,
}

impl PixelType {
    /// Every pixel type, in the order of its codes.
    pub const ALL: [PixelType; 6] = [
        PixelType::U8,
        PixelType::U16,
        PixelType::U32,
        PixelType::I16,
        PixelType::I32,
        PixelType::F32,
    ];

    /// Bytes of one pixel.
    pub const fn bytes(self) -> usize {
        match self {
            PixelType::U8 => 1,
            PixelType::U16 | PixelType::I16 => 2,
            PixelType::U32 | PixelType::I32 | PixelType::F32 => 4,
        }
    }

    /// The pixel type with this code in a [`crate::FrameHeader`].
    pub const fn from_code(code: u8) -> Option<PixelType> {
        Some(match code {
            1 => PixelType::U8,
            2 => PixelType::U16,
            3 => PixelType::U32,
            4 => PixelType::I16,
            5 => PixelType::I32,
            6 => PixelType::F32,
            _ => return None,
        })
    }

    /// The code of this type in a [`crate::FrameHeader`].
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name that NumPy uses, for example `uint16`.
    pub const fn numpy_name(self) -> &'static str {
        match self {
            PixelType::U8 => "uint8",
            PixelType::U16 => "uint16",
            PixelType::U32 => "uint32",
            PixelType::I16 => "int16",
            PixelType::I32 => "int32",
            PixelType::F32 => "float32",
        }
    }

    /// NumPy's array-protocol string, for example `<u2`.
    pub const fn numpy_descr(self) -> &'static str {
        match self {
            PixelType::U8 => "|u1",
            PixelType::U16 => "<u2",
            PixelType::U32 => "<u4",
            PixelType::I16 => "<i2",
            PixelType::I32 => "<i4",
            PixelType::F32 => "<f4",
        }
    }

    /// The OpenCL C scalar type.
    pub const fn opencl_name(self) -> &'static str {
        match self {
            PixelType::U8 => "uchar",
            PixelType::U16 => "ushort",
            PixelType::U32 => "uint",
            PixelType::I16 => "short",
            PixelType::I32 => "int",
            PixelType::F32 => "float",
        }
    }

    /// Largest value that the type can hold; for `f32` infinity, which no pixel reaches.
    pub const fn max_value(self) -> f64 {
        match self {
            PixelType::U8 => u8::MAX as f64,
            PixelType::U16 => u16::MAX as f64,
            PixelType::U32 => u32::MAX as f64,
            PixelType::I16 => i16::MAX as f64,
            PixelType::I32 => i32::MAX as f64,
            PixelType::F32 => f64::INFINITY,
        }
    }
}

/// Rows (slow axis) and columns (fast axis) of a frame, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// slow axis
    pub rows: usize,
    /// fast axis
    pub columns: usize,
}

impl Shape {
    /// A shape of `rows` by `columns`.
    pub const fn new(rows: usize, columns: usize) -> Self {
        Self { rows, columns }
    }

    /// Number of pixels.
    pub const fn pixels(self) -> usize {
        self.rows * self.columns
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.rows, self.columns)
    }
}

/// How a payload's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Compression {
    /// plain pixels, row by row
    None = 0,
    /// HDF5 filter 32008 with LZ4: 8-byte big-endian size, 4-byte big-endian block size, blocks
    BitshuffleLz4 = 1,
    /// HDF5 filter 32008 with Zstandard: the same framing; decoded only
    BitshuffleZstd = 2,
}

impl Compression {
    /// The compression with this code in a [`crate::FrameHeader`].
    pub const fn from_code(code: u8) -> Option<Compression> {
        match code {
            0 => Some(Compression::None),
            1 => Some(Compression::BitshuffleLz4),
            2 => Some(Compression::BitshuffleZstd),
            _ => None,
        }
    }
}
