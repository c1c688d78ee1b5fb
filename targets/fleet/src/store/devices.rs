//! Devices, and what they said last.

use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use super::Connection;

/// Poll intervals without a poll after which a device is silent.
pub(crate) const SILENT_POLLS: i64 = 3;

/// A device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Device {
    #[serde(skip)]
    pub(crate) tenant: String,
    /// Its id.
    pub(crate) id: String,
    #[serde(skip)]
    pub(crate) key: [u8; 32],
    /// What packages are compiled for to run on it.
    pub(crate) target: String,
    /// Attributes, as a JSON object.
    pub(crate) attributes: String,
    /// Its ring, when it is in one; 0 is the laboratory.
    pub(crate) ring: Option<i64>,
    /// Seconds since 1970.
    pub(crate) enrolled: i64,
    /// When it last polled; 0: never.
    pub(crate) seen: i64,
    /// Start and number of the newest report.
    pub(crate) boot: i64,
    /// See `boot`.
    pub(crate) seq: i64,
    /// Reports that are missing between those that came.
    pub(crate) missed: i64,
    /// The model it runs.
    pub(crate) model: String,
    /// The digest it runs, as it said last.
    pub(crate) running: Option<String>,
    /// Where its update is.
    pub(crate) phase: String,
    /// How its last update ended, and of which digest.
    pub(crate) last_outcome: Option<String>,
    /// See `last_outcome`.
    pub(crate) last_digest: Option<String>,
}

impl Device {
    /// The identity by which it finds its place in rollout documents: its own, if it brought one, or its id.
    pub(crate) fn identity(&self) -> Option<Vec<u8>> {
        let attributes: std::collections::BTreeMap<String, String> =
            serde_json::from_str(&self.attributes).unwrap_or_default();
        let own = attributes.get(crate::wire::IDENTITY).and_then(|text| crate::unhex(text));
        own.filter(|bytes| !bytes.is_empty()).or_else(|| crate::unhex(&self.id))
    }
}

fn device(row: &sqlx::any::AnyRow) -> Result<Device, sqlx::Error> {
    let key: Vec<u8> = row.try_get("pubkey")?;
    Ok(Device {
        tenant: row.try_get("tenant")?,
        id: row.try_get("id")?,
        key: key.try_into().map_err(|_| sqlx::Error::Decode("a key of another length".into()))?,
        target: row.try_get("target")?,
        attributes: row.try_get("attributes")?,
        ring: row.try_get("ring")?,
        enrolled: row.try_get("enrolled")?,
        seen: row.try_get("seen")?,
        boot: row.try_get("boot")?,
        seq: row.try_get("seq")?,
        missed: row.try_get("missed")?,
        model: row.try_get("model")?,
        running: row.try_get("running")?,
        phase: row.try_get("phase")?,
        last_outcome: row.try_get("last_outcome")?,
        last_digest: row.try_get("last_digest")?,
    })
}

/// The identities of devices that take turns in a rollout, the first of them by their ids.
pub(crate) async fn that_take_turns(
    connection: &mut Connection,
    tenant: &str,
    rollout: &str,
    limit: i64,
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT d.* FROM exposures e JOIN devices d ON d.tenant = e.tenant AND d.id = e.device
         WHERE e.tenant = $1 AND e.rollout = $2 AND e.beside = 2 ORDER BY e.device LIMIT $3",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().filter_map(|row| device(row).map(|d| d.identity()).transpose()).collect()
}

/// A device by its id, which is one of all tenants' together.
pub(crate) async fn by_id(connection: &mut Connection, id: &str) -> Result<Option<Device>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM devices WHERE id = $1").bind(id).fetch_optional(connection).await?;
    row.as_ref().map(device).transpose()
}

pub(crate) async fn get(connection: &mut Connection, tenant: &str, id: &str) -> Result<Option<Device>, sqlx::Error> {
    Ok(by_id(connection, id).await?.filter(|d| d.tenant == tenant))
}

/// Which devices to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) after: String,
    pub(crate) limit: i64,
    pub(crate) model: Option<String>,
    pub(crate) running: Option<String>,
    pub(crate) ring: Option<i64>,
}

pub(crate) async fn list(
    connection: &mut Connection,
    tenant: &str,
    filter: &Filter,
) -> Result<Vec<Device>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM devices WHERE tenant = $1 AND id > $2 AND ($4 = '' OR model = $4)
         AND ($5 = '' OR running = $5) AND ($6 < 0 OR ring = $6) ORDER BY id LIMIT $3",
    )
    .bind(tenant)
    .bind(&filter.after)
    .bind(filter.limit)
    .bind(filter.model.as_deref().unwrap_or_default())
    .bind(filter.running.as_deref().unwrap_or_default())
    .bind(filter.ring.unwrap_or(-1))
    .fetch_all(connection)
    .await?;
    rows.iter().map(device).collect()
}

/// Returns up to nine digests that begin with `prefix`, of those that devices run and packages have. `prefix` holds nothing but
/// hexadecimal digits.
pub(crate) async fn digests(
    connection: &mut Connection,
    tenant: &str,
    prefix: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT running FROM devices WHERE tenant = $1 AND running LIKE $2
         UNION SELECT digest FROM packages WHERE tenant = $1 AND digest LIKE $2 ORDER BY 1 LIMIT 9",
    )
    .bind(tenant)
    .bind(format!("{prefix}%"))
    .fetch_all(connection)
    .await
}

/// Devices that run a model, of those that could run something made for `target`, and of them those that run `base`.
pub(crate) async fn count(
    connection: &mut Connection,
    tenant: &str,
    model: &str,
    target: &str,
    base: Option<&str>,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM devices WHERE tenant = $1 AND model = $2 AND ($3 = 'any' OR target = $3)
         AND ($4 = '' OR running = $4)",
    )
    .bind(tenant)
    .bind(model)
    .bind(target)
    .bind(base.unwrap_or_default())
    .fetch_one(connection)
    .await
}

/// Returns how many devices of a model run what, by digest.
pub(crate) async fn census(
    connection: &mut Connection,
    tenant: &str,
    model: &str,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT running, COUNT(*) AS devices FROM devices WHERE tenant = $1 AND model = $2 AND running IS NOT NULL
         GROUP BY running",
    )
    .bind(tenant)
    .bind(model)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("running")?, row.try_get("devices")?))).collect()
}

/// Enrols; `false` when it is enrolled already.
pub(crate) async fn enrol(
    tx: &mut Connection,
    tenant: &str,
    id: &str,
    key: &[u8],
    request: &crate::wire::Enrol,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let attributes = serde_json::to_string(&request.attributes).map_err(|e| sqlx::Error::Encode(e.into()))?;
    let done = sqlx::query(
        "INSERT INTO devices (tenant, id, pubkey, target, attributes, ring, enrolled, seen, nonce, boot, seq, missed,
         model, running, phase, last_digest, last_outcome)
         VALUES ($1, $2, $3, $4, $5, NULL, $6, 0, 0, 0, 0, 0, $7, NULL, 'Idle', NULL, NULL) ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(id)
    .bind(key)
    .bind(&request.target)
    .bind(attributes)
    .bind(now)
    .bind(&request.model)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A device that is not believed any more.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Revoked {
    /// Its id.
    pub(crate) id: String,
    /// Who revoked it.
    pub(crate) who: String,
    /// When, seconds since 1970.
    pub(crate) time: i64,
}

/// Takes a device away, and keeps its key among those that do not enrol again; `false` when there is no such device.
pub(crate) async fn revoke(
    tx: &mut Connection,
    tenant: &str,
    id: &str,
    who: &str,
    now: i64,
) -> Result<bool, sqlx::Error> {
    sqlx::query(
        "INSERT INTO revoked_devices (tenant, id, pubkey, who, time)
         SELECT tenant, id, pubkey, CAST($3 AS TEXT), CAST($4 AS BIGINT) FROM devices WHERE tenant = $1 AND id = $2
         ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(id)
    .bind(who)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    let done =
        sqlx::query("DELETE FROM devices WHERE tenant = $1 AND id = $2").bind(tenant).bind(id).execute(tx).await?;
    Ok(done.rows_affected() == 1)
}

/// A device that was revoked, if it was.
pub(crate) async fn revoked(
    connection: &mut Connection,
    tenant: &str,
    id: &str,
) -> Result<Option<Revoked>, sqlx::Error> {
    let row = sqlx::query("SELECT id, who, time FROM revoked_devices WHERE tenant = $1 AND id = $2")
        .bind(tenant)
        .bind(id)
        .fetch_optional(connection)
        .await?;
    row.map(|r| Ok(Revoked { id: r.try_get("id")?, who: r.try_get("who")?, time: r.try_get("time")? })).transpose()
}

/// How many devices run a package, as they said last.
pub(crate) async fn running(connection: &mut Connection, tenant: &str, digest: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM devices WHERE tenant = $1 AND running = $2")
        .bind(tenant)
        .bind(digest)
        .fetch_one(connection)
        .await
}

pub(crate) async fn total(connection: &mut Connection, tenant: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COUNT(*) FROM devices WHERE tenant = $1").bind(tenant).fetch_one(connection).await
}

pub(crate) async fn set_ring(
    tx: &mut Connection,
    tenant: &str,
    id: &str,
    ring: Option<i64>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("UPDATE devices SET ring = $3 WHERE tenant = $1 AND id = $2")
        .bind(tenant)
        .bind(id)
        .bind(ring)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// What a poll says about a device.
#[derive(Clone, Debug)]
pub(crate) struct Said<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) id: &'a str,
    pub(crate) now: i64,
    pub(crate) nonce: i64,
    pub(crate) model: &'a str,
    pub(crate) running: Option<&'a str>,
    pub(crate) phase: &'a str,
    pub(crate) last: Option<(&'a str, &'a str)>,
    pub(crate) newest: (i64, i64),
    pub(crate) missed: i64,
    /// Sequence of the flag document that the device obeys.
    pub(crate) flags: i64,
}

/// Notes what a poll says; `false` when its nonce is not newer than the last, as when somebody replays it.
pub(crate) async fn heard(tx: &mut Connection, said: &Said<'_>) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE devices SET nonce = $3, seen = $4, model = $5, running = $6, phase = $7, last_digest = $8,
         last_outcome = $9, boot = $10, seq = $11, missed = missed + $12, flags = $13 WHERE tenant = $1 AND id = $2 AND nonce < $3",
    )
    .bind(said.tenant)
    .bind(said.id)
    .bind(said.nonce)
    .bind(said.now)
    .bind(said.model)
    .bind(said.running)
    .bind(said.phase)
    .bind(said.last.map(|l| l.0))
    .bind(said.last.map(|l| l.1))
    .bind(said.newest.0)
    .bind(said.newest.1)
    .bind(said.missed)
    .bind(said.flags)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}
