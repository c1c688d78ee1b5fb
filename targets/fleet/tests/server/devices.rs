//! Devices: enrolment, signatures, polls, reports, artifacts.

use dunlin_fleet::{hex, wire};
use dunlin_update::trust::SecretKey;
use hyper::StatusCode;
use serde_json::{Value, json};
use sqlx::Row as _;

use super::device::{self, Device};
use super::site::{Site, on_each_engine, publish};

#[test]
fn only_signed_requests_are_taken_and_each_once() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let mut device = Device::enrol(&site.client, &tenant, 1, Some([1; 32]), &site.clock).await;
        let again = Device::enrol(&site.client, &tenant, 1, None, &site.clock).await;
        assert_eq!(device.id, again.id, "the same key is the same device");
        device::enrol(&site.client, &tenant.viewer, &SecretKey::from_seed([3; 32]).expect("a seed")).await.refused(403);

        let answer = device.poll(&site.client).await;
        assert!(answer.offer.is_none() && answer.next >= 150 && answer.next <= 450, "{answer:?}");

        let body = postcard::to_allocvec(&device.body()).expect("encodes");
        let headers = device.signed(&body);
        let first = site.client.send("POST", "/d/v1/poll", &headers, body.clone()).await.expect("answer");
        assert_eq!(first.status, StatusCode::OK);
        let replayed = site.client.send("POST", "/d/v1/poll", &headers, body.clone()).await.expect("answer");
        replayed.refused(409);
        let mut changed = body.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        let headers = device.signed(&body);
        site.client.send("POST", "/d/v1/poll", &headers, changed).await.expect("answer").refused(401);
        let mut stale = device.signed(&body);
        stale[1].1 = "1000".into();
        site.client.send("POST", "/d/v1/poll", &stale, body.clone()).await.expect("answer").refused(401);
        let mut stranger = device.signed(&body);
        stranger[0].1 = "00".repeat(16);
        site.client.send("POST", "/d/v1/poll", &stranger, body.clone()).await.expect("answer").refused(401);
        site.client.send("POST", "/d/v1/poll", &[], body.clone()).await.expect("answer").refused(401);
        let garbage = b"not postcard".to_vec();
        let headers = device.signed(&garbage);
        site.client.send("POST", "/d/v1/poll", &headers, garbage).await.expect("answer").refused(400);
        let long = vec![0; 200_000];
        let headers = device.signed(&long);
        site.client.send("POST", "/d/v1/poll", &headers, long).await.expect("answer").refused(413);

        // A device without a clock takes the server's nonces.
        let nonce =
            site.client.send("GET", "/d/v1/nonce", &[(wire::DEVICE, hex(&device.id))], "").await.expect("answer");
        let nonce = String::from_utf8(nonce.body.to_vec()).expect("text");
        let signed = |nonce: &str| {
            let signature = wire::signature(&device.key, "POST", "/d/v1/poll", nonce, &body);
            vec![(wire::DEVICE, hex(&device.id)), (wire::NONCE, nonce.to_owned()), (wire::SIGNATURE, signature)]
        };
        let taken = site.client.send("POST", "/d/v1/poll", &signed(&nonce), body.clone()).await.expect("answer");
        assert_eq!(taken.status, StatusCode::OK);
        site.client.send("POST", "/d/v1/poll", &signed(&nonce), body.clone()).await.expect("answer").refused(409);
        let next = taken.headers[wire::NONCE].to_str().expect("text").to_owned();
        let taken = site.client.send("POST", "/d/v1/poll", &signed(&next), body.clone()).await.expect("answer");
        assert_eq!(taken.status, StatusCode::OK);
        let forged = format!("{}.{}", dunlin_fleet::Clock::micros(&site.clock), "00".repeat(16));
        site.client.send("POST", "/d/v1/poll", &signed(&forged), body.clone()).await.expect("answer").refused(401);

        // No news: the same tag gives 304.
        let mut headers = device.signed(&body);
        headers.push(("if-none-match", taken.headers["etag"].to_str().expect("text").to_owned()));
        let same = site.client.send("POST", "/d/v1/poll", &headers, body).await.expect("answer");
        assert_eq!(same.status, StatusCode::NOT_MODIFIED);
        site.server.stop().await;
    });
}

#[test]
fn reports_are_stored_once_and_unknown_ones_too() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let mut device = Device::enrol(&site.client, &tenant, 1, Some([0xAB; 32]), &site.clock).await;
        device.measure();
        device.measure();
        let sent = device.unsent.clone();
        let answer = device.poll(&site.client).await;
        assert_eq!(answer.acknowledged, [(1, 0), (1, 1)]);
        assert!(device.unsent.is_empty());
        // The answer got lost: the same again, with one of a layout of the future, and after a gap.
        device.unsent = sent;
        device.unsent.push(wire::Report { boot: 1, seq: 5, bytes: vec![0xFF; 33] });
        device.poll(&site.client).await;
        let history = site
            .client
            .call("GET", &format!("/v1/devices/{}", hex(&device.id)), &tenant.viewer, Value::Null)
            .await
            .ok();
        let reports = history["reports"].as_array().expect("a list");
        assert_eq!(reports.len(), 3, "{history}");
        assert_eq!(reports.iter().filter(|r| r["known"] == false).count(), 1);
        assert_eq!(reports[0]["bytes"], "ff".repeat(33));
        assert_eq!(history["device"]["missed"], 3, "2, 3 and 4 did not come");
        device.unsent = vec![wire::Report { boot: 1, seq: 6, bytes: vec![0; wire::MAX_REPORT + 1] }];
        device.try_poll(&site.client).await.expect("answer").refused(400);
        site.server.stop().await;
    });
}

#[test]
fn artifacts_come_in_ranges_to_those_with_an_address() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, two) = (tenant.keys.package("m", 1, 9000), tenant.keys.package("m", 2, 9000));
        publish(&site.client, &tenant, &one).await.ok();
        publish(&site.client, &tenant, &two).await.ok();
        let delta = dunlin_update::delta::encode(Some(&one.bytes), &two.bytes, &Default::default()).expect("encodes");
        let headers = [("authorization", format!("Bearer {}", tenant.operator))];
        let path = format!("/v1/packages/{}/deltas/{}", two.id(), one.id());
        site.client.send("PUT", &path, &headers, delta.patch.clone()).await.expect("answer").ok();
        site.client.send("PUT", &path, &headers, delta.patch.clone()).await.expect("answer").ok();
        let wrong = format!("/v1/packages/{}/deltas/{}", one.id(), two.id());
        site.client.send("PUT", &wrong, &headers, delta.patch.clone()).await.expect("answer").refused(422);

        let draft = json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "stages", "stages": [
            { "canary_percent": 100, "zero_failures": true }] } });
        site.client.call("PUT", "/v1/rollouts/all", &tenant.operator, draft).await.ok();
        site.client.call("POST", "/v1/rollouts/all/start", &tenant.operator, Value::Null).await.ok();
        let mut device = Device::enrol(&site.client, &tenant, 1, Some(one.digest), &site.clock).await;
        let offer = device.poll(&site.client).await.offer.expect("an offer");
        assert!(offer.delta, "it runs the base");
        assert_eq!(offer.len as usize, delta.patch.len());
        let get = async |url: &str, headers: &[(&str, String)]| {
            site.client.send("GET", url, headers, "").await.expect("answer")
        };
        assert_eq!(get(&offer.url, &[]).await.body, delta.patch);

        // One for which the difference failed gets the whole.
        device.phase = dunlin_update::Phase::Idle;
        let mut poll = device.body();
        poll.whole = Some(device::prefix(&two.digest));
        let body = postcard::to_allocvec(&poll).expect("encodes");
        let headers = device.signed(&body);
        let answer = site.client.send("POST", "/d/v1/poll", &headers, body).await.expect("answer");
        let answer: wire::Answer = postcard::from_bytes(&answer.body).expect("an answer");
        let offer = answer.offer.expect("an offer");
        assert!(!offer.delta);
        let whole = get(&offer.url, &[]).await;
        assert_eq!((whole.status.as_u16(), &whole.body[..]), (200, &two.bytes[..]));
        assert_eq!(whole.headers["content-length"], two.bytes.len().to_string().as_str());
        let path = format!("/v1/packages/{}/content", two.id());
        let content = site.client.call("GET", &path, &tenant.viewer, Value::Null).await;
        assert_eq!((content.status.as_u16(), &content.body[..]), (200, &two.bytes[..]));
        // In pieces that do not divide it, as after power cuts.
        let mut fetched: Vec<u8> = Vec::new();
        while fetched.len() < two.bytes.len() {
            let to = fetched.len() + 700;
            let part = get(&offer.url, &[("range", format!("bytes={}-{}", fetched.len(), to))]).await;
            assert_eq!(part.status.as_u16(), 206);
            fetched.extend(&part.body[..]);
        }
        assert_eq!(fetched, two.bytes);
        assert_eq!(get(&offer.url, &[("range", "bytes=999999-".into())]).await.status.as_u16(), 416);
        let tag = whole.headers["etag"].to_str().expect("text").to_owned();
        assert_eq!(get(&offer.url, &[("if-none-match", tag)]).await.status.as_u16(), 304);
        // Somebody else's address, and one that has run out.
        get(&offer.url.replace("t=a", "t=b"), &[]).await.refused(403);
        site.clock.skip(9 * 86_400);
        get(&offer.url, &[]).await.refused(403);
        site.server.stop().await;
    });
}

/// What the server offers goes through the updater that devices have, down to the slot.
#[test]
fn a_real_updater_takes_the_offer() {
    use dunlin_update::delta::Applier;
    use dunlin_update::file::Folder;
    use dunlin_update::trust::Ed25519;
    use dunlin_update::{Device as Facts, Limits, Offer, Phase, Progress, StartCause, TransferOffer, Updater, Verdict};
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let package = tenant.keys.package("m", 1, 40_000);
        publish(&site.client, &tenant, &package).await.ok();
        let draft = json!({ "candidates": [package.id()], "strategy": { "kind": "stages", "stages": [
            { "canary_percent": 50, "control_percent": 50 }] } });
        site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
        site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
        // One of the first devices is in the canary.
        let mut found = None;
        for n in 0..40 {
            let mut device = Device::enrol(&site.client, &tenant, n, None, &site.clock).await;
            if let Some(offer) = device.poll(&site.client).await.offer {
                found = Some((device, offer));
                break;
            }
        }
        let (mut device, offer) = found.expect("half of the devices are offered it");
        let limits = Limits { inferences: 0, errors: 0, late: 0, deadline_us: 0 };
        let facts = Facts {
            identity: &device.id.clone(),
            name: "m",
            target: "sim",
            engine: (1, 0),
            ops_version: 1,
            memory: 1 << 20,
            beside: false,
            starts: 3,
            limits,
            root: tenant.root,
            factory: None,
        };
        let mut decoder = Box::new(Applier::new());
        let storage = Folder::open(&folder.join("slots"), 2, 1 << 17).expect("a folder");
        let mut updater = Updater::open(storage, Ed25519, facts, StartCause::Power, &mut decoder).expect("opens");
        let transfer = TransferOffer { id: offer.id, len: offer.len, delta: offer.delta };
        let given = Offer { roots: &[], rollout: &offer.rollout, release: &offer.release, transfer };
        updater.offer(&given, None).expect("the offer is believed");
        let mut next = 0;
        loop {
            let range = [("range", format!("bytes={next}-{}", next + 4095))];
            let part = site.client.send("GET", &offer.url, &range, "").await.expect("answer");
            match updater.receive(next, &part.body).expect("bytes are taken") {
                Progress::More { next: at, .. } => next = at,
                Progress::Staged => break,
            }
        }
        updater.start().expect("starts");
        assert_eq!(updater.golden(true), Ok(Verdict::Confirmed));
        assert_eq!(updater.running().map(|p| p.digest), Some(package.digest));
        let told = updater.check_in();
        (device.running, device.last, device.phase) = (told.running, told.last, Phase::Idle);
        assert!(device.poll(&site.client).await.offer.is_none());
        let status = site.client.call("GET", "/v1/rollouts/r", &tenant.viewer, Value::Null).await.ok();
        assert_eq!(status["succeeded"], 1, "{status}");
        site.server.stop().await;
    });
}

#[test]
fn flags_reach_devices_signed() {
    use dunlin_update::trust::{Document, Ed25519, Role};
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let mut device = Device::enrol(&site.client, &tenant, 1, None, &site.clock).await;
        assert!(device.poll(&site.client).await.flags.is_none());
        let flags = json!({ "version": 0, "ttl": 3600, "flags": [
            { "key": "fast", "default": 1, "variants": [["off", { "Bool": false }], ["on", { "Bool": true }]] }] });
        let put = site.client.call("PUT", "/v1/flags", &tenant.operator, flags.clone()).await.ok();
        assert_eq!(put["version"], 1);
        // The same request again is the same.
        assert_eq!(site.client.call("PUT", "/v1/flags", &tenant.operator, flags).await.ok()["version"], 1);
        let document = device.poll(&site.client).await.flags.expect("news");
        let read = Document::read(&document, Role::Rollout).expect("a document");
        read.check(&tenant.root, Role::Rollout, &Ed25519).expect("signed by the tenant's key");
        let (name, payload): (&str, &[u8]) = postcard::from_bytes(read.payload()).expect("flags");
        assert_eq!(name, wire::FLAGS);
        let flags = dunlin_rollout::Flags::open(payload).expect("flags");
        let context = dunlin_rollout::Context { identity: &device.id, attributes: &[], model: "m", now: None };
        assert!(dunlin_rollout::Flag::new("fast", false).evaluate(Some(&flags), &context).value);
        device.flags = flags.sequence();
        assert!(device.poll(&site.client).await.flags.is_none());
        site.server.stop().await;
    });
}

/// Everything that was acknowledged, as the database has it.
pub(crate) async fn stored(url: &str) -> std::collections::BTreeSet<(String, i64, i64)> {
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(url).await.expect("connects");
    let rows = sqlx::query("SELECT device, boot, seq FROM reports").fetch_all(&pool).await.expect("rows");
    pool.close().await;
    rows.iter().map(|r| (r.get("device"), r.get("boot"), r.get("seq"))).collect()
}

/// Who fetches too often waits, as who polls too often does.
#[test]
fn artifacts_have_the_fleets_rate() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({ "device_rate": 10 })).await;
        let (one, two) =
            super::rollouts::begun(&site, &tenant, json!([{ "canary_percent": 100, "zero_failures": true }])).await;
        let mut device = Device::enrol(&site.client, &tenant, 1, Some(one.digest), &site.clock).await;
        let offer = device.poll(&site.client).await.offer.expect("an offer");
        let mut refused = 0;
        for _ in 0..60 {
            let answer = site.client.send("GET", &offer.url, &[], "").await.expect("an answer");
            match answer.status.as_u16() {
                200 => assert_eq!(answer.body, two.bytes),
                429 => refused += usize::from(answer.headers.contains_key("retry-after")),
                other => panic!("{other}"),
            }
        }
        assert!((1..60).contains(&refused), "{refused} of 60 at once at 10 a second");
        site.server.stop().await;
    });
}

/// A key that was stolen is not believed any more, and its device counts in no rollout.
#[test]
fn a_revoked_device_is_refused_for_good() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let (one, _) = super::rollouts::begun(
            &site,
            &tenant,
            json!([{ "canary_percent": 50, "control_percent": 50, "device_days": 100 }]),
        )
        .await;
        let mut flock = super::rollouts::Flock::enrol(&site, &tenant, 8, &one).await;
        flock.poll(&site).await;
        let assigned = async || {
            let status = super::rollouts::status(&site, &tenant, "r").await;
            let ways = status["arms"]["ways"].as_array().expect("ways").clone();
            ways.iter().filter_map(|w| w["assigned"].as_i64()).sum::<i64>()
        };
        assert_eq!(assigned().await, 8);
        let path = format!("/v1/devices/{}", hex(&flock.devices[3].id));
        site.client.call("DELETE", &path, &tenant.viewer, Value::Null).await.refused(403);
        let revoked = site.client.call("DELETE", &path, &tenant.operator, Value::Null).await.ok();
        assert_eq!(revoked["who"], "a-operator", "{revoked}");
        site.clock.skip(60);
        let again = site.client.call("DELETE", &path, &tenant.admin, Value::Null).await.ok();
        assert_eq!(again, revoked, "once is enough");
        let answer = flock.devices[3].try_poll(&site.client).await.expect("an answer");
        assert!(answer.refused(401).contains("revoked"));
        device::enrol(&site.client, &tenant.enrol, &flock.devices[3].key).await.refused(403);
        site.client.call("GET", &path, &tenant.viewer, Value::Null).await.refused(404);
        site.client.call("DELETE", "/v1/devices/00", &tenant.operator, Value::Null).await.refused(404);
        assert_eq!(assigned().await, 7);
        let log = site.client.call("GET", "/v1/audit?limit=1000", &tenant.viewer, Value::Null).await.ok();
        let entries = log.as_array().expect("a list").iter().filter(|e| e["action"] == "device.revoke").count();
        assert_eq!(entries, 1, "{log}");

        // And from the dashboard.
        let cookie = super::dashboard::sign_in(&site, &tenant.operator).await;
        let address = format!("/devices/{}", hex(&flock.devices[4].id));
        let answer =
            super::dashboard::press_on(&site, &cookie, &address, &format!("{address}/revoke"), "reason=lost").await;
        assert!(super::dashboard::told(&site, &cookie, &answer).await.contains("Revoked"));
        flock.devices[4].try_poll(&site.client).await.expect("an answer").refused(401);
        site.server.stop().await;
    });
}

/// What devices sent is kept for as many days as the tenant says.
#[test]
fn reports_and_days_are_kept_for_their_time() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let keeps =
            site.tenant("keeps", 1, json!({ "retention": { "reports": 0, "device_days": 0, "hours": 0 } })).await;
        let tenant = site.tenant("a", 2, json!({})).await;
        let bad = json!({ "retention": { "reports": 3 } });
        site.client.call("PUT", "/v1/tenant", &tenant.admin, bad).await.refused(422);
        let good = json!({ "retention": { "reports": 30, "device_days": 30, "hours": 30 } });
        site.client.call("PUT", "/v1/tenant", &tenant.admin, good).await.ok();
        for tenant in [&keeps, &tenant] {
            let stages = json!([{ "canary_percent": 50, "control_percent": 50, "device_days": 1000 }]);
            let (one, _) = super::rollouts::begun(&site, tenant, stages).await;
            let mut flock = super::rollouts::Flock::enrol(&site, tenant, 4, &one).await;
            flock.day(&site, false).await;
            let end = json!({ "devices": "keep" });
            site.client.call("POST", "/v1/rollouts/r/abort", &tenant.operator, end).await.ok();
        }
        let rows = async || {
            let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
            let mut counts = Vec::new();
            for of in ["a", "keeps"] {
                for table in ["reports", "device_days", "hours"] {
                    let text = format!("SELECT COUNT(*) FROM {table} WHERE tenant = $1");
                    let n: i64 =
                        sqlx::query_scalar(sqlx::AssertSqlSafe(text)).bind(of).fetch_one(&pool).await.expect("a count");
                    counts.push(n > 0);
                }
            }
            pool.close().await;
            counts
        };
        site.clock.skip(20 * 86_400);
        site.server.tick().await;
        assert_eq!(rows().await, [true; 6], "not yet");
        site.clock.skip(11 * 86_400);
        site.server.tick().await;
        assert_eq!(rows().await, [false, false, true, true, true, true], "and hours of these days have come");
        let verdicts = site.client.call("GET", "/v1/rollouts/r/verdicts", &tenant.viewer, Value::Null).await.ok();
        assert!(!verdicts.as_array().expect("a list").is_empty(), "what was decided stays");
        site.server.stop().await;
    });
}
