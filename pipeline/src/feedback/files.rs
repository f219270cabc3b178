//! The files of a closed run over HTTP, as they lie in the store.

use super::error::ApiError;
use super::server::Shared;
use super::stored;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::fs::File;
use std::io::Read;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

/// Bytes read at once; as many again wait for whoever downloads.
const PIECE_BYTES: usize = 1 << 20;

type Piece = Result<Bytes, std::io::Error>;

/// Reads on as fast as the pieces are taken; no thread waits for a slow reader.
async fn read_on(mut file: File, to: Sender<Piece>) {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE_BYTES];
            let read = file.read(&mut piece);
            (
                file,
                read.map(|bytes| {
                    piece.truncate(bytes);
                    Bytes::from(piece)
                }),
            )
        });
        let Ok((same, piece)) = read.await else { return };
        file = same;
        match piece {
            Ok(piece) if piece.is_empty() => return,
            Ok(piece) => {
                if to.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // The connection breaks off, so that nobody takes the file for whole.
                let _ = to.send(Err(error)).await;
                return;
            }
        }
    }
}

/// A file of a closed run by its name; the run's record lists them.
#[utoipa::path(get, path = "/runs/{id}/files/{name}", responses(
    (status = 200, content_type = "application/octet-stream"), (status = 404, body = ApiError), (status = 410, body = ApiError)))]
pub async fn file(
    State(shared): State<Shared>,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let open = move |run: &stored::StoredRun| {
        // Names of the record only: what somebody asks for is never a path.
        let known = run.record.files.iter().find(|file| file.name == name);
        let known = known.ok_or_else(|| ApiError::not_found(format!("the run has no file {name:?}")))?;
        let file = File::open(run.folder.join(&known.name)).map_err(ApiError::internal)?;
        let bytes = file.metadata().map_err(ApiError::internal)?.len();
        Ok((file, bytes, known.name.clone()))
    };
    let (file, bytes, name) = stored::with(&shared, &id, open).await?;
    let (to, pieces) = channel(1);
    tokio::spawn(read_on(file, to));
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_string()),
        (header::CONTENT_LENGTH, bytes.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CACHE_CONTROL, "no-store".to_string()),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(pieces))).into_response())
}
