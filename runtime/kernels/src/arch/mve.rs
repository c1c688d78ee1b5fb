//! The vectors of ARMv8.1-M ("Helium": Cortex-M55, M85): sixteen products of i8 at once, loops that end where the data do.
//!
//! The int8 matrix product, in place: nothing is repacked or widened. Depthwise convolution is that of [`Dsp`].
#![allow(unsafe_code, reason = "instructions that have no stable intrinsics")]

use core::arch::asm;

use super::dsp::Narrow;
use crate::gemm::{operands_fit, rows_fit};
use crate::requant::scale_at;
use crate::{Backend, Depthwise, Dsp, GemmOut, Requant, Weights};

/// Proof that the CPU has the vectors, as the crate was compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Mve {
    dsp: Dsp,
}

impl Mve {
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
        Self { dsp: Dsp::new() }
    }
}

impl Default for Mve {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Mve {
    #[inline]
    fn name(self) -> &'static str {
        "mve"
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
        let _ = scratch;
        let w = weights.canonical;
        if m == 0 || n == 0 || !operands_fit((a, lda), [m, n, k], bias, (&out, ldc)) {
            return;
        }
        let w_fits = rows_fit(w.len(), n, k, k);
        debug_assert!(w_fits, "gemm: the weights are too short for [{n}, {k}]");
        if !w_fits {
            return;
        }
        let operands = Operands { a, lda, w, k, bias };
        match out {
            GemmOut::I8(y, requant) => {
                let narrow = Narrow::new(&requant);
                operands.run(m, n, y, ldc, |acc, j| narrow.quantize(acc, scale_at(requant.scale, j)));
            }
            GemmOut::I32(y) => operands.run(m, n, y, ldc, |acc, _| acc),
            GemmOut::F32(y, scale) => operands.run(m, n, y, ldc, |acc, j| acc as f32 * scale_at(scale, j)),
        }
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
        self.dsp.depthwise(x, weights, bias, requant, y, shape);
    }
}

struct Operands<'a> {
    a: &'a [i8],
    lda: usize,
    w: &'a [i8],
    k: usize,
    bias: &'a [i32],
}

impl Operands<'_> {
    fn run<T>(&self, m: usize, n: usize, y: &mut [T], ldc: usize, finish: impl Fn(i32, usize) -> T) {
        for i in 0..m {
            let row = self.a.get(i * self.lda..).and_then(|rest| rest.get(..self.k));
            let out = y.get_mut(i * ldc..).and_then(|rest| rest.get_mut(..n));
            let (Some(row), Some(out)) = (row, out) else { return };
            let mut weights = self.w;
            for (block, out) in out.chunks_mut(4).enumerate() {
                let j = block * 4;
                // The last channels that are fewer than four are computed with one of them again.
                let of = |c: usize| weights.get(c.min(out.len() - 1) * self.k..).and_then(|w| w.get(..self.k));
                let (Some(w0), Some(w1), Some(w2), Some(w3)) = (of(0), of(1), of(2), of(3)) else { return };
                let acc = dots(row, [w0, w1, w2, w3]);
                for (c, (out, acc)) in out.iter_mut().zip(acc).enumerate() {
                    let bias = self.bias.get(j + c).copied().unwrap_or(0);
                    *out = finish(acc.wrapping_add(bias), j + c);
                }
                weights = weights.get(4 * self.k..).unwrap_or(&[]);
            }
        }
    }
}

/// The wrapping sums of products of a row with four others; what is longer than the shortest is left.
#[inline(always)]
fn dots(x: &[i8], w: [&[i8]; 4]) -> [i32; 4] {
    let mut acc = [0i32; 4];
    let len = w.iter().fold(x.len(), |len, w| len.min(w.len()));
    if len == 0 {
        return acc;
    }
    let [first, second, third, fourth] = &mut acc;
    // SAFETY: `len` elements are read of each slice, which it does not exceed: the loop's vectors are predicated by it.
    // Nothing is written but the sums.
    unsafe {
        asm!(
            "dlstp.8 lr, {len}",
            "2:",
            "vldrb.u8 q0, [{x}], #16",
            "vldrb.u8 q1, [{w0}], #16",
            "vldrb.u8 q2, [{w1}], #16",
            "vmlava.s8 r0, q0, q1",
            "vldrb.u8 q1, [{w2}], #16",
            "vmlava.s8 r2, q0, q2",
            "vldrb.u8 q2, [{w3}], #16",
            "vmlava.s8 r4, q0, q1",
            "vmlava.s8 r8, q0, q2",
            "letp lr, 2b",
            len = in(reg) len,
            x = inout(reg) x.as_ptr() => _,
            w0 = inout(reg) w[0].as_ptr() => _,
            w1 = inout(reg) w[1].as_ptr() => _,
            w2 = inout(reg) w[2].as_ptr() => _,
            w3 = inout(reg) w[3].as_ptr() => _,
            inout("r0") *first,
            inout("r2") *second,
            inout("r4") *third,
            inout("r8") *fourth,
            out("lr") _,
            out("s0") _, out("s1") _, out("s2") _, out("s3") _,
            out("s4") _, out("s5") _, out("s6") _, out("s7") _,
            out("s8") _, out("s9") _, out("s10") _, out("s11") _,
            options(readonly, nostack),
        );
    }
    acc
}
