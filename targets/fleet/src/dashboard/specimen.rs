//! Every page in every state that it can be in, made up: for looking at, and for rules that hold for all of them.
//!
//! With `DUNLIN_SPECIMENS` set to a folder, the pages are written there.

mod device;
mod drift;
mod health;
mod live;
mod log;
mod operate;
mod rollout;

pub(super) use live::Specimen;

use self::device::{device, devices, flags};
use self::drift::drift;
use self::health::{empty_health, health, rollout_lines, rollouts};
use self::log::audit;
use self::rollout::{action, rollout, verdict};
use super::view::*;
use crate::status::RollbackProgress;

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
        stops: Vec::new(),
        may_operate: true,
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

/// All pages, by the names of their files.
fn pages() -> Vec<(&'static str, String)> {
    let draw = |page: &dyn askama::DynTemplate| page.dyn_render().expect("a page renders");
    let crossed = {
        let mut page = rollout();
        page.phase = Badge::new(Tone::Bad, "rolled back");
        page.stages.truncate(3);
        page.stages.iter_mut().skip(2).for_each(|s| s.state = StepState::Current(Tone::Bad));
        page.next = "capture: ask devices that failed for their inputs.".to_owned();
        page.status_line = "Rolled back by jonas at 02:12 UTC: frames are dark; 497 of 588 devices are back".to_owned();
        page.next_decision = None;
        page.rollback = Some(RollbackProgress {
            ordered_at: NOW - HOUR,
            by: "jonas".to_owned(),
            reason: Some("frames are dark".to_owned()),
            told: 540,
            back: 497,
            running: 43,
            silent: 48,
            blocked: 0,
        });
        page.devices = vec![RunningLine {
            arm: "canary",
            exposed: 641,
            updated: 91,
            beside: 0,
            reverted: 3,
            returned: 494,
            waiting: 50,
        }];
        page.last = Some(VerdictLine {
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
    let hourly = {
        let mut page = rollout();
        let hour = |i: i64| ServingHour {
            time: NOW - NOW % HOUR - (23 - i) * HOUR,
            candidate: (280 + i * 37 % 41).unsigned_abs(),
            base: (308 - i * 37 % 41).unsigned_abs(),
        };
        page.compared = Compared::Hours;
        page.strategy = "by the hour on 5 %, each device its own control".to_owned();
        page.serving = Some(Serving {
            title: "Who serves, by the hour",
            text: "In this hour the candidate serves on 301 of 588 devices, the base on 287.".to_owned(),
            hours: (0..24).map(hour).collect(),
        });
        page.devices = vec![
            RunningLine {
                arm: "both, by the hour",
                exposed: 641,
                updated: 588,
                beside: 588,
                reverted: 3,
                returned: 0,
                waiting: 50,
            },
            RunningLine { arm: "rest", exposed: 12_199, updated: 5, beside: 0, reverted: 0, returned: 0, waiting: 0 },
        ];
        page
    };
    let shadow = {
        let mut page = rollout();
        page.compared = Compared::Shadows;
        page.serving = Some(Serving {
            title: "Who serves",
            text: "The base. On 588 devices the candidate runs beside it, and nobody uses what it says.".to_owned(),
            hours: Vec::new(),
        });
        page.devices = vec![
            RunningLine { arm: "canary", exposed: 641, updated: 0, beside: 588, reverted: 3, returned: 0, waiting: 50 },
            RunningLine { arm: "control", exposed: 1921, updated: 0, beside: 0, reverted: 0, returned: 0, waiting: 12 },
        ];
        page
    };
    vec![
        ("health", draw(&health())),
        ("health-empty", draw(&empty_health(frame("Fleet health", Section::Health)))),
        ("rollouts", draw(&rollouts(frame("Rollouts", Section::Rollouts), rollout_lines()))),
        ("rollouts-empty", draw(&rollouts(frame("Rollouts", Section::Rollouts), vec![]))),
        ("rollout", draw(&rollout())),
        ("rollout-back", draw(&crossed)),
        ("rollout-hourly", draw(&hourly)),
        ("rollout-shadow", draw(&shadow)),
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
        ("stop", draw(&operate::serving(true, None))),
        ("stop-model", draw(&operate::serving(true, Some("forklift-horn".to_owned())))),
        ("resume", draw(&operate::serving(false, None))),
        (
            "stopped",
            draw(&{
                let mut page = health();
                page.frame.stops = vec![operate::stop(None).into(), operate::stop(Some("forklift-horn")).into()];
                page
            }),
        ),
        ("flag", draw(&operate::flag(operate::form()))),
        (
            "flag-wrong",
            draw(&FlagPage {
                error: Some(("rules[0]: there is no variant \"onn\"".to_owned(), "use one of on, off".to_owned())),
                after: None,
                ..operate::flag(operate::form())
            }),
        ),
        (
            "flag-switch",
            draw(&SwitchPage {
                frame: frame("Are you sure?", Section::Flags),
                key: "count-bicycles".to_owned(),
                killed: false,
                off: "off".to_owned(),
            }),
        ),
        ("alerts", draw(&operate::alerts())),
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
