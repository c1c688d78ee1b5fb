//! `dunlin fleet rollout`: looked at before it starts, started, watched, stopped.

use std::io::{IsTerminal as _, Write as _};

use serde_json::{Value, json};

use super::client::{Client, escaped};
use super::draft::Draft;
use super::view;
use super::watch::Watch;
use crate::failure::{Code, Failure, Outcome};

/// Rolls a package out.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Rollout {
    #[command(subcommand)]
    action: Action,
}

/// What is done with a rollout.
#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Show what a rollout could see with the devices that there are, and store nothing
    Plan {
        /// Its name; needed for one that is drafted already
        #[arg(default_value = "plan")]
        rollout: String,
        #[command(flatten)]
        draft: Draft,
    },
    /// Draft a rollout if it is not drafted yet, show what it could see, and begin its first stage
    Start {
        /// A name of your choice
        rollout: String,
        #[command(flatten)]
        draft: Draft,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Show how far a rollout is, canary against control, and what would be decided now
    Status {
        /// Its name; all rollouts when absent
        rollout: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Offer the candidate to nobody else until somebody resumes
    Pause {
        /// Its name
        rollout: String,
    },
    /// Go on; the failures so far are acknowledged by it
    Resume {
        /// Its name
        rollout: String,
    },
    /// Let the next stage begin that waits for approval; after the last, give everybody the candidate
    Approve {
        /// Its name
        rollout: String,
        /// The stage that you have seen, so that nothing else is approved; the current one when absent
        #[arg(long)]
        stage: Option<u8>,
        /// Which of several candidates everybody gets, counted from 0 as they were given
        #[arg(long, value_name = "NUMBER")]
        candidate: Option<u8>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Begin the next stage although this one is not passed
    Advance {
        /// Its name
        rollout: String,
        /// The stage that is to be left, so that nothing else is; the current one when absent
        #[arg(long)]
        stage: Option<u8>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Let this stage be left without its margins being kept for certain
    Waive {
        /// Its name
        rollout: String,
        /// The stage that you have seen, so that nothing else is waived; the current one when absent
        #[arg(long)]
        stage: Option<u8>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a rollout that was rolled back a draft again: other devices go first, and only new evidence counts
    Retry {
        /// Its name
        rollout: String,
    },
    /// End a rollout
    #[command(group(clap::ArgGroup::new("fate").required(true)))]
    Abort {
        /// Its name
        rollout: String,
        /// Devices that have the candidate get the base back
        #[arg(long, group = "fate")]
        revert: bool,
        /// Devices that have the candidate keep it
        #[arg(long, group = "fate")]
        keep: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Asks a person. Where there is none, `--yes` has to be said.
pub(super) fn confirmed(question: &str, yes: bool) -> Outcome<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let text = format!("{question} Not confirmed: this is not a terminal\n  hint: pass --yes to confirm");
        return Err(Failure::new(Code::Usage, text));
    }
    let wrong = |e: std::io::Error| Failure::new(Code::File, format!("the answer cannot be read: {e}"));
    let mut answer = String::new();
    let mut out = std::io::stderr();
    write!(out, "{question} [y/N] ").and_then(|()| out.flush()).map_err(wrong)?;
    std::io::stdin().read_line(&mut answer).map_err(wrong)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Code::Usage, "not confirmed: nothing was changed"))
}

fn path(rollout: &str) -> String {
    format!("/v1/rollouts/{}", escaped(rollout))
}

/// The body of a draft: from arguments, or of the rollout of that name.
fn body(client: &Client, rollout: &str, draft: &Draft) -> Outcome<Value> {
    if draft.is_given() {
        return draft.body(client);
    }
    match client.find(&path(rollout))? {
        Some(status) => Ok(status["request"].clone()),
        None => {
            let text = format!("there is no rollout '{rollout}'\n  hint: --candidate says what it is to roll out");
            Err(Failure::new(Code::Usage, text))
        }
    }
}

impl Rollout {
    /// Does it.
    ///
    /// # Errors
    /// Passes on why the server refuses.
    pub(super) fn run(&self, client: &Client, json: bool) -> Outcome<()> {
        match &self.action {
            Action::Plan { rollout, draft } => {
                let body = body(client, rollout, draft)?;
                let dry = client.call("PUT", &format!("{}?dry_run=true", path(rollout)), &body)?;
                print(&dry, json, || view::plan(&dry, &body));
                Ok(())
            }
            Action::Start { rollout, draft, yes } => self.start(client, rollout, draft, *yes, json),
            Action::Status { rollout: Some(rollout), watch } => watch.run(client, json, |client| {
                let status = client.get(&path(rollout))?;
                let verdicts = client.all(&format!("{}/verdicts", path(rollout)), "n", usize::MAX)?;
                let ended = matches!(status["phase"].as_str(), Some("Completed" | "RolledBack"));
                let text = view::rollout(&status, &verdicts);
                Ok((json!({ "rollout": status, "verdicts": verdicts }), text, ended))
            }),
            Action::Status { rollout: None, watch } => watch.run(client, json, |client| {
                let all = client.all("/v1/rollouts", "id", usize::MAX)?;
                let text = view::rollouts(&all);
                Ok((Value::Array(all), text, false))
            }),
            Action::Pause { rollout } => act(client, rollout, "pause", &Value::Null, json),
            Action::Resume { rollout } => act(client, rollout, "resume", &Value::Null, json),
            Action::Retry { rollout } => act(client, rollout, "retry", &Value::Null, json),
            Action::Approve { rollout, stage, candidate, yes } => {
                let what = match candidate {
                    Some(n) => format!("give everybody candidate {n} of {rollout}, after"),
                    None => format!("approve what follows of {rollout} after"),
                };
                let stage = seen(client, rollout, *stage, &what, *yes)?;
                let body = json!({ "stage": stage, "candidate": candidate });
                act(client, rollout, "approve", &body, json)
            }
            Action::Advance { rollout, stage, yes } => {
                let what = format!("begin what follows of {rollout} although it has not passed");
                let stage = seen(client, rollout, *stage, &what, *yes)?;
                act(client, rollout, "advance", &json!({ "stage": stage }), json)
            }
            Action::Waive { rollout, stage, yes } => {
                let stage = seen(client, rollout, *stage, &format!("waive the margins of {rollout} in"), *yes)?;
                act(client, rollout, "waive", &json!({ "stage": stage }), json)
            }
            Action::Abort { rollout, revert, keep: _, yes } => {
                let fate = if *revert { "revert" } else { "keep" };
                let what = if *revert { "get the base back" } else { "keep it" };
                confirmed(&format!("End {rollout}; devices with the candidate {what}?"), *yes)?;
                act(client, rollout, "abort", &json!({ "devices": fate }), json)
            }
        }
    }

    fn start(&self, client: &Client, rollout: &str, draft: &Draft, yes: bool, json: bool) -> Outcome<()> {
        let body = body(client, rollout, draft)?;
        let dry = client.call("PUT", &format!("{}?dry_run=true", path(rollout)), &body)?;
        if !json {
            println!("{}", view::plan(&dry, &body));
        }
        confirmed(&format!("Start {rollout}?"), yes)?;
        if draft.is_given() {
            client.call("PUT", &path(rollout), &body)?;
        }
        let status = client.call("POST", &format!("{}/start", path(rollout)), &Value::Null)?;
        if json {
            println!("{}", json!({ "plan": dry, "rollout": status }));
        } else {
            print!("{}", view::rollout(&status, &[]));
        }
        Ok(())
    }
}

/// The stage that a person has seen, who is asked whether to do something about it.
fn seen(client: &Client, rollout: &str, stage: Option<u8>, what: &str, yes: bool) -> Outcome<Value> {
    let status = client.get(&path(rollout))?;
    let stage = stage.map_or(status["stage"].clone(), |s| json!(s));
    if !yes {
        eprint!("{}", view::rollout(&status, &[]));
    }
    let mut what = what.to_owned();
    if let Some(first) = what.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    confirmed(&format!("{what} stage {stage}?"), yes)?;
    Ok(stage)
}

fn print(value: &Value, json: bool, text: impl FnOnce() -> String) {
    if json { println!("{value}") } else { print!("{}", text()) }
}

fn act(client: &Client, rollout: &str, action: &str, body: &Value, json: bool) -> Outcome<()> {
    let status = client.call("POST", &format!("{}/{action}", path(rollout)), body)?;
    print(&status, json, || view::rollout(&status, &[]));
    Ok(())
}
