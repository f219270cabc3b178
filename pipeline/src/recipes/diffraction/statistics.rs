//! `statistics`: sum, largest value, saturated pixels, and the same for regions of interest.

use super::super::{Batch, Operation, RecipeError, Setup, Site};
use super::correct::Corrections;
use frame::{FrameResult, ResultLayout};
use kernels::{FrameStatistics, Region, Statistics, StatisticsConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const NAME: &str = "statistics";

/// What it adds to the results in counts.
pub(super) const COUNTS: [&str; 2] = ["sum", "max"];
/// And in pixels.
pub(super) const PIXELS: [&str; 3] = ["saturated_pixels", "valid_pixels", "invalid_pixels"];

/// What a region of interest adds to the results: its sum, its largest count and the mean of its valid pixels.
pub(super) fn region_scalars(region: &str) -> [String; REGION_SCALARS] {
    ["counts", "max", "mean"].map(|value| format!("{region}_{value}"))
}

/// Scalars of a region.
const REGION_SCALARS: usize = 3;

/// A rectangle of pixels.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RegionParameters {
    /// name, a part of the results' names
    pub name: String,
    /// first row
    pub row: usize,
    /// first column
    pub column: usize,
    /// number of rows
    pub rows: usize,
    /// number of columns
    pub columns: usize,
}

/// `[recipe.NAME.statistics]`
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StatisticsParameters {
    /// Up to 8 regions of interest, `[[recipe.NAME.statistics.regions]]` with name, row, column, rows, columns. Each has its sum,
    /// largest count and mean in every result: `NAME_counts`, `NAME_max`, `NAME_mean`.
    pub regions: Vec<RegionParameters>,
}

/// Where the results go.
pub(super) struct StatisticsPlan {
    pub(super) config: StatisticsConfig,
    pub(super) first: usize,
}

/// The operation.
pub(super) struct StatisticsOperation {
    statistics: Statistics,
    regions: usize,
    first: usize,
    found: Vec<FrameStatistics>,
}

impl StatisticsOperation {
    pub(super) fn plan(
        setup: &Setup<'_>,
        parameters: &StatisticsParameters,
        corrections: &Corrections,
        layout: &mut ResultLayout,
    ) -> Result<StatisticsPlan, RecipeError> {
        for (index, region) in parameters.regions.iter().enumerate() {
            let plain = region.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !region.name.is_empty();
            let again = parameters.regions[..index]
                .iter()
                .any(|other| other.name == region.name);
            if !plain || again {
                let expected = "a name of letters, digits and underscores, different for every region";
                return Err(setup.wrong(NAME, "regions.name", format!("{:?}", region.name), expected));
            }
        }
        let regions = parameters.regions.iter().map(|region| Region {
            name: region.name.clone(),
            row: region.row,
            column: region.column,
            rows: region.rows,
            columns: region.columns,
        });
        let first = layout.scalars.len();
        for (names, unit) in [(&COUNTS[..], "counts"), (&PIXELS, "")] {
            for name in names {
                layout.scalar(name, unit);
            }
        }
        for region in &parameters.regions {
            for name in region_scalars(&region.name) {
                layout.scalar(&name, "counts");
            }
        }
        let config = StatisticsConfig {
            saturation: corrections.saturation,
            invalid: corrections.invalid,
            regions: regions.collect(),
        };
        Ok(StatisticsPlan { config, first })
    }

    pub(super) fn new(site: Site<'_>, plan: &StatisticsPlan, corrections: &Corrections) -> Result<Self, RecipeError> {
        let (shape, pixel_type) = (site.stream.shape, site.stream.pixel_type);
        let (device, mask, limit) = (site.accelerator, &corrections.mask, site.batch_limit);
        let statistics =
            Statistics::new(device, &plan.config, shape, pixel_type, mask, limit).map_err(RecipeError::device(NAME))?;
        let found = vec![FrameStatistics::default(); limit];
        Ok(Self {
            statistics,
            regions: plan.config.regions.len(),
            first: plan.first,
            found,
        })
    }
}

/// Writes a frame's numbers into its result, from scalar `first` on.
pub(super) fn fill(result: &mut FrameResult, first: usize, regions: usize, found: &FrameStatistics) {
    let scalars = &mut result.scalars[first..];
    scalars[0] = found.frame.sum;
    scalars[1] = found.frame.max;
    scalars[2] = found.frame.saturated as f64;
    scalars[3] = found.frame.valid as f64;
    scalars[4] = found.frame.invalid as f64;
    let of_regions = scalars[5..].chunks_exact_mut(REGION_SCALARS);
    for (region, scalars) in found.regions[..regions].iter().zip(of_regions) {
        scalars[0] = region.sum;
        scalars[1] = region.max;
        // None is valid: there is no mean, as there is no largest.
        scalars[2] = region.sum / region.valid as f64;
    }
}

impl Operation for StatisticsOperation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn push<'a>(&'a mut self, batch: &mut Batch<'a>) -> Result<(), RecipeError> {
        let frames = batch.frames.frames();
        let found = &mut self.found[..frames];
        self.statistics
            .run(batch.queue, batch.frames, found)
            .map_err(RecipeError::device(NAME))?;
        for (index, found) in found.iter().enumerate() {
            let Some(result) = batch.result(index) else { continue };
            fill(result, self.first, self.regions, found);
        }
        Ok(())
    }
}
