//! Depthwise convolution, four channels at a time.
//!
//! A line of the output is computed from the lines of the input under it, which are put into columns first: of each column,
//! two rows of four channels at a time as four pairs, ready for `smlad`, and the last of an odd number of rows widened. Each
//! column is read by as many pixels of the output as it is under, and where the input ends its border takes its place.

use core::arch::asm;

use super::finish::fours;
use super::{Narrow, whole_word, widen, word};
use crate::requant::scale_at;
use crate::{Depthwise, Requant};

/// The largest window whose widened weights are kept on the stack.
pub(super) const MAX_TAPS: usize = 25;
/// Words of columns that are held at a time; a column has two for each tap down.
const WORDS: usize = 204;
/// Pixels of the output that are held at a time.
const PIXELS: usize = 16;

/// [`Backend::depthwise`](crate::Backend::depthwise) for at most [`MAX_TAPS`] taps.
#[inline(never)]
pub(super) fn depthwise(x: &[i8], w: &[i8], bias: &[i32], requant: Requant<'_>, y: &mut [i8], shape: &Depthwise) {
    let window = shape.window();
    let channels = shape.channels;
    if !window.fits(x.len(), y.len()) {
        return;
    }
    let operands_fit = requant.fits(channels) && (bias.is_empty() || bias.len() >= channels);
    debug_assert!(operands_fit, "depthwise: bias or scale too short for {channels}");
    let Some(taps) = window.taps().filter(|taps| (1..=MAX_TAPS).contains(taps)) else { return };
    let w_fits = taps.checked_mul(channels).is_some_and(|need| need <= w.len());
    debug_assert!(w_fits, "depthwise: weights too short for [{channels}, {taps}]");
    if !operands_fit || !w_fits {
        return;
    }
    let narrow = Narrow::new(&requant);
    let [kh, kw] = shape.kernel;
    let [_, stride] = shape.stride;
    // Windows whose columns are apart are gathered one by one.
    let room = (WORDS / 2).checked_div(kh).unwrap_or(0).saturating_sub(kw);
    let steps = if shape.dilation[1] == 1 { room.checked_div(stride).unwrap_or(PIXELS) } else { 0 };
    let most = steps.saturating_add(1).min(PIXELS);
    let mut scratch = Scratch { columns: [0; WORDS], acc: [[0; 4]; PIXELS] };
    for first in (0..channels).step_by(4) {
        let width = (channels - first).min(4);
        let scale: [f32; 4] = core::array::from_fn(|c| scale_at(requant.scale, first + c));
        let strip = Strip {
            x,
            shape,
            first,
            width,
            pad: whole_word(&[shape.pad_value; 4]),
            weights: weights(w, bias, first, shape),
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
    columns: [u32; WORDS],
    acc: [[i32; 4]; PIXELS],
}

/// A bias for each of four channels, and their weights as columns.
#[repr(C)]
struct Weights {
    bias: [i32; 4],
    columns: [u32; 2 * MAX_TAPS],
}

/// Those of up to four channels from `first` on.
fn weights(w: &[i8], bias: &[i32], first: usize, shape: &Depthwise) -> Weights {
    let [kh, kw] = shape.kernel;
    let channels = (shape.channels - first).min(4);
    let of = |tap: usize| {
        let mut four = [0i8; 4];
        for (c, to) in four.iter_mut().enumerate().take(channels) {
            *to = w.get((first + c) * kh * kw + tap).copied().unwrap_or(0);
        }
        whole_word(&four)
    };
    let mut weights = Weights {
        bias: core::array::from_fn(|c| bias.get(first + c).copied().unwrap_or(0)),
        columns: [0; 2 * MAX_TAPS],
    };
    for (kx, column) in weights.columns.chunks_exact_mut((2 * kh).max(1)).enumerate().take(kw) {
        for (pair, to) in column.chunks_mut(4).enumerate() {
            let at = |ky: usize| if ky < kh { of(ky * kw + kx) } else { 0 };
            put_rows(at(2 * pair), at(2 * pair + 1), to);
        }
    }
    weights
}

/// Two rows of four channels as a pair for each; where there is room for two words only, the first row: channels 0 and 2,
/// then 1 and 3.
#[inline(always)]
fn put_rows(a: u32, b: u32, to: &mut [u32]) {
    if let Some(to) = to.first_chunk_mut::<4>() {
        let ([first, second], [third, fourth]) =
            (widen((a & 0xFFFF) | (b << 16)), widen((a >> 16) | (b & 0xFFFF_0000)));
        *to = [first, second, third, fourth];
    } else if let Some(to) = to.first_chunk_mut::<2>() {
        *to = widen(a);
    }
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
        let shape = self.shape;
        let ([kh, kw], [_, stride], [_, step]) = (shape.kernel, shape.stride, shape.dilation);
        let needed = (count - 1) * stride + kw;
        // Columns left of the input, within it, and right of it.
        let left = shape.pad[1].saturating_sub(ox * stride).div_ceil(step.max(1)).min(needed);
        let from = (ox * stride + left * step).wrapping_sub(shape.pad[1]);
        let inside = shape.in_w.saturating_sub(from).div_ceil(step.max(1)).min(needed - left);
        let size = (2 * kh).max(1);
        let Some(columns) = scratch.columns.get_mut(..needed * size) else { return };
        for column in columns.chunks_exact_mut(size) {
            column.chunks_mut(4).for_each(|to| put_rows(self.pad, self.pad, to));
        }
        // Where lines are whole they follow each other, and so do their pixels.
        let lines = PIXELS.checked_div(count).unwrap_or(1);
        let most = if count == shape.out_w { lines * count } else { count };
        let (mut held, mut pixel) = (0, ox);
        for oy in 0..shape.out_h {
            if let Some(to) = columns.get_mut(left * size..(left + inside) * size) {
                self.gather(oy, from, to);
            }
            let Some(acc) = scratch.acc.get_mut(held..held + count) else { return };
            self.sum(columns, acc);
            held += count;
            if held == most || oy + 1 == shape.out_h {
                finish(pixel, scratch.acc.get(..held).unwrap_or(&[]));
                (held, pixel) = (0, (oy + 1) * shape.out_w + ox);
            }
        }
    }

    /// The columns under line `oy` of the output, from column `from` of the input on.
    fn gather(&self, oy: usize, from: usize, to: &mut [u32]) {
        let &Self { x, shape, first, width, pad, .. } = self;
        let window = shape.window();
        let [kh, _] = shape.kernel;
        let step = shape.channels * shape.dilation[1];
        let count = to.len().checked_div(2 * kh).unwrap_or(0);
        let Some(last) = count.checked_sub(1) else { return };
        let len = last * step + width;
        // A line of the input, or `None` for the border.
        let line = |ky: usize| {
            let iy = if ky < kh { window.source(0, oy, ky) } else { None }?;
            let at = (iy * shape.in_w + from) * shape.channels + first;
            x.get(at..).and_then(|x| x.get(..len))
        };
        if kh == 3 && width == 4 {
            let lines = [line(0), line(1), line(2)];
            let call = Lines {
                rows: lines.map(|line| line.map_or((&raw const pad).cast(), <[i8]>::as_ptr)),
                steps: lines.map(|line| if line.is_some() { step } else { 0 }),
                to: to.as_mut_ptr(),
                count,
            };
            // SAFETY: each line that is there holds four elements at `count` places, and `to` so many columns.
            return unsafe { put_three(&call) };
        }
        for pair in 0..kh.div_ceil(2) {
            let (a, b) = (line(2 * pair), line(2 * pair + 1));
            for (i, column) in to.chunks_exact_mut((2 * kh).max(1)).enumerate() {
                let of = |line: Option<&[i8]>| {
                    line.map_or(pad, |line| word(line.get(i * step..i * step + width).unwrap_or(&[])))
                };
                let end = column.len().min(4 * pair + 4);
                put_rows(of(a), of(b), column.get_mut(4 * pair..end).unwrap_or(&mut []));
            }
        }
    }

    /// The sums of as many pixels as `acc` is long.
    fn sum(&self, columns: &[u32], acc: &mut [[i32; 4]]) {
        let ([kh, kw], [_, stride]) = (self.shape.kernel, self.shape.stride);
        let needed = acc.len().checked_sub(1).map_or(usize::MAX, |last| (last * stride + kw) * 2 * kh);
        if columns.len() < needed {
            return;
        }
        let bounds = acc.as_mut_ptr_range();
        let call = Pixels {
            columns: columns.as_ptr(),
            weights: &self.weights,
            acc: bounds.start,
            end: bounds.end,
            step: (stride * 2 * kh).wrapping_sub(kw * 2 * kh).wrapping_mul(size_of::<u32>()),
            across: kw,
            pairs: kh / 2,
            odd: kh % 2,
        };
        // SAFETY: `acc` is not empty, and there are columns for the last pixel; the weights have room for every window.
        unsafe { if [kh, kw] == [3, 3] { multiply_three(&call) } else { multiply(&call) } };
    }
}

/// The arguments of [`put_three`].
#[repr(C)]
struct Lines {
    rows: [*const i8; 3],
    steps: [usize; 3],
    to: *mut u32,
    count: usize,
}

/// Columns of three rows: [`put_rows`] of the first two and of the third.
///
/// # Safety
///
/// `count` is not 0. So many words can be read of each row, one every so many bytes as `steps` says, and so many columns of
/// six words be written.
#[inline(never)]
unsafe fn put_three(p: &Lines) {
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

/// The arguments of [`multiply`] and [`multiply_three`].
#[repr(C)]
struct Pixels {
    columns: *const u32,
    weights: *const Weights,
    acc: *mut [i32; 4],
    end: *mut [i32; 4],
    /// Bytes from the end of a window to the beginning of the next.
    step: usize,
    /// Taps across.
    across: usize,
    /// Pairs of taps down, and whether there is one more.
    pairs: usize,
    odd: usize,
}

/// A row that has no pair: r0 points to it and r1 to its weights.
macro_rules! multiply_row {
    () => {
        "ldrd r2, r3, [r0], #8
         ldrd r10, r11, [r1], #8
         smlabb r6, r2, r10, r6
         smlabb r7, r3, r11, r7
         smlatt r8, r2, r10, r8
         smlatt r9, r3, r11, r9"
    };
}

/// A column of three rows: r0 points to it and r1 to its weights.
macro_rules! multiply_column {
    () => {
        concat!(
            "ldm r0!, {{r2-r5}}
             ldm r1!, {{r10, r11, r12, lr}}
             smlad r6, r2, r10, r6
             smlad r7, r3, r11, r7
             smlad r8, r4, r12, r8
             smlad r9, r5, lr, r9\n",
            multiply_row!()
        )
    };
}

/// The sums from `acc` to `end`, of windows of three by three.
///
/// # Safety
///
/// There is at least one, and columns for each.
#[inline(never)]
unsafe fn multiply_three(p: &Pixels) {
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

/// The sums from `acc` to `end`.
///
/// # Safety
///
/// There is at least one, and columns for each, of at least one row; a window is at least one column wide.
#[inline(never)]
unsafe fn multiply(p: &Pixels) {
    // SAFETY: the contract. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r4-r11}}",
            "ldm r0, {{r0-r5, r8, r9}}",
            // At sp: weights, acc, end, step, taps across, pairs, odd.
            "sub sp, sp, #32",
            "str r1, [sp]",
            "str r2, [sp, #4]",
            "str r3, [sp, #8]",
            "str r4, [sp, #12]",
            "str r5, [sp, #16]",
            "str r8, [sp, #20]",
            "str r9, [sp, #24]",
            "2:",
            "ldr r1, [sp]",
            "ldm r1!, {{r6-r9}}",
            "ldr lr, [sp, #16]",
            // A column; lr of them are left.
            "3:",
            "ldr r12, [sp, #20]",
            "cmp r12, #0",
            "beq 5f",
            "4:",
            "ldm r0!, {{r2-r5}}",
            "ldrd r10, r11, [r1], #8",
            "smlad r6, r2, r10, r6",
            "smlad r7, r3, r11, r7",
            "ldrd r10, r11, [r1], #8",
            "smlad r8, r4, r10, r8",
            "smlad r9, r5, r11, r9",
            "subs r12, r12, #1",
            "bne 4b",
            "5:",
            "ldr r12, [sp, #24]",
            "cmp r12, #0",
            "beq 6f",
            multiply_row!(),
            "6:",
            "subs lr, lr, #1",
            "bne 3b",
            "ldr r2, [sp, #4]",
            "stm r2!, {{r6-r9}}",
            "str r2, [sp, #4]",
            "ldrd r4, r5, [sp, #8]",
            "add r0, r0, r5",
            "cmp r2, r4",
            "bne 2b",
            "add sp, sp, #32",
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
