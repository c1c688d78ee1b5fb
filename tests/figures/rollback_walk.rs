//! Devices that a rollback does not reach: random walks of operators and devices over a real server, on SQLite, and on
//! PostgreSQL where that is installed; then the same while the server is killed at random moments.
//!
//! `rollback_walk [--actions N] [--seed N] [--engine sqlite|postgres] [--no-kills]`: 1,000 actions each unless said.

// What the fleet server's own tests use.
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../targets/fleet/tests/server/database.rs"]
mod database;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../targets/fleet/tests/server/program.rs"]
mod program;
#[allow(dead_code, reason = "tests need more of it")]
#[path = "../../targets/fleet/tests/server/site.rs"]
mod site;
#[path = "rollback_walk/walk.rs"]
mod walk;

use std::process::Command;

use serde_json::json;
use walk::{Walk, serve};

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|a| a != name).nth(1)
}

fn main() {
    if let (Some(folder), Some(url), Some(listen)) = (argument("--serve"), argument("--on"), argument("--listen")) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(serve(folder.as_ref(), &url, listen.parse().expect("an address")));
    }
    let number = |name: &str, default: u64| argument(name).map_or(default, |n| n.parse().expect("a number"));
    let (actions, seed) = (number("--actions", 1000), number("--seed", 1));
    let this = std::env::current_exe().expect("this program");
    for kills in [false, true] {
        if kills && std::env::args().any(|a| a == "--no-kills") {
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        for database in database::all(folder.path()) {
            if argument("--engine").is_some_and(|engine| engine != database.engine) {
                continue;
            }
            let place = folder.path().join(database.engine);
            std::fs::create_dir_all(&place).expect("a folder");
            let listen = format!("127.0.0.1:{}", database::free_port());
            let start = || {
                let mut command = Command::new(&this);
                command.arg("--serve").arg(&place).args(["--on", &database.url, "--listen", &listen]);
                command
            };
            let walked = walk::walk(Walk { seed, actions, kills }, &place, &database, &start);
            let figure = |name: &str, value: u64, unit: &str, target: Option<u64>| {
                let name = format!("rollback_walk_{name}_{}{}", database.engine, if kills { "_kills" } else { "" });
                println!(
                    "{}",
                    json!({ "figure": name, "value": value, "unit": unit, "better": if target.is_some() { "lower" } else { "higher" },
                        "target": target, "peer": null, "ratio": null, "seed": seed })
                );
            };
            figure("operator_actions", walked.acts + walked.refused, "actions", None);
            figure("operator_actions_done", walked.acts, "actions", None);
            figure("device_actions", walked.device_actions, "actions", None);
            figure("trials_passed", walked.confirmed, "trials", None);
            figure("kills", walked.kills, "kills", None);
            figure("stranded", walked.stranded, "devices", Some(0));
            figure("rollbacks_later_than_two_polls", walked.late, "rollbacks", Some(0));
            figure("inferred_while_stopped", walked.inferred_while_stopped, "inferences", Some(0));
            for (reason, devices) in &walked.blocked {
                figure(&format!("blocked_by_{reason}"), *devices, "devices", None);
            }
        }
    }
}
