//! Detectors by the names that pyFAI writes into `.poni` files: pixel size, shape, and the gaps between modules.

use crate::mask::{GAP, PixelMask};
use crate::pixel::Shape;

/// A detector of a known model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detector {
    /// name without spaces, lower case
    pub key: &'static str,
    /// name for people
    pub name: &'static str,
    /// pixel size along the slow axis, metres
    pub pixel1_m: f64,
    /// pixel size along the fast axis, metres
    pub pixel2_m: f64,
    /// pixels
    pub shape: Shape,
    /// module size and gap in pixels, where modules form a regular grid
    pub modules: Option<(Shape, Shape)>,
}

const fn grid(
    key: &'static str,
    name: &'static str,
    pixel_m: f64,
    shape: (usize, usize),
    module: (usize, usize),
    gap: (usize, usize),
) -> Detector {
    Detector {
        key,
        name,
        pixel1_m: pixel_m,
        pixel2_m: pixel_m,
        shape: Shape::new(shape.0, shape.1),
        modules: Some((Shape::new(module.0, module.1), Shape::new(gap.0, gap.1))),
    }
}

const fn plain(key: &'static str, name: &'static str, pixel_m: f64, shape: (usize, usize)) -> Detector {
    Detector {
        key,
        name,
        pixel1_m: pixel_m,
        pixel2_m: pixel_m,
        shape: Shape::new(shape.0, shape.1),
        modules: None,
    }
}

const PILATUS: ((usize, usize), (usize, usize)) = ((195, 487), (17, 7));
const EIGER: ((usize, usize), (usize, usize)) = ((514, 1030), (37, 10));
const EIGER2: ((usize, usize), (usize, usize)) = ((512, 1028), (38, 12));
const JUNGFRAU: ((usize, usize), (usize, usize)) = ((514, 1030), (36, 8));

/// Every model known here; pixel sizes and shapes as published by the makers and used by pyFAI 2026.9.
pub const DETECTORS: [Detector; 27] = [
    grid("pilatus100k", "Pilatus 100k", 172e-6, (195, 487), PILATUS.0, PILATUS.1),
    grid("pilatus200k", "Pilatus 200k", 172e-6, (407, 487), PILATUS.0, PILATUS.1),
    grid("pilatus300k", "Pilatus 300k", 172e-6, (619, 487), PILATUS.0, PILATUS.1),
    grid(
        "pilatus300kw",
        "Pilatus 300kw",
        172e-6,
        (195, 1475),
        PILATUS.0,
        PILATUS.1,
    ),
    grid("pilatus900k", "Pilatus 900k", 172e-6, (619, 1475), PILATUS.0, PILATUS.1),
    grid("pilatus1m", "Pilatus 1M", 172e-6, (1043, 981), PILATUS.0, PILATUS.1),
    grid("pilatus2m", "Pilatus 2M", 172e-6, (1679, 1475), PILATUS.0, PILATUS.1),
    grid("pilatus6m", "Pilatus 6M", 172e-6, (2527, 2463), PILATUS.0, PILATUS.1),
    grid("pilatus41m", "Pilatus4 1M", 150e-6, (1080, 1033), (255, 513), (20, 7)),
    grid("pilatus42m", "Pilatus4 2M", 150e-6, (1630, 1553), (255, 513), (20, 7)),
    grid("pilatus44m", "Pilatus4 4M", 150e-6, (2180, 2073), (255, 513), (20, 7)),
    grid("eiger500k", "Eiger 500k", 75e-6, (514, 1030), EIGER.0, EIGER.1),
    grid("eiger1m", "Eiger 1M", 75e-6, (1065, 1030), EIGER.0, EIGER.1),
    grid("eiger4m", "Eiger 4M", 75e-6, (2167, 2070), EIGER.0, EIGER.1),
    grid("eiger9m", "Eiger 9M", 75e-6, (3269, 3110), EIGER.0, EIGER.1),
    grid("eiger16m", "Eiger 16M", 75e-6, (4371, 4150), EIGER.0, EIGER.1),
    grid("eiger2500k", "Eiger2 500k", 75e-6, (512, 1028), EIGER2.0, EIGER2.1),
    grid("eiger21m", "Eiger2 1M", 75e-6, (1062, 1028), EIGER2.0, EIGER2.1),
    grid("eiger24m", "Eiger2 4M", 75e-6, (2162, 2068), EIGER2.0, EIGER2.1),
    grid("eiger29m", "Eiger2 9M", 75e-6, (3262, 3108), EIGER2.0, EIGER2.1),
    grid("eiger216m", "Eiger2 16M", 75e-6, (4362, 4148), EIGER2.0, EIGER2.1),
    plain("jungfrau500k", "Jungfrau 500k", 75e-6, (512, 1024)),
    grid("jungfrau1m", "Jungfrau 1M", 75e-6, (1064, 1030), JUNGFRAU.0, JUNGFRAU.1),
    grid("jungfrau4m", "Jungfrau 4M", 75e-6, (2164, 2068), JUNGFRAU.0, JUNGFRAU.1),
    plain("dexela2923", "Dexela 2923", 75e-6, (3888, 3072)),
    plain("perkindetector", "Perkin detector", 200e-6, (4096, 4096)),
    plain("mar345", "MAR 345", 100e-6, (3450, 3450)),
];

/// The detector of this name; spaces, case, underscores and `CdTe` make no difference.
pub fn find(name: &str) -> Option<&'static Detector> {
    let key: String = name
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let key = key.replace("cdte", "");
    let key = match key.as_str() {
        "jungfrau" => "jungfrau500k",
        "perkin" | "perkinelmer" => "perkindetector",
        key => key,
    };
    DETECTORS.iter().find(|detector| detector.key == key)
}

impl Detector {
    /// The gaps between modules as mask bits; no gaps where modules form no regular grid.
    pub fn gap_mask(&self) -> PixelMask {
        let mut mask = PixelMask::none(self.shape);
        if let Some((module, gap)) = self.modules {
            let columns = self.shape.columns;
            for (index, bits) in mask.bits_mut().iter_mut().enumerate() {
                let in_gap_row = (index / columns) % (module.rows + gap.rows) >= module.rows;
                let in_gap_column = (index % columns) % (module.columns + gap.columns) >= module.columns;
                if in_gap_row || in_gap_column {
                    *bits = GAP;
                }
            }
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_written() {
        for name in ["Eiger2 4M", "eiger2_4m", "Eiger2CdTe_4M", "EIGER2 CdTe 4M"] {
            assert_eq!(find(name).unwrap().shape, Shape::new(2162, 2068), "{name}");
        }
        assert_eq!(find("Pilatus 1M").unwrap().pixel1_m, 172e-6);
        assert!(find("Camera of my own").is_none());
    }

    #[test]
    fn gaps_of_an_eiger_1m_are_one_band() {
        let mask = find("Eiger 1M").unwrap().gap_mask();
        assert_eq!(mask.rejected_count(), 37 * 1030);
        assert!(mask.rejects(514 * 1030) && !mask.rejects(513 * 1030) && !mask.rejects(551 * 1030));
    }
}
