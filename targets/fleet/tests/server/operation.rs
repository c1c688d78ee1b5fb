//! The program as an operator meets it: its first token, its health, its log.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dunlin_update::trust::SecretKey;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::device::enrol;
use super::site::{Client, tenant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dunlin-fleet");

fn command(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--data").arg(folder.join("data")).env_remove("RUST_LOG");
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command(folder).args(arguments).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(unix)]
#[test]
fn a_token_is_written_to_a_file_of_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("installer.token");
    let name = file.to_str().expect("UTF-8");
    let made = run(folder.path(), &["token", "installer", "admin", "--output", name]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let secret = std::fs::read_to_string(&file).expect("written");
    assert!(secret.trim().len() > 40 && made.stdout.is_empty(), "{}", text(&made.stdout));
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A file that exists is left alone, and no token is made for it.
    let again = run(folder.path(), &["token", "second", "admin", "--output", name]);
    assert!(!again.status.success() && text(&again.stderr).contains("hint"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(&file).expect("there"), secret);
    let second = run(folder.path(), &["token", "second", "admin"]);
    assert!(second.status.success(), "{}", text(&second.stderr));
    // Nor is a file left of a token that cannot be made.
    let other = folder.path().join("other.token");
    let taken = run(folder.path(), &["token", "second", "admin", "--output", other.to_str().expect("UTF-8")]);
    assert!(!taken.status.success() && !other.exists(), "{}", text(&taken.stderr));
}

/// A running program and what it says.
struct Running {
    child: Child,
    address: String,
    log: std::sync::mpsc::Receiver<String>,
}

impl Running {
    fn start(folder: &Path) -> Self {
        let mut command = command(folder);
        command.args(["serve", "--listen", "127.0.0.1:0", "--tick", "50"]).env("NO_COLOR", "1");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on http://").expect("a link").to_owned();
        let (sender, log) = std::sync::mpsc::channel();
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        std::thread::spawn(move || errors.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, address, log }
    }

    /// Lines of the log until one has all of these words.
    fn until(&self, words: &[&str]) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(60);
        let mut lines = Vec::new();
        while let Ok(line) = self.log.recv_timeout(end.saturating_duration_since(Instant::now())) {
            let is_it = words.iter().all(|word| line.contains(word));
            lines.push(line);
            if is_it {
                return lines;
            }
        }
        panic!("no line with {words:?}: {lines:#?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn health_is_that_of_the_server_on_this_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = Running::start(folder.path());
    let address = running.address.clone();
    let asked = run(folder.path(), &["health", "--listen", &address]);
    assert!(asked.status.success() && text(&asked.stdout) == "ready\n", "{}", text(&asked.stderr));
    running.child.kill().expect("killed");
    running.child.wait().expect("gone");
    let asked = run(folder.path(), &["health", "--listen", &address]);
    assert!(!asked.status.success() && text(&asked.stderr).contains("no answer"), "{}", text(&asked.stderr));
}

#[test]
fn the_log_has_what_operators_do_and_counts_enrolments() {
    let folder = tempfile::tempdir().expect("a folder");
    let system = text(&run(folder.path(), &["token", "installer", "admin"]).stdout).trim().to_owned();
    let running = Running::start(folder.path());
    let client = Client::new(running.address.parse().expect("an address"));
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let webhook = json!({ "webhook": "https://alerts.example/secret-of-the-hook" });
        let tenant = tenant(&client, &system, "acme", 1, webhook).await;
        for n in 1..=5 {
            let key = SecretKey::from_seed([n; 32]).expect("a seed");
            assert_eq!(enrol(&client, &tenant.enrol, &key).await.status, StatusCode::OK);
        }
        client.call("POST", "/v1/rollouts/none/start", &tenant.operator, Value::Null).await.refused(404);
        client.call("DELETE", "/v1/tokens/acme-viewer", &tenant.admin, Value::Null).await.ok();
    });
    let lines = running.until(&["token.revoke", "acme-viewer", "actor=\"acme-admin\""]);
    let enrolled = |lines: &[String]| -> u32 {
        let counts = lines
            .iter()
            .filter(|line| line.contains("enrolled"))
            .filter_map(|line| line.split("devices=").nth(1)?.split(' ').next()?.parse::<u32>().ok());
        counts.sum()
    };
    let has = |lines: &[String], words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
    // Tenants come one after the other: what the installation did to its own is logged after what this one did.
    let mut all = lines;
    while enrolled(&all) < 5 {
        all.extend(running.until(&["enrolled"]));
    }
    if !has(&all, &["tenant.put", "acme"]) {
        all.extend(running.until(&["tenant.put", "acme"]));
    }
    assert_eq!(enrolled(&all), 5);
    assert!(has(&all, &["token.create", "acme-enrol"]) && has(&all, &["root.put"]), "{all:#?}");
    assert!(!has(&all, &["secret-of-the-hook"]), "{all:#?}");
    assert!(
        !has(&all, &["device.enrol"]) && !has(&all, &["rollout.start"]),
        "no line each, nothing that failed: {all:#?}"
    );
}
