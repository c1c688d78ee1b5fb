//! Every page in every state that it can be in, made up: for looking at, and for rules that hold for all of them.
//!
//! With `DUNLIN_SPECIMENS` set to a folder, the pages are written there.

use std::sync::{Arc, Mutex};

use super::source::{AuditFilter, Press, Source, Trouble, Viewer};
use super::view::*;

const NOW: i64 = 1_795_576_331;
const HOUR: i64 = 3600;

fn frame(title: &str, section: Section) -> Frame {
    Frame {
        title: title.to_owned(),
        section,
        tenant: "harbour".to_owned(),
        actor: "mira".to_owned(),
        role: "approver".to_owned(),
        csrf: "0".repeat(64),
        now: NOW,
        notice: None,
    }
}

fn model(version: &str, byte: u8) -> Model {
    let digest: String =
        (0..32u8).map(|i| format!("{:02x}", byte.wrapping_mul(31).wrapping_add(i.wrapping_mul(77)))).collect();
    Model { name: "door-counter".to_owned(), version: version.to_owned(), digest }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn rollout_lines() -> Vec<RolloutLine> {
    vec![
        RolloutLine {
            id: "r-7".to_owned(),
            model: "door-counter".to_owned(),
            candidate: "2.4.0".to_owned(),
            base: Some("2.3.1".to_owned()),
            phase: Badge::new(Tone::Busy, "running"),
            stage: 2,
            stages: 5,
            exposure: "5 % beside 15 %".to_owned(),
            verdict: Some(Badge::new(Tone::Busy, "HOLD")),
            reason: "412 of 600 device-days".to_owned(),
            updated: Rate::new(588, 641),
            reverted: 3,
            changed: NOW - 19 * HOUR,
        },
        RolloutLine {
            id: "r-6".to_owned(),
            model: "forklift-horn".to_owned(),
            candidate: "1.9.0".to_owned(),
            base: Some("1.8.4".to_owned()),
            phase: Badge::new(Tone::Bad, "rolled back"),
            stage: 1,
            stages: 5,
            exposure: "1 % beside 3 %".to_owned(),
            verdict: Some(Badge::new(Tone::Bad, "ROLLBACK")),
            reason: "more bad device-days by failed_start than the control cohort's rate allows".to_owned(),
            updated: Rate::new(0, 129),
            reverted: 117,
            changed: NOW - 2 * HOUR,
        },
    ]
}

fn health() -> HealthPage {
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
                    ("E", "1 840 of 100"),
                    ("stage", "2 of 5"),
                ]),
                step: Some(1),
                next: "Ask the devices that failed for their inputs: capture 20 devices.".to_owned(),
                may_acknowledge: true,
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
            },
        ],
        rollouts: rollout_lines(),
        versions: vec![
            VersionLine {
                model: Some(model("2.3.1", 3)),
                devices: 11_902,
                online: 11_811,
                errors: Rate::new(700, 44_000_000),
                deadline_misses: Rate::new(170_000, 44_000_000),
            },
            VersionLine {
                model: Some(model("2.4.0", 5)),
                devices: 588,
                online: 571,
                errors: Rate::new(12, 2_000_000),
                deadline_misses: Rate::new(9_000, 2_000_000),
            },
            VersionLine {
                model: Some(model("2.2.9", 9)),
                devices: 326,
                online: 229,
                errors: Rate::new(100, 1_100_000),
                deadline_misses: Rate::new(4_000, 1_100_000),
            },
            VersionLine {
                model: None,
                devices: 24,
                online: 0,
                errors: Rate::default(),
                deadline_misses: Rate::default(),
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
            share: false,
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
            stacked: false,
            share: true,
        },
    }
}

fn verdict(n: i64, tone: Tone, word: &str, reason: &str) -> VerdictLine {
    VerdictLine {
        n,
        time: NOW - (40 - n) * HOUR,
        stage: 3,
        verdict: Badge::new(tone, word),
        reason: reason.to_owned(),
        numbers: pairs(&[
            ("device-days", "412 canary, 1 236 control"),
            ("largest E", "1.84 of 100, deadline_miss"),
            ("hours", "19"),
        ]),
        next: None,
        repeated: 1,
        since: NOW - (40 - n) * HOUR,
    }
}

fn action(verb: &'static str, label: &'static str, style: &'static str) -> Action {
    Action {
        verb,
        label,
        style,
        question: format!("{label} door-counter 2.4.0?"),
        consequence: "The 588 devices that run it keep it, nobody else gets it, and guardrails go on being watched."
            .to_owned(),
        reason: verb != "approve",
        fates: if verb == "rollback" { Fate::EITHER } else { &[] },
        refused: None,
    }
}

fn rollout() -> RolloutPage {
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
        frame: frame("door-counter 2.4.0", Section::Rollouts),
        id: "r-7".to_owned(),
        stage: 2,
        candidate: model("2.4.0", 5),
        base: Some(model("2.3.1", 3)),
        irreversible: false,
        phase: Badge::new(Tone::Busy, "running"),
        strategy: "canary".to_owned(),
        attempt: 1,
        started_by: Some("jonas".to_owned()),
        stages: vec![
            step("Laboratory", "ring 0", StepState::Passed, &[]),
            step("1 %", "beside 3 %", StepState::Passed, &[]),
            step(
                "5 %",
                "beside 15 %",
                StepState::Current(Tone::Busy),
                &[("Hours", 19, 24), ("Devices", 588, 60), ("Device-days", 412, 600)],
            ),
            step("25 %", "beside 25 %", StepState::ToCome, &[]),
            step("All but 5 %", "beside 5 %", StepState::ToCome, &[]),
        ],
        last: Some(VerdictLine {
            next: Some("Nothing to do: it goes on by itself at 600 device-days.".to_owned()),
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
            RunningLine { arm: "canary", exposed: 641, updated: 588, reverted: 3, waiting: 50 },
            RunningLine { arm: "control", exposed: 1921, updated: 0, reverted: 0, waiting: 12 },
            RunningLine { arm: "rest", exposed: 10_278, updated: 0, reverted: 0, waiting: 0 },
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

fn drift() -> DriftPage {
    let statistic = |name: &str, tone, word: &str, value: f64, low: f64, high: f64, warn, act| Statistic {
        name: name.to_owned(),
        level: Badge::new(tone, word),
        value: Some(value),
        interval: Some((low, high)),
        warn,
        act,
        n: 2_110_444,
        devices: 3211,
        reason: format!("{value:.4} is not below {warn}, and the interval by device excludes 0"),
    };
    let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    DriftPage {
        frame: frame("Drift", Section::Drift),
        models: vec![(model("2.3.1", 3), true), (model("2.4.0", 5), false)],
        hours: 24,
        summary: Some(Badge::new(Tone::Watch, "warn: class")),
        subjects: vec![
            Subject {
                name: "class".to_owned(),
                meaning: "What the model says".to_owned(),
                bins: names(&["nobody", "one", "two", "three", "more", "bicycle"]),
                now: vec![40_112, 31_000, 9_800, 2_100, 900, 7_300],
                reference: vec![52_000, 30_000, 9_900, 2_000, 1_000, 1_200],
                verdicts: vec![statistic("psi", Tone::Watch, "warn", 0.17, 0.11, 0.24, 0.1, 0.25)],
            },
            Subject {
                name: "confidence".to_owned(),
                meaning: "How sure it is".to_owned(),
                bins: (0..10).map(|i| format!("{:.1}", f64::from(i) / 10.0)).collect(),
                now: vec![1, 3, 8, 20, 40, 80, 160, 300, 620, 1400],
                reference: vec![1, 2, 8, 22, 38, 83, 150, 310, 600, 1500],
                verdicts: vec![
                    statistic("jensen_shannon", Tone::Good, "steady", 0.0009, 0.0, 0.002, 0.018, 0.045),
                    statistic("accuracy_drop", Tone::Bad, "act", 0.061, 0.043, 0.08, 0.02, 0.05),
                ],
            },
            Subject {
                name: "distance".to_owned(),
                meaning: "How far inputs are from those of the training".to_owned(),
                bins: names(&["0", "1", "2", "3"]),
                now: vec![],
                reference: vec![4, 3, 2, 1],
                verdicts: vec![Statistic {
                    value: None,
                    interval: None,
                    level: Badge::new(Tone::Quiet, "not enough data"),
                    n: 112,
                    devices: 4,
                    reason: "112 inferences, and 500 are needed".to_owned(),
                    ..statistic("psi", Tone::Quiet, "", 0.0, 0.0, 0.0, 0.1, 0.25)
                }],
            },
        ],
    }
}

fn line(id: &str, tone: Tone, word: &str, seen: Option<i64>) -> DeviceLine {
    DeviceLine {
        id: id.to_owned(),
        ring: if tone == Tone::Quiet { String::new() } else { "ring 2".to_owned() },
        state: Badge::new(tone, word),
        seen,
        running: seen.map(|_| model("2.3.1", 3)),
        phase: "confirmed".to_owned(),
    }
}

fn empty_health(frame: Frame) -> HealthPage {
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
        rollouts: vec![],
        versions: vec![],
        versions_over_time: Chart::default(),
        rates_over_time: Chart::default(),
    }
}

fn devices() -> DevicesPage {
    DevicesPage {
        frame: frame("Devices", Section::Devices),
        filter: DeviceFilter { state: "online".to_owned(), ..DeviceFilter::default() },
        models: vec![model("2.3.1", 3), model("2.4.0", 5)],
        rings: vec!["ring 0".to_owned(), "ring 2".to_owned()],
        found: 12_840,
        devices: vec![
            line("3f9c41d27a80be15", Tone::Good, "online", Some(NOW - 240)),
            line("9b1e0033aa51c7f0", Tone::Bad, "silent", Some(NOW - 31 * HOUR)),
            line("00a1f7c2d9e84b63", Tone::Quiet, "never heard of", None),
        ],
        next: Some("/devices?page=1".to_owned()),
        previous: None,
    }
}

fn device() -> DevicePage {
    DevicePage {
        may_revoke: true,
        frame: frame("3f9c41d27a80be15", Section::Devices),
        line: line("3f9c41d27a80be15", Tone::Good, "online", Some(NOW - 240)),
        enrolled: NOW - 200 * 24 * HOUR,
        boot: Some(14),
        sequence: Some(1203),
        outcome: Some("confirmed".to_owned()),
        attributes: pairs(&[("board", "stm32u5 rev C"), ("region", "eu-north"), ("site", "gate 7")]),
        key: "b5076a8474a832daee4dd5b4040983b6623b5f344aca57d4d6ee4baf3f259e6e".to_owned(),
        exposures: vec![Exposure {
            rollout: "r-7".to_owned(),
            candidate: "door-counter 2.4.0".to_owned(),
            arm: "control".to_owned(),
            outcome: Badge::new(Tone::Quiet, "keeps what it has"),
            offered: None,
            activated: None,
        }],
        errors: Rate::new(0, 3800),
        deadline_misses: Rate::new(17, 3800),
        missing: Some(2),
        history: vec![
            Event {
                time: NOW - 240,
                what: Badge::new(Tone::Good, "report 1203"),
                detail: "3 800 inferences, boot 14".to_owned(),
            },
            Event {
                time: NOW - 5 * HOUR,
                what: Badge::new(Tone::Watch, "gap"),
                detail: "2 reports missing".to_owned(),
            },
        ],
    }
}

fn flags() -> FlagsPage {
    FlagsPage {
        frame: frame("Flags", Section::Flags),
        document: Some(FlagDocument { version: 31, published: NOW - 50 * HOUR, expires: Some(NOW + 300 * HOUR) }),
        flags: vec![
            FlagLine {
                name: "count-bicycles".to_owned(),
                default: "off".to_owned(),
                rules: vec!["on where region is eu-north".to_owned(), "on for 10 %".to_owned()],
                state: Badge::new(Tone::Busy, "partly on"),
            },
            FlagLine {
                name: "sleep-at-night".to_owned(),
                default: "on".to_owned(),
                rules: vec![],
                state: Badge::new(Tone::Good, "on"),
            },
        ],
    }
}

fn audit() -> AuditPage {
    AuditPage {
        frame: frame("Audit log", Section::Audit),
        chain: Badge::new(Tone::Good, "The hash chain of these 2 entries is whole"),
        entries: (0..2)
            .map(|i| Entry {
                n: 8812 - i,
                time: NOW - i * HOUR,
                actor: if i == 0 { "mira".to_owned() } else { "server".to_owned() },
                action: "rollout.pause".to_owned(),
                object: "rollout r-7".to_owned(),
                link: Some("/rollouts/r-7".to_owned()),
                detail: r#"{"reason":"<b>field team sees dark frames</b>"}"#.to_owned(),
                hash: "5f7c0ad6b1".repeat(6),
            })
            .collect(),
        actor: String::new(),
        older: Some("/audit?before=8811".to_owned()),
        newer: None,
    }
}

/// All pages, by the names of their files.
fn pages() -> Vec<(&'static str, String)> {
    let draw = |page: &dyn askama::DynTemplate| page.dyn_render().expect("a page renders");
    let crossed = {
        let mut page = rollout();
        page.phase = Badge::new(Tone::Bad, "rolled back");
        page.stages.truncate(3);
        page.stages.iter_mut().skip(2).for_each(|s| s.state = StepState::Current(Tone::Bad));
        page.last = Some(VerdictLine {
            next: Some("Capture: ask the devices that failed for their inputs.".to_owned()),
            ..verdict(
                39,
                Tone::Bad,
                "ROLLBACK",
                "more bad device-days by deadline_miss than the control cohort's rate allows",
            )
        });
        page.actions = vec![action("retry", "Try again", "")];
        page.margins.clear();
        page.earlier.clear();
        page.frame.notice = Some("Rolled back.".to_owned());
        page
    };
    vec![
        ("health", draw(&health())),
        ("health-empty", draw(&empty_health(frame("Fleet health", Section::Health)))),
        ("rollouts", draw(&RolloutsPage { frame: frame("Rollouts", Section::Rollouts), rollouts: rollout_lines() })),
        ("rollouts-empty", draw(&RolloutsPage { frame: frame("Rollouts", Section::Rollouts), rollouts: vec![] })),
        ("rollout", draw(&rollout())),
        ("rollout-back", draw(&crossed)),
        (
            "confirm",
            draw(&ConfirmPage {
                frame: frame("Roll back", Section::Rollouts),
                stage: 2,
                id: "r-7".to_owned(),
                action: action("rollback", "Roll back", "danger"),
            }),
        ),
        ("drift", draw(&drift())),
        ("devices", draw(&devices())),
        ("device", draw(&device())),
        ("flags", draw(&flags())),
        ("flags-empty", draw(&FlagsPage { document: None, flags: vec![], ..flags() })),
        ("audit", draw(&audit())),
        (
            "login",
            draw(&LoginPage {
                error: Some("This token is not known, or was revoked.".to_owned()),
                next: "/".to_owned(),
            }),
        ),
        (
            "failure",
            draw(&FailurePage {
                error: "There is no such rollout".to_owned(),
                hint: "It may be another tenant's.".to_owned(),
            }),
        ),
    ]
}

#[test]
fn pages_need_nothing_that_the_policy_forbids() {
    let folder = std::env::var_os("DUNLIN_SPECIMENS").map(std::path::PathBuf::from);
    for (name, page) in pages() {
        for forbidden in [
            " style=",
            "<style",
            "<script>",
            "javascript:",
            " onclick",
            " onload",
            " onsubmit",
            "http://",
            "https://",
            "hx-on",
        ] {
            assert!(!page.contains(forbidden), "{name} has {forbidden}");
        }
        for (i, _) in page.match_indices("<script") {
            let tag = page.get(i..).and_then(|rest| rest.split('>').next()).unwrap_or_default();
            assert!(tag.contains(r#"src="/assets/"#), "{name} has {tag}");
        }
        if let Some(folder) = &folder {
            std::fs::write(folder.join(format!("{name}.html")), page).expect("the folder takes a page");
        }
    }
}

#[test]
fn what_is_not_known_is_said() {
    let (_, page) = pages().into_iter().find(|(n, _)| *n == "health-empty").expect("the page");
    assert!(page.contains("no data"), "a rate of nothing is not zero");
    assert!(!page.contains("0 %</span>\n<span class=\"under\">0 of 0 inferences"), "{page}");
}

#[test]
fn text_from_outside_is_escaped() {
    let (_, page) = pages().into_iter().find(|(n, _)| *n == "audit").expect("the page");
    assert!(!page.contains("<b>field team") && page.contains("&#60;b&#62;field team"), "{page}");
}

#[test]
fn identifiers_are_unique_on_a_page() {
    for (name, page) in pages() {
        let mut seen = std::collections::BTreeSet::new();
        for id in page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(seen.insert(id), "{name} has {id} twice");
        }
    }
}

/// A tenant with a rollout that can be paused, resumed and rolled back, and another with nothing at all.
#[derive(Clone, Default)]
pub(super) struct Specimen(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    phase: Option<(Tone, &'static str)>,
    revision: u64,
    sessions: Vec<(String, bool)>,
    log: Vec<(String, String)>,
}

impl Specimen {
    pub(super) const TOKEN: &str = "dunlin_specimen_mira";
    pub(super) const EMPTY: &str = "dunlin_specimen_empty";
    pub(super) const ROLLOUT: &str = "r-7";
    pub(super) const DEVICE: &str = "3f9c41d27a80be15";

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics with it")
    }

    fn line(&self) -> RolloutLine {
        let mut line = rollout_lines().remove(0);
        let (tone, word) = self.state().phase.unwrap_or((Tone::Busy, "running"));
        line.phase = Badge::new(tone, word);
        line
    }

    fn actions(&self) -> Vec<Action> {
        let phase = self.state().phase.map_or("running", |p| p.1);
        let mut actions = Vec::new();
        match phase {
            "running" => actions.push(action("pause", "Pause", "")),
            "paused" => actions.push(action("resume", "Resume", "")),
            _ => return actions,
        }
        actions.push(action("rollback", "Roll back", "danger"));
        actions
    }
}

impl Source for Specimen {
    fn now(&self) -> i64 {
        NOW
    }

    async fn sign_in(&self, token: &str) -> Result<Option<String>, Trouble> {
        if token != Self::TOKEN && token != Self::EMPTY {
            return Ok(None);
        }
        let mut state = self.state();
        let secret = format!("{:064x}", state.sessions.len() + 0xabc);
        state.sessions.push((secret.clone(), token == Self::EMPTY));
        Ok(Some(secret))
    }

    async fn viewer(&self, secret: &str) -> Result<Option<Viewer>, Trouble> {
        let found = self.state().sessions.iter().find(|(s, _)| s == secret).map(|(_, empty)| *empty);
        Ok(found.map(|empty| Viewer {
            tenant: if empty { "empty" } else { "harbour" }.to_owned(),
            actor: "mira".to_owned(),
            role: "approver".to_owned(),
        }))
    }

    async fn sign_out(&self, secret: &str) -> Result<(), Trouble> {
        self.state().sessions.iter_mut().filter(|(s, _)| s == secret).for_each(|(s, _)| s.clear());
        Ok(())
    }

    async fn revision(&self, _: &str) -> Result<String, Trouble> {
        Ok(self.state().revision.to_string())
    }

    async fn closing(&self) {
        std::future::pending().await
    }

    async fn health(&self, viewer: &Viewer, frame: Frame) -> Result<HealthPage, Trouble> {
        if viewer.tenant == "empty" {
            return Ok(empty_health(frame));
        }
        let mut page = HealthPage { frame, ..health() };
        page.rollouts = vec![self.line()];
        Ok(page)
    }

    async fn rollouts(&self, viewer: &Viewer, frame: Frame) -> Result<RolloutsPage, Trouble> {
        let rollouts = if viewer.tenant == "empty" { vec![] } else { vec![self.line()] };
        Ok(RolloutsPage { frame, rollouts })
    }

    async fn rollout(&self, viewer: &Viewer, frame: Frame, id: &str) -> Result<RolloutPage, Trouble> {
        if viewer.tenant == "empty" || id != Self::ROLLOUT {
            return Err(Trouble::Missing("rollout"));
        }
        Ok(RolloutPage { frame, phase: self.line().phase, actions: self.actions(), ..rollout() })
    }

    async fn confirm(&self, _: &Viewer, frame: Frame, id: &str, verb: &str) -> Result<ConfirmPage, Trouble> {
        let action = self.actions().into_iter().find(|a| a.verb == verb).ok_or(Trouble::Missing("action"))?;
        Ok(ConfirmPage { frame, id: id.to_owned(), stage: 2, action })
    }

    async fn act(&self, _: &Viewer, _: &str, verb: &str, press: &Press) -> Result<&'static str, Trouble> {
        let mut state = self.state();
        state.log.push((verb.to_owned(), press.reason.clone()));
        state.revision += 1;
        let (phase, done) = match verb {
            "pause" => ((Tone::Watch, "paused"), "paused"),
            "resume" => ((Tone::Busy, "running"), "resumed"),
            "rollback" => ((Tone::Bad, "rolled back"), "reverted"),
            _ => return Err(Trouble::Missing("action")),
        };
        state.phase = Some(phase);
        Ok(done)
    }

    async fn acknowledge(&self, _: &Viewer, _: &str) -> Result<(), Trouble> {
        self.state().revision += 1;
        Ok(())
    }

    async fn revoke(&self, _: &Viewer, device: &str, press: &Press) -> Result<(), Trouble> {
        let mut state = self.state();
        state.log.push((format!("revoke {device}"), press.reason.clone()));
        state.revision += 1;
        Ok(())
    }

    async fn drift(&self, viewer: &Viewer, frame: Frame, _: Option<&str>) -> Result<DriftPage, Trouble> {
        let page = DriftPage { frame, ..drift() };
        Ok(if viewer.tenant == "empty" { DriftPage { models: vec![], subjects: vec![], ..page } } else { page })
    }

    async fn devices(&self, viewer: &Viewer, frame: Frame, filter: DeviceFilter) -> Result<DevicesPage, Trouble> {
        let mut page = devices();
        page.frame = frame;
        page.devices.retain(|d| d.id.contains(&filter.q) && viewer.tenant != "empty");
        page.found = page.devices.len() as u64;
        Ok(DevicesPage { filter, ..page })
    }

    async fn device(&self, _: &Viewer, frame: Frame, id: &str) -> Result<DevicePage, Trouble> {
        if id == Self::DEVICE { Ok(DevicePage { frame, ..device() }) } else { Err(Trouble::Missing("device")) }
    }

    async fn flags(&self, viewer: &Viewer, frame: Frame) -> Result<FlagsPage, Trouble> {
        let page = FlagsPage { frame, ..flags() };
        Ok(if viewer.tenant == "empty" { FlagsPage { document: None, flags: vec![], ..page } } else { page })
    }

    async fn audit(&self, _: &Viewer, frame: Frame, filter: &AuditFilter) -> Result<AuditPage, Trouble> {
        let mut page = AuditPage { frame, actor: filter.actor.clone(), ..audit() };
        for (i, (verb, reason)) in self.state().log.iter().enumerate() {
            let entry = page.entries.first().cloned();
            let n = 9000 + i as i64;
            page.entries.extend(entry.map(|e| Entry {
                n,
                action: format!("rollout.{verb}"),
                detail: reason.clone(),
                ..e
            }));
        }
        Ok(page)
    }
}
