//! The server as a whole: started, asked for its address, stopped.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::artifacts::Artifacts;
use crate::audit_log::{self, AuditLog};
use crate::auth::{self, Role, Seal};
use crate::clock::Clock;
use crate::config::Config;
use crate::connections::serve;
use crate::documents::Documents;
use crate::ingest::{self, Ingest};
use crate::limits::{Allowance, Limits};
use crate::metrics::Metrics;
use crate::store::{self, Engine, Store, signed};
use crate::{alerting, api, decide, drift, gauges, otlp, stranded, webhook};

/// What handlers share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) artifacts: Arc<Artifacts>,
    pub(crate) documents: Documents,
    pub(crate) seal: Seal,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) allowance: Allowance,
    pub(crate) metrics: Metrics,
    pub(crate) drift: drift::Lately,
    pub(crate) audit_log: AuditLog,
    pub(crate) max_artifact: usize,
    /// When what is not kept any longer was last looked for.
    pub(crate) pruned: AtomicI64,
    pub(crate) patience: Duration,
    pub(crate) webhook_internal: bool,
    pub(crate) otlp: Option<String>,
    pub(crate) alerting: tokio::sync::Mutex<alerting::Memory>,
    pub(crate) gauges: gauges::Cache,
    pub(crate) stopping: watch::Sender<bool>,
}

/// What handlers get.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) inner: Arc<Inner>,
    pub(crate) ingest: Ingest,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// Why the server does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The database.
    Database(sqlx::Error),
    /// Artifacts, keys, certificates: what is wrong, and with which.
    Configuration(String),
    /// The address cannot be listened on.
    Listen(SocketAddr, std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => write!(f, "the database cannot be used: {error}"),
            Self::Configuration(text) => f.write_str(text),
            Self::Listen(address, error) => write!(f, "{address} cannot be listened on: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<sqlx::Error> for StartError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// A running server. Dropped, it stops at once; [`Server::stop`] lets requests end.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    app: App,
    serving: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    grace: Duration,
}

impl Server {
    /// Opens database, artifacts and keys, brings the tables to this version, and listens.
    ///
    /// # Errors
    /// Which of them cannot be used.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::started(config).await
    }

    /// Compiles [`start`](Self::start) here. The body of an `async fn` is compiled in each crate that awaits it, and with this
    /// one the whole server would be.
    #[inline(never)]
    fn started(config: Config) -> Pin<Box<dyn Future<Output = Result<Self, StartError>> + Send>> {
        Box::pin(Self::start_here(config))
    }

    async fn start_here(config: Config) -> Result<Self, StartError> {
        let store = Store::open(&config.database, config.connections.max(2)).await?;
        store.migrate().await?;
        let mut fresh = [0; 32];
        getrandom::fill(&mut fresh).map_err(|e| StartError::Configuration(format!("no randomness: {e}")))?;
        let seal = Seal::new(store.shared_secret("seal", &fresh).await?);
        let artifacts = Artifacts::open(&config.artifacts).await.map_err(StartError::Configuration)?;
        #[cfg(feature = "tls")]
        let tls = config.tls.as_ref().map(crate::tls::acceptor).transpose().map_err(StartError::Configuration)?;
        #[cfg(not(feature = "tls"))]
        if config.tls.is_some() {
            return Err(StartError::Configuration("this server was built without the feature tls".into()));
        }
        let workers = match store.engine() {
            Engine::Sqlite => 1,
            Engine::Postgres => 4.min(config.connections.max(2) as usize / 2),
        };
        let (stopping, _) = watch::channel(false);
        let audit_log = AuditLog::open(&store).await?;
        let inner = Arc::new(Inner {
            store,
            artifacts: Arc::new(artifacts),
            documents: Documents::new(config.keys),
            seal,
            clock: config.clock,
            limits: Limits::new(),
            allowance: Allowance::default(),
            metrics: Metrics::default(),
            drift: drift::Lately::default(),
            audit_log,
            max_artifact: config.max_artifact,
            pruned: AtomicI64::new(0),
            patience: config.patience,
            webhook_internal: config.webhook_internal,
            otlp: config.otlp,
            alerting: tokio::sync::Mutex::default(),
            gauges: gauges::Cache::default(),
            stopping,
        });
        let (ingest, queues) = Ingest::new(workers);
        let workers = queues.into_iter().map(|queue| tokio::spawn(ingest::work(inner.clone(), queue))).collect();
        let app = App { inner, ingest };
        let listener = TcpListener::bind(config.listen).await.map_err(|e| StartError::Listen(config.listen, e))?;
        let address = listener.local_addr().map_err(|e| StartError::Listen(config.listen, e))?;
        let router = api::router(app.clone());
        if config.tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "plain HTTP beyond this machine: tokens and sessions can be read on the way; give --tls-cert and \
                 --tls-key, or listen on 127.0.0.1 behind something that ends TLS"
            );
        }
        let patience = config.patience;
        let mut stopped = app.stopping.subscribe();
        let until = async move { drop(stopped.wait_for(|s| *s).await) };
        #[cfg(feature = "tls")]
        let serving = match tls {
            Some(acceptor) => {
                let listener = crate::tls::Listener::new(listener, acceptor);
                tokio::spawn(serve(listener, router, crate::tls::Peer::of, patience, until))
            }
            None => tokio::spawn(serve(listener, router, |_| (), patience, until)),
        };
        #[cfg(not(feature = "tls"))]
        let serving = tokio::spawn(serve(listener, router, |_| (), patience, until));
        let mut tasks = Vec::new();
        let mut metrics_address = None;
        if let Some(place) = config.metrics_listen {
            let listener = TcpListener::bind(place).await.map_err(|e| StartError::Listen(place, e))?;
            let address = listener.local_addr().map_err(|e| StartError::Listen(place, e))?;
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "whoever reaches this address reads the metrics of all tenants");
            }
            let mut stopped = app.stopping.subscribe();
            let until = async move { drop(stopped.wait_for(|s| *s).await) };
            let router = api::metrics_router(app.clone());
            tasks.push(tokio::spawn(serve(listener, router, |_| (), patience, until)));
            metrics_address = Some(address);
        }
        if !config.tick.is_zero() {
            let all = app.clone();
            tasks.push(tokio::spawn(async move {
                let mut every = tokio::time::interval(config.tick);
                every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    every.tick().await;
                    tick(&all).await;
                }
            }));
            // On their own, so that a receiver that takes its time delays no decision.
            let inner = app.inner.clone();
            tasks.push(tokio::spawn(async move {
                let mut every = tokio::time::interval(config.tick);
                every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    every.tick().await;
                    webhook::deliver(&inner).await;
                    otlp::tick(&inner).await;
                }
            }));
        }
        tracing::debug!(%address, "listening");
        Ok(Self { address, metrics_address, app, serving, tasks, workers, grace: config.grace })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where everybody's metrics are, if they are served apart.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Decides about all live rollouts now, and delivers alerts.
    pub async fn tick(&self) {
        self.ticked().await;
    }

    /// Compiles [`tick`](Self::tick) here, as `started` does [`start`](Self::start).
    #[inline(never)]
    fn ticked(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            tick(&self.app).await;
            webhook::deliver(&self.app.inner).await;
            otlp::tick(&self.app.inner).await;
        })
    }

    /// Makes a token for a tenant and returns its secret, which is kept nowhere.
    ///
    /// # Errors
    /// When the tenant is missing or has a token of that name.
    pub async fn token(&self, tenant: &str, name: &str, role: Role) -> Result<String, StartError> {
        token(&self.app.store, tenant, name, role, signed(self.app.clock.seconds())).await
    }

    /// Makes a token without a server, as the first one has to be made.
    ///
    /// # Errors
    /// When the tenant is missing or has a token of that name.
    pub async fn make_token(
        store: &Store,
        tenant: &str,
        name: &str,
        role: Role,
        clock: &dyn Clock,
    ) -> Result<String, StartError> {
        token(store, tenant, name, role, signed(clock.seconds())).await
    }

    /// Takes no more requests, lets those that are under way end for as long as the configuration says, and closes the
    /// database.
    pub async fn stop(mut self) {
        let _ = self.app.stopping.send(true);
        self.tasks.iter().for_each(JoinHandle::abort);
        if tokio::time::timeout(self.grace, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
        let store = self.app.store.clone();
        // The queues close when the last way in is gone; what is in them is committed first.
        let workers = std::mem::take(&mut self.workers);
        let (none, _) = Ingest::new(0);
        self.app.ingest = none;
        for worker in workers {
            let _ = tokio::time::timeout(self.grace, worker).await;
        }
        store.close().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
        self.tasks.iter().chain(&self.workers).for_each(JoinHandle::abort);
    }
}

/// What is due now.
async fn tick(app: &App) {
    decide::tick(app).await;
    drift::tick(app).await;
    store::hours::tick(app).await;
    store::retention::tick(app).await;
    stranded::tick(app).await;
    alerting::tick(app).await;
    audit_log::tick(app).await;
}

/// Makes a token.
///
/// # Errors
/// When the tenant is missing or has a token of that name.
pub(crate) async fn token(store: &Store, tenant: &str, name: &str, role: Role, now: i64) -> Result<String, StartError> {
    let wrong = StartError::Configuration;
    let (secret, hash) = auth::fresh_token().map_err(|e| wrong(format!("no randomness: {e}")))?;
    let mut tx = store.write().await?;
    if store::tenants::get(&mut tx, tenant).await?.is_none() {
        return Err(wrong(format!("there is no tenant {tenant:?}: make it with PUT /v1/tenants/{tenant}")));
    }
    if !store::tokens::create(&mut tx, tenant, name, &hash, role, now).await? {
        return Err(wrong(format!("the tenant {tenant} has a token named {name:?} already")));
    }
    let detail = serde_json::json!({ "role": role });
    store::audit::append(&mut tx, tenant, now, "command", "token.create", name, &detail).await?;
    tx.commit().await?;
    Ok(secret)
}
