//! What a recipe finds out about a run as a whole, for example where the rotation axis is: an event when it is found, and a
//! line in the run's summary.

use crate::active_run::ActiveRun;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// See the module. Not for the data plane: telling allocates.
#[derive(Default)]
pub struct Findings {
    values: Mutex<BTreeMap<&'static str, Value>>,
    run: OnceLock<Weak<ActiveRun>>,
}

impl Findings {
    /// Gives them the run whose events they become; a second one is not listened to.
    pub fn belong_to(&self, run: &Arc<ActiveRun>) {
        let _ = self.run.set(Arc::downgrade(run));
    }

    /// The run that they belong to, once it is armed and until it is dropped.
    pub fn run(&self) -> Option<Arc<ActiveRun>> {
        self.run.get().and_then(Weak::upgrade)
    }

    /// Tells a finding, as the event `name`; a later one of the same name takes its place in the summary.
    pub fn tell(&self, name: &'static str, data: Value) {
        if let Some(run) = self.run() {
            run.events.add(name, data.clone());
        }
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.insert(name, data);
    }

    /// Tells what is not as it should be.
    pub fn warn(&self, message: String) {
        match self.run() {
            Some(run) => run.degraded(message),
            None => tracing::warn!("{message}"),
        }
    }

    /// Everything found so far, by name.
    pub fn all(&self) -> BTreeMap<&'static str, Value> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
