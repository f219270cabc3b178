//! The HTTP server: routes, their description, and where it listens.

use super::access::{self, Access, Caller, Scope, enter, roles};
use super::lasting::Late;
use super::listen::{self, Door, Tls};
use super::publish::Publisher;
use super::{
    calibrations, connections, decisions, delivery, extract, files, frames, guard, h5, idempotency, metadata, page,
    parameters, runs, spots, status, tokens,
};
use crate::active_run::{ActiveRun, Summary};
use crate::afterwards::Derived;
use crate::appliance::{Appliance, ApplianceError, RunRequest};
use crate::config::{Config, ConfigError};
use crate::feedback::error::ApiError;
use crate::run::Run;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Largest JSON body.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// What every route shares.
#[derive(Clone)]
pub struct Shared {
    /// the appliance
    pub appliance: Arc<Appliance>,
    /// rates for status
    pub rate: Arc<status::RateMeter>,
    /// the thread of the run that `POST /runs` or the command line armed
    pub recorder: Arc<Recorder>,
    /// the run that is armed though its client waits no longer
    pub late: Arc<Late>,
    /// the newest frame that somebody looked at
    pub newest: Arc<Mutex<Option<frames::Seen>>>,
    /// the newest hit that somebody looked at
    pub newest_hit: Arc<Mutex<Option<frames::Seen>>>,
    /// tokens in force, and what was changed by whom
    pub access: Arc<Access>,
    /// calls that must not be done twice
    pub keys: Arc<idempotency::Keys>,
    /// whose runs whoever asks may see
    pub scope: Scope,
    /// beats of the control plane, one a second while it lives
    pub beats: Arc<AtomicU64>,
}

/// What every route shares, as far as whoever asks may see it: what handlers take in the place of the plain state.
pub struct Asked(pub Shared);

impl FromRequestParts<Shared> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Infallible> {
        let mut shared = shared.clone();
        if let Some(caller) = parts.extensions.get::<Caller>() {
            shared.scope = caller.scope.clone();
        }
        Ok(Asked(shared))
    }
}

impl Shared {
    /// The run in memory, where whoever asks may see it.
    pub fn current(&self) -> Option<Arc<ActiveRun>> {
        let run = self.appliance.current()?;
        Some(run).filter(|run| self.scope.sees(&run.info.proposal, &run.info.id))
    }

    /// What is made of a closed run now, or was made last, where whoever asks may see it.
    pub fn derived(&self) -> Option<Arc<Derived>> {
        let derived = self.appliance.afterwards().derived()?;
        Some(derived).filter(|derived| self.scope.sees(derived.proposal(), derived.id()))
    }

    /// What whoever asks is told of an error: another's run has no name.
    pub fn tell(&self, error: ApplianceError) -> ApiError {
        let mut told = ApiError::from(error);
        if told.error == "busy" && self.scope.is_limited() && self.current().is_none() {
            told.message = "the appliance is in use: wait until it is idle".into();
        }
        told
    }

    /// Arms a run by `arm` and records it, on a thread that goes on when its client does not wait for it.
    pub fn arming(
        &self,
        arm: impl FnOnce(&Shared) -> Result<Run, ApiError> + Send + 'static,
    ) -> tokio::task::JoinHandle<Result<Arc<ActiveRun>, ApiError>> {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            let run = arm(&shared)?;
            let active = run.active.clone();
            shared
                .recorder
                .record(&shared.appliance, run)
                .map_err(ApiError::internal)?;
            Ok(active)
        })
    }

    /// Arms a run and records it beside the server.
    pub fn begin(&self, request: &RunRequest) -> Result<(), ApplianceError> {
        let run = self.appliance.arm(request)?;
        self.recorder
            .record(&self.appliance, run)
            .map_err(|error| ApplianceError::Start(error.to_string()))
    }
}

/// Keeps the thread that records the current run.
#[derive(Default)]
pub struct Recorder(Mutex<Option<JoinHandle<Summary>>>);

impl Recorder {
    /// Records an armed run on a thread of its own.
    pub fn record(&self, appliance: &Arc<Appliance>, run: Run) -> std::io::Result<()> {
        let appliance = appliance.clone();
        let thread = std::thread::Builder::new()
            .name("fluxline-run".into())
            .spawn(move || appliance.record(run))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Waits for the run that records now, if any.
    pub fn wait(&self) -> Option<Summary> {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.and_then(|thread| thread.join().ok())
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Fluxline",
    description = "Online analysis appliance for beamlines: runs, results, frames and slices while they are measured."
))]
struct Document;

fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Document::openapi()).nest(
        "/api/v1",
        OpenApiRouter::new()
            .routes(routes!(status::status))
            .routes(routes!(runs::list, runs::arm))
            .routes(routes!(runs::show))
            .routes(routes!(runs::stop))
            .routes(routes!(runs::abort))
            .routes(routes!(parameters::reprocess))
            .routes(routes!(parameters::list))
            .routes(routes!(parameters::change))
            .routes(routes!(runs::ledger))
            .routes(routes!(metadata::frame_metadata))
            .routes(routes!(decisions::decisions))
            .routes(routes!(decisions::acknowledge))
            .routes(routes!(decisions::rules))
            .routes(routes!(decisions::put_rule, decisions::delete_rule))
            .routes(routes!(runs::events))
            .routes(routes!(delivery::results))
            .routes(routes!(frames::frame))
            .routes(routes!(frames::mask))
            .routes(routes!(frames::profile))
            .routes(routes!(runs::grid))
            .routes(routes!(frames::slices))
            .routes(routes!(frames::slice))
            .routes(routes!(spots::spots))
            .routes(routes!(files::file))
            .routes(routes!(h5::meta))
            .routes(routes!(h5::attr))
            .routes(routes!(h5::data))
            .routes(routes!(h5::paths))
            .routes(routes!(calibrations::list))
            .routes(routes!(calibrations::add))
            .routes(routes!(tokens::session))
            .routes(routes!(tokens::list, tokens::create))
            .routes(routes!(tokens::revoke))
            .routes(routes!(metrics))
            .routes(routes!(healthz)),
    )
}

/// `openapi.json`, generated from the routes.
pub fn openapi() -> String {
    let mut document = serde_json::to_value(routes().into_openapi()).unwrap_or_default();
    roles::describe(&mut document);
    idempotency::describe(&mut document);
    extract::describe(&mut document);
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// Metrics as Prometheus scrapes them.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics(State(shared): State<Shared>) -> Result<impl IntoResponse, ApiError> {
    let text = shared.appliance.metrics().text().map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

/// Answers as long as the control plane lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String, content_type = "text/plain")))]
async fn healthz() -> &'static str {
    "ok\n"
}

async fn document() -> impl IntoResponse {
    // Made once: it is for everybody, and making it takes milliseconds of a processor.
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| openapi().into());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone())
}

/// Everything that is served.
pub fn router(shared: Shared) -> Router {
    let (api, _) = routes().split_for_parts();
    api.route("/api/v1/openapi.json", get(document))
        .route("/openapi.json", get(document))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .fallback(page::serve)
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "this address does not take this method: see /openapi.json",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), idempotency::once))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), enter::enter))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), guard::same_site))
        .with_state(shared)
}

/// Who may ask, under which certificate, and where results are published: known before anything is started.
pub struct Guarded {
    /// tokens
    pub access: Access,
    tls: Option<Tls>,
    publisher: Option<Publisher>,
}

impl Guarded {
    /// Reads tokens and certificate. Refused where others than this machine could ask without a token.
    pub fn open(config: &Config) -> Result<Guarded, ConfigError> {
        let tls = config.feedback.tls.as_ref().map(|tls| Tls::load(config, tls));
        Ok(Guarded {
            access: Access::open(config)?,
            tls: tls.transpose()?,
            publisher: config.feedback.zmq.as_ref().map(Publisher::bind).transpose()?,
        })
    }
}

/// A server that listens.
pub struct Server {
    /// the address taken
    pub address: SocketAddr,
    /// what the routes share
    pub shared: Shared,
    scheme: &'static str,
    // Held: dropping it ends the control plane.
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    /// Where it listens.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Listens and serves on a runtime of its own.
    pub fn start(appliance: Arc<Appliance>, guarded: Guarded) -> Result<Server, String> {
        let listen = appliance.config().feedback.listen.clone();
        let most = appliance.config().feedback.limits.connections;
        if let Some(files) = connections::make_room_for_files(most) {
            tracing::warn!(target: "fluxline", "{files} files may be open, which {most} connections (feedback.limits.connections) and \
                the runs may use up: allow more (ulimit -Hn), or fewer connections");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fluxline-http")
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start the control plane: {error}"))?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(&listen))
            .map_err(|error| {
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    format!(
                        "feedback.listen = {listen:?}: another program listens there already; \
                     stop it, choose another port, or 0 for a free one"
                    )
                } else {
                    format!("feedback.listen = {listen:?}: cannot listen there: {error}")
                }
            })?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let keys = idempotency::Keys::open(&access::calls_path(appliance.config()), Instant::now());
        let shared = Shared {
            appliance,
            rate: Arc::default(),
            recorder: Arc::default(),
            late: Arc::default(),
            newest: Arc::default(),
            newest_hit: Arc::default(),
            access: Arc::new(guarded.access),
            keys: Arc::new(keys),
            scope: Scope::default(),
            beats: Arc::default(),
        };
        let tls = guarded.tls.map(Arc::new);
        let door = Door {
            router: router(shared.clone()),
            limits: shared.appliance.config().feedback.limits.clone(),
            tls: tls.clone(),
            refused: shared
                .appliance
                .metrics()
                .http_refused
                .with_label_values(&["connections"]),
        };
        runtime.spawn(door.serve(listener));
        if let Some(publisher) = guarded.publisher {
            runtime.spawn(publisher.serve(shared.appliance.clone()));
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        runtime.spawn(listen::watch(shared.access.clone(), tls));
        let access = shared.access.clone();
        runtime.spawn(async move { access.keep_fetching().await });
        let beats = shared.beats.clone();
        runtime.spawn(async move {
            loop {
                beats.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        Ok(Server {
            address,
            shared,
            scheme,
            _runtime: runtime,
        })
    }
}
