//! Spots of a frame out of a file.

use super::azimuthal::processor_seconds;
use super::{Measurement, Result};
use frame::{HostRegion, PixelMask, PixelType, Shape};
use kernels::{Accelerator, AcceleratorConfig, FrameSpots, HostPages, SpotAlgorithm, SpotConfig, SpotFinder, Stager};
use std::sync::Arc;
use std::time::Instant;

/// Per frame: `batch` times the same `i32` frame, found in place; with `cpu` the processor time of all threads.
pub fn find(file: &str, rows: usize, columns: usize, extended: bool, batch: usize, cpu: bool) -> Result<Measurement> {
    let shape = Shape::new(rows, columns);
    let raw = std::fs::read(file)?;
    if raw.len() != shape.pixels() * 4 {
        return Err(format!("{file} holds {} bytes, expected {shape} of 4 each", raw.len()).into());
    }
    let slot = raw.len().next_multiple_of(4096);
    let pages = HostPages::new(slot * batch)?;
    for frame in 0..batch {
        pages.fill(frame * slot, &raw)?;
    }
    let region: Arc<dyn HostRegion> = Arc::new(pages);
    let accelerator = Accelerator::open(&AcceleratorConfig::default())?;
    let queue = accelerator.queue()?;
    let algorithm = if extended {
        SpotAlgorithm::DispersionExtended
    } else {
        SpotAlgorithm::Dispersion
    };
    let config = SpotConfig {
        algorithm,
        ..SpotConfig::default()
    };
    let mask = PixelMask::none(shape);
    let mut finder = SpotFinder::new(&accelerator, &config, shape, PixelType::I32, &mask, batch)?;
    let mut stager = Stager::new(&accelerator, region, raw.len(), batch, false)?;
    let mut outputs = vec![FrameSpots::default(); batch];
    Ok(Box::new(move || {
        let (start, spent) = (Instant::now(), processor_seconds()?);
        stager.begin()?;
        for frame in 0..batch {
            stager.add_in_region(frame * slot)?;
        }
        finder.run(&queue, stager.finish(&queue)?, &mut outputs)?;
        let seconds = match cpu {
            true => processor_seconds()? - spent,
            false => start.elapsed().as_secs_f64(),
        };
        Ok(seconds / batch as f64)
    }))
}
