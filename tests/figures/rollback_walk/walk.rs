//! A random walk of operators and devices over a real server, and the devices that end up on a package nobody wants.
//!
//! The server is a process of its own, the devices run the model and check signatures. Time is set forward by a file that
//! server and devices read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dunlin::{Block, Package};
use dunlin_cli::flock::digits::{DEADLINE, Images};
use dunlin_cli::flock::drive::Flock;
use dunlin_cli::flock::faults::Faults;
use dunlin_cli::flock::pace::Pace;
use dunlin_cli::flock::random;
use dunlin_cli::flock::real::{Factory, Real, Terms, arena};
use dunlin_cli::samples::Samples;
use dunlin_fleet::store::Store;
use dunlin_fleet::{Clock, Config, Role, Server, SystemClock, hex};
use dunlin_gateway::{Client as GatewayClient, Connection, Site as GatewaySite, SiteOptions};
use dunlin_update::Limits;
use dunlin_update::trust::{self, Release, Role as Signer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::database::Database;
use super::program::Program;
use super::site::{Answer, Client, Published, Tenant, publish, tenant};

/// Seconds between polls of a device, on average; jitter makes it half to one and a half times as long.
const POLL_SECONDS: u64 = 60;
/// Seconds in which each device that is online polls at least twice.
const TWO_POLLS_SECONDS: u64 = 3 * POLL_SECONDS + 10;
/// Seconds after which devices that are often offline, or whose server was killed, have polled.
const SETTLE_SECONDS: u64 = 40 * POLL_SECONDS;
/// Packages that rollouts choose from; the first is the factory's.
const PACKAGES: u32 = 6;
/// Devices that are always online, and those that miss half of their polls.
const STEADY: u32 = 8;
const FLAKY: u32 = 6;

/// Length and kind of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) seed: u64,
    /// Actions of operators and devices, at least.
    pub(crate) actions: u64,
    /// Whether the server is killed at random moments.
    pub(crate) kills: bool,
}

/// Result of a walk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walked {
    /// Requests of operators that were done.
    pub(crate) acts: u64,
    /// Requests of operators that were refused.
    pub(crate) refused: u64,
    /// Polls of devices.
    pub(crate) device_actions: u64,
    /// Trials that devices passed.
    pub(crate) confirmed: u64,
    pub(crate) kills: u64,
    /// Rollbacks that had not reached each online device within two polls.
    pub(crate) late: u64,
    /// Devices found on a package that nobody wants after everybody has polled.
    pub(crate) stranded: u64,
    /// Devices that cannot go back, by what the server gives as the reason.
    pub(crate) blocked: BTreeMap<String, u64>,
    /// Inferences made while the kill switch was thrown and had had two polls to arrive.
    pub(crate) inferred_while_stopped: u64,
}

/// The computer's clock plus the seconds in a file.
#[derive(Debug)]
pub(crate) struct FileClock(pub(crate) PathBuf);

impl FileClock {
    fn skipped_micros(&self) -> u64 {
        std::fs::read_to_string(&self.0).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    }

    fn skip(&self, seconds: u64) {
        let text = (self.skipped_micros() + seconds * 1_000_000).to_string();
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.0)).expect("the clock is set");
    }
}

impl Clock for FileClock {
    fn micros(&self) -> u64 {
        SystemClock.micros() + self.skipped_micros()
    }
}

/// Serves until it is killed.
pub(crate) async fn serve(folder: &Path, url: &str, listen: SocketAddr) {
    let config = Config {
        database: url.to_owned(),
        listen,
        tick: Duration::from_millis(20),
        clock: Arc::new(FileClock(folder.join("clock"))),
        ..Config::in_folder(folder)
    };
    let server = Server::start(config).await.expect("the server starts");
    println!("listening on http://{}", server.address());
    std::future::pending().await
}

/// A state of the walk.
struct World<'a> {
    walk: Walk,
    start: &'a dyn Fn() -> Command,
    runtime: tokio::runtime::Runtime,
    program: Option<Program>,
    client: Client,
    tenant: Tenant,
    packages: Vec<Published>,
    clock: Arc<FileClock>,
    pace: Arc<Pace>,
    now_micros: u64,
    steady: Flock<Real>,
    flaky: Flock<Real>,
    random: u64,
    /// Names of rollouts, in the order in which they were drafted, and their phases as last seen.
    rollouts: Vec<String>,
    phases: BTreeMap<String, String>,
    /// The candidate that was chosen when a rollout of several was approved.
    chosen: BTreeMap<String, u64>,
    /// The rollout that completed last, which is the one that devices are still told about.
    completed: Option<String>,
    numbers: u32,
    /// Packages that an operator or a verdict took back from devices.
    unwanted: BTreeMap<String, bool>,
    stopped: bool,
    database: Database,
    walked: Walked,
}

/// Walks. `start` starts the server's process, which [`serve`]s.
pub(crate) fn walk(walk: Walk, folder: &Path, database: &Database, start: &dyn Fn() -> Command) -> Walked {
    let mut world = World::start(walk, folder, database, start);
    while world.actions() < walk.actions {
        world.act();
        world.pass_with_kills();
        world.look();
    }
    world.finish()
}

impl<'a> World<'a> {
    fn start(walk: Walk, folder: &Path, database: &Database, start: &'a dyn Fn() -> Command) -> Self {
        let clock = Arc::new(FileClock(folder.join("clock")));
        std::fs::write(&clock.0, "0").expect("a clock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let system = runtime.block_on(async {
            let store = Store::open(&database.url, 2).await.expect("opens");
            store.migrate().await.expect("tables");
            let made = Server::make_token(&store, "system", "walk", Role::Admin, &SystemClock).await;
            store.close().await;
            made.expect("a token")
        });
        let (program, client) = Program::start(start()).expect("the server starts");
        let settings = json!({ "poll_seconds": POLL_SECONDS, "device_rate": 1_000_000 });
        let tenant = runtime.block_on(tenant(&client, &system, "walk", 7, settings));
        let packages: Vec<Published> = (1..=PACKAGES).map(|n| package(&tenant, n)).collect();
        for package in &packages {
            runtime.block_on(publish(&client, &tenant, package)).ok();
        }
        let pace = Arc::new(Pace::told(clock.clone()));
        let flock =
            |devices: u32, seed: u64, offline: f64| flock(&client, &tenant, &packages, &pace, devices, seed, offline);
        let (steady, flaky) = (flock(STEADY, walk.seed, 0.0), flock(FLAKY, walk.seed ^ 0xF1A2, 0.5));
        let mut world = Self {
            random: walk.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            walk,
            start,
            runtime,
            program: Some(program),
            client,
            tenant,
            packages,
            clock,
            pace,
            now_micros: 0,
            steady,
            flaky,
            rollouts: Vec::new(),
            phases: BTreeMap::new(),
            chosen: BTreeMap::new(),
            completed: None,
            numbers: PACKAGES,
            database: database.clone(),
            unwanted: BTreeMap::new(),
            stopped: false,
            walked: Walked::default(),
        };
        world.pass(TWO_POLLS_SECONDS);
        world
    }

    /// Returns a number below `below`.
    fn below(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    /// Returns requests of operators and polls of devices so far.
    fn actions(&self) -> u64 {
        self.walked.acts + self.walked.refused + self.polls()
    }

    fn polls(&self) -> u64 {
        let count = |flock: &Flock<Real>| flock.tally().polls;
        count(&self.steady) + count(&self.flaky)
    }

    fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.runtime.block_on(self.client.call(method, path, &self.tenant.admin, body))
    }

    /// Makes a request of an operator and counts what became of it.
    fn order(&mut self, method: &str, path: &str, body: Value) -> bool {
        let answer = self.call(method, path, body);
        assert!(!answer.status.is_server_error(), "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        let done = answer.status.is_success();
        self.walked.acts += u64::from(done);
        self.walked.refused += u64::from(!done);
        done
    }

    /// Lets time pass: devices do what is due, the server's clock follows in small steps.
    fn pass(&mut self, seconds: u64) {
        let mut left = seconds;
        while left > 0 {
            let step = left.min(POLL_SECONDS / 4);
            left -= step;
            self.clock.skip(step);
            self.now_micros += step * 1_000_000;
            self.steady.run(&self.pace, self.now_micros);
            self.flaky.run(&self.pace, self.now_micros);
        }
    }

    /// Lets a random time pass, in which the server may be killed.
    fn pass_with_kills(&mut self) {
        let seconds = self.below(4 * POLL_SECONDS);
        if !self.walk.kills || self.below(3) > 0 {
            return self.pass(seconds);
        }
        let delay = Duration::from_micros(self.below(150_000));
        let program = self.program.take().expect("it runs");
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            program.kill();
        });
        self.pass(seconds);
        killer.join().expect("killed");
        self.walked.kills += 1;
        let (program, client) = Program::start((self.start)()).expect("the server starts again");
        self.program = Some(program);
        self.client = client;
        self.pass(SETTLE_SECONDS);
    }

    fn status(&self, rollout: &str) -> Value {
        self.call("GET", &format!("/v1/rollouts/{rollout}"), Value::Null).json()
    }

    /// Does something that an operator might do.
    fn act(&mut self) {
        let rollout = match self.rollouts.len() as u64 {
            0 => None,
            n => {
                // Mostly the newest ones.
                let back = self.below(4.min(n)) as usize;
                self.rollouts.get(self.rollouts.len() - 1 - back).cloned()
            }
        };
        match (self.below(76), rollout) {
            (0..=11, _) | (_, None) => self.draft_and_start(),
            (12..=18, Some(r)) => drop(self.order("POST", &format!("/v1/rollouts/{r}/start"), Value::Null)),
            (19..=22, Some(r)) => drop(self.order("POST", &format!("/v1/rollouts/{r}/pause"), Value::Null)),
            (23..=26, Some(r)) => drop(self.order("POST", &format!("/v1/rollouts/{r}/resume"), Value::Null)),
            (27..=40, Some(r)) => self.go_on(&r),
            (41..=52, Some(r)) => self.abort(&r, true),
            (53..=56, Some(r)) => self.abort(&r, false),
            (57..=68, Some(r)) => drop(self.order("POST", &format!("/v1/rollouts/{r}/retry"), Value::Null)),
            (69..=71, _) => self.replace_package(),
            (72..=74, _) => self.set_serving(),
            _ => self.switch_off(26),
        }
    }

    /// Lets hours pass in which all devices are switched off, so that a stage's day ends.
    fn switch_off(&mut self, hours: u64) {
        (0..hours).for_each(|_| self.clock.skip(3600));
        self.pass(TWO_POLLS_SECONDS);
    }

    /// Deletes a package, if nothing needs it, and publishes another.
    fn replace_package(&mut self) {
        let n = self.below(self.packages.len() as u64) as usize;
        let id = self.packages[n].id();
        if self.order("DELETE", &format!("/v1/packages/{id}"), Value::Null) {
            self.numbers += 1;
            self.packages[n] = package(&self.tenant, self.numbers);
            self.runtime.block_on(publish(&self.client, &self.tenant, &self.packages[n])).ok();
        }
    }

    fn draft_and_start(&mut self) {
        let pick = |world: &mut Self| world.below(u64::from(PACKAGES)) as usize;
        let (candidate, other, base) = (pick(self), pick(self), pick(self));
        let running = self.census();
        let most_run = running.into_iter().max_by_key(|(_, n)| *n).map(|(digest, _)| digest);
        let base = if self.below(4) > 0 { most_run.unwrap_or_default() } else { self.packages[base].id() };
        let candidate = self.packages[candidate].id();
        let percent = 20 + self.below(70);
        let stage = json!({ "canary_percent": percent, "control_percent": 5, "device_days": 1 });
        let last = json!({ "canary_percent": 90, "control_percent": 5, "device_days": 1 });
        let mut candidates = vec![candidate];
        let strategy = match self.below(6) {
            0 => json!({ "kind": "stages", "stages": [
                { "canary_percent": percent, "control_percent": 5, "shadow_every": 2, "device_days": 1 }, last] }),
            1 => json!({ "kind": "stages", "stages": [
                { "canary_percent": percent, "crossover": true, "device_days": 1 }, last] }),
            2 => {
                candidates.push(self.packages[other].id());
                json!({ "kind": "variants", "percent": 90.0 })
            }
            _ => json!({ "kind": "stages", "stages": [stage, last] }),
        };
        let name = format!("r{}", self.rollouts.len());
        let draft = json!({ "candidates": candidates, "base": base, "strategy": strategy });
        if self.order("PUT", &format!("/v1/rollouts/{name}"), draft) {
            self.rollouts.push(name.clone());
            self.order("POST", &format!("/v1/rollouts/{name}/start"), Value::Null);
        }
    }

    fn go_on(&mut self, rollout: &str) {
        let status = self.status(rollout);
        let candidates = status["candidates"].as_array().map_or(1, Vec::len) as u64;
        let chosen = self.below(candidates);
        let (verb, body) = match status["phase"].as_str() {
            Some("Awaiting") => ("approve", json!({ "stage": status["stage"], "candidate": chosen })),
            _ => ("advance", json!({ "stage": status["stage"] })),
        };
        if self.order("POST", &format!("/v1/rollouts/{rollout}/{verb}"), body) && verb == "approve" {
            self.chosen.insert(rollout.to_owned(), chosen);
        }
        self.look();
    }

    /// Ends a rollout. A rollback has to reach every device that is online within two polls.
    fn abort(&mut self, rollout: &str, reverts: bool) {
        self.look();
        let before = self.status(rollout);
        let started =
            before["started_by"].as_str().is_some_and(|who| !who.is_empty()) || before["phase"] == "Completed";
        let fate = if reverts { "revert" } else { "keep" };
        if !self.order("POST", &format!("/v1/rollouts/{rollout}/abort"), json!({ "devices": fate })) {
            return;
        }
        let candidates: Vec<String> = digests(&before["candidates"]);
        self.phases.insert(rollout.to_owned(), "RolledBack".to_owned());
        if started {
            self.unwanted.extend(candidates.iter().map(|c| (c.clone(), reverts)));
        }
        if reverts && started && !self.walk.kills {
            self.pass(TWO_POLLS_SECONDS);
            let wanted = self.wanted_by_others();
            let mut on_it = BTreeMap::<String, u64>::new();
            for digest in self.steady.members().filter_map(RunningHex::running_hex) {
                if candidates.contains(&digest) && !wanted.contains(&digest) {
                    *on_it.entry(digest).or_default() += 1;
                }
            }
            let late = self.free(on_it.iter().map(|(digest, n)| (digest, *n)));
            if late > 0 {
                self.walked.late += 1;
                eprintln!("seed {}: {rollout}: {late} devices after two polls: {before}", self.walk.seed);
            }
        }
    }

    /// Throws the kill switch, or releases it.
    fn set_serving(&mut self) {
        let version = self.call("GET", "/v1/flags", Value::Null).json()["version"].clone();
        self.stopped = !self.stopped;
        let flag = json!({ "key": "dunlin.serve", "killed": self.stopped, "off": 0, "default": 1,
            "variants": [["off", { "Bool": false }], ["on", { "Bool": true }]], "rules": [] });
        self.order("PUT", "/v1/flags", json!({ "version": version, "ttl": 0, "flags": [flag] }));
        if self.stopped && !self.walk.kills {
            self.pass(TWO_POLLS_SECONDS);
            let before = self.steady.tally().inferences;
            self.pass(10 * POLL_SECONDS);
            self.walked.inferred_while_stopped += self.steady.tally().inferences - before;
        }
    }

    /// Follows what became of rollouts since they were last looked at.
    fn look(&mut self) {
        for rollout in self.rollouts.clone() {
            let status = self.status(&rollout);
            let phase = status["phase"].as_str().unwrap_or_default().to_owned();
            if self.phases.insert(rollout.clone(), phase.clone()) == Some(phase.clone()) {
                continue;
            }
            let candidates = digests(&status["candidates"]);
            match phase.as_str() {
                "Completed" => {
                    let chosen = self.chosen.get(&rollout).copied().unwrap_or(0) as usize;
                    for (n, candidate) in candidates.into_iter().enumerate() {
                        self.unwanted.insert(candidate, n != chosen);
                    }
                    self.completed = Some(rollout);
                }
                // A verdict: people's orders are noted when they are given.
                "RolledBack" => self.unwanted.extend(candidates.into_iter().map(|c| (c, true))),
                _ => {}
            }
        }
    }

    /// Returns packages that a rollout that devices are told about wants some of them to have.
    fn wanted_by_others(&self) -> Vec<String> {
        let mut wanted = Vec::new();
        for rollout in &self.rollouts {
            let status = self.status(rollout);
            let candidates = digests(&status["candidates"]);
            match status["phase"].as_str() {
                Some("Running" | "Awaiting" | "Paused") => wanted.extend(candidates),
                Some("Completed") if self.completed.as_ref() == Some(rollout) => {
                    let chosen = self.chosen.get(rollout).copied().unwrap_or(0) as usize;
                    wanted.extend(candidates.into_iter().nth(chosen));
                }
                _ => {}
            }
        }
        wanted
    }

    fn census(&self) -> BTreeMap<String, u64> {
        let mut census = BTreeMap::new();
        for digest in self.steady.members().chain(self.flaky.members()).filter_map(RunningHex::running_hex) {
            *census.entry(digest).or_default() += 1;
        }
        census
    }

    /// Ends everything that is under way, lets everybody poll, and counts who is where nobody wants them.
    fn finish(mut self) -> Walked {
        if self.stopped {
            self.set_serving();
        }
        for rollout in self.rollouts.clone() {
            let phase = self.status(&rollout)["phase"].as_str().unwrap_or_default().to_owned();
            if matches!(phase.as_str(), "Running" | "Awaiting" | "Paused") {
                let reverts = self.below(2) == 0;
                self.abort(&rollout, reverts);
            }
        }
        self.pass(SETTLE_SECONDS);
        self.look();
        let census = self.census();
        let wanted = self.wanted_by_others();
        let unwanted = |digest: &String| self.unwanted.get(digest) == Some(&true) && !wanted.contains(digest);
        self.walked.stranded =
            self.free(census.iter().filter(|(digest, _)| unwanted(digest)).map(|(digest, n)| (digest, *n)));
        for ((_, reason), n) in self.blocked() {
            *self.walked.blocked.entry(reason).or_default() += n;
        }
        if self.walked.stranded > 0 {
            eprintln!("seed {}: {census:?} unwanted {:?}", self.walk.seed, self.unwanted);
        }
        self.walked.device_actions = self.polls();
        self.walked.confirmed = self.steady.tally().confirmed + self.flaky.tally().confirmed;
        if let Some(program) = self.program.take() {
            program.kill();
        }
        self.walked
    }

    /// Returns how many devices the server says cannot leave a recalled package, by package and reason.
    fn blocked(&self) -> BTreeMap<(String, String), u64> {
        self.runtime.block_on(async {
            sqlx::any::install_default_drivers();
            let pool = sqlx::AnyPool::connect(&self.database.url).await.expect("connects");
            let query = "SELECT digest, blocked, COUNT(*) AS n FROM recalled_devices
                         WHERE back IS NULL AND blocked IS NOT NULL GROUP BY digest, blocked";
            let rows = sqlx::query(query).fetch_all(&pool).await.expect("rows");
            let blocked = rows
                .iter()
                .map(|r| ((r.get("digest"), r.get("blocked")), r.get::<i64, _>("n").unsigned_abs()))
                .collect();
            pool.close().await;
            blocked
        })
    }

    /// Returns how many of these devices are free to leave what they run, by package.
    fn free<'d>(&self, on: impl Iterator<Item = (&'d String, u64)>) -> u64 {
        let blocked = self.blocked();
        let of = |digest: &str| -> u64 { blocked.iter().filter(|((d, _), _)| d == digest).map(|(_, n)| n).sum() };
        on.map(|(digest, n)| n.saturating_sub(of(digest))).sum()
    }
}

fn digests(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|d| d.as_str().map(str::to_owned)).collect()
}

/// A digit classifier of this version with its signed release.
fn package(tenant: &Tenant, number: u32) -> Published {
    let artifact = dunlin_models::ALL.iter().find(|a| a.name == "digits" && a.version == "1").expect("an artifact");
    let version = format!("1.{number}");
    // Without golden vectors no trial is passed.
    let golden = Samples::from_bytes("digits", artifact.golden).expect("golden vectors").golden();
    let options = dunlin::onnx::Options {
        name: "digits".into(),
        version: version.clone(),
        golden,
        ..dunlin::onnx::Options::default()
    };
    let bytes = dunlin::onnx::compile(artifact.onnx, &options).expect("it compiles").package;
    let opened = Package::open(&bytes).expect("it opens");
    let manifest = opened.manifest();
    let release = Release {
        name: manifest.name,
        version: manifest.version,
        digest: opened.digest(),
        hash: Sha256::digest(&bytes[..]).into(),
        len: bytes.len() as u32,
        number,
        counter: 1,
        expires: 0,
        target: manifest.target,
        engine_min: (manifest.engine_min.major, manifest.engine_min.minor),
        ops_version: manifest.ops_version,
        memory: manifest.arena_bytes.saturating_add(manifest.scratch_bytes),
    };
    let unsigned = trust::envelope(Signer::Targets, &release).expect("an envelope");
    let signed = trust::sign(&unsigned, Signer::Targets, &tenant.keys.targets).expect("signed");
    Published { digest: opened.digest(), bytes: bytes.to_vec(), release: signed }
}

#[allow(clippy::too_many_arguments, reason = "one call")]
fn flock(
    client: &Client,
    tenant: &Tenant,
    packages: &[Published],
    pace: &Arc<Pace>,
    devices: u32,
    seed: u64,
    offline: f64,
) -> Flock<Real> {
    let first = Block::from(&packages[0].bytes[..]);
    let needed = arena(&first).expect("it loads");
    let factory =
        Factory { arena: 2 * needed, slot: 2 * first.len(), ..Factory::new(first, tenant.root).expect("it loads") };
    let connection = Connection { server: format!("http://{}", client.address), idle: 4, ..Connection::default() };
    let carrier = GatewayClient::with_clock(&connection, pace.clone()).expect("a client");
    let site = GatewaySite::open(SiteOptions {
        token: Some(tenant.enrol.clone()),
        secret: Some(random::key_seed(seed, u32::MAX)),
        max_children: devices as usize,
        clock: pace.clone(),
        ..SiteOptions::new(carrier)
    });
    let terms = Arc::new(Terms {
        site: site.expect("it opens"),
        factory,
        name: "digits",
        images: Images::test().expect("images"),
        usable: 0.0,
        limits: Limits { inferences: 20, errors: 20, late: 20, deadline_us: DEADLINE },
        faults: Faults { offline, crash: 0.05, worse: 1.0, ..Faults::default() },
        seed,
        // A trial takes about ten minutes, several polls.
        rate: 120.0,
        spread: POLL_SECONDS * 1_000_000,
        interval: POLL_SECONDS * 1_000_000,
        window: 3600 * 1_000_000,
    });
    Flock::new(devices, 1, |n| Real::new(&terms, n))
}

trait RunningHex {
    fn running_hex(&self) -> Option<String>;
}

impl RunningHex for Real {
    fn running_hex(&self) -> Option<String> {
        dunlin_cli::flock::drive::Member::running(self).map(|digest| hex(&digest))
    }
}
