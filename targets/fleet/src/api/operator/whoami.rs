//! The owner of the token that a request comes with.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::auth::{By, Role, VIEWER};
use crate::error::Problem;
use crate::server::App;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get))
}

/// Owner of a token.
#[derive(Debug, Serialize, ToSchema)]
struct Owner {
    /// Name of the token, as the audit log has it.
    name: String,
    /// What its owner may do.
    role: Role,
    /// Identifier of the tenant.
    tenant: String,
    /// Name of the tenant for people.
    tenant_title: String,
}

/// Returns the name, role and tenant of the token that the request comes with.
#[utoipa::path(get, path = "/v1/whoami", tag = "tokens", extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Owner), (status = "default", body = Problem)))]
async fn get(By(who): By<VIEWER>) -> Json<Owner> {
    Json(Owner { name: who.name, role: who.role, tenant: who.tenant.id, tenant_title: who.tenant.title })
}
