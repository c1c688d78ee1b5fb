//! From sixteen i32 accumulators, or f32 values, to what is stored.

use core::arch::x86_64::*;

use super::NR;
use super::lanes::*;
use crate::requant::Bounds;

/// Sixteen i32 or f32 lanes, one per output channel.
pub(super) type Pair<T> = [T; 2];

/// [`Bounds`], in every lane.
#[derive(Clone, Copy)]
pub(super) struct VectorBounds {
    lo: __m256,
    hi: __m256,
    zero_point: __m256i,
}

impl VectorBounds {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            lo: _mm256_set1_ps(bounds.lo),
            hi: _mm256_set1_ps(bounds.hi),
            zero_point: _mm256_set1_epi32(bounds.zero_point),
        }
    }

    /// [`Bounds::quantize`] of sixteen values.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn quantize(&self, x: Pair<__m256>) -> __m128i {
        let [low, high] = [self.round(x[0]), self.round(x[1])];
        // Packing works within 128-bit halves; bring the quarters into order.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn round(&self, x: __m256) -> __m256i {
        // `max` gives its second operand where one is NaN, as the reference does.
        let x = _mm256_min_ps(_mm256_max_ps(x, self.lo), self.hi);
        // Half to even: Rust runs with the rounding mode at its default.
        _mm256_add_epi32(_mm256_cvtps_epi32(x), self.zero_point)
    }
}

/// Sixteen accumulators as f32, times sixteen scales.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scaled(acc: Pair<__m256i>, scale: Pair<__m256>) -> Pair<__m256> {
    [_mm256_mul_ps(_mm256_cvtepi32_ps(acc[0]), scale[0]), _mm256_mul_ps(_mm256_cvtepi32_ps(acc[1]), scale[1])]
}

/// The biases of the channels from `first` on; zero beyond the last.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn bias_at(bias: &[i32], first: usize) -> Pair<__m256i> {
    let [low, high] = padded(bias, first);
    [load_i32x8(&low), load_i32x8(&high)]
}

/// The f32 biases or scales of the channels from `first` on; zero beyond the last.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn floats_at(values: &[f32], first: usize) -> Pair<__m256> {
    let [low, high] = padded(values, first);
    [load_f32x8(&low), load_f32x8(&high)]
}

/// The scales of the channels from `first` on, from one for all or one for each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scales_at(scale: &[f32], first: usize) -> Pair<__m256> {
    match scale {
        [all] => [_mm256_set1_ps(*all); 2],
        each => floats_at(each, first),
    }
}

/// Sixteen values from `first` on, zero beyond the end of `values`.
#[inline]
fn padded<T: Copy + Default>(values: &[T], first: usize) -> [[T; 8]; 2] {
    let values = values.get(first..).unwrap_or_default();
    if let Some(all) = values.as_chunks().0.first_chunk() {
        return *all;
    }
    let mut some = [[T::default(); 8]; 2];
    for (to, from) in some.as_flattened_mut().iter_mut().zip(values) {
        *to = *from;
    }
    some
}

/// Stores as many of sixteen i8 as `to`, at most sixteen long, has room for.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn put_i8(to: &mut [i8], values: __m128i) {
    if let Some(all) = to.first_chunk_mut() {
        return store_i8x16(all, values);
    }
    let mut buffer = [0; NR];
    store_i8x16(&mut buffer, values);
    for (to, from) in to.iter_mut().zip(buffer) {
        *to = from;
    }
}

/// Stores as many of sixteen i32 as `to`, at most sixteen long, has room for.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn put_i32(to: &mut [i32], values: Pair<__m256i>) {
    let mut buffer = [[0; 8]; 2];
    for (half, value) in buffer.iter_mut().zip(values) {
        store_i32x8(half, value);
    }
    put(to, buffer.as_flattened());
}

/// Stores as many of sixteen f32 as `to`, at most sixteen long, has room for.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn put_f32(to: &mut [f32], values: Pair<__m256>) {
    let mut buffer = [[0.0; 8]; 2];
    for (half, value) in buffer.iter_mut().zip(values) {
        store_f32x8(half, value);
    }
    put(to, buffer.as_flattened());
}

#[inline]
fn put<T: Copy>(to: &mut [T], values: &[T]) {
    let values: Option<&[T; NR]> = values.first_chunk();
    match (to.first_chunk_mut(), values) {
        (Some(all), Some(values)) => *all = *values,
        (None, Some(values)) => {
            for (to, from) in to.iter_mut().zip(values) {
                *to = *from;
            }
        }
        (_, None) => {}
    }
}
