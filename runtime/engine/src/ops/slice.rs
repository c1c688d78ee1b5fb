//! `Slice`: a strided part. Element `i` of an axis of the result is element `start + i * step` of the input.

use dunlin_kernels::Backend;
use dunlin_package::op::{Op, Slice};
use dunlin_package::plan::{MAX_RANK, Tensor};

use super::{Operator, strided};
use crate::memory::Memory;
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Slice, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Slice = view.need_params()?;
    if x.dtype != y.dtype {
        return Err(Fault::Type);
    }
    let inside = |((&from, &to), (&start, &step)): ((&u32, &u32), (&u32, &i32))| {
        let last = i64::from(start) + (i64::from(to) - 1) * i64::from(step);
        to > 0 && step != 0 && start < from && (0..i64::from(from)).contains(&last)
    };
    let mut axes = x.shape().iter().zip(y.shape()).zip(p.start.iter().zip(&p.step));
    if x.rank == y.rank && axes.all(inside) { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<Slice>()?);
    let (base, axes) = walk(&x, &y, &p)?;
    let loan = memory.lend([x], y)?;
    let [from] = loan.inputs;
    strided::copy(x.dtype.size_bytes(), from, loan.output, base, &axes)
}

/// The first element, and the result's axes with the input's strides, ones before them.
fn walk(x: &Tensor, y: &Tensor, p: &Slice) -> Option<(usize, [strided::Axis; MAX_RANK])> {
    let (mut axes, mut base, mut stride) = ([(1usize, 0isize); MAX_RANK], 0usize, 1usize);
    let skip = MAX_RANK - usize::from(x.rank);
    for axis in (0..usize::from(x.rank)).rev() {
        base += *p.start.get(axis)? as usize * stride;
        *axes.get_mut(skip + axis)? = (*y.dims.get(axis)? as usize, stride as isize * *p.step.get(axis)? as isize);
        stride *= *x.dims.get(axis)? as usize;
    }
    Some((base, axes))
}
