//! Chains of fused multiply-adds: a matrix product with weights as they are, a row for each step.

use core::arch::x86_64::*;

use crate::scalar::gemm::chains_fit;

/// Elements of a vector.
const LANES: usize = 8;
/// Rows of a tile of two vectors.
const MR: usize = 6;
/// Rows of a tile of one vector.
const TALL: usize = 12;

/// [`Backend::chains_f32`](crate::Backend::chains_f32).
#[target_feature(enable = "avx2,fma")]
pub(super) fn chains(a: &[f32], lda: usize, m: usize, w: &[f32], n: usize, k: usize, out: &mut [f32]) {
    if m == 0 || n == 0 || !chains_fit((a, lda), [m, n, k], w, out) {
        return;
    }
    let operands = Operands { a, lda, w, n, k };
    let mut first = 0;
    while first < n {
        let left = n - first;
        let mut i = 0;
        if left > LANES {
            let masks = [mask(LANES), mask(left - LANES)];
            while i + MR <= m {
                operands.tile::<MR, 2>(i, first, masks, out);
                i += MR;
            }
            while i < m {
                operands.tile::<1, 2>(i, first, masks, out);
                i += 1;
            }
        } else {
            let masks = [mask(left)];
            while i + TALL <= m {
                operands.tile::<TALL, 1>(i, first, masks, out);
                i += TALL;
            }
            while i < m {
                operands.tile::<1, 1>(i, first, masks, out);
                i += 1;
            }
        }
        first += 2 * LANES;
    }
}

/// The first `count` lanes, at most all.
#[inline]
#[target_feature(enable = "avx2")]
fn mask(count: usize) -> __m256i {
    let count = _mm256_set1_epi32(count.min(LANES) as i32);
    _mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

struct Operands<'a> {
    a: &'a [f32],
    lda: usize,
    w: &'a [f32],
    n: usize,
    k: usize,
}

impl Operands<'_> {
    /// `R` rows from row `i`, `V` vectors from column `first`, of which `masks` says what is within `n`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn tile<const R: usize, const V: usize>(&self, i: usize, first: usize, masks: [__m256i; V], out: &mut [f32]) {
        let &Self { a, lda, w, n, k } = self;
        let mut acc = [[_mm256_setzero_ps(); V]; R];
        for p in 0..k {
            let at = p * n + first;
            let mut weights = [_mm256_setzero_ps(); V];
            for (v, (to, mask)) in weights.iter_mut().zip(masks).enumerate() {
                // SAFETY: `chains_fit` saw row `p < k` of `w`; the mask leaves out what is beyond its `n`.
                *to = unsafe { _mm256_maskload_ps(w.as_ptr().add(at + v * LANES), mask) };
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: `chains_fit` saw `k` elements of row `i + r < m`.
                let x = _mm256_set1_ps(unsafe { *a.get_unchecked((i + r) * lda + p) });
                for (acc, weights) in acc.iter_mut().zip(weights) {
                    *acc = _mm256_fmadd_ps(x, weights, *acc);
                }
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            for (v, (acc, mask)) in acc.into_iter().zip(masks).enumerate() {
                // SAFETY: `chains_fit` saw row `i + r < m` of `out`; the mask leaves out what is beyond its `n`.
                unsafe { _mm256_maskstore_ps(out.as_mut_ptr().add((i + r) * n + first + v * LANES), mask, acc) };
            }
        }
    }
}
