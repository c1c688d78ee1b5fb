//! Bytes of arena over the lower bound, the most that is in use at one moment, by model.
//!
//! `cargo run --release -p dunlin-tests --example memory_plan [-- FOLDER]`

use dunlin_tests::corpus::corpus;
use serde_json::json;

fn main() {
    let folder = std::env::args().nth(1);
    let items = corpus(folder.as_deref()).unwrap_or_else(|e| panic!("{}", e.text));
    for item in items {
        let compiled =
            dunlin::onnx::compile(&item.onnx, &item.options()).unwrap_or_else(|e| panic!("{}: {e}", item.name));
        let ratio = compiled.arena_bytes as f64 / compiled.lower_bound.max(1) as f64;
        println!(
            "{}",
            json!({"figure": format!("memory_plan/{}", item.name), "value": compiled.arena_bytes, "unit": "bytes",
            "better": "lower", "target": (compiled.lower_bound as f64 * 1.05) as usize, "peer": "lower bound", "ratio": ratio})
        );
    }
}
