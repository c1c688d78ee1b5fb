//! `Gather`: picks along the middle of `outer x axis x inner`. A negative index counts from the end; one that is out of
//! range picks the nearest element, so that running cannot fail.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Gather, Op};

use super::{Operator, parts};
use crate::memory::{Memory, cast};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Gather, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, index, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    let p: Gather = view.need_params()?;
    if x.dtype != y.dtype || !matches!(index.dtype, DType::I32 | DType::I64) {
        return Err(Fault::Type);
    }
    let [outer, _, inner] = parts([p.outer, p.axis, p.inner], x.len())?;
    let len = outer.checked_mul(index.len()).and_then(|n| n.checked_mul(inner));
    if len == Some(y.len()) { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let (x, index) = (view.input(0)?, view.input(1)?);
    let p: Gather = view.params()?;
    let (axis, inner) = (p.axis as usize, p.inner as usize * x.dtype.size_bytes());
    let loan = memory.lend([x, index], view.output(0)?)?;
    let [from, picks] = loan.inputs;
    let (narrow, wide): (&[i32], &[i64]) =
        if index.dtype == DType::I32 { (cast(picks)?, &[]) } else { (&[], cast(picks)?) };
    let mut rows = loan.output.chunks_exact_mut(inner);
    for block in from.chunks_exact(axis * inner) {
        for pick in narrow.iter().map(|&i| i64::from(i)).chain(wide.iter().copied()) {
            let from_front = if pick < 0 { pick.saturating_add(axis as i64) } else { pick };
            let at = from_front.clamp(0, axis as i64 - 1) as usize * inner;
            rows.next()?.copy_from_slice(block.get(at..at + inner)?);
        }
    }
    Some(())
}
