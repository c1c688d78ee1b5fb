//! The gateway against the real server, with children that speak frames over real sockets.

#[path = "gateway/child.rs"]
mod child;
#[path = "gateway/fleet.rs"]
mod fleet;
#[path = "gateway/library.rs"]
mod library;
#[cfg(unix)]
#[path = "gateway/program.rs"]
mod program;
