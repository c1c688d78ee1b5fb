//! Where a rollout is, why, and what comes next: from the store to [`crate::status`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dunlin_rollout::evidence::{Guardrail, Hop};
use dunlin_rollout::gate::{Hard, Soft};
use dunlin_rollout::rollout::{Decision, Exposure, Reason, Stage};
use dunlin_rollout::{Phase, Share};
use serde_json::Value;
use sqlx::Row as _;

use crate::dashboard::figure;
use crate::decide::GRACE;
use crate::status::{
    Agreement, ArmDevices, Arms, Bounds, GuardrailStatus, LastAction, MetricStatus, Need, NeedKind, Pair,
    RollbackProgress, StageStatus, Status,
};
use crate::store::exposures::{self, CONTROL, REST, Way};
use crate::store::rollouts::Stored;
use crate::store::{Connection, recalls, signed, unsigned};

/// Returns a rollout's state for people and programs.
pub(crate) async fn status(connection: &mut Connection, stored: &Stored, now: i64) -> Result<Status, sqlx::Error> {
    let (tenant, id) = (stored.tenant.as_str(), stored.id.as_str());
    let rollout = &stored.rollout;
    let decision = rollout.judge(&stored.evidence, unsigned(now));
    let ways = exposures::ways(connection, tenant, id, i64::MAX, 0).await?;
    let last_action = last_action(connection, tenant, id).await?;
    let recall = Recall::load(connection, stored, last_action.as_ref(), now).await?;
    let needs = needs(stored, &decision);
    let mut status = Status {
        id: stored.id.clone(),
        model: stored.name.clone(),
        candidates: stored.candidates.clone(),
        versions: versions(connection, stored).await?,
        base: stored.base.clone(),
        base_version: version(connection, tenant, stored.base.as_deref()).await?,
        irreversible: stored.irreversible(),
        phase: rollout.phase(),
        stage: rollout.stage(),
        stage_number: stage_number(rollout.stage()),
        attempt: rollout.attempt(),
        stages: stages(rollout.plan()),
        as_of: now,
        entered: stored.entered,
        started_by: stored.started_by.clone(),
        status_line: String::new(),
        last_action,
        verdict: String::new(),
        next_decision_at: next_decision(stored, &needs, now),
        needs,
        planned: planned(connection, stored).await?,
        sequence: stored.sequence,
        request: serde_json::from_str(&stored.request).unwrap_or_default(),
        arms: Arms {
            ways: ways.iter().map(|way| arm_devices(stored, way, &recall)).collect(),
            guardrails: guardrails(stored),
            metrics: metrics(stored),
        },
        agreement: stored.agreement().map(|(mean, devices)| Agreement { mean, devices }),
        succeeded: ways.iter().map(|w| w.runs).sum(),
        reverted: ways.iter().map(|w| w.reverted).sum(),
        returned: recall.returned.values().sum(),
        rollback: recall.progress,
    };
    status.status_line = status_line(stored, &status, &decision, now);
    status.verdict = if matches!(rollout.phase(), Phase::Running | Phase::Awaiting) {
        decision.to_string()
    } else {
        status.status_line.clone()
    };
    Ok(status)
}

/// Returns a stage's number as people count it, from 1.
pub(crate) fn stage_number(stage: u8) -> u32 {
    u32::from(stage) + 1
}

async fn version(
    connection: &mut Connection,
    tenant: &str,
    digest: Option<&str>,
) -> Result<Option<String>, sqlx::Error> {
    let Some(digest) = digest else { return Ok(None) };
    sqlx::query_scalar("SELECT version FROM packages WHERE tenant = $1 AND digest = $2")
        .bind(tenant)
        .bind(digest)
        .fetch_optional(connection)
        .await
}

/// Versions of the candidates; of a package that was deleted, the beginning of its digest.
async fn versions(connection: &mut Connection, stored: &Stored) -> Result<Vec<String>, sqlx::Error> {
    let mut all = Vec::with_capacity(stored.candidates.len());
    for digest in &stored.candidates {
        let known = version(connection, &stored.tenant, Some(digest)).await?;
        all.push(known.unwrap_or_else(|| figure::short(digest).to_owned()));
    }
    Ok(all)
}

/// Acts that change a rollout, by their names in the audit log.
const ACTS: &str = "'rollout.start', 'rollout.pause', 'rollout.resume', 'rollout.abort', 'rollout.approve', \
     'rollout.advance.by_hand', 'rollout.waive', 'rollout.retry', 'rollout.advance', 'rollout.approval', \
     'rollout.rollback', 'rollout.completed'";

fn act(row: &sqlx::any::AnyRow) -> Result<LastAction, sqlx::Error> {
    let (action, detail): (String, String) = (row.try_get("action")?, row.try_get("detail")?);
    let detail: Value = serde_json::from_str(&detail).unwrap_or_default();
    let name = action.strip_prefix("rollout.").unwrap_or(&action);
    Ok(LastAction {
        action: name.strip_suffix(".by_hand").unwrap_or(name).to_owned(),
        by: row.try_get("actor")?,
        at: row.try_get("time")?,
        reason: detail["reason"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
    })
}

/// Returns the newest acts on a rollout, the newest first.
pub(crate) async fn acts(
    connection: &mut Connection,
    tenant: &str,
    id: &str,
    limit: i64,
) -> Result<Vec<LastAction>, sqlx::Error> {
    let query = format!(
        "SELECT time, actor, action, detail FROM audit WHERE tenant = $1 AND object = $2 AND action IN ({ACTS})
         ORDER BY n DESC LIMIT $3"
    );
    // The list is this file's own.
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(tenant).bind(id).bind(limit).fetch_all(connection).await?;
    rows.iter().map(act).collect()
}

async fn last_action(connection: &mut Connection, tenant: &str, id: &str) -> Result<Option<LastAction>, sqlx::Error> {
    Ok(acts(connection, tenant, id, 1).await?.pop())
}

/// Devices that go back because the fleet ordered it.
#[derive(Debug, Default)]
struct Recall {
    progress: Option<RollbackProgress>,
    /// Devices that went back and not on their own, by arm.
    returned: BTreeMap<i64, i64>,
}

impl Recall {
    async fn load(
        connection: &mut Connection,
        stored: &Stored,
        order: Option<&LastAction>,
        now: i64,
    ) -> Result<Self, sqlx::Error> {
        let (tenant, id) = (stored.tenant.as_str(), stored.id.as_str());
        let mut recall = Self::default();
        let mut progress: Option<RollbackProgress> = None;
        for candidate in &stored.candidates {
            let ours = recalls::get(connection, tenant, candidate).await?;
            let Some(order_of) = ours.filter(|r| !r.keeps && r.rollout == stored.id) else { continue };
            let silent_before = recalls::silent_before(connection, tenant, now).await?;
            let devices = recalls::progress(connection, tenant, candidate, silent_before).await?;
            // While another attempt is under way, a rollback that is over is history.
            if stored.rollout.phase() != Phase::RolledBack && devices.running == 0 {
                continue;
            }
            let sum = progress.get_or_insert_with(|| RollbackProgress {
                ordered_at: order_of.ordered,
                by: order_of.ordered_by.clone(),
                reason: order.filter(|act| act.action == "abort").and_then(|act| act.reason.clone()),
                told: 0,
                back: 0,
                running: 0,
                silent: 0,
                blocked: 0,
            });
            sum.told += unsigned(devices.told);
            sum.back += unsigned(devices.back);
            sum.running += unsigned(devices.running - devices.silent);
            sum.silent += unsigned(devices.silent);
            sum.blocked += unsigned(devices.blocked);
            for (arm, number) in recalls::returned_by_arm(connection, (tenant, candidate), id).await? {
                *recall.returned.entry(arm).or_default() += number;
            }
        }
        recall.progress = progress;
        Ok(recall)
    }
}

/// Returns an arm's name in the API.
pub(crate) fn arm_key(stored: &Stored, arm: i64) -> String {
    match arm {
        REST => "rest".to_owned(),
        CONTROL => "control".to_owned(),
        1 if stored.takes_turns() => "both".to_owned(),
        n => format!("candidate{}", n - 1),
    }
}

fn arm_devices(stored: &Stored, way: &Way, recall: &Recall) -> ArmDevices {
    let [assigned, downloaded, activated, reported] = way.hops;
    ArmDevices {
        arm: arm_key(stored, way.arm),
        assigned,
        downloaded,
        activated,
        reported,
        runs_candidate: way.runs,
        in_shadow: way.shadows,
        takes_turns: way.turns,
        reverted: way.reverted,
        returned: recall.returned.get(&way.arm).copied().unwrap_or(0),
    }
}

/// Returns evidence, the decimal logarithm of an e-value, from the natural one.
pub(crate) fn evidence(ln_e: f64) -> f64 {
    ln_e / std::f64::consts::LN_10
}

/// Returns evidence against its limit for people: `6.8 of 2.0`.
pub(crate) fn evidence_text(ln_e: f64, bound: f64) -> String {
    let number = |ln: f64| if ln.is_nan() { figure::NONE.to_owned() } else { format!("{:.1}", evidence(ln) + 0.0) };
    format!("{} of {}", number(ln_e), number(bound))
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn guardrails(stored: &Stored) -> Vec<GuardrailStatus> {
    let rollout = &stored.rollout;
    let of = |candidate: u8| {
        let numbers = rollout.numbers(&stored.evidence, candidate);
        numbers.hard.into_iter().map(move |hard: Hard| GuardrailStatus {
            candidate,
            guardrail: hard.guardrail.name().to_owned(),
            bad: Pair { canary: hard.bad.canary, control: hard.bad.control },
            of: Pair { canary: hard.of.canary, control: hard.of.control },
            ln_e: finite(hard.ln_e),
            evidence: finite(evidence(hard.ln_e)),
            evidence_limit: finite(evidence(hard.bound)),
        })
    };
    (0..rollout.plan().candidates()).flat_map(of).collect()
}

fn metrics(stored: &Stored) -> Vec<MetricStatus> {
    let rollout = &stored.rollout;
    let of = |candidate: u8| {
        let numbers = rollout.numbers(&stored.evidence, candidate);
        numbers.soft.into_iter().flatten().map(move |soft: Soft| MetricStatus {
            candidate,
            metric: soft.margin.metric.as_str().to_owned(),
            place: soft.place,
            mean: Pair { canary: finite(soft.mean.canary), control: finite(soft.mean.control) },
            devices: Pair { canary: soft.n.canary, control: soft.n.control },
            in_both: soft.pairs,
            excess: soft.excess.map(|e| Bounds { low: finite(e.low), high: finite(e.high) }),
        })
    };
    (0..rollout.plan().candidates()).flat_map(of).collect()
}

/// Returns what a stage asks for and what there is of it.
fn needs(stored: &Stored, decision: &Decision) -> Vec<Need> {
    if stored.rollout.phase() != Phase::Running {
        return Vec::new();
    }
    stored.rollout.plan().stage(stored.rollout.stage()).map_or_else(Vec::new, |stage| needs_of(stage, Some(decision)))
}

/// Returns what a stage asks for; without a decision there is nothing of it yet.
pub(crate) fn needs_of(stage: &Stage, decision: Option<&Decision>) -> Vec<Need> {
    let numbers = decision.map(|d| &d.numbers);
    let devices = numbers.and_then(|n| n.sample.get(Hop::Reported as usize)).map_or(0, |s| s.devices.canary);
    let need = |what, found, needed: u32| Need { what, found, needed: needed.into() };
    vec![
        need(NeedKind::Hours, decision.map_or(0, |d| u64::from(d.hours)), stage.soak),
        need(NeedKind::Devices, devices, stage.devices),
        need(NeedKind::DeviceDays, numbers.map_or(0, |n| n.reported.canary), stage.device_days),
    ]
}

/// Returns when the server decides next. A day is counted some time after its end; a stage that lacks nothing but hours is
/// left when they have passed, and one that lacks something pauses at its limit.
fn next_decision(stored: &Stored, needs: &[Need], now: i64) -> Option<i64> {
    let rollout = &stored.rollout;
    if !rollout.phase().is_under_way() {
        return None;
    }
    let mut next = stored.day_end(stored.days) + GRACE;
    if let Some(stage) = rollout.plan().stage(rollout.stage()).filter(|_| rollout.phase() == Phase::Running) {
        let after = |hours: u32| signed(rollout.since()) + i64::from(hours) * 3600;
        let lacks_only_hours = needs.iter().all(|n| (n.missing() > 0) == (n.what == NeedKind::Hours));
        if lacks_only_hours {
            next = next.min(after(stage.soak));
        }
        if after(stage.limit) > now {
            next = next.min(after(stage.limit));
        }
    }
    Some(next)
}

/// Returns how many devices the stage is meant for; nothing when the rollout is not under way.
async fn planned(connection: &mut Connection, stored: &Stored) -> Result<Option<u64>, sqlx::Error> {
    let rollout = &stored.rollout;
    let Some(stage) = rollout.plan().stage(rollout.stage()).filter(|_| rollout.phase().is_under_way()) else {
        return Ok(None);
    };
    let (ring, share) = match stage.exposure {
        Exposure::Share { canary, .. } | Exposure::Shadow { canary, .. } => (i64::MAX, canary),
        Exposure::Crossover { share } | Exposure::Variants { share, .. } => (i64::MAX, share),
        Exposure::Ring { ring, control } => (i64::from(ring), control.rest()),
    };
    let candidates = serde_json::to_string(&stored.candidates).map_err(|e| sqlx::Error::Encode(e.into()))?;
    let eligible: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM devices WHERE tenant = $1 AND model = $2 AND ($3 = 'any' OR target = $3)
         AND ($4 = '' OR running = $4 OR $5 LIKE '%\"' || running || '\"%')
         AND ($6 = $7 OR ring IS NOT NULL AND ring <= $6)",
    )
    .bind(&stored.tenant)
    .bind(&stored.name)
    .bind(&stored.target)
    .bind(stored.base.as_deref().unwrap_or_default())
    .bind(candidates)
    .bind(ring)
    .bind(i64::MAX)
    .fetch_one(connection)
    .await?;
    let mut part = share.bound() as f64 / Share::ALL.bound() as f64;
    if let Exposure::Variants { candidates, .. } = stage.exposure {
        part *= f64::from(candidates) / (f64::from(candidates) + 1.0);
    }
    Ok(Some((eligible as f64 * part).round() as u64))
}

/// Returns a share of the fleet in percent. It was rounded down when it was made, so this rounds to a thousandth.
fn percent(share: Share) -> String {
    let percent = share.bound() as f64 / Share::ALL.bound() as f64 * 100.0;
    format!("{} %", (percent * 1000.0).round() / 1000.0)
}

/// Returns a stage's name, and what its devices are compared with.
pub(crate) fn exposure(exposure: &Exposure) -> (String, String) {
    let control = |control: Share| {
        if control == Share::NONE { "no control".to_owned() } else { format!("control {}", percent(control)) }
    };
    match *exposure {
        Exposure::Share { canary, control } if canary == control.rest() && canary > Share::percent(50) => {
            (format!("All but {}", percent(control)), format!("control {}, held back", percent(control)))
        }
        Exposure::Share { canary, control: part } => (percent(canary), control(part)),
        Exposure::Ring { ring: 0, control: part } => ("Laboratory".to_owned(), format!("ring 0, {}", control(part))),
        Exposure::Ring { ring, control: part } => (format!("Rings 0 to {ring}"), control(part)),
        Exposure::Variants { share, candidates } => {
            (format!("{} in {} arms", percent(share), candidates + 1), "the base and each candidate".to_owned())
        }
        Exposure::Crossover { share } => {
            (format!("{} by the hour", percent(share)), "each device is its own control".to_owned())
        }
        Exposure::Shadow { canary, control: part, every } => {
            (format!("Shadow on {}", percent(canary)), format!("one of {every} inputs, {}", control(part)))
        }
    }
}

/// Returns a plan's stages for people.
pub(crate) fn stages(plan: &dunlin_rollout::Plan) -> Vec<StageStatus> {
    let stage = |(number, stage): (u32, &Stage)| {
        let (name, reaches) = exposure(&stage.exposure);
        StageStatus {
            number,
            name,
            reaches,
            hours: stage.soak,
            devices: stage.devices,
            device_days: stage.device_days,
            approval: stage.approval,
        }
    };
    (1..).zip(plan.stages()).map(stage).collect()
}

/// Returns what a guardrail counts, as a clause.
const fn happened(guardrail: Guardrail) -> &'static str {
    match guardrail {
        Guardrail::Crash => "the device crashed",
        Guardrail::FailedStart => "the model failed to start",
        Guardrail::InferenceError => "an inference failed",
        Guardrail::DeadlineMiss => "latency was over its budget",
        Guardrail::Silence => "the device was silent",
    }
}

/// Returns a guardrail's counts in a sentence, without a full stop: `on 24 of 30 device-days with version 3 an inference
/// failed, on 5 of 85 with version 2`.
pub(crate) fn sentence(hard: &Hard, versions: (&str, Option<&str>), paired: bool) -> String {
    let unit = if paired { "halves of device-days" } else { "device-days" };
    let (bad, of) = (hard.bad, hard.of);
    let without = versions.1.map_or_else(|| "without it".to_owned(), |base| format!("with version {base}"));
    format!(
        "on {} of {} {unit} with version {} {}, on {} of {} {without}",
        figure::count(bad.canary),
        figure::count(of.canary),
        versions.0,
        happened(hard.guardrail),
        figure::count(bad.control),
        figure::count(of.control),
    )
}

/// Returns a moment in UTC, without the date on the day itself.
fn moment(at: i64, now: i64) -> String {
    let text = figure::moment(at);
    match text.split_once(' ') {
        Some((_, clock)) if at.div_euclid(86_400) == now.div_euclid(86_400) => format!("{clock} UTC"),
        _ => format!("{text} UTC"),
    }
}

/// Returns who did something and when: `by alice at 09:40 UTC`.
fn by(act: Option<&LastAction>, now: i64) -> String {
    match act {
        None => String::new(),
        Some(act) if act.by == SERVER => format!(" by the server at {}", moment(act.at, now)),
        Some(act) => format!(" by {} at {}", act.by, moment(act.at, now)),
    }
}

/// The actor of what the server does by itself.
const SERVER: &str = "server";

fn why(act: Option<&LastAction>) -> String {
    match act {
        Some(LastAction { reason: Some(reason), .. }) => format!(": {reason}"),
        Some(LastAction { reason: None, by, .. }) if by != SERVER => " (no reason given)".to_owned(),
        _ => String::new(),
    }
}

fn devices(n: i64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 device {one}") } else { format!("{} devices {many}", figure::count(unsigned(n))) }
}

fn keeps(n: i64) -> String {
    devices(n, "has it and keeps it", "have it and keep it")
}

/// Returns where a rollout is and why, in one line.
fn status_line(stored: &Stored, status: &Status, decision: &Decision, now: i64) -> String {
    let last = status.last_action.as_ref();
    let place = format!("stage {} of {}", status.stage_number, status.stages.len());
    let runs = || devices(status.succeeded, "runs it", "run it");
    match stored.rollout.phase() {
        Phase::Draft => match last.filter(|act| act.action == "retry") {
            Some(act) => format!(
                "Draft, attempt {}: reset{}{}. It has not started",
                status.attempt,
                by(Some(act), now),
                why(Some(act))
            ),
            None => "Draft: it has not started".to_owned(),
        },
        Phase::Running => running(stored, status, decision, now),
        Phase::Awaiting => {
            let since = last.map_or(stored.entered, |act| act.at);
            format!("Waiting for approval after {place} since {}: {}", moment(since, now), runs())
        }
        Phase::Paused => {
            format!("Paused{} in {place}{}; {}", by(last, now), why(last), keeps(status.succeeded))
        }
        Phase::Completed => {
            format!("Completed{}{}; every device gets it, {}", by(last, now), completed_why(last), runs())
        }
        Phase::RolledBack => rolled_back(stored, status, now),
    }
}

/// Of what the server completes, that everything asked for is there is no news.
fn completed_why(last: Option<&LastAction>) -> String {
    last.filter(|act| act.by != SERVER)
        .and_then(|act| act.reason.as_ref())
        .map_or_else(String::new, |r| format!(": {r}"))
}

fn running(stored: &Stored, status: &Status, decision: &Decision, now: i64) -> String {
    let mut line = format!(
        "Running stage {} of {} since {}: ",
        status.stage_number,
        status.stages.len(),
        moment(stored.entered, now)
    );
    let updated: i64 =
        status.arms.ways.iter().filter(|w| w.arm != "control" && w.arm != "rest").map(|w| w.runs_candidate).sum();
    let verb = match stored.rollout.plan().stage(stored.rollout.stage()).map(|s| s.exposure) {
        Some(Exposure::Shadow { .. }) => "run it in shadow mode",
        Some(Exposure::Crossover { .. }) => "alternate by the hour",
        _ => "updated",
    };
    let _ = match status.planned {
        Some(planned) => write!(
            line,
            "{} of about {} planned devices {verb}",
            figure::count(unsigned(updated)),
            figure::count(planned)
        ),
        None => write!(line, "{} devices {verb}", figure::count(unsigned(updated))),
    };
    let waits = waits_for(decision, &status.needs);
    if !waits.is_empty() {
        let _ = write!(line, "; {waits}");
    }
    if let Some(next) = status.next_decision_at {
        let first = stored.days == stored.day_base;
        let which = if first { "first" } else { "next" };
        if next <= now {
            let _ = write!(line, "; {which} decision is due now");
        } else {
            let _ = write!(line, "; {which} decision at {}", moment(next, now));
            if first {
                let _ = write!(line, " ({} h after the stage began)", (next - stored.entered) / 3600);
            }
        }
    }
    line
}

/// Returns what keeps a stage from being left: `needs 3 more hours and 27 more device-days`.
fn waits_for(decision: &Decision, needs: &[Need]) -> String {
    let missing = |n: &&Need| n.missing() > 0;
    let one = |what: NeedKind| match what {
        NeedKind::Hours => "hour",
        NeedKind::Devices => "device that reports",
        NeedKind::DeviceDays => "device-day",
    };
    let text = |n: &Need| match n.missing() {
        1 => format!("1 more {}", one(n.what)),
        more => format!("{} more {}", figure::count(more), n.what.name()),
    };
    let list: Vec<String> = needs.iter().filter(missing).map(text).collect();
    match (list.split_last(), decision.reason) {
        (Some((last, [])), _) => format!("needs {last}"),
        (Some((last, rest)), _) => format!("needs {} and {last}", rest.join(", ")),
        (None, Reason::NoData(_) | Reason::NotANumber(_) | Reason::Undecided(_)) => {
            format!("waits: {}", decision.reason)
        }
        (None, _) => String::new(),
    }
}

fn rolled_back(stored: &Stored, status: &Status, now: i64) -> String {
    let last = status.last_action.as_ref();
    let mut line = format!("Rolled back{}", by(last, now));
    let numbers: Vec<Hard> = (0..stored.rollout.plan().candidates())
        .flat_map(|candidate| stored.rollout.numbers(&stored.evidence, candidate).hard)
        .collect();
    let crossed = numbers.iter().find(|hard| hard.is_crossed());
    match (last.is_none_or(|act| act.by == SERVER), crossed) {
        (true, Some(hard)) => {
            let version = status.versions.first().map_or("", String::as_str);
            let said = sentence(hard, (version, status.base_version.as_deref()), stored.takes_turns());
            let _ = write!(line, ": {said} (evidence {})", evidence_text(hard.ln_e, hard.bound));
        }
        _ => line.push_str(&why(last)),
    }
    match &status.rollback {
        Some(back) if back.devices() > 0 => {
            let _ =
                write!(line, "; {} of {} devices are back", figure::count(back.back), figure::count(back.devices()));
        }
        Some(_) => line.push_str("; no device runs it"),
        None => {
            let _ = write!(line, "; {}", keeps(status.succeeded));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(what: NeedKind, found: u64, needed: u64) -> Need {
        Need { what, found, needed }
    }

    #[test]
    fn what_is_missing_is_counted() {
        let plan = dunlin_rollout::Plan::of(dunlin_rollout::Strategy::Canary).expect("a plan");
        let rollout =
            dunlin_rollout::Rollout::new(plan, dunlin_rollout::Gate::DEFAULT, dunlin_rollout::Salt::new(b"x"));
        let decision = rollout.expect("a rollout").judge(&[], 0);
        let text = |needs: &[Need]| waits_for(&decision, needs);
        let (hours, days) = (need(NeedKind::Hours, 1, 24), need(NeedKind::DeviceDays, 573, 600));
        assert_eq!(text(&[hours, days]), "needs 23 more hours and 27 more device-days");
        assert_eq!(text(&[need(NeedKind::Devices, 4, 5)]), "needs 1 more device that reports");
        assert_eq!(text(&[need(NeedKind::Devices, 5, 5)]), "");
    }

    #[test]
    fn moments_have_a_date_on_other_days() {
        assert_eq!(moment(1_795_576_331, 1_795_576_400), "03:12 UTC");
        assert_eq!(moment(1_795_576_331, 1_795_676_400), "2026-11-25 03:12 UTC");
    }

    #[test]
    fn evidence_is_in_powers_of_ten() {
        assert_eq!(evidence_text(15.66, 100f64.ln()), "6.8 of 2.0");
        assert_eq!(evidence_text(f64::NAN, 100f64.ln()), "no data of 2.0");
        assert_eq!(evidence_text(-0.0, 100f64.ln()), "0.0 of 2.0");
    }

    #[test]
    fn stages_are_counted_from_one() {
        let plan = dunlin_rollout::Plan::of(dunlin_rollout::Strategy::Canary).expect("a plan");
        let all = stages(&plan);
        let names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["Laboratory", "1 %", "5 %", "25 %", "All but 5 %"]);
        assert_eq!((all[0].number, all[4].number), (1, 5));
        assert_eq!(all[1].reaches, "control 3 %");
    }
}
