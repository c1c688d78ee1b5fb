//! Depthwise convolution, four channels at a time: their weights are widened once, for all of the output.

use core::arch::asm;

use super::{Narrow, multiply_high, multiply_low, whole_word, widen, word};
use crate::requant::scale_at;
use crate::window::OUTSIDE;
use crate::{Depthwise, Requant};

/// The largest window whose widened weights are kept on the stack.
pub(super) const MAX_TAPS: usize = 25;

/// [`Backend::depthwise`](crate::Backend::depthwise) for at most [`MAX_TAPS`] taps.
pub(super) fn depthwise(x: &[i8], w: &[i8], bias: &[i32], requant: Requant<'_>, y: &mut [i8], shape: &Depthwise) {
    let window = shape.window();
    let channels = shape.channels;
    if !window.fits(x.len(), y.len()) {
        return;
    }
    let operands_fit = requant.fits(channels) && (bias.is_empty() || bias.len() >= channels);
    debug_assert!(operands_fit, "depthwise: bias or scale too short for {channels}");
    let Some(taps) = window.taps().filter(|taps| *taps <= MAX_TAPS) else { return };
    let w_fits = taps.checked_mul(channels).is_some_and(|need| need <= w.len());
    debug_assert!(w_fits, "depthwise: weights too short for [{channels}, {taps}]");
    if !operands_fit || !w_fits || channels == 0 {
        return;
    }
    if shape.kernel == [3, 3] && shape.dilation[1] == 1 {
        return super::three::depthwise(x, w, bias, requant, y, shape);
    }
    let narrow = Narrow::new(&requant);
    let (mut weights, mut offsets) = ([[0; 2]; MAX_TAPS], [OUTSIDE; MAX_TAPS]);
    let (Some(weights), Some(offsets)) = (weights.get_mut(..taps), offsets.get_mut(..taps)) else { return };
    let (inner_rows, inner_columns) = (window.inside(0), window.inside(1));
    let x_step = shape.stride[1].saturating_mul(channels);
    for first in (0..channels).step_by(4) {
        let width = (channels - first).min(4);
        for (tap, to) in weights.iter_mut().enumerate() {
            let mut four = [0i8; 4];
            for (c, to) in four.iter_mut().enumerate().take(width) {
                *to = w.get((first + c) * taps + tap).copied().unwrap_or(0);
            }
            *to = widen(whole_word(&four));
        }
        let block = Block {
            x: x.get(first..).unwrap_or(&[]),
            weights,
            bias: core::array::from_fn(|c| bias.get(first + c).copied().unwrap_or(0)),
            scale: core::array::from_fn(|c| scale_at(requant.scale, first + c)),
            narrow,
            pad: whole_word(&[shape.pad_value; 4]),
        };
        for oy in 0..shape.out_h {
            let row = oy * shape.out_w * channels + first;
            let mut inner = if inner_rows.contains(&oy) { inner_columns.clone() } else { 0..0 };
            if !inner.is_empty() {
                window.offsets(oy, inner.start, offsets);
                inner.end = inner.end.min(inner.start + block.reach(offsets, x_step));
            }
            for ox in inner.clone() {
                let at = row + ox * channels;
                if let Some(y) = y.get_mut(at..at + width) {
                    // SAFETY: `reach` said that so many pixels can be read.
                    let acc = unsafe { block.inside(offsets, (ox - inner.start) * x_step) };
                    block.finish(acc, y);
                }
            }
            for ox in (0..shape.out_w).filter(|ox| !inner.contains(ox)) {
                window.offsets(oy, ox, offsets);
                let at = row + ox * channels;
                if let Some(y) = y.get_mut(at..at + width) {
                    block.finish(block.anywhere(offsets), y);
                }
            }
        }
    }
}

/// Four channels.
struct Block<'a> {
    /// From the first of them on.
    x: &'a [i8],
    weights: &'a [[u32; 2]],
    bias: [i32; 4],
    scale: [f32; 4],
    narrow: Narrow,
    pad: u32,
}

impl Block<'_> {
    /// Output pixels, `x_step` elements apart, of which four elements can be read under each tap. `offsets` are those of the
    /// first of them.
    fn reach(&self, offsets: &[usize], x_step: usize) -> usize {
        let furthest = offsets.iter().copied().max().unwrap_or(OUTSIDE);
        let room = furthest.checked_add(4).and_then(|end| self.x.len().checked_sub(end));
        room.map_or(0, |room| room.checked_div(x_step).map_or(usize::MAX, |steps| steps + 1))
    }

    /// The sums of the output pixel whose taps are `base` elements after `offsets`.
    ///
    /// # Safety
    ///
    /// From each of them on there must be four elements in `x`.
    #[inline(always)]
    unsafe fn inside(&self, offsets: &[usize], base: usize) -> [i32; 4] {
        let [mut a, mut b, mut c, mut d] = self.bias;
        if offsets.is_empty() || offsets.len() != self.weights.len() {
            return self.bias;
        }
        // SAFETY: of `offsets` and of `weights` as many are read as there are, at least one; of `x` what the contract
        // allows, at any alignment, which `ldr` takes. Nothing is written but the sums. The flag Q is nobody's.
        unsafe {
            asm!(
                "2:",
                "ldr {t}, [{offset}], #4",
                "ldr {t}, [{x}, {t}]",
                "ldr {even}, [{w}], #4",
                "ldr {odd}, [{w}], #4",
                "sxtb16 {u}, {t}",
                "sxtb16 {t}, {t}, ror #8",
                "smlabb {a}, {u}, {even}, {a}",
                "smlatt {c}, {u}, {even}, {c}",
                "smlabb {b}, {t}, {odd}, {b}",
                "smlatt {d}, {t}, {odd}, {d}",
                "cmp {offset}, {end}",
                "bne 2b",
                a = inout(reg) a,
                b = inout(reg) b,
                c = inout(reg) c,
                d = inout(reg) d,
                x = in(reg) self.x.as_ptr().add(base),
                w = inout(reg) self.weights.as_ptr() => _,
                offset = inout(reg) offsets.as_ptr() => _,
                end = in(reg) offsets.as_ptr_range().end,
                t = out(reg) _,
                u = out(reg) _,
                even = out(reg) _,
                odd = out(reg) _,
                options(readonly, nostack),
            );
        }
        [a, b, c, d]
    }

    /// The same for a pixel some of whose taps are outside the input or close to its end.
    fn anywhere(&self, offsets: &[usize]) -> [i32; 4] {
        let [mut a, mut b, mut c, mut d] = self.bias;
        for (&offset, &[even, odd]) in offsets.iter().zip(self.weights) {
            let x = if offset == OUTSIDE {
                self.pad
            } else {
                let x = self.x.get(offset..).unwrap_or(&[]);
                x.first_chunk().map_or_else(|| word(x), whole_word)
            };
            let [x_even, x_odd] = widen(x);
            a = multiply_low(x_even, even, a);
            b = multiply_low(x_odd, odd, b);
            c = multiply_high(x_even, even, c);
            d = multiply_high(x_odd, odd, d);
        }
        [a, b, c, d]
    }

    /// Up to four channels of an output pixel.
    #[inline]
    fn finish(&self, acc: [i32; 4], y: &mut [i8]) {
        for ((y, acc), scale) in y.iter_mut().zip(acc).zip(self.scale) {
            *y = self.narrow.quantize(acc, scale);
        }
    }
}
