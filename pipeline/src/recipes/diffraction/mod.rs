//! Diffraction: mask, dark and flat → statistics → azimuthal curve, frame by frame, and the mean curve of the run.

mod azimuthal;
mod correct;
mod statistics;

use super::{Operation, Prepared, RecipeError, Setup, Snapshot, Technique, parameters};
use crate::config::{ConfigError, RecipeConfig};
use azimuthal::{Azimuthal, AzimuthalParameters};
use correct::CorrectParameters;
use frame::ResultLayout;
use statistics::{StatisticsOperation, StatisticsParameters};

/// The technique.
pub struct Diffraction;

/// Operations in the only order that makes sense: a correction belongs before what it corrects.
const OPERATIONS: [&str; 3] = ["correct", "statistics", "azimuthal"];

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

    fn ordered(&self) -> bool {
        false
    }

    fn schemas(&self) -> Vec<(String, serde_json::Value)> {
        vec![
            (
                "[recipe.NAME.correct]` of diffraction".into(),
                schemars::schema_for!(CorrectParameters).to_value(),
            ),
            (
                "[recipe.NAME.statistics]` of diffraction".into(),
                schemars::schema_for!(StatisticsParameters).to_value(),
            ),
            (
                "[recipe.NAME.azimuthal]` of diffraction".into(),
                schemars::schema_for!(AzimuthalParameters).to_value(),
            ),
        ]
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
        parameters::<CorrectParameters>(name, config, "correct")?;
        parameters::<StatisticsParameters>(name, config, "statistics")?;
        parameters::<AzimuthalParameters>(name, config, "azimuthal")?.check(name)
    }

    fn prepare(&self, setup: &Setup<'_>, workers: usize) -> Result<Prepared, RecipeError> {
        let asked = |operation: &str| setup.config.operations.iter().any(|listed| listed == operation);
        let correct: CorrectParameters = setup.parameters("correct")?;
        let statistics: StatisticsParameters = setup.parameters("statistics")?;
        let azimuthal: AzimuthalParameters = setup.parameters("azimuthal")?;
        let corrections = correct.load(setup)?;
        let mut prepared = Prepared {
            layout: ResultLayout::default(),
            axes: Vec::new(),
            operations: Vec::new(),
            snapshot: Snapshot::default(),
            geometry: None,
            parameters: serde_json::json!({
                "recipe": setup.recipe, "technique": "diffraction", "operations": setup.config.operations,
                "correct": correct, "statistics": statistics, "azimuthal": azimuthal,
                "saturation_value": corrections.saturation,
            }),
            mask: corrections.mask.clone(),
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
        for worker in 0..workers {
            let mut operations: Vec<Box<dyn Operation>> = Vec::new();
            if let Some(plan) = &statistics_of {
                operations.push(Box::new(StatisticsOperation::new(setup, plan, &corrections)?));
            }
            if let Some(plan) = &azimuthal_of {
                operations.push(Box::new(Azimuthal::new(setup, plan, &corrections, worker)?));
            }
            prepared.operations.push(operations);
        }
        Ok(prepared)
    }
}
