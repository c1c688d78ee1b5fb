//! NOR flash that keeps what is written when QEMU is killed: a file on the host, written through semihosting.
//!
//! Memory at the flash's address mirrors the file, so that packages are read in place. Erasing gives 0xFF by sectors,
//! programming turns ones into zeros by units of 8 bytes, anything else is an error. A unit is half programmed for a
//! moment, with some of its bits still ones, and a sector passes through a state of disarray before it is erased: a
//! host that kills QEMU at any moment finds in the file what a power cut would leave. What is not modelled: bits that
//! read differently each time, and wear.

use core::sync::atomic::{AtomicBool, Ordering};

use cortex_m_semihosting::{nr, syscall};
use dunlin_mcu::Mapped;
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use crate::map::{FLASH, SECTOR, UNIT};

const LEN: usize = FLASH as usize;
/// Bytes of a file operation while a sector is erased.
const STRIPE: usize = 256;
/// In the folder where QEMU runs.
const NAME: &core::ffi::CStr = c"nor.bin";
/// `SYS_OPEN`'s number for "r+b".
const READ_WRITE: usize = 3;

#[unsafe(link_section = ".nor")]
static mut MEMORY: Memory = Memory([0; LEN]);
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Sections of packages are aligned in memory when the flash is.
#[repr(align(4096))]
struct Memory([u8; LEN]);

/// The one flash.
pub struct Nor {
    mirror: &'static mut [u8],
    file: usize,
    /// xorshift32, for bits in disarray.
    random: u32,
}

/// What is no operation of NOR flash, or a file that cannot be written.
#[derive(Debug)]
pub struct Wrong;

impl NorFlashError for Wrong {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl Nor {
    /// The flash, once; `None` when there is no file of its length.
    pub fn take() -> Option<Self> {
        // A load and a store: Cortex-M0 has no swap, and nothing else runs.
        if TAKEN.load(Ordering::Relaxed) {
            return None;
        }
        TAKEN.store(true, Ordering::Relaxed);
        // SAFETY: `TAKEN` gives the one reference to this memory away once.
        let memory = unsafe { &mut *(&raw mut MEMORY) };
        let mirror = &mut memory.0[..];
        // SAFETY: the arguments are those of SYS_OPEN: address, mode, length without the zero.
        let file = unsafe { syscall(nr::OPEN, &[NAME.as_ptr() as usize, READ_WRITE, NAME.count_bytes()]) };
        if file == usize::MAX {
            return None;
        }
        // SAFETY: the arguments are those of SYS_READ, and the mirror has that many bytes.
        let missing = unsafe { syscall(nr::READ, &[file, mirror.as_mut_ptr() as usize, LEN]) };
        (missing == 0).then_some(Self { mirror, file, random: 0x9E37_79B9 })
    }

    /// Writes a part of the file; whoever kills QEMU finds it written or not.
    fn store(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Wrong> {
        // SAFETY: the arguments are those of SYS_SEEK: file and offset.
        if unsafe { syscall(nr::SEEK, &[self.file, offset]) } != 0 {
            return Err(Wrong);
        }
        // SAFETY: the arguments are those of SYS_WRITE, and `bytes` is that long.
        let left = unsafe { syscall(nr::WRITE, &[self.file, bytes.as_ptr() as usize, bytes.len()]) };
        if left == 0 { Ok(()) } else { Err(Wrong) }
    }

    fn random(&mut self) -> u8 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        (self.random >> 24) as u8
    }
}

impl ErrorType for Nor {
    type Error = Wrong;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Wrong> {
        bytes.copy_from_slice(self.mapped(offset, bytes.len()).ok_or(Wrong)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        LEN
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = UNIT as usize;
    const ERASE_SIZE: usize = SECTOR as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Wrong> {
        let (from, to) = (from as usize, to as usize);
        let whole = from.is_multiple_of(SECTOR as usize) && to.is_multiple_of(SECTOR as usize);
        if !whole || from > to || to > LEN {
            return Err(Wrong);
        }
        for at in (from..to).step_by(STRIPE) {
            let mut stripe = [0; STRIPE];
            stripe.copy_from_slice(self.mirror.get(at..at + STRIPE).ok_or(Wrong)?);
            stripe.iter_mut().for_each(|b| *b |= self.random());
            self.store(at, &stripe)?;
        }
        for at in (from..to).step_by(STRIPE) {
            self.store(at, &[0xFF; STRIPE])?;
        }
        self.mirror.get_mut(from..to).ok_or(Wrong)?.fill(0xFF);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Wrong> {
        let offset = offset as usize;
        let old = self.mirror.get(offset..).and_then(|m| m.get(..bytes.len())).ok_or(Wrong)?;
        let in_units = offset.is_multiple_of(UNIT as usize) && bytes.len().is_multiple_of(UNIT as usize);
        if !in_units || old.iter().zip(bytes).any(|(old, new)| old & new != *new) {
            return Err(Wrong);
        }
        for (at, unit) in (offset..).step_by(UNIT as usize).zip(bytes.chunks(UNIT as usize)) {
            let mut half = [0; UNIT as usize];
            let old = self.mirror.get(at..at + unit.len()).ok_or(Wrong)?;
            half.iter_mut().zip(old).for_each(|(to, from)| *to = *from);
            half.iter_mut().zip(unit).for_each(|(to, new)| *to &= new | self.random());
            self.store(at, &half)?;
            self.store(at, unit)?;
            self.mirror.get_mut(at..at + unit.len()).ok_or(Wrong)?.copy_from_slice(unit);
        }
        Ok(())
    }
}

impl Mapped for Nor {
    fn mapped(&self, offset: u32, len: usize) -> Option<&[u8]> {
        self.mirror.get(offset as usize..)?.get(..len)
    }
}
