//! Tokens at rest: name, role and the BLAKE3 hash of 256 random bits, which needs no slower hash. The token itself is shown
//! once, when it is made, and kept in no file.

use super::roles::Role;
use super::scope;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a token begins with, so that people and scanners for secrets know one when they see it.
const PREFIX: &str = "fluxline_";
/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// Most tokens of an appliance.
const TOKENS_MAX: usize = 1024;
/// Largest file of tokens.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// the file
    #[error("{doing} {path}: {reason}")]
    Io {
        /// what was tried
        doing: &'static str,
        /// file
        path: PathBuf,
        /// the system's words
        reason: std::io::Error,
    },
    /// not what this program writes
    #[error("it is no file of tokens: {0}")]
    Content(String),
    /// a name or a time that cannot be
    #[error("{0}")]
    Request(String),
    /// the name is taken
    #[error("there is a token {0} already: revoke it first, or take another name")]
    Taken(String),
    /// no token has this name
    #[error("there is no token {0}")]
    Unknown(String),
}

/// A token as the file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// whose it is: a program, a person, a console
    pub name: String,
    /// viewer, operator or admin
    pub role: Role,
    /// proposals (`PROPOSAL`) and runs (`PROPOSAL/RUN`) that it is limited to; none is every run
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// UTC time when it was made
    pub created: jiff::Timestamp,
    /// UTC time when it ends; null where it does not
    pub expires: Option<jiff::Timestamp>,
    /// hash of the token, hexadecimal
    blake3: String,
}

impl Token {
    /// The hash of the token; none where the file has something else.
    pub fn digest(&self) -> Option<blake3::Hash> {
        blake3::Hash::from_hex(&self.blake3).ok()
    }

    /// Whether it has not ended.
    pub fn holds_at(&self, now: jiff::Timestamp) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    tokens: Vec<Token>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64, i64, i64, u64);

impl Stamp {
    /// Of the file at `path`, where there is one.
    pub fn of(path: &Path) -> Option<Stamp> {
        let facts = fs::metadata(path).ok()?;
        Some(Stamp(facts.ino(), facts.mtime(), facts.mtime_nsec(), facts.len()))
    }
}

/// Hash of a token.
pub fn digest(token: &str) -> blake3::Hash {
    blake3::hash(token.as_bytes())
}

/// The tokens of a file.
pub fn read(path: &Path) -> Result<Vec<Token>, TokenError> {
    let fail = |reason| io("reading", path, reason);
    let mut text = String::new();
    let file = File::open(path).map_err(fail)?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(fail)?;
    let file: TokenFile = serde_json::from_str(&text).map_err(|error| TokenError::Content(error.to_string()))?;
    match file.tokens.iter().find(|token| token.digest().is_none()) {
        Some(token) => Err(TokenError::Content(format!("token {} has no BLAKE3 hash", token.name))),
        None => Ok(file.tokens),
    }
}

/// Makes a token and keeps its hash; answers the token, which nothing can show again, and its record.
pub fn create(
    path: &Path,
    name: &str,
    role: Role,
    days: Option<u32>,
    only: &[String],
) -> Result<(String, Token), TokenError> {
    crate::storage::check_name("token name", name).map_err(|error| TokenError::Request(error.to_string()))?;
    if days == Some(0) || days.is_some_and(|days| days > 3650) {
        return Err(TokenError::Request(format!("days = {}: 1 to 3650", days.unwrap_or(0))));
    }
    scope::check(only)?;
    if role == Role::Admin && !only.is_empty() {
        let sentence = "an administrator makes tokens for every run: limit a viewer or an operator";
        return Err(TokenError::Request(sentence.into()));
    }
    let created = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let expires = days.map(|days| created + jiff::SignedDuration::from_hours(24 * i64::from(days)));
    let secret = format!("{PREFIX}{}", crate::storage::hex(&random()?));
    let token = Token {
        name: name.into(),
        role,
        only: only.to_vec(),
        created,
        expires,
        blake3: digest(&secret).to_hex().to_string(),
    };
    change(path, |tokens| {
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokenError::Taken(name.into()));
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(TokenError::Request(format!(
                "there are {TOKENS_MAX} tokens: revoke some first"
            )));
        }
        tokens.push(token.clone());
        Ok(())
    })?;
    Ok((secret, token))
}

/// Takes a token out of force. The file stays, also when it was the last one.
pub fn revoke(path: &Path, name: &str) -> Result<(), TokenError> {
    change(path, |tokens| {
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        match tokens.len() < before {
            true => Ok(()),
            false => Err(TokenError::Unknown(name.into())),
        }
    })
}

/// Changes the file as a whole, one program at a time; a reader sees the old one or the new one.
fn change(path: &Path, body: impl FnOnce(&mut Vec<Token>) -> Result<(), TokenError>) -> Result<(), TokenError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.exists() {
        fs::create_dir_all(folder).map_err(|reason| io("creating", folder, reason))?;
        give_to_owner_of_folder(folder);
    }
    let guard_path = path.with_extension("lock");
    let private = |path: &Path| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path).map_err(|reason| io("writing", path, reason))
    };
    let guard = private(&guard_path)?;
    give_to_owner_of_folder(&guard_path);
    guard.lock().map_err(|reason| io("locking", &guard_path, reason))?;
    let mut tokens = match read(path) {
        Err(TokenError::Io { reason, .. }) if reason.kind() == ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    body(&mut tokens)?;
    let text = serde_json::to_string_pretty(&TokenFile { tokens }).map_err(|e| TokenError::Content(e.to_string()))?;
    let part = path.with_extension("part");
    let mut file = private(&part)?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    written.map_err(|reason| io("writing", &part, reason))?;
    give_to_owner_of_folder(&part);
    fs::rename(&part, path).map_err(|reason| io("renaming", &part, reason))?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|reason| io("syncing", folder, reason))
}

/// An administrator's command must not leave files that the appliance's own account cannot read: what root makes belongs to
/// whoever owns the folder. Anybody else cannot give files away, and need not.
pub(in crate::feedback) fn give_to_owner_of_folder(path: &Path) {
    let Some(folder) = path.parent().and_then(|folder| fs::metadata(folder).ok()) else {
        return;
    };
    let _ = std::os::unix::fs::chown(path, Some(folder.uid()), Some(folder.gid()));
}

fn random() -> Result<[u8; RANDOM_BYTES], TokenError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; RANDOM_BYTES];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|reason| io("reading", path, reason))?;
    Ok(bytes)
}

fn io(doing: &'static str, path: &Path, reason: std::io::Error) -> TokenError {
    TokenError::Io {
        doing,
        path: path.to_path_buf(),
        reason,
    }
}
