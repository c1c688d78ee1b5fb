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
use crate::store::alerts::Severity;
use crate::store::hours::{self, Hour};
use crate::store::{self, Connection};

/// Hours that rates are of.
const RATES: i64 = 24;
/// Hours that charts show.
const SHOWN: i64 = 72;
/// Versions with a colour of their own; the rest are one line.
const LINES: usize = 7;
/// Seconds for which the packages of a rollout that ended have a line of their own, whatever devices run.
const PINNED: i64 = SHOWN * 3600;

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
                place: LINES,
                model: running.as_deref().map(|digest| models.of(&name, digest)),
            })
        })
        .collect()
}

/// Candidates of rollouts that are under way or ended lately: they are never one of the others.
async fn pinned(connection: &mut Connection, tenant: &str, now: i64) -> Result<Vec<String>, sqlx::Error> {
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT candidates FROM rollouts WHERE tenant = $1 AND started > 0
         AND (live = 1 OR entered >= $2) ORDER BY entered DESC LIMIT 7",
    )
    .bind(tenant)
    .bind(now - PINNED)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().flat_map(|text| serde_json::from_str::<Vec<String>>(text).unwrap_or_default()).collect())
}

/// The digests with a line of their own: those of rollouts, and those that most devices run.
fn order(versions: &[VersionLine], pinned: &[String], census: &[(i64, String, i64)]) -> Vec<String> {
    let running = versions.iter().filter_map(|v| v.model.as_ref()).map(|m| m.digest.as_str());
    let is_shown = |digest: &&String| census.iter().any(|(_, d, n)| d == *digest && *n > 0);
    let mut kept: Vec<&str> = pinned.iter().filter(is_shown).map(String::as_str).take(LINES - 1).collect();
    for digest in running.clone() {
        if kept.len() < LINES && !kept.contains(&digest) {
            kept.push(digest);
        }
    }
    // What ran lately has a line while there is room.
    for (_, digest, devices) in census {
        if kept.len() < LINES && *devices > 0 && !kept.contains(&digest.as_str()) {
            kept.push(digest);
        }
    }
    // In the order of the table, so that most devices are at the bottom of the chart, and what runs nowhere any more last.
    let mut all: Vec<String> = running.clone().filter(|d| kept.contains(d)).map(str::to_owned).collect();
    all.extend(kept.iter().filter(|d| !running.clone().any(|r| r == **d)).map(|d| (*d).to_owned()));
    all
}

/// The census with the devices of now in the place of the current hour's, which was taken when it began.
fn with_now(mut census: Vec<(i64, String, i64)>, versions: &[VersionLine], this: i64) -> Vec<(i64, String, i64)> {
    census.retain(|(hour, ..)| *hour != this);
    for line in versions {
        if let Some(model) = &line.model {
            census.push((this, model.digest.clone(), i64::try_from(line.devices).unwrap_or(i64::MAX)));
        }
    }
    census
}

/// Devices by package and hour.
fn versions_over_time(census: &[(i64, String, i64)], order: &[String], models: &Models, from: i64, to: i64) -> Chart {
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

/// How many alerts are open.
async fn open(connection: &mut Connection, viewer: &Viewer) -> Result<u64, sqlx::Error> {
    let counts = store::alerts::count_open(connection, &viewer.tenant).await?;
    Ok(counts.iter().map(|(_, _, n)| n.unsigned_abs()).sum())
}

/// Open alerts: the most severe and of these the newest first, and news that nobody acknowledged behind all others.
async fn alerts(connection: &mut Connection, viewer: &Viewer) -> Result<Vec<Alert>, sqlx::Error> {
    let found = store::alerts::unsettled(connection, &viewer.tenant, 50).await?;
    let may = role(viewer) >= Role::Operator;
    let shown = found.into_iter().map(|of| {
        let detail: Detail = serde_json::from_str(&of.detail).unwrap_or_default();
        let may_acknowledge = may && of.acknowledged.is_none();
        let mut shown = Alert { may_acknowledge, ..alert(of.n, of.time, of.rollout, &of.kind, of.text, detail) };
        if !of.key.is_empty() {
            shown.tone = if of.severity == Severity::Critical { Tone::Bad } else { Tone::Watch };
            shown.link = shown.link.or_else(|| place(&of.kind));
        }
        if let (Some(time), Some(who)) = (of.acknowledged, of.acknowledged_by) {
            shown.looked_after = Some((time, who));
        }
        shown
    });
    Ok(shown.collect())
}

/// Where to look for what a rule saw.
fn place(rule: &str) -> Option<String> {
    match rule {
        "silent" => Some("/devices?state=silent".to_owned()),
        "serving_stopped" => Some("/flags".to_owned()),
        "enrolments" | "device_quota" => Some("/devices".to_owned()),
        _ => None,
    }
}

/// What the page reads of an alert.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Detail {
    model: Option<String>,
    /// Of a condition what to do.
    next: Option<String>,
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

pub(super) fn alert(n: i64, time: i64, rollout: String, kind: &str, text: String, detail: Detail) -> Alert {
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
        Some(decision) if !what.is_empty() => {
            format!("{rollout} ({}) {what}: {}", detail.model.as_deref().unwrap_or_default(), decision.reason)
        }
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
        next: if let Some(next) = detail.next {
            next
        } else if detail.playbook.r#do.is_empty() {
            "look at it, and acknowledge it".to_owned()
        } else {
            detail.playbook.r#do
        },
        may_acknowledge: false,
        looked_after: None,
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
    let mut versions = versions(connection, &viewer.tenant, since, &models, &recent).await?;
    let census = with_now(hours::census(connection, &viewer.tenant, this - SHOWN).await?, &versions, this);
    let order = order(&versions, &pinned(connection, &viewer.tenant, frame.now).await?, &census);
    for line in &mut versions {
        let place = line.model.as_ref().and_then(|m| order.iter().position(|digest| *digest == m.digest));
        line.place = place.unwrap_or(LINES);
    }
    let mut alerts = alerts(connection, viewer).await?;
    for alert in &mut alerts {
        let is_its = |line: &&RolloutLine| alert.link.as_deref() == Some(&format!("/rollouts/{}", escape(&line.id)));
        alert.actions = rollouts.iter().find(is_its).map_or_else(Vec::new, |line| line.actions.clone());
    }
    Ok(HealthPage {
        calm: super::operate::calm(connection, viewer, frame.now).await?,
        devices: devices(connection, &viewer.tenant, since).await?,
        hours: RATES.unsigned_abs() as u32,
        rates: rates.into_iter().chain([resets]).collect(),
        open: open(connection, viewer).await?,
        alerts,
        rollouts,
        versions_over_time: versions_over_time(&census, &order, &models, this - SHOWN, now),
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
            place: LINES,
        };
        let census = [(10, "aa", 5), (10, "bb", 2), (11, "cc", 0), (13, "aa", 4)];
        let census = census.map(|(hour, digest, n): (i64, &str, i64)| (hour, digest.to_owned(), n));
        let order = order(&[model("aa")], &[], &census);
        let chart = versions_over_time(&census, &order, &Models::default(), 10, 14);
        assert_eq!(chart.lines[0].values, [Some(5.0), Some(0.0), None, Some(4.0)]);
        assert_eq!((chart.lines[1].name.as_str(), chart.lines[1].values[0]), ("bb", Some(2.0)), "it ran lately");
        let rates = rates_over_time(&hours, 10, 14);
        assert_eq!(rates.lines[0].values[0], Some(2.0 / 700.0));
        assert_eq!(rates.lines[0].values[1], None);
    }

    #[test]
    fn what_was_rolled_back_is_not_one_of_the_others() {
        let line = |digest: &str, devices: u64| VersionLine {
            model: Some(crate::dashboard::view::Model {
                name: "m".to_owned(),
                version: "1".to_owned(),
                digest: digest.to_owned(),
            }),
            devices,
            online: devices,
            errors: Rate::default(),
            deadline_misses: Rate::default(),
            place: LINES,
        };
        let names: Vec<String> = (0..12).map(|i| format!("d{i:02}")).collect();
        let versions: Vec<VersionLine> = names.iter().zip(1..).map(|(d, i)| line(d, 100 - i)).collect();
        let census: Vec<(i64, String, i64)> =
            names.iter().map(|d| (5, d.clone(), 9)).chain([(5, "back".to_owned(), 3)]).collect();
        // One runs on few devices still, another nowhere any more, a third never ran.
        let pinned = ["d11", "back", "never"].map(str::to_owned);
        let order = order(&versions, &pinned, &census);
        assert_eq!(order, ["d00", "d01", "d02", "d03", "d04", "d11", "back"]);
        // The chart ends with the numbers of the table.
        let census = with_now(census, &versions, 6);
        let chart = versions_over_time(&census, &order, &Models::default(), 5, 7);
        let last: Vec<Option<f64>> = chart.lines.iter().map(|l| l.values[1]).collect();
        assert_eq!(
            (last[0], last[5], last[6], chart.lines[7].name.as_str()),
            (Some(99.0), Some(88.0), Some(0.0), "others")
        );
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
