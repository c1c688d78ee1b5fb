//! `Transpose`: reorders axes. Axis `i` of the result is axis `order[i]` of the input.

use dunlin_kernels::Backend;
use dunlin_package::op::{Op, Transpose};
use dunlin_package::plan::MAX_RANK;

use super::{Operator, strided};
use crate::memory::Memory;
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Transpose, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Transpose = view.need_params()?;
    if x.dtype != y.dtype {
        return Err(Fault::Type);
    }
    let mut seen = [false; MAX_RANK];
    for &axis in p.order.iter().take(usize::from(x.rank)) {
        let slot = seen.get_mut(axis as usize).ok_or(Fault::Params)?;
        if core::mem::replace(slot, true) || axis as usize >= usize::from(x.rank) {
            return Err(Fault::Params);
        }
    }
    let moved = p.order.iter().filter_map(|&axis| x.shape().get(axis as usize));
    if x.rank == y.rank && y.shape().iter().eq(moved.take(usize::from(x.rank))) { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<Transpose>()?);
    // Strides of the input in the order of the result's axes; axes past the rank have extent 1.
    let mut strides = [0isize; MAX_RANK];
    let mut stride = 1;
    for axis in (0..usize::from(x.rank)).rev() {
        *strides.get_mut(axis)? = stride;
        stride *= *x.dims.get(axis)? as isize;
    }
    let mut axes = [(1usize, 0isize); MAX_RANK];
    let skip = MAX_RANK - usize::from(x.rank);
    for (slot, axis) in axes.iter_mut().skip(skip).zip(p.order) {
        *slot = (*x.dims.get(axis as usize)? as usize, *strides.get(axis as usize)?);
    }
    let loan = memory.lend([x], y)?;
    let [from] = loan.inputs;
    strided::copy(x.dtype.size_bytes(), from, loan.output, 0, &axes)
}
