//! AVX2 and FMA on x86-64.
//!
//! Every kernel is a safe `#[target_feature]` function taking slices, which checks their sizes itself; calling one needs `unsafe` only for
//! the instruction set, and [`Avx2`] is the proof of that.
#![allow(unsafe_code, reason = "vector loads and stores, and calls into target-feature functions")]

mod chains_f32;
mod depthwise;
mod elementwise;
mod epilogue;
mod gemm;
mod gemm_f32;
mod lanes;
mod panel;
mod pool;

use crate::{Add, Backend, Depthwise, GemmOut, Mul, Pool, Requant, Weights, WeightsF32, scalar};

/// Output channels computed side by side: two vectors of eight i32 or f32.
const NR: usize = 16;

/// Proof that the CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2 {
    _private: (),
}

impl Avx2 {
    /// The token, if the CPU has AVX2 and FMA.
    ///
    /// With feature `std` the running CPU is asked; without, this is a matter of
    /// the target features the crate is compiled for.
    #[must_use]
    #[inline]
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        #[cfg(not(feature = "std"))]
        let found = cfg!(all(target_feature = "avx2", target_feature = "fma"));
        found.then_some(Self { _private: () })
    }
}

/// Calls a target-feature function from a method of [`Avx2`].
macro_rules! call {
    ($($function:ident)::+ ($($arg:expr),* $(,)?)) => {
        // SAFETY: the function needs AVX2 or AVX2 and FMA, and `self` exists only
        // where `Avx2::detect` found both.
        unsafe { $($function)::+($($arg),*) }
    };
}

impl Backend for Avx2 {
    #[inline]
    fn name(self) -> &'static str {
        "avx2"
    }

    fn gemm_packed_len(self, n: usize, k: usize) -> usize {
        gemm::packed_len(n, k)
    }

    fn gemm_pack(self, w: &[i8], n: usize, k: usize, packed: &mut [u8]) {
        gemm::pack(w, n, k, packed);
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
        if weights.packed.len() < gemm::packed_len(n, k) || scratch.len() < gemm::scratch_len(1, k) {
            return call!(gemm::gemm_canonical(a, lda, m, weights.canonical, n, k, bias, out, ldc, scratch));
        }
        call!(gemm::gemm(a, lda, m, weights.packed, n, k, bias, out, ldc, scratch));
    }

    fn depthwise_packed_len(self, channels: usize, taps: usize) -> usize {
        gemm::packed_len(channels, taps)
    }

    fn depthwise_pack(self, w: &[i8], channels: usize, taps: usize, packed: &mut [u8]) {
        gemm::pack(w, channels, taps, packed);
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
        if taps > depthwise::MAX_TAPS {
            return scalar::depthwise::depthwise(x, weights.canonical, bias, requant, y, shape);
        }
        if weights.packed.len() < gemm::packed_len(shape.channels, taps) {
            return call!(depthwise::depthwise_canonical(x, weights.canonical, bias, requant, y, shape));
        }
        call!(depthwise::depthwise(x, weights.packed, bias, requant, y, shape));
    }

    fn add(self, a: &[i8], b: &[i8], out: &mut [i8], p: &Add) {
        call!(elementwise::add(a, b, out, p));
    }

    fn add_in_place(self, ab: &mut [i8], b: &[i8], p: &Add) {
        call!(elementwise::add_in_place(ab, b, p));
    }

    fn mul(self, a: &[i8], b: &[i8], out: &mut [i8], p: &Mul) {
        call!(elementwise::mul(a, b, out, p));
    }

    fn mul_in_place(self, ab: &mut [i8], b: &[i8], p: &Mul) {
        call!(elementwise::mul_in_place(ab, b, p));
    }

    fn map(self, x: &[u8], table: &[u8; 256], out: &mut [u8]) {
        call!(elementwise::map(x, table, out));
    }

    fn map_in_place(self, x: &mut [u8], table: &[u8; 256]) {
        call!(elementwise::map_in_place(x, table));
    }

    fn quantize(self, x: &[f32], scale: f32, zero_point: i32, out: &mut [i8]) {
        call!(elementwise::quantize(x, scale, zero_point, out));
    }

    fn dequantize(self, x: &[i8], scale: f32, zero_point: i32, out: &mut [f32]) {
        call!(elementwise::dequantize(x, scale, zero_point, out));
    }

    fn max_pool(self, x: &[i8], y: &mut [i8], shape: &Pool) {
        call!(pool::max_pool(x, y, shape));
    }

    fn sum_rows(self, x: &[i8], rows: usize, channels: usize, row_stride: usize, acc: &mut [i32]) {
        call!(pool::sum_rows(x, rows, channels, row_stride, acc));
    }

    fn gemm_f32_packed_len(self, n: usize, k: usize) -> usize {
        gemm_f32::packed_len(n, k)
    }

    fn gemm_f32_pack(self, w: &[f32], n: usize, k: usize, packed: &mut [u8]) {
        gemm_f32::pack(w, n, k, packed);
    }

    fn gemm_f32(
        self,
        a: &[f32],
        lda: usize,
        m: usize,
        weights: WeightsF32<'_>,
        n: usize,
        k: usize,
        bias: &[f32],
        out: &mut [f32],
        ldc: usize,
    ) {
        if weights.packed.len() < gemm_f32::packed_len(n, k) {
            return call!(gemm_f32::gemm_canonical(a, lda, m, weights.canonical, n, k, bias, out, ldc));
        }
        call!(gemm_f32::gemm(a, lda, m, weights.packed, n, k, bias, out, ldc));
    }

    fn chains_f32(self, a: &[f32], lda: usize, m: usize, w: &[f32], n: usize, k: usize, out: &mut [f32]) {
        call!(chains_f32::chains(a, lda, m, w, n, k, out));
    }
}
