//! Offers: documents are checked, then whether the package suits the device.

use super::{UpdateError, Updater};
use crate::phase::{Event, Outcome, Phase, Rejection};
use crate::record::{Candidate, Installed, PREFIX, Stage, State, Transfer, prefix};
use crate::storage::Storage;
use crate::trust::{self, Audience, Manner, Release, Role, Rollout, RootKeys, Salt, TrustError, Verifier};

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

/// How a package is to run.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Order {
    manner: Manner,
    salt: Salt,
    until: u64,
}

impl Order {
    fn of(rollout: &Rollout<'_>) -> Self {
        let Audience { manner, salt, .. } = rollout.audience;
        match manner {
            // Nothing is chosen, and what is confirmed never expires.
            Manner::Instead => Self { manner, salt: Salt::from_bits(0), until: 0 },
            _ => Self { manner, salt, until: rollout.expires },
        }
    }

    fn put(self, state: &mut State) {
        (state.manner, state.salt, state.until) = (self.manner, self.salt, self.until);
    }
}

impl<S: Storage, V: Verifier> Updater<'_, S, V> {
    /// Judges an offer, and begins with it if it is good. `now` is the device's clock, seconds since 1970, if it has one;
    /// the latest time that a signed document stated counts besides.
    ///
    /// The same offer again goes on where it was. Another one takes the place of what is being fetched, staged or on trial;
    /// a trial that ends this way is [`Rejection::Replaced`], and the confirmed package runs again at once. If that package
    /// is damaged, the trial goes on and the offer is refused.
    ///
    /// What is on the device already is not fetched: a shadow that is to serve waits for its trial, a package that took turns
    /// serves alone, an offer of what serves ends the rest, and the package before the confirmed one serves again at once.
    /// [`phase`](Self::phase) tells afterwards what there is to do.
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
        let order = Order::of(rollout);
        // What is confirmed here serves, and this one must not.
        if order.manner != Manner::Instead && !self.profile.beside {
            return Err(UpdateError::Rejected(Rejection::Beside));
        }
        if self.arrange(release, order)? {
            return Ok(());
        }
        self.suits(release).map_err(UpdateError::Rejected)?;
        self.accept(release, offer.transfer, order)
    }

    /// Runs what is on the device already as a document says; `false` when it is not, or nothing is to change.
    #[inline(never)]
    fn arrange(&mut self, release: &Release<'_>, order: Order) -> Result<bool, UpdateError> {
        let is = |p: &Installed| p.digest == release.digest;
        let State { candidate, confirmed, previous, floor, .. } = &self.state;
        let in_shadow = matches!(order.manner, Manner::Shadow { .. });
        if let Some(candidate) = candidate.as_ref().filter(|c| is(&c.package)) {
            let stays = match candidate.stage {
                Stage::Fetching => false,
                Stage::Staged => true,
                Stage::Trial { .. } => !in_shadow && self.order() != order,
            };
            if stays {
                self.obey(order)?;
            }
            return Ok(stays);
        }
        if self.phase == Phase::Trial && !self.can_end_trial() {
            return Ok(false);
        }
        let waits = candidate.is_some();
        if confirmed.as_ref().is_some_and(is) {
            let changes = waits || self.order() != order;
            if in_shadow || !changes || !self.intact {
                return Ok(false);
            }
            if waits {
                self.reject(Rejection::Replaced)?;
            }
            self.obey(order)?;
            return Ok(true);
        }
        let may = release.counter >= *floor && !self.state.is_buried(&release.digest, release.number);
        let Some(previous) = previous.filter(|p| is(p) && p.hash == release.hash && may) else { return Ok(false) };
        if !self.is_whole(&previous)? {
            return Ok(false);
        }
        let package = Installed { counter: release.counter, number: release.number, ..previous };
        if waits {
            self.reject(Rejection::Replaced)?;
        }
        // A release after the confirmed one has its trial, though an earlier one of the same package had.
        let is_back = self.state.confirmed.is_some_and(|c| release.number < c.number);
        if is_back && order.manner == Manner::Instead {
            self.go_back(package)?;
        } else {
            self.stage_again(package, order)?;
        }
        Ok(true)
    }

    /// How the candidate, or without one the confirmed package, is run now.
    fn order(&self) -> Order {
        Order { manner: self.state.manner, salt: self.state.salt, until: self.state.until }
    }

    fn obey(&mut self, order: Order) -> Result<(), UpdateError> {
        if self.order() == order {
            return Ok(());
        }
        let before = self.before();
        order.put(&mut self.state);
        self.save(&before)
    }

    /// Has the package before the confirmed one serve again. It had its trial here.
    fn go_back(&mut self, package: Installed) -> Result<(), UpdateError> {
        let before = self.before();
        self.state.previous = before.confirmed.filter(|_| self.intact);
        self.state.confirmed = Some(package);
        self.state.last = Some((prefix(&package.digest), Outcome::Confirmed));
        self.end(&before, Event::Revert)?;
        self.intact = true;
        Ok(())
    }

    /// Stages the package before the confirmed one from where it lies.
    fn stage_again(&mut self, package: Installed, order: Order) -> Result<(), UpdateError> {
        let before = self.before();
        [Event::Accept, Event::Receive, Event::Verify, Event::Stage].iter().try_for_each(|e| self.step(*e))?;
        let transfer = Transfer { id: [0; 8], len: package.len, delta: false };
        let attempt = self.records.sequence;
        self.state.candidate = Some(Candidate { package, transfer, attempt, stage: Stage::Staged });
        self.state.previous = None;
        order.put(&mut self.state);
        self.save(&before)
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
            (!self.serves(&release.digest), Rejection::Running),
        ];
        checks.iter().find(|(good, _)| !good).map_or(Ok(()), |(_, reason)| Err(*reason))
    }

    /// Returns whether a package runs, or would run once the trial ended.
    fn serves(&self, digest: &[u8; 32]) -> bool {
        let is = |p: Installed| p.digest == *digest;
        self.running().is_some_and(is) || self.can_end_trial() && self.state.confirmed.is_some_and(is)
    }

    /// The slot that the next package goes to: never the confirmed one's, and that of the one before it last.
    fn free_slot(&self) -> Option<u8> {
        let count = self.storage.try_borrow().map_or(0, |s| s.slots());
        let taken = |p: Option<Installed>, slot: u8| p.is_some_and(|p| p.slot == slot);
        let free = || (0..count).filter(|&s| !taken(self.state.confirmed, s));
        free().find(|&s| !taken(self.state.previous, s)).or_else(|| free().next())
    }

    #[inline(never)]
    fn accept(&mut self, release: &Release<'_>, offered: TransferOffer, order: Order) -> Result<(), UpdateError> {
        let transfer = Transfer { id: offered.id, len: offered.len, delta: offered.delta };
        if let Some(candidate) = &self.state.candidate {
            let same = candidate.package.digest == release.digest;
            match candidate.stage {
                Stage::Trial { .. } if same || !self.can_end_trial() => return Err(UpdateError::Phase(Phase::Trial)),
                Stage::Fetching if same && candidate.transfer == transfer => return self.obey(order),
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
        order.put(&mut self.state);
        self.save(&before)
    }
}
