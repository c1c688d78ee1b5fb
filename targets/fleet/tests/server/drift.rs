//! Drift: from reports to numbers, alarms and alerts.

use dunlin_fleet::{Clock as _, Server};
use serde_json::{Value, json};

use super::dashboard::{Kept, observe, with_reference};
use super::receiver::{Manner, Receiver};
use super::rollouts::Flock;
use super::site::{Site, Tenant, config, on_each_engine, publish};

const DAY: u64 = 86_400;

/// A day of UTC on which all devices see these classes; then both servers judge it.
async fn day(site: &Site, second: Option<&Server>, flock: &mut Flock, kept: &mut [Kept], classes: [u32; 2]) {
    site.clock.skip(DAY - site.clock.seconds() % DAY + 3600);
    for (device, kept) in flock.devices.iter_mut().zip(kept) {
        observe(device, kept, 3600, classes, 0);
    }
    flock.poll(site).await;
    // Into the next day, a little later than replicas' clocks may differ.
    site.clock.skip(DAY - site.clock.seconds() % DAY + 300);
    for _ in 0..2 {
        match second {
            Some(second) => drop(tokio::join!(site.server.tick(), second.tick())),
            None => site.server.tick().await,
        }
    }
}

async fn get(site: &Site, tenant: &Tenant, path: &str) -> Value {
    site.client.call("GET", path, &tenant.viewer, Value::Null).await.ok()
}

/// Kinds of the alerts, and what of them is asked for.
async fn alerts(site: &Site, tenant: &Tenant) -> Vec<(String, Value)> {
    let list = get(site, tenant, "/v1/alerts").await;
    let one = |alert: &Value| {
        let detail = serde_json::from_str(alert["detail"].as_str().expect("text")).expect("JSON");
        (alert["kind"].as_str().expect("a kind").to_owned(), detail)
    };
    list.as_array().expect("a list").iter().map(one).collect()
}

#[test]
fn two_days_of_drift_make_one_alert_and_a_steady_one_ends_it() {
    on_each_engine(|folder, database| async move {
        let receiver = Receiver::start(Manner::Takes).await;
        let site = Site::start(&folder, &database).await;
        let second = match database.engine {
            "postgres" => Some(Server::start(config(&folder, &database, &site.clock)).await.expect("starts")),
            _ => None,
        };
        let tenant = site.tenant("a", 1, json!({ "webhook": receiver.url() })).await;
        let other = site.tenant("b", 2, json!({})).await;
        let one = with_reference(&tenant, &tenant.keys.package("m", 1, 500), 1);
        publish(&site.client, &tenant, &one).await.ok();
        let mut flock = Flock::enrol(&site, &tenant, 40, &one).await;
        let mut kept: Vec<Kept> = flock.devices.iter().map(|_| None).collect();
        let path = format!("/v1/drift?digest={}", one.id());

        day(&site, second.as_ref(), &mut flock, &mut kept, [90, 10]).await;
        let now = get(&site, &tenant, &path).await;
        assert_eq!((&now[0]["cohort"], &now[0]["devices"]), (&json!("all"), &json!(40)), "{now}");
        assert_eq!((&now[0]["level"], &now[0]["version"]), (&json!("act"), &json!("1.1")), "{now}");
        let psi = now[0]["verdicts"].as_array().expect("a list");
        let psi = psi.iter().find(|v| v["subject"] == "class" && v["statistic"] == "psi").expect("a verdict");
        // 0.4 ln(0.9 / 0.5) + 0.4 ln(0.5 / 0.1), less a little noise.
        let exact = 0.4 * (1.8f64.ln() + 5f64.ln());
        assert!((psi["value"].as_f64().expect("a number") - exact).abs() < 0.01, "{psi}");
        assert_eq!((&psi["n"], &psi["m"], &psi["unit"]), (&json!(4000), &json!(10_000), &json!("device")), "{psi}");
        assert_eq!(now[0]["alarms"], json!({}), "one day is no alarm: {now}");
        assert!(alerts(&site, &tenant).await.is_empty());

        for days in 2..=3 {
            day(&site, second.as_ref(), &mut flock, &mut kept, [90, 10]).await;
            let alerts = alerts(&site, &tenant).await;
            assert_eq!(alerts.len(), 1, "once, also after {days} days: {alerts:?}");
        }
        let (kind, detail) = alerts(&site, &tenant).await.remove(0);
        assert_eq!((kind.as_str(), &detail["digest"], &detail["cohort"]), ("drift", &json!(one.id()), &json!("all")));
        assert_eq!(detail["playbook"]["next"], "capture", "{detail}");
        let told = detail["verdicts"].as_array().expect("a list");
        assert!(told.iter().any(|v| v["statistic"] == "psi" && v["level"] == "act"), "{detail}");
        let alarms = get(&site, &tenant, "/v1/drift/alarms").await;
        assert_eq!(alarms[0]["alarms"]["class"]["alert"], 1, "{alarms}");
        let days = get(&site, &tenant, &format!("/v1/drift/{}/windows", one.id())).await;
        assert_eq!(days.as_array().map(Vec::len), Some(3), "{days}");

        // A day of which nothing is known neither calms nor alarms; a steady one ends it.
        let rest = flock.devices.split_off(5);
        day(&site, second.as_ref(), &mut flock, &mut kept, [50, 50]).await;
        assert_eq!(alerts(&site, &tenant).await.len(), 1, "five devices say nothing");
        flock.devices.extend(rest);
        for _ in 0..2 {
            day(&site, second.as_ref(), &mut flock, &mut kept, [50, 50]).await;
            let kinds: Vec<_> = alerts(&site, &tenant).await.into_iter().map(|(kind, _)| kind).collect();
            assert_eq!(kinds, ["drift", "drift_cleared"]);
        }
        assert_eq!(get(&site, &tenant, "/v1/drift/alarms").await, json!([]));
        // What the webhook got is what the list has, each once.
        let bodies = receiver.bodies();
        let kinds: Vec<_> = bodies.iter().map(|b| b["kind"].as_str().unwrap_or_default()).collect();
        assert_eq!(kinds, ["drift", "drift_cleared"], "{bodies:?}");
        assert_eq!(bodies[0]["detail"]["playbook"]["next"], "capture");

        assert_eq!(get(&site, &other, &path).await[0]["devices"], 0, "another tenant's are not seen");
        let days = format!("/v1/drift/{}/windows", one.id());
        site.client.call("GET", &days, &other.viewer, Value::Null).await.refused(404);
        site.client.call("GET", "/v1/drift?hours=999", &tenant.viewer, Value::Null).await.refused(400);
        if let Some(second) = second {
            second.stop().await;
        }
        site.server.stop().await;
    });
}
