//! The rule that evidence is judged by; `GATES.md` has the formulas, where they come from, and what they were measured
//! to do.
//!
//! [`Gate::measure`] turns evidence into [`Numbers`]; [`crate::Rollout`] turns numbers into a verdict.

mod design;
mod mean;
mod sample;

use serde::{Deserialize, Serialize};

pub use design::Design;
pub use mean::{Interval, interval};
pub use sample::ln_mismatch;

use crate::evidence::{Both, Evidence, Guardrail, Hop, MAX_METRICS, Moments};
use crate::{Name, Share};

/// Which way a metric gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Better {
    /// Less is better: latency, energy.
    Lower,
    /// More is better: accuracy.
    Higher,
}

/// How much worse than the control's mean the candidate's may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Allowed {
    /// By a part of the control's mean: 0.1 is 10 %.
    Relative(f64),
    /// By an amount in the metric's own unit.
    Absolute(f64),
}

/// A rule about the mean of a metric: not worse by more than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    /// The metric.
    pub metric: Name,
    /// Which way it gets better.
    pub better: Better,
    /// How much worse it may be.
    pub allowed: Allowed,
}

impl Margin {
    /// To start from: 95th percentile of latency +10 %, energy +5 %, mean confidence -1 point, which is the accuracy that a
    /// calibrated model estimates of itself. A gate has none unless they are given.
    pub const DEFAULTS: [Self; 3] = [
        Self::new(Name::known("latency_p95"), Better::Lower, Allowed::Relative(0.10)),
        Self::new(Name::known("energy"), Better::Lower, Allowed::Relative(0.05)),
        Self::new(Name::known("confidence"), Better::Higher, Allowed::Absolute(0.01)),
    ];

    /// A rule.
    #[must_use]
    pub const fn new(metric: Name, better: Better, allowed: Allowed) -> Self {
        Self { metric, better, allowed }
    }

    /// `(sign, factor, amount)`: `sign * (canary - factor * control) - amount` is what the candidate is worse beyond the
    /// allowed.
    fn contrast(&self) -> (f64, f64, f64) {
        match (self.better, self.allowed) {
            (Better::Lower, Allowed::Relative(part)) => (1.0, 1.0 + part, 0.0),
            (Better::Higher, Allowed::Relative(part)) => (-1.0, 1.0 - part, 0.0),
            (Better::Lower, Allowed::Absolute(amount)) => (1.0, 1.0, amount),
            (Better::Higher, Allowed::Absolute(amount)) => (-1.0, 1.0, amount),
        }
    }
}

/// The rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Probability, for each guardrail and the whole of an epoch, of rolling back a candidate whose rate of bad
    /// device-days is at most 1.25 times the control's.
    pub alpha: f64,
    /// Probability, for each margin, that its interval is ever wrong.
    pub margin_alpha: f64,
    /// Bit `g`: guardrail `g` has to have data before a stage is left.
    pub required: u8,
    /// The margins.
    pub margins: [Option<Margin>; MAX_METRICS],
    /// Devices of both arms expected when margins are decided; intervals are tightest there.
    pub devices: u32,
    /// Devices that each arm needs before a margin is judged: intervals suppose means that are about normal.
    pub devices_per_arm: u32,
    /// Least part of expected device-days that has to have reported, in each arm, before a margin is judged.
    pub completeness: f64,
    /// The e-value at which the arms' sizes are no longer believed to be as planned.
    pub mismatch: f64,
}

impl Gate {
    /// α = 0.01 for each guardrail and margin, all guardrails required, no margins, e-value of 1000 for the arms' sizes.
    pub const DEFAULT: Self = Self {
        alpha: 0.01,
        margin_alpha: 0.01,
        required: 0b1_1111,
        margins: [None; MAX_METRICS],
        devices: 1000,
        devices_per_arm: 200,
        completeness: 0.8,
        mismatch: 1000.0,
    };

    /// The same with these margins, the first [`MAX_METRICS`] of them.
    #[must_use]
    pub fn with_margins(mut self, margins: &[Margin]) -> Self {
        self.margins = [None; MAX_METRICS];
        self.margins.iter_mut().zip(margins).for_each(|(to, from)| *to = Some(*from));
        self
    }

    /// Whether every number is one that a rule can have.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let probability = |p: f64| p > 0.0 && p < 1.0;
        let margin = |m: &Margin| match m.allowed {
            Allowed::Relative(n) | Allowed::Absolute(n) => n.is_finite() && n >= 0.0,
        };
        probability(self.alpha)
            && probability(self.margin_alpha)
            && (0.0..=1.0).contains(&self.completeness)
            && self.mismatch.is_finite()
            && self.mismatch > 1.0
            && self.devices > 0
            && self.devices_per_arm >= 2
            && self.margins.iter().flatten().all(margin)
    }

    /// The numbers of one candidate of `candidates`, from the evidence of its strata, seen in a stage where a share of
    /// `expected` of the two arms' devices should have the candidate (nothing: the sizes are not compared).
    #[must_use]
    pub fn measure<'e>(
        &self,
        strata: impl Iterator<Item = &'e Evidence> + Clone,
        candidate: u8,
        candidates: u8,
        stage: u8,
        expected: Option<Expected>,
    ) -> Numbers {
        let of_candidate = || strata.clone().filter(move |e| e.candidate() == candidate);
        let total = |get: &dyn Fn(&Evidence) -> Both<u64>| {
            of_candidate().map(get).fold(Both::default(), |mut sum: Both<u64>, n| {
                sum.add(n.canary, n.control);
                sum
            })
        };
        let hard = Guardrail::ALL.map(|guardrail| {
            let ln_e = of_candidate().map(|e| e.ratio(guardrail).ln_e()).sum();
            Hard {
                guardrail,
                bad: total(&|e| e.ratio(guardrail).bad()),
                of: total(&|e| e.ratio(guardrail).of()),
                counted: total(&|e| e.counted(stage, guardrail)),
                failures: of_candidate().fold(0u64, |n, e| n.saturating_add(e.failures(stage, guardrail))),
                ln_e,
                peak: ln_e,
                bound: libm::log(f64::from(candidates.max(1)) / self.alpha),
            }
        });
        let sample = Hop::ALL.map(|hop| {
            let devices = total(&|e| e.devices(stage, hop));
            let ln_e = expected.map_or(0.0, |p| ln_mismatch(devices, p.0));
            Sample { hop, devices, expected: expected.map(|p| p.0), ln_e, bound: libm::log(self.mismatch) }
        });
        let reported = total(&|e| e.reported(stage));
        let due = total(&|e| e.expected(stage));
        let complete = |reported: u64, due: u64| due > 0 && reported as f64 >= self.completeness * due as f64;
        let complete = complete(reported.canary, due.canary) && complete(reported.control, due.control);
        let soft = self.margins.map(|margin| margin.map(|margin| self.soft(&margin, of_candidate(), complete)));
        let refused = of_candidate().fold(0u64, |n, e| n.saturating_add(e.refused()));
        Numbers { candidate, hard, soft, sample, reported, expected: due, refused }
    }

    fn soft<'e>(&self, margin: &Margin, strata: impl Iterator<Item = &'e Evidence> + Clone, complete: bool) -> Soft {
        let (sign, factor, amount) = margin.contrast();
        let mut n = Both::new(0u64, 0u64);
        let mut sums = Both::new(0.0, 0.0);
        // Each stratum's difference counts by its number of devices.
        let (mut weight, mut worse, mut variance) = (0.0, 0.0, 0.0);
        let mut known = false;
        for arms in strata.clone().filter_map(|e| e.moments(margin.metric)) {
            known = true;
            let Both { canary, control } = arms;
            if canary.n() < 2 || control.n() < 2 {
                continue;
            }
            n.canary = n.canary.saturating_add(canary.n());
            n.control = n.control.saturating_add(control.n());
            sums.canary += canary.mean() * canary.n() as f64;
            sums.control += control.mean() * control.n() as f64;
            let part = (canary.n() + control.n()) as f64;
            let of_mean = |m: &Moments| m.variance() / m.n() as f64;
            weight += part;
            worse += part * (sign * (canary.mean() - factor * control.mean()) - amount);
            variance += part * part * (of_mean(&canary) + factor * factor * of_mean(&control));
        }
        // Devices that ran both are strata of their own: each is in both arms, and its difference is one value.
        let mut pairs = 0u64;
        for of in strata.filter_map(|e| e.pairs(margin.metric)).filter(|p| p.n() >= 2) {
            pairs = pairs.saturating_add(of.n());
            let devices = of.n() as f64;
            sums.canary += of.mean().canary * devices;
            sums.control += of.mean().control * devices;
            let part = 2.0 * devices;
            weight += part;
            worse += part * (sign * (of.mean().canary - factor * of.mean().control) - amount);
            variance += part * part * of.variance(factor) / devices;
        }
        n = Both::new(n.canary.saturating_add(pairs), n.control.saturating_add(pairs));
        let mean = Both::new(sums.canary / n.canary.max(1) as f64, sums.control / n.control.max(1) as f64);
        let mut soft = Soft { margin: *margin, n, pairs, mean, excess: None, place: Place::Unknown };
        let least = u64::from(self.devices_per_arm);
        if !known {
            return soft;
        }
        if n.canary < least || n.control < least {
            soft.place = Place::TooFew;
            return soft;
        }
        let excess =
            interval(worse / weight, variance / (weight * weight), weight / f64::from(self.devices), self.margin_alpha);
        soft.excess = Some(excess);
        soft.place = match excess {
            _ if !complete => Place::Incomplete,
            Interval { high, .. } if high <= 0.0 => Place::Inside,
            Interval { low, .. } if low > 0.0 => Place::Outside,
            _ => Place::Undecided,
        };
        soft
    }
}

/// Which share of the compared devices should be in the canary, above 0 and below 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected(f64);

impl Expected {
    /// The share that follows from the arms' shares; nothing when one of them is empty.
    #[must_use]
    pub fn of(canary: Share, control: Share) -> Option<Self> {
        let (canary, control) = (canary.bound(), control.bound());
        (canary > 0 && control > 0).then(|| Self(canary as f64 / (canary + control) as f64))
    }
}

/// A guardrail's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hard {
    /// The guardrail.
    pub guardrail: Guardrail,
    /// Bad device-days.
    pub bad: Both<u64>,
    /// Device-days.
    pub of: Both<u64>,
    /// Device-days counted in this stage.
    pub counted: Both<u64>,
    /// Bad device-days of the canary in this stage.
    pub failures: u64,
    /// Natural logarithm of the e-value.
    pub ln_e: f64,
    /// Natural logarithm of the largest e-value that was looked at in this epoch.
    pub peak: f64,
    /// Natural logarithm of the e-value at which the candidate is taken back.
    pub bound: f64,
}

impl Hard {
    /// Whether the candidate is taken back by it. An e-value that is no number counts as crossed.
    #[must_use]
    pub fn is_crossed(&self) -> bool {
        self.ln_e >= self.bound || self.ln_e.is_nan() || self.bound.is_nan()
    }

    /// A p-value that holds at all looks together: at most 1, 1 over the largest e-value.
    #[must_use]
    pub fn p(&self) -> f64 {
        libm::exp(-self.peak).min(1.0)
    }
}

/// Where an interval lies, seen from its margin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// The metric was never declared: a wrong name, or nobody collects it.
    Unknown,
    /// Fewer devices than it takes.
    TooFew,
    /// Too few of the expected device-days reported.
    Incomplete,
    /// Wholly inside: not worse than allowed.
    Inside,
    /// Wholly outside: worse than allowed.
    Outside,
    /// Neither yet.
    Undecided,
}

/// A margin's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Soft {
    /// The rule.
    pub margin: Margin,
    /// Devices; one that ran both is in either number.
    pub n: Both<u64>,
    /// Devices that ran both.
    #[serde(default)]
    pub pairs: u64,
    /// Means of the devices' values.
    pub mean: Both<f64>,
    /// How much worse than allowed the candidate is, in the metric's unit; negative: better than that.
    pub excess: Option<Interval>,
    /// Where that interval lies.
    pub place: Place,
}

/// The sizes of the arms after a hop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The hop.
    pub hop: Hop,
    /// Devices.
    pub devices: Both<u64>,
    /// The canary's planned share of them.
    pub expected: Option<f64>,
    /// Natural logarithm of the e-value against that share.
    pub ln_e: f64,
    /// Natural logarithm of the e-value at which the comparison is void.
    pub bound: f64,
}

impl Sample {
    /// Whether the sizes cannot be what was planned.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        self.ln_e >= self.bound || self.ln_e.is_nan()
    }
}

/// Everything a verdict is based on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// The candidate.
    pub candidate: u8,
    /// The guardrails.
    pub hard: [Hard; 5],
    /// The margins.
    pub soft: [Option<Soft>; MAX_METRICS],
    /// The arms' sizes.
    pub sample: [Sample; 4],
    /// Device-days that reported in this stage.
    pub reported: Both<u64>,
    /// Device-days that should have.
    pub expected: Both<u64>,
    /// Values that were no numbers.
    pub refused: u64,
}

impl Numbers {
    /// ln of the mean of the guardrails' e-values: an e-value for all of them together.
    #[must_use]
    pub fn ln_e(&self) -> f64 {
        let top = self.hard.iter().map(|h| h.ln_e).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self.hard.iter().map(|h| libm::exp(h.ln_e - top)).sum();
        top + libm::log(sum / self.hard.len() as f64)
    }
}

#[cfg(test)]
mod tests;
