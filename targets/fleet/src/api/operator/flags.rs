//! Flags: what operators set, as the signed document that devices evaluate.

use axum::Json;
use axum::extract::State;
use dunlin_rollout::flag::{Document, FlagSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::Input;
use crate::auth::{By, OPERATOR, VIEWER};
use crate::error::{ApiError, ApiResult, Problem};
use crate::server::App;
use crate::store::flags::{self, Stored};
use crate::store::{audit, signed, unsigned};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, put))
}

/// All flags together.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Flags {
    /// The version these replace, 0 for the first; in answers the version in force.
    version: u64,
    /// Seconds after which a device that hears nothing new says that they are stale; 0: never.
    #[serde(default)]
    ttl: u32,
    /// The flags, as `dunlin-rollout` has them: key, killed, off, default, variants, rules.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    flags: Vec<FlagSpec>,
}

/// The flags in force.
#[utoipa::path(get, path = "/v1/flags", tag = "flags", extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Flags), (status = "default", body = Problem)))]
async fn get(State(app): State<App>, By(who): By<VIEWER>) -> ApiResult<Json<Flags>> {
    let stored = flags::get(&mut *app.store.read().await?, &who.tenant.id).await?;
    let Some(stored) = stored else { return Ok(Json(Flags { version: 0, ttl: 0, flags: Vec::new() })) };
    let mut known: Flags =
        serde_json::from_str(&stored.request).map_err(|_| ApiError::unavailable("the stored flags do not decode"))?;
    known.version = unsigned(stored.version);
    Ok(Json(known))
}

/// Replaces all flags. Devices get the signed document with their next poll.
#[utoipa::path(put, path = "/v1/flags", tag = "flags", request_body = Flags, extensions(("x-role" = json!("operator"))),
    responses((status = 200, body = Flags), (status = "default", body = Problem)))]
async fn put(State(app): State<App>, By(who): By<OPERATOR>, Input(mut wanted): Input<Flags>) -> ApiResult<Json<Flags>> {
    let tenant = who.tenant.id.as_str();
    let now = app.clock.seconds();
    let mut tx = app.store.write().await?;
    let before = flags::get(&mut tx, tenant).await?;
    let version = before.as_ref().map_or(0, |f| unsigned(f.version));
    let text =
        serde_json::to_string(&wanted).map_err(|_| ApiError::bad("the flags do not encode", "see /openapi.json"))?;
    if version == wanted.version + 1 && before.is_some_and(|f| f.request == text) {
        // The same request again.
        wanted.version = version;
        return Ok(Json(wanted));
    }
    if version != wanted.version {
        return Err(ApiError::conflict(
            format!("the flags are of version {version}"),
            "read them, change them, and put them with that version",
        ));
    }
    let document = Document { sequence: version + 1, issued: now, ttl: wanted.ttl, flags: wanted.flags.clone() };
    let payload =
        document.encode().map_err(|e| ApiError::unacceptable(e.to_string(), "change the flags so that it holds"))?;
    let signed_document =
        app.documents.flags(tenant, &payload).map_err(|e| ApiError::unacceptable(e, "set fewer or smaller flags"))?;
    let stored = Stored { version: signed(version + 1), request: text, document: signed_document };
    if !flags::put(&mut tx, tenant, &stored, signed(now)).await? {
        return Err(ApiError::conflict("somebody else put flags at this moment", "read them again"));
    }
    let keys: Vec<&str> = wanted.flags.iter().map(|f| f.key.as_str()).collect();
    let detail = json!({ "version": version + 1, "keys": keys });
    audit::append(&mut tx, tenant, signed(now), &who.name, "flags.put", &(version + 1).to_string(), &detail).await?;
    tx.commit().await?;
    wanted.version = version + 1;
    Ok(Json(wanted))
}
