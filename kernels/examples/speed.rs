//! Frames per second of the per-frame operations on this machine's device, 1M and 4M `u16` frames read in place.
//!
//! `cargo run --release -p kernels --example speed [-- SECONDS [DEVICE]]`. Rounds are interleaved over all variants,
//! and the median of each is printed, so that a machine whose speed drifts shifts all of them alike.

use frame::{HostRegion, PixelMask, PixelType, Shape};
use kernels::*;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FRAMES: usize = 16;
const BINS: usize = 2000;

type Step<'a> = Box<dyn FnMut(&Queue, &DeviceBatch) -> Result<(), AcceleratorError> + 'a>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(16.0), |text| text.parse())?;
    let device = arguments.next().unwrap_or_else(|| "auto".into());
    let accelerator = Accelerator::open(&AcceleratorConfig {
        device,
        ..Default::default()
    })?;
    let info = accelerator.info();
    println!(
        "{} ({}), {} units, memory {:?}",
        info.name,
        info.platform,
        info.compute_units,
        accelerator.memory()
    );
    println!("{:<58} {:>9} {:>8} {:>8}", "median", "frames/s", "GB/s", "Gpx/s");
    for (name, shape) in [("1M", Shape::new(1065, 1030)), ("4M", Shape::new(2167, 2070))] {
        measure(&accelerator, name, shape, seconds / 2.0)?;
    }
    Ok(())
}

fn geometry(shape: Shape) -> AzimuthalGeometry {
    // Detector at 0.15 m with 75 um pixels, beam near its middle, 1 A.
    let at = |index: usize| {
        let y = ((index / shape.columns) as f64 - shape.rows as f64 * 0.49) * 75e-6;
        let x = ((index % shape.columns) as f64 - shape.columns as f64 * 0.52) * 75e-6;
        (y, x, (y * y + x * x).sqrt().atan2(0.15))
    };
    let all = |value: &dyn Fn(usize) -> f64| (0..shape.pixels()).map(value).collect::<Vec<f64>>();
    AzimuthalGeometry {
        radial: all(&|index| 4.0e-9 * std::f64::consts::PI * (at(index).2 / 2.0).sin() / 1e-10),
        scale: 1.0,
        unit: "1/nm".into(),
        solid_angle: Some(all(&|index| at(index).2.cos().powi(3))),
        polarization: Some(all(&|index| {
            let (y, x, theta) = at(index);
            let (cos2, azimuth) = (theta.cos().powi(2), y.atan2(x));
            0.5 * (1.0 + cos2 - 0.9 * (2.0 * azimuth).cos() * (1.0 - cos2))
        })),
    }
}

/// Frames of small counts with a gap at the type's largest value and 20 saturated pixels each.
fn frames(shape: Shape, mask: &PixelMask) -> Result<(Arc<dyn HostRegion>, Vec<usize>), AcceleratorError> {
    let slot = (shape.pixels() * 2).next_multiple_of(4096);
    let pages = HostPages::new(slot * FRAMES)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for frame in 0..FRAMES {
        let mut bytes = Vec::with_capacity(shape.pixels() * 2);
        for index in 0..shape.pixels() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let saturated = mask.rejects(index) || index % (shape.pixels() / 20) == frame;
            let value = if saturated {
                u16::MAX
            } else {
                (state & state >> 3 & 7) as u16
            };
            bytes.extend(value.to_le_bytes());
        }
        pages.fill(frame * slot, &bytes)?;
    }
    Ok((Arc::new(pages), (0..FRAMES).map(|frame| frame * slot).collect()))
}

fn measure(accelerator: &Accelerator, name: &str, shape: Shape, seconds: f64) -> Result<(), Box<dyn Error>> {
    let queue = accelerator.queue()?;
    // Module gaps as on an EIGER: 37 rows every 514, 10 columns every 1030.
    let gap = |index: usize| (index / shape.columns) % 551 >= 514 || (index % shape.columns) % 1040 >= 1030;
    let mask = PixelMask::from_nonzero(shape, (0..shape.pixels()).map(gap))?;
    let (region, offsets) = frames(shape, &mask)?;
    let pixel = PixelType::U16;
    let batch_of = |count: usize| -> Result<Stager, AcceleratorError> {
        let mut stager = Stager::new(accelerator, region.clone(), shape.pixels() * 2, FRAMES, false)?;
        stager.begin()?;
        offsets[..count]
            .iter()
            .try_for_each(|offset| stager.add_in_region(*offset))?;
        stager.finish(&queue)?;
        Ok(stager)
    };
    let (many, one) = (batch_of(FRAMES)?, batch_of(1)?);

    let mut plain = AzimuthalConfig::new(geometry(shape), BINS);
    plain.error_model = ErrorModel::None;
    let mut full = AzimuthalConfig::new(geometry(shape), BINS);
    full.saturation = Some(65535.0);
    let dark = Some(vec![0.5; shape.pixels()]);
    let flat = Some(vec![900.0; shape.pixels()]);
    let minus_log = CorrectionConfig {
        dark: dark.clone(),
        flat,
        minus_log: true,
        ..Default::default()
    };
    let subtract = CorrectionConfig {
        dark,
        ..Default::default()
    };
    let saturation = Some(65535.0);
    let roi = Region {
        name: "beam".into(),
        row: 400,
        column: 400,
        rows: 200,
        columns: 200,
    };
    let counting = StatisticsConfig {
        saturation,
        regions: vec![roi; 2],
    };

    let integrate = |config: &AzimuthalConfig| -> Result<Step<'_>, AcceleratorError> {
        let mut integrator = AzimuthalIntegrator::new(accelerator, config, shape, pixel, &mask, FRAMES)?;
        let mut curves = vec![[(); 3].map(|()| vec![0f32; BINS]); FRAMES];
        Ok(Box::new(move |queue, batch| {
            let outputs = curves.iter_mut().take(batch.frames());
            let mut outputs: Vec<_> = outputs
                .map(|[intensity, sigma, count]| AzimuthalOutput {
                    intensity,
                    sigma,
                    count,
                })
                .collect();
            integrator.integrate(queue, batch, &mut outputs)
        }))
    };
    let correct = |config: &CorrectionConfig| -> Result<Step<'_>, AcceleratorError> {
        let mut correction = Correction::new(accelerator, config, shape, pixel, &mask, FRAMES)?;
        Ok(Box::new(move |queue, batch| correction.run(queue, batch).map(|_| ())))
    };
    let mut statistics = Statistics::new(accelerator, &counting, shape, pixel, &mask, FRAMES)?;
    let mut numbers = [FrameStatistics::default(); FRAMES];
    let azimuthal = "azimuthal 2000 bins, mask, solid angle, polarisation";
    let mut steps: Vec<(String, &Stager, Step<'_>)> = vec![
        (azimuthal.into(), &many, integrate(&plain)?),
        ("  + saturation + Poisson errors".into(), &many, integrate(&full)?),
        ("  the same, one frame at a time".into(), &one, integrate(&full)?),
        (
            "statistics, saturation, 2 regions".into(),
            &many,
            Box::new(move |queue, batch| statistics.run(queue, batch, &mut numbers)),
        ),
        ("correction: dark, mask".into(), &many, correct(&subtract)?),
        (
            "correction: dark, flat, mask, minus log".into(),
            &many,
            correct(&minus_log)?,
        ),
    ];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); steps.len()];
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end || times[0].len() < 3 {
        for ((_, stager, step), times) in steps.iter_mut().zip(&mut times) {
            let start = Instant::now();
            step(&queue, stager.batch())?;
            times.push(start.elapsed().as_secs_f64() / stager.batch().frames() as f64);
        }
    }
    for ((step, ..), times) in steps.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let rate = 1.0 / times[times.len() / 2];
        let gigapixels = rate * shape.pixels() as f64 * 1e-9;
        println!(
            "{name} {step:<55} {rate:>9.0} {:>8.2} {gigapixels:>8.2}",
            2.0 * gigapixels
        );
    }
    Ok(())
}
