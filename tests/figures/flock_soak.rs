//! Simulated devices of `dunlin flock --stand-in` against a fleet server in a process of its own, with a rollout going through
//! them: half of the devices get the candidate in the first stage, nine of ten in the second, and then all. Each device polls
//! about every five minutes with a report of the last five. Server and devices share this machine.
//!
//! `flock_soak [--devices N] [--minutes M] [--database URL]`: 2,000 devices for one minute (which then poll every minute) on
//! SQLite; `-- --devices 100000 --minutes 10` is the whole.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dunlin::{Block, Package};
use dunlin_cli::flock::digits::{self, Images};
use dunlin_cli::flock::drive::Flock;
use dunlin_cli::flock::faults::Faults;
use dunlin_cli::flock::link::Link;
use dunlin_cli::flock::pace::Pace;
use dunlin_cli::flock::stand_in::{StandIn, Terms};
use dunlin_cli::flock::tally::Tally;
use dunlin_fleet::store::Store;
use dunlin_fleet::{Config, Role as Access, Server, SystemClock, hex, unhex};
use dunlin_update::delta::{EncodeOptions, encode};
use dunlin_update::trust::{self, MAX_KEYS, Release, Role, RoleKeys, RootKeys, SecretKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

/// Requests at once.
const THREADS: usize = 32;
/// Milliseconds in which 99 of 100 polls are to be answered.
const P99_TARGET_MS: f64 = 250.0;

fn main() {
    if let (Some(folder), Some(url)) = (argument("--serve"), argument("--on")) {
        return serve(Path::new(&folder), url);
    }
    let number = |name: &str, none: u32| argument(name).map_or(none, |n| n.parse().expect("a number"));
    let devices = number("--devices", 2000);
    let minutes = number("--minutes", 1).max(1);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fleet.db");
    let database = argument("--database").unwrap_or_else(|| format!("sqlite://{}", file.display()));
    eprintln!("load of this machine before: {}", load());
    let soak = Soak::start(folder.path(), &database, interval_seconds(minutes));
    let (tally, peak) = soak.run(devices, minutes);
    soak.report(devices, minutes, &tally, peak);
    eprintln!("load of this machine after: {}", load());
}

/// Returns the value of an argument.
fn argument(name: &str) -> Option<String> {
    let mut all = std::env::args().skip_while(|a| a != name);
    all.next().and(all.next())
}

/// Returns the seconds between two polls of a device: five minutes, or less where each device would not poll in the time.
fn interval_seconds(minutes: u32) -> u64 {
    u64::from(minutes * 60).min(300)
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_else(|_| "unknown".into()).trim().to_owned()
}

fn figure(name: &str, value: f64, unit: &str, better: &str, target: Option<f64>) {
    let line = json!({ "figure": name, "value": value, "unit": unit, "better": better, "target": target,
        "peer": null, "ratio": null });
    println!("{line}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads")
}

/// Serves until it is killed, as `dunlin-fleet serve` does.
fn serve(folder: &Path, database: String) {
    runtime().block_on(async {
        let config = Config { database, connections: 16, ..Config::in_folder(folder) };
        let server = Server::start(config).await.expect("the server starts");
        println!("listening on http://{}", server.address());
        std::future::pending::<()>().await;
    });
}

/// A server process, killed when it is dropped.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(folder: &Path, database: &str) -> Self {
        let this = std::env::current_exe().expect("this program");
        let mut command = Command::new(this);
        command.arg("--serve").arg(folder).args(["--on", database]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, url }
    }

    /// Returns the most resident memory that the process had, bytes; nothing where the system does not say.
    fn peak_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server, and who asks it.
struct Soak {
    server: Process,
    folder: PathBuf,
    database: String,
    admin: String,
    enrol: String,
    interval_seconds: u64,
    base: [u8; 32],
    candidate: [u8; 32],
}

impl Soak {
    /// Starts the server with a tenant, keys, and two published packages.
    fn start(folder: &Path, database: &str, interval_seconds: u64) -> Self {
        let system = runtime().block_on(async {
            let store = Store::open(database, 2).await.expect("opens");
            store.migrate().await.expect("tables");
            let made = Server::make_token(&store, "system", "soak", Access::Admin, &SystemClock).await;
            store.close().await;
            made.expect("a token of a database that has none")
        });
        let mut soak = Self {
            server: Process::start(folder, database),
            folder: folder.to_owned(),
            database: database.to_owned(),
            admin: system,
            enrol: String::new(),
            interval_seconds,
            base: [0; 32],
            candidate: [0; 32],
        };
        let settings = json!({ "poll_seconds": interval_seconds, "device_rate": 1_000_000, "operator_rate": 100_000,
            "max_devices": 10_000_000 });
        soak.call("PUT", "/v1/tenants/soak", &json!({ "title": "Soak", "settings": settings }));
        let token = |name: &str, role: &str| {
            let wanted = json!({ "role": role, "tenant": "soak" });
            let made = soak.call("PUT", &format!("/v1/tokens/{name}"), &wanted);
            made["secret"].as_str().expect("a secret").to_owned()
        };
        let (admin, enrol) = (token("soak-admin", "admin"), token("soak-factory", "enrol"));
        soak.admin = admin;
        soak.enrol = enrol;
        soak.publish();
        soak
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Value {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(60))).build().into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.server.url));
        request = request.header("authorization", format!("Bearer {}", self.admin));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(body.to_vec()).expect("a request");
        let mut answer = agent.run(request).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        assert!(answer.status().is_success(), "{method} {path}: {}: {text}", answer.status());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[], body.as_bytes())
    }

    /// Publishes two versions of the digits and the difference between them, under a root by which the server signs rollouts.
    fn publish(&mut self) {
        let key = |n: u8| SecretKey::from_seed([n; 32]).expect("a seed");
        let (root, targets) = (key(1), key(2));
        let shown = self.call("GET", "/v1/root", &Value::Null);
        let server = shown["server_key"].as_str().and_then(unhex).and_then(|k| k.try_into().ok()).expect("a key");
        let mut keys = [[0; 32]; MAX_KEYS];
        keys[..3].copy_from_slice(&[root.public(), targets.public(), server]);
        let one = |bit: u8| RoleKeys { threshold: 1, keys: 1 << bit };
        let roles = [one(0), one(1), one(2), RoleKeys::default()];
        let document = RootKeys { version: 1, expires: u64::MAX, count: 3, keys, roles };
        let unsigned = trust::envelope(Role::Root, &document).expect("encodes");
        self.send("PUT", "/v1/root", &[], &trust::sign(&unsigned, Role::Root, &root).expect("signed"));
        let images = Images::test().expect("images");
        let packages = ["1", "2"].map(|version| digits::package(version, &images).expect("compiles"));
        let digests = packages.each_ref().map(|bytes| Package::open(bytes).expect("opens").digest());
        for ((bytes, digest), number) in packages.iter().zip(digests).zip(1..) {
            let release = hex(&release(bytes, number, &targets));
            self.send("PUT", &format!("/v1/packages/{}", hex(&digest)), &[("x-dunlin-release", release)], bytes);
        }
        let difference = encode(Some(&packages[0]), &packages[1], &EncodeOptions::default()).expect("a difference");
        let path = format!("/v1/packages/{}/deltas/{}", hex(&digests[1]), hex(&digests[0]));
        self.send("PUT", &path, &[], &difference.patch);
        [self.base, self.candidate] = digests;
    }

    /// Lets the devices run for so many minutes while the rollout goes through its stages by hand. Returns the counts and the
    /// server's peak memory, bytes.
    fn run(&self, devices: u32, minutes: u32) -> (Tally, u64) {
        let stage =
            |canary: u32| json!({ "canary_percent": canary, "control_percent": 100 - canary, "device_days": 1000 });
        let draft = json!({ "candidates": [hex(&self.candidate)], "base": hex(&self.base), "gate": {},
            "strategy": { "kind": "stages", "stages": [stage(50), stage(90)] } });
        self.call("PUT", "/v1/rollouts/soak", &draft);
        let terms = Arc::new(Terms {
            link: Link::new(&self.server.url, &self.enrol, THREADS),
            faults: Faults::default(),
            model: "digits".into(),
            target: "any".into(),
            running: Some(self.base),
            seed: 1,
            interval: self.interval_seconds,
            window: self.interval_seconds,
            rate: 60.0,
            spread: self.interval_seconds,
        });
        let mut flock = Flock::new(devices, THREADS, |n| StandIn::new(&terms, n));
        let until = u64::from(minutes) * 60_000_000;
        // Tenths of the time at which the rollout is started, advanced, and advanced to all.
        let advance = |stage: u8| json!({ "stage": stage });
        let acts = [(2, "start", Value::Null), (5, "advance", advance(0)), (7, "advance", advance(1))];
        let mut acts = acts.into_iter().peekable();
        let pace = Pace::running(1.0, Arc::new(SystemClock));
        let mut peak = 0;
        flock.run_and_show(&pace, until, Duration::from_secs(1), |_| {
            peak = self.server.peak_bytes().unwrap_or(peak);
            if let Some((_, act, body)) = acts.next_if(|(tenth, ..)| pace.now() >= until / 10 * tenth) {
                self.call("POST", &format!("/v1/rollouts/soak/{act}"), &body);
            }
        });
        (flock.tally(), peak)
    }

    /// Prints the figures.
    fn report(&self, devices: u32, minutes: u32, tally: &Tally, peak: u64) {
        let engine = self.database.split(':').next().unwrap_or_default();
        let print = |name: &str, value: f64, unit: &str, better: &str, target: Option<f64>| {
            figure(&format!("flock_soak_{name}_{engine}"), value, unit, better, target);
        };
        let errors: u64 = tally.errors.values().sum();
        if errors > 0 {
            eprintln!("{:?}", tally.errors);
        }
        let status = self.call("GET", "/v1/rollouts/soak", &Value::Null);
        let succeeded = status["succeeded"].as_f64().unwrap_or(0.0);
        let stored = self.stored();
        let seconds = f64::from(minutes * 60);
        print("devices", f64::from(devices), "devices", "higher", None);
        print("seconds", seconds, "s", "higher", None);
        print("enrolled", tally.enrolled as f64, "devices", "higher", Some(f64::from(devices)));
        print("polls", tally.polls as f64, "polls", "higher", None);
        print("polls_per_second", tally.polls as f64 / seconds, "1/s", "higher", None);
        print("poll_p50", tally.quantile(0.5), "ms", "lower", None);
        print("poll_p99", tally.quantile(0.99), "ms", "lower", Some(P99_TARGET_MS));
        print("errors", errors as f64, "requests", "lower", Some(0.0));
        print("told_to_wait", tally.waits as f64, "answers", "lower", None);
        print("updates", tally.updates as f64, "downloads", "higher", None);
        print("confirmed", tally.confirmed as f64, "devices", "higher", None);
        print("succeeded", succeeded, "devices", "higher", Some(tally.confirmed as f64));
        print("reports_acknowledged", tally.reports as f64, "reports", "higher", None);
        // What is stored and not acknowledged was on its way when the time was over.
        print("reports_stored", stored.reports as f64, "reports", "higher", Some(tally.reports as f64));
        print("server_peak_memory", peak as f64, "bytes", "lower", None);
        print("database", stored.bytes as f64, "bytes", "lower", None);
        print("database_per_device", stored.bytes as f64 / f64::from(devices), "bytes", "lower", None);
    }

    fn stored(&self) -> Stored {
        sqlx::any::install_default_drivers();
        let name = |suffix: &str| self.folder.join(format!("fleet.db{suffix}"));
        let files = ["", "-wal", "-shm"].iter().filter_map(|suffix| std::fs::metadata(name(suffix)).ok());
        let files: u64 = files.map(|file| file.len()).sum();
        runtime().block_on(async {
            let pool = sqlx::AnyPool::connect(&self.database).await.expect("connects");
            let one = async |text: &'static str| -> u64 {
                let row = sqlx::query(text).fetch_one(&pool).await.expect("an answer");
                row.try_get::<i64, _>(0).expect("a number").unsigned_abs()
            };
            let reports = one("SELECT COUNT(*) FROM reports").await;
            let is_sqlite = self.database.starts_with("sqlite");
            let bytes = if is_sqlite { files } else { one("SELECT pg_database_size(current_database())").await };
            pool.close().await;
            Stored { reports, bytes }
        })
    }
}

/// What the database holds.
struct Stored {
    reports: u64,
    bytes: u64,
}

/// Returns the signed release of a package.
fn release(bytes: &Block, number: u32, targets: &SecretKey) -> Vec<u8> {
    let opened = Package::open(bytes).expect("opens");
    let manifest = opened.manifest();
    let release = Release {
        name: manifest.name,
        version: manifest.version,
        digest: opened.digest(),
        hash: Sha256::digest(&**bytes).into(),
        len: u32::try_from(bytes.len()).expect("small"),
        number,
        counter: 0,
        expires: 0,
        target: manifest.target,
        engine_min: (manifest.engine_min.major, manifest.engine_min.minor),
        ops_version: manifest.ops_version,
        memory: manifest.arena_bytes.saturating_add(manifest.scratch_bytes),
    };
    let unsigned = trust::envelope(Role::Targets, &release).expect("encodes");
    trust::sign(&unsigned, Role::Targets, targets).expect("signed")
}
