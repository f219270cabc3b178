//! `[feedback.oidc]`: tokens of an identity provider, beside the appliance's own.

use super::{ConfigError, within};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Signatures that may be allowed. Those whose key a verifier would have to share (HS256 and its kin) are not among them, nor
/// is `none`.
const ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];

/// `[feedback.oidc]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// The provider's own name, exactly as its tokens have it in `iss`, for example `https://login.example/realms/beamline`.
    pub issuer: String,
    /// What a token must have in `aud`: the name of this appliance at the provider.
    pub audience: String,
    /// Where the provider publishes its keys: `jwks_uri` of its `/.well-known/openid-configuration`.
    pub jwks_url: Option<String>,
    /// File of keys (a JSON Web Key Set), beside `jwks_url` or in its place. A new one is taken over within a second.
    pub jwks_file: Option<PathBuf>,
    /// Time between two fetches of the keys (10 to 86400).
    #[serde(default = "five_minutes")]
    pub refresh_s: f64,
    /// Signatures that are taken: some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<String>,
    /// By how much the provider's clock may differ from this one (0 to 300).
    #[serde(default = "half_a_minute")]
    pub leeway_s: u64,
    /// Claim that holds somebody's roles or groups, a list or words of a text; within an object as `realm_access.roles`.
    pub roles_claim: String,
    /// Values of it that make a viewer.
    #[serde(default)]
    pub viewer: Vec<String>,
    /// Values of it that make an operator.
    #[serde(default)]
    pub operator: Vec<String>,
    /// Values of it that make an administrator.
    #[serde(default)]
    pub admin: Vec<String>,
    /// Claim that holds proposals, `PROPOSAL` or `PROPOSAL/RUN`: whoever is no administrator sees their runs only, and nobody
    /// without one is let in. Unless given, everybody sees every run.
    pub proposals_claim: Option<String>,
    /// What values of that claim begin with to be proposals; it is taken off, and other values are left out.
    #[serde(default)]
    pub proposals_prefix: String,
    /// Values of `roles_claim` whose holders see every run, whatever their proposals.
    #[serde(default)]
    pub all_proposals: Vec<String>,
}

fn five_minutes() -> f64 {
    300.0
}

fn half_a_minute() -> u64 {
    30
}

fn algorithms() -> Vec<String> {
    ["RS256", "ES256", "EdDSA"].map(String::from).to_vec()
}

/// Checks `[feedback.oidc]`.
pub(super) fn check(oidc: &OidcConfig) -> Result<(), ConfigError> {
    let refuse = |field: &str, value: &dyn std::fmt::Debug, expected: &str| {
        Err(ConfigError::value(
            format!("feedback.oidc.{field}"),
            format!("{value:?}"),
            expected,
        ))
    };
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if !plain(&oidc.issuer) || !oidc.issuer.contains("://") || oidc.issuer.contains('#') {
        let expected = "the provider's address as its tokens have it in iss, for example \"https://login.example\"";
        return refuse("issuer", &oidc.issuer, expected);
    }
    if !plain(&oidc.audience) {
        return refuse("audience", &oidc.audience, "what tokens for this appliance have in aud");
    }
    if oidc.jwks_url.is_none() && oidc.jwks_file.is_none() {
        let expected = "an address or, as jwks_file, a file with the provider's keys";
        return refuse("jwks_url", &"", expected);
    }
    if let Some(url) = &oidc.jwks_url
        && !is_web_address(url)
    {
        let expected = "an address that begins with https:// or http://, without a password in it";
        return refuse("jwks_url", url, expected);
    }
    within("feedback.oidc.refresh_s", oidc.refresh_s, 10.0, 86400.0)?;
    within("feedback.oidc.leeway_s", oidc.leeway_s, 0, 300)?;
    let known = |name: &String| ALGORITHMS.contains(&name.as_str());
    if oidc.algorithms.is_empty() || !oidc.algorithms.iter().all(known) {
        let expected = format!("some of {}", ALGORITHMS.join(", "));
        return refuse("algorithms", &oidc.algorithms, &expected);
    }
    let claims = [
        ("roles_claim", Some(&oidc.roles_claim)),
        ("proposals_claim", oidc.proposals_claim.as_ref()),
    ];
    for (field, claim) in claims {
        if let Some(claim) = claim.filter(|claim| !plain(claim)) {
            return refuse(field, claim, "the name of a claim, for example \"groups\"");
        }
    }
    if oidc.viewer.is_empty() && oidc.operator.is_empty() && oidc.admin.is_empty() {
        let expected = "values of roles_claim as viewer, operator or admin: without any nobody has a role";
        return refuse("viewer", &oidc.viewer, expected);
    }
    if oidc.proposals_claim.is_none() && !oidc.proposals_prefix.is_empty() {
        return refuse("proposals_prefix", &oidc.proposals_prefix, "proposals_claim beside it");
    }
    if oidc.proposals_claim.is_none() && !oidc.all_proposals.is_empty() {
        return refuse("all_proposals", &oidc.all_proposals, "proposals_claim beside it");
    }
    Ok(())
}

fn is_web_address(text: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(text) else {
        return false;
    };
    let open = url.username().is_empty() && url.password().is_none();
    ["https", "http"].contains(&url.scheme()) && url.has_host() && open
}
