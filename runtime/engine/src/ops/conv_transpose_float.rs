//! `ConvTransposeFloat`: float transposed convolution, to the bits of ONNX Runtime 1.32.
//!
//! Each place of the input gives, for every tap and output channel, a chain of fused multiply-adds over its channels,
//! begun anew for every block of channels (the blocks of ONNX Runtime's matrix product) and added up block by block.
//! These are added to the places of the result that the taps fall on, in the order of the taps; then the bias is.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{ConvFloat, Op};
use dunlin_package::plan::Tensor;

use super::conv::BLOCK_BYTES;
use super::conv_float::clamp;
use super::conv_transpose::check_shapes;
use super::{Operator, map_dims};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator { op: Op::ConvTransposeFloat, in_place: false, check, scratch, packed, pack, run }
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, w, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    let p: ConvFloat = view.need_params()?;
    if [x.dtype, w.dtype, y.dtype] != [DType::F32; 3] {
        return Err(Fault::Type);
    }
    check_shapes([&x, &w, &y], &p.window, p.groups as usize)?;
    view.constant(1).ok_or(Fault::NotConstant)?;
    view.need_constant(2, DType::F32, &[map_dims(&y)?[3]])?;
    Ok(())
}

/// Sizes of one group.
#[derive(Clone, Copy)]
struct Shape {
    x: Tensor,
    y: Tensor,
    p: ConvFloat,
    groups: usize,
    /// Input channels.
    c: usize,
    /// Output channels.
    o: usize,
    taps: usize,
}

fn shape(view: &StepView<'_>) -> Option<Shape> {
    let (x, y, p) = (view.input(0)?, view.output(0)?, view.params::<ConvFloat>()?);
    let ([_, _, _, c], [_, _, _, o]) = (map_dims(&x).ok()?, map_dims(&y).ok()?);
    let (groups, [kh, kw]) = (p.groups as usize, p.window.kernel.map(|k| k as usize));
    let (c, o) = (c.checked_div(groups)?, o.checked_div(groups)?);
    Some(Shape { x, y, p, groups, c, o, taps: kh.checked_mul(kw)? })
}

/// Places whose products are held at a time: some of one line of the input.
fn places(s: &Shape) -> usize {
    let [_, _, w, _] = map_dims(&s.x).unwrap_or_default();
    (BLOCK_BYTES / (4 * s.taps * s.o).max(1)).clamp(1, w.max(1))
}

/// The products of some places, and of one block of channels where there are several.
fn scratch<B: Backend>(view: &StepView<'_>, _: B) -> usize {
    shape(view).map_or(0, |s| {
        let [_, h, w, _] = map_dims(&s.x).unwrap_or_default();
        let blocks = if s.c > block(s.c, h * w) { 2 } else { 1 };
        blocks * 4 * places(&s) * s.taps * s.o
    })
}

fn packed<B: Backend>(view: &StepView<'_>, _: B) -> usize {
    shape(view).map_or(0, |s| 4 * s.groups * s.c * s.taps * s.o)
}

/// `[group][input channel][tap][output channel]`: a row for each step of a chain.
fn pack<B: Backend>(view: &StepView<'_>, _: B, to: &mut [u8]) {
    let (Some(s), Some(w)) = (shape(view), view.constant(1).and_then(cast::<f32>)) else { return };
    for (row, to) in to.chunks_exact_mut((4 * s.taps * s.o).max(1)).enumerate() {
        for (i, to) in to.chunks_exact_mut(4).enumerate() {
            let at = index(&s, row / s.c.max(1), row % s.c.max(1), i);
            to.copy_from_slice(&w.get(at).copied().unwrap_or(0.0).to_ne_bytes());
        }
    }
}

/// Where the stored weights have element `i` (tap, then output channel) of a group's input channel.
fn index(s: &Shape, group: usize, channel: usize, i: usize) -> usize {
    let (tap, n) = (i / s.o.max(1), i % s.o.max(1));
    ((group * s.o + n) * s.taps + tap) * s.c + channel
}

/// Channels of a block: what ONNX Runtime's matrix product takes at a time for `c` channels and `n` places.
fn block(c: usize, n: usize) -> usize {
    let mut block = 128;
    if n >= c {
        while block / 2 >= c && block > 1 {
            block /= 2;
        }
        return block;
    }
    // Fewer places are taken at a time, and as many more channels.
    let mut places = 128;
    while places > 16 && places / 2 >= n {
        block *= 2;
        places /= 2;
    }
    block
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let s = shape(view)?;
    let ([n, h, w, channels], [_, oh, ow, outputs]) = (map_dims(&s.x).ok()?, map_dims(&s.y).ok()?);
    let loan = memory.lend([s.x], s.y)?;
    let [input] = loan.inputs;
    let (input, output): (&[f32], &mut [f32]) = (cast(input)?, cast_mut(loan.output)?);
    let (weights, bias): (&[f32], &[f32]) = (cast(view.constant(1)?)?, cast(view.constant(2)?)?);
    let packed: &[f32] = cast(loan.packed)?;
    let (row, most, block) = (s.taps * s.o, places(&s), block(s.c, h * w));
    let (sums, partial) = loan.scratch.split_at_mut_checked(4 * most * row)?;
    let (sums, partial): (&mut [f32], &mut [f32]) = (cast_mut(sums)?, cast_mut(partial)?);
    output.fill(0.0);
    // Backwards, so that what falls on one place of the result comes in the order of the taps.
    for line in (0..n * h).rev() {
        for first in (0..w).step_by(most).rev() {
            let count = most.min(w - first);
            let sums = sums.get_mut(..count * row)?;
            for g in 0..s.groups {
                let x = input.get((line * w + first) * channels + g * s.c..)?;
                for start in (0..s.c).step_by(block) {
                    let part = start..s.c.min(start + block);
                    if start == 0 {
                        chains(&s, (g, part), (x, channels), (weights, packed), sums, backend)?;
                    } else {
                        let partial = partial.get_mut(..count * row)?;
                        chains(&s, (g, part), (x, channels), (weights, packed), partial, backend)?;
                        sums.iter_mut().zip(&*partial).for_each(|(sum, p)| *sum += p);
                    }
                }
                let (batch, iy) = (line / h, line % h);
                scatter(
                    &s,
                    sums,
                    [iy, first],
                    [oh, ow],
                    outputs,
                    output.get_mut(batch * oh * ow * outputs + g * s.o..)?,
                )?;
            }
        }
    }
    for place in output.chunks_exact_mut(outputs) {
        place.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
    clamp(output, s.p.bounds);
    Some(())
}

/// The products of as many places as `to` holds with channels `part` of group `group`.
fn chains<B: Backend>(
    s: &Shape,
    (group, part): (usize, core::ops::Range<usize>),
    (x, channels): (&[f32], usize),
    (weights, packed): (&[f32], &[f32]),
    to: &mut [f32],
    backend: B,
) -> Option<()> {
    let (row, k) = (s.taps * s.o, part.len());
    let (x, at) = (x.get(part.start..)?, (group * s.c + part.start) * row);
    if let Some(w) = packed.get(at..at + k * row) {
        backend.chains_f32(x, channels, to.len().checked_div(row)?, w, row, k, to);
        return Some(());
    }
    for (place, to) in to.chunks_exact_mut(row).enumerate() {
        for (i, to) in to.iter_mut().enumerate() {
            *to = 0.0;
            for (x, channel) in x.get(place * channels..)?.iter().zip(part.clone()) {
                *to = dunlin_kernels::fma(*x, *weights.get(index(s, group, channel, i))?, *to);
            }
        }
    }
    Some(())
}

/// Adds the products of places of a line, from place `first` on, to where their taps fall: tap by tap, so that on one place
/// of the result they come in the order of the taps.
fn scatter(
    s: &Shape,
    sums: &[f32],
    [iy, first]: [usize; 2],
    [oh, ow]: [usize; 2],
    outputs: usize,
    output: &mut [f32],
) -> Option<()> {
    let [[_, kw], [sy, sx], [dy, dx]] =
        [s.p.window.kernel, s.p.window.stride, s.p.window.dilation].map(|v| v.map(|v| v as usize));
    let [top, left, _, _] = s.p.window.pad.map(|v| v as usize);
    let row = s.taps * s.o;
    for tap in 0..s.taps {
        let oy = (iy * sy + tap / kw * dy).wrapping_sub(top);
        if oy >= oh {
            continue;
        }
        let line = output.get_mut(oy * ow * outputs..)?;
        let start = first * sx + tap % kw * dx;
        for (i, sums) in sums.chunks_exact(row).enumerate() {
            let ox = (start + i * sx).wrapping_sub(left);
            if ox >= ow {
                continue;
            }
            let sums = sums.get(tap * s.o..(tap + 1) * s.o)?;
            let at = ox * outputs;
            line.get_mut(at..at + s.o)?.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::block;

    #[test]
    fn blocks_are_those_of_the_matrix_product() {
        assert_eq!(block(24, 6400), 32);
        assert_eq!(block(96, 25), 512);
        assert_eq!(block(128, 6400), 128);
        assert_eq!(block(1, 100), 1);
    }
}
