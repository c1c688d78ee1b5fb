//! Packages and differences between them. What is published stays as it is.

use axum::body::Body as Content;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing;
use axum::{Json, Router};
use dunlin_package::Package as Opened;
use dunlin_update::delta::Header;
use dunlin_update::trust::{self, Ed25519};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::{Ask, Body, Page, digest};
use crate::artifacts::hash_of;
use crate::auth::{By, OPERATOR, Principal, VIEWER};
use crate::documents::root_of;
use crate::error::{ApiError, ApiResult, Problem};
use crate::hex::unhex_array;
use crate::server::App;
use crate::store::packages::{self, Package};
use crate::store::{audit, devices, recalls, rollouts, signed, tenants, unsigned};
use crate::{hex, unhex};

pub(super) fn router() -> OpenApiRouter<App> {
    // Described here and routed below, where bodies may be long.
    let (_, uploads) =
        OpenApiRouter::<App>::new().routes(routes!(get, put, delete)).routes(routes!(put_delta)).split_for_parts();
    let mut router = OpenApiRouter::new().routes(routes!(list)).routes(routes!(content));
    router.get_openapi_mut().merge(uploads);
    router
}

pub(super) fn uploads(most: usize) -> Router<App> {
    Router::new()
        .route("/v1/packages/{digest}", routing::get(get).put(put).delete(delete))
        .route("/v1/packages/{digest}/deltas/{base}", routing::put(put_delta))
        .layer(DefaultBodyLimit::max(most))
}

/// Packages, in order of their digests.
#[utoipa::path(get, path = "/v1/packages", tag = "packages", params(Page), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Package>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, By(who): By<VIEWER>, Ask(page): Ask<Page>) -> ApiResult<Json<Vec<Package>>> {
    let mut connection = app.store.read().await?;
    Ok(Json(packages::list(&mut connection, &who.tenant.id, &page.after, page.limit()).await?))
}

/// One package.
#[utoipa::path(get, path = "/v1/packages/{digest}", tag = "packages", extensions(("x-role" = json!("viewer"))),
    params(("digest" = String, Path, description = "Its digest")),
    responses((status = 200, body = Package), (status = "default", body = Problem)))]
async fn get(State(app): State<App>, By(who): By<VIEWER>, Path(id): Path<String>) -> ApiResult<Json<Package>> {
    find(&app, &who, &id).await.map(Json)
}

/// A package's bytes, to make a difference from.
#[utoipa::path(get, path = "/v1/packages/{digest}/content", tag = "packages", extensions(("x-role" = json!("viewer"))),
    params(("digest" = String, Path, description = "Its digest")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = Problem)))]
async fn content(State(app): State<App>, By(who): By<VIEWER>, Path(id): Path<String>) -> ApiResult<Response> {
    let package = find(&app, &who, &id).await?;
    let hash = unhex_array::<32>(&package.hash).ok_or_else(|| ApiError::unavailable("the row is damaged"))?;
    let parts = app.artifacts.stream(hash, unsigned(package.len)).await?;
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, package.len.to_string())];
    Ok((headers, Content::from_stream(parts)).into_response())
}

async fn find(app: &App, who: &Principal, id: &str) -> ApiResult<Package> {
    let package = packages::get(&mut *app.store.read().await?, &who.tenant.id, id).await?;
    package.ok_or_else(|| ApiError::missing("package", id))
}

/// Publishes a package: its bytes, with the signed release document, hexadecimal, in the header `x-dunlin-release`.
#[utoipa::path(put, path = "/v1/packages/{digest}", tag = "packages", extensions(("x-role" = json!("operator"))),
    params(("digest" = String, Path, description = "Its digest"),
           ("x-dunlin-release" = String, Header, description = "The signed release document, hexadecimal")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Package), (status = "default", body = Problem)))]
async fn put(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> ApiResult<Json<Package>> {
    let named = digest(&id)?;
    let document = headers.get("x-dunlin-release").and_then(|v| v.to_str().ok()).and_then(unhex);
    let document = document.ok_or_else(|| {
        ApiError::bad(
            "no release document",
            "send it in the header x-dunlin-release, hexadecimal; `dunlin sign release` makes it",
        )
    })?;
    let opened = Opened::open(&body)
        .map_err(|e| ApiError::unacceptable(format!("this is no package: {e}"), "send the bytes of a .dunlin file"))?;
    if opened.digest() != named {
        return Err(ApiError::unacceptable(
            format!("the package's digest is {}", hex(&opened.digest())),
            "put it under its own digest",
        ));
    }
    let chain = tenants::roots(&mut *app.store.read().await?, &who.tenant.id).await?;
    let root = root_of(&chain).map_err(|e| ApiError::conflict(e, "put the tenant's root with PUT /v1/root"))?;
    let release = trust::release(&root, &document, &Ed25519).map_err(|e| {
        ApiError::unacceptable(e.to_string(), "have the release signed by the keys that the root names")
    })?;
    let manifest = opened.manifest();
    let hash = hash_of(&body);
    let agrees = release.digest == named
        && release.hash == hash
        && usize::try_from(release.len) == Ok(body.len())
        && release.name == manifest.name
        && release.target == manifest.target;
    if !agrees {
        return Err(ApiError::unacceptable(
            "the release document is of another package",
            "sign a release for exactly these bytes",
        ));
    }
    let now = signed(app.clock.seconds());
    let package = Package {
        digest: id.clone(),
        name: release.name.into(),
        version: release.version.into(),
        number: release.number.into(),
        counter: release.counter.into(),
        target: release.target.into(),
        len: release.len.into(),
        hash: hex(&hash),
        manifest: json!({
            "name": manifest.name, "version": manifest.version, "producer": manifest.producer,
            "target": manifest.target, "engine_min": [manifest.engine_min.major, manifest.engine_min.minor],
            "ops_version": manifest.ops_version, "arena_bytes": manifest.arena_bytes,
            "scratch_bytes": manifest.scratch_bytes, "weight_bytes": manifest.weight_bytes, "macs": manifest.macs,
            "exact": manifest.exact, "tolerance": manifest.tolerance, "source": hex(&manifest.source_digest),
        })
        .to_string(),
        published: now,
        document: document.clone(),
    };
    // The bytes first: a row never names what is not there. A store that has lost them gets them back.
    app.artifacts.put(body.clone()).await?;
    if let Some(known) = packages::get(&mut *app.store.read().await?, &who.tenant.id, &id).await? {
        return same(known, &package);
    }
    let mut tx = app.store.write().await?;
    packages::lock(&mut tx).await?;
    // Had somebody deleted the same bytes meanwhile, they are there again.
    app.artifacts.put(body).await?;
    let settings = &who.tenant.settings;
    if !tenants::reserve(&mut tx, &who.tenant.id, package.len, settings.max_bytes).await? {
        return Err(ApiError::quota("bytes of packages", settings.max_bytes));
    }
    if !packages::insert(&mut tx, &who.tenant.id, &package).await? {
        drop(tx);
        if let Some(known) = packages::get(&mut *app.store.read().await?, &who.tenant.id, &id).await? {
            return same(known, &package);
        }
        return Err(ApiError::conflict(
            format!("release {} of {} is another package", package.number, package.name),
            "number the release above all others of the model",
        ));
    }
    let detail = json!({ "name": package.name, "version": package.version, "number": package.number });
    audit::append(&mut tx, &who.tenant.id, now, &who.name, "package.publish", &id, &detail).await?;
    tx.commit().await?;
    Ok(Json(package))
}

/// Deletes a package, with the differences from it and to it, which no rollout and no device needs: no draft or rollout that
/// is under way or live has it as candidate or base, and no device said last that it runs it. Its release number stays
/// free for nothing else: number a new release higher.
#[utoipa::path(delete, path = "/v1/packages/{digest}", tag = "packages", extensions(("x-role" = json!("operator"))),
    params(("digest" = String, Path, description = "Its digest")),
    responses((status = 200, body = Package), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, By(who): By<OPERATOR>, Path(id): Path<String>) -> ApiResult<Json<Package>> {
    digest(&id)?;
    let tenant = who.tenant.id.as_str();
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    packages::lock(&mut tx).await?;
    let package = packages::get(&mut tx, tenant, &id).await?.ok_or_else(|| ApiError::missing("package", &id))?;
    if let Some(rollout) = rollouts::that_needs(&mut tx, tenant, &id).await? {
        return Err(ApiError::conflict(
            format!("the rollout {rollout:?} needs it"),
            "delete it when another rollout of the model has completed",
        ));
    }
    if let Some(rollout) = recalls::that_needs(&mut tx, tenant, &id).await? {
        return Err(ApiError::conflict(
            format!("devices that still run what the rollout {rollout:?} rolled back go back to it"),
            "delete it when another rollout of the model has completed",
        ));
    }
    let running = devices::running(&mut tx, tenant, &id).await?;
    if running > 0 {
        return Err(ApiError::conflict(
            format!("{running} devices run it"),
            "roll another package out to them first, or revoke devices that do not come back",
        ));
    }
    let (bytes, unnamed) = packages::delete(&mut tx, tenant, &package).await?;
    tenants::release(&mut tx, tenant, bytes).await?;
    let detail = json!({ "name": package.name, "version": package.version, "number": package.number, "bytes": bytes });
    audit::append(&mut tx, tenant, now, &who.name, "package.delete", &id, &detail).await?;
    tx.commit().await?;
    // The rows first: what fails from here on leaves bytes that nothing names, and no row without bytes.
    if let Err(error) = forget(&app, &unnamed).await {
        tracing::warn!(error = error.problem.error, package = id, "bytes of a deleted package stay where they are");
    }
    Ok(Json(package))
}

/// Removes artifacts, unless somebody has published the same bytes meanwhile.
async fn forget(app: &App, hashes: &[String]) -> ApiResult<()> {
    let mut tx = app.store.write().await?;
    packages::lock(&mut tx).await?;
    for hash in hashes {
        if let Some(bytes) = unhex_array::<32>(hash)
            && !packages::names(&mut tx, hash).await?
        {
            app.artifacts.remove(&bytes).await?;
        }
    }
    Ok(tx.commit().await?)
}

fn same(known: Package, sent: &Package) -> ApiResult<Json<Package>> {
    if known.document == sent.document && known.hash == sent.hash {
        return Ok(Json(known));
    }
    Err(ApiError::conflict(
        "the package was published with another release document",
        "what is published stays as it is; compile and number a new release",
    ))
}

/// A difference.
#[derive(Debug, Serialize, ToSchema)]
struct Delta {
    /// What it starts from.
    base: String,
    /// What it gives.
    digest: String,
    /// SHA-256 of its bytes.
    hash: String,
    /// Bytes.
    len: i64,
}

/// A difference from a published base to a published package, as `dunlin delta` makes it. Devices that run the base fetch
/// it instead of the whole.
#[utoipa::path(put, path = "/v1/packages/{digest}/deltas/{base}", tag = "packages",
    extensions(("x-role" = json!("operator"))),
    params(("digest" = String, Path, description = "What it gives"), ("base" = String, Path, description = "What from")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Delta), (status = "default", body = Problem)))]
async fn put_delta(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path((id, base)): Path<(String, String)>,
    Body(body): Body,
) -> ApiResult<Json<Delta>> {
    let (to, from) = (find(&app, &who, &id).await?, find(&app, &who, &base).await?);
    let header = body.first_chunk().and_then(|head| Header::read(head).ok());
    let fits = header.is_some_and(|h| {
        h.base == digest(&base).unwrap_or_default()
            && h.target == digest(&id).unwrap_or_default()
            && i64::from(h.base_len) == from.len
            && i64::from(h.target_len) == to.len
    });
    if !fits {
        return Err(ApiError::unacceptable(
            "this is no difference between these two packages",
            "make it with `dunlin delta` from exactly these two",
        ));
    }
    let len = i64::try_from(body.len()).unwrap_or(i64::MAX);
    let now = signed(app.clock.seconds());
    let hash = hex(&app.artifacts.put(body.clone()).await?);
    let mut tx = app.store.write().await?;
    packages::lock(&mut tx).await?;
    app.artifacts.put(body).await?;
    if let Some((known, len)) = packages::delta(&mut tx, &who.tenant.id, &base, &id).await? {
        if known == hash {
            return Ok(Json(Delta { base, digest: id, hash, len }));
        }
        return Err(ApiError::conflict("there is another difference between these two", "the first one stays"));
    }
    let settings = &who.tenant.settings;
    if !tenants::reserve(&mut tx, &who.tenant.id, len, settings.max_bytes).await? {
        return Err(ApiError::quota("bytes of packages", settings.max_bytes));
    }
    if !packages::insert_delta(&mut tx, &who.tenant.id, &base, &id, &hash, len).await? {
        return Err(ApiError::conflict("somebody else put one at this moment", "try again"));
    }
    let detail = json!({ "base": base, "len": len });
    audit::append(&mut tx, &who.tenant.id, now, &who.name, "delta.publish", &id, &detail).await?;
    tx.commit().await?;
    Ok(Json(Delta { base, digest: id, hash, len }))
}
