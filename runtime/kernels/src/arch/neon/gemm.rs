//! The int8 matrix product.
//!
//! Weights are packed in panels of 16 output channels. A [`Kernel`] says how: it takes some of `k` at a time, a unit, for
//! which a row has one vector and a panel several. The last unit and the last panel are padded with zeros.
//!
//! A block of activation rows is brought to units in the scratch once, and every panel then passes over the block, four
//! rows at a time: 16 accumulators of 32 registers.

use core::arch::aarch64::*;
use core::arch::asm;

use super::NR;
use super::dots::Dots;
use super::epilogue::*;
use crate::GemmOut;
use crate::gemm::{Finish, block_rows, operands_fit, rows_fit};

/// Rows of the register tile.
const MR: usize = 4;

/// Bytes of activations to aim for: a quarter of a 256 KiB L2.
const BLOCK_BYTES: usize = 64 * 1024;

/// A vector in memory.
type Vector = [u8; 16];

/// How products are computed.
pub(super) trait Kernel {
    /// `k` of a unit.
    const K: usize;
    /// Vectors of a panel's unit.
    const VECTORS: usize;

    /// Where in a panel's unit the weight of a channel is.
    fn place(k: usize, channel: usize) -> usize;

    /// Brings a row to units; what is missing in the last is zero.
    fn prepare(from: &[i8], to: &mut [Vector]);

    /// The products of `R` rows with a panel's unit, added.
    ///
    /// # Safety
    ///
    /// The CPU must have the kernel's instructions.
    unsafe fn add<const R: usize>(acc: &mut [Group<int32x4_t>; R], x: [Vector; R], unit: &[Vector]);

    /// Adds the products of sixteen elements to any of four sums.
    ///
    /// # Safety
    ///
    /// The CPU must have the kernel's instructions.
    unsafe fn multiply_add(acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t;
}

/// By multiplying i16 into i32: any NEON.
pub(super) struct Long;

impl Kernel for Long {
    const K: usize = 8;
    const VECTORS: usize = 8;

    fn place(k: usize, channel: usize) -> usize {
        k * 16 + channel
    }

    #[inline]
    fn prepare(from: &[i8], to: &mut [Vector]) {
        let (whole, rest) = from.as_chunks::<8>();
        for (from, to) in whole.iter().zip(&mut *to) {
            // SAFETY: both arrays are as large as the vectors, and NEON belongs to the target.
            unsafe { vst1q_s16(to.as_mut_ptr().cast(), vmovl_s8(vld1_s8(from.as_ptr()))) }
        }
        if let (false, Some(to)) = (rest.is_empty(), to.get_mut(whole.len())) {
            let (words, _) = to.as_chunks_mut::<2>();
            for (i, word) in words.iter_mut().enumerate() {
                *word = i16::from(rest.get(i).copied().unwrap_or(0)).to_ne_bytes();
            }
        }
    }

    #[inline(always)]
    unsafe fn add<const R: usize>(acc: &mut [Group<int32x4_t>; R], x: [Vector; R], unit: &[Vector]) {
        let Some(unit) = unit.first_chunk::<8>() else { return };
        macro_rules! lanes {
            ($($lane:literal)*) => {$(
                let w = load(&unit[$lane]);
                // SAFETY: NEON belongs to the target; the array is as large as the vector.
                unsafe {
                    let (low, high) = (vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w));
                    for (acc, x) in acc.iter_mut().zip(&x) {
                        let x = vld1q_s16(x.as_ptr().cast());
                        acc[0] = vmlal_laneq_s16::<$lane>(acc[0], vget_low_s16(low), x);
                        acc[1] = vmlal_high_laneq_s16::<$lane>(acc[1], low, x);
                        acc[2] = vmlal_laneq_s16::<$lane>(acc[2], vget_low_s16(high), x);
                        acc[3] = vmlal_high_laneq_s16::<$lane>(acc[3], high, x);
                    }
                }
            )*};
        }
        lanes!(0 1 2 3 4 5 6 7);
    }

    #[inline(always)]
    unsafe fn multiply_add(acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: NEON belongs to the target. A product of two i8 fits an i16.
        unsafe {
            let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
            vpadalq_s16(vpadalq_s16(acc, low), vmull_high_s8(x, w))
        }
    }
}

/// By the dot product of four i8.
pub(super) struct Dot;

/// Adds to each i32 the four products of its bytes in `w` with the four bytes of `x` in lane `LANE`.
///
/// # Safety
///
/// The CPU must have `FEAT_DotProd`.
#[inline(always)]
unsafe fn dot<const LANE: i32>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // The intrinsic, `vdotq_laneq_s32`, is not stable yet.
    // SAFETY: the contract; the instruction touches nothing else.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

impl Kernel for Dot {
    const K: usize = 16;
    const VECTORS: usize = 16;

    fn place(k: usize, channel: usize) -> usize {
        k / 4 * 64 + channel * 4 + k % 4
    }

    #[inline]
    fn prepare(from: &[i8], to: &mut [Vector]) {
        let (whole, rest) = from.as_chunks::<16>();
        for (from, to) in whole.iter().zip(&mut *to) {
            *to = from.map(i8::cast_unsigned);
        }
        if let (false, Some(to)) = (rest.is_empty(), to.get_mut(whole.len())) {
            *to = [0; 16];
            to.iter_mut().zip(rest).for_each(|(to, from)| *to = from.cast_unsigned());
        }
    }

    #[inline(always)]
    unsafe fn add<const R: usize>(acc: &mut [Group<int32x4_t>; R], x: [Vector; R], unit: &[Vector]) {
        let Some(unit) = unit.as_chunks::<4>().0.first_chunk::<4>() else { return };
        let x = x.map(|x| load(&x));
        macro_rules! lanes {
            ($($lane:literal)*) => {$(
                let [a, b, c, d] = &unit[$lane];
                let (a, b, c, d) = (load(a), load(b), load(c), load(d));
                for (acc, x) in acc.iter_mut().zip(x) {
                    // SAFETY: the contract.
                    unsafe {
                        acc[0] = dot::<$lane>(acc[0], a, x);
                        acc[1] = dot::<$lane>(acc[1], b, x);
                        acc[2] = dot::<$lane>(acc[2], c, x);
                        acc[3] = dot::<$lane>(acc[3], d, x);
                    }
                }
            )*};
        }
        lanes!(0 1 2 3);
    }

    #[inline(always)]
    unsafe fn multiply_add(mut acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // The intrinsic, `vdotq_s32`, is not stable yet.
        // SAFETY: the contract; the instruction touches nothing else.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
                acc = inout(vreg) acc,
                w = in(vreg) w,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }
}

/// Bytes of `[n][k]` weights in panels; more than any slice has if it overflows.
pub(super) fn packed_len<K: Kernel>(n: usize, k: usize) -> usize {
    n.div_ceil(NR).saturating_mul(k.div_ceil(K::K)).saturating_mul(K::VECTORS * size_of::<Vector>())
}

/// Packs canonical weights into panels.
pub(super) fn pack<K: Kernel>(w: &[i8], n: usize, k: usize, packed: &mut [u8]) {
    let fits = n.checked_mul(k).is_some_and(|need| need <= w.len()) && packed.len() >= packed_len::<K>(n, k);
    debug_assert!(fits, "pack: a slice is too short for [{n}, {k}]");
    if !fits || n == 0 || k == 0 {
        return;
    }
    let units = k.div_ceil(K::K);
    for (i, unit) in packed.chunks_exact_mut(K::VECTORS * size_of::<Vector>()).take(n.div_ceil(NR) * units).enumerate()
    {
        let (panel, first) = (i / units, i % units * K::K);
        for channel in 0..NR {
            for p in 0..K::K {
                let inside = panel * NR + channel < n && first + p < k;
                let weight = if inside { w.get((panel * NR + channel) * k + first + p) } else { None };
                if let Some(to) = unit.get_mut(K::place(p, channel)) {
                    *to = weight.map_or(0, |w| w.cast_unsigned());
                }
            }
        }
    }
}

/// Bytes of scratch for `m` rows of `k`.
pub(super) fn scratch_len<K: Kernel>(m: usize, k: usize) -> usize {
    let row = k.div_ceil(K::K).saturating_mul(size_of::<Vector>());
    let tiles = (BLOCK_BYTES / (row.max(1)).saturating_mul(MR)).max(1);
    m.min(tiles * MR).saturating_mul(row)
}

/// [`Backend::gemm`](crate::Backend::gemm) with packed weights.
///
/// The caller has checked that `packed` holds `packed_len` bytes and `scratch` one row; whatever of it is missing is left
/// out of the result, not read.
///
/// # Safety
///
/// The CPU must have the kernel's instructions.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
pub(super) unsafe fn gemm<K: Kernel>(
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
    let units = k.div_ceil(K::K);
    let vectors: &[Vector] = packed.as_chunks().0;
    let (scratch, _) = scratch.as_chunks_mut::<{ size_of::<Vector>() }>();
    let block = block_rows(scratch.len(), m, units, MR);

    for start in (0..m).step_by(block) {
        let rows = block.min(m - start);
        for i in 0..rows {
            let from = a.get((start + i) * lda..).and_then(|rest| rest.get(..k));
            let to = scratch.get_mut(i * units..(i + 1) * units);
            if let (Some(from), Some(to)) = (from, to) {
                K::prepare(from, to);
            }
        }
        let len = units * K::VECTORS;
        for panel in 0..n.div_ceil(NR) {
            let Some(vectors) = vectors.get(panel * len..(panel + 1) * len) else { return };
            let first = panel * NR;
            let block = Block {
                rows: scratch,
                units,
                vectors,
                bias: bias_at(bias, first),
                first,
                width: NR.min(n - first),
                ldc,
            };
            let mut i = 0;
            while i < rows {
                // SAFETY: the same contract.
                i += unsafe {
                    match rows - i {
                        MR.. => block.tile::<K, MR>(start, i, &mut finish),
                        2.. => block.tile::<K, 2>(start, i, &mut finish),
                        _ => block.tile::<K, 1>(start, i, &mut finish),
                    }
                };
            }
        }
    }
}

/// [`Backend::gemm`](crate::Backend::gemm) with weights in the canonical layout.
///
/// # Safety
///
/// The CPU must have the kernel's instructions.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
pub(super) unsafe fn gemm_canonical<K: Kernel>(
    a: &[i8],
    lda: usize,
    m: usize,
    w: &[i8],
    n: usize,
    k: usize,
    bias: &[i32],
    out: GemmOut<'_>,
    ldc: usize,
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
    // SAFETY: the same contract.
    unsafe { Dots { a, lda, w, k, bias, ldc }.run::<K>(m, n, &mut finish) }
}

/// A panel of weights and a block of prepared rows.
struct Block<'a> {
    /// The rows, `units` each.
    rows: &'a [Vector],
    units: usize,
    /// The panel.
    vectors: &'a [Vector],
    bias: Group<int32x4_t>,
    /// The panel's first output channel, and how many it has.
    first: usize,
    width: usize,
    ldc: usize,
}

impl Block<'_> {
    /// Computes and stores `R` rows from row `i` of the block that starts at row `start` of the output; returns `R`.
    ///
    /// # Safety
    ///
    /// The CPU must have the kernel's instructions.
    #[inline]
    unsafe fn tile<K: Kernel, const R: usize>(
        &self,
        start: usize,
        i: usize,
        finish: &mut Finish<'_, VectorBounds>,
    ) -> usize {
        let Some(rows) = self.rows.get(i * self.units..(i + R) * self.units) else {
            return R;
        };
        let mut acc = [self.bias; R];
        for (u, unit) in self.vectors.chunks_exact(K::VECTORS).enumerate() {
            let mut x = [[0; 16]; R];
            for (r, x) in x.iter_mut().enumerate() {
                // SAFETY: there are `units` of the panel, so u < units, and r < R: below R * units, the length of `rows`.
                *x = unsafe { *rows.get_unchecked(r * self.units + u) };
            }
            // SAFETY: the same contract.
            unsafe { K::add::<R>(&mut acc, x, unit) }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            store_row((start + i + r) * self.ldc + self.first, self.first, self.width, acc, finish);
        }
        R
    }
}

/// Stores the `width` output channels from `first` on of a row, to element `at` on of the output.
#[inline]
pub(super) fn store_row(
    at: usize,
    first: usize,
    width: usize,
    acc: Group<int32x4_t>,
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
