//! Who is in which arm of a rollout, how far they came, and what their days were like.

use sqlx::Row as _;

use super::Connection;
use crate::telemetry::{self, Metrics};

/// The arm of devices that are not compared.
pub(crate) const REST: i64 = -1;
/// The arm of devices that keep what they have; candidate `n` is arm `n + 1`.
pub(crate) const CONTROL: i64 = 0;

/// A device's part in a rollout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exposure {
    pub(crate) arm: i64,
    pub(crate) assigned: i64,
    pub(crate) seen: i64,
    pub(crate) polls: i64,
    pub(crate) offered: Option<i64>,
    pub(crate) downloaded: Option<i64>,
    pub(crate) activated: Option<i64>,
    pub(crate) reported: Option<i64>,
    pub(crate) runs: bool,
    pub(crate) outcome: Option<String>,
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
            outcome: row.try_get("outcome")?,
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
         reported, runs, outcome, was_bad, valued) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, 0)
         ON CONFLICT (tenant, rollout, device) DO UPDATE SET arm = excluded.arm, seen = excluded.seen,
         polls = excluded.polls, offered = excluded.offered, downloaded = excluded.downloaded,
         activated = excluded.activated, reported = excluded.reported, runs = excluded.runs,
         outcome = excluded.outcome",
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
    .execute(tx)
    .await
    .map(drop)
}

/// Adds to a device's day: bits of guardrails, reports, metrics.
pub(crate) async fn add_day(
    tx: &mut Connection,
    (tenant, rollout, device): (&str, &str, &str),
    (day, closed): (i64, bool),
    (bad, reports): (u8, i64),
    metrics: &Metrics,
) -> Result<(), sqlx::Error> {
    let row = sqlx::query(
        "SELECT bad, reports, late, metrics FROM device_days WHERE tenant = $1 AND rollout = $2 AND day = $3 AND device = $4",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(device)
    .fetch_optional(&mut *tx)
    .await?;
    let (mut bits, mut count, mut late, mut sums) = (0i64, 0i64, 0i64, Metrics::new());
    if let Some(row) = row {
        (bits, count, late) = (row.try_get("bad")?, row.try_get("reports")?, row.try_get("late")?);
        let text: String = row.try_get("metrics")?;
        sums = serde_json::from_str(&text).map_err(|e| sqlx::Error::Decode(e.into()))?;
    }
    telemetry::add(&mut sums, metrics);
    let bad = bad | telemetry::crash(&sums);
    // Of a day that is counted already only a device is counted that had said nothing.
    if closed && count == 0 && reports > 0 {
        late = LATE;
    }
    let text = serde_json::to_string(&sums).map_err(|e| sqlx::Error::Encode(e.into()))?;
    sqlx::query(
        "INSERT INTO device_days (tenant, rollout, day, device, bad, reports, metrics, late)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant, rollout, day, device)
         DO UPDATE SET bad = excluded.bad, reports = excluded.reports, metrics = excluded.metrics, late = excluded.late",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(device)
    .bind(bits | i64::from(bad))
    .bind(count + reports)
    .bind(text)
    .bind(late)
    .execute(tx)
    .await
    .map(drop)
}

/// A day that was counted without this device's reports, which came later and are to be counted.
const LATE: i64 = 1;
/// And now they are.
const COUNTED: i64 = 2;

/// Counts the reports that came after their day was closed: devices by arm and what was bad, as [`close_day`] does.
pub(crate) async fn close_late(tx: &mut Connection, tenant: &str, rollout: &str) -> Result<Vec<Alike>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.arm AS arm, e.was_bad AS was_bad, d.bad AS bad, COUNT(*) AS devices
         FROM device_days d JOIN exposures e ON e.tenant = d.tenant AND e.rollout = d.rollout AND e.device = d.device
         WHERE d.tenant = $1 AND d.rollout = $2 AND d.late = $3 AND e.arm >= 0 GROUP BY 1, 2, 3",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(LATE)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE exposures SET was_bad = was_bad | (SELECT MAX(d.bad) FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.late = $3 AND d.device = exposures.device)
         WHERE tenant = $1 AND rollout = $2 AND EXISTS (SELECT 1 FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.late = $3 AND d.device = exposures.device)",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(LATE)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE device_days SET late = $4 WHERE tenant = $1 AND rollout = $2 AND late = $3")
        .bind(tenant)
        .bind(rollout)
        .bind(LATE)
        .bind(COUNTED)
        .execute(&mut *tx)
        .await?;
    let alike = |r: &sqlx::any::AnyRow| {
        let devices = r.try_get("devices")?;
        Ok(Alike {
            arm: r.try_get("arm")?,
            // Its silence was counted when the day was closed.
            was_bad: r.try_get::<i64, _>("was_bad")? | 1 << dunlin_rollout::Guardrail::Silence as u8,
            bad: r.try_get("bad")?,
            reported: true,
            late: true,
            devices,
        })
    };
    rows.iter().map(alike).collect()
}

/// Devices of an arm that were alike on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alike {
    pub(crate) arm: i64,
    /// By which guardrails they had been bad before.
    pub(crate) was_bad: i64,
    /// By which they were bad on this day.
    pub(crate) bad: i64,
    /// Whether their reports came after the day was closed.
    pub(crate) late: bool,
    /// Whether a report of theirs came.
    pub(crate) reported: bool,
    pub(crate) devices: i64,
}

/// The devices of both arms that had activated before a day ended, by what the day was like; and the day is closed:
/// what they were bad by is remembered.
pub(crate) async fn close_day(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    day: i64,
    end: i64,
) -> Result<Vec<Alike>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.arm AS arm, e.was_bad AS was_bad, COALESCE(d.bad, 0) AS bad,
         CASE WHEN COALESCE(d.reports, 0) > 0 THEN 1 ELSE 0 END AS reported, COUNT(*) AS devices
         FROM exposures e LEFT JOIN device_days d
         ON d.tenant = e.tenant AND d.rollout = e.rollout AND d.day = $3 AND d.device = e.device
         WHERE e.tenant = $1 AND e.rollout = $2 AND e.arm >= 0 AND e.activated IS NOT NULL AND e.activated < $4
         GROUP BY 1, 2, 3, 4",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(end)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE exposures SET was_bad = was_bad | COALESCE((SELECT d.bad FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.day = $3 AND d.device = exposures.device),
         0) WHERE tenant = $1 AND rollout = $2 AND arm >= 0 AND EXISTS (SELECT 1 FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.day = $3 AND d.device = exposures.device
         AND d.bad <> 0)",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .execute(&mut *tx)
    .await?;
    // Silence has no row of its own to be remembered from.
    let silent = 1i64 << dunlin_rollout::Guardrail::Silence as u8;
    sqlx::query(
        "UPDATE exposures SET was_bad = was_bad | $5 WHERE tenant = $1 AND rollout = $2 AND arm >= 0
         AND activated IS NOT NULL AND activated < $4 AND NOT EXISTS (SELECT 1 FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.day = $3 AND d.device = exposures.device
         AND d.reports > 0)",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(end)
    .bind(silent)
    .execute(&mut *tx)
    .await?;
    rows.iter()
        .map(|r| {
            let reported: i64 = r.try_get("reported")?;
            Ok(Alike {
                arm: r.try_get("arm")?,
                was_bad: r.try_get("was_bad")?,
                bad: r.try_get("bad")?,
                late: false,
                reported: reported != 0,
                devices: r.try_get("devices")?,
            })
        })
        .collect()
}

/// The metrics of devices whose first reported day this was, and from now on they are counted: arm and sums.
pub(crate) async fn first_values(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    day: i64,
) -> Result<Vec<(i64, Metrics)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.arm AS arm, d.metrics AS metrics FROM exposures e JOIN device_days d
         ON d.tenant = e.tenant AND d.rollout = e.rollout AND d.device = e.device
         WHERE e.tenant = $1 AND e.rollout = $2 AND d.day = $3 AND e.arm >= 0 AND e.valued = 0 AND d.reports > 0
         AND e.activated IS NOT NULL",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE exposures SET valued = 1 WHERE tenant = $1 AND rollout = $2 AND arm >= 0 AND valued = 0
         AND activated IS NOT NULL AND EXISTS (SELECT 1 FROM device_days d WHERE d.tenant = exposures.tenant
         AND d.rollout = exposures.rollout AND d.day = $3 AND d.device = exposures.device AND d.reports > 0)",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .execute(&mut *tx)
    .await?;
    rows.iter()
        .map(|r| {
            let text: String = r.try_get("metrics")?;
            let metrics = serde_json::from_str(&text).map_err(|e| sqlx::Error::Decode(e.into()))?;
            Ok((r.try_get("arm")?, metrics))
        })
        .collect()
}

/// A new epoch: what devices were bad by is forgotten.
pub(crate) async fn forget_bad(tx: &mut Connection, tenant: &str, rollout: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE exposures SET was_bad = 0, valued = 0 WHERE tenant = $1 AND rollout = $2")
        .bind(tenant)
        .bind(rollout)
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
    /// Devices that run a candidate now.
    pub(crate) runs: i64,
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
            Ok(Way { arm: r.try_get("arm")?, hops, runs: r.try_get("runs")?, reverted: r.try_get("reverted")? })
        })
        .collect()
}

/// Forgets who took part, and their days.
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

pub(crate) async fn forget(tx: &mut Connection, tenant: &str, rollout: &str) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM device_days WHERE tenant = $1 AND rollout = $2",
        "DELETE FROM exposures WHERE tenant = $1 AND rollout = $2",
    ] {
        sqlx::query(statement).bind(tenant).bind(rollout).execute(&mut *tx).await?;
    }
    Ok(())
}
