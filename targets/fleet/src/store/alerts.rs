//! Alerts: kept, logged, and posted to the tenant's webhook until that says it has them.

use serde::Serialize;
use serde_json::Value;
use sqlx::Row as _;
use utoipa::ToSchema;

use super::Connection;

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Nothing has to be done.
    Info,
    /// Look at it today.
    Warning,
    /// Act now.
    Critical,
}

impl Severity {
    pub(crate) const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// Its name in the database, the API and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity of an event of this kind.
    pub(crate) fn of_kind(kind: &str) -> Self {
        match kind {
            "advance" | "completed" | "drift_cleared" => Self::Info,
            "rollback" => Self::Critical,
            _ => Self::Warning,
        }
    }

    fn stored(name: &str, kind: &str) -> Self {
        Self::ALL.into_iter().find(|s| s.name() == name).unwrap_or_else(|| Self::of_kind(kind))
    }
}

/// Whether an alert still needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// A condition that still holds, or an event that nobody has acknowledged.
    Open,
    /// A condition that no longer holds, an event that was acknowledged, or mere news.
    Resolved,
}

/// An alert.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Alert {
    /// Its number, from 1.
    pub(crate) n: i64,
    /// Seconds since 1970.
    pub(crate) time: i64,
    /// The rollout it is about; of drift the one that brings the package to devices now, or empty.
    pub(crate) rollout: String,
    /// Of a rollout `rollback`, `pause`, `approval`, `advance` or `completed`; `drift`, `drift_cleared`; of a condition the
    /// name of its rule.
    pub(crate) kind: String,
    /// For people.
    pub(crate) text: String,
    /// The numbers and the next step, as JSON.
    pub(crate) detail: String,
    /// When somebody acknowledged it.
    pub(crate) acknowledged: Option<i64>,
    /// Who.
    pub(crate) acknowledged_by: Option<String>,
    /// How urgent it is.
    pub(crate) severity: Severity,
    /// Whether it still needs attention.
    pub(crate) state: State,
    /// Of a condition what it is about; at most one alert with this key is open. Empty: an event.
    pub(crate) key: String,
    /// When its text and numbers last changed.
    pub(crate) updated: i64,
    /// When the condition stopped holding.
    pub(crate) resolved: Option<i64>,
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
    let n = next_number(tx, tenant).await?;
    sqlx::query(
        "INSERT INTO alerts (tenant, n, time, rollout, kind, text, detail, delivered, attempts, due, severity, updated)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, $8, $3)",
    )
    .bind(tenant)
    .bind(n)
    .bind(now)
    .bind(rollout)
    .bind(kind)
    .bind(text)
    .bind(detail.to_string())
    .bind(Severity::of_kind(kind).name())
    .execute(tx)
    .await?;
    Ok(n)
}

async fn next_number(tx: &mut Connection, tenant: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("UPDATE tenants SET alerted = alerted + 1 WHERE id = $1 RETURNING alerted")
        .bind(tenant)
        .fetch_one(tx)
        .await
}

/// Something that is wrong for as long as it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition<'a> {
    /// What it is about, such as `stranded/ROLLOUT`. At most one alert of a tenant is open for a key.
    pub(crate) key: &'a str,
    /// The name of its rule, such as `stranded`: the alert's `kind`.
    pub(crate) rule: &'a str,
    pub(crate) severity: Severity,
    /// The rollout that it is about, or empty.
    pub(crate) rollout: &'a str,
    /// One sentence for people, numbers included.
    pub(crate) text: &'a str,
    /// The numbers, as a JSON object. `detail["next"]` is what to do, in a sentence.
    pub(crate) detail: &'a Value,
}

/// What [`set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A new alert of this number is open.
    Opened(i64),
    /// The open alert has these numbers now.
    Updated,
}

/// Opens the alert of a condition, or updates the one that is open. Sent to the webhook when it opens and when its severity
/// rises.
pub(crate) async fn set(
    tx: &mut Connection,
    tenant: &str,
    now: i64,
    of: &Condition<'_>,
) -> Result<Change, sqlx::Error> {
    let detail = of.detail.to_string();
    let lower: Vec<&str> = Severity::ALL.iter().filter(|s| **s < of.severity).map(|s| s.name()).collect();
    // Whoever has been told of a warning has to be told that it is critical now.
    let rises = format!(",{},", lower.join(","));
    let updated = sqlx::query(
        "UPDATE alerts SET text = $3, detail = $4, rollout = $6, updated = $7, severity = $5,
         delivered = CASE WHEN $8 LIKE '%,' || severity || ',%' THEN 0 ELSE delivered END,
         attempts = CASE WHEN $8 LIKE '%,' || severity || ',%' THEN 0 ELSE attempts END
         WHERE tenant = $1 AND key = $2 AND resolved IS NULL",
    )
    .bind(tenant)
    .bind(of.key)
    .bind(of.text)
    .bind(&detail)
    .bind(of.severity.name())
    .bind(of.rollout)
    .bind(now)
    .bind(rises)
    .execute(&mut *tx)
    .await?;
    if updated.rows_affected() > 0 {
        return Ok(Change::Updated);
    }
    // This locks the tenant's row, so that of two replicas the second one sees what the first one inserted.
    let n = next_number(tx, tenant).await?;
    let inserted = sqlx::query(
        "INSERT INTO alerts (tenant, n, time, rollout, kind, text, detail, delivered, attempts, due, severity, updated,
         key) SELECT $1, CAST($2 AS BIGINT), CAST($3 AS BIGINT), $4, $5, $6, $7, 0, 0, 0, $8, CAST($3 AS BIGINT), $9
         WHERE NOT EXISTS (SELECT 1 FROM alerts WHERE tenant = $1 AND key = $9 AND resolved IS NULL)",
    )
    .bind(tenant)
    .bind(n)
    .bind(now)
    .bind(of.rollout)
    .bind(of.rule)
    .bind(of.text)
    .bind(&detail)
    .bind(of.severity.name())
    .bind(of.key)
    .execute(tx)
    .await?;
    Ok(if inserted.rows_affected() == 1 { Change::Opened(n) } else { Change::Updated })
}

/// Resolves the open alert of a key, and has it sent to the webhook once more. Returns whether there was one.
pub(crate) async fn clear(tx: &mut Connection, tenant: &str, now: i64, key: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE alerts SET resolved = $3, updated = $3, delivered = 0, attempts = 0, due = 0
         WHERE tenant = $1 AND key = $2 AND key <> '' AND resolved IS NULL",
    )
    .bind(tenant)
    .bind(key)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// SQL for whether an alert is [`State::Open`].
pub(crate) const IS_OPEN: &str = "(CASE WHEN key <> '' THEN resolved IS NULL
    ELSE acknowledged IS NULL AND kind NOT IN ('completed', 'advance', 'drift_cleared') END)";

/// Counts open alerts by rule and severity.
pub(crate) async fn count_open(
    connection: &mut Connection,
    tenant: &str,
) -> Result<Vec<(String, Severity, i64)>, sqlx::Error> {
    let text = format!(
        "SELECT kind, severity, COUNT(*) AS found FROM alerts WHERE tenant = $1 AND {IS_OPEN}
         GROUP BY kind, severity ORDER BY kind, severity"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(tenant).fetch_all(connection).await?;
    rows.iter()
        .map(|r| {
            let kind: String = r.try_get("kind")?;
            let severity = Severity::stored(r.try_get("severity")?, &kind);
            Ok((kind, severity, r.try_get("found")?))
        })
        .collect()
}

fn alert(r: &sqlx::any::AnyRow) -> Result<Alert, sqlx::Error> {
    let kind: String = r.try_get("kind")?;
    let key: String = r.try_get("key")?;
    let severity = Severity::stored(r.try_get("severity")?, &kind);
    let acknowledged: Option<i64> = r.try_get("acknowledged")?;
    let resolved: Option<i64> = r.try_get("resolved")?;
    let is_open = if key.is_empty() { acknowledged.is_none() && severity > Severity::Info } else { resolved.is_none() };
    let time: i64 = r.try_get("time")?;
    Ok(Alert {
        n: r.try_get("n")?,
        time,
        rollout: r.try_get("rollout")?,
        kind,
        text: r.try_get("text")?,
        detail: r.try_get("detail")?,
        acknowledged,
        acknowledged_by: r.try_get("acknowledged_by")?,
        severity,
        state: if is_open { State::Open } else { State::Resolved },
        key,
        updated: r.try_get::<i64, _>("updated")?.max(time),
        resolved,
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

/// Open alerts, the most severe and of these the newest first, and behind them news that nobody has acknowledged.
pub(crate) async fn unsettled(
    connection: &mut Connection,
    tenant: &str,
    limit: i64,
) -> Result<Vec<Alert>, sqlx::Error> {
    let text = format!(
        "SELECT * FROM alerts WHERE tenant = $1 AND ({IS_OPEN} OR acknowledged IS NULL AND key = '')
         ORDER BY CASE WHEN {IS_OPEN} THEN 0 ELSE 1 END,
         CASE WHEN severity = 'critical' OR kind = 'rollback' THEN 0 ELSE 1 END, n DESC LIMIT $2"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(tenant).bind(limit).fetch_all(connection).await?;
    rows.iter().map(alert).collect()
}

/// Alerts before a number, the newest first.
pub(crate) async fn newest(
    connection: &mut Connection,
    tenant: &str,
    before: i64,
    limit: i64,
) -> Result<Vec<Alert>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM alerts WHERE tenant = $1 AND n < $2 ORDER BY n DESC LIMIT $3")
        .bind(tenant)
        .bind(before)
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

/// Says that an alert was taken. What was resolved or became more severe since it was read is sent again.
pub(crate) async fn delivered(connection: &mut Connection, tenant: &str, of: &Alert) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE alerts SET delivered = 1
         WHERE tenant = $1 AND n = $2 AND COALESCE(resolved, 0) = $3 AND severity IN ('', $4)",
    )
    .bind(tenant)
    .bind(of.n)
    .bind(of.resolved.unwrap_or(0))
    .bind(of.severity.name())
    .execute(connection)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_condition_has_one_open_alert() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("a.db").display());
        let store = Store::open(&url, 2).await.expect("a database");
        store.migrate().await.expect("tables");
        let mut tx = store.write().await.expect("a transaction");
        let detail = json!({ "devices": 3 });
        let mut condition = Condition {
            key: "stranded/r",
            rule: "stranded",
            severity: Severity::Warning,
            rollout: "r",
            text: "3 devices",
            detail: &detail,
        };
        assert_eq!(set(&mut tx, "system", 10, &condition).await.expect("set"), Change::Opened(1));
        let opened = list(&mut tx, "system", 0, 9).await.expect("a list");
        delivered(&mut tx, "system", &opened[0]).await.expect("taken");
        condition.text = "2 devices";
        assert_eq!(set(&mut tx, "system", 20, &condition).await.expect("set"), Change::Updated);
        assert_eq!(undelivered(&mut tx, 9, 100).await.expect("a list").len(), 0, "new numbers are no news");
        condition.severity = Severity::Critical;
        assert_eq!(set(&mut tx, "system", 30, &condition).await.expect("set"), Change::Updated);
        let due = undelivered(&mut tx, 9, 100).await.expect("a list");
        assert_eq!((due.len(), due[0].2.severity, due[0].2.time, due[0].2.updated), (1, Severity::Critical, 10, 30));
        assert!(clear(&mut tx, "system", 40, "stranded/r").await.expect("cleared"));
        // What was being posted when it was resolved says nothing about its end.
        delivered(&mut tx, "system", &due[0].2).await.expect("taken");
        let due = undelivered(&mut tx, 9, 100).await.expect("a list");
        assert_eq!((due.len(), due[0].2.state, due[0].2.resolved), (1, State::Resolved, Some(40)));
        assert!(!clear(&mut tx, "system", 50, "stranded/r").await.expect("cleared"));
        assert!(!clear(&mut tx, "system", 50, "").await.expect("cleared"), "events have no key");
        assert_eq!(set(&mut tx, "system", 60, &condition).await.expect("set"), Change::Opened(2));
        let open = count_open(&mut tx, "system").await.expect("counts");
        assert_eq!(open, [("stranded".to_owned(), Severity::Critical, 1)]);
    }
}
