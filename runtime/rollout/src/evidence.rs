//! What reports say about a candidate beside its control, as sums.
//!
//! Everything in [`Evidence`] is a sum over arrivals, so that shards, gateways and hours merge in any order to the same
//! bits (means: to the same within rounding). One `Evidence` is one candidate in one stratum: devices of one hardware
//! revision, say. Each arrival batch is counted when it arrives, with the exposures it brings, and never edited.
//! Whether a report has been counted before is for [`Attendance`] to say.

mod attendance;
mod moments;
mod pairs;
mod ratio;

use serde::{Deserialize, Serialize};

pub use attendance::{Arrival, Attendance, Counting};
pub use moments::Moments;
pub use pairs::Pairs;
pub use ratio::{R0, RATIOS, Ratio};

use crate::Name;

/// Metrics that one evidence can hold.
pub const MAX_METRICS: usize = 12;

/// What a day of a device is bad by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Guardrail {
    /// The device started after a fault: a crash, or a reset by the watchdog.
    Crash = 0,
    /// The candidate did not start, or the device took it back.
    FailedStart = 1,
    /// An inference failed.
    InferenceError = 2,
    /// The device's own 99th percentile of latency was over its budget.
    DeadlineMiss = 3,
    /// No report within three poll intervals.
    Silence = 4,
}

impl Guardrail {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Crash, Self::FailedStart, Self::InferenceError, Self::DeadlineMiss, Self::Silence];

    /// Its name in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::FailedStart => "failed_start",
            Self::InferenceError => "inference_error",
            Self::DeadlineMiss => "deadline_miss",
            Self::Silence => "silence",
        }
    }

    /// The guardrail of a name; an unknown name is nobody's.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.name() == name)
    }
}

/// The way of a device into the comparison; a fault on it skews the arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Hop {
    /// It asked and was told its arm.
    Assigned = 0,
    /// It has fetched; in the control arm: what it would have to.
    Downloaded = 1,
    /// It has activated; in the control arm: as many polls have passed as that takes.
    Activated = 2,
    /// Its first report after that has come.
    Reported = 3,
}

impl Hop {
    /// All, in the order of the way.
    pub const ALL: [Self; 4] = [Self::Assigned, Self::Downloaded, Self::Activated, Self::Reported];

    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Downloaded => "downloaded",
            Self::Activated => "activated",
            Self::Reported => "reported",
        }
    }
}

/// A number for either arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Both<T> {
    /// Devices with the candidate.
    pub canary: T,
    /// Devices without.
    pub control: T,
}

impl<T> Both<T> {
    /// A number for either arm.
    #[must_use]
    pub const fn new(canary: T, control: T) -> Self {
        Self { canary, control }
    }
}

impl Both<u64> {
    pub(crate) fn add(&mut self, canary: u64, control: u64) {
        self.canary = self.canary.saturating_add(canary);
        self.control = self.control.saturating_add(control);
    }
}

/// Bad device-days among those that a batch of arrivals brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Device-days with at least one bad event.
    pub bad: u32,
    /// Device-days.
    pub of: u32,
}

impl Count {
    /// `bad` of `of`.
    #[must_use]
    pub const fn new(bad: u32, of: u32) -> Self {
        Self { bad, of }
    }
}

/// Which arm a single value is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// With the candidate.
    Canary,
    /// Without.
    Control,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Metric {
    name: Name,
    arms: Both<Moments>,
    pairs: Pairs,
}

impl Metric {
    const fn new(name: Name) -> Self {
        Self { name, arms: Both::new(Moments::NONE, Moments::NONE), pairs: Pairs::NONE }
    }
}

/// What is of one stage only. Of two stages the later one stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Staged {
    stage: u8,
    reported: Both<u64>,
    expected: Both<u64>,
    hops: [Both<u64>; 4],
    counted: [Both<u64>; 5],
    failures: [u64; 5],
}

/// The numbers of one candidate in one stratum. Serializable, and mergeable in any order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    epoch: u32,
    candidate: u8,
    ratios: [Ratio; 5],
    metrics: [Option<Metric>; MAX_METRICS],
    staged: Staged,
    refused: u64,
}

impl Evidence {
    /// No evidence yet, of a rollout's epoch ([`crate::Rollout::epoch`]) and candidate (0 where there is one only).
    #[must_use]
    pub const fn new(epoch: u32, candidate: u8) -> Self {
        const NO_HOP: Both<u64> = Both::new(0, 0);
        let staged = Staged {
            stage: 0,
            reported: NO_HOP,
            expected: NO_HOP,
            hops: [NO_HOP; 4],
            counted: [NO_HOP; 5],
            failures: [0; 5],
        };
        Self { epoch, candidate, ratios: [Ratio::NONE; 5], metrics: [None; MAX_METRICS], staged, refused: 0 }
    }

    /// Empty, of another epoch, with the same metrics declared.
    #[must_use]
    pub fn renewed(&self, epoch: u32) -> Self {
        Self { metrics: self.metrics.map(|m| m.map(|m| Metric::new(m.name))), ..Self::new(epoch, self.candidate) }
    }

    /// Says that values of this metric will come. A rule about any other pauses the rollout.
    ///
    /// # Errors
    /// [`EvidenceError::TooManyMetrics`] after [`MAX_METRICS`].
    pub fn declare(&mut self, metric: Name) -> Result<(), EvidenceError> {
        self.place(metric).map(|_| ())
    }

    fn place(&mut self, name: Name) -> Result<&mut Metric, EvidenceError> {
        let entry = self.metrics.iter_mut().find(|m| m.is_none_or(|m| m.name == name));
        entry.map(|m| m.get_or_insert(Metric::new(name))).ok_or(EvidenceError::TooManyMetrics)
    }

    /// Counts a batch's device-days for one guardrail, once for each guardrail that the batch has news of. A guardrail
    /// for which nothing is ever counted has no data, and no data never passes; zero bad days have to be said.
    ///
    /// # Errors
    /// [`EvidenceError::MoreBadThanDays`]; nothing is counted then.
    pub fn count(
        &mut self,
        stage: u8,
        guardrail: Guardrail,
        canary: Count,
        control: Count,
    ) -> Result<(), EvidenceError> {
        if canary.bad > canary.of || control.bad > control.of {
            return Err(EvidenceError::MoreBadThanDays);
        }
        if let Some(ratio) = self.ratios.get_mut(guardrail as usize) {
            ratio.count(canary, control);
        }
        if let Some(staged) = self.stage_at(stage) {
            let counted = staged.counted.iter_mut().zip(&mut staged.failures).nth(guardrail as usize);
            if let Some((days, failures)) = counted {
                days.add(canary.of.into(), control.of.into());
                *failures = failures.saturating_add(canary.bad.into());
            }
        }
        Ok(())
    }

    /// Counts device-days that reported, and that should have, in a stage. A day that comes late is expected in the
    /// batch of its day and reported in that of its arrival.
    pub fn days(&mut self, stage: u8, reported: Both<u32>, expected: Both<u32>) {
        if let Some(staged) = self.stage_at(stage) {
            staged.reported.add(reported.canary.into(), reported.control.into());
            staged.expected.add(expected.canary.into(), expected.control.into());
        }
    }

    /// Counts different devices that came past a hop, among those seen since the stage began.
    pub fn hop(&mut self, stage: u8, hop: Hop, devices: Both<u32>) {
        if let Some(at) = self.stage_at(stage).and_then(|s| s.hops.get_mut(hop as usize)) {
            at.add(devices.canary.into(), devices.control.into());
        }
    }

    /// Counts one device's value of a declared metric: its mean over its first days in the comparison, once for each
    /// device. Values that are no numbers are counted as refused, and hold the rollout.
    ///
    /// # Errors
    /// [`EvidenceError::UnknownMetric`].
    pub fn value(&mut self, metric: Name, side: Side, value: f64) -> Result<(), EvidenceError> {
        let arms = &mut self.declared(metric)?.arms;
        if !is_countable(value) {
            self.refused = self.refused.saturating_add(1);
            return Ok(());
        }
        match side {
            Side::Canary => arms.canary.add(value),
            Side::Control => arms.control.add(value),
        }
        Ok(())
    }

    /// Counts one device that ran both, in turn: its value of a declared metric with the candidate and without. Once for each
    /// device, and not by [`Self::value`] besides. A pair with a value that is no number counts as one refused.
    ///
    /// # Errors
    /// [`EvidenceError::UnknownMetric`].
    pub fn pair(&mut self, metric: Name, value: Both<f64>) -> Result<(), EvidenceError> {
        let pairs = &mut self.declared(metric)?.pairs;
        if is_countable(value.canary) && is_countable(value.control) {
            pairs.add(value);
        } else {
            self.refused = self.refused.saturating_add(1);
        }
        Ok(())
    }

    fn declared(&mut self, metric: Name) -> Result<&mut Metric, EvidenceError> {
        self.metrics.iter_mut().flatten().find(|m| m.name == metric).ok_or(EvidenceError::UnknownMetric)
    }

    /// The part of a stage: emptied when the stage is a later one, nothing when it is past.
    fn stage_at(&mut self, stage: u8) -> Option<&mut Staged> {
        if stage > self.staged.stage {
            self.staged = Staged { stage, ..Staged::default() };
        }
        (stage == self.staged.stage).then_some(&mut self.staged)
    }

    /// Adds another evidence of the same candidate, epoch and stratum. Each arrival has to be in one of the two only.
    ///
    /// # Errors
    /// [`EvidenceError::Epoch`], [`EvidenceError::Candidate`], [`EvidenceError::TooManyMetrics`]; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), EvidenceError> {
        if self.epoch != other.epoch {
            return Err(EvidenceError::Epoch { ours: self.epoch, theirs: other.epoch });
        }
        if self.candidate != other.candidate {
            return Err(EvidenceError::Candidate);
        }
        let mut merged = *self;
        for metric in other.metrics.iter().flatten() {
            let place = merged.place(metric.name)?;
            place.arms.canary.merge(&metric.arms.canary);
            place.arms.control.merge(&metric.arms.control);
            place.pairs.merge(&metric.pairs);
        }
        merged.ratios.iter_mut().zip(&other.ratios).for_each(|(ours, theirs)| ours.merge(theirs));
        if let Some(staged) = merged.stage_at(other.staged.stage) {
            let theirs = &other.staged;
            staged.reported.add(theirs.reported.canary, theirs.reported.control);
            staged.expected.add(theirs.expected.canary, theirs.expected.control);
            staged.hops.iter_mut().zip(&theirs.hops).for_each(|(a, b)| a.add(b.canary, b.control));
            staged.counted.iter_mut().zip(&theirs.counted).for_each(|(a, b)| a.add(b.canary, b.control));
            staged.failures.iter_mut().zip(&theirs.failures).for_each(|(a, b)| *a = a.saturating_add(*b));
        }
        merged.refused = merged.refused.saturating_add(other.refused);
        *self = merged;
        Ok(())
    }

    /// The epoch it belongs to.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The candidate it is about.
    #[must_use]
    pub const fn candidate(&self) -> u8 {
        self.candidate
    }

    /// The counts and e-process of a guardrail.
    #[must_use]
    pub fn ratio(&self, guardrail: Guardrail) -> Ratio {
        self.ratios.get(guardrail as usize).copied().unwrap_or(Ratio::NONE)
    }

    /// The values of a metric from devices that are in one arm, when it was declared.
    #[must_use]
    pub fn moments(&self, metric: Name) -> Option<Both<Moments>> {
        self.metrics.iter().flatten().find(|m| m.name == metric).map(|m| m.arms)
    }

    /// The values of a metric from devices that ran both, when it was declared.
    #[must_use]
    pub fn pairs(&self, metric: Name) -> Option<Pairs> {
        self.metrics.iter().flatten().find(|m| m.name == metric).map(|m| m.pairs)
    }

    /// Device-days that reported in a stage.
    #[must_use]
    pub fn reported(&self, stage: u8) -> Both<u64> {
        if stage == self.staged.stage { self.staged.reported } else { Both::default() }
    }

    /// Device-days that should have reported in a stage.
    #[must_use]
    pub fn expected(&self, stage: u8) -> Both<u64> {
        if stage == self.staged.stage { self.staged.expected } else { Both::default() }
    }

    /// Devices that came past a hop in a stage.
    #[must_use]
    pub fn devices(&self, stage: u8, hop: Hop) -> Both<u64> {
        let hops = self.staged.hops.get(hop as usize).copied();
        hops.filter(|_| stage == self.staged.stage).unwrap_or_default()
    }

    /// Device-days counted for a guardrail in a stage.
    #[must_use]
    pub fn counted(&self, stage: u8, guardrail: Guardrail) -> Both<u64> {
        let counted = self.staged.counted.get(guardrail as usize).copied();
        counted.filter(|_| stage == self.staged.stage).unwrap_or_default()
    }

    /// Bad device-days of the canary in a stage.
    #[must_use]
    pub fn failures(&self, stage: u8, guardrail: Guardrail) -> u64 {
        let failures = self.staged.failures.get(guardrail as usize).copied();
        failures.filter(|_| stage == self.staged.stage).unwrap_or_default()
    }

    /// Values that were no numbers.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

/// Whether a value is a number whose square is one too.
fn is_countable(value: f64) -> bool {
    (value * value).is_finite()
}

/// Why something was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvidenceError {
    /// A batch with more bad device-days than device-days.
    MoreBadThanDays,
    /// A value of a metric that was not declared.
    UnknownMetric,
    /// More metrics than there is room for.
    TooManyMetrics,
    /// Evidence of another epoch: failures that were acknowledged, or that are to come.
    Epoch {
        /// That of the evidence added to.
        ours: u32,
        /// That of the evidence added.
        theirs: u32,
    },
    /// Evidence of another candidate.
    Candidate,
}

impl core::fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::MoreBadThanDays => f.write_str("a batch has more bad device-days than device-days"),
            Self::UnknownMetric => f.write_str("a value of a metric that was not declared"),
            Self::TooManyMetrics => write!(f, "more than {MAX_METRICS} metrics"),
            Self::Epoch { ours, theirs } => write!(f, "evidence of epoch {theirs} does not go into epoch {ours}"),
            Self::Candidate => f.write_str("evidence of another candidate"),
        }
    }
}

impl core::error::Error for EvidenceError {}

#[cfg(test)]
mod tests;
