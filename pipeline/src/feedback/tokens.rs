//! Tokens over HTTP, for administrators, and who one is.

use super::access::tokens::{self, Token, TokenError};
use super::access::{Caller, Role};
use super::error::ApiError;
use super::extract::{Body, Path};
use super::server::Asked;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let message = error.to_string();
        match error {
            TokenError::Request(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "token", message),
            TokenError::Taken(_) => Self::new(StatusCode::CONFLICT, "taken", message),
            TokenError::Unknown(_) => Self::not_found(message),
            TokenError::Io { .. } | TokenError::Content(_) => Self::internal(message),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Session {
    /// whether no tokens are in use
    pub open: bool,
    /// name of the token; `open` where none are in use
    pub name: String,
    /// viewer, operator or admin
    pub role: Role,
    /// proposals (`PROPOSAL`) and runs (`PROPOSAL/RUN`) that it is limited to; none is every run
    pub only: Vec<String>,
}

/// A token that there is.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct TokenLine {
    /// name
    pub name: String,
    /// viewer, operator or admin
    pub role: Role,
    /// proposals (`PROPOSAL`) and runs (`PROPOSAL/RUN`) that it is limited to; none is every run
    pub only: Vec<String>,
    /// UTC time when it was made
    pub created: String,
    /// UTC time when it ends; null where it does not
    pub expires: Option<String>,
}

impl From<&Token> for TokenLine {
    fn from(token: &Token) -> Self {
        Self {
            name: token.name.clone(),
            role: token.role,
            only: token.only.clone(),
            created: token.created.to_string(),
            expires: token.expires.map(|end| end.to_string()),
        }
    }
}

/// The tokens there are.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct TokenList {
    /// oldest first; those that have ended, too
    pub tokens: Vec<TokenLine>,
}

/// What a token is for.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// whose it is: letters, digits, `.`, `_`, `-`
    pub name: String,
    /// viewer, operator or admin
    pub role: Role,
    /// days after which it ends, 1 to 3650; it does not unless given
    pub days: Option<u32>,
    /// proposals (`PROPOSAL`) and runs (`PROPOSAL/RUN`) that it is limited to; every run unless given. Not of an admin
    #[serde(default)]
    pub only: Vec<String>,
}

/// A new token.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct TokenMade {
    /// the token; it is not kept and cannot be shown again
    pub token: String,
    /// its record
    #[serde(flatten)]
    pub line: TokenLine,
}

/// Who asks, and what they may do.
#[utoipa::path(get, path = "/session", responses((status = 200, body = Session)))]
pub async fn session(Asked(shared): Asked, Extension(caller): Extension<Caller>) -> Json<Session> {
    Json(Session {
        open: shared.access.is_open(),
        name: caller.name.to_string(),
        role: caller.role,
        only: caller.scope.entries().to_vec(),
    })
}

/// The tokens there are, without anything that one could log in with.
#[utoipa::path(get, path = "/tokens", responses((status = 200, body = TokenList)))]
pub async fn list(Asked(shared): Asked) -> Result<Json<TokenList>, ApiError> {
    let path = shared.access.path().to_path_buf();
    let read = blocking(move || tokens::read(&path)).await?;
    Ok(Json(TokenList {
        tokens: read.iter().map(TokenLine::from).collect(),
    }))
}

/// Makes a token. The answer shows it, once.
#[utoipa::path(post, path = "/tokens", request_body = TokenRequest, responses((status = 201, body = TokenMade),
    (status = 409, body = ApiError), (status = 422, body = ApiError)))]
pub async fn create(Asked(shared): Asked, Body(request): Body<TokenRequest>) -> Result<impl IntoResponse, ApiError> {
    let path = shared.access.path().to_path_buf();
    let make = move || tokens::create(&path, &request.name, request.role, request.days, &request.only);
    let (token, record) = blocking(make).await?;
    shared.access.refresh();
    let line = TokenLine::from(&record);
    let made = Json(TokenMade { token, line });
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], made))
}

/// Takes a token out of force, and ends what was going on with it.
#[utoipa::path(delete, path = "/tokens/{name}", responses((status = 200, body = TokenList), (status = 404, body = ApiError)))]
pub async fn revoke(Asked(shared): Asked, Path(name): Path<String>) -> Result<Json<TokenList>, ApiError> {
    let path = shared.access.path().to_path_buf();
    blocking(move || tokens::revoke(&path, &name)).await?;
    shared.access.refresh();
    list(Asked(shared)).await
}

async fn blocking<T: Send + 'static>(
    body: impl FnOnce() -> Result<T, TokenError> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(tokio::task::spawn_blocking(body).await.map_err(ApiError::internal)??)
}
