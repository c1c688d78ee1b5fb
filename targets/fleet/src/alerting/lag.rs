//! Whether the server keeps up: decisions that are overdue, polls that wait, and how long they take.

use serde_json::json;

use super::rule::{Outcome, Wording};
use crate::metrics::Histogram;
use crate::server::App;
use crate::store::alerts::Severity;
use crate::store::samples::{Evaluation, Status};
use crate::store::{Connection, rollouts};

pub(super) const RULE: &str = "server_lag";
/// Seconds that a decision may be overdue.
pub(crate) const DECISION: i64 = 900;
/// Part of the queue of polls that may be in use.
const QUEUE: f64 = 0.5;
/// Milliseconds within which 95 % of the polls have to be answered.
const POLL_MILLIS: i64 = 2000;
/// Polls between two evaluations from which on their latency says anything.
const MIN_POLLS: u64 = 20;
/// Seconds after a day's end at which it is decided about at the earliest.
const GRACE: i64 = 60;

/// What an evaluation before saw.
#[derive(Debug)]
pub(super) struct Memory {
    /// Tells this replica from others.
    replica: String,
    polls: Vec<u64>,
}

impl Default for Memory {
    fn default() -> Self {
        let mut bytes = [0; 4];
        // Without randomness replicas share a name, and the last one to evaluate is heard.
        let _ = getrandom::fill(&mut bytes);
        Self { replica: crate::hex(&bytes), polls: Vec::new() }
    }
}

/// How this replica answers polls.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    replica: String,
    queue: (usize, usize),
    /// Milliseconds within which 95 % of the polls since the last evaluation were answered; nothing: too few.
    p95_millis: Option<i64>,
}

impl Memory {
    pub(super) fn requests(&mut self, app: &App) -> Requests {
        let polls = app.metrics.poll_seconds.counts();
        let fresh: Vec<u64> =
            polls.iter().enumerate().map(|(i, n)| n - self.polls.get(i).copied().unwrap_or(0).min(*n)).collect();
        self.polls = polls;
        let micros = Histogram::quantile(&fresh, 0.95).filter(|_| fresh.iter().sum::<u64>() >= MIN_POLLS);
        Requests {
            replica: self.replica.clone(),
            queue: app.ingest.depth(),
            p95_millis: micros.map(|m| i64::try_from(m / 1000).unwrap_or(i64::MAX)),
        }
    }
}

/// Seconds by which the most overdue decision about a tenant's rollouts is late.
pub(crate) async fn decisions(connection: &mut Connection, tenant: &str, now: i64) -> Result<i64, sqlx::Error> {
    let live = rollouts::live(connection, tenant).await?;
    let under_way = live.iter().filter(|r| r.rollout.phase().is_under_way());
    Ok(under_way.map(|r| now - (r.day_end(r.days) + GRACE)).max().unwrap_or(0).max(0))
}

fn outcome(
    what: &str,
    value: i64,
    most: i64,
    is_known: bool,
    before: Option<&Evaluation>,
    text: String,
    now: i64,
) -> Outcome {
    let was_firing = before.is_some_and(|b| b.status == Status::Firing);
    let fires = if is_known { value > most } else { was_firing };
    let status = match (fires, is_known) {
        (true, _) => Status::Firing,
        (false, true) => Status::Ok,
        (false, false) => Status::NoData,
    };
    let evaluation = Evaluation {
        rule: RULE.to_owned(),
        model: what.to_owned(),
        evaluated: now,
        status,
        bad: value,
        total: 1000,
        threshold: most as f64 / 1000.0,
        baseline: None,
        samples: 0,
        quiet_since: 0,
    };
    let alert = fires.then(|| Wording {
        severity: Severity::Warning,
        detail: json!({
            "rule": RULE, "what": what, "value": value, "threshold": most,
            "next": "look at the server's load, disk and log; add replicas or let devices poll less often",
        }),
        text,
    });
    Outcome { evaluation, alert, resolves: status == Status::Ok }
}

/// The rules about the server's lag.
pub(super) async fn outcomes(
    connection: &mut Connection,
    tenant: &str,
    requests: &Requests,
    before: &[Evaluation],
    now: i64,
) -> Result<Vec<Outcome>, sqlx::Error> {
    let known = |what: &str| before.iter().find(|e| e.rule == RULE && e.model == what);
    let late = decisions(connection, tenant, now).await?;
    let text = format!("decisions about rollouts are {late} seconds late");
    let mut all =
        vec![outcome("decisions", late.saturating_mul(1000), DECISION * 1000, true, known("decisions"), text, now)];
    let (depth, capacity) = requests.queue;
    let what = format!("queue {}", requests.replica);
    let most = (capacity as f64 * QUEUE) as i64;
    let depth = i64::try_from(depth).unwrap_or(i64::MAX);
    let text = format!("{depth} polls wait of the {capacity} that may");
    all.push(outcome(&what, depth, most, capacity > 0, known(&what), text, now));
    let what = format!("polls {}", requests.replica);
    let millis = requests.p95_millis.unwrap_or(0);
    let text = format!("one poll in twenty takes {millis} milliseconds or more");
    all.push(outcome(&what, millis, POLL_MILLIS, requests.p95_millis.is_some(), known(&what), text, now));
    Ok(all)
}
