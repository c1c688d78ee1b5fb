//! Flags, as they were asked for.

use dunlin_rollout::flag::{FlagSpec, RuleSpec, Serving, Setting, When};

use crate::dashboard::figure;
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{Badge, FlagDocument, FlagLine, FlagsPage, Frame, Tone};
use crate::flags::{Flags, serving};
use crate::store::Connection;

fn setting(setting: &Setting) -> String {
    match setting {
        Setting::Bool(true) => "on".to_owned(),
        Setting::Bool(false) => "off".to_owned(),
        Setting::Int(n) => n.to_string(),
        Setting::Float(n) => figure::number(*n),
        Setting::Text(text) => format!("“{text}”"),
    }
}

fn variant(flag: &FlagSpec, n: u8) -> String {
    let Some((name, value)) = flag.variants.get(usize::from(n)) else {
        return format!("variant {n}, which is missing");
    };
    let value = setting(value);
    if *name == value { value } else { format!("{name} ({value})") }
}

fn list(of: &[When], word: &str) -> String {
    let parts: Vec<String> = of.iter().map(|w| if of.len() > 1 { format!("({})", when(w)) } else { when(w) }).collect();
    parts.join(word)
}

fn when(condition: &When) -> String {
    match condition {
        When::All(of) => list(of, " and "),
        When::Any(of) => list(of, " or "),
        When::Not(of) => format!("not ({})", when(of)),
        When::Has(name) => format!("{name} is known"),
        When::Equal(name, value) => format!("{name} is {}", setting(value)),
        When::In(name, values) => {
            format!("{name} is one of {}", values.iter().map(setting).collect::<Vec<_>>().join(", "))
        }
        When::Range(name, min, max) => format!("{name} is {min} to {max}"),
        When::Version(name, from, below) => match (from.as_str(), below.as_str()) {
            ("", "") => format!("{name} is a version"),
            (from, "") => format!("{name} is {from} or later"),
            ("", below) => format!("{name} is before {below}"),
            (from, below) => format!("{name} is {from} or later and before {below}"),
        },
    }
}

fn rule(flag: &FlagSpec, rule: &RuleSpec) -> String {
    let serves = match &rule.serve {
        Serving::Variant(n) => variant(flag, *n),
        Serving::Split { parts, .. } => {
            let all = 2f64.powi(32);
            let part = |part: &dunlin_rollout::flag::Part| {
                let share = part.to.bound().saturating_sub(part.from.bound()) as f64 / all;
                format!("{} for {}", variant(flag, part.variant), figure::percent((share * 1e6).round() / 1e6))
            };
            parts.iter().map(part).collect::<Vec<_>>().join(", ")
        }
    };
    match &rule.when {
        Some(condition) => format!("{serves} where {}", when(condition)),
        None => serves,
    }
}

fn line(flag: &FlagSpec) -> FlagLine {
    let compiled = || "as compiled in".to_owned();
    FlagLine {
        killed: flag.killed,
        is_kill_switch: flag.key == serving::KEY,
        edit: format!("/flags/edit?key={}", crate::dashboard::page::escape(&flag.key)),
        switch: format!("/flags/switch?key={}", crate::dashboard::page::escape(&flag.key)),
        name: flag.key.clone(),
        default: flag.default.map_or_else(compiled, |n| variant(flag, n)),
        rules: flag.rules.iter().map(|r| rule(flag, r)).collect(),
        state: if flag.killed {
            let off = flag.off.map_or_else(compiled, |n| variant(flag, n));
            Badge::new(Tone::Watch, format!("killed: {off}"))
        } else if flag.rules.is_empty() {
            Badge::new(Tone::Quiet, "one value for all")
        } else {
            Badge::new(Tone::Busy, "by rules")
        },
    }
}

pub(in crate::dashboard) async fn flags(
    connection: &mut Connection,
    viewer: &Viewer,
    frame: Frame,
) -> Result<FlagsPage, Trouble> {
    let stored = crate::store::flags::get(connection, &viewer.tenant).await?;
    let known = Flags::of(stored.as_ref())?;
    let document = stored.map(|stored| FlagDocument {
        version: known.version,
        published: stored.updated,
        expires: (known.ttl > 0).then(|| stored.updated + i64::from(known.ttl)),
    });
    let mut flags: Vec<FlagLine> = known.flags.iter().map(line).collect();
    flags.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(FlagsPage { frame, document, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_said_in_words() {
        let flag = FlagSpec {
            key: "count-bicycles".to_owned(),
            default: Some(0),
            variants: vec![("off".to_owned(), Setting::Bool(false)), ("yes".to_owned(), Setting::Bool(true))],
            rules: vec![RuleSpec {
                when: Some(When::All(vec![
                    When::Equal("region".to_owned(), Setting::Text("eu".to_owned())),
                    When::Version("firmware".to_owned(), "2.1".to_owned(), String::new()),
                ])),
                serve: Serving::Variant(1),
            }],
            ..FlagSpec::default()
        };
        let line = line(&flag);
        assert_eq!(line.default, "off");
        assert_eq!(line.rules, ["yes (on) where (region is “eu”) and (firmware is 2.1 or later)"]);
    }
}
