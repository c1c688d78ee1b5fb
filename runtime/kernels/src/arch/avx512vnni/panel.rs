//! Weights in the canonical layout: panels packed on the stack just before they are used, and products along `k` without
//! any packing.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::gemm::{NR, Step, VectorBounds, integers_at, scales_of, store_row};
use crate::gemm::Finish;

/// Steps of two panels that fit the stack: 64 KiB, so that one has 511 and its corrections.
pub(super) const ROOM: usize = 1024;

/// Whether packing panels of `k` pays for `m` rows.
pub(super) fn pays(m: usize, k: usize) -> bool {
    m >= 12 && k.div_ceil(4) < ROOM / 2
}

/// Packs one panel, `w[channels][k]` with at most 16 channels, as [`pack`](super::gemm::pack) does: corrections, then
/// `k.div_ceil(4)` steps. `None` if `room` has not as many steps.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn pack<'r>(w: &[i8], k: usize, room: &'r mut [MaybeUninit<Step>]) -> Option<&'r [Step]> {
    let quads = k.div_ceil(4);
    let (corrections, steps) = room.get_mut(..quads + 1)?.split_first_mut()?;
    let ones = _mm512_set1_epi8(1);
    let mut sums = _mm512_setzero_si512();
    for (chunk, steps) in steps.chunks_mut(4).enumerate() {
        let columns = four_quads(w, k, chunk * 16, [0, 4, 8, 12]);
        for (step, column) in steps.iter_mut().zip(columns) {
            sums = _mm512_dpbusd_epi32(sums, ones, column);
            // SAFETY: a step is as large as the vector, and the store needs no alignment.
            unsafe { _mm512_storeu_si512(step.as_mut_ptr().cast(), column) }
        }
    }
    // SAFETY: as above.
    unsafe { _mm512_storeu_si512(corrections.as_mut_ptr().cast(), correction(sums)) }
    // SAFETY: `MaybeUninit<Step>` has the layout of `Step`, and the first `quads + 1` were written.
    Some(unsafe { core::slice::from_raw_parts(room.as_ptr().cast(), quads + 1) })
}

/// What making activations unsigned adds to a sum, negated; `sums` are those of the weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn correction(sums: __m512i) -> __m512i {
    _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(sums))
}

/// The four quads of `k` from `start` on, of sixteen channels: `quarters` names the first of the four channels of each
/// quarter of a vector. Zeros beyond `k` and beyond the end of `w`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn four_quads(w: &[i8], k: usize, start: usize, quarters: [usize; 4]) -> [__m512i; 4] {
    let mut rows = [_mm512_setzero_si512(); 4];
    let [a, b, c, d] = quarters;
    let last = a.max(b).max(c).max(d) + 3;
    let whole = k - start >= 16 && last * k + start + 16 <= w.len();
    for (i, rows) in rows.iter_mut().enumerate() {
        let row = |channel: usize| {
            let at = (channel + i) * k + start;
            if whole {
                // SAFETY: sixteen bytes of the last channel are inside `w`, and this is not after it.
                return unsafe { _mm_loadu_si128(w.as_ptr().add(at).cast()) };
            }
            up_to_16(w, at, k - start)
        };
        let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(a)), row(b));
        let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(c)), row(d));
        *rows = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    }
    // Within each quarter, four channels of four quads become four quads of four channels.
    let [a, b, c, d] = rows;
    let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(low, low2),
        _mm512_unpackhi_epi64(low, low2),
        _mm512_unpacklo_epi64(high, high2),
        _mm512_unpackhi_epi64(high, high2),
    ]
}

/// The first `len` of sixteen elements from `at` on, zeros after them and beyond the end of `w`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn up_to_16(w: &[i8], at: usize, len: usize) -> __m128i {
    let rest = w.get(at..).unwrap_or_default();
    let count = rest.len().min(len);
    let mask = if count >= 16 { !0 } else { (1 << count) - 1 };
    // SAFETY: lanes beyond the end of `rest` are masked, and masked lanes are not read.
    unsafe { _mm_maskz_loadu_epi8(mask, rest.as_ptr()) }
}

/// A product along `k`: each output is a dot product of two rows as they lie.
///
/// The caller has checked that the rows of `a` and `w` are inside their slices.
pub(super) struct Dots<'a> {
    pub(super) a: &'a [i8],
    pub(super) lda: usize,
    pub(super) w: &'a [i8],
    pub(super) k: usize,
    pub(super) bias: &'a [i32],
    pub(super) ldc: usize,
}

impl Dots<'_> {
    /// Computes `m` rows of `n` output channels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn run(&self, m: usize, n: usize, finish: &mut Finish<'_, VectorBounds>) {
        for first in (0..n).step_by(NR) {
            // The first rows find out what being unsigned adds to a channel's sums.
            let mut added = [0; NR];
            let mut i = match m {
                4.. => self.tile::<4, true>(0, first, n, &mut added, finish),
                2.. => self.tile::<2, true>(0, first, n, &mut added, finish),
                _ => self.tile::<1, true>(0, first, n, &mut added, finish),
            };
            while i < m {
                i += match m - i {
                    4.. => self.tile::<4, false>(i, first, n, &mut added, finish),
                    2.. => self.tile::<2, false>(i, first, n, &mut added, finish),
                    _ => self.tile::<1, false>(i, first, n, &mut added, finish),
                };
            }
        }
    }

    /// `R` rows from row `i` on, of the up to 16 output channels from `first` on; returns `R`. With `FIND`, `added` is
    /// written, else used.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn tile<const R: usize, const FIND: bool>(
        &self,
        i: usize,
        first: usize,
        n: usize,
        added: &mut [i32; NR],
        finish: &mut Finish<'_, VectorBounds>,
    ) -> usize {
        let width = NR.min(n - first);
        let mut sums = [[0; NR]; R];
        let mut rows: [&[i8]; R] = [&[]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            let Some(from) = self.a.get((i + r) * self.lda..).and_then(|rest| rest.get(..self.k)) else { return R };
            *row = from;
        }
        for group in (0..width).step_by(4) {
            let mut weights: [&[i8]; 4] = [&[]; 4];
            for (c, weights) in weights.iter_mut().enumerate() {
                // Channels beyond the last have the weights of the last, and nothing reads their sums.
                let channel = (first + group + c).min(n - 1);
                let Some(from) = self.w.get(channel * self.k..).and_then(|rest| rest.get(..self.k)) else { return R };
                *weights = from;
            }
            let (acc, found) = dots::<R, FIND>(rows, weights);
            if FIND && let Some(to) = added.get_mut(group..group + 4) {
                to.copy_from_slice(&found);
            }
            for (sums, acc) in sums.iter_mut().zip(acc) {
                if let Some(to) = sums.get_mut(group..group + 4) {
                    to.copy_from_slice(&acc);
                }
            }
        }
        let bias = _mm512_sub_epi32(integers_at(self.bias, first), integers_at(added, 0));
        let scale = scales_of(finish, first);
        for (r, sums) in sums.iter().enumerate() {
            let acc = _mm512_add_epi32(bias, integers_at(sums, 0));
            store_row((i + r) * self.ldc + first, width, acc, scale, finish);
        }
        R
    }
}

/// The dot products of `R` rows, made unsigned, with four, all equally long; with `FIND`, also what that adds to each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dots<const R: usize, const FIND: bool>(rows: [&[i8]; R], weights: [&[i8]; 4]) -> ([[i32; 4]; R], [i32; 4]) {
    let len = weights[0].len();
    let mut acc = [[_mm512_setzero_si512(); 4]; R];
    let mut sums = [_mm512_setzero_si512(); 4];
    let equal = rows.iter().chain(&weights).all(|row| row.len() == len);
    debug_assert!(equal);
    if !equal {
        return ([[0; 4]; R], [0; 4]);
    }
    let (sign, ones) = (_mm512_set1_epi8(i8::MIN), _mm512_set1_epi8(1));
    for at in (0..len).step_by(64) {
        let left = len - at;
        let mask = if left >= 64 { !0 } else { (1 << left) - 1 };
        let mut x = [sign; R];
        for (x, row) in x.iter_mut().zip(rows) {
            // SAFETY: every row is `len` long and `at` is below that; lanes beyond the end are masked, and masked lanes are
            // not read.
            *x = _mm512_xor_si512(unsafe { _mm512_maskz_loadu_epi8(mask, row.as_ptr().add(at)) }, sign);
        }
        for (c, row) in weights.into_iter().enumerate() {
            // SAFETY: as above. Masked weights are zero, so that it does not matter what `x` has there.
            let w = unsafe { _mm512_maskz_loadu_epi8(mask, row.as_ptr().add(at)) };
            if FIND {
                sums[c] = _mm512_dpbusd_epi32(sums[c], ones, w);
            }
            for (acc, x) in acc.iter_mut().zip(x) {
                acc[c] = _mm512_dpbusd_epi32(acc[c], x, w);
            }
        }
    }
    let mut results = [[0; 4]; R];
    for (result, acc) in results.iter_mut().zip(acc) {
        // SAFETY: the array is as large as the vector.
        unsafe { _mm_storeu_si128(result.as_mut_ptr().cast(), add_across(acc)) }
    }
    let mut added = [0; 4];
    if FIND {
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(added.as_mut_ptr().cast(), _mm_slli_epi32::<7>(add_across(sums))) }
    }
    (results, added)
}

/// The sum of each vector's lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_across([a, b, c, d]: [__m512i; 4]) -> __m128i {
    let low = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let high = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    // Each quarter has a part of the four sums.
    let quarters = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    let halves = _mm256_add_epi32(_mm512_castsi512_si256(quarters), _mm512_extracti64x4_epi64::<1>(quarters));
    _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}
