//! What operators and the server did, in the server's log: committed audit entries, at most one tick late.
//!
//! Enrolments are counted, and of each tenant's other entries a tick writes [`LINES`] at most, so that a fleet that enrols or
//! a script that runs wild does not fill the log. Every replica logs all entries. What moved a rollout by itself is logged
//! where it is decided.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sqlx::Row as _;

use crate::server::Inner;
use crate::store::Store;

/// Entries of a tenant that one tick writes.
const LINES: i64 = 50;
/// Characters of an entry's detail that are written.
const DETAIL: usize = 300;

/// Number of the last entry of each tenant that was logged.
#[derive(Debug)]
pub(crate) struct AuditLog(Mutex<BTreeMap<String, i64>>);

/// Entries of a tenant after those that were logged.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    enrolled: i64,
    others: i64,
}

impl AuditLog {
    /// Returns a log that begins after the entries that there are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn open(store: &Store) -> Result<Self, sqlx::Error> {
        Ok(Self(Mutex::new(heads(store).await?)))
    }

    fn logged(&self, tenant: &str) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied().unwrap_or(0)
    }

    fn advance(&self, tenant: String, to: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant, to);
    }
}

/// Returns the number of each tenant's last entry.
async fn heads(store: &Store) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, audited FROM tenants").fetch_all(&mut *store.read().await?).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("audited")?))).collect()
}

/// Logs what was done since the last time. A database that does not answer is asked again the next time.
pub(crate) async fn tick(app: &Inner) {
    if let Err(error) = write(app).await {
        tracing::error!(%error, "audit entries were not logged");
    }
}

async fn write(app: &Inner) -> Result<(), sqlx::Error> {
    for (tenant, head) in heads(&app.store).await? {
        let from = app.audit_log.logged(&tenant);
        if from >= head {
            continue;
        }
        let news = news(app, &tenant, (from, head)).await?;
        entries(app, &tenant, (from, head)).await?;
        if news.enrolled > 0 {
            tracing::info!(tenant, devices = news.enrolled, "enrolled");
        }
        if news.others > LINES {
            tracing::info!(tenant, entries = news.others - LINES, "more is in the audit log");
        }
        app.audit_log.advance(tenant, head);
    }
    Ok(())
}

/// Entries after `from`, up to `to`, that are not of one of the server's own decisions.
const NEWS: &str =
    "FROM audit WHERE tenant = $1 AND n > $2 AND n <= $3 AND NOT (actor = 'server' AND action LIKE 'rollout.%')";

async fn news(app: &Inner, tenant: &str, (from, to): (i64, i64)) -> Result<News, sqlx::Error> {
    let text = format!(
        "SELECT COUNT(*) AS all_of_them, COUNT(CASE WHEN action = 'device.enrol' THEN 1 END) AS enrolled {NEWS}"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(tenant)
        .bind(from)
        .bind(to)
        .fetch_one(&mut *app.store.read().await?)
        .await?;
    let (all, enrolled): (i64, i64) = (row.try_get("all_of_them")?, row.try_get("enrolled")?);
    Ok(News { enrolled, others: all - enrolled })
}

async fn entries(app: &Inner, tenant: &str, (from, to): (i64, i64)) -> Result<(), sqlx::Error> {
    let text = format!("SELECT actor, action, object, detail {NEWS} AND action <> 'device.enrol' ORDER BY n LIMIT $4");
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(tenant)
        .bind(from)
        .bind(to)
        .bind(LINES)
        .fetch_all(&mut *app.store.read().await?)
        .await?;
    for row in rows {
        let text = |name: &str| row.try_get::<String, _>(name);
        let (actor, action, object, detail) = (text("actor")?, text("action")?, text("object")?, text("detail")?);
        if action.starts_with("tenant.") {
            // Settings may hold an address with a secret in it.
            tracing::info!(tenant, actor, object, "{action}");
            continue;
        }
        let detail: String = detail.chars().take(DETAIL).collect();
        tracing::info!(tenant, actor, object, detail, "{action}");
    }
    Ok(())
}
