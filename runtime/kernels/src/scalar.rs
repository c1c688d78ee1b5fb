//! The reference bodies.

pub(crate) mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod pool;

use crate::Backend;

/// The reference backend: plain Rust, on every target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scalar;

impl Backend for Scalar {
    #[inline]
    fn name(self) -> &'static str {
        "scalar"
    }
}
