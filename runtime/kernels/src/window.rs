//! Kernels that slide a window over an `[H][W][C]` tensor.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use core::ops::Range;

/// Where a tap lies outside the input.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) const OUTSIDE: usize = usize::MAX;

/// The shape of a depthwise convolution. Sizes and pads count pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise {
    /// Rows of the input.
    pub in_h: usize,
    /// Columns of the input.
    pub in_w: usize,
    /// Rows of the output.
    pub out_h: usize,
    /// Columns of the output.
    pub out_w: usize,
    /// Channels of both.
    pub channels: usize,
    /// Taps down and across.
    pub kernel: [usize; 2],
    /// Input pixels from one output pixel to the next, down and across.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next, down and across.
    pub dilation: [usize; 2],
    /// Pixels of padding at the top and at the left. What the window reaches at
    /// the bottom and right follows from the other sizes.
    pub pad: [usize; 2],
    /// The stored value of a pixel outside the input: its zero point.
    pub pad_value: i8,
}

/// The shape of a pooling window. Pixels outside the input take no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Rows of the input.
    pub in_h: usize,
    /// Columns of the input.
    pub in_w: usize,
    /// Rows of the output.
    pub out_h: usize,
    /// Columns of the output.
    pub out_w: usize,
    /// Channels of both.
    pub channels: usize,
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Input pixels from one output pixel to the next, down and across.
    pub stride: [usize; 2],
    /// Input pixels from one window pixel to the next, down and across.
    pub dilation: [usize; 2],
    /// Pixels of padding at the top and at the left.
    pub pad: [usize; 2],
}

impl Depthwise {
    #[inline]
    pub(crate) fn window(&self) -> Window {
        Window {
            input: [self.in_h, self.in_w],
            output: [self.out_h, self.out_w],
            channels: self.channels,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad: self.pad,
        }
    }
}

impl Pool {
    #[inline]
    pub(crate) fn window(&self) -> Window {
        Window {
            input: [self.in_h, self.in_w],
            output: [self.out_h, self.out_w],
            channels: self.channels,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad: self.pad,
        }
    }
}

/// What both shapes have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) channels: usize,
    pub(crate) kernel: [usize; 2],
    stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pad: [usize; 2],
}

impl Window {
    /// The number of taps, if it is a number.
    #[inline]
    pub(crate) fn taps(&self) -> Option<usize> {
        self.kernel[0].checked_mul(self.kernel[1])
    }

    /// Whether the tensors hold the shape and no coordinate overflows.
    pub(crate) fn fits(&self, x: usize, y: usize) -> bool {
        let holds = |len: usize, [h, w]: [usize; 2]| {
            h.checked_mul(w).and_then(|pixels| pixels.checked_mul(self.channels)).is_some_and(|need| need <= len)
        };
        let reaches = |axis: usize| {
            let last = self.output[axis].saturating_sub(1).checked_mul(self.stride[axis])?;
            let tap = self.kernel[axis].saturating_sub(1).checked_mul(self.dilation[axis])?;
            last.checked_add(tap).filter(|&end| end <= isize::MAX as usize)
        };
        let fits = holds(x, self.input)
            && holds(y, self.output)
            && (0..2).all(|axis| reaches(axis).is_some() && self.pad[axis] <= isize::MAX as usize);
        debug_assert!(fits, "{self:?} over {x} into {y}");
        fits
    }

    /// The input coordinate under `tap` of output `out` along `axis`, if it is
    /// inside the input. No overflow once [`fits`](Self::fits) holds.
    #[inline]
    pub(crate) fn source(&self, axis: usize, out: usize, tap: usize) -> Option<usize> {
        // Left of the input the difference wraps to something beyond it.
        let at = (out * self.stride[axis] + tap * self.dilation[axis]).wrapping_sub(self.pad[axis]);
        (at < self.input[axis]).then_some(at)
    }

    /// The output coordinates along `axis` whose taps are all inside the input.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(crate) fn inside(&self, axis: usize) -> Range<usize> {
        let last = self.kernel[axis] - 1;
        let inside = |out: &usize| self.source(axis, *out, 0).is_some() && self.source(axis, *out, last).is_some();
        let mut outputs = 0..self.output[axis];
        let start = outputs.find(inside).unwrap_or(outputs.end);
        let end = (start..outputs.end).find(|out| !inside(out)).unwrap_or(outputs.end);
        start..end
    }

    /// Where each tap of output pixel (`oy`, `ox`) finds its first channel, or [`OUTSIDE`]. Places beyond the last tap get
    /// what the last has.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(crate) fn offsets(&self, oy: usize, ox: usize, offsets: &mut [usize]) {
        let [kernel_h, kernel_w] = self.kernel;
        let mut offsets = offsets.iter_mut();
        let mut last = OUTSIDE;
        for ky in 0..kernel_h {
            let row = self.source(0, oy, ky);
            for (kx, offset) in (0..kernel_w).zip(&mut offsets) {
                last = match (row, self.source(1, ox, kx)) {
                    (Some(iy), Some(ix)) => (iy * self.input[1] + ix) * self.channels,
                    _ => OUTSIDE,
                };
                *offset = last;
            }
        }
        offsets.for_each(|extra| *extra = last);
    }
}
