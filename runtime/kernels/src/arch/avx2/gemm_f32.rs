//! The f32 matrix product, in the order of additions of the reference.
//!
//! Weights are packed in panels of 16 output channels, which hold the channels'
//! weights for one `k` after the other; the last panel is padded with zeros.

use core::arch::x86_64::*;

use super::NR;
use super::epilogue::*;
use super::lanes::*;
use crate::gemm::operands_fit_f32;

/// Rows of the register tile.
const MR: usize = 6;

/// The weights of a panel for one `k`, as bytes of f32.
type Step = [[u8; 32]; 2];

/// Bytes of `[n][k]` weights in panels; more than any slice has if it overflows.
pub(super) fn packed_len(n: usize, k: usize) -> usize {
    n.div_ceil(NR).saturating_mul(k).saturating_mul(size_of::<Step>())
}

/// Packs canonical weights into panels.
pub(super) fn pack(w: &[f32], n: usize, k: usize, packed: &mut [u8]) {
    let fits = n.checked_mul(k).is_some_and(|need| need <= w.len()) && packed.len() >= packed_len(n, k);
    debug_assert!(fits, "pack: a slice is too short for [{n}, {k}]");
    if !fits || n == 0 || k == 0 {
        return;
    }
    let (steps, _) = packed.as_chunks_mut::<{ size_of::<Step>() }>();
    for (panel, steps) in steps.chunks_exact_mut(k).take(n.div_ceil(NR)).enumerate() {
        for (p, step) in steps.iter_mut().enumerate() {
            let (lanes, _) = step.as_chunks_mut::<4>();
            for (lane, bytes) in lanes.iter_mut().enumerate() {
                let channel = panel * NR + lane;
                let weight = if channel < n { w.get(channel * k + p) } else { None };
                *bytes = weight.copied().unwrap_or(0.0).to_ne_bytes();
            }
        }
    }
}

/// [`Backend::gemm_f32`](crate::Backend::gemm_f32) with packed weights.
///
/// The caller has checked that `packed` holds `packed_len` bytes; whatever of it
/// is missing is left out of the result, not read.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm_f32`")]
#[target_feature(enable = "avx2")]
pub(super) fn gemm(
    a: &[f32],
    lda: usize,
    m: usize,
    packed: &[u8],
    n: usize,
    k: usize,
    bias: &[f32],
    out: &mut [f32],
    ldc: usize,
) {
    if m == 0 || n == 0 || !operands_fit_f32((a, lda), [m, n, k], bias, (out, ldc)) {
        return;
    }
    let steps: &[Step] = packed.as_chunks().0.as_chunks().0;
    for panel in 0..n.div_ceil(NR) {
        let Some(steps) = steps.get(panel * k..(panel + 1) * k) else {
            return;
        };
        let first = panel * NR;
        let panel = Panel { a, lda, steps, bias: floats_at(bias, first), first, width: NR.min(n - first), ldc };
        let mut i = 0;
        while i < m {
            match m - i {
                1 => panel.tile::<1>(i, out),
                2 => panel.tile::<2>(i, out),
                3 => panel.tile::<3>(i, out),
                4 => panel.tile::<4>(i, out),
                5 => panel.tile::<5>(i, out),
                _ => panel.tile::<MR>(i, out),
            }
            i += MR;
        }
    }
}

/// A panel of weights, and what it is applied to.
struct Panel<'a> {
    a: &'a [f32],
    lda: usize,
    /// The panel, as long as `k`.
    steps: &'a [Step],
    bias: Pair<__m256>,
    /// The panel's first output channel, and how many it has.
    first: usize,
    width: usize,
    ldc: usize,
}

impl Panel<'_> {
    /// Computes and stores `R` rows from row `i`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tile<const R: usize>(&self, i: usize, out: &mut [f32]) {
        let start = i * self.lda;
        let end = start + (R - 1) * self.lda + self.steps.len();
        let Some(a) = self.a.get(start..end) else {
            return;
        };
        let mut acc = [self.bias; R];
        for (p, [w0, w1]) in self.steps.iter().enumerate() {
            let w0 = _mm256_castsi256_ps(load_u8x32(w0));
            let w1 = _mm256_castsi256_ps(load_u8x32(w1));
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: p < steps.len() and r < R, so this is below the length
                // of `a`, (R - 1) * lda + steps.len().
                let x = _mm256_set1_ps(unsafe { *a.get_unchecked(r * self.lda + p) });
                acc[0] = _mm256_add_ps(acc[0], _mm256_mul_ps(x, w0));
                acc[1] = _mm256_add_ps(acc[1], _mm256_mul_ps(x, w1));
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            let at = (i + r) * self.ldc + self.first;
            if let Some(out) = out.get_mut(at..at + self.width) {
                put_f32(out, acc);
            }
        }
    }
}
