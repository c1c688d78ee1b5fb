//! From what the devices of a day were like to evidence.

use dunlin_rollout::{Both, Count, Evidence, EvidenceError, Guardrail, Hop, Name, Side};

use crate::store::days::{self, Alike, Closing, Values};
use crate::store::devices::SILENT_POLLS;
use crate::store::exposures::{self, CONTROL, Way};
use crate::store::rollouts::{DAY, Stored};
use crate::store::{Connection, tenants, unsigned};

/// Seconds that a device has to have been assigned before it is expected to have come anywhere, at least; and polls.
const HEAD_START: i64 = 6 * 3600;
const HEAD_START_POLLS: i64 = 3;
/// The most days of [`SILENT_POLLS`] that a silent device has let pass.
const SILENT_DAYS: i64 = 14;
/// The least part of the devices heard of that a working server hears of on a day, of those that poll on it.
const NOBODY: f64 = 0.1;

/// Adds a day that has ended to the evidence.
pub(super) async fn close(tx: &mut Connection, stored: &mut Stored, day: i64) -> Result<(), sqlx::Error> {
    let poll = poll_seconds(tx, stored).await?;
    let (begin, end) = (stored.day_end(day) - DAY, stored.day_end(day));
    let silence = (SILENT_POLLS * poll + DAY - 1) / DAY;
    // Within so long every device polls once, and joins.
    let joining = (poll + poll / 2).min(DAY / 4);
    let mut closing = Closing {
        asked: Some(end - silence.clamp(1, SILENT_DAYS) * DAY + joining),
        silence: silence.clamp(1, SILENT_DAYS),
        ..closing(stored, day, (begin, end))
    };
    // A server that heard of nobody says nothing about who is silent.
    let heard = days::heard(tx, (&stored.tenant, &stored.id), &closing).await?;
    if heard.is_some_and(|part| part < NOBODY * (DAY as f64 / poll as f64).min(1.0)) {
        closing.asked = None;
    }
    count(tx, stored, &closing, poll).await
}

/// Adds the elapsed part of the current day, because the stage or the epoch ends.
///
/// A part of a day is no evidence of silence, and no device is expected to have reported on it. Of devices that take turns
/// those count that did so since the day began and reported both halves: hours are drawn evenly, so halves of a part of a
/// day are as comparable as halves of a whole one. If the stage continues, the rest of the day is counted as late reports.
pub(super) async fn close_part(tx: &mut Connection, stored: &mut Stored, now: i64) -> Result<(), sqlx::Error> {
    let poll = poll_seconds(tx, stored).await?;
    let day = stored.day(now).max(stored.days);
    let begin = stored.day_end(day) - DAY;
    let closing = Closing { whole: false, ..closing(stored, day, (begin, now + 1)) };
    count(tx, stored, &closing, poll).await?;
    stored.days = day + 1;
    Ok(())
}

async fn poll_seconds(tx: &mut Connection, stored: &Stored) -> Result<i64, sqlx::Error> {
    let tenant = tenants::get(tx, &stored.tenant).await?;
    Ok(tenant.map_or(1, |t| i64::from(t.settings.poll_seconds.max(1))))
}

fn closing(stored: &Stored, day: i64, (begin, end): (i64, i64)) -> Closing {
    let (epoch_day, entered, paired) = (stored.epoch_day, stored.entered, stored.takes_turns());
    Closing { day, epoch_day, entered, begin, end, whole: true, asked: None, silence: 1, paired }
}

async fn count(tx: &mut Connection, stored: &mut Stored, of: &Closing, poll: i64) -> Result<(), sqlx::Error> {
    let (tenant, id) = (stored.tenant.clone(), stored.id.clone());
    let assigned = of.end - HEAD_START.max(HEAD_START_POLLS * poll);
    let today = Today {
        paired: of.paired,
        whole: of.whole,
        stage: stored.rollout.stage(),
        alike: days::close(tx, (&tenant, &id), of).await?,
        values: days::first_values(tx, (&tenant, &id), of).await?,
        ways: exposures::ways(tx, &tenant, &id, assigned, stored.entered).await?,
    };
    let epoch = stored.rollout.epoch();
    for evidence in stored.evidence.iter_mut().filter(|e| e.epoch() == epoch) {
        today.add(evidence).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    }
    Ok(())
}

/// A day of a stage.
struct Today {
    /// Whether each device is in both arms: the candidate's hours of its day against the base's.
    paired: bool,
    /// Whether the day has ended; `false` for the part of a day before a stage is left.
    whole: bool,
    stage: u8,
    alike: Vec<Alike>,
    values: Vec<Values>,
    ways: Vec<Way>,
}

impl Today {
    fn add(&self, evidence: &mut Evidence) -> Result<(), EvidenceError> {
        let canary = i64::from(evidence.candidate()) + 1;
        for guardrail in Guardrail::ALL {
            let (with, without) = if self.paired {
                self.halves(guardrail)
            } else {
                (self.days(canary, guardrail), self.days(CONTROL, guardrail))
            };
            evidence.count(self.stage, guardrail, with, without)?;
        }
        let (reported, expected) = if self.paired {
            let both = |a: &Alike| a.reported.canary && a.reported.control;
            // Of a part of a day only pairs are expected, and one half alone is neither expected nor counted.
            let counts = |a: &Alike| self.whole || a.late || both(a);
            let reported = |of: fn(&Alike) -> bool| self.total(&|a| of(a) && !a.told && counts(a));
            let expected = self.total(&|a| !a.late && counts(a));
            (
                Both::new(reported(|a| a.reported.canary), reported(|a| a.reported.control)),
                Both::new(expected, expected),
            )
        } else {
            let arms = |of: fn(&Alike) -> bool| {
                let of_arm = |arm: i64| self.total(&|a| a.arm == arm && of(a));
                Both::new(of_arm(canary), of_arm(CONTROL))
            };
            (arms(|a| a.reported.canary && !a.told), arms(|a| !a.late && (a.settled || a.reported.canary)))
        };
        evidence.days(self.stage, reported, expected);
        for (hop, at) in Hop::ALL.into_iter().zip(0usize..) {
            let now = |arm: i64| {
                unsigned(self.ways.iter().find(|w| w.arm == arm).and_then(|w| w.hops.get(at).copied()).unwrap_or(0))
            };
            let known = evidence.devices(self.stage, hop);
            let more = |now: u64, known: u64| u32::try_from(now.saturating_sub(known)).unwrap_or(u32::MAX);
            let (c, k) = (now(canary), now(if self.paired { canary } else { CONTROL }));
            evidence.hop(self.stage, hop, Both::new(more(c, known.canary), more(k, known.control)));
        }
        self.values.iter().try_for_each(|of| value(evidence, of, canary))
    }

    fn total(&self, of: &dyn Fn(&Alike) -> bool) -> u32 {
        let sum: i64 = self.alike.iter().filter(|a| of(a)).map(|a| a.devices).sum();
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// Device-days of an arm.
    fn days(&self, arm: i64, guardrail: Guardrail) -> Count {
        let bit = 1i64 << guardrail as u8;
        let silence = guardrail == Guardrail::Silence;
        let at_risk = |a: &Alike| a.arm == arm && is_at_risk(a, guardrail, a.reported.canary);
        let silent = |a: &Alike| a.heard.is_some_and(|h| !h.canary && !h.control);
        let bad = |a: &Alike| at_risk(a) && if silence { silent(a) } else { a.bad.canary & bit != 0 };
        Count::new(self.total(&bad), self.total(&at_risk))
    }

    /// Half days of devices that take turns, the candidate's and the base's. Always as many of both, and of the same
    /// devices: what is known of one half only is compared with nothing.
    fn halves(&self, guardrail: Guardrail) -> (Count, Count) {
        let bit = 1i64 << guardrail as u8;
        let silence = guardrail == Guardrail::Silence;
        // Who took the candidate back has no hours of it any more, and is not silent for that.
        let back = |a: &Alike| a.bad.canary & 1 << Guardrail::FailedStart as u8 != 0;
        let at_risk =
            |a: &Alike| is_at_risk(a, guardrail, a.reported.canary && a.reported.control) && !(silence && back(a));
        let bad = |a: &Alike, bits: i64, heard: bool| at_risk(a) && if silence { !heard } else { bits & bit != 0 };
        let of = self.total(&at_risk);
        let with = self.total(&|a| bad(a, a.bad.canary, a.heard.is_some_and(|h| h.canary)));
        let without = self.total(&|a| bad(a, a.bad.control, a.heard.is_some_and(|h| h.control)));
        (Count::new(with, of), Count::new(without, of))
    }
}

/// Whether a day counts for a guardrail: until the stage's first bad one. Who did not report can be silent or have failed to
/// start; nothing else is known of it. Of a day that was counted already only what is bad is news.
fn is_at_risk(of: &Alike, guardrail: Guardrail, reported: bool) -> bool {
    let bit = 1i64 << guardrail as u8;
    let is_news = (of.bad.canary | of.bad.control) & bit != 0;
    of.was_bad & bit == 0
        && match guardrail {
            Guardrail::Silence => of.heard.is_some(),
            Guardrail::FailedStart => !of.late || is_news,
            _ => reported && (!of.told || is_news),
        }
}

/// Adds a device's values.
fn value(evidence: &mut Evidence, of: &Values, canary: i64) -> Result<(), EvidenceError> {
    let side = match of.arm {
        CONTROL => Side::Control,
        arm if arm == canary => Side::Canary,
        _ => return Ok(()),
    };
    for (name, (sum, n)) in &of.metrics {
        let Some(metric) = Name::new(name).filter(|n| evidence.moments(*n).is_some()) else { continue };
        match &of.base {
            None => evidence.value(metric, side, sum / n)?,
            Some(base) => {
                let Some((base, m)) = base.get(name) else { continue };
                evidence.pair(metric, Both::new(sum / n, base / m))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
