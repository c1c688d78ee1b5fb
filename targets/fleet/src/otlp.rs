//! What a fleet measured, hour by hour, to a collector: OpenTelemetry's protobuf over HTTP (`POST /v1/metrics`).
//!
//! An hour that is over is sent once, by the replica that comes first, and again until the collector takes it. Sums are by
//! tenant, package and arm; of fewer than ten devices nothing is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dunlin_telemetry::aggregate::Aggregate;
use dunlin_telemetry::export::{Context, Snapshot, otlp};
use dunlin_telemetry::report::AnyReport;
use dunlin_telemetry::{Reference, Report};

use crate::drift::FEWEST;
use crate::server::Inner;
use crate::store::{Connection, audit, packages, reports, signed};

/// Seconds after an hour's end before it is sent: what the replicas' clocks may differ by.
const SETTLE: i64 = 120;
/// Hours that are sent late, after server or collector were away.
const LATE: i64 = 24;
/// Seconds after which an hour that was not taken is sent again.
const AGAIN: i64 = 60;
/// How long a collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the hours that are due, if there is a collector. What fails is logged, and tried again.
pub(crate) async fn tick(app: &Inner) {
    let Some(collector) = &app.otlp else { return };
    let now = signed(app.clock.seconds());
    let all = async {
        for tenant in audit::tenants(&app.store).await? {
            let end = (now - SETTLE) / 3600;
            let open = open(&mut *app.store.read().await?, &tenant, (end - LATE, end), now).await?;
            for hour in open {
                if take(&mut *app.store.read().await?, &tenant, hour, now).await?
                    && send(app, collector, &tenant, hour).await?
                {
                    done(&mut *app.store.read().await?, &tenant, hour).await?;
                }
            }
        }
        Ok::<_, sqlx::Error>(())
    };
    if let Err(error) = all.await {
        tracing::error!(%error, "metrics are not exported");
    }
}

/// Hours that were not sent and that nobody is at.
async fn open(
    connection: &mut Connection,
    tenant: &str,
    (from, to): (i64, i64),
    now: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    let closed: Vec<i64> =
        sqlx::query_scalar("SELECT hour FROM exports WHERE tenant = $1 AND hour >= $2 AND (sent = 1 OR due > $3)")
            .bind(tenant)
            .bind(from)
            .bind(now)
            .fetch_all(connection)
            .await?;
    Ok((from..to).filter(|hour| !closed.contains(hour)).collect())
}

/// Takes an hour for oneself; `false` when it was sent, or somebody is at it.
async fn take(connection: &mut Connection, tenant: &str, hour: i64, now: i64) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query(
        "INSERT INTO exports VALUES ($1, $2, $3, 0) ON CONFLICT (tenant, hour) DO UPDATE SET due = excluded.due
         WHERE exports.sent = 0 AND exports.due <= $4",
    )
    .bind(tenant)
    .bind(hour)
    .bind(now + AGAIN)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(taken.rows_affected() == 1)
}

async fn done(connection: &mut Connection, tenant: &str, hour: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE exports SET sent = 1 WHERE tenant = $1 AND hour = $2")
        .bind(tenant)
        .bind(hour)
        .execute(connection)
        .await
        .map(drop)
}

/// Whether the collector took all there is of an hour.
async fn send(app: &Inner, collector: &str, tenant: &str, hour: i64) -> Result<bool, sqlx::Error> {
    let window = (hour * 3600, (hour + 1) * 3600);
    let mut connection = app.store.read().await?;
    let digests = reports::packages(&mut connection, tenant, window, i64::MAX).await?;
    for digest in digests {
        let found = reports::in_window(&mut connection, tenant, &digest, window, None).await?;
        let package = packages::get(&mut connection, tenant, &digest).await?;
        let (name, version) = package.map_or_else(Default::default, |p| (p.name, p.version));
        let resource = [
            ("service.name", "dunlin-fleet".to_owned()),
            ("dunlin.tenant", tenant.to_owned()),
            ("dunlin.digest", digest),
            ("dunlin.model", name),
            ("dunlin.version", version),
        ];
        let url = format!("{}/v1/metrics", collector.trim_end_matches('/'));
        let posted = tokio::task::spawn_blocking(move || {
            requests(&found, &resource, window).into_iter().try_for_each(|body| post(&url, &body))
        });
        match posted.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(tenant, hour, error, "the collector did not take an hour");
                return Ok(false);
            }
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// A request for each arm.
fn requests(
    found: &[(String, i64, String, Vec<u8>)],
    resource: &[(&str, String)],
    (from, to): (i64, i64),
) -> Vec<Vec<u8>> {
    let mut arms: BTreeMap<&str, (BTreeSet<&str>, Aggregate)> = BTreeMap::new();
    for (device, _, arm, bytes) in found {
        // 20 KB each, so not on the stack.
        let Ok(report) = AnyReport::decode(bytes).map(Box::new) else { continue };
        if let Report::Known(_, window) = &*report {
            let (devices, sums) = arms.entry(arm).or_default();
            devices.insert(device);
            sums.add(window);
        }
    }
    let nanos = |seconds: i64| crate::store::unsigned(seconds) * 1_000_000_000;
    let request = |(arm, (devices, sums)): (&str, (BTreeSet<&str>, Aggregate))| {
        let count = devices.len().to_string();
        let mut resource: Vec<(&str, &str)> = resource.iter().map(|(k, v)| (*k, v.as_str())).collect();
        resource.extend([("dunlin.arm", arm), ("dunlin.devices", count.as_str())]);
        let context = Context {
            resource: &resource,
            start_ns: nanos(from),
            end_ns: nanos(to),
            reference: &Reference::NONE,
            classes: &[],
        };
        (devices.len() >= FEWEST).then(|| otlp::request(&Snapshot::of_windows(&sums, &context)))
    };
    arms.into_iter().filter_map(request).collect()
}

fn post(url: &str, body: &[u8]) -> Result<(), String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0).build().into();
    let answer = agent.post(url).header("content-type", "application/x-protobuf").send(body);
    match answer.map(|answer| answer.status().as_u16()) {
        Ok(200..=299) => Ok(()),
        Ok(status) => Err(format!("it answered {status}")),
        Err(error) => Err(error.to_string()),
    }
}
