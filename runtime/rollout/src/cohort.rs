//! Who is in which arm: one integer hash, compared on its whole range.
//!
//! A device's [`Bucket`] is `murmur3(seed = murmur3(seed = 0, salt), identity)`, MurmurHash3 x86_32 (Austin Appleby,
//! public domain). It is what feature flag systems have settled on, has published vectors, and takes three rotations
//! and some multiplications of 32 bits: about a hundred bytes of code on a Cortex-M0, no tables. Whoever knows the salt
//! can choose an identity for a bucket; nothing is protected by the hash, so a cryptographic one would protect no more.
//!
//! The candidate goes to buckets below a bound, the control cohort has its place at the top of the range. Raising the
//! bound adds devices and moves none. Each rollout has its own salt, so that it is not always the same devices that go
//! first. `tests/golden/cohort.tsv` has vectors for every implementation: device, server, bindings.

use serde::{Deserialize, Serialize};

/// MurmurHash3 x86_32.
#[must_use]
pub const fn murmur3(seed: u32, bytes: &[u8]) -> u32 {
    let mut h = seed;
    let mut rest = bytes;
    // A pattern leaves no bounds check behind, at any level of optimization.
    while let [a, b, c, d, tail @ ..] = rest {
        h ^= scramble(u32::from_le_bytes([*a, *b, *c, *d]));
        h = h.rotate_left(13).wrapping_mul(5).wrapping_add(0xE654_6B64);
        rest = tail;
    }
    match *rest {
        [a] => h ^= scramble(u32::from_le_bytes([a, 0, 0, 0])),
        [a, b] => h ^= scramble(u32::from_le_bytes([a, b, 0, 0])),
        [a, b, c] => h ^= scramble(u32::from_le_bytes([a, b, c, 0])),
        _ => {}
    }
    h ^= bytes.len() as u32;
    h ^= h >> 16;
    h = h.wrapping_mul(0x85EB_CA6B);
    h ^= h >> 13;
    h = h.wrapping_mul(0xC2B2_AE35);
    h ^ (h >> 16)
}

const fn scramble(k: u32) -> u32 {
    k.wrapping_mul(0xCC9E_2D51).rotate_left(15).wrapping_mul(0x1B87_3593)
}

/// What makes a rollout's buckets its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Salt(u32);

impl Salt {
    /// A salt of any bytes; a rollout's name or number will do.
    #[must_use]
    pub const fn new(bytes: &[u8]) -> Self {
        Self(murmur3(0, bytes))
    }

    /// The salt that was written down as this number.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Its number, to be written down.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The bucket of a device.
    #[must_use]
    pub const fn bucket(self, identity: &[u8]) -> Bucket {
        Bucket(murmur3(self.0, identity))
    }
}

/// A place in the range of 2^32 that a device keeps for the whole of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u32);

impl Bucket {
    /// An even choice of `count` that changes each hour, for crossover within a device. 0 for a count of 0.
    #[must_use]
    pub const fn hourly(self, hour: u32, count: u8) -> u8 {
        pick(murmur3(self.0, &hour.to_le_bytes()), count)
    }

    /// An even choice of `count` that stays, and is independent of the bucket's place. 0 for a count of 0.
    #[must_use]
    pub const fn variant(self, count: u8) -> u8 {
        pick(murmur3(self.0, b"variant"), count)
    }

    /// Whether this input is one of `every` that a shadow takes. Devices take different ones, so that a fleet's shadows do
    /// not run at one moment. None for 0.
    #[must_use]
    pub const fn takes(self, input: u32, every: u32) -> bool {
        every > 0 && input.wrapping_add(self.0).is_multiple_of(every)
    }
}

/// The part of `count` equal parts of the range that `hash` lies in.
const fn pick(hash: u32, count: u8) -> u8 {
    ((hash as u64 * count as u64) >> 32) as u8
}

/// A share of all devices, as a bound between 0 and 2^32 inclusive: all means all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Share(u64);

impl Share {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(1 << 32);

    /// `part` of `whole`, rounded down; all when `part` is not less, none when both are 0.
    #[must_use]
    pub const fn of(part: u32, whole: u32) -> Self {
        if whole == 0 {
            Self::NONE
        } else if part >= whole {
            Self::ALL
        } else {
            Self(((part as u64) << 32) / whole as u64)
        }
    }

    /// A whole number of percent.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Self::of(percent as u32, 100)
    }

    /// So many times the share, at most all.
    #[must_use]
    pub const fn times(self, n: u8) -> Self {
        let bound = self.0 * n as u64;
        if bound < Self::ALL.0 { Self(bound) } else { Self::ALL }
    }

    /// What is left when this share is taken.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(Self::ALL.0 - self.0)
    }

    /// Whether a bucket lies below the bound.
    #[must_use]
    pub const fn reaches(self, bucket: Bucket) -> bool {
        (bucket.0 as u64) < self.0
    }

    /// The bound, 0 to 2^32.
    #[must_use]
    pub const fn bound(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Share {
    type Error = &'static str;

    fn try_from(bound: u64) -> Result<Self, Self::Error> {
        if bound <= Self::ALL.0 { Ok(Self(bound)) } else { Err("a share is at most 2^32") }
    }
}

impl From<Share> for u64 {
    fn from(share: Share) -> Self {
        share.0
    }
}

/// A device's part in a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Arm {
    /// Shown, not compared.
    Rest,
    /// Keeps what ran before.
    Control,
    /// Has a candidate; 0 where there is one only.
    Candidate(u8),
}

/// How a device runs a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Manner {
    /// In the baseline's place.
    #[default]
    Instead,
    /// In its shadow: on one of `every` inputs besides, and nobody uses what it says.
    Shadow {
        /// One of how many inputs.
        every: u32,
    },
    /// In its place in hours that [`Bucket::hourly`] chooses, of two.
    Hourly,
}

/// Whom one candidate is for and how they run it, as a document says it to devices that know nothing of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Audience {
    /// What makes the rollout's buckets its own.
    pub salt: Salt,
    /// Devices below this bound take part.
    pub share: Share,
    /// Into how many equal parts these are divided: the baseline's and each candidate's; 0: they are not.
    pub parts: u8,
    /// Which of the parts; 0 is the baseline's.
    pub part: u8,
    /// How they run it.
    pub manner: Manner,
}

impl Audience {
    /// Everybody, in the baseline's place.
    pub const ALL: Self = Self { salt: Salt(0), share: Share::ALL, parts: 0, part: 0, manner: Manner::Instead };

    /// A share of all devices, in the baseline's place.
    #[must_use]
    pub const fn share(salt: Salt, share: Share) -> Self {
        Self { salt, share, ..Self::ALL }
    }

    /// Whether a device is meant.
    #[must_use]
    pub const fn reaches(&self, identity: &[u8]) -> bool {
        let bucket = self.salt.bucket(identity);
        self.share.reaches(bucket) && (self.parts == 0 || bucket.variant(self.parts) == self.part)
    }
}

/// The two cohorts that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cohort {
    salt: Salt,
    canary: Share,
    control: Share,
}

impl Cohort {
    /// Canary from the bottom of the range, control from its top.
    ///
    /// # Errors
    /// [`CohortError::Overlap`] when together they are more than all.
    pub const fn new(salt: Salt, canary: Share, control: Share) -> Result<Self, CohortError> {
        if canary.0 + control.0 > Share::ALL.0 {
            return Err(CohortError::Overlap);
        }
        Ok(Self { salt, canary, control })
    }

    /// The arm of a device.
    #[must_use]
    pub const fn arm(&self, identity: &[u8]) -> Arm {
        let bucket = self.salt.bucket(identity);
        if self.canary.reaches(bucket) {
            Arm::Candidate(0)
        } else if self.control.rest().reaches(bucket) {
            Arm::Rest
        } else {
            Arm::Control
        }
    }

    /// The same cohorts with other bounds. Whoever has the candidate keeps it.
    ///
    /// # Errors
    /// [`CohortError::Narrower`] when the canary would lose devices, [`CohortError::Overlap`] as in [`Self::new`].
    pub const fn widen(&self, canary: Share, control: Share) -> Result<Self, CohortError> {
        if canary.0 < self.canary.0 {
            return Err(CohortError::Narrower);
        }
        Self::new(self.salt, canary, control)
    }

    /// The share of the canary.
    #[must_use]
    pub const fn canary(&self) -> Share {
        self.canary
    }

    /// The share of the control cohort.
    #[must_use]
    pub const fn control(&self) -> Share {
        self.control
    }
}

/// Why there are no such cohorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CohortError {
    /// Canary and control are more than all devices: lower one of them.
    Overlap,
    /// The canary would lose devices that have the candidate already: roll back instead.
    Narrower,
}

impl core::fmt::Display for CohortError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Overlap => "canary and control together are more than all devices",
            Self::Narrower => "a canary cannot shrink; roll back instead",
        })
    }
}

impl core::error::Error for CohortError {}

#[cfg(test)]
mod tests;
