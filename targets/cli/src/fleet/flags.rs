//! `dunlin fleet flags`: what is set, whom it reaches, and the switch that turns a feature off everywhere.

mod set;

use serde_json::{Map, Value, json};

use super::client::{Client, escaped};
use super::rollout::confirmed;
use super::view::text;
use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::table::table;

/// The key of the kill switch.
const SERVE: &str = "dunlin.serve";

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
    /// Create or change one flag
    Set(Box<set::Set>),
    /// Delete a flag: devices keep their compiled-in default
    Delete {
        /// Its key
        key: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Show how many devices get which variant
    Preview {
        /// Its key; all flags when absent
        key: Option<String>,
    },
    /// Print the JSON Schema of the document, with an example
    Schema,
    /// Replace all flags with those of a JSON file
    Put {
        /// The file; it has the version that it replaces
        file: String,
        /// Show what would change and for whom, store nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Turn a flag off everywhere: no rule is looked at
    Kill {
        /// Its key
        key: String,
        /// Do not ask before all inference is stopped
        #[arg(short, long)]
        yes: bool,
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
            Some(Action::Set(set)) => return set.run(client, json),
            Some(Action::Delete { key, yes }) => delete(client, key, *yes)?,
            Some(Action::Preview { key }) => return preview(client, key.as_deref(), json),
            Some(Action::Schema) => {
                println!("{:#}", schema(&client.get("/openapi.json")?));
                return Ok(());
            }
            Some(Action::Put { file, dry_run }) => {
                let wanted: Value = serde_json::from_slice(&model::read(file)?)
                    .map_err(|e| Failure::damaged(file, format!("is no JSON: {e}")))?;
                return put(client, &wanted, *dry_run, json);
            }
            Some(Action::Kill { key, yes }) => {
                if key == SERVE {
                    confirmed("Stop ALL inference of the fleet?", *yes)?;
                }
                switch(client, key, true)?
            }
            Some(Action::Revive { key }) => switch(client, key, false)?,
        };
        print(&flags, json, shown);
        Ok(())
    }
}

fn print(value: &Value, json: bool, shown: impl Fn(&Value) -> String) {
    if json {
        println!("{value}");
    } else {
        print!("{}", shown(value));
    }
}

fn all(flags: &Value) -> &[Value] {
    flags["flags"].as_array().map_or(&[][..], Vec::as_slice)
}

/// The place of a flag among all.
fn place(flags: &Value, key: &str) -> Outcome<usize> {
    all(flags).iter().position(|f| f["key"] == key).ok_or_else(|| {
        let keys: Vec<&str> = all(flags).iter().map(|f| text(f, "key")).collect();
        let hint = if keys.is_empty() { "there are none".to_owned() } else { format!("there are {}", keys.join(", ")) };
        Failure::new(Code::Usage, format!("there is no flag '{key}'\n  hint: {hint}"))
    })
}

/// Stores flags, or shows what they would change.
fn put(client: &Client, wanted: &Value, dry_run: bool, json: bool) -> Outcome<()> {
    if dry_run {
        let plan = client.call("PUT", "/v1/flags?dry_run=true", wanted)?;
        print(&plan, json, planned);
    } else {
        print(&client.call("PUT", "/v1/flags", wanted)?, json, shown);
    }
    Ok(())
}

fn switch(client: &Client, key: &str, killed: bool) -> Outcome<Value> {
    let mut flags = client.get("/v1/flags")?;
    if key == SERVE && (!killed || place(&flags, key).is_err()) {
        let path = if killed { "/v1/serving/stop" } else { "/v1/serving/resume" };
        client.call("POST", path, &Value::Null)?;
        return client.get("/v1/flags");
    }
    let at = place(&flags, key)?;
    if flags["flags"][at]["killed"] == killed {
        return Ok(flags);
    }
    flags["flags"][at]["killed"] = json!(killed);
    // The version that was read goes along: who changed it meanwhile is not overwritten.
    client.call("PUT", "/v1/flags", &flags)
}

fn delete(client: &Client, key: &str, yes: bool) -> Outcome<Value> {
    let mut flags = client.get("/v1/flags")?;
    let at = place(&flags, key)?;
    confirmed(&format!("Delete the flag {key}? Devices go back to the default that is compiled into them."), yes)?;
    if let Some(list) = flags["flags"].as_array_mut() {
        list.remove(at);
    }
    client.call("PUT", "/v1/flags", &flags)
}

fn preview(client: &Client, key: Option<&str>, json: bool) -> Outcome<()> {
    let path = key.map_or_else(|| "/v1/flags/preview".to_owned(), |k| format!("/v1/flags/preview?key={}", escaped(k)));
    let reach = client.get(&path)?;
    print(&reach, json, |reach| {
        let list = reach.as_array().map_or(&[][..], Vec::as_slice);
        let mut out: String = list.iter().map(reached).collect();
        if list.is_empty() {
            out.push_str("no flags\n");
        }
        out
    });
    Ok(())
}

/// Which devices get which variant, as text.
fn reached(reach: &Value) -> String {
    let mut out = format!("{}: {} devices\n", text(reach, "key"), reach["devices"]);
    let devices = reach["devices"].as_f64().unwrap_or(0.0);
    let mut line = |name: &str, n: &Value| {
        let share = n.as_f64().unwrap_or(0.0) / devices.max(1.0) * 100.0;
        out.push_str(&format!("   {name:<20} {n:>9}  {share:.1} %\n"));
    };
    for (name, n) in reach["variants"].as_object().into_iter().flatten() {
        line(name, n);
    }
    if reach["compiled_in"] != 0 {
        line("(compiled in)", &reach["compiled_in"]);
    }
    let unknown: Vec<&str> =
        reach["unknown_attributes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !unknown.is_empty() {
        out.push_str(&format!("   no device enrolled with: {}\n", unknown.join(", ")));
    }
    out
}

fn planned(plan: &Value) -> String {
    let changes = plan["changes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut out = String::new();
    for change in changes {
        out.push_str(&format!("{} {}\n", text(change, "change"), text(change, "key")));
        for (name, sign) in [("before", "-"), ("after", "+")] {
            if change[name].is_object() {
                let lines = reached(&change[name]);
                lines.lines().skip(1).for_each(|l| out.push_str(&format!(" {sign}{l}\n")));
            }
        }
    }
    if out.is_empty() {
        out.push_str("nothing would change\n");
    }
    out + "nothing is stored\n"
}

/// Names of schemas that a schema refers to.
fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_str().and_then(|r| r.strip_prefix("#/components/schemas/"))) {
                    ("$ref", Some(name)) if !found.iter().any(|n| n == name) => found.push(name.to_owned()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// The JSON Schema of the flags document alone.
fn schema(openapi: &Value) -> Value {
    let all = &openapi["components"]["schemas"];
    let mut names = vec!["FlagsBody".to_owned()];
    let mut schemas = Map::new();
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        references(&all[&name], &mut names);
        schemas.insert(name.clone(), all[&name].clone());
        at += 1;
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "#/components/schemas/FlagsBody",
        "examples": [all["FlagsBody"]["example"]], "components": { "schemas": schemas },
    })
}

fn shown(flags: &Value) -> String {
    let ttl = match flags["ttl"].as_u64() {
        None | Some(0) => "never stale".to_owned(),
        Some(seconds) => format!("stale after {seconds} seconds without news"),
    };
    let mut out = format!("version {}, {ttl}\n", flags["version"]);
    if all(flags).is_empty() {
        return out + "no flags\n";
    }
    let mut rows = vec![["flag", "", "default", "variants", "rules"].map(str::to_owned).to_vec()];
    for flag in all(flags) {
        let pairs = flag["variants"].as_object().into_iter().flatten();
        let variants: Vec<String> = pairs.map(|(name, value)| format!("{name}={value}")).collect();
        let name = |n: &Value| n.as_str().unwrap_or("compiled in").to_owned();
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
