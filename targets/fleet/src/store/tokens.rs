//! Tokens: only their hashes are kept.

use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use super::Connection;
use crate::auth::Role;

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Token {
    /// Its name, which the audit log has.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) role: Role,
    /// Seconds since 1970.
    pub(crate) created: i64,
    /// When it was revoked, if it was.
    pub(crate) revoked: Option<i64>,
}

fn token(row: &sqlx::any::AnyRow) -> Result<Token, sqlx::Error> {
    let role: String = row.try_get("role")?;
    let role = Role::from_name(&role).ok_or_else(|| sqlx::Error::Decode("an unknown role".into()))?;
    Ok(Token { name: row.try_get("name")?, role, created: row.try_get("created")?, revoked: row.try_get("revoked")? })
}

/// The tenant and token of a secret's hash, unless it is revoked.
pub(crate) async fn find(connection: &mut Connection, hash: &str) -> Result<Option<(String, Token)>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM tokens WHERE hash = $1 AND revoked IS NULL")
        .bind(hash)
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((row.try_get("tenant")?, token(&row)?))).transpose()
}

pub(crate) async fn list(connection: &mut Connection, tenant: &str) -> Result<Vec<Token>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT * FROM tokens WHERE tenant = $1 ORDER BY name").bind(tenant).fetch_all(connection).await?;
    rows.iter().map(token).collect()
}

/// Makes a token; `false` when the tenant has one of that name.
pub(crate) async fn create(
    tx: &mut Connection,
    tenant: &str,
    name: &str,
    hash: &str,
    role: Role,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("INSERT INTO tokens VALUES ($1, $2, $3, $4, $5, NULL) ON CONFLICT DO NOTHING")
        .bind(tenant)
        .bind(name)
        .bind(hash)
        .bind(role.name())
        .bind(now)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes a token; `false` when there is none.
pub(crate) async fn revoke(tx: &mut Connection, tenant: &str, name: &str, now: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE tokens SET revoked = COALESCE(revoked, $3) WHERE tenant = $1 AND name = $2")
        .bind(tenant)
        .bind(name)
        .bind(now)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}
