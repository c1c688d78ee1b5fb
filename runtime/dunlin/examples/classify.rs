//! Runs a classifier.
//!
//! `cargo run --release -p dunlin --example classify [-- MODEL [INPUT]]`
//!
//! MODEL is a package, or with `--features onnx` an ONNX file; without it the digits that lie beside this example are read. INPUT
//! is a file of raw little-endian f32; without it a drawn 1 is read.

use dunlin::OwnedSession;

/// A 28 by 28 picture of a 1: a vertical stroke.
fn one() -> Vec<f32> {
    (0..784).map(|i| if (4..24).contains(&(i / 28)) && (13..16).contains(&(i % 28)) { 1.0 } else { 0.0 }).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits.dunlin");
    let mut session = OwnedSession::open_file(arguments.first().map_or(digits, String::as_str))?;
    for port in session.inputs().iter().chain(session.outputs()) {
        println!("{} {} {:?}", port.name, port.dtype.name(), port.shape);
    }
    let samples = match arguments.get(1) {
        Some(path) => {
            let bytes = std::fs::read(path)?;
            bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
        }
        None => one(),
    };
    let scores = session.run(&samples)?;
    println!("scores {scores:?}");
    let class = session.output(0).argmax();
    let label = class.and_then(|class| session.outputs().first()?.labels.get(class).cloned());
    match (class, label) {
        (Some(_), Some(label)) => println!("class {label}"),
        (Some(class), None) => println!("class {class}"),
        (None, _) => println!("no class"),
    }
    Ok(())
}
