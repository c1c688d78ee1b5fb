//! The nodes that the engine has no operator for: cut out as ONNX models of their own, and run by tract.

use std::collections::{HashMap, HashSet};

use dunlin_engine::{Delegate, DelegateError, ForeignStep};
use dunlin_package::DType;
use prost::Message;
use tract_onnx::pb::{self, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto};
use tract_onnx::tract_hir::internal::*;

use crate::error::{CompileError, ErrorKind};
use crate::import::{Fact, chain, front_end};

/// ONNX's number of a type.
fn type_number(dt: DatumType) -> Option<i32> {
    use tensor_proto::DataType;
    Some(match dt {
        DatumType::F32 => DataType::Float,
        DatumType::I8 => DataType::Int8,
        DatumType::U8 => DataType::Uint8,
        DatumType::I32 => DataType::Int32,
        DatumType::I64 | DatumType::TDim => DataType::Int64,
        DatumType::Bool => DataType::Bool,
        DatumType::F64 => DataType::Double,
        DatumType::F16 => DataType::Float16,
        _ => return None,
    } as i32)
}

/// Names that nodes read and do not produce themselves, those of their branches too.
pub(crate) fn free_names(nodes: &[NodeProto]) -> Vec<String> {
    fn gather(nodes: &[NodeProto], own: &mut HashSet<String>, free: &mut Vec<String>) {
        for node in nodes {
            for name in node.input.iter().filter(|n| !n.is_empty()) {
                if !own.contains(name) && !free.contains(name) {
                    free.push(name.clone());
                }
            }
            for graph in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
                let mut inner = own.clone();
                inner.extend(graph.initializer.iter().map(|t| t.name.clone()));
                inner.extend(graph.input.iter().map(|i| i.name.clone()));
                gather(&graph.node, &mut inner, free);
            }
            own.extend(node.output.iter().cloned());
        }
    }
    let mut free = Vec::new();
    gather(nodes, &mut HashSet::new(), &mut free);
    free
}

/// A model of some nodes: their computed inputs, and the bytes.
pub(crate) struct Cut {
    /// Names of the inputs that are not constant.
    pub(crate) inputs: Vec<String>,
    /// The encoded model.
    pub(crate) bytes: Vec<u8>,
}

/// Cuts nodes out of a model.
pub(crate) fn cut(
    model: &ModelProto,
    facts: &HashMap<String, Fact>,
    nodes: &[NodeProto],
    outputs: &[String],
) -> Result<Cut, CompileError> {
    let mut graph = GraphProto { name: "foreign".into(), node: nodes.to_vec(), ..Default::default() };
    let mut inputs = Vec::new();
    for name in free_names(nodes) {
        let fact =
            facts.get(&name).ok_or_else(|| CompileError::invalid(format!("nothing produces the value '{name}'")))?;
        match &fact.value {
            Some(value) => graph.initializer.push(tensor_proto(&name, value)?),
            None => {
                graph.input.push(value_info(&name, fact)?);
                inputs.push(name);
            }
        }
    }
    for name in outputs {
        let fact = facts.get(name).ok_or_else(|| CompileError::internal(format!("no facts of '{name}'")))?;
        graph.output.push(value_info(name, fact)?);
    }
    let model = ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        graph: Some(graph),
        ..Default::default()
    };
    Ok(Cut { inputs, bytes: model.encode_to_vec() })
}

fn tensor_proto(name: &str, value: &Tensor) -> Result<TensorProto, CompileError> {
    let symbolic = |e: TractError| CompileError::unsupported(format!("constant '{name}': {}", chain(&e)));
    let cast = if value.datum_type() == DatumType::TDim {
        value.cast_to::<i64>().map_err(symbolic)?.into_owned()
    } else {
        value.clone()
    };
    let number = type_number(cast.datum_type())
        .ok_or_else(|| CompileError::unsupported(format!("constant '{name}' has type {:?}", cast.datum_type())))?;
    Ok(TensorProto {
        name: name.to_owned(),
        data_type: number,
        dims: cast.shape().iter().map(|&d| d as i64).collect(),
        raw_data: cast.as_bytes().to_vec(),
        ..Default::default()
    })
}

fn value_info(name: &str, fact: &Fact) -> Result<ValueInfoProto, CompileError> {
    use pb::tensor_shape_proto::{Dimension, dimension};
    let number = type_number(fact.dtype)
        .ok_or_else(|| CompileError::unsupported(format!("'{name}' has type {:?}", fact.dtype)))?;
    let dim = |&d: &usize| Dimension { value: Some(dimension::Value::DimValue(d as i64)), ..Default::default() };
    let tensor = pb::type_proto::Tensor {
        elem_type: number,
        shape: Some(pb::TensorShapeProto { dim: fact.shape.iter().map(dim).collect() }),
    };
    Ok(ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    })
}

type Runnable = std::sync::Arc<TypedRunnableModel>;

/// tract, running the foreign steps of one package. Clones share what tract has prepared.
#[derive(Clone)]
pub struct Executor {
    plans: Vec<Runnable>,
    /// What the last failure was, for people.
    error: Option<String>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Executor({} subgraphs)", self.plans.len())
    }
}

impl Executor {
    /// Prepares every subgraph of a package's foreign section.
    ///
    /// # Errors
    /// When tract cannot load one.
    pub fn new<'b>(subgraphs: impl IntoIterator<Item = &'b [u8]>) -> Result<Self, CompileError> {
        let plans = subgraphs.into_iter().map(prepare).collect::<Result<_, _>>()?;
        Ok(Self { plans, error: None })
    }

    /// Why the last run failed.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn try_run(&self, index: u32, step: &mut ForeignStep<'_, '_>) -> TractResult<()> {
        let plan = self.plans.get(index as usize).with_context(|| format!("no subgraph {index}"))?;
        let mut inputs = tvec![];
        let mut i = 0;
        while let Some((tensor, bytes)) = step.input(i) {
            let shape: Vec<usize> = tensor.shape().iter().map(|&d| d as usize).collect();
            inputs.push(to_tensor(tensor.dtype, &shape, bytes)?.into_tvalue());
            i += 1;
        }
        let outputs = plan.run(inputs)?;
        for (i, output) in outputs.iter().enumerate() {
            let Some((tensor, bytes)) = step.output(i) else { continue };
            let plain =
                if tensor.dtype == DType::I64 { output.cast_to::<i64>()?.into_owned() } else { (**output).clone() };
            let from = plain.as_bytes();
            if from.len() != bytes.len() {
                bail!("output {i} has {} bytes, {} were planned", from.len(), bytes.len());
            }
            bytes.copy_from_slice(from);
        }
        Ok(())
    }
}

impl Delegate for Executor {
    fn run(&mut self, index: u32, step: &mut ForeignStep<'_, '_>) -> Result<(), DelegateError> {
        // tract's panics must not cross into the application.
        let run = std::panic::AssertUnwindSafe(|| self.try_run(index, step));
        let text = match std::panic::catch_unwind(run) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => chain(&error),
            Err(_) => "tract panicked".to_owned(),
        };
        self.error = Some(text);
        Err(DelegateError)
    }
}

/// Checks that tract can load a subgraph.
pub(crate) fn prepare(bytes: &[u8]) -> Result<Runnable, CompileError> {
    let model = ModelProto::decode(bytes)
        .map_err(|e| CompileError::new(ErrorKind::NotOnnx, format!("a foreign subgraph is damaged: {e}")))?;
    let load = || -> TractResult<Runnable> {
        let parsed = front_end().parse(&model, None)?;
        parsed.model.into_optimized()?.into_runnable()
    };
    let guarded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(load));
    guarded.unwrap_or_else(|_| bail_with("tract panicked")).map_err(|e| {
        let names: Vec<&str> = model.graph.iter().flat_map(|g| &g.node).map(|n| n.op_type.as_str()).take(8).collect();
        CompileError::unsupported(format!("tract cannot run {}: {}", names.join(", "), chain(&e)))
    })
}

fn bail_with(text: &'static str) -> TractResult<Runnable> {
    bail!(text)
}

fn to_tensor(dtype: DType, shape: &[usize], bytes: &[u8]) -> TractResult<Tensor> {
    fn typed<T: Datum + Copy + bytemuck::Pod>(shape: &[usize], bytes: &[u8]) -> TractResult<Tensor> {
        let values: Vec<T> = bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect();
        Tensor::from_shape(shape, &values)
    }
    match dtype {
        DType::I8 => typed::<i8>(shape, bytes),
        DType::U8 => typed::<u8>(shape, bytes),
        DType::I32 => typed::<i32>(shape, bytes),
        DType::F32 => typed::<f32>(shape, bytes),
        DType::I64 => typed::<i64>(shape, bytes),
        DType::Bool => Tensor::from_shape(shape, &bytes.iter().map(|&b| b != 0).collect::<Vec<bool>>()),
    }
}
