//! The choice of a backend at run time.

#[cfg(arm_dsp)]
use crate::Dsp;
#[cfg(arm_mve)]
use crate::Mve;
use crate::{Add, Backend, Depthwise, GemmOut, Mul, Pool, Requant, Scalar, Weights, WeightsF32, Windows};
#[cfg(target_arch = "x86_64")]
use crate::{Avx2, Avx512Vnni};
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
use crate::{Neon, NeonDot};

/// Any of the backends of this target, itself a backend.
///
/// Packed weights belong to the backend that packed them: keep one `Best` for
/// packing and running.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Best {
    /// The reference.
    Scalar(Scalar),
    /// AVX2 and FMA on x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 with VNNI on x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// NEON on 64-bit ARM.
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon(Neon),
    /// NEON with its dot product.
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    NeonDot(NeonDot),
    /// The DSP extension of 32-bit ARM.
    #[cfg(arm_dsp)]
    Dsp(Dsp),
    /// The vectors of ARMv8.1-M.
    #[cfg(arm_mve)]
    Mve(Mve),
}

/// The fastest backend of the running CPU.
#[must_use]
pub fn best() -> Best {
    available().last().unwrap_or(Best::Scalar(Scalar))
}

/// The fastest backend that the target is known to have: for firmware, which links one backend and never asks.
#[cfg(all(arm_dsp, not(arm_mve)))]
pub type Native = Dsp;
/// The fastest backend that the target is known to have: for firmware, which links one backend and never asks.
#[cfg(arm_mve)]
pub type Native = Mve;
/// The fastest backend that the target is known to have: for firmware, which links one backend and never asks.
#[cfg(not(arm_dsp))]
pub type Native = Scalar;

/// The token of [`Native`].
#[must_use]
pub const fn native() -> Native {
    #[cfg(all(arm_dsp, not(arm_mve)))]
    return Dsp::new();
    #[cfg(arm_mve)]
    return Mve::new();
    #[cfg(not(arm_dsp))]
    Scalar
}

/// Whichever of these belongs to [`native`]: for constants of several targets that are computed elsewhere.
#[must_use]
pub const fn of_native(scalar: usize, dsp: usize, mve: usize) -> usize {
    let (_, _, _) = (scalar, dsp, mve);
    #[cfg(all(arm_dsp, not(arm_mve)))]
    return dsp;
    #[cfg(arm_mve)]
    return mve;
    #[cfg(not(arm_dsp))]
    scalar
}

/// Every backend of the running CPU, slowest first.
pub fn available() -> impl Iterator<Item = Best> {
    let found = core::iter::once(Best::Scalar(Scalar));
    #[cfg(target_arch = "x86_64")]
    let found = found.chain(Avx2::detect().map(Best::Avx2)).chain(Avx512Vnni::detect().map(Best::Avx512Vnni));
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    let found = found.chain(Neon::detect().map(Best::Neon)).chain(NeonDot::detect().map(Best::NeonDot));
    #[cfg(arm_dsp)]
    let found = found.chain(Dsp::detect().map(Best::Dsp));
    #[cfg(arm_mve)]
    let found = found.chain(Mve::detect().map(Best::Mve));
    found
}

macro_rules! forward {
    ($(fn $name:ident(self $(, $arg:ident: $ty:ty)*) $(-> $ret:ty)?;)*) => {
        impl Backend for Best {
            $(
                #[inline]
                fn $name(self $(, $arg: $ty)*) $(-> $ret)? {
                    match self {
                        Best::Scalar(backend) => backend.$name($($arg),*),
                        #[cfg(target_arch = "x86_64")]
                        Best::Avx2(backend) => backend.$name($($arg),*),
                        #[cfg(target_arch = "x86_64")]
                        Best::Avx512Vnni(backend) => backend.$name($($arg),*),
                        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                        Best::Neon(backend) => backend.$name($($arg),*),
                        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                        Best::NeonDot(backend) => backend.$name($($arg),*),
                        #[cfg(arm_dsp)]
                        Best::Dsp(backend) => backend.$name($($arg),*),
                        #[cfg(arm_mve)]
                        Best::Mve(backend) => backend.$name($($arg),*),
                    }
                }
            )*
        }
    };
}

forward! {
    fn name(self) -> &'static str;
    fn gemm_packed_len(self, n: usize, k: usize) -> usize;
    fn gemm_pack(self, w: &[i8], n: usize, k: usize, packed: &mut [u8]);
    fn gemm_scratch_len(self, m: usize, n: usize, k: usize) -> usize;
    fn gemm(
        self, a: &[i8], lda: usize, m: usize, weights: Weights<'_>, n: usize, k: usize,
        bias: &[i32], out: GemmOut<'_>, ldc: usize, scratch: &mut [u8]
    );
    fn conv_scratch_len(self, windows: &Windows, n: usize) -> usize;
    fn conv(
        self, x: &[i8], windows: &Windows, border: i8, weights: Weights<'_>, n: usize, bias: &[i32],
        out: GemmOut<'_>, ldc: usize, scratch: &mut [u8]
    );
    fn depthwise_packed_len(self, channels: usize, taps: usize) -> usize;
    fn depthwise_pack(self, w: &[i8], channels: usize, taps: usize, packed: &mut [u8]);
    fn depthwise(
        self, x: &[i8], weights: Weights<'_>, bias: &[i32], requant: Requant<'_>,
        y: &mut [i8], shape: &Depthwise
    );
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
