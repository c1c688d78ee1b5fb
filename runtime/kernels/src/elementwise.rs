//! The parameters of the elementwise kernels, and their value for one element.

use crate::requant::Bounds;

/// Quantised addition of two i8 tensors, as ONNX Runtime's `QLinearAdd` does it:
///
/// ```text
/// v = fma(a + a_offset, a_scale, fma(b + b_offset, b_scale, offset))
/// y = clamp(round_half_even(v) + zero_point, lo, hi)
/// ```
///
/// where `fma` rounds once and NaN gives `lo`. With the operator's scales `sa`,
/// `sb`, `sc` and zero points `za`, `zb`, `zc`:
///
/// * `a_scale = sa / sc`, `b_scale = sb / sc`,
///   `offset = zc - fma(a_scale, za, b_scale * zb)`, all in f32. If one operand
///   is broadcast, it is `b`, also in this formula.
/// * The other offsets and `zero_point` are 0. If the operator works in u8 and the
///   tensors here hold its values less 128, `a_offset` and `b_offset` are 128,
///   `zero_point` is -128, and the scales and `offset` are those of the u8 values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Add {
    /// Output units per unit of `a`.
    pub a_scale: f32,
    /// Output units per unit of `b`.
    pub b_scale: f32,
    /// Added before rounding, in output units: what the zero points come to.
    pub offset: f32,
    /// Added to a stored `a` first, wrapping.
    pub a_offset: i32,
    /// Added to a stored `b` first, wrapping.
    pub b_offset: i32,
    /// Added after rounding; beyond ±2^20 it counts as ±2^20.
    pub zero_point: i32,
    /// Smallest result.
    pub lo: i8,
    /// Largest result.
    pub hi: i8,
}

impl Add {
    #[inline]
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::new(self.zero_point, self.lo, self.hi)
    }

    #[inline]
    pub(crate) fn apply(&self, bounds: Bounds, a: i8, b: i8) -> i8 {
        let a = i32::from(a).wrapping_add(self.a_offset) as f32;
        let b = i32::from(b).wrapping_add(self.b_offset) as f32;
        bounds.quantize(crate::requant::fma(a, self.a_scale, crate::requant::fma(b, self.b_scale, self.offset)))
    }
}

/// Quantised multiplication of two i8 tensors, as ONNX Runtime's `QLinearMul` does
/// it:
///
/// ```text
/// v = ((a + a_offset) * (b + b_offset)) as f32 * scale + offset
/// y = clamp(round_half_even(v) + zero_point, lo, hi)
/// ```
///
/// where the product of integers wraps, the f32 product is rounded before
/// `offset` is added, and NaN gives `lo`. With the operator's scales `sa`, `sb`,
/// `sc` and zero points `za`, `zb`, `zc`:
///
/// * `scale = (sa * sb) / sc` in f32, `a_offset = -za`, `b_offset = -zb`,
///   `offset = zc` and `zero_point = 0`.
/// * If the operator works in u8 and the tensors here hold its values less 128,
///   `a_offset = 128 - za`, `b_offset = 128 - zb` and `zero_point = -128`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mul {
    /// Output units per product of a unit of `a` and one of `b`.
    pub scale: f32,
    /// Added to a stored `a` first, wrapping.
    pub a_offset: i32,
    /// Added to a stored `b` first, wrapping.
    pub b_offset: i32,
    /// Added before rounding, in output units.
    pub offset: f32,
    /// Added after rounding; beyond ±2^20 it counts as ±2^20.
    pub zero_point: i32,
    /// Smallest result.
    pub lo: i8,
    /// Largest result.
    pub hi: i8,
}

impl Mul {
    #[inline]
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::new(self.zero_point, self.lo, self.hi)
    }

    #[inline]
    pub(crate) fn apply(&self, bounds: Bounds, a: i8, b: i8) -> i8 {
        let a = i32::from(a).wrapping_add(self.a_offset);
        let b = i32::from(b).wrapping_add(self.b_offset);
        bounds.quantize(a.wrapping_mul(b) as f32 * self.scale + self.offset)
    }
}

/// Whether `b` can be repeated along `a`, and `out` holds the result.
#[inline]
pub(crate) fn broadcast_fits(a: usize, b: usize, out: usize) -> bool {
    let fits = a == out && (a == 0 || (b != 0 && a.is_multiple_of(b)));
    debug_assert!(fits, "elementwise: lengths {a} and {b} into {out}");
    fits && a != 0
}
