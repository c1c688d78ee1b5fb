//! Who did what: a chain of hashes for each tenant, appended to and never changed.

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::Row as _;

use super::{Connection, Store};
use crate::hex;

/// One thing that was done.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Entry {
    /// Its number, from 1.
    pub n: i64,
    /// Seconds since 1970.
    pub time: i64,
    /// The token's name, or `server`.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub object: String,
    /// With what, as JSON.
    pub detail: String,
    /// The hash of the entry before.
    pub previous: String,
    /// SHA-256 over all of the above.
    pub hash: String,
}

impl Entry {
    /// Whether its hash is that of what it says.
    pub(crate) fn is_as_written(&self, tenant: &str) -> bool {
        self.hash == self.expected_hash(tenant)
    }

    fn expected_hash(&self, tenant: &str) -> String {
        let mut hash = Sha256::new();
        for field in [&self.previous, tenant, &self.actor, &self.action, &self.object, &self.detail] {
            // Lengths before the fields, so that no two entries have the same bytes.
            hash.update((field.len() as u64).to_le_bytes());
            hash.update(field);
        }
        hash.update(self.n.to_le_bytes());
        hash.update(self.time.to_le_bytes());
        hex(&hash.finalize())
    }
}

/// Appends, in the transaction of what was done. The tenant's row is locked by it until the end.
pub(crate) async fn append(
    tx: &mut Connection,
    tenant: &str,
    time: i64,
    actor: &str,
    action: &str,
    object: &str,
    detail: &Value,
) -> Result<(), sqlx::Error> {
    let row = sqlx::query("UPDATE tenants SET audited = audited + 1 WHERE id = $1 RETURNING audited, head")
        .bind(tenant)
        .fetch_one(&mut *tx)
        .await?;
    let mut entry = Entry {
        n: row.try_get("audited")?,
        time,
        actor: actor.into(),
        action: action.into(),
        object: object.into(),
        detail: detail.to_string(),
        previous: row.try_get("head")?,
        hash: String::new(),
    };
    entry.hash = entry.expected_hash(tenant);
    sqlx::query("UPDATE tenants SET head = $2 WHERE id = $1").bind(tenant).bind(&entry.hash).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO audit VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .bind(tenant)
        .bind(entry.n)
        .bind(time)
        .bind(&entry.actor)
        .bind(&entry.action)
        .bind(&entry.object)
        .bind(&entry.detail)
        .bind(&entry.previous)
        .bind(&entry.hash)
        .execute(&mut *tx)
        .await
        .map(drop)
}

/// Entries after the `after`th, in order.
pub(crate) async fn list(
    connection: &mut Connection,
    tenant: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Entry>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM audit WHERE tenant = $1 AND n > $2 ORDER BY n LIMIT $3")
        .bind(tenant)
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Entry {
                n: row.try_get("n")?,
                time: row.try_get("time")?,
                actor: row.try_get("actor")?,
                action: row.try_get("action")?,
                object: row.try_get("object")?,
                detail: row.try_get("detail")?,
                previous: row.try_get("previous")?,
                hash: row.try_get("hash")?,
            })
        })
        .collect()
}

/// What a tenant's chain turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Every entry is there and as it was written.
    Whole {
        /// Number of entries.
        entries: i64,
        /// The hash of the last; whoever keeps a copy elsewhere can tell if the whole chain is replaced.
        head: String,
    },
    /// This entry is missing or was changed.
    Broken {
        /// Its number.
        at: i64,
    },
}

/// Checks a tenant's chain from its first entry to the head that the tenant's row keeps.
///
/// # Errors
/// When the database does not answer.
pub async fn verify(store: &Store, tenant: &str) -> Result<Chain, sqlx::Error> {
    let mut connection = store.read().await?;
    let row =
        sqlx::query("SELECT audited, head FROM tenants WHERE id = $1").bind(tenant).fetch_one(&mut *connection).await?;
    let (entries, expected): (i64, String) = (row.try_get("audited")?, row.try_get("head")?);
    let (mut n, mut head) = (0, String::new());
    loop {
        let part = list(&mut connection, tenant, n, 1000).await?;
        for entry in &part {
            if entry.n != n + 1 || entry.previous != head || entry.hash != entry.expected_hash(tenant) {
                return Ok(Chain::Broken { at: n + 1 });
            }
            (n, head) = (entry.n, entry.hash.clone());
        }
        if part.is_empty() {
            break;
        }
    }
    // The list may have grown since the row was read; it may not be shorter.
    if n < entries || n == entries && head != expected {
        return Ok(Chain::Broken { at: n + 1 });
    }
    Ok(Chain::Whole { entries: n, head })
}

/// All tenants, in order of their names.
///
/// # Errors
/// When the database does not answer.
pub async fn tenants(store: &Store) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM tenants ORDER BY id").fetch_all(&mut *store.read().await?).await
}
