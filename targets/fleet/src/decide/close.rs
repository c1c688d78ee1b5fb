//! From what the devices of a day were like to evidence.

use dunlin_rollout::{Both, Count, Evidence, EvidenceError, Guardrail, Hop, Name, Side};

use crate::store::days::{self, Alike, Values};
use crate::store::exposures::{self, CONTROL, Way};
use crate::store::rollouts::Stored;
use crate::store::{Connection, unsigned};

/// Seconds that a device has to have been assigned before it is expected to have come anywhere.
const HEAD_START: i64 = 6 * 3600;

/// Adds a day that has ended to the evidence.
pub(super) async fn close(tx: &mut Connection, stored: &mut Stored, day: i64) -> Result<(), sqlx::Error> {
    let (tenant, id) = (stored.tenant.clone(), stored.id.clone());
    let end = stored.day_end(day);
    let mut alike = days::close(tx, (&tenant, &id), (day, end), stored.takes_turns()).await?;
    alike.extend(days::close_late(tx, &tenant, &id, stored.day_base).await?);
    let today = Today {
        paired: stored.takes_turns(),
        stage: stored.rollout.stage(),
        alike,
        values: days::first_values(tx, &tenant, &id, day).await?,
        ways: exposures::ways(tx, &tenant, &id, end - HEAD_START, stored.entered).await?,
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
        let number = |of: &dyn Fn(&Alike) -> Both<bool>| {
            if self.paired {
                Both::new(self.total(&|a| of(a).canary), self.total(&|a| of(a).control))
            } else {
                let of_arm = |arm: i64| self.total(&|a| a.arm == arm && of(a).canary);
                Both::new(of_arm(canary), of_arm(CONTROL))
            }
        };
        evidence.days(self.stage, number(&|a| a.reported), number(&|a| Both::new(!a.late, !a.late)));
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
        let bad = |a: &Alike| at_risk(a) && if silence { !a.reported.canary } else { a.bad.canary & bit != 0 };
        Count::new(self.total(&bad), self.total(&at_risk))
    }

    /// Half days of devices that take turns, the candidate's and the base's. Always as many of both, and of the same
    /// devices: what is known of one half only is compared with nothing.
    fn halves(&self, guardrail: Guardrail) -> (Count, Count) {
        let bit = 1i64 << guardrail as u8;
        let silence = guardrail == Guardrail::Silence;
        // Who took the candidate back has no hours of it any more, and is not silent for that.
        let back = |a: &Alike| a.bad.canary & 1 << Guardrail::FailedStart as u8 != 0;
        let at_risk = |a: &Alike| {
            is_at_risk(a, guardrail, a.reported.canary && a.reported.control) && !(silence && back(a))
        };
        let bad = |a: &Alike, bits: i64, reported: bool| at_risk(a) && if silence { !reported } else { bits & bit != 0 };
        let of = self.total(&at_risk);
        let with = self.total(&|a| bad(a, a.bad.canary, a.reported.canary));
        let without = self.total(&|a| bad(a, a.bad.control, a.reported.control));
        (Count::new(with, of), Count::new(without, of))
    }
}

/// Whether a day counts for a guardrail: until the first bad one. Who did not report can be silent or have failed to start;
/// nothing else is known of it. Both were counted when the day was closed, should its reports be late.
fn is_at_risk(of: &Alike, guardrail: Guardrail, reported: bool) -> bool {
    let says = matches!(guardrail, Guardrail::Silence | Guardrail::FailedStart);
    of.was_bad & 1 << guardrail as u8 == 0 && if says { !of.late } else { reported }
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
