//! Parameters that may change while a run records: set by the control plane, looked at by operations between two batches.
//! Nothing waits for anything: a value is one atomic number, and a version that grows tells that something has changed.

use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

/// States of a run in which parameters may change.
pub const STATES: [&str; 2] = ["armed", "recording"];

/// A number that may change while the run records.
pub struct LiveParameter {
    /// `operation.key`, as in the recipe
    pub name: String,
    /// one line for people
    pub description: &'static str,
    /// unit; empty for a pure number
    pub unit: &'static str,
    /// smallest value
    pub low: f64,
    /// largest value
    pub high: f64,
    /// whether it is a whole number
    pub whole: bool,
    /// another parameter of the recipe, and the text that it has from when this one is set by hand
    pub settles: Option<(&'static str, &'static str)>,
    value: AtomicU64,
    changed: AtomicU32,
    by_hand: AtomicBool,
}

/// A parameter as the interface describes it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ParameterInfo {
    /// `operation.key`, as in the recipe
    pub name: String,
    /// number or integer
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// unit; empty for a pure number
    pub unit: &'static str,
    /// smallest value
    pub minimum: f64,
    /// largest value
    pub maximum: f64,
    /// value now
    pub value: f64,
    /// read_write: it can be set, and read
    pub access: &'static str,
    /// the call that sets it
    pub call: String,
    /// states of the run in which it may change
    pub states: [&'static str; 2],
    /// one line for people
    pub description: &'static str,
}

/// Why a parameter was not changed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum LiveError {
    /// no such parameter
    #[error("there is no parameter {name:?}; there are: {known}")]
    Unknown {
        /// asked for
        name: String,
        /// what there is
        known: String,
    },
    /// not allowed
    #[error("{name} = {value}: {expected}")]
    Value {
        /// parameter
        name: String,
        /// asked for
        value: f64,
        /// what is allowed
        expected: String,
    },
}

/// The live parameters of a run.
#[derive(Default)]
pub struct LiveParameters {
    list: Vec<LiveParameter>,
    version: AtomicU32,
}

impl LiveParameter {
    /// A parameter with its first value.
    pub fn new(name: &str, description: &'static str, unit: &'static str, range: (f64, f64), value: f64) -> Self {
        Self {
            name: name.into(),
            description,
            unit,
            low: range.0,
            high: range.1,
            whole: false,
            settles: None,
            value: AtomicU64::new(value.to_bits()),
            changed: AtomicU32::new(0),
            by_hand: AtomicBool::new(false),
        }
    }

    /// Whoever sets it by hand has settled another parameter, too: an axis that was set is not searched any more.
    pub fn settling(mut self, name: &'static str, text: &'static str) -> Self {
        self.settles = Some((name, text));
        self
    }

    /// A whole number.
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }
}

impl LiveParameters {
    /// Adds one and returns its index.
    pub fn add(&mut self, parameter: LiveParameter) -> usize {
        self.list.push(parameter);
        self.list.len() - 1
    }

    /// How often something has changed.
    pub fn version(&self) -> u32 {
        self.version.load(SeqCst)
    }

    /// Value of parameter `index`; NaN where there is none.
    pub fn get(&self, index: usize) -> f64 {
        self.list
            .get(index)
            .map_or(f64::NAN, |p| f64::from_bits(p.value.load(SeqCst)))
    }

    /// Sets a value and returns the version that it makes.
    ///
    /// # Errors
    /// [`LiveError`]; nothing has changed then.
    pub fn set(&self, name: &str, value: f64) -> Result<u32, LiveError> {
        let Some(parameter) = self.list.iter().find(|parameter| parameter.name == name) else {
            let known: Vec<&str> = self.list.iter().map(|parameter| parameter.name.as_str()).collect();
            let known = if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            };
            return Err(LiveError::Unknown {
                name: name.into(),
                known,
            });
        };
        let (low, high) = (parameter.low, parameter.high);
        if !(low..=high).contains(&value) || (parameter.whole && value.fract() != 0.0) {
            let number = if parameter.whole { "a whole number" } else { "a number" };
            return Err(LiveError::Value {
                name: name.into(),
                value,
                expected: format!("{number} from {low} to {high} {}", parameter.unit)
                    .trim_end()
                    .into(),
            });
        }
        parameter.by_hand.store(true, SeqCst);
        Ok(self.change(parameter, value))
    }

    fn change(&self, parameter: &LiveParameter, value: f64) -> u32 {
        parameter.value.store(value.to_bits(), SeqCst);
        parameter.changed.fetch_add(1, SeqCst);
        self.version.fetch_add(1, SeqCst) + 1
    }

    /// The recipe's own value of parameter `index`, kept within its limits; says whether it is taken: what was set by hand
    /// stays.
    pub fn adopt(&self, index: usize, value: f64) -> bool {
        let Some(parameter) = self.list.get(index).filter(|p| !p.by_hand.load(SeqCst)) else {
            return false;
        };
        let value = value.clamp(parameter.low, parameter.high);
        if f64::from_bits(parameter.value.load(SeqCst)) != value {
            self.change(parameter, value);
        }
        true
    }

    /// What there is.
    pub fn describe(&self) -> Vec<ParameterInfo> {
        let info = |parameter: &LiveParameter| ParameterInfo {
            name: parameter.name.clone(),
            kind: if parameter.whole { "integer" } else { "number" },
            unit: parameter.unit,
            minimum: parameter.low,
            maximum: parameter.high,
            value: f64::from_bits(parameter.value.load(SeqCst)),
            access: "read_write",
            call: format!("PUT /api/v1/parameters/{}", parameter.name),
            states: STATES,
            description: parameter.description,
        };
        self.list.iter().map(info).collect()
    }

    /// Names and values of those that were changed, for the run's record.
    pub fn changed(&self) -> serde_json::Value {
        let changed = self.list.iter().filter(|parameter| parameter.changed.load(SeqCst) > 0);
        let entry = |parameter: &LiveParameter| {
            let value = f64::from_bits(parameter.value.load(SeqCst));
            let value = if parameter.whole {
                (value as i64).into()
            } else {
                value.into()
            };
            (parameter.name.clone(), value)
        };
        let settled = |parameter: &LiveParameter| {
            let (name, text) = parameter.settles.filter(|_| parameter.by_hand.load(SeqCst))?;
            Some((name.to_string(), text.into()))
        };
        let settled = self.list.iter().filter_map(settled);
        serde_json::Value::Object(changed.map(entry).chain(settled).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_within_their_limits_and_changes_are_counted() {
        let mut live = LiveParameters::default();
        let row = live.add(LiveParameter::new("b.row", "", "pixel", (0.0, 9.0), 4.0).whole());
        assert_eq!(
            (live.get(row), live.version(), live.changed()),
            (4.0, 0, serde_json::json!({}))
        );
        assert_eq!(live.set("b.row", 7.0), Ok(1));
        for wrong in [7.5, -1.0, 10.0, f64::NAN] {
            let error = live.set("b.row", wrong).unwrap_err().to_string();
            assert!(error.contains("a whole number from 0 to 9 pixel"), "{error}");
        }
        assert!(
            live.set("b.column", 1.0)
                .unwrap_err()
                .to_string()
                .contains("there are: b.row")
        );
        assert_eq!(
            (live.get(row), live.version(), live.changed()),
            (7.0, 1, serde_json::json!({ "b.row": 7 }))
        );
    }

    #[test]
    fn what_is_set_by_hand_is_not_taken_over_again() {
        let mut live = LiveParameters::default();
        let axis = live.add(LiveParameter::new("b.axis_px", "", "pixel", (0.0, 9.0), 4.0).settling("b.axis", "given"));
        assert!(live.adopt(axis, 4.0) && live.version() == 0);
        assert!(live.adopt(axis, 11.5));
        assert_eq!((live.get(axis), live.version()), (9.0, 1));
        assert_eq!(live.changed(), serde_json::json!({ "b.axis_px": 9.0 }));
        assert_eq!(live.set("b.axis_px", 3.0), Ok(2));
        assert!(!live.adopt(axis, 5.0));
        let expected = serde_json::json!({ "b.axis_px": 3.0, "b.axis": "given" });
        assert_eq!((live.get(axis), live.changed()), (3.0, expected));
    }
}
