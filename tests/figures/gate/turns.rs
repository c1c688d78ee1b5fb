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

/// Hours of a day.
const HOURS: u32 = 24;

/// Hours at which a device's halves of a day have first reported and have first been bad; [`HOURS`]: not on this day.
struct Halves {
    reported: Both<u32>,
    bad: Both<u32>,
}

impl Halves {
    /// Draws a day of which `half` is the probability that twelve of the base's hours are bad.
    fn draw(half: f64, ratio: f64, random: &mut Random) -> Self {
        let hours = random.next();
        let is_canary = |hour: u32| hours >> hour & 1 == 1;
        let first = |canary: bool| (0..HOURS).find(|hour| is_canary(*hour) == canary).unwrap_or(HOURS);
        let shared = if random.uniform() < 0.2 * half { (random.next() % u64::from(HOURS)) as u32 } else { HOURS };
        let mut first_bad = |canary: bool, twelve: f64| {
            // The number of good hours before the first bad one is geometric.
            let good = ((1.0 - random.uniform()).ln() / (1.0 - twelve / 12.0).ln()) as usize;
            let own = (0..HOURS).filter(|hour| is_canary(*hour) == canary).nth(good).unwrap_or(HOURS);
            let both = (shared..HOURS).find(|hour| is_canary(*hour) == canary).unwrap_or(HOURS);
            own.min(both)
        };
        let bad = Both::new(first_bad(true, (ratio - 0.2) * half), first_bad(false, 0.8 * half));
        Self { reported: Both::new(first(true), first(false)), bad }
    }

    /// Whether both halves have reported by an hour, and which are bad by then.
    fn by(&self, hour: u32) -> Option<Both<bool>> {
        let both = self.reported.canary < hour && self.reported.control < hour;
        both.then(|| Both::new(self.bad.canary < hour, self.bad.control < hour))
    }
}

/// Whether a candidate is ever taken back in seven stages of a crossover, each of which is left by hand in the middle of its
/// second day: at any hour, or at the one at which the evidence against the candidate is greatest (which nobody can choose
/// who does not see each device's reports as they come).
pub(crate) fn left_by_hand(devices: u32, rate: f64, ratio: f64, random: &mut Random) -> Both<bool> {
    let prone: Vec<f64> = (0..devices).map(|_| rate * (random.normal() - 0.5).exp()).collect();
    let mut arms = Both::new(Evidence::new(0, 0), Evidence::new(0, 0));
    let mut taken_back = Both::new(false, false);
    let ln_e = |e: &Evidence| Gate::DEFAULT.measure([*e].iter(), 0, 1, 0, None).hard[0];
    for _ in 0..DAYS / 2 {
        let mut gone = vec![false; devices as usize];
        for is_last in [false, true] {
            let season = (0.3 * random.normal() - 0.045).exp();
            let day: Vec<Halves> =
                prone.iter().map(|prone| Halves::draw((prone * season / 2.0).min(0.3), ratio, random)).collect();
            let counted = |evidence: &Evidence, hour: u32| {
                let mut evidence = *evidence;
                let (mut with, mut without) = (Count::default(), Count::default());
                for bad in day.iter().zip(&gone).filter(|(_, gone)| !**gone).filter_map(|(halves, _)| halves.by(hour)) {
                    with = Count::new(with.bad + u32::from(bad.canary), with.of + 1);
                    without = Count::new(without.bad + u32::from(bad.control), without.of + 1);
                }
                evidence.count(0, Guardrail::Crash, with, without).expect("counts");
                evidence
            };
            if is_last {
                let hour = 1 + (random.next() % u64::from(HOURS - 1)) as u32;
                arms.canary = counted(&arms.canary, hour);
                let hours = (1..HOURS).map(|hour| counted(&arms.control, hour));
                let worst = hours.max_by(|a, b| ln_e(a).ln_e.total_cmp(&ln_e(b).ln_e));
                arms.control = worst.expect("hours");
            } else {
                arms.canary = counted(&arms.canary, HOURS);
                arms.control = counted(&arms.control, HOURS);
                for (gone, halves) in gone.iter_mut().zip(&day) {
                    *gone = halves.by(HOURS).is_some_and(|bad| bad.canary || bad.control);
                }
            }
            taken_back.canary |= ln_e(&arms.canary).is_crossed();
            taken_back.control |= ln_e(&arms.control).is_crossed();
        }
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
