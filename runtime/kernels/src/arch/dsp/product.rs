//! The loops of the matrix product, each a function of its own: they take every register there is, and the compiler leaves
//! fewer.
//!
//! Activations are widened once and serve all output channels. Four of `k` of four rows are eight words: elements 0 and 2 of
//! each row, as halves, then elements 1 and 3 of each. So one word of weights, widened by two instructions, is multiplied
//! with four rows, whose words two `ldm` fetch: 13 instructions for 16 products.

use core::arch::asm;

/// Rows that are multiplied at a time.
pub(super) const ROWS: usize = 4;
/// Words that four of `k` of [`ROWS`] rows take.
pub(super) const WORDS: usize = 8;

/// The arguments of [`panel`].
#[repr(C)]
pub(super) struct Panel {
    /// Weights of the first channel: `[channels][k]`.
    pub(super) weights: *const i8,
    /// What [`widen`] wrote, and behind it the rest of `k`, if there is one: [`WORDS`] with zeros in the place of what
    /// is beyond `k`.
    pub(super) rows: *const u32,
    /// One for each channel.
    pub(super) bias: *const i32,
    /// Where the sums go: of a channel all rows, then of the next.
    pub(super) acc: *mut [i32; ROWS],
    /// Behind the last of them.
    pub(super) end: *mut [i32; ROWS],
    /// `k / 4`
    pub(super) fours: usize,
    /// `k % 4`
    pub(super) rest: usize,
}

/// Widens `fours` times four elements of four rows.
///
/// # Safety
///
/// `fours` is not 0. From each of `rows` on `4 * fours` bytes can be read, and `WORDS * fours` words can be written to `to`,
/// which is aligned.
#[inline(never)]
pub(super) unsafe fn widen(rows: &[*const i8; ROWS], to: *mut u32, fours: usize) {
    // SAFETY: the contract. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r4-r11}}",
            "ldm r0, {{r4-r7}}",
            "2:",
            "ldr r8, [r4], #4",
            "ldr r9, [r5], #4",
            "ldr r10, [r6], #4",
            "ldr r11, [r7], #4",
            "sxtb16 r0, r8",
            "sxtb16 r3, r9",
            "sxtb16 r12, r10",
            "sxtb16 lr, r11",
            "stm r1!, {{r0, r3, r12, lr}}",
            "sxtb16 r8, r8, ror #8",
            "sxtb16 r9, r9, ror #8",
            "sxtb16 r10, r10, ror #8",
            "sxtb16 r11, r11, ror #8",
            "stm r1!, {{r8-r11}}",
            "subs r2, r2, #1",
            "bne 2b",
            "pop {{r4-r11}}",
            inout("r0") rows.as_ptr() => _,
            inout("r1") to => _,
            inout("r2") fours => _,
            out("r3") _,
            out("r12") _,
            out("lr") _,
        );
    }
}

/// Four of `k`: r3 has four weights, r1 points to the rows.
macro_rules! multiply {
    () => {
        "ldm r1!, {{r4-r7}}
         sxtb16 r2, r3
         sxtb16 r3, r3, ror #8
         smlad r8, r4, r2, r8
         smlad r9, r5, r2, r9
         smlad r10, r6, r2, r10
         smlad r11, r7, r2, r11
         ldm r1!, {{r4-r7}}
         smlad r8, r4, r3, r8
         smlad r9, r5, r3, r9
         smlad r10, r6, r3, r10
         smlad r11, r7, r3, r11"
    };
}

/// The sums of four rows with every channel from `acc` to `end`.
///
/// # Safety
///
/// There is at least one channel. What [`Panel`] says can be read and written; `rows` and `acc` are aligned.
#[inline(never)]
pub(super) unsafe fn panel(p: &Panel) {
    // SAFETY: the contract. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r4-r11}}",
            "ldm r0, {{r0-r6}}",
            "mov r12, r3",
            // At sp: rows, end, fours, rest, bias.
            "sub sp, sp, #20",
            "str r1, [sp]",
            "str r4, [sp, #4]",
            "str r5, [sp, #8]",
            "str r6, [sp, #12]",
            "str r2, [sp, #16]",
            // A channel: r0 weights, r8 to r11 sums, r12 where they go.
            "2:",
            "ldr r2, [sp, #16]",
            "ldr r8, [r2], #4",
            "str r2, [sp, #16]",
            "mov r9, r8",
            "mov r10, r8",
            "mov r11, r8",
            "ldr r1, [sp]",
            "ldr lr, [sp, #8]",
            "subs lr, lr, #4",
            "blt 4f",
            "3:",
            "ldr r3, [r0], #4",
            multiply!(),
            "ldr r3, [r0], #4",
            multiply!(),
            "ldr r3, [r0], #4",
            multiply!(),
            "ldr r3, [r0], #4",
            multiply!(),
            "subs lr, lr, #4",
            "bge 3b",
            "4:",
            "adds lr, lr, #4",
            "beq 6f",
            "5:",
            "ldr r3, [r0], #4",
            multiply!(),
            "subs lr, lr, #1",
            "bne 5b",
            "6:",
            "ldr r2, [sp, #12]",
            "cmp r2, #0",
            "bne 8f",
            "7:",
            "stm r12!, {{r8-r11}}",
            "ldr lr, [sp, #4]",
            "cmp r12, lr",
            "bne 2b",
            "add sp, sp, #20",
            "pop {{r4-r11}}",
            "b 22f",
            // One, two or three more.
            "8:",
            "cmp r2, #2",
            "bge 9f",
            "ldrb r3, [r0], #1",
            "b 21f",
            "9:",
            "ldrh r3, [r0], #2",
            "beq 21f",
            "ldrb r2, [r0], #1",
            "orr r3, r3, r2, lsl #16",
            "21:",
            multiply!(),
            "b 7b",
            "22:",
            inout("r0") core::ptr::from_ref(p) => _,
            out("r1") _,
            out("r2") _,
            out("r3") _,
            out("r12") _,
            out("lr") _,
        );
    }
}

/// The arguments of [`row`].
#[repr(C)]
pub(super) struct Row {
    /// Weights of the first channel.
    pub(super) weights: *const i8,
    /// From the weights of the first of four channels to those of the others, in bytes.
    pub(super) others: [usize; 3],
    /// The row, widened: elements 0 and 2 of four, then 1 and 3.
    pub(super) row: *const u32,
    /// `k / 4`
    pub(super) fours: usize,
    /// The sums, biases at first.
    pub(super) acc: *mut [i32; 4],
    /// Behind the last of them.
    pub(super) end: *mut [i32; 4],
    /// From the last weight that was read of the first channel to the fifth channel.
    pub(super) step: usize,
}

/// Four of `k` of a channel, whose weights are in r7.
macro_rules! multiply_row {
    ($acc:literal) => {
        concat!(
            "sxtb16 r6, r7
             sxtb16 r7, r7, ror #8
             smlad ",
            $acc,
            ", r4, r6, ",
            $acc,
            "
             smlad ",
            $acc,
            ", r5, r7, ",
            $acc
        )
    };
}

/// Four of `k` of four channels.
macro_rules! multiply_four {
    () => {
        concat!(
            "ldrd r4, r5, [r12], #8
             ldr r7, [r0, r1]\n",
            multiply_row!("r9"),
            "\nldr r7, [r0, r2]\n",
            multiply_row!("r10"),
            "\nldr r7, [r0, r3]\n",
            multiply_row!("r11"),
            "\nldr r7, [r0], #4\n",
            multiply_row!("r8")
        )
    };
}

/// The sums of one row with four channels after another, without what `k` has beyond a multiple of four.
///
/// # Safety
///
/// There are at least four channels. What [`Row`] says can be read, and the sums written; `row` is aligned.
#[inline(never)]
pub(super) unsafe fn row(p: &mut Row) {
    // SAFETY: the contract. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r0, r4-r11}}",
            "ldm r0, {{r0-r3}}",
            // r0 to r3 weights, r12 the row, r8 to r11 sums, lr fours that are left. At sp: the arguments.
            "2:",
            "ldr lr, [sp]",
            "ldr r12, [lr, #24]",
            "ldm r12!, {{r8-r11}}",
            "str r12, [lr, #24]",
            "ldr r12, [lr, #16]",
            "ldr lr, [lr, #20]",
            "subs lr, lr, #4",
            "blt 4f",
            "3:",
            multiply_four!(),
            multiply_four!(),
            multiply_four!(),
            multiply_four!(),
            "subs lr, lr, #4",
            "bge 3b",
            "4:",
            "adds lr, lr, #4",
            "beq 6f",
            "5:",
            multiply_four!(),
            "subs lr, lr, #1",
            "bne 5b",
            "6:",
            "ldr lr, [sp]",
            "add r12, lr, #24",
            "ldm r12, {{r4, r5, r6}}",
            "sub r7, r4, #16",
            "stm r7, {{r8-r11}}",
            "add r0, r0, r6",
            "cmp r4, r5",
            "bne 2b",
            "pop {{r0, r4-r11}}",
            inout("r0") core::ptr::from_mut(p) => _,
            out("r1") _,
            out("r2") _,
            out("r3") _,
            out("r12") _,
            out("lr") _,
        );
    }
}
