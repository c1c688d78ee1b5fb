//! Where tract's own reading of quantized graphs goes wrong, ours has to be right.

use dunlin::DType;
use dunlin::onnx::{ErrorKind, Options, compile as raw_compile};
use dunlin::package::op::Op;
use tract_onnx::pb::tensor_proto::DataType;

use crate::graph::{Attribute, Graph};
use crate::{bytes_of, compile, floats_of, run};

/// Between DequantizeLinear and QuantizeLinear, declutter takes any operator for a function of one byte.
#[test]
fn softmax_is_no_function_of_one_byte() {
    let scale = 1.0 / 16.0;
    let onnx = Graph::new(17)
        .input("x", DataType::Int8, &[2, 4])
        .floats("s", &[], &[scale])
        .floats("t", &[], &[1.0 / 256.0])
        .int8("zs", &[], &[3])
        .int8("zt", &[], &[-128])
        .node("DequantizeLinear", "x s zs -> f")
        .node_with("Softmax", "f -> p", &[("axis", Attribute::Int(-1))])
        .node("QuantizeLinear", "p t zt -> y")
        .output("y", DataType::Int8)
        .bytes();
    let loaded = compile(&onnx);
    assert!(loaded.ops().contains(&(Op::Softmax as u8)) && !loaded.ops().contains(&(Op::Map as u8)));
    // Both rows begin with the same byte, and what follows it differs.
    let x = [16i8, 0, 0, 0, 16, 48, -64, 16];
    let y = run(&loaded, &[&x.map(i8::cast_unsigned)]).remove(0);
    for (row, got) in x.chunks(4).zip(y.chunks(4)) {
        let e: Vec<f64> = row.iter().map(|&q| (f64::from(q) * f64::from(scale)).exp()).collect();
        let sum: f64 = e.iter().sum();
        for (e, &got) in e.iter().zip(got) {
            let exact = e / sum * 256.0 - 128.0;
            assert!((f64::from(got.cast_signed()) - exact).abs() <= 0.501, "{got} for {exact}");
        }
    }
    assert_ne!(y[0], y[4]);
}

/// Without our own operators, the scales of a list are folded into float weights, or all but the first forgotten.
#[test]
fn int8_weights_and_their_scales_stay() {
    let scales = [0.5f32, 0.25, 0.125];
    let weights: Vec<i8> = (0..12).map(|i| (i * 7 % 11 - 5) as i8).collect();
    let onnx = Graph::new(17)
        .input("x", DataType::Int8, &[1, 4, 1, 1])
        .int8("w", &[3, 4, 1, 1], &weights)
        .int8("z", &[], &[0])
        .int8("zw", &[3], &[0, 0, 0])
        .floats("one", &[], &[1.0])
        .floats("sw", &[3], &scales)
        .node("DequantizeLinear", "x one z -> f")
        .node_with("DequantizeLinear", "w sw zw -> g", &[("axis", Attribute::Int(0))])
        .node("Conv", "f g -> c")
        .node("QuantizeLinear", "c one z -> y")
        .output("y", DataType::Int8)
        .bytes();
    let loaded = compile(&onnx);
    assert_eq!(loaded.ops(), [Op::Conv as u8].into());
    let held = loaded.compiled.graph.tensors.iter().filter_map(|t| Some((t.dtype, t.data.as_ref()?)));
    let held: Vec<Vec<u8>> = held.filter(|(t, _)| *t == DType::I8).map(|(_, d)| d.clone()).collect();
    assert!(held.contains(&weights.iter().map(|w| w.cast_unsigned()).collect()), "the weights are not as they were");
    let x = [3i8, -7, 20, 11];
    let y = run(&loaded, &[&x.map(i8::cast_unsigned)]).remove(0);
    for (o, scale) in scales.iter().enumerate() {
        let acc: i32 = (0..4).map(|k| i32::from(x[k]) * i32::from(weights[o * 4 + k])).sum();
        let expected = (acc as f32 * scale).round_ties_even().clamp(-128.0, 127.0);
        assert_eq!(f32::from(y[o].cast_signed()), expected, "channel {o}");
    }
}

/// `x * (1 / scale)` is not `x / scale`.
#[test]
fn quantization_divides() {
    let (mut divided, mut multiplied) = (0, 0);
    for scale in [0.1f32, 0.003, 0.7, 1.0 / 3.0, 0.0123] {
        // Values beside the ties, where the two forms part.
        let x: Vec<f32> = (-120..120)
            .flat_map(|q| {
                let tie = (q as f32 + 0.5) * scale;
                [f32::from_bits(tie.to_bits() - 1), tie, f32::from_bits(tie.to_bits() + 1)]
            })
            .collect();
        let onnx = Graph::new(17)
            .input("x", DataType::Float, &[x.len() as i64])
            .floats("s", &[], &[scale])
            .int8("z", &[], &[0])
            .node("QuantizeLinear", "x s z -> y")
            .output("y", DataType::Int8)
            .bytes();
        let y = run(&compile(&onnx), &[&bytes_of(&x)]).remove(0);
        for (x, y) in x.iter().zip(y) {
            let code = |v: f32| v.round_ties_even().clamp(-128.0, 127.0) as i8;
            assert_eq!(y.cast_signed(), code(x / scale), "{x} / {scale}");
            divided += 1;
            multiplied += i32::from(code(x * (1.0 / scale)) != code(x / scale));
        }
    }
    assert!(multiplied > 50, "of {divided} values only {multiplied} tell the two apart");
}

#[test]
fn output_dtype_rules_where_no_zero_point_does() {
    for (number, dtype, lo) in [(3, DType::I8, -128.0f32), (2, DType::U8, 0.0)] {
        let onnx = Graph::new(21)
            .input("x", DataType::Float, &[6])
            .floats("s", &[], &[1.0])
            .node_with("QuantizeLinear", "x s -> y", &[("output_dtype", Attribute::Int(number))])
            .output("y", if dtype == DType::I8 { DataType::Int8 } else { DataType::Uint8 })
            .bytes();
        let loaded = compile(&onnx);
        assert_eq!(loaded.output_type(0), Some(dtype));
        let x = [-300.0f32, -2.0, 0.0, 2.0, 127.0, 300.0];
        let y = run(&loaded, &[&bytes_of(&x)]).remove(0);
        let expected = x.map(|v| v.clamp(lo, lo + 255.0) as i32 as u8);
        assert_eq!(y, expected, "{dtype:?}");
    }
}

const TIES: [f32; 8] = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 126.5];
const EVEN: [i8; 8] = [-2, -2, 0, 0, 2, 2, 4, 126];

#[test]
fn ties_go_to_the_even_in_the_engine() {
    let onnx = Graph::new(17)
        .input("x", DataType::Float, &[8])
        .floats("s", &[], &[1.0])
        .int8("z", &[], &[0])
        .node("QuantizeLinear", "x s z -> y")
        .output("y", DataType::Int8)
        .bytes();
    let y = run(&compile(&onnx), &[&bytes_of(&TIES)]).remove(0);
    assert_eq!(y, EVEN.map(i8::cast_unsigned));
}

/// `into_optimized` takes tract's own quantization to another rounding; ours stays as it is.
#[test]
fn ties_go_to_the_even_in_tract() {
    // A computed tensor with a scale for each channel is nothing that the engine has.
    let onnx = Graph::new(17)
        .input("x", DataType::Float, &[2, 8])
        .floats("s", &[2], &[1.0, 2.0])
        .int8("z", &[2], &[0, 0])
        .node_with("QuantizeLinear", "x s z -> q", &[("axis", Attribute::Int(0))])
        .node_with("DequantizeLinear", "q s z -> y", &[("axis", Attribute::Int(0))])
        .output("y", DataType::Float)
        .bytes();
    let loaded = compile(&onnx);
    assert!(loaded.hybrid());
    let x: Vec<f32> = TIES.into_iter().chain(TIES.map(|t| t * 2.0)).collect();
    let y = floats_of(&run(&loaded, &[&bytes_of(&x)])[0]);
    let expected: Vec<f32> = EVEN.map(f32::from).into_iter().chain(EVEN.map(|e| f32::from(e) * 2.0)).collect();
    assert_eq!(y, expected);
}

/// Forms that are not supported yet say so, with the node and the form.
#[test]
fn wider_and_narrower_integers_are_named() {
    let quantized = |dtype: DataType, size: usize| {
        Graph::new(21)
            .input("x", DataType::Float, &[4])
            .floats("s", &[], &[0.5])
            .constant("z", dtype, &[], vec![0; size])
            .node("QuantizeLinear", "x s z -> q")
            .node("DequantizeLinear", "q s z -> y")
            .output("y", DataType::Float)
            .bytes()
    };
    let weights = |dtype: DataType, raw: usize| {
        Graph::new(21)
            .input("x", DataType::Float, &[1, 4])
            .floats("s", &[], &[0.5])
            .constant("w", dtype, &[4, 2], vec![0; raw])
            .node("DequantizeLinear", "w s -> v")
            .node("MatMul", "x v -> y")
            .output("y", DataType::Float)
            .bytes()
    };
    let blocked = Graph::new(21)
        .input("x", DataType::Float, &[1, 4])
        .floats("s", &[2, 2], &[0.5; 4])
        .int8("w", &[4, 2], &[1; 8])
        .node_with("DequantizeLinear", "w s -> v", &[("axis", Attribute::Int(0)), ("block_size", Attribute::Int(2))])
        .node("MatMul", "x v -> y")
        .output("y", DataType::Float)
        .bytes();
    let cases = [
        ("int16", "'z'", quantized(DataType::Int16, 2)),
        ("uint16", "'z'", quantized(DataType::Uint16, 2)),
        ("int4", "'w'", weights(DataType::Int4, 4)),
        ("uint4", "'w'", weights(DataType::Uint4, 4)),
        ("int16", "'w'", weights(DataType::Int16, 16)),
        ("blocked", "make-v", blocked),
    ];
    for (form, place, onnx) in cases {
        let error = raw_compile(&onnx, &Options::default()).expect_err(form);
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{form}: {text}");
        assert!(text.contains(form) && text.contains(place), "{form} at {place}: {text}");
        assert!(error.advice().is_some(), "{form}: no hint: {text}");
    }
}
