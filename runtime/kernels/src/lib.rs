//! The inner loops of Dunlin: int8 and f32 kernels.
//!
//! [`Backend`] lists the few loops an inference engine spends its time in. Its
//! provided methods are the scalar reference; a backend is a zero-size token
//! proving that the CPU has some instruction set, and it overrides the loops it
//! has a faster body for. **Every backend gives the bits of the reference**
//! (`tests/conform.rs` compares them), so the choice of backend is never visible
//! in a result. The one exception is the payload and sign of an f32 NaN.
//!
//! ```
//! use dunlin_kernels::{Backend, GemmOut, Requant, Weights, best};
//!
//! let backend = best();
//! let (m, n, k) = (2, 3, 4);
//! let a = [1i8; 8]; // [m][k]
//! let w = [2i8; 12]; // [n][k]
//! let requant = Requant { scale: &[0.5], zero_point: 1, lo: -128, hi: 127 };
//! let mut y = [0i8; 6]; // [m][n]
//! // Without packed weights and scratch the result is the same, only slower.
//! let weights = Weights { canonical: &w, packed: &[] };
//! backend.gemm(&a, k, m, weights, n, k, &[], GemmOut::I8(&mut y, requant), n, &mut []);
//! assert_eq!(y, [5; 6]);
//! ```
//!
//! # Conventions
//!
//! * Activations are stored `[H][W][C]`, channels contiguous. Lengths, strides
//!   and leading dimensions count elements; packed and scratch sizes count bytes.
//! * Integer accumulators are `i32` and wrap. The zero point of an input is
//!   already folded into the bias.
//! * Nothing here panics or allocates. A call whose slices are too short for its
//!   shape **computes nothing**: it leaves its output alone. Debug builds assert.
//!
//! # Features
//!
//! * `std`: [`best`] asks the running CPU. Without it, a SIMD backend exists only
//!   if the crate is compiled for its instruction set (`-C target-feature=+avx2,+fma`).
#![no_std]
#![deny(missing_docs)]

#[cfg(feature = "std")]
extern crate std;

mod arch;
mod backend;
mod best;
mod elementwise;
mod footprint;
mod gather;
mod gemm;
mod requant;
mod scalar;
mod window;

#[cfg(arm_dsp)]
pub use arch::Dsp;
#[cfg(arm_mve)]
pub use arch::Mve;
#[cfg(target_arch = "x86_64")]
pub use arch::{Avx2, Avx512Vnni};
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
pub use arch::{Neon, NeonDot};
pub use backend::Backend;
pub use best::{Best, Native, available, best, native, of_native};
pub use elementwise::{Add, Mul};
pub use footprint::Kernels;
pub use gather::Windows;
pub use gemm::{GemmOut, Weights, WeightsF32};
pub use requant::{Requant, fma, round_half_even};
pub use scalar::Scalar;
pub use window::{Depthwise, Pool};
