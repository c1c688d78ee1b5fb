//! What happened: alerts, audit, telemetry.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use dunlin_telemetry::Report;
use dunlin_telemetry::aggregate::Aggregate;
use dunlin_telemetry::report::AnyReport;
use dunlin_telemetry::window::Counter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::{Ask, Page, digest};
use crate::auth::{By, OPERATOR, VIEWER};
use crate::error::{ApiError, ApiResult, Problem};
use crate::server::App;
use crate::store::alerts::{self, Alert};
use crate::store::audit::{self, Entry};
use crate::store::samples::{self, Evaluation};
use crate::store::{packages, reports, signed};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_alerts))
        .routes(routes!(list_rules))
        .routes(routes!(acknowledge))
        .routes(routes!(list_audit))
        .routes(routes!(telemetry))
}

/// Alerts, in order.
#[utoipa::path(get, path = "/v1/alerts", tag = "watch", params(Page), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Alert>), (status = "default", body = Problem)))]
async fn list_alerts(State(app): State<App>, By(who): By<VIEWER>, Ask(page): Ask<Page>) -> ApiResult<Json<Vec<Alert>>> {
    let mut connection = app.store.read().await?;
    Ok(Json(alerts::list(&mut connection, &who.tenant.id, page.number()?, page.limit()).await?))
}

/// What each alert rule saw at its last evaluation: also those that are well, and those that nothing is known about.
#[utoipa::path(get, path = "/v1/alerts/rules", tag = "watch", extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Evaluation>), (status = "default", body = Problem)))]
async fn list_rules(State(app): State<App>, By(who): By<VIEWER>) -> ApiResult<Json<Vec<Evaluation>>> {
    Ok(Json(samples::evaluations(&mut *app.store.read().await?, &who.tenant.id).await?))
}

/// Says that somebody looks after an alert.
#[utoipa::path(post, path = "/v1/alerts/{alert}/acknowledge", tag = "watch",
    extensions(("x-role" = json!("operator"))), params(("alert" = i64, Path, description = "Its number")),
    responses((status = 200, body = Vec<Alert>), (status = "default", body = Problem)))]
async fn acknowledge(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
) -> ApiResult<Json<Vec<Alert>>> {
    let n: i64 = id.parse().map_err(|_| ApiError::missing("alert", &id))?;
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    if !alerts::acknowledge(&mut tx, &who.tenant.id, n, &who.name, now).await? {
        return Err(ApiError::missing("alert", &id));
    }
    audit::append(&mut tx, &who.tenant.id, now, &who.name, "alert.acknowledge", &id, &json!({})).await?;
    let list = alerts::list(&mut tx, &who.tenant.id, n - 1, 1).await?;
    tx.commit().await?;
    Ok(Json(list))
}

/// The audit log, in order.
#[utoipa::path(get, path = "/v1/audit", tag = "watch", params(Page), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Entry>), (status = "default", body = Problem)))]
async fn list_audit(State(app): State<App>, By(who): By<VIEWER>, Ask(page): Ask<Page>) -> ApiResult<Json<Vec<Entry>>> {
    let mut connection = app.store.read().await?;
    Ok(Json(audit::list(&mut connection, &who.tenant.id, page.number()?, page.limit()).await?))
}

/// Since when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Since {
    /// Hours back from now; a day unless said.
    hours: Option<u32>,
}

/// Sums over reports.
#[derive(Debug, Serialize, ToSchema)]
struct Sums {
    /// The arm.
    arm: String,
    /// Devices whose reports are in it.
    devices: usize,
    /// Reports in it.
    reports: usize,
    /// Counters, and histograms of latency, confidence, classes and distances.
    #[schema(value_type = Object)]
    sums: Value,
}

/// Reports that are added up for one answer; of more the oldest.
const MOST: i64 = 100_000;

/// What devices measured while they ran a package, added up by arm. An aggregate of fewer than ten devices is not shown.
#[utoipa::path(get, path = "/v1/packages/{digest}/telemetry", tag = "watch", params(Since,
    ("digest" = String, Path, description = "The package")), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Sums>), (status = "default", body = Problem)))]
async fn telemetry(
    State(app): State<App>,
    By(who): By<VIEWER>,
    Path(id): Path<String>,
    Ask(since): Ask<Since>,
) -> ApiResult<Json<Vec<Sums>>> {
    digest(&id)?;
    let mut connection = app.store.read().await?;
    if packages::get(&mut connection, &who.tenant.id, &id).await?.is_none() {
        return Err(ApiError::missing("package", &id));
    }
    let from = signed(app.clock.seconds()) - i64::from(since.hours.unwrap_or(24)) * 3600;
    let found = reports::of_package(&mut connection, &who.tenant.id, &id, from, MOST).await?;
    drop(connection);
    let list = tokio::task::spawn_blocking(move || add_up(&found));
    list.await.map(Json).map_err(|_| ApiError::unavailable("the reports were not added up"))
}

fn add_up(found: &[(String, i64, String, Vec<u8>)]) -> Vec<Sums> {
    let mut arms: BTreeMap<&str, (std::collections::BTreeSet<&str>, usize, Aggregate)> = BTreeMap::new();
    for (device, _, arm, bytes) in found {
        let Ok(Report::Known(_, window)) = AnyReport::decode(bytes) else { continue };
        let (devices, reports, sums) = arms.entry(arm).or_default();
        devices.insert(device);
        *reports += 1;
        sums.add(&window);
    }
    let shown = |(arm, (devices, reports, sums)): (&str, (std::collections::BTreeSet<&str>, usize, Aggregate))| {
        let counters: BTreeMap<&str, u64> = Counter::ALL.iter().map(|c| (c.name(), sums.counter(*c))).collect();
        (devices.len() >= 10).then(|| Sums {
            arm: arm.to_owned(),
            devices: devices.len(),
            reports,
            sums: json!({
                "windows": sums.windows(), "incomplete": sums.incomplete(), "rounded": sums.rounded(),
                "seconds": sums.seconds(), "counters": counters, "latency": sums.latency(),
                "confidence": sums.confidence(), "classes": sums.classes(), "distances": sums.distances(),
            }),
        })
    };
    arms.into_iter().filter_map(shown).collect()
}
