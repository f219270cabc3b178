//! Block by block through a chunk: for those who reduce a block while the processor keeps it.

use super::{
    BLOCK_BYTES_MAX, Beneath, CodecError, HEADER_BYTES, Scratch, block_elements, check, lz4_block, zstd_block,
};

/// A piece of a chunk.
#[derive(Clone, Copy, Debug)]
pub enum Block<'a> {
    /// bit planes of a block: plane `8 k + b` holds bit `b` of byte `k` of every pixel, the first in the lowest bit
    Planes(&'a [u8]),
    /// the last pixels, fewer than 8, as they are
    Rest(&'a [u8]),
}

/// A place in a chunk. Every size is checked before anything is decoded.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    beneath: Beneath,
    chunk: &'a [u8],
    block_bytes: usize,
    bytes: usize,
    /// bytes of the decoded frame that lie in blocks
    whole: usize,
    at: usize,
    done: usize,
    number: usize,
    ended: bool,
}

impl<'a> Cursor<'a> {
    /// At the first block of a chunk that becomes `bytes` bytes of pixels of `pixel_bytes` each.
    pub fn new(beneath: Beneath, chunk: &'a [u8], pixel_bytes: usize, bytes: usize) -> Result<Self, CodecError> {
        check(pixel_bytes, bytes)?;
        let header = chunk
            .first_chunk::<HEADER_BYTES>()
            .ok_or(truncated(chunk, HEADER_BYTES))?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *header;
        let declared = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        if declared != bytes as u64 {
            return Err(CodecError::Size {
                declared,
                expected: bytes as u64,
            });
        }
        let multiple = 8 * pixel_bytes;
        let block_bytes = match u32::from_be_bytes([i, j, k, l]) as usize {
            0 => block_elements(pixel_bytes) * pixel_bytes,
            bytes => bytes,
        };
        if !block_bytes.is_multiple_of(multiple) || block_bytes > BLOCK_BYTES_MAX {
            return Err(CodecError::BlockSize {
                declared: block_bytes as u64,
                multiple,
                limit: BLOCK_BYTES_MAX,
            });
        }
        Ok(Self {
            beneath,
            chunk,
            block_bytes,
            bytes,
            whole: bytes / multiple * multiple,
            at: HEADER_BYTES,
            done: 0,
            number: 0,
            ended: false,
        })
    }

    /// Bytes of a decoded block; the last may have fewer.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Number of blocks; what is behind them is no block.
    pub fn blocks(&self) -> usize {
        self.whole.div_ceil(self.block_bytes)
    }

    /// Steps over `count` blocks without decoding them.
    pub fn skip(&mut self, count: usize) -> Result<(), CodecError> {
        for _ in 0..count {
            if self.done >= self.whole {
                break;
            }
            self.coded()?;
        }
        Ok(())
    }

    /// The compressed bytes of the block here, and how many it becomes; steps over it.
    fn coded(&mut self) -> Result<(&'a [u8], usize), CodecError> {
        let (chunk, at) = (self.chunk, self.at);
        let length = chunk
            .get(at..)
            .and_then(|rest| rest.first_chunk::<4>())
            .ok_or(truncated(chunk, at + 4))?;
        let length = u32::from_be_bytes(*length) as usize;
        let coded = chunk
            .get(at + 4..)
            .and_then(|rest| rest.get(..length))
            .ok_or(truncated(chunk, at + 4 + length))?;
        let expected = self.block_bytes.min(self.whole - self.done);
        self.at += 4 + length;
        self.done += expected;
        self.number += 1;
        Ok((coded, expected))
    }

    /// Decodes the next piece: its place in the decoded frame, bytes, and what is there. `None` behind the last, when
    /// nothing is left of the chunk.
    pub fn next<'s>(&mut self, scratch: &'s mut Scratch) -> Result<Option<(usize, Block<'s>)>, CodecError>
    where
        'a: 's,
    {
        if self.done < self.whole {
            let (start, number, at) = (self.done, self.number, self.at);
            let (coded, expected) = self.coded()?;
            let (planes, zstd) = scratch.parts(expected);
            match self.beneath {
                Beneath::Lz4 => lz4_block(coded, planes, number, at)?,
                Beneath::Zstd => zstd_block(coded, planes, zstd, number, at)?,
            }
            return Ok(Some((start, Block::Planes(planes))));
        }
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let (at, rest) = (self.at, self.bytes - self.whole);
        let tail = self.chunk.get(at..at + rest).ok_or(truncated(self.chunk, at + rest))?;
        match self.chunk.len() - at - rest {
            0 => Ok(Some((self.whole, Block::Rest(tail)))),
            extra => Err(CodecError::Trailing { extra }),
        }
    }
}

fn truncated(chunk: &[u8], needed: usize) -> CodecError {
    CodecError::Truncated {
        bytes: chunk.len(),
        needed,
    }
}
