//! Sessions, in the store, so that every replica knows them. A session is its token's: it ends with it.

use sqlx::Row as _;

use crate::auth::{Role, token_hash};
use crate::dashboard::session::LASTS;
use crate::dashboard::source::Viewer;
use crate::store::{self, Connection};

/// Opens a session for a token. The secret is stored by its hash.
pub(in crate::dashboard) async fn open(
    tx: &mut Connection,
    token: &str,
    secret: &str,
    now: i64,
) -> Result<Option<Viewer>, sqlx::Error> {
    let Some((tenant, token)) = store::tokens::find(tx, &token_hash(token)).await? else { return Ok(None) };
    if token.role < Role::Viewer {
        return Ok(None);
    }
    sqlx::query("DELETE FROM sessions WHERE expires <= $1").bind(now).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO sessions (hash, tenant, token, expires) VALUES ($1, $2, $3, $4)")
        .bind(token_hash(secret))
        .bind(&tenant)
        .bind(&token.name)
        .bind(now.saturating_add(LASTS))
        .execute(tx)
        .await?;
    Ok(Some(Viewer { tenant, actor: token.name, role: token.role.name().to_owned() }))
}

/// Whose session it is, unless it is over or its token was revoked.
pub(in crate::dashboard) async fn viewer(
    connection: &mut Connection,
    secret: &str,
    now: i64,
) -> Result<Option<Viewer>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT tokens.tenant AS tenant, tokens.name AS name, tokens.role AS role FROM sessions
         JOIN tokens ON tokens.tenant = sessions.tenant AND tokens.name = sessions.token
         WHERE sessions.hash = $1 AND sessions.expires > $2 AND tokens.revoked IS NULL",
    )
    .bind(token_hash(secret))
    .bind(now)
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(Viewer { tenant: row.try_get("tenant")?, actor: row.try_get("name")?, role: row.try_get("role")? })
    })
    .transpose()
}

/// Ends a session.
pub(in crate::dashboard) async fn close(tx: &mut Connection, secret: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE hash = $1").bind(token_hash(secret)).execute(tx).await.map(drop)
}
