//! The fleet server's command.

mod health;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dunlin_fleet::store::{Store, audit};
use dunlin_fleet::{Config, Role, Server, SystemClock, backup, config};

/// As `std::println!`, without a panic when the reader of standard output is gone: a server goes on.
macro_rules! println {
    ($($argument:tt)*) => {{
        let text = format!("{}\n", format_args!($($argument)*));
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    }};
}

/// Dunlin's fleet server.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Place {
    /// Folder of the database, artifacts and keys, for what is not named apart.
    #[arg(long, env = "DUNLIN_FLEET_DATA", default_value = "fleet", global = true)]
    data: PathBuf,
    /// sqlite://PATH or postgres://USER:PASSWORD@HOST/NAME.
    #[arg(long, env = "DUNLIN_FLEET_DATABASE", global = true)]
    database: Option<String>,
    /// A folder, or s3://BUCKET/PREFIX.
    #[arg(long, env = "DUNLIN_FLEET_ARTIFACTS", global = true)]
    artifacts: Option<String>,
    /// Folder of the tenants' rollout keys; the same for all replicas.
    #[arg(long, env = "DUNLIN_FLEET_KEYS", global = true)]
    keys: Option<PathBuf>,
    /// Connections to the database.
    #[arg(long, env = "DUNLIN_FLEET_CONNECTIONS", default_value_t = 16, global = true)]
    connections: u32,
}

#[derive(Subcommand)]
enum Command {
    /// Serve devices and operators until SIGINT or SIGTERM.
    Serve(Serve),
    /// Bring the tables to this version.
    Migrate,
    /// Make a token and print its secret.
    Token {
        /// The tenant; `system` for the installation's administrators.
        #[arg(long, default_value = "system")]
        tenant: String,
        /// Its name in the audit log.
        name: String,
        /// What its owner may do.
        #[arg(value_enum)]
        role: Kind,
        /// Write the secret to a new file that only its owner reads.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Ask the server on this machine whether it is ready.
    Health {
        /// Where it listens.
        #[arg(long, env = "DUNLIN_FLEET_LISTEN", default_value = "127.0.0.1:8480")]
        listen: SocketAddr,
        /// The server serves HTTPS: only ask whether it accepts connections.
        #[arg(long, env = "DUNLIN_FLEET_TLS_CERT")]
        tls_cert: Option<PathBuf>,
    },
    /// Write a copy of an SQLite database, artifacts and keys into a new folder, while the server runs.
    Backup {
        /// The folder.
        to: PathBuf,
    },
    /// Put a backup in place of nothing: the data folder has to be empty.
    Restore {
        /// The backup's folder.
        from: PathBuf,
    },
    /// Look at the audit log.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Check every tenant's chain of hashes, and print its head.
    Verify,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Enrol,
    Viewer,
    Operator,
    Approver,
    Admin,
}

#[derive(Args)]
struct Serve {
    /// Where to listen.
    #[arg(long, env = "DUNLIN_FLEET_LISTEN", default_value = "127.0.0.1:8480")]
    listen: SocketAddr,
    /// Certificate chain, PEM: serve HTTPS.
    #[arg(long, env = "DUNLIN_FLEET_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, env = "DUNLIN_FLEET_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Who signs devices' certificates, PEM.
    #[arg(long, env = "DUNLIN_FLEET_CLIENT_CA", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Bytes that a package may have.
    #[arg(long, env = "DUNLIN_FLEET_MAX_ARTIFACT", default_value_t = 256 << 20)]
    max_artifact: usize,
    /// An OpenTelemetry collector that gets the fleet's metrics by the hour, such as http://127.0.0.1:4318.
    #[arg(long, env = "DUNLIN_FLEET_OTLP")]
    otlp: Option<String>,
    /// Serve all tenants' metrics here too, without a token.
    #[arg(long, env = "DUNLIN_FLEET_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Let tenants' webhooks be on this machine or in private networks.
    #[arg(long, env = "DUNLIN_FLEET_WEBHOOK_INTERNAL")]
    webhook_internal: bool,
    /// Milliseconds between looks at rollouts.
    #[arg(long, env = "DUNLIN_FLEET_TICK", default_value_t = 10_000)]
    tick: u64,
    /// Seconds that requests have to end in when the server stops.
    #[arg(long, env = "DUNLIN_FLEET_GRACE", default_value_t = 20)]
    grace: u64,
    /// Log as JSON.
    #[arg(long, env = "DUNLIN_FLEET_LOG_JSON")]
    log_json: bool,
}

impl Place {
    fn config(&self) -> Config {
        let mut config = Config::in_folder(&self.data);
        config.database = self.database.clone().unwrap_or(config.database);
        config.artifacts = self.artifacts.clone().unwrap_or(config.artifacts);
        config.keys = self.keys.clone().unwrap_or(config.keys);
        config.connections = self.connections;
        config
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(code) => code,
        Err(text) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let config = arguments.place.config();
    match arguments.command {
        Command::Restore { from } => {
            backup::restore(&from, &arguments.place.data)?;
            println!("restored; start the server with --data {}", arguments.place.data.display());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Serve(serve) => return run_server(config, serve, &arguments.place.data).await,
        Command::Health { listen, tls_cert } => {
            health::check(listen, tls_cert.is_some())?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    prepare(&arguments.place.data)?;
    let store = Store::open(&config.database, 2).await.map_err(|e| format!("the database cannot be used: {e}"))?;
    let failed = |e: sqlx::Error| format!("the database refused: {e}");
    let code = match arguments.command {
        Command::Migrate => {
            store.migrate().await.map_err(failed)?;
            ExitCode::SUCCESS
        }
        Command::Token { tenant, name, role, output } => {
            store.migrate().await.map_err(failed)?;
            let role = match role {
                Kind::Enrol => Role::Enrol,
                Kind::Viewer => Role::Viewer,
                Kind::Operator => Role::Operator,
                Kind::Approver => Role::Approver,
                Kind::Admin => Role::Admin,
            };
            // The file first: a secret that cannot be written is lost.
            let file = output.as_deref().map(new_private_file).transpose()?;
            let made = Server::make_token(&store, &tenant, &name, role, &SystemClock).await;
            match (file, made) {
                (Some((path, mut file)), Ok(secret)) => {
                    writeln!(file, "{secret}").map_err(|e| format!("{}: {e}", path.display()))?;
                    eprintln!("token of {name} written to {}", path.display());
                }
                (None, Ok(secret)) => println!("{secret}"),
                (file, Err(error)) => {
                    if let Some((path, _)) = file {
                        // The error that counts is the one of the token.
                        let _ = std::fs::remove_file(path);
                    }
                    return Err(error.to_string());
                }
            }
            ExitCode::SUCCESS
        }
        Command::Backup { to } => {
            let bucket = backup::backup(&store, &config, &to).await?;
            println!("written to {}", to.display());
            if let Some(bucket) = bucket {
                println!("artifacts stay in {bucket}: save it with its provider's tools, after this copy");
            }
            ExitCode::SUCCESS
        }
        Command::Audit { command: AuditCommand::Verify } => {
            let mut code = ExitCode::SUCCESS;
            for tenant in audit::tenants(&store).await.map_err(failed)? {
                match audit::verify(&store, &tenant).await.map_err(failed)? {
                    audit::Chain::Whole { entries, head } => println!("{tenant}: {entries} entries, head {head}"),
                    audit::Chain::Broken { at } => {
                        println!("{tenant}: BROKEN at entry {at}");
                        code = ExitCode::FAILURE;
                    }
                }
            }
            code
        }
        Command::Serve(_) | Command::Restore { .. } | Command::Health { .. } => ExitCode::SUCCESS,
    };
    store.close().await;
    Ok(code)
}

/// Creates a file that only its owner reads.
///
/// # Errors
/// When it exists or cannot be created.
fn new_private_file(path: &Path) -> Result<(&Path, File), String> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::AlreadyExists => "\n  hint: name a file that does not exist yet",
            _ => "",
        };
        format!("{}: {e}{hint}", path.display())
    })?;
    Ok((path, file))
}

fn prepare(data: &std::path::Path) -> Result<(), String> {
    dunlin_fleet::private_folder(data)
        .map_err(|e| format!("the folder {} cannot be made its owner's alone: {e}", data.display()))
}

async fn run_server(mut config: Config, serve: Serve, data: &std::path::Path) -> Result<ExitCode, String> {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if serve.log_json {
        log.json().init()
    } else {
        log.init()
    }
    prepare(data)?;
    config.listen = serve.listen;
    config.max_artifact = serve.max_artifact;
    config.otlp = serve.otlp;
    config.metrics_listen = serve.metrics_listen;
    config.webhook_internal = serve.webhook_internal;
    (config.tick, config.grace) = (Duration::from_millis(serve.tick), Duration::from_secs(serve.grace));
    if let (Some(cert), Some(key)) = (serve.tls_cert, serve.tls_key) {
        config.tls = Some(config::Tls { cert, key, client_ca: serve.client_ca });
    }
    let is_https = config.tls.is_some();
    let server = Server::start(config).await.map_err(|e| e.to_string())?;
    let scheme = if is_https { "https" } else { "http" };
    println!("listening on {scheme}://{}", server.address());
    stop_signal().await;
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}
