use super::*;

fn devices(rows: impl IntoIterator<Item = Vec<u64>>) -> ByDevice {
    let mut all = ByDevice::new(4);
    rows.into_iter().for_each(|r| all.push(r));
    all
}

const REFERENCE: [u64; 4] = [1000, 1000, 1000, 1000];

fn psi(now: &ByDevice, reference: &[u64]) -> Verdict {
    Verdict::of_counts("class", Statistic::Psi, now, reference, None, &Criteria::default())
}

#[test]
fn every_verdict_carries_its_numbers() {
    let steady = psi(&devices((0..10).map(|_| vec![101, 99, 100, 100])), &REFERENCE);
    assert_eq!((steady.level, steady.n, steady.m, steady.devices), (Level::Steady, 4000, 4000, 10));
    assert!(steady.value.is_some() && steady.interval.is_some() && steady.p.is_some_and(|p| p > 0.5));
    assert!(steady.reason.contains("is below 0.1"), "{}", steady.reason);
    let act = psi(&devices((0..10).map(|_| vec![250, 50, 50, 50])), &REFERENCE);
    assert_eq!(act.level, Level::Act);
    assert!(act.interval.is_some_and(|i| i.low > 0.25 && i.unit == Unit::Device));
    let json = act.json();
    assert_eq!((&json["level"], &json["statistic"], &json["n"]), (&"act".into(), &"psi".into(), &4000.into()));
    assert!(json["interval"]["low"].is_number() && json["reason"].is_string());
}

#[test]
fn no_data_is_a_verdict_and_no_pass() {
    let few = psi(&devices([vec![100, 100, 100, 199]]), &REFERENCE);
    assert_eq!((few.level, few.value), (Level::NotEnoughData, None));
    assert!(few.reason.contains("499 inferences, and 500"), "{}", few.reason);
    let none = psi(&devices([]), &REFERENCE);
    assert_eq!((none.level, none.n), (Level::NotEnoughData, 0));
    let small = psi(&devices([vec![500; 4]]), &[5; 4]);
    assert!(small.level == Level::NotEnoughData && small.reason.contains("reference has 20"), "{}", small.reason);
    let bins = psi(&devices([vec![500; 4]]), &[500; 3]);
    assert!(bins.level == Level::NotEnoughData && bins.reason.contains("4 bins now, 3"), "{}", bins.reason);
    let all = devices([vec![500; 4]]);
    let no_edges = Verdict::of_counts("x", Statistic::Wasserstein, &all, &REFERENCE, None, &Criteria::default());
    assert_eq!(no_edges.level, Level::NotEnoughData);
    let other = Verdict::of_counts("x", Statistic::MeanShift, &all, &REFERENCE, None, &Criteria::default());
    assert!(other.level == Level::NotEnoughData && other.reason.contains("no distance"), "{}", other.reason);
    assert_eq!(Verdict::of_means("x", &[], 1000, &Criteria::default()).level, Level::NotEnoughData);
    let hardly = Calibration::new([(500, 400), (0, 0), (0, 0), (500, 500)]);
    let unsupported = Verdict::of_accuracy("accuracy", &all, &hardly, &Criteria::default());
    assert!(unsupported.level == Level::NotEnoughData && unsupported.reason.contains("50 %"), "{}", unsupported.reason);
}

#[test]
fn intervals_that_decide_nothing_need_not_be_drawn() {
    let quick = Criteria { always_draw: false, ..Criteria::default() };
    let judge = |row: [u64; 4]| {
        let now = devices((0..10).map(|_| row.to_vec()));
        let all = Verdict::of_counts("class", Statistic::Psi, &now, &REFERENCE, None, &Criteria::default());
        let few = Verdict::of_counts("class", Statistic::Psi, &now, &REFERENCE, None, &quick);
        let accuracy = Calibration::new([(100, 30), (100, 50), (200, 150), (1600, 1580)]);
        let (a, b) =
            [&Criteria::default(), &quick].map(|c| Verdict::of_accuracy("accuracy", &now, &accuracy, c)).into();
        assert_eq!((a.level, a.value, a.reason), (b.level, b.value, b.reason));
        assert_eq!((all.level, all.value, all.reason.clone()), (few.level, few.value, few.reason.clone()));
        (few.level, few.interval.is_some(), b.interval.is_some())
    };
    assert_eq!(judge([100, 100, 101, 99]), (Level::Steady, false, true));
    assert_eq!(judge([10, 10, 20, 900]), (Level::Act, true, false));
}

#[test]
fn few_devices_give_a_warning_at_most() {
    let one = psi(&devices([vec![2500, 500, 500, 500]]), &REFERENCE);
    assert_eq!((one.level, one.interval.map(|i| i.unit)), (Level::Warn, Some(Unit::Inference)));
    assert!(one.reason.contains("too few"), "{}", one.reason);
}

#[test]
fn one_strange_device_is_no_change_of_the_fleet() {
    let mut rows = vec![vec![100, 100, 100, 100]; 9];
    rows.push(vec![6000, 0, 0, 0]);
    let verdict = psi(&devices(rows), &REFERENCE);
    assert!(verdict.value.is_some_and(|v| v > 0.25));
    assert_eq!(verdict.level, Level::Steady, "{verdict:?}");
    assert!(verdict.reason.contains("devices differ"), "{}", verdict.reason);
}

#[test]
fn other_statistics_find_what_they_are_for() {
    let criteria = Criteria::default();
    let edges = [0.0, 1.0, 2.0, 3.0, 4.0];
    let moved = devices((0..10).map(|_| vec![40, 80, 120, 160]));
    for statistic in [Statistic::JensenShannon, Statistic::KolmogorovSmirnov, Statistic::Wasserstein] {
        let verdict = Verdict::of_counts("x", statistic, &moved, &REFERENCE, Some(&edges), &criteria);
        assert!(verdict.level >= Level::Warn, "{verdict:?}");
        let same = devices((0..10).map(|_| vec![100, 101, 99, 100]));
        let verdict = Verdict::of_counts("x", statistic, &same, &REFERENCE, Some(&edges), &criteria);
        assert_eq!(verdict.level, Level::Steady, "{verdict:?}");
    }
    let means = |shift: f64| -> Vec<(u64, Vec<f64>)> {
        (0..10).map(|d| (100, vec![shift + 0.01 * f64::from(d), -0.05 + 0.01 * f64::from(d)])).collect()
    };
    assert_eq!(Verdict::of_means("embedding", &means(1.2), 1000, &criteria).level, Level::Act);
    assert_eq!(Verdict::of_means("embedding", &means(0.7), 1000, &criteria).level, Level::Warn);
    assert_eq!(Verdict::of_means("embedding", &means(0.0), 1000, &criteria).level, Level::Steady);

    let calibration = Calibration::new([(100, 30), (100, 50), (200, 150), (1600, 1580)]);
    let worse = devices((0..10).map(|_| vec![20, 20, 20, 40]));
    let verdict = Verdict::of_accuracy("accuracy", &worse, &calibration, &criteria);
    assert!(verdict.level == Level::Act && verdict.reason.contains("90.5 % in the reference"), "{verdict:?}");

    let rate = |with: u64| {
        let mut all = ByDevice::new(2);
        (0..10).for_each(|_| all.push([with, 100 - with]));
        Verdict::of_rate("distance", &all, [10, 990], &criteria).level
    };
    assert_eq!((rate(1), rate(4), rate(9)), (Level::Steady, Level::Warn, Level::Act));
}

#[test]
fn an_alarm_needs_two_windows_and_passes_over_those_without_data() {
    let mut alarm = Alarm::default();
    let windows = [
        (Level::Act, Level::Steady),
        (Level::Act, Level::Act),
        (Level::Warn, Level::Warn),
        (Level::Steady, Level::Steady),
        (Level::NotEnoughData, Level::NotEnoughData),
        (Level::Warn, Level::Steady),
        (Level::NotEnoughData, Level::NotEnoughData),
        (Level::Act, Level::Warn),
    ];
    for (i, (seen, expected)) in windows.into_iter().enumerate() {
        assert_eq!(alarm.push(seen), expected, "window {i}");
    }
}
