//! `dunlin fleet drift`: what devices count now against the reference in their package.

use serde_json::Value;

use super::client::Client;
use super::draft::digest;
use super::view::{short, text, time};
use super::watch::Watch;
use crate::failure::Outcome;
use crate::table::{grouped, table};

/// Shows drift of devices against their package's reference.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Drift {
    /// Package: 6 or more digits of its digest, NAME@VERSION or file
    #[arg(long)]
    package: Option<String>,
    /// Cohort: all, rest, control, candidate or shadow
    #[arg(long)]
    cohort: Option<String>,
    /// Hours back from now, 1 to 168 [default: 24]
    #[arg(long)]
    hours: Option<u32>,
    /// Show the verdicts of the last N days
    #[arg(long, value_name = "N", requires = "package", conflicts_with_all = ["hours", "cohort"])]
    days: Option<u32>,
    /// Show open alarms: drift on two consecutive days
    #[arg(long, conflicts_with_all = ["package", "cohort", "hours", "days"])]
    alarms: bool,
    #[command(flatten)]
    watch: Watch,
}

impl Drift {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        let package = self.package.as_deref().map(|p| digest(client, p)).transpose()?;
        let path = match (&package, self.days) {
            _ if self.alarms => "/v1/drift/alarms".to_owned(),
            (Some(package), Some(days)) => format!("/v1/drift/{package}/windows?days={days}"),
            _ => {
                let hours = self.hours.map(|h| h.to_string());
                let asked = [("digest", &package), ("cohort", &self.cohort), ("hours", &hours)];
                let asked: Vec<String> =
                    asked.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?))).collect();
                format!("/v1/drift?{}", asked.join("&"))
            }
        };
        self.watch.run(client, json, |client| {
            let list = client.get(&path)?;
            let all = list.as_array().map_or(&[][..], Vec::as_slice);
            let shown = match () {
                () if self.alarms => alarms(all),
                () if self.days.is_some() => days(all),
                () => now(all),
            };
            Ok((list.clone(), shown, false))
        })
    }
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"))
}

/// A level as people say it.
fn level(value: &Value) -> String {
    match text(value, "level") {
        "not_enough_data" => "not enough data".to_owned(),
        "act" => "ACT".to_owned(),
        other => other.to_owned(),
    }
}

fn verdicts(of: &Value) -> String {
    let mut rows = vec![
        ["", "subject", "statistic", "value", "interval", "warn", "act", "level", "inferences"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for v in of["verdicts"].as_array().into_iter().flatten() {
        let interval = match (v["low"].as_f64(), v["high"].as_f64()) {
            (Some(low), Some(high)) => format!("{low:.3} to {high:.3}"),
            _ => String::new(),
        };
        rows.push(vec![
            String::new(),
            text(v, "subject").into(),
            text(v, "statistic").replace('_', " "),
            number(&v["value"]),
            interval,
            number(&v["warn"]),
            number(&v["act"]),
            level(v),
            v["n"].as_u64().map_or_else(String::new, grouped),
        ]);
    }
    if rows.len() > 1 { table(&rows, &[3, 5, 6, 8]) } else { String::new() }
}

fn now(all: &[Value]) -> String {
    let mut out = String::new();
    for one in all {
        let name = match one["model"].as_str() {
            Some(model) => format!("{model} {}", text(one, "version")),
            None => "a package that was never published here".to_owned(),
        };
        let digest = short(text(one, "digest"));
        let devices = one["devices"].as_u64().unwrap_or(0);
        out.push_str(&format!(
            "{name} ({digest}), cohort {}, {} devices since {}: {}\n",
            text(one, "cohort"),
            grouped(devices),
            time(&one["from"]),
            level(one)
        ));
        if one["has_reference"] == false {
            out.push_str("  the package brings no reference to compare with: `dunlin calibrate` writes one\n");
        }
        out.push_str(&verdicts(one));
        for (subject, standing) in one["alarms"].as_object().into_iter().flatten() {
            out.push_str(&format!("  alarm: {subject} since {}, {}\n", time(&standing["since"]), level(standing)));
        }
    }
    if out.is_empty() { "no reports in this time\n".into() } else { out }
}

fn days(all: &[Value]) -> String {
    if all.is_empty() {
        return "no day was judged yet\n".into();
    }
    let mut rows = vec![["day", "cohort", "devices", "level", "gravest"].map(str::to_owned).to_vec()];
    for one in all {
        let grave = one["verdicts"].as_array().into_iter().flatten().find(|v| v["level"] == one["level"]);
        rows.push(vec![
            time(&one["from"]),
            text(one, "cohort").into(),
            one["devices"].to_string(),
            level(one),
            grave.map_or_else(String::new, |v| format!("{} {}", text(v, "subject"), number(&v["value"]))),
        ]);
    }
    table(&rows, &[2])
}

fn alarms(all: &[Value]) -> String {
    let mut rows = vec![["package", "cohort", "subject", "level", "since", "alert"].map(str::to_owned).to_vec()];
    for one in all {
        for (subject, standing) in one["alarms"].as_object().into_iter().flatten() {
            rows.push(vec![
                short(text(one, "digest")).into(),
                text(one, "cohort").into(),
                subject.clone(),
                level(standing),
                time(&standing["since"]),
                standing["alert"].as_u64().map_or_else(String::new, |n| n.to_string()),
            ]);
        }
    }
    if rows.len() > 1 { table(&rows, &[5]) } else { "no alarms stand\n".into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn verdicts_are_shown_with_their_numbers() {
        let one = json!({ "digest": "0123456789abcdef", "model": "digits", "version": "3", "cohort": "all", "devices": 20,
            "has_reference": true, "level": "act", "from": 60, "alarms": { "confidence": { "level": "act", "since": 60 } },
            "verdicts": [{ "subject": "confidence", "statistic": "jensen_shannon", "level": "act", "value": 0.31, "low": 0.28,
                "high": 0.34, "n": 1234, "warn": 0.1, "act": 0.2 }] });
        let text = now(&[one]);
        for part in [
            "digits 3 (0123456789ab), cohort all, 20 devices since 1970-01-01 00:01: ACT",
            "0.280 to 0.340",
            "1,234",
            "alarm: confidence",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert_eq!(now(&[]), "no reports in this time\n");
    }
}
