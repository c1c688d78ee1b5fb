//! Tenants, and their roots of trust.

use axum::Json;
use axum::extract::{Path, State};
use dunlin_update::trust::{Document, Role as Signer, RootKeys};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::{Body, Input, name};
use crate::auth::{ADMIN, By, INSTALLATION, Principal, VIEWER};
use crate::documents::{may_sign, root_of};
use crate::error::{ApiError, ApiResult, Problem};
use crate::hex;
use crate::server::App;
use crate::store::tenants::{self, AlertLimits, Retention, Settings, Tenant};
use crate::store::{audit, signed};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(put))
        .routes(routes!(get_own, put_own))
        .routes(routes!(get_root, put_root))
}

/// All tenants. For the installation's administrators.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", extensions(("x-role" = json!("installation"))),
    responses((status = 200, body = Vec<Tenant>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, By(_): By<INSTALLATION>) -> ApiResult<Json<Vec<Tenant>>> {
    Ok(Json(tenants::list(&mut *app.store.read().await?).await?))
}

/// A tenant as it should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Its name for people.
    #[serde(default)]
    title: String,
    /// What it may have and wants; what is left out has its default.
    #[serde(default)]
    settings: Settings,
}

/// Makes a tenant, or changes one. For the installation's administrators.
#[utoipa::path(put, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = Wanted,
    extensions(("x-role" = json!("installation"))), params(("tenant" = String, Path, description = "Its name")),
    responses((status = 200, body = Tenant), (status = "default", body = Problem)))]
async fn put(
    State(app): State<App>,
    By(who): By<INSTALLATION>,
    Path(id): Path<String>,
    Input(wanted): Input<Wanted>,
) -> ApiResult<Json<Tenant>> {
    name("tenant", &id)?;
    sound(&app, &wanted.settings)?;
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    let before = tenants::get(&mut tx, &id).await?;
    let created = before.map_or(now, |t| t.created);
    let tenant = Tenant { id: id.clone(), title: wanted.title, created, settings: wanted.settings };
    tenants::put(&mut tx, &tenant).await?;
    audit::append(&mut tx, "system", now, &who.name, "tenant.put", &id, &json!({ "settings": tenant.settings }))
        .await?;
    tx.commit().await?;
    Ok(Json(tenant))
}

fn sound(app: &App, settings: &Settings) -> ApiResult<()> {
    if settings.poll_seconds == 0 || settings.operator_rate == 0 || settings.device_rate == 0 {
        return Err(ApiError::unacceptable("intervals and rates are at least 1", "leave them out for their defaults"));
    }
    if (1..7).contains(&settings.retention.reports) {
        return Err(ApiError::unacceptable(
            "reports are summed and judged for a week",
            "keep them for 7 days or more, or with 0 for good",
        ));
    }
    for (name, limit) in settings.alert_limits.named() {
        if !(limit > 0.0 && limit <= 1.0) {
            return Err(ApiError::unacceptable(
                format!("alert_limits.{name}: {limit} is no share"),
                "give a number above 0 and up to 1, with which the rule never fires",
            ));
        }
    }
    if let Some(url) = &settings.webhook
        && !url.starts_with("https://")
        && !url.starts_with("http://")
    {
        return Err(ApiError::unacceptable(
            format!("{url:?} is no webhook"),
            "give an address with https:// or http://",
        ));
    }
    let host = settings.webhook.as_ref().and_then(|url| url.parse::<axum::http::Uri>().ok()?.host().map(str::to_owned));
    let literal = host.as_ref().and_then(|h| h.trim_matches(['[', ']']).parse().ok());
    let internal = host.as_deref() == Some("localhost") || literal.is_some_and(crate::webhook::is_internal);
    if internal && !app.webhook_internal {
        return Err(ApiError::unacceptable(
            "the webhook is on the server's own machine or in a private network",
            "give a public address, or have the server started with --webhook-internal",
        ));
    }
    Ok(())
}

/// The tenant of the token.
#[utoipa::path(get, path = "/v1/tenant", tag = "tenants", extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Tenant), (status = "default", body = Problem)))]
async fn get_own(By(who): By<VIEWER>) -> ApiResult<Json<Tenant>> {
    Ok(Json(who.tenant))
}

/// What a tenant's administrators may set themselves; quotas and rates are the installation's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Own {
    /// Seconds between a device's polls, on average.
    poll_seconds: Option<u32>,
    /// Whether a second person approves before a rollout reaches many devices.
    two_person: Option<bool>,
    /// Where alerts are posted; empty: nowhere.
    webhook: Option<String>,
    /// For how long what devices sent is kept.
    retention: Option<Retention>,
    /// From where on shares are an alert.
    alert_limits: Option<AlertLimits>,
}

/// Changes settings of the token's tenant.
#[utoipa::path(put, path = "/v1/tenant", tag = "tenants", request_body = Own,
    extensions(("x-role" = json!("admin"))),
    responses((status = 200, body = Tenant), (status = "default", body = Problem)))]
async fn put_own(State(app): State<App>, By(who): By<ADMIN>, Input(own): Input<Own>) -> ApiResult<Json<Tenant>> {
    let mut tenant = who.tenant.clone();
    let settings = &mut tenant.settings;
    settings.poll_seconds = own.poll_seconds.unwrap_or(settings.poll_seconds);
    settings.two_person = own.two_person.unwrap_or(settings.two_person);
    settings.webhook = own.webhook.or(settings.webhook.take()).filter(|w| !w.is_empty());
    settings.retention = own.retention.unwrap_or(settings.retention);
    settings.alert_limits = own.alert_limits.unwrap_or(settings.alert_limits);
    sound(&app, settings)?;
    let mut tx = app.store.write().await?;
    tenants::put(&mut tx, &tenant).await?;
    let detail = json!({ "settings": tenant.settings });
    let now = signed(app.clock.seconds());
    audit::append(&mut tx, &tenant.id, now, &who.name, "tenant.settings", &tenant.id, &detail).await?;
    tx.commit().await?;
    Ok(Json(tenant))
}

/// The root in force.
#[derive(Debug, Serialize, ToSchema)]
struct Root {
    /// Its number; 0: there is none yet.
    version: u32,
    /// Until when offers are accepted under it, seconds since 1970.
    expires: u64,
    /// The server's public key for this tenant; the root has to name it in the role rollout.
    server_key: String,
    /// What is in the way of the server's signing rollouts.
    problem: Option<String>,
}

async fn root(app: &App, who: &Principal) -> ApiResult<Root> {
    let chain = tenants::roots(&mut *app.store.read().await?, &who.tenant.id).await?;
    let key = app.documents.key(&who.tenant.id).map_err(ApiError::unavailable)?;
    let server_key = hex(&key.public());
    Ok(match root_of(&chain) {
        Ok(root) => {
            Root { version: root.version, expires: root.expires, server_key, problem: may_sign(&root, &key).err() }
        }
        Err(problem) => Root { version: 0, expires: 0, server_key, problem: Some(problem) },
    })
}

/// The root in force, and the key that the server signs rollouts with.
#[utoipa::path(get, path = "/v1/root", tag = "tenants", extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Root), (status = "default", body = Problem)))]
async fn get_root(State(app): State<App>, By(who): By<VIEWER>) -> ApiResult<Json<Root>> {
    root(&app, &who).await.map(Json)
}

/// The tenant's next root: the document's bytes, as `dunlin sign` writes them. It has to follow the one in force.
#[utoipa::path(put, path = "/v1/root", tag = "tenants", extensions(("x-role" = json!("admin"))),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Root), (status = "default", body = Problem)))]
async fn put_root(State(app): State<App>, By(who): By<ADMIN>, Body(body): Body) -> ApiResult<Json<Root>> {
    let read = Document::read(&body, Signer::Root).and_then(|d| d.decode::<RootKeys>());
    let keys = read.map_err(|e| ApiError::bad(e.to_string(), "send the signed root document's bytes"))?;
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    let mut chain = tenants::roots(&mut tx, &who.tenant.id).await?;
    if chain.iter().any(|known| known[..] == body[..]) {
        drop(tx);
        return root(&app, &who).await.map(Json);
    }
    chain.push(body.to_vec());
    root_of(&chain)
        .map_err(|e| ApiError::unacceptable(e, "sign it by enough root keys of the root in force and its own"))?;
    if !tenants::add_root(&mut tx, &who.tenant.id, keys.version.into(), &body).await? {
        return Err(ApiError::conflict(format!("there is another root {}", keys.version), "read the root in force"));
    }
    let detail = json!({ "version": keys.version, "expires": keys.expires });
    audit::append(&mut tx, &who.tenant.id, now, &who.name, "root.put", &keys.version.to_string(), &detail).await?;
    tx.commit().await?;
    root(&app, &who).await.map(Json)
}
