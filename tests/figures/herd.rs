//! A herd that comes back: 100,000 devices poll within a minute, after an outage say. Each gets an answer, or 429 with
//! Retry-After, which it honours; nothing else happens. Connections are shared: one machine has not 100,000 ports.
//!
//! Then one that the tenant's limit lets through slowly only, so that most are told to wait: 4,000 devices within two
//! seconds where 200 a second may. All are answered in the end, and nobody comes back before its time.
//!
//! `herd [--devices N] [--seconds N] [--database URL]`.

#[path = "server/load.rs"]
mod load;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use load::{Site, argument, engine, figure, fresh, quantile, sign_all};
use tokio::sync::Semaphore;

#[tokio::main]
async fn main() {
    let number = |name: &str, none: u32| argument(name).map_or(none, |n| n.parse().expect("a number"));
    let (count, window) = (number("--devices", 100_000), number("--seconds", 60));
    let site = Site::start().await;
    run(&site, &fresh(), "herd", count, f64::from(window), 5000).await;
    run(&site, &format!("{}s", fresh()), "herd_limited", 4000.min(count), 2.0, 200).await;
    site.stop().await;
}

/// A herd of so many devices within so many seconds, where the tenant may send so many requests a second.
async fn run(site: &Site, tenant: &str, name: &str, count: u32, window: f64, rate: u32) {
    site.tenant(tenant, rate).await;
    let devices = site.devices(tenant, &site.database(), count).await;
    let signed = sign_all(&devices, 1);
    let statuses: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let took: Mutex<Vec<Duration>> = Mutex::default();
    let seen = |status: String| *statuses.lock().expect("whole").entry(status).or_default() += 1;
    // As many connections as a proxy would keep.
    let places = Semaphore::new(1024);
    let began = Instant::now();
    let device = |n: usize| {
        let (signed, devices, places, seen, took) = (&signed, &devices, &places, &seen, &took);
        async move {
            // Evenly over the window, in an order that is not that of their keys.
            let slot = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let at = window * slot as f64 / f64::from(1u32 << 24);
            tokio::time::sleep(Duration::from_secs_f64(at)).await;
            let mut again = None;
            let mut due = Instant::now();
            for _ in 0..1000 {
                let place = places.acquire().await.expect("open");
                let sent = Instant::now();
                if sent < due {
                    seen("too early".into());
                }
                let answer = site.send(again.as_ref().unwrap_or(&signed[n])).await;
                drop(place);
                match answer {
                    Ok((200, _)) => {
                        took.lock().expect("whole").push(sent.elapsed());
                        return seen("200".into());
                    }
                    Ok((429, Some(seconds))) => {
                        seen("429".into());
                        due = Instant::now() + Duration::from_secs(seconds);
                        let jitter = (n as u64 * 7919) % 1000;
                        tokio::time::sleep(Duration::from_millis(seconds * 1000 + jitter * seconds)).await;
                        again = Some(devices[n].poll(1));
                    }
                    Ok((status, _)) => return seen(status.to_string()),
                    Err(error) => return seen(error),
                }
            }
            seen("never answered".into());
        }
    };
    futures_util::future::join_all((0..signed.len()).map(device)).await;
    let seconds = began.elapsed().as_secs_f64();
    let statuses = statuses.into_inner().expect("whole");
    let of = |name: &str| statuses.get(name).copied().unwrap_or(0);
    let mut took = took.into_inner().expect("whole");
    took.sort();
    let engine = engine(site);
    let other: u64 = statuses.iter().filter(|(s, _)| !matches!(s.as_str(), "200" | "429")).map(|(_, n)| n).sum();
    figure(&format!("{name}_answered_{engine}"), of("200") as f64, "devices", "higher", Some(f64::from(count)));
    figure(&format!("{name}_told_to_wait_{engine}"), of("429") as f64, "answers", "lower", None);
    figure(&format!("{name}_anything_else_{engine}"), other as f64, "answers", "lower", Some(0.0));
    figure(&format!("{name}_seconds_{engine}"), seconds, "s", "lower", None);
    figure(&format!("{name}_poll_p50_{engine}"), quantile(&took, 0.5), "ms", "lower", None);
    figure(&format!("{name}_poll_p99_{engine}"), quantile(&took, 0.99), "ms", "lower", None);
    if other > 0 {
        eprintln!("{statuses:?}");
    }
}
