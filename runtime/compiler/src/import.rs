//! ONNX bytes to nodes with known types, shapes and constants. tract parses, infers shapes and folds constants.

mod operators;
mod resolve;

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto, tensor_shape_proto, type_proto};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use crate::error::{CompileError, ErrorKind};

/// Shapes and values that the caller fixes for inputs, by name.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// Shapes of inputs whose own have unknown extents.
    pub shapes: HashMap<String, Vec<usize>>,
    /// Whole-number scalars that inputs always hold, so that branches on them can be resolved.
    pub values: HashMap<String, i64>,
    /// Shapes by position of inputs that leave extents open; `shapes` goes first.
    pub defaults: Vec<Vec<usize>>,
    /// As `defaults`, by name; names that are no inputs are ignored.
    pub named: HashMap<String, Vec<usize>>,
}

impl Pins {
    /// These pins with the defaults of those inputs that need them.
    fn settled(&self, graph: &GraphProto) -> Self {
        let mut pins = self.clone();
        let constants: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let inputs = graph.input.iter().filter(|i| !constants.contains(&i.name.as_str()));
        for (i, input) in inputs.enumerate() {
            let Some(shape) = self.named.get(&input.name).or_else(|| self.defaults.get(i)) else { continue };
            if open(input) {
                pins.shapes.entry(input.name.clone()).or_insert_with(|| shape.clone());
            }
        }
        pins
    }
}

/// Whether an input's shape has an extent that is no number.
fn open(input: &ValueInfoProto) -> bool {
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return false;
    };
    let known = |d: &tensor_shape_proto::Dimension| matches!(d.value, Some(tensor_shape_proto::dimension::Value::DimValue(n)) if n >= 0);
    tensor.shape.as_ref().is_none_or(|shape| !shape.dim.iter().all(known))
}

/// What is known of a value of the graph.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    /// Element type.
    pub(crate) dtype: DatumType,
    /// Extents.
    pub(crate) shape: Vec<usize>,
    /// The value itself, when it is constant.
    pub(crate) value: Option<Arc<Tensor>>,
}

/// A graph whose values are all known in type and shape.
pub(crate) struct Imported {
    /// The model with branches resolved.
    pub(crate) model: ModelProto,
    /// Nodes in the order they run.
    pub(crate) nodes: Vec<NodeProto>,
    /// Facts by value name.
    pub(crate) facts: HashMap<String, Fact>,
    /// Names of the inputs that are no constants.
    pub(crate) inputs: Vec<String>,
    /// Names of the outputs.
    pub(crate) outputs: Vec<String>,
    /// Version of the default operator set.
    pub(crate) opset: i64,
}

/// tract's ONNX front end with our own quantization operators in the place of its own.
#[must_use]
pub(crate) fn front_end() -> tract_onnx::Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    operators::register(&mut onnx);
    onnx
}

/// Reads ONNX bytes.
///
/// # Errors
/// When the bytes are no ONNX model, or what it says is unknown, contradictory or not supported.
pub(crate) fn import(bytes: &[u8], pins: &Pins) -> Result<Imported, CompileError> {
    let mut model = ModelProto::decode(bytes).map_err(|error| {
        CompileError::new(ErrorKind::NotOnnx, format!("not an ONNX model: {error}"))
            .hint("the file may be truncated, or of another format; onnx.checker.check_model tells more")
    })?;
    if model.graph.as_ref().is_none_or(|g| g.node.is_empty() && g.output.is_empty()) {
        return Err(CompileError::new(ErrorKind::NotOnnx, "not an ONNX model: it holds no graph")
            .hint("the file may be empty, truncated or of another format"));
    }
    let pins = &model.graph.as_ref().map_or_else(Pins::default, |g| pins.settled(g));
    resolve::normalise(&mut model, pins)?;
    // A branch on a constant can only be known after inference, and inference fails on branches that disagree.
    for _ in 0..64 {
        let analysed = analyse(&model, pins)?;
        if !resolve::inline_branches(&mut model, &analysed)? {
            return finish(model, analysed);
        }
    }
    Err(CompileError::unsupported("branches are nested too deeply"))
}

/// Facts by value name, as far as they are known.
struct Analysed {
    facts: HashMap<String, InferenceFact>,
    error: Option<String>,
}

fn analyse(model: &ModelProto, pins: &Pins) -> Result<Analysed, CompileError> {
    let onnx = front_end();
    let parsed = onnx.parse(model, None).map_err(|error| {
        CompileError::new(ErrorKind::InvalidGraph, format!("cannot read the graph: {}", chain(&error)))
    })?;
    let mut inference = parsed.model;
    if let Some(name) = parsed.unresolved_inputs.first() {
        return Err(CompileError::invalid(format!("nothing produces the value '{name}'")));
    }
    for (name, shape) in &pins.shapes {
        let outlet = parsed.outlets_by_name.get(name).copied();
        let index = inference.input_outlets().ok().and_then(|o| o.iter().position(|&o| Some(o) == outlet));
        let Some(index) = index else {
            let names = inference.input_outlets().map(|o| o.len()).unwrap_or(0);
            return Err(CompileError::new(
                ErrorKind::DynamicShape,
                format!("the model has no input '{name}' to shape"),
            )
            .hint(format!("it has {names} inputs; inspect lists their names")));
        };
        let fact = inference
            .input_fact(index)
            .map(|f| f.clone().with_shape(ShapeFactoid::from(shape.iter().map(|&d| d.to_dim()))))
            .and_then(|fact| inference.set_input_fact(index, fact));
        fact.map_err(|e| CompileError::internal(chain(&e)))?;
    }
    // Some of tract's rules panic on values that no model should have.
    let analysed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inference.analyse(true)));
    let error = match analysed {
        Ok(result) => result.err().map(|e| chain(&e)),
        Err(_) => return Err(CompileError::invalid("tract panicked while it inferred shapes")),
    };
    let facts = parsed
        .outlets_by_name
        .iter()
        .filter_map(|(name, &outlet)| Some((name.clone(), inference.outlet_fact(outlet).ok()?.clone())))
        .collect();
    Ok(Analysed { facts, error })
}

fn finish(model: ModelProto, analysed: Analysed) -> Result<Imported, CompileError> {
    let graph = model.graph.as_ref().ok_or_else(|| CompileError::invalid("no graph"))?;
    let constants: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs: Vec<String> =
        graph.input.iter().map(|i| i.name.clone()).filter(|n| !constants.contains(&n.as_str())).collect();
    let mut facts = HashMap::new();
    for input in &inputs {
        let fact = analysed.facts.get(input);
        if fact.is_some_and(|f| f.shape.concretize().and_then(|s| whole(&s)).is_none()) {
            return Err(CompileError::new(
                ErrorKind::DynamicShape,
                format!("input '{input}' has no fixed shape: {:?}", fact.map(|f| f.shape.clone())),
            )
            .hint(format!("give it one: --input-shape {input}=1,3,224,224")));
        }
    }
    for (name, fact) in &analysed.facts {
        let (Some(dtype), Some(shape)) = (fact.datum_type.concretize(), fact.shape.concretize()) else { continue };
        let Some(shape) = whole(&shape) else { continue };
        facts.insert(name.clone(), Fact { dtype, shape, value: fact.value.concretize() });
    }
    let outputs: Vec<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let nodes = graph.node.clone();
    for node in &nodes {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if !facts.contains_key(name) {
                let reason = analysed.error.as_deref().unwrap_or("its shape depends on the data");
                return Err(CompileError::new(
                    ErrorKind::DynamicShape,
                    format!("the shape of '{name}' is not known at compile time: {reason}"),
                )
                .hint("fix the shapes of the inputs with --input-shape NAME=d,d,... ; shapes that depend on data cannot be compiled")
                .at(&node_name(node), &node.op_type));
            }
        }
    }
    let opset =
        model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx").map_or(0, |o| o.version);
    Ok(Imported { nodes, facts, inputs, outputs, opset, model })
}

fn whole(shape: &[TDim]) -> Option<Vec<usize>> {
    shape.iter().map(|d| d.to_usize().ok()).collect()
}

/// A node's name, or that of its first output.
#[must_use]
pub(crate) fn node_name(node: &NodeProto) -> String {
    if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &TractError) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        if text.len() > 600 {
            break;
        }
    }
    text
}
