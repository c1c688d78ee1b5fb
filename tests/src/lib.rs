//! What Dunlin's cross-crate suites share.

pub use dunlin_cli::npz;
pub mod runner;
