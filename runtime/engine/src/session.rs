//! Model, arena and backend together: the thing that runs.

use bytemuck::Pod;
use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Foreign, Op};
use dunlin_package::plan::{Place, Tensor};

use crate::memory::{Memory, cast, cast_mut};
use crate::{ARENA_ALIGN, Arena, Model, Proof, StepView};

/// Why a session cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The arena is too small.
    Arena {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        got: usize,
    },
    /// The repacked weights have the wrong length for this backend.
    Packed {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        got: usize,
    },
    /// The proof was made for another backend.
    Backend,
}

impl core::fmt::Display for SessionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (what, needed, got) = match self {
            Self::Backend => return f.write_str("the proof is for another backend"),
            Self::Arena { needed, got } => ("arena", needed, got),
            Self::Packed { needed, got } => ("memory for repacked weights", needed, got),
        };
        write!(f, "the {what} has {got} bytes, and {needed} are needed")
    }
}

impl core::error::Error for SessionError {}

/// Why an input was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// The model has fewer inputs.
    Index,
    /// The elements have another type.
    Type {
        /// The input's type.
        expected: DType,
    },
    /// The number of elements differs.
    Length {
        /// Elements needed.
        expected: usize,
        /// Elements given.
        got: usize,
    },
}

impl core::fmt::Display for InputError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Index => write!(f, "the model has no such input"),
            Self::Type { expected } => write!(f, "the input takes {}", expected.name()),
            Self::Length { expected, got } => write!(f, "the input takes {expected} elements, not {got}"),
        }
    }
}

impl core::error::Error for InputError {}

/// A step that another executor failed to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelegateError;

impl core::fmt::Display for DelegateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("another executor failed to run its step")
    }
}

impl core::error::Error for DelegateError {}

/// Another executor, for the steps the engine has no operator for.
pub trait Delegate {
    /// Runs subgraph `index`.
    ///
    /// # Errors
    /// When it fails; the session then stops before the next step.
    fn run(&mut self, index: u32, step: &mut ForeignStep<'_, '_>) -> Result<(), DelegateError>;
}

/// A session's memory as a [`Delegate`] sees it.
#[derive(Debug)]
pub struct ForeignStep<'s, 'm> {
    view: &'s StepView<'m>,
    arena: &'s mut [u8],
}

impl ForeignStep<'_, '_> {
    /// Input `i` and its bytes.
    #[must_use]
    pub fn input(&self, i: usize) -> Option<(Tensor, &[u8])> {
        let tensor = self.view.input(i)?;
        let bytes = match tensor.place {
            Place::Weights(_) => self.view.constant(i)?,
            Place::Arena(at) => self.arena.get(at as usize..)?.get(..tensor.bytes())?,
        };
        Some((tensor, bytes))
    }

    /// Output `i` and its bytes.
    pub fn output(&mut self, i: usize) -> Option<(Tensor, &mut [u8])> {
        let tensor = self.view.output(i)?;
        let Place::Arena(at) = tensor.place else { return None };
        Some((tensor, self.arena.get_mut(at as usize..)?.get_mut(..tensor.bytes())?))
    }
}

/// A model in the caller's memory.
///
/// Inputs share memory with what follows them, so fill every input before every run. Outputs stay until the next run.
#[derive(Debug)]
pub struct Session<'s, 'a, B: Backend> {
    model: &'s Model<'a, B>,
    arena: &'s mut [u8],
    scratch: &'s mut [u8],
    packed: &'s [u8],
    backend: B,
}

impl<'s, 'a, B: Backend> Session<'s, 'a, B> {
    /// A session that reads weights where the package has them, and needs no memory but the arena.
    ///
    /// On x86-64 and 64-bit ARM the kernels then bring weights into their order as they go, on at most 64 KiB of stack. For int8
    /// models that takes up to 1.5 times as long as [`with_packed`](Self::with_packed), usually 1.0 to 1.2 times; a float
    /// product of few rows takes up to 8 times as long on x86-64. Where a backend has nothing to repack
    /// ([`Model::packed_len`] is 0: scalar, Cortex-M), there is no difference.
    ///
    /// # Errors
    /// When the arena is smaller than [`Model::arena_len`].
    pub fn new(model: &'s Model<'a, B>, arena: Arena<'s>, backend: B) -> Result<Self, SessionError> {
        Self::in_arena(model, arena, &[], backend, model.arena_len(backend))
    }

    /// A session that reads weights as [`Model::pack`] wrote them, which is faster where there is memory for it.
    ///
    /// # Errors
    /// When the arena is too small, or `packed` is not [`Model::packed_len`] bytes.
    pub fn with_packed(
        model: &'s Model<'a, B>,
        arena: Arena<'s>,
        packed: &'s [u8],
        backend: B,
    ) -> Result<Self, SessionError> {
        let needed = model.packed_len(backend);
        if packed.len() != needed {
            return Err(SessionError::Packed { needed, got: packed.len() });
        }
        Self::in_arena(model, arena, packed, backend, model.arena_len(backend))
    }

    /// A session of a proof's model, in constant time: nothing is measured again. `packed` is what [`Model::pack`] wrote, or
    /// empty.
    ///
    /// # Errors
    /// When the arena is too small, `packed` has another length than [`Proof::packed_len`] and 0, or the proof was made for
    /// another backend.
    pub fn with_proof(
        model: &'s Model<'a, B>,
        arena: Arena<'s>,
        packed: &'s [u8],
        backend: B,
        proof: &Proof,
    ) -> Result<Self, SessionError> {
        if backend.name() != proof.backend {
            return Err(SessionError::Backend);
        }
        if !packed.is_empty() && packed.len() != proof.packed_len {
            return Err(SessionError::Packed { needed: proof.packed_len, got: packed.len() });
        }
        Self::in_arena(model, arena, packed, backend, proof.arena_len)
    }

    fn in_arena(
        model: &'s Model<'a, B>,
        arena: Arena<'s>,
        packed: &'s [u8],
        backend: B,
        needed: usize,
    ) -> Result<Self, SessionError> {
        let bytes = arena.into_bytes();
        let got = bytes.len();
        let (arena, scratch) = if got < needed { None } else { bytes.split_at_mut_checked(model.tensor_len()) }
            .ok_or(SessionError::Arena { needed, got })?;
        Ok(Self { model, arena, scratch, packed, backend })
    }

    /// Input `i`, to be filled; empty when the model has fewer.
    pub fn input(&mut self, i: usize) -> TensorMut<'_> {
        let tensor = self.model.plan.input(i).and_then(|id| self.model.plan.tensor(id));
        let bytes = tensor.and_then(|t| {
            let Place::Arena(at) = t.place else { return None };
            self.arena.get_mut(at as usize..)?.get_mut(..t.bytes())
        });
        TensorMut { tensor, bytes: bytes.unwrap_or(&mut []) }
    }

    /// Output `i`; empty when the model has fewer.
    #[must_use]
    pub fn output(&self, i: usize) -> TensorRef<'_> {
        let tensor = self.model.plan.output(i).and_then(|id| self.model.plan.tensor(id));
        let bytes = tensor.and_then(|t| match t.place {
            Place::Arena(at) => self.arena.get(at as usize..)?.get(..t.bytes()),
            Place::Weights(at) => self.model.weights.get(at as usize..)?.get(..t.bytes()),
        });
        TensorRef { tensor, bytes: bytes.unwrap_or(&[]) }
    }

    /// Runs the model once.
    pub fn run(&mut self) {
        struct Nobody;
        impl Delegate for Nobody {
            fn run(&mut self, _: u32, _: &mut ForeignStep<'_, '_>) -> Result<(), DelegateError> {
                Err(DelegateError)
            }
        }
        // Model::load let no foreign step through, so that nobody is asked.
        let _ = self.run_with(&mut Nobody);
    }

    /// Runs a model of [`Model::load_hybrid`] once, with `delegate` for the steps of another executor.
    ///
    /// # Errors
    /// When the delegate fails.
    pub fn run_with(&mut self, delegate: &mut dyn Delegate) -> Result<(), DelegateError> {
        let mut packed = self.packed;
        for (view, operator) in self.model.steps() {
            if view.step.op == Op::Foreign {
                let index = view.params::<Foreign>().map_or(0, |p| p.index);
                delegate.run(index, &mut ForeignStep { view: &view, arena: self.arena })?;
                continue;
            }
            let Some(operator) = operator else { continue };
            let len = if packed.is_empty() { 0 } else { self.model.packed_step(&view, Some(operator), self.backend) };
            let (mine, rest) = packed.split_at_checked(len).unwrap_or((&[], &[]));
            packed = rest;
            let mut memory =
                Memory { arena: self.arena, weights: self.model.weights, scratch: self.scratch, packed: mine };
            (operator.run)(&view, &mut memory, self.backend);
        }
        Ok(())
    }
}

/// A tensor to be filled.
#[derive(Debug)]
pub struct TensorMut<'t> {
    tensor: Option<Tensor>,
    bytes: &'t mut [u8],
}

impl<'t> TensorMut<'t> {
    /// A tensor whose elements are `bytes`.
    #[must_use]
    pub fn new(tensor: Option<Tensor>, bytes: &'t mut [u8]) -> Self {
        Self { tensor, bytes }
    }

    /// Type, shape and quantization.
    #[must_use]
    pub fn tensor(&self) -> Option<Tensor> {
        self.tensor
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> &'t mut [u8] {
        self.bytes
    }

    /// Copies elements in.
    ///
    /// # Errors
    /// When type or number do not fit; then nothing is copied.
    pub fn copy_from_slice<T: Element>(self, values: &[T]) -> Result<(), InputError> {
        let tensor = self.tensor.ok_or(InputError::Index)?;
        if tensor.dtype != T::DTYPE {
            return Err(InputError::Type { expected: tensor.dtype });
        }
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.len() != self.bytes.len() {
            return Err(InputError::Length { expected: tensor.len(), got: values.len() });
        }
        self.bytes.copy_from_slice(bytes);
        Ok(())
    }

    /// The elements, `None` when they have another type.
    #[must_use]
    pub fn as_slice_mut<T: Element>(self) -> Option<&'t mut [T]> {
        if self.tensor?.dtype == T::DTYPE { cast_mut(self.bytes) } else { None }
    }
}

/// A tensor to be read.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'t> {
    tensor: Option<Tensor>,
    bytes: &'t [u8],
}

impl<'t> TensorRef<'t> {
    /// A tensor whose elements are `bytes`.
    #[must_use]
    pub fn new(tensor: Option<Tensor>, bytes: &'t [u8]) -> Self {
        Self { tensor, bytes }
    }

    /// Type, shape and quantization.
    #[must_use]
    pub fn tensor(&self) -> Option<Tensor> {
        self.tensor
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &'t [u8] {
        self.bytes
    }

    /// The elements, `None` when they have another type.
    #[must_use]
    pub fn as_slice<T: Element>(&self) -> Option<&'t [T]> {
        if self.tensor?.dtype == T::DTYPE { cast(self.bytes) } else { None }
    }

    /// Index of the first greatest element; `None` for no elements or a type without order.
    #[must_use]
    pub fn argmax(&self) -> Option<usize> {
        fn first<T: PartialOrd + Copy>(values: &[T]) -> Option<usize> {
            let mut best: Option<(usize, T)> = None;
            for (i, &value) in values.iter().enumerate() {
                if best.is_none_or(|(_, top)| value > top) {
                    best = Some((i, value));
                }
            }
            best.map(|(i, _)| i)
        }
        match self.tensor?.dtype {
            DType::I8 => first(self.as_slice::<i8>()?),
            DType::U8 => first(self.as_slice::<u8>()?),
            DType::I32 => first(self.as_slice::<i32>()?),
            DType::F32 => first(self.as_slice::<f32>()?),
            DType::I64 => first(self.as_slice::<i64>()?),
            DType::Bool => None,
        }
    }
}

/// Element types of tensors.
pub trait Element: Pod {
    /// Its stored type.
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),*) => {$(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*};
}
element!(i8 => I8, u8 => U8, i32 => I32, f32 => F32, i64 => I64);

const _: () = assert!(ARENA_ALIGN.is_power_of_two());
