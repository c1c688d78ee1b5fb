//! What Dunlin's cross-crate suites share.

pub mod npz;
pub mod runner;
