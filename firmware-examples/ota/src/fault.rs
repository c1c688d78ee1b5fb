//! Panics and faults restart the device and leave a note, so that the updater knows that a model on trial may be why.

use core::ptr::{read_volatile, write_volatile};

use dunlin_update::StartCause;

/// Two words that memory does not hold by chance.
const NOTE: [u32; 2] = [0x4655_4C54, !0x4655_4C54];

/// Neither zeroed nor loaded: it outlives a reset, not a loss of power.
#[unsafe(link_section = ".uninit.note")]
static mut LEFT: [u32; 2] = [0; 2];

/// Why the device started; takes the note away.
pub fn cause() -> StartCause {
    // SAFETY: nothing else runs yet, and these are plain words.
    let note = unsafe { read_volatile(&raw const LEFT) };
    leave([0; 2]);
    if note == NOTE { StartCause::Fault } else { StartCause::Power }
}

fn leave(note: [u32; 2]) {
    // SAFETY: nothing else runs: this is called before everything, or when everything has stopped.
    unsafe { write_volatile(&raw mut LEFT, note) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    leave(NOTE);
    cortex_m::peripheral::SCB::sys_reset()
}

#[cortex_m_rt::exception]
unsafe fn HardFault(_: &cortex_m_rt::ExceptionFrame) -> ! {
    leave(NOTE);
    cortex_m::peripheral::SCB::sys_reset()
}
