//! Who may say what: signed documents, roles and thresholds.
//!
//! After The Update Framework and Uptane, in a form that a microcontroller can check. *Root* names the keys of all roles
//! and is replaced by a chain of roots. *Targets* says what a package is. *Rollout* says which package a device should
//! run now, with a sequence that only rises and the time. A *distributor* may have to sign besides targets.
//! `TRUST.md` has every byte.

mod document;
mod ed25519;
mod key;
#[cfg(feature = "std")]
mod sign;

use serde::{Deserialize, Serialize};

use crate::fields::{Source, Target, slice, text};

// Whom a rollout is for is decided by the same function on devices and on servers.
pub use dunlin_rollout::{Audience, Manner, Salt, Share};

pub use document::{Document, MAX_DOCUMENT, MAX_SIGNATURES, Payload, SIGNATURE_LEN, message_head};
pub use key::{Ed25519, KeyId, PublicKey, Verifier, key_id};
#[cfg(feature = "std")]
pub use sign::{SecretKey, SeedError, SignError, envelope, sign};

/// Keys that a root may name.
pub const MAX_KEYS: usize = 8;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Which keys there are.
    Root = 0,
    /// What a package is.
    Targets = 1,
    /// Who should run which package now.
    Rollout = 2,
    /// A second signature of whoever distributes the packages of others.
    Distributor = 3,
}

impl Role {
    /// Every role, in the order of the numbers.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Rollout, Self::Distributor];

    /// The role's name in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Rollout => "rollout",
            Self::Distributor => "distributor",
        }
    }
}

/// The keys of a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// How many of them have to sign; 0: the role is not used.
    pub threshold: u8,
    /// Bit `i`: key `i` has the role.
    pub keys: u8,
}

/// The root document: keys and thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootKeys {
    /// Its number in the chain, from 1.
    pub version: u32,
    /// From when on no offer is accepted under it, seconds since 1970.
    pub expires: u64,
    /// Number of keys.
    pub count: u8,
    /// The keys; zeros from `count` on.
    pub keys: [PublicKey; MAX_KEYS],
    /// Keys and threshold by number of the role.
    pub roles: [RoleKeys; 4],
}

impl RootKeys {
    /// No keys, in the place of those that are not known yet.
    pub(crate) const NONE: Self = Self {
        version: 0,
        expires: 0,
        count: 0,
        keys: [[0; 32]; MAX_KEYS],
        roles: [RoleKeys { threshold: 0, keys: 0 }; 4],
    };

    /// Keys and threshold of a role.
    #[must_use]
    pub fn role(&self, role: Role) -> RoleKeys {
        self.roles.get(role as usize).copied().unwrap_or_default()
    }

    /// The keys that have a role.
    pub fn keys_of(&self, role: Role) -> impl Iterator<Item = &PublicKey> {
        let mask = self.role(role).keys;
        self.keys
            .iter()
            .take(usize::from(self.count))
            .enumerate()
            .filter(move |(i, _)| mask & (1 << i) != 0)
            .map(|(_, k)| k)
    }

    /// Whether every role that is used can reach its threshold, and the three that are needed are used.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let count = usize::from(self.count);
        if count > MAX_KEYS || self.version == 0 {
            return false;
        }
        for (i, key) in self.keys.iter().take(count).enumerate() {
            if self.keys.iter().take(i).any(|other| other == key) {
                return false;
            }
        }
        self.roles.iter().enumerate().all(|(role, RoleKeys { threshold, keys })| {
            let needed = role != Role::Distributor as usize;
            let reachable = u32::from(*threshold) <= keys.count_ones() && u32::from(*keys) < 1 << count;
            reachable && (*threshold > 0 || !needed)
        })
    }

    /// Whether a role has the same keys and threshold in another root.
    #[must_use]
    pub fn same_role(&self, other: &Self, role: Role) -> bool {
        self.role(role).threshold == other.role(role).threshold && self.keys_of(role).eq(other.keys_of(role))
    }

    /// The fields in the order in which they are declared.
    pub(crate) fn write(&self, to: &mut dyn Target) {
        to.number(self.version.into());
        to.number(self.expires);
        to.byte(self.count);
        self.keys.iter().for_each(|key| to.put(key));
        self.roles.iter().for_each(|role| to.put(&[role.threshold, role.keys]));
    }

    /// Reads the fields in place.
    #[inline(never)]
    pub(crate) fn read_from(&mut self, from: &mut dyn Source) -> Option<()> {
        self.version = from.u32()?;
        self.expires = from.u64()?;
        self.count = from.byte()?;
        self.keys.iter_mut().try_for_each(|key| from.fill(key))?;
        for role in &mut self.roles {
            *role = RoleKeys { threshold: from.byte()?, keys: from.byte()? };
        }
        Some(())
    }

    /// A root with the longest encoding.
    #[cfg(all(test, feature = "std"))]
    pub(crate) fn largest() -> Self {
        let roles = [RoleKeys { threshold: 8, keys: 255 }; 4];
        Self { version: u32::MAX, expires: u64::MAX, count: 8, keys: [[255; 32]; MAX_KEYS], roles }
    }
}

/// What targets signs: a package and what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// Version of the model, as its authors write it.
    pub version: &'a str,
    /// The package's digest.
    pub digest: [u8; 32],
    /// SHA-256 of the whole package, seal and all.
    pub hash: [u8; 32],
    /// Bytes of the whole package.
    pub len: u32,
    /// Releases of a model are numbered from 1.
    pub number: u32,
    /// Raised when packages before this one must never run again.
    pub counter: u32,
    /// From when on it is not accepted, seconds since 1970; 0: never.
    pub expires: u64,
    /// What it was compiled for; `any` runs everywhere.
    pub target: &'a str,
    /// Least engine, major and minor.
    pub engine_min: (u16, u16),
    /// Version of the operators.
    pub ops_version: u16,
    /// Bytes of tensors and of what operators need besides.
    pub memory: u32,
}

/// What rollout signs: which package who should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// Rises with every document; an older one is refused.
    pub sequence: u64,
    /// When it was signed, seconds since 1970.
    pub time: u64,
    /// From when on it is not accepted.
    pub expires: u64,
    /// Digest of the package.
    pub digest: [u8; 32],
    /// Whom it is for, and how they run it.
    pub audience: Audience,
    /// Beginnings of digests whose tombstones are lifted, 16 bytes each.
    pub lifted: &'a [u8],
}

/// An audience, field by field.
fn audience(from: &mut dyn Source) -> Option<Audience> {
    let salt = Salt::from_bits(from.u32()?);
    let share = Share::try_from(from.u64()?).ok()?;
    let (parts, part) = (from.byte()?, from.byte()?);
    Some(Audience { salt, share, parts, part, manner: manner(from)? })
}

/// How a package is run, as documents and state records have it.
pub(crate) fn manner(from: &mut dyn Source) -> Option<Manner> {
    match from.byte()? {
        0 => Some(Manner::Instead),
        1 => Some(Manner::Shadow { every: from.u32()? }),
        2 => Some(Manner::Hourly),
        _ => None,
    }
}

impl<'a> Payload<'a> for RootKeys {
    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let mut root = Self::NONE;
        root.read_from(bytes)?;
        Some(root)
    }
}

impl<'a> Payload<'a> for Release<'a> {
    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let (name, version) = (text(bytes)?, text(bytes)?);
        let from: &mut dyn Source = bytes;
        let (digest, hash) = (from.array()?, from.array()?);
        let (len, number, counter, expires) = (from.u32()?, from.u32()?, from.u32()?, from.u64()?);
        let target = text(bytes)?;
        let from: &mut dyn Source = bytes;
        let engine_min = (from.u16()?, from.u16()?);
        let (ops_version, memory) = (from.u16()?, from.u32()?);
        Some(Self {
            name,
            version,
            digest,
            hash,
            len,
            number,
            counter,
            expires,
            target,
            engine_min,
            ops_version,
            memory,
        })
    }
}

impl<'a> Payload<'a> for Rollout<'a> {
    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let name = text(bytes)?;
        let from: &mut dyn Source = bytes;
        let (sequence, time, expires) = (from.u64()?, from.u64()?, from.u64()?);
        let digest = from.array()?;
        let audience = audience(from)?;
        Some(Self { name, sequence, time, expires, digest, audience, lifted: slice(bytes)? })
    }
}

/// Why documents are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustError {
    /// It is longer than [`MAX_DOCUMENT`].
    TooLong,
    /// Its framing or its fields do not decode.
    Malformed,
    /// It is the document of another role.
    Document {
        /// The role whose document was expected.
        expected: Role,
    },
    /// Too few keys of a role signed it.
    Threshold {
        /// The role.
        role: Role,
        /// Valid signatures by different keys of the role.
        valid: u8,
        /// How many it takes.
        needed: u8,
    },
    /// A root does not follow the one in force.
    RootVersion {
        /// The version that would.
        expected: u32,
        /// What it has.
        found: u32,
    },
    /// A root that could not be met: thresholds out of reach, or roles without keys.
    RootUnsound,
    /// It is too old.
    Expired {
        /// The document's role.
        role: Role,
    },
    /// A rollout document older than one that was seen.
    Replayed {
        /// The newest sequence that was seen.
        newest: u64,
        /// What it has.
        found: u64,
    },
    /// The release is not the one that the rollout names.
    Mixed,
}

impl core::fmt::Display for TrustError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong => write!(f, "the document has more than {MAX_DOCUMENT} bytes"),
            Self::Malformed => f.write_str("the document does not decode"),
            Self::Document { expected } => write!(f, "this is not a {} document", expected.name()),
            Self::Threshold { role, valid, needed } => {
                write!(f, "{valid} valid signatures of the role {}, {needed} are needed", role.name())
            }
            Self::RootVersion { expected, found } => write!(f, "root {found} does not follow root {}", expected - 1),
            Self::RootUnsound => f.write_str("the root has roles whose threshold their keys cannot reach"),
            Self::Expired { role } => write!(f, "the {} document has expired", role.name()),
            Self::Replayed { newest, found } => write!(f, "rollout {found} is older than rollout {newest}"),
            Self::Mixed => f.write_str("the release is not the one that the rollout names"),
        }
    }
}

impl core::error::Error for TrustError {}

/// Follows a chain of roots from the one in force.
///
/// Each has to be signed by enough root keys of the one before and of its own, and to be its direct successor.
///
/// # Errors
/// What is wrong with the first that does not follow.
pub fn follow<V: Verifier>(root: &RootKeys, bytes: &[u8], verifier: &V) -> Result<RootKeys, TrustError> {
    let mut next = RootKeys::NONE;
    follow_into(root, bytes, verifier, &mut next)?;
    Ok(next)
}

/// As [`follow`], in place.
#[inline(never)]
pub(crate) fn follow_into<V: Verifier>(
    root: &RootKeys,
    bytes: &[u8],
    verifier: &V,
    next: &mut RootKeys,
) -> Result<(), TrustError> {
    let document = Document::read(bytes, Role::Root)?;
    let mut rest = document.payload();
    next.read_from(&mut rest).filter(|()| rest.is_empty()).ok_or(TrustError::Malformed)?;
    let expected = root.version.saturating_add(1);
    if next.version != expected {
        return Err(TrustError::RootVersion { expected, found: next.version });
    }
    document.check(root, Role::Root, verifier)?;
    if !next.is_sound() {
        return Err(TrustError::RootUnsound);
    }
    document.check(next, Role::Root, verifier)
}

/// Reads a release that enough targets keys signed, and enough of the distributor's when the root asks for them.
///
/// # Errors
/// What is wrong with it.
#[inline(never)]
pub fn release<'a, V: Verifier>(root: &RootKeys, bytes: &'a [u8], verifier: &V) -> Result<Release<'a>, TrustError> {
    let document = Document::read(bytes, Role::Targets)?;
    document.check(root, Role::Targets, verifier)?;
    if root.role(Role::Distributor).threshold > 0 {
        document.check(root, Role::Distributor, verifier)?;
    }
    document.decode()
}

/// Reads a rollout that enough rollout keys signed.
///
/// # Errors
/// What is wrong with it.
#[inline(never)]
pub fn rollout<'a, V: Verifier>(root: &RootKeys, bytes: &'a [u8], verifier: &V) -> Result<Rollout<'a>, TrustError> {
    let document = Document::read(bytes, Role::Rollout)?;
    document.check(root, Role::Rollout, verifier)?;
    let rollout: Rollout<'a> = document.decode()?;
    if !rollout.lifted.len().is_multiple_of(crate::record::PREFIX) {
        return Err(TrustError::Malformed);
    }
    Ok(rollout)
}
