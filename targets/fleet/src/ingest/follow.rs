//! A device's place in one rollout: noted, with what its day was like, and what it should be offered.

use std::collections::BTreeMap;

use dunlin_rollout::{Guardrail, Manner, Phase, Subject};
use dunlin_update::{Outcome, Phase as UpdatePhase};

use super::part::{Has, Part};
use super::{Job, offer};
use crate::documents::Terms;
use crate::hex::{hex, unhex_array};
use crate::store::days::{self, Day};
use crate::store::exposures::{self, Beside, CONTROL, Exposure, REST};
use crate::store::rollouts::Stored;
use crate::store::{Connection, unsigned};
use crate::telemetry::{CONTROL_ARM, DISAGREEMENT, Reading, SHADOW_ARM};
use crate::wire::PHASES;

/// Result of a poll for one rollout.
#[derive(Clone, Debug, Default)]
pub(super) struct Followed {
    /// What the device is to be offered.
    pub(super) offer: Option<Terms>,
    /// Whether the rollout wants the device to have the candidate that it has.
    pub(super) kept: bool,
}

/// Notes a device's place in a rollout; what it is to be offered.
pub(super) async fn follow(
    tx: &mut Connection,
    job: &Job,
    stored: &Stored,
    fresh: &[&Reading],
    now: i64,
) -> Result<Followed, sqlx::Error> {
    let (device, poll) = (&job.device, &job.poll);
    if !stored.fits(&device.target) {
        return Ok(Followed::default());
    }
    // The one by which the device itself finds its place.
    let Some(identity) = device.identity() else { return Ok(Followed::default()) };
    let has = Has::of(stored, poll);
    let before = exposures::get(tx, &device.tenant, &stored.id, &device.id).await?;
    let phase = stored.rollout.phase();
    let running = poll.running.map(|d| hex(&d));
    let eligible = stored.base.as_ref().is_none_or(|b| running.as_ref() == Some(b)) || has != Has::Nothing;
    if before.is_none() && !eligible && phase != Phase::Completed {
        return Ok(Followed::default());
    }
    let subject = Subject {
        identity: &identity,
        ring: device.ring.and_then(|r| u8::try_from(r).ok()),
        hour: u32::try_from(now / 3600).unwrap_or(u32::MAX),
        input: 0,
    };
    let mut part = Part::of(stored, &stored.rollout.assign(&subject));
    // The end of a candidate on this device, if that is what ended last.
    let ended = poll.last.filter(|(prefix, _)| {
        stored.candidates.iter().any(|c| unhex_array::<32>(c).is_some_and(|d| d.starts_with(prefix)))
    });
    let text = ended.map(|(_, outcome)| format!("{outcome:?}"));
    // What ended before the rollout had to do with the device is no news. Once its tombstones are lifted it says nothing,
    // and what it says then is.
    let ended_before = match &before {
        None => text.clone().filter(|e| e != CONFIRMED),
        Some(known) => {
            let lifted = offer::lifts(stored) && known.offered.is_some() && poll.rollout >= unsigned(stored.sequence);
            known.ended_before.clone().filter(|e| text.as_ref() == Some(e) && !lifted)
        }
    };
    let is_old = ended_before.is_some();
    if is_old && has == Has::Nothing && ended.is_some_and(|(_, outcome)| !offer::may_come_again(stored, outcome)) {
        // It cannot take the candidate, whichever arm it would be in.
        part = Part { arm: REST, wants: None };
    }
    let kept = part.wants.is_some_and(|(n, audience)| has.is_kept(n, audience.manner));
    let is_outside = part.arm == REST && part.wants.is_none() && has == Has::Nothing;
    if before.is_none() && is_outside {
        return Ok(Followed::default());
    }
    let reverted = !is_old && matches!(ended, Some((_, Outcome::Reverted(_))));
    let first = Exposure {
        arm: part.arm,
        assigned: now,
        seen: now,
        polls: 0,
        offered: None,
        downloaded: None,
        activated: None,
        reported: None,
        runs: false,
        beside: Beside::Nothing,
        outcome: None,
        joined: now,
        ended_before: None,
        kept: false,
    };
    let is_new_end = before.as_ref().is_none_or(|e| !e.outcome.as_ref().is_some_and(|o| o.starts_with("Reverted")));
    let mut now_is = before.unwrap_or(first);
    if phase.is_under_way() {
        now_is.arm = part.arm;
    }
    (now_is.seen, now_is.polls) = (now, now_is.polls + 1);
    (now_is.runs, now_is.beside) = (has != Has::Nothing, has.beside());
    now_is.outcome = text.filter(|_| !is_old).or(now_is.outcome);
    now_is.ended_before = ended_before;
    now_is.kept = kept;
    if now_is.joined < stored.entered {
        now_is.joined = now;
    }
    let update_phase = PHASES.get(usize::from(poll.phase)).copied();
    let staged =
        update_phase.is_some_and(|p| matches!(p, UpdatePhase::Verified | UpdatePhase::Staged | UpdatePhase::Trial));
    let (downloaded, activated) = match (now_is.arm, part.manner()) {
        // The control arm has nothing to fetch; it takes as many polls as a device needs that does.
        (CONTROL, _) => (now_is.polls >= 2, now_is.polls >= 3),
        // The candidate runs beside the base, which goes on serving.
        (_, Some(Manner::Shadow { .. })) => (staged || now_is.runs, matches!(has, Has::Shadow(..))),
        (_, Some(Manner::Hourly)) => (staged || now_is.runs || reverted, matches!(has, Has::Turns(_)) || reverted),
        _ => {
            let serves = matches!(has, Has::Serving(_));
            (staged || now_is.runs || reverted, serves || reverted)
        }
    };
    now_is.downloaded = now_is.downloaded.or(downloaded.then_some(now));
    now_is.activated = now_is.activated.or(activated.then_some(now));
    let known = fresh.iter().filter(|r| r.known).count();
    if now_is.activated.is_some() && known > 0 {
        now_is.reported = now_is.reported.or(Some(now));
    }
    let ended = ended.filter(|(_, outcome)| !(is_old && offer::may_come_again(stored, *outcome)));
    let terms = offer::offer(tx, job, stored, (has, &part), ended, now).await?;
    if terms.is_some() {
        now_is.offered = now_is.offered.or(Some(now));
    }
    exposures::put(tx, &device.tenant, &stored.id, &device.id, &now_is).await?;
    if now_is.arm >= CONTROL && phase.is_under_way() {
        let (running, activated) = (poll.running, now_is.activated);
        let seen = Seen { stored, arm: now_is.arm, running, activated, now };
        let mut of = seen.days(fresh);
        if reverted && is_new_end {
            seen.day(&mut of, now).part.bad |= 1 << Guardrail::FailedStart as u8;
        }
        let key = (device.tenant.as_str(), stored.id.as_str(), device.id.as_str());
        for (day, more) in of {
            days::add(tx, key, day, &more).await?;
        }
    }
    Ok(Followed { offer: terms, kept })
}

/// How an update ended that went well, as it is noted.
const CONFIRMED: &str = "Confirmed";

/// Of which device reports are read, and when.
struct Seen<'a> {
    stored: &'a Stored,
    arm: i64,
    running: Option<[u8; 32]>,
    activated: Option<i64>,
    now: i64,
}

impl Seen<'_> {
    fn day<'d>(&self, days: &'d mut BTreeMap<i64, Day>, moment: i64) -> &'d mut Day {
        // What was measured before the stage comes with its first day.
        let day = self.stored.day(if moment < self.stored.entered { self.now } else { moment });
        let paired = self.stored.takes_turns();
        days.entry(day).or_insert_with(|| Day { paired, ..Day::default() })
    }

    /// What reports say about the device's days.
    fn days(&self, fresh: &[&Reading]) -> BTreeMap<i64, Day> {
        let mut days = BTreeMap::new();
        // The newest report ends now, and each before it where the next began.
        let mut end = self.now;
        for reading in fresh.iter().rev().filter(|r| r.known) {
            let moment = end;
            end -= i64::from(reading.seconds);
            if self.stored.takes_turns() {
                // Before it took turns all its hours were the base's.
                if self.activated.is_some_and(|activated| moment > activated) && moment >= self.stored.epoch_began {
                    self.half(self.day(&mut days, moment), reading);
                }
            } else if moment < self.stored.epoch_began {
                // It says that the device is there; what was bad has been seen by whoever resumed.
                self.day(&mut days, moment).base.reports += 1;
            } else {
                self.whole(self.day(&mut days, moment), reading);
            }
        }
        days
    }

    /// A report of a device that is in one arm.
    fn whole(&self, day: &mut Day, reading: &Reading) {
        let in_shadow = matches!(self.stored.manner(0), Manner::Shadow { .. });
        let is_of = |digest: Option<[u8; 32]>| digest.is_some_and(|d| reading.is_of(&d));
        let is_about = match self.arm {
            CONTROL => is_of(self.running),
            _ if in_shadow => is_of(self.running) && reading.arm == SHADOW_ARM,
            n => is_of(self.digest(usize::try_from(n - 1).ok().and_then(|n| self.stored.candidates.get(n)))),
        };
        // Reports of what else ran say that the device is there and what it is bad by anyway; nothing about the candidate.
        let part = if is_about { &mut day.part } else { &mut day.base };
        part.reports += 1;
        part.bad |= reading.bad;
        crate::telemetry::add(&mut part.metrics, &reading.metrics);
        if self.arm == CONTROL && in_shadow && is_about {
            // What the base would say in its own shadow: a candidate's margin is measured from here.
            part.metrics.insert(DISAGREEMENT.into(), (0.0, 1.0));
        }
    }

    /// A report of a device that takes turns: it counts for the package that it is about.
    fn half(&self, day: &mut Day, reading: &Reading) {
        let is_of = |digest: Option<&String>| self.digest(digest).is_some_and(|d| reading.is_of(&d));
        let (base, candidate) = (is_of(self.stored.base.as_ref()), is_of(self.stored.candidates.first()));
        let part = match (base, candidate) {
            // The same two bytes: then it is as the device says.
            (true, true) if reading.arm == CONTROL_ARM => &mut day.base,
            (_, true) => &mut day.part,
            (true, false) => &mut day.base,
            (false, false) => return,
        };
        part.reports += 1;
        part.bad |= reading.bad;
        crate::telemetry::add(&mut part.metrics, &reading.metrics);
    }

    fn digest(&self, hex: Option<&String>) -> Option<[u8; 32]> {
        hex.and_then(|text| unhex_array(text))
    }
}
