//! Rollouts from the first device to the last, or back; days pass as fast as the test wants.

use std::collections::HashSet;

use dunlin_fleet::hex;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::dashboard;
use super::device::{Behaviour, Device};
use super::site::{Published, Site, Tenant, on_each_engine, publish};

pub(crate) struct Flock {
    pub(crate) devices: Vec<Device>,
}

impl Flock {
    pub(crate) async fn enrol(site: &Site, tenant: &Tenant, count: u32, running: &Published) -> Self {
        let mut devices = Vec::new();
        for n in 0..count {
            devices.push(Device::enrol(&site.client, tenant, n, Some(running.digest), &site.clock).await);
        }
        Self { devices }
    }

    pub(crate) async fn poll(&mut self, site: &Site) {
        for part in self.devices.chunks_mut(64) {
            join_all(part.iter_mut().map(|d| d.poll(&site.client))).await;
        }
    }

    /// A day with four polls, the last with a report unless the devices are mute; then the server decides.
    pub(crate) async fn day(&mut self, site: &Site, mute: bool) {
        for quarter in 0..4 {
            if quarter == 3 && !mute {
                self.devices.iter_mut().for_each(Device::measure);
            }
            self.poll(site).await;
            site.clock.skip(6 * 3600 + 20);
        }
        site.server.tick().await;
    }

    pub(crate) fn running(&self, package: &Published) -> usize {
        self.devices.iter().filter(|d| d.running == Some(package.digest)).count()
    }

    pub(crate) fn offered(&self, package: &Published) -> HashSet<[u8; 16]> {
        self.devices.iter().filter(|d| d.offered.contains(&package.digest)).map(|d| d.id).collect()
    }
}

pub(crate) async fn status(site: &Site, tenant: &Tenant, id: &str) -> Value {
    site.client.call("GET", &format!("/v1/rollouts/{id}"), &tenant.viewer, Value::Null).await.ok()
}

fn arm(status: &Value, arm: &str, what: &str) -> i64 {
    let ways = status["arms"]["ways"].as_array().expect("ways");
    ways.iter().find(|w| w["arm"] == arm).and_then(|w| w[what].as_i64()).unwrap_or(0)
}

/// Two packages that are published, and a rollout from the first to the second that is started.
pub(crate) async fn begun(site: &Site, tenant: &Tenant, stages: Value) -> (Published, Published) {
    let both = drafted(site, tenant, stages).await;
    site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
    both
}

/// As [`begun`], before the start.
async fn drafted(site: &Site, tenant: &Tenant, stages: Value) -> (Published, Published) {
    let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
    publish(&site.client, tenant, &one).await.ok();
    publish(&site.client, tenant, &two).await.ok();
    let draft =
        json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "stages", "stages": stages } });
    site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft.clone()).await.ok();
    site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
    (one, two)
}

#[test]
fn a_good_candidate_reaches_everybody_and_reverts_are_not_successes() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "two_person": true })).await;
        let stages = json!([
            { "canary_percent": 20, "control_percent": 40, "devices": 10, "device_days": 15 },
            { "canary_percent": 60, "control_percent": 40, "devices": 20, "device_days": 40, "approval": true }]);
        let (one, two) = drafted(&site, &tenant, stages).await;
        // Its first stage reaches more devices than one person decides about: who starts it is not who approves that.
        let act = async |action: &str, token: &str| {
            site.client.call("POST", &format!("/v1/rollouts/r/{action}"), token, json!({})).await
        };
        let text = act("start", &tenant.operator).await.refused(409);
        assert!(text.contains("somebody else has to approve"), "{text}");
        act("approve", &tenant.operator).await.refused(403);
        act("approve", &tenant.approver).await.ok();
        act("start", &tenant.approver).await.refused(409);
        act("start", &tenant.operator).await.ok();
        let started = status(&site, &tenant, "r").await;
        site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
        assert_eq!(
            status(&site, &tenant, "r").await["sequence"],
            started["sequence"],
            "starting again changes nothing"
        );
        let mut flock = Flock::enrol(&site, &tenant, 120, &one).await;
        let mut day = 0;
        while status(&site, &tenant, "r").await["phase"] == "Running" && day < 10 {
            flock.day(&site, false).await;
            day += 1;
        }
        let waiting = status(&site, &tenant, "r").await;
        assert_eq!((&waiting["phase"], &waiting["stage"]), (&json!("Awaiting"), &json!(0)), "{waiting}");
        let canary = flock.offered(&two);
        assert!((10..40).contains(&canary.len()), "{} of 120 at 20 %", canary.len());
        assert_eq!(flock.running(&two), canary.len());
        assert_eq!(arm(&waiting, "candidate0", "runs_candidate"), canary.len() as i64, "{waiting}");
        assert!(arm(&waiting, "control", "activated") > 20, "{waiting}");

        // Who started it does not approve it, whatever role the token has.
        site.client.call("POST", "/v1/rollouts/r/approve", &tenant.operator, json!({ "stage": 0 })).await.refused(403);
        site.client.call("POST", "/v1/rollouts/r/approve", &tenant.approver, json!({ "stage": 0 })).await.ok();
        let twice =
            site.client.call("POST", "/v1/rollouts/r/approve", &tenant.approver, json!({ "stage": 0 })).await.ok();
        assert_eq!((&twice["phase"], &twice["stage"]), (&json!("Running"), &json!(1)), "{twice}");
        for _ in 0..6 {
            flock.day(&site, false).await;
        }
        assert!(flock.offered(&two).is_superset(&canary), "nobody loses it");
        assert_eq!(status(&site, &tenant, "r").await["phase"], "Completed");
        for _ in 0..2 {
            flock.day(&site, false).await;
        }
        let done = status(&site, &tenant, "r").await;
        assert_eq!(flock.running(&two), 120, "{done}");
        assert_eq!(done["succeeded"], 120, "{done}");

        // A device takes it back after all: it is no success any more, and is not offered it again.
        flock.devices[7].revert();
        let offers = flock.devices[7].offered.len();
        flock.poll(&site).await;
        flock.poll(&site).await;
        let after = status(&site, &tenant, "r").await;
        assert_eq!((&after["succeeded"], &after["reverted"]), (&json!(119), &json!(1)), "{after}");
        assert_eq!(flock.devices[7].offered.len(), offers);

        // Every step is in the verdicts once, with its numbers.
        let verdicts = site.client.call("GET", "/v1/rollouts/r/verdicts", &tenant.viewer, Value::Null).await.ok();
        let verdicts = verdicts.as_array().expect("a list");
        let advances: Vec<i64> =
            verdicts.iter().filter(|v| v["verdict"] == "Advance").filter_map(|v| v["stage"].as_i64()).collect();
        assert_eq!(advances, [0, 1], "{verdicts:?}");
        assert!(verdicts.iter().all(|v| v["numbers"].as_str().is_some_and(|n| n.contains("ln_e"))));
        site.server.stop().await;
    });
}

#[test]
fn a_bad_candidate_is_taken_back() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([
            { "canary_percent": 30, "control_percent": 40, "devices": 10, "device_days": 1000 },
            { "canary_percent": 60, "control_percent": 40, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 100, &one).await;
        flock.devices.iter_mut().for_each(|d| d.behaviour = Behaviour::Fails);
        let mut days = 0;
        while status(&site, &tenant, "r").await["phase"] == "Running" && days < 8 {
            flock.day(&site, false).await;
            days += 1;
        }
        let stopped = status(&site, &tenant, "r").await;
        assert_eq!((&stopped["phase"], &stopped["stage"]), (&json!("RolledBack"), &json!(0)), "{stopped}");
        let exposed = flock.offered(&two).len();
        assert!((15..50).contains(&exposed), "{exposed}");
        for _ in 0..2 {
            flock.day(&site, false).await;
        }
        assert_eq!((flock.running(&one), flock.running(&two)), (100, 0), "all went back");
        assert_eq!(flock.offered(&two).len(), exposed, "and nobody else got it");
        assert_eq!(status(&site, &tenant, "r").await["succeeded"], 0);

        let alerts = site.client.call("GET", "/v1/alerts", &tenant.viewer, Value::Null).await.ok();
        let alert =
            alerts.as_array().expect("a list").iter().find(|a| a["kind"] == "rollback").expect("an alert").clone();
        assert!(alert["text"].as_str().expect("text").contains("inference_error"), "{alert}");
        let detail: Value = serde_json::from_str(alert["detail"].as_str().expect("text")).expect("JSON");
        assert_eq!(detail["playbook"]["next"], "capture");
        assert!(detail["decision"]["numbers"]["hard"].is_array(), "{detail}");
        let path = format!("/v1/alerts/{}/acknowledge", alert["n"]);
        let seen = site.client.call("POST", &path, &tenant.operator, Value::Null).await.ok();
        assert_eq!(seen[0]["acknowledged_by"], "a-operator");
        site.server.stop().await;
    });
}

#[test]
fn devices_that_revert_by_themselves_stop_the_laboratory() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([
            { "ring": 0, "devices": 2, "device_days": 2, "zero_failures": true },
            { "canary_percent": 60, "control_percent": 40 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 20, &one).await;
        for device in &mut flock.devices[..3] {
            let path = format!("/v1/devices/{}", hex(&device.id));
            site.client.call("PATCH", &path, &tenant.operator, json!({ "ring": 0 })).await.ok();
            device.behaviour = Behaviour::Reverts;
        }
        for _ in 0..3 {
            flock.day(&site, false).await;
        }
        let paused = status(&site, &tenant, "r").await;
        assert_eq!(paused["phase"], "Paused", "{paused}");
        let laboratory: HashSet<[u8; 16]> = flock.devices[..3].iter().map(|d| d.id).collect();
        assert_eq!(flock.offered(&two), laboratory, "the ring, and nobody else");
        assert!(flock.devices[..3].iter().all(|d| d.offered.len() == 1), "what failed here is not offered again");
        assert_eq!((&paused["succeeded"], &paused["reverted"]), (&json!(0), &json!(3)), "{paused}");
        site.server.stop().await;
    });
}

#[test]
fn no_data_is_never_a_pass() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([
            { "canary_percent": 50, "control_percent": 50, "limit_hours": 96 },
            { "canary_percent": 60, "control_percent": 40 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 30, &one).await;
        for _ in 0..6 {
            flock.day(&site, true).await;
        }
        let stopped = status(&site, &tenant, "r").await;
        assert_eq!((&stopped["phase"], &stopped["stage"]), (&json!("Paused"), &json!(0)), "{stopped}");
        let offers = flock.offered(&two).len();
        assert!(offers < 30);
        site.server.stop().await;
    });
}

#[test]
fn people_pause_resume_and_abort() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([
            { "canary_percent": 50, "control_percent": 50, "device_days": 1000 },
            { "canary_percent": 60, "control_percent": 40, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let act = async |action: &str, body: Value| {
            site.client.call("POST", &format!("/v1/rollouts/r/{action}"), &tenant.approver, body).await
        };
        act("pause", Value::Null).await.ok();
        let sequence = act("pause", Value::Null).await.ok()["sequence"].clone();
        let mut flock = Flock::enrol(&site, &tenant, 40, &one).await;
        flock.poll(&site).await;
        assert_eq!(flock.offered(&two).len(), 0, "nothing is offered while it is paused");
        let resumed = act("resume", Value::Null).await.ok();
        assert!(resumed["sequence"].as_i64() > sequence.as_i64());
        act("resume", Value::Null).await.ok();
        flock.poll(&site).await;
        let half = flock.offered(&two).len();
        assert!((8..32).contains(&half), "{half}");

        // Another rollout of the model has to wait.
        let three = tenant.keys.package("m", 3, 500);
        publish(&site.client, &tenant, &three).await.ok();
        let draft = json!({ "candidates": [three.id()], "base": one.id(), "strategy": { "kind": "canary" } });
        let dry = site.client.call("PUT", "/v1/rollouts/s?dry_run=true", &tenant.operator, draft.clone()).await.ok();
        assert_eq!((&dry["stored"], dry["stages"].as_array().map(Vec::len)), (&json!(false), Some(5)), "{dry}");
        site.client.call("GET", "/v1/rollouts/s", &tenant.operator, Value::Null).await.refused(404);
        site.client.call("PUT", "/v1/rollouts/s", &tenant.operator, draft).await.ok();
        let text = site.client.call("POST", "/v1/rollouts/s/start", &tenant.operator, Value::Null).await.refused(409);
        assert!(text.contains("under way"), "{text}");

        // By hand to the next stage, once however often it is asked.
        act("advance", json!({})).await.refused(400);
        for _ in 0..3 {
            assert_eq!(act("advance", json!({ "stage": 0 })).await.ok()["stage"], 1);
        }
        act("advance", json!({ "stage": 5 })).await.refused(409);
        flock.day(&site, false).await;
        let more = flock.offered(&two).len();
        assert!(more >= half && more < 40);
        act("abort", json!({})).await.refused(400);
        act("abort", json!({ "devices": "keep" })).await.ok();
        act("abort", json!({ "devices": "keep" })).await.ok();
        flock.poll(&site).await;
        assert_eq!(flock.running(&two), more, "they keep it");
        act("abort", json!({ "devices": "revert" })).await.ok();
        flock.day(&site, false).await;
        assert_eq!(flock.running(&two), 0, "they go back");
        let text = act("start", Value::Null).await.refused(409);
        assert!(text.contains("RolledBack"), "{text}");
        assert_eq!(status(&site, &tenant, "r").await["phase"], "RolledBack");
        act("pause", Value::Null).await.refused(409);
        act("resume", Value::Null).await.refused(409);
        site.client.call("POST", "/v1/rollouts/s/start", &tenant.operator, Value::Null).await.ok();
        site.server.stop().await;
    });
}

/// Two packages, and a draft of a rollout from the first to the second, started.
async fn shadow(site: &Site, tenant: &Tenant, disagreement: f64) -> (Published, Published) {
    let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
    publish(&site.client, tenant, &one).await.ok();
    publish(&site.client, tenant, &two).await.ok();
    let stages = json!([
        { "canary_percent": 30, "control_percent": 50, "shadow_every": 10, "devices": 10, "device_days": 40,
          "margins": "inside" },
        { "canary_percent": 30, "control_percent": 50, "devices": 10, "device_days": 30 }]);
    let margin = json!({ "metric": "disagreement", "absolute": disagreement });
    let gate = json!({ "margins": [margin], "devices": 60, "devices_per_arm": 10 });
    let draft = json!({ "candidates": [two.id()], "base": one.id(), "gate": gate,
        "strategy": { "kind": "stages", "stages": stages } });
    site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
    site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
    (one, two)
}

#[test]
fn a_shadow_never_serves_and_its_agreement_decides() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = shadow(&site, &tenant, 0.05).await;
        let mut flock = Flock::enrol(&site, &tenant, 120, &one).await;
        flock.poll(&site).await;
        let shadows = flock.devices.iter().filter(|d| d.shadow == Some((two.digest, 10))).count();
        assert!((15..60).contains(&shadows), "{shadows} of 120 at 30 %");
        let mut days = 0;
        while status(&site, &tenant, "r").await["stage"] == 0 && days < 8 {
            flock.day(&site, false).await;
            let now = status(&site, &tenant, "r").await;
            assert!(now["stage"] == 1 || flock.running(&two) == 0, "nobody is served by it: {now}");
            days += 1;
        }
        let passed = status(&site, &tenant, "r").await;
        assert_eq!((&passed["phase"], &passed["stage"]), (&json!("Running"), &json!(1)), "{passed}");
        let agreement = &passed["agreement"];
        assert!((agreement["mean"].as_f64().expect("a number") - 0.98).abs() < 1e-9, "{agreement}");
        assert_eq!(agreement["devices"].as_u64(), Some(shadows as u64), "{agreement}");
        // The next stage has it serve, on the same devices.
        flock.day(&site, false).await;
        assert_eq!(flock.running(&two), shadows, "those that had the shadow");
        assert!(flock.devices.iter().all(|d| d.shadow.is_none()));
        site.server.stop().await;
    });
}

#[test]
fn a_shadow_that_disagrees_pauses_and_ends() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = shadow(&site, &tenant, 0.05).await;
        let mut flock = Flock::enrol(&site, &tenant, 120, &one).await;
        flock.devices.iter_mut().for_each(|d| d.disagrees = 30);
        let mut days = 0;
        while status(&site, &tenant, "r").await["phase"] == "Running" && days < 8 {
            flock.day(&site, false).await;
            days += 1;
        }
        let paused = status(&site, &tenant, "r").await;
        assert_eq!((&paused["phase"], &paused["stage"]), (&json!("Paused"), &json!(0)), "{paused}");
        let verdicts = site.client.call("GET", "/v1/rollouts/r/verdicts", &tenant.viewer, Value::Null).await.ok();
        let last = verdicts.as_array().and_then(|v| v.last()).cloned().expect("a verdict");
        assert!(last["reason"].as_str().expect("text").contains("disagreement"), "{last}");
        assert!(flock.devices.iter().any(|d| d.shadow.is_some()), "while it is paused shadows go on");
        let before: HashSet<_> = flock.devices.iter().filter(|d| d.shadow.is_some()).map(|d| d.id).collect();
        let cookie = dashboard::sign_in(&site, &tenant.operator).await;
        let page = dashboard::text(&dashboard::get(&site, "/rollouts/r", &cookie).await);
        for words in ["Shadow on 30 %", "one of 10 inputs", "disagreement"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        let abort = json!({ "devices": "revert" });
        site.client.call("POST", "/v1/rollouts/r/abort", &tenant.operator, abort).await.ok();
        let page = dashboard::text(&dashboard::get(&site, "/rollouts/r", &cookie).await);
        assert!(page.contains("Retry"), "{page}");
        flock.poll(&site).await;
        assert!(flock.devices.iter().all(|d| d.shadow.is_none()), "all are told to end");
        flock.day(&site, false).await;
        let ended = status(&site, &tenant, "r").await;
        assert_eq!((&ended["succeeded"], flock.running(&two)), (&json!(0), 0), "{ended}");

        // Somebody tries once more: a draft, other devices first, nothing left of the evidence.
        site.client.call("POST", "/v1/rollouts/r/retry", &tenant.viewer, Value::Null).await.refused(403);
        for _ in 0..2 {
            let again = site.client.call("POST", "/v1/rollouts/r/retry", &tenant.operator, Value::Null).await.ok();
            assert_eq!((&again["phase"], &again["agreement"]), (&json!("Draft"), &Value::Null), "{again}");
        }
        site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
        flock.devices.iter_mut().for_each(|d| d.disagrees = 1);
        flock.poll(&site).await;
        let after: HashSet<_> = flock.devices.iter().filter(|d| d.shadow.is_some()).map(|d| d.id).collect();
        assert!(!after.is_empty() && after != before);
        assert_eq!(status(&site, &tenant, "r").await["phase"], "Running");
        site.server.stop().await;
    });
}

#[test]
fn of_two_variants_the_chosen_one_reaches_everybody() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let packages: Vec<Published> = (1..=3).map(|n| tenant.keys.package("m", n, 500)).collect();
        for package in &packages {
            publish(&site.client, &tenant, package).await.ok();
        }
        let [one, two, three] = &packages[..] else { unreachable!() };
        let draft = json!({ "candidates": [two.id(), three.id()], "base": one.id(),
            "gate": { "devices": 120, "devices_per_arm": 20 }, "strategy": { "kind": "variants", "percent": 100 } });
        site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
        site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
        let mut flock = Flock::enrol(&site, &tenant, 240, one).await;
        for _ in 0..10 {
            flock.day(&site, false).await;
        }
        let waiting = status(&site, &tenant, "r").await;
        assert_eq!(waiting["phase"], "Awaiting", "{waiting}");
        let runs = packages.iter().map(|p| flock.running(p)).collect::<Vec<_>>();
        assert!(runs.iter().all(|n| (50..110).contains(n)), "a third each: {runs:?}");
        assert!(flock.offered(two).is_disjoint(&flock.offered(three)), "nobody gets both");
        let approve =
            async |body: Value| site.client.call("POST", "/v1/rollouts/r/approve", &tenant.approver, body).await;
        approve(json!({ "stage": 0 })).await.refused(422);
        let cookie = dashboard::sign_in(&site, &tenant.approver).await;
        let page = dashboard::text(&dashboard::get(&site, "/rollouts/r", &cookie).await);
        for words in ["variants on 100 %", "canary, candidate 2", "Choose candidate 1", "Choose candidate 2"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert!(!page.contains("Choose candidate 3"), "there are two");
        approve(json!({ "stage": 0, "candidate": 2 })).await.refused(422);
        assert_eq!(approve(json!({ "stage": 0, "candidate": 0 })).await.ok()["phase"], "Completed");
        for _ in 0..2 {
            flock.day(&site, false).await;
        }
        assert_eq!(flock.running(two), 240, "the older one was chosen, and reaches those with the newer one too");
        site.server.stop().await;
    });
}

/// By a person who started it alone at most 5 % get a candidate, whatever the plan, and whenever it was drafted.
#[test]
fn two_persons_are_asked_before_many_devices_are_reached() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
        publish(&site.client, &tenant, &one).await.ok();
        publish(&site.client, &tenant, &two).await.ok();
        let put = async |id: &str, strategy: Value| {
            let draft = json!({ "candidates": [two.id()], "base": one.id(), "strategy": strategy });
            site.client.call("PUT", &format!("/v1/rollouts/{id}"), &tenant.operator, draft).await.ok()
        };
        // Drafted before the setting.
        put("held", json!({ "kind": "hold_back", "percent": 5.0 })).await;
        let only = json!([{ "canary_percent": 3, "control_percent": 5 }]);
        put("only", json!({ "kind": "stages", "stages": only })).await;
        site.client.call("PUT", "/v1/tenant", &tenant.admin, json!({ "two_person": true })).await.ok();
        let act = async |id: &str, action: &str, token: &str, body: Value| {
            site.client.call("POST", &format!("/v1/rollouts/{id}/{action}"), token, body).await
        };
        for id in ["held", "only"] {
            act(id, "start", &tenant.approver, Value::Null).await.refused(409);
            assert_eq!(status(&site, &tenant, id).await["phase"], "Draft");
        }
        // Stages are named before they begin, and those that wait wait also when somebody hurries.
        let outlook = put("whole", json!({ "kind": "shadow", "every": 8 })).await;
        let waits: Vec<bool> =
            outlook["stages"].as_array().expect("a list").iter().map(|s| s["approval"] == true).collect();
        assert_eq!(waits, [false, false, false, false, true, false], "before 25 %");
        act("whole", "start", &tenant.approver, Value::Null).await.ok();
        for stage in 0..4 {
            act("whole", "advance", &tenant.approver, json!({ "stage": stage })).await.ok();
        }
        let waiting = status(&site, &tenant, "whole").await;
        assert_eq!((&waiting["phase"], &waiting["stage"]), (&json!("Awaiting"), &json!(3)), "{waiting}");
        act("whole", "advance", &tenant.approver, json!({ "stage": 3 })).await.refused(409);
        act("whole", "approve", &tenant.approver, json!({ "stage": 3 })).await.refused(403);
        act("whole", "approve", &tenant.admin, json!({ "stage": 3 })).await.ok();
        assert_eq!(status(&site, &tenant, "whole").await["stage"], 4);
        act("whole", "abort", &tenant.operator, json!({ "devices": "keep" })).await.ok();
        act("held", "approve", &tenant.admin, json!({})).await.ok();
        act("held", "start", &tenant.operator, Value::Null).await.ok();
        assert_eq!(status(&site, &tenant, "held").await["phase"], "Running");
        site.server.stop().await;
    });
}

/// Devices whose floor a candidate raises do not take the base back: that is said before it starts.
#[test]
fn packages_of_a_rollout_are_for_one_target_and_a_way_that_leads_back() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let make = |number, of| tenant.keys.package_for("m", number, 500, of);
        let (one, raised, other) = (make(1, ("sim", 0)), make(2, ("sim", 3)), make(3, ("board", 3)));
        for package in [&one, &raised, &other] {
            publish(&site.client, &tenant, package).await.ok();
        }
        let put = async |id: &str, draft: Value| {
            let mut draft = draft;
            draft["strategy"] =
                json!({ "kind": "stages", "stages": [{ "canary_percent": 50, "control_percent": 50 }] });
            site.client.call("PUT", &format!("/v1/rollouts/{id}"), &tenant.operator, draft).await
        };
        let text = put("r", json!({ "candidates": [raised.id()], "base": one.id() })).await.refused(422);
        assert!(text.contains("cannot go back") && text.contains('3'), "{text}");
        let text = put("r", json!({ "candidates": [other.id()], "base": raised.id() })).await.refused(422);
        assert!(text.contains("targets"), "{text}");
        put("r", json!({ "candidates": [one.id()], "base": raised.id(), "irreversible": true })).await.refused(422);
        let draft = json!({ "candidates": [raised.id()], "base": one.id(), "irreversible": true });
        put("r", draft).await.ok();
        assert_eq!(status(&site, &tenant, "r").await["irreversible"], true);
        let page = dashboard::text(
            &dashboard::get(&site, "/rollouts/r", &dashboard::sign_in(&site, &tenant.operator).await).await,
        );
        assert!(page.contains("security counter is above"), "{page}");

        // Without a base devices run whatever they run, and those of another target have no part in it.
        put("s", json!({ "candidates": [other.id()] })).await.ok();
        site.client.call("POST", "/v1/rollouts/s/start", &tenant.operator, Value::Null).await.ok();
        let mut flock = Flock::enrol(&site, &tenant, 12, &one).await;
        flock.poll(&site).await;
        assert_eq!(flock.offered(&other).len(), 0, "they are of the target sim");
        let s = status(&site, &tenant, "s").await;
        assert_eq!(s["arms"]["ways"], json!([]), "{s}");
        // What nobody can go back to is not offered for going back.
        let cookie = dashboard::sign_in(&site, &tenant.operator).await;
        let page = dashboard::text(&dashboard::get(&site, "/rollouts/s/rollback", &cookie).await);
        assert!(page.contains("value=\"keep\" checked") && !page.contains("value=\"revert\""), "{page}");
        site.server.stop().await;
    });
}

/// A device is away for days and brings its reports later: they count for the days on which it measured.
#[test]
fn late_reports_count_for_their_days() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([{ "canary_percent": 50, "control_percent": 50, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 24, &one).await;
        flock.day(&site, false).await;
        let at = flock.devices.iter().position(|d| d.running == Some(two.digest)).expect("one has the candidate");
        let mut away = flock.devices.remove(at);
        let crashes = async || {
            let now = status(&site, &tenant, "r").await;
            let of = |name: &str| {
                let list = now["arms"]["guardrails"].as_array().expect("a list");
                let found = list.iter().find(|g| g["guardrail"] == name).expect("a guardrail");
                (found["bad"]["canary"].as_u64().expect("bad"), found["of"]["canary"].as_u64().expect("of"))
            };
            (of("inference_error"), of("silence"))
        };
        let before = crashes().await;
        let canary = flock.running(&two) as u64;
        for _ in 0..2 {
            flock.day(&site, false).await;
            // It measures a whole day, and cannot send it.
            away.behaviour = Behaviour::Fails;
            away.measure_for(86_400);
        }
        let without = crashes().await;
        assert_eq!(without.0, (before.0.0, before.0.1 + 2 * canary), "the others' days");
        assert_eq!(without.1.0, before.1.0 + 1, "it is silent, once");
        away.poll(&site.client).await;
        flock.day(&site, false).await;
        let with = crashes().await;
        // Of the two days that it brings the first is bad; it counts until then.
        assert_eq!(with.0.0, without.0.0 + 1, "{with:?} after {without:?}");
        assert!(with.0.1 > without.0.1 + canary, "{with:?} after {without:?}");
        assert_eq!(with.1.0, without.1.0, "its silence is not said again");
        site.server.stop().await;
    });
}

/// What a device runs is what counts, also in rollouts that others have taken the place of.
#[test]
fn who_went_on_runs_what_it_went_on_to() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let everybody = json!([{ "canary_percent": 100, "zero_failures": true }]);
        let (one, two) = begun(&site, &tenant, everybody.clone()).await;
        let three = tenant.keys.package("m", 3, 500);
        publish(&site.client, &tenant, &three).await.ok();
        let mut flock = Flock::enrol(&site, &tenant, 6, &one).await;
        for _ in 0..4 {
            flock.poll(&site).await;
        }
        let leave = async |id: &str| {
            let path = format!("/v1/rollouts/{id}/advance");
            site.client.call("POST", &path, &tenant.approver, json!({ "stage": 0 })).await.ok()
        };
        assert_eq!(leave("r").await["phase"], "Completed");
        assert_eq!((flock.running(&two), &status(&site, &tenant, "r").await["succeeded"]), (6, &json!(6)));
        let draft = json!({ "candidates": [three.id()], "base": two.id(),
            "strategy": { "kind": "stages", "stages": everybody } });
        site.client.call("PUT", "/v1/rollouts/s", &tenant.operator, draft).await.ok();
        site.client.call("POST", "/v1/rollouts/s/start", &tenant.operator, Value::Null).await.ok();
        let (last, rest) = flock.devices.split_last_mut().expect("devices");
        for _ in 0..4 {
            for device in &mut *rest {
                device.poll(&site.client).await;
            }
        }
        // Both are live.
        let path = format!("/devices/{}", hex(&rest[0].id));
        let cookie = dashboard::sign_in(&site, &tenant.viewer).await;
        let page = dashboard::text(&dashboard::get(&site, &path, &cookie).await);
        assert!(page.contains("ran it, and went on") && page.contains("runs the candidate"), "{page}");
        assert_eq!(leave("s").await["phase"], "Completed");
        // This one goes on after the first was set aside.
        for _ in 0..4 {
            last.poll(&site.client).await;
        }
        assert_eq!(flock.running(&three), 6);
        let (r, s) = (status(&site, &tenant, "r").await, status(&site, &tenant, "s").await);
        assert_eq!((&r["succeeded"], &s["succeeded"]), (&json!(0), &json!(6)), "{r} {s}");
        // And back, by itself.
        flock.devices[0].revert();
        flock.poll(&site).await;
        let (r, s) = (status(&site, &tenant, "r").await, status(&site, &tenant, "s").await);
        assert_eq!((&r["succeeded"], &s["succeeded"]), (&json!(1), &json!(5)), "{r} {s}");
        site.server.stop().await;
    });
}
