//! Whole models give the bits of ONNX Runtime's integer kernels, on every backend, within their lower bound of memory.

use dunlin::Block;
use dunlin::kernels::{Backend, available};
use dunlin_cli::difference::Difference;
use dunlin_cli::verify;
use dunlin_tests::corpus::corpus;

/// Where an expected element is not exact, as the float models.
const RELATIVE: f64 = 1e-4;

#[test]
fn outputs_are_those_of_onnx_runtime() {
    let items = corpus(None).unwrap_or_else(|e| panic!("{}", e.text));
    assert!(items.len() >= 5);
    for item in items {
        let compiled =
            dunlin::onnx::compile(&item.onnx, &item.options()).unwrap_or_else(|e| panic!("{}: {e}", item.name));
        let bytes = Block::from(&compiled.package[..]);
        for backend in available() {
            let all = verify::differences(&item.name, &bytes, backend, &item.samples);
            let all = all.unwrap_or_else(|e| panic!("{}: {}", item.name, e.text));
            let d = all.into_iter().fold(Difference::default(), Difference::and);
            assert!(d.elements > 0, "{} has no vectors", item.name);
            let (name, backend) = (&item.name, backend.name());
            if item.exact {
                assert_eq!(d.differing, 0, "{name} with {backend}: {d:?}");
            } else {
                assert!(d.relative <= RELATIVE, "{name} with {backend}: {d:?}");
            }
        }
        let bound = compiled.lower_bound as f64 * 1.05;
        assert!(compiled.arena_bytes as f64 <= bound, "{}: {} over {bound}", item.name, compiled.arena_bytes);
    }
}

#[test]
fn the_backends_that_the_environment_expects_are_there() {
    let there: Vec<&str> = available().map(Backend::name).collect();
    println!("backends: {}", there.join(", "));
    let Ok(expected) = std::env::var("DUNLIN_EXPECT_BACKENDS") else { return };
    for name in expected.split(',').filter(|n| !n.is_empty()) {
        assert!(there.contains(&name), "backend {name} is expected here, there are {there:?}");
    }
}
