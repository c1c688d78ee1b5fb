//! Alerts to a receiver that refuses, takes its time, or sends elsewhere.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::database::Database;
use super::receiver::{Manner, Receiver};
use super::site::{Site, Tenant, on_each_engine, publish};

/// A rollout that finds no devices in its time: an alert that it pauses.
async fn pause(site: &Site, tenant: &Tenant, id: &str) {
    let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
    publish(&site.client, tenant, &one).await.ok();
    publish(&site.client, tenant, &two).await.ok();
    let stages = json!([{ "canary_percent": 50, "control_percent": 50, "soak_hours": 24, "limit_hours": 24 }]);
    let draft =
        json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "stages", "stages": stages } });
    site.client.call("PUT", &format!("/v1/rollouts/{id}"), &tenant.operator, draft).await.ok();
    site.client.call("POST", &format!("/v1/rollouts/{id}/start"), &tenant.operator, Value::Null).await.ok();
    site.clock.skip(25 * 3600);
}

#[test]
fn an_alert_is_posted_until_it_is_taken() {
    on_each_engine(|folder, database| async move {
        let receiver = Receiver::start(Manner::Refuses(500)).await;
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "webhook": receiver.url() })).await;
        pause(&site, &tenant, "r").await;
        site.server.tick().await;
        site.server.tick().await;
        assert_eq!(receiver.came().len(), 1, "not again at once");
        site.clock.skip(15);
        site.server.tick().await;
        assert_eq!(receiver.came().len(), 2, "again after a while");
        site.clock.skip(15);
        site.server.tick().await;
        assert_eq!(receiver.came().len(), 2, "and then after twice as long");
        receiver.now(Manner::Takes);
        site.clock.skip(15);
        site.server.tick().await;
        site.clock.skip(7200);
        site.server.tick().await;
        let bodies = receiver.bodies();
        assert_eq!(bodies.len(), 3, "what was taken is not posted again");
        let body = &bodies[2];
        assert_eq!((&body["tenant"], &body["kind"], &body["rollout"]), (&json!("a"), &json!("pause"), &json!("r")));
        assert_eq!(body["detail"]["decision"]["verdict"], "Pause", "with the numbers: {body}");
        assert_eq!(body["detail"]["playbook"]["next"], "look", "{body}");
        let (path, headers, _) = &receiver.came()[2];
        assert_eq!((path.as_str(), headers["content-type"].as_bytes()), ("/hook", &b"application/json"[..]));
        site.server.stop().await;
    });
}

/// What an alert says is for the address that was given, and for none that it names.
#[test]
fn redirects_are_not_followed() {
    on_each_engine(|folder, database| async move {
        let elsewhere = Receiver::start(Manner::Takes).await;
        let receiver = Receiver::start(Manner::Redirects(elsewhere.url())).await;
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "webhook": receiver.url() })).await;
        pause(&site, &tenant, "r").await;
        site.server.tick().await;
        assert_eq!((receiver.came().len(), elsewhere.came().len()), (1, 0));
        // It counts as not taken.
        site.clock.skip(15);
        site.server.tick().await;
        assert_eq!((receiver.came().len(), elsewhere.came().len()), (2, 0));
        site.server.stop().await;
    });
}

/// A receiver that does not answer keeps neither other tenants' alerts waiting nor decisions, and is given up in time.
#[test]
fn a_slow_receiver_delays_nobody_else() {
    on_each_engine(|folder, database| async move {
        let slow = Receiver::start(Manner::Slow(Duration::from_secs(60))).await;
        let receiver = Receiver::start(Manner::Takes).await;
        let site = Site::start(&folder, &database).await;
        let first = site.tenant("a", 1, json!({ "webhook": slow.url() })).await;
        let second = site.tenant("b", 2, json!({ "webhook": receiver.url() })).await;
        pause(&site, &first, "r").await;
        pause(&site, &second, "r").await;
        let began = Instant::now();
        let watch = async {
            while receiver.came().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // The slow one is still being waited for.
            began.elapsed()
        };
        let ((), waited) = tokio::join!(site.server.tick(), watch);
        assert!(waited < began.elapsed(), "the other came first");
        let alerts = site.client.call("GET", "/v1/alerts", &second.viewer, Value::Null).await.ok();
        assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{alerts}");
        assert_eq!(slow.came().len(), 1);
        slow.now(Manner::Takes);
        site.clock.skip(15);
        site.server.tick().await;
        assert_eq!(slow.came().len(), 2, "tried again");
        site.server.stop().await;
    });
}

/// An alert that nobody has seen, as an earlier state of the server left it.
async fn undelivered(database: &Database, tenant: &str, numbers: std::ops::Range<i64>) {
    let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
    for n in numbers {
        sqlx::query(
            "INSERT INTO alerts (tenant, n, time, rollout, kind, text, detail, acknowledged, acknowledged_by, delivered,
             attempts, due) VALUES ($1, $2, 1, 'r', 'pause', 'text', '{}', NULL, NULL, 0, 0, 0)",
        )
            .bind(tenant)
            .bind(n)
            .execute(&pool)
            .await
            .expect("an alert");
    }
    pool.close().await;
}

/// A tenant whose receiver is gone for long keeps no other waiting, and its own alerts come in their order.
#[test]
fn a_backlog_delays_nobody_else_and_keeps_its_order() {
    on_each_engine(|folder, database| async move {
        let gone = Receiver::start(Manner::Refuses(500)).await;
        let receiver = Receiver::start(Manner::Takes).await;
        let site = Site::start(&folder, &database).await;
        site.tenant("a", 1, json!({ "webhook": gone.url() })).await;
        site.tenant("b", 2, json!({ "webhook": receiver.url() })).await;
        undelivered(&database, "a", 1..300).await;
        undelivered(&database, "b", 1..4).await;
        site.server.tick().await;
        let numbers = |of: &Receiver| of.bodies().iter().filter_map(|b| b["n"].as_i64()).collect::<Vec<_>>();
        assert_eq!(numbers(&receiver), [1, 2, 3]);
        assert_eq!(numbers(&gone), [1], "the others wait for the first");
        site.clock.skip(15);
        site.server.tick().await;
        assert_eq!(numbers(&gone), [1, 1]);
        gone.now(Manner::Takes);
        site.clock.skip(30);
        site.server.tick().await;
        assert_eq!(numbers(&gone)[2..6], [1, 2, 3, 4]);
        site.server.stop().await;
    });
}

/// A tenant has no business on the server's own machine, whatever its webhook's name means.
#[test]
fn webhooks_inside_are_for_who_allows_them() {
    on_each_engine(|folder, database| async move {
        let receiver = Receiver::start(Manner::Takes).await;
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "webhook": receiver.url() })).await;
        undelivered(&database, "a", 1..2).await;
        let clock = site.clock.clone();
        site.server.stop().await;
        let mut config = super::site::config(&folder, &database, &clock);
        config.webhook_internal = false;
        let server = dunlin_fleet::Server::start(config).await.expect("starts");
        let client = super::site::Client::new(server.address());
        for url in ["http://127.0.0.1:9/x", "http://localhost/", "https://169.254.169.254/latest", "http://[::1]/"] {
            let text = client.call("PUT", "/v1/tenant", &tenant.admin, json!({ "webhook": url })).await.refused(422);
            assert!(text.contains("private network"), "{text}");
        }
        client.call("PUT", "/v1/tenant", &tenant.admin, json!({ "webhook": "https://hooks.example.org/" })).await.ok();
        // One that was set before.
        let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
        let settings = json!({ "webhook": receiver.url() }).to_string();
        sqlx::query("UPDATE tenants SET settings = $1 WHERE id = 'a'")
            .bind(settings)
            .execute(&pool)
            .await
            .expect("set");
        pool.close().await;
        server.tick().await;
        assert_eq!(receiver.came().len(), 0);
        server.stop().await;
    });
}
