//! The pixel mask in NXmx bits, one vocabulary for kernel, file and page.

use crate::pixel::Shape;

/// gap: pixel with no sensor
pub const GAP: u32 = 1 << 0;
/// dead
pub const DEAD: u32 = 1 << 1;
/// under-responding
pub const UNDER_RESPONDING: u32 = 1 << 2;
/// over-responding
pub const OVER_RESPONDING: u32 = 1 << 3;
/// noisy
pub const NOISY: u32 = 1 << 4;
/// part of a cluster of problematic pixels
pub const CLUSTER: u32 = 1 << 6;
/// masked by the user
pub const USER: u32 = 1 << 8;
/// virtual pixel: a corner pixel with an interpolated value
pub const VIRTUAL: u32 = 1 << 31;
/// Every bit that has a meaning, with its name for people: files, kernels and the page all use these.
pub const NAMES: [(u32, &str); 8] = [
    (GAP, "gap"),
    (DEAD, "dead"),
    (UNDER_RESPONDING, "under-responding"),
    (OVER_RESPONDING, "over-responding"),
    (NOISY, "noisy"),
    (CLUSTER, "cluster"),
    (USER, "user"),
    (VIRTUAL, "virtual"),
];
/// A pixel with any of these bits takes no part in analysis (NXmx: `mask & 0xFFFF`).
pub const ANALYSIS_REJECT: u32 = 0xFFFF;

/// A mask of NXmx bits for every pixel; 0 is a good pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelMask {
    shape: Shape,
    bits: Vec<u32>,
}

/// Why a mask could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MaskError {
    /// number of values and shape disagree
    #[error("the mask has {found} values, a frame of {shape} pixels needs {expected}")]
    WrongLength {
        /// the frame's shape
        shape: Shape,
        /// values needed
        expected: usize,
        /// values given
        found: usize,
    },
    /// two masks or a mask and a frame differ in shape
    #[error("the mask is {found} pixels, the frame is {expected}: they must be equal")]
    WrongShape {
        /// the frame's shape
        expected: Shape,
        /// the mask's shape
        found: Shape,
    },
}

impl PixelMask {
    /// A mask with no pixel masked.
    pub fn none(shape: Shape) -> Self {
        Self {
            shape,
            bits: vec![0; shape.pixels()],
        }
    }

    /// A mask from NXmx bits, row by row.
    pub fn from_bits(shape: Shape, bits: Vec<u32>) -> Result<Self, MaskError> {
        if bits.len() != shape.pixels() {
            return Err(MaskError::WrongLength {
                shape,
                expected: shape.pixels(),
                found: bits.len(),
            });
        }
        Ok(Self { shape, bits })
    }

    /// A mask in pyFAI's convention: anything but zero is masked by the user.
    pub fn from_nonzero(shape: Shape, masked: impl IntoIterator<Item = bool>) -> Result<Self, MaskError> {
        Self::from_bits(shape, masked.into_iter().map(|m| if m { USER } else { 0 }).collect())
    }

    /// Shape in pixels.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// NXmx bits, row by row.
    pub fn bits(&self) -> &[u32] {
        &self.bits
    }

    /// NXmx bits, to be changed.
    pub fn bits_mut(&mut self) -> &mut [u32] {
        &mut self.bits
    }

    /// Whether analysis leaves out the pixel with this flat index.
    pub fn rejects(&self, index: usize) -> bool {
        self.bits[index] & ANALYSIS_REJECT != 0
    }

    /// Number of pixels that analysis leaves out.
    pub fn rejected_count(&self) -> usize {
        self.bits.iter().filter(|b| **b & ANALYSIS_REJECT != 0).count()
    }

    /// Adds another mask's bits to this one.
    pub fn merge(&mut self, other: &PixelMask) -> Result<(), MaskError> {
        if other.shape != self.shape {
            return Err(MaskError::WrongShape {
                expected: self.shape,
                found: other.shape,
            });
        }
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine |= theirs;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_same_words_for_the_same_bits() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/web/src/lib/picture.ts");
        let page = std::fs::read_to_string(path).unwrap();
        for (bit, name) in NAMES {
            let line = format!("[{}, '{name}'],", bit.trailing_zeros());
            assert!(page.contains(&line), "the page has no {line}");
        }
        let words = page.split_once("MASK_BITS").unwrap().1.split_once("];").unwrap().0;
        assert_eq!(
            words.matches("'],").count(),
            NAMES.len(),
            "the page has other bits, too"
        );
        assert!(page.contains(&format!("REJECTED_BITS = {ANALYSIS_REJECT:#x};")));
    }
}
