//! A server in this process, and the command that is run against it.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dunlin_fleet::{Clock as _, Config, ManualClock, Role, Server, hex, wire};
use dunlin_models::find;
use dunlin_update::trust::SecretKey;
use serde_json::Value;
use tempfile::TempDir;

/// A server with a tenant, and a folder for the profile, keys and packages.
pub(crate) struct Site {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) server: Option<Server>,
    pub(crate) clock: ManualClock,
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) folder: TempDir,
}

impl Site {
    pub(crate) fn start() -> Self {
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

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command.args(arguments).env_remove("DUNLIN_FLEET_URL").env_remove("DUNLIN_FLEET_TOKEN");
        command.env("DUNLIN_FLEET_PROFILE", self.path("profile.json")).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("dunlin runs")
    }

    #[track_caller]
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {} {}", text(&output.stderr), text(&output.stdout));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        serde_json::from_str(&self.succeeds(&all)).expect("one JSON object")
    }

    /// Exit code and what was said.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().expect("not killed");
        assert!(code != 0 && code != 101, "{arguments:?} gave {code}: {text}");
        assert!(text.contains("hint"), "{arguments:?}: {text}");
        (code, text)
    }

    pub(crate) fn login(&self) {
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
    pub(crate) fn packages(&self) -> (String, String, String) {
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
            // Without golden vectors a device takes nothing for good.
            let golden = self.path(&format!("{version}.npz"));
            std::fs::write(&golden, artifact.golden).expect("written");
            let arguments = ["compile", &onnx, "-o", &out, "--name", "digits", "--version", version];
            self.succeeds(&[&arguments[..], &["--golden", &golden]].concat());
            out
        };
        (keys, package("1"), package("2"))
    }

    /// A device that says what it runs, as devices do.
    pub(crate) fn device(&self, n: u8, running: [u8; 32]) -> String {
        let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
        let key = SecretKey::from_seed([n; 32]).expect("a seed");
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
            beside: None,
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
