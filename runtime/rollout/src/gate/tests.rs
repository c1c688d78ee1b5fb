use super::*;
use crate::evidence::{Count, Pairs, Side};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// SplitMix64, for draws that are the same each time.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

fn with_values(canary: (f64, f64), control: (f64, f64), n: u64) -> Evidence {
    let mut evidence = Evidence::new(0, 0);
    let mut random = Random(7);
    evidence.declare(name("latency_p95")).unwrap();
    evidence.days(0, Both::new(90, 90), Both::new(100, 100));
    for _ in 0..n {
        evidence.value(name("latency_p95"), Side::Canary, canary.0 + canary.1 * random.normal()).unwrap();
        evidence.value(name("latency_p95"), Side::Control, control.0 + control.1 * random.normal()).unwrap();
    }
    evidence
}

fn place(evidence: &[Evidence], margin: Margin) -> Soft {
    let gate = Gate { devices: 2000, ..Gate::DEFAULT }.with_margins(&[margin]);
    gate.measure(evidence.iter(), 0, 1, 0, None).soft[0].unwrap()
}

#[test]
fn margins_pass_pause_or_wait() {
    let [latency, ..] = Margin::DEFAULTS;
    for (canary, n, expected) in [
        (10.0, 1000, Place::Inside),
        (10.9, 1000, Place::Undecided),
        (12.0, 1000, Place::Outside),
        (10.0, 199, Place::TooFew),
    ] {
        let soft = place(&[with_values((canary, 2.0), (10.0, 2.0), n)], latency);
        assert_eq!(soft.place, expected, "{soft:?}");
    }
    // The other way round, and by an amount.
    let higher = Margin::new(name("latency_p95"), Better::Higher, Allowed::Absolute(1.0));
    assert_eq!(place(&[with_values((10.0, 2.0), (10.0, 2.0), 1000)], higher).place, Place::Inside);
    assert_eq!(place(&[with_values((8.0, 2.0), (10.0, 2.0), 1000)], higher).place, Place::Outside);
    assert_eq!(place(&[with_values((8.0, 2.0), (10.0, 2.0), 1000)], latency).place, Place::Inside);
    let unknown = Margin::new(name("latency_p59"), Better::Lower, Allowed::Relative(0.1));
    assert_eq!(place(&[with_values((10.0, 2.0), (10.0, 2.0), 1000)], unknown).place, Place::Unknown);
    let mut silent = with_values((10.0, 2.0), (10.0, 2.0), 1000);
    silent.days(0, Both::new(0, 0), Both::new(100, 0));
    assert_eq!(place(&[silent], latency).place, Place::Incomplete);
}

/// A slow revision with more of the canary than a fast one is no slow candidate.
#[test]
fn strata_are_compared_within() {
    let (mut slow, mut fast) = (with_values((30.0, 1.0), (30.0, 1.0), 400), with_values((10.0, 1.0), (10.0, 1.0), 400));
    for _ in 0..400 {
        slow.value(name("latency_p95"), Side::Canary, 30.0).unwrap();
        fast.value(name("latency_p95"), Side::Control, 10.0).unwrap();
    }
    let soft = place(&[slow, fast], Margin::DEFAULTS[0]);
    assert!(soft.mean.canary > 1.1 * soft.mean.control);
    assert_eq!(soft.place, Place::Inside);
    // Their e-values multiply.
    let mut strata = [Evidence::new(0, 0), Evidence::new(0, 0)];
    strata[0].count(0, Guardrail::Crash, Count::new(9, 100), Count::new(3, 300)).unwrap();
    strata[1].count(0, Guardrail::Crash, Count::new(5, 100), Count::new(1, 300)).unwrap();
    let numbers = Gate::DEFAULT.measure(strata.iter(), 0, 1, 0, None);
    let product = strata.map(|e| e.ratio(Guardrail::Crash).ln_e()).iter().sum::<f64>();
    assert!((numbers.hard[0].ln_e - product).abs() < 1e-12 && numbers.hard[0].bad == Both::new(14, 4));
}

/// The interval's formula, step by step: variance 0.04, all planned devices, α = 0.01, then a tenth of them.
#[test]
fn the_interval_is_the_formula() {
    for progress in [1.0f64, 0.1] {
        let l = -2.0 * 0.01f64.ln();
        let u = (l + (1.0 + l).ln()) * progress;
        let half = (0.04 * (1.0 + 1.0 / u) * ((1.0 + u) / (0.01f64 * 0.01)).ln()).sqrt();
        let found = interval(2.0, 0.04, progress, 0.01);
        assert!((found.high - 2.0 - half).abs() < 1e-12 && (2.0 - found.low - half).abs() < 1e-12);
        // As printed by Waudby-Smith et al.: σ sqrt(2 (tρ² + 1) / (t²ρ²) ln(sqrt(tρ² + 1) / α)), with t = 500 and σ² = 20.
        let rho2 = u / 500.0;
        let printed = (20.0 * 2.0 * (500.0 * rho2 + 1.0) / (500.0f64.powi(2) * rho2)
            * ((500.0 * rho2 + 1.0).sqrt() / 0.01).ln())
        .sqrt();
        assert!((printed - half).abs() < 1e-12, "{printed} {half}");
    }
    // About as wide as three and a half standard errors where it is tightest, everything before there is anything.
    let tight = interval(0.0, 1.0, 1.0, 0.01).high;
    assert!((3.3..3.8).contains(&tight), "{tight}");
    assert!([0.3, 0.6, 1.5, 3.0].iter().all(|p| interval(0.0, 1.0 / p, *p, 0.01).high * p.sqrt() > tight - 0.02));
    for (variance, progress, alpha) in
        [(1.0, 0.0, 0.01), (f64::NAN, 1.0, 0.01), (1.0, 1.0, 0.0), (f64::INFINITY, 1.0, 0.01)]
    {
        assert_eq!(interval(0.0, variance, progress, alpha), Interval { low: f64::NEG_INFINITY, high: f64::INFINITY });
    }
}

/// 600 experiments without a difference, looked at 190 times each.
#[test]
fn the_interval_is_right_at_all_looks() {
    let mut wrong = 0;
    for run in 0..600 {
        let mut random = Random(run << 32);
        let mut arms = [Moments::NONE; 2];
        wrong += u32::from((1..=1000u32).any(|n| {
            arms.iter_mut().for_each(|m| m.add(random.normal()));
            let difference = arms[0].mean() - arms[1].mean();
            let variance = (arms[0].variance() + arms[1].variance()) / f64::from(n);
            n >= 50 && n % 5 == 0 && {
                let found = interval(difference, variance, f64::from(n) / 500.0, 0.05);
                found.low > 0.0 || found.high < 0.0
            }
        }));
    }
    // 5 % of 600 would be 30.
    assert!(wrong <= 30, "{wrong}");
}

/// ln E of the sizes, by Python's `math.lgamma`.
#[test]
fn sizes_are_the_formula() {
    for (x, y, share, expected) in SIZES {
        let found = ln_mismatch(Both::new(x, y), share);
        assert!((found - expected).abs() < 1e-6, "{x} {y} {share}: {found}");
    }
}

const SIZES: [(u64, u64, f64, f64); 4] = [
    (0, 0, 0.5, 0.0),
    (600, 400, 0.5, 17.098940416450603),
    (5000, 15100, 0.25, -2.5734705544391545),
    (200000, 1000000, 1.0 / 6.0, -4.7015382647223305),
];

#[test]
fn sizes_raise_no_false_alarm_and_a_true_one() {
    let first = |true_share: f64, run: u64| {
        let mut random = Random(run << 32);
        let mut seen = Both::new(0, 0);
        (1..=4000).find(|_| {
            if random.uniform() < true_share {
                seen.canary += 1
            } else {
                seen.control += 1
            }
            ln_mismatch(seen, 0.25) >= 1000f64.ln()
        })
    };
    // One of 1000 would be the promise.
    let alarms = (0..1000).filter_map(|run| first(0.25, run)).count();
    assert!(alarms <= 2, "{alarms}");
    assert!((0..100).filter_map(|run| first(0.35, run)).count() >= 95);
}

/// Small copies of the figure `gate`: a good candidate is kept, a bad one is found.
#[test]
fn false_rollbacks_and_detections() {
    let taken_back = |ratio: f64, runs: u64| {
        (0..runs)
            .filter(|run| {
                let mut random = Random(0x6A7E << 32 | run << 8);
                let mut evidence = Evidence::new(0, 0);
                (0..14).any(|day| {
                    let season = 1.0 + 0.3 * f64::from(day).sin();
                    let mut bad = |of: u32, p: f64| (0..of).filter(|_| random.uniform() < p).count() as u32;
                    let of = if day < 2 { 80 } else { 240 };
                    let canary = Count::new(bad(of, 0.01 * ratio * season), of);
                    let control = Count::new(bad(720, 0.01 * season), 720);
                    evidence.count(0, Guardrail::Crash, canary, control).unwrap();
                    Gate::DEFAULT.measure([evidence].iter(), 0, 1, 0, None).hard[0].is_crossed()
                })
            })
            .count()
    };
    let (same, worst) = (taken_back(1.0, 1000), taken_back(1.25, 1000));
    assert!(same <= 10 && worst <= 10, "{same} {worst}");
    // The study of the gate has 99 % here.
    let found = taken_back(3.0, 100);
    assert!(found >= 95, "{found}");
}

#[test]
fn designs_know_what_they_can_see() {
    // Detected with 97 % at 5, with 36 % at 3.
    let small = Design::new(60, 300, 0.01);
    assert!(small.detection(5.0) > 0.9 && small.detection(3.0) < 0.5 && small.detection(1.25) <= 0.01);
    let ratio = small.minimum_ratio(0.8).unwrap();
    assert!((3.5..5.0).contains(&ratio), "{ratio}");
    assert!(Design::new(1000, 3000, 0.01).minimum_ratio(0.8).unwrap() < 2.2);
    assert_eq!(Design::new(2, 6, 0.0001).minimum_ratio(0.8), None);
    assert_eq!(small.minimum_ratio(0.8), Some(ratio));
    // However large the fleet: nearer to 1.25 than to the least of the mixture's ratios nothing is seen.
    let large = Design::new(1_000_000, 3_000_000, 0.01).minimum_ratio(0.8).unwrap();
    assert!((1.3..=1.4).contains(&large), "{large}");
}

#[test]
fn a_gate_out_of_range_is_unsound() {
    assert!(Gate::DEFAULT.is_sound());
    for gate in [
        Gate { alpha: 0.0, ..Gate::DEFAULT },
        Gate { alpha: f64::NAN, ..Gate::DEFAULT },
        Gate { margin_alpha: 1.0, ..Gate::DEFAULT },
        Gate { completeness: 1.5, ..Gate::DEFAULT },
        Gate { mismatch: 0.5, ..Gate::DEFAULT },
        Gate { devices: 0, ..Gate::DEFAULT },
        Gate { devices_per_arm: 1, ..Gate::DEFAULT },
        Gate::DEFAULT.with_margins(&[Margin::new(name("x"), Better::Lower, Allowed::Relative(-0.1))]),
    ] {
        assert!(!gate.is_sound(), "{gate:?}");
    }
}

/// Eight devices that ran both. Numbers by Python's `statistics` on the devices' differences, and the interval's formula.
#[test]
fn a_pairs_difference_is_one_value() {
    let canary = [11.5, 9.25, 14.0, 30.5, 7.75, 12.0, 10.25, 19.5];
    let control = [10.0, 8.5, 13.25, 26.0, 7.0, 11.75, 9.0, 18.25];
    let metric = name("latency_p95");
    let (mut pairs, mut arms) = (Evidence::new(0, 0), Evidence::new(0, 0));
    for evidence in [&mut pairs, &mut arms] {
        evidence.declare(metric).unwrap();
        evidence.days(0, Both::new(8, 8), Both::new(8, 8));
    }
    for (c, k) in canary.into_iter().zip(control) {
        pairs.pair(metric, Both::new(c, k)).unwrap();
        arms.value(metric, Side::Canary, c).unwrap();
        arms.value(metric, Side::Control, k).unwrap();
    }
    let soft = |evidence: Evidence, margin| {
        let gate = Gate { devices: 16, devices_per_arm: 2, ..Gate::DEFAULT }.with_margins(&[margin]);
        gate.measure([evidence].iter(), 0, 1, 0, None).soft[0].unwrap()
    };
    let near = |soft: Soft, low: f64, high: f64| {
        let found = soft.excess.unwrap();
        assert!((found.low - low).abs() < 1e-9 && (found.high - high).abs() < 1e-9, "{soft:?}");
    };
    let relative = Margin::new(metric, Better::Lower, Allowed::Relative(0.1));
    let paired = soft(pairs, relative);
    near(paired, -1.0374272297382823, 1.19367722973828);
    assert_eq!((paired.n, paired.pairs), (Both::new(8, 8), 8));
    assert!((paired.mean.canary - 14.34375).abs() < 1e-12 && (paired.mean.control - 12.96875).abs() < 1e-12);
    let absolute = Margin::new(metric, Better::Higher, Allowed::Absolute(0.5));
    near(soft(pairs, absolute), -3.5454769579163266, -0.20452304208367322);
    // The same values as if of sixteen devices.
    let unpaired = soft(arms, relative);
    near(unpaired, -12.778344190861352, 12.934594190861349);
    assert_eq!((unpaired.n, unpaired.pairs), (Both::new(8, 8), 0));
    // Both kinds together: as two strata of equal weight.
    arms.merge(&pairs).unwrap();
    let both = soft(arms, relative);
    assert_eq!((both.n, both.pairs), (Both::new(16, 16), 8));
    let (of_pairs, of_arms) = (0.7804352678571431 / 8.0, variance(&canary) / 8.0 + 1.21 * variance(&control) / 8.0);
    let expected = interval(0.078125, (of_pairs + of_arms) / 4.0, 2.0, 0.01);
    near(both, expected.low, expected.high);
}

fn variance(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

/// Devices that are each their own control, exactly as much worse as allowed, looked at 96 times: paused in no more of the
/// experiments than promised. Devices differ far more among themselves than packages do on one of them, so that the same
/// values as of different devices leave an interval many times as wide.
#[test]
fn paired_margins_pause_no_more_than_promised_and_see_more() {
    let metric = name("latency_p95");
    let margin = Margin::new(metric, Better::Lower, Allowed::Relative(0.1));
    let gate = Gate { devices: 1000, devices_per_arm: 50, margin_alpha: 0.05, ..Gate::DEFAULT };
    let gate = gate.with_margins(&[margin]);
    // Whether a run of 500 devices was ever outside or inside as pairs, and the places and widths at its end as pairs and arms.
    let experiment = |run: u64, mean: f64| {
        let mut random = Random(run << 32 | 0xC0DE);
        let (mut pairs, mut arms) = (Evidence::new(0, 0), Evidence::new(0, 0));
        for evidence in [&mut pairs, &mut arms] {
            evidence.declare(metric).unwrap();
            evidence.days(0, Both::new(1, 1), Both::new(1, 1));
        }
        let soft = |evidence: &Evidence| gate.measure([*evidence].iter(), 0, 1, 0, None).soft[0].unwrap();
        let (mut outside, mut inside) = (false, false);
        for device in 1..=500 {
            // Skewed, as latencies are, and a factor of ten from the fastest devices to the slowest.
            let speed = libm::exp(0.6 * random.normal());
            let control = 10.0 * speed * libm::exp(0.05 * random.normal());
            let canary = mean * speed * libm::exp(0.05 * random.normal());
            pairs.pair(metric, Both::new(canary, control)).unwrap();
            arms.value(metric, Side::Canary, canary).unwrap();
            arms.value(metric, Side::Control, control).unwrap();
            if device >= 50 && device % 5 == 0 {
                let place = soft(&pairs).place;
                outside |= place == Place::Outside;
                inside |= place == Place::Inside;
            }
        }
        let end =
            [soft(&pairs), soft(&arms)].map(|soft| (soft.place, soft.excess.map_or(f64::INFINITY, |e| e.high - e.low)));
        (outside, inside, end)
    };
    let (mut paused, mut passed) = (0, 0);
    for run in 0..400 {
        let (outside, inside, [(_, paired), (_, unpaired)]) = experiment(run, 11.0);
        (paused, passed) = (paused + u32::from(outside), passed + u32::from(inside));
        assert!(paired < 0.25 * unpaired, "run {run}: {paired} against {unpaired}");
    }
    // 5 % of 400 would be 20 for both together.
    assert!(paused + passed <= 20, "{paused} paused, {passed} passed");
    // As good as the base, or twice as much worse as allowed: pairs know it, and arms of as many devices do not.
    for (mean, expected) in [(10.0, Place::Inside), (12.0, Place::Outside)] {
        for run in 0..20 {
            let (.., [(paired, _), (unpaired, _)]) = experiment(run, mean);
            assert_eq!((paired, unpaired), (expected, Place::Undecided), "run {run} at {mean}");
        }
    }
}

/// What nothing is shared by is not made narrower: devices whose halves are independent.
#[test]
fn pairs_without_anything_in_common_are_as_wide_as_arms() {
    let (mut pairs, mut arms) = (Pairs::NONE, [Moments::NONE; 2]);
    let mut random = Random(11);
    for _ in 0..4000 {
        let (c, k) = (random.normal(), random.normal());
        pairs.add(Both::new(c, k));
        arms[0].add(c);
        arms[1].add(k);
    }
    let unpaired = arms[0].variance() + 1.21 * arms[1].variance();
    assert!((pairs.variance(1.1) / unpaired - 1.0).abs() < 0.05, "{} {unpaired}", pairs.variance(1.1));
}
