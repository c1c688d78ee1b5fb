//! What a device measures of its model in use: in constant memory, in as few bytes as a radio allows, and mergeable
//! without loss.
//!
//! ```
//! use dunlin_telemetry::{Observation, Profile, Recorder, Reference, Sample, Values};
//!
//! let reference = Reference::NONE; // or Reference::read(package.drift()...)
//! let mut recorder = Recorder::<10, 2>::new(1, 0xBEEF);
//! // after each inference:
//! let outputs = [Values::F32(&[0.1, 0.7, 0.2])];
//! let seen = Observation { micros: 5300, outputs: &outputs, ..Observation::default() }.classified();
//! recorder.add(&Sample::of(&reference, &seen));
//! // once an hour:
//! let window = recorder.take(3600);
//! let mut bytes = [0; 160];
//! let len = window.encode(Profile::Full, &mut bytes).expect("160 bytes are enough");
//! # assert!(len > 0 && window.counters().inferences() == 1);
//! ```
//!
//! | layer | module | is |
//! | --- | --- | --- |
//! | device | [`recorder`] | counts in fixed arrays; a [`Sample`] is one inference, reduced to bins |
//! | device | [`reference`] | what the model's inputs and outputs looked like when it was made: a package's drift section |
//! | both | [`window`] | the counts of a stretch of time; windows merge by addition |
//! | both | [`report`] | a window's bytes in one of three profiles; `WIRE.md` is normative |
//! | device | [`outbox`] | windows that nobody has acknowledged yet |
//! | server | [`ledger`] | which windows of a device are in, so that none counts twice |
//! | server | [`aggregate`] | windows of many devices, added |
//! | server | [`archive`] | reports in a file |
//! | server | [`analysis`] | drift: what an aggregate says against the reference, with intervals by device |
//! | server | [`calibrate`] | makes a reference |
//! | server | [`export`] | OTLP, Prometheus, SenML, JSON |
//!
//! Device code neither allocates nor panics. Features: `std` is the server's half, `defmt` the way to log on bare metal,
//! `flash` a queue of reports that survives a restart.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
pub mod aggregate;
#[cfg(feature = "std")]
pub mod analysis;
#[cfg(feature = "std")]
pub mod archive;
mod bits;
#[cfg(feature = "std")]
pub mod calibrate;
#[cfg(feature = "std")]
pub mod export;
pub mod latency;
#[cfg(feature = "std")]
pub mod ledger;
mod logging;
pub mod outbox;
pub mod recorder;
pub mod reference;
pub mod report;
#[cfg(feature = "flash")]
pub mod store;
pub mod window;

pub use outbox::Outbox;
pub use recorder::{Fault, Observation, Recorder, Sample, Values};
pub use reference::{Reference, ReferenceError};
pub use report::{DecodeError, EncodeError, Profile, Report};
pub use window::{Arm, Counter, Counters, Window};

/// Bins of a confidence and of a watched value.
pub const BINS: usize = 10;
/// Axes of a whitened embedding.
pub const AXES: usize = 8;
/// Bins of a squared distance, each twice as wide as the one before.
pub const DISTANCES: usize = 8;
