//! The bit transposition: `n` elements of `s` bytes become `8 s` planes of `n / 8` bytes, plane `8 k + b` holding bit
//! `b` of byte `k` of every element, the first element in the lowest bit.
//!
//! Vector instructions where the processor has them ([`x86`]); what they leave over, and everything elsewhere, in `u64`s:
//! eight groups of eight elements are taken at a time, as 8×8 bit matrices; transposing the bits in each and then the
//! bytes among them leaves eight bytes of eight planes.

#[cfg(target_arch = "x86_64")]
use super::x86;

/// Bit planes of `elements` (a multiple of 8 elements of `size` bytes: 1, 2 or 4) into `planes`, equally long.
pub(super) fn shuffle(elements: &[u8], size: usize, planes: &mut [u8]) {
    match size {
        1 => shuffle_sized::<1>(elements, planes),
        2 => shuffle_sized::<2>(elements, planes),
        _ => shuffle_sized::<4>(elements, planes),
    }
}

/// The inverse of [`shuffle`].
pub(super) fn unshuffle(planes: &[u8], size: usize, elements: &mut [u8]) {
    match size {
        1 => unshuffle_sized::<1>(planes, elements),
        2 => unshuffle_sized::<2>(planes, elements),
        _ => unshuffle_sized::<4>(planes, elements),
    }
}

fn shuffle_sized<const S: usize>(elements: &[u8], planes: &mut [u8]) {
    let taken = vector_shuffle::<S>(elements, planes);
    shuffle_rest::<S>(elements, planes, taken / 8);
}

fn unshuffle_sized<const S: usize>(planes: &[u8], elements: &mut [u8]) {
    let taken = vector_unshuffle::<S>(planes, elements);
    unshuffle_rest::<S>(planes, elements, taken / 8);
}

/// As many elements as the processor's vector instructions take; returns how many.
fn vector_shuffle<const S: usize>(elements: &[u8], planes: &mut [u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx512() {
            // SAFETY: the processor has these instructions.
            return unsafe { x86::shuffle_avx512::<S>(elements, planes) };
        }
        if x86::has_avx2() {
            // SAFETY: the processor has these instructions.
            return unsafe { x86::shuffle_avx2::<S>(elements, planes) };
        }
    }
    let _ = (elements, planes);
    0
}

/// As [`vector_shuffle`], the other way.
fn vector_unshuffle<const S: usize>(planes: &[u8], elements: &mut [u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx512() {
            // SAFETY: the processor has these instructions.
            return unsafe { x86::unshuffle_avx512::<S>(planes, elements) };
        }
        if x86::has_avx2() {
            // SAFETY: the processor has these instructions.
            return unsafe { x86::unshuffle_avx2::<S>(planes, elements) };
        }
    }
    let _ = (elements, planes);
    0
}

/// Transposes each of eight 8×8 bit matrices (Warren, Hacker's Delight, 7-3).
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
fn load(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// From group `first` on.
fn shuffle_rest<const S: usize>(elements: &[u8], planes: &mut [u8], first: usize) {
    let groups = elements.len() / (8 * S);
    let mut group = first;
    while group + 8 <= groups {
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
    for group in group..groups {
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

/// From group `first` on.
fn unshuffle_rest<const S: usize>(planes: &[u8], elements: &mut [u8], first: usize) {
    let groups = elements.len() / (8 * S);
    let mut group = first;
    while group + 8 <= groups {
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
    for group in group..groups {
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

    /// Every path, as many elements as it takes and the rest by the portable one.
    fn each_path<const S: usize>(n: usize) {
        let elements: Vec<u8> = (0..n * S).map(|i| ((i * 2_654_435_761usize) >> 13) as u8).collect();
        let expected = plain(&elements, S);
        type Path = fn(&[u8], &mut [u8]) -> usize;
        let mut paths: Vec<(&str, Path, Path)> = vec![("portable", |_, _| 0, |_, _| 0)];
        #[cfg(target_arch = "x86_64")]
        {
            if x86::has_avx2() {
                // SAFETY: the processor has these instructions.
                paths.push((
                    "avx2",
                    |a, b| unsafe { x86::shuffle_avx2::<S>(a, b) },
                    |a, b| unsafe { x86::unshuffle_avx2::<S>(a, b) },
                ));
            }
            if x86::has_avx512() {
                // SAFETY: the processor has these instructions.
                paths.push((
                    "avx512",
                    |a, b| unsafe { x86::shuffle_avx512::<S>(a, b) },
                    |a, b| unsafe { x86::unshuffle_avx512::<S>(a, b) },
                ));
            }
        }
        for (name, there, back) in paths {
            let mut planes = vec![0; elements.len()];
            let taken = there(&elements, &mut planes);
            shuffle_rest::<S>(&elements, &mut planes, taken / 8);
            assert!(planes == expected, "{name}, {S} bytes, {n} elements");
            let mut again = vec![0; elements.len()];
            let taken = back(&planes, &mut again);
            unshuffle_rest::<S>(&planes, &mut again, taken / 8);
            assert!(again == elements, "{name}, {S} bytes, {n} elements, back");
        }
    }

    #[test]
    fn every_path_follows_the_definition_both_ways() {
        for n in [0, 8, 16, 32, 56, 64, 72, 128, 256, 264, 512, 520, 1024 + 768 + 40, 8000] {
            each_path::<1>(n);
            each_path::<2>(n);
            each_path::<4>(n);
        }
    }
}
