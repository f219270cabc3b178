//! Bitshuffle-LZ4 as the writer and the HDF5 filter use it.

use super::io::Aligned;
use frame::PixelType;
use frame::codec::{Beneath, CodecError, Scratch, compress, compress_bound, plausible};

/// Compresses frames of one size into memory of its own, which is allocated once.
#[derive(Debug)]
pub(super) struct Compressor {
    pixel_bytes: usize,
    output: Aligned,
    scratch: Scratch,
}

impl Compressor {
    /// A compressor for frames of `frame_bytes`.
    pub(super) fn new(frame_bytes: usize, pixel_type: PixelType) -> Self {
        let pixel_bytes = pixel_type.bytes();
        Self {
            pixel_bytes,
            output: Aligned::new(compress_bound(frame_bytes, pixel_bytes)),
            scratch: Scratch::default(),
        }
    }

    /// The compressed form of `pixels`.
    pub(super) fn compress(&mut self, pixels: &[u8]) -> Result<&[u8], CodecError> {
        let bytes = compress(pixels, self.pixel_bytes, self.output.bytes_mut(), &mut self.scratch)?;
        Ok(&self.output.bytes()[..bytes])
    }
}

/// Bytes that `chunk` announces; `None` where it is too short, or announces more than it can hold.
pub(super) fn decompressed_bytes(chunk: &[u8], beneath: Beneath) -> Option<usize> {
    let announced = u64::from_be_bytes(*chunk.first_chunk::<8>()?);
    usize::try_from(announced).ok().filter(|_| plausible(beneath, chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_size_is_believed_only_within_reason() {
        let pixels = vec![7u8; 4096];
        let mut compressor = Compressor::new(pixels.len(), PixelType::U16);
        let chunk = compressor.compress(&pixels).unwrap();
        assert_eq!(decompressed_bytes(chunk, Beneath::Lz4), Some(4096));
        let mut bomb = chunk.to_vec();
        bomb[..8].copy_from_slice(&(1u64 << 40).to_be_bytes());
        assert_eq!(decompressed_bytes(&bomb, Beneath::Lz4), None);
        assert_eq!(decompressed_bytes(&chunk[..7], Beneath::Zstd), None);
    }
}
