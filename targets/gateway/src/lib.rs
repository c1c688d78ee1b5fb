//! The way between a fleet server and devices that do not speak HTTPS.
//!
//! - [`Client`] speaks the server's device API for any number of devices over one pool of connections.
//! - [`Site`] is what the children of one gateway share: the client, artifacts by their hash so that a thousand children
//!   fetch once, and reports until the server has acknowledged them.
//! - [`Bridge`] is one child's line: datagrams of [`dunlin_device::message`] in, datagrams out. It never waits for the
//!   server; [`Site::start`] has threads that do.
//! - [`own`] is a model that the gateway runs itself, a child without a line.
//! - [`line`](mod@line) puts datagrams into frames on anything that reads and writes bytes.
//!
//! ```no_run
//! use dunlin_gateway::{Client, Connection, Site, SiteOptions, line};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(&Connection { server: "https://fleet.example".into(), ..Connection::default() })?;
//! let token = Some(std::fs::read_to_string("enrol.token")?.trim().to_owned());
//! let site = Site::open(SiteOptions { token, state: Some("state".into()), ..SiteOptions::new(client) })?;
//! let _workers = site.start(4);
//! let (stream, _) = std::net::TcpListener::bind("127.0.0.1:8490")?.accept()?;
//! line::serve(&mut (&stream, &stream), &mut site.bridge(), &|| true)?;
//! # Ok(())
//! # }
//! ```
//!
//! The gateway is not trusted by anybody: what an update is, signed documents say, and children check them. What it can
//! do is speak for its children, whose keys it has.
#![forbid(unsafe_code)]

mod backoff;
mod bridge;
mod cache;
mod child;
mod client;
mod clock;
pub mod config;
mod hex;
pub mod line;
pub mod own;
#[cfg(unix)]
pub mod serial;
mod site;
mod spool;
mod status;

pub use backoff::Backoff;
pub use bridge::{Bridge, BridgeError};
pub use cache::FetchError;
pub use client::{Client, ClientError, Connection, Credentials, MAX_RANGE, Polled};
pub use clock::{Clock, SystemClock};
pub use site::{Rule, Site, SiteError, SiteOptions, Workers};
pub use spool::SpoolError;
pub use status::{ChildStatus, Status};
