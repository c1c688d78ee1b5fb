//! What a device has of a rollout, and what it should have.

use dunlin_rollout::{Arm, Assignment, Audience, Manner, Phase};

use crate::hex::{hex, unhex_array};
use crate::store::exposures::{Beside, CONTROL, REST};
use crate::store::rollouts::Stored;
use crate::wire::Poll;

/// What a device has of a rollout's candidates, by what it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    /// None of them.
    Nothing,
    /// This one serves.
    Serving(u8),
    /// This one runs in the shadow of what serves, on one of so many inputs.
    Shadow(u8, u32),
    /// This one takes turns with what ran before it.
    Turns(u8),
}

impl Has {
    pub(super) fn of(stored: &Stored, poll: &Poll) -> Self {
        let place =
            |is: &dyn Fn(&String) -> bool| stored.candidates.iter().position(is).and_then(|n| u8::try_from(n).ok());
        let beside = poll.beside.and_then(|(prefix, manner)| {
            let n = place(&|c| unhex_array::<32>(c).is_some_and(|d| d.starts_with(&prefix)))?;
            match manner {
                Manner::Instead => None,
                Manner::Shadow { every } => Some(Self::Shadow(n, every)),
                Manner::Hourly => Some(Self::Turns(n)),
            }
        });
        let running = poll.running.map(|d| hex(&d));
        beside.or_else(|| place(&|c| running.as_ref() == Some(c)).map(Self::Serving)).unwrap_or(Self::Nothing)
    }

    pub(super) fn beside(self) -> Beside {
        match self {
            Self::Nothing | Self::Serving(_) => Beside::Nothing,
            Self::Shadow(..) => Beside::Shadow,
            Self::Turns(_) => Beside::Hourly,
        }
    }

    /// Returns whether a rollout that wants it so leaves it as it is, or only changes how the candidate runs. What serves
    /// and should run in the shadow has to leave first.
    pub(super) fn is_kept(self, candidate: u8, manner: Manner) -> bool {
        match self {
            Self::Nothing => false,
            Self::Shadow(n, _) => n == candidate,
            Self::Serving(n) | Self::Turns(n) => n == candidate && !matches!(manner, Manner::Shadow { .. }),
        }
    }

    /// Whether it is as it should be.
    pub(super) fn is(self, candidate: u8, manner: Manner) -> bool {
        match manner {
            Manner::Instead => self == Self::Serving(candidate),
            Manner::Shadow { every } => self == Self::Shadow(candidate, every),
            Manner::Hourly => self == Self::Turns(candidate),
        }
    }
}

/// What a device should have of a rollout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The arm that it counts for; of a device that takes turns, the candidate's.
    pub(super) arm: i64,
    /// The candidate, and whom the document about it is for.
    pub(super) wants: Option<(u8, Audience)>,
}

impl Part {
    pub(super) fn of(stored: &Stored, assigned: &Assignment) -> Self {
        let rollout = &stored.rollout;
        let wants = assigned.installs.map(|n| {
            // Laboratory devices keep what later stages bring to few, and who is not compared simply has it.
            let simply = assigned.arm == Arm::Rest || !rollout.phase().is_under_way();
            let stage = rollout.plan().stage(rollout.stage()).filter(|_| !simply);
            (n, stage.map_or(Audience::ALL, |s| s.exposure.audience(rollout.salt(), n)))
        });
        let arm = match (assigned.arm, wants) {
            (Arm::Rest, _) => REST,
            // It has both, whichever this hour is.
            (_, Some((n, Audience { manner: Manner::Hourly, .. }))) | (Arm::Candidate(n), _) => i64::from(n) + 1,
            (Arm::Control, _) => CONTROL,
        };
        Self { arm, wants }
    }

    pub(super) fn manner(&self) -> Option<Manner> {
        self.wants.map(|(_, audience)| audience.manner)
    }
}

/// What is to be offered to a device that has this and should have that: the package, and its audience.
pub(super) fn next(stored: &Stored, poll: &Poll, has: Has, part: &Part) -> Option<([u8; 32], Audience)> {
    let candidate = |n: u8| stored.candidates.get(usize::from(n)).and_then(|c| unhex_array(c));
    let back = || match has {
        // Told to run what serves, a device ends its shadow.
        Has::Shadow(..) => poll.running,
        Has::Serving(_) | Has::Turns(_) => stored.base.as_ref().and_then(|b| unhex_array(b)),
        Has::Nothing => None,
    };
    let back = || back().map(|digest| (digest, Audience::ALL));
    // Shadows and turns end with the document that they are by; who has an older one gets the one in force.
    let is_newer = crate::store::unsigned(stored.sequence) > poll.rollout;
    match (stored.rollout.phase(), part.wants) {
        // The way back is the recall's, which outlives the rollout.
        (Phase::Draft | Phase::RolledBack, _) => None,
        (phase, Some((n, audience))) => {
            let offered = match (has, audience.manner) {
                (has, Manner::Instead) => phase != Phase::Paused && !has.is(n, Manner::Instead),
                // What serves has no shadow of itself.
                (Has::Serving(m), Manner::Shadow { .. }) if m == n => false,
                // Its turns have run out, or there is nothing left to take them with.
                (Has::Serving(m), Manner::Hourly) if m == n => phase != Phase::Paused && is_newer,
                (has, manner) if has.is(n, manner) => is_newer,
                _ => phase != Phase::Paused,
            };
            candidate(n).filter(|_| offered).map(|digest| (digest, audience))
        }
        (Phase::Paused, None) => None,
        // A stage before this one reached it.
        (_, None) if matches!(has, Has::Shadow(..) | Has::Turns(_)) => back(),
        _ => None,
    }
}
