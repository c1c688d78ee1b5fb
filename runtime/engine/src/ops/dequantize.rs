//! `Dequantize`: `y = (x - zero_point) * scale`, ONNX `DequantizeLinear`.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Affine, Op};

use super::Operator;
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Dequantize, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let _: Affine = view.need_params()?;
    if !matches!(x.dtype, DType::I8 | DType::I32) || y.dtype != DType::F32 {
        return Err(Fault::Type);
    }
    if x.len() == y.len() { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let (x, p) = (view.input(0)?, view.params::<Affine>()?);
    let loan = memory.lend([x], view.output(0)?)?;
    let [data] = loan.inputs;
    let y: &mut [f32] = cast_mut(loan.output)?;
    if x.dtype == DType::I8 {
        backend.dequantize(cast(data)?, p.scale, p.zero_point, y);
    } else {
        for (y, x) in y.iter_mut().zip(cast::<i32>(data)?) {
            *y = x.wrapping_sub(p.zero_point) as f32 * p.scale;
        }
    }
    Some(())
}
