//! Dunlin on microcontrollers: the thin glue between the libraries and a board.
//!
//! A firmware brings four things: a NOR flash behind `embedded-storage`, a serial port behind `embedded-io`, a
//! [`Clock`], and a [`Task`] that fills inputs and reads outputs. With them a [`Runner`] runs whatever package is the one
//! to run now and tries new ones, and an [`Agent`] fetches them over a [`Link`].
//!
//! ```no_run
//! use dunlin::{InputError, Session, kernels::Scalar, ops};
//! use dunlin_mcu::{Agent, Clock, Config, Link, Mapped, Runner, Task};
//! use dunlin_update::delta::Applier;
//! use dunlin_update::flash::{FlashStorage, Layout};
//! use dunlin_update::trust::Ed25519;
//! use dunlin_update::{Device, StartCause, Updater};
//! # use embedded_io::{Read, ReadReady, Write};
//! # use embedded_storage::nor_flash::NorFlash;
//!
//! struct Microphone;
//!
//! impl Task<Scalar> for Microphone {
//!     fn fill(&mut self, session: &mut Session<'_, '_, Scalar>) -> Result<(), InputError> {
//!         session.input(0).copy_from_slice(&[0.0f32; 490]) // the last second
//!     }
//!
//!     fn read(&mut self, session: &Session<'_, '_, Scalar>) -> bool {
//!         session.output(0).argmax().is_some() // what was said
//!     }
//! }
//!
//! fn firmware(
//!     flash: impl NorFlash + Mapped,
//!     port: impl Read + ReadReady + Write,
//!     mut clock: impl Clock,
//!     device: Device<'_>,
//!     decoder: &mut Applier,
//!     memory: &mut [u8],
//! ) -> Option<()> {
//!     let config = Config {
//!         identity: device.identity,
//!         name: device.name,
//!         chunk: 256,
//!         reply: 500_000,
//!         repeats: 3,
//!         interval: 60_000_000,
//!     };
//!     let storage = FlashStorage::new(flash, Layout::packed(0, 4096, 48 * 1024, 2))?;
//!     let updater = Updater::open(storage, Ed25519, device, StartCause::Power, decoder).ok()?;
//!     let mut runner = Runner::new(updater, memory, ops::all(), Scalar);
//!     let mut link = Link::<_, 288>::new(port);
//!     let mut agent = Agent::<1024>::new(config);
//!     loop {
//!         let _ = agent.poll(&mut runner, &mut link, &mut clock); // a failed port is asked again
//!         if !agent.is_waiting() {
//!             runner.infer(&mut clock, &mut Microphone).ok()?;
//!         }
//!     }
//! }
//! ```
//!
//! What is said on the line is in [`message`], how it is framed in [`frame`], every byte of both in `WIRE.md` of `dunlin-device`; a gateway
//! or a test uses the same two modules on the host. Nothing here allocates, panics or has `unsafe`, and every buffer has
//! a length that is part of its type.
//!
//! Features: `defmt` for logs and for `defmt::Format`.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::indexing_slicing)
)]

#[cfg(test)]
extern crate std;

pub mod agent;
pub mod clock;
pub mod factory;
pub mod link;
mod log;
pub mod runner;

pub use dunlin_device::{frame, message, slots};

pub use agent::{Agent, Config, Event};
pub use clock::Clock;
pub use factory::Factory;
pub use link::{Link, LinkError};
pub use runner::{Counters, Inferred, RunError, Runner, Task};
pub use slots::{Copied, Mapped, Slots};
