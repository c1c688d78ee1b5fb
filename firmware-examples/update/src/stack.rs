//! How deep the stack went: what lies below it is painted, and looked at afterwards.

use core::ptr::{read_volatile, write_volatile};

const PAINT: u32 = 0xC0FF_EE00;
/// Bytes below the stack pointer that are left alone while painting.
const MARGIN: usize = 256;

unsafe extern "C" {
    static __sheap: u32;
    static _stack_start: u32;
}

/// Between the end of the static memory and the top of the stack.
#[unsafe(link_section = ".bench")]
#[inline(never)]
fn bounds() -> (usize, usize) {
    (&raw const __sheap as usize, &raw const _stack_start as usize)
}

/// Paints what the stack has not reached yet.
#[unsafe(link_section = ".bench")]
#[inline(never)]
pub fn paint() {
    let (mut at, _) = bounds();
    let end = cortex_m::register::msp::read() as usize - MARGIN;
    while at < end {
        // SAFETY: between the end of static memory and the stack pointer nothing is in use.
        unsafe { write_volatile(at as *mut u32, PAINT) };
        at += 4;
    }
}

/// Bytes of stack that were used since.
#[unsafe(link_section = ".bench")]
#[inline(never)]
pub fn used() -> usize {
    let (mut at, top) = bounds();
    // SAFETY: as in `paint`, and reading harms nothing.
    while at < top && unsafe { read_volatile(at as *const u32) } == PAINT {
        at += 4;
    }
    top - at
}
