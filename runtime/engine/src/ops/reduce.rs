//! `Reduce`: sum, mean, greatest or least over the middle of `outer x axis x inner`.
//!
//! Mean and sum of int8: `clamp(round_half_even(f32(sum(x) - axis * x_zero_point) * scale) + zero_point)`. Greatest and
//! least keep the integers. Floats are added in order; a mean divides by the count.

use dunlin_kernels::{Backend, round_half_even};
use dunlin_package::DType;
use dunlin_package::op::{Op, Reduce, ReduceKind};

use super::{Operator, bounds};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator { scratch, ..Operator::plain(Op::Reduce, false, check, run) }
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Reduce = view.need_params()?;
    let kind = ReduceKind::from_u32(p.kind).ok_or(Fault::Params)?;
    if x.dtype != y.dtype || !matches!(x.dtype, DType::I8 | DType::F32) {
        return Err(Fault::Type);
    }
    let [outer, axis, inner] = [p.outer, p.axis, p.inner].map(|v| v as usize);
    let fits = |a: usize, b: usize, n: usize| a.checked_mul(b) == Some(n);
    // 2^23 elements of a byte stay within i32.
    if axis == 0 || axis > 1 << 23 || inner == 0 || !fits(outer, inner, y.len()) || !fits(y.len(), axis, x.len()) {
        return Err(Fault::Shape);
    }
    if x.dtype == DType::I8 && matches!(kind, ReduceKind::Mean | ReduceKind::Sum) {
        bounds(&p.range)?;
        if p.x_zero_point.unsigned_abs() > 128 {
            return Err(Fault::Params);
        }
    }
    Ok(())
}

/// A sum for each inner element.
fn scratch<B: Backend>(view: &StepView<'_>, _: B) -> usize {
    view.params::<Reduce>().map_or(0, |p| 4 * p.inner as usize)
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let (x, p) = (view.input(0)?, view.params::<Reduce>()?);
    let kind = ReduceKind::from_u32(p.kind)?;
    let [axis, inner] = [p.axis, p.inner].map(|v| v as usize);
    let loan = memory.lend([x], view.output(0)?)?;
    let [data] = loan.inputs;
    let sums = loan.scratch.get_mut(..4 * inner)?;
    if x.dtype == DType::F32 {
        let (x, y): (&[f32], &mut [f32]) = (cast(data)?, cast_mut(loan.output)?);
        for (x, y) in x.chunks_exact(axis * inner).zip(y.chunks_exact_mut(inner)) {
            let (first, rest) = x.split_at_checked(inner)?;
            y.copy_from_slice(first);
            for row in rest.chunks_exact(inner) {
                for (y, &x) in y.iter_mut().zip(row) {
                    *y = match kind {
                        ReduceKind::Mean | ReduceKind::Sum => *y + x,
                        ReduceKind::Max => y.max(x),
                        ReduceKind::Min => y.min(x),
                    };
                }
            }
            if kind == ReduceKind::Mean {
                y.iter_mut().for_each(|y| *y /= axis as f32);
            }
        }
        return Some(());
    }
    let (x, y): (&[i8], &mut [i8]) = (cast(data)?, cast_mut(loan.output)?);
    let (lo, hi) = bounds(&p.range).unwrap_or((i8::MIN, i8::MAX));
    for (x, y) in x.chunks_exact(axis * inner).zip(y.chunks_exact_mut(inner)) {
        if matches!(kind, ReduceKind::Max | ReduceKind::Min) {
            let (first, rest) = x.split_at_checked(inner)?;
            y.copy_from_slice(first);
            for row in rest.chunks_exact(inner) {
                for (y, &x) in y.iter_mut().zip(row) {
                    *y = if kind == ReduceKind::Max { x.max(*y) } else { x.min(*y) };
                }
            }
            continue;
        }
        let sums: &mut [i32] = cast_mut(sums)?;
        sums.fill(p.x_zero_point.wrapping_mul(-(axis as i32)));
        backend.sum_rows(x, axis, inner, inner, sums);
        for (y, &sum) in y.iter_mut().zip(&*sums) {
            let (least, most) = (i32::from(lo) - p.range.zero_point, i32::from(hi) - p.range.zero_point);
            let value = (sum as f32 * p.scale).max(least as f32).min(most as f32);
            *y = (round_half_even(value) as i32 + p.range.zero_point) as i8;
        }
    }
    Some(())
}
