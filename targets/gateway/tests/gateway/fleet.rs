//! A fleet server in this process, with a tenant, keys, and packages.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunlin_fleet::config::Tls;
use dunlin_fleet::{Config, Role, Server, hex};
use dunlin_package::{Builder, ManifestDraft, Package};
use dunlin_update::trust::{self, MAX_KEYS, Release, Role as Signer, RoleKeys, RootKeys, SecretKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

/// A package as it is published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) digest: [u8; 32],
    pub(crate) hash: [u8; 32],
    pub(crate) bytes: Vec<u8>,
    release: Vec<u8>,
}

pub(crate) struct Fleet {
    runtime: Runtime,
    server: Option<Server>,
    pub(crate) folder: PathBuf,
    pub(crate) url: String,
    port: u16,
    targets: SecretKey,
    pub(crate) root: RootKeys,
    /// Its signed document.
    pub(crate) root_document: Vec<u8>,
    pub(crate) enrol: String,
    operator: String,
    agent: ureq::Agent,
}

impl Fleet {
    /// A server over plain HTTP, whose devices poll every `seconds`.
    pub(crate) fn start(folder: &Path, seconds: u32) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let server = runtime.block_on(Server::start(Config::in_folder(folder))).expect("the server starts");
        let address = server.address();
        let system = runtime.block_on(server.token("system", "installer", Role::Admin)).expect("a token");
        let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().new_agent();
        let root = SecretKey::from_seed([1; 32]).expect("a seed");
        let mut fleet = Self {
            runtime,
            server: Some(server),
            folder: folder.into(),
            url: format!("http://{address}"),
            port: address.port(),
            targets: SecretKey::from_seed([2; 32]).expect("a seed"),
            root: RootKeys {
                version: 1,
                expires: u64::MAX,
                count: 3,
                keys: [[0; 32]; MAX_KEYS],
                roles: [RoleKeys::default(); 4],
            },
            root_document: Vec::new(),
            enrol: String::new(),
            operator: system.clone(),
            agent,
        };
        let settings = json!({ "poll_seconds": seconds, "operator_rate": 100_000, "device_rate": 100_000 });
        fleet.call("PUT", "/v1/tenants/a", json!({ "title": "a", "settings": settings }));
        let token = |role: &str| {
            let made = fleet.call("PUT", &format!("/v1/tokens/{role}"), json!({ "role": role, "tenant": "a" }));
            made["secret"].as_str().expect("a secret").to_owned()
        };
        let (enrol, operator) = (token("enrol"), token("admin"));
        (fleet.enrol, fleet.operator) = (enrol, operator);
        let shown = fleet.call("GET", "/v1/root", Value::Null);
        let server_key = dunlin_fleet::unhex(shown["server_key"].as_str().expect("a key")).expect("digits");
        let keys = [root.public(), fleet.targets.public(), server_key.try_into().expect("32 bytes")];
        fleet.root.keys.iter_mut().zip(keys).for_each(|(to, from)| *to = from);
        let one = |bit: u8| RoleKeys { threshold: 1, keys: 1 << bit };
        fleet.root.roles = [one(0), one(1), one(2), RoleKeys::default()];
        let unsigned = trust::envelope(Signer::Root, &fleet.root).expect("an envelope");
        let signed = trust::sign(&unsigned, Signer::Root, &root).expect("signed");
        fleet.send("PUT", "/v1/root", &[], &signed);
        fleet.root_document = signed;
        fleet
    }

    /// The server goes away.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }

    /// It comes back at the same address, perhaps with TLS.
    pub(crate) fn resume(&mut self, tls: Option<Tls>) {
        let mut config = Config::in_folder(&self.folder);
        config.listen.set_port(self.port);
        config.tls = tls;
        let until = Instant::now() + Duration::from_secs(20);
        self.server = Some(loop {
            match self.runtime.block_on(Server::start(config.clone())) {
                Ok(server) => break server,
                // Connections of before keep the port for a moment.
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        });
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Value {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        request = request.header("authorization", format!("Bearer {}", self.operator));
        if path.starts_with("/v1/t") || path.starts_with("/v1/r") || path.starts_with("/v1/f") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut response = self.agent.run(request.body(body).expect("a request")).expect("the server answers");
        let text = response.body_mut().read_to_string().expect("text");
        assert!(response.status().is_success(), "{method} {path}: {} {text}", response.status());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// An operator's request, which has to be done.
    pub(crate) fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, path, &[], &bytes)
    }

    /// Signs a package of the model `m` and publishes it.
    pub(crate) fn publish(&self, number: u32, len: usize) -> Published {
        let version = format!("1.{number}");
        let manifest = ManifestDraft { name: "m".into(), version, target: "any".into(), ..ManifestDraft::default() };
        let weights =
            (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(number) >> 11) as u8).collect();
        let bytes = Builder { manifest, plan: vec![1, 2, 3, 4], weights, ..Builder::default() }.build().expect("built");
        self.publish_bytes(number, bytes)
    }

    /// Signs a package and publishes it.
    pub(crate) fn publish_bytes(&self, number: u32, bytes: Vec<u8>) -> Published {
        let package = Package::open(&bytes).expect("opens");
        let (digest, manifest) = (package.digest(), package.manifest());
        let hash = Sha256::digest(&bytes).into();
        let release = Release {
            name: manifest.name,
            version: manifest.version,
            digest,
            hash,
            len: bytes.len() as u32,
            number,
            counter: 0,
            expires: 0,
            target: manifest.target,
            engine_min: (manifest.engine_min.major, manifest.engine_min.minor),
            ops_version: manifest.ops_version,
            memory: manifest.arena_bytes + manifest.scratch_bytes,
        };
        let unsigned = trust::envelope(Signer::Targets, &release).expect("an envelope");
        let release = trust::sign(&unsigned, Signer::Targets, &self.targets).expect("signed");
        let headers = [("x-dunlin-release", hex(&release))];
        self.send("PUT", &format!("/v1/packages/{}", hex(&digest)), &headers, &bytes);
        Published { digest, hash, bytes, release }
    }

    /// Rolls a package out to `percent` of the devices that run `base`.
    pub(crate) fn roll_out(&self, id: &str, to: &Published, base: Option<&Published>, percent: u32) {
        let stages = json!([{ "canary_percent": percent, "device_days": 1000, "zero_failures": true }]);
        let draft = json!({
            "candidates": [hex(&to.digest)],
            "base": base.map(|b| hex(&b.digest)),
            "strategy": { "kind": "stages", "stages": stages },
        });
        self.call("PUT", &format!("/v1/rollouts/{id}"), draft);
        self.call("POST", &format!("/v1/rollouts/{id}/start"), Value::Null);
    }

    /// A device as the server sees it.
    pub(crate) fn device(&self, id: &str) -> Value {
        self.call("GET", &format!("/v1/devices/{id}"), Value::Null)["device"].take()
    }

    /// How often something was asked for, by the server's own count.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let request = self.agent.get(format!("{}/metrics", self.url));
        let text = request.call().expect("metrics").body_mut().read_to_string().expect("text");
        let line = text.lines().find(|l| l.split([' ', '{']).next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    }
}

/// A slow network to a server: the address of a relay that lets so many bytes through in a second.
pub(crate) fn slow(url: &str, rate: u32) -> String {
    let server: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for here in listener.incoming().map_while(Result::ok) {
            let Ok(there) = TcpStream::connect(server) else { continue };
            let (mut up, mut down) = (here.try_clone().expect("a clone"), there.try_clone().expect("a clone"));
            let (mut to_server, mut to_client) = (there, here);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut up, &mut to_server);
                let _ = to_server.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(n) = down.read(&mut buffer)
                    && n > 0
                    && to_client.write_all(&buffer[..n]).is_ok()
                {
                    std::thread::sleep(Duration::from_secs(1) * n as u32 / rate);
                }
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    format!("http://{address}")
}

impl Published {
    pub(crate) fn id(&self) -> String {
        hex(&self.digest)
    }

    pub(crate) fn release(&self) -> &[u8] {
        &self.release
    }
}
