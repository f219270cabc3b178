//! The door: every request passes here before its body is read.

use super::audit::Line;
use super::oidc::Refusal;
use super::roles::{Need, Role, belongs_to_all, need};
use super::{Access, Caller, OPEN, Proof, Scope};
use crate::feedback::error::ApiError;
use crate::feedback::listen::Peer;
use crate::feedback::server::Shared;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Subprotocol of results over a WebSocket.
pub const SUBPROTOCOL: &str = "fluxline";
/// Beginning of the subprotocol that carries a token, for browsers: they cannot set a header there.
const TOKEN_SUBPROTOCOL: &str = "fluxline.token.";
/// Longest path of a line in the audit log.
const PATH_CHARS: usize = 256;

/// Why a request does not come in.
struct Refused {
    reason: &'static str,
    error: ApiError,
    wait_s: Option<u64>,
    /// who is known and may not
    caller: Option<Caller>,
}

impl Refused {
    fn new(status: StatusCode, reason: &'static str, words: impl Into<String>) -> Self {
        Self {
            reason,
            error: ApiError::new(status, reason, words),
            wait_s: None,
            caller: None,
        }
    }
}

/// Lets a request in whose token has the role that its route needs, and takes note of changing calls.
pub async fn enter(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let access = shared.access.clone();
    if let Some(token) = presented(request.headers()).map(String::from) {
        access.look_for_key(&token).await;
    }
    let caller = match admit(&access, &request, peer.as_ref()) {
        Ok(caller) => caller,
        Err(refused) => return refusal(&shared, *refused, peer.as_ref(), &request),
    };
    let Some(caller) = caller else {
        return next.run(request).await;
    };
    if let Some(peer) = &peer {
        peer.trust();
    }
    let line = request_line(&request);
    request.extensions_mut().insert(caller.clone());
    let response = next.run(request).await;
    take_note(&access, &caller, peer.as_ref(), &line, response.status());
    response
}

/// The answer to somebody who may not.
fn refusal(shared: &Shared, refused: Refused, peer: Option<&Peer>, request: &Request) -> Response {
    let counter = &shared.appliance.metrics().http_refused;
    counter.with_label_values(&[refused.reason]).inc();
    let mut response = refused.error.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let how = HeaderValue::from_static("Bearer realm=\"fluxline\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, how);
    }
    if let Some(seconds) = refused.wait_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if let Some(caller) = refused.caller {
        take_note(&shared.access, &caller, peer, &request_line(request), response.status());
    }
    response
}

/// Who asks; none where nobody needs to be known.
fn admit(access: &Access, request: &Request, peer: Option<&Peer>) -> Result<Option<Caller>, Box<Refused>> {
    let client = peer.map(|peer| peer.address.ip());
    if let Some(Err(seconds)) = client.map(|client| access.request_from(client)) {
        let words = "too many requests from this address: see feedback.limits.requests_per_s";
        let mut refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, "rate", words);
        refused.wait_s = Some(seconds);
        return Err(Box::new(refused));
    }
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let role = match need(request.method(), route, request.uri().path()) {
        Need::Nobody => return Ok(None),
        Need::Metrics if access.metrics_without_token => return Ok(None),
        Need::Metrics => Role::Viewer,
        Need::Role(role) => role,
    };
    if access.is_open() {
        let caller = Caller {
            name: OPEN.into(),
            role: Role::Operator,
            scope: Scope::default(),
            proof: Proof::Open,
        };
        let words = "while no tokens are in use the first one is made on the machine itself: \
                     `fluxline token create NAME --role admin`";
        return allowed(caller, role, words);
    }
    let shown = presented(request.headers());
    let wrong = match shown.map(|token| access.holder(token)) {
        Some(Ok(caller)) => return may(caller, role, belongs_to_all(request.method(), route)),
        // Somebody whom the identity provider knows has not guessed.
        Some(Err(Refusal::Nothing(words))) => {
            return Err(Box::new(Refused::new(StatusCode::FORBIDDEN, "role", words)));
        }
        Some(Err(Refusal::Wrong(why))) => Some(why),
        None => None,
    };
    let wait_s = match (wrong, client) {
        (Some(_), Some(client)) => access.wrong_from(client).err(),
        _ => None,
    };
    let mut refused = match (wrong, wait_s) {
        (_, Some(_)) => {
            let words = "too many wrong tokens from this address";
            Refused::new(StatusCode::TOO_MANY_REQUESTS, "throttled", words)
        }
        (Some(why), None) => {
            let words = format!("this token does not hold: {why}");
            Refused::new(StatusCode::UNAUTHORIZED, "token", words)
        }
        (None, None) => {
            let words = "this needs a token: send it as `Authorization: Bearer TOKEN`";
            Refused::new(StatusCode::UNAUTHORIZED, "token", words)
        }
    };
    refused.wait_s = wait_s;
    Err(Box::new(refused))
}

/// Whether whoever is known may ask for this.
fn may(caller: Caller, role: Role, of_all: bool) -> Result<Option<Caller>, Box<Refused>> {
    let (needed, name, has) = (role.name(), caller.name.clone(), caller.role.name());
    if caller.role >= role && caller.scope.is_limited() && of_all {
        let words = format!("token {name} is limited to some runs, and this concerns all of them");
        let mut refused = Refused::new(StatusCode::FORBIDDEN, "limited", words);
        refused.caller = Some(caller);
        return Err(Box::new(refused));
    }
    let words = format!("this needs the role {needed}, token {name} has {has}");
    allowed(caller, role, &words)
}

fn allowed(caller: Caller, role: Role, words: &str) -> Result<Option<Caller>, Box<Refused>> {
    if caller.role >= role {
        return Ok(Some(caller));
    }
    let mut refused = Refused::new(StatusCode::FORBIDDEN, "role", words);
    refused.caller = Some(caller);
    Err(Box::new(refused))
}

/// The token that a request shows.
fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    headers.get(header::UPGRADE)?;
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|name| name.trim().strip_prefix(TOKEN_SUBPROTOCOL))
}

fn request_line(request: &Request) -> (Method, String) {
    let path = request.uri().path().chars().take(PATH_CHARS).collect();
    (request.method().clone(), path)
}

/// A line of the audit log, where the call is one that changes something.
fn take_note(access: &Access, caller: &Caller, peer: Option<&Peer>, line: &(Method, String), status: StatusCode) {
    let (method, path) = line;
    if method == Method::GET || method == Method::HEAD {
        return;
    }
    access.audit.add(Line {
        time: jiff::Timestamp::now().to_string(),
        name: caller.name.to_string(),
        role: caller.role.name(),
        client: peer.map_or_else(String::new, |peer| peer.address.ip().to_canonical().to_string()),
        method: method.to_string(),
        path: path.clone(),
        status: status.as_u16(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_in_a_header_or_as_the_subprotocol_of_a_websocket() {
        let headers = |rows: &[(header::HeaderName, &str)]| {
            let rows = rows.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            rows.collect::<HeaderMap>()
        };
        let shown = |rows: &[_]| presented(&headers(rows)).map(str::to_string);
        assert_eq!(shown(&[(header::AUTHORIZATION, "bearer abc")]).as_deref(), Some("abc"));
        assert_eq!(shown(&[(header::AUTHORIZATION, "Basic abc")]), None);
        assert_eq!(shown(&[(header::AUTHORIZATION, "abc")]), None);
        let offered = (header::SEC_WEBSOCKET_PROTOCOL, "fluxline, fluxline.token.abc");
        assert_eq!(
            shown(&[(header::UPGRADE, "websocket"), offered.clone()]).as_deref(),
            Some("abc")
        );
        assert_eq!(shown(&[offered]), None, "of no WebSocket");
        assert_eq!(shown(&[]), None);
    }
}
