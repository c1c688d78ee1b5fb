//! The command line: what there is, and what runs it.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde_json::json;

use crate::failure::Outcome;
use crate::output::{self, Color};
use crate::{
    bench, calibrate, compile, completions, delta, demo, drift, examples, fleet, flock, inspect, keys, man, run, sign,
    verify,
};

/// Compile, run and update quantized ONNX models on any device.
#[derive(Parser)]
#[command(name = "dunlin", version, after_help = EXIT_CODES)]
struct Cli {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Colours and marks: auto, always or never
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = Color::Auto,
        value_name = "WHEN",
        hide_possible_values = true
    )]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0  success
  1  outputs differ by more than the tolerance, or --fail-on found an alarm
  2  usage error
  3  a file cannot be read or written
  4  a file is damaged, or not of the expected kind
  5  the model uses something that is not supported
  6  internal error
  7  signature verification failed
  8  the fleet server refused the request
  9  the fleet server cannot be reached
  141  the reader of standard output is gone";

#[derive(Subcommand)]
enum Command {
    /// Compile an ONNX file to a package
    Compile(compile::Compile),
    /// Run a model on inputs
    Run(run::Run),
    /// Run golden vectors and count the elements that differ
    Verify(verify::Verify),
    /// Measure latency, load time and memory
    Bench(bench::Bench),
    /// Show a model's inputs, outputs, steps and memory
    Inspect(inspect::Inspect),
    /// Create and rotate the keys that devices trust
    Keys(keys::Keys),
    /// Sign releases and rollouts
    Sign(sign::Sign),
    /// Create a delta update from two packages
    Delta(delta::Delta),
    /// Add a drift reference computed from validation data
    Calibrate(calibrate::Calibrate),
    /// Compare reports of devices with a model's reference
    Drift(drift::Command),
    /// Publish to a fleet and manage rollouts
    Fleet(fleet::Fleet),
    /// Simulate a fleet of devices
    Flock(flock::Flock),
    /// Show the whole system with bundled models and a simulated fleet
    Demo(demo::Demo),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Write manual pages into a folder
    Man(man::Man),
}

/// Returns the command line as clap has it, with examples and completions.
#[must_use]
pub fn command() -> clap::Command {
    completions::with_values(examples::with_examples(Cli::command()))
}

fn go(cli: &Cli) -> Outcome<()> {
    match &cli.command {
        Command::Compile(c) => c.run(cli.json),
        Command::Run(c) => c.run(cli.json),
        Command::Verify(c) => c.run(cli.json),
        Command::Bench(c) => c.run(cli.json),
        Command::Inspect(c) => c.run(cli.json),
        Command::Keys(c) => c.run(cli.json),
        Command::Sign(c) => c.run(cli.json),
        Command::Delta(c) => c.run(cli.json),
        Command::Calibrate(c) => c.run(cli.json),
        Command::Drift(c) => c.run(cli.json),
        Command::Fleet(c) => c.run(cli.json),
        Command::Flock(c) => c.run(cli.json),
        Command::Demo(c) => c.run(cli.json),
        Command::Completions(c) => c.run(),
        Command::Man(c) => c.run(cli.json),
    }
}

/// The choice of colours on a command line that need not be a right one: help and errors are coloured too.
fn color_of(arguments: &[std::ffi::OsString]) -> clap::ColorChoice {
    let text = |i: usize| arguments.get(i).and_then(|a| a.to_str()).unwrap_or_default();
    let value = (1..arguments.len()).find_map(|i| match text(i).strip_prefix("--color") {
        Some("") => Some(text(i + 1)),
        Some(value) => value.strip_prefix('='),
        None => None,
    });
    match value {
        Some("always") => clap::ColorChoice::Always,
        Some("never") => clap::ColorChoice::Never,
        _ => clap::ColorChoice::Auto,
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(command).bin("dunlin").complete();
    let arguments: Vec<_> = std::env::args_os().collect();
    let matches = command().color(color_of(&arguments)).get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    output::init(cli.color, cli.json);
    match go(&cli) {
        Ok(()) => {
            output::flush();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if cli.json {
                println!("{}", json!({"error": failure.text, "code": failure.code as u8}));
            } else {
                output::flush();
                output::report("error", &failure.text);
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn colours_are_known_before_the_command_line_is_read() {
        let of = |arguments: &[&str]| color_of(&arguments.iter().map(Into::into).collect::<Vec<_>>());
        assert_eq!(of(&["dunlin", "--color", "never", "--help"]), clap::ColorChoice::Never);
        assert_eq!(of(&["dunlin", "run", "--color=always"]), clap::ColorChoice::Always);
        assert_eq!(of(&["dunlin", "--color"]), clap::ColorChoice::Auto);
    }
}
