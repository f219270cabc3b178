//! Bitshuffle-LZ4 both ways and bitshuffle-Zstandard in, byte-identical with HDF5 filter 32008 (bitshuffle; Masui et al. 2015, Astronomy and
//! Computing 12:181).
//!
//! ```text
//! u64 BE  bytes once decompressed
//! u32 BE  bytes of a block once decompressed
//! then, block by block:  u32 BE compressed bytes | LZ4 block, or Zstandard frame, of the block's bit planes
//! then the last elements, fewer than 8, as they are
//! ```
//!
//! A block has a multiple of 8 elements; the last may be smaller. Sizes are checked before anything is decoded.

#![allow(unsafe_code)]

mod bitshuffle;
mod cursor;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use cursor::{Block, Cursor};
pub use lanes::{LANES, Vectorised, byte_of_elements, interleave, vectorised};

use std::ffi::c_char;

/// Bytes before the first block.
const HEADER_BYTES: usize = 12;
/// Target size of a block, as bitshuffle chooses it.
const BLOCK_BYTES: usize = 8192;
/// Least elements of a block, as bitshuffle chooses it.
const BLOCK_ELEMENTS_MIN: usize = 128;
/// Largest block that is decoded.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// Why bytes cannot be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// pixels of this size are not supported
    #[error("pixels of {bytes} bytes cannot be coded; 1, 2 and 4 can")]
    PixelSize {
        /// bytes of a pixel
        bytes: usize,
    },
    /// no whole number of pixels
    #[error("{bytes} bytes are no whole number of pixels of {pixel_bytes} bytes")]
    NotWhole {
        /// bytes
        bytes: usize,
        /// bytes of a pixel
        pixel_bytes: usize,
    },
    /// the output is too small
    #[error("the output has {found} bytes, up to {needed} are needed")]
    OutputTooSmall {
        /// bytes there
        found: usize,
        /// bytes needed
        needed: usize,
    },
    /// the chunk ends too early
    #[error("the chunk ends at byte {bytes}, byte {needed} is needed")]
    Truncated {
        /// bytes of the chunk
        bytes: usize,
        /// bytes needed
        needed: usize,
    },
    /// the chunk has another size than the frame
    #[error("the chunk declares {declared} bytes, the frame has {expected}")]
    Size {
        /// bytes declared
        declared: u64,
        /// bytes of the frame
        expected: u64,
    },
    /// the block size makes no sense
    #[error("the chunk declares blocks of {declared} bytes; they must be a multiple of {multiple} up to {limit}")]
    BlockSize {
        /// bytes declared
        declared: u64,
        /// a block has a multiple of 8 pixels
        multiple: usize,
        /// largest block
        limit: usize,
    },
    /// LZ4 could not decode a block
    #[error("block {block} at byte {at} of the chunk is no LZ4 of {expected} bytes")]
    Block {
        /// number of the block
        block: usize,
        /// where it begins
        at: usize,
        /// bytes that it should have once decoded
        expected: usize,
    },
    /// bytes are left behind the last block
    #[error("{extra} bytes are left behind the last block")]
    Trailing {
        /// bytes left
        extra: usize,
    },
}

/// Memory of the coder, kept between frames so that none is allocated.
#[derive(Clone, Debug)]
pub struct Scratch {
    block: Vec<u8>,
    plain: Vec<u8>,
    zstd: Zstd,
}

/// The memory of the Zstandard decoder, made when the first such block is decoded.
#[derive(Default)]
struct Zstd(Option<zstd_safe::DCtx<'static>>);

impl Zstd {
    fn context(&mut self) -> &mut zstd_safe::DCtx<'static> {
        self.0.get_or_insert_with(zstd_safe::DCtx::create)
    }
}

impl Clone for Zstd {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl std::fmt::Debug for Zstd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Zstd")
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            block: vec![0; BLOCK_BYTES_MAX.min(1 << 20)],
            plain: vec![0; BLOCK_BYTES],
            zstd: Zstd::default(),
        }
    }
}

impl Scratch {
    /// For payloads of `compression`: makes now what its decoder would make at the first frame.
    pub fn warmed(compression: crate::Compression) -> Self {
        let mut scratch = Self::default();
        if Beneath::of(compression) == Some(Beneath::Zstd) {
            scratch.zstd.context();
        }
        scratch
    }

    fn parts(&mut self, bytes: usize) -> (&mut [u8], &mut Zstd) {
        if self.block.len() < bytes {
            self.block.resize(bytes, 0);
        }
        (&mut self.block[..bytes], &mut self.zstd)
    }

    fn block(&mut self, bytes: usize) -> &mut [u8] {
        // Grows once, for files with unusually large blocks.
        if self.block.len() < bytes {
            self.block.resize(bytes, 0);
        }
        &mut self.block[..bytes]
    }
}

/// Elements of a block as bitshuffle chooses them for elements of `pixel_bytes`.
fn block_elements(pixel_bytes: usize) -> usize {
    (BLOCK_BYTES / pixel_bytes / 8 * 8).max(BLOCK_ELEMENTS_MIN)
}

fn check(pixel_bytes: usize, bytes: usize) -> Result<(), CodecError> {
    if !matches!(pixel_bytes, 1 | 2 | 4) {
        return Err(CodecError::PixelSize { bytes: pixel_bytes });
    }
    if !bytes.is_multiple_of(pixel_bytes) {
        return Err(CodecError::NotWhole { bytes, pixel_bytes });
    }
    Ok(())
}

fn lz4_bound(bytes: usize) -> usize {
    bytes + bytes / 255 + 16
}

/// Most bytes that `raw_bytes` of pixels can become.
pub fn compress_bound(raw_bytes: usize, pixel_bytes: usize) -> usize {
    let block = block_elements(pixel_bytes.max(1)) * pixel_bytes;
    let blocks = raw_bytes.div_ceil(block.max(1));
    HEADER_BYTES + blocks * (4 + 16) + lz4_bound(raw_bytes) + 8 * pixel_bytes
}

/// Encodes pixels of `pixel_bytes` each into `out`, which has [`compress_bound`] bytes; returns how many were used.
pub fn compress(raw: &[u8], pixel_bytes: usize, out: &mut [u8], scratch: &mut Scratch) -> Result<usize, CodecError> {
    check(pixel_bytes, raw.len())?;
    let needed = compress_bound(raw.len(), pixel_bytes);
    if out.len() < needed {
        return Err(CodecError::OutputTooSmall {
            found: out.len(),
            needed,
        });
    }
    let block_bytes = block_elements(pixel_bytes) * pixel_bytes;
    out[..8].copy_from_slice(&(raw.len() as u64).to_be_bytes());
    out[8..12].copy_from_slice(&(block_bytes as u32).to_be_bytes());
    let mut at = HEADER_BYTES;
    let whole = raw.len() / (8 * pixel_bytes) * (8 * pixel_bytes);
    for block in raw[..whole].chunks(block_bytes) {
        let planes = scratch.block(block.len());
        bitshuffle::shuffle(block, pixel_bytes, planes);
        let room = out.len() - at - 4;
        // SAFETY: both pointers are valid for the lengths given; LZ4 writes at most `room` bytes.
        let written = unsafe {
            lz4_sys::LZ4_compress_default(
                planes.as_ptr().cast::<c_char>(),
                out[at + 4..].as_mut_ptr().cast::<c_char>(),
                planes.len() as i32,
                room.min(i32::MAX as usize) as i32,
            )
        };
        if written <= 0 {
            return Err(CodecError::OutputTooSmall {
                found: out.len(),
                needed,
            });
        }
        out[at..at + 4].copy_from_slice(&(written as u32).to_be_bytes());
        at += 4 + written as usize;
    }
    let rest = &raw[whole..];
    out[at..at + rest.len()].copy_from_slice(rest);
    Ok(at + rest.len())
}

/// What lies beneath the bitshuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beneath {
    /// LZ4 blocks
    Lz4,
    /// Zstandard frames, one a block
    Zstd,
}

impl Beneath {
    /// Of a payload that is bitshuffled; `None` of one that is not.
    pub fn of(compression: crate::Compression) -> Option<Beneath> {
        match compression {
            crate::Compression::None => None,
            crate::Compression::BitshuffleLz4 => Some(Beneath::Lz4),
            crate::Compression::BitshuffleZstd => Some(Beneath::Zstd),
        }
    }
}

/// Decodes a chunk into `out`, which has exactly the frame's size.
pub fn decompress_into(chunk: &[u8], pixel_bytes: usize, out: &mut [u8]) -> Result<(), CodecError> {
    decompress_with(chunk, pixel_bytes, out, &mut Scratch::default())
}

/// As [`decompress_into`], with memory kept between frames.
pub fn decompress_with(
    chunk: &[u8],
    pixel_bytes: usize,
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), CodecError> {
    decompress(Beneath::Lz4, chunk, pixel_bytes, out, scratch)
}

/// Decodes a chunk of either kind into `out`, which has exactly the frame's size.
pub fn decompress(
    beneath: Beneath,
    chunk: &[u8],
    pixel_bytes: usize,
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), CodecError> {
    let bytes = out.len();
    blocks(beneath, chunk, pixel_bytes, bytes, scratch, |at, block| match block {
        Block::Planes(planes) => bitshuffle::unshuffle(planes, pixel_bytes, &mut out[at..at + planes.len()]),
        Block::Rest(rest) => out[at..].copy_from_slice(rest),
    })
}

/// Decodes a chunk of `rows` rows of `row_bytes` each to a place in a larger frame: the first row goes to the start of
/// `out`, each next one `stride_bytes` behind. A block is decoded where the processor keeps it and then written once.
pub fn decompress_rows(
    beneath: Beneath,
    chunk: &[u8],
    pixel_bytes: usize,
    (rows, row_bytes): (usize, usize),
    out: &mut [u8],
    stride_bytes: usize,
    scratch: &mut Scratch,
) -> Result<(), CodecError> {
    let bytes = rows * row_bytes;
    let needed = if rows == 0 {
        0
    } else {
        (rows - 1) * stride_bytes + row_bytes
    };
    if out.len() < needed || stride_bytes < row_bytes || row_bytes == 0 {
        let found = out.len();
        return Err(CodecError::OutputTooSmall { found, needed });
    }
    if stride_bytes == row_bytes {
        return decompress(beneath, chunk, pixel_bytes, &mut out[..bytes], scratch);
    }
    let mut plain = std::mem::take(&mut scratch.plain);
    let mut scatter = |mut at: usize, mut from: &[u8]| {
        while !from.is_empty() {
            let (row, column) = (at / row_bytes, at % row_bytes);
            let (now, later) = from.split_at(from.len().min(row_bytes - column));
            let to = row * stride_bytes + column;
            out[to..to + now.len()].copy_from_slice(now);
            at += now.len();
            from = later;
        }
    };
    let done = blocks(beneath, chunk, pixel_bytes, bytes, scratch, |at, block| match block {
        Block::Planes(planes) => {
            if plain.len() < planes.len() {
                plain.resize(planes.len(), 0);
            }
            let pixels = &mut plain[..planes.len()];
            bitshuffle::unshuffle(planes, pixel_bytes, pixels);
            scatter(at, pixels);
        }
        Block::Rest(rest) => scatter(at, rest),
    });
    scratch.plain = plain;
    done
}

/// Whether a chunk can hold as many bytes as it declares: a larger number is a lie, to be refused before anything is
/// allocated for it.
pub fn plausible(beneath: Beneath, chunk: &[u8]) -> bool {
    let Some(header) = chunk.first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *header;
    let (declared, block_bytes) = (
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u32::from_be_bytes([i, j, k, l]),
    );
    let most = match beneath {
        // LZ4 never expands more than 255 times.
        Beneath::Lz4 => (chunk.len() as u64).saturating_mul(255),
        // A block has at most as many bytes as the heading says, and takes its length and 9 bytes of a frame at least.
        Beneath::Zstd => {
            let blocks = chunk.len() as u64 / 13 + 1;
            blocks.saturating_mul(u64::from(block_bytes).clamp(BLOCK_BYTES as u64, BLOCK_BYTES_MAX as u64))
        }
    };
    declared <= most
}

/// Walks through a chunk of `bytes` once decoded: every size is checked before anything is decoded into.
fn blocks(
    beneath: Beneath,
    chunk: &[u8],
    pixel_bytes: usize,
    bytes: usize,
    scratch: &mut Scratch,
    mut each: impl FnMut(usize, Block<'_>),
) -> Result<(), CodecError> {
    let mut cursor = Cursor::new(beneath, chunk, pixel_bytes, bytes)?;
    while let Some((at, block)) = cursor.next(scratch)? {
        each(at, block);
    }
    Ok(())
}

/// Decodes one Zstandard frame into `out`, which has exactly the block's size. A frame that declares another size is
/// refused before it is decoded; one that declares none writes no further than `out`.
fn zstd_block(coded: &[u8], out: &mut [u8], context: &mut Zstd, number: usize, at: usize) -> Result<(), CodecError> {
    let wrong = CodecError::Block {
        block: number,
        at,
        expected: out.len(),
    };
    let one_frame = zstd_safe::find_frame_compressed_size(coded).is_ok_and(|bytes| bytes == coded.len());
    match zstd_safe::get_frame_content_size(coded) {
        Ok(declared) if one_frame && declared.is_none_or(|bytes| bytes == out.len() as u64) => {}
        _ => return Err(wrong),
    }
    let expected = out.len();
    match context.context().decompress(out, coded) {
        Ok(written) if written == expected => Ok(()),
        _ => Err(wrong),
    }
}

/// Decodes one LZ4 block without a frame into `out`, which has exactly the frame's size.
pub fn lz4_block_into(block: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    lz4_block(block, out, 0, 0)
}

fn lz4_block(coded: &[u8], out: &mut [u8], number: usize, at: usize) -> Result<(), CodecError> {
    let wrong = CodecError::Block {
        block: number,
        at,
        expected: out.len(),
    };
    let (Ok(coded_bytes), Ok(out_bytes)) = (i32::try_from(coded.len()), i32::try_from(out.len())) else {
        return Err(wrong);
    };
    // SAFETY: both pointers are valid for the lengths given; the safe decoder stays within them whatever it reads.
    let decoded = unsafe {
        lz4_sys::LZ4_decompress_safe(
            coded.as_ptr().cast::<c_char>(),
            out.as_mut_ptr().cast::<c_char>(),
            coded_bytes,
            out_bytes,
        )
    };
    if decoded == out_bytes { Ok(()) } else { Err(wrong) }
}

/// Decodes LZ4 as HDF5 filter 32004 frames it (HDF Group, `LZ4_HDF5_format.md`) into `out`, which has exactly the
/// frame's size: u64 BE size, u32 BE block size, then u32 BE length and LZ4 of each block; a block that LZ4 could not
/// make smaller is stored as it is.
pub fn lz4_framed_into(chunk: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let truncated = |needed| CodecError::Truncated {
        bytes: chunk.len(),
        needed,
    };
    let declared = chunk.first_chunk::<8>().ok_or(truncated(HEADER_BYTES))?;
    let declared = u64::from_be_bytes(*declared);
    if declared != out.len() as u64 {
        return Err(CodecError::Size {
            declared,
            expected: out.len() as u64,
        });
    }
    let block_bytes = chunk[8..].first_chunk::<4>().ok_or(truncated(HEADER_BYTES))?;
    let block_bytes = u32::from_be_bytes(*block_bytes) as usize;
    if block_bytes == 0 && !out.is_empty() {
        return Err(CodecError::BlockSize {
            declared: 0,
            multiple: 1,
            limit: u32::MAX as usize,
        });
    }
    let mut at = HEADER_BYTES;
    for (number, block) in out.chunks_mut(block_bytes.max(1)).enumerate() {
        let length = chunk
            .get(at..)
            .and_then(<[u8]>::first_chunk::<4>)
            .ok_or(truncated(at + 4))?;
        let length = u32::from_be_bytes(*length) as usize;
        at += 4;
        let coded = chunk
            .get(at..)
            .and_then(|rest| rest.get(..length))
            .ok_or(truncated(at + length))?;
        if length == block.len() {
            block.copy_from_slice(coded);
        } else {
            lz4_block(coded, block, number, at)?;
        }
        at += length;
    }
    match chunk.len() - at {
        0 => Ok(()),
        extra => Err(CodecError::Trailing { extra }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(raw: &[u8], pixel_bytes: usize) -> Vec<u8> {
        let mut out = vec![0; compress_bound(raw.len(), pixel_bytes)];
        let mut scratch = Scratch::default();
        let used = compress(raw, pixel_bytes, &mut out, &mut scratch).unwrap();
        out.truncate(used);
        let mut back = vec![0xaa; raw.len()];
        decompress_with(&out, pixel_bytes, &mut back, &mut scratch).unwrap();
        assert_eq!(back, raw);
        out
    }

    #[test]
    fn sizes_around_blocks_and_groups_of_eight_come_back() {
        for pixel_bytes in [1, 2, 4] {
            for pixels in [
                0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 2047, 2048, 2049, 4096, 4097, 8192, 8200, 100_003,
            ] {
                let raw: Vec<u8> = (0..pixels * pixel_bytes).map(|i| (i * i / 7 % 11) as u8).collect();
                round_trip(&raw, pixel_bytes);
            }
        }
    }

    #[test]
    fn wrong_chunks_are_refused_with_a_reason() {
        let raw: Vec<u8> = (0..20_000u32).map(|i| (i % 13) as u8).collect();
        let chunk = round_trip(&raw, 2);
        let mut out = vec![0; raw.len()];
        let error = |chunk: &[u8], out: &mut [u8]| decompress_into(chunk, 2, out).unwrap_err();
        assert_eq!(
            error(&chunk[..5], &mut out),
            CodecError::Truncated { bytes: 5, needed: 12 }
        );
        assert!(matches!(
            error(&chunk, &mut out[..100]),
            CodecError::Size {
                declared: 20_000,
                expected: 100
            }
        ));
        let mut forged = chunk.clone();
        forged[12] = 0xff;
        assert!(matches!(error(&forged, &mut out), CodecError::Truncated { .. }));
        let mut forged = chunk.clone();
        forged[8..12].copy_from_slice(&12u32.to_be_bytes());
        assert!(matches!(
            error(&forged, &mut out),
            CodecError::BlockSize {
                declared: 12,
                multiple: 16,
                ..
            }
        ));
        let mut longer = chunk.clone();
        longer.push(0);
        assert_eq!(error(&longer, &mut out), CodecError::Trailing { extra: 1 });
        assert_eq!(
            decompress_into(&chunk, 3, &mut out).unwrap_err(),
            CodecError::PixelSize { bytes: 3 }
        );
    }

    /// One block of `raw` with one Zstandard frame beneath.
    fn zstd_chunk(raw: &[u8], frame: &[u8]) -> Vec<u8> {
        let mut chunk = (raw.len() as u64).to_be_bytes().to_vec();
        chunk.extend((raw.len() as u32).to_be_bytes());
        chunk.extend((frame.len() as u32).to_be_bytes());
        chunk.extend(frame);
        chunk
    }

    #[test]
    fn zstandard_bombs_and_forged_lengths_are_refused() {
        let raw = vec![0u8; 8192];
        let mut packed = vec![0; 1024];
        let used = zstd_safe::compress(&mut packed[..], &raw, 3).unwrap();
        let good = zstd_chunk(&raw, &packed[..used]);
        let mut out = vec![1; raw.len()];
        let mut scratch = Scratch::default();
        let mut decode = |chunk: &[u8], out: &mut [u8]| decompress(Beneath::Zstd, chunk, 2, out, &mut scratch);
        decode(&good, &mut out).unwrap();
        assert_eq!(out, raw);
        // 64 MiB of zeros in a few kilobytes: its own heading says so, and nothing is decoded.
        let mut bomb = vec![0; 1 << 16];
        let used = zstd_safe::compress(&mut bomb[..], &vec![0u8; 64 << 20], 3).unwrap();
        let refused = decode(&zstd_chunk(&raw, &bomb[..used]), &mut out).unwrap_err();
        assert!(matches!(refused, CodecError::Block { expected: 8192, .. }), "{refused}");
        // A frame of half the block says so, and a block is never half decoded.
        let mut short = vec![0; 1024];
        let used = zstd_safe::compress(&mut short[..], &raw[..4096], 3).unwrap();
        assert!(decode(&zstd_chunk(&raw, &short[..used]), &mut out).is_err());
        // Two frames in a row, which a simple decoder would write one behind the other.
        let twice = [&good[16..], &good[16..]].concat();
        assert!(decode(&zstd_chunk(&raw, &twice), &mut out).is_err());
        for at in 0..good.len() {
            let mut forged = good.clone();
            forged[at] ^= 0xff;
            let _ = decode(&forged, &mut out);
            assert!(decode(&good[..at], &mut out).is_err());
        }
        assert!(matches!(
            decode(&good, &mut out[..4096]),
            Err(CodecError::Size { declared: 8192, .. })
        ));
    }

    proptest! {
        #[test]
        fn a_chunk_decodes_into_a_part_of_a_frame(rows in 1usize..40, columns in 1usize..90, gap in 0usize..9, width in 0usize..3) {
            let pixel_bytes = 1 << width;
            let raw: Vec<u8> = (0..rows * columns * pixel_bytes).map(|i| (i * 31 / 7) as u8).collect();
            let chunk = round_trip(&raw, pixel_bytes);
            let (row_bytes, stride) = (columns * pixel_bytes, (columns + gap) * pixel_bytes);
            let mut out = vec![0xee; rows * stride];
            decompress_rows(Beneath::Lz4, &chunk, pixel_bytes, (rows, row_bytes), &mut out, stride, &mut Scratch::default()).unwrap();
            for (row, line) in out.chunks(stride).enumerate() {
                prop_assert_eq!(&line[..row_bytes], &raw[row * row_bytes..][..row_bytes]);
                prop_assert!(line[row_bytes..].iter().all(|byte| *byte == 0xee));
            }
        }

        #[test]
        fn any_bytes_come_back(raw in prop::collection::vec(any::<u8>(), 0..40_000), width in 0usize..3) {
            let pixel_bytes = 1 << width;
            let whole = raw.len() / pixel_bytes * pixel_bytes;
            round_trip(&raw[..whole], pixel_bytes);
        }

        #[test]
        fn no_chunk_makes_it_panic(chunk in prop::collection::vec(any::<u8>(), 0..500), size in 0usize..5000, width in 0usize..3) {
            let mut out = vec![0; size];
            let _ = decompress_into(&chunk, 1 << width, &mut out);
            let mut forged = (size as u64).to_be_bytes().to_vec();
            forged.extend(8192u32.to_be_bytes());
            forged.extend(chunk);
            let _ = decompress_into(&forged, 1 << width, &mut out);
        }
    }
}
