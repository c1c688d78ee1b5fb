//! `SoftmaxFloat`: `exp(x - max) / sum`, or its logarithm `x - max - ln(sum)`, on the middle of `outer x axis x inner`.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Op, SoftmaxFloat};

use super::{Operator, parts};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::SoftmaxFloat, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: SoftmaxFloat = view.need_params()?;
    if [x.dtype, y.dtype] != [DType::F32; 2] {
        return Err(Fault::Type);
    }
    parts([p.outer, p.axis, p.inner], x.len())?;
    if x.len() == y.len() { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let p: SoftmaxFloat = view.params()?;
    let (axis, inner) = (p.axis as usize, p.inner as usize);
    let loan = memory.lend([view.input(0)?], view.output(0)?)?;
    let [x] = loan.inputs;
    let (x, y): (&[f32], &mut [f32]) = (cast(x)?, cast_mut(loan.output)?);
    for (x, y) in x.chunks_exact(axis * inner).zip(y.chunks_exact_mut(axis * inner)) {
        for i in 0..inner {
            let row = x.get(i..)?.iter().step_by(inner);
            let max = row.clone().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
            let mut sum = 0.0f32;
            for (y, &v) in y.get_mut(i..)?.iter_mut().step_by(inner).zip(row) {
                let e = libm::expf(v - max);
                sum += e;
                *y = if p.log == 1 { v - max } else { e };
            }
            let ln = if p.log == 1 { libm::logf(sum) } else { 0.0 };
            for y in y.get_mut(i..)?.iter_mut().step_by(inner) {
                *y = if p.log == 1 { *y - ln } else { *y / sum };
            }
        }
    }
    Some(())
}
