//! What the suites share: models with vectors, and how to run them.

pub mod corpus;
pub mod firmware;
pub mod power_loss;
pub mod runner;
