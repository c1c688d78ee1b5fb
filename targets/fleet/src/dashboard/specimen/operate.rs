//! The kill switch, the form of a flag, and the alerts of the past.

use super::super::view::*;
use super::{HOUR, NOW, frame};
use crate::flags::reach::Reach;
use crate::flags::serving::StopStatus;

pub(super) fn stop(model: Option<&str>) -> StopStatus {
    StopStatus {
        model: model.map(str::to_owned),
        since: NOW - 600,
        by: "mira".to_owned(),
        reason: "wrong labels at gate 7".to_owned(),
        devices: 12_840,
        obeying: 12_100,
        waiting: 740,
        silent: 205,
    }
}

pub(super) fn serving(stops: bool, model: Option<String>) -> ServingPage {
    let models = vec![("door-counter".to_owned(), "door-counter".to_owned())];
    let frame = frame("Stop inference", Section::Health);
    ServingPage { frame, stops, model, devices: 12_840, models, poll_seconds: 300 }
}

pub(super) fn form() -> FlagForm {
    FlagForm {
        key: "count-bicycles".to_owned(),
        variants: "on = true\noff = false".to_owned(),
        default: "off".to_owned(),
        off: "off".to_owned(),
        rules: "region = eu-north and firmware >= 2.1 -> on".to_owned(),
        percent: "10".to_owned(),
        percent_variant: "on".to_owned(),
        ..FlagForm::default()
    }
}

pub(super) fn flag(form: FlagForm) -> FlagPage {
    let reach = |on: u64| Reach {
        key: form.key.clone(),
        devices: 12_840,
        variants: [("on".to_owned(), on), ("off".to_owned(), 12_840 - on)].into(),
        compiled_in: 0,
        unknown_attributes: vec!["regoin".to_owned()],
    };
    let (after, before) = (Some(reach(2_311)), Some(reach(0)));
    let frame = frame("Flag", Section::Flags);
    FlagPage { frame, exists: true, error: None, after, before, saves: Some("0".repeat(16)), form }
}

pub(super) fn alerts() -> AlertsPage {
    let line = |n: i64, tone, severity, state, resolved: Option<i64>| PastAlert {
        n,
        tone,
        severity,
        rule: "silent".to_owned(),
        title: "door-counter: 12000 of 12840 devices are silent (93.5 %); usual at this time of day: 1.6 %".to_owned(),
        link: None,
        opened: NOW - n * HOUR,
        acknowledged: resolved.map(|_| (NOW - HOUR, "juri".to_owned())),
        state,
        resolved,
    };
    AlertsPage {
        frame: frame("Alerts", Section::Health),
        alerts: vec![
            line(3, Tone::Bad, "critical", Badge::new(Tone::Watch, "open"), None),
            line(2, Tone::Watch, "warning", Badge::new(Tone::Good, "resolved"), Some(NOW - HOUR)),
        ],
        older: Some("/alerts?before=2".to_owned()),
        newer: None,
    }
}
