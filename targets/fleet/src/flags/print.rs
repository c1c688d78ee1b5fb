//! Flags as the API shows them and takes them, and their JSON Schema.

use std::collections::BTreeMap;

use dunlin_rollout::flag::{FlagSpec, Part, RuleSpec, Serving, Setting, When};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Flags;

/// All flags together.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "version": 3, "ttl": 0,
    "flags": [
        { "key": "dunlin.serve", "variants": { "on": true, "off": false }, "default": "on", "off": "off" },
        { "key": "count-bicycles", "variants": { "on": true, "off": false }, "default": "off", "off": "off", "rules": [
            { "when": { "attribute": "region", "equals": "eu" }, "serve": "on" },
            "model = door-counter and firmware >= 2.1 -> on 20%, off 80%"
        ] }
    ]
}))]
pub(crate) struct FlagsBody {
    /// The version these replace, 0 for the first; in answers the version in force.
    version: u64,
    /// Seconds after which a device that hears nothing new says that they are stale; 0: never.
    #[schema(required = false)]
    ttl: u32,
    /// The flags, each key once.
    #[schema(required = false)]
    flags: Vec<FlagBody>,
}

/// A flag.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct FlagBody {
    /// Its key, 1 to 64 bytes. `dunlin.serve` is the kill switch: where it is false no model runs.
    #[schema(min_length = 1, max_length = 64)]
    key: String,
    /// Whether it is killed: every device gets `off`, and no rule is looked at.
    #[schema(required = false)]
    killed: bool,
    /// The variant of a killed flag; null: the default that is compiled into the device.
    off: Option<String>,
    /// The variant where no rule matches; null: the default that is compiled into the device.
    default: Option<String>,
    /// Values by name, at most 16, all of one type.
    variants: BTreeMap<String, Scalar>,
    /// At most 16; the first that matches decides. Each is an object or a line such as `region = eu -> on`.
    #[schema(required = false)]
    rules: Vec<RuleBody>,
}

/// True, false, a whole number, a number or text of at most 64 bytes.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

/// A rule.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "rules as text are read and never written")]
pub(crate) enum RuleBody {
    /// On which devices it matches (null: on all), and what they get.
    Rule { when: Option<Condition>, serve: Serve },
    /// One line: `ATTRIBUTE = VALUE -> VARIANT`.
    Text(String),
}

/// What devices get.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Serve {
    /// The name of a variant.
    Variant(String),
    /// A variant by the device's identity. Devices in no part go on to the next rule.
    Split {
        split: Vec<Share>,
        /// What makes this split's choice of devices its own; the flag's key when absent. Bytes where it is no text.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        salt: Option<serde_json::Value>,
    },
}

/// A part of a split.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Share {
    variant: String,
    /// Of all devices.
    #[schema(minimum = 0, maximum = 100)]
    percent: f64,
    /// Where it begins; where the part before it ends when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    from: Option<f64>,
}

/// A condition on the attributes of a device. Where an attribute is not known it is neither true nor false.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Condition {
    All {
        #[schema(no_recursion)]
        all: Vec<Condition>,
    },
    Any {
        #[schema(no_recursion)]
        any: Vec<Condition>,
    },
    Not {
        #[schema(no_recursion)]
        not: Box<Condition>,
    },
    Known {
        attribute: String,
        known: bool,
    },
    Equals {
        attribute: String,
        equals: Scalar,
    },
    In {
        attribute: String,
        r#in: Vec<Scalar>,
    },
    /// A whole number from one to another, both included.
    Range {
        attribute: String,
        from: i64,
        to: i64,
    },
    /// A version from one on and before another.
    Version {
        attribute: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        version_from: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        version_before: Option<String>,
    },
}

impl From<&Setting> for Scalar {
    fn from(of: &Setting) -> Self {
        match of {
            Setting::Bool(value) => Self::Bool(*value),
            Setting::Int(n) => Self::Int(*n),
            Setting::Float(n) => Self::Float(*n),
            Setting::Text(text) => Self::Text(text.clone()),
        }
    }
}

impl From<&When> for Condition {
    fn from(of: &When) -> Self {
        let many = |of: &[When]| of.iter().map(Self::from).collect();
        match of {
            When::All(of) => Self::All { all: many(of) },
            When::Any(of) => Self::Any { any: many(of) },
            When::Not(of) => Self::Not { not: Box::new(Self::from(&**of)) },
            When::Has(name) => Self::Known { attribute: name.clone(), known: true },
            When::Equal(name, value) => Self::Equals { attribute: name.clone(), equals: value.into() },
            When::In(name, values) => {
                Self::In { attribute: name.clone(), r#in: values.iter().map(Scalar::from).collect() }
            }
            When::Range(name, from, to) => Self::Range { attribute: name.clone(), from: *from, to: *to },
            When::Version(name, from, before) => {
                let bound = |text: &String| (!text.is_empty()).then(|| text.clone());
                Self::Version { attribute: name.clone(), version_from: bound(from), version_before: bound(before) }
            }
        }
    }
}

fn name(flag: &FlagSpec, number: u8) -> String {
    flag.variants.get(usize::from(number)).map_or_else(|| number.to_string(), |(name, _)| name.clone())
}

impl RuleBody {
    /// A rule of a flag, with its variants by name.
    pub(super) fn of(flag: &FlagSpec, of: &RuleSpec) -> Self {
        let serve = match &of.serve {
            Serving::Variant(n) => Serve::Variant(name(flag, *n)),
            Serving::Split { salt, parts } => {
                let whole = 2f64.powi(32);
                let percent = |bound: u64| bound as f64 / whole * 100.0;
                let mut end = 0;
                let mut part = |part: &Part| {
                    let (from, to) = (part.from.bound(), part.to.bound());
                    let gap = from != std::mem::replace(&mut end, to);
                    Share {
                        variant: name(flag, part.variant),
                        percent: percent(to.saturating_sub(from)),
                        from: gap.then(|| percent(from)),
                    }
                };
                let split = parts.iter().map(&mut part).collect();
                let salt = match std::str::from_utf8(salt) {
                    Ok(text) if text == flag.key => None,
                    Ok(text) => Some(json!(text)),
                    Err(_) => Some(json!(salt)),
                };
                Serve::Split { split, salt }
            }
        };
        Self::Rule { when: of.when.as_ref().map(Condition::from), serve }
    }
}

impl From<&FlagSpec> for FlagBody {
    fn from(of: &FlagSpec) -> Self {
        Self {
            key: of.key.clone(),
            killed: of.killed,
            off: of.off.map(|n| name(of, n)),
            default: of.default.map(|n| name(of, n)),
            variants: of.variants.iter().map(|(name, value)| (name.clone(), value.into())).collect(),
            rules: of.rules.iter().map(|r| RuleBody::of(of, r)).collect(),
        }
    }
}

impl From<&Flags> for FlagsBody {
    fn from(of: &Flags) -> Self {
        Self { version: of.version, ttl: of.ttl, flags: of.flags.iter().map(FlagBody::from).collect() }
    }
}
