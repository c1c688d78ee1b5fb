//! From evidence to verdicts, and from verdicts to what devices are told.
//!
//! Any replica may decide. Numbers, verdict, alert and audit entry are one transaction, which counts only if nobody has
//! written the rollout since it was read; so two that decide at once decide once.

mod close;

use close::{close, close_part};
use dunlin_rollout::{Decision, Evidence, Name, Phase, Rollout, Salt, Verdict};
use serde_json::{Value, json};

use crate::approval;
use crate::auth::Principal;
use crate::error::{ApiError, ApiResult};
use crate::server::Inner;
use crate::store::devices::{self, Revoked};
use crate::store::recalls::{self, Recall};
use crate::store::rollouts::{self, Stored};
use crate::store::{alerts, audit, exposures, signed};

/// Seconds after a day's end before it is counted, for polls that are on their way to the database.
pub(crate) const GRACE: i64 = 60;
/// Seconds for which rollout documents are good.
const LIFE: i64 = 30 * rollouts::DAY;

/// Looks at every live rollout once. What fails is logged, and tried again the next time.
pub(crate) async fn tick(app: &Inner) {
    let live = async { rollouts::all_live(&mut *app.store.read().await?).await };
    match live.await {
        Ok(all) => {
            for (tenant, id) in all {
                if let Err(error) = consider(app, &tenant, &id).await {
                    tracing::error!(%error, tenant, rollout = id, "no decision");
                }
            }
        }
        Err(error) => tracing::error!(%error, "no decisions"),
    }
}

/// Decides about one rollout as often as there is something to decide.
async fn consider(app: &Inner, tenant: &str, id: &str) -> Result<(), sqlx::Error> {
    // A bound, so that one rollout that was not looked at for months does not keep the others waiting.
    for _ in 0..64 {
        let now = signed(app.clock.seconds());
        let Some(stored) = rollouts::get(&mut *app.store.read().await?, tenant, id).await? else { return Ok(()) };
        if !is_due(&stored, now) || !decide(app, stored, now).await? {
            return Ok(());
        }
    }
    Ok(())
}

fn is_due(stored: &Stored, now: i64) -> bool {
    let renewal = stored.live && stored.expires - now < LIFE / 2;
    let day = stored.rollout.phase().is_under_way() && stored.day_end(stored.days) + GRACE <= now;
    let verdict = stored.rollout.judge(&stored.evidence, crate::store::unsigned(now)).verdict;
    renewal || day || verdict != Verdict::Hold
}

/// One step, in one transaction; `false` when another replica was first.
async fn decide(app: &Inner, mut stored: Stored, now: i64) -> Result<bool, sqlx::Error> {
    let mut tx = app.store.write().await?;
    let day = stored.days;
    let closes = stored.rollout.phase().is_under_way() && stored.day_end(day) + GRACE <= now;
    // Days are judged one by one as of their end, also when several are due.
    let at = if closes { stored.day_end(day).max(stored.entered) } else { now };
    if closes {
        close(&mut tx, &mut stored, day).await?;
        stored.days += 1;
    }
    let mut trial = stored.rollout;
    trial.step(&stored.evidence, crate::store::unsigned(at));
    if ends_comparison(&trial, &stored) {
        close_part(&mut tx, &mut stored, now).await?;
    }
    let moves = step(app, &mut tx, &mut stored, (at, now), closes).await?;
    if !moves && stored.live && stored.expires - now < LIFE / 2 {
        renew(&mut tx, &mut stored, now).await?;
    }
    if !rollouts::update(&mut tx, &stored).await? {
        app.metrics.conflicts.add(1);
        return Ok(false);
    }
    tx.commit().await?;
    app.metrics.decisions.add(u64::from(moves));
    Ok(true)
}

/// Judges as of a moment and does what the verdict says; whether the rollout moved. A verdict that holds is kept if `always`.
async fn step(
    app: &Inner,
    tx: &mut crate::store::Connection,
    stored: &mut Stored,
    (at, now): (i64, i64),
    always: bool,
) -> Result<bool, sqlx::Error> {
    let before = (stored.rollout.phase(), stored.rollout.stage());
    let decision = stored.rollout.step(&stored.evidence, crate::store::unsigned(at));
    let after = (stored.rollout.phase(), stored.rollout.stage());
    if always || decision.verdict != Verdict::Hold {
        stored.verdicts += 1;
        let verdict = rollouts::Verdict {
            n: stored.verdicts,
            time: now,
            stage: decision.stage.into(),
            verdict: format!("{:?}", decision.verdict),
            reason: decision.to_string(),
            numbers: serde_json::to_string(&decision).map_err(|e| sqlx::Error::Encode(e.into()))?,
        };
        rollouts::add_verdict(tx, &stored.tenant, &stored.id, &verdict).await?;
    }
    if after == before {
        return Ok(false);
    }
    if after.0 == Phase::RolledBack {
        stored.takes_back = stored.base.is_some();
    }
    moved(tx, stored, before, at.max(now)).await?;
    recall(tx, stored, true, "server", now).await?;
    announce(app, tx, stored, &decision, now).await?;
    tracing::info!(tenant = stored.tenant, rollout = stored.id, decision = %decision, "a rollout moved");
    Ok(true)
}

/// Documents with a new sequence.
async fn renew(tx: &mut crate::store::Connection, stored: &mut Stored, now: i64) -> Result<(), sqlx::Error> {
    stored.sequence = rollouts::next_sequence(tx, &stored.tenant, &stored.name, now).await?;
    (stored.signed, stored.expires) = (now, now + LIFE);
    Ok(())
}

/// What follows from another phase or stage.
async fn moved(
    tx: &mut crate::store::Connection,
    stored: &mut Stored,
    before: (Phase, u8),
    now: i64,
) -> Result<(), sqlx::Error> {
    let phase = stored.rollout.phase();
    let epoch = phase == Phase::Running && matches!(before.0, Phase::Draft | Phase::Paused);
    if stored.rollout.stage() != before.1 || epoch {
        stored.enter(now, epoch);
        // The arms grow differently from stage to stage. Devices that often are bad would be used up in the one that was
        // there before, and not in the one that is new.
        exposures::forget_bad(tx, &stored.tenant, &stored.id, epoch).await?;
    }
    if phase == Phase::Completed {
        rollouts::retire(tx, stored).await?;
    }
    renew(tx, stored, now).await
}

/// Orders devices off the candidates that they are to leave, and ends the recall of a candidate that everybody gets.
///
/// `reverts` says whether devices that serve a candidate leave it on a rollback.
async fn recall(
    tx: &mut crate::store::Connection,
    stored: &Stored,
    reverts: bool,
    ordered_by: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    let tenant = stored.tenant.as_str();
    let phase = stored.rollout.phase();
    let everybody = match phase {
        Phase::Completed => stored.candidates.get(usize::from(stored.rollout.chosen())),
        Phase::RolledBack => None,
        _ => return Ok(()),
    };
    if let Some(chosen) = everybody {
        recalls::release(tx, tenant, chosen).await?;
        recalls::redirect(tx, (tenant, &stored.name, &stored.target), chosen).await?;
    }
    // A draft that never started was on no device; other rollouts may have brought its candidate.
    let never_started = stored.rollout.attempt() == 1 && stored.started == 0;
    if phase == Phase::RolledBack && never_started {
        return Ok(());
    }
    for candidate in &stored.candidates {
        if Some(candidate) == everybody {
            continue;
        }
        let order = Recall {
            tenant: tenant.to_owned(),
            digest: candidate.clone(),
            name: stored.name.clone(),
            target: stored.target.clone(),
            base: everybody.cloned().or_else(|| stored.base.clone()),
            keeps: phase == Phase::RolledBack && !reverts,
            rollout: stored.id.clone(),
            ordered_by: ordered_by.to_owned(),
            ordered: now,
            ordered_sequence: stored.sequence,
            open: true,
        };
        recalls::order(tx, &order).await?;
    }
    Ok(())
}

/// The playbook's steps when a model turns out worse than it should be.
pub(crate) const STEPS: [&str; 6] = ["pause", "capture", "label", "retrain", "shadow", "canary"];

/// What to do next, for whoever gets the alert.
fn playbook(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::RolledBack => {
            ("capture", "capture inputs on affected devices, label them, retrain, try in the shadow, canary")
        }
        Phase::Paused => {
            ("look", "look at the reason; then resume, or abort and capture, label, retrain, shadow, canary")
        }
        Phase::Awaiting => ("approve", "somebody else than who started it looks at the numbers and approves or aborts"),
        Phase::Running => ("watch", "the next stage has begun"),
        Phase::Completed => ("keep", "the candidate is the new base; publish the next against it"),
        Phase::Draft => ("start", "start it when it should begin"),
    }
}

async fn announce(
    app: &Inner,
    tx: &mut crate::store::Connection,
    stored: &Stored,
    decision: &Decision,
    now: i64,
) -> Result<(), sqlx::Error> {
    let phase = stored.rollout.phase();
    let kind = match phase {
        Phase::RolledBack => "rollback",
        Phase::Paused => "pause",
        Phase::Awaiting => "approval",
        Phase::Completed => "completed",
        _ => "advance",
    };
    let (next, step) = playbook(phase);
    let detail = json!({
        "rollout": stored.id, "model": stored.name, "candidates": stored.candidates, "base": stored.base,
        "decision": decision, "phase": format!("{phase:?}"),
        "playbook": { "steps": STEPS, "next": next, "do": step },
    });
    let text = format!("{} ({}): {decision}; next: {step}", stored.id, stored.name);
    alerts::raise(tx, &stored.tenant, now, &stored.id, kind, &text, &detail).await?;
    app.metrics.alerts.add(1);
    let short = json!({ "verdict": decision.verdict, "reason": decision.reason.to_string(), "stage": decision.stage });
    audit::append(tx, &stored.tenant, now, "server", &format!("rollout.{kind}"), &stored.id, &short).await
}

/// What a person does to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Pause,
    Resume,
    Abort {
        revert: bool,
    },
    /// Of several candidates the one that everybody gets, if the last stage is left by it.
    Approve {
        candidate: Option<u8>,
    },
    Advance,
    Waive,
    /// A draft again.
    Retry,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "rollout.start",
            Self::Pause => "rollout.pause",
            Self::Resume => "rollout.resume",
            Self::Abort { .. } => "rollout.abort",
            Self::Approve { .. } => "rollout.approve",
            Self::Advance => "rollout.advance.by_hand",
            Self::Waive => "rollout.waive",
            Self::Retry => "rollout.retry",
        }
    }

    /// Whether it has been done already, so that doing it again changes nothing.
    fn is_done(self, stored: &Stored) -> bool {
        match self {
            Self::Start => stored.rollout.phase().is_under_way(),
            Self::Pause => stored.rollout.phase() == Phase::Paused,
            Self::Resume => stored.rollout.phase() == Phase::Running,
            Self::Abort { revert } => stored.rollout.phase() == Phase::RolledBack && stored.takes_back == revert,
            Self::Retry => stored.rollout.phase() == Phase::Draft && stored.rollout.attempt() > 1,
            Self::Waive => stored.rollout.waived(),
            Self::Approve { .. } | Self::Advance => false,
        }
    }

    /// Whether it is about the stage that somebody saw. The others are about the rollout, wherever it has come to: who
    /// wants it stopped wants so in the next stage too.
    fn is_of_a_stage(self) -> bool {
        matches!(self, Self::Approve { .. } | Self::Advance | Self::Waive)
    }
}

/// What became of somebody's wish.
#[derive(Debug)]
pub(crate) struct Acted {
    /// The rollout as it is now.
    pub(crate) stored: Stored,
    /// Whether this request did something; not if it had been done already, or the stage was left.
    pub(crate) changed: bool,
}

/// Characters that a reason has at most.
pub(crate) const MAX_REASON: usize = 200;

/// Returns a person's reason as it is kept: on one line, without control characters.
///
/// # Errors
/// 422 when it is longer than [`MAX_REASON`].
pub(crate) fn reason(text: &str) -> ApiResult<String> {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let reason = words.join(" ");
    match reason.chars().count() {
        0..=MAX_REASON => Ok(reason),
        n => Err(ApiError::unacceptable(
            format!("the reason has {n} characters, more than {MAX_REASON}"),
            "shorten it, and link to what says more",
        )),
    }
}

/// Does what somebody wants. `stage` is the stage they saw, so that a request to leave it that comes twice leaves one;
/// `reason` is kept in the audit log.
pub(crate) async fn act(
    app: &Inner,
    who: &Principal,
    id: &str,
    action: Action,
    stage: Option<u8>,
    reason: &str,
) -> ApiResult<Acted> {
    let tenant = who.tenant.id.as_str();
    for _ in 0..5 {
        let now = signed(app.clock.seconds());
        let mut tx = app.store.write().await?;
        let found = rollouts::get(&mut tx, tenant, id).await?;
        let mut stored = found.ok_or_else(|| ApiError::missing("rollout", id))?;
        if action.is_done(&stored) {
            return Ok(Acted { stored, changed: false });
        }
        if let Some(seen) = stage.filter(|_| action.is_of_a_stage())
            && seen != stored.rollout.stage()
        {
            // The stage was left since; by this very request, if it comes again.
            return if seen < stored.rollout.stage() {
                Ok(Acted { stored, changed: false })
            } else {
                Err(ApiError::conflict(
                    format!(
                        "the rollout is in stage {}, not {}",
                        u16::from(stored.rollout.stage()) + 1,
                        u16::from(seen) + 1
                    ),
                    "read its status again",
                ))
            };
        }
        if leaves(&stored, action, now) {
            // What there is of the day counts before the stage or the epoch ends; it may be what takes the candidate back.
            catch_up(&mut tx, &mut stored, now).await?;
            let decision = stored.rollout.judge(&stored.evidence, crate::store::unsigned(now));
            if decision.verdict == Verdict::Rollback {
                step(app, &mut tx, &mut stored, (now, now), true).await?;
                if rollouts::update(&mut tx, &stored).await? {
                    tx.commit().await?;
                    app.metrics.decisions.add(1);
                    return Err(ApiError::conflict(
                        format!("the candidate was taken back instead: {decision}"),
                        "look at the verdict's numbers; retry is what starts it again",
                    ));
                }
                app.metrics.conflicts.add(1);
                continue;
            }
        }
        let before = (stored.rollout.phase(), stored.rollout.stage());
        perform(app, &mut tx, who, &mut stored, action, now).await?;
        if (stored.rollout.phase(), stored.rollout.stage()) != before {
            moved(&mut tx, &mut stored, before, now).await?;
        }
        if matches!(action, Action::Abort { .. }) || stored.rollout.phase() == Phase::Completed {
            recall(&mut tx, &stored, stored.takes_back, &who.name, now).await?;
        }
        let mut entry =
            json!({ "stage": before.1, "phase": format!("{:?}", stored.rollout.phase()), "action": detail(action) });
        if !reason.is_empty() {
            entry["reason"] = reason.into();
        }
        audit::append(&mut tx, tenant, now, &who.name, action.name(), id, &entry).await?;
        if rollouts::update(&mut tx, &stored).await? {
            tx.commit().await?;
            stored.version += 1;
            return Ok(Acted { stored, changed: true });
        }
        app.metrics.conflicts.add(1);
    }
    Err(ApiError::unavailable("the rollout is being written by others"))
}

/// Believes a device no more: its requests are refused, and it counts in no rollout. To do it again changes nothing.
pub(crate) async fn revoke(app: &Inner, who: &Principal, device: &str, reason: &str) -> ApiResult<Revoked> {
    let tenant = who.tenant.id.as_str();
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    if devices::revoke(&mut tx, tenant, device, &who.name, now).await? {
        exposures::forget_device(&mut tx, tenant, device).await?;
        recalls::forget_device(&mut tx, tenant, device).await?;
        let detail = json!({ "reason": reason });
        audit::append(&mut tx, tenant, now, &who.name, "device.revoke", device, &detail).await?;
    }
    let revoked = devices::revoked(&mut tx, tenant, device).await?;
    tx.commit().await?;
    revoked.ok_or_else(|| ApiError::missing("device", device))
}

/// Whether a stage or an epoch ends by it.
fn leaves(stored: &Stored, action: Action, now: i64) -> bool {
    let mut trial = stored.rollout;
    let now = crate::store::unsigned(now);
    match action {
        Action::Resume => trial.phase() == Phase::Paused,
        Action::Advance => trial.advance(now).is_ok() && ends_comparison(&trial, stored),
        Action::Approve { .. } => trial.approve(now).is_ok() && ends_comparison(&trial, stored),
        _ => false,
    }
}

/// Whether what a rollout would become is in another stage, or through with the last.
fn ends_comparison(trial: &Rollout, stored: &Stored) -> bool {
    trial.stage() != stored.rollout.stage()
        || trial.phase() == Phase::Completed && stored.rollout.phase().is_under_way()
}

/// Counts the days that are due, and what there is of the one that has begun.
async fn catch_up(tx: &mut crate::store::Connection, stored: &mut Stored, now: i64) -> Result<(), sqlx::Error> {
    for _ in 0..64 {
        let day = stored.days;
        if stored.day_end(day) + GRACE > now {
            break;
        }
        close(tx, stored, day).await?;
        stored.days += 1;
    }
    close_part(tx, stored, now).await
}

fn detail(action: Action) -> Value {
    match action {
        Action::Abort { revert } => json!({ "revert": revert }),
        Action::Approve { candidate } => json!({ "candidate": candidate }),
        _ => Value::Null,
    }
}

async fn perform(
    app: &Inner,
    tx: &mut crate::store::Connection,
    who: &Principal,
    stored: &mut Stored,
    action: Action,
    now: i64,
) -> ApiResult<()> {
    let tenant = who.tenant.id.as_str();
    let seconds = crate::store::unsigned(now);
    let not_now = |e: dunlin_rollout::rollout::RolloutError| {
        ApiError::conflict(e.to_string(), "read the rollout's status to see what can be done now")
    };
    match action {
        Action::Start => {
            if stored.rollout.phase() != Phase::Draft {
                let phase = stored.rollout.phase();
                let hint = match phase {
                    Phase::RolledBack => "retry it, which makes it a draft again, and start that",
                    _ => "draft another rollout",
                };
                return Err(ApiError::conflict(format!("the rollout is no draft but {phase:?}"), hint));
            }
            let roots = crate::store::tenants::roots(tx, tenant).await?;
            let root = crate::documents::root_of(&roots)
                .map_err(|e| ApiError::conflict(e, "put the tenant's root with PUT /v1/root"))?;
            let key = app.documents.key(tenant).map_err(ApiError::unavailable)?;
            crate::documents::may_sign(&root, &key)
                .map_err(|e| ApiError::conflict(e, "sign a root that gives the server's key the role rollout"))?;
            // Taking the model's row first lets one start after the other.
            renew(tx, stored, now).await?;
            if let Some(other) = rollouts::under_way(tx, tenant, &stored.name, &stored.id).await? {
                return Err(ApiError::conflict(
                    format!("the rollout {other:?} of this model is under way"),
                    "let it end or abort it first: two at once cannot be told apart",
                ));
            }
            if let Some(base) = &stored.base
                && let Some(recall) = recalls::get(tx, tenant, base).await?.filter(|r| !r.keeps)
            {
                let instead =
                    recall.base.map_or_else(String::new, |b| format!(" and go to {}", b.get(..12).unwrap_or(&b)));
                return Err(ApiError::conflict(
                    format!("the base is recalled by the rollout {:?}: devices leave it{instead}", recall.rollout),
                    "draft the rollout with another base",
                ));
            }
            // By the settings of this moment: a draft may be older than they are.
            let two = who.tenant.settings.two_person;
            if two {
                stored.rollout.ask_before(approval::of_two(stored.rollout.plan())).map_err(not_now)?;
            }
            if approval::before_start(stored.rollout.plan(), two) {
                let attempt = i64::from(stored.rollout.attempt());
                let by = rollouts::approved_start(tx, tenant, &stored.id, attempt).await?;
                if !by.is_some_and(|by| !two || by != who.name) {
                    return Err(ApiError::conflict(
                        "somebody else has to approve before it starts",
                        "have them approve the draft with POST /v1/rollouts/{rollout}/approve, or start what you approved",
                    ));
                }
            }
            stored.rollout.start(seconds).map_err(not_now)?;
            (stored.started, stored.live) = (now, true);
            stored.started_by.clone_from(&who.name);
        }
        Action::Pause => stored.rollout.pause().map_err(not_now)?,
        Action::Resume => {
            stored.rollout.resume(&mut stored.evidence, seconds).map_err(not_now)?;
        }
        Action::Abort { revert } => {
            if revert && stored.base.is_none() {
                return Err(ApiError::unacceptable(
                    "the rollout has no base to go back to",
                    "abort with keep, or publish and roll out another package",
                ));
            }
            if stored.rollout.phase() != Phase::RolledBack {
                stored.rollout.rollback().map_err(not_now)?;
            } else {
                renew(tx, stored, now).await?;
            }
            stored.takes_back = revert;
        }
        Action::Approve { .. } if stored.rollout.phase() == Phase::Draft => {
            if !approval::before_start(stored.rollout.plan(), who.tenant.settings.two_person) {
                return Err(ApiError::conflict("it needs no approval to start", "start it"));
            }
            let at = (i64::from(stored.rollout.attempt()), rollouts::START);
            rollouts::approve(tx, (tenant, &stored.id), at, &who.name, now).await?;
        }
        Action::Approve { candidate } => {
            if who.tenant.settings.two_person && who.name == stored.started_by {
                return Err(ApiError::forbidden(
                    "who started a rollout does not approve it",
                    "have somebody else with the role approver do it",
                ));
            }
            let candidates = stored.rollout.plan().candidates();
            if let Some(chosen) = candidate {
                stored.rollout.choose(chosen).map_err(|e| {
                    ApiError::unacceptable(e.to_string(), "candidates are counted from 0, as they were given")
                })?;
            } else if candidates > 1 {
                return Err(ApiError::unacceptable(
                    "there are several candidates",
                    "say by `candidate` which of them everybody gets, counted from 0",
                ));
            }
            let at = (i64::from(stored.rollout.attempt()), i64::from(stored.rollout.stage()));
            stored.rollout.approve(seconds).map_err(not_now)?;
            rollouts::approve(tx, (tenant, &stored.id), at, &who.name, now).await?;
        }
        Action::Advance => stored.rollout.advance(seconds).map_err(not_now)?,
        Action::Waive => {
            if stored.rollout.phase() != Phase::Running {
                return Err(ApiError::conflict(
                    "margins are waived of a stage that is under way",
                    "read the rollout's status to see what can be done now",
                ));
            }
            stored.rollout.waive();
        }
        Action::Retry => {
            let attempt = (stored.rollout.attempt() + 1).to_string();
            let salt = Salt::new(app.seal.mark(&["salt", tenant, &stored.id, &attempt]).as_bytes());
            stored.rollout.retry(salt).map_err(not_now)?;
            stored.evidence = fresh_evidence(&stored.rollout);
            (stored.started, stored.live, stored.takes_back) = (0, false, false);
            stored.started_by.clear();
            // Devices are assigned anew. What became of them the last time is in verdicts and audit.
            exposures::forget(tx, tenant, &stored.id).await?;
        }
    }
    Ok(())
}

/// Evidence for each candidate, with the metrics that the rules ask for and reports have.
pub(crate) fn fresh_evidence(rollout: &Rollout) -> Vec<Evidence> {
    let declare = |candidate| {
        let mut evidence = Evidence::new(rollout.epoch(), candidate);
        for name in crate::telemetry::METRICS.into_iter().filter_map(Name::new) {
            // There are fewer names than places.
            let _ = evidence.declare(name);
        }
        evidence
    };
    (0..rollout.plan().candidates()).map(declare).collect()
}
