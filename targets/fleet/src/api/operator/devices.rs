//! Devices as operators see them.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::{Ask, Input};
use crate::auth::{By, OPERATOR, VIEWER};
use crate::decide;
use crate::error::{ApiError, ApiResult, Problem};
use crate::hex;
use crate::server::App;
use crate::store::Connection;
use crate::store::devices::{self, Device, Filter, Revoked};
use crate::store::{audit, reports, signed};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, patch, delete))
}

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Goes on after this id.
    #[serde(default)]
    after: String,
    /// At most so many, up to 1000.
    limit: Option<u32>,
    /// Only those with this model.
    model: Option<String>,
    /// Only those that run this digest, or the one that begins with these 6 or more digits.
    running: Option<String>,
    /// Only those of this ring.
    ring: Option<u8>,
}

/// Devices, in order of their ids.
#[utoipa::path(get, path = "/v1/devices", tag = "devices", params(Which), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Device>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, By(who): By<VIEWER>, Ask(which): Ask<Which>) -> ApiResult<Json<Vec<Device>>> {
    let mut connection = app.store.read().await?;
    let running = match which.running {
        Some(text) => Some(running(&mut connection, &who.tenant.id, &text).await?),
        None => None,
    };
    let filter = Filter {
        after: which.after,
        limit: which.limit.unwrap_or(100).clamp(1, 1000).into(),
        model: which.model,
        running,
        ring: which.ring.map(i64::from),
    };
    Ok(Json(devices::list(&mut connection, &who.tenant.id, &filter).await?))
}

/// Fewest digits of a digest that stand for all of it.
const SHORTEST_DIGEST: usize = 6;

/// Resolves a digest or its first digits among those that devices run and packages have.
async fn running(connection: &mut Connection, tenant: &str, text: &str) -> ApiResult<String> {
    let digits = text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    if !digits || !(SHORTEST_DIGEST..=64).contains(&text.len()) {
        let hint =
            format!("a digest has 64 lower-case hexadecimal digits; {SHORTEST_DIGEST} or more of the first are enough");
        return Err(ApiError::bad(format!("{text:?} is no digest"), hint));
    }
    if text.len() == 64 {
        return Ok(text.to_owned());
    }
    let found = devices::digests(connection, tenant, text).await?;
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(ApiError::missing("digest", text)),
        several => {
            let hint = format!("more digits tell them apart: {}", several.join(", "));
            Err(ApiError::conflict(format!("the digest {text:?} is ambiguous"), hint))
        }
    }
}

/// A report as it came.
#[derive(Debug, Serialize, ToSchema)]
struct Received {
    /// Which start of the device.
    boot: i64,
    /// Which report since.
    seq: i64,
    /// Seconds since 1970.
    arrived: i64,
    /// Whether this version can read it.
    known: bool,
    /// Its bytes, hexadecimal.
    bytes: String,
}

/// A device with its newest reports.
#[derive(Debug, Serialize, ToSchema)]
struct History {
    /// The device.
    device: Device,
    /// The newest hundred.
    reports: Vec<Received>,
}

/// One device.
#[utoipa::path(get, path = "/v1/devices/{device}", tag = "devices", extensions(("x-role" = json!("viewer"))),
    params(("device" = String, Path, description = "Its id")),
    responses((status = 200, body = History), (status = "default", body = Problem)))]
async fn get(State(app): State<App>, By(who): By<VIEWER>, Path(id): Path<String>) -> ApiResult<Json<History>> {
    let mut connection = app.store.read().await?;
    let device = devices::get(&mut connection, &who.tenant.id, &id).await?;
    let device = device.ok_or_else(|| ApiError::missing("device", &id))?;
    let reports = reports::of_device(&mut connection, &who.tenant.id, &id, 100).await?;
    let received = |(boot, seq, arrived, known, bytes): (i64, i64, i64, bool, Vec<u8>)| Received {
        boot,
        seq,
        arrived,
        known,
        bytes: hex(&bytes),
    };
    Ok(Json(History { device, reports: reports.into_iter().map(received).collect() }))
}

/// What operators set of a device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    /// The ring it is in, 0 for the laboratory; nothing: none.
    ring: Option<u8>,
}

/// Puts a device into a ring.
#[utoipa::path(patch, path = "/v1/devices/{device}", tag = "devices", request_body = Change,
    extensions(("x-role" = json!("operator"))), params(("device" = String, Path, description = "Its id")),
    responses((status = 200, body = Device), (status = "default", body = Problem)))]
async fn patch(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
    Input(change): Input<Change>,
) -> ApiResult<Json<Device>> {
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    let done = devices::set_ring(&mut tx, &who.tenant.id, &id, change.ring.map(i64::from)).await?;
    let device = devices::get(&mut tx, &who.tenant.id, &id).await?.filter(|_| done);
    let device = device.ok_or_else(|| ApiError::missing("device", &id))?;
    let detail = json!({ "ring": change.ring });
    audit::append(&mut tx, &who.tenant.id, now, &who.name, "device.ring", &id, &detail).await?;
    tx.commit().await?;
    Ok(Json(device))
}

/// Revokes a device: its requests are refused from now on, it counts in no rollout, and its key cannot enrol again.
#[utoipa::path(delete, path = "/v1/devices/{device}", tag = "devices", extensions(("x-role" = json!("operator"))),
    params(("device" = String, Path, description = "Its id")),
    responses((status = 200, body = Revoked), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, By(who): By<OPERATOR>, Path(id): Path<String>) -> ApiResult<Json<Revoked>> {
    decide::revoke(&app, &who, &id, "").await.map(Json)
}
