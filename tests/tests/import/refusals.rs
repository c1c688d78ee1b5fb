//! Files that cannot be compiled: each is refused by a text that names the thing.

use dunlin::onnx::{CompileError, ErrorKind, Options, Pins, compile};
use dunlin_cli::npz;
use tract_onnx::pb::tensor_proto::DataType;

use crate::graph::{Attribute, Graph};

fn refused(what: &str, onnx: &[u8], options: &Options) -> CompileError {
    match compile(onnx, options) {
        Ok(_) => panic!("{what}: compiled"),
        Err(error) => error,
    }
}

/// The error of a bad file has this kind, and its text these words.
fn expect(what: &str, onnx: &[u8], kind: ErrorKind, words: &[&str]) {
    let error = refused(what, onnx, &Options::default());
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{what}: {text}");
    for word in words {
        assert!(text.contains(word), "{what}: no '{word}' in: {text}");
    }
}

/// x -> Relu -> y
fn relu(dims: &[i64]) -> Graph {
    Graph::new(17).input("x", DataType::Float, dims).node("Relu", "x -> y").output("y", DataType::Float)
}

/// A quantized convolution with that scale of x.
fn convolution(scale: f32) -> Graph {
    Graph::new(17)
        .input("x", DataType::Float, &[1, 2, 4, 4])
        .floats("scale-x", &[], &[scale])
        .floats("one", &[], &[1.0])
        .int8("z", &[], &[0])
        .int8("w", &[2, 2, 1, 1], &[1, 2, 3, 4])
        .node("QuantizeLinear", "x scale-x z -> q")
        .node("DequantizeLinear", "q scale-x z -> f")
        .node("DequantizeLinear", "w one z -> g")
        .node("Conv", "f g -> c")
        .node("QuantizeLinear", "c one z -> y")
        .output("y", DataType::Int8)
}

#[test]
fn the_models_that_are_broken_here_are_good() {
    for (what, onnx) in [("relu", relu(&[1, 4]).bytes()), ("convolution", convolution(0.5).bytes())] {
        compile(&onnx, &Options::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

#[test]
fn what_is_no_onnx() {
    let whole = convolution(0.5).bytes();
    expect("nothing", b"", ErrorKind::NotOnnx, &["not an ONNX model"]);
    expect("text", b"hello, this is no model at all", ErrorKind::NotOnnx, &["not an ONNX model", "hint"]);
    expect("half", &whole[..whole.len() / 2], ErrorKind::NotOnnx, &["truncated"]);
    let package = include_bytes!("../../../runtime/package/tests/golden/v1.dunlin");
    expect("a package", package, ErrorKind::NotOnnx, &["not an ONNX model"]);
}

#[test]
fn every_prefix_and_many_flips_give_an_answer() {
    let whole = convolution(0.5).bytes();
    for end in 0..whole.len() {
        let _ = compile(&whole[..end], &Options::default());
    }
    let mut wrong = Vec::new();
    for at in 0..whole.len() {
        for bit in [0, 3, 6] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            if let Err(error) = compile(&bytes, &Options::default())
                && error.kind() == ErrorKind::Internal
            {
                wrong.push(format!("byte {at}, bit {bit}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} flips look like faults of the compiler:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn open_shapes_are_named_and_can_be_given() {
    expect("dynamic batch", &relu(&[-1, 4]).bytes(), ErrorKind::DynamicShape, &["'x'", "--input-shape x="]);
    let shapeless = Graph::new(17).shapeless("x", DataType::Float).node("Relu", "x -> y").output("y", DataType::Float);
    let shapeless = shapeless.bytes();
    expect("no shape", &shapeless, ErrorKind::DynamicShape, &["'x'", "--input-shape x="]);
    let pins = |name: &str, shape: Vec<usize>| Options {
        pins: Pins { shapes: [(name.to_owned(), shape)].into(), ..Pins::default() },
        ..Options::default()
    };
    for onnx in [&relu(&[-1, 4]).bytes(), &shapeless] {
        let compiled = compile(onnx, &pins("x", vec![3, 4])).unwrap_or_else(|e| panic!("{e}"));
        let (_, id) = &compiled.graph.inputs[0];
        assert_eq!(compiled.graph.tensors[*id].dims, [3, 4]);
    }
    let text = refused("another's name", &shapeless, &pins("q", vec![3, 4])).to_string();
    assert!(text.contains("'q'") && text.contains("'x'"), "{text}");
    let error = refused("against the model", &relu(&[2, 4]).bytes(), &pins("x", vec![3, 4]));
    assert_eq!(error.kind(), ErrorKind::DynamicShape, "{error}");
    assert!(error.to_string().contains("'x'"), "{error}");
}

#[test]
fn shapes_that_depend_on_data() {
    let onnx = Graph::new(17)
        .input("x", DataType::Float, &[8])
        .node("NonZero", "x -> n")
        .node_with("Cast", "n -> y", &[("to", Attribute::Int(1))])
        .output("y", DataType::Float);
    expect("NonZero", &onnx.bytes(), ErrorKind::DynamicShape, &["make-n", "NonZero", "not known"]);
}

#[test]
fn operators_that_nobody_has() {
    let unknown = |domain: &str| {
        let mut graph = Graph::new(17)
            .input("x", DataType::Float, &[8])
            .node("Frobnicate", "x -> f")
            .node("Relu", "f -> y")
            .output("y", DataType::Float);
        graph.proto.node[0].domain = domain.into();
        graph.bytes()
    };
    for domain in ["", "com.example"] {
        expect(domain, &unknown(domain), ErrorKind::Unsupported, &["make-f", "Frobnicate"]);
    }
}

#[test]
fn a_device_names_every_node_it_lacks() {
    let onnx = Graph::new(17)
        .input("x", DataType::Float, &[1, 8])
        .node("Sinh", "x -> a")
        .node("Relu", "a -> b")
        .node("Asinh", "b -> y")
        .output("y", DataType::Float)
        .bytes();
    let host = compile(&onnx, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(host.missing.iter().map(|m| m.op.as_str()).collect::<Vec<_>>(), ["Sinh", "Asinh"]);
    let error = refused("a device", &onnx, &Options { target: "cortex-m4".into(), ..Options::default() });
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
    for word in ["cortex-m4", "'make-a' (Sinh)", "'make-y' (Asinh)", "hint", "--target host"] {
        assert!(text.contains(word), "no '{word}' in: {text}");
    }
}

#[test]
fn scales_that_mean_nothing() {
    for scale in [f32::NAN, 0.0, -0.5, f32::INFINITY] {
        let what = format!("a scale of {scale}");
        expect(&what, &convolution(scale).bytes(), ErrorKind::Quantization, &["'scale-x'", &scale.to_string(), "hint"]);
        let weights = Graph::new(17)
            .input("x", DataType::Float, &[1, 2])
            .floats("scale-w", &[3], &[1.0, scale, 1.0])
            .int8("w", &[2, 3], &[1; 6])
            .node_with("DequantizeLinear", "w scale-w -> v", &[("axis", Attribute::Int(1))])
            .node("MatMul", "x v -> y")
            .output("y", DataType::Float);
        expect(&what, &weights.bytes(), ErrorKind::Quantization, &["'scale-w'", "make-v"]);
    }
    let short = Graph::new(17)
        .input("x", DataType::Float, &[1, 2])
        .floats("s", &[2], &[1.0; 2])
        .int8("w", &[2, 3], &[1; 6])
        .node_with("DequantizeLinear", "w s -> v", &[("axis", Attribute::Int(1))])
        .node("MatMul", "x v -> y")
        .output("y", DataType::Float);
    expect("two scales for three", &short.bytes(), ErrorKind::Quantization, &["make-v", "2 scales", "3"]);
}

#[test]
fn types_that_do_not_fit() {
    let sum = |a: DataType, b: DataType| {
        Graph::new(17).input("a", a, &[4]).input("b", b, &[4]).node("Add", "a b -> y").output("y", a).bytes()
    };
    expect("float and int8", &sum(DataType::Float, DataType::Int8), ErrorKind::InvalidGraph, &["make-y", "Add"]);
    let text =
        Graph::new(17).input("x", DataType::String, &[4]).node("Identity", "x -> y").output("y", DataType::String);
    expect("strings", &text.bytes(), ErrorKind::Unsupported, &["String"]);
    let zero = Graph::new(17)
        .input("x", DataType::Int8, &[4])
        .floats("s", &[], &[0.5])
        .uint8("z", &[], &[3])
        .node("DequantizeLinear", "x s z -> y")
        .output("y", DataType::Float);
    expect("zero point of another type", &zero.bytes(), ErrorKind::InvalidGraph, &["make-y", "zero point"]);
    let scale = Graph::new(17)
        .input("x", DataType::Int8, &[4])
        .constant("s", DataType::Int32, &[], vec![1, 0, 0, 0])
        .node("DequantizeLinear", "x s -> y")
        .output("y", DataType::Float);
    expect("a scale of integers", &scale.bytes(), ErrorKind::InvalidGraph, &["make-y", "scale"]);
    let nobody = Graph::new(17).input("x", DataType::Undefined, &[4]).node("Relu", "x -> y");
    expect("no type", &nobody.output("y", DataType::Float).bytes(), ErrorKind::InvalidGraph, &["'x'"]);
}

#[test]
fn graphs_that_contradict_themselves() {
    let dangling = relu(&[4]).node("Relu", "ghost -> z").output("z", DataType::Float);
    expect("a value from nowhere", &dangling.bytes(), ErrorKind::InvalidGraph, &["'ghost'"]);
    let missing = Graph::new(17).input("x", DataType::Float, &[4]).node("Relu", "x -> z").output("y", DataType::Float);
    expect("an output from nowhere", &missing.bytes(), ErrorKind::InvalidGraph, &["'y'"]);
    let cycle = Graph::new(17)
        .input("x", DataType::Float, &[4])
        .node("Add", "x b -> a")
        .node("Relu", "a -> b")
        .output("b", DataType::Float);
    expect("a cycle", &cycle.bytes(), ErrorKind::InvalidGraph, &["'a'", "itself"]);
    let twice = relu(&[4]).node("Neg", "x -> y");
    expect("two producers", &twice.bytes(), ErrorKind::InvalidGraph, &["'y'"]);
    let channels = Graph::new(17)
        .input("x", DataType::Float, &[1, 3, 4, 4])
        .floats("w", &[2, 2, 1, 1], &[1.0; 4])
        .node("Conv", "x w -> y")
        .output("y", DataType::Float);
    expect("channels", &channels.bytes(), ErrorKind::InvalidGraph, &["make-y", "Conv"]);
    let product = Graph::new(17)
        .input("a", DataType::Float, &[2, 3])
        .input("b", DataType::Float, &[4, 2])
        .node("MatMul", "a b -> y")
        .output("y", DataType::Float);
    expect("a product", &product.bytes(), ErrorKind::InvalidGraph, &["make-y", "MatMul"]);
    let short = relu(&[4]).floats("c", &[5], &[1.0, 2.0]).node("Add", "x c -> z").output("z", DataType::Float);
    expect("a short constant", &short.bytes(), ErrorKind::InvalidGraph, &["'c'"]);
    let axis = Graph::new(17)
        .input("x", DataType::Float, &[2, 3])
        .node_with("Concat", "x x -> y", &[("axis", Attribute::Int(7))])
        .output("y", DataType::Float);
    expect("an axis too many", &axis.bytes(), ErrorKind::InvalidGraph, &["make-y", "axis"]);
    let stride = Graph::new(17)
        .input("x", DataType::Float, &[1, 1, 4, 4])
        .floats("w", &[1, 1, 1, 1], &[1.0])
        .node_with("Conv", "x w -> y", &[("strides", Attribute::Ints(vec![0, 1]))])
        .output("y", DataType::Float);
    expect("a stride of 0", &stride.bytes(), ErrorKind::InvalidGraph, &["make-y", "stride"]);
}

#[test]
fn what_is_too_large() {
    let huge = relu(&[1 << 20, 1 << 20]);
    expect("a terabyte", &huge.bytes(), ErrorKind::TooLarge, &["'x'"]);
    let beyond = relu(&[i64::MAX, i64::MAX]);
    expect("beyond numbers", &beyond.bytes(), ErrorKind::TooLarge, &["'x'"]);
    let constant = relu(&[4]).constant("c", DataType::Float, &[1 << 40, 1 << 40], vec![0; 4]).node("Add", "x c -> z");
    expect("a lying constant", &constant.output("z", DataType::Float).bytes(), ErrorKind::InvalidGraph, &["'c'"]);
    let filled = relu(&[4])
        .constant("shape", DataType::Int64, &[2], [1i64 << 24, 1 << 24].iter().flat_map(|d| d.to_le_bytes()).collect())
        .node("ConstantOfShape", "shape -> f")
        .node("Add", "x f -> z")
        .output("z", DataType::Float);
    let error = refused("a filled terabyte", &filled.bytes(), &Options::default());
    assert!(error.to_string().contains("make-f"), "{error}");
}

/// Every operator's model with damaged bytes: an answer, and never a fault of the compiler's own.
#[test]
fn damaged_models_of_every_operator() {
    let flips: u32 = std::env::var("DUNLIN_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let cases = npz::read(include_bytes!("../../conformance/cases.npz")).expect("cases.npz");
    // xorshift32
    let mut state = 0x9E37_79B9u32;
    let mut random = |n: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % n
    };
    let mut wrong = Vec::new();
    for (key, array) in cases.into_iter().filter(|(key, _)| key.ends_with("/model")) {
        for _ in 0..flips {
            let mut bytes = array.bytes.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = if random(2) == 0 { bytes[at] ^ (1 << random(8)) } else { random(256) as u8 };
            }
            if let Err(error) = compile(&bytes, &Options::default())
                && error.kind() == ErrorKind::Internal
            {
                wrong.push(format!("{key}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}
