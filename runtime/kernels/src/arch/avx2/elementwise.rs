//! Elementwise kernels, sixteen elements at a time.

use core::arch::x86_64::*;

use super::epilogue::*;
use super::lanes::*;
use crate::elementwise::broadcast_fits;
use crate::requant::Bounds;
use crate::scalar::elementwise::{self as scalar, equal_lengths};
use crate::{Add, Mul};

/// Elements of a vector of i8.
const LANES: usize = 16;

/// A shorter `b` is repeated up to this length first, so that few elements are
/// left over when rows are cut into vectors.
const PATTERN: usize = 512;

/// [`Backend::add`](crate::Backend::add).
#[target_feature(enable = "avx2,fma")]
pub(super) fn add(a: &[i8], b: &[i8], out: &mut [i8], p: &Add) {
    if broadcast_fits(a.len(), b.len(), out.len()) {
        // SAFETY: both pointers are good for the length of `a`.
        unsafe { add_rows(a.as_ptr(), out.as_mut_ptr(), a.len(), b, p) };
    }
}

/// [`Backend::add_in_place`](crate::Backend::add_in_place).
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_in_place(ab: &mut [i8], b: &[i8], p: &Add) {
    if broadcast_fits(ab.len(), b.len(), ab.len()) {
        let out = ab.as_mut_ptr();
        // SAFETY: the pointer is good for the length of `ab`.
        unsafe { add_rows(out, out, ab.len(), b, p) };
    }
}

/// [`Backend::mul`](crate::Backend::mul).
#[target_feature(enable = "avx2")]
pub(super) fn mul(a: &[i8], b: &[i8], out: &mut [i8], p: &Mul) {
    if broadcast_fits(a.len(), b.len(), out.len()) {
        // SAFETY: both pointers are good for the length of `a`.
        unsafe { mul_rows(a.as_ptr(), out.as_mut_ptr(), a.len(), b, p) };
    }
}

/// [`Backend::mul_in_place`](crate::Backend::mul_in_place).
#[target_feature(enable = "avx2")]
pub(super) fn mul_in_place(ab: &mut [i8], b: &[i8], p: &Mul) {
    if broadcast_fits(ab.len(), b.len(), ab.len()) {
        let out = ab.as_mut_ptr();
        // SAFETY: the pointer is good for the length of `ab`.
        unsafe { mul_rows(out, out, ab.len(), b, p) };
    }
}

/// # Safety
///
/// As for [`zip`].
#[target_feature(enable = "avx2,fma")]
unsafe fn add_rows(a: *const i8, out: *mut i8, len: usize, b: &[i8], p: &Add) {
    let one = p.bounds();
    let bounds = VectorBounds::new(one);
    let (a_offset, b_offset) = (_mm256_set1_epi32(p.a_offset), _mm256_set1_epi32(p.b_offset));
    let (a_scale, b_scale) = (_mm256_set1_ps(p.a_scale), _mm256_set1_ps(p.b_scale));
    let offset = _mm256_set1_ps(p.offset);
    let half = |a: __m256i, b: __m256i| {
        let a = _mm256_cvtepi32_ps(_mm256_add_epi32(a, a_offset));
        let b = _mm256_cvtepi32_ps(_mm256_add_epi32(b, b_offset));
        _mm256_fmadd_ps(a, a_scale, _mm256_fmadd_ps(b, b_scale, offset))
    };
    let vector = |a: __m128i, b: __m128i| {
        let ([a0, a1], [b0, b1]) = (widen(a), widen(b));
        bounds.quantize([half(a0, b0), half(a1, b1)])
    };
    // SAFETY: by the contract.
    unsafe { zip(a, out, len, b, vector, |a, b| p.apply(one, a, b)) };
}

/// # Safety
///
/// As for [`zip`].
#[target_feature(enable = "avx2")]
unsafe fn mul_rows(a: *const i8, out: *mut i8, len: usize, b: &[i8], p: &Mul) {
    let one = p.bounds();
    let bounds = VectorBounds::new(one);
    let (a_offset, b_offset) = (_mm256_set1_epi32(p.a_offset), _mm256_set1_epi32(p.b_offset));
    let (scale, offset) = (_mm256_set1_ps(p.scale), _mm256_set1_ps(p.offset));
    let half = |a: __m256i, b: __m256i| {
        let (a, b) = (_mm256_add_epi32(a, a_offset), _mm256_add_epi32(b, b_offset));
        let product = _mm256_cvtepi32_ps(_mm256_mullo_epi32(a, b));
        _mm256_add_ps(_mm256_mul_ps(product, scale), offset)
    };
    let vector = |a: __m128i, b: __m128i| {
        let ([a0, a1], [b0, b1]) = (widen(a), widen(b));
        bounds.quantize([half(a0, b0), half(a1, b1)])
    };
    // SAFETY: by the contract.
    unsafe { zip(a, out, len, b, vector, |a, b| p.apply(one, a, b)) };
}

/// Sixteen i8 as i32.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(x: __m128i) -> Pair<__m256i> {
    [_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(x))]
}

/// `out[i] = f(a[i], b[i % b.len()])`, with `f` given for sixteen elements and
/// for one.
///
/// # Safety
///
/// `a` must be good for reading and `out` for writing `len` elements, and the two
/// must be the same or not overlap. `b` overlaps neither, being borrowed.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn zip(
    a: *const i8,
    out: *mut i8,
    len: usize,
    b: &[i8],
    vector: impl Fn(__m128i, __m128i) -> __m128i,
    one: impl Fn(i8, i8) -> i8,
) {
    let mut pattern = [0; PATTERN];
    let b = if b.len() <= PATTERN / 2 && b.len() < len {
        let repeated = pattern.chunks_exact_mut(b.len().max(1)).map(|to| to.copy_from_slice(b));
        let whole = repeated.count() * b.len();
        pattern.get(..whole).unwrap_or(b)
    } else {
        b
    };
    let mut start = 0;
    while start < len && !b.is_empty() {
        let row = b.len().min(len - start);
        let b = b.get(..row).unwrap_or_default();
        let (vectors, rest) = b.as_chunks::<LANES>();
        for b in vectors {
            // SAFETY: the rows before this chunk, the chunks before it in its
            // row and itself are no longer than `len`.
            unsafe {
                let a = _mm_loadu_si128(a.add(start).cast());
                _mm_storeu_si128(out.add(start).cast(), vector(a, load_i8x16(b)));
            }
            start += LANES;
        }
        for &b in rest {
            // SAFETY: as above, one element at a time.
            unsafe { *out.add(start) = one(*a.add(start), b) };
            start += 1;
        }
    }
}

/// [`Backend::map`](crate::Backend::map).
#[target_feature(enable = "avx2")]
pub(super) fn map(x: &[u8], table: &[u8; 256], out: &mut [u8]) {
    if !equal_lengths(x.len(), out.len()) {
        return;
    }
    let (vectors, rest) = x.as_chunks::<32>();
    let (out_vectors, out_rest) = out.as_chunks_mut::<32>();
    for (x, out) in vectors.iter().zip(out_vectors) {
        store_u8x32(out, look_up(load_u8x32(x), table));
    }
    scalar::map(rest, table, out_rest);
}

/// [`Backend::map_in_place`](crate::Backend::map_in_place).
#[target_feature(enable = "avx2")]
pub(super) fn map_in_place(x: &mut [u8], table: &[u8; 256]) {
    let (vectors, rest) = x.as_chunks_mut::<32>();
    for x in vectors {
        let y = look_up(load_u8x32(x), table);
        store_u8x32(x, y);
    }
    scalar::map_in_place(rest, table);
}

/// The entries of `table` for thirty-two bytes: each sixteenth of the table is a
/// shuffle, which gives zero for the bytes that are not its own.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(x: __m256i, table: &[u8; 256]) -> __m256i {
    let mut found = _mm256_setzero_si256();
    for (high, part) in (0i8..16).zip(table.as_chunks().0) {
        let part = _mm256_broadcastsi128_si256(load_u8x16(part));
        // Zero to fifteen if the high nibble is this one, or sixteen and more.
        let low = _mm256_xor_si256(x, _mm256_set1_epi8(high << 4));
        // Beyond fifteen this sets the sign bit, and the shuffle gives zero.
        let index = _mm256_adds_epu8(low, _mm256_set1_epi8(0x70));
        found = _mm256_or_si256(found, _mm256_shuffle_epi8(part, index));
    }
    found
}

/// [`Backend::quantize`](crate::Backend::quantize).
#[target_feature(enable = "avx2")]
pub(super) fn quantize(x: &[f32], scale: f32, zero_point: i32, out: &mut [i8]) {
    if !equal_lengths(x.len(), out.len()) {
        return;
    }
    let one = Bounds::new(zero_point, i8::MIN, i8::MAX);
    let bounds = VectorBounds::new(one);
    let divisor = _mm256_set1_ps(scale);
    let (vectors, _) = x.as_chunks::<8>().0.as_chunks::<2>();
    let (out_vectors, _) = out.as_chunks_mut::<LANES>();
    for ([x0, x1], out) in vectors.iter().zip(out_vectors) {
        let x0 = _mm256_div_ps(load_f32x8(x0), divisor);
        let x1 = _mm256_div_ps(load_f32x8(x1), divisor);
        store_i8x16(out, bounds.quantize([x0, x1]));
    }
    let rest = vectors.len() * LANES;
    for (x, out) in x.iter().zip(out).skip(rest) {
        *out = one.quantize(x / scale);
    }
}

/// [`Backend::dequantize`](crate::Backend::dequantize).
#[target_feature(enable = "avx2")]
pub(super) fn dequantize(x: &[i8], scale: f32, zero_point: i32, out: &mut [f32]) {
    if !equal_lengths(x.len(), out.len()) {
        return;
    }
    let zero = _mm256_set1_epi32(zero_point);
    let factor = _mm256_set1_ps(scale);
    let (vectors, rest) = x.as_chunks::<LANES>();
    let (out_vectors, _) = out.as_chunks_mut::<8>().0.as_chunks_mut::<2>();
    for (x, [out0, out1]) in vectors.iter().zip(out_vectors) {
        let [x0, x1] = widen(load_i8x16(x));
        let acc = [_mm256_sub_epi32(x0, zero), _mm256_sub_epi32(x1, zero)];
        let [y0, y1] = scaled(acc, [factor; 2]);
        store_f32x8(out0, y0);
        store_f32x8(out1, y1);
    }
    let out = out.get_mut(vectors.len() * LANES..).unwrap_or_default();
    for (&x, out) in rest.iter().zip(out) {
        *out = i32::from(x).wrapping_sub(zero_point) as f32 * scale;
    }
}
