//! How the server is to run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};

/// Certificates for HTTPS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Chain of certificates, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Who signs devices' certificates, PEM: then a certificate for the DNS name `ID.device` is as good as a signature.
    pub client_ca: Option<PathBuf>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// `sqlite://PATH` or `postgres://...`.
    pub database: String,
    /// Connections to the database.
    pub connections: u32,
    /// A folder, or `s3://bucket/prefix`.
    pub artifacts: String,
    /// Folder of the tenants' rollout keys.
    pub keys: PathBuf,
    /// HTTPS.
    pub tls: Option<Tls>,
    /// Bytes that a package or a difference may have.
    pub max_artifact: usize,
    /// How long the head of a request may take to come, and half of what its body and the answer may take besides a second
    /// for each 16 KiB.
    pub patience: Duration,
    /// Whether tenants' webhooks may be on this machine or in private networks.
    pub webhook_internal: bool,
    /// Where the fleet's metrics are sent, hour by hour: an OpenTelemetry collector's address, `http://HOST:4318`.
    pub otlp: Option<String>,
    /// Where `/metrics` of all tenants is served without a token, for a Prometheus in a private network; nothing: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// How often live rollouts are looked at; zero: only when [`Server::tick`](crate::Server::tick) is called.
    pub tick: Duration,
    /// How long requests may go on after the server was told to stop.
    pub grace: Duration,
    /// Where the time is from.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// A server of one process with everything in one folder, on the loopback interface.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database: format!("sqlite://{}", folder.join("fleet.db").display()),
            connections: 8,
            artifacts: folder.join("artifacts").display().to_string(),
            keys: folder.join("keys"),
            tls: None,
            max_artifact: 256 << 20,
            patience: Duration::from_secs(30),
            webhook_internal: false,
            otlp: None,
            metrics_listen: None,
            tick: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
        }
    }
}
