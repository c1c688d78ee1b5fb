//! The fleet's health.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;

use dunlin_rollout::Decision;

use super::{Models, heard_since, role};
use crate::auth::Role;
use crate::dashboard::judgement;
use crate::dashboard::page::escape;
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{
    Alert, Chart, Devices, FleetRate, Frame, HealthPage, Line, PLAYBOOK, Rate, RolloutLine, Tone, VersionLine,
};
use crate::store::Connection;
use crate::store::hours::{self, Hour};

/// Hours that rates are of.
const RATES: i64 = 24;
/// Hours that charts show.
const SHOWN: i64 = 72;
/// Versions with a colour of their own; the rest are one line.
const LINES: usize = 7;

async fn devices(connection: &mut Connection, tenant: &str, since: i64) -> Result<Devices, sqlx::Error> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS total, COUNT(CASE WHEN seen = 0 THEN 1 END) AS never,
         COUNT(CASE WHEN seen > 0 AND seen >= $2 THEN 1 END) AS online FROM devices WHERE tenant = $1",
    )
    .bind(tenant)
    .bind(since)
    .fetch_one(connection)
    .await?;
    let number = |name: &str| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    let (all, never, online) = (number("total")?, number("never")?, number("online")?);
    Ok(Devices { all, online, never, silent: all.saturating_sub(online).saturating_sub(never) })
}

fn rate(hours: &[Hour], from: i64, to: i64, part: impl Fn(&Hour) -> (i64, i64)) -> Rate {
    let within = hours.iter().filter(|h| (from..to).contains(&h.hour));
    let (bad, of) =
        within.map(part).fold((0i64, 0i64), |(b, o), (bad, of)| (b.saturating_add(bad), o.saturating_add(of)));
    Rate::new(bad.unsigned_abs(), of.unsigned_abs())
}

fn errors(hour: &Hour) -> (i64, i64) {
    (hour.errors, hour.inferences)
}

fn late(hour: &Hour) -> (i64, i64) {
    (hour.late, hour.inferences)
}

async fn versions(
    connection: &mut Connection,
    tenant: &str,
    since: i64,
    models: &Models,
    recent: &[Hour],
) -> Result<Vec<VersionLine>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT model, running, COUNT(*) AS total, COUNT(CASE WHEN seen > 0 AND seen >= $2 THEN 1 END) AS online
         FROM devices WHERE tenant = $1 GROUP BY model, running ORDER BY COUNT(*) DESC, model, running LIMIT 50",
    )
    .bind(tenant)
    .bind(since)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let (name, running): (String, Option<String>) = (row.try_get("model")?, row.try_get("running")?);
            let (devices, online): (i64, i64) = (row.try_get("total")?, row.try_get("online")?);
            let mine = |part: fn(&Hour) -> (i64, i64)| {
                let of: Vec<Hour> = recent.iter().filter(|h| Some(&h.digest) == running.as_ref()).cloned().collect();
                rate(&of, 0, i64::MAX, part)
            };
            Ok(VersionLine {
                devices: devices.unsigned_abs(),
                online: online.unsigned_abs(),
                errors: mine(errors),
                deadline_misses: mine(late),
                model: running.as_deref().map(|digest| models.of(&name, digest)),
            })
        })
        .collect()
}

/// Returns the packages that have a line of their own: in the order of the table of versions those that run, then those
/// that ran lately. Where there are more than lines, those of rollouts stay: a candidate, or one that was just rolled back,
/// is never among the others.
fn with_a_line(census: &[(i64, String, i64)], versions: &[VersionLine], named: &[String]) -> Vec<String> {
    let mut order: Vec<String> = versions.iter().filter_map(|v| v.model.as_ref()).map(|m| m.digest.clone()).collect();
    for (_, digest, _) in census {
        if !order.contains(digest) {
            order.push(digest.clone());
        }
    }
    let mut spare = order.len().saturating_sub(LINES);
    while spare > 0 {
        let Some(last) = order.iter().rposition(|digest| !named.contains(digest)) else { break };
        order.remove(last);
        spare -= 1;
    }
    order
}

/// Returns candidates and bases of rollouts that devices are told about, the newest first.
async fn of_rollouts(connection: &mut Connection, tenant: &str) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT candidates, base FROM rollouts WHERE tenant = $1 AND live = 1 ORDER BY created DESC LIMIT 3",
    )
    .bind(tenant)
    .fetch_all(connection)
    .await?;
    let mut digests = Vec::new();
    for row in &rows {
        let (candidates, base): (String, Option<String>) = (row.try_get("candidates")?, row.try_get("base")?);
        digests.extend(serde_json::from_str::<Vec<String>>(&candidates).unwrap_or_default());
        digests.extend(base);
    }
    Ok(digests)
}

/// Devices by package and hour, in the order of the table of versions, so that colours agree.
fn versions_over_time(
    census: &[(i64, String, i64)],
    versions: &[VersionLine],
    models: &Models,
    named: &[String],
    (from, to): (i64, i64),
) -> Chart {
    let order = with_a_line(census, versions, named);
    let others: BTreeSet<&str> =
        census.iter().map(|(_, digest, _)| digest.as_str()).filter(|d| !order.iter().any(|o| o == d)).collect();
    let by: BTreeMap<(i64, &str), i64> =
        census.iter().map(|(hour, digest, n)| ((*hour, digest.as_str()), *n)).collect();
    let known: BTreeSet<i64> = census.iter().map(|(hour, ..)| *hour).collect();
    let at = |hour: i64, digest: &str| by.get(&(hour, digest)).map_or(0, |n| *n);
    let line = |name: String, sum: &dyn Fn(i64) -> i64| Line {
        name,
        values: (from..to).map(|hour| known.contains(&hour).then(|| sum(hour) as f64)).collect(),
    };
    let mut lines: Vec<Line> =
        order.iter().map(|digest| line(models.label(digest), &|hour| at(hour, digest))).collect();
    if !others.is_empty() {
        lines.push(line("others".to_owned(), &|hour| others.iter().map(|digest| at(hour, digest)).sum()));
    }
    Chart { times: (from..to).map(|hour| hour * 3600).collect(), lines, stacked: true, ..Chart::default() }
}

fn rates_over_time(shown: &[Hour], from: i64, to: i64) -> Chart {
    let line = |name: &str, part: fn(&Hour) -> (i64, i64)| Line {
        name: name.to_owned(),
        values: (from..to).map(|hour| rate(shown, hour, hour + 1, part).part()).collect(),
    };
    Chart {
        times: (from..to).map(|hour| hour * 3600).collect(),
        lines: vec![line("inference errors", errors), line("deadline misses", late)],
        share: true,
        ..Chart::default()
    }
}

/// How many alerts nobody has acknowledged, but for what went well.
async fn open(connection: &mut Connection, viewer: &Viewer) -> Result<u64, sqlx::Error> {
    let n: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM alerts WHERE tenant = $1 AND acknowledged IS NULL AND kind NOT IN ('completed', 'advance')",
    )
        .bind(&viewer.tenant)
        .fetch_one(connection)
        .await?;
    Ok(n.unsigned_abs())
}

/// Open alerts: the newest first, and what went well behind all others.
async fn alerts(connection: &mut Connection, viewer: &Viewer) -> Result<Vec<Alert>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT n, time, rollout, kind, text, detail FROM alerts WHERE tenant = $1 AND acknowledged IS NULL
         ORDER BY CASE WHEN kind IN ('completed', 'advance') THEN 1 ELSE 0 END, n DESC LIMIT 50",
    )
    .bind(&viewer.tenant)
    .fetch_all(connection)
    .await?;
    let may = role(viewer) >= Role::Operator;
    rows.iter()
        .map(|row| {
            let (n, rollout): (i64, String) = (row.try_get("n")?, row.try_get("rollout")?);
            let (kind, text): (String, String) = (row.try_get("kind")?, row.try_get("text")?);
            let detail: String = row.try_get("detail")?;
            let detail: Detail = serde_json::from_str(&detail).unwrap_or_default();
            Ok(Alert { may_acknowledge: may, ..alert(n, row.try_get("time")?, rollout, &kind, text, detail) })
        })
        .collect()
}

/// What the page reads of an alert.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Detail {
    model: String,
    /// Of a package that drifted.
    digest: Option<String>,
    decision: Option<Decision>,
    playbook: Playbook,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Playbook {
    next: String,
    r#do: String,
}

fn alert(n: i64, time: i64, rollout: String, kind: &str, text: String, detail: Detail) -> Alert {
    let (tone, what) = match kind {
        "rollback" => (Tone::Bad, "rolled back"),
        "pause" => (Tone::Watch, "paused"),
        "approval" => (Tone::Watch, "waits for approval"),
        "completed" => (Tone::Good, "completed"),
        "advance" => (Tone::Good, "entered its next stage"),
        "drift" => (Tone::Bad, ""),
        "drift_cleared" => (Tone::Good, ""),
        _ => (Tone::Watch, ""),
    };
    let title = match &detail.decision {
        Some(decision) if !what.is_empty() => format!("{rollout} ({}) {what}: {}", detail.model, decision.reason),
        _ => text,
    };
    Alert {
        id: n.to_string(),
        tone,
        time,
        title,
        link: match &detail.digest {
            Some(digest) => Some(format!("/drift?model={}", escape(digest))),
            None => (!rollout.is_empty()).then(|| format!("/rollouts/{}", escape(&rollout))),
        },
        numbers: detail.decision.as_ref().map(judgement::numbers).unwrap_or_default(),
        step: PLAYBOOK.iter().position(|step| *step == detail.playbook.next),
        next: if detail.playbook.r#do.is_empty() {
            "look at it, and acknowledge it".to_owned()
        } else {
            detail.playbook.r#do
        },
        may_acknowledge: false,
        actions: Vec::new(),
    }
}

pub(in crate::dashboard) async fn health(
    connection: &mut Connection,
    viewer: &Viewer,
    frame: Frame,
    rollouts: Vec<RolloutLine>,
) -> Result<HealthPage, Trouble> {
    let since = heard_since(connection, viewer, frame.now).await?;
    let models = Models::load(connection, &viewer.tenant).await?;
    let this = frame.now / 3600;
    let mut hours = hours::since(connection, &viewer.tenant, this - SHOWN.max(2 * RATES)).await?;
    // Not over yet, or only just.
    let summed = hours.iter().map(|h| h.hour).max().unwrap_or(this - 1);
    for hour in (summed + 1).max(this - 2)..=this {
        hours.extend(hours::sum(connection, &viewer.tenant, hour).await?);
    }
    let now = this + 1;
    let rates =
        [("Inference errors", errors as fn(&Hour) -> _), ("Deadline misses", late)].map(|(name, part)| FleetRate {
            name,
            unit: "inferences",
            now: rate(&hours, now - RATES, now, part),
            before: rate(&hours, now - 2 * RATES, now - RATES, part),
        });
    let resets = |hour: &Hour| (hour.resets, hour.reports);
    let resets = FleetRate {
        name: "Resets",
        unit: "reports",
        now: rate(&hours, now - RATES, now, resets),
        before: rate(&hours, now - 2 * RATES, now - RATES, resets),
    };
    let recent: Vec<Hour> = hours.iter().filter(|h| h.hour >= now - RATES).cloned().collect();
    let versions = versions(connection, &viewer.tenant, since, &models, &recent).await?;
    let census = hours::census(connection, &viewer.tenant, this - SHOWN).await?;
    let named = of_rollouts(connection, &viewer.tenant).await?;
    let mut alerts = alerts(connection, viewer).await?;
    for alert in &mut alerts {
        let is_its = |line: &&RolloutLine| alert.link.as_deref() == Some(&format!("/rollouts/{}", escape(&line.id)));
        alert.actions = rollouts.iter().find(is_its).map_or_else(Vec::new, |line| line.actions.clone());
    }
    Ok(HealthPage {
        devices: devices(connection, &viewer.tenant, since).await?,
        hours: RATES.unsigned_abs() as u32,
        rates: rates.into_iter().chain([resets]).collect(),
        open: open(connection, viewer).await?,
        alerts,
        rollouts,
        versions_over_time: versions_over_time(&census, &versions, &models, &named, (this - SHOWN, now)),
        rates_over_time: rates_over_time(&hours, this - SHOWN, now),
        versions,
        frame,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_that_nobody_summed_is_not_zero() {
        let hour = |hour: i64, digest: &str, devices: i64| Hour {
            hour,
            digest: digest.to_owned(),
            devices,
            inferences: 100 * devices,
            errors: 1,
            ..Hour::default()
        };
        let hours = [hour(10, "aa", 5), hour(10, "bb", 2), hour(11, "", 0), hour(13, "aa", 4)];
        let model = |digest: &str| VersionLine {
            model: Some(crate::dashboard::view::Model {
                name: "m".to_owned(),
                version: "1".to_owned(),
                digest: digest.to_owned(),
            }),
            devices: 1,
            online: 1,
            errors: Rate::default(),
            deadline_misses: Rate::default(),
        };
        let census = [(10, "aa", 5), (10, "bb", 2), (11, "cc", 0), (13, "aa", 4)];
        let census = census.map(|(hour, digest, n): (i64, &str, i64)| (hour, digest.to_owned(), n));
        let chart = versions_over_time(&census, &[model("aa")], &Models::default(), &[], (10, 14));
        assert_eq!(chart.lines[0].values, [Some(5.0), Some(0.0), None, Some(4.0)]);
        assert_eq!((chart.lines[1].name.as_str(), chart.lines[1].values[0]), ("bb", Some(2.0)), "it ran lately");
        let rates = rates_over_time(&hours, 10, 14);
        assert_eq!(rates.lines[0].values[0], Some(2.0 / 700.0));
        assert_eq!(rates.lines[0].values[1], None);
    }

    #[test]
    fn the_package_of_a_rollout_is_never_among_the_others() {
        let census: Vec<(i64, String, i64)> = (0..12).map(|n| (10, format!("{n:02}"), 5)).collect();
        let named = ["11".to_owned(), "10".to_owned()];
        let order = with_a_line(&census, &[], &named);
        assert_eq!(order.len(), LINES);
        assert!(named.iter().all(|n| order.contains(n)), "{order:?}");
        let chart = versions_over_time(&census, &[], &Models::default(), &named, (10, 11));
        assert_eq!(chart.lines.last().map(|l| (l.name.as_str(), l.values[0])), Some(("others", Some(25.0))));
    }

    #[test]
    fn alerts_say_what_comes_next() {
        let detail = r#"{"model":"m","playbook":{"next":"capture","do":"capture inputs"}}"#;
        let detail = serde_json::from_str(detail).expect("a detail");
        let alert = alert(3, 5, "r 1".to_owned(), "rollback", "m was rolled back".to_owned(), detail);
        assert_eq!((alert.tone, alert.step, alert.next.as_str()), (Tone::Bad, Some(1), "capture inputs"));
        assert_eq!(alert.link.as_deref(), Some("/rollouts/r%201"));
    }
}
