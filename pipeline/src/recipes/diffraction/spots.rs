//! `spots`: Bragg spots of every frame, as DIALS or peakfinder8 finds them.

use super::super::files::NamedFile;
use super::super::{Batch, Counter, Operation, Prepared, RecipeError, Setup, Site};
use super::correct::Corrections;
use super::geometry;
use crate::config::ConfigError;
use frame::geometry::Unit;
use frame::mask::{ANALYSIS_REJECT, GAP, USER};
use frame::{FrameResult, PixelMask, Shape};
use kernels::{FrameSpots, SpotAlgorithm, SpotConfig, SpotFinder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const NAME: &str = "spots";
/// What it adds to the results.
pub(super) const SCALARS: [&str; 2] = ["spots", "strong_pixels"];
/// Resolutions of hexagonal ice's rings, Å.
const ICE_RINGS_ANGSTROM: [f64; 10] = [3.897, 3.669, 3.441, 2.671, 2.249, 2.072, 1.948, 1.918, 1.883, 1.721];

/// `[recipe.NAME.spots]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SpotParameters {
    /// How strong pixels are told: "dispersion_extended" or "dispersion", each bit for bit as DIALS 3.12 does, or
    /// "peakfinder8", for which the beam centre must be known.
    pub algorithm: String,
    /// Half width of the box around a pixel (1 to 5). Not of peakfinder8.
    pub radius: usize,
    /// How many sigmas a box must vary more than counting explains (0 to 1000). Not of peakfinder8.
    pub background_sigmas: f64,
    /// How many sigmas a pixel must stand out (0 to 1000); of peakfinder8 the least signal to noise of pixel and peak.
    pub strong_sigmas: f64,
    /// Only pixels above this many counts can be strong.
    pub threshold: f64,
    /// Valid pixels that a box must hold (2 or more). Not of peakfinder8.
    pub min_count: usize,
    /// Counts per photon. Not of peakfinder8.
    pub gain: f64,
    /// Pixels of a spot at least.
    pub min_pixels: usize,
    /// Pixels of a spot at most.
    pub max_pixels: usize,
    /// Distance of a spot's centroid from its largest pixel at most, pixels. Not of peakfinder8.
    pub max_separation_px: f64,
    /// Whether pixels that touch at a corner belong to one spot. With peakfinder8 they always do.
    pub diagonal: bool,
    /// For peakfinder8: half the radius of what counts as a peak's surroundings (1 to 20).
    pub background_radius_px: usize,
    /// For peakfinder8: rows and columns of a panel, at whose edges peaks end; the panels fill the frame. Without, the
    /// frame is one panel.
    pub panel_pixels: Option<[usize; 2]>,
    /// Pixels this near to the frame's edge or to a gap between modules take no part.
    pub border_px: usize,
    /// Only pixels between these resolutions take part, Å, [high, low] as in [1.5, 50.0].
    pub resolution_angstrom: Option<[f64; 2]>,
    /// Leave out the rings of hexagonal ice.
    pub ice_rings: bool,
    /// Width of an ice ring in 1/d², Å⁻².
    pub ice_ring_width_per_angstrom2: f64,
    /// `.poni` file for resolutions; what the source says unless given.
    pub poni: Option<NamedFile>,
    /// Spots of a frame that are kept, the strongest (1 to 65536). All are counted.
    pub spots_max: usize,
    /// Strong pixels of a frame that are looked at (1 to 4194304). A frame with more has no spots, NaN of them, and
    /// is counted in `frames_too_bright`.
    pub pixels_max: usize,
}

impl Default for SpotParameters {
    fn default() -> Self {
        let default = SpotConfig::default();
        Self {
            algorithm: "dispersion_extended".into(),
            radius: default.radius,
            background_sigmas: default.background_sigmas,
            strong_sigmas: default.strong_sigmas,
            threshold: default.threshold,
            min_count: default.min_count,
            gain: default.gain,
            min_pixels: default.min_pixels,
            max_pixels: default.max_pixels,
            max_separation_px: default.max_separation_px,
            diagonal: default.diagonal,
            background_radius_px: default.background_radius,
            panel_pixels: None,
            border_px: 0,
            resolution_angstrom: None,
            ice_rings: false,
            ice_ring_width_per_angstrom2: 0.002,
            poni: None,
            spots_max: 512,
            pixels_max: default.pixels_max,
        }
    }
}

impl SpotParameters {
    pub(super) fn check(&self, recipe: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, value: String, expected: &str| {
            Err(ConfigError::value(
                format!("recipe.{recipe}.{NAME}.{key}"),
                value,
                expected,
            ))
        };
        if self.algorithm().is_none() {
            let value = format!("{:?}", self.algorithm);
            return wrong(
                "algorithm",
                value,
                "\"dispersion_extended\", \"dispersion\" or \"peakfinder8\"",
            );
        }
        if !(1..=65536).contains(&self.spots_max) {
            return wrong("spots_max", self.spots_max.to_string(), "allowed is 1 to 65536");
        }
        if !(1..=20).contains(&self.background_radius_px) {
            let value = self.background_radius_px.to_string();
            return wrong("background_radius_px", value, "allowed is 1 to 20");
        }
        if !(1..=1 << 22).contains(&self.pixels_max) {
            return wrong("pixels_max", self.pixels_max.to_string(), "allowed is 1 to 4194304");
        }
        for (key, value) in [
            ("max_separation_px", self.max_separation_px),
            ("ice_ring_width_per_angstrom2", self.ice_ring_width_per_angstrom2),
        ] {
            if value.is_nan() || value < 0.0 {
                return wrong(key, value.to_string(), "0 or more");
            }
        }
        if let Some([high, low]) = self.resolution_angstrom
            && !(0.0 < high && high < low)
        {
            let value = format!("[{high}, {low}]");
            return wrong("resolution_angstrom", value, "[high, low], the smaller number first");
        }
        Ok(())
    }

    fn algorithm(&self) -> Option<SpotAlgorithm> {
        match self.algorithm.as_str() {
            "dispersion" => Some(SpotAlgorithm::Dispersion),
            "dispersion_extended" => Some(SpotAlgorithm::DispersionExtended),
            "peakfinder8" => Some(SpotAlgorithm::Peakfinder8),
            _ => None,
        }
    }

    /// Whether anything of it rests on where pixels are.
    pub(super) fn needs_geometry(&self) -> bool {
        self.algorithm() == Some(SpotAlgorithm::Peakfinder8) || self.resolution_angstrom.is_some() || self.ice_rings
    }

    fn config(&self, saturation: Option<f64>, rings: Arc<[u16]>) -> SpotConfig {
        SpotConfig {
            algorithm: self.algorithm().unwrap_or(SpotAlgorithm::DispersionExtended),
            radius: self.radius,
            background_sigmas: self.background_sigmas,
            strong_sigmas: self.strong_sigmas,
            threshold: self.threshold,
            min_count: self.min_count,
            gain: self.gain,
            saturation,
            diagonal: self.diagonal,
            min_pixels: self.min_pixels,
            max_pixels: self.max_pixels,
            max_separation_px: self.max_separation_px,
            pixels_max: self.pixels_max,
            spots_max: self.spots_max,
            rings,
            panel: self.panel_pixels.map(|[rows, columns]| Shape::new(rows, columns)),
            background_radius: self.background_radius_px,
        }
    }

    /// The distance of each pixel from the beam in whole pixels, for peakfinder8.
    fn rings(&self, setup: &Setup<'_>) -> Result<Arc<[u16]>, RecipeError> {
        if self.algorithm() != Some(SpotAlgorithm::Peakfinder8) {
            return Ok(Arc::new([]));
        }
        let geometry = geometry::load(setup, NAME, self.poni.as_ref())?;
        let wrong = |value: String, expected: String| setup.wrong(NAME, "poni", value, expected);
        let pixel_mm = geometry.pixel1_m.min(geometry.pixel2_m) * 1e3;
        geometry
            .radial_map(Unit::RadiusMm, setup.stream.shape)
            .map_err(|error| wrong("(given)".into(), error.to_string()))?
            .iter()
            .map(|radius_mm| {
                let ring = (radius_mm / pixel_mm).round_ties_even();
                if ring <= f64::from(u16::MAX) {
                    return Ok(ring as u16);
                }
                let expected = "every pixel at most 65535 pixels away from the beam, for peakfinder8";
                Err(wrong(format!("{ring} pixels"), expected.into()))
            })
            .collect()
    }

    /// Whether a pixel at this resolution, 1/d in Å⁻¹, is left out.
    fn leaves_out(&self, per_d: f64) -> bool {
        let half = self.ice_ring_width_per_angstrom2 / 2.0;
        let outside = |[high, low]: [f64; 2]| per_d > 1.0 / high || per_d < 1.0 / low;
        let ring = |d: &f64| (per_d * per_d - 1.0 / (d * d)).abs() <= half;
        self.resolution_angstrom.is_some_and(outside) || (self.ice_rings && ICE_RINGS_ANGSTROM.iter().any(ring))
    }

    /// The run's mask and what this operation leaves out besides. It must leave something: frames without a pixel have no
    /// spots, and so are no hits.
    fn mask(&self, setup: &Setup<'_>, corrections: &Corrections) -> Result<PixelMask, RecipeError> {
        let shape = setup.stream.shape;
        let mut mask = corrections.mask.clone();
        let none_left = |mask: &PixelMask| mask.rejected_count() == shape.pixels();
        if self.border_px > 0 {
            border(&mut mask, shape, self.border_px);
            if none_left(&mask) {
                let expected = format!("fewer: so wide a border leaves none of the frames' {shape} pixels");
                return Err(setup.wrong(NAME, "border_px", self.border_px, expected));
            }
        }
        if self.resolution_angstrom.is_none() && !self.ice_rings {
            return Ok(mask);
        }
        let geometry = geometry::load(setup, NAME, self.poni.as_ref())?;
        let q_per_angstrom = geometry
            .radial_map(Unit::QAngstromInv, shape)
            .map_err(|error| setup.wrong(NAME, "resolution_angstrom", "(given)", error.to_string()))?;
        let (mut low, mut high) = (f64::INFINITY, 0f64);
        for (bits, q) in mask.bits_mut().iter_mut().zip(q_per_angstrom) {
            let per_d = q / std::f64::consts::TAU;
            if *bits & ANALYSIS_REJECT == 0 {
                (low, high) = (low.min(per_d), high.max(per_d));
            }
            if self.leaves_out(per_d) {
                *bits |= USER;
            }
        }
        if none_left(&mask) {
            let (key, value) = match self.resolution_angstrom {
                Some([high, low]) => ("resolution_angstrom", format!("[{high}, {low}]")),
                None => (
                    "ice_ring_width_per_angstrom2",
                    self.ice_ring_width_per_angstrom2.to_string(),
                ),
            };
            let expected = format!(
                "what leaves some pixels: those that take part lie between {:.3} and {:.3} Å",
                1.0 / high,
                1.0 / low
            );
            return Err(setup.wrong(NAME, key, value, expected));
        }
        Ok(mask)
    }
}

/// Masks what is within `width` pixels of the edge or of a gap.
fn border(mask: &mut PixelMask, shape: Shape, width: usize) {
    let gap: Vec<bool> = mask.bits().iter().map(|bits| bits & GAP != 0).collect();
    // Along rows first, then along columns: a square around each gap.
    let (rows, columns) = (shape.rows, shape.columns);
    let along: Vec<bool> = (0..shape.pixels())
        .map(|index| {
            let (row, column) = (index / columns, index % columns);
            let (first, end) = (column.saturating_sub(width), (column + width + 1).min(columns));
            column < width
                || column + width >= columns
                || gap[row * columns + first..row * columns + end].contains(&true)
        })
        .collect();
    for (index, bits) in mask.bits_mut().iter_mut().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let mut near = row.saturating_sub(width)..(row + width + 1).min(rows);
        if row < width || row + width >= rows || near.any(|row| along[row * columns + column]) {
            *bits |= USER;
        }
    }
}

/// Where the results go.
pub(super) struct SpotPlan {
    config: SpotConfig,
    mask: PixelMask,
    /// scalars: `spots`, `strong_pixels`
    pub scalars: usize,
    curves: usize,
    found: Counter,
    too_bright: Counter,
}

pub(super) fn plan(
    setup: &Setup<'_>,
    parameters: &SpotParameters,
    corrections: &Corrections,
    prepared: &mut Prepared,
) -> Result<SpotPlan, RecipeError> {
    let layout = &mut prepared.layout;
    let scalars = layout.scalars.len();
    for name in SCALARS {
        layout.scalar(name, "");
    }
    let curves = layout.curve("spot_row", "pixel", parameters.spots_max);
    layout.curve("spot_column", "pixel", parameters.spots_max);
    layout.curve("spot_intensity", "counts", parameters.spots_max);
    layout.curve("spot_pixels", "", parameters.spots_max);
    Ok(SpotPlan {
        config: parameters.config(corrections.saturation, parameters.rings(setup)?),
        mask: parameters.mask(setup, corrections)?,
        scalars,
        curves,
        found: prepared.counter("spots"),
        too_bright: prepared.counter("frames_too_bright"),
    })
}

/// The operation.
pub(super) struct Spots {
    finder: SpotFinder,
    scalars: usize,
    curves: usize,
    outputs: Vec<FrameSpots>,
    found: Counter,
    too_bright: Counter,
}

impl Spots {
    pub(super) fn new(site: Site<'_>, plan: &SpotPlan) -> Result<Self, RecipeError> {
        let (shape, pixel_type) = (site.stream.shape, site.stream.pixel_type);
        let (device, limit) = (site.accelerator, site.batch_limit);
        let finder = SpotFinder::new(device, &plan.config, shape, pixel_type, &plan.mask, limit)
            .map_err(RecipeError::device(NAME))?;
        let room = || FrameSpots {
            spots: Vec::with_capacity(plan.config.spots_max),
            ..FrameSpots::default()
        };
        Ok(Self {
            finder,
            scalars: plan.scalars,
            curves: plan.curves,
            outputs: (0..limit).map(|_| room()).collect(),
            found: plan.found.clone(),
            too_bright: plan.too_bright.clone(),
        })
    }
}

impl Operation for Spots {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let outputs = &mut self.outputs[..batch.frames.frames()];
        self.finder
            .run(batch.queue, batch.frames, outputs)
            .map_err(RecipeError::device(NAME))?;
        for (index, output) in outputs.iter().enumerate() {
            let Some(result) = batch.result(index) else { continue };
            result.scalars[self.scalars] = output.found.map_or(f64::NAN, |found| found as f64);
            result.scalars[self.scalars + 1] = output.strong_pixels as f64;
            let [rows, columns, intensities, pixels] = &mut result.curves[self.curves..self.curves + 4] else {
                continue;
            };
            for curve in [&mut *rows, &mut *columns, &mut *intensities, &mut *pixels] {
                curve[output.spots.len()..].fill(f32::NAN);
            }
            for (at, spot) in output.spots.iter().enumerate() {
                rows[at] = spot.row;
                columns[at] = spot.column;
                intensities[at] = spot.intensity as f32;
                pixels[at] = spot.pixels as f32;
            }
        }
        Ok(())
    }

    fn settle(&mut self, results: &mut [Arc<FrameResult>]) {
        for output in &self.outputs[..results.len()] {
            match output.found {
                Some(found) => self.found.fetch_add(found, Relaxed),
                None => self.too_bright.fetch_add(1, Relaxed),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_and_ice_are_left_out() {
        let out = |parameters: &SpotParameters, d: f64| parameters.leaves_out(1.0 / d);
        let all = SpotParameters::default();
        assert!([0.5, 2.249, 3.897, 1e6].iter().all(|d| !out(&all, *d)));
        let range = SpotParameters {
            resolution_angstrom: Some([1.5, 50.0]),
            ..SpotParameters::default()
        };
        let of_range = [1.49, 1.51, 3.897, 49.9, 50.1, f64::INFINITY].map(|d| out(&range, d));
        assert_eq!(of_range, [true, false, false, false, true, true]);
        // A ring 0.002 Å⁻² wide at 3.897 Å reaches from 3.8677 to 3.9269 Å.
        let ice = SpotParameters {
            ice_rings: true,
            ..SpotParameters::default()
        };
        let of_ice = [3.867, 3.869, 3.897, 3.926, 3.928, 3.0].map(|d| out(&ice, d));
        assert_eq!(of_ice, [false, true, true, true, false, false]);
        assert!(ICE_RINGS_ANGSTROM.iter().all(|d| out(&ice, *d)));
    }

    #[test]
    fn borders_run_along_edges_and_gaps() {
        let shape = Shape::new(12, 20);
        let mut mask = PixelMask::none(shape);
        (0..12).for_each(|row| mask.bits_mut()[row * 20 + 10] = GAP);
        border(&mut mask, shape, 2);
        let row = |row: usize| -> String {
            let masked = |column| mask.rejects(row * 20 + column);
            (0..20).map(|column| if masked(column) { 'x' } else { '.' }).collect()
        };
        assert_eq!(row(1), "xxxxxxxxxxxxxxxxxxxx");
        assert_eq!(row(2), "xx......xxxxx.....xx");
        assert_eq!(row(9), "xx......xxxxx.....xx");
        assert_eq!(row(10), "xxxxxxxxxxxxxxxxxxxx");
    }
}
