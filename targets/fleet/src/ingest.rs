//! Polls go to the database many at a time: one commit, one sync of the disk, for all that came together.
//!
//! Nothing is answered before it is committed. What a device is offered is decided in the transaction that notes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dunlin_rollout::rollout::Exposure as Reach;
use dunlin_rollout::{Arm, Audience, Guardrail, Phase, Subject};
use dunlin_update::{Outcome, Rejection};
use tokio::sync::{mpsc, oneshot};

use crate::documents::Terms;
use crate::error::ApiError;
use crate::hex::{hex, unhex_array};
use crate::server::Inner;
use crate::store::devices::{self, Device, Said};
use crate::store::exposures::{self, CONTROL, Exposure, REST};
use crate::store::reports::{self, Received};
use crate::store::rollouts::{self, Stored};
use crate::store::{Connection, signed, unsigned};
use crate::telemetry::{DISAGREEMENT, Metrics, Reading};
use crate::wire::{PHASES, Poll};

/// Polls in one transaction.
const BATCH: usize = 256;
/// Polls that wait; more are sent away with Retry-After.
const QUEUE: usize = 4096;

/// A poll to be taken.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) device: Device,
    pub(crate) nonce: u64,
    pub(crate) poll: Poll,
    pub(crate) readings: Vec<Reading>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is stored; this is to be offered.
    Stored(Option<Terms>),
    /// Its nonce is not newer than the last.
    Replayed,
}

type Waiting = (Job, oneshot::Sender<Result<Taken, ()>>);

/// The way in.
#[derive(Clone, Debug)]
pub(crate) struct Ingest(Vec<mpsc::Sender<Waiting>>);

impl Ingest {
    /// Channels for `workers` transactions at once; run [`work`] on each receiver.
    pub(crate) fn new(workers: usize) -> (Self, Vec<mpsc::Receiver<Waiting>>) {
        let (senders, receivers) = (0..workers).map(|_| mpsc::channel(QUEUE)).unzip();
        (Self(senders), receivers)
    }

    /// Takes a poll, and returns when it is committed.
    pub(crate) async fn take(&self, job: Job) -> Result<Taken, ApiError> {
        // All polls of a device go the same way, so that they stay in order.
        let first = job.device.id.bytes().fold(0usize, |n, b| n.wrapping_mul(31).wrapping_add(usize::from(b)));
        let (reply, answer) = oneshot::channel();
        let sender = self.0.get(first % self.0.len().max(1)).ok_or_else(|| ApiError::unavailable("shutting down"))?;
        sender.try_send((job, reply)).map_err(|_| ApiError::too_many("the fleet", 5))?;
        match answer.await {
            Ok(Ok(taken)) => Ok(taken),
            _ => Err(ApiError::unavailable("the poll was not stored")),
        }
    }
}

/// Takes polls until nobody can send any more.
pub(crate) async fn work(app: Arc<Inner>, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        let (mut jobs, replies): (Vec<Job>, Vec<_>) = waiting.drain(..).unzip();
        match commit(&app, &mut jobs).await {
            Ok(all) => replies.into_iter().zip(all).for_each(|(reply, taken)| drop(reply.send(Ok(taken)))),
            Err(error) => {
                // One of them may be to blame; the others should not suffer for it.
                tracing::warn!(%error, polls = jobs.len(), "polls are taken one by one");
                for (job, reply) in jobs.into_iter().zip(replies) {
                    let taken = commit(&app, &mut [job]).await;
                    let taken = taken.map(|mut t| t.pop().unwrap_or(Taken::Replayed));
                    let _ = reply.send(taken.map_err(|error| tracing::error!(%error, "a poll was not stored")));
                }
            }
        }
    }
}

async fn commit(app: &Inner, jobs: &mut [Job]) -> Result<Vec<Taken>, sqlx::Error> {
    // Rows are locked in one order, whoever locks them.
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|a, b| {
        let id = |i: &usize| jobs.get(*i).map(|j| j.device.id.as_str());
        id(a).cmp(&id(b)).then(a.cmp(b))
    });
    let mut tx = app.store.write().await?;
    let now = signed(app.clock.seconds());
    let mut live: HashMap<String, Vec<Stored>> = HashMap::new();
    let mut taken = vec![Taken::Replayed; jobs.len()];
    for i in order {
        let (Some(job), Some(place)) = (jobs.get(i), taken.get_mut(i)) else { continue };
        let tenant = &job.device.tenant;
        if !live.contains_key(tenant) {
            live.insert(tenant.clone(), rollouts::live(&mut tx, tenant).await?);
        }
        let rollouts = live.get(tenant).map(Vec::as_slice).unwrap_or_default();
        *place = one(app, &mut tx, job, rollouts, now).await?;
    }
    tx.commit().await?;
    Ok(taken)
}

async fn one(app: &Inner, tx: &mut Connection, job: &Job, live: &[Stored], now: i64) -> Result<Taken, sqlx::Error> {
    let (device, poll) = (&job.device, &job.poll);
    let running = poll.running.map(|d| hex(&d));
    let phase = PHASES.get(usize::from(poll.phase)).map_or_else(|| "?".to_owned(), |p| format!("{p:?}"));
    let last = poll.last.map(|(digest, outcome)| (hex(&digest), format!("{outcome:?}")));
    let mut newest = (device.boot, device.seq);
    let mut missed = 0;
    for report in &poll.reports {
        let at = (i64::from(report.boot), i64::from(report.seq));
        if at > newest {
            missed += if at.0 == newest.0 { (at.1 - newest.1 - 1).max(0) } else { 0 };
            newest = at;
        }
    }
    let said = Said {
        tenant: &device.tenant,
        id: &device.id,
        now,
        nonce: signed(job.nonce),
        model: &poll.model,
        running: running.as_deref(),
        phase: &phase,
        last: last.as_ref().map(|(d, o)| (d.as_str(), o.as_str())),
        newest,
        missed,
    };
    if !devices::heard(tx, &said).await? {
        return Ok(Taken::Replayed);
    }
    if device.running != running {
        crate::store::exposures::runs_now(tx, &device.tenant, &device.id, running.as_deref()).await?;
    }
    let mut fresh = Vec::new();
    for (report, reading) in poll.reports.iter().zip(&job.readings) {
        let ran = poll.running.filter(|d| d.starts_with(&reading.model.to_be_bytes()));
        let received = Received {
            tenant: &device.tenant,
            device: &device.id,
            boot: report.boot.into(),
            seq: report.seq.into(),
            arrived: now,
            digest: ran.map(|d| hex(&d)).filter(|_| reading.known),
            arm: reading.arm,
            known: reading.known,
            payload: &report.bytes,
        };
        if reports::insert(tx, &received).await? {
            app.metrics.reports.add(1);
            app.metrics.unknown.add(u64::from(!reading.known));
            fresh.push(reading);
        } else {
            app.metrics.duplicates.add(1);
        }
    }
    let mut offer = None;
    for stored in live.iter().filter(|s| s.name == poll.model) {
        let terms = follow(tx, job, stored, &fresh, now).await?;
        // A rollout that is under way counts before what is completed.
        if terms.is_some() && (offer.is_none() || is_under_way(stored.rollout.phase())) {
            offer = terms;
        }
    }
    app.metrics.offers.add(u64::from(offer.is_some()));
    Ok(Taken::Stored(offer))
}

fn is_under_way(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Awaiting | Phase::Paused)
}

/// A device's place in one rollout: noted, and what it should be offered.
async fn follow(
    tx: &mut Connection,
    job: &Job,
    stored: &Stored,
    fresh: &[&Reading],
    now: i64,
) -> Result<Option<Terms>, sqlx::Error> {
    let (device, poll) = (&job.device, &job.poll);
    if !stored.fits(&device.target) {
        return Ok(None);
    }
    // The one by which the device itself finds its place.
    let Some(identity) = device.identity() else { return Ok(None) };
    let running = poll.running.map(|d| hex(&d));
    let runs = stored.candidates.iter().position(|c| running.as_ref() == Some(c));
    let before = exposures::get(tx, &device.tenant, &stored.id, &device.id).await?;
    let phase = stored.rollout.phase();
    let eligible = stored.base.as_ref().is_none_or(|b| running.as_ref() == Some(b)) || runs.is_some();
    if before.is_none() && !eligible && phase != Phase::Completed {
        return Ok(None);
    }
    let subject = Subject {
        identity: &identity,
        ring: device.ring.and_then(|r| u8::try_from(r).ok()),
        hour: u32::try_from(now / 3600).unwrap_or(u32::MAX),
        input: 0,
    };
    let part = stored.rollout.assign(&subject);
    // In the shadow stage the candidate runs beside the base, which goes on serving.
    let in_shadow = part.installs.is_some() && part.serves.is_none() && is_under_way(phase);
    let arm = match part.arm {
        Arm::Rest => REST,
        Arm::Control => CONTROL,
        Arm::Candidate(n) => i64::from(n) + 1,
    };
    if before.is_none() && arm == REST && part.installs.is_none() {
        return Ok(None);
    }
    // The end of a candidate on this device, if that is what ended last.
    let ended = poll.last.filter(|(prefix, _)| {
        stored.candidates.iter().any(|c| unhex_array::<32>(c).is_some_and(|d| d.starts_with(prefix)))
    });
    let reverted = matches!(ended, Some((_, Outcome::Reverted(_))));
    let first = Exposure {
        arm,
        assigned: now,
        seen: now,
        polls: 0,
        offered: None,
        downloaded: None,
        activated: None,
        reported: None,
        runs: false,
        outcome: None,
    };
    let is_new_end = before.as_ref().is_none_or(|e| !e.outcome.as_ref().is_some_and(|o| o.starts_with("Reverted")));
    let mut now_is = before.unwrap_or(first);
    if is_under_way(phase) {
        now_is.arm = arm;
    }
    // Between reports a shadow is taken to go on.
    let had_shadow = now_is.outcome.as_deref() == Some(SHADOW);
    let goes_on = runs.is_none() && (fresh.iter().any(|r| r.shadows) || had_shadow && fresh.iter().all(|r| !r.known));
    let runs_shadow = goes_on && (in_shadow || !is_offered(phase));
    (now_is.seen, now_is.polls, now_is.runs) = (now, now_is.polls + 1, runs.is_some() || runs_shadow);
    now_is.outcome = match ended {
        Some((_, outcome)) => Some(format!("{outcome:?}")),
        None if runs_shadow => Some(SHADOW.into()),
        None => now_is.outcome.filter(|o| o != SHADOW),
    };
    // The control arm has nothing to fetch; it takes as many polls as a device needs that does.
    let (downloaded, activated) = match now_is.arm {
        CONTROL => (now_is.polls >= 2, now_is.polls >= 3),
        _ if in_shadow => (runs_shadow || matches!(poll.phase, 3..=5), runs_shadow),
        _ => (runs.is_some() || reverted || matches!(poll.phase, 3..=5), runs.is_some() || reverted),
    };
    now_is.downloaded = now_is.downloaded.or(downloaded.then_some(now));
    now_is.activated = now_is.activated.or(activated.then_some(now));
    let known = fresh.iter().filter(|r| r.known).count();
    if now_is.activated.is_some() && known > 0 {
        now_is.reported = now_is.reported.or(Some(now));
    }
    let terms = match goes_on {
        // It runs there already.
        true if in_shadow => None,
        // Told to run what serves, a device ends its shadow.
        true if !is_offered(phase) => poll.running.map(|digest| terms(stored, digest, stored.sequence, Audience::ALL)),
        _ => offer(tx, job, stored, (part.installs, &identity[..]), ended, now).await?,
    };
    if terms.is_some() {
        now_is.offered = now_is.offered.or(Some(now));
    }
    exposures::put(tx, &device.tenant, &stored.id, &device.id, &now_is).await?;
    if now_is.arm >= CONTROL && now_is.activated.is_some() && is_under_way(phase) {
        let serves = now_is.arm == CONTROL || in_shadow;
        let expected = if serves { poll.running } else { candidate(stored, now_is.arm - 1) };
        let mut days: BTreeMap<i64, (u8, i64, Metrics)> = BTreeMap::new();
        if reverted && is_new_end {
            days.entry(stored.day(now)).or_default().0 |= 1 << Guardrail::FailedStart as u8;
        }
        // The newest report ends now, and each before it where the next began.
        let mut end = now;
        for reading in fresh.iter().rev().filter(|r| r.known) {
            // What was measured before the stage says that the device is there now.
            let day = stored.day(if end < stored.entered { now } else { end });
            end -= i64::from(reading.seconds);
            let (bad, reports, sums) = days.entry(day).or_default();
            *reports += 1;
            // Reports of what ran before say that the device is there, and nothing about the candidate.
            if expected.is_some_and(|d| d.starts_with(&reading.model.to_be_bytes())) {
                *bad |= reading.bad;
                crate::telemetry::add(sums, &reading.metrics);
                if now_is.arm == CONTROL && is_shadow(stored) {
                    // What the base would say in its own shadow: a candidate's margin is measured from here.
                    sums.insert(DISAGREEMENT.into(), (0.0, 1.0));
                }
            }
        }
        let key = (device.tenant.as_str(), stored.id.as_str(), device.id.as_str());
        for (day, (bad, reports, sums)) in days {
            let closed = day < stored.days;
            exposures::add_day(tx, key, (day, closed), (bad, reports), &sums).await?;
        }
    }
    Ok(terms)
}

fn candidate(stored: &Stored, n: i64) -> Option<[u8; 32]> {
    stored.candidates.get(usize::try_from(n).ok()?).and_then(|c| unhex_array(c))
}

/// What a rollout offers a device, if anything.
async fn offer(
    tx: &mut Connection,
    job: &Job,
    stored: &Stored,
    (installs, identity): (Option<u8>, &[u8]),
    ended: Option<([u8; 16], Outcome)>,
    now: i64,
) -> Result<Option<Terms>, sqlx::Error> {
    let poll = &job.poll;
    // What is on trial is not disturbed; documents that have run out are of no use.
    if poll.phase == 5 || stored.expires <= now {
        return Ok(None);
    }
    let running = poll.running.map(|d| hex(&d));
    let runs_candidate = running.as_ref().is_some_and(|r| stored.candidates.contains(r));
    let phase = stored.rollout.phase();
    let (digest, audience) = match phase {
        Phase::Running | Phase::Awaiting => match installs {
            Some(n) => (stored.candidates.get(usize::from(n)), audience(stored, n, identity)),
            None => return Ok(None),
        },
        Phase::Completed => (installs.and_then(|n| stored.candidates.get(usize::from(n))), Audience::ALL),
        Phase::RolledBack if stored.takes_back && runs_candidate => (stored.base.as_ref(), Audience::ALL),
        Phase::RolledBack | Phase::Paused | Phase::Draft => return Ok(None),
    };
    let Some(digest) = digest.filter(|d| running.as_ref() != Some(d)) else { return Ok(None) };
    let Some(bytes) = unhex_array::<32>(digest) else { return Ok(None) };
    if ended.is_some_and(|(prefix, outcome)| bytes.starts_with(&prefix) && is_final(outcome)) {
        return Ok(None);
    }
    let tenant = &job.device.tenant;
    let Some(package) = crate::store::packages::get(tx, tenant, digest).await? else { return Ok(None) };
    if package.target != "any" && package.target != job.device.target {
        return Ok(None);
    }
    if package.counter < i64::from(poll.floor) {
        return Ok(None);
    }
    if phase == Phase::Completed {
        // What is completed brings devices forward, not back.
        let current = match &running {
            Some(r) => crate::store::packages::get(tx, tenant, r).await?,
            None => None,
        };
        // Of several candidates one was chosen; who has another goes over, whichever is newer.
        if !runs_candidate && current.is_some_and(|c| c.number >= package.number) {
            return Ok(None);
        }
    }
    let mut sequence = stored.sequence;
    if poll.rollout > unsigned(sequence) {
        // The device has seen documents of another rollout since; an older one it would refuse.
        sequence = rollouts::renew_sequence(tx, stored, poll.rollout, now).await?;
    }
    Ok(Some(terms(stored, bytes, sequence, audience)))
}

fn terms(stored: &Stored, digest: [u8; 32], sequence: i64, audience: Audience) -> Terms {
    Terms {
        rollout: stored.id.clone(),
        name: stored.name.clone(),
        digest,
        sequence: unsigned(sequence),
        signed: unsigned(stored.signed),
        expires: unsigned(stored.expires),
        audience,
    }
}

/// The outcome of a device that runs a candidate in the shadow.
const SHADOW: &str = "Shadow";

/// Whether the candidate may go to devices.
fn is_offered(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Awaiting | Phase::Completed)
}

/// Whether the candidate runs in the shadow at this stage.
fn is_shadow(stored: &Stored) -> bool {
    let stage = stored.rollout.plan().stage(stored.rollout.stage());
    stage.is_some_and(|s| matches!(s.exposure, Reach::Shadow { .. }))
}

/// Whether a device that ended so will not take the same package again.
fn is_final(outcome: Outcome) -> bool {
    let again = [Rejection::Base, Rejection::Delta, Rejection::Hash, Rejection::Replaced, Rejection::Storage];
    match outcome {
        Outcome::Confirmed => false,
        Outcome::Rejected(reason) => !again.contains(&reason),
        Outcome::Reverted(_) => true,
    }
}

/// Whom a document of the stage is for. Laboratory devices have what later stages bring to few: they get a document that is
/// not about shares.
fn audience(stored: &Stored, candidate: u8, identity: &[u8]) -> Audience {
    let rollout = &stored.rollout;
    let stage = rollout.plan().stage(rollout.stage());
    let audience = stage.map_or(Audience::ALL, |s| s.exposure.audience(rollout.salt(), candidate));
    if audience.reaches(identity) { audience } else { Audience::ALL }
}
