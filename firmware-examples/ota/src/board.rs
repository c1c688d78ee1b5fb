//! The board: its serial port, its clock, and why it started.

use core::ptr::{read_volatile, write_volatile};

use dunlin_mcu::Clock;
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};

/// CMSDK APB UART 0: data, state, control, interrupts, divider.
const UART: usize = 0x4000_4000;
const TRANSMIT_FULL: u32 = 1;
const RECEIVE_FULL: u32 = 2;
const ENABLE_BOTH: u32 = 3;
/// 25 MHz by 217: 115,200 bits a second. QEMU asks for 16 at least.
const DIVIDER: u32 = 217;

/// FPGAIO of the MPS2: a counter behind a prescaler of 20 MHz in QEMU.
const COUNTER: usize = 0x4002_8018;
const PRESCALER: usize = 0x4002_801C;

fn read(address: usize) -> u32 {
    // SAFETY: called with the registers above only, which the board has at these addresses.
    unsafe { read_volatile(address as *const u32) }
}

fn write(address: usize, value: u32) {
    // SAFETY: as in `read`; no register above leads to memory being written.
    unsafe { write_volatile(address as *mut u32, value) }
}

/// The port, polled: it holds one byte, and the device listens whenever an answer is due.
pub struct Uart;

impl Uart {
    pub fn new() -> Self {
        write(UART + 0x10, DIVIDER);
        write(UART + 0x08, ENABLE_BOTH);
        Self
    }
}

impl ErrorType for Uart {
    type Error = ErrorKind;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(read(UART + 0x04) & RECEIVE_FULL != 0)
    }
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ErrorKind> {
        let Some(first) = bytes.first_mut() else { return Ok(0) };
        while !self.read_ready()? {}
        *first = read(UART) as u8;
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        for &byte in bytes {
            while read(UART + 0x04) & TRANSMIT_FULL != 0 {}
            write(UART, byte.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// Counts microseconds.
pub struct Counter;

impl Counter {
    pub fn new() -> Self {
        write(PRESCALER, 19);
        Self
    }
}

impl Clock for Counter {
    fn now(&mut self) -> u32 {
        read(COUNTER)
    }
}
