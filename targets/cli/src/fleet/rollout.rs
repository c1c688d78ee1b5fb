//! `dunlin fleet rollout`: looked at before it starts, started, watched, stopped.

use std::io::{IsTerminal as _, Write as _};

use dunlin_fleet::status::Status;
use dunlin_rollout::Phase;
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

/// Why a person acts.
#[derive(clap::Args, Clone, Debug, Default)]
struct Because {
    /// Record why, for the audit log and everyone who looks
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What is done with a rollout.
#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    /// Show what a rollout could detect; stores nothing
    Plan {
        /// Its name; needed for one that is drafted already
        #[arg(default_value = "plan")]
        rollout: String,
        #[command(flatten)]
        draft: Draft,
    },
    /// Draft a rollout, show what it could detect, and start it
    Start {
        /// A name of your choice
        rollout: String,
        #[command(flatten)]
        draft: Draft,
        #[command(flatten)]
        because: Because,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Show where a rollout is and why
    Status {
        /// Its name; all rollouts when absent
        rollout: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Pause: stop offering the candidate to more devices
    Pause {
        /// Its name
        rollout: String,
        #[command(flatten)]
        because: Because,
    },
    /// Resume: continue, with the failures so far acknowledged
    Resume {
        /// Its name
        rollout: String,
        #[command(flatten)]
        because: Because,
    },
    /// Approve the next stage; after the last one, completion
    Approve {
        /// Its name
        rollout: String,
        /// Stage that you have seen, from 1; the current one when absent
        #[arg(long, value_parser = stage)]
        stage: Option<u8>,
        /// Which of several candidates every device gets, counted from 0 as they were given
        #[arg(long, value_name = "NUMBER")]
        candidate: Option<u8>,
        #[command(flatten)]
        because: Because,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Begin the next stage although this one is not passed
    Advance {
        /// Its name
        rollout: String,
        /// Stage to leave, from 1; the current one when absent
        #[arg(long, value_parser = stage)]
        stage: Option<u8>,
        #[command(flatten)]
        because: Because,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Waive the margin checks of the current stage
    Waive {
        /// Its name
        rollout: String,
        /// Stage that you have seen, from 1; the current one when absent
        #[arg(long, value_parser = stage)]
        stage: Option<u8>,
        #[command(flatten)]
        because: Because,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Reset a rolled-back rollout to a draft
    #[command(after_help = "Other devices go first, and only new evidence counts.")]
    Retry {
        /// Its name
        rollout: String,
        #[command(flatten)]
        because: Because,
    },
    /// End a rollout, and roll back or keep the candidate
    #[command(group(clap::ArgGroup::new("fate").required(true)))]
    Abort {
        /// Its name
        rollout: String,
        /// Roll back: devices that have the candidate return to the base
        #[arg(long, group = "fate")]
        revert: bool,
        /// Devices that have the candidate keep it
        #[arg(long, group = "fate")]
        keep: bool,
        #[command(flatten)]
        because: Because,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Reads a stage's number, from 1, as the server's index, from 0.
fn stage(text: &str) -> Result<u8, String> {
    let number: Option<u8> = text.parse().ok();
    number.and_then(|n| n.checked_sub(1)).ok_or_else(|| "stages are counted from 1".to_owned())
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
                print(&dry, json, || Ok(view::plan(&view::drafted(&dry)?, &body)))
            }
            Action::Start { rollout, draft, because, yes } => self.start(client, rollout, (draft, because), *yes, json),
            Action::Status { rollout: Some(rollout), watch } => watch.run(client, json, |client| {
                let value = client.get(&path(rollout))?;
                let verdicts = client.all(&format!("{}/verdicts", path(rollout)), "n", usize::MAX)?;
                let status = view::status(&value)?;
                let text = view::rollout(&status, &verdicts);
                Ok((json!({ "rollout": value, "verdicts": verdicts }), text, is_over(&status)))
            }),
            Action::Status { rollout: None, watch } => watch.run(client, json, |client| {
                let all = client.all("/v1/rollouts", "id", usize::MAX)?;
                let statuses: Vec<Status> = all.iter().map(view::status).collect::<Outcome<_>>()?;
                Ok((Value::Array(all), view::rollouts(&statuses), false))
            }),
            Action::Pause { rollout, because } => act(client, rollout, "pause", json!({}), because, json),
            Action::Resume { rollout, because } => act(client, rollout, "resume", json!({}), because, json),
            Action::Retry { rollout, because } => act(client, rollout, "retry", json!({}), because, json),
            Action::Approve { rollout, stage, candidate, because, yes } => {
                let stage = approved(client, rollout, *stage, *candidate, *yes)?;
                let body = json!({ "stage": stage, "candidate": candidate });
                act(client, rollout, "approve", body, because, json)
            }
            Action::Advance { rollout, stage, because, yes } => {
                let status = look(client, rollout)?;
                let what = format!("Begin what follows of {rollout} although it has not passed");
                let stage = seen(&status, *stage, &what, *yes)?;
                act(client, rollout, "advance", json!({ "stage": stage }), because, json)
            }
            Action::Waive { rollout, stage, because, yes } => {
                let status = look(client, rollout)?;
                let stage = seen(&status, *stage, &format!("Waive the margins of {rollout} in"), *yes)?;
                act(client, rollout, "waive", json!({ "stage": stage }), because, json)
            }
            Action::Abort { rollout, revert, keep: _, because, yes } => {
                let fate = if *revert { "revert" } else { "keep" };
                let what = if *revert { "return to the base" } else { "keep it" };
                confirmed(&format!("End {rollout}; devices with the candidate {what}?"), *yes)?;
                act(client, rollout, "abort", json!({ "devices": fate }), because, json)
            }
        }
    }

    fn start(
        &self,
        client: &Client,
        rollout: &str,
        (draft, because): (&Draft, &Because),
        yes: bool,
        json: bool,
    ) -> Outcome<()> {
        let body = body(client, rollout, draft)?;
        let dry = client.call("PUT", &format!("{}?dry_run=true", path(rollout)), &body)?;
        if !json {
            println!("{}", view::plan(&view::drafted(&dry)?, &body));
        }
        confirmed(&format!("Start {rollout}?"), yes)?;
        if draft.is_given() {
            client.call("PUT", &path(rollout), &body)?;
        }
        let reason = json!({ "reason": because.reason });
        let status = client.call("POST", &format!("{}/start", path(rollout)), &reason)?;
        if json {
            println!("{}", json!({ "plan": dry, "rollout": status }));
        } else {
            print!("{}", view::rollout(&view::status(&status)?, &[]));
        }
        Ok(())
    }
}

/// Returns whether nothing changes any more: it is through, or rolled back on every device that answers.
fn is_over(status: &Status) -> bool {
    match status.phase {
        Phase::Completed => true,
        Phase::RolledBack => status.rollback.as_ref().is_none_or(|back| back.running == 0),
        _ => false,
    }
}

fn look(client: &Client, rollout: &str) -> Outcome<Status> {
    view::status(&client.get(&path(rollout))?)
}

/// Returns the stage, from 0, that a person has seen, who is asked whether to do something about it.
fn seen(status: &Status, stage: Option<u8>, what: &str, yes: bool) -> Outcome<u8> {
    let stage = stage.unwrap_or(status.stage);
    if !yes {
        eprint!("{}", view::rollout(status, &[]));
    }
    confirmed(&format!("{what} stage {}?", u16::from(stage) + 1), yes)?;
    Ok(stage)
}

/// Returns the stage, from 0, that a person approves to leave.
///
/// # Errors
/// When nothing waits for approval, with what the rollout does instead.
fn approved(client: &Client, rollout: &str, stage: Option<u8>, candidate: Option<u8>, yes: bool) -> Outcome<u8> {
    let status = look(client, rollout)?;
    // A stage that was left has been approved; the server says so.
    let is_current = stage.is_none_or(|stage| stage >= status.stage);
    if is_current && !matches!(status.phase, Phase::Awaiting | Phase::Draft) {
        let text = format!(
            "nothing of {rollout} waits for approval: {}\n  hint: `dunlin fleet rollout status {rollout}` shows what it needs",
            status.status_line
        );
        return Err(Failure::new(Code::Refused, text));
    }
    if status.phase == Phase::Draft {
        confirmed(&format!("Approve the start of {rollout}?"), yes)?;
        return Ok(status.stage);
    }
    let what = match candidate {
        Some(n) => format!("Give every device candidate {n} of {rollout}, after"),
        None => format!("Approve what follows of {rollout} after"),
    };
    seen(&status, stage, &what, yes)
}

fn print(value: &Value, json: bool, text: impl FnOnce() -> Outcome<String>) -> Outcome<()> {
    if json {
        println!("{value}")
    } else {
        print!("{}", text()?)
    }
    Ok(())
}

fn act(client: &Client, rollout: &str, action: &str, mut body: Value, because: &Because, json: bool) -> Outcome<()> {
    if let Some(reason) = &because.reason {
        body["reason"] = reason.as_str().into();
    }
    let status = client.call("POST", &format!("{}/{action}", path(rollout)), &body)?;
    print(&status, json, || Ok(view::rollout(&view::status(&status)?, &[])))
}

#[cfg(test)]
mod tests {
    use super::stage;

    #[test]
    fn stages_are_counted_from_one() {
        assert_eq!((stage("1"), stage("8")), (Ok(0), Ok(7)));
        assert!(stage("0").is_err() && stage("-1").is_err() && stage("x").is_err());
    }
}
