//! The server as devices and operators see it, on SQLite and on PostgreSQL.

#[path = "server/crash.rs"]
mod crash;
#[path = "server/dashboard.rs"]
mod dashboard;
#[path = "server/database.rs"]
mod database;
#[path = "server/device.rs"]
mod device;
#[path = "server/devices.rs"]
mod devices;
#[path = "server/operators.rs"]
mod operators;
#[path = "server/replicas.rs"]
mod replicas;
#[path = "server/rollouts.rs"]
mod rollouts;
#[path = "server/site.rs"]
mod site;
