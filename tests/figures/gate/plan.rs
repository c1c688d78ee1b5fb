//! A whole plan over a fleet whose devices are not all alike: stage after stage, each wider than the one before, through
//! the real rollout. Devices are simulated in groups that behave alike; the draws are those of single devices.

use dunlin_rollout::rollout::Exposure;
use dunlin_rollout::{Both, Count, Evidence, Gate, Guardrail, Hop, Phase, Plan, Rollout, Salt, Verdict};

use super::random::Random;

/// Parts of the fleet, and on which part of their days they are bad with the base.
pub(crate) struct Mix {
    pub(crate) name: &'static str,
    pub(crate) groups: &'static [(f64, f64)],
}

pub(crate) const MIXES: [Mix; 4] = [
    Mix { name: "all_0.2%", groups: &[(1.0, 0.002)] },
    Mix { name: "2%_always,_others_0.1%", groups: &[(0.02, 1.0), (0.98, 0.001)] },
    Mix { name: "5%_on_30%_of_days,_others_0.2%", groups: &[(0.05, 0.3), (0.95, 0.002)] },
    Mix { name: "10%_on_20%_of_days,_others_0.2%", groups: &[(0.1, 0.2), (0.9, 0.002)] },
];

/// When a device is at risk again that was bad.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// With each stage.
    Stage,
    /// Never in the rollout: what canary and control have left differs then, because they grow differently.
    Rollout,
}

/// Part of the devices that report on a day.
const REPORTING: f64 = 0.9;
/// Part of the devices without the candidate that take it on a day.
const TAKING: f64 = 0.7;

/// Devices between two points of the bucket's range that have the same rate.
struct Cell {
    low: f64,
    high: f64,
    rate: f64,
    /// Not bad before, and bad before, each without and with the candidate.
    clean: [u32; 2],
    bad: [u32; 2],
}

impl Cell {
    fn all(&self) -> u32 {
        self.clean.iter().chain(&self.bad).sum()
    }

    /// Those that take the candidate today.
    fn take(&mut self, random: &mut Random) {
        for of in [&mut self.clean, &mut self.bad] {
            let n = random.binomial(of[0], TAKING);
            *of = [of[0] - n, of[1] + n];
        }
    }

    /// A day of those at risk, without or with the candidate.
    fn day(&mut self, with: usize, rate: f64, random: &mut Random) -> Count {
        let of = random.binomial(self.clean[with], REPORTING);
        let bad = random.binomial(of, rate.min(1.0));
        self.clean[with] -= bad;
        self.bad[with] += bad;
        Count::new(bad, of)
    }
}

/// How a rollout ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Taken back in this stage.
    TakenBack(u8),
    Completed,
    /// Somebody has to look: the arms' sizes, at one of a thousand looks.
    Paused,
}

/// What becomes of a candidate with this ratio.
pub(crate) fn end(devices: u32, mix: &Mix, ratio: f64, memory: Memory, random: &mut Random) -> End {
    let plan = Plan::for_fleet(devices).expect("a plan");
    let mut rollout = Rollout::new(plan, Gate::DEFAULT, Salt::new(b"plan")).expect("a gate");
    rollout.start(0).expect("a draft");
    let mut evidence = Evidence::new(0, 0);
    let mut cells = cells(&plan, devices, mix, random);
    let mut stage = u8::MAX;
    for day in 0..200u32 {
        if rollout.stage() != stage {
            stage = rollout.stage();
            if memory == Memory::Stage {
                cells
                    .iter_mut()
                    .for_each(|c| (c.clean, c.bad) = ([c.clean[0] + c.bad[0], c.clean[1] + c.bad[1]], [0; 2]));
            }
        }
        let season = season(day, random);
        let (mut canary, mut control) = (Count::new(0, 0), Count::new(0, 0));
        let mut seen = Both::new(0, 0);
        match plan.stage(stage).expect("a stage").exposure {
            Exposure::Share { canary: c, control: k } => {
                let end = c.bound() as f64 / RANGE;
                let begin = 1.0 - k.bound() as f64 / RANGE;
                for cell in &mut cells {
                    let rate = cell.rate * season;
                    if cell.high <= end + TINY {
                        cell.take(random);
                        let Count { bad, of } = cell.day(1, rate * ratio, random);
                        canary = Count::new(canary.bad + bad, canary.of + of);
                        // What it was bad by before it has the candidate uses it up, as in the control; and is not counted.
                        cell.day(0, rate, random);
                        seen.canary += cell.all();
                    } else if cell.low >= begin - TINY {
                        let Count { bad, of } = cell.day(0, rate, random);
                        control = Count::new(control.bad + bad, control.of + of);
                        seen.control += cell.all();
                    }
                }
            }
            // The laboratory's few devices have nothing to do with the others.
            _ => (canary, seen.canary) = (Count::new(0, 5), 5),
        }
        for guardrail in Guardrail::ALL {
            // One of them is looked at; of the others there is data, and nothing bad.
            let of =
                |count: Count| if guardrail == Guardrail::InferenceError { count } else { Count::new(0, count.of) };
            evidence.count(stage, guardrail, of(canary), of(control)).expect("counts");
        }
        evidence.days(stage, Both::new(canary.of, control.of), Both::new(canary.of, control.of));
        for hop in Hop::ALL {
            let known = evidence.devices(stage, hop);
            let more = |now: u32, known: u64| now - known as u32;
            evidence.hop(stage, hop, Both::new(more(seen.canary, known.canary), more(seen.control, known.control)));
        }
        let decision = rollout.step(&[evidence], (u64::from(day) + 1) * 86_400);
        match (decision.verdict, rollout.phase()) {
            (Verdict::Rollback, _) => return End::TakenBack(stage),
            (_, Phase::Completed) => return End::Completed,
            (_, Phase::Paused) => return End::Paused,
            _ => {}
        }
    }
    panic!("it does not end")
}

const RANGE: f64 = 4_294_967_296.0;
const TINY: f64 = 1e-6;

/// The factor of a day, of mean 1, for all devices.
fn season(day: u32, random: &mut Random) -> f64 {
    let week = 1.0 + 0.3 * (f64::from(day) * std::f64::consts::TAU / 7.0).sin();
    week * (0.3 * random.normal() - 0.045).exp()
}

/// The fleet, cut where any stage's arms begin or end. Who is where is drawn: that is what the hash does.
fn cells(plan: &Plan, devices: u32, mix: &Mix, random: &mut Random) -> Vec<Cell> {
    let mut cuts = vec![0.0, 1.0];
    for stage in plan.stages() {
        if let Exposure::Share { canary, control } = stage.exposure {
            cuts.extend([canary.bound() as f64 / RANGE, 1.0 - control.bound() as f64 / RANGE]);
        }
    }
    cuts.sort_unstable_by(f64::total_cmp);
    cuts.dedup_by(|a, b| (*a - *b).abs() < TINY);
    let mut cells = Vec::new();
    for (share, rate) in mix.groups {
        let mut left = (f64::from(devices) * share).round() as u32;
        for window in cuts.windows(2) {
            let (low, high) = (window[0], window[1]);
            let n = random.binomial(left, ((high - low) / (1.0 - low)).min(1.0));
            left -= n;
            cells.push(Cell { low, high, rate: *rate, clean: [n, 0], bad: [0; 2] });
        }
    }
    cells
}
