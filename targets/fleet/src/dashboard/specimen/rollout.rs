//! A rollout in its third stage.

use super::super::view::*;
use super::{HOUR, NOW, frame, model, pairs};

pub(super) fn verdict(n: i64, tone: Tone, word: &str, reason: &str) -> VerdictLine {
    VerdictLine {
        n,
        time: NOW - (40 - n) * HOUR,
        stage: 3,
        verdict: Badge::new(tone, word),
        reason: reason.to_owned(),
        numbers: pairs(&[
            ("device-days", "412 canary, 1 236 control"),
            ("largest evidence", "0.3 of 2.0, deadline miss"),
            ("hours", "19"),
        ]),
        repeated: 1,
        since: NOW - (40 - n) * HOUR,
    }
}

pub(super) fn action(verb: &'static str, label: &'static str, style: &'static str) -> Action {
    Action {
        verb,
        label,
        style,
        question: format!("{label} r-7 (door-counter 2.4.0)?"),
        consequence: "The 588 devices that run it keep it, no other device gets it, and guardrails are still watched."
            .to_owned(),
        reason: verb != "approve",
        fates: if verb == "rollback" { Fate::EITHER } else { &[] },
        refused: None,
    }
}

/// Two days of a candidate against its base, with an hour that nothing is known of.
fn charts() -> Vec<Figure> {
    let times: Vec<i64> = (0..48).map(|h| NOW - (47 - h) * HOUR).collect();
    let line = |name: &str, value: &dyn Fn(f64) -> f64| Line {
        name: name.to_owned(),
        values: (0..48).map(|i| (i % 7 != 3).then(|| value(f64::from(i)))).collect(),
    };
    let marks = vec![
        Mark { time: NOW - 40 * HOUR, label: "started".to_owned() },
        Mark { time: NOW - 19 * HOUR, label: "next stage".to_owned() },
    ];
    let (new, old) = ("version 2.4.0 (candidate)", "version 2.3.1 (base)");
    let chart = |lines| Chart { times: times.clone(), lines, marks: marks.clone(), ..Chart::default() };
    vec![
        Figure {
            id: "adoption",
            title: "Devices by the version they report".to_owned(),
            chart: Chart {
                stacked: true,
                ..chart(vec![line(new, &|i| i * 12.0), line(old, &|i| 12_840.0 - i * 12.0)])
            },
        },
        Figure {
            id: "errors",
            title: "Failed inferences, share of all".to_owned(),
            chart: Chart { share: true, ..chart(vec![line(new, &|i| 0.004 + i / 9e4), line(old, &|_| 0.004)]) },
        },
        Figure {
            id: "latency",
            title: "Latency of inferences, median and 95th percentile".to_owned(),
            chart: Chart {
                micros: true,
                ..chart(vec![
                    line("version 2.4.0 (candidate), median", &|_| 31_000.0),
                    line("version 2.4.0 (candidate), 95th percentile", &|i| 41_900.0 + i * 10.0),
                    line("version 2.3.1 (base), median", &|_| 30_100.0),
                    line("version 2.3.1 (base), 95th percentile", &|_| 40_200.0),
                ])
            },
        },
    ]
}

pub(super) fn rollout() -> RolloutPage {
    let guardrail = |name, meaning, canary: (u64, u64), control: (u64, u64), ln_e: f64, detectable| GuardrailLine {
        name,
        meaning,
        canary: Rate::new(canary.0, canary.1),
        control: Rate::new(control.0, control.1),
        ln_e,
        peak: ln_e.max(0.0),
        bound: 100f64.ln(),
        required: true,
        detectable,
    };
    let step = |name: &str, exposure: &str, state, needs: &[(&'static str, u64, u64)]| StageStep {
        name: name.to_owned(),
        exposure: exposure.to_owned(),
        state,
        needs: needs.iter().map(|(what, found, needed)| Need { what, found: *found, needed: *needed }).collect(),
        approval: name == "All but 5 %",
    };
    RolloutPage {
        frame: frame("r-7 (door-counter 2.4.0)", Section::Rollouts),
        id: "r-7".to_owned(),
        stage: 2,
        status_line: "Running stage 3 of 5 since 2026-11-24 08:12 UTC: 588 of about 642 planned devices updated; needs \
                      5 more hours and 188 more device-days; first decision at 08:13 UTC (24 h after the stage began)"
            .to_owned(),
        next_decision: Some(NOW + 5 * HOUR),
        next: "nothing. It continues by itself once the evidence is complete.".to_owned(),
        rollback: None,
        sentence: Some(
            "On 21 of 412 device-days with version 2.4.0 latency was over its budget, on 8 of 1 236 with version 2.3.1. \
             Evidence 4.1 of 2.0."
                .to_owned(),
        ),
        charts: charts(),
        history: vec![
            HistoryLine { time: NOW - 19 * HOUR, what: "next stage".to_owned(), who: "the server".to_owned(), reason: None },
            HistoryLine {
                time: NOW - 61 * HOUR,
                what: "resumed".to_owned(),
                who: "jonas".to_owned(),
                reason: Some("gate 7 was being painted".to_owned()),
            },
        ],
        candidate: model("2.4.0", 5),
        base: Some(model("2.3.1", 3)),
        irreversible: false,
        phase: Badge::new(Tone::Busy, "running"),
        strategy: "canary".to_owned(),
        attempt: 1,
        started_by: Some("jonas".to_owned()),
        stages: vec![
            step("Laboratory", "ring 0", StepState::Passed, &[]),
            step("1 %", "control 3 %", StepState::Passed, &[]),
            step(
                "5 %",
                "control 15 %",
                StepState::Current(Tone::Busy),
                &[("Hours", 19, 24), ("Devices", 588, 60), ("Device-days", 412, 600)],
            ),
            step("25 %", "control 25 %", StepState::ToCome, &[]),
            step("All but 5 %", "control 5 %", StepState::ToCome, &[]),
        ],
        compared: Compared::Devices,
        serving: None,
        last: Some(VerdictLine {
            repeated: 19,
            ..verdict(39, Tone::Busy, "HOLD", "412 of 600 device-days")
        }),
        earlier: vec![
            verdict(20, Tone::Good, "ADVANCE", "everything the stage asks for is there"),
            VerdictLine { repeated: 17, ..verdict(19, Tone::Busy, "HOLD", "17 of 24 hours") },
            verdict(
                2,
                Tone::Watch,
                "PAUSE",
                "after the hop 'activated' the arms' sizes are not as planned: look for lost devices",
            ),
        ],
        guardrails: vec![
            guardrail("crash", "reset by a fault or the watchdog", (3, 412), (9, 1236), -0.4, Detectable::From(4.2)),
            guardrail(
                "failed start",
                "did not start, or went back by itself",
                (4, 412),
                (2, 1236),
                3.1,
                Detectable::From(9.1),
            ),
            guardrail("inference error", "an inference failed", (0, 412), (0, 1236), 0.0, Detectable::Unknown),
            guardrail(
                "deadline miss",
                "99th percentile over its budget",
                (21, 412),
                (8, 1236),
                9.4,
                Detectable::From(2.6),
            ),
            guardrail("silence", "no report within three intervals", (0, 0), (0, 0), 0.0, Detectable::Nothing),
        ],
        margins: vec![
            MarginLine {
                metric: "latency_p95".to_owned(),
                rule: "at most 10 % more".to_owned(),
                canary: Some(41.9),
                control: Some(40.2),
                devices: (588, 1764),
                worse: Some((0.4, 3.0)),
                margin: 4.02,
                place: Badge::new(Tone::Good, "inside"),
            },
            MarginLine {
                metric: "energy".to_owned(),
                rule: "at most 5 % more".to_owned(),
                canary: Some(2.31),
                control: Some(2.1),
                devices: (588, 1764),
                worse: Some((0.15, 0.27)),
                margin: 0.105,
                place: Badge::new(Tone::Bad, "outside"),
            },
            MarginLine {
                metric: "accuracy".to_owned(),
                rule: "at most 0.01 less".to_owned(),
                canary: Some(0.913),
                control: Some(0.917),
                devices: (588, 1764),
                worse: Some((-0.004, 0.013)),
                margin: 0.01,
                place: Badge::new(Tone::Busy, "undecided"),
            },
            MarginLine {
                metric: "ood_share".to_owned(),
                rule: "at most 25 % more".to_owned(),
                canary: None,
                control: None,
                devices: (12, 30),
                worse: None,
                margin: 0.0,
                place: Badge::new(Tone::Quiet, "too few devices"),
            },
        ],
        hops: vec![
            HopLine {
                name: "assigned",
                canary: 641,
                control: 1921,
                expected: Some(0.25),
                ln_e: -2.0,
                bound: 1000f64.ln(),
            },
            HopLine {
                name: "activated",
                canary: 301,
                control: 1890,
                expected: Some(0.25),
                ln_e: 11.0,
                bound: 1000f64.ln(),
            },
            HopLine { name: "reported", canary: 0, control: 0, expected: Some(0.25), ln_e: 0.0, bound: 1000f64.ln() },
        ],
        reported: Arms { canary: Rate::new(412, 430), control: Rate::new(1236, 1270) },
        devices: vec![
            RunningLine { arm: "canary", exposed: 641, updated: 588, beside: 0, reverted: 3, returned: 0, waiting: 50 },
            RunningLine { arm: "control", exposed: 1921, updated: 0, beside: 0, reverted: 0, returned: 0, waiting: 12 },
            RunningLine { arm: "rest", exposed: 10_278, updated: 0, beside: 0, reverted: 0, returned: 0, waiting: 0 },
        ],
        actions: vec![
            action("pause", "Pause", ""),
            action("rollback", "Roll back", "danger"),
            Action {
                refused: Some("You started it; somebody else has to approve.".to_owned()),
                ..action("approve", "Approve", "primary")
            },
        ],
        approvals: vec![Approval { stage: 2, who: "ana".to_owned(), time: NOW - 20 * HOUR }],
    }
}
