//! Operators: roles, tenants, idempotency, refusals, audit.

use dunlin_fleet::store::{Store, audit};
use dunlin_fleet::{hex, openapi};
use dunlin_update::trust::{Document, Role as Signer};
use serde_json::{Value, json};
use sha2::Digest as _;

use super::device::{self, Device};
use super::site::{Published, Site, on_each_engine, publish};

/// Every route of the OpenAPI document, with every role and with another tenant's things: who may not is refused, and
/// nobody sees what is another tenant's.
#[test]
fn no_route_leaks_to_other_roles_or_tenants() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let ours = site.tenant("ours", 1, json!({})).await;
        let theirs = site.tenant("theirs", 2, json!({})).await;
        // What is theirs: one of everything.
        let (one, two) = (theirs.keys.package("m", 1, 100), theirs.keys.package("m", 2, 100));
        publish(&site.client, &theirs, &one).await.ok();
        publish(&site.client, &theirs, &two).await.ok();
        let device = Device::enrol(&site.client, &theirs, 1, Some(one.digest), &site.clock).await;
        let draft = json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "canary" } });
        site.client.call("PUT", "/v1/rollouts/secret-rollout", &theirs.operator, draft.clone()).await.ok();
        site.client.call("POST", "/v1/rollouts/secret-rollout/start", &theirs.operator, Value::Null).await.ok();
        let marks = [hex(&device.id), one.id(), two.id(), "secret-rollout".to_owned(), "theirs".to_owned()];

        let document = serde_json::to_value(openapi()).expect("JSON");
        let ranks = ["enrol", "viewer", "operator", "approver", "admin"];
        let rank = |role: &str| ranks.iter().position(|r| *r == role);
        let (mut routes, mut requests) = (0, 0);
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let Some(needed) = operation["x-role"].as_str() else { panic!("{method} {path} has no x-role") };
                routes += 1;
                let path = path
                    .replace("{tenant}", "theirs")
                    .replace("{name}", "theirs-viewer")
                    .replace("{device}", &hex(&device.id))
                    .replace("{digest}", &two.id())
                    .replace("{base}", &one.id())
                    .replace("{rollout}", "secret-rollout")
                    .replace("{alert}", "1");
                assert!(!path.contains('{'), "{path}: a parameter that this test does not know");
                let method = method.to_uppercase();
                let body = match path.rsplit('/').next() {
                    Some("abort") => json!({ "devices": "keep" }),
                    Some("advance") => json!({ "stage": 0 }),
                    Some("secret-rollout") => draft.clone(),
                    Some("flags") => json!({ "version": 0, "flags": [] }),
                    Some("theirs-viewer") => json!({ "role": "viewer", "tenant": "theirs" }),
                    _ => json!({}),
                };
                for role in ranks {
                    let answer = site.client.call(&method, &path, ours.token(role), body.clone()).await;
                    requests += 1;
                    let status = answer.status.as_u16();
                    let may = needed != "installation" && rank(role) >= rank(needed);
                    let for_another = method == "PUT" && path.starts_with("/v1/tokens/");
                    assert_eq!(status == 403, !may || for_another, "{role}: {method} {path} gave {status}");
                    assert_ne!(status, 401, "{role}: {method} {path}");
                    assert!(status < 500, "{role}: {method} {path} gave {status}");
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    // The words of the request may come back in the refusal; nothing else of theirs may.
                    for mark in
                        marks.iter().filter(|m| !path.contains(m.as_str()) && !body.to_string().contains(m.as_str()))
                    {
                        assert!(!text.contains(mark), "{role}: {method} {path} leaks {mark}: {text}");
                    }
                    if marks[..4].iter().any(|m| path.contains(m.as_str())) && may {
                        assert!(
                            matches!(status, 400 | 404 | 409 | 422),
                            "{role}: {method} {path} gave {status}: {text}"
                        );
                    }
                }
                let answer = site.client.call(&method, &path, "dnl_unknown", body).await;
                assert_eq!(answer.status.as_u16(), 401, "{method} {path}");
            }
        }
        assert!(routes >= 25, "{routes} routes");
        eprintln!("{requests} requests on {routes} routes");
        // And nothing of theirs has changed.
        let status = site.client.call("GET", "/v1/rollouts/secret-rollout", &theirs.viewer, Value::Null).await.ok();
        assert_eq!(status["phase"], "Running", "{status}");
        let tokens = site.client.call("GET", "/v1/tokens", &theirs.admin, Value::Null).await.ok();
        assert!(tokens.as_array().expect("a list").iter().all(|t| t["revoked"].is_null()), "{tokens}");
        site.server.stop().await;
    });
}

/// Who may not is told so whatever the body or the query is like: 401 and 403 come before 400, 413 and 422.
#[test]
fn roles_come_before_bodies() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let ours = site.tenant("ours", 1, json!({})).await;
        let theirs = site.tenant("theirs", 2, json!({})).await;
        let package = theirs.keys.package("m", 1, 100);
        publish(&site.client, &theirs, &package).await.ok();
        let document = serde_json::to_value(openapi()).expect("JSON");
        let ranks = ["enrol", "viewer", "operator", "approver", "admin"];
        let rank = |role: &str| ranks.iter().position(|r| *r == role);
        let bodies: [&[u8]; 6] = [b"", b"{", b"[]", b"\xFF\xFE", b"{\"devices\":7,\"stage\":\"x\"}", &[b' '; 300_000]];
        let (mut refused, mut judged) = (0, 0);
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let needed = operation["x-role"].as_str().expect("a role");
                let method = method.to_uppercase();
                // Things of another tenant, and names that nothing can have.
                for thing in [package.id(), "theirs".to_owned(), "%ff%00".to_owned()] {
                    let mut path = path.clone();
                    while let Some((from, to)) = path.find('{').zip(path.find('}')) {
                        path.replace_range(from..=to, &thing);
                    }
                    for (n, body) in bodies.iter().enumerate() {
                        let path = if n % 2 == 1 { format!("{path}?limit=-1&nonsense=%ff") } else { path.clone() };
                        let tokens = ranks.map(|role| (role, ours.token(role)));
                        for (role, token) in tokens.into_iter().chain([("nobody", "dnl_unknown")]) {
                            let headers = [("authorization", format!("Bearer {token}"))];
                            let sent = site.client.send(&method, &path, &headers, body.to_vec()).await;
                            // A body that is refused unread may end the connection before it was sent.
                            let Some(answer) = sent else { continue };
                            let status = answer.status.as_u16();
                            let may = needed != "installation" && rank(role) >= rank(needed);
                            let expected = match (role, may) {
                                ("nobody", _) => Some(401),
                                (_, false) => Some(403),
                                (_, true) => None,
                            };
                            match expected {
                                Some(expected) => assert_eq!(status, expected, "{role}: {method} {path}, body {n}"),
                                None => assert!(status < 500 && status != 401, "{role}: {method} {path} gave {status}"),
                            }
                            if expected.is_some() { refused += 1 } else { judged += 1 }
                        }
                    }
                }
            }
        }
        assert!(refused > 1000 && judged > 1000, "{refused} refused, {judged} not");
        eprintln!("{refused} requests refused before their bodies, {judged} judged");
        site.server.stop().await;
    });
}

#[test]
fn packages_are_immutable_and_have_to_be_signed() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "max_bytes": 20_000 })).await;
        let one = tenant.keys.package("m", 1, 5000);
        publish(&site.client, &tenant, &one).await.ok();
        publish(&site.client, &tenant, &one).await.ok();
        let listed = site.client.call("GET", "/v1/packages", &tenant.viewer, Value::Null).await.ok();
        assert_eq!(listed.as_array().expect("a list").len(), 1);

        let mut damaged = tenant.keys.package("m", 2, 5000);
        damaged.bytes[700] ^= 1;
        publish(&site.client, &tenant, &damaged).await.refused(422);
        let stranger = super::site::Keys::new(9).package("m", 2, 5000);
        let text = publish(&site.client, &tenant, &stranger).await.refused(422);
        assert!(text.contains("signatures"), "{text}");
        let mut mixed = tenant.keys.package("m", 3, 5000);
        mixed.release = one.release.clone();
        publish(&site.client, &tenant, &mixed).await.refused(422);
        // The number is taken.
        publish(&site.client, &tenant, &tenant.keys.package("m", 1, 5001)).await.refused(409);
        // The quota.
        publish(&site.client, &tenant, &tenant.keys.package("m", 4, 18_000)).await.refused(507);
        publish(&site.client, &tenant, &tenant.keys.package("m", 5, 5000)).await.ok();
        site.server.stop().await;
    });
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let call =
            async |method: &str, path: &str, body: Value| site.client.call(method, path, &tenant.admin, body).await;
        call("PUT", "/v1/rollouts/r", json!({ "candidates": [], "strategy": { "kind": "canary" } })).await.refused(422);
        call("PUT", "/v1/rollouts/r", json!({ "candidates": ["zz"], "strategy": { "kind": "canary" } }))
            .await
            .refused(400);
        let unknown = "0".repeat(64);
        call("PUT", "/v1/rollouts/r", json!({ "candidates": [unknown], "strategy": { "kind": "canary" } }))
            .await
            .refused(404);
        call("PUT", "/v1/rollouts/a%20b", json!({ "candidates": [unknown], "strategy": { "kind": "canary" } }))
            .await
            .refused(400);
        let text = call("PUT", "/v1/rollouts/r", json!({ "candidates": [unknown], "strategy": { "kind": "all" } }))
            .await
            .refused(400);
        assert!(text.contains("all"), "{text}");
        call("PUT", "/v1/flags", json!({ "version": 7, "flags": [] })).await.refused(409);
        call("PUT", "/v1/tenant", json!({ "poll_seconds": 0 })).await.refused(422);
        call("PUT", "/v1/tenant", json!({ "pol_seconds": 1 })).await.refused(400);
        call("GET", "/v1/devices?limit=x", Value::Null).await.refused(400);
        call("GET", "/v1/nothing", Value::Null).await.refused(404);
        let long = json!({ "title": "x".repeat(300_000) });
        site.client.call("PUT", "/v1/tenants/b", &site.system, long).await.refused(413);

        let package = tenant.keys.package("m", 1, 10);
        publish(&site.client, &tenant, &package).await.ok();
        let stages =
            |stage: Value| json!({ "candidates": [package.id()], "strategy": { "kind": "stages", "stages": [stage] } });
        for (stage, word) in [
            (json!({ "canary_percent": 10 }), "control"),
            (json!({ "canary_percent": 60, "control_percent": 60 }), "more than all"),
            (json!({ "canary_percent": 101, "control_percent": 1 }), "percentage"),
            (json!({ "canary_percent": 10, "control_percent": 10, "device_days": 0 }), "device-days"),
        ] {
            let text = call("PUT", "/v1/rollouts/r", stages(stage)).await.refused(422);
            assert!(text.contains(word), "{text}");
        }
        let metric = json!({ "candidates": [package.id()], "strategy": { "kind": "canary" },
            "gate": { "margins": [{ "metric": "latnecy", "relative": 0.1 }] } });
        call("PUT", "/v1/rollouts/r", metric).await.refused(422);
        site.server.stop().await;
    });
}

#[test]
fn the_audit_log_cannot_be_rewritten() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        publish(&site.client, &tenant, &tenant.keys.package("m", 1, 10)).await.ok();
        let log = site.client.call("GET", "/v1/audit", &tenant.viewer, Value::Null).await.ok();
        let actions: Vec<&str> = log.as_array().expect("a list").iter().filter_map(|e| e["action"].as_str()).collect();
        assert!(actions.contains(&"root.put") && actions.contains(&"package.publish"), "{actions:?}");

        let store = Store::open(&database.url, 2).await.expect("opens");
        assert!(matches!(audit::verify(&store, "a").await, Ok(audit::Chain::Whole { entries, .. }) if entries >= 7));
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
        for statement in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"] {
            let refused = sqlx::raw_sql(statement).execute(&pool).await.expect_err(statement);
            assert!(refused.to_string().contains("audit log"), "{refused}");
        }
        // Somebody with the database's own powers can take the guard away, and is found out.
        let guards: &[&'static str] = match database.engine {
            "sqlite" => &["DROP TRIGGER audit_is_not_changed"],
            _ => &["DROP TRIGGER audit_is_append_only ON audit"],
        };
        for guard in guards {
            sqlx::raw_sql(*guard).execute(&pool).await.expect("dropped");
        }
        sqlx::raw_sql("UPDATE audit SET actor = 'somebody else' WHERE tenant = 'a' AND n = 3")
            .execute(&pool)
            .await
            .expect("written");
        assert_eq!(audit::verify(&store, "a").await.expect("read"), audit::Chain::Broken { at: 3 });
        pool.close().await;
        store.close().await;
        site.server.stop().await;
    });
}

#[test]
fn rates_and_quotas_hold() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "operator_rate": 20, "max_devices": 2 })).await;
        let mut refused = 0;
        for _ in 0..200 {
            let answer = site.client.call("GET", "/v1/tenant", &tenant.viewer, Value::Null).await;
            if answer.status.as_u16() == 429 {
                refused += 1;
                let after: u64 = answer.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
                assert!((1..=5).contains(&after), "{after}");
            }
        }
        assert!(refused > 0, "two hundred at once are more than twenty a second");
        // Only who asks too often waits: somebody else may want to stop a rollout now.
        site.client.call("GET", "/v1/tenant", &tenant.operator, Value::Null).await.ok();
        for n in 0..2 {
            Device::enrol(&site.client, &tenant, n, None, &site.clock).await;
        }
        let key = dunlin_update::trust::SecretKey::from_seed([77; 32]).expect("a seed");
        device::enrol(&site.client, &tenant.enrol, &key).await.refused(507);
        // Those that are enrolled may do so again.
        Device::enrol(&site.client, &tenant, 1, None, &site.clock).await;
        let metrics = site.client.send("GET", "/metrics", &[], "").await.expect("answer");
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        assert!(text.contains("dunlin_fleet_rate_limited_total"), "{text}");
        for path in ["/healthz", "/readyz", "/openapi.json"] {
            assert!(site.client.send("GET", path, &[], "").await.expect("answer").status.is_success(), "{path}");
        }
        site.server.stop().await;
    });
}

#[test]
fn a_backup_gives_the_same_server() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    runtime.block_on(async {
        let place = folder.path().join("data");
        std::fs::create_dir(&place).expect("a folder");
        let url = format!("sqlite://{}", place.join("fleet.db").display());
        let database = super::database::Database { engine: "sqlite", url };
        let site = Site::start(&place, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let package = tenant.keys.package("m", 1, 3000);
        publish(&site.client, &tenant, &package).await.ok();
        let next = tenant.keys.package("m", 2, 3000);
        publish(&site.client, &tenant, &next).await.ok();
        let stages = json!([{ "canary_percent": 60, "control_percent": 40, "device_days": 1000 }]);
        let draft = json!({ "candidates": [next.id()], "base": package.id(),
            "strategy": { "kind": "stages", "stages": stages } });
        site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
        site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
        let variants = json!([["off", { "Bool": false }], ["on", { "Bool": true }]]);
        let flags = |version: u32, on: u32| {
            json!({ "version": version, "flags": [{ "key": "f", "default": on, "variants": variants }] })
        };
        site.client.call("PUT", "/v1/flags", &tenant.operator, flags(0, 0)).await.ok();
        let mut flock = super::rollouts::Flock::enrol(&site, &tenant, 20, &package).await;
        for _ in 0..4 {
            flock.poll(&site).await;
        }
        let canary = flock.running(&next);
        assert!(canary > 4, "{canary}");
        let store = Store::open(&database.url, 2).await.expect("opens");
        let config = super::site::config(&place, &database, &site.clock);
        let copy = folder.path().join("backup");
        // An upload that is on its way, and one that is gone when its turn comes.
        std::fs::write(place.join("artifacts/upload#1"), "part").expect("written");
        #[cfg(unix)]
        std::os::unix::fs::symlink(place.join("nowhere"), place.join("artifacts/gone#1")).expect("a link");
        dunlin_fleet::backup::backup(&store, &config, &copy).await.expect("a backup");
        dunlin_fleet::backup::backup(&store, &config, &copy).await.expect_err("there is one already");
        #[cfg(unix)]
        for (path, mode) in [
            (place.join("fleet.db"), 0o600),
            (copy.clone(), 0o700),
            (copy.join("fleet.db"), 0o600),
            (copy.join("keys/a.rollout.key"), 0o600),
        ] {
            use std::os::unix::fs::PermissionsExt as _;
            let has = std::fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(has & 0o777, mode, "{}", path.display());
        }
        store.close().await;
        // After it devices see later documents.
        site.clock.skip(3600);
        for action in ["pause", "resume", "pause", "resume"] {
            site.client.call("POST", &format!("/v1/rollouts/r/{action}"), &tenant.operator, Value::Null).await.ok();
        }
        site.client.call("PUT", "/v1/flags", &tenant.operator, flags(1, 1)).await.ok();
        let sequence = |document: &[u8]| {
            let document = Document::read(document, Signer::Rollout).expect("a document");
            let (_, payload): (&str, &[u8]) = postcard::from_bytes(document.payload()).expect("flags");
            dunlin_rollout::Flags::open(payload).expect("flags").sequence()
        };
        let seen = super::rollouts::status(&site, &tenant, "r").await["sequence"].as_u64().expect("a sequence");
        for device in &mut flock.devices {
            let document = device.poll(&site.client).await.flags.expect("later flags");
            (device.flags, device.sequence) = (sequence(&document), seen);
        }
        site.server.stop().await;
        dunlin_fleet::backup::restore(&copy, &place).expect_err("not empty");
        let other = folder.path().join("other");
        dunlin_fleet::backup::restore(&copy, &other).expect("restored");
        let url = format!("sqlite://{}", other.join("fleet.db").display());
        let database = super::database::Database { engine: "sqlite", url };
        let server =
            dunlin_fleet::Server::start(super::site::config(&other, &database, &site.clock)).await.expect("starts");
        let client = super::site::Client::new(server.address());
        let root = client.call("GET", "/v1/root", &tenant.viewer, Value::Null).await.ok();
        assert_eq!(root["problem"], Value::Null, "the key came along");
        // The same package is known, and its bytes are there.
        publish(&client, &tenant, &package).await.ok();
        // Its flags are in force again, and can be changed; so can the rollout be ended.
        site.clock.skip(3600);
        let device = &mut flock.devices[0];
        let renewed = sequence(&device.poll(&client).await.flags.expect("the flags that there are now"));
        assert!(renewed > device.flags, "{renewed} after {}", device.flags);
        device.flags = renewed;
        site.clock.skip(60);
        client.call("PUT", "/v1/flags", &tenant.operator, flags(1, 0)).await.ok();
        let changed = sequence(&device.poll(&client).await.flags.expect("changed flags"));
        assert!(changed > renewed, "{changed} after {renewed}");
        client.call("POST", "/v1/rollouts/r/abort", &tenant.operator, json!({ "devices": "revert" })).await.ok();
        for _ in 0..4 {
            for device in &mut flock.devices {
                device.poll(&client).await;
            }
        }
        assert_eq!((flock.running(&next), flock.running(&package)), (0, 20), "all went back");
        server.stop().await;
    });
}

#[test]
fn what_is_not_there_is_said() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let text = site.client.send("GET", "/v1/nothing", &[], "").await.expect("an answer").refused(404);
        assert!(text.contains("GET /v1/nothing"), "{text}");
        let text = site.client.send("PATCH", "/v1/tenant", &[], "").await.expect("an answer").refused(405);
        assert!(text.contains("PATCH"), "{text}");
        site.server.stop().await;
    });
}

/// What no rollout and no device needs can be deleted, and its bytes are free.
#[test]
fn packages_that_nothing_needs_are_deleted() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "max_bytes": 70_000 })).await;
        let other = site.tenant("b", 1, json!({})).await;
        let make = |n| tenant.keys.package("m", n, 20_000);
        let (one, two, three) = (make(1), make(2), make(3));
        publish(&site.client, &tenant, &one).await.ok();
        publish(&site.client, &tenant, &two).await.ok();
        // The same bytes, which somebody else has too.
        publish(&site.client, &other, &two).await.ok();
        let delta = dunlin_update::delta::encode(Some(&one.bytes), &two.bytes, &Default::default()).expect("encodes");
        let headers = [("authorization", format!("Bearer {}", tenant.operator))];
        let path = format!("/v1/packages/{}/deltas/{}", two.id(), one.id());
        site.client.send("PUT", &path, &headers, delta.patch).await.expect("an answer").ok();
        publish(&site.client, &tenant, &three).await.refused(507);
        let delete = async |id: &str| {
            site.client.call("DELETE", &format!("/v1/packages/{id}"), &tenant.operator, Value::Null).await
        };
        let draft = json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "canary" } });
        site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft.clone()).await.ok();
        for package in [&one, &two] {
            assert!(delete(&package.id()).await.refused(409).contains("\"r\""));
        }
        // One that was given up needs nothing, but devices do.
        site.client.call("POST", "/v1/rollouts/r/abort", &tenant.operator, json!({ "devices": "keep" })).await.ok();
        let mut device = Device::enrol(&site.client, &tenant, 1, Some(one.digest), &site.clock).await;
        device.poll(&site.client).await;
        assert!(delete(&one.id()).await.refused(409).contains("run it"));
        delete(&two.id()).await.ok();
        delete(&two.id()).await.refused(404);
        publish(&site.client, &tenant, &three).await.ok();
        let path = format!("/v1/packages/{}/content", two.id());
        site.client.call("GET", &path, &tenant.viewer, Value::Null).await.refused(404);
        let theirs = site.client.call("GET", &path, &other.viewer, Value::Null).await;
        assert_eq!(&theirs.body[..], &two.bytes[..], "somebody else's stays");
        let path = format!("/v1/packages/{}", two.id());
        site.client.call("DELETE", &path, &other.operator, Value::Null).await.ok();
        let kept = |of: &Published| {
            let name = hex(&<[u8; 32]>::from(sha2::Sha256::digest(&of.bytes)));
            folder.join("artifacts").join(&name[..2]).join(&name).exists()
        };
        assert_eq!((kept(&one), kept(&two), kept(&three)), (true, false, true));
        // Published anew it is there again.
        publish(&site.client, &other, &two).await.ok();
        assert!(kept(&two));
        site.server.stop().await;
    });
}

/// Who sends a request too slowly is not waited for.
#[test]
fn slow_requests_are_not_waited_for() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    runtime.block_on(async {
        let url = format!("sqlite://{}", folder.path().join("fleet.db").display());
        let database = super::database::Database { engine: "sqlite", url };
        let mut config = super::site::config(folder.path(), &database, &dunlin_fleet::ManualClock::new());
        config.patience = std::time::Duration::from_secs(1);
        let server = dunlin_fleet::Server::start(config).await.expect("starts");
        let said = async |text: &str| {
            let mut stream = tokio::net::TcpStream::connect(server.address()).await.expect("connects");
            stream.write_all(text.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer);
            // Whatever it reads: that it comes to an end is what counts.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(60), read).await.expect("it is closed");
            String::from_utf8_lossy(&answer).into_owned()
        };
        assert!(!said("GET /healthz HTTP/1.1\r\nhost: a\r\n").await.contains("200"), "a head that never ends");
        let slow =
            said("POST /d/v1/enrol HTTP/1.1\r\nhost: a\r\ncontent-length: 90\r\nconnection: close\r\n\r\nab").await;
        assert!(slow.contains("408") || slow.contains("401"), "a body that never ends: {slow}");
        let token = server.token("system", "t", dunlin_fleet::Role::Admin).await.expect("a token");
        let slow = said(&format!(
            "PUT /v1/tenants/x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: 90\r\n\
             connection: close\r\n\r\nab"
        ))
        .await;
        assert!(slow.contains("408"), "a body that never ends: {slow}");
        let good = said("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(good.contains("200"), "{good}");
        server.stop().await;
    });
}
