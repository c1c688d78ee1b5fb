//! Rollouts.

use std::sync::Arc;

use dunlin_rollout::rollout::{Decision, Margins, Phase};
use sqlx::Row as _;

use super::serving::{Have, compared, serving};
use super::{Models, progress, role};
use crate::approval;
use crate::auth::Role;
use crate::dashboard::figure;
use crate::dashboard::judgement::{self, Sensitivity};
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{
    Action, Approval, Badge, Compared, Fate, Frame, Rate, RolloutFilter, RolloutLine, RolloutPage, RolloutsPage,
    RowAction, RunningLine, Tone, VerdictLine,
};
use crate::outlook;
use crate::status::Status;
use crate::store::exposures::{self, CONTROL, REST, Way};
use crate::store::rollouts::{self, Stored, Verdict};
use crate::store::tenants::Settings;
use crate::store::{self, Connection, unsigned};

/// Rollouts on a page of the list, and among which those under way or just ended are looked for.
const LISTED: i64 = 50;
/// Acts that the page of a rollout shows.
const ACTS: i64 = 50;
/// Verdicts that are looked at for the page of a rollout, and lines that they become.
const VERDICTS: i64 = 500;
const LINES: usize = 30;

/// Whether an arm's devices have the candidate.
pub(in crate::dashboard) const fn is_candidate(arm: i64) -> bool {
    arm > CONTROL
}

/// An arm's name. With `hourly` its devices take turns between both arms.
pub(in crate::dashboard) const fn arm_name(arm: i64, hourly: bool) -> &'static str {
    match arm {
        1 if hourly => "both, by the hour",
        REST => "rest, not compared",
        CONTROL => "control",
        1 => "canary",
        2 => "canary, candidate 2",
        _ => "canary, further candidates",
    }
}

/// All who take part, whenever they were assigned.
async fn ways(connection: &mut Connection, tenant: &str, id: &str) -> Result<Vec<Way>, sqlx::Error> {
    exposures::ways(connection, tenant, id, i64::MAX, 0).await
}

async fn verdicts(connection: &mut Connection, of: &Stored, limit: i64) -> Result<Vec<Verdict>, sqlx::Error> {
    // The newest, and those in order.
    let mut list = rollouts::verdicts(connection, &of.tenant, &of.id, (of.verdicts - limit).max(0), limit).await?;
    list.reverse();
    Ok(list)
}

fn verdict_badge(verdict: &Verdict) -> Badge {
    let tone = match verdict.verdict.as_str() {
        "Advance" => Tone::Good,
        "Hold" => Tone::Busy,
        "Pause" => Tone::Watch,
        _ => Tone::Bad,
    };
    Badge::new(tone, verdict.verdict.to_uppercase())
}

fn version(models: &Models, of: &Stored, digest: Option<&String>) -> String {
    digest.map_or_else(String::new, |digest| models.of(&of.name, digest).version)
}

/// What a list or an alert offers: only what is pressed in a hurry. The page of the rollout has the rest.
fn row_actions(phase: Phase, viewer: &Viewer) -> Vec<RowAction> {
    let pause = RowAction { verb: "pause", label: "Pause" };
    let rollback = RowAction { verb: "rollback", label: "Roll back" };
    match phase {
        _ if role(viewer) < Role::Operator => Vec::new(),
        Phase::Running | Phase::Awaiting => vec![pause, rollback],
        Phase::Paused | Phase::Completed => vec![rollback],
        Phase::Draft | Phase::RolledBack => Vec::new(),
    }
}

async fn line(
    connection: &mut Connection,
    viewer: &Viewer,
    models: &Models,
    of: &Stored,
    now: i64,
) -> Result<RolloutLine, sqlx::Error> {
    let status = outlook::status(connection, of, now).await?;
    let phase = of.rollout.phase();
    let exposed: i64 = status
        .arms
        .ways
        .iter()
        .map(|w| if w.arm == "control" || w.arm == "rest" { w.runs_candidate } else { w.assigned })
        .sum();
    let last = status.last_action.as_ref();
    Ok(RolloutLine {
        id: of.id.clone(),
        model: of.name.clone(),
        candidate: version(models, of, of.candidates.first()),
        base: of.base.as_ref().map(|base| version(models, of, Some(base))),
        phase: judgement::phase(phase),
        stage: status.stage_number,
        stages: status.stages.len(),
        exposure: of
            .rollout
            .plan()
            .stage(of.rollout.stage())
            .map(|s| outlook::exposure(&s.exposure))
            .unwrap_or_default(),
        started: phase != Phase::Draft,
        updated: Rate::new(unsigned(status.succeeded), unsigned(exposed)),
        back: unsigned(status.reverted + status.returned),
        since: last.map_or(of.created, |act| act.at).max(of.entered),
        last_actor: last.map(|act| act.by.clone()),
        actions: row_actions(phase, viewer),
        status_line: status.status_line,
    })
}

/// The newest rollouts; `recent` leaves out those that ended before then.
pub(in crate::dashboard) async fn lines(
    connection: &mut Connection,
    viewer: &Viewer,
    recent: i64,
    now: i64,
) -> Result<Vec<RolloutLine>, Trouble> {
    let models = Models::load(connection, &viewer.tenant).await?;
    let mut lines = Vec::new();
    for stored in rollouts::newest(connection, &viewer.tenant, ("", ""), (LISTED, 0)).await? {
        if stored.rollout.phase() == Phase::Draft {
            continue;
        }
        let line = line(connection, viewer, &models, &stored, now).await?;
        if stored.rollout.phase().is_under_way() || line.since >= recent {
            lines.push(line);
        }
    }
    Ok(lines)
}

/// The list of rollouts.
pub(in crate::dashboard) async fn list(
    connection: &mut Connection,
    viewer: &Viewer,
    frame: Frame,
    filter: RolloutFilter,
) -> Result<RolloutsPage, Trouble> {
    let tenant = viewer.tenant.as_str();
    let models = Models::load(connection, tenant).await?;
    let wanted = (filter.phase.as_str(), filter.model.as_str());
    let found = unsigned(rollouts::count(connection, tenant, wanted).await?);
    let page = filter.page.max(1);
    let skipped = i64::from(page - 1) * LISTED;
    let mut lines = Vec::new();
    for stored in rollouts::newest(connection, tenant, wanted, (LISTED, skipped)).await? {
        lines.push(line(connection, viewer, &models, &stored, frame.now).await?);
    }
    let is_more = found > unsigned(skipped + LISTED);
    Ok(RolloutsPage {
        rollouts: lines,
        models: rollouts::models(connection, tenant).await?,
        found,
        older: is_more.then(|| filter.address(page + 1)),
        newer: (page > 1).then(|| filter.address(page - 1)),
        filter,
        frame,
    })
}

fn numbers(verdict: &Verdict) -> (Vec<(String, String)>, Option<Decision>) {
    let decision: Option<Decision> = serde_json::from_str(&verdict.numbers).ok();
    (decision.as_ref().map(judgement::numbers).unwrap_or_default(), decision)
}

/// The strategy that was asked for, in words.
fn strategy(request: &str) -> String {
    let request: serde_json::Value = serde_json::from_str(request).unwrap_or_default();
    let wanted = request.get("strategy");
    let number = |name: &str| wanted.and_then(|w| w.get(name)).and_then(serde_json::Value::as_f64).map(figure::number);
    let percent = || number("percent").unwrap_or_default();
    match wanted.and_then(|w| w.get("kind")).and_then(serde_json::Value::as_str) {
        Some("canary") => "canary".to_owned(),
        Some("ring") => format!("ring by ring, to ring {}", number("rings").unwrap_or_default()),
        Some("few") => format!("few devices, ring by ring, to ring {}", number("rings").unwrap_or_default()),
        Some("shadow") => format!("shadow on one of {} inputs, then canary", number("every").unwrap_or_default()),
        Some("crossover") => format!("crossover by the hour on {} %, each device its own control", percent()),
        Some("blue_green") => format!("blue-green: all but {} % at once, after a shadow stage", percent()),
        Some("variants") => format!("variants on {} %", percent()),
        Some("hold_back") => format!("hold-back: all but {} %", percent()),
        _ => "custom stages".to_owned(),
    }
}

/// Verdicts, newest first, from the one that led to the phase on. What is judged after the end changes nothing: that it holds
/// then would read as if it waited for something.
fn deciding(list: &[Verdict], phase: Phase) -> &[Verdict] {
    if !matches!(phase, Phase::Completed | Phase::RolledBack) {
        return list;
    }
    let at = list.iter().position(|v| v.verdict != "Hold").unwrap_or(0);
    list.get(at..).unwrap_or_default()
}

/// Verdicts, newest first, as lines: those that only say that it waits are one line for as long as it does.
fn verdict_lines(list: &[Verdict]) -> Vec<VerdictLine> {
    let mut lines: Vec<VerdictLine> = Vec::new();
    for (i, verdict) in list.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| list.get(i));
        let same = before.is_some_and(|b| b.verdict == "Hold" && verdict.verdict == "Hold" && b.stage == verdict.stage);
        if let Some(line) = lines.last_mut().filter(|_| same) {
            (line.repeated, line.since) = (line.repeated + 1, verdict.time);
            continue;
        }
        let (numbers, decision) = numbers(verdict);
        let reason = decision.as_ref().map_or_else(|| verdict.reason.clone(), |d| d.reason.to_string());
        lines.push(VerdictLine {
            n: verdict.n,
            time: verdict.time,
            stage: verdict.stage as u32 + 1,
            verdict: verdict_badge(verdict),
            reason,
            numbers,
            repeated: 1,
            since: verdict.time,
        });
    }
    lines
}

/// Choices among candidates: the address' last part, and the button.
pub(in crate::dashboard) const CHOICES: [(&str, &str); 7] = [
    ("approve-1", "Choose candidate 1"),
    ("approve-2", "Choose candidate 2"),
    ("approve-3", "Choose candidate 3"),
    ("approve-4", "Choose candidate 4"),
    ("approve-5", "Choose candidate 5"),
    ("approve-6", "Choose candidate 6"),
    ("approve-7", "Choose candidate 7"),
];

/// What may be done to a rollout, and whether this viewer may.
fn actions(
    of: &Stored,
    title: &str,
    viewer: &Viewer,
    settings: &Settings,
    approvals: &[Approval],
    runs: u64,
) -> Vec<Action> {
    let have = match runs {
        0 => "No device runs it.".to_owned(),
        1 => "One device runs it.".to_owned(),
        n => format!("{} devices run it.", figure::count(n)),
    };
    let action = |verb, label, style, needs: Role, consequence: String| Action {
        verb,
        label,
        style,
        question: format!("{label} {title}?"),
        consequence,
        reason: true,
        fates: &[],
        refused: (role(viewer) < needs)
            .then(|| format!("This takes the role {}; yours is {}.", needs.name(), viewer.role)),
    };
    let start = || action("start", "Start", "primary", Role::Operator, "Its first stage begins.".to_owned());
    let pause = || {
        let text = format!("{have} They keep it, no other device gets it, and guardrails are still watched.");
        action("pause", "Pause", "", Role::Operator, text)
    };
    let resume = || {
        let text = "The failures so far count as seen: only new evidence counts, and the stage begins again.";
        action("resume", "Resume", "primary", Role::Operator, text.to_owned())
    };
    let retry = || {
        let text = "It is a draft again: other devices go first, and only new evidence counts.";
        action("retry", "Retry", "", Role::Operator, text.to_owned())
    };
    let rollback = || {
        let back = match (&of.base, of.irreversible()) {
            (None, _) => " It has no base that devices could go back to.",
            (_, true) => " Devices that confirmed it refuse the base, whose security counter is lower.",
            _ => "",
        };
        let text = format!("{have} It is no longer offered to any device.{back}");
        Action {
            fates: if of.base.is_some() { Fate::EITHER } else { Fate::STAY },
            ..action("rollback", "Roll back", "danger", Role::Operator, text)
        }
    };
    let waive = || {
        let text = "This stage may be left although it is not certain that every metric keeps its margin. Guardrails are \
                    still watched.";
        action("waive", "Waive margins", "", Role::Approver, text.to_owned())
    };
    let advance = || {
        let text = "The next stage begins although this one is not passed, and more devices get the candidate.";
        action("advance", "Advance by hand", "plain minor", Role::Approver, text.to_owned())
    };
    let approved = |verb, label, consequence: &str| {
        let mut approve = action(verb, label, "primary", Role::Approver, consequence.to_owned());
        if approve.refused.is_none() && settings.two_person && of.started_by == viewer.actor {
            approve.refused = Some("You started it; another person has to approve.".to_owned());
        }
        approve
    };
    let approve_start = || {
        let text =
            "Another person may start it then. Its first stage reaches more devices than one person decides about.";
        action("approve", "Approve the start", "", Role::Approver, text.to_owned())
    };
    match of.rollout.phase() {
        Phase::Draft if approval::before_start(of.rollout.plan(), settings.two_person) => {
            let by = approvals.iter().find(|a| a.stage == 0).map(|a| a.who.as_str());
            let missing = match by {
                None => Some("Another person has to approve it first."),
                Some(who) if settings.two_person && who == viewer.actor => {
                    Some("You approved it; another person has to start it.")
                }
                Some(_) => None,
            };
            let mut start = start();
            start.refused = start.refused.or_else(|| missing.map(str::to_owned));
            by.is_none().then(approve_start).into_iter().chain([start]).collect()
        }
        Phase::Draft => vec![start()],
        Phase::Running => {
            let stage = of.rollout.plan().stage(of.rollout.stage());
            let asks = stage.is_some_and(|s| s.margins == Margins::Inside);
            let waives = asks && !of.rollout.waived();
            [pause(), rollback()].into_iter().chain(waives.then(waive)).chain([advance()]).collect()
        }
        Phase::Awaiting => {
            let candidates = usize::from(of.rollout.plan().candidates());
            let approvals: Vec<Action> = match candidates {
                0 | 1 => {
                    let next = of.rollout.plan().stage(of.rollout.stage().saturating_add(1));
                    let consequence = match next {
                        Some(_) => "Its next stage begins, which reaches more devices.",
                        None => "Every device gets it, and it serves alone.",
                    };
                    vec![approved("approve", "Approve", consequence)]
                }
                // Of several one is chosen.
                n => CHOICES
                    .iter()
                    .take(n)
                    .map(|(verb, label)| approved(verb, label, "Every device gets this candidate."))
                    .collect(),
            };
            approvals.into_iter().chain([pause(), rollback()]).collect()
        }
        Phase::Paused => vec![resume(), rollback()],
        Phase::Completed => vec![rollback()],
        Phase::RolledBack => vec![retry()],
    }
}

/// Returns the counts of the guardrail with the most evidence; nothing as long as none has data.
fn sentence(decision: &Decision, status: &Status, paired: bool) -> Option<String> {
    let with_data = decision.numbers.hard.iter().filter(|hard| hard.of.canary > 0);
    let worst = with_data.max_by(|a, b| a.ln_e.total_cmp(&b.ln_e))?;
    let candidate = status.versions.first().map_or("", String::as_str);
    let mut text = outlook::sentence(worst, (candidate, status.base_version.as_deref()), paired);
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Some(format!("{text}. Evidence {}.", outlook::evidence_text(worst.ln_e, worst.bound)))
}

async fn approvals(connection: &mut Connection, of: &Stored) -> Result<Vec<Approval>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT stage, who, time FROM approvals WHERE tenant = $1 AND rollout = $2 AND attempt = $3 ORDER BY stage",
    )
    .bind(&of.tenant)
    .bind(&of.id)
    .bind(i64::from(of.rollout.attempt()))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let stage: i64 = row.try_get("stage")?;
            Ok(Approval { stage: (stage + 1) as u32, who: row.try_get("who")?, time: row.try_get("time")? })
        })
        .collect()
}

pub(in crate::dashboard) async fn one(
    connection: &mut Connection,
    viewer: &Viewer,
    mut frame: Frame,
    id: &str,
    seen: &Arc<Sensitivity>,
) -> Result<RolloutPage, Trouble> {
    let of = rollouts::get(connection, &viewer.tenant, id).await?.ok_or(Trouble::Missing("rollout"))?;
    let tenant = store::tenants::get(connection, &viewer.tenant).await?.ok_or(Trouble::Missing("tenant"))?;
    let models = Models::load(connection, &viewer.tenant).await?;
    let candidate = models.of(&of.name, of.candidates.first().map_or("", String::as_str));
    let title = format!("{} ({} {})", of.id, candidate.name, candidate.version);
    frame.title.clone_from(&title);

    let rollout = &of.rollout;
    let started = rollout.phase() != Phase::Draft;
    let decision = rollout.judge(&of.evidence, unsigned(frame.now));
    let status = outlook::status(connection, &of, frame.now).await?;
    let acts = outlook::acts(connection, &of.tenant, &of.id, ACTS).await?;
    let charts = progress::charts(connection, &of, &models, &acts, frame.now).await?;
    let verdicts = verdicts(connection, &of, VERDICTS).await?;
    let mut lines = verdict_lines(deciding(&verdicts, rollout.phase())).into_iter();
    let last = lines.next();
    let earlier = lines.take(LINES).collect();
    let ways = ways(connection, &of.tenant, &of.id).await?;
    let compared = compared(&of);
    let returned = |arm: &str| status.arms.ways.iter().find(|w| w.arm == arm).map_or(0, |w| unsigned(w.returned));
    let running = |way: &Way| {
        let [assigned, .., reported] = way.hops;
        RunningLine {
            arm: arm_name(way.arm, compared == Compared::Hours),
            exposed: unsigned(assigned),
            updated: unsigned(way.runs - way.shadows),
            beside: unsigned(way.shadows + way.turns),
            reverted: unsigned(way.reverted),
            returned: returned(&outlook::arm_key(&of, way.arm)),
            waiting: unsigned(assigned - reported),
        }
    };
    let mut ways: Vec<&Way> = ways.iter().collect();
    // Those who have it, those they are compared with, the rest.
    ways.sort_by_key(|way| (way.arm == REST, way.arm == CONTROL, way.arm));
    let sum = |part: &dyn Fn(&Way) -> i64| unsigned(ways.iter().map(|way| part(way)).sum());
    let runs = sum(&|way| way.runs);
    let (shadows, turns) = (sum(&|way| way.shadows), sum(&|way| way.turns));
    let have = Have { shadows, turns, alone: runs.saturating_sub(shadows + turns) };
    let serving = if started { serving(connection, &of, have, frame.now).await? } else { None };
    let strategy = strategy(&of.request);
    let approvals = approvals(connection, &of).await?;
    // Ratios are simulated, which would keep others waiting here.
    let (numbers, gate, seen) = (decision.numbers, *rollout.gate(), seen.clone());
    let next = judgement::next(&decision, rollout.phase());
    let guardrails = tokio::task::spawn_blocking(move || judgement::guardrails(&numbers, &gate, &seen));
    let guardrails = guardrails.await.map_err(|e| Trouble::Broken(e.to_string()))?;
    Ok(RolloutPage {
        id: of.id.clone(),
        stage: rollout.stage(),
        sentence: sentence(&decision, &status, compared == Compared::Hours),
        next_decision: status.next_decision_at,
        next,
        rollback: status.rollback.clone(),
        charts,
        history: acts.iter().map(progress::history_line).collect(),
        status_line: status.status_line.clone(),
        irreversible: of.irreversible(),
        base: of.base.as_ref().map(|base| models.of(&of.name, base)),
        phase: judgement::phase(rollout.phase()),
        strategy,
        attempt: rollout.attempt(),
        started_by: started.then(|| of.started_by.clone()).filter(|who| !who.is_empty()),
        stages: judgement::stages(rollout, Some(&decision)),
        compared,
        serving,
        last,
        earlier,
        guardrails,
        margins: judgement::margins(&decision.numbers),
        hops: judgement::hops(&decision.numbers),
        reported: judgement::reported(&decision.numbers),
        devices: ways.into_iter().map(running).collect(),
        actions: actions(&of, &title, viewer, &tenant.settings, &approvals, runs),
        approvals,
        candidate,
        frame,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_one_line() {
        let verdict = |n: i64, word: &str, stage: i64| Verdict {
            n,
            time: 100 * n,
            stage,
            verdict: word.to_owned(),
            reason: format!("{n}"),
            numbers: "{}".to_owned(),
        };
        let list = [
            verdict(6, "Hold", 1),
            verdict(5, "Hold", 1),
            verdict(4, "Advance", 0),
            verdict(3, "Hold", 0),
            verdict(2, "Hold", 0),
            verdict(1, "Hold", 0),
        ];
        let lines = verdict_lines(&list);
        let seen: Vec<(i64, u64, i64)> = lines.iter().map(|l| (l.n, l.repeated, l.since)).collect();
        assert_eq!(seen, [(6, 2, 500), (4, 1, 400), (3, 3, 100)]);
        // After the end the last decision is what it came to.
        let first = |phase| deciding(&list, phase).first().map(|v| v.n);
        assert_eq!((first(Phase::Running), first(Phase::Completed)), (Some(6), Some(4)));
        assert_eq!(deciding(&list[3..], Phase::RolledBack).len(), 3, "one that was ended by hand");
        assert!(deciding(&[], Phase::Completed).is_empty());
    }
}
