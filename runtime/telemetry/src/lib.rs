//! Dunlin's telemetry: what a device measures of its model in use, in constant memory; no_std, no alloc.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
pub mod analysis;
#[cfg(feature = "std")]
pub mod calibrate;
#[cfg(feature = "std")]
pub mod export;
