//! Which device runs what in a stage.

use serde::{Deserialize, Serialize};

use crate::cohort::{Arm, Audience, Manner, Salt, Share};
use crate::gate::Expected;

/// Candidates that an A/B test may have.
pub const MAX_CANDIDATES: usize = 7;

/// Whom a stage reaches, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exposure {
    /// Canary: shares of all devices, the candidate's from the bottom of the range, the control's from its top.
    Share {
        /// Devices with the candidate.
        canary: Share,
        /// Devices that keep what they have, and are compared.
        control: Share,
    },
    /// Rings: devices of this ring and those before it, but for a control share of them. Ring 0 is the laboratory.
    Ring {
        /// The outermost ring that is reached.
        ring: u8,
        /// Devices of the rings that keep what they have.
        control: Share,
    },
    /// A/B test between devices: a share of them, divided evenly into the baseline and the candidates.
    Variants {
        /// Devices that take part.
        share: Share,
        /// Number of candidates, 1 to [`MAX_CANDIDATES`].
        candidates: u8,
    },
    /// A/B test within devices: each runs the baseline or the candidate by the hour.
    Crossover {
        /// Devices that take part.
        share: Share,
    },
    /// Shadow: the candidate runs beside on one of `every` inputs, and nobody uses its outputs.
    Shadow {
        /// Devices on which it runs.
        canary: Share,
        /// Devices that are compared.
        control: Share,
        /// One of how many inputs.
        every: u32,
    },
}

/// What decides a device's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What the device is known by.
    pub identity: &'a [u8],
    /// The ring it is in, when it is in one.
    pub ring: Option<u8>,
    /// Hours since any fixed origin; for crossover.
    pub hour: u32,
    /// Number of the input; for shadow.
    pub input: u32,
}

impl<'a> Subject<'a> {
    /// A device in no ring.
    #[must_use]
    pub const fn new(identity: &'a [u8]) -> Self {
        Self { identity, ring: None, hour: 0, input: 0 }
    }
}

/// What a device runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Assignment {
    /// Its arm in the comparison, now.
    pub arm: Arm,
    /// The candidate whose outputs are used; nothing: the baseline's.
    pub serves: Option<u8>,
    /// The candidate that runs on this input besides.
    pub shadows: Option<u8>,
    /// The candidate that should be on the device, fetched and tried.
    pub installs: Option<u8>,
}

impl Assignment {
    /// The baseline, not compared.
    pub const REST: Self = Self { arm: Arm::Rest, serves: None, shadows: None, installs: None };
    const CONTROL: Self = Self { arm: Arm::Control, ..Self::REST };

    /// A candidate that serves.
    #[must_use]
    pub const fn candidate(n: u8) -> Self {
        Self { arm: Arm::Candidate(n), serves: Some(n), shadows: None, installs: Some(n) }
    }
}

impl Exposure {
    /// A device's part.
    #[must_use]
    pub fn assign(&self, salt: Salt, subject: &Subject<'_>) -> Assignment {
        let bucket = salt.bucket(subject.identity);
        let split = |canary: Share, control: Share| match bucket {
            b if canary.reaches(b) => Assignment::candidate(0),
            b if control.rest().reaches(b) => Assignment::REST,
            _ => Assignment::CONTROL,
        };
        match *self {
            Self::Share { canary, control } => split(canary, control),
            Self::Ring { ring, control } if subject.ring.is_some_and(|r| r <= ring) => split(control.rest(), control),
            Self::Ring { .. } => Assignment::REST,
            Self::Variants { share, candidates } if share.reaches(bucket) => {
                match bucket.variant(candidates.saturating_add(1)) {
                    0 => Assignment::CONTROL,
                    n => Assignment::candidate(n - 1),
                }
            }
            Self::Crossover { share } if share.reaches(bucket) => match bucket.hourly(subject.hour, 2) {
                0 => Assignment { installs: Some(0), ..Assignment::CONTROL },
                _ => Assignment::candidate(0),
            },
            Self::Variants { .. } | Self::Crossover { .. } => Assignment::REST,
            Self::Shadow { canary, control, every } => match split(canary, control) {
                with @ Assignment { installs: Some(0), .. } => {
                    let turn = bucket.takes(subject.input, every);
                    Assignment { serves: None, shadows: turn.then_some(0), ..with }
                }
                without => without,
            },
        }
    }

    /// Whom a document about a candidate is for: the devices that [`assign`](Self::assign) lets install it. Rings are a
    /// server's knowledge; what is for them is for everybody whom the server gives it to.
    #[must_use]
    pub fn audience(&self, salt: Salt, candidate: u8) -> Audience {
        match *self {
            Self::Share { canary, .. } => Audience::share(salt, canary),
            Self::Ring { .. } => Audience { salt, ..Audience::ALL },
            Self::Variants { share, candidates } => Audience {
                parts: candidates.saturating_add(1),
                part: candidate.saturating_add(1),
                ..Audience::share(salt, share)
            },
            Self::Crossover { share } => Audience { manner: Manner::Hourly, ..Audience::share(salt, share) },
            Self::Shadow { canary, every, .. } => {
                Audience { manner: Manner::Shadow { every }, ..Audience::share(salt, canary) }
            }
        }
    }

    /// The canary's planned share of the devices of both arms, for one candidate; nothing where it cannot be compared.
    #[must_use]
    pub fn expected(&self) -> Option<Expected> {
        match *self {
            Self::Share { canary, control } | Self::Shadow { canary, control, .. } => Expected::of(canary, control),
            Self::Ring { control, .. } => Expected::of(control.rest(), control),
            Self::Variants { .. } => Expected::of(Share::of(1, 2), Share::of(1, 2)),
            // Each device is in both arms.
            Self::Crossover { .. } => None,
        }
    }

    /// Number of candidates.
    #[must_use]
    pub const fn candidates(&self) -> u8 {
        match *self {
            Self::Variants { candidates, .. } => candidates,
            _ => 1,
        }
    }

    /// Whether the shares fit into the range and there is something to compare.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let fits = |a: Share, b: Share| a.bound() + b.bound() <= Share::ALL.bound();
        match *self {
            Self::Share { canary, control } => canary > Share::NONE && fits(canary, control),
            Self::Shadow { canary, control, every } => canary > Share::NONE && fits(canary, control) && every > 0,
            Self::Ring { control, .. } => control < Share::ALL,
            Self::Variants { share, candidates } => {
                share > Share::NONE && (1..=MAX_CANDIDATES).contains(&candidates.into())
            }
            Self::Crossover { share } => share > Share::NONE,
        }
    }

    /// Whether every device that has the candidate after `before` keeps it in this stage.
    #[must_use]
    pub fn keeps(&self, before: &Self) -> bool {
        match (*before, *self) {
            // The laboratory's devices are few, and named.
            (Self::Ring { ring: 0, .. }, _) => true,
            (Self::Ring { ring: a, control: x }, Self::Ring { ring: b, control: y }) => a <= b && x >= y,
            (Self::Variants { share: a, candidates: x }, Self::Variants { share: b, candidates: y }) => {
                a <= b && x == y
            }
            (Self::Crossover { share: a }, Self::Crossover { share: b } | Self::Share { canary: b, .. }) => a <= b,
            (
                Self::Share { canary: a, .. } | Self::Shadow { canary: a, .. },
                Self::Share { canary: b, .. } | Self::Shadow { canary: b, .. },
            ) => a <= b,
            _ => false,
        }
    }

    /// Whether there is a control arm.
    #[must_use]
    pub fn has_control(&self) -> bool {
        match *self {
            Self::Share { control, .. } | Self::Shadow { control, .. } | Self::Ring { control, .. } => {
                control > Share::NONE
            }
            Self::Variants { .. } | Self::Crossover { .. } => true,
        }
    }
}
