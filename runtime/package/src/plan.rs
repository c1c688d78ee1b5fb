//! The stored program: tensors and ordered steps, read in place.
//!
//! A [`Plan`] is an allegation. [`Plan::read`] checks its framing (counts, lengths, indices); whether offsets fit and
//! shapes agree is what the engine proves when it makes a model of it.

#[cfg(feature = "alloc")]
mod writer;

#[cfg(feature = "alloc")]
pub use writer::{PlanWriter, StepWriter};

use crate::DType;
use crate::op::{Op, Words};

/// Axes a tensor may have.
pub const MAX_RANK: usize = 6;
/// Bytes before the lists.
const HEADER: usize = 16;
/// Bytes of a tensor.
const TENSOR: usize = 40;
/// A step's reference to no tensor.
pub const NO_TENSOR: u16 = u16::MAX;

/// Where a tensor's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this offset of the arena.
    Arena(u32),
    /// At this offset of the weights.
    Weights(u32),
}

/// One tensor: its type, physical shape, place and quantization.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tensor {
    /// Type of an element.
    pub dtype: DType,
    /// Number of axes, at most [`MAX_RANK`].
    pub rank: u8,
    /// Extents; 1 past the rank.
    pub dims: [u32; MAX_RANK],
    /// Where its bytes are.
    pub place: Place,
    /// Value of one step, 0 where the tensor is not quantized.
    pub scale: f32,
    /// The integer that means zero.
    pub zero_point: i32,
}

impl Tensor {
    /// The extents, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[u32] {
        self.dims.get(..usize::from(self.rank)).unwrap_or(&[])
    }

    /// Number of elements; saturates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape().iter().fold(1usize, |n, &d| n.saturating_mul(d as usize))
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of bytes; saturates.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len().saturating_mul(self.dtype.size_bytes())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let &[dtype, rank, place, flags, ..] = bytes else { return None };
        let offset = word(bytes, 4)?;
        let mut dims = [1; MAX_RANK];
        for (i, dim) in dims.iter_mut().enumerate() {
            *dim = word(bytes, 8 + 4 * i)?;
        }
        let past = dims.get(usize::from(rank)..)?;
        if flags != 0 || past.iter().any(|&d| d != 1) {
            return None;
        }
        Some(Self {
            dtype: DType::from_u8(dtype)?,
            rank,
            dims,
            place: match place {
                0 => Place::Arena(offset),
                1 => Place::Weights(offset),
                _ => return None,
            },
            scale: f32::from_bits(word(bytes, 32)?),
            zero_point: word(bytes, 36)?.cast_signed(),
        })
    }
}

/// One step: an operator, its tensors, its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The operator.
    pub op: Op,
    inputs: &'a [u8],
    outputs: &'a [u8],
    params: &'a [u8],
}

impl<'a> Step<'a> {
    /// Index of input `i`, `None` where it is absent.
    #[must_use]
    pub fn input(&self, i: usize) -> Option<u16> {
        half(self.inputs, 2 * i).filter(|&id| id != NO_TENSOR)
    }

    /// Index of output `i`.
    #[must_use]
    pub fn output(&self, i: usize) -> Option<u16> {
        half(self.outputs, 2 * i).filter(|&id| id != NO_TENSOR)
    }

    /// Number of inputs, absent ones included.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len() / 2
    }

    /// Number of outputs.
    #[must_use]
    pub fn output_count(&self) -> usize {
        self.outputs.len() / 2
    }

    /// The parameters; `None` when there are too few words.
    #[must_use]
    pub fn params<P: Words>(&self) -> Option<P> {
        let mut words = self.params.chunks_exact(4).filter_map(|c| word(c, 0));
        P::get(&mut words)
    }
}

/// Why bytes are no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The bytes end before the plan does.
    Truncated,
    /// Bytes follow the last step.
    Trailing,
    /// A tensor has an unknown type or place, or too many axes.
    Tensor {
        /// Which.
        index: u16,
    },
    /// A step has an operator this version does not know.
    UnknownOp {
        /// Which step.
        step: u16,
        /// The operator's number.
        code: u8,
    },
    /// A step or the interface names a tensor that is not there.
    TensorIndex {
        /// Which step; `u16::MAX` for the interface.
        step: u16,
    },
}

impl core::fmt::Display for PlanError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => write!(f, "the plan ends too early"),
            Self::Trailing => write!(f, "bytes follow the plan's last step"),
            Self::Tensor { index } => write!(f, "tensor {index} has an unknown type, place or rank"),
            Self::UnknownOp { step, code } => {
                write!(f, "step {step} uses operator {code}, which this version does not know: update the runtime")
            }
            Self::TensorIndex { step } => write!(f, "step {step} names a tensor that is not there"),
        }
    }
}

impl core::error::Error for PlanError {}

/// A stored program, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    arena_bytes: u32,
    step_count: u16,
    inputs: &'a [u8],
    outputs: &'a [u8],
    tensors: &'a [u8],
    steps: &'a [u8],
}

impl<'a> Plan<'a> {
    /// Checks the framing of `bytes` and every index in them.
    ///
    /// # Errors
    /// [`PlanError`] names the first thing that is wrong.
    pub fn read(bytes: &'a [u8]) -> Result<Self, PlanError> {
        let plan = Self::read_trusted(bytes)?;
        let &Self { step_count, inputs, outputs, tensors, steps, .. } = &plan;
        let tensor_count = half(bytes, 0).ok_or(PlanError::Truncated)?;
        for (index, chunk) in (0..).zip(tensors.chunks_exact(TENSOR)) {
            Tensor::read(chunk).ok_or(PlanError::Tensor { index })?;
        }
        let known = |id: u16| id < tensor_count;
        for ids in [inputs, outputs] {
            if !ids.chunks_exact(2).filter_map(|c| half(c, 0)).all(known) {
                return Err(PlanError::TensorIndex { step: u16::MAX });
            }
        }
        let mut cursor = steps;
        for index in 0..step_count {
            let (step, rest) = read_step(cursor, index)?;
            cursor = rest;
            let ids = [step.inputs, step.outputs];
            if !ids
                .iter()
                .flat_map(|i| i.chunks_exact(2))
                .filter_map(|c| half(c, 0))
                .all(|id| known(id) || id == NO_TENSOR)
            {
                return Err(PlanError::TensorIndex { step: index });
            }
        }
        if cursor.is_empty() { Ok(plan) } else { Err(PlanError::Trailing) }
    }

    /// Reads a plan that [`read`](Self::read) has accepted before: the header alone, in constant time. A tensor or step that
    /// is damaged since is missing from [`tensor`](Self::tensor) and [`steps`](Self::steps).
    ///
    /// # Errors
    /// [`PlanError::Truncated`] if the bytes are fewer than the header says.
    pub fn read_trusted(bytes: &'a [u8]) -> Result<Self, PlanError> {
        let at = |i| half(bytes, i).ok_or(PlanError::Truncated);
        let (tensor_count, step_count) = (at(0)?, at(2)?);
        let (input_count, output_count) = (usize::from(at(4)?), usize::from(at(6)?));
        let arena_bytes = word(bytes, 8).ok_or(PlanError::Truncated)?;
        let mut rest = bytes.get(HEADER..).ok_or(PlanError::Truncated)?;
        let mut take = |len: usize| {
            let (head, tail) = rest.split_at_checked(len).ok_or(PlanError::Truncated)?;
            rest = tail;
            Ok(head)
        };
        let inputs = take(2 * input_count)?;
        let outputs = take(2 * output_count)?;
        take((2 * (input_count + output_count)).wrapping_neg() % 4)?;
        let tensors = take(TENSOR * usize::from(tensor_count))?;
        let steps = rest;
        Ok(Self { arena_bytes, step_count, inputs, outputs, tensors, steps })
    }

    /// Bytes of arena that tensors take.
    #[must_use]
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes as usize
    }

    /// Number of tensors.
    #[must_use]
    pub fn tensor_count(&self) -> usize {
        self.tensors.len() / TENSOR
    }

    /// Number of steps.
    #[must_use]
    pub fn step_count(&self) -> usize {
        usize::from(self.step_count)
    }

    /// Tensor `index`.
    #[must_use]
    pub fn tensor(&self, index: u16) -> Option<Tensor> {
        let start = TENSOR * usize::from(index);
        Tensor::read(self.tensors.get(start..start + TENSOR)?)
    }

    /// Every tensor in order.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor> + 'a {
        self.tensors.chunks_exact(TENSOR).filter_map(Tensor::read)
    }

    /// The steps in the order they run.
    #[must_use]
    pub fn steps(&self) -> Steps<'a> {
        Steps { bytes: self.steps }
    }

    /// Index of the tensor that is input `i`.
    #[must_use]
    pub fn input(&self, i: usize) -> Option<u16> {
        half(self.inputs, 2 * i)
    }

    /// Index of the tensor that is output `i`.
    #[must_use]
    pub fn output(&self, i: usize) -> Option<u16> {
        half(self.outputs, 2 * i)
    }

    /// Number of inputs.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len() / 2
    }

    /// Number of outputs.
    #[must_use]
    pub fn output_count(&self) -> usize {
        self.outputs.len() / 2
    }
}

/// The steps of a [`Plan`].
#[derive(Clone, Debug)]
pub struct Steps<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let (step, rest) = read_step(self.bytes, 0).ok()?;
        self.bytes = rest;
        Some(step)
    }
}

fn read_step(bytes: &[u8], index: u16) -> Result<(Step<'_>, &[u8]), PlanError> {
    let (&[code, inputs, outputs, words], rest) = bytes.split_first_chunk::<4>().ok_or(PlanError::Truncated)?;
    let op = Op::from_u8(code).ok_or(PlanError::UnknownOp { step: index, code })?;
    let (inputs, outputs, words) = (2 * usize::from(inputs), 2 * usize::from(outputs), 4 * usize::from(words));
    let padding = (inputs + outputs).wrapping_neg() % 4;
    let (inputs, rest) = rest.split_at_checked(inputs).ok_or(PlanError::Truncated)?;
    let (outputs, rest) = rest.split_at_checked(outputs).ok_or(PlanError::Truncated)?;
    let (_, rest) = rest.split_at_checked(padding).ok_or(PlanError::Truncated)?;
    let (params, rest) = rest.split_at_checked(words).ok_or(PlanError::Truncated)?;
    Ok((Step { op, inputs, outputs, params }, rest))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    Some(u16::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    Some(u32::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
}
