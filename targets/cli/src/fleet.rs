//! `dunlin fleet`: what operators do with a fleet server.

pub mod client;
mod devices;
mod draft;
mod drift;
mod flags;
mod journal;
mod packages;
pub(crate) mod profile;
mod publish;
mod rollout;
mod root;
mod serving;
mod tenants;
mod tokens;
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
    /// Show what is published, and what devices measured while they ran it
    Packages(packages::Packages),
    /// Roll a package out in stages
    Rollout(rollout::Rollout),
    /// Stop all inference, or that of one model
    Stop(serving::Stop),
    /// Resume inference
    Resume(serving::Resume),
    /// Show where inference is stopped, and who obeys
    Serving(serving::Serving),
    /// Show devices, put them into rings, revoke them
    Devices(devices::Devices),
    /// Show and set flags
    Flags(flags::Flags),
    /// Show what devices count against their package's reference
    Drift(drift::Drift),
    /// Show who may do what; make and revoke tokens
    Tokens(tokens::Tokens),
    /// Show your tenant and change its settings
    Tenant(tenants::Tenant),
    /// Show, make and change all tenants
    Tenants(tenants::Tenants),
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
            Action::Packages(packages) => packages.run(&profile::client()?, json),
            Action::Tokens(tokens) => tokens.run(&profile::client()?, json),
            Action::Tenant(tenant) => tenant.run(&profile::client()?, json),
            Action::Tenants(tenants) => tenants.run(&profile::client()?, json),
            Action::Rollout(rollout) => rollout.run(&profile::client()?, json),
            Action::Stop(stop) => stop.run(&profile::client()?, json),
            Action::Resume(resume) => resume.run(&profile::client()?, json),
            Action::Serving(serving) => serving.run(&profile::client()?, json),
            Action::Devices(devices) => devices.run(&profile::client()?, json),
            Action::Flags(flags) => flags.run(&profile::client()?, json),
            Action::Drift(drift) => drift.run(&profile::client()?, json),
            Action::Alerts(alerts) => alerts.run(&profile::client()?, json),
            Action::Audit(audit) => audit.run(&profile::client()?, json),
        }
    }
}
