//! `ConvFloat`: float convolution as a product of matrices, or depthwise.
//!
//! `y = clamp(bias + x0 * w0 + x1 * w1 + ..)`, taps from top left to bottom right and the channels of each, every product
//! rounded before it is added. The border is zero.

use dunlin_kernels::{Backend, WeightsF32, Windows};
use dunlin_package::DType;
use dunlin_package::op::{ConvFloat, Op};
use dunlin_package::plan::Tensor;

use super::conv::{Product, windows};
use super::max_pool::seen;
use super::{Operator, map_dims, slid};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator { op: Op::ConvFloat, in_place: false, check, scratch, packed, pack, run }
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, w, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    let p: ConvFloat = view.need_params()?;
    if [x.dtype, w.dtype, y.dtype] != [DType::F32; 3] {
        return Err(Fault::Type);
    }
    let ([n, h, wd, c], [yn, oh, ow, o]) = (map_dims(&x)?, map_dims(&y)?);
    let [wo, kh, kw, wc] = map_dims(&w)?;
    let groups = p.groups as usize;
    if groups == 0 || !c.is_multiple_of(groups) || !o.is_multiple_of(groups) {
        return Err(Fault::Shape);
    }
    let size = |axis: usize, size: usize| {
        u32::try_from(size).ok().and_then(|s| slid(s, &p.window, axis)).map_or(usize::MAX, |s| s as usize)
    };
    let kernel = p.window.kernel.map(|k| k as usize);
    let fits = (n, oh, ow) == (yn, size(0, h), size(1, wd)) && wo == o && [kh, kw] == kernel && wc == c / groups;
    if !fits || kh * kw * wc == 0 {
        return Err(Fault::Shape);
    }
    view.constant(1).ok_or(Fault::NotConstant)?;
    view.need_constant(2, DType::F32, &[o])?;
    Ok(())
}

/// How a step is computed.
enum Way {
    /// One tap a channel: this many taps.
    Depthwise(usize),
    /// Rows are where they are.
    Pointwise(Product),
    /// Rows are gathered first, this many at a time.
    Gathered(Product, Windows),
}

struct Shape {
    x: Tensor,
    y: Tensor,
    p: ConvFloat,
    groups: usize,
    way: Way,
}

fn shape(view: &StepView<'_>) -> Option<Shape> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<ConvFloat>()?);
    let ([_, _, _, c], [n, oh, ow, o]) = (map_dims(&x).ok()?, map_dims(&y).ok()?);
    let groups = p.groups as usize;
    let [kh, kw] = p.window.kernel.map(|k| k as usize);
    let product = Product {
        m: n.checked_mul(oh)?.checked_mul(ow)?,
        n: o.checked_div(groups)?,
        k: kh.checked_mul(kw)?.checked_mul(c.checked_div(groups)?)?,
    };
    let way = if groups == c && o == c && groups > 1 {
        Way::Depthwise(kh * kw)
    } else if groups == 1 && [kh, kw] == [1, 1] && p.window.stride == [1, 1] && p.window.pad == [0; 4] {
        Way::Pointwise(product)
    } else {
        Way::Gathered(product, windows(&x, &y, &p.window, groups)?)
    };
    Some(Shape { x, y, p, groups, way })
}

fn scratch<B: Backend>(view: &StepView<'_>, _: B) -> usize {
    match shape(view).map(|s| s.way) {
        Some(Way::Gathered(p, windows)) => 4 * windows.block_rows(4) * p.k,
        _ => 0,
    }
}

fn packed_group<B: Backend>(product: Product, backend: B) -> usize {
    backend.gemm_f32_packed_len(product.n, product.k).next_multiple_of(64)
}

fn packed<B: Backend>(view: &StepView<'_>, backend: B) -> usize {
    let Some(shape) = shape(view) else { return 0 };
    match shape.way {
        Way::Depthwise(taps) => 4 * taps * shape.groups,
        Way::Pointwise(p) | Way::Gathered(p, _) => shape.groups * packed_group(p, backend),
    }
}

fn pack<B: Backend>(view: &StepView<'_>, backend: B, to: &mut [u8]) {
    let (Some(shape), Some(w)) = (shape(view), view.constant(1).and_then(cast::<f32>)) else { return };
    match shape.way {
        Way::Depthwise(taps) => {
            // The channels of a tap side by side, as they are in the map.
            for (i, to) in to.chunks_exact_mut(4).enumerate() {
                let (tap, channel) = (i / shape.groups.max(1), i % shape.groups.max(1));
                to.copy_from_slice(&w.get(channel * taps + tap).copied().unwrap_or(0.0).to_ne_bytes());
            }
        }
        Way::Pointwise(p) | Way::Gathered(p, _) => {
            let len = packed_group(p, backend);
            if len == 0 {
                return;
            }
            for (w, to) in w.chunks_exact((p.n * p.k).max(1)).zip(to.chunks_exact_mut(len)) {
                backend.gemm_f32_pack(w, p.n, p.k, to);
            }
        }
    }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let Shape { x, y, p, groups, way } = shape(view)?;
    let loan = memory.lend([x], y)?;
    let [input] = loan.inputs;
    let (input, output): (&[f32], &mut [f32]) = (cast(input)?, cast_mut(loan.output)?);
    let (weights, bias): (&[f32], &[f32]) = (cast(view.constant(1)?)?, cast(view.constant(2)?)?);
    let [_, _, _, channels] = map_dims(&y).ok()?;
    let product = |g: usize, part: Product, a: &[f32], m: usize, row: usize, output: &mut [f32]| {
        let len = packed_group(part, backend);
        let weights = WeightsF32 {
            canonical: weights.get(g * part.n * part.k..(g + 1) * part.n * part.k)?,
            packed: loan.packed.get(g * len..(g + 1) * len).unwrap_or(&[]),
        };
        let (bias, out) = (bias.get(g * part.n..(g + 1) * part.n)?, output.get_mut(row * channels + g * part.n..)?);
        backend.gemm_f32(a, part.k, m, weights, part.n, part.k, bias, out, channels);
        Some(())
    };
    match way {
        Way::Depthwise(taps) => depthwise((&x, input), (&y, output), &p, (weights, cast(loan.packed)?, taps), bias)?,
        Way::Pointwise(part) => product(0, part, input, part.m, 0, output)?,
        Way::Gathered(part, windows) => {
            let rows = windows.block_rows(4);
            let gathered: &mut [f32] = cast_mut(loan.scratch.get_mut(..4 * rows * part.k)?)?;
            if !windows.fits(input.len()) {
                return None;
            }
            let mut row = 0;
            while row < part.m {
                let m = rows.min(part.m - row);
                for g in 0..groups {
                    let windows = Windows { first: g * windows.taken, ..windows };
                    windows.gather(input, 0.0, row, m, gathered);
                    product(g, part, gathered, m, row, output)?;
                }
                row += m;
            }
        }
    }
    clamp(output, p.bounds);
    Some(())
}

/// Keeps values within bounds, and NaN as it is.
pub(crate) fn clamp(values: &mut [f32], [lo, hi]: [f32; 2]) {
    if lo == f32::NEG_INFINITY && hi == f32::INFINITY {
        return;
    }
    for v in values {
        let raised = if *v < lo { lo } else { *v };
        *v = if raised > hi { hi } else { raised };
    }
}

fn depthwise(
    (x, input): (&Tensor, &[f32]),
    (y, output): (&Tensor, &mut [f32]),
    p: &ConvFloat,
    (weights, packed, taps): (&[f32], &[f32], usize),
    bias: &[f32],
) -> Option<()> {
    let ([_, h, w, c], [_, oh, ow, _]) = (map_dims(x).ok()?, map_dims(y).ok()?);
    let [_, kw] = p.window.kernel.map(|k| k as usize);
    let [dy, dx] = p.window.dilation.map(|d| d as usize);
    let ([sy, sx], [top, left, _, _]) = (p.window.stride.map(|s| s as usize), p.window.pad.map(|s| s as usize));
    for (at, place) in output.chunks_exact_mut(c).enumerate() {
        let (line, ox) = (at / ow, at % ow);
        let (batch, oy) = (line / oh, line % oh);
        place.copy_from_slice(bias);
        for (iy, ix) in seen(&p.window, [oy, ox], [h, w]) {
            let tap = (iy + top - oy * sy) / dy * kw + (ix + left - ox * sx) / dx;
            let start = ((batch * h + iy) * w + ix) * c;
            let x = input.get(start..start + c)?;
            match packed.get(tap * c..(tap + 1) * c) {
                Some(weights) => place.iter_mut().zip(x.iter().zip(weights)).for_each(|(y, (x, w))| *y += x * w),
                None => {
                    let weights = weights.get(tap..)?.iter().step_by(taps);
                    place.iter_mut().zip(x.iter().zip(weights)).for_each(|(y, (x, w))| *y += x * w);
                }
            }
        }
    }
    Some(())
}
