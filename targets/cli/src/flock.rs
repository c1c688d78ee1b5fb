//! `dunlin flock`: many simulated devices against a fleet server.

pub mod digits;
pub mod drive;
pub mod faults;
pub mod link;
pub mod memory;
pub mod pace;
pub mod random;
pub mod real;
pub mod stand_in;
pub mod tally;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use dunlin_fleet::SystemClock;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::failure::{Code, Failure, Outcome};
use crate::fleet::profile;
use crate::table::{grouped, table};
use crate::trust::{hex, unhex};
use drive::Flock as Driven;
use faults::Faults;
use link::Link;
use pace::Pace;
use stand_in::{StandIn, Terms};
use tally::Tally;

/// Lets many simulated devices loose on a fleet server. Its address and a token that enrols come from the environment
/// (DUNLIN_FLEET_URL, DUNLIN_FLEET_TOKEN), or else from the profile that `dunlin fleet login` writes.
#[derive(clap::Args, Clone, Debug)]
pub struct Flock {
    /// Devices
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    devices: u32,
    /// Only their conversation with the server is real: no model runs, what they measure is drawn at random
    #[arg(long)]
    stand_in: bool,
    /// The model's name
    #[arg(long, default_value = "digits")]
    model: String,
    /// What packages are compiled for to run on them
    #[arg(long, default_value = "any")]
    target: String,
    /// Digest of the package that stand-ins say they run at first; nothing when absent
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    running: Option<[u8; 32]>,
    /// Draws the same each time: keys, faults, measurements
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long, by the devices' clocks: 90s, 10m, 2h, 3d
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// How many times as fast as ours the devices' clocks run. The server's clock stays the server's, and so do its limits
    #[arg(long, default_value_t = 1.0, value_name = "TIMES", value_parser = speed)]
    speed: f64,
    /// Between polls until the server says
    #[arg(long, default_value = "5m", value_parser = duration)]
    interval: Duration,
    /// How long a report is about
    #[arg(long, default_value = "1h", value_parser = duration)]
    window: Duration,
    /// Inferences an hour on each device
    #[arg(long, default_value_t = 60.0)]
    inferences: f64,
    /// All poll for the first time within a minute, as after an outage, in the place of within an interval
    #[arg(long)]
    herd: bool,
    /// Requests at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    #[command(flatten)]
    faults: Faults,
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    unhex(text).ok_or_else(|| "a digest has 64 hexadecimal digits".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it as 90s, 10m, 2h or 3d".to_owned();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * scale;
    if (1.0..=3e9).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

fn speed(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s: &f64| (0.01..=1e6).contains(s)).ok_or_else(|| "from 0.01 to 1,000,000".to_owned())
}

impl Flock {
    /// Does it.
    ///
    /// # Errors
    /// When no server is known, or when devices met with errors that nobody asked for.
    pub fn run(&self, json: bool) -> Outcome<()> {
        if !self.stand_in {
            let text = "devices that run a model are not built in yet\n  hint: --stand-in";
            return Err(Failure::new(Code::Usage, text));
        }
        let (url, token) = profile::connection()?;
        let threads = usize::from(self.threads).min(self.devices as usize);
        let spread = if self.herd { 60 } else { self.interval.as_secs() };
        let terms = Arc::new(Terms {
            link: Link::new(&url, &token, threads),
            faults: self.faults.clone(),
            model: self.model.clone(),
            target: self.target.clone(),
            running: self.running,
            seed: self.seed,
            interval: self.interval.as_secs(),
            window: self.window.as_secs(),
            rate: self.inferences,
            spread,
        });
        if !json {
            eprintln!("{}", self.simulated());
        }
        let members = (0..self.devices).map(|n| StandIn::new(&terms, n));
        let mut flock = Driven::new(members, threads);
        let pace = Pace::running(self.speed, Arc::new(SystemClock));
        let bar = self.bar();
        let until = self.duration.as_micros() as u64;
        flock.run_and_show(&pace, until, Duration::from_millis(250), |tally| {
            bar.set_position(pace.now().min(until) / 1_000_000);
            bar.set_message(line(tally));
        });
        bar.finish_and_clear();
        let mut runs = std::collections::BTreeMap::<String, u64>::new();
        for member in flock.members() {
            *runs.entry(member.running().map_or("nothing".into(), |d| hex(&d))).or_default() += 1;
        }
        self.summary(&flock.tally(), &runs, json)
    }

    /// What is real and what is not, said plainly.
    fn simulated(&self) -> String {
        format!(
            "{} stand-ins, seed {}: requests, signatures, downloads and reports are real; no model runs, what devices measure\nand what goes wrong is drawn at random, and signatures of offers are not checked.",
            self.devices, self.seed
        )
    }

    fn bar(&self) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(self.duration.as_secs());
        if let Ok(style) = ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} s  {msg}") {
            bar.set_style(style);
        }
        bar
    }

    fn summary(&self, tally: &Tally, runs: &std::collections::BTreeMap<String, u64>, json: bool) -> Outcome<()> {
        if json {
            let mut object = tally.json();
            object["devices"] = json!(self.devices);
            object["seed"] = json!(self.seed);
            object["simulated"] = json!(["measurements", "failures", "trust"]);
            object["running"] = json!(runs);
            println!("{object}");
        } else {
            let mut rows: Vec<Vec<String>> = vec![vec![String::new(), "count".into()]];
            let counts = tally.counts();
            rows.extend(counts.iter().filter(|c| c.1 > 0).map(|(name, n)| vec![name.replace('_', " "), grouped(*n)]));
            rows.extend(tally.errors.iter().map(|(what, n)| vec![format!("error: {what}"), grouped(*n)]));
            print!("{}", table(&rows, &[1]));
            let (half, most) = (tally.quantile(0.5), tally.quantile(0.99));
            println!("\na poll took {half:.1} ms (median), {most:.1} ms (99 of 100)");
            for (digest, n) in runs {
                println!("{} run {}", grouped(*n), digest.get(..12).unwrap_or(digest));
            }
        }
        let errors: u64 = tally.errors.values().sum();
        if errors == 0 {
            return Ok(());
        }
        let worst = tally.errors.iter().max_by_key(|(_, n)| **n).map_or("", |(what, _)| what.as_str());
        let text = format!("{errors} requests went wrong, most of them: {worst}\n  hint: see the server's log");
        Err(Failure::new(Code::Unreachable, text))
    }
}

/// A tally in a line.
fn line(tally: &Tally) -> String {
    let errors: u64 = tally.errors.values().sum();
    format!(
        "{} enrolled, {} polls, {} waits, {} updates, {errors} errors",
        grouped(tally.enrolled),
        grouped(tally.polls),
        grouped(tally.waits),
        grouped(tally.updates)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        for bad in ["", "9", "m", "0s", "1w", "-1s", "1e99d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
