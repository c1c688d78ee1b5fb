//! Depthwise convolution with windows of three by three, four channels at a time.
//!
//! A line of the output is computed from three lines of the input, which are put into columns first: of each column, the
//! first two rows of four channels as four pairs, ready for `smlad`, and the third row widened. Each column is read by up to
//! three pixels of the output, and where the input ends its border takes its place.

use core::arch::asm;

use super::finish::fours;
use super::{Narrow, whole_word, widen, word};
use crate::requant::scale_at;
use crate::{Depthwise, Requant};

/// Columns that are held at a time.
const COLUMNS: usize = 34;
/// Pixels of the output that are held at a time.
const PIXELS: usize = 16;

/// Three rows of four channels. Of channels 0 to 3 rows 0 and 1, as halves; of row 2 channels 0 and 2, then 1 and 3.
type Column = [u32; 6];

/// The column of three rows' channels.
#[inline(always)]
fn column([a, b, c]: [u32; 3]) -> Column {
    let [even, odd] = widen(c);
    let (low, high) = ((a & 0xFFFF) | (b << 16), (a >> 16) | (b & 0xFFFF_0000));
    let ([first, second], [third, fourth]) = (widen(low), widen(high));
    [first, second, third, fourth, even, odd]
}

/// A bias for each of four channels, and their weights as columns.
#[repr(C)]
struct Weights {
    bias: [i32; 4],
    columns: [Column; 3],
}

/// [`Backend::depthwise`](crate::Backend::depthwise) for windows of three by three that are whole across; the operands were
/// seen to fit.
#[inline(never)]
pub(super) fn depthwise(x: &[i8], w: &[i8], bias: &[i32], requant: Requant<'_>, y: &mut [i8], shape: &Depthwise) {
    let channels = shape.channels;
    let [_, stride] = shape.stride;
    // At least one.
    let most = (COLUMNS - 3).checked_div(stride).map_or(PIXELS, |steps| (steps + 1).min(PIXELS));
    let mut scratch = Scratch { columns: [[0; 6]; COLUMNS], acc: [[0; 4]; PIXELS] };
    let narrow = Narrow::new(&requant);
    for first in (0..channels).step_by(4) {
        let width = (channels - first).min(4);
        let scale: [f32; 4] = core::array::from_fn(|c| scale_at(requant.scale, first + c));
        let strip = Strip {
            x,
            shape,
            first,
            width,
            pad: whole_word(&[shape.pad_value; 4]),
            weights: weights(w, bias, first, width),
        };
        let mut ox = 0;
        while ox < shape.out_w {
            let count = (shape.out_w - ox).min(most);
            strip.run(ox, count, &mut scratch, |pixel, acc| {
                let y = y.get_mut(pixel * channels + first..).unwrap_or(&mut []);
                fours(acc, (&scale, 0), narrow, y, channels, width);
            });
            ox += count;
        }
    }
}

/// Room for the work.
struct Scratch {
    columns: [Column; COLUMNS],
    acc: [[i32; 4]; PIXELS],
}

/// Up to four channels.
struct Strip<'a> {
    x: &'a [i8],
    shape: &'a Depthwise,
    first: usize,
    width: usize,
    /// Four of the border.
    pad: u32,
    weights: Weights,
}

impl Strip<'_> {
    /// `count` pixels from `ox` on of every line of the output; gives `finish` the number of a pixel, and the sums of it and
    /// of those that follow it.
    fn run(&self, ox: usize, count: usize, scratch: &mut Scratch, mut finish: impl FnMut(usize, &[[i32; 4]])) {
        let &Self { shape, ref weights, pad, .. } = self;
        let (window, [_, stride]) = (shape.window(), shape.stride);
        let needed = (count - 1) * stride + 3;
        // Columns left of the input, within it, and right of it.
        let left = shape.pad[1].saturating_sub(ox * stride).min(needed);
        let from = (ox * stride + left).wrapping_sub(shape.pad[1]);
        let inside = shape.in_w.saturating_sub(from).min(needed - left);
        let Some(columns) = scratch.columns.get_mut(..needed) else { return };
        columns.fill(column([pad; 3]));
        // Where lines are whole they follow each other, and so do their pixels.
        let lines = PIXELS.checked_div(count).unwrap_or(1);
        let most = if count == shape.out_w { lines * count } else { count };
        let (mut held, mut pixel) = (0, ox);
        for oy in 0..shape.out_h {
            if let Some(to) = columns.get_mut(left..left + inside) {
                self.gather([0, 1, 2].map(|ky| window.source(0, oy, ky)), from, to);
            }
            let Some(acc) = scratch.acc.get_mut(held..held + count) else { return };
            sum(columns, weights, stride, acc);
            held += count;
            if held == most || oy + 1 == shape.out_h {
                finish(pixel, scratch.acc.get(..held).unwrap_or(&[]));
                (held, pixel) = (0, (oy + 1) * shape.out_w + ox);
            }
        }
    }

    /// The columns from column `from` of three lines of the input on; a line that is not there is the border.
    fn gather(&self, lines: [Option<usize>; 3], from: usize, to: &mut [Column]) {
        let channels = self.shape.channels;
        let at = |line: usize| (line * self.shape.in_w + from) * channels + self.first;
        let len = to.len().saturating_sub(1) * channels + self.width;
        let lines = lines.map(|line| line.map(|line| self.x.get(at(line)..).and_then(|x| x.get(..len)).unwrap_or(&[])));
        let whole = |line: &&[i8]| line.len() == len;
        if self.width == 4 && !to.is_empty() && lines.iter().flatten().all(whole) {
            let call = Lines {
                rows: lines.map(|line| line.map_or((&raw const self.pad).cast(), <[i8]>::as_ptr)),
                steps: lines.map(|line| if line.is_some() { channels } else { 0 }),
                to: to.as_mut_ptr(),
                count: to.len(),
            };
            // SAFETY: each line that is there holds four elements at as many places as `to` is long.
            return unsafe { put(&call) };
        }
        for (i, to) in to.iter_mut().enumerate() {
            let at = i * channels;
            *to = column(lines.map(|line| match line {
                Some(line) => word(line.get(at..at + self.width).unwrap_or(&[])),
                None => self.pad,
            }));
        }
    }
}

/// Those of `width` channels from `first` on.
fn weights(w: &[i8], bias: &[i32], first: usize, width: usize) -> Weights {
    let of = |tap: usize| {
        let mut four = [0i8; 4];
        for (c, to) in four.iter_mut().enumerate().take(width) {
            *to = w.get((first + c) * 9 + tap).copied().unwrap_or(0);
        }
        whole_word(&four)
    };
    Weights {
        bias: core::array::from_fn(|c| bias.get(first + c).copied().unwrap_or(0)),
        columns: [0, 1, 2].map(|kx| column([of(kx), of(3 + kx), of(6 + kx)])),
    }
}

/// The arguments of [`put`].
#[repr(C)]
struct Lines {
    rows: [*const i8; 3],
    steps: [usize; 3],
    to: *mut Column,
    count: usize,
}

/// Writes [`column`]s.
///
/// # Safety
///
/// `count` is not 0. So many words can be read of each row, one every so many bytes as `steps` says, and so many columns
/// can be written.
#[inline(never)]
unsafe fn put(p: &Lines) {
    // SAFETY: the contract. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r4-r11}}",
            "ldm r0, {{r0-r7}}",
            "2:",
            "ldr r8, [r0]",
            "add r0, r0, r3",
            "ldr r9, [r1]",
            "add r1, r1, r4",
            "ldr r10, [r2]",
            "add r2, r2, r5",
            "pkhbt r11, r8, r9, lsl #16",
            "pkhtb r12, r9, r8, asr #16",
            "sxtb16 r8, r11",
            "sxtb16 r9, r11, ror #8",
            "sxtb16 r11, r12",
            "sxtb16 r12, r12, ror #8",
            "stm r6!, {{r8, r9, r11, r12}}",
            "sxtb16 r8, r10",
            "sxtb16 r9, r10, ror #8",
            "stm r6!, {{r8, r9}}",
            "subs r7, r7, #1",
            "bne 2b",
            "pop {{r4-r11}}",
            inout("r0") core::ptr::from_ref(p) => _,
            out("r1") _,
            out("r2") _,
            out("r3") _,
            out("r12") _,
        );
    }
}

/// The sums of as many pixels as `acc` is long, whose windows begin `stride` columns apart.
fn sum(columns: &[Column], weights: &Weights, stride: usize, acc: &mut [[i32; 4]]) {
    let needed = acc.len().checked_sub(1).map_or(usize::MAX, |last| last * stride + 3);
    if columns.len() < needed {
        return;
    }
    let bounds = acc.as_mut_ptr_range();
    let call = Pixels {
        columns: columns.as_ptr(),
        weights,
        acc: bounds.start,
        end: bounds.end,
        step: (stride * size_of::<Column>()).wrapping_sub(3 * size_of::<Column>()),
    };
    // SAFETY: `acc` is not empty, and there are columns for the last pixel.
    unsafe { multiply(&call) };
}

/// The arguments of [`multiply`].
#[repr(C)]
struct Pixels {
    columns: *const Column,
    weights: *const Weights,
    acc: *mut [i32; 4],
    end: *mut [i32; 4],
    /// Bytes from the end of a window to the beginning of the next.
    step: usize,
}

/// A column: r0 points to it and r1 to its weights.
macro_rules! multiply_column {
    () => {
        "ldm r0!, {{r2-r5}}
         ldm r1!, {{r10, r11, r12, lr}}
         smlad r6, r2, r10, r6
         smlad r7, r3, r11, r7
         smlad r8, r4, r12, r8
         smlad r9, r5, lr, r9
         ldrd r2, r3, [r0], #8
         ldrd r10, r11, [r1], #8
         smlabb r6, r2, r10, r6
         smlabb r7, r3, r11, r7
         smlatt r8, r2, r10, r8
         smlatt r9, r3, r11, r9"
    };
}

/// The sums from `acc` to `end`.
///
/// # Safety
///
/// There is at least one, and three columns for each.
#[inline(never)]
unsafe fn multiply(p: &Pixels) {
    // SAFETY: the contract. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r4-r11}}",
            "ldm r0, {{r0-r4}}",
            // At sp: weights, acc, end, step.
            "sub sp, sp, #16",
            "str r1, [sp]",
            "str r2, [sp, #4]",
            "str r3, [sp, #8]",
            "str r4, [sp, #12]",
            "2:",
            "ldr r1, [sp]",
            "ldm r1!, {{r6-r9}}",
            multiply_column!(),
            multiply_column!(),
            multiply_column!(),
            "ldr r2, [sp, #4]",
            "stm r2!, {{r6-r9}}",
            "str r2, [sp, #4]",
            "ldrd r4, r5, [sp, #8]",
            "add r0, r0, r5",
            "cmp r2, r4",
            "bne 2b",
            "add sp, sp, #16",
            "pop {{r4-r11}}",
            inout("r0") core::ptr::from_ref(p) => _,
            out("r1") _,
            out("r2") _,
            out("r3") _,
            out("r12") _,
            out("lr") _,
        );
    }
}
