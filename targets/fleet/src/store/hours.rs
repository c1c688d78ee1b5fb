//! Sums over the reports of an hour. An hour that is over gets no more of them, for they are told by their arrival; so it
//! is summed once, by whichever replica comes first, and pages need not read a fleet's reports.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt as _;
use sqlx::Row as _;

use super::{Connection, Store, signed};
use crate::server::Inner;
use crate::summary::Summary;

/// Seconds after an hour's end before it is summed: what the replicas' clocks may differ by.
const SETTLE: i64 = 120;
/// Hours that are kept up to date; older ones that nobody summed stay unknown.
pub(crate) const KEPT: i64 = 96;

/// The sums of an hour and a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hour {
    /// Hours since 1970.
    pub(crate) hour: i64,
    /// Of what runs; empty where the report said nothing of it.
    pub(crate) digest: String,
    /// Different devices.
    pub(crate) devices: i64,
    pub(crate) reports: i64,
    pub(crate) inferences: i64,
    pub(crate) errors: i64,
    /// Inferences over their deadline.
    pub(crate) late: i64,
    /// Reports in which a device started more than once.
    pub(crate) resets: i64,
    /// Inferences by bucket of latency, from bucket 0 on.
    pub(crate) latency: Vec<u64>,
}

impl Hour {
    /// Adds inferences by bucket of latency, of which `first` is the first.
    pub(crate) fn add_latency(&mut self, first: usize, counts: impl Iterator<Item = u64>) {
        for (bucket, count) in (first..).zip(counts).filter(|(_, count)| *count > 0) {
            if self.latency.len() <= bucket {
                self.latency.resize(bucket + 1, 0);
            }
            if let Some(sum) = self.latency.get_mut(bucket) {
                *sum = sum.saturating_add(count);
            }
        }
    }
}

/// Sums the reports that arrived in an hour, as far as they have.
pub(crate) async fn sum(connection: &mut Connection, tenant: &str, hour: i64) -> Result<Vec<Hour>, sqlx::Error> {
    let mut sums: BTreeMap<String, (Hour, BTreeSet<String>)> = BTreeMap::new();
    let mut rows =
        sqlx::query("SELECT device, digest, payload FROM reports WHERE tenant = $1 AND arrived >= $2 AND arrived < $3")
            .bind(tenant)
            .bind(hour * 3600)
            .bind((hour + 1) * 3600)
            .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let digest: Option<String> = row.try_get("digest")?;
        let digest = digest.unwrap_or_default();
        let payload: Vec<u8> = row.try_get("payload")?;
        let (sum, devices) = sums.entry(digest.clone()).or_default();
        (sum.hour, sum.digest) = (hour, digest);
        devices.insert(row.try_get("device")?);
        sum.reports += 1;
        if let Some(seen) = Summary::of(&payload) {
            sum.inferences += signed(seen.inferences);
            sum.errors += signed(seen.errors);
            sum.late += signed(seen.deadline_misses);
            sum.resets += i64::from(seen.restarted);
            sum.add_latency(seen.latency_first, seen.latency.iter().map(|n| u64::from(*n)));
        }
    }
    drop(rows);
    let counted = |(mut sum, devices): (Hour, BTreeSet<String>)| {
        sum.devices = i64::try_from(devices.len()).unwrap_or(i64::MAX);
        sum
    };
    Ok(sums.into_values().map(counted).collect())
}

async fn write(tx: &mut Connection, tenant: &str, of: &Hour) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO hours VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING")
        .bind(tenant)
        .bind(of.hour)
        .bind(&of.digest)
        .bind(of.devices)
        .bind(of.reports)
        .bind(of.inferences)
        .bind(of.errors)
        .bind(of.late)
        .bind(of.resets)
        .bind(serde_json::to_string(&of.latency).map_err(|e| sqlx::Error::Encode(e.into()))?)
        .execute(tx)
        .await
        .map(drop)
}

/// Sums the hours that are over and not yet summed.
pub(crate) async fn catch_up(store: &Store, tenant: &str, now: i64) -> Result<(), sqlx::Error> {
    let mut connection = store.read().await?;
    let end = (now - SETTLE) / 3600;
    let known: Option<i64> = sqlx::query_scalar("SELECT MAX(hour) FROM hours WHERE tenant = $1")
        .bind(tenant)
        .fetch_one(&mut *connection)
        .await?;
    let first = known.map_or(end - KEPT, |last| (last + 1).max(end - KEPT));
    for hour in first..end {
        let mut sums = sum(&mut connection, tenant, hour).await?;
        if sums.is_empty() {
            sums.push(Hour { hour, ..Hour::default() });
        }
        let mut tx = store.write().await?;
        for sum in &sums {
            write(&mut tx, tenant, sum).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Counts devices by what they run, once an hour.
async fn take_census(store: &Store, tenant: &str, now: i64) -> Result<(), sqlx::Error> {
    let hour = now / 3600;
    let known: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM census WHERE tenant = $1 AND hour = $2")
        .bind(tenant)
        .bind(hour)
        .fetch_one(&mut *store.read().await?)
        .await?;
    if known > 0 {
        return Ok(());
    }
    let mut tx = store.write().await?;
    sqlx::query(
        "INSERT INTO census SELECT tenant, CAST($2 AS BIGINT), running, COUNT(*) FROM devices
         WHERE tenant = $1 AND running IS NOT NULL GROUP BY tenant, running ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(hour)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// How many devices ran what, from an hour on: hour, digest, devices.
pub(crate) async fn census(
    connection: &mut Connection,
    tenant: &str,
    hour: i64,
) -> Result<Vec<(i64, String, i64)>, sqlx::Error> {
    let rows = sqlx::query("SELECT hour, running, devices FROM census WHERE tenant = $1 AND hour >= $2 ORDER BY hour")
        .bind(tenant)
        .bind(hour)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("hour")?, row.try_get("running")?, row.try_get("devices")?))).collect()
}

/// Sums what is due of every tenant. What fails is logged, and tried again the next time.
pub(crate) async fn tick(app: &Inner) {
    let now = signed(app.clock.seconds());
    let all = async {
        for tenant in super::audit::tenants(&app.store).await? {
            catch_up(&app.store, &tenant, now).await?;
            take_census(&app.store, &tenant, now).await?;
        }
        Ok::<_, sqlx::Error>(())
    };
    if let Err(error) = all.await {
        tracing::error!(%error, "hours are not summed");
    }
}

/// The sums from an hour on, in order.
pub(crate) async fn since(connection: &mut Connection, tenant: &str, hour: i64) -> Result<Vec<Hour>, sqlx::Error> {
    between(connection, tenant, hour, i64::MAX).await
}

/// Returns the sums from an hour on and before another, in order.
pub(crate) async fn between(
    connection: &mut Connection,
    tenant: &str,
    from: i64,
    to: i64,
) -> Result<Vec<Hour>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM hours WHERE tenant = $1 AND hour >= $2 AND hour < $3 ORDER BY hour, digest")
        .bind(tenant)
        .bind(from)
        .bind(to)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Hour {
                hour: row.try_get("hour")?,
                digest: row.try_get("digest")?,
                devices: row.try_get("devices")?,
                reports: row.try_get("reports")?,
                inferences: row.try_get("inferences")?,
                errors: row.try_get("errors")?,
                late: row.try_get("late")?,
                resets: row.try_get("resets")?,
                latency: {
                    let text: String = row.try_get("latency")?;
                    serde_json::from_str(&text).map_err(|e| sqlx::Error::Decode(e.into()))?
                },
            })
        })
        .collect()
}
