//! What can be wrong with a package.

use core::fmt;

use crate::container::{FORMAT_MAJOR, FORMAT_MINOR, MAX_BODY_LEN, MAX_SECTIONS, SectionKind};

/// Why a package was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The bytes do not begin with the magic.
    NotAPackage,
    /// Fewer bytes than the header, table or seal say.
    Truncated {
        /// Bytes the package has, as far as known.
        needed: usize,
        /// Bytes given.
        got: usize,
    },
    /// More bytes than the package has.
    TrailingBytes {
        /// Bytes the package has.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// Written by a format this reader does not know.
    UnsupportedVersion {
        /// Major version in the header.
        major: u16,
        /// Minor version in the header.
        minor: u16,
    },
    /// Header flags this reader does not know.
    UnsupportedFlags {
        /// The flags in the header.
        flags: u32,
    },
    /// A header length, body length or reserved byte that the format does not allow.
    Header,
    /// The body is longer than the format allows.
    Oversized {
        /// Length of the body in the header.
        len: u32,
    },
    /// More sections than the format allows.
    TooManySections {
        /// Sections in the header.
        count: u16,
    },
    /// A table entry that is out of place, out of bounds, misaligned or given twice.
    BadSection {
        /// Position in the section table.
        index: u16,
    },
    /// A section that must be understood, and is not.
    UnknownCriticalSection {
        /// Its kind.
        kind: u16,
    },
    /// A section that every package has is not there.
    MissingSection {
        /// Which.
        kind: SectionKind,
    },
    /// A byte between two sections is not zero.
    Padding,
    /// The SHA-256 of the body is not the one in the header.
    Digest,
    /// The manifest does not decode.
    Manifest(ManifestError),
    /// The golden vectors are malformed or do not fit the ports in the manifest.
    Golden,
    /// The foreign subgraphs are malformed.
    Foreign,
    /// The names are malformed.
    Names,
    /// The seal is malformed.
    Seal,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAPackage => f.write_str(
                "not a Dunlin package: the magic is missing; compile the model with `dunlin compile` first, or check \
                 the flash address",
            ),
            Self::Truncated { needed, got } => write!(
                f,
                "package truncated: at least {needed} bytes needed, {got} given; copy the whole file or finish the \
                 transfer"
            ),
            Self::TrailingBytes { expected, got } => write!(
                f,
                "package is {expected} bytes long, {got} given; pass exactly the package (`total_len` tells how much)"
            ),
            Self::UnsupportedVersion { major, minor } => write!(
                f,
                "package format {major}.{minor} is not supported (this reader knows {FORMAT_MAJOR}.{FORMAT_MINOR}); \
                 recompile the model with a matching compiler, or update the runtime"
            ),
            Self::UnsupportedFlags { flags } => {
                write!(f, "package flags {flags:#010x} are not supported; update the runtime")
            }
            Self::Header => f.write_str("package header is malformed; the file is damaged, copy or compile it again"),
            Self::Oversized { len } => write!(
                f,
                "package body of {len} bytes exceeds the limit of {MAX_BODY_LEN}; the header is damaged, or the model \
                 must be split"
            ),
            Self::TooManySections { count } => write!(
                f,
                "{count} sections exceed the limit of {MAX_SECTIONS}; the file is damaged, copy or compile it again"
            ),
            Self::BadSection { index } => write!(
                f,
                "section table entry {index} is invalid (place, bounds, alignment or duplicate); compile the model \
                 again"
            ),
            Self::UnknownCriticalSection { kind } => {
                write!(f, "section of kind {kind:#06x} must be understood and is not known here; update the runtime")
            }
            Self::MissingSection { kind } => {
                write!(f, "the {} section is missing; compile the model again", kind.name())
            }
            Self::Padding => {
                f.write_str("padding between sections is not zero; the file is damaged, copy or compile it again")
            }
            Self::Digest => f.write_str(
                "the SHA-256 digest does not match: the package is damaged or was altered; copy it again from a \
                 trusted source",
            ),
            Self::Manifest(error) => write!(f, "manifest: {error}; compile the model again"),
            Self::Golden => f.write_str(
                "golden vectors are malformed or do not fit the model's inputs and outputs; compile the model again",
            ),
            Self::Foreign => f.write_str("the foreign subgraphs are malformed; compile the model again"),
            Self::Names => f.write_str("the names section is malformed; compile the model again"),
            Self::Seal => {
                f.write_str("the seal (signatures) is malformed; sign the package again, its body may be intact")
            }
        }
    }
}

impl core::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Manifest(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ManifestError> for OpenError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

/// What is wrong with a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// The fields do not decode.
    Encoding,
    /// Bytes follow the last field, in a version that has no more fields.
    Trailing,
    /// More inputs or outputs than allowed.
    TooManyPorts,
    /// The tolerance is negative or not a number.
    Tolerance,
    /// `weight_bytes` is not the length of the weights section.
    WeightBytes,
    /// An input is malformed.
    Input {
        /// Its position.
        index: u16,
    },
    /// An output is malformed.
    Output {
        /// Its position.
        index: u16,
    },
    /// Bytes follow the last input or output.
    PortList,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Encoding => f.write_str("the fields do not decode"),
            Self::Trailing => f.write_str("unexpected bytes after the last field"),
            Self::TooManyPorts => f.write_str("too many inputs or outputs"),
            Self::Tolerance => f.write_str("the tolerance is not a finite non-negative number"),
            Self::WeightBytes => f.write_str("weight_bytes is not the length of the weights"),
            Self::Input { index } => write!(f, "input {index} is malformed"),
            Self::Output { index } => write!(f, "output {index} is malformed"),
            Self::PortList => f.write_str("unexpected bytes after the last input or output"),
        }
    }
}

impl core::error::Error for ManifestError {}
