//! `dunlin fleet root`: the keys that the fleet's devices trust.

use std::path::Path;

use dunlin_update::trust::key_id;
use indicatif::ProgressBar;
use serde_json::Value;

use super::client::Client;
use super::view::text;
use crate::failure::Outcome;
use crate::model;
use crate::trust::{KeyFolder, day, hex, unhex};

/// Shows the current root and the server's key, or uploads newer roots.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Root {
    /// Upload newer root documents of this folder of keys
    #[arg(long)]
    keys: Option<String>,
    /// Print only the server's public key, for `dunlin keys init --rollout-key`
    #[arg(long, conflicts_with = "keys")]
    key: bool,
}

impl Root {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let mut root = client.get("/v1/root")?;
        if let Some(folder) = &self.keys {
            let folder = KeyFolder::new(folder);
            let newest = folder.newest()?.version;
            let known = root["version"].as_u64().unwrap_or(0);
            for version in (1..=newest).filter(|v| u64::from(*v) > known) {
                let bytes = read(&folder.root_file(version))?;
                root = client.upload("/v1/root", &[], &bytes, &ProgressBar::hidden())?;
            }
        }
        if self.key {
            println!("{}", text(&root, "server_key"));
        } else if json {
            println!("{root}");
        } else {
            print!("{}", shown(&root));
        }
        Ok(())
    }
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    model::read(&path.display().to_string())
}

fn shown(root: &Value) -> String {
    let key = text(root, "server_key");
    let mut out = match root["version"].as_u64() {
        None | Some(0) => "no root yet\n".to_owned(),
        Some(version) => format!("root {version}, until {}\n", day(root["expires"].as_u64().unwrap_or(0))),
    };
    let id = unhex::<32>(key).map_or(String::new(), |key| hex(&key_id(&key)));
    out.push_str(&format!("the server signs rollouts with {key}, identifier {id}\n"));
    if let Some(problem) = root["problem"].as_str() {
        out.push_str(&format!(
            "{problem}\n  hint: `dunlin keys init FOLDER --rollout-key {key}`, or `dunlin keys rotate FOLDER --role rollout --by {key}`;\n  then `dunlin fleet root --keys FOLDER`\n"
        ));
    }
    out
}
