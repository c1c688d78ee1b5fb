//! A server with a tenant, keys and packages, and a client to speak to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_fleet::{Config, ManualClock, Role, Server, hex};
use dunlin_package::{Builder, ManifestDraft, Package};
use dunlin_update::trust::{self, MAX_KEYS, Release, Role as Signer, RoleKeys, RootKeys, SecretKey};
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::database::{self, Database};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Its JSON, if the request was done.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Checks that it was refused so, with a reason and a hint.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        assert!(!text("error").is_empty() && !text("hint").is_empty(), "{json}");
        text("error")
    }
}

/// A client of one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: Legacy<HttpConnector, Full<Bytes>>,
    pub(crate) address: SocketAddr,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { http: Legacy::builder(TokioExecutor::new()).build_http(), address }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: impl Into<Bytes>,
    ) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let sent = tokio::time::timeout(Duration::from_secs(60), self.http.request(request)).await;
        let response = sent.expect("an answer within a minute").ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// An operator's request.
    pub(crate) async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let headers = [("authorization", format!("Bearer {token}"))];
        self.send(method, path, &headers, bytes).await.expect("the server answers")
    }
}

/// The operator's keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) root: SecretKey,
    pub(crate) targets: SecretKey,
}

/// A package as it is published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) digest: [u8; 32],
    pub(crate) bytes: Vec<u8>,
    pub(crate) release: Vec<u8>,
}

impl Published {
    pub(crate) fn id(&self) -> String {
        hex(&self.digest)
    }
}

impl Keys {
    pub(crate) fn new(n: u8) -> Self {
        Self {
            root: SecretKey::from_seed([n; 32]).expect("a seed"),
            targets: SecretKey::from_seed([n ^ 0x80; 32]).expect("a seed"),
        }
    }

    /// A root that gives the server's key the role of rollouts.
    pub(crate) fn root(&self, version: u32, server: [u8; 32]) -> (RootKeys, Vec<u8>) {
        let mut keys = [[0; 32]; MAX_KEYS];
        keys[..3].copy_from_slice(&[self.root.public(), self.targets.public(), server]);
        let one = |bit: u8| RoleKeys { threshold: 1, keys: 1 << bit };
        let roles = [one(0), one(1), one(2), RoleKeys::default()];
        let root = RootKeys { version, expires: u64::MAX, count: 3, keys, roles };
        let unsigned = trust::envelope(Signer::Root, &root).expect("envelope");
        (root, trust::sign(&unsigned, Signer::Root, &self.root).expect("signed"))
    }

    /// A package with its signed release.
    pub(crate) fn package(&self, name: &str, number: u32, len: usize) -> Published {
        self.package_for(name, number, len, ("any", 0))
    }

    /// A package for a target, with a security counter.
    pub(crate) fn package_for(&self, name: &str, number: u32, len: usize, (target, counter): (&str, u32)) -> Published {
        let manifest = ManifestDraft {
            name: name.into(),
            version: format!("1.{number}"),
            target: target.into(),
            ..ManifestDraft::default()
        };
        let weights = (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761 + number) as u8).collect();
        let bytes = Builder { manifest, plan: vec![1, 2, 3, 4], weights, ..Builder::default() }.build().expect("built");
        let digest = Package::open(&bytes).expect("opens").digest();
        let release = Release {
            name,
            version: &format!("1.{number}"),
            digest,
            hash: Sha256::digest(&bytes).into(),
            len: bytes.len() as u32,
            number,
            counter,
            expires: 0,
            target,
            engine_min: (0, 0),
            ops_version: 0,
            memory: 0,
        };
        let unsigned = trust::envelope(Signer::Targets, &release).expect("envelope");
        let release = trust::sign(&unsigned, Signer::Targets, &self.targets).expect("signed");
        Published { digest, bytes, release }
    }
}

/// A tenant with a token of each role.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) keys: Keys,
    pub(crate) root: RootKeys,
    pub(crate) enrol: String,
    pub(crate) viewer: String,
    pub(crate) operator: String,
    pub(crate) approver: String,
    pub(crate) admin: String,
}

impl Tenant {
    pub(crate) fn token(&self, role: &str) -> &str {
        match role {
            "enrol" => &self.enrol,
            "viewer" => &self.viewer,
            "operator" => &self.operator,
            "approver" => &self.approver,
            _ => &self.admin,
        }
    }
}

/// A running server.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) clock: ManualClock,
    pub(crate) system: String,
}

/// The configuration of a server for tests: it decides when it is told to.
pub(crate) fn config(folder: &Path, database: &Database, clock: &ManualClock) -> Config {
    let mut config = Config::in_folder(folder);
    config.database = database.url.clone();
    config.tick = Duration::ZERO;
    config.webhook_internal = true;
    config.clock = Arc::new(clock.clone());
    config
}

impl Site {
    pub(crate) async fn start(folder: &Path, database: &Database) -> Self {
        let clock = ManualClock::new();
        let server = Server::start(config(folder, database, &clock)).await.expect("the server starts");
        let system = server.token("system", "installer", Role::Admin).await.expect("a token");
        Self { client: Client::new(server.address()), server, clock, system }
    }

    /// A tenant with a root and tokens.
    pub(crate) async fn tenant(&self, id: &str, seed: u8, settings: Value) -> Tenant {
        tenant(&self.client, &self.system, id, seed, settings).await
    }
}

/// A tenant of any server, made through its interface alone.
pub(crate) async fn tenant(client: &Client, system: &str, id: &str, seed: u8, mut settings: Value) -> Tenant {
    if settings["operator_rate"].is_null() {
        settings["operator_rate"] = json!(100_000);
    }
    client.call("PUT", &format!("/v1/tenants/{id}"), system, json!({ "title": id, "settings": settings })).await.ok();
    let mut tokens = Vec::new();
    for role in ["enrol", "viewer", "operator", "approver", "admin"] {
        let path = format!("/v1/tokens/{id}-{role}");
        let made = client.call("PUT", &path, system, json!({ "role": role, "tenant": id })).await.ok();
        tokens.push(made["secret"].as_str().expect("a secret").to_owned());
    }
    let [enrol, viewer, operator, approver, admin] = tokens.try_into().expect("five");
    let keys = Keys::new(seed);
    let shown = client.call("GET", "/v1/root", &admin, Value::Null).await.ok();
    let server = dunlin_fleet::unhex(shown["server_key"].as_str().expect("a key")).expect("hex");
    let (root, document) = keys.root(1, server.try_into().expect("32 bytes"));
    let headers = [("authorization", format!("Bearer {admin}"))];
    let put = client.send("PUT", "/v1/root", &headers, document).await.expect("answer").ok();
    assert_eq!(put["problem"], Value::Null, "{put}");
    Tenant { keys, root, enrol, viewer, operator, approver, admin }
}

/// Publishes a package.
pub(crate) async fn publish(client: &Client, tenant: &Tenant, package: &Published) -> Answer {
    let headers =
        [("authorization", format!("Bearer {}", tenant.operator)), ("x-dunlin-release", hex(&package.release))];
    client
        .send("PUT", &format!("/v1/packages/{}", package.id()), &headers, package.bytes.clone())
        .await
        .expect("answer")
}

/// Runs a test on every engine that there is.
pub(crate) fn on_each_engine<F: Future<Output = ()>>(test: impl Fn(std::path::PathBuf, Database) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    for database in database::all(folder.path()) {
        eprintln!("on {}", database.engine);
        let place = folder.path().join(database.engine);
        std::fs::create_dir_all(&place).expect("a folder");
        runtime.block_on(test(place, database));
    }
}
