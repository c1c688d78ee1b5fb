//! Databases for tests: a file, and a PostgreSQL that runs as long as this process.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A place for one test's tables.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) engine: &'static str,
    pub(crate) url: String,
}

/// One of each engine that there is. What is missing is said.
pub(crate) fn all(folder: &Path) -> Vec<Database> {
    let file = folder.join("fleet.db");
    let mut all = vec![Database { engine: "sqlite", url: format!("sqlite://{}", file.display()) }];
    match postgres() {
        Ok(cluster) => all.push(cluster.fresh()),
        Err(why) => eprintln!("SKIPPED on PostgreSQL: {why}"),
    }
    all
}

struct Cluster {
    port: u16,
    /// Its shell ends the server when this process is gone, and with it the pipe.
    _shell: Mutex<Child>,
    next: AtomicU32,
}

fn postgres() -> Result<&'static Cluster, &'static str> {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start).as_ref().map_err(String::as_str)
}

fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = versions.map(|v| v.path().join("bin")).collect();
    places.sort();
    places.reverse();
    places.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    places.into_iter().find(|p| p.join("initdb").is_file() && p.join("postgres").is_file())
}

/// Somebody else than root, as whom PostgreSQL runs; nothing when this is not root.
fn user() -> Result<Option<String>, String> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if id(&["-u"]).ok_or("there is no command id")? != "0" {
        return Ok(None);
    }
    let users = ["postgres", "nobody"].into_iter().find(|u| id(&["-u", u]).is_some());
    users.map(|u| Some(u.to_owned())).ok_or_else(|| "it does not run as root, and there is nobody else".to_owned())
}

impl Cluster {
    fn start() -> Result<Self, String> {
        let bin = binaries().ok_or("initdb and postgres are not installed")?;
        let user = user()?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?.keep();
        let data = folder.join("data");
        if let Some(user) = &user {
            let done = Command::new("chown").arg(user).arg(&folder).status().map_err(|e| e.to_string())?;
            if !done.success() {
                return Err(format!("the folder could not be given to {user}"));
            }
        }
        let run = |program: &str| match &user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg("--regid").arg(group(user)).arg("--clear-groups");
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        let initdb = bin.join("initdb").display().to_string();
        let made = run(&initdb)
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(&folder)
            .output()
            .map_err(|e| format!("initdb: {e}"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let port = free_port();
        let postgres = bin.join("postgres").display().to_string();
        // The machine keeps its power in these tests; only the fleet server is killed.
        let script = r#"folder=$1; shift; "$@" >"$folder/log" 2>&1 & pid=$!; cat >/dev/null; kill -INT $pid; wait $pid; rm -rf "$folder""#;
        let mut inner = run(&postgres);
        inner.arg("-D").arg(&data);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=200",
            "shared_buffers=64MB",
            &format!("port={port}"),
        ] {
            inner.arg("-c").arg(setting);
        }
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg("sh").arg(&folder).arg(inner.get_program()).args(inner.get_args());
        let shell = shell.stdin(Stdio::piped()).current_dir("/").spawn().map_err(|e| e.to_string())?;
        let cluster = Self { port, _shell: Mutex::new(shell), next: AtomicU32::new(0) };
        let began = Instant::now();
        while !answers(port) {
            if began.elapsed() > Duration::from_secs(30) {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("postgres does not answer: {log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(cluster)
    }

    /// An empty database.
    fn fresh(&self) -> Database {
        let name = format!("t{}_{}", std::process::id(), self.next.fetch_add(1, Ordering::SeqCst));
        // The simple protocol by hand: there is no runtime here.
        query(self.port, &format!("CREATE DATABASE {name}")).expect("a database");
        Database { engine: "postgres", url: format!("postgres://postgres@127.0.0.1:{}/{name}", self.port) }
    }
}

fn group(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

fn answers(port: u16) -> bool {
    query(port, "SELECT 1").is_ok()
}

/// Sends one statement to the database `postgres` (protocol 3.0, trust authentication) and waits for its end.
pub(crate) fn query(port: u16, statement: &str) -> std::io::Result<()> {
    use std::io::Read as _;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let mut start = ((parameters.len() + 8) as u32).to_be_bytes().to_vec();
    start.extend(196_608u32.to_be_bytes());
    start.extend(parameters);
    stream.write_all(&start)?;
    let mut sent = false;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; len as usize - 4];
        stream.read_exact(&mut body)?;
        match head[0] {
            b'E' => return Err(std::io::Error::other(String::from_utf8_lossy(&body).into_owned())),
            b'Z' if sent => return Ok(()),
            b'Z' => {
                let mut message = vec![b'Q'];
                message.extend((statement.len() as u32 + 5).to_be_bytes());
                message.extend(statement.as_bytes());
                message.push(0);
                stream.write_all(&message)?;
                sent = true;
            }
            _ => {}
        }
    }
}
