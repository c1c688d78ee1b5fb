//! Reads flags from JSON and names the field and the value that is wrong.
//!
//! Variants are named and have plain JSON values: `{"on": true, "off": false}`. The earlier form, which is that of
//! `dunlin-rollout` (`[["on", {"Bool": true}]]`, variants by number), is read as well.

use dunlin_rollout::flag::{Document, FlagSpec, Part, RuleSpec, Serving, Setting, When};
use dunlin_rollout::{Share, flag};
use serde_json::{Map, Value};

use super::{Flags, rule};
use crate::error::ApiError;

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// Such as `flags[0].rules[1].serve`.
    pub(crate) path: String,
    /// What is wrong with it, value included.
    pub(crate) what: String,
    /// What to write instead.
    pub(crate) hint: String,
}

impl Invalid {
    pub(super) fn new(path: &str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.to_owned(), what: what.into(), hint: hint.into() }
    }
}

impl From<Invalid> for ApiError {
    fn from(of: Invalid) -> Self {
        let error = if of.path.is_empty() { of.what } else { format!("{}: {}", of.path, of.what) };
        Self::unacceptable(error, of.hint)
    }
}

type Read<T> = Result<T, Invalid>;

/// A value as it is shown in an error: its JSON, shortened.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn wrong_type<T>(path: &str, value: &Value, expected: &str) -> Read<T> {
    Err(Invalid::new(path, format!("{} is not {expected}", shown(value)), format!("give {expected}")))
}

fn object<'v>(path: &str, value: &'v Value, known: &[&str]) -> Read<&'v Map<String, Value>> {
    let Value::Object(fields) = value else { return wrong_type(path, value, "an object") };
    match fields.keys().find(|k| !known.contains(&k.as_str())) {
        None => Ok(fields),
        Some(other) => {
            let what = format!("there is no field {other:?}");
            Err(Invalid::new(path, what, format!("use one of {}", known.join(", "))))
        }
    }
}

fn list<'v>(path: &str, value: &'v Value) -> Read<&'v [Value]> {
    match value {
        Value::Array(items) => Ok(items),
        other => wrong_type(path, other, "a list"),
    }
}

fn string<'v>(path: &str, value: &'v Value) -> Read<&'v str> {
    match value {
        Value::String(text) => Ok(text),
        other => wrong_type(path, other, "text"),
    }
}

fn is_set(value: Option<&Value>) -> Option<&Value> {
    value.filter(|v| !v.is_null())
}

/// Reads a whole document: `{"version", "ttl", "flags"}`.
///
/// # Errors
/// Names the first field that is wrong.
pub(crate) fn document(value: &Value) -> Read<Flags> {
    let fields = object("", value, &["version", "ttl", "flags"])?;
    let number = |name: &str| match is_set(fields.get(name)) {
        None => Ok(0),
        Some(value) => value.as_u64().map_or_else(|| wrong_type(name, value, "a whole number from 0"), Ok),
    };
    if !fields.contains_key("version") {
        let hint = "give the version that these flags replace, 0 for the first: GET /v1/flags has it";
        return Err(Invalid::new("version", "missing field `version`", hint));
    }
    let ttl = number("ttl")?;
    let ttl = u32::try_from(ttl).map_err(|_| {
        Invalid::new("ttl", format!("{ttl} is too large"), "give seconds up to 4294967295, 0 for never")
    })?;
    let mut flags = Vec::new();
    for (i, item) in list("flags", fields.get("flags").unwrap_or(&Value::Array(Vec::new())))?.iter().enumerate() {
        let path = format!("flags[{i}]");
        let flag = flag(&path, item)?;
        if flags.iter().any(|other: &FlagSpec| other.key == flag.key) {
            let what = format!("there are two flags {:?}", flag.key);
            return Err(Invalid::new(&format!("{path}.key"), what, "give each flag a key of its own"));
        }
        flags.push(flag);
    }
    Ok(Flags { version: number("version")?, ttl, flags })
}

/// Reads one flag.
///
/// # Errors
/// Names the first field that is wrong, below `path`.
pub(crate) fn flag(path: &str, value: &Value) -> Read<FlagSpec> {
    let fields = object(path, value, &["key", "killed", "off", "default", "variants", "rules"])?;
    let at = |name: &str| format!("{path}.{name}");
    let key = string(&at("key"), fields.get("key").unwrap_or(&Value::Null))?;
    if key.is_empty() || key.len() > 64 {
        let what = format!("{key:?} has {} bytes", key.len());
        return Err(Invalid::new(&at("key"), what, "give 1 to 64 bytes"));
    }
    let killed = match is_set(fields.get("killed")) {
        None => false,
        Some(value) => value.as_bool().map_or_else(|| wrong_type(&at("killed"), value, "true or false"), Ok)?,
    };
    let variants = variants(&at("variants"), fields.get("variants").unwrap_or(&Value::Null))?;
    let named = |name: &str| match is_set(fields.get(name)) {
        None => Ok(None),
        Some(value) => variant(&at(name), value, &variants).map(Some),
    };
    let mut rules = Vec::new();
    for (i, item) in
        list(&at("rules"), is_set(fields.get("rules")).unwrap_or(&Value::Array(Vec::new())))?.iter().enumerate()
    {
        rules.push(rule_of(&format!("{path}.rules[{i}]"), item, key, &variants)?);
    }
    let spec =
        FlagSpec { key: key.to_owned(), killed, off: named("off")?, default: named("default")?, variants, rules };
    // What devices would refuse is told with the flag's place.
    match (Document { flags: vec![spec.clone()], ..Document::default() }).encode() {
        Ok(_) => Ok(spec),
        Err(error) => Err(Invalid::new(path, format!("{key:?}: {error}"), "change the flag so that it holds")),
    }
}

fn variants(path: &str, value: &Value) -> Read<Vec<(String, Setting)>> {
    let mut found: Vec<(String, Setting)> = Vec::new();
    let mut add = |place: &str, name: &str, value: &Value| {
        if found.iter().any(|(other, _)| other == name) {
            return Err(Invalid::new(place, format!("there are two variants {name:?}"), "name each variant once"));
        }
        found.push((name.to_owned(), setting(place, value)?));
        Ok(())
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                add(&format!("{path}.{name}"), name, value)?;
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                let place = format!("{path}[{i}]");
                match item {
                    Value::Array(pair) => match pair.as_slice() {
                        [name, value] => add(&place, string(&place, name)?, value)?,
                        _ => return wrong_type(&place, item, "a name and a value"),
                    },
                    other => return wrong_type(&place, other, "a name and a value"),
                }
            }
        }
        other => return wrong_type(path, other, r#"an object such as {"on": true, "off": false}"#),
    }
    if found.is_empty() {
        return Err(Invalid::new(
            path,
            "there are no variants",
            r#"give at least one, such as {"on": true, "off": false}"#,
        ));
    }
    let kind = std::mem::discriminant(&found[0].1);
    match found.iter().find(|(_, value)| std::mem::discriminant(value) != kind) {
        None => Ok(found),
        Some((name, _)) => {
            let what = format!("the value of {name:?} is of another type than that of {:?}", found[0].0);
            Err(Invalid::new(path, what, "give all variants values of one type; 1 is a whole number, 1.0 is not"))
        }
    }
}

/// Reads a value: plain JSON, or the earlier `{"Bool": true}`.
fn setting(path: &str, value: &Value) -> Read<Setting> {
    let expected = "true, false, a number or text";
    match value {
        Value::Bool(value) => Ok(Setting::Bool(*value)),
        Value::String(text) if text.len() > 64 => {
            Err(Invalid::new(path, format!("{} has {} bytes", shown(value), text.len()), "give at most 64 bytes"))
        }
        Value::String(text) => Ok(Setting::Text(text.clone())),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => Ok(Setting::Int(n)),
            (None, Some(n)) if n.is_finite() => Ok(Setting::Float(n)),
            _ => wrong_type(path, value, expected),
        },
        Value::Object(_) => match serde_json::from_value(value.clone()) {
            Ok(setting) => Ok(setting),
            Err(_) => wrong_type(path, value, expected),
        },
        _ => wrong_type(path, value, expected),
    }
}

/// Reads which variant is meant, by its name or, as earlier, its number.
fn variant(path: &str, value: &Value, variants: &[(String, Setting)]) -> Read<u8> {
    let place = match value {
        Value::String(name) => variants.iter().position(|(known, _)| known == name),
        Value::Number(n) => n.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n < variants.len()),
        other => return wrong_type(path, other, "the name of a variant"),
    };
    place.and_then(|n| u8::try_from(n).ok()).ok_or_else(|| {
        let names: Vec<&str> = variants.iter().map(|(name, _)| name.as_str()).collect();
        Invalid::new(path, format!("there is no variant {}", shown(value)), format!("use one of {}", names.join(", ")))
    })
}

fn rule_of(path: &str, value: &Value, key: &str, variants: &[(String, Setting)]) -> Read<RuleSpec> {
    if let Value::String(text) = value {
        return rule::parse(path, text, key, variants);
    }
    let fields = object(path, value, &["when", "serve"])?;
    let when = match is_set(fields.get("when")) {
        None => None,
        Some(value) => Some(condition(&format!("{path}.when"), value)?),
    };
    let serve = serve(&format!("{path}.serve"), fields.get("serve").unwrap_or(&Value::Null), key, variants)?;
    Ok(RuleSpec { when, serve })
}

fn serve(path: &str, value: &Value, key: &str, variants: &[(String, Setting)]) -> Read<Serving> {
    let fields = match value {
        Value::Object(fields) if fields.contains_key("Variant") || fields.contains_key("Split") => {
            return serde_json::from_value(value.clone())
                .map_err(|e| Invalid::new(path, format!("{} does not read: {e}", shown(value)), "see /openapi.json"));
        }
        Value::Object(_) => object(path, value, &["split", "salt"])?,
        name => return variant(path, name, variants).map(Serving::Variant),
    };
    let salt = match is_set(fields.get("salt")) {
        // A flag's own key: two flags of 10 % reach different devices.
        None => key.as_bytes().to_vec(),
        Some(Value::Array(_)) => serde_json::from_value(fields["salt"].clone())
            .map_err(|_| Invalid::new(&format!("{path}.salt"), "is no list of bytes", "give text"))?,
        Some(text) => string(&format!("{path}.salt"), text)?.as_bytes().to_vec(),
    };
    let mut parts = Vec::new();
    let mut from = 0.0;
    let split = fields.get("split").unwrap_or(&Value::Null);
    for (i, item) in list(&format!("{path}.split"), split)?.iter().enumerate() {
        let place = format!("{path}.split[{i}]");
        let fields = object(&place, item, &["variant", "percent", "from"])?;
        let number = |name: &str| match is_set(fields.get(name)) {
            None => Ok(None),
            Some(value) => {
                let good = value.as_f64().filter(|n| (0.0..=100.0).contains(n));
                good.map_or_else(
                    || wrong_type(&format!("{place}.{name}"), value, "a number from 0 to 100"),
                    |n| Ok(Some(n)),
                )
            }
        };
        let Some(percent) = number("percent")? else {
            return wrong_type(&format!("{place}.percent"), &Value::Null, "a number from 0 to 100");
        };
        from = number("from")?.unwrap_or(from);
        let variant = variant(&format!("{place}.variant"), fields.get("variant").unwrap_or(&Value::Null), variants)?;
        parts.push(part(&place, variant, from, percent)?);
        from += percent;
    }
    Ok(Serving::Split { salt, parts })
}

/// A part of a split from percentages.
pub(super) fn part(path: &str, variant: u8, from: f64, percent: f64) -> Read<Part> {
    let bound = |percent: f64| {
        let whole = 2f64.powi(32);
        // Sums of percentages may miss 100 by a rounding error.
        let bound = (percent / 100.0 * whole).round();
        if bound <= whole { Share::try_from(bound as u64).ok() } else { None }
    };
    match (bound(from), bound(from + percent)) {
        (Some(from), Some(to)) => Ok(Part { variant, from, to }),
        _ => Err(Invalid::new(
            path,
            format!("{from} and {percent} percent are more than 100"),
            "give at most 100 in all",
        )),
    }
}

const CONDITIONS: &str = r#"write {"attribute": "region", "equals": "eu"}, with one of equals, in, from and to, version_from and version_before, or known; or {"all": [...]}, {"any": [...]}, {"not": {...}}"#;

fn condition(path: &str, value: &Value) -> Read<When> {
    let Value::Object(fields) = value else { return wrong_type(path, value, "a condition") };
    let many = |name: &str| -> Read<Vec<When>> {
        let items = list(&format!("{path}.{name}"), &fields[name])?.iter().enumerate();
        items.map(|(i, item)| condition(&format!("{path}.{name}[{i}]"), item)).collect()
    };
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    match names.as_slice() {
        ["all"] => Ok(When::All(many("all")?)),
        ["any"] => Ok(When::Any(many("any")?)),
        ["not"] => Ok(When::Not(Box::new(condition(&format!("{path}.not"), &fields["not"])?))),
        ["All" | "Any" | "Not" | "Has" | "Equal" | "In" | "Range" | "Version"] => serde_json::from_value(value.clone())
            .map_err(|e| Invalid::new(path, format!("{} does not read: {e}", shown(value)), CONDITIONS)),
        _ => about_attribute(path, value, fields),
    }
}

fn about_attribute(path: &str, value: &Value, fields: &Map<String, Value>) -> Read<When> {
    let unknown = || Invalid::new(path, format!("{} is no condition", shown(value)), CONDITIONS);
    let attribute = string(&format!("{path}.attribute"), fields.get("attribute").ok_or_else(unknown)?)?.to_owned();
    let rest: Vec<&str> = fields.keys().map(String::as_str).filter(|k| *k != "attribute").collect();
    let whole = |name: &str, default: i64| match is_set(fields.get(name)) {
        None => Ok(default),
        Some(v) => v.as_i64().map_or_else(|| wrong_type(&format!("{path}.{name}"), v, "a whole number"), Ok),
    };
    let version = |name: &str| match is_set(fields.get(name)) {
        None => Ok(String::new()),
        Some(value) => {
            let place = format!("{path}.{name}");
            let text = string(&place, value)?;
            match flag::Version::parse(text) {
                Some(_) => Ok(text.to_owned()),
                None => wrong_type(&place, value, "a version such as 1.2.3"),
            }
        }
    };
    match rest.as_slice() {
        ["equals"] => Ok(When::Equal(attribute, setting(&format!("{path}.equals"), &fields["equals"])?)),
        ["in"] => {
            let place = format!("{path}.in");
            let values = list(&place, &fields["in"])?.iter().enumerate();
            let values = values.map(|(i, v)| setting(&format!("{place}[{i}]"), v)).collect::<Read<Vec<_>>>()?;
            Ok(When::In(attribute, values))
        }
        ["known"] => match &fields["known"] {
            Value::Bool(true) => Ok(When::Has(attribute)),
            Value::Bool(false) => Ok(When::Not(Box::new(When::Has(attribute)))),
            other => wrong_type(&format!("{path}.known"), other, "true or false"),
        },
        ["from" | "to"] | ["from", "to"] => {
            Ok(When::Range(attribute, whole("from", i64::MIN)?, whole("to", i64::MAX)?))
        }
        ["version_before" | "version_from"] | ["version_before", "version_from"] => {
            Ok(When::Version(attribute, version("version_from")?, version("version_before")?))
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests;
