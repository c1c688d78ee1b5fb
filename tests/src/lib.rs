//! What the suites share: models with vectors, and how to run them.

pub mod corpus;
pub mod runner;
