//! The bit transposition with the vector instructions of x86-64 processors.
//!
//! Both paths take a stretch of elements at a time, byte `k` of every element apart, and transpose 8×8 bit matrices: a
//! byte of each of eight neighbours becomes a byte of each of eight planes.

// An index here means the same place in several arrays.
#![allow(clippy::needless_range_loop)]

use super::lanes::Vectorised;
use core::arch::x86_64::*;

/// Elements that [`shuffle_avx512`] and its inverse take at a time.
const STRETCH_512: usize = 512;
/// Elements that [`shuffle_avx2`] takes at a time.
const STRETCH_MASK: usize = 32;
/// Elements that [`unshuffle_avx2`] takes at a time.
const STRETCH_AVX2: usize = 256;

/// What AVX-512 with byte permutation and Galois-field instructions needs (Intel from Ice Lake, AMD from Zen 4).
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vpopcntdq")
        && is_x86_feature_detected!("gfni")
        && has_avx2()
}

/// Whether the processor has AVX2.
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
}

/// 64 bytes that begin at `at`.
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8], at: usize) -> __m512i {
    let bytes = &bytes[at..at + 64];
    // SAFETY: the slice has 64 bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(bytes: &mut [u8], at: usize, value: __m512i) {
    let bytes = &mut bytes[at..at + 64];
    // SAFETY: the slice has 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// An index for `vpermb` from a rule.
#[target_feature(enable = "avx512f")]
fn index(rule: impl Fn(usize) -> usize) -> __m512i {
    let mut places = [0u8; 64];
    for (place, to) in places.iter_mut().enumerate() {
        *to = rule(place) as u8;
    }
    load(&places, 0)
}

/// Swaps the bits of eight bytes with the bytes, whose order in `matrix` must be reversed.
#[target_feature(enable = "avx512f,gfni")]
fn transpose_bits(matrix: __m512i) -> __m512i {
    _mm512_gf2p8affine_epi64_epi8::<0>(_mm512_set1_epi64(0x8040_2010_0804_0201_u64 as i64), matrix)
}

/// Transposes the 8×8 matrix of 64-bit words that eight vectors are.
#[target_feature(enable = "avx512f")]
fn transpose_words(m: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = m;
    let (a, b) = (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let (c, d) = (_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
    let (e, f) = (_mm512_unpacklo_epi64(e, f), _mm512_unpackhi_epi64(e, f));
    let (g, h) = (_mm512_unpacklo_epi64(g, h), _mm512_unpackhi_epi64(g, h));
    let [a, c, e, g] = transpose_lanes([a, c, e, g]);
    let [b, d, f, h] = transpose_lanes([b, d, f, h]);
    [a, b, c, d, e, f, g, h]
}

/// Transposes the 4×4 matrix of 128-bit lanes that four vectors are.
#[target_feature(enable = "avx512f")]
fn transpose_lanes(m: [__m512i; 4]) -> [__m512i; 4] {
    let [a, b, c, d] = m;
    let (low_ab, high_ab) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xEE>(a, b));
    let (low_cd, high_cd) = (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xEE>(c, d));
    [
        _mm512_shuffle_i64x2::<0x88>(low_ab, low_cd),
        _mm512_shuffle_i64x2::<0xDD>(low_ab, low_cd),
        _mm512_shuffle_i64x2::<0x88>(high_ab, high_cd),
        _mm512_shuffle_i64x2::<0xDD>(high_ab, high_cd),
    ]
}

/// Takes whole stretches; returns how many elements that were.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
pub(super) fn shuffle_avx512<const S: usize>(elements: &[u8], planes: &mut [u8]) -> usize {
    let (count, groups) = (elements.len() / S, elements.len() / S / 8);
    // Bytes k of a vector's elements side by side, those of each eight elements in reverse.
    let apart = index(|place| {
        let each = 64 / S;
        let (k, element) = (place / each, place % each);
        (element ^ 7) * S + k
    });
    // Byte b of eight groups, one after the other.
    let by_plane = index(|place| place % 8 * 8 + place / 8);
    for stretch in 0..count / STRETCH_512 {
        let mut bytes = [[_mm512_setzero_si512(); 8]; S];
        for i in 0..8 {
            let at = (stretch * STRETCH_512 + 64 * i) * S;
            let mut m = [_mm512_setzero_si512(); S];
            for (k, m) in m.iter_mut().enumerate() {
                *m = _mm512_permutexvar_epi8(apart, load(elements, at + 64 * k));
            }
            for (k, m) in exchange(m).into_iter().enumerate() {
                bytes[k][i] = _mm512_permutexvar_epi8(by_plane, transpose_bits(m));
            }
        }
        for (k, m) in bytes.into_iter().enumerate() {
            for (b, plane) in transpose_words(m).into_iter().enumerate() {
                store(planes, (8 * k + b) * groups + stretch * STRETCH_512 / 8, plane);
            }
        }
    }
    count / STRETCH_512 * STRETCH_512
}

/// The inverse of [`shuffle_avx512`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
pub(super) fn unshuffle_avx512<const S: usize>(planes: &[u8], elements: &mut [u8]) -> usize {
    let (count, groups) = (elements.len() / S, elements.len() / S / 8);
    // Byte b of every plane for each of eight groups, in reverse.
    let by_group = index(|place| ((place % 8) ^ 7) * 8 + place / 8);
    let together = index(|place| {
        let each = 64 / S;
        place % S * each + place / S
    });
    for stretch in 0..count / STRETCH_512 {
        let mut bytes = [[_mm512_setzero_si512(); 8]; S];
        for (k, m) in bytes.iter_mut().enumerate() {
            let mut from = [_mm512_setzero_si512(); 8];
            for (b, plane) in from.iter_mut().enumerate() {
                *plane = load(planes, (8 * k + b) * groups + stretch * STRETCH_512 / 8);
            }
            *m = transpose_words(from);
        }
        for i in 0..8 {
            let at = (stretch * STRETCH_512 + 64 * i) * S;
            let mut m = [_mm512_setzero_si512(); S];
            for (k, m) in m.iter_mut().enumerate() {
                *m = transpose_bits(_mm512_permutexvar_epi8(by_group, bytes[k][i]));
            }
            for (k, m) in exchange(m).into_iter().enumerate() {
                store(elements, at + 64 * k, _mm512_permutexvar_epi8(together, m));
            }
        }
    }
    count / STRETCH_512 * STRETCH_512
}

/// Between S vectors that each have S pieces: piece k of vector i becomes piece i of vector k. Its own inverse.
#[target_feature(enable = "avx512f")]
fn exchange<const S: usize>(m: [__m512i; S]) -> [__m512i; S] {
    let mut to = m;
    match S {
        2 => {
            to[0] = _mm512_shuffle_i64x2::<0x44>(m[0], m[1]);
            to[1] = _mm512_shuffle_i64x2::<0xEE>(m[0], m[1]);
        }
        4 => to.copy_from_slice(&transpose_lanes([m[0], m[1], m[2], m[3]])),
        _ => {}
    }
    to
}

#[target_feature(enable = "avx2")]
fn load_256(bytes: &[u8], at: usize) -> __m256i {
    let bytes = &bytes[at..at + 32];
    // SAFETY: the slice has 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn store_128(bytes: &mut [u8], at: usize, value: __m128i) {
    let bytes = &mut bytes[at..at + 16];
    // SAFETY: the slice has 16 bytes; the store needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
}

/// Takes whole stretches; returns how many elements that were.
#[target_feature(enable = "avx2")]
pub(super) fn shuffle_avx2<const S: usize>(elements: &[u8], planes: &mut [u8]) -> usize {
    let (count, groups) = (elements.len() / S, elements.len() / S / 8);
    for stretch in 0..count / STRETCH_MASK {
        let at = stretch * STRETCH_MASK * S;
        let mut m = [_mm256_setzero_si256(); S];
        for (k, m) in m.iter_mut().enumerate() {
            *m = load_256(elements, at + 32 * k);
        }
        for (k, mut byte) in apart_avx2(m).into_iter().enumerate() {
            // The highest bit of every byte, then the next one moves up.
            for b in (0..8).rev() {
                let bits = _mm256_movemask_epi8(byte) as u32;
                let to = (8 * k + b) * groups + stretch * STRETCH_MASK / 8;
                planes[to..to + 4].copy_from_slice(&bits.to_le_bytes());
                byte = _mm256_add_epi8(byte, byte);
            }
        }
    }
    count / STRETCH_MASK * STRETCH_MASK
}

/// Bytes k of 32 elements, in order.
#[target_feature(enable = "avx2")]
fn apart_avx2<const S: usize>(m: [__m256i; S]) -> [__m256i; S] {
    let mut to = m;
    match S {
        2 => {
            let low = _mm256_set1_epi16(0xFF);
            // Packing works in each half; the permutation puts the quarters in order.
            let even = _mm256_packus_epi16(_mm256_and_si256(m[0], low), _mm256_and_si256(m[1], low));
            let odd = _mm256_packus_epi16(_mm256_srli_epi16::<8>(m[0]), _mm256_srli_epi16::<8>(m[1]));
            to[0] = _mm256_permute4x64_epi64::<0xD8>(even);
            to[1] = _mm256_permute4x64_epi64::<0xD8>(odd);
        }
        4 => {
            // In each quarter the bytes k of its four elements side by side; then words of four from everywhere.
            let pattern = _mm256_set_epi8(
                15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0, 15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8,
                4, 0,
            );
            let [a, b, c, d] = [m[0], m[1], m[2], m[3]].map(|v| _mm256_shuffle_epi8(v, pattern));
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            // Now words of a, b, c, d: first those of the lower halves' elements, then of the upper ones'.
            let order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
            to[0] = _mm256_permutevar8x32_epi32(_mm256_unpacklo_epi64(ab_low, cd_low), order);
            to[1] = _mm256_permutevar8x32_epi32(_mm256_unpackhi_epi64(ab_low, cd_low), order);
            to[2] = _mm256_permutevar8x32_epi32(_mm256_unpacklo_epi64(ab_high, cd_high), order);
            to[3] = _mm256_permutevar8x32_epi32(_mm256_unpackhi_epi64(ab_high, cd_high), order);
        }
        _ => {}
    }
    to
}

/// The inverse of [`shuffle_avx2`].
#[target_feature(enable = "avx2")]
pub(super) fn unshuffle_avx2<const S: usize>(planes: &[u8], elements: &mut [u8]) -> usize {
    let (count, groups) = (elements.len() / S, elements.len() / S / 8);
    for stretch in 0..count / STRETCH_AVX2 {
        let first = stretch * STRETCH_AVX2;
        // Vector j of byte k: the eight elements of groups 2j and 2j + 1, and of 2j + 16 and 2j + 17 in the upper half.
        let mut bytes = [[_mm256_setzero_si256(); 8]; S];
        for (k, m) in bytes.iter_mut().enumerate() {
            let mut from = [_mm256_setzero_si256(); 8];
            for (b, plane) in from.iter_mut().enumerate() {
                *plane = load_256(planes, (8 * k + b) * groups + first / 8);
            }
            *m = transpose_bytes_avx2(from).map(|v| transpose_bits_avx2(v));
        }
        for j in 0..8 {
            let mut m = [_mm256_setzero_si256(); S];
            for (k, m) in m.iter_mut().enumerate() {
                *m = bytes[k][j];
            }
            // Vector i of the result holds the i-th part of the 16 elements, in either half.
            for (i, v) in together_avx2(m).into_iter().enumerate() {
                let at = (first + 16 * j) * S + 16 * i;
                store_128(elements, at, _mm256_castsi256_si128(v));
                store_128(elements, at + 128 * S, _mm256_extracti128_si256::<1>(v));
            }
        }
    }
    count / STRETCH_AVX2 * STRETCH_AVX2
}

/// Eight bytes of eight vectors become eight bytes of one.
#[target_feature(enable = "avx2")]
fn transpose_bytes_avx2(m: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = m;
    let (ab, ab_high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
    let (cd, cd_high) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
    let (ef, ef_high) = (_mm256_unpacklo_epi8(e, f), _mm256_unpackhi_epi8(e, f));
    let (gh, gh_high) = (_mm256_unpacklo_epi8(g, h), _mm256_unpackhi_epi8(g, h));
    let mut to = [_mm256_setzero_si256(); 8];
    for (half, (ab, cd, ef, gh)) in [(ab, cd, ef, gh), (ab_high, cd_high, ef_high, gh_high)]
        .into_iter()
        .enumerate()
    {
        let (abcd, abcd_high) = (_mm256_unpacklo_epi16(ab, cd), _mm256_unpackhi_epi16(ab, cd));
        let (efgh, efgh_high) = (_mm256_unpacklo_epi16(ef, gh), _mm256_unpackhi_epi16(ef, gh));
        to[4 * half] = _mm256_unpacklo_epi32(abcd, efgh);
        to[4 * half + 1] = _mm256_unpackhi_epi32(abcd, efgh);
        to[4 * half + 2] = _mm256_unpacklo_epi32(abcd_high, efgh_high);
        to[4 * half + 3] = _mm256_unpackhi_epi32(abcd_high, efgh_high);
    }
    to
}

/// Transposes four 8×8 bit matrices (Warren, Hacker's Delight, 7-3).
#[target_feature(enable = "avx2")]
fn transpose_bits_avx2(x: __m256i) -> __m256i {
    let t = _mm256_and_si256(
        _mm256_xor_si256(x, _mm256_srli_epi64::<7>(x)),
        _mm256_set1_epi64x(0x00AA_00AA_00AA_00AA),
    );
    let x = _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64::<7>(t)));
    let t = _mm256_and_si256(
        _mm256_xor_si256(x, _mm256_srli_epi64::<14>(x)),
        _mm256_set1_epi64x(0x0000_CCCC_0000_CCCC),
    );
    let x = _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64::<14>(t)));
    let t = _mm256_and_si256(
        _mm256_xor_si256(x, _mm256_srli_epi64::<28>(x)),
        _mm256_set1_epi64x(0x0000_0000_F0F0_F0F0),
    );
    _mm256_xor_si256(x, _mm256_xor_si256(t, _mm256_slli_epi64::<28>(t)))
}

/// Sixteen elements in either half from their bytes.
#[target_feature(enable = "avx2")]
fn together_avx2<const S: usize>(m: [__m256i; S]) -> [__m256i; S] {
    let mut to = m;
    match S {
        2 => {
            to[0] = _mm256_unpacklo_epi8(m[0], m[1]);
            to[1] = _mm256_unpackhi_epi8(m[0], m[1]);
        }
        4 => {
            let (low, low_23) = (_mm256_unpacklo_epi8(m[0], m[1]), _mm256_unpacklo_epi8(m[2], m[3]));
            let (high, high_23) = (_mm256_unpackhi_epi8(m[0], m[1]), _mm256_unpackhi_epi8(m[2], m[3]));
            to[0] = _mm256_unpacklo_epi16(low, low_23);
            to[1] = _mm256_unpackhi_epi16(low, low_23);
            to[2] = _mm256_unpacklo_epi16(high, high_23);
            to[3] = _mm256_unpackhi_epi16(high, high_23);
        }
        _ => {}
    }
    to
}

/// Sixteen rows side by side ([`super::interleave`]), 64 columns at a time; returns how many columns that were.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
pub(super) fn interleave_avx512(rows: &[u8], stride: usize, out: &mut [[u8; 16]]) -> usize {
    let width = out.len();
    let out = out.as_flattened_mut();
    for column in (0..width / 64 * 64).step_by(64) {
        let mut v = [_mm512_setzero_si512(); 16];
        for (lane, v) in v.iter_mut().enumerate() {
            *v = load(rows, lane * stride + column);
        }
        // Four rounds transpose the 16 by 16 bytes of each quarter.
        for _ in 0..4 {
            let mut next = v;
            for i in 0..8 {
                next[2 * i] = _mm512_unpacklo_epi8(v[i], v[i + 8]);
                next[2 * i + 1] = _mm512_unpackhi_epi8(v[i], v[i + 8]);
            }
            v = next;
        }
        // Quarter q of vector i is column 16 q + i.
        for group in 0..4 {
            let m = [v[4 * group], v[4 * group + 1], v[4 * group + 2], v[4 * group + 3]];
            for (quarter, columns) in transpose_lanes(m).into_iter().enumerate() {
                store(out, (column + 16 * quarter + 4 * group) * 16, columns);
            }
        }
    }
    width / 64 * 64
}

/// As [`interleave_avx512`], 16 columns at a time.
#[target_feature(enable = "avx2")]
pub(super) fn interleave_avx2(rows: &[u8], stride: usize, out: &mut [[u8; 16]]) -> usize {
    let width = out.len();
    let out = out.as_flattened_mut();
    for column in (0..width / 16 * 16).step_by(16) {
        let mut v = [_mm_setzero_si128(); 16];
        for (lane, v) in v.iter_mut().enumerate() {
            let from = &rows[lane * stride + column..][..16];
            // SAFETY: the slice has 16 bytes; the load needs no alignment.
            *v = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
        }
        for _ in 0..4 {
            let mut next = v;
            for i in 0..8 {
                next[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 8]);
                next[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 8]);
            }
            v = next;
        }
        for (i, v) in v.into_iter().enumerate() {
            let to = &mut out[(column + i) * 16..][..16];
            // SAFETY: the slice has 16 bytes; the store needs no alignment.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), v) };
        }
    }
    width / 16 * 16
}

/// Calls `work` compiled with these instructions, and population counts.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vpopcntdq,gfni,popcnt,bmi1,bmi2")]
pub(super) fn with_avx512<W: Vectorised>(work: W) -> W::Output {
    work.run()
}

/// As [`with_avx512`].
#[target_feature(enable = "avx2,popcnt,bmi1,bmi2")]
pub(super) fn with_avx2<W: Vectorised>(work: W) -> W::Output {
    work.run()
}
