//! JUNGFRAU's modules: 2 × 4 chips of 256 × 256 pixels. Pixels at the edge between two chips are twice as wide, those at
//! a corner of four chips four times as large: 512 × 1024 pixels cover 514 × 1030 places.
//!
//! ```text
//!   … 254   255   ║   256   257 …     measured columns at an edge between chips
//!   … 254 | 255  256 | 257  258 | 259 …   places that they cover: column 255 covers 255 and 256
//! ```

use crate::accelerator::AcceleratorError;
use frame::{PixelMask, Shape};

/// Pixels of a module, as they are measured.
pub const MODULE: Shape = Shape::new(512, 1024);
/// Places of a module, all of one size.
pub const WIDE_MODULE: Shape = Shape::new(514, 1030);
/// Pixels of a chip, along both sides.
const CHIP: usize = 256;

/// Which measured pixel each place gets its photons from.
#[derive(Clone, Debug)]
pub struct ModuleMap {
    /// measured pixels
    pub compact: Shape,
    /// places
    pub wide: Shape,
    map: Vec<u32>,
}

/// The shape of `compact` frames of whole modules once every large pixel is as many places as it covers.
pub fn wide(compact: Shape) -> Result<Shape, AcceleratorError> {
    let (rows, columns) = (compact.rows / MODULE.rows, compact.columns / MODULE.columns);
    let whole = rows * MODULE.rows == compact.rows && columns * MODULE.columns == compact.columns;
    if !whole || compact.pixels() == 0 || rows * columns > 256 {
        return Err(AcceleratorError::Mismatch {
            what: "the frame's shape",
            found: compact.to_string(),
            expected: format!("whole modules of {MODULE} side by side, without gaps, 256 at most"),
        });
    }
    Ok(Shape::new(rows * WIDE_MODULE.rows, columns * WIDE_MODULE.columns))
}

impl ModuleMap {
    /// For frames of modules side by side, without gaps between them.
    pub fn new(compact: Shape) -> Result<Self, AcceleratorError> {
        let wide = wide(compact)?;
        let mut map = Vec::with_capacity(wide.pixels());
        for place_row in 0..wide.rows {
            let (row, tall, down) = side(place_row, MODULE.rows, WIDE_MODULE.rows);
            for place_column in 0..wide.columns {
                let (column, broad, right) = side(place_column, MODULE.columns, WIDE_MODULE.columns);
                let share = down * broad + right;
                let shares = tall * broad;
                map.push((row * compact.columns + column) as u32 | (share as u32) << 28 | shares.ilog2() << 30);
            }
        }
        Ok(Self { compact, wide, map })
    }

    /// As the kernel takes it.
    pub(crate) fn words(&self) -> &[u32] {
        &self.map
    }

    /// The measured pixel that a place belongs to, which of the places that share it this is, and how many they are.
    pub fn source(&self, place: usize) -> (usize, usize, usize) {
        let word = self.map[place];
        (
            (word & 0x0FFF_FFFF) as usize,
            (word >> 28 & 3) as usize,
            1 << (word >> 30),
        )
    }

    /// Values of measured pixels at every place, as they are.
    pub fn spread<T: Copy>(&self, compact: &[T]) -> Vec<T> {
        (0..self.map.len()).map(|place| compact[self.source(place).0]).collect()
    }

    /// A mask of measured pixels at every place.
    pub fn spread_mask(&self, mask: &PixelMask) -> PixelMask {
        let mut wide = PixelMask::none(self.wide);
        for (place, bits) in wide.bits_mut().iter_mut().enumerate() {
            *bits = mask.bits()[self.source(place).0];
        }
        wide
    }
}

/// The measured row or column of a place along one side, how many places share it, and which of them this is.
fn side(place: usize, module: usize, wide_module: usize) -> (usize, usize, usize) {
    let (number, inside) = (place / wide_module, place % wide_module);
    let chips = module / CHIP;
    // Every chip covers as many places as it has pixels, and one more at each edge to another chip.
    let mut start = 0;
    for chip in 0..chips {
        let (left, right) = (usize::from(chip > 0), usize::from(chip + 1 < chips));
        let places = CHIP + left + right;
        if inside < start + places {
            let at = inside - start;
            let first = number * module + chip * CHIP;
            return match at {
                _ if left == 1 && at < 2 => (first, 2, at),
                _ if right == 1 && at + 2 >= places => (first + CHIP - 1, 2, at + 2 - places),
                _ => (first + at - left, 1, 0),
            };
        }
        start += places;
    }
    (number * module + module - 1, 1, 0)
}
