//! `dunlin fleet stop`, `resume` and `serving`: the kill switch.

use serde_json::{Value, json};

use super::client::Client;
use super::rollout::confirmed;
use super::view::{text, time};
use crate::failure::Outcome;

/// Stops inference.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Devices obey at their next poll. `dunlin fleet serving` counts those that do.")]
pub(super) struct Stop {
    /// Stop only this model
    #[arg(long)]
    model: Option<String>,
    /// Say why, for the audit log and the alert
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Resumes inference.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Resume {
    /// Resume only this model; without it all stops end
    #[arg(long)]
    model: Option<String>,
    /// Say why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Shows where inference is stopped.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Serving {}

fn print(status: &Value, as_json: bool) {
    if as_json {
        println!("{status}");
    } else {
        print!("{}", shown(status));
    }
}

impl Stop {
    /// Asks, and stops inference.
    ///
    /// # Errors
    /// [`Code::Usage`](crate::failure::Code::Usage) when the person says no; passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, as_json: bool) -> Outcome<()> {
        let what = match &self.model {
            Some(model) => format!("inference of {model}"),
            None => "ALL inference of the fleet".to_owned(),
        };
        confirmed(&format!("Stop {what} at {}?", client.url()), self.yes)?;
        let body = json!({ "model": self.model, "reason": self.reason });
        print(&client.call("POST", "/v1/serving/stop", &body)?, as_json);
        Ok(())
    }
}

impl Resume {
    /// Resumes inference.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, as_json: bool) -> Outcome<()> {
        let body = json!({ "model": self.model, "reason": self.reason });
        print(&client.call("POST", "/v1/serving/resume", &body)?, as_json);
        Ok(())
    }
}

impl Serving {
    /// Shows where inference is stopped.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(self, client: &Client, as_json: bool) -> Outcome<()> {
        print(&client.get("/v1/serving")?, as_json);
        Ok(())
    }
}

fn shown(status: &Value) -> String {
    let stops = status["stops"].as_array().map_or(&[][..], Vec::as_slice);
    let mut out = String::new();
    for stop in stops {
        let what = stop["model"].as_str().map_or_else(|| "all inference".to_owned(), |m| format!("inference of {m}"));
        let reason = match text(stop, "reason") {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        out.push_str(&format!("STOPPED: {what}, by {} since {}{reason}\n", text(stop, "by"), time(&stop["since"])));
        out.push_str(&format!(
            "   {} of {} devices obey, {} have not polled since",
            stop["obeying"], stop["devices"], stop["waiting"]
        ));
        match stop["silent"].as_u64() {
            None | Some(0) => out.push('\n'),
            Some(silent) => out.push_str(&format!(" ({silent} of them are silent)\n")),
        }
    }
    if stops.is_empty() {
        out.push_str(&format!(
            "inference is on\n   {} of {} devices had the flags in force at their last poll\n",
            status["up_to_date"], status["devices"]
        ));
    } else {
        out.push_str("   `dunlin fleet resume` starts it again\n");
    }
    out
}
