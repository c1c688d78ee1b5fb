//! A tenant's flags: what was asked for, and the signed document.

use sqlx::Row as _;

use super::Connection;

/// Flags as they are in force.
pub(crate) struct Stored {
    pub(crate) version: i64,
    pub(crate) request: String,
    pub(crate) document: Vec<u8>,
}

pub(crate) async fn get(connection: &mut Connection, tenant: &str) -> Result<Option<Stored>, sqlx::Error> {
    let row = sqlx::query("SELECT version, request, document FROM flags WHERE tenant = $1")
        .bind(tenant)
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        Ok(Stored {
            version: row.try_get("version")?,
            request: row.try_get("request")?,
            document: row.try_get("document")?,
        })
    })
    .transpose()
}

/// Replaces flags of the version before; `false` when somebody else did.
pub(crate) async fn put(tx: &mut Connection, tenant: &str, of: &Stored, now: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO flags VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant) DO UPDATE SET version = excluded.version, request = excluded.request,
         document = excluded.document, updated = excluded.updated WHERE flags.version = excluded.version - 1",
    )
    .bind(tenant)
    .bind(of.version)
    .bind(&of.request)
    .bind(&of.document)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}
