//! What telemetry takes on a device: memory, and instructions beside the keyword model's own, on an emulated Cortex-M4.
//!
//! `cargo run --release -p dunlin-tests --example recorder`

use dunlin_telemetry::recorder::{DefaultRecorder, Recorder, Sample};
use dunlin_tests::firmware::{TARGETS, build, missing};
use serde_json::{Value, json};

fn print(figure: &str, value: Value, unit: &str, target: Value, peer: Value, ratio: Value) {
    let figure = format!("recorder/{figure}");
    println!(
        "{}",
        json!({"figure": figure, "value": value, "unit": unit, "better": "lower", "target": target, "peer": peer, "ratio": ratio})
    );
}

fn main() -> Result<(), String> {
    let null = Value::Null;
    // Sizes on this machine and on a Cortex-M are the same: there are no pointers in it. The firmware prints its own too.
    let sizes = [
        ("default", size_of::<DefaultRecorder>(), json!(384)),
        ("32_classes_4_values", size_of::<Recorder<32, 4>>(), null.clone()),
        ("sample", size_of::<Sample>(), null.clone()),
    ];
    for (name, size, target) in sizes {
        print(&format!("bytes/{name}"), json!(size), "bytes", target, null.clone(), null.clone());
    }
    if let Some(what) = missing() {
        eprintln!("instructions skipped: needs {what}");
        return Ok(());
    }
    let told = build(TARGETS[0], "recorder", &[])?.run()?;
    let number = |key: &str| told[key].as_f64().ok_or_else(|| format!("the firmware does not tell {key}: {told}"));
    let (inference, recording) = (number("inference")?, number("recording")?);
    if told["right"] != true || number("recorder_bytes")? as usize != size_of::<DefaultRecorder>() {
        return Err(format!("the firmware gives other outputs or sizes: {told}"));
    }
    print("inference", json!(inference), "instructions", null.clone(), null.clone(), null.clone());
    let ratio = recording / inference;
    print("recording", json!(recording), "instructions", null.clone(), json!(inference), json!(ratio));
    print(
        "recording_over_inference",
        json!(ratio),
        "of the keyword model's inference",
        json!(0.02),
        json!(1.0),
        json!(ratio),
    );
    print("reporting", json!(number("reporting")?), "instructions a window", null.clone(), null.clone(), null);
    Ok(())
}
