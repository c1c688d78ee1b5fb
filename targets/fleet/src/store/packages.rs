//! What was published. Nothing of it is ever changed.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use super::Connection;

/// A published package.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Package {
    /// Its digest, hexadecimal.
    pub(crate) digest: String,
    /// Name of the model.
    pub(crate) name: String,
    /// Version of the model.
    pub(crate) version: String,
    /// Number of the release.
    pub(crate) number: i64,
    /// Security counter.
    pub(crate) counter: i64,
    /// What it was compiled for.
    pub(crate) target: String,
    /// Bytes.
    pub(crate) len: i64,
    /// SHA-256 of all bytes, hexadecimal.
    pub(crate) hash: String,
    /// The manifest, as JSON.
    pub(crate) manifest: String,
    /// Seconds since 1970.
    pub(crate) published: i64,
    /// The signed release document.
    #[serde(skip)]
    pub(crate) document: Vec<u8>,
}

fn package(row: &sqlx::any::AnyRow) -> Result<Package, sqlx::Error> {
    Ok(Package {
        digest: row.try_get("digest")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        number: row.try_get("number")?,
        counter: row.try_get("counter")?,
        target: row.try_get("target")?,
        len: row.try_get("len")?,
        hash: row.try_get("hash")?,
        manifest: row.try_get("manifest")?,
        published: row.try_get("published")?,
        document: row.try_get("document")?,
    })
}

pub(crate) async fn get(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
) -> Result<Option<Package>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM packages WHERE tenant = $1 AND digest = $2")
        .bind(tenant)
        .bind(digest)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(package).transpose()
}

pub(crate) async fn list(
    connection: &mut Connection,
    tenant: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<Package>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM packages WHERE tenant = $1 AND digest > $2 ORDER BY digest LIMIT $3")
        .bind(tenant)
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter().map(package).collect()
}

/// Publishes; `false` when the digest or the number is taken.
/// Names of models by the digests of their packages.
pub(crate) async fn models(connection: &mut Connection, tenant: &str) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT digest, name FROM packages WHERE tenant = $1").bind(tenant).fetch_all(connection).await?;
    rows.iter().map(|r| Ok((r.try_get("digest")?, r.try_get("name")?))).collect()
}

/// Versions by the digests of their packages.
pub(crate) async fn versions(
    connection: &mut Connection,
    tenant: &str,
) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows = sqlx::query("SELECT digest, version FROM packages WHERE tenant = $1")
        .bind(tenant)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|r| Ok((r.try_get("digest")?, r.try_get("version")?))).collect()
}

pub(crate) async fn insert(tx: &mut Connection, tenant: &str, of: &Package) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO packages (tenant, digest, name, version, number, counter, target, len, hash, document, manifest,
         published) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(&of.digest)
    .bind(&of.name)
    .bind(&of.version)
    .bind(of.number)
    .bind(of.counter)
    .bind(&of.target)
    .bind(of.len)
    .bind(&of.hash)
    .bind(&of.document)
    .bind(&of.manifest)
    .bind(of.published)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A difference's hash and length.
pub(crate) async fn delta(
    connection: &mut Connection,
    tenant: &str,
    base: &str,
    digest: &str,
) -> Result<Option<(String, i64)>, sqlx::Error> {
    let row = sqlx::query("SELECT hash, len FROM deltas WHERE tenant = $1 AND base = $2 AND digest = $3")
        .bind(tenant)
        .bind(base)
        .bind(digest)
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((row.try_get("hash")?, row.try_get("len")?))).transpose()
}

pub(crate) async fn insert_delta(
    tx: &mut Connection,
    tenant: &str,
    base: &str,
    digest: &str,
    hash: &str,
    len: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("INSERT INTO deltas VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
        .bind(tenant)
        .bind(base)
        .bind(digest)
        .bind(hash)
        .bind(len)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The length of an artifact of this tenant's.
pub(crate) async fn artifact_len(
    connection: &mut Connection,
    tenant: &str,
    hash: &str,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT len FROM packages WHERE tenant = $1 AND hash = $2
         UNION SELECT len FROM deltas WHERE tenant = $1 AND hash = $2 LIMIT 1",
    )
    .bind(tenant)
    .bind(hash)
    .fetch_optional(connection)
    .await
}

/// Lets one publish or delete after the other, of all tenants, until the transaction ends: they may have the same bytes.
pub(crate) async fn lock(tx: &mut Connection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE settings SET value = value WHERE name = 'seal'").execute(tx).await.map(drop)
}

/// Deletes a package and the differences from it and to it. The bytes that this frees of the tenant's quota, and the hashes
/// that nothing names any more, of any tenant.
pub(crate) async fn delete(tx: &mut Connection, tenant: &str, of: &Package) -> Result<(i64, Vec<String>), sqlx::Error> {
    let rows = sqlx::query("SELECT hash, len FROM deltas WHERE tenant = $1 AND (base = $2 OR digest = $2)")
        .bind(tenant)
        .bind(&of.digest)
        .fetch_all(&mut *tx)
        .await?;
    let mut bytes = of.len;
    let mut hashes = vec![of.hash.clone()];
    for row in &rows {
        bytes += row.try_get::<i64, _>("len")?;
        hashes.push(row.try_get("hash")?);
    }
    for statement in [
        "DELETE FROM deltas WHERE tenant = $1 AND (base = $2 OR digest = $2)",
        "DELETE FROM packages WHERE tenant = $1 AND digest = $2",
    ] {
        sqlx::query(statement).bind(tenant).bind(&of.digest).execute(&mut *tx).await?;
    }
    let mut unnamed = Vec::new();
    for hash in hashes {
        if !names(tx, &hash).await? {
            unnamed.push(hash);
        }
    }
    Ok((bytes, unnamed))
}

/// Whether a package or difference of any tenant has these bytes.
pub(crate) async fn names(tx: &mut Connection, hash: &str) -> Result<bool, sqlx::Error> {
    let named: i64 = sqlx::query_scalar(
        "SELECT (SELECT COUNT(*) FROM packages WHERE hash = $1) + (SELECT COUNT(*) FROM deltas WHERE hash = $1)",
    )
    .bind(hash)
    .fetch_one(tx)
    .await?;
    Ok(named > 0)
}
