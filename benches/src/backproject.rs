//! Slabs of 16 slices by every method, and phase retrieval of a projection.

use super::{Measurement, Result};
use kernels::{
    Accelerator, AcceleratorConfig, Backprojector, BackprojectorConfig, Filter, Gridrec, GridrecConfig, Iteration,
    Iterative, IterativeConfig, Padding, Paganin, PaganinConfig, Plane, SlabConfig, SlabReconstructor,
};
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

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn angles_deg(angles: usize) -> Vec<f64> {
    (0..angles).map(|a| 180.0 * a as f64 / angles as f64).collect()
}

fn sinograms(columns: usize, angles: usize) -> Vec<f32> {
    (0..SLICES * columns * angles).map(|i| (i % 97) as f32).collect()
}

/// A slab of a whole volume, from its sinograms to its slices in host memory; seconds per slice.
pub(crate) fn volume(columns: usize, angles: usize) -> Result<Measurement> {
    let accelerator = Accelerator::open(&AcceleratorConfig::default())?;
    let queue = accelerator.queue()?;
    let config = SlabConfig {
        columns,
        rotation_axis_px: (columns as f64 - 1.0) / 2.0,
        angles_deg: angles_deg(angles),
        weights: Vec::new(),
        filter: Filter::RamLak,
        threads: threads(),
        memory_budget_bytes: usize::MAX,
    };
    let mut slabs = SlabReconstructor::new(&accelerator, &config)?;
    let (given, mut slices) = (sinograms(columns, angles), vec![0.0; slabs.slices_len()]);
    Ok(Box::new(move || {
        let started = Instant::now();
        slabs.run(&queue, &given, &mut slices)?;
        Ok(started.elapsed().as_secs_f64() / SLICES as f64)
    }))
}

/// The same by the Fourier method.
pub(crate) fn gridrec(columns: usize, angles: usize) -> Result<Measurement> {
    let config = GridrecConfig {
        columns,
        rotation_axis_px: (columns as f64 - 1.0) / 2.0,
        angles_deg: angles_deg(angles),
        weights: Vec::new(),
        filter: Filter::RamLak,
        threads: threads(),
    };
    let mut gridrec = Gridrec::new(&config)?;
    let (given, mut slices) = (sinograms(columns, angles), vec![0.0; SLICES * columns * columns]);
    Ok(Box::new(move || {
        let started = Instant::now();
        gridrec.run(&given, &mut slices)?;
        Ok(started.elapsed().as_secs_f64() / SLICES as f64)
    }))
}

/// The same by the method that `auto` takes on a CPU.
pub(crate) fn auto(columns: usize, angles: usize) -> Result<Measurement> {
    if kernels::gridrec::is_faster(columns, angles) {
        gridrec(columns, angles)
    } else {
        volume(columns, angles)
    }
}

/// Ten iterations; seconds per slice.
pub(crate) fn iterative(kind: &str, columns: usize, angles: usize) -> Result<Measurement> {
    let accelerator = Accelerator::open(&AcceleratorConfig::default())?;
    let queue = accelerator.queue()?;
    let config = IterativeConfig {
        columns,
        rotation_axis_px: (columns as f64 - 1.0) / 2.0,
        angles_deg: angles_deg(angles),
        iteration: if kind == "cgls" {
            Iteration::Cgls
        } else {
            Iteration::Sirt { nonnegative: false }
        },
        iterations: 10,
    };
    let mut iterative = Iterative::new(&accelerator, &queue, &config)?;
    let (given, mut slices) = (sinograms(columns, angles), vec![0.0; iterative.slices_len()]);
    Ok(Box::new(move || {
        let started = Instant::now();
        iterative.run(&queue, &given, &mut slices, |_| true)?;
        Ok(started.elapsed().as_secs_f64() / SLICES as f64)
    }))
}

/// Phase retrieval; seconds per projection, in batches of as many as there are threads.
pub(crate) fn paganin(rows: usize, columns: usize) -> Result<Measurement> {
    let config = PaganinConfig {
        rows,
        columns,
        pixel_size_um: 1.3,
        energy_kev: 23.5,
        distance_mm: 120.0,
        delta_beta: 250.0,
        padding: Padding::Edge,
        clip_epsilon: 1e-6,
        threads: threads(),
    };
    let mut paganin = Paganin::new(&config)?;
    let given: Vec<f32> = (0..threads() * rows * columns)
        .map(|i| 0.5 + (i % 97) as f32 / 200.0)
        .collect();
    let mut values = given.clone();
    Ok(Box::new(move || {
        values.copy_from_slice(&given);
        let started = Instant::now();
        paganin.run(&mut values)?;
        Ok(started.elapsed().as_secs_f64() / threads() as f64)
    }))
}
