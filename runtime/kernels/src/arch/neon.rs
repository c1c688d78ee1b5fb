//! NEON on 64-bit ARM, and NEON with the dot product of ARMv8.2.
//!
//! Only the int8 matrix product and depthwise convolution are written by hand; NEON belongs to every such target, and the
//! compiler makes vectors of the scalar loops by itself.
#![allow(unsafe_code, reason = "vector loads and stores, and an instruction that has no stable intrinsic")]

mod depthwise;
mod dots;
mod epilogue;
mod gemm;

use crate::{Backend, Depthwise, GemmOut, Requant, Weights, scalar};

/// Output channels computed side by side: four vectors of four i32.
const NR: usize = 16;

/// Proof that the CPU has NEON, as the target demands.
#[derive(Clone, Copy, Debug)]
pub struct Neon {
    _private: (),
}

/// Proof that the CPU has NEON and its dot product (`FEAT_DotProd`).
#[derive(Clone, Copy, Debug)]
pub struct NeonDot {
    neon: Neon,
}

impl Neon {
    /// The token.
    #[must_use]
    #[inline]
    pub fn detect() -> Option<Self> {
        Some(Self { _private: () })
    }
}

impl NeonDot {
    /// The token, if the CPU has the dot product.
    ///
    /// With feature `std` the running CPU is asked; without, this is a matter of the target features the crate is compiled
    /// for.
    #[must_use]
    #[inline]
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::arch::is_aarch64_feature_detected!("dotprod");
        #[cfg(not(feature = "std"))]
        let found = cfg!(target_feature = "dotprod");
        Neon::detect().filter(|_| found).map(|neon| Self { neon })
    }
}

/// The methods of [`Backend`] that differ by the matrix product.
macro_rules! products {
    ($kernel:ty) => {
        fn gemm_packed_len(self, n: usize, k: usize) -> usize {
            gemm::packed_len::<$kernel>(n, k)
        }

        fn gemm_pack(self, w: &[i8], n: usize, k: usize, packed: &mut [u8]) {
            gemm::pack::<$kernel>(w, n, k, packed);
        }

        fn gemm_scratch_len(self, m: usize, n: usize, k: usize) -> usize {
            let _ = n;
            gemm::scratch_len::<$kernel>(m, k)
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
            let packed = gemm::packed_len::<$kernel>(n, k);
            if weights.packed.len() < packed || scratch.len() < gemm::scratch_len::<$kernel>(1, k) {
                // SAFETY: `self` exists only where `detect` found the kernel's instructions.
                return unsafe { gemm::gemm_canonical::<$kernel>(a, lda, m, weights.canonical, n, k, bias, out, ldc) };
            }
            // SAFETY: as above.
            unsafe { gemm::gemm::<$kernel>(a, lda, m, weights.packed, n, k, bias, out, ldc, scratch) }
        }
    };
}

impl Backend for Neon {
    #[inline]
    fn name(self) -> &'static str {
        "neon"
    }

    products!(gemm::Long);

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
            return depthwise::depthwise_canonical(x, weights.canonical, bias, requant, y, shape);
        }
        depthwise::depthwise(x, weights.packed, bias, requant, y, shape);
    }
}

impl Backend for NeonDot {
    #[inline]
    fn name(self) -> &'static str {
        "neondot"
    }

    products!(gemm::Dot);

    fn depthwise_packed_len(self, channels: usize, taps: usize) -> usize {
        self.neon.depthwise_packed_len(channels, taps)
    }

    fn depthwise_pack(self, w: &[i8], channels: usize, taps: usize, packed: &mut [u8]) {
        self.neon.depthwise_pack(w, channels, taps, packed);
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
        self.neon.depthwise(x, weights, bias, requant, y, shape);
    }
}
