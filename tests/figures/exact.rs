//! Elements that differ from ONNX Runtime's integer kernels, by model.
//!
//! `cargo run --release -p dunlin-tests --example exact [-- FOLDER]`

use dunlin::Block;
use dunlin::kernels::{Backend, available};
use dunlin_cli::difference::Difference;
use dunlin_cli::verify;
use dunlin_tests::corpus::corpus;
use serde_json::json;

fn main() {
    let folder = std::env::args().nth(1);
    let items = corpus(folder.as_deref()).unwrap_or_else(|e| panic!("{}", e.text));
    for item in items {
        let compiled =
            dunlin::onnx::compile(&item.onnx, &item.options()).unwrap_or_else(|e| panic!("{}: {e}", item.name));
        let bytes = Block::from(&compiled.package[..]);
        for backend in available() {
            let all = verify::differences(&item.name, &bytes, backend, &item.samples);
            let all = all.unwrap_or_else(|e| panic!("{}: {}", item.name, e.text));
            let d = all.into_iter().fold(Difference::default(), Difference::and);
            let name = format!("exact/{}/{}", item.name, backend.name());
            if item.exact {
                println!(
                    "{}",
                    json!({"figure": name, "value": d.differing, "unit": format!("differing of {} elements", d.elements),
                    "better": "lower", "target": 0, "peer": "ONNX Runtime int8 kernels", "ratio": null})
                );
            } else {
                println!(
                    "{}",
                    json!({"figure": name, "value": d.relative, "unit": "largest relative difference",
                    "better": "lower", "target": 1e-4, "peer": "ONNX Runtime", "ratio": null})
                );
            }
        }
    }
}
