//! From ONNX nodes to the engine's steps.
//!
//! A value between DequantizeLinear and QuantizeLinear is kept as its integers for as long as nobody needs the floats.
//! An operator whose inputs are all such values, and whose result goes to one QuantizeLinear (through Relu or Clip
//! perhaps), becomes one integer step; any other operator gets floats.
//!
//! All quantized tensors are int8 here: uint8 ones are shifted by 128, which changes no result.

mod arithmetic;
mod attributes;
mod conv;
mod layout;
mod linear;
mod normalization;
mod parts;
mod pool;
mod product;
mod resize;
mod shape;
mod softmax;
mod table;
mod transposed;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dunlin_package::DType;
use dunlin_package::op::Op;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumType, Tensor};

use crate::error::CompileError;
use crate::graph::{Graph, Id};
use crate::import::{Fact, Imported, node_name};
use crate::unsupported::{Missing, Unsupported};

/// How the integers of a tensor stand for numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quant {
    /// Value of one step.
    pub(crate) scale: f32,
    /// The integer that means zero, as int8.
    pub(crate) zero_point: i32,
    /// Whether ONNX calls the integers uint8: then they are 128 more than ours.
    pub(crate) unsigned: bool,
    /// Whether scale and zero point are written as scalars. ONNX Runtime keeps an Add or Mul in floats where one is a
    /// list of one.
    pub(crate) scalar: bool,
}

impl Quant {
    /// Whether both mean the same by an integer.
    pub(crate) fn same(&self, other: &Self) -> bool {
        (self.scale, self.zero_point, self.unsigned) == (other.scale, other.zero_point, other.unsigned)
    }

    /// What has to be added to our integers to get ONNX's.
    pub(crate) fn shift(&self) -> i32 {
        if self.unsigned { 128 } else { 0 }
    }
}

/// A computed or constant value.
#[derive(Clone, Debug)]
pub(crate) struct Val {
    /// The tensor that holds it.
    pub(crate) id: Id,
    /// Its extents in ONNX's order.
    pub(crate) shape: Vec<usize>,
    /// Axis `i` of the tensor is axis `perm[i]` of the value.
    pub(crate) perm: Vec<usize>,
    /// For int8 tensors: whether ONNX calls them uint8.
    pub(crate) unsigned: bool,
}

/// Where a group's result goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The quantized value.
    pub(crate) name: String,
    /// Its quantization.
    pub(crate) quant: Quant,
    /// Bounds after the fused activations, as int8.
    pub(crate) lo: i32,
    /// See `lo`.
    pub(crate) hi: i32,
    /// Outputs of the nodes that are fused in.
    fused: Vec<String>,
}

impl Target {
    /// Whether no activation narrows the result.
    pub(crate) fn whole(&self) -> bool {
        (self.lo, self.hi) == (-128, 127)
    }

    /// The range to store.
    pub(crate) fn range(&self) -> dunlin_package::op::Range {
        dunlin_package::op::Range { zero_point: self.quant.zero_point, lo: self.lo, hi: self.hi }
    }
}

/// The bounds that follow a float result.
#[derive(Clone, Debug)]
pub(crate) struct Activation {
    /// The value after them.
    pub(crate) name: String,
    /// Least and greatest value.
    pub(crate) bounds: [f32; 2],
    /// Outputs of the nodes that are fused in.
    fused: Vec<String>,
}

impl Activation {
    /// No bounds.
    pub(crate) fn none(name: &str) -> Self {
        Self { name: name.to_owned(), bounds: [f32::NEG_INFINITY, f32::INFINITY], fused: Vec::new() }
    }
}

/// The state of a lowering.
pub(crate) struct Lowering<'i> {
    pub(crate) imported: &'i Imported,
    /// Whether operators that ONNX Runtime computes in floats become integer steps where the engine has them.
    pub(crate) integer: bool,
    pub(crate) graph: Graph,
    values: HashMap<String, Val>,
    /// Floats that are known as integers: name to the integers' name and their meaning.
    dequantized: HashMap<String, (String, Quant)>,
    consumers: HashMap<String, Vec<usize>>,
    fused: HashSet<String>,
    /// Nodes for another executor that are not yet a step.
    pending: Vec<NodeProto>,
    /// Subgraphs for another executor.
    pub(crate) subgraphs: Vec<Vec<u8>>,
    pub(crate) missing: Vec<Missing>,
    /// Why the node that is being lowered has no step.
    refusal: Option<Unsupported>,
    /// Values that follow from scales and zero points that are computed at run time.
    dynamic: HashSet<String>,
}

/// What a lowering gives.
pub(crate) struct Lowered {
    /// The steps.
    pub(crate) graph: Graph,
    /// Subgraphs for another executor, by the index of their steps.
    pub(crate) subgraphs: Vec<Vec<u8>>,
    /// The nodes in them.
    pub(crate) missing: Vec<Missing>,
}

/// Lowers every node.
///
/// # Errors
/// When a node contradicts itself; nodes without an operator become steps of another executor.
pub(crate) fn lower(imported: &Imported, integer: bool) -> Result<Lowered, CompileError> {
    let mut consumers: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, node) in imported.nodes.iter().enumerate() {
        for name in &node.input {
            consumers.entry(name.clone()).or_default().push(index);
        }
    }
    let mut lowering = Lowering {
        imported,
        integer,
        graph: Graph::default(),
        values: HashMap::new(),
        dequantized: HashMap::new(),
        consumers,
        fused: HashSet::new(),
        pending: Vec::new(),
        subgraphs: Vec::new(),
        missing: Vec::new(),
        refusal: None,
        dynamic: HashSet::new(),
    };
    for name in &imported.inputs {
        lowering.input(name)?;
    }
    for node in &imported.nodes {
        lowering.node(node).map_err(|e| e.at(&node_name(node), &node.op_type))?;
    }
    for name in &imported.outputs {
        lowering.output(name)?;
    }
    Ok(Lowered { graph: lowering.graph, subgraphs: lowering.subgraphs, missing: lowering.missing })
}

/// Our type for an ONNX type; uint8 is shifted to int8.
pub(crate) fn dtype(dt: DatumType) -> Result<DType, CompileError> {
    Ok(match dt {
        DatumType::I8 | DatumType::U8 => DType::I8,
        DatumType::I32 => DType::I32,
        DatumType::F32 => DType::F32,
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::Bool => DType::Bool,
        other => return Err(CompileError::unsupported(format!("type {other:?}")).hint("use float, int8 or uint8")),
    })
}

impl<'i> Lowering<'i> {
    fn input(&mut self, name: &str) -> Result<(), CompileError> {
        let fact = self.fact(name)?.clone();
        if fact.shape.len() > 6 {
            return Err(CompileError::unsupported(format!(
                "input '{name}' has {} axes, 6 is the most",
                fact.shape.len()
            )));
        }
        if fact.shape.contains(&0) {
            return Err(CompileError::unsupported(format!("input '{name}' has no elements: {:?}", fact.shape)));
        }
        let stored = if fact.dtype == DatumType::U8 { DType::U8 } else { dtype(fact.dtype)? };
        let id = self.graph.tensor(name, stored, &fact.shape);
        self.graph.inputs.push((name.to_owned(), id));
        let inner = if stored == DType::U8 { self.flip(name, id, DType::I8) } else { id };
        self.define(name, inner, &fact.shape, fact.dtype == DatumType::U8);
        Ok(())
    }

    fn output(&mut self, name: &str) -> Result<(), CompileError> {
        let fact = self.fact(name)?.clone();
        if fact.shape.contains(&0) {
            return Err(CompileError::unsupported(format!("output '{name}' has no elements: {:?}", fact.shape)));
        }
        let value = self.value(name)?;
        let value = self.logical(name, &value);
        let mut id = self.graph.view(value.id, &fact.shape);
        if value.unsigned && fact.dtype == DatumType::U8 {
            id = self.flip(name, id, DType::U8);
        }
        let root = self.graph.root(id);
        let taken = self.graph.inputs.iter().any(|(_, i)| *i == root)
            || self.graph.outputs.iter().any(|(_, o)| self.graph.root(*o) == root)
            || self.graph.tensors[id].data.is_some();
        if taken {
            let dtype = self.graph.tensors[id].dtype;
            let copy = self.graph.tensor(name, dtype, &fact.shape);
            self.graph.step(name, Op::Copy, &[id], copy, &dunlin_package::op::Nothing {});
            id = copy;
        }
        self.graph.outputs.push((name.to_owned(), id));
        Ok(())
    }

    /// Between uint8 and int8: the highest bit.
    fn flip(&mut self, name: &str, from: Id, to: DType) -> Id {
        let dims = self.graph.tensors[from].dims.clone();
        let id = self.graph.tensor(name, to, &dims);
        let table = self.graph.constant("flip", DType::U8, &[256], (0..=255u8).map(|b| b ^ 0x80).collect());
        let params = dunlin_package::op::Map { channels: 0 };
        self.graph.step(name, Op::Map, &[from, table], id, &params).note = "uint8".into();
        id
    }

    /// What is known of a value.
    pub(crate) fn fact(&self, name: &str) -> Result<&'i Fact, CompileError> {
        self.imported
            .facts
            .get(name)
            .ok_or_else(|| CompileError::invalid(format!("nothing produces the value '{name}'")))
    }

    /// A constant's value.
    pub(crate) fn constant(&self, name: &str) -> Option<Arc<Tensor>> {
        self.imported.facts.get(name)?.value.clone()
    }

    /// Says that a value lies in a tensor in ONNX's own order.
    pub(crate) fn define(&mut self, name: &str, id: Id, shape: &[usize], unsigned: bool) {
        let val = Val { id, shape: shape.to_vec(), perm: (0..shape.len()).collect(), unsigned };
        self.values.insert(name.to_owned(), val);
    }

    /// Says what a value is.
    pub(crate) fn set(&mut self, name: &str, val: Val) {
        self.values.insert(name.to_owned(), val);
    }

    /// Stores the meaning of an int8 tensor for those who read it.
    pub(crate) fn describe(&mut self, id: Id, quant: &Quant) {
        let tensor = &mut self.graph.tensors[id];
        if tensor.scale == 0.0 {
            tensor.scale = quant.scale;
            tensor.zero_point = quant.zero_point;
        }
    }

    /// A value as a tensor: floats that are known as integers are computed, constants are stored.
    pub(crate) fn value(&mut self, name: &str) -> Result<Val, CompileError> {
        if let Some(val) = self.values.get(name) {
            return Ok(val.clone());
        }
        if let Some((integers, quant)) = self.dequantized.get(name).cloned() {
            let from = self.value(&integers)?;
            let dims = self.graph.tensors[from.id].dims.clone();
            let id = self.graph.tensor(name, DType::F32, &dims);
            let params = dunlin_package::op::Affine { scale: quant.scale, zero_point: quant.zero_point };
            self.graph.step(name, Op::Dequantize, &[from.id], id, &params);
            let val = Val { id, shape: from.shape, perm: from.perm, unsigned: false };
            self.values.insert(name.to_owned(), val.clone());
            return Ok(val);
        }
        if self.pending.iter().any(|n| n.output.iter().any(|o| o == name)) {
            self.flush()?;
            return self.value(name);
        }
        let fact = self.fact(name)?;
        let Some(tensor) = &fact.value else {
            return Err(CompileError::internal(format!("the value '{name}' was never computed")));
        };
        let (bytes, unsigned) = bytes_of(tensor)?;
        let id = self.graph.constant(name, dtype(fact.dtype)?, &fact.shape, bytes);
        let shape = fact.shape.clone();
        self.define(name, id, &shape, unsigned);
        self.value(name)
    }

    /// The integers behind a float value.
    pub(crate) fn integers(&mut self, name: &str) -> Result<Option<(Val, Quant)>, CompileError> {
        let Some((integers, quant)) = self.dequantized.get(name).cloned() else { return Ok(None) };
        let val = self.value(&integers)?;
        self.describe(val.id, &quant);
        Ok(Some((val, quant)))
    }

    /// The meaning of a float value's integers, without computing anything.
    pub(crate) fn quant_of(&self, name: &str) -> Option<Quant> {
        self.dequantized.get(name).map(|(_, quant)| *quant)
    }

    /// Says that a float value is known as integers.
    pub(crate) fn set_dequantized(&mut self, name: &str, integers: &str, quant: Quant) {
        self.dequantized.insert(name.to_owned(), (integers.to_owned(), quant));
    }

    /// The Relu and Clip that alone read a value.
    pub(crate) fn activation(&self, name: &str) -> Activation {
        let mut end = Activation::none(name);
        while !self.imported.outputs.contains(&end.name) {
            let Some([only]) = self.consumers.get(&end.name).map(Vec::as_slice) else { break };
            let node = &self.imported.nodes[*only];
            let (lo, hi) = match node.op_type.as_str() {
                "Relu" => (0.0, f32::INFINITY),
                "Clip" if node.input.first() == Some(&end.name) => match attributes::clip_bounds(self, node) {
                    Some(bounds) => bounds,
                    None => break,
                },
                _ => break,
            };
            let Some(output) = node.output.first() else { break };
            end.bounds = end.bounds.map(|b| b.max(lo).min(hi));
            end.name.clone_from(output);
            end.fused.push(output.clone());
        }
        end
    }

    /// The nodes of an activation are done.
    pub(crate) fn fuse(&mut self, activation: &Activation) {
        self.fused.extend(activation.fused.iter().cloned());
    }

    /// The one QuantizeLinear that a value goes to, through Relu and Clip perhaps.
    pub(crate) fn target(&self, name: &str) -> Result<Option<Target>, CompileError> {
        let mut at = name.to_owned();
        let mut bounds = (f32::NEG_INFINITY, f32::INFINITY);
        let mut fused = Vec::new();
        loop {
            if self.imported.outputs.contains(&at) {
                return Ok(None);
            }
            let Some([only]) = self.consumers.get(&at).map(Vec::as_slice) else { return Ok(None) };
            let node = &self.imported.nodes[*only];
            let Some(output) = node.output.first() else { return Ok(None) };
            match node.op_type.as_str() {
                "QuantizeLinear" if node.input.first() == Some(&at) => {
                    let Some(quant) = self.linear_params(node)? else { return Ok(None) };
                    let code = |x: f32| {
                        ((x / quant.scale).round_ties_even() as i32).saturating_add(quant.zero_point).clamp(-128, 127)
                    };
                    fused.push(output.clone());
                    let (lo, hi) = (code(bounds.0), code(bounds.1));
                    return Ok(Some(Target { name: output.clone(), quant, lo, hi: hi.max(lo), fused }));
                }
                "Relu" => bounds = (bounds.0.max(0.0), bounds.1.max(0.0)),
                "Clip" if node.input.first() == Some(&at) => {
                    let Some((lo, hi)) = attributes::clip_bounds(self, node) else { return Ok(None) };
                    bounds = (bounds.0.max(lo).min(hi), bounds.1.max(lo).min(hi));
                }
                _ => return Ok(None),
            }
            fused.push(output.clone());
            at.clone_from(output);
        }
    }

    /// Takes a group's result: its nodes up to the QuantizeLinear are done.
    pub(crate) fn finish(&mut self, target: &Target, id: Id, shape: &[usize], perm: &[usize]) {
        self.fused.extend(target.fused.iter().cloned());
        self.describe(id, &target.quant);
        let val = Val { id, shape: shape.to_vec(), perm: perm.to_vec(), unsigned: target.quant.unsigned };
        self.values.insert(target.name.clone(), val);
    }

    fn node(&mut self, node: &NodeProto) -> Result<(), CompileError> {
        let known = |name: &String| name.is_empty() || self.fused.contains(name) || self.constant(name).is_some();
        if node.output.iter().all(known) {
            return Ok(());
        }
        self.refusal = None;
        let done = match node.op_type.as_str() {
            "QuantizeLinear" => linear::quantize(self, node)?,
            "DequantizeLinear" => linear::dequantize(self, node)?,
            "Conv" => conv::conv(self, node)?,
            "QLinearConv" => conv::qlinear_conv(self, node)?,
            "ConvInteger" => conv::conv_integer(self, node)?,
            "Gemm" => product::gemm(self, node)?,
            "MatMul" => product::mat_mul(self, node)?,
            "QGemm" => product::qgemm(self, node)?,
            "QLinearMatMul" => product::qlinear(self, node)?,
            "MatMulInteger" => product::integer(self, node)?,
            "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Pow" | "PRelu" | "Sum" => arithmetic::binary(self, node)?,
            "QLinearAdd" | "QLinearMul" => arithmetic::qlinear(self, node)?,
            "QLinearSigmoid" | "QLinearLeakyRelu" => table::qlinear(self, node)?,
            "ConvTranspose" => transposed::conv_transpose(self, node)?,
            "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" => {
                pool::reduce(self, node)?
            }
            "QLinearGlobalAveragePool" => pool::qlinear_global(self, node)?,
            "AveragePool" => pool::average(self, node)?,
            "QLinearAveragePool" => pool::qlinear_average(self, node)?,
            "MaxPool" => pool::max(self, node)?,
            "Softmax" | "LogSoftmax" => softmax::softmax(self, node)?,
            "QLinearSoftmax" => softmax::qlinear(self, node)?,
            "Identity" | "Dropout" => shape::identity(self, node)?,
            "Transpose" => shape::transpose(self, node)?,
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => shape::reshape(self, node)?,
            "Concat" => parts::concat(self, node)?,
            "QLinearConcat" => parts::qlinear_concat(self, node)?,
            "Slice" => parts::slice(self, node)?,
            "Split" => parts::split(self, node)?,
            "Pad" => parts::pad(self, node)?,
            "Gather" => parts::gather(self, node)?,
            "DepthToSpace" | "SpaceToDepth" => parts::depth_to_space(self, node)?,
            "Resize" | "Upsample" => resize::resize(self, node)?,
            "ArgMax" | "ArgMin" => parts::arg_max(self, node)?,
            "BatchNormalization" => normalization::batch(self, node)?,
            _ => table::unary(self, node)?,
        };
        if !done {
            let reason = self.refusal.take().unwrap_or(Unsupported::Operator);
            let reason = self.traced(node, reason);
            self.missing.push(Missing { node: node_name(node), op: node.op_type.clone(), reason });
            self.pending.push(node.clone());
        }
        Ok(())
    }

    /// Records why the node that is being lowered has no step. Always `Ok(false)`.
    pub(crate) fn refuse(&mut self, reason: Unsupported) -> Result<bool, CompileError> {
        self.refusal = Some(reason);
        Ok(false)
    }

    /// Returns the reason that a tensor's elements, axes or type are not what an operator takes.
    pub(crate) fn unfit(&self, name: &str, place: &str, supported: &'static str) -> Result<Unsupported, CompileError> {
        let fact = self.fact(name)?;
        Ok(match fact.shape.len() {
            _ if fact.shape.contains(&0) => Unsupported::Empty,
            axes if axes > dunlin_package::plan::MAX_RANK => Unsupported::Rank { axes, supported: "up to 6" },
            _ => {
                let dtype = onnx_type(fact.dtype);
                Unsupported::Type { place: place.to_owned(), dtype, supported }
            }
        })
    }

    /// Replaces a reason by dynamic quantization where that is where it comes from.
    fn traced(&mut self, node: &NodeProto, reason: Unsupported) -> Unsupported {
        let begins = reason == Unsupported::DynamicQuantization;
        let follows = node.input.iter().any(|name| self.dynamic.contains(name));
        if !begins && !follows {
            return reason;
        }
        // What is in floats again can be anything.
        let integers = |name: &String| self.fact(name).is_ok_and(|fact| fact.dtype != DatumType::F32);
        if begins || node.output.first().is_some_and(integers) {
            self.dynamic.extend(node.output.iter().cloned());
        }
        Unsupported::DynamicQuantization
    }

    /// Makes one step for another executor of the nodes that wait for it.
    fn flush(&mut self) -> Result<(), CompileError> {
        let nodes = std::mem::take(&mut self.pending);
        let own: HashSet<&String> = nodes.iter().flat_map(|n| &n.output).collect();
        let read_elsewhere = |name: &String| {
            let readers = self
                .imported
                .nodes
                .iter()
                .filter(|n| crate::foreign::free_names(std::slice::from_ref(*n)).contains(name));
            self.imported.outputs.contains(name)
                || readers.into_iter().any(|n| !n.output.iter().all(|o| own.contains(o)))
        };
        let outputs: Vec<String> =
            nodes.iter().flat_map(|n| &n.output).filter(|n| !n.is_empty() && read_elsewhere(n)).cloned().collect();
        let cut = crate::foreign::cut(&self.imported.model, &self.imported.facts, &nodes, &outputs)?;
        crate::foreign::prepare(&cut.bytes).map_err(|e| e.at(&node_name(&nodes[0]), &nodes[0].op_type))?;
        let mut inputs = Vec::new();
        for name in &cut.inputs {
            let val = self.value(name)?;
            let val = self.logical(name, &val);
            let mut id = self.graph.view(val.id, &val.shape);
            if val.unsigned {
                id = self.flip(name, id, DType::U8);
            }
            inputs.push(id);
        }
        let mut results = Vec::new();
        for name in &outputs {
            let fact = self.fact(name)?;
            let unsigned = fact.dtype == DatumType::U8;
            let stored = if unsigned { DType::U8 } else { dtype(fact.dtype)? };
            results.push((name.clone(), self.graph.tensor(name, stored, &fact.shape), unsigned));
        }
        let Some((_, first, _)) = results.first() else { return Ok(()) };
        let index = self.subgraphs.len() as u32;
        let title = nodes.iter().map(node_name).collect::<Vec<_>>().join(" + ");
        let step = self.graph.step(&title, Op::Foreign, &inputs, *first, &dunlin_package::op::Foreign { index });
        step.outputs = results.iter().map(|(_, id, _)| *id).collect();
        step.note = format!("tract: {}", nodes.iter().map(|n| n.op_type.as_str()).collect::<Vec<_>>().join(", "));
        self.subgraphs.push(cut.bytes);
        for (name, id, unsigned) in results {
            let shape = self.graph.tensors[id].dims.clone();
            let id = if unsigned { self.flip(&name, id, DType::I8) } else { id };
            self.define(&name, id, &shape, unsigned);
        }
        Ok(())
    }
}

/// Returns the name that ONNX and numpy give a type.
pub(crate) fn onnx_type(dtype: DatumType) -> String {
    match dtype {
        DatumType::Bool => "bool".into(),
        DatumType::U8 => "uint8".into(),
        DatumType::I8 => "int8".into(),
        DatumType::U16 => "uint16".into(),
        DatumType::I16 => "int16".into(),
        DatumType::U32 => "uint32".into(),
        DatumType::I32 => "int32".into(),
        DatumType::U64 => "uint64".into(),
        DatumType::I64 | DatumType::TDim => "int64".into(),
        DatumType::F16 => "float16".into(),
        DatumType::F32 => "float32".into(),
        DatumType::F64 => "float64".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// A constant's bytes as the engine stores them, and whether they were uint8.
fn bytes_of(tensor: &Tensor) -> Result<(Vec<u8>, bool), CompileError> {
    let raw = tensor.as_bytes();
    Ok(match tensor.datum_type() {
        DatumType::U8 => (raw.iter().map(|b| b ^ 0x80).collect(), true),
        DatumType::TDim => {
            let cast =
                tensor.cast_to::<i64>().map_err(|e| CompileError::unsupported(format!("a symbolic constant: {e}")))?;
            (cast.as_bytes().to_vec(), false)
        }
        other => {
            dtype(other)?;
            (raw.to_vec(), false)
        }
    })
}

/// A constant's elements as one type.
pub(crate) fn elements<T: tract_onnx::prelude::Datum + Copy>(tensor: &Tensor) -> Result<Vec<T>, CompileError> {
    let wrong =
        |e: tract_onnx::prelude::TractError| CompileError::invalid(format!("a constant of the wrong type: {e}"));
    let cast = tensor.cast_to::<T>().map_err(wrong)?;
    Ok(cast.to_plain_array_view::<T>().map_err(wrong)?.iter().copied().collect())
}
