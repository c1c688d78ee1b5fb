//! How soon drift is seen, and how rarely where there is none: simulated fleets of devices that differ, real test data
//! through the real engine, reports merged as a server does.
//!
//! `cargo run --release -p dunlin-tests --example drift [-- [--weeks N] [--raw RAW] [--peer ROWS] [--python PYTHON]]`
//!
//! A window is an hour of 50 devices with 40 inferences each; every device has a class mix of its own (Dirichlet,
//! concentration 30). An alarm is two consecutive windows that warn, for any histogram. Delays are medians over fleets.
//!
//! The peer is Evidently on the raw values of the same windows, by its own thresholds and with the same rule of two
//! windows. It runs where `python3` (or `--python`) has it; or else `--raw RAW` writes RAW-digits.npz and RAW-kws.npz,
//! `tests/reference/drift_peer.py` makes rows of each, and `--peer ROWS` reads ROWS-digits and ROWS-kws.

#[path = "drift/fleet.rs"]
mod fleet;
#[path = "drift/peer.rs"]
mod peer;
#[path = "drift/scene.rs"]
mod scene;

use std::collections::BTreeMap;

use dunlin_telemetry::BINS;
use dunlin_telemetry::analysis::{Alarm, Bootstrap, Calibration, Compared, Criteria, Fleet, Level, Verdict};
use dunlin_telemetry::recorder::confidence_bin;
use serde_json::json;

use fleet::{DEVICES, Devices, EACH, Seen, WEEK, World};
use peer::{Raw, Rows};
use scene::Shift;

/// Fleets that each shift happens to.
const FLEETS: u64 = 20;
/// Fleets of those whose raw values the peer sees.
const PEER_FLEETS: u64 = 5;
/// Weeks without drift that the peer sees.
const PEER_WEEKS: u64 = 3;
/// Windows after a shift.
const WINDOWS: usize = 24;
/// Windows after a shift that the peer sees.
const PEER_WINDOWS: usize = 6;

/// The statistics, and what the peer calls them.
const STATISTICS: [(&str, &str); 7] = [
    ("psi", "psi"),
    ("jensen_shannon", "jensen_shannon"),
    ("kolmogorov_smirnov", "kolmogorov_smirnov"),
    ("wasserstein", "wasserstein"),
    ("mean_shift", ""),
    ("accuracy_drop", ""),
    ("rate_rise", ""),
];
/// Any of them.
const ANY: &str = "any";

fn criteria() -> Criteria {
    let bootstrap = Bootstrap { resamples: 400, ..Bootstrap::default() };
    Criteria { bootstrap, always_draw: false, ..Criteria::default() }
}

fn row(figure: &str, value: Option<f64>, unit: &str, target: Option<f64>, peer: Option<f64>) {
    let ratio = value.zip(peer).filter(|(_, p)| *p > 0.0).map(|(v, p)| v / p);
    println!(
        "{}",
        json!({"figure": figure, "value": value, "unit": unit, "better": "lower", "target": target, "peer": peer,
            "ratio": ratio})
    );
}

/// The alarms of a run of windows: for each statistic those at which it raised one, counted from 1.
#[derive(Default)]
struct Watch {
    states: BTreeMap<(String, &'static str), Alarm>,
    windows: usize,
    alarms: BTreeMap<&'static str, Vec<usize>>,
}

impl Watch {
    fn push(&mut self, verdicts: &[Verdict]) {
        self.windows += 1;
        for verdict in verdicts {
            let name = verdict.statistic.name();
            let state = self.states.entry((verdict.subject.clone(), name)).or_default();
            if state.push(verdict.level) >= Level::Warn {
                for name in [name, ANY] {
                    let windows = self.alarms.entry(name).or_default();
                    if windows.last() != Some(&self.windows) {
                        windows.push(self.windows);
                    }
                }
            }
        }
    }

    fn first(&self, statistic: &str) -> Option<usize> {
        self.alarms.get(statistic).and_then(|w| w.first()).copied()
    }
}

/// The next window as a server has it, and its raw values.
fn window<'w>(devices: &mut Devices<'w>) -> (Fleet, Vec<&'w Seen>) {
    let seen = devices.see();
    (devices.report(&seen), seen.concat())
}

/// Median, with runs that never ended as infinite; `None` if it is one of those.
fn median(firsts: &[Option<usize>]) -> Option<f64> {
    let mut sorted: Vec<f64> = firsts.iter().map(|f| f.map_or(f64::INFINITY, |w| w as f64)).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().filter(|m| m.is_finite())
}

/// Estimated and true accuracy under shifts of the inputs, with a reference of other items than those now.
fn accuracy(world: &World) {
    let mut bins = vec![(0, 0); BINS];
    for seen in world.reference.iter().filter(|s| s.item % 2 == 0) {
        let (all, right) = &mut bins[usize::from(confidence_bin(seen.confidence as f32))];
        *all += 1;
        *right += u64::from(seen.right);
    }
    let calibration = Calibration::new(bins);
    for shift in [Shift::None, Shift::Noise, Shift::Blur, Shift::Gain, Shift::Mix] {
        let mut devices = Devices::new(world, 77);
        devices.shift(shift);
        let (mut now, mut right, mut n) = (Fleet::default(), 0, 0);
        for _ in 0..4 {
            let mut seen = devices.see();
            seen.iter_mut().for_each(|s| s.retain(|s| s.item % 2 == 1));
            right += seen.iter().flatten().filter(|s| s.right).count();
            n += seen.iter().map(Vec::len).sum::<usize>();
            let fleet = devices.report(&seen);
            now.merge(&fleet);
        }
        let now = now.by_device(BINS, |t| &t.confidence);
        let estimate = calibration.estimate(&now, &Bootstrap::default()).expect("inferences");
        let truth = right as f64 / n as f64;
        eprintln!(
            "  {:10} true {:.1} %, estimated {:.1} %{}, unsupported {:.1} %",
            shift.name(),
            100.0 * truth,
            100.0 * estimate.estimate,
            estimate.interval.map_or(String::new(), |i| format!(" ({:.1} to {:.1})", 100.0 * i.low, 100.0 * i.high)),
            100.0 * estimate.unsupported,
        );
        let figure = format!("drift/{}/accuracy-estimate/{}", world.name(), shift.name());
        row(&figure, Some(100.0 * (estimate.estimate - truth).abs()), "points", Some(2.0), None);
    }
}

/// Weeks without drift, then every shift; the raw values of some for the peer.
fn simulate(world: &World, weeks: u64) -> (BTreeMap<&'static str, u64>, BTreeMap<Shift, Vec<Watch>>, Raw) {
    let criteria = criteria();
    let mut raw = Raw::default();
    raw.add("reference", &world.reference.iter().collect::<Vec<_>>(), &[world.reference.len()]);
    let mut alarmed: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut values = Vec::new();
    for week in 0..weeks {
        let mut devices = Devices::new(world, 1_000_000 + week);
        let mut watch = Watch::default();
        for _ in 0..WEEK {
            let (fleet, seen) = window(&mut devices);
            watch.push(&fleet.verdicts(&world.baseline, &criteria));
            if week < PEER_WEEKS {
                values.extend(seen);
            }
        }
        for statistic in watch.alarms.keys() {
            *alarmed.entry(statistic).or_default() += 1;
        }
    }
    let shown = weeks.min(PEER_WEEKS) as usize;
    raw.add("none", &values, &[shown, WEEK, DEVICES * EACH]);
    let mut runs: BTreeMap<Shift, Vec<Watch>> = BTreeMap::new();
    for shift in Shift::ALL {
        let mut values = Vec::new();
        for run in 0..FLEETS {
            let mut devices = Devices::new(world, 2_000_000 + run);
            devices.shift(shift);
            let mut watch = Watch::default();
            for i in 0..WINDOWS {
                let (fleet, seen) = window(&mut devices);
                watch.push(&fleet.verdicts(&world.baseline, &criteria));
                if run < PEER_FLEETS && i < PEER_WINDOWS {
                    values.extend(seen);
                }
            }
            runs.entry(shift).or_default().push(watch);
        }
        raw.add(shift.name(), &values, &[PEER_FLEETS as usize, PEER_WINDOWS, DEVICES * EACH]);
    }
    (alarmed, runs, raw)
}

/// The PSI of the class from merged reports, beside the peer's from raw values: the same windows, so that only the
/// smoothing differs.
fn agreement(world: &World, peer: &Rows) {
    let Some(theirs) = peer.of(Shift::Mix.name(), "psi").iter().find(|r| r.column == "class") else { return };
    let mut apart = 0.0f64;
    for (run, scores) in theirs.scores.iter().enumerate() {
        let mut devices = Devices::new(world, 2_000_000 + run as u64);
        devices.shift(Shift::Mix);
        for score in scores {
            let (fleet, _) = window(&mut devices);
            let total = fleet.total();
            let ours = Compared::new(&total.class, &world.baseline.class).map_or(f64::NAN, |c| c.psi());
            apart = apart.max((ours / score - 1.0).abs());
        }
    }
    row(&format!("drift/{}/class-psi-beside-raw", world.name()), Some(apart), "relative difference", Some(0.05), None);
}

fn report(
    world: &World,
    weeks: u64,
    results: &(BTreeMap<&'static str, u64>, BTreeMap<Shift, Vec<Watch>>),
    peer: Option<&Rows>,
) {
    let (alarmed, runs) = results;
    let name = world.name();
    let any = [(ANY, "")];
    eprintln!("  weeks without drift that raised an alarm, of {weeks}; then delays in windows (peer's in brackets)");
    let heading: Vec<String> = Shift::ALL.iter().map(|s| format!("{:>12}", s.name())).collect();
    eprintln!("  {:20}{:>12}{}", "", "none", heading.concat());
    for (statistic, theirs) in STATISTICS.iter().chain(&any) {
        let share = *alarmed.get(statistic).unwrap_or(&0) as f64 / weeks as f64;
        let weekly = peer
            .and_then(|p| p.alarms("none", theirs))
            .map(|runs| runs.iter().filter(|w| !w.is_empty()).count() as f64 / runs.len().max(1) as f64);
        row(&format!("drift/{name}/none/{statistic}"), Some(share), "weeks with an alarm", Some(0.01), weekly);
        let bracket = |text: Option<String>| text.map(|t| format!(" ({t})")).unwrap_or_default();
        let mut cells =
            vec![format!("{:.1} %{}", 100.0 * share, bracket(weekly.map(|w| format!("{:.0} %", 100.0 * w))))];
        for shift in Shift::ALL {
            let firsts: Vec<Option<usize>> = runs[&shift].iter().map(|w| w.first(statistic)).collect();
            let ours = median(&firsts);
            let firsts = peer.and_then(|p| p.alarms(shift.name(), theirs));
            let known = firsts.is_some();
            let theirs = firsts.and_then(|runs| median(&runs.iter().map(|w| w.first().copied()).collect::<Vec<_>>()));
            let figure = format!("drift/{name}/{}/{statistic}", shift.name());
            row(&figure, ours, "windows", None, theirs);
            let inferences = ours.map(|w| w * (DEVICES * EACH) as f64);
            row(&format!("{figure}/inferences"), inferences, "inferences", None, None);
            let number = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.0}"));
            cells.push(number(ours) + &bracket(known.then(|| number(theirs))));
        }
        let cells: Vec<String> = cells.iter().map(|c| format!("{c:>12}")).collect();
        eprintln!("  {statistic:20}{}", cells.concat());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} takes a value")).clone())
    };
    let weeks = option("--weeks").map_or(200, |w| w.parse().expect("--weeks takes a number"));
    for (name, version) in [("digits", "2"), ("kws", "1")] {
        let world = World::new(name, version, 1);
        eprintln!("{name}: reference of {} inferences, accuracy {:.3}", world.reference.len(), world.accuracy);
        accuracy(&world);
        let (alarmed, runs, raw) = simulate(&world, weeks);
        if let Some(path) = option("--raw") {
            let path = format!("{path}-{name}.npz");
            std::fs::write(&path, raw.bytes()).unwrap_or_else(|e| panic!("{path}: {e}"));
            eprintln!("  wrote {path}");
        }
        let peer = match option("--peer") {
            Some(path) => {
                let path = format!("{path}-{name}");
                std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}")).and_then(|t| Rows::read(&t))
            }
            None => Rows::run(&option("--python").unwrap_or_else(|| "python3".into()), &raw),
        };
        if let Err(why) = &peer {
            eprintln!("  without the peer: {why}");
        }
        let peer = peer.ok();
        report(&world, weeks, &(alarmed, runs), peer.as_ref());
        if let Some(peer) = &peer {
            agreement(&world, peer);
        }
    }
}
