//! The whole chain: firmware on an emulated board, a serial line, the gateway, and the real fleet server, which rolls a
//! signed package out to the board.

#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dunlin_fleet::{Config, Role, Server, hex, unhex};
use dunlin_gateway::serial::Serial;
use dunlin_gateway::{Client, Connection, Site, SiteOptions, line};
use dunlin_tests::board::Bench;
use dunlin_tests::board::goods::{Goods, Pack};
use dunlin_tests::defmt::Strings;
use dunlin_tests::firmware;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A board whose serial port is a terminal of this machine.
struct Board {
    qemu: Child,
    terminal: PathBuf,
    log: Option<JoinHandle<Vec<u8>>>,
}

impl Board {
    fn start(elf: &Path, folder: &Path) -> Self {
        let mut qemu = Command::new("qemu-system-arm")
            .args(["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "pty"])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(elf)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("QEMU starts");
        let mut out = BufReader::new(qemu.stdout.take().expect("a pipe"));
        // "char device redirected to /dev/pts/3 (label serial0)", and after that what the board logs.
        let mut told = String::new();
        out.read_line(&mut told).expect("a line");
        let terminal = told.split_whitespace().find(|w| w.starts_with("/dev/")).expect("a terminal").into();
        let log = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            out.read_to_end(&mut bytes).expect("the board's log");
            bytes
        });
        Self { qemu, terminal, log: Some(log) }
    }

    /// Pulls the plug; gives what it logged.
    fn stop(mut self) -> Vec<u8> {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        self.log.take().map(|log| log.join().expect("a log")).unwrap_or_default()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A fleet server with one tenant.
struct Fleet {
    runtime: Runtime,
    server: Server,
    agent: ureq::Agent,
    token: String,
    enrol: String,
}

impl Fleet {
    fn start(folder: &Path, goods: &Goods) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let server = runtime.block_on(Server::start(Config::in_folder(folder))).expect("the server starts");
        let token = runtime.block_on(server.token("system", "installer", Role::Admin)).expect("a token");
        let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().new_agent();
        let mut fleet = Self { runtime, server, agent, token, enrol: String::new() };
        let settings = json!({ "poll_seconds": 2, "operator_rate": 100_000, "device_rate": 100_000 });
        fleet.call("PUT", "/v1/tenants/a", &json!({ "title": "a", "settings": settings }));
        let token = |role: &str| {
            let made = fleet.call("PUT", &format!("/v1/tokens/{role}"), &json!({ "role": role, "tenant": "a" }));
            made["secret"].as_str().expect("a secret").to_owned()
        };
        let (enrol, admin) = (token("enrol"), token("admin"));
        (fleet.enrol, fleet.token) = (enrol, admin);
        let shown = fleet.call("GET", "/v1/root", &Value::Null);
        let key = unhex(shown["server_key"].as_str().expect("a key")).expect("digits").try_into().expect("32 bytes");
        for root in goods.roots_with(key).expect("they can be signed") {
            fleet.send("PUT", "/v1/root", None, &root);
        }
        fleet
    }

    fn send(&self, method: &str, path: &str, header: Option<(&str, String)>, body: &[u8]) -> Value {
        let uri = format!("http://{}{path}", self.server.address());
        let mut request = ureq::http::Request::builder().method(method).uri(uri);
        request = request.header("authorization", format!("Bearer {}", self.token));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let mut response = self.agent.run(request.body(body).expect("a request")).expect("the server answers");
        let text = response.body_mut().read_to_string().expect("text");
        assert!(response.status().is_success(), "{method} {path}: {} {text}", response.status());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, path, None, &bytes)
    }

    /// Publishes a package as release `number`, and the difference to `base`.
    fn publish(&self, goods: &Goods, pack: &Pack, number: u32, base: Option<&Pack>) {
        let published = goods.publish(pack, base, number).expect("it can be signed");
        let path = format!("/v1/packages/{}", hex(&pack.digest));
        self.send("PUT", &path, Some(("x-dunlin-release", hex(&published.release))), &pack.bytes);
        if let Some(base) = base {
            self.send("PUT", &format!("{path}/deltas/{}", hex(&base.digest)), None, &published.stream);
        }
    }

    fn roll_out(&self, id: &str, to: &Pack, base: &Pack) {
        let stages = json!([{ "canary_percent": 100, "device_days": 1000, "zero_failures": true }]);
        let draft = json!({ "candidates": [hex(&to.digest)], "base": hex(&base.digest),
            "strategy": { "kind": "stages", "stages": stages } });
        self.call("PUT", &format!("/v1/rollouts/{id}"), &draft);
        self.call("POST", &format!("/v1/rollouts/{id}/start"), &Value::Null);
    }

    /// Waits until the server's only device is as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let listed = self.call("GET", "/v1/devices", &Value::Null);
            let device = listed.get(0).cloned().unwrap_or(Value::Null);
            if wanted(&device) {
                return device;
            }
            assert!(Instant::now() < until, "the server does not see that {what}: {device}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn a_board_takes_what_the_server_rolls_out_and_takes_a_bad_one_back() {
    if let Some(what) = firmware::missing() {
        eprintln!("skipped: needs {what}");
        return;
    }
    let image = firmware::build(firmware::TARGETS[0], "ota", &[]).expect("the firmware builds");
    let goods = Goods::new().expect("the models compile");
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(folder.path(), &goods);
    fleet.publish(&goods, &goods.old, 1, None);
    fleet.publish(&goods, &goods.new, 2, Some(&goods.old));
    fleet.publish(&goods, &goods.bad, 3, None);

    let server = format!("http://{}", fleet.server.address());
    let client = Client::new(&Connection { server, ..Connection::default() }).expect("a client");
    let state = Some(folder.path().join("gateway"));
    let options =
        SiteOptions { token: Some(fleet.enrol.clone()), state, target: "cortex-m4".into(), ..SiteOptions::new(client) };
    let site = Site::open(options).expect("opens");
    let workers = site.start(2);

    let bench = Bench::new("gateway", &goods.device().expect("it fits")).expect("a folder");
    let board = Board::start(image.path(), &bench.0);
    let mut serial = Serial::open(&board.terminal, 115_200).expect("the terminal opens");
    let going = Arc::new(AtomicBool::new(true));
    let line = {
        let (going, mut bridge) = (going.clone(), site.bridge());
        std::thread::spawn(move || line::serve(&mut serial, &mut bridge, &|| going.load(Ordering::SeqCst)))
    };

    let enrolled = fleet.until("it runs what it was made with", |d| d["running"] == hex(&goods.old.digest));
    assert_eq!(enrolled["target"], "cortex-m4");
    fleet.roll_out("good", &goods.new, &goods.old);
    let updated = fleet.until("it runs the new model", |d| d["last_outcome"] == "Confirmed");
    assert_eq!(updated["running"], hex(&goods.new.digest));
    let rollout = fleet.call("GET", "/v1/rollouts/good", &Value::Null);
    assert_eq!(rollout["succeeded"], 1, "{rollout}");
    // It came as a difference, once.
    let held = site.status();
    let delta = goods.publish(&goods.new, Some(&goods.old), 2).expect("it can be signed").stream;
    assert_eq!((held.artifacts, held.artifact_bytes), (1, delta.len() as u64));

    // A model that reads real images wrongly: the board takes it back by itself.
    fleet.call("POST", "/v1/rollouts/good/abort", &json!({ "devices": "keep" }));
    fleet.roll_out("bad", &goods.bad, &goods.new);
    let reverted = fleet
        .until("it took the bad model back", |d| d["last_outcome"].as_str().is_some_and(|o| o.starts_with("Reverted")));
    assert_eq!(reverted["running"], hex(&goods.new.digest));
    assert!(hex(&goods.bad.digest).starts_with(reverted["last_digest"].as_str().expect("a digest")), "{reverted}");

    going.store(false, Ordering::SeqCst);
    line.join().expect("the line's thread").expect("the line held");
    let log = board.stop();
    workers.stop();
    let strings = Strings::read(&std::fs::read(image.path()).expect("the firmware")).expect("strings");
    let lines: Vec<String> = strings.lines(&log).flatten().collect();
    println!("{}", lines.join("\n"));
    let short = |pack: &Pack| hex(&pack.digest)[..8].to_owned();
    for told in [format!("info  confirmed {}", short(&goods.new)), format!("warn  reverted {}", short(&goods.bad))] {
        assert!(lines.iter().any(|line| line.starts_with(&told)), "no line '{told}'");
    }
    let status = site.status();
    assert!(status.delivered > 0, "the board's reports reached the server: {status}");
    println!("{status}");
    drop(fleet.runtime);
}
