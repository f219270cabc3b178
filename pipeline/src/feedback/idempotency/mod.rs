//! `Idempotency-Key`: a call that is sent again, because its answer was lost on the way, does nothing a second time and gets
//! the answer of the first. A key belongs to whoever sent it, and to one address and body.
//!
//! Answers lie in memory and in a file beside the store's catalogue, for [`WINDOW`] and within bounds, so that they outlive the
//! process. One that refuses (4xx) is not kept: nothing was done, and the same call may succeed later.

mod kept;

use super::access::Caller;
use super::error::ApiError;
use super::server::{BODY_BYTES_MAX, Shared};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kept::KeptFile;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_stream::StreamExt;

/// How long an answer is kept.
pub const WINDOW: Duration = Duration::from_secs(3600);
/// Most keys that are known; past it the oldest answers go before their time.
const KEYS_MAX: usize = 4096;
/// Most bytes of kept answers; past it the oldest go, too.
const BYTES_MAX: usize = 16 << 20;
/// Longest key.
const KEY_CHARS: usize = 128;
/// Time that an answer waits for a disk that is slow before it is told all the same.
const DISK: Duration = Duration::from_secs(1);
/// Largest answer of a call that takes a key.
const ANSWER_BYTES_MAX: usize = 4 << 20;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a call was answered.
#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn response(self, again: bool) -> Response {
        let mut response = (self.status, self.body).into_response();
        *response.headers_mut() = self.headers;
        if again {
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert(REPLAYED, yes);
        }
        response
    }

    /// Whether the call did something, or may have.
    fn binds(&self) -> bool {
        !self.status.is_client_error()
    }
}

/// A call with a key: what was asked, and its answer once there is one.
struct Entry {
    asked: blake3::Hash,
    answer: watch::Receiver<Option<Answer>>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<blake3::Hash, Entry>,
    /// answered ones, oldest first, with the time at which they are over and the size of their answers
    answered: VecDeque<(blake3::Hash, Instant, usize)>,
    bytes: usize,
}

impl Table {
    fn make_room(&mut self, now: Instant) {
        while let Some((key, until, bytes)) = self.answered.front().copied() {
            let old = now >= until;
            if !old && self.entries.len() < KEYS_MAX && self.bytes <= BYTES_MAX {
                return;
            }
            self.answered.pop_front();
            self.entries.remove(&key);
            self.bytes -= bytes;
        }
    }
}

/// The keys that are known.
#[derive(Default)]
pub struct Keys {
    table: Mutex<Table>,
    /// none in tests of the table
    file: Option<Arc<KeptFile>>,
}

/// What a call with a key finds.
enum Found {
    /// nobody has asked this; whoever holds it does the work
    New(Work),
    /// somebody has, and the answer comes here
    Known(watch::Receiver<Option<Answer>>),
    /// the key belongs to another call
    Other,
    /// as many calls go on as there may be keys
    Full,
}

/// The right to do the work of a key. Dropped without an answer, the key is free again.
struct Work {
    keys: Arc<Keys>,
    key: blake3::Hash,
    asked: blake3::Hash,
    answer: watch::Sender<Option<Answer>>,
    answered: bool,
}

impl Work {
    /// Tells the answer; whether it is kept is for [`Answer::binds`] to say.
    fn end(mut self, answer: &Answer, now: Instant) {
        if !answer.binds() {
            return;
        }
        self.answered = true;
        let bytes = answer.body.len();
        {
            let mut table = self.keys.table();
            table.bytes += bytes;
            table.answered.push_back((self.key, now + WINDOW, bytes));
        }
        self.answer.send_replace(Some(answer.clone()));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.answered {
            self.keys.table().entries.remove(&self.key);
        }
    }
}

impl Keys {
    /// Those of the file at `path` that are not over.
    pub fn open(path: &Path, now: Instant) -> Keys {
        let (file, kept) = KeptFile::open(path);
        let mut table = Table::default();
        for kept in kept {
            let bytes = kept.answer.body.len();
            let entry = Entry {
                asked: kept.asked,
                answer: watch::channel(Some(kept.answer)).1,
            };
            table.entries.insert(kept.key, entry);
            table.answered.push_back((kept.key, now + kept.rest, bytes));
            table.bytes += bytes;
        }
        Keys {
            table: Mutex::new(table),
            file: Some(Arc::new(file)),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(self: &Arc<Self>, key: blake3::Hash, asked: blake3::Hash, now: Instant) -> Found {
        let mut table = self.table();
        table.make_room(now);
        if let Some(entry) = table.entries.get(&key) {
            return match entry.asked == asked {
                true => Found::Known(entry.answer.clone()),
                false => Found::Other,
            };
        }
        if table.entries.len() >= KEYS_MAX {
            return Found::Full;
        }
        let (sender, answer) = watch::channel(None);
        table.entries.insert(key, Entry { asked, answer });
        Found::New(Work {
            keys: self.clone(),
            key,
            asked,
            answer: sender,
            answered: false,
        })
    }
}

/// Sees to it that a call with a key is done once. Stands behind the door: whoever asks again is let in again.
pub async fn once(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (Some(key), Some(caller)) = (
        request.headers().get(KEY).cloned(),
        request.extensions().get::<Caller>().cloned(),
    ) else {
        return next.run(request).await;
    };
    match answer(&shared, &key, &caller, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(
    shared: &Shared,
    key: &HeaderValue,
    caller: &Caller,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let key = owned_key(key, caller)?;
    let body = whole(body).await?;
    let asked = fingerprint(&parts, &body);
    loop {
        let mut known = match shared.keys.find(key, asked, Instant::now()) {
            Found::New(work) => {
                // The body's length is what was gathered, however it came.
                parts.headers.remove(header::TRANSFER_ENCODING);
                let request = Request::from_parts(parts, Body::from(body));
                // A task of its own: a client that leaves in the middle finds the answer when it comes back.
                let done = tokio::spawn(first(work, request, next));
                return done.await.map_err(ApiError::internal)?;
            }
            Found::Known(answer) => answer,
            Found::Other => {
                let message =
                    "this Idempotency-Key was sent with another call within the last hour: a new call needs a new key";
                return Err(ApiError::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency_key",
                    message,
                ));
            }
            Found::Full => {
                let message = format!("{KEYS_MAX} calls with an Idempotency-Key are going on");
                return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "idempotency_key", message));
            }
        };
        // Whoever does the work may be refused, and then it is this one's turn.
        if let Ok(answer) = known.wait_for(Option::is_some).await
            && let Some(answer) = answer.clone()
        {
            return Ok(answer.response(true));
        }
    }
}

/// Does the work and keeps its answer.
async fn first(work: Work, request: Request, next: Next) -> Result<Response, ApiError> {
    let (parts, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, ANSWER_BYTES_MAX).await.map_err(ApiError::internal)?;
    let answer = Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    };
    keep(&work, &answer).await;
    work.end(&answer, Instant::now());
    Ok(answer.response(false))
}

/// Writes an answer to the file before it is told: what somebody has heard, a process that is killed then still knows. Whoever
/// ends a run does not wait for a disk that is slow.
async fn keep(work: &Work, answer: &Answer) {
    let Some(file) = work.keys.file.clone().filter(|_| answer.binds()) else {
        return;
    };
    let (key, asked, answer) = (work.key, work.asked, answer.clone());
    let written = tokio::task::spawn_blocking(move || file.add(key, asked, &answer));
    if tokio::time::timeout(DISK, written).await.is_err() {
        tracing::warn!(target: "fluxline", "an answer was told before it was on the disk, which is slow");
    }
}

/// The key as its sender's own: another's key of the same text is another key.
fn owned_key(key: &HeaderValue, caller: &Caller) -> Result<blake3::Hash, ApiError> {
    let bytes = key.as_bytes();
    let good = (1..=KEY_CHARS).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    if !good {
        let message = format!("Idempotency-Key: expected 1 to {KEY_CHARS} visible ASCII characters");
        return Err(ApiError::bad_request(message));
    }
    let mut hasher = blake3::Hasher::new();
    caller.identify(&mut hasher);
    Ok(hasher.update(b"\0").update(bytes).finalize())
}

fn fingerprint(parts: &Parts, body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let kind = parts.headers.get(header::CONTENT_TYPE);
    for part in [
        parts.uri.path().as_bytes(),
        parts.uri.query().unwrap_or_default().as_bytes(),
        kind.map_or(&[][..], HeaderValue::as_bytes),
        body,
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| ApiError::bad_request(error.to_string()))?);
        if bytes.len() > BODY_BYTES_MAX {
            let message = format!("a body that comes with an Idempotency-Key has at most {BODY_BYTES_MAX} bytes");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
        }
    }
    Ok(bytes.into())
}

/// Writes into an OpenAPI document which calls take a key.
pub fn describe(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    let minutes = WINDOW.as_secs() / 60;
    let parameter = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "schema": { "type": "string", "minLength": 1, "maxLength": KEY_CHARS, "pattern": "^[!-~]+$" },
        "description": format!(
            "Any text that is new for every new call. Sent again by the same token with the same address and body within {minutes} \
             minutes, the call is not done again: the answer is the first one's, with the header `Idempotency-Replayed: true`. With \
             another body it is refused (422). So, too, after the appliance was started anew; answers that show a token are not kept then. Calls that were refused (4xx) may be tried again with the same key."),
    });
    for operation in paths.values_mut().filter_map(|item| item.get_mut("post")) {
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(parameter.clone()),
            None => operation["parameters"] = json!([parameter]),
        }
        if operation["responses"]["422"].is_null() {
            let error = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/ApiError" } } });
            let words = "this Idempotency-Key belongs to another call";
            operation["responses"]["422"] = json!({ "description": words, "content": error });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: StatusCode, bytes: usize) -> Answer {
        Answer {
            status,
            headers: HeaderMap::new(),
            body: vec![b'x'; bytes].into(),
        }
    }

    fn hash(text: impl std::fmt::Display) -> blake3::Hash {
        blake3::hash(text.to_string().as_bytes())
    }

    fn work(keys: &Arc<Keys>, key: blake3::Hash, asked: blake3::Hash, now: Instant) -> Option<Work> {
        match keys.find(key, asked, now) {
            Found::New(work) => Some(work),
            _ => None,
        }
    }

    #[test]
    fn a_key_is_one_call_until_its_hour_is_over() {
        let (keys, start) = (Arc::new(Keys::default()), Instant::now());
        let (key, asked) = (hash("key"), hash("body"));
        let first = work(&keys, key, asked, start).expect("new");
        let Found::Known(waits) = keys.find(key, asked, start) else {
            panic!("it is going on");
        };
        assert!(waits.borrow().is_none());
        assert!(matches!(keys.find(key, hash("other"), start), Found::Other));
        first.end(&answer(StatusCode::CREATED, 10), start);
        assert_eq!(waits.borrow().as_ref().unwrap().status, StatusCode::CREATED);
        let late = start + WINDOW - Duration::from_secs(1);
        assert!(matches!(keys.find(key, asked, late), Found::Known(_)));
        assert!(work(&keys, key, asked, start + WINDOW).is_some(), "over");
        assert_eq!(keys.table().bytes, 0);
    }

    #[test]
    fn what_was_refused_or_ended_without_an_answer_may_be_tried_again_and_what_failed_may_not() {
        let (keys, now) = (Arc::new(Keys::default()), Instant::now());
        let (key, asked) = (hash("key"), hash("body"));
        work(&keys, key, asked, now)
            .expect("new")
            .end(&answer(StatusCode::CONFLICT, 1), now);
        drop(work(&keys, key, asked, now).expect("refused"));
        let again = work(&keys, key, asked, now).expect("left");
        again.end(&answer(StatusCode::INTERNAL_SERVER_ERROR, 1), now);
        assert!(matches!(keys.find(key, asked, now), Found::Known(_)));
    }

    #[test]
    fn answers_outlive_the_process_for_their_hour_and_no_token_is_among_them() {
        let folder = std::env::temp_dir().join(format!("fluxline-keys-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let path = folder.join("state/keys.jsonl");
        let open = || Arc::new(Keys::open(&path, Instant::now()));
        let (keys, now) = (open(), Instant::now());
        assert!(!path.exists(), "nothing to keep yet");
        let asked = hash("body");
        let keep = |keys: &Arc<Keys>, key: &str, answer: &Answer| {
            keys.file.as_ref().unwrap().add(hash(key), asked, answer);
            work(keys, hash(key), asked, now).expect("new").end(answer, now);
        };
        keep(&keys, "a", &answer(StatusCode::CREATED, 10));
        let mut token = answer(StatusCode::CREATED, 10);
        token
            .headers
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        keep(&keys, "token", &token);
        drop(keys);
        // A line that a crash cut short, and one that is over.
        let mut text = std::fs::read_to_string(&path).unwrap();
        let over = text
            .replacen("\"at_s\":", "\"at_s\":1,\"x\":", 1)
            .replace(&hash("a").to_hex()[..], &hash("old").to_hex()[..]);
        text = format!("{over}{text}{}", &text[..text.len() / 2]);
        std::fs::write(&path, text).unwrap();
        let keys = open();
        let Found::Known(known) = keys.find(hash("a"), asked, Instant::now()) else {
            panic!("it is known");
        };
        assert_eq!(known.borrow().as_ref().unwrap().body.len(), 10);
        assert!(matches!(
            keys.find(hash("a"), hash("other"), Instant::now()),
            Found::Other
        ));
        for new in ["token", "old"] {
            assert!(work(&keys, hash(new), asked, Instant::now()).is_some(), "{new}");
        }
        assert_eq!(keys.table().bytes, 10);
        // The line that was cut does not spoil the one behind it.
        keep(&keys, "b", &answer(StatusCode::OK, 5));
        assert!(matches!(open().find(hash("b"), asked, Instant::now()), Found::Known(_)));
        assert!(
            work(&open(), hash("a"), asked, Instant::now() + WINDOW).is_some(),
            "over"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn memory_is_bounded_by_number_and_by_bytes() {
        let (keys, now) = (Arc::new(Keys::default()), Instant::now());
        let going: Vec<Work> = (0..KEYS_MAX)
            .map(|n| work(&keys, hash(n), hash("body"), now).expect("new"))
            .collect();
        assert!(matches!(keys.find(hash("more"), hash("body"), now), Found::Full));
        for work in going {
            work.end(&answer(StatusCode::OK, BYTES_MAX / 1024), now);
        }
        drop(work(&keys, hash("more"), hash("body"), now).expect("room"));
        assert!(keys.table().entries.len() <= 1024 && keys.table().bytes <= BYTES_MAX);
        assert!(matches!(
            keys.find(hash(KEYS_MAX - 1), hash("body"), now),
            Found::Known(_)
        ));
    }
}
