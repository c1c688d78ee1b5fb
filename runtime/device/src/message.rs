//! What a device and whoever brings updates say to each other. `WIRE.md` is normative.
//!
//! The device asks and the other side answers, one message at a time: a line without flow control and a receiver without
//! buffers lose nothing while nobody speaks unasked.

use dunlin_update::record::PREFIX;
use dunlin_update::trust::{Manner, TrustError};
use dunlin_update::{Outcome, Phase, Rejection, Transfer, UpdateError};
use serde::{Deserialize, Serialize};

/// The version of the messages, the first byte of every payload.
pub const VERSION: u8 = 3;
/// Bytes of a [`Chunk`] message beside the bytes that it carries, at most, with the frame's CRC.
pub const CHUNK_OVERHEAD: usize = 32;

/// From the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up<'a> {
    /// What it is and has; the answer is [`Down::News`].
    #[serde(borrow)]
    CheckIn(CheckIn<'a>),
    /// It wants bytes; the answer is [`Down::Chunk`] or [`Down::Gone`].
    Want(Want),
    /// It does not take what was offered. No answer.
    Refused {
        /// The offer's identity.
        offer: [u8; 8],
        /// Why.
        reason: Refusal,
    },
    /// An inference that it made, for who wants to look. No answer.
    #[serde(borrow)]
    Ran(Ran<'a>),
    /// What it measured; the answer is [`Down::Stored`], once the report cannot be lost any more.
    #[serde(borrow)]
    Report(Report<'a>),
}

/// To the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down<'a> {
    /// What there is for the device.
    News(News),
    /// Bytes that the device wanted.
    #[serde(borrow)]
    Chunk(Chunk<'a>),
    /// The offer is not there any more: check in again.
    Gone {
        /// The offer's identity.
        offer: [u8; 8],
    },
    /// A report is stored for good; the device need not keep it.
    Stored {
        /// The start of the device that the report is of.
        boot: u32,
        /// Its window's number.
        seq: u32,
    },
}

/// What a device tells when it asks for news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn<'a> {
    /// Its identity, for its place in rollouts.
    pub identity: &'a [u8],
    /// The model that it runs.
    pub name: &'a str,
    /// Digest of what runs at this moment. This is what counts as success, no claim.
    pub running: Option<[u8; 32]>,
    /// Where the update is: the number of a [`Phase`].
    pub phase: u8,
    /// What is on its way.
    pub fetching: Option<Fetching>,
    /// How the last update ended, and the beginning of its digest.
    pub last: Option<([u8; PREFIX], Outcome)>,
    /// The beginning of a digest that has to come whole, because a difference failed.
    pub whole: Option<[u8; PREFIX]>,
    /// The beginning of the digest of a package that does not simply serve, and how it runs.
    pub beside: Option<([u8; PREFIX], Manner)>,
    /// Version of the root in force.
    pub root: u32,
    /// Sequence of the newest rollout document it knows.
    pub rollout: u64,
    /// Security counter below which it takes nothing.
    pub floor: u32,
    /// Sequence of the flag document that it obeys; 0: none.
    pub flags: u64,
    /// Inferences since it started.
    pub inferences: u32,
    /// Those of them that the application could not use.
    pub failed: u32,
    /// Microseconds of the slowest.
    pub slowest: u32,
}

impl CheckIn<'_> {
    /// The phase, if this version knows its number.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        PHASES.iter().copied().find(|&phase| phase as u8 == self.phase)
    }
}

const PHASES: [Phase; 9] = [
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

/// A package on its way to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetching {
    /// Its digest.
    pub digest: [u8; 32],
    /// How it comes.
    pub transfer: Transfer,
    /// The next byte of the stream that the device wants.
    pub next: u32,
}

/// What there is for a device that checked in. Nobody signs this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Milliseconds until it should check in again; the device has bounds of its own.
    pub wait: u32,
    /// Seconds since 1970, a hint for devices without a clock; 0: not known.
    pub time: u64,
    /// A flag document with a greater sequence than the device's.
    pub flags: Option<FlagsOffer>,
    /// A package to run.
    pub offer: Option<Offer>,
}

/// A flag document that a device may fetch, as [`Part::Flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagsOffer {
    /// Identifies the document, such as the first bytes of its hash.
    pub offer: [u8; 8],
    /// Its sequence.
    pub sequence: u64,
}

/// What a device measured in a window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report<'a> {
    /// Which start of the device.
    pub boot: u32,
    /// The window's number since that start; of merged windows the last.
    pub seq: u32,
    /// The window as `dunlin-telemetry` encodes it.
    pub bytes: &'a [u8],
}

/// A package that a device may fetch. Nobody signs this: the documents that it leads to are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Identifies the offer: documents and stream belong together.
    pub offer: [u8; 8],
    /// Digest of the package.
    pub digest: [u8; 32],
    /// Version of the newest root.
    pub root: u32,
    /// How the package's bytes come.
    pub transfer: Transfer,
}

/// The parts of offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Part {
    /// The root document of this version.
    Root(u32),
    /// The rollout document.
    Rollout,
    /// The release document.
    Release,
    /// The package or the difference.
    Stream,
    /// The flag document.
    Flags,
}

/// Bytes that a device wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Of which offer.
    pub offer: [u8; 8],
    /// Of which part.
    pub part: Part,
    /// From where on.
    pub offset: u32,
    /// How many, at most.
    pub len: u16,
}

/// Bytes of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk<'a> {
    /// Of which offer.
    pub offer: [u8; 8],
    /// Of which part.
    pub part: Part,
    /// From where on.
    pub offset: u32,
    /// Bytes of the whole part.
    pub total: u32,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// An inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran<'a> {
    /// Digest of the package that ran.
    pub digest: [u8; 32],
    /// The application's number of the input.
    pub input: u32,
    /// Microseconds that it took.
    pub micros: u32,
    /// The bytes of the first output.
    pub output: &'a [u8],
}

/// Why a device does not take an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refusal {
    /// Its documents are not believed.
    Untrusted(Untrusted),
    /// They are, but the package does not suit the device or is not what was signed.
    Unsuitable(#[cfg_attr(feature = "defmt", defmt(Debug2Format))] Rejection),
    /// A document is longer than the device has room for.
    TooLong,
    /// The answers do not fit together, or the device is busy.
    Confused,
    /// The device's storage failed.
    Storage,
    /// The flag document is believed, but its flags do not decode.
    Flags,
}

/// Why documents are not believed: [`TrustError`] without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Untrusted {
    /// Too long, or it does not decode.
    Malformed,
    /// The document of another role, or a release that the rollout does not name.
    Mixed,
    /// Too few valid signatures.
    Threshold,
    /// A root that does not follow the one in force.
    Root,
    /// Too old.
    Expired,
    /// Older than one that was seen.
    Replayed,
}

impl From<TrustError> for Untrusted {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Document { .. } | TrustError::Mixed => Self::Mixed,
            TrustError::Threshold { .. } => Self::Threshold,
            TrustError::RootVersion { .. } | TrustError::RootUnsound => Self::Root,
            TrustError::Expired { .. } => Self::Expired,
            TrustError::Replayed { .. } => Self::Replayed,
            _ => Self::Malformed,
        }
    }
}

impl From<UpdateError> for Refusal {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::Trust(error) => Self::Untrusted(error.into()),
            UpdateError::Rejected(reason) => Self::Unsuitable(reason),
            UpdateError::Storage => Self::Storage,
            _ => Self::Confused,
        }
    }
}

/// Why a message could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MessageError {
    /// The buffer is too small for it.
    TooLong,
    /// Another version of the messages.
    Version(u8),
    /// Bytes that are no message.
    Malformed,
}

impl core::fmt::Display for MessageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong => f.write_str("the message is longer than the buffer"),
            Self::Version(found) => write!(f, "messages of version {found}; this is version {VERSION}"),
            Self::Malformed => f.write_str("these bytes are no message"),
        }
    }
}

impl core::error::Error for MessageError {}

/// Writes a message as the payload of a frame; gives its length.
///
/// # Errors
/// [`MessageError::TooLong`].
pub fn encode<M: Serialize>(message: &M, into: &mut [u8]) -> Result<usize, MessageError> {
    let (version, rest) = into.split_first_mut().ok_or(MessageError::TooLong)?;
    *version = VERSION;
    Ok(1 + postcard::to_slice(message, rest).map_err(|_| MessageError::TooLong)?.len())
}

/// Reads the payload of a frame; nothing may follow the message.
///
/// # Errors
/// [`MessageError::Version`] or [`MessageError::Malformed`].
pub fn decode<'a, M: Deserialize<'a>>(payload: &'a [u8]) -> Result<M, MessageError> {
    let (&version, rest) = payload.split_first().ok_or(MessageError::Malformed)?;
    if version != VERSION {
        return Err(MessageError::Version(version));
    }
    match postcard::take_from_bytes(rest) {
        Ok((message, [])) => Ok(message),
        _ => Err(MessageError::Malformed),
    }
}

#[cfg(test)]
mod tests;
