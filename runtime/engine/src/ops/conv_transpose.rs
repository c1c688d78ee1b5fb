//! `ConvTranspose`: integer transposed convolution. Every element of the result gathers the input's elements whose
//! windows cover it, and then is a row of the same product as in [`conv`](super::conv).
//!
//! Weights are `[output channel][height][width][input channel of the group]`. A tap that no element meets takes the zero
//! point of `x`, which adds nothing, since the bias already holds `-x_zero_point * sum(w)`.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Conv, Op, Window};
use dunlin_package::plan::Tensor;

use super::conv::{BLOCK_BYTES, Job, Product, check_constants, pack_groups, packed_group};
use super::{Operator, map_dims};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator { op: Op::ConvTranspose, in_place: false, check, scratch, packed, pack, run }
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, w, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    let p: Conv = view.need_params()?;
    if x.dtype != DType::I8 || w.dtype != DType::I8 || !matches!(y.dtype, DType::I8 | DType::I32 | DType::F32) {
        return Err(Fault::Type);
    }
    check_shapes([&x, &w, &y], &p.window, p.groups as usize)?;
    check_constants(view, &p, y.dtype, map_dims(&y)?[3])
}

/// Channels and kernel agree. Any height and width of the result do: what no window covers is the bias.
pub(crate) fn check_shapes([x, w, y]: [&Tensor; 3], window: &Window, groups: usize) -> Result<(), Fault> {
    let ([n, _, _, c], [yn, _, _, o], [wo, kh, kw, wc]) = (map_dims(x)?, map_dims(y)?, map_dims(w)?);
    let divisible = groups > 0 && c.is_multiple_of(groups) && o.is_multiple_of(groups);
    let kernel = window.kernel.map(|k| k as usize);
    if !divisible || n != yn || wo != o || [kh, kw] != kernel || wc != c / groups || kh * kw * wc == 0 || y.is_empty() {
        return Err(Fault::Shape);
    }
    // Places are added and taps multiplied in usize, which may be 32 bits.
    let reach = |tap: u32, step: u32| tap.saturating_mul(step) <= i32::MAX as u32;
    let reached = (window.kernel.iter().zip(window.dilation)).all(|(&k, d)| reach(k, d));
    let small = reached && window.pad.iter().all(|&pad| pad <= i32::MAX as u32);
    if !small || window.stride.contains(&0) || window.dilation.contains(&0) { Err(Fault::Params) } else { Ok(()) }
}

struct Shape {
    x: Tensor,
    y: Tensor,
    p: Conv,
    groups: usize,
    product: Product,
    rows: usize,
}

fn shape(view: &StepView<'_>) -> Option<Shape> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<Conv>()?);
    let ([_, _, _, c], [n, oh, ow, o]) = (map_dims(&x).ok()?, map_dims(&y).ok()?);
    let (groups, [kh, kw]) = (p.groups as usize, p.window.kernel.map(|k| k as usize));
    let product = Product {
        m: n.checked_mul(oh)?.checked_mul(ow)?,
        n: o.checked_div(groups)?,
        k: kh.checked_mul(kw)?.checked_mul(c.checked_div(groups)?)?,
    };
    let rows = (BLOCK_BYTES / product.k.max(1)).clamp(1, product.m.max(1));
    Some(Shape { x, y, p, groups, product, rows })
}

fn scratch<B: Backend>(view: &StepView<'_>, backend: B) -> usize {
    shape(view).map_or(0, |s| {
        let gathered = (s.rows * s.product.k).next_multiple_of(64);
        gathered + backend.gemm_scratch_len(s.rows, s.product.n, s.product.k)
    })
}

fn packed<B: Backend>(view: &StepView<'_>, backend: B) -> usize {
    shape(view).map_or(0, |s| s.groups * packed_group(s.product, backend))
}

fn pack<B: Backend>(view: &StepView<'_>, backend: B, to: &mut [u8]) {
    if let (Some(shape), Some(w)) = (shape(view), view.constant(1).and_then(cast)) {
        pack_groups(w, shape.product, backend, to);
    }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let Shape { x, y, p, groups, product, rows } = shape(view)?;
    let border = i8::try_from(p.x_zero_point).ok()?;
    let loan = memory.lend([x], y)?;
    let [input] = loan.inputs;
    let input: &[i8] = cast(input)?;
    let [_, _, _, channels] = map_dims(&y).ok()?;
    let job = Job {
        weights: cast(view.constant(1)?)?,
        packed: loan.packed,
        bias: cast(view.constant(2)?)?,
        scale: view.constant(3).and_then(cast).unwrap_or(&[]),
        p,
        channels,
        dtype: y.dtype,
    };
    let (gathered, scratch) = loan.scratch.split_at_mut_checked((rows * product.k).next_multiple_of(64))?;
    let gathered: &mut [i8] = cast_mut(gathered)?;
    let mut row = 0;
    while row < product.m {
        let m = rows.min(product.m - row);
        for g in 0..groups {
            for (row, to) in (row..row + m).zip(gathered.chunks_exact_mut(product.k)) {
                gather((&x, input), &y, &p.window, (g, groups), border, row, to)?;
            }
            job.product(g, product, (gathered, product.k), m, row, loan.output, scratch, backend)?;
        }
        row += m;
    }
    Some(())
}

/// What row `row` of the result gathers: taps from top left to bottom right, the group's channels of each.
fn gather(
    (x, input): (&Tensor, &[i8]),
    y: &Tensor,
    window: &Window,
    (group, groups): (usize, usize),
    border: i8,
    row: usize,
    to: &mut [i8],
) -> Option<()> {
    let ([_, h, w, c], [_, oh, ow, _]) = (map_dims(x).ok()?, map_dims(y).ok()?);
    let taken = c / groups;
    let (batch, oy, ox) = (row / ow / oh, row / ow % oh, row % ow);
    let [kernel, stride, dilation] = [window.kernel, window.stride, window.dilation].map(|v| v.map(|v| v as usize));
    let [top, left, _, _] = window.pad.map(|v| v as usize);
    // The element whose tap `tap` falls on place `at`, if there is one.
    let met = |at: usize, tap: usize, dilation: usize, stride: usize, size: usize| {
        let from = at.checked_sub(tap * dilation)?;
        (from.is_multiple_of(stride) && from / stride < size).then_some(from / stride)
    };
    let mut taps = to.chunks_exact_mut(taken);
    let ([kh, kw], [sy, sx], [dy, dx]) = (kernel, stride, dilation);
    for ky in 0..kh {
        let iy = met(oy + top, ky, dy, sy, h);
        for kx in 0..kw {
            let place = iy.zip(met(ox + left, kx, dx, sx, w));
            let tap = taps.next()?;
            match place.map(|(iy, ix)| ((batch * h + iy) * w + ix) * c + group * taken) {
                Some(at) => tap.copy_from_slice(input.get(at..at + taken)?),
                None => tap.fill(border),
            }
        }
    }
    Some(())
}
