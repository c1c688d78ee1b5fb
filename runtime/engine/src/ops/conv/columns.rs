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
        let [[kh, kw], ..] = self.window;
        let len = (kh * kw * self.taken).max(1);
        let (mut row, mut left, mut to) = (row, count.min(to.len() / len), to);
        // Line by line of the result: what a line has in common is found once.
        while left > 0 {
            let (line, first) = (row / self.out_w.max(1), row % self.out_w.max(1));
            let n = self.out_w.saturating_sub(first).clamp(1, left);
            let Some((now, later)) = to.split_at_mut_checked(n * len) else { return };
            self.gather_line(x, group, line, first, len, now);
            (row, left, to) = (row + n, left - n, later);
        }
    }

    /// Rows of one line of the result, from place `first` on, each `len` long.
    fn gather_line(&self, x: &[T], group: usize, line: usize, first: usize, len: usize, to: &mut [T]) {
        let [[kh, kw], [stride_y, stride_x], [step_y, step_x], [top, left]] = self.window;
        let (batch, oy) = (line / self.out_h.max(1), line % self.out_h.max(1));
        let whole = step_x == 1 && self.taken == self.channels;
        for ky in 0..kh {
            let iy = (oy * stride_y + ky * step_y).wrapping_sub(top);
            let inside = iy < self.height;
            let start = (batch * self.height).wrapping_add(iy).wrapping_mul(self.width);
            for (ox, to) in (first..).zip(to.chunks_exact_mut(len)) {
                let Some(to) = to.get_mut(ky * kw * self.taken..(ky + 1) * kw * self.taken) else { return };
                let ix = (ox * stride_x).wrapping_sub(left);
                if inside && whole && ix < self.width && self.width - ix >= kw {
                    // The taps of a line are one run of memory.
                    let at = (start + ix) * self.channels;
                    copy(to, x.get(at..at + kw * self.channels).unwrap_or(&[]));
                    continue;
                }
                for (kx, to) in to.chunks_exact_mut(self.taken.max(1)).enumerate() {
                    let ix = ix.wrapping_add(kx * step_x);
                    let at = start.wrapping_add(ix).wrapping_mul(self.channels).wrapping_add(group * self.taken);
                    let from = if inside && ix < self.width { x.get(at..at.wrapping_add(self.taken)) } else { None };
                    match from {
                        Some(from) => copy(to, from),
                        None => to.fill(self.border),
                    }
                }
            }
        }
    }
}

/// Copies elements of equally many; short runs without a call.
#[inline]
fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    if to.len() != from.len() {
        return;
    }
    if to.len() > 256 {
        return to.copy_from_slice(from);
    }
    let ((to, to_rest), (from, from_rest)) = (to.as_chunks_mut::<16>(), from.as_chunks::<16>());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = *from);
}
