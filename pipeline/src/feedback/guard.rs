//! Who may be asking: a page of another site, opened in the browser of somebody whose machine reaches this one, may not.
//! Browsers tell where a page comes from; programs tell nothing and are let through.

use super::error::ApiError;
use super::server::Shared;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;

/// Refuses what another site's page asks for (403).
pub async fn same_site(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let listen = shared.appliance.config().feedback.listen.as_str();
    match check(request.method(), request.headers(), listen) {
        Ok(()) => next.run(request).await,
        Err(message) => ApiError::new(StatusCode::FORBIDDEN, "other_site", message).into_response(),
    }
}

fn check(method: &Method, headers: &HeaderMap, listen: &str) -> Result<(), String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    // A name of another site that leads here, told to a browser after its page was loaded.
    if is_loopback(listen) && !host.is_empty() && !is_loopback(host) {
        return Err(format!(
            "host {host:?}: this appliance listens on the loopback address and answers to its names only"
        ));
    }
    let Some(origin) = text(header::ORIGIN) else {
        return Ok(());
    };
    let site = origin.split_once("://").map_or("", |(_, authority)| authority);
    // Looking, other than over a WebSocket, shows another site's page nothing: browsers keep the answer from it.
    let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && text(header::UPGRADE).is_none();
    if looks || site.eq_ignore_ascii_case(host) {
        return Ok(());
    }
    Err(format!(
        "origin {origin:?}: only a page of {host} itself may ask for this"
    ))
}

/// Whether `HOST` or `HOST:PORT` names this machine to itself.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_refused_and_everybody_else_is_not() {
        let asked = |method: Method, host: &str, origin: Option<&str>, upgrade: bool, listen: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            if upgrade {
                headers.insert(header::UPGRADE, "websocket".parse().unwrap());
            }
            check(&method, &headers, listen).is_ok()
        };
        let here = "127.0.0.1:8080";
        assert!(asked(Method::POST, here, None, false, here), "a program");
        assert!(
            asked(Method::POST, here, Some("http://127.0.0.1:8080"), false, here),
            "the page"
        );
        assert!(asked(
            Method::POST,
            "localhost:8080",
            Some("http://localhost:8080"),
            false,
            here
        ));
        assert!(asked(
            Method::POST,
            "[::1]:8080",
            Some("http://[::1]:8080"),
            false,
            "[::1]:8080"
        ));
        assert!(!asked(Method::POST, here, Some("http://evil.example"), false, here));
        assert!(!asked(Method::POST, here, Some("null"), false, here));
        assert!(
            !asked(Method::POST, "evil.example", Some("http://evil.example"), false, here),
            "a name that leads here"
        );
        assert!(!asked(Method::GET, "evil.example", None, false, here));
        assert!(
            asked(Method::GET, here, Some("http://evil.example"), false, here),
            "its answer stays with the browser"
        );
        assert!(
            !asked(Method::GET, here, Some("http://evil.example"), true, here),
            "but not a WebSocket's"
        );
        let open = "0.0.0.0:8080";
        assert!(asked(Method::POST, "fluxline.beamline:8080", None, false, open));
        assert!(asked(
            Method::POST,
            "fluxline.beamline:8080",
            Some("http://fluxline.beamline:8080"),
            false,
            open
        ));
        assert!(!asked(
            Method::POST,
            "fluxline.beamline:8080",
            Some("http://evil.example"),
            false,
            open
        ));
    }
}
