//! Flags: what operators set, as the signed document that devices evaluate.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::{Ask, Input};
use crate::auth::{By, OPERATOR, VIEWER};
use crate::error::{ApiError, ApiResult, Problem};
use crate::flags::reach::{self, Reach};
use crate::flags::{self, Author, Flags, FlagsBody, form};
use crate::server::App;
use crate::store::unsigned;

pub(crate) use crate::flags::for_device;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, put)).routes(routes!(preview))
}

/// The flags in force. Before any were put there is the kill switch, which is on.
#[utoipa::path(get, path = "/v1/flags", tag = "flags", extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = FlagsBody), (status = "default", body = Problem)))]
async fn get(State(app): State<App>, By(who): By<VIEWER>) -> ApiResult<Json<FlagsBody>> {
    let stored = crate::store::flags::get(&mut *app.store.read().await?, &who.tenant.id).await?;
    Ok(Json(FlagsBody::from(&Flags::of(stored.as_ref())?)))
}

/// How flags are put.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct How {
    /// Check them and show what they would change, and store nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What flags would change.
#[derive(Debug, Serialize, ToSchema)]
struct Plan {
    /// The flags as they would be stored.
    flags: FlagsBody,
    /// The flags that are added, changed or removed.
    changes: Vec<FlagChange>,
}

/// A flag that would change.
#[derive(Debug, Serialize, ToSchema)]
struct FlagChange {
    /// Its key.
    key: String,
    /// `added`, `changed` or `removed`.
    change: String,
    /// Which devices get what now; null when it is added.
    before: Option<Reach>,
    /// Which devices would get what; null when it is removed.
    after: Option<Reach>,
}

/// Replaces all flags. Devices get the signed document with their next poll. With `dry_run` nothing is stored, and the
/// answer is what would change and for how many devices.
#[utoipa::path(put, path = "/v1/flags", tag = "flags", request_body = FlagsBody, params(How),
    extensions(("x-role" = json!("operator"))),
    responses((status = 200, body = FlagsBody), (status = "default", body = Problem)))]
async fn put(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Ask(how): Ask<How>,
    Input(body): Input<Value>,
) -> ApiResult<Response> {
    let mut wanted = form::document(&body)?;
    let tenant = who.tenant.id.as_str();
    if how.dry_run {
        return plan(&app, tenant, &wanted).await.map(|plan| Json(plan).into_response());
    }
    let mut tx = app.store.write().await?;
    let before = crate::store::flags::get(&mut tx, tenant).await?;
    let version = before.as_ref().map_or(0, |f| unsigned(f.version));
    if version == wanted.version + 1
        && before.as_ref().is_some_and(|f| flags::text(&wanted).is_ok_and(|t| f.request == t))
    {
        // The same request again.
        wanted.version = version;
        return Ok(Json(FlagsBody::from(&wanted)).into_response());
    }
    let author = Author { tenant, name: &who.name, reason: "", action: "flags.put" };
    wanted.version = flags::replace(&app, &mut tx, &author, before.as_ref(), &wanted).await?;
    tx.commit().await?;
    Ok(Json(FlagsBody::from(&wanted)).into_response())
}

async fn plan(app: &App, tenant: &str, wanted: &Flags) -> ApiResult<Plan> {
    flags::check(app, tenant, wanted)?;
    let stored = crate::store::flags::get(&mut *app.store.read().await?, tenant).await?;
    let known = Flags::of(stored.as_ref())?;
    if known.version != wanted.version {
        return Err(ApiError::conflict(
            format!("the flags are of version {}", known.version),
            "read them, change them, and put them with that version",
        ));
    }
    let changes = reach::changes(&known, wanted);
    let of = |flags: &Flags| changes.iter().filter_map(|(key, _)| flags.flag(key)).cloned().collect::<Vec<_>>();
    let before = reach::of(app, tenant, &of(&known)).await?;
    let after = reach::of(app, tenant, &of(wanted)).await?;
    let find = |all: &[Reach], key: &str| all.iter().find(|r| r.key == key).cloned();
    let change = |(key, change): &(String, &'static str)| FlagChange {
        key: key.clone(),
        change: (*change).to_owned(),
        before: find(&before, key),
        after: find(&after, key),
    };
    Ok(Plan { flags: FlagsBody::from(wanted), changes: changes.iter().map(change).collect() })
}

/// Which flag.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Its key; all flags when absent.
    key: Option<String>,
}

/// How many devices get which variant of the flags in force, evaluated as the devices do, with the attributes that they
/// enrolled with.
#[utoipa::path(get, path = "/v1/flags/preview", tag = "flags", params(Which), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Reach>), (status = "default", body = Problem)))]
async fn preview(State(app): State<App>, By(who): By<VIEWER>, Ask(which): Ask<Which>) -> ApiResult<Json<Vec<Reach>>> {
    let stored = crate::store::flags::get(&mut *app.store.read().await?, &who.tenant.id).await?;
    let known = Flags::of(stored.as_ref())?;
    let flags = match &which.key {
        None => known.flags,
        Some(key) => vec![known.flag(key).cloned().ok_or_else(|| ApiError::missing("flag", key))?],
    };
    Ok(Json(reach::of(&app, &who.tenant.id, &flags).await?))
}
