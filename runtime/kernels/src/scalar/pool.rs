//! Pooling.

use crate::Pool;
use crate::gemm::rows_fit;

pub(crate) fn max_pool(x: &[i8], y: &mut [i8], shape: &Pool) {
    let window = shape.window();
    let channels = shape.channels;
    if channels == 0 || !window.fits(x.len(), y.len()) {
        return;
    }
    let pixels = shape.out_h * shape.out_w;
    for (pixel, y) in y.chunks_exact_mut(channels).take(pixels).enumerate() {
        let (oy, ox) = (pixel / shape.out_w, pixel % shape.out_w);
        y.fill(i8::MIN);
        for iy in (0..shape.kernel[0]).filter_map(|ky| window.source(0, oy, ky)) {
            for ix in (0..shape.kernel[1]).filter_map(|kx| window.source(1, ox, kx)) {
                let x = x.get((iy * shape.in_w + ix) * channels..).unwrap_or_default();
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = (*y).max(x);
                }
            }
        }
    }
}

/// Whether the operands of `sum_rows` are long enough.
pub(crate) fn sum_rows_fit(x: &[i8], rows: usize, channels: usize, row_stride: usize, acc: &[i32]) -> bool {
    let fits = rows_fit(x.len(), rows, row_stride, channels) && acc.len() >= channels;
    debug_assert!(fits, "sum_rows: a slice is too short for [{rows}, {channels}]");
    fits
}

pub(crate) fn sum_rows(x: &[i8], rows: usize, channels: usize, row_stride: usize, acc: &mut [i32]) {
    if !sum_rows_fit(x, rows, channels, row_stride, acc) {
        return;
    }
    for row in 0..rows {
        let x = x.get(row * row_stride..).unwrap_or_default();
        for (acc, &x) in acc.iter_mut().zip(x).take(channels) {
            *acc = acc.wrapping_add(i32::from(x));
        }
    }
}
