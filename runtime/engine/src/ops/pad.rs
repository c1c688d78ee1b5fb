//! `Pad`: a border on any axis. An element outside of the input is a constant, the nearest element, or the mirrored one.

use bytemuck::Pod;
use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Op, Pad, PadKind};
use dunlin_package::plan::{MAX_RANK, Tensor};

use super::Operator;
use super::broadcast::extent;
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Pad, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Pad = view.need_params()?;
    if x.dtype != y.dtype || !matches!(x.dtype, DType::I8 | DType::F32) {
        return Err(Fault::Type);
    }
    PadKind::from_u32(p.kind).ok_or(Fault::Params)?;
    if x.rank == y.rank && !x.is_empty() { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<Pad>()?);
    let kind = PadKind::from_u32(p.kind)?;
    let loan = memory.lend([x], y)?;
    let [from] = loan.inputs;
    if x.dtype == DType::I8 {
        pad::<i8>((&x, from), (&y, loan.output), &p, kind, p.value as u8 as i8)
    } else {
        pad::<f32>((&x, from), (&y, loan.output), &p, kind, f32::from_bits(p.value))
    }
}

/// The element of an axis of `n` that stands at place `at` of the padded axis; `None` for the constant.
fn source(kind: PadKind, at: usize, before: i32, n: usize) -> Option<usize> {
    let (place, n) = (at as i64 - i64::from(before), n as i64);
    let inside = match kind {
        PadKind::Constant => place,
        PadKind::Edge => place.clamp(0, n - 1),
        PadKind::Reflect => {
            let period = (2 * (n - 1)).max(1);
            let folded = place.rem_euclid(period);
            folded.min(period - folded).min(n - 1)
        }
    };
    (0..n).contains(&inside).then_some(inside as usize)
}

fn pad<T: Pod>(
    (x, from): (&Tensor, &[u8]),
    (y, to): (&Tensor, &mut [u8]),
    p: &Pad,
    kind: PadKind,
    value: T,
) -> Option<()> {
    let (from, to): (&[T], &mut [T]) = (cast(from)?, cast_mut(to)?);
    let before = |i: usize| usize::from(y.rank).checked_sub(i + 1).and_then(|a| p.before.get(a)).copied().unwrap_or(0);
    let (len, width) = (extent(y, 0), extent(x, 0));
    for (number, to) in to.chunks_exact_mut(len.max(1)).enumerate() {
        // The row of the input that this row of the result comes from.
        let (mut rest, mut start, mut stride) = (number, Some(0), width);
        for i in 1..MAX_RANK {
            let (size, own) = (extent(y, i).max(1), extent(x, i));
            start = start.zip(source(kind, rest % size, before(i), own)).map(|(at, index)| at + index * stride);
            rest /= size;
            stride *= own;
        }
        let row = start.and_then(|at| from.get(at..at + width));
        for (at, to) in to.iter_mut().enumerate() {
            let place = row.zip(source(kind, at, before(0), width)).and_then(|(row, i)| row.get(i));
            *to = place.copied().unwrap_or(value);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_are_found_as_onnx_says() {
        let row = |kind| (0..9).map(|at| source(kind, at, 3, 3)).collect::<std::vec::Vec<_>>();
        let some = |v: [usize; 9]| v.map(Some).to_vec();
        assert_eq!(row(PadKind::Edge), some([0, 0, 0, 0, 1, 2, 2, 2, 2]));
        assert_eq!(row(PadKind::Reflect), some([1, 2, 1, 0, 1, 2, 1, 0, 1]));
        let middle = [None, None, None, Some(0), Some(1), Some(2), None, None, None];
        assert_eq!(row(PadKind::Constant), middle.to_vec());
        assert_eq!(source(PadKind::Constant, 0, -1, 3), Some(1));
        assert_eq!(source(PadKind::Reflect, 5, 1, 1), Some(0));
    }
}
