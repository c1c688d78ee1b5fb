//! What a device does with a model, whatever carries its messages: nothing here does input or output.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::indexing_slicing)
)]

#[cfg(test)]
extern crate std;

pub mod frame;
pub mod message;
pub mod slots;
