//! Writing documents of flags, where there is memory.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::document::{Entry, Header, MAX_DEPTH, Part, Rule, Serve, VERSION, Variant};
use super::predicate::Node;
use super::{FlagError, Flags, Value};

/// A document of flags to be written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Above that of every document before it.
    pub sequence: u64,
    /// Seconds since 1970.
    pub issued: u64,
    /// Seconds after which it is stale; 0: never.
    pub ttl: u32,
    /// The flags, in any order.
    pub flags: Vec<FlagSpec>,
}

/// A flag to be written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlagSpec {
    /// Its key.
    pub key: String,
    /// Whether it is killed: no rule is looked at.
    #[serde(default)]
    pub killed: bool,
    /// What it is when killed; nothing: the compiled-in default.
    #[serde(default)]
    pub off: Option<u8>,
    /// What it is when no rule matches; nothing: the compiled-in default.
    #[serde(default)]
    pub default: Option<u8>,
    /// Names and values, of one type; numbered from 0.
    pub variants: Vec<(String, Setting)>,
    /// The rules; the first that decides does.
    #[serde(default)]
    pub rules: Vec<RuleSpec>,
}

/// A value with memory of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Setting {
    /// On or off.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
}

impl Setting {
    /// The value.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Text(value) => Value::Text(value),
        }
    }
}

/// A rule to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleSpec {
    /// On which devices; nothing: on all.
    #[serde(default)]
    pub when: Option<When>,
    /// What they get.
    pub serve: Serving,
}

/// What a rule gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Serving {
    /// A variant.
    Variant(u8),
    /// A variant by the device's bucket. Buckets in no part go on to the next rule.
    Split {
        /// What makes the buckets this split's own.
        salt: Vec<u8>,
        /// The parts, rising.
        parts: Vec<Part>,
    },
}

/// A condition to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum When {
    /// All of them.
    All(Vec<When>),
    /// One of them.
    Any(Vec<When>),
    /// Not that one. Unknown stays unknown.
    Not(Box<When>),
    /// The attribute is known.
    Has(String),
    /// The attribute has this value.
    Equal(String, Setting),
    /// The attribute has one of these values.
    In(String, Vec<Setting>),
    /// The attribute is a whole number from the first to the second, both included.
    Range(String, i64, i64),
    /// The attribute is a version from the first on and below the second; an empty one is no bound.
    Version(String, String, String),
}

/// Serializes into the end of a vector. postcard fails only where memory does.
fn put(item: &impl Serialize, to: &mut Vec<u8>) -> Result<(), FlagError> {
    to.extend(postcard::to_allocvec(item).map_err(|_| FlagError::Malformed)?);
    Ok(())
}

fn count(len: usize) -> Result<u8, FlagError> {
    u8::try_from(len).map_err(|_| FlagError::TooMany)
}

impl When {
    fn write(&self, depth: u8, to: &mut Vec<u8>) -> Result<(), FlagError> {
        if depth > MAX_DEPTH {
            return Err(FlagError::TooDeep);
        }
        match self {
            Self::All(of) => {
                put(&Node::All(count(of.len())?), to)?;
                of.iter().try_for_each(|w| w.write(depth + 1, to))
            }
            Self::Any(of) => {
                put(&Node::Any(count(of.len())?), to)?;
                of.iter().try_for_each(|w| w.write(depth + 1, to))
            }
            Self::Not(of) => {
                put(&Node::Not, to)?;
                of.write(depth + 1, to)
            }
            Self::Has(name) => put(&Node::Has(name), to),
            Self::Equal(name, value) => put(&Node::Equal(name, value.value()), to),
            Self::In(name, values) => {
                put(&Node::In(name, count(values.len())?), to)?;
                values.iter().try_for_each(|v| put(&v.value(), to))
            }
            Self::Range(name, min, max) => put(&Node::Range(name, *min, *max), to),
            Self::Version(name, from, below) => put(&Node::Version(name, from, below), to),
        }
    }
}

impl FlagSpec {
    fn write(&self, to: &mut Vec<u8>) -> Result<(), FlagError> {
        let (mut variants, mut rules) = (Vec::new(), Vec::new());
        for (name, value) in &self.variants {
            put(&Variant { name, value: value.value() }, &mut variants)?;
        }
        for rule in &self.rules {
            let (mut when, mut parts) = (Vec::new(), Vec::new());
            rule.when.iter().try_for_each(|w| w.write(1, &mut when))?;
            let serve = match &rule.serve {
                Serving::Variant(n) => Serve::Variant(*n),
                Serving::Split { salt, parts: of } => {
                    of.iter().try_for_each(|part| put(part, &mut parts))?;
                    Serve::Split { salt, parts: &parts }
                }
            };
            put(&Rule { when: &when, serve }, &mut rules)?;
        }
        let Self { killed, off, default, .. } = *self;
        put(&Entry { key: &self.key, killed, off, default, variants: &variants, rules: &rules }, to)
    }
}

impl Document {
    /// The payload to be signed.
    ///
    /// # Errors
    /// What devices would find wrong with it.
    pub fn encode(&self) -> Result<Vec<u8>, FlagError> {
        let mut sorted: Vec<_> = self.flags.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let (mut flags, mut payload) = (Vec::new(), Vec::new());
        sorted.into_iter().try_for_each(|flag| flag.write(&mut flags))?;
        let Self { sequence, issued, ttl, .. } = *self;
        put(&Header { version: VERSION, sequence, issued, ttl, flags: &flags }, &mut payload)?;
        Flags::open(&payload)?;
        Ok(payload)
    }
}
