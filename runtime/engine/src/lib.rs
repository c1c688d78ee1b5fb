//! Dunlin's inference engine: it runs a compiled plan in the caller's memory, to the same bits on every machine.
//!
//! Three layers, each trusting the one before:
//!
//! - a [`Package`](dunlin_package::Package) is bytes whose framing and digest hold;
//! - a [`Model`] is a plan proved sound once: every tensor lies inside its memory, shapes agree, every operator is
//!   present;
//! - a [`Session`] is a model with an arena and a backend; nothing in [`Session::run`] can fail.
//!
//! No allocation, no panic, no `unsafe`, no recursion.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

#[cfg(test)]
extern crate std;

mod memory;
mod model;
pub mod ops;
mod session;

pub use memory::{ARENA_ALIGN, Arena};
pub use model::{Fault, LoadError, Model, Proof, StepView};
pub use session::{
    Delegate, DelegateError, Element, ForeignStep, InputError, Session, SessionError, TensorMut, TensorRef,
};
