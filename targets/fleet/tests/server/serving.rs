//! The kill switch and flags, from the API and the browser.

use std::collections::BTreeMap;

use dunlin_fleet::wire;
use dunlin_rollout::{Context, Flag, Flags};
use dunlin_update::trust::{Document, Ed25519, Role, SecretKey};
use serde_json::{Value, json};

use super::dashboard::{get, press_on, sign_in, text, told};
use super::device::Device;
use super::site::{Site, Tenant, on_each_engine};

const SERVE: Flag<bool> = Flag::new("dunlin.serve", true);

/// Polls twice: the flags come with the first answer, and the second poll says that they are there. Returns whether a device
/// that runs `model` would run it, and the sequence.
async fn obeys(site: &Site, tenant: &Tenant, device: &mut Device, model: &str) -> (bool, u64) {
    let document = device.poll(&site.client).await.flags.expect("new flags");
    let read = Document::read(&document, Role::Rollout).expect("a document");
    read.check(&tenant.root, Role::Rollout, &Ed25519).expect("signed");
    let (_, payload): (&str, &[u8]) = postcard::from_bytes(read.payload()).expect("flags");
    let flags = Flags::open(payload).expect("flags");
    let context = Context { identity: &device.id, attributes: &[], model, now: None };
    let serves = SERVE.evaluate(Some(&flags), &context).value;
    device.flags = flags.sequence();
    device.poll(&site.client).await;
    (serves, flags.sequence())
}

async fn alerts(site: &Site, tenant: &Tenant) -> Vec<(String, String)> {
    let all = site.client.call("GET", "/v1/alerts", &tenant.viewer, Value::Null).await.ok();
    let field = |a: &Value, name: &str| a[name].as_str().unwrap_or_default().to_owned();
    let stops = all.as_array().into_iter().flatten().filter(|a| a["kind"] == "serving_stopped");
    stops.map(|a| (field(a, "key"), field(a, "state"))).collect()
}

#[test]
fn inference_is_stopped_and_resumed() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "poll_seconds": 60 })).await;
        let call =
            async |method: &str, path: &str, body: Value| site.client.call(method, path, &tenant.operator, body).await;
        // From the first minute.
        let first = call("GET", "/v1/flags", Value::Null).await.ok();
        assert_eq!((&first["version"], &first["flags"][0]["key"]), (&json!(0), &json!("dunlin.serve")), "{first}");
        assert_eq!(call("GET", "/v1/serving", Value::Null).await.ok()["serving"], true);
        let mut devices = Vec::new();
        for n in 0..3 {
            let mut device = Device::enrol(&site.client, &tenant, n, None, &site.clock).await;
            device.poll(&site.client).await;
            devices.push(device);
        }
        assert!(call("POST", "/v1/serving/stop", json!({ "model": "n" })).await.refused(404).contains("\"n\""));
        call("POST", "/v1/serving/stop", json!({ "model": "" })).await.refused(400);
        site.client.call("POST", "/v1/serving/stop", &tenant.viewer, json!({})).await.refused(403);

        let stop = json!({ "model": "m", "reason": "wrong labels" });
        let stopped = call("POST", "/v1/serving/stop", stop.clone()).await.ok();
        let seen = |status: &Value| {
            let stop = &status["stops"][0];
            (stop["devices"].as_i64(), stop["obeying"].as_i64(), stop["waiting"].as_i64())
        };
        assert_eq!(seen(&stopped), (Some(3), Some(0), Some(3)), "{stopped}");
        assert_eq!(
            (&stopped["stops"][0]["by"], &stopped["stops"][0]["reason"]),
            (&json!("a-operator"), &json!("wrong labels"))
        );
        // Again it is the same stop, by whoever was first.
        let again = site.client.call("POST", "/v1/serving/stop", &tenant.admin, json!({ "model": "m" })).await.ok();
        assert_eq!((&again["version"], &again["stops"][0]["by"]), (&stopped["version"], &json!("a-operator")));
        let (serves, _) = obeys(&site, &tenant, &mut devices[0], "m").await;
        assert!(!serves, "the model is stopped");
        let (others, _) = obeys(&site, &tenant, &mut devices[1], "other").await;
        assert!(others, "another one is not");
        assert_eq!(seen(&call("GET", "/v1/serving", Value::Null).await.ok()), (Some(3), Some(2), Some(1)));
        // Who is silent cannot know.
        site.clock.skip(181);
        assert_eq!(call("GET", "/v1/serving", Value::Null).await.ok()["stops"][0]["silent"], 1);
        assert_eq!(alerts(&site, &tenant).await, [("serving_stopped/m".to_owned(), "open".to_owned())]);
        // To look after the alert does not end it.
        call("POST", "/v1/alerts/1/acknowledge", Value::Null).await.ok();
        assert_eq!(alerts(&site, &tenant).await[0].1, "open");

        let all = call("POST", "/v1/serving/stop", json!({ "reason": "all of it" })).await.ok();
        assert_eq!(all["stops"].as_array().map(Vec::len), Some(1), "the whole fleet has the one model in it: {all}");
        assert!(!obeys(&site, &tenant, &mut devices[1], "other").await.0);
        assert!(call("POST", "/v1/serving/resume", json!({ "model": "m" })).await.refused(409).contains("whole fleet"));
        // Flags that were written before do not start it by accident.
        let version = all["version"].as_u64().expect("a version");
        let flags = json!({ "version": version, "flags": [] });
        assert!(call("PUT", "/v1/flags", flags).await.refused(409).contains("stopped"));
        let resumed = call("POST", "/v1/serving/resume", json!({ "reason": "fixed" })).await.ok();
        assert_eq!((&resumed["serving"], resumed["stops"].as_array().map(Vec::len)), (&json!(true), Some(0)));
        assert!(obeys(&site, &tenant, &mut devices[1], "m").await.0);
        assert!(alerts(&site, &tenant).await.iter().all(|(_, state)| state == "resolved"));
        let log = site.client.call("GET", "/v1/audit?limit=1000", &tenant.viewer, Value::Null).await.ok();
        let entry = |action: &str| {
            let entries = log.as_array().into_iter().flatten();
            entries.filter(|e| e["action"] == action).map(|e| e["detail"].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(entry("serving.stop").len(), 2);
        assert!(entry("serving.stop")[0].contains("wrong labels") && entry("serving.resume")[0].contains("fixed"));
        // A stop that is written into the flags is one too.
        let mut flags = call("GET", "/v1/flags", Value::Null).await.ok();
        flags["flags"][0]["killed"] = json!(true);
        call("PUT", "/v1/flags", flags).await.ok();
        let status = call("GET", "/v1/serving", Value::Null).await.ok();
        assert_eq!((&status["serving"], &status["stops"][0]["by"]), (&json!(false), &json!("a-operator")));
        site.server.stop().await;
    });
}

/// Enrols a device with attributes.
async fn enrol(site: &Site, tenant: &Tenant, n: u8, attributes: &[(&str, &str)]) {
    let key = SecretKey::from_seed([n + 1; 32]).expect("a seed");
    let attributes: BTreeMap<String, String> =
        attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let request = wire::Enrol { key: key.public(), target: "sim".into(), model: "m".into(), attributes };
    let body = postcard::to_allocvec(&request).expect("encodes");
    let headers = [
        ("authorization", format!("Bearer {}", tenant.enrol)),
        (wire::SIGNATURE, wire::signature(&key, "POST", "/d/v1/enrol", "0", &body)),
    ];
    let answer = site.client.send("POST", "/d/v1/enrol", &headers, body).await.expect("an answer");
    assert_eq!(answer.status.as_u16(), 200);
}

#[test]
fn flags_are_checked_and_previewed_before_they_are_stored() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let call =
            async |method: &str, path: &str, body: Value| site.client.call(method, path, &tenant.operator, body).await;
        for n in 0..40u8 {
            let region = if n < 10 { "eu" } else { "us" };
            enrol(&site, &tenant, n, &[("region", region), ("year", if n % 2 == 0 { "2024" } else { "2020" })]).await;
        }
        let flags = |rules: Value| {
            json!({ "version": 0, "flags": [
                { "key": "bikes", "variants": { "on": true, "off": false }, "default": "off", "rules": rules }] })
        };
        let wrong = call("PUT", "/v1/flags", flags(json!(["region = eu -> onn"]))).await.refused(422);
        assert!(wrong.contains("flags[0].rules[0]") && wrong.contains("\"onn\""), "{wrong}");
        let rules = json!(["regoin = eu -> on", "region = eu and year 2022..2026 -> on", "dunlin.model = other -> on"]);
        let plan = call("PUT", "/v1/flags?dry_run=true", flags(rules.clone())).await.ok();
        let change = plan["changes"].as_array().into_iter().flatten().find(|c| c["key"] == "bikes").expect("a change");
        assert_eq!(change["change"], "added");
        assert_eq!(change["after"]["variants"], json!({ "on": 5, "off": 35 }), "{plan}");
        assert_eq!(change["after"]["unknown_attributes"], json!(["regoin"]), "{plan}");
        assert_eq!(call("GET", "/v1/flags", Value::Null).await.ok()["version"], 0, "nothing is stored");
        call("PUT", "/v1/flags", flags(rules)).await.ok();
        let reach = call("GET", "/v1/flags/preview?key=bikes", Value::Null).await.ok();
        assert_eq!((&reach[0]["devices"], &reach[0]["variants"]["on"]), (&json!(40), &json!(5)), "{reach}");
        call("GET", "/v1/flags/preview?key=none", Value::Null).await.refused(404);
        // What is read can be put.
        let shown = call("GET", "/v1/flags", Value::Null).await.ok();
        assert_eq!(shown["flags"][0]["variants"], json!({ "on": true, "off": false }), "{shown}");
        let split = json!([{ "serve": { "split": [{ "variant": "on", "percent": 50 }] } }]);
        let mut next = shown.clone();
        next["flags"][0]["rules"] = split;
        let put = call("PUT", "/v1/flags", next).await.ok();
        assert_eq!(put["version"], 2);
        let reach = call("GET", "/v1/flags/preview", Value::Null).await.ok();
        let on = reach[0]["variants"]["on"].as_i64().expect("a number");
        assert!((8..=32).contains(&on), "about half of 40: {on}");
        // The schema names every part, and its example is one that the server takes.
        let api = call("GET", "/openapi.json", Value::Null).await.ok();
        let example = &api["components"]["schemas"]["FlagsBody"]["example"];
        let mut example = example.clone();
        example["version"] = json!(2);
        assert_eq!(call("PUT", "/v1/flags", example).await.ok()["version"], 3);
        site.server.stop().await;
    });
}

#[test]
fn the_browser_stops_resumes_and_sets_flags() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        Device::enrol(&site.client, &tenant, 1, None, &site.clock).await;
        let cookie = sign_in(&site, &tenant.operator).await;
        let viewer = sign_in(&site, &tenant.viewer).await;
        let page = async |path: &str| text(&get(&site, path, &cookie).await);
        assert!(page("/").await.contains("href=\"/serving/stop\"") && !page("/").await.contains("class=\"stopped\""));
        assert!(!text(&get(&site, "/", &viewer).await).contains("/serving/stop"), "a viewer has no button");
        assert_eq!(get(&site, "/serving/stop", &viewer).await.status.as_u16(), 409);
        assert!(page("/serving/stop").await.contains("only m"));
        assert_eq!(get(&site, "/serving/stop?model=other", &cookie).await.status.as_u16(), 404);
        // Not without the right word.
        for typed in ["", "b", "m"] {
            let answer = press_on(&site, &cookie, "/serving/stop", "/serving/stop", &format!("typed={typed}")).await;
            assert_eq!(answer.status.as_u16(), 409, "{typed:?}");
        }
        let answer = press_on(&site, &cookie, "/serving/stop", "/serving/stop", "typed=a&model=m").await;
        assert_eq!(answer.status.as_u16(), 409, "the tenant's id stops no single model");
        assert!(!page("/").await.contains("class=\"stopped\""));
        let answer =
            press_on(&site, &cookie, "/serving/stop", "/serving/stop", "typed=a&reason=dark+%3Cframes%3E").await;
        assert!(told(&site, &cookie, &answer).await.contains("stopped"));
        for path in ["/", "/rollouts", "/devices", "/flags", "/audit", "/alerts"] {
            let page = page(path).await;
            for words in [
                "All inference is stopped",
                "by a-operator",
                "dark &#60;frames&#62;",
                "0 of 1 devices obey",
                "/serving/resume",
            ] {
                assert!(page.contains(words), "{path} does not say {words}: {page}");
            }
        }
        assert!(page("/").await.contains("id=\"alert-1\""), "and an alert is open");
        assert!(!text(&get(&site, "/", &viewer).await).contains("/serving/resume"));
        let answer = press_on(&site, &cookie, "/serving/resume", "/serving/resume", "reason=fixed").await;
        assert!(told(&site, &cookie, &answer).await.contains("resumed"));
        assert!(!page("/").await.contains("class=\"stopped\"") && !page("/").await.contains("id=\"alert-1\""));
        assert!(page("/alerts").await.contains("resolved"));

        // A flag: wrong, previewed, saved, killed and revived.
        let fields = "key=bikes&variants=on+%3D+true%0Aoff+%3D+false&default=off&off=off";
        let preview =
            async |fields: &str| text(&press_on(&site, &cookie, "/flags/edit", "/flags/preview", fields).await);
        let wrong = preview(&format!("{fields}&rules=dunlin.model+%3D+m+-%3E+onn")).await;
        assert!(wrong.contains("there is no variant &#34;onn&#34;") && !wrong.contains("formaction"), "{wrong}");
        let fields = format!("{fields}&rules=dunlin.model+%3D+m+-%3E+on&percent=&percent_variant=");
        let shown = preview(&fields).await;
        assert!(shown.contains("Whom it reaches") && shown.contains("100 %"), "{shown}");
        let mark = shown.split("name=\"previewed\" value=\"").nth(1).and_then(|r| r.split('"').next()).expect("a mark");
        // Something else than what was previewed is previewed first.
        let other = format!("{}&previewed={mark}", fields.replace("default=off", "default=on"));
        let answer = press_on(&site, &cookie, "/flags/edit", "/flags/save", &other).await;
        assert_eq!(answer.status.as_u16(), 200);
        let answer =
            press_on(&site, &cookie, "/flags/edit", "/flags/save", &format!("{fields}&previewed={mark}")).await;
        assert!(told(&site, &cookie, &answer).await.contains("Saved"));
        assert!(page("/flags").await.contains("<code>bikes</code>"));
        assert!(page("/flags/edit?key=bikes").await.contains("dunlin.model = m -&#62; on"));
        let answer = press_on(&site, &cookie, "/flags/switch?key=bikes", "/flags/switch", "key=bikes&verb=kill").await;
        assert!(told(&site, &cookie, &answer).await.contains("Killed"));
        assert!(page("/flags").await.contains("killed: off"));
        let answer =
            press_on(&site, &cookie, "/flags/switch?key=bikes", "/flags/switch", "key=bikes&verb=revive").await;
        assert!(told(&site, &cookie, &answer).await.contains("Revived"));
        let flags = site.client.call("GET", "/v1/flags", &tenant.viewer, Value::Null).await.ok();
        assert!(flags["flags"].to_string().contains("dunlin.serve"), "the kill switch is kept: {flags}");
        site.server.stop().await;
    });
}
