//! `Conv`: integer convolution as a product of matrices, or depthwise.
//!
//! `acc = sum(x * w) + bias` in wrapping i32, where the border of `x` is its zero point and the bias already holds
//! `-x_zero_point * sum(w)`. Then requantized, given as it is, or scaled to a float.

use dunlin_kernels::{Backend, Depthwise, GemmOut, Weights, Windows};
use dunlin_package::DType;
use dunlin_package::op::{Conv, Op, Window};
use dunlin_package::plan::Tensor;

use super::{Operator, bounds, map_dims, requant, slid};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// Bytes of gathered rows to aim for: within a first-level cache, beside the weights.
pub(crate) const BLOCK_BYTES: usize = 16 * 1024;

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator { op: Op::Conv, in_place: false, check, scratch, packed, pack, run }
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, w, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    let p: Conv = view.need_params()?;
    if x.dtype != DType::I8 || w.dtype != DType::I8 || !matches!(y.dtype, DType::I8 | DType::I32 | DType::F32) {
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
    if (n, oh, ow) != (yn, size(0, h), size(1, wd)) || wo != o || [kh, kw] != kernel || wc != c / groups {
        return Err(Fault::Shape);
    }
    if kh * kw * wc == 0 {
        return Err(Fault::Shape);
    }
    check_constants(view, &p, y.dtype, o)
}

/// Weights, bias and scales are constant, the zero point is a byte.
pub(crate) fn check_constants(view: &StepView<'_>, p: &Conv, y: DType, channels: usize) -> Result<(), Fault> {
    if !(-128..=127).contains(&p.x_zero_point) {
        return Err(Fault::Params);
    }
    view.constant(1).ok_or(Fault::NotConstant)?;
    view.need_constant(2, DType::I32, &[channels])?;
    if y != DType::I32 {
        view.need_constant(3, DType::F32, &[1, channels])?;
    }
    if y == DType::I8 {
        bounds(&p.range)?;
    }
    Ok(())
}

/// How a step is computed.
enum Way {
    /// One tap a channel.
    Depthwise(Depthwise),
    /// Rows are where they are.
    Pointwise(Product),
    /// Rows are what a window sees.
    Gathered(Product, Windows),
}

/// A product of matrices for each group: `m` rows of `k`, `n` columns.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

struct Shape {
    x: Tensor,
    y: Tensor,
    p: Conv,
    groups: usize,
    way: Way,
}

fn shape(view: &StepView<'_>) -> Option<Shape> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<Conv>()?);
    let ([_, h, w, c], [n, oh, ow, o]) = (map_dims(&x).ok()?, map_dims(&y).ok()?);
    let groups = p.groups as usize;
    let kernel = p.window.kernel.map(|k| k as usize);
    let [kh, kw] = kernel;
    let product = Product {
        m: n.checked_mul(oh)?.checked_mul(ow)?,
        n: o.checked_div(groups)?,
        k: kh.checked_mul(kw)?.checked_mul(c.checked_div(groups)?)?,
    };
    let way = if groups == c && o == c && y.dtype == DType::I8 && groups > 1 {
        let [top, left, _, _] = p.window.pad.map(|v| v as usize);
        Way::Depthwise(Depthwise {
            in_h: h,
            in_w: w,
            out_h: oh,
            out_w: ow,
            channels: c,
            kernel,
            stride: p.window.stride.map(|v| v as usize),
            dilation: p.window.dilation.map(|v| v as usize),
            pad: [top, left],
            pad_value: i8::try_from(p.x_zero_point).ok()?,
        })
    } else if groups == 1 && kernel == [1, 1] && p.window.stride == [1, 1] && p.window.pad == [0; 4] {
        Way::Pointwise(product)
    } else {
        Way::Gathered(product, windows(&x, &y, &p.window, groups)?)
    };
    Some(Shape { x, y, p, groups, way })
}

/// What the windows of a convolution of `x` to `y` see of the first group of channels.
pub(crate) fn windows(x: &Tensor, y: &Tensor, window: &Window, groups: usize) -> Option<Windows> {
    let ([_, in_h, in_w, channels], [batch, out_h, out_w, _]) = (map_dims(x).ok()?, map_dims(y).ok()?);
    let [top, left, _, _] = window.pad;
    let pair = |v: [u32; 2]| v.map(|v| v as usize);
    Some(Windows {
        batch,
        in_h,
        in_w,
        channels,
        first: 0,
        taken: channels.checked_div(groups)?,
        out_h,
        out_w,
        kernel: pair(window.kernel),
        stride: pair(window.stride),
        dilation: pair(window.dilation),
        pad: pair([top, left]),
    })
}

fn scratch<B: Backend>(view: &StepView<'_>, backend: B) -> usize {
    match shape(view).map(|s| s.way) {
        Some(Way::Pointwise(p)) => backend.gemm_scratch_len(p.m, p.n, p.k),
        Some(Way::Gathered(p, windows)) => backend.conv_scratch_len(&windows, p.n),
        Some(Way::Depthwise(_)) | None => 0,
    }
}

/// Bytes of one group's repacked weights.
pub(crate) fn packed_group<B: Backend>(product: Product, backend: B) -> usize {
    backend.gemm_packed_len(product.n, product.k).next_multiple_of(64)
}

fn packed<B: Backend>(view: &StepView<'_>, backend: B) -> usize {
    let Some(shape) = shape(view) else { return 0 };
    match shape.way {
        Way::Depthwise(d) => backend.depthwise_packed_len(d.channels, d.kernel.iter().product()),
        Way::Pointwise(p) | Way::Gathered(p, _) => shape.groups * packed_group(p, backend),
    }
}

fn pack<B: Backend>(view: &StepView<'_>, backend: B, to: &mut [u8]) {
    let (Some(shape), Some(w)) = (shape(view), view.constant(1).and_then(cast)) else { return };
    match shape.way {
        Way::Depthwise(d) => backend.depthwise_pack(w, d.channels, d.kernel.iter().product(), to),
        Way::Pointwise(p) | Way::Gathered(p, _) => pack_groups(w, p, backend, to),
    }
}

/// Repacks every group's weights.
pub(crate) fn pack_groups<B: Backend>(w: &[i8], p: Product, backend: B, to: &mut [u8]) {
    let len = packed_group(p, backend);
    if len == 0 {
        return;
    }
    for (w, to) in w.chunks_exact((p.n * p.k).max(1)).zip(to.chunks_exact_mut(len)) {
        backend.gemm_pack(w, p.n, p.k, to);
    }
}

/// Calls a kernel for each group with what belongs to it.
pub(crate) struct Job<'j> {
    pub(crate) weights: &'j [i8],
    pub(crate) packed: &'j [u8],
    pub(crate) bias: &'j [i32],
    pub(crate) scale: &'j [f32],
    pub(crate) p: Conv,
    /// Output channels, all groups.
    pub(crate) channels: usize,
    pub(crate) dtype: DType,
}

/// The operands of a group that do not depend on its rows.
struct Group<'g> {
    weights: Weights<'g>,
    bias: &'g [i32],
    out: GemmOut<'g>,
}

impl Job<'_> {
    /// Those of group `g`, with the output from row `row` on.
    fn group<'g, B: Backend>(
        &'g self,
        g: usize,
        part: Product,
        row: usize,
        y: &'g mut [u8],
        backend: B,
    ) -> Option<Group<'g>> {
        let columns = g * part.n..(g + 1) * part.n;
        let len = packed_group(part, backend);
        let weights = Weights {
            canonical: self.weights.get(g * part.n * part.k..(g + 1) * part.n * part.k)?,
            packed: self.packed.get(g * len..(g + 1) * len).unwrap_or(&[]),
        };
        let bias = self.bias.get(columns.clone())?;
        let scale = if self.scale.len() > 1 { self.scale.get(columns)? } else { self.scale };
        let at = row * self.channels + g * part.n;
        let out = match self.dtype {
            DType::I8 => GemmOut::I8(cast_mut(y)?.get_mut(at..)?, requant(scale, &self.p.range)),
            DType::I32 => GemmOut::I32(cast_mut(y)?.get_mut(at..)?),
            _ => GemmOut::F32(cast_mut(y)?.get_mut(at..)?, scale),
        };
        Some(Group { weights, bias, out })
    }

    /// Rows `a`, `m` of them, of group `g`, into the output from row `row`.
    #[expect(clippy::too_many_arguments, reason = "a kernel's operands")]
    pub(crate) fn product<B: Backend>(
        &self,
        g: usize,
        part: Product,
        (a, lda): (&[i8], usize),
        m: usize,
        row: usize,
        y: &mut [u8],
        scratch: &mut [u8],
        backend: B,
    ) -> Option<()> {
        let Group { weights, bias, out } = self.group(g, part, row, y, backend)?;
        backend.gemm(a, lda, m, weights, part.n, part.k, bias, out, self.channels, scratch);
        Some(())
    }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

/// `None` is what `check` has ruled out.
fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let Shape { x, y, p, groups, way } = shape(view)?;
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
    match way {
        Way::Depthwise(d) => {
            let weights = Weights { canonical: job.weights, packed: job.packed };
            let output: &mut [i8] = cast_mut(loan.output)?;
            let (size_in, size_out) = (d.in_h * d.in_w * d.channels, d.out_h * d.out_w * d.channels);
            for (x, y) in input.chunks_exact(size_in.max(1)).zip(output.chunks_exact_mut(size_out.max(1))) {
                backend.depthwise(x, weights, job.bias, requant(job.scale, &p.range), y, &d);
            }
        }
        Way::Pointwise(part) => {
            job.product(0, part, (input, part.k), part.m, 0, loan.output, loan.scratch, backend)?;
        }
        Way::Gathered(part, windows) => {
            let border = i8::try_from(p.x_zero_point).ok()?;
            for g in 0..groups {
                let windows = Windows { first: g * windows.taken, ..windows };
                let Group { weights, bias, out } = job.group(g, part, 0, loan.output, backend)?;
                backend.conv(input, &windows, border, weights, part.n, bias, out, channels, loan.scratch);
            }
        }
    }
    Some(())
}
