//! Gathers what a convolution's window sees into rows of a matrix ("im2col").

use crate::gemm::operands_fit;
use crate::{Backend, GemmOut, Weights};

/// Bytes of gathered rows to aim for: within a first-level cache, beside the weights.
const BLOCK_BYTES: usize = 16 * 1024;

/// The geometry of a convolution of one group of channels, without its weights. Sizes and pads count pixels.
///
/// The input is `[batch][in_h][in_w][channels]`. A place of the output sees a row of elements: taps from top left to bottom
/// right, and of each the channels of the group. The places are `[batch][out_h][out_w]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Images.
    pub batch: usize,
    /// Rows of the input.
    pub in_h: usize,
    /// Columns of the input.
    pub in_w: usize,
    /// Channels of the input, all groups.
    pub channels: usize,
    /// The first channel of the group.
    pub first: usize,
    /// Channels of the group.
    pub taken: usize,
    /// Rows of the output.
    pub out_h: usize,
    /// Columns of the output.
    pub out_w: usize,
    /// Taps down and across.
    pub kernel: [usize; 2],
    /// Input pixels from one output pixel to the next, down and across.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next, down and across.
    pub dilation: [usize; 2],
    /// Pixels of padding at the top and at the left. What the window reaches at the bottom and right follows from the other
    /// sizes.
    pub pad: [usize; 2],
}

impl Windows {
    /// Rows of the matrix: places of the output.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batch.saturating_mul(self.out_h).saturating_mul(self.out_w)
    }

    /// Elements of a row.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.kernel[0].saturating_mul(self.kernel[1]).saturating_mul(self.taken)
    }

    /// Rows to gather at a time, of elements of `size` bytes.
    #[must_use]
    pub fn block_rows(&self, size: usize) -> usize {
        (BLOCK_BYTES / self.row_len().saturating_mul(size).max(1)).clamp(1, self.rows().max(1))
    }

    /// Whether an input of `len` elements holds the shape and no coordinate overflows.
    #[must_use]
    pub fn fits(&self, len: usize) -> bool {
        const MOST: usize = isize::MAX as usize;
        let product = |factors: &[usize]| factors.iter().try_fold(1usize, |all, factor| all.checked_mul(*factor));
        let reaches = |output: usize, axis: usize| {
            let last = output.saturating_sub(1).checked_mul(self.stride[axis])?;
            let tap = self.kernel[axis].saturating_sub(1).checked_mul(self.dilation[axis])?;
            last.checked_add(tap).filter(|end| *end <= MOST && self.pad[axis] <= MOST)
        };
        let fits = product(&[self.batch, self.in_h, self.in_w, self.channels]).is_some_and(|need| need <= len)
            && product(&[self.batch, self.out_h, self.out_w]).is_some()
            && product(&[self.kernel[0], self.kernel[1], self.taken]).is_some()
            && self.first.checked_add(self.taken).is_some_and(|end| end <= self.channels)
            && reaches(self.out_h, 0).is_some()
            && reaches(self.out_w, 1).is_some();
        debug_assert!(fits, "{self:?} over {len}");
        fits
    }

    /// Writes rows `row..row + count` into `to`, one after the other; what is outside the input is `border`.
    ///
    /// Writes no more rows than `to` has room for. The shape [`fits`](Self::fits) `x`.
    pub fn gather<T: Copy>(&self, x: &[T], border: T, row: usize, count: usize, to: &mut [T]) {
        let len = self.row_len().max(1);
        let (mut row, mut left, mut to) = (row, count.min(to.len() / len), to);
        // Line by line of the output: what a line has in common is found once.
        while left > 0 {
            let (line, first) = (row / self.out_w.max(1), row % self.out_w.max(1));
            let n = self.out_w.saturating_sub(first).clamp(1, left);
            let Some((now, later)) = to.split_at_mut_checked(n * len) else { return };
            self.gather_line(x, border, line, first, now);
            (row, left, to) = (row + n, left - n, later);
        }
    }

    /// Rows of one line of the output, from place `first` on.
    fn gather_line<T: Copy>(&self, x: &[T], border: T, line: usize, first: usize, to: &mut [T]) {
        let &Self { kernel: [kh, kw], taken, channels, .. } = self;
        let len = (kh * kw * taken).max(1);
        let (batch, oy) = (line / self.out_h.max(1), line % self.out_h.max(1));
        let whole = (self.dilation[1] == 1 || kw == 1) && taken == channels;
        for ky in 0..kh {
            let iy = (oy * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.pad[0]);
            let start = (batch * self.in_h + iy.min(self.in_h)) * self.in_w;
            let inside = iy < self.in_h;
            for (ox, to) in (first..).zip(to.chunks_exact_mut(len)) {
                let Some(to) = to.get_mut(ky * kw * taken..(ky + 1) * kw * taken) else { return };
                if !inside {
                    fill(to, border);
                    continue;
                }
                let ix = (ox * self.stride[1]).wrapping_sub(self.pad[1]);
                if whole && ix < self.in_w && self.in_w - ix >= kw {
                    // The taps of a line are one run of memory.
                    let at = (start + ix) * channels;
                    copy(to, x.get(at..at + kw * channels).unwrap_or(&[]));
                    continue;
                }
                if whole {
                    // The input lacks a part at either end.
                    let before = ix.wrapping_neg();
                    let before = if (before as isize) > 0 { before.min(kw) } else { 0 };
                    let from = ix.wrapping_add(before);
                    let run = self.in_w.saturating_sub(from).min(kw - before);
                    let (left, rest) = to.split_at_mut_checked(before * channels).unwrap_or_default();
                    let (middle, right) = rest.split_at_mut_checked(run * channels).unwrap_or_default();
                    let at = (start + from.min(self.in_w)) * channels;
                    fill(left, border);
                    copy(middle, x.get(at..at + run * channels).unwrap_or(&[]));
                    fill(right, border);
                    continue;
                }
                for (kx, to) in to.chunks_exact_mut(taken.max(1)).enumerate() {
                    let ix = ix.wrapping_add(kx * self.dilation[1]);
                    if ix < self.in_w {
                        let at = (start + ix) * channels + self.first;
                        copy(to, x.get(at..at + taken).unwrap_or(&[]));
                    } else {
                        fill(to, border);
                    }
                }
            }
        }
    }
}

/// As `fill`, without a call for nothing.
#[inline]
fn fill<T: Copy>(to: &mut [T], value: T) {
    if !to.is_empty() {
        to.fill(value);
    }
}

/// Copies elements of equally many; short runs without a call, or a loop, which would become one.
#[inline]
pub(crate) fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    if to.len() != from.len() {
        return;
    }
    if to.len() > 16 {
        return to.copy_from_slice(from);
    }
    // Two parts that may overlap.
    if to.len() >= 8 {
        ends::<T, 8>(to, from);
    } else if to.len() >= 4 {
        ends::<T, 4>(to, from);
    } else if to.len() >= 2 {
        ends::<T, 2>(to, from);
    } else {
        ends::<T, 1>(to, from);
    }
}

/// Copies the first `N` and the last `N`.
#[inline]
fn ends<T: Copy, const N: usize>(to: &mut [T], from: &[T]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
        *to = *from;
    }
}

/// [`Windows::gather`] of int8, compiled here, with this crate's optimisation, whoever calls it.
#[inline(never)]
pub(crate) fn gather(windows: &Windows, x: &[i8], border: i8, row: usize, count: usize, to: &mut [i8]) {
    windows.gather(x, border, row, count, to);
}

/// Bytes of scratch for [`conv`].
pub(crate) fn conv_scratch_len<B: Backend>(backend: B, windows: &Windows, n: usize) -> usize {
    let (rows, k) = (windows.block_rows(1), windows.row_len());
    room(rows, k).saturating_add(backend.gemm_scratch_len(rows, n, k))
}

/// Bytes of as many gathered rows, so that what follows them is aligned as they are.
fn room(rows: usize, k: usize) -> usize {
    rows.saturating_mul(k).div_ceil(64).saturating_mul(64)
}

/// Bytes as int8.
#[allow(unsafe_code, reason = "there is no other way to see bytes with a sign")]
pub(crate) fn signed(bytes: &mut [u8]) -> &mut [i8] {
    // SAFETY: both types have one byte, of which every value is valid.
    unsafe { core::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
}

/// [`Backend::conv`] by gathered rows and [`Backend::gemm`].
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::conv`")]
pub(crate) fn conv<B: Backend>(
    backend: B,
    x: &[i8],
    windows: &Windows,
    border: i8,
    weights: Weights<'_>,
    n: usize,
    bias: &[i32],
    mut out: GemmOut<'_>,
    ldc: usize,
    scratch: &mut [u8],
) {
    let (m, k, block) = (windows.rows(), windows.row_len(), windows.block_rows(1));
    if !windows.fits(x.len()) || !operands_fit((&[], 0), [m, n, 0], bias, (&out, ldc)) {
        return;
    }
    let Some((gathered, scratch)) = scratch.split_at_mut_checked(room(block, k)) else { return };
    let gathered = signed(gathered);
    let mut row = 0;
    while row < m {
        let count = block.min(m - row);
        gather(windows, x, border, row, count, gathered);
        let Some(out) = out.part(row * ldc) else { return };
        backend.gemm(gathered, k, count, weights, n, k, bias, out, ldc, scratch);
        row += count;
    }
}
