//! Reports as they came, and their sums by package, arm and hour.

use sqlx::Row as _;

use super::Connection;

/// One report.
#[derive(Clone, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) device: &'a str,
    pub(crate) boot: i64,
    pub(crate) seq: i64,
    pub(crate) arrived: i64,
    pub(crate) digest: Option<String>,
    pub(crate) known: bool,
    pub(crate) payload: &'a [u8],
}

/// Stores a report; `false` when it had come before.
pub(crate) async fn insert(tx: &mut Connection, of: &Received<'_>) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO reports (tenant, device, boot, seq, arrived, digest, known, payload)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(of.tenant)
    .bind(of.device)
    .bind(of.boot)
    .bind(of.seq)
    .bind(of.arrived)
    .bind(of.digest.as_deref())
    .bind(i64::from(of.known))
    .bind(of.payload)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The newest reports of a device: start, number, arrival, whether it could be read, bytes.
pub(crate) async fn of_device(
    connection: &mut Connection,
    tenant: &str,
    device: &str,
    limit: i64,
) -> Result<Vec<(i64, i64, i64, bool, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT boot, seq, arrived, known, payload FROM reports WHERE tenant = $1 AND device = $2
         ORDER BY boot DESC, seq DESC LIMIT $3",
    )
    .bind(tenant)
    .bind(device)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|r| {
            let known: i64 = r.try_get("known")?;
            Ok((r.try_get("boot")?, r.try_get("seq")?, r.try_get("arrived")?, known != 0, r.try_get("payload")?))
        })
        .collect()
}

/// What a window is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Window {
    pub(crate) tenant: String,
    pub(crate) digest: String,
    pub(crate) arm: String,
    pub(crate) hour: i64,
}

/// A window's sum; the row is locked until the transaction ends.
pub(crate) async fn window(tx: &mut Connection, of: &Window) -> Result<Option<Vec<u8>>, sqlx::Error> {
    // An update that changes nothing locks on both engines.
    sqlx::query_scalar(
        "UPDATE windows SET reports = reports WHERE tenant = $1 AND digest = $2 AND arm = $3 AND hour = $4
         RETURNING aggregate",
    )
    .bind(&of.tenant)
    .bind(&of.digest)
    .bind(&of.arm)
    .bind(of.hour)
    .fetch_optional(tx)
    .await
}

/// Makes a window or replaces its sum; `fresh` says that there was none, and fails when another was quicker.
pub(crate) async fn put_window(
    tx: &mut Connection,
    of: &Window,
    reports: i64,
    aggregate: &[u8],
    fresh: bool,
) -> Result<(), sqlx::Error> {
    let text = if fresh {
        "INSERT INTO windows VALUES ($1, $2, $3, $4, $5, $6)"
    } else {
        "UPDATE windows SET reports = reports + $5, aggregate = $6
         WHERE tenant = $1 AND digest = $2 AND arm = $3 AND hour = $4"
    };
    sqlx::query(text)
        .bind(&of.tenant)
        .bind(&of.digest)
        .bind(&of.arm)
        .bind(of.hour)
        .bind(reports)
        .bind(aggregate)
        .execute(tx)
        .await
        .map(drop)
}

/// Windows of a package, by arm and hour, from an hour on.
pub(crate) async fn windows(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
    from: i64,
) -> Result<Vec<(String, i64, i64, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT arm, hour, reports, aggregate FROM windows WHERE tenant = $1 AND digest = $2 AND hour >= $3
         ORDER BY arm, hour LIMIT 10000",
    )
    .bind(tenant)
    .bind(digest)
    .bind(from)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|r| Ok((r.try_get("arm")?, r.try_get("hour")?, r.try_get("reports")?, r.try_get("aggregate")?)))
        .collect()
}
