//! Packages on a stand-in and how they run: the rules of `dunlin_update::Updater`, without bytes and without signatures.

use dunlin_update::trust::{Manner, Release, Rollout, Salt};
use dunlin_update::{Outcome, Phase, Rejection, Reversal};

/// First bytes of a digest, as documents and polls name a package.
pub(super) type Prefix = [u8; 16];

/// Returns the first bytes of a digest.
pub(super) fn prefix(digest: &[u8; 32]) -> Prefix {
    digest.first_chunk().copied().unwrap_or_default()
}

/// A package that is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Package {
    digest: [u8; 32],
    /// Number of its release; 0 for the package that a stand-in begins with.
    number: u32,
    /// Security counter of its release.
    counter: u32,
}

/// How the candidate is run, or the confirmed package when there is no candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    manner: Manner,
    salt: Salt,
    /// Second since 1970 from which a shadow, or turns, are over.
    until: u64,
}

impl Order {
    /// Serves alone; never expires.
    const SERVE: Self = Self { manner: Manner::Instead, salt: Salt::from_bits(0), until: 0 };

    fn of(rollout: &Rollout<'_>) -> Self {
        match rollout.audience.manner {
            Manner::Instead => Self::SERVE,
            manner => Self { manner, salt: rollout.audience.salt, until: rollout.expires },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Staged,
    Trial,
}

/// What runs at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    /// This package, in no comparison.
    Alone([u8; 32]),
    /// A candidate on trial, or in its own hour.
    Candidate([u8; 32]),
    /// The package before the confirmed one, in its own hour.
    Base([u8; 32]),
    /// This package, and a second one on one of `every` inputs.
    WithShadow {
        /// Digest of the package that serves.
        digest: [u8; 32],
        /// Bucket of the device, which says on which inputs.
        bucket: u32,
        /// One of so many inputs.
        every: u32,
    },
}

/// What an offer led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Everything is as the document says already.
    Unchanged,
    /// A package that is on the device runs otherwise from now on; nothing is fetched.
    Arranged,
    /// The package has to be fetched.
    Fetch,
}

/// An offer that a device does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// The packages of a device: one confirmed, the one before it, and a candidate.
#[derive(Clone, Debug)]
pub(super) struct Packages {
    confirmed: Option<Package>,
    previous: Option<Package>,
    candidate: Option<(Package, Stage)>,
    order: Order,
    buried: Option<Prefix>,
    floor: u32,
    /// How the last update ended.
    pub(super) last: Option<(Prefix, Outcome)>,
    /// Sequence of the newest rollout document.
    pub(super) sequence: u64,
}

impl Packages {
    /// Returns a device that runs this package, or none.
    pub(super) fn new(running: Option<[u8; 32]>) -> Self {
        // Its release is unknown, so no floor is above its counter.
        let package = |digest| Package { digest, number: 0, counter: u32::MAX };
        Self {
            confirmed: running.map(package),
            previous: None,
            candidate: None,
            order: Order::SERVE,
            buried: None,
            floor: 0,
            last: None,
            sequence: 0,
        }
    }

    /// Returns the digest of the package that runs: the one on trial, else the confirmed one.
    pub(super) fn running(&self) -> Option<[u8; 32]> {
        match self.candidate {
            Some((package, Stage::Trial)) => Some(package.digest),
            _ => self.confirmed.map(|package| package.digest),
        }
    }

    /// Returns the phase that the device reports.
    pub(super) fn phase(&self) -> Phase {
        match self.candidate {
            Some((_, Stage::Staged)) => Phase::Staged,
            Some((_, Stage::Trial)) => Phase::Trial,
            None => Phase::Idle,
        }
    }

    /// Returns the package that does not simply serve, and how it runs.
    pub(super) fn beside(&self) -> Option<(Prefix, Manner)> {
        let package = match (self.order.manner, self.candidate) {
            (Manner::Shadow { .. }, Some((package, Stage::Staged))) => Some(package),
            (Manner::Hourly, None) => self.confirmed.filter(|_| self.can_take_turns()),
            _ => None,
        };
        package.map(|package| (prefix(&package.digest), self.order.manner))
    }

    fn can_take_turns(&self) -> bool {
        self.previous.is_some_and(|package| package.counter >= self.floor)
    }

    /// Returns the security counter below which no package is taken.
    pub(super) fn floor(&self) -> u32 {
        self.floor
    }

    /// Returns what runs in an hour, counted from 1970, on the device with this identity.
    pub(super) fn serving(&self, identity: &[u8], hour: u64) -> Option<Serving> {
        let running = self.running()?;
        if self.phase() == Phase::Trial {
            return Some(Serving::Candidate(running));
        }
        let is_over = hour * 3600 >= self.order.until;
        let bucket = self.order.salt.bucket(identity);
        Some(match (self.beside(), self.previous) {
            (Some((_, Manner::Shadow { every })), _) if !is_over => {
                Serving::WithShadow { digest: running, bucket: bucket.0, every }
            }
            (Some((_, Manner::Hourly)), Some(previous)) if !is_over => {
                let hour = u32::try_from(hour).unwrap_or(u32::MAX);
                if bucket.hourly(hour, 2) == 0 { Serving::Base(previous.digest) } else { Serving::Candidate(running) }
            }
            _ => Serving::Alone(running),
        })
    }

    /// Judges an offer. `now` is the device's clock, seconds since 1970, if it has one.
    ///
    /// # Errors
    /// When a document is expired, older than one before it, of another package, or not for this device; and when the package
    /// failed here or is below the floor.
    pub(super) fn offer(
        &mut self,
        rollout: &Rollout<'_>,
        release: &Release<'_>,
        identity: &[u8],
        now: Option<u64>,
    ) -> Result<Taken, Refused> {
        if now.is_some_and(|now| rollout.expires <= now) || rollout.sequence < self.sequence {
            return Err(Refused);
        }
        if rollout.sequence > self.sequence {
            self.sequence = rollout.sequence;
            for lifted in rollout.lifted.chunks_exact(16) {
                self.buried = self.buried.filter(|buried| buried != lifted);
                self.last = self.last.filter(|(prefix, _)| prefix != lifted);
            }
        }
        if release.digest != rollout.digest || !rollout.audience.reaches(identity) {
            return Err(Refused);
        }
        let package = Package { digest: release.digest, number: release.number, counter: release.counter };
        self.take(package, Order::of(rollout))
    }

    fn take(&mut self, package: Package, order: Order) -> Result<Taken, Refused> {
        let is = |other: Option<Package>| other.is_some_and(|other| other.digest == package.digest);
        let in_shadow = matches!(order.manner, Manner::Shadow { .. });
        if let Some((candidate, stage)) = self.candidate
            && is(Some(candidate))
        {
            let is_kept = self.order == order || stage == Stage::Trial && in_shadow;
            self.order = if is_kept { self.order } else { order };
            return Ok(if is_kept { Taken::Unchanged } else { Taken::Arranged });
        }
        if is(self.confirmed) {
            if in_shadow || self.candidate.is_none() && self.order == order {
                return Ok(Taken::Unchanged);
            }
            // Ends a shadow, turns, or a trial.
            self.replace();
            self.order = order;
            return Ok(Taken::Arranged);
        }
        if package.counter < self.floor || self.buried == Some(prefix(&package.digest)) {
            return Err(Refused);
        }
        self.replace();
        if !is(self.previous) {
            return Ok(Taken::Fetch);
        }
        if order == Order::SERVE && self.confirmed.is_some_and(|confirmed| package.number < confirmed.number) {
            // It had its trial here.
            self.previous = self.confirmed;
            self.confirmed = Some(package);
            self.order = order;
            self.last = Some((prefix(&package.digest), Outcome::Confirmed));
        } else {
            self.previous = None;
            self.candidate = Some((package, Stage::Staged));
            self.order = order;
        }
        Ok(Taken::Arranged)
    }

    /// Gives up the candidate, because another package is to run.
    fn replace(&mut self) {
        if let Some((package, _)) = self.candidate.take() {
            self.last = Some((prefix(&package.digest), Outcome::Rejected(Rejection::Replaced)));
            self.order = Order::SERVE;
        }
    }

    /// Stages a package that was fetched. It takes the place of the package before the confirmed one.
    pub(super) fn stage(&mut self, rollout: &Rollout<'_>, release: &Release<'_>) {
        let package = Package { digest: release.digest, number: release.number, counter: release.counter };
        self.previous = None;
        self.candidate = Some((package, Stage::Staged));
        self.order = Order::of(rollout);
    }

    /// Starts the trial of the staged package, unless it is to stay in the shadow. Returns whether a trial started.
    pub(super) fn start(&mut self) -> bool {
        match &mut self.candidate {
            Some((_, stage @ Stage::Staged)) if !matches!(self.order.manner, Manner::Shadow { .. }) => {
                *stage = Stage::Trial;
                true
            }
            _ => false,
        }
    }

    /// Confirms the package on trial.
    pub(super) fn confirm(&mut self) {
        let Some((package, Stage::Trial)) = self.candidate.take() else { return };
        self.previous = self.confirmed;
        self.confirmed = Some(package);
        self.floor = self.floor.max(package.counter);
        self.last = Some((prefix(&package.digest), Outcome::Confirmed));
    }

    /// Reverts the package on trial, which is not taken again.
    pub(super) fn revert(&mut self) {
        let Some((package, Stage::Trial)) = self.candidate.take() else { return };
        self.buried = Some(prefix(&package.digest));
        self.order = Order::SERVE;
        self.last = Some((prefix(&package.digest), Outcome::Reverted(Reversal::Golden)));
    }
}

#[cfg(test)]
mod tests;
