//! Inputs and answers that are not as they were.

use super::super::view::*;
use super::{frame, model};

pub(super) fn drift() -> DriftPage {
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
