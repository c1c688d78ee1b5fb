//! Writes what [`Plan`](super::Plan) reads.

use alloc::vec::Vec;

use super::{HEADER, NO_TENSOR, Place, Tensor};
use crate::op::{Op, Words};

/// One step to write.
#[derive(Clone, Debug)]
pub struct StepWriter {
    /// The operator.
    pub op: Op,
    /// Tensor indices, `None` for an absent one.
    pub inputs: Vec<Option<u16>>,
    /// Tensor indices.
    pub outputs: Vec<u16>,
    /// Parameter words.
    pub params: Vec<u32>,
}

impl StepWriter {
    /// A step with parameters.
    pub fn new(op: Op, inputs: Vec<Option<u16>>, outputs: Vec<u16>, params: &impl Words) -> Self {
        let mut words = Vec::new();
        params.put(&mut |word| words.push(word));
        Self { op, inputs, outputs, params: words }
    }
}

/// A plan to write.
#[derive(Clone, Debug, Default)]
pub struct PlanWriter {
    /// Bytes of arena that tensors take.
    pub arena_bytes: u32,
    /// Tensors by index.
    pub tensors: Vec<Tensor>,
    /// Steps in order.
    pub steps: Vec<StepWriter>,
    /// Tensors the caller fills.
    pub inputs: Vec<u16>,
    /// Tensors the caller reads.
    pub outputs: Vec<u16>,
}

impl PlanWriter {
    /// The plan's bytes; `None` when a count does not fit its field.
    #[must_use]
    pub fn write(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(HEADER);
        for count in [self.tensors.len(), self.steps.len(), self.inputs.len(), self.outputs.len()] {
            out.extend(u16::try_from(count).ok().filter(|&c| c != NO_TENSOR)?.to_le_bytes());
        }
        out.extend(self.arena_bytes.to_le_bytes());
        out.extend([0; 4]);
        for id in self.inputs.iter().chain(&self.outputs) {
            out.extend(id.to_le_bytes());
        }
        pad(&mut out);
        for tensor in &self.tensors {
            let (place, offset) = match tensor.place {
                Place::Arena(offset) => (0, offset),
                Place::Weights(offset) => (1, offset),
            };
            out.extend([tensor.dtype as u8, tensor.rank, place, 0]);
            out.extend(offset.to_le_bytes());
            for dim in tensor.dims {
                out.extend(dim.to_le_bytes());
            }
            out.extend(tensor.scale.to_bits().to_le_bytes());
            out.extend(tensor.zero_point.to_le_bytes());
        }
        for step in &self.steps {
            let counts = [step.inputs.len(), step.outputs.len(), step.params.len()];
            let [inputs, outputs, words] = counts.map(|c| u8::try_from(c).ok());
            out.extend([step.op as u8, inputs?, outputs?, words?]);
            for id in step.inputs.iter().map(|id| id.unwrap_or(NO_TENSOR)).chain(step.outputs.iter().copied()) {
                out.extend(id.to_le_bytes());
            }
            pad(&mut out);
            for word in &step.params {
                out.extend(word.to_le_bytes());
            }
        }
        Some(out)
    }
}

fn pad(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}
