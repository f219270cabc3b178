//! The rules in force, and what a run has decided.

use super::engine::Moment;
use super::order::{Fate, InOrder};
use super::{Action, Decision, Engine, Known, Names, RULES_MAX, Rule, RuleConfig, RuleError};
use crate::config::ConfigError;
use crate::feedback::hub::ResultMessage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most decisions that a run keeps; more are counted.
const KEPT_MAX: usize = 1000;

/// Somebody has taken note of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Acknowledgement {
    /// who
    pub by: String,
    /// UTC time
    pub time: String,
}

impl Acknowledgement {
    /// Now, by this one.
    pub fn by(by: &str) -> Acknowledgement {
        Acknowledgement {
            by: by.into(),
            time: jiff::Timestamp::now().to_string(),
        }
    }
}

/// The rules of the appliance, which may change while a run records.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Mutex<BTreeMap<String, Arc<Rule>>>,
    version: AtomicU64,
    /// what the results of the configuration's recipes are called
    known: Known,
}

/// Shared by the interface and the runs.
pub type RulesInForce = Arc<Rules>;

impl Rules {
    /// The rules of a configuration, whose recipes' results are called so.
    pub fn new(configured: &BTreeMap<String, RuleConfig>, known: Known) -> Result<Rules, RuleError> {
        let rules = Rules {
            known,
            ..Rules::default()
        };
        configured
            .iter()
            .try_for_each(|(name, config)| rules.put(name, config, None))?;
        Ok(rules)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Rule>>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a rule in force in place of the one that had this name. It may ask for what the recipes make, and for what the
    /// run in memory makes, which may have other parameters.
    pub fn put(&self, name: &str, config: &RuleConfig, run: Option<&Names>) -> Result<(), RuleError> {
        let rule = Rule::new(name, config)?;
        let known = match run {
            Some(names) => self.known.clone().and(names),
            None => self.known.clone(),
        };
        rule.conditions().try_for_each(|condition| known.check(condition))?;
        let mut rules = self.all();
        if rules.len() >= RULES_MAX && !rules.contains_key(name) {
            let expected = format!("{RULES_MAX} rules are in force, which is the most: delete one first");
            return Err(ConfigError::value("rule", format!("{name:?}"), expected).into());
        }
        rules.insert(name.into(), Arc::new(rule));
        self.version.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Takes a rule out of force; whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        let removed = self.all().remove(name).is_some();
        self.version.fetch_add(1, SeqCst);
        removed
    }

    /// Every rule, by name.
    pub fn list(&self) -> Vec<Arc<Rule>> {
        self.all().values().cloned().collect()
    }
}

struct Inner {
    in_order: InOrder<(Arc<ResultMessage>, u64)>,
    engine: Engine,
    /// version of the rules that the engine has; `None` before the first result
    version: Option<u64>,
    kept: Vec<Decision>,
    not_kept: u64,
}

/// What a run decides, from its results.
pub struct Decisions {
    rules: RulesInForce,
    names: Names,
    inner: Mutex<Inner>,
}

/// What came of a result.
#[derive(Debug, Default)]
pub struct Decided {
    /// in order
    pub decisions: Vec<Decision>,
    /// rules that this run cannot answer, as sentences
    pub refused: Vec<String>,
}

impl Decisions {
    /// Nothing yet, for results of these names.
    pub fn new(rules: RulesInForce, names: Names) -> Self {
        let inner = Inner {
            in_order: InOrder::default(),
            engine: Engine::new(names.clone()),
            version: None,
            kept: Vec::new(),
            not_kept: 0,
        };
        Self {
            rules,
            names,
            inner: Mutex::new(inner),
        }
    }

    /// What the run's results are called.
    pub fn names(&self) -> &Names {
        &self.names
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a result whose frame arrived at `arrival_ns`, as it comes, or `None` where time has passed without one;
    /// `now_ns` is the clock that arrivals are told in.
    pub fn take(
        &self,
        result: Option<(&Arc<ResultMessage>, u64)>,
        fate: impl Fn(u64) -> Fate,
        now_ns: impl Fn() -> u64,
    ) -> Decided {
        let mut inner = self.inner();
        if let Some((result, arrival_ns)) = result {
            inner.in_order.put(result.frame_number, (result.clone(), arrival_ns));
        }
        self.decide(&mut inner, |in_order| in_order.take(&fate), now_ns)
    }

    /// The run's results have ended: whatever waits is taken.
    pub fn finish(&self, now_ns: impl Fn() -> u64) -> Decided {
        self.decide(&mut self.inner(), InOrder::drain, now_ns)
    }

    fn decide(
        &self,
        inner: &mut Inner,
        next: impl Fn(&mut InOrder<(Arc<ResultMessage>, u64)>) -> Option<(Arc<ResultMessage>, u64)>,
        now_ns: impl Fn() -> u64,
    ) -> Decided {
        let mut decided = Decided::default();
        while let Some((result, arrival_ns)) = next(&mut inner.in_order) {
            let version = self.rules.version.load(SeqCst);
            if inner.version != Some(version) {
                inner.version = Some(version);
                let refused = inner.engine.put(&self.rules.list());
                decided.refused.extend(refused.iter().map(RuleError::to_string));
            }
            let now_ns = now_ns();
            match inner.engine.take(&result, Moment { arrival_ns, now_ns }) {
                Ok(decisions) => decided.decisions.extend(decisions),
                Err(error) => decided.refused.push(error.to_string()),
            }
        }
        let room = KEPT_MAX.saturating_sub(inner.kept.len());
        inner.not_kept += decided.decisions.len().saturating_sub(room) as u64;
        inner.kept.extend(decided.decisions.iter().take(room).cloned());
        decided
    }

    /// The run's first decisions, and how many more there were.
    pub fn list(&self) -> (Vec<Decision>, u64) {
        let inner = self.inner();
        (inner.kept.clone(), inner.not_kept)
    }

    /// Notes that somebody has seen a decision; the decision as it is now, and whether that was news. The first one who says
    /// so counts.
    pub fn acknowledge(&self, sequence: u64, by: &str) -> Option<(Decision, bool)> {
        let mut inner = self.inner();
        let decision = inner.kept.iter_mut().find(|decision| decision.sequence == sequence)?;
        let news = decision.acknowledged.is_none();
        decision.acknowledged.get_or_insert_with(|| Acknowledgement::by(by));
        Some((decision.clone(), news))
    }
}

impl Decided {
    /// The strongest action of these decisions.
    pub fn action(&self) -> Action {
        let all = || self.decisions.iter().map(|decision| decision.action);
        [Action::Abort, Action::Stop]
            .into_iter()
            .find(|action| all().any(|asked| asked == *action))
            .unwrap_or_default()
    }
}
