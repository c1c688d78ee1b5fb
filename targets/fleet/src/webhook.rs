//! Alerts to where the tenant wants them: posted until they are taken, a bounded number of times, by one replica at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;

use crate::server::Inner;
use crate::store::alerts::{self, Alert};
use crate::store::{signed, tenants};

/// How often an alert is posted before it is left to those who list alerts.
const ATTEMPTS: i64 = 10;
/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds after which an attempt is made again at the earliest; twice as many after each, longer than an attempt takes.
const AGAIN: i64 = 15;
/// Tenants whose receivers are spoken to at once, so that a slow one keeps few others waiting.
const AT_ONCE: usize = 16;

/// Posts what was not taken yet.
pub(crate) async fn deliver(app: &Inner) {
    if let Err(error) = all(app).await {
        tracing::error!(%error, "alerts were not delivered");
    }
}

async fn all(app: &Inner) -> Result<(), sqlx::Error> {
    let now = signed(app.clock.seconds());
    let due = alerts::undelivered(&mut *app.store.read().await?, ATTEMPTS, now).await?;
    let mut by: BTreeMap<String, Vec<(i64, Alert)>> = BTreeMap::new();
    for (tenant, attempts, alert) in due {
        by.entry(tenant).or_default().push((attempts, alert));
    }
    let each =
        futures_util::stream::iter(by).map(|(tenant, list)| async move { of_tenant(app, &tenant, list, now).await });
    let mut done = each.buffer_unordered(AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// A tenant's alerts in their order; after one that is not taken the others wait for the next time.
async fn of_tenant(app: &Inner, tenant: &str, list: Vec<(i64, Alert)>, now: i64) -> Result<(), sqlx::Error> {
    let settings = tenants::get(&mut *app.store.read().await?, tenant).await?.map(|t| t.settings);
    let url = settings.and_then(|s| s.webhook);
    for (attempts, alert) in list {
        let due = now + (AGAIN << attempts.clamp(0, 8));
        if !alerts::attempt(&mut *app.store.read().await?, tenant, alert.n, attempts, due).await? {
            continue;
        }
        let taken = match &url {
            Some(url) => post(tenant, &alert, url.clone()).await,
            None => {
                tracing::warn!(tenant, alert.n, alert.kind, text = alert.text, "alert");
                true
            }
        };
        if !taken {
            return Ok(());
        }
        alerts::delivered(&mut *app.store.read().await?, tenant, alert.n).await?;
    }
    Ok(())
}

/// Whether a receiver took an alert: it answered 2xx in time. Redirects are not followed: what an alert says is for the
/// address that the operator gave.
async fn post(tenant: &str, alert: &Alert, url: String) -> bool {
    let detail: serde_json::Value = serde_json::from_str(&alert.detail).unwrap_or_default();
    let body = json!({
        "tenant": tenant, "n": alert.n, "time": alert.time, "rollout": alert.rollout, "kind": alert.kind,
        "text": alert.text, "detail": detail,
    });
    let posted = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0).build().into();
        let answer = agent.post(&url).header("content-type", "application/json").send(body.to_string());
        answer.map(|answer| answer.status().as_u16())
    });
    let error = match posted.await {
        Ok(Ok(200..=299)) => return true,
        Ok(Ok(status)) => format!("it answered {status}"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(tenant, alert.n, alert.kind, text = alert.text, error, "a webhook did not take an alert");
    false
}
