//! The DSP extension of ARMv7E-M (Cortex-M4, M7) and ARMv6: two products of 16 bits at once.
//!
//! Weights are read where they are: nothing is repacked, which a microcontroller has no memory for.
#![allow(unsafe_code, reason = "instructions that have no stable intrinsics")]

mod conv;
mod depthwise;
mod finish;
mod gemm;
mod product;

use core::arch::asm;

use crate::requant::Bounds;
use crate::{Backend, Depthwise, GemmOut, Requant, Weights, Windows, scalar};

/// Proof that the CPU has the DSP extension, as the target demands.
#[derive(Clone, Copy, Debug)]
pub struct Dsp {
    _private: (),
}

impl Dsp {
    /// The token.
    #[must_use]
    #[inline]
    pub const fn detect() -> Option<Self> {
        Some(Self::new())
    }

    /// The token: the target has the instructions.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl Default for Dsp {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes 0 and 2 and bytes 1 and 3 of a word, each pair as two halves with their sign.
#[inline(always)]
fn widen(word: u32) -> [u32; 2] {
    let (even, odd);
    // SAFETY: `Dsp` exists only where the target has the instructions; they touch nothing else.
    unsafe {
        asm!("sxtb16 {0}, {1}", out(reg) even, in(reg) word, options(pure, nomem, nostack, preserves_flags));
        asm!("sxtb16 {0}, {1}, ror #8", out(reg) odd, in(reg) word, options(pure, nomem, nostack, preserves_flags));
    }
    [even, odd]
}

/// `a * b + c`, rounded once.
#[cfg(arm_fma)]
#[inline]
#[must_use]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let sum: u32;
    // SAFETY: the target has a floating-point unit with the instruction.
    unsafe {
        asm!(
            "vmov s0, {0}",
            "vmov s1, {1}",
            "vmov s2, {2}",
            "vfma.f32 s0, s1, s2",
            "vmov {0}, s0",
            inout(reg) c.to_bits() => sum,
            in(reg) a.to_bits(),
            in(reg) b.to_bits(),
            out("s0") _,
            out("s1") _,
            out("s2") _,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    f32::from_bits(sum)
}

/// `Bounds`, ready for `quantize`.
#[derive(Clone, Copy)]
pub(super) struct Narrow {
    bounds: Bounds,
    #[cfg(arm_vfp)]
    limits: [i32; 2],
    /// Whether every scale is finite.
    #[cfg(arm_vfp)]
    finite: bool,
}

impl Narrow {
    pub(super) fn new(requant: &Requant<'_>) -> Self {
        let bounds = Bounds::new(requant.zero_point, requant.lo, requant.hi);
        Self {
            bounds,
            #[cfg(arm_vfp)]
            limits: [i32::from(requant.lo), i32::from(requant.hi)],
            #[cfg(arm_vfp)]
            finite: requant.scale.iter().all(|scale| scale.is_finite()),
        }
    }

    /// [`Bounds::quantize`] of `acc as f32 * scale`.
    #[inline(always)]
    pub(super) fn quantize(self, acc: i32, scale: f32) -> i8 {
        #[cfg(arm_vfp)]
        if scale.is_finite() {
            // What is finite is no NaN, so that rounding first and clamping then is the same, and takes fewer instructions.
            let rounded: i32;
            // SAFETY: the target has a floating-point unit. `vcvtr` rounds as the mode says, which is at its default, half
            // to even, and saturates.
            unsafe {
                asm!(
                    "vmov s0, {0}",
                    "vmov s1, {1}",
                    "vcvt.f32.s32 s0, s0",
                    "vmul.f32 s0, s0, s1",
                    "vcvtr.s32.f32 s0, s0",
                    "vmov {0}, s0",
                    inout(reg) acc => rounded,
                    in(reg) scale.to_bits(),
                    out("s0") _,
                    out("s1") _,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            let [lo, hi] = self.limits;
            return rounded.saturating_add(self.bounds.zero_point).max(lo).min(hi) as i8;
        }
        self.bounds.quantize(acc as f32 * scale)
    }
}

/// Up to four i8 as a word, zeros after them.
#[inline]
fn word(bytes: &[i8]) -> u32 {
    let mut word = [0; 4];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = from.cast_unsigned());
    u32::from_le_bytes(word)
}

/// Four i8 as a word.
#[inline(always)]
fn whole_word(bytes: &[i8; 4]) -> u32 {
    u32::from_le_bytes(bytes.map(i8::cast_unsigned))
}

impl Backend for Dsp {
    #[inline]
    fn name(self) -> &'static str {
        "dsp"
    }

    fn gemm_scratch_len(self, m: usize, n: usize, k: usize) -> usize {
        let _ = n;
        gemm::scratch_len(m, k)
    }

    fn gemm(
        self,
        a: &[i8],
        lda: usize,
        m: usize,
        weights: Weights<'_>,
        n: usize,
        k: usize,
        bias: &[i32],
        out: GemmOut<'_>,
        ldc: usize,
        scratch: &mut [u8],
    ) {
        match gemm::scratch(m, k, scratch) {
            Some(rows) => gemm::gemm(a, lda, m, weights.canonical, n, k, bias, out, ldc, rows),
            None => scalar::gemm::gemm(a, lda, m, weights.canonical, n, k, bias, out, ldc),
        }
    }

    fn conv_scratch_len(self, windows: &Windows, n: usize) -> usize {
        let _ = n;
        conv::room(windows.row_len())
    }

    fn conv(
        self,
        x: &[i8],
        windows: &Windows,
        border: i8,
        weights: Weights<'_>,
        n: usize,
        bias: &[i32],
        out: GemmOut<'_>,
        ldc: usize,
        scratch: &mut [u8],
    ) {
        conv::conv(x, windows, border, weights.canonical, n, bias, out, ldc, scratch);
    }

    fn depthwise(
        self,
        x: &[i8],
        weights: Weights<'_>,
        bias: &[i32],
        requant: Requant<'_>,
        y: &mut [i8],
        shape: &Depthwise,
    ) {
        let taps = shape.window().taps().unwrap_or(usize::MAX);
        if taps > depthwise::MAX_TAPS || shape.dilation[1] == 0 {
            return scalar::depthwise::depthwise(x, weights.canonical, bias, requant, y, shape);
        }
        depthwise::depthwise(x, weights.canonical, bias, requant, y, shape);
    }
}
