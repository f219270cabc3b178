//! Azimuthal integration of frames that lie in host memory, with what a beamline asks of it.

use super::{Measurement, Result};
use frame::geometry::{Geometry, Unit};
use frame::{HostRegion, PixelMask, PixelType, Shape};
use kernels::{
    Accelerator, AcceleratorConfig, AzimuthalConfig, AzimuthalEngine, AzimuthalGeometry, ErrorModel, FrameStatistics,
    HostPages, Splitting, Stager, Statistics, StatisticsConfig,
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

/// The same with the corners of pixels.
fn with_corners(shape: Shape) -> Result<AzimuthalGeometry> {
    let detector = Geometry {
        dist_m: DISTANCE_M,
        poni1_m: shape.rows as f64 * 0.49 * PIXEL_M,
        poni2_m: shape.columns as f64 * 0.52 * PIXEL_M,
        rot1_rad: 0.0,
        rot2_rad: 0.0,
        rot3_rad: 0.0,
        wavelength_m: Some(WAVELENGTH_M),
        pixel1_m: PIXEL_M,
        pixel2_m: PIXEL_M,
        orientation: 3,
        shape: None,
        detector: None,
        pixel_corners: None,
    };
    Ok(AzimuthalGeometry {
        chi: Some(detector.chi_map(shape)),
        corners: Some(detector.corners(Unit::QNmInv, shape)?),
        ..geometry(shape)
    })
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
    integrator: AzimuthalEngine,
    statistics: Statistics,
    /// of all curves, so that nobody thinks they are not wanted
    sum: f64,
}

impl Prepared {
    fn new(shape: Shape, batch: usize, poisson: bool, splitting: Splitting) -> Result<Self> {
        let accelerator = Accelerator::open(&AcceleratorConfig::default())?;
        let queue = accelerator.queue()?;
        let mask = mask(shape)?;
        let (region, offsets) = frames(shape, &mask, batch)?;
        let mut stager = Stager::new(&accelerator, region, shape.pixels() * 2, batch, false)?;
        stager.begin()?;
        offsets.iter().try_for_each(|offset| stager.add_in_region(*offset))?;
        stager.finish(&queue)?;
        let geometry = match splitting {
            Splitting::No => geometry(shape),
            _ => with_corners(shape)?,
        };
        let mut config = AzimuthalConfig::new(geometry, BINS);
        config.splitting = splitting;
        if !poisson {
            config.error_model = ErrorModel::None;
        }
        let integrator = AzimuthalEngine::new(&accelerator, &config, shape, PixelType::U16, &mask, batch)?;
        let counting = StatisticsConfig {
            saturation: Some(65535.0),
            ..StatisticsConfig::default()
        };
        let statistics = Statistics::new(&accelerator, &counting, shape, PixelType::U16, &mask, batch)?;
        Ok(Self {
            queue,
            stager,
            integrator,
            statistics,
            sum: 0.0,
        })
    }

    fn integrate(&mut self) -> Result<()> {
        let sum = &mut self.sum;
        let put = |_, intensity: &[f32], _: &[f32], _: &[f32]| *sum += f64::from(intensity[BINS / 2]);
        self.integrator.integrate_with(&self.queue, self.stager.batch(), put)?;
        assert!(self.sum.is_finite());
        Ok(())
    }
}

/// Seconds of all threads of this process since they began.
pub(crate) fn processor_seconds() -> Result<f64> {
    let mut sum = 0.0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().ok_or("an empty schedstat")?;
        sum += first.parse::<f64>()? * 1e-9;
    }
    Ok(sum)
}

/// Per frame; with `cpu` of the processor time of all threads.
pub(crate) fn integrate(rows: usize, columns: usize, batch: usize, words: &[&str]) -> Result<Measurement> {
    let splitting = match words {
        _ if words.contains(&"bbox") => Splitting::Bbox,
        _ if words.contains(&"full") => Splitting::Full,
        _ => Splitting::No,
    };
    let (poisson, cpu) = (words.contains(&"poisson"), words.contains(&"cpu"));
    let mut prepared = Prepared::new(Shape::new(rows, columns), batch, poisson, splitting)?;
    prepared.integrate()?;
    Ok(Box::new(move || {
        let (started, spent) = (Instant::now(), processor_seconds()?);
        prepared.integrate()?;
        let seconds = match cpu {
            true => processor_seconds()? - spent,
            false => started.elapsed().as_secs_f64(),
        };
        Ok(seconds / batch as f64)
    }))
}

pub(crate) fn bare(rows: usize, columns: usize) -> Result<Measurement> {
    let mut prepared = Prepared::new(Shape::new(rows, columns), 1, true, Splitting::No)?;
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
