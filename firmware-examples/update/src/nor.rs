//! Memory that keeps the rules of NOR flash.

use core::sync::atomic::{AtomicBool, Ordering};

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// Bytes that are erased together.
pub const SECTOR: u32 = 4096;
const UNIT: usize = 4;
const LEN: usize = super::FLASH_LEN;

#[unsafe(link_section = ".nor")]
static mut MEMORY: [u8; LEN] = [0; LEN];
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The one flash.
pub struct Nor {
    memory: &'static mut [u8],
}

/// A write that is no write of NOR flash.
#[derive(Debug)]
pub struct Wrong;

impl NorFlashError for Wrong {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl Nor {
    /// The flash, once.
    #[unsafe(link_section = ".bench")]
    #[inline(never)]
    pub fn take() -> Option<Self> {
        // A load and a store: Cortex-M0 has no swap, and nothing else runs.
        if TAKEN.load(Ordering::Relaxed) {
            return None;
        }
        TAKEN.store(true, Ordering::Relaxed);
        let memory = &raw mut MEMORY;
        // SAFETY: `TAKEN` gives the one reference to this memory away once.
        Some(Self { memory: unsafe { &mut *memory } })
    }
}

impl ErrorType for Nor {
    type Error = Wrong;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    #[unsafe(link_section = ".bench")]
    #[inline(never)]
    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Wrong> {
        let from = self.memory.get(offset as usize..).and_then(|m| m.get(..bytes.len())).ok_or(Wrong)?;
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    #[unsafe(link_section = ".bench")]
    #[inline(never)]
    fn capacity(&self) -> usize {
        self.memory.len()
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = UNIT;
    const ERASE_SIZE: usize = SECTOR as usize;

    #[unsafe(link_section = ".bench")]
    #[inline(never)]
    fn erase(&mut self, from: u32, to: u32) -> Result<(), Wrong> {
        self.memory.get_mut(from as usize..to as usize).ok_or(Wrong)?.fill(0xFF);
        Ok(())
    }

    #[unsafe(link_section = ".bench")]
    #[inline(never)]
    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Wrong> {
        let to = self.memory.get_mut(offset as usize..).and_then(|m| m.get_mut(..bytes.len())).ok_or(Wrong)?;
        if to.iter().any(|b| *b != 0xFF) || !(offset as usize).is_multiple_of(UNIT) {
            return Err(Wrong);
        }
        to.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}
