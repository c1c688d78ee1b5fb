//! The configuration file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_update::Limits;
use serde::Deserialize;

use crate::client::{Client, ClientError, Connection};
use crate::hex::unhex_all;
use crate::own::Own;
use crate::site::{Rule, SiteOptions};

/// All of it. Paths are as they are written, seen from where the program runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server's address.
    pub server: String,
    /// Folder of keys, reports, artifacts and status.
    pub state: PathBuf,
    /// File with a token of the role `enrol`.
    pub token_file: Option<PathBuf>,
    /// Threads that speak to the server.
    #[serde(default = "workers")]
    pub workers: usize,
    /// Certificates.
    #[serde(default)]
    pub tls: Tls,
    /// What all children have in common.
    #[serde(default)]
    pub children: Children,
    /// Serial devices, each with a child at its end.
    #[serde(default)]
    pub serial: Vec<SerialLine>,
    /// Children that differ from the others.
    #[serde(default)]
    pub child: Vec<ChildRule>,
    /// A model that the gateway runs itself.
    pub model: Option<ModelSection>,
    /// Artifacts.
    #[serde(default = "cache")]
    pub cache: Limit,
    /// Reports.
    #[serde(default = "reports")]
    pub reports: Limit,
}

/// Certificates, PEM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Who may vouch for the server, instead of the public authorities.
    pub ca: Option<PathBuf>,
    /// The gateway's own certificate chain.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What all children have in common.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Children {
    /// Where children connect over TCP; nowhere when it is missing.
    pub listen: Option<SocketAddr>,
    /// What packages are compiled for to run on them.
    pub target: String,
    /// What the server filters and stratifies by.
    pub attributes: BTreeMap<String, String>,
    /// How many there may be.
    pub max: usize,
    /// Whether only those under `[[child]]` are taken.
    pub only_listed: bool,
}

impl Default for Children {
    fn default() -> Self {
        Self { listen: None, target: "any".into(), attributes: BTreeMap::new(), max: 1000, only_listed: false }
    }
}

/// A serial device.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialLine {
    /// Its file.
    pub path: PathBuf,
    /// Bits a second.
    #[serde(default = "baud")]
    pub baud: u32,
}

/// A child that differs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildRule {
    /// Its identity: text, or `0x` and hexadecimal digits.
    pub identity: String,
    /// What packages are compiled for to run on it.
    pub target: Option<String>,
    /// Attributes besides the common ones.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// A model that the gateway runs itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Who the gateway is as a device: text, or `0x` and hexadecimal digits.
    pub identity: String,
    /// The model's name.
    pub name: String,
    /// What packages are compiled for to run here.
    #[serde(default = "any")]
    pub target: String,
    /// File with the signed root document that is trusted first.
    pub root: PathBuf,
    /// Where applications ask for inferences; nowhere when it is missing.
    pub listen: Option<SocketAddr>,
    /// Bytes for tensors and operators.
    #[serde(default = "memory")]
    pub memory: u32,
    /// Bytes of the longest package.
    #[serde(default = "slot")]
    pub slot: u32,
    /// Seconds between reports; 0: none.
    #[serde(default = "hour")]
    pub report_seconds: u32,
    /// What an update has to show before it is kept.
    #[serde(default)]
    pub trial: Trial,
}

/// What an update has to show before it is kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trial {
    /// Inferences that it makes.
    pub inferences: u32,
    /// Those that may fail.
    pub errors: u32,
    /// Those that may be late.
    pub late: u32,
    /// Microseconds after which one is late; 0: never.
    pub deadline_us: u32,
}

impl Default for Trial {
    fn default() -> Self {
        Self { inferences: 100, errors: 3, late: 0, deadline_us: 0 }
    }
}

/// How much may be kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
}

fn workers() -> usize {
    4
}

fn any() -> String {
    "any".into()
}

fn memory() -> u32 {
    4 << 20
}

fn slot() -> u32 {
    16 << 20
}

fn hour() -> u32 {
    3600
}

fn baud() -> u32 {
    115_200
}

fn cache() -> Limit {
    Limit { bytes: 256 << 20 }
}

fn reports() -> Limit {
    Limit { bytes: 64 << 20 }
}

/// Why a configuration cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file, or one that it names, cannot be read.
    Read(PathBuf, std::io::Error),
    /// It is no such configuration: where and why.
    Parse(PathBuf, String),
    /// What it says does not go together.
    Wrong(String),
    /// The connection cannot be used.
    Client(ClientError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            Self::Parse(path, text) => write!(f, "{} is no configuration:\n{text}", path.display()),
            Self::Wrong(text) => f.write_str(text),
            Self::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is missing or wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(path.into(), e))?;
        Self::parse(&text).map_err(|e| ConfigError::Parse(path.into(), e.to_string()))
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The site that it describes, with the token and the certificates that it names.
    ///
    /// # Errors
    /// Which file cannot be used, or what does not go together.
    pub fn site(&self) -> Result<SiteOptions, ConfigError> {
        let certificate = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(ConfigError::Wrong("tls.certificate and tls.key go together: set both or none".into())),
        };
        let (ca, idle) = (self.tls.ca.clone(), self.workers.max(1));
        let connection = Connection { server: self.server.clone(), ca, certificate, idle, ..Connection::default() };
        let client = Client::new(&connection).map_err(ConfigError::Client)?;
        let token = self.token_file.as_ref().map(|path| {
            let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(path.clone(), e))?;
            let text = text.trim().to_owned();
            let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
            plain.then_some(text).ok_or_else(|| ConfigError::Wrong(format!("{} has no token", path.display())))
        });
        let rules = self.child.iter().map(|rule| {
            let identity = identity(&rule.identity)?;
            Ok(Rule { identity, target: rule.target.clone(), attributes: rule.attributes.clone() })
        });
        let mut rules = rules.collect::<Result<Vec<_>, ConfigError>>()?;
        if let Some(own) = self.own()? {
            match rules.iter_mut().find(|r| r.identity == own.identity) {
                Some(rule) => rule.target = Some(own.target),
                None => rules.push(Rule { identity: own.identity, target: Some(own.target), ..Rule::default() }),
            }
        }
        Ok(SiteOptions {
            token: token.transpose()?,
            state: Some(self.state.clone()),
            target: self.children.target.clone(),
            attributes: self.children.attributes.clone(),
            rules,
            only_listed: self.children.only_listed,
            max_children: self.children.max,
            cache: self.cache.bytes,
            reports: self.reports.bytes,
            ..SiteOptions::new(client)
        })
    }
}

impl Config {
    /// The model that the gateway runs itself.
    ///
    /// # Errors
    /// What does not go together.
    pub fn own(&self) -> Result<Option<Own>, ConfigError> {
        let Some(model) = &self.model else { return Ok(None) };
        let Trial { inferences, errors, late, deadline_us } = model.trial;
        let own = Own {
            identity: identity(&model.identity)?,
            name: model.name.clone(),
            target: model.target.clone(),
            root: model.root.clone(),
            memory: model.memory,
            slot: model.slot,
            limits: Limits { inferences, errors, late, deadline_us },
            window: Duration::from_secs(model.report_seconds.into()),
        };
        if !own.is_sensible() {
            return Err(ConfigError::Wrong("model.identity and model.name have from 1 to 64 bytes".into()));
        }
        Ok(Some(own))
    }
}

/// The bytes of an identity as it is written.
fn identity(text: &str) -> Result<Vec<u8>, ConfigError> {
    match text.strip_prefix("0x") {
        Some(digits) => unhex_all(digits).ok_or_else(|| ConfigError::Wrong(format!("{text:?} has no pairs of digits"))),
        None => Ok(text.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_configuration() {
        let config = Config::parse(include_str!("../gateway.toml")).expect("it parses");
        assert_eq!(config.children.listen.map(|a| a.ip().is_loopback()), Some(true));
        assert_eq!(config.serial.first().map(|s| s.baud), Some(115_200));
        let options = Config { token_file: None, tls: Tls::default(), ..config }.site().expect("it goes together");
        let rules: Vec<_> = options.rules.iter().map(|r| (r.identity.as_slice(), r.target.as_deref())).collect();
        assert_eq!(rules, [(&b"board 1"[..], Some("cortex-m33")), (&b"gateway 7"[..], Some("any"))]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let minimal = "server = \"https://fleet.example\"\nstate = \"s\"\n";
        let error = Config::parse(&format!("{minimal}tokenfile = \"x\"\n")).expect_err("no such field").to_string();
        assert!(error.contains("tokenfile") && error.contains("token_file"), "{error}");
        let error = Config::parse("server = \"https://fleet.example\"\n").expect_err("no state").to_string();
        assert!(error.contains("state"), "{error}");
        let with = |rest: &str| Config::parse(&format!("{minimal}{rest}")).expect("it parses").site();
        let error = with("[tls]\nkey = \"k\"\n").expect_err("half of a pair").to_string();
        assert!(error.contains("tls.certificate"), "{error}");
        let error = with("[[child]]\nidentity = \"0x1\"\n").expect_err("half a byte").to_string();
        assert!(error.contains("0x1"), "{error}");
        let error = with("token_file = \"/nonexistent/token\"\n").expect_err("no file").to_string();
        assert!(error.contains("/nonexistent/token"), "{error}");
    }
}
