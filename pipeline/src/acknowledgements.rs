//! Who has taken note of decisions of runs that have ended: lines in the run's `state.jsonl`, since its `run.json` never
//! changes. What was noted while a run recorded is in its `run.json`.

use crate::decisions::{Acknowledgement, Decision};
use crate::keep::{KeepError, Life};
use crate::storage::state_jsonl::STATE_JSONL;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The word of such a line.
const ACKNOWLEDGED: &str = "acknowledged";

/// Keeps who took note of a decision, on the disk when this returns.
pub fn keep(folder: &Path, decision: &Decision) -> Result<(), KeepError> {
    let Some(acknowledged) = &decision.acknowledged else {
        return Ok(());
    };
    let detail = json!({ "decision": decision.sequence, "by": acknowledged.by, "at": acknowledged.time });
    Life::read(folder)?.append(folder, jiff::Timestamp::now(), ACKNOWLEDGED, detail)
}

/// Who took note, by decision: the first who did.
pub fn read(folder: &Path) -> Result<BTreeMap<u64, Acknowledgement>, KeepError> {
    let path = folder.join(STATE_JSONL);
    let lines = match std::fs::read(&path) {
        Ok(lines) => lines,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(KeepError::io("reading", &path, source)),
    };
    let mut all = BTreeMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        let text = |key: &str| line[key].as_str().map(str::to_string);
        let Some(decision) = line["decision"].as_u64().filter(|_| line["state"] == ACKNOWLEDGED) else {
            continue;
        };
        if let (Some(by), Some(time)) = (text("by"), text("at")) {
            all.entry(decision).or_insert(Acknowledgement { by, time });
        }
    }
    Ok(all)
}
