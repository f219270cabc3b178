//! The bit transposition: `n` elements of `s` bytes become `8 s` planes of `n / 8` bytes, plane `8 k + b` holding bit
//! `b` of byte `k` of every element, the first element in the lowest bit.
//!
//! Eight groups of eight elements are taken at a time, as 8×8 bit matrices in `u64`s: transposing the bits in each
//! and then the bytes among them leaves eight bytes of eight planes. The compiler turns the loops over the eight
//! into vector code, once for every instruction set below.

/// Bit planes of `elements` (a multiple of 8 elements of `size` bytes: 1, 2 or 4) into `planes`, equally long.
pub(super) fn shuffle(elements: &[u8], size: usize, planes: &mut [u8]) {
    dispatch(elements, size, planes, true);
}

/// The inverse of [`shuffle`].
pub(super) fn unshuffle(planes: &[u8], size: usize, elements: &mut [u8]) {
    dispatch(planes, size, elements, false);
}

fn dispatch(from: &[u8], size: usize, to: &mut [u8], forward: bool) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi") {
            // SAFETY: the processor has these instructions.
            return unsafe { avx512(from, size, to, forward) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has these instructions.
            return unsafe { avx2(from, size, to, forward) };
        }
    }
    portable(from, size, to, forward);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn avx512(from: &[u8], size: usize, to: &mut [u8], forward: bool) {
    portable(from, size, to, forward);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(from: &[u8], size: usize, to: &mut [u8], forward: bool) {
    portable(from, size, to, forward);
}

#[inline(always)]
fn portable(from: &[u8], size: usize, to: &mut [u8], forward: bool) {
    match (size, forward) {
        (1, true) => shuffle_sized::<1>(from, to),
        (2, true) => shuffle_sized::<2>(from, to),
        (4, true) => shuffle_sized::<4>(from, to),
        (1, false) => unshuffle_sized::<1>(from, to),
        (2, false) => unshuffle_sized::<2>(from, to),
        _ => unshuffle_sized::<4>(from, to),
    }
}

/// Transposes each of eight 8×8 bit matrices (Warren, Hacker's Delight, 7-3).
#[inline(always)]
fn transpose_bits(m: &mut [u64; 8]) {
    for x in m {
        let t = (*x ^ (*x >> 7)) & 0x00AA_00AA_00AA_00AA;
        *x ^= t ^ (t << 7);
        let t = (*x ^ (*x >> 14)) & 0x0000_CCCC_0000_CCCC;
        *x ^= t ^ (t << 14);
        let t = (*x ^ (*x >> 28)) & 0x0000_0000_F0F0_F0F0;
        *x ^= t ^ (t << 28);
    }
}

/// Transposes the 8×8 matrix of bytes that eight `u64`s are.
#[inline(always)]
fn transpose_bytes(m: &mut [u64; 8]) {
    for (distance, shift, mask) in [
        (4, 32, 0x0000_0000_FFFF_FFFF),
        (2, 16, 0x0000_FFFF_0000_FFFF),
        (1, 8, 0x00FF_00FF_00FF_00FFu64),
    ] {
        for low in (0..8).filter(|i| i & distance == 0) {
            let high = low + distance;
            let t = ((m[low] >> shift) ^ m[high]) & mask;
            m[high] ^= t;
            m[low] ^= t << shift;
        }
    }
}

/// Eight bytes at `at`, the first in the lowest place.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[inline(always)]
fn shuffle_sized<const S: usize>(elements: &[u8], planes: &mut [u8]) {
    let groups = elements.len() / (8 * S);
    let (whole, mut group) = (groups / 8 * 8, 0);
    while group < whole {
        let block = &elements[group * 8 * S..(group + 8) * 8 * S];
        for k in 0..S {
            let mut m = [0u64; 8];
            for (i, m) in m.iter_mut().enumerate() {
                let mut eight = [0; 8];
                for (e, byte) in eight.iter_mut().enumerate() {
                    *byte = block[(8 * i + e) * S + k];
                }
                *m = u64::from_le_bytes(eight);
            }
            transpose_bits(&mut m);
            transpose_bytes(&mut m);
            for (b, m) in m.iter().enumerate() {
                let at = (8 * k + b) * groups + group;
                planes[at..at + 8].copy_from_slice(&m.to_le_bytes());
            }
        }
        group += 8;
    }
    for group in whole..groups {
        for k in 0..S {
            let mut eight = [0; 8];
            for (e, byte) in eight.iter_mut().enumerate() {
                *byte = elements[(8 * group + e) * S + k];
            }
            let mut m = [u64::from_le_bytes(eight), 0, 0, 0, 0, 0, 0, 0];
            transpose_bits(&mut m);
            for (b, byte) in m[0].to_le_bytes().into_iter().enumerate() {
                planes[(8 * k + b) * groups + group] = byte;
            }
        }
    }
}

#[inline(always)]
fn unshuffle_sized<const S: usize>(planes: &[u8], elements: &mut [u8]) {
    let groups = elements.len() / (8 * S);
    let (whole, mut group) = (groups / 8 * 8, 0);
    while group < whole {
        let block = &mut elements[group * 8 * S..(group + 8) * 8 * S];
        // Bytes k of the block's 64 elements.
        let mut bytes = [[0u64; 8]; S];
        for (k, m) in bytes.iter_mut().enumerate() {
            for (b, m) in m.iter_mut().enumerate() {
                *m = load(planes, (8 * k + b) * groups + group);
            }
            transpose_bytes(m);
            transpose_bits(m);
        }
        for i in 0..8 {
            for e in 0..8 {
                for (k, m) in bytes.iter().enumerate() {
                    block[(8 * i + e) * S + k] = (m[i] >> (8 * e)) as u8;
                }
            }
        }
        group += 8;
    }
    for group in whole..groups {
        for k in 0..S {
            let mut eight = [0; 8];
            for (b, byte) in eight.iter_mut().enumerate() {
                *byte = planes[(8 * k + b) * groups + group];
            }
            let mut m = [u64::from_le_bytes(eight), 0, 0, 0, 0, 0, 0, 0];
            transpose_bits(&mut m);
            for (e, byte) in m[0].to_le_bytes().into_iter().enumerate() {
                elements[(8 * group + e) * S + k] = byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit.
    fn plain(elements: &[u8], size: usize) -> Vec<u8> {
        let n = elements.len() / size;
        let mut planes = vec![0; elements.len()];
        for element in 0..n {
            for k in 0..size {
                for b in 0..8 {
                    let bit = elements[element * size + k] >> b & 1;
                    planes[(8 * k + b) * (n / 8) + element / 8] |= bit << (element % 8);
                }
            }
        }
        planes
    }

    #[test]
    fn every_path_follows_the_definition_both_ways() {
        for size in [1, 2, 4] {
            for n in [8, 16, 56, 64, 72, 128, 1000 * 8] {
                let elements: Vec<u8> = (0..n * size).map(|i| ((i * 2_654_435_761usize) >> 13) as u8).collect();
                let expected = plain(&elements, size);
                let mut planes = vec![0; elements.len()];
                shuffle(&elements, size, &mut planes);
                assert_eq!(planes, expected, "size {size}, n {n}");
                portable(&elements, size, &mut planes, true);
                assert_eq!(planes, expected);
                let mut back = vec![0; elements.len()];
                unshuffle(&planes, size, &mut back);
                assert_eq!(back, elements);
                portable(&planes, size, &mut back, false);
                assert_eq!(back, elements);
            }
        }
    }
}
