//! Backends for particular instruction sets.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;

#[cfg(arm_dsp)]
mod dsp;
#[cfg(arm_mve)]
mod mve;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512vnni::Avx512Vnni;
#[cfg(arm_dsp)]
pub use dsp::Dsp;
#[cfg(arm_fma)]
pub use dsp::fma;
#[cfg(arm_mve)]
pub use mve::Mve;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
pub use neon::{Neon, NeonDot};
