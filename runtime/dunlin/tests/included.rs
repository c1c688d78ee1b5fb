//! `include_model!`, with what is there without the standard library.
#![cfg(feature = "macros")]

use dunlin::kernels::native;
use dunlin::package::Aligned;
use dunlin::{Arena, DType, Model, Package, Session, ops};

dunlin::include_model!(
    /// Reads handwritten digits.
    mod digits = "examples/digits.dunlin"
);

#[test]
fn it_runs_wherever_its_memory_begins() {
    let package = Package::open(digits::PACKAGE).expect("a package");
    let model = Model::load(&package, digits::ops()).expect("its operators are enough");
    let all = Model::load(&package, ops::all()).expect("it loads");
    assert_eq!(model.arena_len(native()) + 15, digits::ARENA_LEN);
    let pixels: [digits::Input; digits::INPUT_LEN] = core::array::from_fn(|i| i as f32 / 784.0);
    let mut scores = [[0.0f32; digits::OUTPUT_LEN]; 2];
    let mut memory = Aligned([0; digits::ARENA_LEN + 1]);
    for (start, scores) in scores.iter_mut().enumerate() {
        let model = if start == 0 { &model } else { &all };
        let arena = Arena::new(&mut memory[start..start + digits::ARENA_LEN]);
        let mut session = Session::new(model, arena, native()).expect("room");
        session.input(0).copy_from_slice(&pixels).expect("an input");
        session.run();
        scores.copy_from_slice(session.output(0).as_slice().expect("floats"));
    }
    assert_eq!(scores[0].map(f32::to_bits), scores[1].map(f32::to_bits));
    assert!(scores[0].iter().any(|score| *score != 0.0));
}

#[test]
fn it_is_aligned_and_described() {
    assert_eq!(digits::PACKAGE.as_ptr().addr() % 64, 0);
    assert_eq!(&digits::PACKAGE[..], include_bytes!("../examples/digits.dunlin"));
    let [input] = digits::INPUTS else { panic!("one input") };
    assert_eq!((input.name, input.dtype, input.shape), ("input", DType::F32, &[1, 1, 28, 28][..]));
    assert_eq!((digits::OUTPUTS.len(), digits::NAME, digits::VERSION), (1, "digits", "2"));
}

#[test]
fn it_names_only_the_operators_that_are_needed() {
    let package = Package::open(digits::PACKAGE).expect("a package");
    let model = Model::load(&package, ops::all::<dunlin::kernels::Native>()).expect("it loads");
    for operator in digits::ops::<dunlin::kernels::Native>() {
        assert!(model.plan().steps().any(|step| step.op == operator.op), "{:?}", operator.op);
    }
    assert!(digits::ops::<dunlin::kernels::Native>().len() < ops::all::<dunlin::kernels::Native>().len());
}

#[cfg(feature = "macros-onnx")]
mod compiled {
    dunlin::include_model!(mod digits = "../../models/artifacts/digits-2.onnx");

    #[test]
    fn an_onnx_file_is_compiled_while_the_program_is_built() {
        let package = dunlin::Package::open(digits::PACKAGE).expect("a package");
        let model = dunlin::Model::load(&package, digits::ops::<dunlin::kernels::Native>()).expect("it loads");
        assert_eq!(model.arena_len(dunlin::kernels::native()) + 15, digits::ARENA_LEN);
        assert_eq!(digits::INPUT_LEN, 784);
    }
}
