use proptest::prelude::*;

use super::*;

fn latency() -> Name {
    Name::new("latency_p95").unwrap()
}

fn batches() -> impl Strategy<Value = Vec<(u8, usize, [u32; 4])>> {
    let batch = (0u8..3, 0usize..5, [0u32..20, 0u32..5000, 0u32..20, 0u32..9000]);
    proptest::collection::vec(batch, 0..30)
}

fn take(evidence: &mut Evidence, (stage, guardrail, [x, more, y, others]): (u8, usize, [u32; 4])) {
    let (canary, control) = (Count::new(x, x + more), Count::new(y, y + others));
    evidence.count(stage, Guardrail::ALL[guardrail], canary, control).unwrap();
    evidence.days(stage, Both::new(x, y), Both::new(canary.of, control.of));
    evidence.hop(stage, Hop::ALL[guardrail % 4], Both::new(more, others));
}

fn of(batches: &[(u8, usize, [u32; 4])]) -> Evidence {
    let mut evidence = Evidence::new(0, 0);
    batches.iter().for_each(|b| take(&mut evidence, *b));
    evidence
}

proptest! {
    /// The order of arrivals and the way they are spread over shards change no bit.
    #[test]
    fn order_and_shards_do_not_matter(batches in batches(), cut in 0usize..30, turn in 0usize..30) {
        let whole = of(&batches);
        let mut turned = batches.clone();
        if !turned.is_empty() {
            let by = turn % turned.len();
            turned.rotate_left(by);
        }
        prop_assert_eq!(of(&turned), whole);
        let (a, b) = turned.split_at(cut.min(turned.len()));
        let (mut ab, mut ba) = (of(a), of(b));
        ab.merge(&of(b)).unwrap();
        ba.merge(&of(a)).unwrap();
        prop_assert_eq!(ab, whole);
        prop_assert_eq!(ba, whole);
    }

    #[test]
    fn it_can_be_stored(batches in batches(), values in proptest::collection::vec(-1e6f64..1e6, 0..20)) {
        let mut evidence = of(&batches);
        evidence.declare(latency()).unwrap();
        values.iter().for_each(|v| evidence.value(latency(), Side::Canary, *v).unwrap());
        values.iter().for_each(|v| evidence.pair(latency(), Both::new(*v, v / 2.0)).unwrap());
        let bytes = postcard::to_allocvec(&evidence).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Evidence>(&bytes).unwrap(), evidence);
    }

    #[test]
    fn pairs_merge(values in proptest::collection::vec((-1e3f64..1e3, -1e3f64..1e3), 2..40), cut in 0usize..40, factor in 0.5f64..1.5) {
        let of = |values: &[(f64, f64)]| {
            let mut pairs = Pairs::NONE;
            values.iter().for_each(|(c, k)| pairs.add(Both::new(*c, *k)));
            pairs
        };
        let (a, b) = values.split_at(cut.min(values.len()));
        let mut left = of(a);
        left.merge(&of(b));
        let differences: Vec<f64> = values.iter().map(|(c, k)| c - factor * k).collect();
        let mean = differences.iter().sum::<f64>() / values.len() as f64;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
        for pairs in [of(&values), left] {
            prop_assert_eq!(pairs.n(), values.len() as u64);
            let found = pairs.mean();
            prop_assert!((found.canary - factor * found.control - mean).abs() < 1e-9);
            prop_assert!((pairs.variance(factor) - variance).abs() < 1e-6);
        }
    }

    #[test]
    fn moments_merge(values in proptest::collection::vec(-1e3f64..1e3, 2..40), cut in 0usize..40) {
        let mut whole = Moments::NONE;
        values.iter().for_each(|v| whole.add(*v));
        let (a, b) = values.split_at(cut.min(values.len()));
        let (mut left, mut right) = (Moments::NONE, Moments::NONE);
        a.iter().for_each(|v| left.add(*v));
        b.iter().for_each(|v| right.add(*v));
        left.merge(&right);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
        for moments in [whole, left] {
            prop_assert_eq!(moments.n(), values.len() as u64);
            prop_assert!((moments.mean() - mean).abs() < 1e-9 && (moments.variance() - variance).abs() < 1e-6);
        }
    }

    /// No counts, however large, give something that is no number.
    #[test]
    fn no_overflow(x: u32, of: u32, y: u32, others: u32, times in 1usize..50) {
        let mut ratio = Ratio::NONE;
        (0..times).for_each(|_| ratio.count(Count::new(x.min(of), of), Count::new(y.min(others), others)));
        prop_assert!(ratio.ln_e().is_finite());
    }

    /// Late, repeated and reordered reports of a fleet add up to what punctual ones do.
    #[test]
    fn a_fleets_reports_may_come_anyhow(reports in proptest::collection::vec((0usize..20, 0u32..14, 0u8..32, 0usize..3), 1..200), by in 0usize..200) {
        let counted = |reports: &[(usize, u32, u8, usize)]| {
            let mut attendance = [Attendance::default(); 20];
            let (mut days, mut bad_days) = (0, 0);
            for (device, day, bad, _) in reports {
                if let Arrival::New { bad, .. } = attendance[*device].arrive(*day, *bad, Counting::EveryDay) {
                    (days, bad_days) = (days + 1, bad_days + bad.count_ones());
                }
            }
            (days, bad_days)
        };
        // A device's day has one report, whatever number of times it comes.
        let mut seen = std::collections::BTreeSet::new();
        let punctual: Vec<_> = reports.into_iter().filter(|(device, day, ..)| seen.insert((*device, *day))).collect();
        let mut anyhow: Vec<_> = punctual.iter().flat_map(|r| std::iter::repeat_n(*r, r.3 + 1)).collect();
        anyhow.sort_by_key(|r| (r.1.wrapping_mul(0x9E37_79B9) ^ by as u32, r.0));
        let by = by % anyhow.len();
        anyhow.rotate_left(by);
        prop_assert_eq!(counted(&anyhow), counted(&punctual));
    }

    /// Each day counts once, however often and in whatever order it comes.
    #[test]
    fn a_day_counts_once(days in proptest::collection::vec((0u32..60, any::<bool>()), 1..200)) {
        let mut attendance = Attendance::default();
        let mut counted = std::collections::BTreeSet::new();
        for (day, bad) in &days {
            match attendance.arrive(1000 + day, u8::from(*bad), Counting::EveryDay) {
                Arrival::New { at_risk, bad: counts } => {
                    prop_assert!(counted.insert(*day) && at_risk == 31 && counts == u8::from(*bad));
                }
                Arrival::Duplicate => prop_assert!(counted.contains(day)),
                Arrival::TooOld => prop_assert!(false, "all days are near"),
            }
        }
        prop_assert_eq!(counted.len(), days.iter().map(|d| d.0).collect::<std::collections::BTreeSet<_>>().len());
    }
}

/// The formula as it stands in the module's documentation, in floats and with θ itself.
#[test]
fn the_e_process_is_the_formula() {
    let batches = [(3, 80, 4, 240), (0, 80, 0, 240), (7, 100, 2, 300), (1, 1, 0, 5)];
    let mut ratio = Ratio::NONE;
    let mut lambda = [0.0; 6];
    for (x, e, y, k) in batches {
        ratio.count(Count::new(x, e), Count::new(y, k));
        let w = f64::from(e) / f64::from(e + k);
        let theta = |r: f64| w * r / (w * r + 1.0 - w);
        for (l, r) in lambda.iter_mut().zip(RATIOS) {
            *l += f64::from(x) * (theta(r) / theta(R0)).ln();
            *l += f64::from(y) * ((1.0 - theta(r)) / (1.0 - theta(R0))).ln();
        }
    }
    let expected = (lambda.iter().map(|l: &f64| l.exp()).sum::<f64>() / 6.0).ln();
    assert!((ratio.ln_e() - expected).abs() < 1e-8, "{} {expected}", ratio.ln_e());
    assert_eq!((ratio.bad(), ratio.of()), (Both::new(11, 6), Both::new(261, 785)));
}

/// The expectation of each factor, by summing over all outcomes: 1 at R0, less below.
#[test]
fn it_is_a_supermartingale() {
    for (e, k, bad) in [(80u32, 240u32, 6u32), (5, 5, 3), (1000, 3000, 12)] {
        for ratio in [0.5, 1.0, R0] {
            let w = f64::from(e) / f64::from(e + k);
            let share = w * ratio / (w * ratio + 1.0 - w);
            let mut expectation = 0.0;
            let mut choose = 1.0;
            for x in 0..=bad.min(e) {
                let y = bad - x;
                let mut process = Ratio::NONE;
                process.count(Count::new(x, e), Count::new(y, k));
                expectation += choose * share.powi(x as i32) * (1.0 - share).powi(y as i32) * process.ln_e().exp();
                choose *= f64::from(bad - x) / f64::from(x + 1);
            }
            assert!(expectation <= 1.0 + 1e-6, "{expectation}");
            if ratio == R0 {
                assert!(expectation > 1.0 - 1e-6, "{expectation}");
            }
        }
    }
}

/// Devices that are in both arms of a day: the expectation of a pair's factor is at most 1, whatever the halves of one
/// device's day have to do with each other, as long as the candidate's rate is at most R0 times the base's. And pairs that
/// are counted together are counted one by one.
#[test]
fn pairs_are_a_supermartingale_however_dependent() {
    let factor = |x: u32, y: u32| {
        let mut process = Ratio::NONE;
        process.count(Count::new(x, 1), Count::new(y, 1));
        process.ln_e().exp()
    };
    let mut near_one = 0.0f64;
    for rate in [1e-4, 0.01, 0.2, 0.4] {
        for ratio in [0.5, 1.0, R0] {
            // From halves that exclude each other to one that is bad whenever the other is.
            for part in [0.0, 0.1, 0.5, 1.0] {
                let both = part * f64::min(rate, ratio * rate);
                let (x, y) = (ratio * rate - both, rate - both);
                let none = 1.0 - x - y - both;
                let expectation = none * factor(0, 0) + x * factor(1, 0) + y * factor(0, 1) + both * factor(1, 1);
                assert!(expectation <= 1.0 + 1e-8, "{expectation} at {rate}, {ratio}, {part}");
                near_one = near_one.max(if ratio == R0 { expectation } else { 0.0 });
            }
        }
    }
    assert!(near_one > 1.0 - 1e-8, "{near_one}: nothing is given away where days are seldom bad");
    let (mut together, mut single) = (Ratio::NONE, Ratio::NONE);
    together.count(Count::new(7, 40), Count::new(3, 40));
    (0..40u32).for_each(|i| single.count(Count::new(u32::from(i < 7), 1), Count::new(u32::from(i % 16 == 5), 1)));
    assert_eq!((together.bad(), together.of()), (single.bad(), single.of()));
    assert!((together.ln_e() - single.ln_e()).abs() < 1e-7);
}

#[test]
fn one_arm_alone_says_nothing() {
    let mut ratio = Ratio::NONE;
    ratio.count(Count::new(50, 50), Count::default());
    ratio.count(Count::default(), Count::new(3, 50));
    assert_eq!(ratio.ln_e(), 0.0);
}

#[test]
fn what_is_wrong_is_refused() {
    let mut evidence = Evidence::new(3, 1);
    let before = evidence;
    let wrong = evidence.count(0, Guardrail::Crash, Count::new(2, 1), Count::new(0, 9));
    assert_eq!(wrong, Err(EvidenceError::MoreBadThanDays));
    assert_eq!(evidence.value(latency(), Side::Canary, 1.0), Err(EvidenceError::UnknownMetric));
    assert_eq!(evidence.merge(&Evidence::new(2, 1)), Err(EvidenceError::Epoch { ours: 3, theirs: 2 }));
    assert_eq!(evidence.merge(&Evidence::new(3, 0)), Err(EvidenceError::Candidate));
    assert_eq!(evidence, before);
    evidence.declare(latency()).unwrap();
    for value in [f64::NAN, f64::INFINITY, 1e200] {
        evidence.value(latency(), Side::Control, value).unwrap();
    }
    assert_eq!((evidence.refused(), evidence.moments(latency()).unwrap().control.n()), (3, 0));
    evidence.pair(latency(), Both::new(1.0, f64::NAN)).unwrap();
    assert_eq!((evidence.refused(), evidence.pairs(latency()).unwrap().n()), (4, 0));
    assert_eq!(evidence.pair(Name::new("other").unwrap(), Both::new(1.0, 1.0)), Err(EvidenceError::UnknownMetric));
    for i in 1..MAX_METRICS {
        evidence.declare(Name::new(&std::format!("m{i}")).unwrap()).unwrap();
    }
    assert_eq!(evidence.declare(Name::new("one_more").unwrap()), Err(EvidenceError::TooManyMetrics));
    assert!(Guardrail::from_name("crashes").is_none() && Guardrail::from_name("crash") == Some(Guardrail::Crash));
    assert!(Name::new("").is_none() && Name::new("seventeen_letters").is_none() && Name::new("a b").is_none());
}

#[test]
fn attendance_forgets_no_failure_and_believes_no_old_day() {
    let mut attendance = Attendance::default();
    let mut arrive = |day, bad| attendance.arrive(day, bad, Counting::UntilFirst);
    assert_eq!(arrive(100, 0b00001), Arrival::New { at_risk: 0b11111, bad: 0b00001 });
    assert_eq!(arrive(101, 0b00011), Arrival::New { at_risk: 0b11110, bad: 0b00010 });
    assert_eq!(arrive(99, 0b00001), Arrival::New { at_risk: 0b11100, bad: 0 });
    assert_eq!(arrive(99, 0), Arrival::Duplicate);
    assert_eq!(arrive(200, 0), Arrival::New { at_risk: 0b11100, bad: 0 });
    assert_eq!(arrive(137, 0), Arrival::New { at_risk: 0b11100, bad: 0 });
    assert_eq!(arrive(136, 0), Arrival::TooOld);
    assert_eq!(arrive(101, 0), Arrival::TooOld);
}
