//! Answers of the server for people to read.

use std::fmt::Write as _;

use dunlin_rollout::rollout::Exposure;
use dunlin_rollout::{Plan, Share, Strategy};
use serde_json::Value;

use crate::table::{grouped, table};
use crate::trust::day;

/// Text of a field, empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The beginning of a digest or an id.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A moment, in UTC.
pub(super) fn time(seconds: &Value) -> String {
    match seconds.as_u64() {
        None | Some(0) => "never".into(),
        Some(s) => format!("{} {:02}:{:02}", day(s), s / 3600 % 24, s / 60 % 60),
    }
}

fn cells<const N: usize>(row: [&str; N]) -> Vec<String> {
    row.map(str::to_owned).to_vec()
}

/// Digits in groups; nothing for what is no number.
fn number(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, grouped)
}

fn percent(share: Share) -> String {
    let percent = share.bound() as f64 / (1u64 << 32) as f64 * 100.0;
    // Shares are stored in steps of far less than this.
    format!("{} %", (percent * 1000.0).round() / 1000.0)
}

fn reach(exposure: &Exposure) -> String {
    match *exposure {
        Exposure::Share { canary, control } => format!("{}, control {}", percent(canary), percent(control)),
        Exposure::Ring { ring: 0, .. } => "ring 0, the laboratory".into(),
        Exposure::Ring { ring, control } => format!("rings 0 to {ring}, control {}", percent(control)),
        Exposure::Variants { share, candidates } => format!("{} in {} arms", percent(share), candidates + 1),
        Exposure::Crossover { share } => format!("{} by the hour", percent(share)),
        Exposure::Shadow { canary, every, .. } => format!("{}, one of {every} inputs in the shadow", percent(canary)),
    }
}

/// Whom the stages of a draft reach. Empty when this version does not know the strategy.
pub fn stages(request: &Value) -> Vec<String> {
    let strategy = &request["strategy"];
    let share = |key: &str| Share::of((strategy[key].as_f64().unwrap_or(0.0) * 10_000.0).round() as u32, 1_000_000);
    let rings = strategy["rings"].as_u64().and_then(|r| u8::try_from(r).ok()).unwrap_or(0);
    let candidates = request["candidates"].as_array().map_or(1, |c| u8::try_from(c.len()).unwrap_or(1));
    let plan = match text(strategy, "kind") {
        "canary" => Plan::of(Strategy::Canary),
        "ring" => Plan::of(Strategy::Ring { rings }),
        "few" => Plan::of(Strategy::Few { rings }),
        "variants" => Plan::of(Strategy::Variants { share: share("percent"), candidates }),
        "hold_back" => Plan::of(Strategy::HoldBack { share: share("percent") }),
        _ => {
            let stage = |s: &Value| {
                let control = s["control_percent"].as_f64().unwrap_or(0.0);
                match s["ring"].as_u64() {
                    Some(0) => "ring 0, the laboratory".to_owned(),
                    Some(ring) => format!("rings 0 to {ring}, control {control} %"),
                    None => format!("{} %, control {control} %", s["canary_percent"].as_f64().unwrap_or(0.0)),
                }
            };
            return strategy["stages"].as_array().map_or_else(Vec::new, |all| all.iter().map(stage).collect());
        }
    };
    plan.map_or_else(|_| Vec::new(), |plan| plan.stages().map(|s| reach(&s.exposure)).collect())
}

/// What a rollout could see.
pub fn plan(dry: &Value, request: &Value) -> String {
    let names = stages(request);
    let mut out = String::new();
    let candidates: Vec<&str> =
        request["candidates"].as_array().into_iter().flatten().filter_map(Value::as_str).map(short).collect();
    let base = request["base"].as_str().map_or("whatever devices run", short);
    let _ = writeln!(out, "{}: from {base} to {}", text(dry, "id"), candidates.join(", "));
    if request["irreversible"] == true {
        let _ =
            writeln!(out, "there is no way back for devices that confirm it: its security counter is above the base's");
    }
    let _ = writeln!(out, "{} devices could take part now\n", number(&dry["eligible"]));
    let mut rows = vec![cells(["stage", "reaches", "candidate", "control", "finds failures from", "begins"])];
    let mut blind = false;
    for stage in dry["stages"].as_array().into_iter().flatten() {
        let n = stage["stage"].as_u64().unwrap_or(0);
        let ratio = stage["minimum_detectable_ratio"].as_f64();
        blind |= ratio.is_none();
        rows.push(vec![
            n.to_string(),
            names.get(n as usize).cloned().unwrap_or_default(),
            number(&stage["canary"]),
            number(&stage["control"]),
            ratio.map_or("too few for statistics".into(), |r| format!("{r:.2} times")),
            if stage["approval"] == true { "when approved" } else { "by itself" }.into(),
        ]);
    }
    out.push_str(&table(&rows, &[2, 3]));
    out.push_str("\nA stage finds bad device-days that are so many times as frequent as the control's within two weeks with a\nprobability of 80 %, when one device-day in a hundred is bad anyway.\n");
    if blind {
        out.push_str("Where there are too few devices, only what every device does wrong is found.\n");
    }
    out
}

/// All rollouts, a line each.
pub fn rollouts(all: &[Value]) -> String {
    if all.is_empty() {
        return "there are no rollouts\n".into();
    }
    let mut rows = vec![cells(["rollout", "model", "phase", "stage", "since", "run it", "took it back", "now"])];
    for status in all {
        let stages = stages(&status["request"]).len();
        let begun = status["entered"].as_u64().unwrap_or(0) > 0;
        rows.push(vec![
            text(status, "id").into(),
            text(status, "model").into(),
            text(status, "phase").into(),
            if begun { format!("{} of 0-{}", status["stage"], stages.saturating_sub(1)) } else { String::new() },
            if begun { time(&status["entered"]) } else { String::new() },
            number(&status["succeeded"]),
            number(&status["reverted"]),
            text(status, "verdict").into(),
        ]);
    }
    table(&rows, &[5, 6])
}

/// One rollout: stages, arms, guardrails, and the verdict's sentence.
pub fn rollout(status: &Value, verdicts: &[Value]) -> String {
    let mut out = String::new();
    let phase = text(status, "phase");
    let from = status["base"].as_str().map_or("whatever devices run", short);
    let to: Vec<&str> =
        status["candidates"].as_array().into_iter().flatten().filter_map(Value::as_str).map(short).collect();
    let _ =
        writeln!(out, "{} ({}): {phase}, from {from} to {}", text(status, "id"), text(status, "model"), to.join(", "));
    let current = status["stage"].as_u64().unwrap_or(0) as usize;
    let begun = phase != "Draft";
    let left = |n: usize| {
        let ends = |v: &&Value| v["stage"].as_u64() == Some(n as u64) && text(v, "verdict") != "Hold";
        verdicts.iter().rfind(ends)
    };
    let mut rows = vec![cells(["", "stage", "reaches", "decided", "verdict"])];
    for (n, name) in stages(&status["request"]).into_iter().enumerate() {
        let mark = match () {
            () if !begun || n > current => " ",
            () if n < current || phase == "Completed" => "+",
            () if phase == "RolledBack" => "x",
            () => ">",
        };
        let verdict = left(n);
        rows.push(vec![
            mark.into(),
            n.to_string(),
            name,
            verdict.map_or_else(String::new, |v| time(&v["time"])),
            verdict.map_or_else(String::new, |v| text(v, "reason").to_owned()),
        ]);
    }
    if rows.len() > 1 {
        let _ = write!(out, "\n{}", table(&rows, &[1]));
    }
    if begun {
        out.push_str(&arms(status));
    }
    let _ = writeln!(out, "\n{}", text(status, "verdict"));
    if let Some(last) = verdicts.last().filter(|v| text(v, "reason") != text(status, "verdict")) {
        let _ = writeln!(out, "decided last, {}: {}", time(&last["time"]), text(last, "reason"));
    }
    out
}

fn arms(status: &Value) -> String {
    let mut out = String::new();
    let ways = status["arms"]["ways"].as_array();
    let keys = ["arm", "assigned", "downloaded", "activated", "reported", "runs_candidate", "reverted"];
    let mut rows = vec![cells(["arm", "assigned", "downloaded", "activated", "reported", "run it", "took it back"])];
    for way in ways.into_iter().flatten() {
        rows.push(keys.iter().map(|k| way[k].as_str().map_or_else(|| number(&way[k]), str::to_owned)).collect());
    }
    if rows.len() > 1 {
        let _ = write!(out, "\n{}", table(&rows, &[1, 2, 3, 4, 5, 6]));
    }
    let mut rows = vec![cells(["bad device-days by", "candidate", "control", "ln E"])];
    let several = status["candidates"].as_array().is_some_and(|c| c.len() > 1);
    for g in status["arms"]["guardrails"].as_array().into_iter().flatten() {
        let of = |arm: &str| format!("{} of {}", number(&g["bad"][arm]), number(&g["of"][arm]));
        let which = if several { format!(" ({})", g["candidate"]) } else { String::new() };
        let ln_e = g["ln_e"].as_f64().map_or_else(String::new, |e| format!("{e:.2}"));
        rows.push(vec![format!("{}{which}", text(g, "guardrail")), of("canary"), of("control"), ln_e]);
    }
    if rows.len() > 1 {
        let _ = write!(out, "\n{}", table(&rows, &[1, 2, 3]));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stages_are_named_as_they_are_planned() {
        let canary = stages(&json!({ "strategy": { "kind": "canary" }, "candidates": ["a"] }));
        assert_eq!(canary.first().map(String::as_str), Some("ring 0, the laboratory"));
        assert_eq!(canary.get(1).map(String::as_str), Some("1 %, control 3 %"));
        assert_eq!(canary.len(), 5);
        let own =
            json!({ "strategy": { "kind": "stages", "stages": [{ "canary_percent": 7.5, "control_percent": 20 }] } });
        assert_eq!(stages(&own), ["7.5 %, control 20 %"]);
        assert!(stages(&json!({ "strategy": { "kind": "of tomorrow" } })).is_empty());
    }

    #[test]
    fn a_rollout_shows_its_arms_and_sentences() {
        let status = json!({
            "id": "r", "model": "digits", "phase": "RolledBack", "stage": 0, "base": "0123456789abcdef", "entered": 1,
            "candidates": ["fedcba9876543210"], "verdict": "it is rolled back",
            "request": { "strategy": { "kind": "stages", "stages": [{ "canary_percent": 10, "control_percent": 30 }] } },
            "arms": { "ways": [{ "arm": "control", "assigned": 1234, "downloaded": 0, "activated": 3, "reported": 3,
                "runs_candidate": 0, "reverted": 0 }],
                "guardrails": [{ "candidate": 0, "guardrail": "crash", "bad": { "canary": 4, "control": 0 },
                    "of": { "canary": 9, "control": 27 }, "ln_e": 5.25 }] },
        });
        let verdict =
            json!({ "n": 1, "stage": 0, "time": 86_460, "verdict": "Rollback", "reason": "ROLLBACK at stage 0: ..." });
        let text = rollout(&status, &[verdict]);
        for part in [
            "from 0123456789ab to fedcba987654",
            "x      0  10 %, control 30 %  1970-01-02 00:01  ROLLBACK",
            "1,234",
            "crash                  4 of 9  0 of 27  5.25",
            "it is rolled back",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
}
