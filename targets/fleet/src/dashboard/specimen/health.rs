//! The fleet with alerts and rollouts, and one with nothing.

use super::super::view::*;
use super::{HOUR, NOW, frame, model, pairs};

pub(super) fn rollout_lines() -> Vec<RolloutLine> {
    vec![
        RolloutLine {
            id: "r-7".to_owned(),
            model: "door-counter".to_owned(),
            candidate: "2.4.0".to_owned(),
            base: Some("2.3.1".to_owned()),
            phase: Badge::new(Tone::Busy, "running"),
            stage: 3,
            stages: 5,
            exposure: ("5 %".to_owned(), "control 15 %".to_owned()),
            status_line: "Running stage 3 of 5 since 2026-11-24 08:12 UTC: 588 of about 642 planned devices updated; \
                          needs 188 more device-days; next decision at 08:13 UTC"
                .to_owned(),
            started: true,
            updated: Rate::new(588, 641),
            back: 3,
            since: NOW - 19 * HOUR,
            last_actor: Some("jonas".to_owned()),
            actions: vec![
                RowAction { verb: "pause", label: "Pause" },
                RowAction { verb: "rollback", label: "Roll back" },
            ],
        },
        RolloutLine {
            id: "r-6".to_owned(),
            model: "forklift-horn".to_owned(),
            candidate: "1.9.0".to_owned(),
            base: Some("1.8.4".to_owned()),
            phase: Badge::new(Tone::Bad, "rolled back"),
            stage: 2,
            stages: 5,
            exposure: ("1 %".to_owned(), "control 3 %".to_owned()),
            status_line:
                "Rolled back by the server at 01:12 UTC: on 14 of 131 device-days with version 1.9.0 the model \
                          failed to start, on 2 of 394 with version 1.8.4 (evidence 3.3 of 2.0); 127 of 129 devices \
                          are back"
                    .to_owned(),
            started: true,
            updated: Rate::new(2, 129),
            back: 127,
            since: NOW - 2 * HOUR,
            last_actor: Some("server".to_owned()),
            actions: vec![],
        },
    ]
}

pub(super) fn rollouts(frame: Frame, rollouts: Vec<RolloutLine>) -> RolloutsPage {
    RolloutsPage {
        frame,
        found: rollouts.len() as u64,
        filter: RolloutFilter::default(),
        models: vec!["door-counter".to_owned(), "forklift-horn".to_owned()],
        older: None,
        newer: None,
        rollouts,
    }
}

pub(super) fn health() -> HealthPage {
    let hours: Vec<i64> = (0..72).map(|h| NOW - (71 - h) * HOUR).collect();
    let wave = |i: usize, size: f64| size * (1.0 + 0.3 * (i as f64 / 4.0).sin());
    HealthPage {
        frame: frame("Fleet health", Section::Health),
        devices: Devices { all: 12_840, online: 12_611, silent: 205, never: 24 },
        hours: 24,
        rates: vec![
            FleetRate {
                name: "Inference errors",
                unit: "inferences",
                now: Rate::new(812, 48_211_904),
                before: Rate::new(790, 47_992_311),
            },
            FleetRate {
                name: "Deadline misses",
                unit: "inferences",
                now: Rate::new(201_442, 48_211_904),
                before: Rate::new(122_000, 47_992_311),
            },
            FleetRate { name: "Resets", unit: "reports", now: Rate::new(0, 0), before: Rate::new(0, 0) },
        ],
        open: 2,
        alerts: vec![
            Alert {
                id: "41".to_owned(),
                tone: Tone::Bad,
                time: NOW - 2 * HOUR,
                title: "forklift-horn 1.9.0 was rolled back: failed starts".to_owned(),
                link: Some("/rollouts/r-6".to_owned()),
                numbers: pairs(&[
                    ("canary", "14 of 131"),
                    ("control", "2 of 394"),
                    ("evidence", "3.3 of 2.0"),
                    ("stage", "2 of 5"),
                ]),
                step: Some(1),
                next: "Ask the devices that failed for their inputs: capture 20 devices.".to_owned(),
                may_acknowledge: true,
                looked_after: None,
                actions: vec![RowAction { verb: "rollback", label: "Roll back" }],
            },
            Alert {
                id: "40".to_owned(),
                tone: Tone::Watch,
                time: NOW - 9 * HOUR,
                title: "door-counter: class mix drifts".to_owned(),
                link: Some("/drift".to_owned()),
                numbers: pairs(&[
                    ("PSI", "0.17"),
                    ("interval", "0.11 to 0.24"),
                    ("warn at", "0.1"),
                    ("devices", "3 211"),
                ]),
                step: Some(2),
                next: "Label what was captured, then retrain.".to_owned(),
                may_acknowledge: false,
                looked_after: Some((NOW - HOUR, "juri".to_owned())),
                actions: vec![],
            },
            Alert {
                id: "39".to_owned(),
                tone: Tone::Good,
                time: NOW - 20 * HOUR,
                title: "door-counter (r-7) went on: all gates are passed".to_owned(),
                link: Some("/rollouts/r-7".to_owned()),
                numbers: Vec::new(),
                step: None,
                next: "the next stage has begun".to_owned(),
                may_acknowledge: true,
                looked_after: None,
                actions: vec![],
            },
        ],
        calm: Badge::new(Tone::Good, "No open alerts."),
        rollouts: rollout_lines(),
        versions: vec![
            VersionLine {
                model: Some(model("2.3.1", 3)),
                devices: 11_902,
                online: 11_811,
                errors: Rate::new(700, 44_000_000),
                deadline_misses: Rate::new(170_000, 44_000_000),
                place: 0,
            },
            VersionLine {
                model: Some(model("2.4.0", 5)),
                devices: 588,
                online: 571,
                errors: Rate::new(12, 2_000_000),
                deadline_misses: Rate::new(9_000, 2_000_000),
                place: 1,
            },
            VersionLine {
                model: Some(model("2.2.9", 9)),
                devices: 326,
                online: 229,
                errors: Rate::new(100, 1_100_000),
                deadline_misses: Rate::new(4_000, 1_100_000),
                place: 2,
            },
            VersionLine {
                model: None,
                devices: 24,
                online: 0,
                errors: Rate::default(),
                deadline_misses: Rate::default(),
                place: 3,
            },
        ],
        versions_over_time: Chart {
            times: hours.clone(),
            lines: vec![
                Line {
                    name: "2.3.1".to_owned(),
                    values: (0..72).map(|i| Some(12_480.0 - 8.0 * f64::from(i))).collect(),
                },
                Line { name: "2.4.0".to_owned(), values: (0..72).map(|i| Some(f64::from(i) * 8.2)).collect() },
                Line { name: "2.2.9".to_owned(), values: (0..72).map(|_| Some(326.0)).collect() },
            ],
            stacked: true,
            ..Chart::default()
        },
        rates_over_time: Chart {
            lines: vec![
                Line {
                    name: "inference errors".to_owned(),
                    values: (0..72).map(|i| (i != 30).then(|| wave(i, 0.0006))).collect(),
                },
                Line {
                    name: "deadline misses".to_owned(),
                    values: (0..72).map(|i| (i != 30).then(|| wave(i + 9, 0.0042))).collect(),
                },
            ],
            times: hours,
            share: true,
            ..Chart::default()
        },
    }
}

pub(super) fn empty_health(frame: Frame) -> HealthPage {
    HealthPage {
        frame,
        devices: Devices::default(),
        hours: 24,
        rates: vec![FleetRate {
            name: "Inference errors",
            unit: "inferences",
            now: Rate::default(),
            before: Rate::default(),
        }],
        open: 0,
        alerts: vec![],
        calm: Badge::new(Tone::Quiet, "No open alerts, but no device is enrolled, so nothing is known."),
        rollouts: vec![],
        versions: vec![],
        versions_over_time: Chart::default(),
        rates_over_time: Chart::default(),
    }
}
