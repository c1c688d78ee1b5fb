//! What becomes evidence: which days count, for whom, and when.

use dunlin_fleet::hex;
use serde_json::{Value, json};
use sqlx::Row as _;

use super::database::Database;
use super::device::Behaviour;
use super::rollouts::{Flock, begun, status};
use super::site::{Published, Site, Tenant, on_each_engine, publish};

/// Bad device-days and all, of canary and control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    bad: (u64, u64),
    of: (u64, u64),
}

async fn counted(site: &Site, tenant: &Tenant, guardrail: &str) -> Counted {
    let now = status(site, tenant, "r").await;
    let list = now["arms"]["guardrails"].as_array().expect("a list");
    let found = list.iter().find(|g| g["guardrail"] == guardrail).unwrap_or_else(|| panic!("{now}"));
    let both = |what: &str| {
        (found[what]["canary"].as_u64().expect("a number"), found[what]["control"].as_u64().expect("a number"))
    };
    Counted { bad: both("bad"), of: both("of") }
}

async fn act(site: &Site, tenant: &Tenant, action: &str, body: Value) -> Value {
    site.client.call("POST", &format!("/v1/rollouts/r/{action}"), &tenant.approver, body).await.ok()
}

/// Polls a few times, so that who is offered the candidate has it, without time passing to speak of.
async fn settle(flock: &mut Flock, site: &Site) {
    for _ in 0..4 {
        site.clock.skip(2);
        flock.poll(site).await;
    }
}

/// Devices that always are bad count once in each stage, in both arms: those that the canary gains would bring theirs alone.
#[test]
fn bad_devices_count_anew_in_each_stage() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([
            { "canary_percent": 20, "control_percent": 30, "device_days": 1000 },
            { "canary_percent": 70, "control_percent": 30, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 60, &one).await;
        flock.devices.iter_mut().for_each(|d| d.behaviour = Behaviour::Always);
        settle(&mut flock, &site).await;
        let canary = flock.running(&two) as u64;
        for _ in 0..2 {
            flock.day(&site, false).await;
        }
        let first = counted(&site, &tenant, "inference_error").await;
        assert_eq!((first.bad, first.of), ((canary, first.bad.1), (canary, first.bad.1)), "each once: {first:?}");
        act(&site, &tenant, "advance", json!({ "stage": 0 })).await;
        for _ in 0..3 {
            flock.day(&site, false).await;
        }
        let wider = flock.running(&two) as u64;
        assert!(wider > canary);
        let second = counted(&site, &tenant, "inference_error").await;
        assert_eq!(second.bad, (canary + wider, 2 * first.bad.1), "each once more: {second:?}");
        assert_eq!(second.of, second.bad);
        assert_eq!(status(&site, &tenant, "r").await["phase"], "Running");
        site.server.stop().await;
    });
}

/// What ended before a rollout, or an attempt, is no news of it; and what is tried again is taken again.
#[test]
fn an_attempt_before_is_no_failure_of_this_one() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([{ "canary_percent": 50, "control_percent": 50, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages.clone()).await;
        let mut flock = Flock::enrol(&site, &tenant, 30, &one).await;
        flock.devices.iter_mut().for_each(|d| d.behaviour = Behaviour::Reverts);
        settle(&mut flock, &site).await;
        let reverted = flock.devices.iter().filter(|d| !d.buried.is_empty()).count();
        assert!((5..26).contains(&reverted), "{reverted} of 30");
        // Whoever resumes begins a new epoch; what was bad until then counts first, and takes it back.
        act(&site, &tenant, "pause", Value::Null).await;
        let resume = site.client.call("POST", "/v1/rollouts/r/resume", &tenant.approver, Value::Null).await;
        assert!(resume.refused(409).contains("failed_start"));
        assert_eq!(status(&site, &tenant, "r").await["phase"], "RolledBack");
        act(&site, &tenant, "retry", Value::Null).await;
        act(&site, &tenant, "start", Value::Null).await;
        flock.devices.iter_mut().for_each(|d| d.behaviour = Behaviour::Good);
        settle(&mut flock, &site).await;
        let again = flock.devices.iter().filter(|d| d.offered.len() == 2 && d.running == Some(two.digest)).count();
        assert!(again > 0, "some are in the canary again");
        assert!(flock.running(&two) > again, "and others for the first time");
        let back = flock.devices.iter().position(|d| d.offered.len() == 2).expect("one that is there again");
        flock.devices[back].revert();
        flock.day(&site, false).await;
        let now = status(&site, &tenant, "r").await;
        assert_eq!(now["phase"], "Running", "{now}");
        assert_eq!(counted(&site, &tenant, "failed_start").await.bad, (1, 0), "of this attempt one: {now}");
        assert_eq!(now["reverted"], 1, "{now}");
        let offers = flock.devices[back].offered.len();
        flock.day(&site, false).await;
        assert_eq!(flock.devices[back].offered.len(), offers, "within an attempt it is not offered again");

        // Another rollout of the same package lifts nothing: who cannot take it is in neither arm.
        act(&site, &tenant, "abort", json!({ "devices": "revert" })).await;
        flock.day(&site, false).await;
        let draft = json!({ "candidates": [two.id()], "base": one.id(),
            "strategy": { "kind": "stages", "stages": stages } });
        site.client.call("PUT", "/v1/rollouts/s", &tenant.operator, draft).await.ok();
        site.client.call("POST", "/v1/rollouts/s/start", &tenant.operator, Value::Null).await.ok();
        settle(&mut flock, &site).await;
        let able = flock.devices.iter().filter(|d| d.buried.is_empty()).count() as i64;
        assert!(able < 30);
        let now = status(&site, &tenant, "s").await;
        let assigned = now["arms"]["ways"].as_array().expect("ways").iter().filter_map(|w| w["assigned"].as_i64());
        assert_eq!(assigned.sum::<i64>(), able, "{now}");
        site.server.stop().await;
    });
}

/// It fails at once again, without a poll between: that is news, although it ends as it did before.
#[test]
fn what_fails_again_in_the_same_way_counts_again() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([{ "canary_percent": 60, "control_percent": 40, "device_days": 1000 }]);
        let (one, _) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 12, &one).await;
        flock.devices.iter_mut().for_each(|d| (d.behaviour, d.is_quick) = (Behaviour::Reverts, true));
        settle(&mut flock, &site).await;
        act(&site, &tenant, "abort", json!({ "devices": "revert" })).await;
        act(&site, &tenant, "retry", Value::Null).await;
        act(&site, &tenant, "start", Value::Null).await;
        flock.day(&site, false).await;
        let again = flock.devices.iter().filter(|d| d.offered.len() == 2).count() as u64;
        assert!(again > 0);
        let all = flock.devices.iter().filter(|d| !d.buried.is_empty() && d.sequence > 1).count() as u64;
        let failed = counted(&site, &tenant, "failed_start").await;
        assert!(failed.bad.0 >= again && failed.bad.0 <= all, "{failed:?} of {again}");
        site.server.stop().await;
    });
}

/// A device that is asked for once a day is neither lost on its way into the comparison nor silent.
#[test]
fn a_poll_a_day_is_enough() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "poll_seconds": 86_400 })).await;
        let stages = json!([
            { "canary_percent": 30, "control_percent": 60, "devices": 40, "device_days": 100 },
            { "canary_percent": 40, "control_percent": 60, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 240, &one).await;
        flock.devices.iter_mut().for_each(|d| d.is_quick = true);
        let mut days = 0;
        while status(&site, &tenant, "r").await["stage"] == 0 && days < 8 {
            // From half to one and a half days apart.
            for half in 0..2 {
                for i in 0..flock.devices.len() {
                    let apart = [2, 3, 2, 1][i % 4];
                    if (2 * days + half + i) % apart == 0 {
                        flock.devices[i].measure_for(43_200 * apart as u32);
                        flock.devices[i].poll(&site.client).await;
                        // What is activated says so when it starts.
                        flock.devices[i].poll(&site.client).await;
                    }
                }
                site.clock.skip(43_230);
            }
            site.server.tick().await;
            days += 1;
            let now = status(&site, &tenant, "r").await;
            assert_eq!(now["phase"], "Running", "day {days}: {now}");
        }
        assert_eq!(status(&site, &tenant, "r").await["stage"], 1, "after {days} days");
        assert!(flock.running(&two) > 0);
        assert_eq!(counted(&site, &tenant, "silence").await.bad, (0, 0), "all are there");
        site.server.stop().await;
    });
}

/// On its first day a device has reported about the base only. That is no day of the candidate, and no value of it.
#[test]
fn only_what_the_candidate_says_is_about_it() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
        publish(&site.client, &tenant, &one).await.ok();
        publish(&site.client, &tenant, &two).await.ok();
        let margin = json!({ "metric": "flip_rate", "absolute": 0.1 });
        let draft = json!({ "candidates": [two.id()], "base": one.id(),
            "gate": { "margins": [margin], "devices": 60, "devices_per_arm": 2 },
            "strategy": { "kind": "stages", "stages": [{ "canary_percent": 50, "control_percent": 50, "device_days": 1000 }] } });
        site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
        act(&site, &tenant, "start", Value::Null).await;
        let mut flock = Flock::enrol(&site, &tenant, 30, &one).await;
        flock.devices.iter_mut().for_each(|d| d.behaviour = Behaviour::Fails);
        flock.devices.iter_mut().for_each(super::device::Device::measure);
        settle(&mut flock, &site).await;
        let canary = flock.running(&two) as u64;
        // The rest of the day says nothing more.
        flock.day(&site, true).await;
        let first = counted(&site, &tenant, "inference_error").await;
        assert_eq!(
            (first.bad, first.of),
            ((0, 0), (0, 30 - canary)),
            "the base's last hours are no day of the candidate"
        );
        assert_eq!(counted(&site, &tenant, "silence").await.bad, (0, 0), "but it was there");
        flock.day(&site, false).await;
        let second = counted(&site, &tenant, "inference_error").await;
        assert_eq!((second.bad.0, second.of.0), (canary, canary));
        let now = status(&site, &tenant, "r").await;
        let devices = &now["arms"]["metrics"][0]["devices"];
        assert_eq!((&devices["canary"], &devices["control"]), (&json!(canary), &json!(30 - canary)), "{now}");
        site.server.stop().await;
    });
}

/// A stage that is left in the middle of a day, and reports that come when it is over, or again.
#[test]
fn no_failure_is_lost_between_days() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([
            { "canary_percent": 50, "control_percent": 50, "device_days": 1000 },
            { "canary_percent": 50, "control_percent": 50, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 12, &one).await;
        settle(&mut flock, &site).await;
        flock.day(&site, false).await;
        let canary: Vec<usize> = (0..12).filter(|i| flock.devices[*i].running == Some(two.digest)).collect();
        assert!(canary.len() >= 3, "{canary:?}");
        let before = counted(&site, &tenant, "inference_error").await;
        assert_eq!(before.bad, (0, 0));

        // One that has reported the day comes with worse about the same day when it is counted already.
        let late = &mut flock.devices[canary[0]];
        late.behaviour = Behaviour::Fails;
        late.measure_for(3600);
        late.behaviour = Behaviour::Good;
        late.measure_for(7200);
        site.clock.skip(600);
        late.poll(&site.client).await;
        flock.day(&site, false).await;
        assert_eq!(counted(&site, &tenant, "inference_error").await.bad, (1, 0), "late, and counted");

        // One fails on the day on which the stage is left.
        let today = &mut flock.devices[canary[1]];
        today.behaviour = Behaviour::Fails;
        today.measure_for(60);
        today.behaviour = Behaviour::Good;
        site.clock.skip(3600);
        today.poll(&site.client).await;
        let moved = act(&site, &tenant, "advance", json!({ "stage": 0 })).await;
        assert_eq!((&moved["phase"], &moved["stage"]), (&json!("Running"), &json!(1)));
        assert_eq!(counted(&site, &tenant, "inference_error").await.bad, (2, 0), "the day that was left");

        // One fails before somebody resumes, and says so afterwards.
        act(&site, &tenant, "pause", Value::Null).await;
        let seen = &mut flock.devices[canary[2]];
        seen.behaviour = Behaviour::Fails;
        seen.measure_for(600);
        seen.behaviour = Behaviour::Good;
        act(&site, &tenant, "resume", Value::Null).await;
        site.clock.skip(60);
        seen.measure_for(3600);
        seen.poll(&site.client).await;
        flock.day(&site, false).await;
        assert_eq!(counted(&site, &tenant, "inference_error").await.bad, (0, 0), "it is of the epoch before");
        site.server.stop().await;
    });
}

/// The server is away for a day: nobody is silent. Then some devices are.
#[test]
fn a_server_that_hears_nobody_calls_nobody_silent() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages = json!([{ "canary_percent": 50, "control_percent": 50, "device_days": 1000 }]);
        let (one, two) = begun(&site, &tenant, stages).await;
        let mut flock = Flock::enrol(&site, &tenant, 24, &one).await;
        settle(&mut flock, &site).await;
        flock.day(&site, false).await;
        let first = counted(&site, &tenant, "silence").await;
        assert_eq!((first.bad, first.of.0 + first.of.1), ((0, 0), 24));
        site.clock.skip(86_400);
        site.server.tick().await;
        assert_eq!(counted(&site, &tenant, "silence").await, first, "a day that says nothing about it");
        let gone = flock.devices.iter().position(|d| d.running == Some(two.digest)).expect("one has the candidate");
        flock.devices.remove(gone);
        flock.day(&site, false).await;
        flock.day(&site, false).await;
        assert_eq!(counted(&site, &tenant, "silence").await.bad, (1, 0), "one is gone");
        site.server.stop().await;
    });
}

async fn digests(database: &Database, device: &[u8; 16]) -> Vec<Option<String>> {
    let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
    let rows = sqlx::query("SELECT digest FROM reports WHERE device = $1 ORDER BY boot, seq").bind(hex(device));
    let rows = rows.fetch_all(&pool).await.expect("rows");
    pool.close().await;
    rows.iter().map(|r| r.get("digest")).collect()
}

/// What a device measured with a package that it does not run any more is told of that package.
#[test]
fn reports_are_about_what_ran() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let packages: Vec<Published> = (1..=3).map(|n| tenant.keys.package("m", n, 500)).collect();
        let mut flock = Flock::enrol(&site, &tenant, 1, &packages[0]).await;
        flock.poll(&site).await;
        let device = &mut flock.devices[0];
        device.measure();
        device.running = Some(packages[1].digest);
        device.measure();
        device.poll(&site.client).await;
        let id = device.id;
        let of = |n: usize| Some(packages[n].id());
        assert_eq!(digests(&database, &id).await, [of(0), of(1)], "what ran at the poll before, and now");
        site.server.stop().await;
    });
}
