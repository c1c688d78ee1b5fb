//! Alerts to where the tenant wants them: posted until they are taken, a bounded number of times, by one replica at a time.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

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

/// Alerts of one tenant that are posted one after the other before others have their turn.
const IN_A_ROW: usize = 50;

/// Posts what was not taken yet.
pub(crate) async fn deliver(app: &Inner) {
    if let Err(error) = all(app).await {
        tracing::error!(%error, "alerts were not delivered");
    }
}

async fn all(app: &Inner) -> Result<(), sqlx::Error> {
    let now = signed(app.clock.seconds());
    let due = alerts::undelivered(&mut *app.store.read().await?, ATTEMPTS, now).await?;
    let each = futures_util::stream::iter(due)
        .map(|(tenant, attempts, alert)| async move { of_tenant(app, &tenant, (attempts, alert), now).await });
    let mut done = each.buffer_unordered(AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// A tenant's alerts in their order; after one that is not taken the others wait for the next time.
async fn of_tenant(app: &Inner, tenant: &str, first: (i64, Alert), now: i64) -> Result<(), sqlx::Error> {
    let settings = tenants::get(&mut *app.store.read().await?, tenant).await?.map(|t| t.settings);
    let url = settings.and_then(|s| s.webhook);
    let mut next = Some(first);
    for _ in 0..IN_A_ROW {
        let Some((attempts, alert)) = next else { return Ok(()) };
        let due = now + (AGAIN << attempts.clamp(0, 8));
        if !alerts::attempt(&mut *app.store.read().await?, tenant, alert.n, attempts, due).await? {
            // Another replica is at it.
            return Ok(());
        }
        let taken = match &url {
            Some(url) => post(tenant, &alert, url.clone(), app.webhook_internal).await,
            None => {
                tracing::warn!(tenant, alert.n, alert.kind, text = alert.text, "alert");
                true
            }
        };
        if !taken {
            return Ok(());
        }
        let mut connection = app.store.read().await?;
        alerts::delivered(&mut connection, tenant, &alert).await?;
        next = alerts::next_undelivered(&mut connection, tenant, ATTEMPTS, now).await?;
    }
    Ok(())
}

/// Whether a receiver took an alert: it answered 2xx in time. Redirects are not followed: what an alert says is for the
/// address that the operator gave.
async fn post(tenant: &str, alert: &Alert, url: String, internal: bool) -> bool {
    let detail: serde_json::Value = serde_json::from_str(&alert.detail).unwrap_or_default();
    let body = json!({
        "tenant": tenant, "n": alert.n, "time": alert.time, "rollout": alert.rollout, "kind": alert.kind,
        "text": alert.text, "detail": detail, "severity": alert.severity, "state": alert.state, "key": alert.key,
        "updated": alert.updated, "resolved": alert.resolved,
    });
    let posted = tokio::task::spawn_blocking(move || {
        let mut config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0);
        if !internal {
            // One of the environment's would find the addresses of names itself.
            config = config.proxy(None);
        }
        let config = config.build();
        let resolver = Outside { internal, names: DefaultResolver::default() };
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
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

/// Whether an address is of this machine or of a network that is not everybody's, where a tenant has no business.
pub(crate) fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                // Shared by a provider's customers (RFC 6598), benchmarks (RFC 2544), reserved.
                || a == 100 && b & 0xC0 == 64
                || a == 198 && b & 0xFE == 18
                || a >= 240
        }
        IpAddr::V6(v6) => {
            let [first, second, third, fourth, _, _, seventh, eighth] = v6.segments();
            let [a, b] = seventh.to_be_bytes();
            let [c, d] = eighth.to_be_bytes();
            // The IPv4 address that it stands for: mapped, compatible, or behind NAT64 (RFC 6052).
            let embeds = v6.to_ipv4().is_some() || (first, second, third, fourth) == (0x64, 0xFF9B, 0, 0);
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || first & 0xFE00 == 0xFC00
                || first & 0xFFC0 == 0xFE80
                || embeds && is_internal(IpAddr::from([a, b, c, d]))
        }
    }
}

/// Finds addresses of names, and leaves those out where webhooks have no business: at the moment of the connection, for a
/// name may mean another address by then.
#[derive(Debug)]
struct Outside {
    internal: bool,
    names: DefaultResolver,
}

impl Resolver for Outside {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let all = self.names.resolve(uri, config, timeout)?;
        let mut kept = self.empty();
        all.iter().filter(|a| self.internal || !is_internal(a.ip())).for_each(|a| kept.push(*a));
        if kept.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(kept) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_everybodys_are_known() {
        let internal = |text: &str| is_internal(text.parse().expect("an address"));
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
        ] {
            assert!(internal(inside), "{inside}");
        }
        for outside in ["93.184.216.34", "172.32.0.1", "100.128.0.1", "198.20.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!internal(outside), "{outside}");
        }
    }
}
