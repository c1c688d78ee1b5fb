//! `dunlin fleet devices`: who is in the fleet, and what they run.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::rollout::confirmed;
use super::view::{short, text, time};
use crate::failure::{Code, Failure, Outcome};
use crate::table::{grouped, table};

/// Shows devices, one device, or what all run; puts a device into a ring; revokes one.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Devices {
    /// One device: its id
    device: Option<String>,
    /// Only devices with this model
    #[arg(long)]
    model: Option<String>,
    /// Only devices that run this digest
    #[arg(long)]
    running: Option<String>,
    /// Only devices of this ring
    #[arg(long)]
    ring: Option<u8>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// How many devices run what, in the place of a list
    #[arg(long, conflicts_with_all = ["device", "set_ring"])]
    census: bool,
    /// Put the device into this ring, 0 for the laboratory; `none` takes it out
    #[arg(long, value_name = "RING", requires = "device")]
    set_ring: Option<String>,
    /// Believe the device no more: its requests are refused, and its key cannot enrol again
    #[arg(long, requires = "device", conflicts_with = "set_ring")]
    revoke: bool,
    /// Do not ask
    #[arg(short, long, requires = "revoke")]
    yes: bool,
}

impl Devices {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        match (&self.device, &self.set_ring) {
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
                            format!("'{text}' is no ring\n  hint: a number from 0 to 255, or none"),
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
                let list = client.all(&self.path(), "id", self.limit)?;
                let list_is_full = list.len() == self.limit;
                show(&Value::Array(list.clone()), json, || {
                    let rows: Vec<Vec<String>> = std::iter::once(heading()).chain(list.iter().map(row)).collect();
                    let more = if list_is_full { "\nThere may be more: --limit\n" } else { "" };
                    format!("{}{more}", table(&rows, &[3]))
                });
            }
        }
        Ok(())
    }

    fn path(&self) -> String {
        let mut path = "/v1/devices?".to_owned();
        let ring = self.ring.map(|r| r.to_string());
        for (key, value) in [("model", &self.model), ("running", &self.running), ("ring", &ring)] {
            if let Some(value) = value {
                path.push_str(&format!("{key}={}&", escaped(value)));
            }
        }
        path.truncate(path.len() - 1);
        path
    }

    fn count(&self, client: &Client, json: bool) -> Outcome<()> {
        let all = client.all(&self.path(), "id", usize::MAX)?;
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
