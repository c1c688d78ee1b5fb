//! AVX-512 with VNNI on x86-64: the int8 matrix product and depthwise convolution. The rest is [`Avx2`]'s.
//!
//! Kernels are safe `#[target_feature]` functions, as those of [`Avx2`] are.
#![allow(unsafe_code, reason = "vector loads and stores, and calls into target-feature functions")]

mod depthwise;
mod gemm;
mod panel;

use crate::{Add, Avx2, Backend, Depthwise, GemmOut, Mul, Pool, Requant, Weights, WeightsF32, scalar};

/// Proof that the CPU has AVX-512 (F, BW, VL, VNNI), AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni {
    avx2: Avx2,
}

impl Avx512Vnni {
    /// The token, if the CPU has AVX-512 (F, BW, VL, VNNI), AVX2 and FMA, and the system saves their registers.
    ///
    /// With feature `std` the running CPU is asked; without, this is a matter of the target features the crate is compiled
    /// for.
    #[must_use]
    #[inline]
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512vnni");
        #[cfg(not(feature = "std"))]
        let found = cfg!(all(
            target_feature = "avx512f",
            target_feature = "avx512bw",
            target_feature = "avx512vl",
            target_feature = "avx512vnni"
        ));
        Avx2::detect().filter(|_| found).map(|avx2| Self { avx2 })
    }
}

/// Methods that are those of [`Avx2`].
macro_rules! of_avx2 {
    ($(fn $name:ident(self $(, $arg:ident: $ty:ty)*) $(-> $ret:ty)?;)*) => {
        $(
            #[inline]
            fn $name(self $(, $arg: $ty)*) $(-> $ret)? {
                self.avx2.$name($($arg),*)
            }
        )*
    };
}

impl Backend for Avx512Vnni {
    #[inline]
    fn name(self) -> &'static str {
        "avx512vnni"
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
            // SAFETY: the function needs what `detect` found, and `self` exists only then.
            return unsafe { gemm::gemm_canonical(a, lda, m, weights.canonical, n, k, bias, out, ldc, scratch) };
        }
        // SAFETY: as above.
        unsafe { gemm::gemm(a, lda, m, weights.packed, n, k, bias, out, ldc, scratch) }
    }

    fn depthwise_packed_len(self, channels: usize, taps: usize) -> usize {
        depthwise::packed_len(channels, taps)
    }

    fn depthwise_pack(self, w: &[i8], channels: usize, taps: usize, packed: &mut [u8]) {
        depthwise::pack(w, channels, taps, packed);
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
        if weights.packed.len() < depthwise::packed_len(shape.channels, taps) {
            // SAFETY: as above.
            return unsafe { depthwise::depthwise_canonical(x, weights.canonical, bias, requant, y, shape) };
        }
        // SAFETY: as above.
        unsafe { depthwise::depthwise(x, weights.packed, bias, requant, y, shape) }
    }

    of_avx2! {
        fn add(self, a: &[i8], b: &[i8], out: &mut [i8], p: &Add);
        fn add_in_place(self, ab: &mut [i8], b: &[i8], p: &Add);
        fn mul(self, a: &[i8], b: &[i8], out: &mut [i8], p: &Mul);
        fn mul_in_place(self, ab: &mut [i8], b: &[i8], p: &Mul);
        fn map(self, x: &[u8], table: &[u8; 256], out: &mut [u8]);
        fn map_in_place(self, x: &mut [u8], table: &[u8; 256]);
        fn quantize(self, x: &[f32], scale: f32, zero_point: i32, out: &mut [i8]);
        fn dequantize(self, x: &[i8], scale: f32, zero_point: i32, out: &mut [f32]);
        fn max_pool(self, x: &[i8], y: &mut [i8], shape: &Pool);
        fn sum_rows(
            self, x: &[i8], rows: usize, channels: usize, row_stride: usize, acc: &mut [i32]
        );
        fn gemm_f32_packed_len(self, n: usize, k: usize) -> usize;
        fn gemm_f32_pack(self, w: &[f32], n: usize, k: usize, packed: &mut [u8]);
        fn gemm_f32(
            self, a: &[f32], lda: usize, m: usize, weights: WeightsF32<'_>, n: usize, k: usize,
            bias: &[f32], out: &mut [f32], ldc: usize
        );
        fn chains_f32(self, a: &[f32], lda: usize, m: usize, w: &[f32], n: usize, k: usize, out: &mut [f32]);
    }
}
