//! The loops over a block, each compiled for the processor's vector instructions.

use super::part::{Counted, Row};
use frame::codec::{LANES, Vectorised};

/// Up to eight bytes as a word.
#[inline(always)]
pub(super) fn last_word(rest: &[u8]) -> u64 {
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

/// Finds the pixels of a block that are at least `from`, or have a bit beyond the `plain` lowest; whether there are any.
pub(super) struct Odd<'a> {
    pub(super) planes: &'a [u8],
    pub(super) used: &'a [u8],
    pub(super) plain: usize,
    pub(super) from: u64,
    pub(super) candidates: &'a mut [u64],
    /// result: a bit per pixel
    pub(super) odd: &'a mut [u8],
}

impl Vectorised for Odd<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let groups = self.used.len();
        let (whole, rest) = self.odd.as_chunks_mut::<8>();
        let candidates = &mut self.candidates[..groups.div_ceil(8)];
        let comparing = self.from >> self.plain == 0;
        candidates.fill(if comparing { u64::MAX } else { 0 });
        whole.fill([0; 8]);
        let mut last = 0;
        // From the highest plane down. Candidates are equal so far: a bit where `from` has none makes them larger, none where it
        // has one makes them smaller.
        for (bit, plane) in self.planes.chunks_exact(groups).enumerate().rev() {
            let (plane, plane_rest) = plane.as_chunks::<8>();
            let end = last_word(plane_rest);
            let (equal, equal_end) = candidates.split_at_mut(plane.len());
            if bit >= self.plain {
                for (odd, plane) in whole.iter_mut().zip(plane) {
                    *odd = (u64::from_le_bytes(*odd) | u64::from_le_bytes(*plane)).to_le_bytes();
                }
                last |= end;
            } else if !comparing {
                break;
            } else if self.from >> bit & 1 == 1 {
                for (equal, plane) in equal.iter_mut().zip(plane) {
                    *equal &= u64::from_le_bytes(*plane);
                }
                equal_end.iter_mut().for_each(|equal| *equal &= end);
            } else {
                for ((equal, odd), plane) in equal.iter_mut().zip(whole.iter_mut()).zip(plane) {
                    let plane = u64::from_le_bytes(*plane);
                    *odd = (u64::from_le_bytes(*odd) | *equal & plane).to_le_bytes();
                    *equal &= !plane;
                }
                for equal in equal_end {
                    last |= *equal & end;
                    *equal &= !end;
                }
            }
        }
        let (used, used_rest) = self.used.as_chunks::<8>();
        let mut any = 0;
        for ((odd, equal), used) in whole.iter_mut().zip(candidates.iter()).zip(used) {
            let found = (u64::from_le_bytes(*odd) | equal) & u64::from_le_bytes(*used);
            *odd = found.to_le_bytes();
            any |= found;
        }
        if let (false, Some(equal)) = (rest.is_empty(), candidates.last()) {
            let found = (last | equal) & last_word(used_rest);
            rest.copy_from_slice(&found.to_le_bytes()[..rest.len()]);
            any |= found;
        }
        any != 0
    }
}

/// Sum and maximum of the pixels in `bits`, whose planes these are.
pub(super) struct Count<'a> {
    pub(super) planes: &'a [u8],
    pub(super) bits: &'a [u8],
    pub(super) candidates: &'a mut [u64],
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
            let mut ones = u64::from((last & last_word(bits_rest)).count_ones());
            for (plane, bits) in plane.iter().zip(bits) {
                ones += u64::from((u64::from_le_bytes(*plane) & u64::from_le_bytes(*bits)).count_ones());
            }
            self.counted.sum += (ones << bit) as i64;
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
