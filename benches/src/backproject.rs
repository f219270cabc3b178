//! Filter and back-projection of a slab of 16 slices.

use super::{Measurement, Result};
use kernels::{Accelerator, AcceleratorConfig, Backprojector, BackprojectorConfig, Filter, Plane};
use std::time::Instant;

const SLICES: usize = 16;

pub(crate) fn slab(columns: usize, angles: usize) -> Result<Measurement> {
    let accelerator = Accelerator::open(&AcceleratorConfig::default())?;
    let queue = accelerator.queue()?;
    let config = BackprojectorConfig {
        rows: SLICES,
        columns,
        rotation_axis_px: (columns as f64 - 1.0) / 2.0,
        filter: Filter::RamLak,
        planes: vec![Plane::Slab { block: 0 }],
    };
    let mut backprojector = Backprojector::new(&accelerator, &config)?;
    let projection: Vec<f32> = (0..SLICES * columns).map(|i| (i % 97) as f32).collect();
    let mut once = move || -> Result<f64> {
        backprojector.reset(&queue)?;
        let started = Instant::now();
        for angle in 0..angles {
            backprojector.push_values(&queue, &projection, 180.0 * angle as f64 / angles as f64)?;
        }
        backprojector.flush(&queue)?;
        Ok(started.elapsed().as_secs_f64() / SLICES as f64)
    };
    once()?;
    Ok(Box::new(once))
}
