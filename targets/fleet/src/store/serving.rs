//! Where inference is stopped, and how many devices have the flags that say so.

use sqlx::Row as _;

use super::Connection;

/// A stop of the whole fleet or of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Empty: the whole fleet.
    pub(crate) model: String,
    /// Seconds since 1970.
    pub(crate) since: i64,
    pub(crate) who: String,
    pub(crate) reason: String,
    /// Sequence of the first flag document with it.
    pub(crate) sequence: i64,
}

/// Devices by whether they have a flag document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Obeying {
    pub(crate) devices: i64,
    /// Had it, or a later one, at their last poll.
    pub(crate) obeying: i64,
    /// Do not have it and are silent.
    pub(crate) silent: i64,
}

pub(crate) async fn list(connection: &mut Connection, tenant: &str) -> Result<Vec<Stop>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT model, since, who, reason, sequence FROM serving_stops WHERE tenant = $1 ORDER BY model")
            .bind(tenant)
            .fetch_all(connection)
            .await?;
    rows.iter()
        .map(|row| {
            Ok(Stop {
                model: row.try_get("model")?,
                since: row.try_get("since")?,
                who: row.try_get("who")?,
                reason: row.try_get("reason")?,
                sequence: row.try_get("sequence")?,
            })
        })
        .collect()
}

pub(crate) async fn insert(tx: &mut Connection, tenant: &str, of: &Stop) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO serving_stops (tenant, model, since, who, reason, sequence) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(&of.model)
    .bind(of.since)
    .bind(&of.who)
    .bind(&of.reason)
    .bind(of.sequence)
    .execute(tx)
    .await
    .map(drop)
}

pub(crate) async fn delete(tx: &mut Connection, tenant: &str, model: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM serving_stops WHERE tenant = $1 AND model = $2")
        .bind(tenant)
        .bind(model)
        .execute(tx)
        .await
        .map(drop)
}

/// Counts the devices of a model, of all when it is empty, by whether they have a flag document. Who was not heard of after
/// `since` is silent.
pub(crate) async fn obeying(
    connection: &mut Connection,
    tenant: &str,
    model: &str,
    sequence: i64,
    since: i64,
) -> Result<Obeying, sqlx::Error> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS devices, COUNT(CASE WHEN flags >= $3 THEN 1 END) AS obeying,
         COUNT(CASE WHEN flags < $3 AND seen < $4 THEN 1 END) AS silent
         FROM devices WHERE tenant = $1 AND ($2 = '' OR model = $2)",
    )
    .bind(tenant)
    .bind(model)
    .bind(sequence)
    .bind(since)
    .fetch_one(connection)
    .await?;
    Ok(Obeying { devices: row.try_get("devices")?, obeying: row.try_get("obeying")?, silent: row.try_get("silent")? })
}

/// Names of models that devices run or packages have.
pub(crate) async fn models(connection: &mut Connection, tenant: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT model FROM devices WHERE tenant = $1 UNION SELECT name FROM packages WHERE tenant = $1 ORDER BY 1",
    )
    .bind(tenant)
    .fetch_all(connection)
    .await
}
