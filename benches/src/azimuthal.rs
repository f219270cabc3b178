//! Azimuthal integration of frames that lie in host memory, with what a beamline asks of it.

use super::{Measurement, Result};
use frame::{HostRegion, PixelMask, PixelType, Shape};
use kernels::{
    Accelerator, AcceleratorConfig, AzimuthalConfig, AzimuthalGeometry, AzimuthalIntegrator, AzimuthalOutput,
    ErrorModel, FrameStatistics, HostPages, Stager, Statistics, StatisticsConfig,
};
use std::f64::consts::PI;
use std::sync::Arc;
use std::time::Instant;

pub(crate) const BINS: usize = 2000;
const PIXEL_M: f64 = 75e-6;
const DISTANCE_M: f64 = 0.15;
const WAVELENGTH_M: f64 = 1e-10;
const POLARIZATION: f64 = 0.9;

/// q, solid angle and polarisation of a flat detector; `peers.py` gives pyFAI the same geometry.
pub(crate) fn geometry(shape: Shape) -> AzimuthalGeometry {
    let at = |index: usize| {
        let y = ((index / shape.columns) as f64 + 0.5 - shape.rows as f64 * 0.49) * PIXEL_M;
        let x = ((index % shape.columns) as f64 + 0.5 - shape.columns as f64 * 0.52) * PIXEL_M;
        (y, x, y.hypot(x).atan2(DISTANCE_M))
    };
    let all = |value: &dyn Fn(usize) -> f64| (0..shape.pixels()).map(value).collect::<Vec<f64>>();
    AzimuthalGeometry {
        radial: all(&|index| 4.0e-9 * PI * (at(index).2 / 2.0).sin() / WAVELENGTH_M),
        scale: 1.0,
        unit: "1/nm".into(),
        solid_angle: Some(all(&|index| at(index).2.cos().powi(3))),
        polarization: Some(all(&|index| {
            let (y, x, theta) = at(index);
            let (cos2, azimuth) = (theta.cos().powi(2), y.atan2(x));
            0.5 * (1.0 + cos2 - POLARIZATION * (2.0 * azimuth).cos() * (1.0 - cos2))
        })),
        ..Default::default()
    }
}

/// Gaps as on an EIGER: 37 rows every 551, 10 columns every 1040.
pub(crate) fn mask(shape: Shape) -> Result<PixelMask> {
    let gap = |index: usize| (index / shape.columns) % 551 >= 514 || (index % shape.columns) % 1040 >= 1030;
    Ok(PixelMask::from_nonzero(shape, (0..shape.pixels()).map(gap))?)
}

/// Frames of small counts, gaps at the type's largest value.
fn frames(shape: Shape, mask: &PixelMask, count: usize) -> Result<(Arc<dyn HostRegion>, Vec<usize>)> {
    let slot = (shape.pixels() * 2).next_multiple_of(4096);
    let pages = HostPages::new(slot * count)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for frame in 0..count {
        let mut bytes = Vec::with_capacity(shape.pixels() * 2);
        for index in 0..shape.pixels() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = if mask.rejects(index) {
                u16::MAX
            } else {
                (state & state >> 3 & 7) as u16
            };
            bytes.extend(value.to_le_bytes());
        }
        pages.fill(frame * slot, &bytes)?;
    }
    Ok((Arc::new(pages), (0..count).map(|frame| frame * slot).collect()))
}

struct Prepared {
    queue: kernels::Queue,
    stager: Stager,
    integrator: AzimuthalIntegrator,
    statistics: Statistics,
    curves: Vec<[Vec<f32>; 3]>,
}

impl Prepared {
    fn new(shape: Shape, batch: usize, poisson: bool) -> Result<Self> {
        let accelerator = Accelerator::open(&AcceleratorConfig::default())?;
        let queue = accelerator.queue()?;
        let mask = mask(shape)?;
        let (region, offsets) = frames(shape, &mask, batch)?;
        let mut stager = Stager::new(&accelerator, region, shape.pixels() * 2, batch, false)?;
        stager.begin()?;
        offsets.iter().try_for_each(|offset| stager.add_in_region(*offset))?;
        stager.finish(&queue)?;
        let mut config = AzimuthalConfig::new(geometry(shape), BINS);
        if !poisson {
            config.error_model = ErrorModel::None;
        }
        let integrator = AzimuthalIntegrator::new(&accelerator, &config, shape, PixelType::U16, &mask, batch)?;
        let counting = StatisticsConfig {
            saturation: Some(65535.0),
            ..StatisticsConfig::default()
        };
        let statistics = Statistics::new(&accelerator, &counting, shape, PixelType::U16, &mask, batch)?;
        let curves = (0..batch).map(|_| [(); 3].map(|()| vec![0f32; BINS])).collect();
        Ok(Self {
            queue,
            stager,
            integrator,
            statistics,
            curves,
        })
    }

    fn integrate(&mut self) -> Result<()> {
        let outputs = self.curves.iter_mut();
        let mut outputs: Vec<_> = outputs
            .map(|[intensity, sigma, count]| AzimuthalOutput {
                intensity,
                sigma,
                count,
            })
            .collect();
        Ok(self
            .integrator
            .integrate(&self.queue, self.stager.batch(), &mut outputs)?)
    }
}

pub(crate) fn integrate(rows: usize, columns: usize, batch: usize, poisson: bool) -> Result<Measurement> {
    let mut prepared = Prepared::new(Shape::new(rows, columns), batch, poisson)?;
    prepared.integrate()?;
    Ok(Box::new(move || {
        let started = Instant::now();
        prepared.integrate()?;
        Ok(started.elapsed().as_secs_f64() / batch as f64)
    }))
}

pub(crate) fn bare(rows: usize, columns: usize) -> Result<Measurement> {
    let mut prepared = Prepared::new(Shape::new(rows, columns), 1, true)?;
    let mut numbers = [FrameStatistics::default()];
    prepared.integrate()?;
    Ok(Box::new(move || {
        let started = Instant::now();
        prepared
            .statistics
            .run(&prepared.queue, prepared.stager.batch(), &mut numbers)?;
        prepared.integrate()?;
        Ok(started.elapsed().as_secs_f64())
    }))
}
