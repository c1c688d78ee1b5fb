use proptest::{prop_assert, prop_assert_eq, proptest};

use super::phase::TRANSITIONS;
use super::*;
use crate::evidence::{Both, Count, Side};
use crate::gate::{Allowed, Better, Margin};
use crate::{Name, Share};

const HOUR: u64 = 3600;

fn canary(gate: Gate) -> Rollout {
    let mut rollout = Rollout::new(Plan::of(Strategy::Canary).unwrap(), gate, Salt::new(b"r")).unwrap();
    rollout.start(0).unwrap();
    rollout
}

/// What a good stage gives.
fn good(evidence: &mut Evidence, stage: u8, days: u32) {
    for guardrail in Guardrail::ALL {
        let bad = u32::from(stage > 0) * days / 200;
        evidence.count(stage, guardrail, Count::new(bad, days), Count::new(3 * bad, 3 * days)).unwrap();
    }
    evidence.days(stage, Both::new(days, 3 * days), Both::new(days, 3 * days));
    let devices = match stage {
        0 => Both::new(5, 0),
        1 | 2 => Both::new(100, 300),
        3 => Both::new(3000, 3000),
        _ => Both::new(5700, 300),
    };
    Hop::ALL.into_iter().for_each(|hop| evidence.hop(stage, hop, devices));
}

#[test]
fn a_good_candidate_goes_through_in_the_least_time_of_each_stage() {
    let mut rollout = canary(Gate::DEFAULT);
    let mut evidence = Evidence::new(0, 0);
    let mut now = 0;
    for (stage, days, soak) in [(0u8, 5, 24u64), (1, 300, 24), (2, 600, 24), (3, 3000, 24), (4, 3000, 14 * 24)] {
        assert_eq!((rollout.stage(), rollout.phase()), (stage, Phase::Running));
        good(&mut evidence, stage, days - 1);
        let hold = rollout.step(&[evidence], now + (soak - 1) * HOUR);
        assert_eq!(
            (hold.verdict, hold.reason),
            (Verdict::Hold, Reason::Soak { hours: soak as u32 - 1, needed: soak as u32 })
        );
        now += soak * HOUR;
        let hold = rollout.step(&[evidence], now);
        assert_eq!(hold.reason, Reason::DeviceDays { found: u64::from(days) - 1, needed: days }, "{hold}");
        evidence.days(stage, Both::new(1, 1), Both::new(1, 1));
        let decision = rollout.step(&[evidence], now);
        assert_eq!((decision.verdict, decision.reason), (Verdict::Advance, Reason::Passed), "{decision}");
    }
    assert_eq!(rollout.phase(), Phase::Completed);
    assert_eq!(rollout.assign(&Subject::new(b"any")).serves, Some(0));
    // Still watched.
    let bad = Count::new(500, 3000);
    evidence.count(4, Guardrail::Crash, bad, Count::new(1, 3000)).unwrap();
    assert_eq!(rollout.step(&[evidence], now).verdict, Verdict::Rollback);
    assert_eq!(rollout.assign(&Subject::new(b"any")), Assignment::REST);
}

#[test]
fn no_data_never_passes_and_in_the_end_is_inconclusive() {
    for evidence in [None, Some(Evidence::new(0, 0)), Some(Evidence::new(7, 0))] {
        let strata: std::vec::Vec<_> = evidence.into_iter().collect();
        let mut rollout = canary(Gate::DEFAULT);
        for hour in (1..14 * 24).step_by(7) {
            assert_eq!(rollout.step(&strata, hour * HOUR).verdict, Verdict::Hold);
        }
        let end = rollout.step(&strata, 14 * 24 * HOUR);
        assert_eq!((end.verdict, end.reason), (Verdict::Pause, Reason::Inconclusive));
    }
    // Everything but one guardrail: never measured is not zero.
    let mut rollout = canary(Gate::DEFAULT);
    let mut evidence = Evidence::new(0, 0);
    good(&mut evidence, 0, 5);
    rollout.step(&[evidence], 24 * HOUR);
    evidence = Evidence::new(0, 0);
    good(&mut evidence, 1, 300);
    let mut partly = Evidence::new(0, 0);
    partly.days(1, Both::new(300, 900), Both::new(300, 900));
    Hop::ALL.into_iter().for_each(|hop| partly.hop(1, hop, Both::new(100, 300)));
    for guardrail in Guardrail::ALL.into_iter().filter(|g| *g != Guardrail::DeadlineMiss) {
        partly.count(1, guardrail, Count::new(0, 300), Count::new(0, 900)).unwrap();
    }
    let hold = rollout.judge(&[partly], 72 * HOUR);
    assert_eq!((hold.verdict, hold.reason), (Verdict::Hold, Reason::NoData(Guardrail::DeadlineMiss)));
    assert_eq!(rollout.judge(&[evidence], 72 * HOUR).verdict, Verdict::Advance);
}

#[test]
fn rollback_is_live_in_every_state() {
    let mut bad = Evidence::new(0, 0);
    bad.count(0, Guardrail::Silence, Count::new(60, 300), Count::new(5, 900)).unwrap();
    let with_approval = Plan::new(&[
        Stage::new(Exposure::Share { canary: Share::percent(1), control: Share::percent(3) }).samples(1, 1),
        Stage::new(Exposure::Share { canary: Share::percent(5), control: Share::percent(15) }).approval(),
    ])
    .unwrap();
    let rollout = |phase| {
        let mut rollout = Rollout::new(with_approval, Gate::DEFAULT, Salt::new(b"r")).unwrap();
        if phase == Phase::Draft {
            return rollout;
        }
        rollout.start(0).unwrap();
        match phase {
            Phase::Paused => rollout.pause().unwrap(),
            Phase::Awaiting => rollout.advance(HOUR).unwrap(),
            Phase::Completed => {
                rollout.advance(HOUR).unwrap();
                rollout.approve(HOUR).unwrap();
                rollout.advance(HOUR).unwrap();
            }
            _ => {}
        }
        rollout
    };
    for phase in [Phase::Running, Phase::Awaiting, Phase::Paused, Phase::Completed] {
        let mut rollout = rollout(phase);
        assert_eq!(rollout.phase(), phase);
        let decision = rollout.step(&[bad], HOUR);
        assert_eq!((decision.verdict, decision.reason), (Verdict::Rollback, Reason::Guardrail(Guardrail::Silence)));
        assert_eq!(rollout.phase(), Phase::RolledBack);
        let text = std::format!("{decision}");
        assert!(text.contains("60 of 300 against 5 of 900") && text.contains("silence"), "{text}");
    }
    for phase in Phase::ALL.into_iter().filter(|p| *p != Phase::RolledBack) {
        let mut rollout = rollout(phase);
        rollout.rollback().unwrap();
        assert_eq!(rollout.phase(), Phase::RolledBack);
        let before = rollout.epoch();
        rollout.retry(Salt::new(b"r2")).unwrap();
        assert_eq!((rollout.phase(), rollout.attempt(), rollout.epoch()), (Phase::Draft, 2, before + 1));
    }
}

#[test]
fn resume_acknowledges_and_starts_anew() {
    let mut rollout = canary(Gate::DEFAULT);
    let mut evidence = Evidence::new(0, 0);
    evidence.declare(Name::new("energy").unwrap()).unwrap();
    good(&mut evidence, 0, 5);
    evidence.count(0, Guardrail::Crash, Count::new(2, 5), Count::default()).unwrap();
    let pause = rollout.step(&[evidence], 30 * HOUR);
    assert_eq!((pause.verdict, pause.reason), (Verdict::Pause, Reason::Failure(Guardrail::Crash)));
    let late = evidence;
    let mut strata = [evidence];
    rollout.resume(&mut strata, 40 * HOUR).unwrap();
    assert_eq!((rollout.phase(), rollout.acknowledged(Guardrail::Crash)), (Phase::Running, 2));
    assert_eq!(strata[0], evidence.renewed(1));
    assert!(strata[0].moments(Name::new("energy").unwrap()).is_some());
    // What was seen does not come back.
    assert!(strata[0].merge(&late).is_err());
    assert_eq!(rollout.judge(&[late], 41 * HOUR).verdict, Verdict::Hold);
    good(&mut strata[0], 0, 5);
    assert_eq!(rollout.step(&strata, 63 * HOUR).reason, Reason::Soak { hours: 23, needed: 24 });
    assert_eq!(rollout.step(&strata, 64 * HOUR).verdict, Verdict::Advance);
    // Failures of stage 0 are in no later stage's count.
    assert_eq!(rollout.judge(&strata, 65 * HOUR).numbers.hard[0].failures, 0);
}

#[test]
fn a_peak_stands_although_the_evidence_falls() {
    let mut rollout = canary(Gate::DEFAULT);
    let mut evidence = Evidence::new(0, 0);
    evidence.count(1, Guardrail::Crash, Count::new(4, 100), Count::new(1, 300)).unwrap();
    let high = rollout.step(&[evidence], HOUR).numbers.hard[0];
    evidence.count(1, Guardrail::Crash, Count::new(0, 5000), Count::new(60, 15000)).unwrap();
    let low = rollout.step(&[evidence], 2 * HOUR).numbers.hard[0];
    assert!(low.ln_e < high.ln_e && low.peak == high.ln_e && (low.p() - libm::exp(-high.ln_e)).abs() < 1e-12);
}

fn margin() -> Margin {
    Margin::new(Name::new("energy").unwrap(), Better::Lower, Allowed::Relative(0.05))
}

fn with_energy(stage: u8, excess: f64, devices: u32) -> Evidence {
    let mut evidence = Evidence::new(0, 0);
    evidence.declare(Name::new("energy").unwrap()).unwrap();
    good(&mut evidence, stage, 5000);
    for i in 0..devices {
        let noise = f64::from(i % 10) / 10.0;
        evidence.value(Name::new("energy").unwrap(), Side::Canary, 10.0 + excess + noise).unwrap();
        evidence.value(Name::new("energy").unwrap(), Side::Control, 10.0 + noise).unwrap();
    }
    evidence
}

#[test]
fn margins_hold_pause_and_can_be_waived() {
    let mut rollout = canary(Gate::DEFAULT.with_margins(&[margin()]));
    (0..3).for_each(|_| rollout.advance(0).unwrap());
    let at = 48 * HOUR;
    assert_eq!(rollout.judge(&[with_energy(3, 0.0, 2000)], at).verdict, Verdict::Advance);
    let outside = rollout.judge(&[with_energy(3, 1.5, 2000)], at);
    assert_eq!((outside.verdict, outside.reason), (Verdict::Pause, Reason::Margin(margin().metric)));
    let few = [with_energy(3, 0.0, 50)];
    assert_eq!(rollout.judge(&few, at).reason, Reason::Undecided(margin().metric));
    let mut waived = rollout;
    waived.waive();
    assert_eq!(waived.step(&few, at).verdict, Verdict::Advance);
    // A waiver is for one stage.
    assert!(!waived.waived);
    let mut refused = with_energy(3, 0.0, 2000);
    refused.value(margin().metric, Side::Canary, f64::NAN).unwrap();
    assert_eq!(rollout.judge(&[refused], at).reason, Reason::NotANumber(1));
    // A metric by a wrong name is found in the first stage.
    let wrong = canary(Gate::DEFAULT.with_margins(&[Margin { metric: Name::new("enrgy").unwrap(), ..margin() }]));
    let pause = wrong.judge(&[with_energy(0, 0.0, 0)], HOUR);
    assert_eq!((pause.verdict, pause.reason), (Verdict::Pause, Reason::UnknownMetric(Name::new("enrgy").unwrap())));
}

#[test]
fn lost_devices_void_the_comparison() {
    let mut rollout = canary(Gate::DEFAULT);
    rollout.advance(0).unwrap();
    let mut evidence = Evidence::new(0, 0);
    good(&mut evidence, 1, 300);
    evidence.hop(1, Hop::Activated, Both::new(0, 900));
    let pause = rollout.step(&[evidence], 48 * HOUR);
    assert_eq!((pause.verdict, pause.reason), (Verdict::Pause, Reason::SampleRatio(Hop::Activated)));
    assert_eq!(rollout.phase(), Phase::Paused);
}

#[test]
fn candidates_are_judged_apart_and_one_is_chosen() {
    let plan = Plan::of(Strategy::Variants { share: Share::percent(30), candidates: 2 }).unwrap();
    let mut rollout = Rollout::new(plan, Gate::DEFAULT, Salt::new(b"ab")).unwrap();
    rollout.start(0).unwrap();
    let both = [0, 1].map(|candidate| {
        let mut evidence = Evidence::new(0, candidate);
        for guardrail in Guardrail::ALL {
            evidence.count(0, guardrail, Count::new(5, 1000), Count::new(5, 1000)).unwrap();
        }
        evidence.days(0, Both::new(1000, 1000), Both::new(1000, 1000));
        Hop::ALL.into_iter().for_each(|hop| evidence.hop(0, hop, Both::new(500, 500)));
        evidence
    });
    // One of them without evidence is not passed by the other's.
    assert_eq!(rollout.judge(&both[..1], 8 * 24 * HOUR).verdict, Verdict::Hold);
    assert_eq!(rollout.step(&both, 8 * 24 * HOUR).verdict, Verdict::Advance);
    assert_eq!(rollout.phase(), Phase::Awaiting);
    let mut bad = both;
    bad[1].count(0, Guardrail::Crash, Count::new(80, 1000), Count::new(5, 1000)).unwrap();
    let decision = rollout.judge(&bad, 9 * 24 * HOUR);
    assert_eq!((decision.verdict, decision.numbers.candidate), (Verdict::Rollback, 1));
    assert!((decision.numbers.hard[0].bound - 200f64.ln()).abs() < 1e-12);
    // Each has a peak of its own.
    let mut stepped = rollout;
    stepped.step(&bad, 9 * 24 * HOUR);
    assert_eq!(stepped.numbers(&bad, 0).hard[0].peak, stepped.numbers(&bad, 0).hard[0].ln_e.max(0.0));
    assert!(stepped.numbers(&both, 1).hard[0].peak > 5.0);
    assert_eq!(rollout.choose(2), Err(RolloutError::Candidate));
    rollout.choose(1).unwrap();
    rollout.approve(0).unwrap();
    assert_eq!(rollout.assign(&Subject::new(b"x")).serves, Some(1));
}

#[test]
fn what_devices_run() {
    let count = |exposure: Exposure, hour: u32| {
        let mut counts = [0u32; 4];
        for i in 0..20_000u32 {
            let identity = i.to_le_bytes();
            let subject = Subject { ring: Some((i % 4) as u8), hour, input: i, ..Subject::new(&identity) };
            let assigned = exposure.assign(Salt::new(b"x"), &subject);
            counts[0] += u32::from(assigned.arm == Arm::Candidate(0));
            counts[1] += u32::from(assigned.arm == Arm::Control);
            counts[2] += u32::from(assigned.serves == Some(0));
            counts[3] += u32::from(assigned.shadows == Some(0));
        }
        counts
    };
    let near = |found: u32, part: f64| (f64::from(found) - 20_000.0 * part).abs() < 4.5 * (20_000.0 * part).sqrt();
    let [a, k, serves, shadows] = count(Exposure::Share { canary: Share::percent(5), control: Share::percent(15) }, 0);
    assert!(near(a, 0.05) && near(k, 0.15) && serves == a && shadows == 0);
    let [a, k, ..] = count(Exposure::Ring { ring: 1, control: Share::percent(10) }, 0);
    assert!(near(a, 0.45) && near(k, 0.05));
    let [a, k, serves, _] = count(Exposure::Variants { share: Share::percent(30), candidates: 2 }, 0);
    assert!(near(a, 0.1) && near(k, 0.1) && serves == a);
    let [a, k, serves, _] = count(Exposure::Crossover { share: Share::percent(40) }, 5);
    assert!(near(a, 0.2) && near(k, 0.2) && serves == a);
    let shadow = Exposure::Shadow { canary: Share::percent(40), control: Share::percent(40), every: 8 };
    let [a, k, serves, shadows] = count(shadow, 0);
    assert!(near(a, 0.4) && near(k, 0.4) && serves == 0 && near(shadows, 0.05), "shadows never serve");
    // Within a device the arm changes with the hour, and half of the hours are each one's.
    let hours = (0..2000).filter(|hour| {
        let subject = Subject { hour: *hour, ..Subject::new(b"device") };
        Exposure::Crossover { share: Share::ALL }.assign(Salt::new(b"x"), &subject).serves.is_some()
    });
    assert!((850..1150).contains(&hours.count()));
    // A shadow is on the same share of the inputs of each device.
    let turns = (0..800).filter(|input| {
        let subject = Subject { input: *input, ..Subject::new(b"device") };
        let all = Exposure::Shadow { canary: Share::ALL, control: Share::NONE, every: 8 };
        all.assign(Salt::new(b"x"), &subject).shadows.is_some()
    });
    assert_eq!(turns.count(), 100);
}

#[test]
fn the_laboratory_keeps_the_candidate_uncompared() {
    let mut rollout = canary(Gate::DEFAULT);
    let lab = |i: &[u8], r: &Rollout| r.assign(&Subject { ring: Some(0), ..Subject::new(i) });
    assert_eq!(lab(b"lab-1", &rollout), Assignment::candidate(0));
    rollout.advance(0).unwrap();
    for i in 0..50u8 {
        assert_eq!(lab(&[i], &rollout), Assignment { arm: Arm::Rest, ..Assignment::candidate(0) });
    }
    let plan = Plan::of(Strategy::Ring { rings: 2 }).unwrap();
    let mut rings = Rollout::new(plan, Gate::DEFAULT, Salt::new(b"r")).unwrap();
    rings.start(0).unwrap();
    rings.advance(0).unwrap();
    let mut outside = 0;
    for i in 0..200u8 {
        let part = lab(&[i], &rings);
        assert_eq!(part.serves, Some(0), "it has the candidate, and is no device without it");
        outside += usize::from(part.arm == Arm::Rest);
        let other = rings.assign(&Subject { ring: Some(1), ..Subject::new(&[i]) });
        assert_eq!(other.arm == Arm::Control, part.arm == Arm::Rest);
    }
    assert!((5..50).contains(&outside), "{outside} of 200 at 10 %");
}

#[test]
fn every_strategy_is_a_plan_and_a_wrong_one_is_refused() {
    for strategy in [
        Strategy::Canary,
        Strategy::Ring { rings: 7 },
        Strategy::Variants { share: Share::ALL, candidates: 7 },
        Strategy::Crossover { share: Share::percent(10) },
        Strategy::Shadow { every: 100 },
        Strategy::BlueGreen { hold_back: Share::percent(5) },
        Strategy::HoldBack { share: Share::percent(2) },
        Strategy::Few { rings: 5 },
    ] {
        let plan = Plan::of(strategy).unwrap_or_else(|e| panic!("{strategy:?}: {e}"));
        let bytes = postcard::to_allocvec(&plan).unwrap();
        assert_eq!(postcard::from_bytes::<Plan>(&bytes).unwrap(), plan);
        assert!(plan.stages().all(|s| s.limit >= s.soak && s.limit >= 14 * 24));
    }
    let share = |canary, control| {
        Stage::new(Exposure::Share { canary: Share::percent(canary), control: Share::percent(control) })
    };
    for (stages, error) in [
        (&[][..], PlanError::Empty),
        (&[share(60, 50)], PlanError::Exposure { stage: 0 }),
        (&[share(0, 50)], PlanError::Exposure { stage: 0 }),
        (&[share(5, 0)], PlanError::NoControl { stage: 0 }),
        (&[share(5, 5).samples(0, 10)], PlanError::NoSamples { stage: 0 }),
        (&[share(5, 5).hours(48, 24)], PlanError::Limit { stage: 0 }),
        (&[share(25, 25), share(5, 5)], PlanError::Narrower { stage: 1 }),
        (&[share(1, 1); 9], PlanError::TooManyStages),
    ] {
        assert_eq!(Plan::new(stages), Err(error));
    }
    assert_eq!(Plan::of(Strategy::Ring { rings: 8 }), Err(PlanError::TooManyStages));
    assert!(Plan::of(Strategy::Shadow { every: 0 }).is_err());
    let gate = Gate { alpha: 2.0, ..Gate::DEFAULT };
    assert!(matches!(Rollout::new(Plan::of(Strategy::Canary).unwrap(), gate, Salt::new(b"")), Err(RolloutError::Gate)));
    // A stored one that was damaged pauses.
    let mut damaged = canary(Gate::DEFAULT);
    damaged.gate.completeness = f64::NAN;
    assert_eq!(damaged.judge(&[], 0).reason, Reason::Unsound);
    damaged.gate.alpha = f64::NAN;
    assert_eq!(damaged.judge(&[], 0).verdict, Verdict::Rollback);
}

#[test]
fn small_fleets_get_plans_they_can_pass() {
    assert_eq!(Plan::for_fleet(100).unwrap(), Plan::of(Strategy::Few { rings: 5 }).unwrap());
    assert_eq!(Plan::for_fleet(10_000).unwrap(), Plan::of(Strategy::Canary).unwrap());
    for (fleet, stages) in [(120u32, 3), (200, 3), (1000, 4), (1300, 4), (5000, 5), (u32::MAX, 5)] {
        let plan = Plan::for_fleet(fleet).unwrap();
        assert_eq!(plan.stages().count(), stages, "{fleet}");
        for stage in plan.stages().skip(1) {
            let Exposure::Share { canary, control } = stage.exposure else { panic!("{stage:?}") };
            // One device is lost to rounding.
            let devices = (u64::from(fleet) * canary.bound()) >> 32;
            assert!(devices >= 59 && u64::from(stage.device_days) <= 8 * (devices + 1), "{fleet} {stage:?}");
            assert!(control > Share::NONE && stage.device_days >= 300, "{fleet} {stage:?}");
        }
    }
    let stages: std::vec::Vec<_> = Plan::for_fleet(10_000).unwrap().stages().copied().collect();
    assert_eq!(stages[0].design(10_000, 0.01), None);
    let design = stages[1].design(10_000, 0.01).unwrap();
    assert_eq!((design.canary, design.control, design.days), (99, 299, 14));
    assert!(design.minimum_ratio(0.8).unwrap() > stages[2].design(10_000, 0.01).unwrap().minimum_ratio(0.8).unwrap());
}

proptest! {
    /// Whatever happens: steps are the table's, a refused one changes nothing, stages only rise within an attempt,
    /// nobody serves a candidate before the start or after a rollback, and without evidence nothing advances.
    #[test]
    fn only_steps_of_the_table(actions in proptest::collection::vec((0u8..12, 0u64..400), 1..60)) {
        let mut rollout = Rollout::new(Plan::of(Strategy::BlueGreen { hold_back: Share::percent(5) }).unwrap(), Gate::DEFAULT, Salt::new(b"r")).unwrap();
        let mut strata = [Evidence::new(0, 0)];
        let mut now = 0;
        for (action, hours) in actions {
            now += hours * HOUR;
            let before = rollout;
            let result = match action {
                0 => rollout.start(now),
                1 => rollout.approve(now),
                2 => rollout.advance(now),
                3 => rollout.pause(),
                4 => rollout.resume(&mut strata, now),
                5 => rollout.rollback(),
                6 => rollout.retry(Salt::new(b"s")).map(|()| strata = [Evidence::new(rollout.epoch(), 0)]),
                7 => {
                    good(&mut strata[0], before.stage(), 4000);
                    Ok(())
                }
                8 => {
                    let decision = rollout.step(&[], now);
                    prop_assert!(decision.verdict == Verdict::Hold || decision.verdict == Verdict::Pause);
                    Ok(())
                }
                9 => strata[0].count(before.stage(), Guardrail::Crash, Count::new(100, 100), Count::new(0, 400)).map_err(|_| RolloutError::Gate),
                _ => {
                    let decision = rollout.step(&strata, now);
                    let moved = match decision.verdict {
                        Verdict::Hold => rollout.phase() == before.phase() && rollout.stage() == before.stage(),
                        Verdict::Pause => rollout.phase() == Phase::Paused,
                        Verdict::Rollback => rollout.phase() == Phase::RolledBack,
                        Verdict::Advance => (rollout.phase(), rollout.stage()) != (before.phase(), before.stage()),
                    };
                    prop_assert!(moved, "{}", decision);
                    let kept = postcard::to_allocvec(&decision).unwrap();
                    prop_assert_eq!(postcard::from_bytes::<Decision>(&kept).unwrap(), decision);
                    Ok(())
                }
            };
            if result.is_err() {
                prop_assert_eq!(rollout, before);
            }
            if rollout.phase() != before.phase() {
                prop_assert!(TRANSITIONS.iter().any(|t| t.0 == before.phase() && t.2 == rollout.phase()));
            }
            prop_assert!(rollout.stage() >= before.stage() || rollout.attempt() > before.attempt());
            if matches!(rollout.phase(), Phase::Draft | Phase::RolledBack) {
                prop_assert_eq!(rollout.assign(&Subject::new(b"d")), Assignment::REST);
            }
            let bytes = postcard::to_allocvec(&rollout).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Rollout>(&bytes).unwrap(), rollout);
        }
    }
}

#[test]
fn sentences_count_stages_from_one() {
    let mut rollout =
        Rollout::new(Plan::of(Strategy::Canary).expect("a plan"), Gate::DEFAULT, Salt::new(b"one")).expect("a rollout");
    rollout.start(3600).expect("it starts");
    let decision = rollout.judge(&[], 7200);
    assert_eq!(decision.stage, 0);
    assert_eq!(decision.to_string(), "HOLD at stage 1: 1 of 24 hours");
    assert_eq!(rollout.since(), 3600);
    assert_eq!(PlanError::Limit { stage: 0 }.to_string(), "stage 1 would have to end before it may");
}
