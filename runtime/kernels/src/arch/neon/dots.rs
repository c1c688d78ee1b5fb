//! The int8 matrix product along `k`: each output is a dot product of a row of activations with a row of weights in the
//! canonical layout. Nothing is packed.

use core::arch::aarch64::*;

use super::NR;
use super::epilogue::*;
use super::gemm::{Kernel, store_row};
use crate::gemm::Finish;

/// Rows of the register tile.
const MR: usize = 4;

/// Elements of a vector.
const LANES: usize = 16;

/// A product along `k`. The caller has checked that the rows of `a` and `w` are inside their slices.
pub(super) struct Dots<'a> {
    pub(super) a: &'a [i8],
    pub(super) lda: usize,
    pub(super) w: &'a [i8],
    pub(super) k: usize,
    pub(super) bias: &'a [i32],
    pub(super) ldc: usize,
}

/// The weights of sixteen output channels.
struct Panel<'a> {
    /// Those of each channel, in whole vectors; channels beyond the last have the weights of the last.
    rows: [&'a [[i8; LANES]]; NR],
    /// What is left of each, with zeros after it.
    tails: [[i8; LANES]; NR],
    first: usize,
    width: usize,
}

impl Dots<'_> {
    /// Computes `m` rows of `n` output channels.
    ///
    /// # Safety
    ///
    /// The CPU must have the kernel's instructions.
    pub(super) unsafe fn run<K: Kernel>(&self, m: usize, n: usize, finish: &mut Finish<'_, VectorBounds>) {
        for first in (0..n).step_by(NR) {
            let mut panel = Panel { rows: [&[]; NR], tails: [[0; LANES]; NR], first, width: NR.min(n - first) };
            for (channel, (row, tail)) in (first..).zip(panel.rows.iter_mut().zip(&mut panel.tails)) {
                let channel = channel.min(n - 1);
                let Some(weights) = self.w.get(channel * self.k..).and_then(|rest| rest.get(..self.k)) else { return };
                let (whole, rest) = weights.as_chunks();
                *row = whole;
                tail.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            }
            let mut i = 0;
            while i < m {
                // SAFETY: the same contract.
                i += unsafe {
                    match m - i {
                        MR.. => self.tile::<K, MR>(&panel, i, finish),
                        2.. => self.tile::<K, 2>(&panel, i, finish),
                        _ => self.tile::<K, 1>(&panel, i, finish),
                    }
                };
            }
        }
    }

    /// Computes and stores `R` rows from row `i` on of a panel; returns `R`.
    ///
    /// # Safety
    ///
    /// The CPU must have the kernel's instructions.
    #[inline]
    unsafe fn tile<K: Kernel, const R: usize>(
        &self,
        panel: &Panel<'_>,
        i: usize,
        finish: &mut Finish<'_, VectorBounds>,
    ) -> usize {
        let mut rows: [&[[i8; LANES]]; R] = [&[]; R];
        let mut tails = [[0; LANES]; R];
        for (r, (row, tail)) in rows.iter_mut().zip(&mut tails).enumerate() {
            let Some(from) = self.a.get((i + r) * self.lda..) else { return R };
            let Some(own) = from.get(..self.k) else { return R };
            let (whole, rest) = own.as_chunks();
            *row = whole;
            // What follows a row is multiplied with zeros.
            match from.get(whole.len() * LANES..).and_then(|from| from.first_chunk()) {
                Some(all) => *tail = *all,
                None => tail.iter_mut().zip(rest).for_each(|(to, from)| *to = *from),
            }
        }
        // SAFETY: NEON belongs to the target.
        let mut sums = [[unsafe { vdupq_n_s32(0) }; 4]; R];
        for group in 0..panel.width.div_ceil(4) {
            let at = group * 4;
            let (Some(weights), Some(ends)) = (
                panel.rows.get(at..).and_then(|rows| rows.first_chunk::<4>()),
                panel.tails.get(at..).and_then(|tails| tails.first_chunk::<4>()),
            ) else {
                return R;
            };
            // SAFETY: the same contract.
            let acc = unsafe { dots::<K, R>(rows, &tails, weights, ends, !self.k.is_multiple_of(LANES)) };
            for (sums, acc) in sums.iter_mut().zip(acc) {
                if let Some(to) = sums.get_mut(group) {
                    *to = acc;
                }
            }
        }
        let bias = bias_at(self.bias, panel.first);
        for (r, mut acc) in sums.into_iter().enumerate() {
            for (acc, bias) in acc.iter_mut().zip(bias) {
                // SAFETY: NEON belongs to the target.
                *acc = unsafe { vaddq_s32(*acc, bias) };
            }
            store_row((i + r) * self.ldc + panel.first, panel.first, panel.width, acc, finish);
        }
        R
    }
}

/// The dot products of `R` rows with four, whose ends count if `tail`.
///
/// # Safety
///
/// The CPU must have the kernel's instructions.
#[inline(always)]
unsafe fn dots<K: Kernel, const R: usize>(
    rows: [&[[i8; LANES]]; R],
    row_ends: &[[i8; LANES]; R],
    weights: &[&[[i8; LANES]]; 4],
    weight_ends: &[[i8; LANES]; 4],
    tail: bool,
) -> [int32x4_t; R] {
    // SAFETY: NEON belongs to the target.
    let zero = unsafe { vdupq_n_s32(0) };
    let mut acc = [[zero; 4]; R];
    let len = weights[0].len();
    let equal = rows.iter().chain(weights).all(|row| row.len() == len);
    debug_assert!(equal);
    if !equal {
        return [zero; R];
    }
    let mut add = |x: [int8x16_t; R], w: [int8x16_t; 4]| {
        for (acc, x) in acc.iter_mut().zip(x) {
            for (acc, w) in acc.iter_mut().zip(w) {
                // SAFETY: the contract.
                *acc = unsafe { K::multiply_add(*acc, x, w) };
            }
        }
    };
    for p in 0..len {
        // SAFETY: all are `len` long; the arrays are as large as the vectors.
        unsafe {
            add(
                rows.map(|row| vld1q_s8(row.get_unchecked(p).as_ptr())),
                weights.map(|row| vld1q_s8(row.get_unchecked(p).as_ptr())),
            );
        }
    }
    if tail {
        // SAFETY: the arrays are as large as the vectors.
        unsafe { add(row_ends.map(|end| vld1q_s8(end.as_ptr())), weight_ends.map(|end| vld1q_s8(end.as_ptr()))) }
    }
    let mut sums = [zero; R];
    for (sum, [a, b, c, d]) in sums.iter_mut().zip(acc) {
        // SAFETY: NEON belongs to the target.
        *sum = unsafe { vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)) };
    }
    sums
}
