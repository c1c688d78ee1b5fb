//! A tenant's flags: what was asked for, and the signed document.

use sqlx::Row as _;

use super::Connection;

/// Flags as they are in force.
pub(crate) struct Stored {
    pub(crate) version: i64,
    /// Of the signed document.
    pub(crate) sequence: i64,
    pub(crate) request: String,
    pub(crate) document: Vec<u8>,
    /// When it was signed.
    pub(crate) updated: i64,
}

pub(crate) async fn get(connection: &mut Connection, tenant: &str) -> Result<Option<Stored>, sqlx::Error> {
    let row = sqlx::query("SELECT version, sequence, request, document, updated FROM flags WHERE tenant = $1")
        .bind(tenant)
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        Ok(Stored {
            version: row.try_get("version")?,
            sequence: row.try_get("sequence")?,
            request: row.try_get("request")?,
            document: row.try_get("document")?,
            updated: row.try_get("updated")?,
        })
    })
    .transpose()
}

/// Replaces flags of the version before; `false` when somebody else did.
pub(crate) async fn put(tx: &mut Connection, tenant: &str, of: &Stored) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO flags (tenant, version, request, document, updated, sequence) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant) DO UPDATE SET version = excluded.version, request = excluded.request,
         document = excluded.document, updated = excluded.updated,
         sequence = excluded.sequence WHERE flags.version = excluded.version - 1",
    )
    .bind(tenant)
    .bind(of.version)
    .bind(&of.request)
    .bind(&of.document)
    .bind(of.updated)
    .bind(of.sequence)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Puts the same flags under a later number; `false` when somebody wrote them meanwhile.
pub(crate) async fn renew(tx: &mut Connection, tenant: &str, of: &Stored) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE flags SET sequence = $3, document = $4, updated = $5
         WHERE tenant = $1 AND version = $2 AND sequence < $3",
    )
    .bind(tenant)
    .bind(of.version)
    .bind(of.sequence)
    .bind(&of.document)
    .bind(of.updated)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}
