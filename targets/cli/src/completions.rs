//! `dunlin completions`: scripts that ask this program, which asks the fleet server for names.

use clap::Command;
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use serde_json::Value;

use crate::chip;
use crate::failure::{Code, Failure, Outcome};
use crate::fleet::{contexts, names};

/// Prints a script that completes commands, options, files, and names that the fleet server knows.
#[derive(clap::Args, Clone, Debug)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// When there is none for the shell.
    pub fn run(&self) -> Outcome<()> {
        let shells = Shells::builtins();
        let name = self.shell.to_string();
        let unknown = || Failure::new(Code::Usage, format!("there are no completions for '{name}'"));
        let shell = shells.completer(&name).ok_or_else(unknown)?;
        let mut script = Vec::new();
        shell
            .write_registration("COMPLETE", "dunlin", "dunlin", "dunlin", &mut script)
            .map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
        print!("{}", String::from_utf8_lossy(&script));
        Ok(())
    }
}

fn candidates(all: Vec<(String, String)>) -> Vec<CompletionCandidate> {
    all.into_iter()
        .map(|(name, help)| CompletionCandidate::new(name).help((!help.is_empty()).then(|| help.into())))
        .collect()
}

/// Names of rollouts, with their phase.
fn rollouts() -> Vec<CompletionCandidate> {
    candidates(names("/v1/rollouts", |r| Some((text(r, "id")?, text(r, "phase").unwrap_or_default()))))
}

/// Published packages as NAME@VERSION, with their digest.
fn packages() -> Vec<CompletionCandidate> {
    candidates(names("/v1/packages", |p| {
        let digest = text(p, "digest")?;
        Some((format!("{}@{}", text(p, "name")?, text(p, "version")?), digest.get(..12)?.to_owned()))
    }))
}

/// Digests of published packages, with name and version.
fn digests() -> Vec<CompletionCandidate> {
    candidates(names("/v1/packages", |p| {
        let digest = text(p, "digest")?;
        Some((digest.get(..12)?.to_owned(), format!("{}@{}", text(p, "name")?, text(p, "version")?)))
    }))
}

/// Names of models with published packages.
fn models() -> Vec<CompletionCandidate> {
    let mut all = names("/v1/packages", |p| Some((text(p, "name")?, String::new())));
    all.sort();
    all.dedup();
    candidates(all)
}

/// Devices, with what they run.
fn devices() -> Vec<CompletionCandidate> {
    candidates(names("/v1/devices?limit=1000", |d| Some((text(d, "id")?, text(d, "model").unwrap_or_default()))))
}

/// Names of tokens, with their roles.
fn tokens() -> Vec<CompletionCandidate> {
    candidates(names("/v1/tokens", |t| Some((text(t, "name")?, text(t, "role").unwrap_or_default()))))
}

/// Chips, with their memory.
fn chips() -> Vec<CompletionCandidate> {
    candidates(chip::ALL.iter().map(|chip| (chip.name.to_owned(), chip.to_string())).collect())
}

/// Names of the servers that `login` keeps.
fn context_names() -> Vec<CompletionCandidate> {
    candidates(contexts())
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

/// Sources of values.
type Source = fn() -> Vec<CompletionCandidate>;

/// Which arguments have values of which source: the path of the command, the argument, the source.
const VALUES: &[(&[&str], &str, Source)] = &[
    (&["compile"], "chip", chips),
    (&["inspect"], "chip", chips),
    (&["fleet"], "context", context_names),
    (&["fleet", "use"], "context_name", context_names),
    (&["fleet", "logout"], "context_name", context_names),
    (&["fleet", "packages"], "package", packages),
    (&["fleet", "drift"], "package", packages),
    (&["fleet", "devices"], "device", devices),
    (&["fleet", "devices"], "running", digests),
    (&["fleet", "devices"], "model", models),
    (&["fleet", "tokens", "revoke"], "name", tokens),
    (&["fleet", "rollout", "plan"], "candidate", packages),
    (&["fleet", "rollout", "plan"], "base", packages),
    (&["fleet", "rollout", "start"], "candidate", packages),
    (&["fleet", "rollout", "start"], "base", packages),
    (&["fleet", "rollout", "plan"], "rollout", rollouts),
    (&["fleet", "rollout", "start"], "rollout", rollouts),
    (&["fleet", "rollout", "status"], "rollout", rollouts),
    (&["fleet", "rollout", "pause"], "rollout", rollouts),
    (&["fleet", "rollout", "resume"], "rollout", rollouts),
    (&["fleet", "rollout", "approve"], "rollout", rollouts),
    (&["fleet", "rollout", "advance"], "rollout", rollouts),
    (&["fleet", "rollout", "waive"], "rollout", rollouts),
    (&["fleet", "rollout", "retry"], "rollout", rollouts),
    (&["fleet", "rollout", "abort"], "rollout", rollouts),
];

fn add(command: Command, path: &[&str], argument: &str, source: Source) -> Command {
    match path {
        [] if command.get_arguments().any(|a| a.get_id() == argument) => {
            command.mut_arg(argument, |a| a.add(ArgValueCandidates::new(source)))
        }
        [first, rest @ ..] if command.find_subcommand(first).is_some() => {
            command.mut_subcommand(first, |sub| add(sub, rest, argument, source))
        }
        // A test finds entries that name no argument.
        _ => command,
    }
}

/// Adds completions of values to a command line.
#[must_use]
pub fn with_values(command: Command) -> Command {
    VALUES.iter().fold(command, |command, (path, argument, source)| add(command, path, argument, *source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_belongs_to_an_argument() {
        let command = crate::app::command();
        for (path, argument, _) in VALUES {
            let mut at = &command;
            for name in *path {
                at = at.find_subcommand(name).unwrap_or_else(|| panic!("no command {path:?}"));
            }
            let found = at.get_arguments().find(|a| a.get_id() == argument);
            let found = found.unwrap_or_else(|| panic!("{path:?} has no argument '{argument}'"));
            assert!(found.get::<ArgValueCandidates>().is_some(), "{path:?} {argument}");
        }
    }
}
