//! `Quantize`: `y = saturate(round_half_even(x / scale) + zero_point)`, ONNX `QuantizeLinear`.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Affine, Op};

use super::Operator;
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Quantize, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Affine = view.need_params()?;
    if x.dtype != DType::F32 || y.dtype != DType::I8 {
        return Err(Fault::Type);
    }
    if x.len() != y.len() {
        return Err(Fault::Shape);
    }
    if (-128..=127).contains(&p.zero_point) { Ok(()) } else { Err(Fault::Params) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let p: Affine = view.params()?;
    let loan = memory.lend([view.input(0)?], view.output(0)?)?;
    let [x] = loan.inputs;
    backend.quantize(cast(x)?, p.scale, p.zero_point, cast_mut(loan.output)?);
    Some(())
}
