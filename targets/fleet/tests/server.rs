//! The server as devices and operators see it, on SQLite and on PostgreSQL.

#[path = "server/alerting.rs"]
mod alerting;
#[path = "server/crash.rs"]
mod crash;
#[path = "server/crossover.rs"]
mod crossover;
#[path = "server/dashboard.rs"]
mod dashboard;
#[path = "server/database.rs"]
mod database;
#[path = "server/device.rs"]
mod device;
#[path = "server/devices.rs"]
mod devices;
#[path = "server/drift.rs"]
mod drift;
#[path = "server/evidence.rs"]
mod evidence;
#[path = "server/kills.rs"]
mod kills;
#[path = "server/operation.rs"]
mod operation;
#[path = "server/operators.rs"]
mod operators;
#[path = "server/otlp.rs"]
mod otlp;
#[path = "server/program.rs"]
mod program;
#[path = "server/recalls.rs"]
mod recalls;
#[path = "server/receiver.rs"]
mod receiver;
#[path = "server/replicas.rs"]
mod replicas;
#[path = "server/rollouts.rs"]
mod rollouts;
#[cfg(feature = "s3")]
#[path = "server/s3.rs"]
mod s3;
#[path = "server/schema.rs"]
mod schema;
#[path = "server/serving.rs"]
mod serving;
#[path = "server/site.rs"]
mod site;
#[path = "server/status.rs"]
mod status;
#[cfg(feature = "tls")]
#[path = "server/tls.rs"]
mod tls;
#[path = "server/webhooks.rs"]
mod webhooks;
