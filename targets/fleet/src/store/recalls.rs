//! Recalls: packages that devices are to leave, and how far they have.
//!
//! A rollback, or the choice of another candidate, makes one. It outlives the rollout, so that no later action on the rollout
//! can strand a device on the package.

use serde::Serialize;
use sqlx::Row as _;

use super::devices::SILENT_POLLS;
use super::{Connection, rollouts, tenants, unsigned};

/// Seconds for which documents of the way back are good.
const LIFE_SECONDS: i64 = 30 * rollouts::DAY;

/// A package that devices are to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recall {
    pub(crate) tenant: String,
    /// The package.
    pub(crate) digest: String,
    /// The model's name.
    pub(crate) name: String,
    /// The target that the package is compiled for.
    pub(crate) target: String,
    /// What devices run instead; `None` if the rollout had no base.
    pub(crate) base: Option<String>,
    /// Whether devices that serve it keep it: only downloads and shadows end.
    pub(crate) keeps: bool,
    /// The rollout that ordered it.
    pub(crate) rollout: String,
    /// The person that ordered it, or `server`.
    pub(crate) ordered_by: String,
    /// Seconds since 1970.
    pub(crate) ordered: i64,
    /// Sequence of the order; devices with a newer document have heard of it or of something later.
    pub(crate) ordered_sequence: i64,
    /// Whether devices may still run it.
    pub(crate) open: bool,
}

/// Sequence, time and end of a signed document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) sequence: i64,
    pub(crate) signed: i64,
    pub(crate) expires: i64,
}

/// Progress of a recall, in devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// Devices that were offered the way back.
    pub(crate) told: i64,
    /// Of those, devices that left the package.
    pub(crate) back: i64,
    /// Devices that run the package and should not.
    pub(crate) running: i64,
    /// Of those, devices that have not polled for three poll intervals.
    pub(crate) silent: i64,
    /// Devices that run the package and cannot leave it.
    pub(crate) blocked: i64,
}

fn recall(row: &sqlx::any::AnyRow) -> Result<Recall, sqlx::Error> {
    let flag = |name: &str| row.try_get::<i64, _>(name).map(|n| n != 0);
    Ok(Recall {
        tenant: row.try_get("tenant")?,
        digest: row.try_get("digest")?,
        name: row.try_get("name")?,
        target: row.try_get("target")?,
        base: row.try_get("base")?,
        keeps: flag("keeps")?,
        rollout: row.try_get("rollout")?,
        ordered_by: row.try_get("ordered_by")?,
        ordered: row.try_get("ordered")?,
        ordered_sequence: row.try_get("ordered_sequence")?,
        open: flag("open")?,
    })
}

impl Recall {
    /// Returns whether devices of this model and target are meant.
    pub(crate) fn fits(&self, model: &str, target: &str) -> bool {
        self.name == model && (self.target == "any" || self.target == target)
    }
}

/// Returns a tenant's recalls.
pub(crate) async fn list(connection: &mut Connection, tenant: &str) -> Result<Vec<Recall>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM recalls WHERE tenant = $1 ORDER BY digest")
        .bind(tenant)
        .fetch_all(connection)
        .await?;
    rows.iter().map(recall).collect()
}

/// Returns the recall of a package.
pub(crate) async fn get(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
) -> Result<Option<Recall>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM recalls WHERE tenant = $1 AND digest = $2")
        .bind(tenant)
        .bind(digest)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(recall).transpose()
}

/// Returns every tenant's recalls that devices may still have to obey.
pub(crate) async fn all_open(connection: &mut Connection) -> Result<Vec<Recall>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT * FROM recalls WHERE open = 1 ORDER BY tenant, digest").fetch_all(connection).await?;
    rows.iter().map(recall).collect()
}

/// Stores an order; one about the same package is replaced.
pub(crate) async fn order(tx: &mut Connection, of: &Recall) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO recalls VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $9, $11, 1)
         ON CONFLICT (tenant, digest) DO UPDATE SET base = excluded.base, keeps = excluded.keeps,
         rollout = excluded.rollout, ordered_by = excluded.ordered_by, ordered = excluded.ordered,
         ordered_sequence = excluded.ordered_sequence, sequence = excluded.sequence, signed = excluded.signed,
         expires = excluded.expires, open = 1",
    )
    .bind(&of.tenant)
    .bind(&of.digest)
    .bind(&of.name)
    .bind(&of.target)
    .bind(of.base.as_deref())
    .bind(i64::from(of.keeps))
    .bind(&of.rollout)
    .bind(&of.ordered_by)
    .bind(of.ordered)
    .bind(of.ordered_sequence)
    .bind(of.ordered + LIFE_SECONDS)
    .execute(&mut *tx)
    .await?;
    // An order begins with no device having heard of it.
    sqlx::query("DELETE FROM recalled_devices WHERE tenant = $1 AND digest = $2")
        .bind(&of.tenant)
        .bind(&of.digest)
        .execute(tx)
        .await
        .map(drop)
}

/// Ends the recall of a package that a rollout brings to everybody.
pub(crate) async fn release(tx: &mut Connection, tenant: &str, digest: &str) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM recalled_devices WHERE tenant = $1 AND digest = $2",
        "DELETE FROM recalls WHERE tenant = $1 AND digest = $2",
    ] {
        sqlx::query(statement).bind(tenant).bind(digest).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Sets what devices of a model and target run instead of whatever was recalled.
pub(crate) async fn redirect(
    tx: &mut Connection,
    (tenant, name, target): (&str, &str, &str),
    base: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE recalls SET base = $4 WHERE tenant = $1 AND name = $2 AND target = $3")
        .bind(tenant)
        .bind(name)
        .bind(target)
        .bind(base)
        .execute(tx)
        .await
        .map(drop)
}

/// Notes whether devices may still have to obey a recall.
pub(crate) async fn set_open(
    tx: &mut Connection,
    (tenant, digest): (&str, &str),
    open: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE recalls SET open = $3 WHERE tenant = $1 AND digest = $2")
        .bind(tenant)
        .bind(digest)
        .bind(i64::from(open))
        .execute(tx)
        .await
        .map(drop)
}

/// Notes that a device runs a recalled package: it is offered the way back, or why it cannot take it.
pub(crate) async fn found(
    tx: &mut Connection,
    (tenant, digest, device): (&str, &str, &str),
    blocked: Option<&str>,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO recalled_devices VALUES ($1, $2, $3, $4, NULL, $5) ON CONFLICT (tenant, digest, device) DO UPDATE
         SET told = COALESCE(recalled_devices.told, excluded.told), back = NULL, blocked = excluded.blocked",
    )
    .bind(tenant)
    .bind(digest)
    .bind(device)
    .bind(blocked.is_none().then_some(now))
    .bind(blocked)
    .execute(tx)
    .await
    .map(drop)
}

/// Notes that a device has left every recalled package but `still`.
pub(crate) async fn returned(
    tx: &mut Connection,
    (tenant, device): (&str, &str),
    still: Option<&str>,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE recalled_devices SET back = $4, blocked = NULL
         WHERE tenant = $1 AND device = $2 AND digest <> $3 AND back IS NULL",
    )
    .bind(tenant)
    .bind(device)
    .bind(still.unwrap_or_default())
    .bind(now)
    .execute(tx)
    .await
    .map(drop)
}

/// Forgets a device that was revoked.
pub(crate) async fn forget_device(tx: &mut Connection, tenant: &str, device: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM recalled_devices WHERE tenant = $1 AND device = $2")
        .bind(tenant)
        .bind(device)
        .execute(tx)
        .await
        .map(drop)
}

/// Returns the rollout whose recall sends devices back to a package, which therefore has to stay.
pub(crate) async fn that_needs(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT rollout FROM recalls WHERE tenant = $1 AND base = $2 AND keeps = 0 ORDER BY digest LIMIT 1",
    )
    .bind(tenant)
    .bind(digest)
    .fetch_optional(connection)
    .await
}

/// Returns the sequence, time and end of the document of the way back for a device that has seen `seen`. Documents that the
/// device would refuse as older, or that end soon, are signed again with a new sequence.
pub(crate) async fn validity(tx: &mut Connection, of: &Recall, seen: u64, now: i64) -> Result<Validity, sqlx::Error> {
    let row = sqlx::query("SELECT sequence, signed, expires FROM recalls WHERE tenant = $1 AND digest = $2")
        .bind(&of.tenant)
        .bind(&of.digest)
        .fetch_one(&mut *tx)
        .await?;
    let stored = Validity {
        sequence: row.try_get("sequence")?,
        signed: row.try_get("signed")?,
        expires: row.try_get("expires")?,
    };
    let ends_soon = stored.expires - now < LIFE_SECONDS / 2;
    let is_older = unsigned(stored.sequence) < seen
        && rollouts::may_renew(tx, (&of.tenant, &of.name), stored.signed, seen, now).await?;
    if !ends_soon && !is_older {
        return Ok(stored);
    }
    let sequence = rollouts::next_sequence(tx, &of.tenant, &of.name, now).await?;
    let renewed = Validity { sequence, signed: now, expires: now + LIFE_SECONDS };
    sqlx::query("UPDATE recalls SET sequence = $3, signed = $4, expires = $5 WHERE tenant = $1 AND digest = $2")
        .bind(&of.tenant)
        .bind(&of.digest)
        .bind(renewed.sequence)
        .bind(renewed.signed)
        .bind(renewed.expires)
        .execute(tx)
        .await?;
    Ok(renewed)
}

/// Returns the time, in seconds since 1970, before which a device's last poll makes it silent.
pub(crate) async fn silent_before(connection: &mut Connection, tenant: &str, now: i64) -> Result<i64, sqlx::Error> {
    let tenant = tenants::get(connection, tenant).await?;
    let poll_seconds = tenant.map_or(1, |t| i64::from(t.settings.poll_seconds.max(1)));
    Ok(now - SILENT_POLLS * poll_seconds)
}

/// Counts devices that left a recalled package, by their arm in a rollout.
pub(crate) async fn returned_by_arm(
    connection: &mut Connection,
    (tenant, digest): (&str, &str),
    rollout: &str,
) -> Result<Vec<(i64, i64)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.arm AS arm, COUNT(*) AS devices FROM recalled_devices r
         JOIN exposures e ON e.tenant = r.tenant AND e.device = r.device AND e.rollout = $3
         WHERE r.tenant = $1 AND r.digest = $2 AND r.told IS NOT NULL AND r.back IS NOT NULL GROUP BY e.arm",
    )
    .bind(tenant)
    .bind(digest)
    .bind(rollout)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("arm")?, row.try_get("devices")?))).collect()
}

/// Counts devices of recalled packages. A device that a live rollout wants to have the package is not counted; `silent_before`
/// is the time, in seconds since 1970, before which a device's last poll makes it silent.
pub(crate) async fn progress(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
    silent_before: i64,
) -> Result<Progress, sqlx::Error> {
    let heard = sqlx::query(
        "SELECT COUNT(told) AS told, COUNT(CASE WHEN told IS NOT NULL THEN back END) AS back,
         COUNT(CASE WHEN back IS NULL THEN blocked END) AS blocked
         FROM recalled_devices WHERE tenant = $1 AND digest = $2",
    )
    .bind(tenant)
    .bind(digest)
    .fetch_one(&mut *connection)
    .await?;
    // Candidates are a JSON list of digests, which have no characters that mean anything to LIKE.
    let running = sqlx::query(
        "SELECT COUNT(*) AS running, COUNT(CASE WHEN d.seen < $3 THEN 1 END) AS silent
         FROM devices d WHERE d.tenant = $1 AND d.running = $2 AND NOT EXISTS (
             SELECT 1 FROM exposures e JOIN rollouts r ON r.tenant = e.tenant AND r.id = e.rollout
             WHERE e.tenant = d.tenant AND e.device = d.id AND e.kept = 1 AND r.live = 1
             AND r.phase IN ('Running', 'Awaiting', 'Paused', 'Completed') AND r.candidates LIKE $4)",
    )
    .bind(tenant)
    .bind(digest)
    .bind(silent_before)
    .bind(format!("%\"{digest}\"%"))
    .fetch_one(connection)
    .await?;
    Ok(Progress {
        told: heard.try_get("told")?,
        back: heard.try_get("back")?,
        running: running.try_get("running")?,
        silent: running.try_get("silent")?,
        blocked: heard.try_get("blocked")?,
    })
}
