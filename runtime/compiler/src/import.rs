//! ONNX bytes to nodes with known types, shapes and constants. tract parses, infers shapes and folds constants.

mod check;
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

/// An input or output as an ONNX file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSummary {
    /// Its name.
    pub name: String,
    /// Its element type, as numpy names it; `unknown` when the file has none.
    pub dtype: String,
    /// Its extents; those that are open by their name, or `?`.
    pub dims: Vec<String>,
    /// Whether every extent is a number.
    pub fixed: bool,
}

impl std::fmt::Display for PortSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}' {} [{}]", self.name, self.dtype, self.dims.join(","))
    }
}

fn summary(info: &ValueInfoProto) -> PortSummary {
    use tensor_shape_proto::dimension::Value;
    let tensor = match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => Some(tensor),
        _ => None,
    };
    let dtype = tensor.and_then(|t| tract_onnx::pb::tensor_proto::DataType::try_from(t.elem_type).ok());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map(|shape| {
        let dims = shape.dim.iter().map(|dim| match &dim.value {
            Some(Value::DimValue(extent)) if *extent >= 0 => extent.to_string(),
            Some(Value::DimParam(name)) if !name.is_empty() => name.clone(),
            _ => "?".to_owned(),
        });
        dims.collect::<Vec<_>>()
    });
    PortSummary {
        name: info.name.clone(),
        dtype: dtype.map_or_else(|| "unknown".to_owned(), |d| numpy_name(d).to_owned()),
        fixed: !open(info),
        dims: dims.unwrap_or_else(|| vec!["...".to_owned()]),
    }
}

fn numpy_name(dtype: tract_onnx::pb::tensor_proto::DataType) -> &'static str {
    use tract_onnx::pb::tensor_proto::DataType;
    match dtype {
        DataType::Float => "float32",
        DataType::Double => "float64",
        DataType::Float16 => "float16",
        DataType::Int8 => "int8",
        DataType::Uint8 => "uint8",
        DataType::Int16 => "int16",
        DataType::Uint16 => "uint16",
        DataType::Int32 => "int32",
        DataType::Uint32 => "uint32",
        DataType::Int64 => "int64",
        DataType::Uint64 => "uint64",
        DataType::Bool => "bool",
        DataType::String => "string",
        _ => "unknown",
    }
}

/// Returns the inputs and outputs that an ONNX file declares, without compiling it; `None` when the bytes are no ONNX model.
#[must_use]
pub fn ports(bytes: &[u8]) -> Option<(Vec<PortSummary>, Vec<PortSummary>)> {
    let graph = ModelProto::decode(bytes).ok()?.graph?;
    if graph.node.is_empty() && graph.output.is_empty() {
        return None;
    }
    let constants: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|i| !constants.contains(&i.name.as_str())).map(summary).collect();
    Some((inputs, graph.output.iter().map(summary).collect()))
}

/// Returns the options that pin the inputs which a model leaves open and `pins` does not give.
fn missing_pins(graph: &GraphProto, pins: &Pins) -> Vec<String> {
    let constants: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.input.iter().filter(|i| !constants.contains(&i.name.as_str()));
    let mut options = Vec::new();
    for port in inputs.map(summary) {
        if pins.shapes.contains_key(&port.name) || pins.values.contains_key(&port.name) {
            continue;
        }
        if port.dtype == "int64" && port.dims.is_empty() {
            options.push(format!("--input-value {}=N", port.name));
        } else if !port.fixed {
            // What is open is most often the batch.
            let example = port.dims.iter().map(|d| d.parse::<u64>().map_or_else(|_| "1".to_owned(), |n| n.to_string()));
            options.push(format!("--input-shape {}={}", port.name, example.collect::<Vec<_>>().join(",")));
        }
    }
    options
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
    resolve::fix(&mut model, pins)?;
    let operators = front_end().op_register;
    // A branch on a constant can only be known after inference, and inference fails on branches that disagree.
    for _ in 0..64 {
        if let Some(graph) = model.graph.as_mut() {
            check::graph(graph, &operators)?;
        }
        let analysed = analyse(&model, pins)?;
        let missing = model.graph.as_ref().map(|g| missing_pins(g, pins)).unwrap_or_default();
        if !resolve::inline_branches(&mut model, &analysed, &missing)? {
            return finish(model, analysed, pins);
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
    // Some of tract's rules panic on values that no model should have.
    let guarded = |model: &ModelProto| std::panic::catch_unwind(|| infer(model, pins));
    if let Ok(result) = guarded(model) {
        return result;
    }
    let error = CompileError::invalid("tract cannot infer its shape, and panicked")
        .hint("an attribute may be out of range, or a shape wrong; onnx.checker.check_model tells more");
    // The first node with which the graph makes tract panic is the one to name.
    let Some(graph) = &model.graph else { return Err(error) };
    let panics = |count: &usize| {
        let mut part = model.clone();
        if let Some(graph) = part.graph.as_mut() {
            graph.node.truncate(*count);
            graph.output.clear();
        }
        guarded(&part).is_err()
    };
    let counts: Vec<usize> = (1..=graph.node.len()).collect();
    let first = counts.partition_point(|count| !panics(count));
    Err(match graph.node.get(first) {
        Some(node) => error.at(&node_name(node), &node.op_type),
        None => error,
    })
}

fn infer(model: &ModelProto, pins: &Pins) -> Result<Analysed, CompileError> {
    let onnx = front_end();
    let parsed = onnx.parse(model, None).map_err(|error| {
        CompileError::new(ErrorKind::InvalidGraph, format!("cannot read the graph: {}", chain(&error)))
    })?;
    let mut inference = parsed.model;
    for (name, shape) in &pins.shapes {
        let outlet = parsed.outlets_by_name.get(name).copied();
        let inputs: Vec<OutletId> = inference.input_outlets().map(<[OutletId]>::to_vec).unwrap_or_default();
        let Some(index) = inputs.iter().position(|&o| Some(o) == outlet) else {
            let named =
                |&o: &OutletId| parsed.outlets_by_name.iter().find(|(_, v)| **v == o).map(|(n, _)| format!("'{n}'"));
            let names: Vec<String> = inputs.iter().filter_map(named).collect();
            return Err(CompileError::new(
                ErrorKind::DynamicShape,
                format!("the model has no input '{name}' to shape"),
            )
            .hint(format!("it has {}", names.join(", "))));
        };
        let fact = inference.input_fact(index).cloned().map_err(|e| CompileError::internal(chain(&e)))?;
        let free = |d: &GenericFactoid<TDim>, &wanted: &usize| {
            d.concretize().and_then(|d| d.to_usize().ok()).is_none_or(|d| d == wanted)
        };
        let rank = fact.shape.rank().concretize().is_none_or(|rank| rank == shape.len() as i64);
        if !rank || !fact.shape.dims().zip(shape).all(|(d, wanted)| free(d, wanted)) {
            return Err(CompileError::new(
                ErrorKind::DynamicShape,
                format!("input '{name}' cannot have the shape {shape:?}: the model says {:?}", fact.shape),
            )
            .hint("only extents that the model leaves open can be given"));
        };
        inference
            .set_input_fact(index, fact.with_shape(ShapeFactoid::from(shape.iter().map(|&d| d.to_dim()))))
            .map_err(|e| CompileError::internal(chain(&e)))?;
    }
    let error = inference.analyse(true).err().map(|e| chain(&e));
    let facts = parsed
        .outlets_by_name
        .iter()
        .filter_map(|(name, &outlet)| Some((name.clone(), inference.outlet_fact(outlet).ok()?.clone())))
        .collect();
    Ok(Analysed { facts, error })
}

fn finish(model: ModelProto, analysed: Analysed, pins: &Pins) -> Result<Imported, CompileError> {
    let graph = model.graph.as_ref().ok_or_else(|| CompileError::invalid("no graph"))?;
    let constants: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs: Vec<String> =
        graph.input.iter().map(|i| i.name.clone()).filter(|n| !constants.contains(&n.as_str())).collect();
    for input in &inputs {
        let fact = analysed.facts.get(input);
        if fact.is_some_and(|f| f.shape.concretize().and_then(|s| whole(&s)).is_none()) {
            return Err(CompileError::new(
                ErrorKind::DynamicShape,
                format!("input '{input}' has no fixed shape: {:?}", fact.map(|f| f.shape.clone())),
            )
            .hint(match &missing_pins(graph, pins)[..] {
                [] => format!("give it one: --input-shape {input}=1,3,224,224"),
                missing => format!("fix the open inputs, for example with {}", missing.join(" ")),
            }));
        }
    }
    let mut facts = HashMap::new();
    for (name, fact) in &analysed.facts {
        let (Some(dtype), Some(shape)) = (fact.datum_type.concretize(), fact.shape.concretize()) else { continue };
        let Some(shape) = whole(&shape) else { continue };
        facts.insert(name.clone(), Fact { dtype, shape, value: fact.value.concretize() });
    }
    for input in &inputs {
        facts.get(input).map_or(Ok(()), |fact| sized(input, fact))?;
    }
    let outputs: Vec<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let nodes = graph.node.clone();
    for node in &nodes {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            match facts.get(name) {
                Some(fact) => sized(name, fact).map_err(|e| e.at(&node_name(node), &node.op_type))?,
                None => return Err(unknown(name, node, &nodes, analysed.error.as_deref())),
            }
        }
    }
    let opset =
        model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx").map_or(0, |o| o.version);
    Ok(Imported { nodes, facts, inputs, outputs, opset, model })
}

/// Refuses tensors that no package can hold.
fn sized(name: &str, fact: &Fact) -> Result<(), CompileError> {
    let bytes = fact.shape.iter().try_fold(fact.dtype.size_of(), |n, &d| n.checked_mul(d));
    if bytes.is_some_and(|n| n <= check::MOST_BYTES) {
        return Ok(());
    }
    Err(CompileError::new(ErrorKind::TooLarge, format!("'{name}' has the shape {:?}: more than 2 GB", fact.shape)))
}

/// Why a value has no shape: inference failed somewhere, or it depends on data.
fn unknown(name: &str, node: &NodeProto, nodes: &[NodeProto], error: Option<&str>) -> CompileError {
    let Some(reason) = error else {
        return CompileError::new(
            ErrorKind::DynamicShape,
            format!("the shape of '{name}' is not known at compile time: it depends on the data"),
        )
        .hint("replace the operator by one whose result has a fixed shape, or cut the model before it")
        .at(&node_name(node), &node.op_type);
    };
    // The node at which inference stopped need not be the first without a shape.
    let named = |n: &&NodeProto| !n.name.is_empty() && reason.contains(&format!("\"{}\"", n.name));
    let node = nodes.iter().find(named).unwrap_or(node);
    CompileError::invalid(format!("types and shapes contradict each other: {reason}"))
        .hint("onnx.checker.check_model with full_check=True tells more")
        .at(&node_name(node), &node.op_type)
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
