//! A rollout: stages, a state, and the verdicts that move it.

mod decision;
mod exposure;
pub mod phase;
mod stage;

use serde::{Deserialize, Serialize};

pub use decision::{Decision, Reason, Verdict};
pub use exposure::{Assignment, Exposure, MAX_CANDIDATES, Subject};
pub use phase::{Event, Phase};
pub use stage::{MAX_STAGES, Margins, Plan, PlanError, Stage, Strategy};

use crate::cohort::{Arm, Salt};
use crate::evidence::{Evidence, Guardrail, Hop};
use crate::gate::{Gate, Numbers, Place};

/// A rollout. All of it is its state: to be stored whole, and read again by whoever decides next.
///
/// [`Rollout::step`] judges and moves; [`Rollout::judge`] only says what it would do. The moment is given, in seconds
/// since any fixed origin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    plan: Plan,
    gate: Gate,
    salt: Salt,
    attempt: u16,
    phase: Phase,
    stage: u8,
    since: u64,
    epoch: u32,
    waived: bool,
    chosen: u8,
    /// By candidate and guardrail.
    peaks: [[f64; 5]; MAX_CANDIDATES],
    acknowledged: [u64; 5],
}

impl Rollout {
    /// A draft.
    ///
    /// # Errors
    /// [`RolloutError::Gate`] when the gate is not sound.
    pub fn new(plan: Plan, gate: Gate, salt: Salt) -> Result<Self, RolloutError> {
        if !gate.is_sound() {
            return Err(RolloutError::Gate);
        }
        Ok(Self {
            plan,
            gate,
            salt,
            attempt: 1,
            phase: Phase::Draft,
            stage: 0,
            since: 0,
            epoch: 0,
            waived: false,
            chosen: 0,
            peaks: [[0.0; 5]; MAX_CANDIDATES],
            acknowledged: [0; 5],
        })
    }

    /// What it would do now with this evidence: one for each candidate and stratum. Evidence of another epoch is not
    /// looked at.
    #[must_use]
    pub fn judge(&self, strata: &[Evidence], now: u64) -> Decision {
        // The gravest verdict of all candidates; of equals the first.
        let mut worst = self.decision(self.numbers(strata, 0), now);
        for candidate in 1..self.plan.candidates() {
            let decision = self.decision(self.numbers(strata, candidate), now);
            if decision.verdict.gravity() > worst.verdict.gravity() {
                worst = decision;
            }
        }
        worst
    }

    /// The numbers of one candidate that [`judge`](Self::judge) looks at.
    #[must_use]
    pub fn numbers(&self, strata: &[Evidence], candidate: u8) -> Numbers {
        let ours = strata.iter().filter(|e| e.epoch() == self.epoch);
        let expected = self.plan.stage(self.stage).and_then(|s| s.exposure.expected());
        let mut numbers = self.gate.measure(ours, candidate, self.plan.candidates(), self.stage, expected);
        let peaks = self.peaks.get(usize::from(candidate)).into_iter().flatten();
        numbers.hard.iter_mut().zip(peaks).for_each(|(hard, peak)| hard.peak = hard.peak.max(*peak));
        numbers
    }

    fn decision(&self, numbers: Numbers, now: u64) -> Decision {
        let hours = (now.saturating_sub(self.since) / 3600).try_into().unwrap_or(u32::MAX);
        let (verdict, reason) = self.verdict(&numbers, hours);
        Decision { verdict, reason, phase: self.phase, stage: self.stage, epoch: self.epoch, hours, numbers }
    }

    fn verdict(&self, numbers: &Numbers, hours: u32) -> (Verdict, Reason) {
        match self.phase {
            Phase::Draft => return (Verdict::Hold, Reason::NotStarted),
            Phase::RolledBack => return (Verdict::Hold, Reason::RolledBack),
            _ => {}
        }
        // First and in every state: is it worse?
        if let Some(hard) = numbers.hard.iter().find(|h| h.is_crossed()) {
            return (Verdict::Rollback, Reason::Guardrail(hard.guardrail));
        }
        match self.phase {
            Phase::Paused => return (Verdict::Hold, Reason::Paused),
            Phase::Completed => return (Verdict::Hold, Reason::Completed),
            _ => {}
        }
        let Some(stage) = self.plan.stage(self.stage).filter(|_| self.gate.is_sound()) else {
            return (Verdict::Pause, Reason::Unsound);
        };
        if let Some(reason) = self.objection(numbers, stage) {
            return (Verdict::Pause, reason);
        }
        if self.phase == Phase::Awaiting {
            return (Verdict::Hold, Reason::Approval);
        }
        match self.missing(numbers, stage, hours) {
            None => (Verdict::Advance, Reason::Passed),
            Some(_) if hours >= stage.limit => (Verdict::Pause, Reason::Inconclusive),
            Some(reason) => (Verdict::Hold, reason),
        }
    }

    /// What a person has to look at.
    fn objection(&self, numbers: &Numbers, stage: &Stage) -> Option<Reason> {
        if let Some(sample) = numbers.sample.iter().find(|s| s.is_mismatch()) {
            return Some(Reason::SampleRatio(sample.hop));
        }
        if stage.zero_failures
            && let Some(hard) = numbers.hard.iter().find(|h| h.failures > 0)
        {
            return Some(Reason::Failure(hard.guardrail));
        }
        // A wrong name is found in the first stage that has reports, not in the one that needs the metric.
        let asked = numbers.reported.canary > 0;
        let soft = || numbers.soft.iter().flatten();
        if let Some(soft) = soft().find(|s| asked && s.place == Place::Unknown) {
            return Some(Reason::UnknownMetric(soft.margin.metric));
        }
        let outside = soft().find(|s| stage.margins != Margins::Ignored && s.place == Place::Outside);
        outside.map(|s| Reason::Margin(s.margin.metric))
    }

    /// What is still missing before the stage may be left.
    fn missing(&self, numbers: &Numbers, stage: &Stage, hours: u32) -> Option<Reason> {
        if hours < stage.soak {
            return Some(Reason::Soak { hours, needed: stage.soak });
        }
        let devices = numbers.sample.iter().find(|s| s.hop == Hop::Reported).map_or(0, |s| s.devices.canary);
        if devices < stage.devices.into() {
            return Some(Reason::Devices { found: devices, needed: stage.devices });
        }
        let days = numbers.reported;
        if days.canary < stage.device_days.into() {
            return Some(Reason::DeviceDays { found: days.canary, needed: stage.device_days });
        }
        let compared = stage.exposure.has_control();
        let least = self.gate.completeness * f64::from(stage.device_days);
        for hard in numbers.hard.iter().filter(|h| self.gate.required & 1 << h.guardrail as u8 != 0) {
            let enough = hard.counted.canary > 0 && hard.counted.canary as f64 >= least;
            if !enough || compared && hard.counted.control == 0 {
                return Some(Reason::NoData(hard.guardrail));
            }
        }
        if numbers.refused > 0 {
            return Some(Reason::NotANumber(numbers.refused));
        }
        let undecided = numbers.soft.iter().flatten().find(|s| s.place != Place::Inside);
        let undecided = undecided.filter(|_| stage.margins == Margins::Inside && !self.waived);
        undecided.map(|s| Reason::Undecided(s.margin.metric))
    }

    /// Judges, and does what the verdict says.
    pub fn step(&mut self, strata: &[Evidence], now: u64) -> Decision {
        let decision = self.judge(strata, now);
        for candidate in 0..self.plan.candidates() {
            let hard = self.numbers(strata, candidate).hard;
            let peaks = self.peaks.get_mut(usize::from(candidate)).into_iter().flatten();
            peaks.zip(hard).for_each(|(peak, hard)| *peak = hard.peak);
        }
        // The table has a step for each verdict that a state gives: a test walks them.
        let _ = match decision.verdict {
            Verdict::Hold => Ok(()),
            Verdict::Rollback => self.take(Event::Rollback),
            Verdict::Pause => self.take(Event::Pause),
            Verdict::Advance => self.pass(now),
        };
        decision
    }

    fn take(&mut self, event: Event) -> Result<(), RolloutError> {
        self.phase = self.phase.after(event).ok_or(RolloutError::NotNow { phase: self.phase, event })?;
        Ok(())
    }

    fn enter(&mut self, stage: u8, now: u64) {
        (self.stage, self.since, self.waived) = (stage, now, false);
    }

    /// Leaves a stage that is passed.
    fn pass(&mut self, now: u64) -> Result<(), RolloutError> {
        let chosen = self
            .plan
            .stage(self.stage)
            .is_some_and(|s| matches!(s.exposure, Exposure::Variants { .. } | Exposure::Crossover { .. }));
        match self.plan.stage(self.stage.saturating_add(1)) {
            None if chosen => self.take(Event::Ask),
            None => self.take(Event::Finish),
            Some(next) if next.approval => self.take(Event::Ask),
            Some(_) => {
                self.take(Event::Advance)?;
                self.enter(self.stage + 1, now);
                Ok(())
            }
        }
    }

    /// Begins the first stage.
    ///
    /// # Errors
    /// [`RolloutError::NotNow`] when it is no draft.
    pub fn start(&mut self, now: u64) -> Result<(), RolloutError> {
        self.take(Event::Start)?;
        self.enter(0, now);
        Ok(())
    }

    /// Somebody says that what waits for approval may go on.
    ///
    /// # Errors
    /// [`RolloutError::NotNow`] when nothing waits.
    pub fn approve(&mut self, now: u64) -> Result<(), RolloutError> {
        if self.plan.stage(self.stage.saturating_add(1)).is_none() {
            return self.take(Event::Finish);
        }
        self.take(Event::Approve)?;
        self.enter(self.stage + 1, now);
        Ok(())
    }

    /// Somebody says that the next stage begins although this one is not passed. To be kept with their name.
    ///
    /// # Errors
    /// [`RolloutError::NotNow`] when no stage is under way.
    pub fn advance(&mut self, now: u64) -> Result<(), RolloutError> {
        if self.phase != Phase::Running {
            return Err(RolloutError::NotNow { phase: self.phase, event: Event::Advance });
        }
        self.pass(now)
    }

    /// Somebody has to approve before a stage begins; of a draft.
    ///
    /// # Errors
    /// [`RolloutError::NotNow`] when it is no draft.
    pub fn ask_before(&mut self, stage: u8) -> Result<(), RolloutError> {
        if self.phase != Phase::Draft {
            return Err(RolloutError::NotNow { phase: self.phase, event: Event::Ask });
        }
        self.plan = self.plan.with_approval(stage);
        Ok(())
    }

    /// Whether somebody said that this stage may be left without its margins being kept for certain.
    #[must_use]
    pub const fn waived(&self) -> bool {
        self.waived
    }

    /// Somebody says that this stage may be left without margins being kept for certain.
    pub fn waive(&mut self) {
        self.waived = true;
    }

    /// Which candidate everybody gets at the end; 0 unless said.
    ///
    /// # Errors
    /// [`RolloutError::Candidate`] when there is no such.
    pub fn choose(&mut self, candidate: u8) -> Result<(), RolloutError> {
        if candidate >= self.plan.candidates() {
            return Err(RolloutError::Candidate);
        }
        self.chosen = candidate;
        Ok(())
    }

    /// Somebody wants it to stay where it is.
    ///
    /// # Errors
    /// [`RolloutError::NotNow`] when nothing is under way.
    pub fn pause(&mut self) -> Result<(), RolloutError> {
        self.take(Event::Pause)
    }

    /// Somebody has seen the failures. Only new evidence counts from now on: a new epoch begins, the stage's time too, and
    /// the evidence is emptied. Evidence of the epoch before, when it comes late, does not merge.
    ///
    /// # Errors
    /// [`RolloutError::NotNow`] when it is not paused.
    pub fn resume(&mut self, strata: &mut [Evidence], now: u64) -> Result<(), RolloutError> {
        self.take(Event::Resume)?;
        for evidence in strata.iter().filter(|e| e.epoch() == self.epoch) {
            for (seen, guardrail) in self.acknowledged.iter_mut().zip(Guardrail::ALL) {
                *seen = seen.saturating_add(evidence.ratio(guardrail).bad().canary);
            }
        }
        self.begin_epoch();
        strata.iter_mut().for_each(|e| *e = e.renewed(self.epoch));
        self.enter(self.stage, now);
        Ok(())
    }

    fn begin_epoch(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.peaks = [[0.0; 5]; MAX_CANDIDATES];
    }

    /// Somebody wants the candidate back, in whatever state.
    ///
    /// # Errors
    /// [`RolloutError::NotNow`] when it is rolled back already.
    pub fn rollback(&mut self) -> Result<(), RolloutError> {
        self.take(Event::Rollback)
    }

    /// A draft again, with another salt so that other devices go first, and evidence of a new epoch.
    ///
    /// # Errors
    /// [`RolloutError::NotNow`] when it is not rolled back.
    pub fn retry(&mut self, salt: Salt) -> Result<(), RolloutError> {
        self.take(Event::Retry)?;
        (self.salt, self.attempt) = (salt, self.attempt.saturating_add(1));
        self.begin_epoch();
        self.enter(0, 0);
        Ok(())
    }

    /// What a device runs now. The laboratory's devices keep the candidate in later stages, and are not compared; in later
    /// rings not as devices without it.
    #[must_use]
    pub fn assign(&self, subject: &Subject<'_>) -> Assignment {
        match self.phase {
            Phase::Draft | Phase::RolledBack => Assignment::REST,
            Phase::Completed => Assignment { arm: Arm::Rest, ..Assignment::candidate(self.chosen) },
            _ if self.is_laboratory(subject) => Assignment { arm: Arm::Rest, ..Assignment::candidate(0) },
            Phase::Running | Phase::Awaiting | Phase::Paused => {
                match self.plan.stage(self.stage).map_or(Assignment::REST, |s| s.exposure.assign(self.salt, subject)) {
                    Assignment { arm: Arm::Control, .. } if self.had_it_first(subject) => {
                        Assignment { arm: Arm::Rest, ..Assignment::candidate(0) }
                    }
                    part => part,
                }
            }
        }
    }

    /// Whether the laboratory gave it the candidate.
    fn had_it_first(&self, subject: &Subject<'_>) -> bool {
        let first = self.plan.stage(0).map(|s| s.exposure).filter(|e| matches!(e, Exposure::Ring { ring: 0, .. }));
        first.is_some_and(|e| e.assign(self.salt, subject).installs.is_some())
    }

    fn is_laboratory(&self, subject: &Subject<'_>) -> bool {
        let began_there = matches!(self.plan.stage(0), Some(Stage { exposure: Exposure::Ring { ring: 0, .. }, .. }));
        let by_rings = matches!(self.plan.stage(self.stage), Some(Stage { exposure: Exposure::Ring { .. }, .. }));
        subject.ring == Some(0) && began_there && !by_rings
    }

    /// Returns the candidate that everybody gets at the end, counted from 0.
    #[must_use]
    pub const fn chosen(&self) -> u8 {
        self.chosen
    }

    /// Where it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of its stage, from 0.
    #[must_use]
    pub const fn stage(&self) -> u8 {
        self.stage
    }

    /// Returns when its stage or epoch began, in seconds since the origin that the caller counts from.
    #[must_use]
    pub const fn since(&self) -> u64 {
        self.since
    }

    /// Which evidence it looks at. Rises when failures are acknowledged and with each attempt.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number of its attempt, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u16 {
        self.attempt
    }

    /// Its stages.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its rule.
    #[must_use]
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Its salt.
    #[must_use]
    pub const fn salt(&self) -> Salt {
        self.salt
    }

    /// Bad device-days of the canary that somebody has seen and resumed after.
    #[must_use]
    pub fn acknowledged(&self, guardrail: Guardrail) -> u64 {
        self.acknowledged.get(guardrail as usize).copied().unwrap_or(0)
    }
}

/// Why a rollout does not do what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RolloutError {
    /// That does not happen in this state.
    NotNow {
        /// Its state.
        phase: Phase,
        /// What was wanted.
        event: Event,
    },
    /// The gate has numbers that no rule can have.
    Gate,
    /// There is no such candidate.
    Candidate,
}

impl core::fmt::Display for RolloutError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotNow { phase, event } => write!(f, "{event:?} is not possible while {phase:?}"),
            Self::Gate => f.write_str("the gate's probabilities, parts or margins are out of range"),
            Self::Candidate => f.write_str("there is no such candidate"),
        }
    }
}

impl core::error::Error for RolloutError {}

#[cfg(test)]
mod tests;
