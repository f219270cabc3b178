//! Compressed frames to numbers and curves: decoded into memory and then reduced by the kernels, or both at once.

use super::azimuthal::{BINS, geometry, mask, processor_seconds};
use super::{Measurement, Result};
use frame::codec::{Beneath, Scratch, compress, compress_bound, decompress};
use frame::{HostRegion, PixelMask, PixelType, Shape};
use kernels::{
    Accelerator, AcceleratorConfig, AzimuthalConfig, AzimuthalIntegrator, FrameStatistics, FusedConfig, FusedReducer,
    HostPages, Payload, Stager, Statistics, StatisticsConfig,
};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);

#[derive(Clone)]
struct Chunk(Arc<Vec<u8>>);

impl Payload for Chunk {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn beneath(&self) -> Option<Beneath> {
        Some(Beneath::Lz4)
    }
}

/// Different frames of counts around 1, gaps at the largest value.
fn chunks(shape: Shape, count: usize) -> Result<Vec<Chunk>> {
    let (mask, mut scratch) = (mask(shape)?, Scratch::default());
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let chunk = |_| {
        let mut raw = Vec::with_capacity(shape.pixels() * 2);
        for index in 0..shape.pixels() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = match mask.rejects(index) {
                true => u16::MAX,
                false => (state & state >> 3 & 7) as u16,
            };
            raw.extend(value.to_le_bytes());
        }
        let mut chunk = vec![0; compress_bound(raw.len(), 2)];
        let used = compress(&raw, 2, &mut chunk, &mut scratch)?;
        chunk.truncate(used);
        Ok(Chunk(Arc::new(chunk)))
    };
    (0..count).map(chunk).collect()
}

/// Per frame; with `unmasked` nobody knows of the gaps, whose pixels then count as saturated; with `cpu` the processor time
/// of all threads.
pub(crate) fn reduce(
    fused: bool,
    rows: usize,
    columns: usize,
    batch: usize,
    threads: usize,
    words: &[&str],
) -> Result<Measurement> {
    let shape = Shape::new(rows, columns);
    let (mut mask, chunks) = (mask(shape)?, chunks(shape, batch)?);
    if words.contains(&"unmasked") {
        mask = PixelMask::none(shape);
    }
    let cpu = words.contains(&"cpu");
    let time = move || -> Result<f64> {
        match cpu {
            true => processor_seconds(),
            false => Ok(CLOCK.elapsed().as_secs_f64()),
        }
    };
    let statistics = StatisticsConfig {
        saturation: Some(65535.0),
        invalid: None,
        regions: Vec::new(),
    };
    let mut azimuthal = AzimuthalConfig::new(geometry(shape), BINS);
    azimuthal.saturation = Some(65535.0);
    let mut found = 0.0;
    if fused {
        let config = FusedConfig {
            statistics: Some(statistics),
            azimuthal: Some(azimuthal),
        };
        let mut reducer = FusedReducer::new(&config, shape, PixelType::U16, &mask, threads)?;
        return Ok(Box::new(move || {
            let started = time()?;
            reducer.run(&chunks, |_, frame| {
                found += frame.map_or(f64::NAN, |frame| {
                    frame.statistics.frame.sum + f64::from(frame.intensity[0])
                });
            })?;
            assert!(found.is_finite());
            Ok((time()? - started) / batch as f64)
        }));
    }
    let accelerator = Accelerator::open(&AcceleratorConfig::default())?;
    let queue = accelerator.queue()?;
    let region: Arc<dyn HostRegion> = Arc::new(HostPages::new(4096)?);
    let mut stager = Stager::new(&accelerator, region, shape.pixels() * 2, batch, true)?;
    let mut integrator = AzimuthalIntegrator::new(&accelerator, &azimuthal, shape, PixelType::U16, &mask, batch)?;
    let mut counter = Statistics::new(&accelerator, &statistics, shape, PixelType::U16, &mask, batch)?;
    let (mut scratch, mut numbers) = (Scratch::default(), vec![FrameStatistics::default(); batch]);
    Ok(Box::new(move || {
        let started = time()?;
        stager.begin()?;
        for chunk in &chunks {
            stager.add_decoded(|out| decompress(Beneath::Lz4, &chunk.0, 2, out, &mut scratch))?;
        }
        let batch_of = stager.finish(&queue)?;
        counter.run(&queue, batch_of, &mut numbers)?;
        integrator.integrate_with(&queue, batch_of, |_, intensity, _, _| found += f64::from(intensity[0]))?;
        found += numbers[0].frame.sum;
        assert!(found.is_finite());
        Ok((time()? - started) / batch as f64)
    }))
}
