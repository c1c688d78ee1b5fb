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
use crate::trust::{Manner, RootKeys, Salt, TrustError, Verifier};

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
    /// Whether it can run a package beside the confirmed one, or by turns with it. Without, it only takes what is to run
    /// in the place of another.
    pub beside: bool,
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
    /// The package that does not simply serve: in the shadow of what runs, or by turns with the package before it.
    pub beside: Option<([u8; PREFIX], Manner)>,
    /// Version of the root in force.
    pub root: u32,
    /// Sequence of the newest rollout document.
    pub rollout: u64,
    /// Security counter below which nothing is taken.
    pub floor: u32,
}

/// What of a [`Device`] is needed after the start: neither root nor factory package, which the state has.
#[derive(Clone, Copy)]
struct Profile<'a> {
    identity: &'a [u8],
    name: &'a str,
    target: &'a str,
    engine: (u16, u16),
    ops_version: u16,
    memory: u32,
    beside: bool,
    starts: u8,
    limits: Limits,
}

/// What steps of an update change, to take it back when it could not be stored. A whole second state is much for a
/// device's stack.
#[derive(Clone, Copy)]
struct Before {
    confirmed: Option<Installed>,
    previous: Option<Installed>,
    candidate: Option<Candidate>,
    floor: u32,
    buried: u32,
    whole: Option<[u8; PREFIX]>,
    last: Option<([u8; PREFIX], Outcome)>,
    manner: Manner,
    salt: Salt,
    until: u64,
    phase: Phase,
}

/// Slots, state and trust of one model.
pub struct Updater<'a, S, V> {
    storage: RefCell<S>,
    verifier: V,
    profile: Profile<'a>,
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
        storage: S,
        verifier: V,
        device: Device<'a>,
        cause: StartCause,
        decoder: &'a mut Applier,
    ) -> Result<Self, UpdateError> {
        let mut place = None;
        Self::open_in(&mut place, storage, verifier, &device, cause, decoder)?;
        place.ok_or(UpdateError::Storage)
    }

    /// As [`open`](Self::open), but the updater is made where it is to be: it has more than a kilobyte, and a device may
    /// have no room on its stack for a second one on the way. What is in the place is given up.
    ///
    /// # Errors
    /// When the storage fails.
    #[inline(never)]
    pub fn open_in<'p>(
        place: &'p mut Option<Self>,
        storage: S,
        verifier: V,
        device: &Device<'a>,
        cause: StartCause,
        decoder: &'a mut Applier,
    ) -> Result<&'p mut Self, UpdateError> {
        Self::put(place, storage, verifier, device, decoder);
        let updater = place.as_mut().ok_or(UpdateError::Storage)?;
        updater.load(device)?;
        updater.settle(cause)?;
        Ok(updater)
    }

    /// An updater that has read nothing yet.
    #[inline(never)]
    fn put(place: &mut Option<Self>, storage: S, verifier: V, device: &Device<'a>, decoder: &'a mut Applier) {
        let Device { identity, name, target, engine, ops_version, memory, beside, starts, limits, .. } = *device;
        *place = Some(Self {
            storage: RefCell::new(storage),
            verifier,
            profile: Profile { identity, name, target, engine, ops_version, memory, beside, starts, limits },
            records: Records::NONE,
            state: State::blank(),
            phase: Phase::Idle,
            download: None,
            decoder,
            probation: Probation::new(limits),
            intact: true,
        });
    }

    /// Reads what is stored; a device that never had an update is as its factory made it.
    #[inline(never)]
    fn load(&mut self, device: &Device<'_>) -> Result<(), UpdateError> {
        if !self.records.load(self.storage.get_mut(), &mut self.state)? {
            self.state.reset(&device.root, device.factory.as_ref());
        }
        if self.state.root.version < device.root.version {
            self.state.forget(&device.root);
            self.state.root = device.root;
        }
        Ok(())
    }

    #[inline(never)]
    fn settle(&mut self, cause: StartCause) -> Result<(), UpdateError> {
        self.intact = self.confirmed_is_intact()?;
        let Some(candidate) = &self.state.candidate else { return Ok(()) };
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
                            self.enter(Stage::Trial { starts })?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the confirmed package whole, or goes back to the one before it.
    fn confirmed_is_intact(&mut self) -> Result<bool, UpdateError> {
        let Some(confirmed) = &self.state.confirmed else { return Ok(true) };
        if self.is_whole(confirmed)? {
            return Ok(true);
        }
        let Some(previous) = self.state.previous.as_ref().filter(|p| p.counter >= self.state.floor) else {
            return Ok(false);
        };
        if !self.is_whole(previous)? {
            return Ok(false);
        }
        let before = self.before();
        self.state.last = Some((prefix(&confirmed.digest), Outcome::Reverted(Reversal::Damaged)));
        // A candidate may be a difference to the package that is gone.
        self.state.candidate = before.candidate.filter(|c| c.stage != Stage::Fetching || !c.transfer.delta);
        (self.state.confirmed, self.state.previous) = (before.previous, None);
        if self.state.candidate.is_none() {
            self.state.serve_alone();
        }
        self.save(&before)?;
        Ok(true)
    }

    /// Whether the bytes in a package's slot have its hash. They are read, whatever was found before.
    ///
    /// # Errors
    /// When the storage fails.
    #[inline(never)]
    pub fn is_whole(&self, package: &Installed) -> Result<bool, UpdateError> {
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

    /// The package that waits for its trial.
    #[must_use]
    pub fn staged(&self) -> Option<Installed> {
        self.state.candidate.filter(|c| self.phase == Phase::Staged && c.stage == Stage::Staged).map(|c| c.package)
    }

    /// The package that does not simply serve, and how it runs: the staged one in the shadow of the confirmed one, or the
    /// confirmed one by turns with the package before it.
    #[must_use]
    pub fn beside(&self) -> Option<(Installed, Manner)> {
        let State { manner, candidate, confirmed, previous, floor, .. } = &self.state;
        let package = match (manner, candidate) {
            (Manner::Shadow { .. }, Some(_)) => self.staged(),
            (Manner::Hourly, None) => confirmed.filter(|_| previous.is_some_and(|p| p.counter >= *floor)),
            _ => None,
        };
        package.map(|p| (p, *manner))
    }

    /// What checks signatures.
    #[must_use]
    pub fn verifier(&self) -> &V {
        &self.verifier
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
            beside: self.beside().map(|(package, manner)| (prefix(&package.digest), manner)),
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

    /// The storage and the decoder, for another start.
    pub fn into_parts(self) -> (S, &'a mut Applier) {
        (self.storage.into_inner(), self.decoder)
    }

    /// Takes the phase that the table gives, or says that it gives none.
    fn step(&mut self, event: Event) -> Result<(), UpdateError> {
        self.phase = self.phase.after(event).ok_or(UpdateError::Phase(self.phase))?;
        Ok(())
    }

    /// What [`save`](Self::save) goes back to.
    #[inline(never)]
    fn before(&self) -> Before {
        let State { confirmed, previous, candidate, floor, buried, whole, last, manner, salt, until, .. } = self.state;
        Before { confirmed, previous, candidate, floor, buried, whole, last, manner, salt, until, phase: self.phase }
    }

    /// Stores the state. It counts only if that worked.
    #[inline(never)]
    fn save(&mut self, before: &Before) -> Result<(), UpdateError> {
        self.store().inspect_err(|_| self.undo(before))
    }

    fn store(&mut self) -> Result<(), UpdateError> {
        Ok(self.records.save(self.storage.get_mut(), &self.state)?)
    }

    #[inline(never)]
    fn undo(&mut self, before: &Before) {
        let Before { confirmed, previous, candidate, floor, buried, whole, last, manner, salt, until, phase } = *before;
        let state = &mut self.state;
        (state.confirmed, state.previous, state.candidate) = (confirmed, previous, candidate);
        (state.floor, state.buried, state.whole, state.last) = (floor, buried, whole, last);
        (state.manner, state.salt, state.until) = (manner, salt, until);
        self.phase = phase;
    }

    /// Records how far the candidate is.
    fn enter(&mut self, stage: Stage) -> Result<(), UpdateError> {
        let before = self.before();
        if let Some(candidate) = &mut self.state.candidate {
            candidate.stage = stage;
        }
        self.save(&before)
    }

    /// Records how an update ended, and is idle again.
    #[inline(never)]
    fn end(&mut self, before: &Before, event: Event) -> Result<(), UpdateError> {
        let Some(phase) = before.phase.after(event).and_then(|p| p.after(Event::Settle)) else {
            self.undo(before);
            return Err(UpdateError::Phase(before.phase));
        };
        self.phase = phase;
        self.state.candidate = None;
        if event != Event::Confirm || self.state.manner != Manner::Hourly {
            self.state.serve_alone();
        }
        self.download = None;
        self.save(before)?;
        self.probation = Probation::new(self.profile.limits);
        Ok(())
    }

    /// Gives up a candidate that never ran or whose trial was ended. A delta that failed has to come whole the next time.
    #[inline(never)]
    fn reject(&mut self, reason: Rejection) -> Result<(), UpdateError> {
        let before = self.before();
        if let Some(candidate) = &before.candidate {
            let digest = prefix(&candidate.package.digest);
            self.state.last = Some((digest, Outcome::Rejected(reason)));
            if candidate.transfer.delta && candidate.stage == Stage::Fetching && reason != Rejection::Replaced {
                self.state.whole = Some(digest);
            }
        }
        self.end(&before, Event::Reject)
    }

    /// Takes the package on trial back: what ran before runs again from this moment on.
    ///
    /// # Errors
    /// When nothing is on trial, or the storage fails; then the next start takes it back.
    #[inline(never)]
    pub fn revert(&mut self, reason: Reversal) -> Result<(), UpdateError> {
        let before = self.before();
        let Some(candidate) = before.candidate.as_ref().filter(|_| self.phase == Phase::Trial) else {
            return Err(UpdateError::Phase(self.phase));
        };
        self.take_back(&before, &candidate.package, reason)
    }

    /// Remembers that a package failed here.
    fn take_back(&mut self, before: &Before, package: &Installed, reason: Reversal) -> Result<(), UpdateError> {
        let buried = self.state.bury_at(package);
        self.state.last = Some((prefix(&package.digest), Outcome::Reverted(reason)));
        self.end(before, Event::Revert).inspect_err(|_| {
            if let Some((i, tombstone)) = buried {
                self.state.tombstones.iter_mut().skip(i).take(1).for_each(|place| *place = tombstone);
            }
        })
    }

    /// Goes back to the package before the confirmed one, because the fleet or the application wants it.
    ///
    /// # Errors
    /// When there is none that may run, an update is under way, or the storage fails.
    #[inline(never)]
    pub fn fall_back(&mut self) -> Result<Installed, UpdateError> {
        let before = self.before();
        let (Some(confirmed), Some(previous)) = (&before.confirmed, &before.previous) else {
            return Err(UpdateError::Phase(self.phase));
        };
        if self.phase != Phase::Idle || previous.counter < self.state.floor {
            return Err(UpdateError::Phase(self.phase));
        }
        if !self.is_whole(previous)? {
            return Err(UpdateError::Rejected(Rejection::Hash));
        }
        (self.state.confirmed, self.state.previous) = (before.previous, None);
        self.take_back(&before, confirmed, Reversal::Ordered)?;
        self.intact = true;
        Ok(*previous)
    }

    /// Bytes of a slot.
    fn slot_len(&self, slot: u8) -> u32 {
        self.storage.try_borrow().map_or(0, |s| s.geometry(Area::Slot(slot)).len)
    }
}
