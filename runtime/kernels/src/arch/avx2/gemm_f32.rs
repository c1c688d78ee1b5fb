//! The f32 matrix product, in the order of additions of the reference.
//!
//! Weights are packed in panels of 16 output channels, which hold the channels'
//! weights for one `k` after the other; the last panel is padded with zeros.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::NR;
use super::epilogue::*;
use super::lanes::*;
use super::panel::{AssumeInit, Room};
use crate::gemm::{operands_fit_f32, rows_fit};

/// Numbers of a vector.
const LANES: usize = 8;

/// Rows of the register tile.
const MR: usize = 6;

/// Rows from which on it pays to pack a panel.
const MANY: usize = 32;

/// Steps that are packed on the stack at a time: 16 KiB.
const ROOM: usize = 256;

/// Rows whose sums of both vectors of channels leave registers for the weights.
const FEW: usize = 3;

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
        let bias = Some(floats_at(bias, first));
        Panel { a, lda, steps, bias, first, width: NR.min(n - first), ldc }.run(m, out);
    }
}

/// [`Backend::gemm_f32`](crate::Backend::gemm_f32) with weights in the canonical layout.
///
/// Weights are transposed in registers, anew for each tile of rows, beside the arithmetic. For many rows a part of a panel is
/// packed on the stack at a time instead, and the sums so far wait in the output, where they lose nothing.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm_f32`")]
#[target_feature(enable = "avx2")]
pub(super) fn gemm_canonical(
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
    let fits = rows_fit(w.len(), n, k, k);
    debug_assert!(fits, "gemm_f32: the weights are too short for [{n}, {k}]");
    if !fits {
        return;
    }
    let mut room: Room<Step, ROOM> = [const { MaybeUninit::uninit() }; ROOM];
    for first in (0..n).step_by(NR) {
        let width = NR.min(n - first);
        let Some(w) = w.get(first * k..(first + width) * k) else { return };
        if m < MANY {
            Columns { a, lda, w, k, bias: floats_at(bias, first), first, width, ldc }.run(m, out);
            continue;
        }
        // Once also where `k` is 0.
        let mut start = 0;
        loop {
            let len = ROOM.min(k - start);
            let Some(steps) = pack_part(w, k, start, len, &mut room) else { return };
            let bias = (start == 0).then(|| floats_at(bias, first));
            let a = a.get(start..).unwrap_or_default();
            Panel { a, lda, steps, bias, first, width, ldc }.run(m, out);
            start += len;
            if start >= k {
                break;
            }
        }
    }
}

/// Packs the `len` of `k` from `start` on of a panel, `w[channels][k]` with at most 16 channels.
#[target_feature(enable = "avx2")]
fn pack_part<'r>(
    w: &[f32],
    k: usize,
    start: usize,
    len: usize,
    room: &'r mut [MaybeUninit<Step>],
) -> Option<&'r [Step]> {
    let steps = room.get_mut(..len)?;
    for (four, steps) in steps.chunks_mut(4).enumerate() {
        for group in 0..4 {
            let first = group * 4 * k + start + four * 4;
            let whole = first + 3 * k + 4 <= w.len();
            let mut rows = [_mm_setzero_ps(); 4];
            for (channel, row) in rows.iter_mut().enumerate() {
                let at = first + channel * k;
                *row = if whole {
                    // SAFETY: four numbers of the last of the four channels are inside `w`, and this is not after it.
                    unsafe { _mm_loadu_ps(w.as_ptr().add(at)) }
                } else {
                    let mut some = [0.0; 4];
                    some.iter_mut().zip(w.get(at..).unwrap_or_default()).for_each(|(to, from)| *to = *from);
                    // SAFETY: the array is as large as the vector.
                    unsafe { _mm_loadu_ps(some.as_ptr()) }
                };
            }
            let [a, b, c, d] = rows;
            let (low, high) = (_mm_unpacklo_ps(a, c), _mm_unpackhi_ps(a, c));
            let (low2, high2) = (_mm_unpacklo_ps(b, d), _mm_unpackhi_ps(b, d));
            let columns = [
                _mm_unpacklo_ps(low, low2),
                _mm_unpackhi_ps(low, low2),
                _mm_unpacklo_ps(high, high2),
                _mm_unpackhi_ps(high, high2),
            ];
            for (step, column) in steps.iter_mut().zip(columns) {
                // SAFETY: a step is four such vectors long, and the store needs no alignment.
                unsafe { _mm_storeu_ps(step.as_mut_ptr().cast::<f32>().add(group * 4), column) }
            }
        }
    }
    // SAFETY: all four quarters of all steps were written.
    Some(unsafe { steps.as_init() })
}

/// The canonical weights of at most 16 output channels, `w[channels][k]`, and what they are applied to.
struct Columns<'a> {
    a: &'a [f32],
    lda: usize,
    w: &'a [f32],
    k: usize,
    bias: Pair<__m256>,
    /// The first output channel, and how many there are.
    first: usize,
    width: usize,
    ldc: usize,
}

impl Columns<'_> {
    /// Computes and stores `m` rows.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn run(&self, m: usize, out: &mut [f32]) {
        let mut i = 0;
        while i < m {
            match m - i {
                1 => self.tile::<1>(i, out),
                2 => self.tile::<2>(i, out),
                3 => self.tile::<3>(i, out),
                4 => self.tile::<4>(i, out),
                5 => self.tile::<5>(i, out),
                _ => self.tile::<MR>(i, out),
            }
            i += MR;
        }
    }

    /// Computes and stores `R` rows from row `i`: few with both vectors of channels at a time, so that sums do not wait for each
    /// other; more one vector after the other, because there are 16 registers.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tile<const R: usize>(&self, i: usize, out: &mut [f32]) {
        // The caller saw that they are there.
        let Some(a) = self.a.get(i * self.lda..(i + R - 1) * self.lda + self.k) else { return };
        let mut sums = [self.bias; R];
        if R <= FEW && self.width == NR {
            self.add(a, 0, &mut sums);
        } else {
            for half in 0..self.width.div_ceil(LANES) {
                let mut sum = sums.map(|sum| [sum[half]]);
                self.add(a, half, &mut sum);
                sums.iter_mut().zip(sum).for_each(|(to, [from])| to[half] = from);
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let at = (i + r) * self.ldc + self.first;
            if let Some(out) = out.get_mut(at..at + self.width) {
                put_f32(out, sums);
            }
        }
    }

    /// Adds the products of `R` rows of `a` with `V` vectors of channels, from vector `vector` on, eight of `k` at a time.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add<const R: usize, const V: usize>(&self, a: &[f32], vector: usize, sums: &mut [[__m256; V]; R]) {
        let &Self { lda, w, k, width, .. } = self;
        let whole = if width >= (vector + V) * LANES { k / LANES * LANES } else { 0 };
        for p in (0..whole).step_by(LANES) {
            for v in 0..V {
                for p in [p, p + 4] {
                    // SAFETY: `w` has all of these channels, and of each the four numbers from `p` on.
                    let columns = unsafe { transposed(w.as_ptr().add((vector + v) * LANES * k + p), k) };
                    for (c, column) in columns.into_iter().enumerate() {
                        for (r, sums) in sums.iter_mut().enumerate() {
                            // SAFETY: p + c < k and r < R, so this is below the length of `a`.
                            let x = _mm256_set1_ps(unsafe { *a.get_unchecked(r * lda + p + c) });
                            sums[v] = _mm256_add_ps(sums[v], _mm256_mul_ps(x, column));
                        }
                    }
                }
            }
        }
        // The last of `k`, and channels that do not fill the vectors.
        for start in (whole..k).step_by(4) {
            for v in 0..V {
                for (p, column) in (start..k).zip(last(w, k, (vector + v) * LANES, start)) {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(a.get(r * lda + p).copied().unwrap_or_default());
                        sums[v] = _mm256_add_ps(sums[v], _mm256_mul_ps(x, column));
                    }
                }
            }
        }
    }
}

/// The columns of up to eight rows of `w[channels][k]` from `channel` on, of up to four numbers each from `p` on; zeros where
/// there are none.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn last(w: &[f32], k: usize, channel: usize, p: usize) -> [__m256; 4] {
    let mut some = [[0.0; 4]; LANES];
    for (to, row) in some.iter_mut().zip(w.get(channel * k..).unwrap_or_default().chunks_exact(k)) {
        match row.get(p..).and_then(|row| row.first_chunk()) {
            Some(four) => *to = *four,
            None => to.iter_mut().zip(row.get(p..).unwrap_or_default()).for_each(|(to, from)| *to = *from),
        }
    }
    // SAFETY: the array has four numbers of each of eight channels.
    unsafe { transposed(some.as_ptr().cast(), 4) }
}

/// The columns of the eight rows at `rows`, `stride` apart, of four numbers each.
///
/// # Safety
/// Four numbers can be read at each row.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transposed(rows: *const f32, stride: usize) -> [__m256; 4] {
    // Rows `r` and `r + 4` share a vector, so that no shuffle crosses its halves.
    let [a, b, c, d] = [0, 1, 2, 3].map(|row| {
        // SAFETY: the caller's.
        let (low, high) = unsafe { (_mm_loadu_ps(rows.add(row * stride)), _mm_loadu_ps(rows.add((row + 4) * stride))) };
        _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
    });
    let (low, high) = (_mm256_unpacklo_ps(a, c), _mm256_unpackhi_ps(a, c));
    let (low2, high2) = (_mm256_unpacklo_ps(b, d), _mm256_unpackhi_ps(b, d));
    [
        _mm256_unpacklo_ps(low, low2),
        _mm256_unpackhi_ps(low, low2),
        _mm256_unpacklo_ps(high, high2),
        _mm256_unpackhi_ps(high, high2),
    ]
}

/// A panel of weights, and what it is applied to.
struct Panel<'a> {
    a: &'a [f32],
    lda: usize,
    /// The panel, as long as `k`.
    steps: &'a [Step],
    /// What sums begin with, if not with what the output has.
    bias: Option<Pair<__m256>>,
    /// The panel's first output channel, and how many it has.
    first: usize,
    width: usize,
    ldc: usize,
}

impl Panel<'_> {
    /// Computes and stores `m` rows.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn run(&self, m: usize, out: &mut [f32]) {
        let mut i = 0;
        while i < m {
            match m - i {
                1 => self.tile::<1>(i, out),
                2 => self.tile::<2>(i, out),
                3 => self.tile::<3>(i, out),
                4 => self.tile::<4>(i, out),
                5 => self.tile::<5>(i, out),
                _ => self.tile::<MR>(i, out),
            }
            i += MR;
        }
    }

    /// Computes and stores `R` rows from row `i`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tile<const R: usize>(&self, i: usize, out: &mut [f32]) {
        let start = i * self.lda;
        let end = start + (R - 1) * self.lda + self.steps.len();
        let Some(a) = self.a.get(start..end) else {
            return;
        };
        let mut acc = [[_mm256_setzero_ps(); 2]; R];
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = (i + r) * self.ldc + self.first;
            *acc = match self.bias {
                Some(bias) => bias,
                None => floats_at(out.get(at..at + self.width).unwrap_or_default(), 0),
            };
        }
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
