//! Where the pixels of every packet lie in the assembled frame.
//!
//! ```text
//!   a module, 512 × 1024           JUNGFRAU          by two interfaces    EIGER
//!                                  ┌───────────┐     ┌───────────┐        ┌─────┬─────┐
//!                                  │  0,0      │     │  0,0      │        │ 0,0 │ 0,1 │
//!                                  │           │     ├───────────┤        ├─────┼─────┤
//!                                  │           │     │  1,0      │        │ 1,0 │ 1,1 │
//!                                  └───────────┘     └───────────┘        └─────┴─────┘
//! ```
//!
//! The numbers are row and column of the packets' headers; the next module goes on counting. Packet `n` of a part holds
//! its bytes from `n * payload_bytes` on, row by row.

use super::config::{Detector, PartConfig, UdpConfig, wrong};
use crate::net::Target;
use crate::source::SourceError;
use frame::mask::GAP;
use frame::{PixelMask, PixelType, Shape};

/// Pixels of a module.
pub const MODULE: Shape = Shape::new(512, 1024);
/// Largest row or column of a header.
const POSITION_MAX: u16 = 1023;
/// Packets that a frame may have: one bit each must find room behind the frame's header.
pub const PACKETS_MAX: usize = 8 * crate::memory::PARTS_BYTES;

/// The geometry of a detector.
#[derive(Clone, Debug)]
pub struct Layout {
    /// which detector
    pub detector: Detector,
    /// the assembled frame
    pub shape: Shape,
    /// type of its pixels
    pub pixel_type: PixelType,
    /// pixels of a part
    pub part_shape: Shape,
    /// bytes of pixels in a packet
    pub payload_bytes: usize,
    /// packets of a part in each frame
    pub packets: usize,
    /// the parts
    pub parts: Vec<PartConfig>,
    /// part by header row and column; `u16::MAX` where there is none, [rows][columns]
    by_position: Vec<u16>,
    columns: usize,
}

impl Layout {
    /// The geometry that a configuration describes.
    pub fn new(config: &UdpConfig) -> Result<Self, SourceError> {
        Self::scaled(config, 1)
    }

    /// The same of a module with so many times fewer rows and columns, and as many rows in a packet: for a fuzzer, whose time
    /// would go into filling pixels otherwise.
    pub(super) fn scaled(config: &UdpConfig, scale: usize) -> Result<Self, SourceError> {
        let pixel_type = config.pixel_type()?;
        let (payload_bytes, parts_of_module) = match (config.detector, config.interfaces, config.packet_bytes) {
            (Detector::Jungfrau, 1, _) => (8192, Shape::new(1, 1)),
            (Detector::Jungfrau, 2, _) => (8192, Shape::new(2, 1)),
            (Detector::Jungfrau, n, _) => return Err(wrong("interfaces", n, "allowed is 1 or 2")),
            (Detector::Eiger, _, bytes @ (1024 | 4096)) => (bytes, Shape::new(2, 2)),
            (Detector::Eiger, _, bytes) => return Err(wrong("packet_bytes", bytes, "allowed is 1024 or 4096")),
        };
        let (modules, gap) = (config.modules, config.gap);
        if modules.iter().any(|n| !(1..=64).contains(n)) {
            return Err(wrong(
                "modules",
                format!("{modules:?}"),
                "allowed is 1 to 64 rows and columns",
            ));
        }
        if gap.iter().any(|n| *n > 1024) {
            return Err(wrong("gap", format!("{gap:?}"), "allowed is 0 to 1024 pixels"));
        }
        let part_shape = Shape::new(
            MODULE.rows / parts_of_module.rows / scale,
            MODULE.columns / parts_of_module.columns / scale,
        );
        let payload_bytes = payload_bytes / scale;
        let parts = if config.part.is_empty() {
            regular(config, parts_of_module, part_shape)
        } else {
            config.part.clone()
        };
        let (rows, columns) = (extent(&parts, |part| part.row), extent(&parts, |part| part.column));
        let shape = Shape::new(rows + part_shape.rows, columns + part_shape.columns);
        let part_bytes = part_shape.pixels() * pixel_type.bytes();
        let mut layout = Self {
            detector: config.detector,
            shape,
            pixel_type,
            part_shape,
            payload_bytes,
            packets: part_bytes / payload_bytes,
            by_position: Vec::new(),
            columns: 0,
            parts,
        };
        layout.check()?;
        Ok(layout)
    }

    /// That parts have places and positions of their own, and fills the table of positions.
    fn check(&mut self) -> Result<(), SourceError> {
        let count = self.parts.len();
        if self.packets() > PACKETS_MAX {
            let expected = format!("a frame may have {PACKETS_MAX} packets");
            return Err(wrong("modules", format!("{} packets", self.packets()), expected));
        }
        if self.parts.iter().any(|p| p.row > 1 << 16 || p.column > 1 << 16) {
            return Err(wrong("part", "a place beyond 65536", "row and column in pixels"));
        }
        let apart = |a: usize, b: usize, size: usize| a.abs_diff(b) >= size;
        for (index, one) in self.parts.iter().enumerate() {
            if one.header_row > POSITION_MAX || one.header_column > POSITION_MAX {
                let value = format!("header_row {}, header_column {}", one.header_row, one.header_column);
                return Err(wrong("part", value, format!("allowed is 0 to {POSITION_MAX}")));
            }
            for other in &self.parts[..index] {
                let place = apart(one.row, other.row, self.part_shape.rows)
                    || apart(one.column, other.column, self.part_shape.columns);
                if !place || (one.header_row, one.header_column) == (other.header_row, other.header_column) {
                    let value = format!("{one:?}");
                    return Err(wrong("part", value, format!("it is in the place of {other:?}")));
                }
            }
        }
        self.columns = extent(&self.parts, |p| p.header_column.into()) + 1;
        let rows = extent(&self.parts, |p| p.header_row.into()) + 1;
        self.by_position = vec![u16::MAX; rows * self.columns];
        for index in 0..count {
            let part = self.parts[index];
            self.by_position[usize::from(part.header_row) * self.columns + usize::from(part.header_column)] =
                index as u16;
        }
        Ok(())
    }

    /// Packets of a whole frame.
    pub fn packets(&self) -> usize {
        self.parts.len() * self.packets
    }

    /// Bytes of a frame.
    pub fn frame_bytes(&self) -> usize {
        self.shape.pixels() * self.pixel_type.bytes()
    }

    /// Whether there are pixels that belong to no part.
    pub fn has_gaps(&self) -> bool {
        self.parts.len() * self.part_shape.pixels() < self.shape.pixels()
    }

    /// The part whose packets carry this position.
    pub fn part_at(&self, row: u16, column: u16) -> Option<usize> {
        let (row, column) = (usize::from(row), usize::from(column));
        let part = (column < self.columns).then(|| self.by_position.get(row * self.columns + column))??;
        (*part != u16::MAX).then_some(usize::from(*part))
    }

    /// Where a packet's pixels belong, in buffer number `buffer`: one piece per row, or per part of a row.
    pub fn place(&self, buffer: usize, part: usize, packet: usize) -> Target {
        let part = &self.parts[part];
        let pixel_bytes = self.pixel_type.bytes();
        let (row_bytes, pitch) = (self.part_shape.columns * pixel_bytes, self.shape.columns * pixel_bytes);
        let piece_bytes = row_bytes.min(self.payload_bytes);
        let (row, within) = (
            packet * self.payload_bytes / row_bytes,
            packet * self.payload_bytes % row_bytes,
        );
        let (row, stride) = if part.flip_rows {
            (self.part_shape.rows - 1 - row, -(pitch as isize))
        } else {
            (row, pitch as isize)
        };
        let offset = (part.row + row) * pitch + part.column * pixel_bytes + within;
        if stride == piece_bytes as isize {
            // Rows follow each other without a gap: one piece.
            return Target {
                buffer,
                offset,
                pieces: 1,
                piece_bytes: self.payload_bytes,
                stride,
            };
        }
        Target {
            buffer,
            offset,
            pieces: self.payload_bytes / piece_bytes,
            piece_bytes,
            stride,
        }
    }

    /// The gaps between parts as mask bits.
    pub fn mask(&self) -> PixelMask {
        let mut mask = PixelMask::none(self.shape);
        let bits = mask.bits_mut();
        bits.fill(GAP);
        for part in &self.parts {
            for row in part.row..part.row + self.part_shape.rows {
                bits[row * self.shape.columns + part.column..][..self.part_shape.columns].fill(0);
            }
        }
        mask
    }
}

/// The largest of a number that every part has.
fn extent(parts: &[PartConfig], of: impl Fn(&PartConfig) -> usize) -> usize {
    parts.iter().map(of).max().unwrap_or(0)
}

/// Modules in rows and columns, with gaps between them.
fn regular(config: &UdpConfig, of_module: Shape, part: Shape) -> Vec<PartConfig> {
    let mut parts = Vec::new();
    for header_row in 0..config.modules[0] * of_module.rows {
        for header_column in 0..config.modules[1] * of_module.columns {
            let (row, lower) = (header_row / of_module.rows, header_row % of_module.rows);
            let (column, right) = (header_column / of_module.columns, header_column % of_module.columns);
            parts.push(PartConfig {
                header_row: header_row as u16,
                header_column: header_column as u16,
                row: row * (of_module.rows * part.rows + config.gap[0]) + lower * part.rows,
                column: column * (of_module.columns * part.columns + config.gap[1]) + right * part.columns,
                flip_rows: config.flip_lower && lower == 1,
            });
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(config: UdpConfig) -> Layout {
        Layout::new(&config).unwrap()
    }

    #[test]
    fn every_byte_of_every_part_has_one_place() {
        let eiger = UdpConfig {
            detector: Detector::Eiger,
            modules: [1, 2],
            gap: [0, 8],
            flip_lower: true,
            ..UdpConfig::default()
        };
        let jungfrau = UdpConfig {
            modules: [2, 2],
            gap: [36, 8],
            interfaces: 2,
            ..UdpConfig::default()
        };
        let narrow = UdpConfig {
            bits: 32,
            packet_bytes: 1024,
            ..eiger.clone()
        };
        for (config, packets) in [(eiger, 64), (jungfrau, 64), (narrow, 512), (UdpConfig::default(), 128)] {
            let layout = layout(config);
            assert_eq!(layout.packets, packets);
            let mut seen = vec![0u8; layout.frame_bytes()];
            for part in 0..layout.parts.len() {
                for packet in 0..layout.packets {
                    let place = layout.place(0, part, packet);
                    for start in place.starts() {
                        seen[start..start + place.piece_bytes].iter_mut().for_each(|n| *n += 1);
                    }
                }
            }
            let mask = layout.mask();
            for (index, pixel) in seen.chunks(layout.pixel_type.bytes()).enumerate() {
                let times = u8::from(!mask.rejects(index));
                assert!(pixel.iter().all(|n| *n == times), "pixel {index}");
            }
            assert_eq!(layout.has_gaps(), mask.rejected_count() > 0);
        }
    }

    #[test]
    fn a_flipped_half_begins_at_its_lowest_row() {
        let layout = layout(UdpConfig {
            detector: Detector::Eiger,
            flip_lower: true,
            ..UdpConfig::default()
        });
        let part = layout.part_at(1, 1).unwrap();
        let place = layout.place(0, part, 0);
        assert_eq!(
            place.starts().collect::<Vec<_>>()[..2],
            [(511 * 1024 + 512) * 2, (510 * 1024 + 512) * 2]
        );
        assert!(layout.part_at(2, 0).is_none() && layout.part_at(0, 2).is_none() && layout.part_at(9, 9).is_none());
    }

    #[test]
    fn parts_that_overlap_are_refused() {
        let part = |header_column, column| PartConfig {
            header_row: 0,
            header_column,
            row: 0,
            column,
            flip_rows: false,
        };
        let config = |parts: [PartConfig; 2]| UdpConfig {
            part: parts.into(),
            ..UdpConfig::default()
        };
        assert!(Layout::new(&config([part(0, 0), part(1, 1000)])).is_err());
        assert!(Layout::new(&config([part(0, 0), part(0, 1024)])).is_err());
        let placed = layout(config([part(0, 0), part(1, 1030)]));
        assert_eq!(placed.shape, Shape::new(512, 2054));
    }
}
