//! `OwnedSession` gives what a `Session` gives, in any thread.
#![cfg(feature = "std")]

use dunlin::kernels::{Backend, available};
use dunlin::{Arena, Block, DType, Model, OpenError, OwnedSession, Package, RunError, Session, kernels, ops};

const DIGITS: &[u8] = include_bytes!("../examples/digits.dunlin");

fn picture(seed: usize) -> Vec<f32> {
    (0..784).map(|i| (i * 37 + seed * 101) as f32 % 17.0 / 17.0).collect()
}

fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

/// The bits of the scores by a borrowed session without repacked weights.
fn by_session(seeds: &[usize]) -> Vec<Vec<u32>> {
    let bytes = Block::from(DIGITS);
    let package = Package::open(&bytes).expect("a package");
    let model = Model::load(&package, ops::all()).expect("it loads");
    let mut memory = Block::zeroed(model.arena_len(kernels::Scalar));
    let mut session = Session::new(&model, Arena::new(&mut memory), kernels::Scalar).expect("room");
    let scores = seeds.iter().map(|seed| {
        session.input(0).copy_from_slice(&picture(*seed)).expect("an input");
        session.run();
        bits(session.output(0).as_slice().expect("floats"))
    });
    scores.collect()
}

#[test]
fn every_backend_gives_the_bits_of_a_session() {
    let seeds = [1, 2, 3];
    let want = by_session(&seeds);
    for backend in available() {
        // One byte off any alignment.
        let mut bytes = vec![0; DIGITS.len() + 1];
        bytes[1..].copy_from_slice(DIGITS);
        let mut session = OwnedSession::open_for(&bytes[1..], backend).expect("it opens");
        for (seed, want) in seeds.iter().zip(&want) {
            assert_eq!(&bits(session.run(&picture(*seed)).expect("it runs")), want, "{}", backend.name());
        }
    }
}

#[test]
fn clones_run_in_threads_of_their_own() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<OwnedSession>();
    let seeds: Vec<usize> = (0..8).collect();
    let want = by_session(&seeds);
    let session = OwnedSession::open(DIGITS).expect("it opens");
    assert_eq!(session.package().as_ptr(), session.clone().package().as_ptr(), "one package");
    std::thread::scope(|scope| {
        for part in [&seeds[..4], &seeds[4..]] {
            let (mut session, want) = (session.clone(), &want);
            scope.spawn(move || {
                for seed in part.iter().cycle().take(40) {
                    assert_eq!(bits(session.run(&picture(*seed)).expect("it runs")), want[*seed]);
                }
            });
        }
    });
}

#[test]
fn ports_are_described() {
    let session = OwnedSession::open(DIGITS).expect("it opens");
    let [input] = session.inputs() else { panic!("one input") };
    assert_eq!((input.name.as_str(), input.dtype, &input.shape[..]), ("input", DType::F32, &[1, 1, 28, 28][..]));
    assert_eq!((session.outputs().len(), session.outputs()[0].len()), (1, 10));
    assert!(session.output(1).tensor().is_none());
}

#[test]
fn wrong_inputs_are_named() {
    let mut session = OwnedSession::open(DIGITS).expect("it opens");
    let error = session.run(&[0.0; 3]).expect_err("too few");
    assert!(matches!(&error, RunError::Length { input, got: 3, .. } if input == "input"), "{error:?}");
    assert_eq!(error.to_string(), "input 'input' takes 784 elements (shape [1, 1, 28, 28]), got 3");
    assert_eq!(session.set_input(4, &[]), Err(RunError::Index { index: 4, count: 1 }));
    assert_eq!(session.values(2).map(<[f32]>::len), Err(RunError::Index { index: 2, count: 1 }));
}

#[test]
fn damaged_packages_are_refused() {
    let mut bytes = DIGITS.to_vec();
    bytes[20_000] ^= 1;
    assert!(matches!(OwnedSession::open(&bytes), Err(OpenError::Package(_))));
    assert!(OwnedSession::open(b"").is_err());
    let missing = OwnedSession::open_file("no/such/file").expect_err("no file");
    assert!(missing.to_string().starts_with("cannot read no/such/file: "), "{missing}");
}

/// Ports that are quantized: numbers are quantized on the way in and dequantized on the way out.
mod quantized {
    use dunlin::package::op::{Nothing, Op};
    use dunlin::package::plan::{Place, PlanWriter, StepWriter, Tensor};
    use dunlin::package::{Builder, EngineVersion, ManifestDraft, PortDraft};

    use super::*;

    fn package(dtype: DType, scale: f32, zero_point: i32) -> Vec<u8> {
        let tensor = |place| Tensor { dtype, rank: 1, dims: [4, 1, 1, 1, 1, 1], place, scale, zero_point };
        let plan = PlanWriter {
            arena_bytes: 32,
            tensors: vec![tensor(Place::Arena(0)), tensor(Place::Arena(16))],
            steps: vec![StepWriter::new(Op::Copy, vec![Some(0)], vec![1], &Nothing {})],
            inputs: vec![0],
            outputs: vec![1],
        };
        let port =
            |name: &str| PortDraft { name: name.into(), dtype, dims: vec![4], scale, zero_point, labels: Vec::new() };
        let builder = Builder {
            manifest: ManifestDraft {
                name: "copy".into(),
                version: "1".into(),
                engine_min: EngineVersion { major: 0, minor: 1 },
                ops_version: 1,
                arena_bytes: 32,
                exact: true,
                inputs: vec![port("x")],
                outputs: vec![port("y")],
                ..ManifestDraft::default()
            },
            plan: plan.write().expect("a plan"),
            ..Builder::default()
        };
        builder.build().expect("a package")
    }

    #[test]
    fn numbers_are_quantized_and_dequantized() {
        let mut session = OwnedSession::open(&package(DType::I8, 0.5, -3)).expect("it opens");
        assert_eq!(session.run(&[0.0, 1.0, 1.24, 1e9]), Ok(&[0.0, 1.0, 1.0, 65.0][..]));
        assert_eq!(session.output(0).as_slice::<i8>(), Some(&[-3, -1, -1, 127][..]));
        let mut session = OwnedSession::open(&package(DType::U8, 0.5, 3)).expect("it opens");
        assert_eq!(session.run(&[0.0, 1.0, -9.0, 1e9]), Ok(&[0.0, 1.0, -1.5, 126.0][..]));
    }

    #[test]
    fn integers_that_are_no_numbers_are_not_converted() {
        let mut session = OwnedSession::open(&package(DType::I8, 0.0, 0)).expect("it opens");
        assert!(matches!(session.run(&[0.0; 4]), Err(RunError::Type { .. })));
        session.input(0).copy_from_slice(&[1i8, 2, 3, 4]).expect("as they are");
        session.invoke().expect("it runs");
        assert_eq!(session.output(0).as_slice::<i8>(), Some(&[1, 2, 3, 4][..]));
    }
}
