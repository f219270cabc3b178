//! Darks, flats and projections of the phantom, with Poisson noise.

use super::noise::{large_poisson, random, unit};
use super::{Scenery, SimulateConfig, check_memory, describe, phantom, to_bytes};
use crate::source::SourceError;
use frame::{FrameKind, Shape};
use rand::Rng;
use rand_pcg::Pcg64Mcg;

/// Mean counts without beam.
const DARK_COUNTS: f64 = 60.0;
/// Largest line integral of the phantom, as minus log of the transmission.
const ATTENUATION_MAX: f64 = 1.8;
/// Line integral of the phantom, in its own units, that becomes [`ATTENUATION_MAX`].
const LONGEST_PATH: f64 = 0.75;
/// Half of the detector's width that the phantom's unit circle takes.
const FILL: f64 = 0.94;

/// Normal numbers in a table: a draw costs one look.
struct Normals(Vec<f32>);

impl Normals {
    fn new() -> Self {
        // Box & Muller on a fixed sequence; the table is shuffled by the draw itself.
        let mut random = random(0, 77);
        let pair = |random: &mut Pcg64Mcg| {
            let radius = (-2.0 * (1.0 - unit(random)).ln()).sqrt();
            let angle = 2.0 * std::f64::consts::PI * unit(random);
            [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
        };
        Self((0..1 << 19).flat_map(|_| pair(&mut random)).collect())
    }

    fn draw(&self, random: &mut Pcg64Mcg) -> f64 {
        f64::from(self.0[(random.next_u64() >> 44) as usize])
    }
}

/// The scene.
pub(super) fn make(config: &SimulateConfig) -> Result<Scenery, SourceError> {
    let shape = Shape::new(config.rows, config.columns);
    let total = config.darks + config.flats + config.frames;
    check_memory(total, shape.pixels() * config.pixel_type.bytes())?;
    let axis = config.rotation_axis_px.unwrap_or((shape.columns as f64 - 1.0) / 2.0);
    if !(0.0..=shape.columns as f64 - 1.0).contains(&axis) {
        return Err(SourceError::Parameter {
            key: "rotation_axis_px",
            value: axis.to_string(),
            expected: format!("allowed is 0 to {}", shape.columns - 1),
        });
    }
    let normals = Normals::new();
    let beam = open_beam(config, shape);
    let expose = |mean: &dyn Fn(usize) -> f64, number: u64| {
        let mut random = random(config.seed, 3_000_000 + number);
        let counts = (0..shape.pixels()).map(|i| large_poisson(mean(i), normals.draw(&mut random)));
        to_bytes(counts, config.pixel_type)
    };
    let mut frames = Vec::with_capacity(total as usize);
    let (mut kinds, mut angles_deg) = (Vec::new(), Vec::new());
    for _ in 0..config.darks {
        frames.push(expose(&|_| DARK_COUNTS, frames.len() as u64));
        kinds.push(FrameKind::Dark);
        angles_deg.push(f64::NAN);
    }
    for _ in 0..config.flats {
        frames.push(expose(&|i| DARK_COUNTS + beam[i], frames.len() as u64));
        kinds.push(FrameKind::Flat);
        angles_deg.push(f64::NAN);
    }
    // The wider side of the axis decides the scale, so that the phantom stays on the detector.
    let half = (axis.min(shape.columns as f64 - 1.0 - axis) + 0.5) / FILL;
    let u: Vec<f64> = (0..shape.columns).map(|column| (column as f64 - axis) / half).collect();
    let mut paths = vec![0.0; shape.pixels()];
    for projection in 0..config.frames {
        let angle_deg = config.range_deg * projection as f64 / config.frames as f64;
        paths.fill(0.0);
        for (row, paths) in paths.chunks_exact_mut(shape.columns).enumerate() {
            let z = (2.0 * row as f64 - (shape.rows as f64 - 1.0)) / shape.rows as f64;
            phantom::project(z, angle_deg.to_radians(), &u, paths);
        }
        let transmitted = |i: usize| beam[i] * (-paths[i] * ATTENUATION_MAX / LONGEST_PATH).exp();
        frames.push(expose(&|i| DARK_COUNTS + transmitted(i), frames.len() as u64));
        kinds.push(FrameKind::Sample);
        angles_deg.push(angle_deg);
    }
    let mut stream = describe(config, "simulated tomography of a head phantom", shape, total);
    (stream.darks, stream.flats) = (config.darks, config.flats);
    (stream.kinds, stream.angles_deg) = (kinds, angles_deg);
    stream.saturation_value = Some(config.pixel_type.max_value());
    stream.detector.name = Some("simulated camera".into());
    stream.detector.pixel_size_slow_m = Some(3.25e-6);
    stream.detector.pixel_size_fast_m = Some(3.25e-6);
    stream.detector.distance_m = Some(0.05);
    stream.detector.rotation_axis_px = Some(axis);
    let per_path = ATTENUATION_MAX / LONGEST_PATH / half;
    stream
        .metadata
        .insert("phantom_attenuation_per_pixel".into(), per_path.to_string());
    Ok(Scenery { frames, stream })
}

/// Counts of the beam without sample: a broad profile, stripes of the optics, and every pixel's own gain.
fn open_beam(config: &SimulateConfig, shape: Shape) -> Vec<f64> {
    let mut random = random(config.seed, 9);
    let mut beam = Vec::with_capacity(shape.pixels());
    for row in 0..shape.rows {
        let y = (row as f64 / shape.rows as f64 - 0.5) * 2.0;
        let stripes = 1.0 + 0.08 * (y * 23.0).sin() + 0.04 * (y * 61.0).cos();
        for column in 0..shape.columns {
            let x = (column as f64 / shape.columns as f64 - 0.5) * 2.0;
            let gain = 1.0 + 0.04 * (unit(&mut random) - 0.5);
            beam.push(config.open_beam_counts * (1.0 - 0.15 * (x * x + y * y)) * stripes * gain);
        }
    }
    beam
}
