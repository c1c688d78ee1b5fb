//! What devices ask: a place in the fleet, news, and bytes.

mod artifact;
mod enrol;
mod poll;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;

use crate::error::{ApiError, ApiResult};
use crate::server::App;
use crate::{auth, wire};

/// Bytes of a device's body.
const MAX_BODY: usize = wire::MAX_REPORTS * (wire::MAX_REPORT + 16) + 4096;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/d/v1/enrol", post(enrol::enrol))
        .route("/d/v1/poll", post(poll::poll))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .route("/d/v1/nonce", get(nonce))
        .route("/d/v1/artifact/{hash}", get(artifact::artifact))
}

/// `GET /d/v1/nonce`: for devices without a clock.
async fn nonce(State(app): State<App>, headers: HeaderMap) -> ApiResult<String> {
    let id = headers.get(wire::DEVICE).and_then(|v| v.to_str().ok());
    let id = id.ok_or_else(|| ApiError::bad("no device", "send the header x-dunlin-device"))?;
    Ok(app.seal.nonce(id, app.clock.micros()))
}

/// A body in postcard.
fn postcard<T: Serialize>(of: &T) -> ApiResult<Response> {
    let bytes = ::postcard::to_allocvec(of).map_err(|_| ApiError::unavailable("the answer could not be encoded"))?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

fn read<'b, T: serde::Deserialize<'b>>(bytes: &'b Bytes) -> ApiResult<T> {
    match ::postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(ApiError::bad("the body does not decode", "encode it as dunlin_update::http has it")),
    }
}

/// Text that goes into the database.
fn text(what: &str, text: &str, most: usize) -> ApiResult<()> {
    if text.len() <= most && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ApiError::bad(
        format!("the {what} is too long or has control characters"),
        format!("at most {most} bytes of text"),
    ))
}

use auth::device as authenticated;
