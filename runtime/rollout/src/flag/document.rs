//! The document of flags, read in place.
//!
//! ```text
//! document  version u8 = 1, sequence u64, issued u64, ttl u32, flags bytes
//! flags     flag*, keys rising
//! flag      key str, killed bool, off option<u8>, default option<u8>, variants bytes, rules bytes
//! variants  (name str, value)*, 1 to 16 of one type
//! value     0 bool | 1 i64 | 2 f64 | 3 str
//! rules     (when bytes, serve)*, at most 16
//! serve     0 variant u8 | 1 salt bytes, parts bytes
//! parts     (variant u8, from u64, to u64)*, 1 to 16, rising, at most 2^32
//! when      nothing: always; else one condition, at most 4 deep and 32 long
//! condition 0 all, count u8, conditions | 1 any, count u8, conditions | 2 not, condition | 3 has, name str
//!         | 4 equal, name str, value | 5 in, name str, count u8, values | 6 range, name str, min i64, max i64
//!         | 7 version, name str, from str, below str
//! ```
//!
//! Numbers, strings and options are postcard's; `bytes` has its length before it. Nothing may follow.

use serde::{Deserialize, Serialize};

use super::{Value, predicate};
use crate::cohort::{Salt, Share};

/// Variants, rules, parts or members that a list may have.
pub const MAX_ITEMS: usize = 16;
/// How deep a condition may be.
pub const MAX_DEPTH: u8 = 4;
/// Conditions and values that a rule may have.
pub const MAX_NODES: u32 = 32;
/// Bytes of a key, a name or a text.
const MAX_TEXT: usize = 64;

pub(super) const VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Header<'a> {
    pub(super) version: u8,
    pub(super) sequence: u64,
    pub(super) issued: u64,
    pub(super) ttl: u32,
    pub(super) flags: &'a [u8],
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) killed: bool,
    pub(super) off: Option<u8>,
    pub(super) default: Option<u8>,
    pub(super) variants: &'a [u8],
    pub(super) rules: &'a [u8],
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Variant<'a> {
    pub(super) name: &'a str,
    #[serde(borrow)]
    pub(super) value: Value<'a>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Rule<'a> {
    pub(super) when: &'a [u8],
    #[serde(borrow)]
    pub(super) serve: Serve<'a>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Serve<'a> {
    Variant(u8),
    Split { salt: &'a [u8], parts: &'a [u8] },
}

/// A part of a split: buckets from one bound up to, and without, another. A canary has its part at the bottom of the
/// range, a control cohort at its top; raising an upper bound moves nobody who is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// The variant's number.
    pub variant: u8,
    /// Buckets below it are not in.
    pub from: Share,
    /// Buckets from it on are not in.
    pub to: Share,
}

/// The items of a list, one after the other; ends early where one does not decode.
pub(super) struct Items<'a, T> {
    rest: &'a [u8],
    broken: bool,
    item: core::marker::PhantomData<T>,
}

impl<'a, T: Deserialize<'a>> Items<'a, T> {
    const fn new(rest: &'a [u8]) -> Self {
        Self { rest, broken: false, item: core::marker::PhantomData }
    }
}

impl<'a, T: Deserialize<'a>> Iterator for Items<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(self.rest) {
            Ok((item, rest)) => {
                self.rest = rest;
                Some(item)
            }
            Err(_) => {
                (self.rest, self.broken) = (&[], true);
                None
            }
        }
    }
}

impl<'a> Entry<'a> {
    pub(super) const fn variants(&self) -> Items<'a, Variant<'a>> {
        Items::new(self.variants)
    }

    pub(super) fn variant(&self, number: u8) -> Option<Variant<'a>> {
        self.variants().nth(number.into())
    }

    pub(super) const fn rules(&self) -> Items<'a, Rule<'a>> {
        Items::new(self.rules)
    }
}

/// The part of a split that a device is in.
pub(super) fn part_of(salt: &[u8], parts: &[u8], identity: &[u8]) -> Option<Part> {
    let bucket = Salt::new(salt).bucket(identity);
    Items::<Part>::new(parts).find(|part| part.to.reaches(bucket) && !part.from.reaches(bucket))
}

/// A document of flags, proved.
#[derive(Clone, Copy, Debug)]
pub struct Flags<'a> {
    header: Header<'a>,
}

impl<'a> Flags<'a> {
    /// Reads and proves a document: afterwards no evaluation finds it broken.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(payload: &'a [u8]) -> Result<Self, FlagError> {
        // The version comes first and alone, so that a document of a later one is not taken for a broken one.
        match payload.first() {
            Some(&VERSION) => {}
            Some(&found) => return Err(FlagError::Version { found }),
            None => return Err(FlagError::Malformed),
        }
        let (header, []) = postcard::take_from_bytes::<Header<'a>>(payload).map_err(|_| FlagError::Malformed)? else {
            return Err(FlagError::Malformed);
        };
        let flags = Self { header };
        let mut last = None;
        let mut entries = flags.entries();
        for entry in &mut entries {
            if last.is_some_and(|last| last >= entry.key) {
                return Err(FlagError::Order);
            }
            last = Some(entry.key);
            prove(&entry)?;
        }
        if entries.broken { Err(FlagError::Malformed) } else { Ok(flags) }
    }

    const fn entries(&self) -> Items<'a, Entry<'a>> {
        Items::new(self.header.flags)
    }

    pub(super) fn entry(&self, key: &str) -> Option<Entry<'a>> {
        self.entries().take_while(|e| e.key <= key).find(|e| e.key == key)
    }

    /// The number of the document. A device keeps the greatest it has seen and refuses what is below.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// When it was issued, in seconds since 1970.
    #[must_use]
    pub const fn issued(&self) -> u64 {
        self.header.issued
    }

    /// Seconds after which it is stale; 0: never.
    #[must_use]
    pub const fn ttl(&self) -> u32 {
        self.header.ttl
    }

    /// Whether it is older than it may be, or may be.
    #[must_use]
    pub fn is_stale(&self, now: Option<u64>) -> bool {
        let age = now.map(|now| now.saturating_sub(self.header.issued));
        self.header.ttl > 0 && age.is_none_or(|age| age > self.header.ttl.into())
    }

    /// The keys it sets.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.entries().map(|e| e.key)
    }
}

fn prove(entry: &Entry<'_>) -> Result<(), FlagError> {
    let text = |text: &str| if text.len() > MAX_TEXT { Err(FlagError::TooLong) } else { Ok(()) };
    text(entry.key)?;
    if entry.key.is_empty() {
        return Err(FlagError::Malformed);
    }
    let mut variants = entry.variants();
    let mut count = 0;
    let mut first: Option<Value<'_>> = None;
    for variant in &mut variants {
        text(variant.name)?;
        prove_value(&variant.value)?;
        let first = *first.get_or_insert(variant.value);
        if core::mem::discriminant(&first) != core::mem::discriminant(&variant.value) {
            return Err(FlagError::MixedTypes);
        }
        count += 1;
    }
    let known = |n: u8| if usize::from(n) < count { Ok(()) } else { Err(FlagError::NoVariant) };
    if variants.broken || count == 0 {
        return Err(FlagError::Malformed);
    }
    if count > MAX_ITEMS {
        return Err(FlagError::TooMany);
    }
    entry.off.into_iter().chain(entry.default).try_for_each(known)?;
    let mut rules = entry.rules();
    let mut count = 0;
    for rule in &mut rules {
        predicate::prove(rule.when)?;
        match rule.serve {
            Serve::Variant(n) => known(n)?,
            Serve::Split { parts, .. } => prove_parts(parts, known)?,
        }
        count += 1;
    }
    match (rules.broken, count > MAX_ITEMS) {
        (true, _) => Err(FlagError::Malformed),
        (_, true) => Err(FlagError::TooMany),
        _ => Ok(()),
    }
}

pub(super) fn prove_value(value: &Value<'_>) -> Result<(), FlagError> {
    match value {
        Value::Text(text) if text.len() > MAX_TEXT => Err(FlagError::TooLong),
        // It would be equal to nothing.
        Value::Float(number) if !number.is_finite() => Err(FlagError::Malformed),
        _ => Ok(()),
    }
}

pub(super) fn prove_name(name: &str) -> Result<(), FlagError> {
    match name.len() {
        0 => Err(FlagError::Malformed),
        len if len > MAX_TEXT => Err(FlagError::TooLong),
        _ => Ok(()),
    }
}

fn prove_parts(parts: &[u8], known: impl Fn(u8) -> Result<(), FlagError>) -> Result<(), FlagError> {
    let mut parts = Items::<Part>::new(parts);
    let (mut end, mut count) = (Share::NONE, 0);
    for part in &mut parts {
        known(part.variant)?;
        if part.from < end || part.to < part.from {
            return Err(FlagError::Parts);
        }
        end = part.to;
        count += 1;
    }
    match (parts.broken || count == 0, count > MAX_ITEMS) {
        (true, _) => Err(FlagError::Malformed),
        (_, true) => Err(FlagError::TooMany),
        _ => Ok(()),
    }
}

/// Why a document of flags is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlagError {
    /// It does not decode, or something follows it.
    Malformed,
    /// It is of another version of the format.
    Version {
        /// The version it is of.
        found: u8,
    },
    /// Keys do not rise, or one comes twice.
    Order,
    /// More than [`MAX_ITEMS`] variants, rules, parts or members, or more than [`MAX_NODES`] conditions.
    TooMany,
    /// A key, name or text has more than 64 bytes.
    TooLong,
    /// A condition is deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A flag's variants are of different types.
    MixedTypes,
    /// A variant is served that the flag does not have.
    NoVariant,
    /// The parts of a split overlap or do not rise.
    Parts,
    /// A bound that is no version, or a range with nothing in it.
    Bounds,
}

impl core::fmt::Display for FlagError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("the document of flags does not decode"),
            Self::Version { found } => write!(f, "a document of flags in format {found}; this reads format {VERSION}"),
            Self::Order => f.write_str("the keys of flags do not rise, or one comes twice"),
            Self::TooMany => {
                write!(f, "a flag has more than {MAX_ITEMS} items in a list or {MAX_NODES} conditions in a rule")
            }
            Self::TooLong => write!(f, "a key, name or text has more than {MAX_TEXT} bytes"),
            Self::TooDeep => write!(f, "a condition is more than {MAX_DEPTH} deep"),
            Self::MixedTypes => f.write_str("the variants of a flag are of different types"),
            Self::NoVariant => f.write_str("a flag serves a variant that it does not have"),
            Self::Parts => f.write_str("the parts of a split overlap or do not rise"),
            Self::Bounds => f.write_str("a bound is no version, or a range has nothing in it"),
        }
    }
}

impl core::error::Error for FlagError {}
