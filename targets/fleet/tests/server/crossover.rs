//! A candidate that takes turns with the base by the hour, and one that lies ready in the shadow; until it serves, or goes.

use dunlin_fleet::Clock as _;
use dunlin_telemetry::Recorder;
use dunlin_telemetry::window::Counter;
use serde_json::{Value, json};

use super::dashboard;
use super::device::{Behaviour, Device};
use super::rollouts::{Flock, status};
use super::site::{Published, Site, Tenant, on_each_engine, publish};

/// Two packages that are published.
async fn packages(site: &Site, tenant: &Tenant) -> (Published, Published) {
    let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
    publish(&site.client, tenant, &one).await.ok();
    publish(&site.client, tenant, &two).await.ok();
    (one, two)
}

async fn act(site: &Site, tenant: &Tenant, action: &str, body: Value) -> Value {
    site.client.call("POST", &format!("/v1/rollouts/r/{action}"), &tenant.approver, body).await.ok()
}

async fn start(site: &Site, tenant: &Tenant, draft: Value) {
    site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
    site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
}

/// What an inference costs on a device: ten times as much on some as on others, and `part` of it more with the candidate.
fn energy(id: [u8; 16], candidate: [u8; 32], part: f64) -> impl Fn(&mut Recorder<10, 0>, [u8; 32]) {
    let base = 10_000.0 * f64::from(1 + id[0] % 10) + f64::from(id[1]);
    move |recorder, digest| {
        let more = if digest == candidate { base * part } else { f64::from(id[2] % 16) };
        recorder.count(Counter::Energy, (base + more) as u32);
    }
}

/// A day with a poll each six hours that brings what was measured since; then the server decides.
async fn day(flock: &mut Flock, site: &Site, candidate: &Published, part: f64) {
    for _ in 0..4 {
        for device in &mut flock.devices {
            device.measure_hours(6, energy(device.id, candidate.digest, part));
        }
        flock.poll(site).await;
        site.clock.skip(6 * 3600 + 20);
    }
    site.server.tick().await;
}

fn turning(flock: &Flock) -> usize {
    flock.devices.iter().filter(|d| d.turns.is_some()).count()
}

/// The only entry of this name.
fn find<'a>(status: &'a Value, list: &str, key: &str, name: &str) -> &'a Value {
    let all = status["arms"][list].as_array().expect("a list");
    all.iter().find(|v| v[key] == name).unwrap_or_else(|| panic!("no {name}: {status}"))
}

/// Two stages: in turn on six devices of ten, then in the base's place on the same.
fn stages(one: &Published, two: &Published, days: u32) -> Value {
    let stages = json!([
        { "crossover": true, "canary_percent": 60, "devices": 10, "device_days": days, "margins": "inside" },
        { "canary_percent": 60, "control_percent": 30, "devices": 10, "device_days": 60 }]);
    let gate = json!({ "margins": [{ "metric": "energy", "relative": 0.05 }], "devices": 80, "devices_per_arm": 15 });
    json!({ "candidates": [two.id()], "base": one.id(), "gate": gate,
        "strategy": { "kind": "stages", "stages": stages } })
}

#[test]
fn a_crossover_passes_by_each_devices_difference_and_then_serves() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = packages(&site, &tenant).await;
        start(&site, &tenant, stages(&one, &two, 90)).await;
        let mut flock = Flock::enrol(&site, &tenant, 60, &one).await;
        let mut days = 0;
        let mut last = Value::Null;
        while status(&site, &tenant, "r").await["stage"] == 0 && days < 10 {
            day(&mut flock, &site, &two, 0.01).await;
            last = status(&site, &tenant, "r").await;
            days += 1;
            if days == 3 {
                let turns = turning(&flock);
                assert!((20..50).contains(&turns), "{turns} of 60 at 60 %");
                let both = find(&last, "ways", "arm", "both");
                assert_eq!((&both["takes_turns"], &both["reported"]), (&json!(turns), &json!(turns)), "{last}");
                for device in flock.devices.iter().filter(|d| d.turns.is_some()) {
                    assert_eq!((device.running, device.previous), (Some(two.digest), Some(one.digest)));
                    assert_eq!(device.offered.len(), 1, "what takes turns already is not offered again");
                }
                let error = find(&last, "guardrails", "guardrail", "inference_error");
                assert_eq!(error["of"]["canary"], error["of"]["control"], "as many halves of both: {error}");
                assert_eq!(error["of"]["canary"], json!(2 * turns), "two whole days: {error}");
                let silence = find(&last, "guardrails", "guardrail", "silence");
                assert_eq!(silence["bad"], json!({ "canary": 0, "control": 0 }), "{silence}");
                let energy = find(&last, "metrics", "metric", "energy");
                assert_eq!((&energy["in_both"], &energy["devices"]["canary"]), (&json!(turns), &json!(turns)));
                assert_eq!(energy["place"], "Inside", "devices differ by a factor of ten, and each knows: {energy}");
                let (with, without) = (energy["mean"]["canary"].as_f64(), energy["mean"]["control"].as_f64());
                let ratio = with.expect("a mean") / without.expect("a mean");
                assert!((ratio - 1.01).abs() < 0.002, "{ratio}");

                let cookie = dashboard::sign_in(&site, &tenant.operator).await;
                let page = dashboard::text(&dashboard::get(&site, "/rollouts/r", &cookie).await);
                for words in
                    ["60 % by the hour", "Who serves, by the hour", "Candidate&#39;s hours", "Base&#39;s hours"]
                {
                    assert!(page.contains(words), "{words}: {page}");
                }
                let id = dunlin_fleet::hex(&flock.devices.iter().find(|d| d.turns.is_some()).expect("one").id);
                let page = dashboard::text(&dashboard::get(&site, &format!("/devices/{id}"), &cookie).await);
                assert!(page.contains("takes turns by the hour, now the"), "{page}");
                if database.engine == "sqlite" {
                    dashboard::look(&site, &tenant, &id, "crossover").await;
                }
            }
        }
        assert_eq!((&last["phase"], &last["stage"]), (&json!("Running"), &json!(1)), "{last}");
        let had = turning(&flock);
        for _ in 0..2 {
            day(&mut flock, &site, &two, 0.01).await;
        }
        assert_eq!((turning(&flock), flock.running(&two)), (0, had), "they serve with it alone, and nobody else does");
        assert_eq!(flock.offered(&two).len(), had);
        let now = status(&site, &tenant, "r").await;
        assert_eq!(find(&now, "ways", "arm", "candidate0")["runs_candidate"], json!(had), "{now}");
        assert_eq!(find(&now, "ways", "arm", "candidate0")["takes_turns"], json!(0), "{now}");
        site.server.stop().await;
    });
}

#[test]
fn what_fails_in_its_own_hours_is_taken_back_without_a_download() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = packages(&site, &tenant).await;
        start(&site, &tenant, stages(&one, &two, 5000)).await;
        let mut flock = Flock::enrol(&site, &tenant, 60, &one).await;
        flock.devices.iter_mut().for_each(|d| d.behaviour = Behaviour::Fails);
        // Two take it back on their own.
        flock.devices[..12].iter_mut().for_each(|d| d.behaviour = Behaviour::Reverts);
        let (mut days, mut turns) = (0, 0);
        while status(&site, &tenant, "r").await["phase"] == "Running" && days < 8 {
            turns = turning(&flock) as u64;
            day(&mut flock, &site, &two, 0.0).await;
            days += 1;
        }
        let stopped = status(&site, &tenant, "r").await;
        assert_eq!((&stopped["phase"], &stopped["stage"]), (&json!("RolledBack"), &json!(0)), "{stopped}");
        let error = find(&stopped, "guardrails", "guardrail", "inference_error");
        assert_eq!(error["bad"]["control"], json!(0), "the base's hours were good: {error}");
        assert_eq!(error["bad"]["canary"], json!(turns), "also who was bad on the day that it joined: {error}");
        let reverted = flock.devices[..12].iter().filter(|d| !d.offered.is_empty()).count();
        assert!(reverted > 0);
        let start = find(&stopped, "guardrails", "guardrail", "failed_start");
        assert_eq!(start["bad"], json!({ "canary": reverted, "control": 0 }), "{start}");
        assert_eq!(stopped["reverted"], json!(reverted), "{stopped}");
        let offered = flock.offered(&two).len();
        flock.poll(&site).await;
        assert_eq!((turning(&flock), flock.running(&one)), (0, 60), "all are back at once");
        for device in &mut flock.devices {
            let answer = device.poll(&site.client).await;
            assert_eq!(answer.offer, None, "and are told no more");
        }
        assert_eq!(flock.offered(&two).len(), offered);
        let ended = status(&site, &tenant, "r").await;
        assert_eq!(ended["succeeded"], json!(0), "{ended}");
        site.server.stop().await;
    });
}

/// Half a day passes with two polls that bring what was measured in it; the server does not decide.
async fn half_a_day(flock: &mut Flock, site: &Site, candidate: &Published) {
    for _ in 0..2 {
        site.clock.skip(6 * 3600 + 20);
        for device in &mut flock.devices {
            device.measure_hours(6, energy(device.id, candidate.digest, 0.01));
        }
        flock.poll(site).await;
    }
}

/// Whether a device had hours of both packages in the last half day.
fn had_both(device: &Device, site: &Site) -> bool {
    let now = u32::try_from(site.clock.seconds() / 3600).expect("hours");
    let arms: Vec<_> = (now - 12..now).map(|hour| device.serves(hour).0).collect();
    device.turns.is_some() && arms.iter().any(|arm| *arm != arms[0])
}

#[test]
fn a_crossover_stage_left_during_a_day_counts_the_pairs_of_that_day() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = packages(&site, &tenant).await;
        start(&site, &tenant, stages(&one, &two, 5000)).await;
        let mut flock = Flock::enrol(&site, &tenant, 60, &one).await;
        // The first day is nobody's whole day in turns; the second is everybody's.
        for _ in 0..2 {
            day(&mut flock, &site, &two, 0.01).await;
        }
        let whole = status(&site, &tenant, "r").await;
        let turns = turning(&flock) as u64;
        let pairs = |status: &Value| {
            let error = find(status, "guardrails", "guardrail", "inference_error");
            let of = |arm: &str| error["of"][arm].as_u64().expect("a number");
            assert_eq!(of("canary"), of("control"), "as many halves of both: {error}");
            (of("canary"), error["bad"].clone())
        };
        assert_eq!(pairs(&whole).0, turns, "one whole day: {whole}");
        // One of the devices that take turns is off for this part of the day, and on one the candidate fails.
        let away: Vec<usize> = (0..60).filter(|i| flock.devices[*i].turns.is_some()).take(2).collect();
        let off = flock.devices.remove(away[1]);
        flock.devices[away[0]].behaviour = Behaviour::Fails;
        half_a_day(&mut flock, &site, &two).await;
        let before = status(&site, &tenant, "r").await;
        assert_eq!(pairs(&before).0, turns, "the day has not ended: {before}");
        act(&site, &tenant, "advance", json!({ "stage": 0 })).await;
        let after = status(&site, &tenant, "r").await;
        assert_eq!(after["stage"], 1, "{after}");
        let (of, bad) = pairs(&after);
        // All but one, but for a device whose hours all were drawn alike, which is rare.
        let both = flock.devices.iter().filter(|device| had_both(device, &site)).count() as u64;
        assert!(both + 4 > turns, "{both} of {turns}");
        assert_eq!(of, turns + both, "and half a day: {after}");
        let fails = u64::from(had_both(&flock.devices[away[0]], &site));
        assert_eq!(bad, json!({ "canary": fails, "control": 0 }), "{after}");
        let silence = find(&after, "guardrails", "guardrail", "silence");
        assert_eq!(silence["of"]["canary"].as_u64(), Some(turns), "nobody is silent for a part of a day: {silence}");
        drop(off);
        site.server.stop().await;
    });
}

#[test]
fn a_crossover_that_fails_on_the_day_it_is_left_is_rolled_back() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = packages(&site, &tenant).await;
        start(&site, &tenant, stages(&one, &two, 5000)).await;
        let mut flock = Flock::enrol(&site, &tenant, 60, &one).await;
        for _ in 0..2 {
            day(&mut flock, &site, &two, 0.01).await;
        }
        flock.devices.iter_mut().for_each(|d| d.behaviour = Behaviour::Fails);
        half_a_day(&mut flock, &site, &two).await;
        let advance = json!({ "stage": 0 });
        let refused = site.client.call("POST", "/v1/rollouts/r/advance", &tenant.approver, advance).await.refused(409);
        assert!(refused.contains("inference_error"), "{refused}");
        let stopped = status(&site, &tenant, "r").await;
        assert_eq!((&stopped["phase"], &stopped["stage"]), (&json!("RolledBack"), &json!(0)), "{stopped}");
        site.server.stop().await;
    });
}

#[test]
fn who_comes_back_after_a_retry_has_what_the_new_attempt_gives() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = packages(&site, &tenant).await;
        start(&site, &tenant, stages(&one, &two, 5000)).await;
        let mut flock = Flock::enrol(&site, &tenant, 40, &one).await;
        day(&mut flock, &site, &two, 0.0).await;
        let before = turning(&flock);
        assert!(before > 10, "{before}");
        let paused = act(&site, &tenant, "pause", Value::Null).await;
        flock.poll(&site).await;
        assert_eq!(turning(&flock), before, "while it is paused they go on");
        let told = flock.devices.iter().filter(|d| d.turns.is_some()).all(|d| paused["sequence"] == json!(d.sequence));
        assert!(told, "by the document in force, for turns end with the one that they are by");
        // One was away for longer than its document was good.
        let late = flock.devices.iter().position(|d| d.turns.is_some()).expect("one");
        flock.devices[late].turns = None;
        flock.devices[late].poll(&site.client).await;
        assert_eq!(flock.devices[late].turns, None, "nothing begins while it is paused");
        act(&site, &tenant, "resume", Value::Null).await;
        flock.poll(&site).await;
        assert_eq!(turning(&flock), before, "it takes turns again");
        let answer = flock.devices[late].poll(&site.client).await;
        assert_eq!(answer.offer, None);
        act(&site, &tenant, "pause", Value::Null).await;
        // Who keeps it keeps it as it is, and it can be taken back after all.
        act(&site, &tenant, "abort", json!({ "devices": "keep" })).await;
        flock.poll(&site).await;
        assert_eq!(turning(&flock), before);
        let mut away = flock.devices.split_off(20);
        act(&site, &tenant, "abort", json!({ "devices": "revert" })).await;
        flock.poll(&site).await;
        assert_eq!(turning(&flock), 0);
        act(&site, &tenant, "retry", Value::Null).await;
        act(&site, &tenant, "start", Value::Null).await;
        let (mut kept, mut ended) = (0, 0);
        for device in away.iter_mut().filter(|d| d.turns.is_some()) {
            device.poll(&site.client).await;
            (kept, ended) = (kept + u32::from(device.turns.is_some()), ended + u32::from(device.turns.is_none()));
            let answer = device.poll(&site.client).await;
            assert_eq!(answer.offer, None, "it is as it should be");
        }
        assert!(kept > 0 && ended > 0, "of other devices: {kept} kept, {ended} ended");
        site.server.stop().await;
    });
}

#[test]
fn an_approved_crossover_reaches_everybody() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = packages(&site, &tenant).await;
        let mut flock = Flock::enrol(&site, &tenant, 110, &one).await;
        flock.poll(&site).await;
        let draft = |base: Option<String>| json!({ "candidates": [two.id()], "base": base, "strategy": { "kind": "crossover", "percent": 80 } });
        let put = async |draft: Value| site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await;
        let text = put(draft(None)).await.refused(422);
        assert!(text.contains("takes turns with a base"), "{text}");
        for stage in [
            json!({ "crossover": true, "canary_percent": 50, "control_percent": 10 }),
            json!({ "crossover": true, "canary_percent": 50, "shadow_every": 10 }),
            json!({ "crossover": true, "ring": 1 }),
        ] {
            let strategy = json!({ "kind": "stages", "stages": [stage] });
            let text =
                put(json!({ "candidates": [two.id()], "base": one.id(), "strategy": strategy })).await.refused(422);
            assert!(text.contains("turns") || text.contains("own control"), "{text}");
        }
        let path = "/v1/rollouts/r?dry_run=true";
        let dry = site.client.call("PUT", path, &tenant.operator, draft(Some(one.id()))).await.ok();
        let stage = &dry["stages"][0];
        assert_eq!((&stage["canary"], &stage["control"]), (&json!(87), &json!(87)), "each is in both arms: {dry}");
        assert!(stage["minimum_detectable_ratio"].as_f64().is_some_and(|r| r > 1.25), "{dry}");
        start(&site, &tenant, draft(Some(one.id()))).await;
        for _ in 0..10 {
            day(&mut flock, &site, &two, 0.01).await;
        }
        let waiting = status(&site, &tenant, "r").await;
        assert_eq!(waiting["phase"], "Awaiting", "{waiting}");
        let turns = turning(&flock);
        assert!((70..105).contains(&turns), "{turns} of 110 at 80 %");
        assert_eq!(act(&site, &tenant, "approve", json!({ "stage": 0 })).await["phase"], "Completed");
        for _ in 0..2 {
            day(&mut flock, &site, &two, 0.01).await;
        }
        assert_eq!((turning(&flock), flock.running(&two)), (0, 110), "it serves everywhere, always");
        let done = status(&site, &tenant, "r").await;
        assert_eq!(done["succeeded"], json!(110), "{done}");
        site.server.stop().await;
    });
}

#[test]
fn blue_lies_ready_and_serves_when_it_is_approved() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = packages(&site, &tenant).await;
        let mut flock = Flock::enrol(&site, &tenant, 100, &one).await;
        let laboratory: Vec<[u8; 16]> = flock.devices[..6].iter().map(|d| d.id).collect();
        for id in &laboratory {
            let path = format!("/v1/devices/{}", dunlin_fleet::hex(id));
            site.client.call("PATCH", &path, &tenant.operator, json!({ "ring": 0 })).await.ok();
        }
        let strategy = json!({ "kind": "blue_green", "percent": 20 });
        start(&site, &tenant, json!({ "candidates": [two.id()], "base": one.id(), "strategy": strategy })).await;
        let mut days = 0;
        while status(&site, &tenant, "r").await["phase"] == "Running" && days < 14 {
            flock.day(&site, false).await;
            days += 1;
        }
        let waiting = status(&site, &tenant, "r").await;
        assert_eq!((&waiting["phase"], &waiting["stage"]), (&json!("Awaiting"), &json!(1)), "{waiting}");
        let ready = |d: &&Device| d.shadow.is_some_and(|(digest, every)| digest == two.digest && every == 16);
        let shadows = flock.devices.iter().filter(ready).count();
        assert!((60..95).contains(&shadows), "{shadows} of 94 at 80 %");
        assert_eq!(flock.running(&two), 6, "the laboratory is served by it, and nobody else");
        assert_eq!(find(&waiting, "ways", "arm", "candidate0")["in_shadow"], json!(shadows), "{waiting}");
        let cookie = dashboard::sign_in(&site, &tenant.operator).await;
        let page = dashboard::text(&dashboard::get(&site, "/rollouts/r", &cookie).await);
        for words in ["blue-green: all but 20 % at once", "Who serves", "agrees", "In the shadow"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        if database.engine == "sqlite" {
            let id = dunlin_fleet::hex(&flock.devices.iter().find(ready).expect("one").id);
            dashboard::look(&site, &tenant, &id, "shadow").await;
        }
        act(&site, &tenant, "approve", json!({ "stage": 1 })).await;
        flock.day(&site, false).await;
        assert_eq!(flock.devices.iter().filter(|d| d.shadow.is_some()).count(), 0);
        assert_eq!(flock.running(&two), 6 + shadows, "what lay ready serves, and the rest keeps the base");
        site.server.stop().await;
    });
}
