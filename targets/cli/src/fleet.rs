//! `dunlin fleet`: what operators do with a fleet server.

pub mod client;
mod context;
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
pub(crate) use profile::{contexts, names};

/// Works with a fleet server.
///
/// Address and token are those of --context, of the environment (DUNLIN_FLEET_URL and DUNLIN_FLEET_TOKEN), or of the context
/// that `login` and `use` select. Where a digest is asked for, 6 or more of its first digits are enough.
#[derive(clap::Args, Clone, Debug)]
pub struct Fleet {
    /// Server to use, by the name that `login` gave it
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Store a server's address and your token
    Login(profile::Login),
    /// List the servers that `login` has stored
    Contexts(profile::List),
    /// Select the server for later commands
    Use(profile::Use),
    /// Show the server, and the token's name, role and tenant
    Whoami(profile::Whoami),
    /// Remove a server's address and token from this machine
    Logout(profile::Logout),
    /// Show or upload the keys that devices trust
    Root(root::Root),
    /// Publish a package, its release, and deltas to it
    Publish(publish::Publish),
    /// Show published packages and their telemetry
    Packages(packages::Packages),
    /// Roll a package out in stages
    Rollout(rollout::Rollout),
    /// Stop all inference, or that of one model
    Stop(serving::Stop),
    /// Resume inference
    Resume(serving::Resume),
    /// Show where inference is stopped, and who obeys
    Serving(serving::Serving),
    /// Show devices, assign rings, revoke devices
    Devices(devices::Devices),
    /// Show and set flags
    Flags(flags::Flags),
    /// Show drift of devices against their package's reference
    Drift(drift::Drift),
    /// List, create and revoke tokens
    Tokens(tokens::Tokens),
    /// Show your tenant or change its settings
    Tenant(tenants::Tenant),
    /// List, create and change tenants
    Tenants(tenants::Tenants),
    /// Show and acknowledge alerts
    Alerts(journal::Alerts),
    /// Show the audit log and verify its hash chain
    Audit(journal::Audit),
}

impl Fleet {
    /// Runs the command.
    ///
    /// # Errors
    /// The server's refusal with its hint, or why it cannot be reached.
    pub fn run(&self, json: bool) -> Outcome<()> {
        profile::select(self.context.as_deref());
        match &self.action {
            Action::Login(login) => login.run(json),
            Action::Contexts(list) => list.run(json),
            Action::Use(select) => select.run(json),
            Action::Logout(logout) => logout.run(json),
            Action::Whoami(whoami) => whoami.run(&profile::client()?, json),
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
