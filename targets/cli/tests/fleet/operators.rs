//! `dunlin fleet`: from nothing to a rollout that is taken back.

use dunlin_fleet::unhex;
use serde_json::Value;

use super::site::Site;

#[test]
fn the_profile_is_private_and_the_environment_comes_first() {
    let site = Site::start();
    let (code, text) = site.fails(&["fleet", "devices"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("dunlin fleet login"), "{text}");
    site.login();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(site.path("profile.json")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(site.json(&["fleet", "devices"]), Value::Array(vec![]));
    // A token that is not known, from the environment: the server's reason and hint are passed on.
    let output = site.command(&["fleet", "devices"]).env("DUNLIN_FLEET_TOKEN", "dnl_0").output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(8), "{text}");
    assert!(text.contains("not known") && text.contains("hint: ask for a new one"), "{text}");
    // Nor does a token go where others can read it on the way.
    let output = site
        .command(&["fleet", "devices"])
        .env("DUNLIN_FLEET_URL", "http://fleet.example.org")
        .env("DUNLIN_FLEET_TOKEN", &site.admin)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("plain HTTP"), "{text}");
    // The kept token goes to no other server.
    let output =
        site.command(&["fleet", "devices"]).env("DUNLIN_FLEET_URL", "http://127.0.0.1:9").output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let output = site
        .command(&["fleet", "devices"])
        .env("DUNLIN_FLEET_URL", "http://127.0.0.1:9")
        .env("DUNLIN_FLEET_TOKEN", &site.admin)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(9), "{text}");
    assert!(text.contains("hint") && !text.contains(&site.admin), "{text}");
}

#[test]
fn from_nothing_to_a_rollout_and_back() {
    let site = Site::start();
    site.login();
    let (keys, one, two) = site.packages();
    let first = site.json(&["fleet", "publish", &one, "--keys", &keys]);
    assert_eq!(
        (&first["package"]["number"], &first["was_published"]),
        (&Value::from(1), &Value::from(false)),
        "{first}"
    );
    let base = first["package"]["digest"].as_str().expect("a digest").to_owned();
    let running: [u8; 32] = unhex(&base).expect("hex").try_into().expect("32 bytes");
    let ids: Vec<String> = (1..=20).map(|n| site.device(n, running)).collect();

    // What the fleet runs is found, fetched, and a difference from it is uploaded.
    let second = site.json(&["fleet", "publish", &two, "--keys", &keys]);
    assert_eq!(second["package"]["number"], 2, "{second}");
    let delta = &second["deltas"][0];
    assert_eq!((&delta["base"], &delta["uploaded"]), (&Value::from(base.as_str()), &Value::from(true)), "{second}");
    let len = |p: &str| std::fs::metadata(p).expect("a file").len();
    assert!(delta["bytes"].as_u64().is_some_and(|n| n > 0 && n < len(&two)), "{second}");
    let again = site.json(&["fleet", "publish", &two, "--keys", &keys]);
    assert_eq!(again["was_published"], true, "{again}");
    assert_eq!(again["deltas"], second["deltas"]);
    assert_eq!(again["golden"], true, "{again}");
    // Other numbers for what is published are refused by the server, with its hint.
    let (code, text) = site.fails(&["fleet", "publish", &two, "--keys", &keys, "--number", "9"]);
    assert_eq!(code, 8, "{text}");

    let stages = site.path("stages.json");
    std::fs::write(
        &stages,
        r#"[{ "canary_percent": 20, "control_percent": 40 }, { "canary_percent": 60, "control_percent": 40 }]"#,
    )
    .expect("written");
    let strategy = format!("stages:{stages}");
    let draft = ["--candidate", "digits@2", "--strategy", &strategy, "--margin", "latency_p95=20%"];
    let mut plan = vec!["fleet", "rollout", "plan"];
    plan.extend(draft);
    let text = site.succeeds(&plan);
    assert!(text.contains("20 devices could take part") && text.contains("20 %, control 40 %"), "{text}");
    let dry = site.json(&plan);
    assert_eq!((&dry["stored"], &dry["eligible"]), (&Value::from(false), &Value::from(20)), "{dry}");
    let mut start = vec!["fleet", "rollout", "start", "r"];
    start.extend(draft);
    let (code, text) = site.fails(&start);
    assert!(code == 2 && text.contains("--yes"), "{text}");
    assert_eq!(site.json(&["fleet", "rollout", "status"]), Value::Array(vec![]), "nothing was drafted");
    start.push("--yes");
    let text = site.succeeds(&start);
    assert!(text.contains("too few for statistics") || text.contains("times"), "{text}");
    assert!(text.contains("r (digits): running") && text.contains("Running stage 1 of 2 since"), "{text}");
    site.succeeds(&start);

    let status = site.json(&["fleet", "rollout", "status", "r"]);
    assert_eq!((&status["rollout"]["phase"], &status["rollout"]["base"]), (&"Running".into(), &base.as_str().into()));
    assert!(site.succeeds(&["fleet", "rollout", "status"]).contains("Running"));
    assert!(site.succeeds(&["fleet", "rollout", "pause", "r"]).contains("Paused"));
    assert!(site.succeeds(&["fleet", "rollout", "resume", "r"]).contains("Running"));
    let (code, text) = site.fails(&["fleet", "rollout", "approve", "r", "--yes"]);
    assert!(code == 8 && text.contains("nothing of r waits for approval: Running stage 1 of 2"), "{text}");
    let output = site.run(&["fleet", "rollout", "abort", "r"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("--revert|--keep"), "both are named: {text}");
    let because = ["--reason", "too many failures"];
    let ended = site.json(&[&["fleet", "rollout", "abort", "r", "--revert", "--yes"], &because[..]].concat());
    assert_eq!(ended["phase"], "RolledBack", "{ended}");
    let last = &ended["last_action"];
    assert_eq!((&last["action"], &last["by"]), (&"abort".into(), &"alice".into()), "{ended}");
    assert_eq!(last["reason"], "too many failures");
    let long = "x".repeat(201);
    let (code, text) = site.fails(&["fleet", "rollout", "retry", "r", "--reason", &long]);
    assert!(code == 8 && text.contains("201 characters"), "{text}");
    // A watch ends with the rollout.
    let text = site.succeeds(&["fleet", "rollout", "status", "r", "--watch", "--every", "0.1"]);
    assert!(text.contains("Rolled back by alice at") && text.contains(": too many failures"), "{text}");
    assert!(!text.contains("HOLD"), "{text}");

    assert!(site.succeeds(&["fleet", "devices"]).contains(&ids[0]));
    assert!(site.succeeds(&["fleet", "devices", "--census"]).contains("100.0 %"));
    assert_eq!(site.json(&["fleet", "devices", &ids[3], "--set-ring", "0"])["ring"], 0);
    let laboratory = site.json(&["fleet", "devices", "--ring", "0"]);
    assert_eq!(laboratory.as_array().map(Vec::len), Some(1), "{laboratory}");
    let (code, text) = site.fails(&["fleet", "devices", &ids[9], "--revoke"]);
    assert!(code == 2 && text.contains("--yes"), "{text}");
    assert_eq!(site.json(&["fleet", "devices", &ids[9], "--revoke", "--yes"])["id"], ids[9].as_str());
    assert_eq!(site.fails(&["fleet", "devices", &ids[9]]).0, 8);
    let (code, text) = site.fails(&["fleet", "rollout", "start", "r", "--yes"]);
    assert!(code == 8 && text.contains("retry"), "{text}");
    let one = site.json(&["fleet", "devices", &ids[3]]);
    assert_eq!(one["device"]["running"], base.as_str(), "{one}");

    let audit = site.json(&["fleet", "audit", "--verify", "--limit", "5"]);
    assert_eq!(audit["entries"].as_array().map(Vec::len), Some(5), "{audit}");
    assert!(audit["verified_head"].is_string() && audit["count"].as_u64() > Some(20), "{audit}");
    assert!(site.succeeds(&["fleet", "audit"]).contains("rollout.abort"));
    assert_eq!(site.json(&["fleet", "alerts"]), Value::Array(vec![]));
    // Nobody reported yet.
    assert_eq!(site.json(&["fleet", "drift"]), Value::Array(vec![]));
    assert_eq!(site.json(&["fleet", "drift", "--package", "digits@2", "--days", "7"]), Value::Array(vec![]));
    assert!(site.succeeds(&["fleet", "drift", "--alarms"]).contains("no alarms stand"));
}

#[test]
fn flags_are_put_killed_and_revived() {
    let site = Site::start();
    site.login();
    site.packages();
    let file = site.path("flags.json");
    let flags = r#"{ "version": 0, "ttl": 3600, "flags": [
        { "key": "camera", "default": 1, "variants": [["off", { "Bool": false }], ["on", { "Bool": true }]] }] }"#;
    std::fs::write(&file, flags).expect("written");
    assert_eq!(site.json(&["fleet", "flags", "put", &file])["version"], 1);
    let (code, text) = site.fails(&["fleet", "flags", "kill", "microphone"]);
    assert!(code == 2 && text.contains("camera"), "{text}");
    let killed = site.succeeds(&["fleet", "flags", "kill", "camera"]);
    assert!(killed.contains("KILLED") && killed.contains("version 2"), "{killed}");
    site.succeeds(&["fleet", "flags", "kill", "camera"]);
    let shown = site.json(&["fleet", "flags"]);
    assert_eq!((&shown["version"], &shown["flags"][0]["killed"]), (&Value::from(2), &Value::from(true)), "{shown}");
    assert!(site.succeeds(&["fleet", "flags", "revive", "camera"]).contains("in force"));
    // The file is of a version that is over.
    let (code, _) = site.fails(&["fleet", "flags", "put", &file]);
    assert_eq!(code, 8);
}

#[test]
fn inference_is_stopped_and_resumed() {
    let site = Site::start();
    site.login();
    site.packages();
    site.device(1, [1; 32]);
    site.device(2, [1; 32]);
    // From the first minute, and only when a person or --yes says so.
    let shown = site.json(&["fleet", "flags"]);
    assert_eq!(
        (&shown["version"], &shown["flags"][0]["key"]),
        (&Value::from(0), &Value::from("dunlin.serve")),
        "{shown}"
    );
    let (code, text) = site.fails(&["fleet", "stop"]);
    assert!(code == 2 && text.contains("ALL inference") && text.contains("--yes"), "{text}");
    assert!(site.succeeds(&["fleet", "serving"]).contains("inference is on"));
    let (code, text) = site.fails(&["fleet", "stop", "--model", "digit", "--yes"]);
    assert!(code == 8 && text.contains("there are digits"), "{text}");
    let stopped = site.succeeds(&["fleet", "stop", "--model", "digits", "--reason", "wrong labels", "--yes"]);
    assert!(stopped.contains("STOPPED: inference of digits") && stopped.contains("wrong labels"), "{stopped}");
    assert!(stopped.contains("0 of 2 devices obey"), "{stopped}");
    let status = site.json(&["fleet", "stop", "--yes"]);
    assert_eq!((&status["serving"], &status["stops"][0]["model"]), (&Value::from(false), &Value::Null), "{status}");
    assert!(site.succeeds(&["fleet", "alerts", "--open"]).contains("serving_stopped"));
    assert!(site.succeeds(&["fleet", "flags"]).contains("KILLED: off"));
    assert!(site.succeeds(&["fleet", "resume"]).contains("inference is on"));
    assert!(!site.succeeds(&["fleet", "alerts", "--open"]).contains("serving_stopped"));
    // The flag's own switch is the same.
    site.succeeds(&["fleet", "flags", "kill", "dunlin.serve", "--yes"]);
    assert!(site.succeeds(&["fleet", "serving"]).contains("STOPPED: all inference"));
    site.succeeds(&["fleet", "flags", "revive", "dunlin.serve"]);
    assert!(site.succeeds(&["fleet", "serving"]).contains("inference is on"));
}

#[test]
fn a_flag_is_set_previewed_and_deleted() {
    let site = Site::start();
    site.login();
    site.packages();
    site.device(1, [1; 32]);
    let rule = "dunlin.model = digits -> on";
    let plan = site.succeeds(&["fleet", "flags", "set", "bikes", "--off", "--rule", rule, "--dry-run"]);
    assert!(plan.contains("added bikes") && plan.contains("nothing is stored"), "{plan}");
    assert!(plan.lines().any(|l| l.contains(" on ") && l.contains("1  100.0 %")), "{plan}");
    assert_eq!(site.json(&["fleet", "flags"])["version"], 0);
    site.succeeds(&["fleet", "flags", "set", "bikes", "--off", "--rule", rule]);
    assert!(site.succeeds(&["fleet", "flags", "preview", "bikes"]).contains("bikes: 1 devices"));
    let (code, text) = site.fails(&["fleet", "flags", "set", "bikes", "--rule", "model = digits -> onn"]);
    assert!(code == 8 && text.contains("rules[0]") && text.contains("use one of off, on"), "{text}");
    let (code, text) = site.fails(&["fleet", "flags", "set", "new"]);
    assert!(code == 2 && text.contains("--on"), "{text}");
    site.succeeds(&["fleet", "flags", "set", "limit", "--variant", "low=5", "--variant", "high=9", "--value", "low"]);
    let shown = site.json(&["fleet", "flags"]);
    let limit = shown["flags"].as_array().into_iter().flatten().find(|f| f["key"] == "limit").expect("it");
    assert_eq!((&limit["variants"]["high"], &limit["default"]), (&Value::from(9), &Value::from("low")), "{shown}");
    let schema: Value = serde_json::from_str(&site.succeeds(&["fleet", "flags", "schema"])).expect("JSON");
    assert!(schema["components"]["schemas"]["FlagBody"].is_object() && schema["examples"][0]["flags"].is_array());
    let file = site.path("flags.json");
    std::fs::write(&file, shown.to_string()).expect("written");
    assert!(site.succeeds(&["fleet", "flags", "put", &file, "--dry-run"]).contains("nothing would change"));
    site.succeeds(&["fleet", "flags", "delete", "bikes", "--yes"]);
    assert!(!site.json(&["fleet", "flags"]).to_string().contains("bikes"));
}

#[test]
fn a_crossover_from_a_plan_to_its_end_and_once_more() {
    let site = Site::start();
    site.login();
    let (keys, one, two) = site.packages();
    let first = site.json(&["fleet", "publish", &one, "--keys", &keys]);
    let base = first["package"]["digest"].as_str().expect("a digest").to_owned();
    let running: [u8; 32] = unhex(&base).expect("hex").try_into().expect("32 bytes");
    (1..=20).for_each(|n| drop(site.device(n, running)));
    site.succeeds(&["fleet", "publish", &two, "--keys", &keys, "--no-deltas"]);

    // Each strategy is one that the server knows, and shown as it is.
    for (strategy, stages, shown) in [
        ("crossover:50", 1, "50 % by the hour"),
        ("shadow:8", 6, "Shadow on 1 %, one of 8 inputs"),
        ("blue-green:10", 3, "Shadow on 90 %, one of 16 inputs"),
        ("hold-back:10", 1, "All but 10 %, control 10 %"),
        ("variants:40", 1, "40 % in 2 arms"),
        ("ring:2", 3, "Rings 0 to 2, control 10 %"),
        ("few:3", 4, "Rings 0 to 3, no control"),
        ("canary", 5, "5 %, control 15 %"),
    ] {
        let plan = ["fleet", "rollout", "plan", "--candidate", "digits@2", "--strategy", strategy];
        assert_eq!(site.json(&plan)["stages"].as_array().map(Vec::len), Some(stages), "{strategy}");
        let text = site.succeeds(&plan);
        assert!(text.contains(shown), "{strategy}: {text}");
    }
    let (code, text) = site.fails(&[
        "fleet",
        "rollout",
        "plan",
        "--candidate",
        "digits@2",
        "--base",
        "none",
        "--strategy",
        "crossover:50",
    ]);
    assert!(code == 8 && text.contains("takes turns with a base"), "{text}");

    let start = [
        "fleet",
        "rollout",
        "start",
        "x",
        "--candidate",
        "digits@2",
        "--strategy",
        "crossover:50",
        "--margin",
        "energy=5%",
        "--devices",
        "40",
        "--devices-per-arm",
        "10",
        "--yes",
    ];
    assert!(site.succeeds(&start).contains("x (digits): running"));
    let status = site.json(&["fleet", "rollout", "status", "x"]);
    let gate = &status["rollout"]["request"]["gate"];
    assert_eq!((&gate["devices"], &gate["devices_per_arm"]), (&40.into(), &10.into()), "{status}");
    // What a person decides has to be asked of one.
    for action in [&["waive"][..], &["advance", "--stage", "1"]] {
        let mut arguments = vec!["fleet", "rollout", action[0], "x"];
        arguments.extend(&action[1..]);
        let output = site.run(&arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains("stage 1?") && text.contains("--yes"), "{text}");
    }
    let output = site.run(&["fleet", "rollout", "advance", "x", "--stage", "0", "--yes"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("counted from 1"), "{text}");
    assert!(site.succeeds(&["fleet", "rollout", "waive", "x", "--yes"]).contains("Running"));
    let left = site.json(&["fleet", "rollout", "advance", "x", "--stage", "1", "--yes"]);
    assert_eq!(left["phase"], "Awaiting", "{left}");
    let (code, text) = site.fails(&["fleet", "rollout", "approve", "x", "--candidate", "1", "--yes"]);
    assert!(code == 8 && text.contains("no such candidate"), "{text}");
    assert!(site.succeeds(&["fleet", "rollout", "approve", "x", "--candidate", "0", "--yes"]).contains("Completed"));
    let (code, _) = site.fails(&["fleet", "rollout", "retry", "x"]);
    assert_eq!(code, 8, "what is completed is not tried again");
    site.succeeds(&["fleet", "rollout", "abort", "x", "--revert", "--yes"]);
    let again = site.json(&["fleet", "rollout", "retry", "x"]);
    assert_eq!(again["phase"], "Draft", "{again}");
    assert!(site.succeeds(&["fleet", "rollout", "start", "x", "--yes"]).contains("Running"));
}

#[test]
fn tokens_tenants_and_packages() {
    let site = Site::start();
    site.login();
    let (keys, one, _) = site.packages();
    let published = site.json(&["fleet", "publish", &one, "--keys", &keys]);
    let digest = published["package"]["digest"].as_str().expect("a digest");

    let list = site.succeeds(&["fleet", "packages"]);
    assert!(list.contains("digits") && list.contains(&digest[..12]), "{list}");
    let copy = site.path("copy.dunlin");
    let shown = site.json(&["fleet", "packages", "digits@1", "-o", &copy]);
    assert_eq!(shown["digest"], digest);
    assert_eq!(std::fs::read(&copy).expect("fetched"), std::fs::read(&one).expect("the package"));
    assert!(site.succeeds(&["fleet", "packages", "digits@1", "--telemetry"]).contains("fewer than ten devices"));
    assert_eq!(site.json(&["fleet", "packages", digest, "--telemetry", "48"]), Value::Array(vec![]));

    let made = site.succeeds(&["fleet", "tokens", "new", "bob", "viewer"]);
    let secret = made.trim();
    let as_bob = |arguments: &[&str]| {
        site.command(arguments)
            .env("DUNLIN_FLEET_URL", &site.url)
            .env("DUNLIN_FLEET_TOKEN", secret)
            .output()
            .expect("runs")
    };
    assert!(as_bob(&["fleet", "devices"]).status.success());
    assert_eq!(as_bob(&["fleet", "tokens"]).status.code(), Some(8), "a viewer reads no tokens");
    assert!(site.succeeds(&["fleet", "tokens"]).contains("bob"));
    let (code, text) = site.fails(&["fleet", "tokens", "revoke", "bob"]);
    assert!(code == 2 && text.contains("--yes"), "{text}");
    let left = site.json(&["fleet", "tokens", "revoke", "bob", "--yes"]);
    let bob = left.as_array().expect("a list").iter().find(|t| t["name"] == "bob").expect("bob");
    assert!(!bob["revoked"].is_null(), "{left}");
    assert_eq!(as_bob(&["fleet", "devices"]).status.code(), Some(8));

    let tenant = site.json(&["fleet", "tenant", "--poll-seconds", "60", "--webhook", "https://x.example/y"]);
    assert_eq!((&tenant["settings"]["poll_seconds"], &tenant["settings"]["two_person"]), (&60.into(), &false.into()));
    assert!(site.succeeds(&["fleet", "tenant"]).contains("https://x.example/y"));
    assert_eq!(site.json(&["fleet", "tenant", "--webhook", "none"])["settings"]["webhook"], Value::Null);
    let (code, text) = site.fails(&["fleet", "tenants", "put", "acme"]);
    assert!(code == 2 && text.contains("--title"), "{text}");
    let acme = site.json(&["fleet", "tenants", "put", "acme", "--title", "Acme", "--set", "max_devices=50"]);
    assert_eq!(acme["settings"]["max_devices"], 50, "{acme}");
    let acme = site.json(&["fleet", "tenants", "put", "acme", "--set", "two_person=true"]);
    assert_eq!((&acme["title"], &acme["settings"]["max_devices"]), (&"Acme".into(), &50.into()), "it stays: {acme}");
    assert!(site.succeeds(&["fleet", "tenants"]).contains("Acme"));
    let secret = site.json(&["fleet", "tokens", "new", "carol", "operator", "--tenant", "acme"]);
    assert!(secret["secret"].as_str().is_some_and(|s| s.starts_with("dnl_")), "{secret}");
}
