//! A plan proved sound once.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::Package;
use dunlin_package::op::{Op, Words};
use dunlin_package::plan::{Place, Plan, PlanError, Step, Tensor};

use crate::ARENA_ALIGN;
use crate::ops::Operator;

/// Alignment of each step's repacked weights.
const PACK_ALIGN: usize = 64;

/// How far a slice begins after a multiple of [`PACK_ALIGN`], more than any constant is aligned to.
fn misalignment(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { bytes.as_ptr().addr() % PACK_ALIGN }
}

/// What an operator's check found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An input or output is absent, or there are too many.
    Count,
    /// A tensor has a type that the operator does not take.
    Type,
    /// Shapes that do not fit together.
    Shape,
    /// A parameter out of its range, or too few of them.
    Params,
    /// A tensor that has to be constant is not.
    NotConstant,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Count => "has the wrong number of tensors",
            Self::Type => "has a tensor of a type it does not take",
            Self::Shape => "has shapes that do not fit together",
            Self::Params => "has a parameter out of range",
            Self::NotConstant => "needs a constant where a computed tensor stands",
        })
    }
}

/// Why a plan is not sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// The plan's framing is broken.
    Plan(PlanError),
    /// The operator is not in the application's list.
    MissingOp {
        /// Which step.
        step: u16,
        /// Which operator.
        op: Op,
    },
    /// A tensor reaches past the end of its memory.
    OutOfBounds {
        /// Which tensor.
        tensor: u16,
    },
    /// A tensor is not aligned for its type.
    Misaligned {
        /// Which tensor.
        tensor: u16,
    },
    /// An output lies over an input.
    Overlap {
        /// Which step.
        step: u16,
    },
    /// An operator's own check.
    Step {
        /// Which step.
        step: u16,
        /// Which operator.
        op: Op,
        /// What is wrong.
        fault: Fault,
    },
    /// A step that only a session with another executor can run.
    Foreign {
        /// Which step.
        step: u16,
    },
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Plan(error) => error.fmt(f),
            Self::MissingOp { step, op } => {
                write!(f, "step {step} needs operator {}, which this program was built without", op.name())
            }
            Self::OutOfBounds { tensor } => write!(f, "tensor {tensor} reaches past the end of its memory"),
            Self::Misaligned { tensor } => {
                write!(f, "tensor {tensor} is not aligned: place the package at a 16-byte boundary")
            }
            Self::Overlap { step } => write!(f, "step {step} writes over its own input"),
            Self::Step { step, op, fault } => write!(f, "step {step}, {}, {fault}", op.name()),
            Self::Foreign { step } => {
                write!(f, "step {step} runs in another executor: load the package with the `onnx` feature on a host")
            }
        }
    }
}

impl core::error::Error for LoadError {}

/// A step with the plan and weights around it.
#[derive(Clone, Copy, Debug)]
pub struct StepView<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) weights: &'a [u8],
    /// The stored step.
    pub step: Step<'a>,
}

impl<'a> StepView<'a> {
    /// Input `i`.
    #[must_use]
    pub fn input(&self, i: usize) -> Option<Tensor> {
        self.plan.tensor(self.step.input(i)?)
    }

    /// Output `i`.
    #[must_use]
    pub fn output(&self, i: usize) -> Option<Tensor> {
        self.plan.tensor(self.step.output(i)?)
    }

    /// The bytes of input `i` when it is constant.
    #[must_use]
    pub fn constant(&self, i: usize) -> Option<&'a [u8]> {
        let tensor = self.input(i)?;
        let Place::Weights(at) = tensor.place else { return None };
        self.weights.get(at as usize..)?.get(..tensor.bytes())
    }

    /// The parameters.
    #[must_use]
    pub fn params<P: Words>(&self) -> Option<P> {
        self.step.params()
    }

    /// Input `i`, or the fault that it is absent.
    pub(crate) fn need_input(&self, i: usize) -> Result<Tensor, Fault> {
        self.input(i).ok_or(Fault::Count)
    }

    /// The only output.
    pub(crate) fn need_output(&self) -> Result<Tensor, Fault> {
        if self.step.output_count() == 1 { self.output(0).ok_or(Fault::Count) } else { Err(Fault::Count) }
    }

    /// A constant input of a type and a number of elements.
    pub(crate) fn need_constant(&self, i: usize, dtype: DType, lens: &[usize]) -> Result<&'a [u8], Fault> {
        let tensor = self.need_input(i)?;
        if tensor.dtype != dtype {
            return Err(Fault::Type);
        }
        if !lens.contains(&tensor.len()) {
            return Err(Fault::Shape);
        }
        self.constant(i).ok_or(Fault::NotConstant)
    }

    /// The parameters, or the fault that they are too few.
    pub(crate) fn need_params<P: Words>(&self) -> Result<P, Fault> {
        self.params().ok_or(Fault::Params)
    }
}

/// What [`Model::load`] has proved and measured of a plan, kept without a borrow of its bytes.
///
/// A program that cannot keep a [`Model`], because the bytes it borrows move or are lent for one inference at a time, keeps
/// the proof: [`Model::with_proof`] makes the model again in constant time, and [`Session::with_proof`](crate::Session::with_proof)
/// a session.
///
/// ```
/// # use dunlin_engine::{Arena, LoadError, Model, Proof, Session, ops};
/// # use dunlin_kernels::Scalar;
/// # fn infer(plan: &[u8], weights: &[u8], proof: &mut Option<Proof>, arena: &mut [u8]) -> Result<(), LoadError> {
/// let model = match proof {
///     Some(proof) => Model::with_proof(plan, weights, ops::all(), proof),
///     None => None,
/// };
/// let model = match model {
///     Some(model) => model,
///     None => Model::from_parts(plan, weights, ops::all())?, // other bytes, or the first time
/// };
/// let found = *proof.insert(model.proof(Scalar));
/// let mut session = Session::with_proof(&model, Arena::new(arena), &[], Scalar, &found);
/// # Ok(())
/// # }
/// ```
///
/// A proof is about bytes, and that they are the same is the caller's to know: by their digest, or because nobody else can
/// write them. [`Model::with_proof`] compares lengths, alignment and operators. Bytes that are others all the same make wrong
/// outputs, and nothing worse: every access is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    plan_len: usize,
    weights_len: usize,
    /// Of the weights' address, by [`PACK_ALIGN`].
    misalignment: usize,
    ops_len: usize,
    /// The backend that the lengths below are for.
    pub(crate) backend: &'static str,
    pub(crate) arena_len: usize,
    pub(crate) packed_len: usize,
}

impl Proof {
    /// Bytes of arena that a session needs: [`Model::arena_len`].
    #[must_use]
    pub fn arena_len(&self) -> usize {
        self.arena_len
    }

    /// Bytes of repacked weights: [`Model::packed_len`].
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.packed_len
    }
}

/// A [`Plan`] proved sound for the operators of one application.
#[derive(Debug)]
pub struct Model<'a, B: Backend> {
    pub(crate) plan: Plan<'a>,
    plan_len: usize,
    pub(crate) weights: &'a [u8],
    pub(crate) ops: &'a [Operator<B>],
}

impl<'a, B: Backend> Clone for Model<'a, B> {
    fn clone(&self) -> Self {
        Self { plan: self.plan, plan_len: self.plan_len, weights: self.weights, ops: self.ops }
    }
}

impl<'a, B: Backend> Model<'a, B> {
    /// Proves a package's plan.
    ///
    /// # Errors
    /// [`LoadError`] names the step or tensor that is not sound, and why.
    pub fn load(package: &Package<'a>, ops: &'a [Operator<B>]) -> Result<Self, LoadError> {
        Self::from_parts(package.plan_bytes(), package.weights(), ops)
    }

    /// As [`load`](Self::load), and steps of another executor are allowed: see
    /// [`Session::run_with`](crate::Session::run_with).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_hybrid(package: &Package<'a>, ops: &'a [Operator<B>]) -> Result<Self, LoadError> {
        Self::prove(package.plan_bytes(), package.weights(), ops, true)
    }

    /// Proves a plan that lies outside a package.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_parts(plan: &'a [u8], weights: &'a [u8], ops: &'a [Operator<B>]) -> Result<Self, LoadError> {
        Self::prove(plan, weights, ops, false)
    }

    /// As [`from_parts`](Self::from_parts), and steps of another executor are allowed.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_parts_hybrid(plan: &'a [u8], weights: &'a [u8], ops: &'a [Operator<B>]) -> Result<Self, LoadError> {
        Self::prove(plan, weights, ops, true)
    }

    /// What was proved, and how much memory a session with `backend` needs, for [`with_proof`](Self::with_proof).
    #[must_use]
    pub fn proof(&self, backend: B) -> Proof {
        Proof {
            plan_len: self.plan_len,
            weights_len: self.weights.len(),
            misalignment: misalignment(self.weights),
            ops_len: self.ops.len(),
            backend: backend.name(),
            arena_len: self.arena_len(backend),
            packed_len: self.packed_len(backend),
        }
    }

    /// The model of bytes that were proved before, without a look at its steps; see [`Proof`]. `None` if these are not those
    /// bytes: they have another length or alignment, or the operators are others.
    #[must_use]
    pub fn with_proof(plan: &'a [u8], weights: &'a [u8], ops: &'a [Operator<B>], proof: &Proof) -> Option<Self> {
        let same = plan.len() == proof.plan_len
            && weights.len() == proof.weights_len
            && misalignment(weights) == proof.misalignment
            && ops.len() == proof.ops_len;
        let plan_len = plan.len();
        if same { Plan::read_trusted(plan).ok().map(|plan| Self { plan, plan_len, weights, ops }) } else { None }
    }

    fn prove(plan: &'a [u8], weights: &'a [u8], ops: &'a [Operator<B>], hybrid: bool) -> Result<Self, LoadError> {
        let plan_len = plan.len();
        let plan = Plan::read(plan).map_err(LoadError::Plan)?;
        for (index, tensor) in (0..).zip(plan.tensors()) {
            let (at, end, base) = match tensor.place {
                Place::Arena(at) => (at as usize, plan.arena_bytes(), 0),
                Place::Weights(at) => (at as usize, weights.len(), weights.as_ptr().addr()),
            };
            if at.checked_add(tensor.bytes()).is_none_or(|last| last > end) {
                return Err(LoadError::OutOfBounds { tensor: index });
            }
            let align = match tensor.place {
                Place::Arena(_) => ARENA_ALIGN,
                // 64-bit constants are read as two halves, so that 4 bytes are enough on every target.
                Place::Weights(_) => tensor.dtype.size_bytes(),
            };
            if !tensor.is_empty() && !base.wrapping_add(at).is_multiple_of(align) {
                return Err(LoadError::Misaligned { tensor: index });
            }
        }
        let model = Self { plan, plan_len, weights, ops };
        for (index, step) in (0..).zip(plan.steps()) {
            let view = model.view(step);
            if step.op == Op::Foreign {
                if hybrid {
                    continue;
                }
                return Err(LoadError::Foreign { step: index });
            }
            let operator = model.operator(step.op).ok_or(LoadError::MissingOp { step: index, op: step.op })?;
            (operator.check)(&view).map_err(|fault| LoadError::Step { step: index, op: step.op, fault })?;
            model.check_overlap(&view, operator.in_place).ok_or(LoadError::Overlap { step: index })?;
        }
        Ok(model)
    }

    /// Outputs lie in the arena and over no input, except exactly over input 0 of an operator that allows it.
    fn check_overlap(&self, view: &StepView<'_>, in_place: bool) -> Option<()> {
        let span = |t: Tensor| match t.place {
            Place::Arena(at) => Some((at as usize, at as usize + t.bytes())),
            Place::Weights(_) => None,
        };
        for o in 0..view.step.output_count() {
            let output = view.output(o)?;
            let (start, end) = span(output)?;
            for i in 0..view.step.input_count() {
                let Some(input) = view.input(i) else { continue };
                let Some((first, last)) = span(input) else { continue };
                let same = in_place && i == 0 && input.place == output.place && input.bytes() == output.bytes();
                if first < end && start < last && !same {
                    return None;
                }
            }
        }
        Some(())
    }

    pub(crate) fn view(&self, step: Step<'a>) -> StepView<'a> {
        StepView { plan: self.plan, weights: self.weights, step }
    }

    pub(crate) fn operator(&self, op: Op) -> Option<&'a Operator<B>> {
        self.ops.iter().find(|o| o.op == op)
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = (StepView<'a>, Option<&'a Operator<B>>)> {
        self.plan.steps().map(|step| (self.view(step), self.operator(step.op)))
    }

    /// The stored program.
    #[must_use]
    pub fn plan(&self) -> Plan<'a> {
        self.plan
    }

    /// Bytes of arena that a session needs with `backend`: tensors, then scratch.
    #[must_use]
    pub fn arena_len(&self, backend: B) -> usize {
        self.tensor_len() + self.scratch_len(backend)
    }

    /// Bytes of arena that tensors take.
    pub(crate) fn tensor_len(&self) -> usize {
        self.plan.arena_bytes().next_multiple_of(ARENA_ALIGN)
    }

    /// Bytes of scratch that the neediest step asks for.
    #[must_use]
    pub fn scratch_len(&self, backend: B) -> usize {
        self.steps().filter_map(|(view, op)| op.map(|op| (op.scratch)(&view, backend))).max().unwrap_or(0)
    }

    /// Bytes that [`pack`](Self::pack) fills; 0 when the backend reads all weights in place.
    #[must_use]
    pub fn packed_len(&self, backend: B) -> usize {
        self.steps().map(|(view, op)| self.packed_step(&view, op, backend)).sum()
    }

    pub(crate) fn packed_step(&self, view: &StepView<'_>, op: Option<&Operator<B>>, backend: B) -> usize {
        op.map_or(0, |op| (op.packed)(view, backend)).next_multiple_of(PACK_ALIGN)
    }

    /// Writes every step's weights in the order the backend likes into `packed`, which has
    /// [`packed_len`](Self::packed_len) bytes. Does nothing when it has fewer.
    pub fn pack(&self, backend: B, mut packed: &mut [u8]) {
        for (view, op) in self.steps() {
            let len = self.packed_step(&view, op, backend);
            let Some((mine, rest)) = core::mem::take(&mut packed).split_at_mut_checked(len) else { return };
            packed = rest;
            if let Some(op) = op {
                (op.pack)(&view, backend, mine);
            }
        }
    }
}
