//! Versions of the tables, each one transaction.

use sqlx::AssertSqlSafe;

use super::{Engine, Store};

struct Migration {
    both: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        both: include_str!("../../migrations/0001.sql"),
        sqlite: include_str!("../../migrations/0001.sqlite.sql"),
        postgres: include_str!("../../migrations/0001.postgres.sql"),
    },
    Migration { both: include_str!("../../migrations/0002.sql"), sqlite: "", postgres: "" },
    Migration { both: include_str!("../../migrations/0003.sql"), sqlite: "", postgres: "" },
    Migration { both: include_str!("../../migrations/0004.sql"), sqlite: "", postgres: "" },
    Migration { both: include_str!("../../migrations/0005.sql"), sqlite: "", postgres: "" },
    Migration { both: include_str!("../../migrations/0006.sql"), sqlite: "", postgres: "" },
    Migration {
        both: include_str!("../../migrations/0007.sql"),
        sqlite: include_str!("../../migrations/0007.sqlite.sql"),
        postgres: include_str!("../../migrations/0007.postgres.sql"),
    },
    Migration { both: include_str!("../../migrations/0008.sql"), sqlite: "", postgres: "" },
    Migration { both: include_str!("../../migrations/0009.sql"), sqlite: "", postgres: "" },
];

/// Held while tables change, so that replicas that start together do not collide.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7250412)";

pub(super) async fn run(store: &Store) -> Result<(), sqlx::Error> {
    let mut tx = store.write().await?;
    if store.engine == Engine::Postgres {
        sqlx::raw_sql(LOCK).execute(&mut *tx).await?;
    }
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY)").execute(&mut *tx).await?;
    let done: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM migrations").fetch_one(&mut *tx).await?;
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        let text =
            format!("the database is of version {done}, this server knows {}: run a newer one", MIGRATIONS.len());
        return Err(sqlx::Error::Configuration(text.into()));
    }
    for (version, migration) in (1i64..).zip(MIGRATIONS).skip(done) {
        let (bytes, own) = match store.engine {
            Engine::Sqlite => ("BLOB", migration.sqlite),
            Engine::Postgres => ("BYTEA", migration.postgres),
        };
        let text = migration.both.replace(" BYTES ", &format!(" {bytes} "));
        // The text is this program's own.
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *tx).await?;
        if !own.is_empty() {
            sqlx::raw_sql(own).execute(&mut *tx).await?;
        }
        sqlx::query("INSERT INTO migrations (version) VALUES ($1)").bind(version).execute(&mut *tx).await?;
        tracing::info!(version, "tables migrated");
    }
    tx.commit().await
}
