//! Model updates that cannot brick a device and cannot be forged.
//!
//! A model lies in a slot of its own, apart from the firmware. A new one is fetched into another slot, whole or as a
//! difference, resumed after any power cut, hashed where it lies, tried on its golden vectors and on live inputs, and
//! only then kept; whatever fails on the way leaves the old one running. [`Updater`] is that machine; `STATES.md` draws
//! it. Who may offer what is in [`trust`]; `TRUST.md` and `DELTA.md` have every byte.
//!
//! Nothing here allocates or panics, and nothing waits: the application brings bytes and carries them.
//!
//! Features: `std` adds folders as storage, signing, the encoder of differences and what is said to a fleet server over
//! HTTP; `sim` adds flash that loses power.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod delta;
mod fields;
#[cfg(feature = "std")]
pub mod file;
pub mod flash;
#[cfg(feature = "std")]
pub mod http;
mod journal;
pub mod phase;
pub mod record;
#[cfg(feature = "sim")]
pub mod sim;
mod slot;
pub mod storage;
pub mod trust;
pub mod updater;

pub use dunlin_package::Hash;
pub use phase::{Outcome, Phase, Rejection, Reversal};
pub use record::{Installed, State, Transfer};
pub use storage::{Storage, StorageFault};
pub use updater::{
    CheckIn, Device, Inference, Limits, Offer, Progress, StartCause, TransferOffer, UpdateError, Updater, Verdict,
};
