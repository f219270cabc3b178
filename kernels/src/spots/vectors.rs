//! The frames of `dials.txt`, made of whole numbers alone as `tests/python/dials_vectors.py` makes them for DIALS.

use super::{Spot, SpotAlgorithm, SpotConfig};
use frame::Shape;

/// DIALS 3.12's answers.
const DIALS: &str = include_str!("dials.txt");

/// OM 23.8.3's peaks by peakfinder8.
const OM: &str = include_str!("om.txt");

/// What DIALS found in a frame: strong pixels and their hash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub strong: usize,
    pub hash: String,
}

/// Seeds, and DIALS's answers by dispersion and by dispersion-extended.
pub(super) fn answers() -> impl Iterator<Item = (u64, [Answer; 2])> {
    DIALS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = |at: usize| Answer {
            strong: words[at].parse().unwrap(),
            hash: words[at + 1].into(),
        };
        (words[0].parse().unwrap(), [answer(1), answer(3)])
    })
}

/// A frame and what it is looked at with.
pub(super) struct Vector {
    pub shape: Shape,
    pub values: Vec<f64>,
    pub masked: Vec<bool>,
    pub config: SpotConfig,
    /// whether its pixels need more than 16 bits
    pub wide: bool,
}

fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn draw(seed: u64, stream: u64, index: u64) -> u64 {
    mix(mix(mix(seed) ^ stream) ^ index)
}

fn parameter<T: Copy>(seed: u64, number: u64, choices: &[T]) -> T {
    choices[(draw(seed, 1000 + number, 0) % choices.len() as u64) as usize]
}

fn below(seed: u64, number: u64, first: usize, end: usize) -> usize {
    first + (draw(seed, 1000 + number, 0) % (end - first) as u64) as usize
}

/// What every pixel has at least; one frame of sixteen has many counts.
const BASES: [i64; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20000];

/// The frame of a seed.
pub(super) fn make(seed: u64) -> Vector {
    let shape = Shape::new(30 + below(seed, 0, 0, 90), 30 + below(seed, 1, 0, 110));
    let tenths = |number, choices: &[u32]| f64::from(parameter(seed, number, choices)) / 10.0;
    let config = SpotConfig {
        algorithm: SpotAlgorithm::Dispersion,
        radius: parameter(seed, 2, &[3, 3, 3, 3, 1, 2, 4, 5]),
        background_sigmas: tenths(3, &[60, 60, 60, 30, 33, 61, 45, 75]),
        strong_sigmas: tenths(4, &[30, 30, 30, 25, 33, 31, 20, 45]),
        threshold: parameter(seed, 5, &[0.0, 0.0, 0.0, 1.0, 3.0, 10.0]),
        min_count: parameter(seed, 6, &[2, 2, 3, 9]),
        gain: tenths(7, &[10, 10, 10, 10, 10, 10, 15, 7]),
        ..SpotConfig::default()
    };
    let bits = below(seed, 8, 2, 10) as u64;
    let scale = parameter(seed, 9, &[1, 1, 1, 1, 1, 1, 3, 1]);
    let slope = parameter(seed, 10, &[0, 0, 1, 7]);
    let base = parameter(seed, 11, &BASES);
    let spots: Vec<u64> = (0..below(seed, 12, 0, 20))
        .map(|spot| draw(seed, 2000, spot as u64))
        .collect();
    let gaps = parameter(seed, 13, &[true, false, false]);
    let dead = parameter(seed, 14, &[true, false]);
    let wide = seed % 4 == 3;
    let (mut values, mut masked) = (Vec::new(), Vec::new());
    for index in 0..shape.pixels() as u64 {
        let (row, column) = (
            (index as usize / shape.columns) as i64,
            (index as usize % shape.columns) as i64,
        );
        let word = (0..bits).fold(u64::MAX, |word, bit| word & draw(seed, 10 + bit, index));
        let mut value = i64::from(word.count_ones()) * scale + ((row * slope) >> 5) + base;
        for place in &spots {
            let center = (place % shape.rows as u64, (place >> 20) % shape.columns as u64);
            let distance = (row - center.0 as i64).pow(2) + (column - center.1 as i64).pow(2);
            if distance < 64 {
                value += (8i64 << ((place >> 40) % 12)) >> (distance >> ((place >> 60) % 3)).min(62);
            }
        }
        let hot = draw(seed, 3000, index).is_multiple_of(2048);
        values.push(match (hot, wide) {
            (true, true) => 20_000_000.0,
            (true, false) => 65535.0,
            _ => value.min(65535) as f64,
        });
        let in_gap = gaps && (column % 37 < 3 || row % 53 < 4);
        masked.push(in_gap || (dead && draw(seed, 4000, index).is_multiple_of(64)));
    }
    Vector {
        shape,
        values,
        masked,
        config,
        wide,
    }
}

/// Seeds, and OM's peaks.
pub(super) fn peaks() -> impl Iterator<Item = (u64, Vec<Spot>)> {
    OM.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let numbers: Vec<f64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let spot = |four: &[f64]| Spot {
            row: four[0] as f32,
            column: four[1] as f32,
            intensity: four[2],
            max: 0,
            pixels: four[3] as u32,
        };
        (numbers[0] as u64, numbers[1..].chunks_exact(4).map(spot).collect())
    })
}

/// The frame of a seed as peakfinder8 gets it: 65535 at most and without the base, as `peaks_vectors.py` makes it.
pub(super) fn make_for_peaks(seed: u64) -> Vector {
    let mut vector = make(seed);
    let base = parameter(seed, 11, &BASES);
    for value in &mut vector.values {
        *value = if *value >= 65535.0 {
            65535.0
        } else {
            *value - base as f64
        };
    }
    let shape = vector.shape;
    let halves =
        parameter(seed, 100, &[false, false, true]) && shape.rows.is_multiple_of(2) && shape.columns.is_multiple_of(2);
    let center = (
        below(seed, 101, 0, shape.rows + 20) as f64 - 10.0,
        below(seed, 102, 0, shape.columns + 20) as f64 - 10.0,
    );
    vector.wide = false;
    vector.config = SpotConfig {
        algorithm: SpotAlgorithm::Peakfinder8,
        panel: halves.then(|| Shape::new(shape.rows / 2, shape.columns / 2)),
        rings: rings(shape, center).into(),
        strong_sigmas: f64::from(parameter(seed, 103, &[50, 50, 40, 60, 80, 35])) / 10.0,
        threshold: parameter(seed, 104, &[0.0, 0.0, 5.0, 10.0, 30.0, 100.0]),
        min_pixels: parameter(seed, 105, &[1, 2, 2, 3]),
        max_pixels: parameter(seed, 106, &[20, 50, 200]),
        background_radius: parameter(seed, 107, &[2, 3, 3, 4, 5]),
        ..SpotConfig::default()
    };
    vector
}

/// Number of each pixel's ring around a centre.
pub(super) fn rings(shape: Shape, (row, column): (f64, f64)) -> Vec<u16> {
    let ring = |index: usize| {
        let apart = ((index / shape.columns) as f64 - row).hypot((index % shape.columns) as f64 - column);
        apart.round_ties_even() as u16
    };
    (0..shape.pixels()).map(ring).collect()
}
