//! Reports as they came. They are added up when somebody asks, so that nothing is written twice.

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
    pub(crate) arm: &'static str,
    pub(crate) known: bool,
    pub(crate) payload: &'a [u8],
}

/// Stores a report; `false` when it had come before.
pub(crate) async fn insert(tx: &mut Connection, of: &Received<'_>) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO reports (tenant, device, boot, seq, arrived, digest, arm, known, payload)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
    )
    .bind(of.tenant)
    .bind(of.device)
    .bind(of.boot)
    .bind(of.seq)
    .bind(of.arrived)
    .bind(of.digest.as_deref())
    .bind(of.arm)
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

/// Reports of what ran a package, which came from `from` on: device, arrival and bytes, oldest first.
pub(crate) async fn of_package(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
    from: i64,
    limit: i64,
) -> Result<Vec<(String, i64, String, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT device, arrived, arm, payload FROM reports
         WHERE tenant = $1 AND digest = $2 AND arrived >= $3 AND known = 1 ORDER BY arrived LIMIT $4",
    )
    .bind(tenant)
    .bind(digest)
    .bind(from)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|r| Ok((r.try_get("device")?, r.try_get("arrived")?, r.try_get("arm")?, r.try_get("payload")?)))
        .collect()
}

/// Packages that reports came from in a window, those of most reports first.
pub(crate) async fn packages(
    connection: &mut Connection,
    tenant: &str,
    (from, to): (i64, i64),
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT digest FROM reports WHERE tenant = $1 AND arrived >= $2 AND arrived < $3 AND known = 1
         AND digest IS NOT NULL GROUP BY digest ORDER BY COUNT(*) DESC, digest LIMIT $4",
    )
    .bind(tenant)
    .bind(from)
    .bind(to)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// How many reports of what ran a package came in a window.
pub(crate) async fn count(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
    (from, to): (i64, i64),
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM reports WHERE tenant = $1 AND digest = $2 AND arrived >= $3 AND arrived < $4
         AND known = 1",
    )
    .bind(tenant)
    .bind(digest)
    .bind(from)
    .bind(to)
    .fetch_one(connection)
    .await
}

/// Reports of what ran a package that came in a window: device, arrival, arm and bytes; only of devices whose id is below
/// a bound, if there is one.
pub(crate) async fn in_window(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
    (from, to): (i64, i64),
    bound: Option<&str>,
) -> Result<Vec<(String, i64, String, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT device, arrived, arm, payload FROM reports
         WHERE tenant = $1 AND digest = $2 AND arrived >= $3 AND arrived < $4 AND known = 1 AND device < $5",
    )
    .bind(tenant)
    .bind(digest)
    .bind(from)
    .bind(to)
    // After every hexadecimal digit, in whatever order the engine sorts.
    .bind(bound.unwrap_or("zz"))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|r| Ok((r.try_get("device")?, r.try_get("arrived")?, r.try_get("arm")?, r.try_get("payload")?)))
        .collect()
}
