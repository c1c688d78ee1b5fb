//! Offers: documents are checked, then whether the package suits the device.

use super::{UpdateError, Updater};
use crate::phase::{Event, Phase, Rejection};
use crate::record::{Candidate, Installed, PREFIX, Stage, Transfer, prefix};
use crate::storage::Storage;
use crate::trust::{self, Manner, Release, Role, Rollout, RootKeys, TrustError, Verifier};

/// How the bytes of an offered package would come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferOffer {
    /// The first bytes of the stream's hash, or whatever tells it from others.
    pub id: [u8; 8],
    /// Bytes of the stream.
    pub len: u32,
    /// Whether it is a difference to the package that runs.
    pub delta: bool,
}

/// What a server or a person with a cable brings.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'o> {
    /// Roots after the one in force, in order.
    pub roots: &'o [&'o [u8]],
    /// Which package to run.
    pub rollout: &'o [u8],
    /// What that package is.
    pub release: &'o [u8],
    /// How it comes. Nobody signs this: the result is hashed.
    pub transfer: TransferOffer,
}

impl<S: Storage, V: Verifier> Updater<'_, S, V> {
    /// Judges an offer, and begins with it if it is good. `now` is the device's clock, seconds since 1970, if it has one;
    /// the latest time that a signed document stated counts besides.
    ///
    /// The same offer again goes on where it was. Another one takes the place of what is being fetched or staged, but
    /// not of what is on trial.
    ///
    /// # Errors
    /// Why it was not taken. New roots, and a newer rollout's sequence, time and lifted tombstones are kept even then.
    #[inline(never)]
    pub fn offer(&mut self, offer: &Offer<'_>, now: Option<u64>) -> Result<(), UpdateError> {
        self.rotate(offer.roots)?;
        let believed = trust::rollout(&self.state.root, offer.rollout, &self.verifier);
        let rollout = believed.as_ref().map_err(|error| *error)?;
        let time = self.state.time.max(rollout.time).max(now.unwrap_or(0));
        if self.state.root.expires <= time {
            return Err(TrustError::Expired { role: Role::Root }.into());
        }
        if rollout.expires <= time {
            return Err(TrustError::Expired { role: Role::Rollout }.into());
        }
        if rollout.name != self.profile.name {
            return Err(UpdateError::Rejected(Rejection::Name));
        }
        if rollout.sequence < self.state.rollout {
            return Err(TrustError::Replayed { newest: self.state.rollout, found: rollout.sequence }.into());
        }
        self.heed(rollout)?;
        self.consider(offer, rollout, time)
    }

    /// The part of [`offer`](Self::offer) about the release.
    #[inline(never)]
    fn consider(&mut self, offer: &Offer<'_>, rollout: &Rollout<'_>, time: u64) -> Result<(), UpdateError> {
        let believed = trust::release(&self.state.root, offer.release, &self.verifier);
        let release = believed.as_ref().map_err(|error| *error)?;
        if release.expires != 0 && release.expires <= time {
            return Err(TrustError::Expired { role: Role::Targets }.into());
        }
        if release.digest != rollout.digest || release.name != rollout.name {
            return Err(TrustError::Mixed.into());
        }
        if !rollout.audience.reaches(self.profile.identity) {
            return Err(UpdateError::Rejected(Rejection::Cohort));
        }
        // What is confirmed here serves, and this one must not.
        if rollout.audience.manner != Manner::Instead {
            return Err(UpdateError::Rejected(Rejection::Beside));
        }
        self.suits(release).map_err(UpdateError::Rejected)?;
        self.accept(release, offer.transfer)
    }

    /// Follows new roots, each of which counts once it is stored.
    #[inline(never)]
    fn rotate(&mut self, roots: &[&[u8]]) -> Result<(), UpdateError> {
        for bytes in roots {
            let mut root = RootKeys::NONE;
            trust::follow_into(&self.state.root, bytes, &self.verifier, &mut root)?;
            let times = (self.state.rollout, self.state.time);
            self.state.forget(&root);
            core::mem::swap(&mut self.state.root, &mut root);
            self.store().inspect_err(|_| {
                (self.state.root, (self.state.rollout, self.state.time)) = (root, times);
            })?;
        }
        Ok(())
    }

    /// Keeps what a newer rollout document says beside the package.
    #[inline(never)]
    fn heed(&mut self, rollout: &Rollout<'_>) -> Result<(), UpdateError> {
        if rollout.sequence == self.state.rollout {
            return Ok(());
        }
        let (tombstones, last) = (self.state.tombstones, self.state.last);
        let times = (self.state.rollout, self.state.time);
        self.state.rollout = rollout.sequence;
        self.state.time = self.state.time.max(rollout.time);
        for lifted in rollout.lifted.chunks_exact(PREFIX).filter_map(|l| l.first_chunk()) {
            self.state.lift(lifted);
            // How it ended before is no longer said, so that how it ends now is news.
            self.state.last = self.state.last.filter(|(prefix, _)| prefix != lifted);
        }
        self.store().inspect_err(|_| {
            (self.state.tombstones, self.state.last) = (tombstones, last);
            (self.state.rollout, self.state.time) = times;
        })
    }

    /// Whether a package could run here, before a byte of it is fetched.
    fn suits(&self, release: &Release<'_>) -> Result<(), Rejection> {
        let device = &self.profile;
        let slot = self.free_slot();
        let checks = [
            (release.target == "any" || release.target == device.target, Rejection::Target),
            (release.ops_version <= device.ops_version, Rejection::Operators),
            (release.engine_min <= device.engine, Rejection::Engine),
            (release.memory <= device.memory, Rejection::Memory),
            (release.len > 0 && slot.is_some_and(|s| release.len <= self.slot_len(s)), Rejection::TooLarge),
            (release.counter >= self.state.floor, Rejection::Counter),
            (!self.state.is_buried(&release.digest, release.number), Rejection::Tombstone),
            (self.running().is_none_or(|p| p.digest != release.digest), Rejection::Running),
        ];
        checks.iter().find(|(good, _)| !good).map_or(Ok(()), |(_, reason)| Err(*reason))
    }

    /// The slot that the next package goes to: never the confirmed one's, and that of the one before it last.
    fn free_slot(&self) -> Option<u8> {
        let count = self.storage.try_borrow().map_or(0, |s| s.slots());
        let taken = |p: Option<Installed>, slot: u8| p.is_some_and(|p| p.slot == slot);
        let free = || (0..count).filter(|&s| !taken(self.state.confirmed, s));
        free().find(|&s| !taken(self.state.previous, s)).or_else(|| free().next())
    }

    #[inline(never)]
    fn accept(&mut self, release: &Release<'_>, offered: TransferOffer) -> Result<(), UpdateError> {
        let transfer = Transfer { id: offered.id, len: offered.len, delta: offered.delta };
        if let Some(candidate) = &self.state.candidate {
            let same = candidate.package.digest == release.digest;
            match candidate.stage {
                Stage::Trial { .. } => return Err(UpdateError::Phase(Phase::Trial)),
                Stage::Staged if same => return Ok(()),
                Stage::Fetching if same && candidate.transfer == transfer => return Ok(()),
                _ => {}
            }
        }
        let whole = self.state.whole.is_some_and(|w| release.digest.starts_with(&w));
        if transfer.delta && (whole || self.running().is_none()) {
            return Err(UpdateError::Rejected(Rejection::Base));
        }
        if !transfer.delta && transfer.len != release.len {
            return Err(UpdateError::Rejected(Rejection::Hash));
        }
        if self.state.candidate.is_some() {
            self.reject(Rejection::Replaced)?;
        }
        let slot = self.free_slot().ok_or(UpdateError::Rejected(Rejection::TooLarge))?;
        let before = self.before();
        self.step(Event::Accept)?;
        let package = Installed {
            slot,
            len: release.len,
            digest: release.digest,
            hash: release.hash,
            counter: release.counter,
            number: release.number,
        };
        let attempt = self.records.sequence;
        self.state.candidate = Some(Candidate { package, transfer, attempt, stage: Stage::Fetching });
        self.state.previous = before.previous.filter(|p| p.slot != slot);
        self.state.whole = before.whole.filter(|w| *w == prefix(&release.digest));
        self.save(&before)
    }
}
