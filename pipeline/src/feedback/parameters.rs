//! Parameters that may change while a run records, and stored runs again with other ones.

use super::error::ApiError;
use super::extract::Body;
use super::runs::{RunDetail, detail};
use super::server::Shared;
use crate::recipes::live::{LiveError, ParameterInfo, STATES};
use crate::reprocess::ReprocessRequest;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The parameters of the run in memory.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ParameterList {
    /// run; null where there is none
    pub run: Option<String>,
    /// how often one has changed; results carry it
    pub version: u32,
    /// those that may change while the run records
    pub parameters: Vec<ParameterInfo>,
}

/// A new value.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParameterValue {
    /// in the parameter's unit
    pub value: f64,
}

fn listed(shared: &Shared) -> ParameterList {
    let run = shared.appliance.current();
    ParameterList {
        run: run.as_ref().map(|run| run.info.id.clone()),
        version: run.as_ref().map_or(0, |run| run.live.version()),
        parameters: run.map(|run| run.live.describe()).unwrap_or_default(),
    }
}

/// What may change while the run in memory records: type, unit, limits, value, and the states in which it may.
#[utoipa::path(get, path = "/parameters", responses((status = 200, body = ParameterList)))]
pub async fn list(State(shared): State<Shared>) -> Json<ParameterList> {
    Json(listed(&shared))
}

/// Changes a parameter of the run that is armed or records; it holds from the next batch of frames on.
#[utoipa::path(put, path = "/parameters/{name}", request_body = ParameterValue, responses((status = 200, body = ParameterList),
    (status = 404, body = ApiError), (status = 409, body = ApiError), (status = 422, body = ApiError)))]
pub async fn change(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Body(body): Body<ParameterValue>,
) -> Result<Json<ParameterList>, ApiError> {
    let run = shared.appliance.current();
    let Some(run) = run.filter(|run| STATES.contains(&run.state().name())) else {
        let message = "no run is armed or records: give the value in the recipe, or reprocess a stored run with it";
        let mut error = ApiError::new(StatusCode::CONFLICT, "state", message);
        error.allowed_states = STATES.to_vec();
        return Err(error);
    };
    let version = run.live.set(&name, body.value).map_err(|error| match error {
        LiveError::Unknown { .. } => ApiError::not_found(error),
        LiveError::Value { .. } => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "value", error.to_string()),
    })?;
    let data = json!({ "name": name, "value": body.value, "version": version });
    run.events.add("parameter", data);
    Ok(Json(listed(&shared)))
}

/// A stored run again with other parameters, as a new run derived from it. No detector is needed.
#[utoipa::path(post, path = "/runs/{id}/reprocess", request_body = ReprocessRequest, responses((status = 201, body = RunDetail),
    (status = 409, body = ApiError), (status = 422, body = ApiError)))]
pub async fn reprocess(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Body(request): Body<ReprocessRequest>,
) -> Result<(StatusCode, Json<RunDetail>), ApiError> {
    let task = shared.clone();
    let active = tokio::task::spawn_blocking(move || {
        // Over the network a run is a name, not a path.
        if task.appliance.store().find(&id).map_err(ApiError::internal)?.is_none() {
            return Err(ApiError::not_found(format!("there is no closed run {id}")));
        }
        let run = task.appliance.reprocess(&id, &request)?;
        let active = run.active.clone();
        task.recorder.record(&task.appliance, run).map_err(ApiError::internal)?;
        Ok::<_, ApiError>(active)
    })
    .await
    .map_err(ApiError::internal)??;
    Ok((StatusCode::CREATED, Json(detail(&active))))
}
