//! The conformance figures: how many of the ONNX project's own backend node tests Dunlin passes.
//!
//! `cargo run --release -p dunlin-tests --example conformance [-- [FOLDER] [--table] [--case START]]` prints a line of
//! JSON a figure. `--table` also writes `tests/onnx_nodes/RESULTS.md`; `--case` prints what became of the cases whose
//! names begin with START. Without FOLDER the cases are those of DUNLIN_ONNX_NODE_TESTS or of an installed `onnx`.

#[path = "conformance/suite.rs"]
mod suite;
#[path = "conformance/table.rs"]
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use suite::{Claims, Outcome, Record};

fn figure(name: &str, value: usize, better: &str, target: usize, ratio: Option<f64>) {
    let line = serde_json::json!({
        "figure": format!("conformance/{name}"), "value": value, "unit": "cases", "better": better, "target": target,
        "peer": null, "ratio": ratio,
    });
    println!("{line}");
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut folder, mut write, mut only) = (None, false, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--table" => write = true,
            "--case" => only = arguments.next(),
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    let Some(source) = suite::find(folder) else {
        eprintln!("{}", suite::HOW);
        return ExitCode::SUCCESS;
    };
    let cases = match suite::cases(&source.folder) {
        Ok(cases) => cases,
        Err(e) => {
            eprintln!("{}: {e}\n  hint: {}", source.folder.display(), suite::HOW);
            return ExitCode::FAILURE;
        }
    };
    suite::quiet_panics();
    let claims = Claims::read();
    let operators = suite::operators(&cases);
    let record = |case: &suite::Case| suite::record(case, &operators[case.name.as_str()], &claims);
    if let Some(start) = only {
        for case in cases.iter().filter(|c| c.name.starts_with(&start)) {
            let record = record(case);
            println!("{}: {:?}\n  constants: {:?}", record.name, record.plain, record.constant);
            println!("  {}", record.unclaimed.map_or("claimed".into(), |why| format!("not claimed: {why}")));
        }
        return ExitCode::SUCCESS;
    }
    let records: Vec<Record> = cases.iter().map(record).collect();
    let claimed: Vec<&Record> = records.iter().filter(|r| r.unclaimed.is_none()).collect();
    let passed = claimed.iter().filter(|r| r.passed()).count();
    let native = claimed.iter().filter(|r| *r.outcome() == Outcome::Native).count();
    let share = |n: usize| (!claimed.is_empty()).then(|| n as f64 / claimed.len() as f64);
    let failed = |list: &[&Record]| list.iter().filter(|r| r.outcome().failed()).count();
    for record in claimed.iter().filter(|r| !r.passed()) {
        eprintln!("{}: {}", record.name, record.reason().unwrap_or_default());
    }
    let names: Vec<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    for pattern in claims.stale(&names) {
        eprintln!("excluded.txt: onnx {} has no case {pattern}", source.version);
    }
    figure("claimed_passed", passed, "higher", claimed.len(), share(passed));
    figure("claimed_native", native, "higher", claimed.len(), share(native));
    let constants = claimed.iter().filter(|r| r.needs_constants()).count();
    eprintln!("{constants} of the {passed} pass only with constants for all inputs but the first");
    figure("claimed_failed", failed(&claimed), "lower", 0, None);
    figure("all_failed", failed(&records.iter().collect::<Vec<_>>()), "lower", 0, None);
    if write {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx_nodes/RESULTS.md");
        if let Err(e) = table::write(&path, &source.version, &claims, &records) {
            eprintln!("{}: {e}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
