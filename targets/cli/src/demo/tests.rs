//! Real devices, the real server: a candidate in the shadow, then by turns, and back. Then stand-ins, which have to come to
//! the same verdicts.

use std::sync::Arc;

use dunlin_fleet::unhex;
use serde_json::{Value, json};

use super::world::{INTERVAL, World};
use crate::fleet::view::text;
use crate::flock::drive::{Flock, Member as _};
use crate::flock::faults::Faults;
use crate::flock::link::Link;
use crate::flock::stand_in::{StandIn, Terms};

const DEVICES: u32 = 60;

fn put(world: &World, id: &str, (from, to): (usize, usize), stages: &Value) -> String {
    let digest = |n: usize| world.versions[n].digest.clone();
    let body = json!({ "candidates": [digest(to)], "base": digest(from), "gate": {},
        "strategy": { "kind": "stages", "stages": stages } });
    let path = format!("/v1/rollouts/{id}");
    world.operator.call("PUT", &path, &body).expect("a draft");
    world.operator.call("POST", &format!("{path}/start"), &Value::Null).expect("it starts");
    // Who has the candidate within the second in which the stage begins has it for the whole first day.
    world.clock.skip(2);
    path
}

/// The stages of a rollout that goes through the shadow, then serves on a share and then on all.
fn shadow_stages() -> Value {
    json!([
        { "canary_percent": 50, "control_percent": 40, "shadow_every": 2, "soak_hours": 24, "limit_hours": 240,
          "devices": 10, "device_days": 20 },
        { "canary_percent": 60, "control_percent": 40, "soak_hours": 24, "limit_hours": 240, "devices": 10,
          "device_days": 20 },
    ])
}

/// A crossover that nothing but a rollback ends.
fn crossover_stages() -> Value {
    json!([{ "canary_percent": 60, "crossover": true, "soak_hours": 240, "limit_hours": 480, "devices": 10,
        "device_days": 100_000 }])
}

/// The verdicts of a rollout with their stages, those in a row that are the same once, and its phase.
fn verdicts(world: &World, path: &str) -> (Vec<String>, String) {
    let list = world.operator.get(&format!("{path}/verdicts")).expect("verdicts");
    let kinds = list.as_array().expect("a list").iter();
    let mut kinds: Vec<String> = kinds.map(|v| format!("{} {}", v["stage"], text(v, "verdict"))).collect();
    kinds.dedup();
    (kinds, text(&world.operator.get(path).expect("its status"), "phase").to_owned())
}

/// Lets time pass until this holds of the rollout's status.
fn until(world: &mut World, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..12 * 20 {
        world.pass(2);
        let status = world.operator.get(path).expect("its status");
        if holds(&status) {
            return status;
        }
    }
    panic!("{what} never comes: {}", world.operator.get(path).expect("its status"));
}

/// Lets time pass until so many devices run each version, by what they say.
fn gather(world: &mut World, census: &[u64]) {
    for _ in 0..12 * 5 {
        world.pass(2);
        if world.census().expect("devices") == census {
            return;
        }
    }
    panic!("{:?} and not {census:?}", world.census());
}

#[test]
fn real_devices_run_a_candidate_in_the_shadow_and_by_turns() {
    let mut world = World::start(DEVICES, 3).expect("a fleet");
    (0..12).for_each(|_| world.pass(2));
    world.publish(1).expect("the second version");
    let all = u64::from(DEVICES);

    // In the shadow first: nobody is served by it, and it is compared on each second input.
    let path = put(&world, "shadow", (0, 1), &shadow_stages());
    let compared = |s: &Value| s["agreement"]["devices"].as_u64() >= Some(10);
    let status = until(&mut world, &path, "a shadow that was compared", compared);
    assert!(status["agreement"]["mean"].as_f64() > Some(0.8), "{status}");
    assert_eq!(text(&status, "phase"), "Running");
    assert_eq!(world.census().expect("devices"), [all, 0, 0], "the first version serves on all");
    let fetched = world.flock.tally().fetched;
    assert!(fetched > 0);
    until(&mut world, &path, "its end", |s| text(s, "phase") == "Completed");
    let by_shadow = verdicts(&world, &path);
    gather(&mut world, &[0, all, 0]);
    // Who had it in the shadow did not fetch it again.
    let devices = u64::from(DEVICES)
        - status["arms"]["ways"].as_array().map_or(0, |ways| {
            ways.iter().filter(|w| w["arm"] == "candidate0").filter_map(|w| w["downloaded"].as_u64()).sum()
        });
    let once = world.flock.tally().fetched - fetched;
    assert!(
        once * (all - devices) <= fetched * devices * 11 / 10,
        "{fetched} bytes, then {once} for {devices} devices"
    );

    // By turns with the one before it, on devices that have both; then everybody is told to go back.
    world.publish(2).expect("the third version");
    let fetched = world.flock.tally().fetched;
    let path = put(&world, "turns", (1, 2), &crossover_stages());
    let turns = |s: &Value| {
        let ways = s["arms"]["ways"].as_array().cloned().unwrap_or_default();
        ways.iter().filter_map(|w| w["takes_turns"].as_u64()).sum::<u64>()
    };
    let status = until(&mut world, &path, "turns", |s| turns(s) >= 20 || text(s, "phase") == "RolledBack");
    let had = turns(&status);
    // The third version is worse; by turns it is found on half of the hours.
    let status = until(&mut world, &path, "the rollback", |s| text(s, "phase") == "RolledBack");
    let sent = world.flock.tally().fetched - fetched;
    assert!(sent > 0 && had > 0, "{status}");
    let by_turns = verdicts(&world, &path);
    gather(&mut world, &[0, all, 0]);
    // Both lay on each device: to go back took documents only.
    assert_eq!(world.flock.tally().fetched - fetched, sent);
    assert_eq!(world.flock.tally().errors, Default::default());
    drop(world);
    assert_eq!(stand_ins_in_the_shadow(), by_shadow, "stand-ins and real devices in the shadow");
    assert_eq!(stand_ins_by_turns(), by_turns, "stand-ins and real devices by turns");
}

/// A fleet of stand-ins that run one of a world's versions.
fn stand_ins(world: &World, running: usize, faults: Faults) -> Flock<StandIn> {
    let made = world.operator.call("PUT", "/v1/tokens/stand-ins", &json!({ "role": "enrol" })).expect("a token");
    let terms = Arc::new(Terms {
        link: Link::new(&world.url, text(&made, "secret"), 4),
        faults,
        model: "digits".into(),
        target: "any".into(),
        running: unhex(&world.versions[running].digest).and_then(|d| d.try_into().ok()),
        seed: 5,
        interval: INTERVAL * 3600,
        window: INTERVAL * 3600,
        rate: 40.0 / 24.0,
        spread: INTERVAL * 3600,
    });
    Flock::new(DEVICES, 4, |n| StandIn::new(&terms, n))
}

/// Lets two hours pass for stand-ins and the server.
fn pass(world: &mut World, flock: &mut Flock<StandIn>) {
    let until = ((world.days() * 86_400.0).round() as u64 + 2 * 3600) * 1_000_000;
    flock.run(&world.pace, until);
    world.pass(2);
}

/// As `until`, with stand-ins.
fn until_with(
    world: &mut World,
    flock: &mut Flock<StandIn>,
    path: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    for _ in 0..12 * 20 {
        pass(world, flock);
        let status = world.operator.get(path).expect("its status");
        if holds(&status) {
            return status;
        }
    }
    panic!("{what} never comes: {}", world.operator.get(path).expect("its status"));
}

/// Lets time pass until all stand-ins run a version, by what they say.
fn gather_all(world: &mut World, flock: &mut Flock<StandIn>, version: usize) {
    let digest = unhex(&world.versions[version].digest);
    for _ in 0..12 * 5 {
        pass(world, flock);
        if flock.members().all(|m| m.running().map(Vec::from) == digest) {
            return;
        }
    }
    panic!("{:?}", world.census());
}

fn stand_ins_in_the_shadow() -> (Vec<String>, String) {
    let mut world = World::start(0, 4).expect("a fleet");
    world.publish(1).expect("the second version");
    let faults = Faults { disagreements: 0.02, worse: 1.0, ..Faults::default() };
    let mut flock = stand_ins(&world, 0, faults);
    (0..12).for_each(|_| pass(&mut world, &mut flock));
    let path = put(&world, "shadow", (0, 1), &shadow_stages());
    let compared = |s: &Value| s["agreement"]["devices"].as_u64() >= Some(10);
    let status = until_with(&mut world, &mut flock, &path, "a shadow that was compared", compared);
    let agreement = status["agreement"]["mean"].as_f64().expect("a mean");
    assert!((0.9..1.0).contains(&agreement), "two of a hundred answers differ: {status}");
    assert_eq!(world.census().expect("devices"), [u64::from(DEVICES), 0, 0], "the first version serves on all");
    until_with(&mut world, &mut flock, &path, "its end", |s| text(s, "phase") == "Completed");
    gather_all(&mut world, &mut flock, 1);
    let tally = flock.tally();
    assert!(tally.shadow_runs > 0 && tally.refused == 0, "{}", tally.json());
    assert_eq!(tally.errors, Default::default());
    assert_eq!(tally.updates, u64::from(DEVICES), "who had it in the shadow did not fetch it again");
    verdicts(&world, &path)
}

fn stand_ins_by_turns() -> (Vec<String>, String) {
    let mut world = World::start(0, 6).expect("a fleet");
    world.publish(1).expect("the second version");
    world.publish(2).expect("the third version");
    // Two of a hundred devices fail on a day with the second version, and each does with the third.
    let faults = Faults { inference_errors: 0.02, worse: 50.0, ..Faults::default() };
    let mut flock = stand_ins(&world, 1, faults);
    (0..12).for_each(|_| pass(&mut world, &mut flock));
    let path = put(&world, "turns", (1, 2), &crossover_stages());
    until_with(&mut world, &mut flock, &path, "the rollback", |s| text(s, "phase") == "RolledBack");
    let status = world.operator.get(&path).expect("its status");
    let mut errors = status["arms"]["guardrails"].as_array().expect("a list").iter();
    let errors = errors.rfind(|g| g["guardrail"] == "inference_error").expect("counted");
    assert_eq!(errors["of"]["canary"], errors["of"]["control"], "by halves of a day: {errors}");
    let fetched = flock.tally().fetched;
    gather_all(&mut world, &mut flock, 1);
    let tally = flock.tally();
    assert_eq!(tally.fetched, fetched, "both lay on each device: to go back took documents only");
    assert_eq!((tally.refused, tally.errors.len()), (0, 0), "{}", tally.json());
    verdicts(&world, &path)
}
