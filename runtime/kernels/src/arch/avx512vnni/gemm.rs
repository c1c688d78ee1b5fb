//! The int8 matrix product.
//!
//! `vpdpbusd` adds four products of an unsigned and a signed byte to each of sixteen i32. Weights are the signed ones;
//! activations become unsigned by adding 128, and what that adds to a sum is 128 times the channel's weights, which is
//! taken off beforehand.
//!
//! Weights are packed in panels of 16 output channels. A panel begins with what is taken off, an i32 for each channel, and
//! holds then, for each four consecutive `k`, the 16 channels' four weights: 64 bytes, one vector. The last four of `k` and
//! the last panel are padded with zeros.
//!
//! A block of activation rows is made unsigned in the scratch once, and every pair of panels then passes over the block,
//! twelve rows at a time.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::panel::{self, Dots};
use crate::GemmOut;
use crate::gemm::{Finish, block_rows, operands_fit, rows_fit};
use crate::requant::Bounds;

/// Output channels of a panel: the i32 of a vector.
pub(super) const NR: usize = 16;

/// Rows of the register tile: 12 x 2 accumulators of 32 registers.
const MR: usize = 12;

/// Bytes of unsigned activations to aim for: they stay in the L2 while a pair of panels passes.
const BLOCK_BYTES: usize = 128 * 1024;

/// Four unsigned activations.
type Quad = [u8; 4];

/// Four of `k` in a panel, or the panel's corrections.
pub(super) type Step = [u8; 64];

/// Bytes of `[n][k]` weights in panels; more than any slice has if it overflows.
pub(super) fn packed_len(n: usize, k: usize) -> usize {
    n.div_ceil(NR).saturating_mul(k.div_ceil(4).saturating_add(1)).saturating_mul(size_of::<Step>())
}

/// Packs canonical weights into panels.
pub(super) fn pack(w: &[i8], n: usize, k: usize, packed: &mut [u8]) {
    let fits = n.checked_mul(k).is_some_and(|need| need <= w.len()) && packed.len() >= packed_len(n, k);
    debug_assert!(fits, "pack: a slice is too short for [{n}, {k}]");
    if !fits || n == 0 {
        return;
    }
    let (steps, _) = packed.as_chunks_mut::<{ size_of::<Step>() }>();
    for (panel, steps) in steps.chunks_exact_mut(k.div_ceil(4) + 1).take(n.div_ceil(NR)).enumerate() {
        let Some((corrections, steps)) = steps.split_first_mut() else { return };
        for (lane, correction) in corrections.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let channel = panel * NR + lane;
            let row = if channel < n { w.get(channel * k..(channel + 1) * k) } else { None };
            let row = row.unwrap_or_default();
            let sum = row.iter().fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
            *correction = sum.wrapping_mul(-128).to_ne_bytes();
            for (quad, step) in steps.iter_mut().enumerate() {
                let (lanes, _) = step.as_chunks_mut::<4>();
                if let Some(lane) = lanes.get_mut(lane) {
                    *lane = core::array::from_fn(|i| row.get(quad * 4 + i).map_or(0, |w| w.cast_unsigned()));
                }
            }
        }
    }
}

/// Bytes of scratch for `m` rows of `k`.
pub(super) fn scratch_len(m: usize, k: usize) -> usize {
    let row = k.div_ceil(4).saturating_mul(size_of::<Quad>());
    let tiles = (BLOCK_BYTES / (row.max(1)).saturating_mul(MR)).max(1);
    m.min(tiles * MR).saturating_mul(row)
}

/// [`Bounds`], in every lane.
#[derive(Clone, Copy)]
pub(super) struct VectorBounds {
    lo: __m512,
    hi: __m512,
    zero_point: __m512i,
}

impl VectorBounds {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            lo: _mm512_set1_ps(bounds.lo),
            hi: _mm512_set1_ps(bounds.hi),
            zero_point: _mm512_set1_epi32(bounds.zero_point),
        }
    }

    /// [`Bounds::quantize`] of sixteen values.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn quantize(&self, x: __m512) -> __m128i {
        _mm512_cvtsepi32_epi8(self.round(x))
    }

    /// The same, not narrowed.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn round(&self, x: __m512) -> __m512i {
        // `max` gives its second operand where one is NaN, as the reference does.
        let x = _mm512_min_ps(_mm512_max_ps(x, self.lo), self.hi);
        // Half to even: Rust runs with the rounding mode at its default.
        _mm512_add_epi32(_mm512_cvtps_epi32(x), self.zero_point)
    }
}

/// A lane for each of the first `width` channels.
fn mask(width: usize) -> __mmask16 {
    if width >= NR { !0 } else { (1 << width) - 1 }
}

/// Up to sixteen numbers from `first` on, zero beyond the end of `values`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn integers_at(values: &[i32], first: usize) -> __m512i {
    let values = values.get(first..).unwrap_or_default();
    // SAFETY: lanes beyond the end of `values` are masked, and masked lanes are not read.
    unsafe { _mm512_maskz_loadu_epi32(mask(values.len()), values.as_ptr()) }
}

/// The scales of the channels from `first` on, from one for all or one for each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn scales_at(scale: &[f32], first: usize) -> __m512 {
    match scale {
        [all] => _mm512_set1_ps(*all),
        each => {
            let values = each.get(first..).unwrap_or_default();
            // SAFETY: lanes beyond the end of `values` are masked, and masked lanes are not read.
            unsafe { _mm512_maskz_loadu_ps(mask(values.len()), values.as_ptr()) }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn load(step: &Step) -> __m512i {
    // SAFETY: the array is as large as the vector, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(step.as_ptr().cast()) }
}

/// [`Backend::gemm`](crate::Backend::gemm) with packed weights.
///
/// The caller has checked that `packed` holds `packed_len` bytes and `scratch` one row; whatever of it is missing is left
/// out of the result, not read.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn gemm(
    a: &[i8],
    lda: usize,
    m: usize,
    packed: &[u8],
    n: usize,
    k: usize,
    bias: &[i32],
    out: GemmOut<'_>,
    ldc: usize,
    scratch: &mut [u8],
) {
    if m == 0 || n == 0 || !operands_fit((a, lda), [m, n, k], bias, (&out, ldc)) {
        return;
    }
    let mut finish = Finish::new(out, |bounds| VectorBounds::new(bounds));
    blocks(a, lda, [m, n, k], &mut Panels::Packed(packed.as_chunks().0), bias, &mut finish, ldc, scratch);
}

/// [`Backend::gemm`](crate::Backend::gemm) with weights in the canonical layout.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn gemm_canonical(
    a: &[i8],
    lda: usize,
    m: usize,
    w: &[i8],
    n: usize,
    k: usize,
    bias: &[i32],
    out: GemmOut<'_>,
    ldc: usize,
    scratch: &mut [u8],
) {
    if m == 0 || n == 0 || !operands_fit((a, lda), [m, n, k], bias, (&out, ldc)) {
        return;
    }
    let fits = rows_fit(w.len(), n, k, k);
    debug_assert!(fits, "gemm: the weights are too short for [{n}, {k}]");
    if !fits {
        return;
    }
    let mut finish = Finish::new(out, |bounds| VectorBounds::new(bounds));
    if !panel::pays(m, k) || scratch.len() < scratch_len(1, k) {
        return Dots { a, lda, w, k, bias, ldc }.run(m, n, &mut finish);
    }
    let mut room = [const { MaybeUninit::uninit() }; panel::ROOM];
    blocks(a, lda, [m, n, k], &mut Panels::Canonical(w, &mut room), bias, &mut finish, ldc, scratch);
}

/// Where panels come from.
enum Panels<'p> {
    /// They were packed when the model was loaded.
    Packed(&'p [Step]),
    /// They are packed when they are needed, from `[n][k]` weights.
    Canonical(&'p [i8], &'p mut [MaybeUninit<Step>]),
}

impl Panels<'_> {
    /// The panels of the `width` output channels from `first` on, at most two, each with its corrections.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn pair(&mut self, first: usize, width: usize, k: usize) -> Option<(&[Step], Option<&[Step]>)> {
        let len = k.div_ceil(4) + 1;
        match self {
            Self::Packed(steps) => {
                let mut panels = steps.chunks_exact(len).skip(first / NR);
                let one = panels.next()?;
                Some((one, if width > NR { Some(panels.next()?) } else { None }))
            }
            Self::Canonical(w, room) => {
                let mut w = w.get(first * k..(first + width) * k)?;
                let mut second = None;
                let (room, rest) = room.split_at_mut_checked(len)?;
                if width > NR {
                    let (one, two) = w.split_at_checked(NR * k)?;
                    second = Some(panel::pack(two, k, rest)?);
                    w = one;
                }
                Some((panel::pack(w, k, room)?, second))
            }
        }
    }
}

/// The product of blocks of rows with one pair of panels after the other.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn blocks(
    a: &[i8],
    lda: usize,
    [m, n, k]: [usize; 3],
    panels: &mut Panels<'_>,
    bias: &[i32],
    finish: &mut Finish<'_, VectorBounds>,
    ldc: usize,
    scratch: &mut [u8],
) {
    let quads = k.div_ceil(4);
    let (scratch, _) = scratch.as_chunks_mut::<{ size_of::<Quad>() }>();
    let block = block_rows(scratch.len(), m, quads, MR);

    for start in (0..m).step_by(block) {
        let rows = block.min(m - start);
        for i in 0..rows {
            let from = a.get((start + i) * lda..).and_then(|rest| rest.get(..k));
            let to = scratch.get_mut(i * quads..(i + 1) * quads);
            if let (Some(from), Some(to)) = (from, to) {
                shift(from, to);
            }
        }
        for first in (0..n).step_by(2 * NR) {
            let Some((one, two)) = panels.pair(first, (2 * NR).min(n - first), k) else { return };
            let block = Block { rows: scratch, quads, ldc };
            let two = two.and_then(|two| Panel::new(two, bias, first + NR, n));
            match (Panel::new(one, bias, first, n), two) {
                (Some(one), Some(two)) => block.run([one, two], start, rows, finish),
                (Some(one), None) => block.run([one], start, rows, finish),
                _ => return,
            }
        }
    }
}

/// Adds 128 to a row of i8, which makes it unsigned; what is missing in the last four is anything.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn shift(from: &[i8], to: &mut [Quad]) {
    let to = to.as_flattened_mut();
    let sign = _mm512_set1_epi8(i8::MIN);
    let (vectors, rest) = from.as_chunks::<64>();
    let (to_vectors, to_rest) = to.as_chunks_mut::<64>();
    for (from, to) in vectors.iter().zip(&mut *to_vectors) {
        // SAFETY: both arrays are as large as the vector, and neither access needs an alignment.
        unsafe {
            let x = _mm512_loadu_si512(from.as_ptr().cast());
            _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_xor_si512(x, sign));
        }
    }
    // What is left over may end in the next vector's place, where `to` is padded to a multiple of four.
    let to_rest = if vectors.len() < to_vectors.len() {
        to_vectors.get_mut(vectors.len()).map_or(&mut [][..], |v| &mut v[..])
    } else {
        to_rest
    };
    for (from, to) in rest.iter().zip(to_rest) {
        *to = from.cast_unsigned() ^ 0x80;
    }
}

/// The weights of sixteen output channels.
#[derive(Clone, Copy)]
struct Panel<'a> {
    /// As many as a row has quads.
    steps: &'a [Step],
    /// Bias and correction.
    start: __m512i,
    /// The first output channel, and how many there are.
    first: usize,
    width: usize,
}

impl<'a> Panel<'a> {
    /// The one whose corrections and steps begin at channel `first` of `n`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn new(steps: &'a [Step], bias: &[i32], first: usize, n: usize) -> Option<Self> {
        let (corrections, steps) = steps.split_first()?;
        let start = _mm512_add_epi32(integers_at(bias, first), load(corrections));
        Some(Self { steps, start, first, width: NR.min(n - first) })
    }
}

/// A block of unsigned rows.
struct Block<'a> {
    /// The rows, `quads` each.
    rows: &'a [Quad],
    quads: usize,
    ldc: usize,
}

impl Block<'_> {
    /// Computes and stores `rows` rows of the block, which starts at row `start` of the output.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn run<const P: usize>(
        &self,
        panels: [Panel<'_>; P],
        start: usize,
        rows: usize,
        finish: &mut Finish<'_, VectorBounds>,
    ) {
        let mut i = 0;
        while i < rows {
            i += match rows - i {
                MR.. => self.tile::<P, MR>(panels, start, i, finish),
                8.. => self.tile::<P, 8>(panels, start, i, finish),
                4.. => self.tile::<P, 4>(panels, start, i, finish),
                2.. => self.tile::<P, 2>(panels, start, i, finish),
                _ => self.tile::<P, 1>(panels, start, i, finish),
            };
        }
    }

    /// `R` rows from row `i` of the block on; returns `R`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn tile<const P: usize, const R: usize>(
        &self,
        panels: [Panel<'_>; P],
        start: usize,
        i: usize,
        finish: &mut Finish<'_, VectorBounds>,
    ) -> usize {
        let Some(rows) = self.rows.get(i * self.quads..(i + R) * self.quads) else {
            return R;
        };
        let acc = accumulate::<P, R>(rows, panels);
        for (panel, acc) in panels.iter().zip(acc) {
            let scale = scales_of(finish, panel.first);
            for (r, acc) in acc.into_iter().enumerate() {
                store_row((start + i + r) * self.ldc + panel.first, panel.width, acc, scale, finish);
            }
        }
        R
    }
}

/// The scales of the channels from `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn scales_of(finish: &Finish<'_, VectorBounds>, first: usize) -> __m512 {
    match finish {
        Finish::I8(_, _, scale) | Finish::F32(_, scale) => scales_at(scale, first),
        Finish::I32(_) => _mm512_setzero_ps(),
    }
}

/// Stores `width` output channels of a row to the output, from element `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn store_row(at: usize, width: usize, acc: __m512i, scale: __m512, finish: &mut Finish<'_, VectorBounds>) {
    let to = at..at + width;
    let mask = mask(width);
    match finish {
        Finish::I8(y, bounds, _) => {
            let values = bounds.quantize(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale));
            if let Some(y) = y.get_mut(to) {
                // SAFETY: `y` has `width` elements, and only so many lanes are stored.
                unsafe { _mm_mask_storeu_epi8(y.as_mut_ptr(), mask, values) }
            }
        }
        Finish::I32(y) => {
            if let Some(y) = y.get_mut(to) {
                // SAFETY: as above.
                unsafe { _mm512_mask_storeu_epi32(y.as_mut_ptr(), mask, acc) }
            }
        }
        Finish::F32(y, _) => {
            let values = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
            if let Some(y) = y.get_mut(to) {
                // SAFETY: as above.
                unsafe { _mm512_mask_storeu_ps(y.as_mut_ptr(), mask, values) }
            }
        }
    }
}

/// The products of `R` rows, contiguous and as long as the panels, with `P` panels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn accumulate<const P: usize, const R: usize>(rows: &[Quad], panels: [Panel<'_>; P]) -> [[__m512i; R]; P] {
    let mut acc = panels.map(|panel| [panel.start; R]);
    let quads = rows.len() / R;
    if panels.iter().any(|panel| panel.steps.len() != quads) {
        return acc;
    }
    for q in 0..quads {
        // SAFETY: q < quads, the number of each panel's steps.
        let w = panels.map(|panel| load(unsafe { panel.steps.get_unchecked(q) }));
        for r in 0..R {
            // SAFETY: q < quads and r < R, so this is below R * quads, which is at most the length.
            let x = unsafe { *rows.get_unchecked(r * quads + q) };
            let x = _mm512_set1_epi32(i32::from_ne_bytes(x));
            for (acc, w) in acc.iter_mut().zip(w) {
                acc[r] = _mm512_dpbusd_epi32(acc[r], x, w);
            }
        }
    }
    acc
}
