//! `dunlin fleet packages`: what is published, and what devices measured while they ran it.

use indicatif::ProgressBar;
use serde_json::Value;

use super::client::Client;
use super::draft;
use super::view::{short, text, time};
use crate::failure::{Code, Failure, Outcome};
use crate::table::{grouped, table};

/// Bytes of a package that is fetched.
const MOST: u64 = 1 << 30;

/// Shows published packages and their telemetry, or downloads one.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Packages {
    /// Package: 6 or more digits of its digest, NAME@VERSION or file
    package: Option<String>,
    /// Print telemetry of the last HOURS, by arm
    #[arg(long, value_name = "HOURS", requires = "package", num_args = 0..=1, default_missing_value = "24")]
    telemetry: Option<u32>,
    /// Download the package to this file
    #[arg(short, long, value_name = "FILE", requires = "package", conflicts_with = "telemetry")]
    output: Option<String>,
}

impl Packages {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses; [`Code::File`] for a file that cannot be written.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let Some(package) = &self.package else {
            let all = client.all("/v1/packages", "digest", usize::MAX)?;
            print(&Value::Array(all.clone()), json, || list(&all));
            return Ok(());
        };
        let digest = draft::digest(client, package)?;
        if let Some(hours) = self.telemetry {
            let sums = client.get(&format!("/v1/packages/{digest}/telemetry?hours={hours}"))?;
            print(&sums, json, || measured(&sums, hours));
            return Ok(());
        }
        let one = client.get(&format!("/v1/packages/{digest}"))?;
        if let Some(file) = &self.output {
            let bytes = client.download(&format!("/v1/packages/{digest}/content"), MOST, &ProgressBar::hidden())?;
            std::fs::write(file, bytes)
                .map_err(|e| Failure::new(Code::File, format!("'{file}' cannot be written: {e}")))?;
        }
        print(&one, json, || format!("{}{}\n", list(std::slice::from_ref(&one)), text(&one, "digest")));
        Ok(())
    }
}

fn print(value: &Value, json: bool, text: impl FnOnce() -> String) {
    if json { println!("{value}") } else { print!("{}", text()) }
}

fn list(packages: &[Value]) -> String {
    if packages.is_empty() {
        return "nothing is published\n  hint: `dunlin fleet publish`\n".into();
    }
    let heading = ["model", "version", "release", "counter", "target", "bytes", "digest", "published"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for package in packages {
        rows.push(vec![
            text(package, "name").into(),
            text(package, "version").into(),
            package["number"].to_string(),
            package["counter"].to_string(),
            text(package, "target").into(),
            package["len"].as_u64().map_or_else(String::new, grouped),
            short(text(package, "digest")).into(),
            time(&package["published"]),
        ]);
    }
    table(&rows, &[2, 3, 5])
}

fn measured(sums: &Value, hours: u32) -> String {
    let arms = sums.as_array().map_or(&[][..], Vec::as_slice);
    if arms.is_empty() {
        return format!("fewer than ten devices of any arm reported it in {hours} hours\n");
    }
    let heading = ["arm", "devices", "reports", "inferences", "errors", "deadline misses", "shadow runs", "disagreed"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for arm in arms {
        let number = |value: &Value| value.as_u64().map_or_else(String::new, grouped);
        let counter = |name: &str| number(&arm["sums"]["counters"][name]);
        let counters = arm["sums"]["counters"].as_object().into_iter().flatten();
        let errors = counters.filter(|(name, _)| name.ends_with("_errors")).filter_map(|(_, n)| n.as_u64()).sum();
        rows.push(vec![
            text(arm, "arm").into(),
            number(&arm["devices"]),
            number(&arm["reports"]),
            counter("inferences"),
            grouped(errors),
            counter("deadline_misses"),
            counter("shadow_runs"),
            counter("shadow_disagreements"),
        ]);
    }
    table(&rows, &[1, 2, 3, 4, 5, 6, 7])
}
