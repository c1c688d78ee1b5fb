//! The server killed at random moments while devices report and a rollout goes on, and what became of it. A test asks for
//! it, and the figure `server` counts it.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use dunlin_fleet::{ManualClock, hex, wire};
use dunlin_rollout::{Rollout, Subject};
use dunlin_update::trust::{self, Ed25519};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::database::Database;
use super::device::Device;
use super::program::Program;
use super::site::{self, publish};

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survived {
    /// SIGKILLs.
    pub(crate) kills: u64,
    /// Reports whose receipt reached the device.
    pub(crate) acknowledged: usize,
    /// Of those, reports that the server has not.
    pub(crate) lost: usize,
    /// Offers that reached a device.
    pub(crate) offers: usize,
    /// Of those, offers to devices that the stage did not reach.
    pub(crate) outside: usize,
    /// Stages that were left, each by a request that is sent until it is answered.
    pub(crate) stages: u64,
    /// Stages that were left twice, or left without having been asked for, or that are back after they were left.
    pub(crate) twice: u64,
}

/// Numbers that look random; the same each time.
pub(crate) fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Stages of one rollout.
const STAGES: u64 = 8;

/// Rollouts whose stages are left one after the other, so that there is always one to be left.
struct Rollouts<'s> {
    client: &'s site::Client,
    tenant: &'s site::Tenant,
    /// The current one.
    number: u64,
}

impl Rollouts<'_> {
    fn id(&self) -> String {
        format!("r{}", self.number)
    }

    async fn begin(&self, base: &site::Published, candidate: &site::Published) {
        // As many stages as fit, each a little wider; they are left by hand, because no day passes here.
        let stages: Vec<Value> = (1..=STAGES)
            .map(|n| json!({ "canary_percent": 7 * n, "control_percent": 40, "device_days": 1000 }))
            .collect();
        let draft = json!({ "candidates": [candidate.id()], "base": base.id(),
            "strategy": { "kind": "stages", "stages": stages } });
        let path = format!("/v1/rollouts/{}", self.id());
        self.client.call("PUT", &path, &self.tenant.operator, draft).await.ok();
        self.client.call("POST", &format!("{path}/start"), &self.tenant.operator, Value::Null).await.ok();
    }
}

/// Kills the server so often, at least, and until something has happened that a kill could have spoiled. `start` starts the
/// server's program with a folder and tells where it listens; `system` is a token of the installation's administrator.
pub(crate) async fn kill(start: &dyn Fn() -> Command, database: &Database, system: &str, kills: u64) -> Survived {
    let starts = || Program::start(start()).expect("the program starts");
    let clock = ManualClock::new();
    let (mut program, mut client) = starts();
    let tenant = site::tenant(&client, system, "kills", 1, json!({})).await;
    let one = tenant.keys.package("m", 1, 300);
    publish(&client, &tenant, &one).await.ok();
    let mut devices = Vec::new();
    for n in 0..40 {
        devices.push(Device::enrol(&client, &tenant, n, Some(one.digest), &clock).await);
    }
    let mut state = 0x9E37_79B9_7F4A_7C15u64 ^ u64::from(std::process::id());
    let (mut acknowledged, mut offered) = (BTreeSet::new(), Vec::new());
    // The live rollout, its stage as it was seen last, and as somebody was told that it is.
    let (mut number, mut stage, mut told) = (0u64, 0u64, 0u64);
    let mut survived = Survived::default();
    for round in 0..20 * kills.max(1) {
        // On a machine with much else to do it takes longer until something has happened.
        if round >= kills && !offered.is_empty() && acknowledged.len() > devices.len() && survived.stages > 0 {
            break;
        }
        survived.kills = round + 1;
        if round == 0 || stage == STAGES - 1 {
            let mut rollouts = Rollouts { client: &client, tenant: &tenant, number };
            if round > 0 {
                let path = format!("/v1/rollouts/{}/abort", rollouts.id());
                client.call("POST", &path, &tenant.operator, json!({ "devices": "keep" })).await.ok();
                rollouts.number += 1;
            }
            let candidate = tenant.keys.package("m", rollouts.number as u32 + 2, 300);
            publish(&client, &tenant, &candidate).await.ok();
            rollouts.begin(&one, &candidate).await;
            (number, stage, told) = (rollouts.number, 0, 0);
        }
        // The kill comes from another thread, at a moment that has nothing to do with what happens.
        let delay = Duration::from_micros(next(&mut state) % 250_000);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            program.kill();
        });
        let path = format!("/v1/rollouts/r{number}/advance");
        let advance = json!({ "stage": stage }).to_string();
        let headers = [("authorization", format!("Bearer {}", tenant.approver))];
        loop {
            devices.iter_mut().filter(|d| d.unsent.len() < 8).for_each(Device::measure);
            let polls = devices.iter_mut().map(|d| d.try_poll(&client));
            let (answers, advanced) = tokio::join!(
                futures_util::future::join_all(polls),
                client.send("POST", &path, &headers, advance.clone())
            );
            if let Some(answer) = &advanced {
                // Sent again and again, with the stage that was seen: it is left once.
                let now = answer.ok()["stage"].as_u64().expect("a stage");
                survived.twice += u64::from(now != stage + 1);
                told = told.max(now);
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
                let answer: wire::Answer = postcard::from_bytes(&answer.body).expect("an answer");
                device.take(&answer);
                let id = hex(&device.id);
                acknowledged.extend(answer.acknowledged.iter().map(|a| (id.clone(), i64::from(a.0), i64::from(a.1))));
                // The base is offered to end downloads of a rollout that was aborted.
                let offers_candidate = answer.offer.as_ref().is_some_and(|offer| {
                    let rollout = trust::rollout(&tenant.root, &offer.rollout, &Ed25519);
                    rollout.is_ok_and(|r| r.digest != one.digest)
                });
                if offers_candidate {
                    // The stage may have been left meanwhile, at most once.
                    offered.push((device.id, number, (stage + 1) as u8));
                }
            }
            if gone {
                break;
            }
        }
        killer.join().expect("killed");
        (program, client) = starts();
        let status = client.call("GET", &format!("/v1/rollouts/r{number}"), &tenant.viewer, Value::Null).await.ok();
        let now = status["stage"].as_u64().expect("a stage");
        // Back before what was acknowledged, or further than anybody asked for.
        survived.twice += u64::from(now < told || now > stage + 1);
        survived.stages += now.saturating_sub(stage);
        stage = now;
    }
    program.kill();
    look(database, &mut survived, &acknowledged, &offered, number, stage).await;
    survived
}

type Reports = BTreeSet<(String, i64, i64)>;

/// Counts what is in the tables.
async fn look(
    database: &Database,
    survived: &mut Survived,
    acknowledged: &Reports,
    offered: &[([u8; 16], u64, u8)],
    last: u64,
    stage: u64,
) {
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(&database.url).await.expect("connects");
    let rows = sqlx::query("SELECT device, boot, seq FROM reports").fetch_all(&pool).await.expect("rows");
    let there: Reports = rows.iter().map(|r| (r.get("device"), r.get("boot"), r.get("seq"))).collect();
    (survived.acknowledged, survived.lost) = (acknowledged.len(), acknowledged.difference(&there).count());
    survived.offers = offered.len();
    for number in 0..=last {
        let id = format!("r{number}");
        let row = sqlx::query("SELECT state FROM rollouts WHERE id = $1").bind(&id).fetch_one(&pool).await;
        let state: Vec<u8> = row.expect("a row").get("state");
        let rollout: Rollout = postcard::from_bytes(&state).expect("a rollout");
        for (identity, _, stage) in offered.iter().filter(|o| o.1 == number) {
            let reach = rollout.plan().stage(*stage).expect("a stage").exposure;
            let part = reach.assign(rollout.salt(), &Subject::new(identity));
            survived.outside += usize::from(part.installs.is_none());
        }
        // Each stage that was left is in the log once.
        let rows =
            sqlx::query("SELECT detail FROM audit WHERE action = 'rollout.advance.by_hand' AND object = $1 ORDER BY n");
        let rows = rows.bind(&id).fetch_all(&pool).await.expect("rows");
        let left: Vec<u64> = rows
            .iter()
            .filter_map(|r| serde_json::from_str::<Value>(&r.get::<String, _>("detail")).ok()?["stage"].as_u64())
            .collect();
        let expected: Vec<u64> = (0..if number == last { stage } else { STAGES - 1 }).collect();
        let extra = left.len().saturating_sub(expected.len()) as u64;
        survived.twice += if left == expected { 0 } else { extra.max(1) };
    }
    pool.close().await;
}
