//! `MaxPool`: the greatest element that a window sees; the border is never the greatest.

use bytemuck::Pod;
use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{MaxPool, Op, Window};

use super::{Operator, map_dims};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::MaxPool, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: MaxPool = view.need_params()?;
    if x.dtype != y.dtype || !matches!(x.dtype, DType::I8 | DType::F32) {
        return Err(Fault::Type);
    }
    check_window(map_dims(&x)?, map_dims(&y)?, &p.window)
}

/// Every window of `y` lies over `x` or its border, ceil-rounded sizes included.
pub(crate) fn check_window(
    [n, h, w, c]: [usize; 4],
    [yn, oh, ow, yc]: [usize; 4],
    window: &Window,
) -> Result<(), Fault> {
    let [top, left, _, _] = window.pad.map(|v| v as usize);
    let fits = |axis: usize, size: usize, out: usize, before: usize| {
        let (Some(&stride), Some(&kernel)) = (window.stride.get(axis), window.kernel.get(axis)) else { return false };
        // The last window begins inside, so that none is empty of the input and its border.
        stride > 0 && kernel > 0 && out > 0 && (out - 1).saturating_mul(stride as usize) < size.saturating_add(before)
    };
    if (n, c) != (yn, yc) || !fits(0, h, oh, top) || !fits(1, w, ow, left) {
        return Err(Fault::Shape);
    }
    if window.dilation.contains(&0) { Err(Fault::Params) } else { Ok(()) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<MaxPool>()?);
    let (from, to) = (map_dims(&x).ok()?, map_dims(&y).ok()?);
    let loan = memory.lend([x], y)?;
    let [data] = loan.inputs;
    if x.dtype == DType::I8 {
        pool::<i8>(cast(data)?, cast_mut(loan.output)?, from, to, &p.window, i8::MIN)
    } else {
        pool::<f32>(cast(data)?, cast_mut(loan.output)?, from, to, &p.window, f32::NEG_INFINITY)
    }
}

fn pool<T: Pod + PartialOrd>(
    x: &[T],
    y: &mut [T],
    [_, h, w, c]: [usize; 4],
    [_, oh, ow, _]: [usize; 4],
    window: &Window,
    least: T,
) -> Option<()> {
    for (at, y) in y.chunks_exact_mut(c.max(1)).enumerate() {
        y.fill(least);
        let (line, ox) = (at / ow, at % ow);
        let (batch, oy) = (line / oh, line % oh);
        for (iy, ix) in seen(window, [oy, ox], [h, w]) {
            let start = ((batch * h + iy) * w + ix) * c;
            for (y, &x) in y.iter_mut().zip(x.get(start..start + c)?) {
                if x > *y {
                    *y = x;
                }
            }
        }
    }
    Some(())
}

/// The places of the input that the window at `(oy, ox)` sees, the border left out.
pub(crate) fn seen(
    window: &Window,
    [oy, ox]: [usize; 2],
    [h, w]: [usize; 2],
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let ([kh, kw], [sy, sx]) = (window.kernel.map(|v| v as usize), window.stride.map(|v| v as usize));
    let ([dy, dx], [top, left, _, _]) = (window.dilation.map(|v| v as usize), window.pad.map(|v| v as usize));
    (0..kh).flat_map(move |ky| {
        (0..kw).filter_map(move |kx| {
            let (iy, ix) = ((oy * sy + ky * dy).wrapping_sub(top), (ox * sx + kx * dx).wrapping_sub(left));
            (iy < h && ix < w).then_some((iy, ix))
        })
    })
}
