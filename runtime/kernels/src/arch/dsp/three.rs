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
    let (window, channels) = (shape.window(), shape.channels);
    let narrow = Narrow::new(&requant);
    let [_, stride] = shape.stride;
    // At least one.
    let most = (COLUMNS - 3).checked_div(stride).map_or(PIXELS, |steps| (steps + 1).min(PIXELS));
    let pad = whole_word(&[shape.pad_value; 4]);
    let border = column([pad; 3]);
    let mut columns = [border; COLUMNS];
    let mut acc = [[0; 4]; PIXELS];
    for first in (0..channels).step_by(4) {
        let width = (channels - first).min(4);
        let scale: [f32; 4] = core::array::from_fn(|c| scale_at(requant.scale, first + c));
        let weights = weights(w, bias, first, width);
        for oy in 0..shape.out_h {
            let lines = [0, 1, 2].map(|ky| {
                let iy = window.source(0, oy, ky)?;
                x.get(iy * shape.in_w * channels + first..)
            });
            let mut ox = 0;
            while ox < shape.out_w {
                let count = (shape.out_w - ox).min(most);
                let needed = (count - 1) * stride + 3;
                // Columns left of the input, within it, and right of it.
                let start = ox * stride;
                let left = shape.pad[1].saturating_sub(start).min(needed);
                let from = (start + left).wrapping_sub(shape.pad[1]);
                let inside = shape.in_w.saturating_sub(from).min(needed - left);
                let (Some(columns), Some(acc)) = (columns.get_mut(..needed), acc.get_mut(..count)) else { return };
                let (before, rest) = columns.split_at_mut_checked(left).unwrap_or_default();
                let (within, after) = rest.split_at_mut_checked(inside).unwrap_or_default();
                before.iter_mut().chain(after).for_each(|to| *to = border);
                gather(lines, from.wrapping_mul(channels), channels, width, pad, within);
                sum(columns, &weights, stride, acc);
                let at = (oy * shape.out_w + ox) * channels + first;
                fours(acc, (&scale, 0), narrow, y.get_mut(at..).unwrap_or(&mut []), channels, width);
                ox += count;
            }
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

/// The columns from element `at` of each line on, one every `channels`; a line that is not there is `pad`.
fn gather(lines: [Option<&[i8]>; 3], at: usize, channels: usize, width: usize, pad: u32, to: &mut [Column]) {
    let Some(last) = to.len().checked_sub(1) else { return };
    let holds = |line: &[i8]| at.checked_add(last * channels + 4).is_some_and(|end| end <= line.len());
    if width == 4 && lines.iter().flatten().all(|line| holds(line)) {
        let call = Lines {
            // SAFETY: `at` is within the line, as was seen.
            rows: lines.map(|line| line.map_or((&raw const pad).cast(), |line| unsafe { line.as_ptr().add(at) })),
            steps: lines.map(|line| if line.is_some() { channels } else { 0 }),
            to: to.as_mut_ptr(),
            count: to.len(),
        };
        // SAFETY: each line that is there holds four elements at as many places as `to` is long.
        return unsafe { put(&call) };
    }
    for (i, to) in to.iter_mut().enumerate() {
        let at = at + i * channels;
        *to = column(lines.map(|line| match line {
            Some(line) => word(line.get(at..at + width).unwrap_or(&[])),
            None => pad,
        }));
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
