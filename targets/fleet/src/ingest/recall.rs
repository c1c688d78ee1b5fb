//! The way back from recalled packages.

use dunlin_rollout::{Audience, Manner};
use dunlin_update::Phase;

use super::Job;
use super::offer::is_final;
use crate::documents::Terms;
use crate::hex::{hex, unhex_array};
use crate::store::recalls::{self, Recall};
use crate::store::{Connection, packages, unsigned};
use crate::wire::PHASES;

/// Recalls that a base is followed through; more would be a circle.
const LONGEST_CHAIN: usize = 64;

/// A device's place among the live rollouts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Whether a live rollout wants it to have the candidate that it has.
    pub(super) kept: bool,
    /// Whether a live rollout offers it something else.
    pub(super) offered: bool,
}

/// Notes whether a device runs a recalled package, and returns the way back if it is to be offered.
pub(super) async fn follow(
    tx: &mut Connection,
    job: &Job,
    recalls: &[Recall],
    standing: Standing,
    now: i64,
) -> Result<Option<Terms>, sqlx::Error> {
    let (device, poll) = (&job.device, &job.poll);
    let ours = fitting(recalls, job);
    if ours.is_empty() {
        return Ok(None);
    }
    let leaving = if standing.kept { None } else { to_leave(&ours, job) };
    if ours.iter().any(|r| r.open) {
        let still = leaving.map(|(recall, _)| recall.digest.as_str());
        recalls::returned(tx, (&device.tenant, &device.id), still, now).await?;
    }
    let Some((recall, way)) = leaving else {
        return if standing.kept || standing.offered { Ok(None) } else { pending(tx, job, &ours, now).await };
    };
    if !recall.open {
        recalls::set_open(tx, (&recall.tenant, &recall.digest), true).await?;
    }
    let key = (device.tenant.as_str(), recall.digest.as_str(), device.id.as_str());
    let digest = match destination(&ours, recall, way, poll.running) {
        Some(digest) => digest,
        None => {
            recalls::found(tx, key, Some("no_base"), now).await?;
            return Ok(None);
        }
    };
    let blocked = obstacle(tx, job, digest).await?;
    recalls::found(tx, key, blocked, now).await?;
    if blocked.is_some() || standing.offered {
        return Ok(None);
    }
    terms(tx, job, recall, digest, now).await.map(Some)
}

/// Returns the recalls of a device's model and target.
fn fitting<'r>(recalls: &'r [Recall], job: &Job) -> Vec<&'r Recall> {
    recalls.iter().filter(|r| r.fits(&job.poll.model, &job.device.target)).collect()
}

/// How a device has a recalled package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It serves.
    Serving,
    /// It runs in the shadow of what serves.
    Shadow,
}

/// Returns the recall that a device has to obey, and how it has the package.
fn to_leave<'r>(recalls: &[&'r Recall], job: &Job) -> Option<(&'r Recall, Way)> {
    let poll = &job.poll;
    if let Some((prefix, Manner::Shadow { .. })) = poll.beside {
        let is = |r: &&&Recall| unhex_array::<32>(&r.digest).is_some_and(|d| d.starts_with(&prefix));
        if let Some(recall) = recalls.iter().find(is) {
            return Some((recall, Way::Shadow));
        }
    }
    let running = hex(&poll.running?);
    let recall = recalls.iter().find(|r| !r.keeps && r.digest == running)?;
    Some((recall, Way::Serving))
}

/// Returns what a device is to run instead. A base that was recalled since leads to its own base.
fn destination(recalls: &[&Recall], recall: &Recall, way: Way, running: Option<[u8; 32]>) -> Option<[u8; 32]> {
    if way == Way::Shadow {
        return running;
    }
    let mut base = recall.base.as_ref()?;
    for _ in 0..LONGEST_CHAIN {
        match recalls.iter().find(|r| !r.keeps && r.digest == *base).and_then(|r| r.base.as_ref()) {
            Some(next) => base = next,
            None => return unhex_array(base),
        }
    }
    None
}

/// Returns why a device cannot run a package, if it cannot.
async fn obstacle(tx: &mut Connection, job: &Job, digest: [u8; 32]) -> Result<Option<&'static str>, sqlx::Error> {
    let poll = &job.poll;
    let Some(package) = packages::get(tx, &job.device.tenant, &hex(&digest)).await? else {
        return Ok(Some("package_deleted"));
    };
    let failed = poll.last.is_some_and(|(prefix, outcome)| digest.starts_with(&prefix) && is_final(outcome));
    let obstacle = match package {
        _ if failed => Some("failed_before"),
        p if p.target != "any" && p.target != job.device.target => Some("target"),
        p if p.counter < i64::from(poll.floor) => Some("security_counter"),
        _ => None,
    };
    Ok(obstacle)
}

/// Returns the document that stops a download of before a recall: that of the package that serves. A device that has seen a
/// newer document fetches what that one says.
async fn pending(tx: &mut Connection, job: &Job, recalls: &[&Recall], now: i64) -> Result<Option<Terms>, sqlx::Error> {
    let poll = &job.poll;
    let phase = PHASES.get(usize::from(poll.phase));
    let is_pending = matches!(phase, Some(Phase::Offered | Phase::Fetching | Phase::Verified | Phase::Staged));
    let newest = recalls.iter().max_by_key(|r| r.ordered_sequence);
    match (newest, poll.running) {
        (Some(recall), Some(running)) if is_pending && poll.rollout < unsigned(recall.ordered_sequence) => {
            if obstacle(tx, job, running).await?.is_some() {
                return Ok(None);
            }
            terms(tx, job, recall, running, now).await.map(Some)
        }
        _ => Ok(None),
    }
}

async fn terms(
    tx: &mut Connection,
    job: &Job,
    recall: &Recall,
    digest: [u8; 32],
    now: i64,
) -> Result<Terms, sqlx::Error> {
    let validity = recalls::validity(tx, recall, job.poll.rollout, now).await?;
    Ok(Terms {
        rollout: recall.rollout.clone(),
        name: recall.name.clone(),
        digest,
        sequence: unsigned(validity.sequence),
        signed: unsigned(validity.signed),
        expires: unsigned(validity.expires),
        audience: Audience::ALL,
        lifts: false,
    })
}
