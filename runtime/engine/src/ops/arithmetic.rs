//! What `Add` and `Mul` share: shapes, broadcast, memory.

use dunlin_package::DType;
use dunlin_package::op::Arithmetic;
use dunlin_package::plan::{MAX_RANK, Tensor};

use super::bounds;
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// One formula's kernels. `b` repeats until it is as long as `a`.
pub(crate) struct Kernels<A, S> {
    /// `(a, b, y)`
    pub(crate) apart: A,
    /// `(a and y, b)`
    pub(crate) same: S,
}

/// Both factors are i8 and broadcast to the result.
pub(crate) fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (a, b, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    if [a.dtype, b.dtype, y.dtype] != [DType::I8; 3] {
        return Err(Fault::Type);
    }
    let p: Arithmetic = view.need_params()?;
    bounds(&p.range)?;
    if !broadcasts(&a, &y)
        || !broadcasts(&b, &y)
        || (0..MAX_RANK).any(|i| extent(&y, i) != extent(&a, i).max(extent(&b, i)))
    {
        return Err(Fault::Shape);
    }
    Ok(())
}

/// Extent of axis `i` counted from the last.
fn extent(tensor: &Tensor, i: usize) -> u32 {
    tensor.shape().iter().rev().nth(i).copied().unwrap_or(1)
}

fn broadcasts(part: &Tensor, whole: &Tensor) -> bool {
    part.rank <= whole.rank && (0..MAX_RANK).all(|i| extent(part, i) == 1 || extent(part, i) == extent(whole, i))
}

/// Whether `part` is `whole`'s last axes, after ones: then it repeats.
fn repeats(part: &Tensor, whole: &Tensor) -> bool {
    let mut ones = false;
    (0..MAX_RANK).all(|i| {
        ones |= extent(part, i) != extent(whole, i);
        !ones || extent(part, i) == 1
    })
}

/// Runs over the whole when the second repeats, and row by row otherwise.
pub(crate) fn run(
    view: &StepView<'_>,
    memory: &mut Memory<'_>,
    kernels: &Kernels<impl Fn(&[i8], &[i8], &mut [i8]), impl Fn(&mut [i8], &[i8])>,
) -> Option<()> {
    let (a, b, y) = (view.input(0)?, view.input(1)?, view.output(0)?);
    if a.place == y.place {
        // The second cannot lie over the result, so that it is lent apart.
        let loan = memory.lend([b], y)?;
        let [b_data] = loan.inputs;
        let (b_data, y_data): (&[i8], &mut [i8]) = (cast(b_data)?, cast_mut(loan.output)?);
        if repeats(&b, &y) {
            (kernels.same)(y_data, b_data);
        } else {
            rows(&b, &y, |from, to, len, b_len| {
                if let (Some(y), Some(b)) = (y_data.get_mut(to..to + len), b_data.get(from..from + b_len)) {
                    (kernels.same)(y, b);
                }
            });
        }
        return Some(());
    }
    let loan = memory.lend([a, b], y)?;
    let [a_data, b_data] = loan.inputs;
    let (a_data, b_data, y_data): (&[i8], &[i8], &mut [i8]) = (cast(a_data)?, cast(b_data)?, cast_mut(loan.output)?);
    if a.len() == y.len() && repeats(&b, &y) {
        (kernels.apart)(a_data, b_data, y_data);
        return Some(());
    }
    // Spread `a` over the result, then work in place.
    let mut at = 0;
    let len = extent(&y, 0) as usize;
    let wide = extent(&a, 0) as usize;
    while at < y.len() {
        let from = offset(&a, &y, at);
        let to = y_data.get_mut(at..at + len)?;
        match a_data.get(from..from + wide)? {
            [one] => to.fill(*one),
            all => to.copy_from_slice(all),
        }
        at += len;
    }
    rows(&b, &y, |from, to, len, b_len| {
        if let (Some(y), Some(b)) = (y_data.get_mut(to..to + len), b_data.get(from..from + b_len)) {
            (kernels.same)(y, b);
        }
    });
    Some(())
}

/// Calls `each(offset in part, offset in whole, row length, part's row length)` for every row of `whole`.
fn rows(part: &Tensor, whole: &Tensor, mut each: impl FnMut(usize, usize, usize, usize)) {
    let len = extent(whole, 0) as usize;
    let part_len = extent(part, 0) as usize;
    let mut at = 0;
    while len > 0 && at < whole.len() {
        each(offset(part, whole, at), at, len, part_len);
        at += len;
    }
}

/// Where in `part` the element lies that belongs to element `at` of `whole`.
fn offset(part: &Tensor, whole: &Tensor, mut at: usize) -> usize {
    let (mut offset, mut stride) = (0, 1);
    for i in 0..MAX_RANK {
        let (size, own) = (extent(whole, i) as usize, extent(part, i) as usize);
        let index = at.checked_rem(size).unwrap_or(0);
        at = at.checked_div(size).unwrap_or(0);
        if own > 1 {
            offset += index * stride;
        }
        stride *= own;
    }
    offset
}
