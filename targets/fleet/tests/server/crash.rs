//! The server's own program, killed at any moment: nothing that was acknowledged is lost, no stage is left twice, and
//! nobody is offered what is not for them.
//!
//! `DUNLIN_FLEET_KILLS` says how often on each engine; without it a few times.

use std::collections::BTreeSet;
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

/// What a day of a rollout leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Hold,
    Advance,
    Rollback,
}

/// A rollout of two stages of a model of its own, started.
async fn begun(client: &Client, tenant: &site::Tenant, model: &str, outcome: Outcome) {
    let (old, new) = (tenant.keys.package(model, 1, 300), tenant.keys.package(model, 2, 300));
    publish(client, tenant, &old).await.ok();
    publish(client, tenant, &new).await.ok();
    let days = if outcome == Outcome::Advance { 1 } else { 1_000_000 };
    let stages = [20, 40]
        .map(|canary| json!({ "canary_percent": canary, "control_percent": 40, "device_days": days, "soak_hours": 0 }));
    let draft = json!({ "candidates": [new.id()], "base": old.id(), "gate": { "required": [] },
        "strategy": { "kind": "stages", "stages": stages } });
    let path = format!("/v1/rollouts/{model}");
    client.call("PUT", &path, &tenant.operator, draft).await.ok();
    client.call("POST", &format!("{path}/start"), &tenant.operator, Value::Null).await.ok();
}

/// Days do not pass in a test, so the stage is made to have begun a day and a minute earlier, with twenty devices in each arm that
/// reported on that day; the candidate's are bad where that is to be its end.
async fn a_day_later(pool: &sqlx::AnyPool, rollout: &str, outcome: Outcome) {
    let mut tx = pool.begin().await.expect("begins");
    sqlx::query("UPDATE rollouts SET entered = entered - 86461, version = version + 1 WHERE id = $1")
        .bind(rollout)
        .execute(&mut *tx)
        .await
        .expect("written");
    for device in 0..40i64 {
        let arm = device % 2;
        let bad = if arm == 1 && outcome == Outcome::Rollback { 4i64 } else { 0 };
        sqlx::query(
            "INSERT INTO exposures (tenant, rollout, device, arm, assigned, seen, polls, activated, reported, runs, was_bad,
             valued, joined) SELECT tenant, id, $2, $3, entered, entered, 3, entered, entered, $3, 0, 0, entered
             FROM rollouts WHERE id = $1",
        )
        .bind(rollout)
        .bind(format!("device {device}"))
        .bind(arm)
        .execute(&mut *tx)
        .await
        .expect("written");
        sqlx::query(
            "INSERT INTO device_days (tenant, rollout, day, device, bad, reports, metrics, pending)
             SELECT tenant, id, days, $2, $3, 1, '{}', 1 FROM rollouts WHERE id = $1",
        )
        .bind(rollout)
        .bind(format!("device {device}"))
        .bind(bad)
        .execute(&mut *tx)
        .await
        .expect("written");
    }
    tx.commit().await.expect("written");
}

/// Two programs on one PostgreSQL, of which one is killed while they decide to hold, to advance or to roll back: the other
/// decides, and nothing is decided, moved, told or noted twice.
#[test]
fn who_is_killed_while_it_decides_is_taken_over() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(database) = super::database::all(folder.path()).into_iter().find(|d| d.engine == "postgres") else {
        return;
    };
    let kills = kills() as usize;
    let folder = folder.path();
    runtime.block_on(async {
        let system = token(folder, &database);
        let (one, client) = start(folder, &database);
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
        let mut replicas = [Some((one, client)), Some(start(folder, &database))];
        let mut state = 0x2545_F491_4F6C_DD1Du64 ^ u64::from(std::process::id());
        let mut slowest = Duration::ZERO;
        for round in 0..kills {
            let outcome = [Outcome::Hold, Outcome::Advance, Outcome::Rollback][round % 3];
            let (at, model) = (round % 2, format!("m{round}"));
            begun(&replicas[1 - at].as_ref().expect("it runs").1, &tenant, &model, outcome).await;
            let (victim, _) = replicas[at].take().expect("it runs");
            let delay = Duration::from_micros(next(&mut state) % 60_000);
            let killer = std::thread::spawn(move || {
                std::thread::sleep(delay);
                victim.kill();
            });
            a_day_later(&pool, &model, outcome).await;
            let began = std::time::Instant::now();
            let (_, survivor) = replicas[1 - at].as_ref().expect("it runs");
            let path = format!("/v1/rollouts/{model}");
            let decided = loop {
                let verdicts =
                    survivor.call("GET", &format!("{path}/verdicts"), &tenant.viewer, Value::Null).await.ok();
                let verdicts = verdicts.as_array().expect("a list").clone();
                assert!(verdicts.len() <= 1, "round {round}: a day was decided twice: {verdicts:?}");
                if let Some(verdict) = verdicts.first() {
                    break verdict["verdict"].clone();
                }
                assert!(began.elapsed() < Duration::from_secs(20), "round {round}: nobody decided");
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            slowest = slowest.max(began.elapsed());
            assert_eq!(decided, format!("{outcome:?}"), "round {round}");
            let now = survivor.call("GET", &path, &tenant.viewer, Value::Null).await.ok();
            let (phase, stage) = match outcome {
                Outcome::Hold => ("Running", 0),
                Outcome::Advance => ("Running", 1),
                Outcome::Rollback => ("RolledBack", 0),
            };
            assert_eq!((&now["phase"], &now["stage"]), (&json!(phase), &json!(stage)), "round {round}: {now}");
            killer.join().expect("killed");
            replicas[at] = Some(start(folder, &database));
        }
        // Those that were started again have had time to do it once more.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (program, _) in replicas.into_iter().flatten() {
            program.kill();
        }
        let all = async |statement: &'static str| {
            let rows = sqlx::query(statement).fetch_all(&pool).await.expect("rows");
            rows.iter().map(|r| r.get::<String, _>(0)).collect::<Vec<_>>()
        };
        assert_eq!(all("SELECT rollout FROM verdicts").await.len(), kills, "each day once");
        let moves: BTreeSet<String> = (0..kills).filter(|r| r % 3 != 0).map(|r| format!("m{r}")).collect();
        for statement in [
            "SELECT rollout FROM alerts",
            "SELECT object FROM audit WHERE actor = 'server' AND action LIKE 'rollout.%'",
        ] {
            let told = all(statement).await;
            assert_eq!(told.len(), moves.len(), "{statement}: {told:?}");
            assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), moves, "{statement}: each move once");
        }
        pool.close().await;
        eprintln!("postgres, two replicas: {kills} kills, each decided once, at most {slowest:?} later");
    });
}

/// Asked to stop, it answers what it has begun, and says so by its exit code.
#[cfg(unix)]
#[test]
fn it_stops_in_order() {
    on_each_engine(|folder, database| async move {
        let system = token(&folder, &database);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&folder).expect("the folder").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "its owner's alone");
        }
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
