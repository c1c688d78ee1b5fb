//! `Transpose`: reorders axes. Axis `i` of the result is axis `order[i]` of the input.

use bytemuck::Pod;
use dunlin_kernels::Backend;
use dunlin_package::op::{Op, Transpose};
use dunlin_package::plan::MAX_RANK;

use super::Operator;
use crate::memory::{Memory, cast, cast_mut};
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
    let mut strides = [0usize; MAX_RANK];
    let mut stride = 1;
    for axis in (0..usize::from(x.rank)).rev() {
        *strides.get_mut(axis)? = stride;
        stride *= *x.dims.get(axis)? as usize;
    }
    let mut walk = [(1usize, 0usize); MAX_RANK];
    let skip = MAX_RANK - usize::from(x.rank);
    for (slot, axis) in walk.iter_mut().skip(skip).zip(p.order) {
        *slot = (*x.dims.get(axis as usize)? as usize, *strides.get(axis as usize)?);
    }
    let loan = memory.lend([x], y)?;
    let [from] = loan.inputs;
    match x.dtype.size_bytes() {
        1 => walk_copy::<u8>(from, loan.output, &walk),
        4 => walk_copy::<u32>(from, loan.output, &walk),
        _ => walk_copy::<u64>(from, loan.output, &walk),
    }
}

/// Copies element by element, the result in order.
fn walk_copy<T: Pod>(from: &[u8], to: &mut [u8], walk: &[(usize, usize); MAX_RANK]) -> Option<()> {
    let (from, to): (&[T], &mut [T]) = (cast(from)?, cast_mut(to)?);
    let [a, b, c, d, e, f] = *walk;
    let mut rows = to.chunks_exact_mut(f.0.max(1));
    for i in 0..a.0 {
        for j in 0..b.0 {
            for k in 0..c.0 {
                for l in 0..d.0 {
                    for m in 0..e.0 {
                        let start = i * a.1 + j * b.1 + k * c.1 + l * d.1 + m * e.1;
                        let row = rows.next()?;
                        let source = from.get(start..)?.iter().step_by(f.1.max(1));
                        for (to, from) in row.iter_mut().zip(source) {
                            *to = *from;
                        }
                    }
                }
            }
        }
    }
    Some(())
}
