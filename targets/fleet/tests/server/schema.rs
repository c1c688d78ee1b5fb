//! Requests that schemathesis makes up from the OpenAPI document: whatever is asked, the server does not fail.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::device::Device;
use super::site::{Site, on_each_engine, publish};

/// Where schemathesis is: `SCHEMATHESIS`, or on the path.
fn program() -> Option<PathBuf> {
    let place = std::env::var_os("SCHEMATHESIS").map_or_else(|| "schemathesis".into(), PathBuf::from);
    let runs = Command::new(&place).arg("--version").output().is_ok_and(|o| o.status.success());
    runs.then_some(place)
}

/// `DUNLIN_FLEET_EXAMPLES` says how many requests each operation gets at most in each phase.
#[test]
fn no_request_of_the_schema_makes_the_server_fail() {
    let Some(program) = program() else {
        eprintln!("SKIPPED: schemathesis is not installed");
        return;
    };
    let examples = std::env::var("DUNLIN_FLEET_EXAMPLES").unwrap_or_else(|_| "15".to_owned());
    on_each_engine(|folder, database| {
        let (program, examples) = (program.clone(), examples.clone());
        async move {
            let site = Site::start(&folder, &database).await;
            let settings = json!({ "title": "The installation", "settings": { "operator_rate": 100_000 } });
            site.client.call("PUT", "/v1/tenants/system", &site.system, settings).await.ok();
            let tenant = site.tenant("a", 1, json!({})).await;
            let (one, two) = (tenant.keys.package("m", 1, 100), tenant.keys.package("m", 2, 100));
            publish(&site.client, &tenant, &one).await.ok();
            publish(&site.client, &tenant, &two).await.ok();
            Device::enrol(&site.client, &tenant, 1, Some(one.digest), &site.clock).await;
            let draft = json!({ "candidates": [two.id()], "base": one.id(), "strategy": { "kind": "canary" } });
            site.client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
            site.client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
            // A tenant's administrator, and the installation's. Deletions come last: it learns the names of tokens, and would
            // revoke its own.
            let ways = [("--exclude-method", &tenant.admin), ("--exclude-method", &site.system)];
            for (way, token) in ways.into_iter().chain([("--include-method", &site.system)]) {
                let mut run = Command::new(&program);
                run.arg("run").arg(format!("http://{}/openapi.json", site.client.address));
                run.args(["--header", &format!("Authorization: Bearer {token}")]);
                run.args([way, "DELETE", "--checks", "not_a_server_error", "--max-examples", &examples, "--seed", "1"]);
                run.args(["--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--no-color"]);
                // What it writes beside its output is for nobody.
                run.current_dir(&folder);
                let output = tokio::task::spawn_blocking(move || run.output()).await.expect("a thread").expect("runs");
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
                if way == "--exclude-method" {
                    // So nearly all of it got behind the door.
                    site.client.call("GET", "/v1/tokens", token, Value::Null).await.ok();
                }
                eprintln!(
                    "{}",
                    said.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            site.server.stop().await;
        }
    });
}
