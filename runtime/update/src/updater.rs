//! The updater: from an offer to a model that runs, or back.
//!
//! It does no I/O but on its [`Storage`], knows no clock, and waits for nothing: the application brings offers and
//! bytes, runs golden vectors, and tells how inferences went.

mod fetch;
mod offer;
mod trial;

use core::cell::RefCell;

use crate::delta::Applier;
use crate::phase::{Event, Outcome, Phase, Rejection, Reversal};
use crate::record::{Candidate, Installed, PREFIX, Records, Stage, State, Transfer, prefix};
use crate::slot;
use crate::storage::{Area, Storage, StorageFault};
use crate::trust::{RootKeys, TrustError, Verifier};

pub use fetch::Progress;
pub use offer::{Offer, TransferOffer};
pub use trial::{Inference, Limits, Verdict};

use fetch::Download;
use trial::Probation;

/// What a device is, as far as updates go.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// The device's own identity, for its place in rollouts.
    pub identity: &'a [u8],
    /// The model it runs.
    pub name: &'a str,
    /// Targets whose packages it runs, besides `any`.
    pub target: &'a str,
    /// Its engine, major and minor.
    pub engine: (u16, u16),
    /// The version of the operators that it has.
    pub ops_version: u16,
    /// Bytes it has for tensors and operators.
    pub memory: u32,
    /// Starts that a package has in which to be confirmed.
    pub starts: u8,
    /// What a trial may and must do.
    pub limits: Limits,
    /// The root that the device was made with, or that its firmware brings: it counts while it is newer than the stored.
    pub root: RootKeys,
    /// The package that the device was made with, if it is in a slot.
    pub factory: Option<Installed>,
}

/// Why the device starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCause {
    /// Power came back, or somebody pressed the button: no fault of the model.
    Power,
    /// A watchdog, a fault, a panic; or it is not known.
    Fault,
}

/// Why an operation was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateError {
    /// Documents that are not believed.
    Trust(TrustError),
    /// A believed offer that this device does not take, or a package that is not what was signed.
    Rejected(Rejection),
    /// Bytes that are not the next ones.
    Gap {
        /// The offset in the stream that comes next.
        expected: u32,
    },
    /// More bytes than the stream has.
    Excess,
    /// The step is not one of this phase.
    Phase(Phase),
    /// The medium failed. What is stored is consistent; the operation may be tried again.
    Storage,
}

impl From<StorageFault> for UpdateError {
    fn from(_: StorageFault) -> Self {
        Self::Storage
    }
}

impl From<TrustError> for UpdateError {
    fn from(error: TrustError) -> Self {
        Self::Trust(error)
    }
}

impl core::fmt::Display for UpdateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Trust(error) => error.fmt(f),
            Self::Rejected(reason) => write!(f, "the offer does not suit this device: {reason:?}"),
            Self::Gap { expected } => write!(f, "byte {expected} of the stream comes next"),
            Self::Excess => f.write_str("more bytes than the stream has"),
            Self::Phase(phase) => write!(f, "this cannot happen while the update is {phase:?}"),
            Self::Storage => f.write_str("the storage failed"),
        }
    }
}

impl core::error::Error for UpdateError {}

/// What a device tells when it asks for news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckIn {
    /// What runs at this moment.
    pub running: Option<[u8; 32]>,
    /// Where the update is.
    pub phase: Phase,
    /// The digest on its way, and the next byte of its stream.
    pub fetching: Option<([u8; 32], Transfer, u32)>,
    /// How the last update ended.
    pub last: Option<([u8; PREFIX], Outcome)>,
    /// The digest that has to come whole, because a difference failed.
    pub whole: Option<[u8; PREFIX]>,
    /// Version of the root in force.
    pub root: u32,
    /// Sequence of the newest rollout document.
    pub rollout: u64,
    /// Security counter below which nothing is taken.
    pub floor: u32,
}

/// Slots, state and trust of one model.
pub struct Updater<'a, S, V> {
    storage: RefCell<S>,
    verifier: V,
    device: Device<'a>,
    records: Records,
    state: State,
    /// The phase, with the parts that a power cut forgets.
    phase: Phase,
    download: Option<Download>,
    decoder: &'a mut Applier,
    probation: Probation,
    /// Whether the package that is confirmed was found whole when the device started.
    intact: bool,
}

impl<'a, S: Storage, V: Verifier> Updater<'a, S, V> {
    /// Reads what is stored, and settles what a power cut or a crash left.
    ///
    /// A package on trial that started too often, or whose bytes have changed, is taken back here. All packages that may
    /// run are hashed. The decoder of differences is the caller's, because it is large: a device keeps it in static memory.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn open(
        mut storage: S,
        verifier: V,
        device: Device<'a>,
        cause: StartCause,
        decoder: &'a mut Applier,
    ) -> Result<Self, UpdateError> {
        let (records, stored) = Records::load(&mut storage)?;
        let mut state = stored.unwrap_or_else(|| State::factory(device.root, device.factory));
        if state.root.version < device.root.version {
            state.root = device.root;
        }
        let mut updater = Self {
            storage: RefCell::new(storage),
            verifier,
            device,
            records,
            state,
            phase: Phase::Idle,
            download: None,
            decoder,
            probation: Probation::new(device.limits),
            intact: true,
        };
        updater.settle(cause)?;
        Ok(updater)
    }

    fn settle(&mut self, cause: StartCause) -> Result<(), UpdateError> {
        self.intact = self.confirmed_is_intact()?;
        let Some(candidate) = self.state.candidate else { return Ok(()) };
        match candidate.stage {
            Stage::Fetching => self.phase = Phase::Fetching,
            Stage::Staged => self.phase = Phase::Staged,
            Stage::Trial { starts } => {
                self.phase = Phase::Trial;
                if !self.is_whole(&candidate.package)? {
                    self.revert(Reversal::Damaged)?;
                } else if cause == StartCause::Fault {
                    match starts.checked_sub(1) {
                        None => self.revert(Reversal::Restarts)?,
                        Some(starts) => {
                            self.step(Event::Restart)?;
                            let stage = Stage::Trial { starts };
                            self.save(State { candidate: Some(Candidate { stage, ..candidate }), ..self.state })?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the confirmed package whole, or goes back to the one before it.
    fn confirmed_is_intact(&mut self) -> Result<bool, UpdateError> {
        let Some(confirmed) = self.state.confirmed else { return Ok(true) };
        if self.is_whole(&confirmed)? {
            return Ok(true);
        }
        let Some(previous) = self.state.previous.filter(|p| p.counter >= self.state.floor) else { return Ok(false) };
        if !self.is_whole(&previous)? {
            return Ok(false);
        }
        let last = Some((prefix(&confirmed.digest), Outcome::Reverted(Reversal::Damaged)));
        // A candidate may be a difference to the package that is gone.
        let candidate = self.state.candidate.filter(|c| c.stage != Stage::Fetching || !c.transfer.delta);
        self.save(State { confirmed: Some(previous), previous: None, candidate, last, ..self.state })?;
        Ok(true)
    }

    fn is_whole(&self, package: &Installed) -> Result<bool, UpdateError> {
        let mut storage = self.storage.try_borrow_mut().map_err(|_| UpdateError::Storage)?;
        Ok(slot::holds(&mut *storage, package)?)
    }

    /// The package to run now: the one on trial, else the confirmed one. `None` when there is none, or when its bytes
    /// were not what was signed as the device started.
    #[must_use]
    pub fn running(&self) -> Option<Installed> {
        match (self.phase, self.state.candidate) {
            (Phase::Trial, Some(candidate)) => Some(candidate.package),
            _ => self.state.confirmed.filter(|_| self.intact),
        }
    }

    /// Where the update is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// All that is remembered.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What to tell the server.
    #[must_use]
    pub fn check_in(&self) -> CheckIn {
        let fetching = self
            .state
            .candidate
            .filter(|c| c.stage == Stage::Fetching)
            .map(|c| (c.package.digest, c.transfer, self.download.as_ref().map_or(0, Download::next)));
        CheckIn {
            running: self.running().map(|p| p.digest),
            phase: self.phase,
            fetching,
            last: self.state.last,
            whole: self.state.whole,
            root: self.state.root.version,
            rollout: self.state.rollout,
            floor: self.state.floor,
        }
    }

    /// The storage, to read the running package in place.
    pub fn storage(&mut self) -> &mut S {
        self.storage.get_mut()
    }

    /// The storage, when the updater is not needed any more.
    pub fn into_storage(self) -> S {
        self.storage.into_inner()
    }

    /// Takes the phase that the table gives, or says that it gives none.
    fn step(&mut self, event: Event) -> Result<(), UpdateError> {
        self.phase = self.phase.after(event).ok_or(UpdateError::Phase(self.phase))?;
        Ok(())
    }

    /// Stores a state; it counts only if that worked.
    fn save(&mut self, state: State) -> Result<(), UpdateError> {
        self.records.save(self.storage.get_mut(), &state)?;
        self.state = state;
        Ok(())
    }

    /// Records how an update ended, and is idle again.
    fn end(&mut self, state: State, event: Event) -> Result<(), UpdateError> {
        let before = self.phase;
        self.step(event)?;
        self.step(Event::Settle)?;
        self.download = None;
        self.probation = Probation::new(self.device.limits);
        self.save(State { candidate: None, ..state }).inspect_err(|_| self.phase = before)
    }

    /// Gives up a candidate that never ran.
    fn reject(&mut self, reason: Rejection) -> Result<(), UpdateError> {
        let digest = self.state.candidate.map(|c| prefix(&c.package.digest));
        let last = digest.map(|d| (d, Outcome::Rejected(reason))).or(self.state.last);
        self.end(State { last, ..self.state }, Event::Reject)
    }

    /// Takes the package on trial back: what ran before runs again from this moment on.
    ///
    /// # Errors
    /// When nothing is on trial, or the storage fails; then the next start takes it back.
    pub fn revert(&mut self, reason: Reversal) -> Result<(), UpdateError> {
        let Some(candidate) = self.state.candidate.filter(|_| self.phase == Phase::Trial) else {
            return Err(UpdateError::Phase(self.phase));
        };
        let mut state = self.state;
        state.bury(&candidate.package);
        state.last = Some((prefix(&candidate.package.digest), Outcome::Reverted(reason)));
        self.end(state, Event::Revert)
    }

    /// Goes back to the package before the confirmed one, because the fleet or the application wants it.
    ///
    /// # Errors
    /// When there is none that may run, an update is under way, or the storage fails.
    pub fn fall_back(&mut self) -> Result<Installed, UpdateError> {
        let (Some(confirmed), Some(previous)) = (self.state.confirmed, self.state.previous) else {
            return Err(UpdateError::Phase(self.phase));
        };
        if self.phase != Phase::Idle || previous.counter < self.state.floor {
            return Err(UpdateError::Phase(self.phase));
        }
        if !self.is_whole(&previous)? {
            return Err(UpdateError::Rejected(Rejection::Hash));
        }
        let mut state = self.state;
        state.bury(&confirmed);
        state.last = Some((prefix(&confirmed.digest), Outcome::Reverted(Reversal::Ordered)));
        (state.confirmed, state.previous) = (Some(previous), None);
        self.end(state, Event::Revert)?;
        self.intact = true;
        Ok(previous)
    }

    /// Bytes of a slot.
    fn slot_len(&self, slot: u8) -> u32 {
        self.storage.try_borrow().map_or(0, |s| s.geometry(Area::Slot(slot)).len)
    }
}
