//! What the days of a rollout's devices were like. A device that takes turns has both halves of its day in one row.

use dunlin_rollout::{Both, Guardrail};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::Connection;
use super::rollouts::DAY;
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
        self.bad |= other.bad;
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
    /// Where it takes turns, the base's hours. Where not, whatever else it reported: that it is there, and what it was bad by
    /// without the candidate.
    pub(crate) base: Part,
    /// Whether it takes turns.
    pub(crate) paired: bool,
}

/// Adds to a device's day. What is added is counted when the day is closed, and with the next one if it is already.
pub(crate) async fn add(
    tx: &mut Connection,
    (tenant, rollout, device): (&str, &str, &str),
    day: i64,
    more: &Day,
) -> Result<(), sqlx::Error> {
    let row = sqlx::query(
        "SELECT bad, reports, metrics, base_bad, base_reports, base_metrics FROM device_days
         WHERE tenant = $1 AND rollout = $2 AND day = $3 AND device = $4",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(device)
    .fetch_optional(&mut *tx)
    .await?;
    let (mut part, mut base) = (Part::default(), Part::default());
    if let Some(row) = &row {
        part = Part::read(row, ["bad", "reports", "metrics"])?;
        base = Part::read(row, ["base_bad", "base_reports", "base_metrics"])?;
    }
    part.add(&more.part);
    base.add(&more.base);
    sqlx::query(
        "INSERT INTO device_days (tenant, rollout, day, device, bad, reports, metrics, paired, base_bad, base_reports,
         base_metrics, pending) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1)
         ON CONFLICT (tenant, rollout, day, device) DO UPDATE SET bad = excluded.bad, reports = excluded.reports,
         metrics = excluded.metrics, paired = excluded.paired, base_bad = excluded.base_bad,
         base_reports = excluded.base_reports, base_metrics = excluded.base_metrics, pending = 1",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(device)
    .bind(i64::from(part.bad))
    .bind(part.reports)
    .bind(part.text()?)
    .bind(i64::from(more.paired))
    .bind(i64::from(base.bad))
    .bind(base.reports)
    .bind(base.text()?)
    .execute(tx)
    .await
    .map(drop)
}

const SILENT: i64 = 1 << Guardrail::Silence as u8;
const FAILED_START: i64 = 1 << Guardrail::FailedStart as u8;

/// Devices of an arm that were alike on a day. Of those that take turns, `canary` is about the candidate's hours and
/// `control` about the base's; of others `canary` is about what their arm runs, and `control` about anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alike {
    pub(crate) arm: i64,
    /// By which guardrails they had been bad before in this stage.
    pub(crate) was_bad: i64,
    /// By which they were bad on this day.
    pub(crate) bad: Both<i64>,
    /// Whether a report came.
    pub(crate) reported: Both<bool>,
    /// Whether a report came on the last days; nothing when the device is not asked, or was not there for so long.
    pub(crate) heard: Option<Both<bool>>,
    /// Whether they had what their arm runs before the day began.
    pub(crate) settled: bool,
    /// Whether something came after the day was closed.
    pub(crate) late: bool,
    /// Whether the day was counted as one that reported, before that.
    pub(crate) told: bool,
    pub(crate) devices: i64,
}

impl Alike {
    fn read(row: &AnyRow, late: bool) -> Result<Self, sqlx::Error> {
        let number = |name: &str| row.try_get::<i64, _>(name);
        let both = |a: &str, b: &str| Ok::<_, sqlx::Error>(Both::new(number(a)? != 0, number(b)? != 0));
        // Silence was judged when the day was closed.
        let heard = if !late && number("asked")? != 0 { Some(both("heard", "base_heard")?) } else { None };
        Ok(Self {
            arm: number("arm")?,
            was_bad: number("was_bad")?,
            bad: Both::new(number("bad")?, number("base_bad")?),
            reported: both("reported", "base_reported")?,
            heard,
            settled: !late && number("settled")? != 0,
            late,
            told: late && number("told")? != 0,
            devices: number("devices")?,
        })
    }
}

/// Which day is closed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    /// Its number, and the first of the epoch: what comes late counts from there on.
    pub(crate) day: i64,
    pub(crate) epoch_day: i64,
    /// When the stage began, the day, and when it ended. Who has what its arm runs before the day begins should report.
    pub(crate) entered: i64,
    pub(crate) begin: i64,
    pub(crate) end: i64,
    /// Whether the day has ended. Of a part of a day nothing is expected.
    pub(crate) whole: bool,
    /// Who joined until then is asked whether it is silent; nothing: nobody is.
    pub(crate) asked: Option<i64>,
    /// Days that a silent device has said nothing on.
    pub(crate) silence: i64,
    /// Whether it is a day on which devices take turns. Only devices are counted that have done so since `begin`, because
    /// shorter times need not be of both packages and the first report may be about the trial too, and those that took the
    /// candidate back on this day.
    pub(crate) paired: bool,
}

impl Closing {
    /// The days that silence is about, for SQL.
    fn window(&self) -> String {
        let days: Vec<String> = (0..self.silence.max(1)).map(|back| (self.day - back).to_string()).collect();
        days.join(", ")
    }
}

/// The part of the devices that keep what they have, and joined before a day began, that reported on it. Nothing without
/// such devices.
pub(crate) async fn heard(
    tx: &mut Connection,
    (tenant, rollout): (&str, &str),
    closing: &Closing,
) -> Result<Option<f64>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS devices, COUNT(d.device) AS heard FROM exposures e LEFT JOIN device_days d
         ON d.tenant = e.tenant AND d.rollout = e.rollout AND d.day = $3 AND d.device = e.device
         AND d.reports + d.base_reports > 0
         WHERE e.tenant = $1 AND e.rollout = $2 AND e.arm = 0 AND e.joined >= $4 AND e.joined <= $5",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(closing.day)
    .bind(closing.entered)
    .bind(closing.asked.unwrap_or(closing.begin))
    .fetch_one(tx)
    .await?;
    let (devices, heard): (i64, i64) = (row.try_get("devices")?, row.try_get("heard")?);
    Ok((devices > 0).then(|| heard as f64 / devices as f64))
}

/// The devices that had joined before a day ended, by what the day was like, with what came late of days before; and the day
/// is closed: what they were bad by is remembered.
pub(crate) async fn close(
    tx: &mut Connection,
    (tenant, rollout): (&str, &str),
    of: &Closing,
) -> Result<Vec<Alike>, sqlx::Error> {
    if tx.backend_name() == "PostgreSQL" {
        // In the order in which polls take them: then neither waits for the other in a circle, and no poll is half written.
        sqlx::query("SELECT 1 FROM exposures WHERE tenant = $1 AND rollout = $2 ORDER BY device FOR UPDATE")
            .bind(tenant)
            .bind(rollout)
            .execute(&mut *tx)
            .await?;
    }
    // What is counted now is marked first: what comes in between is counted the next time.
    sqlx::query(
        "UPDATE device_days SET pending = 2 WHERE tenant = $1 AND rollout = $2 AND pending > 0 AND pending = 1
         AND day >= $3 AND day <= $4",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(of.epoch_day)
    .bind(of.day)
    .execute(&mut *tx)
    .await?;
    // Day by day, so that each device counts until its first bad one.
    let mut alike = Vec::new();
    let late_days: Vec<i64> = sqlx::query_scalar(
        "SELECT DISTINCT day FROM device_days WHERE tenant = $1 AND rollout = $2 AND pending > 0 AND pending = 2
         AND day < $3 ORDER BY day",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(of.day)
    .fetch_all(&mut *tx)
    .await?;
    for day in late_days {
        alike.extend(late(tx, (tenant, rollout), day, of).await?);
        remember(tx, (tenant, rollout), day, of).await?;
    }
    alike.extend(on_day(tx, (tenant, rollout), of).await?);
    remember(tx, (tenant, rollout), of.day, of).await?;
    remember_silence(tx, (tenant, rollout), of).await?;
    sqlx::query(
        "UPDATE device_days SET pending = 0, told = CASE WHEN reports > 0 AND (paired = 0 OR base_reports > 0) THEN 1
         ELSE told END WHERE tenant = $1 AND rollout = $2 AND pending > 0 AND pending = 2",
    )
    .bind(tenant)
    .bind(rollout)
    .execute(tx)
    .await?;
    Ok(alike)
}

async fn on_day(tx: &mut Connection, (tenant, rollout): (&str, &str), of: &Closing) -> Result<Vec<Alike>, sqlx::Error> {
    let flag = |condition: &str| format!("CAST(CASE WHEN {condition} THEN 1 ELSE 0 END AS BIGINT)");
    let text = format!(
        "SELECT e.arm AS arm, e.was_bad AS was_bad, COALESCE(d.bad, 0) AS bad, COALESCE(d.base_bad, 0) AS base_bad,
         {} AS reported, {} AS base_reported, {} AS heard, {} AS base_heard, {} AS asked, {} AS settled,
         COUNT(*) AS devices
         FROM exposures e LEFT JOIN device_days d
         ON d.tenant = e.tenant AND d.rollout = e.rollout AND d.day = $3 AND d.device = e.device
         AND d.pending > 0 AND d.pending = 2
         LEFT JOIN (SELECT device, MAX(reports) AS reports, MAX(base_reports) AS base_reports FROM device_days
         WHERE tenant = $1 AND rollout = $2 AND day IN ({}) GROUP BY device) w ON w.device = e.device
         WHERE e.tenant = $1 AND e.rollout = $2 AND e.arm >= 0 AND e.joined >= $4 AND e.joined < $6
         AND (CAST($8 AS BIGINT) = 0 OR e.beside = 2 AND e.activated <= $5 OR (COALESCE(d.bad, 0) & $9) <> 0)
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
        flag("COALESCE(d.reports, 0) > 0"),
        flag("COALESCE(d.base_reports, 0) > 0"),
        flag("COALESCE(w.reports, 0) > 0"),
        flag("COALESCE(w.base_reports, 0) > 0"),
        flag("e.joined <= $7"),
        flag(if of.whole { "e.activated IS NOT NULL AND e.activated <= $5" } else { "1 = 0" }),
        of.window(),
    );
    // Its only parts are numbers and this program's own.
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(tenant)
        .bind(rollout)
        .bind(of.day)
        .bind(of.entered)
        .bind(of.begin)
        .bind(of.end)
        .bind(of.asked.unwrap_or(i64::MIN))
        .bind(i64::from(of.paired))
        .bind(FAILED_START)
        .fetch_all(tx)
        .await?;
    rows.iter().map(|row| Alike::read(row, false)).collect()
}

/// What came of a day that is closed. A day of another stage counts if it was like this one's.
async fn late(
    tx: &mut Connection,
    (tenant, rollout): (&str, &str),
    day: i64,
    of: &Closing,
) -> Result<Vec<Alike>, sqlx::Error> {
    let begin = of.begin.saturating_sub((of.day - day) * DAY);
    let rows = sqlx::query(
        "SELECT e.arm AS arm, e.was_bad AS was_bad, d.bad AS bad, d.base_bad AS base_bad,
         CAST(CASE WHEN d.reports > 0 THEN 1 ELSE 0 END AS BIGINT) AS reported,
         CAST(CASE WHEN d.base_reports > 0 THEN 1 ELSE 0 END AS BIGINT) AS base_reported, d.told AS told,
         COUNT(*) AS devices
         FROM device_days d JOIN exposures e ON e.tenant = d.tenant AND e.rollout = d.rollout AND e.device = d.device
         WHERE d.tenant = $1 AND d.rollout = $2 AND d.pending > 0 AND d.pending = 2 AND d.day = $3 AND d.paired = $4
         AND e.arm >= 0 AND (d.paired = 0 OR e.activated <= $5) GROUP BY 1, 2, 3, 4, 5, 6, 7",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(i64::from(of.paired))
    .bind(begin)
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Alike::read(row, true)).collect()
}

/// Remembers what devices were bad by on a day, whatever they ran. Of devices that take turns only what was counted: who is bad
/// on the day that it joins, or in one half of which the other is not known, still counts on its first whole day.
async fn remember(
    tx: &mut Connection,
    (tenant, rollout): (&str, &str),
    day: i64,
    of: &Closing,
) -> Result<(), sqlx::Error> {
    let begin = of.begin.saturating_sub((of.day - day) * DAY);
    let counted = "FROM device_days d WHERE d.tenant = exposures.tenant AND d.rollout = exposures.rollout
         AND d.device = exposures.device AND d.pending > 0 AND d.pending = 2 AND d.day = $3";
    let bits = "(d.bad | d.base_bad) & CASE WHEN d.paired = 0
         OR exposures.activated <= $4 AND d.reports > 0 AND d.base_reports > 0 THEN -1 ELSE $5 END";
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE exposures SET was_bad = was_bad | (SELECT {bits} {counted})
         WHERE tenant = $1 AND rollout = $2 AND EXISTS (SELECT 1 {counted} AND ({bits}) <> 0)"
    )))
    .bind(tenant)
    .bind(rollout)
    .bind(day)
    .bind(begin)
    .bind(FAILED_START)
    .execute(tx)
    .await
    .map(drop)
}

/// Remembers who was silent, which has no row of its own to be remembered from.
async fn remember_silence(
    tx: &mut Connection,
    (tenant, rollout): (&str, &str),
    of: &Closing,
) -> Result<(), sqlx::Error> {
    let Some(asked) = of.asked else { return Ok(()) };
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE exposures SET was_bad = was_bad | $3 WHERE tenant = $1 AND rollout = $2 AND arm >= 0
         AND joined >= $4 AND joined <= $5 AND (was_bad & $3) = 0
         AND (CAST($6 AS BIGINT) = 0 OR beside = 2 AND activated <= $7)
         AND NOT EXISTS (SELECT 1 FROM device_days d WHERE d.tenant = exposures.tenant
         AND d.rollout = exposures.rollout AND d.day IN ({}) AND d.device = exposures.device
         AND CASE WHEN d.paired = 0 THEN d.reports + d.base_reports > 0 ELSE d.reports > 0 AND d.base_reports > 0 END)",
        of.window()
    )))
    .bind(tenant)
    .bind(rollout)
    .bind(SILENT)
    .bind(of.entered)
    .bind(asked)
    .bind(i64::from(of.paired))
    .bind(of.begin)
    .execute(tx)
    .await
    .map(drop)
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
/// counted. Of those that take turns, the first whole day.
pub(crate) async fn first_values(
    tx: &mut Connection,
    (tenant, rollout): (&str, &str),
    of: &Closing,
) -> Result<Vec<Values>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.arm AS arm, d.paired AS paired, d.metrics AS metrics, d.base_metrics AS base_metrics
         FROM exposures e JOIN device_days d
         ON d.tenant = e.tenant AND d.rollout = e.rollout AND d.device = e.device
         WHERE e.tenant = $1 AND e.rollout = $2 AND d.day = $3 AND e.arm >= 0 AND e.valued = 0 AND d.reports > 0
         AND (d.paired = 0 OR d.base_reports > 0 AND e.activated <= $4)",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(of.day)
    .bind(of.begin)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE exposures SET valued = 1 WHERE tenant = $1 AND rollout = $2 AND arm >= 0 AND valued = 0
         AND EXISTS (SELECT 1 FROM device_days d
         WHERE d.tenant = exposures.tenant AND d.rollout = exposures.rollout AND d.day = $3
         AND d.device = exposures.device AND d.reports > 0
         AND (d.paired = 0 OR d.base_reports > 0 AND exposures.activated <= $4))",
    )
    .bind(tenant)
    .bind(rollout)
    .bind(of.day)
    .bind(of.begin)
    .execute(&mut *tx)
    .await?;
    let values = |row: &AnyRow| {
        let paired: i64 = row.try_get("paired")?;
        let base = if paired != 0 { Some(sums(row, "base_metrics")?) } else { None };
        Ok(Values { arm: row.try_get("arm")?, metrics: sums(row, "metrics")?, base })
    };
    rows.iter().map(values).collect()
}
