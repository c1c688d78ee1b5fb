//! How a gateway is doing, for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The server's address.
    pub server: String,
    /// When this was so, seconds since 1970.
    pub time: u64,
    /// The process.
    pub pid: u32,
    /// Polls that were answered since the start.
    pub polls: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Artifacts that were fetched.
    pub fetched: u64,
    /// Reports that the server acknowledged.
    pub delivered: u64,
    /// Reports that wait for the server.
    pub reports: usize,
    /// Bytes of them.
    pub report_bytes: u64,
    /// Artifacts that are kept.
    pub artifacts: usize,
    /// Bytes of them.
    pub artifact_bytes: u64,
    /// The children, by identity.
    pub children: Vec<ChildStatus>,
}

/// A child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Its identity: text, or `0x` and digits.
    pub identity: String,
    /// Its id at the server, once it is enrolled.
    pub device: Option<String>,
    /// The model that it runs.
    pub model: Option<String>,
    /// Digest of what it runs.
    pub running: Option<String>,
    /// Where its update is.
    pub phase: Option<String>,
    /// Digest of what it is offered.
    pub offered: Option<String>,
    /// Seconds since it checked in last, if it did since the gateway's start.
    pub seen: Option<u64>,
    /// Inferences since its start.
    pub inferences: u32,
    /// Its reports that wait for the server.
    pub reports: usize,
    /// Offers that it did not take since the gateway's start.
    pub refused: u32,
    /// Why the server was last not reached for it.
    pub error: Option<String>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "server     {}", self.server)?;
        writeln!(f, "polls      {} answered, {} requests failed", self.polls, self.failures)?;
        writeln!(f, "reports    {} delivered, {} waiting ({} bytes)", self.delivered, self.reports, self.report_bytes)?;
        writeln!(f, "artifacts  {} fetched, {} kept ({} bytes)", self.fetched, self.artifacts, self.artifact_bytes)?;
        for child in &self.children {
            let running = child.running.as_deref().and_then(|r| r.get(..8)).unwrap_or("nothing");
            write!(f, "child      {}: runs {running}", child.identity)?;
            if let Some(phase) = &child.phase {
                write!(f, ", {phase}")?;
            }
            match child.seen {
                Some(seconds) => write!(f, ", seen {seconds} s ago")?,
                None => f.write_str(", not seen since the start")?,
            }
            if child.reports > 0 {
                write!(f, ", {} reports waiting", child.reports)?;
            }
            writeln!(f)?;
            if let Some(error) = &child.error {
                writeln!(f, "           {error}")?;
            }
        }
        Ok(())
    }
}
