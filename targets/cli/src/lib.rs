//! The parts of the `dunlin` command, as a library for its tests and figures.

#[macro_use]
pub mod output;

pub mod app;
pub mod arguments;
pub mod bench;
pub mod calibrate;
pub mod chip;
pub mod compile;
pub mod completions;
pub mod dataset;
pub mod delta;
pub mod demo;
pub mod diagnosis;
pub mod difference;
pub mod drift;
pub mod examples;
pub mod failure;
pub mod fleet;
pub mod flock;
pub mod inspect;
pub mod keys;
pub mod man;
pub mod model;
pub mod npz;
pub mod range;
pub mod recognize;
pub mod run;
pub mod samples;
pub mod sign;
pub mod table;
pub mod trust;
pub mod verify;
