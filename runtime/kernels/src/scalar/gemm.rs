//! Matrix products over canonical weights.

use crate::GemmOut;
use crate::gemm::{operands_fit, operands_fit_f32, rows_fit};
use crate::requant::{Bounds, scale_at};

#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
pub(crate) fn gemm(
    a: &[i8],
    lda: usize,
    m: usize,
    w: &[i8],
    n: usize,
    k: usize,
    bias: &[i32],
    mut out: GemmOut<'_>,
    ldc: usize,
) {
    if m == 0 || n == 0 || !operands_fit((a, lda), [m, n, k], bias, (&out, ldc)) {
        return;
    }
    let w_fits = rows_fit(w.len(), n, k, k);
    debug_assert!(w_fits, "gemm: the weights are too short for [{n}, {k}]");
    if !w_fits {
        return;
    }
    let bounds = match &out {
        GemmOut::I8(_, requant) => Bounds::new(requant.zero_point, requant.lo, requant.hi),
        _ => Bounds::new(0, 0, 0),
    };
    for i in 0..m {
        let (at, row) = (i * ldc, a.get(i * lda..).and_then(|rest| rest.get(..k)));
        let Some(row) = row else { return };
        for j in 0..n {
            let Some(w) = w.get(j * k..).and_then(|rest| rest.get(..k)) else { return };
            let acc = bias.get(j).copied().unwrap_or(0).wrapping_add(dot(row, w));
            match &mut out {
                GemmOut::I8(y, requant) => {
                    let Some(y) = y.get_mut(at + j) else { return };
                    *y = bounds.quantize(acc as f32 * scale_at(requant.scale, j));
                }
                other => other.put(at + j, j, acc),
            }
        }
    }
}

/// The wrapping dot product of two rows.
#[inline]
fn dot(a: &[i8], w: &[i8]) -> i32 {
    a.iter().zip(w).fold(0, |acc: i32, (&a, &w)| acc.wrapping_add(i32::from(i16::from(a) * i16::from(w))))
}

#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm_f32`")]
pub(crate) fn gemm_f32(
    a: &[f32],
    lda: usize,
    m: usize,
    w: &[f32],
    n: usize,
    k: usize,
    bias: &[f32],
    out: &mut [f32],
    ldc: usize,
) {
    if m == 0 || n == 0 || !operands_fit_f32((a, lda), [m, n, k], bias, (out, ldc)) {
        return;
    }
    let w_fits = rows_fit(w.len(), n, k, k);
    debug_assert!(w_fits, "gemm_f32: the weights are too short for [{n}, {k}]");
    if !w_fits {
        return;
    }
    for i in 0..m {
        let row = a.get(i * lda..).and_then(|rest| rest.get(..k));
        let out = out.get_mut(i * ldc..).and_then(|rest| rest.get_mut(..n));
        let (Some(row), Some(out)) = (row, out) else {
            return;
        };
        for (j, out) in out.iter_mut().enumerate() {
            let Some(w) = w.get(j * k..).and_then(|rest| rest.get(..k)) else {
                return;
            };
            let bias = bias.get(j).copied().unwrap_or(0.0);
            *out = row.iter().zip(w).fold(bias, |acc, (&a, &w)| acc + a * w);
        }
    }
}

/// Whether the operands of `chains_f32` are long enough.
pub(crate) fn chains_fit(a: (&[f32], usize), [m, n, k]: [usize; 3], w: &[f32], out: &[f32]) -> bool {
    let fits = rows_fit(a.0.len(), m, a.1, k) && rows_fit(w.len(), k, n, n) && rows_fit(out.len(), m, n, n);
    debug_assert!(fits, "chains_f32: a slice is too short for [{m}, {n}, {k}]");
    fits
}

pub(crate) fn chains_f32(a: &[f32], lda: usize, m: usize, w: &[f32], n: usize, k: usize, out: &mut [f32]) {
    if m == 0 || n == 0 || !chains_fit((a, lda), [m, n, k], w, out) {
        return;
    }
    for (i, out) in out.chunks_exact_mut(n).take(m).enumerate() {
        out.fill(0.0);
        let row = a.get(i * lda..).unwrap_or(&[]).iter().take(k);
        for (&a, w) in row.zip(w.chunks_exact(n)) {
            out.iter_mut().zip(w).for_each(|(out, &w)| *out = crate::requant::fma(a, w, *out));
        }
    }
}
