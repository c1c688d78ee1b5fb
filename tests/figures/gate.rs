//! What the gate of a rollout does, by simulation: false rollbacks, detections and the days they take, beside
//! Mann-Whitney as Kayenta has it, static thresholds as AWS IoT Jobs and hawkBit have them, and a z-test at every look,
//! on the same streams; false alarms of the check of the arms' sizes; coverage of the confidence sequence; crossovers, in
//! which each device is its own control; the whole default plan in fleets whose devices are not all alike.
//!
//! `gate [--repetitions N] [PART]`: 4000 unless said, and for whole plans a fourth of them; parts are scenarios, guardrails,
//! arrivals, sizes, coverage, designs, turns and plans, all unless said. Seeded: the same numbers every time.

mod gate {
    pub(crate) mod peers;
    pub(crate) mod plan;
    pub(crate) mod random;
    pub(crate) mod stream;
    pub(crate) mod turns;
}

use std::thread;

use dunlin_rollout::evidence::Moments;
use dunlin_rollout::gate::{interval, ln_mismatch};
use dunlin_rollout::rollout::{Exposure, Margins};
use dunlin_rollout::{Both, Counting, Design, Evidence, Gate, Guardrail, Plan, Rollout, Salt, Share, Stage, Verdict};

use gate::peers::PEERS;
use gate::plan::{End, MIXES, Memory};
use gate::random::Random;
use gate::stream::{Day, Fleet};
use gate::turns;

/// Canary, control, bad device-days of a control device a day.
const SCENARIOS: [(u32, u32, f64); 8] = [
    (60, 300, 0.01),
    (100, 500, 0.01),
    (300, 900, 0.002),
    (300, 900, 0.01),
    (500, 1500, 0.01),
    (1000, 3000, 0.002),
    (1000, 3000, 0.01),
    (5000, 5000, 0.002),
];
/// Ratios of rates; a candidate may have the first two.
const LEVELS: [f64; 6] = [1.0, 1.25, 2.0, 3.0, 5.0, 10.0];

/// Runs `work` for every repetition on all processors; the results are in the repetitions' order.
fn repeat<T: Send>(repetitions: u32, work: impl Fn(u32) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from) as u32;
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|t| {
                let (first, last) = (repetitions * t / threads, repetitions * (t + 1) / threads);
                let work = &work;
                scope.spawn(move || (first..last).map(work).collect::<Vec<_>>())
            })
            .collect();
        handles.into_iter().flat_map(|h| h.join().expect("a simulation")).collect()
    })
}

fn line(figure: &str, value: f64, unit: &str, better: &str, target: Option<f64>, peer: Option<f64>) {
    let number = |n: Option<f64>| n.map_or("null".to_owned(), |n| format!("{n:.4}"));
    let ratio = peer.filter(|p| *p != 0.0).map(|p| value / p);
    println!(
        "{{\"figure\":\"gate/{figure}\",\"value\":{value:.4},\"unit\":\"{unit}\",\"better\":\"{better}\",\"target\":{},\"peer\":{},\"ratio\":{}}}",
        number(target),
        number(peer),
        number(ratio)
    );
}

/// A rollout of one stage beside a control cohort, that goes on until the days are over or the candidate is taken back.
fn rollout() -> Rollout {
    let exposure = Exposure::Share { canary: Share::percent(10), control: Share::percent(30) };
    let stage = Stage::new(exposure).samples(1, u32::MAX).hours(24, 1000 * 24).margins(Margins::Ignored);
    let plan = Plan::new(&[stage]).expect("a plan");
    let mut rollout = Rollout::new(plan, Gate::DEFAULT, Salt::new(b"gate")).expect("a gate");
    rollout.start(0).expect("a draft");
    rollout
}

/// The day on which the gate takes the candidate back. `guardrails`: that many, each with a stream of its own.
fn gate_day(streams: &[Vec<Day>]) -> Option<u32> {
    let mut rollout = rollout();
    let mut evidence = Evidence::new(0, 0);
    (0..streams[0].len()).find_map(|day| {
        for (stream, guardrail) in streams.iter().zip(Guardrail::ALL) {
            let Day { canary, control, .. } = stream[day];
            evidence.count(0, guardrail, canary, control).expect("counts");
        }
        let decision = rollout.step(&[evidence], (day as u64 + 1) * 86_400);
        (decision.verdict == Verdict::Rollback).then_some(day as u32 + 1)
    })
}

fn percent(days: &[Option<u32>]) -> f64 {
    100.0 * days.iter().flatten().count() as f64 / days.len() as f64
}

/// The day by which half of all repetitions were taken back.
fn median(days: &[Option<u32>]) -> Option<f64> {
    let mut sorted: Vec<u32> = days.iter().map(|d| d.unwrap_or(u32::MAX)).collect();
    sorted.sort_unstable();
    Some(sorted[sorted.len() / 2]).filter(|d| *d != u32::MAX).map(f64::from)
}

fn scenarios(repetitions: u32) {
    for (canary, control, rate) in SCENARIOS {
        for ratio in LEVELS {
            let fleet = Fleet::new(canary, control, rate, ratio);
            let runs = repeat(repetitions, |run| {
                let mut random = Random::new(u64::from(run) << 32 | u64::from(canary) << 8 | (rate * 1000.0) as u64);
                let stream = fleet.stream(&mut random);
                let peers = PEERS.map(|peer| peer.day(&stream));
                (gate_day(&[stream]), peers)
            });
            let ours: Vec<_> = runs.iter().map(|r| r.0).collect();
            let name = format!("{canary}:{control}/{}%/x{ratio}", rate * 100.0);
            let good = ratio <= 1.25;
            let (kind, better, target) =
                if good { ("false_rollbacks", "lower", Some(1.0)) } else { ("detected", "higher", None) };
            for (i, peer) in PEERS.iter().enumerate() {
                let theirs: Vec<_> = runs.iter().map(|r| r.1[i]).collect();
                line(
                    &format!("{kind}/{name}/{}", peer.name()),
                    percent(&ours),
                    "%",
                    better,
                    target,
                    Some(percent(&theirs)),
                );
            }
            if let Some(day) = median(&ours).filter(|_| !good) {
                line(&format!("median_day/{name}"), day, "day", "lower", None, None);
            }
        }
    }
}

/// All five guardrails together, each with a rate and a stream of its own.
fn all_guardrails(repetitions: u32) {
    for ratio in [1.0, 1.25] {
        let days = repeat(repetitions, |run| {
            let mut random = Random::new(0xA11 << 40 | u64::from(run));
            let rates = [0.01, 0.002, 0.02, 0.05, 0.1];
            let streams = rates.map(|rate| Fleet::new(1000, 3000, rate, ratio).stream(&mut random));
            gate_day(&streams)
        });
        line(&format!("false_rollbacks/five_guardrails/x{ratio}"), percent(&days), "%", "lower", Some(5.0), None);
    }
}

/// Reports that come days late, in batches, twice, in any order; and devices of which some are bad every day. Device by
/// device, through `Attendance`.
fn arrivals(repetitions: u32) {
    for (name, chronic) in [("late_and_twice", 0.0), ("bad_devices", 0.005)] {
        for counting in [Counting::EveryDay, Counting::UntilFirst] {
            for ratio in [1.0, 1.25, 5.0] {
                let fleet = Fleet { chronic, late: 0.5, ..Fleet::new(100, 500, 0.01, ratio) };
                let days = repeat(repetitions, |run| {
                    let mut random = Random::new(0xA22 << 40 | u64::from(run));
                    gate_day(&[fleet.devices(&mut random, counting)])
                });
                let counting = match counting {
                    Counting::EveryDay => "every_day",
                    Counting::UntilFirst => "until_first",
                };
                let (kind, better, target) = match ratio > 1.25 {
                    true => ("detected", "higher", None),
                    // Which way of counting is meant for devices that are bad every day.
                    false if chronic > 0.0 && counting == "every_day" => ("false_rollbacks", "lower", None),
                    false => ("false_rollbacks", "lower", Some(1.0)),
                };
                let figure = format!("{kind}/{name}/100:500/1%/x{ratio}/{counting}");
                line(&figure, percent(&days), "%", better, target, None);
            }
        }
    }
}

/// False alarms and power of the check of the arms' sizes, looked at after every device.
fn sizes(repetitions: u32) {
    let bound = 1000f64.ln();
    let first = |planned: f64, true_share: f64, devices: u32, run: u32| {
        let mut random = Random::new(0xA33 << 40 | u64::from(run));
        let mut seen = Both::new(0u64, 0u64);
        (1..=devices).find(|_| {
            if random.uniform() < true_share {
                seen.canary += 1
            } else {
                seen.control += 1
            }
            ln_mismatch(seen, planned) >= bound
        })
    };
    for (planned, name) in [(0.5, "1:1"), (1.0 / 6.0, "1:5")] {
        let alarms = repeat(repetitions, |run| first(planned, planned, 20_000, run));
        line(&format!("sizes/false_alarms/{name}/20000_looks"), percent(&alarms), "%", "lower", Some(0.1), None);
    }
    for (planned, true_share, name) in
        [(0.5, 0.45, "1:1/45%"), (0.5, 0.4, "1:1/40%"), (1.0 / 6.0, 0.75 / 5.75, "1:5/quarter_lost")]
    {
        let alarms = repeat(repetitions, |run| first(planned, true_share, 20_000, run));
        let devices = median(&alarms).unwrap_or(f64::INFINITY);
        line(&format!("sizes/median_devices/{name}"), devices, "devices", "lower", None, None);
    }
}

/// How often the confidence sequence ever leaves out the true difference, looked at after every device of the smaller arm
/// from so many on, for values with short and with long tails; and an interval for one look beside it.
fn coverage(repetitions: u32) {
    let normal = |random: &mut Random| random.normal();
    let skewed = |random: &mut Random| (0.5 * random.normal()).exp();
    let binary = |random: &mut Random| f64::from(u8::from(random.uniform() < 0.1));
    type Draw<'a> = &'a (dyn Fn(&mut Random) -> f64 + Sync);
    let draws: [(&str, Draw<'_>); 3] = [("normal", &normal), ("lognormal", &skewed), ("binary", &binary)];
    let default = Gate::DEFAULT.devices_per_arm;
    for (name, draw) in draws {
        for (control, least) in [(1u32, default), (3, default), (3, 100)] {
            let misses = repeat(repetitions, |run| {
                let mut random = Random::new(0xA44 << 40 | u64::from(run));
                let mut moments = Both::new(Moments::NONE, Moments::NONE);
                let (mut ours, mut naive) = (false, false);
                for canary in 1..=2000u32 {
                    moments.canary.add(draw(&mut random));
                    (0..control).for_each(|_| moments.control.add(draw(&mut random)));
                    if canary < least {
                        continue;
                    }
                    let of_mean = |m: &Moments| m.variance() / m.n() as f64;
                    let variance = of_mean(&moments.canary) + of_mean(&moments.control);
                    let difference = moments.canary.mean() - moments.control.mean();
                    let devices = f64::from(canary * (1 + control));
                    let sequence = interval(difference, variance, devices / 1000.0, 0.01);
                    ours |= sequence.low > 0.0 || sequence.high < 0.0;
                    naive |= difference.abs() > 2.5758 * variance.sqrt();
                }
                (ours, naive)
            });
            let part = |get: fn(&(bool, bool)) -> bool| {
                100.0 * misses.iter().filter(|m| get(m)).count() as f64 / misses.len() as f64
            };
            let figure = format!("coverage/ever_wrong/{name}/1:{control}/from_{least}");
            let target = (least == default).then_some(1.0);
            line(&figure, part(|m| m.0), "%", "lower", target, Some(part(|m| m.1)));
        }
    }
}

/// What a design is told to be able to see, and what it then sees in simulations of its own.
fn designs(repetitions: u32) {
    for (canary, control, rate) in SCENARIOS {
        let design = Design::new(canary, control, rate);
        let Some(ratio) = design.minimum_ratio(0.8) else { continue };
        let name = format!("{canary}:{control}/{}%", rate * 100.0);
        line(&format!("design/minimum_ratio/{name}"), ratio, "ratio", "lower", None, None);
        let fleet = Fleet::new(canary, control, rate, ratio);
        let days = repeat(repetitions, |run| {
            let mut random = Random::new(0xA55 << 40 | u64::from(run));
            gate_day(&[fleet.stream(&mut random)])
        });
        line(&format!("design/detected_at_minimum/{name}"), percent(&days), "%", "higher", Some(80.0), None);
    }
}

/// The whole default plan, from the laboratory to the hold-back. The peer of false rollbacks is what remembers bad devices
/// over all stages.
fn plans(repetitions: u32) {
    for devices in [30_000, 100_000] {
        for mix in &MIXES {
            for ratio in [0.5, 1.0, 1.25, 2.0, 3.0, 5.0] {
                let run = |memory: Memory| {
                    repeat(repetitions, |run| {
                        let mut random = Random::new(0xA66 << 40 | u64::from(run));
                        gate::plan::end(devices, mix, ratio, memory, &mut random)
                    })
                };
                let part = |ends: &[End], of: &dyn Fn(End) -> bool| {
                    100.0 * ends.iter().filter(|e| of(**e)).count() as f64 / ends.len() as f64
                };
                let taken_back = |e: End| matches!(e, End::TakenBack(_));
                let ends = run(Memory::Stage);
                let name = format!("{devices}/{}/x{ratio}", mix.name);
                let all = part(&ends, &taken_back);
                if ratio <= 1.25 {
                    let kept = part(&run(Memory::Rollout), &taken_back);
                    line(&format!("plan/false_rollbacks/{name}"), all, "%", "lower", Some(1.0), Some(kept));
                    let paused = part(&ends, &|e| e == End::Paused);
                    line(&format!("plan/paused/{name}"), paused, "%", "lower", Some(1.6), None);
                    continue;
                }
                line(&format!("plan/detected/{name}"), all, "%", "higher", None, None);
                for last in 1..=4 {
                    let by = part(&ends, &|e| matches!(e, End::TakenBack(stage) if stage <= last));
                    line(&format!("plan/detected_by_stage_{last}/{name}"), by, "%", "higher", None, None);
                }
            }
        }
    }
}

/// Devices that take turns between candidate and base, beside as many that are divided into two arms.
fn in_turn(repetitions: u32) {
    for devices in [100, 300, 1000] {
        for ratio in [1.0, 1.25, 2.0, 3.0, 5.0] {
            let taken_back = repeat(repetitions, |run| {
                let mut random = Random::new(0xA66 << 40 | u64::from(run) << 4 | u64::from(devices / 100));
                turns::guardrail(devices, 0.02, ratio, &mut random)
            });
            let part = |get: fn(&Both<bool>) -> bool| {
                100.0 * taken_back.iter().filter(|t| get(t)).count() as f64 / taken_back.len() as f64
            };
            let (kind, better, target) =
                if ratio <= 1.25 { ("false_rollbacks", "lower", Some(1.0)) } else { ("detected", "higher", None) };
            let figure = format!("turns/{kind}/{devices}/2%/x{ratio}");
            line(&figure, part(|t| t.canary), "%", better, target, Some(part(|t| t.control)));
        }
    }
    for devices in [100, 300] {
        for ratio in [1.0, 1.25] {
            let taken_back = repeat(repetitions, |run| {
                let mut random = Random::new(0xA88 << 40 | u64::from(run) << 4 | u64::from(devices / 100));
                turns::left_by_hand(devices, 0.02, ratio, &mut random)
            });
            let part = |get: fn(&Both<bool>) -> bool| {
                100.0 * taken_back.iter().filter(|t| get(t)).count() as f64 / taken_back.len() as f64
            };
            let print = |when: &str, value: f64| {
                let figure = format!("turns/left_by_hand/{when}/{devices}/2%/x{ratio}");
                line(&figure, value, "%", "lower", Some(1.0), None);
            };
            print("at_any_hour", part(|t| t.canary));
            print("at_the_worst_hour", part(|t| t.control));
        }
    }
    let judged = repeat(repetitions, |run| turns::margin(&mut Random::new(0xA77 << 40 | u64::from(run))));
    let part =
        |get: fn(&turns::Judged) -> bool| 100.0 * judged.iter().filter(|j| get(j)).count() as f64 / judged.len() as f64;
    line("turns/ever_wrong/801_looks", part(|j| j.wrong), "%", "lower", Some(1.0), Some(part(|j| j.naive)));
    let width = judged.iter().map(|j| j.width).sum::<f64>() / judged.len() as f64;
    line("turns/width_over_two_arms/1000", width, "ratio", "lower", Some(1.0), None);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut arguments = arguments.iter();
    let (mut repetitions, mut part) = (4000, None);
    while let Some(argument) = arguments.next() {
        if argument == "--repetitions" {
            let number = arguments.next().and_then(|n| n.parse().ok());
            repetitions = number.expect("--repetitions takes a number");
        } else {
            part = Some(argument.as_str());
        }
    }
    type Part = (&'static str, fn(u32));
    let parts: [Part; 8] = [
        ("scenarios", scenarios),
        ("guardrails", all_guardrails),
        ("arrivals", arrivals),
        ("sizes", sizes),
        ("coverage", coverage),
        ("designs", designs),
        ("turns", in_turn),
        ("plans", |repetitions| plans((repetitions / 4).max(1))),
    ];
    assert!(part.is_none_or(|p| parts.iter().any(|(name, _)| *name == p)), "there is no such part");
    parts.iter().filter(|(name, _)| part.is_none_or(|p| p == *name)).for_each(|(_, measure)| measure(repetitions));
}
