use super::*;
use crate::telemetry::Metrics;

fn bit(guardrail: Guardrail) -> i64 {
    1 << guardrail as u8
}

fn alike(devices: i64) -> Alike {
    let none = Both::new(0, 0);
    let both = Both::new(true, true);
    Alike {
        arm: 1,
        was_bad: 0,
        bad: none,
        reported: both,
        heard: Some(both),
        settled: true,
        late: false,
        told: false,
        devices,
    }
}

/// Only the candidate's half of the day has reported, or only the base's.
fn half(candidate: bool, devices: i64) -> Alike {
    let reported = Both::new(candidate, !candidate);
    Alike { reported, heard: Some(reported), ..alike(devices) }
}

fn day(alike: Vec<Alike>) -> Today {
    let way = Way { arm: 1, hops: [90, 80, 70, 60], runs: 60, shadows: 0, turns: 60, reverted: 3 };
    Today { paired: true, whole: true, stage: 0, alike, values: Vec::new(), ways: vec![way] }
}

#[test]
fn halves_of_a_day_are_counted_in_pairs() {
    let (error, silence) = (Guardrail::InferenceError, Guardrail::Silence);
    let today = day(vec![
        alike(50),
        Alike { bad: Both::new(bit(error), 0), ..alike(4) },
        Alike { bad: Both::new(0, bit(error)), ..alike(2) },
        Alike { bad: Both::new(bit(error), bit(error)), ..alike(1) },
        // Bad before: no longer at risk, in neither half.
        Alike { was_bad: bit(error), bad: Both::new(0, bit(error)), ..alike(8) },
        // One half has said nothing: what the other says has nothing to be compared with.
        Alike { bad: Both::new(bit(error), 0), ..half(true, 16) },
        half(false, 32),
        // Went back on this day.
        Alike { bad: Both::new(bit(Guardrail::FailedStart), 0), ..half(false, 64) },
        Alike { late: true, heard: None, bad: Both::new(bit(error), 0), ..alike(128) },
    ]);
    let count = |guardrail| today.halves(guardrail);
    assert_eq!(count(error), (Count::new(4 + 1 + 128, 57 + 128), Count::new(2 + 1, 57 + 128)));
    assert_eq!(count(silence), (Count::new(32, 113), Count::new(16, 113)));
    assert_eq!(count(Guardrail::FailedStart), (Count::new(64, 177), Count::new(0, 177)));
    let mut evidence = Evidence::new(0, 0);
    today.add(&mut evidence).expect("it counts");
    assert_eq!(evidence.ratio(error).of(), Both::new(185, 185));
    assert_eq!(evidence.reported(0), Both::new(65 + 16 + 128, 65 + 32 + 64 + 128));
    assert_eq!(evidence.expected(0), Both::new(177, 177));
    assert_eq!(evidence.devices(0, Hop::Reported), Both::new(60, 60));
}

#[test]
fn a_part_of_a_day_expects_only_whole_pairs() {
    let error = Guardrail::InferenceError;
    let part = |of: Alike| Alike { heard: None, settled: false, ..of };
    let today = Today {
        whole: false,
        ..day(vec![
            part(alike(40)),
            part(Alike { bad: Both::new(bit(error), 0), ..alike(3) }),
            part(half(true, 16)),
            part(Alike { reported: Both::new(false, false), ..alike(32) }),
        ])
    };
    assert_eq!(today.halves(error), (Count::new(3, 43), Count::new(0, 43)));
    assert_eq!(today.halves(Guardrail::Silence), (Count::new(0, 0), Count::new(0, 0)));
    let mut evidence = Evidence::new(0, 0);
    today.add(&mut evidence).expect("it counts");
    assert_eq!((evidence.reported(0), evidence.expected(0)), (Both::new(43, 43), Both::new(43, 43)));
}

#[test]
fn a_device_that_takes_turns_gives_pairs() {
    let metrics = |list: &[(&str, f64, f64)]| -> Metrics {
        list.iter().map(|(name, sum, n)| ((*name).to_owned(), (*sum, *n))).collect()
    };
    let mut today = day(vec![]);
    today.values = vec![
        Values {
            arm: 1,
            metrics: metrics(&[("energy", 30.0, 10.0), ("confidence", 9.0, 10.0)]),
            base: Some(metrics(&[("energy", 20.0, 5.0)])),
        },
        Values { arm: 1, metrics: metrics(&[("energy", 8.0, 2.0)]), base: None },
    ];
    let mut evidence = Evidence::new(0, 0);
    let name = |text| Name::new(text).expect("a name");
    ["energy", "confidence"].into_iter().for_each(|m| evidence.declare(name(m)).expect("room"));
    today.add(&mut evidence).expect("it counts");
    let energy = evidence.pairs(name("energy")).expect("declared");
    assert_eq!((energy.n(), energy.mean()), (1, Both::new(3.0, 4.0)));
    assert_eq!(evidence.moments(name("energy")).expect("declared").canary.n(), 1);
    assert_eq!(evidence.pairs(name("confidence")).expect("declared").n(), 0, "the base's hours did not say");
}
