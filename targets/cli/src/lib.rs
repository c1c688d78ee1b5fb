//! The parts of the `dunlin` command, as a library for its tests and figures.

pub mod arguments;
pub mod bench;
pub mod calibrate;
pub mod compile;
pub mod dataset;
pub mod delta;
pub mod demo;
pub mod difference;
pub mod drift;
pub mod failure;
pub mod fleet;
pub mod flock;
pub mod inspect;
pub mod keys;
pub mod model;
pub mod npz;
pub mod run;
pub mod samples;
pub mod sign;
pub mod table;
pub mod trust;
pub mod verify;
