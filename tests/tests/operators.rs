//! Every operator beside ONNX Runtime's integer kernels: `conformance/cases.npz`, which `conformance/make.py` wrote, on
//! every backend of this machine, with weights in place and repacked.

use std::collections::{BTreeMap, BTreeSet};

use dunlin::kernels::{Backend, available};
use dunlin::onnx::Options;
use dunlin::package::op::Op;
use dunlin_cli::npz::{self, Array};
use dunlin_tests::runner::{Difference, Loaded, compare};

struct Case {
    model: Vec<u8>,
    rule: f32,
    arrays: BTreeMap<String, Array>,
}

fn cases() -> BTreeMap<String, Case> {
    let mut cases = BTreeMap::new();
    for (key, array) in npz::read(include_bytes!("../conformance/cases.npz")).expect("cases.npz") {
        let (name, what) = key.split_once('/').expect("CASE/KEY");
        let case = cases.entry(name.to_owned()).or_insert(Case { model: vec![], rule: 0.0, arrays: BTreeMap::new() });
        match what {
            "model" => case.model = array.bytes,
            "rule" => case.rule = array.float().expect("a float"),
            _ => drop(case.arrays.insert(what.to_owned(), array)),
        }
    }
    cases
}

impl Case {
    fn sample(&self, kind: &str, k: usize) -> Vec<&[u8]> {
        (0..).map_while(|i| self.arrays.get(&format!("{kind}{k}_{i}"))).map(|a| &a.bytes[..]).collect()
    }

    /// The largest difference on any backend, which have to agree to the bit.
    fn run(&self, loaded: &Loaded) -> Result<Difference, String> {
        let samples: Vec<_> = (0..3).map(|k| self.sample("in", k)).collect();
        let mut first: Option<Vec<Vec<Vec<u8>>>> = None;
        for backend in available() {
            for packed in [false, true] {
                let got = loaded.run(&samples, backend, packed)?;
                match &first {
                    None => first = Some(got),
                    Some(first) if *first != got => return Err(format!("{} differs from scalar", backend.name())),
                    Some(_) => {}
                }
            }
        }
        let mut total = Difference::default();
        for (k, outputs) in first.unwrap_or_default().iter().enumerate() {
            let expected = self.sample("out", k);
            if outputs.len() != expected.len() {
                return Err(format!("{} outputs, not {}", outputs.len(), expected.len()));
            }
            for (i, (got, expected)) in outputs.iter().zip(expected).enumerate() {
                total = total.and(compare(loaded.output_type(i).ok_or("no output")?, got, expected));
            }
        }
        Ok(total)
    }
}

#[test]
fn every_case_has_the_bits_of_onnx_runtime() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let mut foreign = Vec::new();
    for (name, case) in cases() {
        let outcome = Loaded::compile(&case.model, &Options::default()).and_then(|loaded| {
            seen.extend(loaded.ops());
            if loaded.hybrid() {
                foreign.push(name.clone());
            }
            case.run(&loaded)
        });
        match outcome {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(d) if case.rule == 0.0 && d.differing > 0 => wrong.push(format!("{name}: {d:?}")),
            Ok(d) if d.relative > f64::from(case.rule) => wrong.push(format!("{name}: {d:?}")),
            Ok(_) => {}
        }
    }
    println!("run by tract in part: {}", foreign.join(", "));
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    // Integer transposed convolutions have a test of their own: see `transposed_convolutions_on_integers`.
    let missing: Vec<_> = Op::ALL
        .iter()
        .filter(|&&op| op != Op::ConvTranspose && !seen.contains(&(op as u8)))
        .map(|op| op.name())
        .collect();
    assert!(missing.is_empty(), "operators without a case: {}", missing.join(", "));
}

#[test]
fn transposed_convolutions_on_integers() {
    let options = Options { integer: true, ..Options::default() };
    for (name, case) in
        cases().into_iter().filter(|(name, _)| name.starts_with("conv_transpose_") && !name.ends_with("float"))
    {
        let loaded = Loaded::compile(&case.model, &options).unwrap();
        assert!(loaded.ops().contains(&(Op::ConvTranspose as u8)), "{name}");
        let difference = case.run(&loaded).unwrap();
        // The result is dequantized: at most one step of a quarter, and seldom.
        assert!(difference.largest <= 0.25, "{name}: {difference:?}");
        assert!(difference.differing * 50 <= difference.elements, "{name}: {difference:?}");
    }
}
