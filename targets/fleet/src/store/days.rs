//! What the days of a rollout's devices were like. A device that takes turns has both halves of its day in one row.

use dunlin_rollout::{Both, Guardrail};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::Connection;
use crate::telemetry::{self, Metrics};

/// What a device's day was like, or the hours of one package on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Bits of guardrails.
    pub(crate) bad: u8,
    pub(crate) reports: i64,
    pub(crate) metrics: Metrics,
}

impl Part {
    fn read(row: &AnyRow, [bad, reports, metrics]: [&str; 3]) -> Result<Self, sqlx::Error> {
        let bits: i64 = row.try_get(bad)?;
        Ok(Self { bad: bits as u8, reports: row.try_get(reports)?, metrics: sums(row, metrics)? })
    }

    fn add(&mut self, other: &Self) {
        telemetry::add(&mut self.metrics, &other.metrics);
        self.bad |= other.bad | telemetry::crash(&self.metrics);
        self.reports += other.reports;
    }

    fn text(&self) -> Result<String, sqlx::Error> {
        serde_json::to_string(&self.metrics).map_err(|e| sqlx::Error::Encode(e.into()))
    }
}

fn sums(row: &AnyRow, column: &str) -> Result<Metrics, sqlx::Error> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// A day of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Day {
    /// With what its arm runs; where it takes turns, the candidate's hours.
    pub(crate) part: Part,
    /// Where it takes turns, the base's hours.
    pub(crate) base: Option<Part>,
}

impl Day {
    /// Whether all has reported that is compared.
    fn is_whole(&self) -> bool {
        self.part.reports > 0 && self.base.as_ref().is_none_or(|b| b.reports > 0)
    }
}

/// Adds to a device's day.
pub(crate) async fn add(
    tx: &mut Connection,
    (tenant, rollout, device): (&str, &str, &str),
    (day, closed): (i64, bool),
    more: &Day,
) -> Result<(), sqlx::Error> {
    let row = sqlx::query(
        "SELECT bad, reports, metrics, base_bad, base_reports, base_metrics, late FROM device_days
         WHERE tenant = $1 AND rollout = $2 AND day = $3 AND device = $4",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(device)
    .fetch_optional(&mut *tx)
    .await?;
    let mut now = Day { base: more.base.as_ref().map(|_| Part::default()), ..Day::default() };
    let mut late = 0;
    if let Some(row) = &row {
        now.part = Part::read(row, ["bad", "reports", "metrics"])?;
        if let Some(base) = &mut now.base {
            *base = Part::read(row, ["base_bad", "base_reports", "base_metrics"])?;
        }
        late = row.try_get("late")?;
    }
    let was_whole = now.is_whole();
    now.part.add(&more.part);
    if let (Some(base), Some(more)) = (&mut now.base, &more.base) {
        base.add(more);
    }
    // Of a day that is counted already only a device is counted of which something was missing.
    if closed && !was_whole && now.is_whole() {
        late = LATE;
    }
    let base = now.base.clone().unwrap_or_default();
    sqlx::query(
        "INSERT INTO device_days (tenant, rollout, day, device, bad, reports, metrics, paired, base_bad, base_reports,
         base_metrics, late) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (tenant, rollout, day, device) DO UPDATE SET bad = excluded.bad, reports = excluded.reports,
         metrics = excluded.metrics, paired = excluded.paired, base_bad = excluded.base_bad,
         base_reports = excluded.base_reports, base_metrics = excluded.base_metrics, late = excluded.late",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(device)
    .bind(i64::from(now.part.bad))
    .bind(now.part.reports)
    .bind(now.part.text()?)
    .bind(i64::from(now.base.is_some()))
    .bind(i64::from(base.bad))
    .bind(base.reports)
    .bind(base.text()?)
    .bind(late)
    .execute(tx)
    .await
    .map(drop)
}

/// A day that was counted without reports of this device, which came later and are to be counted.
const LATE: i64 = 1;
/// And now they are.
const COUNTED: i64 = 2;

const SILENT: i64 = 1 << Guardrail::Silence as u8;
const FAILED_START: i64 = 1 << Guardrail::FailedStart as u8;

/// Devices of an arm that were alike on a day. Of those that take turns, `canary` is about the candidate's hours and
/// `control` about the base's; of others only one of the two is used, that of their arm, and it is `canary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alike {
    pub(crate) arm: i64,
    /// By which guardrails they had been bad before.
    pub(crate) was_bad: i64,
    /// By which they were bad on this day.
    pub(crate) bad: Both<i64>,
    /// Whether a report came.
    pub(crate) reported: Both<bool>,
    /// Whether it came after the day was closed.
    pub(crate) late: bool,
    pub(crate) devices: i64,
}

impl Alike {
    fn read(row: &AnyRow, late: bool) -> Result<Self, sqlx::Error> {
        let number = |name: &str| row.try_get::<i64, _>(name);
        // Its silence was counted when the day was closed.
        let silence = if late { SILENT } else { 0 };
        Ok(Self {
            arm: number("arm")?,
            was_bad: number("was_bad")? | silence,
            bad: Both::new(number("bad")?, number("base_bad")?),
            reported: Both::new(number("reported")? != 0, number("base_reported")? != 0),
            late,
            devices: number("devices")?,
        })
    }
}

/// Counts the reports that came after their day was closed, as [`close`] does; of days since `first`.
pub(crate) async fn close_late(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    first: i64,
) -> Result<Vec<Alike>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.arm AS arm, e.was_bad AS was_bad, d.bad AS bad, d.base_bad AS base_bad, CAST(1 AS BIGINT) AS reported,
         d.paired AS base_reported, COUNT(*) AS devices
         FROM device_days d JOIN exposures e ON e.tenant = d.tenant AND e.rollout = d.rollout AND e.device = d.device
         WHERE d.tenant = $1 AND d.rollout = $2 AND d.late = $3 AND d.day >= $4 AND e.arm >= 0
         GROUP BY 1, 2, 3, 4, 5, 6",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(LATE)
    .bind(first)
    .fetch_all(&mut *tx)
    .await?;
    // A device may bring several days: what any of them was bad by.
    let any = [0, 1, 2, 3, 4].map(|bit| format!("MAX((d.bad | d.base_bad) & {})", 1 << bit)).join(" | ");
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE exposures SET was_bad = was_bad | (SELECT {any} FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.late = $3 AND d.device = exposures.device)
         WHERE tenant = $1 AND rollout = $2 AND EXISTS (SELECT 1 FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.late = $3 AND d.device = exposures.device)",
    )))
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
    rows.iter().map(|row| Alike::read(row, true)).collect()
}

/// The devices that had activated before a day ended, by what the day was like; and the day is closed: what they were bad by
/// is remembered. With `paired` it is a day on which devices take turns: only those are counted that do, and those that
/// took the candidate back on this day.
pub(crate) async fn close(
    tx: &mut Connection,
    (tenant, rollout): (&str, &str),
    (day, end): (i64, i64),
    paired: bool,
) -> Result<Vec<Alike>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.arm AS arm, e.was_bad AS was_bad, COALESCE(d.bad, 0) AS bad, COALESCE(d.base_bad, 0) AS base_bad,
         CAST(CASE WHEN COALESCE(d.reports, 0) > 0 THEN 1 ELSE 0 END AS BIGINT) AS reported,
         CAST(CASE WHEN COALESCE(d.base_reports, 0) > 0 THEN 1 ELSE 0 END AS BIGINT) AS base_reported,
         COUNT(*) AS devices
         FROM exposures e LEFT JOIN device_days d
         ON d.tenant = e.tenant AND d.rollout = e.rollout AND d.day = $3 AND d.device = e.device
         WHERE e.tenant = $1 AND e.rollout = $2 AND e.arm >= 0 AND e.activated IS NOT NULL AND e.activated < $4
         AND (CAST($5 AS BIGINT) = 0 OR e.beside = 2 OR (COALESCE(d.bad, 0) & $6) <> 0)
         GROUP BY 1, 2, 3, 4, 5, 6",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(end)
    .bind(i64::from(paired))
    .bind(FAILED_START)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE exposures SET was_bad = was_bad | COALESCE((SELECT d.bad | d.base_bad FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.day = $3 AND d.device = exposures.device),
         0) WHERE tenant = $1 AND rollout = $2 AND arm >= 0 AND EXISTS (SELECT 1 FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.day = $3 AND d.device = exposures.device
         AND (d.bad | d.base_bad) <> 0)",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .execute(&mut *tx)
    .await?;
    // Silence has no row of its own to be remembered from.
    sqlx::query(
        "UPDATE exposures SET was_bad = was_bad | $5 WHERE tenant = $1 AND rollout = $2 AND arm >= 0
         AND activated IS NOT NULL AND activated < $4 AND (CAST($6 AS BIGINT) = 0 OR beside = 2)
         AND NOT EXISTS (SELECT 1 FROM device_days d WHERE
         d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.day = $3 AND d.device = exposures.device
         AND d.reports > 0 AND (d.paired = 0 OR d.base_reports > 0))",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(end)
    .bind(SILENT)
    .bind(i64::from(paired))
    .execute(&mut *tx)
    .await?;
    rows.iter().map(|row| Alike::read(row, false)).collect()
}

/// A device's metrics of a day.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Values {
    pub(crate) arm: i64,
    /// With what its arm runs; where it takes turns, with the candidate.
    pub(crate) metrics: Metrics,
    /// Where it takes turns, with the base.
    pub(crate) base: Option<Metrics>,
}

/// The metrics of devices of which this was the first day that reported all there is to compare; from now on they are
/// counted.
pub(crate) async fn first_values(
    tx: &mut Connection,
    tenant: &str,
    rollout: &str,
    day: i64,
) -> Result<Vec<Values>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.arm AS arm, d.paired AS paired, d.metrics AS metrics, d.base_metrics AS base_metrics
         FROM exposures e JOIN device_days d
         ON d.tenant = e.tenant AND d.rollout = e.rollout AND d.device = e.device
         WHERE e.tenant = $1 AND e.rollout = $2 AND d.day = $3 AND e.arm >= 0 AND e.valued = 0 AND d.reports > 0
         AND (d.paired = 0 OR d.base_reports > 0) AND e.activated IS NOT NULL",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE exposures SET valued = 1 WHERE tenant = $1 AND rollout = $2 AND arm >= 0 AND valued = 0
         AND activated IS NOT NULL AND EXISTS (SELECT 1 FROM device_days d WHERE d.tenant = exposures.tenant
         AND d.rollout = exposures.rollout AND d.day = $3 AND d.device = exposures.device AND d.reports > 0
         AND (d.paired = 0 OR d.base_reports > 0))",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .execute(&mut *tx)
    .await?;
    let values = |row: &AnyRow| {
        let paired: i64 = row.try_get("paired")?;
        let base = if paired != 0 { Some(sums(row, "base_metrics")?) } else { None };
        Ok(Values { arm: row.try_get("arm")?, metrics: sums(row, "metrics")?, base })
    };
    rows.iter().map(values).collect()
}
