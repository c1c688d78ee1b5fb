//! Who is in which arm of a rollout, and how far they came.

use sqlx::Row as _;

use super::Connection;

/// The arm of devices that are not compared.
pub(crate) const REST: i64 = -1;
/// The arm of devices that keep what they have; candidate `n` is arm `n + 1`.
pub(crate) const CONTROL: i64 = 0;

/// How a device runs a candidate that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// It serves, or there is none.
    Nothing,
    /// In the shadow of what serves.
    Shadow,
    /// By the hour, in turn with the base.
    Hourly,
}

impl Beside {
    const fn number(self) -> i64 {
        match self {
            Self::Nothing => 0,
            Self::Shadow => 1,
            Self::Hourly => 2,
        }
    }

    pub(crate) const fn of(number: i64) -> Self {
        match number {
            1 => Self::Shadow,
            2 => Self::Hourly,
            _ => Self::Nothing,
        }
    }
}

/// A device's part in a rollout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exposure {
    /// Its arm; of a device that takes turns, the candidate's.
    pub(crate) arm: i64,
    pub(crate) assigned: i64,
    pub(crate) seen: i64,
    pub(crate) polls: i64,
    pub(crate) offered: Option<i64>,
    pub(crate) downloaded: Option<i64>,
    pub(crate) activated: Option<i64>,
    pub(crate) reported: Option<i64>,
    /// Whether it has a candidate now, however that runs.
    pub(crate) runs: bool,
    pub(crate) beside: Beside,
    pub(crate) outcome: Option<String>,
    /// When it was first heard of in this stage or epoch: from then on it is compared.
    pub(crate) joined: i64,
    /// How a candidate had ended on it before this rollout had to do with it; nothing once it has another end, or none.
    pub(crate) ended_before: Option<String>,
    /// Whether it has a candidate and the rollout wants it to.
    pub(crate) kept: bool,
}

pub(crate) async fn get(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    device: &str,
) -> Result<Option<Exposure>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM exposures WHERE tenant = $1 AND rollout = $2 AND device = $3")
        .bind(tenant)
        .bind(rollout)
        .bind(device)
        .fetch_optional(tx)
        .await?;
    row.map(|row| {
        let runs: i64 = row.try_get("runs")?;
        let kept: i64 = row.try_get("kept")?;
        Ok(Exposure {
            arm: row.try_get("arm")?,
            assigned: row.try_get("assigned")?,
            seen: row.try_get("seen")?,
            polls: row.try_get("polls")?,
            offered: row.try_get("offered")?,
            downloaded: row.try_get("downloaded")?,
            activated: row.try_get("activated")?,
            reported: row.try_get("reported")?,
            runs: runs != 0,
            beside: Beside::of(row.try_get("beside")?),
            outcome: row.try_get("outcome")?,
            joined: row.try_get("joined")?,
            ended_before: row.try_get("ended_before")?,
            kept: kept != 0,
        })
    })
    .transpose()
}

pub(crate) async fn put(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    device: &str,
    of: &Exposure,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO exposures (tenant, rollout, device, arm, assigned, seen, polls, offered, downloaded, activated,
         reported, runs, outcome, beside, joined, ended_before, kept, was_bad, valued)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 0, 0)
         ON CONFLICT (tenant, rollout, device) DO UPDATE SET arm = excluded.arm, seen = excluded.seen,
         polls = excluded.polls, offered = excluded.offered, downloaded = excluded.downloaded,
         activated = excluded.activated, reported = excluded.reported, runs = excluded.runs,
         outcome = excluded.outcome, beside = excluded.beside, joined = excluded.joined,
         ended_before = excluded.ended_before, kept = excluded.kept",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(device)
    .bind(of.arm)
    .bind(of.assigned)
    .bind(of.seen)
    .bind(of.polls)
    .bind(of.offered)
    .bind(of.downloaded)
    .bind(of.activated)
    .bind(of.reported)
    .bind(i64::from(of.runs))
    .bind(of.outcome.as_deref())
    .bind(of.beside.number())
    .bind(of.joined)
    .bind(of.ended_before.as_deref())
    .bind(i64::from(of.kept))
    .execute(tx)
    .await
    .map(drop)
}

/// Another stage: what devices were bad by is forgotten. With a new epoch they give their values again, too.
pub(crate) async fn forget_bad(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    epoch: bool,
) -> Result<(), sqlx::Error> {
    let keep = i64::from(!epoch);
    sqlx::query("UPDATE exposures SET was_bad = 0, valued = valued * $3 WHERE tenant = $1 AND rollout = $2")
        .bind(tenant)
        .bind(rollout)
        .bind(keep)
        .execute(tx)
        .await
        .map(drop)
}

/// An arm's devices that came past each hop, of those assigned a whole day before `end` and seen since `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) arm: i64,
    /// Assigned, downloaded, activated, reported.
    pub(crate) hops: [i64; 4],
    /// Devices that have a candidate now, however it runs.
    pub(crate) runs: i64,
    /// Of these those on which it runs in the shadow, and those on which it takes turns.
    pub(crate) shadows: i64,
    pub(crate) turns: i64,
    /// Devices that took it back.
    pub(crate) reverted: i64,
}

pub(crate) async fn ways(
    connection: &mut Connection,
    tenant: &str,
    rollout: &str,
    assigned_before: i64,
    seen_since: i64,
) -> Result<Vec<Way>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT arm, COUNT(*) AS assigned, COUNT(downloaded) AS downloaded, COUNT(activated) AS activated,
         COUNT(reported) AS reported, CAST(SUM(runs) AS BIGINT) AS runs,
         COUNT(CASE WHEN beside = 1 THEN 1 END) AS shadows, COUNT(CASE WHEN beside = 2 THEN 1 END) AS turns,
         COUNT(CASE WHEN outcome LIKE 'Reverted%' AND runs = 0 THEN 1 END) AS reverted
         FROM exposures WHERE tenant = $1 AND rollout = $2 AND assigned <= $3 AND seen >= $4 GROUP BY arm ORDER BY arm",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(assigned_before)
    .bind(seen_since)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|r| {
            let hops =
                [r.try_get("assigned")?, r.try_get("downloaded")?, r.try_get("activated")?, r.try_get("reported")?];
            Ok(Way {
                arm: r.try_get("arm")?,
                hops,
                runs: r.try_get("runs")?,
                shadows: r.try_get("shadows")?,
                turns: r.try_get("turns")?,
                reverted: r.try_get("reverted")?,
            })
        })
        .collect()
}

/// Notes what a device runs from now on in rollouts that nobody is told about any more: those that are live note it
/// themselves.
pub(crate) async fn runs_now(
    tx: &mut Connection,
    tenant: &str,
    device: &str,
    running: Option<&str>,
) -> Result<(), sqlx::Error> {
    // Candidates are a JSON list of digests, which have no characters that mean anything to LIKE.
    sqlx::query(
        "UPDATE exposures SET runs = CASE WHEN EXISTS (SELECT 1 FROM rollouts WHERE rollouts.tenant = exposures.tenant
             AND rollouts.id = exposures.rollout AND rollouts.candidates LIKE $3) THEN 1 ELSE 0 END
         WHERE tenant = $1 AND device = $2
         AND rollout IN (SELECT id FROM rollouts WHERE rollouts.tenant = $1 AND rollouts.live = 0)",
    )
    .bind(tenant)
    .bind(device)
    .bind(format!("%\"{}\"%", running.unwrap_or("-")))
    .execute(tx)
    .await
    .map(drop)
}

/// Forgets a device that is not believed any more.
pub(crate) async fn forget_device(tx: &mut Connection, tenant: &str, device: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM exposures WHERE tenant = $1 AND device = $2")
        .bind(tenant)
        .bind(device)
        .execute(tx)
        .await
        .map(drop)
}

/// Deletes who took part in a rollout, and their days.
pub(crate) async fn forget(tx: &mut Connection, tenant: &str, rollout: &str) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM device_days WHERE tenant = $1 AND rollout = $2",
        "DELETE FROM exposures WHERE tenant = $1 AND rollout = $2",
    ] {
        sqlx::query(statement).bind(tenant).bind(rollout).execute(&mut *tx).await?;
    }
    Ok(())
}
