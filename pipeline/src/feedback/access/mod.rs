//! Who may do what over HTTP: a token is a role, a route needs one. Tokens are the appliance's own or, where `[feedback.oidc]`
//! says so, an identity provider's. Without either the interface is open to this machine alone; with one, even an empty file,
//! nothing but the page's own files is served to somebody who has none.

pub mod audit;
pub mod enter;
pub mod oidc;
pub mod roles;
pub mod scope;
pub mod throttle;
pub mod tokens;

use crate::config::{Config, ConfigError};
use audit::Audit;
use oidc::{Provider, Refusal};
pub use roles::Role;
pub use scope::Scope;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use throttle::Throttle;
use tokens::{Stamp, Token};
use tokio::sync::watch;

/// Time between two looks at the file of tokens; a revoked token holds no longer than this.
pub const LOOK: Duration = Duration::from_millis(200);
/// Name of whoever asks while no tokens are in use.
pub const OPEN: &str = "open";

/// The file of tokens that a configuration has.
pub fn tokens_path(config: &Config) -> PathBuf {
    match &config.feedback.tokens {
        Some(path) => config.resolve(path),
        None => state_folder(config).join("tokens.json"),
    }
}

/// Where the audit log is.
pub fn audit_path(config: &Config) -> PathBuf {
    state_folder(config).join("audit.jsonl")
}

/// Where the answers of calls with a key are.
pub fn calls_path(config: &Config) -> PathBuf {
    state_folder(config).join("calls.jsonl")
}

fn state_folder(config: &Config) -> PathBuf {
    config.resolve(&config.store.path).join(crate::keep::KEEP_FOLDER)
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// the token's name; `ISSUER#SUBJECT` of an identity provider's
    pub name: Arc<str>,
    /// what it may do
    pub role: Role,
    /// whose runs it may see
    pub scope: Scope,
    proof: Proof,
}

/// What somebody was let in for.
#[derive(Clone, Debug)]
enum Proof {
    /// no tokens are in use
    Open,
    /// hash of a token of the appliance
    Token(blake3::Hash),
    /// a token of the identity provider
    Provider {
        /// last second of Unix time at which it holds
        until_s: u64,
        /// the key that signed it
        key: blake3::Hash,
    },
}

impl Caller {
    /// Tells whoever this is from everybody else: the same name may belong to another token later.
    pub fn identify(&self, hasher: &mut blake3::Hasher) {
        hasher.update(self.name.as_bytes()).update(b"\0");
        match &self.proof {
            Proof::Open => {}
            Proof::Token(digest) => {
                hasher.update(digest.as_bytes());
            }
            // Somebody's next token is still theirs; the name is nobody else's, and no token's of the appliance.
            Proof::Provider { .. } => {
                hasher.update(b"oidc");
            }
        }
    }
}

/// What is known of tokens.
#[derive(Clone, Debug)]
enum Known {
    /// there is no file of tokens
    Open,
    /// these hold
    Tokens(Arc<Vec<Token>>),
}

/// The tokens in force, and who has tried wrong ones.
pub struct Access {
    path: PathBuf,
    provider: Option<Provider>,
    known: watch::Sender<Known>,
    seen: Mutex<Option<Stamp>>,
    throttle: Mutex<Throttle>,
    /// the log of what was changed by whom
    pub audit: Audit,
    metrics_without_token: bool,
}

impl Access {
    /// Reads the tokens. Refused where others than this machine could ask and there are none.
    pub fn open(config: &Config) -> Result<Access, ConfigError> {
        let path = tokens_path(config);
        let (known, seen) = match Stamp::of(&path) {
            None => (Known::Open, None),
            Some(stamp) => {
                let tokens = tokens::read(&path)
                    .map_err(|error| ConfigError::value("feedback.tokens", path.display(), error.to_string()))?;
                (Known::Tokens(Arc::new(tokens)), Some(stamp))
            }
        };
        let provider = config.feedback.oidc.as_ref();
        let provider = provider.map(|oidc| Provider::open(config, oidc)).transpose()?;
        if matches!(known, Known::Open) && provider.is_none() && !config.feedback.is_loopback() {
            return Err(ConfigError::value(
                "feedback.listen",
                format!("{:?}", config.feedback.listen),
                "other machines reach this address and there are no tokens: make the first one with \
                 `fluxline token create NAME --role admin`, or listen on 127.0.0.1",
            ));
        }
        Ok(Access {
            path,
            provider,
            known: watch::channel(known).0,
            seen: Mutex::new(seen),
            throttle: Mutex::new(Throttle::new(config.feedback.limits.requests_per_s)),
            audit: Audit::open(&audit_path(config)),
            metrics_without_token: config.feedback.metrics_without_token,
        })
    }

    /// The file of tokens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no tokens are in use.
    pub fn is_open(&self) -> bool {
        self.provider.is_none() && matches!(*self.known.borrow(), Known::Open)
    }

    /// What to say at start.
    pub fn sentence(&self) -> String {
        let issuer = self.provider.as_ref().map(Provider::issuer);
        let theirs = issuer.map_or_else(String::new, |issuer| format!(" and those of {issuer}"));
        match (&*self.known.borrow(), issuer) {
            (Known::Open, Some(issuer)) => format!("tokens of {issuer} are in use, and none of the appliance's own"),
            (Known::Open, None) => {
                "no tokens are in use: every program and person of this machine may arm, stop and change; \
                            `fluxline token create NAME --role admin` ends that"
                    .into()
            }
            (Known::Tokens(tokens), _) => {
                format!("{} tokens are in use ({}){theirs}", tokens.len(), self.path.display())
            }
        }
    }

    /// Looks whether the file of tokens has changed. What was closed stays closed: a file that is gone or cannot be read
    /// holds no token.
    pub fn refresh(&self) {
        if let Some(provider) = &self.provider {
            provider.keys().refresh();
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.path);
        if stamp == *seen {
            return;
        }
        let tokens = tokens::read(&self.path).unwrap_or_else(|error| {
            tracing::error!(target: "fluxline", "{}: {error}; no token holds", self.path.display());
            Vec::new()
        });
        self.known.send_replace(Known::Tokens(Arc::new(tokens)));
        *seen = stamp;
    }

    /// Keeps the identity provider's keys fresh, for as long as the process lives.
    pub async fn keep_fetching(&self) {
        if let Some(provider) = &self.provider {
            provider.keys().keep_fetching().await;
        }
    }

    /// Where a token is signed with a key that is unknown: looks for new ones first, within bounds.
    async fn look_for_key(&self, token: &str) {
        if let Some(provider) = self.provider.as_ref().filter(|provider| provider.key_is_unknown(token)) {
            provider.keys().ask_again().await;
        }
    }

    /// Who has this token, of the appliance or of the identity provider.
    fn holder(&self, token: &str) -> Result<Caller, Refusal> {
        match (self.own_holder(token), &self.provider) {
            (Some(caller), _) => Ok(caller),
            (None, Some(provider)) if token.contains('.') => provider.holder(token),
            (None, _) => Err(Refusal::Wrong("it is wrong, revoked or has ended")),
        }
    }

    /// Who has this token of the appliance.
    fn own_holder(&self, token: &str) -> Option<Caller> {
        let Known::Tokens(tokens) = self.known.borrow().clone() else {
            return None;
        };
        let digest = tokens::digest(token);
        let now = jiff::Timestamp::now();
        // Every token is looked at, each comparison takes the same time.
        let found = tokens
            .iter()
            .fold(None, |found, token| match token.digest() == Some(digest) {
                true => Some(token),
                false => found,
            });
        found.filter(|token| token.holds_at(now)).map(|token| Caller {
            name: token.name.as_str().into(),
            role: token.role,
            scope: Scope::of(&token.only),
            proof: Proof::Token(digest),
        })
    }

    /// Whether whoever asked then may still.
    pub fn holds(&self, caller: &Caller) -> bool {
        match (&*self.known.borrow(), &caller.proof) {
            (Known::Open, Proof::Open) => true,
            (Known::Tokens(tokens), Proof::Token(digest)) => {
                let now = jiff::Timestamp::now();
                let same = |token: &&Token| {
                    token.digest() == Some(*digest) && token.role == caller.role && token.only == caller.scope.entries()
                };
                tokens.iter().find(same).is_some_and(|token| token.holds_at(now))
            }
            (_, Proof::Provider { until_s, key }) => {
                let provider = self.provider.as_ref();
                provider.is_some_and(|provider| provider.holds(*until_s, key))
            }
            _ => false,
        }
    }

    /// Returns when the caller may no longer ask: what goes on for long waits for this beside its work.
    pub async fn revoked(&self, caller: &Caller) {
        let mut known = self.known.subscribe();
        while self.holds(caller) {
            // The pause is for tokens that end by the clock, and for keys that are withdrawn.
            let _ = tokio::time::timeout(Duration::from_secs(1), known.changed()).await;
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a request; the seconds to wait where there were too many.
    fn request_from(&self, client: std::net::IpAddr) -> Result<(), u64> {
        self.throttle().request(client, Instant::now())
    }

    /// Takes note of a wrong token; the seconds to wait where there were too many.
    fn wrong_from(&self, client: std::net::IpAddr) -> Result<(), u64> {
        self.throttle().wrong(client, Instant::now())
    }
}
