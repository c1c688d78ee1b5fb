//! `dunlin fleet alerts` and `dunlin fleet audit`: what happened.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::view::{text, time};
use super::watch::Watch;
use crate::failure::{Code, Failure, Outcome};
use crate::table::table;
use crate::trust::hex;

/// Shows and acknowledges alerts.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Alerts {
    /// Show only open alerts
    #[arg(long)]
    open: bool,
    /// Acknowledge this alert
    #[arg(long, value_name = "NUMBER")]
    acknowledge: Option<u64>,
    #[command(flatten)]
    watch: Watch,
}

impl Alerts {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        if let Some(n) = self.acknowledge {
            client.call("POST", &format!("/v1/alerts/{n}/acknowledge"), &Value::Null)?;
        }
        self.watch.run(client, json, |client| {
            let mut all = client.all("/v1/alerts", "n", usize::MAX)?;
            all.retain(|a| !self.open || a["state"] == "open");
            let mut out = String::new();
            for alert in &all {
                let who = match (alert["acknowledged_by"].as_str(), text(alert, "state")) {
                    (Some(who), _) => format!("{who} looks after it since {}", time(&alert["acknowledged"])),
                    (None, "resolved") => "nobody acknowledged it".to_owned(),
                    (None, _) => format!("open: `dunlin fleet alerts --acknowledge {}`", alert["n"]),
                };
                let (n, kind, severity) = (&alert["n"], text(alert, "kind"), text(alert, "severity"));
                out.push_str(&format!(
                    "{n}  {}  {kind}  {severity}\n   {}\n",
                    time(&alert["time"]),
                    text(alert, "text")
                ));
                if alert["resolved"].is_u64() {
                    out.push_str(&format!("   resolved {}\n", time(&alert["resolved"])));
                }
                out.push_str(&format!("   {who}\n"));
            }
            if out.is_empty() {
                out.push_str(if self.open { "no open alerts\n" } else { "no alerts\n" });
            }
            Ok((Value::Array(all), out, false))
        })
    }
}

/// Shows the audit log.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Audit {
    /// Maximum number of entries, newest first
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Verify the hash chain of the whole log
    #[arg(long)]
    verify: bool,
}

/// What is wrong with the chain, as of the entry that it begins at; nothing: it is whole.
fn broken(entries: &[Value], tenant: &str) -> Option<String> {
    let mut before: Option<&Value> = None;
    for (entry, expected) in entries.iter().zip(1u64..) {
        let n = &entry["n"];
        if n.as_u64() != Some(expected) {
            return Some(format!("entry {expected} is missing"));
        }
        if before.is_some_and(|b| b["hash"] != entry["previous"]) {
            return Some(format!("entry {n} does not follow the one before it"));
        }
        // As the server computes it: lengths before the fields, so that no two entries have the same bytes.
        let mut hash = Sha256::new();
        let field = |key| text(entry, key);
        for part in [field("previous"), tenant, field("actor"), field("action"), field("object"), field("detail")] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(expected.cast_signed().to_le_bytes());
        hash.update(entry["time"].as_i64().unwrap_or(0).to_le_bytes());
        if hex(&hash.finalize()) != field("hash") {
            return Some(format!("entry {n} is not as it was written"));
        }
        before = Some(entry);
    }
    None
}

impl Audit {
    /// Does it.
    ///
    /// # Errors
    /// [`Code::Untrusted`] when `--verify` finds that the chain was changed.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let all = client.all("/v1/audit", "n", usize::MAX)?;
        let newest = &all[all.len().saturating_sub(self.limit)..];
        let mut verified = None;
        if self.verify {
            let tenant = client.get("/v1/tenant")?;
            if let Some(what) = broken(&all, text(&tenant, "id")) {
                let text = format!(
                    "the audit log was changed: {what}\n  hint: compare with the heads that you keep elsewhere"
                );
                return Err(Failure::new(Code::Untrusted, text));
            }
            verified = Some(all.last().map_or(Value::Null, |e| e["hash"].clone()));
        }
        if json {
            println!("{}", json!({ "entries": newest, "count": all.len(), "verified_head": verified }));
            return Ok(());
        }
        let mut rows = vec![["n", "time", "who", "what", "of", "with"].map(str::to_owned).to_vec()];
        for entry in newest {
            let cell = |key: &str| text(entry, key).chars().take(100).collect::<String>();
            rows.push(vec![
                entry["n"].to_string(),
                time(&entry["time"]),
                cell("actor"),
                cell("action"),
                cell("object"),
                cell("detail"),
            ]);
        }
        print!("{}", table(&rows, &[0]));
        if let Some(head) = verified {
            println!(
                "\nall {} entries are as they were written; the head is {}",
                all.len(),
                head.as_str().unwrap_or("-")
            );
        }
        Ok(())
    }
}
