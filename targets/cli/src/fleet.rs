//! `dunlin fleet`: what operators do with a fleet server.

pub mod client;
mod devices;
mod draft;
mod drift;
mod flags;
mod journal;
pub(crate) mod profile;
mod publish;
mod rollout;
mod root;
pub mod view;
mod watch;

use crate::failure::Outcome;

/// Works with a fleet server. Its address and the token come from the environment (DUNLIN_FLEET_URL, DUNLIN_FLEET_TOKEN), or
/// else from the profile that `login` writes.
#[derive(clap::Args, Clone, Debug)]
pub struct Fleet {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Keep a server's address and your token
    Login(profile::Login),
    /// Show which keys the devices trust, and renew them
    Root(root::Root),
    /// Publish a package with its release, and differences from what the fleet runs
    Publish(publish::Publish),
    /// Roll a package out in stages
    Rollout(rollout::Rollout),
    /// Show devices, put them into rings, revoke them
    Devices(devices::Devices),
    /// Show and set flags
    Flags(flags::Flags),
    /// Show what devices count against their package's reference
    Drift(drift::Drift),
    /// Show alerts
    Alerts(journal::Alerts),
    /// Show who did what, and check that the log is whole
    Audit(journal::Audit),
}

impl Fleet {
    /// Does it.
    ///
    /// # Errors
    /// Passes on what the server says, hint included.
    pub fn run(&self, json: bool) -> Outcome<()> {
        match &self.action {
            Action::Login(login) => login.run(json),
            Action::Root(root) => root.run(&profile::client()?, json),
            Action::Publish(publish) => publish.run(&profile::client()?, json),
            Action::Rollout(rollout) => rollout.run(&profile::client()?, json),
            Action::Devices(devices) => devices.run(&profile::client()?, json),
            Action::Flags(flags) => flags.run(&profile::client()?, json),
            Action::Drift(drift) => drift.run(&profile::client()?, json),
            Action::Alerts(alerts) => alerts.run(&profile::client()?, json),
            Action::Audit(audit) => audit.run(&profile::client()?, json),
        }
    }
}
