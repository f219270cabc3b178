//! One shape for every error of the HTTP interface.

use super::parameters::ARMING_STATES;
use crate::appliance::ApplianceError;
use crate::calibrations::CalibrationError;
use crate::keep::KeepError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// `{"error": code, "message": text, "allowed_states": [...]}`
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ApiError {
    /// HTTP status, not part of the body
    #[serde(skip)]
    #[schema(ignore)]
    pub status: u16,
    /// short name for programs
    pub error: &'static str,
    /// sentence for people
    pub message: String,
    /// states in which the call is allowed; empty where the state is not the reason
    pub allowed_states: Vec<&'static str>,
}

impl ApiError {
    /// An error with this status, name and sentence.
    pub fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            error,
            message: message.into(),
            allowed_states: Vec::new(),
        }
    }

    /// There is no such thing, and there never will be.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("{what}"))
    }

    /// It does not exist yet; asking again later helps.
    pub fn not_yet(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_EARLY, "not_yet", message)
    }

    /// The request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// Something here failed.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

impl From<KeepError> for ApiError {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Query { .. } => Self::bad_request(error.to_string()),
            other => Self::internal(other),
        }
    }
}

impl From<ApplianceError> for ApiError {
    fn from(error: ApplianceError) -> Self {
        let message = error.to_string();
        match error {
            ApplianceError::Busy { .. } => {
                let mut error = Self::new(StatusCode::CONFLICT, "busy", message);
                error.allowed_states = ARMING_STATES.to_vec();
                error
            }
            ApplianceError::StoreFull { .. } | ApplianceError::StoreRefuses { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "store_full", message)
            }
            ApplianceError::Taking => {
                let mut error = Self::new(StatusCode::CONFLICT, "busy", message);
                error.allowed_states = ARMING_STATES.to_vec();
                error
            }
            ApplianceError::Calibration(error) => error.into(),
            ApplianceError::Config(_) | ApplianceError::Recipe(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration", message)
            }
            ApplianceError::Source(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "source", message),
            ApplianceError::Store(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "store", message),
            ApplianceError::Keep(_)
            | ApplianceError::Accelerator(_)
            | ApplianceError::Memory(_)
            | ApplianceError::Ring(_)
            | ApplianceError::Start(_) => Self::internal(message),
        }
    }
}

impl From<CalibrationError> for ApiError {
    fn from(error: CalibrationError) -> Self {
        let message = error.to_string();
        match error {
            CalibrationError::Bad(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "calibration", message),
            CalibrationError::Busy(_) => Self::new(StatusCode::CONFLICT, "busy", message),
            CalibrationError::Io { .. } => Self::internal(message),
        }
    }
}
