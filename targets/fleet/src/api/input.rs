//! What comes in, with refusals that say what is wrong.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// The bytes of a body, of bounded length.
pub(crate) struct Body(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(),
            _ => ApiError::bad("the body ended early", "send as many bytes as content-length says"),
        })
    }
}

/// A body of JSON.
pub(crate) struct Input<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Body(bytes) = Body::from_request(request, state).await?;
        // No body is an empty object: where everything has a default nothing has to be sent.
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| {
            ApiError::bad(format!("the body is not what is expected: {error}"), "see /openapi.json for its fields")
        })
    }
}

/// What is asked for after the question mark.
pub(crate) struct Ask<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Ask<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(q)| Self(q)).map_err(|e| ApiError::bad(e.body_text(), "see /openapi.json for the parameters"))
    }
}

/// How a list is asked for.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// Goes on after this one, the last of the page before.
    #[serde(default)]
    pub(crate) after: String,
    /// Entries at most, up to 1000.
    #[serde(default = "hundred")]
    pub(crate) limit: u32,
}

fn hundred() -> u32 {
    100
}

impl Page {
    pub(crate) fn limit(&self) -> i64 {
        self.limit.clamp(1, 1000).into()
    }

    /// The number after which to go on.
    pub(crate) fn number(&self) -> Result<i64, ApiError> {
        if self.after.is_empty() {
            return Ok(0);
        }
        self.after
            .parse()
            .map_err(|_| ApiError::bad(format!("after={:?} is no number", self.after), "give the last `n`"))
    }
}

/// A name that people choose: letters, digits, `-`, `_` and `.`, at most 64.
pub(crate) fn name(what: &str, text: &str) -> Result<(), ApiError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(good) && !text.starts_with('.') {
        return Ok(());
    }
    Err(ApiError::bad(format!("{text:?} is no name for a {what}"), "use 1 to 64 of letters, digits, - _ and ."))
}

/// A digest as it is written in paths and bodies.
pub(crate) fn digest(text: &str) -> Result<[u8; 32], ApiError> {
    crate::hex::unhex_array(text)
        .filter(|_| text.chars().all(|c| !c.is_ascii_uppercase()))
        .ok_or_else(|| ApiError::bad(format!("{text:?} is no digest"), "a digest has 64 lower-case hexadecimal digits"))
}
