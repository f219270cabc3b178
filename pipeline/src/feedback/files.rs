//! Files of closed runs as they are, whole or in part (RFC 9110, section 14), at the disk's rate: a whole run is its files one after
//! the other, and a range of frames is what a reader of HDF5 asks for, since every frame lies in one piece.

use super::error::ApiError;
use super::extract::Path;
use super::server::Asked;
use super::stored;
use crate::storage::{self, StoreError};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::io;
use std::ops::Range;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_stream::wrappers::ReceiverStream;

/// Files that are read from the disk at once; more wait. Whose client does not keep pace waits without being one of them.
static READERS: Semaphore = Semaphore::const_new(4);
/// Files that are on their way to clients; more wait.
static SENDERS: Semaphore = Semaphore::const_new(64);
/// Pieces that wait for a client.
const PIECES_AHEAD: usize = 2;
/// How long a client may take for a piece, before it is let go: 70 kB/s.
const PIECE_PATIENCE: Duration = Duration::from_secs(60);

/// What a request wants of a file of so many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    /// nothing of it is there
    Outside,
}

/// Reads a `Range` header. Units other than bytes, several ranges and what is no range at all are ignored, as the RFC
/// allows or wants.
fn wanted(range: Option<&str>, bytes: u64) -> Wanted {
    let Some((first, last)) = range
        .and_then(|range| range.trim().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Wanted::Whole;
    };
    let number = |text: &str| match text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.trim().parse::<u64>().ok(),
        false => None,
    };
    let range = match (first.trim().is_empty(), last.trim().is_empty()) {
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(bytes),
            _ => return Wanted::Whole,
        },
        (false, true) => match number(first) {
            Some(first) => first..bytes,
            None => return Wanted::Whole,
        },
        (true, false) => match number(last) {
            Some(0) => return Wanted::Outside,
            Some(last) => bytes - last.min(bytes)..bytes,
            None => return Wanted::Whole,
        },
        (true, true) => return Wanted::Whole,
    };
    if range.is_empty() {
        Wanted::Outside
    } else {
        Wanted::Part(range)
    }
}

/// A file of a closed run as it is: one that `run.json` lists, or `run.json` itself. `Range` asks for a part of it; its
/// tag is its hash.
#[utoipa::path(get, path = "/runs/{id}/files/{file}", params(("id" = String, Path), ("file" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206, content_type = "application/octet-stream"),
        (status = 404, body = ApiError), (status = 410, body = ApiError), (status = 416, body = ApiError)))]
pub async fn file(
    Asked(shared): Asked,
    Path((id, name)): Path<(String, String)>,
    method: Method,
    asked: HeaderMap,
) -> Result<Response, ApiError> {
    let found = stored::with(&shared, &id, move |run| {
        let found = storage::find_file(&run.folder, &run.record, &name)?;
        let (path, bytes) = found.ok_or_else(|| ApiError::not_found(format!("the run has no file {name:?}")))?;
        let listed = run.record.files.iter().chain(&run.record.journal);
        let tag = listed
            .filter(|file| file.name == name)
            .map(|file| format!("\"{}\"", file.hash))
            .next();
        Ok((path, bytes, tag))
    });
    let (path, bytes, tag) = found.await?;
    let text = |name| asked.get(name).and_then(|value| value.to_str().ok());
    let same = text(header::IF_RANGE).is_none_or(|condition| Some(condition) == tag.as_deref());
    let wanted = wanted(text(header::RANGE).filter(|_| same), bytes);
    let mut answer = HeaderMap::new();
    let mut put = |name, value: String| {
        if let Ok(value) = value.parse() {
            answer.insert(name, value);
        }
    };
    put(header::ACCEPT_RANGES, "bytes".into());
    if let Some(tag) = tag {
        put(header::ETAG, tag);
    }
    let kind = match path.extension().and_then(|extension| extension.to_str()) {
        Some("h5") => "application/x-hdf5",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    put(header::CONTENT_TYPE, kind.into());
    put(header::CACHE_CONTROL, "no-store".into());
    if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
        put(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""));
    }
    let (status, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0..bytes),
        Wanted::Part(range) => {
            put(
                header::CONTENT_RANGE,
                format!("bytes {}-{}/{bytes}", range.start, range.end - 1),
            );
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Wanted::Outside => {
            put(header::CONTENT_RANGE, format!("bytes */{bytes}"));
            let message = format!("the file has {bytes} bytes");
            let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", message);
            let range = answer.remove(header::CONTENT_RANGE);
            let mut response = error.into_response();
            response
                .headers_mut()
                .extend(range.map(|range| (header::CONTENT_RANGE, range)));
            return Ok(response);
        }
    };
    put(header::CONTENT_LENGTH, (range.end - range.start).to_string());
    if method == Method::HEAD || range.is_empty() {
        return Ok((status, answer).into_response());
    }
    let place = SENDERS.acquire().await.map_err(ApiError::internal)?;
    let turn = READERS.acquire().await.map_err(ApiError::internal)?;
    let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut sending = Sending {
            sender,
            turn: Some(turn),
            runtime: Handle::current(),
        };
        // Where it ends before the length that was promised the connection does, too: nobody takes it for the whole.
        if let Err(Unsent::Store(error)) = storage::read_file(&path, range, |piece| sending.send(piece)) {
            let _ = sending.sender.blocking_send(Err(io::Error::other(error)));
        }
    });
    Ok((status, answer, Body::from_stream(ReceiverStream::new(pieces))).into_response())
}

/// A file on its way to a client.
struct Sending {
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// held while the disk is read
    turn: Option<SemaphorePermit<'static>>,
    runtime: Handle,
}

impl Sending {
    /// Hands over a piece. While the client has not taken those before it, others read.
    fn send(&mut self, piece: &[u8]) -> Result<(), Unsent> {
        let piece = match self.sender.try_send(Ok(Bytes::copy_from_slice(piece))) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Unsent::Gone),
            Err(TrySendError::Full(piece)) => piece,
        };
        self.turn = None;
        let sender = &self.sender;
        self.turn = self.runtime.block_on(async {
            let sent = tokio::time::timeout(PIECE_PATIENCE, sender.send(piece)).await;
            sent.map_err(|_| Unsent::Gone)?.map_err(|_| Unsent::Gone)?;
            READERS.acquire().await.map(Some).map_err(|_| Unsent::Gone)
        })?;
        Ok(())
    }
}

/// Why a file was not sent to its end.
enum Unsent {
    /// the client has left, or takes too little
    Gone,
    Store(StoreError),
}

impl From<StoreError> for Unsent {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        use Wanted::*;
        for (range, expected) in [
            (None, Whole),
            (Some("bytes=0-0"), Part(0..1)),
            (Some("bytes=10-19"), Part(10..20)),
            (Some("bytes=90-1000"), Part(90..100)),
            (Some("bytes=90-18446744073709551615"), Part(90..100)),
            (Some("bytes=90-"), Part(90..100)),
            (Some("bytes=-10"), Part(90..100)),
            (Some("bytes=-1000"), Part(0..100)),
            (Some("bytes=100-"), Outside),
            (Some("bytes=100-200"), Outside),
            (Some("bytes=-0"), Outside),
            (Some("bytes=20-10"), Whole),
            (Some("bytes=0-1,5-6"), Whole),
            (Some("bytes=-"), Whole),
            (Some("bytes=a-b"), Whole),
            (Some("bytes=+1-2"), Whole),
            (Some("lines=0-1"), Whole),
        ] {
            assert_eq!(wanted(range, 100), expected, "{range:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Outside);
    }
}
