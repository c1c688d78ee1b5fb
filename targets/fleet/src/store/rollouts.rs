//! Rollouts. A row's version rises with every write and guards it: who comes second writes nothing.

use dunlin_rollout::{Evidence, Manner, Name, Rollout};
use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use super::Connection;

/// A rollout with everything that is kept about it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) tenant: String,
    pub(crate) id: String,
    /// The model's name.
    pub(crate) name: String,
    /// What its packages are for; devices of another target have no part in it.
    pub(crate) target: String,
    /// Digests of the candidates.
    pub(crate) candidates: Vec<String>,
    /// What devices run that take part; nothing: whatever.
    pub(crate) base: Option<String>,
    /// What was asked for, as it came.
    pub(crate) request: String,
    pub(crate) rollout: Rollout,
    pub(crate) evidence: Vec<Evidence>,
    /// Whether devices are still to be told about it.
    pub(crate) live: bool,
    /// The number of the day on which the stage began, and of the next to be closed.
    pub(crate) day_base: i64,
    pub(crate) days: i64,
    pub(crate) started: i64,
    /// When the stage, or the epoch, began.
    pub(crate) entered: i64,
    /// When the epoch began, and its first day.
    pub(crate) epoch_began: i64,
    pub(crate) epoch_day: i64,
    pub(crate) started_by: String,
    pub(crate) created: i64,
    /// Sequence, time and end of the signed documents.
    pub(crate) sequence: i64,
    pub(crate) signed: i64,
    pub(crate) expires: i64,
    /// Whether devices that have the candidate go back to the base.
    pub(crate) takes_back: bool,
    pub(crate) verdicts: i64,
    pub(crate) version: i64,
}

/// Seconds of a day of a device.
pub(crate) const DAY: i64 = 86_400;

impl Stored {
    /// The day of a moment.
    pub(crate) fn day(&self, now: i64) -> i64 {
        self.day_base + (now - self.entered).max(0) / DAY
    }

    /// When a day ends.
    pub(crate) fn day_end(&self, day: i64) -> i64 {
        self.entered + (day - self.day_base + 1) * DAY
    }

    /// How devices run a candidate in this stage.
    pub(crate) fn manner(&self, candidate: u8) -> Manner {
        let stage = self.rollout.plan().stage(self.rollout.stage());
        stage.map_or(Manner::Instead, |s| s.exposure.audience(self.rollout.salt(), candidate).manner)
    }

    /// Whether devices take turns between base and candidate in this stage.
    pub(crate) fn takes_turns(&self) -> bool {
        self.manner(0) == Manner::Hourly
    }

    /// How far a candidate in the shadow agrees with what serves: the mean over devices of the part of answers that were the
    /// same, and the devices. Nothing: no shadow has been counted.
    pub(crate) fn agreement(&self) -> Option<(f64, u64)> {
        let name = Name::new(crate::telemetry::DISAGREEMENT)?;
        let canary = self.evidence.first()?.moments(name)?.canary;
        (canary.n() > 0).then(|| (1.0 - canary.mean(), canary.n()))
    }

    /// Whether its packages are for a device of this target.
    pub(crate) fn fits(&self, target: &str) -> bool {
        self.target == "any" || self.target == target
    }

    /// Whether devices that confirmed the candidate cannot go back, as whoever drafted it knew.
    pub(crate) fn irreversible(&self) -> bool {
        let request: serde_json::Value = serde_json::from_str(&self.request).unwrap_or_default();
        request["irreversible"] == true
    }

    /// Another stage or epoch: days begin anew.
    pub(crate) fn enter(&mut self, now: i64, epoch: bool) {
        self.day_base = self.day(now).max(self.days) + 1;
        (self.days, self.entered) = (self.day_base, now);
        if epoch {
            (self.epoch_began, self.epoch_day) = (now, self.day_base);
        }
    }
}

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

fn stored(row: &sqlx::any::AnyRow) -> Result<Stored, sqlx::Error> {
    let (candidates, state, evidence): (String, Vec<u8>, Vec<u8>) =
        (row.try_get("candidates")?, row.try_get("state")?, row.try_get("evidence")?);
    let flag = |name: &str| row.try_get::<i64, _>(name).map(|n| n != 0);
    Ok(Stored {
        tenant: row.try_get("tenant")?,
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        target: row.try_get("target")?,
        candidates: serde_json::from_str(&candidates).map_err(decode)?,
        base: row.try_get("base")?,
        request: row.try_get("request")?,
        rollout: postcard::from_bytes(&state).map_err(decode)?,
        evidence: postcard::from_bytes(&evidence).map_err(decode)?,
        live: flag("live")?,
        day_base: row.try_get("day_base")?,
        days: row.try_get("days")?,
        started: row.try_get("started")?,
        entered: row.try_get("entered")?,
        epoch_began: row.try_get("epoch_began")?,
        epoch_day: row.try_get("epoch_day")?,
        started_by: row.try_get("started_by")?,
        created: row.try_get("created")?,
        sequence: row.try_get("sequence")?,
        signed: row.try_get("signed")?,
        expires: row.try_get("expires")?,
        takes_back: flag("takes_back")?,
        verdicts: row.try_get("verdicts")?,
        version: row.try_get("version")?,
    })
}

pub(crate) async fn get(connection: &mut Connection, tenant: &str, id: &str) -> Result<Option<Stored>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM rollouts WHERE tenant = $1 AND id = $2")
        .bind(tenant)
        .bind(id)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(stored).transpose()
}

pub(crate) async fn list(
    connection: &mut Connection,
    tenant: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<Stored>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM rollouts WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3")
        .bind(tenant)
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter().map(stored).collect()
}

/// Returns a tenant's rollouts of a phase and a model, both empty for all, the newest first.
pub(crate) async fn newest(
    connection: &mut Connection,
    tenant: &str,
    (phase, model): (&str, &str),
    (limit, skipped): (i64, i64),
) -> Result<Vec<Stored>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM rollouts WHERE tenant = $1 AND ($2 = '' OR phase = $2) AND ($3 = '' OR name = $3)
         ORDER BY created DESC, id LIMIT $4 OFFSET $5",
    )
    .bind(tenant)
    .bind(phase)
    .bind(model)
    .bind(limit)
    .bind(skipped)
    .fetch_all(connection)
    .await?;
    rows.iter().map(stored).collect()
}

/// Returns how many rollouts [`newest`] finds on all pages.
pub(crate) async fn count(
    connection: &mut Connection,
    tenant: &str,
    (phase, model): (&str, &str),
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM rollouts WHERE tenant = $1 AND ($2 = '' OR phase = $2) AND ($3 = '' OR name = $3)",
    )
    .bind(tenant)
    .bind(phase)
    .bind(model)
    .fetch_one(connection)
    .await
}

/// Returns the models that have rollouts, in order.
pub(crate) async fn models(connection: &mut Connection, tenant: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT DISTINCT name FROM rollouts WHERE tenant = $1 ORDER BY name")
        .bind(tenant)
        .fetch_all(connection)
        .await
}

/// The rollouts that a tenant's devices are to be told about.
pub(crate) async fn live(connection: &mut Connection, tenant: &str) -> Result<Vec<Stored>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM rollouts WHERE live = 1 AND tenant = $1 ORDER BY id")
        .bind(tenant)
        .fetch_all(connection)
        .await?;
    rows.iter().map(stored).collect()
}

/// Tenant and id of every live rollout.
pub(crate) async fn all_live(connection: &mut Connection) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT tenant, id FROM rollouts WHERE live = 1 ORDER BY tenant, id").fetch_all(connection).await?;
    rows.iter().map(|r| Ok((r.try_get("tenant")?, r.try_get("id")?))).collect()
}

fn blobs(of: &Stored) -> Result<(String, Vec<u8>, Vec<u8>), sqlx::Error> {
    let encode = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Encode(e);
    Ok((
        serde_json::to_string(&of.candidates).map_err(|e| encode(e.into()))?,
        postcard::to_allocvec(&of.rollout).map_err(|e| encode(e.into()))?,
        postcard::to_allocvec(&of.evidence).map_err(|e| encode(e.into()))?,
    ))
}

/// A draft; `false` when there is a rollout of that id.
pub(crate) async fn insert(tx: &mut Connection, of: &Stored) -> Result<bool, sqlx::Error> {
    let (candidates, state, evidence) = blobs(of)?;
    let done = sqlx::query(
        "INSERT INTO rollouts (tenant, id, name, target, candidates, base, request, state, evidence, phase, stage, live,
         day_base, days, started, entered, started_by, created, sequence, signed, expires, takes_back, verdicts,
         version) VALUES ($1, $2, $3, $11, $4, $5, $6, $7, $8, $9, 0, 0, 0, 0, 0, 0, '', $10, 0, 0, 0, 0, 0, 1)
         ON CONFLICT DO NOTHING",
    )
    .bind(&of.tenant)
    .bind(&of.id)
    .bind(&of.name)
    .bind(candidates)
    .bind(of.base.as_deref())
    .bind(&of.request)
    .bind(state)
    .bind(evidence)
    .bind(format!("{:?}", of.rollout.phase()))
    .bind(of.created)
    .bind(&of.target)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes a rollout if nobody has since it was read; `false` when somebody has.
pub(crate) async fn update(tx: &mut Connection, of: &Stored) -> Result<bool, sqlx::Error> {
    let (_, state, evidence) = blobs(of)?;
    let done = sqlx::query(
        "UPDATE rollouts SET state = $3, evidence = $4, phase = $5, stage = $6, live = $7, day_base = $8, days = $9,
         started = $10, entered = $11, started_by = $12, sequence = $13, signed = $14, expires = $15, takes_back = $16,
         verdicts = $17, epoch_began = $19, epoch_day = $20, version = version + 1
         WHERE tenant = $1 AND id = $2 AND version = $18",
    )
    .bind(&of.tenant)
    .bind(&of.id)
    .bind(state)
    .bind(evidence)
    .bind(format!("{:?}", of.rollout.phase()))
    .bind(i64::from(of.rollout.stage()))
    .bind(i64::from(of.live))
    .bind(of.day_base)
    .bind(of.days)
    .bind(of.started)
    .bind(of.entered)
    .bind(&of.started_by)
    .bind(of.sequence)
    .bind(of.signed)
    .bind(of.expires)
    .bind(i64::from(of.takes_back))
    .bind(of.verdicts)
    .bind(of.version)
    .bind(of.epoch_began)
    .bind(of.epoch_day)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The next sequence of a model's documents: the time, in seconds since 1970, or one more than the last if that is later.
/// So a database that was put back to an older state goes on above what devices have seen. The row is locked until the
/// transaction ends.
pub(crate) async fn next_sequence(tx: &mut Connection, tenant: &str, name: &str, now: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO sequences (tenant, name, value) VALUES ($1, $2, $3) ON CONFLICT (tenant, name) DO UPDATE
         SET value = CASE WHEN sequences.value < $3 THEN $3 ELSE sequences.value + 1 END RETURNING value",
    )
    .bind(tenant)
    .bind(name)
    .bind(now)
    .fetch_one(tx)
    .await
}

/// Sets aside what another rollout of the model has taken the place of. Nobody is told about it any more.
pub(crate) async fn retire(tx: &mut Connection, of: &Stored) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE rollouts SET live = 0, version = version + 1
         WHERE tenant = $1 AND name = $2 AND phase IN ('Completed', 'RolledBack') AND id <> $3 AND target = $4
         AND live = 1",
    )
    .bind(&of.tenant)
    .bind(&of.name)
    .bind(&of.id)
    .bind(&of.target)
    .execute(tx)
    .await
    .map(drop)
}

/// The rollout of a model that is under way, if one is.
pub(crate) async fn under_way(
    tx: &mut Connection,
    tenant: &str,
    name: &str,
    except: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT id FROM rollouts WHERE tenant = $1 AND name = $2 AND id <> $3
         AND phase IN ('Running', 'Awaiting', 'Paused') LIMIT 1",
    )
    .bind(tenant)
    .bind(name)
    .bind(except)
    .fetch_optional(tx)
    .await
}

/// The rollout that brings a package to more devices now.
pub(crate) async fn of_candidate(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
) -> Result<Option<String>, sqlx::Error> {
    // Candidates are a JSON list of digests, which have no characters that mean anything to LIKE.
    sqlx::query_scalar(
        "SELECT id FROM rollouts WHERE tenant = $1 AND live = 1 AND phase IN ('Running', 'Awaiting')
         AND candidates LIKE $2 LIMIT 1",
    )
    .bind(tenant)
    .bind(format!("%\"{digest}\"%"))
    .fetch_optional(connection)
    .await
}

/// A rollout that has a package as candidate or base and may still need it: a draft, or one that devices are told about.
pub(crate) async fn that_needs(
    connection: &mut Connection,
    tenant: &str,
    digest: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT id FROM rollouts WHERE tenant = $1 AND (base = $2 OR candidates LIKE $3)
         AND (live = 1 OR phase IN ('Draft', 'Running', 'Awaiting', 'Paused')) ORDER BY id LIMIT 1",
    )
    .bind(tenant)
    .bind(digest)
    .bind(format!("%\"{digest}\"%"))
    .fetch_optional(connection)
    .await
}

/// A verdict as it was given.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Verdict {
    /// Its number in the rollout, from 1.
    pub(crate) n: i64,
    /// Seconds since 1970.
    pub(crate) time: i64,
    /// The stage it was given in, from 0.
    pub(crate) stage: i64,
    /// `Advance`, `Hold`, `Pause` or `Rollback`.
    pub(crate) verdict: String,
    /// Why, for people.
    pub(crate) reason: String,
    /// Everything it is based on, as JSON.
    pub(crate) numbers: String,
}

pub(crate) async fn add_verdict(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    of: &Verdict,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO verdicts VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(tenant)
        .bind(rollout)
        .bind(of.n)
        .bind(of.time)
        .bind(of.stage)
        .bind(&of.verdict)
        .bind(&of.reason)
        .bind(&of.numbers)
        .execute(tx)
        .await
        .map(drop)
}

pub(crate) async fn verdicts(
    connection: &mut Connection,
    tenant: &str,
    rollout: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Verdict>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM verdicts WHERE tenant = $1 AND rollout = $2 AND n > $3 ORDER BY n LIMIT $4")
        .bind(tenant)
        .bind(rollout)
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|r| {
            Ok(Verdict {
                n: r.try_get("n")?,
                time: r.try_get("time")?,
                stage: r.try_get("stage")?,
                verdict: r.try_get("verdict")?,
                reason: r.try_get("reason")?,
                numbers: r.try_get("numbers")?,
            })
        })
        .collect()
}

/// In the place of the stage that an approval leaves: that of a draft, to start.
pub(crate) const START: i64 = -1;

/// Who approved that an attempt starts, if somebody did.
pub(crate) async fn approved_start(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    attempt: i64,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT who FROM approvals WHERE tenant = $1 AND rollout = $2 AND attempt = $3 AND stage = $4")
        .bind(tenant)
        .bind(rollout)
        .bind(attempt)
        .bind(START)
        .fetch_optional(tx)
        .await
}

/// Notes an approval; `false` when the stage has one.
pub(crate) async fn approve(
    tx: &mut Connection,
    (tenant, rollout): (&str, &str),
    (attempt, stage): (i64, i64),
    who: &str,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("INSERT INTO approvals VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING")
        .bind(tenant)
        .bind(rollout)
        .bind(attempt)
        .bind(stage)
        .bind(who)
        .bind(now)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Seconds between renewals because a device has seen documents that this database does not know of. It was put back to
/// an older state, or the device makes that up; which must not make the fleet's documents new at each of its polls.
pub(crate) const RENEWS: i64 = 600;

/// A sequence of at least `seen` for a rollout's documents: if the model's documents have come that far, or could have in
/// a later state of this database, which was put back to an older one. A device that claims more pushes nothing.
pub(crate) async fn renew_sequence(tx: &mut Connection, of: &Stored, seen: u64, now: i64) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("SELECT sequence, signed FROM rollouts WHERE tenant = $1 AND id = $2")
        .bind(&of.tenant)
        .bind(&of.id)
        .fetch_one(&mut *tx)
        .await?;
    let (row, signed): (i64, i64) = (row.try_get("sequence")?, row.try_get("signed")?);
    if super::unsigned(row) >= seen || !may_renew(tx, (&of.tenant, &of.name), signed, seen, now).await? {
        return Ok(row);
    }
    let next = next_sequence(tx, &of.tenant, &of.name, now).await?;
    // Whoever decides at this moment loses against the version, and tries again.
    sqlx::query("UPDATE rollouts SET sequence = $3, signed = $4, version = version + 1 WHERE tenant = $1 AND id = $2")
        .bind(&of.tenant)
        .bind(&of.id)
        .bind(next)
        .bind(now)
        .execute(tx)
        .await?;
    Ok(next)
}

/// Returns whether a model's documents, last signed at `signed`, are to be renewed for a device that has seen `seen`: if the
/// model's documents have come that far, or could have in a later state of this database, and not too often.
pub(crate) async fn may_renew(
    tx: &mut Connection,
    (tenant, name): (&str, &str),
    signed: i64,
    seen: u64,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let current: Option<i64> = sqlx::query_scalar("SELECT value FROM sequences WHERE tenant = $1 AND name = $2")
        .bind(tenant)
        .bind(name)
        .fetch_optional(tx)
        .await?;
    let is_known = super::unsigned(current.unwrap_or(0)) >= seen;
    let is_of_later_state = seen <= super::unsigned(now) && now - signed >= RENEWS;
    Ok(is_known || is_of_later_state)
}
