//! The loops over a block, each compiled for the processor's vector instructions.

use super::part::{Counted, Row};
use frame::codec::{LANES, Vectorised};

#[inline(always)]
fn last_word(rest: &[u8]) -> u64 {
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(last)
}

/// Whether any of the planes has a bit that `used` has.
pub(super) struct Any<'a> {
    pub(super) planes: &'a [u8],
    pub(super) used: &'a [u8],
}

impl Vectorised for Any<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let (used, used_rest) = self.used.as_chunks::<8>();
        for plane in self.planes.chunks_exact(self.used.len()) {
            let (plane, rest) = plane.as_chunks::<8>();
            let mut found = last_word(rest) & last_word(used_rest);
            for (plane, used) in plane.iter().zip(used) {
                found |= u64::from_le_bytes(*plane) & u64::from_le_bytes(*used);
            }
            if found != 0 {
                return true;
            }
        }
        false
    }
}

/// Sum (where asked for) and maximum of the pixels in `bits`, whose planes these are.
pub(super) struct Count<'a> {
    pub(super) planes: &'a [u8],
    pub(super) bits: &'a [u8],
    pub(super) candidates: &'a mut [u64],
    pub(super) sum: bool,
    pub(super) counted: &'a mut Counted,
}

impl Vectorised for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (bits, bits_rest) = self.bits.as_chunks::<8>();
        let candidates = &mut self.candidates[..self.bits.len().div_ceil(8)];
        let mut left = 0;
        for (candidate, bits) in candidates.iter_mut().zip(bits) {
            *candidate = u64::from_le_bytes(*bits);
            left |= *candidate;
        }
        if !bits_rest.is_empty() {
            candidates[bits.len()] = last_word(bits_rest);
            left |= last_word(bits_rest);
        }
        if left == 0 {
            return;
        }
        let mut max = 0;
        // From the highest plane down: the pixels that have its bit stay candidates for the maximum.
        for (bit, plane) in self.planes.chunks_exact(self.bits.len()).enumerate().rev() {
            let (plane, rest) = plane.as_chunks::<8>();
            let last = last_word(rest);
            if self.sum {
                let mut ones = u64::from((last & last_word(bits_rest)).count_ones());
                for (plane, bits) in plane.iter().zip(bits) {
                    ones += u64::from((u64::from_le_bytes(*plane) & u64::from_le_bytes(*bits)).count_ones());
                }
                self.counted.sum += (ones << bit) as i64;
            }
            let (whole, end) = candidates.split_at_mut(plane.len());
            let mut common = end.first().map_or(0, |candidate| candidate & last);
            for (candidate, plane) in whole.iter().zip(plane) {
                common |= candidate & u64::from_le_bytes(*plane);
            }
            if common == 0 {
                continue;
            }
            max |= 1 << bit;
            for (candidate, plane) in whole.iter_mut().zip(plane) {
                *candidate &= u64::from_le_bytes(*plane);
            }
            if let Some(candidate) = end.first_mut() {
                *candidate &= last;
            }
        }
        self.counted.max = self.counted.max.max(max);
    }
}

/// Adds a block of all frames at once, whose pixels have one byte.
pub(super) struct AddNarrow<'a, const POISSON: bool> {
    pub(super) index: &'a [u16],
    pub(super) pixels: &'a [[u8; LANES]],
    pub(super) rows: &'a mut [Row],
}

impl<const POISSON: bool> Vectorised for AddNarrow<'_, POISSON> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (bin, pixels) in self.index.iter().zip(self.pixels) {
            // Arrays by value: the compiler sees that none overlaps another.
            let (pixels, row) = (*pixels, &mut self.rows[usize::from(*bin)]);
            let wide: [u32; LANES] = pixels.map(u32::from);
            let sums = row[0];
            row[0] = std::array::from_fn(|k| sums[k].wrapping_add(wide[k]));
            if POISSON {
                let zeros = row[1];
                row[1] = std::array::from_fn(|k| zeros[k].wrapping_add(u32::from(wide[k] == 0)));
            }
        }
    }
}

/// Adds a block of all frames at once, whose pixels have two bytes.
pub(super) struct AddWide<'a> {
    pub(super) index: &'a [u16],
    pub(super) low: &'a [[u8; LANES]],
    pub(super) high: &'a [[u8; LANES]],
    pub(super) rows: &'a mut [Row],
}

impl Vectorised for AddWide<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((bin, low), high) in self.index.iter().zip(self.low).zip(self.high) {
            let (low, high, row) = (*low, *high, &mut self.rows[usize::from(*bin)]);
            let wide: [u32; LANES] = std::array::from_fn(|k| u32::from(low[k]) | u32::from(high[k]) << 8);
            let [sums, zeros] = *row;
            row[0] = std::array::from_fn(|k| sums[k].wrapping_add(wide[k]));
            row[1] = std::array::from_fn(|k| zeros[k].wrapping_add(u32::from(wide[k] == 0)));
        }
    }
}
