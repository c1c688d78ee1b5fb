//! The gateway's own program: started, killed, asked to stop.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dunlin_fleet::config::Tls;
use dunlin_fleet::hex;
use dunlin_gateway::Status;
use serde_json::json;

use super::child::{Child, Way};
use super::fleet::{Fleet, slow};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dunlin-gateway");

/// A running gateway.
struct Gateway {
    process: Process,
    address: SocketAddr,
    out: BufReader<ChildStdout>,
}

/// The address on the next line.
fn address(out: &mut BufReader<ChildStdout>, before: &str) -> SocketAddr {
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    line.trim().strip_prefix(before).expect("an address").parse().expect("an address")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes a configuration; `more` comes at its end.
fn configure(folder: &Path, server: &str, token: &str, port: u16, more: &str) -> PathBuf {
    std::fs::create_dir_all(folder).expect("a folder");
    let (file, token_file) = (folder.join("gateway.toml"), folder.join("token"));
    std::fs::write(&token_file, format!("{token}\n")).expect("written");
    let text = format!(
        "server = {server:?}\nstate = {:?}\ntoken_file = {token_file:?}\nworkers = 2\n\
         [children]\nlisten = \"127.0.0.1:{port}\"\ntarget = \"sim\"\n{more}",
        folder.join("state")
    );
    std::fs::write(&file, text).expect("written");
    file
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--config").arg(config).env("RUST_LOG", "warn");
    command
}

impl Gateway {
    fn start(config: &Path) -> Self {
        let mut process = command(config).arg("run").stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut out = BufReader::new(process.stdout.take().expect("a pipe"));
        let address = address(&mut out, "listening on ");
        Self { process, address, out }
    }

    /// SIGTERM; how it ended.
    fn stop(mut self) -> std::process::ExitStatus {
        Command::new("kill").arg(self.process.id().to_string()).status().expect("SIGTERM");
        self.process.wait().expect("it ends")
    }
}

fn run(config: &Path, arguments: &[&str]) -> (Output, String, String) {
    let output = command(config).args(arguments).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

/// Numbers that look random.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// `DUNLIN_GATEWAY_KILLS` says how often; without it a few times.
#[test]
fn a_kill_at_any_moment_loses_no_report_and_no_download() {
    let kills: u32 = std::env::var("DUNLIN_GATEWAY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(&folder.path().join("fleet"), 1);
    let package = fleet.publish(1, 1_500_000);
    fleet.roll_out("r", &package, None, 100);
    let gateway = folder.path().join("gateway");
    // A network on which the package takes a few seconds.
    let config = configure(&gateway, &slow(&fleet.url, 500_000), &fleet.enrol, 0, "");
    let part = gateway.join("state/artifacts").join(format!("{}.part", hex(&package.hash)));
    let (mut had, mut cut) = (0, 0);
    let mut children: Vec<Child> = (0..3)
        .map(|n| Child::new(&format!("child {n}"), &folder.path().join(format!("slots {n}")), fleet.root))
        .collect();
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ u64::from(std::process::id());
    let mut stored = vec![0u32; children.len()];
    let mut resumed = 0;
    for round in 0..=kills {
        let gateway = Gateway::start(&config);
        let address = gateway.address;
        let last = round == kills;
        let (mut kept, mut killer) = (None, None);
        if last {
            kept = Some(gateway);
        } else {
            // At a moment that has nothing to do with what happens.
            let delay = Duration::from_micros(random(&mut state) % 900_000);
            killer = Some(std::thread::spawn(move || {
                std::thread::sleep(delay);
                // SIGKILL.
                drop(gateway);
            }));
        }
        let until = Instant::now() + Duration::from_secs(90);
        std::thread::scope(|scope| {
            let live = children.iter_mut().zip(&mut stored).map(|(child, stored)| {
                scope.spawn(move || {
                    child.connect(address);
                    let (mut resumed, mut more) = (0, 5);
                    // Until the gateway is gone; in the last life until all is done.
                    while !last || child.running().is_none() || more > 0 {
                        assert!(Instant::now() < until, "nothing comes of it");
                        let Some(news) = child.try_check_in() else { return resumed };
                        // What is not answered is offered again.
                        if !child.report(1, *stored) {
                            return resumed;
                        }
                        *stored += 1;
                        more -= i32::from(child.running().is_some());
                        let Some(offer) = news.offer else {
                            std::thread::sleep(Duration::from_millis(20));
                            continue;
                        };
                        if child.accept(&offer).is_none() {
                            continue;
                        }
                        let whole = child.fetch_some(&offer, 100);
                        resumed += u32::from(child.first.is_some_and(|at| at > 0));
                        if whole == Some(true) {
                            child.keep();
                        }
                    }
                    resumed
                })
            });
            let live: Vec<_> = live.collect();
            resumed += live.into_iter().map(|l| l.join().expect("a child's life")).sum::<u32>();
        });
        match killer {
            Some(killer) => {
                killer.join().expect("killed");
                // What the gateway has of the package does not get less.
                let has = std::fs::metadata(&part).map_or(0, |m| m.len());
                let whole = part.with_extension("").exists();
                assert!(whole || has >= had, "{has} bytes after {had}");
                cut += u32::from(has > 0 && !whole);
                had = if whole { 0 } else { has };
            }
            None => {
                // All that was acknowledged reaches the server.
                let read = || -> Status {
                    let text = run(&config, &["status", "--json"]).1;
                    serde_json::from_str(&text).expect("a status")
                };
                let until = Instant::now() + Duration::from_secs(90);
                loop {
                    let status = read();
                    if status.children.len() == children.len()
                        && status.reports == 0
                        && status.children.iter().all(|c| c.device.is_some())
                        && status.polls > 0
                    {
                        for (child, stored) in status.children.iter().zip(&stored) {
                            let seen = fleet.device(child.device.as_deref().expect("enrolled"));
                            let told = (&seen["boot"], &seen["seq"], &seen["missed"]);
                            assert_eq!(told, (&json!(1), &json!(stored - 1), &json!(0)), "{seen}");
                        }
                        break;
                    }
                    assert!(Instant::now() < until, "{status}");
                    std::thread::sleep(Duration::from_millis(500));
                }
            }
        }
        drop(kept);
        children.iter_mut().for_each(|c| c.way = Way::Nowhere);
    }
    assert!(children.iter().all(|c| c.running() == Some(package.digest)));
    let sent = fleet.metric("dunlin_fleet_artifact_bytes_total");
    println!(
        "{kills} kills, {stored:?} reports, {cut} downloads of the gateway and {resumed} of children cut; \
         the server sent {:.2} packages",
        sent / package.bytes.len() as f64
    );
    assert!(cut > 0 && resumed > 0, "no download went on where it was: {cut}, {resumed}");
    // Of what was under way at a kill a request at most is fetched again.
    assert!(sent <= (package.bytes.len() + cut as usize * (512 << 10)) as f64, "{sent} bytes");
    fleet.stop();
}

#[test]
fn it_stops_in_order_and_says_how_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let config = configure(&folder.path().join("gateway"), &fleet.url, &fleet.enrol, 0, "");
    assert_eq!(run(&config, &["check"]).1.trim(), "the configuration can be used");
    let (output, _, error) = run(&config, &["status"]);
    assert!(!output.status.success() && error.contains("has the gateway run"), "{error}");
    let gateway = Gateway::start(&config);
    let mut child = Child::new("c", &folder.path().join("slots"), fleet.root);
    child.connect(gateway.address);
    child.check_in();
    assert!(child.report(4, 2));
    // A second one on the same folder would write over the first.
    let (output, _, error) = run(&config, &["run"]);
    assert!(!output.status.success() && error.contains("another process"), "{error}");
    assert!(gateway.stop().success());
    let status: Status = serde_json::from_str(&run(&config, &["status", "--json"]).1).expect("a status");
    let told = status.children.first().map(|c| (c.identity.as_str(), c.model.as_deref(), c.phase.as_deref()));
    assert_eq!(told, Some(("c", Some("m"), Some("idle"))));
    assert!(run(&config, &["status"]).1.contains("child      c: runs nothing, idle"));
    // What still waits is delivered by hand.
    let (output, _, error) = run(&config, &["run", "--once"]);
    assert!(output.status.success(), "{error}");
    let status: Status = serde_json::from_str(&run(&config, &["status", "--json"]).1).expect("a status");
    assert_eq!(status.reports, 0);
    let seen = fleet.device(status.children.first().and_then(|c| c.device.as_deref()).expect("enrolled"));
    assert_eq!((&seen["boot"], &seen["seq"]), (&json!(4), &json!(2)));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = |name: &str, text: &str, arguments: &[&str]| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("written");
        let (output, _, error) = run(&file, arguments);
        assert_eq!(output.status.code(), Some(1), "{error}");
        error
    };
    let missing = run(&folder.path().join("none.toml"), &["check"]).2;
    assert!(missing.contains("none.toml"), "{missing}");
    let state = folder.path().join("state");
    let error = told("address.toml", &format!("server = \"fleet.example\"\nstate = {state:?}\n"), &["check"]);
    assert!(error.contains("https://HOST"), "{error}");
    let ca = format!("server = \"https://fleet.example\"\nstate = {state:?}\n[tls]\nca = \"/nonexistent/ca.pem\"\n");
    assert!(told("ca.toml", &ca, &["check"]).contains("/nonexistent/ca.pem"));
    // Nobody listens on port 1: reports wait, and it says so.
    let fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let config = configure(&folder.path().join("away"), "http://127.0.0.1:1", &fleet.enrol, 0, "");
    let gateway = Gateway::start(&config);
    let mut child = Child::new("c", &folder.path().join("slots"), fleet.root);
    child.connect(gateway.address);
    child.check_in();
    assert!(child.report(1, 1));
    assert!(gateway.stop().success());
    let (output, _, error) = run(&config, &["run", "--once"]);
    assert!(!output.status.success() && error.contains("did not answer") && error.contains("1 reports"), "{error}");
}

/// HTTPS with an authority of one's own, and a server that asks for client certificates.
#[test]
fn over_tls_with_an_own_authority_and_a_client_certificate() {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&ca_key).expect("signed");
    let issuer = Issuer::new(params, ca_key);
    std::fs::write(path("ca.pem"), ca.pem()).expect("written");
    let issue = |name: &str, file: &str, usage| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        std::fs::write(path(&format!("{file}.pem")), certificate.pem()).expect("written");
        std::fs::write(path(&format!("{file}.key")), key.serialize_pem()).expect("written");
    };
    issue("127.0.0.1", "server", ExtendedKeyUsagePurpose::ServerAuth);
    issue("gateway", "client", ExtendedKeyUsagePurpose::ClientAuth);
    let mut fleet = Fleet::start(&path("fleet"), 60);
    fleet.stop();
    let client_ca = Some(path("ca.pem"));
    fleet.resume(Some(Tls { cert: path("server.pem"), key: path("server.key"), client_ca }));
    let url = fleet.url.replace("http:", "https:");
    let tls = format!(
        "[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    let config = configure(&path("gateway"), &url, &fleet.enrol, 0, &tls);
    let gateway = Gateway::start(&config);
    let mut child = Child::new("c", &path("slots"), fleet.root);
    child.connect(gateway.address);
    child.check_in();
    assert!(child.report(1, 1));
    drop(gateway);
    let (output, _, error) = run(&config, &["run", "--once"]);
    assert!(output.status.success(), "{error}");
    let status: Status = serde_json::from_str(&run(&config, &["status", "--json"]).1).expect("a status");
    assert_eq!(status.reports, 0, "{status}");

    // Without the authority nothing is said to whoever answers there.
    let config = configure(&path("other"), &url, &fleet.enrol, 0, "");
    let gateway = Gateway::start(&config);
    child.connect(gateway.address);
    child.check_in();
    assert!(child.report(1, 2));
    drop(gateway);
    let (output, _, error) = run(&config, &["run", "--once"]);
    assert!(!output.status.success() && error.contains("certificate"), "{error}");
}

/// A model of the gateway's own and what applications do with it.
struct Modelled {
    bytes: Vec<u8>,
    name: String,
    target: String,
    input: Vec<u8>,
}

impl Modelled {
    fn new() -> Self {
        use dunlin_engine::{Model, ops};
        use dunlin_kernels::Scalar;
        use dunlin_package::Package;
        let bytes = include_bytes!("../../../../firmware-examples/recorder/data/kws.dunlin").to_vec();
        // The engine wants packages at a multiple of 16.
        let mut room = vec![0; bytes.len() + 16];
        let skip = room.as_ptr().align_offset(16);
        room[skip..skip + bytes.len()].copy_from_slice(&bytes);
        let package = Package::open(&room[skip..skip + bytes.len()]).expect("opens");
        let model = Model::load(&package, ops::all::<Scalar>()).expect("loads");
        let (name, target) = (package.manifest().name.to_owned(), package.manifest().target.to_owned());
        let input = vec![0; model.plan().input(0).and_then(|id| model.plan().tensor(id)).expect("an input").bytes()];
        Self { bytes, name, target, input }
    }

    /// The section of the configuration.
    fn section(&self, fleet: &Fleet, folder: &std::path::Path) -> String {
        let (name, target, root) = (&self.name, &self.target, folder.join("root"));
        std::fs::write(&root, &fleet.root_document).expect("written");
        format!(
            "[model]\nidentity = \"gateway\"\nname = {name:?}\ntarget = {target:?}\nroot = {root:?}\n\
             listen = \"127.0.0.1:0\"\ntrial = {{ inferences = 5 }}\n"
        )
    }
}

/// One inference: how it was served, by what, and the outputs.
fn ask(line: &mut TcpStream, input: &[u8]) -> (u8, Vec<u8>, Vec<u8>) {
    line.write_all(&(input.len() as u32).to_le_bytes()).expect("sent");
    line.write_all(input).expect("sent");
    let mut head = [0; 37];
    line.read_exact(&mut head).expect("an answer");
    let mut outputs = vec![0; u32::from_le_bytes(head[33..].try_into().expect("four")) as usize];
    line.read_exact(&mut outputs).expect("outputs");
    (head[0], head[1..33].to_vec(), outputs)
}

/// A model of the gateway's own, whose inferences an application asks for.
#[test]
fn it_runs_a_model_of_its_own_and_has_it_updated() {
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(&folder.path().join("fleet"), 1);
    let model = Modelled::new();
    let input = &model.input;
    let published = fleet.publish_bytes(1, model.bytes.clone());
    let section = model.section(&fleet, folder.path());
    let config = configure(&folder.path().join("gateway"), &fleet.url, &fleet.enrol, 0, &section);
    let mut gateway = Gateway::start(&config);
    let mut line = TcpStream::connect(address(&mut gateway.out, "applications on ")).expect("a line");
    assert_eq!(ask(&mut line, input).0, 1, "there is no package yet");
    fleet.roll_out("r", &published, None, 100);
    let until = Instant::now() + Duration::from_secs(60);
    let mut served = 0;
    let first = loop {
        let (status, digest, outputs) = ask(&mut line, input);
        if status == 0 {
            assert_eq!(digest, published.digest);
            served += 1;
            if served == 8 {
                break outputs;
            }
        }
        assert!(Instant::now() < until, "{}", run(&config, &["status"]).1);
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(!first.is_empty());
    let (status, ..) = ask(&mut line, &input[1..]);
    assert_eq!(status, 3, "inputs of another length");
    let id = loop {
        let listed = fleet.call("GET", "/v1/devices", serde_json::Value::Null);
        let seen = &listed[0];
        if seen["last_outcome"] == "Confirmed" {
            assert_eq!(seen["running"], published.id());
            break seen["id"].as_str().expect("an id").to_owned();
        }
        assert!(Instant::now() < until, "{listed}");
        std::thread::sleep(Duration::from_millis(200));
    };
    // What it measured is handed over at its end, and delivered.
    assert!(gateway.stop().success());
    let (output, _, error) = run(&config, &["run", "--once"]);
    assert!(output.status.success(), "{error}");
    assert_eq!(fleet.device(&id)["boot"], 1);
    // After a start the same model runs, with the server or without.
    drop(fleet);
    let mut gateway = Gateway::start(&config);
    let mut line = TcpStream::connect(address(&mut gateway.out, "applications on ")).expect("a line");
    assert_eq!(ask(&mut line, input), (0, published.digest.to_vec(), first));
    assert!(gateway.stop().success());
}

/// Without a process that stays: one round checks in, fetches and starts what is offered, and tells so.
#[test]
fn once_is_a_whole_round_for_its_own_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(&folder.path().join("fleet"), 60);
    let model = Modelled::new();
    let section = model.section(&fleet, folder.path());
    let config = configure(&folder.path().join("gateway"), &fleet.url, &fleet.enrol, 0, &section);
    let once = || run(&config, &["run", "--once"]);
    let seen = || {
        let mut listed = fleet.call("GET", "/v1/devices", serde_json::Value::Null);
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
        listed[0].take()
    };
    let (output, _, error) = once();
    assert!(output.status.success(), "{error}");
    let first = seen();
    assert_eq!((&first["phase"], &first["model"]), (&json!("Idle"), &json!(model.name)), "{first}");
    let published = fleet.publish_bytes(1, model.bytes.clone());
    fleet.roll_out("r", &published, None, 100);
    let (output, _, error) = once();
    assert!(output.status.success(), "{error}");
    let then = seen();
    assert_eq!(
        (&then["id"], &then["phase"], &then["running"]),
        (&first["id"], &json!("Trial"), &json!(published.id())),
        "{then}"
    );
    // The next round changes nothing: applications are missing.
    assert!(once().0.status.success());
    assert_eq!(seen()["phase"], "Trial");
    let mut gateway = Gateway::start(&config);
    let mut line = TcpStream::connect(address(&mut gateway.out, "applications on ")).expect("a line");
    for n in 0..8 {
        let (status, digest, _) = ask(&mut line, &model.input);
        assert_eq!((status, &digest[..]), (0, &published.digest[..]), "inference {n}");
    }
    assert!(gateway.stop().success());
    let (output, _, error) = once();
    assert!(output.status.success(), "{error}");
    let end = seen();
    assert_eq!((&end["running"], &end["last_outcome"]), (&json!(published.id()), &json!("Confirmed")), "{end}");
    // A server that is away is told, also when no report waits.
    fleet.stop();
    let (output, _, error) = once();
    assert!(!output.status.success() && error.contains("did not answer"), "{error}");
}
