//! What a rollout offers a device, if anything.

use dunlin_rollout::Phase;
use dunlin_update::{Outcome, Rejection};

use super::Job;
use super::part::{Has, Part, next};
use crate::documents::Terms;
use crate::hex::hex;
use crate::store::rollouts::{self, Stored};
use crate::store::{Connection, packages, unsigned};
use crate::wire::PHASES;

/// What is offered to a device that has this and should have that.
pub(super) async fn offer(
    tx: &mut Connection,
    job: &Job,
    stored: &Stored,
    (has, part): (Has, &Part),
    ended: Option<([u8; 16], Outcome)>,
    now: i64,
) -> Result<Option<Terms>, sqlx::Error> {
    let poll = &job.poll;
    if stored.expires <= now {
        return Ok(None);
    }
    let Some((digest, audience)) = next(stored, poll, has, part) else { return Ok(None) };
    // How the package on trial is to run is told when it is confirmed.
    let on_trial = PHASES.get(usize::from(poll.phase)) == Some(&dunlin_update::Phase::Trial);
    if on_trial && poll.running == Some(digest) {
        return Ok(None);
    }
    if ended.is_some_and(|(prefix, outcome)| digest.starts_with(&prefix) && is_final(outcome)) {
        return Ok(None);
    }
    let tenant = &job.device.tenant;
    let Some(package) = packages::get(tx, tenant, &hex(&digest)).await? else { return Ok(None) };
    if package.target != "any" && package.target != job.device.target {
        return Ok(None);
    }
    if package.counter < i64::from(poll.floor) {
        return Ok(None);
    }
    if stored.rollout.phase() == Phase::Completed && has == Has::Nothing {
        // What is completed brings devices forward, not back. Of several candidates one was chosen; who has another goes
        // over, whichever is newer.
        let current = match &poll.running {
            Some(running) => packages::get(tx, tenant, &hex(running)).await?,
            None => None,
        };
        if current.is_some_and(|c| c.number >= package.number) {
            return Ok(None);
        }
    }
    let mut sequence = stored.sequence;
    if poll.rollout > unsigned(sequence) {
        // The device has seen documents of another rollout since; an older one it would refuse.
        sequence = rollouts::renew_sequence(tx, stored, poll.rollout, now).await?;
    }
    Ok(Some(Terms {
        rollout: stored.id.clone(),
        name: stored.name.clone(),
        digest,
        sequence: unsigned(sequence),
        signed: unsigned(stored.signed),
        expires: unsigned(stored.expires),
        audience,
        lifts: lifts(stored) && stored.candidates.contains(&hex(&digest)),
    }))
}

/// Whether the documents of this attempt lift the candidates' tombstones: those of an attempt that somebody made again.
pub(super) fn lifts(stored: &Stored) -> bool {
    stored.rollout.attempt() > 1
}

/// Whether a device on which a candidate ended so before this attempt may take it in this one.
pub(super) fn may_come_again(stored: &Stored, outcome: Outcome) -> bool {
    let buried = matches!(outcome, Outcome::Reverted(_) | Outcome::Rejected(Rejection::Tombstone));
    !is_final(outcome) || buried && lifts(stored)
}

/// Whether a device that ended so will not take the same package again.
pub(super) fn is_final(outcome: Outcome) -> bool {
    let again = [Rejection::Base, Rejection::Delta, Rejection::Hash, Rejection::Replaced, Rejection::Storage];
    match outcome {
        Outcome::Confirmed => false,
        Outcome::Rejected(reason) => !again.contains(&reason),
        Outcome::Reverted(_) => true,
    }
}
