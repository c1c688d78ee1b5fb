//! Answers that are not what was asked for: `{"error", "hint"}` with the right status.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// What is wrong, and what to do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What is wrong.
    pub(crate) error: String,
    /// What to do.
    pub(crate) hint: String,
}

/// A request that was not done.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) problem: Box<Problem>,
    pub(crate) retry_after: Option<u64>,
}

/// What handlers return.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, problem: Box::new(Problem { error: error.into(), hint: hint.into() }), retry_after: None }
    }

    /// 400: the request itself is wrong.
    pub(crate) fn bad(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    /// 401: nobody that is known.
    pub(crate) fn unauthorized(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error, hint)
    }

    /// 403: somebody who may not.
    pub(crate) fn forbidden(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, error, hint)
    }

    /// 404: no such thing here. The same whether it is nowhere or another tenant's.
    pub(crate) fn missing(what: &str, id: &str) -> Self {
        let list = match what {
            "tenant" => "GET /v1/tenants lists those that there are",
            "token" => "GET /v1/tokens lists those that there are",
            "package" => "GET /v1/packages lists those that are published",
            "rollout" => "GET /v1/rollouts lists those that there are",
            "device" => "GET /v1/devices lists those that are enrolled",
            "digest" => "GET /v1/packages lists those that are published, GET /v1/devices those that devices run",
            "alert" => "GET /v1/alerts lists those that there are",
            "flag" => "GET /v1/flags lists those that there are",
            "artifact" => "poll for a new offer",
            _ => "see /openapi.json for what there is",
        };
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} {id:?}"), list)
    }

    /// 404: no such thing here, with a hint of its own.
    pub(crate) fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, hint)
    }

    /// 409: not in this state, or something else has that name.
    pub(crate) fn conflict(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error, hint)
    }

    /// 422: well-formed, and not acceptable.
    pub(crate) fn unacceptable(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error, hint)
    }

    /// 404: no such route.
    pub(crate) fn no_route(method: &str, path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no route {method} {path}"),
            "see /openapi.json for the routes",
        )
    }

    /// 405: another method.
    pub(crate) fn no_method(method: &str, path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        let text = format!("{path} does not take {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, text, "see the header allow, and /openapi.json for the routes")
    }

    /// 408: it did not come in time.
    pub(crate) fn too_slow() -> Self {
        let text = "the request was not all here in time, or took too long";
        Self::new(StatusCode::REQUEST_TIMEOUT, text, "send it again, over a faster line or in smaller parts")
    }

    /// 413: larger than it may be.
    pub(crate) fn body_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than this route takes",
            "send less at once, or raise the limit in the server's configuration",
        )
    }

    /// 429 with Retry-After.
    pub(crate) fn too_many(what: &str, seconds: u64) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("{what} sends more requests than it may"),
            "wait for as many seconds as Retry-After says",
        );
        error.retry_after = Some(seconds.max(1));
        error
    }

    /// 507: the tenant's quota is used up.
    pub(crate) fn quota(what: &str, most: i64) -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            format!("the tenant may have {most} {what}, and has"),
            "delete what is not needed with DELETE /v1/packages/{digest} or DELETE /v1/devices/{device}, or have the \
             installation raise the quota with PUT /v1/tenants/{tenant}",
        )
    }

    /// 503 with Retry-After: worth trying again.
    pub(crate) fn unavailable(error: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again after Retry-After seconds");
        error.retry_after = Some(5);
        error
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "database");
        Self::unavailable("the database did not answer")
    }
}

impl From<object_store::Error> for ApiError {
    fn from(error: object_store::Error) -> Self {
        tracing::error!(%error, "artifacts");
        Self::unavailable(match error {
            object_store::Error::NotFound { .. } => "the artifact store has lost it: put the bucket or folder back",
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                "the artifact store does not accept the server's credentials"
            }
            _ => "the artifact store did not answer",
        })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.problem)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
