//! Dunlin on microcontrollers: the thin glue between the libraries and a board.
//!
//! A firmware brings four things: a NOR flash behind `embedded-storage`, a serial port behind `embedded-io`, a
//! [`Clock`], and a [`Task`] that fills inputs and reads outputs. With them a [`Device`] runs whatever package is the one
//! to run now, tries new ones, and fetches them over a [`Link`].
//!
//! ```no_run
//! use dunlin::{InputError, Session, kernels::{Native, native}, ops};
//! use dunlin_mcu::{Clock, Config, Device, Link, Mapped, Memory, Task, Wide, line};
//! use dunlin_update::delta::Applier;
//! use dunlin_update::flash::{FlashStorage, Layout};
//! use dunlin_update::trust::Ed25519;
//! use dunlin_update::{Device as Profile, StartCause, Updater};
//! # use embedded_io::{Read, ReadReady, Write};
//! # use embedded_storage::nor_flash::NorFlash;
//!
//! struct Microphone;
//!
//! impl Task<Native> for Microphone {
//!     fn fill(&mut self, session: &mut Session<'_, '_, Native>) -> Result<(), InputError> {
//!         session.input(0).copy_from_slice(&[0.0f32; 490]) // the last second
//!     }
//!
//!     fn read(&mut self, session: &Session<'_, '_, Native>) -> bool {
//!         session.output(0).argmax().is_some() // what was said
//!     }
//! }
//!
//! fn firmware(
//!     flash: impl NorFlash + Mapped,
//!     port: impl Read + ReadReady + Write,
//!     clock: impl Clock,
//!     profile: Profile<'_>,
//!     decoder: &mut Applier,
//!     memory: Memory<'_>,
//! ) -> Option<()> {
//!     let config = Config::new(profile.identity, profile.name);
//!     let storage = FlashStorage::new(flash, Layout::packed(0, 4096, 48 * 1024, 2))?;
//!     let updater = Updater::open(storage, Ed25519, profile, StartCause::Power, decoder).ok()?;
//!     let mut device = Device::new(updater, ops::all(), native(), config, memory);
//!     let mut link = Link::<_, 288>::new(port);
//!     let mut clock = Wide::new(clock);
//!     loop {
//!         let _ = line::poll(&mut device, &mut link, &mut clock); // a failed port is asked again
//!         if !device.is_waiting() {
//!             device.infer(|| clock.now(), &mut Microphone).ok()?;
//!         }
//!     }
//! }
//! ```
//!
//! What is said on the line is in [`message`], how it is framed in [`frame`], every byte of both in `WIRE.md` of
//! `dunlin-device`; a gateway or a test uses the same two modules on the host. Nothing here allocates, panics or has
//! `unsafe`, and every buffer has a length that is part of its type.
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

pub mod clock;
pub mod factory;
pub mod line;
pub mod link;
mod log;
pub mod starts;

pub use clock::{Clock, Wide};
pub use dunlin_device::{
    Config, Copied, Counters, Device, Event, Inferred, Mapped, Memory, RunError, Slots, Task, frame, message, slots,
};
pub use factory::Factory;
pub use link::{Link, LinkError};
