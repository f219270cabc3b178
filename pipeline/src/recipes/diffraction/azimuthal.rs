//! `azimuthal`: the curve of every frame, and the mean curve of the run.

use super::super::{Batch, Operation, Prepared, RecipeError, RunningCurve, Setup, Snapshot};
use super::correct::Corrections;
use super::geometry;
use crate::config::ConfigError;
use crate::storage::CurveAxis;
use frame::FrameResult;
use frame::geometry::Unit;
use kernels::{AzimuthalConfig, AzimuthalGeometry, AzimuthalIntegrator, ErrorModel, Queue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "azimuthal";
/// Name of the curve; its errors and counts carry it as a prefix.
const CURVE: &str = "intensity";

/// `[recipe.NAME.azimuthal]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AzimuthalParameters {
    /// `.poni` file, versions 1 to 3. Without one the geometry is what the source says: distance, wavelength and beam
    /// centre, the detector upright across the beam.
    pub poni: Option<PathBuf>,
    /// Number of bins (1 to 65535).
    pub bins: usize,
    /// Unit of the axis as pyFAI writes it: "q_nm^-1", "q_A^-1", "2th_deg", "2th_rad" or "r_mm".
    #[schemars(with = "String")]
    pub unit: Unit,
    /// Range of the axis in its unit, [low, high]; the whole detector unless given.
    pub range: Option<[f64; 2]>,
    /// Correct for the solid angle that a pixel sees.
    pub solid_angle: bool,
    /// Polarisation factor of the beam, -1 (vertical) to 1 (horizontal); no correction unless given.
    pub polarization: Option<f64>,
    /// Where standard errors come from: "poisson" or "none".
    #[schemars(with = "String")]
    pub error_model: ErrorModel,
    /// Pixels of this value take no part.
    pub dummy: Option<f64>,
    /// Half width of the interval around `dummy`.
    pub delta_dummy: Option<f64>,
}

impl Default for AzimuthalParameters {
    fn default() -> Self {
        Self {
            poni: None,
            bins: 1000,
            unit: Unit::QNmInv,
            range: None,
            solid_angle: true,
            polarization: None,
            error_model: ErrorModel::Poisson,
            dummy: None,
            delta_dummy: None,
        }
    }
}

impl AzimuthalParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, value: String, expected: &str| {
            Err(ConfigError::value(
                format!("recipe.{recipe}.{NAME}.{key}"),
                value,
                expected,
            ))
        };
        if !(1..=65535).contains(&self.bins) {
            return wrong("bins", self.bins.to_string(), "allowed is 1 to 65535");
        }
        if let Some(factor) = self.polarization.filter(|factor| !(-1.0..=1.0).contains(factor)) {
            return wrong("polarization", factor.to_string(), "allowed is -1 to 1");
        }
        if let Some([low, high]) = self.range
            && !(low.is_finite() && high.is_finite() && low < high)
        {
            return wrong("range", format!("[{low}, {high}]"), "[low, high] with low below high");
        }
        Ok(())
    }
}

/// Sums over frames as whole numbers, so that their order makes no difference to a single bit.
struct Running {
    /// Σ intensity × pixels × [`SCALE`]
    weighted: Vec<i128>,
    /// Σ (sigma × pixels)² × [`SCALE`]
    variance: Vec<i128>,
    /// Σ pixels
    pixels: Vec<u64>,
    frames: u64,
}

const SCALE: f64 = (1u64 << 32) as f64;

impl Running {
    fn new(bins: usize) -> Self {
        Self {
            weighted: vec![0; bins],
            variance: vec![0; bins],
            pixels: vec![0; bins],
            frames: 0,
        }
    }

    fn add(&mut self, intensity: &[f32], sigma: &[f32], count: &[f32]) {
        for (bin, ((intensity, sigma), count)) in intensity.iter().zip(sigma).zip(count).enumerate() {
            let pixels = f64::from(*count);
            self.weighted[bin] += (f64::from(*intensity) * pixels * SCALE) as i128;
            self.variance[bin] += ((f64::from(*sigma) * pixels).powi(2) * SCALE) as i128;
            self.pixels[bin] += *count as u64;
        }
        self.frames += 1;
    }
}

/// What the operations of all workers share.
pub(super) struct AzimuthalPlan {
    pub(super) config: AzimuthalConfig,
    first: usize,
    running: Arc<Vec<Mutex<Running>>>,
}

impl AzimuthalPlan {
    /// Where a worker's curves go.
    pub(super) fn place(&self, worker: usize) -> CurvePlace {
        CurvePlace {
            first: self.first,
            worker,
            running: self.running.clone(),
        }
    }
}

/// Where the curves of one worker go: into the frame's result and the run's sums.
pub(super) struct CurvePlace {
    first: usize,
    worker: usize,
    running: Arc<Vec<Mutex<Running>>>,
}

impl CurvePlace {
    /// Intensity, errors and pixels of a frame.
    pub(super) fn put(&self, result: &mut FrameResult, curves: [&[f32]; 3]) {
        let [intensity, sigma, count] = curves;
        // The worker's own sums: nobody else asks for them but a snapshot, ten times a second.
        let mut running = self.running[self.worker].lock().unwrap_or_else(PoisonError::into_inner);
        running.add(intensity, sigma, count);
        for (place, curve) in curves.into_iter().enumerate() {
            result.curves[self.first + place].copy_from_slice(curve);
        }
    }

    /// The mean curve of the run so far, of all workers.
    pub(super) fn snapshot(&self, snapshot: &mut Snapshot) {
        let Some(curve) = snapshot.curves.iter_mut().find(|curve| curve.name == CURVE) else {
            return;
        };
        for bin in 0..curve.values.len() {
            let (mut weighted, mut variance, mut pixels) = (0i128, 0i128, 0u64);
            for running in self.running.iter() {
                let running = running.lock().unwrap_or_else(PoisonError::into_inner);
                weighted += running.weighted[bin];
                variance += running.variance[bin];
                pixels += running.pixels[bin];
            }
            let pixels = pixels as f64;
            let mean = |sum: f64| if pixels > 0.0 { (sum / pixels) as f32 } else { 0.0 };
            curve.values[bin] = mean(weighted as f64 / SCALE);
            curve.errors[bin] = mean((variance as f64 / SCALE).sqrt());
        }
        let frames = |running: &Mutex<Running>| running.lock().unwrap_or_else(PoisonError::into_inner).frames;
        curve.frames_used = self.running.iter().map(frames).sum();
    }
}

/// Lays out the results.
pub(super) fn plan(
    setup: &Setup<'_>,
    parameters: &AzimuthalParameters,
    corrections: &Corrections,
    workers: usize,
    prepared: &mut Prepared,
) -> Result<AzimuthalPlan, RecipeError> {
    let shape = setup.stream.shape;
    let geometry = geometry::load(setup, NAME, parameters.poni.as_ref())?;
    // pyFAI lays angles out in radians whatever the unit of the axis.
    let (native, scale) = match parameters.unit {
        Unit::TwoThetaDeg => (Unit::TwoThetaRad, 180.0 / std::f64::consts::PI),
        unit => (unit, 1.0),
    };
    let radial = geometry
        .radial_map(native, shape)
        .map_err(|error| setup.wrong(NAME, "unit", format!("{:?}", parameters.unit.name()), error.to_string()))?;
    let config = AzimuthalConfig {
        radial_range: parameters.range.map(|[low, high]| (low, high)),
        dark: corrections.dark.clone(),
        flat: corrections.flat.clone(),
        saturation: corrections.saturation,
        dummy: parameters.dummy,
        delta_dummy: parameters.delta_dummy,
        error_model: parameters.error_model,
        ..AzimuthalConfig::new(
            AzimuthalGeometry {
                radial,
                scale,
                unit: parameters.unit.name().into(),
                solid_angle: parameters.solid_angle.then(|| geometry.solid_angle_map(shape)),
                polarization: parameters
                    .polarization
                    .map(|factor| geometry.polarization_map(factor, 0.0, shape)),
            },
            parameters.bins,
        )
    };
    // Without the device: where that cannot integrate, the host does.
    let centers = AzimuthalIntegrator::centers(&config, shape, setup.stream.pixel_type, &corrections.mask)
        .map_err(RecipeError::device(NAME))?;
    let layout = &mut prepared.layout;
    let first = layout.curve(CURVE, "counts", parameters.bins);
    layout.curve(&format!("{CURVE}_errors"), "counts", parameters.bins);
    layout.curve(&format!("{CURVE}_pixels"), "", parameters.bins);
    for suffix in ["", "_errors", "_pixels"] {
        prepared.axes.push(CurveAxis {
            curve: format!("{CURVE}{suffix}"),
            name: parameters.unit.quantity().into(),
            unit: parameters.unit.nexus().into(),
            values: centers.clone(),
        });
    }
    prepared.snapshot.curves.push(RunningCurve {
        name: CURVE.into(),
        unit: "counts".into(),
        values: vec![0.0; parameters.bins],
        errors: vec![0.0; parameters.bins],
        frames_used: 0,
    });
    prepared.geometry = Some(geometry);
    let running = Arc::new(
        (0..workers)
            .map(|_| Mutex::new(Running::new(parameters.bins)))
            .collect(),
    );
    Ok(AzimuthalPlan { config, first, running })
}

fn integrator(
    setup: &Setup<'_>,
    config: &AzimuthalConfig,
    corrections: &Corrections,
) -> Result<AzimuthalIntegrator, RecipeError> {
    let stream = setup.stream;
    let (device, mask, limit) = (setup.accelerator, &corrections.mask, setup.batch_limit);
    AzimuthalIntegrator::new(device, config, stream.shape, stream.pixel_type, mask, limit)
        .map_err(RecipeError::device(NAME))
}

/// The operation.
pub(super) struct Azimuthal {
    integrator: AzimuthalIntegrator,
    place: CurvePlace,
}

impl Azimuthal {
    pub(super) fn new(
        setup: &Setup<'_>,
        plan: &AzimuthalPlan,
        corrections: &Corrections,
        worker: usize,
    ) -> Result<Self, RecipeError> {
        let integrator = integrator(setup, &plan.config, corrections)?;
        Ok(Self {
            integrator,
            place: plan.place(worker),
        })
    }
}

impl Operation for Azimuthal {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let (queue, frames, place) = (batch.queue, batch.frames, &self.place);
        let put = |frame: usize, intensity: &[f32], sigma: &[f32], count: &[f32]| {
            if let Some(result) = batch.result(frame) {
                place.put(result, [intensity, sigma, count]);
            }
        };
        self.integrator
            .integrate_with(queue, frames, put)
            .map_err(RecipeError::device(NAME))?;
        Ok(())
    }

    fn snapshot(&mut self, _queue: &Queue, snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        self.place.snapshot(snapshot);
        Ok(())
    }

    fn finish(&mut self, _queue: &Queue) -> Result<(), RecipeError> {
        Ok(())
    }
}
