//! The commands that need a fleet server, against a real one in this process.

#[path = "fleet/contexts.rs"]
mod contexts;
#[path = "fleet/demo.rs"]
mod demo;
#[path = "fleet/flock.rs"]
mod flock;
#[path = "fleet/keys.rs"]
mod keys;
#[path = "fleet/operators.rs"]
mod operators;
#[path = "fleet/site.rs"]
mod site;
