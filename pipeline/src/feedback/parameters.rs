//! What can be set, described for programs; parameters that may change while a run records; and stored runs again with
//! other ones.

use super::error::ApiError;
use super::extract::{Body, Path, Query};
use super::lasting::{GoesOn, PatienceQuery, Told};
use super::named_files;
use super::runs::{self, RunDetail};
use super::server::{Asked, Shared};
use super::status::state_name;
use super::stored;
use crate::active_run::ActiveRun;
use crate::appliance::{Appliance, run_name};
use crate::recipes::live::{LiveError, ParameterInfo, STATES};
use crate::reprocess::ReprocessRequest;
use crate::storage::RunInfo;
use axum::Json;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// States of the appliance in which a run may be armed.
pub const ARMING_STATES: [&str; 2] = ["idle", "error"];
/// What names of runs and proposals look like.
const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

/// What can be set, and how.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ParameterList {
    /// run; null where there is none
    pub run: Option<String>,
    /// state of the appliance: idle, armed, recording, finishing or error
    pub state: &'static str,
    /// how often a parameter has changed; results carry it
    pub version: u32,
    /// those that may change while the run records
    pub parameters: Vec<ParameterInfo>,
    /// what the call that arms a run takes
    pub arming: Vec<ArmingParameter>,
}

/// A field of the call that arms a run.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ArmingParameter {
    /// name of the field
    pub name: &'static str,
    /// string, integer or map (of strings)
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// unit; empty for a pure number or a text
    pub unit: &'static str,
    /// smallest value of a number
    pub minimum: Option<u64>,
    /// largest value of a number; null where the source sets the limit
    pub maximum: Option<u64>,
    /// regular expression of a text; null where any text will do
    pub pattern: Option<&'static str>,
    /// the only values there are; null where there are others
    pub choices: Option<Vec<String>>,
    /// what it is where it is not given; null where the appliance makes one up or asks the source
    #[schema(value_type = Value)]
    pub default: Option<Value>,
    /// of the run in memory; null where there is none
    #[schema(value_type = Value)]
    pub value: Option<Value>,
    /// read_write: it can be set, and read
    pub access: &'static str,
    /// the call that sets it
    pub call: &'static str,
    /// states of the appliance in which that call is allowed
    pub states: [&'static str; 2],
    /// one line for people
    pub description: &'static str,
}

/// A new value.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParameterValue {
    /// in the parameter's unit
    pub value: f64,
}

fn listed(shared: &Shared) -> ParameterList {
    let run = shared.current();
    ParameterList {
        run: run.as_ref().map(|run| run.info.id.clone()),
        state: state_name(shared.appliance.current().as_deref()),
        version: run.as_ref().map_or(0, |run| run.live.version()),
        parameters: run.as_ref().map(|run| run.live.describe()).unwrap_or_default(),
        arming: arming(&shared.appliance, run.as_deref()),
    }
}

/// The fields of [`RunRequest`](crate::appliance::RunRequest), each with its value in the run in memory.
fn arming(appliance: &Appliance, run: Option<&ActiveRun>) -> Vec<ArmingParameter> {
    let text = |name, description, value: fn(&RunInfo) -> &str| ArmingParameter {
        name,
        kind: "string",
        unit: "",
        minimum: None,
        maximum: None,
        pattern: None,
        choices: None,
        default: None,
        value: run.map(|run| json!(value(&run.info))),
        access: "read_write",
        call: "POST /api/v1/runs",
        states: ARMING_STATES,
        description,
    };
    let recipes = &appliance.config().recipe;
    let mut techniques: Vec<String> = recipes.values().map(|recipe| recipe.technique.clone()).collect();
    techniques.sort();
    techniques.dedup();
    vec![
        ArmingParameter {
            pattern: Some(NAME_PATTERN),
            ..text("name", "name of the run; made from the time", |info| &info.id)
        },
        ArmingParameter {
            pattern: Some(NAME_PATTERN),
            default: Some(json!(appliance.config().run.proposal)),
            ..text("proposal", "proposal, a folder of the store", |info| &info.proposal)
        },
        ArmingParameter {
            default: Some(json!(appliance.config().run.sample)),
            ..text("sample", "name of the sample", |info| &info.sample)
        },
        ArmingParameter {
            choices: Some(recipes.keys().cloned().collect()),
            ..text("recipe", "recipe of the configuration", |info| {
                info.parameters["recipe"].as_str().unwrap_or_default()
            })
        },
        ArmingParameter {
            choices: Some(techniques),
            ..text(
                "technique",
                "chooses the one recipe that has it, or is checked against the recipe named",
                |info| &info.technique,
            )
        },
        ArmingParameter {
            kind: "integer",
            unit: "frame",
            minimum: Some(1),
            value: run.map(|run| json!(run.ledger.expected())),
            ..text("frames_expected", "number of frames; what the source announces", |_| "")
        },
        ArmingParameter {
            kind: "map",
            default: Some(json!({})),
            value: run.map(|run| json!(run.info.metadata)),
            ..text("metadata", "texts by name that belong into the run's record", |_| "")
        },
    ]
}

/// What can be set: what may change while the run in memory records, and what the call that arms a run takes. Each with its
/// type, unit, limits, access, value, the call that sets it, and the states in which that call is allowed.
#[utoipa::path(get, path = "/parameters", responses((status = 200, body = ParameterList)))]
pub async fn list(Asked(shared): Asked) -> Json<ParameterList> {
    Json(listed(&shared))
}

/// Changes a parameter of the run that is armed or records; it holds from the next batch of frames on.
#[utoipa::path(put, path = "/parameters/{name}", request_body = ParameterValue, responses((status = 200, body = ParameterList),
    (status = 404, body = ApiError), (status = 409, body = ApiError), (status = 422, body = ApiError)))]
pub async fn change(
    Asked(shared): Asked,
    Path(name): Path<String>,
    Body(body): Body<ParameterValue>,
) -> Result<Json<ParameterList>, ApiError> {
    let run = shared.current();
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

/// A stored run again with other parameters, as a new run derived from it. No detector is needed. `timeout_s` as for arming.
#[utoipa::path(post, path = "/runs/{id}/reprocess", params(PatienceQuery, ("id" = String, Path)), request_body = ReprocessRequest,
    responses((status = 201, body = RunDetail), (status = 202, body = GoesOn), (status = 404, body = ApiError),
    (status = 409, body = ApiError), (status = 422, body = ApiError)))]
pub async fn reprocess(
    Asked(shared): Asked,
    Path(id): Path<String>,
    Query(query): Query<PatienceQuery>,
    Body(mut request): Body<ReprocessRequest>,
) -> Result<Told, ApiError> {
    let patience = query.patience()?;
    let name = patience.map(|_| {
        request
            .name
            .get_or_insert_with(|| run_name(jiff::Timestamp::now(), None))
            .clone()
    });
    if shared
        .current()
        .is_some_and(|run| run.info.id == id && !run.state().ended())
    {
        let message = format!("run {id} is not closed yet: it can be reprocessed when its files are");
        let mut error = ApiError::new(StatusCode::CONFLICT, "state", message);
        error.allowed_states = ARMING_STATES.to_vec();
        return Err(error);
    }
    // Over the network a run is a name, not a path, and one that whoever asks may see.
    let stored = stored::with_record(&shared, &id, |run| {
        Ok((run.folder.clone(), run.record.proposal.clone()))
    });
    let (folder, proposal) = stored.await?;
    let call = shared.arming(move |shared| {
        named_files::check(shared, &request)?;
        let folder = folder.to_str().ok_or_else(|| ApiError::internal(folder.display()))?;
        shared
            .appliance
            .reprocess(folder, &request)
            .map_err(|error| shared.tell(error))
    });
    runs::told_armed(&shared, call, patience, name.unwrap_or_default(), proposal).await
}
