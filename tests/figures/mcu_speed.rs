//! Instructions of an inference on an emulated Cortex-M4, outputs compared bit for bit.
//!
//! `cargo run --release -p dunlin-tests --example mcu_speed [-- FOLDER]`
//!
//! The peer is TensorFlow Lite Micro with CMSIS-NN on the same models of MLPerf Tiny (`kws`, `ad01`, `resnet8`, `vww96` of
//! the folder), counted beforehand in the same emulator: TFLM 90b983c2 with CMSIS-NN 4ab83cc3, gcc 12.2, its default levels.
//! Its models take and give int8; ours take and give floats, and quantize within the count.

use dunlin::onnx::compile;
use dunlin_tests::corpus::corpus;
use dunlin_tests::firmware::{TARGETS, build_with, missing};
use serde_json::{Value, json};

/// Instructions of TensorFlow Lite Micro with CMSIS-NN.
const PEERS: [(&str, u64); 4] = [("resnet8", 29_863_354), ("kws", 7_699_894), ("vww96", 24_101_964), ("ad01", 582_946)];
/// Bytes of a package that the board's flash has room for beside the program.
const MOST: usize = 700 * 1024;

fn main() -> Result<(), String> {
    if let Some(what) = missing() {
        eprintln!("skipped: needs {what}");
        return Ok(());
    }
    let folder = std::env::args().nth(1);
    let temporary = tempfile::tempdir().map_err(|e| e.to_string())?;
    for item in corpus(folder.as_deref()).map_err(|e| e.text)?.into_iter().filter(|item| item.exact) {
        let mut options = item.options();
        options.target = "cortex-m4".into();
        options.golden = item.samples.golden();
        let package = match compile(&item.onnx, &options) {
            Ok(compiled) if compiled.package.len() <= MOST => compiled.package,
            Ok(_) => continue,
            Err(error) => {
                eprintln!("{}: {error}", item.name);
                continue;
            }
        };
        let path = temporary.path().join(format!("{}.dunlin", item.name));
        std::fs::write(&path, package).map_err(|e| e.to_string())?;
        let image = build_with(TARGETS[0], "inference", &[], &[("DUNLIN_PACKAGE", &path)])?;
        let Ok(told) = image.run() else {
            eprintln!("{}: does not fit, or gives other outputs", item.name);
            continue;
        };
        let number = |key: &str| told[key].as_u64().unwrap_or(0);
        let print = |figure: String, value: Value, unit: &str, peer: Value, ratio: Value| {
            println!(
                "{}",
                json!({"figure": figure, "value": value, "unit": unit, "better": "lower", "target": null, "peer": peer,
                    "ratio": ratio})
            );
        };
        let (native, scalar) = (number("instructions"), number("scalar"));
        let of = |what: &str| format!("mcu_speed/{}/{what}", item.name);
        print(of("arena"), json!(number("arena")), "bytes", Value::Null, Value::Null);
        print(of("over_scalar"), json!(native), "instructions", json!(scalar), json!(native as f64 / scalar as f64));
        if let Some((_, peer)) = PEERS.iter().find(|(name, _)| *name == item.name) {
            print(of("over_tflm"), json!(native), "instructions", json!(peer), json!(native as f64 / *peer as f64));
        }
    }
    Ok(())
}
