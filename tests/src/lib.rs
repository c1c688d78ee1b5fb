//! What the suites share: models with vectors, and how to run them.

pub mod board;
pub mod corpus;
pub mod defmt;
pub mod firmware;
pub mod power_loss;
pub mod runner;
