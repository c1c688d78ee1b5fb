//! From the compiler's graph to a plan and its weights: lifetimes, memory, indices.

use std::collections::HashMap;

use dunlin_package::plan::{MAX_RANK, Place, PlanWriter, StepWriter, Tensor};

use crate::error::{CompileError, ErrorKind};
use crate::graph::{Graph, Id};
use crate::memory::{self, Buffer};

/// Alignment of tensors in the arena and in the weights.
const ALIGN: usize = 16;

/// A plan, its weights, and how good its memory is.
pub(crate) struct Emitted {
    /// Bytes of the plan section.
    pub(crate) plan: Vec<u8>,
    /// Bytes of the weights section.
    pub(crate) weights: Vec<u8>,
    /// Bytes of arena for tensors.
    pub(crate) arena_bytes: usize,
    /// The least that any plan could take.
    pub(crate) lower_bound: usize,
    /// Names by tensor index.
    pub(crate) names: Vec<String>,
    /// Where each buffer lies: offset, bytes, first and last step, name.
    pub(crate) buffers: Vec<(usize, Buffer, String)>,
}

/// Lays out memory and writes the plan.
pub(crate) fn emit(graph: &Graph) -> Result<Emitted, CompileError> {
    let owner = merge_in_place(graph);
    let buffer_of = |id: Id| owner[graph.root(id)];
    let mut spans: HashMap<Id, (usize, usize)> = HashMap::new();
    let mut touch = |id: Id, at: usize| {
        let span = spans.entry(id).or_insert((at, at));
        *span = (span.0.min(at), span.1.max(at));
    };
    // Step i runs at time i + 1; inputs are there at 0, outputs at the end.
    let end = graph.steps.len() + 1;
    for (_, id) in &graph.inputs {
        touch(buffer_of(*id), 0);
    }
    for (i, step) in graph.steps.iter().enumerate() {
        for &id in step.inputs.iter().flatten().chain(&step.outputs) {
            if graph.tensors[id].data.is_none() {
                touch(buffer_of(id), i + 1);
            }
        }
    }
    for (_, id) in &graph.outputs {
        touch(buffer_of(*id), end);
    }
    let mut ids: Vec<Id> = spans.keys().copied().collect();
    ids.sort_unstable();
    let buffers: Vec<Buffer> = ids
        .iter()
        .map(|id| Buffer { bytes: graph.tensors[*id].bytes(), first: spans[id].0, last: spans[id].1 })
        .collect();
    let placement = memory::place(&buffers, ALIGN);
    if placement.check(&buffers).is_err() {
        return Err(CompileError::internal("the memory plan overlaps"));
    }
    let offsets: HashMap<Id, usize> = ids.iter().copied().zip(placement.offsets.iter().copied()).collect();

    let mut weights = Vec::new();
    let mut stored: HashMap<&[u8], u32> = HashMap::new();
    let mut index: HashMap<Id, u16> = HashMap::new();
    let mut writer = PlanWriter::default();
    let mut names = Vec::new();
    let used = graph.inputs.iter().map(|(_, id)| *id);
    let used = used.chain(graph.steps.iter().flat_map(|s| s.inputs.iter().flatten().chain(&s.outputs).copied()));
    for id in used.chain(graph.outputs.iter().map(|(_, id)| *id)) {
        if index.contains_key(&id) {
            continue;
        }
        let tensor = &graph.tensors[id];
        let place = match &tensor.data {
            Some(data) => Place::Weights(*stored.entry(data).or_insert_with(|| {
                weights.resize(weights.len().next_multiple_of(ALIGN), 0);
                weights.extend_from_slice(data);
                (weights.len() - data.len()) as u32
            })),
            None => Place::Arena(fit(offsets[&buffer_of(id)])?),
        };
        if tensor.dims.len() > MAX_RANK {
            return Err(CompileError::unsupported(format!(
                "'{}' has {} axes, 6 is the most",
                tensor.name,
                tensor.dims.len()
            )));
        }
        let mut dims = [1; MAX_RANK];
        for (slot, &dim) in dims.iter_mut().zip(&tensor.dims) {
            *slot = fit(dim)?;
        }
        let number = u16::try_from(writer.tensors.len()).map_err(|_| too_large())?;
        index.insert(id, number);
        names.push(tensor.name.clone());
        writer.tensors.push(Tensor {
            dtype: tensor.dtype,
            rank: tensor.dims.len() as u8,
            dims,
            place,
            scale: tensor.scale,
            zero_point: tensor.zero_point,
        });
    }
    for step in &graph.steps {
        writer.steps.push(StepWriter {
            op: step.op,
            inputs: step.inputs.iter().map(|i| i.map(|id| index[&id])).collect(),
            outputs: step.outputs.iter().map(|id| index[id]).collect(),
            params: step.params.clone(),
        });
    }
    writer.inputs = graph.inputs.iter().map(|(_, id)| index[id]).collect();
    writer.outputs = graph.outputs.iter().map(|(_, id)| index[id]).collect();
    writer.arena_bytes = fit(placement.bytes)?;
    let named = |(i, id): (usize, &Id)| (placement.offsets[i], buffers[i], graph.tensors[*id].name.clone());
    Ok(Emitted {
        plan: writer.write().ok_or_else(too_large)?,
        weights,
        arena_bytes: placement.bytes,
        lower_bound: placement.lower_bound,
        names,
        buffers: ids.iter().enumerate().map(named).collect(),
    })
}

fn too_large() -> CompileError {
    CompileError::new(ErrorKind::TooLarge, "the model is larger than the package format can hold")
}

fn fit(value: usize) -> Result<u32, CompileError> {
    u32::try_from(value).map_err(|_| too_large())
}

/// For each tensor, the one whose buffer it shares because a step writes over its own input.
fn merge_in_place(graph: &Graph) -> Vec<Id> {
    let mut owner: Vec<Id> = (0..graph.tensors.len()).collect();
    let mut last_read = vec![0usize; graph.tensors.len()];
    for (i, step) in graph.steps.iter().enumerate() {
        for &id in step.inputs.iter().flatten() {
            last_read[graph.root(id)] = i;
        }
    }
    for (_, id) in &graph.outputs {
        last_read[graph.root(*id)] = usize::MAX;
    }
    for (i, step) in graph.steps.iter().enumerate() {
        let (Some(Some(input)), [output]) = (step.inputs.first(), &step.outputs[..]) else { continue };
        let (from, to) = (graph.root(*input), graph.root(*output));
        let tensor = &graph.tensors[from];
        let free = tensor.data.is_none()
            && last_read[from] == i
            && tensor.bytes() == graph.tensors[to].bytes()
            && graph.tensors[*input].bytes() == tensor.bytes()
            && step.inputs.iter().flatten().filter(|&&id| graph.root(id) == from).count() == 1;
        if step.in_place && free {
            owner[to] = owner[from];
        }
    }
    owner
}
