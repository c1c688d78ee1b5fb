//! The audit log.

use super::super::view::*;
use super::{HOUR, NOW, frame};

pub(super) fn audit() -> AuditPage {
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
