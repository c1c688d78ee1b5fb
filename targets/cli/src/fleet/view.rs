//! Answers of the server for people to read.

use std::fmt::Write as _;

use dunlin_fleet::status::{ArmDevices, Drafted, Status, phase_words};
use dunlin_rollout::Phase;
use dunlin_rollout::gate::Place;
use dunlin_rollout::rollout::Decision;
use serde_json::Value;

use crate::failure::{Code, Failure, Outcome};
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

/// Reads a rollout's state.
///
/// # Errors
/// When the server's answer is not one of this version.
pub fn status(value: &Value) -> Outcome<Status> {
    serde_json::from_value(value.clone()).map_err(|e| foreign(&e))
}

/// Reads a draft.
///
/// # Errors
/// As [`status`].
pub fn drafted(value: &Value) -> Outcome<Drafted> {
    serde_json::from_value(value.clone()).map_err(|e| foreign(&e))
}

fn foreign(error: &serde_json::Error) -> Failure {
    let text = format!("the server's answer cannot be read: {error}\n  hint: use a `dunlin` of the server's version");
    Failure::new(Code::Unreachable, text)
}

/// Returns what a rollout could detect.
pub fn plan(dry: &Drafted, request: &Value) -> String {
    let mut out = String::new();
    let candidates: Vec<&str> =
        request["candidates"].as_array().into_iter().flatten().filter_map(Value::as_str).map(short).collect();
    let base = request["base"].as_str().map_or("whatever devices run", short);
    let _ = writeln!(out, "{}: from {base} to {}", dry.id, candidates.join(", "));
    if request["irreversible"] == true {
        out.push_str("devices that confirm it cannot go back: its security counter is above the base's\n");
    }
    let eligible = u64::try_from(dry.eligible).unwrap_or(0);
    let _ = writeln!(out, "{} devices could take part now\n", grouped(eligible));
    let mut rows = vec![cells(["stage", "reaches", "candidate", "control", "detects failures from", "begins"])];
    for stage in &dry.stages {
        let ratio = stage.minimum_detectable_ratio;
        rows.push(vec![
            (stage.stage + 1).to_string(),
            format!("{}, {}", stage.name, stage.reaches),
            grouped(stage.canary.into()),
            grouped(stage.control.into()),
            ratio.map_or("too few for statistics".into(), |r| format!("{r:.2} times")),
            if stage.approval { "when approved" } else { "by itself" }.into(),
        ]);
    }
    out.push_str(&table(&rows, &[2, 3]));
    out.push_str(
        "\nA stage detects bad device-days that are so many times as frequent as the control's within two weeks with a\n\
         probability of 80 %, when one device-day in a hundred is bad anyway.\n",
    );
    if dry.stages.iter().any(|stage| stage.minimum_detectable_ratio.is_none()) {
        out.push_str("Where there are too few devices, only faults of every device are detected.\n");
    }
    if request["gate"]["margins"].as_array().is_none_or(Vec::is_empty) {
        out.push_str("No margins: latency, confidence and energy are not compared.\n");
    }
    out
}

/// Returns all rollouts, a line each.
pub fn rollouts(all: &[Status]) -> String {
    if all.is_empty() {
        return "there are no rollouts\n  hint: dunlin fleet rollout start NAME --candidate MODEL@VERSION\n".into();
    }
    let mut rows =
        vec![cells(["rollout", "model", "state", "stage", "since", "run it", "went back", "last act by", "why"])];
    for status in all {
        let begun = status.phase != Phase::Draft;
        let last = status.last_action.as_ref();
        rows.push(vec![
            status.id.clone(),
            format!("{} {}", status.model, status.versions.join(", ")),
            phase_words(status.phase).into(),
            if begun { format!("{} of {}", status.stage_number, status.stages.len()) } else { String::new() },
            if begun { moment(last.map_or(status.entered, |act| act.at).max(status.entered)) } else { String::new() },
            devices(status.succeeded),
            devices(status.reverted + status.returned),
            last.map_or_else(String::new, |act| act.by.clone()),
            status.status_line.clone(),
        ]);
    }
    table(&rows, &[5, 6])
}

fn devices(n: i64) -> String {
    grouped(u64::try_from(n).unwrap_or(0))
}

fn moment(seconds: i64) -> String {
    time(&seconds.into())
}

/// Returns how long it is until a moment.
fn until(at: i64, now: i64) -> String {
    match at - now {
        s if s <= 0 => "due now".into(),
        s @ 1..120 => format!("in {s} s"),
        s @ 120..7200 => format!("in {} min", s / 60),
        s @ 7200..172_800 => format!("in {} h", s / 3600),
        s => format!("in {} days", s / 86_400),
    }
}

/// Returns a bar of 24 characters.
fn bar(part: u64, whole: u64) -> String {
    let full = usize::try_from(part.min(whole).saturating_mul(24) / whole.max(1)).unwrap_or(24);
    format!("[{}{}]", "#".repeat(full), "-".repeat(24 - full))
}

/// Returns one rollout: where it is and why, its stages, arms and guardrails.
pub fn rollout(status: &Status, verdicts: &[Value]) -> String {
    let mut out = String::new();
    let package = |version: Option<&String>, digest: &str| match version {
        Some(version) => format!("{version} ({})", short(digest)),
        None => short(digest).to_owned(),
    };
    let from = status
        .base
        .as_ref()
        .map_or("whatever devices run".to_owned(), |base| package(status.base_version.as_ref(), base));
    let candidates = status.candidates.iter().enumerate();
    let to: Vec<String> = candidates.map(|(n, digest)| package(status.versions.get(n), digest)).collect();
    let _ = writeln!(
        out,
        "{} ({}): {}, from {from} to {}",
        status.id,
        status.model,
        phase_words(status.phase),
        to.join(", ")
    );
    let _ = writeln!(out, "{}", status.status_line);
    out.push_str(&progress(status));
    let stages = stages(status, verdicts);
    if stages.len() > 1 {
        let _ = write!(out, "\n{}", table(&stages, &[1]));
    }
    if status.phase != Phase::Draft {
        out.push_str(&arms(status));
    }
    if matches!(status.phase, Phase::Running | Phase::Awaiting) {
        let _ = writeln!(out, "\n{}", status.verdict);
    }
    if let Some(last) = verdicts.last() {
        let said = reason(last);
        if said != status.verdict {
            let _ = writeln!(out, "last verdict, {}: {said}", time(&last["time"]));
        }
    }
    out
}

/// The next decision, and bars of what is under way.
fn progress(status: &Status) -> String {
    let mut out = String::new();
    if let Some(at) = status.next_decision_at {
        let _ = writeln!(out, "next decision: {} UTC ({})", moment(at), until(at, status.as_of));
    }
    if let Some(planned) = status.planned {
        let have = u64::try_from(status.succeeded).unwrap_or(0);
        let _ = writeln!(out, "updated {} {} of about {}", bar(have, planned), grouped(have), grouped(planned));
    }
    if let Some(back) = &status.rollback {
        let all = back.devices();
        let _ = writeln!(
            out,
            "back    {} {} of {}; told {}, still on it {}, silent {}",
            bar(back.back, all),
            grouped(back.back),
            grouped(all),
            grouped(back.told),
            grouped(back.running),
            grouped(back.silent)
        );
    }
    out
}

/// Returns a verdict's sentence from its numbers, so that stages count from 1 in verdicts of an older server too.
fn reason(verdict: &Value) -> String {
    let decision: Option<Decision> = verdict["numbers"].as_str().and_then(|n| serde_json::from_str(n).ok());
    decision.map_or_else(|| text(verdict, "reason").to_owned(), |d| d.to_string())
}

fn stages(status: &Status, verdicts: &[Value]) -> Vec<Vec<String>> {
    let left = |n: usize| {
        let ends = |v: &&Value| v["stage"].as_u64() == Some(n as u64) && text(v, "verdict") != "Hold";
        verdicts.iter().rfind(ends)
    };
    let current = usize::from(status.stage);
    let mut rows = vec![cells(["", "stage", "reaches", "decided", "verdict"])];
    for (n, stage) in status.stages.iter().enumerate() {
        let mark = match status.phase {
            Phase::Draft => " ",
            _ if n > current => " ",
            Phase::Completed => "+",
            _ if n < current => "+",
            Phase::RolledBack => "x",
            _ => ">",
        };
        let verdict = left(n);
        rows.push(vec![
            mark.into(),
            stage.number.to_string(),
            format!("{}, {}", stage.name, stage.reaches),
            verdict.map_or_else(String::new, |v| time(&v["time"])),
            verdict.map_or_else(String::new, reason),
        ]);
    }
    rows
}

fn arms(status: &Status) -> String {
    let mut out = String::new();
    out.push_str(&funnel(status));
    if let Some(agreement) = status.agreement {
        let _ = writeln!(
            out,
            "\nin shadow mode it agrees with the base on {:.1} % (mean of {} devices)",
            agreement.mean * 100.0,
            grouped(agreement.devices)
        );
    }
    // A device that takes turns is in both arms: it is its hours that are compared.
    let hourly = status.arms.ways.iter().any(|way| way.arm == "both");
    let mut rows = vec![match hourly {
        true => cells(["bad halves of days by", "its hours", "base's hours", "evidence"]),
        false => cells(["bad device-days by", "candidate", "control", "evidence"]),
    }];
    let several = status.candidates.len() > 1;
    for g in &status.arms.guardrails {
        let which = if several { format!(" ({})", g.candidate) } else { String::new() };
        rows.push(vec![
            format!("{}{which}", g.guardrail),
            format!("{} of {}", grouped(g.bad.canary), grouped(g.of.canary)),
            format!("{} of {}", grouped(g.bad.control), grouped(g.of.control)),
            g.evidence_text(),
        ]);
    }
    if rows.len() > 1 {
        let _ = write!(out, "\n{}", table(&rows, &[1, 2, 3]));
        out.push_str(
            "evidence that the candidate is worse: decimal logarithm of the e-value; at its limit it is rolled back\n",
        );
    }
    out.push_str(&margins(status, (rows[0][1].as_str(), rows[0][2].as_str())));
    out
}

fn funnel(status: &Status) -> String {
    type Column = (&'static str, fn(&ArmDevices) -> i64);
    let always: [Column; 5] = [
        ("assigned", |way| way.assigned),
        ("downloaded", |way| way.downloaded),
        ("activated", |way| way.activated),
        ("reported", |way| way.reported),
        ("run it now", |way| way.runs_candidate),
    ];
    let mut columns = always.to_vec();
    // Those on which it does not simply serve, and those that were sent back, where there are such.
    let some: [Column; 2] = [("in shadow mode", |way| way.in_shadow), ("by the hour", |way| way.takes_turns)];
    let ways = &status.arms.ways;
    columns.extend(some.into_iter().filter(|(_, get)| ways.iter().any(|way| get(way) > 0)));
    columns.push(("went back on their own", |way| way.reverted));
    if status.rollback.is_some() {
        columns.push(("sent back", |way| way.returned));
    }
    let mut rows =
        vec![std::iter::once("arm").chain(columns.iter().map(|(name, _)| *name)).map(str::to_owned).collect()];
    for way in ways {
        let numbers = columns.iter().map(|(_, get)| devices(get(way)));
        rows.push(std::iter::once(way.arm.clone()).chain(numbers).collect::<Vec<_>>());
    }
    let right: Vec<usize> = (1..=columns.len()).collect();
    if rows.len() > 1 { format!("\n{}", table(&rows, &right)) } else { String::new() }
}

fn margins(status: &Status, (with, without): (&str, &str)) -> String {
    let several = status.candidates.len() > 1;
    let mut rows = vec![cells(["margin", with, without, "devices", "beyond it by", ""])];
    for m in &status.arms.metrics {
        let which = if several { format!(" ({})", m.candidate) } else { String::new() };
        let devices = match m.in_both {
            0 => format!("{}, {}", grouped(m.devices.canary), grouped(m.devices.control)),
            n => format!("{} in both", grouped(n)),
        };
        let bounds = m.excess.and_then(|e| e.low.zip(e.high));
        rows.push(vec![
            format!("{}{which}", m.metric),
            amount(m.mean.canary),
            amount(m.mean.control),
            devices,
            bounds.map_or_else(String::new, |(low, high)| format!("{low:.4} to {high:.4}")),
            place(m.place).to_owned(),
        ]);
    }
    if rows.len() > 1 { format!("\n{}", table(&rows, &[1, 2])) } else { String::new() }
}

/// Returns in words where a metric lies, seen from its margin.
const fn place(place: Place) -> &'static str {
    match place {
        Place::Unknown => "not collected",
        Place::TooFew => "too few devices",
        Place::Incomplete => "too few reports",
        Place::Inside => "inside",
        Place::Outside => "outside",
        Place::Undecided => "undecided",
    }
}

/// A mean, to four digits behind the point.
fn amount(value: Option<f64>) -> String {
    value.map_or_else(String::new, |n| format!("{n:.4}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(value: Value, verdicts: &[Value]) -> String {
        rollout(&status(&value).expect("a status"), verdicts)
    }

    #[test]
    fn a_rollout_shows_its_arms_and_sentences() {
        let status = json!({
            "id": "r", "model": "digits", "phase": "RolledBack", "stage": 0, "stage_number": 1,
            "base": "0123456789abcdef", "base_version": "1", "versions": ["2"], "entered": 1, "as_of": 200_000,
            "candidates": ["fedcba9876543210"], "verdict": "HOLD",
            "status_line": "Rolled back by alice at 09:40 UTC: too many failures; 20 of 37 devices are back",
            "last_action": { "action": "abort", "by": "alice", "at": 180_000, "reason": "too many failures" },
            "rollback": { "ordered_at": 180_000, "by": "alice", "reason": "too many failures", "told": 30, "back": 20,
                "running": 12, "silent": 5 },
            "stages": [{ "number": 1, "name": "10 %", "reaches": "control 30 %", "hours": 24, "devices": 1,
                "device_days": 1, "approval": false }],
            "arms": { "ways": [{ "arm": "control", "assigned": 1234, "downloaded": 0, "activated": 3, "reported": 3,
                "runs_candidate": 0, "reverted": 0 }],
                "guardrails": [{ "candidate": 0, "guardrail": "crash", "bad": { "canary": 4, "control": 0 },
                    "of": { "canary": 9, "control": 27 }, "ln_e": 5.25, "evidence": 2.28, "evidence_limit": 2.0 }] },
        });
        let verdict =
            json!({ "n": 1, "stage": 0, "time": 86_460, "verdict": "Rollback", "reason": "ROLLBACK at stage 1: ..." });
        let text = shown(status, &[verdict]);
        for part in [
            "r (digits): rolled back, from 1 (0123456789ab) to 2 (fedcba987654)",
            "Rolled back by alice at 09:40 UTC: too many failures",
            "back    [############------------] 20 of 37; told 30, still on it 12, silent 5",
            "x      1  10 %, control 30 %  1970-01-02 00:01  ROLLBACK",
            "1,234",
            "run it now",
            "crash                  4 of 9  0 of 27  2.3 of 2.0",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains("HOLD"), "what is rolled back holds nothing: {text}");
    }

    #[test]
    fn what_is_under_way_shows_when_it_is_decided() {
        let status = json!({
            "id": "spring", "model": "digits", "phase": "Running", "stage": 0, "stage_number": 1, "entered": 1,
            "candidates": ["fedcba9876543210"], "verdict": "HOLD at stage 1: 0 of 24 hours", "succeeded": 3,
            "planned": 40, "as_of": 1000, "next_decision_at": 86_460, "status_line": "Running stage 1 of 2",
        });
        let text = shown(status.clone(), &[]);
        for part in [
            "next decision: 1970-01-02 00:01 UTC (in 23 h)",
            "updated [#-----------------------] 3 of about 40",
            "HOLD at stage 1: 0 of 24 hours",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        let list = rollouts(&[super::status(&status).expect("a status")]);
        assert!(list.contains("spring") && list.contains("1 of 0") && list.contains("Running stage 1 of 2"), "{list}");
        assert!(rollouts(&[]).contains("hint"));
    }

    #[test]
    fn a_crossover_shows_hours_and_differences() {
        let status = json!({
            "id": "r", "model": "digits", "phase": "Running", "stage": 0, "base": "0123456789abcdef", "entered": 1,
            "candidates": ["fedcba9876543210"], "verdict": "HOLD", "agreement": { "mean": 0.975, "devices": 40 },
            "arms": { "ways": [{ "arm": "both", "assigned": 90, "downloaded": 80, "activated": 70, "reported": 60,
                "runs_candidate": 70, "in_shadow": 0, "takes_turns": 70, "reverted": 1 }],
                "guardrails": [{ "candidate": 0, "guardrail": "crash", "bad": { "canary": 4, "control": 0 },
                    "of": { "canary": 120, "control": 120 }, "ln_e": 2.5 }],
                "metrics": [{ "candidate": 0, "metric": "energy", "place": "Inside", "in_both": 60,
                    "mean": { "canary": 10.1, "control": 10.0 }, "devices": { "canary": 60, "control": 60 },
                    "excess": { "low": -0.62, "high": -0.18 } }] },
        });
        let text = shown(status, &[]);
        for part in [
            "run it now  by the hour  went back on their own",
            "bad halves of days by",
            "4 of 120      0 of 120",
            "60 in both  -0.6200 to -0.1800  inside",
            "agrees with the base on 97.5 % (mean of 40 devices)",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
    }
}
