//! A board under QEMU that updates its model over a serial line: what it takes, and how it bears power cuts.
//!
//! `cargo run --release -p dunlin-tests --example firmware_ota [cuts [seed]]`; figures go to standard output, what the
//! board does to standard error.

use std::process::ExitCode;
use std::time::Instant;

use dunlin_tests::board::cuts::{STORIES, endure, live};
use dunlin_tests::board::goods::Goods;
use dunlin_tests::board::{Bench, Board};
use dunlin_tests::defmt::Strings;
use dunlin_tests::firmware;
use serde_json::{Value, json};

/// What the linker script allows.
const FLASH: u64 = 112 * 1024;
const RAM: u64 = 72 * 1024;

fn main() -> ExitCode {
    match figures() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(figure: &str, value: Value, unit: &str, better: &str, target: Value) {
    let line = json!({
        "figure": figure, "value": value, "unit": unit, "better": better, "target": target, "peer": null, "ratio": null,
    });
    println!("{line}");
}

fn figures() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().map_err(|e| format!("{a}: {e}")));
    let cuts = arguments.next().transpose()?.unwrap_or(100) as u32;
    let seed = arguments.next().transpose()?.unwrap_or(1);
    if let Some(what) = firmware::missing() {
        eprintln!("skipped: needs {what}");
        return Ok(());
    }
    let image = firmware::build(firmware::TARGETS[0], "ota", &[])?;
    let (elf, flash, memory) = (image.path().to_owned(), image.flash, image.memory);
    let bytes = std::fs::read(&elf).map_err(|e| e.to_string())?;
    let strings = Strings::read(&bytes).ok_or("the firmware is no ELF file with strings")?;
    let goods = Goods::new()?;
    let device = goods.device()?;
    let mut stack = 0;
    for story in STORIES {
        let published = story.publish(&goods)?;
        let bench = Bench::new("figure", &device)?;
        let start = Instant::now();
        let mut board = Board::start(&elf, &bench.0)?;
        let (ended, life) = live(&mut board, &goods, story, &published, None)?;
        drop(board);
        let log = bench.log();
        eprintln!("{story:?}: {} bytes of stream, {} messages", published.stream.len(), life.messages);
        for line in strings.lines(&log).flatten() {
            eprintln!("    {line}");
            let told = line.split_once("; stack ").and_then(|(_, rest)| rest.strip_suffix(" bytes"));
            stack = told.and_then(|n| n.parse().ok()).unwrap_or(0).max(stack);
        }
        if !ended {
            return Err("the board stopped by itself".into());
        }
        let seconds = start.elapsed().as_secs_f64();
        print(&format!("ota_{story:?}_host_time").to_lowercase(), json!(seconds), "s", "lower", Value::Null);
        print(
            &format!("ota_{story:?}_stream").to_lowercase(),
            json!(published.stream.len()),
            "bytes",
            "lower",
            Value::Null,
        );
    }
    print("ota_flash", json!(flash), "bytes", "lower", json!(FLASH));
    print("ota_ram", json!(memory + stack), "bytes", "lower", json!(RAM));
    print("ota_stack", json!(stack), "bytes", "lower", Value::Null);
    let tally = endure(&elf, &goods, "figure-cuts", seed, cuts)?;
    eprintln!("seed {seed}: {tally:?}");
    // A cut that was not survived would have been an error.
    print("ota_power_cuts", json!(tally.cuts), "cuts survived", "higher", json!(cuts));
    print("ota_updates_ended", json!(tally.ends), "updates", "higher", Value::Null);
    let share = f64::from(tally.resumed_later) / f64::from(tally.resumed.max(1));
    print("ota_resumed_after_the_first_byte", json!(share), "of resumed downloads", "higher", Value::Null);
    Ok(())
}
