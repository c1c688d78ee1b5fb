//! What a device does with a model: runs it, reports on it, has it replaced, takes a bad one back by itself, and obeys flags
//! without asking anybody.
//!
//! Nothing here does input or output, reads a clock, waits or panics, nor allocates without the feature `std`. A [`Device`] is told the time, gives
//! datagrams to be sent and takes those that came; whatever carries them may lose, repeat, reorder and damage them.
//! `WIRE.md` has every byte.
//!
//! ```
//! use dunlin_device::{Config, Device, Event, Memory, RunError, Task};
//! use dunlin_engine::{InputError, Session, ops};
//! use dunlin_kernels::Scalar;
//! use dunlin_update::delta::Applier;
//! use dunlin_update::trust::Ed25519;
//! use dunlin_update::{StartCause, Updater};
//!
//! /// What the application does with the model.
//! struct Microphone([f32; 490]);
//!
//! impl Task<Scalar> for Microphone {
//!     fn fill(&mut self, session: &mut Session<'_, '_, Scalar>) -> Result<(), InputError> {
//!         session.input(0).copy_from_slice(&self.0) // the last second
//!     }
//!
//!     fn read(&mut self, session: &Session<'_, '_, Scalar>) -> bool {
//!         session.output(0).argmax().is_some() // what was said
//!     }
//! }
//!
//! # use dunlin_update::{Device as Profile, Limits, sim::{CHIPS, Flash}, trust::{RoleKeys, RootKeys}};
//! # let role = RoleKeys { threshold: 1, keys: 1 };
//! # let root = RootKeys { version: 1, expires: u64::MAX, count: 1, keys: [[1; 32]; 8], roles: [role; 4] };
//! # let (mut flash, mut room) = (Flash::new(CHIPS[2], 2, 2048), [0; 2048]);
//! # let slots = dunlin_device::Copied::new(&mut flash, &mut room);
//! # let profile = Profile {
//! #     identity: b"microphone-1", name: "keywords", target: "any", engine: (0, 1), ops_version: 1, memory: 1 << 15, beside: true, starts: 2,
//! #     limits: Limits { inferences: 100, errors: 3, late: 5, deadline_us: 50_000 }, root, factory: None,
//! # };
//! # let now = || 0;
//! let mut decoder = Applier::new();
//! let updater = Updater::open(slots, Ed25519, profile, StartCause::Power, &mut decoder)?;
//! let (mut arena, mut documents, mut flags) = ([0; 32 * 1024], [0; 1024], [0; 512]);
//! let memory = Memory { arena: &mut arena, documents: &mut documents, flags: &mut flags };
//! let mut device = Device::new(updater, ops::all(), Scalar, Config::new(b"microphone-1", "keywords"), memory);
//! let mut microphone = Microphone([0.0; 490]);
//! # for _ in 0..3 {
//!
//! // Again and again:
//! if let Event::Started = device.poll(now()) {
//!     // the next inference is the first of a new model
//! }
//! let mut datagram = [0; 512];
//! while let Some(len) = device.transmit(now(), &mut datagram)? {
//!     // the radio sends datagram[..len]
//! #   assert!(len > 0);
//! }
//! // when one came: device.receive(now(), &datagram);
//! # device.receive(now(), b"noise");
//! match device.infer(now, &mut microphone) {
//!     Ok(inferred) => { /* inferred.verdict says what became of a trial */ }
//!     Err(RunError::NoPackage) => { /* nothing was ever installed */ }
//!     Err(_) => { /* a flag says no, or the storage failed */ }
//! }
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! Flags are answered at once, from what is kept:
//!
//! ```
//! # use dunlin_device::{Device, Slots};
//! # use dunlin_kernels::Scalar;
//! # use dunlin_update::trust::Verifier;
//! use dunlin_rollout::flag::Flag;
//!
//! const LOUD: Flag<i64> = Flag::new("loudness", 3);
//!
//! fn loudness<S: Slots, V: Verifier>(device: &Device<'_, S, V, Scalar>) -> i64 {
//!     let answer = device.flag(&LOUD); // answer.reason says why
//!     answer.value
//! }
//! ```
//!
//! - [`device`]: the [`Device`]. What it is lent lives outside of it, so that thousands fit a process.
//! - [`flags`]: the document of flags, and the three that are the device's own: kill switch, shadow, crossover.
//! - [`message`], [`frame`]: what is said, and how it is framed where bytes can be lost.
//! - [`slots`]: packages as slices: memory-mapped flash, or copied.
//!
//! Features: `defmt` for `defmt::Format`; `std`, for hosts, keeps the proof and the repacked weights of what runs, so that an
//! inference takes as long as in a session that is kept. Without it nothing here allocates.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::indexing_slicing)
)]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod clock;
pub mod config;
pub mod device;
#[cfg(test)]
mod fixtures;
pub mod flags;
pub mod frame;
pub mod golden;
pub mod message;
mod monitor;
mod prepared;
pub mod slots;
pub mod task;

pub use config::{Config, Memory};
pub use device::{Counters, Device, Event};
#[cfg(feature = "std")]
pub use prepared::WeightPool;
pub use slots::{Copied, Mapped, Slots};
pub use task::{Inferred, RunError, Task};
