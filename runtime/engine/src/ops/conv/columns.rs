//! Gathers what a convolution's window sees into rows of a matrix ("im2col").

use dunlin_package::op::Window;
use dunlin_package::plan::Tensor;

use crate::ops::map_dims;

/// The geometry of a gather.
#[derive(Clone, Copy)]
pub(crate) struct Source<T> {
    height: usize,
    width: usize,
    /// Channels of all groups.
    channels: usize,
    /// Channels of one group.
    taken: usize,
    out_h: usize,
    out_w: usize,
    window: [[usize; 2]; 4],
    border: T,
}

impl<T: Copy> Source<T> {
    /// For convolving `x` to `y`; the border holds `border`.
    pub(crate) fn new(x: &Tensor, y: &Tensor, window: &Window, groups: usize, border: T) -> Option<Self> {
        let ([_, height, width, channels], [_, out_h, out_w, _]) = (map_dims(x).ok()?, map_dims(y).ok()?);
        let [top, left, _, _] = window.pad;
        let pair = |v: [u32; 2]| v.map(|v| v as usize);
        Some(Self {
            height,
            width,
            channels,
            taken: channels.checked_div(groups)?,
            out_h,
            out_w,
            window: [pair(window.kernel), pair(window.stride), pair(window.dilation), pair([top, left])],
            border,
        })
    }

    /// Writes rows `row..row + count` of group `group` into `to`, one after the other.
    ///
    /// A row is one place of the result: taps from top left to bottom right, the group's channels of each.
    pub(crate) fn gather(&self, x: &[T], group: usize, row: usize, count: usize, to: &mut [T]) {
        let [[kh, kw], [stride_y, stride_x], [step_y, step_x], [top, left]] = self.window;
        let len = (kh * kw * self.taken).max(1);
        for (row, to) in (row..row + count).zip(to.chunks_exact_mut(len)) {
            let (line, ox) = (row / self.out_w.max(1), row % self.out_w.max(1));
            let (batch, oy) = (line / self.out_h.max(1), line % self.out_h.max(1));
            for ky in 0..kh {
                let iy = (oy * stride_y + ky * step_y).wrapping_sub(top);
                let first = (ox * stride_x).wrapping_sub(left);
                let start = (batch * self.height).wrapping_add(iy).wrapping_mul(self.width).wrapping_add(first);
                let inside = iy < self.height;
                if inside
                    && step_x == 1
                    && self.taken == self.channels
                    && first < self.width
                    && self.width - first >= kw
                {
                    // The taps of a line are one run of memory.
                    let run = x.get(start * self.channels..(start + kw) * self.channels).unwrap_or(&[]);
                    if let Some(to) = to.get_mut(ky * kw * self.taken..(ky + 1) * kw * self.taken)
                        && to.len() == run.len()
                    {
                        to.copy_from_slice(run);
                    }
                    continue;
                }
                for kx in 0..kw {
                    let tap = (ky * kw + kx) * self.taken;
                    let Some(to) = to.get_mut(tap..tap + self.taken) else { return };
                    let ix = first.wrapping_add(kx * step_x);
                    let at = (batch * self.height)
                        .wrapping_add(iy)
                        .wrapping_mul(self.width)
                        .wrapping_add(ix)
                        .wrapping_mul(self.channels)
                        .wrapping_add(group * self.taken);
                    let from = if inside && ix < self.width { x.get(at..at.wrapping_add(self.taken)) } else { None };
                    match from {
                        Some(from) => to.copy_from_slice(from),
                        None => to.fill(self.border),
                    }
                }
            }
        }
    }
}
