//! A rollout over time: who runs what, and the candidate against the base.

use std::collections::{BTreeMap, BTreeSet};

use super::Models;
use crate::dashboard::view::{Chart, Figure, HistoryLine, Line, Mark};
use crate::status::LastAction;
use crate::store::hours::{self, Hour};
use crate::store::rollouts::Stored;
use crate::store::{Connection, devices};
use crate::telemetry;

/// Hours that charts show before the start, and after the last act of a rollout that has ended.
const BEFORE: i64 = 6;
const AFTER: i64 = 48;
/// Hours that charts show at most: the last ones.
const SHOWN: i64 = 21 * 24;
/// Points that a line has at most; of more hours several are one point.
const POINTS: i64 = 96;

/// Hours from one on and before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: i64,
    to: i64,
    now: i64,
}

impl Span {
    fn of(stored: &Stored, acts: &[LastAction], now: i64) -> Self {
        let this = now / 3600 + 1;
        let last = acts.first().map_or(stored.entered, |act| act.at).max(stored.entered);
        let to = if stored.rollout.phase().is_under_way() { this } else { this.min(last / 3600 + AFTER) };
        let from = (stored.started / 3600 - BEFORE).max(to - SHOWN);
        Self { from, to, now }
    }

    /// Hours that are one point.
    fn step(self) -> i64 {
        ((self.to - self.from + POINTS - 1) / POINTS).max(1)
    }

    fn points(self) -> impl Iterator<Item = i64> {
        (self.from..self.to).step_by(usize::try_from(self.step()).unwrap_or(1))
    }
}

/// Packages that are compared: their digests and what lines are called.
struct Packages {
    /// The candidates, then the base.
    known: Vec<(String, String)>,
}

impl Packages {
    fn of(stored: &Stored, models: &Models) -> Self {
        let named = |digest: &String, part: &str| {
            (digest.clone(), format!("version {} ({part})", models.of(&stored.name, digest).version))
        };
        let candidates = stored.candidates.iter().map(|digest| named(digest, "candidate"));
        Self { known: candidates.chain(stored.base.iter().map(|digest| named(digest, "base"))).collect() }
    }
}

/// Returns what marks and the history call an act.
fn words(action: &str) -> &str {
    match action {
        "start" => "started",
        "pause" => "paused",
        "resume" => "resumed",
        "abort" | "rollback" => "rolled back",
        "approve" => "approved",
        "approval" => "asked for approval",
        "advance" => "next stage",
        "waive" => "margins waived",
        "retry" => "reset to a draft",
        "completed" => "completed",
        other => other,
    }
}

pub(super) fn history_line(act: &LastAction) -> HistoryLine {
    HistoryLine {
        time: act.at,
        what: words(&act.action).to_owned(),
        who: if act.by == "server" { "the server".to_owned() } else { act.by.clone() },
        reason: act.reason.clone(),
    }
}

fn marks(acts: &[LastAction], span: Span) -> Vec<Mark> {
    let shown = acts.iter().filter(|act| act.at >= span.from * 3600 && act.at < span.to * 3600);
    let mut marks: Vec<Mark> = shown.map(|act| Mark { time: act.at, label: words(&act.action).to_owned() }).collect();
    marks.reverse();
    marks
}

/// Returns the charts of a rollout that has started and of which something is known.
pub(super) async fn charts(
    connection: &mut Connection,
    stored: &Stored,
    models: &Models,
    acts: &[LastAction],
    now: i64,
) -> Result<Vec<Figure>, sqlx::Error> {
    if stored.started == 0 {
        return Ok(Vec::new());
    }
    let span = Span::of(stored, acts, now);
    let packages = Packages::of(stored, models);
    let marks = marks(acts, span);
    let mut hours = hours::between(connection, &stored.tenant, span.from, span.to).await?;
    // Hours that are not over, or only just, are not summed yet.
    let summed = hours.iter().map(|h| h.hour).max().unwrap_or(now / 3600 - 1);
    for hour in (summed + 1).max(now / 3600 - 2)..span.to {
        hours.extend(hours::sum(connection, &stored.tenant, hour).await?);
    }
    let mut figures = vec![Figure {
        id: "adoption",
        title: "Devices by the version they report".to_owned(),
        chart: adoption(connection, stored, models, &packages, span).await?,
    }];
    figures.push(Figure {
        id: "errors",
        title: "Failed inferences, share of all".to_owned(),
        chart: rates(&hours, &packages, span),
    });
    figures.push(Figure {
        id: "latency",
        title: "Latency of inferences, median and 95th percentile".to_owned(),
        chart: latencies(&hours, &packages, span),
    });
    figures.retain(|figure| !figure.chart.is_empty());
    figures.iter_mut().for_each(|figure| figure.chart.marks.clone_from(&marks));
    Ok(figures)
}

async fn adoption(
    connection: &mut Connection,
    stored: &Stored,
    models: &Models,
    packages: &Packages,
    span: Span,
) -> Result<Chart, sqlx::Error> {
    let mut census = hours::census(connection, &stored.tenant, span.from).await?;
    census.retain(|(hour, digest, _)| *hour < span.to && models.is_of(&stored.name, digest));
    let mut moments: BTreeMap<i64, BTreeMap<String, i64>> = BTreeMap::new();
    for (hour, digest, devices) in census {
        moments.entry(hour * 3600).or_default().insert(digest, devices);
    }
    if span.to * 3600 > span.now {
        // The chart ends with what the page's tables say.
        let current = devices::census(connection, &stored.tenant, &stored.name).await?;
        moments.insert(span.now, current.into_iter().collect());
    }
    let all: BTreeSet<&String> = moments.values().flat_map(BTreeMap::keys).collect();
    let is_known = |digest: &str| packages.known.iter().any(|(known, _)| known == digest);
    let line = |name: &str, is: &dyn Fn(&str) -> bool| Line {
        name: name.to_owned(),
        values: moments
            .values()
            .map(|at| Some(at.iter().filter(|(digest, _)| is(digest)).map(|(_, n)| *n).sum::<i64>() as f64))
            .collect(),
    };
    let mut lines: Vec<Line> =
        packages.known.iter().map(|(digest, name)| line(name, &|other| other == digest)).collect();
    if all.iter().any(|digest| !is_known(digest)) {
        lines.push(line("other versions", &|digest| !is_known(digest)));
    }
    Ok(Chart { times: moments.keys().copied().collect(), lines, stacked: true, ..Chart::default() })
}

fn rates(hours: &[Hour], packages: &Packages, span: Span) -> Chart {
    let line = |(digest, name): &(String, String)| Line {
        name: name.clone(),
        values: span
            .points()
            .map(|from| {
                let point = from..from + span.step();
                let of = hours.iter().filter(|h| point.contains(&h.hour) && h.digest == *digest);
                let (errors, inferences) =
                    of.fold((0i64, 0i64), |(e, n), h| (e.saturating_add(h.errors), n.saturating_add(h.inferences)));
                (inferences > 0).then(|| errors as f64 / inferences as f64)
            })
            .collect(),
    };
    let lines = packages.known.iter().map(line).collect();
    Chart { times: span.points().map(|hour| hour * 3600).collect(), lines, share: true, ..Chart::default() }
}

fn latencies(hours: &[Hour], packages: &Packages, span: Span) -> Chart {
    let mut lines = Vec::new();
    for (digest, name) in &packages.known {
        let points: Vec<Vec<u64>> = span
            .points()
            .map(|from| {
                let point = from..from + span.step();
                let mut sum = Hour::default();
                for hour in hours.iter().filter(|h| point.contains(&h.hour) && h.digest == *digest) {
                    sum.add_latency(0, hour.latency.iter().copied());
                }
                sum.latency
            })
            .collect();
        for (percent, words) in [(50, "median"), (95, "95th percentile")] {
            lines.push(Line {
                name: format!("{name}, {words}"),
                values: points.iter().map(|counts| telemetry::percentile_of(counts, percent)).collect(),
            });
        }
    }
    Chart { times: span.points().map(|hour| hour * 3600).collect(), lines, micros: true, ..Chart::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(hour: i64, digest: &str, inferences: i64, errors: i64, bucket: usize) -> Hour {
        let mut of = Hour { hour, digest: digest.to_owned(), inferences, errors, ..Hour::default() };
        of.add_latency(bucket, [inferences.unsigned_abs()].into_iter());
        of
    }

    fn packages() -> Packages {
        let named = |digest: &str, name: &str| (digest.to_owned(), name.to_owned());
        Packages { known: vec![named("new", "version 3 (candidate)"), named("old", "version 2 (base)")] }
    }

    #[test]
    fn the_candidate_and_the_base_are_apart() {
        let hours = [hour(10, "new", 100, 80, 50), hour(10, "old", 1000, 5, 40), hour(12, "old", 500, 0, 40)];
        let span = Span { from: 10, to: 13, now: 13 * 3600 };
        let chart = rates(&hours, &packages(), span);
        assert_eq!(chart.lines[0].values, [Some(0.8), None, None]);
        assert_eq!(chart.lines[1].values, [Some(0.005), None, Some(0.0)]);
        let chart = latencies(&hours, &packages(), span);
        assert_eq!(chart.lines.len(), 4);
        let (new, old) = (chart.lines[0].values[0], chart.lines[2].values[0]);
        assert!(new > old && old > Some(0.0), "{new:?} {old:?}");
    }

    #[test]
    fn long_rollouts_have_fewer_points_than_hours() {
        let span = Span { from: 0, to: SHOWN, now: SHOWN * 3600 };
        assert!(span.points().count() as i64 <= POINTS);
        // Every hour is in a point.
        let last = span.points().last().expect("a point");
        assert!(last + span.step() >= SHOWN);
    }
}
