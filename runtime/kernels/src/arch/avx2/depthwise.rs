//! Depthwise convolution.
//!
//! Weights are packed as for the matrix product, with taps in the place of `k`:
//! blocks of 16 channels, each holding pairs of taps. The bytes of the two pixels
//! under a pair are interleaved and widened, and `madd` does the rest.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::NR;
use super::epilogue::*;
use super::gemm::{Step, packed_len, steps};
use super::lanes::*;
use super::panel::{self, Room};
use crate::gemm::rows_fit;
use crate::requant::Bounds;
use crate::window::{OUTSIDE, Window};
use crate::{Depthwise, Requant};

/// The largest window whose offsets are kept on the stack.
pub(super) const MAX_TAPS: usize = 128;

/// [`Backend::depthwise`](crate::Backend::depthwise) with packed weights, for
/// 1 to [`MAX_TAPS`] taps.
#[target_feature(enable = "avx2")]
pub(super) fn depthwise(x: &[i8], packed: &[u8], bias: &[i32], requant: Requant<'_>, y: &mut [i8], shape: &Depthwise) {
    let Some(taps) = taps(x, bias, requant, y, shape) else { return };
    if packed.len() >= packed_len(shape.channels, taps) {
        blocks(x, (steps(packed), 0), bias, requant, y, shape);
    }
}

/// [`Backend::depthwise`](crate::Backend::depthwise) with weights in the canonical layout, for 1 to [`MAX_TAPS`] taps: as many
/// blocks as fit the stack are packed there at a time.
#[target_feature(enable = "avx2")]
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
    let pairs = taps.div_ceil(2);
    let at_once = panel::ROOM / pairs;
    let mut room: Room<Step, { panel::ROOM }> = [const { MaybeUninit::uninit() }; panel::ROOM];
    for first in (0..shape.channels).step_by(at_once * NR) {
        let channels = (at_once * NR).min(shape.channels - first);
        let Some(w) = w.get(first * taps..(first + channels) * taps) else { return };
        let Some(steps) = panel::pack_all(w, taps, &mut room) else { return };
        blocks(x, (steps, first), bias, requant, y, shape);
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

/// Computes the blocks whose weights are `steps`, the first of them at channel `first`.
#[target_feature(enable = "avx2")]
fn blocks(
    x: &[i8],
    (steps, first): (&[Step], usize),
    bias: &[i32],
    requant: Requant<'_>,
    y: &mut [i8],
    shape: &Depthwise,
) {
    let window = shape.window();
    let channels = shape.channels;
    let taps = window.taps().unwrap_or(0);
    let bounds = Bounds::new(requant.zero_point, requant.lo, requant.hi);
    let layer = Layer {
        x,
        steps,
        first,
        bias,
        scale: requant.scale,
        bounds: VectorBounds::new(bounds),
        pad: _mm_set1_epi8(shape.pad_value),
        window,
        pairs: taps.div_ceil(2),
        x_step: shape.stride[1].saturating_mul(channels),
    };

    let inner_rows = layer.window.inside(0);
    let inner_columns = layer.window.inside(1);
    let mut space = [0; MAX_TAPS];
    // An odd number of taps has one more, whose weight is zero.
    let Some(offsets) = space.get_mut(..2 * layer.pairs) else { return };
    for oy in 0..shape.out_h {
        let start = oy * shape.out_w * channels;
        let Some(y) = y.get_mut(start..start + shape.out_w * channels) else {
            return;
        };
        let mut inner = if inner_rows.contains(&oy) { inner_columns.clone() } else { 0..0 };
        if !inner.is_empty() {
            layer.window.offsets(oy, inner.start, offsets);
            inner.end = layer.readable(&inner, offsets);
        }
        if !inner.is_empty() {
            // SAFETY: `readable` shortened `inner` to what may be read from
            // `offsets` of its first pixel.
            unsafe {
                match layer.pairs {
                    5 => layer.inner::<5>(&inner, offsets, y),
                    13 => layer.inner::<13>(&inner, offsets, y),
                    _ => layer.inner::<0>(&inner, offsets, y),
                }
            }
        }
        for ox in (0..shape.out_w).filter(|ox| !inner.contains(ox)) {
            layer.window.offsets(oy, ox, offsets);
            layer.border(ox, offsets, y);
        }
    }
}

struct Layer<'a> {
    x: &'a [i8],
    steps: &'a [Step],
    /// The first channel of the first block.
    first: usize,
    bias: &'a [i32],
    scale: &'a [f32],
    bounds: VectorBounds,
    pad: __m128i,
    window: Window,
    pairs: usize,
    /// From one output pixel's input to the next's, in elements.
    x_step: usize,
}

impl Layer<'_> {
    /// How far `inner` may run without reading beyond `x`, where the last block
    /// of channels reads all its sixteen.
    fn readable(&self, inner: &Range<usize>, offsets: &[usize]) -> usize {
        let width = self.window.channels.next_multiple_of(NR);
        // The last tap is the furthest one.
        let taps = self.window.taps().unwrap_or(0);
        let furthest = offsets.get(taps.wrapping_sub(1)).copied().unwrap_or(OUTSIDE);
        let readable = |ox: usize| {
            (ox - inner.start)
                .checked_mul(self.x_step)
                .and_then(|start| start.checked_add(furthest)?.checked_add(width))
                .is_some_and(|end| end <= self.x.len())
        };
        let mut end = inner.end;
        while end > inner.start && !readable(end - 1) {
            end -= 1;
        }
        end
    }

    /// Computes the output pixels `inner` of a row `y`. `PAIRS` is the number of
    /// pairs of taps, or 0 for any.
    ///
    /// # Safety
    ///
    /// `offsets` must be those of the first pixel, none of them outside, and
    /// `inner` must not end beyond what [`readable`](Self::readable) returns.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn inner<const PAIRS: usize>(&self, inner: &Range<usize>, offsets: &[usize], y: &mut [i8]) {
        let pairs = if PAIRS == 0 { self.pairs } else { PAIRS };
        let channels = self.window.channels;
        let (taps, _) = offsets.as_chunks::<2>();
        let Some(taps) = taps.get(..pairs) else { return };
        for (block, steps) in self.steps.chunks_exact(pairs).enumerate() {
            let first = self.first + block * NR;
            if first >= channels {
                break;
            }
            let width = NR.min(channels - first);
            let bias = bias_at(self.bias, first);
            let scale = scales_at(self.scale, first);
            for ox in inner.clone() {
                let base = (ox - inner.start) * self.x_step + first;
                let mut acc = bias;
                for (&[tap0, tap1], step) in taps.iter().zip(steps) {
                    // SAFETY: by the contract sixteen elements from the furthest
                    // tap of the last pixel and block are inside `x`. The extra
                    // tap of an odd number equals the last.
                    let (x0, x1) = unsafe { (self.load(base + tap0), self.load(base + tap1)) };
                    acc = multiply_add(acc, x0, x1, step);
                }
                let at = ox * channels + first;
                if let Some(y) = y.get_mut(at..at + width) {
                    put_i8(y, self.bounds.quantize(scaled(acc, scale)));
                }
            }
        }
    }

    /// Sixteen elements of `x`.
    ///
    /// # Safety
    ///
    /// `at + 16` must not exceed the length of `x`.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(&self, at: usize) -> __m128i {
        debug_assert!(at + NR <= self.x.len());
        // SAFETY: by the contract the sixteen elements are inside `x`.
        unsafe { _mm_loadu_si128(self.x.as_ptr().add(at).cast()) }
    }

    /// Computes output pixel `ox` of a row `y`, some of whose taps may be outside
    /// the input or close to its end.
    #[target_feature(enable = "avx2")]
    fn border(&self, ox: usize, offsets: &[usize], y: &mut [i8]) {
        let channels = self.window.channels;
        let (taps, _) = offsets.as_chunks::<2>();
        for (block, steps) in self.steps.chunks_exact(self.pairs).enumerate() {
            let first = self.first + block * NR;
            if first >= channels {
                break;
            }
            let mut acc = bias_at(self.bias, first);
            for (&[tap0, tap1], step) in taps.iter().zip(steps) {
                let (x0, x1) = (self.tap(tap0, first), self.tap(tap1, first));
                acc = multiply_add(acc, x0, x1, step);
            }
            let at = ox * channels + first;
            if let Some(y) = y.get_mut(at..at + NR.min(channels - first)) {
                let scale = scales_at(self.scale, first);
                put_i8(y, self.bounds.quantize(scaled(acc, scale)));
            }
        }
    }

    /// The channels from `first` on under the tap at `offset`; anything in lanes
    /// beyond the last channel, whose weights are zero.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tap(&self, offset: usize, first: usize) -> __m128i {
        if offset == OUTSIDE {
            return self.pad;
        }
        let x = self.x.get(offset + first..).unwrap_or_default();
        if let Some(all) = x.first_chunk() {
            return load_i8x16(all);
        }
        let mut some = [0; NR];
        for (to, from) in some.iter_mut().zip(x) {
            *to = *from;
        }
        load_i8x16(&some)
    }
}

/// Adds the products of sixteen channels' two taps.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_add(acc: Pair<__m256i>, x0: __m128i, x1: __m128i, [w0, w1]: &Step) -> Pair<__m256i> {
    let low = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(x0, x1));
    let high = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(x0, x1));
    [
        _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, load_u8x32(w0))),
        _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, load_u8x32(w1))),
    ]
}
