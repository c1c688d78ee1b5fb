//! From sixteen i32 accumulators to what is stored.

use core::arch::aarch64::*;

use super::NR;
use crate::requant::Bounds;

/// Sixteen i32 or f32 lanes, one per output channel.
pub(super) type Group<T> = [T; 4];

/// [`Bounds`], in every lane.
#[derive(Clone, Copy)]
pub(super) struct VectorBounds {
    lo: float32x4_t,
    hi: float32x4_t,
    zero_point: int32x4_t,
}

impl VectorBounds {
    #[inline]
    pub(super) fn new(bounds: Bounds) -> Self {
        // SAFETY: NEON belongs to the target.
        unsafe {
            Self { lo: vdupq_n_f32(bounds.lo), hi: vdupq_n_f32(bounds.hi), zero_point: vdupq_n_s32(bounds.zero_point) }
        }
    }

    /// [`Bounds::quantize`] of sixteen values.
    #[inline]
    pub(super) fn quantize(&self, [a, b, c, d]: Group<float32x4_t>) -> int8x16_t {
        // SAFETY: NEON belongs to the target.
        unsafe {
            let low = vcombine_s16(vqmovn_s32(self.round(a)), vqmovn_s32(self.round(b)));
            let high = vcombine_s16(vqmovn_s32(self.round(c)), vqmovn_s32(self.round(d)));
            vcombine_s8(vqmovn_s16(low), vqmovn_s16(high))
        }
    }

    #[inline]
    fn round(&self, x: float32x4_t) -> int32x4_t {
        // `maxnm` gives the number where the other is NaN, as the reference does; `cvtn` rounds half to even.
        // SAFETY: NEON belongs to the target.
        unsafe { vaddq_s32(vcvtnq_s32_f32(vminnmq_f32(vmaxnmq_f32(x, self.lo), self.hi)), self.zero_point) }
    }
}

/// Sixteen accumulators as f32, times sixteen scales.
#[inline]
pub(super) fn scaled([a, b, c, d]: Group<int32x4_t>, scale: Group<float32x4_t>) -> Group<float32x4_t> {
    // SAFETY: NEON belongs to the target.
    unsafe {
        [
            vmulq_f32(vcvtq_f32_s32(a), scale[0]),
            vmulq_f32(vcvtq_f32_s32(b), scale[1]),
            vmulq_f32(vcvtq_f32_s32(c), scale[2]),
            vmulq_f32(vcvtq_f32_s32(d), scale[3]),
        ]
    }
}

/// The biases of the channels from `first` on; zero beyond the last.
#[inline]
pub(super) fn bias_at(bias: &[i32], first: usize) -> Group<int32x4_t> {
    let [a, b, c, d] = padded(bias, first);
    // SAFETY: the arrays are as large as the vectors.
    unsafe { [vld1q_s32(a.as_ptr()), vld1q_s32(b.as_ptr()), vld1q_s32(c.as_ptr()), vld1q_s32(d.as_ptr())] }
}

/// The scales of the channels from `first` on, from one for all or one for each.
#[inline]
pub(super) fn scales_at(scale: &[f32], first: usize) -> Group<float32x4_t> {
    let [a, b, c, d] = match scale {
        [all] => [[*all; 4]; 4],
        each => padded(each, first),
    };
    // SAFETY: the arrays are as large as the vectors.
    unsafe { [vld1q_f32(a.as_ptr()), vld1q_f32(b.as_ptr()), vld1q_f32(c.as_ptr()), vld1q_f32(d.as_ptr())] }
}

/// Sixteen values from `first` on, zero beyond the end of `values`.
#[inline]
fn padded<T: Copy + Default>(values: &[T], first: usize) -> [[T; 4]; 4] {
    let values = values.get(first..).unwrap_or_default();
    if let Some(all) = values.as_chunks().0.first_chunk() {
        return *all;
    }
    let mut some = [[T::default(); 4]; 4];
    for (to, from) in some.as_flattened_mut().iter_mut().zip(values) {
        *to = *from;
    }
    some
}

#[inline]
pub(super) fn load(from: &[u8; 16]) -> int8x16_t {
    // SAFETY: the array is as large as the vector, and NEON belongs to the target.
    unsafe { vld1q_s8(from.as_ptr().cast()) }
}

/// Stores as many of sixteen i8 as `to`, at most sixteen long, has room for.
#[inline]
pub(super) fn put_i8(to: &mut [i8], values: int8x16_t) {
    if let Some(all) = to.first_chunk_mut::<NR>() {
        // SAFETY: the array is as large as the vector.
        return unsafe { vst1q_s8(all.as_mut_ptr(), values) };
    }
    let mut buffer = [0; NR];
    // SAFETY: the array is as large as the vector.
    unsafe { vst1q_s8(buffer.as_mut_ptr(), values) }
    to.iter_mut().zip(buffer).for_each(|(to, from)| *to = from);
}

/// Stores as many of sixteen i32 as `to`, at most sixteen long, has room for.
#[inline]
pub(super) fn put_i32(to: &mut [i32], values: Group<int32x4_t>) {
    let mut buffer = [[0; 4]; 4];
    for (quarter, value) in buffer.iter_mut().zip(values) {
        // SAFETY: the array is as large as the vector.
        unsafe { vst1q_s32(quarter.as_mut_ptr(), value) }
    }
    to.iter_mut().zip(buffer.as_flattened()).for_each(|(to, from)| *to = *from);
}

/// Stores as many of sixteen f32 as `to`, at most sixteen long, has room for.
#[inline]
pub(super) fn put_f32(to: &mut [f32], values: Group<float32x4_t>) {
    let mut buffer = [[0.0; 4]; 4];
    for (quarter, value) in buffer.iter_mut().zip(values) {
        // SAFETY: the array is as large as the vector.
        unsafe { vst1q_f32(quarter.as_mut_ptr(), value) }
    }
    to.iter_mut().zip(buffer.as_flattened()).for_each(|(to, from)| *to = *from);
}
