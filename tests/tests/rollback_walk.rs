//! A sample of the figure `rollback_walk`: operators and devices act at random over a real server.
//! `DUNLIN_WALK_ACTIONS` and `DUNLIN_WALK_SEED` choose another one; `DUNLIN_WALK_ACTIONS=10000` is the whole.

use std::process::Command;

use serde_json::Value;

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[test]
fn no_device_stays_on_a_package_that_was_taken_back() {
    let this = std::env::current_exe().expect("this program");
    let built = this.ancestors().nth(2).expect("a folder").join("examples/rollback_walk");
    assert!(built.exists(), "run `cargo build --release -p dunlin-tests --example rollback_walk` first");
    let arguments =
        [("--actions", variable("DUNLIN_WALK_ACTIONS", "400")), ("--seed", variable("DUNLIN_WALK_SEED", "11"))];
    let output = Command::new(built)
        .args(arguments.iter().flat_map(|(name, value)| [name, value.as_str()]))
        .output()
        .expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let figures: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    let of = |name: &str| figures.iter().filter(|f| f["figure"].as_str().is_some_and(|f| f.contains(name))).count();
    assert!(of("_sqlite_kills") > 0, "with kills too: {text}");
    for figure in figures.iter().filter(|f| f["target"].is_u64()) {
        assert!(figure["value"].as_u64() <= figure["target"].as_u64(), "{arguments:?}: {figure}\n{errors}");
    }
    let sum = |name: &str| -> u64 {
        let named = figures.iter().filter(|f| f["figure"].as_str().is_some_and(|f| f.contains(name)));
        named.filter_map(|f| f["value"].as_u64()).sum()
    };
    assert!(sum("operator_actions_done") > 20 && sum("trials_passed") > 20, "something was done: {text}");
}
