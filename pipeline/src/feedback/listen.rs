//! Connections of the HTTP interface: TLS, limits, and one task each.

use super::access::Access;
use super::connections::{Connections, Place};
use super::paced::{Paced, PacedBody};
use crate::config::{Config, ConfigError, LimitsConfig, TlsConfig};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::IntCounter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Time between two looks whether the certificate has changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken, as when the process has no more files to open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request comes from.
#[derive(Clone)]
pub struct Peer {
    /// address and port
    pub address: SocketAddr,
    place: Arc<Place>,
}

impl Peer {
    /// Somebody who may has asked over this connection.
    pub fn trust(&self) {
        self.place.trust();
    }
}

/// Certificate and key, taken over again when they change.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    seen: RwLock<Option<[SystemTime; 2]>>,
    server: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificate and key.
    pub fn load(config: &Config, tls: &TlsConfig) -> Result<Tls, ConfigError> {
        let (certificate, key) = (config.resolve(&tls.certificate), config.resolve(&tls.key));
        let seen = changed(&certificate, &key);
        let server = read(&certificate, &key)?;
        Ok(Tls {
            certificate,
            key,
            seen: RwLock::new(seen),
            server: RwLock::new(Arc::new(server)),
        })
    }

    fn acceptor(&self) -> TlsAcceptor {
        let server = self.server.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(server.clone())
    }

    fn refresh(&self) {
        let now = changed(&self.certificate, &self.key);
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if now == *seen {
            return;
        }
        *seen = now;
        match read(&self.certificate, &self.key) {
            Ok(server) => {
                *self.server.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(server);
                tracing::info!(target: "fluxline", "a new certificate is in use");
            }
            // Half of a new pair, perhaps: the old one goes on until the other half is there.
            Err(error) => tracing::error!(target: "fluxline", "{error}; the one before stays in use"),
        }
    }
}

fn changed(certificate: &Path, key: &Path) -> Option<[SystemTime; 2]> {
    let time = |path: &Path| std::fs::metadata(path).and_then(|facts| facts.modified()).ok();
    Some([time(certificate)?, time(key)?])
}

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, ConfigError> {
    let wrong = |name: &str, path: &Path, error: String| {
        ConfigError::value(format!("feedback.tls.{name}"), path.display(), error)
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong("certificate", certificate, format!("no PEM certificate: {error}")))?;
    if chain.is_empty() {
        return Err(wrong("certificate", certificate, "it has no PEM certificate".into()));
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("key", key, format!("no PEM private key: {error}")))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("certificate", certificate, error.to_string()))?
        .with_no_client_auth();
    let mut server = builder
        .with_single_cert(chain, secret)
        .map_err(|error| wrong("key", key, format!("it does not fit the certificate: {error}")))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

/// What listens.
pub struct Door {
    /// routes
    pub router: Router,
    /// limits
    pub limits: LimitsConfig,
    /// certificate and key, where there are
    pub tls: Option<Arc<Tls>>,
    /// connections that were refused
    pub refused: IntCounter,
}

impl Door {
    /// Takes connections for as long as the process lives.
    pub async fn serve(self, listener: TcpListener) {
        let limits = &self.limits;
        let connections = Connections::new(limits.connections, limits.connections_per_client);
        let door = Arc::new(self);
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(target: "fluxline", "a connection could not be taken: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = connections.admit(address.ip()) else {
                door.refused.inc();
                continue;
            };
            let (door, leave) = (door.clone(), place.leave());
            tokio::spawn(async move {
                tokio::select! {
                    () = leave.notified() => door.refused.inc(),
                    () = door.connection(stream, address, place) => {}
                }
            });
        }
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr, place: Place) {
        // Small answers at once; a socket that cannot be told so works all the same.
        let _ = stream.set_nodelay(true);
        let peer = Peer {
            address,
            place: Arc::new(place),
        };
        let patience = Duration::from_secs_f64(self.limits.write_timeout_s);
        let stream = Paced::new(stream, patience, peer.place.clone());
        match self.tls.as_ref().map(|tls| tls.acceptor()) {
            None => self.speak(stream, peer).await,
            Some(acceptor) => {
                let agreed = tokio::time::timeout(self.header_timeout(), acceptor.accept(stream)).await;
                if let Ok(Ok(stream)) = agreed {
                    self.speak(stream, peer).await;
                }
            }
        }
    }

    fn header_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.limits.header_timeout_s)
    }

    async fn speak(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
        let router = TowerToHyperService::new(self.router.clone());
        let rate = self.limits.body_bytes_per_s;
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.call(request.map(|body| Body::new(PacedBody::new(body, rate))))
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout())
            .max_buf_size(self.limits.header_bytes)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(target: "fluxline", "a connection ended: {error}");
        }
    }
}

/// Looks whether tokens and certificate have changed, for as long as the process lives.
pub async fn watch(access: Arc<Access>, tls: Option<Arc<Tls>>) {
    let mut look = tokio::time::interval(super::access::LOOK);
    let mut next_certificate = tokio::time::Instant::now() + CERTIFICATE_LOOK;
    loop {
        let now = look.tick().await;
        access.refresh();
        if let Some(tls) = tls.as_ref().filter(|_| now >= next_certificate) {
            tls.refresh();
            next_certificate = now + CERTIFICATE_LOOK;
        }
    }
}
