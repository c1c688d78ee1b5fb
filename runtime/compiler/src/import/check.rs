//! What ONNX asks of a graph, checked before tract sees it: types, sizes of constants, attributes, wires and their order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use tract_onnx::model::OnnxOpRegister;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use super::node_name;
use crate::error::{CompileError, ErrorKind};
use crate::foreign::free_names;

/// Bytes that no tensor may exceed.
pub(super) const MOST_BYTES: usize = i32::MAX as usize;

/// The ONNX types that are not supported, by their numbers.
const FOREIGN_TYPES: &[(i32, &str)] = &[
    (4, "uint16"),
    (5, "int16"),
    (17, "float8e4m3fn"),
    (18, "float8e4m3fnuz"),
    (19, "float8e5m2"),
    (20, "float8e5m2fnuz"),
    (21, "uint4"),
    (22, "int4"),
    (23, "float4e2m1"),
    (24, "float8e8m0"),
    (25, "uint2"),
    (26, "int2"),
];

/// The domains of which operators are known.
const DOMAINS: &[&str] = &["", "ai.onnx", "com.microsoft", "ai.onnx.ml"];

/// Checks a graph and puts its nodes in an order in which they can run.
///
/// # Errors
/// When it is not what ONNX asks for, or has a type or operator that nothing here knows.
pub(super) fn graph(graph: &mut GraphProto, operators: &OnnxOpRegister) -> Result<(), CompileError> {
    for tensor in &graph.initializer {
        constant(tensor, &tensor.name)?;
    }
    for info in &graph.input {
        input(info)?;
    }
    for node in &graph.node {
        self::node(node, operators, &graph.initializer).map_err(|e| e.at(&node_name(node), &node.op_type))?;
    }
    wires(graph)
}

fn foreign_type(number: i32) -> Option<&'static str> {
    FOREIGN_TYPES.iter().find(|(t, _)| *t == number).map(|(_, name)| *name)
}

fn constant(tensor: &TensorProto, name: &str) -> Result<(), CompileError> {
    if let Some(other) = foreign_type(tensor.data_type) {
        return Err(CompileError::unsupported(format!("constant '{name}' has type {other}"))
            .hint("quantize to int8 or uint8; 16-bit, 4-bit and 8-bit float types are not supported yet"));
    }
    if tensor.data_location.is_some_and(|l| l != 0) {
        return Err(CompileError::unsupported(format!("constant '{name}' lies in another file"))
            .hint("save the model with its weights inside: onnx.save(model, path)"));
    }
    let (size, listed) = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => (4, tensor.float_data.len()),
        Ok(DataType::Int32) => (4, tensor.int32_data.len()),
        Ok(DataType::Int8 | DataType::Uint8 | DataType::Bool) => (1, tensor.int32_data.len()),
        Ok(DataType::Float16 | DataType::Bfloat16) => (2, tensor.int32_data.len()),
        Ok(DataType::Int64) => (8, tensor.int64_data.len()),
        Ok(DataType::Uint64) => (8, tensor.uint64_data.len()),
        Ok(DataType::Uint32) => (4, tensor.uint64_data.len()),
        Ok(DataType::Double) => (8, tensor.double_data.len()),
        Ok(DataType::String) => (0, tensor.string_data.len()),
        _ => return Err(CompileError::invalid(format!("constant '{name}' has no known type: {}", tensor.data_type))),
    };
    let extents: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let elements = extents.and_then(|e| e.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
    let fits = |n: usize| {
        if tensor.raw_data.is_empty() { listed == n } else { n.checked_mul(size) == Some(tensor.raw_data.len()) }
    };
    if elements.is_some_and(fits) {
        return Ok(());
    }
    let held = if tensor.raw_data.is_empty() {
        format!("{listed} elements")
    } else {
        format!("{} bytes", tensor.raw_data.len())
    };
    Err(CompileError::invalid(format!("constant '{name}' has {held} for the shape {:?}", tensor.dims))
        .hint("the file is damaged, or whatever wrote it is at fault; onnx.checker.check_model tells more"))
}

fn input(info: &ValueInfoProto) -> Result<(), CompileError> {
    let name = &info.name;
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(CompileError::invalid(format!("input '{name}' is no tensor, or has no type")));
    };
    if let Some(other) = foreign_type(tensor.elem_type) {
        return Err(CompileError::unsupported(format!("input '{name}' has type {other}"))
            .hint("give the model float, int8 or uint8 inputs"));
    }
    match DataType::try_from(tensor.elem_type) {
        Ok(DataType::Undefined) | Err(_) => {
            Err(CompileError::invalid(format!("input '{name}' has no known element type: {}", tensor.elem_type)))
        }
        Ok(_) => Ok(()),
    }
}

fn node(node: &NodeProto, operators: &OnnxOpRegister, constants: &[TensorProto]) -> Result<(), CompileError> {
    let op = node.op_type.as_str();
    if !DOMAINS.contains(&node.domain.as_str()) {
        return Err(CompileError::unsupported(format!("operators of the domain '{}' are not known", node.domain))
            .hint("export the model with ONNX's own operators; onnx.inliner resolves functions"));
    }
    if !operators.0.contains_key(op) {
        return Err(CompileError::unsupported("neither the engine nor tract has this operator")
            .hint("replace it by operators that they have; onnx.inliner resolves functions"));
    }
    for attribute in &node.attribute {
        if let Some(tensor) = &attribute.t {
            constant(tensor, &node_name(node))?;
        }
        let list = &attribute.ints;
        let wrong = match attribute.name.as_str() {
            "strides" | "dilations" | "kernel_shape" => list.iter().any(|&n| n < 1),
            "pads" if op != "Pad" => list.iter().any(|&n| n < 0),
            "group" => attribute.i < 1,
            "block_size" if op.ends_with("QuantizeLinear") || op == "DequantizeLinear" => {
                if attribute.i == 0 {
                    continue;
                }
                return Err(CompileError::unsupported(format!("blocked quantization (block_size {})", attribute.i))
                    .hint("quantize per tensor or per axis"));
            }
            _ => false,
        };
        if wrong {
            let value = if list.is_empty() { attribute.i.to_string() } else { format!("{list:?}") };
            return Err(CompileError::invalid(format!("the attribute {} is {value}", attribute.name)));
        }
    }
    // tract computes these at once when they are constant, however large.
    if let ("ConstantOfShape", Some(shape), _) | ("Expand" | "Tile", _, Some(shape)) =
        (op, node.input.first(), node.input.get(1))
        && let Some(tensor) = constants.iter().find(|t| &t.name == shape)
    {
        let raw = tensor.raw_data.chunks_exact(8).map(|b| b.try_into().map_or(0, i64::from_le_bytes));
        let elements = tensor.int64_data.iter().copied().chain(raw).try_fold(1i64, i64::checked_mul);
        if elements.is_none_or(|n| n > MOST_BYTES as i64 / 4) {
            return Err(CompileError::new(ErrorKind::TooLarge, "its result has more than 2 GB"));
        }
    }
    Ok(())
}

/// Every value has one producer, and nodes come after those that they read.
fn wires(graph: &mut GraphProto) -> Result<(), CompileError> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    if constants.len() != graph.initializer.len() {
        let mut seen = HashSet::new();
        let twice = graph.initializer.iter().find(|t| !seen.insert(t.name.as_str()));
        return Err(CompileError::invalid(format!(
            "there are two constants '{}'",
            twice.map_or("", |t| t.name.as_str())
        )));
    }
    let mut inputs = HashSet::new();
    if let Some(twice) = graph.input.iter().find(|i| !inputs.insert(i.name.as_str())) {
        return Err(CompileError::invalid(format!("there are two inputs '{}'", twice.name)));
    }
    let given = |name: &str| constants.contains(name) || inputs.contains(name);
    let mut producers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if given(name) || producers.insert(name, index).is_some() {
                return Err(CompileError::invalid(format!("the value '{name}' is produced twice"))
                    .at(&node_name(node), &node.op_type));
            }
        }
    }
    let nowhere = |name: &str| CompileError::invalid(format!("nothing produces the value '{name}'"));
    let mut waits = vec![0usize; graph.node.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.node.len()];
    for (index, node) in graph.node.iter().enumerate() {
        for name in free_names(std::slice::from_ref(node)) {
            match producers.get(name.as_str()) {
                Some(&producer) => {
                    waits[index] += 1;
                    readers[producer].push(index);
                }
                None if given(&name) => {}
                None => return Err(nowhere(&name).at(&node_name(node), &node.op_type)),
            }
        }
        // A node that reads its own output is nobody's free name.
        if let Some(name) = node.input.iter().find(|n| !n.is_empty() && node.output.contains(n)) {
            return Err(CompileError::invalid(format!("the value '{name}' depends on itself"))
                .at(&node_name(node), &node.op_type));
        }
    }
    for output in &graph.output {
        if !given(&output.name) && !producers.contains_key(output.name.as_str()) {
            return Err(nowhere(&output.name).hint("it is an output of the model"));
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..waits.len()).filter(|&i| waits[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &reader in &readers[index] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    if order.len() < waits.len() {
        let node = waits.iter().position(|&n| n > 0).and_then(|i| graph.node.get(i)).cloned().unwrap_or_default();
        let name = node.output.first().cloned().unwrap_or_default();
        return Err(
            CompileError::invalid(format!("the value '{name}' depends on itself")).at(&node_name(&node), &node.op_type)
        );
    }
    let mut nodes: Vec<Option<NodeProto>> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    graph.node = order.into_iter().filter_map(|i| nodes[i].take()).collect();
    Ok(())
}
