//! What operators do, one file a group of routes.

mod devices;
mod drift;
pub(super) mod flags;
mod packages;
mod plan;
mod rollouts;
pub(crate) mod serving;
mod tenants;
mod tokens;
mod watch;
mod whoami;

use axum::Router;
use utoipa_axum::router::OpenApiRouter;

use crate::server::App;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(tenants::router())
        .merge(tokens::router())
        .merge(devices::router())
        .merge(packages::router())
        .merge(rollouts::router())
        .merge(flags::router())
        .merge(serving::router())
        .merge(drift::router())
        .merge(watch::router())
        .merge(whoami::router())
}

/// Routes whose bodies are artifacts. Their description is in [`router`]'s document.
pub(super) fn uploads(most: usize) -> Router<App> {
    packages::uploads(most)
}
