//! Tomography: darks and flats → transmission → minus log → ramp filter → incremental back-projection of
//! chosen slices, which sharpen while the scan runs; and the whole volume when it has ended.
//!
//! Frames come in order to one owner (see [`super::Technique::ordered`]), so a slice has the same bits whether
//! projections overtook each other on the way or not.

mod axis;
mod backproject;
mod backproject_parameters;
mod bad_pixels;
mod correct;
mod growing;
mod lost;
mod methods;
mod moved;
mod plan;
mod projections;
mod stripes;
mod volume;
mod volume_parameters;
mod weights;

use super::findings::Findings;
use super::live::LiveParameters;
use super::{Prepared, RecipeError, Setup, Snapshot, Technique, parameters};
use crate::afterwards::Afterwards;
use crate::config::{ConfigError, RecipeConfig};
use crate::decisions::Known;
use backproject::Backproject;
use backproject_parameters::BackprojectParameters;
use correct::{Correct, CorrectParameters};
use frame::{PixelMask, ResultLayout};
use std::sync::Arc;
use volume::{Volume, VolumeSetup};
use volume_parameters::VolumeParameters;

/// Projections below which a slice is mostly streaks.
const PROJECTIONS_FEW: u64 = 30;

/// The technique.
pub struct Tomography;

impl Technique for Tomography {
    fn name(&self) -> &'static str {
        "tomography"
    }

    fn definition(&self) -> &'static str {
        "NXtomo"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["correct", "backproject", "volume"]
    }

    fn ordered(&self, _name: &str, _config: &RecipeConfig) -> Result<bool, ConfigError> {
        Ok(true)
    }

    fn schemas(&self) -> Vec<(String, serde_json::Value)> {
        vec![
            (
                "[recipe.NAME.correct]` of tomography".into(),
                schemars::schema_for!(CorrectParameters).to_value(),
            ),
            (
                "[recipe.NAME.backproject]` of tomography".into(),
                schemars::schema_for!(BackprojectParameters).to_value(),
            ),
            (
                "[recipe.NAME.volume]` of tomography".into(),
                schemars::schema_for!(VolumeParameters).to_value(),
            ),
        ]
    }

    fn results(&self, name: &str, config: Option<&RecipeConfig>) -> Result<Known, ConfigError> {
        let correct = config.map(|config| parameters::<CorrectParameters>(name, config, "correct"));
        let backproject = config.map(|config| parameters::<BackprojectParameters>(name, config, "backproject"));
        let zingers = correct.transpose()?.is_none_or(|correct| correct.zingers.is_some());
        let searches = backproject
            .transpose()?
            .is_none_or(|backproject| backproject.searches());
        let mut scalars = vec![(correct::INVALID.to_string(), String::new())];
        if zingers {
            scalars.push((correct::ZINGERS.into(), String::new()));
        }
        if searches {
            scalars.extend(backproject::AXIS_SCALARS.map(|(name, unit)| (name.to_string(), unit.to_string())));
        }
        Ok(Known {
            scalars,
            curve: false,
            regions: false,
        })
    }

    fn check(&self, name: &str, config: &RecipeConfig) -> Result<(), ConfigError> {
        let known = ["correct", "backproject", volume::NAME];
        if config.operations != known[..2] && config.operations != known {
            let expected = "tomography needs [\"correct\", \"backproject\"] or [\"correct\", \"backproject\", \"volume\"], in this order";
            return Err(ConfigError::value(
                format!("recipe.{name}.operations"),
                format!("{:?}", config.operations),
                expected,
            ));
        }
        parameters::<CorrectParameters>(name, config, "correct")?.check(name)?;
        parameters::<BackprojectParameters>(name, config, "backproject")?.check(name)?;
        parameters::<VolumeParameters>(name, config, volume::NAME)?.check(name)
    }

    fn prepare(&self, setup: &Setup<'_>, _workers: usize) -> Result<Prepared, RecipeError> {
        let correct: CorrectParameters = setup.parameters("correct")?;
        let backproject: BackprojectParameters = setup.parameters("backproject")?;
        let mut mask = setup
            .stream
            .mask
            .clone()
            .unwrap_or_else(|| PixelMask::none(setup.stream.shape));
        if let Some(path) = &correct.mask {
            let key = format!("recipe.{}.correct.mask", setup.recipe);
            let users = super::fields::read_mask(&key, &setup.path(path), setup.stream.shape)?;
            mask.merge(&users)
                .map_err(|error| setup.wrong("correct", "mask", path.display(), error.to_string()))?;
        }
        let mut layout = ResultLayout::default();
        let mut snapshot = Snapshot::default();
        let volume: Option<VolumeParameters> = match setup.config.operations.iter().any(|name| name == volume::NAME) {
            true => Some(setup.parameters(volume::NAME)?),
            false => None,
        };
        let planned_deg = weights::planned(setup.stream, backproject.steps());
        let warnings = self::warnings(setup, &planned_deg);
        let (correct_used, backproject_used) = (serde_json::json!(correct), serde_json::json!(backproject));
        let (filter, parameters_of_correct) = (backproject.filter.into(), correct.clone());
        let (half_acquisition, searches) = (backproject.half_acquisition, backproject.searches());
        let correct = Correct::new(setup, correct, &mask, &mut layout)?;
        let mut live = LiveParameters::default();
        let mut backproject =
            Backproject::new(setup, &backproject, &planned_deg, &mut live, &mut snapshot, &mut layout)?;
        let (live, found) = (Arc::new(live), Arc::new(Findings::default()));
        backproject.share(&live, &found)?;
        let volume_used = serde_json::json!(volume);
        let afterwards = volume.map(|parameters| {
            Volume::new(VolumeSetup {
                setup,
                parameters,
                correct: parameters_of_correct,
                mask: mask.clone(),
                filter,
                half_acquisition,
                width: backproject.width(),
                axis: backproject.axis(),
                searches,
                planned_deg,
                fields_used: correct.fields_used(),
                found: found.clone(),
            })
        });
        let afterwards: Option<Box<dyn Afterwards>> = match afterwards.transpose()? {
            Some((volume, feed)) => {
                if let Some(feed) = feed {
                    backproject.feed(feed, correct.invalid_index());
                }
                Some(Box::new(volume))
            }
            None => None,
        };
        let parameters = serde_json::json!({
            "recipe": setup.recipe, "technique": "tomography", "operations": setup.config.operations,
            "correct": correct_used, "backproject": backproject_used, "volume": volume_used,
            "rotation_axis_px": backproject.rotation_axis_px(),
        });
        Ok(Prepared {
            host: Vec::new(),
            again: None,
            device_refused: None,
            layout,
            axes: Vec::new(),
            operations: vec![vec![Box::new(correct), Box::new(backproject)]],
            snapshot,
            mask,
            geometry: None,
            counters: Vec::new(),
            levels: Vec::new(),
            may_veto: false,
            grid: None,
            parameters,
            live,
            found,
            warnings,
            afterwards,
        })
    }
}

/// What is odd about a scan, though slices can be made of it.
fn warnings(setup: &Setup<'_>, planned_deg: &[f64]) -> Vec<String> {
    let mut warnings = Vec::new();
    let projections = setup.stream.samples();
    if projections < PROJECTIONS_FEW {
        warnings.push(format!("{projections} projections are few: expect streaks"));
    }
    let missing = planned_deg.iter().filter(|angle| !angle.is_finite()).count() as u64;
    let missing = missing.saturating_sub(setup.stream.darks + setup.stream.flats);
    if missing > 0 {
        warnings.push(format!(
            "{missing} of {projections} projections have no angle yet; those that get none are left out"
        ));
    }
    if let Some(angle) = weights::twice(planned_deg) {
        warnings.push(format!(
            "the angle {angle} degrees is planned twice: both projections are used"
        ));
    }
    warnings
}
