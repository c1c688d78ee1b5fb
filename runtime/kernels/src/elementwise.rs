//! The parameters of the elementwise kernels, and their value for one element.

use crate::requant::Bounds;

/// Quantised addition of two i8 tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Add {
    /// Output units per unit of `a`.
    pub a_scale: f32,
    /// Output units per unit of `b`.
    pub b_scale: f32,
    /// What is added before rounding, in output units.
    pub offset: f32,
    /// Added to a stored `a` first: 128 if it is a u8 shifted to i8, or minus
    /// its zero point.
    pub a_offset: i32,
    /// The same for `b`.
    pub b_offset: i32,
    /// Added after rounding.
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
        bounds.quantize((a * self.a_scale + self.offset) + b * self.b_scale)
    }
}

/// Quantised multiplication of two i8 tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mul {
    /// Output units per product of a unit of `a` and one of `b`.
    pub scale: f32,
    /// Added to a stored `a` first: minus its zero point.
    pub a_offset: i32,
    /// The same for `b`.
    pub b_offset: i32,
    /// Added before rounding, in output units.
    pub offset: f32,
    /// Added after rounding.
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
    let fits = a == out && (a == 0 || (b != 0 && a % b == 0));
    debug_assert!(fits, "elementwise: lengths {a} and {b} into {out}");
    fits && a != 0
}
