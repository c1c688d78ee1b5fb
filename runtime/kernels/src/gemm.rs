//! The operands of the matrix products, and the checks on their sizes.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::requant::Bounds;
use crate::requant::{Requant, scale_at, scale_fits};

/// The weights of an integer kernel, in the layout models store and, if the
/// backend asked for it, in the layout the backend wants.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// `[n][k]`: output channel major, contiguous. May be empty if `packed` is
    /// given and the backend reads it.
    pub canonical: &'a [i8],
    /// What the same backend's pack method wrote, or empty.
    pub packed: &'a [u8],
}

/// The weights of [`Backend::gemm_f32`](crate::Backend::gemm_f32).
#[derive(Clone, Copy, Debug)]
pub struct WeightsF32<'a> {
    /// `[n][k]`: output channel major, contiguous. May be empty if `packed` is
    /// given and the backend reads it.
    pub canonical: &'a [f32],
    /// What the same backend's pack method wrote, or empty.
    pub packed: &'a [u8],
}

/// Where [`Backend::gemm`](crate::Backend::gemm) puts its accumulators, `[m][n]`
/// with the call's leading dimension, and what becomes of them on the way.
#[derive(Debug)]
pub enum GemmOut<'a> {
    /// Requantised to i8.
    I8(&'a mut [i8], Requant<'a>),
    /// As they are.
    I32(&'a mut [i32]),
    /// `acc as f32 * scale`; one scale for all output channels, or one for each.
    F32(&'a mut [f32], &'a [f32]),
}

impl GemmOut<'_> {
    /// The same from element `at` on.
    pub(crate) fn part(&mut self, at: usize) -> Option<GemmOut<'_>> {
        Some(match self {
            GemmOut::I8(y, requant) => GemmOut::I8(y.get_mut(at..)?, *requant),
            GemmOut::I32(y) => GemmOut::I32(y.get_mut(at..)?),
            GemmOut::F32(y, scale) => GemmOut::F32(y.get_mut(at..)?, scale),
        })
    }

    /// The accumulator of output channel `channel`, as it is to be, to element `at`.
    #[inline]
    pub(crate) fn put(&mut self, at: usize, channel: usize, acc: i32) {
        match self {
            GemmOut::I8(y, requant) => {
                if let Some(y) = y.get_mut(at) {
                    *y = requant.apply(acc, channel);
                }
            }
            GemmOut::I32(y) => {
                if let Some(y) = y.get_mut(at) {
                    *y = acc;
                }
            }
            GemmOut::F32(y, scale) => {
                if let Some(y) = y.get_mut(at) {
                    *y = acc as f32 * scale_at(scale, channel);
                }
            }
        }
    }

    fn fits(&self, m: usize, n: usize, ldc: usize) -> bool {
        let (len, scale) = match self {
            GemmOut::I8(y, requant) => (y.len(), requant.fits(n)),
            GemmOut::I32(y) => (y.len(), true),
            GemmOut::F32(y, scale) => (y.len(), scale_fits(scale, n)),
        };
        scale && (m < 2 || ldc >= n) && rows_fit(len, m, ldc, n)
    }
}

/// What becomes of a tile of accumulators; `B` is [`Bounds`] as a backend has them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) enum Finish<'a, B> {
    I8(&'a mut [i8], B, &'a [f32]),
    I32(&'a mut [i32]),
    F32(&'a mut [f32], &'a [f32]),
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<'a, B> Finish<'a, B> {
    #[inline]
    pub(crate) fn new(out: GemmOut<'a>, bounds: impl FnOnce(Bounds) -> B) -> Self {
        match out {
            GemmOut::I8(y, requant) => {
                Self::I8(y, bounds(Bounds::new(requant.zero_point, requant.lo, requant.hi)), requant.scale)
            }
            GemmOut::I32(y) => Self::I32(y),
            GemmOut::F32(y, scale) => Self::F32(y, scale),
        }
    }
}

/// Rows of `m` to prepare at a time: what the scratch holds, where a row takes `len` of it, in whole tiles.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) fn block_rows(scratch: usize, m: usize, len: usize, tile: usize) -> usize {
    let rows = scratch.checked_div(len).unwrap_or(m).min(m);
    let whole = if rows < m { rows - rows % tile } else { rows };
    if whole == 0 { rows.max(1) } else { whole }
}

/// Whether `rows` rows of `width`, one every `stride`, lie within `len`.
#[inline]
pub(crate) fn rows_fit(len: usize, rows: usize, stride: usize, width: usize) -> bool {
    let Some(last) = rows.checked_sub(1) else {
        return true;
    };
    last.checked_mul(stride).and_then(|start| start.checked_add(width)).is_some_and(|end| end <= len)
}

/// Whether every operand of an integer product but the weights is long enough.
pub(crate) fn operands_fit(a: (&[i8], usize), [m, n, k]: [usize; 3], bias: &[i32], out: (&GemmOut<'_>, usize)) -> bool {
    let fits = rows_fit(a.0.len(), m, a.1, k) && (bias.is_empty() || bias.len() >= n) && out.0.fits(m, n, out.1);
    debug_assert!(fits, "gemm: a slice is too short for [{m}, {n}, {k}]");
    fits
}

/// Whether every operand of an f32 product but the weights is long enough.
pub(crate) fn operands_fit_f32(a: (&[f32], usize), [m, n, k]: [usize; 3], bias: &[f32], out: (&[f32], usize)) -> bool {
    let fits = rows_fit(a.0.len(), m, a.1, k)
        && (bias.is_empty() || bias.len() >= n)
        && (m < 2 || out.1 >= n)
        && rows_fit(out.0.len(), m, out.1, n);
    debug_assert!(fits, "gemm_f32: a slice is too short for [{m}, {n}, {k}]");
    fits
}
