//! `/entry/ledger`: what became of every expected frame.

use super::LedgerColumns;
use super::error::{At, StoreError};
use super::nexus::{self, Nx};
use hdf5::Dataset;
use std::path::Path;

const STATES: [&str; 5] = ["expected", "complete", "partial", "corrupt", "lost"];
const ANALYSIS: [&str; 4] = ["pending", "done", "shed", "failed"];
const STORAGE: [&str; 4] = ["pending", "synced", "vetoed", "failed"];

/// The empty ledger in the file.
#[derive(Debug)]
pub(super) struct Ledger {
    group: Nx,
    frame_state: Dataset,
    analysis: Dataset,
    storage: Dataset,
    arrival: Dataset,
    latency: Dataset,
    missing: Dataset,
}

impl Ledger {
    /// Creates the columns, one value per expected frame.
    pub(super) fn create(entry: &Nx, frames: usize) -> Result<Self, hdf5::Error> {
        let group = entry.group("ledger", "NXcollection")?;
        let codes = |name: &str, names: &[&str]| -> Result<Dataset, hdf5::Error> {
            let dataset = group.column::<u8>(name, frames, 0)?;
            let meaning: Vec<String> = names
                .iter()
                .enumerate()
                .map(|(code, name)| format!("{code} {name}"))
                .collect();
            nexus::attr_text(&dataset, "meaning", &meaning.join(", "))?;
            Ok(dataset)
        };
        let frame_state = codes("frame_state", &STATES)?;
        let analysis = codes("analysis", &ANALYSIS)?;
        let storage = codes("storage", &STORAGE)?;
        let arrival = group.column::<u64>("arrival", frames, 0)?;
        nexus::attr_text(&arrival, "units", "ns")?;
        nexus::attr_text(&arrival, "meaning", "after the start of the run; 0: never")?;
        let latency = group.column::<u32>("result_latency", frames, 0)?;
        nexus::attr_text(&latency, "units", "ns")?;
        nexus::attr_text(&latency, "meaning", "from arrival to result; 0: no result")?;
        let missing = group.column::<u32>("missing_bytes", frames, 0)?;
        nexus::attr_text(
            &missing,
            "meaning",
            "bytes of the frame that never came and hold the mask value",
        )?;
        Ok(Self {
            group,
            frame_state,
            analysis,
            storage,
            arrival,
            latency,
            missing,
        })
    }

    /// Writes the columns, and their totals as attributes.
    pub(super) fn write(&self, columns: &LedgerColumns<'_>, frames: u64, path: &Path) -> Result<(), StoreError> {
        let lengths = [
            columns.frame_state.len(),
            columns.analysis.len(),
            columns.storage.len(),
            columns.arrival_ns.len(),
            columns.result_latency_ns.len(),
            columns.missing_bytes.len(),
        ];
        if lengths.iter().any(|length| *length as u64 != frames) {
            return Err(StoreError::Description {
                field: "the length of the ledger's columns",
                value: format!("{lengths:?}, the run expects {frames} frames"),
                expected: "one value per expected frame",
            });
        }
        self.fill(columns).at("writing the ledger to", path)
    }

    fn fill(&self, columns: &LedgerColumns<'_>) -> Result<(), hdf5::Error> {
        self.frame_state.write_raw(columns.frame_state)?;
        self.analysis.write_raw(columns.analysis)?;
        self.storage.write_raw(columns.storage)?;
        self.arrival.write_raw(columns.arrival_ns)?;
        self.latency.write_raw(columns.result_latency_ns)?;
        self.missing.write_raw(columns.missing_bytes)?;
        let group = self.group.group_ref();
        nexus::attr(group, "expected", &(columns.frame_state.len() as u64))?;
        let totals = [
            ("", columns.frame_state, &STATES[1..]),
            ("analysis_", columns.analysis, &ANALYSIS[1..]),
            ("storage_", columns.storage, &STORAGE[1..]),
        ];
        for (prefix, codes, names) in totals {
            for (code, name) in (1u8..).zip(names) {
                let total = codes.iter().filter(|c| **c == code).count() as u64;
                nexus::attr(group, &format!("{prefix}{name}"), &total)?;
            }
        }
        Ok(())
    }
}
