//! Tenants and their roots of trust.

use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use utoipa::ToSchema;

use super::Connection;

/// What a tenant may have and wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Seconds between a device's polls, on average.
    pub(crate) poll_seconds: u32,
    /// Whether somebody else than who started a rollout approves before it serves on more than 5 % of the devices, or on a ring
    /// after ring 1; where it does so at once, before it starts.
    pub(crate) two_person: bool,
    /// Devices that may be enrolled.
    pub(crate) max_devices: i64,
    /// Bytes of packages and deltas that may be stored.
    pub(crate) max_bytes: i64,
    /// Requests a second with each of the tenant's tokens.
    pub(crate) operator_rate: u32,
    /// Requests a second of all the tenant's devices together.
    pub(crate) device_rate: u32,
    /// Where alerts are posted as JSON.
    pub(crate) webhook: Option<String>,
    /// For how long what devices sent is kept.
    pub(crate) retention: Retention,
    /// From where on shares are an alert, whatever is usual.
    pub(crate) alert_limits: AlertLimits,
}

/// Shares, from 0 to 1, above which there is an alert, whatever is usual; 1: never.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AlertLimits {
    /// Devices of a model that were not heard of for three poll intervals.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) silent: f64,
    /// Inferences of an hour that failed.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) inference_errors: f64,
    /// Inferences of an hour that took longer than their deadline.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) deadline_misses: f64,
    /// Reports of an hour of devices that restarted after a fault.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) resets: f64,
}

impl Default for AlertLimits {
    fn default() -> Self {
        Self { silent: 0.5, inference_errors: 0.2, deadline_misses: 0.25, resets: 0.2 }
    }
}

impl AlertLimits {
    /// The limits by the names of their fields.
    pub(crate) fn named(self) -> [(&'static str, f64); 4] {
        [
            ("silent", self.silent),
            ("inference_errors", self.inference_errors),
            ("deadline_misses", self.deadline_misses),
            ("resets", self.resets),
        ]
    }
}

/// Days for which what devices sent is kept; 0: for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retention {
    /// Reports as they came, from their arrival; at least a week, in which they are summed and judged.
    pub(crate) reports: u32,
    /// Days of devices in rollouts that ended, from when their last stage began. Verdicts and what they are based on stay.
    pub(crate) device_days: u32,
    /// Sums of hours, and how many devices ran what.
    pub(crate) hours: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { reports: 90, device_days: 90, hours: 730 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            poll_seconds: 300,
            two_person: false,
            max_devices: 1_000_000,
            max_bytes: 20 << 30,
            operator_rate: 100,
            device_rate: 5000,
            webhook: None,
            retention: Retention::default(),
            alert_limits: AlertLimits::default(),
        }
    }
}

/// A tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Tenant {
    /// Its name in tokens and paths.
    pub(crate) id: String,
    /// Its name for people.
    pub(crate) title: String,
    /// Seconds since 1970.
    pub(crate) created: i64,
    /// What it may have and wants.
    pub(crate) settings: Settings,
}

fn tenant(row: &sqlx::any::AnyRow) -> Result<Tenant, sqlx::Error> {
    let settings: String = row.try_get("settings")?;
    let settings = serde_json::from_str(&settings).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(Tenant { id: row.try_get("id")?, title: row.try_get("title")?, created: row.try_get("created")?, settings })
}

pub(crate) async fn get(connection: &mut Connection, id: &str) -> Result<Option<Tenant>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM tenants WHERE id = $1").bind(id).fetch_optional(connection).await?;
    row.as_ref().map(tenant).transpose()
}

pub(crate) async fn list(connection: &mut Connection) -> Result<Vec<Tenant>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM tenants ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(tenant).collect()
}

/// Makes a tenant, or changes its title and settings.
pub(crate) async fn put(tx: &mut Connection, of: &Tenant) -> Result<(), sqlx::Error> {
    let settings = serde_json::to_string(&of.settings).map_err(|e| sqlx::Error::Encode(e.into()))?;
    sqlx::query(
        "INSERT INTO tenants (id, title, created, settings, audited, head, alerted, stored)
         VALUES ($1, $2, $3, $4, 0, '', 0, 0)
         ON CONFLICT (id) DO UPDATE SET title = excluded.title, settings = excluded.settings",
    )
    .bind(&of.id)
    .bind(&of.title)
    .bind(of.created)
    .bind(settings)
    .execute(tx)
    .await
    .map(drop)
}

/// The tenant's root documents, from the first.
pub(crate) async fn roots(connection: &mut Connection, tenant: &str) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("SELECT document FROM roots WHERE tenant = $1 ORDER BY version")
        .bind(tenant)
        .fetch_all(connection)
        .await
}

pub(crate) async fn add_root(
    tx: &mut Connection,
    tenant: &str,
    version: i64,
    document: &[u8],
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("INSERT INTO roots VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(tenant)
        .bind(version)
        .bind(document)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts bytes to a tenant's quota, unless they are too many.
pub(crate) async fn reserve(tx: &mut Connection, tenant: &str, bytes: i64, most: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE tenants SET stored = stored + $2 WHERE id = $1 AND stored + $2 <= $3")
        .bind(tenant)
        .bind(bytes)
        .bind(most)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes bytes off what counts for a tenant's quota.
pub(crate) async fn release(tx: &mut Connection, tenant: &str, bytes: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE tenants SET stored = CASE WHEN stored > $2 THEN stored - $2 ELSE 0 END WHERE id = $1")
        .bind(tenant)
        .bind(bytes)
        .execute(tx)
        .await
        .map(drop)
}
