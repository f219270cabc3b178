//! Decisions: rules that the beamline writes, asked of every result in the order of frames. A rule that fires makes a
//! decision: an event with what it rests on, kept with the run.
//!
//! ```text
//! results, as they come ─▶ InOrder ─▶ Running (windows, sums) ─▶ conditions ─▶ decisions
//!                             ▲
//!                   the ledger: which frames will have no result
//! ```
//!
//! Everything here is a state machine that is fed results; times are those of the frames' arrival. A rule therefore
//! fires at the same frame whenever the same results are taken, live or from a stored run. It runs beside the data
//! plane, on the thread that serves the consumers of results.

mod call;
mod engine;
mod expression;
mod log;
mod names;
mod order;
mod running;
mod types;

pub use call::Call;
pub use engine::{Decision, Engine, Moment};
pub use expression::{CHARACTERS_MAX, Condition, Hold, VARIABLES};
pub use log::{Acknowledgement, Decided, Decisions, Rules, RulesInForce};
pub use names::{Known, Names};
pub use order::{Fate, InOrder};
pub use running::{Running, WINDOW_MAX};

use crate::config::ConfigError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most rules in force.
pub const RULES_MAX: usize = 64;

/// What a rule does beside deciding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// tells, and nothing else: the experiment's control acts
    #[default]
    Tell,
    /// ends the run early; everything is kept
    Stop,
    /// ends the run now and marks it as aborted
    Abort,
}

/// `[rule.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Condition, for example `hit_rate(200) < 0.02` or `max > 60000 for 3 frames`: see docs/decisions.md.
    pub when: String,
    /// Condition under which the rule may fire again; until `when` no longer holds unless given.
    pub again: Option<String>,
    /// Least time between two decisions of this rule, seconds (0 to 86400).
    #[serde(default)]
    pub min_interval_s: f64,
    /// "tell", "stop" or "abort".
    #[serde(default)]
    pub action: Action,
}

/// Why a rule is refused.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// no expression
    #[error("{text:?}, column {column}: {reason}")]
    Syntax {
        /// the condition
        text: String,
        /// from 1, in characters
        column: usize,
        /// what is wrong
        reason: String,
    },
    /// a function that does not exist
    #[error("{text:?}, column {column}: there is no function {name}; there are {}", functions())]
    Function {
        /// the condition
        text: String,
        /// from 1, in characters
        column: usize,
        /// the function
        name: String,
    },
    /// a scalar that the recipe does not make
    #[error("{text:?}, column {column}: no {name} here; there are {known}")]
    Name {
        /// the condition
        text: String,
        /// from 1, in characters
        column: usize,
        /// the name
        name: String,
        /// all names
        known: String,
    },
    /// a call that never has a value
    #[error(
        "{text:?}, column {column}: {call} never has a value: windows hold 1 to {WINDOW_MAX} results of {scalars}, and \
         ranges must meet the axis of the curve"
    )]
    Call {
        /// the condition
        text: String,
        /// from 1, in characters
        column: usize,
        /// the call
        call: String,
        /// scalars of the recipe
        scalars: String,
    },
    /// an expression that is no condition
    #[error("{text:?}, column {column}: {reason}")]
    Meaning {
        /// the condition
        text: String,
        /// from 1, in characters
        column: usize,
        /// what is wrong
        reason: String,
    },
    /// too many, or a name or number outside its range
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// the expression library
    #[error("{0}")]
    Engine(String),
}

fn functions() -> String {
    let usages: Vec<&str> = call::FUNCTIONS.iter().map(|(_, usage, _)| *usage).collect();
    usages.join("; ")
}

/// A rule, compiled.
#[derive(Debug)]
pub struct Rule {
    /// name
    pub name: String,
    /// as it was written
    pub config: RuleConfig,
    /// fires when this holds
    pub when: Condition,
    /// may fire again when this holds
    pub again: Option<Condition>,
}

impl Rule {
    /// Compiles a rule. Whether there is what it asks for is for [`Known::check`] to say.
    pub fn new(name: &str, config: &RuleConfig) -> Result<Rule, RuleError> {
        let key = |key: &str| format!("rule.{name}.{key}");
        if crate::storage::check_name("rule name", name).is_err() {
            let expected = "a letter or digit, then letters, digits, '.', '_' and '-', at most 64";
            return Err(ConfigError::value("rule", format!("{name:?}"), expected).into());
        }
        if !(0.0..=86_400.0).contains(&config.min_interval_s) {
            return Err(ConfigError::value(key("min_interval_s"), config.min_interval_s, "0 to 86400").into());
        }
        let again = config.again.as_deref().map(Condition::new).transpose()?;
        if again.as_ref().is_some_and(|again| again.hold != Hold::Frames(1)) {
            let expected = "a condition without \"for …\": how long it must hold is said of `when`";
            return Err(ConfigError::value(key("again"), format!("{:?}", config.again), expected).into());
        }
        Ok(Rule {
            name: name.into(),
            when: Condition::new(&config.when)?,
            again,
            config: config.clone(),
        })
    }

    /// Its conditions.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        std::iter::once(&self.when).chain(&self.again)
    }
}

#[cfg(test)]
mod tests;
