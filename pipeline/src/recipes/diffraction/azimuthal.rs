//! `azimuthal`: the curve of every frame and, where azimuthal bins are asked for, its picture over radius and azimuth; and
//! the means of the run.

use super::super::files::NamedFile;
use super::super::{Batch, Operation, Prepared, RecipeError, RunningCurve, Setup, Site, Snapshot};
use super::correct::Corrections;
use super::geometry;
use crate::config::ConfigError;
use crate::storage::CurveAxis;
use frame::geometry::{Geometry, NoWavelength, Unit};
use frame::{FrameResult, Image, Shape};
use kernels::{
    AzimuthalConfig, AzimuthalEngine, AzimuthalGeometry, AzimuthalIntegrator, ErrorModel, Queue, SigmaClip, Splitting,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "azimuthal";
/// Name of the curve; its errors and counts carry it as a prefix.
const CURVE: &str = "intensity";
/// Name of the picture of a 2-D integration. It comes behind the curve's in any order.
const PICTURE: &str = "intensity_2d";
/// What belongs to a curve or picture.
const SUFFIXES: [(&str, &str); 3] = [("", "counts"), ("_errors", "counts"), ("_pixels", "")];
/// Most bins of a picture.
const PICTURE_BINS_MAX: usize = 1 << 22;

/// `[recipe.NAME.azimuthal]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AzimuthalParameters {
    /// `.poni` file, versions 1 to 3. Without one the geometry is what the source says: distance, wavelength and beam
    /// centre, the detector upright across the beam.
    pub poni: Option<NamedFile>,
    /// Number of bins (1 to 65535).
    pub bins: usize,
    /// Unit of the axis as pyFAI writes it: "q_nm^-1", "q_A^-1", "2th_deg", "2th_rad", "r_mm" (distance from the beam) or
    /// "d_A" (lattice spacing, Å; needs `range`).
    #[schemars(with = "String")]
    pub unit: Unit,
    /// Range of the axis in its unit, [low, high]; the whole detector unless given.
    pub range: Option<[f64; 2]>,
    /// Correct for the solid angle that a pixel sees.
    pub solid_angle: bool,
    /// Polarisation factor of the beam, -1 (vertical) to 1 (horizontal); no correction unless given.
    pub polarization: Option<f64>,
    /// How a pixel is shared between bins: "none" (the bin of its centre has it whole), "bbox" (evenly over the box around its
    /// corners) or "full" (by the area of its polygon).
    #[schemars(with = "String")]
    pub splitting: Splitting,
    /// Number of azimuthal bins (1 to 65535): beside the curve, a picture of every frame over azimuth and radius with `bins`
    /// times so many bins, at most 4194304.
    pub azimuthal_bins: Option<usize>,
    /// Range of azimuths, [low, high] in degrees, both from -180 to 180 or both from 0 to 360, 0 along increasing columns and
    /// 90 along increasing rows of a detector that is not turned; all unless given.
    pub azimuthal_range: Option<[f64; 2]>,
    /// Where standard errors come from: "poisson" (counts), "azimuthal" (how far the pixels of a bin lie apart), "hybrid"
    /// (outliers are told by the azimuthal ones, errors are those of counts) or "none".
    #[schemars(with = "String")]
    pub error_model: ErrorModel,
    /// Leaves out pixels that lie far from the mean of their bin, again and again; off unless given.
    pub sigma_clip: Option<SigmaClipParameters>,
    /// Pixels of this value take no part.
    pub dummy: Option<f64>,
    /// Half width of the interval around `dummy`.
    pub delta_dummy: Option<f64>,
}

/// `[recipe.NAME.azimuthal.sigma_clip]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SigmaClipParameters {
    /// Smallest distance from the mean that is far, in standard deviations (0 or more). Where Chauvenet's criterion is wider
    /// for the bin's pixels, that counts, so 0 means that criterion alone.
    pub cutoff: f64,
    /// Most repetitions (1 to 100).
    pub cycles: u32,
}

impl Default for SigmaClipParameters {
    fn default() -> Self {
        Self { cutoff: 5.0, cycles: 5 }
    }
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
            splitting: Splitting::No,
            azimuthal_bins: None,
            azimuthal_range: None,
            error_model: ErrorModel::Poisson,
            sigma_clip: None,
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
        if self.unit == Unit::DAngstrom && self.range.is_none_or(|[low, _]| low <= 0.0) {
            let expected =
                "a lattice spacing grows without bound towards the beam: give range = [low, high] in Å, low above 0";
            return wrong("unit", format!("{:?}", self.unit.name()), expected);
        }
        if let Some(count) = self.azimuthal_bins
            && !((1..=65535).contains(&count) && count * self.bins <= PICTURE_BINS_MAX)
        {
            let expected = format!(
                "allowed is 1 to 65535, and at most {PICTURE_BINS_MAX} together with bins = {}",
                self.bins
            );
            return wrong("azimuthal_bins", count.to_string(), &expected);
        }
        if let Some([low, high]) = self.azimuthal_range
            && !(low < high && (low >= -180.0 && high <= 180.0 || low >= 0.0 && high <= 360.0))
        {
            let expected = "[low, high] in degrees with low below high, both from -180 to 180 or both from 0 to 360";
            return wrong("azimuthal_range", format!("[{low}, {high}]"), expected);
        }
        if let Some(clip) = &self.sigma_clip {
            if !(clip.cutoff.is_finite() && clip.cutoff >= 0.0) {
                return wrong("sigma_clip.cutoff", clip.cutoff.to_string(), "allowed is 0 or more");
            }
            if !(1..=100).contains(&clip.cycles) {
                return wrong("sigma_clip.cycles", clip.cycles.to_string(), "allowed is 1 to 100");
            }
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
    /// Σ pixels × [`SCALE`]: with splitting a bin has parts of pixels
    pixels: Vec<i128>,
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
            self.pixels[bin] += (pixels * SCALE) as i128;
        }
        self.frames += 1;
    }
}

/// One per worker.
type Sums = Arc<Vec<Mutex<Running>>>;

/// Means over all workers' frames and their errors, as far as there is room for them; returns the number of frames.
fn means(sums: &Sums, values: &mut [f32], errors: &mut [f32]) -> u64 {
    for (bin, value) in values.iter_mut().enumerate() {
        let (mut weighted, mut variance, mut pixels) = (0i128, 0i128, 0i128);
        for running in sums.iter() {
            let running = running.lock().unwrap_or_else(PoisonError::into_inner);
            weighted += running.weighted[bin];
            variance += running.variance[bin];
            pixels += running.pixels[bin];
        }
        let pixels = pixels as f64 / SCALE;
        let mean = |sum: f64| if pixels > 0.0 { (sum / pixels) as f32 } else { 0.0 };
        *value = mean(weighted as f64 / SCALE);
        if let Some(error) = errors.get_mut(bin) {
            *error = mean((variance as f64 / SCALE).sqrt());
        }
    }
    let frames = |running: &Mutex<Running>| running.lock().unwrap_or_else(PoisonError::into_inner).frames;
    sums.iter().map(frames).sum()
}

/// The curve, or the picture.
struct PlanPart {
    /// as far as it is not let go: it is as large as a few frames, and made again when it is needed
    config: Option<AzimuthalConfig>,
    /// rows of the picture
    rows: Option<usize>,
    /// first of its fields in the results
    first: usize,
    running: Sums,
    /// that of the first worker, where it is made already: a large matrix is not made twice
    engine: Mutex<Option<AzimuthalEngine>>,
}

/// Whether the host's reducer does it.
fn plain(config: &AzimuthalConfig) -> bool {
    let known = matches!(config.error_model, ErrorModel::Poisson | ErrorModel::None);
    config.is_histogram() && config.azimuthal_range_deg.is_none() && known
}

impl PlanPart {
    /// Where a worker's curves go.
    fn place(&self, worker: usize) -> CurvePlace {
        CurvePlace {
            first: self.first,
            worker,
            running: self.running.clone(),
        }
    }
}

/// What the operations of all workers share: the curve, then the picture where one is asked for.
pub(super) struct AzimuthalPlan {
    parts: Vec<PlanPart>,
    parameters: AzimuthalParameters,
    geometry: Geometry,
}

impl AzimuthalPlan {
    /// The configuration, where a plain curve is all that is asked for: the host can make it, too.
    pub(super) fn plain(&self) -> Option<&AzimuthalConfig> {
        match self.parts.as_slice() {
            [part] => part.config.as_ref().filter(|config| plain(config)),
            _ => None,
        }
    }

    /// Lets go what no worker needs any more.
    pub(super) fn slim(&mut self) {
        for part in &mut self.parts {
            part.config = None;
            part.engine = Mutex::default();
        }
    }

    /// Where a worker's curve goes.
    pub(super) fn place(&self, worker: usize) -> Option<CurvePlace> {
        self.parts.first().map(|part| part.place(worker))
    }
}

/// Where the curves, or pictures, of one worker go: into the frame's result and the run's sums.
pub(super) struct CurvePlace {
    first: usize,
    worker: usize,
    running: Sums,
}

impl CurvePlace {
    /// Intensity, errors and pixels of a frame.
    pub(super) fn put(&self, result: &mut FrameResult, curves: [&[f32]; 3]) {
        for (place, curve) in curves.into_iter().enumerate() {
            result.curves[self.first + place].copy_from_slice(curve);
        }
    }

    /// Adds a frame's curves to the run's.
    pub(super) fn add(&self, result: &FrameResult) {
        let [intensity, sigma, count] = [0, 1, 2].map(|place| &result.curves[self.first + place]);
        // The worker's own sums: nobody else asks for them but a snapshot, ten times a second.
        let mut running = self.running[self.worker].lock().unwrap_or_else(PoisonError::into_inner);
        running.add(intensity, sigma, count);
    }

    /// The mean curve of the run so far, of all workers.
    pub(super) fn snapshot_curve(&self, snapshot: &mut Snapshot) {
        if let Some(curve) = snapshot.curves.iter_mut().find(|curve| curve.name == CURVE) {
            curve.frames_used = means(&self.running, &mut curve.values, &mut curve.errors);
        }
    }

    /// The mean picture of the run so far, of all workers.
    fn snapshot_picture(&self, snapshot: &mut Snapshot) {
        if let Some(picture) = snapshot.images.iter_mut().find(|image| image.name == PICTURE) {
            picture.frames_used = means(&self.running, &mut picture.values, &mut []);
        }
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
    let geometry = geometry::load(setup, NAME, parameters.poni.as_ref())?;
    let configuration = |rows: Option<usize>| {
        configuration(setup.stream.shape, parameters, corrections, &geometry, rows)
            .map_err(|error| setup.wrong(NAME, "unit", format!("{:?}", parameters.unit.name()), error.to_string()))
    };
    let config = configuration(None)?;
    let sums = |bins: usize| -> Sums { Arc::new((0..workers).map(|_| Mutex::new(Running::new(bins))).collect()) };
    // Without the device where the host can take its place.
    let (radial, curve) = if plain(&config) && parameters.azimuthal_bins.is_none() {
        let (stream, mask) = (setup.stream, &corrections.mask);
        let centers = AzimuthalIntegrator::centers(&config, stream.shape, stream.pixel_type, mask);
        (centers.map_err(RecipeError::device(NAME))?, None)
    } else {
        let curve = engine(setup.site(), &config, corrections)?;
        (curve.radial().to_vec(), Some(curve))
    };
    let (layout, unit) = (&mut prepared.layout, parameters.unit);
    let axis = |curve: String, values: &[f64]| CurveAxis {
        curve,
        name: unit.quantity().into(),
        unit: unit.nexus().into(),
        values: values.to_vec(),
    };
    let first = layout.curves.len();
    for (suffix, of) in SUFFIXES {
        layout.curve(&format!("{CURVE}{suffix}"), of, parameters.bins);
        prepared.axes.push(axis(format!("{CURVE}{suffix}"), &radial));
    }
    prepared.snapshot.curves.push(RunningCurve {
        name: CURVE.into(),
        unit: "counts".into(),
        values: vec![0.0; parameters.bins],
        errors: vec![0.0; parameters.bins],
        frames_used: 0,
    });
    let mut parts = vec![PlanPart {
        running: sums(parameters.bins),
        engine: Mutex::new(curve),
        config: Some(config),
        rows: None,
        first,
    }];
    if let Some(rows) = parameters.azimuthal_bins {
        let config = configuration(Some(rows))?;
        let picture = engine(setup.site(), &config, corrections)?;
        let shape = Shape::new(rows, parameters.bins);
        let first = layout.curves.len();
        for (suffix, of) in SUFFIXES {
            let name = format!("{PICTURE}{suffix}");
            layout.picture(&name, of, shape);
            prepared.axes.push(CurveAxis {
                curve: name.clone(),
                name: "azimuth".into(),
                unit: "deg".into(),
                values: picture.azimuthal().unwrap_or_default().to_vec(),
            });
            prepared.axes.push(axis(name, picture.radial()));
        }
        prepared.snapshot.images.push(Image {
            name: PICTURE.into(),
            shape,
            unit: "counts".into(),
            values: vec![0.0; shape.pixels()],
            frames_used: 0,
            frames_expected: setup.stream.frames_expected,
        });
        parts.push(PlanPart {
            running: sums(shape.pixels()),
            engine: Mutex::new(Some(picture)),
            config: Some(config),
            rows: Some(rows),
            first,
        });
    }
    prepared.geometry = Some(geometry.clone());
    Ok(AzimuthalPlan {
        parts,
        parameters: parameters.clone(),
        geometry,
    })
}

/// The configuration of the curve, or of the picture of so many rows.
fn configuration(
    shape: Shape,
    parameters: &AzimuthalParameters,
    corrections: &Corrections,
    geometry: &Geometry,
    rows: Option<usize>,
) -> Result<AzimuthalConfig, NoWavelength> {
    // pyFAI lays angles out in radians whatever the unit of the axis.
    let (native, scale) = match parameters.unit {
        Unit::TwoThetaDeg => (Unit::TwoThetaRad, 180.0 / std::f64::consts::PI),
        unit => (unit, 1.0),
    };
    let split = parameters.splitting != Splitting::No;
    let around = parameters.azimuthal_bins.is_some() || parameters.azimuthal_range.is_some();
    let geometry = AzimuthalGeometry {
        radial: geometry.radial_map(native, shape)?,
        scale,
        unit: parameters.unit.name().into(),
        solid_angle: parameters.solid_angle.then(|| geometry.solid_angle_map(shape)),
        polarization: parameters
            .polarization
            .map(|factor| geometry.polarization_map(factor, 0.0, shape)),
        chi: around.then(|| geometry.chi_map(shape)),
        corners: split.then(|| geometry.corners(native, shape)).transpose()?,
    };
    Ok(AzimuthalConfig {
        azimuthal_bins: rows,
        radial_range: parameters.range.map(|[low, high]| (low, high)),
        azimuthal_range_deg: parameters.azimuthal_range.map(|[low, high]| (low, high)),
        splitting: parameters.splitting,
        dark: corrections.dark.clone(),
        flat: corrections.flat.clone(),
        saturation: corrections.saturation,
        dummy: parameters.dummy,
        delta_dummy: parameters.delta_dummy,
        error_model: parameters.error_model,
        sigma_clip: parameters.sigma_clip.as_ref().map(|clip| SigmaClip {
            cutoff: clip.cutoff,
            cycles: clip.cycles,
        }),
        ..AzimuthalConfig::new(geometry, parameters.bins)
    })
}

fn engine(site: Site<'_>, config: &AzimuthalConfig, corrections: &Corrections) -> Result<AzimuthalEngine, RecipeError> {
    let stream = site.stream;
    let (device, mask, limit) = (site.accelerator, &corrections.mask, site.batch_limit);
    AzimuthalEngine::new(device, config, stream.shape, stream.pixel_type, mask, limit)
        .map_err(RecipeError::device(NAME))
}

/// The operation: the curve, then the picture where one is asked for.
pub(super) struct Azimuthal(Vec<(AzimuthalEngine, CurvePlace)>);

impl Azimuthal {
    pub(super) fn new(
        site: Site<'_>,
        plan: &AzimuthalPlan,
        corrections: &Corrections,
        worker: usize,
    ) -> Result<Self, RecipeError> {
        let made_again = |rows| {
            let (parameters, geometry) = (&plan.parameters, &plan.geometry);
            configuration(site.stream.shape, parameters, corrections, geometry, rows).map_err(|error| {
                RecipeError::Frames {
                    operation: NAME,
                    reason: error.to_string(),
                }
            })
        };
        let part = |part: &PlanPart| {
            let made = part.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
            let engine = match (made, &part.config) {
                (Some(made), _) => made,
                (None, Some(config)) => engine(site, config, corrections)?,
                (None, None) => engine(site, &made_again(part.rows)?, corrections)?,
            };
            Ok((engine, part.place(worker)))
        };
        Ok(Self(plan.parts.iter().map(part).collect::<Result<_, RecipeError>>()?))
    }
}

impl Operation for Azimuthal {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let (queue, frames) = (batch.queue, batch.frames);
        for (engine, place) in &mut self.0 {
            let put = |frame: usize, intensity: &[f32], sigma: &[f32], count: &[f32]| {
                if let Some(result) = batch.result(frame) {
                    place.put(result, [intensity, sigma, count]);
                }
            };
            engine
                .integrate_with(queue, frames, put)
                .map_err(RecipeError::device(NAME))?;
        }
        Ok(())
    }

    fn settle(&mut self, results: &mut [Arc<FrameResult>]) {
        for (_, place) in &self.0 {
            results.iter().for_each(|result| place.add(result));
        }
    }

    fn snapshot(&mut self, _queue: &Queue, snapshot: &mut Snapshot) -> Result<(), RecipeError> {
        if let Some((_, place)) = self.0.first() {
            place.snapshot_curve(snapshot);
        }
        if let Some((_, place)) = self.0.get(1) {
            place.snapshot_picture(snapshot);
        }
        Ok(())
    }
}
