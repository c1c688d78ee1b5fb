//! `dunlin demo`, small: it tells its story to the end, and says so by its exit code.

use std::process::Command;

use serde_json::Value;

fn demo(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_dunlin")).args(["--json", "demo"]).args(arguments).output();
    let output = output.expect("dunlin runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).expect("one JSON object")
}

#[test]
fn the_models_alone_are_quick() {
    let record = demo(&["--models"]);
    assert_eq!(record["models"].as_array().map(Vec::len), Some(5));
    assert_eq!(record["story"], Value::Null);
}

#[test]
fn a_good_version_reaches_all_and_a_bad_one_is_taken_back() {
    let record = demo(&["--devices", "80"]);
    assert_eq!(record["failure"], Value::Null);
    let story = &record["story"];
    let rollouts = story["rollouts"].as_array().expect("rollouts");
    let phases: Vec<&Value> = rollouts.iter().map(|r| &r["phase"]).collect();
    assert_eq!(phases, ["Completed", "RolledBack"], "{story}");
    // All run the second version in the end, by what they themselves said.
    let running: Vec<u64> =
        story["versions"].as_array().expect("versions").iter().filter_map(|v| v["running"].as_u64()).collect();
    assert_eq!(running, [0, 80, 0], "{story}");
    let moves = |n: usize| -> Vec<String> {
        let all = rollouts[n]["moves"].as_array().expect("moves");
        all.iter().map(|m| m["reason"].as_str().expect("a sentence").to_owned()).collect()
    };
    assert_eq!(moves(0).iter().filter(|m| m.starts_with("ADVANCE")).count(), 3, "{story}");
    let caught = moves(1);
    assert!(caught.iter().any(|m| m.starts_with("ROLLBACK") && m.contains("inference_error")), "{caught:?}");
    // The bad one came to few, all of which went back; most of the good one went as differences.
    let exposed = rollouts[1]["exposed"].as_u64().expect("a number");
    assert!((1..=48).contains(&exposed), "{story}");
    let flock = &story["flock"];
    let number = |name: &str| flock[name].as_u64().unwrap_or_else(|| panic!("no {name} in {flock}"));
    assert!(number("differences") >= 80 && number("confirmed") >= 80 && number("reports") > 80, "{flock}");
    assert_eq!(flock["errors"], serde_json::json!({}));
    // It was wrong four times out of five, and nobody's labels were needed to see that something was.
    let right = |n: usize| story["versions"][n]["right"].as_f64().expect("a share");
    assert!(right(1) > 0.95 && right(2) < 0.4, "{story}");
}
