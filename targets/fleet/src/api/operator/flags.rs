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
use crate::server::{App, Inner};
use crate::store::flags::{self, Stored};
use crate::store::{audit, rollouts, signed, unsigned};

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

/// The number of the next document: the time, or one more than the last if that is later. So a database that was put back
/// to an older state goes on above what devices have seen.
fn next_sequence(before: Option<&Stored>, now: u64) -> u64 {
    before.map_or(now, |f| now.max(unsigned(f.sequence) + 1))
}

fn sign(app: &Inner, tenant: &str, sequence: u64, issued: u64, flags: &Flags) -> ApiResult<Vec<u8>> {
    let document = Document { sequence, issued, ttl: flags.ttl, flags: flags.flags.clone() };
    let payload =
        document.encode().map_err(|e| ApiError::unacceptable(e.to_string(), "change the flags so that it holds"))?;
    app.documents.flags(tenant, &payload).map_err(|e| ApiError::unacceptable(e, "set fewer or smaller flags"))
}

/// Flags as a device should have them that has seen the document `seen`: nothing, if it is this one. A device that has
/// seen a later one knows a later state of this database than there is, which was put back; what is here is signed anew
/// then, seldom, should the device make it up.
pub(crate) async fn for_device(app: &Inner, tenant: &str, seen: u64) -> ApiResult<Option<Vec<u8>>> {
    let Some(stored) = flags::get(&mut *app.store.read().await?, tenant).await? else { return Ok(None) };
    if unsigned(stored.sequence) >= seen {
        return Ok(Some(stored.document).filter(|_| unsigned(stored.sequence) > seen));
    }
    let now = app.clock.seconds();
    if seen > now || signed(now) - stored.updated < rollouts::RENEWS {
        return Ok(None);
    }
    let known: Flags =
        serde_json::from_str(&stored.request).map_err(|_| ApiError::unavailable("the stored flags do not decode"))?;
    let sequence = now.max(seen + 1);
    let document = sign(app, tenant, sequence, now, &known)?;
    let mut tx = app.store.write().await?;
    let of = Stored { sequence: signed(sequence), document: document.clone(), updated: signed(now), ..stored };
    let done = flags::renew(&mut tx, tenant, &of).await?;
    tx.commit().await?;
    // Somebody else was first: the next poll has it.
    Ok(Some(document).filter(|_| done))
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
    if version == wanted.version + 1 && before.as_ref().is_some_and(|f| f.request == text) {
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
    let sequence = next_sequence(before.as_ref(), now);
    let signed_document = sign(&app, tenant, sequence, now, &wanted)?;
    let stored = Stored {
        version: signed(version + 1),
        sequence: signed(sequence),
        request: text,
        document: signed_document,
        updated: signed(now),
    };
    if !flags::put(&mut tx, tenant, &stored).await? {
        return Err(ApiError::conflict("somebody else put flags at this moment", "read them again"));
    }
    let keys: Vec<&str> = wanted.flags.iter().map(|f| f.key.as_str()).collect();
    let detail = json!({ "version": version + 1, "keys": keys });
    audit::append(&mut tx, tenant, signed(now), &who.name, "flags.put", &(version + 1).to_string(), &detail).await?;
    tx.commit().await?;
    wanted.version = version + 1;
    Ok(Json(wanted))
}
