//! Rollouts.

use std::sync::Arc;

use dunlin_rollout::rollout::{Decision, Margins, Phase};
use sqlx::Row as _;

use super::serving::{Have, compared, serving};
use super::{Models, role};
use crate::approval;
use crate::auth::Role;
use crate::dashboard::figure;
use crate::dashboard::judgement::{self, Sensitivity};
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{
    Action, Approval, Badge, Compared, Fate, Frame, Rate, RolloutLine, RolloutPage, RunningLine, Tone, VerdictLine,
};
use crate::store::exposures::{self, CONTROL, REST, Way};
use crate::store::rollouts::{self, Stored, Verdict};
use crate::store::tenants::Settings;
use crate::store::{self, Connection, unsigned};

/// Rollouts in the list.
const LISTED: i64 = 100;
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

async fn line(connection: &mut Connection, models: &Models, of: &Stored) -> Result<RolloutLine, sqlx::Error> {
    let ways = ways(connection, &of.tenant, &of.id).await?;
    let list = verdicts(connection, of, VERDICTS).await?;
    let last = deciding(&list, of.rollout.phase()).first();
    let sum = |part: &dyn Fn(&Way) -> i64| unsigned(ways.iter().map(part).sum());
    let told = sum(&|way| if is_candidate(way.arm) { way.hops[0] } else { way.runs });
    let stage = of.rollout.plan().stage(of.rollout.stage());
    Ok(RolloutLine {
        id: of.id.clone(),
        model: of.name.clone(),
        candidate: version(models, of, of.candidates.first()),
        base: of.base.as_ref().map(|base| version(models, of, Some(base))),
        phase: judgement::phase(of.rollout.phase()),
        stage: of.rollout.stage().into(),
        stages: of.rollout.plan().stages().count(),
        exposure: stage.map_or_else(String::new, |stage| {
            let (name, whom) = judgement::exposure(&stage.exposure);
            format!("{name}, {whom}")
        }),
        verdict: last.map(verdict_badge),
        reason: last
            .map_or_else(String::new, |v| numbers(v).1.map_or_else(|| v.reason.clone(), |d| d.reason.to_string())),
        updated: Rate::new(sum(&|way| way.runs), told),
        reverted: sum(&|way| way.reverted),
        changed: last.map_or(of.created, |v| v.time).max(of.entered),
    })
}

/// The newest rollouts; `recent` leaves out those that ended before then.
pub(in crate::dashboard) async fn lines(
    connection: &mut Connection,
    viewer: &Viewer,
    recent: Option<i64>,
) -> Result<Vec<RolloutLine>, Trouble> {
    let models = Models::load(connection, &viewer.tenant).await?;
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM rollouts WHERE tenant = $1 ORDER BY created DESC, id LIMIT $2")
            .bind(&viewer.tenant)
            .bind(LISTED)
            .fetch_all(&mut *connection)
            .await?;
    let mut lines = Vec::new();
    for id in ids {
        let Some(stored) = rollouts::get(connection, &viewer.tenant, &id).await? else { continue };
        let line = line(connection, &models, &stored).await?;
        let ended = matches!(stored.rollout.phase(), Phase::Draft | Phase::Completed | Phase::RolledBack);
        if recent.is_none_or(|since| !ended || line.changed >= since) {
            lines.push(line);
        }
    }
    Ok(lines)
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
        Some("few") => format!("one by one, to ring {}", number("rings").unwrap_or_default()),
        Some("shadow") => format!("shadow on one of {} inputs, then canary", number("every").unwrap_or_default()),
        Some("crossover") => format!("by the hour on {} %, each device its own control", percent()),
        Some("blue_green") => format!("all but {} %, ready in the shadow, then at once", percent()),
        Some("variants") => format!("variants on {} %", percent()),
        Some("hold_back") => format!("all but {} %", percent()),
        _ => "stages of its own".to_owned(),
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
fn verdict_lines(list: &[Verdict], phase: Phase) -> Vec<VerdictLine> {
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
            next: decision.filter(|_| i == 0).map(|d| judgement::next(&d, phase)),
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
        let text = format!("{have} They keep it, nobody else gets it, and guardrails go on being watched.");
        action("pause", "Pause", "", Role::Operator, text)
    };
    let resume = || {
        let text = "The failures so far count as seen: only new evidence counts, and the stage begins anew.";
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
        let text = format!("{have} It is offered to nobody any more.{back}");
        Action {
            fates: if of.base.is_some() { Fate::EITHER } else { Fate::STAY },
            ..action("rollback", "Roll back", "danger", Role::Operator, text)
        }
    };
    let waive = || {
        let text = "This stage may be left although it is not certain that every metric keeps its margin. Guardrails \
                    go on being watched.";
        action("waive", "Waive margins", "", Role::Approver, text.to_owned())
    };
    let advance = || {
        let text = "The next stage begins although this one is not passed, and more devices get the candidate.";
        action("advance", "Advance by hand", "", Role::Approver, text.to_owned())
    };
    let approved = |verb, label, consequence: &str| {
        let mut approve = action(verb, label, "primary", Role::Approver, consequence.to_owned());
        if approve.refused.is_none() && settings.two_person && of.started_by == viewer.actor {
            approve.refused = Some("You started it; somebody else has to approve.".to_owned());
        }
        approve
    };
    let approve_start = || {
        let text =
            "Somebody else may start it then. Its first stage reaches more devices than one person decides about.";
        action("approve", "Approve the start", "", Role::Approver, text.to_owned())
    };
    match of.rollout.phase() {
        Phase::Draft if approval::before_start(of.rollout.plan(), settings.two_person) => {
            let by = approvals.iter().find(|a| a.stage == 0).map(|a| a.who.as_str());
            let missing = match by {
                None => Some("Somebody else has to approve it first."),
                Some(who) if settings.two_person && who == viewer.actor => {
                    Some("You approved it; somebody else starts it.")
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
            [pause()].into_iter().chain(waives.then(waive)).chain([advance(), rollback()]).collect()
        }
        Phase::Awaiting => {
            let candidates = usize::from(of.rollout.plan().candidates());
            let approvals: Vec<Action> = match candidates {
                0 | 1 => {
                    let next = of.rollout.plan().stage(of.rollout.stage().saturating_add(1));
                    let consequence = match next {
                        Some(_) => "Its next stage begins, which reaches more devices.",
                        None => "Everybody gets it, and it serves alone.",
                    };
                    vec![approved("approve", "Approve", consequence)]
                }
                // Of several one is chosen.
                n => CHOICES
                    .iter()
                    .take(n)
                    .map(|(verb, label)| approved(verb, label, "Everybody gets this candidate."))
                    .collect(),
            };
            approvals.into_iter().chain([pause(), rollback()]).collect()
        }
        Phase::Paused => vec![resume(), rollback()],
        Phase::Completed => vec![rollback()],
        Phase::RolledBack => vec![retry()],
    }
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
    let title = format!("{} {}", candidate.name, candidate.version);
    frame.title.clone_from(&title);

    let rollout = &of.rollout;
    let started = rollout.phase() != Phase::Draft;
    let decision = rollout.judge(&of.evidence, unsigned(frame.now));
    let verdicts = verdicts(connection, &of, VERDICTS).await?;
    let mut lines = verdict_lines(deciding(&verdicts, rollout.phase()), rollout.phase()).into_iter();
    let last = lines.next();
    let earlier = lines.take(LINES).collect();
    let ways = ways(connection, &of.tenant, &of.id).await?;
    let compared = compared(&of);
    let running = |way: &Way| {
        let [assigned, .., reported] = way.hops;
        RunningLine {
            arm: arm_name(way.arm, compared == Compared::Hours),
            exposed: unsigned(assigned),
            updated: unsigned(way.runs - way.shadows),
            beside: unsigned(way.shadows + way.turns),
            reverted: unsigned(way.reverted),
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
    let guardrails = tokio::task::spawn_blocking(move || judgement::guardrails(&numbers, &gate, &seen));
    let guardrails = guardrails.await.map_err(|e| Trouble::Broken(e.to_string()))?;
    Ok(RolloutPage {
        id: of.id.clone(),
        stage: rollout.stage(),
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
        let lines = verdict_lines(&list, Phase::Running);
        let seen: Vec<(i64, u64, i64)> = lines.iter().map(|l| (l.n, l.repeated, l.since)).collect();
        assert_eq!(seen, [(6, 2, 500), (4, 1, 400), (3, 3, 100)]);
        // After the end the last decision is what it came to.
        let first = |phase| deciding(&list, phase).first().map(|v| v.n);
        assert_eq!((first(Phase::Running), first(Phase::Completed)), (Some(6), Some(4)));
        assert_eq!(deciding(&list[3..], Phase::RolledBack).len(), 3, "one that was ended by hand");
        assert!(deciding(&[], Phase::Completed).is_empty());
    }
}
