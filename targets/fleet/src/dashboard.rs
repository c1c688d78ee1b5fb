//! The dashboard: pages for people on call, served by the same binary.
//!
//! Pages are whole HTML documents and work without scripts. With them a page renews itself when the server says that
//! something changed, charts are drawn and questions are asked in dialogs. The policy allows nothing inline and
//! nothing from elsewhere.

mod asset;
#[cfg(test)]
mod browser;
pub(crate) mod figure;
mod judgement;
mod live;
mod markup;
mod page;
mod picture;
mod query;
mod session;
mod source;
#[cfg(test)]
mod specimen;
mod store;
mod view;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};

pub(crate) use figure::percent;
use source::Source;

use crate::server::App;

/// What a handler needs.
#[derive(Clone)]
struct Dashboard<S> {
    source: S,
    revisions: live::Revisions,
}

/// The pages of a running server, to be merged with other routes.
pub(crate) fn pages<R: Clone + Send + Sync + 'static>(app: App) -> Router<R> {
    router(store::Pages::new(app))
}

/// The pages of a source.
fn router<S: Source, R: Clone + Send + Sync + 'static>(source: S) -> Router<R> {
    Router::new()
        .route("/", get(page::health::<S>))
        .route("/rollouts", get(page::rollouts::<S>))
        .route("/rollouts/{id}", get(page::rollout::<S>))
        .route("/rollouts/{id}/{verb}", get(page::confirm::<S>).post(page::act::<S>))
        .route("/alerts", get(page::alerts::<S>))
        .route("/alerts/news/acknowledge", post(page::acknowledge_news::<S>))
        .route("/alerts/{n}/acknowledge", post(page::acknowledge::<S>))
        .route("/serving/stop", get(page::ask_stop::<S>).post(page::stop::<S>))
        .route("/serving/resume", get(page::ask_resume::<S>).post(page::resume::<S>))
        .route("/drift", get(page::drift::<S>))
        .route("/devices", get(page::devices::<S>))
        .route("/devices/{id}", get(page::device::<S>))
        .route("/devices/{id}/revoke", post(page::revoke::<S>))
        .route("/flags", get(page::flags::<S>))
        .route("/flags/edit", get(page::flag::<S>))
        .route("/flags/preview", post(page::preview_flag::<S>))
        .route("/flags/save", post(page::save_flag::<S>))
        .route("/flags/switch", get(page::ask_switch::<S>).post(page::switch::<S>))
        .route("/audit", get(page::audit::<S>))
        .route("/login", get(page::sign_in_form).post(page::sign_in::<S>))
        .route("/logout", post(page::sign_out::<S>))
        .route("/live", get(live::live::<S>))
        .route("/assets/{name}", get(asset::asset))
        .layer(middleware::from_fn(policy))
        .with_state(Dashboard { source, revisions: live::Revisions::default() })
}

/// What browsers may do with a page.
const POLICY: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

async fn policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in POLICY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Pages are somebody's; what may be kept says so itself.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
