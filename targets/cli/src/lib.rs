//! The parts of the `dunlin` command, as a library for its tests and figures.

pub mod failure;
pub mod model;
pub mod npz;
