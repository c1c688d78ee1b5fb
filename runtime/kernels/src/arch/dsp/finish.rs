//! From sums to int8, four at a time.

#[cfg(arm_vfp)]
use core::arch::asm;

use super::Narrow;

/// Sums of four rows, channel after channel: into `y` and the three places `others` behind it, one channel after another.
///
/// An offset of 0 in `others` stands for a row that is not there.
///
/// `scale` is one for all channels or one for each; what is too short computes nothing.
pub(super) fn columns(acc: &[[i32; 4]], scale: &[f32], narrow: Narrow, y: &mut [i8], others: [usize; 3]) {
    let furthest = others.iter().fold(0, |most: usize, other| most.max(*other));
    if acc.is_empty() || furthest.checked_add(acc.len()).is_none_or(|need| need > y.len()) {
        return;
    }
    if scale.len() != 1 && scale.len() < acc.len() {
        return;
    }
    #[cfg(arm_vfp)]
    if narrow.finite {
        let bounds = acc.as_ptr_range();
        let call = Columns {
            acc: bounds.start,
            scale: scale.as_ptr(),
            y: y.as_mut_ptr(),
            others,
            end: bounds.end,
            step: if scale.len() == 1 { 0 } else { size_of::<f32>() },
            zero_point: narrow.bounds.zero_point,
            limits: narrow.limits.map(repeat),
        };
        // SAFETY: the lengths of `acc`, `scale` and `y` were compared above.
        return unsafe {
            if narrow.limits == [-128, 127] {
                columns_whole(&call)
            } else {
                columns_within(&call)
            };
        };
    }
    for (j, acc) in acc.iter().enumerate() {
        let scale = crate::requant::scale_at(scale, j);
        let [first, rest @ ..] = *acc;
        // The first row last, as it may stand for others.
        for (offset, acc) in others.into_iter().zip(rest).rev().chain([(0, first)]) {
            if let Some(y) = y.get_mut(offset + j) {
                *y = narrow.quantize(acc, scale);
            }
        }
    }
}

/// Sums of four channels at a time: into `y` every `step`, `width` of them.
///
/// The first four have the first four of `scale`, the next those `next` behind; what is too short computes nothing.
pub(super) fn fours(
    acc: &[[i32; 4]],
    (scale, next): (&[f32], usize),
    narrow: Narrow,
    y: &mut [i8],
    step: usize,
    width: usize,
) {
    let Some(last) = acc.len().checked_sub(1) else { return };
    let fits = |step: usize, width: usize, len: usize| {
        last.checked_mul(step).and_then(|at| at.checked_add(width)).is_some_and(|need| need <= len)
    };
    if !fits(step, width, y.len()) || !fits(next, 4, scale.len()) {
        return;
    }
    #[cfg(arm_vfp)]
    if narrow.finite && width == 4 {
        let bounds = acc.as_ptr_range();
        let call = Fours {
            acc: bounds.start,
            y: y.as_mut_ptr(),
            step,
            end: bounds.end,
            limits: narrow.limits.map(repeat),
            scale: scale.as_ptr(),
            next: next * size_of::<f32>(),
            zero_point: narrow.bounds.zero_point,
        };
        // SAFETY: `y` and `scale` were seen to hold four at the last of as many places as there are sums.
        return unsafe { fours_within(&call) };
    }
    for (i, acc) in acc.iter().enumerate() {
        let y = y.get_mut(i * step..).unwrap_or(&mut []);
        let scale = scale.get(i * next..).unwrap_or(&[]);
        for ((y, acc), scale) in y.iter_mut().zip(acc).zip(scale).take(width) {
            *y = narrow.quantize(*acc, *scale);
        }
    }
}

/// A byte four times.
#[cfg(arm_vfp)]
fn repeat(byte: i32) -> u32 {
    u32::from_ne_bytes([byte as u8; 4])
}

/// The arguments of [`columns_whole`] and [`columns_within`].
#[cfg(arm_vfp)]
#[repr(C)]
struct Columns {
    acc: *const [i32; 4],
    scale: *const f32,
    y: *mut i8,
    others: [usize; 3],
    end: *const [i32; 4],
    step: usize,
    zero_point: i32,
    limits: [u32; 2],
}

/// Four sums of one channel from r0 on, with its scale from r1: into s0 to s3.
#[cfg(arm_vfp)]
macro_rules! scale_column {
    () => {
        "vldmia r0!, {{s0-s3}}
         vldr s4, [r1]
         add r1, r1, r7
         vcvt.f32.s32 s0, s0
         vcvt.f32.s32 s1, s1
         vcvt.f32.s32 s2, s2
         vcvt.f32.s32 s3, s3
         vmul.f32 s0, s0, s4
         vmul.f32 s1, s1, s4
         vmul.f32 s2, s2, s4
         vmul.f32 s3, s3, s4"
    };
}

/// s0 to s3 rounded, half to even as the mode says, with the zero point of r12: into r8 to r11. All of it saturates.
#[cfg(arm_vfp)]
macro_rules! round_four {
    () => {
        "vcvtr.s32.f32 s0, s0
         vcvtr.s32.f32 s1, s1
         vcvtr.s32.f32 s2, s2
         vcvtr.s32.f32 s3, s3
         vmov r8, r9, s0, s1
         vmov r10, r11, s2, s3
         qadd r8, r8, r12
         qadd r9, r9, r12
         qadd r10, r10, r12
         qadd r11, r11, r12
         ssat r8, #8, r8
         ssat r9, #8, r9
         ssat r10, #8, r10
         ssat r11, #8, r11"
    };
}

/// The bytes of r8 to r11 in r8.
#[cfg(arm_vfp)]
macro_rules! pack_four {
    () => {
        "bfi r8, r9, #8, #8
         bfi r8, r10, #16, #8
         bfi r8, r11, #24, #8"
    };
}

/// No byte of r8 below that of `$lo`, then none above that of `$hi`. Uses r9.
#[cfg(arm_vfp)]
macro_rules! bound_four {
    ($lo:literal, $hi:literal) => {
        concat!("ssub8 r9, r8, ", $lo, "\nsel r8, r8, ", $lo, "\nssub8 r9, ", $hi, ", r8\nsel r8, r8, ", $hi)
    };
}

/// [`columns`] where the result may be any int8.
///
/// # Safety
///
/// From `acc` to `end` there is at least one channel; each has a scale `step` behind the one before it, and a place in `y`
/// and `others` behind that.
#[cfg(arm_vfp)]
#[inline(never)]
unsafe fn columns_whole(p: &Columns) {
    // SAFETY: the contract, and the target has a floating-point unit. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r4-r11}}",
            "ldr r12, [r0, #32]",
            "ldm r0, {{r0-r7}}",
            "2:",
            scale_column!(),
            round_four!(),
            "strb r11, [r2, r5]",
            "strb r10, [r2, r4]",
            "strb r9, [r2, r3]",
            "strb r8, [r2], #1",
            "cmp r0, r6",
            "bne 2b",
            "pop {{r4-r11}}",
            inout("r0") core::ptr::from_ref(p) => _,
            out("r1") _,
            out("r2") _,
            out("r3") _,
            out("r12") _,
            out("lr") _,
            out("s0") _,
            out("s1") _,
            out("s2") _,
            out("s3") _,
            out("s4") _,
            out("s5") _,
            out("s6") _,
            out("s7") _,
        );
    }
}

/// [`columns`] with bounds.
///
/// # Safety
///
/// That of [`columns_whole`].
#[cfg(arm_vfp)]
#[inline(never)]
unsafe fn columns_within(p: &Columns) {
    // SAFETY: the contract, and the target has a floating-point unit. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r4-r11}}",
            "add lr, r0, #36",
            "vldmia lr, {{s6, s7}}",
            "ldr r12, [r0, #32]",
            "ldm r0, {{r0-r7}}",
            "2:",
            scale_column!(),
            round_four!(),
            pack_four!(),
            "vmov r10, r11, s6, s7",
            bound_four!("r10", "r11"),
            "lsr r9, r8, #24",
            "strb r9, [r2, r5]",
            "lsr r9, r8, #16",
            "strb r9, [r2, r4]",
            "lsr r9, r8, #8",
            "strb r9, [r2, r3]",
            "strb r8, [r2], #1",
            "cmp r0, r6",
            "bne 2b",
            "pop {{r4-r11}}",
            inout("r0") core::ptr::from_ref(p) => _,
            out("r1") _,
            out("r2") _,
            out("r3") _,
            out("r12") _,
            out("lr") _,
            out("s0") _,
            out("s1") _,
            out("s2") _,
            out("s3") _,
            out("s4") _,
            out("s5") _,
            out("s6") _,
            out("s7") _,
        );
    }
}

/// The arguments of [`fours_within`].
#[cfg(arm_vfp)]
#[repr(C)]
struct Fours {
    acc: *const [i32; 4],
    y: *mut i8,
    step: usize,
    end: *const [i32; 4],
    limits: [u32; 2],
    scale: *const f32,
    next: usize,
    zero_point: i32,
}

/// [`fours`] whose width is four.
///
/// # Safety
///
/// From `acc` to `end` there is at least one four; for each there is a place for four bytes in `y`, `step` behind the one
/// before it, and four scales, `next` bytes behind the ones before.
#[cfg(arm_vfp)]
#[inline(never)]
unsafe fn fours_within(p: &Fours) {
    // SAFETY: the contract, and the target has a floating-point unit. All registers but those named below are as before.
    unsafe {
        asm!(
            "push {{r4-r11}}",
            "ldm r0, {{r0-r7, r12}}",
            "2:",
            "vldmia r6, {{s4-s7}}",
            "vldmia r0!, {{s0-s3}}",
            "add r6, r6, r7",
            "vcvt.f32.s32 s0, s0",
            "vcvt.f32.s32 s1, s1",
            "vcvt.f32.s32 s2, s2",
            "vcvt.f32.s32 s3, s3",
            "vmul.f32 s0, s0, s4",
            "vmul.f32 s1, s1, s5",
            "vmul.f32 s2, s2, s6",
            "vmul.f32 s3, s3, s7",
            round_four!(),
            pack_four!(),
            bound_four!("r4", "r5"),
            "str r8, [r1]",
            "add r1, r1, r2",
            "cmp r0, r3",
            "bne 2b",
            "pop {{r4-r11}}",
            inout("r0") core::ptr::from_ref(p) => _,
            out("r1") _,
            out("r2") _,
            out("r3") _,
            out("r12") _,
            out("s0") _,
            out("s1") _,
            out("s2") _,
            out("s3") _,
            out("s4") _,
            out("s5") _,
            out("s6") _,
            out("s7") _,
        );
    }
}
