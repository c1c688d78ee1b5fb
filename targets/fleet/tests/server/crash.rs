//! The server's own program, killed at any moment: nothing that was acknowledged is lost, no stage is left twice, and
//! nobody is offered what is not for them.
//!
//! `DUNLIN_FLEET_KILLS` says how often on each engine; without it a few times.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dunlin_fleet::{ManualClock, hex};
use dunlin_rollout::{Rollout, Subject};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::database::Database;
use super::device::Device;
use super::devices::stored;
use super::site::{self, Client, on_each_engine, publish};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dunlin-fleet");

struct Program(Child);

impl Program {
    /// Starts the server's program, on a port of its own choice, and waits until it listens.
    fn start(folder: &Path, database: &Database) -> (Self, Client) {
        let mut child = Command::new(PROGRAM)
            .args(["--data".as_ref(), folder.as_os_str()])
            .args(["--database", &database.url, "serve", "--listen", "127.0.0.1:0", "--tick", "20"])
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("an address").parse().expect("an address");
        (Self(child), Client::new(address))
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }
}

fn token(folder: &Path, database: &Database) -> String {
    let output = Command::new(PROGRAM)
        .args(["--data".as_ref(), folder.as_os_str()])
        .args(["--database", &database.url, "token", "installer", "admin"])
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Numbers that look random; the same each time.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let kills: u64 = std::env::var("DUNLIN_FLEET_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    on_each_engine(|folder, database| async move {
        let system = token(&folder, &database);
        let clock = ManualClock::new();
        let (mut program, mut client) = Program::start(&folder, &database);
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        let (one, two) = (tenant.keys.package("m", 1, 300), tenant.keys.package("m", 2, 300));
        publish(&client, &tenant, &one).await.ok();
        publish(&client, &tenant, &two).await.ok();
        // As many stages as fit, each a little wider; they are left by hand, because no day passes here.
        let stages: Vec<Value> =
            (1..=8).map(|n| json!({ "canary_percent": 7 * n, "control_percent": 40, "device_days": 1000 })).collect();
        let draft =
            json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "stages", "stages": stages } });
        client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
        client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
        let mut devices = Vec::new();
        for n in 0..40 {
            devices.push(Device::enrol(&client, &tenant, n, Some(one.digest), &clock).await);
        }
        let mut state = 0x9E37_79B9_7F4A_7C15u64 ^ u64::from(std::process::id());
        let (mut acknowledged, mut offered) = (BTreeSet::new(), Vec::new());
        let (mut stage, mut acknowledged_stage) = (0u64, 0u64);
        let mut rounds = 0;
        for round in 0..20 * kills {
            // On a machine with much else to do it takes longer until something has happened.
            if round >= kills && !offered.is_empty() && acknowledged.len() > devices.len() {
                break;
            }
            rounds = round + 1;
            // The kill comes from another thread, at a moment that has nothing to do with what happens.
            let delay = Duration::from_micros(next(&mut state) % 250_000);
            let killer = std::thread::spawn(move || {
                std::thread::sleep(delay);
                program.kill();
            });
            let wants = stage.min(6);
            let path = "/v1/rollouts/r/advance";
            let advance = json!({ "stage": wants }).to_string();
            let headers = [("authorization", format!("Bearer {}", tenant.approver))];
            loop {
                devices.iter_mut().for_each(|d| {
                    if d.unsent.len() < 8 {
                        d.measure()
                    }
                });
                let polls = devices.iter_mut().map(|d| d.try_poll(&client));
                let (answers, advanced) = tokio::join!(
                    futures_util::future::join_all(polls),
                    client.send("POST", path, &headers, advance.clone())
                );
                if let Some(answer) = &advanced {
                    // Sent again and again, with the stage that was seen: it is left once.
                    let now = answer.ok()["stage"].as_u64().expect("a stage");
                    assert_eq!(now, wants + 1);
                    acknowledged_stage = acknowledged_stage.max(now);
                }
                let mut gone = advanced.is_none();
                for (device, answer) in devices.iter_mut().zip(answers) {
                    let Some(answer) = answer else {
                        gone = true;
                        continue;
                    };
                    if !answer.status.is_success() {
                        // Too often within a second, or replayed because the answer before it got lost.
                        assert!(matches!(answer.status.as_u16(), 409 | 429 | 503), "{answer:?}");
                        continue;
                    }
                    let answer: dunlin_fleet::wire::Answer = postcard::from_bytes(&answer.body).expect("an answer");
                    device.take(&answer);
                    let id = hex(&device.id);
                    acknowledged
                        .extend(answer.acknowledged.iter().map(|a| (id.clone(), i64::from(a.0), i64::from(a.1))));
                    if answer.offer.is_some() {
                        // The stage may have been left meanwhile, at most once.
                        offered.push((device.id, (wants + 1) as u8));
                    }
                }
                if gone {
                    break;
                }
            }
            killer.join().expect("killed");
            (program, client) = Program::start(&folder, &database);
            let status = client.call("GET", "/v1/rollouts/r", &tenant.viewer, Value::Null).await.ok();
            let now = status["stage"].as_u64().expect("a stage");
            assert!(now >= acknowledged_stage, "round {round}: stage {now}, acknowledged {acknowledged_stage}");
            assert!(now <= wants + 1, "round {round}: stage {now} after {wants}");
            stage = now;
        }
        program.kill();

        let there = stored(&database.url).await;
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged reports are lost: {lost:?}", lost.len(), acknowledged.len());
        assert!(acknowledged.len() > devices.len(), "{} reports in {rounds} rounds", acknowledged.len());

        let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
        let row = sqlx::query("SELECT state FROM rollouts").fetch_one(&pool).await.expect("a row");
        let rollout: Rollout = postcard::from_bytes(&row.get::<Vec<u8>, _>("state")).expect("a rollout");
        for (identity, stage) in &offered {
            let reach = rollout.plan().stage(*stage).expect("a stage").exposure;
            let part = reach.assign(rollout.salt(), &Subject::new(identity));
            assert!(part.installs.is_some(), "{} was offered the candidate in stage {stage}", hex(identity));
        }
        assert!(!offered.is_empty());
        // Each stage is in the log once.
        let rows = sqlx::query("SELECT detail FROM audit WHERE action = 'rollout.advance.by_hand' ORDER BY n");
        let rows = rows.fetch_all(&pool).await.expect("rows");
        let left: Vec<u64> = rows
            .iter()
            .filter_map(|r| serde_json::from_str::<Value>(&r.get::<String, _>("detail")).ok()?["stage"].as_u64())
            .collect();
        assert_eq!(left, (0..stage).collect::<Vec<_>>(), "each stage was left once");
        pool.close().await;
        let checked = Command::new(PROGRAM)
            .args(["--data".as_ref(), folder.as_os_str()])
            .args(["--database", &database.url, "audit", "verify"])
            .output()
            .expect("the program runs");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        eprintln!(
            "{}: {rounds} kills, {} reports acknowledged, {} offers, {stage} stages left",
            database.engine,
            acknowledged.len(),
            offered.len()
        );
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
    let kills: i64 = std::env::var("DUNLIN_FLEET_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let folder = folder.path();
    runtime.block_on(async {
        let system = token(folder, &database);
        let (one, client) = Program::start(folder, &database);
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
        let mut replicas = [Some((one, client)), Some(Program::start(folder, &database))];
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
            replicas[at] = Some(Program::start(folder, &database));
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
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&folder).expect("the folder").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "its owner's alone");
        }
        let (mut program, client) = Program::start(&folder, &database);
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
            Command::new("kill").arg(program.0.id().to_string()).status().expect("SIGTERM");
        };
        let (answers, ()) = tokio::join!(polls, stop);
        let answered = answers.iter().flatten().filter(|a| a.status.is_success()).count();
        let code = tokio::task::spawn_blocking(move || program.0.wait()).await.expect("waits").expect("ends");
        assert!(code.success(), "{code}");
        assert!(stored(&database.url).await.len() >= answered, "{answered} were answered");
    });
}
