//! Drift: what devices count now against their package's reference, what was judged before, and which alarms stand.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::{Ask, digest};
use crate::auth::{By, VIEWER};
use crate::drift::{self, Finding, HOURS};
use crate::error::{ApiError, ApiResult, Problem};
use crate::server::App;
use crate::store::drift::{self as table, Standing, Window};
use crate::store::{packages, reports, signed};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(now)).routes(routes!(standing)).routes(routes!(windows))
}

/// Of what, and since when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Only this package.
    digest: Option<String>,
    /// Only this cohort: `all`, `rest`, `control`, `candidate`, `shadow`.
    cohort: Option<String>,
    /// Hours back from now, 1 to 168; 24 unless said.
    hours: Option<u32>,
}

/// A package's cohort beside the package's reference.
#[derive(Debug, Serialize, ToSchema)]
struct Drift {
    /// The package.
    digest: String,
    /// Its model; nothing: it was never published here.
    model: Option<String>,
    /// Its version.
    version: Option<String>,
    /// `all`, or what devices say they are in a rollout where they say different things: `rest`, `control`, `candidate`,
    /// `shadow`.
    cohort: String,
    /// Devices that reported. Of fewer than ten nothing else is said.
    devices: usize,
    /// Whether the package brings a reference to compare with.
    has_reference: bool,
    /// The gravest verdict: `not_enough_data`, `steady`, `warn` or `act`.
    level: String,
    /// First second of what was looked at, since 1970.
    from: i64,
    /// All verdicts with their numbers.
    verdicts: Vec<Finding>,
    /// Alarms that stand, by subject: two days called for them.
    alarms: BTreeMap<String, Standing>,
}

/// Packages that are looked at for one answer.
const PACKAGES: i64 = 12;

/// What devices counted in the last hours against their package's reference, by package and cohort; the packages of most
/// reports first.
#[utoipa::path(get, path = "/v1/drift", tag = "drift", params(Which), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Drift>), (status = "default", body = Problem)))]
async fn now(State(app): State<App>, By(who): By<VIEWER>, Ask(which): Ask<Which>) -> ApiResult<Json<Vec<Drift>>> {
    let tenant = who.tenant.id.as_str();
    let hours = which.hours.map_or(HOURS, i64::from);
    if !(1..=168).contains(&hours) {
        return Err(ApiError::bad(format!("hours={hours} is out of range"), "ask for 1 to 168 hours"));
    }
    let from = signed(app.clock.seconds()) - hours * 3600;
    let mut connection = app.store.read().await?;
    let digests = match which.digest {
        Some(one) => {
            digest(&one)?;
            vec![one]
        }
        None => reports::packages(&mut connection, tenant, (from, i64::MAX), PACKAGES).await?,
    };
    drop(connection);
    let mut list = Vec::new();
    for digest in digests {
        let numbers = drift::lately(&app, tenant, &digest, hours).await?;
        let mut connection = app.store.read().await?;
        let package = packages::get(&mut connection, tenant, &digest).await?;
        let (model, version) = package.map(|p| (p.name, p.version)).unzip();
        for (cohort, measured) in &numbers.cohorts {
            if which.cohort.as_ref().is_some_and(|wanted| wanted != cohort) {
                continue;
            }
            let alarms = table::cohort(&mut connection, tenant, &digest, cohort).await?.standing;
            list.push(Drift {
                digest: digest.clone(),
                model: model.clone(),
                version: version.clone(),
                cohort: cohort.clone(),
                devices: measured.devices,
                has_reference: numbers.baseline.is_some(),
                level: measured.level().name().into(),
                from,
                verdicts: measured.verdicts.iter().map(Finding::from).collect(),
                alarms,
            });
        }
    }
    Ok(Json(list))
}

/// Alarms of a package's cohort.
#[derive(Debug, Serialize, ToSchema)]
struct Alarms {
    /// The package.
    digest: String,
    /// The cohort.
    cohort: String,
    /// The last day that was judged, days since 1970.
    window: i64,
    /// By subject. The alert of an alarm has the numbers and the playbook's next step: `/v1/alerts`.
    alarms: BTreeMap<String, Standing>,
}

/// Alarms that stand. Two days (of UTC) one after the other raise one, with one alert; a steady day ends it.
#[utoipa::path(get, path = "/v1/drift/alarms", tag = "drift", extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Alarms>), (status = "default", body = Problem)))]
async fn standing(State(app): State<App>, By(who): By<VIEWER>) -> ApiResult<Json<Vec<Alarms>>> {
    let all = table::standing(&mut *app.store.read().await?, &who.tenant.id).await?;
    let alarms =
        |(digest, cohort, window, of): (_, _, _, table::Cohort)| Alarms { digest, cohort, window, alarms: of.standing };
    Ok(Json(all.into_iter().map(alarms).collect()))
}

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Back {
    /// Days, 1 to 366; 30 unless said.
    days: Option<u32>,
}

/// A day of a cohort.
#[derive(Debug, Serialize, ToSchema)]
struct Day {
    /// The cohort.
    cohort: String,
    /// What was judged when the day was over.
    #[serde(flatten)]
    window: Window,
}

/// The days of a package as they were judged, by cohort.
#[utoipa::path(get, path = "/v1/drift/{digest}/windows", tag = "drift", params(Back,
    ("digest" = String, Path, description = "The package")), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Day>), (status = "default", body = Problem)))]
async fn windows(
    State(app): State<App>,
    By(who): By<VIEWER>,
    Path(id): Path<String>,
    Ask(back): Ask<Back>,
) -> ApiResult<Json<Vec<Day>>> {
    digest(&id)?;
    let days = i64::from(back.days.unwrap_or(30).clamp(1, 366));
    let from = signed(app.clock.seconds()) / (HOURS * 3600) - days;
    let mut connection = app.store.read().await?;
    let list = table::windows(&mut connection, &who.tenant.id, &id, from).await?;
    if list.is_empty() && packages::get(&mut connection, &who.tenant.id, &id).await?.is_none() {
        return Err(ApiError::missing("package", &id));
    }
    Ok(Json(list.into_iter().map(|(cohort, window)| Day { cohort, window }).collect()))
}
