//! Style, scripts and pictures, embedded. `assets/vendor/README.md` says where the vendored ones are from.

use std::sync::OnceLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Name, type, bytes.
pub(crate) const ASSETS: [(&str, &str, &[u8]); 6] = [
    ("fleet.css", CSS, include_bytes!("../../assets/fleet.css")),
    ("fleet.js", JAVASCRIPT, include_bytes!("../../assets/fleet.js")),
    ("bird.svg", "image/svg+xml", include_bytes!("../../assets/bird.svg")),
    ("htmx.js", JAVASCRIPT, include_bytes!("../../assets/vendor/htmx.js")),
    ("uplot.js", JAVASCRIPT, include_bytes!("../../assets/vendor/uplot.js")),
    ("uplot.css", CSS, include_bytes!("../../assets/vendor/uplot.css")),
];

/// An asset, or that it is the one the browser has.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    static TAGS: OnceLock<[String; ASSETS.len()]> = OnceLock::new();
    let tags =
        TAGS.get_or_init(|| ASSETS.map(|(_, _, bytes)| format!("\"{}\"", super::session::hex(&Sha256::digest(bytes)))));
    let Some(((_, kind, bytes), tag)) = ASSETS.iter().zip(tags).find(|((n, ..), _)| *n == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // Asked for each time, so that a new server never meets an old script.
    let about = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache"), (header::CONTENT_TYPE, kind)];
    match headers.get(header::IF_NONE_MATCH) {
        Some(known) if known == tag.as_str() => (StatusCode::NOT_MODIFIED, about).into_response(),
        _ => (about, *bytes).into_response(),
    }
}
