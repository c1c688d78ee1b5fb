//! Real devices, the real server: a candidate in the shadow, then by turns, and back.

use serde_json::{Value, json};

use super::world::World;
use crate::fleet::view::text;

const DEVICES: u32 = 60;

fn put(world: &World, id: &str, (from, to): (usize, usize), stages: &Value) -> String {
    let digest = |n: usize| world.versions[n].digest.clone();
    let body = json!({ "candidates": [digest(to)], "base": digest(from), "gate": {},
        "strategy": { "kind": "stages", "stages": stages } });
    let path = format!("/v1/rollouts/{id}");
    world.operator.call("PUT", &path, &body).expect("a draft");
    world.operator.call("POST", &format!("{path}/start"), &Value::Null).expect("it starts");
    path
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
    let stages = json!([
        { "canary_percent": 50, "control_percent": 40, "shadow_every": 2, "soak_hours": 24, "limit_hours": 240,
          "devices": 10, "device_days": 20 },
        { "canary_percent": 60, "control_percent": 40, "soak_hours": 24, "limit_hours": 240, "devices": 10,
          "device_days": 20 },
    ]);
    let path = put(&world, "shadow", (0, 1), &stages);
    let compared = |s: &Value| s["agreement"]["devices"].as_u64() >= Some(10);
    let status = until(&mut world, &path, "a shadow that was compared", compared);
    assert!(status["agreement"]["mean"].as_f64() > Some(0.8), "{status}");
    assert_eq!(text(&status, "phase"), "Running");
    assert_eq!(world.census().expect("devices"), [all, 0, 0], "the first version serves on all");
    let fetched = world.flock.tally().fetched;
    assert!(fetched > 0);
    until(&mut world, &path, "its end", |s| text(s, "phase") == "Completed");
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
    let stage = json!([{ "canary_percent": 60, "crossover": true, "soak_hours": 240, "limit_hours": 480,
        "devices": 10, "device_days": 100_000 }]);
    let path = put(&world, "turns", (1, 2), &stage);
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
    gather(&mut world, &[0, all, 0]);
    // Both lay on each device: to go back took documents only.
    assert_eq!(world.flock.tally().fetched - fetched, sent);
    assert_eq!(world.flock.tally().errors, Default::default());
}
