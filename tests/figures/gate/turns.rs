//! A crossover: devices that run both packages in turn, of which some are worse than others whatever they run.

use dunlin_rollout::gate::{Allowed, Better, Margin, Place};
use dunlin_rollout::{Both, Count, Evidence, Gate, Guardrail, Name, Side};

use super::random::Random;

const DAYS: u32 = 14;

/// Whether the gate takes the candidate back within 14 days, by pairs of half days or by two arms of half of the devices
/// each. `rate`: bad days of a device in the mean; `ratio`: how much more often days with the candidate are bad.
///
/// How often a device is bad has a lognormal law over devices, and a bad day is bad for both packages alike: on a part of its
/// bad days a device is so whatever runs.
pub(crate) fn guardrail(devices: u32, rate: f64, ratio: f64, random: &mut Random) -> Both<bool> {
    let mut pairs = Evidence::new(0, 0);
    let mut arms = Evidence::new(0, 0);
    let prone: Vec<f64> = (0..devices).map(|_| rate * (random.normal() - 0.5).exp()).collect();
    let mut gone = vec![Both::new(false, false); devices as usize];
    let mut taken_back = Both::new(false, false);
    for _ in 0..DAYS {
        let season = (0.3 * random.normal() - 0.045).exp();
        let mut halves = Both::new(Count::default(), Count::default());
        let mut days = Both::new(Count::default(), Count::default());
        for (i, (prone, gone)) in prone.iter().zip(&mut gone).enumerate() {
            // A fifth of what is bad is bad in both halves.
            let half = (prone * season / 2.0).min(0.3);
            let shared = random.uniform() < 0.2 * half;
            let with = shared || random.uniform() < (ratio - 0.2) * half;
            let without = shared || random.uniform() < 0.8 * half;
            if !gone.canary {
                halves.canary = Count::new(halves.canary.bad + u32::from(with), halves.canary.of + 1);
                halves.control = Count::new(halves.control.bad + u32::from(without), halves.control.of + 1);
                gone.canary = with || without;
            }
            if !gone.control {
                let canary = i % 2 == 0;
                let arm = if canary { &mut days.canary } else { &mut days.control };
                let bad = random.uniform() < 2.0 * half * if canary { ratio } else { 1.0 };
                *arm = Count::new(arm.bad + u32::from(bad), arm.of + 1);
                gone.control = bad;
            }
        }
        pairs.count(0, Guardrail::Crash, halves.canary, halves.control).expect("counts");
        arms.count(0, Guardrail::Crash, days.canary, days.control).expect("counts");
        let crossed = |e: &Evidence| Gate::DEFAULT.measure([*e].iter(), 0, 1, 0, None).hard[0].is_crossed();
        taken_back.canary |= crossed(&pairs);
        taken_back.control |= crossed(&arms);
    }
    taken_back
}

/// What became of a margin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    /// Whether an interval that is looked at after every device ever left out the truth.
    pub(crate) wrong: bool,
    /// Whether one for a single look did.
    pub(crate) naive: bool,
    /// Width of the interval at the end by pairs, over that of as many devices divided into two arms.
    pub(crate) width: f64,
}

/// A margin of 10 % that is met exactly, with a thousand devices whose speeds have a lognormal law, and which differ from
/// themselves by a twelfth of what they differ from each other.
pub(crate) fn margin(random: &mut Random) -> Judged {
    let metric = Name::new("latency_p95").expect("a name");
    let margin = Margin::new(metric, Better::Lower, Allowed::Relative(0.1));
    let gate = Gate { devices: 2000, ..Gate::DEFAULT }.with_margins(&[margin]);
    let fresh = || {
        let mut evidence = Evidence::new(0, 0);
        evidence.declare(metric).expect("room");
        evidence.days(0, Both::new(1, 1), Both::new(1, 1));
        evidence
    };
    let soft = |e: &Evidence| gate.measure([*e].iter(), 0, 1, 0, None).soft[0].expect("a margin");
    let (mut pairs, mut arms) = (fresh(), fresh());
    let mut judged = Judged { wrong: false, naive: false, width: f64::NAN };
    for device in 0..1000u32 {
        let speed = (0.6 * random.normal()).exp();
        let mut once = |mean: f64| mean * speed * (0.05 * random.normal()).exp();
        let value = Both::new(once(11.0), once(10.0));
        pairs.pair(metric, value).expect("declared");
        let arm = if device % 2 == 0 { (Side::Canary, value.canary) } else { (Side::Control, value.control) };
        arms.value(metric, arm.0, arm.1).expect("declared");
        if device + 1 >= gate.devices_per_arm {
            let found = soft(&pairs);
            judged.wrong |= matches!(found.place, Place::Inside | Place::Outside);
            let of = pairs.pairs(metric).expect("declared");
            let difference = of.mean().canary - 1.1 * of.mean().control;
            judged.naive |= difference.abs() > 2.5758 * (of.variance(1.1) / of.n() as f64).sqrt();
        }
    }
    let width = |e: &Evidence| soft(e).excess.map_or(f64::INFINITY, |e| e.high - e.low);
    judged.width = width(&pairs) / width(&arms);
    judged
}
