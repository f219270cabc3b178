//! Blocks of several frames side by side, for those who reduce them at once.

use super::bitshuffle;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Frames that [`interleave`] lays side by side.
pub const LANES: usize = 16;

/// Byte `k` of every element of a block: `planes` are its bit planes, `out` gets one byte per element.
pub fn byte_of_elements(planes: &[u8], k: usize, out: &mut [u8]) {
    // Those planes are the bit planes of elements of one byte.
    bitshuffle::unshuffle(&planes[k * out.len()..(k + 1) * out.len()], 1, out);
}

/// Lays [`LANES`] rows of `width` bytes, whose beginnings are `stride` apart, side by side: `out[i][lane] = rows[lane][i]`.
pub fn interleave(rows: &[u8], stride: usize, width: usize, out: &mut [[u8; LANES]]) {
    let out = &mut out[..width];
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if x86::has_avx512() {
        // SAFETY: the processor has these instructions.
        done = unsafe { x86::interleave_avx512(rows, stride, out) };
    } else if x86::has_avx2() {
        // SAFETY: the processor has these instructions.
        done = unsafe { x86::interleave_avx2(rows, stride, out) };
    }
    for (i, out) in out.iter_mut().enumerate().skip(done) {
        for (lane, out) in out.iter_mut().enumerate() {
            *out = rows[lane * stride + i];
        }
    }
}

/// A loop that is worth being compiled for the best vector instructions of this processor.
pub trait Vectorised {
    /// what it finds
    type Output;
    /// the loop: `#[inline(always)]`, or it stays compiled as it is
    fn run(self) -> Self::Output;
}

/// Runs a loop as this processor runs it best.
#[inline]
pub fn vectorised<W: Vectorised>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx512() {
            // SAFETY: the processor has these instructions.
            return unsafe { x86::with_avx512(work) };
        }
        if x86::has_avx2() {
            // SAFETY: the processor has these instructions.
            return unsafe { x86::with_avx2(work) };
        }
    }
    work.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_side_by_side_whatever_their_width() {
        for width in [0, 1, 15, 16, 63, 64, 65, 128, 1000, 4096] {
            let stride = width + 3;
            let rows: Vec<u8> = (0..stride * LANES)
                .map(|i| ((i * 2_654_435_761usize) >> 11) as u8)
                .collect();
            let mut out = vec![[0; LANES]; width];
            interleave(&rows, stride, width, &mut out);
            for (i, out) in out.iter().enumerate() {
                for (lane, value) in out.iter().enumerate() {
                    assert_eq!(*value, rows[lane * stride + i], "width {width}, row {lane}, column {i}");
                }
            }
        }
    }

    #[test]
    fn a_byte_of_every_element_is_taken_from_its_planes() {
        for size in [1, 2, 4] {
            let elements: Vec<u8> = (0..520 * size).map(|i| ((i * 40_503) >> 7) as u8).collect();
            let mut planes = vec![0; elements.len()];
            bitshuffle::shuffle(&elements, size, &mut planes);
            let mut out = vec![0; 520];
            for k in 0..size {
                byte_of_elements(&planes, k, &mut out);
                assert!(out.iter().enumerate().all(|(i, byte)| *byte == elements[i * size + k]));
            }
        }
    }
}
