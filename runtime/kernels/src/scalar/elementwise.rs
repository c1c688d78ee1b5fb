//! Elementwise kernels: one function per element, two ways to apply it.

use crate::elementwise::broadcast_fits;
use crate::requant::Bounds;
use crate::{Add, Mul};

pub(crate) fn add(a: &[i8], b: &[i8], out: &mut [i8], p: &Add) {
    let bounds = p.bounds();
    zip(a, b, out, |a, b| p.apply(bounds, a, b));
}

pub(crate) fn add_in_place(ab: &mut [i8], b: &[i8], p: &Add) {
    let bounds = p.bounds();
    zip_in_place(ab, b, |a, b| p.apply(bounds, a, b));
}

pub(crate) fn mul(a: &[i8], b: &[i8], out: &mut [i8], p: &Mul) {
    let bounds = p.bounds();
    zip(a, b, out, |a, b| p.apply(bounds, a, b));
}

pub(crate) fn mul_in_place(ab: &mut [i8], b: &[i8], p: &Mul) {
    let bounds = p.bounds();
    zip_in_place(ab, b, |a, b| p.apply(bounds, a, b));
}

#[inline]
fn zip(a: &[i8], b: &[i8], out: &mut [i8], f: impl Fn(i8, i8) -> i8) {
    if !broadcast_fits(a.len(), b.len(), out.len()) {
        return;
    }
    for (a, out) in a.chunks_exact(b.len()).zip(out.chunks_exact_mut(b.len())) {
        for ((&a, &b), out) in a.iter().zip(b).zip(out) {
            *out = f(a, b);
        }
    }
}

#[inline]
fn zip_in_place(ab: &mut [i8], b: &[i8], f: impl Fn(i8, i8) -> i8) {
    if !broadcast_fits(ab.len(), b.len(), ab.len()) {
        return;
    }
    for ab in ab.chunks_exact_mut(b.len()) {
        for (ab, &b) in ab.iter_mut().zip(b) {
            *ab = f(*ab, b);
        }
    }
}

/// Whether a kernel's input and output are as long as each other.
#[inline]
pub(crate) fn equal_lengths(x: usize, out: usize) -> bool {
    debug_assert_eq!(x, out, "elementwise: lengths differ");
    x == out
}

pub(crate) fn map(x: &[u8], table: &[u8; 256], out: &mut [u8]) {
    if equal_lengths(x.len(), out.len()) {
        for (&x, out) in x.iter().zip(out) {
            *out = table[usize::from(x)];
        }
    }
}

pub(crate) fn map_in_place(x: &mut [u8], table: &[u8; 256]) {
    for x in x {
        *x = table[usize::from(*x)];
    }
}

pub(crate) fn quantize(x: &[f32], scale: f32, zero_point: i32, out: &mut [i8]) {
    if equal_lengths(x.len(), out.len()) {
        let bounds = Bounds::new(zero_point, i8::MIN, i8::MAX);
        for (&x, out) in x.iter().zip(out) {
            *out = bounds.quantize(x / scale);
        }
    }
}

pub(crate) fn dequantize(x: &[i8], scale: f32, zero_point: i32, out: &mut [f32]) {
    if equal_lengths(x.len(), out.len()) {
        for (&x, out) in x.iter().zip(out) {
            *out = i32::from(x).wrapping_sub(zero_point) as f32 * scale;
        }
    }
}
