//! State, in SQLite or PostgreSQL: one text of SQL for both, one file a family of tables.

pub(crate) mod alerts;
pub mod audit;
pub(crate) mod census;
pub(crate) mod days;
pub(crate) mod devices;
pub(crate) mod drift;
pub(crate) mod exposures;
pub(crate) mod flags;
pub(crate) mod hours;
mod migrate;
pub(crate) mod packages;
pub(crate) mod recalls;
pub(crate) mod reports;
pub(crate) mod retention;
pub(crate) mod rollouts;
pub(crate) mod samples;
pub(crate) mod serving;
pub(crate) mod tenants;
pub(crate) mod tokens;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a connection, or a turn to write, is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What keeps the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file; one process.
    Sqlite,
    /// A server; any number of replicas.
    Postgres,
}

/// A transaction on either engine; dropped, it is rolled back.
#[derive(Debug)]
pub(crate) struct Tx {
    inner: Transaction<'static, Any>,
    /// SQLite's only place for writing; given back last.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Tx {
    /// Makes it last.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }
}

impl Deref for Tx {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: AnyPool,
    engine: Engine,
    /// Of those who write to SQLite.
    turns: Arc<Semaphore>,
}

impl Store {
    /// Opens `sqlite://PATH` or `postgres://...`; the file is made when there is none.
    ///
    /// SQLite gets a write-ahead log that is synced before a commit is acknowledged.
    ///
    /// # Errors
    /// When the address is of neither engine, or the engine refuses.
    pub async fn open(url: &str, connections: u32) -> Result<Self, sqlx::Error> {
        sqlx::any::install_default_drivers();
        let engine = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Engine::Sqlite,
            Some("postgres" | "postgresql") => Engine::Postgres,
            _ => {
                let text = "the database is given as sqlite://PATH or postgres://USER@HOST/NAME";
                return Err(sqlx::Error::Configuration(text.into()));
            }
        };
        // What SQLite keeps beside the file has the file's own permissions.
        if let Some(path) = url.strip_prefix("sqlite://").filter(|p| !p.starts_with(':')) {
            let path = path.split('?').next().unwrap_or_default();
            crate::private::file(std::path::Path::new(path)).map_err(sqlx::Error::Io)?;
        }
        let url = match engine {
            Engine::Sqlite if !url.contains('?') => format!("{url}?mode=rwc"),
            _ => url.to_owned(),
        };
        let options = AnyPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE);
        let options = options.after_connect(move |connection, _| {
            Box::pin(async move {
                if engine == Engine::Sqlite {
                    connection
                        .execute(
                            "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                             PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536",
                        )
                        .await?;
                }
                Ok(())
            })
        });
        Ok(Self { pool: options.connect(&url).await?, engine, turns: Arc::new(Semaphore::new(1)) })
    }

    /// Which engine it is.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Brings the tables to this version.
    ///
    /// # Errors
    /// When the engine refuses, or a later version has been here.
    pub async fn migrate(&self) -> Result<(), sqlx::Error> {
        migrate::run(self).await
    }

    /// A transaction that will write. SQLite takes its only place for writing at once, so that no reading turns out to
    /// have been in vain.
    ///
    /// Whoever writes to SQLite waits here for its turn, in the order of arrival and without a connection: left to SQLite,
    /// who waits looks again from time to time, the unlucky give up, and readers find no connection meanwhile.
    pub(crate) async fn write(&self) -> Result<Tx, sqlx::Error> {
        match self.engine {
            Engine::Sqlite => {
                let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
                let turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
                Ok(Tx { inner: self.pool.begin_with("BEGIN IMMEDIATE").await?, _turn: Some(turn) })
            }
            Engine::Postgres => Ok(Tx { inner: self.pool.begin().await?, _turn: None }),
        }
    }

    /// A connection to read from.
    pub(crate) async fn read(&self) -> Result<sqlx::pool::PoolConnection<Any>, sqlx::Error> {
        self.pool.acquire().await
    }

    /// Whether it answers.
    pub(crate) async fn ping(&self) -> Result<(), sqlx::Error> {
        self.pool.acquire().await?.execute("SELECT 1").await.map(drop)
    }

    /// A random value that all replicas share, made by the first to ask.
    pub(crate) async fn shared_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>, sqlx::Error> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(fresh)
            .execute(&mut *tx)
            .await?;
        let value =
            sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(name).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(value)
    }

    /// Writes the whole database, as of one moment, into a new file.
    pub(crate) async fn copy_to(&self, file: &std::path::Path) -> Result<(), sqlx::Error> {
        sqlx::query("VACUUM INTO $1")
            .bind(file.display().to_string())
            .execute(&mut *self.pool.acquire().await?)
            .await
            .map(drop)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A connection, be it in a transaction or not.
pub(crate) type Connection = AnyConnection;

/// Seconds and the like as the engines have them.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// And back.
pub(crate) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
