//! Runs over HTTP: arm, list, show, end, ledger, events, results.

use super::access::Caller;
use super::delivery::{guarded, last_event};
use super::error::ApiError;
use super::events::Event;
use super::extract::{Body, Path, Query};
use super::lasting::{self, Arming, GoesOn, PatienceQuery, Told};
use super::server::{Asked, Shared};
use super::stored;
use crate::active_run::{ActiveRun, RunState, Summary};
use crate::appliance::{RunRequest, run_name};
use crate::frame_metadata::Value;
use crate::grid::GridAnswer;
use crate::keep::{Found, Life, Query as RunQuery, State};
use crate::ledger::{Entry, Outcomes};
use crate::reprocess::{DERIVED_FROM, RAW_FILE};
use crate::storage::DatasetInfo;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::Event as SseEvent;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt};

/// Most runs or ledger lines in one answer.
const PAGE_MAX: usize = 10_000;
/// How long a list waits for runs that the catalogue does not know yet.
const REFRESH: Duration = Duration::from_millis(200);

/// A line of the list of runs.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RunLine {
    /// id
    pub id: String,
    /// technique
    pub technique: String,
    /// sample
    pub sample: String,
    /// proposal
    pub proposal: String,
    /// armed, recording, finishing, complete, stopped, aborted or failed
    pub state: String,
    /// where its files stand: recording, closed, pushed, verified, safe_to_delete or deleted
    pub store_state: String,
    /// what is wrong with its files here; null where nothing is known to be
    pub damaged: Option<String>,
    /// UTC time of arming
    pub started: String,
    /// complete frames
    pub frames_complete: u64,
    /// frames of the run
    pub frames_expected: u64,
}

/// The list of runs.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RunList {
    /// newest first
    pub runs: Vec<RunLine>,
    /// number of runs that match, on all pages
    pub total: usize,
    /// false while the catalogue is made anew and does not know every run yet
    pub complete: bool,
}

/// A run.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RunDetail {
    /// id
    pub id: String,
    /// armed, recording, finishing, complete, stopped, aborted or failed
    pub state: String,
    /// where its files stand: recording, closed, pushed, verified, safe_to_delete or deleted
    pub store_state: String,
    /// where its verified copy is; null where there is none yet
    pub copy: Option<String>,
    /// what is wrong with its files here; null where nothing is known to be
    pub damaged: Option<String>,
    /// datasets that the run writes, known before frame 0; none of a run whose data were deleted here
    #[schema(value_type = Vec<Object>)]
    pub datasets: Vec<DatasetInfo>,
    /// the tracker's counts
    #[schema(value_type = Object)]
    pub frames: serde_json::Value,
    /// outcomes of analysis and storage
    #[schema(value_type = Outcomes)]
    pub outcomes: serde_json::Value,
    /// identity, parameters and metadata; of a stored run its whole record
    #[schema(value_type = Object)]
    pub record: serde_json::Value,
    /// how it ended; null until then
    #[schema(value_type = Option<Summary>)]
    pub summary: serde_json::Value,
    /// what somebody should know
    pub warnings: Vec<String>,
}

/// Which runs to list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    /// words that name, sample, proposal, technique, title or metadata have, or their beginnings; `field:beginning`,
    /// `field=value`, `field>=number` for one field: id, proposal, sample, technique, state, life, start, frames, complete,
    /// bytes, or any of the metadata
    query: Option<String>,
    /// how many, 100 unless given
    limit: Option<usize>,
    /// how many to leave out first
    offset: usize,
}

/// Which lines of the ledger to show.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerQuery {
    /// expected, complete, partial, corrupt or lost
    state: Option<String>,
    /// first frame
    pub(super) first: u64,
    /// how many lines, 1000 unless given
    limit: Option<usize>,
}

impl LedgerQuery {
    fn check(&self) -> Result<(), ApiError> {
        let known = ["expected", "complete", "partial", "corrupt", "lost"];
        match self.state.as_deref().filter(|state| !known.contains(state)) {
            Some(state) => Err(ApiError::bad_request(format!(
                "state = {state:?}: one of {}",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// Whether it asks for frames in this state.
    pub(super) fn takes(&self, state: &str) -> bool {
        self.state.as_deref().is_none_or(|asked| asked == state)
    }

    /// Most lines of one answer.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(1000).clamp(1, PAGE_MAX)
    }
}

/// A line of the ledger.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct LedgerLine {
    /// receipt and outcomes
    #[serde(flatten)]
    pub entry: Entry,
    /// values of the frame that came with the stream or by HTTP, by name
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

/// A page of the ledger.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct LedgerPage {
    /// the tracker's counts
    #[schema(value_type = Object)]
    pub frames: serde_json::Value,
    /// outcomes of analysis and storage
    #[schema(value_type = Outcomes)]
    pub outcomes: serde_json::Value,
    /// lines
    pub entries: Vec<LedgerLine>,
    /// where the next page begins; absent at the end
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// The run in memory if it has this id (or `current`), unless its data were deleted meanwhile.
pub fn active(shared: &Shared, id: &str) -> Option<Arc<ActiveRun>> {
    shared
        .current()
        .filter(|run| run.info.id == id || id == "current")
        .filter(|run| life(run, run.state()).state != State::Deleted)
}

/// Where the files of a run in memory stand: until it has ended they are being written.
fn life(run: &ActiveRun, state: RunState) -> Life {
    match state.ended() {
        true => Life::read(&run.folder).unwrap_or_default(),
        false => Life::default(),
    }
}

fn line(run: &ActiveRun) -> RunLine {
    let life = life(run, run.state());
    RunLine {
        id: run.info.id.clone(),
        technique: run.info.technique.clone(),
        sample: run.info.sample.clone(),
        proposal: run.info.proposal.clone(),
        state: run.state().name().into(),
        store_state: life.state.name().into(),
        damaged: life.damaged,
        started: run.info.start_time.to_string(),
        frames_complete: run.counts.get().complete,
        frames_expected: run.ledger.expected(),
    }
}

/// Whether the store has a run of this name.
pub async fn is_stored(shared: &Shared, id: &str) -> Result<bool, ApiError> {
    let (shared, id) = (shared.clone(), id.to_string());
    let find = move || stored::find(&shared, &id).map(|found| found.is_some());
    tokio::task::spawn_blocking(find).await.map_err(ApiError::internal)?
}

fn stored_line(found: Found) -> RunLine {
    RunLine {
        id: found.id,
        technique: found.technique,
        sample: found.sample,
        proposal: found.proposal,
        state: found.state,
        store_state: found.life,
        damaged: found.damaged,
        started: found.started,
        frames_complete: found.complete,
        frames_expected: found.frames,
    }
}

/// Runs in memory and in the store, newest first.
#[utoipa::path(get, path = "/runs", params(ListQuery), responses((status = 200, body = RunList), (status = 400, body = ApiError), (status = 500, body = ApiError)))]
pub async fn list(Asked(shared): Asked, Query(query): Query<ListQuery>) -> Result<Json<RunList>, ApiError> {
    let answer = move || {
        let asked = RunQuery::parse(query.query.as_deref().unwrap_or_default())?.within(shared.scope.entries());
        let limit = query.limit.unwrap_or(100).min(PAGE_MAX);
        let catalogue = shared.appliance.catalogue();
        let complete = catalogue.refresh(REFRESH)?;
        // A run that is not closed yet is in no catalogue: it comes first, and moves the others by one.
        let open: Option<RunLine> = match shared.current() {
            Some(run)
                if catalogue
                    .find_of(&run.info.id, |proposal| proposal == run.info.proposal)?
                    .is_none() =>
            {
                let info = &run.info;
                let text = format!(
                    "{} {} {} {} {}",
                    info.id, info.sample, info.proposal, info.technique, info.title
                );
                Some(line(&run)).filter(|_| asked.fits_words(&text))
            }
            _ => None,
        };
        let moved = usize::from(open.is_some());
        let first: Vec<RunLine> = open.into_iter().skip(query.offset).take(limit).collect();
        let (found, total) = catalogue.search(&asked, limit - first.len(), query.offset.saturating_sub(moved))?;
        let total = total + moved;
        let runs = first.into_iter().chain(found.into_iter().map(stored_line)).collect();
        Ok(Json(RunList { runs, total, complete }))
    };
    tokio::task::spawn_blocking(answer).await.map_err(ApiError::internal)?
}

/// Arms a run and answers when its sources are ready; with `timeout_s` 202 where that takes longer.
#[utoipa::path(post, path = "/runs", params(PatienceQuery), request_body = RunRequest, responses(
    (status = 201, body = RunDetail), (status = 202, body = GoesOn), (status = 409, body = ApiError), (status = 422, body = ApiError), (status = 507, body = ApiError)))]
pub async fn arm(
    Asked(shared): Asked,
    Query(query): Query<PatienceQuery>,
    Body(mut request): Body<RunRequest>,
) -> Result<Told, ApiError> {
    let patience = query.patience()?;
    may_arm(&shared, &request)?;
    let proposal = request
        .proposal
        .as_ref()
        .unwrap_or(&shared.appliance.config().run.proposal);
    let proposal = proposal.clone();
    // What may be asked for before it is armed needs a name now.
    let name = patience.map(|_| {
        request
            .name
            .get_or_insert_with(|| run_name(jiff::Timestamp::now(), None))
            .clone()
    });
    let call = shared.arming(move |shared| shared.appliance.arm(&request).map_err(|error| shared.tell(error)));
    told_armed(&shared, call, patience, name.unwrap_or_default(), proposal).await
}

/// The answer to a call that arms a run.
pub(super) async fn told_armed(
    shared: &Shared,
    call: JoinHandle<Result<Arc<ActiveRun>, ApiError>>,
    patience: Option<Duration>,
    name: String,
    proposal: String,
) -> Result<Told, ApiError> {
    Ok(match lasting::within(call, patience).await? {
        Ok(active) => Told::Done(StatusCode::CREATED, detail(&active)),
        Err(call) => {
            let told = GoesOn::new(&name, "arming");
            shared.late.watch(name, proposal, call);
            Told::GoesOn(told)
        }
    })
}

/// Whether whoever asks may arm this. What a run is derived from is for the appliance to say: it opens what is named there.
fn may_arm(shared: &Shared, request: &RunRequest) -> Result<(), ApiError> {
    if let Some(key) = [DERIVED_FROM, RAW_FILE]
        .iter()
        .find(|key| request.metadata.contains_key(**key))
    {
        let message = format!("metadata.{key}: the appliance says this itself, of a run that is derived from another");
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "metadata", message));
    }
    let proposal = request.proposal.as_deref();
    let proposal = proposal.unwrap_or(&shared.appliance.config().run.proposal);
    if shared.scope.sees(proposal, request.name.as_deref().unwrap_or_default()) {
        return Ok(());
    }
    let message = format!(
        "proposal = {proposal:?}: this token is limited to {}; a run named there needs its name, too",
        shared.scope.entries().join(", ")
    );
    Err(ApiError::new(StatusCode::FORBIDDEN, "limited", message))
}

/// What is known of the run in memory.
pub fn detail(run: &ActiveRun) -> RunDetail {
    // First, since it changes last: who sees how a run ended finds its counts final, and may arm the next one.
    let state = run.state();
    let life = life(run, state);
    RunDetail {
        id: run.info.id.clone(),
        state: state.name().into(),
        store_state: life.state.name().into(),
        copy: life.destination.filter(|_| life.verified.is_some()),
        damaged: life.damaged,
        datasets: run.datasets.clone(),
        frames: serde_json::json!(run.counts.get()),
        outcomes: serde_json::json!(run.ledger.outcomes()),
        record: serde_json::json!({
            "technique": run.info.technique, "proposal": run.info.proposal, "sample": run.info.sample,
            "start_time": run.info.start_time.to_string(), "parameters": run.info.parameters,
            "metadata": run.info.metadata, "folder": run.folder.display().to_string(),
        }),
        summary: serde_json::json!(run.summary().filter(|_| state.ended())),
        warnings: run.warnings(),
    }
}

/// A run: in memory, or from its record in the store. With `timeout_s` the answer comes when it has ended, or 202 when that takes
/// longer; of a run that is still being armed, when it is armed.
#[utoipa::path(get, path = "/runs/{id}", params(PatienceQuery, ("id" = String, Path)), responses((status = 200, body = RunDetail),
    (status = 202, body = GoesOn), (status = 404, body = ApiError), (status = 422, body = ApiError), (status = 425, body = ApiError)))]
pub async fn show(
    Asked(shared): Asked,
    Path(id): Path<String>,
    Query(query): Query<PatienceQuery>,
    caller: Extension<Caller>,
) -> Result<Told, ApiError> {
    let patience = query.patience()?;
    let late = || shared.late.find(&id, |proposal| shared.scope.sees(proposal, &id));
    if let Some(patience) = patience.filter(|_| late().is_some()) {
        let armed = || !matches!(late(), Some(Arming::GoesOn));
        lasting::wait(&shared.access, &caller, patience, armed).await?;
    }
    let was_late = late();
    let run = active(&shared, &id);
    match (was_late, &run) {
        (Some(Arming::GoesOn), None) => {
            return match patience {
                Some(_) => Ok(Told::GoesOn(GoesOn::new(&id, "arming"))),
                None => Err(ApiError::not_yet(format!("run {id} is being armed"))),
            };
        }
        (Some(Arming::Failed(error)), None) if !is_stored(&shared, &id).await? => return Err(error),
        _ => {}
    }
    let Some(run) = run else {
        let detail = stored::with_record(&shared, &id, stored::detail).await?;
        return Ok(Told::Done(StatusCode::OK, detail));
    };
    match patience {
        Some(patience) => ended(&shared, &run, patience, &caller).await,
        None => Ok(Told::Done(StatusCode::OK, detail(&run))),
    }
}

/// Waits for the end of a run.
async fn ended(
    shared: &Shared,
    run: &Arc<ActiveRun>,
    patience: Duration,
    caller: &Extension<Caller>,
) -> Result<Told, ApiError> {
    match lasting::wait(&shared.access, caller, patience, || run.state().ended()).await? {
        true => Ok(Told::Done(StatusCode::OK, detail(run))),
        false => Ok(Told::GoesOn(GoesOn::new(&run.info.id, run.state().name()))),
    }
}

async fn running(shared: &Shared, id: &str) -> Result<Arc<ActiveRun>, ApiError> {
    let ended = |state: &str| {
        let mut error = ApiError::new(StatusCode::CONFLICT, "ended", format!("run {id} is {state}"));
        error.allowed_states = vec![RunState::Armed.name(), RunState::Recording.name()];
        error
    };
    match active(shared, id) {
        Some(run) if run.state().ended() => Err(ended(run.state().name())),
        Some(run) => Ok(run),
        None if is_stored(shared, id).await? => Err(ended("closed")),
        None => Err(ApiError::not_found(format!("there is no run {id}"))),
    }
}

/// Ends a run early; everything so far is kept. With `timeout_s` the answer comes when it has ended, or 202 when that takes longer.
#[utoipa::path(post, path = "/runs/{id}/stop", params(PatienceQuery, ("id" = String, Path)), responses((status = 200, body = RunDetail), (status = 202, body = GoesOn), (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn stop(
    Asked(shared): Asked,
    Path(id): Path<String>,
    Query(query): Query<PatienceQuery>,
    caller: Extension<Caller>,
) -> Result<Told, ApiError> {
    end_by(&shared, &id, &query, &caller, ActiveRun::stop).await
}

async fn end_by(
    shared: &Shared,
    id: &str,
    query: &PatienceQuery,
    caller: &Extension<Caller>,
    end: fn(&ActiveRun),
) -> Result<Told, ApiError> {
    let patience = query.patience()?;
    let run = running(shared, id).await?;
    end(&run);
    match patience {
        Some(patience) => ended(shared, &run, patience, caller).await,
        None => Ok(Told::Done(StatusCode::OK, detail(&run))),
    }
}

/// Ends a run now and marks it as aborted. `timeout_s` as for a stop.
#[utoipa::path(post, path = "/runs/{id}/abort", params(PatienceQuery, ("id" = String, Path)), responses((status = 200, body = RunDetail), (status = 202, body = GoesOn), (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn abort(
    Asked(shared): Asked,
    Path(id): Path<String>,
    Query(query): Query<PatienceQuery>,
    caller: Extension<Caller>,
) -> Result<Told, ApiError> {
    end_by(&shared, &id, &query, &caller, ActiveRun::abort).await
}

/// The ledger of a run, frame by frame.
#[utoipa::path(get, path = "/runs/{id}/ledger", params(LedgerQuery), responses((status = 200, body = LedgerPage), (status = 404, body = ApiError)))]
pub async fn ledger(
    Asked(shared): Asked,
    Path(id): Path<String>,
    Query(query): Query<LedgerQuery>,
) -> Result<Json<LedgerPage>, ApiError> {
    query.check()?;
    let Some(run) = active(&shared, &id) else {
        let page = stored::with(&shared, &id, move |run| stored::ledger(run, &query)).await?;
        return Ok(Json(page));
    };
    let limit = query.limit();
    let mut entries = Vec::new();
    let mut frame = query.first;
    while let Some(entry) = run.ledger.entry(frame).filter(|_| entries.len() < limit) {
        if query.takes(entry.state) {
            let metadata = run.metadata.of(frame);
            entries.push(LedgerLine { entry, metadata });
        }
        frame += 1;
    }
    Ok(Json(LedgerPage {
        frames: serde_json::json!(run.counts.get()),
        outcomes: serde_json::json!(run.ledger.outcomes()),
        entries,
        next: (frame < run.ledger.expected()).then_some(frame),
    }))
}

/// Where the crystals of a grid scan are: so far, or of a closed run.
#[utoipa::path(get, path = "/runs/{id}/grid", responses((status = 200, body = GridAnswer), (status = 404, body = ApiError)))]
pub async fn grid(Asked(shared): Asked, Path(id): Path<String>) -> Result<Json<GridAnswer>, ApiError> {
    let none = || ApiError::not_found("this run is no grid scan: its recipe has no \"grid\"");
    let Some(run) = active(&shared, &id) else {
        return Ok(Json(
            stored::with_record(&shared, &id, stored::grid)
                .await?
                .ok_or_else(none)?,
        ));
    };
    let look = move || match run.summary() {
        // Nothing is taken any more.
        Some(summary) => stored::grid_of(&summary.results),
        None => Ok(run.look_at_grid(false).map(|answer| (*answer).clone())),
    };
    let answer = tokio::task::spawn_blocking(look).await.map_err(ApiError::internal)??;
    Ok(Json(answer.ok_or_else(none)?))
}

/// The events of a run from its beginning, or from behind `Last-Event-ID`, as server-sent events; of a stored run those that
/// its record still tells.
#[utoipa::path(get, path = "/runs/{id}/events", responses((status = 200, body = Event, content_type = "text/event-stream"), (status = 404, body = ApiError)))]
pub async fn events(
    Asked(shared): Asked,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let derived = shared.derived().filter(|derived| derived.id() == id);
    let (past, coming) = match (active(&shared, &id), derived) {
        (Some(run), _) => {
            let (past, ended, receiver) = run.events.listen();
            (past, Some(receiver).filter(|_| !ended))
        }
        (None, Some(derived)) => {
            let (past, ended, receiver) = derived.events.listen();
            (past, Some(receiver).filter(|_| !ended))
        }
        (None, None) => (stored::with(&shared, &id, |run| Ok(stored::events(run))).await?, None),
    };
    let had = last_event(&headers);
    let new = move |event: &Event| had.is_none_or(|had| event.sequence > had);
    let past = tokio_stream::iter(past).filter(new);
    let coming = match coming {
        // A listener that falls behind loses events and sees it in their numbers.
        Some(receiver) => tokio_stream::wrappers::BroadcastStream::new(receiver)
            .filter_map(Result::ok)
            .boxed_stream(),
        None => tokio_stream::empty().boxed_stream(),
    };
    let mut over = false;
    let all = past.chain(coming).take_while(move |event| {
        let was_over = over;
        over |= event.event == "end";
        !was_over
    });
    let stream = all.map(|event| {
        let sse = SseEvent::default().id(event.sequence.to_string()).event(event.event);
        sse.json_data(&event).unwrap_or_default()
    });
    Ok(guarded(stream, shared.access.clone(), caller))
}

trait BoxedStream<T>: Stream<Item = T> + Send + Sized + 'static {
    fn boxed_stream(self) -> std::pin::Pin<Box<dyn Stream<Item = T> + Send>> {
        Box::pin(self)
    }
}

impl<T, S: Stream<Item = T> + Send + 'static> BoxedStream<T> for S {}
