//! The `dunlin` command.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use dunlin_cli::failure::Outcome;
use dunlin_cli::{bench, calibrate, compile, delta, demo, drift, fleet, flock, inspect, keys, run, sign, verify};
use serde_json::json;

/// On-device inference that gives the same bits on every machine.
#[derive(Parser)]
#[command(name = "dunlin", version, after_help = EXIT_CODES)]
struct Cli {
    /// Print one JSON object in the place of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:\n  0  done\n  1  outputs differ by more than the tolerance, or there is an alarm that --fail-on names\n  2  a wrong command line\n  3  a file cannot be read or written\n  4  a file is damaged, or not what it should be\n  5  the model has something that is not supported\n  6  a fault of Dunlin's own\n  7  documents that are not to be believed\n  8  the fleet server refuses\n  9  the fleet server cannot be reached";

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
    /// Show a model's ports, steps and memory
    Inspect(inspect::Inspect),
    /// Make and change the keys that devices trust
    Keys(keys::Keys),
    /// Sign what a package is and who should run it
    Sign(sign::Sign),
    /// Make an update that is the difference of two packages
    Delta(delta::Delta),
    /// Write what a model's inputs and outputs are like into its package
    Calibrate(calibrate::Calibrate),
    /// Show and judge what the reports of devices say about a model
    Drift(drift::Command),
    /// Publish to a fleet and roll out: what operators do
    Fleet(fleet::Fleet),
    /// Let many simulated devices loose on a fleet server
    Flock(flock::Flock),
    /// Score the repository's models, then roll a good one and a bad one out to a simulated fleet
    Demo(demo::Demo),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
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
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "dunlin", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match go(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if cli.json {
                println!("{}", json!({"error": failure.text, "code": failure.code as u8}));
            } else {
                eprintln!("error: {}", failure.text);
            }
            ExitCode::from(failure.code as u8)
        }
    }
}
