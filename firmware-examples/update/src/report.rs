//! One line of JSON to the host, and the end. None of it is the updater's: it lies in the section `.bench`.

use cortex_m_semihosting::{debug, syscall1};

#[unsafe(link_section = ".bench")]
#[inline(never)]
fn print(text: &[u8]) {
    for byte in text {
        // SAFETY: WRITEC reads the one byte that it is given the address of.
        unsafe { syscall1!(WRITEC, core::ptr::from_ref(byte)) };
    }
}

#[unsafe(link_section = ".bench")]
#[inline(never)]
fn print_number(mut number: u32) {
    let mut digits = [b'0'; 10];
    let mut first = digits.len() - 1;
    for (i, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (number % 10) as u8;
        first = i;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    print(digits.get(first..).unwrap_or(&[]));
}

/// Prints whether all went well and some numbers, and leaves.
#[unsafe(link_section = ".bench")]
#[inline(never)]
pub fn leave(well: bool, numbers: &[(&[u8], u32)]) -> ! {
    print(b"{\"ok\":");
    print(if well { b"true" } else { b"false" });
    for (name, number) in numbers {
        print(b",\"");
        print(name);
        print(b"\":");
        print_number(*number);
    }
    print(b"}\n");
    debug::exit(if well { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::nop();
    }
}
