//! Calls that may last: `?timeout_s=` says how long a client waits. A call that is not done by then is answered 202 and goes
//! on; where it goes on is in the answer.

use super::access::{Access, Caller};
use super::error::ApiError;
use super::runs::RunDetail;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Longest wait, seconds.
const LONGEST_S: f64 = 600.0;
/// Time between two looks at a run that somebody waits for.
const LOOK: Duration = Duration::from_millis(10);

/// How long a client waits.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct PatienceQuery {
    /// seconds that the answer may take, 0 to 600. Without it, arming takes as long as it takes, and ending and looking wait
    /// for nothing.
    timeout_s: Option<f64>,
}

/// A call that goes on.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct GoesOn {
    /// run
    pub id: String,
    /// arming, armed, recording or finishing
    pub state: &'static str,
    /// how to go on
    pub message: String,
    /// the address that answers when it is done
    pub next: String,
}

impl PatienceQuery {
    /// How long the client waits; none where it did not say.
    pub fn patience(&self) -> Result<Option<Duration>, ApiError> {
        match self.timeout_s {
            None => Ok(None),
            Some(seconds) if (0.0..=LONGEST_S).contains(&seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
            Some(seconds) => {
                let message = format!("timeout_s = {seconds}: expected 0 to {LONGEST_S} seconds");
                Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "timeout_s", message))
            }
        }
    }
}

impl GoesOn {
    /// Of a run in this state.
    pub fn new(id: &str, state: &'static str) -> GoesOn {
        let next = format!("/api/v1/runs/{id}");
        let until = if state == "arming" { "armed" } else { "ended" };
        let message = format!(
            "run {id} is {state} and goes on: GET {next}?timeout_s=60 waits until it is {until}, and answers 202 again if that \
             takes longer"
        );
        GoesOn {
            id: id.into(),
            state,
            message,
            next,
        }
    }
}

impl IntoResponse for GoesOn {
    fn into_response(self) -> Response {
        let next = HeaderValue::from_str(&self.next);
        let mut response = (StatusCode::ACCEPTED, Json(self)).into_response();
        // Names of runs are plain, so there always is one.
        if let Ok(next) = next {
            response.headers_mut().insert(header::LOCATION, next);
        }
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
        response
    }
}

/// Waits until something is so, as long as the client waits and may ask; whether it is.
pub async fn wait(
    access: &Arc<Access>,
    Extension(caller): &Extension<Caller>,
    patience: Duration,
    done: impl Fn() -> bool,
) -> Result<bool, ApiError> {
    let end = Instant::now() + patience;
    let look = async {
        while !done() && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
        done()
    };
    tokio::select! {
        done = look => Ok(done),
        () = access.revoked(caller) => Err(ApiError::new(StatusCode::UNAUTHORIZED, "token", "the token holds no longer")),
    }
}

/// A run that was being armed when its client had waited long enough.
#[derive(Default)]
pub struct Late(Mutex<Option<LateRun>>);

struct LateRun {
    id: String,
    proposal: String,
    /// that it was not armed; none while it is being armed
    failed: Option<ApiError>,
}

/// How far a run is that is armed late.
pub enum Arming {
    /// it is being armed
    GoesOn,
    /// it was not armed
    Failed(ApiError),
}

impl Late {
    fn run(&self) -> MutexGuard<'_, Option<LateRun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a run of this name, of a proposal that `sees` names; none where it was armed, or asked for by nobody.
    pub fn find(&self, id: &str, sees: impl Fn(&str) -> bool) -> Option<Arming> {
        let run = self.run();
        let run = run.as_ref().filter(|run| run.id == id && sees(&run.proposal))?;
        Some(match &run.failed {
            None => Arming::GoesOn,
            Some(error) => Arming::Failed(error.clone()),
        })
    }

    /// Keeps an eye on a call that goes on without its client: what comes of it is told to whoever asks for its run.
    pub fn watch<T: Send + 'static>(
        self: &Arc<Self>,
        id: String,
        proposal: String,
        call: JoinHandle<Result<T, ApiError>>,
    ) {
        *self.run() = Some(LateRun {
            id: id.clone(),
            proposal,
            failed: None,
        });
        let late = self.clone();
        tokio::spawn(async move {
            let ended = call.await.map_err(ApiError::internal).and_then(|ended| ended.map(drop));
            let mut run = late.run();
            // Another one may have been armed late since.
            let Some(run_then) = run.as_mut().filter(|run| run.id == id) else {
                return;
            };
            match ended {
                Ok(()) => *run = None,
                Err(error) => run_then.failed = Some(error),
            }
        });
    }
}

/// Waits for a call as long as the client does.
///
/// # Errors
/// The call's own, or the call itself where it goes on.
pub async fn within<T: Send + 'static>(
    mut call: JoinHandle<Result<T, ApiError>>,
    patience: Option<Duration>,
) -> Result<Result<T, JoinHandle<Result<T, ApiError>>>, ApiError> {
    let ended = match patience {
        None => call.await,
        Some(patience) => match tokio::time::timeout(patience, &mut call).await {
            Ok(ended) => ended,
            Err(_) => return Ok(Err(call)),
        },
    };
    ended.map_err(ApiError::internal)?.map(Ok)
}

/// A run's answer, or that it goes on.
#[allow(clippy::large_enum_variant, reason = "made once per call")]
pub enum Told {
    /// done, with this status
    Done(StatusCode, RunDetail),
    /// not done yet
    GoesOn(GoesOn),
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        match self {
            Told::Done(status, detail) => (status, Json(detail)).into_response(),
            Told::GoesOn(goes_on) => goes_on.into_response(),
        }
    }
}
