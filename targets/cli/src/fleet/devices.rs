//! `dunlin fleet devices`: who is in the fleet, and what they run.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::draft::{SHORTEST_DIGEST, digest};
use super::rollout::confirmed;
use super::view::{short, text, time};
use crate::failure::{Code, Failure, Outcome};
use crate::table::{grouped, table};

/// Shows devices, assigns rings, revokes devices.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Devices {
    /// Show one device, by its id or 4 or more of its first digits
    device: Option<String>,
    /// Show only devices with this model
    #[arg(long)]
    model: Option<String>,
    /// Show only devices that run this package
    ///
    /// A digest or 6 or more of its first digits, NAME@VERSION, or a package's file.
    #[arg(long, value_name = "PACKAGE")]
    running: Option<String>,
    /// Show only devices of this ring
    #[arg(long)]
    ring: Option<u8>,
    /// Maximum number of devices
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print device counts per version instead of a list
    #[arg(long, conflicts_with_all = ["device", "set_ring"])]
    census: bool,
    /// Assign the device to a ring, 0 for the laboratory, or 'none'
    #[arg(long, value_name = "RING", requires = "device")]
    set_ring: Option<String>,
    /// Revoke the device: its requests are refused from now on
    #[arg(long, requires = "device", conflicts_with = "set_ring")]
    revoke: bool,
    /// Do not ask for confirmation
    #[arg(short, long, requires = "revoke")]
    yes: bool,
}

/// Fewest digits that stand for a device's id.
const SHORTEST_ID: usize = 4;

impl Devices {
    /// Runs the command.
    ///
    /// # Errors
    /// The server's refusal with its hint.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let device = self.device.as_deref().map(|id| whole_id(client, id)).transpose()?;
        match (&device, &self.set_ring) {
            (Some(id), _) if self.revoke => {
                confirmed(&format!("Revoke {id}, for good?"), self.yes)?;
                let revoked = client.call("DELETE", &format!("/v1/devices/{}", escaped(id)), &Value::Null)?;
                show(&revoked, json, || {
                    format!("{id} is revoked since {}, by {}\n", time(&revoked["time"]), text(&revoked, "who"))
                });
            }
            (Some(id), Some(ring)) => {
                let ring = match ring.as_str() {
                    "none" => Value::Null,
                    text => text.parse::<u8>().map(Value::from).map_err(|_| {
                        Failure::new(
                            Code::Usage,
                            format!("invalid ring '{text}'\n  hint: a number from 0 to 255, or none"),
                        )
                    })?,
                };
                let device = client.call("PATCH", &format!("/v1/devices/{}", escaped(id)), &json!({ "ring": ring }))?;
                show(&device, json, || table(&[heading(), row(&device)], &[3]));
            }
            (Some(id), None) => {
                let one = client.get(&format!("/v1/devices/{}", escaped(id)))?;
                show(&one, json, || history(&one));
            }
            (None, _) if self.census => self.count(client, json)?,
            (None, _) => {
                let list = client.all(&self.path(client)?, "id", self.limit)?;
                let list_is_full = list.len() == self.limit;
                show(&Value::Array(list.clone()), json, || {
                    let rows: Vec<Vec<String>> = std::iter::once(heading()).chain(list.iter().map(row)).collect();
                    table(&rows, &[3])
                });
                if list_is_full {
                    eprintln!("the first {} devices; there may be more\n  hint: raise --limit", self.limit);
                }
            }
        }
        Ok(())
    }

    fn path(&self, client: &Client) -> Outcome<String> {
        let mut path = "/v1/devices?".to_owned();
        let ring = self.ring.map(|r| r.to_string());
        let running = match self.running.as_deref() {
            // What devices run need not be published: the server knows both.
            Some(text) if is_digits(text) && !std::path::Path::new(text).is_file() => Some(text.to_lowercase()),
            Some(text) => Some(digest(client, text)?),
            None => None,
        };
        for (key, value) in [("model", &self.model), ("running", &running), ("ring", &ring)] {
            if let Some(value) = value {
                path.push_str(&format!("{key}={}&", escaped(value)));
            }
        }
        path.truncate(path.len() - 1);
        Ok(path)
    }

    fn count(&self, client: &Client, json: bool) -> Outcome<()> {
        let all = client.all(&self.path(client)?, "id", usize::MAX)?;
        let mut counts = BTreeMap::<(String, String), u64>::new();
        for device in &all {
            let running = device["running"].as_str().unwrap_or("nothing was said");
            *counts.entry((text(device, "model").to_owned(), running.to_owned())).or_default() += 1;
        }
        if json {
            let counts: Vec<Value> =
                counts.iter().map(|((m, d), n)| json!({ "model": m, "running": d, "devices": n })).collect();
            println!("{}", json!({ "devices": all.len(), "running": counts }));
            return Ok(());
        }
        let packages = client.all("/v1/packages", "digest", usize::MAX)?;
        let mut rows = vec![["model", "version", "digest", "devices", ""].map(str::to_owned).to_vec()];
        for ((model, digest), n) in &counts {
            let version = packages.iter().find(|p| text(p, "digest") == digest).map_or("", |p| text(p, "version"));
            let part = 100.0 * *n as f64 / all.len().max(1) as f64;
            rows.push(vec![model.clone(), version.into(), short(digest).into(), grouped(*n), format!("{part:.1} %")]);
        }
        print!("{}", table(&rows, &[3, 4]));
        Ok(())
    }
}

fn is_digits(text: &str) -> bool {
    text.len() >= SHORTEST_DIGEST && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The id that begins so. Ids of 64 digits, and names of another form, are taken as they are.
fn whole_id(client: &Client, text: &str) -> Outcome<String> {
    let short = (SHORTEST_ID..64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !short || client.find(&format!("/v1/devices/{}", escaped(text)))?.is_some() {
        return Ok(text.to_owned());
    }
    let start = text.to_lowercase();
    // Ids come in order: those that begin so come after the last that is less.
    let before: String = start.chars().take(start.len() - 1).collect();
    let mut after = before;
    let mut found: Vec<String> = Vec::new();
    loop {
        let page = client.get(&format!("/v1/devices?limit=1000&after={after}"))?;
        let ids: Vec<String> =
            page.as_array().into_iter().flatten().map(|device| super::view::text(device, "id").to_owned()).collect();
        found.extend(ids.iter().filter(|id| id.starts_with(&start)).cloned());
        match ids.last() {
            Some(last) if ids.len() == 1000 && last.get(..start.len()) <= Some(start.as_str()) => {
                after.clone_from(last)
            }
            _ => break,
        }
    }
    match &found[..] {
        [one] => Ok(one.clone()),
        // The server says that there is none.
        [] => Ok(text.to_owned()),
        several => {
            let these: Vec<&str> = several.iter().take(8).map(String::as_str).collect();
            let text = format!("'{text}' is the beginning of {} devices\n  hint: {}", several.len(), these.join(", "));
            Err(Failure::new(Code::Usage, text))
        }
    }
}

fn show(value: &Value, json: bool, text: impl FnOnce() -> String) {
    if json { println!("{value}") } else { print!("{}", text()) }
}

fn heading() -> Vec<String> {
    ["device", "model", "target", "ring", "runs", "update", "last update", "seen", "reports missed"]
        .map(str::to_owned)
        .to_vec()
}

fn row(device: &Value) -> Vec<String> {
    let last = match (text(device, "last_outcome"), text(device, "last_digest")) {
        ("", _) => String::new(),
        (outcome, digest) => format!("{outcome} of {}", short(digest)),
    };
    vec![
        text(device, "id").into(),
        text(device, "model").into(),
        text(device, "target").into(),
        device["ring"].as_u64().map_or_else(String::new, |r| r.to_string()),
        short(text(device, "running")).into(),
        text(device, "phase").into(),
        last,
        time(&device["seen"]),
        device["missed"].to_string(),
    ]
}

fn history(one: &Value) -> String {
    let device = &one["device"];
    let mut out = table(&[heading(), row(device)], &[3, 8]);
    out.push_str(&format!("\nattributes {}\n", text(device, "attributes")));
    let reports = one["reports"].as_array().map_or(&[][..], Vec::as_slice);
    if reports.is_empty() {
        out.push_str("no reports yet\n");
        return out;
    }
    let mut rows = vec![["boot", "report", "arrived", "bytes", ""].map(str::to_owned).to_vec()];
    for report in reports.iter().take(10) {
        let unknown = if report["known"] == true { "" } else { "of a layout that the server does not know" };
        rows.push(vec![
            report["boot"].to_string(),
            report["seq"].to_string(),
            time(&report["arrived"]),
            (text(report, "bytes").len() / 2).to_string(),
            unknown.into(),
        ]);
    }
    out.push_str(&format!("\nnewest reports\n{}", table(&rows, &[0, 1, 3])));
    out
}
