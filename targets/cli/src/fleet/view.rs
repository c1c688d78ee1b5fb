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
    let every = strategy["every"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let plan = match text(strategy, "kind") {
        "canary" => Plan::of(Strategy::Canary),
        "shadow" => Plan::of(Strategy::Shadow { every }),
        "crossover" => Plan::of(Strategy::Crossover { share: share("percent") }),
        "blue_green" => Plan::of(Strategy::BlueGreen { hold_back: share("percent") }),
        "ring" => Plan::of(Strategy::Ring { rings }),
        "few" => Plan::of(Strategy::Few { rings }),
        "variants" => Plan::of(Strategy::Variants { share: share("percent"), candidates }),
        "hold_back" => Plan::of(Strategy::HoldBack { share: share("percent") }),
        _ => {
            let stage = |s: &Value| {
                let control = s["control_percent"].as_f64().unwrap_or(0.0);
                let canary = s["canary_percent"].as_f64().unwrap_or(0.0);
                match (s["ring"].as_u64(), s["shadow_every"].as_u64(), s["crossover"] == true) {
                    (Some(0), ..) => "ring 0, the laboratory".to_owned(),
                    (Some(ring), ..) => format!("rings 0 to {ring}, control {control} %"),
                    (None, Some(every), _) => format!("{canary} %, one of {every} inputs in the shadow"),
                    (None, None, true) => format!("{canary} % by the hour"),
                    (None, None, false) => format!("{canary} %, control {control} %"),
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
    if request["gate"]["margins"].as_array().is_none_or(Vec::is_empty) {
        out.push_str("No margins: how long, how sure and at what energy the candidate answers is not compared.\n");
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
    let ways: Vec<&Value> = ways.into_iter().flatten().collect();
    let mut columns = vec![
        ("arm", "arm"),
        ("assigned", "assigned"),
        ("downloaded", "downloaded"),
        ("activated", "activated"),
        ("reported", "reported"),
        ("runs_candidate", "have it"),
    ];
    // Those on which it does not simply serve, where there are such.
    for (key, heading) in [("in_shadow", "in the shadow"), ("takes_turns", "by the hour")] {
        if ways.iter().any(|way| way[key].as_u64() > Some(0)) {
            columns.push((key, heading));
        }
    }
    columns.push(("reverted", "took it back"));
    let mut rows = vec![columns.iter().map(|(_, heading)| (*heading).to_owned()).collect::<Vec<_>>()];
    for way in &ways {
        let cell = |key: &str| way[key].as_str().map_or_else(|| number(&way[key]), str::to_owned);
        rows.push(columns.iter().map(|(key, _)| cell(key)).collect());
    }
    if rows.len() > 1 {
        let right: Vec<usize> = (1..columns.len()).collect();
        let _ = write!(out, "\n{}", table(&rows, &right));
    }
    if let Some(mean) = status["agreement"]["mean"].as_f64() {
        let devices = number(&status["agreement"]["devices"]);
        let _ = writeln!(
            out,
            "\nin the shadow it agrees with the base on {:.1} % (mean of {devices} devices)",
            mean * 100.0
        );
    }
    // A device that takes turns is in both arms: it is its hours that are compared.
    let hourly = ways.iter().any(|way| text(way, "arm") == "both");
    let mut rows = vec![match hourly {
        true => cells(["bad halves of days by", "its hours", "base's hours", "ln E"]),
        false => cells(["bad device-days by", "candidate", "control", "ln E"]),
    }];
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
    let mut rows = vec![cells(["margin", rows[0][1].as_str(), rows[0][2].as_str(), "devices", "beyond it by", ""])];
    for m in status["arms"]["metrics"].as_array().into_iter().flatten() {
        let which = if several { format!(" ({})", m["candidate"]) } else { String::new() };
        let devices = match m["in_both"].as_u64() {
            Some(n) if n > 0 => format!("{} in both", grouped(n)),
            _ => format!("{}, {}", number(&m["devices"]["canary"]), number(&m["devices"]["control"])),
        };
        let bound = |key: &str| m["excess"][key].as_f64();
        rows.push(vec![
            format!("{}{which}", text(m, "metric")),
            amount(&m["mean"]["canary"]),
            amount(&m["mean"]["control"]),
            devices,
            bound("low").zip(bound("high")).map_or_else(String::new, |(low, high)| format!("{low:.4} to {high:.4}")),
            text(m, "place").to_lowercase(),
        ]);
    }
    if rows.len() > 1 {
        let _ = write!(out, "\n{}", table(&rows, &[1, 2]));
    }
    out
}

/// A mean, to four digits behind the point.
fn amount(value: &Value) -> String {
    value.as_f64().map_or_else(String::new, |n| format!("{n:.4}"))
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
        let own = json!([{ "canary_percent": 10, "shadow_every": 8 }, { "canary_percent": 10, "crossover": true }]);
        let own = json!({ "strategy": { "kind": "stages", "stages": own } });
        assert_eq!(stages(&own), ["10 %, one of 8 inputs in the shadow", "10 % by the hour"]);
        let of = |strategy: Value| stages(&json!({ "strategy": strategy, "candidates": ["a"] }));
        assert_eq!(of(json!({ "kind": "crossover", "percent": 20.0 })), ["20 % by the hour"]);
        assert_eq!(of(json!({ "kind": "shadow", "every": 8 }))[1], "1 %, one of 8 inputs in the shadow");
        let blue = of(json!({ "kind": "blue_green", "percent": 5.0 }));
        assert_eq!(blue[1..], ["95 %, one of 16 inputs in the shadow", "95 %, control 5 %"]);
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
            "have it",
            "crash                  4 of 9  0 of 27  5.25",
            "it is rolled back",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }

    #[test]
    fn a_crossover_shows_hours_and_differences() {
        let status = json!({
            "id": "r", "model": "digits", "phase": "Running", "stage": 0, "base": "0123456789abcdef", "entered": 1,
            "candidates": ["fedcba9876543210"], "verdict": "HOLD", "agreement": { "mean": 0.975, "devices": 40 },
            "request": { "strategy": { "kind": "crossover", "percent": 10.0 } },
            "arms": { "ways": [{ "arm": "both", "assigned": 90, "downloaded": 80, "activated": 70, "reported": 60,
                "runs_candidate": 70, "in_shadow": 0, "takes_turns": 70, "reverted": 1 }],
                "guardrails": [{ "candidate": 0, "guardrail": "crash", "bad": { "canary": 4, "control": 0 },
                    "of": { "canary": 120, "control": 120 }, "ln_e": 2.5 }],
                "metrics": [{ "candidate": 0, "metric": "energy", "place": "Inside", "in_both": 60,
                    "mean": { "canary": 10.1, "control": 10.0 }, "devices": { "canary": 60, "control": 60 },
                    "excess": { "low": -0.62, "high": -0.18 } }] },
        });
        let text = rollout(&status, &[]);
        for part in [
            "10 % by the hour",
            "have it  by the hour  took it back",
            "bad halves of days by",
            "4 of 120      0 of 120",
            "60 in both  -0.6200 to -0.1800  inside",
            "agrees with the base on 97.5 % (mean of 40 devices)",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
}
