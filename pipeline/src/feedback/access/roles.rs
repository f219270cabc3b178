//! The one table of what a route needs. A route that is not in it is an administrator's.

use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What somebody may do; each may do what the ones before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// looks at everything
    Viewer,
    /// arms and ends runs, changes parameters, calibrations and rules, acknowledges decisions
    Operator,
    /// makes and revokes tokens
    Admin,
}

impl Role {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// nothing
    Nobody,
    /// nothing, where `feedback.metrics_without_token` says so; else a viewer
    Metrics,
    /// this role
    Role(Role),
}

const VIEWER: Need = Need::Role(Role::Viewer);
const OPERATOR: Need = Need::Role(Role::Operator);
const ADMIN: Need = Need::Role(Role::Admin);

/// Method, route, need.
const TABLE: &[(&str, &str, Need)] = &[
    ("GET", "/healthz", Need::Nobody),
    ("GET", "/api/v1/healthz", Need::Nobody),
    ("GET", "/openapi.json", Need::Nobody),
    ("GET", "/api/v1/openapi.json", Need::Nobody),
    ("GET", "/metrics", Need::Metrics),
    ("GET", "/api/v1/metrics", Need::Metrics),
    ("GET", "/api/v1/session", VIEWER),
    ("GET", "/api/v1/status", VIEWER),
    ("GET", "/api/v1/runs", VIEWER),
    ("POST", "/api/v1/runs", OPERATOR),
    ("GET", "/api/v1/runs/{id}", VIEWER),
    ("POST", "/api/v1/runs/{id}/stop", OPERATOR),
    ("POST", "/api/v1/runs/{id}/abort", OPERATOR),
    ("POST", "/api/v1/runs/{id}/reprocess", OPERATOR),
    ("GET", "/api/v1/runs/{id}/ledger", VIEWER),
    ("POST", "/api/v1/runs/{id}/frame-metadata", OPERATOR),
    ("GET", "/api/v1/runs/{id}/decisions", VIEWER),
    ("POST", "/api/v1/runs/{id}/decisions/{sequence}/acknowledge", OPERATOR),
    ("GET", "/api/v1/runs/{id}/events", VIEWER),
    ("GET", "/api/v1/runs/{id}/results", VIEWER),
    ("GET", "/api/v1/runs/{id}/frames/{file}", VIEWER),
    ("GET", "/api/v1/runs/{id}/files/{file}", VIEWER),
    ("GET", "/api/v1/runs/{id}/h5/meta", VIEWER),
    ("GET", "/api/v1/runs/{id}/h5/attr", VIEWER),
    ("GET", "/api/v1/runs/{id}/h5/data", VIEWER),
    ("GET", "/api/v1/runs/{id}/h5/paths", VIEWER),
    ("GET", "/api/v1/runs/{id}/mask.npy", VIEWER),
    ("GET", "/api/v1/runs/{id}/profiles/{which}", VIEWER),
    ("GET", "/api/v1/runs/{id}/grid", VIEWER),
    ("GET", "/api/v1/runs/{id}/slices", VIEWER),
    ("GET", "/api/v1/runs/{id}/slices/{file}", VIEWER),
    ("GET", "/api/v1/runs/{id}/spots/{frame}", VIEWER),
    ("GET", "/api/v1/parameters", VIEWER),
    ("PUT", "/api/v1/parameters/{name}", OPERATOR),
    ("GET", "/api/v1/rules", VIEWER),
    ("PUT", "/api/v1/rules/{name}", OPERATOR),
    ("DELETE", "/api/v1/rules/{name}", OPERATOR),
    ("GET", "/api/v1/calibrations", VIEWER),
    ("POST", "/api/v1/calibrations/{kind}", OPERATOR),
    ("GET", "/api/v1/tokens", ADMIN),
    ("POST", "/api/v1/tokens", ADMIN),
    ("DELETE", "/api/v1/tokens/{name}", ADMIN),
];

/// What concerns everybody's runs: a token that is limited to some may not.
const OF_ALL: &[(&str, &str)] = &[
    ("GET", "/metrics"),
    ("GET", "/api/v1/metrics"),
    ("PUT", "/api/v1/rules/{name}"),
    ("DELETE", "/api/v1/rules/{name}"),
    ("POST", "/api/v1/calibrations/{kind}"),
];

/// Whether a request concerns everybody's runs.
pub fn belongs_to_all(method: &Method, route: Option<&str>) -> bool {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    route.is_some_and(|route| OF_ALL.contains(&(method, route)))
}

/// What a request needs; `route` is the one that it matched, none where it is a file of the page or nothing at all.
pub fn need(method: &Method, route: Option<&str>, path: &str) -> Need {
    let Some(route) = route else {
        // The page has to be there before anybody can log in.
        return match path.trim_start_matches('/').starts_with("api/") {
            true => VIEWER,
            false => Need::Nobody,
        };
    };
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let same = |row: &&(&str, &str, Need)| row.0 == method && row.1 == route;
    TABLE.iter().find(same).map_or(ADMIN, |row| row.2)
}

/// Writes into an OpenAPI document what every route needs, and how a token is shown.
pub fn describe(document: &mut Value) {
    let bearer = json!({
        "type": "http", "scheme": "bearer",
        "description": "A token of `fluxline token create`, or of the identity provider in `[feedback.oidc]`, as `Authorization: Bearer TOKEN`; over a WebSocket also as the subprotocol \
                        `fluxline.token.TOKEN` beside `fluxline`. Never in an address. Roles: viewer, operator, admin; each may do what the \
                        ones before it may. A token may be limited to proposals and runs: every other run is, for it, as if it did not exist (404). While no tokens are in use (loopback only) none is needed."
    });
    document["components"]["securitySchemes"] = json!({ "token": bearer });
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    for (path, item) in paths {
        let Some(methods) = item.as_object_mut() else { continue };
        for (method, operation) in methods {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else {
                continue;
            };
            let role = match need(&method, Some(path), path) {
                Need::Nobody => {
                    operation["security"] = json!([]);
                    continue;
                }
                Need::Metrics => Role::Viewer,
                Need::Role(role) => role,
            };
            operation["security"] = json!([{ "token": [role.name()] }]);
            operation["x-role"] = json!(role.name());
            // Whether a token that is limited to some runs may ask this.
            operation["x-limited-tokens"] = json!(role != Role::Admin && !belongs_to_all(&method, Some(path)));
            let error = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/ApiError" } } });
            for (status, words) in [
                ("401", "no token, or one that does not hold"),
                (
                    "403",
                    "the token's role may not do this, or the token is limited to some runs",
                ),
                ("429", "too many requests, or too many wrong tokens"),
            ] {
                operation["responses"][status] = json!({ "description": words, "content": error });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_that_is_served_is_in_the_table_and_no_other() {
        let document: Value = serde_json::from_str(&super::super::super::server::openapi()).unwrap();
        let mut served: Vec<(String, String)> = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                served.push((method.to_uppercase(), path.clone()));
            }
        }
        for path in ["/healthz", "/metrics", "/openapi.json", "/api/v1/openapi.json"] {
            served.push(("GET".into(), path.into()));
        }
        let mut listed: Vec<(String, String)> = TABLE.iter().map(|row| (row.0.into(), row.1.into())).collect();
        served.sort();
        listed.sort();
        assert_eq!(served, listed);
    }

    #[test]
    fn looking_needs_a_viewer_changing_more_and_what_is_unknown_most() {
        for (method, path, need) in TABLE {
            match need {
                Need::Role(Role::Viewer) | Need::Nobody | Need::Metrics => assert_eq!(*method, "GET", "{path}"),
                Need::Role(Role::Operator) => assert_ne!(*method, "GET", "{path}"),
                Need::Role(Role::Admin) => assert!(path.starts_with("/api/v1/tokens")),
            }
        }
        assert_eq!(need(&Method::HEAD, Some("/api/v1/status"), "/api/v1/status"), VIEWER);
        assert_eq!(need(&Method::PATCH, Some("/api/v1/status"), "/api/v1/status"), ADMIN);
        assert_eq!(need(&Method::GET, Some("/api/v1/new"), "/api/v1/new"), ADMIN);
        assert_eq!(need(&Method::GET, None, "/api/v1/nothing"), VIEWER);
        assert_eq!(need(&Method::GET, None, "/assets/index.js"), Need::Nobody);
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
