//! Devices, and the flags that they obey.

use super::super::view::*;
use super::{HOUR, NOW, frame, model, pairs};

pub(super) fn line(id: &str, tone: Tone, word: &str, seen: Option<i64>) -> DeviceLine {
    DeviceLine {
        id: id.to_owned(),
        ring: if tone == Tone::Quiet { String::new() } else { "ring 2".to_owned() },
        state: Badge::new(tone, word),
        seen,
        running: seen.map(|_| model("2.3.1", 3)),
        phase: "confirmed".to_owned(),
    }
}

pub(super) fn devices() -> DevicesPage {
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

pub(super) fn device() -> DevicePage {
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

pub(super) fn flags() -> FlagsPage {
    FlagsPage {
        frame: frame("Flags", Section::Flags),
        document: Some(FlagDocument { version: 31, published: NOW - 50 * HOUR, expires: Some(NOW + 300 * HOUR) }),
        flags: vec![
            FlagLine {
                killed: false,
                is_kill_switch: false,
                edit: "/flags/edit?key=count-bicycles".to_owned(),
                switch: "/flags/switch?key=count-bicycles".to_owned(),
                name: "count-bicycles".to_owned(),
                default: "off".to_owned(),
                rules: vec!["on where region is eu-north".to_owned(), "on for 10 %".to_owned()],
                state: Badge::new(Tone::Busy, "partly on"),
            },
            FlagLine {
                killed: false,
                is_kill_switch: false,
                edit: "/flags/edit?key=sleep-at-night".to_owned(),
                switch: "/flags/switch?key=sleep-at-night".to_owned(),
                name: "sleep-at-night".to_owned(),
                default: "on".to_owned(),
                rules: vec![],
                state: Badge::new(Tone::Good, "on"),
            },
        ],
    }
}
