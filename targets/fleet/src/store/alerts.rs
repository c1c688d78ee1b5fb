//! Alerts: kept, logged, and posted to the tenant's webhook until that says it has them.

use serde::Serialize;
use serde_json::Value;
use sqlx::Row as _;
use utoipa::ToSchema;

use super::Connection;

/// An alert.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Alert {
    /// Its number, from 1.
    pub(crate) n: i64,
    /// Seconds since 1970.
    pub(crate) time: i64,
    /// The rollout it is about; of drift the one that brings the package to devices now, or empty.
    pub(crate) rollout: String,
    /// Of a rollout `rollback`, `pause`, `approval`, `advance` or `completed`; `drift`, `drift_cleared`.
    pub(crate) kind: String,
    /// For people.
    pub(crate) text: String,
    /// The numbers and the next step, as JSON.
    pub(crate) detail: String,
    /// When somebody acknowledged it.
    pub(crate) acknowledged: Option<i64>,
    /// Who.
    pub(crate) acknowledged_by: Option<String>,
}

/// Raises an alert, in the transaction of what it is about.
pub(crate) async fn raise(
    tx: &mut Connection,
    tenant: &str,
    now: i64,
    rollout: &str,
    kind: &str,
    text: &str,
    detail: &Value,
) -> Result<i64, sqlx::Error> {
    let n: i64 = sqlx::query_scalar("UPDATE tenants SET alerted = alerted + 1 WHERE id = $1 RETURNING alerted")
        .bind(tenant)
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO alerts VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, NULL, 0, 0, 0)")
        .bind(tenant)
        .bind(n)
        .bind(now)
        .bind(rollout)
        .bind(kind)
        .bind(text)
        .bind(detail.to_string())
        .execute(tx)
        .await?;
    Ok(n)
}

fn alert(r: &sqlx::any::AnyRow) -> Result<Alert, sqlx::Error> {
    Ok(Alert {
        n: r.try_get("n")?,
        time: r.try_get("time")?,
        rollout: r.try_get("rollout")?,
        kind: r.try_get("kind")?,
        text: r.try_get("text")?,
        detail: r.try_get("detail")?,
        acknowledged: r.try_get("acknowledged")?,
        acknowledged_by: r.try_get("acknowledged_by")?,
    })
}

pub(crate) async fn list(
    connection: &mut Connection,
    tenant: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Alert>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM alerts WHERE tenant = $1 AND n > $2 ORDER BY n LIMIT $3")
        .bind(tenant)
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter().map(alert).collect()
}

/// Acknowledges; who was first stays.
pub(crate) async fn acknowledge(
    tx: &mut Connection,
    tenant: &str,
    n: i64,
    who: &str,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE alerts SET acknowledged = COALESCE(acknowledged, $3), acknowledged_by = COALESCE(acknowledged_by, $4)
         WHERE tenant = $1 AND n = $2",
    )
    .bind(tenant)
    .bind(n)
    .bind(now)
    .bind(who)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Of each tenant the oldest alert that no webhook has taken yet and that was tried fewer times than `most`, if it is due
/// now: tenant, attempts, alert. Those after it wait for it, so that alerts come in their order; and no tenant's wait for
/// another's. The longest due first.
pub(crate) async fn undelivered(
    connection: &mut Connection,
    most: i64,
    now: i64,
) -> Result<Vec<(String, i64, Alert)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT alerts.* FROM alerts JOIN (SELECT tenant, MIN(n) AS first FROM alerts
             WHERE delivered = 0 AND attempts < $1 GROUP BY tenant) AS heads
         ON heads.tenant = alerts.tenant AND heads.first = alerts.n
         WHERE alerts.due <= $2 ORDER BY alerts.due, alerts.time, alerts.tenant LIMIT 200",
    )
    .bind(most)
    .bind(now)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|r| Ok((r.try_get("tenant")?, r.try_get("attempts")?, alert(r)?))).collect()
}

/// A tenant's oldest alert that no webhook has taken yet, as [`undelivered`] has it, if it is due.
pub(crate) async fn next_undelivered(
    connection: &mut Connection,
    tenant: &str,
    most: i64,
    now: i64,
) -> Result<Option<(i64, Alert)>, sqlx::Error> {
    let row =
        sqlx::query("SELECT * FROM alerts WHERE tenant = $1 AND delivered = 0 AND attempts < $2 ORDER BY n LIMIT 1")
            .bind(tenant)
            .bind(most)
            .fetch_optional(connection)
            .await?;
    let Some(row) = row else { return Ok(None) };
    let due: i64 = row.try_get("due")?;
    Ok(Some((row.try_get("attempts")?, alert(&row)?)).filter(|_| due <= now))
}

/// Takes the next attempt for oneself, and says when the one after it is due should this one not succeed; `false` when
/// another replica has taken it.
pub(crate) async fn attempt(
    connection: &mut Connection,
    tenant: &str,
    n: i64,
    attempts: i64,
    due: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE alerts SET attempts = attempts + 1, due = $4
         WHERE tenant = $1 AND n = $2 AND attempts = $3 AND delivered = 0",
    )
    .bind(tenant)
    .bind(n)
    .bind(attempts)
    .bind(due)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Says that an alert was taken.
pub(crate) async fn delivered(connection: &mut Connection, tenant: &str, n: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE alerts SET delivered = 1 WHERE tenant = $1 AND n = $2")
        .bind(tenant)
        .bind(n)
        .execute(connection)
        .await
        .map(drop)
}
