//! Rules and decisions over HTTP.

use super::error::ApiError;
use super::extract::{Body, Path};
use super::runs::active;
use super::server::Asked;
use super::stored;
use crate::acknowledgements;
use crate::decisions::{Decision, RuleConfig, RuleError};
use axum::Json;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

impl From<RuleError> for ApiError {
    fn from(error: RuleError) -> Self {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "rule", error.to_string())
    }
}

/// The rules in force.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RuleList {
    /// by name
    pub rules: BTreeMap<String, RuleConfig>,
}

/// What a run has decided.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct DecisionList {
    /// the first ones, in order
    pub decisions: Vec<Decision>,
    /// how many more there were
    pub not_kept: u64,
}

/// Who takes note of a decision.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeRequest {
    /// name of the program or person, 1 to 64 characters
    pub by: String,
}

/// The rules in force.
#[utoipa::path(get, path = "/rules", responses((status = 200, body = RuleList)))]
pub async fn rules(Asked(shared): Asked) -> Json<RuleList> {
    let rules = shared.appliance.rules().list();
    let named = rules.iter().map(|rule| (rule.name.clone(), rule.config.clone()));
    Json(RuleList { rules: named.collect() })
}

/// Puts a rule in force, in place of the one that had this name, also while a run records.
#[utoipa::path(put, path = "/rules/{name}", request_body = RuleConfig, responses((status = 200, body = RuleList), (status = 422, body = ApiError)))]
pub async fn put_rule(
    Asked(shared): Asked,
    Path(name): Path<String>,
    Body(config): Body<RuleConfig>,
) -> Result<Json<RuleList>, ApiError> {
    let run = shared.current();
    let names = run.as_ref().map(|run| run.decisions.names());
    shared.appliance.rules().put(&name, &config, names)?;
    Ok(rules(Asked(shared)).await)
}

/// Takes a rule out of force.
#[utoipa::path(delete, path = "/rules/{name}", responses((status = 200, body = RuleList), (status = 404, body = ApiError)))]
pub async fn delete_rule(Asked(shared): Asked, Path(name): Path<String>) -> Result<Json<RuleList>, ApiError> {
    match shared.appliance.rules().remove(&name) {
        true => Ok(rules(Asked(shared)).await),
        false => Err(ApiError::not_found(format!("there is no rule {name}"))),
    }
}

/// What the rules have decided in a run.
#[utoipa::path(get, path = "/runs/{id}/decisions", responses((status = 200, body = DecisionList), (status = 404, body = ApiError)))]
pub async fn decisions(Asked(shared): Asked, Path(id): Path<String>) -> Result<Json<DecisionList>, ApiError> {
    let (decisions, not_kept) = match active(&shared, &id) {
        Some(run) => run.decisions.list(),
        None => stored::with(&shared, &id, stored::decisions).await?,
    };
    Ok(Json(DecisionList { decisions, not_kept }))
}

/// Takes note of a decision. The first one who does so is kept with the run, also when it has ended.
#[utoipa::path(post, path = "/runs/{id}/decisions/{sequence}/acknowledge",
    params(("id" = String, Path), ("sequence" = u64, Path)), request_body = AcknowledgeRequest,
    responses((status = 200, body = Decision), (status = 404, body = ApiError), (status = 422, body = ApiError)))]
pub async fn acknowledge(
    Asked(shared): Asked,
    Path((id, sequence)): Path<(String, String)>,
    Body(request): Body<AcknowledgeRequest>,
) -> Result<Json<Decision>, ApiError> {
    let sequence: u64 = sequence
        .parse()
        .map_err(|_| ApiError::bad_request(format!("decision {sequence:?}: its sequence number")))?;
    let by = request.by.trim();
    if by.is_empty() || by.chars().count() > 64 || by.chars().any(char::is_control) {
        let message = format!("by = {:?}: a name of 1 to 64 characters", request.by);
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "by", message));
    }
    let by = by.to_string();
    let decision = match active(&shared, &id) {
        Some(run) => {
            let noted = run.decisions.acknowledge(sequence, &by);
            // Where its record is made, nobody else keeps it there any more.
            if let Some((decision, true)) = noted.clone().filter(|_| run.state().ended()) {
                let keep = move || acknowledgements::keep(&run.folder, &decision);
                tokio::task::spawn_blocking(keep).await.map_err(ApiError::internal)??;
            }
            noted.map(|(decision, _)| decision)
        }
        None => stored::with(&shared, &id, move |run| stored::acknowledge(run, sequence, &by)).await?,
    };
    let decision = decision.ok_or_else(|| ApiError::not_found(format!("run {id} has no decision {sequence}")))?;
    Ok(Json(decision))
}
