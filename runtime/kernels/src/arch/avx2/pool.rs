//! Pooling, sixteen or thirty-two channels at a time.

use core::arch::x86_64::*;
use core::ops::Range;

use super::lanes::*;
use crate::Pool;
use crate::scalar::pool::sum_rows_fit;
use crate::window::Window;

/// Channels of a vector of i8.
const WIDE: usize = 32;

/// Channels of half a vector of i8, or of two vectors of i32.
const NARROW: usize = 16;

/// [`Backend::max_pool`](crate::Backend::max_pool).
#[target_feature(enable = "avx2")]
pub(super) fn max_pool(x: &[i8], y: &mut [i8], shape: &Pool) {
    let window = shape.window();
    let channels = shape.channels;
    if channels == 0 || !window.fits(x.len(), y.len()) {
        return;
    }
    let row = shape.out_w * channels;
    let x_row = shape.in_w * channels;
    // A step that overflows is beyond the input, and not taken.
    let steps = [window.dilation[0].saturating_mul(x_row), window.dilation[1].saturating_mul(channels)];
    let mut start = 0;
    for oy in 0..shape.out_h {
        let rows = taps_inside(&window, 0, oy);
        let top = window.source(0, oy, rows.start).unwrap_or(0);
        let Some(y) = y.get_mut(start..start + row) else {
            return;
        };
        start += row;
        for (ox, y) in y.chunks_exact_mut(channels).enumerate() {
            let columns = taps_inside(&window, 1, ox);
            let left = window.source(1, ox, columns.start).unwrap_or(0);
            let pixels = Pixels { x, first: top * x_row + left * channels, counts: [rows.len(), columns.len()], steps };
            pixels.max_into(y);
        }
    }
}

/// The taps along `axis` that are inside the input for output `out`.
fn taps_inside(window: &Window, axis: usize, out: usize) -> Range<usize> {
    let mut taps = 0..window.kernel[axis];
    let inside = |tap: &usize| window.source(axis, out, *tap).is_some();
    let Some(first) = taps.find(inside) else {
        return 0..0;
    };
    first..taps.find(|tap| !inside(tap)).unwrap_or(taps.end)
}

/// The input pixels under one window.
struct Pixels<'a> {
    x: &'a [i8],
    /// Where the first one starts.
    first: usize,
    /// How many there are, down and across.
    counts: [usize; 2],
    /// Elements from one to the next, down and across.
    steps: [usize; 2],
}

impl Pixels<'_> {
    /// Calls `f` with each pixel's channels from `channel` on.
    #[inline]
    fn each(&self, channel: usize, mut f: impl FnMut(&[i8])) {
        for row in 0..self.counts[0] {
            let start = self.first + row * self.steps[0] + channel;
            for column in 0..self.counts[1] {
                let start = start + column * self.steps[1];
                f(self.x.get(start..).unwrap_or_default());
            }
        }
    }

    /// The largest value of each channel.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn max_into(&self, y: &mut [i8]) {
        let mut channel = 0;
        let (wide, rest) = y.as_chunks_mut::<WIDE>();
        for y in wide {
            let mut max = _mm256_set1_epi8(i8::MIN);
            self.each(channel, |x| {
                if let Some(x) = x.first_chunk() {
                    max = _mm256_max_epi8(max, load_i8x32(x));
                }
            });
            store_i8x32(y, max);
            channel += WIDE;
        }
        let (narrow, rest) = rest.as_chunks_mut::<NARROW>();
        for y in narrow {
            let mut max = _mm_set1_epi8(i8::MIN);
            self.each(channel, |x| {
                if let Some(x) = x.first_chunk() {
                    max = _mm_max_epi8(max, load_i8x16(x));
                }
            });
            store_i8x16(y, max);
            channel += NARROW;
        }
        if !rest.is_empty() {
            rest.fill(i8::MIN);
            self.each(channel, |x| {
                for (y, &x) in rest.iter_mut().zip(x) {
                    *y = (*y).max(x);
                }
            });
        }
    }
}

/// [`Backend::sum_rows`](crate::Backend::sum_rows).
#[target_feature(enable = "avx2")]
pub(super) fn sum_rows(x: &[i8], rows: usize, channels: usize, row_stride: usize, acc: &mut [i32]) {
    if !sum_rows_fit(x, rows, channels, row_stride, acc) {
        return;
    }
    let row = |row: usize, first: usize| x.get(row * row_stride + first..).unwrap_or_default();
    let acc = acc.get_mut(..channels).unwrap_or_default();
    let (blocks, _) = acc.as_chunks_mut::<8>().0.as_chunks_mut::<2>();
    let mut first = 0;
    for [acc0, acc1] in blocks {
        let (mut sum0, mut sum1) = (load_i32x8(acc0), load_i32x8(acc1));
        for r in 0..rows {
            if let Some(x) = row(r, first).first_chunk() {
                let x = load_i8x16(x);
                sum0 = _mm256_add_epi32(sum0, _mm256_cvtepi8_epi32(x));
                sum1 = _mm256_add_epi32(sum1, _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(x)));
            }
        }
        store_i32x8(acc0, sum0);
        store_i32x8(acc1, sum1);
        first += NARROW;
    }
    let rest = acc.get_mut(first..).unwrap_or_default();
    if rest.is_empty() {
        return;
    }
    for r in 0..rows {
        for (acc, &x) in rest.iter_mut().zip(row(r, first)) {
            *acc = acc.wrapping_add(i32::from(x));
        }
    }
}
