//! The page, embedded when the program is built.

use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "web/dist/"]
struct Assets;

const NOT_BUILT: &str = "<!doctype html><title>Fluxline</title><p>This program was built without its page. \
     Run <code>make page</code> and build it again. The interface is described in \
     <a href=\"/api/v1/openapi.json\">openapi.json</a>.";

/// Any path that is not the interface's: a file of the page, or the page itself.
pub async fn serve(uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    if path.starts_with("api/") {
        return super::error::ApiError::not_found(format!("there is no {}", uri.path())).into_response();
    }
    let path = if path.is_empty() { "index.html" } else { path };
    match Assets::get(path).or_else(|| (!path.contains('.')).then(|| Assets::get("index.html")).flatten()) {
        Some(file) => {
            let kind = mime_guess::from_path(path).first_or(mime_guess::mime::TEXT_HTML_UTF_8);
            // Built files carry a hash in their name; the page itself must be asked for again.
            let cache = if path.starts_with("assets/") {
                "public, max-age=31536000, immutable"
            } else {
                "no-cache"
            };
            let headers = [(header::CONTENT_TYPE, kind.as_ref()), (header::CACHE_CONTROL, cache)];
            (headers, file.data).into_response()
        }
        None if path == "index.html" => ([(header::CONTENT_TYPE, "text/html")], NOT_BUILT).into_response(),
        None => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
    }
}
