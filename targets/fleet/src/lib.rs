//! The fleet server: devices, packages, rollouts that stop by themselves, telemetry, audit.
//!
//! [`Server::start`] runs it inside another program; the binary `dunlin-fleet` is a thin shell around that. State is in
//! SQLite or, for more than one replica, in PostgreSQL; artifacts are in a folder or an S3-compatible store. Devices poll
//! (`wire`), operators speak JSON (`/openapi.json`). `README.md` tells how to run it.
#![forbid(unsafe_code)]

mod alerting;
mod api;
mod approval;
mod artifacts;
mod audit_log;
mod auth;
pub mod backup;
mod clock;
pub mod config;
mod connections;
mod dashboard;
mod decide;
mod documents;
mod drift;
mod error;
mod flags;
mod gauges;
mod hex;
mod ingest;
mod limits;
mod metrics;
mod otlp;
mod outlook;
mod private;
mod server;
pub mod status;
pub mod store;
mod stranded;
mod summary;
mod telemetry;
#[cfg(feature = "tls")]
mod tls;
mod webhook;

pub use api::openapi;
pub use auth::Role;
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::Config;
/// What devices and the server say to each other.
pub use dunlin_update::http as wire;
pub use hex::{hex, unhex};
pub use private::folder as private_folder;
pub use server::{Server, StartError};
