//! What status, the command line and the metrics say of the store.

use super::life::State;
use super::retention::Forecast;
use serde::Serialize;
use std::collections::BTreeMap;

/// Runs in one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct StateCount {
    /// runs
    pub runs: u64,
    /// bytes of their files
    pub bytes: u64,
}

/// The way to the central store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PushStatus {
    /// where to; null where nothing is pushed
    pub destination: Option<String>,
    /// runs that have no verified copy yet
    pub waiting_runs: u64,
    /// their bytes
    pub waiting_bytes: u64,
    /// run that is on its way
    pub current: Option<String>,
    /// what failed last; null after the next success
    pub error: Option<String>,
    /// seconds until the central store is tried again
    pub retry_in_s: f64,
    /// seconds since the central store first did not answer, however often it was tried since; 0 while it does
    pub away_s: f64,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct KeepStatus {
    /// bytes that runs may take
    pub capacity_bytes: u64,
    /// bytes that runs take
    pub used_bytes: u64,
    /// percent taken
    pub percent: f64,
    /// normal, filling (runs that are safe are deleted), urgent, refusing (no run is armed)
    pub level: &'static str,
    /// what will be
    pub forecast: Forecast,
    /// closed, pushed, verified, safe_to_delete and deleted runs
    pub runs: BTreeMap<&'static str, StateCount>,
    /// the way to the central store
    pub push: PushStatus,
    /// runs with files that are not what was written
    pub damaged_runs: u64,
    /// interrupted runs that cannot be closed; each is tried again
    pub unclosed_runs: u64,
    /// whether the clock can be trusted with the age of runs; while it cannot, nothing is deleted
    pub clock_trusted: bool,
    /// seconds since the oldest run was closed that has no verified copy; null where all have one
    pub oldest_unverified_s: Option<f64>,
    /// whether every run of the store is in the catalogue; false while that is made anew
    pub catalogue_complete: bool,
}

impl KeepStatus {
    /// Runs in a state.
    pub fn of(&self, state: State) -> StateCount {
        self.runs.get(state.name()).copied().unwrap_or_default()
    }
}
