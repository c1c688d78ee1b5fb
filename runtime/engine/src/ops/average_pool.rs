//! `AveragePool`: the mean of what a window sees.
//!
//! On int8 to the bits of ONNX Runtime's `QLinearAveragePool`: each element becomes a float, `(x - x_zero_point) *
//! x_scale`; they are added in order of rows; the sum is divided by the count and by `y_scale`, and the zero point is
//! added as a float before rounding to even.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{AveragePool, Op};

use super::max_pool::{check_window, seen};
use super::{Operator, bounds, map_dims};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator { scratch, ..Operator::plain(Op::AveragePool, false, check, run) }
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: AveragePool = view.need_params()?;
    match [x.dtype, y.dtype] {
        [DType::I8, DType::I8] => drop(bounds(&p.range)?),
        [DType::F32, DType::F32] => {}
        _ => return Err(Fault::Type),
    }
    if p.x_zero_point.unsigned_abs() > 128 {
        return Err(Fault::Params);
    }
    check_window(map_dims(&x)?, map_dims(&y)?, &p.window)
}

/// A sum for each channel.
fn scratch<B: Backend>(view: &StepView<'_>, _: B) -> usize {
    view.output(0).and_then(|y| map_dims(&y).ok()).map_or(0, |[_, _, _, c]| 4 * c)
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<AveragePool>()?);
    let ([_, h, w, c], [_, oh, ow, _]) = (map_dims(&x).ok()?, map_dims(&y).ok()?);
    let loan = memory.lend([x], y)?;
    let [data] = loan.inputs;
    let sums: &mut [f32] = cast_mut(loan.scratch.get_mut(..4 * c)?)?;
    let (lo, hi) = bounds(&p.range).unwrap_or((i8::MIN, i8::MAX));
    let taps = p.window.kernel.map(u64::from).iter().product::<u64>();
    for at in 0..y.len().checked_div(c)? {
        sums.fill(0.0);
        let (line, ox) = (at / ow, at % ow);
        let (batch, oy) = (line / oh, line % oh);
        let mut count = 0u32;
        for (iy, ix) in seen(&p.window, [oy, ox], [h, w]) {
            count += 1;
            let start = ((batch * h + iy) * w + ix) * c;
            if x.dtype == DType::I8 {
                for (sum, &q) in sums.iter_mut().zip(cast::<i8>(data)?.get(start..start + c)?) {
                    *sum += (i32::from(q) - p.x_zero_point) as f32 * p.x_scale;
                }
            } else {
                for (sum, &v) in sums.iter_mut().zip(cast::<f32>(data)?.get(start..start + c)?) {
                    *sum += v;
                }
            }
        }
        let count = if p.count_border == 1 { taps as f32 } else { count.max(1) as f32 };
        let place = at * c..(at + 1) * c;
        if x.dtype == DType::I8 {
            for (y, &sum) in cast_mut::<i8>(loan.output)?.get_mut(place)?.iter_mut().zip(&*sums) {
                let code = libm::rintf(sum / count / p.y_scale + p.offset) as i32;
                *y = code.saturating_add(p.range.zero_point).clamp(i32::from(lo), i32::from(hi)) as i8;
            }
        } else {
            for (y, &sum) in cast_mut::<f32>(loan.output)?.get_mut(place)?.iter_mut().zip(&*sums) {
                *y = sum / count;
            }
        }
    }
    Some(())
}
