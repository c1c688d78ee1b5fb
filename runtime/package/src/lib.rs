//! Dunlin's model container, read in place.
//!
//! A package (`.dunlin`) is what the compiler makes and what a device keeps in flash: a manifest, the plan of steps,
//! the weights, and optionally golden vectors, drift statistics, foreign subgraphs and names, followed by a seal with
//! signatures. [`Package::open`] checks all framing and the SHA-256 digest, copies nothing and allocates nothing; the
//! bytes it is given are an allegation until it returns `Ok`.
//!
//! The format is specified in `FORMAT.md` beside this crate. With the feature `alloc`, [`Builder`] writes packages.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::indexing_slicing)
)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod aligned;
mod bytes;
mod container;
pub mod dtype;
mod error;
mod foreign;
mod golden;
mod hash;
mod manifest;
mod names;
pub mod op;
mod package;
pub mod plan;
mod seal;
#[cfg(feature = "alloc")]
mod writer;

pub use aligned::Aligned;
pub use container::{
    FORMAT_MAJOR, FORMAT_MINOR, HEADER_LEN, MAGIC, MAX_BODY_LEN, MAX_SECTIONS, Section, SectionKind, Sections,
    body_len, total_len,
};
pub use dtype::DType;
pub use error::{ManifestError, OpenError};
pub use foreign::{Foreign, ForeignBlobs};
pub use golden::{Case, Cases, Golden, GoldenTensor, GoldenTensors};
pub use hash::Hash;
pub use manifest::{EngineVersion, Labels, MAX_PORTS, Manifest, Port, Ports};
pub use names::Names;
pub use package::{Package, compute_digest};
pub use seal::{ALGORITHM_ED25519, MAX_SIGNATURES, Seal, Signature, Signatures};
#[cfg(feature = "alloc")]
pub use writer::{
    BuildError, Builder, GoldenCase, ManifestDraft, PortDraft, SignatureDraft, StepNames, with_drift, with_signatures,
};
