//! From an i32 accumulator to an i8 activation: the one rounding rule.

/// Zero points beyond this magnitude are treated as this magnitude, so that the
/// bounds below stay exact in f32 and inside the range of [`MAGIC`].
const ZERO_POINT_LIMIT: i32 = 1 << 20;

/// 1.5 * 2^23: adding it to `|x| < 2^22` leaves no fraction bits, so the
/// addition itself rounds to an integer, half to even.
const MAGIC: f32 = 12_582_912.0;

/// How to turn the accumulators of `n` output channels into i8.
///
/// ```text
/// y = clamp(round_half_even(acc as f32 * scale[channel]) + zero_point, lo, hi)
/// ```
///
/// The product is rounded to f32 once, as written. Everything saturates; a NaN
/// product (an infinite scale times zero, or a NaN scale) gives `lo`. If
/// `lo > hi` the result is `hi`. A zero point beyond ±2^20 counts as ±2^20.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requant<'a> {
    /// Output units per accumulator unit; one for all channels, or one for each.
    pub scale: &'a [f32],
    /// The stored value that stands for zero.
    pub zero_point: i32,
    /// Smallest result; above -128 where an activation such as ReLU is fused in.
    pub lo: i8,
    /// Largest result.
    pub hi: i8,
}

impl Requant<'_> {
    /// Whether `scale` serves `n` channels.
    #[inline]
    pub(crate) fn fits(&self, n: usize) -> bool {
        scale_fits(self.scale, n)
    }

    /// The result for one accumulator of output channel `channel`.
    ///
    /// A channel without a scale has scale zero.
    #[inline]
    #[must_use]
    pub fn apply(&self, acc: i32, channel: usize) -> i8 {
        Bounds::new(self.zero_point, self.lo, self.hi).quantize(acc as f32 * scale_at(self.scale, channel))
    }
}

/// Whether `scale` is one value for all of `n` channels, or one for each.
#[inline]
pub(crate) fn scale_fits(scale: &[f32], n: usize) -> bool {
    scale.len() == 1 || scale.len() >= n
}

/// The scale of `channel`, from one value for all channels or one for each.
#[inline]
pub(crate) fn scale_at(scale: &[f32], channel: usize) -> f32 {
    match scale {
        [all] => *all,
        each => each.get(channel).copied().unwrap_or(0.0),
    }
}

/// An i8 range and zero point, made ready for clamping before rounding.
///
/// The bounds less the zero point are integers, so clamping to them first and
/// rounding second gives the same as the other way around.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// `lo - zero_point`, exact.
    pub(crate) lo: f32,
    /// `hi - zero_point`, exact.
    pub(crate) hi: f32,
    pub(crate) zero_point: i32,
}

impl Bounds {
    #[inline]
    pub(crate) fn new(zero_point: i32, lo: i8, hi: i8) -> Self {
        let zero_point = zero_point.clamp(-ZERO_POINT_LIMIT, ZERO_POINT_LIMIT);
        Self { lo: (i32::from(lo) - zero_point) as f32, hi: (i32::from(hi) - zero_point) as f32, zero_point }
    }

    /// `clamp(round_half_even(x) + zero_point, lo, hi)`; NaN gives `lo`.
    #[inline]
    pub(crate) fn quantize(self, x: f32) -> i8 {
        // NaN fails the first comparison. Not `max` and `min`, which are calls where no instruction is both.
        let x = if x > self.lo { x } else { self.lo };
        let x = if x < self.hi { x } else { self.hi };
        let rounded = (x + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32;
        (rounded + self.zero_point) as i8
    }
}

/// `x` rounded to the nearest integer, ties to the even one.
///
/// Below 2^22 in magnitude this is two additions; a result of zero is then
/// `+0.0` whatever the sign of `x`. NaN and infinities come back unchanged.
#[inline]
#[must_use]
pub fn round_half_even(x: f32) -> f32 {
    if x.abs() < 4_194_304.0 { (x + MAGIC) - MAGIC } else { libm::rintf(x) }
}

/// `a * b + c`, rounded once.
#[cfg(not(arm_fma))]
#[inline]
#[must_use]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    libm::fmaf(a, b, c)
}

#[cfg(arm_fma)]
pub use crate::arch::fma;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even() {
        for (x, y) in [
            (0.5, 0.0),
            (1.5, 2.0),
            (2.5, 2.0),
            (-0.5, 0.0),
            (-1.5, -2.0),
            (-2.5, -2.0),
            (0.499_999_97, 0.0),
            (4_194_303.5, 4_194_304.0),
            (4_194_304.5, 4_194_304.0),
            (1e30, 1e30),
        ] {
            assert_eq!(round_half_even(x), y, "{x}");
        }
        assert!(round_half_even(f32::NAN).is_nan());
    }

    #[test]
    fn clamping_first_equals_clamping_last() {
        for zero_point in -128..=127 {
            for (lo, hi) in [(-128, 127), (-3, 77), (zero_point as i8, 127)] {
                let bounds = Bounds::new(zero_point, lo, hi);
                for half in -1200..1200 {
                    let x = half as f32 * 0.5;
                    let last = (libm::rintf(x) as i32 + zero_point).clamp(i32::from(lo), i32::from(hi));
                    assert_eq!(i32::from(bounds.quantize(x)), last);
                }
            }
        }
    }

    #[test]
    fn requant_saturates_and_defines_nan() {
        let requant = |scale| Requant { scale, zero_point: 5, lo: -100, hi: 90 };
        assert_eq!(requant(&[1.0]).apply(i32::MAX, 7), 90);
        assert_eq!(requant(&[1.0]).apply(i32::MIN, 7), -100);
        assert_eq!(requant(&[f32::INFINITY]).apply(0, 0), -100);
        assert_eq!(requant(&[f32::NAN]).apply(1, 0), -100);
        assert_eq!(requant(&[0.5, 0.25]).apply(6, 1), 7);
        let far = Requant { zero_point: i32::MAX, ..requant(&[1.0]) };
        assert_eq!(far.apply(0, 0), 90);
    }
}
