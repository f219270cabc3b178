//! Tokens of an identity provider (OIDC): signed by a key that it publishes, for this appliance, and for a time. Who somebody
//! is, and what they may, is in the token; nothing of it is kept.

mod crypto;
mod keys;

use super::scope;
use super::{Caller, Proof, Role, Scope};
use crate::config::{Config, ConfigError, OidcConfig};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use keys::{Found, Keys};
use serde_json::{Map, Value};
use std::str::FromStr;

/// Longest subject, as OpenID Connect has it.
const SUBJECT_CHARS: usize = 255;

/// Why a token does not let its holder in.
#[derive(Debug)]
pub enum Refusal {
    /// it does not hold; why
    Wrong(&'static str),
    /// it holds, and gives nothing here; why
    Nothing(String),
}

/// An identity provider whose tokens are taken.
pub struct Provider {
    config: OidcConfig,
    algorithms: Vec<Algorithm>,
    keys: Keys,
}

impl Provider {
    /// Of `[feedback.oidc]`.
    pub fn open(config: &Config, oidc: &OidcConfig) -> Result<Provider, ConfigError> {
        crypto::install();
        // For the address of the keys. The second time it is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let known = |name: &String| Algorithm::from_str(name).ok();
        if oidc.jwks_url.as_ref().is_some_and(|url| url.starts_with("http:")) {
            tracing::warn!(target: "fluxline", "feedback.oidc.jwks_url is not https: whoever is on the way there may put keys of their own");
        }
        Ok(Provider {
            algorithms: oidc.algorithms.iter().filter_map(known).collect(),
            keys: Keys::open(config, oidc)?,
            config: oidc.clone(),
        })
    }

    /// Its name.
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Its keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether a token's key may be one that was published since the last look.
    pub fn key_is_unknown(&self, token: &str) -> bool {
        let Ok(header) = decode_header(token) else { return false };
        let allowed = self.algorithms.contains(&header.alg) && header.kid.is_some();
        allowed && matches!(self.keys.find(header.kid.as_deref(), header.alg), Found::Unknown)
    }

    /// Whether what a token was taken for holds still: its time is not over, and its key is published.
    pub fn holds(&self, until_s: u64, key: &blake3::Hash) -> bool {
        now_s() <= until_s && self.keys.has(key)
    }

    /// Who has this token.
    pub fn holder(&self, token: &str) -> Result<Caller, Refusal> {
        let (claims, key) = self.claims(token)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        // A list of issuers would have been taken for one.
        if text("iss") != Some(self.issuer()) {
            return Err(Refusal::Wrong("another issuer made it"));
        }
        let good = |subject: &&str| {
            (1..=SUBJECT_CHARS).contains(&subject.len()) && subject.chars().all(|letter| !letter.is_control())
        };
        let Some(subject) = text("sub").filter(good) else {
            return Err(Refusal::Wrong("it names nobody (sub)"));
        };
        let Some(end_s) = claims.get("exp").and_then(Value::as_f64) else {
            return Err(Refusal::Wrong("it has no end (exp)"));
        };
        let name = format!("{}#{subject}", self.issuer());
        let (role, scope) = self.rights(&claims).map_err(|lacks| {
            let words = format!("the token of {name} holds, but {lacks}");
            Refusal::Nothing(words)
        })?;
        Ok(Caller {
            name: name.into(),
            role,
            scope,
            proof: Proof::Provider {
                until_s: (end_s as u64).saturating_add(self.config.leeway_s),
                key,
            },
        })
    }

    /// What a token says, once its signature, its issuer, its audience and its time are right; and its key.
    fn claims(&self, token: &str) -> Result<(Map<String, Value>, blake3::Hash), Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Wrong("it is none, or of a kind that is not taken"))?;
        if !self.algorithms.contains(&header.alg) {
            let words = "its signature is of a kind that is not taken: see feedback.oidc.algorithms";
            return Err(Refusal::Wrong(words));
        }
        let keys = match self.keys.find(header.kid.as_deref(), header.alg) {
            Found::Keys(keys) => keys,
            Found::Unknown => return Err(Refusal::Wrong("its issuer has no such key")),
            Found::Unnamed => return Err(Refusal::Wrong("it does not name its key (kid), and there are several")),
        };
        let mut validation = Validation::new(header.alg);
        validation.leeway = self.config.leeway_s;
        validation.validate_nbf = true;
        validation.set_issuer(&[self.issuer()]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let mut refusal = Refusal::Wrong("its signature is wrong");
        for (key, digest) in keys {
            match decode::<Map<String, Value>>(token, &key, &validation) {
                Ok(data) => return Ok((data.claims, digest)),
                Err(error) => refusal = Refusal::Wrong(why(error.kind())),
            }
        }
        Err(refusal)
    }

    /// The role and the runs that claims give; or what they lack.
    fn rights(&self, claims: &Map<String, Value>) -> Result<(Role, Scope), String> {
        let config = &self.config;
        let roles = values(claims, &config.roles_claim);
        let any_of = |wanted: &[String]| wanted.iter().any(|wanted| roles.contains(&wanted.as_str()));
        let role = [
            (Role::Admin, &config.admin),
            (Role::Operator, &config.operator),
            (Role::Viewer, &config.viewer),
        ];
        let Some((role, _)) = role.into_iter().find(|(_, wanted)| any_of(wanted)) else {
            return Err(format!("gives no role here: its claim {} has none", config.roles_claim));
        };
        let Some(claim) = &config.proposals_claim else {
            return Ok((role, Scope::default()));
        };
        if role == Role::Admin || any_of(&config.all_proposals) {
            return Ok((role, Scope::default()));
        }
        let listed = values(claims, claim).into_iter();
        let named: Vec<String> = listed
            .filter_map(|value| value.strip_prefix(config.proposals_prefix.as_str()))
            .map(String::from)
            .filter(|entry| scope::check(std::slice::from_ref(entry)).is_ok())
            .collect();
        // No entry would be every run.
        match named.is_empty() {
            true => Err(format!("names no proposal: its claim {claim} has none")),
            false => Ok((role, Scope::of(&named))),
        }
    }
}

fn why(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "it has ended",
        ErrorKind::ImmatureSignature => "its time has not come",
        ErrorKind::InvalidIssuer => "another issuer made it",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            "it lacks one of exp, iss, aud and sub"
        }
        ErrorKind::InvalidSignature => "its signature is wrong",
        _ => "it is none",
    }
}

/// The values of a claim: a list of texts, or the words of one. Its name as a whole, or a way through objects.
fn values<'a>(claims: &'a Map<String, Value>, name: &str) -> Vec<&'a str> {
    let whole = claims.get(name);
    let value = whole.or_else(|| {
        let mut steps = name.split('.');
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    });
    match value {
        Some(Value::String(words)) => words.split_whitespace().collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn now_s() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn provider(change: impl FnOnce(&mut OidcConfig)) -> Provider {
        let text = "[feedback.oidc]\nissuer = \"https://id.example\"\naudience = \"fluxline\"\njwks_url = \"https://id.example/keys\"\n\
                    roles_claim = \"realm.roles\"\nviewer = [\"user\"]\noperator = [\"staff\", \"user-op\"]\nadmin = [\"boss\"]\n\
                    proposals_claim = \"https://id.example/proposals\"\nproposals_prefix = \"p:\"\nall_proposals = [\"staff\"]";
        let mut oidc: OidcConfig = toml::from_str(text.split_once('\n').unwrap().1).unwrap();
        change(&mut oidc);
        Provider {
            algorithms: vec![Algorithm::ES256],
            keys: Keys::of_url(&oidc),
            config: oidc,
        }
    }

    #[test]
    fn claims_give_a_role_and_proposals_and_never_more() {
        let rights = |claims: Value| {
            let claims = claims.as_object().unwrap().clone();
            provider(|_| {})
                .rights(&claims)
                .map(|(role, scope)| (role, scope.entries().to_vec()))
        };
        let claim = |roles: Value, proposals: Value| {
            rights(json!({ "realm": { "roles": roles }, "https://id.example/proposals": proposals }))
        };
        let only = |entries: &[&str]| entries.iter().map(|entry| entry.to_string()).collect::<Vec<_>>();
        assert_eq!(
            claim(json!(["user", "x"]), json!(["p:mx1", "p:mx2/a"])),
            Ok((Role::Viewer, only(&["mx1", "mx2/a"])))
        );
        assert_eq!(
            claim(json!("x user-op user"), json!("p:mx1")),
            Ok((Role::Operator, only(&["mx1"])))
        );
        assert_eq!(
            claim(json!(["staff"]), json!([])),
            Ok((Role::Operator, only(&[]))),
            "every run"
        );
        assert_eq!(claim(json!(["boss"]), Value::Null), Ok((Role::Admin, only(&[]))));
        // What is no proposal is left out, and nobody is left with all of them by having none.
        assert_eq!(
            claim(json!(["user"]), json!(["p:mx1", "mx2", "p:../x", "p:", 7])),
            Ok((Role::Viewer, only(&["mx1"])))
        );
        for none in [
            json!([]),
            json!(["mx1"]),
            json!(["p:"]),
            json!(["p:.."]),
            json!({ "p:mx1": true }),
            Value::Null,
        ] {
            assert!(claim(json!(["user"]), none.clone()).is_err(), "{none}");
        }
        for none in [
            json!([]),
            json!(["USER"]),
            json!([["user"]]),
            json!({ "user": true }),
            json!("users"),
        ] {
            assert!(claim(none.clone(), json!(["p:mx1"])).is_err(), "{none}");
        }
        assert!(rights(json!({ "roles": ["boss"], "realm": ["boss"] })).is_err());
        let open = provider(|config| config.proposals_claim = None);
        let claims = json!({ "realm": { "roles": ["user"] } });
        let (role, scope) = open.rights(claims.as_object().unwrap()).unwrap();
        assert!(role == Role::Viewer && !scope.is_limited());
    }
}
