//! `dunlin fleet` against a real server: from nothing to a rollout that is taken back.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dunlin_fleet::{Clock as _, Config, ManualClock, Role, Server, hex, unhex, wire};
use dunlin_models::find;
use dunlin_update::trust::SecretKey;
use serde_json::Value;
use tempfile::TempDir;

/// A server with a tenant, and a folder for the profile, keys and packages.
struct Site {
    runtime: tokio::runtime::Runtime,
    server: Option<Server>,
    clock: ManualClock,
    url: String,
    admin: String,
    folder: TempDir,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let clock = ManualClock::new();
        let mut config = Config::in_folder(folder.path().join("server"));
        std::fs::create_dir_all(folder.path().join("server")).expect("a folder");
        config.tick = Duration::ZERO;
        config.clock = Arc::new(clock.clone());
        let server = runtime.block_on(Server::start(config)).expect("the server starts");
        let admin = runtime.block_on(server.token("system", "alice", Role::Admin)).expect("a token");
        let url = format!("http://{}", server.address());
        Self { runtime, server: Some(server), clock, url, admin, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(arguments).env_remove("DUNLIN_FLEET_URL").env_remove("DUNLIN_FLEET_TOKEN");
        command.env("DUNLIN_FLEET_PROFILE", self.path("profile.json")).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("dunlin runs")
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        serde_json::from_str(&self.succeeds(&all)).expect("one JSON object")
    }

    /// Exit code and what was said.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().expect("not killed");
        assert!(code != 0 && code != 101, "{arguments:?} gave {code}: {text}");
        assert!(text.contains("hint"), "{arguments:?}: {text}");
        (code, text)
    }

    fn login(&self) {
        use std::io::Write as _;
        let mut child = self
            .command(&["fleet", "login", &self.url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dunlin runs");
        writeln!(child.stdin.take().expect("a pipe"), "{}", self.admin).expect("written");
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("'system'") && !said.contains(&self.admin), "{said}");
    }

    /// Keys whose root the server has, and versions 1 and 2 of the digits as packages.
    fn packages(&self) -> (String, String, String) {
        let keys = self.path("keys");
        let shown = self.json(&["fleet", "root"]);
        let key = shown["server_key"].as_str().expect("a key").to_owned();
        assert!(shown["problem"].is_string(), "{shown}");
        self.succeeds(&["keys", "init", &keys, "--root", "1/1", "--rollout-key", &key]);
        let put = self.json(&["fleet", "root", "--keys", &keys]);
        assert_eq!((&put["version"], &put["problem"]), (&Value::from(1), &Value::Null), "{put}");
        let package = |version: &str| {
            let artifact = find("digits", Some(version)).expect("digits");
            let onnx = self.path(&format!("{version}.onnx"));
            std::fs::write(&onnx, artifact.onnx).expect("written");
            let out = self.path(&format!("{version}.dunlin"));
            self.succeeds(&["compile", &onnx, "-o", &out, "--name", "digits", "--version", version]);
            out
        };
        (keys, package("1"), package("2"))
    }

    /// A device that says what it runs, as devices do.
    fn device(&self, n: u8, running: [u8; 32]) -> String {
        let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
        let key = SecretKey::from_seed([n; 32]);
        let enrol = wire::Enrol {
            key: key.public(),
            target: "cortex-m4".into(),
            model: "digits".into(),
            attributes: BTreeMap::new(),
        };
        let body = postcard::to_allocvec(&enrol).expect("encodes");
        let mut answer = agent
            .post(format!("{}/d/v1/enrol", self.url))
            .header("authorization", format!("Bearer {}", self.admin))
            .header(wire::SIGNATURE, wire::signature(&key, "POST", "/d/v1/enrol", "0", &body))
            .send(&body[..])
            .expect("enrolled");
        let answer = answer.body_mut().read_to_vec().expect("a body");
        let enrolled: wire::Enrolled = postcard::from_bytes(&answer).expect("an answer");
        let poll = wire::Poll {
            model: "digits".into(),
            running: Some(running),
            phase: 0,
            fetching: None,
            last: None,
            whole: None,
            root: 1,
            rollout: 0,
            floor: 0,
            flags: 0,
            reports: Vec::new(),
        };
        let body = postcard::to_allocvec(&poll).expect("encodes");
        let nonce = self.clock.micros().to_string();
        let id = hex(&enrolled.device);
        agent
            .post(format!("{}/d/v1/poll", self.url))
            .header(wire::DEVICE, &id)
            .header(wire::NONCE, &nonce)
            .header(wire::SIGNATURE, wire::signature(&key, "POST", "/d/v1/poll", &nonce, &body))
            .send(&body[..])
            .expect("polled");
        id
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

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
    assert!(text.contains("r (digits): Running"), "{text}");
    site.succeeds(&start);

    let status = site.json(&["fleet", "rollout", "status", "r"]);
    assert_eq!((&status["rollout"]["phase"], &status["rollout"]["base"]), (&"Running".into(), &base.as_str().into()));
    assert!(site.succeeds(&["fleet", "rollout", "status"]).contains("Running"));
    assert!(site.succeeds(&["fleet", "rollout", "pause", "r"]).contains("Paused"));
    assert!(site.succeeds(&["fleet", "rollout", "resume", "r"]).contains("Running"));
    let (code, text) = site.fails(&["fleet", "rollout", "approve", "r", "--yes"]);
    assert_eq!(code, 8, "{text}");
    let (code, _) = {
        let output = site.run(&["fleet", "rollout", "abort", "r"]);
        (output.status.code(), ())
    };
    assert_eq!(code, Some(2), "what becomes of the devices has to be said");
    let ended = site.json(&["fleet", "rollout", "abort", "r", "--revert", "--yes"]);
    assert_eq!(ended["phase"], "RolledBack", "{ended}");
    // A watch ends with the rollout.
    let text = site.succeeds(&["fleet", "rollout", "status", "r", "--watch", "--every", "0.1"]);
    assert!(text.contains("RolledBack") && text.contains("it is rolled back"), "{text}");

    assert!(site.succeeds(&["fleet", "devices"]).contains(&ids[0]));
    assert!(site.succeeds(&["fleet", "devices", "--census"]).contains("100.0 %"));
    assert_eq!(site.json(&["fleet", "devices", &ids[3], "--set-ring", "0"])["ring"], 0);
    let laboratory = site.json(&["fleet", "devices", "--ring", "0"]);
    assert_eq!(laboratory.as_array().map(Vec::len), Some(1), "{laboratory}");
    let one = site.json(&["fleet", "devices", &ids[3]]);
    assert_eq!(one["device"]["running"], base.as_str(), "{one}");

    let audit = site.json(&["fleet", "audit", "--verify", "--limit", "5"]);
    assert_eq!(audit["entries"].as_array().map(Vec::len), Some(5), "{audit}");
    assert!(audit["verified_head"].is_string() && audit["count"].as_u64() > Some(20), "{audit}");
    assert!(site.succeeds(&["fleet", "audit"]).contains("rollout.abort"));
    assert_eq!(site.json(&["fleet", "alerts"]), Value::Array(vec![]));
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
