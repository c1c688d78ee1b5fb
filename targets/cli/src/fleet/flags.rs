//! `dunlin fleet flags`: what is set, and the switch that turns a feature off everywhere.

use serde_json::{Value, json};

use super::client::Client;
use super::view::text;
use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::table::table;

/// Shows and sets flags.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Flags {
    #[command(subcommand)]
    action: Option<Action>,
}

/// What is done with flags.
#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Show them; as --json what `put` takes
    Show,
    /// Replace all flags with those of a file of JSON, which has the version that it replaces
    Put {
        /// The file
        file: String,
    },
    /// Turn a flag off everywhere: no rule is looked at
    Kill {
        /// Its key
        key: String,
    },
    /// Let a flag's rules decide again
    Revive {
        /// Its key
        key: String,
    },
}

impl Flags {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let flags = match &self.action {
            None | Some(Action::Show) => client.get("/v1/flags")?,
            Some(Action::Put { file }) => {
                let wanted: Value = serde_json::from_slice(&model::read(file)?)
                    .map_err(|e| Failure::damaged(file, format!("is no JSON: {e}")))?;
                client.call("PUT", "/v1/flags", &wanted)?
            }
            Some(Action::Kill { key }) => switch(client, key, true)?,
            Some(Action::Revive { key }) => switch(client, key, false)?,
        };
        if json {
            println!("{flags}");
        } else {
            print!("{}", shown(&flags));
        }
        Ok(())
    }
}

fn switch(client: &Client, key: &str, killed: bool) -> Outcome<Value> {
    let mut flags = client.get("/v1/flags")?;
    let all = flags["flags"].as_array_mut().into_iter().flatten();
    let keys: Vec<String> = all.map(|f| text(f, "key").to_owned()).collect();
    let Some(at) = keys.iter().position(|k| k == key) else {
        let hint = if keys.is_empty() { "there are none".to_owned() } else { format!("there are {}", keys.join(", ")) };
        return Err(Failure::new(Code::Usage, format!("there is no flag '{key}'\n  hint: {hint}")));
    };
    if flags["flags"][at]["killed"] == killed {
        return Ok(flags);
    }
    flags["flags"][at]["killed"] = json!(killed);
    // The version that was read goes along: who changed it meanwhile is not overwritten.
    client.call("PUT", "/v1/flags", &flags)
}

fn shown(flags: &Value) -> String {
    let all = flags["flags"].as_array().map_or(&[][..], Vec::as_slice);
    let ttl = match flags["ttl"].as_u64() {
        None | Some(0) => "never stale".to_owned(),
        Some(seconds) => format!("stale after {seconds} seconds without news"),
    };
    let mut out = format!("version {}, {ttl}\n", flags["version"]);
    if all.is_empty() {
        return out + "no flags\n";
    }
    let mut rows = vec![["flag", "", "default", "variants", "rules"].map(str::to_owned).to_vec()];
    for flag in all {
        let variants: Vec<String> = flag["variants"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|v| {
                let value = v[1].as_object().and_then(|o| o.values().next()).unwrap_or(&v[1]);
                format!("{}={value}", v[0].as_str().unwrap_or_default())
            })
            .collect();
        let name = |n: &Value| {
            let name = n.as_u64().and_then(|n| flag["variants"][n as usize][0].as_str());
            name.unwrap_or("compiled in").to_owned()
        };
        rows.push(vec![
            text(flag, "key").into(),
            if flag["killed"] == true { format!("KILLED: {}", name(&flag["off"])) } else { "in force".into() },
            name(&flag["default"]),
            variants.join(" "),
            flag["rules"].as_array().map_or(0, Vec::len).to_string(),
        ]);
    }
    out.push('\n');
    out.push_str(&table(&rows, &[4]));
    out
}
