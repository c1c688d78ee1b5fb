//! Depthwise convolution.
//!
//! Weights are packed in blocks of 16 channels, a vector for each tap; missing channels are zeros. A product of two i8 fits
//! in an i16, which is added to an i32.

use core::arch::aarch64::*;

use super::NR;
use super::epilogue::*;
use crate::gemm::rows_fit;
use crate::requant::Bounds;
use crate::window::OUTSIDE;
use crate::{Depthwise, Requant};

/// The largest window whose offsets are kept on the stack.
pub(super) const MAX_TAPS: usize = 128;

/// Vectors of weights that are packed on the stack at a time: 8 KiB.
const ROOM: usize = 512;

/// Bytes of `[channels][taps]` weights in blocks; more than any slice has if it overflows.
pub(super) fn packed_len(channels: usize, taps: usize) -> usize {
    channels.div_ceil(NR).saturating_mul(NR).saturating_mul(taps)
}

/// Packs canonical weights into blocks.
pub(super) fn pack(w: &[i8], channels: usize, taps: usize, packed: &mut [u8]) {
    let fits =
        channels.checked_mul(taps).is_some_and(|need| need <= w.len()) && packed.len() >= packed_len(channels, taps);
    debug_assert!(fits, "pack: a slice is too short for [{channels}, {taps}]");
    if !fits || taps == 0 {
        return;
    }
    for (i, to) in packed.iter_mut().enumerate().take(packed_len(channels, taps)) {
        let (block, tap, lane) = (i / NR / taps, i / NR % taps, i % NR);
        let channel = block * NR + lane;
        let weight = if channel < channels { w.get(channel * taps + tap) } else { None };
        *to = weight.map_or(0, |w| w.cast_unsigned());
    }
}

/// [`Backend::depthwise`](crate::Backend::depthwise) with packed weights, for 1 to [`MAX_TAPS`] taps.
pub(super) fn depthwise(x: &[i8], packed: &[u8], bias: &[i32], requant: Requant<'_>, y: &mut [i8], shape: &Depthwise) {
    let Some(taps) = taps(x, bias, requant, y, shape) else { return };
    if packed.len() >= packed_len(shape.channels, taps) {
        blocks(x, (packed.as_chunks().0, 0), bias, requant, y, shape);
    }
}

/// [`Backend::depthwise`](crate::Backend::depthwise) with weights in the canonical layout, for 1 to [`MAX_TAPS`] taps: as many
/// blocks as fit the stack are packed there at a time.
pub(super) fn depthwise_canonical(
    x: &[i8],
    w: &[i8],
    bias: &[i32],
    requant: Requant<'_>,
    y: &mut [i8],
    shape: &Depthwise,
) {
    let Some(taps) = taps(x, bias, requant, y, shape) else { return };
    let fits = rows_fit(w.len(), shape.channels, taps, taps);
    debug_assert!(fits, "depthwise: the weights are too short for [{}, {taps}]", shape.channels);
    if !fits {
        return;
    }
    let at_once = ROOM / taps * NR;
    let mut room = [[0; NR]; ROOM];
    for first in (0..shape.channels).step_by(at_once) {
        let channels = at_once.min(shape.channels - first);
        let Some(w) = w.get(first * taps..(first + channels) * taps) else { return };
        for (w, vectors) in w.chunks(NR * taps).zip(room.chunks_exact_mut(taps)) {
            for (lane, w) in w.chunks_exact(taps).enumerate() {
                for (vector, w) in vectors.iter_mut().zip(w) {
                    if let Some(to) = vector.get_mut(lane) {
                        *to = w.cast_unsigned();
                    }
                }
            }
        }
        let len = channels.div_ceil(NR) * taps;
        blocks(x, (room.get(..len).unwrap_or_default(), first), bias, requant, y, shape);
    }
}

/// The number of taps, if it can be computed here and every operand but the weights fits.
fn taps(x: &[i8], bias: &[i32], requant: Requant<'_>, y: &[i8], shape: &Depthwise) -> Option<usize> {
    let window = shape.window();
    let channels = shape.channels;
    if !window.fits(x.len(), y.len()) {
        return None;
    }
    let operands_fit = requant.fits(channels) && (bias.is_empty() || bias.len() >= channels);
    debug_assert!(operands_fit, "depthwise: bias or scale too short for {channels}");
    window.taps().filter(|taps| operands_fit && channels > 0 && (1..=MAX_TAPS).contains(taps))
}

/// Computes the blocks whose weights are `vectors`, the first of them at channel `first`.
fn blocks(
    x: &[i8],
    (vectors, first): (&[[u8; NR]], usize),
    bias: &[i32],
    requant: Requant<'_>,
    y: &mut [i8],
    shape: &Depthwise,
) {
    let window = shape.window();
    let channels = shape.channels;
    let taps = window.taps().unwrap_or(0);
    let layer = Layer {
        x,
        vectors,
        first,
        bias,
        scale: requant.scale,
        bounds: VectorBounds::new(Bounds::new(requant.zero_point, requant.lo, requant.hi)),
        pad: [shape.pad_value; NR],
        channels,
        x_step: shape.stride[1].saturating_mul(channels),
    };
    let (inner_rows, inner_columns) = (window.inside(0), window.inside(1));
    let mut space = [0; MAX_TAPS];
    let Some(offsets) = space.get_mut(..taps) else { return };
    for oy in 0..shape.out_h {
        let start = oy * shape.out_w * channels;
        let Some(y) = y.get_mut(start..start + shape.out_w * channels) else { return };
        let inner = if inner_rows.contains(&oy) { inner_columns.clone() } else { 0..0 };
        if !inner.is_empty() {
            window.offsets(oy, inner.start, offsets);
            layer.row(inner.clone(), offsets, y);
        }
        for ox in (0..shape.out_w).filter(|ox| !inner.contains(ox)) {
            window.offsets(oy, ox, offsets);
            layer.row(ox..ox + 1, offsets, y);
        }
    }
}

struct Layer<'a> {
    x: &'a [i8],
    vectors: &'a [[u8; NR]],
    /// The first channel of the first block.
    first: usize,
    bias: &'a [i32],
    scale: &'a [f32],
    bounds: VectorBounds,
    pad: [i8; NR],
    channels: usize,
    /// From one output pixel's input to the next's, in elements.
    x_step: usize,
}

impl Layer<'_> {
    /// Computes the output pixels `pixels` of a row `y`. `offsets` are those of the first of them; taps outside the input
    /// may only be among them when it is the only one.
    #[inline]
    fn row(&self, pixels: core::ops::Range<usize>, offsets: &[usize], y: &mut [i8]) {
        for (block, weights) in self.vectors.chunks_exact(offsets.len()).enumerate() {
            let first = self.first + block * NR;
            if first >= self.channels {
                return;
            }
            let width = NR.min(self.channels - first);
            let (bias, scale) = (bias_at(self.bias, first), scales_at(self.scale, first));
            for ox in pixels.clone() {
                let base = (ox - pixels.start) * self.x_step + first;
                let mut acc = bias;
                for (&tap, w) in offsets.iter().zip(weights) {
                    let (x, w) = (self.tap(tap, base, width), load(w));
                    // SAFETY: NEON belongs to the target.
                    unsafe {
                        let (low, high) = (vmull_s8(vget_low_s8(x), vget_low_s8(w)), vmull_high_s8(x, w));
                        acc[0] = vaddw_s16(acc[0], vget_low_s16(low));
                        acc[1] = vaddw_high_s16(acc[1], low);
                        acc[2] = vaddw_s16(acc[2], vget_low_s16(high));
                        acc[3] = vaddw_high_s16(acc[3], high);
                    }
                }
                let at = ox * self.channels + first;
                if let Some(y) = y.get_mut(at..at + width) {
                    put_i8(y, self.bounds.quantize(scaled(acc, scale)));
                }
            }
        }
    }

    /// The `width` channels from `base` on under the tap at `offset`; anything in the lanes after them.
    #[inline]
    fn tap(&self, offset: usize, base: usize, width: usize) -> int8x16_t {
        let mut some = self.pad;
        if offset != OUTSIDE {
            let x = self.x.get(offset + base..).unwrap_or_default();
            if let Some(all) = x.first_chunk::<NR>() {
                // SAFETY: the array is as large as the vector.
                return unsafe { vld1q_s8(all.as_ptr()) };
            }
            some.iter_mut().zip(x).take(width).for_each(|(to, from)| *to = *from);
        }
        // SAFETY: the array is as large as the vector.
        unsafe { vld1q_s8(some.as_ptr()) }
    }
}
