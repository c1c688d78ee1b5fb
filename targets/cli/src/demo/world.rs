//! What the story needs: a server, keys, packages and a flock.

use std::sync::Arc;
use std::time::Duration;

use dunlin::{Block, Package};
use dunlin_fleet::{Config, ManualClock, Role as Access, Server, unhex};
use dunlin_gateway::{Client as Carrier, Connection, Site, SiteOptions};
use dunlin_update::Limits;
use dunlin_update::delta::{EncodeOptions, Encoded, encode};
use dunlin_update::trust::{self, MAX_KEYS, Release, Role, RoleKeys, RootKeys, SecretKey};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::failure::{Code, Failure, Outcome};
use crate::fleet::client::Client;
use crate::flock::digits::{self, DEADLINE, Images};
use crate::flock::drive::Flock;
use crate::flock::faults::Faults;
use crate::flock::pace::Pace;
use crate::flock::random;
use crate::flock::real::{Factory, Real, Terms, arena};
use crate::trust::hex;

/// Hours between two check-ins of a device.
pub(super) const INTERVAL: u64 = 6;
/// Inferences of a device an hour.
const RATE: f64 = 40.0 / 24.0;
/// An answer that is less likely than this cannot be used.
const USABLE: f32 = 0.5;
/// Devices that speak to the server at once. It writes what comes together in one transaction.
const THREADS: usize = 16;

/// A version that is published.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) name: &'static str,
    pub(super) digest: String,
    pub(super) bytes: Block,
}

/// Server, keys, packages, devices.
pub(super) struct World {
    runtime: Runtime,
    server: Option<Server>,
    pub(super) clock: ManualClock,
    pub(super) url: String,
    /// Whoever looks at the dashboard.
    pub(super) token: String,
    pub(super) operator: Client,
    targets: SecretKey,
    pub(super) versions: Vec<Version>,
    pub(super) flock: Flock<Real>,
    pub(super) devices: u32,
    pub(super) pace: Arc<Pace>,
    now: u64,
    /// Removed at the end.
    _folder: TempDir,
}

fn fault(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Internal, format!("{what}: {error}"))
}

/// A root that gives one key to each role, the server's to rollouts.
fn root(root: &SecretKey, targets: &SecretKey, server: [u8; 32]) -> Outcome<(RootKeys, Vec<u8>)> {
    let mut keys = [[0; 32]; MAX_KEYS];
    keys.iter_mut().zip([root.public(), targets.public(), server]).for_each(|(to, from)| *to = from);
    let one = |bit: u8| RoleKeys { threshold: 1, keys: 1 << bit };
    let all = RootKeys {
        version: 1,
        expires: u64::MAX,
        count: 3,
        keys,
        roles: [one(0), one(1), one(2), RoleKeys::default()],
    };
    let signed = trust::envelope(Role::Root, &all).and_then(|plain| trust::sign(&plain, Role::Root, root));
    Ok((all, signed.map_err(|e| fault("the root", e))?))
}

impl World {
    /// Starts the server, makes keys and packages, publishes the first version, and makes devices that left the factory
    /// with it.
    pub(super) fn start(devices: u32, seed: u64) -> Outcome<Self> {
        let folder = tempfile::tempdir().map_err(|e| Failure::new(Code::File, format!("a temporary folder: {e}")))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|e| fault("threads", e))?;
        let clock = ManualClock::new();
        let mut config = Config::in_folder(folder.path());
        // It decides when the story says that time has passed.
        config.tick = Duration::ZERO;
        config.clock = Arc::new(clock.clone());
        let server = runtime.block_on(Server::start(config)).map_err(|e| fault("the server", e))?;
        let url = format!("http://{}", server.address());
        let system =
            runtime.block_on(server.token("system", "demo", Access::Admin)).map_err(|e| fault("a token", e))?;
        let installer = Client::new(&url, &system)?;
        let settings = json!({ "poll_seconds": INTERVAL * 3600, "operator_rate": 1000, "device_rate": 100_000 });
        installer.call("PUT", "/v1/tenants/demo", &json!({ "title": "The demo's fleet", "settings": settings }))?;
        let token = |name: &str, role: &str| -> Outcome<String> {
            let made =
                installer.call("PUT", &format!("/v1/tokens/{name}"), &json!({ "role": role, "tenant": "demo" }))?;
            Ok(made["secret"].as_str().unwrap_or_default().to_owned())
        };
        let operator = Client::new(&url, &token("demo-operator", "admin")?)?;
        let (enrol, looker) = (token("demo-factory", "enrol")?, token("demo-dashboard", "operator")?);

        let secret = |n: u32| random::key(seed, u32::MAX - n);
        let (root_key, targets) = (secret(0), secret(1));
        let shown = operator.get("/v1/root")?;
        let key = shown["server_key"].as_str().and_then(unhex).and_then(|k| k.try_into().ok());
        let (keys, document) = root(&root_key, &targets, key.ok_or_else(|| fault("the server's key", "is none"))?)?;
        let put = operator.upload("/v1/root", &[], &document, &ProgressBar::hidden())?;
        if let Some(problem) = put["problem"].as_str() {
            return Err(fault("the root", problem));
        }

        let images = Images::test()?;
        // Whoever made the third version read pixels column by column, in training, in validation, and here.
        let transposed = images.transposed();
        let mut versions = Vec::new();
        for (name, number, with) in [("v1", "1", &images), ("v2", "2", &images), ("v3", "3", &transposed)] {
            let bytes = digits::package(number, with)?;
            let digest = Package::open(&bytes).map_err(|e| fault(name, e))?.digest();
            versions.push(Version { name, digest: hex(&digest), bytes });
        }
        let slot = versions.iter().map(|v| v.bytes.len()).max().unwrap_or(0);
        let arena = versions.iter().map(|v| arena(&v.bytes)).collect::<Outcome<Vec<usize>>>()?;
        let first = versions.first().map(|v| v.bytes.clone()).ok_or_else(|| fault("the versions", "there are none"))?;
        // Devices have as much memory as the largest version needs.
        let factory = Factory { slot, arena: arena.into_iter().max().unwrap_or(0), ..Factory::new(first, keys)? };
        let pace = Arc::new(Pace::told(Arc::new(clock.clone())));
        let connection = Connection { server: url.clone(), idle: THREADS, ..Connection::default() };
        let carrier = Carrier::with_clock(&connection, pace.clone());
        let carrier = carrier.map_err(|e| fault("the way to the server", e))?;
        let site = Site::open(SiteOptions {
            token: Some(enrol),
            secret: Some(random::key_seed(seed, u32::MAX - 2)),
            attributes: [("flock".to_owned(), "simulated".to_owned())].into(),
            max_children: devices as usize,
            max_wait: Duration::from_secs(86_400),
            clock: pace.clone(),
            ..SiteOptions::new(carrier)
        });
        let terms = Arc::new(Terms {
            site: site.map_err(|e| fault("the way to the server", e))?,
            factory,
            name: "digits",
            images,
            usable: USABLE,
            limits: Limits { inferences: 12, errors: 3, late: 3, deadline_us: DEADLINE },
            faults: Faults { worse: 1.0, ..Faults::default() },
            seed,
            rate: RATE,
            spread: INTERVAL * 3_600_000_000,
            interval: INTERVAL * 3_600_000_000,
            window: INTERVAL * 3_600_000_000,
        });
        let flock = Flock::new(devices, THREADS, |n| Real::new(&terms, n));
        let mut world = Self {
            runtime,
            server: Some(server),
            clock,
            url,
            token: looker,
            operator,
            targets,
            versions,
            flock,
            devices,
            pace,
            now: 0,
            _folder: folder,
        };
        world.publish(0)?;
        Ok(world)
    }

    /// Publishes a version with its release, and the differences from the one before and back to it.
    pub(super) fn publish(&mut self, n: usize) -> Outcome<Option<usize>> {
        let Some(version) = self.versions.get(n).cloned() else { return Ok(None) };
        let release = self.release(&version, n as u32 + 1)?;
        let path = format!("/v1/packages/{}", version.digest);
        let bar = ProgressBar::hidden();
        self.operator.upload(&path, &[("x-dunlin-release", &hex(&release))], &version.bytes, &bar)?;
        let Some(base) = n.checked_sub(1).and_then(|b| self.versions.get(b)) else { return Ok(None) };
        let difference = |from: &Version, to: &Version| -> Outcome<usize> {
            let encoded = encode(Some(&from.bytes), &to.bytes, &EncodeOptions::default());
            let Encoded { patch, .. } = encoded.map_err(|e| fault("a difference", e))?;
            let path = format!("/v1/packages/{}/deltas/{}", to.digest, from.digest);
            self.operator.upload(&path, &[], &patch, &bar)?;
            Ok(patch.len())
        };
        difference(&version, base)?;
        difference(base, &version).map(Some)
    }

    fn release(&self, version: &Version, number: u32) -> Outcome<Vec<u8>> {
        let opened = Package::open(&version.bytes).map_err(|e| fault(version.name, e))?;
        let manifest = opened.manifest();
        let release = Release {
            name: manifest.name,
            version: manifest.version,
            digest: opened.digest(),
            hash: Sha256::digest(&*version.bytes).into(),
            len: version.bytes.len() as u32,
            number,
            counter: 1,
            expires: 0,
            target: manifest.target,
            engine_min: (manifest.engine_min.major, manifest.engine_min.minor),
            ops_version: manifest.ops_version,
            memory: manifest.arena_bytes.saturating_add(manifest.scratch_bytes),
        };
        let signed = trust::envelope(Role::Targets, &release);
        let signed = signed.and_then(|plain| trust::sign(&plain, Role::Targets, &self.targets));
        signed.map_err(|e| fault(version.name, e))
    }

    /// Lets hours pass: devices do what is due, then the server decides.
    pub(super) fn pass(&mut self, hours: u64) {
        self.now += hours * 3_600_000_000;
        self.flock.run(&self.pace, self.now);
        self.clock.skip(hours * 3600);
        if let Some(server) = &self.server {
            self.runtime.block_on(server.tick());
        }
    }

    /// Days since the beginning.
    pub(super) fn days(&self) -> f64 {
        self.now as f64 / 86_400e6
    }

    /// How many devices run each version, by what they told the server.
    pub(super) fn census(&self) -> Outcome<Vec<u64>> {
        let all = self.operator.all("/v1/devices", "id", usize::MAX)?;
        let runs = |digest: &str| all.iter().filter(|d: &&Value| d["running"] == digest).count() as u64;
        Ok(self.versions.iter().map(|v| runs(&v.digest)).collect())
    }

    /// Goes on until somebody presses Ctrl-C.
    pub(super) fn serve(mut self, json: bool) -> Outcome<()> {
        if !json {
            println!("\n{}  log in with {}\nCtrl-C ends it; the devices rest.", self.url, self.token);
        }
        let waited = self.runtime.block_on(tokio::signal::ctrl_c());
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
        waited.map_err(|e| fault("Ctrl-C", e))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real devices on a real server: a stop reaches them with their next check-in, and no model runs until it ends.
    #[test]
    fn real_devices_obey_a_stop() {
        let mut world = World::start(4, 7).expect("a world");
        world.pass(4 * INTERVAL);
        let run = |world: &World| world.flock.tally().inferences;
        assert!(run(&world) > 0, "models run");
        let stop = |world: &World, verb: &str, model: Value| {
            world.operator.call("POST", &format!("/v1/serving/{verb}"), &json!({ "model": model })).expect("done")
        };
        for model in [Value::Null, json!(world_model(&world))] {
            let stopped = stop(&world, "stop", model.clone());
            assert_eq!(stopped["stops"][0]["obeying"], 0, "{stopped}");
            // One check-in to hear of it, one to say so.
            world.pass(4 * INTERVAL);
            let status = world.operator.get("/v1/serving").expect("a status");
            assert_eq!(status["stops"][0]["obeying"], 4, "{status}");
            let before = run(&world);
            world.pass(4 * INTERVAL);
            assert_eq!(run(&world), before, "nothing runs while {model} is stopped");
            stop(&world, "resume", model.clone());
            world.pass(4 * INTERVAL);
            assert!(run(&world) > before, "models run again after {model}");
        }
    }

    fn world_model(world: &World) -> String {
        let devices = world.operator.get("/v1/devices").expect("devices");
        devices[0]["model"].as_str().expect("a model").to_owned()
    }
}
