//! Diffraction: photons or true counts → mask, dark and flat → statistics → spots → hit or miss → azimuthal curve, frame by frame, the mean
//! curve of the run, and where the crystals of a grid scan are.

mod azimuthal;
mod convert;
mod correct;
mod geometry;
mod grid;
mod hits;
mod host;
mod sparse;
mod spots;
mod statistics;
mod stored;

use super::files::NamedFile;
use super::{Again, HostOperation, Operation, Prepared, RecipeError, Setup, Site, Snapshot, Technique, parameters};
use crate::calibrations::CalibrationRecord;
use crate::config::{ConfigError, RecipeConfig};
use crate::decisions::Known;
use azimuthal::{Azimuthal, AzimuthalParameters, AzimuthalPlan};
use convert::{ConversionPlan, CountRateParameters, GainParameters};
use correct::{CorrectParameters, Corrections};
use frame::{PixelMask, PixelType, ResultLayout, Shape, StreamDescription};
use grid::GridParameters;
use hits::{HitParameters, HitPlan, Hits};
use host::Host;
use kernels::Accelerator;
use serde_json::json;
use sparse::SparseParameters;
use spots::{SpotParameters, SpotPlan, Spots};
use statistics::{StatisticsOperation, StatisticsParameters, StatisticsPlan};
use std::sync::Arc;

/// The technique.
pub struct Diffraction;

/// Operations in the only order that makes sense: a correction belongs before what it corrects.
const OPERATIONS: [&str; 9] = [
    "gain",
    "countrate",
    "correct",
    "statistics",
    "spots",
    "hits",
    "azimuthal",
    "grid",
    "sparse",
];

/// What the operations of every worker are made from, on whichever device.
struct Plan {
    /// the frames as they come
    raw: StreamDescription,
    /// the frames behind a conversion
    stream: StreamDescription,
    batch_limit: usize,
    corrections: Corrections,
    conversion: Option<ConversionPlan>,
    statistics: Option<StatisticsPlan>,
    spots: Option<SpotPlan>,
    hits: Option<HitPlan>,
    azimuthal: Option<AzimuthalPlan>,
}

impl Again for Plan {
    fn operations(&self, accelerator: &Accelerator, worker: usize) -> Result<Vec<Box<dyn Operation>>, RecipeError> {
        let (batch_limit, corrections) = (self.batch_limit, &self.corrections);
        let of = |stream| Site {
            accelerator,
            stream,
            batch_limit,
        };
        let site = of(&self.stream);
        let mut operations: Vec<Box<dyn Operation>> = Vec::new();
        if let Some(plan) = &self.conversion {
            operations.push(convert::operation(of(&self.raw), plan)?);
        }
        if let Some(plan) = &self.statistics {
            operations.push(Box::new(StatisticsOperation::new(site, plan, corrections)?));
        }
        if let Some(plan) = &self.spots {
            operations.push(Box::new(Spots::new(site, plan)?));
        }
        if let Some(plan) = &self.hits {
            operations.push(Box::new(Hits::new(site, plan, corrections)?));
        }
        if let Some(plan) = &self.azimuthal {
            operations.push(Box::new(Azimuthal::new(site, plan, corrections, worker)?));
        }
        Ok(operations)
    }
}

impl Technique for Diffraction {
    fn name(&self) -> &'static str {
        "diffraction"
    }

    fn definition(&self) -> &'static str {
        "NXmx"
    }

    fn operations(&self) -> &'static [&'static str] {
        &OPERATIONS
    }

    fn ordered(&self, name: &str, config: &RecipeConfig) -> Result<bool, ConfigError> {
        let asked = config.operations.iter().any(|listed| listed == "gain");
        Ok(asked && parameters::<GainParameters>(name, config, "gain")?.ordered())
    }

    fn schemas(&self) -> Vec<(String, serde_json::Value)> {
        vec![
            (
                "[recipe.NAME.gain]` of diffraction".into(),
                schemars::schema_for!(GainParameters).to_value(),
            ),
            (
                "[recipe.NAME.countrate]` of diffraction".into(),
                schemars::schema_for!(CountRateParameters).to_value(),
            ),
            (
                "[recipe.NAME.correct]` of diffraction".into(),
                schemars::schema_for!(CorrectParameters).to_value(),
            ),
            (
                "[recipe.NAME.statistics]` of diffraction".into(),
                schemars::schema_for!(StatisticsParameters).to_value(),
            ),
            (
                "[recipe.NAME.spots]` of diffraction".into(),
                schemars::schema_for!(SpotParameters).to_value(),
            ),
            (
                "[recipe.NAME.hits]` of diffraction".into(),
                schemars::schema_for!(HitParameters).to_value(),
            ),
            (
                "[recipe.NAME.azimuthal]` of diffraction".into(),
                schemars::schema_for!(AzimuthalParameters).to_value(),
            ),
            (
                "[recipe.NAME.grid]` of diffraction".into(),
                schemars::schema_for!(GridParameters).to_value(),
            ),
            (
                "[recipe.NAME.sparse]` of diffraction".into(),
                schemars::schema_for!(SparseParameters).to_value(),
            ),
        ]
    }

    fn results(&self, name: &str, config: Option<&RecipeConfig>) -> Result<Known, ConfigError> {
        let lists = |config: &RecipeConfig, operation: &str| config.operations.iter().any(|listed| listed == operation);
        let asked = |operation: &str| config.is_none_or(|config| lists(config, operation));
        let mut scalars: Vec<(String, String)> = Vec::new();
        let mut add = |names: &[&str], unit: &str| {
            scalars.extend(names.iter().map(|name| (name.to_string(), unit.to_string())));
        };
        if asked("gain") {
            add(&convert::GAIN_SCALARS, "");
            let follows = |config| Ok::<_, ConfigError>(parameters::<GainParameters>(name, config, "gain")?.ordered());
            if config.map(follows).transpose()?.unwrap_or(true) {
                add(&[convert::FOLLOW_SCALAR], "");
            }
        }
        if asked("countrate") {
            add(&[convert::COUNTRATE_SCALAR], "");
        }
        if asked("statistics") {
            add(&statistics::COUNTS, "counts");
            add(&statistics::PIXELS, "");
            let given = config.map(|config| parameters::<StatisticsParameters>(name, config, "statistics"));
            for region in given.transpose()?.unwrap_or_default().regions {
                let names = statistics::region_scalars(&region.name);
                add(&names.each_ref().map(String::as_str), "counts");
            }
        }
        if asked("spots") {
            add(&spots::SCALARS, "");
        }
        if asked("hits") {
            add(&hits::SCALARS, "");
            let counts =
                |config| Ok::<_, ConfigError>(parameters::<HitParameters>(name, config, "hits")?.lit_above.is_some());
            if config.map(counts).transpose()?.unwrap_or(true) {
                add(&[hits::LIT_PIXELS], "");
            }
        }
        Ok(Known {
            scalars,
            curve: asked("azimuthal"),
            regions: false,
        })
    }

    fn check(&self, name: &str, config: &RecipeConfig) -> Result<(), ConfigError> {
        let places: Vec<_> = config
            .operations
            .iter()
            .map(|o| OPERATIONS.iter().position(|known| known == o))
            .collect();
        if !places.is_sorted_by(|a, b| a < b) {
            let expected = format!("some of {OPERATIONS:?}, each once and in this order, or none, to record only");
            return Err(ConfigError::value(
                format!("recipe.{name}.operations"),
                format!("{:?}", config.operations),
                expected,
            ));
        }
        let asked = |operation: &str| config.operations.iter().any(|listed| listed == operation);
        let hits: HitParameters = parameters(name, config, "hits")?;
        hits.check(name)?;
        if asked("hits") && hits.needs_spots() && !asked("spots") {
            let value = format!("{:?}", config.operations);
            let expected = "\"hits\" counts spots: list \"spots\" before it, or set its rule to \"lit_pixels\"";
            return Err(ConfigError::value(format!("recipe.{name}.operations"), value, expected));
        }
        if asked("gain") && asked("countrate") {
            let value = format!("{:?}", config.operations);
            let expected = "\"gain\" is of an integrating detector, \"countrate\" of a counting one: list one of them";
            return Err(ConfigError::value(format!("recipe.{name}.operations"), value, expected));
        }
        parameters::<GainParameters>(name, config, "gain")?.check(name)?;
        parameters::<CountRateParameters>(name, config, "countrate")?;
        parameters::<CorrectParameters>(name, config, "correct")?;
        parameters::<SpotParameters>(name, config, "spots")?.check(name)?;
        parameters::<StatisticsParameters>(name, config, "statistics")?;
        if asked("sparse") && asked("gain") {
            let value = format!("{:?}", config.operations);
            let expected =
                "\"sparse\" keeps stored pixels, and those of \"gain\" are words, not counts: list one of them";
            return Err(ConfigError::value(format!("recipe.{name}.operations"), value, expected));
        }
        parameters::<SparseParameters>(name, config, "sparse")?.check(name)?;
        if asked("grid") {
            parameters::<GridParameters>(name, config, "grid")?.check(name)?;
        }
        parameters::<AzimuthalParameters>(name, config, "azimuthal")?.check(name)
    }

    fn prepare(&self, setup: &Setup<'_>, workers: usize) -> Result<Prepared, RecipeError> {
        let asked = |operation: &str| setup.config.operations.iter().any(|listed| listed == operation);
        let correct: CorrectParameters = setup.parameters("correct")?;
        let statistics: StatisticsParameters = setup.parameters("statistics")?;
        let spots: SpotParameters = setup.parameters("spots")?;
        let hits: HitParameters = setup.parameters("hits")?;
        let azimuthal: AzimuthalParameters = setup.parameters("azimuthal")?;
        let grid: GridParameters = setup.parameters("grid")?;
        let sparse: SparseParameters = setup.parameters("sparse")?;
        let gain: GainParameters = setup.parameters("gain")?;
        let countrate: CountRateParameters = setup.parameters("countrate")?;
        let raw = setup;
        let mut prepared = Prepared {
            layout: ResultLayout::default(),
            axes: Vec::new(),
            operations: Vec::new(),
            host: Vec::new(),
            again: None,
            device_refused: None,
            snapshot: Snapshot::default(),
            geometry: None,
            counters: Vec::new(),
            levels: Vec::new(),
            may_veto: false,
            grid: None,
            live: Default::default(),
            found: Default::default(),
            warnings: Vec::new(),
            afterwards: None,
            parameters: serde_json::Value::Null,
            mask: PixelMask::none(Shape::new(0, 0)),
        };
        let conversion = if asked("gain") {
            Some(convert::plan_gain(raw, &gain, &mut prepared)?)
        } else if asked("countrate") {
            let invalid = correct::invalid_value(correct.invalid, raw.stream);
            convert::plan_countrate(raw, &countrate, invalid, &mut prepared)?
        } else {
            None
        };
        // Operations behind a conversion see its frames, not the raw ones.
        let setup = &Setup {
            stream: conversion.as_ref().map_or(raw.stream, |conversion| &conversion.stream),
            ..*raw
        };
        let ponis = [
            ("azimuthal", &azimuthal.poni),
            ("spots", &spots.poni),
            ("sparse", &sparse.poni),
        ];
        let ponis: Vec<&NamedFile> = ponis
            .into_iter()
            .filter(|(operation, _)| asked(operation))
            .filter_map(|(_, poni)| poni.as_ref())
            .collect();
        let of_detector = ponis.iter().filter_map(|poni| geometry::mask(setup, poni));
        let corrections = correct.load(setup, asked("correct"), asked("gain"), of_detector)?;
        prepared.warnings.extend(corrections.warnings.iter().cloned());
        let mut used: Vec<CalibrationRecord> = conversion.iter().flat_map(|plan| plan.used.clone()).collect();
        used.extend(corrections.used.iter().cloned());
        // Who asks for a geometry without naming one is given the store's.
        let of_store = |operation: &'static str, needed: bool, poni: &Option<NamedFile>| {
            (asked(operation) && needed && poni.is_none()).then_some(operation)
        };
        let asker = of_store("azimuthal", true, &azimuthal.poni)
            .or(of_store("spots", spots.needs_geometry(), &spots.poni))
            .or(of_store("sparse", true, &sparse.poni));
        if let Some(found) = asker.map(|asker| stored::poni(setup, asker)).transpose()?.flatten() {
            used.push(found.record);
        }
        if raw.stream.pixel_type == PixelType::U8 && raw.stream.parts > 0 {
            let warning = "8-bit counters begin again at 0 after 255 and nothing tells: keep the rate times the frame time below 255";
            prepared.warnings.push(warning.into());
        }
        for record in &used {
            let warnings = record.warnings.iter();
            prepared
                .warnings
                .extend(warnings.map(|warning| format!("{}: {warning}", record.version)));
        }
        prepared.parameters = serde_json::json!({
            "recipe": setup.recipe, "technique": "diffraction", "operations": setup.config.operations,
            "gain": asked("gain").then_some(gain), "countrate": asked("countrate").then_some(countrate),
            "correct": correct, "statistics": statistics, "spots": spots, "hits": hits,
            "azimuthal": azimuthal, "grid": asked("grid").then_some(&grid),
            "sparse": asked("sparse").then_some(&sparse),
            "saturation_value": corrections.saturation, "invalid_value": corrections.invalid,
            "uncalibrated_pixels": corrections.uncalibrated,
            "calibrations": used.iter().map(|record| serde_json::json!({
                "kind": record.kind, "version": record.version, "gain": record.conditions.gain,
                "valid_from": record.valid_from, "sha256": record.sha256,
            })).collect::<Vec<_>>(),
        });
        // The files hold the raw frames, and so their mask.
        let same_shape = setup.stream.shape == raw.stream.shape;
        prepared.mask = match &conversion {
            Some(conversion) if !same_shape => conversion.raw_mask.clone(),
            _ => corrections.mask.clone(),
        };
        let statistics_of = if asked("statistics") {
            Some(StatisticsOperation::plan(
                setup,
                &statistics,
                &corrections,
                &mut prepared.layout,
            )?)
        } else {
            None
        };
        let spots_of = if asked("spots") {
            Some(spots::plan(setup, &spots, &corrections, &mut prepared)?)
        } else {
            None
        };
        let hits_of = asked("hits").then(|| {
            let spots = spots_of.as_ref().map(|spots| spots.scalars);
            hits::plan(&hits, spots, &corrections, &mut prepared)
        });
        let azimuthal_of = if asked("azimuthal") {
            Some(azimuthal::plan(
                setup,
                &azimuthal,
                &corrections,
                workers,
                &mut prepared,
            )?)
        } else {
            None
        };
        if asked("grid") {
            grid::plan(setup, &grid, &mut prepared)?;
        }
        if asked("sparse") {
            sparse::plan(raw, &sparse, &corrections, &mut prepared)?;
        }
        // Without spots, lit pixels and split pixels, and where the counts are taken as they came, nobody needs pixels: the host can reduce a frame while it
        // decodes it, or take a failing device's place.
        let plain = conversion.is_none()
            && spots_of.is_none()
            && hits_of.is_none()
            && azimuthal_of.as_ref().is_none_or(|plan| plan.plain().is_some());
        let reducible = plain && (statistics_of.is_some() || azimuthal_of.is_some());
        let fused = reducible && setup.fused();
        for worker in (0..workers).filter(|_| reducible) {
            let (statistics, azimuthal) = (statistics_of.as_ref(), azimuthal_of.as_ref());
            let host = Host::new(setup, statistics, azimuthal, &corrections, (worker, workers))?;
            prepared
                .host
                .push(host.map(|host| Box::new(host) as Box<dyn HostOperation>));
        }
        let stream = setup.stream.clone();
        let mut plan = Plan {
            raw: raw.stream.clone(),
            stream,
            batch_limit: raw.batch_limit,
            corrections,
            conversion,
            statistics: statistics_of,
            spots: spots_of,
            hits: hits_of,
            azimuthal: azimuthal_of,
        };
        let on_host = prepared.host.last().is_some_and(Option::is_some);
        for worker in 0..workers {
            if fused {
                prepared.operations.push(Vec::new());
                continue;
            }
            match plan.operations(raw.accelerator, worker) {
                Ok(operations) => prepared.operations.push(operations),
                // A program that does not build, or a device that is gone already.
                Err(error) if on_host && error.of_device() => {
                    prepared.device_refused = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if prepared.device_refused.is_some() {
            prepared.operations = (0..workers).map(|_| Vec::new()).collect();
        }
        plan.azimuthal.iter_mut().for_each(AzimuthalPlan::slim);
        prepared.again = Some(Arc::new(plan));
        if !same_shape {
            // Its pixels are not those of the frames in the files.
            prepared.geometry = None;
        } else {
            let poni = ponis.first().copied();
            let known = prepared
                .geometry
                .clone()
                .or_else(|| geometry::load(raw, "azimuthal", poni).ok());
            let wavelength_m = raw.stream.detector.wavelength_m;
            prepared.parameters["geometry"] =
                json!(known.map(|known| geometry::told(&known, raw.stream.shape, wavelength_m)));
        }
        Ok(prepared)
    }
}
