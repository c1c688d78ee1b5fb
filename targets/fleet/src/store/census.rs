//! Devices counted by what they are and run.

use sqlx::Row as _;

use super::Connection;

/// Devices of one model that run the same package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) model: String,
    /// Nothing: they never said.
    pub(crate) running: Option<String>,
    pub(crate) devices: i64,
    /// Never heard of since they enrolled.
    pub(crate) never: i64,
    /// Heard of, and not lately.
    pub(crate) silent: i64,
    /// Never heard of, and enrolled so long ago that they should have been.
    pub(crate) overdue: i64,
}

/// Counts a tenant's devices. Who was last heard of before `since` is silent. One pass over the tenant's devices.
pub(crate) async fn groups(connection: &mut Connection, tenant: &str, since: i64) -> Result<Vec<Group>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT model, running, COUNT(*) AS devices, COUNT(CASE WHEN seen = 0 THEN 1 END) AS never,
         COUNT(CASE WHEN seen > 0 AND seen < $2 THEN 1 END) AS silent,
         COUNT(CASE WHEN seen = 0 AND enrolled < $2 THEN 1 END) AS overdue
         FROM devices WHERE tenant = $1 GROUP BY model, running ORDER BY COUNT(*) DESC, model, running",
    )
    .bind(tenant)
    .bind(since)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|r| {
            Ok(Group {
                model: r.try_get("model")?,
                running: r.try_get("running")?,
                devices: r.try_get("devices")?,
                never: r.try_get("never")?,
                silent: r.try_get("silent")?,
                overdue: r.try_get("overdue")?,
            })
        })
        .collect()
}

/// Counts devices by model that enrolled from a moment on.
pub(crate) async fn enrolled_since(
    connection: &mut Connection,
    tenant: &str,
    since: i64,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT model, COUNT(*) AS devices FROM devices WHERE tenant = $1 AND enrolled >= $2 GROUP BY model ORDER BY model",
    )
    .bind(tenant)
    .bind(since)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|r| Ok((r.try_get("model")?, r.try_get("devices")?))).collect()
}
