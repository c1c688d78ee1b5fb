//! Tokens of the tenant.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::{Input, name};
use crate::auth::{ADMIN, By, Role, fresh_token};
use crate::error::{ApiError, ApiResult, Problem};
use crate::server::App;
use crate::store::tokens::{self, Token};
use crate::store::{audit, signed, tenants};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(put, delete))
}

/// The tenant's tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", extensions(("x-role" = json!("admin"))),
    responses((status = 200, body = Vec<Token>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, By(who): By<ADMIN>) -> ApiResult<Json<Vec<Token>>> {
    Ok(Json(tokens::list(&mut *app.store.read().await?, &who.tenant.id).await?))
}

/// What a new token is for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// What its owner may do.
    role: Role,
    /// Another tenant's; for the installation's administrators.
    tenant: Option<String>,
}

/// A new token.
#[derive(Debug, Serialize, ToSchema)]
struct Made {
    /// Its name.
    name: String,
    /// Its secret. It is kept nowhere, and this is the only time it is shown.
    secret: String,
}

/// Makes a token. Its name can be used once; a secret that got lost is replaced by a token of another name.
#[utoipa::path(put, path = "/v1/tokens/{name}", tag = "tokens", request_body = Wanted,
    extensions(("x-role" = json!("admin"))), params(("name" = String, Path, description = "Its name in the audit log")),
    responses((status = 200, body = Made), (status = "default", body = Problem)))]
async fn put(
    State(app): State<App>,
    By(who): By<ADMIN>,
    Path(id): Path<String>,
    Input(wanted): Input<Wanted>,
) -> ApiResult<Json<Made>> {
    name("token", &id)?;
    let tenant = match wanted.tenant {
        Some(other) if other != who.tenant.id => {
            who.of_installation()?;
            other
        }
        _ => who.tenant.id.clone(),
    };
    let (secret, hash) = fresh_token().map_err(|_| ApiError::unavailable("no randomness"))?;
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    if tenants::get(&mut tx, &tenant).await?.is_none() {
        return Err(ApiError::missing("tenant", &tenant));
    }
    if !tokens::create(&mut tx, &tenant, &id, &hash, wanted.role, now).await? {
        return Err(ApiError::conflict(format!("there is a token {id:?}"), "choose another name"));
    }
    audit::append(&mut tx, &tenant, now, &who.name, "token.create", &id, &json!({ "role": wanted.role })).await?;
    tx.commit().await?;
    Ok(Json(Made { name: id, secret }))
}

/// Revokes a token.
#[utoipa::path(delete, path = "/v1/tokens/{name}", tag = "tokens", extensions(("x-role" = json!("admin"))),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Vec<Token>), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, By(who): By<ADMIN>, Path(id): Path<String>) -> ApiResult<Json<Vec<Token>>> {
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    if !tokens::revoke(&mut tx, &who.tenant.id, &id, now).await? {
        return Err(ApiError::missing("token", &id));
    }
    audit::append(&mut tx, &who.tenant.id, now, &who.name, "token.revoke", &id, &json!({})).await?;
    let list = tokens::list(&mut tx, &who.tenant.id).await?;
    tx.commit().await?;
    Ok(Json(list))
}
