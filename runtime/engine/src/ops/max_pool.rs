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

/// The places of the input that the window at `(oy, ox)` sees, the border left out: no more steps than places.
pub(crate) fn seen(
    window: &Window,
    [oy, ox]: [usize; 2],
    [h, w]: [usize; 2],
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let [top, left, _, _] = window.pad;
    let down = Taps::new(window, 0, oy, h, top);
    let right = Taps::new(window, 1, ox, w, left);
    down.flat_map(move |iy| right.map(move |ix| (iy, ix)))
}

/// The places of one axis under a window's taps.
#[derive(Clone, Copy)]
struct Taps {
    next: usize,
    step: usize,
    left: usize,
}

impl Taps {
    fn new(window: &Window, axis: usize, out: usize, size: usize, pad: u32) -> Self {
        let of = |values: [u32; 2]| u64::from(values.get(axis).copied().unwrap_or(1));
        let (taps, step, pad) = (of(window.kernel), of(window.dilation).max(1), u64::from(pad));
        let start = (out as u64).saturating_mul(of(window.stride));
        // The first tap that is not left of the input, and the first that is right of it.
        let first = pad.saturating_sub(start).div_ceil(step);
        let end = (size as u64).saturating_add(pad).saturating_sub(start).div_ceil(step).min(taps);
        let next = start.saturating_add(first.saturating_mul(step)).saturating_sub(pad);
        // Each tap between them is a place of the input, so that the numbers are no greater than its size.
        Self { next: next as usize, step: step as usize, left: end.saturating_sub(first) as usize }
    }
}

impl Iterator for Taps {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next;
        self.next = at.wrapping_add(self.step);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_beside_the_input_are_left_out() {
        let places = |kernel, stride, dilation, pad, out, size| {
            let window =
                Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [dilation; 2], pad: [pad, pad, 0, 0] };
            Taps::new(&window, 0, out, size, pad).collect::<std::vec::Vec<_>>()
        };
        for (kernel, stride, dilation, pad, out, size) in
            (0..3 * 3 * 3 * 4 * 5).map(|i| (1 + i % 3, 1 + i / 3 % 3, 1 + i / 9 % 3, i / 27 % 4, i as usize / 108, 5))
        {
            let plain: std::vec::Vec<usize> = (0..kernel as usize)
                .map(|tap| (out * stride as usize + tap * dilation as usize).wrapping_sub(pad as usize))
                .filter(|&at| at < size)
                .collect();
            assert_eq!(places(kernel, stride, dilation, pad, out, size), plain);
        }
        assert_eq!(places(u32::MAX, u32::MAX, 1, u32::MAX, 0, 3), []);
        assert_eq!(places(u32::MAX, u32::MAX, 1, u32::MAX, 1, 3), [0, 1, 2]);
        assert_eq!(places(u32::MAX, 1, u32::MAX, 1, 0, 3), []);
    }
}
