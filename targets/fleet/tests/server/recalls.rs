//! Rolled-back packages leave every device, whatever is done to the rollout afterwards.

use dunlin_update::{Outcome, Phase, Rejection};
use serde_json::{Value, json};

use super::rollouts::{Flock, begun, status};
use super::site::{Published, Site, Tenant, on_each_engine, publish};

/// A rollout to 80 % of the devices, whose candidate is on trial on those that it reaches.
async fn on_trial(site: &Site, tenant: &Tenant, devices: u32) -> (Flock, Published, Published) {
    let stages = json!([{ "canary_percent": 80, "control_percent": 20, "device_days": 1000 }]);
    let (base, candidate) = begun(site, tenant, stages).await;
    let mut flock = Flock::enrol(site, tenant, devices, &base).await;
    // Offered and staged; then on trial.
    flock.poll(site).await;
    flock.poll(site).await;
    let trials = flock.devices.iter().filter(|d| d.phase == Phase::Trial).count();
    assert!(trials > devices as usize / 2, "{trials} of {devices}");
    (flock, base, candidate)
}

async fn act(site: &Site, tenant: &Tenant, action: &str, body: Value) {
    site.client.call("POST", &format!("/v1/rollouts/r/{action}"), &tenant.approver, body).await.ok();
}

/// Devices on which a package serves or is on trial.
fn on(flock: &Flock, package: &Published) -> usize {
    let digest = Some(package.digest);
    let is_on = |d: &&super::device::Device| {
        d.running == digest || d.candidate == digest && matches!(d.phase, Phase::Staged | Phase::Trial)
    };
    flock.devices.iter().filter(is_on).count()
}

/// The open alert about devices on a recalled package.
async fn stranded(site: &Site, tenant: &Tenant) -> Option<Value> {
    let alerts = site.client.call("GET", "/v1/alerts", &tenant.viewer, Value::Null).await.ok();
    let is = |a: &&Value| a["kind"] == "stranded" && a["state"] == "open";
    alerts.as_array().into_iter().flatten().find(is).cloned()
}

#[test]
fn a_rollback_reaches_devices_on_trial_within_two_polls() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (mut flock, base, candidate) = on_trial(&site, &tenant, 200).await;
        act(&site, &tenant, "abort", json!({ "devices": "revert" })).await;
        flock.poll(&site).await;
        flock.poll(&site).await;
        assert_eq!((on(&flock, &candidate), flock.running(&base)), (0, 200));
        let replaced = Outcome::Rejected(Rejection::Replaced);
        assert!(flock.devices.iter().all(|d| d.last.is_none_or(|(_, outcome)| outcome == replaced)));
        site.server.stop().await;
    });
}

#[test]
fn a_rollback_stops_downloads_that_had_not_started_yet() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([{ "canary_percent": 80, "control_percent": 20, "device_days": 1000 }]);
        let (base, candidate) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 40, &base).await;
        flock.poll(&site).await;
        assert!(flock.devices.iter().filter(|d| d.phase == Phase::Staged).count() > 20);
        act(&site, &tenant, "abort", json!({ "devices": "keep" })).await;
        for _ in 0..3 {
            flock.poll(&site).await;
        }
        assert_eq!(on(&flock, &candidate), 0, "who did not have it yet does not get it");
        site.server.stop().await;
    });
}

#[test]
fn retries_strand_no_device_on_a_package_that_was_rolled_back() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "poll_seconds": 60 })).await;
        let (mut flock, base, candidate) = on_trial(&site, &tenant, 80).await;
        flock.poll(&site).await;
        let reached = flock.running(&candidate);
        assert!(reached > 40, "{reached}");
        // Pressed before any device was back.
        act(&site, &tenant, "abort", json!({ "devices": "revert" })).await;
        act(&site, &tenant, "retry", Value::Null).await;
        site.server.tick().await;
        let alert = stranded(&site, &tenant).await.expect("an alert");
        assert!(
            alert["text"].as_str().is_some_and(|t| t.starts_with(&format!("{reached} devices still run m 1.2"))),
            "{alert}"
        );
        // Half of them are back in the draft.
        let (first, second) = flock.devices.split_at_mut(40);
        for device in first.iter_mut() {
            device.poll(&site.client).await;
        }
        assert!(
            first.iter().all(|d| d.running == Some(base.digest)),
            "a draft brings nobody anything, and takes it back"
        );
        // The others come back in the next attempt, which is for other devices in part.
        act(&site, &tenant, "start", Value::Null).await;
        for device in second.iter_mut() {
            for _ in 0..2 {
                device.poll(&site.client).await;
            }
        }
        act(&site, &tenant, "abort", json!({ "devices": "revert" })).await;
        act(&site, &tenant, "retry", Value::Null).await;
        flock.poll(&site).await;
        flock.poll(&site).await;
        assert_eq!((on(&flock, &candidate), flock.running(&base)), (0, 80));
        site.server.tick().await;
        assert!(stranded(&site, &tenant).await.is_none(), "nobody runs it any more");
        site.server.stop().await;
    });
}

#[test]
fn a_device_that_comes_back_after_the_next_rollout_leaves_what_was_rolled_back() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (mut flock, base, candidate) = on_trial(&site, &tenant, 60).await;
        flock.poll(&site).await;
        // The last of those that have it is switched off.
        let at = flock.devices.iter().rposition(|d| d.running == Some(candidate.digest)).expect("one has it");
        let mut late = flock.devices.remove(at);
        act(&site, &tenant, "abort", json!({ "devices": "revert" })).await;
        flock.poll(&site).await;
        // Another rollout completes, and the one that was rolled back is set aside.
        let third = tenant.keys.package("m", 3, 500);
        publish(&site.client, &tenant, &third).await.ok();
        let stage = json!([{ "canary_percent": 90, "control_percent": 5, "device_days": 1000 }]);
        let draft = json!({ "candidates": [third.id()], "base": base.id(),
            "strategy": { "kind": "stages", "stages": stage } });
        let call =
            async |method: &str, path: &str, body: Value| site.client.call(method, path, &tenant.approver, body).await;
        call("PUT", "/v1/rollouts/s", draft).await.ok();
        call("POST", "/v1/rollouts/s/start", Value::Null).await.ok();
        call("POST", "/v1/rollouts/s/advance", json!({ "stage": 0 })).await.ok();
        assert_eq!(status(&site, &tenant, "s").await["phase"], "Completed");
        for _ in 0..4 {
            late.poll(&site.client).await;
        }
        assert_eq!(late.running, Some(third.digest), "it goes on to what everybody has");
        site.server.stop().await;
    });
}

#[test]
fn the_way_back_stays_open() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (mut flock, base, candidate) = on_trial(&site, &tenant, 40).await;
        flock.poll(&site).await;
        act(&site, &tenant, "abort", json!({ "devices": "revert" })).await;
        let call =
            async |method: &str, path: &str, body: Value| site.client.call(method, path, &tenant.approver, body).await;
        // What devices go back to is not deleted, and no rollout starts from what they leave.
        call("DELETE", &format!("/v1/packages/{}", base.id()), Value::Null).await.refused(409);
        let third = tenant.keys.package("m", 3, 500);
        publish(&site.client, &tenant, &third).await.ok();
        let draft = json!({ "candidates": [third.id()], "base": candidate.id(), "strategy": { "kind": "canary" } });
        call("PUT", "/v1/rollouts/s", draft).await.ok();
        let text = call("POST", "/v1/rollouts/s/start", Value::Null).await.refused(409);
        assert!(text.contains("recalled by the rollout"), "{text}");
        flock.poll(&site).await;
        assert_eq!(on(&flock, &candidate), 0);
        flock.poll(&site).await;
        let progress = &status(&site, &tenant, "r").await["rollback"];
        assert!(progress["told"].as_u64() > Some(20) && progress["told"] == progress["back"], "{progress}");
        let left = ["running", "silent", "blocked"].map(|name| progress[name].as_u64());
        assert_eq!(left, [Some(0); 3], "{progress}");
        site.server.stop().await;
    });
}
