//! A package on trial: it has to give the golden outputs, and then to behave.

use super::{UpdateError, Updater};
use crate::phase::{Event, Outcome, Phase, Rejection, Reversal};
use crate::record::{Installed, Stage, prefix};
use crate::storage::Storage;
use crate::trust::{Manner, Verifier};

/// What a trial may and must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inferences after which it is confirmed; 0: golden vectors are enough.
    pub inferences: u32,
    /// Inferences that may fail meanwhile.
    pub errors: u32,
    /// Inferences that may be later than `deadline_us`.
    pub late: u32,
    /// Microseconds an inference should take at most; 0: any.
    pub deadline_us: u32,
}

/// How one inference went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inference {
    /// Microseconds it took.
    pub micros: u32,
    /// Whether the application could not use the result.
    pub failed: bool,
    /// Whether an output was no number.
    pub not_a_number: bool,
}

/// What became of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is on trial.
    None,
    /// It goes on.
    Trial {
        /// Inferences until it is confirmed.
        left: u32,
    },
    /// The package runs for good.
    Confirmed,
    /// The package was taken back; load [`Updater::running`] again.
    Reverted(Reversal),
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probation {
    limits: Limits,
    golden: bool,
    done: u32,
    errors: u32,
    late: u32,
}

impl Probation {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, golden: false, done: 0, errors: 0, late: 0 }
    }

    fn count(&mut self, inference: &Inference) -> Option<Reversal> {
        let Limits { errors, late, deadline_us, .. } = self.limits;
        self.done = self.done.saturating_add(1);
        self.errors = self.errors.saturating_add(u32::from(inference.failed));
        self.late = self.late.saturating_add(u32::from(deadline_us > 0 && inference.micros > deadline_us));
        if inference.not_a_number {
            Some(Reversal::NotANumber)
        } else if self.errors > errors {
            Some(Reversal::Errors)
        } else if self.late > late {
            Some(Reversal::Deadline)
        } else {
            None
        }
    }
}

impl<S: Storage, V: Verifier> Updater<'_, S, V> {
    /// Starts the trial of the staged package: it is the one to load from now on.
    ///
    /// Its bytes are hashed once more, so that nothing can have changed since they were verified.
    ///
    /// # Errors
    /// When nothing is staged, or only for the shadow; its bytes have changed (then it is given up); or the storage fails.
    #[inline(never)]
    pub fn start(&mut self) -> Result<Installed, UpdateError> {
        let package = self.startable().ok_or(UpdateError::Phase(self.phase))?;
        if !self.is_whole(&package)? {
            self.reject(Rejection::Hash)?;
            return Err(UpdateError::Rejected(Rejection::Hash));
        }
        self.enter(Stage::Trial { starts: self.profile.starts.saturating_sub(1) })?;
        self.step(Event::Start)?;
        self.probation = Probation::new(self.profile.limits);
        Ok(package)
    }

    /// The package whose trial may start: what is staged, unless it is to stay in the shadow.
    #[must_use]
    pub fn startable(&self) -> Option<Installed> {
        self.staged().filter(|_| !matches!(self.state.manner, Manner::Shadow { .. }))
    }

    /// Returns whether a package is on trial and the confirmed package could run in its place.
    pub(super) fn can_end_trial(&self) -> bool {
        self.phase == Phase::Trial && self.intact && self.state.confirmed.is_some()
    }

    /// Ends the trial without a verdict, as the kill switch does: the confirmed package runs again, the candidate is
    /// rejected as [`Rejection::Replaced`], and it may be offered again.
    ///
    /// # Errors
    /// [`UpdateError::Phase`] if nothing is on trial, or no intact confirmed package could run instead;
    /// [`UpdateError::Storage`] if the storage fails, and then the trial goes on.
    #[inline(never)]
    pub fn end_trial(&mut self) -> Result<(), UpdateError> {
        if !self.can_end_trial() {
            return Err(UpdateError::Phase(self.phase));
        }
        self.reject(Rejection::Replaced)
    }

    /// Tells whether all golden vectors of the package on trial gave their outputs, bit for bit.
    ///
    /// # Errors
    /// When nothing is on trial or the storage fails.
    pub fn golden(&mut self, passed: bool) -> Result<Verdict, UpdateError> {
        if self.phase != Phase::Trial {
            return Err(UpdateError::Phase(self.phase));
        }
        if !passed {
            self.revert(Reversal::Golden)?;
            return Ok(Verdict::Reverted(Reversal::Golden));
        }
        self.probation.golden = true;
        self.judge()
    }

    /// Counts an inference of the running package. Outside of a trial there is nothing to count.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn inference(&mut self, inference: &Inference) -> Result<Verdict, UpdateError> {
        if self.phase != Phase::Trial {
            return Ok(Verdict::None);
        }
        if let Some(reason) = self.probation.count(inference) {
            self.revert(reason)?;
            return Ok(Verdict::Reverted(reason));
        }
        self.judge()
    }

    fn judge(&mut self) -> Result<Verdict, UpdateError> {
        let left = self.probation.limits.inferences.saturating_sub(self.probation.done);
        if left > 0 || !self.probation.golden {
            return Ok(Verdict::Trial { left });
        }
        self.confirm()?;
        Ok(Verdict::Confirmed)
    }

    /// Keeps the package that is on trial.
    #[inline(never)]
    fn confirm(&mut self) -> Result<(), UpdateError> {
        let before = self.before();
        let package = before.candidate.ok_or(UpdateError::Phase(self.phase))?.package;
        self.state.previous = before.confirmed.filter(|p| self.intact && p.slot != package.slot);
        self.state.floor = before.floor.max(package.counter);
        self.state.whole = None;
        self.state.last = Some((prefix(&package.digest), Outcome::Confirmed));
        self.state.confirmed = Some(package);
        self.end(&before, Event::Confirm)?;
        self.intact = true;
        Ok(())
    }
}
