//! Depthwise convolution over canonical weights.

use crate::requant::{Bounds, scale_at};
use crate::{Depthwise, Requant};

/// Channels whose accumulators are kept on the stack at a time.
const BLOCK: usize = 32;

pub(crate) fn depthwise(x: &[i8], w: &[i8], bias: &[i32], requant: Requant<'_>, y: &mut [i8], shape: &Depthwise) {
    let window = shape.window();
    let channels = shape.channels;
    if !window.fits(x.len(), y.len()) {
        return;
    }
    let operands_fit = requant.fits(channels) && (bias.is_empty() || bias.len() >= channels);
    debug_assert!(operands_fit, "depthwise: bias or scale too short for {channels}");
    let Some(taps) = window.taps() else { return };
    let w_fits = taps.checked_mul(channels).is_some_and(|need| need <= w.len());
    debug_assert!(w_fits, "depthwise: weights too short for [{channels}, {taps}]");
    if !operands_fit || !w_fits || channels == 0 {
        return;
    }
    let bounds = Bounds::new(requant.zero_point, requant.lo, requant.hi);
    let [kernel_h, kernel_w] = shape.kernel;

    let pixels = shape.out_h * shape.out_w;
    for (pixel, y) in y.chunks_exact_mut(channels).take(pixels).enumerate() {
        let (oy, ox) = (pixel / shape.out_w, pixel % shape.out_w);
        for (block, y) in y.chunks_mut(BLOCK).enumerate() {
            let first = block * BLOCK;
            let mut acc = [0i32; BLOCK];
            if let Some(bias) = bias.get(first..first + y.len()) {
                acc[..y.len()].copy_from_slice(bias);
            }
            for ky in 0..kernel_h {
                let row = window.source(0, oy, ky);
                for kx in 0..kernel_w {
                    let tap = ky * kernel_w + kx;
                    let w = w.iter().skip(first * taps + tap).step_by(taps);
                    let acc = acc[..y.len()].iter_mut().zip(w);
                    let source = row
                        .zip(window.source(1, ox, kx))
                        .and_then(|(iy, ix)| x.get((iy * shape.in_w + ix) * channels + first..));
                    match source {
                        Some(x) => {
                            for ((acc, &w), &x) in acc.zip(x) {
                                *acc = acc.wrapping_add(i32::from(x) * i32::from(w));
                            }
                        }
                        None => {
                            let pad = i32::from(shape.pad_value);
                            for (acc, &w) in acc {
                                *acc = acc.wrapping_add(pad * i32::from(w));
                            }
                        }
                    }
                }
            }
            for (c, (y, acc)) in y.iter_mut().zip(acc).enumerate() {
                *y = bounds.quantize(acc as f32 * scale_at(requant.scale, first + c));
            }
        }
    }
}
