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
use std::time::{Duration, Instant};

use dunlin::Block;
use dunlin_fleet::SystemClock;
use dunlin_gateway::{Client as Carrier, Connection, Site, SiteOptions};
use dunlin_update::Limits;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::failure::{Code, Failure, Outcome};
use crate::fleet::profile;
use crate::model;
use crate::table::{grouped, table};
use crate::trust::{Read, Signed, hex, unhex};
use digits::{DEADLINE, Images};
use drive::{Flock as Driven, Member};
use faults::Faults;
use link::Link;
use pace::Pace;
use real::{Factory, Real};
use stand_in::{StandIn, Terms};
use tally::Tally;

/// Lets many simulated devices loose on a fleet server. Its address and a token that enrols come from the environment
/// (DUNLIN_FLEET_URL, DUNLIN_FLEET_TOKEN), or else from the profile that `dunlin fleet login` writes.
#[derive(clap::Args, Clone, Debug)]
pub struct Flock {
    /// Devices
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    devices: u32,
    /// Only their conversation with the server is real: no model runs, what they measure is drawn at random. Without it each
    /// device runs the digits model on real images, and believes only what the fleet's root vouches for
    #[arg(long)]
    stand_in: bool,
    /// The model's name, of stand-ins
    #[arg(long, default_value = "digits")]
    model: String,
    /// The package that devices leave the factory with, a version of the digits; version 1 of this repository when absent
    #[arg(long, value_name = "PACKAGE", conflicts_with = "stand_in")]
    factory: Option<String>,
    /// The root document that devices trust
    #[arg(long, value_name = "FILE.root", required_unless_present = "stand_in")]
    root: Option<String>,
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
    /// Time between lines of progress where there is no terminal
    #[arg(long, default_value = "10m", value_parser = duration)]
    progress: Duration,
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
        let (url, token) = profile::connection()?;
        if !json {
            eprintln!("{}", self.simulated());
        }
        let threads = usize::from(self.threads).min(self.devices as usize);
        if self.stand_in {
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
                spread: self.spread().as_secs(),
            });
            let flock = Driven::new(self.devices, threads, |n| StandIn::new(&terms, n));
            return self.drive(flock, &self.pace(), json);
        }
        let pace = self.pace();
        let terms = Arc::new(self.terms(&url, token, &pace)?);
        let flock = Driven::new(self.devices, threads, |n| Real::new(&terms, n));
        self.drive(flock, &pace, json)
    }

    /// The time, which begins now: after the members were made, where they do not need it.
    fn pace(&self) -> Arc<Pace> {
        Arc::new(Pace::running(self.speed, Arc::new(SystemClock)))
    }

    /// Within which all poll for the first time.
    fn spread(&self) -> Duration {
        if self.herd { Duration::from_secs(60) } else { self.interval }
    }

    /// What devices share that run a model.
    fn terms(&self, url: &str, token: String, pace: &Arc<Pace>) -> Outcome<real::Terms> {
        let images = Images::test()?;
        let package = match &self.factory {
            Some(path) => Block::from(&model::read(path)?[..]),
            None => digits::package("1", &images)?,
        };
        let path = self.root.as_deref().unwrap_or_default();
        let bytes = model::read(path)?;
        let Signed::Root(root) = Read::new(path, &bytes)?.fields else {
            return Err(Failure::damaged(path, "is no root document\n  hint: `dunlin keys init` writes one"));
        };
        let wrong = |e: &dyn std::fmt::Display| Failure::new(Code::Unreachable, format!("{url}: {e}"));
        let connection =
            Connection { server: url.to_owned(), idle: usize::from(self.threads), ..Connection::default() };
        let carrier = Carrier::with_clock(&connection, pace.clone()).map_err(|e| wrong(&e))?;
        let site = Site::open(SiteOptions {
            token: Some(token),
            secret: Some(random::key_seed(self.seed, u32::MAX)),
            target: self.target.clone(),
            attributes: [("flock".to_owned(), "simulated".to_owned())].into(),
            max_children: self.devices as usize,
            max_wait: Duration::from_secs(86_400),
            clock: pace.clone(),
            ..SiteOptions::new(carrier)
        });
        Ok(real::Terms {
            site: site.map_err(|e| wrong(&e))?,
            factory: Factory::new(package, root)?,
            name: "digits",
            images,
            usable: 0.5,
            limits: Limits { inferences: 12, errors: 3, late: 3, deadline_us: DEADLINE },
            faults: self.faults.clone(),
            seed: self.seed,
            rate: self.inferences,
            spread: self.spread().as_micros() as u64,
            interval: self.interval.as_micros() as u64,
            window: self.window.as_micros() as u64,
        })
    }

    fn drive<M: Member>(&self, mut flock: Driven<M>, pace: &Pace, json: bool) -> Outcome<()> {
        let bar = self.bar();
        let until = self.duration.as_micros() as u64;
        let mut lines = (bar.is_hidden() && !json).then(|| Lines::new(self.progress));
        flock.run_and_show(pace, until, Duration::from_millis(250), |tally| {
            let seconds = pace.now().min(until) / 1_000_000;
            bar.set_position(seconds);
            bar.set_message(line(tally));
            if lines.as_mut().is_some_and(|lines| lines.is_due(Instant::now())) {
                eprintln!("{seconds} of {} s: {}", until / 1_000_000, line(tally));
            }
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
        if !self.stand_in {
            return format!(
                "{} simulated devices, seed {}: engine, images, trials, signatures, updates and reports are real; latencies and what\ngoes wrong are drawn at random, storage is memory, and one process speaks to the server for all of them.",
                self.devices, self.seed
            );
        }
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
            let simulated: &[&str] = if self.stand_in {
                &["measurements", "failures", "trust"]
            } else {
                &["latencies", "failures", "storage"]
            };
            object["simulated"] = json!(simulated);
            object["running"] = json!(runs);
            println!("{object}");
        } else {
            let mut rows: Vec<Vec<String>> = vec![vec![String::new(), "count".into()]];
            let counts = tally.counts();
            rows.extend(counts.iter().filter(|c| c.1 > 0).map(|(name, n)| vec![name.replace('_', " "), grouped(*n)]));
            rows.extend(tally.errors.iter().map(|(what, n)| vec![format!("error: {what}"), grouped(*n)]));
            print!("{}", table(&rows, &[1]));
            let (half, most) = (tally.quantile(0.5), tally.quantile(0.99));
            println!("\na check-in took {half:.1} ms (median), {most:.1} ms (99 of 100)");
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

/// Times at which progress is written where there is no bar: the first one after a minute at most.
struct Lines {
    every: Duration,
    next: Instant,
}

impl Lines {
    fn new(every: Duration) -> Self {
        Self { every, next: Instant::now() + every.min(Duration::from_secs(60)) }
    }

    /// Returns whether a line is due, and then when the next one is.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.every;
        }
        due
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
    fn a_line_of_progress_comes_within_a_minute_and_then_as_often_as_asked() {
        let hour = Duration::from_secs(3600);
        let mut lines = Lines::new(hour);
        let now = Instant::now();
        assert!(!lines.is_due(now) && lines.is_due(now + Duration::from_secs(61)));
        assert!(!lines.is_due(now + hour) && lines.is_due(now + hour + Duration::from_secs(62)));
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        for bad in ["", "9", "m", "0s", "1w", "-1s", "1e99d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
