//! The server's own program, killed at any moment: nothing that was acknowledged is lost, no stage is left twice, and
//! nobody is offered what is not for them.
//!
//! `DUNLIN_FLEET_KILLS` says how often on each engine; without it a few times.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dunlin_fleet::ManualClock;
use serde_json::{Value, json};
use sqlx::Row as _;

use super::database::Database;
use super::device::Device;
use super::devices::stored;
use super::kills::{self, Survived, next};
use super::program::{self, Program};
use super::site::{self, Client, on_each_engine, publish};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dunlin-fleet");

/// The program with a folder and a database.
fn command(folder: &Path, database: &Database) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["--data".as_ref(), folder.as_os_str()]).args(["--database", &database.url]);
    command
}

/// The program as a server that looks at its rollouts all the time.
fn serve(folder: &Path, database: &Database) -> Command {
    let mut command = command(folder, database);
    command.args(["serve", "--listen", "127.0.0.1:0", "--tick", "20"]).env("RUST_LOG", "error");
    command
}

fn start(folder: &Path, database: &Database) -> (Program, Client) {
    Program::start(serve(folder, database)).expect("the program starts")
}

fn token(folder: &Path, database: &Database) -> String {
    program::token(command(folder, database))
}

fn kills() -> u64 {
    std::env::var("DUNLIN_FLEET_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    on_each_engine(|folder, database| async move {
        let system = token(&folder, &database);
        let survived = kills::kill(&|| serve(&folder, &database), &database, &system, kills()).await;
        eprintln!("{}: {survived:?}", database.engine);
        let Survived { acknowledged, lost, offers, outside, stages, twice, .. } = survived;
        assert_eq!(lost, 0, "of {acknowledged} acknowledged reports");
        assert_eq!(outside, 0, "of {offers} offers");
        assert_eq!(twice, 0, "of {stages} stages");
        assert!(stages > 0);
        let checked = command(&folder, &database).args(["audit", "verify"]).output().expect("the program runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    });
}

/// Two programs on one PostgreSQL, of which one is killed while they decide: the other decides, and nothing is decided twice.
///
/// Days do not pass in a test, so the stage is made to have begun a day earlier, again and again; each time that is one day
/// to be closed, by one verdict.
#[test]
fn who_is_killed_while_it_decides_is_taken_over() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(database) = super::database::all(folder.path()).into_iter().find(|d| d.engine == "postgres") else {
        return;
    };
    let kills = kills() as i64;
    let folder = folder.path();
    runtime.block_on(async {
        let system = token(folder, &database);
        let (one, client) = start(folder, &database);
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        let (old, new) = (tenant.keys.package("m", 1, 300), tenant.keys.package("m", 2, 300));
        publish(&client, &tenant, &old).await.ok();
        publish(&client, &tenant, &new).await.ok();
        let stage = json!({ "canary_percent": 40, "control_percent": 40, "device_days": 1_000_000 });
        let draft =
            json!({ "candidates": [new.id()], "base": old.id(), "strategy": { "kind": "stages", "stages": [stage] } });
        client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
        client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
        let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
        let mut replicas = [Some((one, client)), Some(start(folder, &database))];
        let mut state = 0x2545_F491_4F6C_DD1Du64 ^ u64::from(std::process::id());
        let mut slowest = Duration::ZERO;
        for round in 1..=kills {
            let at = (round % 2) as usize;
            let (victim, _) = replicas[at].take().expect("it runs");
            let delay = Duration::from_micros(next(&mut state) % 60_000);
            let killer = std::thread::spawn(move || {
                std::thread::sleep(delay);
                victim.kill();
            });
            // Once a minute more, for what is waited for after a day's end.
            let earlier = 86_400 + if round == 1 { 61 } else { 0 };
            sqlx::query("UPDATE rollouts SET entered = entered - $1, version = version + 1")
                .bind(i64::from(earlier))
                .execute(&pool)
                .await
                .expect("written");
            let began = std::time::Instant::now();
            let (_, survivor) = replicas[1 - at].as_ref().expect("it runs");
            loop {
                let path = format!("/v1/rollouts/r/verdicts?limit=1000&after={}", round - 1);
                let verdicts = survivor.call("GET", &path, &tenant.viewer, Value::Null).await.ok();
                let verdicts = verdicts.as_array().expect("a list").clone();
                assert!(verdicts.len() <= 1, "round {round}: a day was decided twice: {verdicts:?}");
                if verdicts.len() == 1 {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(20), "round {round}: nobody decided");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            slowest = slowest.max(began.elapsed());
            killer.join().expect("killed");
            replicas[at] = Some(start(folder, &database));
        }
        for (program, _) in replicas.into_iter().flatten() {
            program.kill();
        }
        let rows = sqlx::query("SELECT n FROM verdicts ORDER BY n").fetch_all(&pool).await.expect("rows");
        let numbers: Vec<i64> = rows.iter().map(|r| r.get("n")).collect();
        assert_eq!(numbers, (1..=kills).collect::<Vec<_>>(), "each day once");
        pool.close().await;
        eprintln!("postgres, two replicas: {kills} kills, {kills} days decided once each, at most {slowest:?} later");
    });
}

/// Asked to stop, it answers what it has begun, and says so by its exit code.
#[cfg(unix)]
#[test]
fn it_stops_in_order() {
    on_each_engine(|folder, database| async move {
        let system = token(&folder, &database);
        let (program, client) = start(&folder, &database);
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        let clock = ManualClock::new();
        let mut devices = Vec::new();
        for n in 0..30 {
            devices.push(Device::enrol(&client, &tenant, n, None, &clock).await);
        }
        devices.iter_mut().for_each(Device::measure);
        let polls = futures_util::future::join_all(devices.iter_mut().map(|d| d.try_poll(&client)));
        let stop = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            program.terminate();
        };
        let (answers, ()) = tokio::join!(polls, stop);
        let answered = answers.iter().flatten().filter(|a| a.status.is_success()).count();
        let code = tokio::task::spawn_blocking(move || program.wait()).await.expect("waits");
        assert!(code.success(), "{code}");
        assert!(stored(&database.url).await.len() >= answered, "{answered} were answered");
    });
}
