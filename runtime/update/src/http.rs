//! What a device, or who carries for it, and the fleet server say to each other over HTTP: postcard bodies under `/d/v1`,
//! and how requests are signed.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST /d/v1/enrol` | [`Enrol`] | [`Enrolled`] |
//! | `POST /d/v1/poll` | [`Poll`] | [`Answer`], or 304 when there is no news |
//! | `GET` [`Offer::url`] | | bytes, in ranges |
//! | `GET /d/v1/nonce` | | a nonce, as text |
//!
//! A field is never added to a message that is in use; `tests.rs` beside this file pins the bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::format;
use std::string::String;
use std::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::trust::{Manner, SecretKey};
use crate::{Outcome, Phase};

/// Header with the device's id, 32 hexadecimal digits.
pub const DEVICE: &str = "x-dunlin-device";
/// Header with the nonce: microseconds since 1970 by the device's clock, or what `/d/v1/nonce` or the last answer gave.
pub const NONCE: &str = "x-dunlin-nonce";
/// Header with the signature, 128 hexadecimal digits.
pub const SIGNATURE: &str = "x-dunlin-signature";
/// Header of an answer to a poll with the seconds until the next one; the only place where 304 can say it.
pub const NEXT: &str = "x-dunlin-next";
/// Path of [`Enrol`].
pub const ENROL_PATH: &str = "/d/v1/enrol";
/// Path of [`Poll`].
pub const POLL_PATH: &str = "/d/v1/poll";
/// Path of a nonce for a device without a clock.
pub const NONCE_PATH: &str = "/d/v1/nonce";
/// Reports that one poll may carry.
pub const MAX_REPORTS: usize = 64;
/// Bytes of one report.
pub const MAX_REPORT: usize = 1024;
/// The name under which flag documents are signed by the role of rollouts. No model has it, so a device that takes flags
/// for a rollout refuses them.
pub const FLAGS: &str = "\0flags";

/// The attribute of a device whose own identity, by which it finds its place in rollout documents, is not the id that the
/// server gives it: the identity in hexadecimal digits. A device behind a gateway has it.
pub const IDENTITY: &str = "identity";

/// `POST /d/v1/enrol`, with an enrolment token; signed by the key it brings, with the nonce `0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// The device's public key.
    pub key: [u8; 32],
    /// What packages are compiled for to run on it.
    pub target: String,
    /// The model it runs.
    pub model: String,
    /// What cohorts are filtered and stratified by.
    pub attributes: BTreeMap<String, String>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Who the device is from now on; its identity in rollouts too.
    pub device: [u8; 16],
    /// The tenant's root documents, from the first.
    pub roots: Vec<Vec<u8>>,
}

/// `POST /d/v1/poll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// The model.
    pub model: String,
    /// What runs at this moment.
    pub running: Option<[u8; 32]>,
    /// Where the update is: the position in [`PHASES`].
    pub phase: u8,
    /// The digest on its way, and the next byte of its stream.
    pub fetching: Option<([u8; 32], u32)>,
    /// How the last update ended, and of which digest.
    pub last: Option<([u8; 16], Outcome)>,
    /// The digest that has to come whole.
    pub whole: Option<[u8; 16]>,
    /// A package that does not simply serve, by the beginning of its digest, and how it runs: in the shadow of what runs
    /// ([`Manner::Shadow`]; it waits whole on the device), or by the hour in turn with the package before it
    /// ([`Manner::Hourly`]; it is what `running` says, in the other package's hours too). Nothing while one is on trial.
    pub beside: Option<([u8; 16], Manner)>,
    /// Version of the root in force.
    pub root: u32,
    /// Sequence of the newest rollout document.
    pub rollout: u64,
    /// Security counter below which nothing is taken.
    pub floor: u32,
    /// Sequence of the newest flag document.
    pub flags: u64,
    /// What was measured, oldest first.
    pub reports: Vec<Report>,
}

/// The phases, in the order of their numbers on the wire.
pub const PHASES: [Phase; 9] = [
    Phase::Idle,
    Phase::Offered,
    Phase::Fetching,
    Phase::Verified,
    Phase::Staged,
    Phase::Trial,
    Phase::Confirmed,
    Phase::Rejected,
    Phase::Reverted,
];

/// A phase's number on the wire.
#[must_use]
pub fn phase_number(phase: Phase) -> u8 {
    PHASES.iter().position(|p| *p == phase).unwrap_or(0) as u8
}

/// One report. Boot and sequence tell it from all others of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which start of the device.
    pub boot: u32,
    /// Which report since.
    pub seq: u32,
    /// The report as `dunlin-telemetry` encodes it.
    pub bytes: Vec<u8>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Seconds since 1970: a hint, not signed.
    pub time: u64,
    /// Seconds until the next poll.
    pub next: u32,
    /// Reports that are stored, durably; they need not be sent again.
    pub acknowledged: Vec<(u32, u32)>,
    /// The nonce of the next request, for devices without a clock.
    pub nonce: String,
    /// What to run instead.
    pub offer: Option<Offer>,
    /// The signed flag document, when it is newer than the device's.
    pub flags: Option<Vec<u8>>,
}

/// An offer, as [`crate::Offer`] wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Roots after the device's, in order.
    pub roots: Vec<Vec<u8>>,
    /// The rollout document.
    pub rollout: Vec<u8>,
    /// The release document.
    pub release: Vec<u8>,
    /// What tells the stream from others.
    pub id: [u8; 8],
    /// Bytes of the stream.
    pub len: u32,
    /// Whether it is a difference to what runs.
    pub delta: bool,
    /// Path and query to fetch it from, in ranges; good for a week.
    pub url: String,
}

/// What a device signs: the domain, method, path, nonce and the hash of the body.
#[must_use]
pub fn message(method: &str, path: &str, nonce: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!("dunlin-request-1\0{method}\n{path}\n{nonce}\n").into_bytes();
    message.extend(dunlin_package::Hash::of(&[body]));
    message
}

/// The signature header of a request.
#[must_use]
pub fn signature(key: &SecretKey, method: &str, path: &str, nonce: &str, body: &[u8]) -> String {
    let bytes = key.sign_bytes(&message(method, path, nonce, body));
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
