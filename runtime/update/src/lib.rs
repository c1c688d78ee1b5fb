//! Model updates that cannot brick a device and cannot be forged.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod delta;
