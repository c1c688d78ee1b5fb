//! Two servers on one PostgreSQL: either decides, and never both.

use dunlin_fleet::{Config, Role, Server};
use serde_json::{Value, json};

use super::database;
use super::device::Device;
use super::rollouts::Flock;
use super::site::{self, Client, Site, config, publish};

#[test]
fn two_replicas_decide_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(database) = database::all(folder.path()).into_iter().find(|d| d.engine == "postgres") else { return };
    runtime.block_on(async {
        let site = Site::start(folder.path(), &database).await;
        let second = Server::start(config(folder.path(), &database, &site.clock)).await.expect("starts");
        let other = Client::new(second.address());
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
        publish(&site.client, &tenant, &one).await.ok();
        publish(&other, &tenant, &two).await.ok();
        let stages: Vec<Value> =
            (1..=4).map(|n| json!({ "canary_percent": 15 * n, "control_percent": 40, "device_days": 1 })).collect();
        let draft =
            json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "stages", "stages": stages } });
        for client in [&site.client, &other] {
            client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft.clone()).await.ok();
        }
        // Both are asked to start it at one moment.
        let start = |client: &Client| {
            let (client, token) = (client.clone(), tenant.operator.clone());
            async move { client.call("POST", "/v1/rollouts/r/start", &token, Value::Null).await.ok() }
        };
        tokio::join!(start(&site.client), start(&other));
        let mut flock = Flock::enrol(&site, &tenant, 80, &one).await;
        for _ in 0..9 {
            for quarter in 0..4 {
                if quarter == 3 {
                    flock.devices.iter_mut().for_each(Device::measure);
                }
                // Half of the devices speak to the one, half to the other.
                let polls = flock
                    .devices
                    .iter_mut()
                    .enumerate()
                    .map(|(n, device)| device.poll(if n % 2 == 0 { &site.client } else { &other }));
                futures_util::future::join_all(polls).await;
                site.clock.skip(6 * 3600 + 20);
            }
            tokio::join!(site.server.tick(), second.tick(), site.server.tick(), second.tick());
        }
        let verdicts = other.call("GET", "/v1/rollouts/r/verdicts", &tenant.viewer, Value::Null).await.ok();
        let verdicts = verdicts.as_array().expect("a list");
        let advances: Vec<i64> =
            verdicts.iter().filter(|v| v["verdict"] == "Advance").filter_map(|v| v["stage"].as_i64()).collect();
        assert_eq!(advances, [0, 1, 2, 3], "{verdicts:?}");
        let audit = other.call("GET", "/v1/audit?limit=1000", &tenant.viewer, Value::Null).await.ok();
        let starts = audit.as_array().expect("a list").iter().filter(|e| e["action"] == "rollout.start").count();
        assert_eq!(starts, 1, "one start");
        let store = dunlin_fleet::store::Store::open(&database.url, 2).await.expect("opens");
        let chain = dunlin_fleet::store::audit::verify(&store, "a").await.expect("read");
        assert!(matches!(chain, dunlin_fleet::store::audit::Chain::Whole { .. }), "{chain:?}");
        store.close().await;
        second.stop().await;
        site.server.stop().await;
    });
}

/// The clock that tests skip is the one of the server under test, also where it decides by itself.
#[test]
fn the_server_decides_by_itself() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    runtime.block_on(async {
        let clock = dunlin_fleet::ManualClock::new();
        let database = database::all(folder.path()).swap_remove(0);
        let mut config: Config = config(folder.path(), &database, &clock);
        config.tick = std::time::Duration::from_millis(20);
        let server = Server::start(config).await.expect("starts");
        let client = Client::new(server.address());
        let system = server.token("system", "installer", Role::Admin).await.expect("a token");
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
        publish(&client, &tenant, &one).await.ok();
        publish(&client, &tenant, &two).await.ok();
        let stages = json!([{ "canary_percent": 50, "control_percent": 50, "soak_hours": 24, "limit_hours": 24 }]);
        let draft =
            json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "stages", "stages": stages } });
        client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
        client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
        clock.skip(25 * 3600);
        for _ in 0..500 {
            let status = client.call("GET", "/v1/rollouts/r", &tenant.viewer, Value::Null).await.ok();
            if status["phase"] == "Paused" {
                server.stop().await;
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("nothing was decided: there were no devices, and the stage's time is over");
    });
}
