//! `ArgMax`: index of the greatest (or least) element on the middle of `outer x axis x inner`; the first of equals, or
//! the last.

use bytemuck::Pod;
use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{ArgMax, Op};

use super::{Operator, parts};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::ArgMax, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: ArgMax = view.need_params()?;
    if !matches!(x.dtype, DType::I8 | DType::F32) || y.dtype != DType::I64 {
        return Err(Fault::Type);
    }
    let [outer, _, inner] = parts([p.outer, p.axis, p.inner], x.len())?;
    if outer.checked_mul(inner) == Some(y.len()) { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let (x, p) = (view.input(0)?, view.params::<ArgMax>()?);
    let loan = memory.lend([x], view.output(0)?)?;
    let [data] = loan.inputs;
    let y = cast_mut(loan.output)?;
    if x.dtype == DType::I8 { search::<i8>(cast(data)?, y, &p) } else { search::<f32>(cast(data)?, y, &p) }
}

fn search<T: Pod + PartialOrd>(x: &[T], y: &mut [i64], p: &ArgMax) -> Option<()> {
    let (axis, inner) = (p.axis as usize, p.inner as usize);
    let better = |new: T, old: T| (if p.least == 1 { new < old } else { new > old }) || (p.last == 1 && new == old);
    for (block, y) in x.chunks_exact(axis * inner).zip(y.chunks_exact_mut(inner)) {
        for (i, y) in y.iter_mut().enumerate() {
            let mut best = (0, *block.get(i)?);
            for (at, &value) in block.get(i..)?.iter().step_by(inner).enumerate() {
                if better(value, best.1) {
                    best = (at, value);
                }
            }
            *y = best.0 as i64;
        }
    }
    Some(())
}
