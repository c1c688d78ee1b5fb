//! Routes: devices under `/d/v1`, operators under `/v1`, and what monitors the server.

mod device;
mod input;
mod operator;

use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::auth::{Principal, Role};
use crate::error::ApiError;
use crate::gauges;
use crate::server::App;

/// The tenant of the installation's administrators.
const SYSTEM: &str = "system";
/// Bytes of a body of JSON.
const MAX_JSON: usize = 256 << 10;

#[derive(OpenApi)]
#[openapi(info(
    title = "Dunlin fleet",
    description = "Operators' interface. Every request carries `Authorization: Bearer TOKEN`; `x-role` is the least \
                   role that may do it. Errors are `{error, hint}`. Writing the same thing again changes nothing."
))]
struct Document;

fn operators() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi()).merge(operator::router())
}

/// The description of the operators' routes, as `/openapi.json` gives it.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    operators().split_for_parts().1
}

/// All routes.
pub(crate) fn router(app: App) -> Router {
    let (operators, document) = operators().split_for_parts();
    let document = Json(document);
    Router::new()
        .merge(operators)
        .layer(DefaultBodyLimit::max(MAX_JSON))
        .merge(operator::uploads(app.max_artifact))
        .merge(device::router())
        .merge(crate::dashboard::pages(app.clone()))
        .route("/openapi.json", get(move || std::future::ready(document.clone())))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(ready))
        .fallback(async |method: Method, uri: Uri| ApiError::no_route(method.as_str(), uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::no_method(method.as_str(), uri.path()))
        .layer(middleware::from_fn_with_state(app.clone(), in_time))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

/// `/metrics` alone, of all tenants and without a token.
pub(crate) fn metrics_router(app: App) -> Router {
    let all = async |State(app): State<App>| {
        let gauges = gauges::collected(&app).await?;
        Ok::<_, ApiError>(prometheus(&app, &gauges.text(None)))
    };
    Router::new().route("/metrics", get(all)).with_state(app)
}

fn prometheus(app: &App, gauges: &str) -> Response {
    let text = app.metrics.text() + &gauges::server(app) + gauges;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// The server's own numbers for everybody; with a token also the gauges of its tenant, with one of the installation those of
/// all tenants.
async fn metrics(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(prometheus(&app, ""));
    }
    let who = Principal::of(&headers, &app).await?;
    who.at_least(Role::Viewer)?;
    let tenant = Some(who.tenant.id.as_str()).filter(|id| *id != SYSTEM);
    Ok(prometheus(&app, &gauges::collected(&app).await?.text(tenant)))
}

async fn ready(State(app): State<App>) -> Result<&'static str, ApiError> {
    if *app.stopping.borrow() {
        return Err(ApiError::unavailable("the server is stopping"));
    }
    app.store.ping().await?;
    Ok("ready\n")
}

/// Bytes a second that a body has to come with at least.
const SLOWEST: u64 = 16 << 10;

/// Answers in time, or says that it came too slowly. What is answered may then take its time.
async fn in_time(State(app): State<App>, request: Request, next: Next) -> Response {
    let len = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    // Only packages are long, and only who may publish gets so far as to send one.
    let longest = if request.uri().path().starts_with("/v1/packages/") { app.max_artifact } else { 1 << 20 } as u64;
    let most = 2 * app.patience + Duration::from_secs(len.unwrap_or(longest).min(longest) / SLOWEST);
    match tokio::time::timeout(most, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::too_slow().into_response(),
    }
}

async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let status = response.status();
    app.metrics.request(status.as_u16(), micros);
    if path == crate::wire::POLL_PATH {
        app.metrics.poll_seconds.add(micros);
    }
    if status.is_server_error() {
        tracing::warn!(%method, path, status = status.as_u16(), micros, "request");
    } else {
        tracing::debug!(%method, path, status = status.as_u16(), micros, "request");
    }
    response
}
