//! Polls go to the database many at a time: one commit, one sync of the disk, for all that came together.
//!
//! Nothing is answered before it is committed. What a device is offered is decided in the transaction that notes it.

mod follow;
mod offer;
mod part;
mod recall;

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_rollout::Manner;
use tokio::sync::{mpsc, oneshot};

use crate::documents::Terms;
use crate::error::ApiError;
use crate::hex::{hex, unhex_array};
use crate::server::Inner;
use crate::store::devices::{self, Device, Said};
use crate::store::recalls::{self, Recall};
use crate::store::reports::{self, Received};
use crate::store::rollouts::{self, Stored};
use crate::store::{Connection, signed};
use crate::telemetry::{CONTROL_ARM, Reading};
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

    /// Returns how many polls wait, and how many may.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let waiting = self.0.iter().map(|s| s.max_capacity() - s.capacity()).sum();
        (waiting, self.0.iter().map(mpsc::Sender::max_capacity).sum())
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
    let mut standing: HashMap<String, Orders> = HashMap::new();
    let mut taken = vec![Taken::Replayed; jobs.len()];
    for i in order {
        let (Some(job), Some(place)) = (jobs.get(i), taken.get_mut(i)) else { continue };
        let tenant = &job.device.tenant;
        if !standing.contains_key(tenant) {
            standing.insert(tenant.clone(), Orders::read(&mut tx, tenant).await?);
        }
        let Some(orders) = standing.get(tenant) else { continue };
        *place = one(app, &mut tx, job, orders, now).await?;
    }
    tx.commit().await?;
    Ok(taken)
}

/// What a tenant's devices are to be told.
struct Orders {
    live: Vec<Stored>,
    recalls: Vec<Recall>,
}

impl Orders {
    async fn read(tx: &mut Connection, tenant: &str) -> Result<Self, sqlx::Error> {
        let live = rollouts::live(tx, tenant).await?;
        let recalls = recalls::list(tx, tenant).await?;
        Ok(Self { live, recalls })
    }
}

async fn one(app: &Inner, tx: &mut Connection, job: &Job, orders: &Orders, now: i64) -> Result<Taken, sqlx::Error> {
    let live = orders.live.as_slice();
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
        flags: signed(poll.flags),
    };
    if !devices::heard(tx, &said).await? {
        return Ok(Taken::Replayed);
    }
    if device.running != running {
        crate::store::exposures::runs_now(tx, &device.tenant, &device.id, running.as_deref()).await?;
    }
    let mut fresh = Vec::new();
    for (report, reading) in poll.reports.iter().zip(&job.readings) {
        let received = Received {
            tenant: &device.tenant,
            device: &device.id,
            boot: report.boot.into(),
            seq: report.seq.into(),
            arrived: now,
            digest: Some(reading).filter(|r| r.known).and_then(|r| measured(r, job, live)),
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
    let mut kept = false;
    for stored in live.iter().filter(|s| s.name == poll.model) {
        let followed = follow::follow(tx, job, stored, &fresh, now).await?;
        kept |= followed.kept;
        // A rollout that is under way counts before what is completed.
        if followed.offer.is_some() && (offer.is_none() || stored.rollout.phase().is_under_way()) {
            offer = followed.offer;
        }
    }
    let standing = recall::Standing { kept, offered: offer.is_some() };
    let way_back = recall::follow(tx, job, &orders.recalls, standing, now).await?;
    let offer = offer.or(way_back);
    app.metrics.offers.add(u64::from(offer.is_some()));
    Ok(Taken::Stored(offer))
}

/// The digest that a report is about, of which it has the first two bytes: of what the device runs, what it ran at its last
/// poll, and what rollouts of its model are about, the first that fits.
fn measured(reading: &Reading, Job { device, poll, .. }: &Job, live: &[Stored]) -> Option<String> {
    let ours = || live.iter().filter(|s| s.name == poll.model);
    let bases = || ours().flat_map(|s| s.base.iter());
    let fits = |d: &&String| unhex_array::<32>(d).is_some_and(|d| reading.is_of(&d));
    // Of a device that takes turns `running` is the candidate in the base's hours too.
    let turns = matches!(poll.beside, Some((_, Manner::Hourly))) && reading.arm == CONTROL_ARM;
    if turns && let Some(base) = bases().find(fits) {
        return Some(base.clone());
    }
    let running = poll.running.filter(|d| reading.is_of(d)).map(|d| hex(&d));
    let candidates = || ours().flat_map(|s| &s.candidates);
    // What ended last was one of a rollout's, if that is still told to devices.
    let ended = || {
        let (prefix, _) = poll.last?;
        candidates().filter(fits).find(|c| unhex_array::<32>(c).is_some_and(|d| d.starts_with(&prefix)))
    };
    running
        .or_else(|| device.running.iter().find(fits).cloned())
        .or_else(|| ended().cloned())
        .or_else(|| bases().chain(candidates()).find(fits).cloned())
}
