//! Which scalars and curves a condition may ask for: those of a run, or those that recipes would make.

use super::types::is_variable;
use super::{Condition, RuleError, VARIABLES};

/// Endings of the scalars that a region of interest has.
const REGION_ENDS: [&str; 3] = ["_counts", "_max", "_mean"];

/// What a recipe's results are called.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// scalars with their units
    pub scalars: Vec<(String, String)>,
    /// first curve and the values of its axis
    pub curve: Option<(String, Vec<f64>)>,
}

/// What results will be called, as far as it can be known before a run is armed.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// scalars with their units
    pub scalars: Vec<(String, String)>,
    /// whether there is a curve; its axis is known with the first frame
    pub curve: bool,
    /// whether there may be regions of interest, whatever their names are
    pub regions: bool,
}

/// Every name under which a scalar is known: its own, and `NAME_counts` where it counts.
fn aliases(scalars: &[(String, String)]) -> impl Iterator<Item = (String, &str)> {
    scalars.iter().flat_map(|(name, unit)| {
        let counts = (unit == "counts" && !name.ends_with("_counts")).then(|| format!("{name}_counts"));
        [Some(name.clone()), counts]
            .into_iter()
            .flatten()
            .map(move |known| (known, name.as_str()))
    })
}

impl Names {
    /// Every name under which a scalar is known, and its own.
    pub(super) fn known_as(&self) -> impl Iterator<Item = (String, &str)> {
        aliases(&self.scalars)
    }

    /// Whether a condition can be asked of these results at all.
    pub(super) fn check(&self, condition: &Condition) -> Result<(), RuleError> {
        let axis = || self.curve.iter().flat_map(|(_, axis)| axis.iter());
        let meets = |low: f64, high: f64| axis().any(|at| (low..=high).contains(at));
        check(condition, &self.scalars, |_| false, meets)
    }
}

impl Known {
    /// What a run has besides: its results may be of another recipe.
    pub fn and(mut self, names: &Names) -> Known {
        self.curve |= names.curve.is_some();
        self.scalars.extend(names.scalars.iter().cloned());
        self
    }

    /// Whether results can ever answer a condition.
    ///
    /// # Errors
    /// [`RuleError::Name`] and [`RuleError::Call`], with the column.
    pub fn check(&self, condition: &Condition) -> Result<(), RuleError> {
        let region = |name: &str| {
            let ends = |end: &str| name.strip_suffix(end).is_some_and(|region| !region.is_empty());
            self.regions && REGION_ENDS.into_iter().any(ends)
        };
        check(condition, &self.scalars, region, |_, _| self.curve)
    }
}

fn check(
    condition: &Condition,
    scalars: &[(String, String)],
    may_be: impl Fn(&str) -> bool,
    meets: impl Fn(f64, f64) -> bool,
) -> Result<(), RuleError> {
    let known = |name: &str| is_variable(name) || may_be(name) || aliases(scalars).any(|(known, _)| known == name);
    if let Some((name, column)) = condition.names().iter().find(|(name, _)| !known(name)) {
        let mut all: Vec<String> = aliases(scalars).map(|(known, _)| known).collect();
        all.extend(VARIABLES.iter().map(|(name, _)| name.to_string()));
        return Err(RuleError::Name {
            text: condition.text().into(),
            column: *column,
            name: name.clone(),
            known: all.join(", "),
        });
    }
    let scalar = |name: &str| may_be(name) || scalars.iter().any(|(known, _)| known == name);
    match condition
        .calls()
        .iter()
        .find(|(call, _)| !call.possible(scalar, &meets))
    {
        Some((call, column)) => Err(RuleError::Call {
            text: condition.text().into(),
            column: *column,
            call: call.to_string(),
            scalars: scalars
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        }),
        None => Ok(()),
    }
}
