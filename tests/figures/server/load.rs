//! A fleet server in this process, with devices that are known to it, and their requests signed beforehand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dunlin_fleet::{Clock as _, Config, Role, Server, SystemClock, hex, wire};
use dunlin_telemetry::window::Counter;
use dunlin_telemetry::{Profile, Recorder};
use dunlin_update::trust::SecretKey;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// A client with connections that are kept.
pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// The server and where it is.
pub(crate) struct Site {
    pub(crate) server: Server,
    others: Vec<Server>,
    pub(crate) http: Http,
    pub(crate) address: String,
    turn: AtomicUsize,
    _folder: tempfile::TempDir,
}

/// Prints one figure.
pub(crate) fn figure(name: &str, value: f64, unit: &str, better: &str, target: Option<f64>) {
    let line = json!({ "figure": name, "value": value, "unit": unit, "better": better, "target": target,
        "peer": null, "ratio": null });
    println!("{line}");
}

/// The value of an argument.
pub(crate) fn argument(name: &str) -> Option<String> {
    let mut all = std::env::args().skip_while(|a| a != name);
    all.next().and(all.next())
}

impl Site {
    /// On SQLite in a temporary folder, or on the PostgreSQL whose address `--database` gives.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::in_folder(folder.path());
        config.database = argument("--database").unwrap_or(config.database);
        config.clock = Arc::new(SystemClock);
        let server = Server::start(config.clone()).await.expect("the server starts");
        let replicas: usize = argument("--replicas").map_or(1, |n| n.parse().expect("a number"));
        let mut others = Vec::new();
        for _ in 1..replicas {
            others.push(Server::start(config.clone()).await.expect("another starts"));
        }
        let address = server.address().to_string();
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { server, others, http, address, turn: AtomicUsize::new(0), _folder: folder }
    }

    /// How many servers there are.
    #[allow(dead_code, reason = "not all figures have several servers")]
    pub(crate) fn replicas(&self) -> usize {
        self.others.len() + 1
    }

    /// Stops all servers.
    pub(crate) async fn stop(self) {
        for other in self.others {
            other.stop().await;
        }
        self.server.stop().await;
    }

    /// A tenant whose devices may send as many requests a second as given.
    pub(crate) async fn tenant(&self, id: &str, device_rate: u32) {
        let secret = self.server.token("system", id, Role::Admin).await.expect("a token");
        let body = json!({ "settings": { "device_rate": device_rate, "max_devices": 10_000_000 } }).to_string();
        let request = Request::put(format!("http://{}/v1/tenants/{id}", self.address))
            .header("authorization", format!("Bearer {secret}"))
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let answer = self.http.request(request).await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// Devices, as if they had enrolled: in one transaction, because enrolment is not what is measured.
    pub(crate) async fn devices(&self, tenant: &str, database: &str, count: u32) -> Vec<Device> {
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(database).await.expect("connects");
        let mut tx = pool.begin().await.expect("begins");
        let mut devices = Vec::with_capacity(count as usize);
        for n in 0..count {
            let device = Device::new(tenant, n);
            sqlx::query(
                "INSERT INTO devices (tenant, id, pubkey, target, attributes, enrolled, seen, nonce, boot, seq, missed,
                 model, phase) VALUES ($1, $2, $3, 'sim', '{}', 0, 0, 0, 0, 0, 0, 'm', 'Idle')",
            )
            .bind(tenant)
            .bind(hex(&device.id))
            .bind(&device.key.public()[..])
            .execute(&mut *tx)
            .await
            .expect("inserted");
            devices.push(device);
        }
        tx.commit().await.expect("committed");
        pool.close().await;
        devices
    }

    /// Where its tables are.
    pub(crate) fn database(&self) -> String {
        let file = self._folder.path().join("fleet.db");
        argument("--database").unwrap_or_else(|| format!("sqlite://{}", file.display()))
    }

    /// Sends a poll; the status, and the seconds that Retry-After gives.
    pub(crate) async fn send(&self, signed: &Signed) -> Result<(u16, Option<u64>), String> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        let address =
            turn.checked_sub(1).and_then(|i| self.others.get(i)).map_or(self.server.address(), Server::address);
        let request = Request::post(format!("http://{address}/d/v1/poll"))
            .header(wire::DEVICE, &signed.id)
            .header(wire::NONCE, &signed.nonce)
            .header(wire::SIGNATURE, &signed.signature)
            .body(Full::new(signed.body.clone()))
            .map_err(|e| e.to_string())?;
        let answer = self.http.request(request).await.map_err(|e| e.to_string())?;
        let (parts, body) = answer.into_parts();
        body.collect().await.map_err(|e| e.to_string())?;
        let after = parts.headers.get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        Ok((parts.status.as_u16(), after))
    }
}

/// A device.
pub(crate) struct Device {
    key: SecretKey,
    id: [u8; 16],
    number: u32,
}

/// A poll that is ready to go.
pub(crate) struct Signed {
    id: String,
    nonce: String,
    signature: String,
    body: Bytes,
}

impl Device {
    fn new(tenant: &str, number: u32) -> Self {
        let mut seed = [0x77; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let key = SecretKey::from_seed(seed).expect("a seed");
        let hash = Sha256::new_with_prefix(tenant).chain_update([0]).chain_update(key.public()).finalize();
        Self { key, id: hash[..16].try_into().expect("16 bytes"), number }
    }

    /// A poll with one full report, signed as of now.
    pub(crate) fn poll(&self, seq: u32) -> Signed {
        let mut recorder = Recorder::<10, 0>::new(1, 0x0101);
        recorder.count(Counter::Inferences, 1000 + self.number % 100);
        recorder.count(Counter::DeadlineMisses, self.number % 7);
        let mut bytes = [0; 512];
        let len = recorder.take(3600).encode(Profile::Full, &mut bytes).expect("room");
        let poll = wire::Poll {
            model: "m".into(),
            running: Some([1; 32]),
            phase: 0,
            fetching: None,
            last: None,
            whole: None,
            beside: None,
            root: 1,
            rollout: 0,
            floor: 0,
            flags: 0,
            reports: vec![wire::Report { boot: 1, seq, bytes: bytes[..len].to_vec() }],
        };
        let body = postcard::to_allocvec(&poll).expect("encodes");
        let nonce = SystemClock.micros().to_string();
        let signature = wire::signature(&self.key, "POST", "/d/v1/poll", &nonce, &body);
        Signed { id: hex(&self.id), nonce, signature, body: body.into() }
    }
}

/// Polls of all devices, signed on all processors.
pub(crate) fn sign_all(devices: &[Device], seq: u32) -> Vec<Signed> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = devices.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = devices
            .chunks(part)
            .map(|c| scope.spawn(move || c.iter().map(|d| d.poll(seq)).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|p| p.join().expect("signed")).collect()
    })
}

/// The value below which a part of sorted durations lies, in milliseconds.
#[allow(dead_code, reason = "one of the figures is no duration")]
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e3)
}

/// What the server says of itself, for the record.
pub(crate) fn engine(site: &Site) -> &'static str {
    if site.database().starts_with("sqlite") { "sqlite" } else { "postgres" }
}

/// A number for the names of tenants, so that a database can be used again.
pub(crate) fn fresh() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    format!("t{now}")
}
