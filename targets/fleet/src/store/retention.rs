//! What is not kept any longer, by each tenant's settings. It goes in small transactions, so that nobody waits for it.

use super::tenants::Retention;
use super::{Store, signed, tenants};
use crate::server::Inner;

/// Rows in a transaction.
const BATCH: i64 = 5000;
/// Transactions for a table and tenant before others have their turn: 100,000 rows a minute.
const BATCHES: u32 = 20;
/// Seconds from one look to the next.
const EVERY: i64 = 60;
const DAY: i64 = 86_400;

/// Deletes what is due of every tenant, once a minute. What fails is logged, and tried again the next time.
pub(crate) async fn tick(app: &Inner) {
    let now = signed(app.clock.seconds());
    let last = app.pruned.swap(now, std::sync::atomic::Ordering::Relaxed);
    if (0..EVERY).contains(&(now - last)) {
        app.pruned.store(last, std::sync::atomic::Ordering::Relaxed);
        return;
    }
    let all = async {
        let list = tenants::list(&mut *app.store.read().await?).await?;
        for tenant in list {
            prune(&app.store, &tenant.id, tenant.settings.retention, now).await?;
        }
        Ok::<_, sqlx::Error>(())
    };
    if let Err(error) = all.await {
        tracing::error!(%error, "what is not kept any longer was not deleted");
    }
}

async fn prune(store: &Store, tenant: &str, keep: Retention, now: i64) -> Result<(), sqlx::Error> {
    let before = |days: u32| now - i64::from(days) * DAY;
    if keep.reports > 0 {
        let statement = "DELETE FROM reports WHERE (tenant, device, boot, seq) IN (SELECT tenant, device, boot, seq
            FROM reports WHERE tenant = $1 AND arrived < $2 ORDER BY arrived LIMIT $3)";
        in_batches(store, statement, tenant, Bound::Before(before(keep.reports))).await?;
    }
    if keep.hours > 0 {
        for statement in [
            "DELETE FROM hours WHERE (tenant, hour, digest) IN (SELECT tenant, hour, digest
                FROM hours WHERE tenant = $1 AND hour < $2 LIMIT $3)",
            "DELETE FROM census WHERE (tenant, hour, running) IN (SELECT tenant, hour, running
                FROM census WHERE tenant = $1 AND hour < $2 LIMIT $3)",
        ] {
            in_batches(store, statement, tenant, Bound::Before(before(keep.hours) / 3600)).await?;
        }
    }
    if keep.device_days > 0 {
        let ended: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM rollouts WHERE tenant = $1 AND started > 0 AND entered < $2
             AND (phase = 'RolledBack' OR phase = 'Completed' AND live = 0)",
        )
        .bind(tenant)
        .bind(before(keep.device_days))
        .fetch_all(&mut *store.read().await?)
        .await?;
        let statement = "DELETE FROM device_days WHERE (tenant, rollout, day, device) IN (SELECT tenant, rollout, day,
            device FROM device_days WHERE tenant = $1 AND rollout = $2 LIMIT $3)";
        for rollout in &ended {
            in_batches(store, statement, tenant, Bound::Of(rollout)).await?;
        }
    }
    Ok(())
}

/// What a statement's second place says.
#[derive(Clone, Copy)]
enum Bound<'a> {
    Before(i64),
    Of(&'a str),
}

async fn in_batches(store: &Store, statement: &'static str, tenant: &str, bound: Bound<'_>) -> Result<(), sqlx::Error> {
    for _ in 0..BATCHES {
        let query = sqlx::query(statement).bind(tenant);
        let query = match bound {
            Bound::Before(moment) => query.bind(moment),
            Bound::Of(rollout) => query.bind(rollout),
        };
        let mut tx = store.write().await?;
        let gone = query.bind(BATCH).execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        if gone < BATCH.unsigned_abs() {
            break;
        }
    }
    Ok(())
}
