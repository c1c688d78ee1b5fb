//! `dunlin flock`: simulated devices, their faults, and what the server makes of them.

use serde_json::Value;

use super::site::Site;

fn count(tally: &Value, name: &str) -> u64 {
    tally[name].as_u64().unwrap_or_else(|| panic!("no {name} in {tally}"))
}

/// A rollout to nearly all that has started, with the digests of its base and its candidate.
fn begun(site: &Site) -> (String, String) {
    site.login();
    let (keys, one, two) = site.packages();
    let digest = |published: &Value| published["package"]["digest"].as_str().expect("a digest").to_owned();
    let base = digest(&site.json(&["fleet", "publish", &one, "--keys", &keys]));
    let candidate = digest(&site.json(&["fleet", "publish", &two, "--keys", &keys, "--base", &one]));
    let stages = site.path("stages.json");
    std::fs::write(&stages, r#"[{ "canary_percent": 80, "control_percent": 20, "device_days": 1000 }]"#)
        .expect("written");
    let strategy = format!("stages:{stages}");
    let start = ["fleet", "rollout", "start", "r", "--yes", "--candidate", &candidate, "--base", &base];
    site.succeeds(&[&start[..], &["--strategy", &strategy]].concat());
    (base, candidate)
}

#[test]
fn stand_ins_update_report_and_survive_bad_links() {
    let site = Site::start();
    let (base, candidate) = begun(&site);
    let tally = site.json(&[
        "flock",
        "--stand-in",
        "--devices",
        "50",
        "--running",
        &base,
        "--duration",
        "5h",
        "--speed",
        "3600",
        "--interval",
        "30m",
        "--delay",
        "5",
        "--duplicates",
        "0.2",
        "--bad-clocks",
        "0.2",
        "--offline",
        "0.1",
    ]);
    assert_eq!(count(&tally, "enrolled"), 50);
    // Of the copies none is taken; some are told to wait before they are looked at.
    assert!(count(&tally, "duplicates_refused") > count(&tally, "duplicates") / 2, "{tally}");
    assert!(
        count(&tally, "duplicates") > 10 && count(&tally, "wrong_clocks") > 2 && count(&tally, "offline") > 5,
        "{tally}"
    );
    assert!(count(&tally, "reports") > 50, "{tally}");
    // Nearly all are reached; those of the control cohort are not.
    let runs = |digest: &str| tally["running"][digest].as_u64().unwrap_or(0);
    assert!(runs(&candidate) > 25 && runs(&base) > 0 && runs(&candidate) + runs(&base) == 50, "{tally}");
    assert_eq!(count(&tally, "confirmed"), runs(&candidate));
    assert!(count(&tally, "differences") >= runs(&candidate), "{tally}");
    let status = site.json(&["fleet", "rollout", "status", "r"]);
    assert_eq!(status["rollout"]["succeeded"], runs(&candidate), "the server knows what runs: {status}");
}

#[test]
fn stand_ins_that_fail_take_it_back_and_a_herd_is_answered() {
    let site = Site::start();
    let (base, _) = begun(&site);
    let tally = site.json(&[
        "flock",
        "--stand-in",
        "--devices",
        "40",
        "--running",
        &base,
        "--duration",
        "90m",
        "--speed",
        "1800",
        "--herd",
        "--failed-start",
        "1",
        "--inference-errors",
        "1",
        "--seed",
        "7",
    ]);
    assert_eq!((count(&tally, "enrolled"), count(&tally, "confirmed")), (40, 0), "{tally}");
    assert!(count(&tally, "reverted") > 20, "{tally}");
    assert_eq!(tally["running"][&base], 40, "{tally}");
    assert!(count(&tally, "failed_inferences") > 0, "{tally}");
    let status = site.json(&["fleet", "rollout", "status", "r"]);
    assert_eq!(status["rollout"]["reverted"], count(&tally, "reverted"), "{status}");
}

#[test]
fn devices_that_run_a_model_take_what_they_can_check() {
    let site = Site::start();
    site.login();
    let (keys, one, two) = site.packages();
    let digest = |published: &Value| published["package"]["digest"].as_str().expect("a digest").to_owned();
    let base = digest(&site.json(&["fleet", "publish", &one, "--keys", &keys]));
    let candidate = digest(&site.json(&["fleet", "publish", &two, "--keys", &keys, "--base", &one]));
    let stages = site.path("stages.json");
    std::fs::write(&stages, r#"[{ "canary_percent": 80, "control_percent": 20, "device_days": 1000 }]"#)
        .expect("written");
    let strategy = format!("stages:{stages}");
    let start = ["fleet", "rollout", "start", "r", "--yes", "--candidate", &candidate, "--base", &base];
    site.succeeds(&[&start[..], &["--strategy", &strategy]].concat());
    let root = format!("{keys}/1.root");
    let flock = |root: &str| {
        let all =
            ["flock", "--devices", "20", "--factory", &one, "--root", root, "--duration", "6h", "--speed", "3600"];
        site.json(&[&all[..], &["--interval", "30m", "--inferences", "60", "--duplicates", "0.2"]].concat())
    };
    let tally = flock(&root);
    let runs = |digest: &str| tally["running"][digest].as_u64().unwrap_or(0);
    assert!(runs(&candidate) >= 8 && runs(&candidate) + runs(&base) == 20, "{tally}");
    assert!(count(&tally, "confirmed") >= 8 && count(&tally, "inferences") > 1000, "{tally}");
    assert!(count(&tally, "reports") > 20 && count(&tally, "duplicates") > 0, "{tally}");
    // Devices that trust another root take nothing of it.
    let other = site.path("other");
    site.succeeds(&["keys", "init", &other, "--root", "1/1"]);
    let all = ["flock", "--devices", "10", "--factory", &one, "--root", &format!("{other}/1.root"), "--seed", "2"];
    let tally = site.json(&[&all[..], &["--duration", "3h", "--speed", "3600", "--interval", "30m"]].concat());
    assert_eq!(tally["running"][&base], 10, "{tally}");
    assert!(count(&tally, "offers_refused") > 0, "{tally}");
}

#[test]
fn progress_is_written_where_there_is_no_terminal() {
    let site = Site::start();
    site.login();
    // Devices that are offline try again every second or so, and keep the flock busy to its end.
    let all = ["flock", "--stand-in", "--devices", "5", "--interval", "1s", "--offline", "1"];
    let output = site.run(&[&all[..], &["--duration", "4s", "--progress", "1s"]].concat());
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" of 4 s: ")).collect();
    assert!((1..=4).contains(&lines.len()), "{text}");
    assert!(lines.iter().all(|line| line.contains("5 enrolled, 0 polls")), "{text}");
}
