//! `[feedback]`: where the HTTP interface listens, who may ask, and how much.

use super::oidc::{self, OidcConfig};
use super::{ConfigError, within};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// `[feedback]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeedbackConfig {
    /// Address and port of the HTTP interface and the page. Port 0 takes a free one. Without tokens only a loopback address
    /// is taken: `fluxline token create NAME --role admin` makes the first one.
    pub listen: String,
    /// File of tokens; `.fluxline/tokens.json` in the store unless given. It has their hashes only.
    pub tokens: Option<PathBuf>,
    /// Answer `/metrics` without a token also where tokens are in use.
    pub metrics_without_token: bool,
    /// Results kept for consumers that fall behind (16 to 65536).
    pub results_kept: usize,
    /// Certificate and key, for `https` in place of `http`.
    pub tls: Option<TlsConfig>,
    /// Tokens of an identity provider, beside the appliance's own.
    pub oidc: Option<OidcConfig>,
    /// Results by ZeroMQ PUB, too.
    pub zmq: Option<ZmqConfig>,
    /// What clients may take.
    pub limits: LimitsConfig,
}

impl Default for FeedbackConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            tokens: None,
            metrics_without_token: false,
            results_kept: 1024,
            tls: None,
            oidc: None,
            zmq: None,
            limits: LimitsConfig::default(),
        }
    }
}

impl FeedbackConfig {
    /// Whether only this machine reaches the address.
    pub fn is_loopback(&self) -> bool {
        let address = self.listen.parse::<SocketAddr>();
        address.is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }
}

/// `[feedback.tls]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate and those that it was signed by. A new one is taken over within 10 s.
    pub certificate: PathBuf,
    /// PEM file with the key.
    pub key: PathBuf,
}

/// `[feedback.zmq]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZmqConfig {
    /// Address that is bound, `tcp://127.0.0.1:5560` or `ipc://PATH`. Whoever reaches it gets every run's results without a token.
    pub publish: String,
    /// `latest` (the newest result whenever the one before was sent) or `sampled` (the newest one at a rate).
    #[serde(default = "latest")]
    pub policy: String,
    /// Most results per second of `sampled` (0.01 to 1000).
    #[serde(default = "ten")]
    pub max_rate_hz: f64,
    /// Whether they carry curves, not only scalars.
    #[serde(default)]
    pub curves: bool,
}

fn latest() -> String {
    "latest".into()
}

fn ten() -> f64 {
    10.0
}

/// `[feedback.limits]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at once (16 to 65536). When there are as many, a new one takes the place of the oldest that has not
    /// shown a token that holds; where all have, it is refused.
    pub connections: usize,
    /// Connections of one client at once (4 to 65536), in the same way. An IPv6 client is its network.
    pub connections_per_client: usize,
    /// Requests of one client per second (1 to 1000000), and twice as many at once; then 429.
    pub requests_per_s: f64,
    /// Time in which the header of a request must have come, a TLS connection be agreed, and the next request of a
    /// connection begin (0.1 to 300).
    pub header_timeout_s: f64,
    /// Bytes of a request's header (8192 to 1048576); then 431.
    pub header_bytes: usize,
    /// Bytes per second that a body must come with, after 5 s that it may take anyhow (1 to 1000000000).
    pub body_bytes_per_s: f64,
    /// Time that a client may take nothing of an answer (0.1 to 3600).
    pub write_timeout_s: f64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_client: 512,
            requests_per_s: 5000.0,
            header_timeout_s: 5.0,
            header_bytes: 16 << 10,
            body_bytes_per_s: 1024.0,
            write_timeout_s: 30.0,
        }
    }
}

/// Checks `[feedback]`.
pub(super) fn check(feedback: &FeedbackConfig) -> Result<(), ConfigError> {
    within("feedback.results_kept", feedback.results_kept, 16, 65536)?;
    let limits = &feedback.limits;
    within("feedback.limits.connections", limits.connections, 16, 65536)?;
    within(
        "feedback.limits.connections_per_client",
        limits.connections_per_client,
        4,
        65536,
    )?;
    within("feedback.limits.requests_per_s", limits.requests_per_s, 1.0, 1e6)?;
    within("feedback.limits.header_timeout_s", limits.header_timeout_s, 0.1, 300.0)?;
    within("feedback.limits.header_bytes", limits.header_bytes, 8192, 1 << 20)?;
    within("feedback.limits.body_bytes_per_s", limits.body_bytes_per_s, 1.0, 1e9)?;
    within("feedback.limits.write_timeout_s", limits.write_timeout_s, 0.1, 3600.0)?;
    if let Some(oidc) = &feedback.oidc {
        oidc::check(oidc)?;
    }
    if let Some(zmq) = &feedback.zmq {
        within("feedback.zmq.max_rate_hz", zmq.max_rate_hz, 0.01, 1000.0)?;
        if !["tcp://", "ipc://"]
            .iter()
            .any(|scheme| zmq.publish.starts_with(scheme))
        {
            let expected =
                "an address to bind, for example \"tcp://127.0.0.1:5560\" or \"ipc:///run/fluxline/results\"";
            return Err(ConfigError::value(
                "feedback.zmq.publish",
                format!("{:?}", zmq.publish),
                expected,
            ));
        }
        if !["latest", "sampled"].contains(&zmq.policy.as_str()) {
            let expected = "latest or sampled; nothing that is published waits for a subscriber";
            return Err(ConfigError::value(
                "feedback.zmq.policy",
                format!("{:?}", zmq.policy),
                expected,
            ));
        }
    }
    if feedback.listen.parse::<SocketAddr>().is_err() {
        let expected = "an address and a port, for example \"127.0.0.1:8080\"";
        return Err(ConfigError::value(
            "feedback.listen",
            format!("{:?}", feedback.listen),
            expected,
        ));
    }
    Ok(())
}
