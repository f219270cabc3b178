//! What a frame is: pixel types, shapes, mask bits, the header layout, geometry and `.poni`, the
//! bitshuffle-LZ4 codec, and result types. Plain data; nothing here does I/O.
//!
//! `unsafe` lives in [`codec`] (SIMD and the C LZ4 library) and, as one trait declaration without a
//! block, in [`region`]; everything else is safe.

pub mod codec;
pub mod detector;
pub mod geometry;
pub mod header;
pub mod mask;
pub mod note;
pub mod pixel;
pub mod pixel_corners;
pub mod poni;
pub mod region;
pub mod result;
pub mod stream;

pub use geometry::Geometry;
pub use header::{FrameHeader, FrameKind};
pub use mask::PixelMask;
pub use note::Note;
pub use pixel::{Compression, PixelType, Shape};
pub use pixel_corners::PixelCorners;
pub use region::HostRegion;
pub use result::{CurveField, FrameResult, Image, ResultLayout, ScalarField};
pub use stream::StreamDescription;
