//! Back-projection of a slab of 16 slices, kernel and filter together.
//!
//! `cargo run --release -p kernels --example backproject_speed [-- COLUMNS ANGLES ROUNDS]` prints seconds per slice and
//! updates per second, one line per round.

use kernels::{Accelerator, AcceleratorConfig, Backprojector, BackprojectorConfig, Filter, Plane};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (columns, angles, rounds) = (next(1024)?, next(720)?, next(3)?);
    let accelerator = Accelerator::open(&AcceleratorConfig::default())?;
    let queue = accelerator.queue()?;
    let config = BackprojectorConfig {
        rows: 16,
        columns,
        rotation_axis_px: (columns as f64 - 1.0) / 2.0,
        filter: Filter::RamLak,
        planes: vec![Plane::Slab { block: 0 }],
    };
    let mut backprojector = Backprojector::new(&accelerator, &config)?;
    let projection: Vec<f32> = (0..16 * columns).map(|i| (i % 97) as f32).collect();
    for _ in 0..rounds {
        backprojector.reset(&queue)?;
        let started = Instant::now();
        for angle in 0..angles {
            backprojector.push_values(&queue, &projection, 180.0 * angle as f64 / angles as f64)?;
        }
        backprojector.flush(&queue)?;
        let seconds = started.elapsed().as_secs_f64();
        let updates = (columns * columns * angles * 16) as f64;
        println!("{:.6} s per slice  {:.2} GUPS", seconds / 16.0, updates / seconds / 1e9);
    }
    Ok(())
}
