//! Tomography: darks and flats → transmission → minus log → ramp filter → incremental back-projection of
//! chosen slices, which sharpen while the scan runs.
//!
//! Frames come in order to one owner (see [`super::Technique::ordered`]), so a slice has the same bits whether
//! projections overtook each other on the way or not.

mod backproject;
mod correct;

use super::{Prepared, RecipeError, Setup, Snapshot, Technique, parameters};
use crate::config::{ConfigError, RecipeConfig};
use backproject::{Backproject, BackprojectParameters};
use correct::{Correct, CorrectParameters};
use frame::{PixelMask, ResultLayout};

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
        &["correct", "backproject"]
    }

    fn ordered(&self) -> bool {
        true
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
        ]
    }

    fn check(&self, name: &str, config: &RecipeConfig) -> Result<(), ConfigError> {
        if config.operations != ["correct", "backproject"] {
            let expected = "tomography needs [\"correct\", \"backproject\"], in this order";
            return Err(ConfigError::value(
                format!("recipe.{name}.operations"),
                format!("{:?}", config.operations),
                expected,
            ));
        }
        parameters::<CorrectParameters>(name, config, "correct")?.check(name)?;
        parameters::<BackprojectParameters>(name, config, "backproject")?.check(name)
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
        let (correct_used, backproject_used) = (serde_json::json!(correct), serde_json::json!(backproject));
        let correct = Correct::new(setup, correct, &mask, &mut layout)?;
        let backproject = Backproject::new(setup, &backproject, &mut snapshot)?;
        let parameters = serde_json::json!({
            "recipe": setup.recipe, "technique": "tomography", "operations": setup.config.operations,
            "correct": correct_used, "backproject": backproject_used,
            "rotation_axis_px": backproject.rotation_axis_px(),
        });
        Ok(Prepared {
            host: Vec::new(),
            layout,
            axes: Vec::new(),
            operations: vec![vec![Box::new(correct), Box::new(backproject)]],
            snapshot,
            mask,
            geometry: None,
            counters: Vec::new(),
            may_veto: false,
            parameters,
        })
    }
}
