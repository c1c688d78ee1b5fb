//! Loads and stores between vectors and arrays of the same size.

use core::arch::x86_64::*;

macro_rules! lanes {
    ($($(#[$doc:meta])* $load:ident, $store:ident: $elem:ty, $count:literal, $vector:ty, $loadu:ident, $storeu:ident;)*) => {
        $(
            $(#[$doc])*
            #[inline]
            #[target_feature(enable = "avx2")]
            pub(super) fn $load(from: &[$elem; $count]) -> $vector {
                // SAFETY: the array is as large as the vector, and the load
                // needs no alignment.
                unsafe { $loadu(from.as_ptr().cast()) }
            }

            $(#[$doc])*
            #[inline]
            #[target_feature(enable = "avx2")]
            #[allow(dead_code, reason = "one of each pair")]
            pub(super) fn $store(to: &mut [$elem; $count], value: $vector) {
                // SAFETY: the array is as large as the vector, and the store
                // needs no alignment.
                unsafe { $storeu(to.as_mut_ptr().cast(), value) }
            }
        )*
    };
}

lanes! {
    load_i8x16, store_i8x16: i8, 16, __m128i, _mm_loadu_si128, _mm_storeu_si128;
    load_i8x32, store_i8x32: i8, 32, __m256i, _mm256_loadu_si256, _mm256_storeu_si256;
    load_u8x16, store_u8x16: u8, 16, __m128i, _mm_loadu_si128, _mm_storeu_si128;
    load_u8x32, store_u8x32: u8, 32, __m256i, _mm256_loadu_si256, _mm256_storeu_si256;
    load_i32x8, store_i32x8: i32, 8, __m256i, _mm256_loadu_si256, _mm256_storeu_si256;
    load_f32x8, store_f32x8: f32, 8, __m256, _mm256_loadu_ps, _mm256_storeu_ps;
}
