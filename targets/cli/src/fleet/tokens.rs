//! `dunlin fleet tokens`: who may do what.

use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::rollout::confirmed;
use super::view::{text, time};
use crate::failure::Outcome;
use crate::table::table;

/// Lists, creates and revokes tokens.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Tokens {
    #[command(subcommand)]
    action: Option<Action>,
}

/// What is done with tokens.
#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// List tokens, without their secrets
    List,
    /// Create a token and print its secret once
    New {
        /// Name of the token, for the audit log
        name: String,
        /// Role; each includes those before it, except enrol
        #[arg(value_parser = ["enrol", "viewer", "operator", "approver", "admin"])]
        role: String,
        /// Tenant; only for administrators of the installation
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Revoke a token and end its sessions
    Revoke {
        /// Name of the token
        name: String,
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

impl Tokens {
    /// Runs the command.
    ///
    /// # Errors
    /// The server's refusal with its hint.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let list = match &self.action {
            None | Some(Action::List) => client.get("/v1/tokens")?,
            Some(Action::New { name, role, tenant }) => {
                let wanted = json!({ "role": role, "tenant": tenant });
                let made = client.call("PUT", &path(name), &wanted)?;
                if json {
                    println!("{made}");
                } else {
                    eprintln!("the secret of {name} ({role}), shown this once:");
                    println!("{}", text(&made, "secret"));
                }
                return Ok(());
            }
            Some(Action::Revoke { name, yes }) => {
                confirmed(&format!("Revoke the token {name}?"), *yes)?;
                client.call("DELETE", &path(name), &Value::Null)?
            }
        };
        if json {
            println!("{list}");
            return Ok(());
        }
        let mut rows = vec![["token", "role", "created", "revoked"].map(str::to_owned).to_vec()];
        for token in list.as_array().into_iter().flatten() {
            let revoked = if token["revoked"].is_null() { String::new() } else { time(&token["revoked"]) };
            rows.push(vec![text(token, "name").into(), text(token, "role").into(), time(&token["created"]), revoked]);
        }
        print!("{}", table(&rows, &[]));
        Ok(())
    }
}

fn path(name: &str) -> String {
    format!("/v1/tokens/{}", escaped(name))
}
