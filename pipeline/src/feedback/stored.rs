//! What a closed run answers: the same addresses as a run in memory, read from its files.

use super::error::ApiError;
use super::events::Event;
use super::frames::{Profile, ProfileAxis, SliceInfo};
use super::runs::{LedgerLine, LedgerPage, LedgerQuery, RunDetail};
use super::server::Shared;
use crate::acknowledgements;
use crate::decisions::{Acknowledgement, Decision};
use crate::frame_metadata::Value;
use crate::grid::{GRID, GridAnswer};
use crate::keep::{Life, State};
use crate::storage::{self, RunRecord, StoreError};
use axum::http::StatusCode;
use driver::tracker::FrameState;
use frame::{Image, PixelMask};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines of a stored ledger that are read at once.
const BLOCK: usize = 4096;

/// A closed run: folder and record.
pub struct StoredRun {
    /// folder
    pub folder: PathBuf,
    /// `run.json`
    pub record: RunRecord,
    /// `state.jsonl`
    pub life: Life,
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::FrameNumber { .. } | StoreError::FrameMissing { .. } => ApiError::not_found(error),
            other => ApiError::internal(other),
        }
    }
}

/// Does `read` with the closed run `id`, beside the threads that answer requests.
pub async fn with<T: Send + 'static>(
    shared: &Shared,
    id: &str,
    read: impl FnOnce(&StoredRun) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let refuse_deleted = |run: &StoredRun| match run.life.state {
        State::Deleted => {
            let copy = run.life.destination.as_deref().unwrap_or_default();
            let message = format!(
                "the data of run {} were deleted here; its copy is at {copy}",
                run.record.id
            );
            Err(ApiError::new(StatusCode::GONE, "deleted", message))
        }
        _ => read(run),
    };
    with_record(shared, id, refuse_deleted).await
}

/// Folder of the newest closed run of this name that whoever asks may see.
pub fn find(shared: &Shared, id: &str) -> Result<Option<PathBuf>, ApiError> {
    let catalogue = shared.appliance.catalogue();
    let seen = |proposal: &str| shared.scope.sees(proposal, id);
    if let Some(found) = catalogue.find_of(id, seen)? {
        return Ok(Some(catalogue.folder(&found.path)));
    }
    // Closed a moment ago, or the catalogue is being made anew.
    let complete = catalogue.refresh(Duration::from_millis(200))?;
    match catalogue.find_of(id, seen)? {
        Some(found) => Ok(Some(catalogue.folder(&found.path))),
        None if complete => Ok(None),
        None => Ok(shared.appliance.store().find_of(id, seen)?),
    }
}

/// Does `read` with what is known of the closed run `id`, also when its data were deleted here.
pub async fn with_record<T: Send + 'static>(
    shared: &Shared,
    id: &str,
    read: impl FnOnce(&StoredRun) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (shared, id) = (shared.clone(), id.to_string());
    let task = move || {
        let folder = find(&shared, &id)?.ok_or_else(|| ApiError::not_found(format!("there is no run {id}")))?;
        let (record, life) = (RunRecord::read(&folder)?, Life::read(&folder)?);
        read(&StoredRun { folder, record, life })
    };
    tokio::task::spawn_blocking(task).await.map_err(ApiError::internal)?
}

/// Summary, states, metadata.
pub fn detail(run: &StoredRun) -> Result<RunDetail, ApiError> {
    let record = &run.record;
    Ok(RunDetail {
        id: record.id.clone(),
        state: record.state.clone(),
        store_state: run.life.state.name().into(),
        copy: run.life.destination.clone().filter(|_| run.life.verified.is_some()),
        damaged: run.life.damaged.clone(),
        datasets: match run.life.state {
            State::Deleted => Vec::new(),
            _ => storage::list_datasets(&run.folder)?,
        },
        frames: record.frames.clone(),
        outcomes: record.summary["outcomes"].clone(),
        summary: record.summary.clone(),
        warnings: record.warnings.clone(),
        record: serde_json::to_value(record).map_err(ApiError::internal)?,
    })
}

/// The ledger, frame by frame.
pub fn ledger(run: &StoredRun, query: &LedgerQuery) -> Result<LedgerPage, ApiError> {
    let columns = storage::read_ledger(&run.folder)?;
    let (expected, limit) = (columns.frame_state.len() as u64, query.limit());
    let (mut entries, mut frame) = (Vec::new(), query.first);
    let mut block = (0..0, BTreeMap::new());
    while let Some(entry) = columns.entry(frame).filter(|_| entries.len() < limit) {
        if query.takes(entry.state) {
            let index = frame as usize;
            if !block.0.contains(&index) {
                let range = index..index + BLOCK;
                block = (range.clone(), storage::read_frame_metadata(&run.folder, range)?);
            }
            let metadata = values(&block.1, index - block.0.start);
            entries.push(LedgerLine { entry, metadata });
        }
        frame += 1;
    }
    Ok(LedgerPage {
        frames: run.record.frames.clone(),
        outcomes: run.record.summary["outcomes"].clone(),
        entries,
        next: (frame < expected).then_some(frame),
    })
}

/// The values of one frame, by name.
fn values(columns: &BTreeMap<String, Vec<Option<Value>>>, row: usize) -> BTreeMap<String, Value> {
    let told = |(name, values): (&String, &Vec<Option<Value>>)| {
        let value = values.get(row).copied().flatten()?;
        Some((name.clone(), value))
    };
    columns.iter().filter_map(told).collect()
}

/// What the record still tells of the run's life: armed, warnings, files closed, end.
pub fn events(run: &StoredRun) -> Vec<Event> {
    let record = &run.record;
    let files: Vec<_> = record.files.iter().map(|file| run.folder.join(&file.name)).collect();
    let degraded = record
        .warnings
        .iter()
        .map(|text| ("degraded", json!({ "message": text })));
    let told = std::iter::once(("armed", json!({ "run": record.id })))
        .chain(degraded)
        .chain([
            ("file_closed", json!({ "files": files })),
            ("end", json!({ "state": record.state, "frames": record.frames })),
        ]);
    let (start, end) = (record.start_time.to_string(), record.end_time.to_string());
    let event = |(sequence, (event, data)): (usize, (&'static str, serde_json::Value))| Event {
        sequence: sequence as u64,
        event,
        time: if event == "armed" { start.clone() } else { end.clone() },
        data,
    };
    told.enumerate().map(event).collect()
}

/// Where the crystals of a grid scan are.
pub fn grid(run: &StoredRun) -> Result<Option<GridAnswer>, ApiError> {
    grid_of(&run.record.summary["results"])
}

/// The same from the results of a run's summary.
pub fn grid_of(results: &serde_json::Value) -> Result<Option<GridAnswer>, ApiError> {
    let found = results["found"].get(GRID);
    found
        .map(|answer| GridAnswer::deserialize(answer).map_err(ApiError::internal))
        .transpose()
}

/// What the rules decided, by whom it was noted, and how many more decisions there were.
pub fn decisions(run: &StoredRun) -> Result<(Vec<Decision>, u64), ApiError> {
    let summary = &run.record.summary;
    let mut decisions: Vec<Decision> = match summary.get("decisions") {
        Some(decisions) => serde_json::from_value(decisions.clone()).map_err(ApiError::internal)?,
        None => Vec::new(),
    };
    let noted = acknowledgements::read(&run.folder)?;
    for decision in decisions.iter_mut().filter(|decision| decision.acknowledged.is_none()) {
        decision.acknowledged = noted.get(&decision.sequence).cloned();
    }
    Ok((decisions, summary["decisions_not_kept"].as_u64().unwrap_or(0)))
}

/// Takes note of a decision, unless somebody has; `None` where there is no such decision.
pub fn acknowledge(run: &StoredRun, sequence: u64, by: &str) -> Result<Option<Decision>, ApiError> {
    let (decisions, _) = decisions(run)?;
    let Some(mut decision) = decisions.into_iter().find(|decision| decision.sequence == sequence) else {
        return Ok(None);
    };
    if decision.acknowledged.is_none() {
        decision.acknowledged = Some(Acknowledgement::by(by));
        acknowledgements::keep(&run.folder, &decision)?;
    }
    Ok(Some(decision))
}

/// The curve of a frame, or the run's own (`sum`); `latest` is that of the last frame that has one.
pub fn profile(run: &StoredRun, which: &str) -> Result<Profile, ApiError> {
    let number =
        match which {
            "sum" => None,
            "latest" => Some(last_analysed(&run.folder)?),
            text => Some(text.parse().map_err(|_| {
                ApiError::bad_request(format!("profile {which:?}: a frame number, \"latest\" or \"sum\""))
            })?),
        };
    let curve = storage::read_curve(&run.folder, number)?;
    let curve = curve.ok_or_else(|| {
        ApiError::not_found(match number {
            Some(_) => "this run has no curves",
            None => "this run has no running curve",
        })
    })?;
    let frames_used = match number {
        None => run.record.summary["outcomes"]["done"].as_u64().unwrap_or(0),
        Some(frame) if curve.values.iter().all(|value| value.is_nan()) => {
            return Err(ApiError::not_found(format!(
                "frame {frame} has no curve: the ledger says why"
            )));
        }
        Some(_) => 1,
    };
    let axis = curve.axis.unwrap_or_default();
    let metadata = match number {
        Some(frame) => {
            let row = frame as usize..frame as usize + 1;
            values(&storage::read_frame_metadata(&run.folder, row)?, 0)
        }
        None => BTreeMap::new(),
    };
    Ok(Profile {
        name: curve.name,
        frame_number: number,
        axis: ProfileAxis {
            name: axis.0,
            unit: axis.1,
            values: axis.2,
        },
        values: curve.values,
        errors: curve.errors,
        frames_used,
        metadata,
    })
}

/// The last frame that arrived whole or in part.
pub fn last_received(run: &StoredRun) -> Result<u64, ApiError> {
    let columns = storage::read_ledger(&run.folder)?;
    let there = [FrameState::Complete as u8, FrameState::Partial as u8];
    let last = columns.frame_state.iter().rposition(|code| there.contains(code));
    let last = last.ok_or_else(|| ApiError::not_found("the run ended without a frame to look at"))?;
    Ok(last as u64)
}

/// The last frame that is a hit.
pub fn last_hit(run: &StoredRun) -> Result<u64, ApiError> {
    let told = storage::read_names(&run.folder)?.scalars;
    if !told.iter().any(|(name, _)| name == "hit") {
        return Err(ApiError::not_found("this run tells no hits"));
    }
    let hits = storage::read_scalar(&run.folder, "hit", 0..usize::MAX)?;
    let last = hits.iter().rposition(|hit| *hit == 1.0);
    Ok(last.ok_or_else(|| ApiError::not_found("the run ended without a hit"))? as u64)
}

fn last_analysed(folder: &Path) -> Result<u64, ApiError> {
    let columns = storage::read_ledger(folder)?;
    let done = columns
        .analysis
        .iter()
        .rposition(|code| *code == crate::ledger::Analysis::Done as u8);
    let last = done.ok_or_else(|| ApiError::not_found("no frame of this run was analysed"))?;
    Ok(last as u64)
}

/// Every slice.
pub fn slices(run: &StoredRun) -> Result<Vec<SliceInfo>, ApiError> {
    Ok(storage::list_images(&run.folder)?
        .iter()
        .map(|image| SliceInfo::of(image, 0))
        .collect())
}

/// One slice.
pub fn slice(run: &StoredRun, name: &str) -> Result<Image, ApiError> {
    storage::read_image(&run.folder, name)?.ok_or_else(|| ApiError::not_found(format!("there is no slice {name}")))
}

/// The mask.
pub fn mask(run: &StoredRun) -> Result<PixelMask, ApiError> {
    let mask = storage::read_mask(&run.folder)?;
    let (shape, bits) = mask.ok_or_else(|| ApiError::not_found("this run's file has no mask"))?;
    PixelMask::from_bits(shape, bits).map_err(ApiError::internal)
}
