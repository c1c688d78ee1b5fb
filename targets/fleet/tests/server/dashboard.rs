//! The dashboard over a real store: pages on each engine, and a browser that pauses and rolls back.

use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin_fleet::{hex, wire};
use dunlin_package::Package;
use dunlin_telemetry::reference::Draft;
use dunlin_telemetry::window::Counter;
use dunlin_telemetry::{Observation, Profile, Recorder, Reference, Sample};
use dunlin_update::trust::{self, Release, Role};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::device::{Behaviour, Device};
use super::rollouts::Flock;
use super::site::{Answer, Published, Site, Tenant, on_each_engine, publish};

/// A package with the reference of a model that saw two classes evenly.
pub(crate) fn with_reference(tenant: &Tenant, plain: &Published, number: u32) -> Published {
    let mut draft = Draft::new();
    (draft.n, draft.class_output, draft.classes) = (10_000, Some(0), vec![5000, 5000]);
    let drift = draft.write().expect("a reference");
    let bytes = dunlin_package::with_drift(&plain.bytes, &drift).expect("a package");
    let digest = Package::open(&bytes).expect("opens").digest();
    let release = Release {
        name: "m",
        version: &format!("1.{number}"),
        digest,
        hash: Sha256::digest(&bytes).into(),
        len: bytes.len() as u32,
        number,
        counter: 0,
        expires: 0,
        target: "any",
        engine_min: (0, 0),
        ops_version: 0,
        memory: 0,
    };
    let unsigned = trust::envelope(Role::Targets, &release).expect("an envelope");
    let release = trust::sign(&unsigned, Role::Targets, &tenant.keys.targets).expect("signed");
    Published { digest, bytes, release }
}

/// What a device measures with, and the start that it is of.
pub(crate) type Kept = Option<(u32, Recorder<2, 0>)>;

/// Six hours of a device that sees the first class nine times in ten, and is late now and then.
fn measure(device: &mut Device, kept: &mut Kept, now: u32, late: u32) {
    observe(device, kept, now, [90, 10], late);
}

/// Hours of a device that sees two classes so often.
pub(crate) fn observe(device: &mut Device, kept: &mut Kept, now: u32, classes: [u32; 2], late: u32) {
    let model = device.running.map_or(0, |d| u16::from_be_bytes([d[0], d[1]]));
    // A new one would say that the device has started.
    let (_, recorder) = match kept.take() {
        Some((boot, recorder)) if boot == device.boot => kept.insert((boot, recorder)),
        _ => kept.insert((device.boot, Recorder::new(device.boot, model))),
    };
    for (class, n) in (0..).zip(classes) {
        let seen = Observation { class: Some(class), confidence: Some(0.93), micros: 4100, ..Observation::default() };
        (0..n).for_each(|_| {
            recorder.add(&Sample::of(&Reference::NONE, &seen));
        });
    }
    recorder.count(Counter::DeadlineMisses, late);
    let mut bytes = [0; 512];
    let len = recorder.take(now).encode(Profile::Full, &mut bytes).expect("room");
    device.unsent.push(wire::Report { boot: device.boot, seq: device.seq, bytes: bytes[..len].to_vec() });
    device.seq += 1;
}

/// Two and a half days of a fleet in the first stage of a rollout; one device falls silent, one takes the candidate back.
async fn story(site: &Site, tenant: &Tenant) -> Flock {
    let (one, two) = (tenant.keys.package("m", 1, 500), tenant.keys.package("m", 2, 500));
    let (one, two) = (with_reference(tenant, &one, 1), with_reference(tenant, &two, 2));
    publish(&site.client, tenant, &one).await.ok();
    publish(&site.client, tenant, &two).await.ok();
    let mut flock = Flock::enrol(site, tenant, 120, &one).await;
    let stages = json!([
        { "canary_percent": 25, "control_percent": 50, "devices": 10, "device_days": 900 },
        { "canary_percent": 50, "control_percent": 50, "devices": 20, "device_days": 4000, "approval": true }]);
    let margins = json!([{ "metric": "latency_p95", "relative": 0.1 }]);
    let draft = json!({ "candidates": [two.id()], "base": one.id(), "gate": { "margins": margins },
        "strategy": { "kind": "stages", "stages": stages } });
    site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
    site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
    let on = json!([["off", { "Bool": false }], ["on", { "Bool": true }]]);
    let rule = json!({ "when": { "Equal": ["region", { "Text": "eu" }] }, "serve": { "Variant": 1 } });
    let flags = json!([{ "key": "bicycles", "default": 0, "variants": on, "rules": [rule] }]);
    site.client
        .call("PUT", "/v1/flags", &tenant.operator, json!({ "version": 0, "ttl": 86_400, "flags": flags }))
        .await
        .ok();
    let mut silent = None;
    let mut recorders: Vec<_> = flock.devices.iter().map(|_| None).collect();
    for quarter in 0..10 {
        for (i, (device, kept)) in flock.devices.iter_mut().zip(&mut recorders).enumerate() {
            measure(device, kept, (quarter + 1) * 6 * 3600, u32::from(i % 40 == 0));
        }
        flock.poll(site).await;
        site.clock.skip(6 * 3600 + 20);
        site.server.tick().await;
        if quarter == 5 {
            silent = flock.devices.pop();
            let canary = flock.devices.iter_mut().find(|d| d.running == Some(two.digest));
            canary.expect("somebody has the candidate").revert();
        }
    }
    assert!(silent.is_some_and(|d| d.behaviour == Behaviour::Good));
    flock.poll(site).await;
    flock
}

/// Signs in and returns the session's cookie.
pub(crate) async fn sign_in(site: &Site, token: &str) -> String {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded".to_owned()),
        ("sec-fetch-site", "same-origin".to_owned()),
    ];
    let body = format!("token={token}&next=/");
    let answer = site.client.send("POST", "/login", &headers, body).await.expect("an answer");
    assert_eq!(answer.status.as_u16(), 303, "{}", String::from_utf8_lossy(&answer.body));
    let cookie = answer.headers.get("set-cookie").and_then(|c| c.to_str().ok()).expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

pub(crate) async fn get(site: &Site, path: &str, cookie: &str) -> Answer {
    site.client.send("GET", path, &[("cookie", cookie.to_owned())], Vec::new()).await.expect("an answer")
}

pub(crate) fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[test]
fn pages_say_what_the_store_has() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let other = site.tenant("b", 2, json!({})).await;
        let flock = story(&site, &tenant).await;
        let cookie = sign_in(&site, &tenant.operator).await;
        let device = hex(&flock.devices[7].id);
        for (path, words) in [
            ("/", &["120", "Deadline misses", "m 1.1", "running", "Silent", "&#34;m 1.2&#34;"][..]),
            (
                "/rollouts",
                &[
                    "<a href=\"/rollouts/r\">r</a>",
                    "m 1.2 over 1.1",
                    "1 of 2",
                    "by a-operator",
                    "href=\"/rollouts/r/rollback\"",
                ],
            ),
            ("/rollouts?phase=Running&model=m", &["1 rollout<", "m 1.2"]),
            ("/rollouts?phase=Paused", &["0 rollouts", "No rollout is in this state"]),
            (
                "/rollouts/r",
                &[
                    "<h1>r</h1>",
                    "Running stage 1 of 2 since",
                    "Next decision",
                    "chart-adoption",
                    "chart-errors",
                    "chart-latency",
                ],
            ),
            ("/rollouts/r", &["Pause", "Roll back", "below the limit", "latency_p95", "25 %", "canary", "HOLD"]),
            ("/rollouts/r/pause", &["Pause r (m 1.2)?"]),
            ("/drift", &["m 1.1", "act on class"]),
            ("/devices", &["120 devices", &device]),
            ("/devices?state=silent", &["1 devices"]),
            ("/devices?ring=ring+3", &["0 devices"]),
            (&format!("/devices/{device}"), &["100 inferences", "enrolled", "Public key"]),
            ("/flags", &["bicycles", "on where region is"]),
            ("/audit", &["rollout.start", "are whole", "session.open", "<a href=\"/rollouts/r\">r</a>"]),
        ] {
            let answer = get(&site, path, &cookie).await;
            let page = text(&answer);
            assert_eq!(answer.status.as_u16(), 200, "{path}: {page}");
            let missing: Vec<_> = words.iter().filter(|word| !page.contains(**word)).collect();
            assert!(missing.is_empty(), "{path} does not say {missing:?}: {page}");
        }
        // Nobody sees another tenant's, or anything with a session that is none.
        let stranger = sign_in(&site, &other.operator).await;
        assert_eq!(get(&site, "/rollouts/r", &stranger).await.status.as_u16(), 404);
        assert_eq!(get(&site, &format!("/devices/{device}"), &stranger).await.status.as_u16(), 404);
        assert!(text(&get(&site, "/devices", &stranger).await).contains("0 devices"));
        assert_eq!(get(&site, "/", "dunlin_session=no").await.status.as_u16(), 303);
        let enrolment = format!("token={}&next=/", tenant.enrol);
        let headers = [
            ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ("sec-fetch-site", "same-origin".to_owned()),
        ];
        let refused = site.client.send("POST", "/login", &headers, enrolment).await.expect("an answer");
        assert_eq!(refused.status.as_u16(), 401, "an enrolment token is no reader's");

        // A viewer reads, and may press nothing.
        let viewer = sign_in(&site, &tenant.viewer).await;
        let page = text(&get(&site, "/rollouts/r", &viewer).await);
        assert!(page.contains("This takes the role operator; yours is viewer."), "{page}");
        assert_eq!(get(&site, "/rollouts/r/pause", &viewer).await.status.as_u16(), 409);
        // A session ends with its token.
        let path = "/v1/tokens/a-viewer";
        site.client.call("DELETE", path, &tenant.admin, Value::Null).await.ok();
        assert_eq!(get(&site, "/", &viewer).await.status.as_u16(), 303);

        if database.engine == "sqlite" {
            browse(&site, &tenant, &other, &device).await;
        }
        site.server.stop().await;
    });
}

/// Presses a button of the rollout's page, with a form that says what an older page said.
async fn press(site: &Site, cookie: &str, path: &str, fields: &str) -> Answer {
    press_on(site, cookie, "/rollouts/r", path, fields).await
}

/// Presses a button of a page.
pub(crate) async fn press_on(site: &Site, cookie: &str, page: &str, path: &str, fields: &str) -> Answer {
    let page = text(&get(site, page, cookie).await);
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a form");
    let headers = [
        ("content-type", "application/x-www-form-urlencoded".to_owned()),
        ("sec-fetch-site", "same-origin".to_owned()),
        ("cookie", cookie.to_owned()),
    ];
    site.client.send("POST", path, &headers, format!("csrf={csrf}&{fields}")).await.expect("an answer")
}

/// Where an answer sends the browser, and what that page says was done.
pub(crate) async fn told(site: &Site, cookie: &str, answer: &Answer) -> String {
    assert_eq!(answer.status.as_u16(), 303, "{}", text(answer));
    let to = answer.headers.get("location").and_then(|l| l.to_str().ok()).expect("an address").to_owned();
    let page = text(&get(site, &to, cookie).await);
    let notice = page.split("class=\"notice\"").nth(1).and_then(|rest| rest.split("</p>").next());
    notice.unwrap_or_default().to_owned()
}

/// What is pressed on a page that is older than the rollout's stage is done, or said not to have been.
#[test]
fn an_old_page_stops_what_has_moved_on() {
    on_each_engine(|folder, database| async move {
        let site = Site::start(&folder, &database).await;
        let tenant = site.tenant("a", 1, json!({})).await;
        let stages =
            json!([{ "canary_percent": 2, "control_percent": 5 }, { "canary_percent": 4, "control_percent": 5 }]);
        super::rollouts::begun(&site, &tenant, stages).await;
        let cookie = sign_in(&site, &tenant.approver).await;
        let phase = async || {
            let now = site.client.call("GET", "/v1/rollouts/r", &tenant.viewer, Value::Null).await.ok();
            now["phase"].as_str().unwrap_or_default().to_owned()
        };
        let reasons = async || {
            let log = site.client.call("GET", "/v1/audit?limit=1000", &tenant.viewer, Value::Null).await.ok();
            log.as_array()
                .expect("a list")
                .iter()
                .filter(|e| e["detail"].as_str().is_some_and(|d| d.contains("\"reason\":\"dark\"")))
                .count()
        };
        site.client.call("POST", "/v1/rollouts/r/advance", &tenant.approver, json!({ "stage": 0 })).await.ok();
        // Dialogs of stage 0, pressed in stage 1.
        let answer = press(&site, &cookie, "/rollouts/r/pause", "stage=0&reason=dark").await;
        assert!(told(&site, &cookie, &answer).await.contains("Paused"), "{:?}", answer.headers);
        assert_eq!((phase().await.as_str(), reasons().await), ("Paused", 1));
        let answer = press(&site, &cookie, "/rollouts/r/resume", "stage=0&reason=").await;
        assert!(told(&site, &cookie, &answer).await.contains("Resumed"));
        // To leave a stage that was left is nothing, and nothing is noted.
        let answer = press(&site, &cookie, "/rollouts/r/advance", "stage=0&reason=late").await;
        assert!(told(&site, &cookie, &answer).await.contains("Nothing was done"));
        assert_eq!(reasons().await, 1);
        let answer = press(&site, &cookie, "/rollouts/r/waive", "stage=1&reason=rare").await;
        assert!(told(&site, &cookie, &answer).await.contains("Waived"));
        // What becomes of the devices has to be said.
        assert_eq!(press(&site, &cookie, "/rollouts/r/rollback", "stage=0&reason=").await.status.as_u16(), 404);
        let answer = press(&site, &cookie, "/rollouts/r/rollback", "stage=0&reason=&devices=keep").await;
        assert!(told(&site, &cookie, &answer).await.contains("Stopped"));
        assert_eq!(phase().await, "RolledBack");
        let answer = press(&site, &cookie, "/rollouts/r/rollback", "stage=0&reason=&devices=revert").await;
        assert!(told(&site, &cookie, &answer).await.contains("Rolled back"));
        assert_eq!(press(&site, &cookie, "/rollouts/r/pause", "stage=0&reason=").await.status.as_u16(), 409);
        // A link from elsewhere says nothing.
        let page = text(&get(&site, "/rollouts/r?done=reverted", &cookie).await);
        assert!(page.contains("rolled back") && !page.contains("class=\"notice\""), "{page}");
        site.server.stop().await;
    });
}

/// Runs `tests/dashboard/check.mjs` against the site.
async fn browse(site: &Site, tenant: &Tenant, other: &Tenant, device: &str) {
    let pictures = std::env::var_os("DUNLIN_PICTURES").map(PathBuf::from);
    check(site, tenant, device, pictures, &[("OTHER_TOKEN", &other.operator)]).await;
}

/// Looks at the pages of the rollout and of a device in a browser, and presses nothing. `name` is a folder for pictures.
pub(crate) async fn look(site: &Site, tenant: &Tenant, device: &str, name: &str) {
    let pictures = std::env::var_os("DUNLIN_PICTURES").map(|folder| PathBuf::from(folder).join(name));
    check(site, tenant, device, pictures, &[("ONLY", "rollout,device")]).await;
}

async fn check(site: &Site, tenant: &Tenant, device: &str, pictures: Option<PathBuf>, more: &[(&str, &str)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard");
    let runs = |command: &mut Command| command.output().is_ok_and(|o| o.status.success());
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
    // Tests run beside each other, and one of them installs.
    static INSTALLING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let turn = INSTALLING.lock().await;
    let installed = || {
        folder.join("node_modules/axe-core").exists()
            || runs(Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(&folder))
    };
    if !Path::new(&chromium).exists() || !runs(Command::new("node").arg("--version")) || !installed() {
        eprintln!("SKIPPED in a browser: chromium, node or its packages are missing");
        return;
    }
    drop(turn);
    let mut check = Command::new("node");
    check.arg("check.mjs").args(pictures).current_dir(&folder).env("CHROMIUM", chromium);
    check.env("BASE", format!("http://{}", site.client.address)).env("ROLLOUT", "r").env("DEVICE", device);
    check.env("TOKEN", &tenant.operator).envs(more.iter().copied());
    let output = tokio::task::spawn_blocking(move || check.output()).await.expect("a thread").expect("node starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    eprintln!("{said}");
}
