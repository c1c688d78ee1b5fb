//! The gateway's program: a thin shell around the library.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use dunlin_gateway::config::{Config, SerialLine};
use dunlin_gateway::{Backoff, Site, Status, line, own};

/// How long requests may go on after the program was told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How often the status is written.
const EVERY: Duration = Duration::from_secs(5);
/// After which a line that says nothing is closed: longer than children are told to wait.
const SILENCE: Duration = Duration::from_secs(3600);

/// Carries updates, flags and reports between a fleet server and devices that do not speak HTTPS
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration; targets/gateway/gateway.toml is one with all that there is
    #[arg(long, global = true, env = "DUNLIN_GATEWAY_CONFIG", default_value = "/etc/dunlin-gateway/gateway.toml")]
    config: PathBuf,
    /// Logs as JSON
    #[arg(long, global = true, env = "DUNLIN_GATEWAY_LOG_JSON")]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves children until SIGINT or SIGTERM
    Run {
        /// Delivers what waits, has the gateway's own model check in and take what is offered, and ends
        #[arg(long)]
        once: bool,
    },
    /// How the gateway that runs is doing
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Says what is wrong with the configuration, if anything
    Check,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if arguments.log_json {
        logs.json().init()
    } else {
        logs.init()
    }
    let done = Config::read(&arguments.config).map_err(Into::into).and_then(|config| match arguments.command {
        Command::Run { once: false } => run(&config),
        Command::Run { once: true } => once(&config),
        Command::Status { json } => status(&config, json),
        Command::Check => check(&config),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlin-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn Error>>;

fn check(config: &Config) -> Done {
    config.site()?;
    if let Some(own) = config.own()? {
        own.check()?;
    }
    writeln!(io::stdout(), "the configuration can be used")?;
    Ok(())
}

fn once(config: &Config) -> Done {
    let own = config.own()?;
    let site = Site::open(config.site()?)?;
    if let Some(own) = own {
        own.once(&site, &config.state)?;
    }
    let delivered = site.deliver();
    write_status(config, &site)?;
    delivered.map_err(|error| format!("{error}; {} reports still wait", site.status().reports))?;
    Ok(())
}

fn status(config: &Config, json: bool) -> Done {
    let path = status_file(&config.state);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("{} cannot be read: {e}; has the gateway run with this configuration?", path.display()))?;
    let status: Status = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
    } else {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        writeln!(out, "as of      {} s ago, process {}", now.saturating_sub(status.time), status.pid)?;
        write!(out, "{status}")?;
    }
    Ok(())
}

fn status_file(state: &Path) -> PathBuf {
    state.join("status.json")
}

fn write_status(config: &Config, site: &Site) -> io::Result<()> {
    let path = status_file(&config.state);
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_string_pretty(&site.status())?)?;
    std::fs::rename(fresh, path)
}

fn run(config: &Config) -> Done {
    let own = config.own()?;
    if let Some(own) = &own {
        own.check()?;
    }
    let site = Site::open(config.site()?)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let workers = site.start(config.workers);
    let lines =
        Lines { site: site.clone(), stopping: stopping.clone(), open: Arc::default(), most: config.children.max };
    if let Some(address) = config.children.listen {
        let listener = TcpListener::bind(address)
            .map_err(|e| format!("{address} cannot be listened on: {e}; change children.listen"))?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "children's lines are not encrypted: keep this network to itself");
        }
        writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
        let lines = lines.clone();
        std::thread::spawn(move || lines.accept(&listener));
    }
    for serial in config.serial.clone() {
        let lines = lines.clone();
        std::thread::spawn(move || lines.attend(&serial));
    }
    let model = own.map(|own| -> Result<_, Box<dyn Error>> {
        let (applications, requests) = own::applications(own.memory);
        if let Some(address) = config.model.as_ref().and_then(|m| m.listen) {
            let listener = TcpListener::bind(address)
                .map_err(|e| format!("{address} cannot be listened on: {e}; change model.listen"))?;
            writeln!(io::stdout(), "applications on {}", listener.local_addr()?)?;
            std::thread::spawn(move || applications.serve(&listener));
        }
        let (site, state, stopping) = (site.clone(), config.state.clone(), stopping.clone());
        Ok(std::thread::spawn(move || {
            let go_on = || !stopping.load(Ordering::SeqCst);
            if let Err(error) = own.run(&site, &state, requests, &go_on) {
                tracing::error!(%error, "the gateway's own model does not run");
            }
        }))
    });
    let model = model.transpose()?;
    let told = told_to_stop()?;
    loop {
        if let Err(error) = write_status(config, &site) {
            tracing::warn!(%error, "the status cannot be written");
        }
        match told.recv_timeout(EVERY) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            _ => break,
        }
    }
    tracing::info!("stopping");
    stopping.store(true, Ordering::SeqCst);
    if let Some(model) = model {
        let _ = model.join();
    }
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        workers.stop();
        let _ = sender.send(());
    });
    if ended.recv_timeout(GRACE).is_err() {
        tracing::warn!("a request did not end in time; what it was to tell is told after the next start");
    }
    // Lines look up twice a second.
    let until = Instant::now() + Duration::from_secs(2);
    while lines.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    write_status(config, &site)?;
    Ok(())
}

/// SIGINT and SIGTERM.
#[cfg(unix)]
fn told_to_stop() -> io::Result<mpsc::Receiver<()>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let (sender, told) = mpsc::channel();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let _ = sender.send(());
        }
    });
    Ok(told)
}

#[cfg(not(unix))]
fn told_to_stop() -> io::Result<mpsc::Receiver<()>> {
    // It is ended by force, which it survives.
    let (sender, told) = mpsc::channel();
    std::mem::forget(sender);
    Ok(told)
}

/// The children's lines.
#[derive(Clone)]
struct Lines {
    site: Arc<Site>,
    stopping: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    most: usize,
}

impl Lines {
    fn go_on(&self) -> bool {
        !self.stopping.load(Ordering::SeqCst)
    }

    fn accept(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if !self.go_on() {
                return;
            }
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of file descriptors, perhaps: some will be free again.
                    tracing::warn!(%error, "a child could not connect");
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if self.open.load(Ordering::SeqCst) >= self.most {
                tracing::warn!(most = self.most, "a line too many is closed: raise children.max");
                continue;
            }
            self.open.fetch_add(1, Ordering::SeqCst);
            let lines = self.clone();
            let line = move || {
                if let Err(error) = lines.socket(&stream) {
                    tracing::debug!(%error, "a line ended");
                }
                lines.open.fetch_sub(1, Ordering::SeqCst);
            };
            if let Err(error) = std::thread::Builder::new().stack_size(256 << 10).spawn(line) {
                self.open.fetch_sub(1, Ordering::SeqCst);
                tracing::warn!(%error, "no thread for a child");
            }
        }
    }

    fn socket(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut port = Timed { stream, heard: Instant::now() };
        line::serve(&mut port, &mut self.site.bridge(), &|| self.go_on())?;
        Ok(())
    }

    /// Serves a serial device, and waits for it while it is not there.
    fn attend(&self, serial: &SerialLine) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut said = None;
        while self.go_on() {
            let ended = self.device(serial, &mut backoff);
            let told = ended.as_ref().err().map(ToString::to_string);
            if let Some(error) = &told
                && told != said
            {
                tracing::warn!(device = %serial.path.display(), %error, "waiting for the serial device");
            }
            said = told.or(said);
            if self.go_on() {
                std::thread::sleep(backoff.next(None));
            }
        }
    }

    #[cfg(unix)]
    fn device(&self, serial: &SerialLine, backoff: &mut Backoff) -> io::Result<()> {
        let mut port = dunlin_gateway::serial::Serial::open(&serial.path, serial.baud)?;
        tracing::info!(device = %serial.path.display(), baud = serial.baud, "open");
        backoff.reset();
        match line::serve(&mut port, &mut self.site.bridge(), &|| self.go_on())? {
            line::End::Closed => Err(io::Error::other("the device went away")),
            line::End::Stopped => Ok(()),
        }
    }

    #[cfg(not(unix))]
    fn device(&self, _: &SerialLine, _: &mut Backoff) -> io::Result<()> {
        Err(io::Error::other("serial devices are served on Unix only: let the child connect over TCP"))
    }
}

/// A socket that is closed when nothing was heard on it for long: the other end may be gone without a word.
struct Timed<'s> {
    stream: &'s TcpStream,
    heard: Instant,
}

impl line::Port for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        use std::io::Read as _;
        match self.stream.read(into) {
            Ok(n) => {
                self.heard = Instant::now();
                Ok(n)
            }
            Err(_) if self.heard.elapsed() > SILENCE => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}
