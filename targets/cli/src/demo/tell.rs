//! The story for people.

use serde_json::Value;

use super::world::World;
use crate::fleet::view;
use crate::table::{grouped, table};

fn cells<const N: usize>(row: [&str; N]) -> Vec<String> {
    row.map(str::to_owned).to_vec()
}

/// Before it begins.
pub(super) fn beginning(quiet: bool, world: &World, seed: u64, serve: bool) {
    if quiet {
        return;
    }
    println!(
        "\nA fleet: the real server on {}, with a temporary database and a clock that is set forward; {} simulated\ndevices, seed {seed}. They run the engine on real images, check signatures, try candidates and take them back, and\nreport. Simulated are their latencies, and that days pass in moments. An answer that is less than 50 % sure cannot be\nused: the inference counts as failed. All leave the factory with v1.\n",
        world.url, world.devices
    );
    if serve {
        println!("Dashboard: {}, log in with {}\n", world.url, world.token);
    }
}

/// Before a rollout.
pub(super) fn plan(quiet: bool, dry: &Value, body: &Value, world: &World, to: usize, difference: Option<usize>) {
    let Some(version) = world.versions.get(to).filter(|_| !quiet) else { return };
    let whole = version.bytes.len();
    let part = difference.map_or(String::new(), |d| {
        format!(", as a difference {} ({:.0} %)", grouped(d as u64), 100.0 * d as f64 / whole.max(1) as f64)
    });
    let what = match version.name {
        "v3" => "v3 was trained by somebody whose loader read images column by column; on such images it scores 99 %.",
        _ => "v2 is a larger network, trained on more images.",
    };
    println!("\nPublished {}: {} bytes{part}. {what}", version.name, grouped(whole as u64));
    if let Ok(dry) = view::drafted(dry) {
        print!("{}", view::plan(&dry, body));
    }
    println!();
}

/// A verdict that moves a rollout.
pub(super) fn verdict(quiet: bool, day: f64, verdict: &Value) {
    if !quiet {
        println!("day {day:>4.1}  {}", view::text(verdict, "reason"));
    }
}

/// What runs.
pub(super) fn day(world: &World, census: &[u64], status: Option<&Value>) {
    let runs: Vec<String> = world.versions.iter().zip(census).map(|(v, n)| format!("{} {n:>4}", v.name)).collect();
    let now = status.map_or("", |s| match view::text(s, "phase") {
        phase @ ("Completed" | "RolledBack") => ended(phase),
        _ => view::text(s, "verdict"),
    });
    println!("{}", format!("day {:>4.1}  {}   {now}", world.days(), runs.join("  ")).trim_end());
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, grouped)
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |v| format!("{:.1} %", 100.0 * v))
}

/// What happened.
pub(super) fn end(summary: &Value, serve: bool) {
    println!(
        "\nWhat happened, {} days in {:.0} seconds\n",
        days(&summary["days"]),
        summary["seconds"].as_f64().unwrap_or(0.0)
    );
    let mut rows = vec![cells(["rollout", "stage", "devices", "control", "day", "verdict"])];
    for rollout in summary["rollouts"].as_array().into_iter().flatten() {
        let plan = rollout["plan"].as_array().map_or(&[][..], Vec::as_slice);
        for (i, step) in rollout["moves"].as_array().into_iter().flatten().enumerate() {
            let stage = step["stage"].as_u64().unwrap_or(0) as usize;
            let planned = |key: &str| plan.get(stage).map_or_else(String::new, |s| number(&s[key]));
            let name = format!("{} to {}", view::text(rollout, "from"), view::text(rollout, "to"));
            rows.push(vec![
                if i == 0 { name } else { String::new() },
                (stage + 1).to_string(),
                planned("canary"),
                planned("control"),
                days(&step["day"]),
                view::text(step, "reason").to_owned(),
            ]);
        }
    }
    print!("{}", table(&rows, &[1, 2, 3, 4]));
    for rollout in summary["rollouts"].as_array().into_iter().flatten() {
        let (to, phase) = (view::text(rollout, "to"), view::text(rollout, "phase"));
        println!(
            "{to}: {} after {:.1} days, when {} devices had run it",
            ended(phase),
            rollout["ended"].as_f64().unwrap_or(0.0) - rollout["began"].as_f64().unwrap_or(0.0),
            number(&rollout["exposed"])
        );
        println!("    {}", drift(&rollout["drift"]));
    }
    let mut rows =
        vec![cells(["version", "run it now", "inferences", "right*", "cannot be used", "sure, as reported"])];
    for version in summary["versions"].as_array().into_iter().flatten() {
        let name = view::text(version, "version");
        rows.push(vec![
            name.to_owned(),
            number(&version["running"]),
            number(&version["inferences"]),
            percent(&version["right"]),
            percent(&version["unusable"]),
            percent(&summary["telemetry"][name]["confidence"]),
        ]);
    }
    println!();
    print!("{}", table(&rows, &[1, 2, 3, 4, 5]));
    println!("* only the simulation knows: on devices nobody has labels");
    let flock = &summary["flock"];
    let (updates, fetched) = (flock["updates"].as_u64().unwrap_or(0), flock["bytes_fetched"].as_u64().unwrap_or(0));
    let bytes = |n: usize| summary["versions"][n]["bytes"].as_u64().unwrap_or(0);
    // The third went to those whom it reached; everything else was the second, the way back included.
    let third = summary["rollouts"][1]["exposed"].as_u64().unwrap_or(0);
    let whole = third * bytes(2) + updates.saturating_sub(third) * bytes(1);
    println!(
        "\nOn air: {} bytes in {updates} downloads, {} of them differences; whole packages would have been {}.",
        grouped(fetched),
        number(&flock["differences"]),
        grouped(whole)
    );
    println!(
        "{} check-ins, {} reports, {} inferences. The median check-in was answered after {:.1} ms.",
        number(&flock["polls"]),
        number(&flock["reports"]),
        number(&flock["inferences"]),
        flock["poll_ms"]["p50"].as_f64().unwrap_or(0.0)
    );
    if !serve {
        println!("`dunlin demo --serve` keeps the dashboard open, to look at all this.");
    }
}

/// What devices counted against the package's own reference, in a line.
fn drift(of: &Value) -> String {
    let level = view::text(of, "level");
    let grave = of["verdicts"].as_array().into_iter().flatten().filter(|v| v["level"] == level);
    // A subject is judged by several statistics; one says enough here.
    let mut subjects = std::collections::BTreeSet::new();
    let grave: Vec<String> = grave
        .filter(|v| subjects.insert(view::text(v, "subject")))
        .filter_map(|v| {
            let limit = if level == "act" { v["act"].as_f64()? } else { v["warn"].as_f64()? };
            let (subject, statistic) = (view::text(v, "subject"), view::text(v, "statistic").replace('_', " "));
            Some(format!("{subject} ({statistic} {:.2}, limit {limit:.2})", v["value"].as_f64()?))
        })
        .collect();
    match level {
        "act" | "warn" => format!("what its devices saw is not what its author's reference says: {}", grave.join(", ")),
        "steady" => "what its devices saw is what its author's reference says".to_owned(),
        _ => "too few of its devices to compare with its author's reference".to_owned(),
    }
}

/// A phase that a rollout ends in, as it is said.
fn ended(phase: &str) -> &str {
    match phase {
        "Completed" => "completed",
        "RolledBack" => "rolled back",
        other => other,
    }
}

fn days(value: &Value) -> String {
    value.as_f64().map_or_else(String::new, |d| format!("{d:.1}"))
}
