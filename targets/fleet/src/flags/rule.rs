//! Rules as one line of text: `region = eu and firmware >= 2.1 -> on`, `-> on 20%, off 80%`.

use dunlin_rollout::flag::{FlagSpec, Part, RuleSpec, Serving, Setting, Version, When};

use super::form::{Invalid, part};

/// How rules are written, for hints and help.
pub(super) const SYNTAX: &str = "write ATTRIBUTE = VALUE -> VARIANT; conditions are =, !=, in A, B, 1..9, >= VERSION, \
                                 < VERSION, is known, joined by and; in the place of VARIANT a split: on 20%, off 80%";

fn wrong(path: &str, what: impl Into<String>) -> Invalid {
    Invalid::new(path, what, SYNTAX)
}

/// Reads a rule. Salts of splits are the flag's key.
pub(super) fn parse(path: &str, text: &str, key: &str, variants: &[(String, Setting)]) -> Result<RuleSpec, Invalid> {
    let (condition, serve) =
        text.rsplit_once("->").ok_or_else(|| wrong(path, format!("{text:?} has no -> before its variant")))?;
    let condition = condition.trim();
    let when = match condition {
        "" | "always" => None,
        text => {
            let mut all = text.split(" and ").map(|c| clause(path, c.trim())).collect::<Result<Vec<_>, _>>()?;
            if all.len() == 1 { all.pop() } else { Some(When::All(all)) }
        }
    };
    Ok(RuleSpec { when, serve: serving(path, serve.trim(), key, variants)? })
}

fn variant(path: &str, name: &str, variants: &[(String, Setting)]) -> Result<u8, Invalid> {
    let place = variants.iter().position(|(known, _)| known == name).and_then(|n| u8::try_from(n).ok());
    place.ok_or_else(|| {
        let names: Vec<&str> = variants.iter().map(|(name, _)| name.as_str()).collect();
        Invalid::new(path, format!("there is no variant {name:?}"), format!("use one of {}", names.join(", ")))
    })
}

fn serving(path: &str, text: &str, key: &str, variants: &[(String, Setting)]) -> Result<Serving, Invalid> {
    if !text.ends_with('%') {
        return variant(path, text, variants).map(Serving::Variant);
    }
    let mut from = 0.0;
    let mut parts = Vec::new();
    for item in text.split(',').map(str::trim) {
        let (name, percent) = item
            .strip_suffix('%')
            .and_then(|item| item.trim_end().rsplit_once(' '))
            .ok_or_else(|| wrong(path, format!("{item:?} is no variant with a percentage")))?;
        let percent = percent.parse().ok().filter(|n| (0.0..=100.0).contains(n));
        let percent: f64 = percent.ok_or_else(|| wrong(path, format!("{item:?} has no percentage from 0 to 100")))?;
        parts.push(part(path, variant(path, name.trim(), variants)?, from, percent)?);
        from += percent;
    }
    Ok(Serving::Split { salt: key.as_bytes().to_vec(), parts })
}

/// A value: `true`, `false`, a number, or text with or without quotes.
pub(super) fn value(text: &str) -> Setting {
    if let Some(quoted) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        return Setting::Text(quoted.to_owned());
    }
    match text {
        "true" => Setting::Bool(true),
        "false" => Setting::Bool(false),
        _ => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(n), _) => Setting::Int(n),
            (_, Ok(n)) if n.is_finite() && !text.contains(['n', 'i', 'N', 'I']) => Setting::Float(n),
            _ => Setting::Text(text.to_owned()),
        },
    }
}

fn clause(path: &str, text: &str) -> Result<When, Invalid> {
    let (attribute, rest) =
        text.split_once(' ').ok_or_else(|| wrong(path, format!("{text:?} is no condition on an attribute")))?;
    let attribute = attribute.to_owned();
    let rest = rest.trim();
    let version = |text: &str| match Version::parse(text.trim()) {
        Some(_) => Ok(text.trim().to_owned()),
        None => Err(wrong(path, format!("{:?} is no version", text.trim()))),
    };
    if rest == "is known" {
        return Ok(When::Has(attribute));
    }
    if let Some(text) = rest.strip_prefix("!=") {
        return Ok(When::Not(Box::new(When::Equal(attribute, value(text.trim())))));
    }
    if let Some(text) = rest.strip_prefix(">=") {
        return Ok(When::Version(attribute, version(text)?, String::new()));
    }
    if let Some(text) = rest.strip_prefix('<').filter(|text| !text.starts_with('=')) {
        return Ok(When::Version(attribute, String::new(), version(text)?));
    }
    if let Some(text) = rest.strip_prefix('=') {
        return Ok(When::Equal(attribute, value(text.trim())));
    }
    if let Some(text) = rest.strip_prefix("in ") {
        return Ok(When::In(attribute, text.split(',').map(|v| value(v.trim())).collect()));
    }
    if let Some((from, to)) = rest.split_once("..")
        && let (Ok(from), Ok(to)) = (from.trim().parse(), to.trim().parse())
    {
        return Ok(When::Range(attribute, from, to));
    }
    Err(wrong(path, format!("{text:?} is no condition on an attribute")))
}

/// A value as [`value`] reads it.
pub(super) fn value_text(of: &Setting) -> String {
    match of {
        Setting::Bool(value) => value.to_string(),
        Setting::Int(n) => n.to_string(),
        Setting::Float(n) => format!("{n:?}"),
        Setting::Text(text) if value(text) == *of => text.clone(),
        Setting::Text(text) => format!("\"{text}\""),
    }
}

fn clause_text(of: &When) -> Option<String> {
    Some(match of {
        When::Has(name) => format!("{name} is known"),
        When::Equal(name, value) => format!("{name} = {}", value_text(value)),
        When::Not(of) => match &**of {
            When::Equal(name, value) => format!("{name} != {}", value_text(value)),
            _ => return None,
        },
        When::In(name, values) => {
            format!("{name} in {}", values.iter().map(value_text).collect::<Vec<_>>().join(", "))
        }
        When::Range(name, from, to) => format!("{name} {from}..{to}"),
        When::Version(name, from, before) if before.is_empty() && !from.is_empty() => format!("{name} >= {from}"),
        When::Version(name, from, before) if from.is_empty() && !before.is_empty() => format!("{name} < {before}"),
        _ => return None,
    })
}

/// A rule as a line that [`parse`] reads the same; nothing where no line says it.
pub(super) fn line(flag: &FlagSpec, rule: &RuleSpec) -> Option<String> {
    let condition = match &rule.when {
        None => String::new(),
        Some(When::All(all)) => all.iter().map(clause_text).collect::<Option<Vec<_>>>()?.join(" and "),
        Some(one) => clause_text(one)?,
    };
    let name = |n: u8| flag.variants.get(usize::from(n)).map(|(name, _)| name.as_str());
    let serve = match &rule.serve {
        Serving::Variant(n) => name(*n)?.to_owned(),
        Serving::Split { parts, .. } => {
            let percent = |part: &Part| (part.to.bound() - part.from.bound()) as f64 / 2f64.powi(32) * 100.0;
            let rounded = |part: &Part| (percent(part) * 1e6).round() / 1e6;
            let parts = parts.iter().map(|p| Some(format!("{} {}%", name(p.variant)?, rounded(p))));
            parts.collect::<Option<Vec<_>>>()?.join(", ")
        }
    };
    let line = format!("{condition} -> {serve}").trim_start().to_owned();
    // Whatever a line cannot say, such as text with an arrow in it, reads as something else.
    parse("", &line, &flag.key, &flag.variants).ok().filter(|read| read == rule).map(|_| line)
}
