//! Alerts to where the tenant wants them: posted until they are taken, a bounded number of times.

use std::time::Duration;

use serde_json::json;

use crate::server::Inner;
use crate::store::{alerts, tenants};

/// How often an alert is posted before it is left to those who list alerts.
const ATTEMPTS: i64 = 10;

/// Posts what was not taken yet.
pub(crate) async fn deliver(app: &Inner) {
    if let Err(error) = all(app).await {
        tracing::error!(%error, "alerts were not delivered");
    }
}

async fn all(app: &Inner) -> Result<(), sqlx::Error> {
    let mut connection = app.store.read().await?;
    for (tenant, alert) in alerts::undelivered(&mut connection, ATTEMPTS).await? {
        let settings = tenants::get(&mut connection, &tenant).await?.map(|t| t.settings);
        let Some(url) = settings.and_then(|s| s.webhook) else {
            tracing::warn!(tenant, alert.n, alert.kind, text = alert.text, "alert");
            alerts::tried(&mut connection, &tenant, alert.n, true).await?;
            continue;
        };
        let detail: serde_json::Value = serde_json::from_str(&alert.detail).unwrap_or_default();
        let body = json!({
            "tenant": tenant, "n": alert.n, "time": alert.time, "rollout": alert.rollout, "kind": alert.kind,
            "text": alert.text, "detail": detail,
        });
        let posted = tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent =
                ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build().into();
            agent.post(&url).header("content-type", "application/json").send(body.to_string()).map(drop)
        });
        let delivered = match posted.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(tenant, alert.n, %error, "a webhook did not take an alert");
                false
            }
            Err(_) => false,
        };
        alerts::tried(&mut connection, &tenant, alert.n, delivered).await?;
    }
    Ok(())
}
