//! The int8 matrix product.
//!
//! Weights are packed in panels of 16 output channels. A panel holds, for each
//! pair of consecutive `k`, the 16 channels' two weights as i16: 64 bytes, two
//! vectors. `madd` multiplies them with a pair of activations, broadcast, and
//! adds the two products; i8 values in i16 make that exact. Odd `k` and the last
//! panel are padded with zeros.
//!
//! A block of activation rows is widened to i16 in the scratch once, and every
//! panel then passes over the block, six rows at a time.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::NR;
use super::epilogue::*;
use super::lanes::*;
use super::panel::{self, Dots, Room};
use crate::GemmOut;
use crate::gemm::{Finish, block_rows, operands_fit, rows_fit};

/// Rows of the register tile: 6 x 2 accumulators of 16 registers.
const MR: usize = 6;

/// Bytes of widened activations to aim for: a quarter of a 256 KiB L2.
const BLOCK_BYTES: usize = 64 * 1024;

/// A pair of i16 activations.
type ActivationPair = [u8; 4];

/// One pair of `k` in a panel.
pub(super) type Step = [[u8; 32]; 2];

/// Bytes of `[n][k]` weights in panels; more than any slice has if it overflows.
pub(super) fn packed_len(n: usize, k: usize) -> usize {
    n.div_ceil(NR).saturating_mul(k.div_ceil(2)).saturating_mul(size_of::<Step>())
}

/// Packed weights as steps.
pub(super) fn steps(packed: &[u8]) -> &[Step] {
    packed.as_chunks().0.as_chunks().0
}

/// Packs canonical weights into panels.
pub(super) fn pack(w: &[i8], n: usize, k: usize, packed: &mut [u8]) {
    let fits = n.checked_mul(k).is_some_and(|need| need <= w.len()) && packed.len() >= packed_len(n, k);
    debug_assert!(fits, "pack: a slice is too short for [{n}, {k}]");
    if !fits || n == 0 || k == 0 {
        return;
    }
    let pairs = k.div_ceil(2);
    let (steps, _) = packed.as_chunks_mut::<{ size_of::<Step>() }>();
    for (panel, steps) in steps.chunks_exact_mut(pairs).take(n.div_ceil(NR)).enumerate() {
        for (pair, step) in steps.iter_mut().enumerate() {
            let (lanes, _) = step.as_chunks_mut::<2>();
            for (lane, bytes) in lanes.iter_mut().enumerate() {
                let (channel, p) = (panel * NR + lane / 2, pair * 2 + lane % 2);
                let inside = channel < n && p < k;
                let weight = if inside { w.get(channel * k + p) } else { None };
                *bytes = i16::from(weight.copied().unwrap_or(0)).to_ne_bytes();
            }
        }
    }
}

/// Bytes of scratch for `m` rows of `k`.
pub(super) fn scratch_len(m: usize, k: usize) -> usize {
    let row = k.div_ceil(2).saturating_mul(size_of::<ActivationPair>());
    let tiles = (BLOCK_BYTES / (row.max(1)).saturating_mul(MR)).max(1);
    m.min(tiles * MR).saturating_mul(row)
}

/// [`Backend::gemm`](crate::Backend::gemm) with packed weights.
///
/// The caller has checked that `packed` holds `packed_len` bytes and `scratch`
/// one row; whatever of it is missing is left out of the result, not read.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
#[target_feature(enable = "avx2")]
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
    blocks(a, lda, [m, n, k], &mut Panels::Packed(steps(packed)), bias, &mut finish, ldc, scratch);
}

/// [`Backend::gemm`](crate::Backend::gemm) with weights in the canonical layout.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
#[target_feature(enable = "avx2")]
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
    let mut room: Room<Step, { panel::ROOM }> = [const { MaybeUninit::uninit() }; panel::ROOM];
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
    /// The panel of the `width` output channels from `first` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn panel(&mut self, first: usize, width: usize, k: usize) -> Option<&[Step]> {
        match self {
            Self::Packed(steps) => {
                let (index, pairs) = (first / NR, k.div_ceil(2));
                steps.get(index * pairs..(index + 1) * pairs)
            }
            Self::Canonical(w, room) => panel::pack(w.get(first * k..(first + width) * k)?, k, room),
        }
    }
}

/// The product of blocks of rows with one panel after the other.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
#[target_feature(enable = "avx2")]
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
    let pairs = k.div_ceil(2);
    let (scratch, _) = scratch.as_chunks_mut::<{ size_of::<ActivationPair>() }>();
    let block = block_rows(scratch.len(), m, pairs, MR);

    for start in (0..m).step_by(block) {
        let rows = block.min(m - start);
        for i in 0..rows {
            let from = a.get((start + i) * lda..).and_then(|rest| rest.get(..k));
            let to = scratch.get_mut(i * pairs..(i + 1) * pairs);
            if let (Some(from), Some(to)) = (from, to) {
                widen(from, to);
            }
        }
        for first in (0..n).step_by(NR) {
            let width = NR.min(n - first);
            let Some(steps) = panels.panel(first, width, k) else { return };
            let block = Block { rows: scratch, pairs, steps, bias: bias_at(bias, first), first, width, ldc };
            let mut i = 0;
            while i < rows {
                match rows - i {
                    1 => block.tile::<1>(start, i, finish),
                    2 => block.tile::<2>(start, i, finish),
                    3 => block.tile::<3>(start, i, finish),
                    4 => block.tile::<4>(start, i, finish),
                    5 => block.tile::<5>(start, i, finish),
                    _ => block.tile::<MR>(start, i, finish),
                }
                i += MR;
            }
        }
    }
}

/// Widens a row of i8 to pairs of i16; a missing last one is zero.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(from: &[i8], to: &mut [ActivationPair]) {
    let (vectors, rest) = from.as_chunks::<16>();
    let (to_vectors, _) = to.as_chunks_mut::<8>();
    for (from, to) in vectors.iter().zip(to_vectors) {
        if let Some(to) = to.as_flattened_mut().first_chunk_mut() {
            store_u8x32(to, _mm256_cvtepi8_epi16(load_i8x16(from)));
        }
    }
    let to_rest = to.get_mut(vectors.len() * 8..).unwrap_or_default();
    for (from, to) in rest.chunks(2).zip(to_rest) {
        let word = |i| i16::from(from.get(i).copied().unwrap_or(0)).to_ne_bytes();
        let ([a, b], [c, d]) = (word(0), word(1));
        *to = [a, b, c, d];
    }
}

/// A panel of weights and a block of widened rows.
struct Block<'a> {
    /// The rows, `pairs` each.
    rows: &'a [ActivationPair],
    pairs: usize,
    /// The panel, `pairs` long.
    steps: &'a [Step],
    bias: Pair<__m256i>,
    /// The panel's first output channel, and how many it has.
    first: usize,
    width: usize,
    ldc: usize,
}

impl Block<'_> {
    /// Computes and stores `R` rows from row `i` of the block that starts at row
    /// `start` of the output.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn tile<const R: usize>(&self, start: usize, i: usize, finish: &mut Finish<'_, VectorBounds>) {
        let Some(rows) = self.rows.get(i * self.pairs..(i + R) * self.pairs) else {
            return;
        };
        let acc = accumulate::<R>(rows, self.steps, self.bias);
        for (r, acc) in acc.into_iter().enumerate() {
            store_row((start + i + r) * self.ldc + self.first, self.first, self.width, acc, finish);
        }
    }
}

/// Stores the `width` output channels from `first` on of a row, to element `at` on of the output.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_row(
    at: usize,
    first: usize,
    width: usize,
    acc: Pair<__m256i>,
    finish: &mut Finish<'_, VectorBounds>,
) {
    let to = at..at + width;
    match finish {
        Finish::I8(y, bounds, scale) => {
            let scale = scales_at(scale, first);
            if let Some(y) = y.get_mut(to) {
                put_i8(y, bounds.quantize(scaled(acc, scale)));
            }
        }
        Finish::I32(y) => {
            if let Some(y) = y.get_mut(to) {
                put_i32(y, acc);
            }
        }
        Finish::F32(y, scale) => {
            let scale = scales_at(scale, first);
            if let Some(y) = y.get_mut(to) {
                put_f32(y, scaled(acc, scale));
            }
        }
    }
}

/// The products of `R` rows, contiguous and `steps.len()` pairs each, with a panel.
#[inline]
#[target_feature(enable = "avx2")]
fn accumulate<const R: usize>(rows: &[ActivationPair], steps: &[Step], bias: Pair<__m256i>) -> [Pair<__m256i>; R] {
    let pairs = steps.len();
    let mut acc = [bias; R];
    if rows.len() != R * pairs {
        return acc;
    }
    for (p, [w0, w1]) in steps.iter().enumerate() {
        let (w0, w1) = (load_u8x32(w0), load_u8x32(w1));
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: p < pairs and r < R, so this is below R * pairs.
            let x = unsafe { *rows.get_unchecked(r * pairs + p) };
            let x = _mm256_set1_epi32(i32::from_ne_bytes(x));
            acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(x, w0));
            acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(x, w1));
        }
    }
    acc
}
