//! How many polls a second one server takes, each signed, with one report, and on disk before it is answered; and how long
//! a poll takes. Client and server share this machine over loopback.
//!
//! Then what of it outlives SIGKILL at random moments while devices report and rollouts go on, on SQLite, and on PostgreSQL
//! where that is installed: the server is this program, started again by itself.
//!
//! `server [--devices N] [--clients N] [--database URL] [--replicas N] [--kills N]`: 10,000 devices, 64 requests at once,
//! SQLite, one server; several share the PostgreSQL whose address is given, and requests go to each in turn. 10 kills on
//! each engine.

// What the fleet server's own tests kill it with.
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../targets/fleet/tests/server/database.rs"]
mod database;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../targets/fleet/tests/server/device.rs"]
mod device;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../targets/fleet/tests/server/kills.rs"]
mod kills;
#[path = "server/load.rs"]
mod load;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../targets/fleet/tests/server/program.rs"]
mod program;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../targets/fleet/tests/server/site.rs"]
mod site;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dunlin_fleet::store::Store;
use dunlin_fleet::{Config, Role, Server, SystemClock};
use load::{Site, argument, engine, figure, fresh, quantile, sign_all};

#[tokio::main]
async fn main() {
    if let (Some(folder), Some(url)) = (argument("--serve"), argument("--on")) {
        return serve(Path::new(&folder), url).await;
    }
    let number = |name: &str, none: u32| argument(name).map_or(none, |n| n.parse().expect("a number"));
    rates(number("--devices", 10_000), number("--clients", 64)).await;
    survive(number("--kills", 10).into()).await;
}

/// A server to be killed: its configuration is the program's, but that it looks at its rollouts all the time.
async fn serve(folder: &Path, url: String) {
    let config = Config { database: url, tick: Duration::from_millis(20), ..Config::in_folder(folder) };
    let server = Server::start(config).await.expect("the server starts");
    println!("listening on http://{}", server.address());
    std::future::pending().await
}

/// So many kills on each engine that there is.
async fn survive(kills: u64) {
    if kills == 0 {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let this = std::env::current_exe().expect("this program");
    for database in database::all(folder.path()) {
        let store = Store::open(&database.url, 2).await.expect("opens");
        store.migrate().await.expect("tables");
        let made = Server::make_token(&store, "system", "figure", Role::Admin, &SystemClock).await;
        let system = made.expect("a token");
        store.close().await;
        let start = || {
            let mut command = Command::new(&this);
            command.arg("--serve").arg(folder.path()).args(["--on", &database.url]);
            command
        };
        let survived = kills::kill(&start, &database, &system, kills).await;
        let print = |name: &str, value: usize, unit: &str, better: &str, target: Option<f64>| {
            figure(&format!("server_{name}_{}", database.engine), value as f64, unit, better, target);
        };
        let kills::Survived { kills, acknowledged, lost, offers, outside, stages, twice } = survived;
        print("kills", kills as usize, "kills", "higher", None);
        print("kills_reports_acknowledged", acknowledged, "reports", "higher", None);
        print("kills_reports_lost", lost, "reports", "lower", Some(0.0));
        print("kills_stages_left", stages as usize, "stages", "higher", None);
        print("kills_stages_left_twice", twice as usize, "stages", "lower", Some(0.0));
        print("kills_offers", offers, "offers", "higher", None);
        print("kills_offers_outside_cohorts", outside, "offers", "lower", Some(0.0));
    }
}

/// Polls of so many devices, by so many at once.
async fn rates(count: u32, clients: u32) {
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
