//! Asks every rule of every result, in the order of frames.

use super::expression::Hold;
use super::log::Acknowledgement;
use super::running::Running;
use super::{Action, Names, Rule, RuleError};
use crate::feedback::hub::ResultMessage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A rule has fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    /// counts decisions of the run from 0
    pub sequence: u64,
    /// name of the rule
    pub rule: String,
    /// its condition
    pub when: String,
    /// what the rule does
    pub action: Action,
    /// first frame for which the condition held without a break
    pub frame_first: u64,
    /// frame that decided
    pub frame_number: u64,
    /// values that the condition was asked with
    pub evidence: BTreeMap<String, f64>,
    /// share of the frames up to the deciding one that have a result
    pub share: f64,
    /// from the arrival of the deciding frame to the decision, µs
    pub age_us: u64,
    /// UTC time of the decision
    pub time: String,
    /// by whom and when it was acknowledged
    pub acknowledged: Option<Acknowledgement>,
}

/// How far a rule is.
#[derive(Debug, Default)]
struct Standing {
    /// first frame and its arrival (ns) since when the condition holds, and how many results that is
    holds: Option<(u64, u64, u64)>,
    /// it has fired and waits to be allowed again
    spent: bool,
    /// arrival of the frame that decided last, ns
    fired_ns: Option<u64>,
}

/// The rules of a run and how far each is.
pub struct Engine {
    running: Running,
    rules: Vec<(Arc<Rule>, Standing)>,
    decided: u64,
}

/// What a result brings beside its values.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// arrival of the frame, ns
    pub arrival_ns: u64,
    /// now, on the same clock, ns
    pub now_ns: u64,
}

impl Engine {
    /// No rules yet, for results of these names.
    pub fn new(names: Names) -> Self {
        Self {
            running: Running::new(names),
            rules: Vec::new(),
            decided: 0,
        }
    }

    /// Puts these rules in force. One that has not changed stays where it is; one that these results can never answer is
    /// left out and told.
    pub fn put(&mut self, rules: &[Arc<Rule>]) -> Vec<RuleError> {
        let (mut old, mut refused) = (std::mem::take(&mut self.rules), Vec::new());
        for rule in rules {
            let known = old
                .iter()
                .position(|(known, _)| known.name == rule.name && known.config == rule.config);
            let checked = rule
                .conditions()
                .try_for_each(|condition| self.running.check(condition));
            match (checked, known) {
                (Err(error), _) => refused.push(error),
                (Ok(()), Some(at)) => self.rules.push(old.swap_remove(at)),
                (Ok(()), None) => self.rules.push((rule.clone(), Standing::default())),
            }
        }
        refused
    }

    /// Takes the next result; what was decided by it.
    pub fn take(&mut self, result: &Arc<ResultMessage>, moment: Moment) -> Result<Vec<Decision>, RuleError> {
        self.running.take(result);
        let mut decisions = Vec::new();
        if self.rules.is_empty() {
            return Ok(decisions);
        }
        let share = self.running.results() as f64 / (result.frame_number + 1) as f64;
        let context = self.running.context(share.min(1.0))?;
        for (rule, standing) in &mut self.rules {
            self.running.asked();
            let holds = rule.when.holds(&context);
            let evidence = self.running.asked();
            if standing.spent {
                let again = rule.again.as_ref().map_or(!holds, |again| again.holds(&context));
                standing.spent = !again;
            }
            standing.holds = match standing.holds {
                _ if !holds => None,
                Some((frame, since, results)) => Some((frame, since, results + 1)),
                None => Some((result.frame_number, moment.arrival_ns, 1)),
            };
            let Some((frame_first, since, results)) = standing.holds.filter(|_| !standing.spent) else {
                continue;
            };
            let long_enough = match rule.when.hold {
                Hold::Frames(frames) => results >= frames,
                Hold::Time(ns) => moment.arrival_ns.saturating_sub(since) >= ns,
            };
            let pause_ns = (rule.config.min_interval_s * 1e9) as u64;
            let too_soon = |fired: u64| moment.arrival_ns.saturating_sub(fired) < pause_ns;
            if !long_enough || standing.fired_ns.is_some_and(too_soon) {
                continue;
            }
            standing.spent = true;
            standing.fired_ns = Some(moment.arrival_ns);
            let mut all = self.running.named_by(&rule.when);
            all.extend(evidence);
            // JSON has no NaN.
            all.retain(|_, value| value.is_finite());
            decisions.push(Decision {
                sequence: self.decided,
                rule: rule.name.clone(),
                when: rule.config.when.clone(),
                action: rule.config.action,
                frame_first,
                frame_number: result.frame_number,
                evidence: all,
                share: share.min(1.0),
                age_us: moment.now_ns.saturating_sub(moment.arrival_ns) / 1000,
                time: jiff::Timestamp::now().to_string(),
                acknowledged: None,
            });
            self.decided += 1;
        }
        Ok(decisions)
    }
}
