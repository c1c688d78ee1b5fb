//! `dunlin fleet tokens`: who may do what.

use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::rollout::confirmed;
use super::view::{text, time};
use crate::failure::Outcome;
use crate::table::table;

/// Shows tokens, makes one, and revokes one.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Tokens {
    #[command(subcommand)]
    action: Option<Action>,
}

/// What is done with tokens.
#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Show them, without their secrets
    List,
    /// Make one, and print its secret, which is kept nowhere
    New {
        /// Its name, which the audit log will have
        name: String,
        /// What its owner may do; each role may do what those before it may, but for enrol, which enrols devices alone
        #[arg(value_parser = ["enrol", "viewer", "operator", "approver", "admin"])]
        role: String,
        /// Another tenant's; for the installation's administrators
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Revoke one; its owner's sessions end with it
    Revoke {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

impl Tokens {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
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
        let mut rows = vec![["token", "role", "made", "revoked"].map(str::to_owned).to_vec()];
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
