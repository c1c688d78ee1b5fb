//! Windows of drift as they were judged, and what stands of each package and cohort.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use utoipa::ToSchema;

use super::Connection;
use crate::drift::Finding;

/// A window that was judged.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Window {
    /// Its number: days since 1970.
    pub(crate) window: i64,
    /// Its first second, since 1970.
    pub(crate) from: i64,
    /// Its end.
    pub(crate) to: i64,
    /// Devices that reported.
    pub(crate) devices: i64,
    /// The gravest verdict: `not_enough_data`, `steady`, `warn` or `act`.
    pub(crate) level: String,
    /// All verdicts with their numbers.
    pub(crate) verdicts: Vec<Finding>,
}

/// An alarm that stands: two windows called for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Standing {
    /// `warn` or `act`.
    pub(crate) level: String,
    /// Since when, seconds since 1970.
    pub(crate) since: i64,
    /// The gravest level of which somebody was told.
    pub(crate) told: Option<String>,
    /// The alert that told of it; nothing: another cohort's does.
    pub(crate) alert: Option<i64>,
}

/// What is known of a cohort from its windows so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cohort {
    /// The last level of each statistic, by `subject/statistic`.
    pub(crate) before: BTreeMap<String, String>,
    /// Alarms by subject.
    pub(crate) standing: BTreeMap<String, Standing>,
}

fn decode(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

fn encode<T: Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(e.into()))
}

/// The last window that was judged for all of a tenant's packages.
pub(crate) async fn last(connection: &mut Connection, tenant: &str) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT MAX(number) FROM drift_windows WHERE tenant = $1 AND digest = ''")
        .bind(tenant)
        .fetch_one(connection)
        .await
}

/// Says that a window was judged for all packages.
pub(crate) async fn close(tx: &mut Connection, tenant: &str, window: i64) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO drift_windows VALUES ($1, '', '', $2, 0, '', '[]') ON CONFLICT DO NOTHING")
        .bind(tenant)
        .bind(window)
        .execute(tx)
        .await
        .map(drop)
}

/// Adds a window; `false` when somebody has.
pub(crate) async fn add(
    tx: &mut Connection,
    tenant: &str,
    digest: &str,
    cohort: &str,
    of: &Window,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("INSERT INTO drift_windows VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING")
        .bind(tenant)
        .bind(digest)
        .bind(cohort)
        .bind(of.window)
        .bind(of.devices)
        .bind(&of.level)
        .bind(encode(&of.verdicts)?)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The newest windows of a package, by cohort.
pub(crate) async fn windows(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
    from: i64,
) -> Result<Vec<(String, Window)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM drift_windows WHERE tenant = $1 AND digest = $2 AND number >= $3 ORDER BY cohort, number",
    )
    .bind(tenant)
    .bind(digest)
    .bind(from)
    .fetch_all(connection)
    .await?;
    let window = |row: &sqlx::any::AnyRow| {
        let (number, verdicts): (i64, String) = (row.try_get("number")?, row.try_get("verdicts")?);
        let day = crate::drift::HOURS * 3600;
        Ok((
            row.try_get("cohort")?,
            Window {
                window: number,
                from: number * day,
                to: (number + 1) * day,
                devices: row.try_get("devices")?,
                level: row.try_get("level")?,
                verdicts: serde_json::from_str(&verdicts).map_err(decode)?,
            },
        ))
    };
    rows.iter().map(window).collect()
}

/// What is known of a cohort.
pub(crate) async fn cohort(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
    cohort: &str,
) -> Result<Cohort, sqlx::Error> {
    let state: Option<String> =
        sqlx::query_scalar("SELECT state FROM drift_cohorts WHERE tenant = $1 AND digest = $2 AND cohort = $3")
            .bind(tenant)
            .bind(digest)
            .bind(cohort)
            .fetch_optional(connection)
            .await?;
    state.map_or_else(|| Ok(Cohort::default()), |state| serde_json::from_str(&state).map_err(decode))
}

/// Writes what is known of a cohort after a window.
pub(crate) async fn put_cohort(
    tx: &mut Connection,
    tenant: &str,
    digest: &str,
    cohort: &str,
    window: i64,
    of: &Cohort,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO drift_cohorts VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, digest, cohort)
         DO UPDATE SET number = excluded.number, standing = excluded.standing, state = excluded.state",
    )
    .bind(tenant)
    .bind(digest)
    .bind(cohort)
    .bind(window)
    .bind(i64::from(!of.standing.is_empty()))
    .bind(encode(of)?)
    .execute(tx)
    .await
    .map(drop)
}

/// Cohorts with alarms that stand: digest, cohort, last window, alarms.
pub(crate) async fn standing(
    connection: &mut Connection,
    tenant: &str,
) -> Result<Vec<(String, String, i64, Cohort)>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM drift_cohorts WHERE tenant = $1 AND standing = 1 ORDER BY digest, cohort")
        .bind(tenant)
        .fetch_all(connection)
        .await?;
    let one = |row: &sqlx::any::AnyRow| {
        let state: String = row.try_get("state")?;
        let state = serde_json::from_str(&state).map_err(decode)?;
        Ok((row.try_get("digest")?, row.try_get("cohort")?, row.try_get("number")?, state))
    };
    rows.iter().map(one).collect()
}
