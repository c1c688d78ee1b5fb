//! Client, site and bridge inside this process.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dunlin_device::message::Part;
use dunlin_fleet::hex;
use dunlin_gateway::{Client, Clock, Connection, Credentials, Site, SiteOptions, SystemClock, line};
use dunlin_update::http::{MAX_REPORTS, Poll};
use dunlin_update::trust::SecretKey;
use serde_json::json;

use super::child::{Child, Way};
use super::fleet::Fleet;

fn client(fleet: &Fleet) -> Client {
    Client::new(&Connection { server: fleet.url.clone(), ..Connection::default() }).expect("a client")
}

fn options(fleet: &Fleet) -> SiteOptions {
    let recheck = Duration::from_millis(100);
    SiteOptions { token: Some(fleet.enrol.clone()), recheck, ..SiteOptions::new(client(fleet)) }
}

/// Listens for children of a site, for as long as the process lives.
fn listen(site: &Arc<Site>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let site = Arc::downgrade(site);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Some(site) = site.upgrade() else { return };
            std::thread::spawn(move || {
                let mut port = (&stream, &stream);
                let _ = line::serve(&mut port, &mut site.bridge(), &|| true);
            });
        }
    });
    address
}

fn poll(running: Option<[u8; 32]>) -> Poll {
    Poll {
        model: "m".into(),
        running,
        phase: 0,
        fetching: None,
        last: None,
        whole: None,
        beside: None,
        root: 1,
        rollout: 0,
        floor: 0,
        flags: 0,
        reports: Vec::new(),
    }
}

#[test]
fn a_client_enrols_polls_and_fetches_in_ranges() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(folder.path(), 60);
    let package = fleet.publish(1, 3000);
    fleet.roll_out("r", &package, None, 100);
    let client = client(&fleet);
    let key = SecretKey::from_seed([9; 32]).expect("a seed");
    let enrolled = client.enrol(&fleet.enrol, &key, "sim", "m", &BTreeMap::new()).expect("enrolled");
    assert_eq!(client.enrol(&fleet.enrol, &key, "sim", "m", &BTreeMap::new()).expect("again").device, enrolled.device);
    let device = Credentials::new(enrolled.device, key);
    let polled = client.poll(&device, &poll(None), None).expect("polled");
    assert!((30..=90).contains(&polled.next.as_secs()), "{:?}", polled.next);
    let offer = polled.answer.and_then(|a| a.offer).expect("an offer");
    let (mut stream, mut parts) = (Vec::new(), 0);
    while stream.len() < offer.len as usize {
        let (bytes, total) = client.range(&offer.url, stream.len() as u32, 1000).expect("a range");
        assert_eq!(total, offer.len);
        assert!(bytes.len() <= 1000);
        stream.extend(bytes);
        parts += 1;
    }
    assert_eq!((stream == package.bytes, parts), (true, package.bytes.len().div_ceil(1000)));
    // The same news is not sent again.
    let again = client.poll(&device, &poll(None), Some(&polled.tag)).expect("polled");
    assert_eq!((again.answer, again.tag), (None, polled.tag));

    let refused =
        client.enrol("dnl_wrong", &SecretKey::from_seed([8; 32]).expect("a seed"), "sim", "m", &BTreeMap::new());
    let refused = refused.expect_err("no such token");
    assert_eq!((refused.status(), refused.is_passing()), (Some(401), false));
    assert!(refused.to_string().contains("ask for a new one"), "{refused}");
    let stranger = Credentials::new([7; 16], SecretKey::from_seed([7; 32]).expect("a seed"));
    let unknown = client.poll(&stranger, &poll(None), None).expect_err("nobody knows it");
    assert!(unknown.to_string().contains("enrol it"), "{unknown}");
    let old = client.range("/d/v1/artifact/00?t=a&until=1&m=00", 0, 10).expect_err("no such address");
    assert!(!old.is_passing(), "{old}");
}

#[test]
fn who_asks_too_often_is_told_to_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(folder.path(), 60);
    let client = client(&fleet);
    let key = SecretKey::from_seed([9; 32]).expect("a seed");
    let enrolled = client.enrol(&fleet.enrol, &key, "sim", "m", &BTreeMap::new()).expect("enrolled");
    let device = Credentials::new(enrolled.device, key);
    let refused = (0..100).find_map(|_| client.poll(&device, &poll(None), None).err()).expect("the server has limits");
    assert_eq!((refused.status(), refused.is_passing()), (Some(429), true));
    assert!(refused.retry_after().is_some_and(|d| d >= Duration::from_secs(1)), "{refused:?}");
}

/// A clock that is off.
#[derive(Debug)]
struct Wrong(SystemClock, i64);

impl Clock for Wrong {
    fn wall(&self) -> u64 {
        self.0.wall().saturating_add_signed(self.1)
    }

    fn now(&self) -> Duration {
        self.0.now()
    }
}

#[test]
fn a_gateway_whose_clock_is_wrong_takes_the_servers() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(folder.path(), 60);
    for off in [-86_400 * 365, 86_400 * 365] {
        let clock = Arc::new(Wrong(SystemClock::default(), off * 1_000_000));
        let connection = Connection { server: fleet.url.clone(), ..Connection::default() };
        let client = Client::with_clock(&connection, clock).expect("a client");
        let key = SecretKey::from_seed([off.signum() as u8; 32]).expect("a seed");
        let enrolled = client.enrol(&fleet.enrol, &key, "sim", "m", &BTreeMap::new()).expect("enrolled");
        let device = Credentials::new(enrolled.device, key);
        for round in 0..3 {
            client.poll(&device, &poll(None), None).unwrap_or_else(|e| panic!("{off}, {round}: {e}"));
        }
    }
}

#[test]
fn a_child_is_enrolled_offered_an_update_and_runs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(&folder.path().join("fleet"), 2);
    let package = fleet.publish(1, 100_000);
    let state = folder.path().join("state");
    let site = Site::open(SiteOptions { state: Some(state.clone()), ..options(&fleet) }).expect("opens");
    let workers = site.start(2);
    let mut child = Child::new("board 1", &folder.path().join("slots"), fleet.root);
    child.connect(listen(&site));
    let first = child.check_in();
    assert_eq!((first.offer, first.wait), (None, 100), "the line is answered before the server");
    assert!(child.report(1, 0) && child.report(1, 1));
    fleet.roll_out("r", &package, None, 100);
    child.update();
    assert!(child.report(2, 0));
    // The next polls tell of it, by the child's check-ins.
    let id = site.status().children[0].device.clone().expect("enrolled");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        child.check_in();
        let seen = fleet.device(&id);
        if seen["running"] == package.id() && seen["boot"] == 2 {
            assert_eq!((&seen["missed"], &seen["phase"]), (&json!(0), &json!("Idle")), "{seen}");
            break;
        }
        assert!(Instant::now() < until, "{seen}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let status = site.status();
    assert_eq!((status.reports, status.delivered, status.fetched, status.artifacts), (0, 3, 1, 1));
    let status = fleet.call("GET", "/v1/rollouts/r", serde_json::Value::Null);
    assert_eq!(status["succeeded"], 1, "{status}");
    assert!(!package.release().is_empty());
    workers.stop();
    drop(site);
    // Its key is nobody else's to read.
    #[cfg(unix)]
    for file in std::fs::read_dir(state.join("children")).expect("a folder").map(|f| f.expect("a file")) {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(file.metadata().expect("metadata").permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    fleet.stop();
}

#[test]
fn a_child_finds_its_place_in_the_rollout_by_its_own_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let package = fleet.publish(1, 500);
    // With a share of a fifth a document that is salted for another identity would be refused four times in five.
    fleet.roll_out("r", &package, None, 20);
    let site = Site::open(options(&fleet)).expect("opens");
    let mut updated = 0;
    for n in 0..40 {
        let mut child = Child::new(&format!("child {n}"), &folder.path().join(format!("slots {n}")), fleet.root);
        child.way = Way::Bridge(Box::new(site.bridge()));
        if let Some(offer) = child.check_in().offer {
            child.accept(&offer).expect("documents");
            child.fetch(&offer).expect("a stream");
            child.keep();
            updated += 1;
        }
    }
    // 8 of 40 with a standard deviation of 2.5; that none is would happen once in 7,500 times.
    assert!((1..=24).contains(&updated), "{updated} of 40");
}

#[test]
fn many_children_fetch_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let package = fleet.publish(1, 50_000);
    fleet.roll_out("r", &package, None, 100);
    let site = Site::open(SiteOptions { state: Some(folder.path().join("state")), ..options(&fleet) }).expect("opens");
    let mut children: Vec<Child> = (0..24)
        .map(|n| {
            let mut child = Child::new(&format!("child {n}"), &folder.path().join(format!("slots {n}")), fleet.root);
            child.way = Way::Bridge(Box::new(site.bridge()));
            child
        })
        .collect();
    std::thread::scope(|scope| children.iter_mut().for_each(|child| drop(scope.spawn(|| child.update()))));
    assert!(children.iter().all(|c| c.fetched == package.bytes.len() as u64));
    assert_eq!(site.status().artifacts, 1);
    let sent = fleet.metric("dunlin_fleet_artifact_bytes_total");
    assert_eq!(sent, package.bytes.len() as f64, "24 children had it, and the server sent it once");
}

#[test]
fn artifacts_are_hashed_before_they_are_served_and_make_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let (one, two) = (fleet.publish(1, 60_000), fleet.publish(2, 60_000));
    fleet.roll_out("r", &one, None, 100);
    let state = folder.path().join("state");
    let open = || {
        // Room for one of them.
        let cache = 100_000;
        Site::open(SiteOptions { state: Some(state.clone()), cache, ..options(&fleet) }).expect("opens")
    };
    let site = open();
    let mut child = Child::new("c", &folder.path().join("slots"), fleet.root);
    child.way = Way::Bridge(Box::new(site.bridge()));
    let offer = child.check_in().offer.expect("an offer");
    child.accept(&offer).expect("documents");
    child.way = Way::Nowhere;
    drop(site);
    // Somebody changes a byte on disk.
    let file = state.join("artifacts").join(hex(&one.hash));
    let mut bytes = std::fs::read(&file).expect("it is kept");
    assert!(bytes == one.bytes);
    bytes[30_000] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let site = open();
    child.way = Way::Bridge(Box::new(site.bridge()));
    let offer = child.check_in().offer.expect("an offer");
    child.fetch(&offer).expect("a stream");
    child.keep();
    assert!(std::fs::read(&file).expect("it is kept") == one.bytes, "it was fetched anew");

    fleet.call("POST", "/v1/rollouts/r/abort", json!({ "devices": "keep" }));
    fleet.roll_out("s", &two, Some(&one), 100);
    child.await_news(|n| n.offer.is_some_and(|o| o.digest == two.digest));
    child.update();
    assert!(!file.exists(), "there is room for one");
    assert_eq!(site.status().artifacts, 1);
}

#[test]
fn a_download_that_was_cut_short_goes_on_and_a_spoiled_one_begins_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let package = fleet.publish(1, 300_000);
    fleet.roll_out("r", &package, None, 100);
    let artifacts = |n: u32| folder.path().join(format!("state {n}")).join("artifacts");
    let mut sent = 0.0;
    let mut fetch = |n: u32, bytes: &[u8]| {
        std::fs::create_dir_all(artifacts(n)).expect("a folder");
        std::fs::write(artifacts(n).join(format!("{}.part", hex(&package.hash))), bytes).expect("written");
        let state = Some(folder.path().join(format!("state {n}")));
        let site = Site::open(SiteOptions { state, ..options(&fleet) }).expect("opens");
        let mut child = Child::new("c", &folder.path().join(format!("slots {n}")), fleet.root);
        child.way = Way::Bridge(Box::new(site.bridge()));
        let first = child.check_in().offer;
        let before = std::mem::replace(&mut sent, fleet.metric("dunlin_fleet_artifact_bytes_total"));
        (first, child, sent - before)
    };
    let (offer, mut child, bytes) = fetch(1, &package.bytes[..200_000]);
    assert_eq!(bytes, (package.bytes.len() - 200_000) as f64, "the rest is fetched");
    let offer = offer.expect("an offer");
    child.accept(&offer).expect("documents");
    child.fetch(&offer).expect("a stream");
    child.keep();
    // What is no beginning of it is found out at its end, and is not kept.
    let (offer, mut child, _) = fetch(2, &[0x55; 200_000]);
    assert_eq!(offer, None);
    child.update();
    assert!(std::fs::read(artifacts(2).join(hex(&package.hash))).expect("it is kept") == package.bytes);
}

#[test]
fn the_server_is_away_for_a_while() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(&folder.path().join("fleet"), 1);
    let package = fleet.publish(1, 30_000);
    fleet.roll_out("r", &package, None, 100);
    let state = folder.path().join("state");
    let site = Site::open(SiteOptions { state: Some(state.clone()), ..options(&fleet) }).expect("opens");
    let workers = site.start(2);
    let address = listen(&site);
    let mut child = Child::new("c", &folder.path().join("slots"), fleet.root);
    child.connect(address);
    let offer = child.await_news(|n| n.offer.is_some()).offer.expect("an offer");
    fleet.stop();
    // What the gateway has it goes on giving, and what the child measures it goes on taking.
    child.accept(&offer).expect("documents");
    child.fetch(&offer).expect("a stream");
    child.keep();
    let most = MAX_REPORTS as u32 + 20;
    assert!((0..most).all(|seq| child.report(1, seq)));
    let asked = Instant::now();
    let news = child.check_in();
    assert!(news.offer.is_none() && news.wait > 0);
    assert!(asked.elapsed() < Duration::from_secs(1), "the line does not wait for a server that is away");
    assert_eq!(site.status().reports, most as usize);
    // It goes down, and so does the gateway; the child does not come back.
    workers.stop();
    drop(child);
    fleet.resume(None);
    let id = site.status().children[0].device.clone().expect("enrolled");
    drop(site);
    let until = Instant::now() + Duration::from_secs(60);
    // The first site's lines may hold it for a moment.
    let site = loop {
        match Site::open(SiteOptions { state: Some(state.clone()), ..options(&fleet) }) {
            Ok(site) => break site,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let workers = site.start(1);
    while site.status().reports > 0 {
        assert!(Instant::now() < until, "{}", site.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    let seen = fleet.device(&id);
    let told = (&seen["boot"], &seen["seq"], &seen["missed"], &seen["running"]);
    assert_eq!(told, (&json!(1), &json!(most - 1), &json!(0), &json!(package.id())));
    workers.stop();
}

#[test]
fn flags_reach_children() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let flags = json!({ "version": 0, "ttl": 3600, "flags": [
        { "key": "fast", "default": 1, "variants": [["off", { "Bool": false }], ["on", { "Bool": true }]] }] });
    fleet.call("PUT", "/v1/flags", flags);
    let site = Site::open(options(&fleet)).expect("opens");
    let mut child = Child::new("c", &folder.path().join("slots"), fleet.root);
    child.way = Way::Bridge(Box::new(site.bridge()));
    let offer = child.check_in().flags.expect("flags");
    assert!(offer.sequence > 1_700_000_000, "the second in which they were set");
    let document = child.document(offer.offer, Part::Flags).expect("a document");
    let read = dunlin_update::trust::Document::read(&document, dunlin_update::trust::Role::Rollout).expect("signed");
    read.check(&fleet.root, dunlin_update::trust::Role::Rollout, &dunlin_update::trust::Ed25519).expect("believed");
    child.flags = offer.sequence;
    assert_eq!(child.check_in().flags, None, "they are not offered to who has them");
}

#[test]
fn children_beyond_what_is_allowed_are_strangers() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let site = Site::open(SiteOptions { max_children: 1, ..options(&fleet) }).expect("opens");
    let mut bridge = site.bridge();
    let mut one = Child::new("one", &folder.path().join("one"), fleet.root);
    one.way = Way::Bridge(Box::new(site.bridge()));
    one.check_in();
    let up = dunlin_device::message::Up::CheckIn(dunlin_device::message::CheckIn {
        identity: b"two",
        name: "m",
        running: None,
        phase: 0,
        fetching: None,
        last: None,
        whole: None,
        beside: None,
        root: 1,
        rollout: 0,
        floor: 0,
        flags: 0,
        inferences: 0,
        failed: 0,
        slowest: 0,
    });
    let mut datagram = [0; 128];
    let len = dunlin_device::message::encode(&up, &mut datagram).expect("room");
    let error = bridge.receive(&datagram[..len], &mut Vec::new()).expect_err("one is the most");
    assert!(error.to_string().contains("two"), "{error}");
    assert_eq!(site.status().children.len(), 1);
}

#[test]
fn a_thousand_lines_cost_little() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 600);
    let site = Site::open(SiteOptions { secret: Some([3; 32]), ..options(&fleet) }).expect("opens");
    assert!(size_of::<dunlin_gateway::Bridge>() <= 32);
    // Devices of a flock share connections; each is a device of its own to the server.
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (site, done) = (&site, &done);
            scope.spawn(move || {
                for n in 0..50u32 {
                    let identity = (thread * 50 + n).to_le_bytes();
                    let up = dunlin_device::message::Up::CheckIn(dunlin_device::message::CheckIn {
                        identity: &identity,
                        name: "m",
                        running: None,
                        phase: 0,
                        fetching: None,
                        last: None,
                        whole: None,
                        beside: None,
                        root: 1,
                        rollout: 0,
                        floor: 0,
                        flags: 0,
                        inferences: 0,
                        failed: 0,
                        slowest: 0,
                    });
                    let mut datagram = [0; 128];
                    let len = dunlin_device::message::encode(&up, &mut datagram).expect("room");
                    let mut bridge = site.bridge();
                    assert!(bridge.exchange(&datagram[..len], &mut Vec::new()).expect("an answer"));
                    assert!(bridge.device().is_some());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 200);
    let listed = fleet.call("GET", "/v1/devices?limit=1000", serde_json::Value::Null);
    let count = listed["items"].as_array().or_else(|| listed.as_array()).map(Vec::len);
    assert_eq!(count, Some(200), "{listed}");
}
