//! What a rollout decides, and why.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::Phase;
use crate::Name;
use crate::evidence::{Guardrail, Hop};
use crate::gate::Numbers;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The next stage begins.
    Advance,
    /// Nothing changes: there is not enough data.
    Hold,
    /// Nothing changes until a person has looked.
    Pause,
    /// The candidate is taken back.
    Rollback,
}

impl Verdict {
    pub(super) const fn gravity(self) -> u8 {
        match self {
            Self::Advance => 0,
            Self::Hold => 1,
            Self::Pause => 2,
            Self::Rollback => 3,
        }
    }
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// Everything that the stage asks for is there.
    Passed,
    /// Rollback: this guardrail's e-value crossed its bound.
    Guardrail(Guardrail),
    /// Pause: after this hop the arms are not as large as planned; the comparison is void.
    SampleRatio(Hop),
    /// Pause: a failure where none is allowed.
    Failure(Guardrail),
    /// Pause: this metric is worse than allowed.
    Margin(Name),
    /// Pause: nobody collects a metric of this name.
    UnknownMetric(Name),
    /// Pause: the stage's time is over and something is still missing.
    Inconclusive,
    /// Pause: plan or gate have been damaged.
    Unsound,
    /// Hold: the stage has not lasted long enough.
    Soak {
        /// Hours so far.
        hours: u32,
        /// Hours it lasts at least.
        needed: u32,
    },
    /// Hold: too few devices of the canary have reported.
    Devices {
        /// So many have.
        found: u64,
        /// So many it takes.
        needed: u32,
    },
    /// Hold: too few device-days of the canary.
    DeviceDays {
        /// So many there are.
        found: u64,
        /// So many it takes.
        needed: u32,
    },
    /// Hold: this guardrail has no data, or too little.
    NoData(Guardrail),
    /// Hold: so many values were no numbers.
    NotANumber(u64),
    /// Hold: it is not yet certain that this metric's margin is kept.
    Undecided(Name),
    /// Hold: somebody has to approve.
    Approval,
    /// Hold: it is paused.
    Paused,
    /// Hold: it is a draft.
    NotStarted,
    /// Hold: it is through.
    Completed,
    /// Hold: it is rolled back.
    RolledBack,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("everything the stage asks for is there"),
            Self::Guardrail(g) => {
                write!(f, "more bad device-days by {} than the control cohort's rate allows", g.name())
            }
            Self::SampleRatio(hop) => {
                write!(f, "the arms' sizes after the hop '{}' are not as planned: look for lost devices", hop.name())
            }
            Self::Failure(g) => write!(f, "a failure by {} in a stage that allows none", g.name()),
            Self::Margin(name) => write!(f, "{name} is worse than its margin allows"),
            Self::UnknownMetric(name) => write!(f, "nobody collects a metric named {name}: correct the rule"),
            Self::Inconclusive => f.write_str("the stage's time is over and the evidence is not there: inconclusive"),
            Self::Unsound => f.write_str("the plan or the gate is damaged: create the rollout anew"),
            Self::Soak { hours, needed } => write!(f, "{hours} of {needed} hours"),
            Self::Devices { found, needed } => write!(f, "{found} of {needed} devices have reported"),
            Self::DeviceDays { found, needed } => write!(f, "{found} of {needed} device-days"),
            Self::NoData(g) => write!(f, "too little data on {}; none is not zero", g.name()),
            Self::NotANumber(n) => write!(f, "{n} values are no numbers"),
            Self::Undecided(name) => write!(f, "it is not yet certain that {name} keeps its margin: wait, or waive it"),
            Self::Approval => f.write_str("it waits for approval"),
            Self::Paused => f.write_str("it is paused"),
            Self::NotStarted => f.write_str("it has not started"),
            Self::Completed => f.write_str("it is completed"),
            Self::RolledBack => f.write_str("it is rolled back"),
        }
    }
}

/// A verdict with everything it is based on, to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The state in which it was decided.
    pub phase: Phase,
    /// The stage, from 0.
    pub stage: u8,
    /// The epoch.
    pub epoch: u32,
    /// Whole hours since the stage began.
    pub hours: u32,
    /// The numbers of the candidate that decided.
    pub numbers: Numbers,
}

/// Converts the natural logarithm of an e-value to its decimal logarithm, the unit of evidence that people read.
fn log10(ln_e: f64) -> f64 {
    ln_e / core::f64::consts::LN_10
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Advance => "ADVANCE",
            Verdict::Hold => "HOLD",
            Verdict::Pause => "PAUSE",
            Verdict::Rollback => "ROLLBACK",
        };
        // People count stages from 1.
        write!(f, "{verdict} at stage {}: {}", u16::from(self.stage) + 1, self.reason)?;
        if let Reason::Guardrail(guardrail) = self.reason {
            for hard in self.numbers.hard.iter().filter(|h| h.guardrail == guardrail) {
                let (bad, of) = (hard.bad, hard.of);
                write!(f, " ({} of {} against {} of {}", bad.canary, of.canary, bad.control, of.control)?;
                write!(f, ", evidence {:.1} of {:.1})", log10(hard.ln_e), log10(hard.bound))?;
            }
        }
        if let Reason::Margin(name) = self.reason {
            for soft in self.numbers.soft.iter().flatten().filter(|s| s.margin.metric == name) {
                write!(f, " (mean {} against {}", soft.mean.canary, soft.mean.control)?;
                match soft.excess {
                    Some(e) => write!(f, ", beyond the margin by {} to {})", e.low, e.high)?,
                    None => f.write_str(")")?,
                }
            }
        }
        Ok(())
    }
}
