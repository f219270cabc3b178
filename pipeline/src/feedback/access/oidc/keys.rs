//! An identity provider's keys: from a file, from its address, or both. What was fetched once goes on when the provider is
//! away; what it no longer publishes holds no longer.

use super::super::tokens::Stamp;
use crate::config::{Config, ConfigError, OidcConfig};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Largest set of keys, in bytes; past it nothing of it is taken.
const BYTES_MAX: usize = 256 << 10;
/// Most keys of a set.
const KEYS_MAX: usize = 64;
/// Time to reach the provider.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for the whole of a fetch.
const FETCH: Duration = Duration::from_secs(5);
/// Pause behind a fetch that failed; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Tokens of unknown keys cause at most one fetch in this time, however many there are.
const ASK: Duration = Duration::from_secs(10);

/// A key that tokens may be signed with.
pub struct Key {
    id: Option<String>,
    /// the only algorithm that it is for, where it says so
    algorithm: Option<Algorithm>,
    /// what signatures are verified with
    pub verifying: DecodingKey,
    /// tells it from every other key
    pub digest: blake3::Hash,
}

/// The keys of a JSON Web Key Set with which signatures can be verified; others in it are left out.
fn read(text: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|error| format!("no JSON Web Key Set: {error}"))?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("{} keys: at most {KEYS_MAX} are taken", set.keys.len()));
    }
    let keys: Vec<Key> = set.keys.into_iter().filter_map(key).collect();
    match keys.is_empty() {
        true => Err("no key in it that tokens could be verified with".into()),
        false => Ok(keys),
    }
}

fn key(value: serde_json::Value) -> Option<Key> {
    let digest = blake3::hash(value.to_string().as_bytes());
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if matches!(
        jwk.common.public_key_use,
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_))
    ) {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        None => None,
        Some(name) => Some(named(name)?),
    };
    let verifying = DecodingKey::from_jwk(&jwk).ok()?;
    if verifying.family() == AlgorithmFamily::Hmac {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id,
        algorithm,
        verifying,
        digest,
    })
}

fn named(name: KeyAlgorithm) -> Option<Algorithm> {
    Algorithm::from_str(&name.to_string()).ok()
}

/// What there is.
#[derive(Clone, Default)]
struct Held {
    file: Arc<Vec<Key>>,
    fetched: Arc<Vec<Key>>,
    /// fetches that ended, well or not
    fetches: u64,
}

impl Held {
    fn all(&self) -> impl Iterator<Item = &Key> {
        self.file.iter().chain(self.fetched.iter())
    }
}

/// Who asked for a fetch.
#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    goes_on: bool,
}

/// A provider's keys.
pub struct Keys {
    file: Option<PathBuf>,
    url: Option<reqwest::Url>,
    refresh: Duration,
    seen: Mutex<Option<Stamp>>,
    held: watch::Sender<Held>,
    asked: Mutex<Asked>,
    wake: Notify,
}

/// What a token's header finds.
pub enum Found {
    /// these may have signed it
    Keys(Vec<DigestedKey>),
    /// none has this identifier
    Unknown,
    /// it names none, and there are several that it could be
    Unnamed,
}

/// A key, and what tells it from others.
pub type DigestedKey = (DecodingKey, blake3::Hash);

impl Keys {
    /// Reads the file, where there is one. Nothing is fetched yet.
    pub fn open(config: &Config, oidc: &OidcConfig) -> Result<Keys, ConfigError> {
        let file = oidc.jwks_file.as_ref().map(|path| config.resolve(path));
        let mut held = Held::default();
        let mut seen = None;
        if let Some(path) = &file {
            seen = Stamp::of(path);
            let keys = read_file(path);
            held.file =
                Arc::new(keys.map_err(|error| ConfigError::value("feedback.oidc.jwks_file", path.display(), error))?);
        }
        let url = oidc.jwks_url.as_deref().map(reqwest::Url::parse).transpose();
        Ok(Keys {
            file,
            url: url.map_err(|error| ConfigError::value("feedback.oidc.jwks_url", "", error.to_string()))?,
            refresh: Duration::from_secs_f64(oidc.refresh_s),
            seen: Mutex::new(seen),
            held: watch::channel(held).0,
            asked: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Looks whether the file has changed. One that is gone or cannot be read holds no key.
    pub fn refresh(&self) {
        let Some(path) = &self.file else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(path);
        if stamp == *seen {
            return;
        }
        let keys = read_file(path).unwrap_or_else(|error| {
            tracing::error!(target: "fluxline", "{}: {error}; no key of this file holds", path.display());
            Vec::new()
        });
        self.held.send_modify(|held| held.file = Arc::new(keys));
        *seen = stamp;
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.held.borrow().all().count()
    }

    /// Whether a key is still there.
    pub fn has(&self, digest: &blake3::Hash) -> bool {
        self.held.borrow().all().any(|key| key.digest == *digest)
    }

    /// The keys that may have signed a token.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found {
        let held = self.held.borrow().clone();
        let fits = |key: &&Key| {
            let named = id.is_none() || key.id.as_deref() == id;
            named && key.verifying.family() == algorithm.family() && key.algorithm.is_none_or(|only| only == algorithm)
        };
        let mut keys: Vec<DigestedKey> = Vec::new();
        for key in held.all().filter(fits) {
            if keys.iter().all(|(_, digest)| *digest != key.digest) {
                keys.push((key.verifying.clone(), key.digest));
            }
        }
        match (id, keys.len()) {
            (_, 0) => Found::Unknown,
            (None, 2..) => Found::Unnamed,
            _ => Found::Keys(keys),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the keys fetched anew for a token whose key is unknown, unless that was done just now, and waits for it.
    pub async fn ask_again(&self) {
        if self.url.is_none() {
            return;
        }
        let mut held = self.held.subscribe();
        let before = held.borrow_and_update().fetches;
        {
            let mut asked = self.asked();
            if !asked.goes_on {
                if asked.at.is_some_and(|at| at.elapsed() < ASK) {
                    return;
                }
                *asked = Asked {
                    at: Some(Instant::now()),
                    goes_on: true,
                };
                self.wake.notify_one();
            }
        }
        let _ = tokio::time::timeout(FETCH, held.wait_for(|held| held.fetches != before)).await;
    }

    /// Fetches the keys now and then, for as long as the process lives.
    pub async fn keep_fetching(&self) {
        let Some(url) = &self.url else { return };
        let (mut pause, mut fails) = (PAUSE_MIN, false);
        loop {
            let rest = match fetch(url).await {
                Ok(keys) => {
                    if fails {
                        tracing::info!(target: "fluxline", "{url}: the keys can be fetched again");
                    }
                    (pause, fails) = (PAUSE_MIN, false);
                    self.held.send_modify(|held| held.fetched = Arc::new(keys));
                    self.refresh
                }
                Err(error) => {
                    if !fails {
                        let kept = self.count();
                        tracing::warn!(target: "fluxline", "feedback.oidc.jwks_url: {error}; {kept} keys that are there go on");
                    }
                    fails = true;
                    let rest = pause.min(self.refresh);
                    pause = (2 * pause).min(PAUSE_MAX);
                    rest
                }
            };
            self.asked().goes_on = false;
            self.held.send_modify(|held| held.fetches += 1);
            let _ = tokio::time::timeout(rest, self.wake.notified()).await;
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<Key>, String> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let most = BYTES_MAX as u64 + 1;
    file.take(most)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    match text.len() > BYTES_MAX {
        true => Err(format!("more than {BYTES_MAX} bytes")),
        false => read(&text),
    }
}

async fn fetch(url: &reqwest::Url) -> Result<Vec<Key>, String> {
    // A client of its own each time: certificates of this machine that were renewed are looked at, and no connection stays.
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(FETCH)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| whole_story(&error))?;
    let asked = client.get(url.clone()).header("accept", "application/json").send();
    let mut answer = asked.await.map_err(|error| whole_story(&error))?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(format!("{url} answers {}", answer.status()));
    }
    let mut text = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| whole_story(&error))? {
        text.extend_from_slice(&piece);
        if text.len() > BYTES_MAX {
            return Err(format!("{url} answers more than {BYTES_MAX} bytes"));
        }
    }
    read(&text).map_err(|error| format!("{url}: {error}"))
}

/// An error with what it came from: the client's own sentence leaves out why.
fn whole_story(error: &dyn std::error::Error) -> String {
    let mut story = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        story += &format!(": {error}");
        source = error.source();
    }
    story
}

#[cfg(test)]
impl Keys {
    /// None yet, of an address that nobody asks.
    pub fn of_url(oidc: &OidcConfig) -> Keys {
        Keys {
            file: None,
            url: oidc.jwks_url.as_deref().map(|url| url.parse().unwrap()),
            refresh: Duration::from_secs(300),
            seen: Mutex::default(),
            held: watch::channel(Held::default()).0,
            asked: Mutex::default(),
            wake: Notify::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_that_verify_signatures_are_taken() {
        let rsa = r#"{"kty":"RSA","kid":"a","alg":"RS256","use":"sig","n":"AQAB","e":"AQAB"}"#;
        let ec = r#"{"kty":"EC","kid":"b","crv":"P-256","x":"AQAB","y":"AQAB"}"#;
        let left_out = [
            r#"{"kty":"oct","kid":"c","k":"c2VjcmV0"}"#,
            r#"{"kty":"RSA","kid":"d","use":"enc","n":"AQAB","e":"AQAB"}"#,
            r#"{"kty":"RSA","kid":"e","alg":"RSA-OAEP","n":"AQAB","e":"AQAB"}"#,
            r#"{"kty":"LATER","kid":"f"}"#,
            r#"{}"#,
            r#"7"#,
        ];
        let text = format!(r#"{{"keys":[{rsa},{ec},{}]}}"#, left_out.join(","));
        let keys = read(text.as_bytes()).unwrap();
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!((keys[0].algorithm, keys[1].algorithm), (Some(Algorithm::RS256), None));
        for bad in [
            String::new(),
            "{}".into(),
            r#"{"keys":[]}"#.into(),
            format!(r#"{{"keys":[{}]}}"#, left_out[0]),
            format!(r#"{{"keys":[{}]}}"#, vec![rsa; 65].join(",")),
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad:.40}");
        }
    }
}
