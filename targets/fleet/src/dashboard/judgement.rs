//! What a rollout decided, and on which numbers, in words and lines of tables.

use std::collections::HashMap;
use std::sync::Mutex;

use dunlin_rollout::Rollout;
use dunlin_rollout::evidence::{Guardrail, Hop};
use dunlin_rollout::gate::{Allowed, Better, Design, Gate, Hard, Margin, Numbers, Place, Sample, Soft};
use dunlin_rollout::rollout::{Decision, Margins, Phase, Reason, Stage};

use super::figure;
use super::view::{
    Arms, Badge, Detectable, GuardrailLine, HopLine, MarginLine, Need, Rate, StageStep, StepState, Tone,
};
use crate::outlook;
use crate::status::{self, NeedKind};

pub(super) fn phase(phase: Phase) -> Badge {
    let tone = match phase {
        Phase::Draft => Tone::Quiet,
        Phase::Running => Tone::Busy,
        Phase::Awaiting | Phase::Paused => Tone::Watch,
        Phase::Completed => Tone::Good,
        Phase::RolledBack => Tone::Bad,
    };
    Badge::new(tone, status::phase_words(phase))
}

pub(super) const fn guardrail(guardrail: Guardrail) -> (&'static str, &'static str) {
    match guardrail {
        Guardrail::Crash => ("crash", "a crash, or a reset by the watchdog"),
        Guardrail::FailedStart => ("failed start", "it did not start, or the device went back on its own"),
        Guardrail::InferenceError => ("inference error", "an inference failed"),
        Guardrail::DeadlineMiss => ("deadline miss", "99th percentile of latency over its budget"),
        Guardrail::Silence => ("silence", "no report within three poll intervals"),
    }
}

/// Returns what a stage asks for, as bars.
fn needs(stage: &Stage, decision: Option<&Decision>) -> Vec<Need> {
    let line = |need: crate::status::Need| Need {
        what: match need.what {
            NeedKind::Hours => "Hours",
            NeedKind::Devices => "Devices that reported",
            NeedKind::DeviceDays => "Device-days",
        },
        found: need.found,
        needed: need.needed,
    };
    outlook::needs_of(stage, decision).into_iter().map(line).collect()
}

/// The stages of a rollout; `decision` is its last one.
pub(super) fn stages(rollout: &Rollout, decision: Option<&Decision>) -> Vec<StageStep> {
    let tone = phase(rollout.phase()).tone;
    let decision = decision.filter(|d| d.stage == rollout.stage() && d.epoch == rollout.epoch());
    let step = |(i, stage): (usize, &Stage)| {
        let state = match (rollout.phase(), i.cmp(&rollout.stage().into())) {
            (Phase::Draft, _) | (_, std::cmp::Ordering::Greater) => StepState::ToCome,
            (Phase::Completed, _) | (_, std::cmp::Ordering::Less) => StepState::Passed,
            (_, std::cmp::Ordering::Equal) => StepState::Current(tone),
        };
        let (name, mut whom) = outlook::exposure(&stage.exposure);
        if stage.zero_failures {
            whom.push_str(", a single failure pauses it");
        }
        let without = rollout.gate().margins.iter().flatten().next().is_none();
        match stage.margins {
            Margins::Ignored => {}
            _ if without => whom.push_str(", no margins asked for"),
            Margins::NotOutside => whom.push_str(", no margin crossed"),
            Margins::Inside => whom.push_str(", all margins kept"),
        }
        let under_way = matches!(state, StepState::Current(_)) && rollout.phase() != Phase::RolledBack;
        let needs = if under_way { needs(stage, decision) } else { Vec::new() };
        StageStep { name, exposure: whom, state, needs, approval: stage.approval }
    };
    rollout.plan().stages().enumerate().map(step).collect()
}

/// The numbers that a decision rests on.
pub(super) fn numbers(decision: &Decision) -> Vec<(String, String)> {
    let n = &decision.numbers;
    let pair = |name: &str, text: String| (name.to_owned(), text);
    let both =
        |canary: u64, control: u64| format!("{} canary, {} control", figure::count(canary), figure::count(control));
    let evidence = |hard: &Hard| outlook::evidence_text(hard.ln_e, hard.bound);
    let mut list = Vec::new();
    match decision.reason {
        Reason::Guardrail(which) | Reason::Failure(which) | Reason::NoData(which) => {
            for hard in n.hard.iter().filter(|h| h.guardrail == which) {
                list.push(pair("canary", Rate::new(hard.bad.canary, hard.of.canary).counts()));
                list.push(pair("control", Rate::new(hard.bad.control, hard.of.control).counts()));
                list.push(pair("evidence", evidence(hard)));
            }
        }
        Reason::SampleRatio(hop) => {
            for sample in n.sample.iter().filter(|s| s.hop == hop) {
                list.push(pair("devices", both(sample.devices.canary, sample.devices.control)));
                if let Some(expected) = sample.expected {
                    list.push(pair("canary's planned share", figure::percent(expected)));
                }
                list.push(pair("evidence", outlook::evidence_text(sample.ln_e, sample.bound)));
            }
        }
        Reason::Margin(metric) | Reason::Undecided(metric) => {
            for soft in n.soft.iter().flatten().filter(|s| s.margin.metric == metric) {
                list.push(pair("canary", figure::number(soft.mean.canary)));
                list.push(pair("control", figure::number(soft.mean.control)));
                if let Some(excess) = soft.excess {
                    let text = format!("{} to {}", figure::number(excess.low), figure::number(excess.high));
                    list.push(pair("beyond the margin by", text));
                }
            }
        }
        _ => {}
    }
    list.push(pair("device-days", both(n.reported.canary, n.reported.control)));
    let largest = n.hard.iter().max_by(|a, b| a.ln_e.total_cmp(&b.ln_e));
    if let Some(hard) = largest.filter(|_| !matches!(decision.reason, Reason::Guardrail(_))) {
        list.push(pair("largest evidence", format!("{}, {}", evidence(hard), guardrail(hard.guardrail).0)));
    }
    list.push(pair("hours", decision.hours.to_string()));
    list
}

/// What a person does after a decision.
pub(super) fn next(decision: &Decision, phase: Phase) -> String {
    let text = match (phase, decision.reason) {
        (Phase::RolledBack, Reason::Guardrail(_)) => {
            "capture: ask devices that failed for their inputs. Then label, retrain, shadow, and a new canary."
        }
        (Phase::RolledBack, _) => "find out why before another attempt.",
        (Phase::Completed, _) => "nothing. Every device gets it, and no control cohort is left to compare it with.",
        (Phase::Draft, _) => "start it.",
        (_, Reason::SampleRatio(_)) => {
            "find the devices that were lost on the way, then resume. Until then the comparison is void."
        }
        (_, Reason::Failure(_)) => {
            "look at the device that failed. Resume if the candidate was not the cause; else roll back."
        }
        (_, Reason::Margin(_)) => "decide whether this is acceptable: resume, or roll back and retrain.",
        (_, Reason::UnknownMetric(_)) => "create another rollout with a metric that devices report.",
        (_, Reason::Inconclusive) => "decide with the evidence at hand: resume, or roll back.",
        (_, Reason::Unsound) => "roll back and create another rollout.",
        (_, Reason::NotANumber(_)) => {
            "look for devices that report values that are not numbers. Pause and resume to start over."
        }
        (_, Reason::Approval) | (Phase::Awaiting, _) => "an approver approves it, or rolls it back.",
        (Phase::Paused, _) => "resume or roll back. Guardrails are still watched.",
        (_, Reason::NoData(_)) => "find out why nothing is reported if this lasts. No data is never a pass.",
        (
            Phase::Running,
            Reason::Soak { .. } | Reason::Devices { .. } | Reason::DeviceDays { .. } | Reason::Undecided(_),
        ) => "nothing. It continues by itself once the evidence is complete.",
        (Phase::Running, _) => "nothing. It continues by itself.",
    };
    text.to_owned()
}

/// The guardrails; `canary` and `control` are the devices of the arms.
pub(super) fn guardrails(numbers: &Numbers, gate: &Gate, seen: &Sensitivity) -> Vec<GuardrailLine> {
    let devices = numbers.sample.get(Hop::Assigned as usize).map(|s| s.devices).unwrap_or_default();
    let line = |hard: &Hard| {
        let (name, meaning) = guardrail(hard.guardrail);
        let control = Rate::new(hard.bad.control, hard.of.control);
        // The error that is allowed, or a candidate's part of it.
        let alpha = (-hard.bound).exp();
        GuardrailLine {
            name,
            meaning,
            canary: Rate::new(hard.bad.canary, hard.of.canary),
            control,
            ln_e: hard.ln_e,
            peak: hard.peak,
            bound: hard.bound,
            required: gate.required & (1 << hard.guardrail as u8) != 0,
            detectable: seen.detectable(devices.canary, devices.control, control, alpha),
        }
    };
    numbers.hard.iter().map(line).collect()
}

/// A margin as a rule in words.
pub(super) fn rule(margin: &Margin) -> String {
    let (amount, unit) = match margin.allowed {
        Allowed::Relative(part) => (figure::number(part * 100.0), " %"),
        Allowed::Absolute(amount) => (figure::number(amount), ""),
    };
    format!("at most {amount}{unit} {}", if margin.better == Better::Lower { "more" } else { "less" })
}

pub(super) fn margins(numbers: &Numbers) -> Vec<MarginLine> {
    let line = |soft: &Soft| {
        let allowed = match soft.margin.allowed {
            Allowed::Relative(part) => part * soft.mean.control.abs(),
            Allowed::Absolute(amount) => amount,
        };
        MarginLine {
            metric: soft.margin.metric.as_str().to_owned(),
            rule: rule(&soft.margin),
            canary: (soft.n.canary > 0).then_some(soft.mean.canary),
            control: (soft.n.control > 0).then_some(soft.mean.control),
            devices: (soft.n.canary, soft.n.control),
            // The gate has it beyond what is allowed; people ask how much worse it is.
            worse: soft.excess.map(|e| (e.low + allowed, e.high + allowed)),
            margin: allowed,
            place: match soft.place {
                Place::Unknown => Badge::new(Tone::Bad, "not collected"),
                Place::TooFew => Badge::new(Tone::Quiet, "too few devices"),
                Place::Incomplete => Badge::new(Tone::Quiet, "too few reports"),
                Place::Inside => Badge::new(Tone::Good, "inside"),
                Place::Outside => Badge::new(Tone::Bad, "outside"),
                Place::Undecided => Badge::new(Tone::Busy, "undecided"),
            },
        }
    };
    numbers.soft.iter().flatten().map(line).collect()
}

pub(super) fn hops(numbers: &Numbers) -> Vec<HopLine> {
    let line = |sample: &Sample| HopLine {
        name: sample.hop.name(),
        canary: sample.devices.canary,
        control: sample.devices.control,
        expected: sample.expected,
        ln_e: sample.ln_e,
        bound: sample.bound,
    };
    numbers.sample.iter().map(line).collect()
}

pub(super) fn reported(numbers: &Numbers) -> Arms {
    Arms {
        canary: Rate::new(numbers.reported.canary, numbers.expected.canary),
        control: Rate::new(numbers.reported.control, numbers.expected.control),
    }
}

/// The least ratios that comparisons see: simulated once for each size, for simulations take a while and pages are asked
/// for often.
#[derive(Debug, Default)]
pub(crate) struct Sensitivity(Mutex<HashMap<(u32, u32, u32, u32), Detectable>>);

/// Sizes that are kept.
const MOST: usize = 512;

impl Sensitivity {
    fn detectable(&self, canary: u64, control: u64, bad: Rate, alpha: f64) -> Detectable {
        // A rate that nothing has been seen of has no ratio to it.
        let Some(rate) = bad.part().filter(|rate| *rate > 0.0) else { return Detectable::Unknown };
        if canary == 0 || control == 0 {
            return Detectable::Unknown;
        }
        // To a quarter of a power of two, so that a device more asks for nothing new.
        let rough = |n: f64| (n.log2() * 4.0).round() / 4.0;
        let devices = |n: u64| rough(n as f64).exp2().round().min(f64::from(u32::MAX)) as u32;
        let rate = rough(rate).exp2();
        let key = (devices(canary), devices(control), (rate * 1e9) as u32, (alpha * 1e9) as u32);
        if let Some(found) = self.0.lock().ok().and_then(|known| known.get(&key).copied()) {
            return found;
        }
        // It takes a while, in which others may look up theirs.
        let design = Design { alpha, ..Design::new(key.0, key.1, rate) };
        let found = design.minimum_ratio(0.8).map_or(Detectable::Nothing, Detectable::From);
        if let Ok(mut known) = self.0.lock() {
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(key, found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use dunlin_rollout::rollout::{Plan, Strategy};
    use dunlin_rollout::{Evidence, Salt};

    use super::*;

    fn running() -> Rollout {
        let plan = Plan::of(Strategy::Canary).expect("a plan");
        let gate = Gate::DEFAULT.with_margins(&Margin::DEFAULTS);
        let mut rollout = Rollout::new(plan, gate, Salt::new(b"test")).expect("a rollout");
        rollout.start(0).expect("it starts");
        rollout
    }

    #[test]
    fn stages_are_named_and_placed() {
        let rollout = running();
        let evidence = Evidence::new(rollout.epoch(), 0);
        let decision = rollout.judge(&[evidence], 7200);
        let stages = stages(&rollout, Some(&decision));
        let names: Vec<&str> = stages.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["Laboratory", "1 %", "5 %", "25 %", "All but 5 %"]);
        assert_eq!(stages[0].state, StepState::Current(Tone::Busy));
        assert_eq!(stages[1].state, StepState::ToCome);
        assert_eq!(stages[0].needs[0].text(), "2 of 24");
    }

    #[test]
    fn what_has_no_data_does_not_look_good() {
        let rollout = running();
        let decision = rollout.judge(&[Evidence::new(rollout.epoch(), 0)], 7200);
        let lines = guardrails(&decision.numbers, rollout.gate(), &Sensitivity::default());
        assert_eq!(lines.len(), 5);
        for line in &lines {
            assert_eq!(line.state().tone, Tone::Quiet, "{}", line.name);
            assert_eq!(line.detectable, Detectable::Unknown);
        }
        assert!(margins(&decision.numbers).iter().all(|m| m.place.tone != Tone::Good));
    }

    #[test]
    fn a_larger_comparison_sees_less() {
        let seen = Sensitivity::default();
        let rate = Rate::new(10, 1000);
        let (small, large) = (seen.detectable(60, 300, rate, 0.01), seen.detectable(1000, 3000, rate, 0.01));
        match (small, large) {
            (Detectable::From(small), Detectable::From(large)) => assert!(small > large && large > 1.25),
            other => panic!("{other:?}"),
        }
        assert_eq!(seen.detectable(1000, 3000, Rate::new(0, 1000), 0.01), Detectable::Unknown);
    }
}
