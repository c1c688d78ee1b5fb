//! What the import makes of ONNX files that are odd, damaged, or that tract would read wrongly.

mod graph;
mod refusals;
mod traps;

use dunlin::kernels::available;
use dunlin::onnx::Options;
use dunlin_tests::runner::Loaded;

/// The outputs for one sample, which every backend has to agree on.
fn run(loaded: &Loaded, inputs: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut all: Vec<_> =
        available().map(|backend| loaded.run(&[inputs.to_vec()], backend, false).expect("it runs").remove(0)).collect();
    all.dedup();
    assert_eq!(all.len(), 1, "backends differ");
    all.remove(0)
}

fn compile(bytes: &[u8]) -> Loaded {
    Loaded::compile(bytes, &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}
