//! Weights in the canonical layout: panels packed on the stack just before they are used, and products along `k` without
//! any packing.
//!
//! Packing a panel costs about as much as multiplying it with six rows, so it pays when more rows follow. For fewer rows, and
//! for panels that the stack has no room for, [`Dots`] multiplies rows of activations with rows of weights as they lie.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::NR;
use super::epilogue::*;
use super::gemm::{Step, store_row};
use super::lanes::*;
use crate::gemm::Finish;

/// Steps of a panel that fit the stack: 32 KiB.
pub(super) const ROOM: usize = 512;

/// Whether packing panels of `k` pays for `m` rows: a long one leaves the first-level cache while it is packed, which only many
/// rows make up for.
pub(super) fn pays(m: usize, k: usize) -> bool {
    let least = if k <= 256 { 12 } else { 48 };
    m >= least && k.div_ceil(2) <= ROOM
}

/// Steps that are written before they are read.
pub(super) type Room<T, const N: usize> = [MaybeUninit<T>; N];

/// Packs one panel, `w[channels][k]` with at most 16 channels, into the first `k.div_ceil(2)` steps of `room` and returns them;
/// `None` if there are not so many.
#[target_feature(enable = "avx2")]
pub(super) fn pack<'r>(w: &[i8], k: usize, room: &'r mut [MaybeUninit<Step>]) -> Option<&'r [Step]> {
    let steps = room.get_mut(..k.div_ceil(2))?;
    for half in 0..2 {
        for (chunk, steps) in steps.chunks_mut(8).enumerate() {
            let start = half * 8 * k + chunk * 16;
            let left = k - chunk * 16;
            let whole = left >= 16 && start + 7 * k + 16 <= w.len();
            let mut rows = [_mm_setzero_si128(); 8];
            for (channel, row) in rows.iter_mut().enumerate() {
                *row = if whole {
                    // SAFETY: sixteen bytes of the last of the eight channels are inside `w`, and this is not after it.
                    unsafe { _mm_loadu_si128(w.as_ptr().add(start + channel * k).cast()) }
                } else {
                    up_to_16(w, start + channel * k, left)
                };
            }
            for (step, pair) in steps.iter_mut().zip(transpose(rows)) {
                let words = _mm256_cvtepi8_epi16(pair);
                // SAFETY: a step is two vectors long, `half` is 0 or 1, and the store needs no alignment.
                unsafe { _mm256_storeu_si256(step.as_mut_ptr().cast::<__m256i>().add(half), words) }
            }
        }
    }
    // SAFETY: both halves of all steps were written.
    Some(unsafe { steps.as_init() })
}

/// Packs as many panels as `w[channels][k]` has, one after the other; `None` if there is too little room.
#[target_feature(enable = "avx2")]
pub(super) fn pack_all<'r>(w: &[i8], k: usize, room: &'r mut [MaybeUninit<Step>]) -> Option<&'r [Step]> {
    let pairs = k.div_ceil(2);
    let steps = room.get_mut(..w.len().div_ceil((NR * k).max(1)) * pairs)?;
    for (w, steps) in w.chunks((NR * k).max(1)).zip(steps.chunks_exact_mut(pairs.max(1))) {
        pack(w, k, steps)?;
    }
    // SAFETY: there are as many chunks of steps as of weights, and `pack` has written all steps of each.
    Some(unsafe { steps.as_init() })
}

/// `[MaybeUninit<T>]::assume_init_ref`, which Rust 1.89 does not have.
pub(super) trait AssumeInit<T> {
    /// # Safety
    ///
    /// All elements must be initialized.
    unsafe fn as_init(&self) -> &[T];
}

impl<T> AssumeInit<T> for [MaybeUninit<T>] {
    unsafe fn as_init(&self) -> &[T] {
        // SAFETY: `MaybeUninit<T>` has the layout of `T`, and all elements are initialized.
        unsafe { core::slice::from_raw_parts(self.as_ptr().cast(), self.len()) }
    }
}

/// The first `len` of sixteen elements from `at` on, zeros after them and beyond the end of `w`.
#[inline]
#[target_feature(enable = "avx2")]
fn up_to_16(w: &[i8], at: usize, len: usize) -> __m128i {
    static MASK: [i8; 32] = [
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let rest = w.get(at..).unwrap_or_default();
    match (rest.first_chunk(), MASK.get(16 - len.min(16)..).and_then(|mask| mask.first_chunk())) {
        (Some(all), _) if len >= 16 => load_i8x16(all),
        (Some(all), Some(mask)) => _mm_and_si128(load_i8x16(all), load_i8x16(mask)),
        _ => {
            let mut some = [0; 16];
            some.iter_mut().zip(rest).take(len).for_each(|(to, from)| *to = *from);
            load_i8x16(&some)
        }
    }
}

/// Transposes eight rows of eight 16-bit words.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(mut rows: [__m128i; 8]) -> [__m128i; 8] {
    // Each round moves the upper bit of a row's number to the lower bit of the column's.
    for _ in 0..3 {
        let [a, b, c, d, e, f, g, h] = rows;
        rows = [
            _mm_unpacklo_epi16(a, e),
            _mm_unpackhi_epi16(a, e),
            _mm_unpacklo_epi16(b, f),
            _mm_unpackhi_epi16(b, f),
            _mm_unpacklo_epi16(c, g),
            _mm_unpackhi_epi16(c, g),
            _mm_unpacklo_epi16(d, h),
            _mm_unpackhi_epi16(d, h),
        ];
    }
    rows
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
    #[target_feature(enable = "avx2")]
    pub(super) fn run(&self, m: usize, n: usize, finish: &mut Finish<'_, VectorBounds>) {
        for first in (0..n).step_by(NR) {
            let mut i = 0;
            while i < m {
                if m - i == 1 {
                    self.tile::<1>(i, first, n, finish);
                } else {
                    self.tile::<2>(i, first, n, finish);
                }
                i += 2;
            }
        }
    }

    /// `R` rows from row `i` on, of the up to 16 output channels from `first` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tile<const R: usize>(&self, i: usize, first: usize, n: usize, finish: &mut Finish<'_, VectorBounds>) {
        let width = NR.min(n - first);
        let mut sums = [[[0; 8]; 2]; R];
        let mut rows: [&[i8]; R] = [&[]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            let Some(from) = self.a.get((i + r) * self.lda..).and_then(|rest| rest.get(..self.k)) else { return };
            *row = from;
        }
        for group in (0..width).step_by(4) {
            let mut weights: [&[i8]; 4] = [&[]; 4];
            for (c, weights) in weights.iter_mut().enumerate() {
                // Channels beyond the last have the weights of the last, and nothing reads their sums.
                let channel = (first + group + c).min(n - 1);
                let Some(from) = self.w.get(channel * self.k..).and_then(|rest| rest.get(..self.k)) else { return };
                *weights = from;
            }
            let acc = dots(rows, weights);
            for (sums, acc) in sums.iter_mut().zip(acc) {
                if let Some(to) = sums.as_flattened_mut().get_mut(group..group + 4) {
                    to.copy_from_slice(&acc);
                }
            }
        }
        let [bias0, bias1] = bias_at(self.bias, first);
        for (r, [low, high]) in sums.iter().enumerate() {
            let acc = [_mm256_add_epi32(bias0, load_i32x8(low)), _mm256_add_epi32(bias1, load_i32x8(high))];
            store_row((i + r) * self.ldc + first, first, width, acc, finish);
        }
    }
}

/// The dot products of `R` rows with four, all equally long.
#[inline]
#[target_feature(enable = "avx2")]
fn dots<const R: usize>(rows: [&[i8]; R], weights: [&[i8]; 4]) -> [[i32; 4]; R] {
    let len = weights[0].len();
    let mut acc = [[_mm256_setzero_si256(); 4]; R];
    let equal = rows.iter().chain(&weights).all(|row| row.len() == len);
    debug_assert!(equal);
    if equal {
        let whole = len - len % 16;
        for at in (0..whole).step_by(16) {
            // SAFETY: every row is `len` long, and at + 16 <= whole <= len.
            let load = |row: &[i8]| unsafe { _mm_loadu_si128(row.as_ptr().add(at).cast()) };
            add(&mut acc, rows.map(load), weights.map(load));
        }
        if whole < len {
            let mut x = [_mm_setzero_si128(); R];
            let mut w = [_mm_setzero_si128(); 4];
            for (to, row) in x.iter_mut().zip(rows).chain(w.iter_mut().zip(weights)) {
                *to = up_to_16(row, whole, len - whole);
            }
            add(&mut acc, x, w);
        }
    }
    let mut sums = [[0; 4]; R];
    for (sums, [a, b, c, d]) in sums.iter_mut().zip(acc) {
        let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let all = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
        // SAFETY: the array is as large as the vector.
        unsafe { _mm_storeu_si128(sums.as_mut_ptr().cast(), all) }
    }
    sums
}

/// Adds the products of sixteen of `k`.
#[inline]
#[target_feature(enable = "avx2")]
fn add<const R: usize>(acc: &mut [[__m256i; 4]; R], x: [__m128i; R], w: [__m128i; 4]) {
    let mut wide = [_mm256_setzero_si256(); R];
    for (wide, x) in wide.iter_mut().zip(x) {
        *wide = _mm256_cvtepi8_epi16(x);
    }
    for (c, w) in w.into_iter().enumerate() {
        let w = _mm256_cvtepi8_epi16(w);
        for (acc, x) in acc.iter_mut().zip(wide) {
            acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(x, w));
        }
    }
}
