//! Alerts about silence and rates, gauges, and the rules for Prometheus.

use std::path::Path;
use std::process::Command;

use dunlin_fleet::{Config, Role, Server};
use dunlin_telemetry::window::Counter;
use serde_json::{Value, json};

use super::dashboard::{get, sign_in, text};
use super::device::Device;
use super::receiver::{Manner, Receiver};
use super::site::{Client, Published, Site, Tenant, config, on_each_engine, publish};

/// Seconds between two evaluations, and a little more.
const STEP: u64 = 61;

/// Lets minutes pass in which some devices poll and rules are evaluated.
async fn minutes(site: &Site, devices: &mut [Device], n: u32) {
    for _ in 0..n {
        site.clock.skip(STEP);
        for device in devices.iter_mut() {
            device.poll(&site.client).await;
        }
        site.server.tick().await;
    }
}

async fn list(site: &Site, tenant: &Tenant, path: &str) -> Vec<Value> {
    let all = site.client.call("GET", path, &tenant.viewer, Value::Null).await.ok();
    all.as_array().cloned().unwrap_or_default()
}

/// The only alert of a rule.
async fn alert(site: &Site, tenant: &Tenant, rule: &str) -> Option<Value> {
    let mut found = list(site, tenant, "/v1/alerts?limit=1000").await;
    found.retain(|a| a["kind"] == rule);
    assert!(found.len() < 2, "one alert for one condition: {found:?}");
    found.pop()
}

async fn metrics(client: &Client, token: &str) -> String {
    let headers = [("authorization", format!("Bearer {token}"))];
    let answer = client.send("GET", "/metrics", &headers, Vec::new()).await.expect("an answer");
    assert_eq!(answer.status.as_u16(), 200, "{}", text(&answer));
    text(&answer)
}

async fn fleet(site: &Site, tenant: &Tenant, n: u32) -> (Published, Vec<Device>) {
    let package = tenant.keys.package("m", 1, 500);
    publish(&site.client, tenant, &package).await.ok();
    let mut devices = Vec::new();
    for i in 0..n {
        devices.push(Device::enrol(&site.client, tenant, i, Some(package.digest), &site.clock).await);
    }
    (package, devices)
}

#[test]
fn the_silence_of_most_devices_is_an_alert_until_it_ends() {
    on_each_engine(|folder, database| async move {
        let receiver = Receiver::start(Manner::Takes).await;
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "poll_seconds": 60, "webhook": receiver.url() })).await;
        let other = site.tenant("b", 2, json!({})).await;
        let (_, mut devices) = fleet(&site, &tenant, 50).await;
        let cookie = sign_in(&site, &tenant.viewer).await;
        let calm = async || {
            let page = text(&get(&site, "/", &cookie).await);
            let calm = page.split("class=\"calm\">").nth(1).and_then(|rest| rest.split("</p>").next());
            calm.unwrap_or_default().to_owned()
        };
        // Nothing is known yet, and so there is no tick.
        assert!(calm().await.contains("not evaluated yet") && !calm().await.contains("mark good"), "{}", calm().await);
        minutes(&site, &mut devices, 2).await;
        assert!(calm().await.contains("too early"), "{}", calm().await);
        minutes(&site, &mut devices, 2).await;
        assert!(calm().await.contains("too few reports") && !calm().await.contains("mark good"), "{}", calm().await);
        for device in &mut devices {
            device.measure();
        }
        minutes(&site, &mut devices, 2).await;
        assert!(calm().await.contains("mark good"), "{}", calm().await);

        // 96 of a hundred fall silent.
        let mut silent = devices.split_off(2);
        minutes(&site, &mut devices, 5).await;
        let open = alert(&site, &tenant, "silent").await.expect("an alert");
        assert_eq!(
            (&open["state"], &open["severity"], &open["key"]),
            (&json!("open"), &json!("critical"), &json!("silent/m"))
        );
        assert!(open["text"].as_str().is_some_and(|t| t.contains("48 of 50 devices are silent (96.0 %)")), "{open}");
        let page = text(&get(&site, "/", &cookie).await);
        assert!(page.contains("48 of 50 devices are silent") && !page.contains("No open alerts"), "{page}");
        let rules = list(&site, &tenant, "/v1/alerts/rules").await;
        let rule = rules.iter().find(|r| r["rule"] == "silent").expect("the rule");
        assert_eq!(
            (&rule["status"], &rule["bad"], &rule["total"]),
            (&json!("firing"), &json!(48), &json!(50)),
            "{rule}"
        );
        site.clock.skip(16);
        let gauges = metrics(&site.client, &tenant.viewer).await;
        for line in [
            r#"dunlin_fleet_devices{tenant="a",model="m",state="silent"} 48"#,
            r#"dunlin_fleet_devices{tenant="a",model="m",state="online"} 2"#,
            r#"dunlin_fleet_open_alerts{tenant="a",rule="silent",severity="critical"} 1"#,
            r#"dunlin_fleet_rule_firing{tenant="a",rule="silent",model="m"} 1"#,
            r#"dunlin_fleet_rule_ratio{tenant="a",rule="silent",model="m"} 0.96"#,
            r#"dunlin_fleet_serving_stopped{tenant="a",model=""} 0"#,
            "dunlin_fleet_ingest_queue_depth 0",
        ] {
            assert!(gauges.contains(line), "{line}\n{gauges}");
        }
        assert!(!metrics(&site.client, &other.viewer).await.contains("tenant=\"a\""), "another tenant's are not shown");

        // All are back; the alert ends when that has lasted.
        devices.append(&mut silent);
        minutes(&site, &mut devices, 2).await;
        assert_eq!(alert(&site, &tenant, "silent").await.expect("it")["state"], "open", "not at once");
        minutes(&site, &mut devices, 11).await;
        let closed = alert(&site, &tenant, "silent").await.expect("it");
        assert!(closed["state"] == "resolved" && closed["resolved"].is_i64(), "{closed}");
        let told: Vec<Value> = receiver.bodies().into_iter().filter(|b| b["kind"] == "silent").collect();
        let states: Vec<&Value> = told.iter().map(|b| &b["state"]).collect();
        assert_eq!(states, [&json!("open"), &json!("resolved")], "{told:?}");
        assert!(text(&get(&site, "/alerts", &cookie).await).contains("resolved"));
        site.server.stop().await;
    });
}

#[test]
fn error_miss_and_restart_rates_are_alerts() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "poll_seconds": 60 })).await;
        let (_, mut devices) = fleet(&site, &tenant, 12).await;
        let rules = [
            ("inference_errors", Counter::InferenceErrors),
            ("deadline_misses", Counter::DeadlineMisses),
            ("resets", Counter::Resets),
        ];
        minutes(&site, &mut devices, 1).await;
        for device in &mut devices {
            device.measure_hours(1, |recorder, _| {
                recorder.count(Counter::InferenceErrors, 400);
                recorder.count(Counter::DeadlineMisses, 600);
                recorder.count(Counter::Resets, 1);
            });
        }
        minutes(&site, &mut devices, 2).await;
        for (rule, _) in rules {
            let open = alert(&site, &tenant, rule).await.unwrap_or_else(|| panic!("{rule}"));
            assert_eq!((&open["state"], &open["severity"]), (&json!("open"), &json!("critical")), "{open}");
        }
        // An hour later no report says anything: nothing is resolved by that.
        minutes(&site, &mut devices, 75).await;
        for (rule, _) in rules {
            assert_eq!(alert(&site, &tenant, rule).await.expect("it")["state"], "open", "{rule}: no data is no pass");
        }
        for device in &mut devices {
            device.measure_hours(1, |_, _| ());
        }
        minutes(&site, &mut devices, 14).await;
        for (rule, _) in rules {
            assert_eq!(alert(&site, &tenant, rule).await.expect("it")["state"], "resolved", "{rule}");
        }
        site.server.stop().await;
    });
}

#[test]
fn a_fleet_is_compared_with_its_own_days() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "poll_seconds": 60 })).await;
        let other = site.tenant("b", 2, json!({ "poll_seconds": 60 })).await;
        let (_, mut devices) = fleet(&site, &tenant, 60).await;
        let (_, mut others) = {
            let package = other.keys.package("m", 1, 500);
            publish(&site.client, &other, &package).await.ok();
            let mut devices = Vec::new();
            for i in 1000..1060 {
                devices.push(Device::enrol(&site.client, &other, i, Some(package.digest), &site.clock).await);
            }
            (package, devices)
        };
        // One of a hundred was silent on each of two weeks' days at this time of day with the first, four of ten with the
        // other.
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
        let hour = i64::try_from(dunlin_fleet::Clock::seconds(&site.clock) / 3600).expect("a time");
        for (tenant, bad) in [("a", 1i64), ("b", 40)] {
            for back in 1..=14 * 24i64 {
                sqlx::query("INSERT INTO alert_samples VALUES ($1, 'silent', 'm', $2, $3, 100)")
                    .bind(tenant)
                    .bind(hour - back)
                    .bind(bad + back % 2)
                    .execute(&pool)
                    .await
                    .expect("inserted");
            }
        }
        pool.close().await;
        let both = |devices: &mut Vec<Device>, others: &mut Vec<Device>| {
            let mut all = std::mem::take(devices);
            all.append(others);
            all
        };
        let mut all = both(&mut devices, &mut others);
        minutes(&site, &mut all, 4).await;
        // A third of both falls silent.
        let mut index = 0;
        all.retain(|_| {
            index += 1;
            index % 3 != 0
        });
        minutes(&site, &mut all, 5).await;
        let open = alert(&site, &tenant, "silent").await.expect("unusual for the first");
        assert_eq!((&open["state"], &open["severity"]), (&json!("open"), &json!("warning")), "{open}");
        assert!(
            open["text"].as_str().is_some_and(|t| t.contains("20 of 60") && t.contains("usual at this time of day")),
            "{open}"
        );
        assert_eq!(alert(&site, &other, "silent").await, None, "and usual for the other");
        // A tenant may set the limit that always holds.
        let limits = json!({ "silent": 0.2, "inference_errors": 0.2, "deadline_misses": 0.2, "resets": 0.2 });
        site.client.call("PUT", "/v1/tenant", &other.admin, json!({ "alert_limits": limits })).await.ok();
        let mut waited = 0;
        while alert(&site, &other, "silent").await.is_none() {
            assert!(waited < 3, "the limit that was set holds from the next evaluation on");
            minutes(&site, &mut all, 1).await;
            waited += 1;
        }
        let wrong = json!({ "alert_limits": { "silent": 50.0 } });
        let refused = site.client.call("PUT", "/v1/tenant", &other.admin, wrong).await.refused(422);
        assert!(refused.contains("alert_limits.silent: 50"), "{refused}");
        site.server.stop().await;
    });
}

#[test]
fn gauges_are_for_those_with_a_token_or_a_way_of_their_own() {
    on_each_engine(|folder, database| async move {
        let clock = dunlin_fleet::ManualClock::new();
        let mut with: Config = config(&folder, &database, &clock);
        with.metrics_listen = Some(([127, 0, 0, 1], 0).into());
        let server = Server::start(with).await.expect("the server starts");
        let system = server.token("system", "installer", Role::Admin).await.expect("a token");
        let site = Site { client: Client::new(server.address()), server, clock, system };
        let tenant = site.tenant("a", 1, json!({})).await;
        Device::enrol(&site.client, &tenant, 1, None, &site.clock).await;
        let open = site.client.send("GET", "/metrics", &[], Vec::new()).await.expect("an answer");
        assert!(
            text(&open).contains("dunlin_fleet_polls_total") && !text(&open).contains("tenant="),
            "{}",
            text(&open)
        );
        for (token, status) in [("dnl_0", 401), (tenant.enrol.as_str(), 403)] {
            let headers = [("authorization", format!("Bearer {token}"))];
            site.client.send("GET", "/metrics", &headers, Vec::new()).await.expect("an answer").refused(status);
        }
        let line = r#"dunlin_fleet_devices{tenant="a",model="m",state="never"} 1"#;
        assert!(metrics(&site.client, &tenant.viewer).await.contains(line));
        assert!(metrics(&site.client, &site.system).await.contains(line), "the installation sees all");
        let apart = Client::new(site.server.metrics_address().expect("an address"));
        let all = apart.send("GET", "/metrics", &[], Vec::new()).await.expect("an answer");
        assert!(text(&all).contains(line) && text(&all).contains("dunlin_fleet_polls_total"), "{}", text(&all));
        let nothing = apart.send("GET", "/v1/tenants", &[], Vec::new()).await.expect("an answer");
        assert_eq!(nothing.status.as_u16(), 404, "and nothing else is there");
        site.server.stop().await;
    });
}

/// Every series that the rules ask for is one that the server has, and `promtool` fires each rule.
#[test]
fn the_rules_for_prometheus_load_and_fire() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus");
    let rules = std::fs::read_to_string(folder.join("rules.yml")).expect("rules");
    let tests = std::fs::read_to_string(folder.join("rules.test.yml")).expect("tests");
    let names: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 12, "{names:?}");
    for name in &names {
        assert!(tests.contains(&format!("alertname: {name}")), "{name} has no test");
    }
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    if !Command::new(&promtool).arg("--version").output().is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: promtool is not installed");
        return;
    }
    for arguments in [["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]] {
        let output = Command::new(&promtool).args(arguments).current_dir(&folder).output().expect("promtool runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{said}");
        eprintln!("{said}");
    }
}
