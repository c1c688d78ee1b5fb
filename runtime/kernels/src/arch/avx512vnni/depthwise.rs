//! Depthwise convolution.
//!
//! Blocks of 64 channels, four taps at a time: the bytes of the four pixels under them are interleaved, so that `vpdpbusd`
//! finds a channel's four in one i32. Interleaving and packing work within 128 bits and undo each other, so accumulator
//! `j` holds the channels `16 * l + 4 * j + (0..4)` for `l` from 0 to 3, and results come out in order.
//!
//! Where at most 32 channels are left the block has them twice, for two output pixels side by side.
//!
//! Weights are packed by blocks: first, for each accumulator, what making activations unsigned adds to its sums (see
//! [`gemm`](super::gemm)), then for each four taps and accumulator a vector of weights. Missing taps and channels are zeros.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::gemm::{Step, VectorBounds, integers_at, load, scales_at};
use super::panel::{correction, four_quads};
use crate::gemm::rows_fit;
use crate::requant::Bounds;
use crate::window::{OUTSIDE, Window};
use crate::{Depthwise, Requant};

/// The largest window whose offsets are kept on the stack.
pub(super) const MAX_TAPS: usize = 128;

/// Channels of a block.
const BLOCK: usize = 64;

/// Groups of weights that are packed on the stack at a time: 16 KiB, and more than a block of [`MAX_TAPS`] has.
const ROOM: usize = 64;

/// The accumulators of a block.
type Group<T> = [T; 4];

/// Bytes of `[channels][taps]` weights in blocks; more than any slice has if it overflows.
pub(super) fn packed_len(channels: usize, taps: usize) -> usize {
    channels.div_ceil(BLOCK).saturating_mul(taps.div_ceil(4).saturating_add(1)).saturating_mul(size_of::<Group<Step>>())
}

/// Whether the block of the channels from `first` on has them twice.
const fn is_double(channels: usize, first: usize) -> bool {
    channels - first <= BLOCK / 2
}

/// The channel of a block in lane `lane` of accumulator `j`.
const fn channel(j: usize, lane: usize, double: bool) -> usize {
    let quarter = if double { lane / 4 % 2 } else { lane / 4 };
    quarter * 16 + j * 4 + lane % 4
}

/// Packs canonical weights into blocks.
pub(super) fn pack(w: &[i8], channels: usize, taps: usize, packed: &mut [u8]) {
    let fits =
        channels.checked_mul(taps).is_some_and(|need| need <= w.len()) && packed.len() >= packed_len(channels, taps);
    debug_assert!(fits, "pack: a slice is too short for [{channels}, {taps}]");
    if !fits {
        return;
    }
    let (words, _) = packed.as_chunks_mut::<4>();
    for (i, word) in words.iter_mut().enumerate().take(packed_len(channels, taps) / 4) {
        let (vector, lane) = (i / 16, i % 16);
        let (group, j) = (vector / 4, vector % 4);
        let (block, quad) = (group / (taps.div_ceil(4) + 1), group % (taps.div_ceil(4) + 1));
        let first = block * BLOCK;
        let channel = first + channel(j, lane, is_double(channels, first));
        let row = if channel < channels { w.get(channel * taps..(channel + 1) * taps) } else { None };
        let row = row.unwrap_or_default();
        *word = match quad.checked_sub(1) {
            None => {
                let sum = row.iter().fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
                sum.wrapping_mul(-128).to_ne_bytes()
            }
            Some(quad) => core::array::from_fn(|i| row.get(quad * 4 + i).map_or(0, |w| w.cast_unsigned())),
        };
    }
}

/// Packs the block of the canonical weights of the channels from `first` on into `groups`, as [`pack`] does: corrections,
/// then `taps.div_ceil(4)` groups of weights.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn pack_block(w: &[i8], channels: usize, taps: usize, first: usize, groups: &mut [MaybeUninit<Group<Step>>]) {
    let double = is_double(channels, first);
    let Some(w) = w.get(first * taps..BLOCK.min(channels - first) * taps + first * taps) else { return };
    let Some((corrections, weights)) = groups.split_first_mut() else { return };
    for j in 0..4 {
        let quarters =
            [0, 1, if double { 0 } else { 2 }, if double { 1 } else { 3 }].map(|quarter| quarter * 16 + j * 4);
        let mut sums = _mm512_setzero_si512();
        for (chunk, groups) in weights.chunks_mut(4).enumerate() {
            for (group, quad) in groups.iter_mut().zip(four_quads(w, taps, chunk * 16, quarters)) {
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), quad);
                // SAFETY: a group is four vectors long, `j` is below 4, and the store needs no alignment.
                unsafe { _mm512_storeu_si512(group.as_mut_ptr().cast::<__m512i>().add(j), quad) }
            }
        }
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(corrections.as_mut_ptr().cast::<__m512i>().add(j), correction(sums)) }
    }
}

/// [`Backend::depthwise`](crate::Backend::depthwise) with packed weights, for 1 to [`MAX_TAPS`] taps.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn depthwise(x: &[i8], packed: &[u8], bias: &[i32], requant: Requant<'_>, y: &mut [i8], shape: &Depthwise) {
    let Some(taps) = taps(x, bias, requant, y, shape) else { return };
    if packed.len() >= packed_len(shape.channels, taps) {
        blocks(x, (packed.as_chunks().0.as_chunks().0, 0), bias, requant, y, shape);
    }
}

/// [`Backend::depthwise`](crate::Backend::depthwise) with weights in the canonical layout, for 1 to [`MAX_TAPS`] taps: as many
/// blocks as fit the stack are packed there at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
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
    let len = taps.div_ceil(4) + 1;
    let at_once = ROOM / len;
    let mut room = [const { MaybeUninit::<Group<Step>>::uninit() }; ROOM];
    for start in (0..shape.channels).step_by(at_once * BLOCK) {
        let count = (shape.channels - start).div_ceil(BLOCK).min(at_once);
        for (block, groups) in room.chunks_exact_mut(len).take(count).enumerate() {
            pack_block(w, shape.channels, taps, start + block * BLOCK, groups);
        }
        // SAFETY: `MaybeUninit<T>` has the layout of `T`; `at_once * len` is at most `ROOM`, and `pack_block` has written
        // all of each block, since the weights are long enough.
        let groups = unsafe { core::slice::from_raw_parts(room.as_ptr().cast(), count * len) };
        blocks(x, (groups, start), bias, requant, y, shape);
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

/// Computes the blocks whose weights are `groups`, the first of them at channel `first`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn blocks(
    x: &[i8],
    (groups, first): (&[Group<Step>], usize),
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
        groups,
        first,
        bias,
        scale: requant.scale,
        bounds: VectorBounds::new(bounds),
        pad: _mm512_set1_epi8(shape.pad_value),
        window,
        quads: taps.div_ceil(4),
        x_step: shape.stride[1].saturating_mul(channels),
    };

    let (inner_rows, inner_columns) = (window.inside(0), window.inside(1));
    let mut space = [0; MAX_TAPS];
    let Some(offsets) = space.get_mut(..4 * layer.quads) else { return };
    for oy in 0..shape.out_h {
        let start = oy * shape.out_w * channels;
        let Some(y) = y.get_mut(start..start + shape.out_w * channels) else { return };
        let mut inner = if inner_rows.contains(&oy) { inner_columns.clone() } else { 0..0 };
        if !inner.is_empty() {
            window.offsets(oy, inner.start, offsets);
            if layer.reach(&inner, offsets) {
                // SAFETY: `reach` said so.
                unsafe {
                    match layer.quads {
                        3 => layer.row::<3, true>(inner.clone(), offsets, y),
                        7 => layer.row::<7, true>(inner.clone(), offsets, y),
                        _ => layer.row::<0, true>(inner.clone(), offsets, y),
                    }
                }
            } else {
                inner = 0..0;
            }
        }
        for ox in (0..shape.out_w).filter(|ox| !inner.contains(ox)) {
            window.offsets(oy, ox, offsets);
            // SAFETY: every tap is looked at.
            unsafe { layer.row::<0, false>(ox..ox + 1, offsets, y) }
        }
    }
}

struct Layer<'a> {
    x: &'a [i8],
    groups: &'a [Group<Step>],
    /// The first channel of the first block.
    first: usize,
    bias: &'a [i32],
    scale: &'a [f32],
    bounds: VectorBounds,
    pad: __m512i,
    window: Window,
    quads: usize,
    /// From one output pixel's input to the next's, in elements.
    x_step: usize,
}

/// Up to 64 channels.
struct Block<'a> {
    first: usize,
    width: usize,
    /// As many as there are fours of taps.
    weights: &'a [Group<Step>],
    bias: Group<__m512i>,
    scale: Group<__m512>,
}

impl Layer<'_> {
    /// Whether all channels under every tap are inside the input, for all of the output pixels `pixels`, of whose first
    /// `offsets` are. The last tap is the furthest one.
    fn reach(&self, pixels: &Range<usize>, offsets: &[usize]) -> bool {
        let steps = pixels.len().saturating_sub(1).checked_mul(self.x_step);
        offsets.iter().all(|offset| {
            let end = steps.and_then(|s| s.checked_add(*offset)?.checked_add(self.window.channels));
            end.is_some_and(|end| end <= self.x.len())
        })
    }

    /// Computes the output pixels `pixels` of a row `y`. `offsets` are those of the first of them. `QUADS` is the number
    /// of fours of taps, or 0 for any. Not `INSIDE`, taps are looked at one by one, and there is one pixel.
    ///
    /// # Safety
    ///
    /// With `INSIDE`, [`reach`](Self::reach) must hold.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn row<const QUADS: usize, const INSIDE: bool>(
        &self,
        pixels: Range<usize>,
        offsets: &[usize],
        y: &mut [i8],
    ) {
        let quads = if QUADS == 0 { self.quads } else { QUADS };
        let channels = self.window.channels;
        let (taps, _) = offsets.as_chunks::<4>();
        let Some(taps) = taps.get(..quads) else { return };
        for (block, groups) in self.groups.chunks_exact(quads + 1).enumerate() {
            let first = self.first + block * BLOCK;
            let Some((corrections, weights)) = groups.split_first().filter(|_| first < channels) else { return };
            let double = is_double(channels, first);
            let block = Block {
                first,
                width: BLOCK.min(channels - first),
                weights,
                bias: self.bias_at(first, double, corrections),
                scale: self.scale_at(first, double),
            };
            // SAFETY: the same contract.
            unsafe {
                if double {
                    self.block::<INSIDE, true>(&block, pixels.clone(), taps, y);
                } else {
                    self.block::<INSIDE, false>(&block, pixels.clone(), taps, y);
                }
            }
        }
    }

    /// The part of a [`row`](Self::row) in one block; `DOUBLE` blocks have two pixels at once.
    ///
    /// # Safety
    ///
    /// As for `row`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn block<const INSIDE: bool, const DOUBLE: bool>(
        &self,
        block: &Block<'_>,
        pixels: Range<usize>,
        taps: &[[usize; 4]],
        y: &mut [i8],
    ) {
        let (first, width) = (block.first, block.width);
        let mask = u64::MAX >> (BLOCK - width);
        let sign = _mm512_set1_epi8(i8::MIN);
        let mut ox = pixels.start;
        while ox < pixels.end {
            let base = (ox - pixels.start) * self.x_step + first;
            // An odd pixel at the end is its own neighbour.
            let two = DOUBLE && ox + 1 < pixels.end;
            let next = if two { self.x_step } else { 0 };
            let mut acc = block.bias;
            for (taps, weights) in taps.iter().zip(block.weights) {
                let mut x = [sign; 4];
                for (x, tap) in x.iter_mut().zip(taps) {
                    let at = tap.wrapping_add(base);
                    let value = if INSIDE {
                        debug_assert!(at + next + width <= self.x.len());
                        // SAFETY: by the contract the channels are inside `x`, of this pixel and of the next, which is
                        // among `pixels`; lanes beyond the mask, which is as wide as there are channels left, are not read.
                        unsafe { self.load::<DOUBLE>(at, next, mask) }
                    } else {
                        self.tap::<DOUBLE>(*tap, base, width)
                    };
                    *x = _mm512_xor_si512(value, sign);
                }
                let (a, b) = (_mm512_unpacklo_epi8(x[0], x[1]), _mm512_unpackhi_epi8(x[0], x[1]));
                let (c, d) = (_mm512_unpacklo_epi8(x[2], x[3]), _mm512_unpackhi_epi8(x[2], x[3]));
                let x = [
                    _mm512_unpacklo_epi16(a, c),
                    _mm512_unpackhi_epi16(a, c),
                    _mm512_unpacklo_epi16(b, d),
                    _mm512_unpackhi_epi16(b, d),
                ];
                for ((acc, x), w) in acc.iter_mut().zip(x).zip(weights) {
                    *acc = _mm512_dpbusd_epi32(*acc, x, load(w));
                }
            }
            let mut words = [_mm512_setzero_si512(); 4];
            for ((word, acc), scale) in words.iter_mut().zip(acc).zip(block.scale) {
                *word = self.bounds.round(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale));
            }
            let values =
                _mm512_packs_epi16(_mm512_packs_epi32(words[0], words[1]), _mm512_packs_epi32(words[2], words[3]));
            let at = ox * self.window.channels + first;
            if let Some(y) = y.get_mut(at..at + width) {
                // SAFETY: `y` has `width` elements, and the mask as many lanes.
                unsafe { _mm512_mask_storeu_epi8(y.as_mut_ptr(), mask, values) }
            }
            let at = at + self.window.channels;
            if two && let Some(y) = y.get_mut(at..at + width) {
                let second = _mm512_castsi256_si512(_mm512_extracti64x4_epi64::<1>(values));
                // SAFETY: as above.
                unsafe { _mm512_mask_storeu_epi8(y.as_mut_ptr(), mask, second) }
            }
            ox += if DOUBLE { 2 } else { 1 };
        }
    }

    /// The elements of `x` from `at` on, as many as `mask` has lanes; `DOUBLE`, also those from `at + next` on.
    ///
    /// # Safety
    ///
    /// They must be inside `x`, and with `DOUBLE` at most 32.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn load<const DOUBLE: bool>(&self, at: usize, next: usize, mask: u64) -> __m512i {
        // SAFETY: by the contract; what the mask has not is not read.
        unsafe {
            let x = self.x.as_ptr().add(at);
            if DOUBLE {
                let low = _mm256_maskz_loadu_epi8(mask as u32, x);
                let high = _mm256_maskz_loadu_epi8(mask as u32, x.add(next));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            } else {
                _mm512_maskz_loadu_epi8(mask, x)
            }
        }
    }

    /// The `width` channels from `base` on under the tap at `offset`, for one pixel.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn tap<const DOUBLE: bool>(&self, offset: usize, base: usize, width: usize) -> __m512i {
        let from = if offset == OUTSIDE { None } else { self.x.get(offset + base..offset + base + width) };
        match from {
            // SAFETY: `from` is inside `x` and has `width` elements, as many as the mask has lanes.
            Some(_) => unsafe { self.load::<DOUBLE>(offset + base, 0, u64::MAX >> (BLOCK - width)) },
            None => self.pad,
        }
    }

    /// Bias and corrections of the channels from `first` on, as accumulators have them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn bias_at(&self, first: usize, double: bool, corrections: &Group<Step>) -> Group<__m512i> {
        let at = |i: usize| integers_at(self.bias, first + i * 16);
        let [third, fourth] = if double { [0, 1] } else { [2, 3] };
        let [a, b, c, d] = transpose([at(0), at(1), at(third), at(fourth)]);
        let [e, f, g, h] = corrections;
        [
            _mm512_add_epi32(a, load(e)),
            _mm512_add_epi32(b, load(f)),
            _mm512_add_epi32(c, load(g)),
            _mm512_add_epi32(d, load(h)),
        ]
    }

    /// The scales of the channels from `first` on, as accumulators have them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn scale_at(&self, first: usize, double: bool) -> Group<__m512> {
        let at = |i: usize| _mm512_castps_si512(scales_at(self.scale, first + i * 16));
        let [third, fourth] = if double { [0, 1] } else { [2, 3] };
        let [a, b, c, d] = transpose([at(0), at(1), at(third), at(fourth)]);
        [_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _mm512_castsi512_ps(c), _mm512_castsi512_ps(d)]
    }
}

/// Brings quarter `l` of vector `j` to quarter `j` of vector `l`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn transpose([a, b, c, d]: Group<__m512i>) -> Group<__m512i> {
    let (low, high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xEE>(a, b));
    let (low2, high2) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xEE>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(low, low2),
        _mm512_shuffle_i32x4::<0xDD>(low, low2),
        _mm512_shuffle_i32x4::<0x88>(high, high2),
        _mm512_shuffle_i32x4::<0xDD>(high, high2),
    ]
}
