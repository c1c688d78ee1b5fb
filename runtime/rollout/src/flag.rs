//! Switches decided on the device: at once, offline, without memory of its own.
//!
//! A document of flags is the payload of a signed document (whose signature is for `dunlin-update` to check), in postcard,
//! read in place. [`Flags::open`] proves all of it, so that evaluation cannot fail; a [`Flag`] is a constant with a
//! compiled-in default, and evaluates to a value and a reason. Values, reasons and errors have OpenFeature's names.
//!
//! A flag that the document does not set keeps its compiled-in default; that is not the same as one that is off. A
//! condition on an attribute that the device does not have is neither true nor false, nor is its negation, and a rule needs
//! true: a device that does not know its region is not one outside of Europe.

mod document;
mod predicate;
mod version;
#[cfg(feature = "alloc")]
mod write;

use serde::{Deserialize, Serialize};

pub use document::{FlagError, Flags, MAX_DEPTH, MAX_ITEMS, MAX_NODES, Part};
pub use version::Version;
#[cfg(feature = "alloc")]
pub use write::{Document, FlagSpec, RuleSpec, Serving, Setting, When};

use document::{Entry, Serve};

/// A flag's or an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value<'a> {
    /// On or off.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    #[serde(borrow)]
    Text(&'a str),
}

/// A type that flags may have: `bool`, `i64`, `f64` or `&str`.
pub trait FlagValue<'a>: Copy {
    /// The value, when it is of this type.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

impl<'a> FlagValue<'a> for bool {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Bool(value) = value { Some(value) } else { None }
    }
}

impl<'a> FlagValue<'a> for i64 {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Int(value) = value { Some(value) } else { None }
    }
}

impl<'a> FlagValue<'a> for f64 {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Float(value) = value { Some(value) } else { None }
    }
}

impl<'a> FlagValue<'a> for &'a str {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Text(value) = value { Some(value) } else { None }
    }
}

/// What is known where a flag is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// What the device is known by (OpenFeature: targeting key). Empty: splits cannot be decided.
    pub identity: &'a [u8],
    /// Its attributes, by name.
    pub attributes: &'a [(&'a str, Value<'a>)],
    /// The model that it runs, which conditions find as [`MODEL_ATTRIBUTE`] and, where the device has no attribute of that
    /// name, as `model`. Empty: not known.
    pub model: &'a str,
    /// Seconds since 1970. Nothing: the device does not know, and a document that ages counts as stale.
    pub now: Option<u64>,
}

/// The built-in attribute with the model that a device runs. No attribute of the device's own takes its place, so that a
/// stop of one model reaches every device with it.
pub const MODEL_ATTRIBUTE: &str = "dunlin.model";

impl<'a> Context<'a> {
    /// An attribute's value.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<Value<'a>> {
        let model = || (!self.model.is_empty()).then_some(Value::Text(self.model));
        if name == MODEL_ATTRIBUTE {
            return model();
        }
        let own = self.attributes.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        own.or_else(|| if name == "model" { model() } else { None })
    }
}

/// Why a flag has its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No rule matched, or the document leaves it to the device.
    Default,
    /// A rule's condition matched.
    Targeting,
    /// The device's bucket lies in a part of a split.
    Split,
    /// The document is older than it may be, or its age is not known. The value is what it says nevertheless.
    Stale,
    /// The flag is killed.
    Killed,
    /// It could not be evaluated; the value is the compiled-in default.
    Error,
}

impl Reason {
    /// OpenFeature's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "DEFAULT",
            Self::Targeting => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Stale => "STALE",
            Self::Killed => "DISABLED",
            Self::Error => "ERROR",
        }
    }
}

/// What went wrong when a flag could not be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// There is no document yet.
    ProviderNotReady,
    /// The document has no flag of this key.
    FlagNotFound,
    /// The document's flag is of another type.
    TypeMismatch,
    /// A split needs an identity and there is none.
    TargetingKeyMissing,
}

impl ErrorCode {
    /// OpenFeature's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProviderNotReady => "PROVIDER_NOT_READY",
            Self::FlagNotFound => "FLAG_NOT_FOUND",
            Self::TypeMismatch => "TYPE_MISMATCH",
            Self::TargetingKeyMissing => "TARGETING_KEY_MISSING",
        }
    }
}

/// A flag's value, and how it came by it (OpenFeature: resolution details).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolution<'a, T> {
    /// The value.
    pub value: T,
    /// The name of the variant; nothing for a compiled-in default.
    pub variant: Option<&'a str>,
    /// Why.
    pub reason: Reason,
    /// What went wrong, when the reason is an error.
    pub error: Option<ErrorCode>,
}

/// A switch with its compiled-in default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag<T> {
    key: &'static str,
    default: T,
}

impl<T: Copy> Flag<T> {
    /// A switch.
    #[must_use]
    pub const fn new(key: &'static str, default: T) -> Self {
        Self { key, default }
    }

    /// Its key.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        self.key
    }

    /// Its compiled-in default.
    #[must_use]
    pub const fn default_value(&self) -> T {
        self.default
    }

    /// Its value here and now. Neither waits nor allocates.
    #[must_use]
    pub fn evaluate<'a>(&self, flags: Option<&Flags<'a>>, context: &Context<'_>) -> Resolution<'a, T>
    where
        T: FlagValue<'a>,
    {
        match self.resolve(flags, context) {
            Ok(resolution) => resolution,
            Err(code) => self.compiled_in(Reason::Error, Some(code)),
        }
    }

    fn compiled_in<'a>(&self, reason: Reason, error: Option<ErrorCode>) -> Resolution<'a, T> {
        Resolution { value: self.default, variant: None, reason, error }
    }

    fn resolve<'a>(&self, flags: Option<&Flags<'a>>, context: &Context<'_>) -> Result<Resolution<'a, T>, ErrorCode>
    where
        T: FlagValue<'a>,
    {
        let flags = flags.ok_or(ErrorCode::ProviderNotReady)?;
        let entry = flags.entry(self.key).ok_or(ErrorCode::FlagNotFound)?;
        // Of the document's variants one is asked for its type, whether or not it is served.
        if entry.variants().next().is_some_and(|v| T::from_value(v.value).is_none()) {
            return Err(ErrorCode::TypeMismatch);
        }
        let (variant, reason) = decide(&entry, context)?;
        let reason = match reason {
            Reason::Default | Reason::Targeting | Reason::Split if flags.is_stale(context.now) => Reason::Stale,
            reason => reason,
        };
        let Some(variant) = variant.and_then(|n| entry.variant(n)) else { return Ok(self.compiled_in(reason, None)) };
        let value = T::from_value(variant.value).ok_or(ErrorCode::TypeMismatch)?;
        Ok(Resolution { value, variant: Some(variant.name), reason, error: None })
    }
}

impl<'a> Flags<'a> {
    /// Evaluates a flag without its compiled-in default: returns the name of the variant that a device gets, or nothing
    /// where it keeps its compiled-in default, and why. For previews; devices use [`Flag::evaluate`].
    ///
    /// # Errors
    /// [`ErrorCode::FlagNotFound`], and [`ErrorCode::TargetingKeyMissing`] for a split without an identity.
    pub fn variant(&self, key: &str, context: &Context<'_>) -> Result<(Option<&'a str>, Reason), ErrorCode> {
        let entry = self.entry(key).ok_or(ErrorCode::FlagNotFound)?;
        let (number, reason) = decide(&entry, context)?;
        Ok((number.and_then(|n| entry.variant(n)).map(|v| v.name), reason))
    }
}

/// The variant's number, or nothing for the compiled-in default, and why.
fn decide(entry: &Entry<'_>, context: &Context<'_>) -> Result<(Option<u8>, Reason), ErrorCode> {
    if entry.killed {
        return Ok((entry.off, Reason::Killed));
    }
    for rule in entry.rules().filter(|rule| predicate::holds(rule.when, context)) {
        match rule.serve {
            Serve::Variant(n) => return Ok((Some(n), Reason::Targeting)),
            Serve::Split { .. } if context.identity.is_empty() => return Err(ErrorCode::TargetingKeyMissing),
            Serve::Split { salt, parts } => {
                // A bucket in no part goes on to the next rule.
                if let Some(part) = document::part_of(salt, parts, context.identity) {
                    return Ok((Some(part.variant), Reason::Split));
                }
            }
        }
    }
    Ok((entry.default, Reason::Default))
}

#[cfg(test)]
mod tests;
