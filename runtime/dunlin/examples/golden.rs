//! Runs a package's golden vectors on every backend of this machine and counts the elements that differ.
//!
//! `cargo run --release -p dunlin --example golden -- PACKAGE...`, for the targets that have no command line.

use std::process::ExitCode;
use std::time::Instant;

use dunlin::kernels::{Backend, Best, available};
use dunlin::package::Golden;
use dunlin::{Arena, Block, Model, Package, Session, ops};

/// Bytes of all outputs, those that differ, and microseconds of the shortest of a few runs.
fn compare(model: &Model<'_, Best>, golden: &Golden<'_>, backend: Best) -> Option<(usize, usize, f64)> {
    let mut memory = Block::zeroed(model.arena_len(backend));
    let mut packed = Block::zeroed(model.packed_len(backend));
    model.pack(backend, &mut packed);
    let mut session = Session::with_packed(model, Arena::new(&mut memory), &packed, backend).ok()?;
    let (mut all, mut differing, mut shortest) = (0, 0, f64::INFINITY);
    for case in golden.cases() {
        for _ in 0..5 {
            for (i, tensor) in case.inputs().enumerate() {
                let to = session.input(i).into_bytes();
                to.get_mut(..tensor.data.len())
                    .filter(|to| to.len() == tensor.data.len())?
                    .copy_from_slice(tensor.data);
            }
            let start = Instant::now();
            session.run();
            shortest = shortest.min(start.elapsed().as_secs_f64() * 1e6);
        }
        for (i, tensor) in case.outputs().enumerate() {
            let output = session.output(i);
            let output = output.bytes();
            all += tensor.data.len();
            differing += output.iter().zip(tensor.data).filter(|(a, b)| a != b).count();
            differing += output.len().abs_diff(tensor.data.len());
        }
    }
    Some((all, differing, shortest))
}

fn check(path: &str) -> Result<bool, String> {
    let bytes = Block::from(&std::fs::read(path).map_err(|e| e.to_string())?[..]);
    let package = Package::open(&bytes).map_err(|e| e.to_string())?;
    let model = Model::load(&package, ops::all()).map_err(|e| e.to_string())?;
    let golden = package.golden().ok_or("it has no golden vectors: compile it with --golden")?;
    let mut same = true;
    for backend in available() {
        let (all, differing, us) = compare(&model, &golden, backend).ok_or("its golden vectors are not its ports'")?;
        same &= differing == 0;
        println!(
            "{{\"model\": {path:?}, \"backend\": {:?}, \"bytes\": {all}, \"differing\": {differing}, \"us\": {us:.1}}}",
            backend.name()
        );
    }
    Ok(same)
}

fn main() -> ExitCode {
    let mut same = true;
    for path in std::env::args().skip(1) {
        match check(&path) {
            Ok(alike) => same &= alike,
            Err(error) => {
                eprintln!("{path}: {error}");
                same = false;
            }
        }
    }
    if same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
