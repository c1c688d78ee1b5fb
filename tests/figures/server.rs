//! How many polls a second one server takes, each signed, with one report, and on disk before it is answered; and how long
//! a poll takes. Client and server share this machine over loopback.
//!
//! `server [--devices N] [--clients N] [--database URL] [--replicas N]`: 10,000 devices, 64 requests at once, SQLite, one
//! server; several share the PostgreSQL whose address is given, and requests go to each in turn.

#[path = "server/load.rs"]
mod load;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use load::{Site, argument, engine, figure, fresh, quantile, sign_all};

#[tokio::main]
async fn main() {
    let number = |name: &str, none: u32| argument(name).map_or(none, |n| n.parse().expect("a number"));
    let (count, clients) = (number("--devices", 10_000), number("--clients", 64));
    let site = Site::start().await;
    let tenant = fresh();
    site.tenant(&tenant, 1_000_000).await;
    let devices = site.devices(&tenant, &site.database(), count).await;
    let signed = sign_all(&devices, 1);
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let client = || async {
        let mut took = Vec::new();
        while let Some(request) = signed.get(next.fetch_add(1, Ordering::Relaxed)) {
            let sent = Instant::now();
            let (status, _) = site.send(request).await.expect("an answer");
            assert_eq!(status, 200);
            took.push(sent.elapsed());
        }
        took
    };
    let mut took: Vec<_> =
        futures_util::future::join_all((0..clients).map(|_| client())).await.into_iter().flatten().collect();
    let seconds = began.elapsed().as_secs_f64();
    took.sort();
    let engine = match site.replicas() {
        1 => engine(&site).to_owned(),
        n => format!("{}_{n}_replicas", engine(&site)),
    };
    let rate = took.len() as f64 / seconds;
    // A million devices that poll every five minutes.
    figure(&format!("server_polls_per_second_{engine}"), rate.round(), "1/s", "higher", Some(3333.0));
    figure(&format!("server_poll_p50_{engine}"), quantile(&took, 0.5), "ms", "lower", None);
    figure(&format!("server_poll_p99_{engine}"), quantile(&took, 0.99), "ms", "lower", None);
    site.stop().await;
}
